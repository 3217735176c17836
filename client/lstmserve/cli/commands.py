"""Commands of `lstmserve-client`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import click
import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lstmserve import calls
from lstmserve.cli import files, report_tables
from lstmserve.cli.status_line import StatusLine
from lstmserve.cli.terminal import console
from lstmserve.client import Client
from lstmserve.credentials import Tls, Token
from lstmserve.errors import LstmServeError
from lstmserve.state import State
from lstmserve.text import make_printable

_CHUNK: Final = 512  # time-steps per call of `forward`: however a model that can be stepped is cut, it answers the same


class _Group(click.Group):
    """Click group that turns a failed call into one sentence and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (LstmServeError, TypeError, ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
@click.option(
    "--address",
    default="localhost:50051",
    envvar="LSTMSERVE_ADDRESS",
    show_envvar=True,
    show_default=True,
    help="Address of the server, or of several with the same models, comma-separated.",
)
@click.option(
    "--name",
    default="",
    envvar="LSTMSERVE_MODEL",
    show_envvar=True,
    help="Name of the model. Default: the only one that the server has.",
)
@click.option(
    "--timeout",
    default=calls.DEFAULT_TIMEOUT,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Maximum time of a call, in seconds.",
)
@click.option(
    "--tls",
    is_flag=True,
    envvar="LSTMSERVE_TLS",
    show_envvar=True,
    help="Use TLS. --ca, --certificate and --server-name imply it.",
)
@click.option("--ca", envvar="LSTMSERVE_CA", show_envvar=True, help="Trusted authorities (PEM).")
@click.option(
    "--certificate", envvar="LSTMSERVE_CERTIFICATE", show_envvar=True, help="Client certificate, for mutual TLS (PEM)."
)
@click.option("--key", envvar="LSTMSERVE_KEY", show_envvar=True, help="Private key of the client certificate (PEM).")
@click.option(
    "--server-name",
    envvar="LSTMSERVE_SERVER_NAME",
    show_envvar=True,
    help="Expected name in the server's certificate, if not that of the address.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False),
    envvar="LSTMSERVE_TOKEN_FILE",
    show_envvar=True,
    help="File with the token that identifies you.",
)
@click.version_option(package_name="lstmserve")
@click.pass_context
def lstmserve_client(
    context: click.Context,
    /,
    address: str,
    name: str,
    timeout: float,
    token_file: str | None,
    *,
    tls: bool,
    **tls_files: str | None,
) -> None:
    """Calls an lstmserve server.

    INPUT is a file of numbers, CSV or .npy, or - for standard input. Lines of CSV are time-steps (forward) or sequences
    (step), columns are features.

    Exit codes: 0 done, 1 the call failed, 2 bad arguments.
    """
    wanted = Tls(**tls_files) if tls or any(tls_files.values()) else None
    context.obj = context.with_resource(
        Client(address, model=name, timeout=timeout, tls=wanted, token=Token.from_file(token_file).get)
    )


def _in_and_out(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command INPUT, --output, --state and --save-state."""
    for decorate in (
        click.option("--save-state", type=click.Path(dir_okay=False), help="Write the final state to this file."),
        click.option(
            "--state", type=click.Path(exists=True, dir_okay=False), help="Continue from the state in this file."
        ),
        click.option(
            "--output",
            default=files.PIPE,
            help="Write the output to this file (.npy or CSV). Default: standard output.",
        ),
        click.argument("input", type=click.Path(exists=True, dir_okay=False, allow_dash=True), default=files.PIPE),
    ):
        command = decorate(command)
    return command


@lstmserve_client.command()
@_in_and_out
@click.pass_obj
def step(client: Client, input: str, output: str, state: str | None, save_state: str | None) -> None:  # noqa: A002
    """Advance by one time-step: every line of INPUT is a sequence of its own."""
    answer, after = client.step(files.read_array(input), _load(state))
    _write(answer, after, output, save_state)


@lstmserve_client.command()
@click.option("--all-outputs", is_flag=True, help="Return the output of every step, not only the last.")
@_in_and_out
@click.pass_obj
def forward(
    client: Client,
    input: str,  # noqa: A002
    output: str,
    state: str | None,
    save_state: str | None,
    all_outputs: bool,  # noqa: FBT001
) -> None:
    """Advance by a sequence: the lines of INPUT are the time-steps of one; .npy may hold (batch, time, features)."""
    x = files.read_array(input)
    answers, after = [], _load(state)
    for part in _chunks(x, client):
        answer, after = client.forward(part, after, all_outputs=all_outputs)
        answers.append(answer)
    _write(np.concatenate(answers, axis=-2) if all_outputs else answers[-1], after, output, save_state)


@lstmserve_client.command()
@click.argument("input", type=click.Path(exists=True, dir_okay=False, allow_dash=True), default=files.PIPE)
@click.option("--state", type=click.Path(exists=True, dir_okay=False), help="Continue from the state in this file.")
@click.option("--save-state", type=click.Path(dir_okay=False), help="Write the final state to this file.")
@click.option(
    "--in-flight",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Lines in flight. 1: answer each before reading the next.",
)
@click.option("--strict", is_flag=True, help="Never continue on a server whose answers may differ by rounding.")
@click.option(
    "--reconnect-timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Maximum time to look for a server, in seconds.",
)
@click.pass_obj
def stream(
    client: Client,
    input: str,  # noqa: A002
    state: str | None,
    save_state: str | None,
    in_flight: int,
    strict: bool,  # noqa: FBT001 - click's way
    reconnect_timeout: float,
) -> None:
    """Advance by one time-step per line of CSV, as the lines come, and write a line for each at once.

    When the server is lost, it continues with another: give --address several, with commas between them.
    """
    with (
        client.stream(state=_load(state), strict=strict, reconnect_timeout=reconnect_timeout) as opened,
        StatusLine(opened) as status,
    ):
        for output in opened.steps(status.sent(files.read_lines(input)), in_flight):
            files.write_array(files.PIPE, output)
            status.answered()
        if save_state is not None:
            opened.checkpoint().save(save_state)


@lstmserve_client.command()
@click.option("--all", "every", is_flag=True, help="Describe all models of the server.")
@click.pass_obj
def model(client: Client, every: bool) -> None:  # noqa: FBT001 - click's way
    """Describe the model, as JSON."""
    for description in client.models() if every else [client.model()]:
        click.echo(json_format.MessageToJson(description, preserving_proto_field_name=True))


@lstmserve_client.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def report(client: Client, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show how the answers of a server with shadow mode differ from those of Keras, and how many were compared."""
    found = client.shadow_report()
    if as_json:
        click.echo(json_format.MessageToJson(found, preserving_proto_field_name=True))
        return
    make_printable(found)
    console(width=140).print(report_tables.of_server(found))


def _chunks(x: NDArray[Any], client: Client) -> Iterator[NDArray[Any]]:
    """Cuts (..., time, features) along time, and shows a progress bar on a terminal if it takes long.

    A model that cannot be stepped looks ahead, and must be given the sequence whole.
    """
    steps = x.shape[-2] if x.ndim > 1 else 0
    if steps <= _CHUNK or not client.model().supports_step:
        yield x
        return
    columns = (TextColumn("time-steps"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("", total=steps)
        for start in range(0, steps, _CHUNK):
            part = x[..., start : start + _CHUNK, :]
            yield part
            progress.advance(task, part.shape[-2])


def _load(path: str | None) -> State | None:
    return None if path is None else State.load(path)


def _write(answer: NDArray[Any], state: State | None, output: str, save_state: str | None) -> None:
    files.write_array(output, answer)
    if save_state is not None and state is not None:
        state.save(save_state)
