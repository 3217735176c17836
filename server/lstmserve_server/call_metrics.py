"""What operators see of calls: how many, how they ended, how long they took and where, and how much they computed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal

import grpc
import structlog
from prometheus_client import Counter, Gauge, Histogram

from lstmserve_server.callers import calling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from google.protobuf.descriptor import MethodDescriptor
    from prometheus_client.registry import Collector

    from lstmserve_server.errors import RequestError

_log = structlog.get_logger(__name__)

_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""A call of one step takes some hundred microseconds, one of a long sequence seconds."""

_PART_SECONDS: Final = (0.00001, 0.000025, 0.00005, *_SECONDS)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_ABOUT_STATE: Final = re.compile(r"(?:\w+\.)?state\.(?:layers\[\d+\]\.)?(\w+(?:\.\w+)?)")

Part = Literal["decode", "queue", "compute", "encode"]


class CallMetrics:
    """Counters of calls, with no more labels than there are methods, codes, reasons and models."""

    def __init__(self) -> None:
        self._in_flight = Gauge(
            "lstmserve_calls_in_flight", "Calls that are being answered, streams among them.", registry=None
        )
        self._calls = Counter(
            "lstmserve_calls", "Calls that have ended, by method and gRPC code.", ["method", "code"], registry=None
        )
        self._seconds = Histogram(
            "lstmserve_call_seconds",
            "How long calls took, from their message to its answer. Of streams and watches nothing is said.",
            ["method"],
            buckets=_SECONDS,
            registry=None,
        )
        self._part_seconds = Histogram(
            "lstmserve_call_part_seconds",
            "How long the parts of calls and of messages of streams took.",
            ["part"],
            buckets=_PART_SECONDS,
            registry=None,
        )
        self._parts = {part: self._part_seconds.labels(part) for part in ("decode", "queue", "compute", "encode")}
        self._refused = Counter(
            "lstmserve_refused",
            "Calls and messages that were refused, by reason (ErrorInfo).",
            ["reason"],
            registry=None,
        )
        self._state_refused = Counter(
            "lstmserve_state_refused",
            "States that were refused, by what of them was not as expected.",
            ["reason"],
            registry=None,
        )
        self._batch_rows = Histogram(
            "lstmserve_batch_rows", "Rows that were computed together.", buckets=_ROWS, registry=None
        )
        self._rows = Counter("lstmserve_rows", "Rows that were computed, those of each call.", ["model"], registry=None)
        self._steps = Counter(
            "lstmserve_steps", "Time-steps that were computed, those of each row.", ["model"], registry=None
        )
        self._caller_calls = Counter(
            "lstmserve_caller_calls", "Calls of callers with a token.", ["caller"], registry=None
        )
        self._caller_refused = Counter(
            "lstmserve_caller_refused",
            "Calls and messages of theirs that were refused, by reason (ErrorInfo).",
            ["caller", "reason"],
            registry=None,
        )
        self._streams = Gauge("lstmserve_streams_open", "Streams that are open.", registry=None)
        self._messages = Counter("lstmserve_stream_messages", "Messages that streams were sent.", registry=None)

    def collectors(self) -> Sequence[Collector]:
        """Returns what Prometheus may ask."""
        return (
            self._in_flight,
            self._calls,
            self._seconds,
            self._part_seconds,
            self._refused,
            self._state_refused,
            self._batch_rows,
            self._rows,
            self._steps,
            self._caller_calls,
            self._caller_refused,
            self._streams,
            self._messages,
        )

    def of_method(
        self, method: MethodDescriptor, *, timed: bool
    ) -> Callable[[Any, Any], contextlib.AbstractContextManager[None]]:
        """Returns what takes note of a call, given its context and metadata, while it is under way.

        Args:
            method: that is called.
            timed: whether the time that a call takes says something of the server, rather than of its caller.
        """
        name = method.name
        seconds = self._seconds.labels(name)

        @contextlib.contextmanager
        def observed(context: Any, metadata: Any) -> Iterator[None]:  # noqa: ARG001 - for those who trace
            began = perf_counter()
            self._in_flight.inc()
            code = "CANCELLED"
            try:
                yield
                code = "OK"
            except BaseException as error:
                code = code_of(error, context)
                raise
            finally:
                took = perf_counter() - began
                self._in_flight.dec()
                self._calls.labels(name, code).inc()
                if timed:
                    seconds.observe(took)
                _log.debug("call", method=name, code=code, seconds=round(took, 6))

        return observed

    @contextlib.contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Takes note of a part of a call while it is under way."""
        began = perf_counter()
        yield
        self.took(name, perf_counter() - began)

    def took(self, name: Part, seconds: float) -> None:
        """Takes note of a part of a call that has ended."""
        self._parts[name].observe(seconds)

    def computed(self, model: str, rows: int, steps: int) -> None:
        """Takes note of what was computed for a call."""
        self._batch_rows.observe(rows)
        self._rows.labels(model).inc(rows)
        self._steps.labels(model).inc(rows * steps)

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """Takes note of a stream while it is open."""
        self._streams.inc()
        try:
            yield
        finally:
            self._streams.dec()

    def close(self) -> None:
        """Ends, having told all."""

    def message(self) -> None:
        """Takes note of a message that came on a stream."""
        self._messages.inc()

    def called(self, caller: str) -> None:
        """Takes note of a call of a caller with a name."""
        self._caller_calls.labels(caller).inc()

    def refused(self, error: RequestError) -> None:
        """Takes note of a refusal."""
        self._refused.labels(error.reason).inc()
        caller = calling.get().name
        if caller:
            self._caller_refused.labels(caller, error.reason).inc()
        about_state = _ABOUT_STATE.match(error.field)
        if about_state:
            self._state_refused.labels(about_state[1]).inc()


def code_of(error: BaseException, context: Any) -> str:
    """Returns the name of the gRPC code that a call ended with which passed the guard with this error."""
    if isinstance(error, grpc.aio.AbortError):
        code = context.code()
        return str((code if isinstance(code, grpc.StatusCode) else _BY_NUMBER[code]).name)
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "UNKNOWN"


_BY_NUMBER: Final[dict[Any, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
