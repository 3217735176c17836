"""Starts the shadow that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.serving.settings import ServeSettings
from lstmserve_server.shadow.base import NoShadow, Shadow
from lstmserve_server.shadow.compare import Tolerances


def tolerances(settings: ServeSettings) -> Tolerances:
    """Returns the tolerances of the comparison."""
    return Tolerances(settings.shadow_tolerance_h, settings.shadow_tolerance_c, settings.shadow_tolerance_unbounded)


def start(settings: ServeSettings, models: Iterable[ServedModel], files: Mapping[str, str]) -> Shadow:
    """Returns the shadow of a server. Its reference starts in the background.

    Args:
        settings: those of the server.
        models: its models.
        files: the file of each.
    """
    rate = _rate(settings.shadow)
    if not rate:
        return NoShadow()
    from lstmserve_server.shadow import keras_shadow  # noqa: PLC0415 - only who wants it pays for it
    from lstmserve_server.shadow.reference_process import ComparedModel, ReferenceLimits  # noqa: PLC0415 - the same

    part = settings.layer, settings.until, settings.architecture
    subjects = [ComparedModel(served, files[served.name], *part) for served in models]
    return keras_shadow.KerasShadow(
        keras_shadow.ShadowSettings(
            rate=rate,
            tolerances=tolerances(settings),
            limits=ReferenceLimits(
                threads=settings.shadow_threads,
                niceness=settings.shadow_nice,
                memory_bytes=settings.shadow_memory_bytes,
                seconds=settings.shadow_seconds,
            ),
            queue=settings.shadow_queue,
            queue_bytes=settings.shadow_queue_bytes,
            wait_seconds=settings.shadow_wait_seconds,
            bundles=settings.shadow_bundles,
            max_bundles=settings.shadow_max_bundles,
            bundle_bytes=settings.shadow_max_bundle_bytes,
        ),
        subjects,
    )


def _rate(mode: str) -> float:
    """Returns the sampling rate of a mode."""
    words = {"off": 0.0, "all": 1.0}
    return words[mode] if mode in words else float(mode)
