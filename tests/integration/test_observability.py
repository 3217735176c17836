"""What operators see alongside the metrics: the id of a request, traces, and gRPC's view of its connections."""

from __future__ import annotations

import gzip
import http.server
import json
import queue
import threading

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lstmserve import Client
from lstmserve.v1 import lstm_pb2, lstm_pb2_grpc
from tests.support.live import QUICK, run, serving
from tests.support.paths import SUNSPOTS

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
INPUT = 1234567.5  # nothing else in a log has such a number: no time, no id


def step(address, *metadata, request=None):
    """Calls Step with metadata, and returns how the call ended and the trailing metadata."""
    with grpc.insecure_channel(address) as channel:
        ask = lstm_pb2_grpc.LstmServiceStub(channel).Step
        x = lstm_pb2.Tensor(shape=[1, 1], values=[INPUT])
        try:
            _, call = ask.with_call(request or lstm_pb2.StepRequest(x=x), metadata=metadata)
        except grpc.RpcError as error:
            call = error
        return call.code(), dict(call.trailing_metadata())


@pytest.fixture(scope="module")
def server():
    """Returns a server that logs all it has to say."""
    with serving(SUNSPOTS, "--log-level", "debug", *QUICK) as live:
        yield live


def test_the_id_of_a_request_comes_back_and_is_logged(server):
    """The id that a caller gives comes back with its answer or its refusal, and is in the log; without one there is a new one."""
    answered = step(server.address, ("x-request-id", "own-17"))
    refused = step(server.address, ("x-request-id", "own-18"), request=lstm_pb2.StepRequest(model="none"))
    made = [step(server.address)[1]["x-request-id"] for _ in range(2)]
    logged = server.wait_for("refused")

    assert (answered[0], answered[1]["x-request-id"]) == (grpc.StatusCode.OK, "own-17")
    assert (refused[0], refused[1]["x-request-id"]) == (grpc.StatusCode.NOT_FOUND, "own-18")
    assert (logged["request_id"], logged["reason"], logged["method"]) == ("own-18", "NO_SUCH_MODEL", "Step")
    assert [len(own) for own in made] == [32, 32]
    assert made[0] != made[1]


@pytest.mark.parametrize("given", ["", "x" * 129])
def test_what_is_no_id_is_replaced(server, given):
    """An id that would flood a log, or that is empty, is not taken."""
    _, trailing = step(server.address, ("x-request-id", given))

    assert len(trailing["x-request-id"]) == 32


class Collector:
    """A collector of traces: OTLP over HTTP."""

    def __init__(self):
        self.spans = queue.SimpleQueue()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Takes what is sent."""

            def do_POST(self):
                data = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    data = gzip.decompress(data)
                for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            collector.spans.put((resource.resource, span))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def until(self, wanted):
        """Returns the spans that came until one has a name."""
        found = []
        while not found or found[-1][1].name != wanted:
            found.append(self.spans.get(timeout=30))
        return found

    def close(self):
        """Takes no more."""
        self._server.shutdown()
        self._server.server_close()


def attributes(span):
    """Returns the attributes of a span."""
    return {item.key: item.value.string_value for item in span.attributes}


def test_a_call_is_traced_below_the_span_of_its_caller():
    """A collector gets a span for each call with its parts, in the trace that the caller began, and none for the health."""
    collector = Collector()
    quickly = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test"}
    with serving(SUNSPOTS, "--traces", collector.url, *QUICK, env=quickly) as live:
        run("health", "--address", live.address)
        step(live.address, ("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "traced"))
        found = collector.until("lstmserve.v1.LstmService/Step")
        step(live.address, request=lstm_pb2.StepRequest(model="none"))
        refused = collector.until("lstmserve.v1.LstmService/Step")[-1][1]
    collector.close()
    resource, span = found[-1]
    of_server = {item.key: item.value.string_value for item in resource.attributes}

    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (attributes(span)["rpc.grpc.status_code"], attributes(span)["lstmserve.request_id"]) == ("OK", "traced")
    assert sorted(part.name for _, part in found[:-1]) == ["compute", "decode", "encode", "queue"]
    assert {span.span_id} == {part.parent_span_id for _, part in found[:-1]}
    assert (of_server["service.name"], of_server["deployment.environment"]) == ("lstmserve", "test")
    assert attributes(refused)["rpc.grpc.status_code"] == "NOT_FOUND"


def test_a_long_call_is_traced_in_its_thread():
    """The parts of a call that is computed in a thread are below its span too."""
    collector = Collector()
    with serving(SUNSPOTS, "--traces", collector.url, *QUICK, env={"OTEL_BSP_SCHEDULE_DELAY": "50"}) as live:
        with Client(live.address) as client:
            client.forward([[[0.5]] * 500])
        found = collector.until("lstmserve.v1.LstmService/Forward")
    collector.close()

    assert {found[-1][1].span_id} == {part.parent_span_id for _, part in found[:-1]}


def test_channelz_tells_of_connections():
    """The address of --channelz answers with the servers of the process and the calls that they had."""
    with serving(SUNSPOTS, "--channelz", "127.0.0.1:0", *QUICK) as live:
        step(live.address)
        listen = next(entry["listen"] for entry in live.log if entry["event"] == "channelz")
        with grpc.insecure_channel(listen) as channel:
            servers = channelz_pb2_grpc.ChannelzStub(channel).GetServers(channelz_pb2.GetServersRequest()).server

    assert 1 in [found.data.calls_started for found in servers]


@pytest.mark.parametrize("flags", [("--channelz", "0.0.0.0:0"), ("--channelz", "127.0.0.1:0", "--workers", "2")])
def test_channelz_is_for_this_machine_alone(flags):
    """Where others could ask, or where it would tell of one process of several, the server does not start."""
    ended = run("serve", SUNSPOTS, *flags, "--listen", "127.0.0.1:0")

    assert ended.returncode == 2
    assert "Expected an address on this machine, and --workers 1" in ended.stderr


def test_every_call_has_a_line_at_the_level_of_debugging(server):
    """With --log-level debug a call is logged with its id, its method, how it ended and how long it took."""
    step(server.address, ("x-request-id", "own-19"))
    while True:
        line = server.wait_for("call")
        if line["request_id"] == "own-19":
            break

    assert {"method": "Step", "code": "OK", "level": "debug"}.items() <= line.items()
    assert 0 < line["seconds"] < 60
    assert str(INPUT) not in json.dumps(line)
