"""Decides whether a model can be stepped: whether it can answer after each time step as if the sequence ended there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lstmserve_server.model.layers.base import Layer
from lstmserve_server.model.layers.merge import Merge
from lstmserve_server.model.spec import LayerSpec, ModelSpec


class _Cadence(NamedTuple):
    """When a value is new: at the steps `wait`, `wait + stride`, `wait + 2 * stride` and so on, counted from 0."""

    wait: int = 0
    stride: int = 1
    sequence: bool = True
    """Whether it has a time axis; else it is always there after the first time, as what a sequence comes to."""


_EVERY_STEP = _Cadence()
_MASKING = ("Masking", "Embedding")


def step_obstacle(spec: ModelSpec, layers: Sequence[Layer | None]) -> str:
    """Returns why a model cannot be stepped, naming what is in the way; "" where it can."""
    return (
        _of_inputs(spec)
        or next((f"layer {d.name!r} {layer.obstacle}" for d, layer in _made(spec, layers) if layer.obstacle), "")
        or _of_states(spec)
        or _of_masks(spec)
        or _of_cadences(spec, layers)
    )


def _made(spec: ModelSpec, layers: Sequence[Layer | None]) -> list[tuple[LayerSpec, Layer]]:
    return [(d, layer) for d, layer in zip(spec.layers, layers, strict=True) if layer is not None]


def _of_inputs(spec: ModelSpec) -> str:
    if len(spec.inputs) > 1:
        return f"the model has several inputs: {', '.join(repr(item.name) for item in spec.inputs)}"
    return "" if spec.inputs[0].sequence else f"its input {spec.inputs[0].name!r} has no time axis"


def _of_states(spec: ModelSpec) -> str:
    """The h and c of every step would have to be known where other layers, or the caller, are given them as values."""
    used = {number for layer in spec.layers for number in layer.inputs}
    used |= {output.value for output in spec.outputs}
    number = 0
    for layer in spec.layers:
        first = number + (2 if layer.texts.get("merge_mode") == "none" else 1)
        number += len(layer.output_shapes)
        if used & set(range(first, number)):
            return f"layer {layer.name!r} gives its h and c as values (return_state)"
    return ""


def _of_masks(spec: ModelSpec) -> str:
    """A state knows of one mask whether a step has been seen that it did not pass over."""
    makers = [layer for layer in spec.layers if layer.kind == "Masking" or layer.options.get("mask_zero")]
    if len(makers) < 2:  # noqa: PLR2004 - one and another
        return ""
    return f"layer {makers[1].name!r} makes a second mask, alongside that of {makers[0].name!r}"


def waiting_steps(spec: ModelSpec, layers: Sequence[Layer | None]) -> int:
    """Returns the number of time steps before a model that can be stepped gives its first answer."""
    clocks = _cadences(spec, layers)
    return max(clocks[output.value].wait for output in spec.outputs)


def _of_cadences(spec: ModelSpec, layers: Sequence[Layer | None]) -> str:
    """A value that is not new at every step must end up in a layer that reduces the sequence."""
    clocks = _cadences(spec, layers)
    for layer_spec, layer in zip(spec.layers, layers, strict=True):
        coming = [clocks[number] for number in layer_spec.inputs]
        if (
            isinstance(layer, Merge)
            and any(stride_pattern.sequence for stride_pattern in coming)
            and len(set(coming)) > 1
        ):
            return f"layer {layer_spec.name!r} joins sequences that have something new at different time-steps"
        if layer_spec.kind in _MASKING and coming[0] != _EVERY_STEP:
            return f"layer {layer_spec.name!r} makes a mask after a layer that does not answer every time-step"
    for output in spec.outputs:
        if clocks[output.value].sequence and clocks[output.value] != _EVERY_STEP:
            return f"output {output.name!r} is a sequence that has something new at some time-steps only"
    return ""


def _cadences(spec: ModelSpec, layers: Sequence[Layer | None]) -> list[_Cadence]:
    """Returns the clock of each value."""
    clocks: list[_Cadence] = []
    for layer_spec, layer in zip(spec.layers, layers, strict=True):
        coming = [clocks[number] for number in layer_spec.inputs] or [_EVERY_STEP]
        stride_pattern = coming[0]._replace(wait=max(each.wait for each in coming))
        if layer is not None and layer.stride_pattern is not None and stride_pattern.sequence:
            wait, stride = layer.stride_pattern
            stride_pattern = _Cadence(
                stride_pattern.wait + wait * stride_pattern.stride, stride_pattern.stride * stride
            )
        if layer is not None and layer.returns_last_only:
            stride_pattern = _Cadence(stride_pattern.wait, sequence=False)
        clocks += [stride_pattern] * len(layer_spec.output_shapes)
    return clocks
