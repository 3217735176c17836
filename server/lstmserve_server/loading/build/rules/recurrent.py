"""Rules of layers that have h and c.

The rule of a GRU would be a function here. Its layer goes into `model.layers`, its mathematics next to `model.lstm`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lstmserve_server.loading.build.rules import activations as activation_rules
from lstmserve_server.loading.build.rules import base, cudnn
from lstmserve_server.loading.build.rules.base import LayerConfigReader, LayerPlan, WeightBlock
from lstmserve_server.loading.config import keras_config
from lstmserve_server.loading.config.keras_config import LayerConfig
from lstmserve_server.model import activations
from lstmserve_server.model.spec import Option, Shape


def lstm(r: LayerConfigReader) -> LayerPlan:
    """`LSTM`."""
    return _lstm(r, in_both_directions=False)


def cudnn_lstm(r: LayerConfigReader) -> LayerPlan:
    """`CuDNNLSTM`: an LSTM with fixed activations."""
    return _cudnn_lstm(r, in_both_directions=False)


def _lstm(r: LayerConfigReader, *, in_both_directions: bool) -> LayerPlan:
    r.require_sequence()
    units = r.number("units", r.limits.units)
    if r.flag("time_major", default=False) != r.writer.time_major:
        raise r.refuse("and the other LSTM layers disagree about time_major; expected it of all of them, or of none")
    if "recurrent_activation" not in r.layer.options and r.writer.era is activations.KerasMajor.KERAS_2:
        text = "does not say its recurrent_activation, whose default changed during Keras 2 ('hard_sigmoid' at first)"
        raise r.refuse(text)
    shapes: dict[str, tuple[int, ...]] = {"kernel": (r.features, 4 * units), "recurrent_kernel": (units, 4 * units)}
    if r.flag("use_bias", default=True):
        shapes["bias"] = (4 * units,)
    sequences = r.flag("return_sequences", default=False)
    options: dict[str, Option] = {
        "units": units,
        "activation": activation_rules.activation(r, "activation", "tanh"),
        "recurrent_activation": activation_rules.activation(r, "recurrent_activation", "sigmoid"),
        "use_bias": "bias" in shapes,
        "return_sequences": sequences,
        "go_backwards": r.flag("go_backwards", default=False),
    }
    if _passes_mask_over(r) and (
        r.get("zero_output_for_mask") or (in_both_directions and sequences and not r.writer.standalone)
    ):
        options["zero_output_for_mask"] = True
    if r.incoming.mask is not None and not _passes_mask_over(r):
        options["ignores_mask"] = True
    output: Shape = (r.incoming.shape[0], units) if sequences else (units,)
    states = _states(r, units) if not in_both_directions else ()
    mask = r.incoming.mask if sequences else None
    return r.plan("LSTM", options, output_shapes=(output, *states), block=WeightBlock(shapes, "cell"), mask=mask)


def _passes_mask_over(r: LayerConfigReader) -> bool:
    """Returns whether the layer uses the mask of its input: with an initial state, Keras 3 ignores it."""
    forgotten = r.states and r.writer.era is activations.KerasMajor.KERAS_3 and not r.masked_by_call
    return r.incoming.mask is not None and not forgotten


def _states(r: LayerConfigReader, *units: int) -> tuple[Shape, ...]:
    """Returns the shapes of h and c per direction, if the layer returns them; checks its initial states."""
    if r.states not in (0, 2 * len(units)):
        raise r.refuse(f"is given {r.states} initial states; expected {2 * len(units)}: h and c")
    for incoming, width in zip(r.incomings[1:], [u for u in units for _ in "hc"], strict=False):
        if incoming.shape != (width,):
            raise r.refuse(f"is given an initial state of the shape {incoming.shape}; expected {(width,)}")
    return tuple((u,) for u in units for _ in "hc") if r.flag("return_state", default=False) else ()


def _cudnn_lstm(r: LayerConfigReader, *, in_both_directions: bool) -> LayerPlan:
    plain = {**r.layer.options, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    r.consumed.update(r.layer.options)
    made = _lstm(replace(r, layer=replace(r.layer, options=plain)), in_both_directions=in_both_directions)
    assert made.block is not None  # noqa: S101 - an LSTM has weights
    shapes = {**made.block.shapes, "bias": (8 * int(r.layer.options["units"]),)}
    return replace(made, block=WeightBlock(shapes, convert=cudnn.to_lstm))


_DIRECTIONS: Final = {"LSTM": _lstm, "CuDNNLSTM": _cudnn_lstm}


def rnn(r: LayerConfigReader) -> LayerPlan:
    """`RNN` of one `LSTMCell`, or of a stack of them, as LSTM layers."""
    cell = keras_config.inner_layer(r.get("cell"), f"{r.layer}, cell")
    if cell.kind == "StackedRNNCells":
        return _stacked(r, cell)
    return _of_cell(r, cell)


def _of_cell(r: LayerConfigReader, cell: LayerConfig, **changed: bool) -> LayerPlan:
    if cell.kind != "LSTMCell":
        raise r.refuse(f"has a {cell.kind} as its cell; only LSTMCell is supported")
    around = {name: value for name, value in r.layer.options.items() if name != "cell"}
    r.consumed.update(r.layer.options)
    inner = replace(r, layer=replace(r.layer, options={**cell.options, **around, **changed}), consumed=set())
    made = _lstm(inner, in_both_directions=False)
    base.require_known_options(inner)
    return made


def _stacked(r: LayerConfigReader, stack: LayerConfig) -> LayerPlan:
    """Plans a stack of cells: one LSTM after another, each on the outputs of the previous one."""
    cells = stack.options.get("cells")
    if not isinstance(cells, list) or not 1 <= len(cells) <= r.limits.layers:
        raise r.refuse(f"has cells given as {type(cells).__name__}; expected a list of LSTMCells")
    if stack.options.get("reverse_state_order") or r.get("return_state") or r.states:
        raise r.refuse("takes or returns the states of a stack of cells, which is not supported")
    if r.get("go_backwards") and r.incoming.mask is not None:
        raise r.refuse("reads a sequence with a mask from its end through a stack of cells, which is not supported")
    parts: list[LayerPlan] = []
    for number, entry in enumerate(cells):
        cell = keras_config.inner_layer(entry, f"{r.layer}, cell {number}")
        below = r.incoming if not parts else replace(r.incoming, shape=parts[-1].shape)
        last = number == len(cells) - 1
        changed = {"return_sequences": bool(r.get("return_sequences")) if last else True}
        if parts:  # the first has turned the sequence round
            changed["go_backwards"] = False
        made = _of_cell(replace(r, incomings=(below,)), cell, **changed)
        place = "cell/cells/lstm_cell" + (f"_{number}" if number else "")
        assert made.block is not None  # noqa: S101 - an LSTM has weights
        parts.append(replace(made, block=_piece(made.block, cell, place, {cell.name})))
    return LayerPlan(base.STACK, {}, parts[-1].output_shapes, parts=tuple(parts), mask=parts[-1].mask)


def bidirectional(r: LayerConfigReader) -> LayerPlan:
    """`Bidirectional`, of LSTMs."""
    forward = keras_config.inner_layer(r.get("layer"), f"{r.layer}, layer")
    given = r.get("backward_layer")
    backward = keras_config.inner_layer(given, f"{r.layer}, backward_layer") if given is not None else None
    if backward is None:
        turned = not forward.options.get("go_backwards", False)
        backward = replace(forward, options={**forward.options, "go_backwards": turned})
    own = {backward.name} if given is not None else set()  # else it is called after the forward one
    ahead = _direction(r, forward, "forward_layer", {forward.name, f"forward_{forward.name}"})
    back = _direction(r, backward, "backward_layer", {f"backward_{backward.name.removeprefix('forward_')}", *own})
    if bool(ahead.options["go_backwards"]) or not back.options["go_backwards"]:
        raise r.refuse("has a first layer that goes backwards, or a second one that does not")
    widths = [int(part.shape[-1] or 0) for part in (ahead, back)]
    merge = r.choice("merge_mode", "concat", "concat", "sum", "mul", "ave", None)
    if merge not in ("concat", None) and widths[0] != widths[1]:
        raise r.refuse(f"has merge_mode={merge!r} with {widths[0]} and {widths[1]} units")
    if ahead.options["return_sequences"] != back.options["return_sequences"]:
        raise r.refuse("has one layer that returns sequences and one that does not")
    states = replace(r, layer=forward)
    further = _states(states, *widths)
    shape = (*ahead.shape[:-1], sum(widths)) if merge == "concat" else ahead.shape
    outputs = (shape,) if merge is not None else (ahead.shape, back.shape)
    return r.plan(
        "Bidirectional",
        {"merge_mode": merge or "none"},
        output_shapes=(*outputs, *further),
        parts=(ahead, back),
        mask=ahead.mask,
    )


def _piece(block: WeightBlock, layer: LayerConfig, place: str, labels: set[str]) -> WeightBlock:
    """Returns the weights of an inner layer under its prefix."""
    trainable = layer.options.get("trainable") is not False
    return replace(block, place=place, labels=frozenset(labels), trainable=trainable)


def _direction(r: LayerConfigReader, layer: LayerConfig, place: str, labels: set[str]) -> LayerPlan:
    if layer.kind not in _DIRECTIONS:
        raise r.refuse(f"wraps a {layer.kind}; only LSTM is supported")
    reading = replace(r, layer=layer, consumed=set())
    made = _DIRECTIONS[layer.kind](reading, in_both_directions=True)
    reading.consumed.add("return_state")
    base.require_known_options(reading)
    assert made.block is not None  # noqa: S101 - an LSTM has weights
    return replace(made, block=_piece(made.block, layer, f"{place}/cell", labels))
