"""Damaged requests, through everything that follows gRPC, in this process."""

from __future__ import annotations

import asyncio
import math
import random
import warnings
from time import process_time
from typing import Final

import numpy as np
from google.protobuf.message import Message

from lstmserve import tensors
from lstmserve.v1 import lstm_pb2
from lstmserve_server.core.errors import RequestError
from lstmserve_server.rpc import status
from tests.fuzz import seeds
from tests.fuzz.protobuf import Mutator
from tests.fuzz.seeds import Seed
from tests.fuzz.service import STREAM, Service
from tests.fuzz.tally import Tally

_EVERY: Final = 1000  # mutants between two good calls
_PATIENCE: Final = 5  # seconds that one call may take


def run(count: int, seed: int) -> Tally:
    """Sends damaged requests: each has to be answered or refused, and good ones to be answered with the same bytes as ever."""
    with warnings.catch_warnings(action="error"):  # a number that NumPy wonders at is one that no one has thought of
        return asyncio.run(_run(count, seed))


async def _run(count: int, seed: int) -> Tally:
    service = await Service.ready()
    good = await seeds.of_service(service)
    expected = [await _answers(service, call) for call in good]
    chance = random.Random(seed)
    mutator = Mutator(chance, [message for call in good for message in call.messages])
    tally = Tally("messages", count)
    for number in tally.numbers():
        call = chance.choice(good).mutant(mutator, chance)
        await _send(service, call, tally)
        if number % _EVERY == 0:
            at = chance.randrange(len(good))
            if expected[at] != await _answers(service, good[at]):
                tally.fail(f"after {number} mutants a good call of {good[at].method} has another answer", good[at].data)
    return tally.finish()


async def _send(service: Service, call: Seed, tally: Tally) -> None:
    began = process_time()  # that others compute alongside is not the call's fault
    try:
        kind = await _outcome(service, call)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        tally.fail(f"{call.method}: {error!r}", call.data)
        kind = type(error).__name__
    seconds = process_time() - began
    tally.add(kind, seconds)
    if seconds > _PATIENCE:
        tally.fail(f"{call.method} took {seconds:.1f} seconds", call.data)


async def _outcome(service: Service, call: Seed) -> str:
    """Returns what comes of a call, after a look at the answer."""
    if call.method == STREAM:
        responses, error = await service.converse(call.messages)
        for response in responses:
            _require_sound(response)
        if error is not None:
            status.status_of(error)
            return f"stream ended {error.reason}"
        rejected = sum(response.WhichOneof("message") == "rejected" for response in responses)
        return "stream with rejections" if rejected else "stream"
    try:
        _require_sound(await service.answer(call.method, call.messages[0]))
    except RequestError as error:
        status.status_of(error)
        return error.reason
    return "answer"


async def _answers(service: Service, call: Seed) -> list[bytes]:
    """Returns the bytes of what a good call is answered with, maps in one order."""
    if call.method == STREAM:
        return [
            response.SerializeToString(deterministic=True) for response in (await service.converse(call.messages))[0]
        ]
    try:
        return [(await service.answer(call.method, call.messages[0])).SerializeToString(deterministic=True)]
    except RequestError as error:
        return [str(error).encode()]


def _require_sound(response: Message) -> None:
    """Refuses an answer with a number in its outputs or state that is not finite, except for outputs that are not yet there."""
    if isinstance(response, lstm_pb2.StreamStepsResponse):
        response = getattr(response, response.WhichOneof("message"))
    state = getattr(response, "state", None)
    for layer in state.layers if state is not None else ():
        for tensor in (layer.h, layer.c, layer.window):
            if tensor.dtype and not np.isfinite(tensors.decode(tensor)).all():
                raise AssertionError(f"{layer.layer}: a state that is not finite")
    output = getattr(response, "output", None)
    if output is not None and not all(length > 0 for length in output.shape):
        raise AssertionError(f"an output of the shape {list(output.shape)}")
    if output is not None and output.dtype and math.prod(output.shape) != tensors.decode(output).size:
        raise AssertionError("an output that is not of its shape")
