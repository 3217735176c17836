"""The memory of the service: with many models, and over a stream without end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc.aio

from bench import rpc, streams
from bench.contenders import OURS, serve
from bench.places import CACHE
from bench.ports import free_port
from bench.processes import ServerProcess

Say = Callable[[str], None]

_MODELS: Final = 100
_UNITS: Final = 240
"""Of each of them: a file of 1 MB."""
_CASE: Final = streams.Case("1 stream, 16 steps a message", steps=16, in_flight=8)
_LOOKS: Final = 20


@dataclass
class Memory:
    """Memory in use. What several processes share counts once."""

    case: str
    resident_bytes: list[int]
    """One figure, or those while something continues, the first at its beginning."""
    file_bytes: int = 0
    """Of the models."""


def measure(steps: int, say: Say) -> list[Memory]:
    """Measures it with no more than a tiny model, with many models, and during many time-steps of one stream."""
    rpc.write_models([32, 128, _UNITS])
    found = [_models(1, 32), _models(_MODELS, _UNITS), asyncio.run(_stream(steps))]
    for one in found:
        say(f"{one.case}: {', '.join(f'{size / 1e6:.1f}' for size in one.resident_bytes)} MB")
    return found


def _models(count: int, units: int) -> Memory:
    with TemporaryDirectory() as folder:
        source = CACHE / f"lstm-{units}.keras"
        paths = [Path(shutil.copy(source, Path(folder) / f"m{number}.keras")) for number in range(count)]
        port = free_port()
        arguments = [argument.format(port=port) for argument in serve(*map(str, paths))]
        with ServerProcess(OURS.environment, arguments, port, {}) as server:
            server.first_answer("/lstmserve.v1.LstmService/ListModels", b"", bool)
            size = sum(path.stat().st_size for path in paths)
            return Memory(
                f"{count} model{'s' * (count > 1)} of {size / count / 1e6:.2f} MB", [server.resident_bytes()], size
            )


async def _stream(steps: int) -> Memory:
    """Sends time-steps over one stream, and measures now and then."""
    messages = steps // _CASE.steps
    with rpc.Running(OURS, 128, "").server as server:
        streams.wait_for(server)
        found = Memory(f"a stream of {messages * _CASE.steps:,} time-steps", [])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            ask: Any = await streams.opened(channel, _CASE)
            for number in range(messages):
                if number % (messages // _LOOKS) == 0:
                    found.resident_bytes.append(server.resident_bytes())
                await ask()
        found.resident_bytes.append(server.resident_bytes())
    return found
