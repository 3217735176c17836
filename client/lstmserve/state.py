"""State of one or more sequences: what a caller keeps between two calls."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lstmserve import archives, tensors
from lstmserve.text import printable
from lstmserve.v1 import lstm_pb2

MAX_FILE_BYTES: Final = 1 << 30
"""Bytes of a file that `State.load` reads."""

_FILE_FORMAT = 1
_TYPES: Final = ("float16", "float32", "float64")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LayerState:
    """The state of one layer.

    Of an LSTM layer it is `h` and `c`, each (batch, units). Of a layer that looks at several time-steps, such as a
    convolution, these are None and it is `window`, (batch, steps, features), and `steps_received`, (batch,).
    """

    h: NDArray[Any] | None = None
    c: NDArray[Any] | None = None

    layer: str = ""
    """Name of the layer; "" where unknown."""

    window: NDArray[Any] | None = None
    steps_received: NDArray[np.int64] | None = None

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that there are, by name."""
        named = {"h": self.h, "c": self.c, "window": self.window, "steps_received": self.steps_received}
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def of_arrays(cls, layer: str, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Returns the state of a layer with these as its `arrays`."""
        return cls(arrays.get("h"), arrays.get("c"), layer, arrays.get("window"), arrays.get("steps_received"))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class State:
    """The state of every layer that has one in model order, one row per sequence: h and c of an LSTM.

    It is a plain value: keep it, copy it, save it, send it to another server. `state[3]` and `state[2:5]` are the states
    of some of its rows, and `State.stack` puts rows together again.
    """

    layers: tuple[LayerState, ...]

    model_digest: str = ""
    """Digest of the weights that it belongs to; "" is not checked by the server."""

    numerics_fingerprint: str = ""
    """Numerics of the server that computed it; the same one elsewhere means the same bytes."""

    steps_seen: NDArray[np.int64] | None = None
    """Number of time-steps seen, (batch,); None where unknown."""

    @property
    def batch(self) -> int:
        """The number of rows; 0 for a model that carries no state."""
        return next((len(array) for part in self.layers for array in part.arrays.values() if array.ndim), 0)

    @classmethod
    def zeros(cls, model: lstm_pb2.Model, batch: int = 1) -> Self:
        """Returns the state of `batch` new sequences of a model, as `Client.model()` describes it."""
        dtype = np.dtype(lstm_pb2.DataType.Name(model.dtype).removeprefix("DATA_TYPE_").lower())
        return cls(
            layers=tuple(_zeros(part, batch, dtype) for part in model.state_layout),
            model_digest=model.digest,
            steps_seen=np.zeros(batch, np.int64),
        )

    @classmethod
    def stack(cls, states: Sequence[State]) -> Self:
        """Returns the rows of several states of one model as one state.

        Its numerics fingerprint is that of the states if they agree, else "". Its `steps_seen` is None if one of theirs is.

        Raises:
            ValueError: there is none, or they belong to different models.
        """
        if not states:
            message = "no states to stack; expected at least one"
            raise ValueError(message)
        first = states[0]
        for state in states[1:]:
            if state.model_digest != first.model_digest or _layout(state) != _layout(first):
                message = (
                    f"states of different models cannot be stacked: digest {first.model_digest[:12]!r} with layers "
                    f"{_layout(first)}, and {state.model_digest[:12]!r} with {_layout(state)}"
                )
                raise ValueError(message)
        fingerprints = {state.numerics_fingerprint for state in states}
        steps = [state.steps_seen for state in states if state.steps_seen is not None]
        return cls(
            layers=tuple(
                LayerState.of_arrays(
                    parts[0].layer,
                    {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays},
                )
                for parts in zip(*(state.layers for state in states), strict=True)
            ),
            model_digest=first.model_digest,
            numerics_fingerprint=fingerprints.pop() if len(fingerprints) == 1 else "",
            steps_seen=np.concatenate(steps) if len(steps) == len(states) else None,
        )

    def __getitem__(self, rows: int | slice | Sequence[int] | NDArray[Any]) -> Self:
        """Returns the state of some rows: one by its number, several by a slice, a list of numbers or a mask."""
        if isinstance(rows, (int, np.integer)):
            number = int(rows)
            if not -self.batch <= number < self.batch:
                message = f"row {number} of a state of {self.batch} rows"
                raise IndexError(message)
            rows = slice(number, number + 1 or None)
        return dataclasses.replace(
            self,
            layers=tuple(
                LayerState.of_arrays(part.layer, {name: array[rows] for name, array in part.arrays.items()})
                for part in self.layers
            ),
            steps_seen=None if self.steps_seen is None else self.steps_seen[rows],
        )

    def fits(self, other: State) -> bool:
        """Returns whether both are states of the same layers: of the same kinds and widths, and names where both have some."""
        return len(self.layers) == len(other.layers) and all(
            (not mine.layer or not theirs.layer or mine.layer == theirs.layer) and _widths(mine) == _widths(theirs)
            for mine, theirs in zip(self.layers, other.layers, strict=True)
        )

    def require_consistent(self) -> None:
        """Returns if the arrays fit one another.

        Raises:
            ValueError: a layer has arrays of other rows or another type than there may be; the text says which.
        """
        rows = self.batch if self.layers or self.steps_seen is None else len(self.steps_seen)
        for number, part in enumerate(self.layers):
            for name, array in part.arrays.items():
                _require_rows(array, f"layers[{number}].{name}", rows)
            if (
                part.h is not None
                and part.c is not None
                and (part.h.shape, part.h.dtype) != (part.c.shape, part.c.dtype)
            ):
                message = (
                    f"layers[{number}] has h of shape {part.h.shape} ({part.h.dtype}) and c of shape {part.c.shape} "
                    f"({part.c.dtype}); expected the same"
                )
                raise ValueError(message)
        if self.steps_seen is not None and not _are_counts(self.steps_seen, rows):
            message = (
                f"steps_seen is {self.steps_seen.dtype} of shape {self.steps_seen.shape}; expected ({rows},) "
                "integers, 0 or more"
            )
            raise ValueError(message)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the state to a file, in NumPy's .npz format, under exactly the name given."""
        arrays: dict[str, NDArray[Any]] = {
            "format": np.array(_FILE_FORMAT),
            "model_digest": np.array(self.model_digest),
            "numerics_fingerprint": np.array(self.numerics_fingerprint),
            "layers": np.array([part.layer for part in self.layers]),
        }
        if self.steps_seen is not None:
            arrays["steps_seen"] = self.steps_seen
        for i, part in enumerate(self.layers):
            arrays |= {f"{name}{i}": array for name, array in part.arrays.items()}
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs take a keyword for allow_pickle
        unfinished.replace(target)  # whatever happens on the way, there is the old state or the new one

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a state from a file that `save` wrote.

        Raises:
            ValueError: the file holds no state, or one of more than `MAX_FILE_BYTES`.
            OSError: the file cannot be opened.
        """
        # Non-blocking, so that a named pipe does not hold the caller up.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            try:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ValueError("it is not a regular file")  # noqa: TRY301 - as what is found further on
                loaded = cls._from_arrays(archives.read(file, max_bytes=MAX_FILE_BYTES))
                loaded.require_consistent()
            except (ValueError, LookupError, TypeError, AttributeError, OSError, OverflowError, SystemError) as error:
                message = f"{os.fspath(path)} is not a state that State.save wrote: {printable(str(error))}"
                raise ValueError(message) from error
        return loaded

    @classmethod
    def _from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        if int(arrays["format"]) != _FILE_FORMAT:
            message = f"it is of format {int(arrays['format'])}; expected {_FILE_FORMAT}"
            raise ValueError(message)
        return cls(
            layers=tuple(_loaded(arrays, i, str(name)) for i, name in enumerate(arrays["layers"])),
            model_digest=str(arrays["model_digest"]),
            numerics_fingerprint=str(arrays["numerics_fingerprint"]),
            steps_seen=arrays.get("steps_seen"),
        )

    def to_message(self) -> lstm_pb2.State:
        """Returns the state as the message that requests carry."""
        return lstm_pb2.State(
            layers=[
                lstm_pb2.LayerState(
                    h=_encoded(part.h),
                    c=_encoded(part.c),
                    layer=part.layer,
                    window=_encoded(part.window),
                    steps_received=None if part.steps_received is None else part.steps_received.tolist(),
                )
                for part in self.layers
            ],
            model_digest=self.model_digest,
            numerics_fingerprint=self.numerics_fingerprint,
            steps_seen=None if self.steps_seen is None else self.steps_seen.tolist(),
        )

    @classmethod
    def from_message(cls, message: lstm_pb2.State) -> Self:
        """Returns the state that a response carries."""
        return cls(
            layers=tuple(_decoded(part) for part in message.layers),
            model_digest=message.model_digest,
            numerics_fingerprint=message.numerics_fingerprint,
            steps_seen=np.array(message.steps_seen, np.int64) if message.steps_seen else None,
        )


def _layout(state: State) -> list[tuple[str, dict[str, tuple[int, ...]]]]:
    return [(part.layer, _widths(part)) for part in state.layers]


_RANKS: Final = {"h": (2, 2), "c": (2, 2), "window": (3, tensors.MAX_RANK)}


def _require_rows(array: NDArray[Any], name: str, rows: int) -> None:
    kind = name.rpartition(".")[2]
    if kind in ("steps_seen", "steps_received"):
        good = _are_counts(array, rows)
    else:
        least, most = _RANKS[kind]
        good = array.dtype.name in _TYPES and least <= array.ndim <= most and len(array) == rows
    if not good:
        message = f"{name} is {array.dtype} of shape {array.shape}; expected {rows} rows of numbers"
        raise ValueError(message)


def _are_counts(array: NDArray[Any], rows: int) -> bool:
    return array.dtype.kind in "iu" and array.shape == (rows,) and bool((array >= 0).all())


def _widths(part: LayerState) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in part.arrays.items()}


def _zeros(part: lstm_pb2.LayerStateLayout, batch: int, dtype: np.dtype[Any]) -> LayerState:
    if part.window_shape:
        window = np.zeros((batch, *part.window_shape), dtype)
        return LayerState(layer=part.layer, window=window, steps_received=np.zeros(batch, np.int64))
    return LayerState(np.zeros((batch, part.units), dtype), np.zeros((batch, part.units), dtype), part.layer)


def _loaded(arrays: Mapping[str, NDArray[Any]], number: int, layer: str) -> LayerState:
    names = ("window", "steps_received") if f"window{number}" in arrays else ("h", "c")
    return LayerState.of_arrays(layer, {name: arrays[f"{name}{number}"] for name in names})


def _encoded(array: NDArray[Any] | None) -> lstm_pb2.Tensor | None:
    return None if array is None else tensors.encode(array)


def _decoded(part: lstm_pb2.LayerState) -> LayerState:
    if part.HasField("window"):
        return LayerState(
            layer=part.layer, window=tensors.decode(part.window), steps_received=np.array(part.steps_received, np.int64)
        )
    return LayerState(tensors.decode(part.h), tensors.decode(part.c), part.layer)
