"""A stock Mooncake transfer engine, driven by JSON lines: a command on stdin, its result or error on stdout.

Contents are never sent: both sides fill memory themselves and compare SHA-256.
"""
import ctypes
import hashlib
import json
import mmap
import os
import random
import sys

# The engine logs to stdout and stderr; results go where stdout was.
results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

from mooncake.engine import TransferEngine, TransferNotify, TransferOpcode  # noqa: E402

BLOCK = 1 << 20
engine = TransferEngine()
memories = {}


def view(address, length):
    for base, memory in memories.items():
        if base <= address and address + length <= base + len(memory):
            return memoryview(memory)[address - base : address - base + length]
    raise ValueError("no such memory")


def start(host, metadata):
    code = engine.initialize(host, metadata, "tcp", "")
    return {"code": code, "port": engine.get_rpc_port()}


def allocate(length):
    memory = mmap.mmap(-1, length)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    memories[address] = memory
    return {"code": engine.register_memory(address, length), "address": address}


def allocate_batch(length, count):
    addresses = []
    for _ in range(count):
        memory = mmap.mmap(-1, length)
        addresses.append(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
        memories[addresses[-1]] = memory
    return {"code": engine.batch_register_memory(addresses, [length] * count), "addresses": addresses}


def release(address):
    return {"code": engine.unregister_memory(address)}


def fill(address, length, seed):
    """Random bytes, no megabyte of them like another."""
    block = random.Random(seed).randbytes(BLOCK)
    target = view(address, length)
    for at in range(0, length, BLOCK):
        size = min(BLOCK, length - at)
        target[at : at + size] = block[:size]
        mark = (seed * 1000003 + at).to_bytes(8, "little")
        target[at : at + min(8, size)] = mark[: min(8, size)]
    return {}


def digest(address, length):
    return {"sha256": hashlib.sha256(view(address, length)).hexdigest()}


def transfer(op, peer, buffer, remote, length):
    call = engine.transfer_sync_read if op == "read" else engine.transfer_sync_write
    return {"code": call(peer, buffer, remote, length)}


def transfer_batch(op, peer, buffers, remotes, lengths):
    call = engine.batch_transfer_sync_read if op == "read" else engine.batch_transfer_sync_write
    return {"code": call(peer, buffers, remotes, lengths)}


def transfer_async(op, peer, buffers, remotes, lengths):
    call = engine.batch_transfer_async_read if op == "read" else engine.batch_transfer_async_write
    batch = call(peer, buffers, remotes, lengths)
    return {"code": engine.get_batch_transfer_status([batch]), "batch": batch}


def transfer_notify(peer, buffer, remote, length, name, message):
    code = engine.transfer_sync(peer, buffer, remote, length, TransferOpcode.Write, TransferNotify(name, message))
    return {"code": code}


def first_buffer(peer):
    return {"address": engine.get_first_buffer_address(peer)}


def notifies():
    return {"notifies": [{"name": item.name, "message": item.msg} for item in engine.get_notifies()]}


def probe(peer):
    return {"code": engine.send_probe(peer)}


COMMANDS = [
    start, allocate, allocate_batch, release, fill, digest, transfer, transfer_batch, transfer_async,
    transfer_notify, first_buffer, notifies, probe,
]
COMMANDS = {command.__name__: command for command in COMMANDS}

for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        result = COMMANDS[name](*arguments)
    except Exception as error:  # noqa: BLE001: the test decides
        result = {"error": f"{type(error).__name__}: {error}"}
    results.write(json.dumps(result) + "\n")
del engine
