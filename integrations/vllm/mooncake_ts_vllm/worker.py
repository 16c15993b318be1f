"""The worker half: registers the KV cache, begins the service's work before the forward pass, reports what has ended.

What is under way is remembered here as well, so that it ends even if the service does: loads are reported as failed, and
the engine computes their tokens. Before that the memory is taken from a service that might still write into it.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from .config import Settings
from .cuda import CudaError, DeviceMemory, Order, VirtualMemory
from .events import SavedBlocks
from .layout import Cache
from .link import Link, Slow
from .memory import SharedMemory, describe
from .metadata import StepMetadata
from .metrics import TransferStats, WorkerMetrics
from .protocol import Client, ConnectionLost, ServiceError, process_ended

logger = logging.getLogger("vllm.mooncake_ts_vllm")

ATTACH_TIMEOUT = 30.0
# The service waits for the transfers of preempted requests, a second at most, before it answers.
STEP_TIMEOUT = 5.0
# Of a layer that is loaded within the step, and of the step's end: beyond the connectors' own deadlines.
LAYER_TIMEOUT = 30.0
CALL_TIMEOUT = 5.0
# Beyond these, where the service waits for events of this engine's GPU: it gives the session up after 60 s itself.
GPU_TIMEOUT = 65.0
# Of an asynchronous load, beyond the connectors' own deadlines: one that the service does not know of never ends there.
LOAD_TIMEOUT = 600.0
# With nothing under way the service is asked for counters and errors this often.
IDLE_SECONDS = 1.0
# How long a service that ended its connection may take to exit before the memory is taken from it.
EXIT_SECONDS = 0.2


class WorkerHalf:
    """One per rank, in the process of its KV cache; called from the thread that runs the model."""

    def __init__(self, settings: Settings, rank: int) -> None:
        self._settings = settings
        self._rank = rank
        self._cache: Cache | None = None
        self._handshake: bytes | None = None
        # Of events on the GPU; empty where the cache is on none, or the driver hands none over.
        self._event_handles: list[bytes] = []
        self._step: StepMetadata | None = None
        # Whether this step has layers to wait for, and to announce.
        self._layer_loads = False
        self._layer_saves = False
        # When the step began, and how long it took until the last layer was there.
        self._began = self._loaded = 0.0
        # By request: blocks of the load under way, by group, and when it began.
        self._pending: dict[str, tuple[list[list[int]], float]] = {}
        # Loads under way that have failed in part.
        self._failing: set[str] = set()
        parts = settings.connector.get("connectors", [settings.connector])
        self._hash_width = 16 if settings.engine["hash"]["algorithm"].startswith("xxhash") else 32
        self._load_timeout = max(LOAD_TIMEOUT, *(2e-3 * part.get("loadTimeoutMs", 0) for part in parts))
        self._finished: set[str] = set()
        # To be reported: releases, loads that ended, those of them that failed, blocks to compute.
        self._sending: set[str] = set()
        self._ended: set[str] = set()
        self._failed: set[str] = set()
        self._invalid: set[int] = set()
        self._saved: SavedBlocks | None = None
        self._asked = 0.0
        self._lost = False
        self._slow = Slow()
        self._metrics = WorkerMetrics()
        self._link = Link(settings.socket, f"mooncake_ts_vllm/rank{rank}", self._attach)

    def register(self, cache: Cache) -> None:
        """The KV cache is there. Raises ServiceError where the service refuses the engine or its layout."""
        self._cache = cache
        for why in cache.unshared:
            logger.info("mooncake-ts: the service is to read this engine's memory directly: %s", why)
        if cache.order is not None:
            # Here: a thread that attaches again has no context of the GPU.
            try:
                self._event_handles = cache.order.export(sorted(set(cache.layers.values())))
            except CudaError as error:
                logger.info("mooncake-ts: this engine waits for its GPU itself, having no events for others: %s", error)
        self._link.open()

    def _attach(self, client: Client) -> int:
        cache = self._cache
        assert cache is not None
        args = {"engine": self._settings.engine, "connector": self._settings.connector, "rank": self._rank}
        session = client.call("worker.attach", args, ATTACH_TIMEOUT)["session"]
        if "cuda-vmm-fd" not in client.features and any(isinstance(memory, VirtualMemory) for memory in cache.memories):
            raise ServiceError("ERR_NOT_SUPPORTED", f"memory of cuMemCreate: the service at {self._settings.socket} is too old to take it")
        memories = [describe(memory, client.descriptors, ATTACH_TIMEOUT) for memory in cache.memories]
        registered = {"session": session, "memories": memories, "layout": cache.layout, **self._events(client)}
        self._handshake = client.call("worker.register", registered, ATTACH_TIMEOUT).get("handshake")
        return session

    def _events(self, client: Client) -> dict[str, object]:
        """What says when the GPU has done what it was given, for a service that can wait for it."""
        if self._order is None or self._cache is None:
            return {}
        self._order.shared = self._event_handles != [] and "gpu-events" in client.features
        if not self._order.shared:
            return {}
        device = next(memory.device for memory in self._cache.memories if isinstance(memory, DeviceMemory | VirtualMemory))
        return {"events": {"device": device, "handles": self._event_handles}}

    @property
    def handshake(self) -> bytes | None:
        """For a scheduler half that is attached to another host's service."""
        return self._handshake

    # A step, in vLLM's order.

    def begin(self, step: StepMetadata) -> None:
        """Before any block of the step is written. vLLM comes twice, for preemptions and to bind; the first counts."""
        if self._step is step:
            return
        self._step = step
        if step.lost:
            self._link.drop("the engine's scheduler has lost it")
        self._settle()
        if self._lost and self._link.adopt():
            self._lost = False
        self._began = now = time.perf_counter()
        self._pending.update((request, (blocks, now)) for request, blocks in step.loads.items())
        self._sending.update(step.release)
        self._layer_loads = self._layer_saves = False
        if step.meta is None and not step.preempted:
            self._give_up_step()
            self._fail(list(step.loads))
            return
        # What is saved must have been computed, and what is loaded over must not be read any more.
        after = self._order.begin() if self._order is not None else None
        done, result = self._call("worker.step", STEP_TIMEOUT, meta=step.meta, preempted=step.preempted, **_behind(after))
        if done and step.meta is not None:
            self._layer_loads = bool(result["loads"])
            self._layer_saves = bool(result["saves"])
        else:
            self._give_up_step()
            self._fail(list(step.loads))
            # The step may write blocks of preempted requests.
            self._settle()

    def wait_layer(self, name: str) -> None:
        """The layer may be read when this returns: it is loaded, or its blocks are reported as invalid."""
        layer = self._layer(name)
        if self._layer_loads and layer is not None:
            done, _ = self._call("worker.layerLoad", LAYER_TIMEOUT, layer=layer)
            self._loaded = time.perf_counter() - self._began
            if not done:
                self._give_up_step()

    def layer_saved(self, name: str) -> None:
        """The forward pass has written the layer."""
        layer = self._layer(name)
        if not self._layer_saves or layer is None:
            return
        after = self._order.mark(layer) if self._order is not None else None
        if self._order is None or after is not None:
            self._announce(layer, after)
            return
        for written in self._order.over():
            self._announce(written)

    def _announce(self, layer: int, after: int | None = None) -> None:
        try:
            self._link.send("worker.layerSaved", now=True, layer=layer, **_behind(after))
        except (ConnectionLost, ServiceError):
            self._layer_saves = False

    def end(self) -> None:
        """The step's blocks may be changed when this returns."""
        while self._layer_saves and self._order is not None and (layer := self._order.next()) is not None:
            self._announce(layer)
        if self._layer_loads or self._layer_saves:
            done, _ = self._call("worker.saved", LAYER_TIMEOUT)
            if not done:
                self._give_up_step()

    def results(self, finished: set[str]) -> tuple[set[str], set[str], set[str]]:
        """Requests whose blocks need not be kept any longer, whose loads have ended, and which of these failed."""
        self._finished |= finished
        under_way = self._pending or self._finished or self._layer_loads or (self._step is not None and self._step.waiting)
        if self._link.up and (under_way or time.monotonic() - self._asked > IDLE_SECONDS):
            self._ask()
        overdue = time.perf_counter() - self._load_timeout
        if any(began < overdue for _, began in self._pending.values()):
            self._link.drop("a load does not end")
        self._settle()
        if self._step is not None and self._step.sync_blocks:
            size = sum(self._cache.block_bytes) * len(self._step.sync_blocks) if self._cache is not None else 0
            self._metrics.load_ended(size, self._loaded, not self._invalid.isdisjoint(self._step.sync_blocks))
        self._layer_loads = self._layer_saves = False
        self._step = None
        sending, ended, failed = self._sending, self._ended, self._failed
        self._sending, self._ended, self._failed = set(), set(), set()
        return sending, ended, failed

    def take_invalid(self) -> set[int]:
        """Blocks whose load failed, of caches of one group: in others a number names a block of each."""
        invalid, self._invalid = self._invalid, set()
        return invalid if self._groups == 1 else set()

    def take_saved(self) -> SavedBlocks | None:
        """Blocks that were saved since the last call, for KV events."""
        saved, self._saved = self._saved, None
        return saved

    def stats(self) -> TransferStats | None:
        return self._metrics.take()

    def shutdown(self) -> None:
        self._link.close()
        if self._cache is not None:
            for memory in self._cache.memories:
                if isinstance(memory, SharedMemory):
                    memory.close()
            if self._cache.order is not None:
                self._cache.order.close()

    # What has ended, and how.

    @property
    def _order(self) -> Order | None:
        """Of a cache on a GPU."""
        return self._cache.order if self._cache is not None else None

    @property
    def _groups(self) -> int:
        return len(self._cache.block_bytes) if self._cache is not None else 1

    def _ask(self) -> None:
        self._asked = time.monotonic()
        done, result = self._call("worker.finished", CALL_TIMEOUT, finished=sorted(self._finished))
        if not done:
            return
        self._finished = set()
        invalid = set(result["invalid"])
        if invalid:
            self._invalid |= invalid
            for request, (blocks, _) in self._pending.items():
                if any(not invalid.isdisjoint(ids) for ids in blocks):
                    self._failing.add(request)
        for request in result["receiving"]:
            if request in self._pending:
                self._end(request)
        self._sending.update(result["sending"])
        for blocks in result.get("saved", ()):
            self._saved = self._saved or SavedBlocks()
            self._saved.add(**blocks, width=self._hash_width)
        self._metrics.counters(result["stats"])
        for error in result["errors"]:
            self._slow.warning("mooncake-ts: the service reports %s: %s", error.get("code"), error.get("message"))

    def _end(self, request: str) -> None:
        blocks, began = self._pending.pop(request)
        failed = request in self._failing
        self._failing.discard(request)
        self._ended.add(request)
        if failed:
            self._failed.add(request)
        assert self._cache is not None
        size = sum(len(ids) * block for ids, block in zip(blocks, self._cache.block_bytes))
        self._metrics.load_ended(size, time.perf_counter() - began, failed)

    def _fail(self, requests: list[str]) -> None:
        """Ends loads that never will: their blocks are to be computed."""
        for request in requests:
            if request in self._pending:
                for ids in self._pending[request][0]:
                    self._invalid.update(ids)
                self._failing.add(request)
                self._end(request)

    def _give_up_step(self) -> None:
        if self._step is not None:
            self._invalid.update(self._step.sync_blocks)
        self._layer_loads = self._layer_saves = False

    # The service, as it comes and goes.

    def _settle(self) -> None:
        """Behind a connection that was lost: takes the memory from the service, fails what was under way, reconnects."""
        if self._link.up or self._lost:
            return
        self._lost = True
        self._fence()
        self._fail(list(self._pending))
        self._finished = set()
        self._link.reconnect()

    def _fence(self) -> None:
        """No block may be reused while a service that fell silent could still write or read it."""
        if self._link.peer is None:
            return
        deadline = time.monotonic() + EXIT_SECONDS
        while not process_ended(self._link.peer):
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        else:
            return
        assert self._cache is not None
        started = time.monotonic()
        for memory in self._cache.memories:
            if isinstance(memory, SharedMemory):
                memory.replace()
            else:
                raise RuntimeError(
                    f"the mooncake-ts service (pid {self._link.peer}) fell silent, still runs, and can write into this engine's "
                    "memory: end it and start the engine again"
                )
        took = time.monotonic() - started
        logger.warning("mooncake-ts: took the KV memory back from a service that lives (%.0f ms)", 1000 * took)

    def _call(self, op: str, timeout: float, **args: Any) -> tuple[bool, Any]:
        """Whether the call was answered, and what. A refusal leaves open what is under way: the connection ends as well."""
        if self._order is not None and self._order.shared:
            # It may stand behind work of the GPU, whose length says nothing of the service.
            timeout += GPU_TIMEOUT
        try:
            return True, self._link.call(op, timeout, **args)
        except ConnectionLost:
            return False, None
        except ServiceError as error:
            self._link.drop(f"{op}: {error}")
            return False, None

    def _layer(self, name: str) -> int | None:
        return self._cache.layers.get(name) if self._cache is not None else None


def _behind(event: int | None) -> dict[str, int]:
    """The argument that names the event which the service waits for."""
    return {} if event is None else {"after": event}
