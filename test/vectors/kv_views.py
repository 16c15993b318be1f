"""The views that vLLM makes of its KV cache, for each of its layouts: shape, strides and storage offset in elements.

Run with vLLM 0.32: python kv_views.py > kv_views.json. Written with create_kv_cache_views and compute_layout_strides of
vllm/v1/kv_cache_interface.py; shapes are (block, head, token, content) whatever the order in memory. `marks` are the
values that vLLM's views read, at [layer][block][head][token] and the first and last element of the content, from a
storage that holds 0, 1, 2, …: what an independent reader of the same memory must find.
"""
import json
import sys

import torch
import vllm
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheTensor,
    MLAAttentionSpec,
    compute_layout_strides,
    create_kv_cache_views,
)
from vllm.v1.kv_cache_layout import KVCacheLayout

LAYERS, BLOCKS, TOKENS, HEADS, SIZE = 3, 5, 4, 8, 4


def views(spec, layout):
    layer_stride, block_stride = compute_layout_strides(spec, BLOCKS, LAYERS, layout)[:2]
    size = spec.page_size_bytes * BLOCKS * LAYERS
    raw = torch.arange(size // 4, dtype=torch.int32).view(torch.int8)
    tensor = KVCacheTensor(
        size=size, layers=[str(i) for i in range(LAYERS)], layer_stride=layer_stride, block_stride=block_stride
    )
    made = create_kv_cache_views(raw, spec, BLOCKS, layout, tensor)
    return {
        "layout": layout.name,
        "bytes": size,
        "shape": list(made[0].shape),
        "views": [{"strides": list(v.stride()), "offset": v.storage_offset()} for v in made],
        "marks": [v.view(torch.int32)[..., [0, -1]].reshape(-1).tolist() for v in made],
    }


out = {"vllm": vllm.__version__, "layers": LAYERS, "dtype": "float32", "cases": []}
for name, spec_of in {
    "full": lambda heads: FullAttentionSpec(block_size=TOKENS, num_kv_heads=heads, head_size=SIZE, dtype=torch.float32),
    "mla": lambda heads: MLAAttentionSpec(block_size=TOKENS, num_kv_heads=1, head_size=9, dtype=torch.float32),
}.items():
    for size in (1, 2, 4) if name == "full" else (1,):
        for layout in KVCacheLayout:
            out["cases"].append({"kind": name, "size": size, **views(spec_of(HEADS // size), layout)})
json.dump(out, sys.stdout)
