"""What every format of file comes to: what it configures, and where its weights are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lstmserve_server.description import Source
    from lstmserve_server.loading.keras_config import LayerConfig, ModelConfig
    from lstmserve_server.loading.plans.base import Block

    Arrays = list[dict[str, NDArray[Any]]]


class Weights(Protocol):
    """Where a format keeps the weights of a layer. Every method raises `ModelRefused` where they are not as expected."""

    def read(self, layer: LayerConfig, blocks: Sequence[Block], dtype: np.dtype[Any]) -> Arrays:
        """Returns the weights of each block of a layer, each of its shape, in `dtype`, finite and read-only."""
        ...

    def features_of(self, layer: LayerConfig) -> int:
        """Returns how many features a layer reads: the length of the first axis of its first weight."""
        ...


@dataclass(frozen=True, slots=True)
class KerasFile:
    """An open file of any format: what it configures, and where its weights are."""

    config: ModelConfig
    weights: Weights
    source: Source
