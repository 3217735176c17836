"""Builds requests and parses responses; shared by the synchronous and the asyncio client."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmserve import errors, tensors, validation
from lstmserve.state import State
from lstmserve.v1 import lstm_pb2, shadow_pb2

_Answer = TypeVar("_Answer")

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds that a call may take, retries included, unless the caller says otherwise."""

_LONGEST_TIMEOUT: Final = 1e8  # seconds, three years; far longer ones overflow in gRPC

_SERVICE: Final = lstm_pb2.DESCRIPTOR.services_by_name["LstmService"]
_SHADOW_SERVICE: Final = shadow_pb2.DESCRIPTOR.services_by_name["ShadowService"]


class _OutputAndState(NamedTuple):
    output: NDArray[Any]
    state: State


class Result(_OutputAndState):
    """The answer of `step` and `forward`: the output, and the state to send with the next call; a pair of these two.

    Attributes:
        output: the output; of a model with several, the first.
        state: the next state.
        outputs: all outputs by name, of a model with several; empty where there is one.
        comparison: how the answer differs from that of Keras, where the call asked for it with `compare`; else None.
    """

    outputs: dict[str, NDArray[Any]]
    comparison: shadow_pb2.Comparison | None

    def __new__(
        cls,
        output: NDArray[Any],
        state: State,
        outputs: dict[str, NDArray[Any]],
        comparison: shadow_pb2.Comparison | None,
    ) -> Self:
        """Creates the pair, with further attributes."""
        made = super().__new__(cls, output, state)
        made.outputs, made.comparison = outputs, comparison
        return made


@dataclass(frozen=True, slots=True)
class Request(Generic[_Answer]):
    """One call, ready to be sent to `method` ("/package.Service/Method")."""

    method: str
    request: Any
    read: Callable[[bytes], _Answer]
    """Reads the answer; raises `InvalidResponseError` where it is none to the request."""

    def answer(self, data: bytes, address: str) -> _Answer:
        """Parses the response of the server at an address.

        Raises:
            InvalidResponse: it does not fit the request.
        """
        try:
            return self.read(data)
        except validation.InvalidResponseError as error:
            raise errors.invalid_response(address, str(error)) from error


def validate_timeout(seconds: float) -> float | None:
    """Returns a timeout for gRPC: None if `seconds` is infinity.

    Raises:
        ValueError: it is not a number above 0.
    """
    if not seconds > 0:  # NaN too
        message = f"a timeout of {seconds} seconds; expected more than 0, or infinity for none"
        raise ValueError(message)
    return None if seconds > _LONGEST_TIMEOUT else seconds


def validate_reconnect_timeout(seconds: float) -> float:
    """Returns a valid reconnect timeout.

    Raises:
        ValueError: it is negative or not a number.
    """
    if not seconds >= 0:  # NaN too
        message = f"a reconnect_timeout of {seconds} seconds; expected 0 or more"
        raise ValueError(message)
    return min(seconds, _LONGEST_TIMEOUT)


def joined(outputs: Sequence[NDArray[Any]], address: str) -> NDArray[Any]:
    """Returns the outputs of several calls as one, (rows, ...).

    Raises:
        InvalidResponse: they have different widths.
    """
    if len({output.shape[1:] for output in outputs}) > 1:
        shapes = ", ".join(str(output.shape) for output in outputs[:4])
        raise errors.invalid_response(address, f"outputs of the shapes {shapes} to the same kind of request")
    return np.concatenate(outputs)


def step(x: ArrayLike, state: State | None, model: str, *, compare: bool = False) -> Request[Result]:
    """Returns the call of one time-step.

    `x` is (batch, features), or (features,) for one sequence, whose output is then one-dimensional too.
    """
    rows, single = _as_batch(x, 2)
    request = lstm_pb2.StepRequest(model=model, x=tensors.encode(rows), state=_state_message(state), compare=compare)

    def read(data: bytes) -> Result:
        return _result(
            validation.parsed(lstm_pb2.StepResponse, data), validation.Expected(len(rows), state), single=single
        )

    return Request(method("Step"), request, read)


def forward(
    x: ArrayLike | Mapping[str, ArrayLike],
    state: State | None,
    model: str,
    lengths: Sequence[int] | NDArray[Any] | None,
    *,
    all_outputs: bool,
    compare: bool = False,
) -> Request[Result]:
    """Returns the call of a whole sequence.

    `x` is (batch, time, features), or (time, features) for one sequence, whose output then has no batch axis either. Of a
    model with several inputs it is all of these by name, with a batch axis.
    """
    inputs = {name: to_sendable(array) for name, array in x.items()} if isinstance(x, Mapping) else {}
    rows, single = (None, False) if isinstance(x, Mapping) else _as_batch(x, 3)
    count = len(rows) if rows is not None else next((len(array) for array in inputs.values() if array.ndim), 0)
    request = lstm_pb2.ForwardRequest(
        model=model,
        x=None if rows is None else tensors.encode(rows),
        inputs={name: tensors.encode(array) for name, array in inputs.items()},
        state=_state_message(state),
        lengths=None if lengths is None else _whole_numbers(lengths),
        all_outputs=all_outputs,
        compare=compare,
    )

    def read(data: bytes) -> Result:
        return _result(
            validation.parsed(lstm_pb2.ForwardResponse, data), validation.Expected(count, state), single=single
        )

    return Request(method("Forward"), request, read)


def windows(series: ArrayLike, length: int, stride: int, rows: int, model: str) -> list[Request[Result]]:
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


def get_model(name: str) -> Request[lstm_pb2.Model]:
    """Returns the call that asks for the description of one model."""
    request = lstm_pb2.GetModelRequest(name=name)

    def read(data: bytes) -> lstm_pb2.Model:
        model = validation.parsed(lstm_pb2.GetModelResponse, data).model
        if not model.name or name not in ("", model.name):
            message = f"got the model {model.name!r}, expected {name or 'a name'!r}"
            raise validation.InvalidResponseError(message)
        validation.require_bearable(model)
        return model

    return Request(method("GetModel"), request, read)


def list_models() -> Request[list[lstm_pb2.Model]]:
    """Returns the call that asks for the descriptions of all models."""
    request = lstm_pb2.ListModelsRequest()

    def read(data: bytes) -> list[lstm_pb2.Model]:
        models = list(validation.parsed(lstm_pb2.ListModelsResponse, data).models)
        for model in models:
            validation.require_bearable(model)
        return models

    return Request(method("ListModels"), request, read)


def shadow_report(model: str) -> Request[shadow_pb2.ShadowReport]:
    """Returns the call that asks for the shadow report."""
    request = shadow_pb2.GetReportRequest(model=model)
    path = f"/{_SHADOW_SERVICE.full_name}/{_SHADOW_SERVICE.methods_by_name['GetReport'].name}"

    def read(data: bytes) -> shadow_pb2.ShadowReport:
        response = validation.parsed(shadow_pb2.GetReportResponse, data)
        if not response.HasField("report"):
            raise validation.InvalidResponseError("got no report, expected one")
        try:
            response.report.start_time.ToDatetime()
        except (ValueError, OverflowError):
            raise validation.InvalidResponseError("the report has a start_time that is not a time") from None
        if not 0 <= response.report.sampling_rate <= 1:
            message = f"the report has a sampling_rate of {response.report.sampling_rate}; expected 0 to 1"
            raise validation.InvalidResponseError(message)
        others = [part.model for part in response.report.models if model not in ("", part.model)]
        if others:
            message = f"got a report on {others[0]!r}, expected one on {model!r}"
            raise validation.InvalidResponseError(message)
        return response.report

    return Request(path, request, read)


def _whole_numbers(lengths: Sequence[int] | NDArray[Any]) -> list[int]:
    array = np.asarray(lengths)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        message = f"lengths is {lengths!r}; expected an integer for each row"
        raise ValueError(message)
    return [int(length) for length in array]


def method(name: str) -> str:
    """Returns the path of a method of the service."""
    return f"/{_SERVICE.full_name}/{_SERVICE.methods_by_name[name].name}"


def serialize(message: Any) -> bytes:
    """Returns a message as gRPC sends it."""
    data: bytes = message.SerializeToString()
    return data


def _as_batch(x: ArrayLike, rank: int) -> tuple[NDArray[Any], bool]:
    """Returns `x` with a batch axis, and whether it had none."""
    array = to_sendable(x)
    if array.ndim == rank - 1:
        return array[None], True
    if array.ndim >= rank:  # time-steps of some models have several axes
        return array, False
    axes = ("batch", "time", "features") if rank == 3 else ("batch", "features")  # noqa: PLR2004 - ranks of the docstrings
    message = f"x has shape {array.shape}; expected ({', '.join(axes)}), or ({', '.join(axes[1:])}) for one sequence"
    raise ValueError(message)


def to_sendable(x: ArrayLike) -> NDArray[Any]:
    """Returns an array in a dtype that a `Tensor` can hold without loss, if there is one."""
    array = np.asarray(x)
    if array.dtype.kind in ("b", "u") or array.dtype.name in ("int8", "int16"):  # types that have no place in a Tensor
        array = array.astype(np.int64)
    return array


def _state_message(state: State | None) -> lstm_pb2.State | None:
    return None if state is None else state.to_message()


def _result(
    response: lstm_pb2.StepResponse | lstm_pb2.ForwardResponse, asked: validation.Expected, *, single: bool
) -> Result:
    after = validation.state(response.state, asked)

    def rows(tensor: lstm_pb2.Tensor, name: str) -> NDArray[Any]:
        array = validation.output(tensor, asked, after, name)
        return array[0] if single else array

    outputs = {name: rows(tensor, f"outputs[{name!r}]") for name, tensor in response.outputs.items()}
    comparison = response.comparison if response.HasField("comparison") else None
    return Result(rows(response.output, "output"), after, outputs, comparison)
