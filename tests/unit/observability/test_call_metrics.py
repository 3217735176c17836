"""The metrics of calls: what Prometheus reads after calls that ended in different ways, and the page about it."""

from __future__ import annotations

import datetime as dt
import os
import signal
import urllib.request

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lstmserve import Client, FailedPrecondition, InvalidArgument, NotFound, tensors
from lstmserve.v1 import lstm_pb2, lstm_pb2_grpc
from lstmserve_server.core import errors
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.observability.server_metrics import ServerMetrics
from lstmserve_server.rpc import status
from lstmserve_server.serving.workers import aggregation
from tests.support.live import QUICK, serving, until
from tests.support.paths import ROOT, SUNSPOTS

PAGE = ROOT / "docs" / "metrics.md"
ROWS = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]


class Scraped(dict):
    """The samples of /metrics by name and labels."""

    def __init__(self, listen):
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=10) as response:
            text = response.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self[sample.name, *sorted(sample.labels.items())] = sample.value

    def calls(self, method, code):
        """Returns how many calls of a method ended with a code."""
        return self.get(("lstmserve_calls_total", ("code", code), ("method", method)), 0)


def settled(listen):
    """Returns the samples when no call is under way: a refused caller hears of it just before it is counted."""

    def none_under_way():
        seen = Scraped(listen)
        return seen if seen[("lstmserve_calls_in_flight",)] == 0 else None

    return until(none_under_way)


@pytest.fixture
def server():
    """Returns a server with metrics."""
    with serving(SUNSPOTS, "--metrics", "127.0.0.1:0", *QUICK) as live:
        live.metrics = next(entry["listen"] for entry in live.log if entry["event"] == "metrics")
        yield live


def test_calls_are_counted_by_how_they_ended(server):
    """Every call is counted once, by method and code, a refusal by its reason too, and what ends in time is timed."""
    with Client(server.address) as client:
        for _ in range(3):
            client.step([0.5])
        client.forward([[0.5], [0.25]])
        with pytest.raises(FailedPrecondition):
            client.step([0.5, 0.25])
        with Client(server.address, model="other") as other, pytest.raises(NotFound):
            other.step([0.5])
    seen = settled(server.metrics)

    assert seen.calls("Step", "OK") == 3
    assert seen.calls("Forward", "OK") == 1
    assert seen.calls("Step", "NOT_FOUND") == 1
    refused = {labels[1][1]: count for labels, count in seen.items() if labels[0] == "lstmserve_rejections_total"}
    assert sum(refused.values()) == 2
    assert refused["NO_SUCH_MODEL"] == 1
    assert seen["lstmserve_call_duration_seconds_count", ("method", "Step")] == 5
    assert seen["lstmserve_call_duration_seconds_sum", ("method", "Step")] > 0


def test_a_call_that_its_caller_cancels_is_counted_so(server):
    """A call that its caller does not wait for any more ends as CANCELLED, and nothing is refused."""
    x = tensors.encode(np.full((64, 5000, 1), 0.5, np.float32))
    with grpc.insecure_channel(server.address) as channel:
        call = lstm_pb2_grpc.LstmServiceStub(channel).Forward.future(lstm_pb2.ForwardRequest(x=x))
        until(lambda: Scraped(server.metrics)[("lstmserve_calls_in_flight",)])
        call.cancel()
        seen = settled(server.metrics)

    assert {labels[1][1]: count for labels, count in seen.items() if labels[0] == "lstmserve_calls_total"} == {
        "CANCELLED": 1
    }
    assert not [labels for labels in seen if labels[0] == "lstmserve_rejections_total"]


def test_what_was_computed_is_counted(server):
    """Rows, time-steps and the parts of calls are counted, those of streams too, and refused states by what is wrong."""
    with Client(server.address) as client:
        _, state = client.forward([[[0.5], [0.25], [0.125]], [[1], [2], [3]]])
        client.step([[0.5], [0.25]], state)
        with client.stream() as stream:
            stream.step([0.5])
        with pytest.raises(InvalidArgument):
            client.step([0.5], state)
    seen = settled(server.metrics)

    assert seen["lstmserve_rows_total", ("model", "sunspots")] == 2 + 2 + 1
    assert seen["lstmserve_steps_total", ("model", "sunspots")] == 6 + 2 + 1
    assert seen[("lstmserve_batch_rows_count",)] == 3
    assert seen["lstmserve_call_phase_duration_seconds_count", ("phase", "compute")] == 3
    assert seen["lstmserve_call_phase_duration_seconds_count", ("phase", "encode")] == 2
    assert seen["lstmserve_state_rejections_total", ("reason", "h.shape")] == 1
    assert seen[("lstmserve_stream_messages_total",)] >= 2
    assert seen[("lstmserve_streams_open",)] == 0


def test_the_server_shows_what_it_is(server):
    """Its health, its versions and its models are among the metrics."""
    with Client(server.address) as client:
        digest = client.model().digest
    seen = Scraped(server.metrics)

    assert seen[("lstmserve_serving",)] == 1
    assert [digest] == [dict(key[1:])["digest"] for key in seen if key[0] == "lstmserve_model_info"]
    assert [grpc.__version__] == [dict(key[1:])["grpc"] for key in seen if key[0] == "lstmserve_build_info"]


def test_workers_are_told_apart_on_one_port():
    """One port shows the metrics of all workers, each with its number, and still does when one was killed."""
    with serving(SUNSPOTS, "--metrics", "127.0.0.1:0", "--workers", "2", *QUICK, until="all_workers_ready") as live:
        metrics = next(entry["listen"] for entry in live.log if entry["event"] == "metrics")
        seen = Scraped(metrics)
        with urllib.request.urlopen(f"http://{metrics}/healthz", timeout=10) as response:
            health = response.read()
        os.kill(next(entry["pid"] for entry in live.log if entry["event"] == "worker_ready"), signal.SIGKILL)
        live.wait_for("worker_ready")
        after = Scraped(metrics)

    workers = {dict(key[1:])["worker"] for key in seen if key[0] == "lstmserve_serving"}
    assert workers == {"1", "2"}
    assert {dict(key[1:])["worker"] for key in seen if key[0] == "process_resident_memory_bytes"} == {
        "1",
        "2",
        "supervisor",
    }
    assert health == b"SERVING\n"
    assert (seen[("lstmserve_workers_ready",)], seen[("lstmserve_worker_restarts_total",)]) == (2, 0)
    assert (after[("lstmserve_workers_ready",)], after[("lstmserve_worker_restarts_total",)]) == (2, 1)


def test_calls_in_flight_are_those_under_way(server):
    """An open stream is in flight, is counted when it has ended, and is not timed."""
    with Client(server.address) as client:
        with client.stream() as stream:
            stream.step([0.5])
            during = Scraped(server.metrics)
        client.step([0.5])
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream("/lstmserve.v1.LstmService/StreamSteps")(iter(()))
        assert list(call) == []
    after = settled(server.metrics)

    assert during[("lstmserve_calls_in_flight",)] == 1
    assert during.calls("StreamSteps", "OK") == 0
    assert after.calls("StreamSteps", "OK") + after.calls("StreamSteps", "CANCELLED") >= 1
    assert after.get(("lstmserve_call_duration_seconds_count", ("method", "StreamSteps")), 0) == 0


def names(families):
    """Returns the names of metrics as Prometheus shows them."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}


def test_every_metric_stands_on_the_page():
    """The page has the metrics that there are, and no others."""
    server = ServerMetrics(lambda: True)
    server.expires(dt.datetime.now(dt.UTC))
    made = [*CallMetrics().collectors(), *server.collectors(), aggregation.AggregatedMetrics({}, lambda: 0)]

    shown = names(family for collector in made for family in collector.collect())
    assert {name for name in shown if name.startswith("lstmserve_")} == {
        row[0] for row in ROWS if row[0].startswith("lstmserve_")
    }


def test_every_reason_stands_on_the_page():
    """The page has each reason of an error with its code, and no others."""
    made = {
        kind.reason: status.status_of(kind("", "text"))[0].name
        for kind in (*errors.RequestError.__subclasses__(), *errors.WrongForModel.__subclasses__())
    }

    assert made == {row[0]: row[1] for row in ROWS if len(row) == 3 and row[0].isupper()}
