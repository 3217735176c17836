"""Benchmark of streams: compared with calls of `Step`, idle, and next to a stream whose reader has stopped.

    python -m bench.stream_costs [streams] [idle] [slow-reader] [--seconds 3] [--rounds 3]

The server is a process of its own, and its CPU time is its own. Every ratio is of two figures of the same round, and the
median of those of all rounds; the other figures are medians too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import queue
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np

from lstmserve import AsyncClient, Client, calls, tensors
from lstmserve.streams import CHECKPOINT_INTERVAL_STEPS, IN_FLIGHT
from lstmserve.v1 import lstm_pb2
from tests.support import live
from tests.support.paths import SUNSPOTS

Ask = Callable[[], Awaitable[None]]

MODEL = f"sunspots={SUNSPOTS}"
WIDE, WIDE_UNITS = ("--until", "slow"), 48
"""Serves the same model up to a layer of this many units: as many numbers in an answer."""

CALLERS = 32
ROWS = 64
STEPS = 16
IDLE_STREAMS = 1000
IDLE_CHANNELS = 8  # a server takes 256 streams of each
IDLE_SECONDS = 5
READING_STREAMS = 20

Request = lstm_pb2.StreamStepsRequest
Response = lstm_pb2.StreamStepsResponse


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown, whose first column is of texts and the others of numbers."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process, of all its threads, by the clock that clock_getcpuclockid(3) gives for it."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_kib(pid: int) -> int:
    """Returns the memory that a process has in RAM."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 10


class Window:
    """A stretch of time, the messages answered in it, and the CPU time that both ends took."""

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._wanted = seconds
        self.messages = 0
        self.seconds = self.server = self.client = 0.0

    @property
    def open(self) -> bool:
        """Whether it lasts."""
        return time.perf_counter() < self._began + self._wanted

    def __enter__(self) -> Self:
        self._server, self._client = cpu_seconds(self._pid), time.process_time()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self.server, self.client = cpu_seconds(self._pid) - self._server, time.process_time() - self._client


def input_of(rows: int, steps: int) -> Any:
    """Returns an input of the bundled model: (rows, features) for one step, else (rows, time, features)."""
    return np.full((rows, 1) if steps == 1 else (rows, steps, 1), 0.5, np.float32)


async def unary(channel: grpc.aio.Channel) -> Ask:
    """Returns a call of `Step` that continues from the one before."""
    serialize, parse = lstm_pb2.StepRequest.SerializeToString, lstm_pb2.StepResponse.FromString
    send: Any = channel.unary_unary(calls.method("Step"), serialize, parse)
    x = tensors.encode(input_of(1, 1))
    state = None

    async def ask() -> None:
        """Sends a step, and takes its answer."""
        nonlocal state
        response = await send(lstm_pb2.StepRequest(x=x, state=state))
        state = response.state

    await ask()
    return ask


async def opened(channel: grpc.aio.Channel, rows: int = 1) -> Any:
    """Returns a stream that is open."""
    call: Any = channel.stream_stream(calls.method("StreamSteps"), Request.SerializeToString, Response.FromString)()
    await call.write(
        Request(open=lstm_pb2.StreamOpen(row_count=rows, checkpoint_interval_steps=CHECKPOINT_INTERVAL_STEPS))
    )
    response = await call.read()
    assert response.WhichOneof("message") == "opened"
    return call


async def streaming(channel: grpc.aio.Channel, rows: int = 1, steps: int = 1, in_flight: int = 1) -> Ask:
    """Returns the reading of an answer, and the sending of the next message, of a stream with this many messages in flight."""
    call = await opened(channel, rows)
    request = Request(input=lstm_pb2.StepInput(number=1, x=tensors.encode(input_of(rows, steps))))
    for _ in range(in_flight):
        await call.write(request)

    async def ask() -> None:
        """Takes an answer, and sends the next message."""
        response = await call.read()
        assert response.WhichOneof("message") == "output"
        await call.write(request)

    return ask


def raw_asyncio(callers: int, open_one: Callable[[grpc.aio.Channel], Awaitable[Ask]]) -> Callable[[str, Window], None]:
    """Returns what fills a window of this many concurrent calls over one connection."""

    async def fill(address: str, window: Window) -> None:
        """Keeps callers busy until the window closes."""

        async def call(ask: Ask) -> None:
            """Asks again and again."""
            while window.open:
                await ask()
                window.messages += 1

        async with grpc.aio.insecure_channel(address) as channel:
            asks = [await open_one(channel) for _ in range(callers)]
            with window:
                await asyncio.gather(*map(call, asks))

    return lambda address, window: asyncio.run(fill(address, window))


def raw_sync(address: str, window: Window) -> None:
    """Fills a window with one stream of gRPC without asyncio, one message in flight."""
    outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    request = Request(input=lstm_pb2.StepInput(number=1, x=tensors.encode(input_of(1, 1))))
    with grpc.insecure_channel(address) as channel:
        send = channel.stream_stream(calls.method("StreamSteps"), Request.SerializeToString, Response.FromString)
        answers = send(iter(outgoing.get, None))
        outgoing.put(
            Request(open=lstm_pb2.StreamOpen(row_count=1, checkpoint_interval_steps=CHECKPOINT_INTERVAL_STEPS))
        )
        next(answers)
        with window:
            while window.open:
                outgoing.put(request)
                assert next(answers).WhichOneof("message") == "output"
                window.messages += 1
        outgoing.put(None)


def own_unary(address: str, window: Window) -> None:
    """Fills a window with calls of our client."""
    x = input_of(1, 1)
    with Client(address) as client:
        state = client.step(x).state
        with window:
            while window.open:
                state = client.step(x, state).state
                window.messages += 1


def own_stream(in_flight: int) -> Callable[[str, Window], None]:
    """Returns what fills a window with a stream of our client."""

    def fill(address: str, window: Window) -> None:
        with Client(address) as client, client.stream() as stream, window:
            for _ in stream.steps(_inputs(window), in_flight):
                window.messages += 1

    return fill


def own_async_stream(address: str, window: Window) -> None:
    """Fills a window with a stream of our client for asyncio, one message in flight."""

    async def fill() -> None:
        """Keeps a stream busy until the window closes."""
        async with AsyncClient(address) as client, client.stream() as stream:
            with window:
                async for _ in stream.steps(_inputs(window), 1):
                    window.messages += 1

    asyncio.run(fill())


def _inputs(window: Window) -> Iterator[Any]:
    x = input_of(1, 1)
    while window.open:
        yield x


@dataclass(frozen=True)
class Case:
    """A way of asking for time-steps."""

    name: str
    client: str
    baseline: int
    """Number of the case that it is compared with."""
    row_steps: int
    """Rows times time-steps of a message."""
    fill: Callable[[str, Window], None]


CASES = (
    Case("unary, 1 caller", "raw asyncio", 0, 1, raw_asyncio(1, unary)),
    Case(f"unary, {CALLERS} callers", "raw asyncio", 1, 1, raw_asyncio(CALLERS, unary)),
    Case("1 stream", "raw asyncio", 0, 1, raw_asyncio(1, streaming)),
    Case(
        f"1 stream, {IN_FLIGHT} in flight", "raw asyncio", 0, 1,
        raw_asyncio(1, lambda channel: streaming(channel, in_flight=IN_FLIGHT)),
    ),
    Case(f"{CALLERS} streams", "raw asyncio", 1, 1, raw_asyncio(CALLERS, streaming)),
    Case(
        f"1 stream of {ROWS} rows", "raw asyncio", 0, ROWS,
        raw_asyncio(1, lambda channel: streaming(channel, rows=ROWS)),
    ),
    Case(
        f"1 stream, {STEPS} steps a message", "raw asyncio", 0, STEPS,
        raw_asyncio(1, lambda channel: streaming(channel, steps=STEPS)),
    ),
    Case("unary, 1 caller", "`Client`", 7, 1, own_unary),
    Case("1 stream", "raw sync", 7, 1, raw_sync),
    Case("1 stream", "`Client`", 7, 1, own_stream(1)),
    Case(f"1 stream, {IN_FLIGHT} in flight", "`Client`", 7, 1, own_stream(IN_FLIGHT)),
    Case("1 stream", "`AsyncClient`", 0, 1, own_async_stream),
)  # fmt: skip


def measure_streams(seconds: float, rounds: int) -> None:
    """Prints what streams cost alongside calls."""
    windows: list[list[Window]] = []
    with live.serving(MODEL) as server:
        for _ in range(rounds):
            windows.append([])
            for case in CASES:
                window = Window(server.process.pid, seconds)
                case.fill(server.address, window)
                windows[-1].append(window)
    headings = [
        "what", "client", "baseline", "messages/s", "row-steps/s", "ratio", "server CPU s per 1,000 row-steps", "ratio",
        "client CPU s per 1,000 row-steps",
    ]  # fmt: skip
    print("\nOne message in flight on each stream, unless it says otherwise.\n")
    print(table(headings, [_row(number, windows) for number in range(len(CASES))]), flush=True)


def _row(number: int, windows: list[list[Window]]) -> list[str]:
    case = CASES[number]

    def each(value: Callable[[Window, int], float], of: int) -> list[float]:
        return [value(taken[of], taken[of].messages * CASES[of].row_steps) for taken in windows]

    def cells(value: Callable[[Window, int], float], form: str) -> list[str]:
        own, other = each(value, number), each(value, case.baseline)
        ratio = statistics.median(a / b for a, b in zip(own, other, strict=True))
        return [format(statistics.median(own), form), f"{ratio:.2f}"]

    messages = statistics.median(each(lambda window, _: window.messages / window.seconds, number))
    client = statistics.median(each(lambda window, steps: 1000 * window.client / steps, number))
    baseline = "itself" if case.baseline == number else f"{CASES[case.baseline].name}, {CASES[case.baseline].client}"
    return [
        case.name, case.client, baseline, f"{messages:,.0f}",
        *cells(lambda window, steps: steps / window.seconds, ",.0f"),
        *cells(lambda window, steps: 1000 * window.server / steps, ".4f"),
        f"{client:.4f}",
    ]  # fmt: skip


def measure_idle(_: float, rounds: int) -> None:
    """Prints what streams cost on which nothing happens; in later rounds, whether any of it stays."""
    with live.serving(MODEL) as server:
        rows = [[str(number + 1), *asyncio.run(_idle_round(server))] for number in range(rounds)]
    headings = [
        "round", "RSS without, KiB", f"with {IDLE_STREAMS}, KiB", "KiB per stream", "after they were closed, KiB",
        f"server CPU s in {IDLE_SECONDS} s without", "with", "seconds to open all",
    ]  # fmt: skip
    print(f"\n{IDLE_STREAMS} idle streams over {IDLE_CHANNELS} connections; without: the connections alone.\n")
    print(table(headings, rows), flush=True)


async def _idle_round(server: live.LiveServer) -> list[str]:
    pid = server.process.pid
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(_own_connection(server.address)) for _ in range(IDLE_CHANNELS)]
        idle_without = await _cpu_while_idle(pid)
        without, began = resident_kib(pid), time.perf_counter()
        streams = [await opened(channels[i % IDLE_CHANNELS]) for i in range(IDLE_STREAMS)]
        took = time.perf_counter() - began
        idle_with = await _cpu_while_idle(pid)
        with_all = resident_kib(pid)
        for stream in streams:
            stream.cancel()
        await asyncio.sleep(1)
        after = resident_kib(pid)
    each = (with_all - without) / IDLE_STREAMS
    return [
        f"{without:,}", f"{with_all:,}", f"{each:.1f}", f"{after:,}", f"{idle_without:.3f}", f"{idle_with:.3f}",
        f"{took:.2f}",
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def _own_connection(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """Connects, without sharing the connection with other channels to the same address as gRPC would."""
    async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        await channel.channel_ready()
        yield channel


async def _cpu_while_idle(pid: int) -> float:
    before = cpu_seconds(pid)
    await asyncio.sleep(IDLE_SECONDS)
    return cpu_seconds(pid) - before


def write_without_reading(address: str, is_open: Event, written: Any) -> None:
    """Writes to a stream as much as it takes, and reads nothing, until the process is ended."""

    async def write() -> None:
        """Writes, and never reads."""
        async with grpc.aio.insecure_channel(address) as channel:
            call = await opened(channel, ROWS)
            is_open.set()
            request = Request(input=lstm_pb2.StepInput(number=1, x=tensors.encode(input_of(ROWS, STEPS))))
            while True:
                await call.write(request)
                written.value += 1

    asyncio.run(write())


@contextlib.contextmanager
def slow_reader(address: str) -> Iterator[Any]:
    """Runs one, in a process of its own, from the moment on when its stream is open; yields the number of its messages."""
    context = multiprocessing.get_context("spawn")
    is_open, written = context.Event(), context.Value("l", 0)
    process = context.Process(target=write_without_reading, args=(address, is_open, written), daemon=True)
    process.start()
    try:
        assert is_open.wait(30)
        yield written
    finally:
        process.kill()
        process.join()


@dataclass
class Latencies:
    """Latencies in seconds, answers per second, and peak memory of the server."""

    median: float
    p99: float
    rate: float
    resident_kib: int


async def read_streams(server: live.LiveServer, seconds: float) -> Latencies:
    """Has several streams work one step at a time."""
    latencies: list[float] = []
    peak = 0
    window = Window(server.process.pid, seconds)

    async def work(ask: Ask) -> None:
        """Asks again and again, and takes the times."""
        while window.open:
            began = time.perf_counter()
            await ask()
            latencies.append(time.perf_counter() - began)

    async def watch() -> None:
        """Takes the largest memory of the server."""
        nonlocal peak
        while window.open:
            peak = max(peak, resident_kib(server.process.pid))
            await asyncio.sleep(0.05)

    async with grpc.aio.insecure_channel(server.address) as channel:
        asks = [await streaming(channel) for _ in range(READING_STREAMS)]
        with window:
            await asyncio.gather(watch(), *map(work, asks))
    cuts = statistics.quantiles(latencies, n=100)
    return Latencies(statistics.median(latencies), cuts[98], len(latencies) / window.seconds, peak)


def measure_slow_reader(seconds: float, rounds: int) -> None:
    """Prints what a stream whose reader has stopped costs the others."""
    with live.serving(MODEL, *WIDE) as server:
        asyncio.run(read_streams(server, 1))  # what the first streams make the server keep is not the slow reader's
        taken = [_slow_round(server, seconds, without_first=number % 2 == 0) for number in range(rounds)]
        after = resident_kib(server.process.pid)
    size = ROWS * STEPS * WIDE_UNITS * np.float32().itemsize >> 10
    print(
        f"\n{READING_STREAMS} streams, one step at a time, alongside one more that reads none of its answers of {size} KiB. "
        f"In each round it got rid of {', '.join(f'{written:,}' for _, written in taken)} messages.\n"
    )
    headings = [
        "slow reader", "median ms", "ratio", "p99 ms", "ratio", "steps/s", "ratio",
        "most RSS in the first round, KiB", "in the last",
    ]  # fmt: skip
    found = [latencies for latencies, _ in taken]
    rows = [_latency_row(kind, found) for kind in ("none", "from its opening on", "when it is stuck")]
    print(table(headings, [*rows, ["gone", *[""] * 7, f"{after:,}"]]), flush=True)


def _slow_round(server: live.LiveServer, seconds: float, *, without_first: bool) -> tuple[dict[str, Latencies], int]:
    """Returns the latencies with each kind of slow reader, and how many messages it got rid of."""
    found = {}
    if without_first:
        found["none"] = asyncio.run(read_streams(server, seconds))
    with slow_reader(server.address) as written:
        found["from its opening on"] = asyncio.run(read_streams(server, seconds))
        _wait_until_stuck(written)
        found["when it is stuck"] = asyncio.run(read_streams(server, seconds))
    time.sleep(1)
    if not without_first:
        found["none"] = asyncio.run(read_streams(server, seconds))
    return found, written.value


def _wait_until_stuck(written: Any) -> None:
    before = -1
    for _ in range(60):
        if written.value == before:
            return
        before = written.value
        time.sleep(0.5)
    raise AssertionError("the server continues reading from a stream whose answers no one reads")


def _latency_row(kind: str, found: list[dict[str, Latencies]]) -> list[str]:
    def cells(value: Callable[[Latencies], float], form: str) -> list[str]:
        ratio = statistics.median(value(each[kind]) / value(each["none"]) for each in found)
        return [format(statistics.median(value(each[kind]) for each in found), form), f"{ratio:.2f}"]

    return [
        kind, *cells(lambda each: 1000 * each.median, ".2f"), *cells(lambda each: 1000 * each.p99, ".2f"),
        *cells(lambda each: each.rate, ",.0f"),
        f"{found[0][kind].resident_kib:,}", f"{found[-1][kind].resident_kib:,}",
    ]  # fmt: skip


SECTIONS = {"streams": measure_streams, "idle": measure_idle, "slow-reader": measure_slow_reader}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"some of {', '.join(SECTIONS)}; all if none")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement in a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.sections) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {unknown[0]!r}; these are: {', '.join(SECTIONS)}")
    for name in arguments.sections or SECTIONS:
        print(f"\n## {name}", flush=True)
        SECTIONS[name](arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    main()
