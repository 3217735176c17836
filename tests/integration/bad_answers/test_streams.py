"""Streams of servers that answer wrong, late or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time

import numpy as np
import pytest

import lstmserve
from lstmserve import AsyncClient, Client, InvalidResponse
from lstmserve.v1 import lstm_pb2
from tests.support.scripted import Both, Response, going_away, opened, outputs, state_of

WRONG_IN_STREAMS = {
    "rows when opened": ([opened(rows=3)], "the stream was opened with 3 rows; expected 1"),
    "no digest": ([opened(digest="")], "the stream was opened for the model ''"),
    "opened twice": ([opened(), opened()], "the stream was opened twice"),
    "not opened": ([outputs(1, 5)], "got output before the stream was opened"),
    "empty": ([opened(), Response()], "got an empty message"),
    "no message": ([opened(), b"\xff\xff"], "got 2 bytes that are not a valid lstmserve.v1.StreamStepsResponse"),
    "another kind": (
        [opened(), Response(checkpoint=lstm_pb2.StreamCheckpoint(number=1, state=state_of(1)))],
        "got checkpoint for message 1, expected output",
    ),
    "rows": ([opened(), outputs(1, 5, 6)], "output has the shape (2, 1); expected 1 rows"),
    "not finite": ([opened(), outputs(1, np.inf)], "output holds numbers that are not finite"),
    "state of others": ([opened(), outputs(1, 5, state=state_of(1, digest="e"))], "state is of the model 'e'"),
    "rows of the state": ([opened(), outputs(1, 5, state=state_of(2))], "state has 2 rows; expected 1"),
}


@pytest.mark.parametrize("name", WRONG_IN_STREAMS)
def test_a_message_of_a_stream_that_does_not_fit_ends_it(server, client, name):
    """With the same error; nothing is asked for again, as the server may answer the same."""
    messages, text = WRONG_IN_STREAMS[name]
    calls = []

    def talk(requests, over):
        calls.append(1)
        yield from messages
        over.wait()

    server.stream = talk
    with pytest.raises(InvalidResponse) as caught:
        client.converse([("step", [0.5])], timeout=5, reconnect_timeout=5)

    assert server.address in str(caught.value)
    assert text in str(caught.value)
    assert len(calls) == 1


@pytest.mark.parametrize("what", ["opened", "going away", "nothing"])
def test_a_stream_gives_up_on_a_server_that_makes_no_progress(server, client, what):
    """What no one asked for is not an answer, however often it comes: `timeout` and `patience` are about those."""
    message = {"opened": opened(), "going away": going_away(), "nothing": None}[what]

    def talk(requests, over):
        yield opened()
        while not over.wait(0.05):
            if message is not None and what != "opened":
                yield message

    server.stream = talk
    began = time.monotonic()
    with pytest.raises((lstmserve.DeadlineExceeded, lstmserve.Unavailable)):
        client.converse([("step", [0.5])], timeout=0.4, reconnect_timeout=1)

    assert time.monotonic() - began < 20


def test_a_journal_of_a_server_without_states_is_bounded(server, client):
    """A server that refuses the checkpoint that the client needs is not asked for ever."""

    def talk(requests, over):
        yield opened()
        for data in requests:
            request = lstm_pb2.StreamStepsRequest.FromString(data)
            match request.WhichOneof("message"):
                case "input":
                    yield outputs(request.input.number, 1)
                case "checkpoint":
                    yield Response(
                        rejected=lstm_pb2.StreamRejected(number=request.checkpoint.number, code=3, text="no")
                    )

    server.stream = talk
    with pytest.raises(InvalidResponse, match="got rejected for message"):
        client.converse([("step", np.zeros((1, 300_000)))] * 10)


def test_replayed_answers_do_not_hold_a_stream_for_ever(server, client):
    """What was delivered before is not an answer to who waits: `patience` ends it."""
    calls = []

    def talk(requests, over):
        calls.append(1)
        yield opened()
        number = 0
        for data in requests:
            request = lstm_pb2.StreamStepsRequest.FromString(data)
            if request.WhichOneof("message") == "input":
                number += 1
                if len(calls) > 1:
                    over.wait(0.3)
                elif number > 30:
                    return
                yield outputs(request.input.number, number)

    server.stream = talk
    began = time.monotonic()
    with pytest.raises(lstmserve.LstmServeError):
        client.converse([("step", [0.5])] * 31, timeout=0.5, reconnect_timeout=1)
    assert time.monotonic() - began < 8  # 30 answers at 0.3 seconds would be 9


def test_a_stream_that_was_to_give_the_same_bytes_ends_for_good(server, client):
    """A server of other numerics is not gone on with, neither by asking once more nor if it never says which it has."""
    calls = []

    def talk(requests, over):
        calls.append(1)
        if len(calls) == 1:
            yield opened()
            yield outputs(1, 5)
            return
        yield opened(fingerprint="other")
        yield outputs(2, 6)
        over.wait()

    server.stream = talk
    with pytest.raises(lstmserve.NumericsChanged):
        client.converse([("step", [0.5]), ("step", [0.5])], strict=True)


def test_closing_a_client_closes_its_streams(server):
    """And leaves no thread of theirs."""

    def talk(requests, over):
        yield opened()
        over.wait()

    server.stream = talk
    client = Client(server.address)
    stream = client.stream()
    client.close()
    with pytest.raises(lstmserve.Cancelled):
        stream.step([0.5])
    del stream
    deadline = time.monotonic() + 20
    while any("lstmserve" in thread.name or "consume" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


async def test_a_stream_that_is_cancelled_while_it_opens_leaves_no_task(server):
    """Anyone who waits no longer leaves nothing after that sends."""

    def talk(requests, over):
        """Answers nothing at all."""
        over.wait()
        return iter(())

    server.stream = talk
    async with AsyncClient(server.address) as client:
        before = asyncio.all_tasks()
        stream = client.stream()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.__aenter__(), 0.2)
        left = [task for task in asyncio.all_tasks() - before if "_write" in repr(task)]
        assert left == []


def test_a_stream_waits_for_as_long_as_answers_come(server, client):
    """Each answer gives the next one its time: together they may take longer than the timeout."""

    def talk(requests, over):
        yield opened()
        for request in requests:
            if request.WhichOneof("message") == "input":
                over.wait(0.3)
                yield outputs(request.input.number, request.input.number)

    server.stream = lambda requests, over: talk(
        (lstm_pb2.StreamStepsRequest.FromString(data) for data in requests), over
    )
    answers = client.converse([("step", [0.5])] * 5, timeout=1, reconnect_timeout=1)

    assert [float(answer[0, 0]) for answer in answers] == [1, 2, 3, 4, 5]


def test_a_stream_takes_in_no_more_than_a_few_megabytes(server):
    """Who sends what no one asked for is held back by gRPC's flow control, though no one reads at the moment."""
    sent, large = [], outputs(1, *np.zeros(1 << 18))

    def talk(requests, over):
        yield opened()
        for _ in range(100):
            yield large
            sent.append(1)
        over.wait()

    server.stream = talk
    with Client(server.address) as client, client.stream() as stream:
        last = None
        while last != len(sent):  # until it stands still
            last = len(sent)
            threading.Event().wait(0.5)

        assert 2 <= len(sent) < 40  # of 1 MiB each; gRPC itself holds some
        assert stream.reconnects == 0


def test_a_closed_stream_leaves_no_thread(server):
    """Even where its reader waited for room."""
    large = outputs(1, *np.zeros(1 << 18))

    def talk(requests, over):
        yield opened()
        while not over.is_set():
            yield large

    server.stream = talk
    with Client(server.address) as client, contextlib.closing(client.stream()):
        pass
    deadline = time.monotonic() + 20
    while any(thread.name == "lstmserve-stream" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        gc.collect()
        threading.Event().wait(0.02)


def answering(requests, over):
    """Answers every message of a stream at once."""
    yield opened()
    for data in requests:
        request = lstm_pb2.StreamStepsRequest.FromString(data)
        match request.WhichOneof("message"):
            case "input":
                yield outputs(request.input.number, request.input.number)
            case "checkpoint":
                yield Response(
                    checkpoint=lstm_pb2.StreamCheckpoint(number=request.checkpoint.number, state=state_of(1))
                )


@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_no_more_inputs_are_read_than_may_be_in_flight(server, kind, in_flight):
    """Of a series that never ends, as many as are sent ahead of the answers, and one more with each answer that is taken."""
    server.stream = answering
    read = []

    def series():
        while True:
            read.append(1)
            yield [0.5]

    def sync():
        with Client(server.address) as client, client.stream() as stream:
            return [
                (float(output[0, 0]), len(read))
                for output, _ in zip(stream.steps(series(), in_flight), range(4), strict=False)
            ]

    async def with_asyncio():
        """The first four outputs, and how many inputs had been read when each came."""
        async with AsyncClient(server.address) as client, client.stream() as stream:
            taken = []
            async for output in stream.steps(series(), in_flight):
                taken.append((float(output[0, 0]), len(read)))
                if len(taken) == 4:
                    break
            return taken

    taken = sync() if kind == "sync" else asyncio.run(with_asyncio())
    assert taken == [(number, number + in_flight - 1) for number in (1, 2, 3, 4)]


async def test_a_task_that_is_cancelled_is_not_a_server_that_is_lost(server):
    """Anyone who cancels it gets CancelledError, and the stream is not opened again for it."""
    calls, asked = [], threading.Event()

    def talk(requests, over):
        """Opens the stream, and answers no message."""
        calls.append(1)
        yield opened()
        next(iter(requests))
        asked.set()
        over.wait()

    server.stream = talk
    async with AsyncClient(server.address) as client, client.stream(timeout=20, reconnect_timeout=20) as stream:
        waiting = asyncio.create_task(stream.step([0.5]))
        await asyncio.to_thread(asked.wait, 20)  # the message is with the server, so the caller waits for its answer
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stream.reconnects == 0
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_a_server_that_ends_a_stream_well_is_gone_on_with(server, kind):
    """A stream that ends with OK before all is answered continues with another call, whichever client it is of."""
    calls = []

    def talk(requests, over):
        calls.append(1)
        if len(calls) == 1:
            yield opened()
            next(iter(requests))
            return
        yield from answering(requests, over)

    server.stream = talk
    assert [float(output[0, 0]) for output in Both(kind, server.address).converse([("step", [0.5])] * 2)] == [1, 2]
    assert len(calls) == 2


def test_outputs_that_were_not_taken_stand_before_what_comes_next(server):
    """A stream whose series was left in the middle says how to continue."""
    server.stream = answering
    with Client(server.address) as client, client.stream() as stream:
        for _ in stream.steps([[0.5]] * 9, 4):
            break
        with pytest.raises(RuntimeError, match="3 outputs of steps"):
            stream.step([0.5])
        assert [float(output[0, 0]) for output in stream.steps([])] == [2, 3, 4]
        assert float(stream.step([0.5])[0, 0]) == 5
