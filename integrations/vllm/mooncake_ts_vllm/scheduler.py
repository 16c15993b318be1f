"""The scheduler half: asks the service what may be loaded, tells it what each step computes, and keeps vLLM's books.

The books are what makes a service that vanishes harmless. vLLM frees a request's blocks when it is told so, exactly once:
`_Request` remembers for what the scheduler waits, and `update_output` passes on what it may hear and nothing else.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .config import Settings
from .events import SavedBlocks, StoreEvents
from .link import Link, Slow
from .metadata import StepMetadata
from .metrics import SchedulerMetrics, TransferStats
from .protocol import Client, ConnectionLost, ServiceError

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

logger = logging.getLogger("vllm.mooncake_ts_vllm")

# A call of the scheduler takes some 100 us; one that takes this long comes from a service that is stuck.
CALL_TIMEOUT = 2.0
ATTACH_TIMEOUT = 10.0
# Saves under way are waited for, which have 30 s themselves.
RESET_TIMEOUT = 60.0


@dataclass
class _Request:
    request: Request
    # Tokens that the service knows; None: it does not know the request.
    named: int | None = None
    # Of the last answer to what can be loaded: tokens that the engine had, and whether others run meanwhile.
    computed: int = 0
    asynchronous: bool = False
    # Blocks that a load under way fills.
    loading: list[int] | None = None
    # The request has ended, and vLLM keeps its blocks until all of these have come: "receiving", "sending".
    awaited: set[str] = field(default_factory=set)


class SchedulerHalf:
    """One per engine, in the process of vLLM's scheduler; called from its thread."""

    def __init__(self, settings: Settings, block_sizes: list[int], groups: tuple[int, ...], extra_keys: Any) -> None:
        """`block_sizes`: of the transferred groups, `groups`: their indices. `extra_keys(request)`: per block, or None."""
        self._settings = settings
        self._block_sizes = block_sizes
        self._groups = groups
        self._extra_keys = extra_keys
        self._requests: dict[str, _Request] = {}
        self._new_loads: dict[str, list[list[int]]] = {}
        self._sync_blocks: list[int] = []
        self._release: list[str] = []
        self._pending = False
        self._lost = False
        # Workers have not been told yet that the service is lost.
        self._tell = False
        self._slow = Slow()
        self._metrics = SchedulerMetrics()
        hash_size = settings.engine["hash"]["blockSize"]
        self._events = StoreEvents(groups, block_sizes, hash_size) if settings.events else None
        self._link = Link(settings.socket, "mooncake_ts_vllm/scheduler", self._attach)
        self._link.open()

    def _attach(self, client: Client) -> int:
        args = {"engine": self._settings.engine, "connector": self._settings.connector}
        return client.call("scheduler.attach", args, ATTACH_TIMEOUT)["session"]

    # What vLLM asks about a waiting request.

    def new_request(self, request: Request) -> None:
        entry = self._requests[request.request_id] = _Request(request)
        self._announce(entry)

    def matched(self, request: Request, computed: int) -> tuple[int | None, bool]:
        """Tokens beyond `computed` that can be loaded, and whether while other requests run; None: ask again."""
        entry = self._entry(request)
        entry.computed = computed
        if not self._announce(entry):
            return 0, False
        answer = self._call("scheduler.matched", id=request.request_id, computed=computed, append=self._append(entry))
        if answer is None:
            return 0, False
        tokens, asynchronous = answer
        if tokens is None:
            return None, False
        entry.asynchronous = bool(asynchronous) and tokens > 0
        return tokens, entry.asynchronous

    def allocated(self, request: Request, blocks: tuple[list[int], ...], external: int) -> None:
        entry = self._entry(request)
        if external > 0:
            filled = self._loaded_blocks(blocks, entry.computed, external)
            flat = [block for ids in filled for block in ids]
            if entry.asynchronous:
                entry.loading = flat
                self._new_loads[request.request_id] = filled
                self._metrics.load_began(request.request_id, request.arrival_time)
            else:
                self._sync_blocks += flat
        if entry.named is not None:
            self._send("scheduler.allocated", id=request.request_id, blocks=self._transferred(blocks), external=external)

    # What vLLM does step by step.

    def build_meta(self, output: SchedulerOutput) -> StepMetadata:
        self._turn()
        preempted = sorted(output.preempted_req_ids or ())
        new, cached = self._step(output)
        step = None
        if self._link.up:
            step = self._call(
                "scheduler.step",
                new=new,
                cached=cached,
                scheduled=dict(output.num_scheduled_tokens),
                finished=sorted(output.finished_req_ids),
                preempted=preempted,
            )
            if step is None:
                # Refused: which tokens, blocks and loads of it the service knows is anybody's guess, and it would go on with
                # them. Lost, now or in this very call: workers must hear of it with this step.
                self._link.drop("a step was refused")
                self._turn()
        if step is not None:
            self._pending = bool(step["pending"])
            for error in step["errors"]:
                self._slow.warning("mooncake-ts: the service reports %s: %s", error.get("code"), error.get("message"))
        first = [request for request in self._metrics.loaded() if self._has_output(request)]
        self._metrics.first_tokens(first)
        meta = StepMetadata(
            meta=step["meta"] if step is not None else None,
            preempted=preempted,
            loads=self._new_loads,
            sync_blocks=self._sync_blocks,
            lost=self._tell,
            release=self._release,
            waiting=any(entry.loading is not None or entry.awaited for entry in self._requests.values()),
        )
        self._new_loads, self._sync_blocks, self._release, self._tell = {}, [], [], False
        return meta

    def update_output(self, output: KVConnectorOutput) -> None:
        """Tells the service what the workers finished, and takes out of `output` what vLLM must not hear."""
        saved = output.kv_connector_worker_meta
        if self._events is not None and isinstance(saved, SavedBlocks):
            self._events.saved(saved, [entry.request for entry in self._requests.values()])
        sending, receiving = sorted(output.finished_sending or ()), sorted(output.finished_recving or ())
        invalid = set(output.invalid_block_ids)
        for request in output.failed_recving:
            entry = self._requests.get(request)
            if entry is not None and entry.loading is not None:
                invalid.update(entry.loading)
        if (sending or receiving or invalid) and self._link.up:
            self._send("scheduler.output", sending=sending, receiving=receiving, invalid=sorted(invalid))

        received, sent = set(), set()
        for request in receiving:
            entry = self._requests.get(request)
            if entry is None or entry.loading is None:
                continue
            failed = bool(invalid.intersection(entry.loading))
            entry.loading = None
            self._metrics.load_ended(request, failed)
            if not entry.awaited:
                received.add(request)
            elif self._freed(entry, "receiving"):
                sent.add(request)
        for request in sending:
            entry = self._requests.get(request)
            if entry is not None and "sending" in entry.awaited and self._freed(entry, "sending"):
                sent.add(request)
        output.finished_recving, output.finished_sending = received, sent

    def finished(self, request: Request, blocks: tuple[list[int], ...]) -> tuple[bool, dict[str, Any] | None]:
        """The request has ended. Whether its blocks must be kept, and what the router is to pass on."""
        entry = self._entry(request)
        delay, params = False, None
        if entry.named is not None:
            args = {"id": request.request_id, "blocks": self._transferred(blocks), "append": self._append(entry)}
            answer = self._call("scheduler.finished", **args)
            if answer is not None:
                delay, params = bool(answer[0]), answer[1]
            else:
                # The service may still read the blocks. They are kept until the workers have ended that.
                self._link.drop("an ended request's blocks may still be read")
                delay = True
        if request.num_output_tokens > 0:
            self._metrics.first_tokens([request.request_id])
        self._metrics.ended(request.request_id)
        if entry.loading is not None:
            entry.awaited.add("receiving")
        if delay:
            entry.awaited.add("sending")
        if not entry.awaited:
            self._forget(entry)
        return bool(entry.awaited), params

    def take_events(self) -> list[Any]:
        """KV events of blocks that were saved since the last call."""
        return self._events.take() if self._events is not None else []

    def pending(self) -> bool:
        """There is work that needs steps although no request runs."""
        return self._pending and self._link.up

    def reset(self) -> bool:
        """What engines of this model have saved is removed from the store; whether it was."""
        answer = self._call("scheduler.reset", RESET_TIMEOUT)
        if answer is None:
            logger.error("mooncake-ts: the store was not reset: what was saved with other weights may still be found")
            return False
        logger.info("mooncake-ts: %d objects of this model removed from the store", answer["removed"])
        return True

    def handshake(self, metadata: Iterable[bytes]) -> None:
        """Handshakes of ranks that are attached to services on other hosts."""
        self._call("scheduler.handshake", metadata=list(metadata))

    def stats(self) -> TransferStats | None:
        if self._link.up and self._metrics.due():
            counters = self._call("scheduler.stats")
            if counters is not None:
                self._metrics.counters(counters)
        return self._metrics.take()

    def shutdown(self) -> None:
        self._link.close()

    # The service, as it comes and goes.

    def _turn(self) -> None:
        """Puts the books in order behind a connection that was lost, and takes over a new one."""
        if not self._link.up and not self._lost:
            self._lost = self._tell = True
            self._pending = False
            for request, entry in list(self._requests.items()):
                entry.named = None
                # Loads are the workers' to report, who know whether the bytes came. Held blocks are released by them, too:
                # when nobody can read them any more.
                if "sending" in entry.awaited:
                    self._release.append(request)
            self._link.reconnect()
        if self._lost and self._link.adopt():
            self._lost = False

    def _announce(self, entry: _Request) -> bool:
        """Makes the request known to the service, which may be another than it was; whether it is."""
        if entry.named is not None:
            return True
        if not self._link.up:
            return False
        request = entry.request
        tokens = request.all_token_ids
        sent = self._send(
            "scheduler.request",
            id=request.request_id,
            prompt=request.num_prompt_tokens,
            tokens=_binary(tokens[:]),
            extraKeys=self._extra_keys(request),
            params=request.kv_transfer_params,
        )
        entry.named = len(tokens) if sent else None
        return sent

    def _append(self, entry: _Request) -> bytes:
        """Tokens that the service does not know yet."""
        tokens = entry.request.all_token_ids
        named = entry.named or 0
        entry.named = len(tokens)
        return _binary(tokens[named:]) if len(tokens) > named else b""

    def _step(self, output: SchedulerOutput) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The step's requests that the service knows. One that lives through a restart of the service is not shared again."""
        new = []
        for data in output.scheduled_new_reqs:
            if self._known(data.req_id):
                new.append(_new(data.req_id, self._transferred(data.block_ids), data.num_computed_tokens, False))
        cached = []
        running = output.scheduled_cached_reqs
        for index, request in enumerate(running.req_ids):
            entry = self._known(request)
            if entry is None:
                continue
            blocks, computed = running.new_block_ids[index], running.num_computed_tokens[index]
            blocks = self._transferred(blocks) if blocks is not None else [[] for _ in self._groups]
            if request in running.resumed_req_ids:
                new.append(_new(request, blocks, computed, True))
            else:
                append = self._append(entry)
                cached.append({"id": request, "blocks": blocks, "computed": computed, "append": append})
        return new, cached

    def _known(self, request: str) -> _Request | None:
        entry = self._requests.get(request)
        return entry if entry is not None and entry.named is not None else None

    def _has_output(self, request: str) -> bool:
        entry = self._requests.get(request)
        return entry is not None and entry.request.num_output_tokens > 0

    def _entry(self, request: Request) -> _Request:
        entry = self._requests.get(request.request_id)
        if entry is None:
            entry = self._requests[request.request_id] = _Request(request)
        return entry

    def _freed(self, entry: _Request, what: str) -> bool:
        """One thing that kept a finished request's blocks has ended; whether it was the last."""
        entry.awaited.discard(what)
        if entry.awaited:
            return False
        self._forget(entry)
        return True

    def _forget(self, entry: _Request) -> None:
        self._requests.pop(entry.request.request_id, None)
        if self._events is not None:
            self._events.ended(entry.request)

    def _transferred(self, blocks: tuple[list[int], ...]) -> list[list[int]]:
        return [list(blocks[group]) for group in self._groups]

    def _loaded_blocks(self, blocks: tuple[list[int], ...], computed: int, external: int) -> list[list[int]]:
        """Blocks that hold the tokens from `computed` on, by group. Block 0 stands for none: a window has moved on."""
        return [
            [block for block in ids[computed // size : -(-(computed + external) // size)] if block != 0]
            for size, ids in zip(self._block_sizes, self._transferred(blocks))
        ]

    def _call(self, op: str, timeout: float = CALL_TIMEOUT, **args: Any) -> Any:
        """The result; None where there is no service, or it refuses."""
        started = time.perf_counter()
        try:
            return self._link.call(op, timeout, **args)
        except ConnectionLost:
            return None
        except ServiceError as error:
            self._slow.warning("mooncake-ts: %s: %s", op, error)
            return None
        finally:
            self._metrics.called(time.perf_counter() - started)

    def _send(self, op: str, **args: Any) -> bool:
        try:
            self._link.send(op, **args)
        except (ConnectionLost, ServiceError):
            return False
        return True


def _new(request: str, blocks: list[list[int]], computed: int, resumed: bool) -> dict[str, Any]:
    return {"id": request, "blocks": blocks, "computed": computed, "resumed": resumed}


def _binary(tokens: Any) -> bytes:
    """Token ids as u32, little-endian."""
    words = array("I", tokens)
    if words.itemsize != 4:
        words = array("L", tokens)
    return words.tobytes()
