"""Output of `lstmserve inspect`: tables for a person, JSON for a program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lstmserve.cli import terminal
from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import sandbox
from lstmserve_server.loading.store import memory_files
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.loading.store.memory_files import SealedCopy
from lstmserve_server.model.layers.base import WindowState
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.spec import LayerSpec, ModelSpec
from lstmserve_server.rpc.codec.models import model_message
from lstmserve_server.runtime.registry import ServedModel

_GATES: Final = ("i", "f", "c", "o")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A file that can be served."""

    path: str
    served: ServedModel
    servable: bool = True

    def as_json(self) -> str:
        """Returns everything as JSON."""
        message = json_format.MessageToDict(
            model_message(self.served), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        weights = [row.as_dict() for layer in self.served.model.description.layers for row in _weights_of(layer)]
        return json.dumps({"servable": True, "model": message, "weights": weights}, indent=2)

    def show(self) -> None:
        """Prints tables."""
        description = self.served.model.description
        terminal.console(width=120).print(
            Group(
                Text(f"\n{self.path}\n", style="bold"),
                _facts(self.served),
                *_remarks(description),
                _title("Layers"),
                _layer_table(description),
                _title("Weights, by gate for an LSTM"),
                _weight_table(description.layers),
                _title("State, which the caller carries"),
                _state_table(self.served) if self.served.model.stateful_layers else Text("none"),
                Text(""),
            )
        )


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that cannot be served."""

    path: str
    reason: str
    layers: Sequence[tuple[str, str, bool]]
    """Name, kind, and whether the kind is served; empty where the file cannot be read so far."""
    servable: bool = False

    def as_json(self) -> str:
        """Returns everything as JSON."""
        layers = [{"name": name, "kind": kind, "kind_served": served} for name, kind, served in self.layers]
        return json.dumps({"servable": False, "reason": self.reason, "layers": layers}, indent=2)

    def show(self) -> None:
        """Prints why, and the layers as far as they are known."""
        console = terminal.console(width=120)
        console.print(
            Panel(Text(self.reason), title="cannot be served", border_style="red", width=min(console.width, 100))
        )
        if self.layers:
            table = Table("layer", "kind", "", header_style="bold")
            for name, kind, served in self.layers:
                table.add_row(name, kind, "served" if served else Text("not served", style="red"))
            console.print(table)


def inspect(
    path: str, *, layer: str | None = None, until: str | None = None, architecture: str | None = None
) -> Accepted | Refused:
    """Inspects a file, or a part of its model."""
    try:
        description = load(path, layer, until, architecture)
        return Accepted(path, ServedModel.prepare(description.source.file, description, Numerics.EXACT))
    except sandbox.LayersOfRefusedModel as error:
        return Refused(path, str(error), error.layers)
    except UnsupportedModelError as error:  # by the self-test
        return Refused(path, str(error), [])


def load(
    path: str, layer: str | None, until: str | None, architecture: str | None, copy: SealedCopy | None = None
) -> ModelSpec:
    """Returns the model in a file, or a part of it.

    Raises:
        UnsupportedModelError: it cannot be served.
    """
    read_instead = None if copy is None else copy.descriptor
    loading = sandbox.load(path, LoadLimits(), layer=layer, until=until, architecture=architecture, copy=read_instead)
    return asyncio.run(loading)


def load_for_keras(
    name: str | None, path: str, layer: str | None, until: str | None, architecture: str | None
) -> ServedModel:
    """Returns the model in a file, or a part of it, with the copy of the file that was read, for Keras to read too.

    Args:
        name: of the model; None for that of its file.
        path: the file.
        layer: as in `sandbox.load`, and so are `until` and `architecture`.
        until: see `layer`.
        architecture: see `layer`.

    Raises:
        UnsupportedModelError: it cannot be served.
    """
    copy = memory_files.copy_of(path, LoadLimits().file_bytes)
    description = load(path, layer, until, architecture, copy)
    return ServedModel.prepare(name or description.source.file[:64], description, Numerics.EXACT, copy=copy)


@dataclass(frozen=True, slots=True)
class _WeightRow:
    """One array of weights, or the part of it that belongs to a gate."""

    layer: str
    weight: str
    gate: str
    shape: tuple[int, ...]
    values: NDArray[Any]

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.values.astype(np.float64)))

    def as_dict(self) -> dict[str, Any]:
        return {
            "layer": self.layer,
            "weight": self.weight,
            "gate": self.gate,
            "shape": list(self.shape),
            "norm": self.norm,
            "min": float(self.values.min()),
            "max": float(self.values.max()),
        }


def _weights_of(layer: LayerSpec) -> list[_WeightRow]:
    rows = [row for part in layer.parts for row in _weights_of(part)]
    for name, weight in layer.weights.items():
        gates = np.split(weight, len(_GATES), axis=-1) if layer.kind == "LSTM" else [weight]
        names = _GATES if layer.kind == "LSTM" else ("",)
        rows += [_WeightRow(layer.name, name, gate, part.shape, part) for gate, part in zip(names, gates, strict=True)]
    return rows


def _facts(served: ServedModel) -> Table:
    model, description = served.model, served.model.description
    message = model_message(served)
    rows = {
        "written by": f"Keras {description.source.keras_version}, {description.source.format}",
        "digest": served.digest,
        "computes in": model.dtype.name,
        "parameters": f"{description.parameter_count:,} ({description.weight_bytes:,} bytes)",
        "input": _values(message.inputs),
        "output": _values(message.outputs),
        "Forward": "possible",
        "Step": _step(model),
        "fingerprint here": f"{served.fingerprint} ({model.engine})",
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        table.add_row(Text(key, style="dim"), value)
    return table


def _step(model: RecurrentModel) -> str:
    if not model.causal:
        return f"not possible: {model.step_obstacle}"
    waits = f"; the first answer comes with step {model.waiting_steps + 1}" if model.waiting_steps else ""
    return f"possible{waits}"


def _values(items: Sequence[Any]) -> str:
    """Returns the shape of the one input or output, or the names and shapes of several."""
    shapes = [_shape(item.shape) for item in items]
    return (
        shapes[0] if len(items) == 1 else ", ".join(f"{item.name} {s}" for item, s in zip(items, shapes, strict=True))
    )


def _remarks(description: ModelSpec) -> list[Text]:
    return [Text(f"Note: {remark}.", style="yellow") for remark in description.source.remarks]


def _layer_table(description: ModelSpec) -> Table:
    """Returns a table of the layers; if they are not a chain, with the inputs of each."""
    layers, names = description.layers, [layer.name for layer in description.layers for _ in layer.output_shapes]
    chain = all(layer.inputs == ((place - 1,) if place else ()) for place, layer in enumerate(layers))
    table = Table(
        "layer", "kind", *([] if chain else ["called on"]), "output", "parameters", "options", header_style="bold"
    )
    for layer in layers:
        options = ", ".join(f"{key}={value}" for key, value in layer.shown_options.items())
        called_on = ", ".join(names[number] for number in (*layer.inputs, *layer.initial_state)) or "-"
        table.add_row(
            layer.name,
            layer.kind,
            *([] if chain else [called_on]),
            _shape([-1, *(n or -1 for n in layer.output_shapes[0])]),
            f"{layer.parameter_count:,}",
            options or "-",
        )
    return table


def _weight_table(layers: tuple[LayerSpec, ...]) -> Table:
    table = Table("layer", "weight", "gate", "shape", "norm", "smallest", "largest", header_style="bold")
    for column in table.columns[4:]:
        column.justify = "right"
    for layer in layers:
        rows = _weights_of(layer)
        for row in rows:
            table.add_row(
                row.layer,
                row.weight,
                row.gate,
                _shape(row.shape),
                f"{row.norm:.4g}",
                f"{row.values.min():+.4g}",
                f"{row.values.max():+.4g}",
                end_section=row is rows[-1],
            )
    return table


def _state_table(served: ServedModel) -> Table:
    states = [(layer.name, layer.zero_state(1)) for layer in served.model.stateful_layers]
    windows = any(isinstance(state, WindowState) for _, state in states)
    table = Table("layer", "h", "c", *(["window"] if windows else []), header_style="bold")
    for name, state in states:
        shapes = [f"(batch, {', '.join(map(str, array.shape[1:]))})" for array in state]
        table.add_row(name, *(["-", "-", shapes[0]] if isinstance(state, WindowState) else shapes))
    return table


def _shape(shape: Any) -> str:
    return f"({', '.join('any' if length == -1 else str(length) for length in shape)})"


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
