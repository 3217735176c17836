"""Some hundred damaged things of each kind, always the same: what `python -m tests.fuzz` sends by the million."""

from __future__ import annotations

from tests.fuzz import connections, files, messages, wire

SEED = 0


def test_damaged_requests():
    """Damaged requests are answered or refused, and leave good ones their bytes."""
    assert messages.run(500, SEED).failures == 0


def test_damaged_requests_to_a_server():
    """Damaged requests get a clean status from a server, and leave good ones their bytes."""
    assert wire.run(300, SEED).failures == 0


def test_damaged_model_files():
    """Damaged model files are loaded or refused in time."""
    assert files.run(200, SEED).failures == 0


def test_damaged_conversations():
    """Damaged conversations, and noise, leave the server and good calls as they were."""
    assert connections.run(400, SEED).failures == 0
