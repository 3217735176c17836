"""Counters and histograms that cost next to nothing to update.

Those of prometheus_client take a lock for each update, which costs a short call a tenth of its time: docs/decisions/metrics.md.
These are updated by the thread of the event loop alone, and converted when Prometheus asks. Another thread may see one of them
updated and a related one not yet.
"""

from __future__ import annotations

import collections
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString


class Counter:
    """A counter with labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._counts: collections.Counter[tuple[str, ...]] = (
            collections.Counter() if labels else collections.Counter({(): 0})
        )

    def add(self, *labels: str, count: int = 1) -> None:
        """Increments the counter for some label values."""
        self._counts[labels] += count

    def collect(self) -> Iterator[Metric]:
        """Yields the metric, as Prometheus asks for it."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in self._counts.copy().items():
            family.add_metric(labels, count)
        yield family


class Histogram:
    """A histogram of one series."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Records a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Returns the cumulative count of values up to each bound, and the sum of all values."""
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True)), self._sum


class HistogramFamily:
    """Histograms with the same bounds, one for each value of a label; with no label, one."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], label: str = "") -> None:
        self._name, self._text, self._bounds, self._label = name, text, bounds, label
        self._made: dict[str, Histogram] = {}

    def labels(self, value: str = "") -> Histogram:
        """Returns the histogram of a value of the label."""
        return self._made.setdefault(value, Histogram(self._bounds))

    def collect(self) -> Iterator[Metric]:
        """Yields the metric, as Prometheus asks for it."""
        family = HistogramMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])
        for value, spread in self._made.copy().items():
            buckets, total = spread.buckets()
            family.add_metric([value] if self._label else [], buckets, total)
        yield family
