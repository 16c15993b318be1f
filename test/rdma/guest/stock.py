"""A stock transfer engine over RDMA: one JSON request a line on stdin, one JSON answer each on stdout."""
import ctypes
import hashlib
import json
import os
import sys

# The engine logs to stderr, and some of it to stdout: answers go to a copy.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from mooncake.engine import TransferEngine  # noqa: E402

engine = TransferEngine()
memory = None
address = 0


def handle(request):
    global memory, address
    what = request["do"]
    if what == "start":
        code = engine.initialize("127.0.0.1:12345", "P2PHANDSHAKE", "rdma", sys.argv[1])
        memory = ctypes.create_string_buffer(request["bytes"] + 4096)
        address = (ctypes.addressof(memory) + 4095) & ~4095
        code = code or engine.register_memory(address, request["bytes"])
        return {"name": f"127.0.0.1:{engine.get_rpc_port()}", "address": address, "code": code, "bytes": request["bytes"]}
    if what == "hash":
        return {"hash": hashlib.sha256(ctypes.string_at(address, BYTES)).hexdigest()}
    if what == "fill":
        ctypes.memset(address, request["value"], BYTES)
        return {}
    move = engine.transfer_sync_write if what == "write" else engine.transfer_sync_read
    return {"result": move(request["name"], address, request["address"], request["bytes"])}


BYTES = 0
for line in sys.stdin:
    wanted = json.loads(line)
    BYTES = wanted.get("bytes", BYTES)
    print(json.dumps(handle(wanted)), file=answers, flush=True)
