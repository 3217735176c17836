"""A generator of load, as a process of its own: calls at a fixed rate, whatever comes back (open loop), or a fixed number at a time.

    python -m bench.traffic.generator < plan.json > calls.npy

Times are of the clock that all processes of a machine share. A call counts from the moment when it was due, not when it was
sent: a server that holds up the generator does not make itself look faster.
"""

from __future__ import annotations

import base64
import gc
import json
import random
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from bench.traffic.connection import Connection, Request

LATE: Final = 96
"""The code of a call that had no answer when its time was over."""
UNSENT: Final = 97
"""The same, of one that was never sent, as the server allowed no more streams or bytes."""
RECORD: Final = np.dtype([("due", "f8"), ("sent", "f8"), ("ended", "f8"), ("code", "i2"), ("same", "?"), ("ours", "?")])
"""A call: `same` says whether the answer has the bytes of the first one, `ours` whether its trailers have details."""

_TICK: Final = 0.001
_OURS: Final = "grpc-status-details-bin"


@dataclass(frozen=True)
class Plan:
    """Plan of what to send."""

    address: str
    path: str
    data: str
    """The message, in base64."""
    seconds: float
    rate: float = 0
    """Calls per second; 0: `in_flight` at a time instead."""
    in_flight: int = 0
    deadline: float = 0.2
    connections: int = 8
    poisson: bool = True
    seed: int = 1


def run(plan: Plan) -> Any:
    """Has a process carry out a plan, and returns the calls that it made, an array of `RECORD`."""
    return finish(start(plan))


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """Starts a process that carries out a plan."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.traffic.generator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(plan)).encode())
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[bytes]) -> Any:
    """Waits for such a process, and returns its calls."""
    output, _ = process.communicate()
    assert process.returncode == 0
    return np.frombuffer(output, RECORD)


class Generator:
    """Carries out a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._due: list[float] = []
        self._sent: list[float] = []
        self._over: list[float] = []
        self._codes: list[int] = []
        self._same: list[bool] = []
        self._ours: list[bool] = []
        self._answer = b""
        self._now = 0.0
        self._waiting: deque[int] = deque()
        self._under_way: deque[tuple[int, Connection, int]] = deque()
        request = Request(plan.path, base64.b64decode(plan.data), plan.deadline)
        self._connections = [Connection(plan.address, request, self._ended) for _ in range(plan.connections)]
        self._turn = 0

    def generate(self) -> Any:
        """Returns the calls that were made."""
        poll = select.poll()
        by_file = {connection.socket.fileno(): connection for connection in self._connections}
        self._greet(poll, by_file)
        arrivals = self._arrivals(time.monotonic())
        end = time.monotonic() + self._plan.seconds
        due = next(arrivals)
        while True:
            self._now = now = time.monotonic()
            while due <= now and due < end:
                self._add(due)
                due = next(arrivals)
            self._send()
            self._expire()
            if now >= end and not self._waiting and not self._under_way:
                return self._record()
            for connection in self._connections:
                if connection.open:
                    left = connection.flush()
                    poll.modify(connection.socket, select.POLLIN | (select.POLLOUT if left else 0))
            # Sleeping for a while lets arrivals and answers gather: one system call serves many.
            wait = _TICK if self._plan.rate else 0.0
            time.sleep(wait)
            for file, _ in poll.poll(0 if wait else 5):
                self._now = time.monotonic()
                by_file[file].receive()
                if not by_file[file].open:
                    poll.unregister(file)

    def _greet(self, poll: select.poll, by_file: dict[int, Connection]) -> None:
        """Waits until every server has said how many streams it allows."""
        for connection in self._connections:
            connection.flush()
            poll.register(connection.socket, select.POLLIN)
        silent = set(by_file)
        until = time.monotonic() + 5
        while silent and time.monotonic() < until:
            for file, _ in poll.poll(100):
                by_file[file].receive()
                silent.discard(file)

    def _arrivals(self, now: float) -> Iterator[float]:
        """Yields the times when calls are due, for ever."""
        plan = self._plan
        chance = random.Random(plan.seed)
        if not plan.rate:
            for _ in range(plan.in_flight):
                yield now
            while True:
                yield float("inf")
        while True:
            now += chance.expovariate(plan.rate) if plan.poisson else 1 / plan.rate
            yield now

    def _add(self, due: float) -> None:
        self._waiting.append(len(self._due))
        self._due.append(due)
        self._sent.append(0.0)
        self._over.append(0.0)
        self._codes.append(LATE)
        self._same.append(False)
        self._ours.append(False)

    def _send(self) -> None:
        """Sends what waits, as far as the server allows it, to one connection after the other."""
        full = 0
        while self._waiting and full < len(self._connections):
            connection = self._connections[self._turn]
            self._turn = (self._turn + 1) % len(self._connections)
            if not connection.room:
                full += 1
                continue
            full = 0
            number = self._waiting.popleft()
            self._sent[number] = self._now
            self._under_way.append((number, connection, connection.call(number)))

    def _expire(self) -> None:
        """Gives up the calls whose time is over."""
        latest = self._now - self._plan.deadline
        while self._under_way:
            number, connection, stream = self._under_way[0]
            if not self._over[number]:
                if self._due[number] > latest:
                    break
                if connection.open and stream in connection.calls:
                    connection.cancel(stream)
                self._over[number] = self._now
                self._again()
            self._under_way.popleft()
        while self._waiting and self._due[self._waiting[0]] <= latest:
            number = self._waiting.popleft()
            self._codes[number], self._over[number] = UNSENT, self._now

    def _ended(self, number: int, code: int, message: bytes, names: frozenset[str]) -> None:
        self._codes[number], self._over[number] = code, self._now
        self._ours[number] = _OURS in names
        if code == 0:
            self._answer = self._answer or message
            self._same[number] = bool(message) and message == self._answer
        self._again()

    def _again(self) -> None:
        """Lets the next call of a closed loop follow the one that ended."""
        if not self._plan.rate and self._now < self._due[0] + self._plan.seconds:
            self._add(self._now)

    def _record(self) -> Any:
        calls = np.zeros(len(self._due), RECORD)
        columns = self._due, self._sent, self._over, self._codes, self._same, self._ours
        for name, values in zip(RECORD.names or (), columns, strict=True):
            calls[name] = values
        return calls


def main() -> None:
    """Carries out the plan on standard input."""
    plan = Plan(**json.load(sys.stdin))
    gc.disable()  # nothing here goes round in circles, and a pause would be the server's
    sys.stdout.buffer.write(Generator(plan).generate().tobytes())


if __name__ == "__main__":
    main()
