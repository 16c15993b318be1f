"""vLLM's V1 connector interface over the two halves (vllm/distributed/kv_transfer/kv_connector/v1/base.py, vLLM 0.32).

Three names, one implementation: what a connector does is the service's to know. This module only translates between
vLLM's objects and the halves, so that everything else can be read and tested without an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.platforms import current_platform
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys

from . import config
from .layout import describe_cache
from .link import logger
from .memory import mapped_allocations
from .metadata import StepMetadata
from .metrics import TransferPromMetrics, TransferStats
from .scheduler import SchedulerHalf
from .worker import WorkerHalf

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.forward_context import ForwardContext
    from vllm.v1.attention.backend import AttentionMetadata
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

config.check_version(vllm.__version__)


@dataclass
class Handshake(KVConnectorHandshakeMetadata):
    """What a rank says of itself, made by the service."""

    data: bytes


class _Connector(KVConnectorBase_V1, SupportsHMA):
    """The common connector; `kind` is what the service makes of it."""

    kind: str

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        settings = config.read(vllm_config, kv_cache_config, self.kind)
        self._settings = settings
        self._scheduler: SchedulerHalf | None = None
        self._worker: WorkerHalf | None = None
        if role == KVConnectorRole.SCHEDULER:
            self._never_empty()
            groups = kv_cache_config.transfer_group_ids
            sizes = [kv_cache_config.kv_cache_groups[group].kv_cache_spec.block_size for group in groups]
            self._scheduler = SchedulerHalf(settings, sizes, groups, self._extra_keys)
        else:
            from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

            self._rank = get_tensor_model_parallel_rank()
            self._worker = WorkerHalf(settings, self._rank)

    def _never_empty(self) -> None:
        """A load that fails is computed. vLLM's default would end the request with an empty completion.

        The scheduler makes its connector first and reads the policy after it (Scheduler.__init__).
        """
        if self._kv_transfer_config.kv_load_failure_policy != "recompute":
            logger.info("mooncake-ts: kv_load_failure_policy is recompute: what cannot be loaded is computed")
            self._kv_transfer_config.kv_load_failure_policy = "recompute"

    def _extra_keys(self, request: Request) -> list[Any] | None:
        """vLLM's extra hash keys per block, also of blocks that are to be generated; None for a plain request."""
        if not (request.lora_request or request.mm_features or request.cache_salt or request.prompt_embeds is not None):
            return None
        size = self._settings.engine["hash"]["blockSize"]
        blocks = (request.num_tokens + (request.max_tokens or 0)) // size
        keys, start = [], 0
        for block in range(blocks):
            extra, start = generate_block_hash_extra_keys(request, block * size, (block + 1) * size, start)
            keys.append(extra)
        return keys

    @property
    def requires_kv_delivery(self) -> bool:
        return self._settings.hands_over

    # Scheduler side.

    @property
    def _scheduling(self) -> SchedulerHalf:
        assert self._scheduler is not None, "a call for the scheduler's connector"
        return self._scheduler

    def on_new_request(self, request: Request) -> None:
        self._scheduling.new_request(request)

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        return self._scheduling.matched(request, num_computed_tokens)

    def get_loaded_kv_cache_group_ids(self, request: Request) -> tuple[int, ...]:
        params = request.kv_transfer_params or {}
        if params.get("do_remote_prefill"):
            return self._kv_cache_config.transfer_group_ids
        return super().get_loaded_kv_cache_group_ids(request)

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        self._scheduling.allocated(request, blocks.get_block_ids(), num_external_tokens)

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> KVConnectorMetadata:
        return self._scheduling.build_meta(scheduler_output)

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        self._scheduling.update_output(connector_output)

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        return self._scheduling.finished(request, (block_ids,))

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self._scheduling.finished(request, block_ids)

    def has_pending_push_work(self) -> bool:
        return self._scheduling.pending()

    def set_xfer_handshake_metadata(self, metadata: dict[int, KVConnectorHandshakeMetadata]) -> None:
        ranks = [entry for _, entry in sorted(metadata.items()) if isinstance(entry, Handshake)]
        # A service that has all ranks knows them already; one that has none of them learns them here.
        if ranks and getattr(self._vllm_config.parallel_config, "nnodes", 1) > 1:
            self._scheduling.handshake(rank.data for rank in ranks)

    def reset_cache(self) -> bool | None:
        """The store forgets what was saved of this model, by any engine: its weights have changed under their name."""
        if self._scheduler is None or not self._settings.shares:
            return None
        return self._scheduling.reset()

    # Worker side.

    @property
    def _working(self) -> WorkerHalf:
        assert self._worker is not None, "a call for a worker's connector"
        return self._worker

    def get_mem_pool_context(self) -> AbstractContextManager[None] | None:
        """vLLM allocates the KV cache within it."""
        return mapped_allocations() if current_platform.is_cpu() else None

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        model = self._vllm_config.model_config
        described = describe_cache(
            kv_caches,
            self._kv_cache_config,
            heads=model.get_total_num_kv_heads(),
            rank=self._rank,
            size=self._vllm_config.parallel_config.tensor_parallel_size,
            packing=self._packing(),
            rows=not current_platform.is_cpu(),
        )
        self._working.register(described)

    def _packing(self) -> Callable[[Any], str]:
        """What tells apart kernels that keep keys and values in different ways, by a group's spec."""
        if current_platform.is_cpu():
            from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

            dtype, cached = self._vllm_config.model_config.dtype, self._vllm_config.cache_config.cache_dtype
            return lambda spec: _get_attn_isa(dtype, spec.block_size, spec.head_size, cached)
        from vllm.distributed.kv_transfer.kv_connector.utils import get_current_attn_backend

        backend = get_current_attn_backend(self._vllm_config).get_name().lower()
        return lambda spec: backend

    def get_handshake_metadata(self) -> KVConnectorHandshakeMetadata | None:
        data = self._working.handshake
        return Handshake(data) if data is not None else None

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        assert isinstance(kv_connector_metadata, StepMetadata)
        # Without preemptions the step begins when it is bound: by then new blocks have been zeroed.
        if kv_connector_metadata.preempted:
            self._working.begin(kv_connector_metadata)

    def bind_connector_metadata(self, connector_metadata: KVConnectorMetadata) -> None:
        super().bind_connector_metadata(connector_metadata)
        assert isinstance(connector_metadata, StepMetadata)
        self._working.begin(connector_metadata)

    def start_load_kv(self, forward_context: ForwardContext, **kwargs: Any) -> None:
        """The loads began when the step was bound: vLLM calls this after the forward pass where it can."""

    def wait_for_layer_load(self, layer_name: str) -> None:
        self._working.wait_layer(layer_name)

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: AttentionMetadata, **kwargs: Any
    ) -> None:
        self._working.layer_saved(layer_name)

    def wait_for_save(self) -> None:
        self._working.end()

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        sending, received, _ = self._working.results(finished_req_ids)
        return sending, received

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        sending, received, failed = self._working.results(finished_req_ids)
        several = len(self._kv_cache_config.kv_cache_groups) > 1
        # Numbers of blocks say which request failed only where there is one group.
        return KVConnectorTransferResults(sending, received, failed if several else set())

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._working.take_invalid()

    # Either side.

    def get_kv_connector_stats(self) -> TransferStats | None:
        return self._worker.stats() if self._worker is not None else self._scheduling.stats()

    def take_events(self) -> Iterable[Any]:
        return self._scheduling.take_events()

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        return self._working.take_saved()

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> TransferStats:
        return TransferStats(data=data or {})

    @classmethod
    def build_prom_metrics(
        cls, vllm_config: VllmConfig, metric_types: Any, labelnames: list[str], per_engine_labelvalues: Any
    ) -> TransferPromMetrics:
        return TransferPromMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Layers are announced from Python as they are written, which a whole-model graph would skip."""
        return True

    def shutdown(self) -> None:
        for half in (self._scheduler, self._worker):
            if half is not None:
                half.shutdown()


class MooncakeConnector(_Connector):
    """Prefill to decode: blocks go from the engine that computed a prompt to the one that decodes it."""

    kind = "mooncake"


class MooncakeStoreConnector(_Connector):
    """Shared prefixes: engines share the KV of equal prefixes through a store."""

    kind = "store"


class MultiConnector(_Connector):
    """Several of them: `connectors` of the extra configuration, the first that has tokens loads, all save."""

    kind = "multi"
