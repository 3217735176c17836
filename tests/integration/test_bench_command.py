"""`lstmserve bench`: what it reports, what it advises, and that it leaves nothing behind. Nothing here depends on how fast it is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from lstmserve_server.tools.bench import advice
from lstmserve_server.tools.bench.benchmark import Counted, Measured, Measurement, Plan, cases
from lstmserve_server.tools.bench.load_generator import Case, LoadResult, quantile
from lstmserve_server.tools.bench.processes import Memory
from lstmserve_server.tools.bench.tables import _bar, _is_by_the_clock, of_server
from tests.support.builders import input_config, keras_layer, lstm_config, sequential, write_zip
from tests.support.live import PROGRAM, run, until
from tests.support.paths import FIXTURES, SUNSPOTS

QUICK = ("--duration", "0.1")
PLAN = Plan("a.keras", ("exact",), 1.0, (8, 64), (1, 32), {})
STEPPED = {"supports_step": True, "sequence_steps": 100}


def measured(kind="step", callers=1, rows=1, steps=1, *, numerics="exact", **figures):
    """Returns what a thousand calls in a second came to; of the figures only those that matter are given."""
    given = {
        "calls": 1000,
        "seconds": 1.0,
        "p99": 0.002,
        "cpu": 0.5,
        "load": 0.25,
        "queue": 0.0,
        "compute": 0.1,
    } | figures
    taken = LoadResult(
        given["calls"], given["seconds"], 0.001, 0.0015, given["p99"], 0.003, given["cpu"], given["load"]
    )
    counted = Counted(given["calls"], given["calls"] * rows * steps, 0.1, given["queue"], given["compute"], 0.05)
    return Measurement(numerics, Case(kind, callers, rows, steps), taken, counted)


def bench(*arguments):
    """Runs the command to its end, and returns the report for programs."""
    ended = run("bench", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return json.loads(ended.stdout)


def check(measurement):
    """Checks what holds for every measurement, however fast it was."""
    calls, latency, shares = measurement["calls"], measurement["latency_seconds"], measurement["time_shares"]
    steps = calls * measurement["rows"] * measurement["steps_per_call"]

    assert calls >= measurement["concurrency"]
    assert {"calls": calls, "steps": steps} == measurement["server_counted"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert set(shares) == {"decode", "compute", "encode", "rest"}
    assert pytest.approx(sum(shares.values())) == 1
    assert measurement["steps_per_second"] == pytest.approx(steps / measurement["seconds"])
    assert measurement["server_cpu_seconds"] > 0
    assert measurement["load_cpu_seconds"] > 0
    assert 1000 * measurement["server_cpu_seconds"] == pytest.approx(
        steps * measurement["server_cpu_seconds_per_1000_steps"]
    )


@pytest.mark.slow
def test_a_model_that_can_be_stepped():
    """Every case is measured with both numerics, the counts are the server's own, and there is advice on all."""
    report = bench(SUNSPOTS, *QUICK, "--concurrency", "1", "--concurrency", "4", "--rows", "3", "--compare-numerics")

    assert report["format"] == 1
    assert [server["numerics"] for server in report["servers"]] == ["exact", "fast"]
    for server in report["servers"]:
        found = [
            (one["kind"], one["concurrency"], one["rows"], one["steps_per_call"]) for one in server["measurements"]
        ]
        assert found == [
            ("step", 1, 1, 1), ("step", 4, 1, 1), ("stream", 1, 1, 1), ("stream", 4, 1, 1), ("stream", 1, 3, 1),
            ("stream", 1, 1, 16), ("forward", 1, 1, 100),
        ]  # fmt: skip
        assert server["failures"] == []
        assert 0 < server["model_load_seconds"] < server["ready_seconds"]
        assert 0 < server["memory_bytes"]["ready"] <= server["memory_bytes"]["peak"]
        for measurement in server["measurements"]:
            check(measurement)
    assert set(report["recommendation"]) == {"numerics", "calls", "rows", "workers", "max_pending_calls"}
    assert all(one["why"] for one in report["recommendation"].values())
    assert set(report["machine"]["versions"]) == {"lstmserve", "python", "numpy", "grpcio"}
    assert {"duration": 0.1, "rows": [3], "concurrency": [1, 4], "deadline": 1.0}.items() <= report[
        "parameters"
    ].items()


@pytest.mark.slow
def test_a_model_that_cannot_be_stepped(tmp_path):
    """Of a model that goes backwards Forward alone is measured, and it is said why; to a person too, in any width."""
    late = write_zip(tmp_path / "late.keras", sequential(input_config(), lstm_config(go_backwards=True)))
    few = (*QUICK, "--concurrency", "2", "--rows", "3")
    report = bench(late, *few)
    shown = run("bench", late, *few)

    (server,) = report["servers"]
    assert [(one["rows"], one["steps_per_call"]) for one in server["measurements"]] == [(1, 100), (3, 100)]
    assert {one["kind"] for one in server["measurements"]} == {"forward"}
    for measurement in server["measurements"]:
        check(measurement)
    assert report["recommendation"]["calls"]["value"] == "forward"
    assert shown.returncode == 0, shown.stderr
    text = " ".join(shown.stdout.split())
    for part in (
        "Only Forward is measured: this model cannot be stepped, as layer 'lstm' has go_backwards",
        "Forward T=100, 3 rows", "Where the server's CPU time of a call goes", "--max-pending-calls",
        f"lstmserve bench {late} --duration 0.1 --concurrency 2 --rows 3 --numerics exact --deadline 1",
    ):  # fmt: skip
        assert part in text
    assert max(len(line) for line in shown.stdout.splitlines() if not line.startswith("lstmserve bench")) <= 120


@pytest.mark.slow
def test_token_ids_and_a_part_of_a_model():
    """Token ids are what a model with an Embedding is given; --until and --layer measure a part, as `inspect` shows it."""
    words = FIXTURES / "tf2.15" / "lstm_emb_mask.keras"
    few = (*QUICK, "--concurrency", "1", "--rows", "2")
    whole, part = bench(words, *few), bench(SUNSPOTS, *few, "--layer", "fast", "--numerics", "fast")

    assert whole["servers"][0]["failures"] + part["servers"][0]["failures"] == []
    assert part["servers"][0]["numerics"] == part["recommendation"]["numerics"]["value"] == "fast"
    assert part["command"].endswith("--numerics fast --deadline 1 --layer fast")


def test_a_model_that_is_refused(tmp_path):
    """A model that is refused is refused with one sentence, that of the server: exit code 3."""
    path = write_zip(tmp_path / "a.keras", sequential(keras_layer("Attention", "look"), lstm_config()))
    ended = run("bench", path)

    assert (ended.returncode, ended.stdout) == (3, "")
    assert ended.stderr.startswith(f"lstmserve: {path}: layer 'look' (Attention) is of a kind that is not supported")
    assert len(ended.stderr.splitlines()) == 1


def test_options_that_make_no_sense():
    """Options that contradict one another, or are not numbers, are refused: exit code 2."""
    both = run("bench", SUNSPOTS, "--numerics", "fast", "--compare-numerics")

    assert both.returncode == 2
    assert "expected no --numerics alongside it" in both.stderr
    assert run("bench", SUNSPOTS, "--duration", "nan").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_is_interrupted_leaves_nothing_behind(number):
    """Whether it is interrupted, ended or killed: the server and the load generator end too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background is born to ignore it
    process = subprocess.Popen(
        [*PROGRAM, "bench", SUNSPOTS, "--duration", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            started = until(lambda: children_that_serve(process.pid))
            process.send_signal(number)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()
    if number == signal.SIGKILL:
        assert -number == process.returncode
    else:
        assert (process.returncode, out) == (130, "")
        assert error == "lstmserve: interrupted; the server and the load generator are ended\n"
    assert until(lambda: not any(map(runs, started)))


def children_that_serve(pid):
    """Returns the processes that another has started, when both run and the server has loaded its model."""
    found = {int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    commands = {number: command_of(number) for number in found}
    server = next((number for number, text in commands.items() if "lstmserve_server\0serve" in text), None)
    load = next(
        (number for number, text in commands.items() if "lstmserve_server.tools.bench.load_generator" in text), None
    )
    return found if server and load and is_connected(load) else set()


def is_connected(pid):
    """Returns whether the load generator has a connection: more sockets than the two that asyncio has for itself."""
    links = []
    with contextlib.suppress(FileNotFoundError):
        links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link.startswith("socket:") for link in links) > 2


def command_of(pid):
    """Returns the command of a process; nothing of one that has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def runs(pid):
    """Returns whether a process runs; one that no one has waited for does not."""
    return bool(command_of(pid))


def test_what_is_measured_of_a_model():
    """Cases are those that the documentation names; one row is always among them, and one concurrency is enough."""
    one = Plan("a.keras", ("exact",), 1.0, (), (8,), {})

    assert len(cases(PLAN, STEPPED)) == 9 - 1
    assert [(c.kind, c.callers) for c in cases(one, STEPPED)] == [
        ("step", 8),
        ("stream", 8),
        ("stream", 8),
        ("forward", 8),
    ]
    assert {case.kind for case in cases(PLAN, {"supports_step": False, "sequence_steps": 7})} == {"forward"}


def test_quantiles():
    """A quantile is one of the values, the smallest that so large a share does not exceed."""
    hundred = list(range(1, 101))

    assert [quantile(hundred, share) for share in (0.5, 0.9, 0.99)] == [50, 90, 99]
    assert quantile([7], 0.5) == quantile([7], 0.99) == 7


def test_where_the_time_goes():
    """The parts and the rest are all the CPU time; parts that took longer leave no rest, and are still shares of a whole."""
    plain, by_the_clock = measured(cpu=0.5), measured(cpu=0.5, compute=2.0)

    assert pytest.approx(plain.shares) == {"decode": 0.2, "compute": 0.2, "encode": 0.1, "rest": 0.5}
    assert by_the_clock.shares["rest"] == 0
    assert pytest.approx(sum(by_the_clock.shares.values())) == 1
    assert [_is_by_the_clock(plain), _is_by_the_clock(by_the_clock)] == [False, True]


@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.004, 0.99, 0.003, 0.003), (1 / 3, 1 / 3, 0, 1 / 3)])
def test_a_bar_is_as_long_as_it_should_be(shares):
    """A bar has its length, whatever is rounded."""
    assert len(_bar(dict(zip(("decode", "compute", "encode", "rest"), shares, strict=True)), 17)) == 17


def test_what_could_not_be_measured_is_shown():
    """A case that the server refused is shown with its reason, alongside the others; with none at all there are no tables."""
    memory = Memory(80_000_000, 90_000_000)
    failures = [(Case("stream", 1, 64), "x: too large")]
    console = Console(width=80, record=True, file=io.StringIO())
    for measurements in ([measured()], []):
        console.print(of_server(Measured("exact", 1.0, 0.5, memory, memory, measurements, failures), 80))
    text = console.export_text()

    assert text.count("1 stream, 64 rows: not measured: x: too large") == 2
    assert text.count("Where the server's CPU time") == 1
    assert "80 MB when ready, 80 MB at the end, 90 MB at most" in text


@pytest.mark.slow
@pytest.mark.parametrize("who", ["lstmserve_server\0serve", "lstmserve_server.tools.bench.load_generator"])
def test_a_process_that_is_lost_is_one_sentence(who):
    """When the server, or the load generator, is killed from outside, the command says so and ends the other: exit code 1."""
    process = subprocess.Popen(
        [*PROGRAM, "bench", SUNSPOTS, "--duration", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            started = until(lambda: children_that_serve(process.pid))
            os.kill(next(number for number in started if who in command_of(number)), signal.SIGKILL)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()

    assert (process.returncode, out) == (1, "")
    assert "has ended by itself" in error
    assert len(error.splitlines()) == 1
    assert until(lambda: not any(map(runs, started)))


@pytest.mark.parametrize(("fast_cpu", "expected"), [(0.7, "fast"), (0.9, "exact"), (1.3, "exact")])
def test_advice_on_numerics(fast_cpu, expected):
    """Fast is advised where it takes at most 0.8 of the CPU time of what is cheapest, whatever it does elsewhere."""
    both = [
        measured("step", cpu=1.0), measured("step", cpu=0.5, numerics="fast"),
        measured("stream", rows=64, cpu=1.0), measured("stream", rows=64, cpu=fast_cpu, numerics="fast"),
    ]  # fmt: skip
    given = advice.numerics(both)

    assert given.value == expected
    assert fast_cpu == pytest.approx(given.details["fast_to_exact"]["at_cheapest"])
    assert given.details["fast_to_exact"]["least"] == 0.5


def test_advice_on_numerics_that_were_not_compared():
    """What was not measured is not judged."""
    given = advice.numerics([measured(numerics="fast")])

    assert given.value == "fast"
    assert "--compare-numerics measures exact too" in given.why


@pytest.mark.parametrize(("stream_cpu", "expected"), [(0.2, "streams"), (0.5, "step")])
def test_advice_on_the_way_of_calling(stream_cpu, expected):
    """Streams are advised where they are clearly cheaper at the concurrency of both."""
    given = advice.calling_style([
        measured("step", 1, cpu=0.1), measured("step", 32, cpu=0.5),
        measured("stream", 1, cpu=0.5), measured("stream", 32, cpu=stream_cpu),
        measured("stream", 1, steps=16, cpu=0.8),
    ])  # fmt: skip

    assert given.value == expected
    assert stream_cpu / 0.5 == pytest.approx(given.details["stream_to_step"])
    assert "at 32 callers" in given.why
    assert "with 16 steps in a message, 0.10 of that with one" in given.why


@pytest.mark.parametrize(
    ("cpu", "p99", "expected"),
    [
        ((0.1, 0.2, 0.8), (0.001, 0.001, 0.001), 64),  # 64 rows are by far the cheapest
        ((0.1, 0.2, 1.55), (0.001, 0.001, 0.001), 8),  # they are cheapest, but hardly
        ((0.1, 0.2, 0.8), (0.001, 0.001, 2.0), 8),  # they take too long
        ((0.1, 0.2, 0.8), (2.0, 2.0, 2.0), None),  # all do
    ],
)
def test_advice_on_rows(cpu, p99, expected):
    """The fewest rows are advised that are nearly the cheapest for each of them, and quick enough."""
    streams = [measured("stream", rows=n, cpu=c, p99=p) for n, c, p in zip((1, 8, 64), cpu, p99, strict=True)]

    assert advice.rows(streams, deadline=1.0).value == expected


@pytest.mark.parametrize(
    ("cpus", "busy", "load", "expected"),
    [
        (8, 1.0, 0.25, (8, 6)),
        (2, 1.0, 1.0, (2, 1)),
        (8, 2.0, 0.5, (4, 3)),
        (1, 0.5, 0.3, (1, 1)),
        (0.5, 0.5, 0.1, (1, 1)),
        (9, 1.2, 0.1, (7, 7)),
    ],
)
def test_advice_on_workers(cpus, busy, load, expected):
    """As many workers are advised as fill the CPUs, with clients elsewhere and alongside; one at least."""
    given = advice.workers([measured("step", 1, cpu=0.1), measured("step", 32, cpu=busy, load=load)], cpus)

    assert (given.value, given.details["with_clients_on_this_machine"]) == expected
    assert "was not measured" in given.why
    assert (busy < 0.9) == ("was not full" in given.why)


@pytest.mark.parametrize(
    ("calls", "p99", "deadline", "expected"),
    [(1000, 0.1, 1.1, 500), (2000, 0.1, 0.2, 100), (10, 0.05, 0.1, None), (1000, 0.5, 0.4, None)],
)
def test_advice_on_calls_that_wait(calls, p99, deadline, expected):
    """So many calls may wait that twice as many are answered before the deadline; where not one can, it says so."""
    given = advice.max_pending_calls([measured("step", 32, calls=calls, p99=p99)], deadline)

    assert given.value == expected
    assert 128 / calls == pytest.approx(given.details["longest_wait_of_default_seconds"])


def test_advice_on_calls_that_wait_for_threads():
    """Calls that take long wait for a thread, and for them another setting bounds the wait."""
    given = advice.max_pending_calls([measured("forward", 32, steps=100, queue=0.5, p99=0.1)], deadline=1.1)

    assert (given.value, given.details["max_concurrent_calls"]) == (None, 1000)
    assert "--max-concurrent-calls" in given.why


def test_advice_on_nothing():
    """Where nothing could be measured there is no advice, on anything."""
    assert {one.value for one in advice.advise([], 2, 1.0).values()} == {None}


def test_a_server_imports_nothing_of_it():
    """Neither the command line nor the server imports what measures."""
    code = (
        "import sys, lstmserve_server.cli.commands, lstmserve_server.serving.server; "
        "print([name for name in sys.modules if name.startswith('lstmserve_server.bench') or name.endswith('_server.load')])"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
