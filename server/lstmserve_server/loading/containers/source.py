"""The file or folder that a model is loaded from: what may be opened, and how much is believed."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.store.arrays import ArrayStore
from lstmserve_server.loading.store.limits import LoadLimits


@dataclass(frozen=True, slots=True)
class Architecture:
    """Text of a configuration for weights alone, and whether it was given explicitly."""

    text: str
    given: bool
    """Whether someone named it for this file; else it was found alongside it, and may belong to another."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The file or folder of a model, the limits on it, and the store for its weights."""

    path: Path
    limits: LoadLimits
    store: ArrayStore
    named_architecture: Path | None = None
    """The file with the configuration that someone named, for weights alone."""
    copy: int | None = None
    """Descriptor of a copy of the file, which is read in its place; None where it is read itself."""

    @property
    def name(self) -> str:
        """The name of the file or folder, without the one that it is in."""
        return self.path.name

    def open(self) -> BinaryIO:
        """Opens the file.

        Raises:
            UnsupportedModelError: it is missing, no regular file, or too large.
        """
        # By its name, so that who opens it twice has two places to read from.
        return _open(self.path if self.copy is None else Path(f"/proc/self/fd/{self.copy}"), self.limits)

    def open_sibling(self, name: str) -> BinaryIO:
        """Opens another file of the same folder, or of this one if it is a folder itself; `name` may lead into folders below.

        Raises:
            UnsupportedModelError: it is missing, too large, or leads out of the folder.
        """
        return _open_within(self.path if self.path.is_dir() else self.path.parent, name, self.limits)

    def has(self, name: str) -> bool:
        """Returns whether a file of this name lies in the folder, or in that of the file."""
        return ((self.path if self.path.is_dir() else self.path.parent) / name).is_file()

    def architecture(self) -> Architecture | None:
        """Returns the configuration that was named, or that lies alongside under one of the usual names.

        Called only for what needs it: no other has a second file opened.

        Raises:
            UnsupportedModelError: it cannot be read.
        """
        stem = self.name.split(".")[0]
        usual = (
            f"{self.name}.json",
            f"{self.name}.arch.json",
            f"{stem}.json",
            f"{stem}_architecture.json",
            "model.json",
        )
        around = self.path.parent
        found = next((name for name in usual if (around / name).is_file()), None)
        if self.named_architecture is not None:
            file = _open(self.named_architecture, self.limits)
        elif found is not None:
            file = _open_within(around, found, self.limits)
        else:
            return None
        with file:
            content = file.read(self.limits.config_bytes + 1)
        try:
            return Architecture(content.decode("utf-8"), self.named_architecture is not None)
        except UnicodeDecodeError as error:
            message = (
                f"the architecture {os.fspath(self.named_architecture or around / str(found))} is not text: {error}"
            )
            raise UnsupportedModelError(message) from error


def _open_within(folder: Path, name: str, limits: LoadLimits) -> BinaryIO:
    """Opens a file of a folder, unless its name or a symbolic link leads out of the folder."""
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL, letters that are none
        message = f"{name!r} cannot be opened: {error}"
        raise UnsupportedModelError(message) from error
    if not inside:
        message = f"{name} lies outside {folder}; nothing outside a model's own folder is opened"
        raise UnsupportedModelError(message)
    try:
        return _open(path, limits)
    except UnsupportedModelError as refusal:
        message = f"{name}: {refusal}"
        raise UnsupportedModelError(message) from refusal.__cause__


def _open(path: Path, limits: LoadLimits) -> BinaryIO:
    try:
        # Non-blocking, so that a named pipe does not keep the server from starting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        message = f"the file cannot be opened: {getattr(error, 'strerror', None) or error}"
        raise UnsupportedModelError(message) from error
    status = os.fstat(descriptor)
    problem = ""
    if stat.S_ISDIR(status.st_mode):
        problem = "this is a folder; expected a file"
    elif not stat.S_ISREG(status.st_mode):
        problem = "this is not a regular file"
    elif status.st_size > limits.file_bytes:
        problem = f"the file is {status.st_size} bytes long; expected at most {limits.file_bytes} (--max-model-bytes)"
    if problem:
        os.close(descriptor)
        raise UnsupportedModelError(problem)
    return os.fdopen(descriptor, "rb")
