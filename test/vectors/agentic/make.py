"""Writes expected.json beside this file: python3 test/vectors/agentic/make.py

The agentic workload on a small cluster whose caches are all too small, from the definitions alone: dictionaries in
order of use, searched from the oldest, no shared code with the package.
"""
import json
import math
import pathlib

SHAPE = {"system": 1000, "first": 700, "input": 300, "output": 130, "turns": 6, "block": 16, "tokenBytes": 1_000_000}
CASES = [
    {"gpus": 24, "sessions": 5, "hbm": 4, "segment": 0.5, "seed": 1, "saveOutput": True},
    {"gpus": 36, "sessions": 5, "hbm": 5, "segment": 0.4, "seed": 2, "saveOutput": False},
    {"gpus": 12, "sessions": 9, "hbm": 6, "segment": 0.8, "seed": 3, "saveOutput": True},
]
TOKEN_SECONDS, START_GAP, DELAY = 0.02, 0.2, 5.2
SIGMA = math.log(81.4 / DELAY) / 2.326


def mulberry32(state):
    mask = 0xFFFFFFFF
    while True:
        state = (state + 0x6D2B79F5) & mask
        t = ((state ^ (state >> 15)) * (state | 1)) & mask
        t ^= (t + ((t ^ (t >> 7)) * (t | 61))) & mask
        yield ((t ^ (t >> 14)) & mask) / 2**32


def turns(sessions, seed):
    """(session, turn) in order of time."""
    uniform = mulberry32(seed)
    start, all_turns = 0.0, []
    for session in range(sessions):
        time = start
        for turn in range(SHAPE["turns"]):
            all_turns.append((time, session, turn))
            radius = math.sqrt(-2 * math.log(1 - next(uniform)))
            normal = radius * math.cos(2 * math.pi * next(uniform))
            time += SHAPE["output"] * TOKEN_SECONDS + DELAY * math.exp(SIGMA * normal)
        start -= START_GAP * math.log(1 - next(uniform))
    return [(session, turn) for _, session, turn in sorted(all_turns)]


class Cache:
    """Least recently used blocks go first; a chain is used from its last block to its first, new blocks before others."""

    def __init__(self, capacity):
        self.capacity, self.blocks, self.evictions = capacity, {}, 0

    def run(self, chain):
        return next((at for at, block in enumerate(chain) if block not in self.blocks), len(chain))

    def use(self, chain):
        pinned = set(chain)
        for block in reversed([block for block in chain if block not in self.blocks]):
            if len(self.blocks) == self.capacity:
                del self.blocks[next(other for other in self.blocks if other not in pinned)]
                self.evictions += 1
            self.blocks[block] = True
        for block in reversed(chain):
            del self.blocks[block]
            self.blocks[block] = True


def simulate(case):
    size = SHAPE["block"] * SHAPE["tokenBytes"]
    pairs = case["gpus"] // 12
    gpus = [Cache(int(case["hbm"] * 1e9 // size)) for _ in range(pairs)]
    pool = Cache(case["gpus"] * int(case["segment"] * 1e9 // size))
    hits = local_hits = 0
    for number, (session, turn) in enumerate(turns(case["sessions"] * pairs, case["seed"])):
        prompt = SHAPE["system"] + SHAPE["first"] + turn * (SHAPE["input"] + SHAPE["output"])
        saved = prompt + (SHAPE["output"] - 1 if case["saveOutput"] else 0)
        common = SHAPE["system"] // SHAPE["block"]
        chain = [(-1 if at < common else session, at) for at in range(saved // SHAPE["block"])]
        asked = chain[: prompt // SHAPE["block"]]
        gpu = gpus[number % pairs]
        local = gpu.run(asked)
        local_hits += local
        hits += max(local, pool.run(asked))
        gpu.use(asked)
        pool.use(chain)
    return {
        "hitTokens": hits * SHAPE["block"],
        "localHitTokens": local_hits * SHAPE["block"],
        "localEvictions": sum(gpu.evictions for gpu in gpus),
        "poolEvictions": pool.evictions,
        "poolObjects": len(pool.blocks),
    }


results = [{"options": {**SHAPE, **case}, "figures": simulate(case)} for case in CASES]
lines = ",\n".join("  " + json.dumps(result) for result in results)
(pathlib.Path(__file__).parent / "expected.json").write_text(f"[\n{lines}\n]\n")
