"""A stock Mooncake store client as a peer of our joined store, driven by JSON lines: a command on stdin, its result on stdout.

Contents are made on both sides from a seed. argv: MASTER METADATA NAME BYTES, the last the size of the segment that it lends.
"""
import json
import os
import sys

# The client logs to stdout and stderr; results go where stdout was.
results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from mooncake.store import MooncakeDistributedStore, ReplicateConfig  # noqa: E402

master, metadata, name, size = sys.argv[1:5]
store = MooncakeDistributedStore()
code = store.setup(name, metadata, int(size), 128 << 20, "tcp", "", master)
if code != 0:
    raise RuntimeError(f"setup: {code}")


def value(seed, size):
    block = bytes((seed * 31 + i * 7) & 255 for i in range(251))
    return (block * (size // 251 + 1))[:size]


def on(segment, copies=1):
    config = ReplicateConfig()
    config.replica_num = copies
    if segment:
        config.preferred_segment = segment
    return config


def put(key, seed, size, segment=""):
    return store.put(key, value(seed, size), on(segment))


def get(key, seed, size):
    got = store.get(key)
    return "right" if got == value(seed, size) else "missing" if got == b"" else "wrong"


def put_batch(prefix, count, size, segment=""):
    keys = [f"{prefix}/{i}" for i in range(count)]
    return store.put_batch(keys, [value(i, size) for i in range(count)], on(segment))


def get_batch(prefix, count, size, step):
    numbers = range(0, count, step)
    got = store.get_batch([f"{prefix}/{i}" for i in numbers])
    return sum(1 for i, one in zip(numbers, got) if one == value(i, size))


COMMANDS = {
    "name": store.get_hostname,
    "put": put,
    "get": get,
    "put_batch": put_batch,
    "get_batch": get_batch,
    "exist": lambda keys: list(store.batch_is_exist(keys)),
    "size": store.get_size,
    "remove": store.remove,
    "remove_by_regex": store.remove_by_regex,
    "upsert": lambda key, seed, size: store.upsert(key, value(seed, size)),
    "put_parts": lambda key, sizes: store.put_parts(key, *[value(i, one) for i, one in enumerate(sizes)]),
    "copies": lambda key: len(store.get_replica_desc(key)),
    "put_copies": lambda key, seed, size, copies: store.put(key, value(seed, size), on("", copies)),
}

results.write(json.dumps({"result": "ready"}) + "\n")
for line in sys.stdin:
    command, arguments = json.loads(line)
    try:
        answer = {"result": COMMANDS[command](*arguments)}
    except Exception as error:  # noqa: BLE001: the test decides
        answer = {"error": f"{type(error).__name__}: {error}"}
    results.write(json.dumps(answer) + "\n")
store.close()
os._exit(0)
