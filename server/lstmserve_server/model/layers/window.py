"""Layers that read several time steps at once: convolution and pooling.

In a model that can be stepped, such a layer keeps the steps that its next window needs, and has a new value only at steps where a
window ends: Keras would give no other if the sequence ended there. In any other model it is given the whole sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lstmserve_server.model.layers.base import (
    Batch,
    Layer,
    LayerInputs,
    LayerOutputs,
    LayerState,
    WindowState,
    require_steps,
)
from lstmserve_server.model.numerics import ComputeConfig
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.model.types import Array


class _Window(Layer):
    """A layer whose output at a place depends on a window of steps around it."""

    whole_without_state = True

    fill: float = 0
    """What stands for the steps beyond the ends of a sequence."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        self.name = spec.name
        self._size = int(spec.options["window"])  # type: ignore[arg-type]  # the rule made these numbers
        self._stride = int(spec.options["strides"])  # type: ignore[arg-type]
        self._dilation = int(spec.options.get("dilation_rate", 1))  # type: ignore[arg-type]
        self._padding = spec.texts["padding"]
        kernel = spec.weights.get("kernel")  # (window, features, filters); pooling keeps the features
        self._others = int(spec.output_shapes[0][-1] or 0)
        self._features = self._others if kernel is None else kernel.shape[1]
        self._compute_config = compute_config
        self._reach = self._dilation * (self._size - 1) + 1
        self._wait = self._reach - 1 if self._padding == "valid" else 0
        self.carried = (self,)
        if self._wait or self._stride > 1:
            self.stride_pattern = (self._wait, self._stride)
        if self._padding == "same" and (self._reach > 1 or self._stride > 1):
            self.obstacle = "looks at later time-steps too (padding='same')"

    def zero_state(self, batch: int) -> WindowState:
        """Returns the state of `batch` new sequences: a causal convolution sees zeros before them."""
        window = np.zeros((batch, self._reach - 1, self._features), self._compute_config.dtype)
        return WindowState(window, np.zeros(batch, np.int64))

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:
        """Maps (batch, time, features) to (batch, places, others), or to (batch, time, others) with what is fresh of them."""
        values = given.values[0]
        if not before:
            return (self._whole(values.array),), ()
        state = WindowState(*before[0])
        if values.fresh is None or values.fresh.all():
            made, after = self._stream(values.array, state)
        else:
            made, after = self._stream_some(values.array, values.fresh, state)
        return (made,), [after]

    def look(self, windows: Array, counts: Array) -> Array:
        """Computes the layer for windows.

        Args:
            windows: (batch, places, window, features)
            counts: how many steps of a window are steps of the sequence, (places, 1).

        Returns:
            (batch, places, others)
        """
        raise NotImplementedError

    def _whole(self, x: Array) -> Batch:
        """Answers a sequence from end to end, padded as Keras does (TensorFlow's rule for "same")."""
        time, before, after = x.shape[1], 0, 0
        if self._padding == "valid":
            require_steps(self.name, time, self._reach)
        elif self._padding == "causal":
            before = self._reach - 1
        else:
            places = -(-time // self._stride)
            around = max((places - 1) * self._stride + self._reach - time, 0)
            before, after = around // 2, around - around // 2
        ends = ((before, after), (0, 0))
        padded = np.pad(x, ((0, 0), *ends), constant_values=self.fill)
        real = np.pad(np.ones((1, time, 1), x.dtype), ((0, 0), *ends))
        counts = self._windows(real, slice(None, None, self._stride)).sum(axis=2)[0]
        return Batch(self.look(self._windows(padded, slice(None, None, self._stride)), counts), sequence=True)

    def _stream(self, x: Array, state: WindowState) -> tuple[Batch, WindowState]:
        """Answers the next steps of sequences, each of which has a new value."""
        batch, time = x.shape[:2]
        known = np.concatenate([state.window, x], axis=1)
        reached = state.steps[:, None] + np.arange(1, time + 1)
        ends = (reached > self._wait) & ((reached - 1 - self._wait) % self._stride == 0)
        places = np.flatnonzero(ends.any(axis=0))
        looked = self.look(self._windows(known, places), np.full((1, 1), self._size, x.dtype))
        array = np.zeros((batch, time, self._others), x.dtype)
        array[:, places] = looked
        after = WindowState(known[:, time:], reached[:, -1])
        if ends.all():
            return Batch(array, sequence=True), after
        return Batch(array, sequence=True, fresh=ends, ready=reached > self._wait), after

    def _stream_some(self, x: Array, fresh: Array, state: WindowState) -> tuple[Batch, WindowState]:
        """Answers the next steps of sequences in which some steps have no new value."""
        ready = np.repeat((state.steps > self._wait)[:, None], x.shape[1], axis=1)
        ends, array = np.zeros_like(fresh), np.zeros((*x.shape[:2], self._others), x.dtype)
        window, steps = state.window.copy(), state.steps.copy()
        for pattern in np.unique(fresh, axis=0):
            rows, times = np.flatnonzero((fresh == pattern).all(axis=1)), np.flatnonzero(pattern)
            if not times.size:
                continue
            made, after = self._stream(x[np.ix_(rows, times)], WindowState(window[rows], steps[rows]))
            window[rows], steps[rows] = after
            array[np.ix_(rows, times)] = made.array
            ends[np.ix_(rows, times)] = True if made.fresh is None else made.fresh
            ready[rows] |= np.maximum.accumulate(_at(made, times, ready[rows].shape), axis=1)
        return Batch(array, sequence=True, fresh=ends, ready=ready), WindowState(window, steps)

    def _windows(self, x: Array, places: Any) -> Array:
        """Returns the windows that begin at some places, (batch, places, window, features)."""
        windows = np.lib.stride_tricks.sliding_window_view(x, self._reach, axis=1)
        return windows[:, places, :, :: self._dilation].swapaxes(2, 3)


def _at(made: Batch, times: Array, shape: tuple[int, ...]) -> Array:
    """Returns the positions of ready values among all time steps."""
    ready = np.zeros(shape, bool)
    ready[:, times] = True if made.ready is None else made.ready
    return ready


class Conv1D(_Window):
    """`activation(window W + b)`, each window a row of its own."""

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        super().__init__(spec, compute_config)
        kernel = spec.weights["kernel"]  # (window, features, filters)
        self._kernel = kernel.reshape(-1, kernel.shape[2])
        self._bias = spec.weights.get("bias")  # (filters,)
        self._activation = spec.activations["activation"]

    def look(self, windows: Array, counts: Array) -> Array:  # noqa: ARG002 - zeros beyond the ends add nothing
        """Maps (batch, places, window, features) to (batch, places, filters)."""
        rows = np.ascontiguousarray(windows).reshape(*windows.shape[:2], len(self._kernel))
        y = np.empty((*rows.shape[:2], self._kernel.shape[1]), rows.dtype)
        self._compute_config.matmul(rows, self._kernel, y)
        if self._bias is not None:
            np.add(y, self._bias, out=y)
        self._activation.apply(y)
        return y


class MaxPooling1D(_Window):
    """The largest number of each window."""

    fill = -np.inf

    def look(self, windows: Array, counts: Array) -> Array:  # noqa: ARG002 - nothing is smaller than what is beyond the ends
        """Maps (batch, places, window, features) to (batch, places, features)."""
        y = windows[:, :, 0].copy()
        for step in range(1, windows.shape[2]):
            np.maximum(y, windows[:, :, step], out=y)
        return y


class AveragePooling1D(_Window):
    """The mean of each window; of what is padded, only the real steps count."""

    def look(self, windows: Array, counts: Array) -> Array:
        """Maps (batch, places, window, features) to (batch, places, features)."""
        y = windows[:, :, 0].copy()
        for step in range(
            1, windows.shape[2]
        ):  # one after the other, so that the bytes do not depend on how many places
            np.add(y, windows[:, :, step], out=y)
        np.divide(y, counts, out=y)
        return y


class _Global(Layer):
    """A layer that reduces a sequence: after every step it has the result so far."""

    returns_last_only = True
    whole_without_state = True

    def __init__(self, spec: LayerSpec, compute_config: ComputeConfig) -> None:
        self.name = spec.name
        self._keepdims = bool(spec.options["keepdims"])
        self._features = int(spec.output_shapes[0][-1] or 0)
        self._compute_config = compute_config
        self.carried = (self,)
        if self._keepdims:
            self.obstacle = "reduces the sequence to one step (keepdims)"

    def zero_state(self, batch: int) -> WindowState:
        """Returns the state of `batch` new sequences."""
        return WindowState(np.zeros((batch, 1, self._features), self._compute_config.dtype), np.zeros(batch, np.int64))

    def run(self, given: LayerInputs, before: Sequence[LayerState]) -> LayerOutputs:
        """Maps (batch, time, features) to (batch, features), or to (batch, time, features) where every step is wanted."""
        values = given.values[0]
        state = WindowState(*(before[0] if before else self.zero_state(len(values.array))))
        counted = np.ones(values.array.shape[:2], bool) if values.fresh is None else values.fresh
        if values.mask is not None:
            counted = self.counted(values.mask)
        reached = state.steps[:, None] + np.cumsum(counted, axis=1)
        gathered = self.gather(state, np.where(counted[..., None], values.array, self.nothing))
        window = np.where((reached[:, -1] > 0)[:, None, None], gathered[:, -1:], gathered.dtype.type(0))
        after = WindowState(window, reached[:, -1])
        array = self.answer(gathered, reached)
        made = Batch(array, sequence=True, ready=reached > 0 if values.ready is None else values.ready)
        if not given.every:
            made = made.last()
        if self._keepdims:
            made = Batch(made.array[:, None], sequence=True)
        return (made,), [after] if before else ()

    nothing: float = 0
    """What leaves unchanged what is gathered."""

    def counted(self, mask: Array) -> Array:
        """Returns a mask of the time steps that count, (batch, time)."""
        raise NotImplementedError

    def gather(self, state: WindowState, x: Array) -> Array:
        """Returns the accumulated values after each time step, (batch, time, features)."""
        raise NotImplementedError

    def answer(self, gathered: Array, reached: Array) -> Array:
        """Returns the result after each time step, (batch, time, features), from the accumulated values."""
        raise NotImplementedError


class GlobalMaxPooling1D(_Global):
    """The largest number of the whole sequence, regardless of the mask."""

    nothing = -np.inf

    def counted(self, mask: Array) -> Array:
        """Returns a mask in which all steps count."""
        return np.ones_like(mask)

    def gather(self, state: WindowState, x: Array) -> Array:
        """Returns the largest numbers so far."""
        before = np.where((state.steps > 0)[:, None, None], state.window, self._compute_config.dtype.type(-np.inf))
        largest: Array = np.maximum.accumulate(np.concatenate([before, x], axis=1), axis=1)[:, 1:]
        return largest

    def answer(self, gathered: Array, reached: Array) -> Array:  # noqa: ARG002 - it does not matter of how many
        """Returns the largest numbers."""
        return gathered


class GlobalAveragePooling1D(_Global):
    """The mean over the unmasked steps of the whole sequence."""

    def counted(self, mask: Array) -> Array:
        """Returns a mask in which the unmasked steps count."""
        return mask

    def gather(self, state: WindowState, x: Array) -> Array:
        """Returns the sums so far."""
        sums: Array = np.add.accumulate(np.concatenate([state.window, x], axis=1), axis=1)[:, 1:]
        return sums

    def answer(self, gathered: Array, reached: Array) -> Array:
        """Returns the means."""
        mean: Array = gathered / reached[..., None].astype(gathered.dtype)
        return mean
