"""Reasons why kinds of layers are not supported, and what to do. `registry.plan` refuses them."""

from __future__ import annotations

from typing import Final

_OTHER_CELL: Final = "it is not an LSTM: it has other gates and another state, and only LSTM is supported"
_ATTENTION: Final = "it reads the whole sequence at once"
_TWO_DIMENSIONAL: Final = "it works on images, not on time-steps"

REASONS: Final[dict[str, str]] = {
    "Lambda": "it contains custom code, which is never run. Rebuild the model with Keras' own layers",
    "TFOpLambda": "it calls a TensorFlow function that is not supported. Use the equivalent Keras layer",
    "SlicingOpLambda": "it slices a tensor, which is not supported. Use return_sequences=False for the last step, or Cropping1D",
    "TensorFlowOpLayer": "it calls a TensorFlow function that is not supported. Use the equivalent Keras layer",
    "GetItem": "it slices a tensor, which is not supported. Use return_sequences=False for the last step, or Cropping1D",
    "GRU": _OTHER_CELL,
    "CuDNNGRU": _OTHER_CELL,
    "SimpleRNN": _OTHER_CELL,
    "ConvLSTM1D": "it convolves its input and state, so that its h and c are sequences themselves",
    "ConvLSTM2D": "it convolves its input and state, so that its h and c are images",
    "ConvLSTM3D": "it convolves its input and state, so that its h and c are volumes",
    "Attention": _ATTENTION,
    "AdditiveAttention": _ATTENTION,
    "MultiHeadAttention": _ATTENTION,
    "GroupedQueryAttention": _ATTENTION,
    "Conv2D": _TWO_DIMENSIONAL,
    "Conv3D": _TWO_DIMENSIONAL,
    "MaxPooling2D": _TWO_DIMENSIONAL,
    "AveragePooling2D": _TWO_DIMENSIONAL,
    "CategoryEncoding": "it is preprocessing, which belongs to the caller. Cut it off, and send what it would give",
    "StringLookup": "it is preprocessing of text, which belongs to the caller. Cut it off, and send token ids",
    "IntegerLookup": "it is preprocessing, which belongs to the caller. Cut it off, and send token ids",
    "TextVectorization": "it is preprocessing of text, which belongs to the caller. Cut it off, and send token ids",
}
"""By class; other unsupported classes have no reason of their own."""
