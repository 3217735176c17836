"""The metrics of calls: what Prometheus reads after calls that ended in different ways, and the page about it."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lstmserve import Client, NoSuchModel, WrongForModel
from lstmserve_server import errors, status
from lstmserve_server.call_metrics import CallMetrics
from tests.conftest import SUNSPOTS
from tests.live import QUICK, serving

PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"
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
        with pytest.raises(WrongForModel):
            client.step([0.5, 0.25])
        with Client(server.address, model="other") as other, pytest.raises(NoSuchModel):
            other.step([0.5])
    seen = Scraped(server.metrics)

    assert 3 == seen.calls("Step", "OK")
    assert 1 == seen.calls("Forward", "OK")
    assert 1 == seen.calls("Step", "NOT_FOUND")
    refused = {labels[1][1]: count for labels, count in seen.items() if labels[0] == "lstmserve_refused_total"}
    assert 2 == sum(refused.values())
    assert 1 == refused["NO_SUCH_MODEL"]
    assert 5 == seen["lstmserve_call_seconds_count", ("method", "Step")]
    assert 0 < seen["lstmserve_call_seconds_sum", ("method", "Step")]


def test_calls_in_flight_are_those_under_way(server):
    """An open stream is in flight, is counted when it has ended, and is not timed."""
    with Client(server.address) as client:
        with client.stream() as stream:
            stream.step([0.5])
            during = Scraped(server.metrics)
        client.step([0.5])
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream("/lstmserve.v1.LstmService/StreamSteps")(iter(()))
        assert [] == list(call)
    after = Scraped(server.metrics)

    assert 1 == during[("lstmserve_calls_in_flight",)]
    assert 0 == during.calls("StreamSteps", "OK")
    assert 1 <= after.calls("StreamSteps", "OK") + after.calls("StreamSteps", "CANCELLED")
    assert 0 == after.get(("lstmserve_call_seconds_count", ("method", "StreamSteps")), 0)


def test_every_metric_stands_on_the_page():
    """The page has the metrics that there are, and no others."""
    made = {
        family.name + ("_total" if family.type == "counter" else "")
        for collector in CallMetrics().collectors()
        for family in collector.collect()
    }
    assert made == {row[0] for row in ROWS if row[0].startswith("lstmserve_")}


def test_every_reason_stands_on_the_page():
    """The page has each reason of an error with its code, and no others."""
    made = {kind.reason: status.of(kind("", "text"))[0].name for kind in errors.RequestError.__subclasses__()}

    assert made == {row[0]: row[1] for row in ROWS if len(row) == 3 and row[0].isupper()}
