"""Limits of streams: backpressure, places, sizes, idleness."""

from __future__ import annotations

import contextlib
import itertools
import time

import grpc
import numpy as np
import pytest

import lstmserve
from lstmserve import Client
from tests.support import live
from tests.support.streams import (
    IDLE_SECONDS,
    MOST_BYTES,
    MOST_STREAMS,
    Raw,
    X,
    checkpoint,
    fill,
    in_parts,
    memory_of,
    opening,
    opens,
    reset,
    stable,
    steps,
)
from tests.support.tcp_proxy import TcpProxy


def test_a_caller_that_does_not_read_is_not_read_from(usual, channel, client, long_messages):
    """The server stops taking from who does not read, keeps its memory, answers others, and continues in order when read from."""
    expected = in_parts(usual.address, long_messages)
    before = memory_of(usual)
    every = [opening("wide"), *map(steps, long_messages, itertools.count(1))]
    with Raw(channel, *every) as stream, Raw(channel, opening()) as other:
        other.read()
        stuck_at = stable(lambda: stream.pulled)
        grown = memory_of(usual) - before
        answers = [other.ask(steps(X[:1, 0], number)).number for number in range(1, 20)]
        client.forward(X)
        still = stream.pulled
        stream.read()
        late = [stream.read() for _ in long_messages]

    assert stuck_at == still < 500
    assert grown < 24 << 10
    assert list(range(1, 20)) == answers
    assert list(range(1, 601)) == [answer.number for answer in late]
    assert expected.tobytes() == b"".join(answer.output.data for answer in late)


def test_more_streams_than_there_may_be_are_refused(narrow_channel, narrow):
    """One stream too many is refused with the setting and how long to wait; the others, and calls, are answered."""
    with contextlib.ExitStack() as stack, Client(narrow.address, model="small") as client:
        first, *_ = fill(narrow_channel, stack)
        with Raw(narrow_channel, opening()) as refused:
            _, status, text = refused.rest()
            trailing = dict(refused.call.trailing_metadata())
        answer = first.ask(steps(X[:1, 0], 3))
        client.step(X[0, 0])
        with pytest.raises(lstmserve.ResourceExhausted, match="--max-streams"):
            client.stream(reconnect_timeout=0)

    assert (status, text) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "3 streams are open, which is the maximum (--max-streams). Try again later",
    )
    assert trailing["grpc-retry-pushback-ms"] == "100"
    assert answer.number == 3


WAYS_TO_END = {
    "all was sent": Raw.done,
    "cancelled": lambda stream: stream.call.cancel(),
    "broken": lambda stream: stream.send(opening()),
    "cancelled with steps in hand": lambda stream: (stream.send(*[steps(X[:1, :9])] * 99), stream.call.cancel()),
}


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_a_stream_that_ends_makes_room(narrow_channel, way):
    """A place is free again when a stream is at its end, is cancelled, or breaks the protocol."""
    with contextlib.ExitStack() as stack:
        each = fill(narrow_channel, stack)
        assert not opens(narrow_channel)
        WAYS_TO_END[way](each[1])
        live.until(lambda: opens(narrow_channel))


def test_a_deadline_makes_room(narrow_channel):
    """A place is free again when the deadline of a stream is over."""
    with contextlib.ExitStack() as stack:
        short = stack.enter_context(Raw(narrow_channel, opening(), timeout=0.5))
        short.read()
        others = [stack.enter_context(Raw(narrow_channel, opening())) for _ in range(MOST_STREAMS - 1)]
        for stream in others:
            stream.read()
        assert short.rest()[1] == grpc.StatusCode.DEADLINE_EXCEEDED
        live.until(lambda: opens(narrow_channel))


def test_a_caller_that_dies_makes_room(narrow_channel, narrow):
    """A place is free again when the connection of its caller is gone."""
    with contextlib.ExitStack() as stack, TcpProxy(narrow.address) as proxy:
        doomed = stack.enter_context(grpc.insecure_channel(proxy.address))
        fill(doomed, stack)
        assert not opens(narrow_channel)
        proxy.refuse()
        proxy.cut()
        live.until(lambda: opens(narrow_channel, MOST_STREAMS))


LIMITED = [
    ([opening(row_count=5)], "row_count: got 5 rows, expected at most 4 (--max-rows)"),
    ([opening(row_count=2**31 - 1)], f"row_count: got {2**31 - 1} rows, expected at most 4 (--max-rows)"),
]


@pytest.mark.parametrize(("messages", "text"), LIMITED)
def test_a_stream_beyond_the_limits_is_refused(narrow_channel, messages, text):
    """More rows than a request may have end the stream with RESOURCE_EXHAUSTED and the setting."""
    with Raw(narrow_channel, *messages) as stream:
        assert stream.rest() == ([], grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def test_steps_beyond_the_limits_are_answered_in_the_stream(narrow_channel):
    """More time-steps than a request may have are rejected with the setting, and the stream continues."""
    with Raw(narrow_channel, opening(), steps(X[:1, :11], 2), steps(X[:1, :10], 3)) as stream:
        _, rejected, outputs = (stream.read() for _ in range(3))

    assert (rejected.number, rejected.code, outputs.number) == (2, 8, 3)
    assert "got 11 time-steps, expected at most 10 (--max-steps)" in rejected.text


@pytest.mark.parametrize("message", [checkpoint(), reset([0])])
def test_no_response_is_longer_than_a_message_may_be(narrow_channel, message):
    """A state longer than --max-message-bytes is never sent, whatever asks for it, and rows of such a stream cannot be stepped."""
    with Raw(narrow_channel, opening("broad", row_count=4), message) as stream:
        stream.done()
        responses, _, _ = stream.rest()

    assert [response.ByteSize() for response in responses if response.ByteSize() > MOST_BYTES] == []


def test_an_idle_stream_is_ended_with_its_state(impatient):
    """A stream without a message for so long ends with DEADLINE_EXCEEDED, the setting, and before it the state."""
    with grpc.insecure_channel(impatient.address) as channel, Raw(channel, opening(), steps(X[:1, 0], 5)) as stream:
        responses, status, text = stream.rest()

    assert (responses[-1].going_away.number, list(responses[-1].going_away.state.steps_seen)) == (5, [1])
    assert status == grpc.StatusCode.DEADLINE_EXCEEDED
    assert f"no message for {IDLE_SECONDS} seconds (--stream-idle-seconds)" == text


def test_a_stream_that_was_never_opened_is_ended_too(impatient):
    """A caller that opens a call and sends nothing does not keep its place."""
    with grpc.insecure_channel(impatient.address) as channel, Raw(channel) as stream:
        assert stream.rest()[:2] == ([], grpc.StatusCode.DEADLINE_EXCEEDED)


def test_a_busy_stream_is_not_ended(impatient):
    """A stream with messages continues for longer than one without may last."""
    for _ in range(20):
        with grpc.insecure_channel(impatient.address) as channel, Raw(channel, opening()) as stream:
            stream.read()
            asked = [time.monotonic()]
            with contextlib.suppress(grpc.RpcError):
                while asked[-1] < asked[0] + 3 * IDLE_SECONDS:
                    assert stream.ask(steps(X[:1, 0], 7)).number == 7
                    asked.append(time.monotonic())
                return
        # Ended: that is wrong, unless this machine was so busy that the stream was idle.
        assert time.monotonic() - asked[-1] > IDLE_SECONDS / 2 or max(np.diff(asked)) > IDLE_SECONDS / 2
    raise AssertionError("this machine was too busy to keep a stream busy")


def test_a_client_goes_on_after_its_stream_was_idle(impatient):
    """An idle stream that the server ended is opened again by the client, with the same bytes."""
    with Client(impatient.address) as client, client.stream() as stream:
        outputs = [stream.step(X[0, 0])]
        with grpc.insecure_channel(impatient.address) as channel, Raw(channel, opening()) as later:
            later.rest()  # opened after, and idle for as long
        outputs.append(stream.step(X[0, 1]))
        whole = client.forward(X[0, :2], all_outputs=True).output

        assert stream.reconnects == 1
    assert whole.tobytes() == np.concatenate(outputs).tobytes()
