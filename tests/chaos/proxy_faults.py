"""Calls through real proxies while replicas behind them are killed, drained and frozen, compared with a run that nothing happens to.

    python -m tests.chaos.proxy_faults [--rounds 20] [--proxies envoy,haproxy] [--faults kill,term,stop]

Beside our client there is a gRPC client that retries nothing: what it loses is what the proxy does not mend by itself.
"""

# ruff: noqa: T201 - it talks to a person

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from lstmserve import Client, LstmServeError, calls
from tests.chaos import cluster as clusters
from tests.support import proxies
from tests.support.builders import numbers

Step = Callable[[Any, Any], tuple[Any, Any]]

FAULTS = ("kill", "term", "stop")
IN_FLIGHT = 2
"""Calls that a replica has in hand when it is killed."""

_MOST_STEPS = 60_000  # within what a request may have, and more than are ever taken
_MOST_FAILURES = 1000  # so that what has gone wrong altogether ends

DRAIN = ("--lame-duck-seconds", "5")
"""As in deploy/kubernetes: longer than a proxy takes to notice."""


@dataclasses.dataclass
class Outcome:
    """What has come of calls: how many were answered, how many answers had other bytes, and what the failed ones said."""

    calls: int = 0
    wrong: int = 0
    failed: Counter[str] = dataclasses.field(default_factory=Counter)


def series(seed: int, steps: int) -> Any:
    """Returns the inputs of a sequence, (time, features)."""
    return np.abs(numbers(steps, 1, seed=seed))


class Load:
    """Threads that each step a sequence of their own, carrying its state from call to call."""

    def __init__(self, cluster: clusters.Cluster, threads: int, steps: int) -> None:
        """Makes threads that step so often before a replica is struck, and again so often after that."""
        self._reference = cluster.reference
        self._series = [series(seed, _MOST_STEPS) for seed in range(threads)]
        self._steps = steps

    def run(self, step: Step, strike: Callable[[], None]) -> Outcome:
        """Returns what has come of all steps; while `strike` runs they continue."""
        outcome, before, struck = Outcome(), threading.Semaphore(0), threading.Event()
        with ThreadPoolExecutor(len(self._series)) as pool:
            running = [pool.submit(self._go, step, inputs, before, struck) for inputs in self._series]
            try:
                for _ in running:
                    before.acquire()
                for future in running:
                    if future.done():
                        future.result()
                strike()
            finally:
                struck.set()
        for inputs, (outputs, failures) in zip(self._series, [future.result() for future in running], strict=True):
            expected = self._reference.forward(inputs[: len(outputs)], all_outputs=True).output
            outcome.calls += len(outputs)
            outcome.failed.update(failures)
            outcome.wrong += sum(y.tobytes() != output.tobytes() for y, output in zip(expected, outputs, strict=True))
        return outcome

    def _go(
        self, step: Step, inputs: Any, before: threading.Semaphore, struck: threading.Event
    ) -> tuple[list[Any], list[str]]:
        """Returns the outputs of one thread, and what the calls that failed said; each is made again until it is answered."""
        outputs: list[Any] = []
        failures: list[str] = []
        state, after = None, 0
        try:
            while after < self._steps:
                if len(outputs) == self._steps:
                    before.release()
                after += struck.is_set()
                try:
                    output, state = step(inputs[len(outputs)], state)
                except (LstmServeError, grpc.RpcError) as error:
                    failures.append(_text(error))
                    assert len(failures) < _MOST_FAILURES, failures[-1]
                else:
                    outputs.append(output)
        finally:
            before.release()  # lest someone waits for a thread that has failed
        return outputs, failures


def plain_step(channel: grpc.Channel) -> Step:
    """Returns a function that steps as a gRPC client does that retries nothing."""
    send = channel.unary_unary(calls.method("Step"), calls.serialize)

    def step(x: Any, state: Any) -> tuple[Any, Any]:
        call = calls.step(x, state, "")
        return call.read(send(call.request, timeout=10))

    return step


def plain_channel(address: str) -> grpc.Channel:
    """Returns a channel that retries nothing."""
    return grpc.insecure_channel(address, [("grpc.enable_retries", 0)])


def strike(kind: str, proxy: proxies.Proxy, replica: clusters.Replica, in_flight: int = IN_FLIGHT) -> None:
    """Kills, drains or freezes a replica.

    It is killed when it has calls in hand, which it is frozen for. When it drains, this returns at its end.
    """
    process = replica.server.process
    if kind == "term":
        process.send_signal(signal.SIGTERM)
        replica.server.wait_for("stopped")
        return
    process.send_signal(signal.SIGSTOP)
    if kind == "kill":
        end = time.monotonic() + 30
        while proxy.active()[replica.address] < in_flight:
            assert time.monotonic() < end, f"{replica.address} was given too few calls: {proxy.active()}"
        process.send_signal(signal.SIGKILL)


def mend(kind: str, replica: clusters.Replica) -> None:
    """Has the replica ready again."""
    if kind == "stop":
        replica.server.process.send_signal(signal.SIGCONT)
    else:
        replica.restart(signal.SIGKILL)


def _text(error: Exception) -> str:
    return f"{error.code()}: {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)


def main() -> None:
    """Runs, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="faults of each kind")
    parser.add_argument("--proxies", default=",".join(proxies.KINDS))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--steps", type=int, default=200, help="of each thread, before a fault and after it")
    arguments = parser.parse_args()
    print("proxy     fault  client   calls  failed  wrong  sent again by the proxy")
    with clusters.Cluster(*DRAIN) as cluster:
        load = Load(cluster, arguments.threads, arguments.steps)
        for proxy_kind in arguments.proxies.split(","):
            for fault in arguments.faults.split(","):
                for name in ("ours", "plain"):
                    print(_row(cluster, load, proxy_kind, fault, name, arguments.rounds), flush=True)


def _row(cluster: clusters.Cluster, load: Load, proxy_kind: str, fault: str, name: str, rounds: int) -> str:
    total, retried = Outcome(), 0
    for i in range(rounds):
        replica = cluster.replicas[i % clusters.REPLICAS]
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            proxy = stack.enter_context(proxies.running(proxy_kind, cluster.addresses(), folder))
            if name == "ours":
                step: Step = stack.enter_context(Client(proxy.address)).step
            else:
                step = plain_step(stack.enter_context(plain_channel(proxy.address)))
            outcome = load.run(step, lambda proxy=proxy, replica=replica: strike(fault, proxy, replica))  # type: ignore[misc]
            retried += proxy.retried()
        mend(fault, replica)
        total = Outcome(total.calls + outcome.calls, total.wrong + outcome.wrong, total.failed + outcome.failed)
    failed = sum(total.failed.values())
    return f"{proxy_kind:8}  {fault:5}  {name:6} {total.calls:6}  {failed:6}  {total.wrong:5}  {retried} {dict(total.failed) or ''}"


if __name__ == "__main__":
    main()
