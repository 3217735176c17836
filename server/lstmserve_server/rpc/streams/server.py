"""Serves streams, each as a session with one caller, until either side ends it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from google.protobuf.message import Message

from lstmserve_server.core.errors import DeadlineExceeded, NotServing, RequestError
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.rpc.auth.callers import current_caller, owner
from lstmserve_server.rpc.streams.codec import StreamCodec
from lstmserve_server.rpc.streams.session import Compute, Session
from lstmserve_server.runtime.admission import FairLimiter
from lstmserve_server.runtime.scheduler import Scheduler
from lstmserve_server.shadow.base import Shadow


class Admission(Protocol):
    """Permission to have a stream open."""

    withdrawn: asyncio.Future[RequestError]
    """Done, with the reason, when the permission is withdrawn."""

    def uses(self, model: str) -> None:
        """Records the model that the stream is for."""
        ...


class MessageStream(Protocol):
    """The caller's side of a stream."""

    @property
    def admission(self) -> Admission:
        """Permission of its caller to have it open."""
        ...

    async def read(self) -> Any:
        """Returns the next message; None at the end."""
        ...

    async def write(self, response: Message) -> None:
        """Sends a message; waits while the caller does not read."""
        ...


class StreamServer:
    """Serves up to a given number of streams, until the server drains.

    A stream handles one message at a time: the next is read after the answer is sent. A caller that does not read is not
    read from either, and delays only itself.
    """

    def __init__(
        self,
        codec: StreamCodec,
        scheduler: Scheduler,
        shadow: Shadow,
        metrics: CallMetrics,
        limiter: FairLimiter,
        *,
        idle_seconds: float,
        age_seconds: float,
    ) -> None:
        """Creates a server of streams.

        Args:
            codec: reads their messages.
            scheduler: computes them.
            shadow: compares them.
            metrics: records them.
            limiter: limits their number.
            idle_seconds: maximum time without a message, in seconds; 0 for no limit.
            age_seconds: maximum age, in seconds; 0 for no limit.
        """
        self._codec = codec
        self._scheduler = scheduler
        self._shadow = shadow
        self._metrics = metrics
        self._limiter = limiter
        self._idle_seconds = idle_seconds or math.inf
        self._age_seconds = age_seconds or math.inf
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Ends all streams, each with its state, after its current message is answered."""
        self._draining.set()

    async def serve(self, stream: MessageStream) -> None:
        """Serves one stream to its end.

        Raises:
            RequestError: the stream ends with this error.
        """
        if self._draining.is_set():
            raise NotServing("", "the server is draining; ask another one")
        with self._limiter.slot(owner()), self._metrics.track_stream():
            session, progress = Session(self._codec, self._refused), _StreamProgress()
            conversation = asyncio.create_task(self._serve_messages(stream, session, progress))
            draining = asyncio.create_task(self._draining.wait())
            try:
                why = await self._wait_for_end(conversation, draining, stream.admission, progress)
                # Not by the conversation, as to who cancels the call it looks for a moment as if all had been sent.
                note = session.last() if why is None else session.going_away()
                if note is not None:
                    await stream.write(note)
                if why is not None:
                    raise why
            finally:
                draining.cancel()
                progress.closing = True  # whatever a read may still bring
                if not progress.reading:  # gRPC does not bear that a read is cancelled: it ends with the stream
                    conversation.cancel()
                conversation.add_done_callback(_consume_result)

    def _refused(self, error: RequestError) -> None:
        self._metrics.count_refusal(error, current_caller.get().name)

    async def _serve_messages(self, stream: MessageStream, session: Session, progress: _StreamProgress) -> None:
        """Answers messages one after another, until the stream ends or must be left."""
        while not progress.closing:
            progress.reading, progress.waiting_since = True, monotonic()
            request = await stream.read()
            progress.reading = False
            if request is None or progress.closing:
                return
            self._metrics.count_message()
            decision = session.receive(request)
            if session.model:
                stream.admission.uses(session.model)
            if isinstance(decision, Compute):
                try:
                    call = self._shadow.with_recording(decision.call)
                    answer = await self._scheduler.run_admitted(call)
                    decision = session.computed(answer, await self._shadow.offer(call, answer, "StreamSteps"))
                except RequestError as error:
                    decision = session.failed(error)
            await stream.write(decision)

    async def _wait_for_end(
        self,
        conversation: asyncio.Task[None],
        draining: asyncio.Task[bool],
        admission: Admission,
        progress: _StreamProgress,
    ) -> RequestError | None:
        """Waits until a stream must end. Returns the reason; None if the caller has sent everything.

        One task reads, computes and writes meanwhile; waiting for each message here would take a fifth of a step.
        """
        end = monotonic() + self._age_seconds
        while True:
            now = monotonic()
            patience = min(end, (progress.waiting_since if progress.reading else now) + self._idle_seconds) - now
            awaited: set[asyncio.Future[Any]] = {conversation, draining, admission.withdrawn}
            await asyncio.wait(
                awaited,
                timeout=patience if math.isfinite(patience) else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if conversation.done():
                return conversation.result()
            why = self._reason_to_end(draining, admission, end, progress)
            if why is not None:
                progress.closing = True
                if not progress.reading:  # the message in hand is answered first
                    await conversation
                return why

    def _reason_to_end(
        self, draining: asyncio.Task[bool], admission: Admission, end: float, progress: _StreamProgress
    ) -> RequestError | None:
        if admission.withdrawn.done():
            return admission.withdrawn.result()
        if draining.done():
            return NotServing("", "the server is draining; continue with another one")
        if monotonic() >= end:
            return NotServing("", f"the stream is {self._age_seconds:g} seconds old; continue with a new one")
        if progress.reading and monotonic() >= progress.waiting_since + self._idle_seconds:
            return DeadlineExceeded("", f"no message for {self._idle_seconds} seconds (--stream-idle-seconds)")
        return None


@dataclass(slots=True)
class _StreamProgress:
    """Progress of a stream."""

    reading: bool = False
    """Whether it waits for a message, rather than answering one,"""

    waiting_since: float = 0.0
    """and since when, by `monotonic`."""

    closing: bool = False
    """Whether the stream ends after the current message."""


def _consume_result(conversation: asyncio.Task[None]) -> None:
    """Consumes the result of an abandoned task."""
    if not conversation.cancelled():
        conversation.exception()
