"""vLLM's own hash functions, with or without an installed vLLM.

Where `import vllm` works, they come from there. Importing it takes torch and 5 GB of packages though, so otherwise the
sources named by MOONCAKE_VLLM_SOURCE (two files taken from the wheel) are used: hashing.py as it is, and of
kv_cache_utils.py the functions below, compiled from its text unchanged. The rest of that file has nothing to do with
hashes.
"""

import __future__

import ast
import hashlib
import logging
import os
import pathlib
import types

FUNCTIONS = {
    "make_block_hash_with_group_id",
    "maybe_convert_block_hash",
    "resolve_none_hash_seed",
    "init_none_hash",
    "_gen_mm_extra_hash_keys",
    "_gen_lora_extra_hash_keys",
    "_gen_prompt_embeds_extra_hash_keys",
    "generate_block_hash_extra_keys",
    "hash_block_tokens",
    "get_request_block_hasher",
}
CONSTANTS = {"DEFAULT_NONE_HASH_SEED", "_NON_CRYPTO_HASH_FUNCTIONS", "_NONE_HASH_SEED"}


def from_files(folder):
    folder = pathlib.Path(folder)
    hashing = types.ModuleType("hashing")
    exec(compile((folder / "hashing.py").read_text(), "vllm/utils/hashing.py", "exec"), hashing.__dict__)
    tree = ast.parse((folder / "kv_cache_utils.py").read_text())

    def wanted(node):
        if isinstance(node, ast.FunctionDef):
            return node.name in FUNCTIONS
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        return any(isinstance(target, ast.Name) and target.id in CONSTANTS for target in targets)

    tree.body = [node for node in tree.body if wanted(node)]
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if found != FUNCTIONS:
        raise ImportError(f"kv_cache_utils.py lacks {sorted(FUNCTIONS - found)}")
    utils = types.ModuleType("kv_cache_utils")
    utils.__dict__.update(
        os=os,
        hashlib=hashlib,
        logger=logging.getLogger("vllm"),
        envs=types.SimpleNamespace(VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=True),
        xxhash=hashing.xxhash,
        xxhash_cbor=hashing.xxhash_cbor,
        BlockHash=bytes,
        BlockHashWithGroupId=bytes,
    )
    flags = __future__.annotations.compiler_flag
    exec(compile(tree, "vllm/v1/core/kv_cache_utils.py", "exec", flags=flags), utils.__dict__)
    return hashing, utils


def load():
    """(vllm.utils.hashing, vllm.v1.core.kv_cache_utils)"""
    folder = os.environ.get("MOONCAKE_VLLM_SOURCE")
    if folder:
        return from_files(folder)
    from vllm.utils import hashing
    from vllm.v1.core import kv_cache_utils

    return hashing, kv_cache_utils
