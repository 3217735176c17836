"""Options of gRPC's core for HTTP/2 and connections, each with its reason.

The names are those of grpc_types.h and, where undocumented, of the pinned core: `tests/unit/serving/test_http2.py` and
`tests/hostile` check that each works.
"""

from __future__ import annotations

from typing import Final

import grpc

from lstmserve_server.serving.settings import ServeSettings

_KEEPALIVE_PATIENCE: Final = 20  # seconds for the answer to a ping
_NEVER: Final = 2**31 - 1  # milliseconds, as gRPC says it


def options(settings: ServeSettings, *, shares_port: bool) -> list[tuple[str, int]]:
    """Returns the options of a gRPC server.

    Args:
        settings: those of the server.
        shares_port: whether other processes listen on the same port; the supervisor has reserved it.
    """
    return [
        # A second server on the same port is a mistake, and by default gRPC would share the port with it in silence.
        ("grpc.so_reuseport", int(shares_port)),
        *_messages(settings),
        *_calls(settings),
        *_connections(settings),
    ]


def _messages(settings: ServeSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # the codec refuses what is too long before it is computed
        # A call above the first may be refused, and one above the second is.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", 2 * settings.max_metadata_bytes),
        # No compression: a few kilobytes would become a message of the largest size, which takes memory and a second each.
        # Numbers hardly get smaller by it.
        ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression),
    ]


def _calls(settings: ServeSettings) -> list[tuple[str, int]]:
    return [
        # Without a bound the core's defenses against floods of new streams on one connection are off. It is well below what the
        # health service lets watch, so that no single connection can take all places there.
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # To refuse a call in Python costs nearly as much as to answer it. So where more come than Python can even refuse, the core
        # does, before Python hears of them. Otherwise all would wait, and all for longer than their callers do.
        ("grpc.server.max_pending_requests", settings.max_pending_calls),
        ("grpc.server.max_pending_requests_hard_limit", 2 * settings.max_pending_calls),
        ("grpc.server_max_unrequested_time_in_server", 10),  # seconds that one of them may wait
    ]


def _connections(settings: ServeSettings) -> list[tuple[str, int]]:
    idle, age = settings.connection_idle_seconds * 1000, settings.connection_seconds * 1000
    return [
        # Who connects and says nothing is let go soon; who has said something, and is silent since, later.
        ("grpc.server_handshake_timeout_ms", settings.handshake_seconds * 1000),
        ("grpc.max_connection_idle_ms", idle or _NEVER),
        # Clients that balance by themselves choose a server when they connect: this makes them choose again.
        ("grpc.max_connection_age_ms", age or _NEVER),
        ("grpc.max_connection_age_grace_ms", age or _NEVER),
        # A client whose machine is gone is silent; without pings its streams would stay open for ever.
        ("grpc.keepalive_time_ms", settings.keepalive_seconds * 1000),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_PATIENCE * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Pings cost something to answer: two that come too soon, and the connection is closed (ENHANCE_YOUR_CALM).
        ("grpc.http2.min_ping_interval_without_data_ms", settings.min_ping_seconds * 1000),
        ("grpc.http2.max_ping_strikes", 2),
    ]
