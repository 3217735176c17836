"""Writes client/lstmserve/v1 from the contract, or, with --check, fails if it is not what the generator makes of it.

    python scripts/generate_code.py [--check]

The generator is the oldest whose output runs on every version of protobuf and grpcio that the client supports, and needs
packages as old as itself. So it has an environment of its own, .venv/generator. Where that cannot be made, as no wheel of it is
there for the Python at hand, nothing is compared, and the reason is printed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements" / "generator.txt"
ENVIRONMENT: Final = ROOT / ".venv" / "generator"
TARGET: Final = ROOT / "client" / "lstmserve" / "v1"


def main() -> int:
    """Writes or compares; returns the exit code."""
    check = sys.argv[1:] == ["--check"]
    try:
        python = _generator()
    except (OSError, subprocess.CalledProcessError) as error:
        getattr(error, "stderr", None) or str(error)
        return 0 if check else 1
    made = _generate(python)
    if not check:
        for name, content in made.items():
            (TARGET / name).write_bytes(content)
        return 0
    committed = {path.name: path.read_bytes() for path in TARGET.glob("*_pb2*.py*")}
    stale = sorted(name for name in made.keys() | committed.keys() if made.get(name) != committed.get(name))
    return bool(stale)


def _generator() -> Path:
    """Returns the Python that has the generator, installed if its lock file has changed."""
    python, installed = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not installed.exists() or installed.read_text() != wanted:
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        options = ["--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps", "--require-hashes"]
        command = [python, "-m", "pip", "install", *options, "--requirement", LOCK]
        subprocess.run(command, check=True, capture_output=True, text=True)
        installed.write_text(wanted)
    return python


def _generate(python: Path) -> dict[str, bytes]:
    """Returns the files that the generator makes, by name."""
    protos = sorted(ROOT.glob("proto/**/*.proto"))
    with TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        command = [
            python,
            "-W",
            "ignore",
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={ROOT / 'proto'}",
            *outputs,
            *protos,
        ]
        subprocess.run(command, check=True)
        return {path.name: path.read_bytes() for path in Path(folder).rglob("*_pb2*.py*")}


if __name__ == "__main__":
    sys.exit(main())
