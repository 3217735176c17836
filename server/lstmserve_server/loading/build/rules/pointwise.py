"""Rules of layers that work on every time step by itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmserve_server.loading.build.rules import activations, base
from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerPlan, WeightBlock
from lstmserve_server.model.activations import KerasMajor
from lstmserve_server.model.spec import Option


def dense(r: LayerConfigReader) -> LayerPlan:
    """`Dense`."""
    units = r.number("units", r.limits.features)
    shapes: dict[str, tuple[int, ...]] = {"kernel": (r.features, units)}
    if r.flag("use_bias", default=True):
        shapes["bias"] = (units,)
    options: dict[str, Option] = {
        "units": units,
        "activation": activations.activation(r, "activation", "linear"),
        "use_bias": "bias" in shapes,
    }
    return r.plan("Dense", options, output_shapes=((*r.incoming.shape[:-1], units),), block=WeightBlock(shapes))


def embedding(r: LayerConfigReader) -> LayerPlan:
    """`Embedding`, of the token ids that are the model's input."""
    if len(r.incoming.shape) != 1 or not r.incoming.ids:
        raise r.refuse("follows another layer; expected it first, on token ids")
    r.consumed.add("input_dim")
    words, features = r.number("input_dim", 1 << 24), r.number("output_dim", r.limits.features)
    mask = r.flag("mask_zero", default=False)
    return r.plan(
        "Embedding",
        {"input_dim": words, "output_dim": features, "mask_zero": mask},
        output_shapes=((r.incoming.shape[0], features),),
        block=WeightBlock({"embeddings": (words, features)}),
        mask=("NotEqual", r.incoming.value, 0.0) if mask else None,
    )


def masking(r: LayerConfigReader) -> LayerPlan:
    """`Masking`."""
    r.require_sequence()
    value = r.real("mask_value", 0.0)
    return r.plan("Masking", {"mask_value": value}, mask=("Any", ("NotEqual", r.incoming.value, value)))


def batch_normalization(r: LayerConfigReader) -> LayerPlan:
    """`BatchNormalization`, as it is at inference."""
    return _normalization(r, "BatchNormalization", ("moving_mean", "moving_variance"))


def layer_normalization(r: LayerConfigReader) -> LayerPlan:
    """`LayerNormalization`."""
    return _normalization(r, "LayerNormalization", ())


def _normalization(r: LayerConfigReader, kind: str, further: tuple[str, ...]) -> LayerPlan:
    _require_last_axis(r, r.get("axis", -1))
    r.choice("rms_scaling", None, False, None)  # noqa: FBT003 - the values of an option
    names = [name for name, option in (("gamma", "scale"), ("beta", "center")) if r.flag(option, default=True)]
    shapes = dict.fromkeys((*names, *further), (r.features,))
    return r.plan(kind, {"epsilon": r.real("epsilon", 1e-3)}, block=WeightBlock(shapes) if shapes else None)


def _require_last_axis(r: LayerConfigReader, axis: Any) -> None:
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(r.incoming.shape)):
        raise r.refuse(f"has axis={axis!r}; only the last axis is supported")


def normalization(r: LayerConfigReader) -> LayerPlan:
    """`Normalization`, with the mean and variance of `adapt()` or of its configuration."""
    axis = r.get("axis", -1)
    axis = None if axis == [] else axis
    if axis is not None:
        _require_last_axis(r, axis)
    shape = () if axis is None else (r.features,)
    options: dict[str, Option] = {"epsilon": _EPSILON, "invert": r.flag("invert", default=False)}
    mean, variance = r.get("mean"), r.get("variance")
    if mean is None:
        block = WeightBlock({"mean": shape, "variance": shape, "count": ()}, idle=("count",), convert=_at_least_one)
        return _since_keras_3(r, r.plan("Normalization", options, block=block))
    try:
        given = [
            np.broadcast_to(np.array(value, np.float64).reshape(-1), shape or (1,)).copy() for value in (mean, variance)
        ]
    except (TypeError, ValueError, OverflowError):
        raise r.refuse(f"has a mean or a variance whose shape is not {shape}") from None
    if not np.isfinite(given).all():
        raise r.refuse("has a mean or a variance that is not finite")
    weights = dict(zip(("mean", "variance"), given, strict=True))
    return _since_keras_3(r, r.plan("Normalization", options, weights=weights))


_EPSILON = 1e-7  # keras.backend.epsilon(), which no file states


def _at_least_one(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: np.atleast_1d(weight) for name, weight in weights.items()}


def rescaling(r: LayerConfigReader) -> LayerPlan:
    """`Rescaling`."""
    return _since_keras_3(r, r.plan("Rescaling", {"scale": r.real("scale", 1.0), "offset": r.real("offset", 0.0)}))


def identity(r: LayerConfigReader) -> LayerPlan:
    """`Identity`."""
    return _since_keras_3(r, r.plan("Identity"))


def _since_keras_3(r: LayerConfigReader, plan: LayerPlan) -> LayerPlan:
    """Returns the plan of a layer that passes its mask on in Keras 3 only."""
    return plan if r.writer.era is KerasMajor.KERAS_3 else base.without_mask(plan)


def prelu(r: LayerConfigReader) -> LayerPlan:
    """`PReLU`, with a slope for each feature that is the same at all time-steps."""
    shared = r.get("shared_axes") or []
    if not isinstance(shared, list) or (r.incoming.sequence and 1 not in shared):
        raise r.refuse(f"has shared_axes={shared!r}; expected [1], slopes that are the same at all time steps")
    shape = tuple(1 if axis in shared else length or 1 for axis, length in enumerate(r.incoming.shape, start=1))
    return r.plan("PReLU", block=WeightBlock({"alpha": shape}))


def nothing(r: LayerConfigReader) -> LayerPlan:
    """A layer without effect at inference."""
    return r.plan(r.layer.kind)


def dropout(r: LayerConfigReader) -> LayerPlan:
    """`Dropout` and its kin, which have no effect at inference either."""
    r.not_negative("rate", 0.0, most=1.0)
    return nothing(r)


def noise(r: LayerConfigReader) -> LayerPlan:
    """`GaussianNoise`: the same."""
    r.not_negative("stddev", 0.0)
    return nothing(r)
