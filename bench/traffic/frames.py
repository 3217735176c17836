"""HTTP/2 frames as far as a load generator needs them, written in bulk. HPACK is the library's.

A client of gRPC takes some hundred microseconds for a call, as long as the server that is to be overloaded. Here a call is two
frames that are known in advance except for the number of the stream, and an answer three that are looked at.
"""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 3, 4
REFUSED_STREAM, CANCEL = 7, 8
FRAME_HEAD: Final = 9
LARGEST_WINDOW: Final = (1 << 31) - 1
FIRST_WINDOW: Final = 65_535


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
