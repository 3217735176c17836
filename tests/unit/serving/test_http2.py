"""What the settings of a server are to gRPC's core."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lstmserve_server.serving import http2
from lstmserve_server.serving.settings import ServeSettings

SETTINGS = ServeSettings(("a.keras",))


@pytest.mark.parametrize(
    ("setting", "value", "option", "expected"),
    [
        ("handshake_seconds", 7, "grpc.server_handshake_timeout_ms", 7000),
        ("connection_idle_seconds", 11, "grpc.max_connection_idle_ms", 11_000),
        ("connection_seconds", 13, "grpc.max_connection_age_ms", 13_000),
        ("connection_seconds", 13, "grpc.max_connection_age_grace_ms", 13_000),
        ("keepalive_seconds", 17, "grpc.keepalive_time_ms", 17_000),
        ("min_ping_seconds", 3, "grpc.http2.min_ping_interval_without_data_ms", 3000),
        ("max_message_bytes", 12_345, "grpc.max_receive_message_length", 12_345),
        ("max_metadata_bytes", 4321, "grpc.max_metadata_size", 4321),
        ("max_metadata_bytes", 4321, "grpc.absolute_max_metadata_size", 8642),
        ("max_streams_per_connection", 77, "grpc.max_concurrent_streams", 77),
        ("max_pending_calls", 55, "grpc.server.max_pending_requests", 55),
        ("max_pending_calls", 55, "grpc.server.max_pending_requests_hard_limit", 110),
    ],
)
def test_a_setting_reaches_the_core_in_its_unit(setting, value, option, expected):
    assert dict(http2.options(replace(SETTINGS, **{setting: value}), shares_port=False))[option] == expected


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ("connection_idle_seconds", "grpc.max_connection_idle_ms"),
        ("connection_seconds", "grpc.max_connection_age_ms"),
        ("connection_seconds", "grpc.max_connection_age_grace_ms"),
    ],
)
def test_zero_is_for_ever(setting, option):
    assert dict(http2.options(replace(SETTINGS, **{setting: 0}), shares_port=False))[option] == 2**31 - 1
