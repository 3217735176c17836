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
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np

from lstmserve import AsyncClient, Client, LstmServeError, State, calls, channels
from tests.support import live
from tests.support.paths import SUNSPOTS
from tests.support.tcp_proxy import TcpProxy

MODEL = f"sunspots={SUNSPOTS}"
REPLICAS = 3
TIMEOUT = 0.5  # of a stream, in seconds; what freezes does so for longer
CUTS = ("cut", "halve", "delay", "stall")
_FEATURES = 1


class Replica:
    """A server on a port of its own, restarted whenever it has ended, and a proxy in front of it."""

    def __init__(self, *arguments: str) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self.proxy = TcpProxy(self.address)
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Starts the server."""
        self.server = live.LiveServer(MODEL, "--listen", self.address, *self._arguments)

    def wait_ready(self) -> None:
        """Returns when the server answers."""
        self.server.wait_for("serving")

    def restart(self, number: int) -> None:
        """Ends the server with a signal, and starts it again."""
        self.server.stop(number)
        self.server.__exit__()
        self.start()
        self.wait_ready()

    def busy(self, *, behind_proxy: bool) -> int:
        """Returns a number that grows while the server has something to do."""
        if behind_proxy:
            return self.proxy.forwarded
        nanoseconds = 0
        for task in Path(f"/proc/{self.server.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds

    def close(self) -> None:
        """Kills the server."""
        self.server.__exit__()
        self.proxy.close()


def _free_port() -> int:
    """Returns a port below those that the system gives to clients, which so never take it while the server is away."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


class Cluster:
    """The replicas, what is done to them, and the server that nothing is done to."""

    def __init__(self, *arguments: str) -> None:
        self._threads: list[threading.Thread] = []
        self._whole = threading.Condition()
        self._failures: list[BaseException] = []
        self.replicas = [Replica(*arguments) for _ in range(REPLICAS)]
        self._ready = set(self.replicas)
        self._reference = live.LiveServer(MODEL, "--listen", "127.0.0.1:0")
        for replica in self.replicas:
            replica.wait_ready()
        self._reference.wait_for("serving")
        self.reference = Client(self._reference.address)

    def addresses(self, *, behind_proxy: bool = False) -> list[str]:
        """Returns where the replicas are, for clients."""
        return [replica.proxy.address if behind_proxy else replica.address for replica in self.replicas]

    def wait_ready(self, count: int) -> None:
        """Returns when so many replicas can be reached."""
        with self._whole:
            assert self._whole.wait_for(lambda: self._failures or len(self._ready) >= count, timeout=60)
        if self._failures:
            raise self._failures[0]

    def strike(self, kind: str, chance: random.Random, watch: float) -> None:
        """Does something to the replica that is busiest during `watch` seconds, and sees to it that it comes back."""
        behind_proxy = kind in CUTS
        candidates = self.replicas[:1] if kind == "alone" else list(self._ready)
        before = {replica: replica.busy(behind_proxy=behind_proxy) for replica in candidates}
        time.sleep(watch)
        victim = max(candidates, key=lambda replica: replica.busy(behind_proxy=behind_proxy) - before[replica])
        with self._whole:
            self._ready.discard(victim)
        begin, end = _FAULTS[kind]
        begin(victim, chance)
        away = chance.uniform(1.2 * TIMEOUT, 2.5 * TIMEOUT)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._bring_back, args=(victim, end, away)))
        self._threads[-1].start()

    def _bring_back(self, victim: Replica, end: Callable[[Replica, float], None], away: float) -> None:
        try:
            end(victim, away)
        except BaseException as error:  # noqa: BLE001 - raised where someone waits
            self._failures.append(error)
        with self._whole:
            self._ready.add(victim)
            self._whole.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()
        self.reference.close()
        self._reference.__exit__()
        for replica in self.replicas:
            replica.close()


def _cut(replica: Replica, chance: random.Random) -> None:
    if chance.random() < 0.5:
        replica.proxy.refuse()
    replica.proxy.cut()


def _accept(replica: Replica, away: float) -> None:
    time.sleep(away / 4)
    replica.proxy.refuse()
    replica.proxy.accept()


def _delay(replica: Replica, chance: random.Random) -> None:
    replica.proxy.delay = chance.uniform(0.02, 1.5 * TIMEOUT)


def _hurry(replica: Replica, away: float) -> None:
    time.sleep(away)
    replica.proxy.delay = 0


def _flow(replica: Replica, away: float) -> None:
    time.sleep(away)
    replica.proxy.flow()


def _continue(replica: Replica, away: float) -> None:
    time.sleep(away)
    replica.server.process.send_signal(signal.SIGCONT)


_FAULTS: dict[str, tuple[Callable[[Replica, random.Random], None], Callable[[Replica, float], None]]] = {
    "kill": (
        lambda replica, chance: replica.server.process.kill(),
        lambda replica, away: replica.restart(signal.SIGKILL),
    ),
    "alone": (  # the only replica that the client knows
        lambda replica, chance: replica.server.process.kill(),
        lambda replica, away: replica.restart(signal.SIGKILL),
    ),
    "term": (
        lambda replica, chance: replica.server.process.terminate(),
        lambda replica, away: replica.restart(0),
    ),
    "stop": (lambda replica, chance: replica.server.process.send_signal(signal.SIGSTOP), _continue),
    "cut": (_cut, _accept),
    "halve": (lambda replica, chance: replica.proxy.halve(), lambda replica, away: None),
    "delay": (_delay, _hurry),
    "stall": (lambda replica, chance: replica.proxy.stall(), _flow),
}
"""How each fault begins, and how it ends."""


@dataclasses.dataclass
class Operation:
    """One thing that is done with a stream: "steps", "step", "reset" or "checkpoint"."""

    kind: str
    inputs: list[Any] = dataclasses.field(default_factory=list)
    in_flight: int = 1
    rows: list[int] = dataclasses.field(default_factory=list)
    saved: int | None = None
    """Number of the checkpoint whose rows `taken` a reset gives; None for zeros."""
    taken: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Plan:
    """All that is done with a stream, decided before it begins."""

    rows: int
    checkpoint_interval_steps: int
    before: Any
    """What the rows have seen before the stream, (rows, time, features), or None."""
    operations: list[Operation]

    @property
    def answers(self) -> int:
        """How many answers are to come."""
        return sum(max(1, len(operation.inputs)) for operation in self.operations)

    @property
    def steps(self) -> int:
        """How many time-steps there are."""
        return sum(x.shape[1] if x.ndim == 3 else 1 for operation in self.operations for x in operation.inputs)


def random_plan(seed: int, messages: int = 600) -> Plan:
    """Returns a plan of about so many messages of time-steps, that ends with the state."""
    chance, values = random.Random(seed), np.random.default_rng(seed)
    rows, saved, operations, sent = chance.choice([1, 1, 2, 3, 8, chance.randint(1, 64), 64]), 0, [], 0

    def inputs() -> Any:
        time_steps = chance.choice([(), (), (), (1,), (chance.randint(2, 20),)])
        return values.random((rows, *time_steps, _FEATURES), np.float32)

    while sent < messages:
        kind = chance.choice(["steps", "steps", "step", "step", "reset", "checkpoint"])
        match kind:
            case "steps":
                count = chance.randint(1, 120)
                operations.append(Operation(kind, [inputs() for _ in range(count)], in_flight=chance.randint(1, 16)))
                sent += count
            case "step":
                count = chance.randint(1, 20)
                operations += [Operation(kind, [inputs()]) for _ in range(count)]
                sent += count
            case "reset":
                some = chance.sample(range(rows), chance.randint(1, rows))
                source = chance.randrange(saved) if saved and chance.random() < 0.6 else None
                taken = [] if source is None else [chance.randrange(rows) for _ in some]
                operations.append(Operation(kind, rows=some, saved=source, taken=taken))
            case "checkpoint":
                operations.append(Operation(kind))
                saved += 1
    operations.append(Operation("checkpoint"))
    before = None if chance.random() < 0.5 else values.random((rows, 9, _FEATURES), np.float32)
    return Plan(rows, chance.choice([0, 1, 7, 100, 100]), before, operations)


class Answers:
    """The answers of a stream as bytes, in the order in which they came."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def take(self, answer: Any) -> bool:
        """Takes an output or a state; returns whether `prepare` is to be called before the stream continues."""
        self.taken.append(_bytes(answer))
        return False

    def prepare(self) -> None:
        """Waits until something can happen to the stream."""


def play(plan: Plan, stream: Any, answers: Answers) -> None:
    """Does all of a plan with a stream, or with what is like one."""
    saved: list[State] = []
    for operation in plan.operations:
        match operation.kind:
            case "steps":
                for output in stream.steps(operation.inputs, operation.in_flight):
                    if answers.take(output):
                        answers.prepare()
                continue
            case "step":
                answer = stream.step(operation.inputs[0])
            case "reset":
                answer = stream.reset(operation.rows, _source(operation, saved))
            case _:
                answer = stream.checkpoint()
                saved.append(answer)
        if answers.take(answer):
            answers.prepare()


async def play_async(plan: Plan, stream: Any, answers: Answers) -> None:
    """Does the same with a stream of asyncio."""
    saved: list[State] = []
    for operation in plan.operations:
        match operation.kind:
            case "steps":
                async for output in stream.steps(operation.inputs, operation.in_flight):
                    if answers.take(output):
                        await asyncio.to_thread(answers.prepare)
                continue
            case "step":
                answer = await stream.step(operation.inputs[0])
            case "reset":
                answer = await stream.reset(operation.rows, _source(operation, saved))
            case _:
                answer = await stream.checkpoint()
                saved.append(answer)
        if answers.take(answer):
            await asyncio.to_thread(answers.prepare)


def _source(operation: Operation, saved: Sequence[State]) -> State | None:
    return None if operation.saved is None else saved[operation.saved][operation.taken]


def _bytes(answer: Any) -> bytes:
    if isinstance(answer, State):
        message: bytes = answer.to_message().SerializeToString(deterministic=True)
        return message
    return repr(answer.shape).encode() + answer.tobytes()


class Uninterrupted:
    """What is like a stream, but made of `Client.forward` alone."""

    def __init__(self, client: Client, rows: int, state: State | None = None) -> None:
        self._client = client
        self._model = client.model()
        self._state = self._signed(state or State.zeros(self._model, rows))

    def steps(self, series: Sequence[Any], in_flight: int = 1) -> Iterator[Any]:
        """Yields the output of each input."""
        whole = np.concatenate([x if x.ndim == 3 else x[:, None] for x in series], axis=1)
        outputs, self._state = self._client.forward(whole, self._state, all_outputs=True)
        at = 0
        for x in series:
            length = x.shape[1] if x.ndim == 3 else 1
            yield outputs[:, at : at + length] if x.ndim == 3 else outputs[:, at]
            at += length

    def step(self, x: Any) -> Any:
        """Returns the output of an input."""
        return next(self.steps([x]))

    def reset(self, rows: Sequence[int], state: State | None) -> State:
        """Returns the state in which some rows are replaced."""
        new = State.zeros(self._model, len(rows)) if state is None else state
        every = [self._state[row] for row in range(self._state.batch)]
        for i, row in enumerate(rows):
            every[row] = new[i]
        self._state = self._signed(State.stack(every))
        return self._state

    def checkpoint(self) -> State:
        """Returns the state."""
        return self._state

    def _signed(self, state: State) -> State:
        return dataclasses.replace(state, numerics_fingerprint=self._model.numerics_fingerprint)


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
    x = np.full((1, _FEATURES), 0.5, np.float32)
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
                some = [values.random((rows, _FEATURES), np.float32) for _ in range(chance.randint(1, 3))]
                inputs += some
                answers += [_bytes(output) async for output in stream.steps(some)]
                await asyncio.sleep(chance.uniform(0, 0.12))
            answers.append(_bytes(await stream.checkpoint()))
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
        help=f"some of {', '.join(_FAULTS)}; cut is all of {', '.join(CUTS)}",
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
