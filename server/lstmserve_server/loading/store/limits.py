"""Limits on what loading a model file may allocate, and on its structure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lstmserve_server.model.spec import Shape


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """Limits on what a model file may ask for, checked before anything is allocated."""

    file_bytes: int = 2 << 30
    """Size of the file, and of the weights that its configuration asks for."""

    config_bytes: int = 4 << 20
    """Size of the configuration, as text."""

    config_depth: int = 64
    """Depth of the configuration's nesting."""

    shards: int = 4096
    """Number of files that hold the weights of one model."""

    index_bytes: int = 32 << 20
    """Size of the index of a TensorFlow checkpoint, and of a SavedModel's graph."""

    nodes: int = 200_000
    """Number of objects in the graph of a TensorFlow checkpoint or SavedModel; a model of 20 layers has some 2,000."""

    zip_members: int = 256
    """Number of members of a `.keras` archive."""

    zip_ratio: int = 100
    """How many times larger than in the archive a deflated member may be; trained weights hardly shrink."""

    layers: int = 256
    """Number of layers."""

    calls: int = 1024
    """Number of calls of layers, those within models that are called several times among them."""

    axes: int = 6
    """Number of axes of what flows between layers, alongside that of the batch."""

    steps: int = 65_536
    """Number of time-steps of what flows between layers, where a file fixes it."""

    steps_of_all: int = 262_144
    """The same of all layers together."""

    numbers: int = 1 << 24
    """How many numbers flow between two layers for one row, as far as a file fixes it, and how many a window holds."""

    units: int = 16_384
    """Units of a layer."""

    features: int = 1 << 20
    """Length of the last axis of the input."""

    seconds: int = 60
    """Time that a file may take."""

    attribute_bytes: int = 16 << 20
    """Size of an HDF5 attribute."""


def flow(shape: Shape) -> tuple[int, int]:
    """Returns the number of time steps and of values per row of a shape, as far as the file fixes them."""
    steps = shape[0] or 1 if len(shape) > 1 else 1
    return steps, math.prod(length or 1 for length in shape)
