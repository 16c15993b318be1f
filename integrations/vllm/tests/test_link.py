"""The control socket and the link over it: deadlines, bad frames, back-off, forks."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
import unittest
from collections.abc import Callable
from unittest import mock

import msgspec
from mooncake_ts_vllm.link import Link
from mooncake_ts_vllm.protocol import MAX_FRAME, Client, ConnectionLost, ServiceError, default_socket_path, process_ended

from .support import ServiceTest, settings

GREETING = {"protocol": 1, "instance": "1", "descriptors": "x"}


def frame(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return struct.pack("<I", len(body)) + body


def sockets() -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
        except FileNotFoundError:
            pass  # The listing's own.
    return count


class ClientTest(ServiceTest):
    def answering(self, answer: Callable[[int, str], list[bytes]]) -> None:
        """A service that says hello, and then answers with these bytes, a piece at a time."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen()
        self.addCleanup(listener.close)

        def serve() -> None:
            peer, _ = listener.accept()
            with peer, peer.makefile("rb") as stream:
                while len(head := stream.read(4)) == 4:
                    number, op, _ = msgspec.msgpack.decode(stream.read(struct.unpack("<I", head)[0]))
                    pieces = [frame([number, None, GREETING])] if op == "hello" else answer(number, op)
                    for piece in pieces:
                        peer.sendall(piece)
                        time.sleep(0.01)

        threading.Thread(target=serve, daemon=True).start()

    def client(self) -> Client:
        client = Client(self.path, "test", 2.0)
        self.addCleanup(client.close)
        return client

    def test_a_service_of_another_user_is_given_nothing(self) -> None:
        self.service()
        for own, owner, trusted in ((1000, 4711, False), (1000, 1000, True), (1000, 0, True), (0, 4711, True)):
            with self.subTest(own=own, owner=owner):
                stranger = mock.Mock(size=12, unpack=lambda _, owner=owner: (1, owner, owner))
                with mock.patch("os.geteuid", return_value=own), mock.patch("mooncake_ts_vllm.protocol._PEER", stranger):
                    if trusted:
                        self.client()
                    else:
                        self.assertRaisesRegex(ServiceError, "user 4711's, not user 1000's", self.client)

    def test_answers_come_in_any_pieces(self) -> None:
        def answer(number: int, op: str) -> list[bytes]:
            whole = frame([number, None, {"op": op, "data": b"x" * 5000}])
            return [whole[:2], whole[2:5], whole[5:-1], whole[-1:]]

        self.answering(answer)
        self.assertEqual(self.client().call("a", {}, 2.0), {"op": "a", "data": b"x" * 5000})

    def test_errors_name_their_code(self) -> None:
        self.answering(lambda number, op: [frame([number, {"code": "ERR_ENGINE", "message": "why"}, None])])
        with self.assertRaises(ServiceError) as caught:
            self.client().call("a", {}, 2.0)
        self.assertEqual((caught.exception.code, caught.exception.reason), ("ERR_ENGINE", "why"))

    def test_what_is_late_ends_the_connection(self) -> None:
        self.answering(lambda number, op: [])
        client = self.client()
        started = time.monotonic()
        with self.assertRaisesRegex(ConnectionLost, "no answer in time"):
            client.call("a", {}, 0.2)
        self.assertLess(time.monotonic() - started, 2.0)
        with self.assertRaises(ConnectionLost):
            client.call("a", {}, 2.0)

    def test_garbage_and_oversize_end_the_connection(self) -> None:
        bad = [
            b"\x02\x00\x00\x00\xc1\xc1",
            frame("no answer"),
            frame([1]),
            struct.pack("<I", MAX_FRAME + 1),
            frame([1, None, None])[:-1] + b"",
        ]
        for pieces in bad:
            with self.subTest(pieces):
                self.answering(lambda number, op: [pieces])
                with self.assertRaises(ConnectionLost):
                    self.client().call("a", {}, 0.5)
                os.unlink(self.path)

    def test_an_oversize_call_is_refused_and_the_connection_lives(self) -> None:
        self.answering(lambda number, op: [frame([number, None, op])])
        client = self.client()
        with self.assertRaisesRegex(ServiceError, "ERR_PROTOCOL"):
            client.call("a", {"data": bytes(MAX_FRAME)}, 2.0)
        self.assertEqual(client.call("b", {}, 2.0), "b")

    def test_one_way_calls_leave_in_order_with_the_next_call(self) -> None:
        service = self.service()
        client = Client(self.path, "test", 2.0)
        self.addCleanup(client.close)
        engine = settings(self.path).engine
        session = client.call("scheduler.attach", {"engine": engine, "connector": {}}, 2.0)["session"]
        for name in ("a", "b"):
            client.send("scheduler.request", {"session": session, "id": name, "tokens": b""})
        time.sleep(0.05)
        self.assertEqual(service.named("scheduler.request"), [])
        client.call("scheduler.stats", {"session": session}, 2.0)
        self.assertEqual([args["id"] for args in service.named("scheduler.request")], ["a", "b"])

    def test_ended_processes(self) -> None:
        self.assertFalse(process_ended(os.getpid()))
        child = os.fork()
        if child == 0:
            os._exit(0)
        self.until(lambda: process_ended(child), "a zombie has ended")
        os.waitpid(child, 0)
        self.assertTrue(process_ended(child))

    def test_the_default_path(self) -> None:
        kept = {name: os.environ.pop(name, None) for name in ("MOONCAKE_TS_SERVICE", "XDG_RUNTIME_DIR")}
        try:
            self.assertEqual(default_socket_path(), f"/tmp/mooncake-ts-{os.getuid()}/service.sock")
            os.environ["XDG_RUNTIME_DIR"] = "/run/user/7"
            self.assertEqual(default_socket_path(), "/run/user/7/mooncake-ts/service.sock")
            os.environ["MOONCAKE_TS_SERVICE"] = "/here"
            self.assertEqual(default_socket_path(), "/here")
        finally:
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


class LinkTest(ServiceTest):
    def link(self) -> Link:
        described = {"engine": settings(self.path).engine, "connector": {"kind": "store"}}
        link = Link(self.path, "test", lambda client: client.call("scheduler.attach", described, 2.0)["session"])
        self.addCleanup(link.close)
        return link

    def test_a_refusal_is_raised_at_the_start(self) -> None:
        self.service(refuse={"scheduler.attach": ("ERR_ENGINE", "engine.model: a and b")})
        with self.assertRaisesRegex(ServiceError, "engine.model: a and b"):
            self.link().open()

    def test_a_refusal_later_is_tried_again_and_never_raised(self) -> None:
        link = self.link()
        link.open()
        service = self.service(refuse={"scheduler.attach": ("ERR_ENGINE", "not yet")})
        self.until(lambda: service.named("scheduler.attach"), "tried")
        self.assertFalse(link.adopt())
        service.refuse.clear()
        self.until(link.adopt, "attached when it may")

    def test_while_it_is_down_calls_fail_at_once(self) -> None:
        link = self.link()
        link.open()
        started = time.monotonic()
        for _ in range(100):
            with self.assertRaises(ConnectionLost):
                link.call("scheduler.stats", 5.0)
        self.assertLess(time.monotonic() - started, 1.0)

    def test_a_stale_session_is_a_lost_connection(self) -> None:
        service = self.service()
        link = self.link()
        link.open()
        service.refuse["scheduler.stats"] = ("ERR_STALE", "attach again")
        with self.assertRaises(ConnectionLost):
            link.call("scheduler.stats", 2.0)
        self.assertFalse(link.up)

    def test_another_error_is_not(self) -> None:
        service = self.service()
        link = self.link()
        link.open()
        service.refuse["scheduler.stats"] = ("ERR_NOT_FOUND", "no such request")
        with self.assertRaises(ServiceError):
            link.call("scheduler.stats", 2.0)
        self.assertTrue(link.up)

    def test_closing_says_goodbye_and_leaves_no_thread_or_descriptor(self) -> None:
        service = self.service()
        before = sockets()
        link = self.link()
        link.open()
        link.close()
        self.assertEqual(len(service.named("detach")), 1)
        self.until(lambda: sockets() <= before, "sockets closed")
        service.close()
        other = self.link()
        other.open()
        other.close()
        self.assertNotIn("mooncake-ts-link", [thread.name for thread in threading.enumerate()])

    def test_a_forked_child_has_no_connection(self) -> None:
        service = self.service()
        link = self.link()
        link.open()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                link.call("scheduler.stats", 1.0)
            except ConnectionLost:
                code = 0
            os._exit(code)
        _, status = os.waitpid(child, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        link.call("scheduler.stats", 2.0)
        self.assertEqual(len(service.named("scheduler.stats")), 1)


if __name__ == "__main__":
    unittest.main()
