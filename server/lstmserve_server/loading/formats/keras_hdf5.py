"""Reads HDF5 files of Keras 1, 2 and 3: whole models (`legacy_h5_format`), and weights alone in either layout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.keras_file import KerasFile, WeightSource
from lstmserve_server.loading.containers import safe_json
from lstmserve_server.loading.containers.hdf5 import Group
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.formats import architecture, keras_v1
from lstmserve_server.loading.formats.architecture import Configured
from lstmserve_server.loading.formats.hdf5_weights import NamedGroups, NumberedGroups, Tree
from lstmserve_server.model.spec import Source


@contextlib.contextmanager
def read(file: BinaryIO, place: ModelSource) -> Iterator[KerasFile]:
    """Opens the model in an HDF5 file: a whole one, or weights alone with the architecture that is found for them.

    Raises:
        UnsupportedModelError: it is not a model of Keras 1, 2 or 3.
    """
    with Group.open(file, place.limits, place.store) as root:
        text = root.text("model_config")
        if text is None:
            yield weights_alone(root, place, "keras-weights")
            return
        version = architecture.checked_version(root.text("keras_version"))
        whole = safe_json.parse(text, "the attribute model_config", place.limits)
        config = architecture.parse(whole, version, place)
        groups = NamedGroups.of_whole_model(root.group("model_weights"), config)
        yield KerasFile(config, _of_version(groups, version), Source(place.name, "keras-hdf5", version), whole)


def weights_alone(root: Tree, place: ModelSource, form: str) -> KerasFile:
    """Returns the model whose weights are in `root`, with the architecture that is found for them.

    Raises:
        UnsupportedModelError: there is none, or it does not fit.
    """
    if "nb_layers" in root.attribute_names():
        message = (
            "the file was written by a Keras before 1.0, whose files are not supported. Load it with that "
            "version, and save the model again with a newer one"
        )
        raise UnsupportedModelError(message)
    written_by = root.text("keras_version")
    found = architecture.find(place, written_by) or _of_one_lstm(root, written_by, place)
    source = Source(place.name, form, found.version, found.remarks)
    if NumberedGroups.are_in(root):
        return KerasFile(found.config, NumberedGroups(root, found.config), source)
    groups = NamedGroups.of_weights_only(root, found.config, in_order=found.given)
    return KerasFile(found.config, _of_version(groups, found.version), source)


def _of_one_lstm(root: Tree, version: str | None, place: ModelSource) -> Configured:
    """Returns the configuration of the one LSTM whose weights are all that the file holds."""
    group, names = NumberedGroups.only_lstm(root) or NamedGroups.only_lstm(root) or (None, [])
    if group is None:
        raise architecture.missing("the file")
    return architecture.of_one_lstm(group.shape(names[0]), len(names), version, place)


def _of_version(groups: NamedGroups, version: str) -> WeightSource:
    return keras_v1.Keras1Groups(groups) if version.startswith("1.") else groups
