"""Makes untrusted text printable: one place for errors, logs and terminals."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import Message

MAX_CHARACTERS: Final = 2000
"""Characters that are shown of a text; an error of ours has some hundreds."""


def printable(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Returns a text without what steers a terminal, forges a line or turns the direction of writing: escaped, as in Python.

    What is longer than `max_characters` is cut, and its length told.
    """
    whole = len(text)
    display_address = text[:max_characters]
    if not display_address.isprintable():
        escaped = (
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
            for letter in display_address
        )
        display_address = "".join(escaped)[:max_characters]
    return display_address if whole <= max_characters else f"{display_address} ... ({whole} characters)"


def make_printable(message: Message) -> None:
    """Makes every text in a message printable, in the messages that it holds too."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            _make_map_printable(value, of_texts=kind.fields_by_name["value"].type == field.TYPE_STRING)
        elif kind is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                make_printable(inner)
        elif isinstance(value, str):
            setattr(message, field.name, printable(value))
        elif field.type == field.TYPE_STRING:
            value[:] = map(printable, value)


def _make_map_printable(entries: Any, *, of_texts: bool) -> None:
    for key, value in list(entries.items()):
        if hasattr(value, "ListFields"):
            make_printable(value)
        elif isinstance(key, str):
            del entries[key]
            entries[printable(key)] = printable(value) if of_texts else value
