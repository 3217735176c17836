"""Shadow mode in the serving process: samples calls, hands them to the comparison worker, and never delays one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, TypeVar

import structlog
from prometheus_client.registry import Collector

from lstmserve.v1 import shadow_pb2
from lstmserve_server.core.errors import NoSuchModel, format_names
from lstmserve_server.core.request_context import seconds_left
from lstmserve_server.model.model import RecurrentModel, StepResult
from lstmserve_server.model.recording import Recording
from lstmserve_server.runtime.calls import StepCall
from lstmserve_server.shadow import captured_call as cases
from lstmserve_server.shadow.base import Call
from lstmserve_server.shadow.bundles import Bundles
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.metrics import ShadowCollector
from lstmserve_server.shadow.recorder import Recorder
from lstmserve_server.shadow.reference_process import ComparedModel, ReferenceLimits, ReferenceProcess
from lstmserve_server.shadow.report import ShadowReport
from lstmserve_server.shadow.subscribers import Subscribers
from lstmserve_server.shadow.worker import ComparisonJob, ComparisonWorker

_PART: Final = 0.8  # of the time that a caller has left, for the comparison; the rest is for the answer

_Argument = TypeVar("_Argument")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """Settings of shadow mode."""

    rate: float
    """Share of the calls, 0 to 1."""

    tolerances: Tolerances
    limits: ReferenceLimits
    """Of the reference process."""

    queue: int
    """Most calls that wait."""

    queue_bytes: int
    """Most memory that they hold."""

    wait_seconds: float
    """How long a caller waits who asks for the comparison of a call."""

    bundles: str | None
    """Folder for bundles; None for none."""

    max_bundles: int
    bundle_bytes: int
    """Most that all bundles take."""

    @property
    def mode(self) -> str:
        """The sampling rate in the form of the setting."""
        return "all" if self.rate >= 1 else f"{self.rate:g}"


class KerasShadow:
    """Compares calls with the real Keras layer."""

    def __init__(self, settings: ShadowSettings, subjects: Sequence[ComparedModel]) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._subscribers = Subscribers()
        self._awaited: set[asyncio.Future[shadow_pb2.Comparison]] = set()
        self._released = False
        self._sizes = {subject.served.name: _numbers_per_step(subject.served.model) for subject in subjects}
        self._report = ShadowReport(settings.rate, [subject.served for subject in subjects], settings.tolerances)
        bundles = Bundles(settings.bundles, settings.max_bundles, settings.bundle_bytes)
        recorder = Recorder(
            subjects, settings.tolerances, self._report, bundles, self._in_loop(self._subscribers.publish)
        )
        start = functools.partial(ReferenceProcess, subjects, settings.tolerances, settings.limits)
        self._worker = ComparisonWorker(start, recorder, max_jobs=settings.queue, max_bytes=settings.queue_bytes)

    def with_recording(self, call: Call) -> Call:
        """Returns the call to compute: with a recording, if it was sampled."""
        if not call.compare and random.random() >= self._settings.rate:  # noqa: S311 - a sample, no secret
            return call
        if self._bytes_of(call) > self._settings.queue_bytes:
            self._report.sampled(call.served.name)
            self._report.dropped(call.served.name, "too_large")
            return call
        return replace(call, recording=Recording())

    async def offer(self, call: StepCall, answer: StepResult, method: str) -> shadow_pb2.Comparison | None:
        """Takes a finished call. Returns at once, with None, unless the caller asks for the comparison; never raises."""
        name = call.served.name
        self._report.offered(name)
        if call.recording is None:
            return _not_compared("too_large") if call.compare else None
        try:
            return await self._take(call, answer, method)
        except Exception:  # noqa: BLE001 - a shadow never fails an answer
            _log.exception("shadow_error", model=name)
            self._report.failed(name, "own_error")
            return _not_compared("own_error") if call.compare else None

    def report(self, model: str) -> shadow_pb2.ShadowReport:
        """Returns the report of a model; of all models for ""."""
        self._require(model)
        return self._report.copy(model)

    def watch(self, model: str) -> AsyncGenerator[shadow_pb2.WatchDiscrepanciesResponse]:
        """Yields discrepancies of a model as they are found; of all for ""."""
        self._require(model)
        return self._subscribers.watch(model)

    def collectors(self) -> Sequence[Collector]:
        """Returns the Prometheus collectors."""
        return (ShadowCollector(self.report, lambda: self._worker.lag),)

    def release(self) -> None:
        """Releases all callers that wait for a comparison, now and later: the server drains."""
        self._released = True
        for found in self._awaited:
            _settle(found, _not_compared("stopping"))

    def stop(self) -> None:
        """Stops it at once."""
        self._worker.stop()

    async def _take(self, call: StepCall, answer: StepResult, method: str) -> shadow_pb2.Comparison | None:
        name, recording = call.served.name, call.recording
        assert recording is not None  # noqa: S101 - or there is nothing to take
        self._report.sampled(name)
        found: asyncio.Future[shadow_pb2.Comparison] | None = self._loop.create_future() if call.compare else None
        make = functools.partial(cases.capture, call, answer, recording, method)
        tell = None if found is None else self._in_loop(functools.partial(_settle, found))
        refused = self._worker.offer(ComparisonJob(name, self._bytes_of(call), make, monotonic(), tell))
        if refused:
            self._report.dropped(name, refused)
        if found is None:
            return None
        if refused:
            return _not_compared(refused)
        self._awaited.add(found)
        try:
            await asyncio.wait({found}, timeout=self._patience())
        finally:
            self._awaited.discard(found)
        return found.result() if found.done() else _not_compared("timed_out")

    def _patience(self) -> float:
        """Returns how long a caller can wait for the comparison and still get the answer."""
        if self._released:
            return 0.0
        left = seconds_left.get()()
        return self._settings.wait_seconds if left is None else min(self._settings.wait_seconds, _PART * left)

    def _in_loop(self, function: Callable[[_Argument], None]) -> Callable[[_Argument], None]:
        """Returns a function that another thread may call: it has this one called in the event loop."""

        def call(argument: _Argument) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(function, argument)

        return call

    def _bytes_of(self, call: StepCall) -> int:
        return len(call.x) * call.time * self._sizes[call.served.name] * call.served.model.dtype.itemsize

    def _require(self, model: str) -> None:
        if model and model not in self._sizes:
            raise NoSuchModel(
                "model", f"no model {model[:64]!r} is served; expected one of {format_names(self._sizes)}"
            )


def _settle(found: asyncio.Future[shadow_pb2.Comparison], comparison: shadow_pb2.Comparison) -> None:
    if not found.done():
        found.set_result(comparison)


def _not_compared(reason: str) -> shadow_pb2.Comparison:
    return shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_NOT_COMPARED, reason=reason)


def _numbers_per_step(model: RecurrentModel) -> int:
    """Returns about how many numbers a row's time-step leaves in a trace."""
    flowing = sum(
        math.prod(length or 1 for length in shape[1:] or shape)
        for layer in model.description.layers
        for shape in layer.output_shapes
    )
    units = sum(model.lstm(*place).spec.units for place in model.lstm_indices)
    return flowing + 2 * units
