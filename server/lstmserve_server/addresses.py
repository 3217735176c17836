"""Whether an address can be listened on, asked before gRPC is: gRPC's own answer does not say why not."""

from __future__ import annotations

import socket
import stat
from pathlib import Path
from typing import Final

from lstmserve_server.errors import StartFailed

UNIX_PREFIX: Final = "unix:"


def check(address: str) -> None:
    """Returns if `address` is free to be listened on.

    Raises:
        StartFailed: it is not, and why.
    """
    try:
        if address.startswith(UNIX_PREFIX):
            _check_unix(Path(address.removeprefix(UNIX_PREFIX)))
        else:
            _check_tcp(*_host_and_port(address))
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen on {address}: {reason}. Stop what is there, or choose another address with --listen"
        raise StartFailed(message) from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - ports are 16 bits
        message = f"cannot listen on {address!r}: expected HOST:PORT, [IPV6]:PORT or unix:PATH"
        raise StartFailed(message)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_tcp(host: str, port: int) -> None:
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()  # two sockets may be bound to one address, and only one can listen


def _check_unix(path: Path) -> None:
    """Checks what gRPC does not: it would take the socket of a living server away from it."""
    if not path.parent.is_dir():
        raise FileNotFoundError(2, f"there is no folder {path.parent}")
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(17, "a file that is no socket has this name")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # left behind by a server that was killed; gRPC takes its place
        raise OSError(98, "another server listens there")
