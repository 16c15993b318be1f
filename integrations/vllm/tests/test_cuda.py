"""The driver's calls by ctypes, against the simulated driver that the accelerator's tests use (native/test/cuda/library.cpp)."""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
import time
import unittest
from types import SimpleNamespace
from typing import Any

from mooncake_ts_vllm.cuda import CudaError, Driver, Order, share
from mooncake_ts_vllm.memory import describe
from mooncake_ts_vllm.metadata import StepMetadata
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
            share(self.driver, 1, base + 1, MIB)
        with self.assertRaisesRegex(CudaError, "cuMemGetAddressRange"):
            share(self.driver, 1, id(self), 8)
        with self.assertRaisesRegex(CudaError, "cuIpcGetMemHandle"):
            self.driver.handle(base + 1)

    def test_a_machine_without_a_driver_says_so(self) -> None:
        with self.assertRaises(CudaError):
            Driver("/nowhere/libcuda.so.1")


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

    def test_waiting_is_for_all_that_was_given(self) -> None:
        self.hold()
        done = threading.Event()
        released = []

        def release() -> None:
            released.append(done.is_set())
            self.library.mooncakeDoubleRelease()

        threading.Timer(0.05, release).start()
        self.order.wait()
        done.set()
        self.assertEqual(released, [False])

    def test_what_is_forgotten_is_told_to_nobody(self) -> None:
        self.order.mark(1)
        self.order.forget()
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
            send=lambda op, **args: self.heard.append((op, args["layer"])),
        )
        self.worker.__dict__.update(_cache=cache, _link=link, _layer_saves=True, _layer_loads=False, _step=None)

    def call(self, op: str, timeout: float, **args: Any) -> Any:
        self.heard.append((op, None))
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
