"""HTTP/2 as far as a generator of load needs it: frames written in bulk, and header blocks without a dynamic table.

A client of gRPC takes some hundred microseconds for a call, as long as the server that is to be overloaded. Here a call is two
frames that are known in advance except for the number of the stream, and an answer three that are looked at.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 3, 4
REFUSED_STREAM, CANCEL = 7, 8
FRAME_HEAD: Final = 9
LARGEST_WINDOW: Final = (1 << 31) - 1
FIRST_WINDOW: Final = 65_535

_STATIC_NAMES: Final = 61
_STATUS_200: Final = 8
_STATUS_OTHERS: Final = range(9, 15)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Returns a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def settings(values: dict[int, int]) -> bytes:
    """Returns a frame of settings."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *item) for item in values.items()))


def window_update(stream: int, more: int) -> bytes:
    """Returns a frame that lets the other end send more bytes."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


def reset(stream: int, code: int = CANCEL) -> bytes:
    """Returns a frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def message(data: bytes) -> bytes:
    """Returns a message as gRPC puts it into DATA."""
    return b"\0" + struct.pack(">I", len(data)) + data


def _integer(value: int, bits: int, first: int) -> bytes:
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    value -= most
    found = [first | most]
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


def encode(headers: Sequence[tuple[str, str]], *, indexed: bool) -> bytes:
    """Returns a header block of literals, which the other end is told to remember, or to forget."""
    block = b""
    for name, value in headers:
        block += b"\x40" if indexed else b"\0"
        for text in (name.encode(), value.encode()):
            block += _integer(len(text), 7, 0) + text
    return block


def remembered(count: int) -> bytes:
    """Returns the header block that says the same as the first one of a connection, which had so many indexed headers."""
    return b"".join(_integer(_STATIC_NAMES + count - place, 7, 0x80) for place in range(count))


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _read_text(block: bytes, at: int) -> tuple[bytes | None, int]:
    huffman = block[at] & 0x80
    length, at = _read_integer(block, at, 7)
    return (None if huffman else block[at : at + length]), at + length


def decode(block: bytes) -> dict[str, str | None]:
    """Returns the headers of a block whose sender may not use a dynamic table.

    The value of one is None if it is compressed (Huffman), and names of the static table other than ":status" are numbers.
    """
    found: dict[str, str | None] = {}
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            index, at = _read_integer(block, at, 7)
            found[_name(index)] = "200" if index == _STATUS_200 else None
            continue
        if first & 0xE0 == 0x20:  # the size of the table: 0, as we asked for
            _, at = _read_integer(block, at, 5)
            continue
        index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
        name = _name(index)
        if not index:
            raw, at = _read_text(block, at)
            name = "?" if raw is None else raw.decode()
        value, at = _read_text(block, at)
        found[name] = None if value is None else value.decode("latin-1")
    return found


def _name(index: int) -> str:
    if index > _STATIC_NAMES:
        raise ValueError(f"header {index} is of a dynamic table, which we have forbidden")
    return ":status" if index == _STATUS_200 or index in _STATUS_OTHERS else str(index)
