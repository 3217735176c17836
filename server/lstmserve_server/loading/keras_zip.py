"""Keras 3's `.keras`: a zip archive of `config.json`, `metadata.json` and `model.weights.h5` (`saving_lib`)."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

from lstmserve_server.description import Source
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import config_text, keras_config
from lstmserve_server.loading.build import KerasFile
from lstmserve_server.loading.hdf5 import Group
from lstmserve_server.loading.weight_groups import NumberedGroups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lstmserve_server.loading.build import FindArchitecture
    from lstmserve_server.loading.limits import Limits

SIGNATURE: Final = b"PK\x03\x04"

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_ENCRYPTED: Final = 0x1
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@contextlib.contextmanager
def read(file: BinaryIO, name: str, limits: Limits, find_architecture: FindArchitecture) -> Iterator[KerasFile]:  # noqa: ARG001
    """Opens the model in a `.keras` archive.

    Raises:
        ModelRefused: it is no such archive.
    """
    archive = _Archive(file, limits)
    metadata = config_text.parse(archive.read(_METADATA, limits.config_bytes), _METADATA, limits)
    version = metadata.get("keras_version")
    if not isinstance(version, str) or not re.match(r"[23]\.", version):
        message = f"{_METADATA} says that Keras {version} wrote the file; those of Keras 2 and 3 are served"
        raise ModelRefused(message)
    text = archive.read(_CONFIG, limits.config_bytes)
    config = keras_config.parse(config_text.parse(text, _CONFIG, limits), limits)
    with Group.open(io.BytesIO(archive.read(_WEIGHTS, limits.file_bytes)), limits) as root:
        yield KerasFile(config, NumberedGroups(root, config), Source(name, "keras-zip", version))


class _Archive:
    """The members of a zip archive by name; what they declare is checked before they are unpacked."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._limits = limits
        try:
            self._zip = zipfile.ZipFile(file)
        except _DAMAGE as error:
            message = f"the file is a damaged zip archive: {error}"
            raise ModelRefused(message) from error
        self._size = file.seek(0, io.SEEK_END)
        infos = self._zip.infolist()
        if len(infos) > limits.zip_members:
            message = f"the archive has {len(infos)} members; expected at most {limits.zip_members}"
            raise ModelRefused(message)
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) < len(infos):
            message = "the archive has two members of the same name, so two readers may see two models"
            raise ModelRefused(message)

    def read(self, name: str, limit: int) -> bytes:
        """Returns the content of a member of at most `limit` bytes, its check sum verified."""
        info = self._infos.get(name)
        if info is None:
            found = ", ".join(sorted(self._infos)[:8])
            message = f"the archive has no {name}; it holds {found or 'nothing'}. Is it a .keras file of Keras 3?"
            raise ModelRefused(message)
        packed = min(info.compress_size, self._size)  # what the archive declares may be a lie
        if info.file_size > limit or info.file_size > self._limits.zip_ratio * max(packed, 1 << 10):
            message = (
                f"{name} declares {info.file_size} bytes, packed into {info.compress_size}; expected at most {limit}, and at "
                f"most {self._limits.zip_ratio} times its packed size"
            )
            raise ModelRefused(message)
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            message = f"{name} is encrypted or packed in an unusual way; expected it stored or deflated, as Keras does"
            raise ModelRefused(message)
        try:
            with self._zip.open(info) as member:
                content = member.read(info.file_size + 1)
        except _DAMAGE as error:
            message = f"{name} cannot be unpacked: {error}. The file is damaged, or was cut off while it was copied"
            raise ModelRefused(message) from error
        if len(content) != info.file_size:
            message = f"{name} declares {info.file_size} bytes and holds {len(content)}; the file is damaged"
            raise ModelRefused(message)
        return content
