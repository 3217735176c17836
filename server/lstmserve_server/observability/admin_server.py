"""HTTP port for operators: a page for people, metrics for Prometheus, and health for probes without gRPC."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

from lstmserve_server.core.addresses import host_and_port
from lstmserve_server.core.errors import StartupError
from lstmserve_server.observability.status_page.app import StatusPage

_INTERNAL: Final = (".localhost", ".local", ".internal", ".svc", ".cluster.local", ".lan", ".home.arpa")
"""Ends of names that are not of the public DNS."""

_MISDIRECTED: Final = "This page is shown under a number or a name of this network: ask for it as http://ADDRESS:PORT/."

_ACCEPT_RETRY_SECONDS: Final = 0.2  # seconds
_REQUEST_TIMEOUT_SECONDS: Final = 10  # seconds without a request


_log = structlog.get_logger(__name__)


class AdminServer:
    """Answers /, /status.json, /metrics and /healthz, from a thread of its own."""

    def __init__(self, address: str, registry: CollectorRegistry, serving: Callable[[], bool]) -> None:
        """Opens the port.

        Args:
            address: where, HOST:PORT.
            registry: the metrics.
            serving: returns whether the server is SERVING; thread-safe.

        Raises:
            StartupError: it cannot be listened on.
        """
        host, port = host_and_port(address)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
            self._server.get_request = _patiently(self._server.get_request)  # type: ignore[method-assign]  # the same
            self._server.handle_error = _quietly  # type: ignore[method-assign]  # it would print a traceback into the log
        except OSError as error:
            message = (
                f"cannot listen on {address} for metrics: {error.strerror or error}. Choose another with --metrics"
            )
            raise StartupError(message) from error
        self._metrics: WSGIApplication = make_wsgi_app(registry)
        self._page: WSGIApplication = StatusPage(registry.collect, serving)
        self._serving = serving
        self._server.set_app(self._answer)
        # One thread a connection: who says nothing for long is let go.
        self._server.RequestHandlerClass = _patient(self._server.RequestHandlerClass)
        self.address = f"{f'[{host}]' if ':' in host else host}:{self._server.server_port}"
        """Where it listens; a port 0 has become the one that the system chose."""

    def _answer(self, request: WSGIEnvironment, begin: StartResponse) -> Iterable[bytes]:
        match request["PATH_INFO"]:
            case "/" | "/status.json" if not _is_own_name(request.get("HTTP_HOST", "")):
                return _text(begin, "421 Misdirected Request", _MISDIRECTED)
            case "/" | "/status.json":
                return self._page(request, begin)
            case "/metrics":
                return self._metrics(request, begin)
            case "/healthz" if self._serving():
                return _text(begin, "200 OK", "SERVING")
            case "/healthz":
                return _text(begin, "503 Service Unavailable", "NOT_SERVING")
            case _:
                return _text(begin, "404 Not Found", "There are /, /status.json, /metrics and /healthz.")

    def close(self) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _text(begin: StartResponse, status: str, text: str) -> Iterable[bytes]:
    begin(status, [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")])
    return [text.encode() + b"\n"]


def _quietly(request: Any, client_address: Any) -> None:  # noqa: ARG001 - of socketserver
    """Logs a failed connection: it was slow, or closed by the other side."""
    _log.debug("metrics_connection_failed", why=repr(sys.exception()))


def _is_own_name(host: str) -> bool:
    """Returns whether a Host header is safe: an IP address, or a name that no attacker can have a browser resolve.

    Else a page of a stranger's whose name leads here could read what stands on this one (DNS rebinding).
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return False
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return "." not in name or name == socket.getfqdn().lower() or name.endswith(_INTERNAL)


def _patient(handler: Any) -> Any:
    """Returns a handler class that waits a limited time for a request, and does not log."""
    return type("Handler", (handler,), {"timeout": _REQUEST_TIMEOUT_SECONDS, "get_stderr": lambda _: io.StringIO()})


def _patiently(accept: Callable[[], Any]) -> Callable[[], Any]:
    """Returns an accept function that pauses when the process has no free descriptors."""

    def get_request() -> Any:
        try:
            return accept()
        except OSError:
            time.sleep(_ACCEPT_RETRY_SECONDS)
            raise

    return get_request
