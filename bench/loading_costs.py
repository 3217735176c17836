"""Benchmark of loading a large file, compared with reading its arrays with h5py.

    python -m bench.loading_costs [--units 2048]

Each figure is of processes of their own, in turn, several times; of a server it is the difference to one with a tiny model.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import live
from tests.support.builders import (
    input_config,
    keras_layer,
    lstm_config,
    numbers,
    sequential,
    weights_file,
    write_hdf5,
    write_zip,
)

ROUNDS = 5

_H5PY = """
import h5py, sys, time, numpy
started = time.perf_counter()
arrays = []
with h5py.File(sys.argv[1]) as file:
    file.visititems(lambda name, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None)
print(time.perf_counter() - started)
"""


def write(folder: Path, units: int) -> dict[str, Path]:
    """Writes a model of two LSTMs in both formats, and a tiny one."""
    config = sequential(
        input_config(512), lstm_config(units, "a", return_sequences=True), lstm_config(units // 2, "b"),
        keras_layer("Dense", "head", units=4, activation="linear", use_bias=True),
    )  # fmt: skip
    scale = 0.02
    arrays = {
        "a": [numbers(512, 4 * units, scale=scale), numbers(units, 4 * units, scale=scale), numbers(4 * units)],
        "b": [numbers(units, 2 * units, scale=scale), numbers(units // 2, 2 * units, scale=scale), numbers(2 * units)],
        "head": [numbers(units // 2, 4), numbers(4)],
    }
    places = {
        "layers/lstm/cell/vars": arrays["a"],
        "layers/lstm_1/cell/vars": arrays["b"],
        "layers/dense/vars": arrays["head"],
    }
    names = ("kernel:0", "recurrent_kernel:0", "bias:0")
    named = {"a": names, "b": names, "head": (names[0], names[2])}
    groups = {name: dict(zip(named[name], weights, strict=True)) for name, weights in arrays.items()}
    return {
        "tiny": write_zip(folder / "tiny.keras"),
        ".keras": write_zip(folder / "large.keras", config, weights_file(places)),
        ".h5": write_hdf5(folder / "large.h5", config, groups),
    }


def read_with_h5py(path: Path) -> float:
    """Returns the seconds that h5py takes to read all arrays, in a process of its own."""
    ended = subprocess.run([sys.executable, "-c", _H5PY, path], capture_output=True, text=True, check=True)
    return float(ended.stdout)


def seconds_to_ready(path: Path) -> float:
    """Returns the seconds from the start of a server to its first answer."""
    started = time.perf_counter()
    with live.serving(f"m={path}"):
        return time.perf_counter() - started


def peak_memory(path: Path) -> float:
    """Returns the most memory that a server and its loader take together until they are ready, in bytes."""
    peak, ended = 0, threading.Event()
    with live.LiveServer(f"m={path}", "--listen", "127.0.0.1:0") as server:

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.002):
                peak = max(peak, _proportional_set_size(server.process.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        server.wait_for("serving")
        ended.set()
        watching.join()
    return peak


def _proportional_set_size(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    total = 0
    for pid in (parent, *children):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=2048)
    with TemporaryDirectory() as folder:
        files = write(Path(folder), parser.parse_args().units)
        size = files[".h5"].stat().st_size
        rounds = [
            {"h5py": read_with_h5py(files[".h5"]), **{name: seconds_to_ready(path) for name, path in files.items()}}
            for _ in range(ROUNDS)
        ]
        median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        memory = {name: peak_memory(path) for name, path in files.items()}
    print(f"file {size / 1e6:.0f} MB; h5py reads its arrays in {median['h5py']:.3f} s")
    for name in (".keras", ".h5"):
        more = median[name] - median["tiny"]
        print(
            f"{name}: ready in {median[name]:.3f} s, {more:.3f} s more than a tiny model, {more / median['h5py']:.2f} times h5py; "
            f"memory at most {(memory[name] - memory['tiny']) / size:.2f} times the file more"
        )


if __name__ == "__main__":
    main()
