"""The rule of each kind of layer: its configuration to a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lstmserve_server import activations
from lstmserve_server.loading import cudnn, keras_config, layer_rules
from lstmserve_server.loading.layer_rules import Block, Incoming, Plan, Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from lstmserve_server.description import Option
    from lstmserve_server.loading.keras_config import LayerConfig
    from lstmserve_server.loading.layer_rules import Writer
    from lstmserve_server.loading.limits import Limits


def plan(layer: LayerConfig, writer: Writer, incoming: Incoming, limits: Limits) -> Plan:
    """Returns what a layer will be.

    Raises:
        ModelRefused: the kind of layer or one of its options is not served, or an option makes no sense.
    """
    reading = Reading(layer, writer, incoming, limits)
    made = PLANS[layer.kind](reading)
    layer_rules.require_known_options(reading)
    return made


def _lstm(r: Reading, *, in_both_directions: bool = False) -> Plan:
    r.require_sequence()
    units = r.number("units", r.limits.units)
    r.choice("time_major", None, False, None)  # noqa: FBT003 - the values of an option
    if "recurrent_activation" not in r.layer.options and r.writer.era is activations.Era.KERAS_2:
        raise r.refuse(
            "does not say its recurrent_activation, whose default changed during Keras 2 ('hard_sigmoid' at first)"
        )
    shapes: dict[str, tuple[int, ...]] = {"kernel": (r.features, 4 * units), "recurrent_kernel": (units, 4 * units)}
    if r.flag("use_bias", default=True):
        shapes["bias"] = (4 * units,)
    sequences = r.flag("return_sequences", default=False)
    options: dict[str, Option] = {
        "units": units,
        "activation": r.activation("activation", "tanh"),
        "recurrent_activation": r.activation("recurrent_activation", "sigmoid"),
        "use_bias": "bias" in shapes,
        "return_sequences": sequences,
        "go_backwards": r.flag("go_backwards", default=False),
    }
    if r.incoming.masked and (
        r.get("zero_output_for_mask") or (in_both_directions and sequences and not r.writer.standalone)
    ):
        options["zero_output_for_mask"] = True
    shape = (r.incoming.shape[0], units) if sequences else (units,)
    return Plan("LSTM", options, shape, (Block(shapes, "cell"),), masks=r.incoming.masked and sequences)


def _cudnn_lstm(r: Reading, *, in_both_directions: bool = False) -> Plan:
    """Reads a CuDNNLSTM as the LSTM that it is, with the only functions that it has."""
    plain = {**r.layer.options, "activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
    r.consumed.update(r.layer.options)
    made = _lstm(replace(r, layer=replace(r.layer, options=plain)), in_both_directions=in_both_directions)
    shapes = {**made.blocks[0].shapes, "bias": (8 * int(r.layer.options["units"]),)}
    return replace(made, blocks=(Block(shapes, convert=cudnn.to_lstm),))


def _rnn(r: Reading) -> Plan:
    """Reads an RNN of one LSTMCell as the LSTM that it is."""
    cell = keras_config.inner_layer(r.get("cell"), f"{r.layer}, cell")
    if cell.kind != "LSTMCell":
        raise r.refuse(f"has a {cell.kind} as its cell; only an LSTMCell is served")
    together = {**cell.options, **{name: value for name, value in r.layer.options.items() if name != "cell"}}
    r.consumed.update(r.layer.options)
    inner = Reading(replace(r.layer, options=together), r.writer, r.incoming, r.limits)
    made = _lstm(inner)
    layer_rules.require_known_options(inner)
    return made


_DIRECTIONS: Final = {"LSTM": _lstm, "CuDNNLSTM": _cudnn_lstm}


def _bidirectional(r: Reading) -> Plan:
    forward = _inner(r, "layer")
    backward = _inner(r, "backward_layer") if r.get("backward_layer") is not None else None
    for inner in (forward, backward):
        if inner is not None and inner.kind not in _DIRECTIONS:
            raise r.refuse(f"wraps a {inner.kind}; only LSTMs are served")
    if backward is None:
        turned = not forward.options.get("go_backwards", False)
        backward = replace(forward, options={**forward.options, "go_backwards": turned})
    parts = []
    for place, config in (("forward_layer", forward), ("backward_layer", backward)):
        reading = Reading(config, r.writer, r.incoming, r.limits)
        made = _DIRECTIONS[config.kind](reading, in_both_directions=True)
        layer_rules.require_known_options(reading)
        parts.append(replace(made, blocks=(replace(made.blocks[0], place=f"{place}/cell"),)))
    ahead, back = parts
    if bool(ahead.options["go_backwards"]) or not back.options["go_backwards"]:
        raise r.refuse("has a first layer that goes backwards, or a second one that does not")
    merge = r.choice("merge_mode", "concat", "concat", "sum", "mul", "ave")
    widths = [int(part.output_shape[-1] or 0) for part in parts]
    if merge != "concat" and widths[0] != widths[1]:
        raise r.refuse(f"has merge_mode={merge!r} with {widths[0]} and {widths[1]} units")
    if ahead.options["return_sequences"] != back.options["return_sequences"]:
        raise r.refuse("has one layer that returns sequences and one that does not")
    shape = (*ahead.output_shape[:-1], sum(widths) if merge == "concat" else widths[0])
    return Plan(
        "Bidirectional", {"merge_mode": merge}, shape, (ahead.blocks[0], back.blocks[0]), (ahead, back), ahead.masks
    )


def _time_distributed(r: Reading) -> Plan:
    r.require_sequence()
    inner = _inner(r, "layer")
    if inner.kind not in _POINTWISE:
        raise r.refuse(f"wraps a {inner.kind}; served inside it are: {', '.join(sorted(_POINTWISE))}")
    made = plan(inner, r.writer, replace(r.incoming, shape=r.incoming.shape[1:]), r.limits)
    blocks = tuple(Block(block.shapes, "/".join(filter(None, ["layer", block.place]))) for block in made.blocks)
    return replace(made, output_shape=(r.incoming.shape[0], *made.output_shape), blocks=blocks)


def _inner(r: Reading, option: str) -> LayerConfig:
    inner = keras_config.inner_layer(r.get(option), f"{r.layer}, {option}")
    if inner.kind not in PLANS:
        raise r.refuse(f"wraps a {inner.kind}, which is of a kind that is not served")
    return inner


def _dense(r: Reading) -> Plan:
    units = r.number("units", r.limits.features)
    shapes: dict[str, tuple[int, ...]] = {"kernel": (r.features, units)}
    if r.flag("use_bias", default=True):
        shapes["bias"] = (units,)
    options: dict[str, Option] = {
        "units": units,
        "activation": r.activation("activation", "linear"),
        "use_bias": "bias" in shapes,
    }
    return Plan("Dense", options, (*r.incoming.shape[:-1], units), (Block(shapes),))


def _embedding(r: Reading) -> Plan:
    if len(r.incoming.shape) != 1:
        raise r.refuse("stands behind another layer; expected it first, on token ids")
    r.consumed.add("input_dim")
    words, features = r.number("input_dim", 1 << 24), r.number("output_dim", r.limits.features)
    mask = r.flag("mask_zero", default=False)
    shape = (r.incoming.shape[0], features)
    options: dict[str, Option] = {"input_dim": words, "output_dim": features, "mask_zero": mask}
    return Plan("Embedding", options, shape, (Block({"embeddings": (words, features)}),), masks=mask)


def _masking(r: Reading) -> Plan:
    r.require_sequence()
    return Plan("Masking", {"mask_value": r.real("mask_value", 0.0)}, r.incoming.shape, masks=True)


def _normalization(r: Reading, kind: str, further: tuple[str, ...]) -> Plan:
    axis = r.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, len(r.incoming.shape)):
        raise r.refuse(f"has axis={axis!r}; only the last is served")
    r.choice("rms_scaling", None, False, None)  # noqa: FBT003 - the values of an option
    names = [name for name, option in (("gamma", "scale"), ("beta", "center")) if r.flag(option, default=True)]
    shapes = dict.fromkeys((*names, *further), (r.features,))
    options: dict[str, Option] = {"epsilon": r.real("epsilon", 1e-3)}
    return Plan(kind, options, r.incoming.shape, (Block(shapes),) if shapes else ())


def _rescaling(r: Reading) -> Plan:
    options: dict[str, Option] = {"scale": r.real("scale", 1.0), "offset": r.real("offset", 0.0)}
    return Plan("Rescaling", options, r.incoming.shape)


def _activation_layer(r: Reading) -> Plan:
    return Plan("Activation", {"activation": r.activation("activation", "linear")}, r.incoming.shape)


def _softmax(r: Reading) -> Plan:
    if r.incoming.masked:
        raise r.refuse(
            "is given a mask, which Keras adds to what it gets; use Activation('softmax'), which passes it over"
        )
    r.choice("axis", None, -1, [-1], None)
    return Plan("Activation", {"activation": r.named_activation("activation", "softmax")}, r.incoming.shape)


def _relu(r: Reading) -> Plan:
    if r.real("negative_slope", 0.0) or r.real("threshold", 0.0):
        raise r.refuse("has a negative_slope or a threshold; only the plain one is served")
    most = r.get("max_value")
    if most not in (None, 6):
        raise r.refuse(f"has max_value={most!r}; only None or 6 is served")
    name = "relu" if most is None else "relu6"
    activation = activations.defined(name)
    assert activation is not None  # noqa: S101 - both are defined
    return Plan("Activation", {"activation": activation}, r.incoming.shape)


def _conv(r: Reading) -> Plan:
    r.require_sequence()
    r.choice("groups", None, 1, None)
    r.choice("data_format", "channels_last", "channels_last", None)
    filters, window = r.number("filters", r.limits.units), r.single("kernel_size", 1)
    shapes: dict[str, tuple[int, ...]] = {"kernel": (window, r.features, filters)}
    if r.flag("use_bias", default=True):
        shapes["bias"] = (filters,)
    options = _window(r, window, "causal") | {
        "dilation_rate": r.single("dilation_rate", 1),
        "filters": filters,
        "activation": r.activation("activation", "linear"),
    }
    return Plan("Conv1D", options, (_places(r, options), filters), (Block(shapes),), masks=False)


def _pooling(r: Reading) -> Plan:
    r.require_sequence()
    r.choice("data_format", "channels_last", "channels_last", None)
    window = r.single("pool_size", 2)
    options = _window(r, window)
    return Plan(r.layer.kind, options, (_places(r, options), r.features), masks=False)


def _window(r: Reading, window: int, *further: str) -> dict[str, Option]:
    strides = window if r.layer.kind != "Conv1D" and r.layer.options.get("strides") is None else r.single("strides", 1)
    r.consumed.add("strides")
    return {"window": window, "strides": strides, "padding": r.choice("padding", "valid", "valid", "same", *further)}


def _places(r: Reading, options: dict[str, Any]) -> int | None:
    time, stride = r.incoming.shape[0], int(options["strides"])
    if time is None:
        return None
    if options["padding"] != "valid":
        return -(-time // stride)
    reach = int(options.get("dilation_rate", 1)) * (options["window"] - 1) + 1
    if time < reach:
        raise r.refuse(f"looks at {reach} time-steps at once, and {time} reach it")
    places: int = (time - reach) // stride + 1
    return places


def _global_pooling(r: Reading) -> Plan:
    r.require_sequence()
    r.choice("data_format", "channels_last", "channels_last", None)
    keep = r.flag("keepdims", default=False)
    return Plan(r.layer.kind, {"keepdims": keep}, (1, r.features) if keep else (r.features,), masks=False)


def _flatten(r: Reading) -> Plan:
    r.choice("data_format", "channels_last", "channels_last", None)
    if not r.incoming.sequence:
        return Plan("Identity", {}, r.incoming.shape)
    return Plan("Flatten", {"time": r.require_known_time()}, (r.require_known_time() * r.features,), masks=False)


def _reshape(r: Reading) -> Plan:
    target = r.get("target_shape")
    if not isinstance(target, list) or not 1 <= len(target) <= 2 or not all(type(n) is int for n in target):  # noqa: PLR2004
        raise r.refuse(f"has target_shape={target!r}; expected one or two whole numbers")
    size = r.features * (r.require_known_time() if r.incoming.sequence else 1)
    if target.count(-1) == 1:
        rest = -1
        for length in target:
            rest *= length
        target = [size // rest if length == -1 and rest else length for length in target]
    product = 1
    for length in target:
        product *= length
    if product != size or min(target) < 1:
        raise r.refuse(f"has target_shape={target!r}, and {size} numbers reach it")
    return Plan("Reshape", {"to": ", ".join(map(str, target))}, tuple(target), masks=False)


def _permute(r: Reading) -> Plan:
    r.require_sequence()
    r.choice("dims", None, [2, 1])
    return Plan("Permute", {}, (r.features, r.require_known_time()), masks=False)


def _repeat(r: Reading) -> Plan:
    if r.incoming.sequence:
        raise r.refuse("gets a sequence; expected one vector")
    n = r.number("n", 1 << 20)
    return Plan("RepeatVector", {"n": n}, (n, r.features), masks=False)


def _ends(r: Reading, option: str, sign: int) -> Plan:
    r.require_sequence()
    r.choice("data_format", None, "channels_last", None)
    before, after = r.pair(option)
    time = r.incoming.shape[0]
    if time is not None and time + sign * (before + after) < 1:
        raise r.refuse(f"leaves nothing of {time} time-steps")
    shape = (None if time is None else time + sign * (before + after), r.features)
    return Plan(r.layer.kind, {"before": before, "after": after}, shape, masks=False)


def _input(r: Reading) -> Plan:
    dtype = r.get("dtype", "float32")
    if dtype not in ("float32", "float64", None) and len(r.incoming.shape) > 1:
        raise r.refuse(f"takes {dtype}, to which Keras rounds what comes; only float32 and float64 are served")
    return Plan("InputLayer", {}, r.incoming.shape)


def _nothing(r: Reading) -> Plan:
    return Plan(r.layer.kind, {}, r.incoming.shape)


PLANS: Final[dict[str, Callable[[Reading], Plan]]] = {
    "InputLayer": _input,
    "LSTM": _lstm,
    "CuDNNLSTM": _cudnn_lstm,
    "RNN": _rnn,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "Dense": _dense,
    "Embedding": _embedding,
    "Masking": _masking,
    "Activation": _activation_layer,
    "ReLU": _relu,
    "Softmax": _softmax,
    "BatchNormalization": lambda r: _normalization(r, "BatchNormalization", ("moving_mean", "moving_variance")),
    "LayerNormalization": lambda r: _normalization(r, "LayerNormalization", ()),
    "Rescaling": _rescaling,
    "Conv1D": _conv,
    "MaxPooling1D": _pooling,
    "AveragePooling1D": _pooling,
    "GlobalMaxPooling1D": _global_pooling,
    "GlobalAveragePooling1D": _global_pooling,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat,
    "ZeroPadding1D": lambda r: _ends(r, "padding", 1),
    "Cropping1D": lambda r: _ends(r, "cropping", -1),
    "Dropout": _nothing,
    "SpatialDropout1D": _nothing,
    "AlphaDropout": _nothing,
    "GaussianDropout": _nothing,
    "GaussianNoise": _nothing,
    "ActivityRegularization": _nothing,
}
"""The kinds of layers that are served."""

_POINTWISE: Final = {
    "Activation",
    "Dense",
    "Dropout",
    "GaussianNoise",
    "LayerNormalization",
    "ReLU",
    "Rescaling",
    "Softmax",
}
