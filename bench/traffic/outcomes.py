"""Outcomes of many calls."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np

from bench.traffic.connection import GONE, RESET
from bench.traffic.generator import LATE, UNSENT

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_OTHERS = {LATE: "no answer in time", UNSENT: "not sent in time", GONE: "connection lost"}


def name_of(code: int) -> str:
    """Returns what a code of a call says."""
    if code in _OTHERS:
        return _OTHERS[code]
    return _NAMES[code] if code < RESET else f"{_NAMES[code - RESET]} (reset)"


def milliseconds(calls: Any) -> Any:
    """Returns how long calls took, from the moment when they were due."""
    return 1000 * (calls["ended"] - calls["due"])


def good(calls: Any, deadline: float) -> Any:
    """Returns which calls were answered within their deadline, with the bytes that they all have to have."""
    return (calls["code"] == 0) & calls["same"] & (milliseconds(calls) <= 1000 * deadline)


def quantiles(values: Any) -> tuple[float, float]:
    """Returns the median and the 99th percentile; "not a number" of nothing."""
    if not len(values):
        return float("nan"), float("nan")
    median, p99 = np.percentile(values, [50, 99])
    return float(median), float(p99)


def by_code(calls: Any) -> dict[str, Any]:
    """Returns how many calls ended with each code, and how long that took, the most frequent first."""
    codes, counts = np.unique(calls["code"], return_counts=True)
    found = {}
    for code, count in sorted(zip(codes.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1]):
        some = calls[calls["code"] == code]
        median, p99 = quantiles(milliseconds(some))
        found[name_of(code)] = {
            "calls": count,
            "median_ms": median,
            "p99_ms": p99,
            "with_details": float(some["ours"].mean()),
        }
    return found
