"""Summarizes a server from its metrics alone, as a pure function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Metric

from lstmserve_server.observability.status_page.samples import Buckets, Samples, quantile

Counts = dict[str, float]

_OF_MODELS: Final = ("lstmserve_model_info", "lstmserve_steps_total", "lstmserve_rows_total")


@dataclass(frozen=True)
class Timing:
    """Durations since the server started, in seconds; with the buckets, to compare two moments."""

    p50: float | None
    p99: float | None
    buckets: Buckets


@dataclass(frozen=True)
class Method:
    """The calls of a method that have ended."""

    method: str
    calls: float
    codes: Counts
    seconds: Timing


@dataclass(frozen=True)
class Model:
    """A model that is served."""

    name: str
    kind: str | None
    digest: str | None
    fingerprint: str | None
    serving: bool | None
    steps: float | None


@dataclass(frozen=True)
class Layer:
    """Comparison of one array of a layer with Keras."""

    layer: str
    array: str
    over: float
    margin: float | None


@dataclass(frozen=True)
class Compared:
    """Comparison of a model with Keras, in calls; `steps` are row-steps of its LSTM layers."""

    model: str
    offered: float
    sampled: float
    compared: float
    steps: float
    discrepant: float
    values_over: float
    dropped: Counts
    not_comparable: Counts
    errors: Counts
    layers: list[Layer]


@dataclass(frozen=True)
class Shadow:
    """Shadow mode; with several workers `reference_up` says whether all have their reference."""

    reference_up: bool
    restarts: float | None
    queue: float | None
    lag_seconds: float | None
    models: list[Compared]


@dataclass(frozen=True)
class Reload:
    """Number of reloads of a file, by result."""

    what: str
    outcome: str
    count: float


@dataclass(frozen=True)
class Caller:
    """A caller, as far as the server distinguishes them."""

    caller: str
    calls: float
    refused: Counts


@dataclass(frozen=True)
class Worker:
    """One of several processes."""

    worker: str
    serving: bool | None
    in_flight: float | None
    calls: float
    memory_bytes: float | None
    event_loop_lag_seconds: float | None
    started: float | None


@dataclass(frozen=True)
class Status:
    """The whole summary. Times are seconds since 1970; None and empty are what no metric reports."""

    time: float
    serving: bool
    build: dict[str, str]
    started: float | None
    memory_bytes: float | None
    cpu_seconds: float | None
    open_descriptors: float | None
    most_descriptors: float | None
    event_loop_lag_seconds: float | None
    certificate_expires: float | None
    in_flight: float | None
    streams_open: float | None
    stream_messages: float | None
    rows: float | None
    steps: float | None
    methods: list[Method]
    parts: dict[str, Timing]
    refused: Counts
    state_refused: Counts
    reloads: list[Reload]
    callers: list[Caller]
    models: list[Model]
    shadow: Shadow | None
    workers: list[Worker]


def status(families: Iterable[Metric], *, time: float, serving: bool) -> Status:
    """Returns the summary of a server's metrics.

    Args:
        families: the metrics; those of several workers have the label `worker`.
        time: when they were asked for, in seconds since 1970.
        serving: whether the server as a whole says SERVING; it does not if none of its workers does.
    """
    seen = Samples(families)
    return Status(
        time=time,
        serving=serving and seen.largest("lstmserve_serving") != 0,
        build=_build(seen),
        started=seen.smallest("process_start_time_seconds"),
        memory_bytes=seen.total("process_resident_memory_bytes"),
        cpu_seconds=seen.total("process_cpu_seconds_total"),
        open_descriptors=seen.largest("process_open_fds"),
        most_descriptors=seen.smallest("process_max_fds"),
        event_loop_lag_seconds=seen.largest("lstmserve_event_loop_lag_seconds"),
        certificate_expires=seen.smallest("lstmserve_certificate_expiry_timestamp_seconds") or None,  # 0: there is none
        in_flight=seen.total("lstmserve_calls_in_flight"),
        streams_open=seen.total("lstmserve_streams_open"),
        stream_messages=seen.total("lstmserve_stream_messages_total"),
        rows=seen.total("lstmserve_rows_total"),
        steps=seen.total("lstmserve_steps_total"),
        methods=[_method(seen, name) for name in sorted(seen.labels("method", "lstmserve_calls_total"))],
        parts={
            part: _timing(seen.buckets("lstmserve_call_phase_duration_seconds", phase=part))
            for part in seen.labels("phase", "lstmserve_call_phase_duration_seconds_bucket")
        },
        refused=seen.by("lstmserve_rejections_total", "reason"),
        state_refused=seen.by("lstmserve_state_rejections_total", "reason"),
        reloads=_reloads(seen),
        callers=_callers(seen),
        models=[_model(seen, name) for name in seen.labels("model", *_OF_MODELS)],
        shadow=_shadow(seen),
        workers=[_worker(seen, name) for name in sorted(seen.labels("worker"), key=lambda name: (len(name), name))],
    )


def _build(seen: Samples) -> dict[str, str]:
    for labels, _ in seen.of("lstmserve_build_info"):
        return {name: text for name, text in labels.items() if name != "worker"}
    return {}


def _timing(buckets: Buckets) -> Timing:
    return Timing(quantile(buckets, 0.5), quantile(buckets, 0.99), buckets)


def _method(seen: Samples, name: str) -> Method:
    codes = seen.by("lstmserve_calls_total", "code", method=name)
    return Method(
        name, sum(codes.values()), codes, _timing(seen.buckets("lstmserve_call_duration_seconds", method=name))
    )


def _model(seen: Samples, name: str) -> Model:
    told = next((labels for labels, _ in seen.of("lstmserve_model_info", model=name)), {})
    serving = seen.smallest("lstmserve_serving", model=name)
    return Model(
        name=name,
        kind=told.get("kind"),
        digest=told.get("digest"),
        fingerprint=told.get("fingerprint"),
        serving=None if serving is None else serving == 1,
        steps=seen.total("lstmserve_steps_total", model=name),
    )


def _reloads(seen: Samples) -> list[Reload]:
    return [
        Reload(what, outcome, count)
        for what in seen.labels("file", "lstmserve_reloads_total")
        for outcome, count in seen.by("lstmserve_reloads_total", "result", file=what).items()
    ]


def _callers(seen: Samples) -> list[Caller]:
    calls = seen.by("lstmserve_caller_calls_total", "caller")
    names = seen.labels("caller", "lstmserve_caller_calls_total", "lstmserve_caller_rejections_total")
    return [
        Caller(name, calls.get(name, 0.0), seen.by("lstmserve_caller_rejections_total", "reason", caller=name))
        for name in names
    ]


def _shadow(seen: Samples) -> Shadow | None:
    up = seen.smallest("lstmserve_shadow_reference_up")
    if up is None:
        return None
    return Shadow(
        reference_up=up == 1,
        restarts=seen.total("lstmserve_shadow_reference_restarts_total"),
        queue=seen.total("lstmserve_shadow_queue_calls"),
        lag_seconds=seen.largest("lstmserve_shadow_lag_seconds"),
        models=[_compared(seen, model) for model in seen.labels("model", "lstmserve_shadow_offered_total")],
    )


def _compared(seen: Samples, model: str) -> Compared:
    def count(name: str) -> float:
        return seen.total(f"lstmserve_shadow_{name}_total", model=model) or 0.0

    def by_reason(name: str) -> Counts:
        return seen.by(f"lstmserve_shadow_{name}_total", "reason", model=model)

    return Compared(
        model=model,
        offered=count("offered"),
        sampled=count("sampled"),
        compared=count("compared"),
        steps=count("compared_steps"),
        discrepant=count("discrepant"),
        values_over=count("values_over_tolerance"),
        dropped=by_reason("dropped"),
        not_comparable=by_reason("not_comparable"),
        errors=by_reason("errors"),
        layers=_layers(seen, model),
    )


def _layers(seen: Samples, model: str) -> list[Layer]:
    over: dict[tuple[str, str], float] = {}
    margins: dict[tuple[str, str], float] = {}
    for labels, value in seen.of("lstmserve_shadow_layer_over_tolerance_total", model=model):
        place = labels["layer"], labels["array"]
        over[place] = over.get(place, 0.0) + value
    for labels, value in seen.of("lstmserve_shadow_layer_tolerance_ratio", model=model):
        place = labels["layer"], labels["array"]
        margins[place] = max(margins.get(place, 0.0), value)
    return [Layer(*place, count, margins.get(place)) for place, count in over.items()]


def _worker(seen: Samples, name: str) -> Worker:
    serving = seen.smallest("lstmserve_serving", worker=name)
    return Worker(
        worker=name,
        serving=None if serving is None else serving == 1,
        in_flight=seen.total("lstmserve_calls_in_flight", worker=name),
        calls=seen.total("lstmserve_calls_total", worker=name) or 0.0,
        memory_bytes=seen.total("process_resident_memory_bytes", worker=name),
        event_loop_lag_seconds=seen.largest("lstmserve_event_loop_lag_seconds", worker=name),
        started=seen.smallest("process_start_time_seconds", worker=name),
    )
