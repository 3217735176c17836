"""The page that `lstmserve verify --html` writes, as a browser shows it."""

from __future__ import annotations

import dataclasses
import re

import pytest

from lstmserve.v1 import shadow_pb2
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.tools.verify import html_report
from lstmserve_server.tools.verify.verifier import Plan, Verifier
from tests.support import shadow_faults as faults
from tests.support.browser import open_page
from tests.support.builders import input_config, lstm_config, lstm_weights, sequential, weights_file, write_zip
from tests.support.live import run
from tests.support.paths import SUNSPOTS

pytestmark = [pytest.mark.slow, pytest.mark.browser]

HISTOGRAMS = ["by-difference", "by-ulp"]
FIGURES = ["over-time", *HISTOGRAMS, "gates-0", "gates-1"]
HOSTILE = "<script>alert(1)</script>$\\frac{#000001"


def _seen(page, **options):
    """What a browser makes of a page, after it was found to be right and to need nothing else."""
    selectors = [
        "script",
        "svg",
        *(f"figure svg#{name}[role=img]" for name in FIGURES),
        "tr.bad",
        ".agrees",
        ".differs",
    ]
    seen = open_page(page, selectors=[*selectors, ".not_compared", ".not_comparable"], **options)
    assert (seen.errors, seen.requests) == ([], [])
    return seen


def _figures(seen):
    return [name for name in FIGURES if seen.found[f"figure svg#{name}[role=img]"]]


def _changed(found, report=None, **more):
    """What was found, with a report that a function has changed."""
    copy = shadow_pb2.ModelReport.FromString(found.report.SerializeToString())
    if report:
        report(copy)
    return dataclasses.replace(found, report=copy, **more)


@pytest.fixture
def page(tmp_path):
    """Returns a function that writes the page of what was found, and says where."""

    def written(found):
        html_report.write(found, tmp_path / "report.html")
        return tmp_path / "report.html"

    return written


@pytest.fixture(scope="module")
def agreeing(tmp_path_factory):
    """The page of the bundled model, as the command writes it."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    ended = run("verify", SUNSPOTS, "--calls", "2", "--steps", "20", "--html", path)
    assert (ended.returncode, ended.stderr) == (0, "")
    return path


@pytest.fixture(scope="module")
def differing(tmp_path_factory):
    """What is found of a model whose second LSTM has two gates exchanged."""
    first, second = (lstm_config(5, name, return_sequences=True) for name in ("below", "above"))
    groups = {"layers/lstm/cell/vars": lstm_weights(3, 5), "layers/lstm_1/cell/vars": lstm_weights(5, 5)}
    path = tmp_path_factory.mktemp("model") / "two.keras"
    write_zip(path, sequential(input_config(), first, second), weights_file(groups))
    part = dict.fromkeys(("layer", "until", "architecture"))
    verifier = Verifier(str(path), Plan(2, 3, 20, 0, None), Tolerances(), part)
    with faults.weights(verifier._served.model.lstm(2, 0), faults.exchanged(0, 3)):
        assert list(verifier.run()) == [0, 1, 2]
        yield verifier.found()


def test_a_model_that_agrees(agreeing):
    """The page of a model that agrees says so, and shows every figure and how to find the same again."""
    seen = _seen(agreeing)

    assert _figures(seen) == FIGURES
    assert (seen.found[".agrees"], seen.found[".differs"]) == (1, 0)
    assert seen.title == "agrees: sunspots.keras and Keras"
    for text in (
        "All 2 calls that were compared, 320 row-steps of LSTM layers, are within tolerance.",
        f"lstmserve verify {SUNSPOTS} --calls 2 --rows 4 --steps 20 --seed 0",
        "No call was dropped, and none failed.",
    ):
        assert text in seen.text


def test_a_narrow_dark_screen(agreeing, tmp_path):
    """On a screen of 400 pixels, in the dark, nothing is wider than the page."""
    assert _figures(_seen(agreeing, screenshot=tmp_path / "page.png", width=400, dark=True)) == FIGURES
    assert int.from_bytes((tmp_path / "page.png").read_bytes()[16:20], "big") == 400


def test_a_model_that_differs(page, differing):
    """The page of a model that differs says so, and where: in words, in the table and at the gates."""
    seen = _seen(page(differing))

    assert _figures(seen) == FIGURES
    assert (seen.found[".agrees"], seen.found[".differs"]) == (0, 1)
    assert seen.found["tr.bad"] >= 2
    for text in (
        "DIFFERS\n",
        "2 of 2 calls",
        "layer “above”, step 0",
        "gate i o: ours ",
        "above\tc\tOVER",
        "below\tc\twithin",
    ):
        assert text in seen.text


def test_a_name_is_no_markup(page, differing):
    """A layer's name is shown letter by letter, whatever it looks like to HTML, SVG or TeX."""

    def renamed(report):
        for totals in (*report.teacher_forced, *report.free_running):
            totals.layer = HOSTILE
        report.worst[0].comparison.first_location.layer = HOSTILE
        report.coverage.partial_counts[f"window: {HOSTILE}"] = 1

    layer = differing.served.model.lstm(1, 0)
    layer.name = HOSTILE + "\x01"
    try:
        seen = _seen(page(_changed(differing, renamed)))
    finally:
        layer.name = "below"

    assert seen.found["script"] == 0
    assert _figures(seen) == FIGURES
    for text in (f"Gates of {HOSTILE}\ufffd, unit by unit", f"{HOSTILE}\tc\t", f"window: {HOSTILE}"):
        assert text in seen.text


def test_names_in_figures_are_their_own(agreeing):
    """No two elements of the page have one id, and whatever is referred to is there."""
    text = agreeing.read_text()
    known = re.findall(r'\bid="([^"]+)"', text)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text)) | set(
        " ".join(re.findall(r'labelledby="([^"]+)"', text)).split()
    )

    assert len(known) == len(set(known))
    assert used - set(known) == set()


def test_without_a_call_in_detail(page, differing):
    """Where no call is known step by step, the page says so and shows the histograms."""
    seen = _seen(page(_changed(differing, detailed=None)))

    assert _figures(seen) == HISTOGRAMS
    assert "There are no figures of single time-steps and gates: they are of the first call" in seen.text


def _empty(report):
    coverage = report.coverage
    coverage.compared_count = coverage.row_step_count = coverage.discrepant_count = 0
    for field in ("teacher_forced", "free_running", "worst"):
        report.ClearField(field)


def _dropped(report):
    _empty(report)
    report.coverage.dropped_counts["refused"] = 2


def _in_half_precision(report):
    _empty(report)
    report.coverage.not_comparable_counts["half_precision"] = 2


def _masked(report):
    _empty(report)
    report.coverage.compared_count = 2
    report.teacher_forced.add(
        layer="mask",
        array=shadow_pb2.ARRAY_KIND_OUTPUT,
        value_count=60,
        difference_histogram=[60] + [0] * 16,
        ulp_histogram=[60] + [0] * 32,
    )


@pytest.mark.parametrize(
    ("report", "verdict", "text"),
    [
        (_empty, "not_compared", "nothing compared\nNothing is known about this model: in 2 calls, not one time-step"),
        (_dropped, "not_compared", "dropped\trefused We would refuse the call, such as for an overflow.\t2"),
        (_masked, "not_compared", "nothing compared\nNothing is known about this model: in 2 calls, not one time-step"),
        (
            _in_half_precision,
            "not_comparable",
            "Nothing can be said about this model: Keras computes in half precision.",
        ),
    ],
)
def test_no_comparison_is_no_success(page, differing, report, verdict, text):
    """Where no step was compared, no mismatch does not look like success."""
    seen = _seen(page(_changed(differing, report, first=None, detailed=None)))

    assert (seen.found[".agrees"], seen.found[".differs"], seen.found[f".{verdict}"]) == (0, 0, 1)
    assert "unknown\n" in seen.text
    assert text in seen.text


def test_what_a_verdict_does_not_say(page, differing):
    """What makes a verdict worth less stands below it, and that weights differ is in it."""

    def report(report):
        report.reference_model.differing_weights.append("bias of layer 'below', by up to 0.1")
        report.reference_model.whole_model_difference = 0.25
        report.coverage.discrepant_count = 0
        report.coverage.offered_count = 4
        report.teacher_forced[0].value_count += 7

    text = _seen(page(_changed(differing, report))).text

    assert "DIFFERS\nWe have other weights than Keras has." in text
    assert "2 of 4 calls were not compared." in text
    assert "As a whole, the model was 0.25 apart from the file's own" in text
    assert "7 numbers are NaN or infinite on both sides alike." in text
