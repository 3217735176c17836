"""The commands of `lstmserve`. Each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import click

from lstmserve_server.config import ServeSettings, options
from lstmserve_server.errors import StartFailed

_WIDE = {"max_content_width": 100}


@click.group(context_settings=_WIDE)
@click.version_option(package_name="lstmserve")
def lstmserve() -> None:
    """Serves Keras LSTM models over gRPC, with the state that the caller carries."""


@lstmserve.command()
@options
def serve(**settings: Any) -> None:
    """Serve models until SIGTERM or Ctrl-C.

    FILE is a .keras or .h5 file of Keras. It is served under NAME, or under its own name without what follows the first
    dot.

    Exit codes: 0 stopped, 1 a fault of its own, 2 bad settings, 3 could not start.
    """
    from lstmserve_server import server, telemetry  # noqa: PLC0415
    from lstmserve_server.workers import supervisor  # noqa: PLC0415

    chosen = ServeSettings(**settings)
    run = supervisor.run if chosen.workers > 1 else server.run
    telemetry.configure_log(chosen.log_format, chosen.log_level)
    try:
        asyncio.run(run(chosen))
    except StartFailed as error:
        click.echo(f"lstmserve: {error}", err=True)
        sys.exit(error.exit_code)
    # Not sys.exit: Python would wait for threads that may still compute what nobody waits for any more.
    sys.stderr.flush()
    os._exit(0)


@lstmserve.command()
@click.argument("file", type=click.Path())
@click.option("--layer", help="Show this one LSTM layer of the model instead of the whole.")
@click.option("--until", help="Show the model as far as this layer instead of the whole.")
@click.option("--architecture", help="File with the configuration, for a file that holds weights alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(file: str, layer: str | None, until: str | None, architecture: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show what is in a model file, and whether it can be served. Works without a server.

    Exit codes: 0 it can be served, 1 it cannot.
    """
    from lstmserve_server import inspection  # noqa: PLC0415

    report = inspection.inspect(file, layer=layer, until=until, architecture=architecture)
    if as_json:
        click.echo(report.as_json())
    else:
        report.show()
    sys.exit(0 if report.servable else 1)
