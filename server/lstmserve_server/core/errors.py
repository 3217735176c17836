"""Errors of the server, independent of any transport; `rpc.status` maps the errors of requests to gRPC.

- `UnsupportedModelError`: a file cannot be served as Keras would compute it.
- `StartupError`: the server could not start.
    - `SettingsError`: the settings make no sense.
    - `ServerCrashed`: the server has ended by a fault.
- `RequestError`
    - `InvalidRequest`: the request is wrong by itself.
    - `WrongForModel`: the request is right in itself, but not for this model.
        - `OtherWeights`: a state or a digest belongs to other weights.
        - `OtherNumerics`: a stream asks for the numerics of another server.
    - `NoSuchModel`: no model of that name is served.
    - `LimitExceeded`: the request needs more than the server gives; waiting does not help.
    - `Overloaded`: the server is full; waiting helps.
    - `NotServing`: the server is starting or draining.
    - `Unauthenticated`: the caller does not say who it is.
    - `PermissionDenied`: the caller may not do this.
    - `DeadlineExceeded`: the deadline of the call has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_NAMES: Final = 10


def _printable(text: str) -> str:
    """Returns a text with everything unprintable replaced."""
    from lstmserve import text as shown  # noqa: PLC0415 - it brings the whole client along, which --help can do without

    return shown.printable(text)


class UnsupportedModelError(Exception):
    """A model file cannot be served as Keras would compute it.

    The text says what was found and where, and what can be done about it; text from the file is made printable.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_printable(text))


class StartupError(Exception):
    """The server could not start; the text is one printable sentence for the operator."""

    def __init__(self, text: str) -> None:
        super().__init__(_printable(text))

    exit_code: ClassVar[int] = 3


class SettingsError(StartupError):
    """The settings contradict each other or name something that does not exist."""

    exit_code = 2


class ServerCrashed(StartupError):
    """The server has ended by a fault of its own or of gRPC's."""

    exit_code = 1


class RequestError(Exception):
    """A request cannot be answered.

    Attributes:
        field: the field of the request that is wrong, such as "state.layers[0].h"; "" where it is none in particular.
        text: what the request has, and what was expected.
        reason: the class of the error for programs, in UPPER_SNAKE_CASE.
    """

    reason: ClassVar[str]

    def __init__(self, field: str, text: str) -> None:
        self.field = _printable(field)
        self.text = _printable(text)
        super().__init__(f"{self.field}: {self.text}" if field else self.text)


class InvalidRequest(RequestError):
    """The request is wrong by itself."""

    reason = "INVALID_REQUEST"


class WrongForModel(RequestError):
    """The request is right in itself, but not for this model."""

    reason = "WRONG_FOR_MODEL"


class OtherWeights(WrongForModel):
    """A state or a digest belongs to other weights; another server may have them."""

    reason = "OTHER_WEIGHTS"


class OtherNumerics(WrongForModel):
    """A stream asks for the numerics of another server."""

    reason = "OTHER_NUMERICS"


class NoSuchModel(RequestError):
    """No model of that name is served."""

    reason = "NO_SUCH_MODEL"


class LimitExceeded(RequestError):
    """The request exceeds a limit of the server; the text names the limit and the setting."""

    reason = "LIMIT_EXCEEDED"


class Overloaded(RequestError):
    """The server is full; the same request may be answered a little later.

    Attributes:
        retry_after: seconds after which it is worth asking again.
    """

    reason = "BUSY"

    def __init__(self, field: str, text: str, retry_after: float = 0.1) -> None:
        super().__init__(field, text)
        self.retry_after = retry_after


class NotServing(RequestError):
    """The server is starting or draining; another one may answer."""

    reason = "NOT_SERVING"


class Unauthenticated(RequestError):
    """The caller shows no valid token."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(RequestError):
    """The caller's token does not allow this."""

    reason = "PERMISSION_DENIED"


class DeadlineExceeded(RequestError):
    """The deadline of the call has passed, or the caller has gone."""

    reason = "DEADLINE_EXCEEDED"


def format_names(names: Iterable[str]) -> str:
    """Returns some names for an error, and how many more there are: a status of gRPC holds a few kilobytes."""
    every = list(names)
    shown = ", ".join(repr(name[:64]) for name in every[:_MAX_NAMES])
    return shown if len(every) <= _MAX_NAMES else f"{shown} and {len(every) - _MAX_NAMES} more"
