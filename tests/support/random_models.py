"""Random Keras models of the layers that are served, saved in random formats, with what they are fed.

    python -m tests.support.random_models [--cases 2000] [--first 0]

compares many of them with Keras 3 and with tf_keras, whole and step by step, and counts.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tf_keras

from lstmserve_server.loading import reader
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.runtime import selftest

WORDS = 7
MASKED = 0.5  # the number that Masking looks for

FORMATS_3 = ("keras", "h5", "weights", "folder", "shards", "npz")
FORMATS_2 = ("keras", "h5", "weights", "old-weights", "checkpoint", "npz")


@dataclass
class Case:
    """A Keras model, what it is fed, and how it is saved."""

    library: Any
    model: Any
    inputs: list[np.ndarray]
    form: str

    @property
    def expected(self) -> list[np.ndarray]:
        """What Keras answers."""
        return self.answer(self.inputs)

    def answer(self, inputs) -> list[np.ndarray]:
        """Returns what Keras answers to inputs."""
        made = self.model(inputs[0] if len(inputs) == 1 else inputs)
        return [np.asarray(output) for output in (made if isinstance(made, (list, tuple)) else [made])]

    def load(self, folder: Path) -> RecurrentModel:
        """Returns our model of the same, by way of a file."""
        return RecurrentModel(reader.load(save(self, folder)))


def draw(number: int) -> Case:
    """Returns the case of a number: even ones are of Keras 3, odd ones of tf_keras."""
    random = np.random.default_rng(number)
    library = tf_keras if number % 2 else keras
    while True:
        library.utils.set_random_seed(int(random.integers(1 << 30)))
        builder = _Builder(random, library)
        try:
            model, inputs = builder.graph() if not random.integers(3) else builder.chain()
            model.set_weights([_weight(random, weight) for weight in model.weights])
            _finalize(model)
            case = Case(library, model, inputs, str(random.choice(FORMATS_2 if number % 2 else FORMATS_3)))
            case.answer(inputs)
        except Exception:  # noqa: BLE001 - Keras does not take this model, and says so in many ways
            continue
        return case


def save(case: Case, folder: Path) -> Path:
    """Saves a model in the format of its case, and returns what is to be loaded."""
    model, form, of_2 = case.model, case.form, case.library is tf_keras
    name = {"keras": "m.keras", "h5": "m.h5", "folder": "m", "weights": "m.weights.h5", "shards": "m.weights.json"}.get(
        form
    )
    if form in ("keras", "h5"):
        model.save(folder / name)
        return folder / name
    if form == "folder":
        model.save(folder / name, zipped=False)
        return folder / name
    described = json.loads(model.to_json()) | {"keras_version": "2.15.0" if of_2 else keras.__version__}
    (folder / "m.json").write_text(json.dumps(described))
    if form == "npz":
        np.savez(folder / "m.npz", *model.get_weights())
        return folder / "m.npz"
    if form == "old-weights":
        model.save_weights(folder / "m.h5", save_format="h5")
        return folder / "m.h5"
    if form == "checkpoint":
        model.save_weights(folder / "m", save_format="tf")
        return folder / "m.index"
    model.save_weights(folder / name, **({"max_shard_size": 1} if form == "shards" else {}))
    return folder / name


def _finalize(model):
    """Has Normalization layers of Keras 3 take over their weights, as they do when a file is loaded."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            _finalize(layer)
        elif hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _weight(random, weight):
    values = random.normal(size=weight.shape) * 0.6
    name = getattr(weight, "path", weight.name)
    if "count" in name:
        return np.array(9)
    return np.abs(values) + 0.3 if "variance" in name else values


class _Builder:
    """Draws layers of one library."""

    def __init__(self, random, library):
        self.random, self.library, self.L = random, library, library.layers
        self.time, self.features = int(random.integers(4, 10)), int(random.integers(1, 8))
        self.declared = self.time if random.integers(2) else None
        self.masked = False

    def flip(self, chances=2):
        """Returns whether one of so many chances came."""
        return not self.random.integers(chances)

    def one(self, *kinds):
        """Returns what one of several makes."""
        return kinds[self.random.integers(len(kinds))]()

    def text(self, *choices):
        """Returns one of several words."""
        return str(self.random.choice(choices))

    # What a model is fed.

    def source(self):
        """Returns an input of the model, a sequence, what is fed to it, and a layer after it or none."""
        if self.flip(3):
            x = self.random.integers(0, WORDS, (3, self.time)).astype(np.float32)
            self.masked = self.flip()
            return self.L.Input((self.declared,)), x, self.L.Embedding(WORDS, self.features, mask_zero=self.masked)
        x = self.random.normal(size=(3, self.time, self.features)).astype(np.float32)
        x[self.random.random(x.shape[:2]) < 0.25] = MASKED
        self.masked = self.flip(3)
        layer = self.L.Masking(MASKED) if self.masked else None
        return self.L.Input((self.declared, self.features)), x, layer

    # Models.

    def chain(self):
        """Returns a chain of layers, Sequential or functional, and its input."""
        source, x, first = self.source()
        layers = [] if first is None else [first]
        layers += [self.before() for _ in range(self.random.integers(0, 3))]
        count = int(self.random.integers(1, 3))
        for i in range(count):
            layers.append(self.recurrent(sequences=i < count - 1 or self.flip()))
            if i < count - 1 and self.flip():
                layers.append(self.between())
        layers += [self.behind() for _ in range(self.random.integers(0, 3))]
        if self.flip():
            return self.library.Sequential([source, *layers]), [x]
        y = source
        for layer in layers:
            y = layer(y)
        return self.library.Model(source, y), [x]

    def graph(self):
        """Returns a model with branches, and its inputs."""
        return self.one(
            self.residual, self.two_inputs, self.two_outputs, self.encoder_decoder, self.shared, self.nested
        )

    def sequence(self):
        """Returns an input, a sequence after it, and what is fed."""
        source, x, first = self.source()
        return source, source if first is None else first(source), x

    def residual(self):
        """Two branches of one sequence, joined."""
        source, y, x = self.sequence()
        units = int(self.random.integers(1, 6))
        sequences = self.flip()
        one = self.L.LSTM(units, return_sequences=sequences)(y)
        other = self.L.LSTM(units, return_sequences=sequences)(self.between()(y))
        if sequences and self.flip():
            other = self.L.Dense(units)(y)
        joined = self.join()([one, other])
        if self.flip(3):
            joined = self.one(
                lambda: joined * 2.0, lambda: joined + one, lambda: 1.0 - joined, lambda: joined / 3.0, lambda: -joined
            )
        last = self.L.LSTM(3)(joined) if sequences and self.flip() else self.L.Dense(2)(joined)
        return self.library.Model(source, last), [x]

    def join(self):
        """Returns a layer that joins two that are alike."""
        L = self.L
        kinds = [L.Add, L.Average, L.Concatenate, L.Subtract]
        return self.one(*kinds, *([] if self.masked else [L.Multiply, L.Maximum, L.Minimum]))

    def two_inputs(self):
        """A sequence and numbers alongside it."""
        source, y, x = self.sequence()
        aside = self.L.Input((3,))
        joined = self.L.Concatenate()([self.recurrent(sequences=False)(y), self.L.Dense(2, activation="tanh")(aside)])
        return self.library.Model([source, aside], self.L.Dense(2)(joined)), [x, _numbers(self.random, 3, 3)]

    def two_outputs(self):
        """Two heads on one body."""
        source, y, x = self.sequence()
        body = self.recurrent(sequences=True)(y)
        heads = [self.L.Dense(2)(self.L.LSTM(3)(body)), self.L.LSTM(2)(body) if self.flip() else self.L.Dense(1)(body)]
        return self.library.Model(source, heads), [x]

    def encoder_decoder(self):
        """An LSTM that begins with the h and c of another, or of the caller."""
        source, y, x = self.sequence()
        units, inputs, fed = int(self.random.integers(1, 6)), [source], [x]
        if self.flip():
            _, h, c = self.L.LSTM(units, return_state=True)(y)
            inputs.append(self.L.Input((self.declared, 2)))
            fed.append(_numbers(self.random, 3, self.time, 2))
            y = inputs[-1]
        else:
            inputs += [h := self.L.Input((units,)), c := self.L.Input((units,))]
            fed += [_numbers(self.random, 3, units), _numbers(self.random, 3, units)]
        states = self.flip()
        decoder = self.L.LSTM(units, return_sequences=self.flip(), return_state=states)
        made = decoder(y, initial_state=[h, c])
        return self.library.Model(inputs, list(made) if states else self.L.Dense(2)(made)), fed

    def shared(self):
        """One LSTM on two inputs."""
        shape = (self.declared, self.features)
        inputs = [self.L.Input(shape), self.L.Input(shape)]
        layer = self.recurrent(sequences=False)
        joined = self.L.Concatenate()([layer(source) for source in inputs])
        fed = [_numbers(self.random, 3, self.time, self.features) for _ in inputs]
        return self.library.Model(inputs, self.L.Dense(1)(joined)), fed

    def nested(self):
        """A model within a model."""
        source, y, x = self.sequence()
        width = y.shape[-1]
        inside = [self.L.Input((self.declared, width)), self.between(), self.recurrent(sequences=True)]
        if self.flip():  # noqa: SIM108 - a layer must be called by one of the two alone
            inner = self.library.Sequential(inside)
        else:
            inner = self.library.Model(inside[0], inside[2](inside[1](inside[0])))
        return self.library.Model(source, self.L.LSTM(3)(inner(y))), [x]

    # Layers.

    def before(self):
        """Returns a layer in front of the first LSTM."""
        L, random = self.L, self.random
        kinds = [
            lambda: L.Dense(5, activation=self.text("tanh", "relu", "linear")),
            lambda: L.Conv1D(
                4, int(random.integers(1, 4)), padding=self.text("valid", "same", "causal"),
                dilation_rate=int(random.integers(1, 3)), use_bias=self.flip(),
            ),
            lambda: L.Conv1D(3, 2, strides=2, padding=self.text("valid", "same", "causal"), activation="relu"),
            lambda: L.MaxPooling1D(2, strides=int(random.integers(1, 3)), padding=self.text("valid", "same")),
            lambda: L.AveragePooling1D(2, padding=self.text("valid", "same")),
            lambda: L.ZeroPadding1D((1, 2)),
            lambda: L.Cropping1D((1, 0)),
            lambda: L.SpatialDropout1D(0.3),
            lambda: L.Rescaling(0.5, offset=0.1),
            L.Normalization,
            self.between,
        ]  # fmt: skip
        if self.declared is not None:
            kinds.append(lambda: L.Permute((2, 1)))
        return self.one(*kinds)

    def between(self):
        """Returns a layer that keeps a sequence one."""
        L = self.L
        return self.one(
            lambda: L.Dropout(0.4),
            lambda: L.BatchNormalization(center=self.flip(), scale=self.flip(), epsilon=0.01),
            lambda: L.LayerNormalization(epsilon=0.01, center=self.flip()),
            lambda: L.TimeDistributed(L.Dense(4, activation="tanh")),
            lambda: L.Activation("softsign"),
            lambda: L.ReLU(
                max_value=self.one(lambda: None, lambda: 6.0, lambda: 1.5), negative_slope=0.1, threshold=0.2
            ),
            L.ReLU,
            lambda: L.LeakyReLU(0.25),
            lambda: L.ELU(0.7),
            lambda: L.PReLU(shared_axes=[1]),
            lambda: L.GaussianNoise(0.1),
        )

    def recurrent(self, *, sequences):
        """Returns a layer with LSTMs in it."""
        L, random = self.L, self.random
        options = {
            "units": int(random.integers(1, 9)),
            "use_bias": bool(random.integers(4)),
            "recurrent_activation": self.text("sigmoid", "hard_sigmoid"),
            "activation": self.text("tanh", "tanh", "relu", "softsign"),
        }
        if self.flip(6):
            cells = [
                L.LSTMCell(**options | {"units": int(random.integers(1, 5))}) for _ in range(random.integers(1, 3))
            ]
            return L.RNN(cells if len(cells) > 1 else cells[0], return_sequences=sequences)
        layer = L.LSTM(
            **options,
            return_sequences=sequences,
            go_backwards=self.flip(6),
            recurrent_dropout=0.1 if self.flip() else 0.0,
        )
        if not self.flip(4):
            return layer
        layer.go_backwards = False
        other = L.LSTM(layer.units, return_sequences=sequences, go_backwards=True) if self.flip(4) else None
        return L.Bidirectional(layer, merge_mode=self.text("concat", "sum", "mul", "ave"), backward_layer=other)

    def behind(self):
        """Returns a layer after the last LSTM."""
        L = self.L
        kinds = [
            lambda: L.Dense(3, activation=self.text("softmax", "sigmoid", "linear")),
            lambda: L.Activation("softmax"),
            self.between,
            L.GlobalMaxPooling1D,
            L.GlobalAveragePooling1D,
            lambda: L.RepeatVector(3),
        ]
        if self.declared is not None:
            kinds.append(L.Flatten)
        return self.one(*kinds)


def _numbers(random, *shape):
    return random.normal(size=shape).astype(np.float32)


def given(model: RecurrentModel, inputs) -> tuple[np.ndarray, ...]:
    """Returns inputs as our model takes them: token ids have an axis of their own."""
    pairs = zip(inputs, model.inputs, strict=True)
    return tuple(np.ascontiguousarray(x[..., None] if item.vocabulary is not None else x) for x, item in pairs)


def distance(ours, theirs) -> float:
    """Returns the largest difference between outputs, relative to what is larger than 1; infinite for other shapes."""
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if mine.ndim == other.ndim + 1:  # after every step, what Keras answers after the last
            mine = mine[:, -1]  # noqa: PLW2901 - the same value in their form
        if mine.shape != other.shape or not (np.isnan(mine) == np.isnan(other)).all():
            return np.inf
        difference = np.abs(mine - other) / np.maximum(1, np.abs(other))
        worst = max(worst, float(np.nanmax(difference, initial=0)))
    return worst


def is_compared_in_parts(case: Case, model: RecurrentModel) -> bool:
    """Returns whether `compare` also asks for the answers to the first steps of a sequence."""
    return model.causal and case.model.inputs[0].shape[1] is None


def compare(case: Case, model: RecurrentModel) -> float:
    """Returns how far our answers are from Keras', whole and, where the model can be stepped, after a part of the steps."""
    inputs = given(model, case.inputs)
    whole = model.forward(inputs, model.zero_state(3), all_outputs=model.returns_sequences)
    worst = distance(whole.outputs, case.expected)
    selftest.run(model)
    if not is_compared_in_parts(case, model):
        return worst
    for steps in range(1, inputs[0].shape[1]):
        ours = model.forward((inputs[0][:, :steps],), model.zero_state(3)).outputs
        if steps <= model.waiting_steps:  # here Keras fails, or answers what no time-step gave
            assert all(np.isnan(output).all() for output in ours) or len(ours) > 1
            continue
        theirs = case.answer([case.inputs[0][:, :steps]])
        theirs = [output[:, -1] if output.ndim == 3 else output for output in theirs]
        worst = max(worst, distance(ours, theirs))
    return worst


def main() -> None:
    """Compares many models, and prints how many are served, stepped, refused, and differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # Keras' own, of masks that its layers lose
    counts: collections.Counter[str] = collections.Counter()
    worst = 0.0
    for number in range(arguments.first, arguments.first + arguments.cases):
        case = draw(number)
        with TemporaryDirectory() as folder:
            try:
                model = case.load(Path(folder))
                difference = compare(case, model)
            except Exception as error:  # noqa: BLE001 - reported
                counts["refused"] += 1
                print(number, case.form, type(error).__name__, str(error).split(": ", 1)[-1][:300], flush=True)
                continue
        counts["compared"] += 1
        counts[f"{case.library.__name__} {case.form}"] += 1
        counts["stepped"] += model.causal
        counts["waiting"] += model.waiting_steps > 0
        counts["graphs"] += len(model.inputs) + len(model.outputs) > 2
        worst = max(worst, difference if np.isfinite(difference) else 0)
        if not difference <= 1e-5:
            counts["different"] += 1
            kinds = [(layer.kind, dict(layer.shown_options)) for layer in model.description.layers]
            print(number, case.form, difference, kinds, flush=True)
    print(dict(counts), "largest difference", worst)


if __name__ == "__main__":
    main()
