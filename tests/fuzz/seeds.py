"""Valid calls of every method, for every model that is served: what mutants are made of."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

import numpy as np

from lstmserve import tensors
from lstmserve.v1 import lstm_pb2
from lstmserve_server.model.spec import InputSpec
from lstmserve_server.runtime.registry import ServedModel
from tests.fuzz.protobuf import Mutator
from tests.fuzz.service import REQUESTS, STREAM, Service

ROWS: Final = 2
STEPS: Final = 6


@dataclass(frozen=True, slots=True)
class Seed:
    """A valid call."""

    method: str
    messages: tuple[bytes, ...]  # of a stream as many as it has, else one

    def mutant(self, mutator: Mutator, random: Random) -> Seed:
        """Returns the call with one message damaged; of a stream now and then out of order, cut off or repeated."""
        messages = list(self.messages)
        if self.method == STREAM and random.random() < 0.2:
            random.shuffle(messages)
        if self.method == STREAM and random.random() < 0.1:
            messages[random.randrange(len(messages)) :] *= random.randint(0, 3)
        if messages:
            at = random.randrange(len(messages))
            messages[at] = mutator.mutant(REQUESTS[self.method].DESCRIPTOR, messages[at])
        return Seed(self.method, tuple(messages))

    @property
    def data(self) -> bytes:
        """All messages, each after its length where there are several."""
        if self.method != STREAM:
            return self.messages[0]
        return b"".join(len(message).to_bytes(4, "big") + message for message in self.messages)


async def valid() -> list[Seed]:
    """Returns valid calls of all kinds."""
    return await of_service(await Service.ready())


async def of_service(service: Service) -> list[Seed]:
    """Returns valid calls of all kinds, each of which has been answered."""
    seeds = [
        Seed("ListModels", (b"",)),
        Seed("GetReport", (lstm_pb2.GetModelRequest(name="sunspots").SerializeToString(),)),
        Seed("WatchDiscrepancies", (b"",)),
    ]
    for served in service.models:
        seeds.append(Seed("GetModel", (lstm_pb2.GetModelRequest(name=served.name).SerializeToString(),)))
        seeds += [seed async for seed in _sequences(service, served)]
        if served.model.causal:
            seeds += [seed async for seed in _steps(service, served)]
    return seeds


async def _sequences(service: Service, served: ServedModel) -> Any:
    """Yields calls of Forward: with bytes and with numbers, with a state, with lengths, with all outputs."""
    for as_values in (False, True):
        request = lstm_pb2.ForwardRequest(model=served.name, compare=as_values)
        request.all_outputs = as_values and served.model.causal
        given = {item.name: _input(item, as_values=as_values) for item in served.model.inputs}
        if len(given) == 1 and not as_values:
            request.x.CopyFrom(next(iter(given.values())))
        else:
            for name, tensor in given.items():
                request.inputs[name].CopyFrom(tensor)
        if all(item.sequence for item in served.model.inputs) and not served.model.fixed_time:
            longest = max(tensor.shape[1] for tensor in given.values())
            request.lengths.extend([longest, longest - 2])
        response = await service.answer("Forward", request.SerializeToString())
        yield Seed("Forward", (request.SerializeToString(),))
        if served.model.causal:
            request.state.CopyFrom(response.state)
            yield Seed("Forward", (request.SerializeToString(),))


async def _steps(service: Service, served: ServedModel) -> Any:
    """Yields calls of Step, and a stream with a message of each kind."""
    x = _input(served.model.inputs[0], time=False)
    request = lstm_pb2.StepRequest(model=served.name, x=x)
    state = (await service.answer("Step", request.SerializeToString())).state
    yield Seed("Step", (request.SerializeToString(),))
    yield Seed("Step", (lstm_pb2.StepRequest(model=served.name, x=x, state=state, compare=True).SerializeToString(),))
    one_row = lstm_pb2.State.FromString((await _one_row(service, served)).SerializeToString())
    messages = [
        lstm_pb2.StreamStepsRequest(
            open=lstm_pb2.StreamOpen(
                model=served.name, row_count=ROWS, state=state, model_digest=served.digest, checkpoint_interval_steps=3
            )
        ),
        lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=1, x=x)),
        lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=2, x=_input(served.model.inputs[0]))),
        lstm_pb2.StreamStepsRequest(checkpoint=lstm_pb2.StreamCheckpointRequest(number=2)),
        lstm_pb2.StreamStepsRequest(reset=lstm_pb2.StreamReset(number=3, rows=[1], state=one_row)),
        lstm_pb2.StreamStepsRequest(reset=lstm_pb2.StreamReset(number=4, rows=[0, 1])),
        lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=5, x=x, compare=True)),
    ]
    stream = tuple(message.SerializeToString() for message in messages)
    responses, error = await service.converse(stream)
    kinds = [response.WhichOneof("message") for response in responses]
    assert (
        error,
        kinds,
    ) == (
        None,
        ["opened", "output", "output", "checkpoint", "checkpoint", "checkpoint", "output", "checkpoint"],
    ), (served.name, error, responses)
    yield Seed(STREAM, stream)


async def _one_row(service: Service, served: ServedModel) -> lstm_pb2.State:
    """Returns the state of one sequence after its first step."""
    x = _input(served.model.inputs[0], rows=1, time=False)
    return (await service.answer("Step", lstm_pb2.StepRequest(model=served.name, x=x).SerializeToString())).state


def _input(item: InputSpec, *, rows: int = ROWS, time: bool = True, as_values: bool = False) -> lstm_pb2.Tensor:
    """Returns an input that a model takes."""
    steps = (item.shape[0] or STEPS,) if item.sequence and time else ()
    shape = (rows, *steps, *(length or 3 for length in item.features))
    random = np.random.default_rng(len(shape))
    if item.vocabulary is not None:
        array = random.integers(0, item.vocabulary, shape).astype(np.float32)
    else:
        array = random.normal(size=shape).astype(np.float32)
    return tensors.encode(array, as_values=as_values)
