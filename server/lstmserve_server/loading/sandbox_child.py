"""The sandboxed process that parses model files: started by `sandbox`, confined, and ended after one request.

Reads one JSON object from standard input, {"paths", "part", "architecture", "limits", "weights": descriptor, "copies": {path:
descriptor}}, and writes one line of JSON for each path to standard output: {"model": ...}, or {"refused": text, "layers": [[name,
kind, served], ...]}.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lstmserve_server.core import confinement
from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader, sandbox_protocol
from lstmserve_server.loading.build.builder import ModelSelection
from lstmserve_server.loading.store import transfer
from lstmserve_server.loading.store.arrays import SharedStore
from lstmserve_server.loading.store.limits import LoadLimits

_BASE_MEMORY: Final = 1 << 30  # Python, NumPy and h5py map half of it
_BASE_WEIGHTS: Final = 256 << 20
_MEMORY_PER_BYTE: Final = 8  # of the file: a deflated archive of weights unpacks to about twice its size
_MAX_ENTRIES: Final = 10_000  # of a folder that are looked at; a SavedModel has some twenty
_LISTS_OTHERS: Final = (".json", ".index")


def main() -> None:
    """Loads what is asked for."""
    request = json.load(sys.stdin)
    limits = LoadLimits(**request["limits"])
    _confine(request, limits)
    for path in request["paths"]:
        print(json.dumps(_load(path, request, limits)), flush=True)  # noqa: T201 - the answer


def _confine(request: dict[str, Any], limits: LoadLimits) -> None:
    """Confines this process: time, memory, files, and system calls."""
    paths = [Path(path) for path in request["paths"]]
    bounds = {
        resource.RLIMIT_CPU: limits.seconds * max(1, len(paths)),
        resource.RLIMIT_NOFILE: 64 + len(request["copies"]),
        resource.RLIMIT_CORE: 0,
    }
    confinement.limit(bounds)
    sizes = [_size(path, limits.file_bytes) for path in paths]
    weights = sum(min(limits.file_bytes, _BASE_WEIGHTS + _MEMORY_PER_BYTE * size) for size in sizes)
    confinement.limit(
        {
            resource.RLIMIT_AS: _BASE_MEMORY + _MEMORY_PER_BYTE * max(sizes, default=0),
            resource.RLIMIT_FSIZE: weights + _MEMORY_PER_BYTE * transfer.ALIGNMENT * limits.calls,
        }
    )
    named = [] if request["architecture"] is None else [request["architecture"]]
    confinement.confine([*paths, *(path.parent for path in paths), *named])


def _size(path: Path, most: int) -> int:
    """Returns the size of a file in bytes; of a folder, or a file that lists others, the total.

    Files over `most` do not count, because they are refused; nor do holes of sparse files.
    """
    try:
        if path.is_file() and path.suffix not in _LISTS_OTHERS:
            return min(_written(path), most)
        folder = path if path.is_dir() else path.parent
        sizes = (_written(Path(entry)) for entry in itertools.islice(_files(folder), _MAX_ENTRIES))
        return min(sum(size for size in sizes if size <= most), most)
    except (OSError, ValueError):
        return 0


def _files(folder: Path) -> Iterator[str]:
    """Yields the files of a folder, and of the folders in it that models have."""
    for place in (folder, folder / "variables", folder / "assets"):
        try:
            with os.scandir(place) as entries:
                yield from (entry.path for entry in entries if entry.is_file())
        except OSError:
            continue


def _written(path: Path) -> int:
    """Returns the size of a file without holes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        end, at, found = os.fstat(descriptor).st_size, 0, 0
        for _ in range(_MAX_ENTRIES):
            try:
                start = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError:  # there is nothing more
                return found
            at = os.lseek(descriptor, start, os.SEEK_HOLE)
            found += at - start
        return found + end - at
    finally:
        os.close(descriptor)


def _load(path: str, request: dict[str, Any], limits: LoadLimits) -> dict[str, Any]:
    architecture, copy = request["architecture"], request["copies"].get(path)
    store = SharedStore(request["weights"])
    try:
        description = reader.load(
            path,
            part=ModelSelection(**request["part"]),
            limits=limits,
            architecture=architecture,
            store=store,
            copy=copy,
        )
        return {"model": transfer.dump(description, store, request["weights"])}
    except UnsupportedModelError as error:
        return {"refused": str(error), "layers": _survey(path, limits, architecture, copy)}
    except MemoryError:
        return {"refused": f"{path}: the file asks for more memory than a file of its size may take"}
    except Exception as error:  # noqa: BLE001 - whatever a hostile file brings about, it is a refusal
        refusal = UnsupportedModelError(f"{path}: the file is damaged and cannot be read: {error!r}")
        return {"refused": str(refusal)}


def _survey(path: str, limits: LoadLimits, architecture: str | None, copy: int | None) -> list[tuple[str, str, bool]]:
    try:
        layers = reader.survey(path, limits=limits, architecture=architecture, copy=copy)
        return [(layer.name, layer.kind, served) for layer, served in layers][: sandbox_protocol.MAX_LAYERS]
    except UnsupportedModelError:
        return []


if __name__ == "__main__":
    main()
