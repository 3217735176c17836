"""From a file of measurements to the numbers that the model knows, and back.

The server knows numbers only: gaps, the time of day and the units are the caller's. Training and forecasting use this one
module, since a model that is served other numbers than it was trained on fails without a sign.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MEASURED = ("temperature", "humidity", "pressure", "wind")  # degrees Celsius, %, hPa, m/s
CHANNELS = (*MEASURED, "day_sin", "day_cos")
TEMPERATURE = CHANNELS.index("temperature")
INTERVAL = timedelta(hours=3)
DAY = timedelta(days=1) // INTERVAL  # measurements in a day


def read(path: Path) -> tuple[list[datetime], np.ndarray]:
    """Returns the times, and the channels in their own units, (time, channels).

    Raises:
        ValueError: the columns, the numbers or the times are not those that are expected.
    """
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if not {"time", *MEASURED} <= set(reader.fieldnames or ()):
            message = f"{path} has the columns {reader.fieldnames}; expected time, {', '.join(MEASURED)}"
            raise ValueError(message)
        times, rows = [], []
        for row in reader:
            try:
                times.append(datetime.fromisoformat(row["time"]).astimezone(UTC))
                rows.append([float(row[name]) if row[name] else np.nan for name in MEASURED])
            except (TypeError, ValueError) as error:
                message = f"{path}, line {reader.line_num}: {error}; expected a time, and a number or nothing for each channel"
                raise ValueError(message) from None
    for before, after in pairwise(times):
        if after - before != INTERVAL:
            message = f"{path} has a row for {before}, and the next for {after}; expected one every {INTERVAL}"
            raise ValueError(message)
    if not rows or np.isnan(rows[0]).any():
        message = f"{path} begins without a measurement of every channel; expected one, to fill later gaps from"
        raise ValueError(message)
    return times, np.column_stack([fill(np.array(rows)), time_of_day(times)])


def fill(table: np.ndarray) -> np.ndarray:
    """Returns (time, channels) with each gap filled by what was measured last.

    A line drawn to the next measurement would look nicer, and would show the model what is not yet known.
    """
    rows = np.arange(len(table))[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(table), 0, rows))
    return np.take_along_axis(table, last, axis=0)


def time_of_day(times: Sequence[datetime]) -> np.ndarray:
    """Returns the hand of a clock with 24 hours, (time, 2): unlike the hour's number it does not jump at midnight."""
    angle = np.array([2 * np.pi * (time.hour + time.minute / 60) / 24 for time in times])
    return np.column_stack([np.sin(angle), np.cos(angle)])


@dataclass(frozen=True, slots=True, eq=False)
class Scaler:
    """Brings every channel to mean 0 and deviation 1, since hectopascals would drown meters per second."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, channels: np.ndarray) -> Scaler:
        """Returns the scaler of (time, channels): those trained on, as the others are not known yet."""
        return cls(channels.mean(axis=0), channels.std(axis=0))

    @classmethod
    def from_json(cls, entry: Mapping[str, Mapping[str, float]]) -> Scaler:
        """Returns the scaler that `to_json` described. By name, so that channels cannot be exchanged."""
        return cls(
            np.array([entry[name]["mean"] for name in CHANNELS]),
            np.array([entry[name]["standard_deviation"] for name in CHANNELS]),
        )

    def to_json(self) -> dict[str, dict[str, float]]:
        """Returns plain numbers for a JSON file: nothing of it needs the library, or the version, that fitted it."""
        pairs = zip(CHANNELS, self.mean.tolist(), self.deviation.tolist(), strict=True)
        return {name: {"mean": mean, "standard_deviation": deviation} for name, mean, deviation in pairs}

    def scale(self, channels: np.ndarray) -> np.ndarray:
        """Returns (time, channels) as the model knows them."""
        scaled: np.ndarray = (channels - self.mean) / self.deviation
        return scaled.astype(np.float32)

    def unscale(self, values: np.ndarray, channel: int) -> np.ndarray:
        """Returns values of one channel in its own unit."""
        unscaled: np.ndarray = values.astype(np.float64) * self.deviation[channel] + self.mean[channel]
        return unscaled


def root_mean_square(errors: np.ndarray) -> float:
    """Returns the root of the mean of the squares."""
    return float(np.sqrt(np.mean(np.square(errors))))
