"""Damage to bytes, by who knows nothing of what they mean."""

from __future__ import annotations

from random import Random
from typing import Final

_LONGEST_PIECE: Final = 32
_NUMBERS: Final = (
    0,
    1,
    2,
    8,
    127,
    128,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def damaged(random: Random, data: bytes, times: int = 1) -> bytes:
    """Returns bytes after some flips, cuts, insertions, removals and repetitions at random places."""
    made = bytearray(data)
    for _ in range(times):
        _KINDS[random.randrange(len(_KINDS))](random, made)
    return bytes(made)


def overwritten(random: Random, data: bytes, times: int = 1) -> bytes:
    """Returns bytes of which some were changed where they stand: single bits, bytes, and whole numbers."""
    made = bytearray(data)
    for _ in range(times):
        if random.random() < 0.3:
            size = random.choice((1, 2, 4, 8))
            place = random.randrange(max(1, len(made) - size))
            made[place : place + size] = (random.choice(_NUMBERS) % 256**size).to_bytes(size, "little")
        else:
            random.choice((_flip, _replace))(random, made)
    return bytes(made)


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _replace(random: Random, data: bytearray) -> None:
    if data:
        data[random.randrange(len(data))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))


def _cut(random: Random, data: bytearray) -> None:
    if data:
        del data[random.randrange(len(data)) :]


def _insert(random: Random, data: bytearray) -> None:
    place = random.randrange(len(data) + 1)
    data[place:place] = random.randbytes(random.randint(1, 8))


def _remove(random: Random, data: bytearray) -> None:
    begin, end = _piece(random, data)
    del data[begin:end]


def _repeat(random: Random, data: bytearray) -> None:
    begin, end = _piece(random, data)
    data[begin:begin] = data[begin:end] * random.randint(1, 4)


def _move(random: Random, data: bytearray) -> None:
    begin, end = _piece(random, data)
    piece = data[begin:end]
    del data[begin:end]
    place = random.randrange(len(data) + 1)
    data[place:place] = piece


def _piece(random: Random, data: bytearray) -> tuple[int, int]:
    begin = random.randrange(len(data) + 1)
    return begin, min(len(data), begin + random.randint(1, _LONGEST_PIECE))


_KINDS: Final = (_flip, _flip, _flip, _replace, _replace, _cut, _insert, _remove, _repeat, _move)
