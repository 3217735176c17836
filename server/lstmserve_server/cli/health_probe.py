"""`lstmserve health`: asks a server for its health, with few imports.

Probes run it every few seconds, each time in a new process. Therefore it does not import `lstmserve`, which imports NumPy.
"""

from __future__ import annotations

from pathlib import Path

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def run(address: str, service: str, timeout: float, token_file: str | None, *, tls: bool, **files: str | None) -> int:
    """Asks for the health of a service, prints it, and returns the exit code."""
    server_name = files.pop("server_name")
    try:
        metadata = () if token_file is None else (("authorization", f"Bearer {Path(token_file).read_text().strip()}"),)
        credentials = _credentials(**files) if tls or server_name or any(files.values()) else None
    except (OSError, UnicodeDecodeError) as error:
        message = str(error)
        raise click.UsageError(message) from error
    # No proxy: it is this server's health that is asked for, most often over the loopback interface.
    options: list[tuple[str, str | int]] = [("grpc.enable_http_proxy", 0)]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    opened = (
        grpc.insecure_channel(address, options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options)
    )
    with opened as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as error:
            click.echo(f"lstmserve: no health from {address}: {error.code().name}: {error.details()}", err=True)
            return 1
    click.echo(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _credentials(ca: str | None, certificate: str | None, key: str | None) -> grpc.ChannelCredentials:
    if (certificate is None) != (key is None):
        message = "a client certificate and its key come together; one of them is missing"
        raise click.UsageError(message)
    return grpc.ssl_channel_credentials(
        *(None if path is None else Path(path).read_bytes() for path in (ca, key, certificate))
    )
