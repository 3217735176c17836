"""Compares two arrays: how far they differ, in how many numbers, where first, and how much of it is rounding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from lstmserve.v1 import shadow_pb2
from lstmserve_server.model.types import Array

ARRAY_KINDS: Final = {
    "h": shadow_pb2.ARRAY_KIND_H,
    "c": shadow_pb2.ARRAY_KIND_C,
    "output": shadow_pb2.ARRAY_KIND_OUTPUT,
}
_DECADES: Final = range(-12, 3)  # of the bounds of `DifferenceStats.difference_histogram`
_POWERS: Final = 31  # of the bounds of `DifferenceStats.ulp_histogram`, beginning with 1
_LARGEST: Final = 2**63 - 1  # number of the contract
_SINGLE: Final = np.finfo(np.float32).eps


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Tolerances: |ours - reference| <= tolerance * max(1, |reference|). Given for float32."""

    h: float = 1e-5
    c: float = 1e-5
    unbounded: float = 1e-3
    """Of both, in a layer whose activation has no bound."""

    def message(self) -> shadow_pb2.Tolerances:
        """Returns them as clients get them."""
        return shadow_pb2.Tolerances(h=self.h, c=self.c, unbounded=self.unbounded)

    def of(self, array: str, dtype: np.dtype[Any], *, bounded: bool) -> float:
        """Returns the tolerance of "h", "c" or "output" in a type of numbers."""
        tolerance = (self.c if array == "c" else self.h) if bounded else self.unbounded
        return tolerance * float(np.finfo(dtype).eps / _SINGLE)


_SENSITIVE: Final = 100
"""Times that two right models may be as far apart as one is from itself: their rounding is not that of one step and one weight."""


def wired_alike(reference_model: shadow_pb2.ReferenceModel, tolerances: Tolerances) -> bool:
    """Returns whether the whole model of a file answers its probe as ours does, as far as its sensitivity lets it."""
    allowed = max(tolerances.unbounded, _SENSITIVE * reference_model.whole_model_sensitivity)
    return not reference_model.whole_model_difference > allowed


class Spot(NamedTuple):
    """A number over tolerance."""

    step: int
    place: int
    """Of the layer in the model."""

    array: str
    row: int
    unit: int
    tolerance_ratio: float
    ours: float
    reference: float

    @property
    def order(self) -> tuple[int, int, int, float]:
        """Sort key: the earlier step, the earlier layer, c before the h computed from it, the larger tolerance ratio."""
        return (self.step, self.place, "ch".find(self.array) % 3, -self.tolerance_ratio)


@dataclass(slots=True)
class Differences:
    """Differences of one array of a layer, over a whole call."""

    layer: str
    array: str
    values: int = 0
    max_absolute: float = 0.0
    sum_absolute: float = 0.0
    max_relative: float = 0.0
    sum_relative: float = 0.0
    max_scaled: float = 0.0
    """The largest difference relative to max(1, |reference|), as the noise floor is measured."""
    max_ulp: int = 0
    tolerance_ratio: float = 0.0
    over_tolerance_count: int = 0
    nan_mismatches: int = 0
    infinity_mismatches: int = 0
    by_difference: Array = field(default_factory=lambda: np.zeros(len(_DECADES) + 2, np.int64))
    by_ulp: Array = field(default_factory=lambda: np.zeros(_POWERS + 2, np.int64))

    def add(self, ours: Array, reference: Array, tolerance: float, rounding: Array | float = 0.0) -> Array:
        """Adds numbers.

        Args:
            ours: any shape.
            reference: the same shape and type.
            tolerance: see `Tolerances`.
            rounding: what rounding alone can do; broadcast to the shape.

        Returns:
            The part of the tolerance that each number took, of the same shape: over 1 is over tolerance; infinity where one side
            alone is NaN or infinite.
        """
        theirs = reference.astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            absolute = np.abs(ours.astype(np.float64) - theirs)
            size = np.abs(theirs)
            allowed = np.maximum(tolerance * np.maximum(1, size), rounding)
            tolerance_ratios = absolute / allowed
        odd_nan = np.isnan(ours) != np.isnan(reference)
        odd_infinity = (np.isinf(ours) | np.isinf(reference)) & (ours != reference) & ~odd_nan
        same = ours == reference
        plain = np.isfinite(ours) & np.isfinite(reference)
        absolute[same] = tolerance_ratios[same] = 0  # infinity minus infinity is none
        tolerance_ratios[odd_nan | odd_infinity] = np.inf
        tolerance_ratios[np.isnan(ours) & np.isnan(reference)] = 0
        self.values += ours.size
        self.nan_mismatches += int(odd_nan.sum())
        self.infinity_mismatches += int(odd_infinity.sum())
        self.over_tolerance_count += int((tolerance_ratios > 1).sum())
        self.tolerance_ratio = max(self.tolerance_ratio, float(tolerance_ratios.max(initial=0)))
        self._measure(absolute[plain], size[plain], ulp_distance(ours[plain], reference[plain]))
        return tolerance_ratios

    def _measure(self, absolute: Array, size: Array, ulp: Array) -> None:
        relative = np.divide(absolute, size, out=np.zeros_like(absolute), where=size > 0)
        self.max_absolute = max(self.max_absolute, float(absolute.max(initial=0)))
        self.sum_absolute += float(absolute.sum())
        self.max_relative = max(self.max_relative, float(relative.max(initial=0)))
        self.sum_relative += float(relative.sum())
        self.max_scaled = max(self.max_scaled, float((absolute / np.maximum(1, size)).max(initial=0)))
        self.max_ulp = max(self.max_ulp, min(int(ulp.max(initial=0)), _LARGEST))
        bounds = [np.nextafter(0, 1), *(10.0**power for power in _DECADES)]
        self.by_difference += np.bincount(np.searchsorted(bounds, absolute, "right"), minlength=len(bounds) + 1)
        powers = np.array([2**power for power in range(_POWERS + 1)], np.uint64)
        self.by_ulp += np.bincount(np.searchsorted(powers, ulp, "right"), minlength=len(powers) + 1)

    def message(self) -> shadow_pb2.DifferenceStats:
        """Returns them as clients get them."""
        count = max(1, self.values)
        return shadow_pb2.DifferenceStats(
            layer=self.layer,
            array=ARRAY_KINDS[self.array],
            value_count=self.values,
            max_absolute=self.max_absolute,
            mean_absolute=self.sum_absolute / count,
            max_relative=self.max_relative,
            mean_relative=self.sum_relative / count,
            max_ulp=self.max_ulp,
            tolerance_ratio=self.tolerance_ratio,
            over_tolerance_count=self.over_tolerance_count,
            nan_mismatch_count=self.nan_mismatches,
            infinity_mismatch_count=self.infinity_mismatches,
            difference_histogram=self.by_difference.tolist(),
            ulp_histogram=self.by_ulp.tolist(),
        )


def ulp_distance(a: Array, b: Array) -> Array:
    """Returns the distance of two finite floats of one dtype in units in the last place; 0 if they are equal.

    The bits of a float, read as an integer, count the positive floats upwards and the negative floats downwards. `_on_line` maps
    both to one integer scale, on which -0 and 0 coincide.
    """
    return np.where(_on_line(a) > _on_line(b), _on_line(a) - _on_line(b), _on_line(b) - _on_line(a)).astype(np.uint64)


def _on_line(values: Array) -> Array:
    whole: Array = np.ascontiguousarray(values).view(np.int32 if values.dtype.itemsize == 4 else np.int64)  # noqa: PLR2004
    whole = whole.astype(np.int64)
    lowest = -(2**31) if values.dtype.itemsize == 4 else np.iinfo(np.int64).min  # noqa: PLR2004 - bytes of float32
    return np.where(whole < 0, lowest - whole, whole)


def merge(total: shadow_pb2.DifferenceStats, more: shadow_pb2.DifferenceStats) -> None:
    """Adds the differences of another call to those of many."""
    count = total.value_count + more.value_count
    for name in ("absolute", "relative"):
        mean, largest = f"mean_{name}", f"max_{name}"
        summed = getattr(total, mean) * total.value_count + getattr(more, mean) * more.value_count
        setattr(total, mean, summed / max(1, count))
        setattr(total, largest, max(getattr(total, largest), getattr(more, largest)))
    for name in ("max_ulp", "tolerance_ratio"):
        setattr(total, name, max(getattr(total, name), getattr(more, name)))
    for kind in ("value", "over_tolerance", "nan_mismatch", "infinity_mismatch", "ours_closer", "reference_closer"):
        name = f"{kind}_count"
        setattr(total, name, getattr(total, name) + getattr(more, name))
    for name in ("difference_histogram", "ulp_histogram"):
        counts, added = getattr(total, name), getattr(more, name)
        counts.extend([0] * (len(added) - len(counts)))
        for i, count in enumerate(added):
            counts[i] += count
