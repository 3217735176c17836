"""The two processes of `lstmserve bench`, the server and the load generator: started, used, and always stopped."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from prometheus_client.parser import text_string_to_metric_families

from lstmserve_server.core.errors import ServerCrashed, SettingsError, StartupError
from lstmserve_server.observability.status_page.samples import Samples

_PYTHON: Final = (sys.executable, "-P", "-m")
_PATIENCE: Final = 5.0  # seconds for a process to end by itself
_NAME: Final = "model"
_ENDED: Final[Mapping[int, type[StartupError]]] = {1: ServerCrashed, 2: SettingsError}


class CaseFailed(Exception):
    """A case cannot be measured; others can."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process, in bytes."""

    resident: int
    peak: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Returns that of a process."""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(*(int(lines[key].split()[0]) << 10 for key in ("VmRSS", "VmHWM")))


class _Child:
    """A child process that ends with its context."""

    def __init__(self, arguments: Sequence[str], **streams: Any) -> None:
        # Of no one's settings but the ones that are given here; and Ctrl-C is for us, who end it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LSTMSERVE_")}
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [*_PYTHON, *arguments], env=environment, text=True, errors="backslashreplace", process_group=0, **streams
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.process.terminate()
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        finally:  # a second Ctrl-C too comes by here
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()


class Server(_Child):
    """`lstmserve serve`, on a port of its own choosing on the loopback interface."""

    def __init__(self, file: str, options: Mapping[str, str | int | None]) -> None:
        """Starts it.

        Args:
            file: the model.
            options: its settings, by their flags; None for those that are not given.
        """
        given = [f"--{flag}={value}" for flag, value in options.items() if value is not None]
        self._began = time.perf_counter()
        super().__init__(
            ["lstmserve_server", "serve", "--listen=127.0.0.1:0", "--metrics=127.0.0.1:0", "--log-format=json",
             "--lame-duck-seconds=0", "--drain-seconds=1", *given, "--", f"{_NAME}={file}"],
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._last: deque[str] = deque(maxlen=10)
        self.address = self._operators = ""
        self.ready_seconds = self.load_seconds = 0.0

    def wait_until_ready(self) -> None:
        """Returns when it serves.

        Raises:
            StartupError: it does not; the text and the exit code are the server's own.
        """
        log: Any = self.process.stderr
        for line in log:
            self._last.append(line)
            match _event(line):
                case {"event": "metrics", "listen": address}:
                    self._operators = address
                case {"event": "model_loaded", "seconds": seconds}:
                    self.load_seconds = seconds
                case {"event": "serving", "listen": [address, *_]}:
                    self.address, self.ready_seconds = address, time.perf_counter() - self._began
                    threading.Thread(target=lambda: self._last.extend(log), daemon=True).start()
                    return
        raise self.ended()

    def metrics(self) -> Samples:
        """Returns its metrics.

        Raises:
            StartupError: it is gone.
        """
        host, _, port = self._operators.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=_PATIENCE)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except OSError as error:
            raise self.ended() from error
        finally:
            connection.close()
        return Samples(text_string_to_metric_families(text))

    def memory(self) -> Memory:
        """Returns its memory use."""
        return Memory.of(self.process.pid)

    def ended(self) -> StartupError:
        """Returns the error of a server that has ended or no longer answers."""
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return ServerCrashed("the server no longer answers")
        said = next((line for line in reversed(self._last) if line.startswith("lstmserve: ")), "")
        text = said.strip().removeprefix("lstmserve: ").removeprefix(f"model '{_NAME}' is refused. ")
        kind = _ENDED.get(code, StartupError) if said else ServerCrashed
        noise = [line.strip() for line in self._last if _event(line) is None]
        return kind(text or f"the server has ended by itself, with {code}{''.join(f': {line}' for line in noise[-1:])}")


class Load(_Child):
    """The load generator."""

    def __init__(self) -> None:
        """Starts it, and waits until it is ready, so that it does not disturb a server that starts."""
        super().__init__(["lstmserve_server.tools.bench.load_generator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._answer()
        except BaseException:
            self.__exit__()
            raise

    def ask(self, command: str, **what: Any) -> Any:
        """Sends a command, and returns its result.

        Raises:
            CaseFailed: the server did not answer as it should.
            StartupError: the generator is gone.
        """
        pipe: Any = self.process.stdin
        try:
            pipe.write(json.dumps({"do": command, **what}) + "\n")
            pipe.flush()
        except OSError as error:
            raise _lost() from error
        return self._answer()

    def _answer(self) -> Any:
        pipe: Any = self.process.stdout
        line = pipe.readline()
        if not line:
            raise _lost()
        answer = json.loads(line)
        if "failed" in answer:
            raise CaseFailed(answer["failed"])
        return answer


def _lost() -> ServerCrashed:
    return ServerCrashed("the load generator has ended by itself; see what is on standard error before this")


def _event(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:  # what others write there
        return None
