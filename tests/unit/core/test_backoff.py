"""Pauses between restarts."""

from __future__ import annotations

from lstmserve_server.core import backoff
from lstmserve_server.core.backoff import RestartBackoff


def test_pauses_double_up_to_a_bound_and_start_again_after_a_stable_run(monkeypatch):
    """0.5, 1, 2, then 3 at most; after a run of more than a minute 0.5 again, and after one of a minute not."""
    clock = [100.0]
    monkeypatch.setattr(backoff, "monotonic", lambda: clock[0])
    restarts, pauses = RestartBackoff(0.5, 3), []
    for ran in (1, 2, 3, 4, 60, 60.5, 1):
        restarts.started()
        clock[0] += ran
        pauses.append(restarts.pause())

    assert pauses == [0.5, 1, 2, 3, 3, 0.5, 1]
