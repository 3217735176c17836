"""Everything that a call takes is given back, however it ends: answered, refused, cancelled, expired, lost or drained."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import numpy as np
import pytest

from lstmserve import tensors
from lstmserve.v1 import lstm_pb2, lstm_pb2_grpc
from lstmserve_server.model import model as models
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.runtime.admission import FairLimiter
from lstmserve_server.runtime.batcher import Batcher
from lstmserve_server.runtime.scheduler import MAX_INLINE_COST, _ServiceTimeEstimate
from tests.integration.test_tokens import File
from tests.support import books, builders
from tests.support.books import LONG, SMALL
from tests.unit.runtime.test_batcher import call

X = tensors.encode(builders.numbers(1, 3))
SEQUENCE = tensors.encode(builders.numbers(60, 300, 3))
BAD = tensors.encode(builders.numbers(1, 2))


def step(model="small", x=X):
    """Returns a request of one step."""
    return lstm_pb2.StepRequest(model=model, x=x)


def forward(x=SEQUENCE):
    """Returns a request that is computed in a thread."""
    return lstm_pb2.ForwardRequest(model="long", x=x)


@pytest.fixture
async def kept():
    """Returns a server whose books can be read."""
    async with books.server() as made:
        made.stub = lstm_pb2_grpc.LstmServiceStub(made.channel)
        await made.stub.Step(step())  # connections and the like are not of any call
        yield made


async def fails(awaitable):
    """Returns the code with which a call fails."""
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)) as caught:
        await awaitable
    return caught.value.code() if isinstance(caught.value, grpc.aio.AioRpcError) else grpc.StatusCode.CANCELLED


@pytest.fixture
def held(monkeypatch):
    """Holds what is computed in threads until it is let go; returns (begun, let_go), two events."""
    begun, let_go = threading.Event(), threading.Event()
    own = models.RecurrentModel._run

    def run(self, *arguments, **named):
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert let_go.wait(books.PATIENCE)
        return own(self, *arguments, **named)

    monkeypatch.setattr(RecurrentModel, "_run", run)
    yield begun, let_go
    let_go.set()


async def test_calls_that_are_answered_keep_nothing(kept):
    """Short ones, long ones, and descriptions."""
    async with kept.nothing_kept():
        await asyncio.gather(
            *(kept.stub.Step(step()) for _ in range(20)), *(kept.stub.Forward(forward()) for _ in range(3))
        )
        await kept.stub.ListModels(lstm_pb2.ListModelsRequest())


async def test_calls_that_are_refused_keep_nothing(kept):
    """By their message, their model, their shape, and where it is full."""
    async with kept.nothing_kept():
        codes = {
            await fails(kept.stub.Step(step("none"))),
            await fails(kept.stub.Step(step(x=BAD))),
            await fails(kept.channel.unary_unary("/lstmserve.v1.LstmService/Step")(b"\xff")),
            await fails(kept.stub.Step(step(), timeout=-1)),
        }
    assert codes >= {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_a_call_that_is_cancelled_while_it_computes_keeps_nothing(kept, held):
    """Its place is free when the thread has come to its next pause, and the thread does not continue."""
    begun, let_go = held
    async with kept.nothing_kept():
        calls = [kept.stub.Forward(forward()) for _ in range(6)]  # more than there are threads: some wait
        await asyncio.to_thread(begun.wait, books.PATIENCE)
        assert kept.books()["places"][0] >= 1
        for one in calls:
            one.cancel()
        let_go.set()
        assert {await fails(one) for one in calls} == {grpc.StatusCode.CANCELLED}


async def test_a_call_whose_deadline_passes_keeps_nothing(kept, held):
    """Likewise."""
    begun, let_go = held
    async with kept.nothing_kept():
        one = kept.stub.Forward(forward(), timeout=0.3)
        await asyncio.to_thread(begun.wait, books.PATIENCE)
        assert await fails(one) is grpc.StatusCode.DEADLINE_EXCEEDED
        let_go.set()


async def test_a_large_body_is_read_only_where_there_is_a_place(held):
    """Where all places are taken it is refused by its size alone; a short one is read all the same."""
    begun, let_go = held
    async with books.server(max_concurrent_calls=1) as kept:
        raw = kept.channel.unary_unary("/lstmserve.v1.LstmService/Step")
        computing = lstm_pb2_grpc.LstmServiceStub(kept.channel).Forward(forward())
        await asyncio.to_thread(begun.wait, books.PATIENCE)
        assert await fails(raw(b"\xff" * (17 << 10))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await fails(raw(b"\xff" * 100)) is grpc.StatusCode.INVALID_ARGUMENT
        let_go.set()
        await computing
        assert await fails(raw(b"\xff" * (17 << 10))) is grpc.StatusCode.INVALID_ARGUMENT


async def test_work_that_nobody_waits_for_stops_at_its_next_pause(kept, monkeypatch):
    """A sequence is computed in rectangles; after the one that runs none is begun."""
    begun, let_go, rectangles = threading.Event(), threading.Event(), []
    own = RecurrentModel._run

    def run(self, *arguments, **named):
        """Counts the pieces, and holds the first until it is let go."""
        rectangles.append(1)
        begun.set()
        assert let_go.wait(books.PATIENCE)
        return own(self, *arguments, **named)

    monkeypatch.setattr(RecurrentModel, "_run", run)
    monkeypatch.setattr(RecurrentModel, "_rectangles", lambda self, lengths: [(np.arange(len(lengths)), 0, 100)] * 50)
    async with kept.nothing_kept():
        one = kept.stub.Forward(forward())
        await asyncio.to_thread(begun.wait, books.PATIENCE)
        one.cancel()
        assert await fails(one) is grpc.StatusCode.CANCELLED
        await books.until(lambda: not kept.books()["calls under way"])
        let_go.set()
    assert len(rectangles) <= 2


async def test_a_stream_that_ends_keeps_nothing(kept):
    """By its caller, by a message that breaks the protocol, by being cancelled, and by being opened wrongly."""
    opening = lstm_pb2.StreamStepsRequest(open=lstm_pb2.StreamOpen(model="small", row_count=1))
    steps = lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=1, x=X))
    wrong = lstm_pb2.StreamStepsRequest(open=lstm_pb2.StreamOpen(model="none", row_count=1))
    async with kept.nothing_kept():
        done = kept.stub.StreamSteps()
        await done.write(opening)
        await done.read()
        await done.write(steps)
        await done.read()
        await done.done_writing()
        while await done.read() is not grpc.aio.EOF:
            pass
        again = kept.stub.StreamSteps()
        await again.write(opening)
        await again.read()
        assert kept.books()["streams open"] == 1
        await again.write(opening)
        assert await fails(again.read()) is grpc.StatusCode.INVALID_ARGUMENT
        cancelled = kept.stub.StreamSteps()
        await cancelled.write(opening)
        await cancelled.read()
        cancelled.cancel()
        refused = kept.stub.StreamSteps()
        await refused.write(wrong)
        assert await fails(refused.read()) is grpc.StatusCode.NOT_FOUND


async def test_a_connection_that_is_lost_keeps_nothing(kept, held):
    """With calls and streams under way."""
    begun, let_go = held
    async with kept.nothing_kept():
        async with grpc.aio.insecure_channel(kept.address, [("grpc.use_local_subchannel_pool", 1)]) as other:
            stub = lstm_pb2_grpc.LstmServiceStub(other)
            under_way = stub.Forward(forward())
            stream = stub.StreamSteps()
            await stream.write(lstm_pb2.StreamStepsRequest(open=lstm_pb2.StreamOpen(model="small", row_count=1)))
            await stream.read()
            await asyncio.to_thread(begun.wait, books.PATIENCE)
        let_go.set()
        await fails(under_way)


async def test_a_drain_takes_no_more_and_lets_the_rest_end(kept, held):
    """A call that runs is answered; one that comes later, on the same connection, is told to ask another server."""
    begun, let_go = held
    running = kept.stub.Forward(forward())
    await asyncio.to_thread(begun.wait, books.PATIENCE)
    draining = asyncio.create_task(kept.server.drain(asyncio.Event()))
    await books.until(lambda: not kept.server._scheduler._open)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await kept.stub.Step(step())
    let_go.set()
    answer = await running
    await draining

    assert late.value.code() is grpc.StatusCode.UNAVAILABLE
    assert tensors.decode(answer.output).shape == (60, 64)


async def test_long_calls_one_after_the_other_are_all_in_time(kept):
    """What was foreseen for a call is taken back when it ends: many in sequence, each with a deadline, are all answered."""
    kept.server._scheduler._estimates["long"] = estimate = _ServiceTimeEstimate()
    for _ in range(12):
        estimate.observe(1e-9)
    async with kept.nothing_kept():
        for _ in range(30):
            await kept.stub.Forward(forward(), timeout=books.PATIENCE)
    assert kept.server._scheduler._backlog_seconds == 0


async def test_a_caller_who_goes_while_its_batch_computes_leaves_the_others_their_answers():
    """In a thread: the one is passed over, and no one hangs."""
    begun, let_go = threading.Event(), threading.Event()

    class Slow:
        """A model that is held."""

        def __init__(self, served):
            self._served = served

        def __getattr__(self, name):
            return getattr(self._served.model, name)

        def step(self, *arguments):
            """Computes when it may."""
            begun.set()
            assert let_go.wait(books.PATIENCE)
            return self._served.model.step(*arguments)

    served = replace(SMALL, model=Slow(SMALL))
    with ThreadPoolExecutor(1) as threads:
        batcher = Batcher(256, threads, 1, lambda rows: None)
        waiting = [asyncio.ensure_future(batcher.compute(replace(call(1, seed), served=served))) for seed in range(4)]
        await asyncio.to_thread(begun.wait, books.PATIENCE)
        waiting[1].cancel()
        later = asyncio.ensure_future(batcher.compute(replace(call(1, 9), served=served)))
        await asyncio.sleep(0)
        let_go.set()
        async with asyncio.timeout(books.PATIENCE):
            results = await asyncio.gather(*waiting, later, return_exceptions=True)

    assert isinstance(results[1], asyncio.CancelledError)
    assert all(result.answer.outputs[0].shape == (1, 2) for number, result in enumerate(results) if number != 1)
    assert not batcher._computing
    assert not batcher._queue


def test_places_forget_who_has_none():
    """Else the names of all callers that ever were would be kept."""
    places = FairLimiter(4, "calls are running", "--max")
    with places.slot("a"), places.slot("b"), places.slot("a"):
        assert (places.in_use, dict(places._by)) == (3, {"a": 2, "b": 1})
    assert (places.in_use, dict(places._by)) == (0, {})


def test_the_long_model_is_long():
    """Or the tests above would try nothing in threads."""
    assert LONG.model.work.cost(60, 300) > MAX_INLINE_COST
    assert SMALL.model.work.cost(1, 1) < MAX_INLINE_COST


async def test_a_server_that_is_stopped_leaves_no_task(tmp_path):
    """Those that watch its files and count for it end with it."""
    file = File(tmp_path / "tokens.toml")
    file.add("somebody")
    before = asyncio.all_tasks()
    async with books.server(tokens=file.write()) as kept:
        assert len(asyncio.all_tasks()) > len(before)
        call_ = lstm_pb2_grpc.LstmServiceStub(kept.channel).Step(step())
        assert await fails(call_) is grpc.StatusCode.UNAUTHENTICATED
    await books.until(lambda: asyncio.all_tasks() <= before)
