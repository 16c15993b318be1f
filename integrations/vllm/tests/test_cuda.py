"""The driver's calls by ctypes, against the simulated driver that the accelerator's tests use (native/test/cuda/library.cpp)."""

from __future__ import annotations

import ctypes
import os
import pathlib
import socket
import struct
import tempfile
import threading
import time
import unittest
from types import SimpleNamespace
from typing import Any

from mooncake_ts_vllm.cuda import CudaError, Driver, Order, VirtualMemory, share
from mooncake_ts_vllm.memory import describe
from mooncake_ts_vllm.metadata import StepMetadata
from mooncake_ts_vllm.protocol import ServiceError
from mooncake_ts_vllm.worker import WorkerHalf

BUILT = pathlib.Path(__file__).parents[3] / "build" / "native" / "libcuda-double.so"
LIBRARY = os.environ.get("MOONCAKE_TEST_CUDA") or str(BUILT)
MIB = 1 << 20
OTHER_GPU = "GPU-00010203-0405-0607-0809-0a0b0c0d0e65"


@unittest.skipUnless(os.path.exists(LIBRARY), "the simulated driver is built by: npm run test:unit")
class CudaTest(unittest.TestCase):
    def setUp(self) -> None:
        self.driver = Driver(LIBRARY)
        self.library = ctypes.CDLL(LIBRARY)
        self.driver.call("cuInit", 0)
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.driver.call("cuDeviceGet", ctypes.byref(device), 1)
        self.driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.driver.call("cuCtxPushCurrent_v2", context)
        self.addCleanup(self.library.cuCtxPopCurrent_v2, ctypes.byref(ctypes.c_void_p()))

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        self.driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self.addCleanup(self.library.cuMemFree_v2, address)
        return address.value

    def hold(self) -> None:
        self.library.mooncakeDoubleHold()
        self.addCleanup(self.library.mooncakeDoubleRelease)


class DriverTest(CudaTest):
    def test_a_part_of_an_allocation_is_named_by_the_whole(self) -> None:
        base = self.allocate(2 * MIB)
        self.assertEqual(self.driver.allocation(base + 5000), (base, 2 * MIB))
        memory = share(self.driver, 1, base + 4096, MIB)
        self.assertEqual((memory.device, memory.offset, memory.length), (OTHER_GPU, 4096, MIB))
        self.assertEqual(memory.handle, self.driver.handle(base))
        self.assertEqual(len(memory.handle), 64)
        named = describe(memory, "no socket is needed", 1.0)
        self.assertEqual(
            named, {"kind": "cuda-ipc", "device": OTHER_GPU, "handle": memory.handle, "offset": 4096, "length": MIB}
        )

    def test_what_is_not_one_allocation_is_refused(self) -> None:
        base = self.allocate(MIB)
        with self.assertRaisesRegex(CudaError, "leave their allocation"):
            share(self.driver, 1, base, MIB + 1)
        with self.assertRaisesRegex(CudaError, "cuMemGetAddressRange"):
            share(self.driver, 1, id(self), 8)
        with self.assertRaisesRegex(CudaError, "cuIpcGetMemHandle"):
            self.driver.handle(base + 1)

    def test_a_machine_without_a_driver_says_so(self) -> None:
        with self.assertRaises(CudaError):
            Driver("/nowhere/libcuda.so.1")


class VirtualTest(CudaTest):
    """Memory of cuMemCreate: allocations of one reservation, as PyTorch's expandable segments have them."""

    GRANULE = 64 << 10

    def reserve(self, *sizes: int) -> int:
        base = ctypes.c_uint64()
        self.driver.call("cuMemAddressReserve", ctypes.byref(base), ctypes.c_size_t(sum(sizes)), 0, 0, 0)
        properties = (ctypes.c_int * 8)(1, 1, 1, 101)
        at = base.value
        for size in sizes:
            allocation = ctypes.c_uint64()
            self.driver.call("cuMemCreate", ctypes.byref(allocation), ctypes.c_size_t(size), properties, 0)
            self.driver.call("cuMemMap", ctypes.c_uint64(at), ctypes.c_size_t(size), 0, allocation, 0)
            self.driver.call("cuMemRelease", allocation)
            at += size
        return base.value

    def test_each_allocation_goes_by_a_descriptor(self) -> None:
        granule = self.GRANULE
        base = self.reserve(granule, 2 * granule, granule)
        memory = share(self.driver, 1, base + granule + 512, 2 * granule)
        assert isinstance(memory, VirtualMemory)
        self.assertEqual(memory.parts, [(base + granule, 2 * granule), (base + 3 * granule, granule)])
        self.assertEqual((memory.device, memory.offset, memory.length), (OTHER_GPU, 512, 2 * granule))
        with DescriptorSocket() as socket:
            named = describe(memory, socket.path, 5.0)
        self.assertEqual([size for _, size, _ in socket.taken], [2 * granule, granule])
        self.assertEqual([os.fstat(fd).st_size for _, _, fd in socket.taken], [2 * granule, granule])
        parts = [{"ticket": ticket, "size": size} for ticket, size, _ in socket.taken]
        self.assertEqual(
            named, {"kind": "cuda-vmm-fd", "device": OTHER_GPU, "parts": parts, "offset": 512, "length": 2 * granule}
        )

    def test_what_is_not_mapped_is_refused(self) -> None:
        base = self.reserve(self.GRANULE)
        with self.assertRaisesRegex(CudaError, "end at"):
            share(self.driver, 1, base, self.GRANULE + 1)

    def test_a_service_that_takes_none_is_told_apart(self) -> None:
        memory = share(self.driver, 1, self.reserve(self.GRANULE), self.GRANULE)
        worker = WorkerHalf.__new__(WorkerHalf)
        cache = SimpleNamespace(order=None, layers={}, memories=[memory], layout={})
        settings = SimpleNamespace(engine={}, connector={}, socket="/run/service.sock")
        worker.__dict__.update(_cache=cache, _settings=settings, _rank=0)
        client = SimpleNamespace(features=frozenset(), descriptors="", call=lambda *_: {"session": 1})
        with self.assertRaisesRegex(ServiceError, "too old"):
            worker._attach(client)


class DescriptorSocket:
    """What the service's descriptor socket hears: ticket, bytes and descriptor of each packet."""

    def __enter__(self) -> DescriptorSocket:
        self._folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._folder.name, "s.fd")
        self.taken: list[tuple[bytes, int, int]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._socket.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        peer, _ = self._socket.accept()
        with peer:
            while True:
                packet, fds, _, _ = socket.recv_fds(peer, 64, 4)
                if not packet:
                    return
                ticket, size, kind = struct.unpack("<16sQQ", packet)
                assert kind == 1
                self.taken.append((ticket, size, fds[0]))
                peer.send(ticket + struct.pack("<I", 0))


class OrderTest(CudaTest):
    def setUp(self) -> None:
        super().setUp()
        self.order = Order(self.driver, lambda: 0)
        self.addCleanup(self.order.close)

    def test_a_layer_is_over_when_the_stream_has_got_there(self) -> None:
        self.hold()
        self.order.mark(3)
        self.order.mark(4)
        self.assertEqual(self.order.over(), [])
        threading.Timer(0.05, self.library.mooncakeDoubleRelease).start()
        self.assertEqual(self.order.next(), 3)
        self.assertEqual(self.order.next(), 4)
        self.assertIsNone(self.order.next())

    def test_a_step_begins_behind_all_that_was_given(self) -> None:
        self.hold()
        done = threading.Event()
        released = []

        def release() -> None:
            released.append(done.is_set())
            self.library.mooncakeDoubleRelease()

        threading.Timer(0.05, release).start()
        self.assertIsNone(self.order.begin())
        done.set()
        self.assertEqual(released, [False])

    def test_a_step_forgets_the_marks_of_the_last(self) -> None:
        self.order.mark(1)
        self.order.begin()
        self.assertEqual(self.order.over(), [])
        self.assertIsNone(self.order.next())

    def test_shared_events_are_numbered_and_nobody_waits_here(self) -> None:
        handles = self.order.export([3, 5])
        self.assertEqual([len(handle) for handle in handles], [64, 64, 64])
        self.assertEqual(len(set(handles)), 3)
        self.order.shared = True
        self.hold()
        self.assertEqual((self.order.begin(), self.order.mark(3), self.order.mark(5)), (0, 1, 2))
        self.assertEqual(self.order.over(), [])
        self.assertIsNone(self.order.next())


class WorkerTest(CudaTest):
    """What the service hears of a step of an engine on a GPU, and when."""

    def setUp(self) -> None:
        super().setUp()
        self.heard: list[tuple[str, Any]] = []
        self.worker = WorkerHalf.__new__(WorkerHalf)
        order = Order(self.driver, lambda: 0)
        self.addCleanup(order.close)
        layers = {f"layers.{layer}.attn": layer for layer in range(3)}
        cache = SimpleNamespace(order=order, layers=layers, memories=[], block_bytes=[1])
        link = SimpleNamespace(
            up=True,
            call=self.call,
            send=lambda op, **args: self.heard.append((op, (args["layer"], args["after"]) if "after" in args else args["layer"])),
        )
        self.worker.__dict__.update(_cache=cache, _link=link, _layer_saves=True, _layer_loads=False, _step=None)

    def call(self, op: str, timeout: float, **args: Any) -> Any:
        self.heard.append((op, args.get("after")))
        return {"loads": False, "saves": True}

    def test_layers_are_announced_when_the_gpu_has_written_them(self) -> None:
        self.hold()
        for layer in range(3):
            self.worker.layer_saved(f"layers.{layer}.attn")
        self.assertEqual(self.heard, [])
        threading.Timer(0.05, self.library.mooncakeDoubleRelease).start()
        self.worker.end()
        self.assertEqual(
            self.heard,
            [("worker.layerSaved", 0), ("worker.layerSaved", 1), ("worker.layerSaved", 2), ("worker.saved", None)],
        )

    def test_a_step_begins_when_the_last_one_is_over(self) -> None:
        self.worker.__dict__.update(_lost=False, _pending={}, _sending=set())
        self.hold()
        begun: list[float] = []
        threading.Timer(0.05, lambda: (begun.append(time.monotonic()), self.library.mooncakeDoubleRelease())).start()
        step = StepMetadata(meta=b"")
        self.worker.begin(step)
        self.assertEqual(len(begun), 1, "the service was asked before the GPU had ended")
        self.assertEqual(self.heard, [("worker.step", None)])

    def test_a_service_that_waits_itself_is_told_for_what_at_once(self) -> None:
        self.worker.__dict__.update(_lost=False, _pending={}, _sending=set(), _event_handles=[])
        order = self.worker._cache.order
        order.export([0, 1, 2])
        order.shared = True
        self.hold()
        self.worker.begin(StepMetadata(meta=b""))
        for layer in range(3):
            self.worker.layer_saved(f"layers.{layer}.attn")
        self.worker.end()
        layers = [("worker.layerSaved", (layer, layer + 1)) for layer in range(3)]
        self.assertEqual(self.heard, [("worker.step", 0), *layers, ("worker.saved", None)])

    def test_events_go_to_a_service_that_takes_them(self) -> None:
        self.worker._event_handles = [b"step", b"layer"]
        memory = share(self.driver, 1, self.allocate(MIB), MIB)
        self.worker._cache.memories = [memory]
        for features, expected in ((frozenset(), False), (frozenset({"gpu-events"}), True)):
            said = self.worker._events(SimpleNamespace(features=features))
            self.assertEqual(self.worker._cache.order.shared, expected)
            events = {"events": {"device": OTHER_GPU, "handles": [b"step", b"layer"]}}
            self.assertEqual(said, events if expected else {})
