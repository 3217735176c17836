"""Loads a file or folder as what its content says it is: detects the format and calls its reader.

A file is refused here if its format is not known. Otherwise `build.rules` refuses what would not be computed as Keras does, layer
by layer, `build.builder` refuses graphs and sizes, and `build.cleaning` what Keras must not be given.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build import builder, cleaning
from lstmserve_server.loading.build.builder import ModelSelection
from lstmserve_server.loading.build.keras_file import KerasFile
from lstmserve_server.loading.build.rules.registry import RULES
from lstmserve_server.loading.config.keras_config import LayerConfig
from lstmserve_server.loading.containers import archive as archives
from lstmserve_server.loading.containers import hdf5
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.formats import keras_hdf5, keras_shards, keras_v3, numpy_npz
from lstmserve_server.loading.formats.tensorflow import readers as tensorflow
from lstmserve_server.loading.store.arrays import ArrayStore, HeapStore
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.spec import ModelSpec

_LFS_POINTER = b"version https://git-lfs"
_USER_BLOCKS = (
    0,
    512,
    1024,
    2048,
)  # HDF5 may begin after a block of the user's own, of 512 bytes or a power of two more

_Path = str | os.PathLike[str]


def load(
    path: _Path,
    *,
    part: ModelSelection | None = None,
    limits: LoadLimits | None = None,
    architecture: _Path | None = None,
    store: ArrayStore | None = None,
    copy: int | None = None,
) -> ModelSpec:
    """Returns the description of the model in a file or folder; its content decides the format, never its name.

    Args:
        path: the file, or the folder.
        part: the requested part of the model; None for all of it.
        limits: what the file may ask for.
        architecture: file with the configuration, for one that holds weights alone; None to look for it alongside.
        store: where the weights are put; None for the memory of this process.
        copy: descriptor of a copy of the file, which is read in its place; None to read the file itself.

    Raises:
        UnsupportedModelError: the file is missing, damaged, or cannot be served as Keras would compute it. The text begins with
            the path.
    """
    place = _place(path, limits, architecture, store, copy)
    try:
        with _opened(place) as keras_file:
            description = builder.describe(keras_file, place.limits, part or ModelSelection())
            if keras_file.whole is not None and part in (None, ModelSelection()):
                # So that what is served can be handed to Keras too, which makes all that is listed.
                cleaning.cleaned(keras_file.whole)
                builder.require_all_used(keras_file.config, place.limits)
            return description
    except UnsupportedModelError as refusal:
        message = f"{os.fspath(path)}: {refusal}"
        raise UnsupportedModelError(message) from refusal.__cause__


def survey(
    path: _Path, *, limits: LoadLimits | None = None, architecture: _Path | None = None, copy: int | None = None
) -> list[tuple[LayerConfig, bool]]:
    """Returns the layers of a refused file, and whether each kind is supported.

    Raises:
        UnsupportedModelError: not even these can be read.
    """
    with _opened(_place(path, limits, architecture, None, copy)) as keras_file:
        layers = keras_file.config.layers
        return [(layer, layer.kind in RULES or layer.inside is not None or layer.operation) for layer in layers]


def _place(
    path: _Path, limits: LoadLimits | None, architecture: _Path | None, store: ArrayStore | None, copy: int | None
) -> ModelSource:
    named = None if architecture is None else Path(architecture)
    return ModelSource(Path(path), limits or LoadLimits(), store or HeapStore(), named, copy)


@contextlib.contextmanager
def _opened(place: ModelSource) -> Iterator[KerasFile]:
    try:
        is_folder = place.path.is_dir()
    except (OSError, ValueError):  # a NUL in the path, or too long a one, which opening it explains
        is_folder = False
    if is_folder:
        with _folder(place) as keras_file:
            yield keras_file
        return
    with place.open() as file, _file(file, place) as keras_file:
        yield keras_file


def _folder(place: ModelSource) -> AbstractContextManager[KerasFile]:
    if place.has(keras_v3.CONFIG):
        return keras_v3.read(archives.FolderArchive(place), place, "keras-folder")
    if place.has(tensorflow.SAVED_MODEL):
        return tensorflow.read_saved_model(place)
    indices = [entry.name for entry in place.path.iterdir() if entry.suffix == ".index"]
    if len(indices) == 1:
        return tensorflow.read_checkpoint(place, indices[0])
    found = ", ".join(name[:64] for name in sorted(entry.name for entry in place.path.iterdir())[:8]) or "nothing"
    message = (
        f"this is a folder that holds {found}; expected {keras_v3.CONFIG} of an unpacked .keras file, {tensorflow.SAVED_MODEL}, "
        "or one checkpoint of TensorFlow"
    )
    raise UnsupportedModelError(message)


def _file(file: BinaryIO, place: ModelSource) -> AbstractContextManager[KerasFile]:
    """Returns the reader for the content of a file."""
    try:
        head = file.read(max(_USER_BLOCKS) + len(hdf5.SIGNATURE))
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(tensorflow.INDEX_ENDING)))
        ending = file.read()
        file.seek(0)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        raise UnsupportedModelError(message) from error
    if head.startswith(archives.ZIP_SIGNATURE):
        archive = archives.ZipArchive(file, place.limits)
        if numpy_npz.are_in(archive):
            return numpy_npz.read_archive(archive, place)
        return keras_v3.read(archive, place, "keras-zip")
    if any(head[offset:].startswith(hdf5.SIGNATURE) for offset in _USER_BLOCKS):
        return keras_hdf5.read(file, place)
    if ending == tensorflow.INDEX_ENDING:
        return tensorflow.read_checkpoint(place, place.name)
    if head.lstrip()[:1] == b"{":
        return keras_shards.read(file, place)
    if head.startswith(_LFS_POINTER):
        message = "this is a Git LFS pointer, not the file itself. Fetch it with: git lfs pull"
    elif head.startswith(numpy_npz.SIGNATURE):
        message = numpy_npz.LONE_ARRAY
    elif not head:
        message = "the file is empty"
    else:
        message = (
            f"this is neither a .keras nor an .h5 file, nor anything else that is read: it begins with {head[:8]!r}"
        )
    raise UnsupportedModelError(message)
