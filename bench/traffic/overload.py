"""More calls than a server can answer: how many it answers all the same, what becomes of the others, and what comes after.

The load comes from processes of their own, at a fixed rate, whatever comes back. A server's capacity is what it answers of a few calls
at a time, and is taken again before and after every stretch of overload: on a machine with other things to do, figures
alongside each other are worth more than figures in a row.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from bench.stream_costs import cpu_seconds, resident_kib
from bench.traffic import generator, outcomes
from bench.traffic.generator import Plan
from bench.traffic.servers import Target
from lstmserve import calls

IN_FLIGHT = 8
"""Calls at a time when the capacity is taken: enough to keep a server busy, too few to be refused."""
CAPACITY_SECONDS = 1.5
PROBES_PER_SECOND = 50
AFTER = 4.0
"""Seconds for which the probes continue when the overload is over."""
CALM = 10
"""Number of consecutive probes that must be answered as quickly as before, for a server to have recovered."""


@dataclass
class Level:
    """Results of a server at one multiple of its capacity, one value for each round."""

    server: str
    factor: float
    capacity: list[float] = field(default_factory=list)
    goodput: list[float] = field(default_factory=list)
    """Answers within the deadline per second."""
    ratio: list[float] = field(default_factory=list)
    """Goodput per capacity."""
    per_cpu: list[float] = field(default_factory=list)
    """The same per second of the server's CPU: what other programs do changes it less."""
    memory_mib: list[float] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    calls: Any = field(default_factory=lambda: np.zeros(0, generator.RECORD))
    probes: Any = field(default_factory=lambda: np.zeros(0, generator.RECORD))
    """The calls of someone else, who asks seldom, during the overload."""

    def summary(self, deadline: float) -> dict[str, Any]:
        """Returns it as plain values: medians of the rounds, and quantiles of all calls."""
        took = outcomes.milliseconds(self.calls)
        median, p99 = outcomes.quantiles(took[self.calls["code"] == 0])
        answered = self.calls[self.calls["code"] == 0]
        rounds = {name: value for name, value in asdict(self).items() if isinstance(value, list)}
        return {
            "server": self.server,
            "factor": self.factor,
            **{name: statistics.median(values) for name, values in rounds.items()},
            "accepted_median_ms": median,
            "accepted_p99_ms": p99,
            "wrong_answers": int((~answered["same"]).sum()),
            "good_probes": float(outcomes.good(self.probes, deadline).mean()),
            "codes": outcomes.by_code(self.calls),
            "rounds": rounds,
        }


class Peak:
    """The most memory that a process had in a stretch of time."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.mib = max(self.mib, resident_kib(self._pid) / 1024)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Driver:
    """Puts one server under load."""

    def __init__(self, target: Target, data: str, deadline: float) -> None:
        """Records a server, of the message that it is to get, and how long its callers wait, in seconds."""
        self.target = target
        self._deadline = deadline
        self._plan = {"address": target.address, "path": calls.method("Step"), "data": data}
        self.capacity(0.5)
        self._normal_ms = self._normal()

    def capacity(self, seconds: float = CAPACITY_SECONDS) -> tuple[float, float]:
        """Returns how many calls it answers in a second, and in a second of its CPU."""
        before = cpu_seconds(self.target.pid)
        found = generator.run(Plan(**self._plan, seconds=seconds, in_flight=IN_FLIGHT, deadline=10))
        answered = int((found["code"] == 0).sum())
        return answered / seconds, answered / (cpu_seconds(self.target.pid) - before)

    def overload(self, level: Level, seconds: float, seed: int) -> None:
        """Drives it for a while, and adds what was found to a level."""
        before = self.capacity()
        used = cpu_seconds(self.target.pid)
        with Peak(self.target.pid) as peak:
            probing = generator.start(self._probes(seconds + AFTER))
            plan = Plan(
                **self._plan, seconds=seconds, rate=level.factor * before[0], deadline=self._deadline, seed=seed
            )
            found = generator.run(plan)
            used = cpu_seconds(self.target.pid) - used
            over = float(found["due"].max())
            probes = generator.finish(probing)
        after = self.capacity()
        good = int(outcomes.good(found, self._deadline).sum())
        level.capacity.append((before[0] + after[0]) / 2)
        level.goodput.append(good / seconds)
        level.ratio.append(good / seconds / level.capacity[-1])
        level.per_cpu.append(good / used / ((before[1] + after[1]) / 2))
        level.memory_mib.append(peak.mib)
        level.recovery_seconds.append(recovery(probes, over, self._normal_ms))
        level.calls = np.concatenate([level.calls, found])
        level.probes = np.concatenate(
            [level.probes, probes[(probes["due"] > found["due"].min()) & (probes["due"] < over)]]
        )

    def _probes(self, seconds: float) -> Plan:
        return Plan(
            **self._plan, seconds=seconds, rate=PROBES_PER_SECOND, deadline=self._deadline, connections=1, poisson=False
        )

    def _normal(self) -> float:
        """Returns how long a call takes at most when there is little to do, in milliseconds."""
        time.sleep(0.5)
        found = generator.run(self._probes(3))
        return max(10.0, 2 * outcomes.quantiles(outcomes.milliseconds(found))[1])


def recovery(probes: Any, over: float, normal_ms: float) -> float:
    """Returns after how many seconds probes are answered as quickly as ever; infinite if they never are."""
    probes = probes[probes["due"] >= over]
    calm = (probes["code"] == 0) & (outcomes.milliseconds(probes) <= normal_ms)
    for first in range(len(probes) - CALM + 1):
        if calm[first : first + CALM].all():
            return float(probes["due"][first] - over)
    return float("inf")


def measure(drivers: Sequence[Driver], factors: Sequence[float], seconds: float, rounds: int) -> list[Level]:
    """Returns what each server did at each multiple of its capacity, for a total time in seconds."""
    found = []
    for factor in factors:
        levels = [Level(driver.target.name, factor) for driver in drivers]
        for number in range(rounds):
            for driver, level in zip(drivers, levels, strict=True):
                driver.overload(level, seconds / rounds, seed=number + 1)
        found += levels
    return found
