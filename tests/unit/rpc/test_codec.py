"""Requests: every refusal of Step and Forward with its class, field and exact text; and what valid ones become."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lstmserve import State, tensors
from lstmserve.v1 import lstm_pb2
from lstmserve.v1.lstm_pb2 import ForwardRequest, LayerState, StepRequest, Tensor
from lstmserve_server.core.errors import InvalidRequest, LimitExceeded, NoSuchModel, OtherWeights, WrongForModel
from lstmserve_server.loading import reader
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.model import StepResult
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.rpc.codec.models import model_message
from lstmserve_server.rpc.codec.requests import Codec, RequestLimits
from lstmserve_server.runtime.calls import StepCall
from lstmserve_server.runtime.registry import ServedModel
from tests.support.builders import (
    chain,
    keras_layer,
    lstm_config,
    lstm_layer,
    lstm_weights,
    model,
    numbers,
    registry,
    sequential,
    served,
    weights_file,
    write_zip,
)

SMALL = served("small")
LIMITS = RequestLimits(rows=8, steps=10, message_bytes=6000, sequence_bytes=4000)
CODEC = Codec(registry(SMALL), LIMITS)


def x(*shape, **changes):
    """Returns a tensor of zeros, with changes."""
    message = tensors.encode(np.zeros(shape, np.float32))
    message.MergeFrom(Tensor(**changes))
    return message


def state(batch=2, **changes):
    """Returns a valid state of the small model as a message, with changes to the whole."""
    message = State.zeros(model_message(SMALL), batch).to_message()
    for name, value in changes.items():
        message.ClearField(name)
        message.MergeFrom(lstm_pb2.State(**{name: value}))
    return message


def part(batch=2, units=5, layer="first", **changes):
    """Returns the state of one layer, with changes."""
    whole = {"h": x(batch, units), "c": x(batch, units), "layer": layer} | changes
    return LayerState(**{name: value for name, value in whole.items() if value is not None})


def layers(**changes):
    """Returns the state of both layers, with changes to the first."""
    return state(layers=[part(**changes), part(units=4, layer="second")])


NAN = np.array([[0, 0, 0], [0, np.nan, 0]], np.float32)
BIG_H = np.array([[0, 0, 0, 0, 0], [0, 0, 3.5, 0, 0]], np.float32)

STATE_REFUSALS = [
    (state(model_digest="0" * 64), OtherWeights, "state.model_digest",
     f"the state belongs to a model with the digest '{'0' * 64}'; this one has '{SMALL.digest}'. Start the sequence again, "
     "or ask a server that has the model of the state"),
    (lstm_pb2.State(steps_seen=[1, 2]), InvalidRequest, "state.steps_seen", "got step counts without h and c, expected them together with h and c, or not at all"),
    (state(layers=[part()]), WrongForModel, "state.layers", "got 1; the model has 2 LSTM layers: 'first', 'second'"),
    (layers(layer="second"), WrongForModel, "state.layers[0].layer",
     "got 'second', expected 'first': the layers are 'first', 'second'"),
    (layers(h=None), InvalidRequest, "state.layers[0].h", "got nothing, expected a tensor"),
    (layers(c=None), InvalidRequest, "state.layers[0].c", "got nothing, expected a tensor"),
    (layers(c=Tensor(shape=[2, 5])), InvalidRequest, "state.layers[0].c",
     "neither data nor values is set; expected 10 elements for the shape (2, 5)"),
    (layers(h=x(2)), InvalidRequest, "state.layers[0].h.shape", "got (2), expected (batch, units), here (2, 5)"),
    (layers(h=x(1, 5)), InvalidRequest, "state.layers[0].h.shape", "got 1 rows, expected 2, the number of rows of x"),
    (layers(c=x(2, 4)), WrongForModel, "state.layers[0].c.shape", "got 4 units; the layer has 5"),
    (layers(h=tensors.encode(np.zeros((2, 5)))), WrongForModel, "state.layers[0].h.dtype",
     "got float64; the model computes in float32, and rounding a state would change it"),
    (layers(h=tensors.encode(np.full((2, 5), np.inf, np.float32))), InvalidRequest, "state.layers[0].h",
     "got inf at (0, 0), expected finite numbers"),
    (layers(h=tensors.encode(BIG_H)), WrongForModel, "state.layers[0].h",
     "got 3.5 at (1, 2); this layer computes no h beyond 1. Were h and c exchanged?"),
    (state(steps_seen=[1]), InvalidRequest, "state.steps_seen", "got 1, expected one per row, which is 2, or none"),
    (state(steps_seen=[1, -1]), InvalidRequest, "state.steps_seen[1]", "got -1, expected 0 to 4611686018427387904"),
]  # fmt: skip

X_REFUSALS = [
    ({"x": None}, InvalidRequest, "x", "got nothing, expected a tensor"),
    ({"x": lambda shape: Tensor(dtype=lstm_pb2.DATA_TYPE_FLOAT32, shape=shape, data=bytes(5))}, InvalidRequest, "x.data", None),
    ({"x": lambda shape: Tensor(dtype=9, shape=shape, data=bytes(5))}, InvalidRequest, "x.dtype", None),
    ({"x": lambda shape: Tensor(dtype=lstm_pb2.DATA_TYPE_FLOAT32, shape=[-1, *shape], data=bytes(5))}, InvalidRequest, "x.shape",
     None),
    ({"model": "other"}, NoSuchModel, "model", "no model 'other' is served; expected one of 'small'"),
]  # fmt: skip

STEP_REFUSALS = [
    ({"x": x(3)}, InvalidRequest, "x.shape", "got (3), expected (batch, features)"),
    ({"x": x(0, 3)}, InvalidRequest, "x.shape", "got (0, 3), expected at least 1 of each of (batch, features)"),
    ({"x": x(9, 3)}, LimitExceeded, "x.shape", "got 9 rows, expected at most 8 (--max-rows)"),
    ({"x": x(2, 4)}, WrongForModel, "x.shape", "got 4 features; the model has 3"),
    ({"x": tensors.encode(NAN)}, InvalidRequest, "x", "got nan at (1, 1), expected finite numbers"),
    ({"x": tensors.encode(np.array([[0, 1e39, 0]]))}, WrongForModel, "x",
     "1e+39 at (0, 1) does not fit float32, the type of the model"),
    ({"x": Tensor(shape=[1, 3], values=[1, 2, 1e39])}, InvalidRequest, "x.values", "1e+39 at (0, 2) does not fit float32"),
]  # fmt: skip

FORWARD_REFUSALS = [
    ({"x": x(2, 3)}, InvalidRequest, "x.shape", "got (2, 3), expected (batch, time, features)"),
    ({"x": x(2, 0, 3)}, InvalidRequest, "x.shape", "got (2, 0, 3), expected at least 1 of each of (batch, time, features)"),
    ({"x": x(9, 1, 3)}, LimitExceeded, "x.shape", "got 9 rows, expected at most 8 (--max-rows)"),
    ({"x": x(1, 11, 3)}, LimitExceeded, "x.shape",
     "got 11 time-steps, expected at most 10 (--max-steps). Send the sequence in parts, each with the state that the one "
     "before gave back: the answers are the same"),
    ({"x": x(2, 5, 4)}, WrongForModel, "x.shape", "got 4 features; the model has 3"),
    ({"x": x(2, 5, 3), "lengths": [5]}, InvalidRequest, "lengths", "got 1, expected one per row, which is 2, or none"),
    ({"x": x(2, 5, 3), "lengths": [5, 0]}, InvalidRequest, "lengths[1]", "got 0, expected 1 to 5, the time-steps of x"),
    ({"x": x(2, 5, 3), "lengths": [6, 1]}, InvalidRequest, "lengths[0]", "got 6, expected 1 to 5, the time-steps of x"),
    ({"x": tensors.encode(np.stack([NAN, NAN]))}, InvalidRequest, "x", "got nan at (0, 1, 1), expected finite numbers"),
]  # fmt: skip


def assert_refused(parse, request, kind, field, text):
    """Compares class, field and text of a refusal; a text of None is compared elsewhere."""
    with pytest.raises(kind) as refused:
        parse(request)

    assert kind is type(refused.value)
    assert field == refused.value.field
    if text is not None:
        assert refused.value.text == text


@pytest.mark.parametrize(("message", "kind", "field", "text"), STATE_REFUSALS)
def test_refused_state(message, kind, field, text):
    """Both RPCs refuse a wrong state with the same class, field and text."""
    assert_refused(CODEC.parse_step, StepRequest(x=x(2, 3), state=message), kind, field, text)
    assert_refused(CODEC.parse_forward, ForwardRequest(x=x(2, 5, 3), state=message), kind, field, text)


@pytest.mark.parametrize(("change", "kind", "field", "text"), X_REFUSALS)
def test_refused_x_or_model(change, kind, field, text):
    """Both RPCs refuse a malformed x and an unknown model alike."""
    for parse, request, shape in (
        (CODEC.parse_step, StepRequest, (2, 3)),
        (CODEC.parse_forward, ForwardRequest, (2, 5, 3)),
    ):
        fields = {"x": x(*shape)} | {name: value(shape) if callable(value) else value for name, value in change.items()}
        assert_refused(parse, request(**fields), kind, field, text)


@pytest.mark.parametrize(("fields", "kind", "field", "text"), STEP_REFUSALS)
def test_refused_step(fields, kind, field, text):
    """Step refuses what is wrong with its x."""
    assert_refused(CODEC.parse_step, StepRequest(**fields), kind, field, text)


@pytest.mark.parametrize(("fields", "kind", "field", "text"), FORWARD_REFUSALS)
def test_refused_forward(fields, kind, field, text):
    """Forward refuses what is wrong with its x and lengths."""
    assert_refused(CODEC.parse_forward, ForwardRequest(**fields), kind, field, text)


def test_an_answer_too_long_for_a_message_is_refused_before_it_is_computed():
    """The size of the answer is known beforehand; beyond the limit nothing is computed."""
    wide = Codec(registry(served("wide", model(lstm_layer(3, 300), features=3))), LIMITS)
    text = "the answer would be 11296 bytes long; expected at most 6000 (--max-message-bytes). Send fewer rows. Send the sequence in parts, each with the state that the one before gave back: the answers are the same"

    assert_refused(wide.parse_step, StepRequest(x=x(2, 3)), LimitExceeded, "x.shape", text)
    assert_refused(wide.parse_forward, ForwardRequest(x=x(2, 1, 3)), LimitExceeded, "x.shape", text)
    assert_refused(
        wide.parse_forward, ForwardRequest(x=x(1, 9, 3), all_outputs=True), LimitExceeded, "x.shape",
        "the answer would be 17296 bytes long; expected at most 6000 (--max-message-bytes). Send fewer rows. Send the sequence in parts, each with the state that the one before gave back: the answers are the same",
    )  # fmt: skip


def test_a_sequence_too_large_to_be_read_whole_is_refused():
    """Only a model that goes backwards holds a sequence whole, and has a limit for it."""
    backwards = Codec(registry(served("late", model(lstm_layer(3, 4, go_backwards=True), features=3))), LIMITS)
    text = (
        "the sequences would take 4200 bytes, because the model reads each of them whole; expected at most 4000 (--max-sequence-bytes). "
        "Send fewer rows"
    )

    assert_refused(backwards.parse_forward, ForwardRequest(x=x(3, 10, 3)), LimitExceeded, "x.shape", text)


def test_a_name_is_needed_among_several_models():
    """Without a name among several models the request is refused, with the names."""
    two = Codec(registry(served("b"), served("a")), LIMITS)

    assert_refused(
        two.parse_step, StepRequest(x=x(1, 3)), InvalidRequest, "model",
        "got no name, and 2 models are served; expected one of 'a', 'b'",
    )  # fmt: skip


def test_a_long_list_of_names_is_cut():
    """Among a hundred models the text of a refusal still fits into a status."""
    many = Codec(registry(*(served(f"model-{i:03}" + "x" * 50) for i in range(30))), LIMITS)
    with pytest.raises(NoSuchModel) as refused:
        many.parse_step(StepRequest(model="none", x=x(1, 3)))

    assert refused.value.text.endswith("xxx' and 20 more")
    assert len(refused.value.text) < 1000


def test_bare_h_and_c_may_be_anything_finite():
    """A state without a digest may come from elsewhere, so its h is not held against what the layer can compute."""
    message = state(
        layers=[part(h=tensors.encode(BIG_H), layer=""), part(units=4, layer="")], model_digest="", steps_seen=[]
    )

    call = CODEC.parse_step(StepRequest(x=x(2, 3), state=message))

    assert np.float32(3.5) == call.state[0].h[1, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.int64])
def test_x_of_any_type_becomes_the_models(dtype):
    """X is rounded to the type of the model."""
    call = CODEC.parse_step(StepRequest(x=tensors.encode(np.array([[1, 2, 3]], dtype))))

    assert np.float32 == call.x.dtype
    np.testing.assert_array_equal([[1, 2, 3]], call.x)


def test_what_stands_behind_a_row_is_not_even_looked_at():
    """NaN after a row's own length is not a reason to refuse, and never reaches the mathematics."""
    call = CODEC.parse_forward(ForwardRequest(x=tensors.encode(np.stack([NAN, NAN])), lengths=[1, 1]))

    assert not call.x[:, 1:].any()
    assert call.lengths.tolist() == [1, 1]


@pytest.mark.parametrize("message", [None, lstm_pb2.State(), lstm_pb2.State(model_digest=SMALL.digest)])
def test_a_state_left_out_is_zeros(message):
    """No state, or one without layers, stands for new sequences that have seen no step."""
    call = CODEC.parse_step(StepRequest(x=x(2, 3), state=message))

    assert not any(array.any() for layer in call.state for array in layer)
    assert call.steps_seen.tolist() == [0, 0]


def answer_of(*steps):
    """Returns some answer of the small model to rows that have gone on by so many steps."""
    batch = len(steps)
    states = (LSTMState(numbers(batch, 5), numbers(batch, 5)), LSTMState(numbers(batch, 4), numbers(batch, 4)))
    return StepResult((numbers(batch, 2),), states, np.array(steps))


def test_steps_are_counted_on_per_row():
    """The response counts each row's own steps on from the request, and not at all where it gave none."""
    counted = CODEC.parse_forward(ForwardRequest(x=x(2, 5, 3), lengths=[5, 2], state=state(steps_seen=[7, 0])))
    unknown = CODEC.parse_forward(ForwardRequest(x=x(2, 5, 3), state=state(steps_seen=[])))

    assert list(CODEC.forward_response(counted, answer_of(5, 2), None).state.steps_seen) == [12, 2]
    assert list(CODEC.forward_response(unknown, answer_of(5, 2), None).state.steps_seen) == []


def test_the_response_says_what_it_belongs_to():
    """The state of a response carries digest, fingerprint and layer names."""
    call = CODEC.parse_step(StepRequest(x=x(1, 3)))
    response = CODEC.step_response(call, answer_of(1), None)

    assert (SMALL.digest, SMALL.fingerprint) == (response.state.model_digest, response.state.numerics_fingerprint)
    assert [layer.layer for layer in response.state.layers] == ["first", "second"]
    assert list(response.state.steps_seen) == [1]


def test_the_answer_has_the_form_of_the_question():
    """Who sends plain numbers gets plain numbers, who sends bytes gets bytes."""
    plain = CODEC.step_response(
        CODEC.parse_step(StepRequest(x=Tensor(shape=[1, 3], values=[1, 2, 3]))), answer_of(1), None
    )
    packed = CODEC.step_response(CODEC.parse_step(StepRequest(x=x(1, 3))), answer_of(1), None)

    assert (len(plain.output.values), plain.output.data) == (2, b"")
    assert (len(packed.output.values), len(packed.output.data)) == (0, 8)
    assert len(plain.state.layers[0].h.values) == 5


def test_the_description_of_a_model():
    """GetModel tells everything a caller needs to build requests."""
    message = model_message(SMALL)

    assert (
        message.name,
        message.file,
        message.format,
        message.keras_version,
    ) == ("small", "made.keras", lstm_pb2.MODEL_FORMAT_KERAS_ZIP, "3.15.1")
    assert (list(message.input_shape), list(message.output_shape)) == ([-1, -1, 3], [-1, 2])
    assert [(layout.layer, layout.units) for layout in message.state_layout] == [("first", 5), ("second", 4)]
    assert (
        message.parameter_count
        == message.weight_bytes // 4
        == (3 * 20 + 5 * 20 + 20) + (5 * 16 + 4 * 16 + 16) + (8 + 2)
    )
    assert (message.dtype, message.numerics) == (lstm_pb2.DATA_TYPE_FLOAT32, lstm_pb2.NUMERICS_EXACT)
    assert (message.supports_step, message.step_unsupported_reason, message.waiting_steps) == (True, "", 0)
    assert [(item.name, list(item.shape)) for item in message.inputs] == [("input", [-1, -1, 3])]
    assert [(item.name, list(item.shape)) for item in message.outputs] == [("dense", [-1, 2])]
    assert [list(layer.inputs) for layer in message.layers] == [[], ["input"], ["first"], ["second"]]
    assert [(weight.name, list(weight.shape)) for weight in message.layers[1].weights] == [
        ("kernel", [3, 20]),
        ("recurrent_kernel", [5, 20]),
        ("bias", [20]),
    ]
    assert message.layers[1].options["recurrent_activation"] == "sigmoid"


def served_on_ids():
    """Returns a model that reads token ids 0 to 6, of which 0 is passed over."""
    embedding = LayerSpec(
        "words",
        "Embedding",
        {"input_dim": 7, "output_dim": 3, "mask_zero": True},
        {"embeddings": numbers(7, 3)},
        ((None, 3),),
    )
    description = chain(embedding, lstm_layer(3, 4), vocabulary=7)
    return ServedModel.prepare("ids", description, Numerics.EXACT)


IDS = Codec(registry(served_on_ids()), LIMITS)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1)])
def test_token_ids_come_with_or_without_an_axis_of_their_own(shape):
    """Token ids are one feature, whose axis may be left out, as Keras does."""
    call = IDS.parse_forward(ForwardRequest(x=tensors.encode(np.arange(6, dtype=np.int64).reshape(shape))))

    assert call.x.shape == (2, 3, 1)
    assert list(model_message(call.served).input_shape) == [-1, -1]


@pytest.mark.parametrize(("token", "text"), [(7, "7"), (-1, "-1"), (0.5, "0.5")])
def test_unknown_token_ids_are_refused(token, text):
    """A token id that the model does not know is refused before it is looked up."""
    assert_refused(
        IDS.parse_step, StepRequest(x=tensors.encode(np.array([3, token]))), WrongForModel, "x",
        f"got {text} at (1, 0), expected token ids, integers from 0 to 6",
    )  # fmt: skip


def test_masked_steps_do_not_count():
    """The steps of a state are those that no mask passed over, so that a new sequence is known as one however it is cut."""
    model, ids = served_on_ids().model, np.array([[0, 3, 0, 5], [0, 0, 0, 0]], np.float32)[..., None]
    whole = model.forward((ids,), model.zero_state(2), all_outputs=True)
    state, seen = model.zero_state(2), np.zeros(2, bool)
    for t in range(4):
        call = StepCall(served_on_ids(), (ids[:, t],), state, seen.astype(np.int64), as_values=False)
        (output,), state, steps = model.step(call.x, call.state, call.seen)
        seen |= steps > 0
        assert whole.output[:, t].tobytes() == output.tobytes()

    assert whole.steps.tolist() == [2, 0]
    assert not whole.output[1].any()
    assert whole.output[0, 1].tobytes() == whole.output[0, 2].tobytes()


# What must not be refused: exactly at each limit, and one beyond


@pytest.mark.parametrize(
    ("limit", "good", "bad", "field"),
    [
        ("rows", StepRequest(x=x(8, 3)), StepRequest(x=x(9, 3)), "x.shape"),
        ("rows", ForwardRequest(x=x(8, 2, 3)), ForwardRequest(x=x(9, 2, 3)), "x.shape"),
        ("steps", ForwardRequest(x=x(1, 10, 3)), ForwardRequest(x=x(1, 11, 3)), "x.shape"),
    ],
    ids=["rows of Step", "rows of Forward", "time-steps"],
)
def test_a_request_may_be_as_large_as_its_limit(limit, good, bad, field):
    """What is exactly at a limit is taken; one more is refused, with the field."""

    def parse(request):
        return CODEC.parse_step(request) if isinstance(request, StepRequest) else CODEC.parse_forward(request)

    assert len(parse(good).x) == good.x.shape[0]
    with pytest.raises(LimitExceeded) as refused:
        parse(bad)
    assert refused.value.field == field
    assert f"--max-{limit}" in refused.value.text


def test_an_answer_in_plain_numbers_is_twice_as_long():
    """A request with `values` is answered with values, of eight bytes each: fewer of them fit into a message."""
    wide = ServedModel.prepare("wide", chain(lstm_layer(3, 40, return_sequences=True), features=3), Numerics.EXACT)
    size = 3 * (wide.model.answer_size(10)) * 4
    codec = Codec(
        registry(wide), RequestLimits(rows=8, steps=10, message_bytes=2 * size - 1000, sequence_bytes=1 << 30)
    )
    as_bytes = ForwardRequest(x=x(3, 10, 3), all_outputs=True)
    as_values = ForwardRequest(x=tensors.encode(np.zeros((3, 10, 3)), as_values=True), all_outputs=True)

    assert codec.parse_forward(as_bytes).all_outputs
    with pytest.raises(LimitExceeded, match="--max-message-bytes"):
        codec.parse_forward(as_values)


@pytest.mark.parametrize(("time", "served"), [(100, True), (101, False)])
def test_a_sequence_may_need_as_much_memory_as_the_limit(time, served):
    """Of a model that needs its whole sequence, the memory for it is bounded, and the bound itself is allowed."""
    backwards = ServedModel.prepare("late", chain(lstm_layer(3, 2, go_backwards=True), features=3), Numerics.EXACT)
    limits = RequestLimits(
        rows=8, steps=1000, message_bytes=1 << 20, sequence_bytes=2 * 100 * backwards.model.bytes_per_step
    )
    codec = Codec(registry(backwards), limits)
    request = ForwardRequest(x=x(2, time, 3))

    if served:
        assert codec.parse_forward(request).time == time
    else:
        with pytest.raises(LimitExceeded, match="--max-sequence-bytes"):
            codec.parse_forward(request)


def fixed_time(time=4):
    """Returns a model whose sequences have a fixed length, and whose output has one too."""
    source, layer = chain(lstm_layer(3, 2, return_sequences=True), features=3).layers
    flat = LayerSpec("flat", "Flatten", {"time": time}, {}, ((time * 2,),), inputs=(1,))
    again = LayerSpec("again", "Reshape", {"to": f"{time}, 2"}, {}, ((time, 2),), inputs=(2,))
    made = chain(lstm_layer(3, 2, return_sequences=True), features=3)
    layers_ = (
        dataclasses.replace(source, output_shapes=((time, 3),)),
        dataclasses.replace(layer, output_shapes=((time, 2),)),
        flat,
        again,
    )
    output = dataclasses.replace(made.outputs[0], name="again", shape=(time, 2), value=3)
    item = dataclasses.replace(made.inputs[0], shape=(time, 3))
    return ServedModel.prepare(
        "fixed", dataclasses.replace(made, layers=layers_, inputs=(item,), outputs=(output,)), Numerics.EXACT
    )


def test_a_model_of_a_fixed_length_takes_that_length_alone():
    """Of the sequence and of every row in it."""
    codec = Codec(registry(fixed_time()), LIMITS)

    assert codec.parse_forward(ForwardRequest(x=x(2, 4, 3))).time == 4
    assert codec.parse_forward(ForwardRequest(x=x(2, 4, 3), lengths=[4, 4])).time == 4
    for request, field in (
        (ForwardRequest(x=x(2, 5, 3)), "x.shape"),
        (ForwardRequest(x=x(2, 4, 3), lengths=[4, 3]), r"lengths\[1\]"),
    ):
        with pytest.raises(WrongForModel, match=field):
            codec.parse_forward(request)


def test_features_that_have_axes_of_their_own_are_told_whole(tmp_path):
    """One number says enough only where there is one axis."""
    pictures = keras_layer("InputLayer", "pictures", batch_shape=[None, None, 2, 3])
    flat = keras_layer("TimeDistributed", "flat", layer=keras_layer("Flatten", "flatten"))
    weights = weights_file({"layers/lstm/cell/vars": lstm_weights(6)})
    path = write_zip(tmp_path / "m.keras", sequential(pictures, flat, lstm_config()), weights)
    codec = Codec(registry(ServedModel.prepare("pictures", reader.load(path), Numerics.EXACT)), LIMITS)

    assert codec.parse_step(StepRequest(x=x(2, 2, 3))).x.shape == (2, 2, 3)
    with pytest.raises(WrongForModel) as refused:
        codec.parse_step(StepRequest(x=x(2, 3, 2)))
    assert refused.value.text == "got (3, 2) for each time-step; the model has (2, 3)"


def test_an_output_of_a_fixed_length_counts_with_all_of_it():
    """Even where only the last step is asked for, such an output has them all."""
    served_ = fixed_time()
    assert served_.model.answer_size(4) >= served_.model.answer_size(1)
    assert served_.model.answer_size(4) - served_.model._state_size == 8


def test_an_output_that_is_wanted_twice_is_encoded_once():
    """Or a message of a few bytes would be answered with as many outputs as it has names."""
    from lstmserve_server.rpc.streams.codec import StreamCodec  # noqa: PLC0415 - for this alone

    opening = StreamCodec(CODEC).parse_open(lstm_pb2.StreamOpen(row_count=1, outputs=["dense"] * 500))
    assert opening.outputs == (0,)
