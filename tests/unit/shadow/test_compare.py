"""How two arrays differ: in absolute and relative terms, in units in the last place, and against a tolerance."""

from __future__ import annotations

import asyncio
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lstmserve.v1 import shadow_pb2
from lstmserve_server.core.errors import Overloaded
from lstmserve_server.loading import reader
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.recording import Recording
from lstmserve_server.runtime.calls import ForwardCall
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.shadow import captured_call as cases
from lstmserve_server.shadow import compare, worker
from lstmserve_server.shadow.compare import Differences, Tolerances, ulp_distance
from lstmserve_server.shadow.reference.outlier_units import UnitStats
from lstmserve_server.shadow.reference_process import CaseFailed, ReferenceLost, Reply
from lstmserve_server.shadow.report import ShadowReport
from lstmserve_server.shadow.subscribers import MAX_SUBSCRIBERS, Subscribers
from tests.integration.test_shadow import MODEL

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def _array(*values, dtype=np.float32):
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("expected", "a", "b"),
    [
        (0, 1.0, 1.0),
        (0, 0.0, -0.0),
        (1, 1.0, np.nextafter(np.float32(1), np.float32(2))),
        (2, np.float32(-1e-45), np.float32(1e-45)),
        (8388608, 1.0, 2.0),
        (2139095039 * 2, np.finfo(np.float32).min, np.finfo(np.float32).max),
    ],
)
def test_units_in_the_last_place(expected, a, b):
    """The distance counts the floats between two numbers, through zero too, which is one whatever its sign."""
    assert ulp_distance(_array(a), _array(b)).tolist() == [expected]
    assert ulp_distance(_array(b), _array(a)).tolist() == [expected]


@given(FLOATS, st.integers(0, 200))
def test_as_many_units_as_steps(value, steps):
    """As many steps to the next float as are made are the distance."""
    there = here = np.float32(value)
    made = 0
    for _ in range(steps):
        with np.errstate(over="ignore"):
            following = np.nextafter(there, np.float32(np.inf))
        if not np.isfinite(following):
            break
        there, made = following, made + 1
    assert made == ulp_distance(_array(here), _array(there))[0]


def test_the_farthest_doubles():
    """Of float64 the largest distance is more than the contract holds, and is shown as the most that it does."""
    found = Differences("layer", "h")
    largest = np.finfo(np.float64).max
    found.add(_array(-largest, dtype=np.float64), _array(largest, dtype=np.float64), 1.0)
    assert found.message().max_ulp == 2**63 - 1


@given(hnp.arrays(np.float32, 7, elements=FLOATS), hnp.arrays(np.float32, 7, elements=FLOATS))
def test_the_measures_are_those_of_the_definition(ours, theirs):
    """Largest and mean, absolute and relative, are what their definitions say; the histograms count every number once."""
    found = Differences("layer", "c")
    found.add(ours, theirs, 1e-5)
    message = found.message()
    absolute = np.abs(ours.astype(float) - theirs)
    relative = np.array([d / abs(t) if t else 0.0 for d, t in zip(absolute, theirs.astype(float), strict=True)])
    assert absolute.max() == message.max_absolute
    assert message.mean_absolute == pytest.approx(absolute.mean())
    assert message.max_relative == pytest.approx(relative.max())
    assert (absolute > 1e-5 * np.maximum(1, np.abs(theirs.astype(float)))).sum() == message.over_tolerance_count
    assert sum(message.difference_histogram) == sum(message.ulp_histogram) == message.value_count == 7


def test_nan_and_infinity():
    """NaN or infinity on one side alone is a mismatch and over any tolerance; on both sides it is none."""
    found = Differences("layer", "h")
    inf, nan = np.inf, np.nan
    margins = found.add(_array(nan, nan, inf, inf, 1, inf), _array(nan, 1, inf, -inf, inf, 1), 1e30)
    assert [0, inf, 0, inf, inf, inf] == margins.tolist()
    assert (found.nan_mismatches, found.infinity_mismatches, found.over_tolerance_count) == (1, 3, 4)


def test_rounding_is_no_discrepancy():
    """What rounding can do to sums of this size is within tolerance, however strict that is."""
    ours, theirs = _array(1, 1), _array(1.001, 1.003)
    assert (Differences("", "h").add(ours, theirs, 1e-9, 0.002) > 1).tolist() == [False, True]


def test_tolerances_follow_the_type():
    """A tolerance is as much smaller in float64 as its rounding is, and larger where there is no bound."""
    tolerances = Tolerances(h=1e-5, c=2e-5, unbounded=1e-3)
    single, double = np.dtype(np.float32), np.dtype(np.float64)
    assert tolerances.of("h", single, bounded=True) == 1e-5
    assert tolerances.of("output", single, bounded=True) == 1e-5
    assert tolerances.of("c", single, bounded=True) == 2e-5
    assert tolerances.of("c", single, bounded=False) == 1e-3
    assert tolerances.of("c", double, bounded=True) == pytest.approx(2e-5 * 2.0**-29)


@given(hnp.arrays(np.float32, 12, elements=FLOATS), hnp.arrays(np.float32, 12, elements=FLOATS), st.integers(1, 11))
def test_sums_of_parts_are_the_whole(ours, theirs, cut):
    """Two parts merged are what the whole is."""
    whole = Differences("", "h")
    whole.add(ours, theirs, 1e-5)
    total = shadow_pb2.DifferenceStats()
    for part in (slice(None, cut), slice(cut, None)):
        found = Differences("", "h")
        found.add(ours[part], theirs[part], 1e-5)
        compare.merge(total, found.message())
    expected = whole.message()
    assert total.mean_absolute == pytest.approx(expected.mean_absolute)
    assert total.mean_relative == pytest.approx(expected.mean_relative)
    for name in ("value_count", "max_absolute", "max_relative", "max_ulp", "over_tolerance_count", "tolerance_ratio"):
        assert getattr(expected, name) == getattr(total, name)
    assert list(expected.difference_histogram) == list(total.difference_histogram)
    assert list(expected.ulp_histogram) == list(total.ulp_histogram)


def _tallied(tally, steps, wrong=None, by=0.0, seed=0):
    noise = np.random.default_rng(seed).normal(size=(steps, 8)) * 1e-8
    if wrong is not None:
        noise[:, wrong] += by
    return tally.add(noise, np.full((steps, 8), 2e-6))


def test_an_odd_unit_is_found():
    """A unit that is always off by a little is found after a hundred steps, and no other."""
    tally = UnitStats(8, float(np.finfo(np.float32).eps))
    assert _tallied(tally, 99, wrong=5, by=1e-6) == []
    (odd,) = _tallied(tally, 1, wrong=5, by=1e-6)
    assert (odd.unit, odd.steps) == (5, 100)
    assert odd.rms == pytest.approx(1e-6, rel=0.1)
    assert odd.ratio_to_median > 50


def test_rounding_makes_no_unit_odd():
    """Rounding alone makes no unit odd, nor does a unit whose sums are larger and so round more."""
    tally = UnitStats(8, float(np.finfo(np.float32).eps))
    assert _tallied(tally, 5000) == []
    noise = np.random.default_rng(1).normal(size=(1000, 8)) * 1e-8
    noise[:, 2] *= 100
    roundings = np.full((1000, 8), 2e-6)
    roundings[:, 2] *= 100
    assert UnitStats(8, float(np.finfo(np.float32).eps)).add(noise, roundings) == []


def test_units_that_move_among_saturated_ones_are_not_odd():
    """Where most units are saturated, and agree to the last bit, those that still round are not odd."""
    noise = np.zeros((1000, 8))
    noise[:, [2, 6]] = np.random.default_rng(1).normal(size=(1000, 2)) * 2e-5
    roundings = np.full((1000, 8), 1e-3)  # of large sums
    assert UnitStats(8, float(np.finfo(np.float32).eps)).add(noise, roundings) == []


class _Reference:
    """A reference whose second answer to a case is another one."""

    def __init__(self, second):
        self.second = second

    def ask(self, case, *, detailed, again):
        assert detailed
        assert again
        if isinstance(self.second, Exception):
            raise self.second
        return self.second


@pytest.mark.parametrize(
    ("second", "arrays", "lost"),
    [
        (Reply(shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_AGREES), {"more": 2}), {"first": 1, "more": 2}, False),
        (CaseFailed("no"), {"first": 1}, False),
        (ReferenceLost("timed_out", "late"), {"first": 1}, True),
    ],
)
def test_what_was_found_is_kept(second, arrays, lost):
    """When the details of a discrepancy are asked for, what was found before stays, whatever comes of it."""
    first = Reply(shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_DIFFERS), {"first": 1})
    reply, error = worker._with_details(_Reference(second), b"", first)
    assert reply.comparison.verdict == shadow_pb2.VERDICT_DIFFERS
    assert arrays == reply.arrays
    assert lost == (error is not None)


@pytest.mark.parametrize(
    ("expected", "apart", "sensitivity"),
    [(True, 1e-4, 1e-7), (False, 2e-3, 1e-7), (True, 2e-3, 1e-4), (True, -1, -1), (False, 0.5, 1e-3)],
)
def test_whole_models_are_apart_as_far_as_they_are_sensitive(expected, apart, sensitivity):
    """Whole models that are apart are wired differently only beyond what rounding makes of them."""
    witness = shadow_pb2.ReferenceModel(whole_model_difference=apart, whole_model_sensitivity=sensitivity)
    assert compare.wired_alike(witness, Tolerances()) == expected


def test_what_was_good_for_long_hides_nothing():
    """A unit that goes wrong after a million good steps is found as soon as one that was wrong from the beginning."""
    tally = UnitStats(8, float(np.finfo(np.float32).eps))
    for seed in range(100):
        assert _tallied(tally, 10_000, seed=seed) == []
    assert [odd.unit for odd in _tallied(tally, 200, wrong=5, by=1e-6)] == [5]


@pytest.fixture(scope="module")
def served():
    """The bundled model."""
    return ServedModel.prepare("sunspots", reader.load(MODEL), Numerics.EXACT)


def _case(served, *, every=True, lengths=(300, 7, 260)):
    x = np.random.default_rng(1).normal(size=(3, 300, 1)).astype(np.float32)
    lengths = np.array(lengths)
    call = ForwardCall(
        served,
        (x,),
        served.model.zero_state(3),
        np.zeros(3, np.int64),
        as_values=False,
        lengths=lengths,
        all_outputs=every,
    )
    recording = Recording()
    answer = served.model.forward((x,), call.state, lengths, all_outputs=every, recording=recording)
    return x, call, answer, cases.capture(call, answer, recording, "Forward")


def test_a_trace_changes_no_byte(served):
    """A call that leaves a trace has the answer of one that leaves none, to the last bit."""
    x, call, answer, _ = _case(served)
    plain = served.model.forward((x,), call.state, call.lengths, all_outputs=True)
    assert plain.output.tobytes() == answer.output.tobytes()
    for part, other in zip(plain.state, answer.state, strict=True):
        assert [array.tobytes() for array in part] == [array.tobytes() for array in other]


def test_a_case_holds_every_step(served):
    """The steps of a case are those that `Step` gives one by one, for every row and layer."""
    x, _, _, case = _case(served)
    state = served.model.zero_state(3)
    for t in range(300):
        answer = served.model.step(np.ascontiguousarray(x[:, t]), state)
        state = answer.state
        for piece in case.pieces:
            for place, part in zip((1, 3), state, strict=True):
                steps = piece.steps[place][0]
                if piece.start <= t < piece.start + steps.h.shape[1] - 1:
                    assert part.h[piece.rows].tobytes() == steps.h[:, t - piece.start + 1].tobytes()
                    assert part.c[piece.rows].tobytes() == steps.c[:, t - piece.start + 1].tobytes()


def test_what_was_answered_counts(served):
    """Behind a row's last step a case has the h and c of the answer, whatever the layers had."""
    x, call, answer, _ = _case(served)
    first, second = answer.state
    wrong = answer._replace(state=(first, type(second)(second.h + 1, second.c)))
    recording = Recording()
    served.model.forward((x,), call.state, call.lengths, all_outputs=True, recording=recording)
    case = cases.capture(call, wrong, recording, "Forward")
    ends = {int(row): piece for piece in case.pieces for row in piece.rows[piece.ends]}
    for row in range(3):
        steps = ends[row].steps[3][0]
        assert wrong.state[1].h[row].tobytes() == steps.h[list(ends[row].rows).index(row), -1].tobytes()


@pytest.mark.parametrize("every", [True, False])
def test_a_case_survives_the_way(served, every):
    """A case read from its bytes is what was written, with what stands alongside it."""
    *_, case = _case(served, every=every)
    there, about, arrays = cases.load(case.to_bytes({"more": "text"}, {"extra": np.arange(3)}))
    assert about["more"] == "text"
    assert arrays["extra"].tolist() == [0, 1, 2]
    assert (case.model, case.rows, case.time, case.every) == (there.model, there.rows, there.time, there.every)
    assert case.outputs[0].tobytes() == there.outputs[0].tobytes()
    assert case.request.inputs[0].tobytes() == there.request.inputs[0].tobytes()
    assert there.request.lengths.tolist() == [300, 7, 260]
    for piece, other in zip(case.pieces, there.pieces, strict=True):
        assert piece.steps[1][0].c.tobytes() == other.steps[1][0].c.tobytes()


def test_a_case_is_never_a_pickle(served):
    """An archive with a pickled object in it is refused before the object is made."""
    *_, case = _case(served)
    file = io.BytesIO(case.to_bytes())
    with zipfile.ZipFile(file, "a") as archive:
        pickled = io.BytesIO()
        np.save(pickled, np.array([print], dtype=object), allow_pickle=True)
        archive.writestr("evil.npy", pickled.getvalue())
    with pytest.raises(ValueError, match=r"'evil.npy' holds object; expected numbers or texts"):
        cases.load(file.getvalue())


def test_no_comparisons_are_no_success(served):
    """A report in which nothing was compared says so in numbers: offered and dropped, and nothing compared."""
    report = ShadowReport(1, [served], Tolerances())
    for _ in range(3):
        report.offered("sunspots")
        report.sampled("sunspots")
        report.dropped("sunspots", "starting")
    coverage = report.copy("sunspots").models[0].coverage
    assert (
        coverage.offered_count,
        coverage.sampled_count,
        coverage.compared_count,
        dict(coverage.dropped_counts),
    ) == (3, 3, 0, {"starting": 3})


async def test_who_does_not_read_is_told_what_was_left_out():
    """A watcher who does not read loses the oldest, and is told how many; another is not affected."""
    watchers = Subscribers()
    slow = watchers.watch("")
    task = asyncio.ensure_future(anext(slow))
    await asyncio.sleep(0)  # until it watches
    for rows in range(150):
        watchers.publish(shadow_pb2.Discrepancy(model="a", row_count=rows))
    first = await task
    assert (first.discrepancy.row_count, first.dropped_count) == (50, 50)
    second = await anext(slow)
    assert (second.discrepancy.row_count, second.dropped_count) == (51, 0)
    await slow.aclose()


async def test_too_many_watchers_are_refused():
    """One more watcher than there is room for is refused with a retry, and a place that is left is free again."""
    watchers = Subscribers()
    watching = [watchers.watch("") for _ in range(MAX_SUBSCRIBERS)]
    tasks = [asyncio.ensure_future(anext(watcher)) for watcher in watching]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await anext(watchers.watch(""))
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    again = asyncio.ensure_future(anext(watchers.watch("a")))
    await asyncio.sleep(0)
    watchers.publish(shadow_pb2.Discrepancy(model="a"))
    assert (await again).discrepancy.model == "a"
    for task in tasks[1:]:
        task.cancel()
    await asyncio.wait(tasks[1:])


def test_what_is_wrong_first_comes_first():
    """The earlier step, the earlier layer, c before h and h before the output, and the larger margin."""

    def spot(step, place, array, margin):
        return compare.Spot(step, place, array, 0, 0, margin, 0.0, 0.0)

    first = [
        spot(0, 1, "output", 1.0),
        spot(1, 0, "c", 1.0),
        spot(1, 0, "h", 9.0),
        spot(1, 0, "h", 2.0),
        spot(1, 0, "output", 50.0),
        spot(1, 1, "c", 3.0),
    ]

    mixed = [first[i] for i in (4, 2, 5, 0, 3, 1)]
    assert sorted(mixed, key=lambda found: found.order) == first
