"""The one checked description of a model: what every format of file ends in, and what layers are made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmserve_server.activations import Activation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Option = int | float | bool | str | Activation
    Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class LayerDescription:
    """One layer, valid by construction: its weights have the shapes that its options ask for."""

    name: str

    kind: str
    """Class of the layer in Keras."""

    options: Mapping[str, Option]
    """The options that the answer depends on, under their Keras names."""

    weights: Mapping[str, Array]
    """The weights under their Keras names, in the order of Keras; read-only."""

    output_shape: Shape
    """Shape of the output without its batch axis; None for an axis of any length."""

    parts: tuple[LayerDescription, ...] = ()
    """The layers that this one is made of: those of both directions of a Bidirectional."""

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
    def parameter_count(self) -> int:
        """The number of weights."""
        own = sum(weight.size for weight in self.weights.values())
        return own + sum(part.parameter_count for part in self.parts)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from."""

    file: str
    """Name of the file, without its folder."""

    format: str

    keras_version: str
    """Version of the Keras that wrote it; "unknown" where it does not say."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A chain of layers."""

    source: Source

    layers: tuple[LayerDescription, ...]

    dtype: np.dtype[Any]

    input_shape: Shape
    """Shape of the input without its batch axis: (time, features), or (time,) of token ids; None for an axis of any length."""

    vocabulary: int | None = None
    """Where the input is token ids: how many there are."""

    @property
    def parameter_count(self) -> int:
        """The number of weights."""
        return sum(layer.parameter_count for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """The size of the weights in bytes."""
        return self.parameter_count * self.dtype.itemsize

    def digest(self) -> str:
        """Returns the SHA-256 of all that decides the answers, in hexadecimal.

        It covers kind, name, options and weights of every layer that does or remembers something, and neither the file
        nor its format: what one Keras saved as `.keras` and as `.h5` has one digest.
        """
        deciding = [layer for layer in self.layers if layer.options or layer.weights or layer.parts]
        form = {"dtype": self.dtype.name, "layers": [_form(layer) for layer in deciding]}
        digest = hashlib.sha256(json.dumps(form, sort_keys=True, separators=(",", ":")).encode())
        for layer in deciding:
            for part in (layer, *layer.parts):
                for name in sorted(part.weights):
                    weight = part.weights[name]
                    digest.update(np.ascontiguousarray(weight, weight.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    @property
    def features(self) -> int:
        """Length of the last axis of the input; token ids are one feature."""
        features = self.input_shape[1] if len(self.input_shape) > 1 else 1
        if features is None:
            message = f"an input of the shape {self.input_shape} has no number of features"
            raise TypeError(message)
        return features

    @property
    def output_shape(self) -> Shape:
        """Shape of the output without its batch axis."""
        return self.layers[-1].output_shape


def _form(layer: LayerDescription) -> dict[str, Any]:
    form: dict[str, Any] = {
        "kind": layer.kind,
        "name": layer.name,
        "options": layer.shown_options,
        "weights": {name: weight.shape for name, weight in layer.weights.items()},
    }
    if layer.parts:
        form["parts"] = [_form(part) for part in layer.parts]
    return form


def _show(value: Option) -> str:
    if isinstance(value, Activation):
        return value.name
    return str(value).lower() if isinstance(value, bool) else str(value)
