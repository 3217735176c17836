"""Teacher-forced comparison: every layer from our inputs, every time step from our h and c."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.spec import LayerSpec
from lstmserve_server.model.types import Array
from lstmserve_server.shadow.captured_call import CapturedCall, LSTMSteps, Piece, Value
from lstmserve_server.shadow.compare import Spot, Tolerances
from lstmserve_server.shadow.reference import free_running
from lstmserve_server.shadow.reference.free_running import does_nothing, merged
from lstmserve_server.shadow.reference.keras_model import LSTMWitness, ReferenceModel
from lstmserve_server.shadow.reference.outlier_units import UnitStats
from lstmserve_server.shadow.reference.verdict import Findings, closer

_MOST_ROWS: Final = 1 << 14  # steps that are computed at once, so that memory stays bounded
_ROUNDINGS: Final = 4  # units of rounding, of the sums' size, that two ways of adding up may be apart
_UNSTEADY: Final = ("LayerNormalization",)  # layers that may divide by next to nothing


class TeacherForcedComparison:
    """Compares calls of one model with its reference model."""

    def __init__(self, model: RecurrentModel, reference_model: ReferenceModel, tolerances: Tolerances) -> None:
        self._model = model
        self._description = model.description
        self._reference_model = reference_model
        self._tolerances = tolerances
        self._eps = float(np.finfo(model.dtype).eps)
        self._tallies: dict[tuple[int, int, str], UnitStats] = {}
        self._again = False
        self._first_values = [0]
        for layer in self._description.layers:
            self._first_values.append(self._first_values[-1] + len(layer.output_shapes))
        # A layer that remembers a window cannot be asked alone, as Keras has no such state.
        self._windows = {place for place, _ in model.stateful_indices} - reference_model.lstms.keys()

    def examine(self, case: CapturedCall, *, detailed: bool = False, again: bool = False) -> tuple[Findings, Findings]:
        """Returns the findings, teacher-forced and free-running.

        Args:
            case: the call.
            detailed: whether to keep every step.
            again: whether it was compared before, so that its steps do not count again for the outlier units.
        """
        self._again = again
        forced, free = Findings(), Findings()
        runner = free_running.FreeRunner(self._description, self._reference_model, self._windows)
        for piece in case.pieces:
            references = self._forced(case, piece, forced, detailed=detailed)
            self._outputs(case, piece, references, forced, note=True)
            self._compare_free(case, piece, runner, free, detailed=detailed)
        free.partial_reasons = runner.unknown
        return forced, free

    def explained(self, spot: Spot, number: int, given: tuple[Array, Array, Array]) -> tuple[float, Array]:
        """Returns the float64 value at a location, and the reference gates of its step, (1, 4, units)."""
        lstm, (x, h, c) = self._reference_model.lstms[spot.place][number], given
        exact = dict(zip("hc", lstm.exactly(x, h, c), strict=True))[spot.array]
        return float(exact[0, spot.unit]), lstm.gates(x, h)

    def _forced(self, case: CapturedCall, piece: Piece, found: Findings, *, detailed: bool) -> dict[int, Array]:
        """Compares all layers; returns the reference values of the model's outputs."""
        references: dict[int, Array] = {}
        ends = {output.value for output in self._description.outputs}
        for place, layer in enumerate(self._description.layers):
            number = self._first_values[place]
            if place in self._reference_model.lstms:
                made = self._recurrent(case, piece, place, found, detailed=detailed)
            elif does_nothing(layer):
                made = references.get(layer.inputs[0]) if layer.inputs else None
            else:
                made = self._stateless(piece, place, found)
            if made is None:
                continue
            references[number] = made
            if number not in ends and not does_nothing(layer) and not _is_h(layer, piece, place, number):
                self._compare(piece, place, piece.values[number], made, found)
        return references

    def _recurrent(
        self, case: CapturedCall, piece: Piece, place: int, found: Findings, *, detailed: bool
    ) -> Array | None:
        """Compares the LSTMs of a layer; returns its reference value, None where a mask hides it."""
        layer = self._description.layers[place]
        x = piece.values[layer.inputs[0]].array
        sequences = []
        for number, (part, steps) in enumerate(zip(layer.parts or (layer,), piece.steps[place], strict=True)):
            backwards = bool(part.options["go_backwards"])
            given = _Given(
                piece, place, number, part, steps, np.ascontiguousarray(x[:, ::-1]) if backwards else x, backwards
            )
            sequences.append(self._steps(case, given, found, detailed=detailed))
        if any(
            steps.mask is not None for steps in piece.steps[place]
        ):  # what a layer shows there Keras would not show so
            found.partial_reasons.add(f"mask: {layer.name}")
            return None
        return merged(layer, sequences, like=piece.values[self._first_values[place]].array)

    def _steps(self, case: CapturedCall, given: _Given, found: Findings, *, detailed: bool) -> Array:
        """Compares every step of an LSTM; returns the reference h, (batch, time, units)."""
        steps, lstm = given.steps, self._reference_model.lstms[given.place][given.number]
        batch, time = steps.h.shape[0], steps.h.shape[1] - 1
        keep = np.ones((batch, time), bool) if steps.mask is None else steps.mask
        which = np.argwhere(keep)
        full = np.full(steps.h[:, 1:].shape, np.nan, steps.h.dtype)
        if not keep.any():
            return full
        x, h, c = given.x[keep], steps.h[:, :-1][keep], steps.c[:, :-1][keep]
        parts = [
            lstm.step(x[i : i + _MOST_ROWS], h[i : i + _MOST_ROWS], c[i : i + _MOST_ROWS]) for i in _starts(len(x))
        ]
        reference = dict(zip("hc", (np.concatenate(arrays) for arrays in zip(*parts, strict=True)), strict=True))
        bounded = math.isfinite(given.part.activations["activation"].bound)
        rounding = self._rounding(lstm, x, h)
        for name, after in (("c", steps.c[:, 1:]), ("h", steps.h[:, 1:])):
            ours, theirs = after[keep], reference[name]
            tolerance = self._tolerances.of(name, ours.dtype, bounded=bounded)
            scale = rounding if name == "h" else rounding * np.maximum(1, np.abs(theirs))
            key = (given.place, given.number, name)
            tolerance_ratios = found.differences(key, given.part.name).add(ours, theirs, tolerance, scale)
            self._closer(found, key, lstm, tolerance_ratios, ours, theirs, (x, h, c))
            n = _first_over(tolerance_ratios, which)
            odd = self._odd(found, key, given.part.name, ours, theirs, scale)
            if n is None and odd is not None:
                n = int(np.argmax(np.abs(ours[:, odd] - theirs[:, odd])))
            if n is not None:
                unit = int(np.argmax(tolerance_ratios[n])) if odd is None or tolerance_ratios[n].max() > 1 else odd
                numbers = (float(tolerance_ratios[n, unit]), float(ours[n, unit]), float(theirs[n, unit]))
                place = (given.step_of(int(which[n, 1])), given.place, name, int(given.piece.rows[which[n, 0]]), unit)
                found.note(Spot(*place, *numbers), given.number, (x[n : n + 1], h[n : n + 1], c[n : n + 1]))
        full[keep] = reference["h"]
        if detailed:
            self._keep_details(case, given, found, lstm, keep, (x, h, c), reference)
        return full

    def _odd(
        self, found: Findings, key: tuple[int, int, str], layer: str, ours: Array, theirs: Array, roundings: Array
    ) -> int | None:
        """Adds to the statistics of an array; returns the strongest outlier unit, or None."""
        if self._again:
            return None
        tally = self._tallies.setdefault(key, UnitStats(ours.shape[1], self._eps))
        differences = (ours.astype(np.float64) - theirs) / np.maximum(1, np.abs(theirs))
        odd = tally.add(differences, roundings)
        found.odd += [(layer, key[2], unit) for unit in odd]
        return odd[0].unit if odd else None

    def _rounding(self, lstm: LSTMWitness, x: Array, h: Array) -> Array:
        """Returns the largest rounding error that the sums of a step can have, (rows, units), over the gates."""
        kernel, recurrent, bias = map(np.abs, lstm.weights)
        sums = np.abs(x) @ kernel + np.abs(h) @ recurrent + bias
        largest: Array = sums.reshape(len(x), 4, -1).max(axis=1) * (_ROUNDINGS * self._eps)
        return largest

    def _closer(
        self,
        found: Findings,
        key: tuple[int, int, str],
        lstm: LSTMWitness,
        tolerance_ratios: Array,
        ours: Array,
        theirs: Array,
        given: tuple[Array, Array, Array],
    ) -> None:
        """Records which side is closer to float64 where the difference is largest."""
        row, unit = np.unravel_index(np.argmax(np.nan_to_num(tolerance_ratios, posinf=0)), tolerance_ratios.shape)
        x, h, c = (array[row : row + 1] for array in given)
        exact = dict(zip("hc", lstm.exactly(x, h, c), strict=True))[key[2]][0, unit]
        found.closer[key] = closer(float(ours[row, unit]), float(theirs[row, unit]), float(exact))

    def _stateless(self, piece: Piece, place: int, found: Findings) -> Array | None:
        """Returns the reference output of a layer for our inputs; None if it cannot be computed."""
        layer = self._description.layers[place]
        if place in self._windows:
            found.partial_reasons.add(f"window: {layer.name}")
            return None
        if self._reference_model.computes_in(place) not in (None, self._model.dtype.name):
            found.partial_reasons.add(f"other_precision: {layer.name}")
            return None
        values = [piece.values[number] for number in layer.inputs]
        made = free_running.apply(
            self._reference_model,
            self._description,
            place,
            [value.array for value in values],
            [value.mask for value in values],
        )
        if made is None:
            found.partial_reasons.add(f"no_witness: {layer.name}")
        return made

    def _compare(self, piece: Piece, place: int, value: Value, made: Array, found: Findings) -> None:
        """Compares the output of a layer."""
        if made.shape != value.array.shape:
            found.partial_reasons.add(f"other_shape: {self._description.layers[place].name}")
            return
        self._add(piece, place, value.array, made, value.ready, found, note=True)

    def _outputs(
        self, case: CapturedCall, piece: Piece, references: dict[int, Array], found: Findings, *, note: bool
    ) -> None:
        """Compares the outputs of the model."""
        for number, output in enumerate(self._description.outputs):
            made, value = references.get(output.value), piece.values[output.value]
            if made is None:
                continue
            answered, ready = case.outputs[number], value.ready
            if case.every and answered.ndim == made.ndim and made.ndim > 2:  # noqa: PLR2004 - batch, time, features
                ours = answered[piece.rows, piece.start : piece.start + made.shape[1]]
            else:
                if made.ndim == answered.ndim + 1:
                    made, ready = made[:, -1], None if ready is None else ready[:, -1]
                ours, made = answered[piece.rows[piece.ends]], made[piece.ends]
                ready = None if ready is None else ready[piece.ends]
            place = int(np.searchsorted(self._first_values, output.value, "right")) - 1
            if ours.shape == made.shape:
                self._add(piece, place, ours, made, ready, found, note=note)

    def _add(
        self, piece: Piece, place: int, ours: Array, made: Array, ready: Array | None, found: Findings, *, note: bool
    ) -> None:
        layer = self._description.layers[place]
        if ready is not None:
            ours, made = ours[ready], made[ready]
        if not ours.size:
            return
        tolerance = self._tolerances.of("output", ours.dtype, bounded=layer.kind not in _UNSTEADY)
        rounding = self._rounding_of_sums(piece, layer)
        tolerance_ratios = found.differences((place, 0, "output"), layer.name).add(ours, made, tolerance, rounding)
        if note and (tolerance_ratios > 1).any():
            index = np.unravel_index(np.argmax(tolerance_ratios), tolerance_ratios.shape)
            step = piece.start + (int(index[1]) if tolerance_ratios.ndim > 2 else 0)  # noqa: PLR2004 - batch, time, features
            row = int(piece.rows[min(int(index[0]), len(piece.rows) - 1)])
            worst = (float(tolerance_ratios[index]), float(ours[index]), float(made[index]))
            found.note(Spot(step, place, "output", row, int(index[-1]), *worst), 0, None)

    def _rounding_of_sums(self, piece: Piece, layer: LayerSpec) -> float:
        """Returns the largest rounding error of a layer that computes sums."""
        kernel = layer.weights.get("kernel")
        largest = (
            max(float(np.abs(piece.values[n].array).max(initial=0)) for n in layer.inputs) if layer.inputs else 0.0
        )
        if kernel is not None:
            largest *= float(np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(axis=0).max())
        return _ROUNDINGS * self._eps * largest

    def _compare_free(
        self, case: CapturedCall, piece: Piece, runner: free_running.FreeRunner, found: Findings, *, detailed: bool
    ) -> None:
        """Compares the results of Keras with its own h and c."""
        values, carried = runner.run(piece)
        for (place, number), (sequence, c) in carried.items():
            layer = self._description.layers[place]
            part, steps = (layer.parts or (layer,))[number], piece.steps[place][number]
            keep = np.ones(sequence.shape[:2], bool) if steps.mask is None else steps.mask
            bounded = math.isfinite(part.activations["activation"].bound)
            for name, ours, theirs in (
                ("h", steps.h[:, 1:][keep], sequence[keep]),
                ("c", steps.c[piece.ends, -1], c[piece.ends]),
            ):
                tolerance = self._tolerances.of(name, ours.dtype, bounded=bounded)
                found.differences((place, number, name), part.name).add(ours, theirs, tolerance)
            if detailed:
                _put(found.arrays, f"h/{place}/{number}", case, piece, sequence)
        self._outputs(case, piece, values, found, note=False)

    def _keep_details(
        self,
        case: CapturedCall,
        given: _Given,
        found: Findings,
        lstm: LSTMWitness,
        keep: Array,
        before: tuple[Array, Array, Array],
        reference: dict[str, Array],
    ) -> None:
        x, h, c = before
        exact_h, exact_c = lstm.exactly(x, h, c)
        gates = lstm.gates(x, h)
        kept = {
            "h": reference["h"],
            "c": reference["c"],
            "exact_h": exact_h,
            "exact_c": exact_c,
            "gates": gates,
            "x": x,
        }
        for name, array in kept.items():
            full = np.full((*keep.shape, *array.shape[1:]), np.nan, array.dtype)
            full[keep] = array
            _put(found.arrays, f"{name}/{given.place}/{given.number}", case, given.piece, full)


def _is_h(layer: LayerSpec, piece: Piece, place: int, number: int) -> bool:
    """Returns whether the output of a layer is the h of its only LSTM, so that it need not be compared again."""
    if len(piece.steps.get(place, ())) != 1:
        return False
    value = piece.values[number].array
    return np.array_equal(value, merged(layer, [piece.steps[place][0].h[:, 1:]], like=value))


@dataclass(frozen=True, slots=True)
class _Given:
    """An LSTM's steps in a chunk, in the order of processing."""

    piece: Piece
    place: int
    number: int
    part: LayerSpec
    steps: LSTMSteps
    x: Array
    backwards: bool

    def step_of(self, t: int) -> int:
        """Returns the time-step of the call that was processed as the `t`th."""
        return self.piece.start + (self.steps.h.shape[1] - 2 - t if self.backwards else t)


def _first_over(tolerance_ratios: Array, which: Array) -> int | None:
    """Returns the first step over tolerance, and the row that exceeds it most."""
    over = np.flatnonzero((tolerance_ratios > 1).any(axis=1))
    if not len(over):
        return None
    first = over[which[over, 1] == which[over, 1].min()]
    return int(first[np.argmax(tolerance_ratios[first].max(axis=1))])


def _put(arrays: dict[str, Array], name: str, case: CapturedCall, piece: Piece, part: Array) -> None:
    """Copies (batch, time, ...) of a chunk to its position in the whole call."""
    time = piece.start + part.shape[1]
    known = arrays.get(name)
    if known is None or known.shape[1] < time:
        larger = np.full((case.rows, time, *part.shape[2:]), np.nan, part.dtype)
        if known is not None:
            larger[:, : known.shape[1]] = known
        arrays[name] = known = larger
    known[piece.rows, piece.start : time] = part


def _starts(count: int) -> Iterator[int]:
    return iter(range(0, count, _MOST_ROWS))
