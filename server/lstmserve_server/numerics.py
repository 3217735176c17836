"""How products are computed: the two modes, and why one of them gives a row the same bytes in any company."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import threadpoolctl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Numerics(enum.Enum):
    """The mode of a model."""

    EXACT = "exact"
    """A row's answer has the same bytes whatever rows it is computed with."""

    FAST = "fast"
    """One product for all rows: faster, and a row's answer moves by rounding errors with its company."""


class Engine(enum.Enum):
    """What computes the LSTM layers of a model."""

    NUMPY = "numpy"
    """`lstm`, the reference."""

    ONNXRUNTIME = "onnxruntime"
    """ONNX Runtime's LSTM operator where it computes what Keras does, and NumPy elsewhere."""


class Product(Protocol):
    """Multiplies rows with a matrix: `product(x, w, out)`, (..., n) by (n, m) into (..., m)."""

    def __call__(self, x: Array, w: Array, out: Array) -> None:
        """Writes the product into `out`, which must not overlap the others."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a model computes."""

    product: Product

    dtype: np.dtype[Any]
    """Of weights, states and all that flows between layers."""

    numerics: Numerics = Numerics.EXACT

    engine: Engine = Engine.NUMPY


def product_of(numerics: Numerics) -> Product:
    """Returns the matrix product of a mode.

    The exact one binds the BLAS of this process to one thread: shared among threads, a product of few long columns is
    added up in another order (OpenBLAS, gemv of 65536 by 16 in float32), and other bytes come out.
    """
    if numerics is Numerics.FAST:
        return _product_at_once
    threadpoolctl.threadpool_limits(limits=1, user_api="blas")
    return _product_row_by_row


def _product_row_by_row(x: Array, w: Array, out: Array) -> None:
    # As a stack of (1, n) by (n, m) each row is a vector-matrix product of its own (BLAS gemv), inside NumPy's loop. A
    # plain x @ w is one gemm, whose kernel treats a row differently with its place and with the number of rows.
    np.matmul(x[..., None, :], w, out=out[..., None, :])


def _product_at_once(x: Array, w: Array, out: Array) -> None:
    np.matmul(x, w, out=out)
