"""What the tests of hostile clients share."""

from __future__ import annotations

import pytest

from lstmserve import Client
from lstmserve_server.loading import reader
from tests.hostile.bystander import Bystander
from tests.support import live
from tests.support.builders import write_zip
from tests.support.paths import SUNSPOTS


@pytest.fixture(scope="session")
def attacked():
    """Returns a server to be attacked."""
    with live.serving(f"sunspots={SUNSPOTS}", *live.QUICK) as server:
        yield server


@pytest.fixture
def bystander(attacked):
    """Returns a good client, which is the same after the test as before it, as is the server."""
    with Client(attacked.address, model="sunspots") as client, Bystander(attacked, client) as bystander:
        yield bystander


@pytest.fixture
def digest(tmp_path):
    """Returns the digest of the simple model."""
    return reader.load(write_zip(tmp_path / "simple")).digest()
