"""Client of an lstmserve server: a Keras LSTM behind gRPC, whose h and c the caller carries.

Needs NumPy, grpcio and protobuf. `Client` and `AsyncClient` make the calls, `State` is what a caller keeps between them, and
`lstmserve.v1` is the generated contract, for programs that use the bare stubs.
"""

from lstmserve.calls import Result
from lstmserve.client import AsyncClient, Client
from lstmserve.credentials import Tls
from lstmserve.errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    InvalidResponse,
    LstmServeError,
    ModelMismatch,
    NotFound,
    NumericsChanged,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from lstmserve.state import LayerState, State
from lstmserve.streams import AsyncStream, Stream

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "InvalidResponse",
    "LayerState",
    "LstmServeError",
    "ModelMismatch",
    "NotFound",
    "NumericsChanged",
    "PermissionDenied",
    "ResourceExhausted",
    "Result",
    "State",
    "Stream",
    "Tls",
    "Unauthenticated",
    "Unavailable",
]
