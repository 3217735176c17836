"""Reads `.npz` archives from untrusted sources: within bounds, with one error.

`numpy.load` trusts an archive: members that unpack to a thousand times their size, headers that are evaluated as
Python, and a dozen kinds of exceptions. Here nothing is larger than the archive itself.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

MAX_ARRAYS: Final = 100_000
"""Arrays in an archive."""

_LONGEST_HEADER: Final = 4096  # bytes; that of an array of eight axes is 128
_LONGEST_DIRECTORY: Final = 16 << 20  # bytes
_END_RECORD: Final = (1 << 16) + 22  # of a zip archive, with the longest comment
_MOST_EMPTY: Final = 1 << 16  # elements that take no room, such as empty texts
_KINDS: Final = "fiubUS"  # numbers, truth values and texts


def read(source: bytes | BinaryIO, *, max_bytes: int, max_arrays: int = MAX_ARRAYS) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an archive by name.

    Args:
        source: the archive, or a file that holds it.
        max_bytes: maximum size of the archive in bytes.
        max_arrays: maximum number of arrays.

    Raises:
        ValueError: it is not an archive, is compressed or damaged, or exceeds a limit.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    size = file.seek(0, io.SEEK_END)
    if size > max_bytes:
        message = f"it is {size} bytes long; expected at most {max_bytes}"
        raise ValueError(message)
    try:
        _require_short_directory(file)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _require_within(members, size, max_arrays)
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except ValueError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy's parser of headers have one of their own for each damage
        message = f"it cannot be read: {type(error).__name__}: {error}"
        raise ValueError(message) from error


def _require_short_directory(file: BinaryIO) -> None:
    """Rejects an archive whose directory is too long; its length precedes it."""
    file.seek(max(0, file.seek(0, io.SEEK_END) - _END_RECORD))
    ending = file.read()
    place = ending.rfind(b"PK\x05\x06")
    record = ending[place + 12 : place + 16] if place >= 0 else b""
    if len(record) == 4 and int.from_bytes(record, "little") > _LONGEST_DIRECTORY:  # noqa: PLR2004 - its bytes
        message = f"its list of arrays is longer than {_LONGEST_DIRECTORY} bytes"
        raise ValueError(message)
    file.seek(0)


def _require_within(members: list[zipfile.ZipInfo], size: int, max_arrays: int) -> None:
    if len(members) > max_arrays or sum(member.file_size for member in members) > size:
        message = (
            f"{len(members)} arrays of more bytes than the file has; expected at most {max_arrays}, not compressed"
        )
        raise ValueError(message)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type != zipfile.ZIP_STORED:
        message = f"{member.filename!r} is compressed; expected it as numpy.savez writes it"
        raise ValueError(message)
    return array_of(archive.read(member), member.filename)


def array_of(data: bytes, name: str) -> NDArray[Any]:
    """Returns the array in an `.npy` file; `name` names it in errors.

    Raises:
        ValueError: it is not an array, is truncated, or holds neither numbers nor text.
    """
    try:
        return _of_npy(io.BytesIO(data), name)
    except ValueError:
        raise
    except Exception as error:  # NumPy's parser of headers has many
        message = f"{name!r} cannot be read: {type(error).__name__}"
        raise ValueError(message) from error


def _of_npy(content: io.BytesIO, name: str) -> NDArray[Any]:
    version = np.lib.format.read_magic(content)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        message = f"{name!r} is of the version {version}; expected (1, 0) or (2, 0)"
        raise ValueError(message)
    shape, in_columns, dtype = read_header(content, max_header_size=_LONGEST_HEADER)
    if dtype.kind not in _KINDS:
        message = f"{name!r} holds {dtype}; expected numbers or texts"
        raise ValueError(message)
    data = content.getvalue()[content.tell() :]
    count = math.prod(shape)
    empty = dtype.itemsize == 0 and count > _MOST_EMPTY
    if any(length < 0 for length in shape) or count * dtype.itemsize != len(data) or empty:
        message = f"{name!r} declares {shape} of {dtype} and holds {len(data)} bytes"
        raise ValueError(message)
    array: NDArray[Any] = np.frombuffer(data, dtype) if len(data) else np.empty(count, dtype)
    return array.reshape(shape, order="F" if in_columns else "C").copy()
