"""Consoles that print text as it is and never interpret markup."""

from __future__ import annotations

from rich.console import Console


def console(*, width: int = 0, stderr: bool = False, highlight: bool = True) -> Console:
    """Returns the console of a command; if it is not a terminal, one of `width` columns (0: as Rich finds)."""
    made = Console(stderr=stderr, highlight=highlight, markup=False, emoji=False)
    if width and not made.is_terminal:
        made = Console(width=width, stderr=stderr, highlight=highlight, markup=False, emoji=False)
    return made
