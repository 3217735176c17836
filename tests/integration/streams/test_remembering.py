"""Streams of the client that have to remember much."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lstmserve import AsyncClient, replay_log
from tests.support.streams import X, bytes_of


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
