"""The description of a model as clients get it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lstmserve.v1 import lstm_pb2

if TYPE_CHECKING:
    from lstmserve_server.description import Shape
    from lstmserve_server.registry import ServedModel


def model_message(served: ServedModel) -> lstm_pb2.Model:
    """Returns the description of a model as a message."""
    model, description = served.model, served.model.description
    return lstm_pb2.Model(
        name=served.name,
        digest=served.digest,
        file=description.source.file,
        format=description.source.format,
        keras_version=description.source.keras_version,
        dtype=f"D_TYPE_{model.dtype.name.upper()}",
        input_shape=_shape_message(description.input_shape),
        output_shape=_shape_message(description.output_shape),
        layers=[
            lstm_pb2.Layer(
                name=layer.name,
                kind=layer.kind,
                options=layer.shown_options,
                weights=[
                    lstm_pb2.Weight(name=name if part is layer else f"{part.name}/{name}", shape=weight.shape)
                    for part in (layer, *layer.parts)
                    for name, weight in part.weights.items()
                ],
            )
            for layer in description.layers
        ],
        state_layout=[lstm_pb2.LayerStateLayout(layer=layer.name, units=layer.spec.units) for layer in model.lstms],
        parameter_count=description.parameter_count,
        weight_bytes=description.weight_bytes,
        numerics=f"NUMERICS_{model.numerics.name}",
        numerics_fingerprint=served.fingerprint,
        step_possible=model.causal,
        step_obstacle=model.step_obstacle,
    )


def _shape_message(shape: Shape) -> list[int]:
    return [-1, *(-1 if length is None else length for length in shape)]
