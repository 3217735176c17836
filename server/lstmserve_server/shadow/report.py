"""Accumulates comparisons since the start: how many, how far apart, the worst, and what could not be compared."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from lstmserve.v1 import shadow_pb2
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.shadow import compare
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.reference_process import ReferenceInfo

_MAX_WORST: Final = 5
_MAX_REASONS: Final = 32  # different texts of what could not be compared in part


class ShadowReport:
    """Counts of comparisons. Written by the comparison worker's thread, read by any."""

    def __init__(self, sampling_rate: float, models: Iterable[ServedModel], tolerances: Tolerances) -> None:
        self._lock = threading.Lock()
        self._report = shadow_pb2.ShadowReport(sampling_rate=sampling_rate, start_time=now(), process_id=os.getpid())
        self._report.reference_process.status = shadow_pb2.REFERENCE_STATUS_STARTING
        self._models: dict[str, shadow_pb2.ModelReport] = {}
        for served in models:
            self._models[served.name] = self._report.models.add(
                model=served.name, digest=served.digest, tolerances=tolerances.message()
            )
        self._offered = dict.fromkeys(self._models, 0)

    def copy(self, model: str = "") -> shadow_pb2.ShadowReport:
        """Returns the report of a model; of all models for ""."""
        with self._lock:
            copy = shadow_pb2.ShadowReport.FromString(self._report.SerializeToString())
        for info in copy.models:
            info.coverage.offered_count = self._offered[info.model]
        if model:
            kept = [info for info in copy.models if info.model == model]
            del copy.models[:]
            copy.models.extend(kept)
        return copy

    def offered(self, model: str) -> None:
        """Counts an answered call. Only the event loop calls it, so it takes no lock."""
        self._offered[model] += 1

    def sampled(self, model: str) -> None:
        """Counts a call that is to be compared."""
        with self._lock:
            self._models[model].coverage.sampled_count += 1

    def dropped(self, model: str, reason: str) -> None:
        """Counts a sampled call that is dropped."""
        with self._lock:
            self._models[model].coverage.dropped_counts[reason] += 1

    def failed(self, model: str, reason: str) -> None:
        """Counts a call whose comparison failed."""
        with self._lock:
            self._models[model].coverage.error_counts[reason] += 1

    def compared(self, model: str, comparison: shadow_pb2.Comparison, steps: int) -> None:
        """Adds the comparison of a call."""
        with self._lock:
            info = self._models[model]
            coverage = info.coverage
            if comparison.verdict == shadow_pb2.VERDICT_NOT_COMPARABLE:
                has_place = (
                    comparison.reason in coverage.not_comparable_counts
                    or len(coverage.not_comparable_counts) < _MAX_REASONS
                )
                coverage.not_comparable_counts[comparison.reason if has_place else "other"] += 1
                return
            coverage.compared_count += 1
            coverage.row_step_count += steps
            coverage.discrepant_count += comparison.verdict == shadow_pb2.VERDICT_DIFFERS
            for text in comparison.partial_reasons:
                if text in coverage.partial_counts or len(coverage.partial_counts) < _MAX_REASONS:
                    coverage.partial_counts[text] += 1
            for known, found in (
                (info.teacher_forced, comparison.teacher_forced),
                (info.free_running, comparison.free_running),
            ):
                for totals in found:
                    compare.merge(_same(known, totals), totals)

    def remember(self, discrepancy: shadow_pb2.Discrepancy) -> None:
        """Keeps a call if it is among the worst."""
        with self._lock:
            worst = self._models[discrepancy.model].worst
            every = sorted([*worst, discrepancy], key=_badness, reverse=True)[:_MAX_WORST]
            del worst[:]
            worst.extend(every)

    def is_among_worst(self, discrepancy: shadow_pb2.Discrepancy) -> bool:
        """Returns whether a call would be kept."""
        with self._lock:
            worst = self._models[discrepancy.model].worst
            return len(worst) < _MAX_WORST or _badness(discrepancy) > _badness(worst[-1])

    def bundle(self, *, written: bool) -> None:
        """Counts a bundle."""
        with self._lock:
            if written:
                self._report.written_bundle_count += 1
            else:
                self._report.failed_bundle_count += 1

    def reference_up(self, versions: Mapping[str, str], info: Mapping[str, ReferenceInfo]) -> None:
        """Records that the reference is ready, and its description of each model."""
        with self._lock:
            reference = self._report.reference_process
            reference.status, reference.reason = shadow_pb2.REFERENCE_STATUS_UP, ""
            reference.versions.update(versions)
            for name, model in self._models.items():
                model.reference_model.CopyFrom(info[name].reference_model)
                model.noise_floor = info[name].noise_floor

    def reference_down(self, reason: str) -> None:
        """Records that the reference is gone, and will be restarted."""
        with self._lock:
            reference = self._report.reference_process
            reference.status, reference.reason = shadow_pb2.REFERENCE_STATUS_DOWN, reason

    def reference_starts_anew(self) -> None:
        """Records that the reference is being started again."""
        with self._lock:
            self._report.reference_process.status = shadow_pb2.REFERENCE_STATUS_STARTING
            self._report.reference_process.restart_count += 1


def tolerance_ratio_of(discrepancy: shadow_pb2.Discrepancy) -> float:
    """Returns the largest difference of a call, as a fraction of the tolerance."""
    return max((totals.tolerance_ratio for totals in discrepancy.comparison.teacher_forced), default=0.0)


def _badness(discrepancy: shadow_pb2.Discrepancy) -> tuple[bool, float]:
    """Returns the sort key of the worst calls: calls that differ come before calls that do not."""
    return discrepancy.comparison.verdict == shadow_pb2.VERDICT_DIFFERS, tolerance_ratio_of(discrepancy)


def now() -> Timestamp:
    """Returns the time."""
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp


def _same(
    known: Iterable[shadow_pb2.DifferenceStats], totals: shadow_pb2.DifferenceStats
) -> shadow_pb2.DifferenceStats:
    """Returns the statistics of an array of a layer; creates them the first time."""
    for other in known:
        if (other.layer, other.array) == (totals.layer, totals.array):
            return other
    added: shadow_pb2.DifferenceStats = known.add(layer=totals.layer, array=totals.array)  # type: ignore[attr-defined]  # repeated
    return added
