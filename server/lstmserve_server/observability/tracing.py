"""OpenTelemetry spans: one per call, a child of the caller's, and one per phase. Needs the extra `traces`."""

from __future__ import annotations

import os
from time import time_ns
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor
from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from lstmserve_server.core import packages, request_context
from lstmserve_server.observability.call_metrics import CallMetrics, CallRecorder, Phase, code_of

_FAULTS: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""The codes that are faults of a server, by OpenTelemetry's conventions for RPC."""


class TracedCalls(CallMetrics):
    """Call metrics that also record spans."""

    def __init__(self, endpoint: str) -> None:
        """Begins to trace.

        Args:
            endpoint: URL of a collector, OTLP over HTTP. All else is set by the variables of OpenTelemetry.
        """
        super().__init__()
        name = os.environ.get("OTEL_SERVICE_NAME", "lstmserve")
        own = Resource.create({SERVICE_NAME: name, SERVICE_VERSION: packages.version_of("lstmserve")})
        self._provider = TracerProvider(resource=own)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("lstmserve")

    def on_start(self, method: MethodDescriptor, metadata: Any) -> CallRecorder:
        """Records the start of a call, and returns the recorder of its end."""
        carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
        service = method.containing_service.full_name
        span = self._tracer.start_span(
            f"{service}/{method.name}",
            propagate.extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": method.name},
        )
        # For the task of the call, which ends with it: so there is nothing to detach.
        context.attach(trace.set_span_in_context(span))
        return _Span(super().on_start(method, metadata), span)

    def observe_phase(self, phase: Phase, seconds: float, ago: float = 0) -> None:
        """Records a phase of a call; the phase ended `ago` seconds ago."""
        super().observe_phase(phase, seconds)
        end = time_ns() - int(ago * 1e9)
        self._tracer.start_span(phase, start_time=end - int(seconds * 1e9)).end(end)

    def close(self) -> None:
        """Sends the remaining spans."""
        self._provider.shutdown()


class _Span:
    """A call in flight with its span."""

    def __init__(self, recorder: CallRecorder, span: trace.Span) -> None:
        self._recorder = recorder
        self._span = span

    def on_end(self, error: BaseException | None, context: Any) -> None:
        code = code_of(error, context)
        self._span.set_attribute("rpc.grpc.status_code", code)
        self._span.set_attribute("lstmserve.request_id", request_context.request_id())
        if code in _FAULTS:
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()
        self._recorder.on_end(error, context)
