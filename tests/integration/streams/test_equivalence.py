"""One answer however a sequence is cut (promises P1 and P3)."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lstmserve import AsyncClient
from tests.support.streams import MANY, PATIENCE, X, bytes_of


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
