"""Damaged conversations in HTTP/2, and noise, to a server."""

from __future__ import annotations

import asyncio
import contextlib
import random
from time import perf_counter
from typing import Final

from tests.fuzz import conversations, seeds
from tests.fuzz.seeds import Seed
from tests.fuzz.server import Victim, victim
from tests.fuzz.tally import Tally
from tests.hostile import http2

_AT_ONCE: Final = 32
_PATIENCE: Final = 20  # seconds until the server has closed a connection of which it has read the end


def run(count: int, seed: int) -> Tally:
    """Makes odd connections: the server closes each, and answers good calls with the same bytes as ever."""
    with victim() as attacked:
        tally = Tally("connections", count, attacked.pid)
        asyncio.run(_attack(attacked, tally, random.Random(seed)))
        attacked.end(tally)
    return tally


async def _attack(attacked: Victim, tally: Tally, chance: random.Random) -> None:
    calls: list[Seed] = await seeds.valid()
    waiting: list[tuple[str, bytes]] = []
    for number in tally.numbers():
        pieces = conversations.conversation(chance.sample(calls, chance.randint(1, 3)))
        waiting.append(conversations.mutant(chance, pieces))
        if len(waiting) == _AT_ONCE or number == tally.count - 1:
            talks = (_talk(attacked.address, *what, tally, gone=chance.random() < 0.2) for what in waiting)
            await asyncio.gather(*talks)
            await asyncio.to_thread(attacked.check, tally)
            if tally.failures:  # what comes after this says nothing any more
                for kind, data in waiting:
                    tally.fail(f"it may have been: {kind}", data)
                break
            waiting.clear()


async def _talk(address: str, kind: str, data: bytes, tally: Tally, *, gone: bool) -> None:
    """Sends what there is to send, and reads to the end; or does not even wait for the end."""
    began = perf_counter()
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        tally.fail(f"no connection: {error!r}")
        return
    received = b""
    try:
        writer.write(data)
        if gone:
            writer.transport.abort()
        else:
            with contextlib.suppress(OSError):
                writer.write_eof()
            received = await asyncio.wait_for(reader.read(), _PATIENCE)
    except TimeoutError:
        tally.fail(f"{kind}: the connection was not closed in {_PATIENCE} seconds", data)
    except ConnectionError:
        received += b""
    finally:
        writer.transport.abort()
    tally.add("left" if gone else _outcome(received), perf_counter() - began)


def _outcome(received: bytes) -> str:
    """Returns what the server made of a conversation, by the most decisive frame that it sent."""
    kinds, place = set(), 0
    while place + 9 <= len(received):
        kinds.add(received[place + 3])
        place += 9 + int.from_bytes(received[place : place + 3], "big")
    for kind, name in ((http2.HEADERS, "answered"), (http2.RST_STREAM, "stream reset"), (http2.GOAWAY, "sent away")):
        if kind in kinds:
            return name
    return "closed"
