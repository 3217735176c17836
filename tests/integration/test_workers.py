"""Several server processes on one port: they share what is large, and none of their deaths is noticed by a caller."""

from __future__ import annotations

import os
import re
import select
import signal
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lstmserve import Client
from tests.support import live
from tests.support.builders import (
    input_config,
    keras_layer,
    lstm_config,
    lstm_weights,
    numbers,
    sequential,
    weights_file,
    write_zip,
)
from tests.support.paths import SUNSPOTS

SERIES = np.abs(numbers(400, 1))
READY = "all_workers_ready"


@pytest.fixture
def workers():
    """Returns a service of two workers."""
    with live.LiveServer(SUNSPOTS, "--workers", "2", "--listen", "127.0.0.1:0", *live.QUICK) as server:
        server.wait_for(READY)
        yield server


def pids(server):
    """Returns the process of each worker that is alive, by its number."""
    started = {entry["worker"]: entry["pid"] for entry in server.log if entry["event"] == "worker_ready"}
    return {number: pid for number, pid in started.items() if Path(f"/proc/{pid}").exists()}


def wait_until_gone(processes):
    """Returns when processes have ended; they are not children of this one."""
    deadline = time.monotonic() + 20
    for pid in processes:
        handle = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
        if handle is not None:
            assert select.select([handle], [], [], deadline - time.monotonic())[0]
            os.close(handle)


class Load:
    """Three callers who step through the series, with a new connection every 20 steps."""

    def __init__(self, address, expected):
        self.calls, self.failures = 0, []
        self._address, self._expected = address, expected
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._call) for _ in range(3)]
        for caller in self._callers:
            caller.start()

    def stop(self):
        """Ends it."""
        self._over.set()
        for caller in self._callers:
            caller.join()

    def _call(self):
        while not self._over.is_set():
            try:
                with Client(self._address) as client:
                    self._steps(client)
            except Exception as error:  # noqa: BLE001 - counted
                self.failures.append(error)

    def _steps(self, client):
        state = None
        for i in range(20):
            output, state = client.step(SERIES[i], state)
            self.calls += 1
            if self._expected[i].tobytes() != output.tobytes():
                self.failures.append(i)


def test_workers_answer_on_one_port_with_the_bytes_of_one_server(workers, sunspots):
    """Whichever worker a connection reaches, its answers are those of a server without workers."""
    with Client(sunspots.address) as client:
        expected = client.forward(SERIES, all_outputs=True).output
    for _ in range(8):  # a connection each, which the system gives to either worker
        with Client(workers.address) as client:
            assert expected.tobytes() == client.forward(SERIES, all_outputs=True).output.tobytes()


def test_the_weights_are_in_memory_once(tmp_path):
    """Two workers map one file with the weights: together it takes its size, not twice of it, and none can write to it."""
    layers = [keras_layer("Dense", "wide", units=1000, activation="linear"), lstm_config(3)]
    weights = {
        "layers/dense/vars": [numbers(3, 1000), numbers(1000)],
        "layers/lstm/cell/vars": lstm_weights(1000, 3),
    }
    layers.insert(1, keras_layer("Dense", "square", units=1000, activation="linear"))
    weights["layers/dense_1/vars"] = [numbers(1000, 1000), numbers(1000)]
    path = write_zip(tmp_path / "large.keras", sequential(input_config(), *layers), weights_file(weights))
    with live.LiveServer(path, "--workers", "2", "--listen", "127.0.0.1:0", *live.QUICK) as server:
        server.wait_for(READY)
        proportional, permissions = 0, set()
        for pid in pids(server).values():
            for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text()):
                if "memfd:weights" in mapping:
                    proportional += int(re.search(r"Pss: +(\d+)", mapping)[1]) << 10
                    permissions.add(mapping.split()[1])

    assert permissions == {"r--s"}
    assert 4_000_000 < proportional < 4_600_000


@pytest.mark.slow
def test_a_worker_that_is_killed_is_not_missed(workers, sunspots):
    """While a worker is killed ten times, no unary call fails, and a stream continues; the bytes are those of a quiet run."""
    with Client(sunspots.address) as client:
        expected = client.forward(np.tile(SERIES, (50, 1)), all_outputs=True).output
    load = Load(workers.address, expected)
    with Client(workers.address) as client, client.stream(checkpoint_interval_steps=50) as stream:
        at, outputs = 0, []
        for number in range(10):
            os.kill(pids(workers)[1 + number % 2], signal.SIGKILL)
            while workers.wait_for("worker_ready")["worker"] != 1 + number % 2:
                pass
            outputs += stream.steps(np.tile(SERIES, (50, 1))[at : at + 200])
            at += 200
        reconnects = stream.reconnects
    load.stop()

    assert load.failures == []
    assert load.calls > 100
    assert 1 <= reconnects <= 10
    assert expected[:at].tobytes() == np.stack(outputs).tobytes()
    assert [entry["restarts"] for entry in workers.log if entry["event"] == "worker_ended"][-1] == 10


def test_a_worker_that_dies_again_and_again_is_started_later_and_later(workers):
    """The pause before a worker is restarted doubles, and each start is counted in the log."""
    for _ in range(3):
        os.kill(pids(workers)[2], signal.SIGKILL)
        workers.wait_for("worker_ready")
    ended = [entry for entry in workers.log if entry["event"] == "worker_ended"]

    assert [(entry["worker"], entry["end"], entry["restarts"], entry["again_in_seconds"]) for entry in ended] == [
        (2, "SIGKILL", 1, 0.1),
        (2, "SIGKILL", 2, 0.2),
        (2, "SIGKILL", 3, 0.4),
    ]


def test_a_signal_to_the_supervisor_drains_the_workers():
    """SIGTERM lets workers finish what they compute, a stream gets its last checkpoint, and the supervisor ends with 0."""
    with live.LiveServer(SUNSPOTS, "--workers", "2", "--listen", "127.0.0.1:0", "--lame-duck-seconds", "0.1") as server:
        server.wait_for(READY)
        processes = pids(server).values()
        with Client(server.address) as client, client.stream(reconnect_timeout=0.5) as stream:
            stream.step(SERIES[0])
            code = server.stop()
            wait_until_gone(processes)

    assert code == 0
    assert {entry["worker"] for entry in server.log if entry["event"] == "stopped"} == {1, 2}
    assert server.log[-1]["event"] == "all_stopped"


def test_a_worker_that_hangs_does_not_hold_up_the_end(workers):
    """It is killed after its time, and the supervisor and the others end well."""
    processes = pids(workers)
    os.kill(processes[1], signal.SIGSTOP)
    code = workers.stop()
    wait_until_gone(processes.values())

    assert code == 0
    assert {entry["worker"] for entry in workers.log if entry["event"] == "stopped"} == {2}


def test_a_signal_while_models_are_loaded_ends_the_supervisor_at_once():
    """SIGTERM before there are workers ends the supervisor with 0, though a model may take a minute to load."""
    slow = live.LiveServer(
        *[f"m{i}={SUNSPOTS}" for i in range(200)], "--workers", "2", "--listen", "127.0.0.1:0", *live.QUICK
    )
    with slow as server:
        server.wait_for("starting")

        assert server.stop() == 0
        assert [entry for entry in server.log if entry["event"] == "worker_ready"] == []


def test_no_worker_outlives_a_supervisor_that_is_killed(workers):
    """When the supervisor is killed with SIGKILL, its workers drain and end."""
    processes = list(pids(workers).values())
    workers.process.kill()
    workers.process.wait()

    assert len(processes) == 2
    wait_until_gone(processes)


def test_ctrl_c_on_a_terminal_drains_once():
    """SIGINT to the group of processes on the terminal is one signal, not two: workers drain, and are not cut off."""
    with live.LiveServer(SUNSPOTS, "--workers", "2", "--listen", "127.0.0.1:0", *live.QUICK) as server:
        server.wait_for(READY)
        groups = {os.getpgid(pid) for pid in pids(server).values()}

        assert os.getpgid(server.process.pid) not in groups
        assert server.stop(signal.SIGINT) == 0
        assert len([entry for entry in server.log if entry["event"] == "draining"]) == 2


def test_each_worker_has_one_thread_for_products_unless_told_otherwise():
    """Without a variable that says otherwise, BLAS has one thread in each worker."""
    for given, expected in ((None, b"1"), ("2", b"2")):
        env = {} if given is None else {"OPENBLAS_NUM_THREADS": given}
        with live.LiveServer(SUNSPOTS, "--workers", "2", "--listen", "127.0.0.1:0", *live.QUICK, env=env) as server:
            server.wait_for(READY)
            for pid in pids(server).values():
                environment = dict(
                    item.split(b"=", 1) for item in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if item
                )
                assert environment[b"OPENBLAS_NUM_THREADS"] == expected


def test_the_port_of_workers_is_theirs(workers):
    """Neither a server nor a second group of workers can take the port that workers share."""
    for arguments in ([], ["--workers", "2"]):
        ended = live.run("serve", SUNSPOTS, "--listen", workers.address, *arguments)

        assert (ended.returncode, "cannot listen on" in ended.stderr) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (
            [SUNSPOTS, "--listen", "unix:/tmp/no.sock"],
            2,
            "unix:/tmp/no.sock cannot be shared: the system gives a Unix socket to one process alone. Give --workers 1 with it",
        ),
        ([SUNSPOTS, "--listen", "nonsense"], 2, "cannot listen on 'nonsense': expected HOST:PORT"),
        (["/nowhere.keras"], 3, "model 'nowhere' is refused"),
    ],
)
def test_what_cannot_start_is_said_once(arguments, code, text):
    """Settings and models that cannot be served end the supervisor with the exit code and the text of a single server."""
    ended = live.run("serve", *arguments, "--workers", "3")

    assert code == ended.returncode
    assert ended.stderr.count(text) == 1


def test_a_model_that_fails_in_a_worker_is_said_once(tmp_path):
    """A model that fails its self-test, which is in the workers, is refused once, with its name."""
    layers = [keras_layer("ELU", "steep", alpha=1e308), lstm_config(3)]
    config = sequential(input_config(), *layers)
    path = write_zip(tmp_path / "bad.keras", config, weights_file({"layers/lstm/cell/vars": lstm_weights(3, 3)}))
    ended = live.run("serve", path, "--workers", "3", "--listen", "127.0.0.1:0")

    assert (ended.returncode, ended.stderr.count("model 'bad' is refused")) == (3, 1)


def test_health_of_workers(workers):
    """The health service answers for every model through the shared port."""
    with grpc.insecure_channel(workers.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)

        assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
