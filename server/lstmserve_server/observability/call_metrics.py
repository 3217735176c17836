"""Metrics of calls: how many, how they ended, how long they and their phases took, and what they computed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, Final, Literal, Protocol

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lstmserve_server.core.errors import RequestError
from lstmserve_server.observability.metric_types import Counter, HistogramFamily

_log = structlog.get_logger(__name__)

_DURATION_BUCKETS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
"""A call of one step takes some hundred microseconds, one of a long sequence seconds."""

_PHASE_BUCKETS: Final = (0.00001, 0.000025, 0.00005, *_DURATION_BUCKETS)
_ROW_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_STATE_FIELD: Final = re.compile(r"(?:\w+\.)?state\.(?:layers\[\d+\]\.)?(\w+(?:\.\w+)?)")

Phase = Literal["decode", "queue", "compute", "encode"]


class CallRecorder(Protocol):
    """Records one call."""

    def on_end(self, error: BaseException | None, context: Any) -> None:
        """Records the end of the call: an error that the dispatcher let through, or success."""
        ...


class CallMetrics:
    """Counters of calls, with no more labels than there are methods, codes, reasons, callers and models.

    To be used by the thread of the event loop alone.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._streams = 0
        self._calls = Counter("lstmserve_calls", "Calls that have ended, by method and gRPC code.", ["method", "code"])
        self._seconds = HistogramFamily(
            "lstmserve_call_duration_seconds",
            "How long calls took, from their message to its answer. Of streams and watches nothing is said.",
            _DURATION_BUCKETS,
            "method",
        )
        self._phase_seconds = HistogramFamily(
            "lstmserve_call_phase_duration_seconds",
            "Duration of the phases of calls and of stream messages, in seconds.",
            _PHASE_BUCKETS,
            "phase",
        )
        self._refused = Counter(
            "lstmserve_rejections", "Calls and messages that were refused, by reason (ErrorInfo).", ["reason"]
        )
        self._state_refused = Counter(
            "lstmserve_state_rejections", "States that were refused, by what of them was not as expected.", ["reason"]
        )
        self._batch_rows = HistogramFamily("lstmserve_batch_rows", "Rows that were computed together.", _ROW_BUCKETS)
        self._rows = Counter("lstmserve_rows", "Rows that were computed, those of each call.", ["model"])
        self._steps = Counter("lstmserve_steps", "Time-steps that were computed, those of each row.", ["model"])
        self._caller_calls = Counter("lstmserve_caller_calls", "Calls of callers with a token.", ["caller"])
        self._caller_refused = Counter(
            "lstmserve_caller_rejections",
            "Refused calls and messages of callers with a token, by reason.",
            ["caller", "reason"],
        )
        self._messages = Counter("lstmserve_stream_messages", "Messages that streams were sent.")
        self._phases = {phase: self._phase_seconds.labels(phase) for phase in ("decode", "queue", "compute", "encode")}
        self._rows_together = self._batch_rows.labels()

    def collectors(self) -> Sequence[Collector]:
        """Returns the Prometheus collectors."""
        return (
            self,
            self._calls,
            self._seconds,
            self._phase_seconds,
            self._refused,
            self._state_refused,
            self._batch_rows,
            self._rows,
            self._steps,
            self._caller_calls,
            self._caller_refused,
            self._messages,
        )

    def collect(self) -> Iterator[Metric]:
        """Yields the calls in flight."""
        text = "Calls that are being answered, streams among them."
        yield GaugeMetricFamily("lstmserve_calls_in_flight", text, value=self._in_flight)
        yield GaugeMetricFamily("lstmserve_streams_open", "Streams that are open.", value=self._streams)

    def on_start(self, method: MethodDescriptor, metadata: Any) -> CallRecorder:  # noqa: ARG002 - for those who trace
        """Records the start of a call, and returns the recorder of its end.

        Args:
            method: name of the method.
            metadata: of the call.
        """
        self._in_flight += 1
        return _TimedCall(self, method)

    def count_end(self, method: MethodDescriptor, code: str, seconds: float) -> None:
        """Records a call that has ended."""
        self._in_flight -= 1
        self._calls.add(method.name, code)
        if not (method.client_streaming or method.server_streaming):  # they take as long as their callers like
            self._seconds.labels(method.name).add(seconds)
        _log.debug("call", method=method.name, code=code, seconds=seconds)

    def observe_phase(self, phase: Phase, seconds: float, ago: float = 0) -> None:
        """Records a phase of a call; the phase ended `ago` seconds ago."""
        del ago  # for those who trace
        self._phases[phase].add(seconds)

    def count_computed(self, model: str, rows: int, steps: int) -> None:
        """Records the rows and steps that were computed for a call."""
        self._rows.add(model, count=rows)
        self._steps.add(model, count=rows * steps)

    def observe_batch(self, rows: int) -> None:
        """Records how many rows are computed together."""
        self._rows_together.add(rows)

    @contextlib.contextmanager
    def track_stream(self) -> Iterator[None]:
        """Records a stream while it is open."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    def count_message(self) -> None:
        """Records a message that came on a stream."""
        self._messages.add()

    def count_caller(self, caller: str) -> None:
        """Records a call of a caller with a name."""
        self._caller_calls.add(caller)

    def count_refusal(self, error: RequestError, caller: str) -> None:
        """Counts a rejection by caller; `caller` is "" for a caller without a name."""
        self._refused.add(error.reason)
        if caller:
            self._caller_refused.add(caller, error.reason)
        about_state = _STATE_FIELD.match(error.field)
        if about_state:
            self._state_refused.add(about_state[1])

    def close(self) -> None:
        """Flushes and stops."""


class _TimedCall:
    """A call in flight."""

    __slots__ = ("_began", "_method", "_metrics")

    def __init__(self, metrics: CallMetrics, method: MethodDescriptor) -> None:
        self._metrics = metrics
        self._method = method
        self._began = perf_counter()

    def on_end(self, error: BaseException | None, context: Any) -> None:
        self._metrics.count_end(self._method, code_of(error, context), perf_counter() - self._began)


def code_of(error: BaseException | None, context: Any) -> str:
    """Returns the gRPC status name of a finished call; `error` is what the dispatcher let through, or None."""
    match error:
        case None:
            return "OK"
        case grpc.aio.AbortError():
            code = context.code()
            return str((code if isinstance(code, grpc.StatusCode) else _BY_NUMBER[code]).name)
        case asyncio.CancelledError():
            return "CANCELLED"
        case _:
            return "UNKNOWN"


_BY_NUMBER: Final[dict[Any, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
