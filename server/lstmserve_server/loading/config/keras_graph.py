"""The layers of a model as a graph of calls, with nested models unfolded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.config import inbound_nodes
from lstmserve_server.loading.config.inbound_nodes import Edge, Node
from lstmserve_server.loading.config.keras_config import LayerConfig, ModelConfig
from lstmserve_server.loading.store.limits import LoadLimits

_WITH_INITIAL_STATE: Final = ("LSTM", "CuDNNLSTM", "RNN", "Bidirectional", "GRU", "SimpleRNN")


class Tensor(NamedTuple):
    """One output of a call, as it flows along an edge."""

    call: int
    output: int


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of a layer."""

    layer: LayerConfig
    inputs: tuple[Tensor, ...]
    numbers: tuple[float, ...] = ()
    """The plain numbers among the arguments of an operation."""
    number_first: bool = False
    """Whether the number is in front of the tensor, as in `1 - x`."""
    mask: Tensor | None = None
    initial_state: tuple[Tensor, ...] = ()
    training: bool = False
    further: str = ""
    """An argument that is not known here, as text; empty where there is none."""
    repetition: int = 0
    """How often the layer was called before."""


@dataclass(frozen=True, slots=True)
class CallGraph:
    """A model as calls, in topological order."""

    calls: tuple[LayerCall, ...]
    outputs: tuple[Tensor, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """The calls that are the inputs of the model."""
        return tuple(number for number, call in enumerate(self.calls) if not call.inputs)


def unfold(config: ModelConfig, limits: LoadLimits) -> CallGraph:
    """Returns the graph of a model.

    Raises:
        UnsupportedModelError: it cannot be read, makes no sense, or is too large.
    """
    unfolding = _Unfolding(limits)
    if config.functional:
        given = [unfolding.add(LayerCall(layer, ())) for layer in _input_layers(config)]
        outputs = unfolding.functional(config, given, ())
    else:
        first = config.layers[0]
        if first.kind != "InputLayer":
            options = {"batch_shape": None if config.declared_shape is None else list(config.declared_shape)}
            for name in ("batch_input_shape", "batch_shape", "input_length"):
                if isinstance(first.options, dict) and name in first.options:
                    options["batch_shape" if name != "input_length" else name] = first.options[name]
            first = LayerConfig("InputLayer", f"{first.name}_input", options)
        elif config.declared_shape is not None and "batch_shape" not in first.options:
            first = replace(first, options={"batch_shape": list(config.declared_shape), **first.options})
        outputs = unfolding.sequential(config, [unfolding.add(LayerCall(first, ()))], ())
    return CallGraph(tuple(unfolding.calls), tuple(outputs))


def as_numbered(config: ModelConfig) -> tuple[LayerConfig, ...]:
    """Returns the layers of a model in the order in which Keras numbers them, without operations, which it does not.

    That is the order in which it lists them; but it rebuilds a functional model along its graph, so a chain that is listed
    in another order is numbered along the chain.
    """
    layers = tuple(layer for layer in config.layers if not layer.operation)
    if not config.functional:
        return layers
    nodes, outputs = inbound_nodes.of_model(config)
    known = {(edge.layer, 0) for edge in inbound_nodes.endpoints(config.inputs, "input_layers")}
    order = [name for name, _ in _in_order(nodes, outputs, known)]
    if all(len(layer.nodes) <= 1 for layer in config.layers) and all(
        len(node.edges) <= 1 for _, node in nodes.values()
    ):
        by_name = {layer.name: layer for layer in layers}
        along = [by_name[name] for name in order if name in by_name]
        return tuple(along + [layer for layer in layers if layer not in along])
    return layers


def leaves(config: ModelConfig, outer: tuple[str, ...] = ()) -> Iterator[LayerConfig]:
    """Yields the layers of a model and of the models in it, in the order in which Keras lists them, without operations."""
    for layer in config.layers:
        if layer.inside is not None:
            yield from leaves(layer.inside, (*outer, layer.name))
        elif not layer.operation:
            yield replace(layer, outer=outer)


def one_layer(layer: LayerConfig) -> CallGraph:
    """Returns the graph of one layer alone."""
    source = LayerConfig("InputLayer", f"{layer.name}_input", {})
    return CallGraph((LayerCall(source, ()), LayerCall(layer, (Tensor(0, 0),))), (Tensor(1, 0),))


def until(graph: CallGraph, name: str) -> CallGraph:
    """Returns the part of a graph that leads to the first output of a layer, called by its name or its path.

    Raises:
        UnsupportedModelError: the graph has no such layer.
    """
    found = [n for n, call in enumerate(graph.calls) if name in (call.layer.name, "/".join(call.layer.path))]
    if not found:
        known = ", ".join(dict.fromkeys("/".join(call.layer.path) for call in graph.calls if call.inputs))
        message = f"--until {name} asks for a layer that the model does not have; it has {known}"
        raise UnsupportedModelError(message)
    return prune(CallGraph(graph.calls, (Tensor(found[-1], 0),)))


def prune(graph: CallGraph) -> CallGraph:
    """Returns the graph without the calls that lead to no output."""
    needed: set[int] = set()
    waiting = [tensor.call for tensor in graph.outputs]
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            waiting += [tensor.call for tensor in _sources(graph.calls[number])]
    places = {old: new for new, old in enumerate(sorted(needed))}

    def moved(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(Tensor(places[tensor.call], tensor.output) for tensor in tensors)

    calls = [
        replace(
            call,
            inputs=moved(call.inputs),
            mask=moved([call.mask])[0] if call.mask is not None else None,
            initial_state=moved(call.initial_state),
        )
        for call in (graph.calls[old] for old in sorted(needed))
    ]
    return CallGraph(tuple(calls), moved(graph.outputs))


def _sources(call: LayerCall) -> list[Tensor]:
    return [*call.inputs, *call.initial_state, *([call.mask] if call.mask is not None else [])]


def _input_layers(config: ModelConfig) -> list[LayerConfig]:
    """Returns the inputs of a functional model, in the order in which it takes them."""
    by_name = {layer.name: layer for layer in config.layers}
    inputs = []
    for edge in inbound_nodes.endpoints(config.inputs, "input_layers"):
        layer = by_name.get(edge.layer)
        if layer is None or layer.kind != "InputLayer":
            message = f"the model names {edge.layer!r} as an input, which is not an InputLayer of it"
            raise UnsupportedModelError(message)
        inputs.append(layer)
    return inputs


@dataclass(slots=True)
class _Unfolding:
    """Collects calls while nested models are unfolded."""

    limits: LoadLimits
    calls: list[LayerCall] = field(default_factory=list)
    counts: dict[tuple[str, ...], int] = field(default_factory=dict)
    entered: int = 0
    """How often a model was entered."""
    read: dict[int, tuple[inbound_nodes.Nodes, tuple[Edge, ...]]] = field(default_factory=dict)
    """The nodes and outputs of functional models, so that one that is called twice is read once."""

    def add(self, call: LayerCall) -> Tensor:
        """Adds a call, and returns its first output."""
        self._require_few(len(self.calls))
        repetition = self.counts.get(call.layer.path, 0)
        self.counts[call.layer.path] = repetition + 1
        self.calls.append(replace(call, repetition=repetition))
        return Tensor(len(self.calls) - 1, 0)

    def _require_few(self, calls: int) -> None:
        if calls >= self.limits.calls:
            message = f"the layers of the model are called more than {self.limits.calls} times"
            raise UnsupportedModelError(message)

    def call(self, call: LayerCall, outer: tuple[str, ...]) -> list[Tensor]:
        """Adds a call of a layer, or the calls of the model that it is, and returns all outputs that it may have."""
        inside = call.layer.inside
        if inside is None:
            made = self.add(replace(call, layer=replace(call.layer, outer=outer)))
            return [Tensor(made.call, output) for output in range(inbound_nodes.MAX_OUTPUTS)]
        self.entered += 1
        self._require_few(self.entered)
        within = (*outer, call.layer.name)
        given = list(call.inputs)
        return self.functional(inside, given, within) if inside.functional else self.sequential(inside, given, within)

    def sequential(self, config: ModelConfig, given: list[Tensor], outer: tuple[str, ...]) -> list[Tensor]:
        """Adds the calls of a Sequential, and returns its outputs."""
        if len(given) != 1:
            message = f"the model {'/'.join(outer)!r} in it is called on {len(given)} tensors; expected one"
            raise UnsupportedModelError(message)
        flowing = given
        for place, layer in enumerate(config.layers):
            if layer.kind == "InputLayer" and place == 0:
                continue
            flowing = self.call(LayerCall(layer, (flowing[0],)), outer)
        return flowing[:1]

    def functional(self, config: ModelConfig, given: list[Tensor], outer: tuple[str, ...]) -> list[Tensor]:
        """Adds the calls of a functional model, and returns its outputs."""
        inputs = _input_layers(config)
        if len(inputs) != len(given):
            message = f"the model {'/'.join(outer)!r} in it is called on {len(given)} tensors; expected {len(inputs)}"
            raise UnsupportedModelError(message)
        for layer, tensor in zip(inputs, given, strict=True):
            self._require_same_type(layer, self.calls[tensor.call].layer)
        known = {(layer.name, 0): [tensor] for layer, tensor in zip(inputs, given, strict=True)}
        if id(config) not in self.read:
            self.read[id(config)] = inbound_nodes.of_model(config)
        nodes, outputs = self.read[id(config)]
        for key in _in_order(nodes, outputs, set(known)):
            layer, node = nodes[key]
            known[key] = self.call(_called(layer, node, known), outer)
        return [_output(edge, known) for edge in outputs]

    def _require_same_type(self, inner: LayerConfig, outer: LayerConfig) -> None:
        """Refuses a model within a model that would round what it is called on to the type of its input."""
        dtype = inner.options.get("dtype")
        same = outer.kind == "InputLayer" and outer.options.get("dtype") == dtype
        if dtype not in (None, "float32", "float64") and not same:
            message = f"{inner} of a model within the model takes {dtype}, to which Keras rounds its input; that is not supported"
            raise UnsupportedModelError(message)


def _called(layer: LayerConfig, node: Node, known: dict[tuple[str, int], list[Tensor]]) -> LayerCall:
    tensors = tuple(_output(edge, known) for edge in node.inputs)
    states = tuple(_output(edge, known) for edge in node.initial_state)
    if layer.kind in _WITH_INITIAL_STATE and len(tensors) > 1:  # as Keras 2 writes them
        tensors, states = tensors[:1], tensors[1:] + states
    mask = None if node.mask is None else _output(node.mask, known)
    return LayerCall(layer, tensors, node.numbers, node.number_first, mask, states, node.training, node.further)


def _output(edge: Edge, known: dict[tuple[str, int], list[Tensor]]) -> Tensor:
    made = known[edge.layer, edge.node]
    if edge.output >= len(made):
        message = f"a layer reads output {edge.output} of {edge.layer!r}, which has {len(made)}"
        raise UnsupportedModelError(message)
    return made[edge.output]


def _in_order(
    nodes: dict[tuple[str, int], tuple[LayerConfig, Node]], outputs: Sequence[Edge], known: set[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Returns the nodes that lead to the outputs, each after those that it depends on.

    Raises:
        UnsupportedModelError: an edge leads nowhere, or in a circle.
    """
    ordered: list[tuple[str, int]] = []
    done, open_nodes = set(known), set()
    waiting = [(edge.layer, edge.node) for edge in reversed(outputs)]
    while waiting:
        key = waiting[-1]
        if key in done:
            waiting.pop()
            continue
        if key not in nodes:
            message = f"the graph leads to call {key[1]} of {key[0]!r}, which the model does not have"
            raise UnsupportedModelError(message)
        missing = [(edge.layer, edge.node) for edge in nodes[key][1].edges if (edge.layer, edge.node) not in done]
        if missing and key in open_nodes:
            message = f"the graph leads in a circle through {key[0]!r}"
            raise UnsupportedModelError(message)
        if missing:
            open_nodes.add(key)
            waiting += reversed(missing)
            continue
        waiting.pop()
        done.add(key)
        ordered.append(key)
    return ordered
