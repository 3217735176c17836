"""Authenticates callers: none, or by a file of tokens that is reloaded when it changes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import stat
from collections.abc import AsyncGenerator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import structlog

from lstmserve_server.core.errors import PermissionDenied, RequestError, StartupError, Unauthenticated
from lstmserve_server.core.reloading import ReloadingFile
from lstmserve_server.rpc.auth import token_file
from lstmserve_server.rpc.auth.callers import ANONYMOUS, Caller, CallerPolicy

_log = structlog.get_logger(__name__)

_HEADER: Final = "authorization"
_SCHEME: Final = "bearer "
_Answer = TypeVar("_Answer")

_POLL_INTERVAL_SECONDS: Final = 0.25  # seconds; a change is taken at the second look that sees it


@dataclass(slots=True, eq=False)
class Token:
    """The token that authenticated a call, and its caller."""

    caller: Caller
    revoked: bool = False
    holders: set[Admission] = field(default_factory=set)
    """The long calls that it has let in."""

    def require_valid(self) -> None:
        """Returns if the token is still valid.

        Raises:
            Unauthenticated: the token was removed from the file.
        """
        if self.revoked:
            raise Unauthenticated("", f"the token of {self.caller.name!r} is no longer valid; expected a newer one")

    @contextlib.contextmanager
    def admission(self, method: str | None = None) -> Iterator[Admission]:
        """Yields the permission of a long call while the call lasts."""
        admission = Admission(self, method)
        self.holders.add(admission)
        try:
            yield admission
        finally:
            self.holders.discard(admission)


class Admission:
    """Permission of a long call, which may be withdrawn."""

    def __init__(self, token: Token, method: str | None = None) -> None:
        """Admits a call.

        Args:
            token: that authenticated it.
            method: name of an RPC of LstmService or ShadowService; None for the standard services.
        """
        self.token = token
        self._method = method
        self._model: str | None = None
        self.withdrawn: asyncio.Future[RequestError] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the call may continue no longer."""

    def uses(self, model: str) -> None:
        """Records the model that the call is for; "" for all models."""
        self._model = model

    def poll(self) -> None:
        """Withdraws the permission if the token or the caller's policy no longer allows the call."""
        caller = self.token.caller
        try:
            self.token.require_valid()
            if self._method is not None:
                caller.require_method(self._method)
            if self._model is not None and not caller.may_use(self._model):
                raise PermissionDenied("", f"{caller.name!r} is no longer allowed to use {self._model!r}")
        except RequestError as error:
            if not self.withdrawn.done():
                self.withdrawn.set_result(error)


async def while_admitted(answers: AsyncGenerator[_Answer], admission: Admission) -> AsyncGenerator[_Answer]:
    """Yields answers until the caller's permission is withdrawn.

    Raises:
        RequestError: the permission was withdrawn.
    """
    async with contextlib.aclosing(answers):
        while True:
            following = asyncio.ensure_future(anext(answers))
            try:
                awaited: set[asyncio.Future[Any]] = {following, admission.withdrawn}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if admission.withdrawn.done():
                    raise admission.withdrawn.result()
                answer = following.result()
            except StopAsyncIteration:
                return
            finally:
                if not following.done():
                    following.cancel()
                    await asyncio.wait({following})
            yield answer


class ReloadListener(Protocol):
    """Called when a file was reloaded."""

    def __call__(self, file: str, *, accepted: bool) -> None:
        """Records a reload of `file`, and whether its content was accepted."""
        ...


class Authenticator(Protocol):
    """Authenticates callers."""

    def authenticate(self, metadata: Iterable[Any] | None) -> Token:
        """Returns the token of a call.

        Args:
            metadata: that of the call, as pairs of a key in lower case and a value.

        Raises:
            Unauthenticated: it has no known token.
        """
        ...

    async def watch(self) -> None:
        """Watches for changes until it is cancelled."""
        ...


class NoAuth:
    """Accepts every caller."""

    def __init__(self) -> None:
        self._token = Token(ANONYMOUS)

    def authenticate(self, metadata: Iterable[Any] | None) -> Token:  # noqa: ARG002 - of the protocol
        """Returns the one token that every caller has."""
        return self._token

    async def watch(self) -> None:
        """Returns at once: nothing can change."""


class TokenAuth:
    """Authenticates callers by a token file. An invalid file is logged once and ignored; the previous tokens stay in force."""

    def __init__(self, path: Path, on_reload: ReloadListener) -> None:
        """Reads the file.

        Args:
            path: of the file.
            on_reload: called after each reading but the first.

        Raises:
            StartupError: it cannot be read, or is not valid.
        """
        self._path = path
        self._on_reload = on_reload
        self._callers: dict[str, Caller] = {}
        self._tokens: dict[bytes, Token] = {}
        try:
            self._file = ReloadingFile([path], functools.partial(token_file.read, path), settles=True)
        except token_file.TokensRefused as error:
            message = f"cannot tell who may call: {error}"
            raise StartupError(message) from error
        self._take(self._file.first)

    def authenticate(self, metadata: Iterable[Any] | None) -> Token:
        """Returns the token of a call. Every wrong token takes the same time to reject, so timing reveals nothing."""
        shown = next((value for key, value in metadata or () if key == _HEADER), None)
        if shown is None:
            raise Unauthenticated("", "got no token, expected the metadata authorization: Bearer TOKEN")
        if not isinstance(shown, str) or not shown.lower().startswith(_SCHEME):
            raise Unauthenticated("", "the metadata authorization has another scheme; expected Bearer TOKEN")
        digest = token_file.digest(shown[len(_SCHEME) :].strip())
        found = [token for own, token in self._tokens.items() if hmac.compare_digest(own, digest)]
        if not found:
            raise Unauthenticated("", "got an unknown token, expected one of the server's token file")
        return found[0]

    async def watch(self) -> None:
        """Polls the file until it is cancelled. Changes also apply to calls in flight."""
        while True:
            await asyncio.sleep(_POLL_INTERVAL_SECONDS)
            try:
                self.poll(await asyncio.to_thread(self._file.newer))
            except token_file.TokensRefused as error:
                _log.error("tokens_not_reloaded", why=str(error), still="those from before")
                self._on_reload("tokens", accepted=False)
            except Exception:  # noqa: BLE001 - whatever it is, the next look may find better
                _log.exception("tokens_not_reloaded", still="those from before")

    def poll(self, found: dict[str, tuple[CallerPolicy, list[bytes]]] | None) -> None:
        """Applies newer content of the file; `found` is None if it has not changed."""
        if found is None:
            return
        self._take(found)
        _log.info("tokens_reloaded", callers=sorted(self._callers))
        self._on_reload("tokens", accepted=True)

    def _take(self, found: dict[str, tuple[CallerPolicy, list[bytes]]]) -> None:
        """Applies the content of the file. Callers keep their name, their calls in flight and their remaining rate."""
        before, self._tokens = self._tokens, {}
        callers, self._callers = self._callers, {}
        for name, (policy, digests) in found.items():
            caller = callers.get(name) or Caller(name, policy)
            caller.update_policy(policy)
            self._callers[name] = caller
            for digest in digests:
                token = before.pop(digest, None) or Token(caller)
                token.caller = caller
                self._tokens[digest] = token
        for token in before.values():
            token.revoked = True
        for token in (*before.values(), *self._tokens.values()):
            for admission in tuple(token.holders):
                admission.poll()
        self._warn_of_readers()

    def _warn_of_readers(self) -> None:
        with contextlib.suppress(OSError):
            if self._path.stat().st_mode & stat.S_IROTH:
                _log.warning(
                    "tokens_readable_by_all", file=str(self._path), advice="it is for the server alone: chmod o-r"
                )
