"""Report of a verification as one self-contained HTML page, for a review."""

from __future__ import annotations

import math
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from lstmserve import report_text
from lstmserve.v1 import shadow_pb2
from lstmserve_server.core import packages
from lstmserve_server.tools.verify import charts
from lstmserve_server.tools.verify.verifier import Verification


def write(found: Verification, path: Path) -> None:
    """Writes the page.

    Args:
        found: what was found.
        path: where to; what is there is overwritten.

    Raises:
        OSError: it cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lstmserve_server.tools.verify", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": "{:,}".format, "small": "{:.2g}".format, "share": _share, "ulp": _ulp}
    environment.filters |= {
        "array_name": report_text.array_name,
        "place": report_text.place_in_words,
        "odd": report_text.odd_in_words,
        "quoted": _quoted,
    }
    page = environment.get_template("verification.html.j2").render(_facts(found))
    path.write_text(page, encoding="utf-8", errors="replace")  # half a surrogate in a name is not a reason to fail


def _facts(found: Verification) -> dict[str, Any]:
    """Returns the variables of the template."""
    report = found.report
    return {
        "found": found,
        "report": report,
        "coverage": report.coverage,
        "witness": report.reference_model,
        "model": found.served.model.description,
        "verdict": shadow_pb2.Verdict.Name(found.verdict).removeprefix("VERDICT_").lower(),
        "largest": max((totals.tolerance_ratio for totals in report.teacher_forced), default=0.0),
        "over": [one for one in report.worst if one.comparison.HasField("first_location")],
        "odd": {
            (odd.layer, report_text.array_name(odd.array))
            for one in report.worst
            for odd in one.comparison.outlier_units
        },
        "not_finite": sum(
            t.value_count - sum(t.difference_histogram) - t.nan_mismatch_count - t.infinity_mismatch_count
            for t in report.teacher_forced
        ),
        "tolerances": {
            "h": charts.tolerance(found, "h"),
            "c": charts.tolerance(found, "c"),
            "unbounded": charts.tolerance(found, "h", bounded=False),
        },
        "drawings": charts.drawings(found),
        "version": packages.version_of("lstmserve"),
        "now": datetime.now(UTC),
    }


def _share(margin: float) -> str:
    """Returns a fraction of the tolerance as text."""
    if not math.isfinite(margin):
        return "not finite"
    if 0 < margin < 0.001:  # noqa: PLR2004 - which would read 0.0%
        return "under 0.1%"
    return f"{margin:.1%}" if margin < 10 else f"{margin:,.0f} times"  # noqa: PLR2004 - a percentage of many digits is none


def _quoted(word: object) -> str:
    return shlex.quote(str(word))


def _ulp(distance: int) -> str:
    return f"{distance:,}" if distance < 10**9 else f"{distance:.1g}"
