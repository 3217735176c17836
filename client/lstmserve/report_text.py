"""Differences between a server and Keras, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lstmserve.v1 import shadow_pb2


def place_in_words(place: shadow_pb2.Place) -> str:
    """Returns a place as people read it."""
    gates = f", gate {place.gates}" if place.gates else ""
    exact = "" if math.isnan(place.float64) else f", float64 {place.float64:.9g}"
    closer = f" ({place.closer} is closer)" if place.closer else ""
    return (
        f"{place.array} of layer {place.layer!r}, step {place.step}, row {place.row}, unit {place.unit}{gates}: "
        f"ours {place.ours:.9g}, reference {place.reference:.9g}{exact}{closer}"
    )


def odd_in_words(odd: shadow_pb2.OddUnit) -> str:
    """Returns a unit that is off again and again as people read it."""
    return (
        f"{odd.array} of layer {odd.layer!r}, unit {odd.unit}, is off by {odd.rms:.2g} again and again: "
        f"{odd.times_others:.0f} times as much as the others, over {odd.steps:,} row-steps"
    )
