"""Which version of a package is there."""

from __future__ import annotations

from importlib import metadata


def of(package: str) -> str:
    """Returns the version of a package that is installed; "unknown" where it runs from its source."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
