"""Checks arrays that callers send: well formed, finite, and in the range of the model's type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstmserve import tensors
from lstmserve.tensors import TensorError
from lstmserve.v1 import lstm_pb2
from lstmserve_server.core.errors import InvalidRequest, WrongForModel
from lstmserve_server.model.numerics import all_finite
from lstmserve_server.model.types import Array


def decode(message: lstm_pb2.Tensor | None, field: str, default: np.dtype[Any]) -> Array:
    """Returns the array of a tensor; `default` is the dtype of plain values that declare none.

    Raises:
        InvalidRequest: it is missing or malformed.
    """
    if message is None:
        raise InvalidRequest(field, "got nothing, expected a tensor")
    try:
        return tensors.decode(message, default=default)
    except TensorError as error:
        raise InvalidRequest(f"{field}.{error.part}" if error.part else field, error.text) from None


def cast(array: Array, dtype: np.dtype[Any], field: str) -> Array:
    """Returns an array in the dtype of the model.

    Raises:
        WrongForModel: a number does not fit.
    """
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # a signaling NaN warns; `finite` refuses it
        made = array.astype(dtype)
    overflowed = np.isinf(made) & np.isfinite(array)
    if overflowed.any():
        index = first(overflowed)
        raise WrongForModel(
            field, f"{array[index]} at {format_shape(index)} does not fit {dtype.name}, the type of the model"
        )
    return made


def finite(array: Array, field: str) -> Array:
    """Returns the array if all its elements are finite.

    Raises:
        InvalidRequest: a number in it is not finite.
    """
    if not all_finite(array):
        index = first(~np.isfinite(array))
        raise InvalidRequest(field, f"got {array[index]} at {format_shape(index)}, expected finite numbers")
    return array


def first(mask: Array) -> tuple[int, ...]:
    """Returns the index of the first true element."""
    return tuple(int(i) for i in np.argwhere(mask)[0])


def format_shape(shape: Sequence[int]) -> str:
    """Returns a shape or an index as text."""
    return f"({', '.join(map(str, shape))})"
