"""The bundled model, the demonstration, and the client in another language: they do what they say."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest

from lstmserve import Client
from lstmserve_server.loading import reader
from lstmserve_server.model.model import RecurrentModel
from tests.support import node
from tests.support.paths import SUNSPOTS

FOLDER = SUNSPOTS.parent
REPORT = json.loads((FOLDER / "sunspots.json").read_text())


def series():
    """Returns years and sunspot numbers."""
    table = np.loadtxt(FOLDER / "sunspots.csv", delimiter=",", skiprows=1)
    return table[:, 0], table[:, 1]


def test_the_bundled_model_is_small_and_beats_persistence():
    """The bundled model has under 300 KB, and the error on unseen years that its provenance states."""
    years, counts = series()
    model = RecurrentModel(reader.load(SUNSPOTS))
    x = (counts[:-1] / REPORT["scale"]).astype(np.float32)[None, :, None]
    forecast = model.forward((x,), model.zero_state(1), all_outputs=True).output[0, :, 0] * REPORT["scale"]
    unseen = years[1:] >= 1950
    error = np.sqrt(np.mean((forecast - counts[1:])[unseen] ** 2))
    naive = np.sqrt(np.mean((counts[:-1] - counts[1:])[unseen] ** 2))

    assert SUNSPOTS.stat().st_size < 300 << 10
    assert (REPORT["test_rmse"], REPORT["test_rmse_of_persistence"]) == (round(float(error), 2), round(float(naive), 2))
    assert error < 0.6 * naive


@pytest.mark.slow
def test_the_demonstration_runs(tmp_path):
    """The demonstration kills a server on the way, continues to the same bytes, and draws a picture."""
    shutil.copytree(FOLDER, tmp_path / "sunspots", ignore=shutil.ignore_patterns("demo.png", "__pycache__"))
    ended = subprocess.run(
        [sys.executable, tmp_path / "sunspots" / "demo.py"], capture_output=True, text=True, check=True, timeout=120
    )
    picture = (tmp_path / "sunspots" / "demo.png").read_bytes()

    assert f"forecast {REPORT['test_rmse']:.1f}, naive persistence" in ended.stdout
    assert "In 1860 the server was killed with SIGKILL." in ended.stdout
    assert "308 forecasts, compared with a run that nothing happened to: 0 bytes differ." in ended.stdout
    assert struct.unpack(">II", picture[16:24]) == (1440, 540)


@pytest.mark.slow
@pytest.mark.node
def test_nodes_stock_client_gets_the_same_numbers(sunspots, tmp_path):
    """@grpc/grpc-js with nothing but the .proto gets, to the last bit, what our own client gets from Step and Forward."""
    numbers = [0.25, 0.5, 1.75, 0.125]
    answer = json.loads(
        node.run("client.mjs", sunspots.address, cwd=node.install(tmp_path), input="\n".join(map(str, numbers)))
    )

    with Client(sunspots.address) as client:
        outputs, state = client.forward(np.array(numbers, np.float32)[:, None], all_outputs=True)
    assert outputs.ravel().tolist() == answer["outputs"]
    assert outputs[-1, 0].tolist() == answer["last"]
    assert state.steps_seen.tolist() == answer["steps"]
