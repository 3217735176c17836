"""Files that six versions of Keras wrote, from 1.2.2 to 3.15: each answers as its own Keras did, or is refused with the reason."""

from __future__ import annotations

import io
import itertools
import json
import zipfile

import h5py
import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.runtime import selftest
from tests.support.paths import ROOT

FOLDER = ROOT / "tests" / "fixtures"
PLAIN = {"dir_unzipped", "export_savedmodel", "get_weights.npz", "tfckpt"}
"""What Keras 3 writes under names of their own: all of it is the model of plain.golden.npz, and plain.json its architecture."""

BROKEN = "has two weights in one place. Keras 3.0 to 3.2 broke such files as it wrote them (Bidirectional, nested models): save the model again, as .keras"
PICKLED = "the weights are in model.weights.npz, a pickle, which can run code when it is loaded. Save the model again with h5py installed"
SUBCLASS = "the model (Sub) is the custom class 'fix>Sub'; its code is not in the file"
NO_ARCHITECTURE = (
    "the file holds weights without the model's configuration. Give it with --architecture (what model.to_json() writes), "
    "or save the whole model: model.save('model.keras')"
)
REFUSED = {
    "keras3.0.5/bilstm_concat.h5": f"layer 'bidirectional' (Bidirectional) {BROKEN}",
    "keras3.0.5/bilstm_masked_seq.h5": f"layer 'bidirectional_2' (Bidirectional) {BROKEN}",
    "keras3.0.5/nested.h5": "layer 'inner/inner_lstm' (LSTM) has no weights in the file; expected kernel, recurrent_kernel, bias",
    "keras3.0.5/npz_weights.keras": PICKLED,
    "keras3.0.5/rnn_stacked_cells.h5": f"layer 'rnn_1' (RNN) {BROKEN}",
    "keras3.0.5/subclass.keras": SUBCLASS,
    "keras3.0.5/subclass.weights.h5": NO_ARCHITECTURE,
    "keras3.15/act_custom.keras": "layer 'lstm_3' (LSTM) has the custom function 'pkg>myact' as activation; its code is not in the file",
    "keras3.15/mc_dropout.keras": "layer 'lstm_7' (LSTM) was called with training=True (Monte-Carlo dropout), so its outputs are random in Keras too. Save the model again without it",
    "keras3.15/npz_weights.keras": PICKLED,
    "keras3.15/quant_int8.keras": "layer 'dense_14' (Dense) computes in QuantizedDTypePolicy; supported: float32, float64, float16, mixed_float16, bfloat16, "
    "mixed_bfloat16. Rebuild the model with keras.config.set_dtype_policy('float32'), copy the weights with set_weights, and save it again",
    "keras3.15/subclass.keras": SUBCLASS,
    "keras3.15/subclass.weights.h5": NO_ARCHITECTURE,
    "keras3.15/with_lambda.keras": "layer 'lambda' (Lambda) is of a kind that is not supported: it contains custom code, which is never run. Rebuild the "
    "model with Keras' own layers. Its LSTM layers can be served alone, one at a time: --layer lstm_4; or the model as far as a layer: --until NAME",
}


def _is_model(path):
    """Returns whether a file or folder is one to load, and not what belongs to another."""
    companion = path.name.endswith((".golden.npz", ".pyc")) or path.name.startswith("sharded_0")
    return not companion and (path.suffix != ".json" or path.name.endswith(".weights.json"))


MODELS = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*") if _is_model(path))
SERVED = [name for name in MODELS if name not in REFUSED]


def _stem(name):
    """Returns what the files of one model share of their name."""
    folder, file = name.split("/")
    return f"{folder}/{'plain' if file in PLAIN else file.split('.')[0]}"


def _load(name):
    """Returns the description of a file; the architecture of weights alone is found alongside, or else is plain.json."""
    path = FOLDER / name
    named = path.name in PLAIN and path.name != "dir_unzipped"
    return reader.load(path, architecture=path.with_name("plain.json") if named else None)


def _golden(name, model):
    """Returns the inputs, as the model takes them, and the outputs that the writer computed."""
    golden = np.load(FOLDER / f"{_stem(name)}.golden.npz")
    arrays = {key: golden[key] for key in golden}
    if "time_major" in name:  # whose batch is the second axis
        arrays = {key: array.swapaxes(0, 1) for key, array in arrays.items()}
    inputs = [arrays[f"x{number}"] for number in range(len(model.inputs))]
    ids = [item.vocabulary is not None for item in model.inputs]
    inputs = [x[..., None] if is_ids else x for x, is_ids in zip(inputs, ids, strict=True)]
    inputs = tuple(np.ascontiguousarray(x.astype(model.dtype)) for x in inputs)
    return inputs, [arrays[f"y{number}"].astype(np.float64) for number in range(len(model.outputs))]


def _half_precision(name):
    """Returns how far from exact Keras is, as the remark says it, where it computes in half precision; else None."""
    return "1e-2" if "bfloat16" in name else "1e-3" if "float16" in name else None


@pytest.mark.parametrize("name", SERVED)
def test_the_writers_own_answer(name):
    """A file gives the outputs that its writer computed, and passes the self-test: its steps and rows give the whole's bytes."""
    model = RecurrentModel(_load(name))
    inputs, expected = _golden(name, model)
    near, relative = (2e-6, 1e-5) if (half := _half_precision(name)) is None else (float(half), float(half))

    answer = model.forward(inputs, model.zero_state(len(inputs[0])), all_outputs=model.returns_sequences)

    assert [y.shape for y in expected] == [output.shape for output in answer.outputs]
    for y, output in zip(expected, answer.outputs, strict=True):
        tolerance = np.where(np.abs(y) > 1, relative * np.abs(y), near)
        assert np.max(np.abs(y - output) / tolerance) <= 1
    assert len(selftest.run(model)) == 32


@pytest.mark.parametrize("name", [name for name in SERVED if _half_precision(name)])
def test_half_precision_is_remarked(name):
    """A model that Keras computes in half precision is computed in float32, and says how far from exact Keras is."""
    policy = _stem(name).split("/lstm_")[1]

    description = _load(name)

    assert np.float32 == description.dtype
    remark = f"Keras computes layer 'lstm' (LSTM) in {policy}, and is up to {_half_precision(name)} from exact for it; here it is float32"
    assert (remark,) == description.source.remarks


def test_float64_stays_float64():
    """A model whose layers are float64 is computed in float64, to the last digits that Keras gives."""
    model = RecurrentModel(_load("tf2.15-dtypes/lstm_float64.keras"))

    assert np.float64 == model.dtype


ONE_PER_MODEL = {_stem(name): name for name in reversed(SERVED)}


@pytest.mark.parametrize("name", sorted(ONE_PER_MODEL.values()))
def test_step_by_step(name):
    """The input of the writer, fed one time-step at a time, gives the bytes of the whole; a model that looks ahead says so."""
    model = RecurrentModel(_load(name))
    inputs, _ = _golden(name, model)
    rows = len(inputs[0])
    if not model.causal:
        assert model.step_obstacle
        return
    whole = model.forward(inputs, model.zero_state(rows), all_outputs=True)

    state, seen, outputs = model.zero_state(rows), np.zeros(rows, bool), []
    for t in range(inputs[0].shape[1]):
        answer = model.step(np.ascontiguousarray(inputs[0][:, t]), state, seen)
        state, seen = answer.state, seen | (answer.steps > 0)
        outputs.append(answer.outputs)

    for number, output in enumerate(whole.outputs):
        assert output.tobytes() == np.stack([each[number] for each in outputs], axis=1).tobytes()
    for whole_part, part in zip(whole.state, state, strict=True):
        assert [array.tobytes() for array in whole_part] == [array.tobytes() for array in part]


SEVERAL_FORMATS = {
    stem: names
    for stem, group in itertools.groupby(sorted(SERVED, key=_stem), key=_stem)
    if len(names := list(group)) > 1
}


@pytest.mark.parametrize("stem", SEVERAL_FORMATS)
def test_one_model_one_digest(stem):
    """A model has the same digest in whatever format it was saved."""
    assert len({_load(name).digest() for name in SEVERAL_FORMATS[stem]}) == 1


def test_there_are_enough_of_them():
    """Every writer and every format is there, and no file is passed over."""
    assert set(REFUSED) <= set(MODELS)
    assert len(SERVED) >= 220
    assert len(SEVERAL_FORMATS) >= 50
    assert {name.split("/")[0] for name in SERVED} == {
        "keras1.2.2",
        "keras2.2.4",
        "keras3.0.5",
        "keras3.15",
        "tf2.12",
        "tf2.15",
        "tf2.15-dtypes",
    }
    formats = {_load(name).source.format for name in SERVED}
    assert formats == {
        "keras-folder",
        "keras-hdf5",
        "keras-shards",
        "keras-weights",
        "keras-zip",
        "numpy-npz",
        "tf-checkpoint",
        "tf-savedmodel",
    }


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_of_a_refusal(name):
    """A file that cannot be served says why."""
    with pytest.raises(UnsupportedModelError) as refused:
        reader.load(FOLDER / name)

    assert str(refused.value) == f"{FOLDER / name}: {REFUSED[name]}"


def test_a_subclass_with_its_configuration(tmp_path):
    """Weights alone of a subclassed model are refused with another reason, if its configuration is given."""
    path = FOLDER / "keras3.15" / "subclass.weights.h5"
    with zipfile.ZipFile(path.with_name("subclass.keras")) as archive:
        config = json.loads(archive.read("config.json"))
    architecture = tmp_path / "subclass.json"
    architecture.write_text(json.dumps(config | {"keras_version": "3.15.1"}))

    with pytest.raises(UnsupportedModelError) as refused:
        reader.load(path, architecture=architecture)

    assert str(refused.value) == f"{path}: {SUBCLASS}"


def test_hdf5_called_keras():
    """A .keras file of TensorFlow 2.12 is HDF5 in truth, and is read as that."""
    description = _load("tf2.12/lstm_last.keras")

    assert (description.source.format, description.source.keras_version) == ("keras-hdf5", "2.12.0")


def test_the_shards_are_one_model():
    """Weights in three files are each read from the file that has them, those of one layer from two."""
    folder = FOLDER / "keras3.15"
    stored = {}
    for shard in sorted(folder.glob("sharded_0*.weights.h5")):
        with h5py.File(shard) as file:
            file.visititems(
                lambda name, item: stored.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )

    layers = {layer.name: layer for layer in _load("keras3.15/sharded.weights.json").layers}

    kinds = {"lstm_17": "lstm/cell", "lstm_18": "lstm_1/cell", "dense_15": "dense"}
    assert len(stored) == 8
    for name, group in kinds.items():
        for number, weight in enumerate(layers[name].weights.values()):
            np.testing.assert_array_equal(stored[f"layers/{group}/vars/{number}"], weight)


def test_names_are_no_places():
    """In name_trap.keras the layer lstm_2 has its weights in the group lstm_1, and lstm_1 in lstm."""
    description = reader.load(FOLDER / "keras3.15" / "name_trap.keras")

    lstms = [layer for layer in description.layers if layer.kind == "LSTM"]
    with zipfile.ZipFile(FOLDER / "keras3.15" / "name_trap.keras") as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        stored = [file[f"layers/{group}/cell/vars/0"][()] for group in ("lstm", "lstm_1")]

    assert [layer.name for layer in lstms] == ["lstm_1", "lstm_2"]
    for layer, expected in zip(lstms, stored, strict=True):
        np.testing.assert_array_equal(expected, layer.weights["kernel"])
