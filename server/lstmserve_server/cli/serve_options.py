"""Reads the settings of `serve` from flags, environment variables and a TOML file. Their help is in `serving.settings`.

The first source that has a setting wins: the flag, the variable `LSTMSERVE_...`, the file given by `--config`, the default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, Final, TypeVar

import click

from lstmserve_server.serving.settings import ServeSettings

_PREFIX: Final = "LSTMSERVE_"

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def options(command: _Command) -> _Command:
    """Gives a command the settings of `ServeSettings` as arguments and options."""
    for item in reversed(fields(ServeSettings)):
        variable = _PREFIX + item.name.upper()
        if item.default is MISSING:
            command = click.argument(item.name, nargs=-1, required=True, envvar=variable, metavar="[NAME=]FILE...")(
                command
            )
            continue
        multiple = isinstance(item.default, tuple)
        flag = "--" + item.name.replace("_", "-")
        command = click.option(
            f"{flag}/--no-{flag[2:]}" if item.metadata["kind"] is bool else flag,
            type=item.metadata["kind"],
            default=list(item.default) if multiple else item.default,
            multiple=multiple,
            envvar=variable,
            show_envvar=True,
            show_default=item.default is not None,
            help=item.metadata["help"],
        )(command)
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False),
        envvar=f"{_PREFIX}CONFIG",
        show_envvar=True,
        is_eager=True,
        expose_value=False,
        callback=_read_file,
        help="Settings file (TOML). Keys are the flags without leading dashes.",
    )(command)


def _read_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:  # noqa: ARG001 - click's
    """Reads settings from a file as the defaults of the command."""
    if path is None:
        return
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - click has the path as text
            values = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not valid TOML: {error}"
        raise click.UsageError(message) from error
    known = {item.name for item in fields(ServeSettings)}
    settings = {key.replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(settings.keys() - known)
    if unknown:
        message = (
            f"{path} has the setting {unknown[0]!r}, which is not known; expected one of: {', '.join(sorted(known))}"
        )
        raise click.UsageError(message)
    if len(settings) < len(values):
        message = f"{path} has a setting twice, once with dashes and once with underscores"
        raise click.UsageError(message)
    for item in fields(ServeSettings):
        if item.name in settings and not _fits(settings[item.name], item):
            message = f"{path} has {item.name} = {settings[item.name]!r}; expected {_expected(item)}"
            raise click.UsageError(message)
    context.default_map = {**(context.default_map or {}), **settings}


def _fits(value: Any, item: Field[Any]) -> bool:
    """Returns whether a value of TOML is of the type of a setting."""
    match _expected(item):
        case "a list of texts":
            return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)
        case "true or false":
            return isinstance(value, bool)
        case "a number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "an integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _expected(item: Field[Any]) -> str:
    if item.default is MISSING or isinstance(item.default, tuple):
        return "a list of texts"
    kinds = {bool: "true or false", float: "a number", int: "an integer"}
    return kinds.get(type(item.default), "text")
