"""How the configuration of a layer is read: which options decide its answer, which do not, and which weights it asks for.

The rule of each kind is in `layer_plans`; here is what all have in common.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lstmserve_server import activations
from lstmserve_server.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from lstmserve_server.activations import Activation, Era
    from lstmserve_server.description import Option, Shape
    from lstmserve_server.loading.keras_config import LayerConfig
    from lstmserve_server.loading.limits import Limits

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Block:
    """The weights of one piece of a layer."""

    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each, under its Keras name, in the order of Keras."""

    place: str = ""
    """Where Keras 3 keeps them below the group of the layer."""

    convert: Callable[[dict[str, Array]], dict[str, Array]] | None = None
    """Makes the weights that Keras computes with of those that the file holds; None where they are the same."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a layer will be, before its weights are read."""

    kind: str
    options: Mapping[str, Option]
    output_shape: Shape
    blocks: tuple[Block, ...] = ()
    parts: tuple[Plan, ...] = ()
    """Of a layer that is made of others, these; each with one block."""
    masks: bool | None = None
    """Whether it has the layers behind pass over time-steps; None where that stays as it was."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The Keras that wrote a file, as far as it matters."""

    era: Era
    standalone: bool
    """Whether it was the Keras up to 2.3.1 that was a package of its own."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What reaches a layer."""

    shape: Shape
    masked: bool = False

    @property
    def sequence(self) -> bool:
        """Whether it has a time axis."""
        return len(self.shape) > 1


@dataclass(frozen=True, slots=True)
class Reading:
    """A layer's configuration on its way to a plan."""

    layer: LayerConfig
    writer: Writer
    incoming: Incoming
    limits: Limits
    consumed: set[str] = field(default_factory=set)

    def refuse(self, text: str) -> ModelRefused:
        """Returns the refusal of this layer."""
        return ModelRefused(f"{self.layer} {text}")

    def get(self, option: str, default: Any = None) -> Any:
        """Returns the value of an option, which from now on counts as read."""
        self.consumed.add(option)
        return self.layer.options.get(option, default)

    def number(self, option: str, most: int, least: int = 1) -> int:
        """Returns an option that is a whole number."""
        value = self.get(option)
        if type(value) is not int or not least <= value <= most:
            raise self.refuse(f"has {option}={value!r}; expected a whole number from {least} to {most}")
        return value

    def single(self, option: str, default: int) -> int:
        """Returns an option that is a whole number, or a list of one, as Keras writes it for one-dimensional layers."""
        value = self.get(option, default)
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
        if type(value) is not int or not 1 <= value <= self.limits.features:
            raise self.refuse(f"has {option}={value!r}; expected a whole number from 1 to {self.limits.features}")
        return value

    def pair(self, option: str) -> tuple[int, int]:
        """Returns an option that is two whole numbers, or one for both."""
        value = self.get(option)
        pair = (value, value) if type(value) is int else tuple(value) if isinstance(value, list) else ()
        if len(pair) != 2 or not all(type(item) is int and 0 <= item <= self.limits.features for item in pair):  # noqa: PLR2004
            raise self.refuse(f"has {option}={value!r}; expected one whole number or two")
        return pair

    def real(self, option: str, default: float) -> float:
        """Returns an option that is a number."""
        value = self.get(option, default)
        if type(value) not in (int, float) or not np.isfinite(value):
            raise self.refuse(f"has {option}={value!r}; expected a number")
        return float(value)

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
            raise self.refuse(f"has {option}={value!r}; only {' or '.join(map(repr, known))} is served")
        return value

    def activation(self, option: str, default: str) -> Activation:
        """Returns an option that is an activation, in the definition of the writer's era."""
        value = self.get(option, default)
        if value is None:
            value = "linear"
        if isinstance(value, dict) and value.get("class_name") not in ("function", "__lambda__", None):
            raise self.refuse(
                f"has the layer {value['class_name']!r} as {option}, which is not served; use the function of that name"
            )
        if not isinstance(value, str):
            name = value.get("config") if isinstance(value, dict) else value
            raise self.refuse(
                f"has a function of its author's own as {option} ({name!r}), whose code is not in the file"
            )
        return self.named_activation(option, value)

    def named_activation(self, option: str, name: str) -> Activation:
        """Returns the activation of a name."""
        activation = activations.find(name, self.writer.era)
        if activation is None:
            known = ", ".join(activations.names(self.writer.era))
            raise self.refuse(
                f"has {option}={name!r}, which is not served; for a file of Keras {self.writer.era.value} these are: {known}"
            )
        return activation

    @property
    def features(self) -> int:
        """The length of the last axis of what reaches the layer."""
        features = self.incoming.shape[-1]
        if features is None:
            raise self.refuse("needs to know how many features reach it, and the layer before leaves that open")
        return features

    def require_sequence(self) -> None:
        """Refuses the layer where no sequence of vectors reaches it."""
        if len(self.incoming.shape) != 2:  # noqa: PLR2004 - time and features
            raise self.refuse("gets no sequence: the layer before it answers the last time-step only")

    def require_known_time(self) -> int:
        """Returns the number of time-steps, which must be known."""
        time = self.incoming.shape[0]
        if time is None:
            raise self.refuse("needs to know the number of time-steps, and the file does not declare it")
        return time


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


def require_known_options(reading: Reading) -> None:
    """Refuses a layer with an option that its rule has not read and that may be of consequence."""
    for option, value in reading.layer.options.items():
        if option not in reading.consumed and option not in IDLE and value is not None:
            raise reading.refuse(
                f"has the option {option}={value!r}, which is not known here and may change its answers"
            )


def dtype_of(layer: LayerConfig) -> np.dtype[Any]:
    """Returns the type in which a layer computes.

    Raises:
        ModelRefused: it is neither float32 nor float64.
    """
    policy = layer.options.get("dtype", "float32")
    if isinstance(policy, dict):
        inner = policy.get("config")
        policy = inner.get("name", policy.get("class_name")) if isinstance(inner, dict) else policy.get("class_name")
    if policy not in ("float32", "float64"):
        message = (
            f"{layer} computes in {policy}; only float32 and float64 are served. Rebuild the model with "
            "keras.config.set_dtype_policy('float32'), copy the weights with set_weights, and save it anew"
        )
        raise ModelRefused(message)
    dtype: np.dtype[Any] = np.dtype(policy)
    return dtype
