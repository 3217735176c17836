"""A file to the checked description of its model: opened once, read as what its content says it is."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import build, hdf5, keras_hdf5, keras_zip
from lstmserve_server.loading.build import Architecture
from lstmserve_server.loading.layer_plans import PLANS
from lstmserve_server.loading.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from lstmserve_server.description import ModelDescription
    from lstmserve_server.loading.build import FindArchitecture, KerasFile
    from lstmserve_server.loading.keras_config import LayerConfig

_LFS_POINTER = b"version https://git-lfs"
_USER_BLOCKS = (
    0,
    512,
    1024,
    2048,
)  # HDF5 may begin behind a block of the user's own, of 512 bytes or a power of two more


def load(
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    limits: Limits | None = None,
    architecture: str | os.PathLike[str] | None = None,
) -> ModelDescription:
    """Returns the description of the model in a file; its content decides how it is read, never its name.

    Args:
        path: the file.
        layer: name of the one LSTM layer that is wanted; None for the whole model.
        limits: how much of the file is believed.
        architecture: file with the configuration, for one that holds weights alone; None to look for it beside.

    Raises:
        ModelRefused: the file is missing, damaged, or cannot be served as Keras would compute it. The text begins with
            the path.
    """
    limits = limits or Limits()
    try:
        with _opened(path, limits, architecture) as keras_file:
            return build.describe(keras_file, limits, layer)
    except ModelRefused as refusal:
        message = f"{os.fspath(path)}: {refusal}"
        raise ModelRefused(message) from refusal.__cause__


def survey(
    path: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    architecture: str | os.PathLike[str] | None = None,
) -> list[tuple[LayerConfig, bool]]:
    """Returns the layers that a file configures, and of each whether its kind is served; for files that are refused.

    Raises:
        ModelRefused: not even so much can be read.
    """
    with _opened(path, limits or Limits(), architecture) as keras_file:
        return [(layer, layer.kind in PLANS or layer.inside is not None) for layer in keras_file.config.layers]


@contextlib.contextmanager
def _opened(
    path: str | os.PathLike[str], limits: Limits, architecture: str | os.PathLike[str] | None
) -> Iterator[KerasFile]:
    find = functools.partial(_architecture, Path(path), architecture, limits)
    with _open(path, limits) as file, _format_of(file).read(file, Path(path).name, limits, find) as keras_file:
        yield keras_file


def _architecture(path: Path, given: str | os.PathLike[str] | None, limits: Limits) -> Architecture | None:
    """Returns the architecture that was given, or that lies beside a file under one of the usual names."""
    stem = path.name.split(".")[0]
    beside = (f"{path.name}.json", f"{path.name}.arch.json", f"{stem}.json", f"{stem}_architecture.json", "model.json")
    found = given or next((place for name in beside if (place := path.with_name(name)).is_file()), None)
    if found is None:
        return None
    with _open(found, limits) as file:
        content = file.read(limits.config_bytes + 1)
    try:
        return Architecture(content.decode("utf-8"), given is not None)
    except UnicodeDecodeError as error:
        message = f"the architecture {os.fspath(found)} is no text: {error}"
        raise ModelRefused(message) from error


def _open(path: str | os.PathLike[str], limits: Limits) -> BinaryIO:
    try:
        # Without waiting, lest a named pipe keep the server from starting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        message = f"the file cannot be opened: {getattr(error, 'strerror', None) or error}"
        raise ModelRefused(message) from error
    status = os.fstat(descriptor)
    problem = ""
    if stat.S_ISDIR(status.st_mode):
        problem = "this is a folder; expected a .keras or .h5 file"
    elif not stat.S_ISREG(status.st_mode):
        problem = "this is no regular file"
    elif status.st_size > limits.file_bytes:
        problem = f"the file is {status.st_size} bytes long; expected at most {limits.file_bytes} (--max-model-bytes)"
    if problem:
        os.close(descriptor)
        raise ModelRefused(problem)
    return os.fdopen(descriptor, "rb")


class _Format(Protocol):
    """A module that reads one format."""

    def read(
        self, file: BinaryIO, name: str, limits: Limits, find_architecture: FindArchitecture
    ) -> AbstractContextManager[KerasFile]: ...


def _format_of(file: BinaryIO) -> _Format:
    head = file.read(max(_USER_BLOCKS) + len(hdf5.SIGNATURE))
    file.seek(0)
    if head.startswith(keras_zip.SIGNATURE):
        return keras_zip
    if any(head[offset:].startswith(hdf5.SIGNATURE) for offset in _USER_BLOCKS):
        return keras_hdf5
    if head.startswith(_LFS_POINTER):
        message = "this is a Git LFS pointer, not the file itself. Fetch it with: git lfs pull"
    elif not head:
        message = "the file is empty"
    else:
        message = f"this is neither a .keras nor an .h5 file: it begins with {head[:8]!r}"
    raise ModelRefused(message)
