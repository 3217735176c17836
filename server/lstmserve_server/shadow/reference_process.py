"""The reference process as its parent controls it: started, asked one call at a time, killed if it misbehaves."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Pipe
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple, Self

from google.protobuf.message import DecodeError

from lstmserve import archives, report_text
from lstmserve.text import make_printable, printable
from lstmserve.v1 import shadow_pb2
from lstmserve_server.core import confinement
from lstmserve_server.loading.store import transfer
from lstmserve_server.loading.store.arrays import SharedStore
from lstmserve_server.loading.store.memory_files import seal, weights_memfd
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.model.types import Array
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.shadow.compare import Tolerances

PROGRAM: tuple[str, ...] = (sys.executable, "-P", "-m", "lstmserve_server.shadow.reference")
"""What is started, with the descriptor of its end of the connection after it."""

# Bytes of what it says: a word to a case, what was found, and the arrays after it, as many as some times what it was given.
_LONGEST_WORD: Final = 1 << 16
_LONGEST_START: Final = 8 << 20
_LONGEST_COMPARISON: Final = 1 << 20
_LONGEST_ARRAYS: Final = 16 << 20
_ARRAYS_PER_BYTE: Final = 16  # of the case: h, c and four gates, in float32 and float64
_MEMORY: Final = 8 << 30  # bytes, where no one says how many it may take; TensorFlow takes 0.6
_MEMORY_PER_BYTE: Final = 16  # of a model's file
_MOST_ARRAYS: Final = 100_000
_MOST_VERSIONS: Final = 64
_LONGEST_REASON: Final = 64  # characters
_LARGEST_COUNT: Final = 1 << 62 >> 16


class ReferenceLost(Exception):
    """The reference process has ended, or was killed because it misbehaved.

    Attributes:
        reason: its reason, as in `Coverage.dropped` and `Coverage.errors`.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class CaseFailed(Exception):
    """The reference could not compare a call; it continues with others."""


@dataclass(frozen=True, slots=True)
class ReferenceLimits:
    """Resource limits of the reference process."""

    threads: int = 1
    niceness: int = 10
    memory_bytes: int = 0
    """0: no limit."""

    seconds: float = 30.0
    """For one case."""

    start_seconds: float = 300.0
    """For importing TensorFlow, and a reference model for every model."""


class ComparedModel(NamedTuple):
    """A model to compare, and its file."""

    served: ServedModel
    path: str
    layer: str | None = None
    until: str | None = None
    architecture: str | None = None
    """Which part of the file it is, and where the configuration is, as in `loading.sandbox.load`."""

    @property
    def whole(self) -> bool:
        """Whether the model is the whole file."""
        return not (self.layer or self.until or self.architecture)


class Reply(NamedTuple):
    """Result of one comparison."""

    comparison: shadow_pb2.Comparison
    arrays: dict[str, Array]


class ReferenceInfo(NamedTuple):
    """Report of the reference process about a model when it is ready."""

    reference_model: shadow_pb2.ReferenceModel
    noise_floor: float


class ReferenceProcess:
    """A running reference process."""

    def __init__(self, subjects: Sequence[ComparedModel], tolerances: Tolerances, limits: ReferenceLimits) -> None:
        """Starts the process. It answers once `wait_until_ready` has returned."""
        self._limits = limits
        self._connection, theirs = Pipe()
        self._scratch = TemporaryDirectory(prefix="lstmserve-", ignore_cleanup_errors=True)
        with weights_memfd() as weights, theirs:
            self._told = setup(subjects, tolerances, limits, weights, self._scratch.name)
            copies = [subject.served.copy.descriptor for subject in subjects if subject.served.copy is not None]
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [*PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(weights, theirs.fileno(), *copies),
                process_group=0,  # Ctrl-C on a terminal is for the server, which ends it
                env=confinement.environment(TF_CPP_MIN_LOG_LEVEL="3"),
            )
        self.versions: dict[str, str] = {}
        self._layers = {name for subject in subjects for name in _names(subject.served.model.description.layers)}
        self.models: dict[str, ReferenceInfo] = {}
        self.held: list[str] = []
        """Which of the kernel's means confine it: see `confinement`."""

    def wait_until_ready(self) -> None:
        """Waits until it has imported TensorFlow and built every reference model, which takes some seconds.

        Raises:
            ReferenceLost: it could not start.
        """
        with self._behaving(self._limits.start_seconds):
            self._connection.send_bytes(json.dumps(self._told).encode())
            said = dict(json.loads(self._connection.recv_bytes(_LONGEST_START)))
            if "failed" not in said:
                versions = list(said["versions"].items())[:_MOST_VERSIONS]
                self.versions = {printable(str(name), 64): printable(str(version), 200) for name, version in versions}
                self.models = {model["name"]: _told(said["models"][model["name"]]) for model in self._told["models"]}
                self.held = [printable(str(means), 64) for means in said["held"]][:_MOST_VERSIONS]
                return
        raise ReferenceLost("reference_down", printable(f"it could not start: {said['failed']}"))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, captured: bytes, *, detailed: bool = False, again: bool = False) -> Reply:
        """Sends a call to the reference process, and returns its comparison.

        Args:
            captured: the captured call, as bytes.
            detailed: whether to return everything that the reference computed.
            again: whether it was compared before, so that its steps do not count again for the outlier units.

        Raises:
            ReferenceLost: the process has ended, or was killed; this object cannot be used again.
            CaseFailed: the reference could not compare this call.
        """
        with self._behaving(self._limits.seconds):
            self._connection.send_bytes(json.dumps({"detailed": detailed, "again": again}).encode())
            self._connection.send_bytes(captured)
            most = (_LONGEST_WORD, _LONGEST_COMPARISON, _LONGEST_ARRAYS + _ARRAYS_PER_BYTE * len(captured))
            said, comparison, arrays = (self._connection.recv_bytes(length) for length in most)
            error = json.loads(said).get("error")
            if error is None:
                return reply(comparison, arrays, self._layers)
        raise CaseFailed(printable(str(error)))

    def kill(self) -> None:
        """Kills the process; a pending `ask` raises `ReferenceLost`. Thread-safe."""
        self._process.kill()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._scratch.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextlib.contextmanager
    def _behaving(self, seconds: float) -> Iterator[None]:
        """Kills the process if it takes too long, or if its answer is not valid."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            yield
        except (EOFError, OSError) as error:
            if late.is_set():
                raise ReferenceLost("timed_out", f"it took more than {seconds:g} seconds") from error
            if self._process.poll() is None and not isinstance(error, (EOFError, ConnectionError)):
                self._process.kill()
                raise ReferenceLost("garbage", f"what it said cannot be read: {error}") from error
            raise ReferenceLost("reference_down", f"it ended with {self._process.wait()}") from error
        except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError, RecursionError, DecodeError) as error:
            self._process.kill()
            raise ReferenceLost("garbage", f"what it said cannot be read: {error}") from error
        finally:
            timer.cancel()


def setup(
    subjects: Sequence[ComparedModel], tolerances: Tolerances, limits: ReferenceLimits, weights: int, scratch: str
) -> dict[str, Any]:
    """Returns the setup message of the reference. The weights go into a file in memory, which is then sealed.

    Args:
        subjects: the models.
        tolerances: how far an answer may be off.
        limits: what the reference may use.
        weights: the file in memory.
        scratch: a folder in which it may write.
    """
    store = SharedStore(weights)
    forms = [transfer.dump(subject.served.model.description, store, weights) for subject in subjects]
    seal(weights)
    sizes = [
        0 if subject.served.copy is None else os.fstat(subject.served.copy.descriptor).st_size for subject in subjects
    ]
    return {
        "scratch": scratch,
        "file_bytes": 2 * max(sizes, default=0) + (1 << 20),
        "weights": weights,
        "tolerances": asdict(tolerances),
        "threads": limits.threads,
        "niceness": limits.niceness,
        "memory_bytes": limits.memory_bytes or _MEMORY + _MEMORY_PER_BYTE * max(sizes, default=0),
        "models": [
            {
                "name": subject.served.name,
                "form": form,
                "copy": None if subject.served.copy is None else subject.served.copy.descriptor,
                "whole": subject.whole,
            }
            for subject, form in zip(subjects, forms, strict=True)
        ],
    }


def _told(info: Mapping[str, Any]) -> ReferenceInfo:
    reference_model = shadow_pb2.ReferenceModel.FromString(bytes.fromhex(info["witness"]))
    del reference_model.differing_weights[_MOST_VERSIONS:]
    make_printable(reference_model)
    return ReferenceInfo(reference_model, float(info["noise_floor"]))


def _names(layers: Sequence[LayerSpec]) -> Iterator[str]:
    """Yields the names of layers, and of those that they are made of."""
    for layer in layers:
        yield layer.name
        yield from _names(layer.parts)


def reply(comparison: bytes, arrays: bytes, layers: Collection[str] | None = None) -> Reply:
    """Parses a reply from its two parts; `layers` are the allowed layer names, None for any.

    Raises:
        ValueError, DecodeError: they are not valid.
    """
    return Reply(_comparison(comparison, layers), _arrays(arrays))


def _comparison(data: bytes, layers: Collection[str] | None) -> shadow_pb2.Comparison:
    comparison = shadow_pb2.Comparison.FromString(data)
    if comparison.verdict not in shadow_pb2.Verdict.values() or not comparison.verdict:
        message = f"a verdict of {comparison.verdict}"
        raise ValueError(message)
    make_printable(comparison)
    for totals in (*comparison.teacher_forced, *comparison.free_running):
        counts = [
            getattr(totals, name)
            for name in (
                "value_count",
                "over_tolerance_count",
                "max_ulp",
                "nan_mismatch_count",
                "infinity_mismatch_count",
            )
        ]
        known = layers is None or totals.layer in layers
        if (
            not known
            or totals.array not in report_text.ARRAY_NAMES
            or not all(0 <= count < _LARGEST_COUNT for count in counts)
        ):
            message = f"differences of array {totals.array} of layer {totals.layer[:64]!r}, or {max(counts)} of them"
            raise ValueError(message)
    if len(comparison.reason) > _LONGEST_REASON or len(comparison.partial_reasons) > _MOST_VERSIONS:
        raise ValueError("a reason that is too long, or too many of them")
    return comparison


def _arrays(data: bytes) -> dict[str, Array]:
    return archives.read(data, max_bytes=len(data), max_arrays=_MOST_ARRAYS) if data else {}
