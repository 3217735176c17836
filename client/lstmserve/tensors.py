"""Converts NumPy arrays to `Tensor` messages and back.

Messages are untrusted. Every number is checked before anything depends on it, in the order of use: type, shape, element count, byte
count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lstmserve.v1 import lstm_pb2

MAX_RANK: Final = 8
"""A tensor has at most this many dimensions; no request needs more than three."""

_MAX_ELEMENTS: Final = 2**31  # a message of protobuf holds fewer bytes

_BFLOAT16: Final = "bfloat16"  # NumPy has no such type; ml_dtypes adds one of this name

_WIRE: Final[dict[lstm_pb2.DataType, np.dtype[Any]]] = {
    lstm_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    lstm_pb2.DATA_TYPE_BFLOAT16: np.dtype("<u2"),
    lstm_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    lstm_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    lstm_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    lstm_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
}
_ENUM: Final = {
    "float16": lstm_pb2.DATA_TYPE_FLOAT16,
    _BFLOAT16: lstm_pb2.DATA_TYPE_BFLOAT16,
    "float32": lstm_pb2.DATA_TYPE_FLOAT32,
    "float64": lstm_pb2.DATA_TYPE_FLOAT64,
    "int32": lstm_pb2.DATA_TYPE_INT32,
    "int64": lstm_pb2.DATA_TYPE_INT64,
}
_NATIVE: Final = {np.dtype(name): dtype for name, dtype in _ENUM.items() if name != _BFLOAT16}


class TensorError(ValueError):
    """A tensor is wrong; `part` is "dtype", "shape", "data", "values" or "" for the whole."""

    def __init__(self, part: str, text: str) -> None:
        super().__init__(text)
        self.part = part
        self.text = text


def encode(array: ArrayLike, *, as_values: bool = False) -> lstm_pb2.Tensor:
    """Returns `array` as a message, in the array's own type.

    With `as_values` the elements are plain numbers, else little-endian bytes.

    Raises:
        TypeError: the type of the array has no place in a `Tensor` (complex, text, ...).
    """
    array = np.asarray(array)
    dtype = _NATIVE.get(array.dtype) or _ENUM.get(array.dtype.name)  # a name takes NumPy longer than the rest of this
    if dtype is None:
        message = f"an array of {array.dtype.name} cannot be sent; expected one of {', '.join(_ENUM)}"
        raise TypeError(message)
    if as_values:
        return lstm_pb2.Tensor(dtype=dtype, shape=array.shape, values=array.ravel().tolist())
    if dtype == lstm_pb2.DATA_TYPE_BFLOAT16:
        array = array.view(np.uint16)
    little_endian = np.asarray(array, dtype=_WIRE[dtype])
    return lstm_pb2.Tensor(dtype=dtype, shape=array.shape, data=little_endian.tobytes())


def decode(tensor: lstm_pb2.Tensor, *, default: DTypeLike | None = None) -> NDArray[Any]:
    """Returns the array that `tensor` holds, read-only and without a copy where it came as `data`.

    `default` is the type of `values` that come without one. bfloat16 becomes float32, which holds every value of it.

    Raises:
        TensorError: the message is not well formed.
    """
    shape, count = _checked_shape(tensor.shape)
    data = tensor.data  # protobuf copies it each time that it is asked for
    if data and tensor.values:
        raise TensorError("", "both data and values are set; expected one of them")
    if data:
        return _from_data(tensor.dtype, data, shape, count)
    if not tensor.values and count:
        raise TensorError("", f"neither data nor values is set; expected {count} elements for the shape {_show(shape)}")
    return _from_values(tensor, shape, count, default)


def _checked_shape(shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Returns a shape, and the number of elements."""
    if len(shape) > MAX_RANK:
        raise TensorError("shape", f"got {len(shape)} dimensions, expected at most {MAX_RANK}")
    lengths = tuple(shape)
    if lengths and min(lengths) < 0:
        raise TensorError("shape", f"{_show(lengths)} has a negative dimension")
    count = math.prod(lengths)  # Python's integers do not overflow
    # Zeros apart: NumPy cannot hold the shape (2**62, 0, 2) either.
    if (count or math.prod(filter(None, lengths))) > _MAX_ELEMENTS:
        raise TensorError("shape", f"{_show(lengths)} is larger than any message")
    return lengths, count


def _from_data(dtype: lstm_pb2.DataType, data: bytes, shape: tuple[int, ...], count: int) -> NDArray[Any]:
    wire = _WIRE.get(dtype)
    if wire is None:
        names = ", ".join(lstm_pb2.DataType.Name(dtype) for dtype in _WIRE)
        raise TensorError("dtype", f"got {_dtype_name(dtype)} with data, expected one of {names}")
    expected = count * wire.itemsize
    if len(data) != expected:
        raise TensorError(
            "data",
            f"got {len(data)} bytes, expected {expected}: "
            f"{count} elements for the shape {_show(shape)}, {wire.itemsize} bytes each",
        )
    array = np.frombuffer(data, wire).reshape(shape)
    return _widen_bfloat16(array) if dtype == lstm_pb2.DATA_TYPE_BFLOAT16 else array


def _from_values(
    tensor: lstm_pb2.Tensor, shape: tuple[int, ...], count: int, default: DTypeLike | None
) -> NDArray[Any]:
    if len(tensor.values) != count:
        raise TensorError("values", f"got {len(tensor.values)}, expected {count} for the shape {_show(shape)}")
    values = np.array(tensor.values, np.float64).reshape(shape)
    if tensor.dtype == lstm_pb2.DATA_TYPE_UNSPECIFIED:
        return _rounded(values, np.dtype(default)) if default is not None else values
    if tensor.dtype not in _WIRE:
        raise TensorError("dtype", f"got {_dtype_name(tensor.dtype)}, expected one of the names of DataType")
    if tensor.dtype == lstm_pb2.DATA_TYPE_BFLOAT16:
        return _round_to_bfloat16(_rounded(values, np.dtype(np.float32)))
    return _rounded(values, _WIRE[tensor.dtype])


def _rounded(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns `values` in `dtype`, or says which of them does not fit."""
    with np.errstate(over="ignore", invalid="ignore"):
        array = values.astype(dtype)
        fits = np.isfinite(array) | ~np.isfinite(values) if dtype.kind == "f" else array == values
    if not fits.all():
        index = tuple(int(i) for i in np.argwhere(~fits)[0])
        raise TensorError("values", f"{float(values[index])!r} at {_show(index)} does not fit {dtype.name}")
    return array


def _widen_bfloat16(upper_halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (upper_halves.astype(np.uint32) << 16).view(np.float32)


def _round_to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounds to the nearest bfloat16, ties to even; a NaN or an infinity stays what it is."""
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(values), rounded.view(np.float32), values)


def _dtype_name(dtype: int) -> str:
    return lstm_pb2.DataType.Name(dtype) if dtype in lstm_pb2.DataType.values() else f"number {dtype}"


def _show(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
