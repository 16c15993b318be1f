"""A stock Mooncake store client that lends nothing: reads the objects of disk-store.test.ts and says which are where, and wrong.

Usage: disk_reader.py MASTER NAME OBJECTS
"""
import json
import os
import sys

results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from mooncake.store import MooncakeDistributedStore  # noqa: E402

MIB = 1 << 20
master, name, objects = sys.argv[1], sys.argv[2], int(sys.argv[3])


def value(i):
    return (bytes((i * 31 + j * 7) & 255 for j in range(251)) * (MIB // 251 + 1))[:MIB]


store = MooncakeDistributedStore()
code = store.setup(name, "P2PHANDSHAKE", 0, 64 * MIB, "tcp", "", master)
keys = [f"object-{i}" for i in range(objects)]
known = [i for i in range(objects) if store.is_exist(keys[i]) == 1]
alone = [i for i in known if all(one.is_local_disk_replica() for one in store.get_replica_desc(keys[i]))]
wrong = [i for i in known if store.get(keys[i]) != value(i)]
batch = store.get_batch([keys[i] for i in known[:8]])
wrong_in_batch = [i for i, got in zip(known, batch) if got != value(i)]
results.write(
    json.dumps({"code": code, "known": len(known), "alone": len(alone), "wrong": wrong, "wrongInBatch": wrong_in_batch})
)
results.flush()
os._exit(0)
