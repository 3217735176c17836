"""Settings: flag, environment variable, file key, default, unit and help come from one field each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import click

from lstmserve_server.serving.setting_types import Positive, Rate, Seconds


def _setting(default: Any, kind: Any, text: str) -> Any:
    """Returns a field with a default, the click type of its values, and its help."""
    return field(default=default, metadata={"kind": kind, "help": text})


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The settings of `lstmserve serve`."""

    models: tuple[str, ...]
    """The models to serve, each FILE or NAME=FILE."""

    listen: tuple[str, ...] = _setting(
        ("127.0.0.1:50051",),
        str,
        "Address to listen on: HOST:PORT, [IPV6]:PORT or unix:PATH. May be given several times.",
    )
    workers: int = _setting(
        1,
        click.IntRange(1, 256),
        "Server processes that share the addresses and the weights. All limits are those of each. 1: no others, and Unix "
        "sockets can be listened on.",
    )
    layer: str | None = _setting(None, str, "Serve this one LSTM layer of the model instead of the whole.")
    until: str | None = _setting(
        None, str, "Serve the model as far as this layer, whose output is then the model's, instead of the whole."
    )
    architecture: str | None = _setting(
        None,
        str,
        "File with the model's configuration (model.to_json()), for a file that holds weights alone. Found by itself "
        "where it lies alongside: FILE.json, model.json and the like.",
    )
    numerics: str = _setting(
        "exact",
        click.Choice(["exact", "fast"]),
        "How to compute. exact: a row's answer has the same bytes whatever rows it is computed with. fast: faster for "
        "many rows, and the answer moves by rounding errors with them.",
    )
    engine: str = _setting(
        "numpy",
        click.Choice(["numpy", "onnxruntime"]),
        "What computes the LSTM layers. onnxruntime: faster for long sequences and many rows; its layers are compared with "
        "NumPy's when a model is loaded. Needs the extra 'onnx'.",
    )
    tls_certificate: str | None = _setting(
        None,
        str,
        "File with the server's certificate and those between it and a known authority (PEM). All addresses then speak TLS, and "
        "nothing else. Read again when it changes.",
    )
    tls_key: str | None = _setting(None, str, "File with the private key of the certificate (PEM, without a password).")
    tls_client_ca: str | None = _setting(
        None,
        str,
        "File with the authorities of clients (PEM). Clients must then show a certificate of one of them (mutual TLS).",
    )
    tokens: str | None = _setting(
        None,
        str,
        "File with who may call, by which tokens, and by which rules (TOML); lstmserve token makes its entries. Read again when it "
        "changes. Left out: anybody may call.",
    )
    open_health: bool = _setting(
        True,  # noqa: FBT003
        bool,
        "Answer health checks of the server to callers without a token, such as probes. Health of a model is answered to those "
        "alone who may use it.",
    )
    reflection: bool = _setting(True, bool, "Let clients ask for the contract (gRPC server reflection).")  # noqa: FBT003

    max_message_bytes: int = _setting(
        16 << 20, click.IntRange(1 << 12, (1 << 31) - 1), "Largest request and response, in bytes."
    )
    max_rows: int = _setting(1024, click.IntRange(1), "Most rows (sequences) in a request.")
    max_steps: int = _setting(65_536, click.IntRange(1), "Most time-steps in a request.")
    max_sequence_bytes: int = _setting(
        256 << 20, click.IntRange(1), "Most memory for a sequence that a model reads whole (go_backwards), in bytes."
    )
    max_concurrent_calls: int = _setting(
        64,
        click.IntRange(1),
        "Most calls at a time that take long and so wait for a thread; more are refused at once.",
    )
    max_batch_rows: int = _setting(
        256,
        click.IntRange(1),
        "Most rows of steps that arrive together and are computed together. 1: each call is computed by itself.",
    )
    max_pending_calls: int = _setting(
        64,
        click.IntRange(1),
        "Calls that have come and were not looked at yet, above which gRPC itself refuses some (CANCELLED), and all at twice as "
        "many.",
    )
    max_streams: int = _setting(1024, click.IntRange(1), "Most streams at a time; more are refused at once.")
    stream_idle_seconds: float = _setting(
        0.0, Seconds(), "How long a stream may be without a message before it is ended, in seconds. 0: for ever."
    )
    max_streams_per_connection: int = _setting(
        256, click.IntRange(1), "Most calls and streams at a time on one connection; a client lets more wait."
    )
    max_metadata_bytes: int = _setting(
        8192, click.IntRange(1024, 1 << 20), "Most metadata of a call, in bytes; a call with more is refused."
    )
    connection_idle_seconds: int = _setting(
        300, click.IntRange(0, 86_400), "How long a connection may be without a call before it is closed. 0: for ever."
    )
    connection_seconds: int = _setting(
        3600,
        click.IntRange(0, 86_400),
        "After how long a connection takes no more calls, so that clients spread again over the servers. Its calls have as long "
        "again to end, and its streams say going_away a little before that. 0: never.",
    )
    handshake_seconds: int = _setting(
        10, click.IntRange(1, 3600), "How long a connection may take until it speaks HTTP/2, TLS included."
    )
    keepalive_seconds: int = _setting(
        60,
        click.IntRange(1, 86_400),
        "After how long without a sign of life a client is asked for one; without an answer for 20 seconds it is given up.",
    )
    min_ping_seconds: int = _setting(
        10,
        click.IntRange(0, 3600),
        "Minimum time between pings of a client; one that pings more often is disconnected.",
    )
    max_model_bytes: int = _setting(2 << 30, click.IntRange(1), "Largest model file, in bytes.")
    load_seconds: int = _setting(60, click.IntRange(1), "Most time that a model file may take to be read, in seconds.")
    compute_threads: int = _setting(
        0,
        click.IntRange(0),
        "Threads for calls that take long; short ones are computed where they arrive. 0: one per CPU.",
    )

    shadow: str = _setting(
        "off",
        Rate(),
        "Compare this share of the calls with the real Keras layer, in a process of its own. Needs the extra 'shadow'.",
    )
    shadow_tolerance_h: float = _setting(
        1e-5, Positive(1), "How far h, and what is computed from it, may be off: times max(1, |value|), in float32."
    )
    shadow_tolerance_c: float = _setting(1e-5, Positive(1), "The same of c.")
    shadow_tolerance_unbounded: float = _setting(
        1e-3, Positive(1), "The same of both, in a layer whose activation has no bound, such as relu."
    )
    shadow_bundles: str | None = _setting(
        None,
        str,
        "Folder where calls over tolerance are written as bundles for lstmserve replay. They hold what callers sent.",
    )
    shadow_max_bundles: int = _setting(100, click.IntRange(1), "Most bundles in that folder.")
    shadow_max_bundle_bytes: int = _setting(256 << 20, click.IntRange(1), "Most bytes of bundles in that folder.")
    shadow_queue: int = _setting(256, click.IntRange(1), "Most calls that wait to be compared; more are not compared.")
    shadow_queue_bytes: int = _setting(64 << 20, click.IntRange(1), "Most memory for calls that wait to be compared.")
    shadow_seconds: float = _setting(
        30.0, Positive(3600), "Longest time for comparing one call; then the process is restarted. In seconds."
    )
    shadow_wait_seconds: float = _setting(
        5.0, Seconds(), "How long a call that asks for the comparison waits for it. In seconds."
    )
    shadow_threads: int = _setting(1, click.IntRange(1, 256), "Threads of the process that computes with Keras.")
    shadow_nice: int = _setting(10, click.IntRange(0, 19), "How far it steps back behind the server for the CPUs.")
    shadow_memory_bytes: int = _setting(
        0,
        click.IntRange(0),
        "Most memory that it may allocate, in bytes. TensorFlow alone takes some 600 MB. 0: no limit.",
    )
    metrics: str | None = _setting(
        None,
        str,
        "Address for operators, HOST:PORT: /metrics for Prometheus, and /healthz, which answers 200 while the server says SERVING, "
        "else 503; and a page for people. In plain text. With several workers it shows them all, told apart by a label.",
    )

    traces: str | None = _setting(
        None,
        str,
        "Where to send OpenTelemetry traces: the URL of a collector (OTLP over HTTP), such as http://localhost:4318/v1/traces. "
        "Needs the extra 'traces'. Sampling and the like are set by OTEL_ variables.",
    )
    channelz: str | None = _setting(
        None,
        str,
        "Address on this machine, HOST:PORT or unix:PATH, where gRPC tells of its connections (channelz), in plain text. Needs the "
        "extra 'channelz'.",
    )

    lame_duck_seconds: float = _setting(
        1.0,
        Seconds(),
        "After SIGTERM or SIGINT, how long to continue answering while health says NOT_SERVING, so that clients and balancers "
        "turn away first. In seconds.",
    )
    drain_seconds: float = _setting(
        10.0, Seconds(), "After that, how long to wait for running calls before they are cut off. In seconds."
    )
    log_format: str = _setting(
        "auto", click.Choice(["auto", "text", "json"]), "How to log. auto: text on a terminal, else JSON."
    )
    log_level: str = _setting("info", click.Choice(["debug", "info", "warning", "error"]), "What to log.")

    @property
    def any_tls(self) -> bool:
        """Whether any TLS setting is given."""
        return any((self.tls_certificate, self.tls_key, self.tls_client_ca))

    @property
    def stream_seconds(self) -> float:
        """Maximum age of a stream in seconds, after which it ends with its state; 0 for no limit."""
        return 0.9 * self.connection_seconds

    @property
    def threads(self) -> int:
        """The number of threads that `compute_threads` stands for."""
        return self.compute_threads or len(os.sched_getaffinity(0))
