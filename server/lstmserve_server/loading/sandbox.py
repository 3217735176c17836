"""Parses model files in another process: a crash, a hang or excessive memory there is a refusal here.

HDF5 is a large parser in C. One changed byte of a file can crash it, keep it busy for ever, or take it over: see `confinement`. The
weights arrive in a memory file that is sealed when the process has ended, and then mapped: they are never copied, and nothing can
change them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from lstmserve.text import printable
from lstmserve_server.core import confinement
from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import sandbox_protocol
from lstmserve_server.loading.store import memory_files, transfer
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.model.spec import ModelSpec

_KILL_TIMEOUT_SECONDS: Final = 5.0  # after SIGKILL


class LayersOfRefusedModel(UnsupportedModelError):
    """A refusal that lists the layers: name, kind, and whether the kind is supported."""

    def __init__(self, text: str, layers: Sequence[tuple[str, str, bool]] = ()) -> None:
        super().__init__(text)
        self.layers = layers


async def load(
    path: str,
    limits: LoadLimits,
    *,
    layer: str | None = None,
    until: str | None = None,
    architecture: str | None = None,
    copy: int | None = None,
) -> ModelSpec:
    """Returns the description of the model in a file.

    Args:
        path: the file.
        limits: what a file may ask for, and the maximum time.
        layer: name of the only LSTM layer to load; None for the whole model.
        until: name of the last layer to load; None for the whole model.
        architecture: file with the configuration, for one that holds weights alone; None to look for it alongside it.
        copy: descriptor of a sealed copy of the file (`memory_files.copy_of`), which is then read in its place.

    Raises:
        UnsupportedModelError: the file cannot be served as Keras would compute it, or cannot be read.
    """
    with memory_files.weights_memfd() as weights:
        copies = {} if copy is None else {path: copy}
        forms = parse([path], weights, limits, layer=layer, until=until, architecture=architecture, copies=copies)
        async with contextlib.aclosing(forms):
            form = await anext(forms)
        seal(weights, path)
        return to_spec(form, path, weights)


async def parse(
    paths: Sequence[str],
    weights: int,
    limits: LoadLimits,
    *,
    layer: str | None = None,
    until: str | None = None,
    architecture: str | None = None,
    copies: Mapping[str, int] | None = None,
) -> AsyncGenerator[dict[str, Any]]:
    """Yields the sandbox's answer for each file: see `sandbox_child`.

    The arguments are those of `load`; `weights` is the file in memory where the weights are put, to be sealed after the last.

    Raises:
        UnsupportedModelError: a file cannot be served as Keras would compute it, or cannot be read.
    """
    copies = copies or {}
    child = await _start((weights, *copies.values()))
    try:
        request = {
            "paths": list(paths),
            "part": {"layer": layer, "until": until},
            "architecture": architecture,
            "limits": asdict(limits),
            "weights": weights,
            "copies": dict(copies),
        }
        if child.stdin is not None:
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
        for path in paths:
            answer = await _answer(child, path, limits)
            if answer.get("refused") is not None:
                layers = [(printable(name), printable(kind), served) for name, kind, served in answer["layers"]]
                raise LayersOfRefusedModel(str(answer["refused"]), layers)
            yield answer
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        with contextlib.suppress(TimeoutError):  # one that the kernel keeps is left to it
            await asyncio.wait_for(child.wait(), _KILL_TIMEOUT_SECONDS)


def seal(weights: int, what: str) -> None:
    """Seals the weights, so that no process can change them, before they are mapped and hashed.

    Raises:
        UnsupportedModelError: a process still has them open for writing.
    """
    try:
        memory_files.seal(weights)
    except OSError as error:
        message = (
            f"{what}: the weights cannot be sealed ({error.strerror}): a process that parsed the file is still there, and "
            "could change them. The file is malicious"
        )
        raise LayersOfRefusedModel(message) from error


def to_spec(form: dict[str, Any], path: str, weights: int) -> ModelSpec:
    """Returns the specification in an answer of `parse`; its weights are views of the memory file.

    Raises:
        UnsupportedModelError: it is not valid.
    """
    try:
        return transfer.load(form["model"], weights)
    except (UnsupportedModelError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        message = f"{path}: the file cannot be read: the process that parsed it returned an invalid answer ({error})"
        raise LayersOfRefusedModel(message) from error


async def _start(descriptors: tuple[int, ...]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # nothing from the folder it happens to run in
        "-m",
        "lstmserve_server.loading.sandbox_child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=descriptors,
        env=confinement.environment(
            OPENBLAS_NUM_THREADS="1",
            HDF5_PLUGIN_PRELOAD="::",  # no filters from outside
            HDF5_USE_FILE_LOCKING="FALSE",
        ),
        limit=sandbox_protocol.MAX_ANSWER_BYTES,
    )


async def _answer(child: asyncio.subprocess.Process, path: str, limits: LoadLimits) -> dict[str, Any]:
    """Returns the child's next answer; raises if it ended without one."""
    try:
        async with asyncio.timeout(limits.seconds):
            line = await child.stdout.readline() if child.stdout is not None else b""
            if line:
                return sandbox_protocol.checked(line)
            reason = _describe_exit(await child.wait())
    except TimeoutError:
        reason = f"it took more than {limits.seconds} seconds (--load-seconds)"
    except ValueError:
        reason = "its answer could not be read"
    message = f"{path}: the process that parsed the file was stopped, as {reason}. The file is damaged, or malicious"
    raise LayersOfRefusedModel(message)


def _describe_exit(code: int) -> str:
    if code in {-signal.SIGXCPU, -signal.SIGKILL}:
        return "it took too long (--load-seconds) or too much memory"
    return f"it ended with {_signal(-code)}" if code < 0 else f"it ended with the exit code {code}"


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
