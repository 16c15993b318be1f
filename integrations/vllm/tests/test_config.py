"""What a --kv-transfer-config becomes for the service, and what is refused with which words."""

from __future__ import annotations

import os
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

from mooncake_ts_vllm import config

from .support import BLOCK, cache_config, full_group


def vllm_config(role: str = "kv_both", extra: dict[str, Any] | None = None, events: bool = False, **more: Any) -> Any:
    parallel = {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "decode_context_parallel_size": 1,
        "prefill_context_parallel_size": 1,
        "data_parallel_index": 3,
    }
    model = {"model": "org/Model/", "revision": None, "quantization": None, "hf_overrides": {}, "dtype": "bfloat16"}
    cache = {"prefix_caching_hash_algo": "sha256", "block_size": BLOCK}
    for part in (parallel, model, cache):
        part.update({name: value for name, value in more.items() if name in part})
    return SimpleNamespace(
        kv_transfer_config=SimpleNamespace(
            kv_role=role,
            engine_id="engine_dp3",
            kv_connector_extra_config=extra or {},
            is_kv_producer=role != "kv_consumer",
        ),
        parallel_config=SimpleNamespace(**parallel),
        model_config=SimpleNamespace(**model),
        cache_config=SimpleNamespace(**cache),
        kv_events_config=SimpleNamespace(enable_kv_cache_events=True) if events else None,
    )


def read(kind: str = "store", *args: Any, groups: int = 1, **more: Any) -> config.Settings:
    made = [full_group(f"group{chr(97 + group)}") for group in range(groups)]
    return config.read(vllm_config(*args, **more), cache_config(*made), kind)


@mock.patch.dict(os.environ, {"PYTHONHASHSEED": "7"})
class ConfigTest(unittest.TestCase):
    def test_the_engine(self) -> None:
        engine = read("store", "kv_consumer").engine
        self.assertRegex(engine.pop("model"), r"^org/Model#[0-9a-f]{12}$")
        self.assertEqual(
            engine,
            {
                "engineId": "engine_dp3",
                "role": "consumer",
                "hash": {"algorithm": "sha256", "blockSize": BLOCK, "seed": "7"},
                "tensorParallelSize": 2,
            },
        )

    def test_what_changes_the_kv_changes_the_model(self) -> None:
        variants = [{}, {"revision": "r"}, {"quantization": "fp8"}, {"dtype": "float16"}, {"hf_overrides": {"rope": 1}}]
        names = {read("store", "kv_both", None, **variant).engine["model"] for variant in variants}
        self.assertEqual(len(names), len(variants))
        self.assertEqual(read("store", "kv_both", {"mooncake_ts_model": "mine"}).engine["model"], "mine")

    def test_stock_keys_have_the_stock_name(self) -> None:
        self.assertEqual(read("store", "kv_both", {"integrity": "stock"}).engine["model"], "Model")

    def test_the_store_connector(self) -> None:
        extra = {"integrity": "strict", "load_async": False, "cache_prefix": "p", "prefill_tp_sizes": [1, 2]}
        self.assertEqual(
            read("store", "kv_both", {**extra, "mooncake_ts_service": "/s"}).connector,
            {
                "kind": "store",
                "integrity": "strict",
                "loadAsync": False,
                "prefix": "p",
                "peerTensorParallelSizes": [1, 2],
            },
        )

    def test_the_guides_keys_of_the_prefill(self) -> None:
        extra = {"num_workers": 4, "mooncake_protocol": "rdma"}
        with mock.patch.dict(os.environ, {"VLLM_MOONCAKE_ABORT_REQUEST_TIMEOUT": "9"}):
            with self.assertNoLogs("vllm.mooncake_ts_vllm"):
                connector = read("mooncake", "kv_producer", extra).connector
        # Each data-parallel rank has ports of its own.
        port = config.DEFAULT_BOOTSTRAP_PORT + 3 * 2
        self.assertEqual(
            connector, {"kind": "mooncake", "maxConcurrentMoves": 4, "abortTimeoutMs": 9000, "bootstrapPort": port}
        )
        with mock.patch.dict(os.environ, {"VLLM_MOONCAKE_BOOTSTRAP_PORT": "57198"}):
            self.assertEqual(read("mooncake", "kv_producer").connector["bootstrapPort"], 57204)
        self.assertNotIn("bootstrapPort", read("mooncake", "kv_consumer").connector)

    def test_multi(self) -> None:
        children = [
            {"kv_connector": "MooncakeConnector", "kv_role": "kv_producer", "kv_connector_extra_config": {"mode": "push"}},
            {"kv_connector": "MooncakeStoreConnector", "kv_role": "kv_producer"},
        ]
        settings = read("multi", "kv_producer", {"connectors": children})
        kinds = [(part["kind"], part.get("mode")) for part in settings.connector["connectors"]]
        self.assertEqual(kinds, [("mooncake", "push"), ("store", None)])
        self.assertTrue(settings.hands_over)
        self.assertFalse(read("store", "kv_producer").hands_over)

    def test_what_does_not_fit_is_named(self) -> None:
        other = {"connectors": [{"kv_connector": "MooncakeConnector", "kv_role": "kv_both"}]}
        cases: list[tuple[str, Any, Any, dict[str, Any], str]] = [
            ("multi", "kv_both", {}, {}, "connectors must list"),
            ("multi", "kv_both", {"connectors": [{"kv_connector": "Nixl"}]}, {}, "'Nixl', must be one of"),
            ("multi", "kv_producer", other, {}, "kv_role kv_both, the engine kv_producer"),
            ("store", "kv_both", {}, {"pipeline_parallel_size": 2}, "pipeline_parallel_size = 2"),
            ("store", "kv_both", {"load_async": False}, {"groups": 2}, "load_async = false"),
        ]
        for kind, role, extra, more, message in cases:
            with self.subTest(message), self.assertRaisesRegex(ValueError, message):
                read(kind, role, extra, **more)

    def test_hashes_that_differ_in_every_process_are_refused(self) -> None:
        with mock.patch.dict(os.environ):
            del os.environ["PYTHONHASHSEED"]
            with self.assertRaisesRegex(ValueError, "PYTHONHASHSEED"):
                read("store", "kv_both", None, prefix_caching_hash_algo="xxhash")
            self.assertIsNone(read("store").engine["hash"]["seed"])

    def test_keys_that_mean_nothing_are_said_once(self) -> None:
        with self.assertLogs("vllm.mooncake_ts_vllm", "WARNING") as logs:
            read("store", "kv_both", {"load_asinc": True})
        self.assertIn("load_asinc", logs.output[0])

    def test_versions(self) -> None:
        config.check_version("0.32.0")
        config.check_version("0.32.7+cpu")
        for version in ("0.31.9", "0.33.0", "0.3.2", "1.0.0"):
            with self.subTest(version), self.assertRaisesRegex(ImportError, f"0.32.*this is vLLM {version}"):
                config.check_version(version)


if __name__ == "__main__":
    unittest.main()
