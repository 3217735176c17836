"""Load generator of `lstmserve bench`: a program that takes commands on standard input.

A line of JSON in is a command, a line of JSON out is its result. The same bytes are sent again and again and responses are not
parsed, so the load costs little and the figures are the server's. All callers share a connection, and each sends as soon as it has
its response.

If standard input ends, the parent is gone, and the servers that it started are stopped too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import os
import signal
import sys
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from lstmserve import calls, tensors
from lstmserve.v1 import lstm_pb2

RequestOnce = Callable[[], Awaitable[None]]

Kind = Literal["step", "stream", "forward"]

SEQUENCE: Final = 100
"""Time-steps of a sequence, where the model does not say how many it takes."""

_PATIENCE: Final = 60.0  # seconds for one answer
_OUTPUTS: Final = 2 << 3 | 2  # the first byte of a StreamStepsResponse that holds outputs: its field 2, of bytes
_STREAM: Final = calls.method("StreamSteps")
_CHECKPOINT_EVERY: Final = 100  # the client's default


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load."""

    kind: Kind

    callers: int
    """How many ask at the same time; of streams, how many there are. Each has one message under way."""

    rows: int = 1
    """Rows of a message."""

    steps: int = 1
    """Time-steps of a message."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Result of a case as its callers saw it; all times in seconds."""

    calls: int
    """Calls, or messages of streams, that were answered."""

    seconds: float
    p50: float
    p90: float
    p99: float
    max: float

    server_cpu: float
    """CPU time of the server, of all its threads."""

    load_cpu: float
    """CPU time of the load generator."""


class Failed(Exception):
    """The server did not answer as expected; the text says how."""


def quantile(ordered: Sequence[float], share: float) -> float:
    """Returns a quantile of sorted values: the smallest that a fraction of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process, of all its threads, by the clock that clock_getcpuclockid(3) gives for it."""
    return time.clock_gettime((~pid << 3) | 2)


class Generator:
    """The callers of one case at a time."""

    def __init__(self) -> None:
        self._models: dict[str, lstm_pb2.Model] = {}
        self._pids: dict[str, int] = {}
        self._open = contextlib.AsyncExitStack()
        self._asks: list[RequestOnce] = []
        self._pid = 0

    async def connect(self, address: str, pid: int) -> Mapping[str, Any]:
        """Connects to a server, and returns the description of its model.

        Raises:
            Failed: the server does not answer.
        """
        with _failing():
            async with grpc.aio.insecure_channel(address) as channel:
                data = await _method(channel, "GetModel")(b"", timeout=_PATIENCE)
        model = self._models[address] = lstm_pb2.GetModelResponse.FromString(data).model
        self._pids[address] = pid
        return {
            "digest": model.digest,
            "fingerprint": model.numerics_fingerprint,
            "parameters": model.parameter_count,
            "weight_bytes": model.weight_bytes,
            "supports_step": model.supports_step,
            "step_obstacle": model.step_unsupported_reason,
            "sequence_steps": _sequence_steps(model),
        }

    async def open(self, address: str, case: Case, warm_up: float) -> None:
        """Opens the connections of a case, and warms up.

        Raises:
            Failed: the server does not answer.
        """
        await self._open.aclose()
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        channel = await self._open.enter_async_context(grpc.aio.insecure_channel(address, options))
        model, self._pid = self._models[address], self._pids[address]
        with _failing():
            self._asks = await _asks(channel, model, case)
            await _fill(self._asks, warm_up)

    async def fill(self, seconds: float) -> LoadResult:
        """Keeps all callers of the case busy for some seconds.

        Raises:
            Failed: the server does not answer.
        """
        gc.collect()
        gc.disable()
        with _failing():
            try:
                server, own, began = cpu_seconds(self._pid), time.process_time(), time.perf_counter()
                latencies = sorted(await _fill(self._asks, seconds))
                took = time.perf_counter() - began
                own, server = time.process_time() - own, cpu_seconds(self._pid) - server
            finally:
                gc.enable()
        p50, p90, p99 = (quantile(latencies, share) for share in (0.5, 0.9, 0.99))
        return LoadResult(len(latencies), took, p50, p90, p99, latencies[-1], server, own)


async def _fill(asks: Sequence[RequestOnce], seconds: float) -> array[float]:
    """Runs all callers until the time is over, each at least once; returns the latencies."""
    latencies = array("d")
    end = time.perf_counter() + seconds

    async def call(request_once: RequestOnce) -> None:
        now = time.perf_counter()
        while True:
            await request_once()
            before, now = now, time.perf_counter()
            latencies.append(now - before)
            if now >= end:
                return

    async with asyncio.TaskGroup() as group:
        for ask in asks:
            group.create_task(call(ask))
    return latencies


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Turns the errors of one or several calls into one."""
    try:
        yield
    except (ExceptionGroup, grpc.aio.AioRpcError) as error:
        first: Any = error
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        if isinstance(first, grpc.aio.AioRpcError):
            raise Failed(f"{first.code().name}: {first.details()}") from None
        raise first from None


async def _asks(channel: grpc.aio.Channel, model: lstm_pb2.Model, case: Case) -> list[RequestOnce]:
    """Returns the action that each caller of a case repeats."""
    match case.kind:
        case "step":
            return [_unary(channel, "Step", await _step_request(channel, model, case.rows))] * case.callers
        case "forward":
            return [_unary(channel, "Forward", _forward_request(model, case))] * case.callers
        case "stream":
            return [await _streaming(channel, model, case) for _ in range(case.callers)]


def _method(channel: grpc.aio.Channel, name: str) -> Any:
    """Returns a method that is called with bytes, and answers with bytes."""
    return channel.unary_unary(calls.method(name))


def _unary(channel: grpc.aio.Channel, method: str, request: bytes) -> RequestOnce:
    send = _method(channel, method)

    async def request_once() -> None:
        await send(request, timeout=_PATIENCE)

    return request_once


async def _step_request(channel: grpc.aio.Channel, model: lstm_pb2.Model, rows: int) -> bytes:
    """Returns a request in the middle of sequences, with their state."""
    x = tensors.encode(_numbers(model, model.inputs[0], (rows,)))
    first = lstm_pb2.StepRequest(x=x).SerializeToString()
    data = await _method(channel, "Step")(first, timeout=_PATIENCE)
    return lstm_pb2.StepRequest(x=x, state=lstm_pb2.StepResponse.FromString(data).state).SerializeToString()


def _forward_request(model: lstm_pb2.Model, case: Case) -> bytes:
    every = {
        item.name: tensors.encode(
            _numbers(model, item, (case.rows, case.steps) if _is_sequence(item) else (case.rows,))
        )
        for item in model.inputs
    }
    if len(every) > 1:
        return lstm_pb2.ForwardRequest(inputs=every).SerializeToString()
    return lstm_pb2.ForwardRequest(x=next(iter(every.values()))).SerializeToString()


async def _streaming(channel: grpc.aio.Channel, model: lstm_pb2.Model, case: Case) -> RequestOnce:
    size = (case.rows,) if case.steps == 1 else (case.rows, case.steps)
    steps = lstm_pb2.StepInput(number=1, x=tensors.encode(_numbers(model, model.inputs[0], size)))
    request = lstm_pb2.StreamStepsRequest(input=steps).SerializeToString()
    opening = lstm_pb2.StreamOpen(row_count=case.rows, checkpoint_interval_steps=_CHECKPOINT_EVERY)
    call: Any = channel.stream_stream(_STREAM)()
    await call.write(lstm_pb2.StreamStepsRequest(open=opening).SerializeToString())
    await _read(call)

    async def request_once() -> None:
        await call.write(request)
        data = await _read(call)
        if data[0] != _OUTPUTS:
            response = lstm_pb2.StreamStepsResponse.FromString(data)
            raise Failed(response.rejected.text or f"got {response.WhichOneof('message')}, expected outputs")

    return request_once


async def _read(call: Any) -> bytes:
    data = await call.read()
    if data is grpc.aio.EOF:
        raise Failed(f"the stream has ended: {(await call.code()).name}: {await call.details()}")
    return data  # type: ignore[no-any-return]  # bytes, as nothing takes them apart


def _numbers(model: lstm_pb2.Model, item: lstm_pb2.ModelInput, size: tuple[int, ...]) -> NDArray[Any]:
    """Returns an input of (rows,) or (rows, time steps)."""
    shape = (*size, *_features(item))
    random = np.random.default_rng(0)
    if item.vocabulary:
        return random.integers(0, item.vocabulary, shape)
    dtype = lstm_pb2.DataType.Name(model.dtype).removeprefix("DATA_TYPE_").lower()
    return random.uniform(-0.5, 0.5, shape).astype(dtype)


def _features(item: lstm_pb2.ModelInput) -> list[int]:
    """Returns the shape of one time-step of a row; of any length is 1."""
    if item.vocabulary:
        return [1]
    return [max(1, length) for length in item.shape[2 if _is_sequence(item) else 1 :]]


def _is_sequence(item: lstm_pb2.ModelInput) -> bool:
    return len(item.shape) > 2 or item.vocabulary > 0  # noqa: PLR2004 - batch, time, and features


def _sequence_steps(model: lstm_pb2.Model) -> int:
    """Returns the time-steps of a sequence: those that the model wants, if it looks at one whole."""
    wanted = [item.shape[1] for item in model.inputs if _is_sequence(item) and item.shape[1] > 0]
    return SEQUENCE if model.supports_step or not wanted else int(wanted[0])


async def _obey() -> None:
    """Obeys commands, line by line, until standard input ends."""
    generator, guarded = Generator(), list[int]()
    try:
        _say({})
        while line := await asyncio.to_thread(sys.stdin.readline):
            what = json.loads(line)
            if what["do"] == "guard":
                guarded.append(what["pid"])
            try:
                _say(await _done(generator, what) or {})
            except Failed as error:
                _say({"failed": str(error)})
    except BrokenPipeError:  # no one is there to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for pid in guarded:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


async def _done(generator: Generator, what: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Runs a command, and returns its result."""
    match what["do"]:
        case "connect":
            return await generator.connect(what["address"], what["pid"])
        case "open":
            await generator.open(what["address"], Case(**what["case"]), what["warm_up"])
        case "fill":
            return asdict(await generator.fill(what["seconds"]))
    return None


def _say(answer: Mapping[str, Any]) -> None:
    """Writes an answer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_obey())
