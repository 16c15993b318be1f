"""A stock Mooncake client for bench/connect.bench.ts, of a cluster whose master runs already, driven line by line.

Each line on stdin is "OPERATION FIRST COUNT", each answer on stdout the nanoseconds that COUNT operations (or one batch of
COUNT) took on the objects FIRST, FIRST + 1, ...; "remove" answers 0. argv: port of the master, bytes of a value, bytes of the
segment that it lends (0: none).
"""

import ctypes
import os
import sys
import time

PORT, SIZE, SEGMENT = (int(word) for word in sys.argv[1:4])
MOST = 64
ANSWERS = os.fdopen(os.dup(1), "w")
# The client logs to both; what is measured is said on the answers alone.
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.dup2(1, 2)

from mooncake.store import MooncakeDistributedStore  # noqa: E402


def connect():
    last = None
    for _ in range(50):
        store = MooncakeDistributedStore()
        last = store.setup("127.0.0.1", "P2PHANDSHAKE", SEGMENT, 256 << 20, "tcp", "", f"127.0.0.1:{PORT}")
        if last == 0:
            return store
        time.sleep(0.1)
    raise RuntimeError(f"setup: {last}")


def check(fine):
    if not fine:
        raise RuntimeError("an operation failed")


store = connect()
value = os.urandom(SIZE)
area = ctypes.create_string_buffer(value * MOST, SIZE * MOST)
address = ctypes.addressof(area)
check(store.register_buffer(address, SIZE * MOST) == 0)


def places(count):
    return [address + SIZE * i for i in range(count)]


def batch_put(first, count):
    keys = [f"key-{i}" for i in range(first, first + count)]
    check(store.batch_put_from(keys, places(count), [SIZE] * count) == [0] * count)


def batch_get(first, count):
    keys = [f"key-{i}" for i in range(first, first + count)]
    check(store.batch_get_into(keys, places(count), [SIZE] * count) == [SIZE] * count)


operations = {
    "put": lambda i: check(store.put(f"key-{i}", value) == 0),
    "putFrom": lambda i: check(store.put_from(f"key-{i}", address, SIZE) == 0),
    "get": lambda i: check(len(store.get(f"key-{i}")) == SIZE),
    "getInto": lambda i: check(store.get_into(f"key-{i}", address, SIZE) == SIZE),
    "remove": lambda i: check(store.remove(f"key-{i}", True) == 0),
}
print("ready", file=ANSWERS, flush=True)
for line in sys.stdin:
    name, first, count = line.split()
    first, count = int(first), int(count)
    begin = time.perf_counter_ns()
    if name == "batchPutFrom":
        batch_put(first, count)
    elif name == "batchGetInto":
        batch_get(first, count)
    else:
        for i in range(first, first + count):
            operations[name](i)
    taken = time.perf_counter_ns() - begin
    print(0 if name == "remove" else taken, file=ANSWERS, flush=True)
store.close()
os._exit(0)
