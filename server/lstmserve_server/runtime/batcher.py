"""Batches steps that arrive together.

A step of one row costs far more in NumPy's calls than in arithmetic, so a step of many rows costs hardly more than one. In exact
mode a row's bytes do not depend on the other rows, so no caller can tell.

There is no timer. A step waits as long as rounds of the event loop bring other steps. If hardly any arrive, again and again, it
does not wait. If a thread computes the batch, the steps that arrive meanwhile are the next batch.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np

from lstmserve_server.core.errors import RequestError
from lstmserve_server.model.graph import concat_states, rows_of
from lstmserve_server.model.model import StepResult
from lstmserve_server.runtime.calls import StepCall

_MAX_IDLE_ROUNDS: Final = 8
"""Rounds of the event loop that bring no other step until a batch is begun. gRPC hands over one call in a few rounds, each of some
microseconds: with fewer rounds, of 32 calls in flight hardly two met."""

_MIN_CALLS_WORTH_GATHERING: Final = 5
"""Calls: with 6 together 1.2 to 1.4 times as many were answered as with each by itself, with 3 together no more."""

_MAX_SMALL_BATCHES: Final = 4
"""Stop gathering after this many consecutive small batches."""

_RETRY_GATHERING_EVERY: Final = 32
"""Once stopped, gather again for two of this many calls: the first of them may arrive in the middle of a burst."""


class TimedResult(NamedTuple):
    """Result of a call, with its waiting and computing time."""

    answer: StepResult
    wait_seconds: float
    """Seconds until it was begun."""
    seconds: float
    """Seconds, those of the whole batch."""


@dataclass(slots=True, eq=False)
class _QueuedCall:
    """A call in the queue."""

    call: StepCall
    arrival_time: float
    done: asyncio.Future[TimedResult]


class Batcher:
    """Queue of a model's steps that are computed in batches."""

    def __init__(
        self,
        max_rows: int,
        executor: Executor | None,
        max_concurrent_batches: int,
        on_batch: Callable[[int], None],
        *,
        min_rows_for_second_thread: int = 1,
    ) -> None:
        """Creates an empty batcher.

        Args:
            max_rows: maximum rows of a batch, unless a single call has more.
            executor: threads that compute; None to compute in the event loop.
            max_concurrent_batches: maximum number of batches in the threads.
            on_batch: called with the number of rows of each batch.
            min_rows_for_second_thread: minimum rows for a second batch to start while one is running.
        """
        self._max_rows = max_rows
        self._executor = executor
        self._max_concurrent_batches = max_concurrent_batches
        self._min_rows_for_second_thread = min_rows_for_second_thread
        self._on_batch = on_batch
        self._queue: deque[_QueuedCall] = deque()
        self._is_polling = False
        self._previous_count = 0
        """How many waited in the round before."""
        self._idle_rounds = 0
        """Rounds since one came."""
        self._small_batches = 0
        """Batches that were not worth waiting for, since there was one that was."""
        self._computing: set[asyncio.Future[list[Any]]] = set()

    async def compute(self, call: StepCall) -> TimedResult:
        """Computes a call of one time step without a recording, in a batch with others that wait.

        Raises:
            RequestError: its own answer is not finite.
        """
        if self._executor is None and not self._queue and not self._should_gather():
            return self._run_alone(call)
        loop = asyncio.get_running_loop()
        own = _QueuedCall(call, perf_counter(), loop.create_future())
        self._queue.append(own)
        if self._executor is not None and not self._should_gather():
            self._dispatch()
        elif not self._is_polling:
            self._is_polling = True
            loop.call_soon(self._poll)
        return await own.done

    def _should_gather(self) -> bool:
        """Returns whether waiting for further steps is likely to pay off."""
        if self._executor is not None and self._min_rows_for_second_thread == 1:
            return True  # no one waits except for a thread
        return self._small_batches < _MAX_SMALL_BATCHES or self._small_batches % _RETRY_GATHERING_EVERY < 2  # noqa: PLR2004 - see there

    def _run_alone(self, call: StepCall) -> TimedResult:
        self._small_batches += 1
        self._on_batch(len(call.x))
        began = perf_counter()
        answer = call.compute()
        return TimedResult(answer, 0.0, perf_counter() - began)

    def _poll(self) -> None:
        """Dispatches if no more steps arrive or a batch is full; otherwise looks again in the next round of the event loop."""
        count = len(self._queue)
        self._idle_rounds = self._idle_rounds + 1 if count == self._previous_count else 0
        self._previous_count = count
        if (
            self._executor is None
            and count < self._max_rows
            and self._idle_rounds < _MAX_IDLE_ROUNDS
            and self._should_gather()
        ):
            asyncio.get_running_loop().call_soon(self._poll)
            return
        self._is_polling, self._previous_count, self._idle_rounds = False, 0, 0
        self._dispatch()

    def _dispatch(self) -> None:
        """Starts batches of the waiting calls, as far as threads are free."""
        while self._queue and self._can_start():
            batch = self._next_batch()
            if not batch:
                return
            self._on_batch(sum(len(one.call.x) for one in batch))
            self._small_batches = 0 if len(batch) >= _MIN_CALLS_WORTH_GATHERING else self._small_batches + 1
            if self._executor is None:
                _resolve(batch, compute_together([one.call for one in batch], batch[0].arrival_time))
                continue
            arrival_time = batch[0].arrival_time
            work = asyncio.get_running_loop().run_in_executor(
                self._executor, compute_together, [one.call for one in batch], arrival_time
            )
            self._computing.add(work)
            work.add_done_callback(functools.partial(self._end, batch))

    def _can_start(self) -> bool:
        """Returns whether a batch may start now."""
        if not self._computing:
            return True
        if not self._should_gather():
            return (
                len(self._computing) <= self._max_concurrent_batches
            )  # one more, so that no thread waits for the event loop
        enough = sum(len(one.call.x) for one in self._queue) >= self._min_rows_for_second_thread
        return enough and len(self._computing) < self._max_concurrent_batches

    def _end(self, batch: list[_QueuedCall], work: asyncio.Future[list[Any]]) -> None:
        self._computing.discard(work)
        error = work.exception()
        _resolve(batch, [error] * len(batch) if error else work.result())
        self._dispatch()

    def _next_batch(self) -> list[_QueuedCall]:
        """Takes the next batch off the queue, without abandoned calls; one call if gathering is not worth it."""
        batch: list[_QueuedCall] = []
        rows = 0
        while self._queue:
            first = self._queue[0]
            if not first.done.done():
                rows += len(first.call.x)
                if batch and (rows > self._max_rows or not self._should_gather()):
                    break
                batch.append(first)
            self._queue.popleft()
        return batch


def _resolve(batch: Sequence[_QueuedCall], results: Sequence[Any]) -> None:
    for one, result in zip(batch, results, strict=True):
        if one.done.done():  # its caller has gone meanwhile
            continue
        if isinstance(result, TimedResult):
            one.done.set_result(result)
        else:
            one.done.set_exception(result)


def compute_together(calls: Sequence[StepCall], arrival_time: float) -> list[TimedResult | BaseException]:
    """Computes calls of one time step of the same model together. Returns a `TimedResult`, or its own error, for each.

    Args:
        calls: calls of one model.
        arrival_time: arrival of the first of them, by `perf_counter`.
    """
    began = perf_counter()
    try:
        answers = _step_together(calls)
    except RequestError as error:
        if len(calls) == 1:
            return [error]
        return [
            result for call in calls for result in compute_together([call], arrival_time)
        ]  # no one pays for another's
    except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to be told
        return [error] * len(calls)
    seconds = perf_counter() - began
    return [TimedResult(answer, began - arrival_time, seconds) for answer in answers]


def _step_together(calls: Sequence[StepCall]) -> list[StepResult]:
    model = calls[0].served.model
    if len(calls) == 1:
        (call,) = calls
        return [model.step(call.x, call.state, call.seen)]
    x = np.concatenate([call.x for call in calls])
    state = concat_states([call.state for call in calls])
    seen = np.concatenate([np.zeros(len(call.x), bool) if call.seen is None else call.seen for call in calls])
    whole = model.step(x, state, seen)
    ends = np.cumsum([0, *(len(call.x) for call in calls)]).tolist()
    return [_rows_of_result(whole, slice(start, end)) for start, end in pairwise(ends)]


def _rows_of_result(answer: StepResult, rows: slice) -> StepResult:
    return StepResult(
        tuple(output[rows] for output in answer.outputs),
        rows_of(answer.state, rows),
        answer.steps[rows],
    )
