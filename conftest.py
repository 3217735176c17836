"""Runs the code blocks of README.md, in order: Python, shell and JavaScript, against the server that README starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from tests.support import live, node

if TYPE_CHECKING:
    import pytest
    from sybil import Example

ROOT = Path(__file__).parent
README_ADDRESS = "localhost:50051"
BIN = Path(sys.executable).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts long files first, so that no process is left with one at the end, and marks the hostile tests by their folder."""
    for item in items:
        if "hostile" in item.path.parts:
            item.add_marker("hostile")
    long = {item.path for item in items if item.get_closest_marker("slow") or item.path.suffix == ".md"}
    items.sort(key=lambda item: item.path not in long)


def set_up(namespace: dict[str, Any]) -> None:
    """Starts the server that `make serve` starts, on a port of its own."""
    folder = namespace["folder"] = Path(tempfile.mkdtemp(prefix="readme-"))
    shutil.copytree(ROOT / "examples" / "sunspots", folder / "examples" / "sunspots")
    os.chdir(folder)
    arguments = recipe("serve").split()[2:]
    server = namespace["server"] = live.LiveServer(*arguments, "--listen", "127.0.0.1:0", *live.QUICK)
    server.wait_for("serving")
    namespace["address"] = server.address


def tear_down(namespace: dict[str, Any]) -> None:
    """Stops the server."""
    if "client" in namespace:
        namespace["client"].close()
    with namespace["server"] as server:
        server.stop()
    os.chdir(ROOT)
    shutil.rmtree(namespace["folder"])


def in_bash(example: Example) -> None:
    """Runs shell commands. `make serve` runs already, and other targets of make run in the environment of the tests."""
    script = example.parsed.strip()
    if script in ("make serve", "make test"):  # the one runs already, and the other is what runs this
        return
    extra = re.fullmatch(r"pip install 'lstmserve\[(\w+)\]'", script)
    if extra:  # what it would install is installed; the extra must exist
        if f"\n{extra[1]} = [" not in (ROOT / "pyproject.toml").read_text():
            raise AssertionError(script)
        return
    target = re.fullmatch(r"make (\w+)", script)
    if target:
        script = recipe(target[1])
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "LSTMSERVE_ADDRESS": example.namespace["address"],
    }
    command = ["/bin/bash", "-euo", "pipefail", "-c", script]
    subprocess.run(command, env=environment, check=True, timeout=120)


def in_node(example: Example) -> None:
    """Runs JavaScript where the packages of the example are installed."""
    place = node.install(example.namespace["folder"])
    (place / "block.mjs").write_text(example.parsed.replace(README_ADDRESS, example.namespace["address"]))
    node.run("examples/node/block.mjs", cwd=example.namespace["folder"])


def in_python(example: Example) -> None:
    """Runs Python, with the names of the blocks before."""
    code = "\n" * (example.line + example.parsed.line_offset) + example.parsed  # tracebacks show the line of README.md
    code = code.replace(README_ADDRESS, example.namespace["address"])
    exec(compile(code, example.path, "exec"), example.namespace)


def recipe(target: str) -> str:
    """Returns the command of a target of the Makefile, without what sets up its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    command = ["make", "--dry-run", "--no-print-directory", target]
    dry = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return dry.stdout.splitlines()[-1].replace(".venv/bin/", f"{BIN}/")


pytest_collect_file = Sybil(
    parsers=[
        SkipParser(),
        CodeBlockParser(language="python", evaluator=in_python),
        CodeBlockParser(language="bash", evaluator=in_bash),
        CodeBlockParser(language="js", evaluator=in_node),
    ],
    patterns=["README.md"],
    setup=set_up,
    teardown=tear_down,
).pytest()
