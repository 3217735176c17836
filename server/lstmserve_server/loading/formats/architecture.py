"""Finds the configuration of files that hold weights alone: given with them, or inferred from their shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.config import keras_config, keras_v1
from lstmserve_server.loading.config.keras_config import ModelConfig
from lstmserve_server.loading.containers import safe_json
from lstmserve_server.loading.containers.source import ModelSource

_VERSION: Final = re.compile(r"[123](\.\d{1,4}){1,3}([-.+a-z][-.+a-z0-9]{0,40})?")  # such as 2.2.4-tf


class Configured(NamedTuple):
    """A configuration found for weights alone."""

    config: ModelConfig
    version: str
    """The Keras that wrote it; "3" where it is a Keras 3 that does not say which."""
    given: bool
    """Whether someone named it, so that the order of the layers is enough to bind weights to them."""
    remarks: tuple[str, ...] = ()


def find(place: ModelSource, version: str | None = None) -> Configured | None:
    """Returns the configuration that is named for a file or lies alongside it, or None where there is none.

    Args:
        place: the file.
        version: of the Keras that wrote the weights, if they say it.

    Raises:
        UnsupportedModelError: it cannot be read.
    """
    found = place.architecture()
    if found is None:
        return None
    parsed = safe_json.parse(found.text, "the architecture", place.limits)
    stated = checked_version(parsed.get("keras_version") or version or ("3" if _is_of_keras_3(parsed) else None))
    return Configured(parse(parsed, stated, place), stated, found.given)


def required(place: ModelSource, what: str) -> Configured:
    """Returns the configuration that is named for a file or lies alongside it; `what` names the file in the refusal.

    Raises:
        UnsupportedModelError: there is none.
    """
    found = find(place)
    if found is None:
        raise missing(what)
    return found


def missing(what: str) -> UnsupportedModelError:
    """Returns the refusal of weights without a configuration."""
    return UnsupportedModelError(
        f"{what} holds weights without the model's configuration. Give it with --architecture (what model.to_json() "
        "writes), or save the whole model: model.save('model.keras')"
    )


def of_one_lstm(kernel: tuple[int, ...], arrays: int, version: str | None, place: ModelSource) -> Configured:
    """Returns the configuration of a model that is one LSTM, inferred from its weights.

    Args:
        kernel: the shape of its kernel, (features, 4 * units).
        arrays: how many arrays it has: kernel, recurrent kernel and perhaps a bias.
        version: the version of Keras that wrote it, if that is known.
        place: the file.
    """
    old = version is not None and keras_config.is_before_sigmoid(version)
    recurrent = "hard_sigmoid" if old else "sigmoid"
    options = {
        "name": "lstm",
        "units": kernel[1] // 4,
        "activation": "tanh",
        "recurrent_activation": recurrent,
        "use_bias": arrays == 3,  # noqa: PLR2004 - kernel, recurrent kernel, bias
        "batch_input_shape": [None, None, kernel[0]],
    }
    layers = {
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [{"class_name": "LSTM", "config": options}]},
    }
    remark = (
        f"the file does not say which activations its LSTM has; tanh and {recurrent} are assumed, Keras' defaults of "
        "then. If they are others, give the configuration with --architecture"
    )
    stated = version or "3"
    return Configured(parse(layers, stated, place), stated, given=True, remarks=(remark,))


def parse(config: Mapping[str, Any], version: str, place: ModelSource) -> ModelConfig:
    """Returns a configuration that a Keras of some version wrote."""
    return keras_config.parse(keras_v1.to_keras_2(config) if version.startswith("1.") else config, place.limits)


def checked_version(version: Any) -> str:
    """Returns the version of the Keras that wrote a file.

    Raises:
        UnsupportedModelError: it is none that is served.
    """
    if version != "3" and (not isinstance(version, str) or not _VERSION.fullmatch(version)):
        readable = isinstance(version, str) and version.isprintable()
        shown = version[:40] if readable else "of an unknown version"
        message = f"the file was written by Keras {shown}; expected Keras 1, 2 or 3"
        raise UnsupportedModelError(message)
    return str(version)


def _is_of_keras_3(parsed: Mapping[str, Any]) -> bool:
    """Returns whether a configuration is of Keras 3, whose to_json() does not say so: only there inputs have a batch_shape."""
    inner = parsed.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else None
    options = [layer.get("config") for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    return any(isinstance(own, dict) and "batch_shape" in own for own in options)
