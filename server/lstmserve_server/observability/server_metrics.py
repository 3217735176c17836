"""Metrics of the server: version, models, lag of the event loop, certificates and reloads."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from time import monotonic
from typing import Final

from prometheus_client import Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lstmserve_server.core import packages
from lstmserve_server.observability import logs

_LAG_INTERVAL_SECONDS: Final = 1.0  # seconds


class ServerMetrics:
    """Metrics of the server process."""

    def __init__(self, serving: Callable[[], bool]) -> None:
        self._serving = Gauge("lstmserve_serving", "Whether the health of the server is SERVING.", registry=None)
        self._serving.set_function(lambda: float(serving()))
        self._build = Gauge(
            "lstmserve_build_info",
            "The versions of the server, of Python, and of what it depends on most; always 1.",
            ["version", "python", "grpc", "numpy"],
            registry=None,
        )
        numbers = [packages.version_of(name) for name in ("lstmserve", "grpcio", "numpy")]
        self._build.labels(numbers[0], platform.python_version(), *numbers[1:]).set(1)
        self._models = Gauge(
            "lstmserve_model_info",
            "The models that are served, by name, digest and numerics; always 1.",
            ["model", "kind", "digest", "fingerprint"],
            registry=None,
        )
        self._lag = Gauge(
            "lstmserve_event_loop_lag_seconds",
            "How late a timer of the last second fired: how long a call waits before it is looked at.",
            registry=None,
        )
        self._reloads = Counter(
            "lstmserve_reloads",
            "Files that had changed and were read again, by whether they were taken.",
            ["file", "result"],
            registry=None,
        )
        for file in ("certificate", "tokens"):
            for result in ("ok", "failed"):
                self._reloads.labels(file, result)  # Prometheus tells a first one only from a zero before it
        self._expiry = _Expiry()
        self._log = _LogLinesLost()

    def collectors(self) -> Sequence[Collector]:
        """Returns the Prometheus collectors."""
        return self._serving, self._build, self._models, self._lag, self._reloads, self._expiry, self._log

    def set_model(self, name: str, *, causal: bool, digest: str, fingerprint: str) -> None:
        """Records a served model."""
        self._models.labels(name, "steps" if causal else "sequence", digest, fingerprint).set(1)

    def count_reload(self, file: str, *, accepted: bool) -> None:
        """Records a file that was read again."""
        self._reloads.labels(file, "ok" if accepted else "failed").inc()

    def expires(self, when: datetime) -> None:
        """Records when the certificate expires."""
        self._expiry.when = when

    async def watch_event_loop(self) -> None:
        """Measures the lag of the event loop until it is cancelled."""
        while True:
            due = monotonic() + _LAG_INTERVAL_SECONDS
            await asyncio.sleep(_LAG_INTERVAL_SECONDS)
            self._lag.set(monotonic() - due)


class _Expiry:
    """Expiry of the certificate, if the server has one."""

    when: datetime | None = None

    def collect(self) -> Iterator[Metric]:
        """Yields the metric, or none."""
        if self.when is not None:
            yield GaugeMetricFamily(
                "lstmserve_certificate_expiry_timestamp_seconds",
                "When the certificate of the server expires.",
                value=self.when.timestamp(),
            )


class _LogLinesLost:
    """Number of log lines that were dropped."""

    def collect(self) -> Iterator[Metric]:
        """Yields the metric."""
        yield CounterMetricFamily(
            "lstmserve_log_lines_lost",
            "Lines of the log that were lost, as no one read them.",
            value=logs.lines_lost(),
        )
