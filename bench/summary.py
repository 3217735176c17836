"""The medians of a measurement for programs: one line a record, at most 300 lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bench.report import Record, median

_DIGITS: Final = 4


def text(results: Record) -> str:
    """Returns the summary as JSON, with one record a line."""
    parts = [f' "command": {json.dumps(results["command"])}', f' "machine": {json.dumps(results["machine"])}']
    for name, summarize in _PARTS.items():
        if results.get(name):
            lines = ",\n  ".join(map(json.dumps, summarize(results[name])))
            parts.append(f' "{name}": [\n  {lines}\n ]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _medians(samples: Sequence[Record]) -> Record:
    """Returns the median over all rounds of each figure."""
    return {name: _rounded(median([sample[name] for sample in samples])) for name in samples[0]} if samples else {}


def _loads(outcomes: Iterable[Record]) -> Iterable[Record]:
    """Yields a contender's figures by calls in flight."""
    for one in outcomes:
        in_flight = {flight: _medians(samples) for flight, samples in one["samples"].items()}
        yield {"contender": one["contender"], "units": one["units"], "in_flight": in_flight, "trouble": one["trouble"]}


def _streams(outcomes: Iterable[Record]) -> Iterable[Record]:
    for one in outcomes:
        yield {"contender": one["contender"], "case": one["case"], **_medians(one["samples"])}


def _starts(outcomes: Iterable[Record]) -> Iterable[Record]:
    for one in outcomes:
        ready = _rounded(median(one["ready_seconds"])) if one["ready_seconds"] else None
        yield {"contender": one["contender"], "ready_seconds": ready, "resident_bytes": one["resident_bytes"]}


def _memory(outcomes: Iterable[Record]) -> Iterable[Record]:
    for one in outcomes:
        found = one["resident_bytes"]
        yield {"case": one["case"], "first_resident_bytes": found[0], "last_resident_bytes": found[-1]}


def _kernels(timings: Sequence[Record]) -> Iterable[Record]:
    """Yields the median microseconds by units of each contender and shape."""
    grouped: dict[tuple[str, int, int], dict[int, float | None]] = {}
    for one in timings:
        key = one["contender"], one["batch"], one["steps"]
        grouped.setdefault(key, {})[one["units"]] = one["median_us"] and _rounded(one["median_us"])
    for (contender, batch, steps), by_units in grouped.items():
        yield {"contender": contender, "batch": batch, "steps": steps, "median_us_by_units": by_units}


def _growth(outcomes: Iterable[Record]) -> Iterable[Record]:
    for one in outcomes:
        yield {**one, "median_us": [_rounded(value) for value in one["median_us"]]}


_PARTS: Final[dict[str, Any]] = {
    "rpc": _loads, "units": _loads, "streams": _streams, "batching": _loads,
    "startup": _starts, "memory": _memory, "kernels": _kernels, "growth": _growth,
}  # fmt: skip
