"""Memory and order of GPUs as the service needs them, by ctypes on the CUDA driver that the engine has loaded already.

A KV cache on a GPU is an allocation, or lies in one. The service opens it by its IPC handle and copies by itself; the
engine's process does nothing for it. Handles name whole allocations of cudaMalloc; memory of cuMemCreate (PyTorch's
expandable segments, vLLM's sleep mode) has none. Names and values are those of the CUDA Driver API documentation.

What the engine has given to its stream is not over when the call returns. `Order` says when it is: events are recorded
behind the work, and the service is told of a step or a layer when its event is over.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LIBRARY = "libcuda.so.1"
_HANDLE_BYTES = 64
_UUID_BYTES = 16
_SUCCESS = 0
_NOT_READY = 600
# CUevent_flags: blocking synchronization, so that a waiting thread sleeps; no timing.
_EVENT_FLAGS = 1 | 2
_WHOLE = "only memory of cudaMalloc can be handed over, not that of PyTorch's expandable segments or of vLLM's sleep mode"


class CudaError(Exception):
    """What the driver refused, in its words."""


class _IpcHandle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_ubyte * _HANDLE_BYTES)]


class Driver:
    """The driver's calls, in the context that is current on this thread (PyTorch's)."""

    def __init__(self, library: str | None = None) -> None:
        """`library`: in place of the machine's; MOONCAKE_CUDA_LIBRARY names one for tests. Raises CudaError."""
        name = library or os.environ.get("MOONCAKE_CUDA_LIBRARY") or _LIBRARY
        try:
            self._library = ctypes.CDLL(name)
        except OSError as error:
            raise CudaError(str(error)) from error

    def call(self, name: str, *arguments: Any) -> None:
        result = getattr(self._library, name)(*arguments)
        if result != _SUCCESS:
            raise CudaError(f"{name}: {self._text(result)}")

    def is_over(self, event: ctypes.c_void_p) -> bool:
        result = self._library.cuEventQuery(event)
        if result not in (_SUCCESS, _NOT_READY):
            raise CudaError(f"cuEventQuery: {self._text(result)}")
        return result == _SUCCESS

    def _text(self, result: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(result, ctypes.byref(text))
        return text.value.decode(errors="replace") if text.value else f"error {result}"

    def uuid(self, ordinal: int) -> str:
        """Of the GPU that this process knows by the number: "GPU-e1f592a8-8254-3ff1-46d4-5cf581aabc32"."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ordinal)
        raw = (ctypes.c_ubyte * _UUID_BYTES)()
        self.call("cuDeviceGetUuid_v2", ctypes.byref(raw), device)
        digits = bytes(raw).hex()
        return "GPU-" + "-".join(digits[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))

    def allocation(self, address: int) -> tuple[int, int]:
        """Base and bytes of the allocation in which an address lies."""
        base, size = ctypes.c_uint64(), ctypes.c_size_t()
        self.call("cuMemGetAddressRange_v2", ctypes.byref(base), ctypes.byref(size), ctypes.c_uint64(address))
        return base.value, size.value

    def handle(self, base: int) -> bytes:
        """What other processes open the allocation by."""
        handle = _IpcHandle()
        self.call("cuIpcGetMemHandle", ctypes.byref(handle), ctypes.c_uint64(base))
        return bytes(handle.bytes)


@dataclass
class DeviceMemory:
    """Memory of a GPU that the service opens: `length` bytes at `address`, which lie at `offset` of an allocation."""

    address: int
    length: int
    device: str
    handle: bytes
    offset: int

    def describe(self) -> dict[str, object]:
        """As `worker.register` names it."""
        return {
            "kind": "cuda-ipc",
            "device": self.device,
            "handle": self.handle,
            "offset": self.offset,
            "length": self.length,
        }


def share(driver: Driver, ordinal: int, address: int, length: int) -> DeviceMemory:
    """`length` bytes of a GPU's memory, for the service. Raises CudaError where they have no IPC handle."""
    base, size = driver.allocation(address)
    if address + length > base + size:
        # Memory of cuMemCreate is many allocations, one behind the other.
        raise CudaError(f"{length} bytes at {address:#x} leave their allocation of {size} bytes at {base:#x}: {_WHOLE}")
    try:
        handle = driver.handle(base)
    except CudaError as error:
        raise CudaError(f"{error}: {_WHOLE}") from error
    return DeviceMemory(address, length, driver.uuid(ordinal), handle, address - base)


class Order:
    """When what the engine has given to its stream is over: for one thread, the one that runs the model."""

    def __init__(self, driver: Driver, stream: Callable[[], int]) -> None:
        """`stream`: the handle of the stream that the model runs on now; 0 is the default stream."""
        self._driver = driver
        self._stream = stream
        self._free: list[ctypes.c_void_p] = []
        self._marks: deque[tuple[ctypes.c_void_p, int]] = deque()

    def mark(self, layer: int) -> None:
        """The stream has been given all that writes the layer."""
        self._marks.append((self._record(), layer))

    def over(self) -> list[int]:
        """Marked layers that are written by now, in the order of their marks."""
        layers = []
        while self._marks and self._driver.is_over(self._marks[0][0]):
            layers.append(self._pop())
        return layers

    def next(self) -> int | None:
        """Waits for the next marked layer; None where there is none left."""
        if not self._marks:
            return None
        self._driver.call("cuEventSynchronize", self._marks[0][0])
        return self._pop()

    def forget(self) -> None:
        """Nobody is to be told of what was marked."""
        while self._marks:
            self._pop()

    def wait(self) -> None:
        """Waits for all that the stream has been given."""
        event = self._record()
        try:
            self._driver.call("cuEventSynchronize", event)
        finally:
            self._free.append(event)

    def close(self) -> None:
        self.forget()
        while self._free:
            self._driver.call("cuEventDestroy_v2", self._free.pop())

    def _pop(self) -> int:
        event, layer = self._marks.popleft()
        self._free.append(event)
        return layer

    def _record(self) -> ctypes.c_void_p:
        event = self._free.pop() if self._free else self._create()
        try:
            self._driver.call("cuEventRecord", event, ctypes.c_void_p(self._stream()))
        except CudaError:
            self._free.append(event)
            raise
        return event

    def _create(self) -> ctypes.c_void_p:
        event = ctypes.c_void_p()
        self._driver.call("cuEventCreate", ctypes.byref(event), _EVENT_FLAGS)
        return event
