"""Parses untrusted JSON into plain Python values."""

from __future__ import annotations

import json
from typing import Any

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.store.limits import LoadLimits


def parse(text: str | bytes, what: str, limits: LoadLimits) -> dict[str, Any]:
    """Returns the JSON object that `text` holds; `what` names it in errors.

    Raises:
        UnsupportedModelError: it is too long, nested too deeply, not JSON, not an object, or an object in it has a key twice
            (then two readers may see two models).
    """
    if len(text) > limits.config_bytes:
        message = f"{what} is {len(text)} bytes long; expected at most {limits.config_bytes}"
        raise UnsupportedModelError(message)
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        message = f"{what} is nested too deeply; expected at most {limits.config_depth} levels"
        raise UnsupportedModelError(message) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError among them
        message = f"{what} is not valid JSON: {error}"
        raise UnsupportedModelError(message) from error
    if not isinstance(value, dict):
        message = f"{what} is a {type(value).__name__}; expected a JSON object"
        raise UnsupportedModelError(message)
    if _deeper_than(value, limits.config_depth):
        message = f"{what} is nested too deeply; expected at most {limits.config_depth} levels"
        raise UnsupportedModelError(message)
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        message = f"the key {twice!r} occurs twice in one object"
        raise ValueError(message)
    return value


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON number"
    raise ValueError(message)


def _deeper_than(value: Any, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    children = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(child, depth - 1) for child in children)
