"""Containers and images for checks: run with all that docs/container.md takes away from them, and read to the last byte."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import tarfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tests.support import live
from tests.support.paths import ROOT

MODELS = ROOT / "examples" / "sunspots"

LOCKED = (
    *("--read-only", "--read-only-tmpfs=false"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *("--volume", "/dev/null:/usr/bin/bash:ro", "--volume", "/dev/null:/usr/bin/dash:ro"),
)
"""Nothing can be written, nothing is allowed, and there is no shell."""

WITH_MODELS = ("--volume", f"{MODELS}:/models:ro")
SERVING = (*WITH_MODELS, "--env", "LSTMSERVE_MODELS=sunspots=sunspots.keras")
REACHABLE = ("--network", "host", "--env", "LSTMSERVE_LISTEN=127.0.0.1:0")


def podman(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs Podman to its end."""
    return subprocess.run(["podman", *map(str, arguments)], capture_output=True, text=True, check=False)


def image_of(target: str) -> str:
    """Returns the image that was built of a target of the Dockerfile."""
    return f"localhost/lstmserve:{target}"


def needs(target: str) -> tuple[str, ...]:
    """Returns the options that a target cannot do without: TensorFlow wants a folder for temporary files."""
    return ("--tmpfs=/tmp",) if target == "shadow" else ()


def run(target: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs an image to its end."""
    return podman("run", "--rm", "--network", "none", *LOCKED, *needs(target), *options, image_of(target), *arguments)


def run_python(target: str, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a script with the Python of an image to its end."""
    return run(target, "-c", script, options=("--entrypoint", "/opt/lstmserve/bin/python", *options))


class Container(live.LiveServer):
    """A running container of a server, and what it has logged so far."""

    def __init__(
        self,
        target: str,
        *options: str,
        lock: tuple[str, ...] = LOCKED,
        models: tuple[str, ...] = SERVING,
        network: tuple[str, ...] = REACHABLE,
    ) -> None:
        self.name = f"check-{uuid.uuid4().hex}"
        chosen = (*lock, *needs(target), *models, *network, *options)
        self.process = subprocess.Popen(
            ["podman", "run", "--name", self.name, *chosen, image_of(target)], stderr=subprocess.PIPE, text=True
        )
        self.log: list[dict[str, Any]] = []
        self.noise: list[str] = []

    @property
    def process_1(self) -> dict[str, str]:
        """What the kernel says of the container's process 1: the lines of /proc/PID/status."""
        lines = self.run("python", "-c", "print(open('/proc/1/status').read())").stdout.splitlines()
        return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the container."""
        return podman("exec", self.name, *command)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to process 1, as an engine does."""
        podman("kill", "--signal", number.name, self.name)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, reads the log to its end, and returns the exit code."""
        self.send(signal.Signals(number))
        return self.finish()

    def __exit__(self, *_: object) -> None:
        podman("rm", "--force", "--time", "0", self.name)
        super().__exit__()


class Image:
    """An image, read from an archive with all of its layers."""

    def __init__(self, target: str, archive: Path) -> None:
        self.archive = archive
        self.config = json.loads(podman("image", "inspect", image_of(target)).stdout)[0]
        ended = podman("save", "--quiet", "--format", "docker-archive", "--output", archive, image_of(target))
        assert ended.returncode == 0, ended.stderr

    @contextlib.contextmanager
    def _layers(self) -> Iterator[list[IO[bytes]]]:
        """Opens what we add to the base image, as archives."""
        below = json.loads(podman("image", "inspect", os.environ["PYTHON_IMAGE"]).stdout)[0]["RootFS"]["Layers"]
        with tarfile.open(self.archive) as layers:
            names = json.load(layers.extractfile("manifest.json"))[0]["Layers"]
            yield [layers.extractfile(name) for name in names[len(below) :]]

    @functools.cached_property
    def files(self) -> list[tarfile.TarInfo]:
        """What our layers add to the base image, each path without the slash in front."""
        with self._layers() as layers:
            return [member for layer in layers for member in tarfile.open(fileobj=layer)]

    def compressed_bytes(self) -> int:
        """Returns how large our layers are on their way from a registry."""
        total = 0
        with self._layers() as layers:
            for layer in layers:
                gzip = zlib.compressobj(wbits=31)
                while part := layer.read(1 << 22):
                    total += len(gzip.compress(part))
                total += len(gzip.flush())
        return total

    @property
    def paths(self) -> set[str]:
        """The paths of `files`."""
        return {file.name for file in self.files}

    def holds(self, text: bytes) -> bool:
        """Returns whether a text is anywhere in the image: a file of any layer, the history, the configuration."""
        with self.archive.open("rb") as file:
            end = b""
            while part := file.read(1 << 22):
                if text in end + part:
                    return True
                end = part[-len(text) :]
        return False
