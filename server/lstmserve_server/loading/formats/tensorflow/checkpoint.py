"""Reads TensorFlow checkpoints ("tensor bundles"): PREFIX.index, and the arrays in PREFIX.data-0000N-of-0000M.

As in tensorflow/core/util/tensor_bundle/tensor_bundle.cc. The index says of every array its type, shape, and where it is;
all of that is checked before a byte of an array is read, and its check sum after.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError, format_names
from lstmserve_server.loading.containers.source import ModelSource
from lstmserve_server.loading.formats.tensorflow import crc32c, protos, sstable
from lstmserve_server.loading.store import arrays

OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"

_MAX_RANK: Final = 8
_STRING, _BFLOAT16 = 7, 14
_DTYPES: Final = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool", 17: "uint16",
    19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip


class Checkpoint:
    """An open checkpoint. All methods raise `UnsupportedModelError` if its content is not as expected."""

    def __init__(self, entries: Mapping[str, Any], shards: _Shards, place: ModelSource) -> None:
        self._entries = entries
        self._shards = shards
        self._limits = place.limits
        self._store = place.store

    @classmethod
    @contextlib.contextmanager
    def open(cls, place: ModelSource, prefix: str) -> Iterator[Self]:
        """Opens a checkpoint, `prefix`.index; its parts `prefix`.data-0000N-of-0000M are opened when needed."""
        most = place.limits.index_bytes
        with place.open_sibling(f"{prefix}.index") as file:
            content = file.read(most + 1)
        if len(content) > most:
            message = f"the index of the checkpoint is longer than {most} bytes"
            raise UnsupportedModelError(message)
        found = sstable.read(content)
        header = protos.parse("BundleHeader", found.pop(b"", b""), "the header of the checkpoint")
        most = place.limits.shards
        if header.endianness or not 1 <= header.num_shards <= most:
            message = (
                f"the checkpoint has {header.num_shards} parts and {'big' if header.endianness else 'little'}-endian "
                f"numbers; expected 1 to {most}, and little-endian ones"
            )
            raise UnsupportedModelError(message)
        entries = {_name(key): protos.parse("BundleEntry", value, _name(key)) for key, value in found.items()}
        with contextlib.ExitStack() as stack:
            yield cls(entries, _Shards(place, prefix, header.num_shards, stack), place)

    def names(self) -> list[str]:
        """Returns the names of all arrays and texts, sorted."""
        return list(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the declared shape of an array; allocates nothing."""
        shape = self._entry(name).shape
        lengths = tuple(dimension.size for dimension in shape.dim)
        if shape.unknown_rank or len(lengths) > _MAX_RANK or not all(0 <= length < 1 << 40 for length in lengths):
            message = f"{name} has the shape {lengths[: _MAX_RANK + 1]}; expected up to {_MAX_RANK} known lengths"
            raise UnsupportedModelError(message)
        return lengths

    def dtype(self, name: str) -> np.dtype[Any]:
        """Returns the dtype in which an array is stored."""
        number = self._entry(name).dtype
        if number == _BFLOAT16:
            return arrays.BFLOAT16
        if number not in _DTYPES:
            message = (
                f"{name} holds numbers of TensorFlow's type {number}, which is not read; expected float32 or float64"
            )
            raise UnsupportedModelError(message)
        return np.dtype(_DTYPES[number])

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Returns an array after checking its metadata.

        The array is C-contiguous, in native byte order, converted to `dtype` if that is wider than the stored type, and read-only.
        """
        found, stored = self.shape(name), self.dtype(name)
        if found != shape:
            message = f"{name} has the shape {found}; expected {shape} from the configuration"
            raise UnsupportedModelError(message)
        arrays.require_type(stored, dtype, name)
        array = self._store.empty(shape, dtype)
        raw = array if stored == dtype else np.empty(shape, stored)
        self._fill(name, raw.reshape(-1).view(np.uint8).data)
        if stored == arrays.BFLOAT16:
            arrays.widen_bfloat16(raw, array)
        elif raw is not array:
            array[...] = raw
        return arrays.freeze(array, name)

    def object_graph(self) -> bytes:
        """Returns the encoded object graph."""
        if OBJECT_GRAPH not in self._entries:
            message = (
                f"the checkpoint has no {OBJECT_GRAPH}, as those of TensorFlow 1 (tf.train.Saver); it holds "
                f"{format_names(self.names())}. Save the model again: model.save('model.keras')"
            )
            raise UnsupportedModelError(message)
        return self._text(OBJECT_GRAPH)

    def _text(self, name: str) -> bytes:
        """Returns a scalar string: its length, the checksum of the length, and the text."""
        entry = self._entry(name)
        if entry.dtype != _STRING or self.shape(name) or not 0 < entry.size <= self._limits.index_bytes:
            most = self._limits.index_bytes
            message = f"{name} is of type {entry.dtype} and {entry.size} bytes long; expected one text of up to {most}"
            raise UnsupportedModelError(message)
        content = bytearray(entry.size)
        self._read(name, memoryview(content))
        length, at = sstable.varint(bytes(content[:16]), 0, name)
        text = bytes(content[at + 4 :])
        packed = struct.pack("<I" if length < 1 << 32 else "<Q", length)
        if (
            length != len(text)
            or crc32c.masked(packed) != int.from_bytes(content[at : at + 4], "little")
            or crc32c.masked(packed + bytes(content[at:])) != entry.crc32c
        ):
            message = (
                f"{name} declares {length} bytes and holds {len(text)}, or its check sum does not agree; it is damaged"
            )
            raise UnsupportedModelError(message)
        return text

    def _entry(self, name: str) -> Any:
        if name not in self._entries:
            message = f"the checkpoint has no {name}; it holds {format_names(self.names())}"
            raise UnsupportedModelError(message)
        return self._entries[name]

    def _fill(self, name: str, buffer: memoryview) -> None:
        """Reads the bytes of an array, and verifies their checksum."""
        self._read(name, buffer)
        if crc32c.masked(buffer) != self._entry(name).crc32c:
            message = f"the check sum of {name} does not agree. The file is damaged, or belongs to another index"
            raise UnsupportedModelError(message)

    def _read(self, name: str, buffer: memoryview) -> None:
        entry = self._entry(name)
        if entry.slices:
            message = (
                f"{name} is stored in {len(entry.slices)} slices (a partitioned variable), which are not read. Save the model "
                "again without a partitioner"
            )
            raise UnsupportedModelError(message)
        if entry.size != len(buffer):
            message = f"{name} declares {entry.size} bytes; expected {len(buffer)} from its shape. The index is damaged"
            raise UnsupportedModelError(message)
        self._shards.read(name, entry.shard_id, entry.offset, buffer)


class _Shards:
    """The files that hold the arrays, opened when first needed."""

    def __init__(self, place: ModelSource, prefix: str, count: int, stack: contextlib.ExitStack) -> None:
        self._place = place
        self._prefix = prefix
        self._count = count
        self._stack = stack
        self._files: dict[int, tuple[BinaryIO, int]] = {}

    def read(self, name: str, number: int, offset: int, buffer: memoryview) -> None:
        """Reads a range of a part, for the entry with that name."""
        if not 0 <= number < self._count:
            message = f"{name} is in part {number} of {self._count}. The index is damaged"
            raise UnsupportedModelError(message)
        if number not in self._files:
            part = f"{self._prefix}.data-{number:05}-of-{self._count:05}"
            file = self._stack.enter_context(self._place.open_sibling(part))
            self._files[number] = file, file.seek(0, io.SEEK_END)
        file, length = self._files[number]
        if offset < 0 or offset + len(buffer) > length:
            message = (
                f"{name} is {len(buffer)} bytes at {offset} of part {number}, which has {length}. The part was cut off while it "
                "was copied, or belongs to another index"
            )
            raise UnsupportedModelError(message)
        try:
            file.seek(offset)
            count = file.readinto(buffer)  # type: ignore[attr-defined]  # binary files have it
        except OSError as error:
            message = f"{name} cannot be read: {error}"
            raise UnsupportedModelError(message) from error
        if count != len(buffer):
            message = f"{name} is {len(buffer)} bytes long, of which {count} could be read"
            raise UnsupportedModelError(message)


def _name(key: bytes) -> str:
    try:
        name = key.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"the checkpoint has a name that is not text in UTF-8: {key[:64]!r}"
        raise UnsupportedModelError(message) from error
    if not name.isprintable():
        message = f"the checkpoint has a name that is not printable: {name[:64]!r}"
        raise UnsupportedModelError(message)
    return name
