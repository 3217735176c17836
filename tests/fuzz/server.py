"""A server process to be attacked: its log is read while it runs, and a good caller looks after it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from lstmserve import Client
from tests.fuzz.service import MODELS
from tests.fuzz.tally import Tally
from tests.support import live, resources
from tests.support.live import LiveServer

PATIENCE: Final = 30  # seconds for all that was begun to be undone
_X: Final = [0.25]


class Victim:
    """A server under attack."""

    def __init__(self, server: LiveServer, client: Client) -> None:
        self.pid = server.process.pid
        self.address = server.address
        self._server = server
        self._client = client
        self._reading = threading.Thread(target=server.wait_for_end)
        self._reading.start()
        self._expected = self._answer()
        self._descriptors = resources.descriptors(self.pid)

    def check(self, tally: Tally) -> None:
        """Makes a good call, whose answer has to have the same bytes as ever."""
        try:
            answer = self._answer()
        except Exception as error:  # noqa: BLE001 - whatever it is, a good caller suffers
            tally.fail(f"a good call failed: {error!r}")
            return
        if answer != self._expected:
            tally.fail("a good call has another answer", answer)

    def end(self, tally: Tally) -> None:
        """Waits until the server has as few descriptors open as before, and looks for faults in its log."""
        deadline = time.monotonic() + PATIENCE
        while resources.descriptors(self.pid) > self._descriptors and not tally.failures:
            self.check(tally)
            if time.monotonic() > deadline:
                tally.fail(f"{resources.descriptors(self.pid)} descriptors are open; {self._descriptors} were before")
                break
        tally.finish()
        self._server.process.terminate()
        self._reading.join(PATIENCE)
        if code := self._server.process.wait(PATIENCE):
            tally.fail(f"the server ended with {code}")
        for entry in self._server.log:
            if entry["level"] in ("error", "critical"):
                tally.fail(f"the server logged {entry['event']}: {entry.get('exception', '')[-1500:]}")
        for line in self._server.noise:
            if "Traceback" in line or "RuntimeWarning" in line:
                tally.fail(f"the server wrote {line.strip()}")

    def _answer(self) -> bytes:
        return self._client.step(_X).output.tobytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.process.kill()
        self._reading.join()


@contextlib.contextmanager
def victim(models: Mapping[str, Path] = MODELS) -> Iterator[Victim]:
    """Runs a server to be attacked."""
    arguments = [f"{name}={path}" for name, path in models.items()]
    with (
        live.serving(*arguments, *live.QUICK) as server,
        Client(server.address, model="sunspots") as client,
        Victim(server, client) as attacked,
    ):
        yield attacked
