"""What a server bears: a log that no one reads, tokens that change, workers that hang, a system that refuses, signals, strangers."""

from __future__ import annotations

import asyncio
import contextlib
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

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lstmserve import Client, LstmServeError, PermissionDenied, Unauthenticated
from lstmserve_server.cli.commands import lstmserve as program
from lstmserve_server.core.errors import RequestError
from lstmserve_server.core.errors import Unauthenticated as Refused
from lstmserve_server.core.reloading import ReloadingFile
from lstmserve_server.observability import log_writer, logs
from lstmserve_server.rpc import health
from lstmserve_server.rpc.auth import authenticators, callers
from lstmserve_server.serving import server
from tests.integration.test_tokens import File
from tests.support.live import PROGRAM, QUICK, serving, until
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


# Revocation


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


class Content:
    """Files whose reading can fail."""

    def __init__(self, path):
        self.path = path
        self.path.write_text("1")
        self.error = None

    def read(self):
        """Returns the number in the file."""
        if self.error is not None:
            raise ValueError("cannot be read") from self.error
        return int(self.path.read_text())

    def changed_to(self, text):
        """Writes it under another name first."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)


@pytest.fixture
def content(tmp_path):
    """Returns files whose reading can fail."""
    return Content(tmp_path / "number")


def test_a_change_counts_when_it_was_read(content):
    """While the system refuses to open a file, it is tried again at each look; that is said once."""
    watched = ReloadingFile([content.path], content.read, settles=False)
    content.changed_to("2")
    content.error = OSError(24, "Too many open files")
    with pytest.raises(ValueError, match="cannot be read"):
        watched.newer()
    assert [watched.newer() for _ in range(3)] == [None, None, None]

    content.error = None
    assert [watched.newer() for _ in range(2)] == [2, None]


def test_what_makes_no_sense_is_said_once_and_read_again_when_it_changes(content):
    """The same words a second time, after something that did make sense, are said again."""
    watched = ReloadingFile([content.path], content.read, settles=False)
    for _ in range(2):
        content.changed_to("one")
        with pytest.raises(ValueError, match="invalid literal"):
            watched.newer()
        assert watched.newer() is None
        content.changed_to("3")
        assert watched.newer() == 3


def test_a_file_that_is_written_in_pieces_is_read_when_it_is_whole(content):
    """A change is taken when two looks have seen the same."""
    watched = ReloadingFile([content.path], content.read, settles=True)
    seen = []
    for text in ("1", "12", "123"):
        content.path.write_text(text)
        seen.append(watched.newer())
    seen += [watched.newer(), watched.newer()]

    assert seen == [None, None, None, 123, None]


def test_a_file_that_changes_while_it_is_read_is_read_again(content):
    """What was read then is not taken."""
    read, numbers = content.read, iter([lambda: content.changed_to("3"), lambda: None])

    def disturbed():
        found = read()
        next(numbers, lambda: None)()
        return found

    watched = ReloadingFile([content.path], read, settles=False)
    watched._read = disturbed
    content.changed_to("2")

    assert [watched.newer(), watched.newer()] == [None, 3]


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


# The log


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


# Workers


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


# Health


def check(live, service="", token=None):
    """Returns the status of a service, or the code and text of the refusal."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    with grpc.insecure_channel(live.address) as channel:
        try:
            ask = health_pb2_grpc.HealthStub(channel).Check
            return ask(health_pb2.HealthCheckRequest(service=service), metadata=metadata).status
        except grpc.RpcError as error:
            return error.code(), error.details()


def test_health_tells_a_stranger_of_no_model(tmp_path):
    """Neither that there is one nor what it is called; who has a token is told of those that it may use."""
    file = File(tmp_path / "tokens.toml")
    token, narrow = file.add("reader"), file.add("narrow", models=["right"])
    service = health.service_of_model("left")
    with serving(f"left={SUNSPOTS}", f"right={SUNSPOTS}", "--tokens", file.write(), *QUICK) as live:
        assert check(live) == health_pb2.HealthCheckResponse.SERVING
        assert check(live, "lstmserve.v1.LstmService") == health_pb2.HealthCheckResponse.SERVING
        refusals = {check(live, service), check(live, service, narrow), check(live, service, "lsk_wrong")}
        (code, text), *others = refusals
        assert check(live, service, token) == health_pb2.HealthCheckResponse.SERVING
        assert check(live, health.service_of_model("right"), narrow) == health_pb2.HealthCheckResponse.SERVING
        unknown = check(live, health.service_of_model("middle"))

    assert (code, others) == (grpc.StatusCode.NOT_FOUND, [])
    assert text.replace("left", "middle") == unknown[1]
    assert "right" not in text


class Watching:
    """A call of Watch, without gRPC."""

    def __init__(self, handler, host, token=None):
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._host = host
        self.aborted = None
        self.responses = handler(health_pb2.HealthCheckRequest().SerializeToString(), self)

    def invocation_metadata(self):
        """Returns the metadata."""
        return self._metadata

    def peer(self):
        """Returns where it comes from."""
        return f"ipv4:{self._host}:1234"

    async def abort(self, code, *_):
        """Ends it."""
        self.aborted = code
        raise RequestError("", "aborted")


async def test_one_stranger_does_not_take_all_watchers_places(monkeypatch, tmp_path):
    """Another host, and a caller with a token, still find one; an ended watcher gives its place back."""
    monkeypatch.setattr(health, "MAX_WATCHERS", 19)
    file = File(tmp_path / "tokens.toml")
    token = file.add("reader")
    watch = (
        health.Health([""], [])
        .handlers(authenticators.TokenAuth(file.write(), lambda file, accepted: None), is_open=True)["Watch"]
        .unary_stream
    )
    greedy = [Watching(watch, "192.0.2.1") for _ in range(19)]
    for call in greedy:
        with contextlib.suppress(RequestError):
            await anext(call.responses)
    assert greedy[-1].aborted == grpc.StatusCode.RESOURCE_EXHAUSTED
    others = [Watching(watch, "192.0.2.2"), Watching(watch, "192.0.2.1", token)]
    for call in others:
        await anext(call.responses)
        assert call.aborted is None
    for call in greedy[:5]:
        await call.responses.aclose()
    await anext(Watching(watch, "192.0.2.1").responses)


# Signals


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


# The port for operators, and limits of the system


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
