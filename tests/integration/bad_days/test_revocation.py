"""Tokens that are taken out end what they have opened."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from lstmserve import Client, LstmServeError, PermissionDenied, Unauthenticated
from lstmserve_server.core.errors import Unauthenticated as Refused
from lstmserve_server.rpc.auth import authenticators, callers
from tests.integration.test_tokens import File
from tests.support.live import QUICK, serving, until
from tests.support.paths import SUNSPOTS


def streaming(live, token=None):
    """Returns an open stream that has answered, and its client."""
    client = Client(live.address, token=token)
    stream = client.stream(timeout=20, reconnect_timeout=1)
    stream.step([0.5])
    return client, stream


def ends_with(stream):
    """Waits until a stream without messages is ended by its server, and returns the error of the next message."""
    assert stream._connection is not None
    until(lambda: not stream._connection._call.is_active())
    with pytest.raises(LstmServeError) as caught:
        stream.step([0.5])
    return caught.value


@pytest.mark.parametrize("change", ["token", "method", "model"])
def test_what_a_holder_has_open_ends_when_it_may_not_any_more(tmp_path, change):
    """A token that is taken out, and rules that are tightened, reach idle streams and watchers without any other call."""
    file = File(tmp_path / "tokens.toml")
    token, other = file.add("reader"), file.add("other")
    changed = {
        "token": lambda: file.entries.pop("reader"),
        "method": lambda: file.entries.update(reader=(file.entries["reader"][0], {"methods": ["Step"]})),
        "model": lambda: file.entries.update(reader=(file.entries["reader"][0], {"models": ["moon"]})),
    }[change]
    with serving(SUNSPOTS, "--tokens", file.write(), *QUICK) as live, contextlib.ExitStack() as opened:
        client, stream = streaming(live, token)
        opened.enter_context(client)
        opened.enter_context(stream)
        bystander, goes_on = streaming(live, other)
        opened.enter_context(bystander)
        opened.enter_context(goes_on)
        changed()
        file.write()
        live.wait_for("tokens_reloaded")

        assert isinstance(ends_with(stream), Unauthenticated if change == "token" else PermissionDenied)
        goes_on.step([0.5])
        assert goes_on.reconnects == 0


async def test_a_watcher_ends_at_once_when_its_token_is_taken_out():
    """Though nothing comes that it could be told; what it watches is closed."""
    closed = []

    async def nothing_for_long():
        """One answer, and then silence."""
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    token = authenticators.Token(callers.Caller("reader", callers.CallerPolicy()))
    with token.admission("WatchDiscrepancies") as admission:
        answers = authenticators.while_admitted(nothing_for_long(), admission)
        assert await anext(answers) == 1
        waiting = asyncio.ensure_future(anext(answers))
        token.revoked = True
        admission.poll()
        with pytest.raises(Refused, match="the token of 'reader' is no longer valid"):
            await waiting
    assert closed == [True]
    assert token.holders == set()
