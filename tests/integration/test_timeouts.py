"""Clocks: how long a stream is looked for, may be idle or old, and how often a caller may call; by clocks of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest

from lstmserve import errors, resumable_stream, tensors
from lstmserve.v1 import lstm_pb2
from lstmserve_server.core.errors import DeadlineExceeded, NotServing
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.rpc.auth import callers
from lstmserve_server.rpc.auth.authenticators import Admission, Token
from lstmserve_server.rpc.codec.requests import Codec, RequestLimits
from lstmserve_server.rpc.streams.codec import StreamCodec
from lstmserve_server.rpc.streams.server import StreamServer
from lstmserve_server.runtime.admission import FairLimiter
from lstmserve_server.runtime.scheduler import Scheduler
from lstmserve_server.shadow.base import NoShadow
from tests.support.builders import registry, served

PATIENCE = 30


class Clock:
    """A clock that goes when the test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        """Returns the time."""
        return self.now


UNAVAILABLE = errors.Unavailable(grpc.StatusCode.UNAVAILABLE, "gone")


@pytest.fixture
def clock(monkeypatch):
    """Returns the clock of the client's streams."""
    made = Clock()
    monkeypatch.setattr(resumable_stream.time, "monotonic", made)
    return made


def test_patience_begins_anew_with_every_answer(clock):
    """Failures are forgotten when something comes: the pauses start again, and so does the time."""
    attempts = resumable_stream.ReconnectPolicy(reconnect_timeout=10)
    attempts.wait()
    pauses = [attempts.failed(UNAVAILABLE) for _ in range(6)]
    clock.now += 9
    attempts.progressed()
    again = [attempts.failed(UNAVAILABLE) for _ in range(6)]
    clock.now += 9
    attempts.failed(UNAVAILABLE)
    clock.now += 2
    with pytest.raises(errors.Unavailable):
        attempts.failed(UNAVAILABLE)

    assert pauses[0] == again[0] == 0
    assert 0.01 <= again[1] <= 0.04  # not that of a seventh failure
    assert attempts.reconnects == 13


def test_a_caller_may_be_silent_for_as_long_as_he_likes(clock):
    """Time counts from when something is waited for; from the first failure on it continues."""
    attempts = resumable_stream.ReconnectPolicy(reconnect_timeout=10)
    clock.now += 1000
    attempts.wait()
    attempts.failed(UNAVAILABLE)
    clock.now += 8
    attempts.wait()
    clock.now += 3
    with pytest.raises(errors.Unavailable):
        attempts.failed(UNAVAILABLE)


@pytest.mark.parametrize(
    ("code", "retried"),
    [
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.CANCELLED, True),
        (grpc.StatusCode.INTERNAL, True),
        (grpc.StatusCode.INVALID_ARGUMENT, False),
        (grpc.StatusCode.UNAUTHENTICATED, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
    ],
)
def test_what_is_tried_again(clock, code, retried):
    """What another server, or the same one later, may answer; and whatever says when to come again."""
    attempts = resumable_stream.ReconnectPolicy(reconnect_timeout=10)
    attempts.wait()
    with contextlib.nullcontext() if retried else pytest.raises(errors.LstmServeError):
        attempts.failed(errors.from_status(code, "no"))
    attempts.failed(errors.from_status(code, "later", (("grpc-retry-pushback-ms", "100"),)))


# Streams of the server: idle, old, busy


class Talk:
    """The other end of a stream, whose messages the test gives."""

    def __init__(self):
        self.admission = Admission(Token(callers.ANONYMOUS))
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.answers: asyncio.Queue[Any] = asyncio.Queue()

    async def read(self):
        """Returns the next message."""
        return await self.incoming.get()

    async def write(self, response):
        """Takes an answer."""
        self.answers.put_nowait(response)


SERVED = served("small")
X = tensors.encode(np.ones((1, 3), np.float32))
OPEN = lstm_pb2.StreamStepsRequest(open=lstm_pb2.StreamOpen(row_count=1))


def step(number):
    """Returns a message of one step."""
    return lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=number, x=X))


@contextlib.asynccontextmanager
async def serving(*, idle=0.0, age=0.0):
    """Serves one stream; yields its other end, the task, and the streams."""
    metrics = CallMetrics()
    scheduler = Scheduler(FairLimiter(4, "calls", "--max"), 1, metrics, batch_rows=1)
    codec = StreamCodec(Codec(registry(SERVED), RequestLimits(8, 10, 1 << 20, 1 << 20)))
    places = FairLimiter(4, "streams", "--max")
    made = StreamServer(codec, scheduler, NoShadow(), metrics, places, idle_seconds=idle, age_seconds=age)
    talk = Talk()
    task = asyncio.create_task(made.serve(talk))
    try:
        async with asyncio.timeout(PATIENCE):
            yield SimpleNamespace(talk=talk, task=task, places=places, scheduler=scheduler)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_stream_ends_at_its_age_though_it_is_busy():
    """With the state after the last answer, so that its caller continues with a new one."""
    async with serving(age=0.2) as one:
        one.talk.incoming.put_nowait(OPEN)
        assert (await one.talk.answers.get()).WhichOneof("message") == "opened"
        answers = []
        while not one.task.done():
            one.talk.incoming.put_nowait(step(len(answers) + 1))
            answers.append(await one.talk.answers.get())
            await asyncio.sleep(0)
        answers += [one.talk.answers.get_nowait() for _ in range(one.talk.answers.qsize())]
        with pytest.raises(NotServing, match="seconds old"):
            await one.task

    assert [answer.WhichOneof("message") for answer in answers[-2:]] == ["output", "going_away"]
    assert answers[-1].going_away.number == answers[-2].output.number > 1
    assert one.places.in_use == 0


async def test_a_stream_that_is_idle_ends_and_one_that_computes_does_not(monkeypatch):
    """Idle is who sends nothing; a message that takes long is not silence."""
    computing, let_go = asyncio.Event(), asyncio.Event()

    async def advance(self, call):
        """A step that takes until it is let go."""
        computing.set()
        await let_go.wait()
        return call.served.model.step(call.x, call.state, call.seen)

    monkeypatch.setattr(Scheduler, "run_admitted", advance)
    async with serving(idle=0.1) as one:
        one.talk.incoming.put_nowait(OPEN)
        await one.talk.answers.get()
        one.talk.incoming.put_nowait(step(1))
        await computing.wait()
        await asyncio.wait({one.task}, timeout=0.5)  # five times as long as it may be idle
        assert not one.task.done()
        let_go.set()
        assert (await one.talk.answers.get()).output.number == 1
        assert (await one.talk.answers.get()).going_away.number == 1
        with pytest.raises(DeadlineExceeded, match=r"no message for 0.1 seconds"):
            await one.task


async def test_a_stream_may_be_idle_and_old_where_nothing_bounds_it():
    """0 is for ever."""
    async with serving() as one:
        one.talk.incoming.put_nowait(OPEN)
        await one.talk.answers.get()
        await asyncio.wait({one.task}, timeout=0.3)
        assert not one.task.done()
        one.talk.incoming.put_nowait(None)
        assert (await one.talk.answers.get()).WhichOneof("message") == "checkpoint"
        await one.task


async def test_the_reading_of_a_stream_ends_with_it():
    """Nothing continues that no one waits for, except for a read, which gRPC ends with the call."""
    async with serving() as one:
        one.talk.incoming.put_nowait(OPEN)
        await one.talk.answers.get()
        one.task.cancel()
        await asyncio.wait({one.task})
        left = [task for task in asyncio.all_tasks() if "_converse" in repr(task)]
        for task in left:
            assert task.get_coro().cr_frame.f_locals["hand"].leaving
    assert one.places.in_use == 0


# Rates


async def test_messages_of_a_stream_use_up_the_rate():
    """Each waits for its turn, and a call between them is told when to come again."""
    caller = callers.Caller("reader", callers.CallerPolicy(calls_per_second=2))
    for _ in range(2):
        await caller.wait_for_rate()
    with pytest.raises(callers.Overloaded) as busy:
        await caller.check_rate()
    waiting = asyncio.ensure_future(caller.wait_for_rate())
    await asyncio.wait({waiting}, timeout=0.05)

    assert busy.value.retry_after == 0.5
    assert not waiting.done()
    await waiting


async def test_a_caller_without_a_rate_never_waits():
    """Nor is it refused."""
    caller = callers.Caller("reader", callers.CallerPolicy())
    for _ in range(1000):
        await caller.wait_for_rate()
        await caller.check_rate()


@pytest.mark.parametrize(("most", "taken", "refused"), [(2, 1, False), (2, 2, True), (1, 1, True), (None, 50, False)])
async def test_as_many_calls_as_there_may_be(most, taken, refused):
    """Exactly as many are let in; when one ends another may come."""
    caller = callers.Caller("reader", callers.CallerPolicy(concurrent_calls=most))
    with contextlib.ExitStack() as open_calls:
        for _ in range(taken):
            open_calls.enter_context(caller.call())
        with pytest.raises(callers.Overloaded) if refused else contextlib.nullcontext():
            caller.call()
    with caller.call():
        pass


def test_rules_that_are_tightened_hold_from_then_on():
    """For the next call of a caller whose object stays the same."""
    caller = callers.Caller("reader", callers.CallerPolicy(rows=8, calls_per_second=5))
    limiter = caller._rate
    caller.update_policy(callers.CallerPolicy(rows=2, calls_per_second=5))
    caller.require_rows("x", 2)
    with pytest.raises(callers.LimitExceeded):
        caller.require_rows("x", 3)
    assert caller._rate is limiter  # what was used up stays used up
    caller.update_policy(callers.CallerPolicy(calls_per_second=7))
    assert caller._rate is not limiter
