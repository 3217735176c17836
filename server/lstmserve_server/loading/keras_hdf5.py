"""Whole-model `.h5`: configuration and weights in one HDF5 file, as Keras 2 and Keras 3 write it (`legacy_h5_format`)."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from lstmserve_server.description import Source
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import config_text, keras_config
from lstmserve_server.loading.build import KerasFile
from lstmserve_server.loading.hdf5 import Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lstmserve_server.loading.keras_config import LayerConfig
    from lstmserve_server.loading.layer_rules import Block
    from lstmserve_server.loading.limits import Limits


@contextlib.contextmanager
def read(file: BinaryIO, name: str, limits: Limits) -> Iterator[KerasFile]:
    """Opens the model in an HDF5 file.

    Raises:
        ModelRefused: it is no whole model of Keras 2 or 3.
    """
    with Group.open(file, limits) as root:
        text = root.text("model_config")
        if text is None:
            message = "the file holds weights without the model's configuration. Save the whole model: model.save('model.keras')"
            raise ModelRefused(message)
        version = root.text("keras_version") or "unknown"
        if not re.match(r"[23]\.", version):
            message = f"the file was written by Keras {version}; those of Keras 2 and 3 are served. Save it anew with one of them"
            raise ModelRefused(message)
        config = keras_config.parse(config_text.parse(text, "the attribute model_config", limits), limits)
        yield KerasFile(config, _LayerGroups(root.group("model_weights")), Source(name, "keras-hdf5", version))


class _LayerGroups:
    """One group per layer, under the layer's name, whose attribute `weight_names` lists paths below it."""

    def __init__(self, weights: Group) -> None:
        self._weights = weights

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> list[dict[str, NDArray[Any]]]:
        group, paths = self._open(layer)
        expected = [weight for block in blocks for weight in block.shapes]
        if [_own_name(path) for path in paths] != expected:
            found = ", ".join(map(_own_name, paths)) or "none"
            message = f"{layer} has the weights {found} in the file; expected {', '.join(expected)}"
            raise ModelRefused(message)
        rest = iter(paths)
        return [
            {weight: group.array(next(rest), shape, dtype) for weight, shape in block.shapes.items()}
            for block in blocks
        ]

    def features_of(self, layer: LayerConfig) -> int:
        group, paths = self._open(layer)
        shape = group.shape(paths[0]) if paths else ()
        if len(shape) < 2:  # noqa: PLR2004 - a kernel has at least two axes
            message = f"{layer} has no kernel in the file, and the model does not declare how many features it reads"
            raise ModelRefused(message)
        return shape[-2]

    def _open(self, layer: LayerConfig) -> tuple[Group, list[str]]:
        """Returns the group of a layer, and the path of each weight below it, in the order of Keras."""
        if "/" in layer.name or layer.name not in self._weights:
            message = f"{layer} has no weights in the file. The file is damaged, or was cut off while it was written"
            raise ModelRefused(message)
        group = self._weights.group(layer.name)
        paths = group.texts("weight_names") or []
        if len(set(paths)) < len(paths):
            message = (
                f"{layer} has two weights in one place. Keras 3.0 to 3.2 broke such files as it wrote them (Bidirectional, "
                "nested models): save the model anew, as .keras"
            )
            raise ModelRefused(message)
        return group, paths


def _own_name(path: str) -> str:
    """Returns "kernel" for "lstm_1/lstm_cell_3/kernel:0", for "kernel" and for all that lies between."""
    return path.rsplit("/", maxsplit=1)[-1].split(":", maxsplit=1)[0]
