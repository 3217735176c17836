"""The protocol: what each message does, and what ends a stream."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from lstmserve import Client, State, calls, tensors
from lstmserve.v1 import lstm_pb2
from lstmserve.v1.lstm_pb2 import StepInput, StreamStepsRequest
from tests.support.streams import PATIENCE, Raw, X, bytes_of, checkpoint, opening, reset, steps


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
    ([opening(), opening()], "INVALID_ARGUMENT", "message: got a second `open` message, expected"),
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
