"""Streams over real gRPC: one answer however a sequence is cut (P1, P3), the protocol, its limits, the drain, and the client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import queue
import signal
import threading
import time
from concurrent import futures
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lstmserve
from lstmserve import AsyncClient, Client, State, calls, channels, replay_log, resumable_stream, tensors
from lstmserve.v1 import lstm_pb2, lstm_pb2_grpc
from lstmserve.v1.lstm_pb2 import StepInput, StreamCheckpointRequest, StreamOpen, StreamReset, StreamStepsRequest
from tests.support import live
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
from tests.support.tcp_proxy import TcpProxy

PATIENCE = 20  # seconds after which a test that waits has failed
X = numbers(3, 40, 3)
MANY = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])

MOST_STREAMS, MOST_ROWS, MOST_STEPS, MOST_BYTES = 3, 4, 10, 8000
IDLE_SECONDS = 0.5


# Models and servers.


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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns the model files by name."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "small": write(folder, "small", 3, lstm("first", 3, 5, return_sequences=True), lstm("second", 5, 4), dense("head", 4, 2)),
        "wide": write(folder, "wide", 4000, lstm("lstm", 4000, 4), dense("head", 4, 16_384)),
        "broad": write(folder, "broad", 3, lstm("lstm", 3, 300)),
        "big": write(folder, "big", 3, lstm("lstm", 3, 512)),
        "steep": write(folder, "steep", 3, lstm("lstm", 3, 4, inner="exponential")),
        "late": write(folder, "late", 3, lstm("lstm", 3, 4, go_backwards=True)),
        "two": write_two_outputs(folder),
    }  # fmt: skip


@pytest.fixture(scope="module")
def starting(files):
    """Returns all servers, which were started at the same time."""
    small = files["small"]
    arguments = {
        "usual": [*(files[name] for name in ("small", "wide", "steep", "late", "two")), *live.QUICK],
        "narrow": [small, files["broad"], "--max-streams", str(MOST_STREAMS), "--max-rows", str(MOST_ROWS),
                   "--max-steps", str(MOST_STEPS), "--max-message-bytes", str(MOST_BYTES), *live.QUICK],
        "impatient": [small, "--stream-idle-seconds", str(IDLE_SECONDS), *live.QUICK],
        "busy": [files["big"], *live.QUICK],
        "stuck": [files["wide"], "--drain-seconds", "1", *live.QUICK],
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(live.LiveServer(*values, "--listen", "127.0.0.1:0"))
            for name, values in arguments.items()
        }


def ready(name):
    """Returns the fixture of a server that is ready."""

    @pytest.fixture(scope="module", name=name)
    def fixture(starting):
        starting[name].wait_for("serving")
        return starting[name]

    return fixture


usual, narrow, impatient, busy, stuck = map(ready, ("usual", "narrow", "impatient", "busy", "stuck"))


@pytest.fixture
def client(usual):
    """Returns a client for the small model."""
    with Client(usual.address, model="small", timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def channel(usual):
    """Returns a channel without any policy."""
    with grpc.insecure_channel(usual.address) as channel:
        yield channel


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


# One answer, however a sequence is cut.


class AsIfAsync:
    """A client or stream of threads with the methods of the asyncio one."""

    def __init__(self, real):
        self._real = real

    def __getattr__(self, name):
        async def call(*arguments, **options):
            return getattr(self._real, name)(*arguments, **options)

        return call

    def stream(self, **options):
        """Opens a stream."""
        return AsIfAsync(self._real.stream(**options))

    async def steps(self, series, in_flight):
        """Yields the outputs."""
        for output in self._real.steps(series, in_flight):
            yield output

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self._real.close()


async def advanced(client, stream, kind, x):
    """Advances a stream by (rows, time, features) in one of the ways that there are; returns stream, output and state."""
    state = None
    if kind == "step":
        output = np.stack([await stream.step(part) for part in x.swapaxes(0, 1)], axis=1)
    elif kind == "forward":
        output = await stream.forward(x)
    elif kind == "steps":
        parts = [part async for part in stream.steps(list(x.swapaxes(0, 1)), in_flight=1 + len(x[0]) // 2)]
        output = np.stack(parts, axis=1)
    elif kind == "Step":
        state, parts = await stream.checkpoint(), []
        for part in x.swapaxes(0, 1):
            output, state = await client.step(part, state)
            parts.append(output)
        output = np.stack(parts, axis=1)
    else:
        output, state = await client.forward(x, await stream.checkpoint(), all_outputs=True)
    return output, state


async def driven(client, rows, plan):
    """Goes through a sequence as a plan says; returns all outputs and the last state."""
    x, outputs, start = X[:rows], [], 0
    stream = await client.stream(rows=rows, checkpoint_interval_steps=3).__aenter__()
    for kind, count, fresh in plan:
        output, state = await advanced(client, stream, kind, x[:, start : start + count])
        outputs.append(output)
        start += count
        if fresh:
            state = state or await stream.checkpoint()
            await stream.__aexit__(None, None, None)
            stream = await client.stream(state=state, checkpoint_interval_steps=0).__aenter__()
        elif state is not None:
            await stream.reset(range(rows), state)
    state = await stream.checkpoint()
    reconnects = stream._real.reconnects if isinstance(stream, AsIfAsync) else stream.reconnects
    await stream.__aexit__(None, None, None)
    assert reconnects == 0
    return np.concatenate(outputs, axis=1), state


PLANS = st.lists(
    st.tuples(st.sampled_from(["step", "forward", "steps", "Step", "Forward"]), st.integers(1, 5), st.booleans()),
    min_size=1,
    max_size=8,
)


@MANY
@given(rows=st.integers(1, 3), plan=PLANS)
def test_every_cut_gives_the_bytes_of_the_whole(client, rows, plan):
    """Steps, chunks, pipelines, calls with a state that came out of a stream and streams begun with one give one answer (P1, P3)."""
    output, state = asyncio.run(driven(AsIfAsync(client), rows, plan))
    whole, after = client.forward(X[:rows, : output.shape[1]], all_outputs=True)

    assert whole.tobytes() == output.tobytes()
    assert bytes_of(after) == bytes_of(state)


@MANY
@given(rows=st.integers(1, 3), plan=PLANS)
async def test_every_cut_gives_the_bytes_of_the_whole_with_asyncio(usual, rows, plan):
    """The same with asyncio."""
    async with AsyncClient(usual.address, model="small", timeout=PATIENCE) as client:
        output, state = await driven(client, rows, plan)
        whole, after = await client.forward(X[:rows, : output.shape[1]], all_outputs=True)

    assert whole.tobytes() == output.tobytes()
    assert bytes_of(after) == bytes_of(state)


def test_streams_side_by_side_do_not_touch_each_other(client):
    """Streams that take turns step by step each give the bytes of a Forward of their own."""
    whole = client.forward(X, all_outputs=True).output
    with contextlib.ExitStack() as stack:
        each = [stack.enter_context(client.stream()) for _ in X]
        outputs = [[stream.step(x) for stream, x in zip(each, column, strict=True)] for column in X.swapaxes(0, 1)]

    assert whole.tobytes() == np.stack(outputs).squeeze(2).swapaxes(0, 1).tobytes()


def test_a_row_begun_anew_gives_the_bytes_of_a_new_sequence(client):
    """After a reset of one row it answers as a new sequence, and the others continue."""
    with client.stream(rows=3) as stream:
        stream.forward(X[:, :7])
        after = stream.reset([1])
        output = stream.forward(X[:, 7:15])
    whole = client.forward(X[:, :15], all_outputs=True).output[:, 7:]
    new = client.forward(X[1:2, 7:15], all_outputs=True).output

    assert after.steps_seen.tolist() == [7, 0, 7]
    assert (whole[0].tobytes(), new[0].tobytes(), whole[2].tobytes()) == tuple(row.tobytes() for row in output)


# The protocol.


def test_answers_repeat_the_number_and_keep_the_order(client, channel):
    """Of sixteen messages in flight each is answered once, in order, with the number that the caller gave it."""
    given_numbers = [5, 5, -3, 2**62, 0, *range(40, 29, -1)]
    whole = client.forward(X[0, :16], all_outputs=True).output
    with Raw(channel, opening(), *map(steps, X[:1, :16].swapaxes(0, 1), given_numbers)) as stream:
        stream.read()
        answers = [stream.read() for _ in given_numbers]

    assert given_numbers == [answer.number for answer in answers]
    assert whole.tobytes() == b"".join(tensors.decode(answer.output).tobytes() for answer in answers)


def test_the_first_response_names_rows_digest_and_numerics(client, channel):
    """The first response says how many rows the stream has, and what serves it as `model` does."""
    model = client.model()
    with Raw(
        channel, opening(row_count=3, model_digest=model.digest, numerics_fingerprint=model.numerics_fingerprint)
    ) as stream:
        opened = stream.read()

    assert (3, model.digest) == (opened.row_count, opened.model_digest)
    assert model.numerics_fingerprint == opened.numerics_fingerprint


ENDS = [
    ([steps(X[:1, 0])], "INVALID_ARGUMENT", "message: got input first, expected"),
    ([StreamStepsRequest()], "INVALID_ARGUMENT", "message: got nothing first, expected"),
    ([opening(), opening()], "INVALID_ARGUMENT", "message: got open again, expected"),
    ([opening("none")], "NOT_FOUND", "model: no model 'none' is served"),
    ([opening("")], "INVALID_ARGUMENT", "model: "),
    ([opening("late")], "FAILED_PRECONDITION", "model: Step is not possible"),
    ([opening(model_digest="x")], "FAILED_PRECONDITION", "model_digest: got 'x'; this server has"),
    ([opening(numerics_fingerprint="x")], "FAILED_PRECONDITION", "numerics_fingerprint: got 'x'; this server has"),
    ([opening(state=lstm_pb2.State(model_digest="x"))], "FAILED_PRECONDITION", "state.model_digest: "),
    ([opening(outputs=["c"])], "FAILED_PRECONDITION", "outputs[0]: got 'c'; the model has 'head'"),
    ([opening(row_count=-2)], "INVALID_ARGUMENT", "row_count: got -2 rows, expected"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "code", "text"), ENDS)
def test_what_ends_a_stream(channel, messages, code, text):
    """What breaks the protocol or cannot be opened ends the stream with a status, and a text that begins with the field."""
    with Raw(channel, *messages) as stream:
        responses, status, details = stream.rest()

    assert (len(messages) - 1, code) == (len(responses), status.name)
    assert details.startswith(text)


def test_a_second_open_ends_the_stream_after_the_answers_before_it(channel):
    """All that came before what breaks the protocol is answered."""
    with Raw(channel, opening(), steps(X[:1, 0], 8), opening(), steps(X[:1, 1], 9)) as stream:
        responses, status, _ = stream.rest()

    assert [response.WhichOneof("message") for response in responses] == ["opened", "output"]
    assert status == grpc.StatusCode.INVALID_ARGUMENT


WRONG = [
    (steps(X[:2, 0], 15), 15, 3, "x.shape: got 2 rows, expected 3"),
    (steps(X[:, 0, :2], 16), 16, 9, "x.shape: got 2 features; the model has 3"),
    (steps(X[0, 0], 17), 17, 3, "x.shape: got (3), expected"),
    (steps(np.zeros((3, 0, 3)), 18), 18, 3, "x.shape: "),
    (steps(np.full((3, 3), np.nan), 19), 19, 3, "x: got nan at (0, 0)"),
    (StreamStepsRequest(input=StepInput(number=20)), 20, 3, "x: got nothing"),
    (StreamStepsRequest(input=StepInput(number=21, x=lstm_pb2.Tensor(dtype=3, shape=[3, 3], data=b"123"))), 21, 3, "x.data: "),
    (reset([0, 3], number=22), 22, 3, "rows[1]: got 3, expected 0 to 2"),
    (reset([-1], number=23), 23, 3, "rows[0]: got -1, expected 0 to 2"),
    (reset([2, 2], number=24), 24, 3, "rows: got a row twice"),
    (reset([], number=25), 25, 3, "rows: got none"),
    (reset([0], lstm_pb2.State(model_digest="x"), 26), 26, 9, "state.model_digest: "),
    (StreamStepsRequest(), 0, 3, "message: got nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "number", "code", "text"), WRONG)
def test_a_wrong_message_is_answered_and_changes_nothing(client, channel, message, number, code, text):
    """A wrong message gets its number, a code and the field in the stream; state and stream are as if it had not come."""
    whole, after = client.forward(X[:, :3], all_outputs=True)
    with Raw(channel, opening(row_count=3), steps(X[:, :2], 1), message, steps(X[:, 2], 2), checkpoint(3)) as stream:
        _, _, rejected, outputs, saved = (stream.read() for _ in range(5))

    assert (number, code, text) == (rejected.number, rejected.code, rejected.text[: len(text)])
    assert (2, whole[:, 2].tobytes()) == (outputs.number, tensors.decode(outputs.output).tobytes())
    assert (3, bytes_of(after)) == (saved.number, bytes_of(saved.state))


def test_an_answer_that_is_not_finite_is_rejected(channel):
    """A step that leaves the range of numbers is answered in the stream, and the state stays what it was."""
    with Raw(
        channel, opening("steep"), steps(np.full((1, 3), -900.0), 4), steps(np.full((1, 5, 3), -900.0), 5)
    ) as stream:
        stream.read()
        rejected = [stream.read() for _ in range(2)]
        saved = stream.ask(checkpoint(6))

    assert [(each.number, each.code) for each in rejected] == [(4, 9), (5, 9)]
    assert not State.from_message(saved.state).layers[0].c.any()


def test_bytes_that_are_no_message_end_only_this_stream(channel):
    """Bytes that are not message end their stream with INVALID_ARGUMENT; another one on the connection continues."""
    method = calls.method("StreamSteps")
    with Raw(channel, opening()) as other:
        other.read()
        junk = channel.stream_stream(method)(iter([opening().SerializeToString(), b"\xff\xff"]), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError) as raised:
            list(junk)
        answer = other.ask(steps(X[:1, 0], 6))

    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "got 2 bytes that are not a valid lstmserve.v1.StreamStepsRequest"
    assert answer.number == 6


def test_a_caller_that_has_sent_all_gets_all_answers_a_last_checkpoint_and_ok(client, channel):
    """After half-close every answer comes, then the state with the number of what changed it last, then OK."""
    _, after = client.forward(X[0, :16])
    wrong = steps(X[:2, 0], 30)
    with Raw(
        channel, opening(), *map(steps, X[:1, :16].swapaxes(0, 1), range(11, 27)), checkpoint(28), wrong
    ) as stream:
        stream.done()
        responses, status, _ = stream.rest()

    assert status == grpc.StatusCode.OK
    assert [*range(11, 27), 28] == [(r.output.number or r.checkpoint.number) for r in responses[1:-2]]
    assert (responses[-2].rejected.number, responses[-1].checkpoint.number) == (30, 26)
    assert bytes_of(after.to_message()) == bytes_of(responses[-1].checkpoint.state)


def test_a_stream_that_was_never_opened_ends_with_ok(channel):
    """A caller that sends nothing at all gets nothing, and OK."""
    with Raw(channel) as stream:
        stream.done()
        assert stream.rest()[:2] == ([], grpc.StatusCode.OK)


@pytest.mark.parametrize(
    ("wanted", "first", "named"), [([], "a", ["a", "b"]), (["b"], "b", ["b"]), (["b", "a", "b"], "b", ["a", "b"])]
)
def test_the_outputs_that_are_wanted(usual, channel, wanted, first, named):
    """Of a model with several outputs those come that are wanted, or all, and the first of them alone too."""
    with Client(usual.address, model="two") as client:
        expected = client.step(X[:, 0]).outputs
    with Raw(channel, opening("two", row_count=3, outputs=wanted)) as stream:
        stream.read()
        answer = stream.ask(steps(X[:, 0]))

    assert expected[first].tobytes() == tensors.decode(answer.output).tobytes()
    assert {name: expected[name].tobytes() for name in named} == {
        name: tensors.decode(tensor).tobytes() for name, tensor in answer.outputs.items()
    }


def test_checkpoints_come_after_so_many_steps(client, channel):
    """With checkpoint_interval_steps the state comes with the outputs that complete so many time-steps, and is Forward's."""
    cuts = [1, 1, 2, 5, 1, 3]  # 4 9 13
    parts = np.split(X[:1, :13], np.cumsum(cuts)[:-1], axis=1)
    with Raw(channel, opening(checkpoint_interval_steps=4), *map(steps, parts, range(1, 7))) as stream:
        stream.read()
        answers = [stream.read() for _ in parts]

    assert [answer.number for answer in answers if answer.HasField("state")] == [3, 4, 6]
    for answer, seen in zip([answers[2], answers[3], answers[5]], (4, 9, 13), strict=True):
        assert bytes_of(client.forward(X[0, :seen]).state) == bytes_of(answer.state)


def test_the_answer_has_the_form_of_the_question(channel):
    """Who sends plain numbers gets plain numbers, also as the state; who sends bytes gets bytes."""
    with Raw(channel, opening()) as stream:
        stream.read()
        plain = [stream.ask(steps(X[:1, 0], as_values=True)).output, stream.ask(checkpoint()).state.layers[0].h]
        packed = [stream.ask(steps(X[:1, 0])).output, stream.ask(checkpoint()).state.layers[0].h]

    assert [(len(tensor.values), len(tensor.data)) for tensor in plain] == [(2, 0), (5, 0)]
    assert [(len(tensor.values), len(tensor.data)) for tensor in packed] == [(0, 8), (0, 20)]


# Backpressure.


def memory_of(server):
    """Returns the resident memory of a server, in KiB."""
    with open(f"/proc/{server.process.pid}/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


@pytest.fixture(scope="module")
def long_messages():
    """Returns inputs of 32 KB each, (number, rows, features), to the wide model, which answers each with 64 KB."""
    return numbers(600, 1, 4000, dtype=np.float64)


def in_parts(address, x):
    """Returns the outputs of the wide model for (time, 1, features), from Forward."""
    parts, state = [], None
    with Client(address, model="wide", timeout=PATIENCE) as client:
        for start in range(0, len(x), 50):
            part, state = client.forward(x[start : start + 50, 0], state, all_outputs=True)
            parts.append(part)
    return np.concatenate(parts)


def test_a_caller_that_does_not_read_is_not_read_from(usual, channel, client, long_messages):
    """The server stops taking from who does not read, keeps its memory, answers others, and continues in order when read from."""
    expected = in_parts(usual.address, long_messages)
    before = memory_of(usual)
    every = [opening("wide"), *map(steps, long_messages, itertools.count(1))]
    with Raw(channel, *every) as stream, Raw(channel, opening()) as other:
        other.read()
        stuck_at = stable(lambda: stream.pulled)
        grown = memory_of(usual) - before
        answers = [other.ask(steps(X[:1, 0], number)).number for number in range(1, 20)]
        client.forward(X)
        still = stream.pulled
        stream.read()
        late = [stream.read() for _ in long_messages]

    assert stuck_at == still < 500
    assert grown < 24 << 10
    assert list(range(1, 20)) == answers
    assert list(range(1, 601)) == [answer.number for answer in late]
    assert expected.tobytes() == b"".join(answer.output.data for answer in late)


# Limits.


@pytest.fixture
def narrow_channel(narrow):
    """Returns a channel to the server with low limits, when no stream is open there."""
    with grpc.insecure_channel(narrow.address) as channel:
        live.until(lambda: opens(channel, MOST_STREAMS))
        yield channel


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


def test_more_streams_than_there_may_be_are_refused(narrow_channel, narrow):
    """One stream too many is refused with the setting and how long to wait; the others, and calls, are answered."""
    with contextlib.ExitStack() as stack, Client(narrow.address, model="small") as client:
        first, *_ = fill(narrow_channel, stack)
        with Raw(narrow_channel, opening()) as refused:
            _, status, text = refused.rest()
            trailing = dict(refused.call.trailing_metadata())
        answer = first.ask(steps(X[:1, 0], 3))
        client.step(X[0, 0])
        with pytest.raises(lstmserve.ResourceExhausted, match="--max-streams"):
            client.stream(reconnect_timeout=0)

    assert (status, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "3 streams are open; expected fewer (--max-streams)")
    assert trailing["grpc-retry-pushback-ms"] == "100"
    assert answer.number == 3


WAYS_TO_END = {
    "all was sent": Raw.done,
    "cancelled": lambda stream: stream.call.cancel(),
    "broken": lambda stream: stream.send(opening()),
    "cancelled with steps in hand": lambda stream: (stream.send(*[steps(X[:1, :9])] * 99), stream.call.cancel()),
}


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_a_stream_that_ends_makes_room(narrow_channel, way):
    """A place is free again when a stream is at its end, is cancelled, or breaks the protocol."""
    with contextlib.ExitStack() as stack:
        each = fill(narrow_channel, stack)
        assert not opens(narrow_channel)
        WAYS_TO_END[way](each[1])
        live.until(lambda: opens(narrow_channel))


def test_a_deadline_makes_room(narrow_channel):
    """A place is free again when the deadline of a stream is over."""
    with contextlib.ExitStack() as stack:
        short = stack.enter_context(Raw(narrow_channel, opening(), timeout=0.5))
        short.read()
        others = [stack.enter_context(Raw(narrow_channel, opening())) for _ in range(MOST_STREAMS - 1)]
        for stream in others:
            stream.read()
        assert short.rest()[1] == grpc.StatusCode.DEADLINE_EXCEEDED
        live.until(lambda: opens(narrow_channel))


def test_a_caller_that_dies_makes_room(narrow_channel, narrow):
    """A place is free again when the connection of its caller is gone."""
    with contextlib.ExitStack() as stack, TcpProxy(narrow.address) as proxy:
        doomed = stack.enter_context(grpc.insecure_channel(proxy.address))
        fill(doomed, stack)
        assert not opens(narrow_channel)
        proxy.refuse()
        proxy.cut()
        live.until(lambda: opens(narrow_channel, MOST_STREAMS))


LIMITED = [
    ([opening(row_count=5)], "row_count: got 5 rows, expected at most 4 (--max-rows)"),
    ([opening(row_count=2**31 - 1)], f"row_count: got {2**31 - 1} rows, expected at most 4 (--max-rows)"),
]


@pytest.mark.parametrize(("messages", "text"), LIMITED)
def test_a_stream_beyond_the_limits_is_refused(narrow_channel, messages, text):
    """More rows than a request may have end the stream with RESOURCE_EXHAUSTED and the setting."""
    with Raw(narrow_channel, *messages) as stream:
        assert stream.rest() == ([], grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def test_steps_beyond_the_limits_are_answered_in_the_stream(narrow_channel):
    """More time-steps than a request may have are rejected with the setting, and the stream continues."""
    with Raw(narrow_channel, opening(), steps(X[:1, :11], 2), steps(X[:1, :10], 3)) as stream:
        _, rejected, outputs = (stream.read() for _ in range(3))

    assert (rejected.number, rejected.code, outputs.number) == (2, 8, 3)
    assert "got 11 time-steps, expected at most 10 (--max-steps)" in rejected.text


@pytest.mark.parametrize("message", [checkpoint(), reset([0])])
def test_no_response_is_longer_than_a_message_may_be(narrow_channel, message):
    """A state longer than --max-message-bytes is never sent, whatever asks for it, and rows of such a stream cannot be stepped."""
    with Raw(narrow_channel, opening("broad", row_count=4), message) as stream:
        stream.done()
        responses, _, _ = stream.rest()

    assert [response.ByteSize() for response in responses if response.ByteSize() > MOST_BYTES] == []


def test_an_idle_stream_is_ended_with_its_state(impatient):
    """A stream without a message for so long ends with DEADLINE_EXCEEDED, the setting, and before it the state."""
    with grpc.insecure_channel(impatient.address) as channel, Raw(channel, opening(), steps(X[:1, 0], 5)) as stream:
        responses, status, text = stream.rest()

    assert (responses[-1].going_away.number, list(responses[-1].going_away.state.steps_seen)) == (5, [1])
    assert status == grpc.StatusCode.DEADLINE_EXCEEDED
    assert f"no message for {IDLE_SECONDS} seconds (--stream-idle-seconds)" == text


def test_a_stream_that_was_never_opened_is_ended_too(impatient):
    """A caller that opens a call and sends nothing does not keep its place."""
    with grpc.insecure_channel(impatient.address) as channel, Raw(channel) as stream:
        assert stream.rest()[:2] == ([], grpc.StatusCode.DEADLINE_EXCEEDED)


def test_a_busy_stream_is_not_ended(impatient):
    """A stream with messages continues for longer than one without may last."""
    for _ in range(20):
        with grpc.insecure_channel(impatient.address) as channel, Raw(channel, opening()) as stream:
            stream.read()
            asked = [time.monotonic()]
            with contextlib.suppress(grpc.RpcError):
                while asked[-1] < asked[0] + 3 * IDLE_SECONDS:
                    assert stream.ask(steps(X[:1, 0], 7)).number == 7
                    asked.append(time.monotonic())
                return
        # Ended: that is wrong, unless this machine was so busy that the stream was idle.
        assert time.monotonic() - asked[-1] > IDLE_SECONDS / 2 or max(np.diff(asked)) > IDLE_SECONDS / 2
    raise AssertionError("this machine was too busy to keep a stream busy")


def test_a_client_goes_on_after_its_stream_was_idle(impatient):
    """An idle stream that the server ended is opened again by the client, with the same bytes."""
    with Client(impatient.address) as client, client.stream() as stream:
        outputs = [stream.step(X[0, 0])]
        with grpc.insecure_channel(impatient.address) as channel, Raw(channel, opening()) as later:
            later.rest()  # opened after, and idle for as long
        outputs.append(stream.step(X[0, 1]))
        whole = client.forward(X[0, :2], all_outputs=True).output

        assert stream.reconnects == 1
    assert whole.tobytes() == np.concatenate(outputs).tobytes()


# The drain.


def states_after(client, cuts):
    """Returns the state after each piece of a sequence, and None before the first."""
    states = [None]
    for cut in cuts:
        states.append(client.forward(cut, states[-1]).state)
    return states


def test_the_drain_finishes_what_is_in_hand_and_sends_the_states_away(busy):
    """On SIGTERM the message in hand is answered, every stream gets going_away with its state and UNAVAILABLE, and the end is 0."""
    x = numbers(4, 415, 3)
    cuts = [x[:, :1], x[:, 1:400], *np.split(x[:, 400:], 15, axis=1)]
    with grpc.insecure_channel(busy.address) as channel, contextlib.ExitStack() as stack:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        statuses = [next(watching).status]
        idle = [stack.enter_context(Raw(channel, opening("big", row_count=2))) for _ in range(20)]
        for stream in idle:
            stream.read()
        with Client(busy.address, timeout=PATIENCE) as client:
            states = states_after(client, cuts)
            stream = stack.enter_context(Raw(channel, opening("big", row_count=4), *map(steps, cuts, range(1, 18))))
            stream.read()
            stream.read()
            client.step(x[0, 0])
        busy.process.send_signal(signal.SIGTERM)
        busy.wait_for("draining")
        statuses.append(next(watching).status)
        *answers, away = stream.rest()[0]
        began = time.monotonic()
        ends = [each.rest() for each in idle]
        code = busy.finish()

    assert statuses == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    number = away.going_away.number
    assert list(range(2, number + 1)) == [answer.output.number for answer in answers]
    assert 2 <= number < 17
    assert bytes_of(states[number]) == bytes_of(away.going_away.state)
    assert stream.rest()[1:] == (grpc.StatusCode.UNAVAILABLE, "the server is draining; continue with another one")
    assert {(status, len(responses)) for responses, status, _ in ends} == {(grpc.StatusCode.UNAVAILABLE, 1)}
    assert {responses[0].going_away.number for responses, _, _ in ends} == {0}
    assert code == 0
    assert time.monotonic() - began < 8  # --drain-seconds is 10
    assert "internal_error" not in [entry["event"] for entry in busy.log]


@pytest.fixture(scope="module")
def stuck_drain(stuck, long_messages):
    """Returns how a server ended that had a stream that no one reads, and before it some that were cut off in their midst."""
    every = [opening("wide"), *map(steps, long_messages)]
    with grpc.insecure_channel(stuck.address) as channel, contextlib.ExitStack() as stack:
        for _ in range(3):
            with Raw(channel, *every) as unread, Raw(channel, opening("wide")) as idle:
                idle.read()
                stable(lambda stream=unread: stream.pulled, 0.1)
        with TcpProxy(stuck.address) as proxy, grpc.insecure_channel(proxy.address) as doomed:
            stack.enter_context(Raw(doomed, *every)).read()
            proxy.refuse()
            proxy.cut()
        unread = stack.enter_context(Raw(channel, *every))
        stable(lambda: unread.pulled)
        began = time.monotonic()
        code = stuck.stop()
        seconds = time.monotonic() - began
        status = unread.rest()[1]
    return SimpleNamespace(code=code, seconds=seconds, status=status, events=[entry["event"] for entry in stuck.log])


def test_a_caller_that_does_not_read_holds_up_no_drain(stuck_drain):
    """A server with a stream that no one reads ends within the drain time with 0, and the stream with UNAVAILABLE."""
    assert (stuck_drain.code, stuck_drain.status) == (0, grpc.StatusCode.UNAVAILABLE)
    assert stuck_drain.seconds < 8  # --drain-seconds is 1


def test_callers_that_go_are_no_fault_of_the_server(stuck_drain):
    """A caller that cancels, is cut off or is left after in the drain, is not logged as an internal error."""
    assert [event for event in stuck_drain.events if event in ("stopped", "internal_error")] == ["stopped"]


# The client.


REFUSED = [
    (X[0, 0, :2], lstmserve.FailedPrecondition, "x.shape: got 2 features"),
    (np.full(3, np.inf), lstmserve.InvalidArgument, "x: got inf at"),
    (np.zeros((2, 3)), lstmserve.InvalidArgument, "x.shape: got 2 rows"),
]  # fmt: skip


@pytest.mark.parametrize(("x", "kind", "text"), REFUSED)
def test_a_refused_input_raises_and_the_stream_goes_on(client, x, kind, text):
    """An input that the server refuses raises the error that the call would, and the stream is as before."""
    whole = client.forward(X[0, :2], all_outputs=True).output
    with client.stream() as stream:
        outputs = [stream.step(X[0, 0])]
        with pytest.raises(kind, match=text):
            stream.step(x)
        outputs.append(stream.step(X[0, 1]))

        assert stream.reconnects == 0
    assert whole.tobytes() == np.concatenate(outputs).tobytes()


@pytest.mark.parametrize(("x", "kind", "text"), REFUSED)
async def test_a_refused_input_raises_and_the_stream_of_asyncio_goes_on(usual, x, kind, text):
    """The same with asyncio."""
    async with AsyncClient(usual.address, model="small") as client, client.stream() as stream:
        outputs = [await stream.step(X[0, 0])]
        with pytest.raises(kind, match=text):
            await stream.step(x)
        outputs.append(await stream.step(X[0, 1]))
        whole = (await client.forward(X[0, :2], all_outputs=True)).output

        assert stream.reconnects == 0
    assert whole.tobytes() == np.concatenate(outputs).tobytes()


def test_what_cannot_be_sent_raises_and_the_stream_goes_on(client):
    """An input that has no place in a message raises before anything is sent."""
    with client.stream() as stream:
        with pytest.raises(TypeError, match="cannot be sent"):
            stream.step(["a", "b", "c"])
        assert client.step(X[:1, 0]).output.tobytes() == stream.step(X[0, 0]).tobytes()


def test_an_input_refused_among_many_in_flight(client):
    """The outputs before a refused input come first; then the error; the outputs after it can still be taken."""
    series = [*X[0, :5], np.full(3, np.nan), *X[0, 5:10]]
    whole = client.forward(X[0, :10], all_outputs=True).output
    with client.stream() as stream:
        outputs = []
        with pytest.raises(lstmserve.InvalidArgument, match="nan"):
            outputs.extend(stream.steps(series))
        before = len(outputs)
        outputs += stream.steps(())

    assert before == 5
    assert whole.tobytes() == np.concatenate(outputs).tobytes()


@pytest.mark.parametrize("lost", [False, True])
def test_a_step_out_of_turn_raises_and_leaves_nothing_behind(usual, client, lost):
    """A step while answers of `steps` are to be taken raises; its input is never computed, not even by the next server."""
    whole = client.forward(X[0, :5], all_outputs=True).output
    with TcpProxy(usual.address) as proxy, Client(proxy.address, model="small") as other:
        stream = other.stream(timeout=1, reconnect_timeout=0.5)
        going = stream.steps(X[0, :4], in_flight=4)
        outputs = [next(going)]
        with pytest.raises(RuntimeError, match="have not been taken"):
            stream.step(X[0, 10])
        if lost:
            proxy.cut()
        outputs += going
        outputs.append(stream.step(X[0, 4]))
        stream.close()

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


def test_an_unknown_model_raises_when_the_stream_is_opened(usual):
    """A stream on a model that is not served raises NotFound, and never another try."""
    with Client(usual.address, model="none") as client, pytest.raises(lstmserve.NotFound, match="'none'"):
        client.stream()


def test_a_state_of_other_rows_is_refused_before_it_is_sent(client):
    """A stream with a state of another number of rows raises ValueError."""
    state = client.step(X[:, 0]).state
    with pytest.raises(ValueError, match="a state of 3 rows for a stream of 2"):
        client.stream(rows=2, state=state)


CLOSED_USES = {
    "step": lambda stream: stream.step(X[0, 1]),
    "steps": lambda stream: list(stream.steps(X[0, 1:3])),
    "checkpoint": lambda stream: stream.checkpoint(),
    "reset": lambda stream: stream.reset([0]),
}


@pytest.mark.parametrize("use", CLOSED_USES)
def test_a_closed_stream_raises(client, use):
    """Whatever is asked of a stream that was closed raises a sentence that says so, and opens nothing."""
    with client.stream(timeout=1, reconnect_timeout=0) as stream:
        stream.step(X[0, 0])

    with pytest.raises((RuntimeError, ValueError, lstmserve.LstmServeError), match="closed"):
        CLOSED_USES[use](stream)
    assert stream._connection is None


async def test_a_closed_stream_of_asyncio_raises(usual):
    """The same with asyncio."""
    async with AsyncClient(usual.address, model="small") as client:
        async with client.stream(timeout=1, reconnect_timeout=0) as stream:
            await stream.step(X[0, 0])

        with pytest.raises((RuntimeError, ValueError, lstmserve.LstmServeError), match="closed"):
            await stream.step(X[0, 1])
        assert stream._connection is None


def test_a_stream_of_a_closed_client_raises(usual):
    """A stream whose client was closed raises Cancelled, as calls do, at once."""
    client = Client(usual.address, model="small")
    with client.stream() as stream:
        stream.step(X[0, 0])
        client.close()
        with pytest.raises(lstmserve.Cancelled, match="the client was closed"):
            stream.step(X[0, 1])


def test_a_stream_that_waits_is_woken_by_the_close_of_its_client(usual):
    """A step under way when the client is closed ends with Cancelled, at once."""
    with TcpProxy(usual.address) as proxy, futures.ThreadPoolExecutor(1) as pool:
        client = Client(proxy.address, model="small")
        with client.stream(timeout=10 * PATIENCE) as stream:
            proxy.stall()
            step = pool.submit(stream.step, X[0, 0])
            live.until(lambda: stream._replay_log.outstanding)
            client.close()
            with pytest.raises(lstmserve.Cancelled, match="the client was closed"):
                step.result(PATIENCE)


def test_leaving_a_stream_early_makes_room_and_ends_its_thread(narrow_channel, narrow):
    """Leaving the with-block in the middle of `steps`, by an error too, frees the place at the server and the thread."""
    with Client(narrow.address, model="small") as client:
        for _ in range(2 * MOST_STREAMS):
            with contextlib.suppress(ZeroDivisionError), client.stream(reconnect_timeout=5) as stream:
                next(stream.steps(itertools.cycle(X[0])))
                raise ZeroDivisionError
        live.until(lambda: opens(narrow_channel, MOST_STREAMS))
        live.until(lambda: not [thread for thread in threading.enumerate() if thread.name == "lstmserve-stream"])


async def test_leaving_a_stream_of_asyncio_early_makes_room_and_ends_its_task(narrow_channel, narrow):
    """The same with asyncio."""
    async with AsyncClient(narrow.address, model="small") as client:
        for _ in range(2 * MOST_STREAMS):
            with contextlib.suppress(ZeroDivisionError):
                async with client.stream(reconnect_timeout=5) as stream:
                    async for _ in stream.steps(itertools.cycle(X[0])):
                        raise ZeroDivisionError
        await asyncio.to_thread(live.until, lambda: opens(narrow_channel, MOST_STREAMS))

    assert [task for task in asyncio.all_tasks() if "_write" in repr(task.get_coro())] == []


def test_a_stream_waits_for_a_place(narrow_channel, narrow):
    """A stream that finds the server full is opened when another one ends."""
    with contextlib.ExitStack() as stack, Client(narrow.address, model="small") as client:
        first, *_ = fill(narrow_channel, stack)
        with futures.ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.stream, reconnect_timeout=PATIENCE)
            live.until(lambda: first.ask(steps(X[:1, 0])) and waiting.running())
            first.done()
            with waiting.result(PATIENCE) as stream:
                assert stream.step(X[0, 0]).shape == (1, 2)


@pytest.mark.parametrize("idle_for", [1, 3600])
def test_a_stream_that_was_quiet_for_long_survives_the_loss_of_its_server(client, usual, monkeypatch, idle_for):
    """The patience of a stream is for looking for a server, not for the time in which its caller asked nothing."""
    whole = client.forward(X[0, :2], all_outputs=True).output
    now = [0.0]
    monkeypatch.setattr(resumable_stream, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    with TcpProxy(usual.address) as proxy, Client(proxy.address, model="small") as other, other.stream() as stream:
        outputs = [stream.step(X[0, 0])]
        now[0] += idle_for
        proxy.cut()
        outputs.append(stream.step(X[0, 1]))

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


class _Faulty(lstm_pb2_grpc.LstmServiceServicer):
    """A server that opens every stream and fails at the first input of each, five hundred times."""

    def __init__(self):
        self.opened = 0

    def StreamSteps(self, requests, context):  # noqa: N802 - gRPC's
        """Opens, and fails."""
        self.opened += 1
        next(requests)
        yield lstm_pb2.StreamStepsResponse(
            opened=lstm_pb2.StreamOpened(row_count=1, model_digest="d", numerics_fingerprint="f")
        )
        number = next(requests).input.number
        if self.opened < 500:
            context.abort(grpc.StatusCode.INTERNAL, "internal error")
        yield lstm_pb2.StreamStepsResponse(output=lstm_pb2.StepOutput(number=number, output=tensors.encode(X[:1, 0])))


def test_an_input_that_every_server_fails_at_is_given_up():
    """When servers open a stream again and again and fail at the same input, its error is raised at last."""
    service = _Faulty()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    lstm_pb2_grpc.add_LstmServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with (
        contextlib.closing(SimpleNamespace(close=lambda: server.stop(0).wait())),
        Client(f"127.0.0.1:{port}") as client,
        client.stream(reconnect_timeout=0.3) as stream,
        pytest.raises(lstmserve.Internal, match="internal error"),
    ):
        stream.step(X[0, 0])

    assert service.opened < 100


def test_the_last_checkpoint_is_what_the_server_sent_last(client):
    """The last checkpoint is None at first, then what came with outputs, with a reset, and on asking."""
    with client.stream(checkpoint_interval_steps=2) as stream:
        first = stream.last_checkpoint
        list(stream.steps(X[0, :5]))
        second = stream.last_checkpoint
        third = stream.checkpoint()

        assert (first, second.steps_seen.tolist(), third.steps_seen.tolist()) == (None, [4], [5])
        assert third is stream.last_checkpoint
        assert (stream.reconnects, stream.numerics_changes) == (0, 0)


async def test_inputs_may_come_from_asyncio(usual):
    """`steps` of asyncio takes inputs that come one by one."""

    async def series():
        """Yields the inputs."""
        for x in X[0]:
            await asyncio.sleep(0)
            yield x

    async with AsyncClient(usual.address, model="small") as client, client.stream() as stream:
        outputs = [output async for output in stream.steps(series())]
        whole = (await client.forward(X[0], all_outputs=True)).output

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


def test_so_many_inputs_are_in_flight_and_no_more(client):
    """`steps` reads so many inputs ahead of the outputs that were taken."""
    read = []
    with client.stream() as stream:
        outputs = stream.steps((read.append(0) or x for x in X[0]), in_flight=5)
        ahead = [len(read) for _ in zip(range(4), outputs, strict=False)]

    assert ahead == [5, 6, 7, 8]


# What the client remembers.


def test_what_is_remembered_is_bounded_by_the_checkpoints(client):
    """With checkpoint_interval_steps no more inputs are kept than those since the last checkpoint and those in flight."""
    with client.stream(checkpoint_interval_steps=10) as stream:
        outputs = stream.steps(itertools.islice(itertools.cycle(X[0]), 500), in_flight=8)
        kept = [len(stream._replay_log._records) for _ in outputs]
        size = stream._replay_log._bytes

    assert (len(kept), max(kept) <= 10 + 8) == (500, True)
    assert sum(message.ByteSize() for message in stream._replay_log._records.values()) == size


LITTLE = 400  # bytes of messages, of some 24 each: the journal asks at the seventeenth


@pytest.mark.parametrize("in_flight", [1, 16])
def test_a_pipeline_without_checkpoints_asks_for_them_itself(client, monkeypatch, in_flight):
    """With checkpoint_interval_steps=0, when too much is to be remembered, `steps` gives every output and ends."""
    monkeypatch.setattr(replay_log, "_MOST_BYTES", LITTLE)
    whole = client.forward(X[0], all_outputs=True).output
    with client.stream(checkpoint_interval_steps=0, timeout=1, reconnect_timeout=0) as stream:
        outputs = list(stream.steps(X[0], in_flight=in_flight))

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


@pytest.mark.parametrize("count", range(14, 22))
def test_a_pipeline_ends_wherever_the_journal_asked_for_a_checkpoint(client, monkeypatch, count):
    """A checkpoint of the journal's own as the last message in flight holds up nothing."""
    monkeypatch.setattr(replay_log, "_MOST_BYTES", LITTLE)
    with client.stream(checkpoint_interval_steps=0, timeout=0.5, reconnect_timeout=0) as stream:
        assert count == len(list(stream.steps(X[0, :count])))


def test_steps_without_checkpoints_go_on_when_the_journal_asks_for_one(client, monkeypatch):
    """With checkpoint_interval_steps=0, when too much is to be remembered, `step` continues, and what is remembered is bounded."""
    monkeypatch.setattr(replay_log, "_MOST_BYTES", LITTLE)
    whole, after = client.forward(X[0], all_outputs=True)
    with client.stream(checkpoint_interval_steps=0, timeout=1, reconnect_timeout=0) as stream:
        outputs, kept = [], []
        for x in X[0]:
            outputs.append(stream.step(x))
            kept.append(stream._replay_log._bytes)
        state = stream.checkpoint()

    assert whole.tobytes() == np.concatenate(outputs).tobytes()
    assert bytes_of(after) == bytes_of(state)
    assert max(kept) < 2 * LITTLE


async def test_steps_of_asyncio_without_checkpoints_go_on_when_the_journal_asks_for_one(usual, monkeypatch):
    """The same with asyncio."""
    monkeypatch.setattr(replay_log, "_MOST_BYTES", LITTLE)
    async with AsyncClient(usual.address, model="small") as client:
        whole = (await client.forward(X[0], all_outputs=True)).output
        async with client.stream(checkpoint_interval_steps=0, timeout=1, reconnect_timeout=0) as stream:
            outputs = [await stream.step(x) for x in X[0]]

    assert whole.tobytes() == np.concatenate(outputs).tobytes()


def made_journal(**options):
    """Returns the journal of a stream that is open."""
    made = replay_log.ReplayLog(StreamOpen(model="m"), **{"strict": False, **options})
    made.receive(
        lstm_pb2.StreamStepsResponse(
            opened=lstm_pb2.StreamOpened(row_count=2, model_digest="d", numerics_fingerprint="f")
        )
    )
    return made


def outputs_of(number, state=None):
    """Returns the answer to time-steps."""
    output = tensors.encode(np.float32([[number], [-number]]))
    return lstm_pb2.StreamStepsResponse(output=lstm_pb2.StepOutput(number=number, output=output, state=state))


def state_of(seen):
    """Returns a state."""
    return lstm_pb2.State(model_digest="d", steps_seen=[seen, seen])


def numbers_of(messages):
    """Returns the numbers of messages after the one that opens a stream."""
    return [getattr(message, message.WhichOneof("message")).number for message in messages[1:]]


def test_a_journal_sends_again_what_came_after_the_checkpoint():
    """What goes to another server: rows, digest and the last state, and every message after it, in order."""
    made = made_journal()
    for _ in range(4):
        made.steps(tensors.encode(X[:2, 0]))
    made.receive(outputs_of(1))
    made.receive(outputs_of(2, state_of(2)))
    first = made.resumed()[0].open

    assert (first.model, first.row_count, first.model_digest, list(first.state.steps_seen)) == ("m", 2, "d", [2, 2])
    assert numbers_of(made.resumed()) == [3, 4]
    assert made.outstanding == 2


def test_a_journal_delivers_every_answer_once():
    """An answer that comes again from another server is passed over; its checkpoint is kept."""
    made = made_journal()
    for _ in range(3):
        made.steps(tensors.encode(X[:2, 0]))
    first = [made.receive(outputs_of(number)).number for number in (1, 2)]
    again = [made.receive(outputs_of(1)), made.receive(outputs_of(2, state_of(2)))]

    assert (first, again) == ([1, 2], [None, None])
    assert numbers_of(made.resumed()) == [3]
    assert made.receive(outputs_of(3)).number == 3


def test_a_journal_takes_the_state_of_a_server_that_goes_away():
    """What is in the state of a server that goes away is not sent again."""
    made = made_journal()
    for _ in range(3):
        made.steps(tensors.encode(X[:2, 0]))
    made.receive(outputs_of(1))
    made.receive(outputs_of(2))
    away = lstm_pb2.StreamGoingAway(number=2, state=state_of(2))

    assert None is made.receive(lstm_pb2.StreamStepsResponse(going_away=away))
    assert (numbers_of(made.resumed()), made.outstanding) == ([3], 1)


def test_a_journal_forgets_what_was_rejected():
    """A message that was rejected gives its error, and is not sent to another server."""
    made = made_journal()
    for _ in range(3):
        made.steps(tensors.encode(X[:2, 0]))
    made.receive(outputs_of(1))
    answer = made.receive(
        lstm_pb2.StreamStepsResponse(rejected=lstm_pb2.StreamRejected(number=2, code=9, text="x: wrong"))
    )

    assert (2, lstmserve.FailedPrecondition, "x: wrong") == (answer.number, type(answer.error), str(answer.error))
    assert numbers_of(made.resumed()) == [1, 3]


def test_a_journal_sends_a_reset_again_with_its_state():
    """A reset that no checkpoint covers is sent again as it was."""
    made = made_journal()
    made.steps(tensors.encode(X[:2, 0]))
    (message,) = made.reset([1], state_of(7))

    assert message == made.resumed()[2]
    saved = lstm_pb2.StreamCheckpoint(number=2, state=state_of(8))
    assert made.receive(lstm_pb2.StreamStepsResponse(checkpoint=saved)).state.steps_seen.tolist() == [8, 8]
    assert numbers_of(made.resumed()) == []


def test_a_journal_asks_for_a_checkpoint_when_there_is_too_much(monkeypatch):
    """When messages come to too many bytes one checkpoint is asked for, whose answer is no one's but the journal's."""
    monkeypatch.setattr(replay_log, "_MOST_BYTES", 3 * LITTLE)
    made = made_journal()
    x = tensors.encode(numbers(2, 50))
    sent = [len(made.steps(x)) for _ in range(4)]
    answers = [made.receive(outputs_of(number)).number for number in (1, 2, 3)]
    saved = lstm_pb2.StreamCheckpoint(number=4, state=state_of(3))

    assert (sent, answers) == ([1, 1, 2, 1], [1, 2, 3])
    assert None is made.receive(lstm_pb2.StreamStepsResponse(checkpoint=saved))
    assert numbers_of(made.resumed()) == [5]
    assert made.resumed()[1].ByteSize() == made._bytes


def test_a_strict_journal_refuses_other_numerics():
    """Other numerics are counted, or, strictly, refused; the same ones are neither."""
    same, other = (
        lstm_pb2.StreamStepsResponse(
            opened=lstm_pb2.StreamOpened(row_count=2, model_digest="d", numerics_fingerprint=name)
        )
        for name in "fg"
    )
    made, strict = made_journal(), made_journal(strict=True)
    for each in (made, strict):
        each.receive(same)
    made.receive(other)

    assert (made.numerics_changes, strict.numerics_changes) == (1, 0)
    with pytest.raises(lstmserve.NumericsChanged):
        strict.receive(other)


@given(every=st.integers(1, 9), in_flight=st.integers(1, 9), losses=st.sets(st.integers(1, 40)))
@settings(deadline=None, max_examples=60)
def test_a_journal_brings_every_answer_once_whatever_is_lost(every, in_flight, losses):
    """Against a server that is lost after any number of answers, every answer comes once, in order, and memory is bounded."""
    made, coming, delivered, here = made_journal(), [], [], 0  # `here`: steps that this server has answered
    for answered in itertools.count(1):
        while made.outstanding < in_flight and made._last < 40:
            coming += numbers_of([None, *made.steps(tensors.encode(X[:2, 0]))])
        if answered in losses:
            coming, here = numbers_of(made.resumed()), 0
        number, here = coming.pop(0), here + 1
        answer = made.receive(outputs_of(number, state_of(number) if here % every == 0 else None))
        delivered += [] if answer is None else [answer.number]
        assert len(made._records) < every + in_flight
        if len(delivered) == 40:
            break

    assert list(range(1, 41)) == delivered


def test_a_journal_notices_that_a_message_was_lost():
    """An answer to another message than the next one shows that one was lost on its way, as gRPC's own retries do."""
    own = replay_log.ReplayLog(StreamOpen(row_count=1), strict=False)
    for x in (1.0, 2.0, 3.0):
        own.steps(tensors.encode(np.array([[x]], np.float32)))
    own.resumed()
    answers = [lstm_pb2.StreamStepsResponse(output=lstm_pb2.StepOutput(number=number)) for number in (1, 3, 3)]

    assert [own.is_in_order(answer) for answer in answers] == [True, False, True]


def test_streams_are_not_retried_by_grpc_itself():
    """The retry policy leaves out StreamSteps, and no other method."""
    (policy,) = json.loads(dict(channels.channel_options(None))["grpc.service_config"])["methodConfig"]

    assert [name["method"] for name in policy["name"]] == ["Step", "Forward", "GetModel", "ListModels", "GetReport"]
