"""Differences between a server and Keras, in words."""

from __future__ import annotations

import math
from typing import Final

from lstmserve.v1 import shadow_pb2

ARRAY_NAMES: Final[dict[int, str]] = {
    shadow_pb2.ARRAY_KIND_H: "h",
    shadow_pb2.ARRAY_KIND_C: "c",
    shadow_pb2.ARRAY_KIND_OUTPUT: "output",
}
"""Names of the arrays of a layer, in the order of tables."""

_CLOSER: Final[dict[int, str]] = {shadow_pb2.CLOSER_OURS: "ours", shadow_pb2.CLOSER_REFERENCE: "reference"}


def array_name(kind: int) -> str:
    """Returns the name of an array of a layer; "?" for a kind of a newer server."""
    return ARRAY_NAMES.get(kind, "?")


def place_in_words(place: shadow_pb2.Location) -> str:
    """Returns a location in words."""
    gates = f", gate {place.gates}" if place.gates else ""
    exact = "" if math.isnan(place.exact) else f", float64 {place.exact:.9g}"
    closer = f" ({_CLOSER[place.closer]} is closer)" if place.closer in _CLOSER else ""
    return (
        f"{array_name(place.array)} of layer {place.layer!r}, step {place.step}, row {place.row}, unit {place.unit}{gates}: "
        f"ours {place.ours:.9g}, reference {place.reference:.9g}{exact}{closer}"
    )


def odd_in_words(odd: shadow_pb2.OutlierUnit) -> str:
    """Returns an outlier unit in words."""
    return (
        f"{array_name(odd.array)} of layer {odd.layer!r}, unit {odd.unit}, is off by {odd.rms:.2g} again and again: "
        f"{odd.ratio_to_median:.0f} times as much as the others, over {odd.row_step_count:,} row-steps"
    )
