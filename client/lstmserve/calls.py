"""What a call is made of, apart from the waiting: request, method, and how the response is read.

The synchronous and the asyncio client differ only in how they send what stands here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

import numpy as np

from lstmserve import tensors
from lstmserve.state import State
from lstmserve.v1 import lstm_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

_Answer = TypeVar("_Answer")

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds that a call may take, retries included, unless the caller says otherwise."""

_LONGEST_TIMEOUT: Final = 1e8  # seconds, three years; far longer ones overflow in gRPC

_SERVICE: Final = lstm_pb2.DESCRIPTOR.services_by_name["LstmService"]

# A call is a pure function of its request, so it may be sent again whenever it is not known to have been answered.
# CANCELLED is what gRPC's core answers to calls that meet a server in the moment when it stops.
_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": _SERVICE.full_name}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
    }
)


class Result(NamedTuple):
    """The answer of `step` and `forward`: the output, and the state to send with the next call."""

    output: NDArray[Any]
    state: State


@dataclass(frozen=True, slots=True)
class Call(Generic[_Answer]):
    """One call, ready to be sent to `method` ("/package.Service/Method")."""

    method: str
    request: Any
    read: Callable[[bytes], _Answer]


def channel_options(max_message_bytes: int | None) -> list[tuple[str, Any]]:
    """Returns gRPC's channel options: the retry policy, and how large a message may be (None: any size)."""
    limit = -1 if max_message_bytes is None else max_message_bytes
    return [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
    ]


def checked_timeout(seconds: float) -> float | None:
    """Returns a time-out as gRPC takes it: None for none, where `seconds` is infinity.

    Raises:
        ValueError: it is no number above 0.
    """
    if not seconds > 0:  # NaN too
        message = f"a timeout of {seconds} seconds; expected more than 0, or infinity for none"
        raise ValueError(message)
    return None if seconds > _LONGEST_TIMEOUT else seconds


def step(x: ArrayLike, state: State | None, model: str) -> Call[Result]:
    """Returns the call of one time-step.

    `x` is (batch, features), or (features,) for one sequence, whose output is then one-dimensional too.
    """
    rows, single = _as_batch(x, 2)
    request = lstm_pb2.StepRequest(model=model, x=tensors.encode(rows), state=_state_message(state))

    def read(data: bytes) -> Result:
        response = lstm_pb2.StepResponse.FromString(data)
        return _result(response.output, response.state, single=single)

    return Call(_method("Step"), request, read)


def forward(
    x: ArrayLike, state: State | None, model: str, lengths: Sequence[int] | NDArray[Any] | None, *, all_outputs: bool
) -> Call[Result]:
    """Returns the call of a whole sequence.

    `x` is (batch, time, features), or (time, features) for one sequence, whose output then has no batch axis either.
    """
    rows, single = _as_batch(x, 3)
    request = lstm_pb2.ForwardRequest(
        model=model,
        x=tensors.encode(rows),
        state=_state_message(state),
        lengths=None if lengths is None else _whole_numbers(lengths),
        all_outputs=all_outputs,
    )

    def read(data: bytes) -> Result:
        response = lstm_pb2.ForwardResponse.FromString(data)
        return _result(response.output, response.state, single=single)

    return Call(_method("Forward"), request, read)


def windows(series: ArrayLike, length: int, stride: int, rows: int, model: str) -> list[Call[Result]]:
    """Returns the calls that answer every window of a series, `rows` windows each.

    Raises:
        ValueError: the series is not (time, features), or has no window of that length.
    """
    array = np.asarray(series)
    if array.ndim != 2 or not 1 <= length <= len(array) or min(stride, rows) < 1:  # noqa: PLR2004 - time and features
        message = (
            f"windows of {length} steps, each {stride} on, of a series of shape {array.shape}; expected (time, features) with "
            "at least one window, and a stride and rows of 1 or more"
        )
        raise ValueError(message)
    every = np.lib.stride_tricks.sliding_window_view(array, length, axis=0)[::stride].swapaxes(1, 2)
    return [
        forward(every[start : start + rows], None, model, None, all_outputs=False)
        for start in range(0, len(every), rows)
    ]


def get_model(name: str) -> Call[lstm_pb2.Model]:
    """Returns the call that asks for the description of one model."""
    request = lstm_pb2.GetModelRequest(model=name)
    return Call(_method("GetModel"), request, lambda data: lstm_pb2.GetModelResponse.FromString(data).model)


def list_models() -> Call[list[lstm_pb2.Model]]:
    """Returns the call that asks for the descriptions of all models."""
    request = lstm_pb2.ListModelsRequest()
    return Call(_method("ListModels"), request, lambda data: list(lstm_pb2.ListModelsResponse.FromString(data).models))


def _whole_numbers(lengths: Sequence[int] | NDArray[Any]) -> list[int]:
    array = np.asarray(lengths)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        message = f"lengths is {lengths!r}; expected a whole number for each row"
        raise ValueError(message)
    return [int(length) for length in array]


def _method(name: str) -> str:
    return f"/{_SERVICE.full_name}/{_SERVICE.methods_by_name[name].name}"


def _as_batch(x: ArrayLike, rank: int) -> tuple[NDArray[Any], bool]:
    """Returns `x` with a batch axis, and whether it had none."""
    array = np.asarray(x)
    if array.dtype.kind in ("b", "u") or array.dtype.name in ("int8", "int16"):  # types that have no place in a Tensor
        array = array.astype(np.int64)
    if array.ndim == rank - 1:
        return array[None], True
    if array.ndim == rank:
        return array, False
    axes = ("batch", "time", "features") if rank == 3 else ("batch", "features")  # noqa: PLR2004 - ranks of the docstrings
    message = f"x has shape {array.shape}; expected ({', '.join(axes)}), or ({', '.join(axes[1:])}) for one sequence"
    raise ValueError(message)


def _state_message(state: State | None) -> lstm_pb2.State | None:
    return None if state is None else state.to_message()


def _result(output: lstm_pb2.Tensor, state: lstm_pb2.State, *, single: bool) -> Result:
    array = tensors.decode(output)
    return Result(array[0] if single else array, State.from_message(state))
