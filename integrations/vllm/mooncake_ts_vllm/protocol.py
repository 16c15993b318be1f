"""The control socket of the node service (docs/service.md): framing, calls, errors.

A frame is a u32 (little-endian) length and a msgpack value: `[id, op, args]` to the service, `[id, error, result]` from
it. A `Client` is one connection, used by blocking calls that each have a deadline; calls with id 0 want no answer, are kept
back and leave with the next call, so that a step of the scheduler costs one write and one read.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from typing import Any

import msgspec

PROTOCOL = 1
MAX_FRAME = 64 << 20
# One-way calls that wait for a call to travel with; more than this is written at once.
MAX_HELD = 1 << 16

_LENGTH = struct.Struct("<I")
_PEER = struct.Struct("iII")


class ServiceError(Exception):
    """The service refused a call: `code` as in docs/connectors.md, for example ERR_ENGINE or ERR_STALE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.reason = message


class ConnectionLost(Exception):
    """The connection ended, or a call was later than its deadline, which means the same: nothing of it can be trusted."""


def default_socket_path() -> str:
    """Where the service listens unless told otherwise."""
    given = os.environ.get("MOONCAKE_TS_SERVICE")
    if given:
        return given
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "mooncake-ts", "service.sock") if runtime else _shared_path()


def _shared_path() -> str:
    """In a folder where anybody may have been first."""
    return f"/tmp/mooncake-ts-{os.geteuid()}/service.sock"


def _check_owner(path: str, owner: int) -> None:
    """Raises ServiceError unless the service is this user's or root's: it is given the KV cache. Root may name another's."""
    own = os.geteuid()
    if owner in (0, own) or (own == 0 and path != _shared_path()):
        return
    raise ServiceError("ERR_PEER", f"the service at {path} is user {owner}'s, not user {own}'s: it would be given the KV cache")


def process_ended(pid: int) -> bool:
    """Whether no thread of the process runs any more: it is gone, or waits for its parent. 0, of another namespace: unknown."""
    if pid == 0:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name is in parentheses and may hold anything; the state follows the last of them.
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False


class Client:
    """One connection to the service, after `hello`. Thread-safe; one call at a time."""

    def __init__(self, path: str, name: str, timeout: float) -> None:
        """Connects and says hello.

        Raises OSError where nobody listens, ServiceError where the service is another user's or speaks another protocol,
        ConnectionLost.
        """
        self._lock = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder()
        self._held = bytearray()
        self._received = bytearray()
        self._next = 1
        self._closed = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            said = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            self.peer, owner, _ = _PEER.unpack(said)
            _check_owner(path, owner)
            hello = self.call("hello", {"protocol": PROTOCOL, "client": name, "pid": os.getpid()}, timeout)
            if hello.get("protocol") != PROTOCOL:
                raise ServiceError("ERR_VERSION", f"protocol {hello.get('protocol')}, this adapter speaks {PROTOCOL}")
            self.instance: str = hello["instance"]
            self.descriptors: str = hello["descriptors"]
            # What it takes beyond the first services of this protocol.
            self.features = frozenset(hello.get("features") or ())
        except BaseException:
            self.close()
            raise

    def send(self, op: str, args: dict[str, Any], *, now: bool = False) -> None:
        """A call that wants no answer; it leaves with the next call, or `now`. Raises ConnectionLost."""
        frame = self._frame(0, op, args)
        with self._lock:
            if self._closed:
                raise ConnectionLost("the connection is closed")
            self._held += frame
            if now or len(self._held) > MAX_HELD:
                self._flush(time.monotonic() + 2.0)

    def call(self, op: str, args: dict[str, Any], timeout: float) -> Any:
        """Calls and waits up to `timeout` seconds for the result. Raises ServiceError, ConnectionLost."""
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._closed:
                raise ConnectionLost("the connection is closed")
            number = self._next
            self._next = number + 1 if number < 0x7FFF_FFFF else 1
            self._held += self._frame(number, op, args)
            self._flush(deadline)
            while True:
                answer = self._receive(op, deadline)
                if answer[0] == number:
                    break
        if answer[1] is not None:
            raise ServiceError(str(answer[1].get("code")), str(answer[1].get("message")))
        return answer[2]

    def forget(self) -> None:
        """Closes this process's copy of the socket: for a forked child, whose parent goes on using it."""
        self._closed = True
        self._socket.close()
        # The parent's thread may have held it when the child was forked.
        self._lock = threading.Lock()

    def close(self) -> None:
        self._closed = True
        try:
            # Wakes a call in another thread, which closing alone would not.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _frame(self, number: int, op: str, args: dict[str, Any]) -> bytes:
        body = self._encoder.encode([number, op, args])
        if len(body) > MAX_FRAME:
            raise ServiceError("ERR_PROTOCOL", f"{op} takes {len(body)} bytes, a frame at most {MAX_FRAME}")
        return _LENGTH.pack(len(body)) + body

    def _flush(self, deadline: float) -> None:
        data, self._held = self._held, bytearray()
        try:
            self._socket.settimeout(max(1e-3, deadline - time.monotonic()))
            self._socket.sendall(data)
        except OSError as error:
            self.close()
            raise ConnectionLost(f"writing to the service: {error}") from error

    def _receive(self, op: str, deadline: float) -> list[Any]:
        data = self._received
        try:
            while True:
                if len(data) >= 4:
                    end = 4 + _LENGTH.unpack_from(data)[0]
                    if end > 4 + MAX_FRAME:
                        raise ConnectionLost(f"{op}: the service sent a frame of {end - 4} bytes")
                    if len(data) >= end:
                        answer = self._decoder.decode(data[4:end])
                        del data[:end]
                        if not isinstance(answer, list) or len(answer) != 3:
                            raise ConnectionLost(f"{op}: the service sent what is not an answer")
                        return answer
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ConnectionLost(f"{op}: no answer in time")
                self._socket.settimeout(left)
                more = self._socket.recv(1 << 18)
                if not more:
                    raise ConnectionLost(f"{op}: the service ended the connection")
                data += more
        except TimeoutError as error:
            self.close()
            raise ConnectionLost(f"{op}: no answer in time") from error
        except (OSError, msgspec.DecodeError) as error:
            self.close()
            raise ConnectionLost(f"{op}: {error}") from error
        except ConnectionLost:
            self.close()
            raise
