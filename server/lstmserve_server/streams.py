"""The streams of a server: each one a session with somebody at the other end, until one of the two ends it."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from lstmserve_server.callers import called_by
from lstmserve_server.errors import NotServing, RequestError, TooLate
from lstmserve_server.streaming import Compute, Session

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from lstmserve_server.call_metrics import CallMetrics
    from lstmserve_server.places import Places
    from lstmserve_server.runner import Runner
    from lstmserve_server.shadow.base import Shadow
    from lstmserve_server.stream_codec import StreamCodec


class MessageStream(Protocol):
    """The other end of a stream."""

    async def read(self) -> Any:
        """Returns the next message; None when there are no more."""
        ...

    async def write(self, response: Message) -> None:
        """Sends a message; waits as long as nobody reads."""
        ...


class Streams:
    """Serves streams, at most so many at a time, until the server drains.

    A stream has one message in hand: the next is not read before the answer is sent. So a caller who does not read is not
    read from, and holds up nobody but itself.
    """

    def __init__(
        self,
        codec: StreamCodec,
        runner: Runner,
        shadow: Shadow,
        metrics: CallMetrics,
        places: Places,
        *,
        idle_seconds: float,
        age_seconds: float,
    ) -> None:
        """Makes a place for streams.

        Args:
            codec: reads their messages.
            runner: computes them.
            shadow: is shown them.
            metrics: takes note of them.
            places: how many there may be.
            idle_seconds: how long one may be without a message, in seconds; 0 for ever.
            age_seconds: how long one may be at all; 0 for ever.
        """
        self._codec = codec
        self._runner = runner
        self._shadow = shadow
        self._metrics = metrics
        self._places = places
        self._idle_seconds = idle_seconds or math.inf
        self._age_seconds = age_seconds or math.inf
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Ends all streams, each with its state, when the message in hand is answered."""
        self._draining.set()

    async def serve(self, stream: MessageStream) -> None:
        """Serves one stream to its end.

        Raises:
            RequestError: the stream ends with this error.
        """
        if self._draining.is_set():
            raise NotServing("", "the server is draining; ask another one")
        with self._places.one(called_by()), self._metrics.stream():
            draining = asyncio.create_task(self._draining.wait())
            try:
                await self._converse(stream, Session(self._codec, self._metrics.refused), draining)
            finally:
                draining.cancel()

    async def _converse(self, stream: MessageStream, session: Session, draining: asyncio.Task[bool]) -> None:
        end = monotonic() + self._age_seconds
        while True:
            request = await self._next(stream, session, draining, end)
            if request is None:
                last = session.last()
                if last is not None:
                    await stream.write(last)
                return
            self._metrics.message()
            decision = session.receive(request)
            if isinstance(decision, Compute):
                try:
                    call = self._shadow.traced(decision.call)
                    answer = await self._runner.advance(call)
                    decision = session.computed(answer, await self._shadow.offer(call, answer, "StreamSteps"))
                except RequestError as error:
                    decision = session.failed(error)
            await stream.write(decision)

    async def _next(self, stream: MessageStream, session: Session, draining: asyncio.Task[bool], end: float) -> Any:
        """Returns the next message, unless the server drains, the stream is too old, or nothing comes for too long."""
        reading = asyncio.create_task(stream.read())
        patience = min(self._idle_seconds, end - monotonic())
        try:
            await asyncio.wait(
                {reading, draining},
                timeout=patience if math.isfinite(patience) else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:  # never cancelled, as gRPC does not bear it: the read ends with the stream
            reading.add_done_callback(_forget)
        if reading.done() and monotonic() < end:
            return reading.result()
        note = session.going_away()
        if note is not None:
            await stream.write(note)
        if draining.done():
            raise NotServing("", "the server is draining; go on with another one")
        if monotonic() >= end:
            raise NotServing("", f"the stream is {self._age_seconds:g} seconds old; go on with a new one")
        raise TooLate("", f"nothing came for {self._idle_seconds} seconds (--stream-idle-seconds)")


def _forget(reading: asyncio.Task[Any]) -> None:
    """Takes note of how a read ended that nobody waits for any more."""
    if not reading.cancelled():
        reading.exception()
