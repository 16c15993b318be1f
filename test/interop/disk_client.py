"""Stock Mooncake store clients, unchanged, one of which lends a disk: they write more than memory holds, read all of it back, and
see objects come back to memory.

Prints one JSON line per step, in order. Usage: disk_client.py MASTER OWNER READER FOLDER
"""
import json
import os
import sys
import time

# The client logs to stdout and stderr; results go where stdout was.
results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

master, owner_name, reader_name, folder = sys.argv[1:5]
os.environ.update(
    MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS="1",
    MOONCAKE_OFFLOAD_LOCAL_BUFFER_SIZE_BYTES=str(32 << 20),
    MOONCAKE_OFFLOAD_BUCKET_KEYS_LIMIT="4",
    MOONCAKE_OFFLOAD_TOTAL_SIZE_LIMIT_BYTES=str(1 << 30),
)

from mooncake.store import MooncakeDistributedStore  # noqa: E402

MIB = 1 << 20
MEMORY = 16
OBJECTS = 40
WAIT_S = 60


def say(step, value):
    results.write(json.dumps([step, value]) + "\n")


def value(i):
    return (bytes((i * 31 + j * 7) & 255 for j in range(251)) * (MIB // 251 + 1))[:MIB]


def within(wanted):
    """Whether it comes to be in time."""
    end = time.monotonic() + WAIT_S
    while not wanted():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def places(key):
    copies = reader.get_replica_desc(key)
    return sorted({"disk" if one.is_local_disk_replica() else "memory" for one in copies})


owner = MooncakeDistributedStore()
reader = MooncakeDistributedStore()
say("owner", owner.setup(owner_name, "P2PHANDSHAKE", MEMORY * MIB, 16 * MIB, "tcp", "", master, None, True, folder))
say("reader", reader.setup(reader_name, "P2PHANDSHAKE", 0, 16 * MIB, "tcp", "", master))
keys = [f"object-{i}" for i in range(OBJECTS)]
# Memory is full until the disk has some of it: -200 for a while.
say("put", all(within(lambda: reader.put(key, value(i)) == 0) for i, key in enumerate(keys)))
known = [i for i, key in enumerate(keys) if reader.is_exist(key) == 1]
say("known", len(known))
say("on disk alone", len([i for i in known if places(keys[i]) == ["disk"]]))
say("wrong for the owner", [i for i in known if owner.get(keys[i]) != value(i)])
say("wrong for a reader", [i for i in known if reader.get(keys[i]) != value(i)])

alone = [i for i in known if places(keys[i]) == ["disk"]]
kept, rest = alone[0], [i for i in known if i != alone[0]]
say("removed", all(within(lambda: reader.remove(keys[i], True) == 0) for i in rest))


def promoted():
    return reader.get(keys[kept]) == value(kept) and places(keys[kept]) == ["disk", "memory"]


say("promoted", within(promoted))
say("right again", owner.get(keys[kept]) == value(kept))
say("all removed", reader.remove_all(True) >= 0 and reader.is_exist(keys[kept]))
os._exit(0)
