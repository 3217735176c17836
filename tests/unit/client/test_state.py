"""The state in a caller's hands: zeros, rows, stacks, files."""

from __future__ import annotations

import numpy as np
import pytest

from lstmserve import LayerState, State
from lstmserve.v1 import lstm_pb2
from tests.support.builders import numbers

MODEL = lstm_pb2.Model(
    digest="abc",
    dtype=lstm_pb2.DATA_TYPE_FLOAT64,
    state_layout=[
        lstm_pb2.LayerStateLayout(layer="first", units=3),
        lstm_pb2.LayerStateLayout(layer="second", units=2),
    ],
)


def state_of(batch, seed=0, steps=True):
    """Returns a state of two layers in which all numbers differ."""
    return State(
        layers=(
            LayerState(numbers(batch, 3, seed=seed), numbers(batch, 3, seed=seed + 1), "first"),
            LayerState(numbers(batch, 2, seed=seed + 2), numbers(batch, 2, seed=seed + 3), "second"),
        ),
        model_digest="abc",
        numerics_fingerprint="fp",
        steps_seen=np.arange(batch) + 10 * seed if steps else None,
    )


def assert_same(expected, got):
    """Compares two states, to the last bit."""
    assert (expected.model_digest, expected.numerics_fingerprint) == (got.model_digest, got.numerics_fingerprint)
    assert [part.layer for part in expected.layers] == [part.layer for part in got.layers]
    for one, other in zip(expected.layers, got.layers, strict=True):
        assert (one.h.tobytes(), one.c.tobytes()) == (other.h.tobytes(), other.c.tobytes())
        assert one.h.shape == other.h.shape
    if expected.steps_seen is None:
        assert got.steps_seen is None
    else:
        np.testing.assert_array_equal(expected.steps_seen, got.steps_seen)


def test_zeros_have_the_layout_and_type_of_the_model():
    """The state of new sequences follows the description of the model."""
    zeros = State.zeros(MODEL, batch=4)

    assert [((4, 3), np.float64), ((4, 2), np.float64)] == [(part.h.shape, part.c.dtype) for part in zeros.layers]
    assert (zeros.model_digest, zeros.batch, zeros.steps_seen.tolist()) == ("abc", 4, [0, 0, 0, 0])


def test_a_message_comes_back_as_it_was():
    """A state goes through its message to the last bit, with steps or without."""
    assert_same(state_of(3), State.from_message(state_of(3).to_message()))
    assert_same(state_of(2, steps=False), State.from_message(state_of(2, steps=False).to_message()))


def test_a_file_comes_back_as_it_was(tmp_path):
    """A state goes through a file to the last bit, under exactly the name given."""
    path = tmp_path / "sequence.state"
    state_of(3).save(path)

    assert_same(state_of(3), State.load(path))
    assert [file.name for file in tmp_path.iterdir()] == ["sequence.state"]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_state_is_refused(tmp_path, content):
    """Something else than a saved state is refused with the file's name, and no pickle is ever loaded."""
    path = tmp_path / "other"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="other"):
        State.load(path)


def test_a_save_that_fails_leaves_the_old_state(tmp_path, monkeypatch):
    """Whatever happens while a state is written, its file holds the old one or the new one."""
    state_of(2).save(tmp_path / "s")
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        state_of(3).save(tmp_path / "s")

    assert_same(state_of(2), State.load(tmp_path / "s"))


def test_states_are_compared_as_objects():
    """A state can be compared and put into a set, as the object that it is."""
    one = state_of(2)

    assert one == one  # noqa: PLR0124 - that is the question
    assert {one}
    assert one != state_of(2)


def test_an_npz_of_something_else_is_refused(tmp_path):
    """An .npz of other arrays is not a state."""
    np.savez(tmp_path / "other.npz", x=np.zeros(3))

    with pytest.raises(ValueError, match=r"other\.npz is not a state that State\.save wrote"):
        State.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, [1]), (-1, [3]), (slice(1, 3), [1, 2]), ([2, 0], [2, 0]), (np.array([True, False, False, True]), [0, 3])],
)
def test_rows_are_taken_by_number_slice_list_and_mask(rows, expected):
    """Indexing gives the state of those rows, a single one as a batch of one."""
    part = state_of(4)[rows]

    assert len(expected) == part.batch
    np.testing.assert_array_equal(state_of(4).layers[1].c[expected], part.layers[1].c)
    np.testing.assert_array_equal(state_of(4).steps_seen[expected], part.steps_seen)


def test_a_row_beyond_the_end_is_named():
    """A row that is not there is refused."""
    with pytest.raises(IndexError, match="row 4 of a state of 4 rows"):
        state_of(4)[4]


def test_stacking_rows_undoes_taking_them():
    """The rows of a state, stacked again, are the state."""
    assert_same(state_of(3), State.stack([state_of(3)[0], state_of(3)[1:]]))


def test_stacking_keeps_only_what_all_agree_on():
    """States of different numerics have no common fingerprint, and unknown steps stay unknown."""
    other = State(state_of(1).layers, "abc", "other", None)
    stacked = State.stack([state_of(2), other])

    assert (stacked.numerics_fingerprint, stacked.steps_seen) == ("", None)


def test_states_of_different_models_are_not_stacked():
    """Stacking states of two models is refused, naming both."""
    other = State(state_of(1).layers[:1], "xyz", "fp", None)

    with pytest.raises(ValueError, match=r"^states of different models cannot be stacked: digest 'abc' with layers"):
        State.stack([state_of(2), other])
    with pytest.raises(ValueError, match="no states to stack"):
        State.stack([])
