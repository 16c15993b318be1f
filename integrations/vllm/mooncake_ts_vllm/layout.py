"""The KV cache of a worker as the service understands it: a `KvLayoutOptions` (docs/layout.md) from vLLM's tensors.

vLLM 0.32 shows every layer's cache as (blocks, heads, tokens, content), whatever the order in memory: the strides say it.
Its CPU kernels keep that only down to the head: a head's part of a block is all keys and then all values, the keys packed as
the instruction set likes them (v1/attention/backends/cpu_attn.py). So such a part is one cell, which nobody looks into, and
its name says the packing: engines that pack differently do not match. A latent (MLA) layer has one head, a row per token.
GPU kernels keep a row per head and token, its keys before its values; the name says whose kernels they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from . import cuda
from .memory import ForeignMemory, SharedMemory, Storage, share

if TYPE_CHECKING:
    from vllm.v1.kv_cache_interface import KVCacheConfig


class UnsupportedCache(ValueError):
    """A KV cache that cannot be described; the message names the group and says why."""


@dataclass
class Cache:
    """A worker's KV cache: its memories, and the layout whose places name memories by index."""

    memories: list[SharedMemory | ForeignMemory | cuda.DeviceMemory | cuda.VirtualMemory]
    layout: dict[str, Any]
    # Global index of each layer, by vLLM's name, and bytes of a block by group, over its layers.
    layers: dict[str, int]
    block_bytes: list[int]
    # Why memories are not shared; empty where all are.
    unshared: list[str]
    # Of a cache on a GPU: when what was given to its stream is over.
    order: cuda.Order | None = None


def describe_cache(
    kv_caches: dict[str, torch.Tensor],
    config: KVCacheConfig,
    *,
    heads: int,
    rank: int,
    size: int,
    packing: Callable[[Any], str],
    rows: bool = False,
) -> Cache:
    """Shares the memory under the tensors and describes it.

    `heads`: KV heads of the whole model. `packing`: how kernels pack a group's keys, by its spec. `rows`: a row per head and
    token, and no packing within a block. Raises UnsupportedCache before anything is shared.
    """
    groups = [config.kv_cache_groups[group] for group in config.transfer_group_ids]
    shapes = [
        _check_group(index, group, kv_caches, config.num_blocks, packing, rows) for index, group in enumerate(groups)
    ]

    memories: list[SharedMemory | ForeignMemory | cuda.DeviceMemory | cuda.VirtualMemory] = []
    driver: cuda.Driver | None = None
    unshared: list[str] = []
    by_storage: dict[int, int] = {}
    for group in groups:
        for name in group.layer_names:
            storage = kv_caches[name].untyped_storage()
            if storage.data_ptr() in by_storage:
                continue
            if kv_caches[name].is_cuda:
                driver = driver or cuda.Driver()
                memory, why = _share_device(name, storage, driver), None
            else:
                memory, why = share(Storage(storage.data_ptr(), storage.nbytes(), storage.is_shared()))
            by_storage[storage.data_ptr()] = len(memories)
            memories.append(memory)
            if why is not None:
                unshared.append(f"{storage.nbytes()} bytes of {name}: {why}")

    def place(name: str) -> dict[str, int]:
        tensor = kv_caches[name]
        index = by_storage[tensor.untyped_storage().data_ptr()]
        return {"segment": index, "offset": tensor.data_ptr() - memories[index].address}

    layout_groups = []
    for group, shape in zip(groups, shapes):
        tensor = kv_caches[group.layer_names[0]]
        places = [place(name) for name in group.layer_names]
        layout_groups.append(
            {
                **_kind(group.kv_cache_spec, heads),
                "layers": [shape.layers[name] for name in group.layer_names],
                "blocks": config.num_blocks,
                "blockSize": shape.block_size,
                **({"localHeads": tensor.shape[1]} if shape.packing is not None else {}),
                "tensors": _tensors(tensor, shape, places),
            }
        )
    return Cache(
        memories=memories,
        layout={
            "segments": [{"id": index, "length": memory.length} for index, memory in enumerate(memories)],
            "groups": layout_groups,
            "tensorParallel": {"rank": rank, "size": size},
        },
        layers={name: layer for shape in shapes for name, layer in shape.layers.items()},
        block_bytes=[shape.block_bytes for shape in shapes],
        unshared=unshared,
        order=cuda.Order(driver, lambda: torch.cuda.current_stream().cuda_stream) if driver else None,
    )


def _share_device(name: str, storage: torch.UntypedStorage, driver: cuda.Driver) -> cuda.DeviceMemory | cuda.VirtualMemory:
    try:
        return cuda.share(driver, storage.device.index or 0, storage.data_ptr(), storage.nbytes())
    except cuda.CudaError as error:
        raise UnsupportedCache(f"{storage.nbytes()} bytes of {name} on {storage.device}: {error}") from error


@dataclass
class _Shape:
    # Of what a head's part of a block is packed as; None for latent vectors, a row per token.
    packing: str | None
    # A row per head and token instead.
    rows: bool
    block_size: int
    block_bytes: int
    layers: dict[str, int]


def _check_group(
    index: int,
    group: Any,
    kv_caches: dict[str, torch.Tensor],
    blocks: int,
    packing: Callable[[Any], str],
    rows: bool,
) -> _Shape:
    spec = group.kv_cache_spec
    what = f"KV cache group {index} ({type(spec).__name__})"
    _kind(spec, 1, what)
    latent = "MLA" in type(spec).__name__
    first = kv_caches[group.layer_names[0]]
    layers: dict[str, int] = {}
    for name in group.layer_names:
        tensor = kv_caches.get(name)
        if tensor is None:
            raise UnsupportedCache(f"{what}: layer {name} has no cache")
        if tensor.device.type not in ("cpu", "cuda") or tensor.device != first.device:
            raise UnsupportedCache(f"{what}: {name} is on {tensor.device}; the service takes one CPU's or one NVIDIA GPU's")
        if tensor.dim() != 4:
            raise UnsupportedCache(f"{what}: {name} has the shape {tuple(tensor.shape)}, not (blocks, heads, tokens, …)")
        if (tensor.shape, tensor.stride(), tensor.dtype) != (first.shape, first.stride(), first.dtype):
            raise UnsupportedCache(
                f"{what}: {name} is {tuple(tensor.shape)} {tensor.dtype}, other layers are {tuple(first.shape)} {first.dtype}"
            )
        if tensor.shape[0] != blocks:
            raise UnsupportedCache(
                f"{what}: {name} has {tensor.shape[0]} blocks where the cache has {blocks}: kernels split them. "
                "Set --block-size to the kernel's block size."
            )
        if tensor.shape[3] > 1 and tensor.stride(3) != 1:
            raise UnsupportedCache(f"{what}: the elements of {name} are not contiguous (strides {tensor.stride()})")
        layers[name] = _layer_index(what, name)
    if len(set(layers.values())) != len(layers):
        raise UnsupportedCache(f"{what}: two layers have the same index: {sorted(layers)}")
    _, local_heads, block_size, content = first.shape
    if block_size != spec.block_size:
        raise UnsupportedCache(f"{what}: {block_size} tokens in a block of the tensor, {spec.block_size} in the cache's")
    if latent and local_heads != 1:
        raise UnsupportedCache(f"{what}: {local_heads} heads of a latent vector")
    head = first[0, 0]
    if not latent and not rows and not head.is_contiguous():
        raise UnsupportedCache(f"{what}: a head's part of a block is not contiguous (strides {first.stride()})")
    packed = None if latent else packing(spec)
    return _Shape(packed, rows, block_size, local_heads * head.nbytes * len(layers), layers)


def _kind(spec: Any, heads: int, what: str = "the KV cache") -> dict[str, Any]:
    """Kind, window and heads of a group. Unknown kinds are refused: their blocks may depend on more than we know."""
    match type(spec).__name__:
        case "FullAttentionSpec":
            # Also windows that are kept as full attention (hybrid manager off): all their blocks are there.
            return {"kind": "full", "heads": heads}
        case "SlidingWindowSpec":
            return {"kind": "sliding", "window": spec.sliding_window, "heads": heads}
        case "MLAAttentionSpec":
            return {"kind": "mla"}
        case "SlidingWindowMLASpec":
            return {"kind": "sliding", "window": spec.sliding_window}
    raise UnsupportedCache(f"{what}: only full, sliding-window and latent (MLA) attention can be shared")


def _tensors(tensor: torch.Tensor, shape: _Shape, places: list[dict[str, int]]) -> dict[str, Any]:
    item = tensor.element_size()
    block, head, token, _ = (stride * item for stride in tensor.stride())
    dtype = str(tensor.dtype).removeprefix("torch.")
    if shape.packing is None:
        return {
            "latent": {
                "dtype": dtype,
                "elements": tensor.shape[3],
                "strides": {"block": block, "token": token, "head": None},
                "at": places,
            }
        }
    if shape.rows:
        return {
            f"kv_{shape.packing}": {
                "dtype": dtype,
                "elements": tensor.shape[3],
                "strides": {"block": block, "token": token, "head": head},
                "at": places,
            }
        }
    return {
        f"kv_{shape.packing}": {
            "dtype": dtype,
            "elements": tensor.shape[2] * tensor.shape[3],
            "strides": {"block": block, "token": None, "head": head},
            "at": places,
        }
    }


def _layer_index(what: str, name: str) -> int:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise UnsupportedCache(f"{what}: the name {name} does not say which layer it is")
    return numbers[0]
