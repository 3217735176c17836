"""Reads and writes arrays as files and pipes: CSV for people, .npy for programs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lstmserve import archives

PIPE: Final = "-"
"""Stands for standard input or output in place of a file."""

_NPY: Final = b"\x93NUMPY"


def read_array(path: str) -> NDArray[Any]:
    """Returns the array in a file, or in the pipe: .npy as it is, CSV as (lines, columns) of float64.

    A first line of CSV in which no cell is a number is a header, and passed over.

    Raises:
        ValueError: it is neither, or holds nothing.
    """
    content = sys.stdin.buffer.read() if path == PIPE else Path(path).read_bytes()
    where = "standard input" if path == PIPE else path
    try:
        if content.startswith(_NPY):
            return archives.array_of(content, where)
        rows = [line.split(",") for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        rows = rows[1:] if rows and not any(map(_is_number, rows[0])) else rows
        numbers = np.array([[float(cell) for cell in row] for row in rows], np.float64)
    except ValueError as error:  # UnicodeDecodeError among them
        message = f"{where} is neither .npy nor CSV of numbers: {error}"
        raise ValueError(message) from error
    if not numbers.size:
        message = f"{where} holds no numbers"
        raise ValueError(message)
    return numbers


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
        sys.stdout.flush()
    else:
        Path(path).write_text(text, "utf-8")


def read_lines(path: str) -> Iterator[NDArray[Any]]:
    """Yields each line of CSV in a file, or in the pipe, as soon as it is there: (columns,) of float64.

    A first line in which no cell is a number is a header, and passed over; so are empty lines.

    Raises:
        ValueError: a line holds something else than numbers.
    """
    with contextlib.ExitStack() as open_files:
        lines = sys.stdin if path == PIPE else open_files.enter_context(Path(path).open(encoding="utf-8-sig"))
        for number, line in enumerate(lines, start=1):
            cells = line.strip().lstrip("\ufeff").split(",")
            if cells == [""] or (number == 1 and not any(map(_is_number, cells))):
                continue
            try:
                yield np.array([float(cell) for cell in cells], np.float64)
            except ValueError as error:
                message = (
                    f"line {number} of {'standard input' if path == PIPE else path} is not a CSV of numbers: {error}"
                )
                raise ValueError(message) from error


def _shortest(array: NDArray[Any]) -> NDArray[Any]:
    """Returns the numbers as text with the fewest digits that read back as the same ones."""
    return np.array(
        [np.format_float_positional(x, trim="0") if np.isfinite(x) else str(x) for x in array.ravel()]
    ).reshape(array.shape)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
