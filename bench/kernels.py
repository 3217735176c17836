"""The kernels without RPC: every contender in a process of its own, told in turn to compute the same shape."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import environments, subject, truth
from bench.places import CACHE, ROOT

Shape = tuple[int, int, int]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A contender."""

    name: str
    engine: str
    environment: str


KERNELS = (
    Kernel("ours, exact", "ours:exact", "ours"),
    Kernel("ours, fast", "ours:fast", "ours"),
    Kernel("ours, whole model, exact", "ours:model-exact", "ours"),
    Kernel("textbook NumPy", "textbook", "grpcio"),
    Kernel("ONNX Runtime", "onnx", "onnx"),
    Kernel("PyTorch", "torch:eager", "torch"),
    Kernel("PyTorch, traced", "torch:traced", "torch"),
    Kernel("Keras, called", "keras:call", "keras"),
    Kernel("Keras, tf.function", "keras:function", "keras"),
    Kernel("Keras, XLA", "keras:xla", "keras"),
    Kernel("Keras, predict", "keras:predict", "keras"),
    Kernel("LiteRT", "litert", "litert"),
)


@dataclass
class Timing:
    """Result of a contender with a shape."""

    contender: str
    units: int
    batch: int
    steps: int
    distance: float | None = None
    """How far its answer is from the oracle's at most, relative to max(1, |value|)."""
    median_us: float | None = None
    """The median of the medians of all rounds."""
    spread_us: tuple[float, float] | None = None
    """The least and the greatest median of a round."""
    trouble: str = ""
    """Why there is no figure."""


class Worker:
    """The process of a contender."""

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel = kernel
        self._answer = folder / f"{kernel.engine.replace(':', '-')}.npz"
        self._process = subprocess.Popen(
            [environments.python(kernel.environment), "-m", "bench.kernel_worker", kernel.engine],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=ROOT, env=environments.variables(),
        )  # fmt: skip

    def ask(self, order: dict[str, Any]) -> Any:
        """Gives an order, and returns what it says to it.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no line either
            print(json.dumps(order), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            message = f"its process ended with {self._process.wait()}"
            raise RuntimeError(message)
        return json.loads(line)

    def prepare(self, shape: Shape) -> float:
        """Makes it ready for a shape, and returns how far its answer is from the oracle's."""
        self.ask({"prepare": shape, "answer": str(self._answer)})
        right = _right(shape)
        with np.load(self._answer) as made:
            pairs = ((made["outputs"], right.outputs), (made["h"], right.h), (made["c"], right.c))
            return max(truth.distance(*pair) for pair in pairs)

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()


_truths: dict[Shape, truth.Truth] = {}


def _right(shape: Shape) -> truth.Truth:
    if shape not in _truths:
        _truths.clear()  # one shape at a time is asked for
        _truths[shape] = truth.of(subject.weights(shape[0]), subject.inputs(*shape))
    return _truths[shape]


def measure(shapes: Sequence[Shape], rounds: int, seconds: float, say: Say, only: Sequence[str] = ()) -> list[Timing]:
    """Measures all contenders that are installed, shape by shape, in turn for several rounds."""
    _write_litert(shapes)
    chosen = [kernel for kernel in KERNELS if not only or any(word in kernel.engine for word in only)]
    with TemporaryDirectory() as folder:
        workers = {k: Worker(k, Path(folder)) for k in chosen if environments.installed(k.environment)}
        try:
            return [
                timing for shape in shapes for timing in _measure_shape(shape, chosen, workers, rounds, seconds, say)
            ]
        finally:
            for worker in workers.values():
                worker.close()


def _measure_shape(
    shape: Shape, chosen: Sequence[Kernel], workers: dict[Kernel, Worker], rounds: int, seconds: float, say: Say
) -> list[Timing]:
    made = {kernel: Timing(kernel.name, *shape) for kernel in chosen}
    medians: dict[Kernel, list[float]] = {}
    for kernel, timing in made.items():
        _prepare(workers.get(kernel), timing, shape)
        if not timing.trouble:
            medians[kernel] = []
    for number in range(rounds):
        order = list(medians)
        for kernel in order[number % len(order) :] + order[: number % len(order)]:
            medians[kernel].append(statistics.median(workers[kernel].ask({"go": seconds})))
    for kernel, found in medians.items():
        made[kernel].median_us = statistics.median(found)
        made[kernel].spread_us = (min(found), max(found))
    figures = ", ".join(f"{t.contender} {t.median_us:.1f}" for t in made.values() if t.median_us)
    say(f"units {shape[0]}, batch {shape[1]}, steps {shape[2]}: {figures}")
    return list(made.values())


def _prepare(worker: Worker | None, timing: Timing, shape: Shape) -> None:
    if worker is None:
        timing.trouble = "not installed"
        return
    try:
        timing.distance = worker.prepare(shape)
    except RuntimeError as error:
        timing.trouble = str(error)
        return
    if not timing.distance <= subject.TOLERANCE:
        timing.trouble = f"wrong: off by {timing.distance:.1e}"


def _write_litert(shapes: Sequence[Shape]) -> None:
    CACHE.mkdir(exist_ok=True)
    missing = [shape for shape in shapes if not (CACHE / "lstm-{}-{}-{}.tflite".format(*shape)).exists()]
    if missing and environments.installed("keras") and environments.installed("litert"):
        numbers = [str(number) for shape in missing for number in shape]
        subprocess.run(
            [environments.python("keras"), "-m", "bench.write_tflite", *numbers],
            cwd=ROOT, env=environments.variables(), check=False, capture_output=True,
        )  # fmt: skip
