"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tulu_jax.serve.runner import Runner

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """Counts and times of requests, with what the runner and the engine count."""

    def __init__(self, runner: Runner) -> None:
        """All counts are zero."""
        self._registry = CollectorRegistry()
        self._registry.register(_EngineNumbers(runner))
        self._requests = Counter(
            "tulu_requests", "Answers by route and status", ["path", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "tulu_request_seconds", "From a request to the end of its answer",
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.first_seconds = Histogram(
            "tulu_first_token_seconds", "From a request that streams to its first piece",
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip

    def count_request(self, path: str, status: int) -> None:
        """Notes an answer, by the path of its route."""
        self._requests.labels(path, str(status)).inc()

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineNumbers(Collector):
    """What the runner and the engine count, looked up when asked for."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def collect(self) -> Iterator[Metric]:
        runner = self._runner
        stats, busy = runner.engine.stats, runner.busy_slots
        waiting = max(0, runner.pending - busy)
        yield GaugeMetricFamily("tulu_queue", "Requests that wait for a slot", waiting)
        yield GaugeMetricFamily("tulu_queue_limit", "As many may wait", runner.max_queue)
        yield GaugeMetricFamily("tulu_busy_slots", "Slots with a request", busy)
        yield GaugeMetricFamily("tulu_slots", "Slots", runner.slots)
        rate = runner.tokens_per_second()
        yield GaugeMetricFamily("tulu_tokens_per_second", "Tokens made, of late", rate)
        counts = {
            "tulu_generated_tokens": ("Tokens made", stats.decoded_tokens),
            "tulu_prompt_tokens": ("Tokens of prompts", stats.prompt_tokens),
            "tulu_shared_prompt_tokens": ("Those that a slot held already", stats.shared_tokens),
            "tulu_dispatches": ("Calls of the device that make tokens", stats.dispatches),
            "tulu_engine_failures": ("Times that the engine failed", runner.failures),
        }
        for name, (text, count) in counts.items():
            yield CounterMetricFamily(name, text, count)
