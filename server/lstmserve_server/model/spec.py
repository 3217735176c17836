"""The checked specification of a model: what every format is loaded into, and what layers are made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lstmserve_server.model.activations import Activation
from lstmserve_server.model.types import Array

Option = int | float | bool | str | Activation
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One call of a layer, valid by construction: its weights have the shapes that its options ask for.

    What flows between layers is numbered: the outputs of the first layer, then those of the second, and so on. A layer
    that is called twice is listed twice, with the same weights.
    """

    name: str

    kind: str
    """Class of the layer in Keras."""

    options: Mapping[str, Option]
    """The options that the answer depends on, under their Keras names."""

    weights: Mapping[str, Array]
    """The weights under their Keras names, in the order of Keras; read-only."""

    output_shapes: tuple[Shape, ...]
    """Shape of each output without its batch axis; None for an axis of any length."""

    inputs: tuple[int, ...] = ()
    """The numbers of what it is called on; none for an InputLayer."""

    initial_state: tuple[int, ...] = ()
    """The numbers of the h and c that it begins with, for each direction; none where they are the caller's."""

    parts: tuple[LayerSpec, ...] = ()
    """The layers that this one is made of: those of both directions of a Bidirectional, the one in a TimeDistributed."""

    @property
    def activations(self) -> dict[str, Activation]:
        """The options that are activations."""
        return {name: value for name, value in self.options.items() if isinstance(value, Activation)}

    @property
    def texts(self) -> dict[str, str]:
        """The options that are text."""
        return {name: value for name, value in self.options.items() if isinstance(value, str)}

    @property
    def shown_options(self) -> dict[str, str]:
        """The options, each as text."""
        return {name: _show(value) for name, value in self.options.items()}

    @property
    def all_weights(self) -> Iterator[Array]:
        """The weights of the layer and of its parts."""
        yield from self.weights.values()
        for part in self.parts:
            yield from part.all_weights

    @property
    def parameter_count(self) -> int:
        """The number of weights."""
        return sum(weight.size for weight in self.all_weights)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from."""

    file: str
    """Name of the file, without its folder."""

    format: str

    keras_version: str
    """Version of the Keras that wrote it; "unknown" where it does not say."""

    remarks: tuple[str, ...] = ()
    """What someone who serves it should know: each a sentence."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input of a model."""

    name: str

    shape: Shape
    """Shape without its batch axis: (time, features) or more axes, (time,) of token ids, or (features,); None for an axis of
    any length."""

    value: int
    """The number under which layers know it."""

    vocabulary: int | None = None
    """Where it is token ids: how many there are."""

    @property
    def sequence(self) -> bool:
        """Whether it has a time axis."""
        return len(self.shape) > 1 or self.vocabulary is not None

    @property
    def features(self) -> Shape:
        """Shape of one time-step, or of the whole where there is no time axis; token ids are one feature."""
        return (1,) if self.vocabulary is not None else self.shape[1:] if self.sequence else self.shape


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output of a model."""

    name: str

    shape: Shape
    """Shape without its batch axis; None for an axis of any length."""

    value: int
    """The number under which layers know it."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A graph of layers."""

    source: Source

    layers: tuple[LayerSpec, ...]
    """In an order in which each follows those that it is called on."""

    dtype: np.dtype[Any]

    inputs: tuple[InputSpec, ...]

    outputs: tuple[OutputSpec, ...]

    @property
    def parameter_count(self) -> int:
        """The number of weights, each counted once."""
        return sum(weight.size for weight in self.weights)

    @property
    def weights(self) -> list[Array]:
        """All arrays of weights, each once."""
        every = {id(weight): weight for layer in self.layers for weight in layer.all_weights}
        return list(every.values())

    @property
    def weight_bytes(self) -> int:
        """The size of the weights in bytes."""
        return self.parameter_count * self.dtype.itemsize

    def digest(self) -> str:
        """Returns the SHA-256 of everything that determines the outputs, in hexadecimal.

        It covers kind, name, options and weights of every layer that computes or remembers something, and how they are
        connected. It covers neither the file nor its format: the same model saved as `.keras` and as `.h5` has one digest.
        """
        numbers = _meaningful_numbers(self.layers)
        deciding = [layer for layer in self.layers if _decides(layer)]
        form = {
            "dtype": self.dtype.name,
            "inputs": [[item.name, numbers[item.value]] for item in self.inputs[1:]],
            "layers": [_form(layer, numbers) for layer in deciding],
            "outputs": [numbers[item.value] for item in self.outputs],
        }
        digest = hashlib.sha256(json.dumps(form, sort_keys=True, separators=(",", ":")).encode())
        for layer in deciding:
            for weight in _in_order(layer):
                digest.update(np.ascontiguousarray(weight, weight.dtype.newbyteorder("<")).data)
        return digest.hexdigest()


def _decides(layer: LayerSpec) -> bool:
    """Returns whether a layer computes or remembers something."""
    return bool(layer.options or layer.weights or layer.parts)


def _meaningful_numbers(layers: tuple[LayerSpec, ...]) -> list[int]:
    """Renumbers the values, so that layers without effect do not count."""
    numbers: list[int] = []
    count = 0
    for layer in layers:
        if layer.inputs and not _decides(layer):
            numbers.append(numbers[layer.inputs[0]])
            continue
        numbers += range(count, count + len(layer.output_shapes))
        count += len(layer.output_shapes)
    return numbers


def _form(layer: LayerSpec, numbers: list[int]) -> dict[str, Any]:
    form: dict[str, Any] = {
        "kind": layer.kind,
        "name": layer.name,
        "options": layer.shown_options,
        "weights": {name: weight.shape for name, weight in layer.weights.items()},
        "inputs": [numbers[value] for value in layer.inputs],
        "initial_state": [numbers[value] for value in layer.initial_state],
        "outputs": len(layer.output_shapes),
    }
    if layer.parts:
        form["parts"] = [_form(part, numbers) for part in layer.parts]
    return form


def _in_order(layer: LayerSpec) -> Iterator[Array]:
    for name in sorted(layer.weights):
        yield layer.weights[name]
    for part in layer.parts:
        yield from _in_order(part)


def _show(value: Option) -> str:
    if isinstance(value, Activation):
        return value.name
    return str(value).lower() if isinstance(value, bool) else str(value)
