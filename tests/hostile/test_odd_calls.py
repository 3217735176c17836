"""Calls by hand whose message, headers or path are not what a gRPC library sends: each ends by itself, and costs no one else."""

from __future__ import annotations

import zlib

import pytest

from lstmserve import Client
from tests.hostile import http2
from tests.hostile.bystander import (
    INTERNAL,
    INVALID_ARGUMENT,
    MOST_GROWTH,
    OK,
    REQUEST,
    RESOURCE_EXHAUSTED,
    STEP,
    STREAM,
    UNIMPLEMENTED,
    UNKNOWN,
    X,
    bomb,
    peak,
)
from tests.hostile.http2 import Connection, message
from tests.support import live
from tests.support.paths import SUNSPOTS

# Messages that are not what they seem.


@pytest.mark.parametrize("path", [STEP, STREAM])
def test_a_gzip_bomb(bystander, path):
    """A message of 128 kB that unpacks to 128 MB is refused, and never unpacked whole."""
    (connection,) = bystander.connections(1)
    answer = connection.answer(
        connection.call(path, message(bomb(128 << 20), flag=1), extra=[("grpc-encoding", "gzip")])
    )

    assert answer.grpc_status in (RESOURCE_EXHAUSTED, UNIMPLEMENTED)
    assert bystander.before + MOST_GROWTH > peak(bystander.pid)


@pytest.mark.parametrize("path", [STEP, STREAM])
def test_a_message_of_four_gigabytes(bystander, path):
    """A message that announces four gigabytes is refused, or at least never collected: 64 MB of it are sent."""
    (connection,) = bystander.connections(1)
    stream = connection.call(path, message(bytes(100), length=2**32 - 1), end=False)
    for _ in range(64):
        connection.data(stream, bytes(1 << 20))
    connection.ping()

    assert connection.answer(stream).grpc_status == RESOURCE_EXHAUSTED
    assert bystander.before + MOST_GROWTH > peak(bystander.pid)


@pytest.mark.parametrize(
    "options",
    [
        {"body": message(REQUEST, flag=1)},
        {"body": message(REQUEST, flag=7)},
        {"body": message(REQUEST, flag=1), "extra": [("grpc-encoding", "br")]},
        {"body": message(zlib.compress(REQUEST)[:-4], flag=1), "extra": [("grpc-encoding", "deflate")]},
    ],
)
def test_messages_that_cannot_be_unpacked(bystander, options):
    """A message that says it is packed and is not, or is so in an unknown way, is not a fault of the server's."""
    (connection,) = bystander.connections(1)
    stream = connection.call(STREAM, **options)
    answer = connection.answer(stream)

    assert answer.ended
    assert answer.grpc_status in (None, INVALID_ARGUMENT, UNIMPLEMENTED, OK, INTERNAL, RESOURCE_EXHAUSTED)
    bystander.ask()


# Headers.


@pytest.mark.parametrize(
    "extra",
    [
        [("x", "a" * 40_000)],
        [(f"x{number}", "a" * 100) for number in range(400)],
        [("grpc-timeout", "soon")],
        [("grpc-timeout", "0n")],
        [(":method", "GET")],
        [(":scheme", "gopher")],
        [("te", "nothing")],
        [("x-bin", "!!!")],
        [("X", "x")],
        [("x", "\0\n")],
    ],
)
def test_odd_headers(bystander, extra):
    """Headers that are too long, too many or make no sense end the call at most, and never in silence."""
    (connection,) = bystander.connections(1)
    answer = connection.answer(connection.call(STEP, message(REQUEST), extra=extra))

    assert answer.ended or connection.closed
    bystander.ask()


@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/grpc-web", "application/grpc+json", ""])
def test_other_content_types(bystander, kind):
    """A call of another content type is refused, or answered as any."""
    (connection,) = bystander.connections(1)
    answer = connection.answer(connection.call(STEP, message(REQUEST), extra=[("content-type", kind)]))

    assert answer.ended
    assert answer.grpc_status in (None, OK, INVALID_ARGUMENT, UNKNOWN)


@pytest.mark.parametrize(
    "path", ["/a/B", "", "*", "//", STEP.lower(), f"{STEP}/", f"/{STEP}", STEP.replace("Step", "%53tep")]
)
def test_methods_that_are_not_there(bystander, path):
    """A path that is not exactly one of ours is UNIMPLEMENTED."""
    (connection,) = bystander.connections(1)

    assert connection.answer(connection.call(path, message(REQUEST))).grpc_status == UNIMPLEMENTED


def test_a_path_that_is_no_text():
    """A path that is not UTF-8 ends its own call at most, not the server."""
    with live.serving(f"sunspots={SUNSPOTS}", *live.QUICK) as server, Client(server.address, timeout=2) as client:
        before = client.step(X).output.tobytes()
        with Connection(server.address) as connection:
            assert connection.answer(connection.call("/\x80", message(REQUEST))).ended

        assert before == client.step(X).output.tobytes()


def test_strangers_write_nothing_into_the_log():
    """A frame with a line of JSON in it, and odd headers, leave no line in the log."""
    with live.serving(f"sunspots={SUNSPOTS}", *live.QUICK) as server:
        with Connection(server.address) as connection:
            connection.answer(connection.call(STEP, message(REQUEST), extra=[("te", "nothing")]))
            forged = b'\n{"event": "forged", "level": "error"}\n'
            connection.send(http2.frame(http2.GOAWAY, payload=bytes(8) + forged))
            connection.ping()
        server.stop()

    assert [entry for entry in server.log if entry["event"] == "forged"] == []
    assert server.noise == []
