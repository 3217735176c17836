"""The metrics of workers as the supervisor gathers them: all of those that answer, and nothing that is stale."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Gauge

from lstmserve_server.serving.workers import aggregation
from tests.support.live import until


class Worker:
    """A worker's end that answers when it may."""

    def __init__(self):
        self.asking = aggregation.WorkerMetricsClient()
        self.registry = CollectorRegistry()
        self.gauge = Gauge("lstmserve_number", "A number.", registry=self.registry)
        self.asked, self.let_go = threading.Semaphore(0), threading.Event()
        self.let_go.set()

    def answer(self):
        """Begins to answer, as a worker does."""

        def collect():
            self.asked.release()
            self.let_go.wait(30)
            return own()

        own = self.registry.collect
        self.registry.collect = collect
        aggregation.WorkerMetricsServer(os.dup(self.asking.descriptor), self.registry, lambda: True)
        self.asking.inherited()


@pytest.fixture
def workers():
    """Returns two workers, which answer 1 and 2."""
    made = [Worker(), Worker()]
    for number, worker in enumerate(made, 1):
        worker.gauge.set(number)
        worker.answer()
    yield made
    for worker in made:
        worker.let_go.set()
        worker.asking.close()


def numbers(gathered):
    """Returns the number of each worker, and how many are ready."""
    families = {family.name: family for family in gathered.collect()}
    shown = families.get("lstmserve_number")
    found = {} if shown is None else {sample.labels["worker"]: sample.value for sample in shown.samples}
    (ready,) = families["lstmserve_workers_ready"].samples
    return found, ready.value


def test_each_worker_has_its_samples(workers):
    """Told apart by its number; the supervisor's own stand alongside them."""
    gathered = aggregation.AggregatedMetrics({1: workers[0].asking, 2: workers[1].asking}, lambda: 7)

    assert numbers(gathered) == ({"1": 1, "2": 2}, 2)
    families = {family.name: family for family in gathered.collect()}
    assert families["lstmserve_worker_restarts"].samples[0].value == 7
    assert "supervisor" in {sample.labels.get("worker") for family in families.values() for sample in family.samples}


def test_a_worker_that_does_not_answer_is_left_out_and_not_asked_again(workers):
    """However often it is scraped, its pipe holds one question; and what it answers at last is not told as new."""
    gathered = aggregation.AggregatedMetrics({1: workers[0].asking, 2: workers[1].asking}, lambda: 0)
    workers[0].let_go.clear()
    for _ in range(3):
        assert numbers(gathered) == ({"2": 2}, 1)
    assert workers[0].asked.acquire(timeout=30)
    assert not workers[0].asked.acquire(blocking=False)
    workers[0].gauge.set(11)
    workers[0].let_go.set()
    until(workers[0].asking._connection.poll)
    workers[0].gauge.set(12)

    assert numbers(gathered) == ({"1": 12, "2": 2}, 2)


def test_who_comes_while_others_wait_gets_what_they_get(workers):
    """One round for all, rather than one after the other."""
    gathered = aggregation.AggregatedMetrics({1: workers[0].asking}, lambda: 0)
    workers[0].let_go.clear()
    with ThreadPoolExecutor(6) as pool:
        rounds = list(pool.map(lambda _: numbers(gathered), range(6)))

    assert rounds == [({}, 0)] * 6
    assert workers[0].asked.acquire(timeout=30)


def test_a_worker_that_has_gone_is_left_out(workers):
    """Its end of the pipe is closed; nothing is raised."""
    gathered = aggregation.AggregatedMetrics({1: workers[0].asking, 2: workers[1].asking}, lambda: 0)
    workers[0].asking.close()

    assert numbers(gathered) == ({"2": 2}, 1)
