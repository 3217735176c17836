"""The server's certificate, its key, and the certificate authority of clients; reloaded when the files change."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lstmserve_server.core.errors import SettingsError, StartupError
from lstmserve_server.core.reloading import ReloadingFile, read_regular_file
from lstmserve_server.observability.server_metrics import ServerMetrics
from lstmserve_server.serving.settings import ServeSettings

_log = structlog.get_logger(__name__)


class CertificateRefused(Exception):
    """The files are not a usable certificate; the text says which file, and why."""


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of the PEM files."""

    certificate: Path
    """That of the server, and those between it and a known authority."""

    key: Path
    """The private key of the first of them, without a password."""

    client_ca: Path | None
    """The authorities of which clients must show a certificate; None where they need none."""

    @classmethod
    def of(cls, settings: ServeSettings) -> Self:
        """Returns the files that the settings name.

        Raises:
            SettingsError: one of them is missing.
        """
        certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
        if certificate is None or key is None:
            message = "TLS needs --tls-certificate and --tls-key together; --tls-client-ca comes on top of both"
            raise SettingsError(message)
        return cls(Path(certificate), Path(key), None if client_ca is None else Path(client_ca))

    def every(self) -> list[Path]:
        """Returns the files."""
        return [self.certificate, self.key, *([] if self.client_ca is None else [self.client_ca])]


class Certificates:
    """Certificates for new handshakes. Open connections keep theirs when the files change."""

    def __init__(self, files: Files, metrics: ServerMetrics) -> None:
        """Reads the files.

        Args:
            files: where they are.
            metrics: records when the certificate expires, and each reload.

        Raises:
            StartupError: they cannot be served.
        """
        self._files = files
        try:
            self._content = ReloadingFile(files.every(), functools.partial(_read, files), settles=False)
        except CertificateRefused as error:
            message = f"cannot speak TLS: {error}"
            raise StartupError(message) from error
        self._first, expires = self._content.first
        metrics.expires(expires)
        self._metrics = metrics

    def credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials that gRPC listens with."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._newer,  # type: ignore[arg-type]  # None keeps what there is, says its documentation
            require_client_authentication=self._files.client_ca is not None,
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the certificates if the files have changed, else None. gRPC calls it at every handshake.

        Invalid or incomplete files are logged once and ignored until they change again.
        """
        try:
            found = self._content.newer()
        except CertificateRefused as error:
            _log.error("certificate_not_reloaded", why=str(error), still="the one from before")
            self._metrics.count_reload("certificate", accepted=False)
            return None
        if found is None:
            return None
        current, expires = found
        self._metrics.count_reload("certificate", accepted=True)
        self._metrics.expires(expires)
        _log.info("certificate_reloaded", certificate=str(self._files.certificate))
        return current


def _read(files: Files) -> tuple[grpc.ServerCertificateConfiguration, datetime]:
    """Returns what the files hold, and when the certificate expires."""
    chain, key = _content(files.certificate), _content(files.key)
    expires = _checked(files, chain, key)
    authorities = None
    if files.client_ca is not None:
        authorities = _content(files.client_ca)
        _certificates(files.client_ca, authorities)
    return grpc.ssl_server_certificate_configuration([(key, chain)], authorities), expires


def _checked(files: Files, chain: bytes, key: bytes) -> datetime:
    """Checks the files before the first handshake; returns when the certificate expires."""
    own = _certificates(files.certificate, chain)[0]
    try:
        private: Any = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # Neither the text of the error nor the file is told: it is a secret.
        message = f"{files.key} holds no private key in PEM without a password"
        raise CertificateRefused(message) from error
    if own.public_key() != private.public_key():
        message = f"the key in {files.key} is not that of the certificate in {files.certificate}"
        raise CertificateRefused(message)
    now = datetime.now(UTC)
    if now >= own.not_valid_after_utc:
        message = f"the certificate in {files.certificate} expired on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise CertificateRefused(message)
    return own.not_valid_after_utc


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        message = f"{path} holds no certificate in PEM"
        raise CertificateRefused(message) from error


def _content(path: Path) -> bytes:
    try:
        return read_regular_file(path)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise CertificateRefused(message) from error
