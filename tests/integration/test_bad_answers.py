"""What the clients make of a server that answers wrongly, for ever, or not at all: sync and asyncio alike."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

import lstmserve
from lstmserve import AsyncClient, Client, InvalidResponse, LayerState, State, tensors
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


@pytest.fixture
def server():
    """Returns a server that says what a test wants."""
    made = Scripted()
    yield made
    made.stop()


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


@pytest.fixture(params=["sync", "asyncio"])
def client(request, server):
    """Returns a client of each kind."""
    return Both(request.param, server.address)


X = np.zeros((2, 1), np.float32)
OK = tensors.encode(np.zeros((2, 2), np.float32))
NAN = tensors.encode(np.array([[0.5, np.nan], [0.5, 0.5]], np.float32))

WRONG = {
    "no message": (b"\xff\xff\xff", "got 3 bytes that are not a valid lstmserve.v1.StepResponse"),
    "rows": (step_response(output=output_of(1, 2, 3)), "output has the shape (3, 1); expected 2 rows"),
    "rank": (step_response(output=tensors.encode(np.float32(1))), "output has the shape (); expected 2 rows"),
    "type": (step_response(output=output_of(1, 2, dtype=np.int64)), "output holds int64; expected floating-point"),
    "not finite": (step_response(output=output_of(1, np.nan)), "output holds numbers that are not finite"),
    "infinite": (step_response(output=output_of(1, np.inf)), "output holds numbers that are not finite"),
    "malformed": (
        step_response(output=lstm_pb2.Tensor(dtype=lstm_pb2.DATA_TYPE_FLOAT32, shape=[2, 1], data=b"abc")),
        "output: got 3 bytes, expected 8",
    ),
    "no state": (step_response(state=state_of(2, layers=0)), "state has other layers than the one before it"),
    "digest": (step_response(state=state_of(2, digest="e")), "state is of the model 'e'; expected 'd'"),
    "layers": (step_response(state=state_of(2, layers=2)), "state has other layers than the one before it"),
    "rows of the state": (step_response(state=state_of(3)), "state has 3 rows; expected 2"),
    "h without c": (
        step_response(state=lstm_pb2.State(layers=[lstm_pb2.LayerState(h=output_of(1, 2))], model_digest="d")),
        "state.layers[0] has h; expected h and c, or a window",
    ),
    "h and c apart": (
        step_response(state=state_of(2, h=output_of(1, 2))),
        "layers[0] has h of shape (2, 1) (float32) and c of",
    ),
    "state not finite": (
        step_response(state=state_of(2, h=NAN)),
        "state.layers[0].h holds numbers that are not finite",
    ),
    "steps": (step_response(state=state_of(2, steps_seen=[1, 2, 3])), "steps_seen is int64 of shape (3,)"),
    "steps below zero": (
        step_response(state=state_of(2, steps_seen=[1, -2])),
        "expected (2,) integers, 0 or more",
    ),
    "steps that go back": (
        step_response(state=state_of(2, steps_seen=[1, 5])),
        "fewer time-steps than the one before it",
    ),
    "no digest": (step_response(state=state_of(2, digest="")), "state has no model_digest"),
    "no state at all": (lstm_pb2.StepResponse(output=output_of(1, 2)), "state has no model_digest"),
    "scalar h": (
        step_response(state=state_of(2, h=tensors.encode(np.float32(1)), c=tensors.encode(np.float32(1)))),
        "layers[0].h is float32 of shape ()",
    ),
    "types apart": (
        step_response(state=state_of(2, h=tensors.encode(np.zeros((2, 2), np.float16)))),
        "has h of shape (2, 2) (float16)",
    ),
    "long name": (
        step_response(
            state=lstm_pb2.State(layers=[lstm_pb2.LayerState(h=OK, c=OK, layer="x" * 5000)], model_digest="d")
        ),
        "state.layers[0].layer has 5000 characters; expected at most 4096",
    ),
    "no features": (
        step_response(output=tensors.encode(np.zeros((2, 0), np.float32))),
        "output has the shape (2, 0); expected 2 rows of one feature or more",
    ),
    "another output": (
        step_response(outputs={"y": output_of(1)}),
        "outputs['y'] has the shape (1, 1); expected 2 rows",
    ),
}

SENT = State(
    steps_seen=np.array([4, 5]),
    model_digest="d",
    layers=(LayerState(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), "l0"),),
)


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_does_not_fit_is_one_error_that_names_the_server(server, client, name):
    """Whatever is wrong with it: the error is of the client's tree, says where it came from and what was expected."""
    response, text = WRONG[name]
    server.unary = response if isinstance(response, bytes) else response.SerializeToString()
    with pytest.raises(InvalidResponse) as caught:
        client.call("step", X, SENT)

    assert f"the server at {server.address} gave an answer that does not fit what it was asked: " in str(caught.value)
    assert text in str(caught.value)


def test_an_answer_that_fits_is_taken(server, client):
    """As is one without a state before it, and that of a model that waits for a window, whose output is not a number yet."""
    server.unary = step_response().SerializeToString()
    assert client.call("step", X, SENT).output.tolist() == [[1], [2]]
    assert client.call("step", X).output.tolist() == [[1], [2]]
    assert client.call("step", X, State(())).output.tolist() == [[1], [2]]  # a state without layers starts again

    window = lstm_pb2.LayerState(
        layer="conv", window=tensors.encode(np.zeros((2, 3, 1), np.float32)), steps_received=[1, 1]
    )
    waiting = lstm_pb2.State(layers=[window], model_digest="d", steps_seen=[1, 1])
    server.unary = step_response(output=output_of(np.nan, np.nan), state=waiting).SerializeToString()
    assert np.isnan(client.call("step", X).output).all()


@pytest.mark.parametrize("method", ["model", "models"])
def test_a_description_that_is_none_is_one_error(server, client, method):
    """Of one model or of all."""
    server.unary = b"\xff\xff"
    with pytest.raises(InvalidResponse, match="bytes that are not a valid"):
        client.call(method)


def test_a_model_of_another_name_is_not_taken(server):
    """Who asks for one model is not told of another."""
    server.unary = lstm_pb2.GetModelResponse(model=lstm_pb2.Model(name="b")).SerializeToString()
    with (
        Client(server.address, model="a") as client,
        pytest.raises(InvalidResponse, match="got the model 'b', expected 'a'"),
    ):
        client.model()


FLOAT32 = lstm_pb2.DATA_TYPE_FLOAT32
LSTM, WINDOW = lstm_pb2.LayerStateLayout(layer="a", units=1 << 23), [1 << 12, 1 << 12]


@pytest.mark.parametrize(
    ("layouts", "dtype", "text"),
    [
        ([LSTM, {"window_shape": WINDOW}], FLOAT32, ""),
        ([LSTM, {"window_shape": WINDOW}, {"units": 1}], FLOAT32, "a state of 3.36e\\+07 numbers; expected at most"),
        ([{"units": (1 << 31) - 1}] * 3, FLOAT32, "numbers; expected at most"),
        ([{"units": -1}], FLOAT32, "units=-1"),
        ([{"window_shape": [3, -1]}], FLOAT32, "window_shape=\\[3, -1\\]"),
        ([{"window_shape": [1 << 62, 1 << 62]}], FLOAT32, "numbers; expected at most"),
        ([{"window_shape": [1] * 8}], FLOAT32, ""),
        ([{"window_shape": [1] * 9}], FLOAT32, "window_shape="),
        ([LSTM], lstm_pb2.DATA_TYPE_FLOAT64, ""),
        ([LSTM], lstm_pb2.DATA_TYPE_INT32, "dtype"),
        ([LSTM], 99, "the dtype 99; expected float32 or float64"),
    ],
)
@pytest.mark.parametrize("method", ["model", "models"])
def test_a_model_whose_state_is_none_or_too_large_is_not_taken(server, client, method, layouts, dtype, text):
    """Or a state of zeros for it could not be made, or would fill the memory."""
    layouts = [lstm_pb2.LayerStateLayout(**each) if isinstance(each, dict) else each for each in layouts]
    described = lstm_pb2.Model(name="m", dtype=dtype, state_layout=layouts)
    message = lstm_pb2.GetModelResponse(model=described)
    if method == "models":
        message = lstm_pb2.ListModelsResponse(models=[described])
    server.unary = message.SerializeToString()
    if not text:
        assert client.call(method)
    else:
        with pytest.raises(InvalidResponse, match=text):
            client.call(method)


def opened(rows=1, digest="d", fingerprint="f"):
    """Returns the message that opens a stream."""
    return Response(opened=lstm_pb2.StreamOpened(row_count=rows, model_digest=digest, numerics_fingerprint=fingerprint))


def outputs(number, *numbers, state=None):
    """Returns the answer to time-steps."""
    return Response(output=lstm_pb2.StepOutput(number=number, output=output_of(*numbers), state=state))


def going_away():
    """Returns the note that a server goes away."""
    return Response(going_away=lstm_pb2.StreamGoingAway(number=0, state=state_of(1)))


WRONG_IN_STREAMS = {
    "rows when opened": ([opened(rows=3)], "the stream was opened with 3 rows; expected 1"),
    "no digest": ([opened(digest="")], "the stream was opened for the model ''"),
    "opened twice": ([opened(), opened()], "the stream was opened twice"),
    "not opened": ([outputs(1, 5)], "got output before the stream was opened"),
    "empty": ([opened(), Response()], "got an empty message"),
    "no message": ([opened(), b"\xff\xff"], "got 2 bytes that are not a valid lstmserve.v1.StreamStepsResponse"),
    "another kind": (
        [opened(), Response(checkpoint=lstm_pb2.StreamCheckpoint(number=1, state=state_of(1)))],
        "got checkpoint for message 1, expected output",
    ),
    "rows": ([opened(), outputs(1, 5, 6)], "output has the shape (2, 1); expected 1 rows"),
    "not finite": ([opened(), outputs(1, np.inf)], "output holds numbers that are not finite"),
    "state of others": ([opened(), outputs(1, 5, state=state_of(1, digest="e"))], "state is of the model 'e'"),
    "rows of the state": ([opened(), outputs(1, 5, state=state_of(2))], "state has 2 rows; expected 1"),
}


@pytest.mark.parametrize("name", WRONG_IN_STREAMS)
def test_a_message_of_a_stream_that_does_not_fit_ends_it(server, client, name):
    """With the same error; nothing is asked for again, as the server may answer the same."""
    messages, text = WRONG_IN_STREAMS[name]
    calls = []

    def talk(requests, over):
        calls.append(1)
        yield from messages
        over.wait()

    server.stream = talk
    with pytest.raises(InvalidResponse) as caught:
        client.converse([("step", [0.5])], timeout=5, reconnect_timeout=5)

    assert server.address in str(caught.value)
    assert text in str(caught.value)
    assert len(calls) == 1


@pytest.mark.parametrize("what", ["opened", "going away", "nothing"])
def test_a_stream_gives_up_on_a_server_that_makes_no_progress(server, client, what):
    """What no one asked for is not an answer, however often it comes: `timeout` and `patience` are about those."""
    message = {"opened": opened(), "going away": going_away(), "nothing": None}[what]

    def talk(requests, over):
        yield opened()
        while not over.wait(0.05):
            if message is not None and what != "opened":
                yield message

    server.stream = talk
    began = time.monotonic()
    with pytest.raises((lstmserve.DeadlineExceeded, lstmserve.Unavailable)):
        client.converse([("step", [0.5])], timeout=0.4, reconnect_timeout=1)

    assert time.monotonic() - began < 20


def test_an_answer_of_no_message_is_one_error(server, client):
    """A call that ends well, and without an answer."""
    server.unary = None
    with pytest.raises(lstmserve.LstmServeError):
        client.call("step", X)


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_a_state_of_a_stream_is_of_the_layers_that_were_sent(server, kind):
    """A stream that begins with a state asks for the weights that it belongs to, and takes back no other layers."""
    asked = []

    def talk(requests, over):
        for data in requests:
            request = lstm_pb2.StreamStepsRequest.FromString(data)
            asked.append(request)
            if request.WhichOneof("message") == "open":
                yield opened(2)
            else:
                other = lstm_pb2.StreamCheckpoint(number=1, state=state_of(2, layers=2))
                yield Response(checkpoint=other)

    server.stream = talk
    with pytest.raises(InvalidResponse, match="state has other layers than the one before it"):
        Both(kind, server.address).converse([("checkpoint",)], state=SENT)

    assert asked[0].open.model_digest == "d"


def test_a_journal_of_a_server_without_states_is_bounded(server, client):
    """A server that refuses the checkpoint that the client needs is not asked for ever."""

    def talk(requests, over):
        yield opened()
        for data in requests:
            request = lstm_pb2.StreamStepsRequest.FromString(data)
            match request.WhichOneof("message"):
                case "input":
                    yield outputs(request.input.number, 1)
                case "checkpoint":
                    yield Response(
                        rejected=lstm_pb2.StreamRejected(number=request.checkpoint.number, code=3, text="no")
                    )

    server.stream = talk
    with pytest.raises(InvalidResponse, match="got rejected for message"):
        client.converse([("step", np.zeros((1, 300_000)))] * 10)


def test_replayed_answers_do_not_hold_a_stream_for_ever(server, client):
    """What was delivered before is not an answer to who waits: `patience` ends it."""
    calls = []

    def talk(requests, over):
        calls.append(1)
        yield opened()
        number = 0
        for data in requests:
            request = lstm_pb2.StreamStepsRequest.FromString(data)
            if request.WhichOneof("message") == "input":
                number += 1
                if len(calls) > 1:
                    over.wait(0.3)
                elif number > 30:
                    return
                yield outputs(request.input.number, number)

    server.stream = talk
    began = time.monotonic()
    with pytest.raises(lstmserve.LstmServeError):
        client.converse([("step", [0.5])] * 31, timeout=0.5, reconnect_timeout=1)
    assert time.monotonic() - began < 8  # 30 answers at 0.3 seconds would be 9


def test_a_stream_that_was_to_give_the_same_bytes_ends_for_good(server, client):
    """A server of other numerics is not gone on with, neither by asking once more nor if it never says which it has."""
    calls = []

    def talk(requests, over):
        calls.append(1)
        if len(calls) == 1:
            yield opened()
            yield outputs(1, 5)
            return
        yield opened(fingerprint="other")
        yield outputs(2, 6)
        over.wait()

    server.stream = talk
    with pytest.raises(lstmserve.NumericsChanged):
        client.converse([("step", [0.5]), ("step", [0.5])], strict=True)


def test_a_compressed_answer_is_not_unfolded(server):
    """Servers of ours do not compress, and half a megabyte could become gigabytes."""
    server.unary = step_response().SerializeToString() + bytes(50 << 20)
    server.compression = grpc.Compression.Gzip
    with Client(server.address, timeout=20) as client, pytest.raises(lstmserve.LstmServeError):
        client.step(X)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"timeout": 0}, "a timeout of 0 seconds"),
        ({"timeout": float("nan")}, "a timeout of nan seconds"),
        ({"reconnect_timeout": float("nan")}, "a reconnect_timeout of nan seconds"),
        ({"reconnect_timeout": -1}, "a reconnect_timeout of -1 seconds"),
        ({"rows": 0}, "a stream of 0 rows"),
        ({"rows": -1}, "a stream of -1 rows"),
    ],
)
def test_arguments_of_a_stream_that_make_no_sense_are_refused(server, client, options, text):
    """Before anything is asked of a server."""
    with pytest.raises(ValueError, match=text):
        client.converse([], **options)


def test_closing_a_client_closes_its_streams(server):
    """And leaves no thread of theirs."""

    def talk(requests, over):
        yield opened()
        over.wait()

    server.stream = talk
    client = Client(server.address)
    stream = client.stream()
    client.close()
    with pytest.raises(lstmserve.Cancelled):
        stream.step([0.5])
    del stream
    deadline = time.monotonic() + 20
    while any("lstmserve" in thread.name or "consume" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


async def test_a_stream_that_is_cancelled_while_it_opens_leaves_no_task(server):
    """Anyone who waits no longer leaves nothing after that sends."""

    def talk(requests, over):
        """Answers nothing at all."""
        over.wait()
        return iter(())

    server.stream = talk
    async with AsyncClient(server.address) as client:
        before = asyncio.all_tasks()
        stream = client.stream()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.__aenter__(), 0.2)
        left = [task for task in asyncio.all_tasks() - before if "_write" in repr(task)]
        assert left == []


def test_a_stream_waits_for_as_long_as_answers_come(server, client):
    """Each answer gives the next one its time: together they may take longer than the timeout."""

    def talk(requests, over):
        yield opened()
        for request in requests:
            if request.WhichOneof("message") == "input":
                over.wait(0.3)
                yield outputs(request.input.number, request.input.number)

    server.stream = lambda requests, over: talk(
        (lstm_pb2.StreamStepsRequest.FromString(data) for data in requests), over
    )
    answers = client.converse([("step", [0.5])] * 5, timeout=1, reconnect_timeout=1)

    assert [float(answer[0, 0]) for answer in answers] == [1, 2, 3, 4, 5]


def test_a_stream_takes_in_no_more_than_a_few_megabytes(server):
    """Who sends what no one asked for is held back by gRPC's flow control, though no one reads at the moment."""
    sent, large = [], outputs(1, *np.zeros(1 << 18))

    def talk(requests, over):
        yield opened()
        for _ in range(100):
            yield large
            sent.append(1)
        over.wait()

    server.stream = talk
    with Client(server.address) as client, client.stream() as stream:
        last = None
        while last != len(sent):  # until it stands still
            last = len(sent)
            threading.Event().wait(0.5)

        assert 2 <= len(sent) < 40  # of 1 MiB each; gRPC itself holds some
        assert stream.reconnects == 0


def test_a_closed_stream_leaves_no_thread(server):
    """Even where its reader waited for room."""
    large = outputs(1, *np.zeros(1 << 18))

    def talk(requests, over):
        yield opened()
        while not over.is_set():
            yield large

    server.stream = talk
    with Client(server.address) as client, contextlib.closing(client.stream()):
        pass
    deadline = time.monotonic() + 20
    while any(thread.name == "lstmserve-stream" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        gc.collect()
        threading.Event().wait(0.02)


def test_a_text_of_a_server_does_not_steer_the_terminal():
    """The text of an error is made printable, whatever comes."""
    error = lstmserve.errors.from_status(
        grpc.StatusCode.INTERNAL, "\x1b]0;title\x07 \u202e" + "x" * 5000, (("grpc-retry-pushback-ms", "9" * 400),)
    )

    assert str(error).startswith("\\x1b]0;title\\x07 \\u202exxx")
    assert len(str(error)) < 2100
    assert error.retry_after is None


def answering(requests, over):
    """Answers every message of a stream at once."""
    yield opened()
    for data in requests:
        request = lstm_pb2.StreamStepsRequest.FromString(data)
        match request.WhichOneof("message"):
            case "input":
                yield outputs(request.input.number, request.input.number)
            case "checkpoint":
                yield Response(
                    checkpoint=lstm_pb2.StreamCheckpoint(number=request.checkpoint.number, state=state_of(1))
                )


@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_no_more_inputs_are_read_than_may_be_in_flight(server, kind, in_flight):
    """Of a series that never ends, as many as are sent ahead of the answers, and one more with each answer that is taken."""
    server.stream = answering
    read = []

    def series():
        while True:
            read.append(1)
            yield [0.5]

    def sync():
        with Client(server.address) as client, client.stream() as stream:
            return [
                (float(output[0, 0]), len(read))
                for output, _ in zip(stream.steps(series(), in_flight), range(4), strict=False)
            ]

    async def with_asyncio():
        """The first four outputs, and how many inputs had been read when each came."""
        async with AsyncClient(server.address) as client, client.stream() as stream:
            taken = []
            async for output in stream.steps(series(), in_flight):
                taken.append((float(output[0, 0]), len(read)))
                if len(taken) == 4:
                    break
            return taken

    taken = sync() if kind == "sync" else asyncio.run(with_asyncio())
    assert taken == [(number, number + in_flight - 1) for number in (1, 2, 3, 4)]


async def test_a_task_that_is_cancelled_is_not_a_server_that_is_lost(server):
    """Anyone who cancels it gets CancelledError, and the stream is not opened again for it."""
    calls, asked = [], threading.Event()

    def talk(requests, over):
        """Opens the stream, and answers no message."""
        calls.append(1)
        yield opened()
        next(iter(requests))
        asked.set()
        over.wait()

    server.stream = talk
    async with AsyncClient(server.address) as client, client.stream(timeout=20, reconnect_timeout=20) as stream:
        waiting = asyncio.create_task(stream.step([0.5]))
        await asyncio.to_thread(asked.wait, 20)  # the message is with the server, so the caller waits for its answer
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stream.reconnects == 0
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
def test_a_server_that_ends_a_stream_well_is_gone_on_with(server, kind):
    """A stream that ends with OK before all is answered continues with another call, whichever client it is of."""
    calls = []

    def talk(requests, over):
        calls.append(1)
        if len(calls) == 1:
            yield opened()
            next(iter(requests))
            return
        yield from answering(requests, over)

    server.stream = talk
    assert [float(output[0, 0]) for output in Both(kind, server.address).converse([("step", [0.5])] * 2)] == [1, 2]
    assert len(calls) == 2


def test_outputs_that_were_not_taken_stand_before_what_comes_next(server):
    """A stream whose series was left in the middle says how to continue."""
    server.stream = answering
    with Client(server.address) as client, client.stream() as stream:
        for _ in stream.steps([[0.5]] * 9, 4):
            break
        with pytest.raises(RuntimeError, match="3 outputs of steps"):
            stream.step([0.5])
        assert [float(output[0, 0]) for output in stream.steps([])] == [2, 3, 4]
        assert float(stream.step([0.5])[0, 0]) == 5
