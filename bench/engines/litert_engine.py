"""LiteRT (once TensorFlow Lite), with files that `bench.write_tflite` has made of the Keras models."""

from __future__ import annotations

from typing import Any

from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from bench.engines import Run
from bench.places import CACHE
from bench.subject import Weights

Array = NDArray[Any]


def make(variant: str, weights: Weights, batch: int, time: int) -> Run:  # noqa: ARG001 - as all engines
    """Returns a call of the signature of a file."""
    path = CACHE / f"lstm-{weights.units}-{batch}-{time}.tflite"
    runner = Interpreter(str(path), num_threads=1).get_signature_runner()

    def run(x: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        made = runner(x=x, h=h, c=c)
        return made["outputs"], made["next_h"], made["next_c"]

    return run
