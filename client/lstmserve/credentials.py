"""TLS settings and bearer tokens of a client."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings of a client. All files are PEM, and read when the client is made."""

    ca: str | os.PathLike[str] | None = None
    """The authorities whose servers are trusted; None for those that gRPC brings along."""

    certificate: str | os.PathLike[str] | None = None
    """The client's own certificate, where the server asks for one; needs `key`."""

    key: str | os.PathLike[str] | None = None
    """The private key of that certificate."""

    server_name: str | None = None
    """The name that the server's certificate must have, where it is not the one in the address."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials of a channel.

        Raises:
            ValueError: there is a certificate without a key, or a key without a certificate.
            OSError: a file cannot be read.
        """
        if (self.certificate is None) != (self.key is None):
            message = "a client certificate and its key come together; one of them is missing"
            raise ValueError(message)
        return grpc.ssl_channel_credentials(*map(_content, (self.ca, self.key, self.certificate)))

    def options(self) -> list[tuple[str, Any]]:
        """Returns gRPC's channel options for it."""
        return [] if self.server_name is None else [("grpc.ssl_target_name_override", self.server_name)]


@dataclass(frozen=True, slots=True)
class Token:
    """Bearer token in the metadata of each call."""

    get: Callable[[], str | None]
    """Returns the token; asked for each call, so that it may change."""

    @classmethod
    def of(cls, token: str | Callable[[], str | None] | None) -> Self:
        """Returns a token from text or from a function; None for none."""
        return cls(token if callable(token) else lambda: token)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str] | None) -> Self:
        """Returns the token in a file, which is read for each call; None for none.

        Raises:
            OSError: the file cannot be read, at once or later.
        """
        if path is None:
            return cls.of(None)
        file = Path(path)
        file.read_bytes()
        return cls(lambda: file.read_text().strip())

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call."""
        token = self.get()
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("the token holds letters that a header cannot; expected printable ASCII")
        return () if token is None else (("authorization", f"Bearer {token}"),)


def _content(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
