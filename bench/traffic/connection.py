"""One connection of a generator of load: many calls of the same kind, as cheap as Python makes them."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import hpack

from bench.traffic import frames

RESET: Final = 32
"""Added to the code of a call that ended by RST_STREAM, without a status of gRPC."""
GONE: Final = 64
"""The code of a call whose connection was lost."""

_OF_RESET: Final = {frames.REFUSED_STREAM: 14, frames.CANCEL: 1}
_INTERNAL, _UNKNOWN, _OK = 13, 2, 0
_READ: Final = 1 << 18


@dataclass(frozen=True)
class Request:
    """A call to be made again and again."""

    path: str
    data: bytes
    deadline: float
    """Seconds that its caller waits, of which the server is told."""

    def headers(self) -> list[tuple[str, str]]:
        """Returns the headers as gRPC wants them."""
        return [
            (":method", "POST"), (":scheme", "http"), (":path", self.path), (":authority", "localhost"),
            ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "load"),  # codespell:ignore te
            ("grpc-timeout", f"{int(self.deadline * 1000)}m"),
        ]  # fmt: skip


class Connection:
    """A connection with calls under way, each known by a number of the caller's choosing."""

    def __init__(
        self, address: str, request: Request, ended: Callable[[int, int, bytes, frozenset[str]], None]
    ) -> None:
        """Connects.

        Args:
            address: HOST:PORT.
            request: the call to make.
            ended: what takes the end of a call: its number, its code, the message, and the names in its trailers.
        """
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ended = ended
        headers = request.headers()
        encoder = hpack.Encoder()
        self._first = encoder.encode(headers, huffman=False)
        block = encoder.encode(headers, huffman=False)  # of indices alone, as the server has remembered the first
        self._headers = frames.frame(frames.HEADERS, frames.END_HEADERS, 0, block)[:5]
        self._block = block
        body = frames.message(request.data)
        self._data_head = frames.frame(frames.DATA, frames.END_STREAM, 0, body)[:5]
        self._body = body
        self._next = 1
        self._window = frames.FIRST_WINDOW
        self._taken = 0
        self.most = 100
        """Most streams that the server allows."""
        self.calls: dict[int, int] = {}
        """The numbers of the calls under way, by stream."""
        self._messages: dict[int, bytes] = {}
        self._decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self._known: dict[bytes, tuple[int | None, frozenset[str]]] = {}
        self._input = b""
        self._output = bytearray(frames.PREFACE)
        self._output += frames.settings(
            {frames.HEADER_TABLE_SIZE: 0, frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW, 2: 0}
        )
        self._output += frames.window_update(0, frames.LARGEST_WINDOW - frames.FIRST_WINDOW)
        self.open = True
        self.socket.setblocking(False)

    @property
    def room(self) -> bool:
        """Whether a call can be sent now."""
        return self.open and len(self.calls) < self.most and self._window >= len(self._body)

    def call(self, number: int) -> int:
        """Begins a call and returns its stream; nothing is sent before `flush`."""
        stream = self._next
        self._next += 2
        packed = struct.pack(">I", stream)
        if stream == 1:
            self._output += frames.frame(frames.HEADERS, frames.END_HEADERS, 1, self._first)
        else:
            self._output += self._headers + packed + self._block
        self._output += self._data_head + packed + self._body
        self._window -= len(self._body)
        self.calls[stream] = number
        return stream

    def cancel(self, stream: int) -> None:
        """Ends an abandoned call."""
        del self.calls[stream]
        self._messages.pop(stream, None)
        self._output += frames.reset(stream)

    def flush(self) -> bool:
        """Sends what there is, as far as the socket takes it; returns whether something is left."""
        if self._output and self.open:
            with contextlib.suppress(BlockingIOError):
                try:
                    sent = self.socket.send(self._output)
                except OSError as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    self._lose()
                    return False
                del self._output[:sent]
        return bool(self._output)

    def receive(self) -> None:
        """Reads what has come, and tells of the calls that ended."""
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        data = self._input + data if self._input else data
        at, end = 0, len(data)
        while end - at >= frames.FRAME_HEAD:
            length = int.from_bytes(data[at : at + 3], "big")
            after = at + frames.FRAME_HEAD + length
            if after > end:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            self._take(data[at + 3], data[at + 4], stream, data[at + 9 : after])
            at = after
        self._input = data[at:]

    def close(self) -> None:
        """Ends it."""
        self.open = False
        self.socket.close()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            self._take_headers(flags, stream, payload)
        elif kind == frames.DATA:
            self._take_data(stream, payload)
        elif kind == frames.RST_STREAM:
            self._end(stream, RESET + _OF_RESET.get(int.from_bytes(payload, "big"), _INTERNAL), frozenset())
        elif kind == frames.WINDOW_UPDATE:
            if not stream:
                self._window += int.from_bytes(payload, "big")
        elif not flags & frames.ACK:
            self._take_control(kind, payload)

    def _take_control(self, kind: int, payload: bytes) -> None:
        """Takes a frame of the connection that wants an answer."""
        if kind == frames.SETTINGS:
            self.most = dict(struct.iter_unpack(">HI", payload)).get(frames.MAX_CONCURRENT_STREAMS, self.most)
            self._output += frames.frame(frames.SETTINGS, frames.ACK, 0, b"")
        elif kind == frames.PING:
            self._output += frames.frame(frames.PING, frames.ACK, 0, payload)
        elif kind == frames.GOAWAY:
            self.most = 0  # what is under way is still answered
        elif kind == frames.CONTINUATION:
            raise ValueError("a header block in several frames")

    def _take_data(self, stream: int, payload: bytes) -> None:
        if stream in self.calls:
            self._messages[stream] = self._messages.get(stream, b"") + payload
        self._taken += len(payload)
        if self._taken > frames.LARGEST_WINDOW >> 1:
            self._output += frames.window_update(0, self._taken)
            self._taken = 0

    def _take_headers(self, flags: int, stream: int, block: bytes) -> None:
        if not flags & frames.END_STREAM:
            return
        known = self._known.get(block)
        if known is None:
            headers = dict(self._decoder.decode(block))
            status = headers.get("grpc-status")
            known = (None if status is None else int(status)), frozenset(headers)
            if len(self._known) < 1000:
                self._known[block] = known
        code, names = known
        self._end(stream, _UNKNOWN if code is None else code, names)

    def _end(self, stream: int, code: int, names: frozenset[str]) -> None:
        number = self.calls.pop(stream, None)
        message = self._messages.pop(stream, b"")
        if number is not None:
            self._ended(number, code, message, names)

    def _lose(self) -> None:
        self.close()
        for stream in list(self.calls):
            self._end(stream, GONE, frozenset())
