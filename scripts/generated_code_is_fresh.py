"""Fails if client/lstmserve/v1 is not, byte for byte, what the generator makes of the contract: `make proto` mends it.

python -m scripts.generated_code_is_fresh
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Compares; returns the exit code."""
    protos = [str(path) for path in sorted(ROOT.glob("proto/**/*.proto"))]
    with TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / 'proto'}", *outputs, *protos], check=True
        )
        made = {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*.py*")}
    committed = {
        path.relative_to(ROOT / "client"): path.read_bytes()
        for path in (ROOT / "client" / "lstmserve" / "v1").glob("*_pb2*.py*")
    }
    stale = sorted(str(path) for path in made.keys() | committed.keys() if made.get(path) != committed.get(path))
    print(f"generated code is stale, run make proto: {', '.join(stale)}" if stale else "generated code is fresh")  # noqa: T201
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
