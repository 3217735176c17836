"""Trains the text model: the next character of Shakespeare's sonnets from all the characters before it.

    make train

Reads `sonnets.txt` and writes `sonnets.keras` (the model) and `sonnets.json` (its alphabet, and how it was trained). With
15 KB to read and no dropout, the model gets to know them by heart: a toy, in which one sees whether the state arrives.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np

HERE = Path(__file__).parent
READERS = 64  # rows of a batch, each somewhere else in the text
PIECE = 48  # characters between two updates of the weights
PIECES = 5  # before the readers go to other places
ROUNDS = 700
SEED = 1609  # the year when the sonnets were printed


def build(letters: int, *, learning: bool) -> keras.Model:
    """Returns the untrained model: the one that learns, or the same layers as they are served."""
    return keras.Sequential(
        [
            keras.layers.Input((None,), batch_size=READERS if learning else None, dtype="int32"),
            keras.layers.Embedding(letters, 24, name="letters"),
            keras.layers.LSTM(128, return_sequences=learning, stateful=learning, name="memory"),
            keras.layers.Dense(letters, activation="softmax", name="next"),
        ],
        name="sonnets",
    )


def read_on(learner: keras.Model, ids: np.ndarray, starts: np.ndarray) -> float:
    """Reads from some places on, piece after piece, and learns from each; returns the mean loss in bits per character.

    The state is carried from piece to piece, so that a client who runs on with it stays with what the model has learnt.
    """
    learner.get_layer("memory").reset_state()
    learner.reset_metrics()
    loss = 0.0
    for piece in range(PIECES):
        places = (starts[:, None] + piece * PIECE + np.arange(PIECE + 1)) % len(ids)
        loss = float(learner.train_on_batch(ids[places[:, :-1]], ids[places[:, 1:]]))  # the mean since the reset
    return loss / float(np.log(2))


def main() -> None:
    """Trains and writes."""
    keras.utils.set_random_seed(SEED)
    text = (HERE / "sonnets.txt").read_text() + "\n"  # an empty line behind the last sonnet too, where it goes round
    alphabet = "".join(sorted(set(text)))
    ids = np.array([alphabet.index(letter) for letter in text])
    # From zeros a client begins with a line, and so does each reader.
    lines = np.flatnonzero(ids == alphabet.index("\n")) + 1

    learner = build(len(alphabet), learning=True)
    schedule = keras.optimizers.schedules.CosineDecay(8e-3, ROUNDS * PIECES)
    learner.compile(keras.optimizers.Adam(schedule, clipnorm=1.0), loss="sparse_categorical_crossentropy")
    places = np.random.default_rng(SEED)
    bits = 0.0
    for number in range(1, ROUNDS + 1):
        bits = read_on(learner, ids, places.choice(lines, READERS))
        if number % 20 == 0:
            print(f"round {number} of {ROUNDS}: {bits:.2f} bits per character", flush=True)

    model = build(len(alphabet), learning=False)
    model.set_weights([weight.numpy() for weight in learner.trainable_weights])  # without the readers' states
    model.save(HERE / "sonnets.keras")
    report = {
        "data": "25 of Shakespeare's sonnets (1609), public domain, in modern spelling",
        "alphabet": alphabet,
        "characters": len(text),
        "bits_per_character_in_the_last_round": round(bits, 2),
        "seed": SEED,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
    (HERE / "sonnets.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
