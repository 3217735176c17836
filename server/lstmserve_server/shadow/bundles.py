"""Bundles: calls over tolerance as files, with everything that `lstmserve replay` needs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from lstmserve.v1 import shadow_pb2
from lstmserve_server.model.types import Array
from lstmserve_server.shadow import captured_call as cases
from lstmserve_server.shadow.captured_call import CapturedCall

_log = structlog.get_logger(__name__)

_SUFFIX: Final = ".bundle.npz"
_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Content of a bundle file."""

    captured: CapturedCall
    comparison: shadow_pb2.Comparison
    file: str
    """The model's file, as the server was given it."""

    layer: str | None
    until: str | None
    """Which part of the model is served, as the server was told."""

    versions: Mapping[str, str]
    """Of what computed it, on both sides, and the platform."""

    fingerprint: str
    """The numerics of the server."""

    arrays: Mapping[str, Array]
    """What the reference answered, as in `Reply.arrays` with details."""

    def to_bytes(self) -> bytes:
        """Returns it as an archive."""
        about = {
            "comparison": self.comparison.SerializeToString().hex(),
            "file": self.file,
            "layer": self.layer,
            "until": self.until,
            "versions": dict(self.versions),
            "fingerprint": self.fingerprint,
        }
        return self.captured.to_bytes(about, self.arrays)


class Bundles:
    """A folder of bundles, bounded in number and bytes."""

    def __init__(self, folder: str | None, most: int, most_bytes: int) -> None:
        self._folder = None if folder is None else Path(folder)
        self._most = most
        self._most_bytes = most_bytes
        self._trouble = ""
        self._full = False

    @property
    def wanted(self) -> bool:
        """Whether there is room for another bundle."""
        return self._folder is not None and not self._full

    def write(self, bundle: Bundle) -> str | None:
        """Writes a bundle, and returns its name; "" if the folder is full; None if it failed.

        The first failure is logged, the next ones only after a success.
        """
        if self._folder is None:
            return ""
        data = bundle.to_bytes()
        name = f"{_NAME.sub('_', bundle.captured.model)}-{time.time_ns()}{_SUFFIX}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            there = [path.stat().st_size for path in self._folder.glob(f"*{_SUFFIX}")]
            if len(there) >= self._most or sum(there) + len(data) > self._most_bytes:
                self._full = True
                _log.warning("bundles_full", folder=str(self._folder), bundles=len(there), bytes=sum(there))
                return ""
            unfinished = self._folder / f".{name}.unfinished"
            try:
                unfinished.write_bytes(data)
                unfinished.rename(self._folder / name)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.error("bundle_not_written", folder=str(self._folder), reason=str(error))
            return None
        self._trouble = ""
        return name


def read(path: Path) -> Bundle:
    """Returns the content of a bundle.

    Raises:
        ValueError: it is none.
    """
    try:
        captured, about, arrays = cases.load(path.read_bytes())
        comparison = shadow_pb2.Comparison.FromString(bytes.fromhex(about["comparison"]))
        versions = {str(name): str(version) for name, version in about["versions"].items()}
        part = about["layer"], about["until"]
        return Bundle(captured, comparison, str(about["file"]), *part, versions, str(about["fingerprint"]), arrays)
    except Exception as error:  # whatever a damaged archive brings about
        message = f"{path} is not a bundle that lstmserve wrote: {type(error).__name__}: {error}"
        raise ValueError(message) from error
