"""Forecasts the temperature in six hours from a file of measurements, and shows what came.

    lstmserve serve sensor=examples/sensor/sensor.keras
    python examples/sensor/forecast.py --plot forecast.png

Units, gaps and the time of day are dealt with on this side of the wire, by `channels.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from channels import DAY, INTERVAL, TEMPERATURE, Scaler, read, root_mean_square

from lstmserve import Client, LstmServeError

HERE = Path(__file__).parent
REPORT = json.loads((HERE / "sensor.json").read_text())
SCALER = Scaler.from_json(REPORT["scaler"])
WINDOW, AHEAD = REPORT["window"], REPORT["ahead"]
HOUR = timedelta(hours=1)
FIRST_TEST_DAY = datetime.fromisoformat(REPORT["trained_before"])


def forecast(client: Client, channels: np.ndarray) -> np.ndarray:
    """Returns the temperature `AHEAD` measurements behind the end of each window of (time, channels).

    The model was trained on windows, each from zeros. So each forecast is a new sequence, of the last two days alone: no
    state goes on from one to the next, unlike in `examples/text`.
    """
    outputs = client.forward_windows(SCALER.scale(channels), WINDOW)
    return SCALER.unscale(outputs[:, 0], TEMPERATURE)


def show(times: list[datetime], columns: dict[str, np.ndarray], rows: int) -> None:
    """Prints the last rows of a table of temperatures."""
    print("  ".join(["time (UTC)      ", *(f"{name:>10}" for name in columns)]))
    for i in range(max(0, len(times) - rows), len(times)):
        cells = ["-" if np.isnan(column[i]) else f"{column[i]:.1f}" for column in columns.values()]
        print("  ".join([f"{times[i]:%Y-%m-%d %H:%M}", *(f"{cell:>10}" for cell in cells)]))


def save_picture(times: list[datetime], columns: dict[str, np.ndarray], path: Path) -> None:
    """Draws the last four weeks."""
    import matplotlib as mpl  # noqa: PLC0415 - for those who want a picture; the others need not have it

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - the same

    shown = slice(-28 * DAY, None)
    dates = np.array([time.replace(tzinfo=None) for time in times[shown]], "datetime64[m]")
    figure, axes = plt.subplots(figsize=(12, 4.5), constrained_layout=True)
    axes.plot(dates, columns["measured"][shown], color="#444444", linewidth=1.2, label="measured")
    axes.plot(dates, columns["forecast"][shown], color="#d62728", linewidth=1, label="forecast")
    axes.set(xlim=(dates[0], dates[-1]), ylabel="temperature, °C")
    axes.set_title(f"Forecasts of an lstmserve server, {AHEAD * INTERVAL // HOUR} hours ahead", loc="left")
    axes.legend(loc="upper left", frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Forecasts the temperature in six hours.")
    parser.add_argument("file", nargs="?", type=Path, default=HERE / "weather.csv", help="(default %(default)s)")
    parser.add_argument("--rows", type=int, default=12, help="forecasts to print (default %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="also draw the last four weeks")
    parser.add_argument("--address", default="localhost:50051", help="of the server (default %(default)s)")
    parser.add_argument("--model", default="sensor", help="its name on the server (default %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Forecasts, and compares with what came and with what one could have said without a model."""
    options = arguments()
    try:
        times, channels = read(options.file)
        with Client(options.address, model=options.model) as client:
            forecasts = forecast(client, channels)
    except (LstmServeError, OSError, ValueError) as error:
        sys.exit(f"forecast.py: {error}")

    # One row for each forecast: the last ones are of a time that is not measured yet.
    first = WINDOW - 1 + AHEAD
    later = [times[-1] + INTERVAL * (i + 1) for i in range(AHEAD)]
    measured = np.append(channels[:, TEMPERATURE], np.full(AHEAD, np.nan))
    columns = {
        "forecast": forecasts,
        "measured": measured[first:],
        "as it was": measured[first - AHEAD : -AHEAD],
        "yesterday": measured[first - DAY : -DAY],
    }
    times = [*times, *later][first:]
    show(times, columns, options.rows)
    if options.plot:
        save_picture(times, columns, options.plot)
        print(f"\nThe last four weeks are drawn in {options.plot}")

    unseen = np.array([time >= FIRST_TEST_DAY for time in times]) & ~np.isnan(columns["measured"])
    if unseen.any():
        print(f"\n{unseen.sum()} forecasts since {FIRST_TEST_DAY:%Y-%m-%d}, which the model has not seen.")
        print(f"Error {AHEAD * INTERVAL // HOUR} hours ahead (root mean square, in °C):")
        for name in ("forecast", "as it was", "yesterday"):
            print(f"  {name:<9} {root_mean_square((columns[name] - columns['measured'])[unseen]):.2f}")


if __name__ == "__main__":
    main()
