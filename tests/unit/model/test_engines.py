"""Another engine than NumPy: what it computes, what it is refused for, and who has it at all. Its promises P1 and P2 are with
NumPy's, in `test_lstm` and `test_model`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

import lstmserve
from lstmserve_server.core.errors import UnsupportedModelError, WrongForModel
from lstmserve_server.model.engines import conformance, select
from lstmserve_server.model.engines.numpy_kernel import NumpyKernel
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Engine, Numerics, matmul_of
from lstmserve_server.model.recording import Recording
from lstmserve_server.rpc.codec.models import model_message
from lstmserve_server.runtime import selftest
from lstmserve_server.runtime.registry import ServedModel
from tests.support.builders import (
    KerasMajor,
    activation,
    cell_of,
    chain,
    dense_layer,
    lstm_layer,
    model,
    numbers,
    small_model,
)
from tests.support.each_engine import ONNX
from tests.support.live import QUICK, run, serving

SUNSPOTS = "examples/sunspots/sunspots.keras"
onnx = pytest.mark.usefixtures("onnxruntime")
SPEC = LSTMSpec(5, activation("tanh"), activation("sigmoid"))
WEIGHTS = LSTMWeights(numbers(3, 20, seed=1), numbers(5, 20, seed=2, scale=0.4), numbers(20, seed=3))
SAME = [("tanh", KerasMajor.KERAS_3), ("sigmoid", KerasMajor.KERAS_3), ("relu", KerasMajor.KERAS_3), ("hard_sigmoid", KerasMajor.KERAS_2), ("hard_sigmoid", KerasMajor.KERAS_3)]  # fmt: skip


@pytest.fixture
def onnxruntime():
    """Returns the package."""
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def state_of(batch, units):
    """Returns a state that is not zero."""
    return LSTMState(np.tanh(numbers(batch, units, seed=4)), numbers(batch, units, seed=5))


def reference(spec=SPEC, weights=WEIGHTS):
    """Returns a layer in NumPy."""
    return NumpyKernel(spec, weights, matmul_of(Numerics.EXACT))


class Wrapped:
    """A cell that does something else to what it gives."""

    def __init__(self, cell, *, step=lambda state, x: state, forward=lambda outputs, x: outputs):
        self._cell, self._step, self._forward = cell, step, forward

    def step(self, x, state):
        """Advances by a step, and then does something."""
        return self._step(self._cell.step(x, state), x)

    def forward(self, x, state, record=None):
        """Advances by a sequence, and then does something."""
        outputs, after = self._cell.forward(x, state, record)
        return self._forward(outputs, x), after


@onnx
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inner", "inner_era"), SAME)
@pytest.mark.parametrize(("recurrent", "era"), SAME)
def test_every_activation_that_is_offered_is_keras_own(recurrent, era, inner, inner_era, bias):
    """A step is NumPy's up to rounding, far into where activations saturate too."""
    spec = LSTMSpec(5, activation(inner, inner_era), activation(recurrent, era))
    weights = WEIGHTS if bias else WEIGHTS._replace(bias=None)
    x, state = numbers(40, 3) * np.logspace(-3, 1, 40, dtype=np.float32)[:, None], state_of(40, 5)

    expected, got = (cell_of(engine, spec, weights).step(x, state) for engine in Engine)

    for ours, theirs in zip(expected, got, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


@onnx
@pytest.mark.slow
@pytest.mark.parametrize("units", [1, 31, 64, 127, 256, 1024])
@pytest.mark.parametrize("features", [1, 16, 700])
def test_p1_and_p2_hold_at_sizes_of_real_models(units, features):
    """Whatever the size, a row's bytes are those that it has alone and step by step (P1, P2)."""
    weights = LSTMWeights(
        numbers(features, 4 * units, seed=1, scale=features**-0.5),
        numbers(units, 4 * units, seed=2, scale=units**-0.5),
        None,
    )
    cell = cell_of(Engine.ONNXRUNTIME, dataclasses.replace(SPEC, units=units), weights)
    x, state = numbers(70, 9, features), state_of(70, units)

    outputs, after = cell.forward(x, state)
    stepped = state
    for t in range(9):
        stepped = cell.step(np.ascontiguousarray(x[:, t]), stepped)
        assert stepped.h.tobytes() == outputs[:, t].tobytes()
    for rows in ([0], [69], [5, 3], list(range(17)), list(range(1, 65)), list(range(69, 35, -1))):
        some, some_after = cell.forward(x[rows], LSTMState(state.h[rows], state.c[rows]))
        assert some.tobytes() == outputs[rows].tobytes()
        assert some_after.c.tobytes() == after.c[rows].tobytes() == stepped.c[rows].tobytes()


@onnx
@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_bytes_do_not_depend_on_where_numbers_lie(offset):
    """The bytes are the same wherever in memory x, h and c begin."""
    cell, x, state = cell_of(Engine.ONNXRUNTIME, SPEC, WEIGHTS), numbers(4, 6, 3), state_of(4, 5)

    def moved(array):
        room = np.empty(array.size + offset, array.dtype)[offset:].reshape(array.shape)
        room[:] = array
        return room

    outputs, _ = cell.forward(x, state)
    again, _ = cell.forward(moved(x), LSTMState(*map(moved, state)))

    assert outputs.tobytes() == again.tobytes()


GATES = np.concatenate([np.arange(5) + 5 * gate for gate in (0, 2, 1, 3)])
WRONG = {
    "gates in another order": lambda w: LSTMWeights(*(array[..., GATES] for array in w)),
    "one weight a thousandth off": lambda w: w._replace(kernel=w.kernel + np.eye(3, 20, dtype=np.float32) * 1e-3),
    "no bias": lambda w: w._replace(bias=None),
    "weights that are not numbers": lambda w: w._replace(kernel=w.kernel * np.float32(np.nan)),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_layer_that_computes_something_else_is_refused(change):
    """A cell that differs from NumPy is refused, with the layer and how far it is off."""
    wrong = reference(weights=change(WEIGHTS))

    with pytest.raises(
        UnsupportedModelError, match=r"layer 'late': other 1 is \S+ times as far from NumPy as it may be, on a probe"
    ):
        conformance.check("late", "other 1", wrong, reference(), Numerics.EXACT)


def moved_by_company(outputs, x):
    """Moves the last bits where there are several rows."""
    return outputs + np.float32(1e-7) * (len(x) > 1) * outputs


def moved_by_time(outputs, x):
    """Moves the last bits after the first step."""
    outputs = outputs.copy()
    outputs[:, 1:] *= np.float32(1 + 3e-7)
    return outputs


@pytest.mark.parametrize("forward", [moved_by_company, moved_by_time])
def test_exact_mode_refuses_a_layer_that_breaks_a_promise(forward):
    """A cell whose last bits depend on company or cut is refused in exact mode, and only there."""
    cell = Wrapped(reference(), forward=forward)

    with pytest.raises(
        UnsupportedModelError, match=r"layer 'late': other 1 gives other bytes for .* or with --numerics fast"
    ):
        conformance.check("late", "other 1", cell, reference(), Numerics.EXACT)
    conformance.check("late", "other 1", cell, reference(), Numerics.FAST)


def test_fast_mode_refuses_a_sequence_that_is_another():
    """A cell whose sequences have nothing to do with its steps is refused in either mode."""
    cell = Wrapped(reference(), forward=lambda outputs, x: outputs[:, ::-1])

    with pytest.raises(
        UnsupportedModelError, match="layer 'late': other 1 computes something else for a whole sequence"
    ):
        conformance.check("late", "other 1", cell, reference(), Numerics.FAST)


@pytest.mark.parametrize(("off", "over"), [(0.9, False), (1.1, True)])
def test_large_numbers_may_be_off_in_proportion(off, over):
    """Above 1 the tolerance is that share of the number; so a cell that is off by 1.1 of it is over, however large the number is."""
    cell = reference()
    x, before = numbers(3, 3), LSTMState(numbers(3, 5, seed=1), 40 + numbers(3, 5, seed=2))
    right = cell.step(x, before)
    wrong = LSTMState(right.h, right.c * np.float32(1 + off * 1e-5))

    assert (right.c > 1).all()
    assert (conformance._margin(cell, x, before, wrong) > 1) == over


class InFloat64:
    """A matrix product that is rounded once."""

    def __call__(self, x, w, out):
        """Writes the product into `out`."""
        np.copyto(out, (x.astype(float) @ w).astype(out.dtype))

    def bind(self, x, w, out):
        """Returns what does so as often as it is called."""
        return lambda: self(x, w, out)


def test_large_weights_are_no_reason_to_refuse():
    """Where weights are large two right computations are farther apart, and the probe knows by how much."""
    weights = LSTMWeights(*(array * 300 for array in WEIGHTS))
    exact = NumpyKernel(SPEC, weights, matmul_of(Numerics.EXACT))
    other = Wrapped(NumpyKernel(SPEC, weights, InFloat64()))

    conformance.check("lstm", "other 1", other._cell, exact, Numerics.FAST)


@onnx
def test_a_model_whose_layer_differs_is_not_served(monkeypatch):
    """What the probe finds keeps the whole model from being served."""
    from lstmserve_server.model.engines import onnx_graph  # noqa: PLC0415 - alongside the fixture

    right = onnx_graph.lstm
    monkeypatch.setattr(onnx_graph, "lstm", lambda weights, functions: right(weights._replace(bias=None), functions))

    with pytest.raises(UnsupportedModelError, match=r"layer 'first': onnxruntime \S+ is \S+ times as far from NumPy"):
        ServedModel.prepare("small", small_model().description, Numerics.EXACT, Engine.ONNXRUNTIME)


@onnx
def test_a_graph_that_is_not_taken_is_refused(monkeypatch):
    """What ONNX Runtime says of a graph is in the text."""
    from lstmserve_server.model.engines import onnx_graph  # noqa: PLC0415 - alongside the fixture

    monkeypatch.setattr(onnx_graph, "lstm", lambda weights, functions: b"nonsense")

    with pytest.raises(
        UnsupportedModelError,
        match=r"layer 'first': onnxruntime \S+ does not take it \(.*\); serve with --engine numpy",
    ):
        small_model(engine=Engine.ONNXRUNTIME)


OTHERS = [
    (
        [lstm_layer(3, 4, inner="softsign")],
        3,
        "has the activation softsign, which ONNX Runtime does not compute as Keras does",
    ),
    ([lstm_layer(3, 4, recurrent="softmax")], 3, "has the activation softmax, which"),
    ([lstm_layer(3, 4, dtype=np.float64)], 3, "computes in float64, and ONNX Runtime's LSTM in float32"),
]


@onnx
@pytest.mark.parametrize(("layers", "features", "reason"), OTHERS)
def test_numpy_computes_what_the_engine_cannot(layers, features, reason):
    """A layer that ONNX Runtime would not compute as Keras stays with NumPy, to the byte, and the model says so."""
    plain, other = model(*layers, features=features), model(*layers, features=features, engine=Engine.ONNXRUNTIME)
    x = numbers(2, 6, features, dtype=plain.dtype)

    expected, got = (made.forward((x,), made.zero_state(2)).output for made in (plain, other))

    assert expected.tobytes() == got.tobytes()
    assert other.engine == f"numpy {np.__version__}"
    assert selftest.run(plain) == selftest.run(other)
    (remark,) = other.engine_remarks
    assert remark.startswith(f"layer 'lstm' {reason}")
    assert remark.endswith("so NumPy computes it")


@onnx
def test_who_computes_is_in_the_description_and_in_the_fingerprint(onnxruntime, monkeypatch):
    """GetModel tells engine, version, and which layers stayed with NumPy; another version has another fingerprint."""
    layers = (
        lstm_layer(3, 4, name="a", return_sequences=True),
        lstm_layer(4, 2, name="b", inner="elu"),
        dense_layer(2, 1),
    )
    served = ServedModel.prepare("m", chain(*layers, features=3), Numerics.EXACT, Engine.ONNXRUNTIME)
    message = model_message(served)

    assert message.engine == f"onnxruntime {onnxruntime.__version__}, numpy {np.__version__}"
    assert list(message.remarks) == [
        "layer 'b' has the activation elu, which ONNX Runtime does not compute as Keras does; so NumPy computes it"
    ]
    monkeypatch.setattr(served.model, "engine", "onnxruntime 9.9.9")
    assert served.fingerprint != selftest.run(served.model)


def test_numpy_is_the_default_and_its_fingerprint_is_its_bytes():
    """NumPy's fingerprint is the hash of the mode and of the bytes, as it has been before there was another engine."""
    small = small_model()
    x = next(selftest._probes(small))

    answer = small.forward(x, small.zero_state(3))

    assert small.engine == f"numpy {np.__version__}"
    assert hashlib.sha256(b"exact" + selftest._bytes(answer)).hexdigest()[:32] == selftest.run(small)


@onnx
def test_a_trace_changes_nothing():
    """A call that is compared has the bytes of one that is not, and leaves h and c of every step (P6)."""
    small, x = small_model(engine=Engine.ONNXRUNTIME), numbers(3, 7, 3)
    plain, recording = small.forward((x,), small.zero_state(3), all_outputs=True), Recording()

    with_recording = small.forward((x,), small.zero_state(3), all_outputs=True, recording=recording)

    assert plain.output.tobytes() == with_recording.output.tobytes()
    (steps,) = recording.rectangles[0].steps[2]
    assert with_recording.state[1].h.tobytes() == steps.h[:, -1].tobytes()
    assert with_recording.state[1].c.tobytes() == steps.c[:, -1].tobytes()


@onnx
@pytest.mark.parametrize("what", ["x", "h", "c"])
@pytest.mark.parametrize("value", [1e16, -3e38, np.inf, np.nan])
def test_numbers_behind_which_nobody_sees_an_overflow_are_refused(what, value):
    """ONNX Runtime's activations would make a finite number of NaN: so nothing may come near it."""
    cell, given = cell_of(Engine.ONNXRUNTIME, SPEC, WEIGHTS), {"x": numbers(2, 3), **state_of(2, 5)._asdict()}
    given[what][1, 2] = value

    with (
        pytest.raises(
            WrongForModel, match=r"of layer 'lstm' is above 1e\+15, the most that --engine onnxruntime computes"
        ),
        np.errstate(all="ignore"),
    ):  # as in a model
        cell.step(given["x"], LSTMState(given["h"], given["c"]))


@onnx
def test_numbers_that_grow_are_refused_inside_a_sequence_too():
    """A layer without bound that leaves the range in the middle of a sequence is refused, as it is step by step."""
    growing = lstm_layer(3, 4, inner="relu")
    growing.weights["kernel"][:] = 3
    growing.weights["recurrent_kernel"][:] = 9
    made, x = model(growing, features=3, engine=Engine.ONNXRUNTIME), np.ones((1, 60, 3), np.float32)

    with pytest.raises(WrongForModel, match="of layer 'lstm' is above"):
        made.forward((x,), made.zero_state(1))


@onnx
def test_large_numbers_below_that_are_computed():
    """Numbers far above those of any model are computed as NumPy computes them."""
    x, state = numbers(4, 3) * np.float32(1e12), state_of(4, 5)

    expected, got = (cell_of(engine, SPEC, WEIGHTS).step(x, state) for engine in Engine)

    np.testing.assert_allclose(expected.c, got.c, rtol=1e-6, atol=1e-6)


@onnx
def test_long_sequences_cost_less_than_their_steps():
    """A call is not sent to a thread for what NumPy's calls would cost."""
    plain, other = small_model(), small_model(engine=Engine.ONNXRUNTIME)

    assert plain.work.cost(1, 1) == other.work.cost(1, 1)
    assert plain.work.cost(1, 100) > 50 * other.work.cost(1, 100)


_IMPORTED = """
import sys
from lstmserve_server.model.numerics import Engine, Numerics
from lstmserve_server.cli import commands
from lstmserve_server.serving import server
from lstmserve_server.tools import inspection
from tests.support.builders import small_model
small_model(engine=Engine(sys.argv[1]))
print("onnxruntime" in sys.modules, "onnx" in sys.modules)
"""


@pytest.mark.parametrize(
    ("engine", "imported"), [("numpy", "False False\n"), pytest.param("onnxruntime", "True False\n", marks=ONNX)]
)
def test_only_who_asks_for_it_imports_it(engine, imported):
    """A process that serves with NumPy never imports onnxruntime; and no one the package onnx."""
    ended = subprocess.run([sys.executable, "-c", _IMPORTED, engine], capture_output=True, text=True, check=True)

    assert (imported, "") == (ended.stdout, ended.stderr)


def test_without_the_package_the_server_says_how_to_get_it(tmp_path, monkeypatch):
    """Where onnxruntime is not installed the setting is one sentence and exit code 3."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'onnxruntime' else found(name, package)\n"
    )
    monkeypatch.setenv("PYTHONPATH", ":".join([str(tmp_path), *filter(None, sys.path)]))

    ended = run("serve", SUNSPOTS, "--engine", "onnxruntime", "--listen", "127.0.0.1:0", "--log-level", "error")

    assert ended.returncode == 3
    assert (
        "lstmserve: --engine onnxruntime needs packages that are not installed (onnxruntime): pip install 'lstmserve[onnx]'"
        in ended.stderr
    )


def test_numpy_needs_nothing():
    """The reference is there without any package of its own."""
    select.require_installed(Engine.NUMPY)


@onnx
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_computes_with_it(workers):
    """A server answers with the engine, Forward and Step alike to the byte, and tells what it is."""
    x = numbers(3, 20, 1, scale=0.3)
    with (
        serving(SUNSPOTS, "--engine", "onnxruntime", "--workers", workers, *QUICK) as server,
        lstmserve.Client(server.address) as client,
    ):
        described = client.model()
        whole = client.forward(x)
        state = None
        for t in range(20):
            stepped = client.step(x[:, t], state)
            state = stepped.state
    plain = RecurrentModel(_sunspots())

    assert described.engine.startswith("onnxruntime ")
    assert whole.output.tobytes() == stepped.output.tobytes()
    np.testing.assert_allclose(plain.forward((x,), plain.zero_state(3)).output, whole.output, atol=1e-5)
    assert not server.noise


def _sunspots():
    from lstmserve_server.loading import reader  # noqa: PLC0415 - h5py is for this one test

    return reader.load(SUNSPOTS)


@onnx
@pytest.mark.parametrize(("most", "reason"), [(272, ""), (271, "has more weights than a graph can hold")])
def test_a_graph_holds_the_weights_of_input_and_state_together(monkeypatch, most, reason):
    """Kernel and recurrent kernel, 12 * 4 + 5 * 4 numbers of four bytes, must fit into one graph together."""
    from lstmserve_server.model.engines import onnx_kernel  # noqa: PLC0415 - it may not be installed

    monkeypatch.setattr(onnx_kernel, "_MAX_WEIGHT_BYTES", most)
    spec = LSTMSpec(1, activation("tanh"), activation("sigmoid"))
    weights = LSTMWeights(numbers(12, 4), numbers(5, 4, seed=1), None)

    assert onnx_kernel.unsupported_reason(spec, weights) == reason
