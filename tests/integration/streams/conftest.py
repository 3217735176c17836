"""Servers and channels for the tests of streams."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from lstmserve import Client
from tests.support import live
from tests.support.builders import numbers
from tests.support.streams import IDLE_SECONDS, MOST_BYTES, MOST_ROWS, MOST_STEPS, MOST_STREAMS, PATIENCE, write_models


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Returns the model files by name."""
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def usual(files):
    """Returns a server with several models and the usual limits."""
    with live.serving(*(files[name] for name in ("small", "wide", "steep", "late", "two")), *live.QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def narrow(files):
    """Returns a server with narrow limits."""
    limits = [
        *("--max-streams", str(MOST_STREAMS), "--max-rows", str(MOST_ROWS)),
        *("--max-steps", str(MOST_STEPS), "--max-message-bytes", str(MOST_BYTES)),
    ]
    with live.serving(files["small"], files["broad"], *limits, *live.QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def impatient(files):
    """Returns a server that ends idle streams soon."""
    with live.serving(files["small"], "--stream-idle-seconds", str(IDLE_SECONDS), *live.QUICK) as server:
        yield server


@pytest.fixture
def client(usual):
    """Returns a client for the small model."""
    with Client(usual.address, model="small", timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def channel(usual):
    """Returns a channel without any policy."""
    with grpc.insecure_channel(usual.address) as channel:
        yield channel


@pytest.fixture
def narrow_channel(narrow):
    """Returns a channel without any policy to the server with narrow limits."""
    with grpc.insecure_channel(narrow.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def long_messages():
    """Returns inputs of 32 KB each, (number, rows, features), to the wide model, which answers each with 64 KB."""
    return numbers(600, 1, 4000, dtype=np.float64)
