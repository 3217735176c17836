"""Parses the file of tokens (TOML): the callers, the hashes of their tokens, and their policies.

```toml
[[caller]]
name = "forecast"
tokens = ["sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"]   # several while one is exchanged
models = ["sunspots"]        # the rest may be left out: then there is no bound
methods = ["Step", "Forward"]
calls_per_second = 100
concurrent_calls = 8
rows = 64
```
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NoReturn

from lstmserve.v1 import lstm_pb2, shadow_pb2
from lstmserve_server.core.errors import format_names
from lstmserve_server.core.reloading import read_regular_file
from lstmserve_server.rpc.auth.callers import CallerPolicy

METHODS: Final = frozenset(
    method.name
    for service in (
        lstm_pb2.DESCRIPTOR.services_by_name["LstmService"],
        shadow_pb2.DESCRIPTOR.services_by_name["ShadowService"],
    )
    for method in service.methods
)
"""The methods that a caller may be allowed."""

_PREFIX: Final = "lsk_"  # so that scanners for secrets, and people, know one when they see it
_BYTES: Final = 32
_HASH: Final = re.compile("sha256:([0-9a-f]{64})")
_RULES: Final = tuple(item.name for item in fields(CallerPolicy))
_KEYS: Final = ("name", "tokens", *_RULES)


class TokensRefused(Exception):
    """The token file is invalid; the text says where, and shows nothing secret."""


def make() -> str:
    """Returns a new token: 256 random bits. They cannot be guessed, so a plain hash needs neither salt nor cost."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def digest(token: str) -> bytes:
    """Returns the hash of a token (32 bytes)."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def entry(name: str, token: str) -> str:
    """Returns the entry of a caller with one token and no limits."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'[[caller]]\nname = "{escaped}"\ntokens = ["sha256:{digest(token).hex()}"]\n'


def read(path: Path) -> dict[str, tuple[CallerPolicy, list[bytes]]]:
    """Returns the policy and the token hashes of each caller, by name.

    Raises:
        TokensRefused: the file cannot be read, or is not valid.
    """
    try:
        content = tomllib.loads(read_regular_file(path).decode())
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise TokensRefused(message) from error
    except ValueError as error:  # no TOML, or no UTF-8
        message = f"{path} is not valid TOML: {error}"
        raise TokensRefused(message) from error
    found: dict[str, tuple[CallerPolicy, list[bytes]]] = {}
    try:
        if list(content) != ["caller"] or not isinstance(content["caller"], list):
            _refuse(f"got the keys {', '.join(content) or 'none'}, expected [[caller]] entries alone")
        for position, item in enumerate(content["caller"]):
            name, policy, hashes = _caller(item, f"caller {position + 1}")
            if name in found:
                _refuse(f"caller {position + 1} has the name {name!r}, as one before; expected each name once")
            found[name] = policy, hashes
        _require_different([own for _, hashes in found.values() for own in hashes])
    except TokensRefused as error:
        message = f"{path}: {error}"
        raise TokensRefused(message) from None
    return found


def _caller(item: Any, where: str) -> tuple[str, CallerPolicy, list[bytes]]:
    if not isinstance(item, dict):
        _refuse(f"{where} is not a table, expected [[caller]]")
    unknown = sorted(item.keys() - set(_KEYS))
    if unknown:
        _refuse(f"{where} has the key {unknown[0][:64]!r}; expected some of {', '.join(_KEYS)}")
    name = item.get("name")
    if not isinstance(name, str) or not name or not name.isprintable():
        _refuse(f"{where} has no name; expected a text")
    where = f"caller {name!r}"
    hashes = [_HASH.fullmatch(text) for text in _texts(item, "tokens", where) or ()]
    if not hashes or not all(hashes):
        _refuse(f"{where} has no tokens, or one that is not sha256: and 64 digits; lstmserve token makes them")
    models, methods = _texts(item, "models", where), _texts(item, "methods", where)
    wrong = sorted(set(methods or ()) - METHODS)
    if wrong:
        _refuse(f"{where} has the method {wrong[0][:64]!r}; expected some of {format_names(sorted(METHODS))}")
    policy = CallerPolicy(
        models=None if models is None else frozenset(models),
        methods=None if methods is None else frozenset(methods),
        calls_per_second=_number(item, "calls_per_second", where, (int, float)),
        concurrent_calls=_number(item, "concurrent_calls", where, (int,)),
        rows=_number(item, "rows", where, (int,)),
    )
    return name, policy, [bytes.fromhex(found[1]) for found in hashes if found]


def _texts(item: dict[str, Any], key: str, where: str) -> list[str] | None:
    value = item.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        _refuse(f"{where} has {key} that are not list of texts")
    return value


def _number(item: dict[str, Any], key: str, where: str, kinds: tuple[type[int | float], ...]) -> Any:
    value = item.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < float(value) < math.inf:
        _refuse(f"{where} has {key} = {value!r}; expected {'a number' if float in kinds else 'an integer'} above 0")
    return value


def _require_different(hashes: list[bytes]) -> None:
    if len(set(hashes)) < len(hashes):
        _refuse("a token is there twice; expected each once")


def _refuse(message: str) -> NoReturn:
    raise TokensRefused(message)
