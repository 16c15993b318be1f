"""Two stock dummy clients of one `mooncake_client` process: what they say, one JSON line a step.

A dummy client has no segment and no connection to the master: the `mooncake_client` of its host does everything for it, and they
share memory. Usage: dummy_clients.py HOST:PORT
"""
import ctypes
import json
import os
import sys

# The client logs to stdout and stderr; results go where stdout was.
results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from mooncake.store import MooncakeDistributedStore  # noqa: E402

MIB = 1 << 20


def say(step, value):
    results.write(json.dumps([step, value]) + "\n")


def value(seed, size=1000):
    return (bytes((seed * 31 + i * 7) & 255 for i in range(251)) * (size // 251 + 1))[:size]


def open_store():
    store = MooncakeDistributedStore()
    code = store.setup_dummy(64 * MIB, 16 * MIB, sys.argv[1])
    if code != 0:
        raise RuntimeError(f"setup_dummy: {code}")
    return store


a, b = open_store(), open_store()
say("put", [a.put("k", value(1)), a.put("k", value(2))])
say("get", [a.get("k") == value(1), b.get("k") == value(1)])
say("large", [b.put("large", value(3, 5 * MIB)), a.get("large") == value(3, 5 * MIB)])
say("absent", [a.get("absent").hex(), a.get_size("absent"), a.is_exist("absent"), a.remove("absent")])
say("sizes", [b.get_size("k"), b.is_exist("k"), a.batch_is_exist(["k", "absent", "large"])])
say("parts", [a.put_parts("parts", value(1, 10), value(2, 20)), b.get("parts") == value(1, 10) + value(2, 20)])
say("upsert", [a.upsert("up", value(4)), b.upsert("up", value(5, 77)), a.get("up") == value(5, 77)])
say("batch", [a.put_batch(["b1", "b2"], [value(6, 10), value(7, 20)]), b.get_batch(["b1", "b2"]) == [value(6, 10), value(7, 20)]])
at = a.alloc_from_mem_pool(4 * MIB)
say("register", [at != 0, a.register_buffer(at, 4 * MIB)])
ctypes.memmove(at, value(8, MIB), MIB)
say("zero copy put", [a.put_from("from", at, MIB), b.get("from") == value(8, MIB)])
say("zero copy get", [a.get_into("large", at, 4 * MIB), a.get_into("from", at + 2 * MIB, 2 * MIB)])
say("its bytes", ctypes.string_at(at + 2 * MIB, MIB) == value(8, MIB))
say("batch into", a.batch_get_into(["from", "absent"], [at, at + 2 * MIB], [2 * MIB, MIB]))
say("batch from", [a.batch_put_from(["f1", "f2"], [at, at + 100], [100, 200]), b.get_size("f2")])
say("leased", a.remove("k"))
say("forced", [a.remove("k", True), b.is_exist("k")])
say("regex", b.remove_by_regex("^b[0-9]$", True))
say("close", [a.close(), b.get("up") == value(5, 77), b.close()])
results.write("done\n")
results.flush()
os._exit(0)
