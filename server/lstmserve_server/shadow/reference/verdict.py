"""Verdict of one comparison: what differs, whether that is an alarm, and the message that says so."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lstmserve.v1 import shadow_pb2
from lstmserve_server.model.types import Array
from lstmserve_server.shadow.compare import ARRAY_KINDS, Differences, Spot, Tolerances
from lstmserve_server.shadow.reference.outlier_units import Outlier


@dataclass(slots=True)
class Findings:
    """Results of comparing one call."""

    totals: dict[tuple[int, int, str], Differences] = field(default_factory=dict)
    """By place of the layer, number of the LSTM in it, and array."""

    closer: dict[tuple[int, int, str], shadow_pb2.Closer] = field(default_factory=dict)
    """Which side was closer to float64 where the difference is largest."""

    first: Spot | None = None
    first_number: int = 0
    first_given: tuple[Array, Array, Array] | None = None
    """x, h and c before the first step over tolerance, one row each; None where it is not an LSTM's."""

    odd: list[tuple[str, str, Outlier]] = field(default_factory=list)
    """Units that are off again and again, each with its layer and array."""

    partial_reasons: set[str] = field(default_factory=set)
    """Why a part could not be compared, each "reason: name of the layer"."""

    arrays: dict[str, Array] = field(default_factory=dict)
    """Arrays of the reference model for every step, by kind, layer index and LSTM number: if details are wanted."""

    def differences(self, key: tuple[int, int, str], layer: str) -> Differences:
        """Returns the differences of an array; creates them the first time."""
        return self.totals.setdefault(key, Differences(layer, key[2]))

    def note(self, spot: Spot, number: int, given: tuple[Array, Array, Array] | None) -> None:
        """Records a number over tolerance."""
        if self.first is None or spot.order < self.first.order:
            self.first, self.first_number, self.first_given = spot, number, given


def closer(ours: float, reference: float, exact: float) -> shadow_pb2.Closer:
    """Returns which side is closer to a float64 computation."""
    apart = abs(ours - exact), abs(reference - exact)
    if apart[0] == apart[1]:
        return shadow_pb2.CLOSER_UNSPECIFIED
    return shadow_pb2.CLOSER_OURS if apart[0] < apart[1] else shadow_pb2.CLOSER_REFERENCE


def verdict_of(
    found: tuple[Findings, Findings],
    reference_model: shadow_pb2.ReferenceModel,
    tolerances: Tolerances,
    noise_floor: float,
) -> shadow_pb2.Comparison:
    """Returns the comparison as clients get it, without the gates of the first location."""
    forced, free = found
    totals = [differences.message() for differences in forced.totals.values()]
    for key, total in zip(forced.totals, totals, strict=True):
        total.ours_closer_count = int(forced.closer.get(key) == shadow_pb2.CLOSER_OURS)
        total.reference_closer_count = int(forced.closer.get(key) == shadow_pb2.CLOSER_REFERENCE)
    differs = bool(forced.odd) or any(total.over_tolerance_count for total in totals)
    largest = max((differences.max_scaled for differences in forced.totals.values()), default=0.0)
    comparison = shadow_pb2.Comparison(
        verdict=shadow_pb2.VERDICT_DIFFERS if differs else shadow_pb2.VERDICT_AGREES,
        reference_model=reference_model,
        tolerances=tolerances.message(),
        teacher_forced=totals,
        free_running=[differences.message() for differences in free.totals.values()],
        below_noise=largest <= noise_floor and not differs,
        outlier_units=[
            shadow_pb2.OutlierUnit(
                layer=layer,
                array=ARRAY_KINDS[array],
                unit=odd.unit,
                rms=odd.rms,
                ratio_to_median=odd.ratio_to_median,
                row_step_count=odd.steps,
            )
            for layer, array, odd in forced.odd
        ],
        partial_reasons=sorted(forced.partial_reasons | {f"free-running, {text}" for text in free.partial_reasons}),
    )
    if forced.first is not None:
        comparison.first_location.CopyFrom(_place(forced))
    return comparison


def _place(found: Findings) -> shadow_pb2.Location:
    spot = found.first
    assert spot is not None  # noqa: S101 - or no one asks
    layer = found.totals[spot.place, found.first_number, spot.array].layer
    return shadow_pb2.Location(
        layer=layer,
        array=ARRAY_KINDS[spot.array],
        row=spot.row,
        step=spot.step,
        unit=spot.unit,
        ours=spot.ours,
        reference=spot.reference,
        exact=math.nan,
    )
