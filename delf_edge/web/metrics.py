"""Counters in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping
from pathlib import Path

BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)  # seconds


class Metrics:
    """What the service has done so far; from the event loop's thread only."""

    def __init__(self) -> None:
        self.requests: collections.Counter[tuple[str, str, int]] = collections.Counter()
        self.answers: collections.Counter[str] = collections.Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one answered photo."""
        self._buckets[next((i for i, limit in enumerate(BUCKETS) if seconds <= limit), len(BUCKETS))] += 1
        self._seconds += seconds

    def text(self, gauges: Mapping[str, tuple[str, float]], events: Mapping[str, int]) -> str:
        """All metrics; `gauges`: name -> (help, value)."""
        lines = _family("delf_edge_requests_total", "counter", "Requests by route, method and status.")
        lines += [
            f'delf_edge_requests_total{{route="{route}",method="{method}",status="{status}"}} {n}'
            for (route, method, status), n in sorted(self.requests.items())
        ]
        lines += _family("delf_edge_answers_total", "counter", "Identified photos by outcome.")
        lines += [f'delf_edge_answers_total{{outcome="{name}"}} {n}' for name, n in sorted(self.answers.items())]
        lines += _family("delf_edge_events_total", "counter", "Published events by kind.")
        lines += [f'delf_edge_events_total{{kind="{name}"}} {n}' for name, n in sorted(events.items())]
        lines += _family("delf_edge_identify_seconds", "histogram", "Seconds per identified photo, queueing included.")
        total = 0
        for limit, n in zip([*map(str, BUCKETS), "+Inf"], self._buckets, strict=True):
            total += n
            lines.append(f'delf_edge_identify_seconds_bucket{{le="{limit}"}} {total}')
        lines += [f"delf_edge_identify_seconds_sum {self._seconds:.6f}", f"delf_edge_identify_seconds_count {total}"]
        for name, (text, value) in gauges.items():
            lines += [*_family(name, "gauge", text), f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> int:
    """Bytes of RAM that this process holds; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
