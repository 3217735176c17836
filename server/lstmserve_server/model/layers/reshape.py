"""Layers that move numbers without computing. On a sequence they need all of it."""

from __future__ import annotations

import numpy as np

from lstmserve_server.model.layers.base import Batch, StatelessLayer, require_steps
from lstmserve_server.model.numerics import ComputeConfig
from lstmserve_server.model.spec import LayerSpec


class Flatten(StatelessLayer):
    """One axis out of all but the batch."""

    obstacle = "flattens all time steps, so there is no answer before the last of them is known"

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        pass

    def apply(self, values: Batch) -> Batch:
        """Maps (batch, ...) to (batch, product of ...)."""
        return Batch(values.array.reshape(len(values.array), -1), sequence=False)


class Reshape(StatelessLayer):
    """Other axes for the same numbers."""

    obstacle = "reshapes the sequence, so there is no answer before the whole of it is known"

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:  # noqa: ARG002 - one signature for all
        self._shape = spec.output_shapes[0]

    def apply(self, values: Batch) -> Batch:
        """Maps (batch, ...) to (batch, *shape)."""
        return Batch(values.array.reshape(len(values.array), *self._shape), sequence=len(self._shape) > 1)


class Permute(StatelessLayer):
    """Time for features, and features for time."""

    obstacle = "swaps time and features, so there is no answer before the whole sequence is known"

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        pass

    def apply(self, values: Batch) -> Batch:
        """Maps (batch, time, features) to (batch, features, time)."""
        return Batch(np.ascontiguousarray(values.array.swapaxes(1, 2)), sequence=True)


class RepeatVector(StatelessLayer):
    """A sequence that repeats one vector."""

    obstacle = "repeats the last output of the sequence, so there is no answer before that"

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:  # noqa: ARG002 - one signature for all
        self._n = int(spec.options["n"])  # type: ignore[arg-type]  # the rule made it a number

    def apply(self, values: Batch) -> Batch:
        """Maps (batch, features) to (batch, n, features)."""
        return Batch(np.repeat(values.array[:, None], self._n, axis=1), sequence=True)


class _Ends(StatelessLayer):
    """A layer that adds or removes steps at the ends of a sequence."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:  # noqa: ARG002 - one signature for all
        self._name = spec.name
        self._before, self._after = (int(spec.options[end]) for end in ("before", "after"))  # type: ignore[arg-type]


class ZeroPadding1D(_Ends):
    """Zeros before and after a sequence."""

    obstacle = "adds steps to the ends of the sequence, so it must know them"

    def apply(self, values: Batch) -> Batch:
        """Maps (batch, time, features) to (batch, before + time + after, features)."""
        return Batch(np.pad(values.array, ((0, 0), (self._before, self._after), (0, 0))), sequence=True)


class Cropping1D(_Ends):
    """A sequence without its ends."""

    obstacle = "removes steps from the ends of the sequence, so it must know them"

    def apply(self, values: Batch) -> Batch:
        """Maps (batch, time, features) to (batch, time - before - after, features)."""
        time = values.array.shape[1]
        require_steps(self._name, time, self._before + self._after + 1)
        return Batch(values.array[:, self._before : time - self._after], sequence=True)
