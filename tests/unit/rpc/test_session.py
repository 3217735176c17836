"""The session of a stream, without a server: what each message does, and that nothing else does anything (promise P1)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lstmserve import State, tensors
from lstmserve.v1 import lstm_pb2
from lstmserve.v1.lstm_pb2 import StepInput, StreamCheckpointRequest, StreamOpen, StreamReset, StreamStepsRequest
from lstmserve_server.core.errors import InvalidRequest, LimitExceeded, NoSuchModel, WrongForModel
from lstmserve_server.rpc.codec.requests import Codec, RequestLimits
from lstmserve_server.rpc.streams.codec import StreamCodec
from lstmserve_server.rpc.streams.session import Compute, Session
from lstmserve_server.runtime.calls import ForwardCall
from tests.support.builders import lstm_layer, model, numbers, registry, served

SMALL = served("small")
MODEL = SMALL.model
LIMITS = RequestLimits(rows=8, steps=10, message_bytes=6000, sequence_bytes=4000)
CODEC = StreamCodec(Codec(registry(SMALL), LIMITS))


def ignored(_error):
    """Takes no note of what is refused."""


def answered(session, message):
    """Returns the response to a message, computed where it asks for it."""
    decision = session.receive(message)
    if not isinstance(decision, Compute):
        return decision
    call = decision.call
    if isinstance(call, ForwardCall):
        return session.computed(MODEL.forward(call.inputs, call.state, all_outputs=True, seen=call.seen))
    return session.computed(MODEL.step(call.x, call.state, call.seen))


def opened(**options):
    """Returns a session whose stream is open."""
    session = Session(CODEC, ignored)
    answered(session, StreamStepsRequest(open=StreamOpen(**options)))
    return session


def steps(x, number=1):
    """Returns a message of time-steps."""
    return StreamStepsRequest(input=StepInput(number=number, x=tensors.encode(x)))


def reset(rows, state=None, number=1):
    """Returns a message that begins rows again."""
    return StreamStepsRequest(reset=StreamReset(number=number, rows=rows, state=state))


def checkpoint(number=1):
    """Returns a message that asks for the state."""
    return StreamStepsRequest(checkpoint=StreamCheckpointRequest(number=number))


def test_the_first_response_says_what_serves():
    """Opening a stream tells rows, digest and numerics."""
    response = answered(Session(CODEC, ignored), StreamStepsRequest(open=StreamOpen(row_count=3)))

    assert (3, SMALL.digest, SMALL.fingerprint) == (
        response.opened.row_count,
        response.opened.model_digest,
        response.opened.numerics_fingerprint,
    )


def test_steps_alone_and_several_at_once_give_the_bytes_of_the_whole():
    """One step per message and several give what Forward gives, and the state of it."""
    x = numbers(2, 7, 3)
    whole = MODEL.forward((x,), MODEL.zero_state(2), all_outputs=True)
    session = opened(row_count=2)

    parts = [
        answered(session, steps(x[:, 0])).output.output,
        answered(session, steps(x[:, 1:5])).output.output,
        answered(session, steps(x[:, 5])).output.output,
        answered(session, steps(x[:, 6:7])).output.output,
    ]
    outputs = [tensors.decode(part).reshape(2, -1, 2) for part in parts]
    state = State.from_message(answered(session, checkpoint()).checkpoint.state)

    assert whole.output.tobytes() == np.concatenate(outputs, axis=1).tobytes()
    for expected, got in zip(whole.state, state.layers, strict=True):
        assert (expected.h.tobytes(), expected.c.tobytes()) == (got.h.tobytes(), got.c.tobytes())
    assert state.steps_seen.tolist() == [7, 7]


def test_a_checkpoint_comes_when_it_is_due():
    """The state comes with the outputs after every so many time-steps, counted over messages, or on asking."""
    session, x = opened(row_count=1, checkpoint_interval_steps=3), numbers(1, 3)

    due = [answered(session, steps(x, number)).output.HasField("state") for number in range(1, 8)]
    at_once = answered(session, steps(np.repeat(x[:, None], 4, axis=1))).output.HasField("state")

    assert due == [False, False, True, False, False, True, False]
    assert at_once


def test_other_rows_go_on_when_one_begins_anew():
    """A reset changes the rows that it names, to zeros or to a state, and no other, and is answered with the state."""
    session, x = opened(row_count=3), numbers(3, 3)
    answered(session, steps(x))
    before = State.from_message(answered(session, checkpoint()).checkpoint.state)
    given = before[0]

    after = State.from_message(
        answered(session, reset([2, 1], State.stack([given, given]).to_message())).checkpoint.state
    )
    zeroed = State.from_message(answered(session, reset([0])).checkpoint.state)

    for part, old, new in zip(after.layers, before.layers, zeroed.layers, strict=True):
        assert part.h[0].tobytes() == old.h[0].tobytes() == part.h[1].tobytes() == part.h[2].tobytes()
        assert (new.h[1].tobytes(), new.h[0].any()) == (part.h[1].tobytes(), False)
    assert zeroed.steps_seen.tolist() == [0, 1, 1]


BROKEN = [
    ([steps(numbers(1, 3))], InvalidRequest, "message: got input first, expected a message that opens the stream first, and once"),
    ([StreamStepsRequest()], InvalidRequest, "message: got nothing first, expected"),
    ([StreamStepsRequest(open=StreamOpen())] * 2, InvalidRequest, "message: got a second `open` message, expected"),
    ([StreamStepsRequest(open=StreamOpen(model="none"))], NoSuchModel, "model: no model 'none' is served"),
    ([StreamStepsRequest(open=StreamOpen(row_count=9))], LimitExceeded, "row_count: got 9 rows, expected at most 8 (--max-rows)"),
    ([StreamStepsRequest(open=StreamOpen(row_count=-1))], InvalidRequest, "row_count: got -1 rows, expected at least 1"),
    ([StreamStepsRequest(open=StreamOpen(model_digest="x"))], WrongForModel, "model_digest: got 'x'; this server has"),
    ([StreamStepsRequest(open=StreamOpen(numerics_fingerprint="y"))], WrongForModel, "numerics_fingerprint: got 'y'; this"),
    ([StreamStepsRequest(open=StreamOpen(checkpoint_interval_steps=-1))], InvalidRequest, "checkpoint_interval_steps: got -1, expected 0 to"),
    ([StreamStepsRequest(open=StreamOpen(outputs=["none"]))], WrongForModel, "outputs[0]: got 'none'; the model has 'dense'"),
    ([StreamStepsRequest(open=StreamOpen(state=lstm_pb2.State(model_digest="z")))], WrongForModel, "state.model_digest: the state"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "kind", "text"), BROKEN)
def test_what_ends_a_stream(messages, kind, text):
    """A broken protocol, and what cannot be opened, ends the stream with a reason."""
    session = Session(CODEC, ignored)
    for message in messages[:-1]:
        answered(session, message)

    with pytest.raises(kind) as raised:
        session.receive(messages[-1])
    assert str(raised.value).startswith(text)


WRONG = [
    (steps(numbers(2, 3), 5), 5, 3, "x.shape: got 2 rows, expected 1, the number of rows of the stream"),
    (steps(numbers(1, 4), 6), 6, 9, "x.shape: got 4 features; the model has 3"),
    (steps(np.full((1, 3), np.nan), 7), 7, 3, "x: got nan at (0, 0), expected finite numbers"),
    (steps(numbers(1, 11, 3), 8), 8, 8, "x.shape: got 11 time-steps, expected at most 10 (--max-steps)"),
    (StreamStepsRequest(input=StepInput(number=9)), 9, 3, "x: got nothing, expected a tensor"),
    (reset([], number=10), 10, 3, "rows: got none, expected at least one"),
    (reset([0, 0], number=11), 11, 3, "rows: got a row twice, expected each at most once"),
    (reset([1], number=12), 12, 3, "rows[0]: got 1, expected 0 to 0"),
    (reset([0], lstm_pb2.State(model_digest="z"), 13), 13, 9, "state.model_digest: the state belongs to a model"),
    (StreamStepsRequest(), 0, 3, "message: got nothing, expected input, checkpoint or reset"),
]


@pytest.mark.parametrize(("message", "number", "code", "text"), WRONG)
def test_a_wrong_message_is_named_and_changes_nothing(message, number, code, text):
    """A message that is wrong is answered with its number, a code and a text, and the stream continues as if it had not come."""
    session, untouched, x = opened(row_count=1), opened(row_count=1), numbers(1, 3)
    for each in (session, untouched):
        answered(each, steps(x))

    rejected = answered(session, message).rejected

    assert (number, code) == (rejected.number, rejected.code)
    assert rejected.text.startswith(text)
    assert answered(untouched, steps(x, 99)) == answered(session, steps(x, 99))
    assert answered(untouched, checkpoint()) == answered(session, checkpoint())


def test_an_answer_that_is_not_finite_is_rejected_and_changes_nothing():
    """A step that leaves the range of the numbers is answered in the stream, and the state stays what it was."""
    steep = served("steep", model(lstm_layer(3, 4, inner="exponential"), features=3))
    session = Session(StreamCodec(Codec(registry(steep), LIMITS)), ignored)
    session.receive(StreamStepsRequest(open=StreamOpen()))
    decision = session.receive(steps(np.full((1, 3), -500), 4))

    with pytest.raises(WrongForModel) as raised:
        steep.model.step(decision.call.x, decision.call.state)
    response = session.failed(raised.value)

    assert (response.rejected.number, response.rejected.code) == (4, 9)
    assert not tensors.decode(answered(session, checkpoint()).checkpoint.state.layers[0].h).any()


def test_a_model_that_cannot_be_stepped_is_refused():
    """A stream on a model that looks ahead is refused with the layer that does."""
    late = served("late", model(lstm_layer(3, 4, name="late", go_backwards=True), features=3))

    with pytest.raises(WrongForModel, match="Step is not possible: layer 'late' has go_backwards"):
        Session(StreamCodec(Codec(registry(late), LIMITS)), ignored).receive(StreamStepsRequest(open=StreamOpen()))


def test_the_end_and_the_drain_give_the_state():
    """When all was sent, and when the server drains, the state is given; a stream that was never opened has none."""
    session = opened(row_count=1)
    answered(session, steps(numbers(1, 3), 7))
    expected = answered(session, checkpoint()).checkpoint.state

    assert (session.last().checkpoint.number, session.last().checkpoint.state) == (7, expected)
    assert (session.going_away().going_away.number, session.going_away().going_away.state) == (7, expected)
    assert (Session(CODEC, ignored).last(), Session(CODEC, ignored).going_away()) == (None, None)


class SessionMachine(RuleBasedStateMachine):
    """A session and a model of it: every row as the list of inputs that its state comes from."""

    def __init__(self):
        super().__init__()
        self.number, self.since = 0, 0
        self.random = np.random.default_rng(0)

    @initialize(rows=st.integers(1, 4), every=st.integers(0, 5))
    def open(self, rows, every):
        """Opens a stream of rows that have seen nothing."""
        self.every, self.session = every, Session(CODEC, ignored)
        self.histories = [np.zeros((0, 3), np.float32) for _ in range(rows)]
        answered(self.session, StreamStepsRequest(open=StreamOpen(row_count=rows, checkpoint_interval_steps=every)))
        self.saved = []

    def expected_state(self, row):
        """Returns what the whole history of a row leaves behind."""
        state = MODEL.zero_state(1)
        history = self.histories[row]
        return MODEL.forward((history[None],), state).state if len(history) else state

    def assert_state(self, message):
        """Checks a state against what the rows have seen, and returns it."""
        state = State.from_message(message)
        self.since = 0
        for row in range(len(self.histories)):
            for expected, got in zip(self.expected_state(row), state.layers, strict=True):
                assert (expected.h[0].tobytes(), expected.c[0].tobytes()) == (
                    got.h[row].tobytes(),
                    got.c[row].tobytes(),
                )
            assert len(self.histories[row]) == state.steps_seen[row]
        return state

    @rule(count=st.integers(1, 4), alone=st.booleans())
    def advance(self, count, alone):
        """Sends time-steps."""
        self.number += 1
        x = self.random.normal(size=(len(self.histories), count, 3)).astype(np.float32)
        message = steps(x[:, 0] if alone else x, self.number)
        x = x[:, :1] if alone else x
        outputs = answered(self.session, message).output
        self.histories = [np.concatenate([old, new]) for old, new in zip(self.histories, x, strict=True)]
        self.since += x.shape[1]
        output = tensors.decode(outputs.output).reshape(len(self.histories), -1, 2)
        for row, history in enumerate(self.histories):
            whole = MODEL.forward((history[None],), MODEL.zero_state(1), all_outputs=True).output[0]
            assert whole[-x.shape[1] :].tobytes() == output[row].tobytes()
        assert self.number == outputs.number
        assert (0 < self.every <= self.since) == outputs.HasField("state")
        if outputs.HasField("state"):
            self.assert_state(outputs.state)

    @rule()
    def ask(self):
        """Asks for the state."""
        self.number += 1
        response = answered(self.session, checkpoint(self.number)).checkpoint
        assert self.number == response.number
        self.saved.append((self.assert_state(response.state), [history.copy() for history in self.histories]))

    @rule(data=st.data())
    def begin_anew(self, data):
        """Sets rows to zeros."""
        self.number += 1
        rows = data.draw(st.lists(st.sampled_from(range(len(self.histories))), min_size=1, unique=True))
        for row in rows:
            self.histories[row] = np.zeros((0, 3), np.float32)
        self.assert_state(answered(self.session, reset(rows, number=self.number)).checkpoint.state)

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def take_over(self, data):
        """Sets a row to a state that was saved."""
        self.number += 1
        state, histories = data.draw(st.sampled_from(self.saved))
        source = data.draw(st.integers(0, len(histories) - 1))
        row = data.draw(st.integers(0, len(self.histories) - 1))
        self.histories[row] = histories[source]
        message = reset([row], state[source].to_message(), self.number)
        self.assert_state(answered(self.session, message).checkpoint.state)

    @rule(message=st.sampled_from([case[0] for case in WRONG if case[1] not in (5, 12)]))
    def send_nonsense(self, message):
        """Sends what is refused."""
        assert answered(self.session, message).WhichOneof("message") == "rejected"

    @invariant()
    def the_end_has_the_state(self):
        """The end of the stream may come at any time."""
        if hasattr(self, "session"):
            since = self.session._since_checkpoint
            self.session.last()
            self.session._since_checkpoint = since


SessionMachine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)
test_the_session_is_what_its_model_says = SessionMachine.TestCase
