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
    from collections.abc import Mapping

    from numpy.typing import NDArray

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
_ALIGNMENT: Final = 64  # of every array in the file, a cache line


def write(description: ModelDescription, weights: int) -> dict[str, Any]:
    """Appends the weights of a model to the file with the descriptor `weights`, and returns the rest, fit for JSON."""
    source = description.source
    return {
        "source": [source.file, source.format, source.keras_version],
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "options": {
                    name: {"activation": value.name} if isinstance(value, Activation) else value
                    for name, value in layer.options.items()
                },
                "weights": {
                    name: {"shape": weight.shape, "offset": _append(weight, weights)}
                    for name, weight in layer.weights.items()
                },
                "features": layer.features,
            }
            for layer in description.layers
        ],
        "dtype": description.dtype.name,
        "features": description.features,
        "time": description.time,
        "returns_sequences": description.returns_sequences,
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
        layers=tuple(
            LayerDescription(
                name=str(layer["name"]),
                kind=str(layer["kind"]),
                options={name: _option(value) for name, value in layer["options"].items()},
                weights={name: _view(mapped, weight, dtype) for name, weight in layer["weights"].items()},
                features=int(layer["features"]),
            )
            for layer in form["layers"]
        ),
        dtype=dtype,
        features=int(form["features"]),
        time=None if form["time"] is None else int(form["time"]),
        returns_sequences=bool(form["returns_sequences"]),
    )


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


def _option(value: Any) -> int | float | bool | Activation:
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]  # JSON has no others: numbers and truth values
    activation = activations.defined(value["activation"])
    if activation is None:
        message = f"no activation {value['activation']!r}"
        raise ValueError(message)
    return activation
