"""The servers that are put under load, and the call that they get."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import grpc

from bench.stream_costs import MODEL, input_of
from bench.traffic.textbook import SAYS
from lstmserve import calls, tensors
from lstmserve.v1 import lstm_pb2
from tests.support import live

OURS, TEXTBOOK = "lstmserve", "textbook grpcio"


@dataclass(frozen=True)
class Target:
    """A server that runs."""

    name: str
    address: str
    pid: int


@contextlib.contextmanager
def ours(*arguments: str) -> Iterator[Target]:
    """Runs our server with the bundled model."""
    with live.serving(MODEL, *arguments, *live.QUICK) as server:
        yield Target(OURS, server.address, server.process.pid)


@contextlib.contextmanager
def textbook() -> Iterator[Target]:
    """Runs the textbook server with the same model."""
    program = (sys.executable, "-m", "bench.traffic.textbook", MODEL)
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = next(line for line in process.stdout if line.startswith(SAYS))  # the log precedes it
            yield Target(TEXTBOOK, said.removeprefix(SAYS).strip(), process.pid)
        finally:
            process.kill()


def step_message(address: str, rows: int) -> str:
    """Returns a message for `Step` with a state, as a server has given it, in base64."""
    x = tensors.encode(input_of(rows, 1))
    request, response = lstm_pb2.StepRequest, lstm_pb2.StepResponse
    with grpc.insecure_channel(address) as channel:
        send = channel.unary_unary(calls.method("Step"), request.SerializeToString, response.FromString)
        state = send(request(x=x), timeout=30).state
    return base64.b64encode(request(x=x, state=state).SerializeToString()).decode()
