"""Clients that abuse HTTP/2: none of them costs a good client an answer, nor the server memory or descriptors for good."""

from __future__ import annotations

import socket
import struct

import pytest
from grpc_health.v1 import health_pb2

from lstmserve import tensors
from lstmserve.v1.lstm_pb2 import StepResponse
from tests.hostile import http2
from tests.hostile.bystander import MOST_GROWTH, OK, REQUEST, STEP, STREAM
from tests.hostile.http2 import block, frame, message, request_headers
from tests.support import resources

WATCH = "/grpc.health.v1.Health/Watch"


# Calls that never get anywhere.


def test_a_call_by_hand_is_answered(bystander):
    """The client of these tests gets the answer that a good one gets."""
    (connection,) = bystander.connections(1)
    answer = connection.answer(connection.call(STEP, message(REQUEST)))

    assert answer.grpc_status == OK
    assert tensors.decode(StepResponse.FromString(answer.message).output).tobytes() == bystander.expected


def test_bodies_that_never_come(bystander):
    """Hundreds of calls without their message, and with half of it, hold no one up."""
    for connection in bystander.connections(3):
        for _ in range(100):
            connection.call(STEP, None, end=False)
            connection.call(STEP, message(REQUEST)[:9], end=False)
        assert connection.ping()
    bystander.ask()


def test_calls_that_end_before_their_message(bystander):
    """Hundreds of calls that are half closed without a message hold no one up."""
    for connection in bystander.connections(3):
        for _ in range(200):
            connection.call(STEP, None)
        assert connection.ping()
    bystander.ask()


@pytest.mark.parametrize("path", [STEP, STREAM, WATCH])
def test_answers_that_nobody_reads(bystander, path):
    """Callers with a window of nothing, to whom no answer can be sent, hold no one up."""
    for connection in bystander.connections(2, settings={http2.INITIAL_WINDOW_SIZE: 0}):
        for _ in range(100):
            connection.call(path, message(b"" if path == WATCH else REQUEST))
        assert connection.ping()
    bystander.ask()


def test_streams_that_say_nothing(bystander):
    """Hundreds of streams without a message hold no one up."""
    for connection in bystander.connections(2):
        for _ in range(100):
            connection.call(STREAM, None, end=False)
        assert connection.ping()
    bystander.ask()


def test_callers_that_break_off(bystander):
    """Hundreds of connections that are reset in the middle of a message leave nothing behind."""
    for connection in bystander.connections(200):
        connection.call(STEP, message(REQUEST)[:-3], end=False)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.close()
    bystander.ask()


def test_more_streams_than_a_connection_may_have(bystander):
    """No connection has more streams than the server allows; the others are refused."""
    (connection,) = bystander.connections(1)
    most = connection.settings[http2.MAX_CONCURRENT_STREAMS]
    streams = [connection.call(STREAM, None, end=False) for _ in range(most + 20)]
    assert connection.ping()
    refused = [stream for stream in streams if stream in connection.answers and connection.answers[stream].ended]

    assert most >= len(streams) - len(refused)
    bystander.ask()


# Floods.


def test_rapid_reset(bystander):
    """Ten thousand calls that are taken back at once (CVE-2023-44487) hold no one up, and take little memory."""
    (connection,) = bystander.connections(1)
    headers, takes_back = block(request_headers(STEP)), struct.pack(">I", http2.CANCEL)
    for _ in range(10):
        streams = [connection.next_stream() for _ in range(1000)]
        connection.send(*(frame(http2.HEADERS, http2.END_HEADERS, stream, headers) + frame(http2.RST_STREAM, 0, stream, takes_back) for stream in streams))  # fmt: skip
        bystander.ask()
    connection.ping()


FLOODS = {
    "settings": frame(http2.SETTINGS, payload=http2.pairs({http2.INITIAL_WINDOW_SIZE: 65_535})),
    "settings acknowledged": frame(http2.SETTINGS, http2.ACK),
    "ping": frame(http2.PING, payload=bytes(8)),
    "window update": frame(http2.WINDOW_UPDATE, payload=struct.pack(">I", 1)),
    "window overflow": frame(http2.WINDOW_UPDATE, payload=struct.pack(">I", http2.LARGEST_WINDOW)),
    "priority": frame(http2.PRIORITY, 0, 1, bytes(5)),
    "priority of oneself": frame(http2.PRIORITY, 0, 1, struct.pack(">IB", 1, 0)),
    "reset of nothing": frame(http2.RST_STREAM, 0, 1001, bytes(4)),
    "empty data": frame(http2.DATA, 0, 1),
    "going away": frame(http2.GOAWAY, payload=bytes(8)),
    "unknown": frame(77, payload=bytes(8)),
    "push": frame(http2.PUSH_PROMISE, http2.END_HEADERS, 1, bytes(8)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods(bystander, name):
    """Ten thousand frames of a kind that asks for nothing hold no one up: the server continues, or closes the connection."""
    (connection,) = bystander.connections(1)
    connection.call(STEP, None, end=False)
    for _ in range(10):
        connection.send(FLOODS[name] * 1000)
        bystander.ask()

    assert connection.ping() or connection.closed


@pytest.mark.parametrize("size", [0, 8192])
def test_headers_without_end(bystander, size):
    """Thousands of CONTINUATION frames (CVE-2024-27316) are not collected."""
    (connection,) = bystander.connections(1)
    stream = connection.next_stream()
    header = block([("x", "a" * (size - 6))]) if size else b""
    connection.send(frame(http2.HEADERS, 0, stream, block(request_headers(STEP))))
    connection.send(*[frame(http2.CONTINUATION, 0, stream, header)] * 2000)
    connection.send(frame(http2.CONTINUATION, http2.END_HEADERS, stream))

    assert connection.answer(stream).ended or connection.closed
    assert bystander.before + MOST_GROWTH > resources.resident(bystander.pid)


# Connections that are none.


@pytest.mark.parametrize("greet", [True, False])
def test_hundreds_of_idle_connections(bystander, greet):
    """Three hundred connections that do nothing, with and without a preface, hold no one up."""
    bystander.connections(300, greet=greet)
    bystander.ask()


def test_a_preface_byte_by_byte(bystander):
    """Clients that take their time to say what they speak are heard to the end, while others are answered."""
    slow = bystander.connections(20, greet=False)
    for byte in http2.PREFACE + frame(http2.SETTINGS):
        for connection in slow:
            connection.send(bytes((byte,)))
        bystander.ask()

    assert [connection.answer(connection.call(STEP, message(REQUEST))).grpc_status for connection in slow] == [OK] * 20


NOISE = [
    b"\0\xff" * 500,
    b"GET / HTTP/1.1\r\n\r\n",
    http2.PREFACE + b"\xff" * 500,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
]


@pytest.mark.parametrize("noise", NOISE)
def test_noise(bystander, noise):
    """A connection that speaks something else is closed."""
    (connection,) = bystander.connections(1, greet=False)
    connection.send(noise)
    connection.until_closed()

    assert connection.closed


def test_frames_that_are_too_long(bystander):
    """A frame longer than any may be closes the connection, before it is read."""
    (connection,) = bystander.connections(1)
    connection.send(frame(http2.HEADERS, http2.END_HEADERS, 1, bytes(100), length=2**24 - 1))
    connection.until_closed()

    assert connection.closed


def test_the_service_is_well_behind_all_this(bystander):
    """Health says SERVING still."""
    (connection,) = bystander.connections(1)
    answer = connection.answer(connection.call("/grpc.health.v1.Health/Check", message(b"")))

    assert health_pb2.HealthCheckResponse.FromString(answer.message).status == health_pb2.HealthCheckResponse.SERVING
