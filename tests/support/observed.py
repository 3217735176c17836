"""Every metric that a server may show, with values that a test sets: what the status page, dashboard and alerts build on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from lstmserve.v1 import shadow_pb2
from lstmserve_server.observability.admin_server import AdminServer
from lstmserve_server.shadow import compare
from lstmserve_server.shadow.metrics import ShadowCollector
from lstmserve_server.shadow.worker import Lag

DIGEST = "8f4b2d1c6e9a7035" * 4
SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Observed:
    """The metrics of a server without the server. A test changes `serving`, counts, and the report of shadow mode."""

    def __init__(self) -> None:
        self.serving = True
        self.registry = CollectorRegistry()
        counter, gauge, histogram = (self._maker(kind) for kind in (Counter, Gauge, Histogram))
        self.in_flight = gauge("calls_in_flight")
        self.calls = counter("calls", "method", "code")
        self.seconds = histogram("call_duration_seconds", "method", buckets=SHORT)
        self.parts = histogram("call_phase_duration_seconds", "phase", buckets=SHORT)
        self.refused = counter("rejections", "reason")
        self.state_refused = counter("state_rejections", "reason")
        self.batch_rows = histogram("batch_rows", buckets=(1, 2, 4, 8, 16, 32, 64))
        self.rows = counter("rows", "model")
        self.steps = counter("steps", "model")
        self.streams = gauge("streams_open")
        self.messages = counter("stream_messages")
        self.model_info = gauge("model_info", "model", "digest", "fingerprint", "kind")
        self.is_serving = gauge("serving")
        self.build = gauge("build_info", "version", "python", "grpc", "numpy")
        self.lag = gauge("event_loop_lag_seconds")
        self.expiry = gauge("certificate_expiry_timestamp_seconds")
        self.reloads = counter("reloads", "file", "result")
        self.caller_calls = counter("caller_calls", "caller")
        self.caller_refused = counter("caller_rejections", "caller", "reason")
        self.is_serving.set_function(lambda: float(self.serving))

    def _maker(self, kind: Any) -> Any:
        def make(name: str, *labels: str, **more: Any) -> Any:
            return kind(f"lstmserve_{name}", "As a server tells it.", labels, registry=self.registry, **more)

        return make

    def model(self, name: str, kind: str = "steps") -> None:
        """Adds a model."""
        self.model_info.labels(name, DIGEST, DIGEST[::-1], kind).set(1)

    def call(
        self, method: str = "Step", code: str = "OK", seconds: float = 0.0004, steps: int = 1, model: str = ""
    ) -> None:
        """Counts a call that has ended."""
        self.calls.labels(method, code).inc()
        self.seconds.labels(method).observe(seconds)
        if code == "OK":
            self.batch_rows.observe(1)
            for part, share in (("queue", 0.1), ("compute", 0.7), ("encode", 0.2)):
                self.parts.labels(part).observe(share * seconds)
            if model:
                self.rows.labels(model).inc()
                self.steps.labels(model).inc(steps)

    def shadow(self, report: shadow_pb2.ShadowReport, queue: int = 0, lag: float = 0.0) -> None:
        """Adds shadow mode with a report."""
        self.registry.register(ShadowCollector(lambda _: report, lambda: Lag(queue, lag)))

    def of_workers(self, *workers: str) -> list[Metric]:
        """Returns the metrics as several workers tell them together: each sample once for every worker."""
        told = []
        for family in self.registry.collect():
            copy = Metric(family.name, family.documentation, family.type, family.unit)
            for sample in family.samples:
                for worker in workers:
                    copy.samples.append(Sample(sample.name, {**sample.labels, "worker": worker}, sample.value))
            told.append(copy)
        return told

    @contextlib.contextmanager
    def listening(self) -> Iterator[AdminServer]:
        """Shows the metrics at a port, as a server does."""
        port = AdminServer("127.0.0.1:0", self.registry, lambda: self.serving)
        try:
            yield port
        finally:
            port.close()


def busy() -> Observed:
    """Returns the metrics of a server that has answered a little of everything."""
    told = Observed()
    told.model("first")
    told.model("second", "sequence")
    told.build.labels("1.2.3", "3.11", "1.78", "2.3").set(1)
    for _ in range(3):
        told.call(seconds=0.0004, model="first")
    told.call("Forward", seconds=0.02, steps=50, model="second")
    told.call("Step", "FAILED_PRECONDITION")
    told.refused.labels("WRONG_FOR_MODEL").inc()
    told.state_refused.labels("OTHER_WEIGHTS").inc()
    told.in_flight.set(7)
    told.streams.set(2)
    told.messages.inc(90)
    told.lag.set(0.25)
    told.expiry.set(4_000_000_000)
    told.reloads.labels("tokens", "failed").inc(2)
    told.caller_calls.labels("hall").inc(5)
    told.caller_refused.labels("hall", "BUSY").inc()
    told.shadow(report("first", "second", discrepant=4), queue=3, lag=1.5)
    return told


def report(*models: str, discrepant: int = 0) -> shadow_pb2.ShadowReport:
    """Returns a report of shadow mode, in which the first model has discrepancies in its second layer."""
    made = shadow_pb2.ShadowReport(sampling_rate=0.1)
    made.reference_process.status = shadow_pb2.REFERENCE_STATUS_UP
    for number, name in enumerate(models):
        model = made.models.add(model=name)
        over = 0 if number else discrepant
        coverage = shadow_pb2.Coverage(
            offered_count=4000, sampled_count=402, compared_count=396, row_step_count=39_600, discrepant_count=over
        )
        model.coverage.CopyFrom(coverage)
        model.coverage.dropped_counts["queue_full"] = 6
        for layer, array in (("lstm", "h"), ("lstm", "c"), ("lstm_1", "h"), ("lstm_1", "c"), ("dense", "output")):
            bad = over if (layer, array) == ("lstm_1", "c") else 0
            totals = model.teacher_forced.add(
                layer=layer,
                array=compare.ARRAY_KINDS[array],
                value_count=1000,
                over_tolerance_count=bad,
                tolerance_ratio=12.5 if bad else 0.042,
            )
            totals.difference_histogram.extend([1000] + [0] * 16)
            totals.ulp_histogram.extend([1000] + [0] * 32)
    return made
