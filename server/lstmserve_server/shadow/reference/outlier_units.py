"""Finds outlier units: off by a little, consistently, and far more than their neighbors. A single wrong weight shows like this.

Rounding moves all units of a layer alike, each in proportion to the size of its sums. A wrong weight moves one unit, always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lstmserve_server.model.types import Array

_STEPS: Final = 100  # row-steps before anything is said
_MOST_STEPS: Final = 10_000  # then the tally starts again, so that what is good for long does not hide what goes wrong
_UNITS: Final = 4  # fewer have no middle to speak of
_TIMES: Final = 10.0  # of the middle
_LEAST: Final = (
    0.1  # of what rounding can do to the sums: what is less is rounding, even where all neighbors are saturated
)
_LEAST_EPS: Final = 2.5  # and the same in units of rounding of the number itself


@dataclass(frozen=True, slots=True)
class Outlier:
    """An outlier unit."""

    unit: int
    rms: float
    ratio_to_median: float
    steps: int


class UnitStats:
    """Differences of all units of one array of a layer, over many calls."""

    def __init__(self, units: int, eps: float) -> None:
        self._eps = eps
        self._units = units
        self._begin()

    def _begin(self) -> None:
        self._steps = 0
        self._squares, self._in_roundings = np.zeros(self._units), np.zeros(self._units)

    def add(self, differences: Array, roundings: Array) -> list[Outlier]:
        """Adds the steps of a call, and returns the outlier units, the strongest first.

        Args:
            differences: (steps, units), relative to max(1, |value|).
            roundings: (steps, units), what rounding can do to each.
        """
        kept = np.isfinite(differences).all(axis=1)
        differences, roundings = differences[kept].astype(np.float64), roundings[kept]
        self._steps += len(differences)
        self._squares += np.square(differences).sum(axis=0)
        self._in_roundings += np.square(differences / roundings).sum(axis=0)
        if self._steps < _STEPS or self._units < _UNITS:
            return []
        odd = self._outliers()
        if odd or self._steps >= _MOST_STEPS:
            self._begin()
        return odd

    def _outliers(self) -> list[Outlier]:
        rms, relative = (np.sqrt(sums / self._steps) for sums in (self._squares, self._in_roundings))
        middle = max(float(np.median(relative)), np.finfo(np.float64).tiny)
        least = np.maximum(_TIMES * middle, _LEAST)
        odd = np.flatnonzero((relative > least) & (rms > _LEAST_EPS * self._eps))
        found = [Outlier(int(u), float(rms[u]), float(relative[u] / middle), self._steps) for u in odd]
        return sorted(found, key=lambda unit: -unit.ratio_to_median)
