"""The contenders' environments: each made of a file of exact versions, and what became of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from bench.places import ENVIRONMENTS, REQUIREMENTS, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

OURS: Final = "ours"
"""The environment of the service itself, which `make` sets up."""

NAMES: Final = ("grpcio", "onnx", "keras", "torch", "litert", "mlserver", "kserve", "ray", "pytriton")


def python(name: str) -> str:
    """Returns the interpreter of an environment."""
    return str(ROOT / ".venv/bin/python") if name == OURS else str(ENVIRONMENTS / name / "bin/python")


def installed(name: str) -> bool:
    """Returns whether an environment is there and complete."""
    return name == OURS or (ENVIRONMENTS / name / ".complete").exists()


def trouble(name: str) -> str:
    """Returns why an environment is not there, in the words of who failed to install it."""
    path = ENVIRONMENTS / f"{name}.trouble"
    return path.read_text().strip() if path.exists() else "" if installed(name) else "not installed; see make bench"


def make(name: str, say: Callable[[str], None]) -> None:
    """Makes an environment, if it is not there yet; what goes wrong is kept for `trouble`."""
    if installed(name):
        return
    say(f"installing the environment {name} ...")
    folder = ENVIRONMENTS / name
    shutil.rmtree(folder, ignore_errors=True)
    requirements = REQUIREMENTS / f"{name}.txt"
    for command in (
        [sys.executable, "-m", "venv", folder],
        # torch: pip itself, as it alone looks where a build without CUDA may lie.
        [folder / "bin/python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "-r", requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            (ENVIRONMENTS / f"{name}.trouble").write_text(lines[-1][:500] if lines else f"exit {done.returncode}")
            return
    (folder / ".complete").touch()


def versions(name: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Returns the versions of packages in an environment."""
    if not installed(name):
        return {}
    code = (
        "import importlib.metadata, json, sys; "
        "print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))"
    )
    done = subprocess.run([python(name), "-c", code, *packages], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if not done.returncode else {}
