"""The thread that compares captured calls, one at a time, from a bounded queue, and keeps the reference process running."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple, Protocol

import structlog

from lstmserve.v1 import shadow_pb2
from lstmserve_server.core.backoff import RestartBackoff
from lstmserve_server.shadow.captured_call import CapturedCall
from lstmserve_server.shadow.reference_process import CaseFailed, ReferenceInfo, ReferenceLost, ReferenceProcess, Reply

_log = structlog.get_logger(__name__)

_BACKOFF_INITIAL_SECONDS: Final = 0.5
_BACKOFF_MAX_SECONDS: Final = 60.0


class ComparisonJob(NamedTuple):
    """A call that waits to be compared."""

    model: str
    bytes: int
    """About how much memory it holds."""

    make: Callable[[], CapturedCall]
    """Makes the case; not before it is its turn, and in the thread."""

    since: float
    """When it was offered, by the monotonic clock."""

    tell: Callable[[shadow_pb2.Comparison], None] | None
    """Takes what was found, in the thread, where the caller waits for it."""


class Lag(NamedTuple):
    """Calls in the queue, and the age of the oldest in seconds."""

    calls: int
    """How many wait."""

    seconds: float
    """How long the oldest of them has waited."""


class ComparisonListener(Protocol):
    """Callbacks of the worker, in its thread."""

    def reference_up(self, versions: Mapping[str, str], info: Mapping[str, ReferenceInfo]) -> None:
        """The reference is ready."""
        ...

    def reference_down(self, reason: str) -> None:
        """The reference is gone, or could not start."""
        ...

    def reference_starts_anew(self) -> None:
        """The reference is started again."""
        ...

    def wants_details(self, reply: Reply) -> bool:
        """Returns whether a reply needs all arrays of the reference."""
        ...

    def compared(self, work: ComparisonJob, captured: CapturedCall, reply: Reply) -> None:
        """A call was compared."""
        ...

    def dropped(self, work: ComparisonJob, reason: str) -> None:
        """A sampled call was dropped."""
        ...

    def failed(self, work: ComparisonJob, reason: str, text: str) -> None:
        """A comparison failed."""
        ...


class ComparisonWorker:
    """Compares queued calls until it is stopped."""

    def __init__(
        self, start: Callable[[], ReferenceProcess], events: ComparisonListener, *, max_jobs: int, max_bytes: int
    ) -> None:
        self._start = start
        self._events = events
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._waiting: deque[ComparisonJob] = deque()
        self._bytes = 0
        self._up = False
        self._ever_up = False
        self._stopping = False
        self._reference: ReferenceProcess | None = None
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, work: ComparisonJob) -> str:
        """Queues a call; returns "", or the reason why it cannot. Never waits."""
        with self._changed:
            if self._stopping:
                return "stopping"
            if not self._up:
                return "reference_down" if self._ever_up else "starting"
            if len(self._waiting) >= self._max_jobs or self._bytes + work.bytes > self._max_bytes:
                return "queue_full"
            self._waiting.append(work)
            self._bytes += work.bytes
            self._changed.notify()
            return ""

    @property
    def lag(self) -> Lag:
        """Current lag of the comparisons."""
        with self._changed:
            oldest = self._waiting[0].since if self._waiting else monotonic()
            return Lag(len(self._waiting), monotonic() - oldest)

    def stop(self) -> None:
        """Stops the thread and the reference at once."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
            reference = self._reference
        if reference is not None:
            reference.kill()
        self._thread.join(timeout=1)  # it may be starting a process; as a daemon it holds no one up

    def _run(self) -> None:
        backoff = RestartBackoff(_BACKOFF_INITIAL_SECONDS, _BACKOFF_MAX_SECONDS)
        while not self._is_stopping():
            backoff.started()
            try:
                with self._start() as reference:
                    self._adopt(reference)
                    reference.wait_until_ready()
                    self._serve(reference)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if self._is_stopping():
                    break
                pause = backoff.pause()
                self._events.reference_down(str(error))
                _log.warning("reference_down", reason=str(error), again_in_seconds=pause)
            else:
                break
            self._drop_all("stopping" if self._is_stopping() else "reference_down")
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, pause)
            if not self._is_stopping():
                self._events.reference_starts_anew()
        self._drop_all("stopping")

    def _adopt(self, reference: ReferenceProcess) -> None:
        """Registers a started reference, so that `stop` can end it; ends it if `stop` was called before."""
        with self._changed:
            self._reference = reference
            if self._stopping:
                reference.kill()

    def _is_stopping(self) -> bool:
        return self._stopping

    def _serve(self, reference: ReferenceProcess) -> None:
        """Compares queued calls until the worker is stopped.

        Raises:
            ReferenceLost: the reference is gone.
        """
        with self._changed:
            self._up = self._ever_up = True
        try:
            self._events.reference_up(reference.versions, reference.models)
            _log.info("reference_up", process=reference.pid, versions=reference.versions, confined_by=reference.held)
            while (work := self._next()) is not None:
                self._compare(reference, work)
        finally:
            with self._changed:
                self._up = False

    def _next(self) -> ComparisonJob | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            if self._stopping:
                return None
            work = self._waiting.popleft()
            self._bytes -= work.bytes
            return work

    def _compare(self, reference: ReferenceProcess, work: ComparisonJob) -> None:
        lost = None
        try:
            captured = work.make()
            data = captured.to_bytes()
            reply = reference.ask(data)
            if self._events.wants_details(reply):
                reply, lost = _with_details(reference, data, reply)
            self._events.compared(work, captured, reply)
        except ReferenceLost as error:
            if error.reason == "garbage":
                self._events.failed(work, error.reason, str(error))
            else:
                self._events.dropped(work, error.reason)
            raise
        except CaseFailed as error:
            self._events.failed(work, "reference_error", str(error))
        except Exception as error:  # noqa: BLE001 - a shadow never ends for one case
            _log.exception("shadow_error", model=work.model)
            self._events.failed(work, "own_error", str(error))
        if lost is not None:  # but what had been found before is kept
            raise lost

    def _drop_all(self, reason: str) -> None:
        with self._changed:
            dropped = list(self._waiting)
            self._waiting.clear()
            self._bytes = 0
        for work in dropped:
            self._events.dropped(work, reason)


def _with_details(reference: ReferenceProcess, data: bytes, reply: Reply) -> tuple[Reply, ReferenceLost | None]:
    """Compares a call again with details, if the reference still answers; returns that reply, or the error."""
    try:
        return reply._replace(arrays={**reply.arrays, **reference.ask(data, detailed=True, again=True).arrays}), None
    except CaseFailed:
        return reply, None
    except ReferenceLost as error:
        return reply, error
