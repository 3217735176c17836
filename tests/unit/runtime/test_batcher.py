"""Steps that are computed together: the bytes are those of each alone, and no one pays for another."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstmserve import AsyncClient
from lstmserve_server.core.errors import WrongForModel
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.runtime.admission import FairLimiter
from lstmserve_server.runtime.batcher import Batcher, TimedResult, compute_together
from lstmserve_server.runtime.calls import StepCall
from lstmserve_server.runtime.scheduler import Scheduler
from tests.support import builders
from tests.support.live import QUICK, serving
from tests.support.paths import SUNSPOTS

SERVED = builders.served("small", builders.small_model())
MODEL = SERVED.model
FEATURES = MODEL.inputs[0].features[0]


def call(rows, seed, *, known=True, scale=1.0, served=SERVED):
    """Returns a call of one time-step with a state, all of whose numbers differ."""
    state = tuple(
        type(part)(*(builders.numbers(*array.shape, seed=seed + i) for i, array in enumerate(part)))
        for part in served.model.zero_state(rows)
    )
    x = builders.numbers(rows, served.model.inputs[0].features[0], seed=seed, scale=scale)
    return StepCall(served, (x,), state, np.arange(rows) if known else None, as_values=False)


def bytes_of(answer):
    """Returns every byte of an answer."""
    return b"".join(array.tobytes() for array in (*answer.outputs, *(a for part in answer.state for a in part)))


def alone(one):
    """Returns the bytes of a call that is computed by itself."""
    return bytes_of(one.served.model.step(one.x, one.state, one.seen))


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8))
def test_together_or_alone_the_bytes_are_the_same(sizes):
    """Whatever calls are computed together, each gets the bytes that it would get by itself, its steps among them."""
    calls = [call(rows, 10 * i, known=known) for i, (rows, known) in enumerate(sizes)]
    results = compute_together(calls, 0.0)

    assert [alone(one) for one in calls] == [bytes_of(result.answer) for result in results]
    assert [len(one.x) for one in calls] == [len(result.answer.steps) for result in results]


def test_a_row_that_has_seen_nothing_is_not_taken_for_one_that_has():
    """The output of a masked step is zero for rows before their first valid one, and h for others, anyone who they are computed with."""
    masking = LayerSpec("skip", "Masking", {"mask_value": 0.5}, {}, ((None, 3),))
    lstm = builders.lstm_layer(3, 4, return_sequences=True)
    masked = builders.served("masked", builders.model(masking, lstm, features=3))
    calls = [call(2, 10 * i, known=known, served=masked) for i, known in enumerate([False, True, False])]
    calls = [dataclasses.replace(one, inputs=(np.full_like(one.x, 0.5),)) for one in calls]
    results = compute_together(calls, 0.0)

    assert [alone(one) for one in calls] == [bytes_of(result.answer) for result in results]
    assert [result.answer.output.any(axis=1).tolist() for result in results] == [
        [False] * 2,
        [False, True],
        [False] * 2,
    ]


def test_fast_mode_stays_within_its_tolerance():
    """In fast mode the answers move by rounding alone."""
    served = builders.served("fast", builders.small_model(numerics=Numerics.FAST))
    calls = [call(3, 10 * i, served=served) for i in range(7)]
    for one, result in zip(calls, compute_together(calls, 0.0), strict=True):
        expected = served.model.step(one.x, one.state, one.seen)
        np.testing.assert_allclose(result.answer.output, expected.output, rtol=1e-5, atol=1e-6)


def test_nobody_pays_for_a_call_that_overflows():
    """A call whose result is not finite gets its own error, with its own rows, and the others their answers."""
    steep = builders.served("steep", builders.model(builders.lstm_layer(3, 4, inner="relu"), features=3))
    good, bad, other = (call(rows, rows, served=steep) for rows in (2, 3, 1))
    h, c = bad.state[0]
    bad = dataclasses.replace(bad, state=(type(bad.state[0])(h, np.full_like(c, 3e38)),), inputs=(bad.x * 1e38,))
    first, error, last = compute_together([good, bad, other], 0.0)
    with pytest.raises(WrongForModel) as caught:
        steep.model.step(bad.x, bad.state, bad.seen)

    assert [alone(good), alone(other)] == [bytes_of(first.answer), bytes_of(last.answer)]
    assert str(caught.value) == str(error)


def gathered(calls, **options):
    """Returns what came of calls that arrive in one round of the loop, and how many rows were computed together."""
    together = []
    with ThreadPoolExecutor(1) as threads:
        how = {"max_rows": 256, "executor": None, "max_concurrent_batches": 1, **options}
        if how["executor"] == "threads":
            how["executor"] = threads

        async def scenario():
            """Has all calls arrive at once."""
            batcher = Batcher(how["max_rows"], how["executor"], how["max_concurrent_batches"], together.append)
            return await asyncio.gather(*(batcher.compute(one) for one in calls), return_exceptions=True)

        return asyncio.run(scenario()), together


def test_calls_of_one_round_are_one_batch():
    """Calls that are there are computed at once, in the loop or in a thread."""
    calls = [call(2, i) for i in range(5)]
    results, together = gathered(calls)

    assert together == [10]
    assert [alone(one) for one in calls] == [bytes_of(result.answer) for result in results]


def test_a_batch_has_no_more_rows_than_it_may():
    """What does not fit is the next batch; a call with more rows than that is a batch of its own."""
    calls = [call(rows, rows) for rows in (3, 3, 3, 9, 1)]
    results, together = gathered(calls, max_rows=6)

    assert together == [6, 3, 9, 1]
    assert all(isinstance(result, TimedResult) for result in results)


class Held(ThreadPoolExecutor):
    """Threads that begin when they are told to."""

    def __init__(self, count):
        super().__init__(count)
        self.begun = asyncio.Event()
        self.release = Future()

    def submit(self, work, *arguments):
        """Has the work wait for the word."""
        self.begun.set()
        return super().submit(lambda: self.release.result() and work(*arguments))


def test_what_comes_while_a_thread_computes_is_the_next_batch():
    """With one batch at a time the first call is computed alone, and all that come meanwhile together."""
    calls = [call(1, i) for i in range(6)]

    async def scenario():
        """Has one call begin, and others come meanwhile."""
        together = []
        with Held(1) as threads:
            batcher = Batcher(256, threads, 1, together.append)
            first = asyncio.create_task(batcher.compute(calls[0]))
            await threads.begun.wait()
            others = [asyncio.create_task(batcher.compute(one)) for one in calls[1:]]
            await asyncio.sleep(0)  # a round in which they come
            threads.release.set_result(True)
            return await asyncio.gather(first, *others), together

    results, together = asyncio.run(scenario())

    assert together == [1, 5]
    assert [alone(one) for one in calls] == [bytes_of(result.answer) for result in results]


def test_a_batch_is_begun_beside_another_when_it_is_worth_it():
    """While a thread computes, rows wait for more of them, and are begun in another thread when there are enough."""
    calls = [call(1, i) for i in range(5)]

    async def scenario():
        """Has one call begin, and others come one by one."""
        together = []
        with Held(2) as threads:
            batcher = Batcher(256, threads, 2, together.append, min_rows_for_second_thread=4)
            computing = [asyncio.create_task(batcher.compute(calls[0]))]
            await threads.begun.wait()
            for one in calls[1:]:
                before = list(together)
                threads.begun.clear()
                computing.append(asyncio.create_task(batcher.compute(one)))
                await asyncio.sleep(0)  # a round in which it comes, and one in which it is looked at
                await asyncio.sleep(0)
            await threads.begun.wait()
            threads.release.set_result(True)
            return await asyncio.gather(*computing), before, together

    results, before, together = asyncio.run(scenario())

    assert before == [1]
    assert together == [1, 4]
    assert [alone(one) for one in calls] == [bytes_of(result.answer) for result in results]


def test_a_caller_who_has_gone_is_left_out():
    """A call that is cancelled while it waits is not computed, and the batch continues without it."""

    async def scenario():
        """Has one of two callers go."""
        together = []
        batcher = Batcher(256, None, 1, together.append)
        gone, stays = (asyncio.create_task(batcher.compute(call(3, i))) for i in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays, together

    result, together = asyncio.run(scenario())

    assert together == [3]
    assert alone(call(3, 1)) == bytes_of(result.answer)


def test_whoever_is_alone_does_not_wait():
    """After some batches of one call the next is computed where it stands, without a round of the loop."""

    async def scenario():
        """Has someone call alone, again and again."""
        batcher = Batcher(256, None, 1, lambda rows: None)
        for _ in range(5):
            await batcher.compute(call(1, 1))
        coroutine = batcher.compute(call(1, 2))
        with pytest.raises(StopIteration) as ended:  # it never gave way
            coroutine.send(None)
        return ended.value.value

    assert alone(call(1, 2)) == bytes_of(asyncio.run(scenario()).answer)


def test_after_a_while_alone_it_looks_for_others_again():
    """Calls that begin to come together are found, however long there was one alone."""

    async def scenario():
        """Has one caller be alone, and then six."""
        together = []
        batcher = Batcher(256, None, 1, together.append)
        for _ in range(40):
            await batcher.compute(call(1, 1))
        for _ in range(40):
            await asyncio.gather(*(batcher.compute(call(1, i)) for i in range(6)))
        return together

    together = asyncio.run(scenario())

    assert together[:40] == [1] * 40
    assert together[-1] == 6


def test_a_few_callers_do_not_wait_for_one_another():
    """Where no more than three come together again and again, each is computed where it stands, except for a look now and then."""

    async def scenario():
        """Has three callers come together, again and again."""
        together = []
        batcher = Batcher(256, None, 1, together.append)
        for _ in range(64):
            await asyncio.gather(*(batcher.compute(call(1, i)) for i in range(3)))
        return together

    together = asyncio.run(scenario())

    assert sum(together) == 3 * 64
    assert sum(rows == 3 for rows in together[4:]) / len(together) < 0.1
    assert 3 in together[4:]


def test_a_few_long_calls_are_computed_side_by_side():
    """Where few come together, each goes to a thread by itself, and one more waits there, so that no thread is idle."""

    async def scenario():
        """Has one caller be alone for a while, and then five come while nothing is computed."""
        together = []
        with Held(2) as threads:
            batcher = Batcher(256, threads, 2, together.append, min_rows_for_second_thread=64)
            batcher._small_batches = 8
            computing = [asyncio.create_task(batcher.compute(call(1, i))) for i in range(5)]
            await threads.begun.wait()
            before = list(together)
            threads.release.set_result(True)
            return await asyncio.gather(*computing), before, together

    results, before, together = asyncio.run(scenario())

    assert before == [1, 1, 1]
    assert together == [1] * 5
    assert [alone(call(1, i)) for i in range(5)] == [bytes_of(result.answer) for result in results]


def test_a_fault_is_told_to_all_who_wait(monkeypatch):
    """An error of ours ends every call of the batch, rather than leaving one to wait for ever."""
    monkeypatch.setattr(type(MODEL), "step", lambda *_: 1 / 0)
    results, _ = gathered([call(1, i) for i in range(3)], executor="threads")

    assert [ZeroDivisionError] * 3 == [type(result) for result in results]


def test_the_runner_batches_and_counts():
    """Through the runner each call counts its rows, and the histogram those of the batch."""
    metrics = CallMetrics()
    scheduler = Scheduler(FairLimiter(8, "calls are running", "--max-concurrent-calls"), 1, metrics, batch_rows=256)

    async def scenario():
        """Has four calls arrive at once."""
        return await asyncio.gather(*(scheduler.run(call(2, i), str) for i in range(4)))

    asyncio.run(scenario())
    seen = {s.name: s.value for collector in metrics.collectors() for f in collector.collect() for s in f.samples}

    assert (seen["lstmserve_batch_rows_count"], seen["lstmserve_batch_rows_sum"]) == (1, 8)
    assert (seen["lstmserve_rows_total"], seen["lstmserve_steps_total"]) == (8, 8)


@pytest.mark.parametrize("most", ["1", "256"])
def test_many_callers_get_the_bytes_of_one(most):
    """Over the wire, 32 callers at a time get the bytes that each would get alone, with batches and without."""

    async def scenario(address):
        """Has one caller go through its series, and then all."""
        async with AsyncClient(address) as client:
            inputs = builders.numbers(32, 10, 1)

            async def series(xs):
                """Returns the outputs of a series, each step with the state before."""
                state, outputs = None, []
                for x in xs:
                    output, state = await client.step(x, state)
                    outputs.append(output.tobytes())
                return outputs

            one_by_one = [await series(xs) for xs in inputs[:4]]
            return one_by_one, await asyncio.gather(*map(series, inputs))

    with serving(SUNSPOTS, "--max-batch-rows", most, *QUICK) as live:
        one_by_one, together = asyncio.run(scenario(live.address))

    assert one_by_one == together[:4]
