"""Reads weights in several HDF5 files with an index (`.weights.json`), as Keras writes them since 3.10."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.keras_file import KerasFile
from lstmserve_server.loading.containers import safe_json
from lstmserve_server.loading.containers.hdf5 import Group
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.formats import keras_hdf5

_MAP: Final = "weight_map"


@contextlib.contextmanager
def read(file: BinaryIO, place: ModelSource) -> Iterator[KerasFile]:
    """Opens the model whose weights an index lists, with the architecture that is found for them.

    Raises:
        UnsupportedModelError: it is no such index, or one of the files is not as expected.
    """
    content = file.read(place.limits.config_bytes + 1)
    index = safe_json.parse(content, "the index of the weights", place.limits)
    names = _file_names(index.get(_MAP))
    if len(names) > place.limits.shards:
        message = f"the index lists {len(names)} files; expected at most {place.limits.shards}"
        raise UnsupportedModelError(message)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(place.open_sibling(name)) for name in names]
        groups = [stack.enter_context(Group.open(each, place.limits, place.store)) for each in files]
        yield keras_hdf5.weights_alone(_Union(groups), place, "keras-shards")


def _file_names(weight_map: Any) -> list[str]:
    """Returns the names of the files that an index lists, each once."""
    values = weight_map.values() if isinstance(weight_map, dict) else None
    listed = [name for value in values or [None] for name in (value if isinstance(value, list) else [value])]
    names = [name for name in listed if isinstance(name, str) and name and "/" not in name and "\\" not in name]
    if not names or len(names) < len(listed):
        message = "this is JSON, but no index of weights: expected a weight_map from places to the names of files alongside it"
        raise UnsupportedModelError(message)
    return list(dict.fromkeys(names))


class _Union:
    """Groups of several files as one. A weight is in one of them only."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self.path = groups[0].path
        """Where it is in the files, for errors."""

    def __contains__(self, name: str) -> bool:
        return any(name in group for group in self._groups)

    def names(self) -> list[str]:
        """Returns the names of the members, each once."""
        return list(dict.fromkeys(name for group in self._groups for name in group.names()))

    def attribute_names(self) -> list[str]:
        """Returns the names of the attributes, each once."""
        return list(dict.fromkeys(name for group in self._groups for name in group.attribute_names()))

    def group(self, name: str) -> _Union:
        """Returns the group at `name`."""
        return _Union([group.group(name) for group in self._having(name)])

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape that the array at `name` declares."""
        return self._having(name)[0].shape(name)

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Returns the array at `name`: see `Group.array`."""
        having = self._having(name)
        if len(having) > 1:
            message = f"{self.path}/{name} is in {len(having)} files, so two readers may see two models"
            raise UnsupportedModelError(message)
        return having[0].array(name, shape, dtype)

    def text(self, name: str) -> str | None:
        """Returns an attribute that is text, of the first file that has it."""
        return next((text for group in self._groups if (text := group.text(name)) is not None), None)

    def texts(self, name: str) -> list[str] | None:
        """Returns an attribute that is a list of texts, of the first file that has it."""
        return next((texts for group in self._groups if (texts := group.texts(name)) is not None), None)

    def _having(self, name: str) -> Sequence[Group]:
        """Returns the groups that have a member, or all of them, so that the first can say that it is missing."""
        return [group for group in self._groups if name in group] or self._groups
