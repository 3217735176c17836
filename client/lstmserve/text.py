"""Text that came from outside, made fit to be shown: one place for errors, logs and terminals."""

from __future__ import annotations

from typing import Final

MAX_CHARACTERS: Final = 2000
"""Characters that are shown of a text; an error of ours has some hundreds."""


def printable(text: str, max_characters: int = MAX_CHARACTERS) -> str:
    """Returns a text without what steers a terminal, forges a line or turns the direction of writing: escaped, as in Python.

    What is longer than `max_characters` is cut, and its length told.
    """
    whole = len(text)
    shown = text[:max_characters]
    if not shown.isprintable():
        escaped = (
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in shown
        )
        shown = "".join(escaped)[:max_characters]
    return shown if whole <= max_characters else f"{shown} ... ({whole} characters)"
