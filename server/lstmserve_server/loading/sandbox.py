"""Model files are parsed in a process of their own, so that a crash, a hang or a flood of memory there is a refusal here.

HDF5 is a large parser in C, and one changed byte of a file can kill it or keep it busy for ever. The weights come back in a
file in memory, which this process maps: they are never copied, and read-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import transfer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from lstmserve_server.description import ModelDescription
    from lstmserve_server.loading.limits import Limits

_LONGEST_LINE: Final = 64 << 20  # a description without its weights


class Refused(ModelRefused):
    """A refusal, with what is known of the layers: name, kind, and whether the kind is served."""

    def __init__(self, text: str, layers: Sequence[tuple[str, str, bool]] = ()) -> None:
        super().__init__(text)
        self.layers = layers


async def load(
    paths: Sequence[str],
    limits: Limits,
    *,
    layer: str | None = None,
    until: str | None = None,
    architecture: str | None = None,
) -> AsyncGenerator[ModelDescription]:
    """Yields the description of the model in each file, in order.

    Args:
        paths: the files.
        limits: how much of a file is believed, and how long it may take.
        layer: name of the one LSTM layer that is wanted; None for the whole models.
        until: name of the layer with whose output the models shall end; None for the whole models.
        architecture: file with the configuration, for those that hold weights alone; None to look for it beside them.

    Raises:
        Refused: a file cannot be served as Keras would compute it, or cannot be read.
    """
    with room_for_weights() as weights:
        forms = parse(paths, weights, limits, layer=layer, until=until, architecture=architecture)
        async with contextlib.aclosing(forms):
            for path in paths:
                yield described(await anext(forms), path, weights)


@contextlib.contextmanager
def room_for_weights() -> Iterator[int]:
    """Opens a file in memory, which the processes that get it share."""
    weights = os.memfd_create("weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        yield weights
    finally:
        os.close(weights)


async def parse(
    paths: Sequence[str],
    weights: int,
    limits: Limits,
    *,
    layer: str | None = None,
    until: str | None = None,
    architecture: str | None = None,
) -> AsyncGenerator[dict[str, Any]]:
    """Yields the model in each file as the process that parsed it has written it: see `described`.

    The arguments are those of `load`, and `weights` the file in memory where the weights are put.

    Raises:
        Refused: a file cannot be served as Keras would compute it, or cannot be read.
    """
    child = await _start(weights)
    try:
        request = {
            "paths": list(paths),
            "part": {"layer": layer, "until": until},
            "architecture": architecture,
            "limits": asdict(limits),
            "weights": weights,
        }
        if child.stdin is not None:
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
        for path in paths:
            answer = await _answer(child, path, limits)
            if "refused" in answer:
                raise Refused(str(answer["refused"]), [tuple(layer) for layer in answer.get("layers", [])])
            yield answer
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def described(form: dict[str, Any], path: str, weights: int) -> ModelDescription:
    """Returns the description of a model that came from `parse`, with its weights where they are.

    Raises:
        Refused: it is nonsense.
    """
    try:
        return transfer.read(form["model"], weights)
    except (ModelRefused, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        message = f"{path}: the file cannot be read: the process that parsed it gave back nonsense ({error})"
        raise Refused(message) from error


async def _start(weights: int) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "HDF5_PLUGIN_PRELOAD": "::",  # no filters from outside
        "HDF5_USE_FILE_LOCKING": "FALSE",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # nothing from the folder it happens to run in
        "-m",
        "lstmserve_server.loading.child",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=(weights,),
        env=environment,
        limit=_LONGEST_LINE,
    )


async def _answer(child: asyncio.subprocess.Process, path: str, limits: Limits) -> dict[str, Any]:
    """Returns the child's next line, or says how it ended without one."""
    try:
        line = await asyncio.wait_for(child.stdout.readline(), limits.seconds) if child.stdout is not None else b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        reason = _name_of_end(await child.wait())
    except TimeoutError:
        reason = f"it took more than {limits.seconds} seconds (--load-seconds)"
    except ValueError:
        reason = "its answer could not be read"
    message = f"{path}: the process that parsed the file was stopped, as {reason}. The file is damaged, or made to harm"
    raise Refused(message)


def _name_of_end(code: int) -> str:
    if code in {-signal.SIGXCPU, -signal.SIGKILL}:
        return "it took too long (--load-seconds) or too much memory"
    return f"it ended with {signal.Signals(-code).name}" if code < 0 else f"it ended with the exit code {code}"
