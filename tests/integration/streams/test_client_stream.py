"""Streams of the client: errors, closing, places, and inputs from anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from concurrent import futures
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

import lstmserve
from lstmserve import AsyncClient, Client, resumable_stream, tensors
from lstmserve.v1 import lstm_pb2, lstm_pb2_grpc
from tests.support import live
from tests.support.streams import MOST_STREAMS, PATIENCE, X, fill, opens, steps
from tests.support.tcp_proxy import TcpProxy

REFUSED = [
    (X[0, 0, :2], lstmserve.FailedPrecondition, "x.shape: got 2 features"),
    (np.full(3, np.inf), lstmserve.InvalidArgument, "x: got inf at"),
    (np.zeros((2, 3)), lstmserve.InvalidArgument, "x.shape: got 2 rows"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "kind", "text"), REFUSED)
def test_a_refused_input_raises_and_the_stream_goes_on(client, x, kind, text):
    """An input that the server refuses raises the error that the call would, and the stream is as before."""
    whole = client.forward(X[0, :2], all_outputs=True).output
    with client.stream() as stream:
        outputs = [stream.step(X[0, 0])]
        with pytest.raises(kind, match=text):
            stream.step(x)
        outputs.append(stream.step(X[0, 1]))

        assert stream.reconnects == 0
    assert whole.tobytes() == np.concatenate(outputs).tobytes()


@pytest.mark.parametrize(("x", "kind", "text"), REFUSED)
async def test_a_refused_input_raises_and_the_stream_of_asyncio_goes_on(usual, x, kind, text):
    """The same with asyncio."""
    async with AsyncClient(usual.address, model="small") as client, client.stream() as stream:
        outputs = [await stream.step(X[0, 0])]
        with pytest.raises(kind, match=text):
            await stream.step(x)
        outputs.append(await stream.step(X[0, 1]))
        whole = (await client.forward(X[0, :2], all_outputs=True)).output

        assert stream.reconnects == 0
    assert whole.tobytes() == np.concatenate(outputs).tobytes()


def test_what_cannot_be_sent_raises_and_the_stream_goes_on(client):
    """An input that has no place in a message raises before anything is sent."""
    with client.stream() as stream:
        with pytest.raises(TypeError, match="cannot be sent"):
            stream.step(["a", "b", "c"])
        assert client.step(X[:1, 0]).output.tobytes() == stream.step(X[0, 0]).tobytes()


def test_an_input_refused_among_many_in_flight(client):
    """The outputs before a refused input come first; then the error; the outputs after it can still be taken."""
    series = [*X[0, :5], np.full(3, np.nan), *X[0, 5:10]]
    whole = client.forward(X[0, :10], all_outputs=True).output
    with client.stream() as stream:
        outputs = []
        with pytest.raises(lstmserve.InvalidArgument, match="nan"):
            outputs.extend(stream.steps(series))
        before = len(outputs)
        outputs += stream.steps(())

    assert before == 5
    assert whole.tobytes() == np.concatenate(outputs).tobytes()


@pytest.mark.parametrize("lost", [False, True])
def test_a_step_out_of_turn_raises_and_leaves_nothing_behind(usual, client, lost):
    """A step while answers of `steps` are to be taken raises; its input is never computed, not even by the next server."""
    whole = client.forward(X[0, :5], all_outputs=True).output
    with TcpProxy(usual.address) as proxy, Client(proxy.address, model="small") as other:
        stream = other.stream(timeout=1, reconnect_timeout=0.5)
        going = stream.steps(X[0, :4], in_flight=4)
        outputs = [next(going)]
        with pytest.raises(RuntimeError, match="have not been taken"):
            stream.step(X[0, 10])
        if lost:
            proxy.cut()
        outputs += going
        outputs.append(stream.step(X[0, 4]))
        stream.close()

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


def test_an_unknown_model_raises_when_the_stream_is_opened(usual):
    """A stream on a model that is not served raises NotFound, and never another try."""
    with Client(usual.address, model="none") as client, pytest.raises(lstmserve.NotFound, match="'none'"):
        client.stream()


def test_a_state_of_other_rows_is_refused_before_it_is_sent(client):
    """A stream with a state of another number of rows raises ValueError."""
    state = client.step(X[:, 0]).state
    with pytest.raises(ValueError, match="a state of 3 rows for a stream of 2"):
        client.stream(rows=2, state=state)


CLOSED_USES = {
    "step": lambda stream: stream.step(X[0, 1]),
    "steps": lambda stream: list(stream.steps(X[0, 1:3])),
    "checkpoint": lambda stream: stream.checkpoint(),
    "reset": lambda stream: stream.reset([0]),
}


@pytest.mark.parametrize("use", CLOSED_USES)
def test_a_closed_stream_raises(client, use):
    """Whatever is asked of a stream that was closed raises a sentence that says so, and opens nothing."""
    with client.stream(timeout=1, reconnect_timeout=0) as stream:
        stream.step(X[0, 0])

    with pytest.raises((RuntimeError, ValueError, lstmserve.LstmServeError), match="closed"):
        CLOSED_USES[use](stream)
    assert stream._connection is None


async def test_a_closed_stream_of_asyncio_raises(usual):
    """The same with asyncio."""
    async with AsyncClient(usual.address, model="small") as client:
        async with client.stream(timeout=1, reconnect_timeout=0) as stream:
            await stream.step(X[0, 0])

        with pytest.raises((RuntimeError, ValueError, lstmserve.LstmServeError), match="closed"):
            await stream.step(X[0, 1])
        assert stream._connection is None


def test_a_stream_of_a_closed_client_raises(usual):
    """A stream whose client was closed raises Cancelled, as calls do, at once."""
    client = Client(usual.address, model="small")
    with client.stream() as stream:
        stream.step(X[0, 0])
        client.close()
        with pytest.raises(lstmserve.Cancelled, match="the client was closed"):
            stream.step(X[0, 1])


def test_a_stream_that_waits_is_woken_by_the_close_of_its_client(usual):
    """A step under way when the client is closed ends with Cancelled, at once."""
    with TcpProxy(usual.address) as proxy, futures.ThreadPoolExecutor(1) as pool:
        client = Client(proxy.address, model="small")
        with client.stream(timeout=10 * PATIENCE) as stream:
            proxy.stall()
            step = pool.submit(stream.step, X[0, 0])
            live.until(lambda: stream._replay_log.outstanding)
            client.close()
            with pytest.raises(lstmserve.Cancelled, match="the client was closed"):
                step.result(PATIENCE)


def test_leaving_a_stream_early_makes_room_and_ends_its_thread(narrow_channel, narrow):
    """Leaving the with-block in the middle of `steps`, by an error too, frees the place at the server and the thread."""
    with Client(narrow.address, model="small") as client:
        for _ in range(2 * MOST_STREAMS):
            with contextlib.suppress(ZeroDivisionError), client.stream(reconnect_timeout=5) as stream:
                next(stream.steps(itertools.cycle(X[0])))
                raise ZeroDivisionError
        live.until(lambda: opens(narrow_channel, MOST_STREAMS))
        live.until(lambda: not [thread for thread in threading.enumerate() if thread.name == "lstmserve-stream"])


async def test_leaving_a_stream_of_asyncio_early_makes_room_and_ends_its_task(narrow_channel, narrow):
    """The same with asyncio."""
    async with AsyncClient(narrow.address, model="small") as client:
        for _ in range(2 * MOST_STREAMS):
            with contextlib.suppress(ZeroDivisionError):
                async with client.stream(reconnect_timeout=5) as stream:
                    async for _ in stream.steps(itertools.cycle(X[0])):
                        raise ZeroDivisionError
        await asyncio.to_thread(live.until, lambda: opens(narrow_channel, MOST_STREAMS))

    assert [task for task in asyncio.all_tasks() if "_write" in repr(task.get_coro())] == []


def test_a_stream_waits_for_a_place(narrow_channel, narrow):
    """A stream that finds the server full is opened when another one ends."""
    with contextlib.ExitStack() as stack, Client(narrow.address, model="small") as client:
        first, *_ = fill(narrow_channel, stack)
        with futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.stream, reconnect_timeout=PATIENCE)
            live.until(lambda: first.ask(steps(X[:1, 0])) and waiting.running())
            first.done()
            with waiting.result(PATIENCE) as stream:
                assert stream.step(X[0, 0]).shape == (1, 2)


@pytest.mark.parametrize("idle_for", [1, 3600])
def test_a_stream_that_was_quiet_for_long_survives_the_loss_of_its_server(client, usual, monkeypatch, idle_for):
    """The patience of a stream is for looking for a server, not for the time in which its caller asked nothing."""
    whole = client.forward(X[0, :2], all_outputs=True).output
    now = [0.0]
    monkeypatch.setattr(resumable_stream, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    with TcpProxy(usual.address) as proxy, Client(proxy.address, model="small") as other, other.stream() as stream:
        outputs = [stream.step(X[0, 0])]
        now[0] += idle_for
        proxy.cut()
        outputs.append(stream.step(X[0, 1]))

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


class _Faulty(lstm_pb2_grpc.LstmServiceServicer):
    """A server that opens every stream and fails at the first input of each, five hundred times."""

    def __init__(self):
        self.opened = 0

    def StreamSteps(self, requests, context):  # noqa: N802 - gRPC's
        """Opens, and fails."""
        self.opened += 1
        next(requests)
        yield lstm_pb2.StreamStepsResponse(
            opened=lstm_pb2.StreamOpened(row_count=1, model_digest="d", numerics_fingerprint="f")
        )
        number = next(requests).input.number
        if self.opened < 500:
            context.abort(grpc.StatusCode.INTERNAL, "internal error")
        yield lstm_pb2.StreamStepsResponse(output=lstm_pb2.StepOutput(number=number, output=tensors.encode(X[:1, 0])))


def test_an_input_that_every_server_fails_at_is_given_up():
    """When servers open a stream again and again and fail at the same input, its error is raised at last."""
    service = _Faulty()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    lstm_pb2_grpc.add_LstmServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with (
        contextlib.closing(SimpleNamespace(close=lambda: server.stop(0).wait())),
        Client(f"127.0.0.1:{port}") as client,
        client.stream(reconnect_timeout=0.3) as stream,
        pytest.raises(lstmserve.Internal, match="internal error"),
    ):
        stream.step(X[0, 0])

    assert service.opened < 100


def test_the_last_checkpoint_is_what_the_server_sent_last(client):
    """The last checkpoint is None at first, then what came with outputs, with a reset, and on asking."""
    with client.stream(checkpoint_interval_steps=2) as stream:
        first = stream.last_checkpoint
        list(stream.steps(X[0, :5]))
        second = stream.last_checkpoint
        third = stream.checkpoint()

        assert (first, second.steps_seen.tolist(), third.steps_seen.tolist()) == (None, [4], [5])
        assert third is stream.last_checkpoint
        assert (stream.reconnects, stream.numerics_changes) == (0, 0)


async def test_inputs_may_come_from_asyncio(usual):
    """`steps` of asyncio takes inputs that come one by one."""

    async def series():
        """Yields the inputs."""
        for x in X[0]:
            await asyncio.sleep(0)
            yield x

    async with AsyncClient(usual.address, model="small") as client, client.stream() as stream:
        outputs = [output async for output in stream.steps(series())]
        whole = (await client.forward(X[0], all_outputs=True)).output

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


def test_so_many_inputs_are_in_flight_and_no_more(client):
    """`steps` reads so many inputs ahead of the outputs that were taken."""
    read = []
    with client.stream() as stream:
        outputs = stream.steps((read.append(0) or x for x in X[0]), in_flight=5)
        ahead = [len(read) for _ in zip(range(4), outputs, strict=False)]

    assert ahead == [5, 6, 7, 8]
