"""Damage to messages by who knows their fields: numbers, lengths, types, order, repetition and nesting."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tests.fuzz.damage import damaged

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

NUMBERS: Final = (0, 1, 2, 3, 4, 5, 7, 127, 128, 255, 1023, 1024, 1025, 65_535, 65_536, 65_537, 2**31 - 1, 2**31, 2**32,
                  2**40, 2**53 + 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 3)  # fmt: skip
DOUBLES: Final = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1e30,
    -1e30,
    3.5e38,
    1e300,
    5e-324,
    1e-40,
    float("inf"),
    float("-inf"),
    float("nan"),
)
TEXTS: Final = (
    b"",
    b"\0",
    b"../../etc/passwd",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"sunspots",
    b"a\r\nb",
    "s\u00fcn".encode(),
    b"x" * 70_000,
)

_DEEPEST: Final = 200  # protobuf gives up at 100

Part = list[Any]
"""One field: number, wire type, and value: a number, or bytes."""


class Mutator:
    """Makes mutants of valid messages.

    Args:
        random: where chance comes from.
        donors: other valid messages, whose fields may turn up in a mutant.
    """

    def __init__(self, random: Random, donors: list[bytes]) -> None:
        self._random = random
        self._donors = donors
        self._structural: tuple[Callable[[list[Part]], None], ...] = (
            self._drop,
            self._repeat,
            self._swap,
            self._renumber,
            self._retype,
            self._graft,
            self._nest,
        )

    def mutant(self, descriptor: Descriptor, data: bytes) -> bytes:
        """Returns a message with one to three of its fields changed, and now and then with damaged bytes."""
        for _ in range(self._random.randint(1, 3)):
            try:
                data = self._changed(descriptor, data)
            except (IndexError, struct.error):  # the change before this one left what is not a message any more
                break
        if self._random.random() < 0.2:
            data = damaged(self._random, data, self._random.randint(1, 3))
        return data

    def _changed(self, descriptor: Descriptor, data: bytes) -> bytes:
        parts = split(data)
        if not parts or self._random.random() < 0.15:
            self._structural[self._random.randrange(len(self._structural))](parts)
            return joined(parts)
        messages = [part for part in parts if part[1] == LENGTH and _is_message(descriptor, part[0])]
        part = self._random.choice(messages if messages and self._random.random() < 0.7 else parts)
        field = descriptor.fields_by_number.get(part[0])
        if part in messages and self._random.random() < 0.9:
            part[2] = self._changed(descriptor.fields_by_number[part[0]].message_type, part[2])
        elif part[1] == VARINT:
            part[2] = self._number()
        elif part[1] == LENGTH:
            part[2] = self._other_bytes(field, part[2])
        else:
            part[2] = damaged(self._random, part[2])[: len(part[2])].ljust(len(part[2]), b"\0")
        return joined(parts)

    def _number(self) -> int:
        if self._random.random() < 0.8:
            return self._random.choice(NUMBERS)
        return self._random.getrandbits(self._random.randint(1, 64))

    def _other_bytes(self, field: FieldDescriptor | None, value: bytes) -> bytes:
        kind = None if field is None else field.type
        match kind:
            case FieldDescriptor.TYPE_STRING:
                return self._random.choice(TEXTS) if self._random.random() < 0.7 else damaged(self._random, value)
            case FieldDescriptor.TYPE_INT64:
                return self._other_numbers(value)
            case FieldDescriptor.TYPE_DOUBLE:
                return self._other_floats(value, "<d")
            case FieldDescriptor.TYPE_BYTES:
                return self._other_floats(value, self._random.choice(("<f", "<f", "<d", "<e")))
            case _:
                return damaged(self._random, value)

    def _other_numbers(self, value: bytes) -> bytes:
        """Returns packed numbers with one changed, added or removed."""
        numbers, place = [], 0
        while place < len(value):
            number, place = read_varint(value, place)
            numbers.append(number)
        at = self._random.randrange(len(numbers) + 1)
        if at == len(numbers) or self._random.random() < 0.2:
            numbers[at:at] = [self._number()] * self._random.choice((1, 1, 1, 2, 70))
        elif self._random.random() < 0.2:
            del numbers[at]
        else:
            numbers[at] = self._number()
        return b"".join(map(varint, numbers))

    def _other_floats(self, value: bytes, layout: str) -> bytes:
        """Returns floating-point numbers with one changed, or of another length."""
        size = struct.calcsize(layout)
        if len(value) < size or self._random.random() < 0.25:
            return damaged(self._random, value)
        at = self._random.randrange(len(value) // size) * size
        number = self._random.choice(DOUBLES)
        try:
            packed = struct.pack(layout, number)
        except OverflowError:
            packed = struct.pack(layout, float("inf"))
        return value[:at] + packed + value[at + size :]

    def _drop(self, parts: list[Part]) -> None:
        if parts:
            del parts[self._random.randrange(len(parts))]

    def _repeat(self, parts: list[Part]) -> None:
        if parts:
            parts.extend([self._random.choice(parts)] * self._random.choice((1, 1, 2, 300)))

    def _swap(self, parts: list[Part]) -> None:
        self._random.shuffle(parts)

    def _renumber(self, parts: list[Part]) -> None:
        if parts:
            self._random.choice(parts)[0] = self._random.choice((1, 2, 3, 4, 5, 6, 7, 8, 19_000, 2**29 - 1, 0))

    def _retype(self, parts: list[Part]) -> None:
        if parts:
            self._random.choice(parts)[1] = self._random.choice((0, 1, 2, 3, 4, 5, 6, 7))

    def _graft(self, parts: list[Part]) -> None:
        donor = split(self._random.choice(self._donors))
        if donor:
            parts.insert(self._random.randrange(len(parts) + 1), self._random.choice(donor))

    def _nest(self, parts: list[Part]) -> None:
        """Puts a message into itself, often."""
        number, data = self._random.randint(1, 7), joined(parts)
        for _ in range(self._random.choice((1, 2, _DEEPEST))):
            data = joined([[number, LENGTH, data]])
        parts[:] = [*parts, *split(data)]


def _is_message(descriptor: Descriptor, number: int) -> bool:
    field = descriptor.fields_by_number.get(number)
    return field is not None and field.message_type is not None


def split(data: bytes) -> list[Part]:
    """Returns the fields of a message.

    Raises:
        IndexError, struct.error: it is none.
    """
    parts, place = [], 0
    while place < len(data):
        tag, place = read_varint(data, place)
        wire = tag & 7
        value: int | bytes
        if wire == VARINT:
            value, place = read_varint(data, place)
        elif wire in (FIXED64, FIXED32, LENGTH):
            length = 8 if wire == FIXED64 else 4
            if wire == LENGTH:
                length, place = read_varint(data, place)
            value, place = data[place : place + length], place + length
        else:
            raise IndexError(place)
        parts.append([tag >> 3, wire, value])
    if place > len(data):
        raise IndexError(place)
    return parts


def joined(parts: list[Part]) -> bytes:
    """Returns the message of fields, whatever their types and values."""
    made = bytearray()
    for number, wire, value in parts:
        made += varint(number << 3 | wire)
        if wire == LENGTH:
            value = varint(value) if isinstance(value, int) else value  # noqa: PLW2901 - of a field of another type
            made += varint(len(value)) + value
        else:
            made += varint(value) if isinstance(value, int) else value
    return bytes(made)


def varint(number: int) -> bytes:
    """Returns a number of up to 64 bits as protobuf writes it."""
    if number < 0x80:
        return bytes((number,))
    made = bytearray()
    while number >= 0x80:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Returns the number at a place, and the place after it."""
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
