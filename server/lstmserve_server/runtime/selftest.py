"""Runs a probe through each model before it is served: checks its promises, and fingerprints its bytes."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from lstmserve_server.core.errors import UnsupportedModelError, WrongForModel
from lstmserve_server.model.graph import concat_states
from lstmserve_server.model.model import RecurrentModel, StepResult
from lstmserve_server.model.numerics import Engine, Numerics
from lstmserve_server.model.spec import InputSpec
from lstmserve_server.model.types import Array

_ROWS: Final = 3
_TIMES: Final = (16, 4, 1)  # time-steps of a probe, of a model that can be stepped
_TIMES_WHOLE: Final = (
    16,
    256,
    4,
    1,
)  # the same of one that is given sequences whole, and may have windows that must be filled
_SCALES: Final = (1.0, 1e-2, 1e-4)  # a probe may be too large for a model whose numbers grow from step to step
_LARGE: Final = (
    2_000_000  # weights; from here on such a probe would take longer than to load the model, and this is enough:
)
_ROWS_OF_LARGE: Final = 2
_TIMES_OF_LARGE: Final = (2, 1)
_MOST_COST: Final = 300_000_000
"""Of a probe (`CostModel.cost`): a tenth of a second. Time-steps that each hold a long sequence cost more than others."""


def run(model: RecurrentModel) -> str:
    """Runs the probe and returns the numerics fingerprint: a hash of mode, engine and every byte of the answer.

    Two servers with the same fingerprint computed the same bytes with the same weights.

    Raises:
        UnsupportedModelError: in exact mode the answers to a whole sequence, to its steps and to its rows alone differ, or the
            model cannot compute the probe.
    """
    failure: WrongForModel | None = None
    for probe in _probes(model):
        try:
            return _fingerprint(model, probe)
        except WrongForModel as error:  # such as an overflow; then the probe proves nothing
            failure = failure or error
    message = f"the self-test failed: {failure.text if failure else 'there is no probe'}"
    raise UnsupportedModelError(message) from failure


def _fingerprint(model: RecurrentModel, probe: tuple[Array, ...]) -> str:
    """Checks that every way to ask for a probe gives the same bytes, and returns their hash."""
    whole = model.forward(probe, model.zero_state(len(probe[0])))
    if model.numerics is Numerics.EXACT:
        _require_equal("the rows alone", whole, _row_by_row(model, probe))
        if model.causal:
            _require_equal("the steps", whole, _step_by_step(model, probe[0]))
    return hashlib.sha256(_mode(model).encode() + _bytes(whole)).hexdigest()[:32]


def _mode(model: RecurrentModel) -> str:
    """Returns what distinguishes two servers in addition to the bytes: the mode, and any engine other than NumPy."""
    others = [engine for engine in model.engine.split(", ") if not engine.startswith(Engine.NUMPY.value)]
    return " ".join([model.numerics.value, *others])


def _probes(model: RecurrentModel) -> Iterator[tuple[Array, ...]]:
    """Yields probes with ever fewer time steps and ever smaller numbers."""
    large = model.description.parameter_count > _LARGE
    rows = _ROWS_OF_LARGE if large else _ROWS
    times: tuple[int, ...] = _TIMES_WHOLE
    if model.causal:
        times = _TIMES_OF_LARGE if large else _TIMES
    times = tuple(time for time in times if model.work.cost(rows, time) <= _MOST_COST) or times[-1:]
    for scale, time in itertools.product(_SCALES, times):
        yield tuple(_probe(model, item, (rows, time), scale) for item in model.inputs)


def _probe(model: RecurrentModel, item: InputSpec, size: tuple[int, int], scale: float) -> Array:
    """Returns deterministic pseudo-random numbers between -1 and 1, identical on every machine (Knuth's multiplicative hash)."""
    rows, time = size
    times = (time if model.causal else item.shape[0] or time,) if item.sequence else ()
    shape = (rows, *times, *(length or 1 for length in item.features))
    count = np.arange(math.prod(shape), dtype=np.uint32)
    numbers = (count * np.uint32(2654435761)).astype(np.float64) / 2**31 - 1
    if item.vocabulary is not None:
        return np.floor((numbers.reshape(shape) + 1) / 2 * (item.vocabulary - 1)).astype(model.dtype)
    return (numbers.reshape(shape) * scale).astype(model.dtype)


def _row_by_row(model: RecurrentModel, probe: tuple[Array, ...]) -> StepResult:
    rows = [
        model.forward(tuple(array[row : row + 1] for array in probe), model.zero_state(1))
        for row in range(len(probe[0]))
    ]
    outputs = tuple(np.concatenate(arrays) for arrays in zip(*(row.outputs for row in rows), strict=True))
    return type(rows[0])(
        outputs, concat_states([row.state for row in rows]), np.concatenate([row.steps for row in rows])
    )


def _step_by_step(model: RecurrentModel, x: Array) -> StepResult:
    answer = model.step(np.ascontiguousarray(x[:, 0]), model.zero_state(len(x)))
    seen = answer.steps > 0
    for t in range(1, x.shape[1]):
        answer = model.step(np.ascontiguousarray(x[:, t]), answer.state, seen)
        seen |= answer.steps > 0
    return answer


def _require_equal(what: str, whole: StepResult, other: StepResult) -> None:
    if _bytes(whole) != _bytes(other):
        message = (
            f"the self-test failed: {what} give other bytes than the whole. This machine's BLAS does not compute a row "
            "the same way each time; serve with --numerics fast, which promises a tolerance instead of bytes"
        )
        raise UnsupportedModelError(message)


def _bytes(answer: StepResult) -> bytes:
    arrays = [*answer.outputs, *(array for part in answer.state for array in part)]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
