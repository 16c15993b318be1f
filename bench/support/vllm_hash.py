"""Times vLLM's own block hashing: for each algorithm named on stdin, nanoseconds a block of one prompt's chain, with the
loop of its request hasher (a slice of the token list, then hash_block_tokens) and nothing else of it.

    python vllm_hash.py FOLDER_OF_vllm_source.py TOKENS_FILE BLOCK_SIZE
"""

import os
import sys
import time
from array import array

os.environ["PYTHONHASHSEED"] = "0"
sys.path.insert(0, sys.argv[1])
import vllm_source  # noqa: E402

hashing, utils = vllm_source.load()
tokens = array("I")
with open(sys.argv[2], "rb") as file:
    tokens.frombytes(file.read())
size = int(sys.argv[3])
tokens = tokens.tolist()

for line in sys.stdin:
    function = hashing.get_hash_fn_by_name(line.strip())
    utils.init_none_hash(function)
    hash_block_tokens, parent = utils.hash_block_tokens, None
    start = time.perf_counter_ns()
    for at in range(0, len(tokens), size):
        parent = hash_block_tokens(function, parent, tokens[at : at + size])
    print((time.perf_counter_ns() - start) * size / len(tokens), parent.hex(), flush=True)
