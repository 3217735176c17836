"""Writes the models as LiteRT files, one for each shape, with the TensorFlow of the environment it runs in.

python -m bench.write_tflite UNITS BATCH STEPS [UNITS BATCH STEPS ...]
"""

from __future__ import annotations

import sys
from typing import Any

import tensorflow as tf

from bench import subject
from bench.engines import keras_engine
from bench.places import CACHE


def write(units: int, batch: int, time: int) -> None:
    """Writes the file of a shape."""
    model = keras_engine.model_of(subject.weights(units))
    shapes = {"x": (batch, time, subject.FEATURES), "h": (batch, units), "c": (batch, units)}

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items()])
    def run(x: Any, h: Any, c: Any) -> dict[str, Any]:
        return dict(zip(("outputs", "next_h", "next_c"), model([x, h, c]), strict=True))

    module = tf.Module()
    module.model, module.run = model, run
    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()], module)
    (CACHE / f"lstm-{units}-{batch}-{time}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    for place in range(0, len(numbers), 3):
        write(*numbers[place : place + 3])
