"""The engines, for tests that are to hold with each of them."""

from __future__ import annotations

import importlib.util

import pytest

from lstmserve_server.model.numerics import Engine

ONNX = [pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")]
ENGINES = [
    pytest.param(Engine.NUMPY, id="numpy"),
    pytest.param(Engine.ONNXRUNTIME, id="onnxruntime", marks=ONNX),
]
"""What keeps the promises, each."""
