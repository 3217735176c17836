"""Types of the mathematics."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of any shape and dtype; docstrings say which."""
