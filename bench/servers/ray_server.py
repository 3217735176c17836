"""Ray Serve with its gRPC proxy and one replica, the textbook's NumPy behind.

python -m bench.servers.ray_server PORT UNITS
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.config import gRPCOptions

from bench import wire
from bench.ports import free_port


def add_service(servicer: Any, server: Any) -> None:
    """Adds the service to a server, as a function that protoc had written would."""
    import grpc  # noqa: PLC0415 - Ray calls this in a process of its own

    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Step, request_deserializer=wire.Raw.FromString, response_serializer=wire.Raw.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, {"Step": handler}),))


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Lstm:
    """The model."""

    def __init__(self, units: int) -> None:
        from bench.servers.textbook import stepper  # noqa: PLC0415 - in the replica's process

        self._step = stepper("textbook", units)

    async def Step(self, request: Any) -> Any:  # noqa: N802 - gRPC's name
        """Advances a row by a step."""
        from bench.servers.textbook import raw  # noqa: PLC0415 - in the replica's process

        return raw(self._step, request)


def main() -> None:
    """Serves until it is killed."""
    port, units = map(int, sys.argv[1:])
    ray.init(address="local", include_dashboard=False, log_to_driver=False, num_cpus=2)
    options = gRPCOptions(port=port, grpc_servicer_functions=["bench.servers.ray_server.add_service"])
    serve.start(http_options={"location": "HeadOnly", "port": free_port()}, grpc_options=options)
    serve.run(Lstm.bind(units), name="lstm")
    signal.pause()


if __name__ == "__main__":
    main()
