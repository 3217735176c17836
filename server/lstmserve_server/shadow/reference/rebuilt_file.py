"""The file that Keras loads: the weights of the checked copy, byte for byte, and a rebuilt configuration.

Keras reads the same bytes as our loader, so a misreading of ours shows. Of the configuration it sees what our loader understood
(`loading.build.cleaning`), and nothing else of the file reaches Keras' deserialization.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import h5py

from lstmserve_server.loading.build import cleaning
from lstmserve_server.loading.containers import safe_json
from lstmserve_server.loading.containers.archive import ZipArchive
from lstmserve_server.loading.store import memory_files
from lstmserve_server.loading.store.limits import LoadLimits

_CONFIG: Final = "config.json"
_METADATA: Final = "metadata.json"
_WEIGHTS: Final = "model.weights.h5"
_BLOCK: Final = 1 << 24


@contextlib.contextmanager
def archive(copy: int, version: str, scratch: str) -> Iterator[Path]:
    """Yields the path of a `.keras` file; the file itself is in memory.

    Args:
        copy: descriptor of the copy of the file that our loader has checked.
        version: the version of Keras that wrote it.
        scratch: folder for a file name, whose extension tells the libraries the format.

    Raises:
        UnsupportedModelError: it is not what our loader accepted.
        OSError: the folder cannot be written.
    """
    limits, made = LoadLimits(), memory_files.private_copy(b"")
    try:
        with _path(copy).open("rb") as file, zipfile.ZipFile(_path(made), "w") as into:
            members = ZipArchive(file, limits)
            config = _cleaned(safe_json.parse(members.read(_CONFIG, limits.config_bytes), _CONFIG, limits))
            into.writestr(_CONFIG, config)
            into.writestr(_METADATA, json.dumps({"keras_version": version, "date_saved": ""}))
            with members.open(_WEIGHTS) as weights, into.open(_WEIGHTS, "w", force_zip64=True) as target:
                while block := weights.read(_BLOCK):
                    target.write(block)
        name = Path(scratch) / "model.keras"
        name.symlink_to(_path(made))
        try:
            yield name
        finally:
            name.unlink()
    finally:
        os.close(made)


@contextlib.contextmanager
def hdf5(copy: int) -> Iterator[h5py.File]:
    """Yields an open `.h5` file, in memory, from the copy that our loader has checked.

    Raises:
        UnsupportedModelError: it is not what our loader accepted.
    """
    limits = LoadLimits()
    with h5py.File(io.BytesIO(_path(copy).read_bytes()), "r+") as file:
        text = file.attrs["model_config"]
        config = _cleaned(safe_json.parse(text, "the attribute model_config", limits))
        for name in set(file.attrs) - {"keras_version", "backend"}:
            del file.attrs[name]
        for name in set(file) - {"model_weights"}:
            del file[name]
        weights = file["model_weights"]
        listed = {_text(name) for name in weights.attrs.get("layer_names", ())}
        for name in set(weights) - listed:  # weights that belong to no layer, which our loader has not read
            del weights[name]
        file.attrs["model_config"] = config.encode()
        yield file


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _path(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


def _cleaned(config: Mapping[str, Any]) -> str:
    return json.dumps(cleaning.cleaned(config))
