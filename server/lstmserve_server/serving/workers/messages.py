"""Messages between supervisor and worker: lines of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from lstmserve_server.serving.settings import ServeSettings


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Everything a worker needs to serve. The weights are in a file that all workers map."""

    number: int
    """Of the worker, from 1."""

    settings: ServeSettings
    """Those of the supervisor, with the addresses that the workers share."""

    files: dict[str, str]
    """The file of each model."""

    models: dict[str, dict[str, Any]]
    """Each model in the form of `models.forms`."""

    weights: int
    """Descriptor of the file with the weights, inherited."""

    copies: dict[str, int]
    """Descriptors of copies of the models' files, by the name of the model, inherited; empty where nothing is compared."""

    metrics: int = -1
    """Descriptor of the pipe by which the supervisor asks for the metrics, inherited; -1 where no one asks."""

    def to_line(self) -> bytes:
        """Returns this message as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Returns what `to_line` wrote."""
        entry = json.loads(line)
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry["settings"].items()
        }
        return cls(**entry | {"settings": ServeSettings(**settings)})


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """Report of a worker: first that it listens, or why not; then repeatedly that it is alive."""

    failure: str = ""
    """Why it could not start; empty where it listens."""

    exit_code: int = 0
    """That of the failure."""

    serving: bool = False
    """Whether its health is SERVING."""

    def to_line(self) -> bytes:
        """Returns this message as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Returns what `to_line` wrote."""
        return cls(**json.loads(line))


REPORT_EVERY: Final = 1.0
"""Seconds from one report to the next."""
