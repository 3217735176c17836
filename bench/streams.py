"""Streams alongside calls: what a time-step of a row costs each way, with one cheap client of asyncio for all."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

import grpc.aio

from bench import rpc, subject
from bench.contenders import ECHOES, OURS, OWN
from bench.processes import ServerProcess
from lstmserve import calls, tensors
from lstmserve.streams import CHECKPOINT_INTERVAL_STEPS
from lstmserve.v1 import lstm_pb2

Ask = Callable[[], Awaitable[None]]
Say = Callable[[str], None]

_STREAM: Final = calls.method("StreamSteps")


@dataclass(frozen=True, slots=True)
class Case:
    """A way of asking for time-steps."""

    name: str
    callers: int = 1
    """How many ask at a time, over one connection; of streams, how many there are."""
    rows: int = 1
    steps: int = 1
    """Time-steps of a message."""
    in_flight: int = 1
    """Messages under way on each stream; 0 for calls of Step instead."""

    @property
    def row_steps(self) -> int:
        """Time-steps of rows in a message."""
        return self.rows * self.steps


CASES: Final = (
    Case("Step, 1 caller", in_flight=0),
    Case("Step, 32 callers", callers=32, in_flight=0),
    Case("1 stream"),
    Case("1 stream, 8 messages in flight", in_flight=8),
    Case("32 streams", callers=32),
    Case("1 stream of 64 rows", rows=64),
    Case("1 stream, 16 steps a message", steps=16),
)


@dataclass
class Sample:
    """Result of a case in one round."""

    row_steps_per_second: float
    cpu_seconds_per_1000: float


@dataclass
class StreamOutcome:
    """Results of a case with one server."""

    contender: str
    case: str
    callers: int
    samples: list[Sample] = field(default_factory=list)

    def median(self, what: str) -> float:
        """Returns the median over the rounds of one figure."""
        return statistics.median(getattr(sample, what) for sample in self.samples)


async def _unary(channel: grpc.aio.Channel, _: Case) -> Ask:
    message = OWN.encode(subject.inputs(128, 1, 1))
    call: Any = channel.unary_unary(OWN.method)

    async def ask() -> None:
        await call(message)

    return ask


async def opened(channel: grpc.aio.Channel, case: Case) -> Ask:
    """Opens a stream, with the messages that are to be under way; what is returned waits for an answer and sends the next."""
    call: Any = channel.stream_stream(_STREAM)()
    opening = lstm_pb2.StreamOpen(row_count=case.rows, checkpoint_interval_steps=CHECKPOINT_INTERVAL_STEPS)
    await call.write(lstm_pb2.StreamStepsRequest(open=opening).SerializeToString())
    await call.read()
    message = _message(case)
    for _ in range(case.in_flight):
        await call.write(message)

    async def ask() -> None:
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise RuntimeError(f"the stream ended: {await call.details()}")
        await call.write(message)

    return ask


def _message(case: Case) -> bytes:
    x = subject.inputs(128, case.rows, case.steps).x
    given = tensors.encode(x[:, 0] if case.steps == 1 else x)
    return lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=1, x=given)).SerializeToString()


async def _fill(case: Case, server: ServerProcess, seconds: float) -> Sample:
    """Keeps callers busy for so long."""
    asked = 0

    async def ask_on(ask: Ask) -> None:
        nonlocal asked
        while time.perf_counter() < end:
            await ask()
            asked += 1

    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        open_one = opened if case.in_flight else _unary
        asks = [await open_one(channel, case) for _ in range(case.callers)]
        before, began = server.cpu_seconds(), time.perf_counter()
        end = began + seconds
        await asyncio.gather(*map(ask_on, asks))
        took, cpu = time.perf_counter() - began, server.cpu_seconds() - before
    row_steps = asked * case.row_steps
    return Sample(row_steps / took, 1000 * cpu / row_steps)


async def _first_answer(server: ServerProcess) -> bytes:
    """Returns the answer to a message of one step."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.stream_stream(_STREAM)()
        await call.write(lstm_pb2.StreamStepsRequest(open=lstm_pb2.StreamOpen(row_count=1)).SerializeToString())
        await call.read()
        await call.write(_message(CASES[2]))
        return bytes(await call.read())


def measure(rounds: int, seconds: float, say: Say) -> list[StreamOutcome]:
    """Measures all cases with the service, and those of one row and step with the echo in asyncio, in turn."""
    rpc.write_models([128])
    echo = ECHOES[1]
    with NamedTemporaryFile() as file, rpc.Running(OURS, 128, "").server as ours:
        wait_for(ours)
        Path(file.name).write_bytes(asyncio.run(_first_answer(ours)))
        with rpc.Running(echo, 128, file.name).server as bare:
            wait_for(bare)
            pairs = [(ours, StreamOutcome(OURS.name, case.name, case.callers), case) for case in CASES]
            pairs += [
                (bare, StreamOutcome(echo.name, case.name, case.callers), case) for case in CASES if case.row_steps == 1
            ]
            for _ in range(rounds):
                for server, outcome, case in pairs:
                    outcome.samples.append(asyncio.run(_fill(case, server, seconds)))
    outcomes = [outcome for _, outcome, _ in pairs]
    _say_all(outcomes, say)
    return outcomes


def wait_for(server: ServerProcess) -> None:
    """Returns when a server has answered, whatever it is."""
    server.first_answer(OWN.method, OWN.encode(subject.inputs(128, 1, 1)), lambda _: True)


def _say_all(outcomes: Sequence[StreamOutcome], say: Say) -> None:
    for outcome in outcomes:
        say(
            f"{outcome.contender}, {outcome.case}: {outcome.median('row_steps_per_second'):,.0f} row-steps/s, "
            f"{outcome.median('cpu_seconds_per_1000'):.4f} CPU s per 1,000"
        )
