"""How close the stepper is to the real Keras layer, and which of the two is closer to float64.

    python -m tests.parity.comparison [--cases 400] [--write docs/accuracy.md]

Each case is a random stack of LSTM layers, saved by Keras in one of its formats and loaded by us. Every step of every layer
is computed three times from the same x, h and c: by us, by the Keras layer in float32, and by the Keras layer in float64.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np

from lstmserve_server.loading import reader
from lstmserve_server.model import activations, lstm
from lstmserve_server.model.activations import KerasMajor
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Numerics, matmul_of

EXACT = matmul_of(Numerics.EXACT)
SMALL = 16  # up to so many units P5 asks for the tolerance of assert_almost_equal
RANGE = 10  # states are kept within it
SIZES = ((1, SMALL), (SMALL + 1, 64), (65, 128), (129, 300))


@dataclass
class Case:
    """One random model and what it is fed."""

    units: list[int]
    features: int
    batch: int
    time: int
    activation: str
    recurrent_activation: str
    use_bias: bool
    with_state: bool
    suffix: str


@dataclass
class Distances:
    """Distances of many values, each relative to max(1, |value|)."""

    to_keras: list[np.ndarray] = field(default_factory=list)
    ours: list[np.ndarray] = field(default_factory=list)
    keras: list[np.ndarray] = field(default_factory=list)

    def add(self, ours, keras, truth):
        """Adds the values of one layer; those of a cell that has run away in one step are no measure of anything."""
        tame = np.isfinite(ours) & np.isfinite(keras) & (np.abs(truth) < 10 * RANGE)
        ours, keras, truth = (values[tame].astype(np.float64) for values in (ours, keras, truth))
        scale = np.maximum(1, np.abs(truth))
        self.to_keras.append(np.abs(ours - keras) / scale)
        self.ours.append(np.abs(ours - truth) / scale)
        self.keras.append(np.abs(keras - truth) / scale)

    def summary(self):
        """Returns count, and mean and maximum of: ours to Keras, ours to float64, Keras to float64."""
        parts = [np.concatenate(values) for values in (self.to_keras, self.ours, self.keras)]
        return len(parts[0]), [(part.mean(), part.max()) for part in parts]


def draw(number: int) -> Case:
    """Returns a random case."""
    random = np.random.default_rng(number)
    inner, recurrent = (random.choice(activations.names(KerasMajor.KERAS_3)) for _ in range(2))
    low, high = SIZES[number % len(SIZES)]
    return Case(
        units=[int(random.integers(low, high + 1)) for _ in range(1 + (number % 3 == 0))],
        features=int(random.integers(1, 201)),
        batch=int(random.integers(1, 34)),
        time=int(random.integers(1, 51)),
        activation=str(inner) if number % 8 > 3 else "tanh",  # half of each size with the usual ones
        recurrent_activation=str(recurrent) if number % 16 > 7 else "sigmoid",
        use_bias=bool(random.integers(4)),
        with_state=bool(random.integers(2)),
        suffix=random.choice([".keras", ".h5"]),
    )


def measure(number: int, distances: dict[tuple[str, str], Distances], folder: Path) -> None:
    """Runs one case and files its distances under its size and its activations."""
    case, random = draw(number), np.random.default_rng(number + 10**6)
    path = folder / f"{number}{case.suffix}"
    layers = [_keras_layer(case, units) for units in case.units]
    saved = keras.Sequential([keras.layers.Input((None, case.features)), *layers])
    for layer in layers:
        layer.set_weights([random.normal(size=w.shape) / np.sqrt(w.shape[0]) for w in layer.get_weights()])
    saved.save(path)
    model = RecurrentModel(reader.load(path))
    path.unlink()
    x = random.normal(size=(case.batch, case.time, case.features)).astype(np.float32)
    for ours, layer in zip(model.stateful_layers, layers, strict=True):
        shape = (case.batch, ours.spec.units)
        state = LSTMState(*(random.normal(size=shape).astype(np.float32) * case.with_state for _ in range(2)))
        steps = []
        for t in range(case.time):
            before, state = state, lstm.step(ours.spec, ours.weights, EXACT, np.ascontiguousarray(x[:, t]), state)
            steps.append((x[:, t], before, state))
            state = _within(state, random)
        given = [
            np.concatenate(part) for part in ([s[0] for s in steps], [s[1].h for s in steps], [s[1].c for s in steps])
        ]
        after = [np.concatenate(part) for part in ([s[2].h for s in steps], [s[2].c for s in steps])]
        single = _answers(case, ours.spec.units, layer.get_weights(), given, "float32")
        double = _answers(case, ours.spec.units, layer.get_weights(), given, "float64")
        for key in (
            ("units", "{}-{}".format(*next(size for size in SIZES if ours.spec.units <= size[1]))),
            ("activation", case.activation),
            ("recurrent_activation", case.recurrent_activation),
        ):
            for mine, theirs, truth in zip(after, single, double, strict=True):
                distances[key].add(mine, theirs, truth)
        x = np.stack([s[2].h for s in steps], axis=1).clip(-RANGE, RANGE)


def _within(state: LSTMState, random: np.random.Generator) -> LSTMState:
    """Returns the state, again where a cell without bounds has run away: nothing is measured on the way to infinity."""
    fresh = [random.normal(size=part.shape).astype(part.dtype) for part in state]
    return LSTMState(*(np.where(np.abs(part) < RANGE, part, new) for part, new in zip(state, fresh, strict=True)))


def _keras_layer(case: Case, units: int, **options) -> keras.layers.LSTM:
    return keras.layers.LSTM(
        units,
        activation=case.activation,
        recurrent_activation=case.recurrent_activation,
        use_bias=case.use_bias,
        return_sequences=True,
        use_cudnn=False,
        **options,
    )


def _answers(case, units, weights, given, dtype):
    """Returns what the Keras layer makes of one step from each x, h and c given."""
    layer = _keras_layer(case, units, return_state=True, dtype=dtype)
    x, h, c = (array.astype(dtype) for array in given)
    layer.build((None, 1, x.shape[1]))
    layer.set_weights(weights)
    _, h, c = layer(x[:, None], initial_state=[h, c])
    return np.asarray(h), np.asarray(c)


def run(cases: int) -> dict[tuple[str, str], Distances]:
    """Returns the distances of many cases, by size and by activation."""
    distances: dict[tuple[str, str], Distances] = defaultdict(Distances)
    with TemporaryDirectory() as folder, np.errstate(all="ignore"):
        for number in range(cases):
            measure(number, distances, Path(folder))
    return distances


def report(distances: dict[tuple[str, str], Distances], cases: int) -> str:
    """Returns the tables as Markdown."""
    lines = [
        "# How exact the answers are",
        "",
        "Written by `python -m tests.parity.comparison --write docs/accuracy.md`; the test suite runs the same comparison (a part of the",
        "cases) and fails where our mean distance to float64 is more than 1.1 times Keras', or our largest more than twice.",
        "",
        f"{cases} random models (1-300 units, 1-200 features, 1-33 rows, 1-50 steps, one or two layers, with and without bias,",
        "states given or not, every activation that Keras knows by name, saved as `.keras` and `.h5`). Every step is computed",
        "from the same x, h and c by the stepper, by the Keras layer in float32, and by the Keras layer in float64. Distances",
        "are relative to max(1, |value|).",
        "",
        f"Keras {keras.__version__} on {keras.backend.backend()}, NumPy {np.__version__}, Python {platform.python_version()},",
        f"{platform.machine()}.",
    ]
    titles = {"units": "By units", "activation": "By activation", "recurrent_activation": "By recurrent activation"}
    for kind, title in titles.items():
        lines += [
            "",
            f"## {title}",
            "",
            f"| {kind} | values | ours to Keras: mean | max | ours to float64: mean | max | Keras to float64: mean | max |",
            "|---|---|---|---|---|---|---|---|",
        ]
        keys = [key for key in distances if key[0] == kind]
        for key in sorted(keys, key=lambda key: (int(key[1].split("-")[0]) if kind == "units" else 0, key[1])):
            count, pairs = distances[key].summary()
            cells = " | ".join(f"{value:.1e}" for pair in pairs for value in pair)
            lines.append(f"| {key[1]} | {count:,} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the tables, or writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    text = report(run(arguments.cases), arguments.cases)
    if arguments.write:
        arguments.write.write_text(text)
    print(text)  # noqa: T201


if __name__ == "__main__":
    main()
