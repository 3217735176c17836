"""Conversations in HTTP/2 with a call or two in them, and damage to them: to bytes, to frames, to headers, to their order."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.fuzz.damage import damaged, overwritten
from tests.fuzz.seeds import Seed
from tests.fuzz.service import METHODS
from tests.hostile import http2

_TYPES: Final = (*range(10), 10, 77, 255)
_STREAMS: Final = (0, 1, 1, 1, 2, 3, 5, 101, 2**31 - 1, 2**31, 2**32 - 1)
_HEADERS: Final = (
    ("grpc-encoding", "gzip"), ("grpc-timeout", "1n"), ("grpc-timeout", "99999999999H"), ("content-type", "text/html"), ("te", ""),
    (":method", "GET"), (":path", "*"), (":path", "//"), ("connection", "close"), ("content-length", "-1"), ("x-bin", "="),
    ("x", "\0"), ("X", "x"), ("", ""), ("cookie", "a" * 9000), ("grpc-status", "0"), (":status", "200"),
)  # fmt: skip


def conversation(calls: list[Seed]) -> list[bytes]:
    """Returns all that a good client sends for some calls, frame by frame."""
    pieces = [http2.PREFACE, http2.frame(http2.SETTINGS, payload=http2.pairs({http2.INITIAL_WINDOW_SIZE: 2**31 - 1}))]
    for number, call in enumerate(calls):
        method, stream = METHODS[call.method], 2 * number + 1
        headers = http2.block(http2.request_headers(f"/{method.containing_service.full_name}/{method.name}"))
        pieces.append(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, headers))
        pieces += [http2.frame(http2.DATA, 0, stream, http2.message(message)) for message in call.messages]
        pieces.append(http2.frame(http2.DATA, http2.END_STREAM, stream))
    pieces += [http2.frame(http2.SETTINGS, http2.ACK), http2.frame(http2.PING, payload=bytes(8))]
    return pieces


def mutant(random: Random, pieces: list[bytes]) -> tuple[str, bytes]:
    """Returns a kind of damage, and a conversation that suffered it, or something that never was one."""
    match random.randrange(10):
        case 0:
            return "noise", random.randbytes(random.randint(0, 2000))
        case 1:
            return "noise after the preface", pieces[0] + random.randbytes(random.randint(0, 2000))
        case 2 | 3:
            frames = [_any_frame(random) for _ in range(random.randint(1, 20))]
            return "frames of any kind", b"".join((*pieces[: random.randint(1, 3)], *frames))
        case 4 | 5:
            return "damaged bytes", random.choice((damaged, overwritten))(
                random, b"".join(pieces), random.randint(1, 5)
            )
        case 6:
            return "other headers", b"".join(_with_other_headers(random, pieces))
        case _:
            return "damaged frames", b"".join(_with_other_frames(random, pieces))


def _any_frame(random: Random) -> bytes:
    size = random.choice((0, 1, 4, 5, 8, 9, 64, 300))
    payload = random.choice((bytes, random.randbytes))(size)
    length = random.choice((None, None, None, 0, 5, 16_384, 2**24 - 1))
    return http2.frame(random.choice(_TYPES), random.randrange(256), random.choice(_STREAMS), payload, length=length)


def _with_other_headers(random: Random, pieces: list[bytes]) -> list[bytes]:
    """Returns a conversation in which the headers of a call are odd ones, or no HPACK at all."""
    extra = random.sample(_HEADERS, random.randint(1, 3))
    block = http2.block([*http2.request_headers("/lstmserve.v1.LstmService/Step"), *extra])
    if random.random() < 0.5:
        block = overwritten(random, block, random.randint(1, 4))
    made = list(pieces)
    made[2] = http2.frame(http2.HEADERS, random.choice((http2.END_HEADERS, http2.END_HEADERS, 0, 5, 0x2C)), 1, block)
    return made


def _with_other_frames(random: Random, pieces: list[bytes]) -> list[bytes]:
    """Returns a conversation in which frames are missing, repeated, exchanged, changed or put in."""
    made = list(pieces)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(made))
        match random.randrange(6):
            case 0:
                del made[at]
            case 1:
                made[at:at] = [made[at]] * random.choice((1, 2, 200))
            case 2:
                other = random.randrange(len(made))
                made[at], made[other] = made[other], made[at]
            case 3:
                head = bytearray(made[at])
                head[random.randrange(min(9, len(head)))] = random.randrange(256)
                made[at] = bytes(head)
            case 4:
                made[at] = damaged(random, made[at])
            case _:
                made.insert(at, _any_frame(random))
        if not made:
            break
    return made
