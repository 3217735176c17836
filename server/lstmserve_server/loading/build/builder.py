"""Builds a checked model specification from a configuration and a source of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build import inputs, precision
from lstmserve_server.loading.build.keras_file import KerasFile
from lstmserve_server.loading.build.rules import base, masks, merge
from lstmserve_server.loading.build.rules import registry as kinds
from lstmserve_server.loading.build.rules.base import (
    KerasVersion,
    LayerConfigReader,
    LayerInput,
    LayerPlan,
    Mask,
    WeightBlock,
)
from lstmserve_server.loading.config import keras_config, keras_graph
from lstmserve_server.loading.config.keras_config import LayerConfig, ModelConfig
from lstmserve_server.loading.config.keras_graph import CallGraph, LayerCall, Tensor
from lstmserve_server.loading.store import arrays as arrays_of_numbers
from lstmserve_server.loading.store.limits import LoadLimits, flow
from lstmserve_server.model.spec import InputSpec, LayerSpec, ModelSpec, OutputSpec

Arrays = list[dict[str, NDArray[Any]]]

_LSTMS = ("LSTM", "CuDNNLSTM", "RNN")


@dataclass(frozen=True, slots=True)
class ModelSelection:
    """The requested part of a model; by default all of it."""

    layer: str | None = None
    """The name of one LSTM layer."""

    until: str | None = None
    """The name of the layer with whose output the model shall end."""


def describe(file: KerasFile, limits: LoadLimits, part: ModelSelection) -> ModelSpec:
    """Returns the description of a model, or of a part of it.

    Raises:
        UnsupportedModelError: a part of it cannot be computed the way Keras computes it.
    """
    graph = _graph(file.config, limits, part)
    precise = precision.of(graph)
    version = file.source.keras_version
    writer = KerasVersion(
        keras_config.era_of(version),
        keras_config.is_standalone(version),
        keras_config.merges_masks_by(version),
        inputs.are_time_major(graph),
    )
    building = SpecBuilder(graph, writer, file, limits, precise.dtype)
    for number in range(len(graph.calls)):
        building.add(number)
    source = replace(file.source, remarks=(*file.source.remarks, *precise.remarks))
    return ModelSpec(source, tuple(building.layers), precise.dtype, building.inputs(), building.outputs())


def require_all_used(config: ModelConfig, limits: LoadLimits) -> None:
    """Rejects a model that lists an unused layer, whose size was not checked.

    Raises:
        UnsupportedModelError: there is one.
    """
    calls = keras_graph.prune(keras_graph.unfold(config, limits)).calls
    used = {call.layer.path for call in calls}
    for layer in keras_graph.leaves(config):
        if layer.path not in used and layer.kind != "InputLayer":
            message = f"{layer} does not lead to an output of the model. Save the model again"
            raise UnsupportedModelError(message)


def _graph(config: ModelConfig, limits: LoadLimits, part: ModelSelection) -> CallGraph:
    if part.layer is not None:
        return keras_graph.one_layer(_one(config, part.layer))
    graph = keras_graph.unfold(config, limits)
    graph = keras_graph.prune(graph) if part.until is None else keras_graph.until(graph, part.until)
    for call in graph.calls:
        if call.layer.kind == "InputLayer" and call.inputs:
            message = f"{call.layer} is in the middle of the model; expected it first"
            raise UnsupportedModelError(message)
        if call.layer.kind != "InputLayer" and not call.inputs:
            message = f"{call.layer} is called without an input; expected the output of another layer"
            raise UnsupportedModelError(message)
        if call.training:
            message = (
                f"{call.layer} was called with training=True (Monte-Carlo dropout), so its outputs are random in "
                "Keras too. Save the "
                "model again without it"
            )
            raise UnsupportedModelError(message)
        if call.layer.kind not in kinds.RULES and not call.layer.operation:
            message = f"{kinds.refusal_of(call.layer)}. {_advice(config)}"
            raise UnsupportedModelError(message)
    if not any(call.layer.kind in (*_LSTMS, "Bidirectional") for call in graph.calls):
        inside = next((call.layer for call in graph.calls if call.layer.kind == "TimeDistributed"), None)
        where = "" if inside is None else f", except for what {inside} holds, which starts again at every time-step"
        message = f"the model has no LSTM layer{where}, so there is no state to carry"
        raise UnsupportedModelError(message)
    return graph


def _one(config: ModelConfig, name: str) -> LayerConfig:
    for layer in keras_graph.leaves(config):
        if name in (layer.name, "/".join(layer.path)) and layer.kind in _LSTMS:
            return layer
    found = next((str(layer) for layer in config.layers if layer.name == name), f"no layer {name!r}")
    message = f"--layer {name} asks for an LSTM layer, and the model has {found}. {_advice(config)}"
    raise UnsupportedModelError(message)


def _advice(config: ModelConfig) -> str:
    lstms = ["/".join(layer.path) for layer in keras_graph.leaves(config) if layer.kind in _LSTMS]
    if not lstms:
        return "It has no LSTM layer that could be served alone"
    alone = ", ".join(f"--layer {name}" for name in lstms)
    return f"Its LSTM layers can be served alone, one at a time: {alone}; or the model as far as a layer: --until NAME"


@dataclass(slots=True)
class SpecBuilder:
    """Builds layer specifications from calls, one after the other."""

    graph: CallGraph
    writer: KerasVersion
    file: KerasFile
    limits: LoadLimits
    dtype: np.dtype[Any]
    layers: list[LayerSpec] = field(default_factory=list)
    incoming: list[LayerInput] = field(default_factory=list)
    """What flows, by number."""
    numbers: dict[Tensor, int] = field(default_factory=dict)
    named: dict[Tensor, str] = field(default_factory=dict)
    masks: dict[Tensor, Mask] = field(default_factory=dict)
    """The masks that operations make."""
    stored: dict[tuple[str, ...], tuple[tuple[WeightBlock, ...], Arrays]] = field(default_factory=dict)
    total: int = 0
    steps: int = 0

    def add(self, number: int) -> None:
        """Adds the specifications of a call."""
        call = self.graph.calls[number]
        if call.further:
            message = f"{call.layer} is called with {call.further}, which is not supported"
            raise UnsupportedModelError(message)
        if self._is_mask(call):
            self.masks[Tensor(number, 0)] = self._mask_of(call)
            return
        coming = tuple(self._known(call, tensor) for tensor in (*call.inputs, *call.initial_state))
        if not call.inputs:
            coming = (
                inputs.incoming(self.graph, number, self.file.weights, self.limits, time_major=self.writer.time_major),
            )
        states = len(call.initial_state)
        reading = LayerConfigReader(call.layer, self.writer, coming, self.limits, states, call.mask is not None)
        self._require_own_mask(call, coming[0])
        if call.layer.operation:
            plan = merge.operation(reading, call.numbers, number_first=call.number_first)
        else:
            plan = kinds.plan(reading)
        self._append(number, plan, coming)

    def inputs(self) -> tuple[InputSpec, ...]:
        """Returns the inputs of the model."""
        return tuple(
            InputSpec(
                self.graph.calls[number].layer.name,
                self.incoming[self.numbers[Tensor(number, 0)]].shape,
                self.numbers[Tensor(number, 0)],
                self._vocabulary(self.numbers[Tensor(number, 0)]),
            )
            for number in self.graph.inputs
        )

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Returns the outputs of the model, each under a name of its own."""
        made: dict[str, OutputSpec] = {}
        for tensor in self.graph.outputs:
            if tensor not in self.numbers:
                message = f"the model has no output {tensor.output} of {self.graph.calls[tensor.call].layer}"
                raise UnsupportedModelError(message)
            name, repetition = self.named[tensor], 2
            while name in made:
                name, repetition = f"{self.named[tensor]}/{repetition}", repetition + 1
            number = self.numbers[tensor]
            made[name] = OutputSpec(name, self.incoming[number].shape, number)
        return tuple(made.values())

    def _known(self, call: LayerCall, tensor: Tensor) -> LayerInput:
        if tensor not in self.numbers:
            what = (
                "a mask as a value"
                if tensor in self.masks
                else f"output {tensor.output} of another layer, which has none"
            )
            message = f"{call.layer} is called on {what}"
            raise UnsupportedModelError(message)
        return self.incoming[self.numbers[tensor]]

    def _is_mask(self, call: LayerCall) -> bool:
        """Returns whether a call is an operation on masks."""
        on_masks = any(tensor in self.masks for tensor in call.inputs)
        makes_mask = call.layer.kind in ("NotEqual", "OnesLike", "ZerosLike")
        return call.layer.operation and call.layer.kind in masks.OPERATIONS and (on_masks or makes_mask)

    def _mask_of(self, call: LayerCall) -> Mask:
        if call.layer.kind == "NotEqual" and len(call.inputs) == len(call.numbers) == 1:
            return ("NotEqual", self._known(call, call.inputs[0]).value, float(call.numbers[0]))
        if call.layer.kind in ("OnesLike", "ZerosLike"):
            return masks.of_operation(call.layer.kind, (), None)
        arguments = [self.masks.get(tensor, ("value", self.numbers.get(tensor))) for tensor in call.inputs]
        return masks.of_operation(call.layer.kind, arguments, call.layer.options.get("axis"))

    def _require_own_mask(self, call: LayerCall, coming: LayerInput) -> None:
        """Rejects an explicit mask that differs from the mask of the input."""
        if call.mask is None:
            return
        given = self.masks.get(call.mask)
        if given != (coming.mask or masks.ALL) or given is None:
            message = (
                f"{call.layer} is called with an explicit mask; only the masks of Masking and "
                "Embedding(mask_zero=True) are supported"
            )
            raise UnsupportedModelError(message)

    def _append(self, number: int, plan: LayerPlan, coming: tuple[LayerInput, ...]) -> None:
        call = self.graph.calls[number]
        arrays = iter(self._weights(call.layer, plan))
        name = self._own_name("/".join(call.layer.path), call.repetition)
        values = tuple(item.value for item in coming) if call.inputs else ()
        given = values[: len(values) - len(call.initial_state)]
        states = values[len(given) :]
        if plan.kind == base.STACK:
            for place, part in enumerate(plan.parts):
                described = self._described(f"{name}/{place}", part, arrays, given, ())
                given = (self._number(described, part, ids=False),)
        else:
            described = self._described(name, plan, arrays, given, states)
            self._number(described, plan, ids=_keeps_ids(plan, coming[0]))
        first = len(self.incoming) - len(plan.output_shapes)
        for output in range(len(plan.output_shapes)):
            self.numbers[Tensor(number, output)] = first + output
            self.named[Tensor(number, output)] = name + _suffix(plan, output)

    def _own_name(self, name: str, repetition: int) -> str:
        """Returns a unique name for a call: with its number, if the layer was called before."""
        taken = {layer.name for layer in self.layers}
        own = f"{name}/{repetition + 1}" if repetition else name
        while own in taken:
            repetition += 1
            own = f"{name}/{repetition + 1}"
        return own

    def _number(self, described: LayerSpec, plan: LayerPlan, *, ids: bool) -> int:
        """Adds a layer, numbers its outputs, and returns the first number."""
        first = len(self.incoming)
        self.layers.append(described)
        self._require_bearable(described)
        for output, shape in enumerate(plan.output_shapes):
            both_ways = plan.options.get("merge_mode") == "none" and output == 1
            mask = plan.mask if output == 0 or both_ways else None
            self.incoming.append(LayerInput(shape, mask, first + output, ids))
        return first

    def _require_bearable(self, layer: LayerSpec) -> None:
        """Rejects a layer that would need more memory or time per row than the limits allow."""
        option = {key: value for key, value in layer.options.items() if isinstance(value, int)}
        window = option.get("window", 1) * option.get("dilation_rate", 1)
        reach = max(window, option.get("before", 0) + option.get("after", 0))
        for shape in layer.output_shapes:
            steps, numbers = flow(shape)
            held = window * max(length or 1 for length in shape[-1:])
            self.steps += steps
            if max(steps, reach) > self.limits.steps or max(numbers, held) > self.limits.numbers:
                message = (
                    f"layer {layer.name!r} ({layer.kind}) needs or returns {shape} for each row; expected at most "
                    f"{self.limits.steps} time-steps and {self.limits.numbers} numbers"
                )
                raise UnsupportedModelError(message)
            if self.steps > self.limits.steps_of_all:
                message = (
                    f"up to layer {layer.name!r} ({layer.kind}) the layers compute {self.steps} time-steps for each row; expected "
                    f"at most {self.limits.steps_of_all}"
                )
                raise UnsupportedModelError(message)

    def _described(
        self,
        name: str,
        plan: LayerPlan,
        arrays: Iterator[dict[str, NDArray[Any]]],
        given: tuple[int, ...],
        states: tuple[int, ...],
    ) -> LayerSpec:
        own = next(arrays) if plan.block is not None else {}
        with np.errstate(over="ignore"):  # what is beyond the type becomes infinite, and is refused as such
            weights = {
                key: arrays_of_numbers.freeze(value.astype(self.dtype), f"{key} of layer {name!r}")
                for key, value in plan.weights.items()
            } or own
        labels = ("forward", "backward") if plan.kind == "Bidirectional" else ("layer",)
        parts = tuple(
            self._described(f"{name}/{label}", part, arrays, given, states)
            for label, part in zip(labels, plan.parts, strict=False)
        )
        return LayerSpec(name, plan.kind, plan.options, weights, plan.output_shapes, given, states, parts)

    def _weights(self, layer: LayerConfig, plan: LayerPlan) -> Arrays:
        """Returns the weights of each block of a layer; reads them at its first call."""
        if not plan.blocks:
            return []
        if layer.path in self.stored:
            blocks, arrays = self.stored[layer.path]
            if [block.shapes for block in blocks] != [block.shapes for block in plan.blocks]:
                message = f"{layer} is called on inputs of different widths"
                raise UnsupportedModelError(message)
            return arrays
        self.total += (
            sum(math.prod(shape) for block in plan.blocks for shape in block.shapes.values()) * self.dtype.itemsize
        )
        if self.total > self.limits.file_bytes:
            message = f"the weights up to {layer} take {self.total} bytes; expected at most {self.limits.file_bytes}"
            raise UnsupportedModelError(message)
        stored = self.file.weights.read(layer, plan.blocks, self.dtype)
        arrays = [block.convert(own) if block.convert else own for block, own in zip(plan.blocks, stored, strict=True)]
        self.stored[layer.path] = (plan.blocks, arrays)
        return arrays

    def _vocabulary(self, value: int) -> int | None:
        """Returns the vocabulary size of an input of token ids; None for other inputs."""
        same, sizes, others = {value}, [], []
        first = 0
        for layer in self.layers:
            reads = bool(same & set(layer.inputs))
            if reads and layer.kind == "Embedding":
                sizes.append(layer.weights["embeddings"].shape[0])
            elif reads and not layer.options and not layer.weights and not layer.parts:
                same.add(first)
            elif reads:
                others.append(layer.name)
            first += len(layer.output_shapes)
        if sizes and others:
            message = (
                f"an input is used as token ids by an Embedding, and as numbers by layer {others[0]!r}; "
                "expected one or the other"
            )
            raise UnsupportedModelError(message)
        return min(sizes) if sizes else None


def _keeps_ids(plan: LayerPlan, coming: LayerInput) -> bool:
    """Returns whether the output of a layer is still the unchanged input of the model."""
    return coming.ids and not plan.options and not plan.blocks


def _suffix(plan: LayerPlan, output: int) -> str:
    """Returns the suffix that distinguishes an output of a layer from its first."""
    if output == 0:
        return ""
    return ("", "/h", "/c")[output] if plan.kind == "LSTM" else f"/{output}"
