"""The straight way: the same bytes as the graph, for every model that has one."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from lstmserve_server.core.errors import WrongForModel
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.recording import Recording
from lstmserve_server.model.spec import LayerSpec
from tests.support.builders import chain, dense_layer, lstm_layer, numbers
from tests.unit.model.test_model import MASKING, bytes_of, strided

LSTM = lstm_layer(3, 5, name="first", return_sequences=True)
EMBEDDING = LayerSpec("words", "Embedding", {"mask_zero": False}, {"embeddings": numbers(7, 3)}, ((None, 3),))
NOTHING = LayerSpec("drop", "Dropout", {}, {}, ((None, 5),))
STRAIGHT = [
    chain(lstm_layer(3, 5), dense_layer(5, 2), features=3),
    chain(LSTM, lstm_layer(5, 4, name="second"), dense_layer(4, 2, inner="softmax"), features=3),
    chain(dense_layer(3, 3, sequence=True), LSTM, NOTHING, dense_layer(5, 2, name="head", sequence=True), features=3),
    chain(EMBEDDING, LSTM, vocabulary=7),
]


def inputs_of(description, batch, time):
    """Returns an input of a model."""
    if description.inputs[0].vocabulary is None:
        return numbers(batch, time, 3)
    return np.random.default_rng(0).integers(0, 7, (batch, time, 1)).astype(np.float32)


@pytest.mark.parametrize("numerics", list(Numerics))
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("description", STRAIGHT)
def test_it_gives_the_bytes_of_the_graph(description, batch, numerics):
    """Forward, whole and of the last step alone, and Step have the bytes of a call that is traced, which takes the graph."""
    made, x = RecurrentModel(description, numerics), inputs_of(description, batch, 6)
    state, lengths = made.zero_state(batch), np.arange(6, 6 - batch, -1)

    for every in (False, True):
        straight = made.forward((x,), state, lengths, all_outputs=every)
        graph = made.forward((x,), state, lengths, all_outputs=every, recording=Recording())
        assert bytes_of(graph) == bytes_of(straight)
        assert graph.steps.tolist() == straight.steps.tolist()
    first = np.ascontiguousarray(x[:, 0])
    assert bytes_of(made.step(first, straight.state, recording=Recording())) == bytes_of(
        made.step(first, straight.state)
    )


def test_only_models_without_masks_and_windows_have_one():
    """A layer that masks, or that remembers a window, is reached by the graph alone."""
    for layer in (MASKING, strided(3, 1, 1, "causal")):
        assert RecurrentModel(chain(layer, LSTM, features=3))._network.straight is None
    assert all(RecurrentModel(description)._network.straight is not None for description in STRAIGHT)


def test_what_is_not_finite_is_refused_as_by_the_graph():
    """The refusal names the same row and layer."""
    made, x = RecurrentModel(chain(lstm_layer(3, 4, inner="exponential"), features=3)), numbers(3, 3)
    x[2] = -500

    refusals = []
    for recording in (None, Recording()):
        with pytest.raises(WrongForModel) as refused:
            made.step(x, made.zero_state(3), recording=recording)
        refusals.append(str(refused.value))

    assert refusals[0] == refusals[1]
    assert "row 2" in refusals[0]


def test_answers_do_not_change_with_later_steps_and_other_threads():
    """What was answered stays as it was, though memory is used again; and threads that step at once do not disturb each other."""
    made, wrong = RecurrentModel(STRAIGHT[0]), []

    def answer(row):
        return made.step(numbers(1, 3, seed=row), made.zero_state(1))

    expected = [answer(row) for row in range(4)]
    kept = [bytes_of(each) for each in expected]

    def again(row):
        wrong.extend(row for _ in range(300) if bytes_of(answer(row)) != kept[row])

    threads = [threading.Thread(target=again, args=(row,)) for row in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
    assert kept == [bytes_of(each) for each in expected]
