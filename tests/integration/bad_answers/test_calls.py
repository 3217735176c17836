"""Answers that do not fit the call: one error that names the server."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

import lstmserve
from lstmserve import Client, InvalidResponse, State, tensors
from lstmserve.v1 import lstm_pb2
from tests.support.scripted import NAN, OK, SENT, Both, Response, X, opened, output_of, state_of, step_response

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


def test_a_text_of_a_server_does_not_steer_the_terminal():
    """The text of an error is made printable, whatever comes."""
    error = lstmserve.errors.from_status(
        grpc.StatusCode.INTERNAL, "\x1b]0;title\x07 \u202e" + "x" * 5000, (("grpc-retry-pushback-ms", "9" * 400),)
    )

    assert str(error).startswith("\\x1b]0;title\\x07 \\u202exxx")
    assert len(str(error)) < 2100
    assert error.retry_after is None
