"""The process of one contender among the kernels: obeys the commands on its standard input, a line of JSON each.

python -m bench.kernel_worker ENGINE

{"prepare": [UNITS, BATCH, STEPS], "answer": PATH} computes once, leaves the answer in a file of NumPy, and says "ready".
{"go": SECONDS} computes for so long, and says how long each call took, in microseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402 - BLAS reads the variables when it is loaded

from bench import engines, subject  # noqa: E402 - the same

MOST_SAMPLES = 2000


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Returns how long each call took, in microseconds; three at least, and no more than are needed for quantiles."""
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < 3 or (time.perf_counter() < end and len(samples) < MOST_SAMPLES):
        began = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - began) / 1000)
    return samples


def prepare(engine: str, shape: tuple[int, int, int], path: str) -> Callable[[], object]:
    """Returns the call of a shape, after it has left its answer in a file."""
    units, batch, steps = shape
    run = engines.make(engine, subject.weights(units), batch, steps)
    given = subject.inputs(units, batch, steps)
    outputs, h, c = run(*given)
    np.savez(path, outputs=outputs, h=h, c=c)
    timed(lambda: run(*given), 0.05)  # warms up
    return lambda: run(*given)


def main() -> None:
    """Obeys until its standard input ends."""
    engine = sys.argv[1]
    answers = sys.stdout
    call: Callable[[], object] = lambda: None  # noqa: E731 - until there is one
    with contextlib.redirect_stdout(sys.stderr):  # libraries chat
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            if "prepare" in order:
                call = prepare(engine, order["prepare"], order["answer"])
                print('"ready"', file=answers, flush=True)
            else:
                print(json.dumps(timed(call, order["go"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
