"""The reference kernel: `lstm` with the options and weights of a layer."""

from __future__ import annotations

import threading

from lstmserve_server.model import lstm
from lstmserve_server.model.lstm import LSTMSpec, LSTMState, LSTMWeights
from lstmserve_server.model.numerics import Product
from lstmserve_server.model.recording import Steps
from lstmserve_server.model.types import Array

_MAX_KEPT_ELEMENTS = 1 << 15  # rows times units: a cell of two megabytes


class _Kept(threading.local):
    """Workspace that a thread keeps between steps: memory, never results."""

    cell: lstm.Workspace | None = None


class NumpyKernel:
    """An LSTM layer in NumPy: an `LSTMKernel`."""

    def __init__(self, spec: LSTMSpec, weights: LSTMWeights, matmul: Product) -> None:
        self.spec, self.weights, self.matmul = spec, weights, matmul
        self._kept = _Kept()

    def step(self, x: Array, state: LSTMState) -> LSTMState:
        """Advances every row by one time-step."""
        return self._cell(len(x)).step(x, state)

    def forward(self, x: Array, state: LSTMState, record: Steps | None = None) -> tuple[Array, LSTMState]:
        """Advances every row by a sequence."""
        return lstm.forward(self.spec, self.weights, self.matmul, x, state, record)

    def forward_masked(
        self, x: Array, state: LSTMState, mask: Array, seen: Array, record: Steps | None = None, *, zero_masked: bool
    ) -> tuple[Array, LSTMState]:
        """Advances every row by the unmasked steps of a sequence."""
        return lstm.forward_masked(
            self.spec, self.weights, self.matmul, x, state, mask, seen, record, zero_masked=zero_masked
        )

    def _cell(self, batch: int) -> lstm.Workspace:
        """Returns the workspace of this thread if it still fits, or a new one."""
        cell = self._kept.cell
        if cell is None or cell.batch != batch or cell.weights is not self.weights or cell.spec is not self.spec:
            cell = lstm.Workspace(self.spec, self.weights, self.matmul, batch)
            if batch * self.spec.units <= _MAX_KEPT_ELEMENTS:
                self._kept.cell = cell
        return cell
