"""Random plans of what a stream does, played against a server, and what is expected of them."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lstmserve import Client, State
from tests.chaos.cluster import FEATURES


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
        return values.random((rows, *time_steps, FEATURES), np.float32)

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
    before = None if chance.random() < 0.5 else values.random((rows, 9, FEATURES), np.float32)
    return Plan(rows, chance.choice([0, 1, 7, 100, 100]), before, operations)


class Answers:
    """The answers of a stream as bytes, in the order in which they came."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def take(self, answer: Any) -> bool:
        """Takes an output or a state; returns whether `prepare` is to be called before the stream continues."""
        self.taken.append(bytes_of(answer))
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


def bytes_of(answer: Any) -> bytes:
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
