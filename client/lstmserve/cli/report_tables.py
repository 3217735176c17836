"""Tables of a shadow report for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lstmserve import report_text
from lstmserve.v1 import shadow_pb2

_REFERENCES: Final = {
    shadow_pb2.REFERENCE_STATUS_OFF: "off",
    shadow_pb2.REFERENCE_STATUS_STARTING: "starting",
    shadow_pb2.REFERENCE_STATUS_UP: "up",
    shadow_pb2.REFERENCE_STATUS_DOWN: "down",
}


def of_server(report: shadow_pb2.ShadowReport) -> RenderableType:
    """Returns the report of a server."""
    if not report.sampling_rate:
        return Text("Shadow mode is off: nothing is compared. Start the server with --shadow RATE or --shadow all.")
    reference = report.reference_process
    facts = {
        "compares": "all calls" if report.sampling_rate == 1 else f"{report.sampling_rate:.2%} of the calls",
        "since": report.start_time.ToDatetime().isoformat(" ", "seconds") + " UTC",
        "Keras": ", ".join(
            [
                _REFERENCES.get(reference.status, "unknown"),
                *([reference.reason] if reference.reason else []),
                *(
                    f"{name} {reference.versions[name]}"
                    for name in ("keras", "tensorflow")
                    if name in reference.versions
                ),
                f"{reference.restart_count} restarts",
            ]
        ),
        "bundles": f"{report.written_bundle_count} written, {report.failed_bundle_count} failed",
    }
    return Group(_facts(facts), *(of_model(model) for model in report.models))


def of_model(report: shadow_pb2.ModelReport) -> RenderableType:
    """Returns the report of a model: how much was compared, and what was found."""
    parts: list[RenderableType] = [_title(f"{report.model}  {_verdict(report)}"), _facts(_facts_of(report))]
    if report.teacher_forced:
        parts += [
            _title("Each time-step from our h and c, each layer from our inputs (teacher-forced)"),
            _totals(report.teacher_forced, report.tolerances),
        ]
    if report.free_running:
        parts += [
            _title("Keras with its own h and c all along (free-running): no discrepancy by itself"),
            _totals(report.free_running, None),
        ]
    over = [one for one in report.worst if one.comparison.HasField("first_location")]
    if over:
        parts += [_title("The worst calls over tolerance"), _worst(over)]
    return Group(*parts)


def _verdict(report: shadow_pb2.ModelReport) -> str:
    coverage = report.coverage
    if coverage.discrepant_count or report.reference_model.differing_weights:
        return "DIFFERS"
    if coverage.compared_count:
        return "agrees"
    return "cannot be compared" if coverage.not_comparable_counts else "NOTHING COMPARED YET"


def _facts_of(report: shadow_pb2.ModelReport) -> dict[str, str]:
    coverage, witness, tolerances = report.coverage, report.reference_model, report.tolerances
    facts = {
        "digest": report.digest[:16],
        "witness": witness.text or "none yet",
        "coverage": f"{coverage.offered_count:,} answered, {coverage.sampled_count:,} sampled, "
        f"{coverage.compared_count:,} compared "
        f"({coverage.row_step_count:,} row-steps of layers), {coverage.discrepant_count:,} over tolerance",
        "dropped": _counts(coverage.dropped_counts),
        "failed": _counts(coverage.error_counts),
        "not comparable": _counts(coverage.not_comparable_counts),
        "in part": _counts(coverage.partial_counts),
        "tolerances": f"h {tolerances.h:g}, c {tolerances.c:g}, unbounded {tolerances.unbounded:g}, times max(1, |value|)",
        "noise floor": f"{report.noise_floor:.2g}, the distance of the reference model from itself",
    }
    if witness.whole_model_difference >= 0:
        facts["whole model"] = f"{witness.whole_model_difference:.2g} apart from the file's own for a probe"
    if witness.differing_weights:
        facts["WEIGHTS DIFFER"] = "; ".join(witness.differing_weights)
    return {name: text for name, text in facts.items() if text}


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))


def _totals(totals: Iterable[shadow_pb2.DifferenceStats], tolerances: shadow_pb2.Tolerances | None) -> Table:
    table = Table("layer", "", "numbers", "largest", "mean", "relative", "ULP", header_style="bold")
    if tolerances is not None:
        for name in ("of tolerance", "over", "NaN, inf", "closer to float64"):
            table.add_column(name)
    for column in table.columns[2:]:
        column.justify = "right"
    for t in totals:
        cells = [
            t.layer,
            report_text.array_name(t.array),
            f"{t.value_count:,}",
            f"{t.max_absolute:.2g}",
            f"{t.mean_absolute:.2g}",
            f"{t.max_relative:.2g}",
        ]
        cells.append(f"{t.max_ulp:,}" if t.max_ulp < 10**9 else f"{t.max_ulp:.1g}")
        if tolerances is not None:
            closer = (
                f"ours {t.ours_closer_count}, Keras {t.reference_closer_count}"
                if t.ours_closer_count or t.reference_closer_count
                else "-"
            )
            over = Text(f"{t.over_tolerance_count:,}", style="bold red" if t.over_tolerance_count else "")
            odd = f"{t.nan_mismatch_count}, {t.infinity_mismatch_count}"
            table.add_row(*cells, f"{t.tolerance_ratio:.1%}", over, odd, closer)
        else:
            table.add_row(*cells)
    return table


def _worst(worst: Iterable[shadow_pb2.Discrepancy]) -> Table:
    table = Table("of tolerance", "call", "where", header_style="bold")
    for one in worst:
        margin = max((totals.tolerance_ratio for totals in one.comparison.teacher_forced), default=0.0)
        call = " ".join(part for part in (one.method, f"{one.row_count} rows, {one.step_count} steps") if part)
        table.add_row(f"{margin:.1%}", call, _where(one))
    return table


def _where(one: shadow_pb2.Discrepancy) -> str:
    comparison = one.comparison
    parts = [
        report_text.place_in_words(comparison.first_location),
        *map(report_text.odd_in_words, comparison.outlier_units),
    ]
    return "\n".join([*parts, *([f"bundle {one.bundle}"] if one.bundle else [])])


def _facts(facts: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, text in facts.items():
        table.add_row(Text(name, style="dim"), text)
    return table


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")
