"""The service without gRPC: the models, and bytes in, messages out, on the way that a call takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Self

from google.protobuf import message_factory
from google.protobuf.message import Message

from lstmserve.v1 import lstm_pb2
from lstmserve_server.core.errors import RequestError
from lstmserve_server.loading import reader
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.rpc import dispatcher
from lstmserve_server.rpc.auth import authenticators, callers
from lstmserve_server.rpc.servicers import SERVICE, SHADOW_SERVICE
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.serving.server import Server
from lstmserve_server.serving.settings import ServeSettings
from tests.support.paths import ROOT, SUNSPOTS

FIXTURES: Final = ROOT / "tests" / "fixtures"
MODELS: Final = {
    "sunspots": SUNSPOTS,  # plain
    "words": FIXTURES / "keras3.15" / "lstm_emb_mask.keras",  # token ids and a mask
    "windows": FIXTURES / "keras3.15" / "conv_bn_ln_lstm.keras",  # a state that is no h and c
    "backwards": FIXTURES / "keras3.15" / "bilstm_concat.keras",  # a model that cannot be stepped
    "several": FIXTURES / "keras3.15" / "func_state_io.keras",  # several inputs and outputs
    "doubles": FIXTURES / "keras3.15" / "lstm_float64.keras",
    "unbounded": FIXTURES / "keras3.15" / "lstm_seq_relu_hardsig_nobias.keras",
}
"""A model of each kind, and what serves it."""

STREAM: Final = "StreamSteps"
METHODS: Final = {method.name: method for service in (SERVICE, SHADOW_SERVICE) for method in service.methods}
REQUESTS: Final = {name: message_factory.GetMessageClass(method.input_type) for name, method in METHODS.items()}


class Service:
    """Answers calls in this process, as a server that never listened."""

    def __init__(self, server: Server) -> None:
        self._servicers = server._dispatcher._servicers
        self.models: list[ServedModel] = list(self._servicers[SERVICE]._registry)

    @classmethod
    async def ready(cls) -> Self:
        """Returns a service with all its models."""

        async def load() -> list[ServedModel]:
            """Loads them here, where a real server has them parsed elsewhere."""
            return [ServedModel.prepare(name, reader.load(path), Numerics.EXACT) for name, path in MODELS.items()]

        server = Server(ServeSettings(models=()), {name: str(path) for name, path in MODELS.items()}, load, None)
        await server.make_ready()
        return cls(server)

    async def answer(self, method: str, data: bytes) -> Message:
        """Returns the response to a request.

        Raises:
            RequestError: it is refused.
        """
        request = dispatcher._parse(REQUESTS[method], data)
        answering = getattr(self._servicers[METHODS[method].containing_service], method)(request)
        if METHODS[method].server_streaming:
            async for response in answering:
                return response  # the first is enough
        return await answering

    async def converse(
        self, messages: Sequence[bytes]
    ) -> tuple[list[lstm_pb2.StreamStepsResponse], RequestError | None]:
        """Returns the responses to the messages of a stream, and what ended it before its time."""
        stream = _Stream(messages)
        try:
            await self._servicers[SERVICE].StreamSteps(stream)
        except RequestError as error:
            return stream.responses, error
        return stream.responses, None


class _Stream:
    """The other end of a stream, which sends all it has and reads all it gets."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.responses: list[Any] = []
        self.admission = authenticators.Admission(authenticators.Token(callers.ANONYMOUS), STREAM)
        self._messages = iter(messages)

    async def read(self) -> Any:
        """Returns the next message; None when there are no more."""
        data = next(self._messages, None)
        return None if data is None else dispatcher._parse(REQUESTS[STREAM], data)

    async def write(self, response: Message) -> None:
        """Takes a response, encoded once as gRPC would."""
        response.SerializeToString()
        self.responses.append(response)
