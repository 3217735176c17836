"""Records results of comparisons: counts, logs, bundles, and notifies callers and subscribers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final

import numpy as np
import structlog

from lstmserve import report_text
from lstmserve.v1 import shadow_pb2
from lstmserve_server.shadow import compare, gate_differences
from lstmserve_server.shadow.bundles import Bundle, Bundles
from lstmserve_server.shadow.captured_call import CapturedCall
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.reference_process import ComparedModel, ReferenceInfo, Reply
from lstmserve_server.shadow.report import ShadowReport, now, tolerance_ratio_of
from lstmserve_server.shadow.worker import ComparisonJob

_log = structlog.get_logger(__name__)

_MAX_LINES_PER_MINUTE: Final = 10


class Recorder:
    """Listener of the comparison worker; runs in its thread."""

    def __init__(
        self,
        subjects: Sequence[ComparedModel],
        tolerances: Tolerances,
        report: ShadowReport,
        bundles: Bundles,
        publish: Callable[[shadow_pb2.Discrepancy], None],
    ) -> None:
        self._subjects = {subject.served.name: subject for subject in subjects}
        self._tolerances = tolerances
        self._report = report
        self._bundles = bundles
        self._publish = publish
        self._versions: dict[str, str] = {}
        self._lines = LogRateLimiter()

    def reference_up(self, versions: Mapping[str, str], info: Mapping[str, ReferenceInfo]) -> None:
        """Records it, and logs a reference model whose weights are not those of the served model."""
        self._versions = {**versions, "our numpy": np.__version__, "our python": platform.python_version()}
        self._report.reference_up(versions, info)
        for name, (reference_model, _) in info.items():
            if reference_model.differing_weights or not compare.wired_alike(reference_model, self._tolerances):
                _log.error(
                    "witness_disagrees",
                    model=name,
                    reference_model=reference_model.text,
                    weights=list(reference_model.differing_weights),
                    whole_model_difference=reference_model.whole_model_difference,
                )

    def reference_down(self, reason: str) -> None:
        """Records it."""
        self._report.reference_down(reason)

    def reference_starts_anew(self) -> None:
        """Records it."""
        self._report.reference_starts_anew()

    def wants_details(self, reply: Reply) -> bool:
        """Returns whether there will be a bundle."""
        return reply.comparison.verdict == shadow_pb2.VERDICT_DIFFERS and self._bundles.wanted

    def compared(self, work: ComparisonJob, captured: CapturedCall, reply: Reply) -> None:
        """Records a call that was compared."""
        comparison = reply.comparison
        gate_differences.name_gates(self._subjects[work.model].served.model, reply, self._tolerances)
        self._report.compared(work.model, comparison, captured.steps)
        discrepancy = shadow_pb2.Discrepancy(
            model=work.model,
            method=captured.method,
            find_time=now(),
            row_count=captured.rows,
            step_count=captured.time,
            comparison=comparison,
        )
        if comparison.verdict == shadow_pb2.VERDICT_DIFFERS:
            self._bundle(captured, reply, discrepancy)
            self._log_discrepancy(discrepancy)
            self._publish(discrepancy)
        if self._report.is_among_worst(discrepancy):
            self._report.remember(discrepancy)
        if work.tell is not None:
            work.tell(comparison)

    def dropped(self, work: ComparisonJob, reason: str) -> None:
        """Records a call that is not compared after all."""
        self._report.dropped(work.model, reason)
        _warn_not_compared(work, reason)

    def failed(self, work: ComparisonJob, reason: str, text: str) -> None:
        """Records a comparison that failed."""
        self._report.failed(work.model, reason)
        if self._lines.allow():
            _log.error("comparison_failed", model=work.model, reason=reason, text=text, left_out=self._lines.left_out())
        _warn_not_compared(work, reason)

    def _bundle(self, captured: CapturedCall, reply: Reply, discrepancy: shadow_pb2.Discrepancy) -> None:
        if not self._bundles.wanted or not any(name.startswith("forced/") for name in reply.arrays):
            return
        subject = self._subjects[captured.model]
        bundle = Bundle(
            captured,
            reply.comparison,
            subject.path,
            subject.layer,
            subject.until,
            self._versions,
            subject.served.fingerprint,
            reply.arrays,
        )
        name = self._bundles.write(bundle)
        discrepancy.bundle = name or ""
        if name != "":
            self._report.bundle(written=name is not None)

    def _log_discrepancy(self, discrepancy: shadow_pb2.Discrepancy) -> None:
        if self._lines.allow():
            comparison = discrepancy.comparison
            _log.error(
                "discrepancy",
                model=discrepancy.model,
                method=discrepancy.method,
                where=report_text.place_in_words(comparison.first_location),
                odd_units=[report_text.odd_in_words(odd) for odd in comparison.outlier_units],
                times_tolerance=tolerance_ratio_of(discrepancy),
                reference_model=comparison.reference_model.text,
                bundle=discrepancy.bundle or None,
                left_out=self._lines.left_out(),
            )


def _warn_not_compared(work: ComparisonJob, reason: str) -> None:
    if work.tell is not None:
        work.tell(shadow_pb2.Comparison(verdict=shadow_pb2.VERDICT_NOT_COMPARED, reason=reason))


class LogRateLimiter:
    """Limits the log lines per minute."""

    def __init__(self) -> None:
        self._minute = monotonic()
        self._written = 0
        self._left_out = 0

    def allow(self) -> bool:
        """Returns whether another line may be written, and counts it."""
        if monotonic() - self._minute >= 60:  # noqa: PLR2004 - seconds of a minute
            self._minute, self._written = monotonic(), 0
        if self._written >= _MAX_LINES_PER_MINUTE:
            self._left_out += 1
            return False
        self._written += 1
        return True

    def left_out(self) -> int:
        """Returns how many were left out since the last one."""
        count, self._left_out = self._left_out, 0
        return count
