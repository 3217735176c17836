"""Moves model specifications between two processes: JSON for what is small, one memory file for the weights.

What the sandboxed process sends is untrusted: a file may have taken it over.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstmserve.text import printable
from lstmserve_server.loading.store import arrays
from lstmserve_server.loading.store.arrays import SharedStore
from lstmserve_server.loading.store.limits import LoadLimits, flow
from lstmserve_server.model import activations
from lstmserve_server.model.activations import Activation
from lstmserve_server.model.spec import InputSpec, LayerSpec, ModelSpec, Option, OutputSpec, Shape, Source

_DTYPES: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
_LIMITS: Final = LoadLimits()
ALIGNMENT: Final = 64
"""Bytes to a multiple of which every array in the file begins: a cache line."""


def dump(description: ModelSpec, store: SharedStore, file: int) -> dict[str, Any]:
    """Returns a model as JSON data. Its weights are already in `file`, where `store` put them, or are appended."""
    source = description.source
    offsets = {id(weight): _offset(weight, store, file) for weight in description.weights}
    return {
        "source": [source.file, source.format, source.keras_version, list(source.remarks)],
        "layers": [_written(layer, offsets) for layer in description.layers],
        "dtype": description.dtype.name,
        "inputs": [[item.name, item.shape, item.value, item.vocabulary] for item in description.inputs],
        "outputs": [[item.name, item.shape, item.value] for item in description.outputs],
    }


def load(form: Mapping[str, Any], weights: int) -> ModelSpec:
    """Returns the model that `dump` has written. Its weights are a view of the file: mapped, shared and read-only.

    Raises:
        ValueError, TypeError, KeyError: it is not an output of `dump`.
    """
    file, kind, version, remarks = form["source"]
    reading = _Reader(_DTYPES[form["dtype"]], _mapped(weights))
    description = ModelSpec(
        Source(printable(file), printable(kind), printable(version), tuple(map(printable, remarks))),
        tuple(reading.layer(layer) for layer in form["layers"]),
        reading.dtype,
        tuple(
            InputSpec(printable(name), _shape(shape), int(value), None if words is None else int(words))
            for name, shape, value, words in form["inputs"]
        ),
        tuple(OutputSpec(printable(name), _shape(shape), int(value)) for name, shape, value in form["outputs"]),
    )
    _require_graph(description)
    return description


def _mapped(weights: int) -> mmap.mmap | bytes:
    return mmap.mmap(weights, 0, prot=mmap.PROT_READ) if os.fstat(weights).st_size else b""


def _require_bearable(layer: LayerSpec) -> None:
    """Rejects what no loader accepts: sizes beyond the limits, and weights that do not belong to a layer."""
    numbers = [value for value in layer.options.values() if isinstance(value, int)]
    for shape in layer.output_shapes:
        steps, flowing = flow(shape)
        if (
            not all(length is None or length > 0 for length in shape)
            or steps > _LIMITS.steps
            or flowing > _LIMITS.numbers
        ):
            message = f"layer {layer.name!r} gives {shape}"
            raise ValueError(message)
    if any(abs(number) > _LIMITS.numbers for number in numbers):
        message = f"layer {layer.name!r} has the options {numbers}"
        raise ValueError(message)
    shapes = {name: weight.shape for name, weight in layer.weights.items()}
    if layer.kind == "LSTM":
        units = int(layer.options["units"])  # type: ignore[arg-type]  # checked by its use
        expected = {
            "kernel": (*shapes["kernel"][:1], 4 * units),
            "recurrent_kernel": (units, 4 * units),
            "bias": (4 * units,),
        }
        if any(shapes[name] != expected.get(name) for name in shapes) or "recurrent_kernel" not in shapes:
            message = f"LSTM {layer.name!r} has weights of the shapes {shapes}"
            raise ValueError(message)
    for part in layer.parts:
        _require_bearable(part)


def _require_graph(description: ModelSpec) -> None:
    """Rejects a graph with an edge that does not come from an earlier layer."""
    known = 0
    for layer in description.layers:
        _require_bearable(layer)
        if not all(0 <= number < known for number in (*layer.inputs, *layer.initial_state)):
            message = f"layer {layer.name!r} is called on what does not exist"
            raise ValueError(message)
        known += len(layer.output_shapes)
    sources = sum(not layer.inputs for layer in description.layers)
    ends = [item.value for item in description.inputs] + [item.value for item in description.outputs]
    if sources != len(description.inputs) or not description.outputs or not all(0 <= end < known for end in ends):
        message = "the inputs or outputs of the model do not exist"
        raise ValueError(message)


def _written(layer: LayerSpec, offsets: Mapping[int, int]) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "options": {
            name: {"activation": value.name} if isinstance(value, Activation) else value
            for name, value in layer.options.items()
        },
        "weights": {
            name: {"shape": weight.shape, "offset": offsets[id(weight)]} for name, weight in layer.weights.items()
        },
        "output_shapes": layer.output_shapes,
        "inputs": layer.inputs,
        "initial_state": layer.initial_state,
        "parts": [_written(part, offsets) for part in layer.parts],
    }


class _Reader:
    """Rebuilds layers from their dumped form, with weights in the mapped file."""

    def __init__(self, dtype: np.dtype[Any], mapped: mmap.mmap | bytes) -> None:
        self.dtype = dtype
        self._mapped = mapped
        self._bytes = 0
        """Of the arrays so far, each of which has a place of its own."""
        self._known: dict[tuple[int, tuple[int, ...]], NDArray[Any]] = {}

    def layer(self, form: Mapping[str, Any]) -> LayerSpec:
        """Returns a layer."""
        return LayerSpec(
            name=printable(form["name"]),
            kind=printable(form["kind"]),
            options={name: _option(value) for name, value in form["options"].items()},
            weights={name: self._weight(weight) for name, weight in form["weights"].items()},
            output_shapes=tuple(_shape(shape) for shape in form["output_shapes"]),
            inputs=tuple(map(int, form["inputs"])),
            initial_state=tuple(map(int, form["initial_state"])),
            parts=tuple(self.layer(part) for part in form["parts"]),
        )

    def _weight(self, form: Mapping[str, Any]) -> NDArray[Any]:
        """Returns the array at an offset; always the same object."""
        shape, offset = tuple(int(length) for length in form["shape"]), int(form["offset"])
        if min(shape, default=0) < 0:
            message = f"a weight has the shape {shape}"
            raise ValueError(message)
        if (offset, shape) not in self._known:
            self._bytes += int(np.prod(shape, dtype=object)) * self.dtype.itemsize
            if self._bytes > len(self._mapped):
                raise ValueError("the weights take more bytes than the file holds: some of them overlap")
            # frombuffer checks the number of bytes, and reshape the number of elements.
            array = np.frombuffer(self._mapped, self.dtype, count=int(np.prod(shape, dtype=object)), offset=offset)
            self._known[offset, shape] = arrays.freeze(array.reshape(shape), "a weight")
        return self._known[offset, shape]


def _shape(lengths: Sequence[Any]) -> Shape:
    return tuple(None if length is None else int(length) for length in lengths)


def _offset(array: NDArray[Any], store: SharedStore, file: int) -> int:
    """Returns the offset of an array in a file; appends it if it is missing."""
    found = store.offset(array)
    if found is not None:
        return found
    offset = -(-os.lseek(file, 0, os.SEEK_END) // ALIGNMENT) * ALIGNMENT
    os.lseek(file, offset, os.SEEK_SET)
    rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while rest:
        rest = rest[os.write(file, rest) :]
    return offset


def _option(value: Any) -> Option:
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]  # JSON has no others
    activation = activations.activation_by_definition(value["activation"])
    if activation is None:
        message = f"no activation {value['activation']!r}"
        raise ValueError(message)
    return activation
