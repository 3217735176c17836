"""A probe that every model runs through before it is served: does it keep its promises here, and what are its bytes?"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lstmserve_server.errors import ModelRefused, WrongForModel
from lstmserve_server.numerics import Numerics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lstmserve_server.model import Answer, RecurrentModel

    Array = NDArray[Any]

_ROWS: Final = 3
_TIME: Final = 16
_TIME_WHOLE: Final = 256  # for a model that reads sequences whole, which has windows that it must fill


def run(model: RecurrentModel) -> str:
    """Runs the probe and returns the numerics fingerprint: a hash of the mode and of every byte of the answer.

    Two servers on which it is the same computed the same bytes with the same weights.

    Raises:
        ModelRefused: in exact mode the answers to a whole sequence, to its steps and to its rows alone differ, or the
            model cannot compute even the probe.
    """
    x = _probe(model)
    try:
        whole = model.forward(x, model.zero_state(_ROWS))
        if model.numerics is Numerics.EXACT:
            _require_equal("the rows alone", whole, _row_by_row(model, x))
            if model.causal:
                _require_equal("the steps", whole, _step_by_step(model, x))
    except WrongForModel as error:
        message = f"the self-test failed: {error.text}"
        raise ModelRefused(message) from error
    return hashlib.sha256(model.numerics.value.encode() + _bytes(whole)).hexdigest()[:32]


def _probe(model: RecurrentModel) -> Array:
    """Returns numbers between -1 and 1 that look random and are the same everywhere: Knuth's multiplicative hash."""
    count = np.arange(_ROWS * _time(model) * model.features, dtype=np.uint32)
    numbers = (count * np.uint32(2654435761)).astype(np.float64) / 2**31 - 1
    probe = numbers.reshape(_ROWS, _time(model), model.features).astype(model.dtype)
    if model.description.vocabulary is not None:
        probe = np.floor((probe + 1) / 2 * (model.description.vocabulary - 1))
    return probe


def _time(model: RecurrentModel) -> int:
    """Returns how many time-steps the probe has: as many as the model wants, if it wants so many."""
    return _TIME if model.causal else model.description.input_shape[0] or _TIME_WHOLE


def _row_by_row(model: RecurrentModel, x: Array) -> Answer:
    rows = [model.forward(row[None], model.zero_state(1)) for row in x]
    return _joined(rows, rows[0])


def _step_by_step(model: RecurrentModel, x: Array) -> Answer:
    answer = model.step(np.ascontiguousarray(x[:, 0]), model.zero_state(_ROWS))
    seen = answer.steps > 0
    for t in range(1, _TIME):
        answer = model.step(np.ascontiguousarray(x[:, t]), answer.state, seen)
        seen |= answer.steps > 0
    return answer


def _joined(rows: list[Answer], like: Answer) -> Answer:
    states = tuple(
        type(part)(*(np.concatenate(arrays) for arrays in zip(*(row.state[i] for row in rows), strict=True)))
        for i, part in enumerate(like.state)
    )
    return type(like)(np.concatenate([row.output for row in rows]), states, np.concatenate([row.steps for row in rows]))


def _require_equal(what: str, whole: Answer, other: Answer) -> None:
    if _bytes(whole) != _bytes(other):
        message = (
            f"the self-test failed: {what} give other bytes than the whole. This machine's BLAS does not compute a row "
            "the same way each time; serve with --numerics fast, which promises a tolerance instead of bytes"
        )
        raise ModelRefused(message)


def _bytes(answer: Answer) -> bytes:
    arrays = [answer.output, *(array for part in answer.state for array in part)]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
