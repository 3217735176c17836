"""The kernel of an LSTM layer: what an engine provides."""

from __future__ import annotations

from typing import Protocol

from lstmserve_server.model.lstm import LSTMState
from lstmserve_server.model.recording import Steps
from lstmserve_server.model.types import Array


class LSTMKernel(Protocol):
    """The mathematics of one LSTM layer, with its weights. It keeps nothing between calls.

    All three ways give the same bytes for the same steps, in exact mode.
    """

    def step(self, x: Array, state: LSTMState) -> LSTMState:
        """Advances every row by one time-step: `lstm.step`."""
        ...

    def forward(self, x: Array, state: LSTMState, record: Steps | None = None) -> tuple[Array, LSTMState]:
        """Advances every row by a sequence: `lstm.forward`."""
        ...

    def forward_masked(
        self, x: Array, state: LSTMState, mask: Array, seen: Array, record: Steps | None = None, *, zero_masked: bool
    ) -> tuple[Array, LSTMState]:
        """Advances every row by the unmasked steps of a sequence: `lstm.forward_masked`."""
        ...
