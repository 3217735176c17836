"""When and where a call is computed: admission, in place or in a thread, and giving up when nobody waits any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from lstmserve_server.codec import ForwardCall
from lstmserve_server.errors import Busy, NotServing, TooLate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lstmserve_server.codec import StepCall
    from lstmserve_server.model import Answer

IN_PLACE_COST: Final = 1_000_000
"""Up to this cost (`RecurrentModel.cost`) a call is computed in the event loop: some hundred microseconds, no more than
the way to a thread and back."""


class Runner:
    """Computes calls, at most so many at a time, until it is closed."""

    def __init__(self, max_concurrent_calls: int, threads: int) -> None:
        self._max_concurrent_calls = max_concurrent_calls
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="compute")
        self._open = True
        self._running = 0

    async def run(self, call: StepCall) -> Answer:
        """Computes a call of one time-step, or a `ForwardCall`, if there is room for it.

        Raises:
            RequestError: the call cannot be taken, or its answer is not finite.
        """
        with self._admitted():
            return await self.advance(call)

    async def advance(self, call: StepCall) -> Answer:
        """Computes a call that has its place already, as the next of a stream.

        Raises:
            RequestError: its answer is not finite.
        """
        small = call.served.model.cost(len(call.x), call.time) <= IN_PLACE_COST
        if isinstance(call, ForwardCall):
            return _forward(call) if small else await self._forward_in_thread(call)
        if small:
            return _step(call)
        return await asyncio.get_running_loop().run_in_executor(self._threads, _step, call)

    def close(self) -> None:
        """Takes no more calls; those that run go on."""
        self._open = False

    async def _forward_in_thread(self, call: ForwardCall) -> Answer:
        stopped = threading.Event()

        def pause() -> None:
            if stopped.is_set():
                raise TooLate("", "nobody waits for the answer any more")

        def compute() -> Answer:
            pause()
            return _forward(call, pause)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, compute)
        finally:  # the caller may have gone, or the deadline have passed: then the thread stops at its next pause
            stopped.set()

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if not self._open:
            raise NotServing("", "the server is draining; ask another one")
        if self._running >= self._max_concurrent_calls:
            raise Busy("", f"{self._running} calls are running; expected fewer (--max-concurrent-calls)")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


def _step(call: StepCall) -> Answer:
    return call.served.model.step(call.x, call.state, call.seen, call.trace)


def _forward(call: ForwardCall, pause: Callable[[], None] = lambda: None) -> Answer:
    return call.served.model.forward(
        call.inputs,
        call.state,
        call.lengths,
        all_outputs=call.all_outputs,
        seen=call.seen,
        pause=pause,
        trace=call.trace,
    )
