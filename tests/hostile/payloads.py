"""Objects that run code where a library of Keras deserializes them, and whether one has: the marker is set."""

from __future__ import annotations

import base64
import contextlib
import copy
import marshal
import os

MARKER = "LSTMSERVE_PAYLOAD_HAS_RUN"
"""A variable of the environment that every payload sets."""

MODULE = "lstmserve_payload_module"
"""A module that a payload names; it sets the marker when it is imported."""

SOURCE = (
    f"import os; os.environ[{MARKER!r}] = '1'\nclass Evil:\n    from_config = classmethod(lambda cls, config: cls())\n"
)
"""Of the module."""


def _run(x):
    import os  # noqa: PLC0415 - it runs elsewhere

    os.environ["LSTMSERVE_PAYLOAD_HAS_RUN"] = "1"
    return 0.0 * x if not isinstance(x, (list, tuple)) else x


CODE = base64.b64encode(marshal.dumps(_run.__code__)).decode()

PAYLOADS = {
    "lambda of Keras 2": {
        "class_name": "Lambda",
        "__passive_serialization__": True,
        "config": {
            "name": "payload",
            "trainable": True,
            "dtype": "float32",
            "function": [CODE, None, None],
            "function_type": "lambda",
            "module": "builtins",
            "output_shape": None,
            "output_shape_type": "raw",
            "output_shape_module": None,
            "arguments": {},
        },
    },
    "lambda of Keras 3": {
        "class_name": "__lambda__",
        "config": {"value": CODE, "defaults": None, "closure": None},
    },
    "registered object": {
        "module": None,
        "class_name": "Evil",
        "config": {"name": "evil"},
        "registered_name": "payloads>Evil",
    },
    "module": {"module": MODULE, "class_name": "Evil", "config": {"name": "evil"}, "registered_name": None},
    "function": {
        "module": "builtins",
        "class_name": "function",
        "config": f"{MODULE}.Evil",
        "registered_name": "function",
    },
}


def has_run() -> bool:
    """Returns whether a payload has run in this process, and forgets it."""
    return os.environ.pop(MARKER, None) is not None


def places(config, path=()):
    """Yields the path to every value of a configuration, that of a layer's options and of all around them."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield (*path, key)
            yield from places(value, (*path, key))
    elif isinstance(config, list):
        for number, value in enumerate(config):
            yield (*path, number)
            yield from places(value, (*path, number))


def replaced(config, path, value):
    """Returns a configuration with another value at a path."""
    changed = copy.deepcopy(config)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


@contextlib.contextmanager
def exchanged(config, path, value):
    """Puts another value at a path, for a while: a copy of all around it would take longer than what is tried with it."""
    inner = config
    for key in path[:-1]:
        inner = inner[key]
    own, inner[path[-1]] = inner[path[-1]], value
    try:
        yield
    finally:
        inner[path[-1]] = own
