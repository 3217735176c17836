"""Random Keras models of the layers that are served, with what they are fed.

    python -m tests.random_models [--cases 2000] [--first 0]

compares many of them with Keras and counts.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np

from lstmserve_server.loading import reader
from lstmserve_server.model import RecurrentModel

L = keras.layers


def draw(random: np.random.Generator) -> tuple[keras.Model, np.ndarray]:
    """Returns a model with random weights, and an input that fits it."""
    time, features = int(random.integers(4, 10)), int(random.integers(1, 8))
    declared = time if random.integers(2) else None
    while True:
        layers, ids = _layers(random, declared, time, features)
        x = random.normal(size=(3, time, features)).astype(np.float32)
        x[random.random(x.shape[:2]) < 0.25] = 0.5  # what Masking below looks for
        if ids:
            x = random.integers(0, 7, (3, time)).astype(np.float32)
        try:
            model = _built(random, layers)
            model.set_weights([_weight(random, weight) for weight in model.weights])
            model(x)
        except Exception:  # noqa: BLE001 - Keras does not take this chain, and says so in many ways
            continue
        return model, x


def _weight(random, weight):
    values = random.normal(size=weight.shape) * 0.6
    return np.abs(values) + 0.3 if "variance" in weight.path else values


def _layers(random, declared, time, features):
    ids = not random.integers(3)
    shape = (declared,) if ids else (declared, features)
    layers = [L.Input(shape)]
    if ids:
        layers.append(L.Embedding(7, features, mask_zero=bool(random.integers(2))))
    elif not random.integers(3):
        layers.append(L.Masking(0.5))
    layers.extend(_before(random, declared) for _ in range(random.integers(0, 3)))
    count = int(random.integers(1, 3))
    for i in range(count):
        layers.append(_recurrent(random, sequences=i < count - 1 or bool(random.integers(2))))
        if i < count - 1 and random.integers(2):
            layers.append(_between(random))
    for _ in range(random.integers(0, 3)):
        layers.append(_behind(random, layers[-1], declared))
    return layers, ids


def _before(random, declared):
    kinds = [
        lambda: L.Dense(5, activation=str(random.choice(["tanh", "relu", "linear"]))),
        lambda: L.Conv1D(
            4, int(random.integers(1, 4)), padding=str(random.choice(["valid", "same", "causal"])),
            dilation_rate=int(random.integers(1, 3)), use_bias=bool(random.integers(2)),
        ),
        lambda: L.Conv1D(3, 2, strides=2, padding=str(random.choice(["valid", "same"])), activation="relu"),
        lambda: L.MaxPooling1D(2, strides=int(random.integers(1, 3)), padding=str(random.choice(["valid", "same"]))),
        lambda: L.AveragePooling1D(2, padding=str(random.choice(["valid", "same"]))),
        lambda: L.ZeroPadding1D((1, 2)),
        lambda: L.Cropping1D((1, 0)),
        lambda: L.SpatialDropout1D(0.3),
        lambda: L.Rescaling(0.5, offset=0.1),
        lambda: _between(random),
    ]  # fmt: skip
    if declared is not None:
        kinds.append(lambda: L.Permute((2, 1)))
    return kinds[random.integers(len(kinds))]()


def _between(random):
    kinds = [
        lambda: L.Dropout(0.4),
        lambda: L.BatchNormalization(center=bool(random.integers(2)), scale=bool(random.integers(2)), epsilon=0.01),
        lambda: L.LayerNormalization(epsilon=0.01, center=bool(random.integers(2))),
        lambda: L.TimeDistributed(L.Dense(4, activation="tanh")),
        lambda: L.Activation("softsign"),
        L.ReLU,
        lambda: L.GaussianNoise(0.1),
    ]
    return kinds[random.integers(len(kinds))]()


def _recurrent(random, *, sequences):
    layer = L.LSTM(
        int(random.integers(1, 9)),
        return_sequences=sequences,
        use_bias=bool(random.integers(4)),
        go_backwards=not random.integers(6),
        recurrent_activation=str(random.choice(["sigmoid", "hard_sigmoid"])),
        activation=str(random.choice(["tanh", "tanh", "relu", "softsign"])),
        recurrent_dropout=0.1 if random.integers(2) else 0.0,
    )
    if random.integers(4):
        return layer
    layer.go_backwards = False
    other = L.LSTM(layer.units, return_sequences=sequences, go_backwards=True) if not random.integers(4) else None
    return L.Bidirectional(layer, merge_mode=str(random.choice(["concat", "sum", "mul", "ave"])), backward_layer=other)


def _behind(random, before, declared):
    kinds = [
        lambda: L.Dense(3, activation=str(random.choice(["softmax", "sigmoid", "linear"]))),
        lambda: L.Activation("softmax"),
        lambda: _between(random),
        L.GlobalMaxPooling1D,
        L.GlobalAveragePooling1D,
        lambda: L.RepeatVector(3),
    ]
    if declared is not None:
        kinds.append(L.Flatten)
    return kinds[random.integers(len(kinds))]()


def _built(random, layers):
    masked = any(isinstance(layer, L.Masking) or getattr(layer, "mask_zero", False) for layer in layers)
    if masked or random.integers(2):  # a functional model with a mask is a graph of operations to Keras 3
        return keras.Sequential(layers)
    x = y = layers[0]
    for layer in layers[1:]:
        y = layer(y)
    return keras.Model(x, y)


def main() -> None:
    """Compares many models, and prints how many are served, stepped, refused, and differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    served = stepped = worst = 0
    for number in range(arguments.first, arguments.first + arguments.cases):
        made, x = draw(np.random.default_rng(number))
        expected = np.asarray(made(x))
        with TemporaryDirectory() as folder:
            path = Path(folder) / ("a.keras" if number % 2 else "a.h5")
            made.save(path)
            try:
                model = RecurrentModel(reader.load(path))
            except Exception as error:  # noqa: BLE001 - reported
                print(number, type(error).__name__, str(error).split(": ", 1)[-1])  # noqa: T201
                continue
        given = x[..., None] if model.description.vocabulary is not None else x
        answer = model.forward(given, model.zero_state(len(x)), all_outputs=model.returns_sequences)
        served, stepped = served + 1, stepped + model.causal
        difference = (
            float(np.max(np.abs(answer.output - expected) / np.maximum(1, np.abs(expected))))
            if answer.output.shape == expected.shape
            else np.inf
        )
        worst = max(worst, difference if np.isfinite(difference) else 0)
        if not difference <= 1e-5:
            kinds = [(layer.kind, dict(layer.shown_options)) for layer in model.description.layers]
            print(number, difference, answer.output.shape, expected.shape, kinds)  # noqa: T201


if __name__ == "__main__":
    main()
