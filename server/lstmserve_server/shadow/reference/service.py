"""Answers captured calls in the reference process."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from lstmserve.v1 import shadow_pb2
from lstmserve_server.loading.store import transfer
from lstmserve_server.model.model import RecurrentModel
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.shadow import captured_call as cases
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.reference import keras_loader, noise_floor, verdict
from lstmserve_server.shadow.reference.teacher_forced import TeacherForcedComparison
from lstmserve_server.shadow.reference.verdict import Findings


class _Known:
    """A model and its reference model."""

    def __init__(self, given: Mapping[str, Any], setup: Mapping[str, Any], tolerances: Tolerances) -> None:
        description = transfer.load(given["form"], setup["weights"])
        self.model = RecurrentModel(description, Numerics.EXACT)
        self.tolerances = tolerances
        self.noise_floor = 0.0
        self.not_comparable = ""
        self.examiner: TeacherForcedComparison | None = None
        self.message = shadow_pb2.ReferenceModel(whole_model_difference=-1, whole_model_sensitivity=-1)
        try:
            self._find_witness(keras_loader.ModelFile(given["copy"], given["whole"], setup["scratch"]))
        except Exception as error:  # noqa: BLE001 - without a reference model a model is served all the same, and is said to have none
            self.message.text = f"none: {type(error).__name__}: {error}"[:300]
            self.not_comparable = "no_witness"

    def _find_witness(self, file: keras_loader.ModelFile) -> None:
        reference_model = keras_loader.witness_of(self.model.description, file)
        self.message.kind, self.message.text = reference_model.kind, reference_model.text
        self.message.differing_weights.extend(reference_model.differing_weights)
        types = {lstm.dtype for lstms in reference_model.lstms.values() for lstm in lstms}
        if types != {self.model.dtype.name}:
            self.not_comparable = "half_precision" if types & {"float16", "bfloat16"} else "other_precision"
            return
        self.noise_floor = noise_floor.noise_floor(self.model, reference_model)
        apart, sensitivity = noise_floor.whole_model_difference(self.model, reference_model)
        self.message.whole_model_difference, self.message.whole_model_sensitivity = apart, sensitivity
        self.examiner = TeacherForcedComparison(self.model, reference_model, self.tolerances)


class Service:
    """Answers captured calls."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._tolerances = Tolerances(**setup["tolerances"])
        self._models = {given["name"]: _Known(given, setup, self._tolerances) for given in setup["models"]}

    def info(self) -> dict[str, dict[str, Any]]:
        """Returns the description of each model, ready for JSON."""
        return {
            name: {
                "witness": known.message.SerializeToString().hex(),
                "noise_floor": known.noise_floor,
            }
            for name, known in self._models.items()
        }

    def answer(self, request: Mapping[str, Any], data: bytes) -> list[bytes]:
        """Returns the parts of an answer: a text of JSON, a `Comparison`, and an archive of arrays.

        The arrays are the inputs of the first location over tolerance, and all steps if details are wanted.
        """
        try:
            case, _, _ = cases.load(data)
            known = self._models[case.model]
            if known.examiner is None:
                return _parts(_not_comparable(known), {})
            found = known.examiner.examine(case, detailed=bool(request["detailed"]), again=bool(request["again"]))
        except Exception as error:  # noqa: BLE001 - it is reported, and the next call is answered
            return [json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}).encode(), b"", b""]
        comparison = verdict.verdict_of(found, known.message, known.tolerances, known.noise_floor)
        return _parts(comparison, _arrays(known.examiner, comparison, *found))


def _not_comparable(known: _Known) -> shadow_pb2.Comparison:
    return shadow_pb2.Comparison(
        verdict=shadow_pb2.VERDICT_NOT_COMPARABLE,
        reason=known.not_comparable,
        reference_model=known.message,
        tolerances=known.tolerances.message(),
    )


def _arrays(
    examiner: TeacherForcedComparison, comparison: shadow_pb2.Comparison, forced: Findings, free: Findings
) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {f"forced/{name}": array for name, array in forced.arrays.items()}
    arrays |= {f"free/{name}": array for name, array in free.arrays.items()}
    if forced.first is not None and forced.first_given is not None:
        x, h, c = forced.first_given
        exact, gates = examiner.explained(forced.first, forced.first_number, forced.first_given)
        place = comparison.first_location
        place.exact = exact
        place.closer = verdict.closer(place.ours, place.reference, exact)
        where = np.array([forced.first.place, forced.first_number], np.int64)
        arrays |= {"first/where": where, "first/x": x, "first/h": h, "first/c": c, "first/gates": gates}
    return arrays


def _parts(comparison: shadow_pb2.Comparison, arrays: Mapping[str, np.ndarray[Any, Any]]) -> list[bytes]:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]  # of the stubs, which take the names for options
    return [b"{}", comparison.SerializeToString(), file.getvalue() if arrays else b""]
