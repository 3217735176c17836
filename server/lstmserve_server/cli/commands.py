"""Commands of `lstmserve`. Each imports what it needs when it runs, so that `--help` is fast."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import fields
from typing import Any, NoReturn

import click

from lstmserve_server.cli.serve_options import options
from lstmserve_server.core.errors import StartupError
from lstmserve_server.serving.setting_types import Positive, Seconds
from lstmserve_server.serving.settings import ServeSettings

_WIDE = {"max_content_width": 100}


@click.group(context_settings=_WIDE)
@click.version_option(package_name="lstmserve")
def lstmserve() -> None:
    """Serves Keras LSTM models over gRPC, with the state that the caller carries."""


@lstmserve.command()
@options
def serve(**settings: Any) -> None:
    """Serve models until SIGTERM or Ctrl-C.

    FILE is a Keras model file (.keras or .h5). It is served under NAME, or by default under its file name up to the first
    dot.

    Exit codes: 0 stopped, 1 internal error, 2 invalid settings, 3 could not start.
    """
    from lstmserve_server.observability import logs as telemetry  # noqa: PLC0415

    chosen = ServeSettings(**settings)
    try:
        from lstmserve_server.serving import server  # noqa: PLC0415
        from lstmserve_server.serving.workers import supervisor  # noqa: PLC0415

        telemetry.configure_log(chosen.log_format, chosen.log_level)
        asyncio.run(supervisor.run(chosen) if chosen.workers > 1 else server.run(chosen))
    except StartupError as error:
        _fail(str(error), error.exit_code)
    except (ImportError, MemoryError, OSError, RuntimeError) as error:  # as of a limit on memory or threads (ulimit)
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        _fail(f"the system refused what the server needs ({why})", StartupError.exit_code)
    telemetry.finish()
    # Not sys.exit: Python would wait for threads that may still compute abandoned calls.
    os._exit(0)


def _fail(text: str, code: int) -> NoReturn:
    """Prints why the server could not start, after its log, and exits."""
    from lstmserve_server.observability import logs as telemetry  # noqa: PLC0415

    telemetry.finish(f"lstmserve: {text}\n")
    sys.exit(code)


def _tolerances(command: Any) -> Any:
    """Gives a command the tolerances of the comparison with Keras."""
    for setting in fields(ServeSettings):
        if setting.name.startswith("shadow_tolerance_"):
            flag = setting.name.removeprefix("shadow_").replace("_", "-")
            command = click.option(
                f"--{flag}",
                type=setting.metadata["kind"],
                default=setting.default,
                show_default=True,
                help=setting.metadata["help"],
            )(command)
    return command


@lstmserve.command()
@click.argument("file", type=click.Path())
@click.option("--layer", help="Verify only this LSTM layer of the model.")
@click.option("--until", help="Verify the model up to and including this layer.")
@click.option("--architecture", help="Model configuration, for files that hold only weights.")
@click.option(
    "--input",
    "given",
    type=click.Path(exists=True, dir_okay=False),
    help="Inputs: .npy (batch, time, features), or .npz by name. Default: random.",
)
@click.option(
    "--calls",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Number of calls to compare, with one sequence each.",
)
@click.option("--rows", default=4, show_default=True, type=click.IntRange(1), help="Rows of a random sequence.")
@click.option("--steps", default=64, show_default=True, type=click.IntRange(1), help="Time steps of a random sequence.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random numbers.")
@_tolerances
@click.option("--html", type=click.Path(dir_okay=False), help="Write a report of one HTML page to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify(file: str, html: str | None, as_json: bool, **options: Any) -> None:  # noqa: FBT001 - click's way
    """Compare our answers with those of the real Keras layer, before a model is deployed. Needs the extra 'shadow'.

    Each time-step is computed by both from the same x, h and c; every second call begins with a state, as in the middle of a
    sequence.

    Exit codes: 0 they agree, 1 they differ, 2 bad arguments, 3 it cannot be done, 4 nothing could be compared.
    """
    from lstmserve_server.tools.verify import command as verify_command  # noqa: PLC0415

    sys.exit(verify_command.run(file, html, options, as_json=as_json))


@lstmserve.command()
@click.argument("bundle", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--model", help="Model file. Default: the path in the bundle.")
@click.option("--architecture", help="Model configuration, for files that hold only weights.")
@_tolerances
def replay(bundle: tuple[str, ...], **options: Any) -> None:
    """Compute calls from bundles (--shadow-bundles) again: with our code, with Keras, and in float64. Needs the extra 'shadow'.

    Exit codes: 0 all agree now, 1 one differs, 2 bad arguments, 3 it cannot be done.
    """
    from lstmserve_server.tools.verify import replay as replay_command  # noqa: PLC0415

    sys.exit(replay_command.run(bundle, **options))


@lstmserve.command()
@click.argument("file", type=click.Path())
@click.option("--layer", help="Show only this LSTM layer of the model.")
@click.option("--until", help="Show the model up to and including this layer.")
@click.option("--architecture", help="Model configuration, for files that hold only weights.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def inspect(file: str, layer: str | None, until: str | None, architecture: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show what is in a model file, and whether it can be served. Works without a server.

    Exit codes: 0 it can be served, 1 it cannot.
    """
    from lstmserve_server.tools import inspection  # noqa: PLC0415

    report = inspection.inspect(file, layer=layer, until=until, architecture=architecture)
    if as_json:
        click.echo(report.as_json())
    else:
        report.show()
    sys.exit(0 if report.servable else 1)


@lstmserve.command()
@click.argument("file", type=click.Path())
@click.option(
    "--duration",
    type=Positive(3600),
    default=3.0,
    show_default=True,
    help="Time of each measurement after the warm-up, in seconds.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 4096),
    multiple=True,
    default=(1, 8, 32),
    show_default=True,
    help="Number of concurrent callers. Repeatable.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 65_536),
    multiple=True,
    default=(8, 64),
    show_default=True,
    help="Rows per message, in addition to 1. Repeatable.",
)
@click.option("--numerics", type=click.Choice(["exact", "fast"]), help="Numerics to measure. Default: exact.")
@click.option("--compare-numerics", is_flag=True, help="Measure both numerics, alternating for each case.")
@click.option(
    "--deadline",
    type=Positive(3600),
    default=1.0,
    show_default=True,
    help="Latency that the advice aims at, in seconds.",
)
@click.option("--layer", help="Measure only this LSTM layer of the model.")
@click.option("--until", help="Measure the model up to and including this layer.")
@click.option("--architecture", help="Model configuration, for files that hold only weights.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def bench(file: str, as_json: bool, **options: Any) -> None:  # noqa: FBT001 - click's way
    """Measure a model on this machine: throughput, latency, where the time goes, and which settings suit.

    Starts a server for it on the loopback interface, and a load generator alongside it, and ends both.

    Exit codes: 0 measured, 1 a process was lost, 2 bad arguments, 3 it cannot be done, 130 interrupted.
    """
    from lstmserve_server.tools.bench import command as bench_command  # noqa: PLC0415

    sys.exit(bench_command.run(file, options, as_json=as_json))


@lstmserve.command()
@click.argument("name")
def token(name: str) -> None:
    """Make a token for the caller NAME.

    Prints the entry for the file of --tokens, which contains only the hash of the token. Append it:
    lstmserve token NAME >> tokens.toml. The token itself is printed once, on standard error, and not stored.
    """
    from lstmserve_server.rpc.auth import token_file as tokens  # noqa: PLC0415

    if not name or not name.isprintable():
        message = f"{name!r} is not a name; expected a text that can be printed"
        raise click.UsageError(message)
    made = tokens.make()
    click.echo(tokens.entry(name, made))
    click.echo(f"The token of {name}, shown this once: {made}", err=True)


@lstmserve.command()
@click.option(
    "--address",
    default="127.0.0.1:50051",
    envvar="LSTMSERVE_HEALTH_ADDRESS",
    show_envvar=True,
    show_default=True,
    help="Address of the server: HOST:PORT, [IPV6]:PORT or unix:PATH.",
)
@click.option(
    "--service",
    default="",
    help="Service to check: lstmserve.v1.LstmService/NAME for one model. Default: the server.",
)
@click.option(
    "--tls",
    is_flag=True,
    envvar="LSTMSERVE_HEALTH_TLS",
    show_envvar=True,
    help="Use TLS. --ca, --certificate and --server-name imply it.",
)
@click.option("--ca", envvar="LSTMSERVE_HEALTH_CA", show_envvar=True, help="Trusted authorities (PEM).")
@click.option(
    "--certificate",
    envvar="LSTMSERVE_HEALTH_CERTIFICATE",
    show_envvar=True,
    help="Client certificate, for mutual TLS (PEM).",
)
@click.option(
    "--key", envvar="LSTMSERVE_HEALTH_KEY", show_envvar=True, help="Private key of the client certificate (PEM)."
)
@click.option(
    "--server-name",
    envvar="LSTMSERVE_HEALTH_SERVER_NAME",
    show_envvar=True,
    help="Expected name in the server's certificate, if not that of the address.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False),
    envvar="LSTMSERVE_HEALTH_TOKEN_FILE",
    show_envvar=True,
    help="File with the token, for servers whose health is not open.",
)
@click.option(
    "--timeout", type=Seconds(), default=2.0, show_default=True, help="Maximum wait for the answer, in seconds."
)
def health(
    address: str, service: str, timeout: float, token_file: str | None, *, tls: bool, **files: str | None
) -> None:
    """Ask a server for its health (grpc.health.v1), and print it.

    Any server that has the standard health service can be asked.

    Exit codes: 0 SERVING, 1 otherwise.
    """
    from lstmserve_server.cli import health_probe  # noqa: PLC0415

    sys.exit(health_probe.run(address, service, timeout, token_file, tls=tls, **files))
