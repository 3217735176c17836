"""Puts small faults into the code, one at a time, and asks whether the tests notice: `make mutants`.

A sample is drawn by a seed from all faults that Cosmic Ray knows, in lines that a test reaches. For each the tests that reach
the line are run in a copy of the tree, those first that reach least. What no test noticed is printed as a patch.

The first run measures which tests reach which line, and takes some minutes; it is measured again when a file has changed.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

import coverage
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = ("client/lstmserve", "server/lstmserve_server")
LEFT_OUT: Final = ("client/lstmserve/v1", "server/lstmserve_server/shadow/reference")
"""Generated code, and what runs in another process alone, where no line is seen."""

COVERAGE: Final = ROOT / ".mutants" / "coverage"
MAX_TESTS: Final = 300
"""Tests that are run for a fault: of those that reach its line, and then its file, first those that reach least, as they are
about it most. Those of the file because what runs when a module is imported is reached by one test alone."""

_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", re.MULTILINE)

# Faults that change nothing that a test could see, or no code at all.
_POINTLESS: Final = ("NoOp", "RemoveDecorator", "Variable", "BinaryOperator_BitOr")  # the last are unions of types


class Fault(NamedTuple):
    """A change of one place."""

    path: str
    operator: str
    occurrence: int
    line: int


class Outcome(NamedTuple):
    """The outcome of a fault."""

    fault: Fault
    noticed: bool
    tests: int
    patch: str


def main() -> int:
    """Draws, runs and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", default=_head(), help="of the sample; the hash of the commit, if left out")
    parser.add_argument("--count", type=int, default=60, help="how many faults")
    parser.add_argument("--only", default="", help="a part of the path, for one package or module")
    options = parser.parse_args()
    if not COVERAGE.exists() or COVERAGE.stat().st_mtime < _newest():
        _measure()
    reaching = _reaching()
    faults = [fault for fault in _all_faults(options.only) if (fault.path, fault.line) in reaching]
    sample = random.Random(options.seed).sample(faults, min(options.count, len(faults)))  # noqa: S311 - a sample, no secret
    _say(f"{len(sample)} of {len(faults)} faults, by the seed {options.seed}")
    began = time.monotonic()
    outcomes = _run(sample, reaching)
    survivors = [outcome for outcome in outcomes if not outcome.noticed]
    for outcome in survivors:
        _say(f"\nNOT NOTICED by {outcome.tests} tests: {outcome.fault.path}:{outcome.fault.line}\n{outcome.patch}")
    share = 1 - len(survivors) / max(1, len(outcomes))
    _say(
        f"\n{len(outcomes) - len(survivors)} of {len(outcomes)} noticed ({share:.0%}) in {time.monotonic() - began:.0f} s"
    )
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _head() -> str:
    return subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()  # noqa: S607


def _files(only: str = "") -> list[str]:
    """Returns the modules that faults are put into."""
    found = [path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]
    names = [str(path.relative_to(ROOT)) for path in found]
    return [name for name in names if only in name and not name.startswith(LEFT_OUT)]


def _newest() -> float:
    tests = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")]
    return max((ROOT / name).stat().st_mtime for name in (*_files(), *tests))


def _measure() -> None:
    """Runs the quick tests once, and records which lines each reaches."""
    _say("measuring which tests reach which line ...")
    shutil.rmtree(COVERAGE.parent, ignore_errors=True)
    COVERAGE.parent.mkdir()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"--cov={source}" for source in SOURCES] + ["--cov-context=test", "--cov-report="]
    subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "COVERAGE_FILE": str(COVERAGE)})


def _reaching() -> dict[tuple[str, int], list[str]]:
    """Returns the tests that reach each line, those first that reach fewest lines in all."""
    data = coverage.CoverageData(str(COVERAGE))
    data.read()
    reaching: dict[tuple[str, int], list[str]] = {}
    sizes: dict[str, int] = {}
    whole: dict[str, set[str]] = {}
    for file in data.measured_files():
        name = str(Path(file).relative_to(ROOT))
        for line, contexts in data.contexts_by_lineno(file).items():
            tests = sorted({context.partition("|")[0] for context in contexts if context})
            if tests:
                reaching[name, line] = tests
                whole.setdefault(name, set()).update(tests)
            for test in tests:
                sizes[test] = sizes.get(test, 0) + 1
    files = {name: sorted(tests, key=lambda test: (sizes[test], test)) for name, tests in whole.items()}
    found = {}
    for (name, line), tests in reaching.items():
        own = sorted(tests, key=lambda test: sizes[test])
        found[name, line] = list(dict.fromkeys([*own, *files[name]]))[:MAX_TESTS]
    return found


def _all_faults(only: str) -> list[Fault]:
    """Returns every fault that Cosmic Ray can put into the code, in a fixed order."""
    operators: dict[str, Any] = {
        name: get_operator(name) for name in sorted(operator_names()) if not any(part in name for part in _POINTLESS)
    }
    found = []
    for path in _files(only):
        tree = get_ast((ROOT / path).read_text())
        for name, kind in operators.items():
            places = [place for node in ast_nodes(tree) for place in kind().mutation_positions(node)]
            found += [Fault(path, name, number, start[0]) for number, (start, _) in enumerate(places)]
    return found


def _run(sample: list[Fault], reaching: dict[tuple[str, int], list[str]]) -> list[Outcome]:
    """Runs the tests for each fault, two at a time, each in a copy of the tree."""
    copies: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for number in range(2):
            copy = Path(folder) / str(number)
            shutil.copytree(
                ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", ".venvs", ".mutants", "__pycache__")
            )
            copies.put(copy)

        def one(fault: Fault) -> Outcome:
            copy = copies.get()
            try:
                return _outcome(copy, fault, reaching[fault.path, fault.line])
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(2) as pool:
            outcomes = []
            for outcome in pool.map(one, sample):
                outcomes.append(outcome)
                _say(f"{'noticed    ' if outcome.noticed else 'NOT NOTICED'} {outcome.fault.path}:{outcome.fault.line}")
            return outcomes


def _outcome(copy: Path, fault: Fault, tests: list[str]) -> Outcome:
    """Puts a fault into a copy of the tree, and runs tests until one fails that does not fail without it."""
    path = copy / fault.path
    before = path.read_text()
    after = mutate_code(before, get_operator(fault.operator)(), fault.occurrence) or before
    patch = "".join(difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), n=1))
    left = list(tests)
    while left:
        path.write_text(after)
        try:
            failed = _first_failure(copy, left)
        finally:
            path.write_text(before)
        if failed is None:
            return Outcome(fault, noticed=False, tests=len(left), patch=patch)
        if failed not in left or _first_failure(copy, [failed]) is None:
            return Outcome(fault, noticed=True, tests=len(left), patch=patch)
        left.remove(failed)  # it fails in a copy of the tree, or whenever it runs alone
    return Outcome(fault, noticed=False, tests=0, patch=patch)


def _first_failure(copy: Path, tests: list[str]) -> str | None:
    """Returns the first test that fails, None where all pass, or "" where it cannot be told which it is."""
    options = ["-x", "-q", "--timeout", "60", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": f"{copy}/client:{copy}/server:{copy}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", *options, *tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        return ""
    if ended.returncode == 0:
        return None
    found = _FAILED.search(ended.stdout)
    return found[1] if found else ""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except sqlite3.DatabaseError as error:
        sys.exit(f"{COVERAGE} cannot be read ({error}); remove it")
