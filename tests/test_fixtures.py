"""Files that six versions of Keras wrote, from 1.2.2 to 3.15: each answers as its own Keras did, or is refused with the reason."""

from __future__ import annotations

import io
import zipfile

import h5py
import numpy as np
import pytest

from lstmserve_server import selftest
from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import reader
from lstmserve_server.model import RecurrentModel
from tests.conftest import ROOT

FOLDER = ROOT / "tests" / "fixtures"
GOLDEN = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.glob("*/*")
    if path.suffix in (".h5", ".keras") and path.with_name(f"{path.stem}.golden.npz").exists()
    if path.name != "bilstm_masked_seq.h5" or "3.0.5" not in path.parent.name
)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_writers_own_answer(name):
    """A file gives the output that its writer computed, and its steps give the bytes of the whole."""
    path = FOLDER / name
    model = RecurrentModel(reader.load(path))
    golden = np.load(path.with_name(f"{path.stem}.golden.npz"))
    x = golden["x0"][..., None] if model.description.vocabulary is not None else golden["x0"]
    x = np.ascontiguousarray(x.astype(model.dtype))

    answer = model.forward(x, model.zero_state(len(x)), all_outputs=model.returns_sequences)

    np.testing.assert_allclose(golden["y0"], answer.output, rtol=0, atol=2e-6)
    selftest.run(model)  # steps and rows against the whole, to the last bit


def test_there_are_enough_of_them():
    """No file of the collection is passed over."""
    assert len(GOLDEN) >= 70
    assert {"keras1.2.2", "keras2.2.4", "keras3.0.5", "keras3.15", "tf2.12", "tf2.15", "tf2.15-dtypes"} == {
        name.split("/")[0] for name in GOLDEN
    }


REFUSED = {
    "keras3.0.5/bilstm_masked_seq.h5": "has two weights in one place. Keras 3.0 to 3.2 broke such files as it wrote them",
    "keras3.15/act_custom.keras": "has a function of its author's own as activation ('pkg>myact'), whose code is not in the file",
    "keras3.15/mc_dropout.keras": "was called with training=True (Monte-Carlo dropout), so Keras itself answers at random",
    "keras3.15/npz_weights.keras": "the archive has no model.weights.h5; it holds config.json, metadata.json, model.weights.npz",
    "keras3.15/quant_int8.keras": "computes in QuantizedDTypePolicy; only float32 and float64 are served",
    "keras3.15/subclass.keras": "is a class of its author's own ('fix>Sub'), whose code is not in the file",
    "keras3.15/with_lambda.keras": "layer 'lambda' (Lambda) is of a kind that is not served",
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_of_a_refusal(name):
    """A file that cannot be served says why."""
    with pytest.raises(ModelRefused) as refused:
        reader.load(FOLDER / name)

    assert REFUSED[name] in str(refused.value)


def test_names_are_no_places():
    """In name_trap.keras the layer lstm_2 has its weights in the group lstm_1, and lstm_1 in lstm."""
    description = reader.load(FOLDER / "keras3.15" / "name_trap.keras")

    lstms = [layer for layer in description.layers if layer.kind == "LSTM"]
    with zipfile.ZipFile(FOLDER / "keras3.15" / "name_trap.keras") as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        stored = [file[f"layers/{group}/cell/vars/0"][()] for group in ("lstm", "lstm_1")]

    assert ["lstm_1", "lstm_2"] == [layer.name for layer in lstms]
    for layer, expected in zip(lstms, stored, strict=True):
        np.testing.assert_array_equal(expected, layer.weights["kernel"])
