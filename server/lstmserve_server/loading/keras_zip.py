"""Keras 3's `.keras`: a zip archive of `config.json`, `metadata.json` and `model.weights.h5` (`saving_lib`)."""

from __future__ import annotations

import contextlib
import io
import re
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from lstmserve_server.description import Source
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import config_text, keras_config
from lstmserve_server.loading.build import KerasFile
from lstmserve_server.loading.hdf5 import Group

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lstmserve_server.loading.keras_config import LayerConfig, ModelConfig
    from lstmserve_server.loading.layer_rules import Block
    from lstmserve_server.loading.limits import Limits

SIGNATURE: Final = b"PK\x03\x04"

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_FIRST_PLACES: Final = ("vars", "cell/vars", "forward_layer/cell/vars", "layer/vars")  # of the first weight of a layer
_ENCRYPTED: Final = 0x1
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@contextlib.contextmanager
def read(file: BinaryIO, name: str, limits: Limits) -> Iterator[KerasFile]:
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
        yield KerasFile(config, _NumberedGroups(root, config), Source(name, "keras-zip", version))


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


class _NumberedGroups:
    """One group per layer, named after its class and numbered within it: the layer's own name plays no part.

    `layers/lstm`, `layers/lstm_1` ... are the LSTM layers in the order of the model, whatever they are called; a file with
    a layer named "lstm_1" in `layers/lstm` is usual.
    """

    def __init__(self, root: Group, config: ModelConfig) -> None:
        self._layers = root.group("layers")
        counts: dict[str, int] = {}
        self._groups: dict[str, str] = {}
        for layer in config.chain or config.layers:  # Keras numbers them along the graph that it rebuilds
            number = counts.get(layer.kind, 0)
            counts[layer.kind] = number + 1
            self._groups[layer.name] = _snake_case(layer.kind) + (f"_{number}" if number else "")

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> list[dict[str, NDArray[Any]]]:
        return [self._read(layer, block, dtype) for block in blocks]

    def features_of(self, layer: LayerConfig) -> int:
        for place in _FIRST_PLACES:
            if f"{self._groups[layer.name]}/{place}/0".replace("//", "/") in self._layers:
                shape = self._variables(layer, place).shape("0")
                return shape[-2] if len(shape) > 1 else 0
        message = f"{layer} has no weights in the file, and the model does not declare how many features it reads"
        raise ModelRefused(message)

    def _read(self, layer: LayerConfig, block: Block, dtype: np.dtype[Any]) -> dict[str, NDArray[Any]]:
        group = self._variables(layer, f"{block.place}/vars" if block.place else "vars")
        found = group.names()
        if sorted(found) != sorted(str(i) for i in range(len(block.shapes))):
            names = ", ".join(block.shapes)
            message = f"{layer} has {len(found)} weights in {group.path}; expected {len(block.shapes)}: {names}"
            raise ModelRefused(message)
        return {weight: group.array(str(i), shape, dtype) for i, (weight, shape) in enumerate(block.shapes.items())}

    def _variables(self, layer: LayerConfig, place: str) -> Group:
        return self._layers.group(f"{self._groups[layer.name]}/{place}")


def _snake_case(name: str) -> str:
    """Returns the name of a class as Keras spells it in paths (keras/src/utils/naming.py, `to_snake_case`)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
