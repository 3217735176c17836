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
        """Takes other rules; the calls that are under way still count."""
        if policy.calls_per_second != self._policy.calls_per_second:
            self._rate = _limiter(policy)
        self._policy = policy

    def require_method(self, name: str) -> None:
        """Returns if a method may be called.

        Raises:
            PermissionDenied: it may not.
        """
        methods = self._policy.methods
        if methods is not None and name not in methods:
            raise PermissionDenied(
                "", f"{self.name!r} may not call {name}; expected one of {format_names(sorted(methods))}"
            )

    def may_use(self, model: str) -> bool:
        """Returns whether it may use the model of a name."""
        return self._policy.models is None or model in self._policy.models

    def resolve_model(self, name: str) -> str:
        """Returns the name of the model that a request is for: that in the request, or the only one that may be used.

        Raises:
            PermissionDenied: it may not be used; whether there is such a model is not told.
            InvalidRequest: there is no name, and several may be used.
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
        """Requires that a request may have a number of rows.

        Raises:
            LimitExceeded: it may not.
        """
        most = self._policy.rows
        if most is not None and rows > most:
            raise LimitExceeded(field, f"got {rows} rows, expected at most {most} of {self.name!r} (its token's rows)")

    def call(self) -> Self:
        """Counts a call while it is under way: `with caller.call()`.

        Raises:
            Overloaded: there are as many as there may be.
        """
        most = self._policy.concurrent_calls
        if most is not None and self._running >= most:
            raise Overloaded("", f"{self._running} calls of {self.name!r} are running; expected fewer than {most + 1}")
        return self

    def __enter__(self) -> None:
        """Counts a call from now on."""
        self._running += 1

    def __exit__(self, *_: object) -> None:
        """Counts it no longer."""
        self._running -= 1

    async def wait_for_rate(self) -> None:
        """Waits until the rate of calls allows one more; for the messages of a stream, whose sender then has to wait too."""
        if self._rate is not None:
            await self._rate.acquire()

    async def check_rate(self) -> None:
        """Returns if the rate of calls allows one more.

        Raises:
            Overloaded: it does not yet; the error says when.
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
    """Returns whom to count a call for: the name of its caller, or the host that it comes from where callers have no names."""
    return current_caller.get().name or current_peer.get()().rpartition(":")[0]
