"""The process in which files are parsed: what it gives back, and that nothing it suffers reaches the server."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from lstmserve_server.loading import reader, sandbox
from lstmserve_server.loading.store import transfer
from lstmserve_server.loading.store.arrays import SharedStore
from lstmserve_server.loading.store.limits import LoadLimits
from tests.support.builders import (
    input_config,
    lstm_config,
    lstm_weights,
    sequential,
    weights_file,
    write_hdf5,
    write_zip,
)
from tests.support.paths import SUNSPOTS


async def load(*paths, layer=None, limits=None):
    """Returns the descriptions of files, loaded through the sandbox."""
    return [await sandbox.load(str(path), limits or LoadLimits(), layer=layer) for path in paths]


async def refusal(*paths, **options):
    """Returns why the sandbox refuses."""
    with pytest.raises(sandbox.LayersOfRefusedModel) as refused:
        await load(*paths, **options)
    return refused.value


async def test_a_model_comes_through_unchanged(tmp_path):
    """Descriptions are the same on both sides, several from one process, with the same digest."""
    paths = (SUNSPOTS, write_zip(tmp_path / "a"), write_hdf5(tmp_path / "b", version="2.2.4"))
    for path, got in zip(paths, await load(*paths), strict=True):
        expected = reader.load(path)
        assert (expected.digest(), expected.source, expected.inputs, expected.outputs) == (
            got.digest(),
            got.source,
            got.inputs,
            got.outputs,
        )
        assert [layer.name for layer in expected.layers] == [layer.name for layer in got.layers]


async def test_the_weights_are_mapped_and_read_only():
    """Weights are a view of shared memory that cannot be written, aligned to a cache line."""
    (description,) = await load(SUNSPOTS)
    for layer in description.layers:
        for weight in layer.weights.values():
            assert not weight.flags.writeable
            assert not weight.flags.owndata
            assert weight.ctypes.data % 64 == 0
            with pytest.raises(ValueError, match="WRITEABLE"):
                weight.flags.writeable = True


async def test_a_refusal_brings_the_layers_along(tmp_path):
    """A refusal has the text of the reader, and the layers that the file configures."""
    refused = await refusal(SUNSPOTS, layer="none")

    assert str(refused).startswith(f"{SUNSPOTS}: --layer none asks for an LSTM layer")
    assert ("slow", "LSTM", True) in list(refused.layers)


async def test_memory_is_bounded_by_the_size_of_the_file(tmp_path, monkeypatch):
    """A parser that asks for more memory than a file of its size may take is refused, and this process is none the worse."""
    folder = tmp_path / "greedy"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import lstmserve_server.loading.reader as r\nr.load = lambda *a, **k: bytearray(20 << 30)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))

    assert str(await refusal(SUNSPOTS)) == f"{SUNSPOTS}: the file asks for more memory than a file of its size may take"


@pytest.mark.parametrize(
    ("conduct", "text"),
    [
        ("while True: pass", "as it took more than 3 seconds (--load-seconds)"),
        ("import time; time.sleep(1000)", "as it took more than 3 seconds (--load-seconds)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "as it ended with SIGSEGV"),
        ("import os; os._exit(7)", "as it ended with the exit code 7"),
        ("print('{]'); raise SystemExit", "as its answer could not be read"),
    ],
)
async def test_whatever_the_parser_suffers_is_a_refusal(tmp_path, monkeypatch, conduct, text):
    """A parser that hangs, crashes or babbles makes its file refused in a sentence."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import lstmserve_server.loading.reader as r\ndef load(*a, **k):\n    {conduct}\nr.load = load\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    refused = await refusal(SUNSPOTS, limits=LoadLimits(seconds=3))

    assert (
        str(refused)
        == f"{SUNSPOTS}: the process that parsed the file was stopped, {text}. The file is damaged, or malicious"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float16"},
        {"layers": None},
        {"layers": [{"name": "lstm"}]},
        {"source": ["a"]},
        {"inputs": None},
        {"inputs": [["x", [None, 1], 9, None]]},
        {"outputs": []},
        {"outputs": [["y", [1], -1]]},
    ],
)
def test_what_comes_back_is_not_believed(change):
    """A description that is not what the loader writes is an error, not a model."""
    file = os.memfd_create("test")
    form = transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file) | change
    with pytest.raises((ValueError, TypeError, KeyError)):
        transfer.load(form, file)
    os.close(file)


@pytest.mark.parametrize("change", [{"offset": 1 << 40}, {"offset": -4}, {"shape": [1 << 40]}, {"shape": [-1, 4]}])
def test_weights_beyond_the_file_are_not_believed(change):
    """An array that the file does not hold is an error, not a read beyond its end."""
    file = os.memfd_create("test")
    form = transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file)
    form["layers"][1]["weights"]["bias"] |= change
    with pytest.raises(ValueError, match=r"offset|buffer|count|a weight has the shape|take more bytes"):
        transfer.load(form, file)
    os.close(file)


def test_a_source_that_is_no_input_is_not_believed():
    """A layer that is called on nothing, and is not an input of the model, is an error."""
    file = os.memfd_create("test")
    form = transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file)
    form["layers"].append({**form["layers"][0], "name": "another"})
    with pytest.raises(ValueError, match="the inputs or outputs of the model do not exist"):
        transfer.load(form, file)
    os.close(file)


@pytest.mark.parametrize("place", ["inputs", "initial_state"])
def test_edges_to_what_does_not_exist_are_not_believed(place):
    """A layer that is called on one that follows it is an error, not a model."""
    file = os.memfd_create("test")
    form = transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file)
    form["layers"][1][place] = [1]
    with pytest.raises(ValueError, match="is called on what does not exist"):
        transfer.load(form, file)
    os.close(file)


async def test_large_weights_are_never_in_memory_twice(tmp_path):
    """A weight that is worth it is read into the file that the server maps, and one that two calls share is mapped once."""
    weights = {"layers/lstm/cell/vars": lstm_weights(100, 64)}
    config = sequential(input_config(100), lstm_config(64))
    (description,) = await load(write_zip(tmp_path / "a", config, weights_file(weights)))
    file = os.memfd_create("test")
    store = SharedStore(file)
    stored = reader.load(tmp_path / "a", store=store)

    assert description.digest() == stored.digest()
    assert store.offset(stored.layers[1].weights["kernel"]) == 0
    assert store.offset(stored.layers[1].weights["bias"]) is None
    assert os.fstat(file).st_size >= 100 * 256 * 4
    os.close(file)


def test_nothing_of_a_parser_is_in_the_serving_process():
    """The modules of the server do not import h5py: files are parsed elsewhere."""
    code = (
        "import sys, lstmserve_server.serving.server, lstmserve_server.tools.inspection; print('h5py' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_weights_are_written_in_order(tmp_path):
    """Arrays come back from the file as they were, whatever their size."""
    file = os.memfd_create("test")
    description = reader.load(write_zip(tmp_path / "a"))
    read = transfer.load(transfer.dump(description, SharedStore(file), file), file)
    os.close(file)

    for expected, got in zip(lstm_weights(), read.layers[1].weights.values(), strict=True):
        np.testing.assert_array_equal(expected, got)
