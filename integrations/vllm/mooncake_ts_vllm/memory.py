"""Host memory that engine and service share, under tensors that stay where they are (docs/service.md, Host memory).

A KV cache on the CPU is anonymous memory. `SharedMemory.under` makes a memfd of its pages, copies what they hold, and maps
it over the same addresses; the service maps the same memfd. Pages are whole: bytes of other allocations in the first and
last page move with them, unchanged.

`replace` is the fence for a service that fell silent but may live: it could still write a load that was given up into
blocks that are others' by now. New memory is mapped over the addresses, and what the service writes reaches nobody.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import secrets
import socket
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .cuda import CudaError, DeviceMemory, VirtualMemory

PAGE = mmap.PAGESIZE
# Less is not worth a descriptor of its own.
SMALLEST = 1 << 20
# glibc's largest heap beside the main one (HEAP_MAX_SIZE). Less may lie in a heap, which malloc grows, trims and believes to
# be zero where it did: another mapping in its midst would break it. `own_mapping` tells the two apart.
LARGEST_HEAP = 64 << 20
_CHUNK = 1 << 20
_MAP_FIXED = 0x10
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MADV_HUGEPAGE = 14
# fcntl(2); Python names them only since 3.11 on some systems.
_F_ADD_SEALS = 1033
_F_SEAL_SHRINK = 0x0002
# Of a packet to the descriptor socket: what comes with it is an allocation on a GPU.
_ALLOCATION = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value


class NotShareable(Exception):
    """Why memory cannot be shared this way."""


def _map(address: int | None, length: int, fd: int) -> int:
    flags = mmap.MAP_SHARED | (_MAP_FIXED if address is not None else 0)
    mapped = _libc.mmap(address, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
    if mapped == _MAP_FAILED:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return mapped


def _check_private(start: int, end: int) -> None:
    """Raises NotShareable unless every page of the range is private anonymous memory that may be written."""
    at = start
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            first, last = (int(part, 16) for part in fields[0].split("-"))
            if last <= at or first >= end:
                continue
            path = fields[5].strip() if len(fields) > 5 else ""
            if first > at:
                break
            if fields[1] != "rw-p" or not (path == "" or path.startswith("[anon:")):
                raise NotShareable(f"{fields[0]} is {fields[1]} {path}, not private anonymous memory")
            at = last
            if at >= end:
                return
    raise NotShareable(f"{at:#x} is not mapped")


def own_mapping(address: int, length: int) -> bool:
    """Whether glibc mapped this allocation by itself.

    Before it stands the chunk's header: the bytes from the mapping's start to the header, and the bytes from there to its
    end with three flags, of which the second says that it was mapped (malloc/malloc.c: prev_size, mchunk_size, IS_MMAPPED).
    """
    if address % PAGE < 16:
        return False
    before, size = struct.unpack("<QQ", ctypes.string_at(address - 16, 16))
    flags, size = size & 7, size & ~7
    start = address - 16 - before
    whole = start % PAGE == 0 and (before + size) % PAGE == 0
    return flags == 2 and whole and address + length <= start + before + size


@contextmanager
def mapped_allocations() -> Iterator[None]:
    """Within it, glibc maps by itself what is `SMALLEST` or larger, so that a small KV cache can be shared, too."""
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is None:
        yield
        return
    # What lies free in the heap is used first.
    _libc.malloc_trim(0)
    mallopt(_M_MMAP_THRESHOLD, SMALLEST)
    try:
        yield
    finally:
        # Where the thresholds go by themselves in a process that frees large buffers; set once, they stay.
        mallopt(_M_MMAP_THRESHOLD, LARGEST_HEAP // 2)
        mallopt(_M_TRIM_THRESHOLD, LARGEST_HEAP)


class SharedMemory:
    """`length` bytes at `address` (both whole pages) that are a memfd. Stays for the life of the process."""

    def __init__(self, address: int, length: int) -> None:
        self.address = address
        self.length = length
        self.fd = -1
        self.replace()

    @classmethod
    def under(cls, address: int, length: int) -> SharedMemory:
        """Shares the pages of `length` bytes at `address`. Raises NotShareable, OSError; then nothing has changed."""
        if length < SMALLEST:
            raise NotShareable(f"{length} bytes are less than {SMALLEST}")
        if length < LARGEST_HEAP and not own_mapping(address, length):
            raise NotShareable(f"{length} bytes lie in a heap of malloc's")
        start = address // PAGE * PAGE
        end = -(-(address + length) // PAGE) * PAGE
        _check_private(start, end)
        return cls(start, end - start)

    def replace(self) -> None:
        """Puts a new memfd with the same bytes under the addresses; nothing else may write to them meanwhile."""
        fd = os.memfd_create("mooncake-ts-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, self.length)
            fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_SHRINK)
            copy = _map(None, self.length, fd)
            try:
                _copy(copy, self.address, self.length)
                _map(self.address, self.length, fd)
            finally:
                _libc.munmap(copy, self.length)
        except BaseException:
            os.close(fd)
            raise
        # Huge pages where the system gives them to shared memory; only speed depends on it.
        _libc.madvise(self.address, self.length, _MADV_HUGEPAGE)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = fd

    def offer(self, descriptors: str, timeout: float) -> bytes:
        """Gives the descriptor to the service at its descriptor socket; the ticket that names it. Raises OSError."""
        with _connected(descriptors, timeout) as peer:
            return _hand_over(peer, self.fd, struct.pack("<Q", self.length))

    def close(self) -> None:
        """Gives up the descriptor; the memory stays mapped, as tensors lie in it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _connected(descriptors: str, timeout: float) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        peer.settimeout(timeout)
        peer.connect(descriptors)
    except BaseException:
        peer.close()
        raise
    return peer


def _hand_over(peer: socket.socket, fd: int, what: bytes) -> bytes:
    """The ticket under which the descriptor waits at the service. Raises OSError."""
    ticket = secrets.token_bytes(16)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]).tobytes())]
    peer.sendmsg([ticket + what], rights)
    answer = peer.recv(4096)
    if len(answer) < 20 or answer[:16] != ticket:
        raise OSError("the descriptor socket gave no answer")
    if struct.unpack_from("<I", answer, 16)[0] != 0:
        raise OSError(f"the service refused the memory: {answer[20:].decode(errors='replace')}")
    return ticket


def _offer_parts(memory: VirtualMemory, descriptors: str, timeout: float) -> list[bytes]:
    """Hands a descriptor of each allocation over: made for that and closed again, since there may be thousands."""
    tickets = []
    with _connected(descriptors, timeout) as peer:
        for base, size in memory.parts:
            try:
                fd = memory.driver.descriptor(base)
            except CudaError as error:
                raise OSError(f"memory at {base:#x} cannot be handed over: {error}") from error
            try:
                tickets.append(_hand_over(peer, fd, struct.pack("<QQ", size, _ALLOCATION)))
            finally:
                os.close(fd)
    return tickets


def _copy(to: int, source: int, length: int) -> None:
    """Copies what is not zero: a cache that was never written stays without pages on both sides."""
    zeros = ctypes.create_string_buffer(_CHUNK)
    for offset in range(0, length, _CHUNK):
        size = min(_CHUNK, length - offset)
        if _libc.memcmp(source + offset, zeros, size) != 0:
            ctypes.memmove(to + offset, source + offset, size)


@dataclass
class ForeignMemory:
    """Memory that cannot be shared: the service reads and writes it in this process."""

    address: int
    length: int


@dataclass
class Storage:
    """One allocation in which tensors lie."""

    address: int
    length: int
    shared: bool


def share(storage: Storage) -> tuple[SharedMemory | ForeignMemory, str | None]:
    """The storage as memory of the service's, and why it is not shared where it is not."""
    if storage.shared:
        return ForeignMemory(storage.address, storage.length), "it is shared with other processes already"
    try:
        return SharedMemory.under(storage.address, storage.length), None
    except (NotShareable, OSError) as error:
        return ForeignMemory(storage.address, storage.length), str(error)


def describe(
    memory: SharedMemory | ForeignMemory | DeviceMemory | VirtualMemory, descriptors: str, timeout: float
) -> dict[str, object]:
    """The memory as `worker.register` names it. Raises OSError."""
    if isinstance(memory, DeviceMemory):
        return memory.describe()
    if isinstance(memory, VirtualMemory):
        return memory.describe(_offer_parts(memory, descriptors, timeout))
    if isinstance(memory, SharedMemory):
        ticket = memory.offer(descriptors, timeout)
        return {"kind": "memfd", "ticket": ticket, "offset": 0, "length": memory.length}
    return {"kind": "process", "pid": os.getpid(), "address": memory.address, "length": memory.length}
