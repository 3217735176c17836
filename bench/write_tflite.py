"""Writes the models as LiteRT files, one for each shape, with the TensorFlow of the environment it runs in.

python -m bench.write_tflite UNITS BATCH STEPS [UNITS BATCH STEPS ...]
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import tensorflow as tf

from bench import subject
from bench.places import CACHE


def write(units: int, batch: int, time: int) -> None:
    """Writes the file of a shape: the steps one after the other, as Keras' `unroll` does it.

    Not Keras' own layer, as its variables inside of a loop are lost on the way (READ_VARIABLE failed to invoke).
    """
    shapes = {"x": (batch, time, subject.FEATURES), "h": (batch, units), "c": (batch, units)}
    kernel, recurrent_kernel, bias = map(tf.constant, subject.weights(units)[:3])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items()])
    def run(x: Any, h: Any, c: Any) -> dict[str, Any]:
        outputs = []
        for t in range(time):
            i, f, g, o = tf.split(x[:, t] @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            outputs.append(h)
        return {"outputs": tf.stack(outputs, axis=1), "next_h": h, "next_c": c}

    module = tf.Module()
    module.run = run
    converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()], module)
    (CACHE / f"lstm-{units}-{batch}-{time}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    for place in range(0, len(numbers), 3):
        write(*numbers[place : place + 3])
