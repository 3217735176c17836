"""Descriptions between two processes: JSON for what is small, and one file in memory for the weights.

What comes back from the loader's process is checked like any stranger's word: a parser of HDF5 worked there, on a file that
may have been made to take it over.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lstmserve_server import activations
from lstmserve_server.activations import Activation
from lstmserve_server.description import LayerDescription, ModelDescription, Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from lstmserve_server.description import Option, Shape

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
_ALIGNMENT: Final = 64  # of every array in the file, a cache line


def write(description: ModelDescription, weights: int) -> dict[str, Any]:
    """Appends the weights of a model to the file with the descriptor `weights`, and returns the rest, fit for JSON."""
    source = description.source
    return {
        "source": [source.file, source.format, source.keras_version],
        "layers": [_written(layer, weights) for layer in description.layers],
        "dtype": description.dtype.name,
        "input_shape": description.input_shape,
        "vocabulary": description.vocabulary,
    }


def read(form: Mapping[str, Any], weights: int) -> ModelDescription:
    """Returns the model that `write` wrote. Its weights are a view of the file: mapped, shared and read-only.

    Raises:
        ValueError, TypeError, KeyError: it is not what `write` writes.
    """
    dtype: np.dtype[Any] = _DTYPES[form["dtype"]]
    mapped = mmap.mmap(weights, 0, prot=mmap.PROT_READ) if os.fstat(weights).st_size else b""
    return ModelDescription(
        source=Source(*map(str, form["source"])),
        layers=tuple(_read(layer, mapped, dtype) for layer in form["layers"]),
        dtype=dtype,
        input_shape=_shape(form["input_shape"]),
        vocabulary=None if form["vocabulary"] is None else int(form["vocabulary"]),
    )


def _written(layer: LayerDescription, weights: int) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "options": {
            name: {"activation": value.name} if isinstance(value, Activation) else value
            for name, value in layer.options.items()
        },
        "weights": {
            name: {"shape": weight.shape, "offset": _append(weight, weights)} for name, weight in layer.weights.items()
        },
        "output_shape": layer.output_shape,
        "parts": [_written(part, weights) for part in layer.parts],
    }


def _read(layer: Mapping[str, Any], mapped: mmap.mmap | bytes, dtype: np.dtype[Any]) -> LayerDescription:
    return LayerDescription(
        name=str(layer["name"]),
        kind=str(layer["kind"]),
        options={name: _option(value) for name, value in layer["options"].items()},
        weights={name: _view(mapped, weight, dtype) for name, weight in layer["weights"].items()},
        output_shape=_shape(layer["output_shape"]),
        parts=tuple(_read(part, mapped, dtype) for part in layer["parts"]),
    )


def _shape(lengths: Sequence[Any]) -> Shape:
    return tuple(None if length is None else int(length) for length in lengths)


def _append(array: NDArray[Any], file: int) -> int:
    """Writes an array behind the end of a file, and returns where it begins."""
    offset = -(-os.lseek(file, 0, os.SEEK_END) // _ALIGNMENT) * _ALIGNMENT
    os.lseek(file, offset, os.SEEK_SET)
    rest = array.reshape(-1).view(np.uint8).data
    while rest:
        rest = rest[os.write(file, rest) :]
    return offset


def _view(mapped: mmap.mmap | bytes, weight: Mapping[str, Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    shape = tuple(int(length) for length in weight["shape"])
    if min(shape) < 0:
        message = f"a weight has the shape {shape}"
        raise ValueError(message)
    # frombuffer checks that the file holds so many bytes, and reshape that they are so many elements.
    array = np.frombuffer(mapped, dtype, count=int(np.prod(shape, dtype=object)), offset=int(weight["offset"]))
    array = array.reshape(shape)
    if not np.isfinite(array).all():
        message = "a weight is not finite"
        raise ValueError(message)
    return array


def _option(value: Any) -> Option:
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]  # JSON has no others
    activation = activations.defined(value["activation"])
    if activation is None:
        message = f"no activation {value['activation']!r}"
        raise ValueError(message)
    return activation
