"""NIXL over UCX, for the benchmark of the transfer engine (see driver.py). argv: bytes of memory on each side.

UCX_TLS in the environment says which of its transports: `tcp`, or `posix,sysv,cma`. The wheel is nixl-cu12 1.5.1 without
its dependencies, and numpy. A transfer is prepared before it is measured: what is timed is posting it and waiting.
"""

import os
import sys

import numpy as np

os.environ.setdefault("NIXL_LOG_LEVEL", "ERROR")

from driver import LENGTH, TARGET, TARGET_FILL, Memory, initiate, serve  # noqa: E402
from nixl_cu12 import nixl_agent, nixl_agent_config  # noqa: E402


def agent(name, fill):
    made = nixl_agent(name, nixl_agent_config(backends=[]))
    # UCX's shared memory cannot tell that a peer failed, which NIXL asks for otherwise.
    local = "tcp" not in os.environ.get("UCX_TLS", "tcp").split(",")
    made.create_backend("UCX", {"ucx_error_handling_mode": "none" if local else "peer"})
    memory = Memory(fill)
    return made, memory, made.register_memory([(memory.address, LENGTH, 0, "")], "DRAM")


def target():
    made, memory, registered = agent("target", TARGET_FILL)
    serve({"metadata": made.get_agent_metadata().hex(), "address": memory.address}, made, memory, registered)


def connect(peer):
    made, memory, registered = agent("initiator", 1)
    memory.registered = registered
    name = made.add_remote_agent(bytes.fromhex(peer["metadata"]))
    remote = name if isinstance(name, str) else name.decode()

    def descriptors(base, places, block):
        rows = np.array([(base + place, block, 0) for place in places], dtype=np.uint64)
        return made.get_xfer_descs(rows, "DRAM")

    def prepare(op, block, places):
        ours, theirs = (descriptors(base, places, block) for base in (memory.address, peer["address"]))
        handle = made.initialize_xfer(op.upper(), ours, theirs, remote)

        def move():
            state = made.transfer(handle)
            while state == "PROC":
                state = made.check_xfer_state(handle)
            if state != "DONE":
                raise RuntimeError(f"transfer: {state}")

        return move

    return memory, prepare


if TARGET in sys.argv[1:]:
    target()
else:
    initiate(__file__, connect)
