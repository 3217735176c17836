"""The common result of all formats: a configuration and a source of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading.build.rules.base import WeightBlock
from lstmserve_server.loading.config.keras_config import LayerConfig, ModelConfig
from lstmserve_server.model.spec import Source

Arrays = list[dict[str, NDArray[Any]]]

_Listed = TypeVar("_Listed")


class WeightSource(Protocol):
    """The weights of a file, by layer. Every method raises `UnsupportedModelError` if they are not as expected."""

    def read(self, layer: LayerConfig, blocks: Sequence[WeightBlock], dtype: np.dtype[Any]) -> Arrays:
        """Returns the weights of each block of a layer, each of its shape, in `dtype`, finite and read-only."""
        ...

    def features_of(self, layer: LayerConfig) -> int:
        """Returns the number of input features of a layer: the first axis of its first weight."""
        ...


@dataclass(frozen=True, slots=True)
class KerasFile:
    """An open file of any format: its configuration and its weights."""

    config: ModelConfig
    weights: WeightSource
    source: Source

    whole: Mapping[str, Any] | None = None
    """The configuration as the file has it, of a format that Keras itself loads; else None."""


def read_listed(
    listed: Iterable[_Listed], blocks: Sequence[WeightBlock], read: Callable[[_Listed, tuple[int, ...]], NDArray[Any]]
) -> Arrays:
    """Returns the weights of each block of a layer whose weights are listed in order; `read` returns one array."""
    rest = iter(listed)
    return [
        {
            weight: read(item, shape)
            for (weight, shape), item in zip(block.shapes.items(), rest, strict=False)
            if weight not in block.idle
        }
        for block in blocks
    ]


def features_of_kernel(layer: LayerConfig, shape: tuple[int, ...]) -> int:
    """Returns the number of input features of a layer, given the shape of its first weight; () if it has no weights.

    Raises:
        UnsupportedModelError: the shape is not that of a kernel.
    """
    if len(shape) < 2:  # noqa: PLR2004 - a kernel has at least two axes
        message = f"{layer} has no kernel in the file, and the model does not declare how many features it reads"
        raise UnsupportedModelError(message)
    return shape[-2]
