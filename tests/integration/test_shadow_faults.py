"""Faults in the served model are found by the comparison with Keras, and where they are."""

from __future__ import annotations

import contextlib
import itertools

import keras
import numpy as np
import pytest

from lstmserve.report_text import array_name
from lstmserve.v1 import shadow_pb2
from lstmserve_server.loading import reader
from lstmserve_server.loading.store.memory_files import copy_of, weights_memfd
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.recording import Recording
from lstmserve_server.runtime.calls import ForwardCall
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.shadow import captured_call as cases
from lstmserve_server.shadow import gate_differences, reference_process
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.reference.service import Service
from lstmserve_server.shadow.reference_process import ComparedModel, ReferenceLimits
from tests.support import shadow_faults as faults
from tests.support.paths import FIXTURES

pytestmark = pytest.mark.filterwarnings("ignore")  # what Keras warns of is its own affair

UNITS, OTHER_UNITS = 7, 7
TIME = 40
CALLS = 20


def _save(path, recurrent_activation):
    """Saves a model of two LSTMs of as many units each, of weights that are all distinct, and a Dense layer behind them."""
    random = np.random.default_rng(3)
    layers = [
        keras.layers.LSTM(UNITS, return_sequences=True, recurrent_activation=recurrent_activation, name="below"),
        keras.layers.LSTM(OTHER_UNITS, recurrent_activation=recurrent_activation, name="above"),
        keras.layers.Dense(2, name="head"),
    ]
    model = keras.Sequential([keras.layers.Input((None, 3)), *layers])
    model.set_weights([random.normal(size=w.shape) / np.sqrt(w.shape[0]) * 1.3 for w in model.get_weights()])
    model.save(path)


def _save_sensitive(path, _):
    """Saves a model whose recurrent gain is so large that it never settles."""
    random, units = np.random.default_rng(3), 32
    model = keras.Sequential([keras.layers.Input((None, 3)), keras.layers.LSTM(units, return_sequences=True)])
    gains = (0.5, 10 / np.sqrt(units), 0.3)
    model.set_weights([random.normal(size=w.shape) * gain for w, gain in zip(model.get_weights(), gains, strict=True)])
    model.save(path)


def prepared(name, path):
    """Returns a model with the copy of its file that Keras is given."""
    return ServedModel.prepare(name, reader.load(path), Numerics.EXACT, copy=copy_of(path, 1 << 30))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What answers in the reference process, here in this one, and the models that it knows."""
    folder = tmp_path_factory.mktemp("models")
    subjects = {}
    for name, save in (("sigmoid", _save), ("hard_sigmoid", _save), ("sensitive", _save_sensitive)):
        path = folder / f"{name}.keras"
        save(path, name)
        subjects[name] = ComparedModel(prepared(name, path), str(path))
    with weights_memfd() as weights:
        service = Service(
            reference_process.setup(list(subjects.values()), Tolerances(), ReferenceLimits(), weights, str(folder))
        )
    return service, {name: subject.served for name, subject in subjects.items()}


class Found:
    """What the first call over tolerance showed, and the number of that call."""

    def __init__(self, reference, name="sigmoid", fault=None, answered=None, time=TIME):
        service, models = reference
        for known in service._models.values():
            known.examiner._tallies.clear()  # it remembers the faults of other tests
        served = models[name]
        random = np.random.default_rng(5)
        self.comparison = None
        for self.calls in range(1, CALLS + 1):
            x = random.normal(size=(2, time, 3)).astype(np.float32)
            state = tuple(
                type(part)(*(np.tanh(random.normal(size=a.shape)).astype(np.float32) for a in part))
                for part in served.model.zero_state(2)
            )
            call = ForwardCall(served, (x,), state, np.full(2, 5), False, None, all_outputs=True)
            recording = Recording()
            with fault() if fault else contextlib.nullcontext():
                answer = served.model.forward((x,), state, all_outputs=True, seen=call.seen, recording=recording)
            if answered:
                answer = answered(answer)
            with fault() if fault else contextlib.nullcontext():
                data = cases.capture(call, answer, recording, "Forward").to_bytes()
                reply = reference_process.reply(*service.answer({"detailed": False, "again": False}, data)[1:])
                gate_differences.name_gates(served.model, reply, Tolerances())
            self.last = reply.comparison
            if reply.comparison.verdict == shadow_pb2.VERDICT_DIFFERS:
                self.comparison = reply.comparison
                break

    @property
    def where(self):
        """Layer, array and gates of the first place over tolerance."""
        first = self.comparison.first_location
        return first.layer, array_name(first.array), first.gates


@pytest.mark.parametrize(
    ("layer", "which", "index", "gate"),
    [
        (name, which, (*index, column * UNITS + unit), gate)
        for name, (which, index), (column, gate), unit in itertools.product(
            ("below", "above"), (("kernel", (1,)), ("recurrent_kernel", (2,)), ("bias", ())), enumerate("ifco"), (0, 5)
        )
    ],
)
def test_one_weight_off(reference, layer, which, index, gate):
    """One weight off by 1e-4 is found, with layer, unit and gate, whichever array and gate it is of."""
    place = {"below": 1, "above": 2}[layer]
    lstm = reference[1]["sigmoid"].model.lstm(place, 0)
    found = Found(reference, fault=lambda: faults.weights(lstm, faults.off(which, index, 1e-4)))
    assert found.comparison is not None
    assert layer == found.comparison.first_location.layer
    assert index[-1] % UNITS == found.comparison.first_location.unit
    assert gate == found.comparison.first_location.gates


@pytest.mark.parametrize(
    ("one", "other", "gates"),
    [(0, 1, "i f"), (0, 2, "i c"), (0, 3, "i o"), (1, 2, "f c"), (1, 3, "f o"), (2, 3, "c o")],
)
def test_two_gates_exchanged(reference, one, other, gates):
    """Two gates exchanged are found in the first call, at its first step, as those two gates."""
    lstm = reference[1]["sigmoid"].model.lstm(2, 0)
    found = Found(reference, fault=lambda: faults.weights(lstm, faults.exchanged(one, other)))
    assert found.calls == 1
    assert found.comparison.first_location.step == 0
    assert ("above", gates) == (found.where[0], found.where[2])


def test_h_and_c_exchanged(reference):
    """The exchange of h and c in an answer is found at its last step, in the layer, while the gates agree."""
    found = Found(reference, answered=faults.h_and_c_exchanged)
    assert found.calls == 1
    assert found.comparison.first_location.step == TIME - 1
    assert found.where == ("below", "c", "")


def test_bias_missing(reference):
    """A bias that is missing is found in the first call, at all gates."""
    lstm = reference[1]["sigmoid"].model.lstm(1, 0)
    found = Found(reference, fault=lambda: faults.weights(lstm, faults.without_bias))
    assert found.calls == 1
    assert found.where == ("below", "c", "i f c o")


def test_forget_bias_twice(reference):
    """A forget gate's bias that is added twice is found in the first call, at that gate alone."""
    lstm = reference[1]["sigmoid"].model.lstm(1, 0)
    found = Found(reference, fault=lambda: faults.weights(lstm, faults.forget_bias_twice))
    assert found.calls == 1
    assert found.where == ("below", "c", "f")


def test_hard_sigmoid_of_the_wrong_version(reference):
    """The hard_sigmoid of Keras 2 in a model of Keras 3 is found in the first call, at the gates that go through it."""
    lstm = reference[1]["hard_sigmoid"].model.lstm(1, 0)
    found = Found(reference, "hard_sigmoid", fault=lambda: faults.other_hard_sigmoid(lstm))
    assert found.calls == 1
    assert found.where[0] == "below"
    assert set(found.where[2].split()) <= {"i", "f", "o"}
    assert found.where[2]


def test_state_of_the_wrong_layer(reference):
    """The state of another layer in an answer is found at its last step, in both layers, while the gates agree."""
    found = Found(reference, answered=faults.states_exchanged)
    assert found.calls == 1
    assert found.comparison.first_location.step == TIME - 1
    assert found.where == ("below", "c", "")
    assert {totals.layer for totals in found.comparison.teacher_forced if totals.over_tolerance_count} == {
        "below",
        "above",
    }


def test_c_zeroed(reference):
    """A c that is zeroed at step 17 of 40 is found at step 17, while the gates agree."""
    found = Found(reference, fault=lambda: faults.c_zeroed_at(17, UNITS))
    assert found.calls == 1
    assert found.comparison.first_location.step == 17
    assert found.where == ("below", "c", "")
    assert found.comparison.first_location.ours == 0


@pytest.mark.parametrize(
    ("fault", "where"), [(faults.nan_in_output, ("head", "output", "")), (faults.nan_in_state, ("above", "c", ""))]
)
def test_nan(reference, fault, where):
    """A NaN in an answer is found in the first call, and counted as such."""
    found = Found(reference, answered=fault)
    assert found.calls == 1
    assert where == found.where
    assert sum(totals.nan_mismatch_count for totals in found.comparison.teacher_forced) == 1


def test_nothing_where_nothing_is_wrong(reference):
    """Right answers are within tolerance, in every call."""
    found = Found(reference)
    assert found.comparison is None
    assert found.calls == CALLS


def test_drift_raises_no_alarm(reference):
    """A sensitive model drifts away from Keras on its own, as far as its numbers go, and no alarm is raised."""
    found = Found(reference, "sensitive", time=100)
    assert found.comparison is None
    assert found.calls == CALLS
    drift = max(totals.max_absolute for totals in found.last.free_running if totals.array == shadow_pb2.ARRAY_KIND_H)
    forced = max(totals.max_absolute for totals in found.last.teacher_forced if totals.array == shadow_pb2.ARRAY_KIND_H)
    assert drift > 0.1
    assert forced < 1e-5


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("keras3.15/lstm_seq_relu_hardsig_nobias.keras", shadow_pb2.REFERENCE_MODEL_KIND_KERAS_FILE),
        ("tf2.15/lstm_emb_mask.keras", shadow_pb2.REFERENCE_MODEL_KIND_TF_KERAS_FILE),
        ("keras1.2.2/bilstm_td.h5", shadow_pb2.REFERENCE_MODEL_KIND_KERAS_LAYERS),
        ("tf2.15/lstm_last.savedmodel", shadow_pb2.REFERENCE_MODEL_KIND_KERAS_LAYERS),
        ("keras3.15/conv_bn_ln_lstm.keras", shadow_pb2.REFERENCE_MODEL_KIND_KERAS_FILE),
        ("keras3.15/shared_siamese.keras", shadow_pb2.REFERENCE_MODEL_KIND_KERAS_FILE),
    ],
)
def test_each_kind_of_witness(tmp_path, file, kind):
    """Models of each era and format agree with the witness that there is for them, which is named."""
    path = FIXTURES / file
    served = prepared("model", path)
    with weights_memfd() as weights:
        service = Service(
            reference_process.setup(
                [ComparedModel(served, str(path))], Tolerances(), ReferenceLimits(), weights, str(tmp_path)
            )
        )
    random, model, recording = np.random.default_rng(2), served.model, Recording()
    inputs = tuple(
        random.integers(0, item.vocabulary or 5, (3, item.shape[0] or 9, *item.features)).astype(np.float32)
        for item in model.inputs
    )
    answer = model.forward(inputs, model.zero_state(3), recording=recording)
    call = ForwardCall(served, inputs, model.zero_state(3), None, as_values=False, lengths=None, all_outputs=False)
    data = cases.capture(call, answer, recording, "Forward").to_bytes()
    comparison = reference_process.reply(*service.answer({"detailed": True, "again": False}, data)[1:]).comparison
    assert comparison.verdict == shadow_pb2.VERDICT_AGREES
    assert kind == comparison.reference_model.kind
    assert {"h", "c"} <= {array_name(totals.array) for totals in comparison.teacher_forced}
