"""Serves the status page and its data over HTTP. The page is one document with its style and script, and loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import resources
from typing import Final
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import Metric

from lstmserve_server.observability.status_page.summary import status

_SCRIPTS: Final = ("dom.js", "words.js", "history.js", "sections.js", "page.js")
_ALWAYS: Final = [
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
]


class StatusPage:
    """Serves / with the page and /status.json with its data. Both are read-only."""

    def __init__(self, collect: Callable[[], Iterable[Metric]], serving: Callable[[], bool]) -> None:
        """Reads the page.

        Args:
            collect: returns the current metrics; thread-safe.
            serving: whether the server says SERVING; the same.
        """
        self._collect = collect
        self._serving = serving
        style, script = _text("page.css"), "".join(map(_text, _SCRIPTS))
        self._page = _text("page.html").replace("/* style */", style).replace("/* script */", script).encode()
        self._policy = _policy(style, script)

    def __call__(self, request: WSGIEnvironment, begin: StartResponse) -> Iterable[bytes]:
        """Answers a request for / or /status.json, as WSGI has it."""
        if request["REQUEST_METHOD"] not in ("GET", "HEAD"):
            begin("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0"), *_ALWAYS])
            return []
        if request["PATH_INFO"] == "/":
            body, kind = self._page, [("Content-Type", "text/html; charset=utf-8"), *self._policy]
        else:
            body, kind = self._figures(), [("Content-Type", "application/json")]
        begin("200 OK", [*kind, ("Content-Length", str(len(body))), *_ALWAYS])
        return [body] if request["REQUEST_METHOD"] == "GET" else []

    def _figures(self) -> bytes:
        told = status(self._collect(), time=time.time(), serving=self._serving())
        return json.dumps(asdict(told), allow_nan=False, separators=(",", ":")).encode()


def _text(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> list[tuple[str, str]]:
    """Returns the content security policy: only this style, this script, and requests to this server."""
    rules = (
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        f"script-src '{_hash(script)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return [("Content-Security-Policy", "; ".join(rules)), ("X-Frame-Options", "DENY")]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
