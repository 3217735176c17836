"""Which shadow a server has, by its settings."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Final

from lstmserve_server.errors import StartFailed
from lstmserve_server.shadow.base import NoShadow
from lstmserve_server.shadow.comparing import Tolerances

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lstmserve_server.registry import ServedModel
    from lstmserve_server.settings import ServeSettings
    from lstmserve_server.shadow.base import Shadow

_NEEDED: Final = ("tensorflow", "keras", "tf_keras")


def require_installed() -> None:
    """Returns if there is a Keras to compare with.

    Raises:
        StartFailed: there is none.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        message = (
            f"a comparison with Keras needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'lstmserve[shadow]'"
        )
        raise StartFailed(message)


def tolerances(settings: ServeSettings) -> Tolerances:
    """Returns how far an answer may be off."""
    return Tolerances(settings.shadow_tolerance_h, settings.shadow_tolerance_c, settings.shadow_tolerance_unbounded)


def start(settings: ServeSettings, models: Iterable[ServedModel], files: Mapping[str, str]) -> Shadow:
    """Returns the shadow of a server, which starts by itself while the server goes on.

    Args:
        settings: those of the server.
        models: its models.
        files: the file of each.
    """
    rate = _rate(settings.shadow)
    if not rate:
        return NoShadow()
    from lstmserve_server.shadow import keras_shadow  # noqa: PLC0415 - only who wants it pays for it
    from lstmserve_server.shadow.process import Limits, Subject  # noqa: PLC0415 - the same

    part = settings.layer, settings.until, settings.architecture
    subjects = [Subject(served, files[served.name], *part) for served in models]
    return keras_shadow.KerasShadow(
        keras_shadow.ShadowSettings(
            rate=rate,
            tolerances=tolerances(settings),
            limits=Limits(
                threads=settings.shadow_threads,
                niceness=settings.shadow_nice,
                memory_bytes=settings.shadow_memory_bytes,
                seconds=settings.shadow_seconds,
            ),
            queue=settings.shadow_queue,
            queue_bytes=settings.shadow_queue_bytes,
            wait_seconds=settings.shadow_wait_seconds,
            bundles=settings.shadow_bundles,
            most_bundles=settings.shadow_max_bundles,
            bundle_bytes=settings.shadow_max_bundle_bytes,
        ),
        subjects,
    )


def _rate(mode: str) -> float:
    """Returns the share of the calls that a mode stands for."""
    words = {"off": 0.0, "all": 1.0}
    return words[mode] if mode in words else float(mode)
