"""A server that answers what a test writes down, and clients of both kinds for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent import futures

import grpc
import numpy as np

from lstmserve import AsyncClient, Client, LayerState, State, tensors
from lstmserve.v1 import lstm_pb2

Response = lstm_pb2.StreamStepsResponse


def state_of(rows, *, digest="d", h=None, c=None, layers=1, **more):
    """Returns a state of LSTM layers of two units."""
    good = tensors.encode(np.full((rows, 2), 0.25, np.float32))
    return lstm_pb2.State(
        layers=[lstm_pb2.LayerState(h=h or good, c=c or good, layer=f"l{number}") for number in range(layers)],
        model_digest=digest,
        **more,
    )


def output_of(*numbers, dtype=np.float32):
    """Returns an output with one feature."""
    return tensors.encode(np.array(numbers, dtype)[:, None])


def step_response(**changed):
    """Returns the answer to a step of two rows."""
    return lstm_pb2.StepResponse(**({"output": output_of(1, 2), "state": state_of(2)} | changed))


class Scripted:
    """A server that says what a test wants."""

    def __init__(self):
        self.unary = b""
        self.compression = None
        self.stream = lambda requests, over: iter(())
        self.over = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._answer)
            for name in ("Step", "Forward", "GetModel", "ListModels")
        }
        handlers["StreamSteps"] = grpc.stream_stream_rpc_method_handler(self._converse)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("lstmserve.v1.LstmService", handlers),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _answer(self, data, context):
        if self.compression is not None:
            context.set_compression(self.compression)
        return self.unary

    def _converse(self, requests, context):
        for response in self.stream(requests, self.over):
            yield response if isinstance(response, bytes) else response.SerializeToString()

    def stop(self):
        """Ends it."""
        self.over.set()
        self._server.stop(0).wait()


class Both:
    """A client of either kind, called in the same way."""

    def __init__(self, kind, address):
        self.kind = kind
        self.address = address

    def call(self, name, *arguments, **options):
        """Returns the answer to a call."""
        if self.kind == "sync":
            with Client(self.address, timeout=5) as client:
                return getattr(client, name)(*arguments, **options)

        async def run():
            """The same call with asyncio."""
            async with AsyncClient(self.address, timeout=5) as client:
                return await getattr(client, name)(*arguments, **options)

        return asyncio.run(run())

    def converse(self, talk, **options):
        """Opens a stream, and has `talk` call its methods: a list of (name, arguments)."""
        if self.kind == "sync":
            with Client(self.address) as client, client.stream(**options) as stream:
                return [getattr(stream, name)(*arguments) for name, *arguments in talk]

        async def run():
            """The same stream with asyncio."""
            async with AsyncClient(self.address) as client, client.stream(**options) as stream:
                return [await getattr(stream, name)(*arguments) for name, *arguments in talk]

        return asyncio.run(run())


X = np.zeros((2, 1), np.float32)


OK = tensors.encode(np.zeros((2, 2), np.float32))


NAN = tensors.encode(np.array([[0.5, np.nan], [0.5, 0.5]], np.float32))


SENT = State(
    steps_seen=np.array([4, 5]),
    model_digest="d",
    layers=(LayerState(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), "l0"),),
)


def opened(rows=1, digest="d", fingerprint="f"):
    """Returns the message that opens a stream."""
    return Response(opened=lstm_pb2.StreamOpened(row_count=rows, model_digest=digest, numerics_fingerprint=fingerprint))


def outputs(number, *numbers, state=None):
    """Returns the answer to time-steps."""
    return Response(output=lstm_pb2.StepOutput(number=number, output=output_of(*numbers), state=state))


def going_away():
    """Returns the note that a server goes away."""
    return Response(going_away=lstm_pb2.StreamGoingAway(number=0, state=state_of(1)))
