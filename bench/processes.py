"""A contender's server as a process: started, waited for until its first right answer, and looked at from outside."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import grpc
import psutil

from bench import environments
from bench.places import ROOT

_PATIENCE: Final = 120  # seconds until a server has to have answered
_PAUSE: Final = 0.005
_CALL_SECONDS: Final = 30


class NotReady(Exception):
    """A server did not come to a right answer."""


class ServerProcess:
    """A server and all its children."""

    def __init__(self, environment: str, arguments: list[str], port: int, variables: dict[str, str]) -> None:
        self.port = port
        self._log = tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log")  # noqa: SIM115 - closed by `stop`
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            [environments.python(environment), *arguments],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=ROOT,
            env=environments.variables(**variables), start_new_session=True,
        )  # fmt: skip
        self._top = psutil.Process(self._process.pid)

    def first_answer(self, method: str, message: bytes, accept: Callable[[bytes], bool]) -> tuple[bytes, float]:
        """Returns the first answer that is accepted, and the seconds from the start of the process to it.

        Raises:
            NotReady: there is none; the end of what the server printed says more.
        """
        trouble = "it never listened"
        while time.perf_counter() < self.began + _PATIENCE and self._process.poll() is None:
            if not self._listens():
                time.sleep(_PAUSE)
                continue
            try:
                answer = self.ask(method, message)
            except grpc.RpcError as error:
                trouble = str(error.code()) + " " + str(error.details())[:300]  # type: ignore[attr-defined]
                time.sleep(_PAUSE)
                continue
            if not accept(answer):
                raise NotReady("its answer is wrong")
            return answer, time.perf_counter() - self.began
        raise NotReady(f"{trouble}. {self.last_words()}")

    def ask(self, method: str, message: bytes) -> bytes:
        """Returns the answer to one call, over a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options) as channel:
            call: Any = channel.unary_unary(method)
            return bytes(call(message, timeout=_CALL_SECONDS))

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _each(self) -> list[psutil.Process]:
        return [self._top, *self._top.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Returns the CPU time of all its processes that live."""
        total = 0.0
        for process in self._each():
            with contextlib.suppress(OSError):
                total += time.clock_gettime((~process.pid << 3) | 2)  # as clock_getcpuclockid(3) makes it: no ticks
        return total

    def resident_bytes(self) -> int:
        """Returns the memory that all its processes have in RAM; what they share counts once (PSS)."""
        total = 0
        for process in self._each():
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def pause(self) -> None:
        """Stops all its processes for a while: idle servers with clocks of their own cost the others CPU time."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets them continue."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self._each():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def last_words(self) -> str:
        """Returns the end of what it printed."""
        lines = Path(self._log.name).read_text(errors="replace").strip().splitlines()
        text = " | ".join(line.strip() for line in lines[-3:])[-400:]
        return text.replace(f"{ROOT}/", "")

    def stop(self) -> None:
        """Ends it and its children."""
        with contextlib.suppress(psutil.Error):
            each = self._each()
            for process in reversed(each):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(each, timeout=10)
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
