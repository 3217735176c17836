"""Loads the models of a server by name: from their files, or from the process that has read them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import structlog

from lstmserve_server.core.errors import SettingsError, StartupError, UnsupportedModelError
from lstmserve_server.loading import sandbox
from lstmserve_server.loading.store import memory_files
from lstmserve_server.loading.store.limits import LoadLimits
from lstmserve_server.loading.store.memory_files import SealedCopy
from lstmserve_server.model.engines import select
from lstmserve_server.model.numerics import Engine, Numerics
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.serving.settings import ServeSettings

_log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def by_name(arguments: tuple[str, ...]) -> dict[str, str]:
    """Returns the file of each model by the model's name: `NAME=FILE`, or `FILE`, which is named after itself.

    Raises:
        SettingsError: a name cannot be used, or occurs twice.
    """
    files: dict[str, str] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or "/" in name:  # a path may have an equals sign in it
            name, file = Path(argument).name.split(".", maxsplit=1)[0], argument
        if not file:
            message = f"{argument!r} names no file; expected FILE or NAME=FILE"
            raise SettingsError(message)
        if not _NAME.fullmatch(name):
            message = (
                f"{name!r} cannot be the name of a model; expected up to 64 letters, digits, '.', '_' and '-', beginning with a "
                f"letter or digit. Name it yourself: NAME={file}"
            )
            raise SettingsError(message)
        if name in files:
            message = f"two models are called {name!r}: {files[name]} and {file}. Name them apart: NAME=FILE"
            raise SettingsError(message)
        files[name] = file
    return files


async def from_files(settings: ServeSettings, files: Mapping[str, str]) -> list[ServedModel]:
    """Returns the models in files, loaded and tested.

    Raises:
        StartupError: one of them is refused.
    """
    with memory_files.weights_memfd() as weights:
        copies = await copies_of(settings, files)
        found = await export_specs(settings, files, weights, copies)
        return await import_specs(settings, found, files, weights, copies)


async def copies_of(settings: ServeSettings, files: Mapping[str, str]) -> dict[str, SealedCopy]:
    """Returns sealed copies of the files by model, so that Keras reads the same bytes; none without shadow mode."""
    if settings.shadow == "off":
        return {}
    made = {
        name: await asyncio.to_thread(memory_files.copy_of, files[name], settings.max_model_bytes) for name in files
    }
    return {name: copy for name, copy in made.items() if copy is not None}


async def export_specs(
    settings: ServeSettings, files: Mapping[str, str], weights: int, copies: Mapping[str, SealedCopy]
) -> dict[str, dict[str, Any]]:
    """Returns the models in files in the form in which this process or another takes them, see `store.transfer`.

    Args:
        settings: those of the server.
        files: the file of each model.
        weights: file in memory where the weights are put; it is sealed afterwards.
        copies: of files, which are read in their place.

    Raises:
        StartupError: one of them is refused.
    """
    found: dict[str, dict[str, Any]] = {}
    read_instead = {files[name]: copy.descriptor for name, copy in copies.items()}
    parsed = sandbox.parse(list(files.values()), weights, _limits(settings), **_part(settings), copies=read_instead)
    name = ""
    try:
        async with contextlib.aclosing(parsed):
            for name in files:
                found[name] = await anext(parsed)
        sandbox.seal(weights, files[name])
    except UnsupportedModelError as error:
        raise _not_started(name, error) from error
    return found


async def import_specs(
    settings: ServeSettings,
    found: Mapping[str, dict[str, Any]],
    files: Mapping[str, str],
    weights: int,
    copies: Mapping[str, SealedCopy],
) -> list[ServedModel]:
    """Returns the models that were read with `forms`, here or in another process; their weights are shared with it.

    Raises:
        StartupError: one of them is refused.
    """
    numerics, engine = Numerics(settings.numerics), Engine(settings.engine)
    select.require_installed(engine)
    models = []
    for name, form in found.items():
        began = perf_counter()
        try:
            description = sandbox.to_spec(form, files[name], weights)
            served = await asyncio.to_thread(ServedModel.prepare, name, description, numerics, engine, copies.get(name))
        except UnsupportedModelError as error:
            raise _not_started(name, error) from error
        _log_loaded(served, perf_counter() - began)
        models.append(served)
    return models


def _log_loaded(served: ServedModel, seconds: float) -> None:
    description = served.model.description
    _log.info(
        "model_loaded",
        model=served.name,
        digest=served.digest[:12],
        fingerprint=served.fingerprint,
        engine=served.model.engine,
        keras=description.source.keras_version,
        parameters=description.parameter_count,
        seconds=round(seconds, 3),
    )
    for remark in served.model.engine_remarks:
        _log.info("engine_not_used", model=served.name, reason=remark)


def _limits(settings: ServeSettings) -> LoadLimits:
    return LoadLimits(file_bytes=settings.max_model_bytes, seconds=settings.load_seconds)


def _part(settings: ServeSettings) -> dict[str, str | None]:
    return {"layer": settings.layer, "until": settings.until, "architecture": settings.architecture}


def _not_started(name: str, error: UnsupportedModelError) -> StartupError:
    return StartupError(f"model {name!r} is refused. {error}")
