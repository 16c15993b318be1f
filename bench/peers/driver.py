"""What the drivers of peers have in common: two processes, memory on both sides, and questions line by line.

The initiator is what the benchmark starts. It starts the target (the same script with the word `target`), says {"ready":
text} when there is a connection that carries the target's bytes, and answers each JSON line on stdin, {"op": "read" |
"write", "block": bytes, "count": blocks, "runs": batches, "single": bool}, with one of {"nanoseconds": [one of each run]}
or {"error": text}. With `single` a run moves one block. Both processes end with their stdin.

Places are those of src/bench/transfer/places.ts: a batch's blocks are not adjacent to each other in its order, and
successive batches lie in successive parts of the memory, the same on both sides.
"""

import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import time

TARGET = "target"
LENGTH = int(sys.argv[-1])
TARGET_FILL = 0x5A
MAX_PARTS = 8
# Libraries log to stdout too: what is measured is said on a descriptor of its own.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
if sys.platform == "linux":
    # The benchmark stops those it is not measuring: they must not stay when it is killed. PR_SET_PDEATHSIG is 1.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def say(value):
    answers.write(json.dumps(value) + "\n")
    answers.flush()


class Memory:
    """LENGTH bytes that the kernel has given already, in huge pages where it has them."""

    def __init__(self, fill):
        self.map = mmap.mmap(-1, LENGTH)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self.map.madvise(mmap.MADV_HUGEPAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        ctypes.memset(self.address, fill, LENGTH)


def parts(block, count):
    """The offsets of the blocks of each batch."""
    stride = 11 if count % 7 == 0 else 7
    number = max(1, min(MAX_PARTS, LENGTH // (block * count)))
    return [[(part * count + i * stride % count) * block for i in range(count)] for part in range(number)]


def serve(described, *kept):
    """The target: says how it is reached, and keeps what it has until its stdin ends."""
    say(described)
    sys.stdin.read()
    os._exit(0 if kept else 1)


def initiate(script, connect):
    """`connect(what the target said)` returns the memory here and (op, block, places of a batch) -> a callable that moves it."""
    command = [sys.executable, script, TARGET, str(LENGTH)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        memory, prepare = connect(json.loads(child.stdout.readline()))
        prepare("read", 4096, [0])()
        if memory.map[:4096] != bytes([TARGET_FILL]) * 4096:
            raise RuntimeError("a read brought other bytes than the target's")
        say({"ready": os.path.basename(script)})
        for line in sys.stdin:
            try:
                say({"nanoseconds": measure(prepare, json.loads(line))})
            except Exception as error:
                say({"error": f"{type(error).__name__}: {error}"})
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
    finally:
        child.stdin.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
        os._exit(0)


def measure(prepare, question):
    op, block = question["op"], question["block"]
    batches = parts(block, question["count"])
    if question.get("single", False):
        moves = [prepare(op, block, [place]) for place in batches[0][:64]]
    else:
        moves = [prepare(op, block, places) for places in batches]
    # One that was stopped until now polls again.
    prepare("read", 4096, [0])()
    taken = []
    for number in range(question["runs"]):
        move = moves[number % len(moves)]
        begin = time.perf_counter_ns()
        move()
        taken.append(time.perf_counter_ns() - begin)
    return taken
