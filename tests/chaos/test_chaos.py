"""Streams continue when their server dies, drains, freezes or is cut off, and no answer is lost, doubled or different."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest

import lstmserve
from lstmserve import AsyncClient, Client
from tests.chaos import cluster as clusters
from tests.chaos import streams
from tests.support import live
from tests.support.builders import numbers
from tests.support.tcp_proxy import TcpProxy

SERIES = np.abs(numbers(60, 1))


@pytest.fixture(scope="module")
def cluster():
    """Returns three replicas, and a server that nothing happens to."""
    with clusters.Cluster("--lame-duck-seconds", "0.1") as cluster:
        yield cluster


@pytest.fixture
def replica(cluster):
    """Returns one server that can be restarted."""
    return cluster.replicas[0]


@pytest.fixture(scope="module")
def expected(cluster):
    """Returns the outputs of the series, a row each."""
    return cluster.reference.forward(SERIES, all_outputs=True).output


@pytest.fixture(scope="module")
def fast():
    """Returns a server of other numerics."""
    with live.serving(clusters.MODEL, "--numerics", "fast", *live.QUICK) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [("kill", 4), ("alone", 4), ("term", 4), ("stop", 4), ("cut", 4), ("halve", 4), ("delay", 2), ("stall", 4)],
)
def test_a_fault_loses_doubles_and_changes_nothing(cluster, kind, count):
    """Streams of both clients whose replica is struck give the bytes of an uninterrupted run, each answer once and in order."""
    tally = streams.run_faults(cluster, kind, count, seed=1, messages=300)

    assert (count, (0, 0, 0)) == (tally.faults, tally.wrong)
    assert kind == "delay" or tally.struck


@pytest.mark.slow
def test_a_rolling_restart_is_not_noticed(cluster):
    """While three replicas are restarted one after the other, streams continue to the same bytes, and no call of ours fails."""
    tally, ours, _ = streams.run_rolling(cluster, streams=12, rounds=1, threads=2)

    assert (tally.struck, tally.wrong) == (12, (0, 0, 0))
    assert (ours.failed, ours.texts) == (0, {})
    assert ours.calls


def test_what_a_comparison_counts():
    """An answer that is missing, one that came twice, one of other bytes and one in another place are each told apart."""
    four = [b"a", b"b", b"c", b"d"]
    for answers, wrong in (
        (four, (0, 0, 0)),
        ([b"a", b"b", b"d"], (1, 0, 0)),
        ([b"a", b"b", b"b", b"c", b"d"], (0, 1, 0)),
        ([b"a", b"x", b"c", b"d"], (0, 0, 1)),
        ([b"b", b"a", b"c", b"d"], (0, 0, 2)),
    ):
        tally = streams.Tally()
        tally.compare(four, answers)
        assert wrong == tally.wrong


def test_a_strict_stream_stops_at_other_numerics(cluster, fast, expected):
    """A strict stream that could only continue with other numerics raises NumericsChanged, after the last answer of its own."""
    with (
        TcpProxy(cluster.replicas[0].address) as proxy,
        Client(proxy.address) as client,
        client.stream(strict=True) as stream,
    ):
        outputs = [stream.step(x) for x in SERIES[:30]]
        proxy.upstream = fast.address
        proxy.cut()
        with pytest.raises(lstmserve.NumericsChanged, match="the outputs would differ by rounding"):
            stream.step(SERIES[30])

    assert expected[:30].tobytes() == np.concatenate(outputs).tobytes()


def test_another_stream_goes_on_with_other_numerics(cluster, fast, expected):
    """A stream that is not strict continues with other numerics to nearly the same numbers, and says how often it did."""
    with TcpProxy(cluster.replicas[0].address) as proxy, Client(proxy.address) as client, client.stream() as stream:
        outputs = [stream.step(x) for x in SERIES[:30]]
        before = stream.numerics_changes
        proxy.upstream = fast.address
        proxy.cut()
        outputs += stream.steps(SERIES[30:])

        assert (before, stream.numerics_changes, stream.reconnects) == (0, 1, 1)
    np.testing.assert_allclose(np.concatenate(outputs), expected, rtol=1e-5)


def test_a_stream_waits_for_its_only_server(replica, expected):
    """A stream whose only server is killed continues when it is there again."""
    with Client(replica.address) as client, client.stream() as stream:
        outputs = [stream.step(x) for x in SERIES[:30]]
        replica.server.process.kill()
        restarting = threading.Thread(target=replica.restart, args=(signal.SIGKILL,))
        restarting.start()
        outputs += stream.steps(SERIES[30:])
        restarting.join()

        assert stream.reconnects
    assert expected.tobytes() == np.concatenate(outputs).tobytes()


async def test_a_stream_of_asyncio_waits_for_its_only_server(replica, expected):
    """The same with asyncio."""
    async with AsyncClient(replica.address) as client, client.stream() as stream:
        outputs = [await stream.step(x) for x in SERIES[:30]]
        replica.server.process.kill()
        restarting = threading.Thread(target=replica.restart, args=(signal.SIGKILL,))
        restarting.start()
        outputs += [output async for output in stream.steps(SERIES[30:])]
        restarting.join()

        assert stream.reconnects
    assert expected.tobytes() == np.concatenate(outputs).tobytes()


def gone(proxy):
    """Lets no one reach the server any more."""
    proxy.refuse()
    proxy.cut()


@pytest.mark.parametrize("lose", [gone, TcpProxy.stall])
def test_a_stream_gives_up_at_last(cluster, lose):
    """A stream whose only server is gone, or answers no more, raises what its last attempt met when `patience` is over."""
    with (
        TcpProxy(cluster.replicas[0].address) as proxy,
        Client(proxy.address) as client,
        client.stream(timeout=0.2, reconnect_timeout=0.5) as stream,
    ):
        stream.step(SERIES[0])
        lose(proxy)
        with pytest.raises((lstmserve.Unavailable, lstmserve.DeadlineExceeded)):
            stream.step(SERIES[1])

        assert stream.reconnects


@pytest.mark.parametrize("lose", [gone, TcpProxy.stall])
async def test_a_stream_of_asyncio_gives_up_at_last(cluster, lose):
    """The same with asyncio."""
    with TcpProxy(cluster.replicas[0].address) as proxy:
        async with AsyncClient(proxy.address) as client, client.stream(timeout=0.2, reconnect_timeout=0.5) as stream:
            await stream.step(SERIES[0])
            lose(proxy)
            with pytest.raises((lstmserve.Unavailable, lstmserve.DeadlineExceeded)):
                await stream.step(SERIES[1])

            assert stream.reconnects


def test_a_proxy_does_what_it_is_told(cluster):
    """A proxy forwards; cuts, and takes new connections; refuses them; forwards to another server."""
    with TcpProxy(cluster.replicas[0].address) as proxy:
        with Client(proxy.address) as client:
            client.step(SERIES[0])
            before = proxy.forwarded
            proxy.cut()
            client.step(SERIES[0])
            assert before < proxy.forwarded
        proxy.refuse()
        proxy.cut()
        with Client(proxy.address, timeout=2) as client, pytest.raises(lstmserve.Unavailable):
            client.step(SERIES[0])
        proxy.accept()
        with Client(proxy.address) as client:
            assert client.model().name == "sunspots"
