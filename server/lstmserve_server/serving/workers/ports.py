"""Reserves ports that several processes listen on together."""

from __future__ import annotations

import contextlib
import socket
from typing import Self

from lstmserve_server.core import addresses
from lstmserve_server.core.errors import SettingsError, StartupError


class ReservedPorts(contextlib.ExitStack):
    """Keeps ports reserved while workers start and end.

    A socket that is bound, and does not listen, gets no connections (socket(7), SO_REUSEPORT). Leaving the context frees them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        """Where workers listen; a port 0 has become the one that the system chose."""

    @classmethod
    def of(cls, listen: tuple[str, ...]) -> Self:
        """Returns the ports of some addresses.

        Raises:
            SettingsError: an address cannot be shared, or is none.
            StartupError: an address cannot be listened on, and why.
        """
        held = cls()
        for address in listen:
            if address.startswith(addresses.UNIX_PREFIX):
                message = (
                    f"{address} cannot be shared: the system gives a Unix socket to one process alone. Give --workers 1 with it, "
                    "or HOST:PORT with several workers"
                )
                raise SettingsError(message)
            addresses.require_valid(address)
            held.addresses.append(held._hold(address))
        return held

    def _hold(self, address: str) -> str:
        host, port = addresses.host_and_port(address)
        try:
            for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                holder = self.enter_context(socket.socket(family, kind, protocol))
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                holder.bind((place[0], port, *place[2:]))
                port = holder.getsockname()[1]  # the other places of a name get the same one
        except OSError as error:
            message = f"cannot listen on {address}: {error.strerror or error}. Choose another address with --listen"
            raise StartupError(message) from error
        return f"{address.rpartition(':')[0]}:{port}"
