"""Validates listen addresses before gRPC sees them: gRPC's own error does not say what is wrong."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Final

from lstmserve_server.core.errors import SettingsError, StartupError

UNIX_PREFIX: Final = "unix:"

_MAX_UNIX_PATH_BYTES: Final = 107  # of Linux: 108 bytes with the zero after it


def require_valid(address: str) -> None:
    """Checks that the server can listen on `address`.

    Raises:
        StartupError: it cannot; the error says why.
        SettingsError: it is not an address.
    """
    try:
        if address.startswith(UNIX_PREFIX):
            _check_unix(Path(address.removeprefix(UNIX_PREFIX)))
        else:
            _check_tcp(*host_and_port(address))
    except OSError as error:
        taken = "Stop what is there, or choose" if error.errno == errno.EADDRINUSE else "Choose"
        message = f"cannot listen on {address}: {error.strerror or error}. {taken} another address with --listen"
        raise StartupError(message) from error


def is_local(address: str) -> bool:
    """Returns whether an address is only reachable from this machine."""
    if address.startswith(UNIX_PREFIX):
        return True
    host, port = host_and_port(address)
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return all(ipaddress.ip_address(str(place[4][0]).partition("%")[0]).is_loopback for place in places)


def resolved_address(address: str, port: int) -> str:
    """Returns the bound address: port 0 is replaced by the port that the system chose."""
    return address if address.startswith(UNIX_PREFIX) else f"{address.rpartition(':')[0]}:{port}"


def host_and_port(address: str) -> tuple[str, int]:
    """Returns the two parts of HOST:PORT or [IPV6]:PORT.

    Raises:
        SettingsError: it is neither.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - ports are 16 bits
        message = f"cannot listen on {address!r}: expected HOST:PORT, [IPV6]:PORT or unix:PATH"
        raise SettingsError(message)
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_tcp(host: str, port: int) -> None:
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()  # two sockets may be bound to one address, and only one can listen


def _check_unix(path: Path) -> None:
    """Checks a Unix socket: gRPC would take over the socket of a running server."""
    if not len(os.fsencode(path.name)) > 0 or len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        raise OSError(errno.ENAMETOOLONG, f"a socket has a path of 1 to {_MAX_UNIX_PATH_BYTES} bytes")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is not a socket has this name")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # left after by a server that was killed; gRPC takes its place
        raise OSError(errno.EADDRINUSE, "another server listens there")
