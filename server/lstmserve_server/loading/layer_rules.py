"""What each kind of layer may say in its configuration, which of it decides the answer, and which weights it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lstmserve_server import activations
from lstmserve_server.errors import ModelRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lstmserve_server.activations import Activation, Era
    from lstmserve_server.description import Option
    from lstmserve_server.loading.keras_config import LayerConfig
    from lstmserve_server.loading.limits import Limits


@dataclass(frozen=True, slots=True)
class Plan:
    """What a layer will be, before its weights are read."""

    options: Mapping[str, Option]
    weights: Mapping[str, tuple[int, ...]]
    """The shape of each weight, under its Keras name, in the order of Keras."""
    features: int
    sequence: bool
    """Whether its output has a time axis."""


@dataclass(frozen=True, slots=True)
class Values:
    """What reaches a layer."""

    features: int
    sequence: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """How the configuration of one kind of layer is read."""

    plan: Callable[[LayerConfig, Era, Values, Limits], Plan]
    decides: frozenset[str]
    """Options that `plan` reads."""
    cell: str = ""
    """Where Keras 3 keeps its weights, below the group of the layer."""
    must_be: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Options that are served with these values only."""


# Of no consequence to an answer: how weights began and were trained, how the layer was built and named, and how Keras
# schedules the same arithmetic.
_IDLE: Final = frozenset(
    "name trainable dtype batch_input_shape batch_shape input_shape input_dim input_length build_config optional "
    "kernel_initializer recurrent_initializer bias_initializer kernel_regularizer recurrent_regularizer bias_regularizer "
    "activity_regularizer kernel_constraint recurrent_constraint bias_constraint unit_forget_bias dropout recurrent_dropout "
    "implementation unroll stateful seed use_cudnn rate noise_shape sparse ragged return_state zero_output_for_mask".split()
)


def plan(layer: LayerConfig, era: Era, values: Values, limits: Limits) -> Plan:
    """Returns what a layer will be.

    Raises:
        ModelRefused: the kind of layer or one of its options is not served, or an option makes no sense.
    """
    rule = RULES[layer.kind]
    for option, value in layer.options.items():
        if option in rule.must_be:
            if value not in rule.must_be[option]:
                expected = " or ".join(map(repr, rule.must_be[option]))
                message = f"{layer} has {option}={value!r}; only {expected} is served"
                raise ModelRefused(message)
        elif option not in rule.decides and option not in _IDLE and value is not None:
            message = f"{layer} has the option {option}={value!r}, which is not known here and may change its answers"
            raise ModelRefused(message)
    return rule.plan(layer, era, values, limits)


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


def _lstm(layer: LayerConfig, era: Era, values: Values, limits: Limits) -> Plan:
    if not values.sequence:
        message = f"{layer} gets no sequence: the layer before it answers the last time-step only"
        raise ModelRefused(message)
    units = _units(layer, limits)
    sequences = _flag(layer, "return_sequences", default=False)
    weights: dict[str, tuple[int, ...]] = {
        "kernel": (values.features, 4 * units),
        "recurrent_kernel": (units, 4 * units),
    }
    if _flag(layer, "use_bias", default=True):
        weights["bias"] = (4 * units,)
    default = "hard_sigmoid" if era is activations.Era.KERAS_2 else "sigmoid"
    if "recurrent_activation" not in layer.options and era is activations.Era.KERAS_2:
        message = f"{layer} does not say its recurrent_activation, whose default changed during Keras 2 ({default!r} at first)"
        raise ModelRefused(message)
    options: dict[str, Option] = {
        "units": units,
        "activation": _activation(layer, "activation", "tanh", era),
        "recurrent_activation": _activation(layer, "recurrent_activation", default, era),
        "use_bias": "bias" in weights,
        "return_sequences": sequences,
        "go_backwards": _flag(layer, "go_backwards", default=False),
    }
    return Plan(options, weights, units, sequences)


def _dense(layer: LayerConfig, era: Era, values: Values, limits: Limits) -> Plan:
    units = _units(layer, limits)
    weights: dict[str, tuple[int, ...]] = {"kernel": (values.features, units)}
    if _flag(layer, "use_bias", default=True):
        weights["bias"] = (units,)
    options: dict[str, Option] = {
        "units": units,
        "activation": _activation(layer, "activation", "linear", era),
        "use_bias": "bias" in weights,
    }
    return Plan(options, weights, units, values.sequence)


def _activation_layer(layer: LayerConfig, era: Era, values: Values, limits: Limits) -> Plan:  # noqa: ARG001
    options: dict[str, Option] = {"activation": _activation(layer, "activation", "linear", era)}
    return Plan(options, {}, values.features, values.sequence)


def _input(layer: LayerConfig, era: Era, values: Values, limits: Limits) -> Plan:
    dtype = layer.options.get("dtype", "float32")
    if dtype not in ("float32", "float64", None):
        message = f"{layer} takes {dtype}, to which Keras rounds what comes; only float32 and float64 are served"
        raise ModelRefused(message)
    return _nothing(layer, era, values, limits)


def _nothing(layer: LayerConfig, era: Era, values: Values, limits: Limits) -> Plan:  # noqa: ARG001
    return Plan({}, {}, values.features, values.sequence)


RULES: Final = {
    "InputLayer": Rule(_input, frozenset()),
    "LSTM": Rule(
        _lstm,
        frozenset("units activation recurrent_activation use_bias return_sequences go_backwards".split()),
        cell="cell",
        must_be={"time_major": (False, None)},
    ),
    "Dense": Rule(_dense, frozenset("units activation use_bias".split())),
    "Activation": Rule(_activation_layer, frozenset(["activation"])),
    "Dropout": Rule(_nothing, frozenset()),
}
"""The kinds of layers that are served."""


def _units(layer: LayerConfig, limits: Limits) -> int:
    units = layer.options.get("units")
    if type(units) is not int or not 1 <= units <= limits.units:
        message = f"{layer} has units={units!r}; expected a whole number from 1 to {limits.units}"
        raise ModelRefused(message)
    return units


def _flag(layer: LayerConfig, option: str, *, default: bool) -> bool:
    value = layer.options.get(option, default)
    if type(value) is not bool:
        message = f"{layer} has {option}={value!r}; expected true or false"
        raise ModelRefused(message)
    return value


def _activation(layer: LayerConfig, option: str, default: str, era: Era) -> Activation:
    value = layer.options.get(option, default)
    if value is None:
        value = "linear"
    if isinstance(value, dict) and value.get("class_name") not in ("function", "__lambda__", None):
        message = f"{layer} has the layer {value['class_name']!r} as {option}, which is not served; use the function of that name"
        raise ModelRefused(message)
    if not isinstance(value, str):
        name = value.get("config") if isinstance(value, dict) else value
        message = f"{layer} has a function of its author's own as {option} ({name!r}), whose code is not in the file"
        raise ModelRefused(message)
    activation = activations.find(value, era)
    if activation is None:
        known = ", ".join(activations.names(era))
        message = (
            f"{layer} has {option}={value!r}, which is not served; for a file of Keras {era.value} these are: {known}"
        )
        raise ModelRefused(message)
    return activation
