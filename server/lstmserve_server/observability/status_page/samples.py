"""Prometheus samples by name and label; any may be absent, and each may exist once per worker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from prometheus_client import Metric

Sample = tuple[Mapping[str, str], float]
"""The labels of a sample, and its value."""

Buckets = list[tuple[float | None, float]]
"""How many observations were up to each bound, in order; the last bound is None: no bound."""


class Samples:
    """Samples of one scrape. Only finite values count, as JSON has no others."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        self._by_label: dict[tuple[str, str], dict[str, list[Sample]]] = {}
        for family in families:
            for sample in family.samples:
                if math.isfinite(sample.value):
                    self._by_name.setdefault(sample.name, []).append((sample.labels, float(sample.value)))

    def of(self, name: str, **wanted: str) -> list[Sample]:
        """Returns the samples of a metric whose labels have these values."""
        found = self._by_name.get(name, [])
        for number, (label, text) in enumerate(wanted.items()):
            if number == 0:
                found = self._sorted(name, label).get(text, [])
            else:
                found = [sample for sample in found if sample[0].get(label) == text]
        return found

    def _sorted(self, name: str, label: str) -> dict[str, list[Sample]]:
        """Returns the samples of a metric by a label: there may be thousands, and each model is asked for in turn."""
        key = name, label
        if key not in self._by_label:
            self._by_label[key] = {}
            for sample in self._by_name.get(name, []):
                if label in sample[0]:
                    self._by_label[key].setdefault(sample[0][label], []).append(sample)
        return self._by_label[key]

    def total(self, name: str, **wanted: str) -> float | None:
        """Returns the sum; None where there is no such sample."""
        values = [value for _, value in self.of(name, **wanted)]
        return sum(values) if values else None

    def largest(self, name: str, **wanted: str) -> float | None:
        """Returns the largest value; None where there is no such sample."""
        return max((value for _, value in self.of(name, **wanted)), default=None)

    def smallest(self, name: str, **wanted: str) -> float | None:
        """Returns the smallest value; None where there is no such sample."""
        return min((value for _, value in self.of(name, **wanted)), default=None)

    def by(self, name: str, label: str, **wanted: str) -> dict[str, float]:
        """Returns the sum for each value of a label, in order of first appearance; samples without the label are skipped."""
        sums: dict[str, float] = {}
        for labels, value in self.of(name, **wanted):
            if label in labels:
                sums[labels[label]] = sums.get(labels[label], 0.0) + value
        return sums

    def labels(self, label: str, *names: str) -> list[str]:
        """Returns the values that a label has in these metrics, in order of first appearance; in all metrics, if none is named."""
        samples = (sample for name in names or self._by_name for sample in self._by_name.get(name, []))
        return list(dict.fromkeys(labels[label] for labels, _ in samples if label in labels))

    def buckets(self, name: str, **wanted: str) -> Buckets:
        """Returns a histogram, summed over all other labels; empty if there is none."""
        counts = self.by(f"{name}_bucket", "le", **wanted)
        ordered = sorted((float(bound), count) for bound, count in counts.items())
        return [(bound if math.isfinite(bound) else None, count) for bound, count in ordered]


def quantile(buckets: Buckets, share: float) -> float | None:
    """Estimates a quantile of a histogram as Prometheus does, evenly spread within a bucket; the page does the same.

    Returns:
        None where nothing was observed; the last bound for what is above it.
    """
    rank = share * buckets[-1][1] if buckets else 0.0
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if bound is None:
            break
        if count >= rank > 0:
            return low + (bound - low) * (rank - below) / (count - below)
        low, below = bound, count
    return low if rank > 0 else None
