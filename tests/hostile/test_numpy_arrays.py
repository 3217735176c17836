"""Lists of weights of NumPy that are made to harm: each is refused in a sentence (promise P7)."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from lstmserve_server.loading import reader
from tests.hostile.formats import KERNEL, refusal
from tests.support.builders import (
    input_config,
    keras_layer,
    lstm_weights,
    sequential,
)


def npy(header, content=b"", version=(1, 0)):
    """Returns an array of NumPy with a header that someone wrote by hand."""
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + content


def array(value):
    """Returns an array as NumPy saves it; objects become a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, allow_pickle=True)
    return buffer.getvalue()


def described(descr="'<f4'", order="False", shape="(3, 16)"):
    """Returns the header of an array."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


def write_npz(path, *members, names=None):
    """Writes a list of weights: the given arrays, and those of the simple model behind them."""
    rest = [array(weight) for weight in lstm_weights()[len(members) :]]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in zip(names or ["arr_0.npy", "arr_1.npy", "arr_2.npy"], [*members, *rest], strict=True):
            archive.writestr(name, content)
    return path


HOSTILE_ARRAYS = [
    (array(np.array([{1: 2}], object)), "arr_0.npy is a pickle, which can run code when it is loaded"),
    (npy(described("'|O'")), "arr_0.npy is a pickle, which can run code when it is loaded"),
    (npy(described("[('a', '|O')]")), "arr_0.npy is a pickle, which can run code when it is loaded"),
    (array(np.zeros((3, 16), [("a", "<f4")])), "arr_0.npy holds [('a', '<f4')]; expected float32"),
    (array(KERNEL.astype(">f4")), "arr_0.npy holds >f4; expected float32"),
    (array(KERNEL.astype("<i4")), "arr_0.npy holds int32; expected float32"),
    (array(KERNEL.astype("<c8")), "arr_0.npy holds complex64; expected float32"),
    (array(np.full((3, 16), np.nan, np.float32)), "arr_0.npy holds nan at (0, 0)"),
    (npy(described(shape="(-3, 16)"), KERNEL.tobytes()), "arr_0.npy has the shape (-3, 16); expected integers"),
    (npy(described(shape="(-3, -16)"), KERNEL.tobytes()), "arr_0.npy has the shape (-3, -16); expected integers"),
    (npy(described(shape="(True, 48)"), KERNEL.tobytes()), "arr_0.npy"),
    (npy(described(shape=f"({1 << 62}, {1 << 62})"), KERNEL.tobytes()), "and holds 192 bytes; the file is damaged"),
    (npy(described(shape=f"({1 << 62}, {1 << 62}, 0)")), "holds weights without the model's configuration"),
    (npy(described(), KERNEL.tobytes() + b"x"), "and holds 193 bytes; the file is damaged"),
    (npy(described(), KERNEL.tobytes()[1:]), "and holds 191 bytes; the file is damaged"),
    (npy(described("__import__('os').system('touch x')"), KERNEL.tobytes()), "arr_0.npy is not an array of NumPy"),
    (npy(described("'<f4'", "__import__('os')")), "arr_0.npy is not an array of NumPy"),
    (npy("{"), "arr_0.npy is not an array of NumPy"),
    (npy("(" * 9000), "arr_0.npy is not an array of NumPy"),
    (npy("-" * 9000), "arr_0.npy is not an array of NumPy"),
    (npy("9" * 5000), "arr_0.npy is not an array of NumPy"),
    (npy("\xff\xfe{"), "arr_0.npy is not an array of NumPy"),
    (npy(described() + " " * (1 << 20), KERNEL.tobytes(), (2, 0)), "arr_0.npy is not an array of NumPy"),
    (b"\x93NUMPY\2\0\xff\xff\xff\xff{", "arr_0.npy is not an array of NumPy"),
    (b"\x80\x04cbuiltins\neval", "arr_0.npy is not an array of NumPy"),
    (b"", "arr_0.npy is not an array of NumPy"),
]


@pytest.mark.parametrize(("content", "reason"), HOSTILE_ARRAYS)
def test_hostile_arrays(tmp_path, monkeypatch, content, reason):
    """Pickles are not run, headers not evaluated, and lengths compared with what is there."""
    monkeypatch.chdir(tmp_path)

    assert reason in refusal(write_npz(tmp_path / "a.npz", content))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_arrays_in_the_order_of_fortran_are_the_same(tmp_path):
    """The order in which an array was stored changes nothing."""
    kept = reader.load(write_npz(tmp_path / "a.npz")).digest()

    assert kept == reader.load(write_npz(tmp_path / "b.npz", array(np.asfortranarray(KERNEL)))).digest()


def test_arrays_of_bfloat16_are_widened(tmp_path):
    """NumPy saves bfloat16 as two raw bytes; they are the upper half of a float32."""
    bits = KERNEL.view(np.uint32) >> 16
    raw = reader.load(write_npz(tmp_path / "raw.npz", array(bits.astype("<u2").view("V2"))))
    wide = reader.load(write_npz(tmp_path / "wide.npz", array((bits << 16).view(np.float32))))

    assert raw.digest() == wide.digest()


@pytest.mark.parametrize(
    "first", ["arr_00.npy", "arr_3.npy", "arr_\u0660.npy", "arr_-0.npy", "../arr_0.npy", f"arr_{'9' * 5000}.npy"]
)
def test_arrays_of_strange_names_are_refused(tmp_path, first):
    """Names that are not those that np.savez gives leave open which weight is which."""
    assert "arr_0.npy" in refusal(write_npz(tmp_path / "a.npz", names=[first, "arr_1.npy", "arr_2.npy"]))


def test_a_lone_array_and_a_pickle_are_not_opened(tmp_path):
    """A list of weights in a `.npy` file is a pickle, and refused unopened."""
    (tmp_path / "a.npy").write_bytes(array(np.array([KERNEL, None], object)))

    assert "is a pickle, which can run code when it is loaded" in refusal(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "layer",
    [
        keras_layer("RNN", "r", cell={"config": [1]}),
        keras_layer("RNN", "r", cell={"class_name": "StackedRNNCells", "config": {"cells": [{"class_name": "LSTMCell", "config": "x"}]}}),
        keras_layer("Bidirectional", "b", layer={"class_name": "LSTM", "config": "x"}),
        keras_layer("Bidirectional", "b", layer=5, backward_layer={"class_name": "LSTM", "config": [1]}),
        keras_layer("TimeDistributed", "t", layer={"class_name": "RNN", "config": {"cell": {"config": "x"}}}),
    ],
)  # fmt: skip
def test_weights_are_not_counted_by_a_broken_architecture(tmp_path, layer):
    """An architecture whose layers hold no layers is refused where the weights of each are counted."""
    (tmp_path / "a.json").write_text(json.dumps({**sequential(input_config(), layer), "keras_version": "3.15.1"}))

    assert refusal(write_npz(tmp_path / "a.npz"))
