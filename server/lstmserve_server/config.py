"""Every setting once: its flag, environment variable, key in the file, default, unit and help come from one field.

A setting is taken from the first place that has it: the flag, the variable `LSTMSERVE_...`, the file given by `--config`
(TOML), the default.
"""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX: Final = "LSTMSERVE_"

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class Seconds(click.FloatRange):
    """A time from nothing to an hour; never "not a number", which no bound holds back."""

    def __init__(self) -> None:
        super().__init__(0, 3600)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number of seconds."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


class _Rate(click.ParamType):  # type: ignore[type-arg]  # of some versions of click
    """A share of the calls: off, all, or a number from 0 to 1."""

    name = "off|RATE|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the words as they are, and a number if it is a share."""
        if value in ("off", "all"):
            return str(value)
        try:
            share = float(value)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share of the calls; expected off, all, or a number from 0 to 1.", param, ctx)
        return str(value)


class _Positive(click.FloatRange):
    """A number above 0, and never "not a number"."""

    def __init__(self, largest: float) -> None:
        super().__init__(0, largest, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


def _setting(default: Any, kind: Any, text: str) -> Any:
    """Returns a field with a default, the click type of its values, and its help."""
    return field(default=default, metadata={"kind": kind, "help": text})


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The settings of `lstmserve serve`."""

    models: tuple[str, ...]
    """The models to serve, each FILE or NAME=FILE."""

    listen: tuple[str, ...] = _setting(
        ("127.0.0.1:50051",),
        str,
        "Address to listen on: HOST:PORT, [IPV6]:PORT or unix:PATH. May be given several times.",
    )
    workers: int = _setting(
        1,
        click.IntRange(1, 256),
        "Server processes that share the addresses and the weights. All limits are those of each. 1: no others, and Unix "
        "sockets can be listened on.",
    )
    layer: str | None = _setting(None, str, "Serve this one LSTM layer of the model instead of the whole.")
    until: str | None = _setting(
        None, str, "Serve the model as far as this layer, whose output is then the model's, instead of the whole."
    )
    architecture: str | None = _setting(
        None,
        str,
        "File with the model's configuration (model.to_json()), for a file that holds weights alone. Found by itself "
        "where it lies beside: FILE.json, model.json and the like.",
    )
    numerics: str = _setting(
        "exact",
        click.Choice(["exact", "fast"]),
        "How to compute. exact: a row's answer has the same bytes whatever rows it is computed with. fast: quicker for "
        "many rows, and the answer moves by rounding errors with them.",
    )
    tls_certificate: str | None = _setting(
        None,
        str,
        "File with the server's certificate and those between it and a known authority (PEM). All addresses then speak TLS, and "
        "nothing else. Read anew when it changes.",
    )
    tls_key: str | None = _setting(None, str, "File with the private key of the certificate (PEM, without a password).")
    tls_client_ca: str | None = _setting(
        None,
        str,
        "File with the authorities of clients (PEM). A client must then show a certificate of theirs (mutual TLS).",
    )
    reflection: bool = _setting(True, bool, "Let clients ask for the contract (gRPC server reflection).")  # noqa: FBT003

    max_message_bytes: int = _setting(
        16 << 20, click.IntRange(1 << 12, (1 << 31) - 1), "Largest request and response, in bytes."
    )
    max_rows: int = _setting(1024, click.IntRange(1), "Most rows (sequences) in a request.")
    max_steps: int = _setting(65_536, click.IntRange(1), "Most time-steps in a request.")
    max_sequence_bytes: int = _setting(
        256 << 20, click.IntRange(1), "Most memory for a sequence that a model reads whole (go_backwards), in bytes."
    )
    max_concurrent_calls: int = _setting(256, click.IntRange(1), "Most calls at a time; more are refused at once.")
    max_streams: int = _setting(1024, click.IntRange(1), "Most streams at a time; more are refused at once.")
    stream_idle_seconds: float = _setting(
        0.0, Seconds(), "How long a stream may be without a message before it is ended, in seconds. 0: for ever."
    )
    max_model_bytes: int = _setting(2 << 30, click.IntRange(1), "Largest model file, in bytes.")
    load_seconds: int = _setting(60, click.IntRange(1), "Most time that a model file may take to be read, in seconds.")
    compute_threads: int = _setting(
        0,
        click.IntRange(0),
        "Threads for calls that take long; short ones are computed where they arrive. 0: one per CPU.",
    )

    shadow: str = _setting(
        "off",
        _Rate(),
        "Compare this share of the calls with the real Keras layer, in a process of its own. Needs the extra 'shadow'.",
    )
    shadow_tolerance_h: float = _setting(
        1e-5, _Positive(1), "How far h, and what is computed from it, may be off: times max(1, |value|), in float32."
    )
    shadow_tolerance_c: float = _setting(1e-5, _Positive(1), "The same of c.")
    shadow_tolerance_unbounded: float = _setting(
        1e-3, _Positive(1), "The same of both, in a layer whose activation has no bound, such as relu."
    )
    shadow_bundles: str | None = _setting(
        None,
        str,
        "Folder where calls over tolerance are written as bundles for lstmserve replay. They hold what callers sent.",
    )
    shadow_max_bundles: int = _setting(100, click.IntRange(1), "Most bundles in that folder.")
    shadow_max_bundle_bytes: int = _setting(256 << 20, click.IntRange(1), "Most bytes of bundles in that folder.")
    shadow_queue: int = _setting(256, click.IntRange(1), "Most calls that wait to be compared; more are not compared.")
    shadow_queue_bytes: int = _setting(64 << 20, click.IntRange(1), "Most memory for calls that wait to be compared.")
    shadow_seconds: float = _setting(
        30.0, _Positive(3600), "Longest time for comparing one call; then the process is started anew. In seconds."
    )
    shadow_wait_seconds: float = _setting(
        5.0, Seconds(), "How long a call that asks for the comparison waits for it. In seconds."
    )
    shadow_threads: int = _setting(1, click.IntRange(1, 256), "Threads of the process that computes with Keras.")
    shadow_nice: int = _setting(10, click.IntRange(0, 19), "How far it steps back behind the server for the CPUs.")
    shadow_memory_bytes: int = _setting(
        0,
        click.IntRange(0),
        "Most memory that it may allocate, in bytes. TensorFlow alone takes some 600 MB. 0: no limit.",
    )
    metrics: str | None = _setting(
        None,
        str,
        "Address for operators, HOST:PORT: /metrics for Prometheus, and /healthz, which answers 200 while the server says SERVING, "
        "else 503. In plain text. With several workers the first has this port, the next the one above it, and so on.",
    )

    lame_duck_seconds: float = _setting(
        1.0,
        Seconds(),
        "After SIGTERM or SIGINT, how long to go on answering while health says NOT_SERVING, so that clients and balancers "
        "turn away first. In seconds.",
    )
    drain_seconds: float = _setting(
        10.0, Seconds(), "After that, how long to wait for running calls before they are cut off. In seconds."
    )
    log_format: str = _setting(
        "auto", click.Choice(["auto", "text", "json"]), "How to log. auto: text on a terminal, else JSON."
    )
    log_level: str = _setting("info", click.Choice(["debug", "info", "warning", "error"]), "What to log.")

    @property
    def any_tls(self) -> bool:
        """Whether anything is said of TLS."""
        return any((self.tls_certificate, self.tls_key, self.tls_client_ca))

    @property
    def threads(self) -> int:
        """The number of threads that `compute_threads` stands for."""
        return self.compute_threads or len(os.sched_getaffinity(0))


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
        help="File with settings (TOML): the flags without dashes in front, such as max-rows = 64.",
    )(command)


def _read_file(context: click.Context, parameter: click.Parameter, path: str | None) -> None:  # noqa: ARG001 - click's
    """Makes the settings in a file the defaults of the command."""
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
        message = f"{path} has the setting {unknown[0]!r}, which is not known; these are: {', '.join(sorted(known))}"
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
        case "a whole number":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _expected(item: Field[Any]) -> str:
    if item.default is MISSING or isinstance(item.default, tuple):
        return "a list of texts"
    kinds = {bool: "true or false", float: "a number", int: "a whole number"}
    return kinds.get(type(item.default), "text")
