"""The process in which model files are parsed: started by `sandbox`, limited, and gone when it is done.

Reads one JSON object from standard input, {"paths", "part", "architecture", "limits", "weights": descriptor}, and writes
one line of JSON for each path to standard output: {"model": ...}, or {"refused": text, "layers": [[name, kind, served], ...]}.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any, Final

from lstmserve_server.errors import ModelRefused
from lstmserve_server.loading import reader, transfer
from lstmserve_server.loading.arrays import Shared
from lstmserve_server.loading.build import Part
from lstmserve_server.loading.limits import Limits

_BASE_MEMORY: Final = 1 << 30  # Python, NumPy and h5py map half of it
_MEMORY_PER_BYTE: Final = 8  # of the file: a deflated archive of weights unpacks to about twice its size
_LONGEST_TEXT: Final = 2000
_LISTS_OTHERS: Final = (".json", ".index")


def main() -> None:
    """Loads what is asked for."""
    request = json.load(sys.stdin)
    limits = Limits(**request["limits"])
    _limit_this_process(request["paths"], limits)
    for path in request["paths"]:
        print(json.dumps(_load(path, request, limits)), flush=True)  # noqa: T201 - the answer


def _limit_this_process(paths: list[str], limits: Limits) -> None:
    """Bounds what a file can make of this process: memory, time, open files, and traces of it on disk."""
    size = max((_size(Path(path)) for path in paths), default=0)
    memory = _BASE_MEMORY + _MEMORY_PER_BYTE * min(size, limits.file_bytes)
    for kind, amount in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.seconds * max(1, len(paths))),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(kind)
        bound = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(kind, (bound, bound))


def _size(path: Path) -> int:
    """Returns the size of a file; of one that lists others, or of a folder, that of all files that lie there."""
    try:
        if path.is_file() and path.suffix not in _LISTS_OTHERS:
            return path.stat().st_size
        folder = path if path.is_dir() else path.parent
        return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
    except (OSError, ValueError):
        return 0


def _load(path: str, request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    architecture = request["architecture"]
    store = Shared(request["weights"])
    try:
        description = reader.load(
            path, part=Part(**request["part"]), limits=limits, architecture=architecture, store=store
        )
        return {"model": transfer.write(description, store, request["weights"])}
    except ModelRefused as error:
        return {"refused": _shortened(str(error)), "layers": _survey(path, limits, architecture)}
    except MemoryError:
        return {"refused": f"{path}: the file asks for more memory than a file of its size may take"}
    except Exception as error:  # noqa: BLE001 - whatever a hostile file brings about, it is a refusal
        return {"refused": f"{path}: the file cannot be read: {_shortened(repr(error))}. It is damaged"}


def _survey(path: str, limits: Limits, architecture: str | None) -> list[tuple[str, str, bool]]:
    try:
        layers = reader.survey(path, limits=limits, architecture=architecture)
        return [(layer.name, layer.kind, served) for layer, served in layers]
    except ModelRefused:
        return []


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} ... ({len(text)} characters)"


if __name__ == "__main__":
    main()
