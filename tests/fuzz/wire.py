"""Damaged requests to a server, over gRPC."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Final

import grpc

from tests.fuzz import seeds
from tests.fuzz.protobuf import Mutator
from tests.fuzz.seeds import Seed
from tests.fuzz.server import Victim, victim
from tests.fuzz.service import METHODS, STREAM
from tests.fuzz.tally import Tally

CLEAN: Final = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_AT_ONCE: Final = 8
_PART: Final = 64  # calls between two good ones
_PATIENCE: Final = 30  # seconds for a call


def run(count: int, seed: int) -> Tally:
    """Sends damaged requests to a server: each has to get a clean status, and good ones the same bytes as ever."""
    with victim() as attacked:
        tally = Tally("wire", count, attacked.pid)
        _attack(attacked, tally, random.Random(seed))
        attacked.end(tally)
    return tally


def _attack(attacked: Victim, tally: Tally, chance: random.Random) -> None:
    good = asyncio.run(seeds.valid())
    mutator = Mutator(chance, [message for call in good for message in call.messages])
    # Not grpc.aio, which says INTERNAL of a stream that the server has refused while something was being written.
    options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(attacked.address, options) as channel, ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting: list[Seed] = []
        for number in tally.numbers():
            waiting.append(chance.choice(good).mutant(mutator, chance))
            if len(waiting) < _PART and number < tally.count - 1:
                continue
            for call, (code, text, seconds) in zip(waiting, pool.map(partial(_status, channel), waiting), strict=True):
                tally.add(code.name, seconds)
                if code not in CLEAN:
                    tally.fail(f"{call.method} ended with {code.name}: {text}", call.data)
            waiting.clear()
            attacked.check(tally)


def _status(channel: grpc.Channel, call: Seed) -> tuple[grpc.StatusCode, str, float]:
    """Returns how a call ends: code, text, and after how many seconds."""
    method = METHODS[call.method]
    path = f"/{method.containing_service.full_name}/{method.name}"
    began = perf_counter()
    try:
        if call.method == STREAM:
            deque(channel.stream_stream(path)(iter(call.messages), timeout=_PATIENCE), 0)
        elif method.server_streaming:
            deque(channel.unary_stream(path)(call.messages[0], timeout=_PATIENCE), 0)
        else:
            channel.unary_unary(path)(call.messages[0], timeout=_PATIENCE)
    except grpc.RpcError as error:
        return error.code(), error.details() or "", perf_counter() - began
    return grpc.StatusCode.OK, "", perf_counter() - began
