"""The replay log of a stream, without a server."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lstmserve
from lstmserve import channels, replay_log, tensors
from lstmserve.v1 import lstm_pb2
from lstmserve.v1.lstm_pb2 import StreamOpen
from tests.support.builders import (
    numbers,
)
from tests.support.streams import X

LITTLE = 400  # bytes of messages, of some 24 each: the log asks at the seventeenth


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
