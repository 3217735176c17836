"""Records what flows through a model in one call, so that shadow mode can compare it.

A recording belongs to one call, and is filled by the thread that computes it. Without a recording the model keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from lstmserve_server.model.types import Array


class HasArray(Protocol):
    """Protocol of a value that is passed between two layers."""

    @property
    def array(self) -> Array:
        """The numbers."""
        ...

    @property
    def mask(self) -> Array | None:
        """Which steps count."""
        ...

    @property
    def ready(self) -> Array | None:
        """Where there is a new value."""
        ...


class Steps(NamedTuple):
    """The time-steps of one LSTM, in the order of processing."""

    mask: Array | None
    """(batch, time): False at the steps that were passed over; None where none was."""

    before: tuple[Array, Array]
    """h and c before the first step, each (batch, units)."""

    h: Array  # (batch, time, units): after each step
    c: Array  # (batch, time, units)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: some rows of a call, for a piece of time."""

    rows: Array
    """The numbers of the rows, (batch,)."""

    start: int
    """The first time-step."""

    values: list[HasArray] = field(default_factory=list)
    """All that flowed between the layers, by the number that it has in the model's description."""

    steps: dict[int, list[Steps]] = field(default_factory=dict)
    """The steps of each LSTM by the place of its layer in the model; of both directions of a Bidirectional."""

    def record(self, place: int, mask: Array | None, before: tuple[Array, Array], time: int) -> Steps:
        """Returns the arrays that an LSTM fills with its time steps."""
        h, c = before
        shape = (len(h), time, h.shape[1])
        steps = Steps(mask, before, np.empty(shape, h.dtype), np.empty(shape, c.dtype))
        self.steps.setdefault(place, []).append(steps)
        return steps


class Recording:
    """All chunks of a call."""

    def __init__(self) -> None:
        self.rectangles: list[Chunk] = []

    def begin(self, rows: Array, start: int) -> Chunk:
        """Returns the next chunk, to be filled."""
        self.rectangles.append(Chunk(rows, start))
        return self.rectangles[-1]


class LayerRecorder(NamedTuple):
    """Place in a chunk where a layer records its time steps."""

    rectangle: Chunk
    layer: int

    def record(self, mask: Array | None, before: tuple[Array, Array], time: int) -> Steps:
        """Returns the arrays that an LSTM of this layer fills with its time steps."""
        return self.rectangle.record(self.layer, mask, before, time)
