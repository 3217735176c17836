"""Workers that stop, signals at odd moments, and limits of the system."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import struct
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from lstmserve import Client
from lstmserve_server.cli.commands import lstmserve as program
from lstmserve_server.observability import logs
from lstmserve_server.serving import server
from tests.integration.test_tokens import File
from tests.support.live import PROGRAM, QUICK, serving, until
from tests.support.paths import SUNSPOTS


def test_what_others_may_do_is_warned_of(tmp_path):
    """A file of tokens that everybody can read, and an address that everybody reaches without one."""
    file = File(tmp_path / "tokens.toml")
    file.add("reader")
    file.write().chmod(0o644)
    with serving(SUNSPOTS, "--tokens", file.path, "--listen", "0.0.0.0:0", *QUICK) as closed:
        assert {"tokens_readable_by_all", "plain_text"} <= {line["event"] for line in closed.log}
        assert "open_to_all" not in {line["event"] for line in closed.log}
    file.path.chmod(0o600)
    with serving(SUNSPOTS, "--tokens", file.path, *QUICK) as quiet:
        assert not {"tokens_readable_by_all", "open_to_all", "plain_text"} & {line["event"] for line in quiet.log}
    with serving(SUNSPOTS, "--listen", "0.0.0.0:0", *QUICK) as unguarded:
        assert "open_to_all" in {line["event"] for line in unguarded.log}


@pytest.fixture
def two_workers():
    """Returns a server of two workers with a port for operators."""
    arguments = (SUNSPOTS, "--workers", "2", "--metrics", "127.0.0.1:0", *QUICK)
    with serving(*arguments, until="all_workers_ready") as live:
        yield live, next(line["listen"] for line in live.log if line["event"] == "metrics")


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced(two_workers):
    """Meanwhile the page, the metrics and the health are answered, for many at once."""
    live, page = two_workers
    pid = next(line["pid"] for line in live.log if line["event"] == "worker_ready")
    os.kill(pid, signal.SIGSTOP)

    def ask(path):
        with urllib.request.urlopen(f"http://{page}{path}", timeout=5) as response:
            return response.read().decode()

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, ["/healthz", "/metrics", "/status.json"] * 8))
    assert answers[0] == "SERVING\n"
    assert all('worker="' in text for text in answers[1::3])

    assert live.wait_for("worker_silent")["pid"] == pid
    assert live.wait_for("worker_ended")["end"] == "SIGKILL"
    live.wait_for("all_workers_ready")
    with Client(live.address) as client:
        client.step([0.5])


@pytest.mark.slow
def test_a_supervisor_survives_what_the_system_refuses_for_a_while(two_workers):
    """Without a descriptor for another worker it continues with those that there are, and tries again."""
    live, _ = two_workers
    own = live.process.pid
    before = resource.prlimit(own, resource.RLIMIT_NOFILE)
    resource.prlimit(own, resource.RLIMIT_NOFILE, (len(list(Path(f"/proc/{own}/fd").iterdir())) - 4, before[1]))
    os.kill(next(line["pid"] for line in live.log if line["event"] == "worker_ready"), signal.SIGKILL)
    assert live.wait_for("worker_ended")["end"] == "SIGKILL"
    assert live.wait_for("worker_ended")["end"].startswith("it could not be started: ")
    with Client(live.address) as client:
        client.step([0.5])
        resource.prlimit(own, resource.RLIMIT_NOFILE, before)
        live.wait_for("all_workers_ready")
        client.step([0.5])
    assert live.stop() == 0


def catches(pid, number):
    """Returns whether a process handles a signal."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_before_the_server_has_begun_ends_it(number):
    """From the moment that Python runs our first line, with exit code 0."""
    with subprocess.Popen(
        [*PROGRAM, "serve", str(SUNSPOTS), "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE
    ) as process:
        until(lambda: catches(process.pid, signal.SIGTERM))
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(30) == 0
    assert b"Traceback" not in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_that_mean_nothing_to_it_do_nothing(workers):
    """SIGHUP, SIGUSR1, SIGUSR2 and SIGALRM end neither the server nor a worker."""
    ready = "serving" if workers == "1" else "all_workers_ready"
    with serving(SUNSPOTS, "--workers", workers, *QUICK, until=ready) as live:
        pids = [live.process.pid, *(line["pid"] for line in live.log if line["event"] == "worker_ready")]
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
            for pid in pids:
                os.kill(pid, number)
        with Client(live.address) as client:
            client.step([0.5])
        assert live.stop() == 0
    assert not [line for line in live.log if line["event"] == "worker_ended"]


@pytest.fixture(scope="module")
def page():
    """Returns a server and the address of its port for operators."""
    with serving(SUNSPOTS, "--metrics", "127.0.0.1:0", "--log-level", "debug", *QUICK) as live:
        yield live, next(line["listen"] for line in live.log if line["event"] == "metrics")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9", 200),
        ("[::1]:9", 200),
        ("localhost", 200),
        ("lstmserve", 200),
        ("lstmserve.monitoring.svc.cluster.local:9090", 200),
        ("attacker.example", 421),
        ("127.0.0.1.attacker.example:9", 421),
        ("localhost.attacker.example", 421),
        ("svc.attacker.example", 421),
        ("[::1", 421),
    ],
)
@pytest.mark.parametrize("path", ["/", "/status.json"])
def test_the_page_is_shown_under_names_of_ones_own(page, path, host, status):
    """A browser that a stranger has led here by a name of his (DNS rebinding) is told nothing."""
    connection = http.client.HTTPConnection(page[1])
    connection.request("GET", path, headers={"Host": host})
    assert connection.getresponse().status == status
    connection.close()


def test_a_connection_that_breaks_writes_no_traceback_into_the_log(page):
    """What is in the log are lines of JSON, one per event."""
    live, address = page
    host, port = address.split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"GET /metrics")
    with Client(live.address) as client:
        client.step([0.5])
    live.wait_for("call")

    assert live.noise == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "the system refused what the server needs (MemoryError)"),
        (OSError(24, "Too many open files"), "(OSError: [Errno 24] Too many open files)"),
        (RuntimeError("can't start new thread"), "(RuntimeError: can't start new thread)"),
    ],
    ids=["memory", "descriptors", "threads"],
)
def test_what_the_system_refuses_at_the_start_is_one_sentence(monkeypatch, error, text):
    """As with a limit on memory, descriptors or threads (ulimit): exit code 3, and no traceback."""

    async def refused(_):
        """A start that the system does not allow."""
        raise error

    monkeypatch.setattr(server, "run", refused)
    monkeypatch.setattr(logs, "_writer", None)
    monkeypatch.setattr(logs, "configure_log", lambda form, level: None)
    ended = CliRunner().invoke(program, ["serve", str(SUNSPOTS)])

    assert ended.exit_code == 3
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
