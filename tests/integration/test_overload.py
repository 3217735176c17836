"""More calls than a server can answer: each gets an answer or a documented refusal, and afterwards all is as before.

How much it answers all the same, and how quickly, says `python -m bench.traffic overload`: a matter of figures, not of a test.
"""

from __future__ import annotations

import contextlib
import itertools

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from bench.stream_costs import input_of
from bench.traffic import generator, outcomes, servers, soak
from bench.traffic.generator import Plan
from lstmserve import Client, calls

TIMES = 4
DEADLINE = 2.0
LATE = {"DEADLINE_EXCEEDED", "no answer in time", "not sent in time"}
"""What a caller may see whose time is over; on a slow machine some may."""
WIDE = 256
"""So many rows are computed in a thread."""


def plan(target, data, **how):
    """Returns a plan that sends a message to `Step`."""
    return Plan(address=target.address, path=calls.method("Step"), data=data, **{"deadline": DEADLINE, **how})


@contextlib.contextmanager
def overload(target, rows, seconds=2.0):
    """Asks for more than a server can answer while the body runs; yields a list that then gets the codes of the calls."""
    data = servers.step_message(target.address, rows)
    windows = [generator.run(plan(target, data, seconds=0.3, in_flight=8)) for _ in range(3)]
    capacity = max(int((window["code"] == 0).sum()) for window in windows) / 0.3
    codes = {}
    process = generator.start(plan(target, data, seconds=seconds, rate=TIMES * capacity))
    try:
        yield codes
    finally:
        found = generator.finish(process)
    assert found["same"][found["code"] == 0].all(), "an answer has other bytes than the first"
    assert outcomes.good(found, DEADLINE).any()
    codes.update(outcomes.by_code(found))


def answers_as_before(target, before):
    """Returns whether a call is answered as it was."""
    with Client(target.address) as client:
        return np.array_equal(client.step(input_of(1, 1)).output, before)


@pytest.mark.slow
def test_small_calls_are_answered_or_dropped_by_grpc_itself_and_health_is_answered_all_the_while():
    """To refuse in Python costs too much where a call costs little. Each method waits in a queue of its own."""
    with servers.ours() as target:
        with Client(target.address) as client:
            before = client.step(input_of(1, 1)).output
        with overload(target, 1) as codes, grpc.insecure_channel(target.address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            healths = {check(health_pb2.HealthCheckRequest(), timeout=10).status for _ in range(50)}
        assert healths == {health_pb2.HealthCheckResponse.SERVING}
        assert "CANCELLED" in codes, codes
        assert codes.keys() <= {"OK", "CANCELLED", "RESOURCE_EXHAUSTED"} | LATE, codes
        assert answers_as_before(target, before)


@pytest.mark.slow
def test_large_calls_are_refused_with_the_time_to_wait():
    """They are computed in threads, so there is time to say so."""
    with servers.ours("--max-concurrent-calls", "2") as target:
        with Client(target.address) as client:
            before = client.step(input_of(1, 1)).output
        with overload(target, WIDE) as codes:
            delay = retry_delay(target)
        assert codes["RESOURCE_EXHAUSTED"]["with_details"] == 1, codes
        assert codes.keys() <= {"OK", "CANCELLED", "RESOURCE_EXHAUSTED"} | LATE, codes
        assert delay > 0
        assert answers_as_before(target, before)


def retry_delay(target):
    """Asks until it is refused by us, and returns after how many seconds it may ask again."""
    request = calls.step(input_of(WIDE, 1), None, "")
    with grpc.insecure_channel(target.address) as channel:
        send = channel.unary_unary(request.method, calls.serialize)
        for _ in itertools.repeat(None, 1000):
            try:
                send(request.request, timeout=10)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    return delay_of(error)
    raise AssertionError("never refused")


def delay_of(error):
    """Returns the delay in the details of an error, in seconds."""
    metadata = dict(error.trailing_metadata())
    details = status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in details)
    return info.retry_delay.ToTimedelta().total_seconds()


@pytest.mark.parametrize("leak", [0.0, 3.0])
def test_a_leak_shows_as_a_slope(leak):
    """In megabytes per ten minutes, whatever the noise."""
    chance = np.random.default_rng(1)
    samples = [(second, 80_000 + leak * 1e6 / 1024 * second / 600 + chance.normal(0, 50)) for second in range(600)]
    assert soak.slope_mb(samples) == pytest.approx(leak, abs=0.1)
