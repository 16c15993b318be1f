"""A stock Mooncake store client, unchanged: every form of put and get, and the rest of its API, against one master.

Prints one JSON line per step, in order; the two masters' lines are compared. `load` puts and gets for as long as stdin is open.
Usage: store_client.py scenario|load|keep MASTER METADATA NAME
"""
import ctypes
import json
import mmap
import os
import sys
import time

# The client logs to stdout and stderr; results go where stdout was.
results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from mooncake.store import MooncakeDistributedStore, ReplicateConfig, SoftPinAction  # noqa: E402

mode, master, metadata, name = sys.argv[1:5]
MIB = 1 << 20


def say(step, value):
    results.write(json.dumps([step, value]) + "\n")


def open_store(label, size=64 * MIB):
    store = MooncakeDistributedStore()
    code = store.setup(label, metadata, size, 16 * MIB, "tcp", "", master)
    if code != 0:
        raise RuntimeError(f"setup: {code}")
    return store


def content(seed, size):
    return bytes((seed * 31 + i * 7) & 255 for i in range(min(size, 251))) * (size // 251 + 1)


def value(seed, size=1000):
    return content(seed, size)[:size]


def memory(store, size):
    area = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if store.register_buffer(address, size) != 0:
        raise RuntimeError("register_buffer")
    return area, address


def scenario():
    a = open_store(f"127.0.0.1:{name}")
    b = open_store(f"127.0.0.1:{int(name) + 1}")
    area, at = memory(a, 8 * MIB)
    say("health", a.health_check())
    say("put", [a.put("k", value(1)), a.put("k", value(2)), a.get("k") == value(1), b.get("k") == value(1)])
    say("get of another client's", [b.put("kb", value(3, 3 * MIB)), a.get("kb") == value(3, 3 * MIB)])
    say("absent", [a.get("absent").hex(), a.get_size("absent"), a.is_exist("absent"), a.remove("absent")])
    say("sizes", [a.get_size("k"), a.is_exist("k"), b.is_exist("k")])
    say("empty value", a.put("empty", b""))
    say("put_parts", [a.put_parts("parts", value(1, 10), value(2, 20)), a.get("parts") == value(1, 10) + value(2, 20)])
    say("upsert", [a.upsert("up", value(4)), a.upsert("up", value(5)), b.get("up") == value(5)])
    say("upsert of another size", [b.upsert("up", value(6, 77)), a.get("up") == value(6, 77)])
    say("upsert_parts", [a.upsert_parts("up2", value(1, 5), value(2, 6)), a.get_size("up2")])
    area[:500] = value(7, 500)
    say("put_from", [a.put_from("from", at, 500), b.get("from") == value(7, 500)])
    say("upsert_from", [a.upsert_from("from2", at, 400), b.get("from2") == value(7, 400)])
    say("get_into", [a.get_into("kb", at, 8 * MIB), area[: 3 * MIB] == value(3, 3 * MIB), a.get_into("k", at, 10)])
    area[:500] = value(7, 500)
    say("batch_put_from", a.batch_put_from(["f1", "f2"], [at, at + 100], [100, 200]))
    say("batch_upsert_from", a.batch_upsert_from(["f1", "f3"], [at, at + 100], [100, 200]))
    codes = b.batch_is_exist(["f1", "f2", "f3", "f4"])
    say("batch_is_exist", codes)
    got = a.batch_get_into(["f2", "absent"], [at + MIB, at + 2 * MIB], [MIB, MIB])
    say("batch_get_into", [got, area[MIB : MIB + 200] == value(7, 500)[100:300]])
    say("multi buffers", a.batch_put_from_multi_buffers(["m1"], [[at, at + 200]], [[50, 60]]))
    wanted = value(7, 500)[:50] + value(7, 500)[200:260]
    say("multi buffers read", b.get("m1") == wanted)
    parts = a.batch_get_into_multi_buffers(["m1"], [[at + MIB, at + 2 * MIB]], [[50, 60]])
    say("multi buffers into", [parts, area[MIB : MIB + 50] + area[2 * MIB : 2 * MIB + 60] == wanted])
    say("put_batch", a.put_batch(["b1", "b2"], [value(1, 10), value(2, 20)]))
    say("get_batch", [x == y for x, y in zip(b.get_batch(["b1", "b2", "absent"]), [value(1, 10), value(2, 20), b""])])
    say("upsert_batch", [a.upsert_batch(["b1", "b3"], [value(3, 10), value(4, 40)]), b.get("b1") == value(3, 10)])
    handle = b.get_buffer("k")
    say("get_buffer", [handle.size(), bytes(handle) == value(1) if hasattr(handle, "__buffer__") else None])
    say("batch_get_buffer", [h.size() if h else None for h in a.batch_get_buffer(["k", "absent"])])
    for count in [1, 100, 255, 256, 1000, 10_000]:
        keys = [f"n{count}/{i}" for i in range(count)]
        config = ReplicateConfig()
        # Thousands of small transfers between two processes fail in the stock engine by themselves (-800).
        far = count <= 1000
        if not far:
            config.preferred_segment = a.get_hostname()
        code = a.put_batch(keys, [value(i, 16) for i in range(count)], config)
        found = b.batch_is_exist(keys + ["absent"])
        step = max(1, count // 100)
        same = (b if far else a).get_batch(keys[::step]) == [value(i, 16) for i in range(0, count, step)]
        say(f"batch of {count}", [code, sum(found), found[-1], same])
    config = ReplicateConfig()
    config.replica_num = 2
    say("two copies", [a.put("two", value(8), config), len(a.get_replica_desc("two"))])
    config = ReplicateConfig()
    config.with_hard_pin = True
    say("hard pin", [a.put("hard", value(1), config), b.get("hard") == value(1)])
    config = ReplicateConfig()
    config.soft_pin_action = SoftPinAction.ENABLE
    config.soft_pin_ttl_ms = 1000
    say("soft pin", a.put("soft", value(1), config))
    config.soft_pin_ttl_ms = 1 << 40
    say("soft pin too long", a.put("soft2", value(1), config))
    config = ReplicateConfig()
    config.group_ids = ["g", "h"]
    say("groups", [a.put_batch(["g1", "g2"], [value(1), value(2)], config), b.get("g2") == value(2)])
    config = ReplicateConfig()
    config.preferred_segment = b.get_hostname()
    say("preferred", a.put("pref", value(1), config))
    say("leased", [a.is_exist("k"), a.remove("k")])
    time.sleep(3)
    say("lease over", [a.remove("k"), b.is_exist("k")])
    say("batch_remove", a.batch_remove(["b1", "absent"], True))
    say("batch_replica_clear", [a.batch_replica_clear(["from", "absent"]), b.is_exist("from")])
    say("remove_by_regex", [a.remove_by_regex("^n100/", True), a.is_exist("n100/5"), a.is_exist("n1000/5")])
    say("bad regex", a.remove_by_regex("(", True))
    b.close()
    time.sleep(0.2)
    say("after the other closed", [a.put("last", value(9)), a.get("last") == value(9)])
    say("remove_all", [a.remove_all(True) > 100, a.is_exist("last")])
    say("closed", a.close())


def load():
    store = open_store(f"127.0.0.1:{name}")
    say("ready", None)
    number = 0
    while True:
        number += 1
        key = f"load/{number}"
        put = store.put(key, value(number & 255, 4096))
        got = store.get(key) if put == 0 else b""
        # Whatever is acknowledged and then read is either right or missing.
        say("round", [put, "right" if got == value(number & 255, 4096) else "missing" if got == b"" else "wrong"])
        time.sleep(0.02)


def keep():
    """Objects that are put once and looked at for ever after: how many are right, missing, wrong."""
    store = open_store(f"127.0.0.1:{name}")
    keys = [f"keep/{i}" for i in range(100)]
    say("kept", [store.put(key, value(i, 4096)) for i, key in enumerate(keys)].count(0))
    while True:
        got = [store.get(key) for key in keys]
        right = sum(one == value(i, 4096) for i, one in enumerate(got))
        missing = got.count(b"")
        say("seen", [right, missing, len(keys) - right - missing])
        time.sleep(0.2)


try:
    {"scenario": scenario, "load": load, "keep": keep}[mode]()
except Exception as error:  # noqa: BLE001: the test decides
    say("error", f"{type(error).__name__}: {error}")
results.flush()
os._exit(0)
