"""Streams whose servers die, drain, freeze and are cut off, compared byte for byte with a run that nothing happens to.

    python -m tests.chaos.streams [--kills 200] [--faults kill,alone,term,stop,cut] [--seed 0]
    python -m tests.chaos.streams --rolling [--streams 50] [--rounds 3]

There are three replicas, each restarted after a fault, and a fourth server that nothing happens to, which computes what is
expected. A fault strikes, at a random moment of a stream, the replica that serves it: the one that is busiest just then; with
`alone` it is killed too, but the client knows no other, and meets it again while it is starting.
"""

# ruff: noqa: T201 - it talks to a person

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc
import numpy as np

from lstmserve import AsyncClient, Client, LstmServeError, State, calls, channels
from tests.chaos.cluster import CUTS, FAULTS, FEATURES, REPLICAS, TIMEOUT, Cluster
from tests.chaos.plans import Answers, Operation, Plan, Uninterrupted, bytes_of, play, play_async, random_plan


@dataclasses.dataclass
class Tally:
    """What has come of the faults of one kind."""

    faults: int = 0
    streams: int = 0
    struck: int = 0
    """Streams that continued with another connection."""
    steps: int = 0
    reconnects: int = 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    seconds: float = 0

    def compare(self, expected: Sequence[bytes], answers: Sequence[bytes]) -> None:
        """Got Counts answers that did not come, that twice, and whose bytes (or places) are others."""
        wanted, came = Counter(expected), Counter(answers)
        strange = sum(count for answer, count in came.items() if answer not in wanted)
        lost = max(0, (wanted - came).total() - strange)
        doubled = max(0, (came - wanted).total() - strange)
        if not (lost or doubled or strange):
            strange = sum(one != other for one, other in zip(expected, answers, strict=True))
        self.lost += lost
        self.doubled += doubled
        self.different += strange

    @property
    def wrong(self) -> tuple[int, int, int]:
        """How many answers were lost, doubled and different."""
        return self.lost, self.doubled, self.different

    def row(self, kind: str) -> str:
        """Returns a line of the table."""
        numbers = [f"{value:.0f}" for value in dataclasses.astuple(self)]
        return f"| {kind:5} | " + " | ".join(f"{n:>10}" for n in numbers) + " |"


def header() -> str:
    """Returns the first two lines of the table."""
    names = [field.name for field in dataclasses.fields(Tally)]
    return f"| {'fault':5} | " + " | ".join(f"{name:>10}" for name in names) + " |\n|---|" + "---:|" * len(names)


def needed(kind: str) -> int:
    """Returns how many replicas have to be there for a fault: one to strike, and another to continue with."""
    return REPLICAS if kind == "alone" else 2


class Striker(Answers):
    """Takes the answers of one stream, and strikes at some of them, from a thread of its own."""

    def __init__(self, cluster: Cluster, kinds: Sequence[str], plan: Plan, chance: random.Random) -> None:
        super().__init__()
        last = int(plan.answers * 0.8)
        first = chance.randint(1, last)
        moments = [first, *(min(last, first + chance.choice([1, 5, chance.randint(1, last)])) for _ in kinds[1:])]
        self._moments = Counter(moments)
        self._cluster, self._kinds, self._chance = cluster, list(kinds), chance
        self._needed = needed(kinds[0])
        self._due: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._strike)
        self._thread.start()

    def take(self, answer: Any) -> bool:
        """Takes an answer; returns whether a fault is due."""
        super().take(answer)
        return len(self.taken) in self._moments

    def prepare(self) -> None:
        """Waits until the replicas are there that it needs, and has the fault done, while the stream continues."""
        self._cluster.wait_ready(self._needed)
        for _ in range(self._moments[len(self.taken)]):
            self._due.put(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._due.put(False)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _strike(self) -> None:
        try:
            while self._due.get():
                self._cluster.wait_ready(self._needed)
                self._cluster.strike(self._kinds.pop(), self._chance, self._chance.uniform(0.003, 0.02))
        except BaseException as error:  # noqa: BLE001 - raised at the end
            self._error = error


class Clients:
    """One client of each kind, with an event loop; renewed now and then."""

    def __init__(self, addresses: list[str]) -> None:
        self._scheduler = asyncio.Runner()
        self._sync = Client(addresses)
        self._async = self._scheduler.run(_made(addresses))

    def play(self, plan: Plan, state: State | None, answers: Answers, timeout: float, *, sync: bool) -> int:
        """Plays a plan with a new stream of one of the clients; returns how often it reconnected."""
        arguments: dict[str, Any] = {
            "rows": plan.rows, "state": state, "checkpoint_interval_steps": plan.checkpoint_interval_steps, "timeout": timeout,
        }  # fmt: skip

        async def with_asyncio() -> int:
            """Returns how often the stream continued."""
            async with self._async.stream(**arguments) as stream:
                await play_async(plan, stream, answers)
                return stream.reconnects

        if not sync:
            return self._scheduler.run(with_asyncio())
        with self._sync.stream(**arguments) as stream:
            play(plan, stream, answers)
            return stream.reconnects

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sync.close()
        self._scheduler.run(self._async.close())
        self._scheduler.close()


async def _made(addresses: list[str]) -> AsyncClient:
    return AsyncClient(addresses)


def run_faults(cluster: Cluster, kind: str, count: int, seed: int, messages: int = 600) -> Tally:
    """Strikes streams with so many faults of a kind, and returns what has come of it."""
    chance, tally, began = random.Random(f"{kind} {seed}"), Tally(), time.monotonic()
    with contextlib.ExitStack() as stack:
        clients = None
        while tally.faults < count:
            if clients is None or tally.streams % 10 == 0:
                stack.close()
                cluster.wait_ready(needed(kind))
                addresses = cluster.addresses(behind_proxy=kind in CUTS)
                clients = stack.enter_context(Clients(addresses[:1] if kind == "alone" else addresses))
            faults = min(count - tally.faults, chance.choice([1, 1, 2, 3]))
            plan = random_plan(chance.getrandbits(32), messages)
            state = None if plan.before is None else cluster.reference.forward(plan.before).state
            expected = Answers()
            play(plan, Uninterrupted(cluster.reference, plan.rows, state), expected)
            timeout = 5 if kind in ("kill", "alone", "term") else TIMEOUT
            with Striker(cluster, [kind] * faults, plan, chance) as answers:
                reconnects = clients.play(plan, state, answers, timeout, sync=tally.streams % 2 == 0)
            tally.compare(expected.taken, answers.taken)
            tally.faults += faults
            tally.streams += 1
            tally.struck += reconnects > 0
            tally.steps += plan.steps
            tally.reconnects += reconnects
    cluster.wait_ready(REPLICAS)
    tally.seconds = time.monotonic() - began
    return tally


@dataclasses.dataclass
class Unary:
    """What has come of calls outside of streams."""

    calls: int = 0
    failed: int = 0
    texts: Counter[str] = dataclasses.field(default_factory=Counter)


def run_rolling(cluster: Cluster, streams: int, rounds: int, threads: int = 3) -> tuple[Tally, Unary, Unary]:
    """Restarts the replicas one after the other while streams and calls continue; returns what has come of each.

    The second number is of calls with our client, the third of a gRPC client without retries.
    """
    began, over = time.monotonic(), threading.Event()
    ours, plain = Unary(), Unary()
    address, lock = cluster.addresses(), threading.Lock()
    x = np.full((1, FEATURES), 0.5, np.float32)
    expected = cluster.reference.step(x).output.tobytes()

    def load(send: Callable[[], bytes], counted: Unary) -> None:
        while not over.wait(0.005):
            failure = ""
            try:
                failure = "" if send() == expected else "another answer"
            except (LstmServeError, grpc.RpcError) as error:
                failure = f"{error.code()}: {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)
            with lock:
                counted.calls += 1
                counted.failed += bool(failure)
                counted.texts.update([failure] if failure else [])

    with contextlib.ExitStack() as stack:
        workers = []
        for _ in range(threads):
            client = stack.enter_context(Client(address))
            workers.append(
                threading.Thread(target=load, args=(lambda client=client: client.step(x).output.tobytes(), ours))
            )
        workers.append(threading.Thread(target=load, args=(_plain_step(stack, address, x), plain)))
        roll = threading.Thread(target=_roll, args=(cluster, rounds, over))
        for worker in workers:
            worker.start()
        try:
            tally = asyncio.run(_streams(cluster, streams, roll, over))
        finally:
            over.set()
            for worker in (*workers, roll):
                if worker.ident:  # it was started
                    worker.join()
    cluster.wait_ready(REPLICAS)
    tally.faults = rounds * REPLICAS
    tally.seconds = time.monotonic() - began
    return tally, ours, plain


def _roll(cluster: Cluster, rounds: int, over: threading.Event) -> None:
    try:
        for replica in cluster.replicas * rounds:
            if over.is_set():
                return
            replica.restart(signal.SIGTERM)
    except BaseException as error:  # noqa: BLE001 - raised where someone waits
        cluster._failures.append(error)
    finally:
        over.set()


def _plain_step(stack: contextlib.ExitStack, addresses: list[str], x: Any) -> Callable[[], bytes]:
    """Returns a function that makes a call as a gRPC client does that retries nothing."""
    service_config = '{"loadBalancingConfig": [{"round_robin": {}}]}'
    options = [("grpc.enable_retries", 0), ("grpc.service_config", service_config)]
    channel = stack.enter_context(grpc.insecure_channel(channels.target(addresses), options))
    send = channel.unary_unary(calls.method("Step"), lambda request: request.SerializeToString())
    call = calls.step(x, None, "")

    def step() -> bytes:
        answer: bytes = call.read(send(call.request, timeout=10)).output.tobytes()
        return answer

    return step


async def _streams(cluster: Cluster, count: int, roll: threading.Thread, over: threading.Event) -> Tally:
    """Opens many streams, begins to roll, lets them continue until it is over, and compares them."""
    tally, opened = Tally(), asyncio.Barrier(count)

    async def one(client: AsyncClient, number: int) -> tuple[list[Any], list[bytes], int]:
        values, chance = np.random.default_rng(number), random.Random(number)
        rows = chance.randint(1, 8)
        inputs, answers = [], []
        async with client.stream(rows=rows, checkpoint_interval_steps=chance.choice([0, 1, 10, 100])) as stream:
            if await opened.wait() == 0:
                roll.start()
            while not over.is_set():
                some = [values.random((rows, FEATURES), np.float32) for _ in range(chance.randint(1, 3))]
                inputs += some
                answers += [bytes_of(output) async for output in stream.steps(some)]
                await asyncio.sleep(chance.uniform(0, 0.12))
            answers.append(bytes_of(await stream.checkpoint()))
            return inputs, answers, stream.reconnects

    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(cluster.addresses())) for _ in range(max(1, count // 10))
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(clients[i % len(clients)], i)) for i in range(count)]
    for inputs, answers, reconnects in (task.result() for task in tasks):
        rows = len(inputs[0])
        plan = Plan(rows, 0, None, [Operation("steps", inputs), Operation("checkpoint")])
        expected = Answers()
        play(plan, Uninterrupted(cluster.reference, rows), expected)
        tally.compare(expected.taken, answers)
        tally.streams += 1
        tally.struck += reconnects > 0
        tally.steps += plan.steps
        tally.reconnects += reconnects
    return tally


def main() -> None:
    """Runs, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="faults of each kind")
    parser.add_argument(
        "--faults",
        default="kill,alone,term,stop,cut",
        help=f"some of {', '.join(FAULTS)}; cut is all of {', '.join(CUTS)}",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rolling", action="store_true", help="restart one replica after the other, under many streams"
    )
    parser.add_argument("--streams", type=int, default=50, help="with --rolling")
    parser.add_argument("--rounds", type=int, default=3, help="with --rolling: how often each replica is restarted")
    arguments = parser.parse_args()
    if arguments.rolling:
        with Cluster() as cluster:
            tally, ours, plain = run_rolling(cluster, arguments.streams, arguments.rounds)
        print(f"{header()}\n{tally.row('roll')}")
        for name, unary in (("our client", ours), ("gRPC without retries", plain)):
            print(f"{name}: {unary.calls} calls, {unary.failed} failed {dict(unary.texts) or ''}")
        return
    print(header(), flush=True)
    with Cluster("--lame-duck-seconds", "0.1") as cluster:
        for named in arguments.faults.split(","):
            kinds = CUTS if named == "cut" else (named,)
            for i, kind in enumerate(kinds):
                count = arguments.kills * (i + 1) // len(kinds) - arguments.kills * i // len(kinds)
                if count:
                    print(run_faults(cluster, kind, count, arguments.seed).row(kind), flush=True)


if __name__ == "__main__":
    main()
