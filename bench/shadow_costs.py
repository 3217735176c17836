"""Benchmark of shadow mode: latency of `Step` with it, as a ratio to that without, in one run.

    python -m bench.shadow_costs [--calls 300] [--rounds 20]

Four servers run side by side, with shadow mode off, at 1 %, at 10 % and at all calls. They are asked in turn, a block of calls
each; between two blocks it waits until nothing is left to be compared, so that no server pays for another. A ratio is of
two medians of the same round, and the one shown is the median of those of all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import numpy as np

from bench.stream_costs import table
from lstmserve import Client
from tests.support.live import QUICK, serving
from tests.support.paths import SUNSPOTS

MODEL = SUNSPOTS
MODES = ("off", "0.01", "0.1", "all")
CALLS_A_SECOND = 200  # what a caller who streams asks at most; Keras would not keep up with all calls of more


class Asked:
    """A server of one mode, and the latencies of each round's calls in seconds."""

    def __init__(self, mode: str, stack: contextlib.ExitStack) -> None:
        self.mode = mode
        self.server = stack.enter_context(serving(MODEL, "--shadow", mode, *QUICK))
        if mode != "off":
            self.server.wait_for("reference_up")
        self.client = stack.enter_context(Client(self.server.address))
        self.state = self.client.step(np.zeros((1, 1), np.float32)).state
        self.medians: list[float] = []
        self.tails: list[float] = []

    def ask(self, calls: int) -> None:
        """Makes a round's calls, at a steady pace, and waits until all are compared."""
        x = np.full((1, 1), 0.5, np.float32)
        latencies = []
        due = time.perf_counter()
        for _ in range(calls):
            due += 1 / CALLS_A_SECOND
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            self.state = self.client.step(x, self.state).state
            latencies.append(time.perf_counter() - began)
        self.medians.append(statistics.median(latencies))
        self.tails.append(statistics.quantiles(latencies, n=100)[98])
        while self.mode != "off" and not self._settled():
            time.sleep(0.05)

    def _settled(self) -> bool:
        coverage = self.client.shadow_report().models[0].coverage
        done = coverage.compared_count + sum(coverage.dropped_counts.values()) + sum(coverage.error_counts.values())
        return done == coverage.sampled_count

    def row(self, off: Asked) -> list[str]:
        """Returns its row of the table."""
        coverage = None if self.mode == "off" else self.client.shadow_report().models[0].coverage
        compared = "-" if coverage is None else f"{coverage.compared_count:,} of {coverage.offered_count:,}"
        return [
            self.mode,
            f"{statistics.median(self.medians) * 1e6:.0f}",
            f"{_ratio(self.medians, off.medians):.3f}",
            f"{_ratio(self.tails, off.tails):.2f}",
            compared,
        ]


def _ratio(these: list[float], those: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        asked = [Asked(mode, stack) for mode in MODES]
        for server in asked:
            server.ask(arguments.calls)
            server.medians.clear()  # the first round warms up
            server.tails.clear()
        for number in range(arguments.rounds):
            for server in asked[number % len(asked) :] + asked[: number % len(asked)]:
                server.ask(arguments.calls)
        headings = ["--shadow", "median us", "to off: median", "p99", "compared"]
        print(table(headings, [server.row(asked[0]) for server in asked]))


if __name__ == "__main__":
    main()
