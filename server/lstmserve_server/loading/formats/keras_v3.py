"""Reads `.keras` of Keras 3: an archive or folder of `config.json`, `metadata.json` and `model.weights.h5` (`saving_lib`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.keras_file import KerasFile
from lstmserve_server.loading.config import keras_config
from lstmserve_server.loading.containers import safe_json
from lstmserve_server.loading.containers.archive import Archive
from lstmserve_server.loading.containers.hdf5 import Group
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.formats import architecture
from lstmserve_server.loading.formats.hdf5_weights import NumberedGroups
from lstmserve_server.model.spec import Source

CONFIG: Final = "config.json"

_METADATA, _WEIGHTS, _PICKLED = "metadata.json", "model.weights.h5", "model.weights.npz"


@contextlib.contextmanager
def read(members: Archive, place: ModelSource, form: str) -> Iterator[KerasFile]:
    """Opens the model whose members are those of a `.keras` archive; `form` names the format.

    Raises:
        UnsupportedModelError: it is no such archive.
    """
    limits, found = place.limits, members.names()
    if _PICKLED in found and _WEIGHTS not in found:
        message = (
            f"the weights are in {_PICKLED}, a pickle, which can run code when it is loaded. Save the model "
            "again with h5py installed"
        )
        raise UnsupportedModelError(message)
    metadata = safe_json.parse(members.read(_METADATA, limits.config_bytes), _METADATA, limits)
    version = architecture.checked_version(metadata.get("keras_version"))
    whole = safe_json.parse(members.read(CONFIG, limits.config_bytes), CONFIG, limits)
    config = keras_config.parse(whole, limits)
    with members.open(_WEIGHTS) as weights, Group.open(weights, limits, place.store) as root:
        yield KerasFile(config, NumberedGroups(root, config), Source(place.name, form, version), whole)
