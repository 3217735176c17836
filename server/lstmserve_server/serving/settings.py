"""Settings: flag, environment variable, file key, default, unit and help come from one field each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import click

from lstmserve_server.serving.setting_types import Positive, Rate, Seconds, Word


def _setting(default: Any, kind: Any, text: str, details: str = "") -> Any:
    """Returns a field with a default, the click type of its values, its help, and details for docs/settings.md."""
    return field(default=default, metadata={"kind": kind, "help": text, "details": details})


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The settings of `lstmserve serve`."""

    models: tuple[str, ...]
    """The models to serve, each FILE or NAME=FILE."""

    listen: tuple[str, ...] = _setting(
        ("127.0.0.1:50051",),
        Word("ADDRESS"),
        "Address to listen on: HOST:PORT, [IPV6]:PORT or unix:PATH. Repeatable.",
    )
    workers: int = _setting(
        1,
        click.IntRange(1, 256),
        "Number of server processes.",
        "They share the addresses and the weights. Every limit applies to each of them. Unix sockets need 1.",
    )
    layer: str | None = _setting(None, Word("NAME"), "Serve only this LSTM layer of the model.")
    until: str | None = _setting(
        None,
        Word("NAME"),
        "Serve the model up to and including this layer.",
        "The output of the layer becomes that of the model.",
    )
    architecture: str | None = _setting(
        None,
        Word("FILE"),
        "Model configuration (model.to_json()), for files that hold only weights.",
        "FILE.json, model.json and similar names in the same folder are found without it.",
    )
    numerics: str = _setting(
        "exact",
        click.Choice(["exact", "fast"]),
        "exact: bit-identical in any batch. fast: faster for many rows.",
        "With fast, an answer may differ by rounding errors when its row is computed together with other rows.",
    )
    engine: str = _setting(
        "numpy",
        click.Choice(["numpy", "onnxruntime"]),
        "What computes the LSTM layers. onnxruntime needs the extra 'onnx'.",
        "onnxruntime is faster for long sequences and many rows. Its layers are compared with NumPy's when a model is loaded.",
    )
    tls_certificate: str | None = _setting(
        None,
        Word("FILE"),
        "Certificate chain of the server (PEM). Turns on TLS.",
        "The file holds the server's certificate, followed by the intermediate ones. All addresses then speak TLS only. It is "
        "reloaded when it changes.",
    )
    tls_key: str | None = _setting(None, Word("FILE"), "Private key of the certificate (PEM, without a password).")
    tls_client_ca: str | None = _setting(
        None,
        Word("FILE"),
        "CA certificates that verify client certificates (PEM). Turns on mutual TLS.",
        "Clients must then present a certificate that one of these authorities has signed.",
    )
    tokens: str | None = _setting(
        None,
        Word("FILE"),
        "Callers, their tokens and their limits (TOML). Default: anyone may call.",
        "`lstmserve token` makes its entries. The file is reloaded when it changes.",
    )
    open_health: bool = _setting(
        True,  # noqa: FBT003
        bool,
        "Answer server health checks that carry no token.",
        "Probes rarely have one. The health of a model is only reported to callers that may use the model.",
    )
    reflection: bool = _setting(True, bool, "Serve gRPC server reflection.")  # noqa: FBT003

    max_message_bytes: int = _setting(
        16 << 20, click.IntRange(1 << 12, (1 << 31) - 1), "Maximum size of a request or response, in bytes."
    )
    max_rows: int = _setting(1024, click.IntRange(1), "Maximum number of rows (sequences) in a request.")
    max_steps: int = _setting(65_536, click.IntRange(1), "Maximum number of time steps in a request.")
    max_sequence_bytes: int = _setting(
        256 << 20,
        click.IntRange(1),
        "Maximum memory of a sequence that is buffered whole, in bytes.",
        "Models that need a whole sequence (go_backwards, Bidirectional) read it so.",
    )
    max_concurrent_calls: int = _setting(
        64,
        click.IntRange(1),
        "Maximum number of long calls, running or waiting for a thread.",
        "A call with many rows, steps or units is computed in a thread; beyond the limit it is rejected. Short calls do not count.",
    )
    max_batch_rows: int = _setting(
        256,
        click.IntRange(1),
        "Maximum rows in a batch of Step calls. 1: no batching.",
        "Steps that arrive together are computed together.",
    )
    max_pending_calls: int = _setting(
        64,
        click.IntRange(1),
        "Number of unstarted calls above which gRPC cancels some new ones.",
        "Their status is CANCELLED. At twice as many, all new calls are cancelled.",
    )
    max_streams: int = _setting(1024, click.IntRange(1), "Maximum number of open streams. More are rejected.")
    stream_idle_seconds: float = _setting(
        0.0, Seconds(), "Maximum time without a message in a stream, in seconds. 0: unlimited."
    )
    max_streams_per_connection: int = _setting(
        256,
        click.IntRange(1),
        "Maximum number of calls in flight on one connection, streams included.",
        "A client keeps further ones waiting.",
    )
    max_metadata_bytes: int = _setting(
        8192, click.IntRange(1024, 1 << 20), "Maximum size of a call's metadata, in bytes. Larger is rejected."
    )
    connection_idle_seconds: int = _setting(
        300,
        click.IntRange(0, 86_400),
        "Close connections that are idle this long, in seconds. 0: never.",
    )
    connection_seconds: int = _setting(
        3600,
        click.IntRange(0, 86_400),
        "Maximum age of a connection, in seconds. 0: unlimited.",
        "Clients then reconnect, and spread over the servers again. Calls in flight have the same time again to finish. "
        "Streams are told to move (going_away) shortly before.",
    )
    handshake_seconds: int = _setting(
        10, click.IntRange(1, 3600), "Maximum time of the TLS and HTTP/2 handshakes, in seconds."
    )
    keepalive_seconds: int = _setting(
        60,
        click.IntRange(1, 86_400),
        "Ping a silent client after this time, in seconds.",
        "The server closes the connection if the client does not answer the ping within 20 seconds.",
    )
    min_ping_seconds: int = _setting(
        10,
        click.IntRange(0, 3600),
        "Minimum time between pings from a client, in seconds.",
        "The server disconnects a client that pings more often.",
    )
    max_model_bytes: int = _setting(2 << 30, click.IntRange(1), "Maximum size of a model file, in bytes.")
    load_seconds: int = _setting(60, click.IntRange(1), "Maximum time to parse a model file, in seconds.")
    compute_threads: int = _setting(
        0,
        click.IntRange(0),
        "Number of threads that compute long calls. 0: one per CPU.",
        "Short calls are computed in the event loop.",
    )

    shadow: str = _setting(
        "off",
        Rate(),
        "Compare this fraction of the calls with Keras. Needs the extra 'shadow'.",
        "The real Keras layer runs in a process of its own.",
    )
    shadow_tolerance_h: float = _setting(
        1e-5,
        Positive(1),
        "Tolerance for h and the outputs, relative to max(1, |value|).",
        "In float32. It also holds for everything that is computed from h.",
    )
    shadow_tolerance_c: float = _setting(1e-5, Positive(1), "Tolerance for c, relative to max(1, |value|).")
    shadow_tolerance_unbounded: float = _setting(
        1e-3,
        Positive(1),
        "Tolerance for layers with an unbounded activation, such as relu.",
        "It replaces the tolerances of h and of c there.",
    )
    shadow_bundles: str | None = _setting(
        None,
        Word("FOLDER"),
        "Folder for calls whose difference exceeds the tolerance, for `lstmserve replay`.",
        "These bundles contain what callers sent.",
    )
    shadow_max_bundles: int = _setting(100, click.IntRange(1), "Maximum number of bundles in the folder.")
    shadow_max_bundle_bytes: int = _setting(
        256 << 20, click.IntRange(1), "Maximum size of all bundles in the folder, in bytes."
    )
    shadow_queue: int = _setting(
        256, click.IntRange(1), "Maximum number of calls that wait to be compared.", "Further calls are not compared."
    )
    shadow_queue_bytes: int = _setting(
        64 << 20, click.IntRange(1), "Maximum memory of calls that wait to be compared, in bytes."
    )
    shadow_seconds: float = _setting(
        30.0,
        Positive(3600),
        "Maximum time of one comparison, in seconds.",
        "After that, the reference process is restarted.",
    )
    shadow_wait_seconds: float = _setting(
        5.0, Seconds(), "Maximum wait for a comparison that a call requests, in seconds."
    )
    shadow_threads: int = _setting(1, click.IntRange(1, 256), "Number of threads of the reference process.")
    shadow_nice: int = _setting(10, click.IntRange(0, 19), "Nice level of the reference process.")
    shadow_memory_bytes: int = _setting(
        0,
        click.IntRange(0),
        "Memory limit of the reference process, in bytes. 0: unlimited.",
        "TensorFlow alone takes some 600 MB.",
    )
    metrics: str | None = _setting(
        None,
        Word("HOST:PORT"),
        "Address of /metrics, /healthz and a status page, without TLS.",
        "/metrics is for Prometheus. /healthz answers 200 while the server reports SERVING, and 503 otherwise. With several "
        "workers, a label tells them apart.",
    )

    traces: str | None = _setting(
        None,
        Word("URL"),
        "OpenTelemetry collector (OTLP over HTTP). Needs the extra 'traces'.",
        "For example http://localhost:4318/v1/traces. OTEL_ variables set sampling and the rest.",
    )
    channelz: str | None = _setting(
        None,
        Word("ADDRESS"),
        "Local address of gRPC's channelz, without TLS. Needs the extra 'channelz'.",
        "HOST:PORT or unix:PATH on this machine. It shows the connections of the server.",
    )

    lame_duck_seconds: float = _setting(
        1.0,
        Seconds(),
        "Keep serving after SIGTERM or SIGINT for this time, in seconds.",
        "Health reports NOT_SERVING meanwhile, so that clients and load balancers turn away first.",
    )
    drain_seconds: float = _setting(10.0, Seconds(), "After the lame-duck time, wait this long for calls, in seconds.")
    log_format: str = _setting(
        "auto", click.Choice(["auto", "text", "json"]), "Format of the log. auto: text on a terminal, otherwise JSON."
    )
    log_level: str = _setting(
        "info", click.Choice(["debug", "info", "warning", "error"]), "Lowest level that is logged."
    )

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
