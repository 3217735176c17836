"""`lstmserve verify`: inputs of one's own, what cannot be compared, and an exit code for each way that it can end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.live import run
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

MODEL = ROOT / "examples" / "sunspots" / "sunspots.keras"
FIXTURES = ROOT / "tests" / "fixtures"
FEW = ("--calls", "2", "--rows", "2", "--steps", "6")


def test_inputs_of_ones_own(tmp_path):
    """Inputs in a file are what is compared, each row and step of them."""
    np.save(tmp_path / "data.npy", np.random.default_rng(1).normal(size=(3, 11, 1)))
    told = run("verify", MODEL, "--calls", "2", "--input", tmp_path / "data.npy", "--json")
    assert told.returncode == 0, told.stderr
    coverage = json.loads(told.stdout)["report"]["coverage"]
    assert ("2", str(2 * 3 * 11 * 2)) == (coverage["compared_count"], coverage["row_step_count"])


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((3, 11, 2)), "expected (batch, time, 1)"),
        (np.zeros(3, "U1"), "expected (batch, time, 1)"),
        (np.zeros((0, 4, 1)), "expected (batch, time, 1)"),
    ],
)
def test_inputs_that_do_not_fit(tmp_path, array, text):
    """Inputs that do not fit the model are refused with what came and what was expected: exit code 2."""
    np.save(tmp_path / "data.npy", array)
    ended = run("verify", MODEL, "--input", tmp_path / "data.npy")
    assert ended.returncode == 2
    assert text in ended.stderr
    assert "data.npy" in ended.stderr


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 no archive", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((", b"", b"text"]
)
def test_inputs_that_are_no_arrays(tmp_path, content):
    """A file that is not an array is refused with the reason, whatever NumPy makes of it: exit code 2."""
    (tmp_path / "data.npz").write_bytes(content)
    ended = run("verify", MODEL, "--input", tmp_path / "data.npz")
    assert ended.returncode == 2
    assert "cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_token_ids_that_the_model_does_not_know(tmp_path):
    """Numbers that are not token ids of the model are refused with those that are expected: exit code 2."""
    np.save(tmp_path / "data.npy", np.full((2, 5), 10**6))
    ended = run("verify", FIXTURES / "tf2.15" / "lstm_emb_mask.keras", "--input", tmp_path / "data.npy")
    assert ended.returncode == 2
    assert "not token ids; expected whole ones from 0 to" in ended.stderr


def test_half_precision_cannot_be_compared():
    """A model that Keras computes in half precision is not comparable, and never agrees: exit code 4."""
    ended = run("verify", FIXTURES / "keras3.15" / "lstm_float16.keras", *FEW)
    assert ended.returncode == 4, ended.stderr
    assert "NOT COMPARABLE: half_precision" in ended.stdout


def test_a_model_that_is_refused():
    """A model that is refused is refused here with the same text: exit code 3."""
    ended = run("verify", FIXTURES / "keras3.15" / "with_lambda.keras", *FEW)
    assert ended.returncode == 3
    assert "Lambda" in ended.stderr


def test_a_report_that_cannot_be_written(tmp_path):
    """A report that could not be written is refused before anything is computed, and no trace of it is left."""
    ended = run("verify", MODEL, "--html", tmp_path / "no" / "report.html")
    assert ended.returncode == 3
    assert "the report cannot be written" in ended.stderr
    assert list(tmp_path.iterdir()) == []
