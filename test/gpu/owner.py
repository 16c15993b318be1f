"""An inference engine's process: memory on a GPU, written behind a slow kernel on a stream, and an event recorded behind that.
Commands are lines on stdin: `write VALUE`, `read`; `busy` multiplies matrices until stdin ends, and says how often."""
import ctypes
import json
import sys
import time

import torch

cuda = ctypes.CDLL("libcuda.so.1")
torch.zeros(1, device="cuda")
stream = torch.cuda.Stream()
raw = ctypes.c_void_p(stream.cuda_stream)


def call(name, *arguments):
    result = getattr(cuda, name)(*arguments)
    assert result == 0, (name, result)


def say(**what):
    print(json.dumps(what), flush=True)


def busy():
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    while True:
        since, count = time.perf_counter(), 0
        while time.perf_counter() - since < 0.25:
            for _ in range(10):
                a @ a
            torch.cuda.synchronize()
            count += 10
        say(rate=count / (time.perf_counter() - since))


def own():
    length = 1 << 26
    memory, event = ctypes.c_uint64(), ctypes.c_void_p()
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(length))
    call("cuMemsetD8_v2", memory, ctypes.c_ubyte(0), ctypes.c_size_t(length))
    call("cuEventCreate", ctypes.byref(event), 2 | 4)
    handles = [ctypes.create_string_buffer(64) for _ in range(2)]
    call("cuIpcGetMemHandle", handles[0], memory)
    call("cuIpcGetEventHandle", handles[1], event)
    say(memory=handles[0].raw.hex(), event=handles[1].raw.hex(), length=length)
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "write":
            with torch.cuda.stream(stream):
                torch.cuda._sleep(500_000_000)
            call("cuMemsetD8Async", memory, ctypes.c_ubyte(int(rest[0])), ctypes.c_size_t(length), raw)
            call("cuEventRecord", event, raw)
            say(written=int(rest[0]))
        else:
            call("cuStreamWaitEvent", raw, event, 0)
            byte = (ctypes.c_ubyte * 1)()
            call("cuMemcpyDtoHAsync_v2", byte, ctypes.c_uint64(memory.value + length - 1), ctypes.c_size_t(1), raw)
            call("cuStreamSynchronize", raw)
            say(read=byte[0])


busy() if sys.argv[1:] == ["busy"] else own()
