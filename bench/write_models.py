"""Writes the models as files that Keras would write, with the environment of the service.

python -m bench.write_models UNITS [UNITS ...]
"""

from __future__ import annotations

import sys

from bench import subject
from bench.places import CACHE
from tests.support import builders


def write(units: int) -> None:
    """Writes the file of a size."""
    kernel, recurrent_kernel, bias, head_kernel, head_bias = subject.weights(units)
    head = builders.keras_layer("Dense", "head", units=1, activation="linear", use_bias=True)
    config = builders.sequential(builders.input_config(subject.FEATURES), builders.lstm_config(units), head)
    groups = {
        "layers/lstm/cell/vars": [kernel, recurrent_kernel, bias],
        "layers/dense/vars": [head_kernel, head_bias],
    }
    builders.write_zip(CACHE / f"lstm-{units}.keras", config, builders.weights_file(groups))


if __name__ == "__main__":
    CACHE.mkdir(exist_ok=True)
    for text in sys.argv[1:]:
        write(int(text))
