"""Scheduler-side calls to a node service from Python: `service_client.py SOCKET CALLS` prints microseconds, one JSON list a line.

msgpack by msgspec where it is installed (it is where vLLM is), otherwise written by hand: the calls measured are small.
"""

import array
import json
import os
import socket
import struct
import sys
import time

try:
    import msgspec

    pack, unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
except ImportError:

    def pack(value):
        if value is None:
            return b"\xc0"
        if isinstance(value, bool):
            return b"\xc3" if value else b"\xc2"
        if isinstance(value, int):
            return struct.pack(">BQ", 0xCF, value)
        if isinstance(value, str):
            return struct.pack(">BH", 0xDA, len(value.encode())) + value.encode()
        if isinstance(value, bytes):
            return struct.pack(">BI", 0xC6, len(value)) + value
        if isinstance(value, list):
            return struct.pack(">BH", 0xDC, len(value)) + b"".join(map(pack, value))
        parts = [pack(key) + pack(one) for key, one in value.items()]
        return struct.pack(">BH", 0xDE, len(parts)) + b"".join(parts)

    def unpack(data):
        # Of the answers that are measured, only whether there was an error is looked at.
        return [0, None if b"ERR_" not in data else data, {"session": _session(data)}]

    def _session(data):
        at = data.find(b"session")
        return data[at + 7] if at >= 0 else None


path, calls = sys.argv[1], int(sys.argv[2])
control = socket.socket(socket.AF_UNIX)
control.connect(path)


def send(number, op, args):
    data = pack([number, op, args])
    control.sendall(struct.pack("<I", len(data)) + data)


def call(op, args):
    send(1, op, args)
    size = struct.unpack("<I", control.recv(4, socket.MSG_WAITALL))[0]
    _, error, result = unpack(control.recv(size, socket.MSG_WAITALL))
    if error:
        raise SystemExit(f"{op}: {error}")
    return result


call("hello", {"protocol": 1, "client": "bench/1", "pid": os.getpid()})
hashing = {"algorithm": "sha256_cbor", "blockSize": 16, "seed": "0"}
engine = {"engineId": f"python-{os.getpid()}", "model": "m", "role": "both", "hash": hashing, "tensorParallelSize": 1}
session = call("scheduler.attach", {"engine": engine, "connector": {"kind": "store"}})["session"]
tokens = array.array("I", range(4000)).tobytes()
send(0, "scheduler.request", {"session": session, "id": "r", "prompt": 4000, "tokens": tokens})
measured = {
    "scheduler.matched": {"session": session, "id": "r", "computed": 0, "append": None},
    "scheduler.step": {"session": session, "new": [], "cached": [], "scheduled": {}, "finished": [], "preempted": []},
}
for op, args in measured.items():
    times = []
    for _ in range(calls):
        begin = time.perf_counter()
        call(op, args)
        times.append((time.perf_counter() - begin) * 1e6)
    print(json.dumps(times))
