"""Faults in the served model are found by the comparison with Keras, and where they are."""

from __future__ import annotations

import contextlib
import itertools

import keras
import numpy as np
import pytest

from lstmserve.v1 import shadow_pb2
from lstmserve_server.codec import ForwardCall
from lstmserve_server.keras_reference.service import Service
from lstmserve_server.loading import reader
from lstmserve_server.loading.sandbox import room_for_weights
from lstmserve_server.numerics import Numerics
from lstmserve_server.registry import ServedModel
from lstmserve_server.shadow import case as cases
from lstmserve_server.shadow import places, process
from lstmserve_server.shadow.comparing import Tolerances
from lstmserve_server.shadow.process import Limits, Subject
from lstmserve_server.trace import Trace
from tests import shadow_faults as faults

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


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What answers in the reference process, here in this one, and the models that it knows."""
    folder = tmp_path_factory.mktemp("models")
    subjects = {}
    for activation in ("sigmoid", "hard_sigmoid"):
        path = folder / f"{activation}.keras"
        _save(path, activation)
        subjects[activation] = Subject(
            ServedModel.prepare(activation, reader.load(path), Numerics.EXACT), str(path), whole=True
        )
    with room_for_weights() as weights:
        service = Service(process.setup(list(subjects.values()), Tolerances(), Limits(), weights))
    return service, {name: subject.served for name, subject in subjects.items()}


class Found:
    """What the first call over tolerance showed, and the number of that call."""

    def __init__(self, reference, name="sigmoid", fault=None, answered=None):
        service, models = reference
        for known in service._models.values():
            known.examiner._tallies.clear()  # it remembers the faults of other tests
        served = models[name]
        random = np.random.default_rng(5)
        self.comparison = None
        for self.calls in range(1, CALLS + 1):
            x = random.normal(size=(2, TIME, 3)).astype(np.float32)
            state = tuple(
                type(part)(*(np.tanh(random.normal(size=a.shape)).astype(np.float32) for a in part))
                for part in served.model.zero_state(2)
            )
            call = ForwardCall(served, (x,), state, np.full(2, 5), False, None, all_outputs=True)
            trace = Trace()
            with fault() if fault else contextlib.nullcontext():
                answer = served.model.forward((x,), state, all_outputs=True, seen=call.seen, trace=trace)
            if answered:
                answer = answered(answer)
            with fault() if fault else contextlib.nullcontext():
                data = cases.of(call, answer, trace, "Forward").to_bytes()
                reply = process.reply(*service.answer({"detailed": False}, data)[1:])
                places.name_gates(served.model, reply, Tolerances())
            if reply.comparison.verdict == shadow_pb2.VERDICT_DIFFERS:
                self.comparison = reply.comparison
                break

    @property
    def where(self):
        """Layer, array and gates of the first place over tolerance."""
        first = self.comparison.first
        return first.layer, first.array, first.gates


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
    assert layer == found.comparison.first.layer
    assert index[-1] % UNITS == found.comparison.first.unit
    assert gate == found.comparison.first.gates
