"""The reference: `lstm`, with the options and weights of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lstmserve_server import lstm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lstmserve_server.lstm import LSTMSpec, LSTMState, LSTMWeights
    from lstmserve_server.numerics import Product
    from lstmserve_server.trace import Steps

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class NumpyCell:
    """An LSTM layer in NumPy (`Cell`)."""

    spec: LSTMSpec
    weights: LSTMWeights
    product: Product

    def step(self, x: Array, state: LSTMState) -> LSTMState:
        """Advances every row by one time-step."""
        return lstm.step(self.spec, self.weights, self.product, x, state)

    def forward(self, x: Array, state: LSTMState, record: Steps | None = None) -> tuple[Array, LSTMState]:
        """Advances every row by a sequence."""
        return lstm.forward(self.spec, self.weights, self.product, x, state, record)

    def forward_masked(
        self, x: Array, state: LSTMState, mask: Array, seen: Array, record: Steps | None = None, *, zero_masked: bool
    ) -> tuple[Array, LSTMState]:
        """Advances every row by the steps of a sequence that a mask does not pass over."""
        return lstm.forward_masked(
            self.spec, self.weights, self.product, x, state, mask, seen, record, zero_masked=zero_masked
        )
