"""Fixtures of the tests of bad answers."""

from __future__ import annotations

import pytest

from tests.support.scripted import Both, Scripted


@pytest.fixture
def server():
    """Returns a server that says what a test wants."""
    made = Scripted()
    yield made
    made.stop()


@pytest.fixture(params=["sync", "asyncio"])
def client(request, server):
    """Returns a client of each kind."""
    return Both(request.param, server.address)
