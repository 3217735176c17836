"""Reads weights saved with NumPy: `np.savez(file, *model.get_weights())`."""

from __future__ import annotations

import contextlib
import io
import math
import re
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.keras_file import KerasFile, features_of_kernel, read_listed
from lstmserve_server.loading.build.rules.base import WeightBlock
from lstmserve_server.loading.config import keras_graph
from lstmserve_server.loading.config.keras_config import LayerConfig, ModelConfig
from lstmserve_server.loading.containers.archive import Archive
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.formats import architecture
from lstmserve_server.loading.formats.hdf5_weights import are_of_an_lstm, require_all_or_none_frozen
from lstmserve_server.loading.store import arrays
from lstmserve_server.model.spec import Source

SIGNATURE: Final = b"\x93NUMPY"
LONE_ARRAY: Final = (
    "this is one array of NumPy, and a list of weights in such a file is a pickle, which can run code when it is "
    "loaded. Save them as "
    "np.savez('weights.npz', *model.get_weights())"
)

_HEADER_BYTES: Final = 10_000
_NUMBER: Final = re.compile(r"arr_(\d{1,6})\.npy")


def are_in(members: Archive) -> bool:
    """Returns whether an archive is one of NumPy's."""
    names = members.names()
    return bool(names) and all(name.endswith(".npy") for name in names)


@contextlib.contextmanager
def read_archive(members: Archive, place: ModelSource) -> Iterator[KerasFile]:
    """Opens the model whose weights an `.npz` file lists, layer by layer, with the architecture that is found for it.

    Raises:
        UnsupportedModelError: it is no such list, or the architecture does not fit.
    """
    names = _in_order(members.names())
    shapes = [_Array(members, name, place).shape for name in names]
    found = architecture.find(place)
    if found is None:
        if not are_of_an_lstm(shapes):
            raise architecture.missing("the file")
        found = architecture.of_one_lstm(shapes[0], len(shapes), None, place)
    weights = ListedWeights([_Array(members, name, place) for name in names], found.config)
    yield KerasFile(found.config, weights, Source(place.name, "numpy-npz", found.version, found.remarks))


def _in_order(names: Sequence[str]) -> list[str]:
    """Returns names of members in the order in which their arrays were saved."""
    numbers = [_NUMBER.fullmatch(name) for name in names]
    found = [int(number[1]) for number in numbers if number is not None]
    if sorted(found) != list(range(len(names))):
        message = (
            f"the archive holds {', '.join(name[:64] for name in names[:8])}; expected arr_0.npy, arr_1.npy and so on, as "
            "np.savez('weights.npz', *model.get_weights()) writes them"
        )
        raise UnsupportedModelError(message)
    return [f"arr_{number}.npy" for number in range(len(names))]


class _Array:
    """One array of an archive whose header has been read."""

    def __init__(self, members: Archive, name: str, place: ModelSource) -> None:
        self.name = name
        self._members = members
        self._place = place
        with members.open(name) as file:
            self.shape, self._fortran, self._dtype = _header(file, name)
            self._begin = file.tell()
            size = file.seek(0, io.SEEK_END) - self._begin
        if size != math.prod(self.shape) * self._dtype.itemsize:
            message = f"{name} declares {self.shape} of {self._dtype} and holds {size} bytes; the file is damaged"
            raise UnsupportedModelError(message)

    def read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Returns the array in the expected shape and dtype."""
        if self.shape != shape:
            message = f"{self.name} has the shape {self.shape}; expected {shape} from the configuration"
            raise UnsupportedModelError(message)
        arrays.require_type(self._dtype, dtype, self.name)
        array = self._place.store.empty(shape, dtype)
        with self._members.open(self.name) as file:
            file.seek(self._begin)
            stored = np.frombuffer(file.read(), self._dtype).reshape(shape, order="F" if self._fortran else "C")
        if self._dtype == arrays.BFLOAT16:
            arrays.widen_bfloat16(np.ascontiguousarray(stored), array)
        else:
            array[...] = stored
        return arrays.freeze(array, self.name)


def _header(file: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Reads shape, order and type of an array; never a pickle."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            message = f"it is of version {version[0]}.{version[1]}; expected 1.0, 2.0 or 3.0"
            raise ValueError(message)  # noqa: TRY301 - as NumPy does for what it finds
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=_HEADER_BYTES)
    except (
        ValueError,
        TypeError,
        EOFError,
        SyntaxError,
        KeyError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        message = f"{name} is not an array of NumPy: {error}"
        raise UnsupportedModelError(message) from error
    if dtype.hasobject:
        message = (
            f"{name} is a pickle, which can run code when it is loaded. Save weights as np.savez('weights.npz', "
            "*model.get_weights())"
        )
        raise UnsupportedModelError(message)
    if any(type(length) is not int or length < 0 for length in shape):
        message = f"{name} has the shape {shape}; expected integers"
        raise UnsupportedModelError(message)
    return shape, fortran, dtype


class ListedWeights:
    """Weights in the order of `model.get_weights()`: layer by layer, and of each layer in the order of Keras."""

    def __init__(self, listed: Sequence[_Array], config: ModelConfig) -> None:
        self._of_layer: dict[tuple[str, ...], Sequence[_Array]] = {}
        rest = list(listed)
        for layer in keras_graph.leaves(config):
            count = _count(layer.kind, layer.options)
            self._of_layer[layer.path] = rest[:count]
            rest = rest[count:]
        if rest or sum(len(own) for own in self._of_layer.values()) != len(listed):
            expected = sum(_count(layer.kind, layer.options) for layer in keras_graph.leaves(config))
            message = f"the file holds {len(listed)} arrays, and the architecture asks for {expected}. Do they belong together?"
            raise UnsupportedModelError(message)

    def read(
        self, layer: LayerConfig, blocks: Sequence[WeightBlock], dtype: np.dtype[Any]
    ) -> list[dict[str, NDArray[Any]]]:
        """Returns the weights of each block: see `WeightSource`."""
        own, expected = self._of_layer[layer.path], [name for block in blocks for name in block.shapes]
        if len(own) != len(expected):
            message = f"{layer} would have {len(own)} of the arrays; expected {len(expected)}: {', '.join(expected)}"
            raise UnsupportedModelError(message)
        require_all_or_none_frozen(layer, blocks)
        return read_listed(own, blocks, lambda array, shape: array.read(shape, dtype))

    def features_of(self, layer: LayerConfig) -> int:
        """Returns the number of input features of a layer: see `WeightSource`."""
        own = self._of_layer[layer.path]
        return features_of_kernel(layer, own[0].shape if own else ())


def _count(kind: str, options: Mapping[str, Any]) -> int:  # noqa: PLR0911 - one for each kind
    """Returns how many weights a layer has."""

    def inner(value: Any) -> int:
        config = value.get("config") if isinstance(value, dict) else None
        return _count(str(value.get("class_name")), config) if isinstance(config, dict) else 0

    biased = bool(options.get("use_bias", True))
    match kind:
        case "LSTM" | "LSTMCell" | "CuDNNLSTM":
            return 2 + biased
        case "RNN":
            cell = options.get("cell")
            config = cell.get("config") if isinstance(cell, dict) else None
            cells = config.get("cells") if isinstance(config, dict) else None
            return sum(map(inner, cells)) if isinstance(cells, list) else inner(cell)
        case "Bidirectional":
            return inner(options.get("layer")) + inner(options.get("backward_layer") or options.get("layer"))
        case "TimeDistributed":
            return inner(options.get("layer"))
        case "Dense" | "Conv1D":
            return 1 + biased
        case "BatchNormalization" | "LayerNormalization":
            moving = 2 if kind == "BatchNormalization" else 0
            return bool(options.get("scale", True)) + bool(options.get("center", True)) + moving
        case "Normalization":
            return 3 if options.get("mean") is None else 0
        case _:
            return int(kind in ("Embedding", "PReLU"))
