"""Server reflection for tools such as grpcurl.

The library answers. This module adds what it lacks: a malformed message ends the call with INVALID_ARGUMENT, and a caller needs a
token if the server has tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from lstmserve_server.core.errors import RequestError
from lstmserve_server.rpc import status
from lstmserve_server.rpc.auth.authenticators import Authenticator, while_admitted

Context = grpc.aio.ServicerContext[bytes, bytes]

SERVICES: Final = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")
"""The names that it is asked by: the messages of both are the same."""


def handlers(services: Iterable[str], access: Authenticator) -> dict[str, grpc.RpcMethodHandler[bytes, bytes]]:
    """Returns the handler of the service, which describes some services to authenticated callers."""
    servicer: Any = ReflectionServicer([*services, *SERVICES])

    async def answer(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Answers a stream of requests."""
        try:
            with access.authenticate(context.invocation_metadata()).admission() as admission:
                answers = servicer.ServerReflectionInfo(_parsed(requests, context), context)
                async with contextlib.aclosing(while_admitted(answers, admission)) as responses:
                    async for response in responses:
                        yield response.SerializeToString()
        except RequestError as error:
            await status.abort(context, status.status_of(error))

    return {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(answer)}


async def _parsed(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
    async for data in requests:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError:
            text = f"got {len(data)} bytes that are not a valid ServerReflectionRequest"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
