"""What operators see of calls: how many, how they ended, and how long they took."""

from __future__ import annotations

import asyncio
import contextlib
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import grpc
from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.registry import Collector

_BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds. A call of one step takes some hundred microseconds, one of a long sequence seconds."""


class CallMetrics:
    """Counters of calls, with no more labels than there are methods, codes and reasons."""

    def __init__(self) -> None:
        self._in_flight = Gauge(
            "lstmserve_calls_in_flight", "Calls that are being answered, streams among them.", registry=None
        )
        self._calls = Counter(
            "lstmserve_calls", "Calls that have ended, by method and gRPC code.", ["method", "code"], registry=None
        )
        self._seconds = Histogram(
            "lstmserve_call_seconds",
            "How long calls took, from their message to its answer. Of streams and watches nothing is said.",
            ["method"],
            buckets=_BOUNDS,
            registry=None,
        )
        self._refused = Counter(
            "lstmserve_refused", "Calls that were refused, by reason (ErrorInfo).", ["reason"], registry=None
        )

    def collectors(self) -> Sequence[Collector]:
        """Returns what Prometheus may ask."""
        return self._in_flight, self._calls, self._seconds, self._refused

    def of_method(self, name: str, *, timed: bool) -> Callable[[Any], contextlib.AbstractContextManager[None]]:
        """Returns what takes note of a call of a method while it is under way.

        Args:
            name: of the method.
            timed: whether the time that a call takes says something of the server, rather than of its caller.
        """
        seconds = self._seconds.labels(name)

        @contextlib.contextmanager
        def measured(context: Any) -> Iterator[None]:
            began = perf_counter()
            self._in_flight.inc()
            code = "UNKNOWN"  # of what passes the guard without a status, which nothing does
            try:
                yield
                code = "OK"
            except grpc.aio.AbortError:
                code = grpc_code(context.code())
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            finally:
                self._in_flight.dec()
                self._calls.labels(name, code).inc()
                if timed:
                    seconds.observe(perf_counter() - began)

        return measured

    def refused(self, reason: str) -> None:
        """Takes note of a refusal."""
        self._refused.labels(reason).inc()


def grpc_code(code: Any) -> str:
    """Returns the name of a gRPC code, which a context has as a number or as itself."""
    return str((code if isinstance(code, grpc.StatusCode) else _BY_NUMBER[code]).name)


_BY_NUMBER: Final[dict[Any, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
