"""Calls an lstmserve server: a Keras LSTM behind gRPC, with the h and c that the caller carries.

Needs NumPy, grpcio and protobuf. `Client` and `AsyncClient` make the calls, `State` is what a caller keeps between them,
and `lstmserve.v1` is the generated contract for those who want the bare stubs.
"""

from lstmserve.calls import Result
from lstmserve.client import AsyncClient, Client
from lstmserve.credentials import Tls
from lstmserve.errors import (
    AccessDenied,
    BadAnswer,
    CallCancelled,
    DeadlineExceeded,
    InvalidRequest,
    LimitReached,
    LstmServeError,
    NoSuchModel,
    NumericsChanged,
    ServerFault,
    ServerUnavailable,
    WrongForModel,
)
from lstmserve.state import LayerState, State
from lstmserve.streams import AsyncStream, Stream

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "AsyncStream",
    "BadAnswer",
    "CallCancelled",
    "Client",
    "DeadlineExceeded",
    "InvalidRequest",
    "LayerState",
    "LimitReached",
    "LstmServeError",
    "NoSuchModel",
    "NumericsChanged",
    "Result",
    "ServerFault",
    "ServerUnavailable",
    "State",
    "Stream",
    "Tls",
    "WrongForModel",
]
