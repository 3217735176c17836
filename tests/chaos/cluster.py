"""Replicas of a server behind proxies, and the faults that strike them."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from lstmserve import Client
from tests.support import live
from tests.support.paths import SUNSPOTS
from tests.support.tcp_proxy import TcpProxy

MODEL = f"sunspots={SUNSPOTS}"
REPLICAS = 3
TIMEOUT = 0.5  # of a stream, in seconds; what freezes does so for longer
CUTS = ("cut", "halve", "delay", "stall")
FEATURES = 1


class Replica:
    """A server on a port of its own, restarted whenever it has ended, and a proxy in front of it."""

    def __init__(self, *arguments: str) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self.proxy = TcpProxy(self.address)
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Starts the server."""
        self.server = live.LiveServer(MODEL, "--listen", self.address, *self._arguments)

    def wait_ready(self) -> None:
        """Returns when the server answers."""
        self.server.wait_for("serving")

    def restart(self, number: int) -> None:
        """Ends the server with a signal, and starts it again."""
        self.server.stop(number)
        self.server.__exit__()
        self.start()
        self.wait_ready()

    def busy(self, *, behind_proxy: bool) -> int:
        """Returns a number that grows while the server has something to do."""
        if behind_proxy:
            return self.proxy.forwarded
        nanoseconds = 0
        for task in Path(f"/proc/{self.server.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds

    def close(self) -> None:
        """Kills the server."""
        self.server.__exit__()
        self.proxy.close()


def _free_port() -> int:
    """Returns a port below those that the system gives to clients, which so never take it while the server is away."""
    while True:
        port = random.SystemRandom().randrange(20_000, 30_000)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


class Cluster:
    """The replicas, what is done to them, and the server that nothing is done to."""

    def __init__(self, *arguments: str) -> None:
        self._threads: list[threading.Thread] = []
        self._whole = threading.Condition()
        self._failures: list[BaseException] = []
        self.replicas = [Replica(*arguments) for _ in range(REPLICAS)]
        self._ready = set(self.replicas)
        self._reference = live.LiveServer(MODEL, "--listen", "127.0.0.1:0")
        for replica in self.replicas:
            replica.wait_ready()
        self._reference.wait_for("serving")
        self.reference = Client(self._reference.address)

    def addresses(self, *, behind_proxy: bool = False) -> list[str]:
        """Returns where the replicas are, for clients."""
        return [replica.proxy.address if behind_proxy else replica.address for replica in self.replicas]

    def wait_ready(self, count: int) -> None:
        """Returns when so many replicas can be reached."""
        with self._whole:
            assert self._whole.wait_for(lambda: self._failures or len(self._ready) >= count, timeout=60)
        if self._failures:
            raise self._failures[0]

    def strike(self, kind: str, chance: random.Random, watch: float) -> None:
        """Does something to the replica that is busiest during `watch` seconds, and sees to it that it comes back."""
        behind_proxy = kind in CUTS
        candidates = self.replicas[:1] if kind == "alone" else list(self._ready)
        before = {replica: replica.busy(behind_proxy=behind_proxy) for replica in candidates}
        time.sleep(watch)
        victim = max(candidates, key=lambda replica: replica.busy(behind_proxy=behind_proxy) - before[replica])
        with self._whole:
            self._ready.discard(victim)
        begin, end = FAULTS[kind]
        begin(victim, chance)
        away = chance.uniform(1.2 * TIMEOUT, 2.5 * TIMEOUT)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._bring_back, args=(victim, end, away)))
        self._threads[-1].start()

    def _bring_back(self, victim: Replica, end: Callable[[Replica, float], None], away: float) -> None:
        try:
            end(victim, away)
        except BaseException as error:  # noqa: BLE001 - raised where someone waits
            self._failures.append(error)
        with self._whole:
            self._ready.add(victim)
            self._whole.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join()
        self.reference.close()
        self._reference.__exit__()
        for replica in self.replicas:
            replica.close()


def _cut(replica: Replica, chance: random.Random) -> None:
    if chance.random() < 0.5:
        replica.proxy.refuse()
    replica.proxy.cut()


def _accept(replica: Replica, away: float) -> None:
    time.sleep(away / 4)
    replica.proxy.refuse()
    replica.proxy.accept()


def _delay(replica: Replica, chance: random.Random) -> None:
    replica.proxy.delay = chance.uniform(0.02, 1.5 * TIMEOUT)


def _hurry(replica: Replica, away: float) -> None:
    time.sleep(away)
    replica.proxy.delay = 0


def _flow(replica: Replica, away: float) -> None:
    time.sleep(away)
    replica.proxy.flow()


def _continue(replica: Replica, away: float) -> None:
    time.sleep(away)
    replica.server.process.send_signal(signal.SIGCONT)


FAULTS: dict[str, tuple[Callable[[Replica, random.Random], None], Callable[[Replica, float], None]]] = {
    "kill": (
        lambda replica, chance: replica.server.process.kill(),
        lambda replica, away: replica.restart(signal.SIGKILL),
    ),
    "alone": (  # the only replica that the client knows
        lambda replica, chance: replica.server.process.kill(),
        lambda replica, away: replica.restart(signal.SIGKILL),
    ),
    "term": (
        lambda replica, chance: replica.server.process.terminate(),
        lambda replica, away: replica.restart(0),
    ),
    "stop": (lambda replica, chance: replica.server.process.send_signal(signal.SIGSTOP), _continue),
    "cut": (_cut, _accept),
    "halve": (lambda replica, chance: replica.proxy.halve(), lambda replica, away: None),
    "delay": (_delay, _hurry),
    "stall": (lambda replica, chance: replica.proxy.stall(), _flow),
}
"""How each fault begins, and how it ends."""
