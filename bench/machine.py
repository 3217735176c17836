"""Machine and versions of a measurement."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import psutil

from bench import environments

_PACKAGES: Final = {
    "ours": ("grpcio", "numpy", "scipy", "protobuf"),
    "grpcio": ("grpcio", "numpy", "uvloop"),
    "onnx": ("onnxruntime", "grpcio"),
    "keras": ("keras", "tensorflow-cpu", "grpcio"),
    "torch": ("torch",),
    "litert": ("ai-edge-litert",),
    "mlserver": ("mlserver", "grpcio"),
    "kserve": ("kserve", "grpcio"),
    "ray": ("ray", "grpcio"),
    "pytriton": ("nvidia-pytriton", "numpy"),
}


def describe() -> dict[str, Any]:
    """Returns the machine, and the versions of all that takes part."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    h2load = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "h2load": h2load,
        "load_average": os.getloadavg()[0],
        "versions": {name: environments.versions(name, packages) for name, packages in _PACKAGES.items()},
    }
