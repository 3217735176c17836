"""The service as tutorials have it: grpcio with a thread pool, numbers as `repeated float` or as bytes, an engine behind.

python -m bench.servers.textbook PORT ENGINE UNITS WIRE

WIRE: "floats" or "raw".
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from bench import engines, subject, wire

THREADS = 10


def floats(step: Any, request: Any) -> Any:
    """Answers a message of `repeated float`."""
    made = step(*(np.array(values, np.float32)[None] for values in (request.x, request.h, request.c)))
    y, h, c = (array[0].tolist() for array in made)
    return wire.Floats(y=y, h=h, c=c)


def raw(step: Any, request: Any) -> Any:
    """Answers a message of bytes."""
    made = step(*(np.frombuffer(data, np.float32)[None] for data in (request.x, request.h, request.c)))
    y, h, c = (array.tobytes() for array in made)
    return wire.Raw(y=y, h=h, c=c)


def stepper(engine: str, units: int) -> Callable[..., Any]:
    """Returns what advances a row by a step, x (1, features) and h and c (1, units), and gives y, h and c."""
    weights = subject.weights(units)
    run = engines.make(engine, weights, 1, 1)

    def step(x: Any, h: Any, c: Any) -> Any:
        _, h, c = run(x[:, None], h, c)
        return h @ weights.head_kernel + weights.head_bias, h, c

    return step


def main() -> None:
    """Serves until it is killed."""
    port, engine, units, form = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    step = stepper(engine, units)
    message, answer = (wire.Floats, floats) if form == "floats" else (wire.Raw, raw)
    handler = grpc.unary_unary_rpc_method_handler(
        lambda request, _: answer(step, request),
        request_deserializer=message.FromString,
        response_serializer=message.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, {"Step": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
