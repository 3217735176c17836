"""HDF5 files of Keras 1, 2 and 3: whole models (`legacy_h5_format`), and weights alone in either layout."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from lstmserve_server.description import Source
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import config_text, keras_1, keras_config
from lstmserve_server.loading.build import KerasFile
from lstmserve_server.loading.hdf5 import Group
from lstmserve_server.loading.weight_groups import NamedGroups, NumberedGroups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lstmserve_server.loading.build import FindArchitecture, Weights
    from lstmserve_server.loading.keras_config import ModelConfig
    from lstmserve_server.loading.limits import Limits


@contextlib.contextmanager
def read(file: BinaryIO, name: str, limits: Limits, find_architecture: FindArchitecture) -> Iterator[KerasFile]:
    """Opens the model in an HDF5 file: a whole one, or weights alone with the architecture that is found for them.

    Raises:
        ModelRefused: it is no model of Keras 1, 2 or 3.
    """
    with Group.open(file, limits) as root:
        text = root.text("model_config")
        if text is not None:
            version = _version(root.text("keras_version"))
            config = _config(config_text.parse(text, "the attribute model_config", limits), version, limits)
            groups = NamedGroups.of_whole_model(root.group("model_weights"), config)
            yield KerasFile(config, _weights(groups, version), Source(name, "keras-hdf5", version))
        else:
            yield _weights_only(root, name, limits, find_architecture)


def _weights_only(root: Group, name: str, limits: Limits, find_architecture: FindArchitecture) -> KerasFile:
    architecture = find_architecture()
    if architecture is None:
        message = (
            "the file holds weights without the model's configuration. Give it with --architecture (what model.to_json() "
            "writes), or save the whole model: model.save('model.keras')"
        )
        raise ModelRefused(message)
    parsed = config_text.parse(architecture.text, "the architecture", limits)
    version = _version(parsed.get("keras_version", root.text("keras_version")))
    config = _config(parsed, version, limits)
    if NumberedGroups.are_in(root):
        return KerasFile(config, NumberedGroups(root, config), Source(name, "keras-weights", version))
    groups = NamedGroups.of_weights_only(root, config, in_order=architecture.given)
    return KerasFile(config, _weights(groups, version), Source(name, "keras-weights", version))


def _config(config: dict[str, Any], version: str, limits: Limits) -> ModelConfig:
    return keras_config.parse(keras_1.to_keras_2(config) if version.startswith("1.") else config, limits)


def _weights(groups: NamedGroups, version: str) -> Weights:
    return keras_1.Keras1Groups(groups) if version.startswith("1.") else groups


def _version(version: Any) -> str:
    if not isinstance(version, str) or not re.match(r"[123]\.\d", version):
        shown = version if isinstance(version, str) and version.isprintable() else "of an unknown version"
        message = f"the file was written by Keras {shown}; those of Keras 1, 2 and 3 are served"
        raise ModelRefused(message)
    return version
