"""Callers and their policies: what a caller may do, and how much of it is in use."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from aiolimiter import AsyncLimiter

from lstmserve_server.core.errors import InvalidRequest, LimitExceeded, Overloaded, PermissionDenied, format_names


@dataclass(frozen=True, slots=True)
class CallerPolicy:
    """Limits of a caller; None where there is no limit."""

    models: frozenset[str] | None = None
    """Names of the models that it may use."""

    methods: frozenset[str] | None = None
    """Names of the methods that it may call."""

    calls_per_second: float | None = None
    """Calls, and messages of streams, on average over a second; over 1 / `calls_per_second` where that is longer."""

    concurrent_calls: int | None = None
    """Calls and streams that are open at a time."""

    rows: int | None = None
    """Rows in a request."""


class Caller:
    """A named caller and its policy, whichever token it shows."""

    def __init__(self, name: str, policy: CallerPolicy) -> None:
        self.name = name
        self._running = 0
        self._policy = policy
        self._rate = _limiter(policy)

    def update_policy(self, policy: CallerPolicy) -> None:
        """Replaces the policy; calls in flight still count."""
        if policy.calls_per_second != self._policy.calls_per_second:
            self._rate = _limiter(policy)
        self._policy = policy

    def require_method(self, name: str) -> None:
        """Checks that a method may be called.

        Raises:
            PermissionDenied: it is not allowed.
        """
        methods = self._policy.methods
        if methods is not None and name not in methods:
            raise PermissionDenied(
                "", f"{self.name!r} may not call {name}; expected one of {format_names(sorted(methods))}"
            )

    def may_use(self, model: str) -> bool:
        """Returns whether the caller may use a model."""
        return self._policy.models is None or model in self._policy.models

    def resolve_model(self, name: str) -> str:
        """Returns the model that a request is for: the one it names, or the only one that the caller may use.

        Raises:
            PermissionDenied: the caller may not use it; the error does not reveal whether it exists.
            InvalidRequest: the request has no name, and the caller may use several models.
        """
        models = self._policy.models
        if models is None or name in models:
            return name
        allowed = format_names(sorted(models))
        if name:
            raise PermissionDenied("model", f"{self.name!r} may not use {name[:64]!r}; expected one of {allowed}")
        if len(models) > 1:
            raise InvalidRequest(
                "model", f"got no name, and {self.name!r} has access to several; expected one of {allowed}"
            )
        return next(iter(models), name)

    def require_rows(self, field: str, rows: int) -> None:
        """Checks the number of rows of a request.

        Raises:
            LimitExceeded: it is not allowed.
        """
        most = self._policy.rows
        if most is not None and rows > most:
            raise LimitExceeded(
                field, f"got {rows} rows, expected at most {most}: the limit of caller {self.name!r} in the token file"
            )

    def call(self) -> Self:
        """Counts a call in flight: `with caller.call()`.

        Raises:
            Overloaded: the limit is reached.
        """
        most = self._policy.concurrent_calls
        if most is not None and self._running >= most:
            raise Overloaded("", f"{self._running} calls of {self.name!r} are running; expected fewer than {most + 1}")
        return self

    def __enter__(self) -> None:
        """Counts the call."""
        self._running += 1

    def __exit__(self, *_: object) -> None:
        """Stops counting the call."""
        self._running -= 1

    async def wait_for_rate(self) -> None:
        """Waits until the rate limit allows one more message of a stream. Flow control then slows the sender."""
        if self._rate is not None:
            await self._rate.acquire()

    async def check_rate(self) -> None:
        """Checks that the rate limit allows one more call.

        Raises:
            Overloaded: it does not; the error says when it will.
        """
        if self._rate is None:
            return
        if not self._rate.has_capacity():
            pace = self._rate.time_period / self._rate.max_rate
            text = f"{self.name!r} exceeded its rate limit of {self._policy.calls_per_second:g} calls per second on average"
            raise Overloaded("", text, retry_after=pace)
        await self._rate.acquire()


def _limiter(policy: CallerPolicy) -> AsyncLimiter | None:
    rate = policy.calls_per_second
    return None if rate is None else AsyncLimiter(max(rate, 1), max(1, 1 / rate))


ANONYMOUS: Final = Caller("", CallerPolicy())
"""The one caller of a server without tokens."""

current_caller: Final = contextvars.ContextVar("calling", default=ANONYMOUS)
"""Who makes the call that is being answered."""

current_peer: Final[contextvars.ContextVar[Callable[[], str]]] = contextvars.ContextVar("peer", default=lambda: "")
"""Reports the address that it comes from, in gRPC's words, such as "ipv4:192.0.2.1:50123"."""


def owner() -> str:
    """Returns the accounting key of a call: the caller's name, or the peer's host if the server has no tokens."""
    return current_caller.get().name or current_peer.get()().rpartition(":")[0]
