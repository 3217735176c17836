"""Benchmark of batching: the service with batching, and without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bench import rpc
from bench.contenders import ours

Say = Callable[[str], None]

TOGETHER: Final = "together"
EACH: Final = "each by itself"

_ROOM: Final = ("--max-concurrent-calls", "1024", "--max-pending-calls", "1024")
"""All callers are one host here, which would not be left all places."""

_CONTENDERS: Final = tuple(
    ours(f"{numerics}, {how}", "--numerics", numerics, *_ROOM, *flags)
    for numerics in ("exact", "fast")
    for how, flags in ((TOGETHER, ()), (EACH, ("--max-batch-rows", "1")))
)


def measure(sizes: Sequence[int], rounds: int, seconds: float, say: Say) -> list[rpc.Outcome]:
    """Measures models of several sizes, with one caller, with four and with 64."""
    return [outcome for units in sizes for outcome in rpc.measure(_CONTENDERS, units, (1, 4, 64), rounds, seconds, say)]
