"""KV events of the store: which blocks were saved, for routers that listen to vLLM's event stream.

Workers report hashes; a block is announced (`BlockStored`, medium "cpu", as vLLM's own store connector says it) when every
rank that holds a part of it has. Tokens and parents are the request's, which lives until its saves have ended. That a store has
evicted a block is not announced, there as here: who finds it gone computes it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vllm.distributed.kv_events import BlockStored
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorWorkerMetadata
from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash

if TYPE_CHECKING:
    from vllm.v1.request import Request

MEDIUM = "cpu"


@dataclass
class SavedBlocks(KVConnectorWorkerMetadata):
    """Of a step: how many ranks have saved their part of a block, by group, ranks that do, and hash."""

    blocks: Counter[tuple[int, int, bytes]] = field(default_factory=Counter)

    def add(self, group: int, ranks: int, hashes: bytes, width: int) -> None:
        self.blocks.update((group, ranks, hashes[at : at + width]) for at in range(0, len(hashes), width))

    def aggregate(self, other: KVConnectorWorkerMetadata) -> SavedBlocks:
        assert isinstance(other, SavedBlocks)
        return SavedBlocks(self.blocks + other.blocks)


class StoreEvents:
    """Makes events of what workers report. `groups` are vLLM's numbers of the transferred groups, `sizes` their blocks' tokens."""

    def __init__(self, groups: tuple[int, ...], sizes: list[int], hash_size: int) -> None:
        self._groups = groups
        self._sizes = sizes
        self._hash_size = hash_size
        self._parts: Counter[tuple[int, int, bytes]] = Counter()
        # Where a hash stands: the request, and the number of the block of `hash_size` tokens that ends with it.
        self._places: dict[bytes, tuple[Request, int]] = {}
        self._placed: dict[str, int] = {}
        self._events: list[BlockStored] = []

    def saved(self, metadata: SavedBlocks, requests: list[Request]) -> None:
        """`requests`: those that live, among them all whose blocks are named."""
        for request in requests:
            hashes = request.block_hashes
            start = self._placed.get(request.request_id, 0)
            for number in range(start, len(hashes)):
                self._places[hashes[number]] = (request, number)
            self._placed[request.request_id] = len(hashes)
        self._parts.update(metadata.blocks)
        for part in metadata.blocks:
            group, ranks, digest = part
            if self._parts[part] < ranks:
                continue
            del self._parts[part]
            if (place := self._places.get(digest)) is not None:
                self._events.append(self._stored(group, digest, *place))

    def ended(self, request: Request) -> None:
        """Nothing of the request is saved any more."""
        for digest in request.block_hashes[: self._placed.pop(request.request_id, 0)]:
            if (place := self._places.get(digest)) is not None and place[0] is request:
                del self._places[digest]
        if not self._placed:
            # What a rank has not reported by now it never will.
            self._parts.clear()

    def take(self) -> list[Any]:
        events, self._events = self._events, []
        return events

    def _stored(self, group: int, digest: bytes, request: Request, number: int) -> BlockStored:
        size = self._sizes[group]
        end = (number + 1) * self._hash_size
        before = number - size // self._hash_size
        lora = request.lora_request
        return BlockStored(
            block_hashes=[maybe_convert_block_hash(digest)],
            parent_block_hash=maybe_convert_block_hash(request.block_hashes[before]) if before >= 0 else None,
            token_ids=list(request.all_token_ids[end - size : end]),
            block_size=size,
            lora_id=lora.adapter_id if lora else None,
            medium=MEDIUM,
            lora_name=lora.name if lora else None,
            group_idx=self._groups[group],
        )
