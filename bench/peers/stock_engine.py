"""The stock Mooncake Transfer Engine over TCP, for the benchmark of the transfer engine (see driver.py).

argv: bytes of memory on each side. The wheel is mooncake-transfer-engine-non-cuda 0.3.13.post1 (needs Debian's
libibverbs1). P2P handshake, otherwise its defaults; one batch a call, one descriptor by the call for one.
"""

import sys

from driver import LENGTH, TARGET, TARGET_FILL, Memory, initiate, serve
from mooncake.engine import TransferEngine


def engine(fill):
    made = TransferEngine()
    memory = Memory(fill)
    for code in (
        made.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", ""),
        made.register_memory(memory.address, LENGTH),
    ):
        if code != 0:
            raise RuntimeError(f"the engine returned {code}")
    return made, memory


def target():
    made, memory = engine(TARGET_FILL)
    serve({"name": f"127.0.0.1:{made.get_rpc_port()}", "address": memory.address}, made, memory)


def connect(peer):
    made, memory = engine(1)
    name = peer["name"]

    def prepare(op, block, places):
        ours, theirs = ([base + place for place in places] for base in (memory.address, peer["address"]))
        if len(places) == 1:
            call, arguments = f"transfer_sync_{op}", (name, ours[0], theirs[0], block)
        else:
            call, arguments = f"batch_transfer_sync_{op}", (name, ours, theirs, [block] * len(places))
        function = getattr(made, call)

        def move():
            code = function(*arguments)
            if code != 0:
                raise RuntimeError(f"{call} of {len(places)} returned {code}")

        return move

    return memory, prepare


if TARGET in sys.argv[1:]:
    target()
else:
    initiate(__file__, connect)
