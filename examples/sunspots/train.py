"""Trains the bundled model: next year's sunspots from those of the years before.

    make train

Writes `sunspots.csv` (the measurements, out of the statsmodels package), `sunspots.keras` (the model), and `sunspots.json`
(how it was trained, and its error on years that it has not seen, beside that of naive persistence: "next year will be as
this year").
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import statsmodels
from statsmodels.datasets import sunspots

HERE = Path(__file__).parent
SCALE = 100.0  # the model sees sunspot numbers divided by this
FIRST_TEST_YEAR = 1950
WINDOW = 66  # six solar cycles
SEED = 1755  # the first year of solar cycle 1


def build(*, return_sequences: bool) -> keras.Model:
    """Returns the untrained model: two LSTMs and a Dense head."""
    return keras.Sequential(
        [
            keras.layers.Input((None, 1)),
            keras.layers.LSTM(48, return_sequences=True, name="slow"),
            keras.layers.Dropout(0.1, name="dropout"),
            keras.layers.LSTM(24, return_sequences=return_sequences, name="fast"),
            keras.layers.Dense(1, name="head"),
        ],
        name="sunspots",
    )


def windows(series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns every window of a series and, for each of its years, the year after: each (windows, time, 1)."""
    x = np.lib.stride_tricks.sliding_window_view(series[:-1], WINDOW)
    y = np.lib.stride_tricks.sliding_window_view(series[1:], WINDOW)
    return x[..., None], y[..., None]


def root_mean_square(errors: np.ndarray) -> float:
    """Returns the root of the mean of the squares."""
    return float(np.sqrt(np.mean(np.square(errors))))


def main() -> None:
    """Trains, measures, and writes."""
    keras.utils.set_random_seed(SEED)
    data = sunspots.load_pandas().data
    years, counts = data["YEAR"].to_numpy(np.int64), data["SUNACTIVITY"].to_numpy(np.float64)
    rows = [f"{year},{count:g}" for year, count in zip(years, counts, strict=True)]
    (HERE / "sunspots.csv").write_text("\n".join(["year,sunspots", *rows, ""]))

    series = (counts / SCALE).astype(np.float32)
    seen = series[years < FIRST_TEST_YEAR]
    learner = build(return_sequences=True)
    learner.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, 60 * 6)), loss="mse")
    learner.fit(*windows(seen), epochs=60, batch_size=32, verbose=2)

    model = build(return_sequences=False)
    model.set_weights(learner.get_weights())
    model.save(HERE / "sunspots.keras")

    forecast = learner.predict(series[None, :-1, None], verbose=0)[0, :, 0] * SCALE  # of the years from the second on
    test = years[1:] >= FIRST_TEST_YEAR
    report = {
        "data": "yearly mean sunspot numbers 1700-2008 (WDC-SILSO, Royal Observatory of Belgium), public domain, as "
        f"carried by statsmodels {statsmodels.__version__}",
        "scale": SCALE,
        "trained_on": f"{years[0]}-{FIRST_TEST_YEAR - 1}",
        "tested_on": f"{FIRST_TEST_YEAR}-{years[-1]}",
        "test_rmse": round(root_mean_square((forecast - counts[1:])[test]), 2),
        "test_rmse_of_persistence": round(root_mean_square((counts[:-1] - counts[1:])[test]), 2),
        "seed": SEED,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
    (HERE / "sunspots.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
