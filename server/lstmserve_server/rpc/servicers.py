"""The RPC methods: parse the request, run it, offer it to shadow mode, encode the response."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from time import perf_counter

from lstmserve.v1 import lstm_pb2, shadow_pb2
from lstmserve_server.observability.call_metrics import CallMetrics
from lstmserve_server.rpc.auth.callers import current_caller, owner
from lstmserve_server.rpc.codec.models import model_message
from lstmserve_server.rpc.codec.requests import Codec
from lstmserve_server.rpc.streams.server import MessageStream, StreamServer
from lstmserve_server.runtime.registry import Registry
from lstmserve_server.runtime.scheduler import Scheduler
from lstmserve_server.shadow.base import Shadow

SERVICE = lstm_pb2.DESCRIPTOR.services_by_name["LstmService"]
SHADOW_SERVICE = shadow_pb2.DESCRIPTOR.services_by_name["ShadowService"]


class LstmServicer:
    """Answers the calls of `LstmService` for the models of a registry."""

    def __init__(
        self,
        registry: Registry,
        codec: Codec,
        scheduler: Scheduler,
        streams: StreamServer,
        shadow: Shadow,
        metrics: CallMetrics,
    ) -> None:
        self._registry = registry
        self._codec = codec
        self._metrics = metrics
        self._scheduler = scheduler
        self._streams = streams
        self._shadow = shadow

    async def Step(self, request: lstm_pb2.StepRequest) -> lstm_pb2.StepResponse:
        """Advances every row by one time-step."""
        began = perf_counter()
        call = self._shadow.with_recording(self._codec.parse_step(request))
        self._metrics.observe_phase("decode", perf_counter() - began)
        answer = await self._scheduler.run(call, owner)
        discrepancy = await self._shadow.offer(call, answer, "Step")
        began = perf_counter()
        response = self._codec.step_response(call, answer, discrepancy)
        self._metrics.observe_phase("encode", perf_counter() - began)
        return response

    async def Forward(self, request: lstm_pb2.ForwardRequest) -> lstm_pb2.ForwardResponse:
        """Advances every row by a whole sequence."""
        began = perf_counter()
        call = self._shadow.with_recording(self._codec.parse_forward(request))
        self._metrics.observe_phase("decode", perf_counter() - began)
        answer = await self._scheduler.run(call, owner)
        discrepancy = await self._shadow.offer(call, answer, "Forward")
        began = perf_counter()
        response = self._codec.forward_response(call, answer, discrepancy)
        self._metrics.observe_phase("encode", perf_counter() - began)
        return response

    async def StreamSteps(self, stream: MessageStream) -> None:
        """Advances the rows of a stream by time-steps, until its caller has sent all."""
        await self._streams.serve(stream)

    async def GetModel(self, request: lstm_pb2.GetModelRequest) -> lstm_pb2.GetModelResponse:
        """Describes one model."""
        return lstm_pb2.GetModelResponse(model=model_message(self._codec.find(request.name)))

    async def ListModels(self, request: lstm_pb2.ListModelsRequest) -> lstm_pb2.ListModelsResponse:  # noqa: ARG002
        """Describes all models that the caller may use."""
        allowed = filter(lambda served: current_caller.get().may_use(served.name), self._registry)
        return lstm_pb2.ListModelsResponse(models=map(model_message, allowed))


class ShadowServicer:
    """Answers the calls of `ShadowService`."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow

    async def GetReport(self, request: shadow_pb2.GetReportRequest) -> shadow_pb2.GetReportResponse:
        """Returns the comparison report."""
        return shadow_pb2.GetReportResponse(
            report=self._shadow.report(current_caller.get().resolve_model(request.model))
        )

    async def WatchDiscrepancies(
        self, request: shadow_pb2.WatchDiscrepanciesRequest
    ) -> AsyncIterator[shadow_pb2.WatchDiscrepanciesResponse]:
        """Yields discrepancies as they are found."""
        async with contextlib.aclosing(self._shadow.watch(current_caller.get().resolve_model(request.model))) as found:
            async for response in found:
                yield response
