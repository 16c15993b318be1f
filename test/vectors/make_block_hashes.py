"""Writes block_hashes.json with vLLM's own hash functions: what block_hash_vectors.json leaves out.

    python make_block_hashes.py        (any Python with vLLM 0.32; no engine runs)

Integer widths of tokens at their limits, tuple lengths with an opcode of their own, block sizes with each CBOR array
header, chains, seeds, and extra keys of every kind. Tokens above a few are given by a rule: [start, step, modulus, count]
means (start + i * step) % modulus.
"""

import json
import pathlib

from vllm.utils.hashing import get_hash_fn_by_name

ALGORITHMS = ["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"]
TAGS = {tag: tag for tag in ("lora", "mm", "cache_salt", "prompt_embeds")}
SEEDS = ["", "0", "4294967295", "söd-✓-😀", "s" * 255, "s" * 256]
LIMITS = [0, 1, 23, 24, 25, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]
KEYS = [
    [],
    [1],
    [None, -1, 24, -24, -25, 255, 256, -256, -257, 65535, 65536, -65537],
    [2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**53 - 1, -(2**53) + 1],
    [[], [[], ["deep", [["deeper"]]]]],
    [["mm", "a" * 255, 0], ["mm", "b" * 256, 3], ["mm", "é✓😀", -12]],
    [["mm", f"image-{i}", i] for i in range(120)] + [["cache_salt", "one"], ["cache_salt", "two"]],
    [["lora", "name", "/path"], ["mm", "id", 2], ["cache_salt", "salt"], ["prompt_embeds", {"bytes_hex": "ab" * 32}]],
    [{"bytes_hex": ""}, {"bytes_hex": "00"}, {"bytes_hex": "ff" * 300}],
    ["one", "two", "three", "four"],
]
BIG = [2**64 - 1, 2**64, -(2**64), -(2**64) - 1, 2**127 - 1, -(2**127), 2**2040]


def ruled(rule):
    start, step, modulus, count = rule
    return [(start + i * step) % modulus for i in range(count)]


def python_keys(value, depth=0):
    """Extra keys as vLLM builds them: tuples, and each tag always the same object; every other string a new one."""
    if isinstance(value, list):
        items = [python_keys(item, depth + 1) for item in value]
        if depth == 1 and items and isinstance(items[0], str):
            items[0] = TAGS.get(items[0], items[0])
        return tuple(items)
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes_hex"])
    return value


def chain(hash_function, parent, tokens, size, keys):
    hashes = []
    for i in range(len(tokens) // size):
        extra = python_keys(keys[i]) if keys and i < len(keys) and keys[i] is not None else None
        parent = hash_function((parent, tuple(tokens[i * size : (i + 1) * size]), extra))
        hashes.append(parent.hex())
    return hashes


def main():
    out = {"noneHashes": [], "chains": []}
    for name in ALGORITHMS:
        hash_function = get_hash_fn_by_name(name)
        for seed in SEEDS:
            out["noneHashes"].append({"algorithm": name, "seed": seed, "hash": hash_function(seed).hex()})
        none = hash_function("0")

        def add(size, tokens=None, rule=None, keys=None, big=False):
            entry = {"algorithm": name, "blockSize": size, "tokens": tokens, "rule": rule}
            entry |= {"extraKeys": [[str(key) for key in keys[0]]] if big else keys, "big": big}
            hashes = chain(hash_function, none, tokens or ruled(rule), size, keys)
            out["chains"].append(entry | {"hashes": hashes[-3:], "count": len(hashes)})

        for size in (1, 2, 3, 4, 12):
            add(size, tokens=LIMITS)
        for size in (5, 23, 24, 25, 48, 100, 255, 256, 257, 1000, 4096):
            add(size, rule=[7, 2654435761, 151_936, 3 * size + 1])
            add(size, rule=[1, 1, 24, 2 * size])
        add(16, rule=[3, 2654435761, 2**32, 16 * 50])
        add(16, rule=[3, 40503, 70_000, 16 * 9 + 5])
        add(9000, rule=[65_536, 1, 2**31, 9000])
        if name.endswith("_cbor"):
            add(65_536, rule=[0, 2654435761, 2**32, 65_536])
        for keys in KEYS:
            add(16, rule=[11, 2654435761, 151_936, 48], keys=[keys, None, keys])
        add(2, rule=[11, 2654435761, 151_936, 2], keys=[BIG], big=True)
    lines = {key: ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) for key, rows in out.items()}
    text = ",\n".join(f'"{key}": [\n{rows}\n]' for key, rows in lines.items())
    pathlib.Path(__file__).with_name("block_hashes.json").write_text(f"{{\n{text}\n}}\n")


main()
