"""What vLLM's configuration says to the service: the engine, its connectors, and where the service listens.

The keys of vLLM's own Mooncake connectors keep their meaning where they mean something here; what the service decides
(protocol, devices, threads, ports of lookups) is accepted and ignored, so that an existing command works unchanged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .protocol import default_socket_path

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig

logger = logging.getLogger("vllm.mooncake_ts_vllm")

SUPPORTED = "0.32."
DEFAULT_BOOTSTRAP_PORT = 8998

# Key of the extra configuration → option of the TypeScript connector (docs/connectors.md).
_COMMON = {"load_timeout_ms": "loadTimeoutMs"}
_STORE = {
    **_COMMON,
    "integrity": "integrity",
    "cache_prefix": "prefix",
    "tenant": "tenant",
    "load_async": "loadAsync",
    "prefill_tp_sizes": "peerTensorParallelSizes",
    "peer_tensor_parallel_sizes": "peerTensorParallelSizes",
    "put": "put",
    "lookup_timeout_ms": "lookupTimeoutMs",
    "lookup_ttl_ms": "lookupTtlMs",
    "save_timeout_ms": "saveTimeoutMs",
    "max_loads": "maxLoads",
    "max_saves": "maxSaves",
    "batch_bytes": "batchBytes",
    "aside_bytes": "asideBytes",
}
_MOONCAKE = {
    **_COMMON,
    "mode": "mode",
    "verify": "verify",
    "abort_timeout_ms": "abortTimeoutMs",
    "num_workers": "maxConcurrentMoves",
    "max_concurrent_moves": "maxConcurrentMoves",
}
# Ours, beside the connectors' own.
_OURS = {"mooncake_ts_service", "mooncake_ts_model", "bootstrap_port", "connectors"}
# Of the stock connectors: the service decides these, or they name what ours do anyway.
_STOCK = {
    "mooncake_protocol",
    "device_name",
    "lookup_rpc_port",
    "lookup_async",
    "enable_lookup",
    "save_decode_cache",
    "enable_cross_layers_blocks",
    "enable_store_tp_lcm",
    "store_tp_size",
    "enable_group_semantics",
    "preferred_segment",
    "custom_mem_pool",
    "bootstrap_server_address",
}


def check_version(version: str) -> None:
    """Raises ImportError for a vLLM whose connector interface this package was not made for."""
    if not version.startswith(SUPPORTED):
        raise ImportError(
            f"mooncake_ts_vllm supports vLLM {SUPPORTED}*; this is vLLM {version}. Install vLLM {SUPPORTED}0, or a release of "
            "mooncake-ts-vllm for this one: the connector interface changes between minor versions."
        )


@dataclass(frozen=True)
class Settings:
    """What both halves tell the service; equal in all processes of one engine."""

    socket: str
    engine: dict[str, Any]
    connector: dict[str, Any]
    # Whether a prefill's blocks must reach a decode: some connector hands them over.
    hands_over: bool
    # Whether it shares prefixes through a store: some connector does.
    shares: bool
    # Whether blocks that were saved are announced as KV events.
    events: bool
    # Whether requests may be loaded while others run.
    load_async: bool


def read(config: VllmConfig, cache: KVCacheConfig, kind: str) -> Settings:
    """Reads vLLM's configuration; `kind` is store, mooncake or multi. Raises ValueError, naming what does not fit."""
    transfer = config.kv_transfer_config
    assert transfer is not None
    parallel = config.parallel_config
    for name in ("pipeline_parallel_size", "decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            raise ValueError(f"{name} = {getattr(parallel, name)}: the mooncake_ts connectors support 1")
    extra = transfer.kv_connector_extra_config or {}
    connector = _connector(kind, extra, config)
    parts = connector.get("connectors", [connector])
    load_async = all(part.get("loadAsync", True) for part in parts)
    if not load_async and len(cache.transfer_group_ids) > 1:
        raise ValueError(
            "load_async = false with several KV cache groups: vLLM cannot be told which blocks of them failed to load. "
            "Leave load_async out."
        )
    integrity = [part.get("integrity") for part in parts if part["kind"] == "store"]
    engine = {
        "engineId": transfer.engine_id,
        "model": extra.get("mooncake_ts_model") or _model(config, stock="stock" in integrity),
        "role": {"kv_producer": "producer", "kv_consumer": "consumer"}.get(transfer.kv_role or "", "both"),
        "hash": _hash(config, cache),
        "tensorParallelSize": parallel.tensor_parallel_size,
    }
    return Settings(
        socket=str(extra.get("mooncake_ts_service") or default_socket_path()),
        engine=engine,
        connector=connector,
        hands_over=any(part["kind"] == "mooncake" for part in parts) and transfer.is_kv_producer,
        shares=any(part["kind"] == "store" for part in parts),
        events=any(part.get("reportSaved", False) for part in parts),
        load_async=load_async,
    )


def _connector(kind: str, extra: dict[str, Any], config: VllmConfig) -> dict[str, Any]:
    if kind == "multi":
        children = extra.get("connectors")
        if not isinstance(children, list) or not children:
            raise ValueError("MultiConnector: kv_connector_extra_config.connectors must list the connectors")
        return {"kind": "multi", "connectors": [_child(child, config) for child in children]}
    names = _STORE if kind == "store" else _MOONCAKE
    unknown = sorted(key for key in extra if key not in names and key not in _OURS and key not in _STOCK)
    if unknown:
        logger.warning("mooncake-ts: kv_connector_extra_config keys that mean nothing here: %s", ", ".join(unknown))
    options = {option: extra[key] for key, option in names.items() if key in extra}
    if kind == "mooncake":
        options.setdefault("abortTimeoutMs", 1000 * int(os.environ.get("VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT", "480")))
        if config.kv_transfer_config is not None and config.kv_transfer_config.is_kv_producer:
            options["bootstrapPort"] = _bootstrap_port(extra, config)
    elif config.kv_events_config is not None and config.kv_events_config.enable_kv_cache_events:
        options["reportSaved"] = True
    return {"kind": kind, **options}


def _child(child: dict[str, Any], config: VllmConfig) -> dict[str, Any]:
    kinds = {"MooncakeConnector": "mooncake", "MooncakeStoreConnector": "store"}
    name = child.get("kv_connector") if isinstance(child, dict) else None
    if name not in kinds:
        raise ValueError(f"MultiConnector: kv_connector = {name!r}, must be one of {', '.join(kinds)}")
    transfer = config.kv_transfer_config
    assert transfer is not None
    if child.get("kv_role", transfer.kv_role) != transfer.kv_role:
        raise ValueError(f"MultiConnector: {name} has kv_role {child['kv_role']}, the engine {transfer.kv_role}")
    return _connector(kinds[name], child.get("kv_connector_extra_config") or {}, config)


def _bootstrap_port(extra: dict[str, Any], config: VllmConfig) -> int:
    """Where a proxy asks for the engine id: vLLM's port, plus the data-parallel rank's share."""
    base = int(extra.get("bootstrap_port") or os.environ.get("VLLM_MOONCAKE_BOOTSTRAP_PORT") or DEFAULT_BOOTSTRAP_PORT)
    parallel = config.parallel_config
    return base + parallel.data_parallel_index * parallel.tensor_parallel_size


def _model(config: VllmConfig, stock: bool) -> str:
    """What the KV depends on beside the tokens. `stock`: the name that vLLM's own store connector puts into its keys."""
    model = config.model_config
    name = model.model.rstrip("/")
    if stock:
        return name.split("/")[-1]
    if model.revision:
        name += f"@{model.revision}"
    if model.quantization:
        name += f"+{model.quantization}"
    overrides = {"hf": model.hf_overrides, "dtype": str(model.dtype)}
    # A function among them by its name: its address differs between the engine's processes.
    text = json.dumps(overrides, sort_keys=True, default=lambda one: getattr(one, "__qualname__", type(one).__name__))
    return f"{name}#{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _hash(config: VllmConfig, cache: KVCacheConfig) -> dict[str, Any]:
    algorithm = config.cache_config.prefix_caching_hash_algo
    seed = os.environ.get("PYTHONHASHSEED")
    if seed is None and algorithm.startswith("xxhash"):
        raise ValueError(
            f"prefix_caching_hash_algo = {algorithm}: without PYTHONHASHSEED every process hashes differently, and nothing "
            "is ever found. Set PYTHONHASHSEED to the same value on all instances, or use sha256."
        )
    return {
        "algorithm": algorithm,
        "blockSize": cache.hash_block_size or config.cache_config.block_size,
        "seed": seed,
    }
