"""Models, messages and raw gRPC streams for the tests of streams."""

from __future__ import annotations

import contextlib
import queue
import threading
import time

import grpc
import numpy as np
from hypothesis import HealthCheck, settings

from lstmserve import Client, State, tensors
from lstmserve.v1 import lstm_pb2, lstm_pb2_grpc
from lstmserve.v1.lstm_pb2 import StepInput, StreamCheckpointRequest, StreamOpen, StreamReset, StreamStepsRequest
from tests.support.builders import (
    dense_layer,
    input_config,
    keras_layer,
    lstm_config,
    lstm_layer,
    numbers,
    sequential,
    write_hdf5,
)

PATIENCE = 20  # seconds after which a test that waits has failed


X = numbers(3, 40, 3)


MANY = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


MOST_STREAMS, MOST_ROWS, MOST_STEPS, MOST_BYTES = 3, 4, 10, 8000


IDLE_SECONDS = 0.5


def lstm(name, features, units, *, inner="tanh", **options):
    """Returns configuration and weights of an LSTM layer."""
    weights = lstm_layer(features, units, seed=units).weights
    config = lstm_config(units, name, activation=inner, **options)
    return config, {f"{name}/lstm_cell/{key}:0": array for key, array in weights.items()}


def dense(name, features, units):
    """Returns configuration and weights of a Dense layer."""
    weights = dense_layer(features, units).weights
    config = keras_layer("Dense", name, units=units, activation="linear", use_bias=True)
    return config, {f"{name}/{key}:0": array for key, array in weights.items()}


def write(folder, name, features, *layers):
    """Writes a model of layers, one after the other."""
    config = sequential(input_config(features), *(config for config, _ in layers))
    weights = {config["config"]["name"]: arrays for config, arrays in layers}
    return write_hdf5(folder / f"{name}.h5", config, weights)


def write_two_outputs(folder):
    """Writes a model with the outputs "a" of two features and "b" of three."""
    layers = [lstm("lstm", 3, 4), dense("a", 4, 2), dense("b", 4, 3)]
    before = {"input_layer": [], "lstm": ["input_layer"], "a": ["lstm"], "b": ["lstm"]}
    entries = [
        {
            **config,
            "name": config["config"]["name"],
            "inbound_nodes": [[[name, 0, 0, {}] for name in names]] if names else [],
        }
        for config, names in zip([input_config(), *(config for config, _ in layers)], before.values(), strict=True)
    ]
    edges = {"input_layers": [["input_layer", 0, 0]], "output_layers": [["a", 0, 0], ["b", 0, 0]]}
    config = {"class_name": "Functional", "config": {"name": "model", "layers": entries, **edges}}
    return write_hdf5(folder / "two.h5", config, {c["config"]["name"]: arrays for c, arrays in layers})


class Raw:
    """A stream of the generated stub; what it sends and reads is the test's."""

    def __init__(self, channel, *messages, timeout=PATIENCE):
        self._outgoing = queue.SimpleQueue()
        self.pulled = 0
        """How many messages gRPC took for sending."""
        self.send(*messages)
        self.call = lstm_pb2_grpc.LstmServiceStub(channel).StreamSteps(self._messages(), timeout=timeout)

    def _messages(self):
        for message in iter(self._outgoing.get, None):
            self.pulled += 1
            yield message

    def send(self, *messages):
        """Sends messages."""
        for message in messages:
            self._outgoing.put(message)

    def done(self):
        """Says that all was sent."""
        self.send(None)

    def read(self):
        """Returns what the next response holds."""
        response = next(self.call)
        return getattr(response, response.WhichOneof("message"))

    def ask(self, message):
        """Sends a message, and returns the next response."""
        self.send(message)
        return self.read()

    def rest(self):
        """Reads all that comes; returns it, the status and its text."""
        responses = []
        with contextlib.suppress(grpc.RpcError):
            responses.extend(self.call)
        return responses, self.call.code(), self.call.details()

    def close(self):
        """Ends the stream."""
        self.call.cancel()
        self.done()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def opening(model="small", **options):
    """Returns a message that opens a stream."""
    return StreamStepsRequest(open=StreamOpen(model=model, **options))


def steps(x, number=1, *, as_values=False):
    """Returns a message of time-steps."""
    return StreamStepsRequest(input=StepInput(number=number, x=tensors.encode(x, as_values=as_values)))


def checkpoint(number=1):
    """Returns a message that asks for the state."""
    return StreamStepsRequest(checkpoint=StreamCheckpointRequest(number=number))


def reset(rows, state=None, number=1):
    """Returns a message that begins rows again."""
    return StreamStepsRequest(reset=StreamReset(number=number, rows=rows, state=state))


def bytes_of(state):
    """Returns every byte of a state."""
    if isinstance(state, lstm_pb2.State):
        state = State.from_message(state)
    parts = [part.h.tobytes() + part.c.tobytes() for part in state.layers]
    return b"".join(parts) + np.asarray(state.steps_seen).tobytes()


def stable(value, seconds=0.3):
    """Waits until a number has not changed for a while, and returns it."""
    deadline, never = time.monotonic() + PATIENCE, threading.Event()
    last, since = value(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, "it never became stable"
        never.wait(0.01)
        if value() != last:
            last, since = value(), time.monotonic()
    return last


def memory_of(server):
    """Returns the resident memory of a server, in KiB."""
    with open(f"/proc/{server.process.pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def in_parts(address, x):
    """Returns the outputs of the wide model for (time, 1, features), from Forward."""
    parts, state = [], None
    with Client(address, model="wide", timeout=PATIENCE) as client:
        for start in range(0, len(x), 50):
            part, state = client.forward(x[start : start + 50, 0], state, all_outputs=True)
            parts.append(part)
    return np.concatenate(parts)


def opens(channel, count=1):
    """Returns whether so many streams can be opened."""
    with contextlib.ExitStack() as stack:
        each = [stack.enter_context(Raw(channel, opening())) for _ in range(count)]
        with contextlib.suppress(grpc.RpcError):
            return all(stream.read() for stream in each)
        refused = {stream.call.code() for stream in each if stream.call.done()}
    assert refused == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    return False


def fill(channel, stack):
    """Opens as many streams as there may be."""
    each = [stack.enter_context(Raw(channel, opening())) for _ in range(MOST_STREAMS)]
    for stream in each:
        stream.read()
    return each


def write_models(folder):
    """Writes all models, and returns their files by name."""
    return {
        "small": write(folder, "small", 3, lstm("first", 3, 5, return_sequences=True), lstm("second", 5, 4), dense("head", 4, 2)),
        "wide": write(folder, "wide", 4000, lstm("lstm", 4000, 4), dense("head", 4, 16_384)),
        "broad": write(folder, "broad", 3, lstm("lstm", 3, 300)),
        "big": write(folder, "big", 3, lstm("lstm", 3, 512)),
        "steep": write(folder, "steep", 3, lstm("lstm", 3, 4, inner="exponential")),
        "late": write(folder, "late", 3, lstm("lstm", 3, 4, go_backwards=True)),
        "two": write_two_outputs(folder),
    }  # fmt: skip
