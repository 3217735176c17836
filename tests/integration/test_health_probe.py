"""The command `lstmserve health`: what it prints, and what it ends with."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from tests.support import live
from tests.support.live import run
from tests.support.paths import SUNSPOTS


def test_a_server_that_serves(sunspots):
    """A server that serves ends the command with 0, as a whole and for each of its models."""
    whole = run("health", "--address", sunspots.address)
    model = run("health", "--address", sunspots.address, "--service", "lstmserve.v1.LstmService/sunspots")

    assert (whole.returncode, whole.stdout, whole.stderr) == (0, "SERVING\n", "")
    assert (model.returncode, model.stdout, model.stderr) == (0, "SERVING\n", "")


def test_the_address_may_come_from_the_environment(sunspots, monkeypatch):
    """LSTMSERVE_HEALTH_ADDRESS says whom to ask."""
    monkeypatch.setenv("LSTMSERVE_HEALTH_ADDRESS", sunspots.address)

    assert run("health").returncode == 0


def test_a_server_behind_a_unix_socket(tmp_path):
    """A server that listens on a Unix socket is asked there."""
    address = f"unix:{tmp_path / 'socket'}"
    with live.serving(SUNSPOTS, "--listen", address, *live.QUICK):
        assert run("health", "--address", address).returncode == 0


def test_no_proxy_is_asked(sunspots, monkeypatch):
    """A proxy in the environment is passed by, as it could not reach the server's own loopback interface."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)

    assert run("health", "--address", sunspots.address).returncode == 0


def test_a_server_that_drains():
    """A server that drains ends the command with 1, while calls are still answered."""
    with live.serving(SUNSPOTS, "--lame-duck-seconds", "3600") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        ended = run("health", "--address", server.address)

        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "NOT_SERVING\n", "")
        assert server.stop() == 0  # the second signal


def test_a_service_that_is_not_there(sunspots):
    """A service that the server does not have ends the command with 1 and the server's sentence."""
    ended = run("health", "--address", sunspots.address, "--service", "moon")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(
        f"lstmserve: no health from {sunspots.address}: NOT_FOUND: service: no 'moon' is here, or not for you; expected '' for the server, "
    )
    assert len(ended.stderr.splitlines()) == 1


def test_nobody_there():
    """Where no one listens the command ends with 1 and one sentence."""
    ended = run("health", "--address", "127.0.0.1:1")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("lstmserve: no health from 127.0.0.1:1: UNAVAILABLE: ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_server_that_hangs():
    """A server that never answers is given up after --timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = run("health", "--address", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.2")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "DEADLINE_EXCEEDED" in ended.stderr


@pytest.mark.parametrize("timeout", ["nan", "-1", "soon"])
def test_a_timeout_that_is_none(timeout):
    """A time-out that is not a time is refused before anybody is asked."""
    ended = run("health", "--timeout", timeout)

    assert ended.returncode == 2
    assert "Invalid value for '--timeout'" in ended.stderr


def test_it_is_quick_to_start():
    """Nothing of the service is imported, as a container's engine runs the command every few seconds."""
    script = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules))))
from lstmserve_server.cli.commands import lstmserve
lstmserve(["health", "--address", "127.0.0.1:1"])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    modules = json.loads(ended.stdout)

    assert {"grpc", "grpc_health.v1.health_pb2"} <= set(modules)
    assert {"h5py", "numpy", "rich", "scipy", "structlog"} & set(modules) == set()
    assert [module for module in modules if module.startswith("lstmserve_server")] == [
        "lstmserve_server",
        "lstmserve_server.cli",
        "lstmserve_server.cli.commands",
        "lstmserve_server.cli.health_probe",
        "lstmserve_server.cli.serve_options",
        "lstmserve_server.core",
        "lstmserve_server.core.errors",
        "lstmserve_server.serving",
        "lstmserve_server.serving.setting_types",
        "lstmserve_server.serving.settings",
    ]
