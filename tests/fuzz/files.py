"""Damaged model files, through the loader: parsed in another process under the limits of the real one, and prepared in this.

Each mutant comes of the seed and its own number, so that one alone can be made again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, Final, Self

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import sandbox, sandbox_child
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.runtime.registry import ServedModel
from tests.fuzz import model_files
from tests.fuzz.tally import Tally
from tests.support import resources

LIMITS: Final = LoadLimits(seconds=2)  # a file that is parsed at all takes some milliseconds
_FILES_EACH: Final = 250
"""How many files a process parses; the real one parses as many as a server is given."""

_UNEXPECTED: Final = re.compile(r"the file is damaged and cannot be read: (\w+)\(")


def run(count: int, seed: int) -> Tally:
    """Loads damaged files: each is served or refused in time, and this process is none the worse."""
    tally = Tally("files", count)
    valid = [path.read_bytes() for path in model_files.seeds()]
    with TemporaryDirectory() as folder, Parsers() as parsers:
        path = Path(folder) / "mutant"
        for number in tally.numbers():
            chance = random.Random(f"{seed} {number}")
            data = model_files.mutant(chance, chance.choice(valid))
            path.write_bytes(data)
            began = process_time()  # of this process: that of the other is bounded by its own
            try:
                kind = _outcome(parsers, str(path))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                tally.fail(f"number {number} of seed {seed}: {error!r}", data)
                kind = type(error).__name__
            seconds = process_time() - began
            tally.add(kind, seconds)
            if seconds > LIMITS.seconds + 2:
                tally.fail(f"number {number} of seed {seed} took {seconds:.1f} seconds", data)
        if parsers.leaked:
            tally.fail(f"the process that parses had {parsers.leaked} descriptors more open at its end")
    return tally.finish()


def _outcome(parsers: Parsers, path: str) -> str:
    """Returns what comes of a file."""
    answer = parsers.parse(path)
    if isinstance(answer, str):
        return answer
    if "refused" in answer:
        unexpected = _UNEXPECTED.search(answer["refused"])
        return f"unreadable ({unexpected[1]})" if unexpected else "refused"
    try:
        ServedModel.prepare("mutant", sandbox.to_spec(answer, path, parsers.weights), Numerics.EXACT)
    except sandbox.LayersOfRefusedModel as error:
        raise AssertionError(str(error)) from error
    except UnsupportedModelError:
        return "refused when tried"
    return "served"


class Parsers:
    """Processes that parse files, one after the other: each until it has parsed many, or dies, or takes too long."""

    def __init__(self) -> None:
        self.leaked = 0
        self.weights = -1
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._process: Any = None
        self._ours: Any = None
        self._left = 0

    def parse(self, path: str) -> dict[str, Any] | str:
        """Returns what a process answers for a file, or how it ended without an answer."""
        if not self._left:
            self._start(path)
        self._left -= 1
        try:
            self._ours.send(path)
            if self._ours.poll(LIMITS.seconds):
                answer: dict[str, Any] = json.loads(self._ours.recv())
                return answer
            ending = "stopped (too long)"
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            ending = f"stopped ({signal.Signals(-code).name if code < 0 else code})"
        self._end()
        return ending

    def _start(self, path: str) -> None:
        self._end()
        self.weights = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._ours, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_parse_all, args=(theirs, DupFd(self.weights), path), daemon=True)
        self._process.start()
        theirs.close()
        self._left = _FILES_EACH

    def _end(self) -> None:
        """Ends the process that is there, if there is one; one that has parsed all says how many descriptors it lost."""
        if self._process is None:
            return
        if self._left == 0 and self._process.is_alive():
            self._ours.send(None)
            self.leaked = max(self.leaked, self._ours.recv())
        self._process.kill()
        self._process.join()
        self._process.close()
        self._ours.close()
        os.close(self.weights)
        self._process, self._left = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = -1  # no one asks any more
        self._end()


def _parse_all(theirs: Connection, weights: Any, path: str) -> None:
    """Is the process that parses."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # as of the real one
    request = {"architecture": None, "part": {"layer": None, "until": None}, "weights": weights.detach()}
    sandbox_child._limit_this_process(
        [path], replace(LIMITS, seconds=_FILES_EACH * LIMITS.seconds)
    )  # it bounds all files together
    before = resources.descriptors(os.getpid())
    while (name := theirs.recv()) is not None:
        theirs.send(json.dumps(sandbox_child._load(name, request, LIMITS)))
    theirs.send(resources.descriptors(os.getpid()) - before)
