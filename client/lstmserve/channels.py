"""Channels to one server or several: addresses, retry policy and limits, as gRPC's channel options."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any, Final

from lstmserve.credentials import Tls
from lstmserve.v1 import lstm_pb2, shadow_pb2

_SERVICE: Final = lstm_pb2.DESCRIPTOR.services_by_name["LstmService"]
_SHADOW_SERVICE: Final = shadow_pb2.DESCRIPTOR.services_by_name["ShadowService"]

# A call is a pure function of its request, so it may be sent again whenever it is not known to have been answered.
# CANCELLED is what gRPC's core answers to calls that meet a server in the moment when it stops.
_SERVICE_CONFIG: Final = json.dumps(
    {
        "methodConfig": [
            {
                # Not StreamSteps: what gRPC's core sends again of a stream that was refused may lack a message. `streams` continues
                # with a call of its own.
                "name": [
                    {"service": _SERVICE.full_name, "method": method.name}
                    for method in _SERVICE.methods
                    if not method.client_streaming
                ]
                + [{"service": _SHADOW_SERVICE.full_name, "method": "GetReport"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ],
        # Of several addresses each is used in turn, so that one that has died costs one attempt.
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
    }
)


def display_address(addresses: str | Sequence[str]) -> str:
    """Returns addresses as text for errors."""
    return addresses if isinstance(addresses, str) else ",".join(addresses)


def target(addresses: str | Sequence[str], tls: Tls | None = None) -> str:
    """Returns the gRPC target of one server, or of several equivalent ones.

    Raises:
        ValueError: one of several addresses is not host:port, or its host is not known; or the name that their certificates
            have is missing.
    """
    if isinstance(addresses, str):
        addresses = addresses.split(",")
    if len(addresses) == 1:
        return addresses[0]
    if tls is not None and tls.server_name is None:
        message = (
            "several addresses with TLS need the name that the certificates of all these servers have (server_name)"
        )
        raise ValueError(message)
    found = [_resolved(address.strip()) for address in addresses]
    family = "ipv4" if all(":" not in host for host, _ in found) else "ipv6"
    hosts = [f"{host}:{port}" if family == "ipv4" else f"[{_as_ipv6(host)}]:{port}" for host, port in found]
    return f"{family}:{','.join(hosts)}"


def _resolved(address: str) -> tuple[str, int]:
    """Returns the IP address of a host, and the port: gRPC accepts several addresses only as numbers."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        message = f"{address!r} is one of several addresses; expected HOST:PORT"
        raise ValueError(message)
    try:
        numbers = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        message = f"{address!r} is one of several addresses, and its host is not known: {error}"
        raise ValueError(message) from error
    preferred = sorted(numbers, key=lambda found: found[0] != socket.AF_INET)
    return str(preferred[0][4][0]), int(port)


def _as_ipv6(host: str) -> str:
    return host if ":" in host else f"::ffff:{host}"


def channel_options(max_message_bytes: int | None, tls: Tls | None = None) -> list[tuple[str, Any]]:
    """Returns gRPC's channel options: the retry policy, and how large a message may be (None: any size)."""
    limit = -1 if max_message_bytes is None else max_message_bytes
    return [
        ("grpc.service_config", _SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        # gRPC's own pauses, of 1 s to 120 s, are longer than all five attempts of a call take, which would all meet the
        # connection that broke; and a server that was away for a minute would be found a minute late.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # No server of ours compresses, and a few hundred kilobytes could become gigabytes.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        *([] if tls is None else tls.options()),
    ]
