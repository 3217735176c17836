"""What shadow mode takes and gives back: bytes of its queue, and callers that wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from lstmserve.v1 import shadow_pb2
from lstmserve_server.shadow import keras_shadow
from lstmserve_server.shadow.reference_process import Reply
from lstmserve_server.shadow.worker import ComparisonJob, ComparisonWorker

PATIENCE = 30


def made_pump(compare, *, max_jobs=4, max_bytes=100):
    """Returns a pump whose reference compares by a function, and an event that says that it is up."""
    up = threading.Event()
    reference = MagicMock(pid=1)
    reference.__enter__.return_value = reference
    reference.ask.side_effect = compare
    events = MagicMock(reference_up=lambda *_: up.set(), wants_details=lambda reply: False)
    pump = ComparisonWorker(lambda: reference, events, max_jobs=max_jobs, max_bytes=max_bytes)
    assert up.wait(PATIENCE)
    return pump, events


def work(size, told):
    """Returns work of some bytes."""
    return ComparisonJob("model", size, lambda: SimpleNamespace(to_bytes=lambda: b""), 0.0, told)


REPLY = Reply(shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_AGREES), {"x": np.zeros(1)})


def test_bytes_are_given_back_as_work_is_taken():
    """More work than the queue holds in all, one piece after the other, is all compared."""
    compared = threading.Semaphore(0)
    pump, events = made_pump(lambda *_, **__: REPLY)
    events.compared.side_effect = lambda *_: compared.release()
    for _ in range(10):
        assert pump.offer(work(60, None)) == ""
        assert compared.acquire(timeout=PATIENCE)
    pump.stop()

    assert pump._bytes == 0


def test_what_does_not_fit_is_refused_and_what_fits_is_not():
    """Exactly as many bytes and as many calls as there may be, and one more of each."""
    held, let_go = threading.Event(), threading.Event()

    def compare(*_, **__):
        held.set()
        assert let_go.wait(PATIENCE)
        return REPLY

    pump, _ = made_pump(compare, max_jobs=2, max_bytes=100)
    assert pump.offer(work(100, None)) == ""  # it is taken off the queue at once
    assert held.wait(PATIENCE)
    assert pump.offer(work(101, None)) == "queue_full"
    assert pump.offer(work(99, None)) == ""
    assert pump.offer(work(2, None)) == "queue_full"
    assert pump.offer(work(1, None)) == ""
    assert pump.offer(work(0, None)) == "queue_full"
    assert pump.lag.calls == 2
    let_go.set()
    pump.stop()


def test_a_reference_that_is_lost_gives_the_queue_back():
    """What waited is told of as dropped, and nothing of it is counted any more."""
    begun, let_go, down = threading.Event(), threading.Event(), threading.Event()

    def compare(*_, **__):
        begun.set()
        assert let_go.wait(PATIENCE)
        raise RuntimeError("the way to it is lost")

    pump, events = made_pump(compare)
    events.failed.side_effect = lambda *_: down.set()
    for _ in range(3):
        assert pump.offer(work(10, None)) == ""
        assert begun.wait(PATIENCE)
    let_go.set()
    assert down.wait(PATIENCE)
    pump.stop()

    assert (pump._bytes, len(pump._waiting)) == (0, 0)
    assert pump.offer(work(1, None)) == "stopping"


@pytest.fixture
async def shadow(monkeypatch):
    """Returns a shadow whose pump keeps what it is offered, and says whether that is refused."""
    pump = MagicMock()
    pump.offer.return_value = ""
    monkeypatch.setattr(keras_shadow, "ComparisonWorker", lambda *_, **__: pump)
    settings = MagicMock(mode="all", bundles=None, queue_bytes=1000, wait_seconds=30.0)
    made = keras_shadow.KerasShadow(settings, [])
    made._sizes, made._report = {"m": 1}, MagicMock()
    made.pump, made.settings = pump, settings
    return made


def asking(compare=True):
    """Returns a call that asks for its comparison."""
    served = SimpleNamespace(name="m", model=SimpleNamespace(dtype=np.dtype(np.float32)))
    return SimpleNamespace(served=served, x=[0], time=1, recording=MagicMock(), compare=compare)


@pytest.mark.parametrize("ending", ["compared", "refused", "cancelled", "timed_out", "stopping"])
async def test_a_caller_that_waited_is_remembered_no_more(shadow, ending):
    """However the wait ends."""
    shadow.pump.offer.return_value = "queue_full" if ending == "refused" else ""
    shadow.settings.wait_seconds = 0.01 if ending == "timed_out" else 30.0
    waiting = asyncio.create_task(shadow.offer(asking(), MagicMock(), "Step"))
    await asyncio.sleep(0)
    assert len(shadow._awaited) == (ending != "refused")
    if ending == "compared":
        offered = shadow.pump.offer.call_args.args[0]
        await asyncio.to_thread(offered.tell, REPLY.comparison)
    elif ending == "cancelled":
        waiting.cancel()
    elif ending == "stopping":
        shadow.release()
    with contextlib.suppress(asyncio.CancelledError):
        found = await waiting
        assert found.reason == {"compared": "", "refused": "queue_full"}.get(ending, ending)
    assert shadow._awaited == set()


async def test_who_asks_for_nothing_does_not_wait(shadow):
    """A call that is compared by chance is answered at once."""
    assert await shadow.offer(asking(compare=False), MagicMock(), "Step") is None
    assert shadow.pump.offer.call_args.args[0].tell is None
    assert shadow._awaited == set()


async def test_a_trace_counts_with_what_it_holds(shadow):
    """Rows, time-steps, numbers of each step, and their size."""
    shadow._sizes = {"m": 7}
    call = asking(compare=False)
    call.x, call.time = [0] * 3, 5
    await shadow.offer(call, MagicMock(), "Forward")

    assert shadow.pump.offer.call_args.args[0].bytes == 3 * 5 * 7 * 4
