"""Memory shared under tensors: same addresses, same bytes, seen by who holds the descriptor; and taken back."""

import ctypes
import fcntl
import mmap
import os
import subprocess
import sys
import unittest

import torch
from mooncake_ts_vllm.memory import PAGE, ForeignMemory, NotShareable, SharedMemory, Storage, mapped_allocations, share

MIB = 1 << 20


def cache(length: int = 33 * MIB + 4096) -> torch.Tensor:
    with mapped_allocations():
        tensor = torch.empty(length, dtype=torch.uint8)
    return tensor.random_(0, 200)


def under(tensor: torch.Tensor) -> SharedMemory:
    storage = tensor.untyped_storage()
    return SharedMemory.under(storage.data_ptr(), storage.nbytes())


class SharedMemoryTest(unittest.TestCase):
    def test_tensor_stays_and_the_descriptor_has_its_bytes(self) -> None:
        tensor = cache()
        before = tensor.clone()
        address = tensor.data_ptr()
        memory = under(tensor)
        self.addCleanup(memory.close)
        self.assertEqual(tensor.data_ptr(), address)
        self.assertTrue(torch.equal(tensor, before))
        self.assertEqual((memory.address % PAGE, memory.length % PAGE), (0, 0))
        with mmap.mmap(memory.fd, memory.length) as other:
            offset = address - memory.address
            self.assertEqual(other[offset : offset + tensor.numel()], before.numpy().tobytes())
            other[offset + 7] = 255
            self.assertEqual(int(tensor[7]), 255)
            tensor[8] = 254
            self.assertEqual(other[offset + 8], 254)

    def test_cannot_be_shrunk(self) -> None:
        memory = under(cache())
        self.addCleanup(memory.close)
        self.assertTrue(fcntl.fcntl(memory.fd, 1034) & 0x2)
        with self.assertRaises(OSError):
            os.ftruncate(memory.fd, PAGE)

    def test_replaced_memory_is_out_of_reach_of_the_old_descriptor(self) -> None:
        tensor = cache()
        memory = under(tensor)
        self.addCleanup(memory.close)
        before = tensor.clone()
        with mmap.mmap(memory.fd, memory.length) as late:
            memory.replace()
            self.assertTrue(torch.equal(tensor, before))
            offset = tensor.data_ptr() - memory.address
            late[offset : offset + 4096] = bytes(4096)
            self.assertTrue(torch.equal(tensor, before))
            with mmap.mmap(memory.fd, memory.length) as new:
                new[offset] = 99
                self.assertEqual(int(tensor[0]), 99)

    def test_memory_of_others_is_refused_and_untouched(self) -> None:
        with self.assertRaisesRegex(NotShareable, "less than"):
            SharedMemory.under(torch.zeros(1000).data_ptr(), 4000)
        shared = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_SHARED)
        with self.assertRaisesRegex(NotShareable, "not private"):
            SharedMemory.under(ctypes.addressof(ctypes.c_char.from_buffer(shared)), 64 * MIB)

    def test_a_small_allocation_is_shared_where_it_is_a_mapping_of_its_own(self) -> None:
        # In a process of its own: what lies free in this one's heap is used before anything is mapped.
        code = """
import torch
from mooncake_ts_vllm.memory import mapped_allocations, own_mapping
from tests.test_memory import MIB, under
with mapped_allocations():
    own = [torch.full((3 * MIB,), value, dtype=torch.uint8) for value in range(4)]
for value, tensor in enumerate(own):
    assert own_mapping(tensor.data_ptr(), 3 * MIB)
    under(tensor)
    assert tensor.unique().tolist() == [value]
del own, tensor
under(torch.zeros(3 * MIB, dtype=torch.uint8))
"""
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        self.assertIn("NotShareable: 3145728 bytes lie in a heap", run.stderr)

    def test_storages_shared_already_are_the_services_to_read(self) -> None:
        tensor = cache().share_memory_()
        storage = tensor.untyped_storage()
        memory, why = share(Storage(storage.data_ptr(), storage.nbytes(), storage.is_shared()))
        self.assertEqual(memory, ForeignMemory(storage.data_ptr(), storage.nbytes()))
        self.assertIn("shared with other processes", why or "")

    def test_no_descriptor_is_left_behind_by_a_failure(self) -> None:
        before = set(os.listdir("/proc/self/fd"))
        tensor = cache()
        with self.assertRaises(OSError):
            # Not whole pages: mmap refuses, after the copy was mapped.
            SharedMemory(tensor.data_ptr() | 1, 2 * MIB)
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)


if __name__ == "__main__":
    unittest.main()
