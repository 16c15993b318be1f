"""Memory and order of GPUs as the service needs them, by ctypes on the CUDA driver that the engine has loaded already.

A KV cache on a GPU is an allocation, or lies in one, or in many that follow each other. The service opens it and copies by
itself; the engine's process does nothing for it. Memory of cudaMalloc has an IPC handle for the whole allocation. Memory of
cuMemCreate (PyTorch's expandable segments) has a file descriptor for each allocation, where its owner made it exportable.
Names and values are those of the CUDA Driver API documentation.

What the engine has given to its stream is not over when the call returns. `Order` says when it is: events are recorded
behind the work. A service that opens events of other processes is told which event a step or a layer waits for, and waits
itself; an older one is told of a step or a layer when its event is over.
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
# CUevent_flags: blocking synchronization, so that a waiting thread sleeps; no timing; for other processes as well.
_EVENT_FLAGS = 1 | 2
_EVENT_INTERPROCESS = 4
# CUmemAllocationHandleType.
_POSIX_FD = 1
_WHOLE = "memory of cudaMalloc can be handed over, and of cuMemCreate where it was made with a POSIX file descriptor"


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

    def descriptor(self, base: int) -> int:
        """The same of an allocation of cuMemCreate, as a file descriptor, which is the caller's to close."""
        allocation, fd = ctypes.c_uint64(), ctypes.c_int(-1)
        self.call("cuMemRetainAllocationHandle", ctypes.byref(allocation), ctypes.c_void_p(base))
        try:
            self.call("cuMemExportToShareableHandle", ctypes.byref(fd), allocation, _POSIX_FD, ctypes.c_uint64(0))
        finally:
            self._library.cuMemRelease(allocation)
        return fd.value

    def event_handle(self, event: ctypes.c_void_p) -> bytes:
        """What other processes open an interprocess event by."""
        handle = _IpcHandle()
        self.call("cuIpcGetEventHandle", ctypes.byref(handle), event)
        return bytes(handle.bytes)


@dataclass
class DeviceMemory:
    """Memory of a GPU that the service opens by a handle: `length` bytes at `address`, at `offset` of an allocation."""

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


@dataclass
class VirtualMemory:
    """The same in allocations of cuMemCreate, one behind the other: base and bytes of each; `offset` is from the first's base."""

    address: int
    length: int
    device: str
    parts: list[tuple[int, int]]
    offset: int
    driver: Driver

    def describe(self, tickets: list[bytes]) -> dict[str, object]:
        """As `worker.register` names it: a ticket for each part, whose descriptor was handed over."""
        parts = [{"ticket": ticket, "size": size} for ticket, (_, size) in zip(tickets, self.parts, strict=True)]
        return {"kind": "cuda-vmm-fd", "device": self.device, "parts": parts, "offset": self.offset, "length": self.length}


def share(driver: Driver, ordinal: int, address: int, length: int) -> DeviceMemory | VirtualMemory:
    """`length` bytes of a GPU's memory, for the service. Raises CudaError where they cannot be handed over."""
    base, size = driver.allocation(address)
    device = driver.uuid(ordinal)
    try:
        handle = driver.handle(base)
    except CudaError as refused:
        parts = _parts(driver, address, length)
        try:
            os.close(driver.descriptor(parts[0][0]))
        except CudaError as error:
            raise CudaError(f"{refused}; {error}: {_WHOLE}") from error
        return VirtualMemory(address, length, device, parts, address - base, driver)
    if address + length > base + size:
        raise CudaError(f"{length} bytes at {address:#x} leave their allocation of {size} bytes at {base:#x}")
    return DeviceMemory(address, length, device, handle, address - base)


def _parts(driver: Driver, address: int, length: int) -> list[tuple[int, int]]:
    parts: list[tuple[int, int]] = []
    at = address
    while at < address + length:
        try:
            base, size = driver.allocation(at)
        except CudaError as error:
            raise CudaError(f"{length} bytes at {address:#x} end at {at:#x}: {error}") from error
        parts.append((base, size))
        at = base + size
    return parts


class Order:
    """When what the engine has given to its stream is over: for one thread, the one that runs the model.

    Events are named by numbers: a layer's index, or STEP. Each is recorded once a step; one that is recorded again while
    somebody waits for it makes him wait for the later time as well, which is late but never wrong.
    """

    STEP = -1

    def __init__(self, driver: Driver, stream: Callable[[], int]) -> None:
        """`stream`: the handle of the stream that the model runs on now; 0 is the default stream."""
        self._driver = driver
        self._stream = stream
        self._events: dict[int, ctypes.c_void_p] = {}
        self._marks: deque[int] = deque()
        # The place of an event's handle in what the service is given.
        self._places: dict[int, int] = {}
        # Whether the service waits for them. Else this process does.
        self.shared = False

    def export(self, layers: list[int]) -> list[bytes]:
        """Handles of the events of a step and of its layers, for the service. Raises CudaError."""
        names = [self.STEP, *layers]
        handles = [self._driver.event_handle(self._event(name)) for name in names]
        self._places = {name: place for place, name in enumerate(names)}
        return handles

    def begin(self) -> int | None:
        """All that the stream has been given comes before the step: the number of the event that says when it is over, for
        the service to wait for; None where it was waited for here."""
        self._marks.clear()
        self._record(self.STEP)
        if self.shared:
            return self._places[self.STEP]
        self._driver.call("cuEventSynchronize", self._events[self.STEP])
        return None

    def mark(self, layer: int) -> int | None:
        """The stream has been given all that writes the layer. The number of its event for the service to wait for; None where
        `over` and `next` say when it is written."""
        self._record(layer)
        if self.shared:
            return self._places[layer]
        self._marks.append(layer)
        return None

    def over(self) -> list[int]:
        """Marked layers that are written by now, in the order of their marks."""
        layers = []
        while self._marks and self._driver.is_over(self._events[self._marks[0]]):
            layers.append(self._marks.popleft())
        return layers

    def next(self) -> int | None:
        """Waits for the next marked layer; None where there is none left."""
        if not self._marks:
            return None
        self._driver.call("cuEventSynchronize", self._events[self._marks[0]])
        return self._marks.popleft()

    def close(self) -> None:
        self._marks.clear()
        while self._events:
            self._driver.call("cuEventDestroy_v2", self._events.popitem()[1])

    def _record(self, name: int) -> None:
        self._driver.call("cuEventRecord", self._event(name), ctypes.c_void_p(self._stream()))

    def _event(self, name: int) -> ctypes.c_void_p:
        if name not in self._events:
            event = ctypes.c_void_p()
            self._driver.call("cuEventCreate", ctypes.byref(event), _EVENT_FLAGS | _EVENT_INTERPROCESS)
            self._events[name] = event
        return self._events[name]
