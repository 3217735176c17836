"""CRC-32C in the masked form that LevelDB and TensorFlow store."""

from __future__ import annotations

from typing import Final

import google_crc32c

_DELTA: Final = 0xA282EAD8
_ONES: Final = 0xFFFFFFFF
_BLOCK: Final = 1 << 20


def masked(content: bytes | memoryview) -> int:
    """Returns the checksum of some bytes in the stored form (leveldb/util/crc32c.h, `Mask`)."""
    crc = 0
    for start in range(0, len(content), _BLOCK):  # the library takes bytes, so that each block is copied
        crc = google_crc32c.extend(crc, bytes(content[start : start + _BLOCK]))
    return (((crc >> 15) | (crc << 17)) + _DELTA) & _ONES
