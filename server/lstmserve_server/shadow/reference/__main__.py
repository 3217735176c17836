"""Entry point of the reference process: `python -m lstmserve_server.shadow.reference DESCRIPTOR`.

DESCRIPTOR is one end of a connection. The process reads its setup from it, answers with its versions, and then answers captured
calls until the connection ends. `shadow.reference_process` starts and ends it. It is confined before it reads anything untrusted
and before it has threads.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any, Final

import numpy as np

from lstmserve_server.core import confinement
from lstmserve_server.shadow.reference.service import Service

_MOST_OPEN: Final = 1024  # descriptors


def main() -> None:
    """Answers until the connection ends."""
    connection = Connection(int(sys.argv[1]))
    setup = json.loads(connection.recv_bytes())
    held = _confine(setup)
    threading.Thread(target=_end_with_parent, args=(connection.fileno(),), daemon=True).start()
    try:
        service = _started(setup)
    except ImportError as error:
        connection.send_bytes(json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        return
    connection.send_bytes(json.dumps({"versions": _versions(), "models": service.info(), "held": held}).encode())
    with np.errstate(all="ignore"):
        while True:
            try:
                request, data = json.loads(connection.recv_bytes()), connection.recv_bytes()
            except EOFError:
                return
            for part in service.answer(request, data):
                connection.send_bytes(part)


def _end_with_parent(descriptor: int) -> None:
    """Ends this process when the other end of the connection is closed, whatever else it is doing."""
    poll = select.poll()
    poll.register(descriptor, 0)  # the end is told of in any case
    poll.poll()
    os._exit(0)


def _confine(setup: dict[str, Any]) -> list[str]:
    """Lowers the priority of this process and confines it; returns the active mechanisms."""
    os.nice(setup["niceness"])
    bounds = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: setup["file_bytes"], resource.RLIMIT_NOFILE: _MOST_OPEN}
    if setup["memory_bytes"]:
        bounds[resource.RLIMIT_DATA] = setup["memory_bytes"]
    confinement.limit(bounds)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(setup["threads"])))
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    # What the user has set up for Keras is not what the models were written with, and a home is full of secrets.
    os.environ |= {"HOME": setup["scratch"], "KERAS_HOME": setup["scratch"], "TMPDIR": setup["scratch"]}
    return confinement.confine([], [setup["scratch"]])


def _started(setup: dict[str, Any]) -> Service:
    import tensorflow as tf  # noqa: PLC0415 - the environment had to be set before

    tf.config.threading.set_intra_op_parallelism_threads(setup["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from lstmserve_server.shadow.reference.service import Service  # noqa: PLC0415 - the same

    return Service(setup)


def _versions() -> dict[str, str]:
    import keras  # noqa: PLC0415 - the environment had to be set before
    import tensorflow as tf  # noqa: PLC0415 - the same

    return {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


if __name__ == "__main__":
    main()
