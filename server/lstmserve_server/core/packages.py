"""Installed packages: their versions, and what an optional feature needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib import metadata

from lstmserve_server.core.errors import StartupError


def version_of(package: str) -> str:
    """Returns the version of an installed package; "unknown" if it runs from its source."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def missing(modules: Iterable[str]) -> list[str]:
    """Returns the modules that cannot be found, without importing them; of a dotted name, its parents are imported."""
    return [name for name in modules if not _is_installed(name)]


def require(modules: Iterable[str], feature: str, extra: str) -> None:
    """Requires the packages of an optional feature.

    Args:
        modules: the modules that the feature imports.
        feature: what needs them, for the error: "--engine onnxruntime".
        extra: the extra of our package that installs them.

    Raises:
        StartupError: a module is not installed.
    """
    absent = missing(modules)
    if absent:
        message = (
            f"{feature} needs packages that are not installed ({', '.join(absent)}): pip install 'lstmserve[{extra}]'"
        )
        raise StartupError(message)


def require_keras() -> None:
    """Requires what a comparison with Keras imports.

    Raises:
        StartupError: a package is not installed.
    """
    require(("tensorflow", "keras", "tf_keras"), "a comparison with Keras", "shadow")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
