"""Selects the engine that computes a layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lstmserve_server.core import packages
from lstmserve_server.model.engines import conformance
from lstmserve_server.model.engines.base import LSTMKernel
from lstmserve_server.model.engines.numpy_kernel import NumpyKernel
from lstmserve_server.model.lstm import LSTMSpec, LSTMWeights
from lstmserve_server.model.numerics import ComputeConfig, Engine


class KernelChoice(NamedTuple):
    """The engine of a layer, and why it is not the requested one."""

    layer: str

    engine: str
    """With its version."""

    remark: str = ""
    """Why it is not the engine that was asked for; empty where it is."""


def require_installed(engine: Engine) -> None:
    """Checks that an engine can be used.

    Raises:
        StartupError: its package is not installed.
    """
    if engine is Engine.ONNXRUNTIME:
        packages.require(["onnxruntime"], "--engine onnxruntime", "onnx")


def select_kernel(
    name: str, spec: LSTMSpec, weights: LSTMWeights, compute_config: ComputeConfig
) -> tuple[LSTMKernel, KernelChoice]:
    """Returns the kernel of a layer in the requested engine, or in NumPy if that engine cannot compute it.

    Raises:
        UnsupportedModelError: the engine does not compute what NumPy does.
    """
    reference = NumpyKernel(spec, weights, compute_config.matmul)
    numpy = f"numpy {np.__version__}"
    if compute_config.engine is Engine.NUMPY:
        return reference, KernelChoice(name, numpy)
    from lstmserve_server.model.engines import onnx_kernel  # noqa: PLC0415 - only who wants it pays for it

    obstacle = onnx_kernel.unsupported_reason(spec, weights)
    if obstacle:
        return reference, KernelChoice(name, numpy, f"layer {name!r} {obstacle}; so NumPy computes it")
    made = onnx_kernel.OnnxKernel(name, spec, weights)
    conformance.check(name, onnx_kernel.NAME, made, reference, compute_config.numerics)
    return made, KernelChoice(name, onnx_kernel.NAME)
