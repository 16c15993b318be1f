"""Both halves against a small service: what is saved is loaded, and whatever the service does, every request ends once."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import unittest
from unittest import mock

import mooncake_ts_vllm.scheduler
import mooncake_ts_vllm.worker

from vllm.v1.outputs import KVConnectorOutput

from .fake_service import FakeService
from .support import BLOCK, Engine, ServiceTest, cached, output, prompt, request


class SharingTest(ServiceTest):
    def test_what_one_engine_saved_another_loads(self) -> None:
        self.service()
        tokens = prompt(4)
        self.engine(name="a").save("r", tokens, [3, 7, 4, 9, 5])
        b = self.engine(name="b")
        entry = b.begin_load("s", tokens, [8, 2, 6, 1, 5])
        self.assertEqual(entry.found, 4 * BLOCK)
        out = b.step(output())
        self.assertEqual((out.finished_recving, out.invalid_block_ids), ({"s"}, set()))
        self.assertEqual(b.values([8, 2, 6, 1, 5]), [1, 2, 3, 4, 0])

    def test_chunks_and_generated_tokens_are_saved_as_blocks_fill(self) -> None:
        service = self.service()
        engine = self.engine()
        tokens = prompt(2)
        entry = request("r", tokens, prompt=len(tokens))
        engine.scheduler.new_request(entry)
        engine.scheduler.matched(entry, 0)
        engine.scheduler.allocated(entry, ([1, 2, 3],), 0)
        engine.step(output({"r": ([1, 2], 0, 40)}))
        self.assertEqual(len(service.store), 1)
        data = cached("r", [3], 40)
        engine.step(output(scheduled_cached_reqs=data, num_scheduled_tokens={"r": 29}))
        self.assertEqual(len(service.store), 2)
        for number in range(30):
            tokens.append(number)
            data = cached("r", None, len(tokens) - 1)
            engine.step(output(scheduled_cached_reqs=data, num_scheduled_tokens={"r": 1}))
        self.assertEqual(len(service.store), 3)
        # The service was told each token once.
        self.assertEqual(max(len(key) for key in service.store), 4 * 3 * BLOCK)

    def test_a_reset_forgets_what_was_saved_or_says_that_it_could_not(self) -> None:
        service = self.service()
        engine = self.engine()
        engine.save("r", prompt(2), [1, 2, 3])
        self.assertEqual(len(service.store), 2)
        self.assertTrue(engine.scheduler.reset())
        self.assertEqual(len(service.store), 0)
        service.refuse["scheduler.reset"] = ("ERR_NOT_SUPPORTED", "an older service")
        self.assertFalse(engine.scheduler.reset())
        service.close()
        self.assertFalse(engine.scheduler.reset())

    def test_layers_are_announced_where_something_is_saved_and_only_there(self) -> None:
        service = self.service()
        engine = self.engine()
        engine.save("r", prompt(1), [1, 2])
        engine.step(output())
        self.assertEqual([args["layer"] for args in service.named("worker.layerSaved")], [0, 1])

    def test_an_idle_step_costs_the_worker_no_call(self) -> None:
        service = self.service()
        engine = self.engine()
        engine.step(output())
        before = len(service.calls)
        for _ in range(5):
            engine.step(output())
        self.assertEqual({op for op, _ in service.calls[before:]}, {"scheduler.step"})


class FailureTest(ServiceTest):
    def loading(self, **faults: bool) -> tuple[Engine, object]:
        service = self.service()
        tokens = prompt(3)
        self.engine(name="a").save("r", tokens, [1, 2, 3, 4])
        for name, value in faults.items():
            setattr(service, name, value)
        engine = self.engine(name="b")
        return engine, engine.begin_load("s", tokens, [5, 6, 7, 8])

    def test_blocks_that_did_not_load_are_invalid(self) -> None:
        engine, _ = self.loading(failed_loads=True)
        out = engine.step(output())
        self.assertEqual((out.finished_recving, out.invalid_block_ids), ({"s"}, {5, 6, 7}))

    def test_with_several_groups_the_request_has_failed_instead(self) -> None:
        service = self.service()
        tokens = prompt(3)
        self.engine(name="a").save("r", tokens, [1, 2, 3, 4])
        service.failed_loads = True
        engine = self.engine(name="b", groups=2)
        engine.begin_load("s", tokens, [5, 6, 7, 8])
        out = engine.step(output())
        self.assertEqual((out.finished_recving, out.failed_recving, out.invalid_block_ids), ({"s"}, {"s"}, set()))
        engine.step(output())
        told = service.named("scheduler.output")[-1]
        self.assertEqual((told["receiving"], told["invalid"]), (["s"], [5, 6, 7]))

    def test_a_load_under_way_when_the_service_dies_has_failed(self) -> None:
        command = [sys.executable, "-m", "tests.fake_service", self.path]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=os.path.dirname(os.path.dirname(__file__)))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        tokens = prompt(3)
        self.engine(name="a").save("r", tokens, [1, 2, 3, 4])
        engine = self.engine(name="b")
        engine.begin_load("s", tokens, [5, 6, 7, 8])
        process.send_signal(signal.SIGKILL)
        process.wait()
        with mock.patch.object(mooncake_ts_vllm.memory.SharedMemory, "replace") as replace:
            out = engine.step(output())
            replace.assert_not_called()
        self.assertEqual((out.finished_recving, out.invalid_block_ids), ({"s"}, {5, 6, 7}))
        again = engine.step(output())
        self.assertEqual((again.finished_recving, again.invalid_block_ids), (set(), set()))

    @mock.patch.object(mooncake_ts_vllm.worker, "CALL_TIMEOUT", 0.2)
    def test_a_silent_service_has_the_memory_taken_from_it(self) -> None:
        service = self.service()
        tokens = prompt(3)
        self.engine(name="a").save("r", tokens, [1, 2, 3, 4])
        service.held_loads = True
        engine = self.engine(name="b")
        engine.begin_load("s", tokens, [5, 6, 7, 8])
        service.silent = {"worker.finished"}
        memory = engine.memory
        with mmap.mmap(memory.fd, memory.length) as late:
            out = engine.step(output())
            self.assertEqual((out.finished_recving, out.invalid_block_ids), ({"s"}, {5, 6, 7}))
            engine.fill(5, 42)
            late[:] = bytes(len(late))
        self.assertEqual(engine.values([5]), [42])

    def test_sharing_goes_on_with_the_next_service(self) -> None:
        first = self.service()
        tokens = prompt(3)
        engine = self.engine(name="a")
        engine.save("r", tokens, [1, 2, 3, 4])
        first.close()
        entry = engine.begin_load("while it is away", tokens, [5, 6, 7, 8])
        self.assertEqual(entry.found, 0)
        engine.step(output())
        second = self.service()

        def both_are_back() -> bool:
            engine.step(output())
            return bool(second.named("worker.register") and second.named("scheduler.step"))

        self.until(both_are_back, "both halves attached again")
        engine.save("t", tokens, [1, 2, 3, 4])
        self.assertEqual(len(second.store), 3)
        entry = engine.begin_load("u", tokens, [5, 6, 7, 8])
        out = engine.step(output())
        self.assertEqual((entry.found, out.finished_recving), (3 * BLOCK, {"u"}))
        self.assertEqual(engine.values([5, 6, 7]), [1, 2, 3])

    def test_a_request_that_waits_through_a_restart_is_announced_again(self) -> None:
        first = self.service()
        engine = self.engine()
        entry = request("r", prompt(2))
        engine.scheduler.new_request(entry)
        first.close()
        engine.step(output())
        second = self.service()
        self.until(lambda: bool(engine.step(output()) and second.named("scheduler.step")), "attached again")
        self.assertEqual(engine.scheduler.matched(entry, 0), (0, False))
        self.assertEqual([args["id"] for args in second.named("scheduler.request")], ["r"])

    def test_an_engine_starts_without_a_service_and_shares_when_one_comes(self) -> None:
        engine = self.engine()
        tokens = prompt(2)
        entry = request("r", tokens)
        engine.scheduler.new_request(entry)
        self.assertEqual(engine.scheduler.matched(entry, 0), (0, False))
        self.assertEqual(engine.scheduler.finished(entry, ([],)), (False, None))
        service = self.service()
        self.until(lambda: bool(engine.step(output()) and service.named("worker.register")), "registered")
        self.until(lambda: bool(engine.step(output()) and service.named("scheduler.step")), "attached")
        engine.step(output())
        engine.save("s", tokens, [1, 2, 3])
        self.assertEqual(len(service.store), 2)

    @mock.patch.object(mooncake_ts_vllm.scheduler, "CALL_TIMEOUT", 0.1)
    def test_a_lookup_that_is_not_answered_finds_nothing(self) -> None:
        self.service(silent={"scheduler.matched"})
        engine = self.engine()
        entry = request("r", prompt(2))
        engine.scheduler.new_request(entry)
        self.assertEqual(engine.scheduler.matched(entry, 0), (0, False))


class BooksTest(ServiceTest):
    """vLLM frees a finished request's blocks when it is told to, and ends itself when it is told twice."""

    def test_blocks_that_are_sent_are_kept_until_they_have_left(self) -> None:
        self.service(delay_free=True)
        engine = self.engine()
        entry = request("r", prompt(1))
        engine.scheduler.new_request(entry)
        self.assertEqual(engine.scheduler.finished(entry, ([1],)), (True, None))
        out = engine.step(output(finished_req_ids={"r"}))
        self.assertEqual(out.finished_sending, {"r"})
        out = engine.step(output(finished_req_ids={"r"}))
        self.assertEqual(out.finished_sending, set())

    def test_a_request_that_ends_while_it_loads_is_freed_once_by_both_reports(self) -> None:
        service = self.service()
        tokens = prompt(3)
        self.engine(name="a").save("r", tokens, [1, 2, 3, 4])
        service.held_loads, service.delay_free = True, True
        engine = self.engine(name="b")
        entry = engine.begin_load("s", tokens, [5, 6, 7, 8])
        engine.step(output())
        self.assertEqual(engine.scheduler.finished(entry, ([5, 6, 7, 8],)), (True, None))
        session = max(session for session, state in service._sessions.items() if "memories" in state)
        service._sessions[session]["received"].append("s")
        out = engine.step(output(finished_req_ids={"s"}))
        self.assertEqual((out.finished_recving, out.finished_sending), (set(), {"s"}))

    def test_held_blocks_are_released_when_the_service_is_gone(self) -> None:
        service = self.service(delay_free=True)
        engine = self.engine()
        entry = request("r", prompt(1))
        engine.scheduler.new_request(entry)
        self.assertTrue(engine.scheduler.finished(entry, ([1],))[0])
        service.close()
        sent = [engine.step(output(finished_req_ids={"r"})).finished_sending, engine.step(output()).finished_sending]
        sent.append(engine.step(output()).finished_sending)
        self.assertEqual(sorted(name for names in sent for name in names), ["r"])

    @mock.patch.object(mooncake_ts_vllm.scheduler, "CALL_TIMEOUT", 0.1)
    def test_blocks_are_released_only_when_nobody_can_read_them(self) -> None:
        for silent in ("scheduler.step", "scheduler.finished"):
            with self.subTest(silent):
                service = FakeService(self.path)
                service.delay_free = True
                engine = Engine(self.path)
                entry = request("r", prompt(1))
                engine.scheduler.new_request(entry)
                if silent == "scheduler.step":
                    self.assertTrue(engine.scheduler.finished(entry, ([1],))[0])
                service.silent = {silent}
                if silent == "scheduler.finished":
                    self.assertTrue(engine.scheduler.finished(entry, ([1],))[0])
                with mock.patch.object(engine.memory, "replace", wraps=engine.memory.replace) as replace:
                    out = engine.step(output(finished_req_ids={"r"}), forward=replace.assert_called_once)
                self.assertEqual(out.finished_sending, {"r"})
                engine.shutdown()
                service.close()

    def test_a_worker_that_is_refused_trusts_nothing_that_is_under_way(self) -> None:
        for refused in ("worker.finished", "worker.saved", "worker.step"):
            with self.subTest(refused):
                service = FakeService(self.path)
                tokens = prompt(3)
                engine = Engine(self.path)
                engine.save("r", tokens, [1, 2, 3, 4])
                service.held_loads = True
                engine.begin_load("s", tokens, [5, 6, 7, 8])
                longer = request("t", prompt(1, seed=2))
                engine.scheduler.new_request(longer)
                engine.scheduler.allocated(longer, ([9, 10],), 0)
                service.refuse[refused] = ("ERR_WORKER", "broken")
                out = engine.step(output({"t": ([9, 10], 0, 37)}))
                self.assertEqual((out.finished_recving, out.invalid_block_ids), ({"s"}, {5, 6, 7}))
                engine.shutdown()
                service.close()

    def test_a_scheduler_that_is_refused_trusts_nothing_that_is_under_way(self) -> None:
        service = self.service()
        tokens = prompt(3)
        self.engine(name="a").save("r", tokens, [1, 2, 3, 4])
        engine = self.engine(name="b")
        attached = len(service.named("scheduler.attach"))
        engine.begin_load("s", tokens, [5, 6, 7, 8])
        service.refuse["scheduler.step"] = ("ERR_INVALID_ARGUMENT", "broken")
        out = engine.step(output())
        self.assertEqual((out.finished_recving, out.invalid_block_ids), ({"s"}, {5, 6, 7}))
        service.refuse.clear()

        def anew() -> bool:
            engine.step(output())
            return len(service.named("scheduler.attach")) > attached

        self.until(anew, "the scheduler attaches anew")

    @mock.patch.object(mooncake_ts_vllm.worker, "LOAD_TIMEOUT", 0.2)
    def test_a_load_that_does_not_end_has_failed(self) -> None:
        service = self.service()
        tokens = prompt(3)
        self.engine(name="a").save("r", tokens, [1, 2, 3, 4])
        service.held_loads = True
        engine = self.engine(name="b")
        engine.begin_load("s", tokens, [5, 6, 7, 8])
        found = engine.step(output())

        def ended() -> bool:
            nonlocal found
            if not found.finished_recving:
                found = engine.step(output())
            return bool(found.finished_recving)

        self.until(ended, "the load is given up")
        self.assertEqual((found.finished_recving, found.invalid_block_ids), ({"s"}, {5, 6, 7}))

    @mock.patch.object(mooncake_ts_vllm.worker, "STEP_TIMEOUT", 0.1)
    def test_preempted_blocks_are_not_written_while_a_silent_service_may_read_them(self) -> None:
        service = self.service(silent={"worker.step"})
        engine = self.engine()
        with mock.patch.object(engine.memory, "replace", wraps=engine.memory.replace) as replace:
            engine.step(output(preempted_req_ids={"r"}), forward=replace.assert_called_once)
        self.assertEqual(service.named("worker.step")[-1]["preempted"], ["r"])

    def test_what_vllm_does_not_wait_for_is_not_reported(self) -> None:
        self.service(delay_free=True)
        engine = self.engine()
        out = engine.step(output(finished_req_ids={"stranger"}))
        self.assertEqual((out.finished_recving, out.finished_sending), (set(), set()))
        living = request("r", prompt(1))
        engine.scheduler.new_request(living)
        out = engine.finish(KVConnectorOutput(finished_sending={"r"}, finished_recving={"r"}))
        self.assertEqual((out.finished_recving, out.finished_sending), (set(), set()))


if __name__ == "__main__":
    unittest.main()
