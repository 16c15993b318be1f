"""Writes trace.jsonl and expected.json beside this file: python3 test/vectors/replay/make.py

The expected figures come from the definitions alone: lists that are searched from end to end, no shared code with the
package. The trace is a small multi-turn one: sessions grow out of a few common prefixes, so blocks come back at all
depths and leading runs end in the middle of prompts.
"""
import json
import math
import pathlib
import random

HERE = pathlib.Path(__file__).parent
CAPACITIES = [1, 2, 7, 20, 50, 120, 300, None]


def make_trace(rng):
    next_id = 1000
    chains = []
    for length in (3, 5, 1):
        chains.append(list(range(next_id, next_id + length)))
        next_id += length
    requests, time = [], 0
    for _ in range(260):
        time += rng.randrange(0, 400)
        recent = chains[-25:] if rng.random() < 0.8 else chains
        base = rng.choice(recent)
        cut = len(base) if rng.random() < 0.7 else rng.randrange(1, len(base) + 1)
        chain = base[:cut]
        for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 6])):
            chain.append(next_id)
            next_id += 1
        chain = chain[:24]
        chains.append(chain)
        requests.append({
            "timestamp": time,
            "input_length": 512 * len(chain) - rng.randrange(512),
            "output_length": rng.randrange(1, 500),
            "hash_ids": chain,
        })
    return requests


class Recency:
    """lru and fifo: a list, oldest first."""

    def __init__(self, _capacity, _future, refresh):
        self.refresh, self.order = refresh, []

    def held(self):
        return self.order

    def touch(self, block, _now):
        if self.refresh:
            self.order.remove(block)
            self.order.append(block)

    def insert(self, block, _now):
        self.order.append(block)

    def evict(self, _block, _now):
        return self.order.pop(0)


class Store(Recency):
    """lru, but a twentieth goes at a time, before more than nine tenths are full."""

    def __init__(self, capacity, future):
        super().__init__(capacity, future, True)
        self.capacity = capacity

    def surplus(self):
        full = (len(self.order) + 1) / self.capacity > 0.9
        return math.ceil(len(self.order) * 0.05) if full else 0


class Lfu:
    def __init__(self, _capacity, _future):
        self.uses = {}

    def held(self):
        return self.uses

    def touch(self, block, now):
        self.uses[block] = (self.uses[block][0] + 1, now)

    def insert(self, block, now):
        self.uses[block] = (1, now)

    def evict(self, _block, _now):
        victim = min(self.uses, key=lambda block: self.uses[block])
        del self.uses[victim]
        return victim


class S3Fifo:
    """Algorithm 1 of the paper; the ghost queue holds what the small queue gave up, as many as the main queue's share."""

    def __init__(self, capacity, _future):
        self.share = max(1, int(capacity * 0.1))
        self.ghost_size = capacity - self.share
        self.small, self.main, self.ghost, self.freq = [], [], [], {}

    def held(self):
        return self.freq

    def touch(self, block, _now):
        self.freq[block] = min(3, self.freq[block] + 1)

    def insert(self, block, _now):
        if block in self.ghost:
            self.ghost[self.ghost.index(block)] = None
            self.main.append(block)
        else:
            self.small.append(block)
        self.freq[block] = 0

    def evict(self, _block, _now):
        while True:
            if len(self.small) >= self.share or not self.main:
                victim = self.small.pop(0)
                if self.freq[victim] > 1:
                    self.freq[victim] = 0
                    self.main.append(victim)
                    continue
                self.ghost.append(victim)
                self.ghost = self.ghost[-self.ghost_size:] if self.ghost_size else []
            else:
                victim = self.main.pop(0)
                if self.freq[victim] > 0:
                    self.freq[victim] -= 1
                    self.main.append(victim)
                    continue
            del self.freq[victim]
            return victim


class Opt:
    """Farthest next use goes, the incoming block included; of blocks never used again the deepest."""

    def __init__(self, _capacity, future):
        self.future, self.blocks, self.depth = future, set(), {}
        for at, (block, depth) in enumerate(future):
            self.depth[block] = depth

    def held(self):
        return self.blocks

    def touch(self, _block, _now):
        pass

    def insert(self, block, _now):
        self.blocks.add(block)

    def evict(self, block, now):
        def next_use(candidate):
            for at in range(now + 1, len(self.future)):
                if self.future[at][0] == candidate:
                    return (at, 0)
            return (len(self.future), self.depth[candidate])

        victim = max(self.blocks, key=next_use)
        if next_use(block) >= next_use(victim):
            return block
        self.blocks.remove(victim)
        return victim


POLICIES = {
    "lru": lambda capacity, future: Recency(capacity, future, True),
    "fifo": lambda capacity, future: Recency(capacity, future, False),
    "s3fifo": S3Fifo,
    "lfu": Lfu,
    "store": Store,
    "opt": Opt,
}


def replay(requests, policy, capacity):
    future = [(block, depth) for request in requests for depth, block in enumerate(request["hash_ids"])]
    cache = POLICIES[policy](capacity or len(future), future)
    hits = evictions = now = 0
    for request in requests:
        for block in request["hash_ids"]:
            if block not in cache.held():
                break
            hits += 1
        for block in request["hash_ids"]:
            if block in cache.held():
                cache.touch(block, now)
            else:
                surplus = int(len(cache.held()) == capacity)
                if hasattr(cache, "surplus"):
                    surplus = 0 if capacity is None else cache.surplus()
                victims = [cache.evict(block, now) for _ in range(surplus)]
                if block not in victims:
                    evictions += len(victims)
                    cache.insert(block, now)
            now += 1
    return {"policy": policy, "blocks": capacity, "hitBlocks": hits, "evictions": evictions}


requests = make_trace(random.Random(7))
(HERE / "trace.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
results = [replay(requests, policy, capacity) for policy in POLICIES for capacity in CAPACITIES]
lines = ",\n".join("  " + json.dumps(result) for result in results)
(HERE / "expected.json").write_text(f"[\n{lines}\n]\n")
