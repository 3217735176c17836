"""Reads the configuration of one layer: which options decide its answer, which do not, and which weights it needs.

The rule of each kind of layer is in the module named like the one in `model.layers`. Here is what all rules share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.config.keras_config import LayerConfig
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.activations import KerasMajor
from lstmserve_server.model.spec import Option, Shape
from lstmserve_server.model.types import Array

_MAX_SHOWN_CHARACTERS: Final = 100  # characters of what a stranger wrote in an error

STACK: Final = "Chain"
"""The kind of a plan whose parts are layers one after the other."""

Mask = tuple[Any, ...]
"""A mask as the operations that make it, such as ("NotEqual", 0, 0.0) of value 0: two masks are the same if these are."""


@dataclass(frozen=True, slots=True)
class WeightBlock:
    """The weights of one part of a layer."""

    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each, under its Keras name, in the order of Keras."""

    place: str = ""
    """Where Keras 3 keeps them below the group of the layer."""

    labels: frozenset[str] = frozenset()
    """Of a piece alongside others, the names by one of which a path to its weights leads in an `.h5` file."""

    trainable: bool = True
    """Whether it is trained; lists of weights have those first that are."""

    idle: tuple[str, ...] = ()
    """Those of them that no answer depends on, so that they are not read."""

    convert: Callable[[dict[str, Array]], dict[str, Array]] | None = None
    """Makes the weights that Keras computes with of those that the file holds; None where they are the same."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """A layer before its weights are read."""

    kind: str

    options: Mapping[str, Option]

    output_shapes: tuple[Shape, ...]

    block: WeightBlock | None = None
    """Its own weights."""

    parts: tuple[LayerPlan, ...] = ()
    """The layers that it is made of."""

    mask: Mask | None = None
    """The mask of its first output."""

    weights: Mapping[str, Array] = field(default_factory=dict)
    """Weights that are in the configuration itself."""

    @property
    def shape(self) -> Shape:
        """Shape of the first output."""
        return self.output_shapes[0]

    @property
    def blocks(self) -> tuple[WeightBlock, ...]:
        """The weights of the layer and of its parts, in the order of Keras."""
        own = () if self.block is None else (self.block,)
        return (*own, *(block for part in self.parts for block in part.blocks))

    def below(self, place: str) -> LayerPlan:
        """Returns the plan with a prefix for its weights."""
        block = None if self.block is None else replace(self.block, place=f"{place}/{self.block.place}".rstrip("/"))
        return replace(self, block=block, parts=tuple(part.below(place) for part in self.parts))


@dataclass(frozen=True, slots=True)
class KerasVersion:
    """The Keras version that wrote a file, as far as rules depend on it."""

    era: KerasMajor
    standalone: bool
    """Whether it was the Keras up to 2.3.1 that was a package of its own."""
    merges_masks_by: str
    """How it made the mask of merged sequences: "and", "or", "none" where it lost them, or "unknown"."""
    time_major: bool
    """Whether the sequences of the model have their time-steps first, in front of the batch."""


@dataclass(frozen=True, slots=True)
class LayerInput:
    """One input of a layer: shape, mask, and what it holds."""

    shape: Shape
    mask: Mask | None = None
    value: int = 0
    """Its number among all that flows in the model."""
    ids: bool = False
    """Whether it comes from an input of the model as it is, so that it may be token ids."""

    @property
    def sequence(self) -> bool:
        """Whether the input has a time axis."""
        return len(self.shape) > 1


@dataclass(frozen=True, slots=True)
class LayerConfigReader:
    """Reads the configuration of one layer and makes its plan."""

    layer: LayerConfig
    writer: KerasVersion
    incomings: tuple[LayerInput, ...]
    limits: LoadLimits
    states: int = 0
    """How many h and c it is given to begin with."""
    masked_by_call: bool = False
    """Whether it is called with a mask, rather than finding one with its input."""
    consumed: set[str] = field(default_factory=set)

    @property
    def incoming(self) -> LayerInput:
        """The only input of a layer that has one."""
        return self.incomings[0]

    def inner(self, layer: LayerConfig, shape: Shape | None = None) -> LayerConfigReader:
        """Returns the reader of an inner layer, which gets the same input or one of another shape."""
        incoming = self.incoming if shape is None else LayerInput(shape)
        return replace(self, layer=layer, incomings=(incoming,), consumed=set())

    def plan(self, kind: str, options: Mapping[str, Option] | None = None, **rest: Any) -> LayerPlan:
        """Returns a plan whose output and mask are those of the input, except for `rest`."""
        rest = {"output_shapes": (self.incoming.shape,), "mask": self.incoming.mask} | rest
        return LayerPlan(kind, options or {}, **rest)

    def refuse(self, text: str) -> UnsupportedModelError:
        """Returns the error that refuses this layer."""
        return UnsupportedModelError(f"{self.layer} {text}")

    def get(self, option: str, default: Any = None) -> Any:
        """Returns the value of an option, and marks it as read."""
        self.consumed.add(option)
        return self.layer.options.get(option, default)

    def number(self, option: str, most: int, least: int = 1) -> int:
        """Returns an integer option."""
        value = self.get(option)
        if type(value) is not int or not least <= value <= most:
            raise self.refuse(f"has {option}={value!r}; expected an integer from {least} to {most}")
        return value

    def single(self, option: str, default: int) -> int:
        """Returns an integer option, or one in a list, as Keras writes it for one-dimensional layers."""
        value = self.get(option, default)
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        if type(value) is not int or not 1 <= value <= self.limits.features:
            raise self.refuse(f"has {option}={value!r}; expected an integer from 1 to {self.limits.features}")
        return value

    def pair(self, option: str) -> tuple[int, int]:
        """Returns an option of two integers, or of one for both."""
        value = self.get(option)
        pair = (value, value) if type(value) is int else tuple(value) if isinstance(value, list) else ()
        if len(pair) != 2 or not all(type(item) is int and 0 <= item <= self.limits.features for item in pair):  # noqa: PLR2004
            raise self.refuse(f"has {option}={value!r}; expected an integer or a pair of integers")
        return pair

    def real(self, option: str, default: float) -> float:
        """Returns a numeric option."""
        value = self.get(option, default)
        try:
            number = float(value) if type(value) in (int, float) else math.nan
        except OverflowError:
            number = math.nan
        if not math.isfinite(number):
            raise self.refuse(f"has {option}={str(value)[:_MAX_SHOWN_CHARACTERS]}; expected a number")
        return number

    def not_negative(self, option: str, default: float, most: float = math.inf) -> float:
        """Returns an option that is a number from 0 to `most`: Keras refuses others."""
        number = self.real(option, default)
        if not 0 <= number <= most:
            expected = "0 or more" if math.isinf(most) else f"0 to {most:g}"
            raise self.refuse(f"has {option}={number:g}; expected {expected}")
        return number

    def flag(self, option: str, *, default: bool) -> bool:
        """Returns an option that is true or false."""
        value = self.get(option, default)
        if type(value) is not bool:
            raise self.refuse(f"has {option}={value!r}; expected true or false")
        return value

    def choice(self, option: str, default: str | None, *known: Any) -> Any:
        """Returns an option that is one of several."""
        value = self.get(option, default)
        if value not in known:
            raise self.refuse(f"has {option}={value!r}; only {' or '.join(map(repr, known))} is supported")
        return value

    @property
    def features(self) -> int:
        """The length of the last axis of what reaches the layer."""
        features = self.incoming.shape[-1]
        if features is None:
            raise self.refuse("needs a known number of input features, which the previous layer does not define")
        return features

    def require_sequence(self) -> None:
        """Rejects the layer if its input is not a sequence of vectors."""
        if len(self.incoming.shape) == 1:
            raise self.refuse("gets no sequence: the previous layer returns only the last time step")
        if len(self.incoming.shape) != 2:  # noqa: PLR2004 - time and features
            raise self.refuse(
                f"gets {len(self.incoming.shape)} axes in addition to the batch; expected time and features"
            )

    def require_known_time(self) -> int:
        """Returns the number of time-steps, which must be known."""
        time = self.incoming.shape[0]
        if time is None:
            raise self.refuse("needs to know the number of time-steps, which the file does not declare")
        return time


def without_mask(plan: LayerPlan) -> LayerPlan:
    """Returns the plan of a layer that does not pass its mask on."""
    if plan.mask is None:
        return plan
    return replace(plan, options={**plan.options, "drops_mask": True}, mask=None)


# Of no consequence to an answer: how weights began and were trained, how the layer was built and named, and how Keras
# schedules the same arithmetic.
IDLE: Final = frozenset(
    "name trainable dtype batch_input_shape batch_shape input_shape input_dim input_length build_config optional "
    "kernel_initializer recurrent_initializer bias_initializer kernel_regularizer recurrent_regularizer bias_regularizer "
    "activity_regularizer kernel_constraint recurrent_constraint bias_constraint unit_forget_bias dropout recurrent_dropout "
    "implementation unroll stateful seed use_cudnn rate noise_shape sparse ragged return_state zero_output_for_mask "
    "embeddings_initializer embeddings_regularizer embeddings_constraint beta_initializer gamma_initializer "
    "beta_regularizer gamma_regularizer beta_constraint gamma_constraint moving_mean_initializer moving_variance_initializer "
    "momentum stddev renorm renorm_momentum fused virtual_batch_size synchronized init mode l1 l2 alpha_initializer".split()
)


def require_known_options(reading: LayerConfigReader) -> None:
    """Rejects a layer with an option that its rule has not read and that may matter."""
    for option, value in reading.layer.options.items():
        if option not in reading.consumed and option not in IDLE and value is not None:
            raise reading.refuse(
                f"has the option {option}={value!r}, which is not recognized and may change the outputs"
            )
