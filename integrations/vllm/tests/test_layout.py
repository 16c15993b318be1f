"""From vLLM's tensors to the layout that the service is told, and what is refused."""

from __future__ import annotations

import os
import unittest
from dataclasses import replace

import torch
from mooncake_ts_vllm.layout import UnsupportedCache, describe_cache
from mooncake_ts_vllm.memory import SharedMemory, mapped_allocations
from vllm.v1.kv_cache_interface import KVCacheGroupSpec, MambaSpec, MLAAttentionSpec, SlidingWindowSpec

from .support import BLOCK, BLOCKS, cache_config, describe, full_group, tensors


def is_shared(address: int) -> bool:
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            first, last = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
            if first <= address < last:
                return "mooncake-ts-kv" in line
    return False


class LayoutTest(unittest.TestCase):
    def test_layers_of_one_storage_are_one_memory(self) -> None:
        config = cache_config(full_group())
        caches = tensors(config)
        cache = describe(config, caches)
        (memory,) = cache.memories
        self.assertIsInstance(memory, SharedMemory)
        (group,) = cache.layout["groups"]
        per_layer = BLOCKS * 2 * BLOCK * 1024 * 2
        offset = caches["layers.0.attn"].data_ptr() - memory.address
        self.assertEqual(
            group,
            {
                "kind": "full",
                "heads": 2,
                "layers": [0, 1],
                "blocks": BLOCKS,
                "blockSize": BLOCK,
                "localHeads": 2,
                "tensors": {
                    "kv_vec": {
                        "dtype": "bfloat16",
                        "elements": BLOCK * 1024,
                        "strides": {"block": 2 * BLOCK * 2048, "token": None, "head": BLOCK * 2048},
                        "at": [{"segment": 0, "offset": offset}, {"segment": 0, "offset": offset + per_layer}],
                    }
                },
            },
        )
        self.assertEqual(cache.layout["segments"], [{"id": 0, "length": memory.length}])
        self.assertEqual(cache.block_bytes, [2 * 2 * BLOCK * 2048])
        self.assertEqual(cache.layers, {"layers.0.attn": 0, "layers.1.attn": 1})

    def test_rows_of_gpu_kernels_are_found_by_their_strides(self) -> None:
        config = cache_config(full_group(layers=1))
        # Tokens before heads in memory, as CUDA kernels like them.
        with mapped_allocations():
            raw = torch.zeros((BLOCKS, BLOCK, 2, 1024), dtype=torch.bfloat16)
        cache = describe_cache(
            {"layers.0.attn": raw.transpose(1, 2)},
            config,
            heads=2,
            rank=0,
            size=1,
            packing=lambda spec: "flash_attn",
            rows=True,
        )
        (group,) = cache.layout["groups"]
        offset = raw.data_ptr() - cache.memories[0].address
        self.assertEqual(
            group["tensors"],
            {
                "kv_flash_attn": {
                    "dtype": "bfloat16",
                    "elements": 1024,
                    "strides": {"block": BLOCK * 2 * 2048, "token": 2 * 2048, "head": 2048},
                    "at": [{"segment": 0, "offset": offset}],
                }
            },
        )
        self.assertEqual((group["localHeads"], cache.block_bytes), (2, [2 * BLOCK * 2048]))
        self.assertIsNone(cache.order)

    def test_the_offsets_find_the_bytes(self) -> None:
        config = cache_config(full_group())
        caches = tensors(config)
        cache = describe(config, caches)
        (memory,) = cache.memories
        caches["layers.1.attn"][7, 1] = 3.0
        tensor = cache.layout["groups"][0]["tensors"]["kv_vec"]
        at = tensor["at"][1]["offset"] + 7 * tensor["strides"]["block"] + tensor["strides"]["head"]
        length = 2 * tensor["elements"]
        self.assertEqual(os.pread(memory.fd, length, at), caches["layers.1.attn"][7, 1].view(torch.uint8).numpy().tobytes())
        self.assertEqual(os.pread(memory.fd, 2, at + length), b"\0\0")

    def test_windows_and_latent_vectors(self) -> None:
        window = SlidingWindowSpec(
            block_size=BLOCK, num_kv_heads=2, head_size=512, dtype=torch.bfloat16, sliding_window=256
        )
        config = cache_config(full_group("a"), KVCacheGroupSpec(["b.5.attn"], window))
        groups = describe(config, tensors(config)).layout["groups"]
        self.assertEqual([(group["kind"], group.get("window")) for group in groups], [("full", None), ("sliding", 256)])

        latent = MLAAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=4608, dtype=torch.bfloat16)
        config = cache_config(KVCacheGroupSpec(["c.3.attn"], latent))
        with mapped_allocations():
            caches = {"c.3.attn": torch.zeros(BLOCKS, 1, BLOCK, 4608, dtype=torch.bfloat16)}
        (group,) = describe(config, caches).layout["groups"]
        strides = {"block": BLOCK * 9216, "token": 9216, "head": None}
        self.assertEqual((group["kind"], group["layers"], "heads" in group), ("mla", [3], False))
        self.assertEqual((group["tensors"]["latent"]["strides"], group["tensors"]["latent"]["elements"]), (strides, 4608))

    def test_what_is_not_understood_is_refused_before_memory_is_touched(self) -> None:
        config = cache_config(full_group())
        caches = tensors(config)
        halved = {name: cache.view(BLOCKS * 2, 2, BLOCK // 2, 1024) for name, cache in caches.items()}
        swapped = {name: cache.transpose(2, 3) for name, cache in caches.items()}
        one = dict(caches, **{"layers.1.attn": caches["layers.1.attn"].to(torch.float16)})
        mamba = MambaSpec(block_size=BLOCK, shapes=((4, 4),), dtypes=(torch.float32,))
        named = replace(full_group(), layer_names=["layers.0.attn", "other.0.attn"])
        cases = [
            (config, halved, "kernels split them"),
            (config, swapped, "not contiguous"),
            (config, one, "layers.1.attn is .* torch.float16"),
            (config, {"layers.0.attn": caches["layers.0.attn"]}, "layers.1.attn has no cache"),
            (cache_config(KVCacheGroupSpec(["layers.0.attn"], mamba)), caches, r"group 0 \(MambaSpec\)"),
            (cache_config(named), {name: caches["layers.0.attn"] for name in named.layer_names}, "same index"),
        ]
        for given, tensors_given, message in cases:
            with self.subTest(message), self.assertRaisesRegex(UnsupportedCache, message):
                describe_cache(tensors_given, given, heads=2, rank=0, size=1, packing=lambda spec: "vec")
        self.assertFalse(is_shared(caches["layers.0.attn"].data_ptr()))
        describe(config, caches)
        self.assertTrue(is_shared(caches["layers.0.attn"].data_ptr()))


if __name__ == "__main__":
    unittest.main()
