"""Where things are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BENCH: Final = Path(__file__).parent
ROOT: Final = BENCH.parent
ENVIRONMENTS: Final = BENCH / ".venvs"
REQUIREMENTS: Final = BENCH / "requirements"
CACHE: Final = BENCH / ".cache"
RESULTS: Final = BENCH / "results"

PYTHON_PATH: Final = ":".join(map(str, (ROOT, ROOT / "client", ROOT / "server")))
