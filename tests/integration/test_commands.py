"""The command lines: what they print, write and end with."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
from dataclasses import fields

import numpy as np
import pytest

from lstmserve import Client, State
from lstmserve_server.rpc.auth.callers import CallerPolicy
from lstmserve_server.serving.settings import ServeSettings
from scripts import settings_page
from tests.support.builders import keras_layer, lstm_config, numbers, sequential, write_zip
from tests.support.live import CLIENT, run
from tests.support.paths import SUNSPOTS

SERIES = np.abs(numbers(1200, 1, seed=3))


@pytest.fixture
def call(sunspots):
    """Returns a function that runs lstmserve-client against the bundled model."""
    return lambda *arguments, **options: run("--address", sunspots.address, *arguments, program=CLIENT, **options)


def csv_of(array):
    """Returns an array as lines of CSV."""
    return "".join(",".join(map(str, row)) + "\n" for row in array.tolist())


def test_forward_from_a_pipe(call, sunspots):
    """Lines of CSV in, the last output as a line of CSV out, with every digit."""
    ended = call("forward", input=csv_of(SERIES))
    with Client(sunspots.address) as client:
        expected = client.forward(SERIES).output

    assert expected.tolist() == [np.float32(ended.stdout)]
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_forward_in_parts_is_forward_at_once(call, sunspots, tmp_path):
    """A long series goes in several calls, and gives the bytes of one; files may be .npy."""
    np.save(tmp_path / "x.npy", SERIES)
    assert call("forward", "--all-outputs", tmp_path / "x.npy", "--output", tmp_path / "y.npy").returncode == 0
    with Client(sunspots.address) as client:
        expected = client.forward(SERIES, all_outputs=True).output

    assert expected.tobytes() == np.load(tmp_path / "y.npy").tobytes()


def test_a_state_goes_from_call_to_call_in_a_file(call, sunspots, tmp_path):
    """--save-state writes what --state continues from."""
    call("forward", "--save-state", tmp_path / "s", input=csv_of(SERIES[:7]))
    ended = call("step", "--state", tmp_path / "s", "--save-state", tmp_path / "t", input=csv_of(SERIES[7:8]))
    with Client(sunspots.address) as client:
        expected = client.forward(SERIES[:8]).output

    assert expected.tolist() == [np.float32(ended.stdout)]
    assert State.load(tmp_path / "t").steps_seen.tolist() == [8]


def test_each_line_of_step_is_a_sequence(call):
    """Step takes a line per sequence, and a header is passed over."""
    ended = call("step", input="sunspots\n0.5\n\n0.7\n")

    assert len(ended.stdout.splitlines()) == 2


def test_nothing_of_a_csv_is_lost(call):
    """A byte order mark is no header, nor is a line with one bad cell; digits beyond float32 count."""
    assert len(call("step", input="\ufeff0.5\n0.7\n").stdout.splitlines()) == 2
    assert "Error: standard input is neither .npy nor CSV of numbers: " in call("step", input="0.5,x\n0.7,1\n").stderr
    assert call("step", input="\n").stderr == "Error: standard input holds no numbers\n"
    assert call("step", input="0.1\n").stdout == call("step", input="0.1000000000000000055\n").stdout


def test_a_stream_answers_each_line_as_it_comes(sunspots):
    """Each line of a pipe that stays open is answered before the next is sent, with the bytes of `forward`."""
    lines = ["0.83", "", "0.96", "0.77"]
    with subprocess.Popen(
        [*CLIENT, "--address", sunspots.address, "stream"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        answers = []
        for line in lines:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            if line:
                answers.append(process.stdout.readline())
        process.stdin.close()

        assert process.wait() == 0
    with Client(sunspots.address) as client:
        expected = client.forward([[0.83], [0.96], [0.77]], all_outputs=True).output
    assert expected.tobytes() == np.array([[float(answer)] for answer in answers], np.float32).tobytes()


def test_a_stream_goes_on_from_a_file_with_a_state(call, tmp_path):
    """A stream that was cut in two, with the state in a file between the halves, writes what the whole writes."""
    series = "sunspots\n" + "".join(f"{i / 7}\n" for i in range(40))
    whole = call("stream", input=series).stdout
    first = call(
        "stream", "--save-state", tmp_path / "s.npz", "--in-flight", "4", input=series[: series.index("3.0\n")]
    )
    second = call("stream", "--state", tmp_path / "s.npz", input=series[series.index("3.0\n") :])

    assert whole.count("\n") == 40
    assert whole == first.stdout + second.stdout


def test_a_stream_shows_how_it_does_on_a_terminal(sunspots, tmp_path):
    """On a terminal a line tells steps, rate, latency and reconnects, and the outputs still go where they are sent."""
    ours, theirs = pty.openpty()
    with (tmp_path / "out.csv").open("w") as out:
        subprocess.run(
            [*CLIENT, "--address", sunspots.address, "stream"],
            input=b"0.83\n0.96\n",
            stdout=out,
            stderr=theirs,
            check=True,
        )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 1 << 16):
            shown += part
    os.close(ours)

    assert re.search(rb"2 steps, \d+ steps/s, latency \d+\.\d ms, 0 reconnects", shown)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_a_stream_names_the_line_that_is_wrong(call):
    """A line that holds no numbers ends a stream with a sentence, after the answers to those before it."""
    ended = call("stream", input="0.5\n0.6;0.7\n")

    assert (ended.returncode, ended.stdout.count("\n")) == (1, 1)
    assert "line 2 of standard input is not a CSV of numbers" in ended.stderr


def test_a_model_that_looks_ahead_gets_a_long_sequence_whole(two_models, tmp_path):
    """A sequence that is too long for one call is not cut where the model cannot be stepped."""
    x = numbers(900, 3)
    np.save(tmp_path / "x.npy", x)
    run(
        "--address",
        two_models.address,
        "--name",
        "late",
        "forward",
        tmp_path / "x.npy",
        "--output",
        tmp_path / "y.npy",
        program=CLIENT,
    )
    with Client(two_models.address, model="late") as client:
        expected = client.forward(x).output

    assert expected.tobytes() == np.load(tmp_path / "y.npy").tobytes()


def test_model_is_json(call):
    """The description of the model is JSON with the names of the contract."""
    one, every = json.loads(call("model").stdout), call("model", "--all").stdout

    assert (one["name"], one["input_shape"]) == ("sunspots", ["-1", "-1", "1"])
    assert one == json.loads(every)


@pytest.mark.parametrize(
    ("arguments", "given", "text"),
    [
        (("step",), "1,2\n", "Error: x.shape: got 2 features; the model has 1"),
        (("step",), "one\ntwo\n", "Error: standard input is neither .npy nor CSV of numbers: "),
        (("--name", "moon", "model"), "", "Error: model: no model 'moon' is served; expected one of 'sunspots'"),
        (("forward", "--state", "conftest.py"), "1\n", "Error: conftest.py is not a state that State.save wrote: "),
    ],
)
def test_what_fails_is_one_sentence(call, arguments, given, text):
    """A call that fails ends with 1 and one sentence."""
    ended = call(*arguments, input=given)

    assert ended.returncode == 1
    assert ended.stderr.startswith(text)
    assert len(ended.stderr.splitlines()) == 1


def test_nobody_there_is_one_sentence():
    """Without a server the client says so."""
    ended = run("--address", "127.0.0.1:1", "--timeout", "5", "model", program=CLIENT)

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr


def test_inspect_shows_a_model_to_a_person():
    """Inspect shows layers, weights by gate, the state and the digest."""
    ended = run("inspect", SUNSPOTS)

    assert ended.returncode == 0
    for text in (
        "Keras 3.15.1, keras-zip", "16,633 (66,532 bytes)", "(any, any, 1)", "recurrent_kernel", "units=48, activation=tanh",
        "(batch, 48)", "Step              possible", "│ slow  │ kernel           │ i    │ (1, 48)  │",
    ):  # fmt: skip
        assert text in ended.stdout


def test_inspect_shows_a_model_to_a_program():
    """Inspect --json gives the description of the contract, and norm and range of every gate."""
    report = json.loads(run("inspect", "--json", SUNSPOTS).stdout)

    assert (report["servable"], report["model"]["format"]) == (True, "MODEL_FORMAT_KERAS_ZIP")
    gates = [row["gate"] for row in report["weights"] if (row["layer"], row["weight"]) == ("slow", "kernel")]
    assert gates == ["i", "f", "c", "o"]
    assert all(row["min"] <= row["max"] and row["norm"] > 0 for row in report["weights"])


def test_inspect_says_why_a_model_cannot_be_served(tmp_path):
    """A file that is refused ends with 1, the reason, and the layers as far as they are known."""
    path = write_zip(tmp_path / "a.keras", sequential(keras_layer("Attention", "look"), lstm_config()))
    text, program = run("inspect", path), run("inspect", "--json", path)
    report = json.loads(program.stdout)

    assert (text.returncode, program.returncode) == (1, 1)
    assert "cannot be served" in text.stdout
    assert "not served" in text.stdout
    assert "layer 'look' (Attention) is of a kind that is not supported" in report["reason"]
    assert [(layer["name"], layer["kind_served"]) for layer in report["layers"]] == [("look", False), ("lstm", True)]


def test_inspect_shows_one_layer():
    """--layer shows one LSTM as it would be served alone."""
    report = json.loads(run("inspect", "--json", "--layer", "fast", SUNSPOTS).stdout)

    assert [layer["name"] for layer in report["model"]["layers"]] == ["fast_input", "fast"]


@pytest.mark.parametrize("program", [(), CLIENT])
def test_help_and_version(program):
    """Both commands tell their options and version."""
    options = {"program": program} if program else {}

    assert "Usage:" in run("--help", **options).stdout
    assert "version 0.1.0" in run("--version", **options).stdout


def test_every_setting_has_a_flag_a_variable_and_a_default():
    """Serve --help names flag and variable of every setting."""
    text = " ".join(run("serve", "--help").stdout.split())

    for item in fields(ServeSettings):
        if item.name != "models":
            assert f"--{item.name.replace('_', '-')}" in text
            assert f"LSTMSERVE_{item.name.upper()}" in text.replace("LSTMSERVE_ ", "LSTMSERVE_")


def test_every_setting_stands_on_its_page():
    """docs/settings.md is what `python -m scripts.settings_page` writes."""
    assert settings_page.page() == settings_page.PAGE.read_text()


def test_every_limit_and_rule_stands_on_the_page_of_security():
    """docs/security.md names every limit of callers and connections, and every rule of a token, and no flag that does not exist."""
    text = (settings_page.PAGE.parent / "security.md").read_text()
    flags = {"--" + item.name.replace("_", "-") for item in fields(ServeSettings)}
    known = flags | {"--no-open-health", "--ca", "--certificate", "--key", "--server-name", "--token-file"}
    limits = {flag for flag in flags if re.match("--(max|connection|handshake|keepalive|min-ping|tls|token)", flag)}

    assert set(re.findall(r"--[a-z][a-z-]+", text)) - known == set()
    assert limits - set(re.findall(r"--[a-z][a-z-]+", text)) == {"--max-model-bytes"}
    assert {item.name for item in fields(CallerPolicy)} <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
