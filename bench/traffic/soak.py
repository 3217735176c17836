"""Some of everything that callers do, right and wrong, for a long time, while the memory of the server is watched."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from rich.table import Table

from bench.stream_costs import input_of, opened, resident_kib
from bench.traffic import servers
from lstmserve import calls, tensors
from lstmserve.v1 import lstm_pb2

Action = Callable[[grpc.aio.Channel, random.Random], Awaitable[None]]

MOST_MB: Final = 1.0
"""By which the memory may grow in ten minutes."""
WARM_UP: Final = 0.2
"""The share of the time that is not looked at: what the first calls of each kind make the server keep."""
AT_ONCE: Final = 64
TIMEOUT: Final = 10
STREAM_STEPS: Final = 20
LONGEST: Final = 200


def _raw(channel: grpc.aio.Channel, path: str, data: bytes, timeout: float = TIMEOUT) -> Any:
    send: Any = channel.unary_unary(path)
    return send(data, timeout=timeout)


async def _step(channel: grpc.aio.Channel, chance: random.Random) -> None:
    """Steps some rows, twice, the second time with their state."""
    x = tensors.encode(input_of(chance.choice([1, 1, 1, 8]), 1))
    first = lstm_pb2.StepRequest(x=x)
    data = await _raw(channel, calls.method("Step"), first.SerializeToString())
    state = lstm_pb2.StepResponse.FromString(data).state
    await _raw(channel, calls.method("Step"), lstm_pb2.StepRequest(x=x, state=state).SerializeToString())


async def _forward(channel: grpc.aio.Channel, chance: random.Random) -> None:
    """Runs sequences of several lengths."""
    await _raw(channel, calls.method("Forward"), _sequence(chance.randint(2, LONGEST)))


def _sequence(steps: int, rows: int = 2) -> bytes:
    request = lstm_pb2.ForwardRequest(x=tensors.encode(input_of(rows, steps)), lengths=[steps] * rows)
    return request.SerializeToString()


async def _stream(channel: grpc.aio.Channel, chance: random.Random) -> None:
    """Opens a stream, steps, and closes it; or goes away in the midst."""
    call = await opened(channel)
    x = tensors.encode(input_of(1, 1))
    for number in range(1, STREAM_STEPS + 1):
        await call.write(lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=number, x=x)))
        await call.read()
        if chance.random() < 0.01:
            call.cancel()
            return
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


async def _bad(channel: grpc.aio.Channel, chance: random.Random) -> None:
    """Sends what is refused."""
    request = lstm_pb2.StepRequest(x=tensors.encode(np.zeros((1, 7), np.float32)))
    other = lstm_pb2.StepRequest(x=tensors.encode(input_of(1, 1)), model="absent")
    data = chance.choice([b"\xff\xff", request.SerializeToString(), other.SerializeToString(), b""])
    try:
        await _raw(channel, calls.method("Step"), data)
    except grpc.aio.AioRpcError as error:
        if error.code() not in _BAD:
            raise
    else:
        raise AssertionError("a bad request was answered")


_BAD: Final = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
)


async def _cancelled(channel: grpc.aio.Channel, chance: random.Random) -> None:
    """Asks for something long and goes away."""
    call = _raw(channel, calls.method("Forward"), _sequence(2000, 8))
    await asyncio.sleep(chance.uniform(0, 0.02))
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call


async def _health(channel: grpc.aio.Channel, _: random.Random) -> None:
    """Asks for the health."""
    await _raw(channel, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest().SerializeToString())


async def _model(channel: grpc.aio.Channel, _: random.Random) -> None:
    """Asks for the model."""
    await _raw(channel, calls.method("GetModel"), b"")


async def _reflection(channel: grpc.aio.Channel, _: random.Random) -> None:
    """Asks for the services."""
    send: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for _answer in send(iter([request.SerializeToString()]), timeout=TIMEOUT):
        pass


ACTIONS: Final[dict[str, tuple[float, Action]]] = {
    "step": (40, _step),
    "forward": (20, _forward),
    "stream": (15, _stream),
    "bad request": (8, _bad),
    "cancelled": (5, _cancelled),
    "health": (5, _health),
    "model": (5, _model),
    "reflection": (2, _reflection),
}
"""What callers do, and how often alongside each other."""


class Soak:
    """A soak under way."""

    def __init__(self, channels: list[grpc.aio.Channel], kinds: Sequence[str], seed: int = 1) -> None:
        self._kinds = kinds
        self.done: collections.Counter[str] = collections.Counter()
        self.odd: collections.Counter[str] = collections.Counter()
        """What went wrong that should not have."""
        self._channels = channels
        self._chance = random.Random(seed)
        self._running: set[asyncio.Task[None]] = set()

    async def go_on(self, seconds: float, rate: float) -> None:
        """Begins actions at a rate per second, with a limit of those in flight."""
        weights = [ACTIONS[name][0] for name in self._kinds]
        began = time.monotonic()
        number = 0
        while (now := time.monotonic()) < began + seconds:
            due = began + number / rate
            if due > now:
                await asyncio.sleep(due - now)
            number += 1
            if len(self._running) < AT_ONCE:
                task = asyncio.create_task(self._act(self._chance.choices(self._kinds, weights)[0]))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        await asyncio.gather(*self._running)

    async def _act(self, name: str) -> None:
        channel = self._chance.choice(self._channels)
        try:
            await ACTIONS[name][1](channel, self._chance)
        except grpc.aio.AioRpcError as error:
            self.odd[f"{name}: {error.code().name}"] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, the end reports it
            self.odd[f"{name}: {error!r}"] += 1
        else:
            self.done[name] += 1


def slope_mb(samples: list[tuple[float, float]]) -> float:
    """Returns by how many megabytes the memory grows in ten minutes, by least squares over (seconds, KiB)."""
    times, sizes = np.array(samples).T
    return float(np.polyfit(times - times[0], sizes, 1)[0] * 600 * 1024 / 1e6)


def run(minutes: float, rate: float, kinds: Sequence[str]) -> dict[str, Any]:
    """Soaks a server of ours with some kinds of actions, and returns what was found."""
    with servers.ours() as target:
        return asyncio.run(_soak(target, 60 * minutes, rate, kinds))


async def _soak(target: servers.Target, seconds: float, rate: float, kinds: Sequence[str]) -> dict[str, Any]:
    channels = [
        grpc.aio.insecure_channel(target.address, [("grpc.use_local_subchannel_pool", 1), ("lstmserve.number", number)])
        for number in range(4)
    ]
    soak = Soak(channels, kinds)
    samples: list[tuple[float, float]] = []
    began = time.monotonic()
    work = asyncio.create_task(soak.go_on(seconds, rate))
    while not work.done():
        samples.append((time.monotonic() - began, resident_kib(target.pid)))
        await asyncio.wait({work}, timeout=1)
    await work
    for channel in channels:
        await channel.close()
    warm = [sample for sample in samples if sample[0] >= WARM_UP * seconds]
    return {
        "slope_mb": slope_mb(warm),
        "done": dict(soak.done),
        "odd": dict(soak.odd),
        "first_kib": samples[0][1],
        "warm_kib": warm[0][1],
        "last_kib": samples[-1][1],
        "samples": samples,
    }


def table(found: dict[str, Any]) -> Table:
    """Returns what was done, and what the memory was."""
    shown = Table(title="Soak")
    shown.add_column("what")
    shown.add_column("how much", justify="right")
    for name, count in found["done"].items():
        shown.add_row(name, f"{count:,}")
    for name, count in found["odd"].items():
        shown.add_row(f"[red]{name}", f"{count:,}")
    for name, text in (
        ("first_kib", "at the beginning"),
        ("warm_kib", "after the warm-up"),
        ("last_kib", "at the end"),
    ):
        shown.add_row(f"memory {text}, KiB", f"{found[name]:,}")
    return shown
