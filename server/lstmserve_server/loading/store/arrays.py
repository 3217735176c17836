"""Allocates arrays for weights, and validates each array."""

from __future__ import annotations

import math
import mmap
import os
from typing import Any, Final, Protocol

import numpy as np

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.model.types import Array

BFLOAT16: Final = np.dtype("V2")
"""How HDF5 and NumPy show bfloat16, which they do not know: the upper half of a float32."""

_NARROWER: Final = {"float64": ("float64", "float32", "float16"), "float32": ("float32", "float16")}
_BLOCK: Final = 1 << 18  # numbers; what is looked at at once stays in the cache
_MIN_MAPPED_BYTES: Final = 1 << 16  # bytes; smaller arrays are not worth a mapping of their own


class ArrayStore(Protocol):
    """Allocates arrays."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Returns a C-contiguous array whose content is not defined."""
        ...


class HeapStore:
    """Arrays in the memory of this process."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Returns an array: see `ArrayStore`."""
        return np.empty(shape, dtype)


class SharedStore:
    """Arrays in a file that other processes can map, so that no weight is in memory twice; small arrays on the heap."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._offsets: dict[int, int] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Returns an array: see `ArrayStore`."""
        size = math.prod(shape) * dtype.itemsize
        if size < _MIN_MAPPED_BYTES:
            return np.empty(shape, dtype)
        offset = -(-os.lseek(self._file, 0, os.SEEK_END) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        os.ftruncate(self._file, offset + size)
        array = np.frombuffer(mmap.mmap(self._file, size, offset=offset), dtype).reshape(shape)
        self._offsets[_address(array)] = offset
        return array

    def offset(self, array: Array) -> int | None:
        """Returns the offset of an array in the file; None if it is not there."""
        return self._offsets.get(_address(array))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def require_type(stored: np.dtype[Any], wanted: np.dtype[Any], where: str) -> None:
    """Rejects a dtype that does not fit into that of the model.

    Raises:
        UnsupportedModelError: it is wider, or not a floating-point type.
    """
    known = _NARROWER[wanted.name]
    if stored != BFLOAT16 and (stored.name not in known or not stored.isnative):
        message = f"{where} holds {stored}; expected {', '.join(known)} or bfloat16 from the configuration"
        raise UnsupportedModelError(message)


def widen_bfloat16(stored: Array, into: Array) -> None:
    """Writes bfloat16 numbers into an array of the same shape and a wider dtype."""
    into[...] = (stored.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def freeze(array: Array, where: str) -> Array:
    """Checks that an array is finite, and returns it read-only.

    Raises:
        UnsupportedModelError: it holds an infinity or a NaN.
    """
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        finite = np.isfinite(flat[start : start + _BLOCK])
        if not finite.all():
            place = start + int(np.flatnonzero(~finite)[0])
            index = tuple(int(i) for i in np.unravel_index(place, array.shape))
            message = (
                f"{where} holds {flat[place]} at {index}; the weights of a model must be finite. The training "
                "may have diverged"
            )
            raise UnsupportedModelError(message)
    array.flags.writeable = False
    return array
