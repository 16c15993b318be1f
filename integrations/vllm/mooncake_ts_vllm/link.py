"""A half's link to the service: it is up, or down and being made again in the background.

The engine's threads never wait for a service that is not there. `call` and `send` fail at once while the link is down; a
thread connects with back-off and attaches, and the half takes the new connection over at a step's boundary (`adopt`), when
it has put its own state in order.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from .protocol import Client, ConnectionLost, ServiceError

logger = logging.getLogger("vllm.mooncake_ts_vllm")

CONNECT_TIMEOUT = 5.0
BACKOFF_FIRST = 0.05
BACKOFF_MOST = 5.0
# The service waits a moment for what ended requests still save.
DETACH_TIMEOUT = 5.0
# The engine's sessions end together: what one call is told is true of all that follow.
STALE = "ERR_STALE"


class Link:
    """Keeps one session with the service. `attach` makes it on a new connection and returns its number."""

    def __init__(self, path: str, name: str, attach: Callable[[Client], int]) -> None:
        self._path = path
        self._name = name
        self._attach = attach
        self._client: Client | None = None
        self._session = 0
        self._ready: tuple[Client, int] | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        # Process of the service whose connection was lost last; 0 where the system does not say, None before the first.
        self.peer: int | None = None
        _links.add(self)

    @property
    def up(self) -> bool:
        return self._client is not None

    def open(self) -> None:
        """The first connection. Where nobody listens yet the engine starts without; a refusal is raised (ServiceError)."""
        try:
            self._client, self._session = self._connect()
        except (OSError, ConnectionLost) as error:
            logger.warning(
                "mooncake-ts: no service at %s (%s). The engine runs without shared KV until `mooncake-ts service` does.",
                self._path,
                error,
            )
            self.reconnect()

    def call(self, op: str, timeout: float, **args: Any) -> Any:
        """A call of the session. Raises ConnectionLost (also while the link is down), ServiceError."""
        client = self._client
        if client is None:
            raise ConnectionLost("not connected")
        try:
            return client.call(op, {"session": self._session, **args}, timeout)
        except ConnectionLost as error:
            self._lose(client, error)
            raise
        except ServiceError as error:
            if error.code == STALE:
                self._lose(client, error)
                raise ConnectionLost(str(error)) from error
            raise

    def send(self, op: str, *, now: bool = False, **args: Any) -> None:
        """A call that wants no answer. Raises ConnectionLost, also while the link is down."""
        client = self._client
        if client is None:
            raise ConnectionLost("not connected")
        try:
            client.send(op, {"session": self._session, **args}, now=now)
        except ConnectionLost as error:
            self._lose(client, error)
            raise

    def reconnect(self) -> None:
        """Begins to make a new connection, where none is being made: after the half has cleaned up behind the old one."""
        with self._lock:
            if self._client is None and self._ready is None and self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._retry, name="mooncake-ts-link", daemon=True)
                self._thread.start()

    def adopt(self) -> bool:
        """Takes over the connection that was made meanwhile; whether there was one."""
        with self._lock:
            if self._client is not None or self._ready is None:
                return False
            self._client, self._session = self._ready
            self._ready = None
        logger.info("mooncake-ts: attached to the service at %s again", self._path)
        return True

    def close(self) -> None:
        """Ends the session and any attempt to make one. Idempotent."""
        self._stop.set()
        if (client := self._client) is not None:
            try:
                client.call("detach", {"session": self._session}, DETACH_TIMEOUT)
            except (ConnectionLost, ServiceError):
                pass  # The engine's other half was first, or the service is gone.
        with self._lock:
            clients = [self._client, self._ready[0] if self._ready else None]
            self._client = self._ready = None
            thread = self._thread
        for client in clients:
            if client is not None:
                client.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CONNECT_TIMEOUT)

    def drop(self, why: str) -> None:
        """Ends the connection: what was under way on it cannot be trusted any more."""
        if (client := self._client) is not None:
            self._lose(client, ConnectionLost(why))

    def _lose(self, client: Client, error: Exception) -> None:
        with self._lock:
            if self._client is not client:
                return
            self._client = None
            self.peer = client.peer
        client.close()
        logger.warning("mooncake-ts: lost the service at %s: %s", self._path, error)

    def _connect(self) -> tuple[Client, int]:
        client = Client(self._path, self._name, CONNECT_TIMEOUT)
        try:
            return client, self._attach(client)
        except BaseException:
            client.close()
            raise

    def _retry(self) -> None:
        wait = BACKOFF_FIRST
        said = None
        while not self._stop.wait(wait * random.uniform(0.75, 1.25)):
            try:
                made = self._connect()
            except ServiceError as error:
                # Another configuration now: say so, once, and go on without.
                if str(error) != said:
                    said = str(error)
                    logger.error("mooncake-ts: the service at %s refuses this engine: %s", self._path, error)
                wait = BACKOFF_MOST
            except (OSError, ConnectionLost):
                wait = min(BACKOFF_MOST, wait * 2)
            except Exception:
                logger.exception("mooncake-ts: attaching to the service at %s", self._path)
                wait = BACKOFF_MOST
            else:
                with self._lock:
                    self._thread = None
                    if not self._stop.is_set():
                        self._ready = made
                        return
                made[0].close()
                return
        with self._lock:
            self._thread = None

    def _forget(self) -> None:
        """In a forked child: the sockets are the parent's."""
        self._lock = threading.Lock()
        self._stop.set()
        for client in (self._client, self._ready[0] if self._ready else None):
            if client is not None:
                client.forget()
        self._client = self._ready = self._thread = None


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_links):
        link._forget()


os.register_at_fork(after_in_child=_after_fork)


class Slow:
    """Says a thing at most once in `seconds`: for logs of what may happen in every step."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._last = -seconds
        self._kept = 0

    def warning(self, text: str, *args: Any) -> None:
        now = time.monotonic()
        if now - self._last < self._seconds:
            self._kept += 1
            return
        more, self._kept, self._last = self._kept, 0, now
        logger.warning(text + (f" (and {more} more like it)" if more else ""), *args)
