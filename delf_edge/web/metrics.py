"""What the service counts and measures, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # seconds


class Metrics:
    """The counters of one service, and whatever else it shows.

    Attributes:
        requests: by route, method and status.
        answers: identified photos by outcome.
        seconds: per identified photo, queueing included.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "delf_edge_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self.answers = Counter(
            "delf_edge_answers", "Identified photos by outcome.", ["outcome"], registry=self._registry
        )
        self.seconds = Histogram(
            "delf_edge_identify_seconds",
            "Seconds per identified photo, queueing included.",
            buckets=BUCKETS,
            registry=self._registry,
        )

    def add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A value that is asked for whenever the metrics are."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def add_counts(self, name: str, text: str, label: str, counts: Mapping[str, int]) -> None:
        """A counter that somebody else keeps: label's value -> count."""
        self._registry.register(_Counts(name, text, label, counts))

    def text(self) -> str:
        """All of them, in the text format of Prometheus (exposition format 0.0.4)."""
        return generate_latest(self._registry).decode()


class _Counts(Collector):
    def __init__(self, name: str, text: str, label: str, counts: Mapping[str, int]) -> None:
        self._name, self._text, self._label, self._counts = name, text, label, counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._text, labels=[self._label])
        for value, count in sorted(self._counts.items()):
            family.add_metric([value], count)
        yield family
