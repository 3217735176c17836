"""The load: h2load, which sends one frame of gRPC again and again and costs little, the same for all."""

from __future__ import annotations

import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

_PREFIX: Final = 5
"""Bytes in front of a message: whether it is compressed, and how long it is."""

_SLOWEST: Final = 60


class LoadFailed(Exception):
    """A server did not answer as it should."""


@dataclass(frozen=True, slots=True)
class Load:
    """Result of a load."""

    calls_per_second: float
    latencies_us: list[float]
    calls: int

    @property
    def median_us(self) -> float:
        """The median latency."""
        return statistics.median(self.latencies_us)

    def quantile_us(self, share: float) -> float:
        """Returns the latency that this fraction of the calls does not exceed."""
        ordered = sorted(self.latencies_us)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def frame(message: bytes) -> bytes:
    """Returns a message as gRPC puts it into the body of a request."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def send(port: int, method: str, message: bytes, in_flight: int, calls: int, answer_bytes: int) -> Load:
    """Sends calls, with a fixed number of them in flight, over one connection as a channel of gRPC does.

    Raises:
        LoadFailed: not all were answered with as many bytes as an answer has; a call that fails has none.
    """
    with TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(frame(message))
        done = subprocess.run(
            ["h2load", "-t", "1", "-c", "1", "-m", str(in_flight), "-n", str(calls), "-T", str(_SLOWEST), "-d", body,
             "-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", log,  # codespell:ignore te
             f"http://127.0.0.1:{port}{method}"],
            capture_output=True, text=True, check=False, timeout=10 * _SLOWEST,
        )  # fmt: skip
        if done.returncode:
            raise LoadFailed(done.stderr.strip() or done.stdout.strip())
        return _read(done.stdout, log.read_text(), calls, answer_bytes)


def _read(printed: str, log: str, calls: int, answer_bytes: int) -> Load:
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", printed)
    data = re.search(r"\((\d+)\) data", printed)
    rows = [line.split("\t") for line in log.splitlines()]
    if rate is None or data is None or any(row[1] != "200" for row in rows) or len(rows) != calls:
        raise LoadFailed(f"{len(rows)} of {calls} calls were answered: {printed[-500:]}")
    short = calls * (answer_bytes + _PREFIX) - int(data[1])
    # The counts in a state of ours may take a byte more; an error has no body at all.
    if short > calls * answer_bytes // 100:
        raise LoadFailed(f"the answers of {calls} calls are {short} bytes short: some of them are errors")
    return Load(float(rate[1]), [float(row[2]) for row in rows], calls)
