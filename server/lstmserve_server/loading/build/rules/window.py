"""Rules of layers that read several time steps at once."""

from __future__ import annotations

from typing import Any

from lstmserve_server.loading.build.rules import activations
from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerPlan, WeightBlock
from lstmserve_server.model.spec import Option


def conv(r: LayerConfigReader) -> LayerPlan:
    """`Conv1D`."""
    r.require_sequence()
    r.choice("groups", None, 1, None)
    r.choice("data_format", "channels_last", "channels_last", None)
    filters, window = r.number("filters", r.limits.units), r.single("kernel_size", 1)
    shapes: dict[str, tuple[int, ...]] = {"kernel": (window, r.features, filters)}
    if r.flag("use_bias", default=True):
        shapes["bias"] = (filters,)
    options = _window(r, window, "causal") | {
        "dilation_rate": r.single("dilation_rate", 1),
        "filters": filters,
        "activation": activations.activation(r, "activation", "linear"),
    }
    if options["strides"] != 1 and options["dilation_rate"] != 1:
        raise r.refuse("has both strides and dilation_rate above 1, which Keras refuses")
    return r.plan(
        "Conv1D", options, output_shapes=((_places(r, options), filters),), block=WeightBlock(shapes), mask=None
    )


def pooling(r: LayerConfigReader) -> LayerPlan:
    """`MaxPooling1D` and `AveragePooling1D`."""
    r.require_sequence()
    r.choice("data_format", "channels_last", "channels_last", None)
    window = r.single("pool_size", 2)
    options = _window(r, window)
    return r.plan(r.layer.kind, options, output_shapes=((_places(r, options), r.features),), mask=None)


def _window(r: LayerConfigReader, window: int, *further: str) -> dict[str, Option]:
    strides = window if r.layer.kind != "Conv1D" and r.layer.options.get("strides") is None else r.single("strides", 1)
    r.consumed.add("strides")
    return {"window": window, "strides": strides, "padding": r.choice("padding", "valid", "valid", "same", *further)}


def _places(r: LayerConfigReader, options: dict[str, Any]) -> int | None:
    time, stride = r.incoming.shape[0], int(options["strides"])
    if time is None:
        return None
    if options["padding"] != "valid":
        return -(-time // stride)
    reach = int(options.get("dilation_rate", 1)) * (options["window"] - 1) + 1
    if time < reach:
        raise r.refuse(f"looks at {reach} time-steps at once, and {time} reach it")
    places: int = (time - reach) // stride + 1
    return places


def global_pooling(r: LayerConfigReader) -> LayerPlan:
    """`GlobalMaxPooling1D` and `GlobalAveragePooling1D`."""
    r.require_sequence()
    r.choice("data_format", "channels_last", "channels_last", None)
    keep = r.flag("keepdims", default=False)
    shape = (1, r.features) if keep else (r.features,)
    return r.plan(r.layer.kind, {"keepdims": keep}, output_shapes=(shape,), mask=None)
