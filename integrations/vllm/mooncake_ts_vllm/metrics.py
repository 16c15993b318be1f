"""What the connectors tell vLLM's log line and /metrics of themselves.

`loads` holds one row per load and rank (loads within a step together): bytes, seconds, 1 if it failed. `shares` holds, per request that loaded, the part
of its time to first token that the load took. `counters` are the service's, as in docs/connectors.md, since the last time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

# How often the scheduler half asks for its counters.
COUNTERS_SECONDS = 5.0


@dataclass
class TransferStats(KVConnectorStats):
    """Plain data, added up over ranks and steps by vLLM."""

    def __post_init__(self) -> None:
        if not self.data:
            self.reset()

    def reset(self) -> None:
        self.data = {"loads": [], "shares": [], "calls": [], "counters": {}}

    def is_empty(self) -> bool:
        return not any(self.data.values())

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        for name in ("loads", "shares", "calls"):
            self.data[name] = self.data[name] + other.data[name]
        counters = dict(self.data["counters"])
        for name, value in other.data["counters"].items():
            counters[name] = counters.get(name, 0) + value
        self.data["counters"] = counters
        return self

    def reduce(self) -> dict[str, int | float]:
        """One line of the log. GB are 1e9 bytes."""
        good = [(size, seconds) for size, seconds, failed in self.data["loads"] if not failed]
        line: dict[str, int | float] = {"Loads": len(good), "Failed loads": len(self.data["loads"]) - len(good)}
        if good:
            size, seconds = sum(size for size, _ in good), sum(seconds for _, seconds in good)
            line["Avg MB per load"] = round(size / len(good) / 1e6, 3)
            line["Avg load ms"] = round(1000 * seconds / len(good), 3)
            line["GB/s"] = round(size / seconds / 1e9, 3) if seconds > 0 else 0.0
        if self.data["shares"]:
            line["Avg share of TTFT (%)"] = round(100 * sum(self.data["shares"]) / len(self.data["shares"]), 1)
        if self.data["calls"]:
            calls = sorted(self.data["calls"])
            line["Median scheduler call (us)"] = round(1e6 * calls[len(calls) // 2], 1)
        for name in sorted(self.data["counters"]):
            line[name] = self.data["counters"][name]
        return line


class _Counters:
    """Counters of the service, as what was added since the last look. A restarted service begins at zero again."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def added(self, now: dict[str, float]) -> dict[str, float]:
        changes = {name: value - self._last.get(name, 0) for name, value in now.items()}
        changes = {name: now[name] if change < 0 else change for name, change in changes.items() if change != 0}
        self._last = dict(now)
        return changes


class WorkerMetrics:
    def __init__(self) -> None:
        self._stats = TransferStats()
        self._counters = _Counters()

    def load_ended(self, size: int, seconds: float, failed: bool) -> None:
        self._stats.data["loads"].append([size, seconds, int(failed)])

    def counters(self, now: dict[str, float]) -> None:
        _add(self._stats.data["counters"], self._counters.added(now))

    def take(self) -> TransferStats | None:
        taken, self._stats = self._stats, TransferStats()
        return None if taken.is_empty() else taken


class SchedulerMetrics:
    # Enough for a median between two log lines of vLLM's.
    MAX_CALLS = 4096

    def __init__(self) -> None:
        self._stats = TransferStats()
        self._counters = _Counters()
        self._asked = 0.0
        # By request: when it arrived, when its load began, and what the load took. Wall clock, as vLLM's arrival times.
        self._loads: dict[str, tuple[float, float, float | None]] = {}

    def load_began(self, request: str, arrived: float) -> None:
        self._loads[request] = (arrived, time.time(), None)

    def load_ended(self, request: str, failed: bool) -> None:
        load = self._loads.pop(request, None)
        if load is not None and not failed:
            self._loads[request] = (load[0], load[1], time.time() - load[1])

    def first_tokens(self, requests: Iterable[str]) -> None:
        """These have their first token."""
        for request in requests:
            load = self._loads.pop(request, None)
            if load is not None and load[2] is not None:
                self._stats.data["shares"].append(min(1.0, load[2] / max(1e-6, time.time() - load[0])))

    def loaded(self) -> list[str]:
        """Requests that have loaded and not yet given a token, as far as known."""
        return [request for request, load in self._loads.items() if load[2] is not None]

    def ended(self, request: str) -> None:
        self._loads.pop(request, None)

    def called(self, seconds: float) -> None:
        if len(self._stats.data["calls"]) < self.MAX_CALLS:
            self._stats.data["calls"].append(seconds)

    def due(self) -> bool:
        """Whether it is time to ask for the counters."""
        now = time.monotonic()
        if now - self._asked < COUNTERS_SECONDS:
            return False
        self._asked = now
        return True

    def counters(self, now: dict[str, float]) -> None:
        _add(self._stats.data["counters"], self._counters.added(now))

    def take(self) -> TransferStats | None:
        # Calls alone are no news: they would send an object through the engine with every step.
        data = self._stats.data
        if not (data["loads"] or data["shares"] or data["counters"]) and len(data["calls"]) < self.MAX_CALLS:
            return None
        taken, self._stats = self._stats, TransferStats()
        return taken


def _add(counters: dict[str, Any], changes: dict[str, float]) -> None:
    for name, value in changes.items():
        counters[name] = counters.get(name, 0) + value


class TransferPromMetrics(KVConnectorPromMetrics):
    """The same on /metrics, with vLLM's labels."""

    def __init__(self, vllm_config: Any, metric_types: Any, labelnames: Any, per_engine_labelvalues: Any) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        seconds = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
        sizes = [10.0**power for power in range(4, 12)]
        shares = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1]
        self._seconds = self._of(self._histogram_cls, "load_seconds", "Time a KV load took.", buckets=seconds)
        self._bytes = self._of(self._histogram_cls, "load_bytes", "Bytes of a KV load.", buckets=sizes)
        self._failed = self._of(self._counter_cls, "failed_loads", "KV loads that failed and were computed.")
        self._shares = self._of(
            self._histogram_cls, "load_ttft_share", "Part of the time to first token that the KV load took.", buckets=shares
        )
        self._calls = self._of(
            self._histogram_cls,
            "scheduler_call_seconds",
            "Time of the scheduler's calls to the service.",
            buckets=[5e-5, 1e-4, 1.5e-4, 2e-4, 5e-4, 1e-3, 1e-2, 1e-1, 1],
        )
        name = "vllm:mooncake_ts_events"
        text = "Counters of the mooncake-ts connectors."
        self._events = self._counter_cls(name=name, documentation=text, labelnames=[*labelnames, "event"])

    def _of(self, metric: Any, name: str, text: str, **more: Any) -> dict[int, Any]:
        made = metric(name=f"vllm:mooncake_ts_{name}", documentation=text, labelnames=self._labelnames, **more)
        return {engine: made.labels(*values) for engine, values in self.per_engine_labelvalues.items()}

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        for size, seconds, failed in transfer_stats_data["loads"]:
            if failed:
                self._failed[engine_idx].inc()
            else:
                self._seconds[engine_idx].observe(seconds)
                self._bytes[engine_idx].observe(size)
        for share in transfer_stats_data["shares"]:
            self._shares[engine_idx].observe(share)
        for seconds in transfer_stats_data["calls"]:
            self._calls[engine_idx].observe(seconds)
        for event, value in transfer_stats_data["counters"].items():
            if value > 0:
                self._events.labels(*self.per_engine_labelvalues[engine_idx], event).inc(value)
