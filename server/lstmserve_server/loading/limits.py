"""How much of a model file is believed, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a model file may ask for; beyond them it is refused before anything is allocated for it."""

    file_bytes: int = 2 << 30
    """Size of the file, and of the weights that its configuration asks for."""

    config_bytes: int = 4 << 20
    """Size of the configuration, as text."""

    config_depth: int = 64
    """Depth of the configuration's nesting."""

    zip_members: int = 256
    """Number of members of a `.keras` archive."""

    zip_ratio: int = 100
    """How many times larger than in the archive a deflated member may be; trained weights hardly shrink."""

    layers: int = 256
    """Number of layers."""

    units: int = 16_384
    """Units of a layer."""

    features: int = 1 << 20
    """Length of the last axis of the input."""

    seconds: int = 60
    """Time that a file may take."""

    attribute_bytes: int = 16 << 20
    """Size of an HDF5 attribute."""
