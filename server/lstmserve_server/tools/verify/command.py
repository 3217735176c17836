"""Output of `lstmserve verify`: a progress bar, tables, a verdict, and an exit code for CI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from google.protobuf import json_format
from rich.text import Text

from lstmserve import report_text
from lstmserve.cli import report_tables, terminal
from lstmserve.v1 import shadow_pb2
from lstmserve_server.core.errors import StartupError, UnsupportedModelError
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.tools.progress import bar
from lstmserve_server.tools.verify.verifier import Plan, Verification, Verifier

_EXIT_CODES: Final = {
    shadow_pb2.VERDICT_AGREES: 0,
    shadow_pb2.VERDICT_DIFFERS: 1,
    shadow_pb2.VERDICT_NOT_COMPARABLE: 4,
    shadow_pb2.VERDICT_NOT_COMPARED: 4,
}


def run(file: str, html: str | None, options: Mapping[str, Any], *, as_json: bool) -> int:
    """Compares, prints the results, and returns the exit code."""
    plan = Plan(
        calls=options["calls"],
        rows=options["rows"],
        steps=options["steps"],
        seed=options["seed"],
        given=None if options["given"] is None else Path(options["given"]),
    )
    tolerances = Tolerances(**{name: options[f"tolerance_{name}"] for name in ("h", "c", "unbounded")})
    part = {name: options[name] for name in ("layer", "until", "architecture")}
    try:
        if html is not None:
            _require_writable(Path(html))
        found = _compare(Verifier(file, plan, tolerances, part))
    except (UnsupportedModelError, StartupError) as error:
        click.echo(f"lstmserve: {error}", err=True)
        return error.exit_code if isinstance(error, StartupError) else StartupError.exit_code
    if html is not None:
        from lstmserve_server.tools.verify import html_report  # noqa: PLC0415 - only who wants a page pays for plots

        html_report.write(found, Path(html))
    if as_json:
        click.echo(_as_json(found))
    else:
        _show(found, html)
    return _EXIT_CODES[found.verdict]


def _compare(verifier: Verifier) -> Verification:
    """Compares all calls, with a progress bar on a terminal."""
    with bar() as progress:
        task = progress.add_task("starting Keras", total=verifier.calls)
        for done in verifier.run():
            progress.update(task, description="comparing calls", completed=done)
    return verifier.found()


def _show(found: Verification, html: str | None) -> None:
    console = terminal.console(width=140)
    console.print(report_tables.of_model(found.report))
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    console.print(Text(f"\n{versions}", style="dim"))
    console.print(_verdict(found))
    if html is not None:
        console.print(Text(f"report: {html}"))


def _verdict(found: Verification) -> Text:
    coverage, dropped = found.report.coverage, dict(found.report.coverage.dropped_counts)
    match found.verdict:
        case shadow_pb2.VERDICT_AGREES:
            text = f"{coverage.compared_count:,} calls, {coverage.row_step_count:,} row-steps of LSTM layers: all within tolerance"
            return Text(f"\nAGREES: {text}", style="bold green")
        case shadow_pb2.VERDICT_DIFFERS:
            return Text(f"\nDIFFERS: {_what_differs(found)}", style="bold red")
        case shadow_pb2.VERDICT_NOT_COMPARABLE:
            reasons = ", ".join(coverage.not_comparable_counts)
            return Text(f"\nNOT COMPARABLE: {reasons}. {found.report.reference_model.text}", style="bold yellow")
        case _:
            why = [*dropped, *coverage.error_counts, *found.failures] or ["a mask passes over every step"]
            known = "NOT ALL" if coverage.row_step_count else "NOTHING"
            return Text(f"\n{known} COMPARED: {', '.join(why)}", style="bold yellow")


def _what_differs(found: Verification) -> str:
    coverage = found.report.coverage
    if found.first is not None:
        where = report_text.place_in_words(found.first)
        return f"{coverage.discrepant_count:,} of {coverage.compared_count:,} calls are over tolerance, the first at {where}"
    if found.report.reference_model.differing_weights:
        return "our loader found other weights in the file than Keras does"
    apart = found.report.reference_model.whole_model_difference
    return f"the whole models are {apart:.2g} apart for a probe: they are wired differently"


def _as_json(found: Verification) -> str:
    report = json_format.MessageToDict(found.report, preserving_proto_field_name=True)
    first = None
    if found.first is not None:
        first = json_format.MessageToDict(found.first, preserving_proto_field_name=True)
    verdict = shadow_pb2.Verdict.Name(found.verdict).removeprefix("VERDICT_").lower()
    return json.dumps(
        {"verdict": verdict, "first": first, "versions": dict(found.versions), "report": report}, indent=2
    )


def _require_writable(path: Path) -> None:
    """Checks that the report can be written, before minutes are spent on it.

    Raises:
        StartupError: it cannot be written.
    """
    there = path.exists()
    try:
        with path.open("a"):
            pass
        if not there:
            path.unlink()
    except OSError as error:
        message = f"the report cannot be written to {path}: {error.strerror}"
        raise StartupError(message) from error
