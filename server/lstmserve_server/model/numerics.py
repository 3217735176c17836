"""The two modes of matrix products; in exact mode, a row has the same bytes in any batch."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import threadpoolctl

from lstmserve_server.model.types import Array


class Numerics(enum.Enum):
    """The mode of a model."""

    EXACT = "exact"
    """A row's answer has the same bytes whatever rows it is computed with."""

    FAST = "fast"
    """One product for all rows: faster, and a row's answer moves by rounding errors with its company."""


class Engine(enum.Enum):
    """Library that computes the LSTM layers."""

    NUMPY = "numpy"
    """`lstm`, the reference."""

    ONNXRUNTIME = "onnxruntime"
    """ONNX Runtime's LSTM operator where it computes what Keras does, and NumPy elsewhere."""


class Product(Protocol):
    """Multiplies rows with a matrix: `matmul(x, w, out)`, (..., n) by (n, m) into (..., m)."""

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        """Writes the product into `out`, which must be C-contiguous and not overlap the others."""

    def bind(self, x: Array, w: Array, out: Array) -> Callable[[], object]:
        """Returns a function that multiplies the current content of `x` whenever it is called."""


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """Mode of matrix products, dtype and engine of a model."""

    matmul: Product

    dtype: np.dtype[Any]
    """Of weights, states and all that flows between layers."""

    numerics: Numerics = Numerics.EXACT

    engine: Engine = Engine.NUMPY

    @property
    def quick(self) -> bool:
        """Whether faster activations with other rounding are allowed."""
        return self.numerics is Numerics.FAST


def all_finite(x: Array) -> bool:
    """Returns whether no number is infinite or NaN."""
    # The sum of the squares tells of most arrays at once; where it overflows, each number is looked at.
    return math.isfinite(np.vdot(x, x)) or bool(np.isfinite(x).all())


def matmul_of(numerics: Numerics) -> Product:
    """Returns the matrix product of a mode, and binds the BLAS of this process to one thread.

    Shared among threads, a product of few long columns is added up in another order (OpenBLAS, gemv of 65536 by 16 in
    float32), and other bytes come out. And threads that wait for their next share keep the CPUs busy that others need.
    """
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")
    return _AtOnce() if numerics is Numerics.FAST else _RowByRow()


class _RowByRow:
    """Each row is a vector-matrix product of its own (BLAS gemv).

    A plain x @ w is one gemm, whose kernel treats a row differently with its place and with the number of rows.
    """

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        self.bind(x, w, out)()

    def bind(self, x: Array, w: Array, out: Array) -> Callable[[], object]:
        # One row is the same gemv with less of NumPy around it; but of two numbers `dot` keeps the sign of a zero.
        if x.size == x.shape[-1] and w.size > 1:
            return partial(x.reshape(-1).dot, w, out.reshape(-1))
        # As a stack of (1, n) by (n, m) the rows are multiplied one by one inside NumPy's loop.
        return partial(np.matmul, x[..., None, :], w, out[..., None, :])


class _AtOnce:
    """One product for all rows (BLAS gemm)."""

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        # With more than two axes NumPy would make a product for each of the first.
        np.matmul(x.reshape(-1, x.shape[-1]), w, out.reshape(-1, out.shape[-1]))

    def bind(self, x: Array, w: Array, out: Array) -> Callable[[], object]:
        return partial(np.matmul, x, w, out)
