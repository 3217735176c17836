"""A log whose reader is gone or slow."""

from __future__ import annotations

import contextlib
import os
import signal
import urllib.error
import urllib.request

import pytest

from lstmserve import Client
from lstmserve_server.observability import log_writer
from tests.support.live import QUICK, serving, until
from tests.support.paths import SUNSPOTS


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.slow
def test_a_log_whose_reader_has_gone_costs_no_call_and_no_drain(workers):
    """Calls are answered, lost lines are counted, workers are replaced, and SIGTERM drains: exit code 0."""
    ready = "serving" if workers == "1" else "all_workers_ready"
    arguments = (SUNSPOTS, "--workers", workers, "--log-level", "debug", "--metrics", "127.0.0.1:0", *QUICK)
    with serving(*arguments, until=ready) as live, Client(live.address) as client:
        page = next(line["listen"] for line in live.log if line["event"] == "metrics")
        live.process.stderr.close()
        live.process.stderr = None
        for _ in range(20):
            client.step([0.5])
        if workers == "2":
            os.kill(next(line["pid"] for line in live.log if line["event"] == "worker_ready"), signal.SIGKILL)
            until(lambda: metric(page, "lstmserve_worker_restarts_total") == 1)
        until(lambda: metric(page, "lstmserve_log_lines_lost_total") >= 1)
        with client.stream() as stream:
            stream.step([0.5])
            live.process.send_signal(signal.SIGTERM)
            assert live.process.wait(30) == 0


def metric(page, name):
    """Returns the sum of a metric over its labels."""
    with urllib.request.urlopen(f"http://{page}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_a_log_that_nobody_reads_holds_nothing_up():
    """With its pipe full, calls are answered and the server drains all the same."""
    with serving(SUNSPOTS, "--log-level", "debug", *QUICK) as live, Client(live.address) as client:
        for _ in range(600):  # lines of some 200 bytes into a pipe of 64 KiB
            client.step([0.5])
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(30) == 0


def test_lost_lines_are_told_when_the_log_works_again():
    """As a line of its own, with their number; a line is written whole, however slowly it is read."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    log = log_writer.LogWriter(writer)
    for number in range(log_writer._MAX_WAITING + 1000):  # of 200 bytes: more than the pipe and the queue hold
        log.write(f"{number} ".ljust(199) + "\n")
    lost = log.lost
    assert 0 < lost <= 1000
    received = b""
    while b"last line\n" not in received:
        with contextlib.suppress(BlockingIOError):
            received += os.read(reader, 1 << 20)
        if log.lost == lost and not log._waiting:
            log.write("last line\n")
    lines = received.decode().splitlines()
    os.close(reader)

    assert all(line.startswith(f"{number} ") for number, line in enumerate(lines[:1000]))
    assert log.write("no one reads\n") == 13
    until(lambda: log.lost > lost)
