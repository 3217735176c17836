"""Writes what the builds of the images get as secrets: this machine's configuration of pip, and its certificates."""

from __future__ import annotations

import ast
import configparser
import ssl
import subprocess
import sys
from pathlib import Path

_CERTIFICATES = "/run/secrets/ca.crt"  # where a build finds them: see the Dockerfile
_WANTED = ("default-timeout", "extra-index-url", "index-url", "proxy", "retries", "timeout", "trusted-host")


def main(folder: Path, canary: str) -> None:
    """Writes pip.conf and ca.crt, with a line in each that is found again wherever it would get to."""
    settings = dict(_settings_of_pip())
    certificates = settings.get("cert") or ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    (folder / "ca.crt").write_text(f"# {canary}\n{Path(certificates).read_text()}")
    file = configparser.RawConfigParser()
    file["global"] = {name: value for name, value in settings.items() if name in _WANTED} | {"cert": _CERTIFICATES}
    with (folder / "pip.conf").open("w") as out:
        out.write(f"# {canary}\n")
        file.write(out)


def _settings_of_pip():
    """Yields name and value of each, without folders of this machine, which a build has not."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):  # variables go before files
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        parts = [part for part in ast.literal_eval(value).split() if not part.startswith("file:")]
        if section in {":env:", "global", "install"} and parts:
            yield key, " ".join(parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
