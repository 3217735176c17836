"""Checks a server's responses against the request: a server is trusted no more than a caller is.

What does not fit raises `InvalidResponseError`, which the clients turn into one error that names the server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from lstmserve import tensors
from lstmserve.state import State
from lstmserve.v1 import lstm_pb2

MAX_NAME: Final = 4096
"""Characters of the name of a layer, after those of the models that it is nested in."""

_LEAST_RANK: Final = 2  # rows and features
_TYPES: Final = (lstm_pb2.DATA_TYPE_FLOAT32, lstm_pb2.DATA_TYPE_FLOAT64)
_MOST_AXES: Final = 8  # of a window
_MOST_NUMBERS: Final = 1 << 25  # of one row's state: 128 MiB in float32

_Message = TypeVar("_Message", bound=Message)


class InvalidResponseError(ValueError):
    """A response does not fit the request; the text says what it is and what was expected."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Expectations on a response."""

    rows: int
    """Rows of the request."""

    state: State | None = None
    """The state that was sent; None where the sequences begin."""

    digest: str = ""
    """Digest of the weights that have to answer; "" where any may."""


def parsed(kind: type[_Message], data: bytes | None) -> _Message:
    """Returns the message in an answer.

    Raises:
        InvalidResponseError: there is none.
    """
    if data is None:  # how gRPC says that a call ended well without an answer
        raise InvalidResponseError("got no message, expected one")
    try:
        return kind.FromString(data)
    except DecodeError:
        message = f"got {len(data)} bytes that are not a valid {kind.DESCRIPTOR.full_name}"
        raise InvalidResponseError(message) from None


def output(tensor: lstm_pb2.Tensor, asked: Expected, after: State | None, name: str = "output") -> NDArray[Any]:
    """Returns an output: a row for each that was asked for, of finite numbers.

    Args:
        tensor: as it came.
        asked: what it has to fit.
        after: the state that came with it. Of a model that looks at a window the first outputs are NaN, and its state shows it;
            None where that is not known.
        name: what it is called in an error.

    Raises:
        InvalidResponseError: it does not fit.
    """
    array = _array(tensor, name)
    if array.ndim < _LEAST_RANK or len(array) != asked.rows or 0 in array.shape[-1:]:
        message = f"{name} has the shape {array.shape}; expected {asked.rows} rows of one feature or more"
        raise InvalidResponseError(message)
    may_wait = after is None or any(layer.window is not None for layer in after.layers)
    _require_finite(array, name, may_be_nan=may_wait)
    return array


def state(message: lstm_pb2.State, asked: Expected) -> State:
    """Returns the state after a request: of as many rows, of the same layers and weights as the one before it, and finite.

    Raises:
        InvalidResponseError: it does not fit.
    """
    _require_parts(message)
    try:
        found = State.from_message(message)
        found.require_consistent()
    except ValueError as error:
        text = f"state: {error}"
        raise InvalidResponseError(text) from error
    if found.layers and found.batch != asked.rows:
        text = f"state has {found.batch} rows; expected {asked.rows}"
        raise InvalidResponseError(text)
    digest = asked.digest or (asked.state.model_digest if asked.state is not None else "")
    if digest and found.model_digest != digest:
        text = f"state is of the model {found.model_digest[:16]!r}; expected {digest[:16]!r}"
        raise InvalidResponseError(text)
    if asked.state is not None:
        _require_after(found, asked.state)
    for number, layer_state in enumerate(found.layers):
        for name, array in layer_state.arrays.items():
            _require_finite(array, f"state.layers[{number}].{name}", may_be_nan=False)
    return found


def _require_parts(message: lstm_pb2.State) -> None:
    """Refuses a state with a layer that has other arrays than a layer of its kind has, or without the digest of its model."""
    for number, layer in enumerate(message.layers):
        kinds = {name for name in ("h", "c", "window") if layer.HasField(name)}
        if kinds not in ({"h", "c"}, {"window"}):
            text = (
                f"state.layers[{number}] has {' and '.join(sorted(kinds)) or 'nothing'}; expected h and c, or a window"
            )
            raise InvalidResponseError(text)
        if len(layer.layer) > MAX_NAME:
            text = f"state.layers[{number}].layer has {len(layer.layer)} characters; expected at most {MAX_NAME}"
            raise InvalidResponseError(text)
    if not message.model_digest:
        raise InvalidResponseError(
            "state has no model_digest; expected the digest of the model that returned the state"
        )


def _require_after(found: State, before: State) -> None:
    """Refuses a state that cannot be the one after another."""
    if before.layers and not found.fits(before):
        raise InvalidResponseError("state has other layers than the one before it")
    if before.steps_seen is not None and found.steps_seen is not None and (found.steps_seen < before.steps_seen).any():
        raise InvalidResponseError("state has seen fewer time-steps than the one before it")


def _array(tensor: lstm_pb2.Tensor, name: str) -> NDArray[Any]:
    try:
        array = tensors.decode(tensor)
    except tensors.TensorError as error:
        message = f"{name}: {error}"
        raise InvalidResponseError(message) from error
    if array.dtype.kind != "f":
        message = f"{name} holds {array.dtype}; expected floating-point numbers"
        raise InvalidResponseError(message)
    return array


def _require_finite(array: NDArray[Any], name: str, *, may_be_nan: bool) -> None:
    finite = np.isfinite(array)
    if not (finite | np.isnan(array) if may_be_nan else finite).all():
        message = f"{name} holds numbers that are not finite; expected finite ones"
        raise InvalidResponseError(message)


def require_bearable(model: lstm_pb2.Model) -> None:
    """Refuses the description of a model whose state of zeros would be none, or fill the memory.

    Raises:
        InvalidResponseError: its type is none of float32 and float64, or a length is negative, or one row's state is too large.
    """
    if model.dtype not in _TYPES:
        message = f"the model {model.name!r} has the dtype {model.dtype}; expected float32 or float64"
        raise InvalidResponseError(message)
    numbers = 0
    for part in model.state_layout:
        if part.units < 0 or any(length < 0 for length in part.window_shape) or len(part.window_shape) > _MOST_AXES:
            message = f"the model {model.name!r} has units={part.units} and window_shape={list(part.window_shape[:9])}"
            raise InvalidResponseError(message)
        numbers += 2 * part.units + (math.prod(part.window_shape) if part.window_shape else 0)
    if numbers > _MOST_NUMBERS:
        message = f"the model {model.name!r} has a state of {numbers:.3g} numbers; expected at most {_MOST_NUMBERS}"
        raise InvalidResponseError(message)
