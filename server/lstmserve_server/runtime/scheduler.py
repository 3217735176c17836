"""Schedules calls: admits them, runs short ones inline and long ones in a thread, and cancels abandoned work."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Final

from lstmserve_server.core.errors import DeadlineExceeded, NotServing
from lstmserve_server.core.request_context import seconds_left
from lstmserve_server.model.model import StepResult
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.runtime.admission import FairLimiter
from lstmserve_server.runtime.batcher import Batcher, TimedResult
from lstmserve_server.runtime.calls import ForwardCall, StepCall

MAX_INLINE_COST: Final = 1_000_000
"""Up to this cost (`CostModel.cost`) a call is computed in the event loop: some hundred microseconds, no more than
the way to a thread and back."""

MAX_INLINE_BATCH_COST: Final = 4 * MAX_INLINE_COST
"""Up to this cost several of them are computed together, before the event loop looks at anything else."""

_MIN_ROWS_FOR_SECOND_THREAD: Final = 64
"""Fast mode: minimum rows to start a second batch while one is running. Smaller batches are cheaper if they wait and grow."""


class Scheduler:
    """Computes calls until closed: short ones in the event loop, long ones in a bounded number of threads."""

    def __init__(self, limiter: FairLimiter, threads: int, metrics: CallMetrics, *, batch_rows: int) -> None:
        """Creates a scheduler.

        Args:
            limiter: limits long calls.
            threads: number of threads that compute them.
            metrics: records the calls.
            batch_rows: maximum rows of a batch; 1 for no batching.
        """
        self._limiter = limiter
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compute")
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._batchers: dict[tuple[str, bool], Batcher] = {}
        """Those of each model: of calls that are short, and of calls that are long."""
        self._open = True
        self._estimates: dict[str, _ServiceTimeEstimate] = {}
        """How quickly each model was seen to compute."""
        self._backlog_seconds = 0.0
        """Seconds that the calls in the threads, and those that wait for them, take at best."""
        self._thread_count = threads

    async def run(self, call: StepCall, owner: Callable[[], str]) -> StepResult:
        """Admits and computes a `StepCall` or a `ForwardCall`.

        Args:
            call: what to compute.
            owner: returns the caller to whose share of the slots a long call counts.

        Raises:
            RequestError: the call is not admitted, or its answer is not finite.
        """
        if not self._open:
            raise NotServing("", "the server is draining; ask another one")
        if _cost(call) <= MAX_INLINE_COST:
            return await self._run_inline(call)
        with self._limiter.slot(owner()):
            return await self._run_pooled(call)

    async def run_admitted(self, call: StepCall) -> StepResult:
        """Computes a call that was admitted before, such as a message of a stream.

        Raises:
            RequestError: its answer is not finite, or would come too late.
        """
        return await (self._run_inline(call) if _cost(call) <= MAX_INLINE_COST else self._run_pooled(call))

    def close(self) -> None:
        """Stops admitting calls; those in flight continue."""
        self._open = False

    async def _run_inline(self, call: StepCall) -> StepResult:
        if self._batchable(call):
            computed = await self._batcher(call, short=True).compute(call)
        else:
            began = perf_counter()
            computed = TimedResult(call.compute(), 0, perf_counter() - began)
            self._metrics.observe_batch(len(call.x))
        return self._record(call, computed)

    async def _run_pooled(self, call: StepCall) -> StepResult:
        left = seconds_left.get()()
        estimate = self._estimates.setdefault(call.served.name, _ServiceTimeEstimate())
        needed = _cost(call) * estimate.lower_bound
        _require_time(needed, self._backlog_seconds / self._thread_count, left)
        self._backlog_seconds += needed
        try:
            if self._batchable(call):
                computed = await self._batcher(call, short=False).compute(call)
            else:
                computed = await self._run_in_thread(call, needed, left)
                self._metrics.observe_batch(len(call.x))
                estimate.observe(computed.seconds / _cost(call))
        finally:
            self._backlog_seconds -= needed
        return self._record(call, computed)

    def _batchable(self, call: StepCall) -> bool:
        return self._batch_rows > 1 and not isinstance(call, ForwardCall) and call.recording is None

    def _batcher(self, call: StepCall, *, short: bool) -> Batcher:
        """Returns the batcher of a model. Batches of short steps are limited, so that the event loop is not blocked for long."""
        key = call.served.name, short
        found = self._batchers.get(key)
        if found is None:
            rows = self._batch_rows
            if short:
                rows = min(rows, max(1, MAX_INLINE_BATCH_COST // call.served.model.work.cost(1, 1)))
            min_rows = _MIN_ROWS_FOR_SECOND_THREAD if call.served.model.numerics is Numerics.FAST else 1
            found = Batcher(
                rows,
                None if short else self._threads,
                self._thread_count,
                self._metrics.observe_batch,
                min_rows_for_second_thread=min_rows,
            )
            self._batchers[key] = found
        return found

    async def _run_in_thread(self, call: StepCall, needed: float, left: float | None) -> TimedResult:
        stopped = threading.Event()
        came = perf_counter()

        def pause() -> None:
            if stopped.is_set():
                raise DeadlineExceeded("", "the caller has gone")

        def compute() -> TimedResult:
            pause()
            began = perf_counter()
            if left is not None:
                _require_time(needed, 0, left - (began - came))
            return TimedResult(call.compute(pause), began - came, perf_counter() - began)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, compute)
        finally:  # the caller may have gone, or the deadline have passed: then the thread stops at its next pause
            stopped.set()

    def _record(self, call: StepCall, computed: TimedResult) -> StepResult:
        self._metrics.observe_phase("queue", computed.wait_seconds, ago=computed.seconds)
        self._metrics.observe_phase("compute", computed.seconds)
        self._metrics.count_computed(call.served.name, len(call.x), call.time)
        return computed.answer


class _ServiceTimeEstimate:
    """Estimates seconds per unit of cost: a lower bound, once there are enough samples.

    A cost is only an estimate, and a busy machine makes every call slow. Half of the fastest of several counts, so that no call
    is refused that could have been answered.
    """

    _MIN_SAMPLES = 8

    def __init__(self) -> None:
        self._fastest = math.inf
        self._seen = 0

    def observe(self, estimate: float) -> None:
        """Records a call."""
        self._fastest = min(self._fastest, estimate)
        self._seen += 1

    @property
    def lower_bound(self) -> float:
        """Lower bound of the seconds per unit of cost; 0 if unknown."""
        return self._fastest / 2 if self._seen >= self._MIN_SAMPLES else 0.0


def _require_time(needed: float, backlog: float, left: float | None) -> None:
    """Refuses a call that cannot be answered before its deadline."""
    if left is not None and left < needed + backlog:
        text = (
            f"got {max(left, 0):.3g} seconds until the deadline; this call needs at least {needed:.3g} seconds, after "
            f"{backlog:.3g} seconds of queued work. Set a longer deadline"
        )
        raise DeadlineExceeded("", text)


def _cost(call: StepCall) -> int:
    return call.served.model.work.cost(len(call.x), call.time)
