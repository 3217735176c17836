"""What a call is taken to cost before it is computed: enough to keep long ones out of the event loop."""

from __future__ import annotations

import dataclasses

import pytest

from lstmserve_server.model.cost import CostModel
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.spec import InputSpec, LayerSpec
from lstmserve_server.runtime import selftest
from lstmserve_server.runtime.scheduler import MAX_INLINE_COST
from tests.support.builders import chain, dense_layer, lstm_layer


def nested(steps):
    """Returns a model whose time-steps each hold a sequence of so many, which an LSTM of its own reads."""
    within = lstm_layer(3, 4, name="within")
    each = LayerSpec("each", "TimeDistributed", {"sequences": True}, {}, ((None, 4),), parts=(within,))
    described = chain(each, lstm_layer(4, 5), dense_layer(5, 2))
    shape = (None, steps, 3)
    source = dataclasses.replace(described.layers[0], output_shapes=(shape,))
    return dataclasses.replace(
        described, layers=(source, *described.layers[1:]), inputs=(InputSpec("input", shape, 0),)
    )


def cost(description, rows=1, steps=1):
    """Returns what a call is taken to cost."""
    return CostModel(description, step_by_step=True).cost(rows, steps)


def test_cost_grows_with_rows_and_steps():
    """A call of more rows costs more, and one of twice the steps twice as much."""
    plain = chain(lstm_layer(3, 4), features=3)

    assert cost(plain) < cost(plain, rows=64) < 64 * cost(plain)
    assert 2 * cost(plain, steps=7) == cost(plain, steps=14)


@pytest.mark.parametrize("steps", [500, None])
def test_a_sequence_within_a_time_step_counts(steps):
    """A step that holds a long sequence, or one of any length, is not computed in the event loop."""
    assert cost(nested(steps)) > MAX_INLINE_COST > cost(nested(2))
    assert cost(nested(500)) == pytest.approx(250 * cost(nested(2)), rel=0.5)


def test_an_lstm_in_each_direction_counts():
    """Two directions are two LSTMs that are computed one after the other."""
    forth, back = (lstm_layer(3, 4, name=name) for name in ("forward", "backward"))
    both = LayerSpec("both", "Bidirectional", {}, {}, ((8,),), parts=(forth, back))

    assert 2 * cost(chain(lstm_layer(3, 4), features=3)) == cost(dataclasses.replace(nested(2), layers=(both,)))


def test_the_self_test_of_long_steps_has_fewer_of_them(monkeypatch):
    """The self-test asks such a model for one time-step rather than for sixteen, which would take sixteen times as long."""
    asked = []
    made = RecurrentModel(nested(3000))
    monkeypatch.setattr(selftest, "_fingerprint", lambda _, probe: asked.append(probe[0].shape))

    selftest.run(made)

    assert asked == [(3, 1, 3000, 3)]
