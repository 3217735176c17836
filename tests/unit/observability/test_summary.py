"""What the status page makes of metrics: a pure function, whatever is absent and however many workers there are."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client import CollectorRegistry, Gauge

from lstmserve.v1 import shadow_pb2
from lstmserve_server.observability.status_page.samples import Samples, quantile
from lstmserve_server.observability.status_page.summary import Reload, status
from tests.support.observed import DIGEST, Observed, busy, report


@pytest.fixture
def observed():
    """Returns the metrics of a server that has answered a little of everything."""
    return busy()


def _status(told, *, serving=True):
    return status(told, time=1000.0, serving=serving)


def test_what_metrics_come_to(observed):
    """Every figure of the page is found among the metrics."""
    found = _status(observed.registry.collect())

    assert (
        found.time,
        found.serving,
        found.build,
    ) == (1000.0, True, {"version": "1.2.3", "python": "3.11", "grpc": "1.78", "numpy": "2.3"})
    assert (
        found.in_flight,
        found.streams_open,
        found.stream_messages,
        found.event_loop_lag_seconds,
        found.certificate_expires,
        found.rows,
        found.steps,
    ) == (7, 2, 90, 0.25, 4e9, 4, 53)
    forward, step = found.methods
    assert (forward.method, forward.calls, forward.codes) == ("Forward", 1, {"OK": 1})
    assert (step.method, step.calls, step.codes) == ("Step", 4, {"OK": 3, "FAILED_PRECONDITION": 1})
    assert 0.00025 < step.seconds.p50 < step.seconds.p99 <= 0.0005
    assert list(found.parts) == ["queue", "compute", "encode"]
    assert (found.refused, found.state_refused) == ({"WRONG_FOR_MODEL": 1}, {"OTHER_WEIGHTS": 1})
    assert [Reload("tokens", "failed", 2)] == found.reloads
    assert [(it.caller, it.calls, it.refused) for it in found.callers] == [("hall", 5, {"BUSY": 1})]
    assert [
        ("first", "steps", DIGEST, DIGEST[::-1], None, 3),
        ("second", "sequence", DIGEST, DIGEST[::-1], None, 50),
    ] == [dataclasses.astuple(model) for model in found.models]
    assert found.workers == []


def test_what_shadow_mode_comes_to(observed):
    """Coverage is told by model, and discrepancies by layer and array."""
    shadow = _status(observed.registry.collect()).shadow
    first, second = shadow.models

    assert (shadow.reference_up, shadow.restarts, shadow.queue, shadow.lag_seconds) == (True, 0, 3, 1.5)
    assert (
        first.offered,
        first.sampled,
        first.compared,
        first.steps,
        first.discrepant,
        first.values_over,
    ) == (4000, 402, 396, 39_600, 4, 4)
    assert (first.dropped, first.not_comparable, first.errors) == ({"queue_full": 6}, {}, {})
    assert [dataclasses.astuple(layer) for layer in (first.layers[0], first.layers[3])] == [
        ("lstm", "h", 0, 0.042),
        ("lstm_1", "c", 4, 12.5),
    ]
    assert (second.model, second.discrepant) == ("second", 0)


def test_a_reference_that_is_down():
    """A reference that is not up is told, and so is one of several."""
    told = Observed()
    down = report("first")
    down.reference_process.status = shadow_pb2.REFERENCE_STATUS_DOWN
    told.shadow(down)

    assert not _status(told.registry.collect()).shadow.reference_up


def test_no_metrics_at_all():
    """A server that tells nothing is shown, with nothing in it."""
    found = dataclasses.asdict(_status([], serving=False))

    assert {name for name, value in found.items() if value not in (None, [], {})} == {"time", "serving"}
    assert not found["serving"]


def test_any_metric_may_be_absent(observed):
    """Whichever family is left out, all others are still told."""
    families = list(observed.registry.collect())
    whole = dataclasses.asdict(_status(families))

    for number, family in enumerate(families):
        found = dataclasses.asdict(_status([*families[:number], *families[number + 1 :]]))
        changed = {name for name in whole if whole[name] != found[name]}
        assert len(changed) <= 2, f"{family.name} changes {changed}"


def test_several_workers(observed):
    """Counts of workers are added up, what is worst of them is told, and each stands for itself too."""
    families = observed.of_workers("1", "2", "10")
    (serving_family,) = [family for family in families if family.name == "lstmserve_serving"]
    serving_family.samples[1] = serving_family.samples[1]._replace(value=0.0)
    found = _status(families)

    assert (
        found.serving,
        found.in_flight,
        found.event_loop_lag_seconds,
        found.methods[1].calls,
    ) == (True, 21, 0.25, 12)
    assert list(found.build) == ["version", "python", "grpc", "numpy"]
    assert [(it.worker, it.serving, it.in_flight, it.calls) for it in found.workers] == [
        ("1", True, 7, 5),
        ("2", False, 7, 5),
        ("10", True, 7, 5),
    ]
    assert (found.shadow.models[0].layers[3].over, found.shadow.models[0].layers[0].margin) == (12, 0.042)


def test_no_worker_serves(observed):
    """A server does not serve if none of its workers does, whatever else is said of it."""
    observed.serving = False

    assert not _status(observed.of_workers("1", "2")).serving


def test_a_number_that_json_does_not_know():
    """NaN and infinity count as nothing told; without a certificate there is none that expires."""
    registry = CollectorRegistry()
    Gauge("lstmserve_event_loop_lag_seconds", "Text.", registry=registry).set(float("nan"))
    Gauge("lstmserve_calls_in_flight", "Text.", registry=registry).set(float("inf"))
    Gauge("lstmserve_certificate_expiry_timestamp_seconds", "Text.", registry=registry).set(0)
    found = _status(registry.collect())

    assert (found.event_loop_lag_seconds, found.in_flight, found.certificate_expires) == (None, None, None)


QUANTILES = [
    ([], 0.5, None),
    ([(1.0, 0.0), (None, 0.0)], 0.5, None),
    ([(1.0, 4.0), (2.0, 4.0), (None, 4.0)], 0.5, 0.5),
    ([(1.0, 0.0), (3.0, 4.0), (None, 4.0)], 0.25, 1.5),
    ([(1.0, 1.0), (2.0, 3.0), (None, 4.0)], 0.5, 1.5),
    ([(1.0, 1.0), (2.0, 3.0), (None, 4.0)], 0.99, 2.0),
]


@pytest.mark.parametrize(("buckets", "share", "expected"), QUANTILES)
def test_a_quantile_is_estimated(buckets, share, expected):
    """A quantile lies within its bucket as Prometheus has it; above the last bound it is the last bound."""
    assert quantile(buckets, share) == expected


def test_buckets_are_ordered_by_their_bounds():
    """The buckets of a histogram are in order of their bounds, as numbers, over all methods."""
    told = Observed()
    told.call("Step", seconds=3)
    told.call("Forward", seconds=0.0002)
    buckets = Samples(told.registry.collect()).buckets("lstmserve_call_duration_seconds")

    assert [*buckets[:2], *buckets[-3:]] == [(0.0001, 0), (0.00025, 1), (5.0, 2), (10.0, 2), (None, 2)]
