"""A process that reads a file, as if the file had taken it over: what it may do, and what its answers can do to the server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from lstmserve import archives
from lstmserve.v1 import shadow_pb2
from lstmserve_server.core import confinement
from lstmserve_server.loading import reader, sandbox, sandbox_child, sandbox_protocol
from lstmserve_server.loading.store import memory_files, transfer
from lstmserve_server.loading.store.arrays import SharedStore
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.shadow import reference_process
from tests.support.paths import SUNSPOTS

ATTEMPTS = """
import json, os, signal, socket, sys, threading
from lstmserve_server.core import confinement
held = confinement.confine([sys.argv[1]], [sys.argv[2]])

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return error.strerror
    return "done"

def thread():
    other = threading.Thread(target=int)
    other.start()
    other.join()

print(json.dumps({"held": held} | {name: outcome(attempt) for name, attempt in {
    "socket": socket.socket,
    "pair": socket.socketpair,
    "fork": os.fork,
    "program": lambda: os.execv("/bin/true", ["true"]),
    "secret": lambda: open(sys.argv[3]).read(),
    "passwords": lambda: open("/etc/passwd").read(),
    "environment": lambda: open(f"/proc/{os.getppid()}/environ").read(),
    "signal": lambda: os.kill(os.getppid(), 0),
    "write": lambda: open("/tmp/lstmserve-was-here", "w"),
    "write what is read": lambda: open(sys.argv[1], "a"),
    "thread": thread,
    "read": lambda: open(sys.argv[1]).read(),
    "scratch": lambda: open(os.path.join(sys.argv[2], "x"), "w").write("x"),
    "own signal": lambda: os.kill(os.getpid(), 0),
    "import": lambda: __import__("wave"),
}.items()}))
"""


def test_a_confined_process_does_its_work_and_nothing_else(tmp_path):
    """It reads what it is to read, writes in its folder and has threads; all else is refused by the kernel."""
    given, scratch, secret = tmp_path / "model", tmp_path / "scratch", tmp_path / "secret"
    given.write_text("a model")
    secret.write_text("a secret")
    scratch.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, given, scratch, secret], capture_output=True, text=True, check=True
    )
    outcomes = json.loads(ran.stdout)
    held = outcomes.pop("held")
    if {"landlock", "seccomp"} - set(held):
        pytest.skip(f"this kernel holds {', '.join(held)} only")

    done = {name for name, outcome in outcomes.items() if outcome == "done"}
    assert done == {"thread", "read", "scratch", "own signal", "import"}


def test_limits_are_never_raised():
    """A limit that someone has set lower stays."""
    code = (
        "import resource as r; from lstmserve_server.core import confinement as c; r.setrlimit(r.RLIMIT_NOFILE, (30, 30));"
        "c.limit({r.RLIMIT_NOFILE: 64, r.RLIMIT_CORE: 0}); print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        "(30, 30) (0, 0)\n"
    )


def test_no_secret_is_in_the_environment(monkeypatch):
    """Of the environment such a process gets what Python needs, and what is added for it."""
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("LSTMSERVE_TOKENS", "tokens.toml")
    monkeypatch.setenv("TZ", "UTC")
    given = confinement.environment(ADDED="1")

    assert given["ADDED"] == "1"
    assert given["TZ"] == "UTC"
    assert not {"DATABASE_PASSWORD", "LSTMSERVE_TOKENS", "HOME"} & set(given)


async def load(conduct, tmp_path, monkeypatch, seconds=3):
    """Loads the bundled model in a process that, instead of that, does something else."""
    (tmp_path / "sitecustomize.py").write_text(conduct)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return await sandbox.load(str(SUNSPOTS), LoadLimits(seconds=seconds))


# Instead of what it is asked, which it reads first.
INSTEAD = "import json, os, sys, time\ndef load(file):\n    {}\nsys.stdout.reconfigure(line_buffering=True)\njson.load = load\n"


@pytest.mark.parametrize(
    ("conduct", "text"),
    [
        ("sys.stdin.read(); os.close(1); time.sleep(1000)", "it took more than 3 seconds (--load-seconds)"),
        ("os.close(0); time.sleep(1000)", "it took more than 3 seconds (--load-seconds)"),
        ("print('1'); time.sleep(1000)", "its answer could not be read"),
        ("print('null'); time.sleep(1000)", "its answer could not be read"),
        ("print('{}'); time.sleep(1000)", "its answer could not be read"),
        ('print(\'{"refused": "x", "layers": 5}\'); time.sleep(1000)', "its answer could not be read"),
        ('print(\'{"refused": "x", "model": {}}\'); time.sleep(1000)', "its answer could not be read"),
        ("print('[' * (1 << 20)); time.sleep(1000)", "its answer could not be read"),
        ('print(\'{"refused": "\' + "x" * (60 << 20) + \'"}\'); time.sleep(1000)', "its answer could not be read"),
        ("print('x' * (1 << 20), end=''); sys.stdout.flush(); time.sleep(1000)", "it took more than 3 seconds"),
        (
            'import json; print(json.dumps({"refused": "x", "layers": [["a", "b", True]] * 20_000})); time.sleep(1000)',
            "its answer could not be read",
        ),
    ],
    ids=[
        "silent without standard output",
        "silent without standard input",
        "number",
        "null",
        "nothing",
        "layers that are none",
        "both",
        "nested",
        "long reason",
        "endless line",
        "many layers",
    ],
)
async def test_what_a_parser_answers_costs_little_and_is_a_refusal(tmp_path, monkeypatch, conduct, text):
    """Within the time that a file may take, and in one sentence."""
    with pytest.raises(sandbox.LayersOfRefusedModel) as refused:
        await load(INSTEAD.replace("{}", conduct), tmp_path, monkeypatch)

    assert text in str(refused.value)


HOLDS_THE_WEIGHTS = """
import mmap, os, threading
if os.environ.get("OPENBLAS_NUM_THREADS") == "1" and not os.fork():
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    links = {number: os.readlink(f"/proc/self/fd/{number}") for number in numbers if os.path.islink(f"/proc/self/fd/{number}")}
    for number, link in links.items():
        if "memfd:weights" in link:
            os.ftruncate(number, 4096)
            kept = mmap.mmap(number, 4096)
    os.close(0); os.close(1); os.setsid()
    threading.Event().wait(20)
    os._exit(0)
"""


async def test_weights_that_somebody_could_still_write_are_refused(tmp_path, monkeypatch):
    """A process that a parser leaves behind, before it is confined, with the weights open, is no danger but a refusal."""
    with pytest.raises(sandbox.LayersOfRefusedModel, match=r"the weights cannot be sealed .*could change them"):
        await load(HOLDS_THE_WEIGHTS, tmp_path, monkeypatch, seconds=20)


async def test_the_weights_are_sealed_before_they_are_used(monkeypatch):
    """No one can write, shorten or lengthen them any more, anyone who has the file."""
    kept = []
    seal = memory_files.seal
    monkeypatch.setattr(memory_files, "seal", lambda descriptor: (seal(descriptor), kept.append(os.dup(descriptor))))
    await sandbox.load(str(SUNSPOTS), LoadLimits())

    for attempt in (
        lambda: os.pwrite(kept[0], b"x", 0),
        lambda: os.ftruncate(kept[0], 0),
        lambda: os.ftruncate(kept[0], 1 << 20),
    ):
        with pytest.raises(PermissionError):
            attempt()
    os.close(kept[0])


def test_memory_is_not_counted_by_what_a_sparse_file_promises(tmp_path):
    """A hole counts nothing, nor does a file that is too large to be read; what is written counts."""
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    full.write_bytes(b"x" * 70_000)

    assert sandbox_child._size(sparse, 2 << 30) == 0
    assert sandbox_child._size(full, 2 << 30) == 70_000
    assert sandbox_child._size(full, 1000) == 1000
    assert sandbox_child._size(tmp_path, 2 << 30) == 70_000
    assert sandbox_child._size(tmp_path, 1000) == 0


def test_a_folder_is_not_walked_to_its_end(tmp_path, monkeypatch):
    """Only so many files of a folder are looked at, and none below its own."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x" * 5000)
    for number in range(20):
        (tmp_path / f"file{number}").write_bytes(b"x" * 100)
    monkeypatch.setattr(sandbox_child, "_MAX_ENTRIES", 7)

    assert sandbox_child._size(tmp_path, 1 << 30) == 700


async def test_a_parser_cannot_fill_the_memory_with_weights(tmp_path, monkeypatch):
    """What it puts into the file in memory is bounded by the size of the model's file."""
    conduct = (
        "import os, lstmserve_server.loading.reader as r\n"
        "def load(*a, store, **k):\n    os.ftruncate(store._file, 3 << 30)\n"
        "r.load = load\n"
    )
    with pytest.raises(sandbox.LayersOfRefusedModel, match="File too large"):
        await load(conduct, tmp_path, monkeypatch, seconds=20)


def test_a_good_answer_of_the_parser_is_taken():
    """The schema lets through what the loader writes."""
    file = os.memfd_create("test")
    form = transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file)
    os.close(file)

    assert sandbox_protocol.checked(json.dumps({"model": form}).encode())["model"]["dtype"] == "float32"


def packed(compression=zipfile.ZIP_STORED, **arrays):
    """Returns an archive of arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    again = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(again, "w", compression) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    return again.getvalue()


def header(text):
    """Returns an archive with one array of a header."""
    buffer = io.BytesIO()
    raw = text.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + bytes(80))
    return buffer.getvalue()


COMPARISON = shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_AGREES).SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        packed(zipfile.ZIP_DEFLATED, a=np.zeros(25_000_000, np.float64)),
        packed(a=np.zeros(10))[:-30],
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-10,), }"),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (10,), }"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (10,), }" + "#" * 8000),
        header("(" * 100),
        header("{'descr': ('<f8', 'x'), 'fortran_order': False, 'shape': (10,), }"),
        b"no archive at all",
    ],
    ids=[
        "bomb",
        "cut",
        "too few bytes",
        "negative",
        "objects",
        "long header",
        "nested header",
        "odd type",
        "no archive",
    ],
)
def test_arrays_of_a_reference_are_no_larger_than_what_it_sent(data):
    """Whatever it sends for an archive is read within its own size, or an error of one kind."""
    with pytest.raises(ValueError, match=r"."):
        reference_process.reply(COMPARISON, data)


def test_arrays_come_out_of_an_archive_as_they_went_in():
    """Numbers, texts, truth values, empty arrays, and those that are stored by columns."""
    given = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "text": np.array(["a", "bc"]),
        "scalar": np.array(7),
        "empty": np.empty((0, 4)),
        "mask": np.array([True, False]),
    }
    for name, array in archives.read(packed(**given), max_bytes=1 << 20).items():
        np.testing.assert_array_equal(array, given[name])
        assert array.dtype == given[name].dtype


def test_what_a_reference_says_is_made_printable():
    """It may say anything, and what it says goes into logs, reports and terminals."""
    found = shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_DIFFERS, reason="\x1b]0;title\x07")
    found.first_location.layer = "a\u202eb\n"
    found.reference_model.differing_weights.append("\x9b31m")
    reply = reference_process.reply(found.SerializeToString(), b"")

    assert reply.comparison.reason == "\\x1b]0;title\\x07"
    assert reply.comparison.first_location.layer == "a\\u202eb\\n"
    assert list(reply.comparison.reference_model.differing_weights) == ["\\x9b31m"]


def test_a_comparison_that_is_none_is_one_error():
    """As is one with a verdict that does not exist."""
    for data in (b"\xff\xff", b"", shadow_pb2.Comparison(verdict=77).SerializeToString()):
        with pytest.raises((ValueError, DecodeError), match=r"."):
            reference_process.reply(data, b"")


@pytest.mark.parametrize(
    "change",
    [
        lambda totals: setattr(totals, "layer", "none of ours"),
        lambda totals: setattr(totals, "array", 77),
        lambda totals: setattr(totals, "value_count", 1 << 62),
        lambda totals: setattr(totals, "over_tolerance_count", 1 << 60),
        lambda totals: setattr(totals, "max_ulp", (1 << 63) - 1),
    ],
    ids=["another layer", "another array", "many values", "many over", "many ULP"],
)
def test_differences_of_what_does_not_exist_are_not_counted(change):
    """Else a report would grow with whatever a reference makes up, or overflow as it is added up."""
    found = shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_AGREES)
    totals = found.teacher_forced.add(layer="lstm", array=shadow_pb2.ARRAY_KIND_H, value_count=7)
    reference_process.reply(found.SerializeToString(), b"", {"lstm"})
    change(totals)
    with pytest.raises(ValueError, match="differences of"):
        reference_process.reply(found.SerializeToString(), b"", {"lstm"})


def test_reasons_of_a_reference_are_short_and_few():
    """They are the names of counters."""
    for changed in ({"reason": "x" * 65}, {"partial_reasons": ["y"] * 65}):
        found = shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_NOT_COMPARABLE, **changed)
        with pytest.raises(ValueError, match="a reason that is too long"):
            reference_process.reply(found.SerializeToString(), b"")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda form: form["layers"][1]["options"].update(units=1 << 30), "has the options|has weights"),
        (lambda form: form["layers"][1].update(output_shapes=[[1 << 30, 4]]), "gives"),
        (lambda form: form["layers"][1].update(output_shapes=[[-1]]), "gives"),
        (lambda form: form["layers"][1]["weights"].pop("recurrent_kernel"), "has weights|recurrent_kernel"),
        (
            lambda form: form["layers"][1]["weights"].update(more=form["layers"][1]["weights"]["bias"]),
            "has weights of the shapes",
        ),
    ],
    ids=["units", "long", "negative", "missing", "more"],
)
def test_sizes_that_the_loader_would_not_let_through_are_not_believed(change, text):
    """They are checked on this side too."""
    file = os.memfd_create("test")
    form = transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file)
    transfer.load(form, file)
    change(form)
    with pytest.raises((ValueError, KeyError), match=text):
        transfer.load(form, file)
    os.close(file)
