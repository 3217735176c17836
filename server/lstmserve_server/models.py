"""The models of a server, by name: from their files, or from the process that has read these."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import structlog

from lstmserve_server.engines import choose
from lstmserve_server.errors import BadSettings, ModelRefused, StartFailed
from lstmserve_server.loading import sandbox
from lstmserve_server.loading.limits import Limits
from lstmserve_server.numerics import Engine, Numerics
from lstmserve_server.registry import ServedModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from lstmserve_server.description import ModelDescription
    from lstmserve_server.settings import ServeSettings

_log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def by_name(arguments: tuple[str, ...]) -> dict[str, str]:
    """Returns the file of each model by the model's name: `NAME=FILE`, or `FILE`, which is named after itself.

    Raises:
        BadSettings: a name cannot be used, or stands twice.
    """
    files: dict[str, str] = {}
    for argument in arguments:
        name, equals, file = argument.partition("=")
        if not equals or "/" in name:  # a path may have an equals sign in it
            name, file = Path(argument).name.split(".", maxsplit=1)[0], argument
        if not file:
            message = f"{argument!r} names no file; expected FILE or NAME=FILE"
            raise BadSettings(message)
        if not _NAME.fullmatch(name):
            message = (
                f"{name!r} cannot be the name of a model; expected up to 64 letters, digits, '.', '_' and '-', beginning with a "
                f"letter or digit. Name it yourself: NAME={file}"
            )
            raise BadSettings(message)
        if name in files:
            message = f"two models are called {name!r}: {files[name]} and {file}. Name them apart: NAME=FILE"
            raise BadSettings(message)
        files[name] = file
    return files


async def from_files(settings: ServeSettings, files: Mapping[str, str]) -> list[ServedModel]:
    """Returns the models in files, loaded and tested.

    Raises:
        StartFailed: one of them is refused.
    """
    descriptions = sandbox.load(list(files.values()), _limits(settings), **_part(settings))
    async with contextlib.aclosing(descriptions):
        return [model async for model in _prepared(settings, files, descriptions)]


async def forms(settings: ServeSettings, files: Mapping[str, str], weights: int) -> dict[str, dict[str, Any]]:
    """Returns the models in files in the form in which another process takes them, with `from_forms`.

    Args:
        settings: those of the server.
        files: the file of each model.
        weights: file in memory where the weights are put.

    Raises:
        StartFailed: one of them is refused.
    """
    found: dict[str, dict[str, Any]] = {}
    async with contextlib.aclosing(
        sandbox.parse(list(files.values()), weights, _limits(settings), **_part(settings))
    ) as parsed:
        for name in files:
            try:
                found[name] = await anext(parsed)
            except ModelRefused as error:
                raise _not_started(name, error) from error
    return found


async def from_forms(
    settings: ServeSettings, found: Mapping[str, dict[str, Any]], files: Mapping[str, str], weights: int
) -> list[ServedModel]:
    """Returns the models that another process has read with `forms`; their weights are shared with it.

    Raises:
        StartFailed: one of them is refused.
    """

    async def descriptions() -> AsyncIterator[ModelDescription]:
        """Yields them as `sandbox.load` does."""
        for name, form in found.items():
            yield sandbox.described(form, files[name], weights)

    return [model async for model in _prepared(settings, files, descriptions())]


async def _prepared(
    settings: ServeSettings, files: Mapping[str, str], descriptions: AsyncIterator[ModelDescription]
) -> AsyncIterator[ServedModel]:
    numerics, engine = Numerics(settings.numerics), Engine(settings.engine)
    choose.require_installed(engine)
    for name in files:
        began = perf_counter()
        try:
            description = await anext(descriptions)
            served = await asyncio.to_thread(ServedModel.prepare, name, description, numerics, engine)
        except ModelRefused as error:
            raise _not_started(name, error) from error
        _log.info(
            "model_loaded",
            model=name,
            digest=served.digest[:12],
            fingerprint=served.fingerprint,
            engine=served.model.engine,
            keras=description.source.keras_version,
            parameters=description.parameter_count,
            seconds=round(perf_counter() - began, 3),
        )
        for remark in served.model.engine_remarks:
            _log.info("engine_not_used", model=name, reason=remark)
        yield served


def _limits(settings: ServeSettings) -> Limits:
    return Limits(file_bytes=settings.max_model_bytes, seconds=settings.load_seconds)


def _part(settings: ServeSettings) -> dict[str, str | None]:
    return {"layer": settings.layer, "until": settings.until, "architecture": settings.architecture}


def _not_started(name: str, error: ModelRefused) -> StartFailed:
    return StartFailed(f"model {name!r} is refused. {error}")
