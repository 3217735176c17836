"""A good client of a server that others attack; and what the attacks need of calls."""

from __future__ import annotations

import contextlib
import functools
import time
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from lstmserve import tensors
from lstmserve.v1.lstm_pb2 import StepRequest
from tests.hostile import http2
from tests.hostile.http2 import Connection
from tests.support import resources

STEP: Final = "/lstmserve.v1.LstmService/Step"
STREAM: Final = "/lstmserve.v1.LstmService/StreamSteps"
X: Final = [0.25]
REQUEST: Final = StepRequest(x=tensors.encode(np.array([X], np.float32))).SerializeToString()
MOST_GROWTH: Final = 48 << 20
"""Bytes of memory that an attack may take, or leave behind: the allocator gives some back late."""

_MOST_SECONDS: Final = 5  # that the server may compute for one attack

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 1, 2, 3, 8, 12, 13


class Bystander:
    """A good client of a server that others attack, and what the server held before."""

    def __init__(self, server, client):
        self.address, self.pid = server.address, server.process.pid
        self._client = client
        self.expected = client.step(X).output.tobytes()
        self.before = resources.resident(self.pid)
        self._open = resources.open_files(self.pid)
        self._seconds = resources.processor_seconds(self.pid)

    def ask(self):
        """Makes a call, whose answer has the same bytes as ever."""
        assert self._client.step(X).output.tobytes() == self.expected

    def connections(self, count, **options):
        """Returns connections that the server has greeted, and that close with the test."""
        made = [self._stack.enter_context(Connection(self.address, **options)) for _ in range(count)]
        for connection in made:
            if options.get("greet", True):
                assert connection.until(lambda connection=connection: bool(connection.settings))
        return made

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        return self

    def __exit__(self, kind, *_):
        """Closes all connections, and waits until the server has let go of what it had for them."""
        self._stack.close()
        if kind is not None:
            return
        deadline = time.monotonic() + http2.PATIENCE
        while resources.descriptors(self.pid) > self._open.total() and time.monotonic() < deadline:
            self.ask()  # a round trip, in which the server sees to its connections too
        self.ask()
        now = resources.open_files(self.pid)
        assert self._open.total() >= now.total(), f"left open: {now - self._open}"
        assert self.before + MOST_GROWTH > resources.resident(self.pid)
        assert self._seconds + _MOST_SECONDS > resources.processor_seconds(self.pid)


def peak(pid):
    """Returns the most memory that a process ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


@functools.cache
def bomb(size):
    """Returns zeros, packed by gzip."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.flush()])
