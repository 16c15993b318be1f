"""A node service of a few dozen lines: enough of docs/service.md to be the adapter's other end in its tests.

Its store is a dictionary from token prefixes to the bytes of a block. It maps the engine's memory as the real one does, so
that what is loaded really lies under the tensors. Faults are attributes that a test sets. As a program it serves until killed:
`python -m tests.fake_service SOCKET`.
"""

from __future__ import annotations

import mmap
import os
import secrets
import signal
import socket
import struct
import sys
import threading
from array import array
from typing import Any

import msgspec


class FakeService:
    def __init__(self, path: str, store: dict[bytes, bytes] | None = None) -> None:
        self.path = path
        self.store = store if store is not None else {}
        self.instance = secrets.token_hex(8)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.refuse: dict[str, tuple[str, str]] = {}  # op → error
        self.silent: set[str] = set()  # ops that are never answered
        self.held_loads = False  # loads begin and do not end
        self.failed_loads = False  # loads end with their blocks invalid
        self.delay_free = False
        self._sessions: dict[int, dict[str, Any]] = {}
        self._tickets: dict[bytes, tuple[int, int]] = {}
        self._lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        self._closed = False
        self._control = self._listen(path, socket.SOCK_STREAM, self._serve)
        self._descriptors = self._listen(path + ".fd", socket.SOCK_SEQPACKET, self._take)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for listener in (self._control, self._descriptors):
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for connection in list(self._connections):
                connection.shutdown(socket.SHUT_RDWR)
        for path in (self.path, self.path + ".fd"):
            if os.path.exists(path):
                os.unlink(path)

    def named(self, op: str) -> list[dict[str, Any]]:
        return [args for name, args in self.calls if name == op]

    def _listen(self, path: str, kind: int, serve: Any) -> socket.socket:
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(path)
        listener.listen()

        def accept() -> None:
            while not self._closed:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(peer,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener

    def _take(self, peer: socket.socket) -> None:
        with peer:
            data, rights, _, _ = peer.recvmsg(4096, 64)
            fd = array("i", rights[0][2])[0]
            with self._lock:
                self._tickets[data[:16]] = (fd, struct.unpack("<Q", data[16:24])[0])
            peer.send(data[:16] + struct.pack("<I", 0))

    def _serve(self, peer: socket.socket) -> None:
        with self._lock:
            self._connections.add(peer)
        stream = peer.makefile("rb")
        mine: list[int] = []
        try:
            while len(head := stream.read(4)) == 4:
                number, op, args = msgspec.msgpack.decode(stream.read(struct.unpack("<I", head)[0]))
                with self._lock:
                    self.calls.append((op, args))
                    if op in self.silent:
                        continue
                    refused = self.refuse.get(op)
                    result, error = None, {"code": refused[0], "message": refused[1]} if refused else None
                    if not refused:
                        result = getattr(self, "_" + op.replace(".", "_"))(**args)
                        if op.endswith(".attach"):
                            mine.append(result["session"])
                if number:
                    body = msgspec.msgpack.encode([number, error, result])
                    peer.sendall(struct.pack("<I", len(body)) + body)
        except OSError:
            pass
        finally:
            with self._lock:
                self._connections.discard(peer)
                for session in mine:
                    for memory in self._sessions.pop(session).get("memories", ()):
                        memory.close()
            stream.close()
            peer.close()

    def _hello(self, protocol: int, **_: Any) -> dict[str, Any]:
        return {"protocol": 1, "version": "fake", "instance": self.instance, "descriptors": self.path + ".fd"}

    def _attach(self, **state: Any) -> dict[str, Any]:
        session = 1 + max(self._sessions, default=0)
        self._sessions[session] = state
        return {"session": session, "generation": session}

    def _scheduler_reset(self, session: int) -> dict[str, Any]:
        removed = len(self.store)
        self.store.clear()
        return {"removed": removed}

    def _detach(self, session: int) -> None:
        pass

    # The scheduler half.

    def _scheduler_attach(self, engine: dict[str, Any], connector: dict[str, Any]) -> dict[str, Any]:
        return self._attach(size=engine["hash"]["blockSize"], requests={}, loads={})

    def _scheduler_request(self, session: int, id: str, tokens: bytes, **_: Any) -> None:
        self._sessions[session]["requests"][id] = {"tokens": tokens, "computed": 0, "blocks": [], "saved": 0}

    def _keys(self, session: int, id: str) -> list[bytes]:
        size, tokens = 4 * self._sessions[session]["size"], self._sessions[session]["requests"][id]["tokens"]
        return [tokens[: (block + 1) * size] for block in range(len(tokens) // size)]

    def _scheduler_matched(self, session: int, id: str, computed: int, append: bytes) -> list[Any]:
        state, size = self._sessions[session], self._sessions[session]["size"]
        request = state["requests"][id]
        request["tokens"] += append
        hits = 0
        for key in self._keys(session, id):
            if key not in self.store:
                break
            hits += size
        if hits >= len(request["tokens"]) // 4:
            hits -= size
        request["computed"] = computed
        return [max(0, hits - computed), hits > computed]

    def _scheduler_allocated(self, session: int, id: str, blocks: list[list[int]], external: int) -> None:
        state = self._sessions[session]
        request, size = state["requests"][id], state["size"]
        if external:
            first, last = request["computed"] // size, (request["computed"] + external) // size
            keys = self._keys(session, id)
            state["loads"][id] = [(keys[block], blocks[0][block]) for block in range(first, last)]
            request["saved"] = last

    def _scheduler_step(
        self, session: int, new: list[Any], cached: list[Any], scheduled: dict[str, int], finished: list[str], **_: Any
    ) -> dict[str, Any]:
        state, saves = self._sessions[session], []
        for data in [*new, *cached]:
            request = state["requests"][data["id"]]
            request["tokens"] += data.get("append", b"")
            request["blocks"] = (request["blocks"] if "append" in data else []) + data["blocks"][0]
            keys = self._keys(session, data["id"])
            full = min((data["computed"] + scheduled.get(data["id"], 0)) // state["size"], len(keys))
            saves += [(keys[block], request["blocks"][block]) for block in range(request["saved"], full)]
            request["saved"] = max(full, request["saved"])
        loads, state["loads"] = state["loads"], {}
        meta = msgspec.msgpack.encode([self.instance, loads, saves]) if loads or saves else None
        return {"meta": meta, "pending": False, "errors": []}

    def _scheduler_output(self, **_: Any) -> None:
        pass

    def _scheduler_finished(self, **_: Any) -> list[Any]:
        return [self.delay_free, None]

    def _scheduler_stats(self, session: int) -> dict[str, int]:
        return {"lookups": len(self.named("scheduler.matched"))}

    # The worker half.

    def _worker_attach(self, engine: dict[str, Any], connector: dict[str, Any], rank: int) -> dict[str, Any]:
        return self._attach(received=[], invalid=[], saves=[])

    def _worker_register(self, session: int, memories: list[dict[str, Any]], layout: dict[str, Any]) -> dict[str, Any]:
        maps = []
        for memory in memories:
            fd, length = self._tickets.pop(memory["ticket"])
            maps.append(mmap.mmap(fd, length))
            os.close(fd)
        self._sessions[session].update(memories=maps, layout=layout)
        return {"handshake": b"fake"}

    def _cells(self, session: int, block: int) -> list[tuple[mmap.mmap, int, int]]:
        """Of a block in group 0: memory, offset and length of each layer's and head's part."""
        state, cells = self._sessions[session], []
        group = state["layout"]["groups"][0]
        for tensor in group["tensors"].values():
            for place in tensor["at"]:
                for head in range(group["localHeads"]):
                    at = place["offset"] + block * tensor["strides"]["block"] + head * tensor["strides"]["head"]
                    cells.append((state["memories"][place["segment"]], at, 2 * tensor["elements"]))
        return cells

    def _worker_step(self, session: int, meta: bytes | None, preempted: list[str]) -> dict[str, Any]:
        state = self._sessions[session]
        if meta is None:
            return {"loads": False, "saves": False}
        _, loads, saves = msgspec.msgpack.decode(meta)
        for request, blocks in loads.items():
            if self.held_loads:
                continue
            for key, block in blocks:
                if self.failed_loads:
                    state["invalid"].append(block)
                    continue
                value, at = self.store[key], 0
                for memory, offset, length in self._cells(session, block):
                    memory[offset : offset + length] = value[at : at + length]
                    at += length
            state["received"].append(request)
        state["saves"] = saves
        return {"loads": False, "saves": bool(saves)}

    def _worker_layerLoad(self, **_: Any) -> None:
        pass

    def _worker_layerSaved(self, **_: Any) -> None:
        pass

    def _worker_saved(self, session: int) -> None:
        state = self._sessions[session]
        for key, block in state["saves"]:
            self.store[key] = b"".join(memory[at : at + length] for memory, at, length in self._cells(session, block))
        state["saves"] = []

    def _worker_finished(self, session: int, finished: list[str]) -> dict[str, Any]:
        state = self._sessions[session]
        received, invalid = state["received"], state["invalid"]
        state["received"], state["invalid"] = [], []
        sending = finished if self.delay_free else []
        stats = {"loadedBlocks": 0, "savedBlocks": len(self.store)}
        return {"sending": sending, "receiving": received, "invalid": invalid, "saved": [], "stats": stats, "errors": []}


if __name__ == "__main__":
    service = FakeService(sys.argv[1])
    print("ready", flush=True)
    signal.pause()
