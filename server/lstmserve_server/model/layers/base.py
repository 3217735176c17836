"""The interface of layers: what they are given, what they return, and the state that callers carry for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from lstmserve_server.core.errors import WrongForModel
from lstmserve_server.model.engines.select import KernelChoice
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.recording import LayerRecorder
from lstmserve_server.model.types import Array


@dataclass(frozen=True, slots=True)
class Batch:
    """A value that flows between layers, for every row of a batch."""

    array: Array
    """(batch, time, ...) for a sequence, else (batch, ...)."""

    sequence: bool
    """Whether there is a time axis."""

    mask: Array | None = None
    """(batch, time): False at the time-steps that are to be passed over; None where there is none."""

    fresh: Array | None = None
    """(batch, time): False at the time-steps at which a layer with a window had nothing to say; None where it always had."""

    ready: Array | None = None
    """(batch, time), or (batch,) without a time axis: False where there is nothing to say yet; None where there is."""

    def replace_array(self, array: Array) -> Batch:
        """Returns the value with another array."""
        return replace(self, array=array)

    def last(self) -> Batch:
        """Returns only the last time step."""
        return Batch(self.array[:, -1], sequence=False, ready=None if self.ready is None else self.ready[:, -1])


class WindowState(NamedTuple):
    """State of a layer with a window."""

    window: Array  # (batch, steps, features): what it still has to look at, or what it has gathered
    steps: Array  # (batch,): how many time-steps have reached it


LayerState = LSTMState | WindowState
"""What a caller carries for one layer."""


class Stateful(Protocol):
    """A layer whose state the caller carries."""

    name: str

    def zero_state(self, batch: int) -> LayerState:
        """Returns the state of `batch` new sequences."""
        ...


class LayerInputs(NamedTuple):
    """Arguments of a layer's call."""

    values: tuple[Batch, ...]
    """One for each of its inputs."""

    seen: Array
    """Whether a row's sequence has had a step that no mask passes over, (batch,)."""

    every: bool
    """Whether a layer that answers the last step shall answer every step, as if the sequence ended with it."""

    initial_state: tuple[Array, ...] = ()
    """h and c, each (batch, units), where other layers give them rather than the caller."""

    recording: LayerRecorder | None = None
    """Where the time-steps of an LSTM are to be left; None for nowhere."""


LayerOutputs = tuple[tuple[Batch, ...], "Sequence[LayerState]"]
"""What a layer gives: its outputs, and the next state of each layer that it carries."""


class Layer:
    """One layer of a model. It keeps nothing between calls."""

    obstacle: str = ""
    """Why a model with this layer cannot be stepped, to be read after the layer's name; empty where it can."""

    carried: tuple[Stateful, ...] = ()
    """What the caller carries for it."""

    whole_without_state: bool = False
    """Whether it can do without `carried` where a sequence is given whole, as in a model that cannot be cut anywhere."""

    stride_pattern: tuple[int, int] | None = None
    """Of a layer that does not answer every time-step of a sequence: how many it waits for, and how many it then strides."""

    returns_last_only: bool = False
    """Whether it answers the last time-step of a sequence alone."""

    computed: tuple[KernelChoice, ...] = ()
    """What computes the LSTMs that it is made of."""

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:
        """Computes the layer; the inputs are not changed.

        Args:
            given: its inputs.
            before: the state of each of `carried`; nothing where the layer can do without and a sequence is given whole.
        """
        raise NotImplementedError

    def array_function(self) -> Callable[..., Array] | None:
        """Returns a function from input arrays to the output array; None if the layer may mask, has a window, or has a state."""
        return None

    def stateful_parts(self, *, causal: bool) -> tuple[Stateful, ...]:
        """Returns the parts whose state the caller carries, in a causal model or in one that reads sequences whole."""
        return () if self.whole_without_state and not causal else self.carried


class StatelessLayer(Layer):
    """A layer without memory, of one input and one output."""

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:  # noqa: ARG002 - there is none
        """Applies the layer."""
        return (self.apply(given.values[0]),), ()

    def apply(self, values: Batch) -> Batch:
        """Computes the layer; the values are not changed."""
        raise NotImplementedError


def require_steps(name: str, steps: int, least: int) -> None:
    """Rejects a sequence that is too short for a layer.

    Raises:
        WrongForModel: fewer than `least` time-steps reach it.
    """
    if steps < least:
        text = f"{steps} time-steps reach layer {name!r}; expected at least {least}. Send a longer sequence"
        raise WrongForModel("x.shape", text)
