"""Keras on TensorFlow, called as its users call it: eager, in a tf.function, compiled by XLA, or by `predict`."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import tensorflow as tf
from numpy.typing import NDArray

from bench.engines import Run
from bench.subject import Weights

Array = NDArray[Any]


def make(variant: str, weights: Weights, batch: int, time: int) -> Run:  # noqa: ARG001 - as all engines
    """Returns a call of a model with the inputs x, h and c: "call", "function", "xla" or "predict"."""
    if not tf.config.list_logical_devices("GPU"):
        _one_thread()
    model = model_of(weights)
    match variant:
        case "predict":
            return lambda x, h, c: tuple(model.predict([x, h, c], verbose=0))
        case "call":
            called: Any = model
        case _:
            called = tf.function(model, jit_compile=variant == "xla", reduce_retracing=True)

    def run(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        outputs, h, c = called([tf.constant(x), tf.constant(h), tf.constant(c)])
        return outputs.numpy(), h.numpy(), c.numpy()

    return run


def _one_thread() -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # it has begun: an earlier shape has set it
        return


def model_of(weights: Weights) -> keras.Model:
    """Returns the model: x, h and c to the outputs and the next h and c."""
    units = weights.units
    x = keras.Input((None, len(weights.kernel)))
    h, c = keras.Input((units,)), keras.Input((units,))
    layer = keras.layers.LSTM(units, return_sequences=True, return_state=True)
    model = keras.Model([x, h, c], layer(x, initial_state=[h, c]))
    layer.set_weights([weights.kernel, weights.recurrent_kernel, weights.bias])
    return model
