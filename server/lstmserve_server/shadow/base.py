"""The interface of a shadow: it is offered finished calls, and reports on them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol, TypeVar

from prometheus_client.registry import Collector

from lstmserve.v1 import shadow_pb2
from lstmserve_server.core.errors import WrongForModel
from lstmserve_server.model.model import StepResult
from lstmserve_server.runtime.calls import StepCall

Call = TypeVar("Call", bound="StepCall")


class Shadow(Protocol):
    """Interface of a shadow."""

    def with_recording(self, call: Call) -> Call:
        """Returns the call to compute: with a recording, if it was sampled."""
        ...

    async def offer(self, call: StepCall, answer: StepResult, method: str) -> shadow_pb2.Comparison | None:
        """Takes a finished call. Returns at once, with None, unless the caller asks for the comparison; never raises."""
        ...

    def report(self, model: str) -> shadow_pb2.ShadowReport:
        """Returns the report of a model; of all models for ""."""
        ...

    def watch(self, model: str) -> AsyncGenerator[shadow_pb2.WatchDiscrepanciesResponse]:
        """Yields discrepancies of a model as they are found; of all for "".

        Raises:
            RequestError: there is no shadow, or there are too many subscribers.
        """
        ...

    def collectors(self) -> Sequence[Collector]:
        """Returns the Prometheus collectors."""
        ...

    def release(self) -> None:
        """Releases all callers that wait for a comparison, now and later: the server drains."""
        ...

    def stop(self) -> None:
        """Stops it at once."""
        ...


class NoShadow:
    """Shadow mode is off."""

    def with_recording(self, call: Call) -> Call:
        """Returns the call."""
        return call

    async def offer(self, call: StepCall, answer: StepResult, method: str) -> shadow_pb2.Comparison | None:  # noqa: ARG002
        """Returns None, or to a caller that asks, that nothing was compared."""
        if not call.compare:
            return None
        return shadow_pb2.Comparison(
            verdict=shadow_pb2.VERDICT_NOT_COMPARED, reason="the server runs without shadow mode (--shadow)"
        )

    def report(self, model: str) -> shadow_pb2.ShadowReport:  # noqa: ARG002
        """Returns an empty report."""
        reference = shadow_pb2.ReferenceProcess(status=shadow_pb2.REFERENCE_STATUS_OFF)
        return shadow_pb2.ShadowReport(reference_process=reference)

    async def watch(self, model: str) -> AsyncGenerator[shadow_pb2.WatchDiscrepanciesResponse]:  # noqa: ARG002
        """Refuses."""
        raise WrongForModel("", "the server runs without shadow mode; start it with --shadow RATE or --shadow all")
        yield  # so that it is what it is declared as

    def collectors(self) -> Sequence[Collector]:
        """Returns nothing."""
        return ()

    def release(self) -> None:
        """Does nothing: no one waits."""

    def stop(self) -> None:
        """Does nothing."""
