"""The metrics of all workers in one place: the supervisor asks each over a pipe, and tells them apart by a label."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


_PATIENCE: Final = 2.0  # seconds; a worker that does not answer is left out

LABEL: Final = "worker"
"""The label that tells the workers apart, by their numbers; the supervisor itself is "supervisor"."""


class Answering:
    """A worker's end: answers the supervisor with the metrics, from a thread of its own."""

    address = "the supervisor's"

    def __init__(self, descriptor: int, registry: CollectorRegistry, serving: Callable[[], bool]) -> None:  # noqa: ARG002 - it is among the metrics
        """Begins to answer.

        Args:
            descriptor: of the pipe, inherited.
            registry: the metrics.
            serving: as in `exposition.Port`.
        """
        self._connection = Connection(descriptor)
        self._registry = registry
        threading.Thread(target=self._answer, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Goes on for as long as the process: the supervisor closes the pipe."""

    def _answer(self) -> None:
        try:
            while True:
                number = self._connection.recv_bytes()
                self._connection.send_bytes(number + b"\n" + generate_latest(self._registry))
        except (EOFError, OSError):  # the supervisor has gone, and so will this process
            return


class Asking:
    """The supervisor's end of the pipe to one worker."""

    def __init__(self) -> None:
        self._connection, self._others = Pipe()
        self._asked = 0
        self._lock = threading.Lock()

    @property
    def descriptor(self) -> int:
        """The worker's end, to be inherited."""
        return self._others.fileno()

    def inherited(self) -> None:
        """Lets go of the worker's end, so that it is closed when the worker has ended."""
        self._others.close()

    def families(self) -> list[Metric]:
        """Returns the metrics of the worker; none where it does not answer."""
        with self._lock:
            try:
                self._asked += 1
                self._connection.send_bytes(str(self._asked).encode())
                while self._connection.poll(_PATIENCE):
                    number, _, text = self._connection.recv_bytes().partition(b"\n")
                    if int(number) == self._asked:  # rather than one that came too late for the scrape before
                        return list(text_string_to_metric_families(text.decode()))
            except (EOFError, OSError):
                return []
            return []

    def close(self) -> None:
        """Closes both ends."""
        self._connection.close()
        self._others.close()


class Gathered:
    """The metrics of all workers, and of the supervisor itself, as Prometheus asks for them."""

    def __init__(self, workers: Mapping[int, Asking], restarts: Callable[[], int]) -> None:
        """Gathers.

        Args:
            workers: those that run at the moment, by their numbers.
            restarts: how often workers were started anew.
        """
        self._workers = workers
        self._restarts = restarts
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)

    def collect(self) -> Iterator[Metric]:
        """Yields each metric once, with the samples of all workers."""
        found: dict[str, Metric] = {}
        asked = dict(self._workers)
        everybody = [("supervisor", list(self._own.collect()))]
        everybody += [(str(number), asking.families()) for number, asking in asked.items()]
        for name, families in everybody:
            for family in families:
                merged = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels={**sample.labels, LABEL: name}))
        yield from found.values()
        answered = sum(bool(families) for _, families in everybody[1:])
        yield GaugeMetricFamily("lstmserve_workers_ready", "Workers that answer.", value=answered)
        yield CounterMetricFamily(
            "lstmserve_worker_restarts", "How often a worker was started anew.", value=self._restarts()
        )

    def serving(self) -> bool:
        """Returns whether one of the workers says SERVING."""
        return any(
            sample.value == 1
            for asking in dict(self._workers).values()
            for family in asking.families()
            if family.name == "lstmserve_serving"
            for sample in family.samples
        )
