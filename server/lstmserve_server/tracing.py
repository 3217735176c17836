"""OpenTelemetry: a span for each call, below that of its caller, and one for each of its parts. Needs the extra 'traces'."""

from __future__ import annotations

import contextlib
import os
from importlib import metadata as packages
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from lstmserve_server import request_id
from lstmserve_server.call_metrics import CallMetrics, Part, code_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.descriptor import MethodDescriptor

_FAULTS: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""The codes that are faults of a server, by OpenTelemetry's conventions for RPC."""


class TracedCalls(CallMetrics):
    """The metrics of calls, and their traces."""

    def __init__(self, endpoint: str) -> None:
        """Begins to trace.

        Args:
            endpoint: URL of a collector, OTLP over HTTP. All else is set by the variables of OpenTelemetry.
        """
        super().__init__()
        name = os.environ.get("OTEL_SERVICE_NAME", "lstmserve")
        own = Resource.create({SERVICE_NAME: name, SERVICE_VERSION: packages.version("lstmserve")})
        self._provider = TracerProvider(resource=own)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("lstmserve")

    def of_method(
        self, method: MethodDescriptor, *, timed: bool
    ) -> Callable[[Any, Any], contextlib.AbstractContextManager[None]]:
        """Returns what takes note of a call of a method, and traces it, while it is under way."""
        observe = super().of_method(method, timed=timed)
        service = method.containing_service.full_name
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method.name}

        @contextlib.contextmanager
        def observed(context: Any, metadata: Any) -> Iterator[None]:
            carrier = {key: value for key, value in metadata or () if isinstance(value, str)}
            span = self._tracer.start_span(
                f"{service}/{method.name}",
                propagate.extract(carrier),
                kind=trace.SpanKind.SERVER,
                attributes=attributes,
            )
            code = "CANCELLED"
            try:
                with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                    with observe(context, metadata):
                        yield
                    code = "OK"
            except BaseException as error:
                code = code_of(error, context)
                raise
            finally:
                span.set_attribute("rpc.grpc.status_code", code)
                span.set_attribute("lstmserve.request_id", request_id.current())
                if code in _FAULTS:
                    span.set_status(trace.StatusCode.ERROR)
                span.end()

        return observed

    def took(self, name: Part, seconds: float) -> None:
        """Takes note of a part of a call that has ended just now."""
        super().took(name, seconds)
        now = time_ns()
        self._tracer.start_span(name, start_time=now - int(seconds * 1e9)).end(now)

    def close(self) -> None:
        """Sends what is not sent yet."""
        self._provider.shutdown()
