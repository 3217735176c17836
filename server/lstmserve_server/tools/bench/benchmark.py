"""Measures a server on the user's own model and machine, case by case."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lstmserve_server.core import packages
from lstmserve_server.observability.status_page.samples import Samples
from lstmserve_server.tools.bench.load_generator import Case, LoadResult
from lstmserve_server.tools.bench.processes import CaseFailed, Load, Memory, Server

PARTS: Final = ("decode", "compute", "encode")
"""The parts of a call that take CPU time of the server, and that it measures itself."""

STEPS: Final = 16
"""Time-steps of a message of the stream that has several."""

_WARM_UP: Final = 0.25  # of the time of a measurement
_METHODS: Final = {"step": "Step", "forward": "Forward"}
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a benchmark."""

    file: str
    numerics: tuple[str, ...]
    duration: float
    """Seconds for each measurement."""

    rows: tuple[int, ...]
    """Rows of the messages that have several."""

    concurrency: tuple[int, ...]
    """Callers at the same time, in ascending order."""

    part: Mapping[str, str | None]
    """Which part of the model it is, and where its configuration is, by the names of the flags."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The server's own counts during a measurement; times in seconds, summed over all calls."""

    calls: int
    steps: int
    """Time-steps, those of each row."""

    decode: float
    queue: float
    compute: float
    encode: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Measurement of one case."""

    numerics: str
    case: Case
    taken: LoadResult
    counted: Counted

    @property
    def calls_per_second(self) -> float:
        """Calls, or messages of streams."""
        return self.taken.calls / self.taken.seconds

    @property
    def steps(self) -> int:
        """Time-steps that the callers got, those of each row."""
        return self.taken.calls * self.case.rows * self.case.steps

    @property
    def steps_per_second(self) -> float:
        """Time-steps, those of each row."""
        return self.steps / self.taken.seconds

    @property
    def cpu_per_call(self) -> float:
        """CPU seconds of the server."""
        return self.taken.server_cpu / self.taken.calls

    @property
    def cpu_per_1000_steps(self) -> float:
        """CPU seconds of the server."""
        return 1000 * self.taken.server_cpu / self.steps

    @property
    def time(self) -> dict[str, float]:
        """CPU seconds of a call by phase; the rest is gRPC and the event loop."""
        parts = {part: getattr(self.counted, part) / self.taken.calls for part in PARTS}
        return {**parts, "rest": max(0.0, self.cpu_per_call - sum(parts.values()))}

    @property
    def shares(self) -> dict[str, float]:
        """The same as shares, which sum up to 1."""
        whole = sum(self.time.values())
        return {part: seconds / whole if whole else 0.0 for part, seconds in self.time.items()}

    def as_dict(self) -> dict[str, Any]:
        """Returns everything, under stable keys."""
        taken = self.taken
        return {
            "kind": self.case.kind,
            "concurrency": self.case.callers,
            "rows": self.case.rows,
            "steps_per_call": self.case.steps,
            "calls": taken.calls,
            "seconds": taken.seconds,
            "calls_per_second": self.calls_per_second,
            "steps_per_second": self.steps_per_second,
            "latency_seconds": {"p50": taken.p50, "p90": taken.p90, "p99": taken.p99, "max": taken.max},
            "server_cpu_seconds": taken.server_cpu,
            "server_cpu_seconds_per_call": self.cpu_per_call,
            "server_cpu_seconds_per_1000_steps": self.cpu_per_1000_steps,
            "load_cpu_seconds": taken.load_cpu,
            "server_counted": {"calls": self.counted.calls, "steps": self.counted.steps},
            "queue_seconds_per_call": self.counted.queue / taken.calls,
            "time_seconds_per_call": self.time,
            "time_shares": self.shares,
        }


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of a measurement."""

    cpus: int
    usable_cpus: float
    """Those that this process may use, by its affinity and the quota of its control group."""

    load_average: float
    """How many processes wanted to run in the minute before; the benchmark's own are not among them."""

    system: str
    processor: str
    versions: Mapping[str, str]

    @classmethod
    def here(cls) -> Self:
        """Returns this one."""
        found = {name: packages.version_of(name) for name in ("lstmserve", "numpy", "grpcio")}
        return cls(
            os.cpu_count() or 1,
            min(len(os.sched_getaffinity(0)), _quota()),
            os.getloadavg()[0],
            f"{platform.system()} {platform.release()}",
            _processor(),
            {"lstmserve": found["lstmserve"], "python": platform.python_version(), **found},
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """All measurements of one server."""

    numerics: str
    ready_seconds: float
    """From its start until it serves."""

    load_seconds: float
    """Of these, for the model: reading the file, and the self-test."""

    ready: Memory
    """When it was ready."""

    ended: Memory
    """When all was measured."""

    measurements: Sequence[Measurement]
    failures: Sequence[tuple[Case, str]]
    """What could not be measured, and why."""


class Benchmark:
    """Context that runs a server for each numerics, and a load generator.

    with Benchmark(plan) as benchmark:
        for done in benchmark.run():
            ...
        found = benchmark.found()
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._running = contextlib.ExitStack()
        self._servers: dict[str, Server] = {}
        self._ready: dict[str, Memory] = {}
        self._measurements: list[Measurement] = []
        self._failures: list[tuple[str, Case, str]] = []
        self.model: Mapping[str, Any] = {}
        """What the server says of the model."""

    def __enter__(self) -> Self:
        """Starts all.

        Raises:
            StartupError: the model is refused, or a process cannot be started.
        """
        with contextlib.ExitStack() as starting:
            self._load = starting.enter_context(Load())
            for numerics in self._plan.numerics:
                server = starting.enter_context(Server(self._plan.file, _options(self._plan, numerics)))
                self._load.ask("guard", pid=server.process.pid)
                server.wait_until_ready()
                self._servers[numerics] = server
                self._ready[numerics] = server.memory()
                try:
                    self.model = self._load.ask("connect", address=server.address, pid=server.process.pid)
                except CaseFailed as error:
                    raise server.ended() from error
            self._running = starting.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    @property
    def cases(self) -> list[Case]:
        """Cases to measure, in order."""
        return cases(self._plan, self.model)

    def run(self) -> Iterator[Case]:
        """Yields each case before it is measured; with several servers, each case with one after the other.

        Raises:
            StartupError: a process has ended.
        """
        for case in self.cases:
            for numerics, server in self._servers.items():
                yield case
                try:
                    self._measurements.append(self._measure(numerics, server, case))
                except CaseFailed as error:
                    server.metrics()  # or is it gone?
                    self._failures.append((numerics, case, str(error)))

    def found(self) -> list[Measured]:
        """Returns the measurements of each server."""
        return [
            Measured(
                numerics,
                server.ready_seconds,
                server.load_seconds,
                self._ready[numerics],
                server.memory(),
                [taken for taken in self._measurements if taken.numerics == numerics],
                [(case, text) for whose, case, text in self._failures if whose == numerics],
            )
            for numerics, server in self._servers.items()
        ]

    def _measure(self, numerics: str, server: Server, case: Case) -> Measurement:
        duration = self._plan.duration
        self._load.ask("open", address=server.address, case=asdict(case), warm_up=_WARM_UP * duration)
        before = server.metrics()
        taken = LoadResult(**self._load.ask("fill", seconds=duration))
        return Measurement(numerics, case, taken, counted(case, before, server.metrics()))


def cases(plan: Plan, model: Mapping[str, Any]) -> list[Case]:
    """The cases to measure, in order."""
    few, many = plan.concurrency[0], plan.concurrency[-1]
    sequence = model["sequence_steps"]
    if not model["supports_step"]:
        return [
            *(Case("forward", callers, 1, sequence) for callers in plan.concurrency),
            *(Case("forward", few, rows, sequence) for rows in plan.rows),
        ]
    streams = (
        Case("stream", few), *((Case("stream", many),) if many > few else ()),
        *(Case("stream", few, rows) for rows in plan.rows), Case("stream", few, 1, STEPS),
    )  # fmt: skip
    return [*(Case("step", callers) for callers in plan.concurrency), *streams, Case("forward", few, 1, sequence)]


def counted(case: Case, before: Samples, after: Samples) -> Counted:
    """Returns the difference between two scrapes of a server's metrics."""

    def grown(name: str, **labels: str) -> float:
        return (after.total(name, **labels) or 0.0) - (before.total(name, **labels) or 0.0)

    if case.kind == "stream":
        calls = grown("lstmserve_stream_messages_total")
    else:
        calls = grown("lstmserve_calls_total", method=_METHODS[case.kind], code="OK")
    parts = (
        grown("lstmserve_call_phase_duration_seconds_sum", phase=part)
        for part in ("decode", "queue", "compute", "encode")
    )
    return Counted(round(calls), round(grown("lstmserve_steps_total")), *parts)


def _options(plan: Plan, numerics: str) -> dict[str, str | int | None]:
    """Returns the default settings, without limits that a measurement would reach."""
    callers, rows = plan.concurrency[-1], max(1, *plan.rows)
    return {
        "numerics": numerics,
        **plan.part,
        "max-rows": max(1024, rows),
        "max-concurrent-calls": max(64, callers),
        "max-pending-calls": max(64, 2 * callers),
        "max-streams-per-connection": max(256, callers),
        "max-streams": max(1024, callers),
    }


def _quota() -> float:
    try:
        quota, period = _QUOTA.read_text().split()
        return max(0.1, int(quota) / int(period))
    except (OSError, ValueError):  # no control group of version 2, or "max"
        return float("inf")


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
