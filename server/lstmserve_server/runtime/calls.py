"""Calls that are valid by construction: decoded requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lstmserve_server.model.graph import ModelState
from lstmserve_server.model.model import RecurrentModel, StepResult
from lstmserve_server.model.recording import Recording
from lstmserve_server.model.types import Array
from lstmserve_server.runtime.registry import ServedModel


@dataclass(frozen=True, slots=True)
class StepCall:
    """A valid request of one time step."""

    served: ServedModel
    inputs: tuple[Array, ...]  # (batch, features...) each, in the dtype of the model, finite; of Step only one
    state: ModelState
    steps_seen: Array | None  # (batch,); None where unknown
    as_values: bool
    compare: bool = dataclasses.field(default=False, kw_only=True)
    """Whether the caller asks for the comparison with Keras."""

    recording: Recording | None = dataclasses.field(default=None, kw_only=True)
    """What is to be filled with all that flows through the layers; None for nothing."""

    @property
    def x(self) -> Array:
        """The first input; most models have no other."""
        return self.inputs[0]

    @property
    def time(self) -> int:
        """The number of time-steps."""
        return 1

    @property
    def seen(self) -> Array | None:
        """Whether each row has seen a step, (batch,); None if unknown, which counts as no."""
        return None if self.steps_seen is None else self.steps_seen > 0

    def steps_after(self, answer: StepResult) -> Array | None:
        """Returns the step count of each row after the answer, (batch,); None if unknown."""
        return None if self.steps_seen is None else self.steps_seen + answer.steps

    def compute(self, pause: Callable[[], None] = lambda: None) -> StepResult:  # noqa: ARG002 - a step has no pauses
        """Computes the call; `pause` is called now and then while a sequence is computed, and may raise to stop."""
        return self.served.model.step(self.x, self.state, self.seen, self.recording)


@dataclass(frozen=True, slots=True)
class ForwardCall(StepCall):
    """A valid request of a sequence; x is (batch, time, features...), with zeros after the last step of each row."""

    lengths: Array | None  # (batch,), 1 to time each; None where all rows have them all
    all_outputs: bool

    @property
    def time(self) -> int:
        """The number of time-steps of the longest input."""
        return time_of(self.inputs, self.served.model)

    def compute(self, pause: Callable[[], None] = lambda: None) -> StepResult:
        """Computes the call: see `StepCall.compute`."""
        return self.served.model.forward(
            self.inputs,
            self.state,
            self.lengths,
            all_outputs=self.all_outputs,
            seen=self.seen,
            pause=pause,
            recording=self.recording,
        )


def time_of(inputs: Sequence[Array], model: RecurrentModel) -> int:
    """Returns the number of time-steps of the longest input."""
    return max(array.shape[1] if item.sequence else 1 for array, item in zip(inputs, model.inputs, strict=True))
