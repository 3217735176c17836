"""Who may call: anybody, or those whose tokens stand in a file that is read anew when it changes."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from lstmserve_server import tokens
from lstmserve_server.callers import ANYBODY, Caller, Rules
from lstmserve_server.errors import StartFailed, Unauthenticated
from lstmserve_server.file_stamp import FileStamp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_log = structlog.get_logger(__name__)

_HEADER: Final = "authorization"
_SCHEME: Final = "bearer "
_LOOK_AGAIN: Final = 1.0  # seconds


@dataclass(slots=True)
class Token:
    """What a call was let in by."""

    caller: Caller
    revoked: bool = False

    def require_valid(self) -> None:
        """Returns if it still lets in; for calls that go on for long.

        Raises:
            Unauthenticated: it was taken out of the file.
        """
        if self.revoked:
            raise Unauthenticated("", f"the token of {self.caller.name!r} is not valid any more; expected a newer one")


class Noted(Protocol):
    """Takes note of a file that was read anew."""

    def __call__(self, what: str, *, taken: bool) -> None:
        """Takes note of what the file holds, and whether it was taken."""
        ...


class Access(Protocol):
    """Tells who calls."""

    def token_of(self, metadata: Iterable[Any] | None) -> Token:
        """Returns the token of a call.

        Args:
            metadata: that of the call, as pairs of a key in lower case and a value.

        Raises:
            Unauthenticated: it has none that is known.
        """
        ...


class Open:
    """Lets everybody in."""

    def __init__(self) -> None:
        self._token = Token(ANYBODY)

    def token_of(self, metadata: Iterable[Any] | None) -> Token:  # noqa: ARG002 - of the protocol
        """Returns the token that all have."""
        return self._token


class Tokens:
    """Lets in who has a token that stands in a file. A file that makes no sense any more changes nothing, and is said once."""

    def __init__(self, path: Path, noted: Noted) -> None:
        """Reads the file.

        Args:
            path: of the file.
            noted: is told of each reading after this one.

        Raises:
            StartFailed: it cannot be read, or makes no sense.
        """
        self._path = path
        self._noted = noted
        self._stamp = FileStamp([path])
        self._looked = monotonic()
        self._callers: dict[str, Caller] = {}
        self._tokens: dict[bytes, Token] = {}
        try:
            self._take(tokens.read(path))
        except tokens.TokensRefused as error:
            message = f"cannot tell who may call: {error}"
            raise StartFailed(message) from error

    def token_of(self, metadata: Iterable[Any] | None) -> Token:
        """Returns the token of a call. It takes as long for all that are wrong, and tells nothing of those that are right."""
        self._look()
        shown = next((value for key, value in metadata or () if key == _HEADER), None)
        if shown is None:
            raise Unauthenticated("", "no token came; expected the metadata authorization: Bearer TOKEN")
        if not isinstance(shown, str) or not shown.lower().startswith(_SCHEME):
            raise Unauthenticated("", "the metadata authorization has another scheme; expected Bearer TOKEN")
        digest = tokens.digest(shown[len(_SCHEME) :].strip())
        found = [token for own, token in self._tokens.items() if hmac.compare_digest(own, digest)]
        if not found:
            raise Unauthenticated("", "the token that came is not known; expected one that is in the server's file")
        return found[0]

    def _look(self) -> None:
        """Reads the file again if it has changed, and looks no oftener than once in a while."""
        now = monotonic()
        if now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        if not self._stamp.changed():
            return
        try:
            self._take(tokens.read(self._path))
        except tokens.TokensRefused as error:
            _log.error("tokens_not_reloaded", why=str(error), still="those from before")
            self._noted("tokens", taken=False)
            return
        _log.info("tokens_reloaded", callers=sorted(self._callers))
        self._noted("tokens", taken=True)

    def _take(self, found: dict[str, tuple[Rules, list[bytes]]]) -> None:
        """Takes what the file says. Callers go on under their name, with what they have under way."""
        before, self._tokens = self._tokens, {}
        callers, self._callers = self._callers, {}
        for name, (rules, digests) in found.items():
            caller = callers.get(name) or Caller(name, rules)
            caller.become(rules)
            self._callers[name] = caller
            for digest in digests:
                token = before.pop(digest, None) or Token(caller)
                token.caller = caller
                self._tokens[digest] = token
        for token in before.values():
            token.revoked = True
