"""Forecasts the sunspots, year after year, through a real server that is killed in the middle.

    make demo

Starts `lstmserve serve`, feeds it the measured series through a stream, one year at a time, and kills it with SIGKILL half
way. It is started again, the stream goes on, and the forecasts are compared with those of a run that nothing happened to:
not a byte differs. Forecast and truth are shown in the terminal, and as `demo.png`.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
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
KILLED_IN = 1860
CHECKPOINT_INTERVAL_STEPS = 50  # years


def read_series() -> tuple[np.ndarray, np.ndarray]:
    """Returns years and sunspot numbers."""
    with (HERE / "sunspots.csv").open(newline="") as file:
        rows = [(int(row["year"]), float(row["sunspots"])) for row in csv.DictReader(file)]
    years, counts = zip(*rows, strict=True)
    return np.array(years), np.array(counts)


class Server:
    """A server process, which can be killed and started again where it was."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:0"
        self._process = self._started()
        assert self._process.stderr is not None
        for line in self._process.stderr:
            entry = json.loads(line)
            if entry["event"] == "serving":
                self.address = entry["listen"][0]
                return
        message = "the server did not start"
        raise RuntimeError(message)

    def kill_and_start_again(self) -> None:
        """Kills it without a warning, and starts another; does not wait until that one is ready."""
        self.stop()
        self._process = self._started()

    def stop(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "lstmserve_server", "serve", f"sunspots={HERE / 'sunspots.keras'}"]
        return subprocess.Popen(
            [*program, "--listen", self.address, "--log-format", "json"], stderr=subprocess.PIPE, text=True
        )


def forecast(client: Client, years: np.ndarray, counts: np.ndarray, victim: Server | None = None) -> np.ndarray:
    """Returns, after each year, the forecast of the next; kills a server on the way."""
    forecasts = []
    with client.stream(checkpoint_interval_steps=CHECKPOINT_INTERVAL_STEPS) as stream:
        for year, count in zip(years, counts, strict=True):
            began = time.perf_counter()
            if victim is not None and year == KILLED_IN:
                victim.kill_and_start_again()
            output = stream.step(np.array([count / REPORT["scale"]], np.float32))
            forecasts.append(output[0, 0] * REPORT["scale"])
            if victim is not None and year == KILLED_IN:
                print(
                    f"In {year} the server was killed with SIGKILL. It was started again, and the stream went on from its last "
                    f"checkpoint {time.perf_counter() - began:.1f} seconds later."
                )
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
    axes.axvline(KILLED_IN, color="#1f77b4", linewidth=1, linestyle="--", label="server killed, started again")
    axes.set(
        xlim=(1850, years[-1] + 1), ylim=(0, 1.2 * truth.max()), xlabel="year", ylabel="sunspot number, yearly mean"
    )
    axes.set_title("Forecasts of an lstmserve server, one time-step a year; it was killed on the way", loc="left")
    axes.legend(loc="upper left", frameon=False, ncols=4)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def root_mean_square(errors: np.ndarray) -> float:
    """Returns the root of the mean of the squares."""
    return float(np.sqrt(np.mean(np.square(errors))))


def main() -> None:
    """Runs the demonstration."""
    years, counts = read_series()
    server = Server()
    try:
        with Client(server.address) as client:
            model = client.model()
            print(
                f"{model.file} ({model.parameter_count:,} weights, Keras {model.keras_version}) is served at {server.address}"
            )
            forecasts = forecast(client, years[:-1], counts[:-1], server)
            uninterrupted = forecast(client, years[:-1], counts[:-1])
    finally:
        server.stop()

    next_years, truth = years[1:], counts[1:]
    unseen = next_years >= FIRST_TEST_YEAR
    show_in_terminal(next_years[unseen], truth[unseen], forecasts[unseen])
    save_picture(next_years, truth, forecasts, HERE / "demo.png")
    ours = root_mean_square((forecasts - truth)[unseen])
    naive = root_mean_square((counts[:-1] - truth)[unseen])
    different = int((forecasts.view(np.uint8) != uninterrupted.view(np.uint8)).sum())
    print(f"\n{len(forecasts)} forecasts, compared with a run that nothing happened to: {different} bytes differ.")
    print(f"Error on {REPORT['tested_on']} (root mean square, in sunspots):")
    print(f"  forecast {ours:.1f}, naive persistence ({REPORT['tested_on']}: next year as this year) {naive:.1f}")
    print(f"The whole series is drawn in {HERE / 'demo.png'}")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
