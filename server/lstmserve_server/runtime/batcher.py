"""Steps that arrive together are computed together.

A step of one row costs NumPy's calls far more than arithmetic, and so a step of many rows hardly more than one. In exact mode a
row's bytes do not depend on the rows beside it, so nobody can tell.

There is no timer: a step waits for what is on its way already, as long as the rounds of the event loop bring more, and where
hardly any came again and again it does not wait. Where a batch takes so long that a thread computes it, those that come
meanwhile are the next.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from lstmserve_server.core.errors import RequestError
from lstmserve_server.model.graph import concat_states, rows_of
from lstmserve_server.model.model import StepResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

    from lstmserve_server.runtime.calls import StepCall


_MAX_IDLE_ROUNDS: Final = 8
"""Rounds of the event loop that bring no other step until a batch is begun. gRPC hands over one call in a few rounds, each of some
microseconds: with fewer rounds, of 32 calls in flight hardly two met."""

_MIN_CALLS_WORTH_GATHERING: Final = 5
"""Calls: with 6 together 1.2 to 1.4 times as many were answered as with each by itself, with 3 together no more."""

_MAX_SMALL_BATCHES: Final = 4
"""After so many batches with fewer, each call is computed at once,"""

_RETRY_GATHERING_EVERY: Final = 32
"""but for two in so many, which wait to see whether there are others; the first may find itself in the midst of them."""


class TimedResult(NamedTuple):
    """What came of a call."""

    answer: StepResult
    waited: float
    """Seconds until it was begun."""
    took: float
    """Seconds, those of the whole batch."""


@dataclass(slots=True, eq=False)
class _QueuedCall:
    """A call whose turn has not come."""

    call: StepCall
    came: float
    done: asyncio.Future[TimedResult]


class Batcher:
    """The steps of one model that wait to be computed together."""

    def __init__(
        self,
        most_rows: int,
        executor: Executor | None,
        at_a_time: int,
        noted: Callable[[int], None],
        *,
        rows_beside: int = 1,
    ) -> None:
        """Makes a batcher in which nobody waits.

        Args:
            most_rows: of a batch, unless one call has more.
            executor: threads that compute; None to compute in the event loop.
            at_a_time: how many batches the threads compute.
            noted: is told how many rows were computed together.
            rows_beside: how many have to wait until a batch is begun beside another, where enough come to gather.
        """
        self._most_rows = most_rows
        self._executor = executor
        self._at_a_time = at_a_time
        self._rows_beside = rows_beside
        self._noted = noted
        self._waiting: deque[_QueuedCall] = deque()
        self._due = False
        self._seen = 0
        """How many waited in the round before."""
        self._quiet = 0
        """Rounds since one came."""
        self._small = 0
        """Batches that were not worth waiting for, since there was one that was."""
        self._computing: set[asyncio.Future[list[Any]]] = set()

    async def compute(self, call: StepCall) -> TimedResult:
        """Computes a call of one time-step that leaves no trace, with those that are there too.

        Raises:
            RequestError: its own answer is not finite.
        """
        if self._executor is None and not self._waiting and not self._patient():
            return self._at_once(call)
        loop = asyncio.get_running_loop()
        own = _QueuedCall(call, perf_counter(), loop.create_future())
        self._waiting.append(own)
        if self._executor is not None and not self._patient():
            self._begin()
        elif not self._due:
            self._due = True
            loop.call_soon(self._look)
        return await own.done

    def _patient(self) -> bool:
        """Returns whether it may be worth waiting for others."""
        if self._executor is not None and self._rows_beside == 1:
            return True  # nobody waits but for a thread
        return self._small < _MAX_SMALL_BATCHES or self._small % _RETRY_GATHERING_EVERY < 2  # noqa: PLR2004 - see there

    def _at_once(self, call: StepCall) -> TimedResult:
        self._small += 1
        self._noted(len(call.x))
        began = perf_counter()
        answer = call.served.model.step(call.x, call.state, call.seen)
        return TimedResult(answer, 0.0, perf_counter() - began)

    def _look(self) -> None:
        """Begins when no more come, or when there is a full batch; else looks again in the next round."""
        count = len(self._waiting)
        self._quiet = self._quiet + 1 if count == self._seen else 0
        self._seen = count
        if self._executor is None and count < self._most_rows and self._quiet < _MAX_IDLE_ROUNDS and self._patient():
            asyncio.get_running_loop().call_soon(self._look)
            return
        self._due, self._seen, self._quiet = False, 0, 0
        self._begin()

    def _begin(self) -> None:
        """Computes what waits, as far as there are threads for it."""
        while self._waiting and self._room():
            batch = self._take()
            if not batch:
                return
            self._noted(sum(len(one.call.x) for one in batch))
            self._small = 0 if len(batch) >= _MIN_CALLS_WORTH_GATHERING else self._small + 1
            if self._executor is None:
                _resolve(batch, compute_together([one.call for one in batch], batch[0].came))
                continue
            came = batch[0].came
            work = asyncio.get_running_loop().run_in_executor(
                self._executor, compute_together, [one.call for one in batch], came
            )
            self._computing.add(work)
            work.add_done_callback(functools.partial(self._end, batch))

    def _room(self) -> bool:
        """Returns whether a batch may be begun now."""
        if not self._computing:
            return True
        if not self._patient():
            return len(self._computing) <= self._at_a_time  # one more, so that no thread waits for the event loop
        enough = sum(len(one.call.x) for one in self._waiting) >= self._rows_beside
        return enough and len(self._computing) < self._at_a_time

    def _end(self, batch: list[_QueuedCall], work: asyncio.Future[list[Any]]) -> None:
        self._computing.discard(work)
        error = work.exception()
        _resolve(batch, [error] * len(batch) if error else work.result())
        self._begin()

    def _take(self) -> list[_QueuedCall]:
        """Takes a batch off the queue, without those for whom nobody waits any more; one call where it is not worth waiting."""
        batch: list[_QueuedCall] = []
        rows = 0
        while self._waiting:
            first = self._waiting[0]
            if not first.done.done():
                rows += len(first.call.x)
                if batch and (rows > self._most_rows or not self._patient()):
                    break
                batch.append(first)
            self._waiting.popleft()
        return batch


def _resolve(batch: Sequence[_QueuedCall], results: Sequence[Any]) -> None:
    for one, result in zip(batch, results, strict=True):
        if one.done.done():  # its caller has gone meanwhile
            continue
        if isinstance(result, TimedResult):
            one.done.set_result(result)
        else:
            one.done.set_exception(result)


def compute_together(calls: Sequence[StepCall], came: float) -> list[TimedResult | BaseException]:
    """Returns, for calls of one time-step of the same model, what came of each: a `Computed`, or the error that is its own.

    Args:
        calls: that are computed.
        came: when the first of them came, by `perf_counter`.
    """
    began = perf_counter()
    try:
        answers = _step_together(calls)
    except RequestError as error:
        if len(calls) == 1:
            return [error]
        return [result for call in calls for result in compute_together([call], came)]  # nobody pays for another's
    except Exception as error:  # noqa: BLE001 - whatever it is, those who wait have to be told
        return [error] * len(calls)
    took = perf_counter() - began
    return [TimedResult(answer, began - came, took) for answer in answers]


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
