"""Translates configurations of Keras 1: the same layers and options under other names."""

from __future__ import annotations

from typing import Any, Final

_RENAMED: Final = {
    "LSTM": {"output_dim": "units", "inner_activation": "recurrent_activation"},
    "Dense": {"output_dim": "units", "bias": "use_bias"},
    "Dropout": {"p": "rate"},
}
DROPPED: Final = frozenset(
    "input_dtype init inner_init forget_bias_init W_regularizer U_regularizer b_regularizer W_constraint b_constraint "
    "dropout_W dropout_U consume_less".split()
)  # how weights began and were trained, and how Keras scheduled the arithmetic


def to_keras_2(config: Any) -> Any:
    """Returns a configuration of Keras 1 in the words of Keras 2; whatever it does not know stays as it is."""
    if isinstance(config, list):
        return [to_keras_2(item) for item in config]
    if not isinstance(config, dict):
        return config
    renamed = {key: to_keras_2(value) for key, value in config.items()}
    kind, options = renamed.get("class_name"), renamed.get("config")
    if isinstance(kind, str) and isinstance(options, dict):
        names = _RENAMED.get(kind, {})
        renamed["config"] = {names.get(key, key): value for key, value in options.items() if key not in DROPPED}
    return renamed
