"""Forecasts the sunspots, year after year, through a real server.

    make demo

Starts `lstmserve serve`, feeds it the measured series one year at a time, carrying the state from call to call, and shows
each forecast of the next year beside what came: in the terminal, and as `demo.png`.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import plotext

from lstmserve import Client

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
REPORT = json.loads((HERE / "sunspots.json").read_text())
FIRST_TEST_YEAR = int(REPORT["tested_on"].split("-")[0])


def read_series() -> tuple[np.ndarray, np.ndarray]:
    """Returns years and sunspot numbers."""
    with (HERE / "sunspots.csv").open(newline="") as file:
        rows = [(int(row["year"]), float(row["sunspots"])) for row in csv.DictReader(file)]
    years, counts = zip(*rows, strict=True)
    return np.array(years), np.array(counts)


def start_server() -> tuple[subprocess.Popen[str], str]:
    """Starts a server on a free port, waits until it is ready, and returns it with its address."""
    command = [sys.executable, "-m", "lstmserve_server.cli", "serve", f"sunspots={HERE / 'sunspots.keras'}"]
    server = subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--lame-duck-seconds", "0", "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    for line in server.stderr:
        entry = json.loads(line)
        if entry["event"] == "serving":
            return server, entry["listen"][0]
    message = "the server did not start"
    raise RuntimeError(message)


def forecast(client: Client, counts: np.ndarray) -> np.ndarray:
    """Returns, after each year, the forecast of the next: one call per year, the state in our hands."""
    forecasts, state = [], None
    for count in counts:
        output, state = client.step(np.array([count / REPORT["scale"]], np.float32), state)
        forecasts.append(output[0] * REPORT["scale"])
    return np.array(forecasts)


def show_in_terminal(years: np.ndarray, truth: np.ndarray, forecasts: np.ndarray) -> None:
    """Draws the years that the model has never seen."""
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(100, 24)
    plotext.plot(years.tolist(), truth.tolist(), label="measured", marker="braille")
    plotext.scatter(years.tolist(), forecasts.tolist(), label="forecast, one year ahead", marker="x")
    plotext.title("Sunspots in years the model has never seen")
    picture = plotext.build()
    print(picture if sys.stdout.isatty() else plotext.uncolorize(picture))


def save_picture(years: np.ndarray, truth: np.ndarray, forecasts: np.ndarray, path: Path) -> None:
    """Draws the whole series."""
    figure, axes = plt.subplots(figsize=(12, 4.5), constrained_layout=True)
    axes.axvspan(FIRST_TEST_YEAR, years[-1] + 1, color="#f2f2f2", label="never seen in training")
    axes.plot(years, truth, color="#444444", linewidth=1.2, label="measured")
    axes.plot(years, forecasts, color="#d62728", linewidth=1, label="forecast from the years before")
    axes.set(xlim=(1850, years[-1] + 1), ylim=(0, None), xlabel="year", ylabel="sunspot number, yearly mean")
    axes.set_title("One Step a year: forecasts of an lstmserve server, the state carried by the caller", loc="left")
    axes.legend(loc="upper left", frameon=False, ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def root_mean_square(errors: np.ndarray) -> float:
    """Returns the root of the mean of the squares."""
    return float(np.sqrt(np.mean(np.square(errors))))


def main() -> None:
    """Runs the demonstration."""
    years, counts = read_series()
    server, address = start_server()
    try:
        with Client(address) as client:
            model = client.model()
            print(
                f"{model.file} ({model.parameter_count:,} weights, Keras {model.keras_version}) is served at {address}"
            )
            forecasts = forecast(client, counts[:-1])
    finally:
        server.terminate()
        server.wait()

    next_years, truth = years[1:], counts[1:]
    unseen = next_years >= FIRST_TEST_YEAR
    show_in_terminal(next_years[unseen], truth[unseen], forecasts[unseen])
    save_picture(next_years, truth, forecasts, HERE / "demo.png")
    ours = root_mean_square((forecasts - truth)[unseen])
    naive = root_mean_square((counts[:-1] - truth)[unseen])
    print(f"\n{len(forecasts)} calls of Step. Error on {REPORT['tested_on']} (root mean square, in sunspots):")
    print(f"  forecast {ours:.1f}, naive persistence ({REPORT['tested_on']}: next year as this year) {naive:.1f}")
    print(f"The whole series is drawn in {HERE / 'demo.png'}")


if __name__ == "__main__":
    main()
