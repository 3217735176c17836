"""Limits: places and their fair shares, deadlines that cannot be met, and the age of streams and connections."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstmserve import AsyncClient, Client
from lstmserve_server.core import errors, request_context
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.rpc.auth import callers
from lstmserve_server.runtime.admission import FairLimiter
from lstmserve_server.runtime.calls import ForwardCall
from lstmserve_server.runtime.scheduler import MAX_INLINE_COST, Scheduler
from tests.support import builders
from tests.support.live import QUICK, serving
from tests.support.paths import SUNSPOTS


class Crowd:
    """Callers that hold places."""

    def __init__(self, most):
        self.places = FairLimiter(most, "calls are running", "--max-concurrent-calls")
        self._held = {}

    def take(self, caller, most=1000):
        """Takes places until there are no more, or `most`; returns how many the caller has."""
        held = self._held.setdefault(caller, [])
        for _ in range(most):
            place = self.places.slot(caller)
            try:
                place.__enter__()
            except errors.Overloaded:
                break
            held.append(place)
        return len(held)

    def leave(self, caller):
        """Has the oldest call of a caller end."""
        self._held[caller].pop(0).__exit__(None, None, None)


@given(st.integers(100, 300), st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True))
def test_whoever_comes_next_finds_a_place(most, greedy):
    """However many places greedy callers want, they have equal shares when as many calls as they found have ended, and one more
    caller finds a place.
    """
    crowd = Crowd(most)
    first = crowd.take(greedy[0])
    for _ in range(2 * most):
        for caller in greedy:
            crowd.take(caller)
            crowd.leave(caller)
    shares = [crowd.take(caller) for caller in greedy]

    assert first >= 0.8 * most
    assert crowd.take("modest", 1) == 1
    assert max(shares) - min(shares) <= 0.15 * most + 2


def test_a_caller_alone_has_nearly_all_places():
    """One caller may have eight times as many places as it leaves free; with few places it may have all."""
    assert Crowd(64).take("only") == 56
    assert Crowd(4).take("only") == 4


def test_a_refusal_says_whose_places_they_are():
    """Who has its share is told so; who finds none free is told that."""
    crowd = Crowd(18)
    crowd.take("greedy")
    with pytest.raises(errors.Overloaded, match="16 calls are running, 16 of them yours; your fair share is used up"):
        crowd.places.slot("greedy").__enter__()
    crowd.take("another", 1)
    crowd.take("third", 1)
    with pytest.raises(errors.Overloaded, match="18 calls are running, which is the maximum"):
        crowd.places.slot("fourth").__enter__()


def test_a_place_is_given_back():
    """A call that has ended, well or not, leaves its place."""
    crowd = Crowd(1)
    with pytest.raises(ZeroDivisionError), crowd.places.slot("caller"):
        1 / 0  # noqa: B018

    assert crowd.places.in_use == 0
    assert crowd.take("caller") == 1


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [("", "ipv4:192.0.2.1:5000", "ipv4:192.0.2.1"), ("", "ipv6:[::1]:5000", "ipv6:[::1]"), ("reader", "x:1", "reader")],
)
def test_whom_a_call_counts_for(name, address, expected):
    """A call counts for the caller with the token, or for the host that it comes from, whatever its port."""
    callers.current_caller.set(callers.Caller(name, callers.CallerPolicy()))
    callers.current_peer.set(lambda: address)

    assert callers.owner() == expected


def long_call():
    """Returns a call that is computed in a thread, and its model."""
    served = builders.served()
    model = served.model
    steps = MAX_INLINE_COST // model.work.cost(1, 1) + 1
    x = builders.numbers(1, steps, model.inputs[0].features[0])
    return ForwardCall(served, (x,), model.zero_state(1), np.zeros(1, np.int64), False, None, False)


def test_what_would_come_too_late_is_not_computed():
    """Once calls have been timed, one like them with less time than that is refused before it is computed."""
    metrics = CallMetrics()
    scheduler = Scheduler(FairLimiter(8, "calls are running", "--max-concurrent-calls"), 1, metrics, batch_rows=256)
    call = long_call()

    async def scenario():
        """Has a call come with more and with less time."""
        request_context.seconds_left.set(lambda: 1.0)
        for _ in range(8):  # until then no one knows how long it takes
            await scheduler.run(call, str)
        request_context.seconds_left.set(lambda: 1e-9)
        with pytest.raises(
            errors.DeadlineExceeded, match=r"this call needs at least .* seconds, after 0 seconds of queued work"
        ):
            await scheduler.run(call, str)
        request_context.seconds_left.set(lambda: 100.0)
        await scheduler.run(call, str)

    asyncio.run(scenario())
    seen = {sample.labels.get("phase"): sample.value for family in metrics.collectors()[3].collect() for sample in family.samples
            if sample.name.endswith("_count")}  # fmt: skip

    assert seen["compute"] == 9


def test_an_admitted_call_is_computed_inline_only_if_it_is_short(monkeypatch):
    """A message of a stream holds up the event loop only for a short call; a long one is computed in a thread."""
    threads, compute = [], ForwardCall.compute

    def watched(*arguments):
        threads.append(threading.current_thread() is threading.main_thread())
        return compute(*arguments)

    monkeypatch.setattr(ForwardCall, "compute", watched)
    scheduler = Scheduler(
        FairLimiter(8, "calls are running", "--max-concurrent-calls"), 1, CallMetrics(), batch_rows=256
    )
    long = long_call()
    short = dataclasses.replace(long, inputs=(np.ascontiguousarray(long.x[:, :2]),))

    async def scenario():
        """Has a short and a long call come."""
        await scheduler.run_admitted(short)
        await scheduler.run_admitted(long)

    asyncio.run(scenario())

    assert threads == [True, False]


def test_a_call_without_a_deadline_is_always_computed():
    """Time is no matter where the caller sets none."""
    scheduler = Scheduler(
        FairLimiter(8, "calls are running", "--max-concurrent-calls"), 1, CallMetrics(), batch_rows=256
    )
    call = long_call()

    async def scenario():
        """Has a call come several times."""
        return [(await scheduler.run(call, str)).outputs[0].tobytes() for _ in range(3)]

    first, *others = asyncio.run(scenario())

    assert [first, first] == others


def test_a_stream_that_is_old_goes_on_elsewhere_and_nothing_is_lost():
    """Streams end with their state after nine tenths of --connection-seconds; the client continues, with the same bytes."""
    inputs = builders.numbers(60, 1)
    with serving(SUNSPOTS, "--connection-seconds", "1", *QUICK) as live, Client(live.address) as client:
        expected = client.forward(inputs, all_outputs=True).output
        with client.stream() as stream:
            outputs = []
            while not stream.reconnects or len(outputs) < len(inputs):
                outputs.append(stream.step(inputs[len(outputs) % len(inputs)]))
                if len(outputs) == len(inputs) and not stream.reconnects:
                    outputs = []
                    stream.reset()
            again = stream.reconnects

    assert expected.tobytes() == np.concatenate(outputs[: len(inputs)]).tobytes()
    assert again >= 1


def test_connections_that_age_or_idle_cost_no_call():
    """A connection that is told to go, for its age or for its idleness, is replaced without a failed call."""

    async def scenario(address):
        """Calls for some seconds, and returns how often."""
        async with AsyncClient(address) as client:
            loop = asyncio.get_running_loop()
            end = loop.time() + 4
            done = 0
            while loop.time() < end:
                await client.step([0.5])
                done += 1
            return done

    flags = ("--connection-seconds", "1", "--connection-idle-seconds", "1")
    with serving(SUNSPOTS, *flags, *QUICK) as live:
        assert asyncio.run(scenario(live.address)) > 0


def test_a_connection_that_says_nothing_is_closed():
    """Who connects and sends no HTTP/2 is let go after --handshake-seconds."""
    import socket  # noqa: PLC0415

    with serving(SUNSPOTS, "--handshake-seconds", "1", *QUICK) as live:
        host, _, port = live.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=30) as silent:
            while silent.recv(1000):  # what the server says of itself, then the end
                pass


def test_too_much_metadata_is_refused():
    """A call with more metadata than --max-metadata-bytes gets RESOURCE_EXHAUSTED, and the next one its answer."""
    with serving(SUNSPOTS, "--max-metadata-bytes", "2048", *QUICK) as live:
        with grpc.insecure_channel(live.address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/lstmserve.v1.LstmService/Step")(b"", metadata=(("x", "y" * 10_000),))
        with Client(live.address) as client:
            assert client.step([0.5]).output.shape == (1,)

    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_compressed_requests_are_refused():
    """A message of any size could be made of a few compressed bytes, so none is unpacked: UNIMPLEMENTED."""
    with (
        serving(SUNSPOTS, *QUICK) as live,
        grpc.insecure_channel(live.address) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/lstmserve.v1.LstmService/Step")(bytes(10_000), compression=grpc.Compression.Gzip)

    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_calls_on_one_connection_are_bounded():
    """A client that opens more streams than --max-streams-per-connection has the rest wait, and is told nothing wrong."""

    async def scenario(address):
        """Has a call wait for the end of a stream."""
        async with AsyncClient(address) as client:
            first = client.stream()
            await first.step([0.5])
            waiting = asyncio.create_task(client.step([0.5]))
            done, _ = await asyncio.wait([waiting], timeout=0.5)
            await first.close()
            await waiting
            return done

    with serving(SUNSPOTS, "--max-streams-per-connection", "1", *QUICK) as live:
        assert asyncio.run(scenario(live.address)) == set()
