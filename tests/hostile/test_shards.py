"""Weights in several files that are made to harm: each is refused in a sentence (promise P7)."""

from __future__ import annotations

import json

import h5py
import pytest

from lstmserve_server.loading import reader
from tests.hostile.formats import ARCHITECTURE, GROUP, refusal
from tests.support.builders import (
    lstm_weights,
    numbers,
    weights_file,
)


def write_shards(folder, weight_map, *, files=("m_0.weights.h5",)):
    """Writes an index of weights, the architecture alongside it, and files that hold the weights of the simple model."""
    for name in files:
        (folder / name).write_bytes(weights_file({GROUP: lstm_weights()}))
    (folder / "m.json").write_text(ARCHITECTURE)
    path = folder / "m.weights.json"
    path.write_text(
        weight_map if isinstance(weight_map, str) else json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return path


@pytest.mark.parametrize(
    "name",
    ["../a.h5", "..", ".", "", "/etc/passwd", "a\\b", "a\0b", "\ud800", "m.json", "m.weights.json", "none", "a" * 5000, 5, None, [], {}],
)  # fmt: skip
def test_shards_of_strange_names_are_refused(tmp_path, name):
    """A name in an index leads to a file of HDF5 alongside it, or the model is refused."""
    (tmp_path / "in").mkdir()
    (tmp_path / "a.h5").write_bytes(weights_file({GROUP: lstm_weights()}))

    assert refusal(write_shards(tmp_path / "in", {"/layers/lstm": name}))


def test_a_weight_in_two_files_is_refused(tmp_path):
    """Of a weight that stands twice no one can say which one is meant."""
    files = ("m_0.weights.h5", "m_1.weights.h5")

    assert "is in 2 files, so two readers may see two models" in refusal(
        write_shards(tmp_path, {"/": files}, files=files)
    )


def test_a_group_that_is_an_array_in_another_file_is_refused(tmp_path):
    """Files that disagree on what is a group are refused, in either order."""
    path = write_shards(tmp_path, {})
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file[GROUP] = numbers(3)
    for files in (["m_0.weights.h5", "b.h5"], ["b.h5", "m_0.weights.h5"]):
        assert "is an array; expected a group" in refusal(write_shards(path.parent, {"/": files}))


def test_an_index_of_many_names_is_bounded(tmp_path):
    """However many places an index names, the files are counted before one is opened."""
    names = [f"n{number}" for number in range(100_000)]

    assert "the index lists 100000 files; expected at most" in refusal(write_shards(tmp_path, {"/": names}))
    assert reader.load(write_shards(tmp_path, dict.fromkeys(names, "m_0.weights.h5")))


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map":' + "[" * 100_000,
        '{"weight_map":' + '{"a":' * 3000 + "1" + "}" * 3001,
        "{}",
        "{",
        "{" + " " * (5 << 20) + "}",
    ],
)
def test_an_index_that_is_no_index_is_refused(tmp_path, text):
    """JSON that is too deep, too long, cut off or about something else is refused."""
    assert refusal(write_shards(tmp_path, text))
