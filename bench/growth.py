"""Benchmark of how a step scales with rows, time steps and units: each is doubled repeatedly, the others stay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench import kernels
from bench.kernels import Shape

Say = Callable[[str], None]

_DOUBLED: Final[dict[str, tuple[Shape, ...]]] = {
    "rows": tuple((128, 1 << power, 1) for power in range(10)),
    "steps": tuple((128, 1, 25 << power) for power in range(8)),
    "units": tuple((32 << power, 1, 1) for power in range(7)),
}
"""(units, rows, steps)."""


@dataclass
class Growth:
    """Result of one kernel and one doubled quantity."""

    contender: str
    what: str
    sizes: list[int]
    median_us: list[float]


def measure(rounds: int, seconds: float, say: Say) -> list[Growth]:
    """Measures a whole model in exact mode, as a call has it computed."""
    found = []
    for what, shapes in _DOUBLED.items():
        timings = kernels.measure(shapes, rounds, seconds, say, ("ours:model-exact",))
        for name in dict.fromkeys(timing.contender for timing in timings):
            own = [timing for timing in timings if timing.contender == name and timing.median_us]
            sizes = [{"rows": timing.batch, "steps": timing.steps, "units": timing.units}[what] for timing in own]
            found.append(Growth(name, what, sizes, [timing.median_us or 0 for timing in own]))
    return found
