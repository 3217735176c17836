"""The service as a process: its life, its signals, its exit codes, its port, its log, its health."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import socket
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from lstmserve import Client, Unavailable
from tests.support.builders import lstm_config, lstm_weights, sequential, weights_file, write_zip
from tests.support.live import QUICK, LiveServer, run, serving
from tests.support.paths import SUNSPOTS

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def big_model(tmp_path):
    """Returns the file of a model whose sequences take a while."""
    weights = weights_file({"layers/lstm/cell/vars": lstm_weights(3, 512)})
    config = sequential(lstm_config(512, batch_input_shape=[None, None, 3]))
    return write_zip(tmp_path / "big.keras", config, weights)


def check(address, service=""):
    """Returns what the health service says."""
    with grpc.insecure_channel(address) as channel:
        return (
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status
        )


def test_the_life_of_a_server():
    """It says starting, model_loaded and serving, drains on SIGTERM, and ends with 0."""
    with serving(SUNSPOTS, *QUICK) as server:
        with Client(server.address) as client:
            assert client.step([0.5]).output.shape == (1,)
        code = server.stop()

    assert code == 0
    assert [entry["event"] for entry in server.log] == ["starting", "model_loaded", "serving", "draining", "stopped"]
    assert server.noise == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_call_finishes_in_the_drain(big_model, number):
    """A call that runs when the signal comes is answered; the server ends after it."""
    flags = ("--max-steps", "100000", "--drain-seconds", "100", *QUICK)
    with serving(big_model, *flags) as server, Client(server.address, timeout=100) as client:
        client.step(np.zeros((1, 3), np.float32))  # connected
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.forward, np.zeros((8, 1500, 3), np.float32))
            while not call.running():
                pass
            client.forward(np.zeros((8, 100, 3), np.float32))  # the long one was sent before, so it has arrived
            server.process.send_signal(number)
            server.wait_for("draining")
            answer = call.result()

        assert answer.output.shape == (8, 512)
        assert server.finish() == 0


def test_health_turns_before_calls_are_refused():
    """In the lame-duck time health says NOT_SERVING and calls are still answered."""
    with serving(SUNSPOTS, "--lame-duck-seconds", "60") as server, Client(server.address) as client:
        assert check(server.address) == SERVING
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")

        assert check(server.address) == NOT_SERVING
        assert check(server.address, "lstmserve.v1.LstmService/sunspots") == NOT_SERVING
        assert client.step([0.5]).output.shape == (1,)
        assert server.stop() == 0  # a second signal stops at once


def test_a_second_signal_cuts_running_calls_off(big_model):
    """With calls running, a second signal stops at once, and the callers get UNAVAILABLE."""
    with serving(big_model, "--drain-seconds", "300", *QUICK) as server:
        channel = grpc.insecure_channel(server.address, [("grpc.enable_retries", 0)])
        from lstmserve import calls  # noqa: PLC0415 - the one test that wants a call without retries

        call = calls.forward(np.zeros((8, 60000, 3), np.float32), None, "", None, all_outputs=False)
        future = channel.unary_unary(call.method, lambda request: request.SerializeToString()).future(call.request)
        with Client(server.address) as client:
            client.forward(np.zeros((8, 200, 3), np.float32))  # the call before has arrived
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        assert server.stop(signal.SIGINT) == 0

        assert future.code() == grpc.StatusCode.UNAVAILABLE
        channel.close()


def test_health_says_not_serving_while_models_are_loaded(tmp_path):
    """The port is open before the models are there; until then health says NOT_SERVING and calls get UNAVAILABLE."""
    os.mkfifo(tmp_path / "slow.keras")
    model = tmp_path / "model.keras"
    big = weights_file({"layers/lstm/cell/vars": lstm_weights(2000, 1000)})
    write_zip(model, sequential(lstm_config(1000, batch_input_shape=[None, None, 2000])), big)
    with LiveServer(*[f"m{i}={model}" for i in range(60)], "--listen", "127.0.0.1:0", *QUICK) as server:
        server.wait_for("starting")
        assert check(server.address) == NOT_SERVING
        assert check(server.address, "lstmserve.v1.LstmService/m7") == NOT_SERVING
        with (
            Client(server.address, model="m1") as client,
            pytest.raises(Unavailable, match="the server is starting"),
        ):
            client.step(np.zeros(2000, np.float32))
        assert server.stop() == 0


def test_health_of_each_model_and_of_nothing(two_models):
    """Health is known for the server, the service and each model; another name is NOT_FOUND."""
    for service in (
        "",
        "lstmserve.v1.LstmService",
        "lstmserve.v1.LstmService/sunspots",
        "lstmserve.v1.LstmService/late",
    ):
        assert check(two_models.address, service) == SERVING
    with pytest.raises(grpc.RpcError) as refused:
        check(two_models.address, "lstmserve.v1.LstmService/other")

    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_is_watched_through_the_drain():
    """A watcher sees SERVING, then NOT_SERVING, and SERVICE_UNKNOWN for another name without being turned away."""
    with serving(SUNSPOTS, "--lame-duck-seconds", "60") as server, grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="other"))
        assert next(watch).status == SERVING
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        server.process.send_signal(signal.SIGTERM)

        assert next(watch).status == NOT_SERVING


def test_neither_watchers_nor_mute_calls_hold_the_drain():
    """The drain waits for calls that run, and for nothing else: not for watchers, nor for calls whose message never comes."""
    with (
        serving(SUNSPOTS, "--drain-seconds", "3600", *QUICK) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        channel.stream_unary("/lstmserve.v1.LstmService/Step").future(iter(()), timeout=1000)  # ends without a message

        assert server.stop() == 0


def test_health_refuses_what_is_no_message(sunspots):
    """Bytes that are not request of the health service are INVALID_ARGUMENT, in words."""
    with grpc.insecure_channel(sunspots.address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff\xff")

    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details() == "got 2 bytes that are not a valid HealthCheckRequest"


def test_reflection_tells_the_contract(sunspots):
    """A client with nothing but the address learns services and messages."""
    with grpc.insecure_channel(sunspots.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)

        assert {"lstmserve.v1.LstmService", "grpc.health.v1.Health"} <= set(database.get_services())
        assert database.FindFileContainingSymbol("lstmserve.v1.StepRequest").name == "lstmserve/v1/lstm.proto"


def test_reflection_can_be_switched_off():
    """With --no-reflection no one learns the contract from the server."""
    with serving(SUNSPOTS, "--no-reflection", *QUICK) as server, grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            ProtoReflectionDescriptorDatabase(channel).get_services()

        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_several_addresses_and_a_unix_socket(tmp_path):
    """One server listens on as many addresses as it is told, sockets of the file system among them."""
    path = f"unix:{tmp_path}/s"
    with serving(SUNSPOTS, "--listen", "127.0.0.1:0", "--listen", path, *QUICK) as server:
        for address in (server.address, path):
            with Client(address) as client:
                assert client.model().name == "sunspots"

        second = run("serve", SUNSPOTS, "--listen", path)

    assert (second.returncode, second.stderr.splitlines(keepends=True)[-1]) == (3, f"lstmserve: cannot listen on {path}: another server listens there. Stop what is there, or choose another "
            "address with --listen\n")  # fmt: skip


def test_the_socket_of_a_killed_server_is_taken_over(tmp_path):
    """A socket file that no one listens on any more is no obstacle."""
    path = f"unix:{tmp_path}/s"
    with serving(SUNSPOTS, "--listen", path) as server:
        server.stop(signal.SIGKILL)
    with serving(SUNSPOTS, "--listen", path, *QUICK), Client(path) as client:
        assert client.model().name == "sunspots"


def refusal(*arguments, **options):
    """Returns exit code and last line of a server that does not start."""
    ended = run("serve", *arguments, **options)
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr.splitlines()[-1]


def test_a_port_in_use_is_one_sentence():
    """A port that another server has ends the start with 3 and a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal(SUNSPOTS, "--listen", address) == (
            3,
            f"lstmserve: cannot listen on {address}: Address already in use. Stop what is there, or choose another address with "
            "--listen",
        )


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("none.keras",), 3, "lstmserve: model 'none' is refused. none.keras: the file cannot be opened: No such file or directory"),
        (("a=x.keras", "a=y.keras"), 2, "lstmserve: two models are called 'a': x.keras and y.keras. Name them apart: NAME=FILE"),
        (("we ird=x.keras",), 2, "lstmserve: 'we ird' cannot be the name of a model; expected up to 64 letters, digits, '.', '_' "
                                 "and '-', beginning with a letter or digit. Name it yourself: NAME=x.keras"),
        (("x.keras", "--listen", "nowhere"), 2, "lstmserve: cannot listen on 'nowhere': expected HOST:PORT, [IPV6]:PORT or unix:PATH"),
        (("x.keras", "--listen", "unix:/none/s"), 3, "lstmserve: cannot listen on unix:/none/s: there is no folder /none. Choose another address with --listen"),
        (("x.keras", "--listen", "unix:"), 3, "lstmserve: cannot listen on unix:: a socket has a path of 1 to 107 bytes. Choose another address with --listen"),
        (("x.keras", "--listen", "unix:/" + "s" * 120), 3, f"lstmserve: cannot listen on unix:/{'s' * 120}: a socket has a path of 1 to 107 bytes. Choose another address with --listen"),
        (("x=",), 2, "lstmserve: 'x=' names no file; expected FILE or NAME=FILE"),
        (("./lr=0.1/m.keras",), 3, "lstmserve: model 'm' is refused. ./lr=0.1/m.keras: the file cannot be opened: No such file or directory"),
        (("x.keras", "--drain-seconds", "nan"), 2, "Error: Invalid value for '--drain-seconds' (env var: 'LSTMSERVE_DRAIN_SECONDS'): 'nan' is not a number."),
        (("x.keras", "--lame-duck-seconds", "inf"), 2, "Error: Invalid value for '--lame-duck-seconds' (env var: 'LSTMSERVE_LAME_DUCK_SECONDS'): inf is not in the range 0<=x<=3600."),
        (("x.keras", "--max-rows", "0"), 2, "Error: Invalid value for '--max-rows' (env var: 'LSTMSERVE_MAX_ROWS'): 0 is not in the range x>=1."),
        (("x.keras", "--numerics", "wild"), 2, "Error: Invalid value for '--numerics' (env var: 'LSTMSERVE_NUMERICS'): 'wild' is not one of 'exact', 'fast'."),
        ((), 2, "Error: Missing argument '[NAME=]FILE...'."),
        (("x.keras", "--config", "none.toml"), 2, "Error: Invalid value for '--config' (env var: 'LSTMSERVE_CONFIG'): File 'none.toml' does not exist."),
    ],
)  # fmt: skip
def test_what_cannot_start_says_why_in_one_sentence(arguments, code, text, tmp_path):
    """Bad settings end with 2 and an obstacle with 3, each with one sentence and no traceback."""
    if "--listen" not in arguments:
        arguments = (*arguments, "--listen", "127.0.0.1:0")

    assert (code, text) == refusal(*arguments, cwd=tmp_path)


def test_a_missing_extra_is_one_sentence(tmp_path):
    """Without the packages of the server the command says how to get them."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('h5py', 'structlog'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Without())\n"
    )

    ended = run("serve", SUNSPOTS, env={**os.environ, "PYTHONPATH": str(tmp_path)})

    assert (
        ended.returncode,
        ended.stderr,
    ) == (
        3,
        "lstmserve needs packages that are not installed (h5py, structlog): pip install 'lstmserve[server]'\n",
    )


def modules_after(*names):
    """Returns the top-level modules that are loaded when some are imported."""
    code = f"import sys, {', '.join(names)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_the_service_never_imports_tensorflow_and_the_client_nothing_of_the_service():
    """Neither TensorFlow nor Keras is loaded by the service, nor anything of the service by the client."""
    service = modules_after(
        "lstmserve_server.cli.commands", "lstmserve_server.serving.server", "lstmserve_server.tools.inspection"
    )
    client = modules_after("lstmserve")

    assert not service & {"tensorflow", "keras", "tf_keras"}
    assert not client & {"lstmserve_server", "scipy", "h5py", "structlog", "click", "rich", "threadpoolctl"}


def test_a_ready_server_is_small_and_free_of_tensorflow():
    """The process that serves the bundled model stays under 120 MB, with neither TensorFlow nor Keras mapped into it."""
    with serving(SUNSPOTS, *QUICK) as server:
        with Client(server.address) as client:
            for _ in range(100):
                client.step([0.5])
        with open(f"/proc/{server.process.pid}/status") as status:  # noqa: PTH123
            memory = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Vm")}
        with open(f"/proc/{server.process.pid}/maps") as maps:  # noqa: PTH123
            mapped = maps.read()

    assert int(memory["VmRSS"]) < 120 << 10
    assert "tensorflow" not in mapped


def test_settings_from_variables_and_a_file(tmp_path):
    """A flag beats a variable, a variable the file, the file the default."""
    (tmp_path / "settings.toml").write_text(
        f'models = ["{SUNSPOTS}"]\nmax-rows = 5\nmax_steps = 6\nlisten = ["127.0.0.1:0"]\n'
    )
    env = {"LSTMSERVE_CONFIG": str(tmp_path / "settings.toml"), "LSTMSERVE_MAX_ROWS": "4", "LSTMSERVE_MAX_STEPS": "3"}
    with LiveServer("--max-steps", "2", *QUICK, env=env) as server:
        server.wait_for("serving")
        with Client(server.address) as client:
            client.forward(np.zeros((4, 2, 1)))
            with pytest.raises(Exception, match="got 5 rows, expected at most 4"):
                client.forward(np.zeros((5, 2, 1)))
            with pytest.raises(Exception, match="got 3 time-steps, expected at most 2"):
                client.forward(np.zeros((4, 3, 1)))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("max-rows = ", "is not valid TOML"),
        ("max_rowz = 1", "has the setting 'max_rowz', which is not known"),
        ("max-rows = 'x'", "has max_rows = 'x'; expected an integer"),
        ("max-rows = true", "has max_rows = True; expected an integer"),
        ("reflection = 0", "has reflection = 0; expected true or false"),
        ("listen = []", "has listen = []; expected a list of texts"),
        ("listen = '127.0.0.1:5'", "has listen = '127.0.0.1:5'; expected a list of texts"),
        ("layer = 3", "has layer = 3; expected text"),
        ("max-rows = 1\nmax_rows = 2", "has a setting twice"),
    ],
)
def test_a_wrong_file_of_settings(tmp_path, content, text):
    """A file that is no TOML, or has a setting that does not exist, is refused by name with 2."""
    (tmp_path / "s.toml").write_text(content)
    code, line = refusal(SUNSPOTS, "--config", tmp_path / "s.toml")

    assert code == 2
    assert text in line


def test_one_layer_of_a_model_is_served():
    """--layer serves one LSTM alone: its input and output are the layer's own."""
    with serving(SUNSPOTS, "--layer", "fast", *QUICK) as server, Client(server.address) as client:
        output, state = client.step(np.zeros(48, np.float32))

    assert (output.shape, [part.layer for part in state.layers]) == ((24,), ["fast"])


def test_many_callers_at_once(sunspots):
    """Calls of many threads each get their own answer."""
    x = np.linspace(0, 2, 64, dtype=np.float32)
    with Client(sunspots.address) as client:
        expected = [client.step([value]).output.tobytes() for value in x]
        barrier = threading.Barrier(16)

        def call(start):
            barrier.wait()
            return [client.step([value]).output.tobytes() for value in x[start::16]]

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            parts = list(pool.map(call, range(16)))

    assert [parts[i % 16][i // 16] for i in range(64)] == expected
