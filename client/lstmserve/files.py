"""Arrays in and out of files and pipes: CSV for people, .npy for programs."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIPE: Final = "-"
"""Stands for standard input or output in place of a file."""

_NPY: Final = b"\x93NUMPY"


def read_array(path: str) -> NDArray[Any]:
    """Returns the array in a file, or in the pipe: .npy as it is, CSV as (lines, columns) of float32.

    A first line of CSV that holds no number is a header, and passed over.

    Raises:
        ValueError: it is neither.
    """
    content = sys.stdin.buffer.read() if path == PIPE else Path(path).read_bytes()
    where = "standard input" if path == PIPE else path
    if content.startswith(_NPY):
        array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        return array
    try:
        lines = [line for line in content.decode("utf-8").splitlines() if line.strip()]
        return np.loadtxt(lines[1:] if lines and _is_header(lines[0]) else lines, np.float32, delimiter=",", ndmin=2)
    except ValueError as error:  # UnicodeDecodeError among them
        message = f"{where} is neither .npy nor CSV of numbers: {error}"
        raise ValueError(message) from error


def write_array(path: str, array: NDArray[Any]) -> None:
    """Writes an array: as .npy to a file of that name, else as CSV with every digit that tells numbers apart.

    Raises:
        ValueError: it has more than two dimensions and is to be CSV.
    """
    if path.endswith(".npy"):
        np.save(path, array, allow_pickle=False)
        return
    if array.ndim > 2:  # noqa: PLR2004 - lines and columns
        message = f"an array of shape {array.shape} has no place in CSV; name a file that ends with .npy"
        raise ValueError(message)
    text = "".join(",".join(map(str, row.tolist())) + "\n" for row in np.atleast_2d(_shortest(array)))
    if path == PIPE:
        sys.stdout.write(text)
    else:
        Path(path).write_text(text, "utf-8")


def _shortest(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the numbers as text with the fewest digits that read back as the same ones."""
    return np.array(
        [np.format_float_positional(x, trim="0") if np.isfinite(x) else str(x) for x in array.ravel()]
    ).reshape(array.shape)


def _is_header(line: str) -> bool:
    try:
        [float(cell) for cell in line.split(",")]
    except ValueError:
        return True
    return False
