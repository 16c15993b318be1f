"""Engines' objects as far as the halves look at them, and an engine of both halves over real tensors."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
import unittest
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from mooncake_ts_vllm.config import Settings
from mooncake_ts_vllm.layout import Cache, describe_cache
from mooncake_ts_vllm.memory import mapped_allocations
from mooncake_ts_vllm.metadata import StepMetadata
from mooncake_ts_vllm.scheduler import SchedulerHalf
from mooncake_ts_vllm.worker import WorkerHalf
from vllm.v1.core.sched.output import CachedRequestData, SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import KVConnectorOutput

from .fake_service import FakeService

BLOCK = 32
BLOCKS = 130
LAYERS = 2


def settings(path: str, engine: str = "engine") -> Settings:
    described = {
        "engineId": engine,
        "model": "m",
        "role": "both",
        "hash": {"algorithm": "sha256", "blockSize": BLOCK, "seed": "0"},
        "tensorParallelSize": 1,
    }
    return Settings(path, described, {"kind": "store"}, hands_over=False, shares=True, events=False, load_async=True)


def full_group(prefix: str = "layers", layers: int = LAYERS, **spec: Any) -> KVCacheGroupSpec:
    fields = {"block_size": BLOCK, "num_kv_heads": 2, "head_size": 512, "dtype": torch.bfloat16, **spec}
    return KVCacheGroupSpec([f"{prefix}.{layer}.attn" for layer in range(layers)], FullAttentionSpec(**fields))


def cache_config(*groups: KVCacheGroupSpec) -> KVCacheConfig:
    return KVCacheConfig(num_blocks=BLOCKS, kv_cache_tensors=[], kv_cache_groups=list(groups), hash_block_size=BLOCK)


def tensors(config: KVCacheConfig) -> dict[str, torch.Tensor]:
    """All layers in one storage, as vLLM on CPU has them."""
    specs = [(name, group.kv_cache_spec) for group in config.kv_cache_groups for name in group.layer_names]
    shapes = [(BLOCKS, spec.num_kv_heads, spec.block_size, 2 * spec.head_size) for _, spec in specs]
    with mapped_allocations():
        raw = torch.zeros(sum(torch.Size(shape).numel() for shape in shapes), dtype=torch.bfloat16)
    views, at = {}, 0
    for (name, _), shape in zip(specs, shapes):
        size = torch.Size(shape).numel()
        views[name] = raw[at : at + size].view(shape)
        at += size
    return views


def describe(config: KVCacheConfig, caches: dict[str, torch.Tensor]) -> Cache:
    return describe_cache(caches, config, heads=2, rank=0, size=1, packing=lambda spec: "vec")


def request(name: str, tokens: list[int], prompt: int | None = None) -> Any:
    return SimpleNamespace(
        request_id=name,
        all_token_ids=tokens,
        num_prompt_tokens=prompt or len(tokens),
        num_output_tokens=0,
        kv_transfer_params=None,
        arrival_time=time.time(),
    )


def prompt(blocks: int, seed: int = 1) -> list[int]:
    chooser = random.Random(seed)
    return [chooser.randrange(1000) for _ in range(blocks * BLOCK + 5)]


def output(new: dict[str, tuple[list[int], int, int]] | None = None, **more: Any) -> SchedulerOutput:
    """A step: by request its blocks, tokens that are there, tokens to compute."""
    step = SchedulerOutput.make_empty()
    for name, (blocks, computed, scheduled) in (new or {}).items():
        data = SimpleNamespace(req_id=name, block_ids=(blocks,), num_computed_tokens=computed)
        step.scheduled_new_reqs.append(data)
        step.num_scheduled_tokens[name] = scheduled
    for name, value in more.items():
        setattr(step, name, value)
    return step


def cached(name: str, blocks: list[int] | None, computed: int, resumed: bool = False) -> CachedRequestData:
    data = CachedRequestData.make_empty()
    data.req_ids.append(name)
    data.new_block_ids.append((blocks,) if blocks is not None else None)
    data.num_computed_tokens.append(computed)
    if resumed:
        data.resumed_req_ids.add(name)
    return data


class Engine:
    """Both halves as vLLM calls them; its model writes a request's tokens into the blocks of its step."""

    def __init__(self, path: str, name: str = "engine", groups: int = 1) -> None:
        made = [full_group(f"group{chr(97 + group)}") for group in range(groups)]
        self.config = cache_config(*made)
        self.caches = tensors(self.config)
        own = settings(path, name)
        self.worker = WorkerHalf(own, 0)
        cache = describe(self.config, self.caches)
        (self.memory,) = cache.memories
        self.worker.register(cache)
        self.scheduler = SchedulerHalf(own, [BLOCK] * groups, tuple(range(groups)), lambda request: None)

    def fill(self, block: int, value: float) -> None:
        for cache in self.caches.values():
            cache[block] = value

    def values(self, blocks: list[int]) -> list[float]:
        """One number per block, where all of it is that number in every layer."""
        found = []
        for block in blocks:
            parts = {value for cache in self.caches.values() for value in cache[block].unique().tolist()}
            found.append(parts.pop() if len(parts) == 1 else float("nan"))
        return found

    def step(self, output: SchedulerOutput, forward: Callable[[], None] = lambda: None) -> KVConnectorOutput:
        meta = self.scheduler.build_meta(output)
        return self.finish(self.run(meta, forward, output.finished_req_ids))

    def run(
        self, meta: StepMetadata, forward: Callable[[], None] = lambda: None, finished: set[str] | None = None
    ) -> KVConnectorOutput:
        """The worker's part."""
        self.worker.begin(meta)
        forward()
        for name in self.caches:
            self.worker.wait_layer(name)
            self.worker.layer_saved(name)
        self.worker.end()
        sending, received, failed = self.worker.results(finished or set())
        made = KVConnectorOutput(finished_sending=sending, finished_recving=received)
        made.invalid_block_ids = self.worker.take_invalid()
        made.failed_recving = failed if len(self.config.kv_cache_groups) > 1 else set()
        return made

    def finish(self, made: KVConnectorOutput) -> KVConnectorOutput:
        self.scheduler.update_output(made)
        return made

    def save(self, name: str, tokens: list[int], blocks: list[int]) -> None:
        """Computes a prompt into blocks, as the numbers 1, 2, …"""
        entry = request(name, tokens)
        self.scheduler.new_request(entry)
        self.scheduler.matched(entry, 0)
        self.scheduler.allocated(entry, (blocks,), 0)

        def forward() -> None:
            for index, block in enumerate(blocks):
                self.fill(block, index + 1)

        self.step(output({name: (blocks, 0, len(tokens))}), forward)
        self.scheduler.finished(entry, (blocks,))

    def begin_load(self, name: str, tokens: list[int], blocks: list[int]) -> Any:
        """Asks for a prompt and takes what is offered; the request, with `found` tokens."""
        entry = request(name, tokens)
        self.scheduler.new_request(entry)
        found, asynchronous = self.scheduler.matched(entry, 0)
        entry.found = found
        self.scheduler.allocated(entry, tuple(blocks for _ in self.config.kv_cache_groups), found or 0)
        assert asynchronous == bool(found)
        return entry

    def shutdown(self) -> None:
        self.worker.shutdown()
        self.scheduler.shutdown()


class ServiceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "service.sock")

    def service(self, **faults: Any) -> FakeService:
        service = FakeService(self.path)
        for name, value in faults.items():
            setattr(service, name, value)
        self.addCleanup(service.close)
        return service

    def engine(self, **options: Any) -> Engine:
        engine = Engine(self.path, **options)
        self.addCleanup(engine.shutdown)
        return engine

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"not in {seconds} s: {what}")
            time.sleep(0.02)
