"""Which engine computes a layer."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lstmserve_server.engines import probe
from lstmserve_server.engines.numpy_cell import NumpyCell
from lstmserve_server.errors import StartFailed
from lstmserve_server.numerics import Engine

if TYPE_CHECKING:
    from lstmserve_server.engines.base import Cell
    from lstmserve_server.lstm import LSTMSpec, LSTMWeights
    from lstmserve_server.numerics import Arithmetic


class Computed(NamedTuple):
    """What computes a layer."""

    layer: str

    engine: str
    """With its version."""

    remark: str = ""
    """Why it is not the engine that was asked for; empty where it is."""


def require_installed(engine: Engine) -> None:
    """Returns if an engine can be used.

    Raises:
        StartFailed: its package is not installed.
    """
    if engine is Engine.ONNXRUNTIME and importlib.util.find_spec("onnxruntime") is None:
        raise StartFailed(
            "--engine onnxruntime needs a package that is not installed (onnxruntime): pip install 'lstmserve[onnx]'"
        )


def cell(name: str, spec: LSTMSpec, weights: LSTMWeights, arithmetic: Arithmetic) -> tuple[Cell, Computed]:
    """Returns the cell of a layer in the engine that is asked for, or in NumPy where that engine cannot.

    Raises:
        ModelRefused: the engine could, but does not compute what NumPy does.
    """
    reference = NumpyCell(spec, weights, arithmetic.product)
    numpy = f"numpy {np.__version__}"
    if arithmetic.engine is Engine.NUMPY:
        return reference, Computed(name, numpy)
    from lstmserve_server.engines import onnx_cell  # noqa: PLC0415 - only who wants it pays for it

    obstacle = onnx_cell.obstacle(spec, weights)
    if obstacle:
        return reference, Computed(name, numpy, f"layer {name!r} {obstacle}; so NumPy computes it")
    made = onnx_cell.OnnxCell(name, spec, weights)
    probe.check(name, onnx_cell.NAME, made, reference, arithmetic.numerics)
    return made, Computed(name, onnx_cell.NAME)
