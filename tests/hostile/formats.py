"""Writers of checkpoints and other formats from nothing, for files that are made to harm."""

from __future__ import annotations

import json
import struct

import google_crc32c
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from tests.support.builders import (
    SIMPLE,
    lstm_weights,
)

MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
GROUP = "layers/lstm/cell/vars"
ARCHITECTURE = json.dumps({**SIMPLE, "keras_version": "3.15.1"})
KERNEL = lstm_weights()[0]


def refusal(path):
    """Returns why a file or folder is refused."""
    with pytest.raises(UnsupportedModelError) as refused:
        reader.load(path)
    return str(refused.value)


def outcome(path):
    """Returns the digest of a model, or why it is refused; anything else that a loader does is a failure of the test."""
    try:
        return reader.load(path).digest()
    except UnsupportedModelError as error:
        return str(error)


GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)


def check_sum(content):
    """Returns a check sum as LevelDB stores it."""
    crc = google_crc32c.value(bytes(content))
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value):
    """Returns a number, seven bits to a byte."""
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def field(number, value):
    """Returns a field of a protobuf message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(dtype=1, shape=(), shard=0, offset=0, size=0, crc=bytes(4), more=b""):
    """Returns what an index says of an array."""
    lengths = b"".join(field(2, field(1, length)) for length in shape)
    return (
        field(1, dtype)
        + field(2, lengths)
        + field(3, shard)
        + field(4, offset)
        + field(5, size)
        + varint(6 << 3 | 5)
        + crc
        + more
    )


def table(entries, kind=b"\0"):
    """Returns a table of LevelDB with all entries in one block."""

    def block(pairs):
        body = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs)
        return body + struct.pack("<II", 0, 1)

    out = b""
    handles = []
    for content in (block(entries), block([])):
        handles.append(varint(len(out)) + varint(len(content)))
        out += content + kind + check_sum(content + kind)
    index = block([(b"\xff", handles[0])])
    handle = varint(len(out)) + varint(len(index))
    return out + index + b"\0" + check_sum(index + b"\0") + (handles[1] + handle).ljust(40, b"\0") + MAGIC


def node(children=(), key=None):
    """Returns an object of the graph: whom it holds, and under which key its value is."""
    held = b"".join(field(1, field(1, number) + field(2, name)) for name, number in children)
    return held + (
        b""
        if key is None
        else field(2, field(1, b"VARIABLE_VALUE") + field(2, b"lstm/lstm_cell/" + key) + field(3, key))
    )


NODES = (
    node([(b"layer-0", 1)]),
    node([(b"cell", 2), (b"again", 0)]),
    node([(b"kernel", 3), (b"recurrent_kernel", 4), (b"bias", 5)]),
    *(node(key=key) for key in (b"kernel", b"recurrent_kernel", b"bias")),
)


def graph_text(nodes=NODES):
    """Returns the object graph as the text of a checkpoint, with its check sum, and the check sum of the whole."""
    text = b"".join(field(1, each) for each in nodes)
    packed = struct.pack("<I", len(text))
    own = check_sum(packed)
    return varint(len(text)) + own + text, check_sum(packed + own + text)


def write_checkpoint(folder, nodes=NODES, alter=lambda entries: None, header=None, data=None, **how):
    """Writes a checkpoint of the simple model, with its architecture; `alter` may change what the index says."""
    arrays = dict(zip(("kernel", "recurrent_kernel", "bias"), lstm_weights(), strict=True))
    text, crc = graph_text(nodes)
    entries = {"": header if header is not None else field(1, 1), GRAPH: entry(7, (), 0, 0, len(text), crc)}
    content = text
    for name, weight in arrays.items():
        entries[name] = entry(1, weight.shape, 0, len(content), weight.nbytes, check_sum(weight.tobytes()))
        content += weight.tobytes()
    alter(entries)
    pairs = [(key.encode(), value) for key, value in sorted(entries.items(), key=lambda pair: pair[0].encode())]
    (folder / "m.index").write_bytes(table(pairs, **how))
    (folder / "m.data-00000-of-00001").write_bytes(content if data is None else data)
    (folder / "m.json").write_text(json.dumps({**SIMPLE, "keras_version": "2.15.0"}))
    return folder / "m.index"
