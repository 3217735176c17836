"""An HTTP/2 client that does as it is told, right or wrong: frames by hand, HPACK by the library `hpack`.

connection = Connection(address)
stream = connection.call("/lstmserve.v1.LstmService/Step", message(request))
assert 0 == connection.answer(stream).grpc_status
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import hpack

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 0x1, 0x1, 0x4, 0x8, 0x20
CANCEL, ENHANCE_YOUR_CALM = 0x8, 0xB
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)

LARGEST_WINDOW: Final = 2**31 - 1
_LARGEST_FRAME: Final = 16_384
PATIENCE: Final = 20  # seconds after which someone who waits has failed

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Answer:
    """What has come on one stream."""

    headers: dict[str, str] = field(default_factory=dict)  # the trailers among them
    data: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def grpc_status(self) -> int | None:
        """The status of the call; None if none came."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def message(self) -> bytes:
        """The one message that came."""
        return self.data[5:]


class Connection:
    """One connection to a server, and what has come over it.

    Args:
        address: "host:port".
        settings: what the first SETTINGS frame says; flow control never holds the server up unless this says so.
        greet: whether the preface is sent, and what the server asks is answered.
    """

    def __init__(self, address: str, settings: Mapping[int, int] | None = None, *, greet: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.closed = False
        self.gone: int | None = None  # the error code of GOAWAY
        self.settings: dict[int, int] = {}  # the server's
        self.answers: dict[int, Answer] = {}
        self.window = 65_535
        """How many bytes of data the server takes on all streams together."""
        self.pongs = 0
        self._pings = 0
        self._replies = greet
        self._last_stream = -1
        self._decoder = hpack.Decoder()
        self._received = bytearray()
        self._block = bytearray()
        if greet:
            self.send(PREFACE, frame(SETTINGS, payload=pairs(settings or {INITIAL_WINDOW_SIZE: LARGEST_WINDOW})))
            self.send(frame(WINDOW_UPDATE, payload=struct.pack(">I", LARGEST_WINDOW - 65_535)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> bool:
        """Sends bytes as they are, and reads meanwhile what comes; returns whether all of them could be sent."""
        rest, deadline = memoryview(b"".join(pieces)), time.monotonic() + PATIENCE
        while rest and not self.closed:
            readable, writable, _ = select.select([self.socket], [self.socket], [], PATIENCE)
            if writable:
                try:
                    rest = rest[self.socket.send(rest) :]
                except ConnectionError:
                    self.closed = True
            if readable:
                self._read()
            _require_patience(deadline)
        return not self.closed

    def next_stream(self) -> int:
        """Returns the number of a stream that has not been used."""
        self._last_stream += 2
        return self._last_stream

    def call(
        self, path: str, body: bytes | None = b"", *, end: bool = True, extra: Iterable[tuple[str, str]] = ()
    ) -> int:
        """Begins a call, and returns its stream.

        Args:
            path: of the method.
            body: what is sent as data; None for no data at all.
            end: whether nothing more is to come.
            extra: headers alongside the usual ones; of the same name they take their place.
        """
        stream = self.next_stream()
        last = END_STREAM if end and body is None else 0
        self.send(frame(HEADERS, END_HEADERS | last, stream, block(request_headers(path, extra))))
        if body is not None:
            self.data(stream, body, end=end)
        return stream

    def data(self, stream: int, body: bytes, *, end: bool = False) -> bool:
        """Sends data, in frames as large as servers take and as the window of the connection lets it; returns whether it could."""
        for at in range(0, max(1, len(body)), _LARGEST_FRAME):
            piece = body[at : at + _LARGEST_FRAME]
            self.until(lambda: self.window >= _LARGEST_FRAME)
            self.window -= len(piece)
            last = END_STREAM if end and at + _LARGEST_FRAME >= len(body) else 0
            self.send(frame(DATA, last, stream, piece))
        return not self.closed

    def answer(self, stream: int) -> Answer:
        """Returns what came on a stream, when it has ended, or the whole connection."""
        self.until(lambda: stream in self.answers and self.answers[stream].ended)
        return self.answers.get(stream, Answer())

    def ping(self) -> bool:
        """Waits until the server has read all that was sent; returns False if it closed the connection instead."""
        self._pings += 1
        mark = self.pongs + 1
        return self.send(frame(PING, payload=struct.pack(">Q", self._pings))) and self.until(lambda: self.pongs >= mark)

    def until(self, done: Callable[[], bool]) -> bool:
        """Reads what comes until something is done; returns False if the connection was closed before."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            if self.closed:
                return False
            select.select([self.socket], [], [], PATIENCE)
            self._read()
            _require_patience(deadline)
        return True

    def until_closed(self) -> None:
        """Reads what comes until the server has closed the connection."""
        self.until(lambda: self.closed)

    def _read(self) -> None:
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        self.closed = not data
        self._received += data
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + length:
                break
            kind, flags, stream = self._received[3], self._received[4], int.from_bytes(self._received[5:9], "big")
            payload = bytes(self._received[9 : 9 + length])
            del self._received[: 9 + length]
            self._take(kind, flags, stream & LARGEST_WINDOW, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        answer = self.answers.setdefault(stream, Answer()) if stream else Answer()
        match kind:
            case 0:  # DATA
                answer.data += payload
                answer.ended |= bool(flags & END_STREAM)
            case 1 | 9:  # HEADERS, CONTINUATION
                self._block += payload
                answer.ended |= kind == HEADERS and bool(flags & END_STREAM)
                if flags & END_HEADERS:
                    answer.headers.update(self._decoder.decode(bytes(self._block)))
                    self._block.clear()
            case 3:  # RST_STREAM
                answer.reset, answer.ended = int.from_bytes(payload, "big"), True
            case 4 if not flags & ACK:  # SETTINGS
                self.settings.update(struct.iter_unpack(">HI", payload))
                self._reply(frame(SETTINGS, ACK))
            case 6 if flags & ACK:  # PING
                self.pongs += 1
            case 6:
                self._reply(frame(PING, ACK, payload=payload))
            case 7:  # GOAWAY
                self.gone = int.from_bytes(payload[4:8], "big")
            case 8 if not stream:  # WINDOW_UPDATE
                self.window += int.from_bytes(payload, "big")

    def _reply(self, data: bytes) -> None:
        """Sends a few bytes from within reading; when the way is full they are left out."""
        if self._replies:
            with contextlib.suppress(OSError):
                self.socket.send(data)


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Returns a frame; its length may be a lie."""
    said = len(payload) if length is None else length
    return (
        said.to_bytes(3, "big") + bytes((kind & 0xFF, flags & 0xFF)) + struct.pack(">I", stream & 0xFFFFFFFF) + payload
    )


def pairs(settings: Mapping[int, int]) -> bytes:
    """Returns the payload of SETTINGS."""
    return b"".join(struct.pack(">HI", key, value) for key, value in settings.items())


def block(headers: Iterable[tuple[str, str]]) -> bytes:
    """Returns headers as HPACK that leaves nothing in the table of the other end, so that frames can be sent in any order."""
    made = bytearray()
    for name, value in headers:
        made += b"\0" + _text(name.encode()) + _text(value.encode("latin-1"))
    return bytes(made)


def request_headers(path: str, extra: Iterable[tuple[str, str]] = ()) -> Headers:
    """Returns the headers of a call; those that `extra` has take the place of the usual ones."""
    extra = list(extra)
    usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    names = {name for name, _ in extra}
    pseudo = [item for item in extra if item[0].startswith(":")]
    rest = [item for item in extra if not item[0].startswith(":")]
    kept = [item for item in usual if item[0] not in names]
    return [*pseudo, *(i for i in kept if i[0].startswith(":")), *(i for i in kept if not i[0].startswith(":")), *rest]


def message(data: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Returns a message after its prefix, which may lie."""
    return struct.pack(">BI", flag, len(data) if length is None else length) + data


def _text(value: bytes) -> bytes:
    return hpack.hpack.encode_integer(len(value), 7) + value


def _require_patience(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"nothing decisive arrived for {PATIENCE} seconds")
