"""KV events of the store: a block is announced once, when all ranks that hold a part of it have saved theirs."""

import unittest
from types import SimpleNamespace

from mooncake_ts_vllm.events import SavedBlocks, StoreEvents
from vllm.v1.core.kv_cache_utils import maybe_convert_block_hash as external

from .test_config import read


def request(name: str, blocks: int = 3, size: int = 4):
    hashes = [f"{name}{number}".encode().rjust(32, b".") for number in range(blocks)]
    tokens = list(range(blocks * size + 1))
    return SimpleNamespace(request_id=name, block_hashes=hashes, all_token_ids=tokens, lora_request=None)


def saved(*hashes: bytes, group: int = 0, ranks: int = 2) -> SavedBlocks:
    metadata = SavedBlocks()
    metadata.add(group, ranks, b"".join(hashes), 32)
    return metadata


class EventsTest(unittest.TestCase):
    def test_every_rank_must_have_saved_its_part(self) -> None:
        events, one = StoreEvents((0,), [4], 4), request("a")
        events.saved(saved(*one.block_hashes[:2]), [one])
        self.assertEqual(events.take(), [])
        both = saved(one.block_hashes[1]).aggregate(saved(one.block_hashes[2])).aggregate(saved(one.block_hashes[2]))
        events.saved(both, [one])
        found = {event.block_hashes[0]: event for event in events.take()}
        self.assertEqual(set(found), {external(digest) for digest in one.block_hashes[1:]})
        second = found[external(one.block_hashes[1])]
        self.assertEqual(second.parent_block_hash, external(one.block_hashes[0]))
        self.assertEqual(second.token_ids, [4, 5, 6, 7])
        self.assertEqual((second.block_size, second.medium, second.group_idx), (4, "cpu", 0))
        self.assertEqual(events.take(), [])

    def test_groups_have_block_sizes_and_numbers_of_their_own(self) -> None:
        events, one = StoreEvents((0, 3), [4, 8], 4), request("a", blocks=4)
        events.saved(saved(one.block_hashes[3], group=1, ranks=1), [one])
        (event,) = events.take()
        self.assertEqual((event.block_size, event.group_idx), (8, 3))
        self.assertEqual(event.token_ids, list(range(8, 16)))
        self.assertEqual(event.parent_block_hash, external(one.block_hashes[1]))

    def test_what_has_ended_is_forgotten(self) -> None:
        events, one, other = StoreEvents((0,), [4], 4), request("a"), request("b")
        events.saved(saved(one.block_hashes[0]), [one, other])
        events.ended(one)
        events.saved(saved(one.block_hashes[0]), [other])
        self.assertEqual(events.take(), [])
        events.ended(other)
        events.saved(saved(other.block_hashes[0], ranks=1), [])
        self.assertEqual(events.take(), [])

    def test_saves_are_reported_where_events_are_published(self) -> None:
        for kind, extra in (("store", {}), ("multi", {"connectors": [{"kv_connector": "MooncakeStoreConnector"}]})):
            self.assertTrue(read(kind, "kv_both", extra, events=True).events)
            self.assertFalse(read(kind, "kv_both", extra).events)
        self.assertFalse(read("mooncake", events=True).events)
