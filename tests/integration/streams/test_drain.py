"""The drain: streams end with their states."""

from __future__ import annotations

import contextlib
import signal
import time
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lstmserve import Client
from tests.support import live
from tests.support.builders import (
    numbers,
)
from tests.support.streams import PATIENCE, Raw, bytes_of, opening, stable, steps
from tests.support.tcp_proxy import TcpProxy


@pytest.fixture(scope="module")
def busy(files):
    """Returns a server whose steps take long, to be stopped."""
    with live.serving(files["big"], *live.QUICK) as server:
        yield server


@pytest.fixture(scope="module")
def stuck(files):
    """Returns a server that drains for a second, to be stopped."""
    with live.serving(files["wide"], "--drain-seconds", "1", *live.QUICK) as server:
        yield server


def states_after(client, cuts):
    """Returns the state after each piece of a sequence, and None before the first."""
    states = [None]
    for cut in cuts:
        states.append(client.forward(cut, states[-1]).state)
    return states


def test_the_drain_finishes_what_is_in_hand_and_sends_the_states_away(busy):
    """On SIGTERM the message in hand is answered, every stream gets going_away with its state and UNAVAILABLE, and the end is 0."""
    x = numbers(4, 415, 3)
    cuts = [x[:, :1], x[:, 1:400], *np.split(x[:, 400:], 15, axis=1)]
    with grpc.insecure_channel(busy.address) as channel, contextlib.ExitStack() as stack:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        statuses = [next(watching).status]
        idle = [stack.enter_context(Raw(channel, opening("big", row_count=2))) for _ in range(20)]
        for stream in idle:
            stream.read()
        with Client(busy.address, timeout=PATIENCE) as client:
            states = states_after(client, cuts)
            stream = stack.enter_context(Raw(channel, opening("big", row_count=4), *map(steps, cuts, range(1, 18))))
            stream.read()
            stream.read()
            client.step(x[0, 0])
        busy.process.send_signal(signal.SIGTERM)
        busy.wait_for("draining")
        statuses.append(next(watching).status)
        *answers, away = stream.rest()[0]
        began = time.monotonic()
        ends = [each.rest() for each in idle]
        code = busy.finish()

    assert statuses == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    number = away.going_away.number
    assert list(range(2, number + 1)) == [answer.output.number for answer in answers]
    assert 2 <= number < 17
    assert bytes_of(states[number]) == bytes_of(away.going_away.state)
    assert stream.rest()[1:] == (grpc.StatusCode.UNAVAILABLE, "the server is draining; continue with another one")
    assert {(status, len(responses)) for responses, status, _ in ends} == {(grpc.StatusCode.UNAVAILABLE, 1)}
    assert {responses[0].going_away.number for responses, _, _ in ends} == {0}
    assert code == 0
    assert time.monotonic() - began < 8  # --drain-seconds is 10
    assert "internal_error" not in [entry["event"] for entry in busy.log]


@pytest.fixture(scope="module")
def stuck_drain(stuck, long_messages):
    """Returns how a server ended that had a stream that no one reads, and before it some that were cut off in their midst."""
    every = [opening("wide"), *map(steps, long_messages)]
    with grpc.insecure_channel(stuck.address) as channel, contextlib.ExitStack() as stack:
        for _ in range(3):
            with Raw(channel, *every) as unread, Raw(channel, opening("wide")) as idle:
                idle.read()
                stable(lambda stream=unread: stream.pulled, 0.1)
        with TcpProxy(stuck.address) as proxy, grpc.insecure_channel(proxy.address) as doomed:
            stack.enter_context(Raw(doomed, *every)).read()
            proxy.refuse()
            proxy.cut()
        unread = stack.enter_context(Raw(channel, *every))
        stable(lambda: unread.pulled)
        began = time.monotonic()
        code = stuck.stop()
        seconds = time.monotonic() - began
        status = unread.rest()[1]
    return SimpleNamespace(code=code, seconds=seconds, status=status, events=[entry["event"] for entry in stuck.log])


def test_a_caller_that_does_not_read_holds_up_no_drain(stuck_drain):
    """A server with a stream that no one reads ends within the drain time with 0, and the stream with UNAVAILABLE."""
    assert (stuck_drain.code, stuck_drain.status) == (0, grpc.StatusCode.UNAVAILABLE)
    assert stuck_drain.seconds < 8  # --drain-seconds is 1


def test_callers_that_go_are_no_fault_of_the_server(stuck_drain):
    """A caller that cancels, is cut off or is left after in the drain, is not logged as an internal error."""
    assert [event for event in stuck_drain.events if event in ("stopped", "internal_error")] == ["stopped"]
