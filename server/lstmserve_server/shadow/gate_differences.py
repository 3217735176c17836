"""Names the gates of an LSTM that differ when both sides compute them from the same x and h."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.reference_process import Reply

GATES: Final = ("i", "f", "c", "o")

_ROUNDINGS: Final = 4
_TIMES_USUAL: Final = 10


def name_gates(model: RecurrentModel, reply: Reply, tolerances: Tolerances) -> None:
    """Fills in the gates of the first place over tolerance: our own kernel, as it serves, on the inputs of the reference model."""
    if "first/where" not in reply.arrays:
        return
    place, number = (int(n) for n in reply.arrays["first/where"])
    lstm = model.lstm(place, number)
    with np.errstate(all="ignore"):
        ours = lstm.gates(reply.arrays["first/x"], reply.arrays["first/h"])[0]
    reference = reply.arrays["first/gates"][0]
    unit = reply.comparison.first_location.unit
    # Where nearly all units agree, what is far beyond their rounding is a difference too, however small.
    with np.errstate(invalid="ignore"):
        usual = float(np.median(np.abs(ours - reference)))
    rounding = max(_ROUNDINGS * float(np.finfo(model.dtype).eps), _TIMES_USUAL * usual)
    allowed = min(tolerances.of("h", model.dtype, bounded=True), rounding) * np.maximum(1, np.abs(reference[:, unit]))
    apart = _apart(ours[:, unit], reference[:, unit], allowed)
    reply.comparison.first_location.gates = " ".join(
        name for name, differs in zip(GATES, apart, strict=True) if differs
    )


def _apart(ours: Any, reference: Any, allowed: Any) -> list[bool]:
    with np.errstate(invalid="ignore"):
        return list(~(np.abs(ours - reference) <= allowed) & ~(np.isnan(ours) & np.isnan(reference)))
