"""Real server processes for tests: started as a user would, waited for by what they say, never by the clock."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

PROGRAM = (sys.executable, "-m", "lstmserve_server")
CLIENT = (sys.executable, "-m", "lstmserve")

QUICK = ("--lame-duck-seconds", "0")


class LiveServer:
    """A running `lstmserve serve`, and what it has logged so far."""

    def __init__(
        self, *arguments: str | Path, env: dict[str, str] | None = None, program: tuple[str, ...] = PROGRAM
    ) -> None:
        self.process = subprocess.Popen(
            [*program, "serve", *map(str, arguments), "--log-format", "json"],
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",  # gRPC writes there what strangers sent
            env={**os.environ, **(env or {})},
        )
        self.log: list[dict[str, Any]] = []
        self.noise: list[str] = []

    def wait_for(self, event: str) -> dict[str, Any]:
        """Returns the next line of the log with this event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                self.noise.append(line)
                continue
            self.log.append(entry)
            if entry["event"] == event:
                return entry
        raise AssertionError(f"the server ended without {event!r}: {self.log} {self.noise}")

    @property
    def address(self) -> str:
        """Where the server listens first."""
        starting = next(entry for entry in self.log if entry["event"] == "starting")
        return str(starting["listen"][0])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, reads the log to its end, and returns the exit code."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        """Reads the log to its end and returns the exit code."""
        self.wait_for_end()
        return self.process.wait()

    def wait_for_end(self) -> None:
        """Reads the log to its end."""
        with contextlib.suppress(AssertionError):
            self.wait_for("")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def serving(
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    program: tuple[str, ...] = PROGRAM,
    until: str = "serving",
) -> Iterator[LiveServer]:
    """Runs a server that is ready: that has logged an event."""
    if "--listen" not in arguments:
        arguments = (*arguments, "--listen", "127.0.0.1:0")
    with LiveServer(*arguments, env=env, program=program) as server:
        server.wait_for(until)
        yield server


def run(*arguments: str | Path, program: tuple[str, ...] = PROGRAM, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command of ours to its end, which has to come within two minutes."""
    options = {"timeout": 120, **options}
    return subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, check=False, **options)


def until(found: Callable[[], Any], patience: float = 30) -> Any:
    """Asks until the answer is true, and returns it: for what tells no one that it happens."""
    deadline, never = time.monotonic() + patience, threading.Event()
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{found} never became so"
        never.wait(0.01)
    return answer
