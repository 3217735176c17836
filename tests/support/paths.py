"""Where things are in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
FIXTURES: Final = ROOT / "tests" / "fixtures"
SUNSPOTS: Final = ROOT / "examples" / "sunspots" / "sunspots.keras"
