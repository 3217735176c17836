"""Rules of activations: by name, as functions with arguments, and as layers."""

from __future__ import annotations

from typing import Final

from lstmserve_server.loading.build.rules import base
from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerPlan
from lstmserve_server.loading.config import keras_config
from lstmserve_server.model import activations
from lstmserve_server.model.activations import Activation

LAYERS: Final = ("Activation", "ELU", "LeakyReLU", "ReLU", "Softmax", "ThresholdedReLU")
"""The layers that are a function of every number, or of the last axis."""


def activation(r: LayerConfigReader, option: str, default: str) -> Activation:
    """Returns an option that is an activation, in the definition of the writer's era."""
    value = r.get(option, default)
    if value is None:
        value = "linear"
    if isinstance(value, dict) and value.get("class_name") in LAYERS:
        inner = r.inner(keras_config.inner_layer(value, f"{r.layer}, {option}"))
        if inner.layer.kind == "Softmax" and inner.get("axis", -1) not in (-1, [-1]):
            raise r.refuse(f"has a Softmax of axis={inner.get('axis')!r} as {option}; only the last axis is supported")
        made = of_layer(inner)
        base.require_known_options(inner)
        return made
    if isinstance(value, dict) and value.get("class_name") not in ("function", "__lambda__", None):
        raise r.refuse(f"has the layer {value['class_name']!r} as {option}; supported as {option}: {', '.join(LAYERS)}")
    if not isinstance(value, str):
        name = value.get("config") if isinstance(value, dict) else value
        raise r.refuse(f"has the custom function {name!r} as {option}; its code is not in the file")
    return named(r, option, value)


def named(r: LayerConfigReader, option: str, name: str) -> Activation:
    """Returns the activation with a name."""
    found = activations.find(name, r.writer.era)
    if found is None:
        known = ", ".join(activations.names(r.writer.era))
        era = r.writer.era.value
        raise r.refuse(f"has {option}={name!r}, which is not supported. Supported for files of Keras {era}: {known}")
    return found


def of_layer(r: LayerConfigReader) -> Activation:
    """Returns the activation of an activation layer."""
    match r.layer.kind:
        case "Activation":
            return activation(r, "activation", "linear")
        case "ELU":
            return activations.elu(r.real("alpha", 1.0))
        case "LeakyReLU":  # Keras 2 calls the slope alpha
            return activations.relu(r.real("alpha" if "alpha" in r.layer.options else "negative_slope", 0.3))
        case "ThresholdedReLU":
            return activations.relu(threshold=r.not_negative("theta", 1.0))
        case "ReLU":
            most = r.get("max_value")
            most = None if most is None else r.not_negative("max_value", 0)
            return activations.relu(r.not_negative("negative_slope", 0.0), r.not_negative("threshold", 0.0), most)
        case _:
            axis = r.get("axis", -1)
            if axis not in (-1, [-1], len(r.incoming.shape)):
                raise r.refuse(f"has axis={axis!r}; only the last axis is supported")
            if r.incoming.mask is not None:
                text = (
                    "is given a mask, which Keras adds to its input. Use Activation('softmax'), which ignores the mask"
                )
                raise r.refuse(text)
            return named(r, "activation", "softmax")


def layer(r: LayerConfigReader) -> LayerPlan:
    """Plans a layer that is an activation."""
    return r.plan("Activation", {"activation": of_layer(r)})
