"""Health checks of strangers and of many watchers."""

from __future__ import annotations

import contextlib

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lstmserve_server.core.errors import RequestError
from lstmserve_server.rpc import health
from lstmserve_server.rpc.auth import authenticators
from tests.integration.test_tokens import File
from tests.support.live import QUICK, serving
from tests.support.paths import SUNSPOTS


def check(live, service="", token=None):
    """Returns the status of a service, or the code and text of the refusal."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(live.address) as channel:
        try:
            ask = health_pb2_grpc.HealthStub(channel).Check
            return ask(health_pb2.HealthCheckRequest(service=service), metadata=metadata).status
        except grpc.RpcError as error:
            return error.code(), error.details()


def test_health_tells_a_stranger_of_no_model(tmp_path):
    """Neither that there is one nor what it is called; who has a token is told of those that it may use."""
    file = File(tmp_path / "tokens.toml")
    token, narrow = file.add("reader"), file.add("narrow", models=["right"])
    service = health.service_of_model("left")
    with serving(f"left={SUNSPOTS}", f"right={SUNSPOTS}", "--tokens", file.write(), *QUICK) as live:
        assert check(live) == health_pb2.HealthCheckResponse.SERVING
        assert check(live, "lstmserve.v1.LstmService") == health_pb2.HealthCheckResponse.SERVING
        refusals = {check(live, service), check(live, service, narrow), check(live, service, "lsk_wrong")}
        (code, text), *others = refusals
        assert check(live, service, token) == health_pb2.HealthCheckResponse.SERVING
        assert check(live, health.service_of_model("right"), narrow) == health_pb2.HealthCheckResponse.SERVING
        unknown = check(live, health.service_of_model("middle"))

    assert (code, others) == (grpc.StatusCode.NOT_FOUND, [])
    assert text.replace("left", "middle") == unknown[1]
    assert "right" not in text


class Watching:
    """A call of Watch, without gRPC."""

    def __init__(self, handler, host, token=None):
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._host = host
        self.aborted = None
        self.responses = handler(health_pb2.HealthCheckRequest().SerializeToString(), self)

    def invocation_metadata(self):
        """Returns the metadata."""
        return self._metadata

    def peer(self):
        """Returns where it comes from."""
        return f"ipv4:{self._host}:1234"

    async def abort(self, code, *_):
        """Ends it."""
        self.aborted = code
        raise RequestError("", "aborted")


async def test_one_stranger_does_not_take_all_watchers_places(monkeypatch, tmp_path):
    """Another host, and a caller with a token, still find one; an ended watcher gives its place back."""
    monkeypatch.setattr(health, "MAX_WATCHERS", 19)
    file = File(tmp_path / "tokens.toml")
    token = file.add("reader")
    watch = (
        health.Health([""], [])
        .handlers(authenticators.TokenAuth(file.write(), lambda file, accepted: None), is_open=True)["Watch"]
        .unary_stream
    )
    greedy = [Watching(watch, "192.0.2.1") for _ in range(19)]
    for call in greedy:
        with contextlib.suppress(RequestError):
            await anext(call.responses)
    assert greedy[-1].aborted == grpc.StatusCode.RESOURCE_EXHAUSTED
    others = [Watching(watch, "192.0.2.2"), Watching(watch, "192.0.2.1", token)]
    for call in others:
        await anext(call.responses)
        assert call.aborted is None
    for call in greedy[:5]:
        await call.responses.aclose()
    await anext(Watching(watch, "192.0.2.1").responses)
