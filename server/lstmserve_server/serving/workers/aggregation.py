"""Aggregates the metrics of all workers: the supervisor asks each over a pipe, and labels them."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from time import monotonic
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

_PATIENCE: Final = 0.4  # seconds for all workers; one that does not answer is left out
_MOST_BYTES: Final = 16 << 20  # of an answer

LABEL: Final = "worker"
"""The label that tells the workers apart, by their numbers; the supervisor itself is "supervisor"."""


class WorkerMetricsServer:
    """Worker side: answers the supervisor with metrics, in a thread of its own."""

    address = "the supervisor's"

    def __init__(self, descriptor: int, registry: CollectorRegistry, serving: Callable[[], bool]) -> None:  # noqa: ARG002 - it is among the metrics
        """Begins to answer.

        Args:
            descriptor: of the pipe, inherited.
            registry: the metrics.
            serving: as in `AdminServer`.
        """
        self._connection = Connection(descriptor)
        self._registry = registry
        threading.Thread(target=self._answer, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Does nothing: the supervisor closes the pipe."""

    def _answer(self) -> None:
        try:
            while True:
                self._connection.recv_bytes()
                self._connection.send_bytes(generate_latest(self._registry))
        except (EOFError, OSError):  # the supervisor has gone, and so will this process
            return


class WorkerMetricsClient:
    """Supervisor side of the pipe to one worker."""

    def __init__(self) -> None:
        self._connection, self._others = Pipe()
        self._waits = False
        """Whether a request is unanswered: then no other is sent, so that the pipe does not fill."""

    @property
    def descriptor(self) -> int:
        """The worker's end, to be inherited."""
        return self._others.fileno()

    def inherited(self) -> None:
        """Closes our copy of the worker's end, so that the pipe breaks when the worker ends."""
        self._others.close()

    def ask(self) -> None:
        """Asks for the metrics."""
        with contextlib.suppress(EOFError, OSError):
            if self._waits and self._connection.poll():  # an answer that came too late for anyone who asked
                self._connection.recv_bytes(_MOST_BYTES)
                self._waits = False
            if not self._waits:
                self._waits = True
                self._connection.send_bytes(b"")

    def families(self, until: float) -> list[Metric]:
        """Returns the metrics of the worker; none if it has not answered by `until` on the monotonic clock."""
        try:
            if self._connection.poll(max(0.0, until - monotonic())):
                text = self._connection.recv_bytes(_MOST_BYTES)
                self._waits = False
                return list(text_string_to_metric_families(text.decode()))
        except (EOFError, OSError, ValueError):
            return []
        return []

    def close(self) -> None:
        """Closes both ends."""
        self._connection.close()
        self._others.close()


class AggregatedMetrics:
    """Metrics of all workers and of the supervisor, as Prometheus collects them."""

    def __init__(self, workers: Mapping[int, WorkerMetricsClient], restarts: Callable[[], int]) -> None:
        """Creates the collector.

        Args:
            workers: the running workers, by number.
            restarts: how often workers were restarted.
        """
        self._workers = workers
        self._restarts = restarts
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        self._lock = threading.Lock()
        self._found: dict[str, list[Metric]] = {}
        self._since = -math.inf
        """When the workers were asked for these, by the monotonic clock."""

    def collect(self) -> Iterator[Metric]:
        """Yields each metric once, with the samples of all workers."""
        found: dict[str, Metric] = {}
        of_workers = self._of_workers()
        for name, families in [("supervisor", list(self._own.collect())), *of_workers.items()]:
            for family in families:
                merged = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels={**sample.labels, LABEL: name}))
        yield from found.values()
        answered = sum(bool(families) for families in of_workers.values())
        yield GaugeMetricFamily("lstmserve_workers_ready", "Workers that answer.", value=answered)
        yield CounterMetricFamily(
            "lstmserve_worker_restarts", "How often a worker was restarted.", value=self._restarts()
        )

    def _of_workers(self) -> dict[str, list[Metric]]:
        """Returns the metrics of each worker. Concurrent scrapes share one collection."""
        came = monotonic()
        with self._lock:
            if self._since < came:
                self._since = monotonic()
                workers = dict(self._workers)
                for asking in workers.values():
                    asking.ask()
                until = self._since + _PATIENCE
                self._found = {str(number): asking.families(until) for number, asking in workers.items()}
            return self._found
