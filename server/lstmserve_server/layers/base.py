"""What a layer is, and what flows between two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lstmserve_server.errors import WrongForModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Values:
    """What a layer gets and gives, for every row of a batch."""

    array: Array
    """(batch, time, ...) for a sequence, else (batch, ...)."""

    sequence: bool
    """Whether there is a time axis."""

    mask: Array | None = None
    """(batch, time): False at the time-steps that are to be passed over; None where there is none."""

    def but(self, array: Array) -> Values:
        """Returns the same with other numbers."""
        return Values(array, self.sequence, self.mask)


def require_steps(name: str, steps: int, least: int) -> None:
    """Refuses a sequence that is too short for a layer.

    Raises:
        WrongForModel: fewer than `least` time-steps reach it.
    """
    if steps < least:
        text = f"{steps} time-steps reach layer {name!r}; expected at least {least}. Send a longer sequence"
        raise WrongForModel("x.shape", text)


class StatelessLayer:
    """A layer without memory."""

    obstacle: ClassVar[str] = ""
    """Why a model with this layer cannot be stepped, to be read behind the layer's name; empty where it can."""

    def apply(self, values: Values) -> Values:
        """Returns what the layer makes of values, which are left as they are."""
        raise NotImplementedError
