"""Prints random chains and requests with the hashes that vLLM's own functions give them, one JSON object a line.

    python generate.py SEED COUNT
"""

import json
import os
import random
import sys
from types import SimpleNamespace

import vllm_source

hashing, utils = vllm_source.load()
ALGORITHMS = ["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"]
TAGS = {tag: tag for tag in ("lora", "mm", "cache_salt", "prompt_embeds")}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_/éß✓中😀"


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.serial = 0

    def text(self):
        """A string that no other one equals: what a pickle does with equal ones is not defined."""
        self.serial += 1
        size = self.random.choice([0, 3, 10, 40, 250, 300])
        return f"{self.serial}" + "".join(self.random.choice(LETTERS) for _ in range(size))

    def tokens(self, count):
        r = self.random
        bound = r.choice([24, 256, 65_536, 151_936, 2**31, 2**32])
        return [r.choice([r.randrange(bound), r.randrange(r.choice([24, 300, 70_000]))]) for _ in range(count)]

    def size(self):
        return self.random.choice([1, 2, 3, 4, 8, 16, 16, 16, 16, 23, 24, 32, 64, 128, 256, 300])

    def value(self, depth=0):
        r = self.random
        kind = r.choice(["text", "int", "int", "none", "bytes"] + ["list"] * (depth < 3))
        if kind == "text":
            return self.text()
        if kind == "int":
            return r.choice([-1, 1]) * r.randrange(2 ** r.choice([4, 8, 16, 31, 32, 52]))
        if kind == "bytes":
            self.serial += 1
            return {"bytes_hex": (self.serial.to_bytes(4, "big") + r.randbytes(r.choice([0, 28, 300]))).hex()}
        return None if kind == "none" else [self.value(depth + 1) for _ in range(r.randrange(6))]

    def keys(self):
        """What vLLM makes (tagged), or anything."""
        r = self.random
        if r.random() < 0.5:
            return None
        if r.random() < 0.3:
            return [self.value() for _ in range(r.randrange(5))]
        keys = [["lora", self.text(), self.text()]] if r.random() < 0.4 else []
        keys += [["mm", self.text(), r.randrange(-300, 300)] for _ in range(r.randrange(4))]
        keys += [["cache_salt", self.text()]] if r.random() < 0.4 else []
        return keys + ([["prompt_embeds", {"bytes_hex": r.randbytes(32).hex()}]] if r.random() < 0.3 else [])

    def chain(self):
        size = self.size()
        tokens = self.tokens(self.random.randrange(max(2, 1000 // size)) * size + self.random.randrange(size))
        return {"blockSize": size, "tokens": tokens, "extraKeys": [self.keys() for _ in range(len(tokens) // size)]}

    def request(self):
        r, size = self.random, self.size()
        count = r.randrange(max(2, 1000 // size)) * size + r.randrange(size)
        items, at = [], 0
        while r.random() < 0.7:
            at += r.randrange(3 * size)
            length = r.randrange(4 * size)
            items.append({"identifier": self.text(), "offset": at, "length": length})
            # Mostly one behind the other; audio may lie within its video.
            at += length if r.random() < 0.8 else 0
        return {
            "blockSize": size,
            "tokens": self.tokens(count),
            "lora": {"name": self.text(), "path": self.text()} if r.random() < 0.3 else None,
            "multimodal": items,
            "cacheSalt": r.choice([None, "", self.text()]),
            "promptEmbeds": [r.randbytes(32).hex() for _ in range(count // size)] if r.random() < 0.2 else None,
        }


def python_keys(value, depth=0):
    """JSON lists as tuples; each of vLLM's tags always the same object, as in its code."""
    if isinstance(value, list):
        items = [python_keys(item, depth + 1) for item in value]
        if depth == 1 and items and isinstance(items[0], str):
            items[0] = TAGS.get(items[0], items[0])
        return tuple(items)
    return bytes.fromhex(value["bytes_hex"]) if isinstance(value, dict) else value


def hash_chain(function, case):
    hashes, size = [], case["blockSize"]
    for i, keys in enumerate(case["extraKeys"]):
        block = case["tokens"][i * size : (i + 1) * size]
        extra = None if keys is None else python_keys(keys)
        hashes.append(utils.hash_block_tokens(function, hashes[-1] if hashes else None, block, extra))
    return hashes


def hash_request(function, case):
    size, embeds = case["blockSize"], case["promptEmbeds"]
    request = SimpleNamespace(
        block_hashes=[],
        num_tokens=len(case["tokens"]),
        all_token_ids=case["tokens"],
        mm_features=[
            SimpleNamespace(
                identifier=item["identifier"],
                mm_position=SimpleNamespace(offset=item["offset"], length=item["length"]),
            )
            for item in case["multimodal"]
        ],
        lora_request=case["lora"] and SimpleNamespace(lora_name=case["lora"]["name"], lora_path=case["lora"]["path"]),
        cache_salt=case["cacheSalt"],
        prompt_embeds=None if embeds is None else (),
        _prompt_embeds_per_block_hashes={
            (i * size, (i + 1) * size): bytes.fromhex(digest) for i, digest in enumerate(embeds or [])
        },
    )
    return utils.get_request_block_hasher(size, function)(request)


def main():
    seed, count = sys.argv[1], int(sys.argv[2])
    generator = Generator(seed)
    for i in range(count):
        algorithm = ALGORITHMS[i % 4]
        function = hashing.get_hash_fn_by_name(algorithm)
        none_seed = generator.random.choice([None, "0", "42", generator.text()])
        if none_seed is None and algorithm.startswith("xxhash"):
            none_seed = "1"
        os.environ.pop("PYTHONHASHSEED", None)
        if none_seed is not None:
            os.environ["PYTHONHASHSEED"] = none_seed
        utils.init_none_hash(function)
        kind = "request" if generator.random.random() < 0.5 else "chain"
        case = generator.request() if kind == "request" else generator.chain()
        hashes = hash_request(function, case) if kind == "request" else hash_chain(function, case)
        group = generator.random.randrange(2**32)
        last = hashes[-1] if hashes else None
        case |= {
            "kind": kind,
            "algorithm": algorithm,
            "seed": none_seed,
            "group": group,
            "noneHash": utils.NONE_HASH.hex(),
            "hashes": [own.hex() for own in hashes],
            "grouped": last and utils.make_block_hash_with_group_id(last, group).hex(),
            "event": last and str(utils.maybe_convert_block_hash(last)),
        }
        print(json.dumps(case))


main()
