"""Reads members of a zip archive or a folder by name; declared sizes are checked before they are believed."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, Protocol

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.store.limits import LoadLimits

ZIP_SIGNATURE: Final = b"PK\x03\x04"

_ENCRYPTED: Final = 0x1
_LOCAL_HEADER: Final = (
    30  # bytes in front of the name of a member; the lengths of name and extra field are its last four
)
_BLOCK: Final = 1 << 20
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Archive(Protocol):
    """Members of an archive by name. Every method raises `UnsupportedModelError` if one is not as expected."""

    def names(self) -> list[str]:
        """Returns the names, sorted."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Returns the content of a member of at most `limit` bytes."""
        ...

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Opens a member, to be read from any place."""
        ...


class FolderArchive:
    """A folder as an archive."""

    def __init__(self, place: ModelSource) -> None:
        self._place = place

    def names(self) -> list[str]:
        """Returns the names, sorted."""
        return sorted(entry.name for entry in self._place.path.iterdir())

    def read(self, name: str, limit: int) -> bytes:
        """Returns the content of a file: see `Archive`."""
        with self._place.open_sibling(name) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            message = f"{name} is more than {limit} bytes long"
            raise UnsupportedModelError(message)
        return content

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file: see `Archive`."""
        with self._place.open_sibling(name) as file:
            yield file


class ZipArchive:
    """A zip archive."""

    def __init__(self, file: BinaryIO, limits: LoadLimits) -> None:
        self._file = file
        self._limits = limits
        try:
            self._zip = zipfile.ZipFile(file)
        except _DAMAGE as error:
            message = f"the file is a damaged zip archive: {error}"
            raise UnsupportedModelError(message) from error
        self._size = file.seek(0, io.SEEK_END)
        infos = self._zip.infolist()
        if len(infos) > limits.zip_members:
            message = f"the archive has {len(infos)} members; expected at most {limits.zip_members}"
            raise UnsupportedModelError(message)
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) < len(infos):
            message = "the archive has two members of the same name, so two readers may see two models"
            raise UnsupportedModelError(message)

    def names(self) -> list[str]:
        """Returns the names, sorted."""
        return sorted(self._infos)

    def read(self, name: str, limit: int) -> bytes:
        """Returns the content of a member, its check sum verified: see `Archive`."""
        info = self._checked(name, limit)
        try:
            with self._zip.open(info) as member:
                content = member.read(info.file_size + 1)
        except _DAMAGE as error:
            message = f"{name} cannot be unpacked: {error}. The file is damaged, or was cut off while it was copied"
            raise UnsupportedModelError(message) from error
        if len(content) != info.file_size:
            message = f"{name} declares {info.file_size} bytes and holds {len(content)}; the file is damaged"
            raise UnsupportedModelError(message)
        return content

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens a member, its check sum verified: see `Archive`. One that is stored as it is needs no room in memory."""
        info = self._checked(name, self._limits.file_bytes)
        if info.compress_type == zipfile.ZIP_STORED:
            part = _Part(self._file, self._offset(info), info.file_size)
            _require_check_sum(part, info)
            yield io.BufferedReader(part)
        else:
            yield io.BytesIO(self.read(name, self._limits.file_bytes))

    def _checked(self, name: str, limit: int) -> zipfile.ZipInfo:
        info = self._infos.get(name)
        if info is None:
            found = ", ".join(name[:64] for name in sorted(self._infos)[:8])
            message = f"the archive has no {name}; it holds {found or 'nothing'}. Is it a .keras file of Keras 3?"
            raise UnsupportedModelError(message)
        packed = min(info.compress_size, self._size)  # what the archive declares may be a lie
        if info.file_size > limit or info.file_size > self._limits.zip_ratio * max(packed, 1 << 10):
            message = (
                f"{name} declares {info.file_size} bytes, packed into {info.compress_size}; expected at most {limit}, and at "
                f"most {self._limits.zip_ratio} times its packed size"
            )
            raise UnsupportedModelError(message)
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            message = f"{name} is encrypted or packed in an unusual way; expected it stored or deflated, as Keras does"
            raise UnsupportedModelError(message)
        return info

    def _offset(self, info: zipfile.ZipInfo) -> int:
        """Returns where the content of a member begins."""
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER)
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        offset = info.header_offset + _LOCAL_HEADER + lengths
        if (
            not header.startswith(ZIP_SIGNATURE)
            or offset + info.file_size > self._size
            or info.compress_size != info.file_size
        ):
            message = (
                f"{info.filename} cannot be unpacked: its position in the archive is wrong. The file is "
                "damaged, or was cut off"
            )
            raise UnsupportedModelError(message)
        return offset


def _require_check_sum(part: _Part, info: zipfile.ZipInfo) -> None:
    check = 0
    while block := part.read(_BLOCK):
        check = zlib.crc32(block, check)
    if check != info.CRC or part.tell() != info.file_size:
        message = (
            f"{info.filename} cannot be unpacked: Bad CRC-32. The file is damaged, or was cut off while it was copied"
        )
        raise UnsupportedModelError(message)
    part.seek(0)


class _Part(io.RawIOBase):
    """Part of a file as a file object."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Returns that it can be read."""
        return True

    def seekable(self) -> bool:
        """Returns that it can be read from any place."""
        return True

    def tell(self) -> int:
        """Returns the place from which is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place, and returns it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fills a buffer as far as there is something to read."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # whatever io hands in is a buffer
        size = max(0, min(len(view), self._size - self._at))
        self._file.seek(self._offset + self._at)
        count: int = self._file.readinto(view[:size])  # type: ignore[attr-defined]  # binary files have it
        self._at += count
        return count
