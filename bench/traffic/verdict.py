"""Shows the figures of an overload, and compares them with the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bench.traffic.servers import OURS

LEAST_GOODPUT = {2.0: 0.9, 4.0: 0.8}
"""Of the capacity, by how many times the capacity is asked for."""
REFUSALS = ("RESOURCE_EXHAUSTED", "CANCELLED", "CANCELLED (reset)", "UNAVAILABLE", "UNAVAILABLE (reset)")
"""How a call may be refused: by us, with details; the others are gRPC's own, where it drops calls that we never see."""
QUICK_MS = 50.0
FEW = 0.02
"""The share of calls that may end otherwise: a call whose deadline passes while it is under way ends as it can."""
RECOVERY_SECONDS = 2.0


def table(levels: Sequence[dict[str, Any]]) -> Table:
    """Returns the figures of all servers."""
    shown = Table(title="Overload")
    for heading in ("server", "asked"):
        shown.add_column(heading)
    for heading in (
        "capacity/s", "goodput/s", "of capacity", "per CPU s", "accepted p50 ms", "p99 ms", "probes good", "most MiB", "recovered after s",
    ):  # fmt: skip
        shown.add_column(heading, justify="right")
    shown.add_column("the other calls: share, p99 ms")
    for level in levels:
        calls = sum(code["calls"] for code in level["codes"].values())
        others = [
            f"{name} {code['calls'] / calls:.1%}, {code['p99_ms']:.0f}"
            for name, code in level["codes"].items()
            if name != "OK"
        ]
        shown.add_row(
            level["server"], f"{level['factor']:g}x", f"{level['capacity']:,.0f}", f"{level['goodput']:,.0f}",
            f"{level['ratio']:.2f}", f"{level['per_cpu']:.2f}", f"{level['accepted_median_ms']:.1f}",
            f"{level['accepted_p99_ms']:.0f}", f"{level['good_probes']:.0%}", f"{level['memory_mib']:.0f}",
            f"{level['recovery_seconds']:.2f}", "\n".join(others) or "none",
        )  # fmt: skip
    return shown


def complaints(levels: Sequence[dict[str, Any]], deadline: float) -> list[str]:
    """Returns in what our server falls short of what is promised."""
    found = []
    for level in levels:
        if level["server"] == OURS:
            found += [f"at {level['factor']:g}x: {text}" for text in _of_level(level, deadline)]
    return found


def _of_level(level: dict[str, Any], deadline: float) -> list[str]:
    found = []
    least = LEAST_GOODPUT.get(level["factor"], 0)
    if level["ratio"] < least:
        found.append(f"the goodput is {level['ratio']:.2f} of the capacity; expected at least {least}")
    if level["accepted_p99_ms"] > 1000 * deadline:
        found.append(f"the p99 of accepted calls is {level['accepted_p99_ms']:.0f} ms; expected the deadline at most")
    if level["recovery_seconds"] > RECOVERY_SECONDS:
        found.append(f"it took {level['recovery_seconds']:.1f} s to recover; expected {RECOVERY_SECONDS} at most")
    if level["wrong_answers"]:
        found.append(f"{level['wrong_answers']} answers were not the same as the first")
    calls = sum(code["calls"] for code in level["codes"].values())
    for name, code in level["codes"].items():
        if name in REFUSALS:
            if code["p99_ms"] > QUICK_MS:
                found.append(f"the p99 of {name} is {code['p99_ms']:.0f} ms; expected {QUICK_MS:.0f} at most")
        elif name != "OK" and code["calls"] > FEW * calls:
            found.append(f"{code['calls'] / calls:.1%} of the calls ended with: {name}; expected {FEW:.0%} at most")
    return found
