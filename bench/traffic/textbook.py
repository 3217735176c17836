"""The server that one would write in an afternoon: grpcio with threads and its defaults, the same bytes and the same arithmetic.

    python -m bench.traffic.textbook NAME=FILE

It says its address on a line of its own, and serves `Step` until it is ended.
"""

# ruff: noqa: T201 - it says its address

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from lstmserve.v1 import lstm_pb2
from lstmserve_server.rpc.codec.requests import Codec, RequestLimits
from lstmserve_server.runtime.registry import Registry
from lstmserve_server.serving import models
from lstmserve_server.serving.settings import ServeSettings

SAYS = "listening: "
THREADS = 10
"""As in the examples of gRPC."""


def step(codec: Codec, request: lstm_pb2.StepRequest, _: Any) -> lstm_pb2.StepResponse:
    """Answers a call."""
    call = codec.parse_step(request)
    answer = call.served.model.step(call.x, call.state, call.seen, call.recording)
    return codec.step_response(call, answer, None)


def main(arguments: Sequence[str]) -> None:
    """Serves."""
    settings = ServeSettings(models=tuple(arguments))
    served = asyncio.run(models.from_files(settings, models.by_name(settings.models)))
    limits = RequestLimits(
        rows=settings.max_rows,
        steps=settings.max_steps,
        message_bytes=settings.max_message_bytes,
        sequence_bytes=settings.max_sequence_bytes,
    )
    handler = grpc.unary_unary_rpc_method_handler(
        functools.partial(step, Codec(Registry(served), limits)),
        lstm_pb2.StepRequest.FromString,
        lstm_pb2.StepResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("lstmserve.v1.LstmService", {"Step": handler}),)
    )
    print(f"{SAYS}127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1:])
