"""The servers under the same load, in turn."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from bench import environments, load, subject, truth
from bench.contenders import OURS, Contender
from bench.places import CACHE, ROOT
from bench.ports import free_port
from bench.processes import NotReady, ServerProcess

Say = Callable[[str], None]

_WARM_UP: Final = 300  # calls
_FEWEST: Final = 60


@dataclass
class Sample:
    """Result of one load in one round."""

    calls_per_second: float
    median_us: float
    p90_us: float
    p99_us: float
    cpu_seconds_per_1000: float


@dataclass
class Outcome:
    """Results of a contender with one size of the model."""

    contender: str
    units: int
    ready_seconds: list[float] = field(default_factory=list)
    distance: float | None = None
    resident_bytes: int | None = None
    answer_bytes: int = 0
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    """By calls in flight."""
    latencies_us: dict[int, list[float]] = field(default_factory=dict)
    """Quantiles of the latency in whole percents, of the last round, by calls in flight."""
    trouble: str = ""

    def median(self, what: str, in_flight: int) -> float:
        """Returns the median over the rounds of one figure."""
        return statistics.median(getattr(sample, what) for sample in self.samples[in_flight])


class Running:
    """A contender that runs, and what has been found out about it."""

    def __init__(self, contender: Contender, units: int, answer_file: str) -> None:
        self.contender = contender
        self.outcome = Outcome(contender.name, units)
        self._units = units
        given = subject.inputs(units, 1, 1)
        self._right = truth.of(subject.weights(units), given)
        self._message = contender.form.encode(given)
        self._pace = 0.0
        port = free_port()
        places = {"port": port, "units": units, "model": CACHE / f"lstm-{units}.keras", "answer": answer_file}
        arguments = [argument.format(**places) for argument in contender.arguments]
        self.server = ServerProcess(contender.environment, arguments, port, dict(contender.variables))

    @property
    def message_bytes(self) -> int:
        """The length of a request."""
        return len(self._message)

    def make_ready(self) -> bytes:
        """Waits for the first right answer, warms up, and returns the answer.

        Raises:
            NotReady: there is none.
        """
        answer = self.first_answer()
        self._pace = self._send(4, _FEWEST).calls_per_second
        self._pace = self._send(4, max(_FEWEST, min(_WARM_UP, int(self._pace)))).calls_per_second
        return answer

    def first_answer(self) -> bytes:
        """Waits for the first right answer, and returns it.

        Raises:
            NotReady: there is none.
        """
        answer, seconds = self.server.first_answer(self.contender.form.method, self._message, self._accept)
        self.outcome.ready_seconds.append(seconds)
        self.outcome.answer_bytes = len(answer)
        return answer

    def _accept(self, answer: bytes) -> bool:
        if not self.contender.computes:
            return True
        made = self.contender.form.decode(answer)
        pairs = ((made["y"], self._right.head), (made["h"], self._right.h), (made["c"], self._right.c))
        self.outcome.distance = max(truth.distance(*pair) for pair in pairs)
        return self.outcome.distance <= subject.TOLERANCE

    def _send(self, in_flight: int, calls: int) -> load.Load:
        return load.send(
            self.server.port, self.contender.form.method, self._message, in_flight, calls, self.outcome.answer_bytes
        )

    def measure(self, in_flight: int, seconds: float) -> None:
        """Loads it for about so long, and remembers what came of it."""
        self._send(in_flight, _FEWEST)  # it has just been paused
        calls = max(_FEWEST, in_flight * 4, int(self._pace * seconds * (0.5 if in_flight == 1 else 1)))
        before = self.server.cpu_seconds()
        done = self._send(in_flight, calls)
        cpu = self.server.cpu_seconds() - before
        sample = Sample(
            done.calls_per_second, done.median_us, done.quantile_us(0.9), done.quantile_us(0.99), 1000 * cpu / calls
        )
        self.outcome.samples.setdefault(in_flight, []).append(sample)
        self.outcome.latencies_us[in_flight] = [done.quantile_us(percent / 100) for percent in range(101)]
        self.outcome.resident_bytes = self.server.resident_bytes()


def write_models(sizes: Sequence[int]) -> None:
    """Writes the model files that are not there yet."""
    missing = [str(units) for units in sizes if not (CACHE / f"lstm-{units}.keras").exists()]
    if missing:
        subprocess.run(
            [environments.python(environments.OURS), "-m", "bench.write_models", *missing],
            cwd=ROOT, env=environments.variables(), check=True,
        )  # fmt: skip


def measure(
    contenders: Sequence[Contender], units: int, in_flight: Sequence[int], rounds: int, seconds: float, say: Say
) -> list[Outcome]:
    """Runs contenders side by side, loads them in turn for several rounds, and returns what came of each."""
    write_models([units])
    with contextlib.ExitStack() as stack:
        answer_file = stack.enter_context(NamedTemporaryFile())
        Path(answer_file.name).write_bytes(_own_answer(units, say))
        outcomes, running = [], []
        for contender in contenders:
            outcome, started = _start(contender, units, answer_file.name, stack, say)
            outcomes.append(outcome)
            running += started
        for number in range(rounds):
            for flight in in_flight:
                for one in _turned(running, number):
                    _measure_one(one, flight, seconds, say)
        for one in running:
            say(f"{one.contender.name}, units {units}: {_summary(one.outcome)}")
        return outcomes


def _turned(running: list[Running], number: int) -> list[Running]:
    """Returns the same beginning with another, so that no one always follows the same one."""
    first = number % max(1, len(running))
    return running[first:] + running[:first]


def _start(
    contender: Contender, units: int, answer_file: str, stack: contextlib.ExitStack, say: Say
) -> tuple[Outcome, list[Running]]:
    if not environments.installed(contender.environment):
        return Outcome(contender.name, units, trouble=environments.trouble(contender.environment)), []
    one = Running(contender, units, answer_file)
    stack.callback(one.server.stop)
    try:
        one.make_ready()
    except (NotReady, load.LoadFailed) as error:
        one.outcome.trouble = str(error)
        one.server.stop()
        say(f"{contender.name}: {error}")
        return one.outcome, []
    one.server.pause()
    say(f"{contender.name}: ready after {one.outcome.ready_seconds[0]:.2f} s")
    return one.outcome, [one]


def _measure_one(one: Running, in_flight: int, seconds: float, say: Say) -> None:
    if one.outcome.trouble:
        return
    one.server.resume()
    try:
        one.measure(in_flight, seconds)
    except load.LoadFailed as error:
        one.outcome.trouble = str(error)
        say(f"{one.contender.name}: {error}")
    one.server.pause()


def _own_answer(units: int, say: Say) -> bytes:
    """Returns the answer of the service, which an echo then gives."""
    one = Running(OURS, units, "")
    with one.server:
        answer = one.make_ready()
    say(f"units {units}: {one.message_bytes} bytes in, {len(answer)} out")
    return answer


def _summary(outcome: Outcome) -> str:
    return "; ".join(
        f"{flight} in flight {outcome.median('calls_per_second', flight):,.0f}/s, "
        f"{outcome.median('median_us', flight):,.0f} us, "
        f"{outcome.median('cpu_seconds_per_1000', flight):.3f} CPU s per 1,000"
        for flight in outcome.samples
    )
