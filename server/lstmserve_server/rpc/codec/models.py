"""Encodes the description of a model."""

from __future__ import annotations

from lstmserve.v1 import lstm_pb2
from lstmserve_server.model.layers.base import Stateful
from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.spec import LayerSpec, Shape
from lstmserve_server.runtime.registry import ServedModel


def model_message(served: ServedModel) -> lstm_pb2.Model:
    """Returns the description of a model as a message."""
    model, description = served.model, served.model.description
    names = [layer.name for layer in description.layers for _ in layer.output_shapes]
    return lstm_pb2.Model(
        name=served.name,
        digest=served.digest,
        file=description.source.file,
        format=f"MODEL_FORMAT_{description.source.format.upper().replace('-', '_')}",
        keras_version=description.source.keras_version,
        dtype=f"DATA_TYPE_{model.dtype.name.upper()}",
        input_shape=_shape_message(description.inputs[0].shape),
        output_shape=_shape_message(description.outputs[0].shape),
        layers=[
            lstm_pb2.Layer(
                name=layer.name,
                kind=layer.kind,
                options=layer.shown_options,
                weights=_weight_messages(layer),
                inputs=[names[number] for number in layer.inputs],
            )
            for layer in description.layers
        ],
        state_layout=[_layout_message(layer) for layer in model.stateful_layers],
        parameter_count=description.parameter_count,
        weight_bytes=description.weight_bytes,
        numerics=f"NUMERICS_{model.numerics.name}",
        numerics_fingerprint=served.fingerprint,
        engine=model.engine,
        supports_step=model.causal,
        step_unsupported_reason=model.step_obstacle,
        inputs=[
            lstm_pb2.ModelInput(
                name=item.name,
                shape=_shape_message(item.shape),
                vocabulary=item.vocabulary or 0,
                kind="INPUT_KIND_FEATURES" if item.vocabulary is None else "INPUT_KIND_TOKEN_IDS",
                declared_time_steps=(item.shape[0] or 0) if item.sequence else 0,
            )
            for item in model.inputs
        ],
        outputs=[lstm_pb2.ModelOutput(name=item.name, shape=_shape_message(item.shape)) for item in model.outputs],
        remarks=[*description.source.remarks, *model.engine_remarks],
        waiting_steps=model.waiting_steps,
    )


def _weight_messages(layer: LayerSpec) -> list[lstm_pb2.Weight]:
    """Returns the weights of a layer, and of its parts under their names."""
    own = [lstm_pb2.Weight(name=name, shape=weight.shape) for name, weight in layer.weights.items()]
    below = [
        lstm_pb2.Weight(name=f"{part.name}/{weight.name}", shape=weight.shape)
        for part in layer.parts
        for weight in _weight_messages(part)
    ]
    return own + below


def _layout_message(layer: Stateful) -> lstm_pb2.LayerStateLayout:
    state = layer.zero_state(1)
    if isinstance(state, LSTMState):
        return lstm_pb2.LayerStateLayout(layer=layer.name, units=state.h.shape[1], kind="STATE_KIND_HIDDEN_AND_CELL")
    return lstm_pb2.LayerStateLayout(layer=layer.name, window_shape=state.window.shape[1:], kind="STATE_KIND_WINDOW")


def _shape_message(shape: Shape) -> list[int]:
    return [-1, *(-1 if length is None else length for length in shape)]
