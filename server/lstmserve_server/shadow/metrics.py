"""Exports the shadow report to Prometheus, with few labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from lstmserve import report_text
from lstmserve.v1 import shadow_pb2
from lstmserve_server.shadow.worker import Lag

_DIFFERENCE_BOUNDS: Final = ("0", *(f"1e{power:+03d}" for power in range(-12, 3)), "+Inf")
_ULP_BOUNDS: Final = ("0", *(str(2**power - 1) for power in range(1, 32)), "+Inf")


class ShadowCollector:
    """Prometheus collector of the report."""

    def __init__(self, report: Callable[[str], shadow_pb2.ShadowReport], lag: Callable[[], Lag]) -> None:
        self._report = report
        self._lag = lag

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics of shadow mode."""
        report = self._report("")
        yield from _of_calls(report.models)
        yield from _of_reasons(report.models)
        yield from _of_differences(report.models)
        yield from _of_layers(report.models)
        up = report.reference_process.status == shadow_pb2.REFERENCE_STATUS_UP
        yield GaugeMetricFamily(
            "lstmserve_shadow_reference_up", "Whether the process that computes with Keras is up.", value=int(up)
        )
        yield CounterMetricFamily(
            "lstmserve_shadow_reference_restarts",
            "How often the process that computes with Keras was restarted.",
            value=report.reference_process.restart_count,
        )
        lag = self._lag()
        yield GaugeMetricFamily("lstmserve_shadow_queue_calls", "Calls that wait to be compared.", value=lag.calls)
        yield GaugeMetricFamily(
            "lstmserve_shadow_lag_seconds", "How long the oldest of them has waited.", value=lag.seconds
        )
        bundles = CounterMetricFamily(
            "lstmserve_shadow_bundles", "Bundles for replay, by whether they could be written.", labels=["written"]
        )
        bundles.add_metric(["yes"], report.written_bundle_count)
        bundles.add_metric(["no"], report.failed_bundle_count)
        yield bundles


def _of_calls(models: Sequence[shadow_pb2.ModelReport]) -> Iterator[Metric]:
    for name, text, attribute in (
        ("offered", "Calls that were answered while shadow mode was on.", "offered_count"),
        ("sampled", "Calls that were to be compared with Keras.", "sampled_count"),
        ("compared", "Calls that were compared with Keras.", "compared_count"),
        ("compared_steps", "Row-steps of LSTM layers that were compared with Keras.", "row_step_count"),
        ("discrepant", "Calls over tolerance, or with an outlier unit.", "discrepant_count"),
    ):
        family = CounterMetricFamily(f"lstmserve_shadow_{name}", text, labels=["model"])
        for model in models:
            family.add_metric([model.model], getattr(model.coverage, attribute))
        yield family


def _of_reasons(models: Sequence[shadow_pb2.ModelReport]) -> Iterator[Metric]:
    for name, text, attribute in (
        ("dropped", "Sampled calls that were not compared, by reason.", "dropped_counts"),
        ("not_comparable", "Sampled calls that cannot be compared, by reason.", "not_comparable_counts"),
        ("errors", "Sampled calls whose comparison failed, by reason.", "error_counts"),
    ):
        family = CounterMetricFamily(f"lstmserve_shadow_{name}", text, labels=["model", "reason"])
        for model in models:
            for reason, count in sorted(getattr(model.coverage, attribute).items()):
                family.add_metric([model.model, reason], count)
        yield family


def _of_differences(models: Sequence[shadow_pb2.ModelReport]) -> Iterator[Metric]:
    over = CounterMetricFamily(
        "lstmserve_shadow_values_over_tolerance", "Numbers over tolerance.", labels=["model", "array"]
    )
    apart = HistogramMetricFamily(
        "lstmserve_shadow_difference",
        "Absolute differences of our numbers and those of Keras from the same x, h and c; a bound a decade.",
        labels=["model", "array"],
    )
    ulp = HistogramMetricFamily(
        "lstmserve_shadow_ulp",
        "The same in units in the last place; a bound a power of two.",
        labels=["model", "array"],
    )
    for model in models:
        for kind, array in report_text.ARRAY_NAMES.items():
            totals = [totals for totals in model.teacher_forced if totals.array == kind]
            if not totals:
                continue
            labels = [model.model, array]
            over.add_metric(labels, sum(t.over_tolerance_count for t in totals))
            summed = sum(t.mean_absolute * t.value_count for t in totals)
            apart.add_metric(labels, _buckets(_DIFFERENCE_BOUNDS, [t.difference_histogram for t in totals]), summed)
            ulp.add_metric(labels, _buckets(_ULP_BOUNDS, [t.ulp_histogram for t in totals]), None)
    yield from (over, apart, ulp)


def _of_layers(models: Sequence[shadow_pb2.ModelReport]) -> Iterator[Metric]:
    labels = ["model", "layer", "array"]
    over = CounterMetricFamily(
        "lstmserve_shadow_layer_over_tolerance", "Numbers over tolerance, by layer.", labels=labels
    )
    margin = GaugeMetricFamily(
        "lstmserve_shadow_layer_tolerance_ratio",
        "Largest part of the tolerance that a difference took since the server started; over 1 it is a discrepancy.",
        labels=labels,
    )
    for model in models:
        for totals in model.teacher_forced:
            over.add_metric(
                [model.model, totals.layer, report_text.array_name(totals.array)], totals.over_tolerance_count
            )
            margin.add_metric([model.model, totals.layer, report_text.array_name(totals.array)], totals.tolerance_ratio)
    yield from (over, margin)


def _buckets(bounds: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, float]]:
    """Returns how many numbers are up to each bound."""
    together = [sum(column) for column in zip(*counts, strict=True)]
    return list(zip(bounds, itertools.accumulate(together), strict=True))
