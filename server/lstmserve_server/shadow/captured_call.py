"""A finished call with everything that flowed through the layers: sent to the reference process, and kept in bundles.

It is serialized as an .npz archive without pickles: arrays, and one JSON text that describes them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from lstmserve import archives
from lstmserve_server.model.layers.recurrent import LSTM
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.model import RecurrentModel, StepResult
from lstmserve_server.model.recording import HasArray, Recording, Steps
from lstmserve_server.model.types import Array
from lstmserve_server.runtime.calls import StepCall

_ABOUT: Final = "about"  # the name of the text in the archive


class Value(NamedTuple):
    """A value that flowed between two layers."""

    array: Array  # (batch, time, ...) or (batch, ...)
    mask: Array | None  # (batch, time), False at the steps that are passed over; None where there is none
    ready: Array | None  # False where there is nothing to say yet; None where there is


class LSTMSteps(NamedTuple):
    """The time-steps of an LSTM, in the order of processing."""

    mask: Array | None  # (batch, time): False at the steps that were passed over
    h: Array  # (batch, time + 1, units): before the first step, and after each
    c: Array  # (batch, time + 1, units)


@dataclass(frozen=True, slots=True)
class Piece:
    """One chunk of the call: some rows, for some time steps."""

    rows: Array  # (batch,): their numbers
    start: int
    ends: Array  # (batch,): whether the row's own last step is in it
    values: list[Value]
    steps: dict[int, list[LSTMSteps]]


class CapturedRequest(NamedTuple):
    """The caller's inputs, as `model.RecurrentModel` takes them."""

    inputs: list[Array]
    state: list[list[Array]]  # of each layer that carries one: h and c, or window and steps
    lengths: Array | None
    steps_seen: Array | None


@dataclass(frozen=True, slots=True)
class CapturedCall:
    """A finished call."""

    model: str
    digest: str
    method: str
    rows: int
    time: int
    every: bool
    """Whether the outputs are of every time-step."""

    request: CapturedRequest
    """What was asked."""

    outputs: list[Array]
    """What was answered."""

    pieces: list[Piece] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """The number of row-steps of LSTM layers, without masked ones."""
        return sum(
            part.h.shape[0] * (part.h.shape[1] - 1) if part.mask is None else int(part.mask.sum())
            for part in self._parts()
        )

    def _parts(self) -> Iterator[LSTMSteps]:
        for piece in self.pieces:
            for parts in piece.steps.values():
                yield from parts

    def to_bytes(self, more: Mapping[str, Any] | None = None, arrays: Mapping[str, Array] | None = None) -> bytes:
        """Returns it as an archive, with further JSON data and named arrays."""
        writing = _Writing()
        about = {
            "model": self.model,
            "digest": self.digest,
            "method": self.method,
            "rows": self.rows,
            "time": self.time,
            "every": self.every,
            "asked": {
                "inputs": [writing.put(array) for array in self.request.inputs],
                "state": [[writing.put(array) for array in part] for part in self.request.state],
                "lengths": writing.put(self.request.lengths),
                "steps_seen": writing.put(self.request.steps_seen),
            },
            "outputs": [writing.put(array) for array in self.outputs],
            "pieces": [
                {
                    "rows": writing.put(piece.rows),
                    "start": piece.start,
                    "ends": writing.put(piece.ends),
                    "values": [[writing.put(array) for array in value] for value in piece.values],
                    "steps": {
                        place: [[writing.put(array) for array in part] for part in parts]
                        for place, parts in piece.steps.items()
                    },
                }
                for piece in self.pieces
            ],
            **(more or {}),
        }
        writing.arrays[_ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        file = io.BytesIO()
        np.savez(file, **writing.arrays, **(arrays or {}))  # type: ignore[arg-type]  # of the stubs, which see options
        return file.getvalue()


class _Writing:
    """Collects arrays under names, each once."""

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[int, str] = {}

    def put(self, array: Array | None) -> str | None:
        if array is None:
            return None
        if id(array) not in self._names:
            self._names[id(array)] = name = f"a{len(self.arrays)}"
            self.arrays[name] = array
        return self._names[id(array)]


def load(data: bytes) -> tuple[CapturedCall, dict[str, Any], dict[str, Array]]:
    """Returns the captured call in an archive, with its JSON data and all arrays.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    arrays = archives.read(data, max_bytes=len(data))
    about = json.loads(arrays[_ABOUT].tobytes())

    def got(name: str | None) -> Array | None:
        return None if name is None else arrays[name]

    pieces = [
        Piece(
            arrays[piece["rows"]],
            int(piece["start"]),
            arrays[piece["ends"]],
            [Value(arrays[array], got(mask), got(ready)) for array, mask, ready in piece["values"]],
            {
                int(place): [LSTMSteps(got(mask), arrays[h], arrays[c]) for mask, h, c in parts]
                for place, parts in piece["steps"].items()
            },
        )
        for piece in about["pieces"]
    ]
    sent = about["asked"]
    request = CapturedRequest(
        [arrays[name] for name in sent["inputs"]],
        [[arrays[name] for name in part] for part in sent["state"]],
        got(sent["lengths"]),
        got(sent["steps_seen"]),
    )
    case = CapturedCall(
        model=str(about["model"]),
        digest=str(about["digest"]),
        method=str(about["method"]),
        rows=int(about["rows"]),
        time=int(about["time"]),
        every=bool(about["every"]),
        request=request,
        outputs=[arrays[name] for name in about["outputs"]],
        pieces=pieces,
    )
    return case, about, arrays


def capture(call: StepCall, answer: StepResult, recording: Recording, method: str) -> CapturedCall:
    """Captures a computed call.

    The request and the response count, not what the layers report: h and c before the
    first step are those of the call, and after a row's last step those of the answer.
    """
    model = call.served.model
    every = bool(getattr(call, "all_outputs", False))
    last = np.zeros(len(call.x), np.int64)
    for rectangle in recording.rectangles:
        last[rectangle.rows] = np.maximum(last[rectangle.rows], rectangle.start)
    stateful_layers = _carried(model, call, answer)
    pieces = []
    for rectangle in recording.rectangles:
        ends = last[rectangle.rows] == rectangle.start
        steps = {
            place: [
                _joined(part, rectangle.rows, rectangle.start, ends, stateful_layers.get((place, number)))
                for number, part in enumerate(parts)
            ]
            for place, parts in rectangle.steps.items()
        }
        pieces.append(Piece(rectangle.rows, rectangle.start, ends, list(map(_value, rectangle.values)), steps))
    name, digest = call.served.name, call.served.digest
    lengths = getattr(call, "lengths", None)
    request = CapturedRequest(list(call.inputs), [list(part) for part in call.state], lengths, call.steps_seen)
    return CapturedCall(name, digest, method, len(call.x), call.time, every, request, list(answer.outputs), pieces)


def _value(values: HasArray) -> Value:
    return Value(values.array, values.mask, values.ready)


_Carried = tuple[LSTMState, LSTMState]


def _carried(model: RecurrentModel, call: StepCall, answer: StepResult) -> Mapping[tuple[int, int], _Carried]:
    """Returns h and c before and after the call, by layer index and LSTM number."""
    return {
        place: (LSTMState(*call.state[i]), LSTMState(*answer.state[i]))
        for i, (place, layer) in enumerate(zip(model.stateful_indices, model.stateful_layers, strict=True))
        if isinstance(layer, LSTM)
    }


def _joined(part: Steps, rows: Array, start: int, ends: Array, stateful_layers: _Carried | None) -> LSTMSteps:
    """Returns the steps, with the state before them and the values of request and response at both ends."""
    arrays = []
    for name, before, after in zip(("h", "c"), part.before, (part.h, part.c), strict=True):
        array = np.concatenate([before[:, None], after], axis=1)
        if stateful_layers is not None:
            sent, answered = (getattr(state, name) for state in stateful_layers)
            if start == 0:
                array[:, 0] = sent[rows]
            array[ends, _last_steps(part.mask, len(rows), array.shape[1] - 1)[ends]] = answered[rows[ends]]
        arrays.append(array)
    return LSTMSteps(part.mask, *arrays)


def _last_steps(mask: Array | None, rows: int, time: int) -> Array:
    """Returns the last unmasked step of each row, counted from 1; the last step if all are masked."""
    if mask is None:
        return np.full(rows, time)
    last = time - np.argmax(mask[:, ::-1], axis=1)
    return np.where(mask.any(axis=1), last, time)
