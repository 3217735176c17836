"""The contenders' environments: each made of a file of exact versions, and what became of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.places import ENVIRONMENTS, PYTHON_PATH, REQUIREMENTS, ROOT

OURS: Final = "ours"
"""The environment of the service itself: what its users install, at the versions that the project has locked."""

NAMES: Final = (OURS, "grpcio", "onnx", "keras", "torch", "litert", "mlserver", "kserve", "ray", "pytriton")

# Triton's Python backend has an interpreter of its own, which does not work with the standard library of 3.11.7
# (AttributeError: RLock has no _recursion_count); Debian's 3.11.2 is older than that.
_INTERPRETERS: Final = {"pytriton": "/usr/bin/python3"}


def python(name: str) -> str:
    """Returns the interpreter of an environment."""
    return str(ENVIRONMENTS / name / "bin/python")


def variables(**more: str) -> dict[str, str]:
    """Returns the variables of a contender's process: it finds this package, and keeps compiled code as it does anywhere."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": PYTHON_PATH, **more}


def installed(name: str) -> bool:
    """Returns whether an environment is there and complete."""
    return (ENVIRONMENTS / name / ".complete").exists()


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
    requirements = ROOT / "requirements/server.txt" if name == OURS else REQUIREMENTS / f"{name}.txt"
    uv = Path(sys.executable).parent / "uv"
    for command in (
        [uv, "venv", "--quiet", "--clear", "--seed", "--python", _INTERPRETERS.get(name, sys.executable), folder],
        # pip, as it alone looks where a build of PyTorch without CUDA may lie.
        [python(name), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "-r", requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            text = lines[-1][:500] if lines else f"{command[0]} ended with {done.returncode}"
            (ENVIRONMENTS / f"{name}.trouble").write_text(text)
            say(f"{name}: {text}")
            return
    (folder / ".complete").touch()
    (ENVIRONMENTS / f"{name}.trouble").unlink(missing_ok=True)


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
