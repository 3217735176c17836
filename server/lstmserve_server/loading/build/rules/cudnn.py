"""Converts the weights of CuDNNLSTM, which Keras 2.0.9 to 2.15 stores in cuDNN's layout."""

from __future__ import annotations

import numpy as np

from lstmserve_server.model.types import Array


def to_lstm(weights: dict[str, Array]) -> dict[str, Array]:
    """Returns the weights of the LSTM that computes the same (tf_keras, `_convert_rnn_weights` of hdf5_format.py).

    Args:
        weights: kernel (features, 4 * units), recurrent_kernel (units, 4 * units), bias (8 * units,): for each gate the
            matrices are transposed in place, and there is a bias for each of the two products.
    """
    units = weights["recurrent_kernel"].shape[0]
    kernels = [np.ravel(gate).reshape(units, -1).T for gate in np.split(weights["kernel"], 4, axis=1)]
    recurrent = [gate.T for gate in np.split(weights["recurrent_kernel"], 4, axis=1)]
    both = np.split(weights["bias"], 2)
    converted = {
        "kernel": np.concatenate(kernels, axis=1),
        "recurrent_kernel": np.concatenate(recurrent, axis=1),
        "bias": both[0] + both[1],
    }
    for weight in converted.values():
        weight.flags.writeable = False
    return converted
