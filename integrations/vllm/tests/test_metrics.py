"""Statistics of loads: added up over ranks, in a line of the log, and on /metrics."""

from __future__ import annotations

import pickle
import time
import unittest
from unittest import mock

from mooncake_ts_vllm.metrics import SchedulerMetrics, TransferPromMetrics, TransferStats, WorkerMetrics
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class MetricsTest(unittest.TestCase):
    def test_ranks_and_steps_are_added_up(self) -> None:
        ranks = [WorkerMetrics(), WorkerMetrics()]
        for rank in ranks:
            rank.load_ended(2_000_000, 0.001, False)
            rank.counters({"savedBlocks": 3})
        ranks[1].load_ended(500, 1.0, True)
        first, second = (pickle.loads(pickle.dumps(rank.take())) for rank in ranks)
        line = first.aggregate(second).reduce()
        expected = {"Loads": 2, "Failed loads": 1, "Avg MB per load": 2.0, "Avg load ms": 1.0, "GB/s": 2.0, "savedBlocks": 6}
        self.assertEqual(line, expected)
        self.assertIsNone(ranks[0].take())

    def test_counters_are_what_was_added(self) -> None:
        metrics = WorkerMetrics()
        for total, added in ((3, 3), (3, None), (5, 2), (1, 1)):  # The last: another service.
            metrics.counters({"savedBlocks": total})
            stats = metrics.take()
            self.assertEqual(stats and stats.data["counters"]["savedBlocks"], added)

    def test_the_share_of_the_time_to_first_token(self) -> None:
        metrics = SchedulerMetrics()
        with mock.patch.object(time, "time") as clock:
            clock.return_value = 101.0
            for name in ("a", "b", "c"):
                metrics.load_began(name, 100.0)
            clock.return_value = 102.0
            metrics.load_ended("a", False)
            metrics.load_ended("b", True)
            self.assertEqual(metrics.loaded(), ["a"])
            clock.return_value = 104.0
            metrics.first_tokens(["a", "b", "c"])
        stats = metrics.take()
        assert stats is not None
        self.assertEqual(stats.data["shares"], [0.25])

    def test_calls_alone_are_no_news(self) -> None:
        metrics = SchedulerMetrics()
        metrics.called(0.0001)
        self.assertIsNone(metrics.take())
        metrics.counters({"lookups": 1})
        stats = metrics.take()
        assert stats is not None
        self.assertEqual(stats.reduce()["Median scheduler call (us)"], 100.0)

    def test_prometheus(self) -> None:
        registry = CollectorRegistry()
        types = {
            kind: (lambda kind: lambda **options: kind(registry=registry, **options))(kind)
            for kind in (Counter, Gauge, Histogram)
        }
        config = mock.Mock()
        metrics = TransferPromMetrics(config, types, ["model", "engine"], {0: ["m", "0"], 1: ["m", "1"]})
        stats = TransferStats()
        stats.data["loads"] = [[1000, 0.5, 0], [1000, 0.5, 1]]
        stats.data["shares"] = [0.5]
        stats.data["calls"] = [0.0001]
        stats.data["counters"] = {"savedBlocks": 4, "gone": -1}
        metrics.observe(stats.to_dict(), 1)

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"vllm:mooncake_ts_{name}", {"model": "m", "engine": "1", **labels})

        self.assertEqual(value("load_seconds_sum"), 0.5)
        self.assertEqual(value("load_bytes_sum"), 1000)
        self.assertEqual(value("failed_loads_total"), 1)
        self.assertEqual(value("load_ttft_share_sum"), 0.5)
        self.assertEqual(value("scheduler_call_seconds_count"), 1)
        self.assertEqual(value("events_total", event="savedBlocks"), 4)


if __name__ == "__main__":
    unittest.main()
