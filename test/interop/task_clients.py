"""Three stock Mooncake clients, unchanged, which carry out copy and move tasks and a drain job of one master.

Prints one JSON line per step, in order; the two masters' lines are compared. Every wait has a deadline.
Usage: task_clients.py MASTER ADMIN METADATA FIRST_PORT
"""
import json
import os
import sys
import time
import urllib.request

# The client logs to stdout and stderr; results go where stdout was.
results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from mooncake.store import MooncakeDistributedStore, ReplicateConfig  # noqa: E402

master, admin, metadata, port = sys.argv[1:5]
MIB = 1 << 20
LEASE = 2.0
DEADLINE = 60.0


def say(step, value):
    results.write(json.dumps([step, value]) + "\n")


def open_store(number):
    store = MooncakeDistributedStore()
    name = f"127.0.0.1:{int(port) + number}"
    code = store.setup(name, metadata, 64 * MIB, 16 * MIB, "tcp", "", master)
    if code != 0:
        raise RuntimeError(f"setup: {code}")
    return store


def value(seed, size):
    return bytes((seed * 31 + i * 7) & 255 for i in range(251)) * (size // 251) + bytes(size % 251)


def http(method, path, body=None):
    request = urllib.request.Request(f"http://{admin}{path}", method=method, data=body)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def poll(done, what):
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        found = done()
        if found is not None:
            return found
        time.sleep(0.1)
    raise RuntimeError(f"{what}: not in {DEADLINE} s")


def places(store, key):
    found = []
    for replica in store.get_replica_desc(key):
        buffer = replica.get_memory_descriptor().buffer_descriptor
        found.append(names[buffer.transport_endpoint])
    return sorted(found)


def ended(task):
    def status():
        response, code = stores[0].query_task(task)
        if code != 0:
            raise RuntimeError(f"query_task: {code}")
        return str(response.status) if str(response.status).split(".")[-1] in ("SUCCESS", "FAILED") else None

    return poll(status, "task")


def main():
    for i, store in enumerate(stores):
        say("health", store.health_check())
    a, b, c = (names_of[i] for i in range(3))
    config = ReplicateConfig()
    config.preferred_segment = a
    for i in range(8):
        say("put", stores[i % 3].put(f"k{i}", value(i, 100_000 * i + 7), config))
    say("placed", [places(stores[0], f"k{i}") for i in range(8)])
    task, code = stores[1].create_copy_task("k1", [b, c])
    say("copy task", [code, ended(task), places(stores[0], "k1")])
    task, code = stores[1].create_copy_task("k1", [b])
    say("copy again", [code, ended(task), places(stores[0], "k1")])
    task, code = stores[2].create_move_task("k2", a, c)
    say("move task", [code, ended(task), places(stores[0], "k2")])
    task, code = stores[2].create_move_task("k1", a, b)
    say("move to where a copy is", [code, ended(task), places(stores[0], "k1")])
    say("refused", [stores[0].create_copy_task("absent", [b])[1], stores[0].create_copy_task("k1", ["x:1"])[1]])
    say("refused", [stores[0].create_move_task("k2", a, b)[1], stores[0].create_move_task("k2", c, c)[1]])
    for i in range(8):
        say("bytes", [store.get(f"k{i}") == value(i, 100_000 * i + 7) for store in stores])
    time.sleep(LEASE + 0.5)
    config.preferred_segment = b
    say("put elsewhere", stores[0].put("far", value(9, 1000), config))
    body = json.dumps({"segments": [a], "target_segments": [b, c], "max_concurrency": 16}).encode()
    job = http("POST", "/api/v1/drain_jobs", body)
    say("drain", [job["success"], job["status"]])
    query = f"/api/v1/drain_jobs/query?job_id={job['job_id']}"

    def drained():
        answer = http("GET", query)
        return answer if answer["status_name"] not in ("CREATED", "PLANNING", "RUNNING") else None

    answer = poll(drained, "drain")
    kept = ("status_name", "succeeded_units", "failed_units", "blocked_units", "active_units", "migrated_bytes", "message")
    say("drained", {field: answer[field] for field in kept})
    say("segment", http("GET", f"/api/v1/segments/status?segment={a}")["status_name"])
    say("moved away", ["a" in places(stores[0], f"k{i}") for i in range(8)])
    stores[0].close()
    for i in range(8):
        say("bytes after its end", [store.get(f"k{i}") == value(i, 100_000 * i + 7) for store in stores[1:]])
    for store in stores[1:]:
        say("closed", store.close())


try:
    stores = [open_store(i) for i in range(3)]
    names_of = [store.get_hostname() for store in stores]
    detail = http("GET", "/get_segments_detail")["segments"]
    names = {one["te_endpoint"]: "abc"[names_of.index(one["segment_name"])] for one in detail}
    main()
except Exception as error:  # noqa: BLE001: the test decides
    say("error", f"{type(error).__name__}: {error}")
results.flush()
os._exit(0)
