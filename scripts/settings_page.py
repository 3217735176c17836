"""Writes docs/settings.md from the settings themselves: `python -m scripts.settings_page`. A test compares the two."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click

from lstmserve_server.serving.settings import ServeSettings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

_HEAD = """# Settings

Every setting of `lstmserve serve`. Each is a flag, a variable (`LSTMSERVE_` and the name in capitals, with underscores: `--max-rows`
is `LSTMSERVE_MAX_ROWS`; several values are separated by blanks), and a key of the TOML file of `--config` (`max-rows`); the first of
these that is given counts. This page is written by `python -m scripts.settings_page`.

| setting | default | |
|---|---|---|
"""


def page() -> str:
    """Returns the page."""
    lines = [
        _line(item.name, item.default, item.metadata) for item in fields(ServeSettings) if item.default is not MISSING
    ]
    return _HEAD + "".join(lines)


def _line(name: str, default: Any, metadata: Any) -> str:
    flag = "--" + name.replace("_", "-")
    if metadata["kind"] is bool:
        flag = f"{flag}` `--no-{flag[2:]}"
    if isinstance(default, tuple):
        shown = " ".join(default)
    elif isinstance(default, bool):
        shown = "yes" if default else "no"
    else:
        shown = "" if default is None else str(default)
    if isinstance(metadata["kind"], click.Choice):
        flag += " " + "\\|".join(metadata["kind"].choices)
    text = f"{metadata['help']} {metadata['details']}".strip().replace("|", "\\|")
    return f"| `{flag}` | {shown} | {text} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
