"""Shadow mode in a running server: it tells how answers differ from Keras', and never changes, delays or fails one."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import grpc
import numpy as np
import pytest

from lstmserve import Client
from lstmserve.report_text import array_name
from lstmserve.v1 import lstm_pb2, shadow_pb2
from lstmserve_server.core import packages
from lstmserve_server.core.errors import StartupError
from lstmserve_server.shadow import reference_process
from lstmserve_server.shadow.worker import ComparisonWorker
from lstmserve_server.tools.verify import replay
from tests.support.live import CLIENT, QUICK, run, serving
from tests.support.paths import ROOT, SUNSPOTS

pytestmark = pytest.mark.slow

MODEL = SUNSPOTS
ODD = (sys.executable, str(ROOT / "tests" / "support" / "faulty_reference.py"))

FAULTY = (
    sys.executable,
    "-m",
    "tests.support.shadow_faults",
)  # the bias of gate i of unit 3 is off by 1e-2 in the last LSTM


def _x(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _call(channel, method, request, response):
    return channel.unary_unary(method, lambda message: message.SerializeToString(), response.FromString)(request)


def _report(server, model=""):
    with grpc.insecure_channel(server.address) as channel:
        request = shadow_pb2.GetReportRequest(model=model)
        return _call(channel, "/lstmserve.v1.ShadowService/GetReport", request, shadow_pb2.GetReportResponse).report


def _bytes(result):
    state = result.state.to_message()
    return result.output.tobytes(), [(part.h.data, part.c.data) for part in state.layers]


@pytest.fixture(scope="module")
def server():
    """A server with the real Keras alongside it, which compares nothing but what it is asked to."""
    with serving(MODEL, "--shadow", "1e-9", "--shadow-wait-seconds", "60", "--metrics", "127.0.0.1:0", *QUICK) as live:
        live.wait_for("reference_up")
        yield live


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A server whose answers are wrong, with a folder for bundles."""
    folder = tmp_path_factory.mktemp("bundles")
    arguments = (
        "--shadow",
        "all",
        "--shadow-bundles",
        folder,
        "--shadow-max-bundles",
        "2",
        "--shadow-wait-seconds",
        "60",
    )
    with serving(MODEL, *arguments, *QUICK, program=FAULTY) as live:
        live.wait_for("reference_up")
        live.folder = folder
        yield live


@pytest.fixture(scope="module")
def bundle(faulty):
    """A bundle of that server's, whichever test asks first."""
    with Client(faulty.address) as client:
        client.step(_x(0, 2, 1), compare=True, timeout=60)
    return min(faulty.folder.iterdir())


def test_a_step_is_compared_where_it_is_asked_for(server):
    """A call that asks for the comparison gets it, with every layer in it and who was the witness."""
    with Client(server.address) as client:
        _, state = client.step(_x(1, 3, 1))
        found = client.step(_x(2, 3, 1), state, compare=True, timeout=60).comparison
    assert found.verdict == shadow_pb2.VERDICT_AGREES
    assert found.reference_model.kind == shadow_pb2.REFERENCE_MODEL_KIND_KERAS_FILE
    expected = {("slow", "h"), ("slow", "c"), ("fast", "h"), ("fast", "c"), ("head", "output")}
    assert {(totals.layer, array_name(totals.array)) for totals in found.teacher_forced} == expected
    assert next(totals.value_count for totals in found.teacher_forced if totals.layer == "slow") == 3 * 48
    assert all(totals.tolerance_ratio < 0.1 for totals in found.teacher_forced)
    assert (found.tolerances.h, found.tolerances.c) == (1e-5, 1e-5)


def test_a_comparison_changes_no_byte(server):
    """The answer has the same bytes with and without the comparison."""
    with Client(server.address) as client:
        x = _x(3, 2, 300, 1)
        plain = client.forward(x, all_outputs=True)
        compared = client.forward(x, all_outputs=True, compare=True, timeout=60)
    assert plain.comparison is None
    assert _bytes(plain) == _bytes(compared)
    slow_h = next(t for t in compared.comparison.teacher_forced if (t.layer, array_name(t.array)) == ("slow", "h"))
    assert slow_h.value_count == 2 * 300 * 48


def test_rows_of_several_lengths_are_compared(server):
    """Of rows of several lengths each row's own steps are compared, and no others."""
    with Client(server.address) as client:
        found = client.forward(_x(4, 3, 20, 1), lengths=[20, 1, 7], compare=True, timeout=60).comparison
    assert found.verdict == shadow_pb2.VERDICT_AGREES
    values = {(totals.layer, array_name(totals.array)): totals.value_count for totals in found.teacher_forced}
    assert values["fast", "c"] == (20 + 1 + 7) * 24
    assert values["head", "output"] == 3


def test_a_message_of_a_stream_is_compared(server):
    """A message of a stream that asks for the comparison gets it, and the others do not."""
    with grpc.insecure_channel(server.address) as channel:
        method = channel.stream_stream(
            "/lstmserve.v1.LstmService/StreamSteps",
            lambda message: message.SerializeToString(),
            lstm_pb2.StreamStepsResponse.FromString,
        )
        x = lstm_pb2.Tensor(dtype=lstm_pb2.DATA_TYPE_FLOAT32, shape=[1, 5, 1], data=_x(5, 1, 5, 1).tobytes())
        messages = [
            lstm_pb2.StreamStepsRequest(open=lstm_pb2.StreamOpen()),
            lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=1, x=x)),
            lstm_pb2.StreamStepsRequest(input=lstm_pb2.StepInput(number=2, x=x, compare=True)),
        ]
        outputs = [response.output for response in method(iter(messages)) if response.HasField("output")]
    assert [output.HasField("comparison") for output in outputs] == [False, True]
    assert outputs[1].comparison.verdict == shadow_pb2.VERDICT_AGREES


def test_the_report_counts_what_was_compared(server):
    """The report tells how many calls were answered, sampled and compared, and how far apart they were."""
    before = _report(server).models[0].coverage
    with Client(server.address) as client:
        client.step(_x(6, 2, 1))
        client.step(_x(7, 2, 1), compare=True, timeout=60)
    report = _report(server, "sunspots")
    coverage = report.models[0].coverage
    counted = [
        getattr(coverage, name) - getattr(before, name)
        for name in ("offered_count", "sampled_count", "compared_count", "row_step_count", "discrepant_count")
    ]
    assert counted == [2, 1, 1, 4, 0]
    assert report.reference_process.status == shadow_pb2.REFERENCE_STATUS_UP
    assert report.reference_process.versions["keras"].split(".")[0] == "3"
    slow = next(t for t in report.models[0].teacher_forced if (t.layer, array_name(t.array)) == ("slow", "c"))
    assert slow.value_count == sum(slow.difference_histogram) == sum(slow.ulp_histogram)
    assert 0 <= report.models[0].reference_model.whole_model_difference < 1e-6


def test_a_report_on_a_model_that_is_not_there(server):
    """A report on an unknown model is refused with the names of those that are served."""
    with pytest.raises(grpc.RpcError) as refused:
        _report(server, "moon")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "model: no model 'moon' is served; expected one of 'sunspots'"


def test_metrics(server):
    """Prometheus reads the same numbers, with a cumulative histogram of the differences."""
    with Client(server.address) as client:
        client.step(_x(8, 2, 1), compare=True, timeout=60)
    coverage = _report(server).models[0].coverage
    listen = next(entry["listen"] for entry in server.log if entry["event"] == "metrics")
    with urllib.request.urlopen(f"http://{listen}/metrics") as response:
        lines = response.read().decode().splitlines()
    assert f'lstmserve_shadow_compared_total{{model="sunspots"}} {float(coverage.compared_count)}' in lines
    assert "lstmserve_shadow_reference_up 1.0" in lines
    assert "lstmserve_shadow_queue_calls 0.0" in lines
    prefix = 'lstmserve_shadow_difference_bucket{array="h",le="'
    buckets = [float(line.split()[-1]) for line in lines if line.startswith(prefix)]
    assert buckets == sorted(buckets)
    assert len(buckets) == 17
    assert buckets[-1] > 0


def test_the_client_shows_the_report(server):
    """`lstmserve-client report` prints coverage, witness and differences, and JSON on request."""
    with Client(server.address) as client:
        client.step(_x(9, 2, 1), compare=True, timeout=60)
    shown = run("--address", server.address, "report", program=CLIENT)
    assert shown.returncode == 0
    for text in ("sunspots  agrees", "the file itself, written by Keras 3", "compared", "slow", "of tolerance"):
        assert text in shown.stdout
    told = json.loads(run("--address", server.address, "report", "--json", program=CLIENT).stdout)
    assert told["models"][0]["model"] == "sunspots"


def test_tensorflow_is_not_in_the_serving_process(server):
    """The serving process has mapped no library of TensorFlow or Keras, while the reference has."""
    reference = next(entry["process"] for entry in server.log if entry["event"] == "reference_up")
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in (server.process.pid, reference)]
    assert ["tensorflow" in text for text in maps] == [False, True]


def test_the_reference_steps_back(server):
    """The reference runs with a lower priority than the server."""
    reference = next(entry["process"] for entry in server.log if entry["event"] == "reference_up")
    assert os.getpriority(os.PRIO_PROCESS, reference) - os.getpriority(os.PRIO_PROCESS, server.process.pid) == 10


def test_without_shadow_mode():
    """Without shadow mode a call that asks is answered, and told that nothing was compared; the report says off."""
    with serving(MODEL, *QUICK) as live, Client(live.address) as client:
        result = client.step(_x(1, 1, 1), compare=True)
        assert result.output.shape == (1, 1)
        assert result.comparison.verdict == shadow_pb2.VERDICT_NOT_COMPARED
        assert result.comparison.reason == "the server runs without shadow mode (--shadow)"
        assert client.shadow_report().sampling_rate == 0
        with pytest.raises(grpc.RpcError) as refused, grpc.insecure_channel(live.address) as channel:
            next(_watch(channel))
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


def _watch(channel):
    method = channel.unary_stream(
        "/lstmserve.v1.ShadowService/WatchDiscrepancies",
        lambda message: message.SerializeToString(),
        shadow_pb2.WatchDiscrepanciesResponse.FromString,
    )
    return method(shadow_pb2.WatchDiscrepanciesRequest(), timeout=120)


def test_discrepancies_are_watched_logged_and_bundled(faulty):
    """A discrepancy is sent to who watches, logged with its place, and written as a bundle, at most so many."""
    with grpc.insecure_channel(faulty.address) as channel, Client(faulty.address) as client:
        watching = _watch(channel)
        for seed in range(4):
            found = client.step(_x(seed, 2, 1), compare=True, timeout=60).comparison
            assert found.verdict == shadow_pb2.VERDICT_DIFFERS
        discrepancy = next(watching).discrepancy
    assert (
        discrepancy.model,
        discrepancy.method,
        discrepancy.row_count,
        discrepancy.step_count,
    ) == ("sunspots", "Step", 2, 1)
    entry = faulty.wait_for("discrepancy")
    assert entry["where"].startswith("c of layer 'fast', step 0, row ")
    assert ", unit 3, gate i: ours " in entry["where"]
    assert entry["bundle"].startswith("sunspots-")
    assert len(list(faulty.folder.iterdir())) == 2
    assert (_report(faulty).written_bundle_count, _report(faulty).failed_bundle_count) == (2, 0)


def test_a_bundle_is_replayed(bundle):
    """A bundle computes again: what was wrong in the server is told apart from what the code gives now."""
    replayed = run("replay", bundle)
    assert replayed.returncode == 0, replayed.stderr
    for text in (
        "differs",
        "unit 3, gate i",
        "agrees",
        "has other bytes than then",
        "fast: the largest difference of each step",
    ):
        assert text in replayed.stdout


def test_a_fault_that_is_still_there_is_replayed(bundle):
    """A bundle that still differs says so, and ends with the exit code for it."""
    replayed = run("replay", bundle, program=FAULTY)
    assert replayed.returncode == 1, replayed.stderr
    assert "other bytes" not in replayed.stdout
    assert replayed.stdout.count("unit 3, gate i") == 2


def _about(bundle):
    with np.load(bundle) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(arrays["about"].tobytes())


def test_a_changed_bundle_is_refused(bundle, tmp_path, monkeypatch, capsys):
    """A bundle whose parts do not fit one another is refused in a sentence: exit code 2."""
    monkeypatch.setattr(reference_process, "PROGRAM", (*ODD, "good"))
    arrays, about = _about(bundle)
    for change in ({"asked": about["asked"] | {"inputs": []}}, {"outputs": []}, {"pieces": []}):
        changed = np.frombuffer(json.dumps(about | change).encode(), np.uint8)
        np.savez(tmp_path / "changed.npz", **{**arrays, "about": changed})
        options = {"tolerance_h": 1e-5, "tolerance_c": 1e-5, "tolerance_unbounded": 1e-3}
        ended = replay.run([str(tmp_path / "changed.npz")], model=None, architecture=None, **options)
        assert ended == 2
        assert "its parts do not fit one another" in capsys.readouterr().err


def test_a_bundle_does_not_steer_the_terminal(bundle, tmp_path):
    """What a bundle says is shown as text: no markup, no letters that steer a terminal."""
    arrays, about = _about(bundle)
    steering = json.dumps(about | {"versions": {"\x1b[31m[bold]": "[/]"}}).encode()
    np.savez(tmp_path / "steering.npz", **{**arrays, "about": np.frombuffer(steering, np.uint8)})
    ended = run("replay", tmp_path / "steering.npz")
    assert ended.returncode == 0, ended.stderr
    assert "\x1b" not in ended.stdout
    assert "[bold]" in ended.stdout


def test_verify_finds_the_fault():
    """`lstmserve verify` says where ours and Keras part, and ends with the exit code for it."""
    found = run("verify", MODEL, "--calls", "2", "--steps", "8", program=FAULTY)
    assert found.returncode == 1, found.stderr
    assert "DIFFERS: 2 of 2 calls are over tolerance, the first at c of layer 'fast', step 0, row " in found.stdout
    assert ", unit 3, gate i: ours " in found.stdout


def test_a_bundle_of_another_model_is_refused(bundle, tmp_path):
    """A bundle is not replayed with another model, and no file that is none is taken for one."""
    other = MODEL.parent.parent / "sensor" / "sensor.keras"
    refused = run("replay", bundle, "--model", other)
    assert refused.returncode == 2
    assert "Give the right model file with --model" in refused.stderr
    (tmp_path / "none.npz").write_bytes(b"PK\x03\x04 and nothing else")
    broken = run("replay", tmp_path / "none.npz")
    assert broken.returncode == 2
    assert "is not a bundle that lstmserve wrote" in broken.stderr


@pytest.mark.parametrize("how", ["slow", "dies", "garbage", "half", "deaf", "error"])
def test_a_reference_that_does_not_behave(how):
    """Whatever the reference does, every call is answered with the same bytes as without it, and what it missed is counted."""
    x = _x(1, 2, 40, 1)
    with serving(MODEL, *QUICK) as plain, Client(plain.address) as client:
        expected = _bytes(client.forward(x, all_outputs=True))
    arguments = ("--shadow", "all", "--shadow-seconds", "2" if how in ("half", "deaf") else "30", "--shadow-queue", "5")
    with serving(MODEL, *arguments, *QUICK, program=ODD, env={"ODD_REFERENCE": how}) as live:
        live.wait_for("reference_up")
        with Client(live.address) as client:
            for _ in range(60):
                assert _bytes(client.forward(x, all_outputs=True)) == expected
            if how not in ("slow", "error"):
                live.wait_for("reference_down")
        coverage = _report(live).models[0].coverage
        assert coverage.offered_count == coverage.sampled_count == 60
        assert 60 >= sum(coverage.dropped_counts.values()) + sum(coverage.error_counts.values()) > 0
        assert live.stop() == 0


def test_work_is_taken_once_the_reference_is_said_to_be_up():
    """Who hears that the reference is up can have a call compared: it is not said a moment too early."""
    pump_made, answers = threading.Event(), queue.Queue()

    def offer(*_):
        """Offers work when it is said that the reference is up."""
        pump_made.wait()
        answers.put(pump.offer(SimpleNamespace(bytes=1, since=0.0)))

    reference = MagicMock()
    reference.__enter__.return_value = reference
    pump = ComparisonWorker(lambda: reference, MagicMock(reference_up=offer), max_jobs=1, max_bytes=1)
    pump_made.set()

    assert answers.get(timeout=30) == ""
    pump.stop()


def test_a_reference_killed_in_a_loop():
    """While the reference is killed again and again no call fails, and it comes back each time."""
    x = _x(2, 2, 40, 1)
    with serving(MODEL, "--shadow", "all", *QUICK, program=ODD, env={"ODD_REFERENCE": "good"}) as live:
        with Client(live.address) as client:
            expected = _bytes(client.forward(x))
            for _ in range(3):
                os.kill(live.wait_for("reference_up")["process"], signal.SIGKILL)
                assert _bytes(client.forward(x)) == expected
                live.wait_for("reference_down")
                assert _bytes(client.forward(x)) == expected
            live.wait_for("reference_up")
            assert client.forward(x, compare=True).comparison.verdict == shadow_pb2.VERDICT_AGREES
        assert _report(live).reference_process.restart_count == 3


def test_a_reference_without_memory():
    """A reference that cannot have the memory it needs is reported as down, and calls are answered."""
    with serving(MODEL, "--shadow", "all", "--shadow-memory-bytes", str(64 << 20), *QUICK) as live:
        assert live.wait_for("reference_down")["reason"]
        with Client(live.address) as client:
            found = client.step(_x(1, 1, 1), compare=True).comparison
        assert (found.verdict, found.reason) == (shadow_pb2.VERDICT_NOT_COMPARED, "starting")
        assert _report(live).reference_process.status in (
            shadow_pb2.REFERENCE_STATUS_DOWN,
            shadow_pb2.REFERENCE_STATUS_STARTING,
        )


def test_who_waits_for_a_slow_reference_is_answered():
    """A call that asks for the comparison is answered when the reference takes too long, and says so."""
    arguments = ("--shadow", "0.5", "--shadow-wait-seconds", "0.2")
    with serving(MODEL, *arguments, *QUICK, program=ODD, env={"ODD_REFERENCE": "slow"}) as live:
        live.wait_for("reference_up")
        with Client(live.address) as client:
            found = client.step(_x(1, 1, 1), compare=True).comparison
    assert (found.verdict, found.reason) == (shadow_pb2.VERDICT_NOT_COMPARED, "timed_out")


def test_who_waits_is_answered_before_his_deadline():
    """A call whose deadline comes before the comparison is answered in time all the same."""
    arguments = ("--shadow", "0.5", "--shadow-wait-seconds", "60")
    with serving(MODEL, *arguments, *QUICK, program=ODD, env={"ODD_REFERENCE": "slow"}) as live:
        live.wait_for("reference_up")
        with Client(live.address) as client:
            result = client.step(_x(1, 1, 1), compare=True, timeout=1.5)
    assert result.output.shape == (1, 1)
    assert (result.comparison.verdict, result.comparison.reason) == (shadow_pb2.VERDICT_NOT_COMPARED, "timed_out")


def test_who_waits_is_let_go_by_a_drain():
    """A call that waits for its comparison when the server drains is answered at once, and the server ends with 0."""
    arguments = ("--shadow", "0.5", "--shadow-wait-seconds", "3600", "--drain-seconds", "3600")
    with serving(MODEL, *arguments, *QUICK, program=ODD, env={"ODD_REFERENCE": "half"}) as live:
        live.wait_for("reference_up")
        with Client(live.address, timeout=3600) as client, ThreadPoolExecutor(1) as beside:
            waiting = beside.submit(client.step, _x(1, 1, 1), compare=True)
            while not _report(live).models[0].coverage.sampled_count:
                pass
            assert live.stop() == 0
            assert waiting.result().comparison.reason == "stopping"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_reference_that_is_starting_ends_with_the_server(number):
    """When the server ends while the reference imports TensorFlow, however it ends, that ends too."""
    with serving(MODEL, "--shadow", "all", *QUICK) as live:
        children = Path(f"/proc/{live.process.pid}/task")
        while not (found := [pid for task in children.iterdir() for pid in (task / "children").read_text().split()]):
            pass
        watched = [os.pidfd_open(int(pid)) for pid in found]
        live.stop(number)
        for descriptor in watched:
            assert select.select([descriptor], [], [], 30)[0]  # readable when the process has ended
            os.close(descriptor)


def test_a_folder_that_cannot_be_written(tmp_path):
    """Bundles that cannot be written are logged once and counted, and calls are answered."""
    (tmp_path / "file").write_text("no folder")
    folder = tmp_path / "file" / "bundles"
    arguments = ("--shadow", "all", "--shadow-bundles", folder, "--shadow-wait-seconds", "60")
    with serving(MODEL, *arguments, *QUICK, program=FAULTY) as live:
        live.wait_for("reference_up")
        with Client(live.address) as client:
            for seed in range(3):
                assert (
                    client.step(_x(seed, 1, 1), compare=True, timeout=60).comparison.verdict
                    == shadow_pb2.VERDICT_DIFFERS
                )
        report = _report(live)
        assert (report.written_bundle_count, report.failed_bundle_count) == (0, 3)
        live.stop()
        assert sum(entry["event"] == "bundle_not_written" for entry in live.log) == 1


def test_without_the_packages(monkeypatch):
    """Without the extra the server says in one sentence how to get it."""
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None if name == "tensorflow" else object())
    with pytest.raises(StartupError) as failed:
        packages.require_keras()
    expected = (
        "a comparison with Keras needs packages that are not installed (tensorflow): pip install 'lstmserve[shadow]'"
    )
    assert str(failed.value) == expected


@pytest.mark.parametrize(
    ("rate", "text"),
    [("2", "'2' is not a fraction"), ("some", "'some' is not a fraction"), ("nan", "'nan' is not a fraction")],
)
def test_a_rate_that_makes_no_sense(rate, text):
    """A rate that is not a fraction of the calls is refused with what was expected."""
    ended = run("serve", MODEL, "--shadow", rate)
    assert ended.returncode == 2
    assert text in ended.stderr
    assert "expected off, all, or a number from 0 to 1" in " ".join(ended.stderr.split())


def test_two_workers_each_have_a_shadow():
    """With workers each has a shadow and metrics of its own, and whichever answers tells of itself."""
    with serving(
        MODEL, "--shadow", "all", "--workers", "2", *QUICK, program=ODD, env={"ODD_REFERENCE": "good"}
    ) as live:
        live.wait_for("reference_up")
        with Client(live.address) as client:
            client.step(_x(1, 1, 1))
            assert client.shadow_report().sampling_rate == 1
