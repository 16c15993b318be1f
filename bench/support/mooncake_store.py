"""The stock Mooncake client for bench/store.bench.ts: a client and a master of its own, driven line by line.

Each line on stdin is "OPERATION FIRST COUNT", each answer on stdout the nanoseconds that COUNT operations took on the
objects FIRST, FIRST + 1, ...; "remove" answers 0. argv: port of the master, bytes of a value, bytes of the segment.
Checksums are switched by the environment (MOONCAKE_STORE_CHECKSUM), which the client reads when it starts.
"""

import ctypes
import os
import subprocess
import sys
import time

PORT, SIZE, SEGMENT = (int(word) for word in sys.argv[1:4])
ANSWERS = os.fdopen(os.dup(1), "w")
# The client logs to both; what is measured is said on the answers alone.
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.dup2(1, 2)

master = subprocess.Popen(
    [
        os.path.join(os.path.dirname(sys.executable), "mooncake_master"),
        f"--rpc_port={PORT}",
        f"--metrics_port={PORT + 1}",
        "--rpc_address=127.0.0.1",
    ]
)

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


try:
    store = connect()
    values = [os.urandom(SIZE) for _ in range(4)]
    into = ctypes.create_string_buffer(SIZE)
    address = ctypes.addressof(into)
    check(store.register_buffer(address, SIZE) == 0)
    operations = {
        "put": lambda i: check(store.put(f"key-{i}", values[i & 3]) == 0),
        "get": lambda i: check(len(store.get(f"key-{i}")) == SIZE),
        "get_into": lambda i: check(store.get_into(f"key-{i}", address, SIZE) == SIZE),
        "get_buffer": lambda i: check(store.get_buffer(f"key-{i}").size() == SIZE),
        "remove": lambda i: check(store.remove(f"key-{i}", True) == 0),
    }
    # What is handed out is what was put: once, before anything is timed.
    operations["put"](0)
    check(store.get("key-0") == values[0])
    operations["remove"](0)
    print("ready", file=ANSWERS, flush=True)
    for line in sys.stdin:
        name, first, count = line.split()
        operation = operations[name]
        keys = range(int(first), int(first) + int(count))
        begin = time.perf_counter_ns()
        for i in keys:
            operation(i)
        taken = time.perf_counter_ns() - begin
        print(0 if name == "remove" else taken, file=ANSWERS, flush=True)
    store.close()
finally:
    master.kill()
    master.wait()
