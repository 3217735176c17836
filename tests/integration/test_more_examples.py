"""The examples of a text and of a sensor do what they say, against a server that has both models."""

from __future__ import annotations

import importlib
import json
import struct
import sys

import numpy as np
import pytest

from tests.support import live
from tests.support.paths import ROOT

TEXT = ROOT / "examples" / "text"
SENSOR = ROOT / "examples" / "sensor"
SONNETS = (TEXT / "sonnets.txt").read_text()
REPORT = json.loads((SENSOR / "sensor.json").read_text())


@pytest.fixture(scope="module")
def both():
    """Returns a server process with the models of the two examples."""
    with live.serving(f"text={TEXT / 'sonnets.keras'}", f"sensor={SENSOR / 'sensor.keras'}", *live.QUICK) as server:
        yield server


@pytest.fixture(scope="module")
def write(both):
    """Returns a function that runs `write.py` and gives what it wrote."""

    def write(*arguments):
        ended = live.run(*arguments, "--address", both.address, program=(sys.executable, TEXT / "write.py"))
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout.removesuffix("\n")

    return write


@pytest.fixture(scope="module")
def forecast(both):
    """Returns a function that runs `forecast.py` and gives what it printed."""

    def forecast(*arguments):
        ended = live.run(*arguments, "--address", both.address, program=(sys.executable, SENSOR / "forecast.py"))
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    return forecast


@pytest.fixture
def channels(monkeypatch):
    """Returns the module that the sensor's two programs share."""
    monkeypatch.syspath_prepend(SENSOR)
    yield importlib.import_module("channels")
    del sys.modules["channels"]


def test_the_examples_are_small():
    """The files that the examples bundle have under 400 KB a model, and under 150 KB for data."""
    assert (TEXT / "sonnets.keras").stat().st_size < 400_000
    assert (SENSOR / "sensor.keras").stat().st_size < 400_000
    assert (SENSOR / "weather.csv").stat().st_size < 150_000


@pytest.mark.parametrize("beginning", ["Shall I compare", "Let me not", "My mistress' eyes", "When I consider"])
def test_without_chance_the_text_goes_on_as_the_sonnet_does(write, beginning):
    """At temperature 0 the beginning of a sonnet is gone on with by its next 300 characters, over the ends of lines."""
    place = SONNETS.index(beginning)
    length = 300

    assert SONNETS[place : place + len(beginning) + length] == write(
        beginning, "--temperature", "0", "--length", str(length)
    )


def test_a_seed_gives_its_text_again_alone_and_among_others(write):
    """Three endings of one beginning are, character for character, what their three seeds give alone; and they differ."""
    options = ("My love", "--length", "80", "--temperature", "1")
    together = write(*options, "--seed", "5", "--endings", "3").split("\n\n---\n\n")

    assert together == [write(*options, "--seed", str(seed)) for seed in (5, 6, 7)]
    assert len(set(together)) == 3
    assert all(text.startswith("My love") and len("My love") + 80 == len(text) for text in together)


def test_a_character_that_the_model_does_not_know_is_refused(both):
    """A beginning with a character outside the alphabet ends with a sentence, not with a wrong number."""
    ended = live.run("Schön", "--address", both.address, program=(sys.executable, TEXT / "write.py"))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(
        "write.py: the beginning has 'ö'; expected one or more of the characters that the model knows: "
    )


def test_the_forecast_has_the_error_that_keras_measured_and_beats_both_baselines(forecast, tmp_path):
    """Through the server comes the error that Keras measured in training, at most three quarters of each baseline's."""
    picture = tmp_path / "forecast.png"
    shown = forecast("--plot", picture)
    ours, as_it_was, yesterday = (
        REPORT[key] for key in ("test_rmse", "test_rmse_of_persistence", "test_rmse_of_yesterday")
    )

    assert f"  forecast  {ours:.2f}\n  as it was {as_it_was:.2f}\n  yesterday {yesterday:.2f}\n" in shown
    assert ours < 0.75 * min(as_it_was, yesterday)
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1440, 540)


def test_a_forecast_knows_nothing_of_what_comes_later(forecast, tmp_path):
    """What is forecast at the end of a file, after a gap, is forecast for the same time from a file that continues."""
    lines = (SENSOR / "weather.csv").read_text().splitlines()
    gap = next(i for i, line in enumerate(lines) if i > 2500 and ",," in line)
    early = tmp_path / "early.csv"
    early.write_text("\n".join(lines[: gap + 1]) + "\n")

    last = forecast(early, "--rows", "1").splitlines()[1].split()
    rows = [line.split() for line in forecast("--rows", "10000").splitlines()]
    assert last[3] == "-"
    assert last[:3] in [row[:3] for row in rows]


def test_a_forecast_knows_nothing_of_what_came_before_its_window(forecast, tmp_path):
    """A file that begins later has the same forecasts: each is of its window alone, and no state continues to the next."""
    head, *lines = (SENSOR / "weather.csv").read_text().splitlines()
    late = tmp_path / "late.csv"
    late.write_text("\n".join([head, *lines[-100:]]) + "\n")

    rows = [line.split()[:3] for line in forecast(late, "--rows", "10000").splitlines()[1:86]]
    assert len(rows) == 85
    assert rows == [line.split()[:3] for line in forecast("--rows", "85").splitlines()[1:86]]


def test_the_scaler_knows_the_months_of_training_alone(channels):
    """The scaler alongside the model is that of the rows before the test, and undoes what it does."""
    times, table = channels.read(SENSOR / "weather.csv")
    seen = np.array([time.isoformat() < REPORT["trained_before"] for time in times])
    scaler = channels.Scaler.from_json(REPORT["scaler"])

    np.testing.assert_allclose(table[seen].mean(axis=0), scaler.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(table[seen].std(axis=0), scaler.deviation, rtol=1e-12)
    np.testing.assert_allclose(table[:, 2], scaler.unscale(scaler.scale(table)[:, 2], 2), rtol=1e-6)


def test_gaps_are_filled_with_what_was_measured_before(channels):
    """A gap holds the last measurement of its own channel, never the next."""
    nan = np.nan
    table = np.array([[1.0, 10.0], [nan, 20.0], [nan, nan], [4.0, nan]])

    assert channels.fill(table).tolist() == [[1, 10], [1, 20], [1, 20], [4, 20]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", "has the columns ['a', 'b']; expected time, temperature, humidity, pressure, wind"),
        (
            "time,temperature,humidity,pressure,wind\n2013-01-01T06:00Z,x,1,2,3\n",
            ", line 2: could not convert string to float: 'x'; expected a time, and a number or nothing for each channel",
        ),
        (
            "time,temperature,humidity,pressure,wind\n2013-01-01T06:00Z,0,1,2,3\n2013-01-01T12:00Z,0,1,2,3\n",
            "has a row for 2013-01-01 06:00:00+00:00, and the next for 2013-01-01 12:00:00+00:00; expected one every 3:00:00",
        ),
        (
            "time,temperature,humidity,pressure,wind\n2013-01-01T06:00Z,0,,2,3\n",
            "begins without a measurement of every channel; expected one, to fill later gaps from",
        ),
    ],
)
def test_measurements_that_cannot_be_used_are_refused(both, tmp_path, text, expected):
    """A file with other columns, no numbers, a missing row, or a gap at its beginning is refused with a sentence."""
    path = tmp_path / "measurements.csv"
    path.write_text(text)
    ended = live.run(path, "--address", both.address, program=(sys.executable, SENSOR / "forecast.py"))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"forecast.py: {path}" in ended.stderr
    assert ended.stderr.endswith(f"{expected}\n")
