"""Reads LevelDB's sorted string table, the index of a TensorFlow checkpoint (leveldb/doc/table_format.md).

Every block is read at most once and lies after the previous one, so the work is bounded by the length of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.formats.tensorflow import crc32c

MAGIC: Final = struct.pack("<Q", 0xDB4775248B80FB57)
"""The last bytes of the file."""

_FOOTER: Final = 48
_TRAILER: Final = 5  # the kind of compression, and the check sum
_KEY_LENGTH: Final = 4096
_KEY_BYTES: Final = 64 << 20  # keys share beginnings, so that together they may be much longer than the file
_VARINT_BYTES: Final = 10


def read(content: bytes) -> dict[bytes, bytes]:
    """Returns all entries of a table.

    Raises:
        UnsupportedModelError: it is not a table, compressed, or damaged.
    """
    if len(content) < _FOOTER or not content.endswith(MAGIC):
        message = (
            f"the index of the checkpoint ends with {content[-len(MAGIC) :]!r}; expected {MAGIC!r}, as LevelDB writes it. "
            "It is another kind of file, or was cut off while it was written or copied"
        )
        raise UnsupportedModelError(message)
    footer = content[-_FOOTER:]
    _, at = _handle(footer, 0)  # of the block of meta-information, which TensorFlow leaves empty
    handle, _ = _handle(footer, at)
    entries: dict[bytes, bytes] = {}
    last, end, key_bytes = b"", 0, 0
    for _, value in _entries(_block(content, handle)):
        handle, rest = _handle(value, 0)
        if rest != len(value) or handle[0] < end:
            raise _damaged(f"its block at {handle[0]} overlaps the one before, or is not described alone")
        end = sum(handle)
        for key, entry in _entries(_block(content, handle)):
            if entries and key <= last:
                raise _damaged(f"the name {key[:64]!r} follows {last[:64]!r}, so two readers may see two files")
            key_bytes += len(key)
            if key_bytes > _KEY_BYTES:
                raise _damaged(f"its names are more than {_KEY_BYTES} bytes long together")
            entries[key] = entry
            last = key
    return entries


def varint(data: bytes, at: int, what: str) -> tuple[int, int]:
    """Returns a varint and the position after it; `what` names it in errors."""
    value = 0
    for count, byte in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that another byte follows
            return value, at + count + 1
    message = f"{what} has a number without an end at {at}. The file is damaged, or was cut off"
    raise UnsupportedModelError(message)


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Returns offset and size of a block, and the position after them."""
    offset, at = _number(data, at)
    size, at = _number(data, at)
    return (offset, size), at


def _number(data: bytes, at: int) -> tuple[int, int]:
    return varint(data, at, "the index of the checkpoint")


def _block(content: bytes, handle: tuple[int, int]) -> bytes:
    """Returns a block after verifying its checksum."""
    offset, size = handle
    end = offset + size
    if end + _TRAILER > len(content) - _FOOTER:
        raise _damaged(f"its block of {size} bytes at {offset} does not end within its {len(content)} bytes")
    kind = content[end]
    if kind:
        message = (
            f"the index of the checkpoint is compressed (kind {kind}{', snappy' if kind == 1 else ''}); expected it plain, "
            "as TensorFlow writes it"
        )
        raise UnsupportedModelError(message)
    stored = int.from_bytes(content[end + 1 : end + _TRAILER], "little")
    if crc32c.masked(content[offset : end + 1]) != stored:
        raise _damaged(f"the check sum of its block at {offset} does not agree")
    return content[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the entries of a block; each key shares a prefix with the previous one."""
    end = _end_of_entries(block)
    at, key = 0, b""
    while at < end:
        shared, at = _number(block, at)
        own, at = _number(block, at)
        length, at = _number(block, at)
        if shared > len(key) or at + own + length > end or shared + own > _KEY_LENGTH:
            raise _damaged(f"an entry repeats {shared} bytes, has {own} and {length} of its own, and these do not fit")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _end_of_entries(block: bytes) -> int:
    """Returns the end of the entries, where the restart array begins."""
    if len(block) < 4:  # noqa: PLR2004 - of their number
        raise _damaged(f"one of its blocks has {len(block)} bytes")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if restarts < 1 or end < 0:
        raise _damaged(f"one of its blocks of {len(block)} bytes declares {restarts} places to begin a search")
    return end


def _damaged(text: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"the index of the checkpoint is damaged, or was cut off while it was copied: {text}")
