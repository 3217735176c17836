"""Folders, lists of weights, checkpoints and graphs that are made to harm: each is refused in a sentence (promise P7)."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
import struct
import time
import zipfile

import google_crc32c
import h5py
import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from lstmserve_server.loading.formats.tensorflow.object_graph import ObjectGraph
from lstmserve_server.loading.store import transfer
from lstmserve_server.loading.store.arrays import SharedStore
from tests.support.builders import (
    SIMPLE,
    input_config,
    keras_layer,
    lstm_config,
    lstm_weights,
    numbers,
    sequential,
    weights_file,
    write_hdf5,
    write_zip,
)
from tests.support.paths import SUNSPOTS

MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
GROUP = "layers/lstm/cell/vars"
ARCHITECTURE = json.dumps({**SIMPLE, "keras_version": "3.15.1"})


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


# Folders.


@pytest.fixture
def folder(tmp_path):
    """Returns a folder that holds the simple model, as an unpacked `.keras` file."""
    path = tmp_path / "model"
    with zipfile.ZipFile(write_zip(tmp_path / "a")) as archive:
        archive.extractall(path)
    return path


@pytest.fixture
def digest(tmp_path):
    """Returns the digest of the simple model."""
    return reader.load(write_zip(tmp_path / "simple")).digest()


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "../beside", "../model_2/file"])
def test_links_out_of_a_folder_are_not_followed(folder, name, target):
    """A member that leads out of the folder is refused, be it to a folder whose name begins alike."""
    (folder.parent / "beside").write_text("{}")
    (folder.parent / "model_2").mkdir()
    (folder.parent / "model_2" / "file").write_text("{}")
    (folder / name).unlink()
    (folder / name).symlink_to(target)

    why = refusal(folder)
    assert "nothing outside a model's own folder is opened" in why or "this is a folder that holds" in why


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path), lambda path: path.symlink_to("no")]
)
def test_members_that_are_no_files_are_refused(folder, name, make):
    """A named pipe keeps no one waiting; folders, and links in a circle or to nothing, are refused as well."""
    (folder / name).unlink()
    make(folder / name)

    assert str(folder) in refusal(folder)


def test_links_within_a_folder_are_followed(folder, digest):
    """A folder as Kubernetes mounts it, with links to a version of it, is read."""
    (folder / "..2026").mkdir()
    (folder / "..data").symlink_to("..2026")
    for name in MEMBERS:
        (folder / name).rename(folder / "..2026" / name)
        (folder / name).symlink_to(f"..data/{name}")

    assert digest == reader.load(folder).digest()


def test_a_folder_of_many_files_is_read_quickly(folder, digest):
    """Files that are not asked for cost nothing."""
    for number in range(3000):
        (folder / f"asset{number}").touch()

    assert digest == reader.load(folder).digest()


def test_an_architecture_beside_that_leads_elsewhere_is_not_opened(tmp_path):
    """A link to another folder, under a name that an architecture usually has, is not followed."""
    path = tmp_path / "models" / "a.weights.h5"
    path.parent.mkdir()
    path.write_bytes(weights_file({GROUP: lstm_weights()}))
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "models" / "model.json").symlink_to(tmp_path / "secret")

    assert "secret" not in outcome(path)


@pytest.mark.parametrize("path", ["a\0b", "a" * 5000, "/dev/null", "/dev/zero"])
def test_paths_to_no_file_are_refused(path):
    """Whatever a path leads to, it is opened as a regular file or not at all."""
    assert refusal(path)


# Lists of weights of NumPy.


def npy(header, content=b"", version=(1, 0)):
    """Returns an array of NumPy with a header that someone wrote by hand."""
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + content


def array(value):
    """Returns an array as NumPy saves it; objects become a pickle."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, allow_pickle=True)
    return buffer.getvalue()


def described(descr="'<f4'", order="False", shape="(3, 16)"):
    """Returns the header of an array."""
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


def write_npz(path, *members, names=None):
    """Writes a list of weights: the given arrays, and those of the simple model behind them."""
    rest = [array(weight) for weight in lstm_weights()[len(members) :]]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in zip(names or ["arr_0.npy", "arr_1.npy", "arr_2.npy"], [*members, *rest], strict=True):
            archive.writestr(name, content)
    return path


KERNEL = lstm_weights()[0]
HOSTILE_ARRAYS = [
    (array(np.array([{1: 2}], object)), "arr_0.npy is a pickle, which can run code when it is loaded"),
    (npy(described("'|O'")), "arr_0.npy is a pickle, which can run code when it is loaded"),
    (npy(described("[('a', '|O')]")), "arr_0.npy is a pickle, which can run code when it is loaded"),
    (array(np.zeros((3, 16), [("a", "<f4")])), "arr_0.npy holds [('a', '<f4')]; expected float32"),
    (array(KERNEL.astype(">f4")), "arr_0.npy holds >f4; expected float32"),
    (array(KERNEL.astype("<i4")), "arr_0.npy holds int32; expected float32"),
    (array(KERNEL.astype("<c8")), "arr_0.npy holds complex64; expected float32"),
    (array(np.full((3, 16), np.nan, np.float32)), "arr_0.npy holds nan at (0, 0)"),
    (npy(described(shape="(-3, 16)"), KERNEL.tobytes()), "arr_0.npy has the shape (-3, 16); expected integers"),
    (npy(described(shape="(-3, -16)"), KERNEL.tobytes()), "arr_0.npy has the shape (-3, -16); expected integers"),
    (npy(described(shape="(True, 48)"), KERNEL.tobytes()), "arr_0.npy"),
    (npy(described(shape=f"({1 << 62}, {1 << 62})"), KERNEL.tobytes()), "and holds 192 bytes; the file is damaged"),
    (npy(described(shape=f"({1 << 62}, {1 << 62}, 0)")), "holds weights without the model's configuration"),
    (npy(described(), KERNEL.tobytes() + b"x"), "and holds 193 bytes; the file is damaged"),
    (npy(described(), KERNEL.tobytes()[1:]), "and holds 191 bytes; the file is damaged"),
    (npy(described("__import__('os').system('touch x')"), KERNEL.tobytes()), "arr_0.npy is not an array of NumPy"),
    (npy(described("'<f4'", "__import__('os')")), "arr_0.npy is not an array of NumPy"),
    (npy("{"), "arr_0.npy is not an array of NumPy"),
    (npy("(" * 9000), "arr_0.npy is not an array of NumPy"),
    (npy("-" * 9000), "arr_0.npy is not an array of NumPy"),
    (npy("9" * 5000), "arr_0.npy is not an array of NumPy"),
    (npy("\xff\xfe{"), "arr_0.npy is not an array of NumPy"),
    (npy(described() + " " * (1 << 20), KERNEL.tobytes(), (2, 0)), "arr_0.npy is not an array of NumPy"),
    (b"\x93NUMPY\2\0\xff\xff\xff\xff{", "arr_0.npy is not an array of NumPy"),
    (b"\x80\x04cbuiltins\neval", "arr_0.npy is not an array of NumPy"),
    (b"", "arr_0.npy is not an array of NumPy"),
]


@pytest.mark.parametrize(("content", "reason"), HOSTILE_ARRAYS)
def test_hostile_arrays(tmp_path, monkeypatch, content, reason):
    """Pickles are not run, headers not evaluated, and lengths compared with what is there."""
    monkeypatch.chdir(tmp_path)

    assert reason in refusal(write_npz(tmp_path / "a.npz", content))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_arrays_in_the_order_of_fortran_are_the_same(tmp_path):
    """The order in which an array was stored changes nothing."""
    kept = reader.load(write_npz(tmp_path / "a.npz")).digest()

    assert kept == reader.load(write_npz(tmp_path / "b.npz", array(np.asfortranarray(KERNEL)))).digest()


def test_arrays_of_bfloat16_are_widened(tmp_path):
    """NumPy saves bfloat16 as two raw bytes; they are the upper half of a float32."""
    bits = KERNEL.view(np.uint32) >> 16
    raw = reader.load(write_npz(tmp_path / "raw.npz", array(bits.astype("<u2").view("V2"))))
    wide = reader.load(write_npz(tmp_path / "wide.npz", array((bits << 16).view(np.float32))))

    assert raw.digest() == wide.digest()


@pytest.mark.parametrize(
    "first", ["arr_00.npy", "arr_3.npy", "arr_\u0660.npy", "arr_-0.npy", "../arr_0.npy", f"arr_{'9' * 5000}.npy"]
)
def test_arrays_of_strange_names_are_refused(tmp_path, first):
    """Names that are not those that np.savez gives leave open which weight is which."""
    assert "arr_0.npy" in refusal(write_npz(tmp_path / "a.npz", names=[first, "arr_1.npy", "arr_2.npy"]))


def test_a_lone_array_and_a_pickle_are_not_opened(tmp_path):
    """A list of weights in a `.npy` file is a pickle, and refused unopened."""
    (tmp_path / "a.npy").write_bytes(array(np.array([KERNEL, None], object)))

    assert "is a pickle, which can run code when it is loaded" in refusal(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "layer",
    [
        keras_layer("RNN", "r", cell={"config": [1]}),
        keras_layer("RNN", "r", cell={"class_name": "StackedRNNCells", "config": {"cells": [{"class_name": "LSTMCell", "config": "x"}]}}),
        keras_layer("Bidirectional", "b", layer={"class_name": "LSTM", "config": "x"}),
        keras_layer("Bidirectional", "b", layer=5, backward_layer={"class_name": "LSTM", "config": [1]}),
        keras_layer("TimeDistributed", "t", layer={"class_name": "RNN", "config": {"cell": {"config": "x"}}}),
    ],
)  # fmt: skip
def test_weights_are_not_counted_by_a_broken_architecture(tmp_path, layer):
    """An architecture whose layers hold no layers is refused where the weights of each are counted."""
    (tmp_path / "a.json").write_text(json.dumps({**sequential(input_config(), layer), "keras_version": "3.15.1"}))

    assert refusal(write_npz(tmp_path / "a.npz"))


# Weights in several files.


def write_shards(folder, weight_map, *, files=("m_0.weights.h5",)):
    """Writes an index of weights, the architecture alongside it, and files that hold the weights of the simple model."""
    for name in files:
        (folder / name).write_bytes(weights_file({GROUP: lstm_weights()}))
    (folder / "m.json").write_text(ARCHITECTURE)
    path = folder / "m.weights.json"
    path.write_text(
        weight_map if isinstance(weight_map, str) else json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return path


@pytest.mark.parametrize(
    "name",
    ["../a.h5", "..", ".", "", "/etc/passwd", "a\\b", "a\0b", "\ud800", "m.json", "m.weights.json", "none", "a" * 5000, 5, None, [], {}],
)  # fmt: skip
def test_shards_of_strange_names_are_refused(tmp_path, name):
    """A name in an index leads to a file of HDF5 alongside it, or the model is refused."""
    (tmp_path / "in").mkdir()
    (tmp_path / "a.h5").write_bytes(weights_file({GROUP: lstm_weights()}))

    assert refusal(write_shards(tmp_path / "in", {"/layers/lstm": name}))


def test_a_weight_in_two_files_is_refused(tmp_path):
    """Of a weight that stands twice no one can say which one is meant."""
    files = ("m_0.weights.h5", "m_1.weights.h5")

    assert "is in 2 files, so two readers may see two models" in refusal(
        write_shards(tmp_path, {"/": files}, files=files)
    )


def test_a_group_that_is_an_array_in_another_file_is_refused(tmp_path):
    """Files that disagree on what is a group are refused, in either order."""
    path = write_shards(tmp_path, {})
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file[GROUP] = numbers(3)
    for files in (["m_0.weights.h5", "b.h5"], ["b.h5", "m_0.weights.h5"]):
        assert "is an array; expected a group" in refusal(write_shards(path.parent, {"/": files}))


def test_an_index_of_many_names_is_bounded(tmp_path):
    """However many places an index names, the files are counted before one is opened."""
    names = [f"n{number}" for number in range(100_000)]

    assert "the index lists 100000 files; expected at most" in refusal(write_shards(tmp_path, {"/": names}))
    assert reader.load(write_shards(tmp_path, dict.fromkeys(names, "m_0.weights.h5")))


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map":' + "[" * 100_000,
        '{"weight_map":' + '{"a":' * 3000 + "1" + "}" * 3001,
        "{}",
        "{",
        "{" + " " * (5 << 20) + "}",
    ],
)
def test_an_index_that_is_no_index_is_refused(tmp_path, text):
    """JSON that is too deep, too long, cut off or about something else is refused."""
    assert refusal(write_shards(tmp_path, text))


# Checkpoints of TensorFlow, made here from nothing.

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


def test_a_checkpoint_that_is_made_here_is_read(tmp_path, digest):
    """The files that the tests below alter are good ones, in spite of the circle in their object graph."""
    assert digest == reader.load(write_checkpoint(tmp_path)).digest()


def told(name, value):
    """Returns an alteration of what the index says of a name."""
    return lambda entries: entries.__setitem__(name, value)


CRC = check_sum(KERNEL.tobytes())
HOSTILE_ENTRIES = [
    (told("kernel", entry(1, (3, 16), 0, 1 << 40, 192, CRC)), "kernel is 192 bytes at 1099511627776 of part 0"),
    (told("kernel", entry(1, (3, 16), 0, -4, 192, CRC)), "kernel is 192 bytes at -4 of part 0"),
    (told("kernel", entry(1, (3, 16), 0, (1 << 63) - 1, 192, CRC)), "kernel is 192 bytes at 9223372036854775807 of part 0"),
    (told("kernel", entry(1, (3, 16), 0, 0, 192, CRC)), "the check sum of kernel does not agree"),
    (told("kernel", entry(1, (3, 16), 7, 0, 192, CRC)), "kernel is in part 7 of 1"),
    (told("kernel", entry(1, (3, 16), -1, 0, 192, CRC)), "kernel is in part -1 of 1"),
    (told("kernel", entry(1, (3, 16), 0, 0, 1 << 50, CRC)), "kernel declares 1125899906842624 bytes; expected 192"),
    (told("kernel", entry(1, (3, 16), 0, 0, -1, CRC)), "kernel declares -1 bytes; expected 192"),
    (told("kernel", entry(1, (1 << 39, 1 << 39), 0, 0, 192, CRC)), "kernel has the shape (549755813888, 549755813888); expected (3, 16)"),
    (told("kernel", entry(1, (-3, -16), 0, 0, 192, CRC)), "kernel has the shape (-3, -16); expected up to 8 known lengths"),
    (told("kernel", entry(1, (1,) * 5000, 0, 0, 192, CRC)), "expected up to 8 known lengths"),
    (told("kernel", entry(7, (3, 16), 0, 0, 192, CRC)), "kernel holds numbers of TensorFlow's type 7, which is not read"),
    (told("kernel", entry(20, (3, 16), 0, 0, 192, CRC)), "kernel holds numbers of TensorFlow's type 20, which is not read"),
    (told("kernel", entry(3, (3, 16), 0, 0, 192, CRC)), "kernel holds int32; expected float32"),
    (told("kernel", entry(1, (3, 16), 0, 0, 192, CRC, field(7, b"") * 9)), "kernel is stored in 9 slices"),
    (told("kernel", b"\x0a\xff"), "kernel cannot be decoded as TensorFlow's BundleEntry"),
    (lambda entries: entries.pop("kernel"), "the checkpoint has no kernel"),
    (lambda entries: entries.pop(GRAPH), f"the checkpoint has no {GRAPH}"),
    (told(GRAPH, entry(7, (), 0, 0, 1 << 40)), f"{GRAPH} is of type 7 and 1099511627776 bytes long; expected one text"),
    (told(GRAPH, entry(7, (2,), 0, 0, 10)), f"{GRAPH} is of type 7"),
    (told(GRAPH, entry(7, (), 0, 3, 40)), "or its check sum does not agree; it is damaged"),
    (told("a\nb", entry()), "the checkpoint has a name that is not printable"),
]  # fmt: skip


@pytest.mark.parametrize(("alter", "reason"), HOSTILE_ENTRIES)
def test_hostile_entries_of_a_checkpoint(tmp_path, alter, reason):
    """An index whose check sums agree and which lies about an array is refused, and nothing is allocated for it."""
    assert reason in refusal(write_checkpoint(tmp_path, alter=alter))


@pytest.mark.parametrize(
    "header", [b"", field(1, 0), field(1, 5000), field(1, -1), field(1, 2), field(1, 1) + field(2, 1), b"\xff"]
)
def test_hostile_headers_of_a_checkpoint(tmp_path, header):
    """A wrong number of parts, and numbers in another order of bytes, are refused."""
    assert refusal(write_checkpoint(tmp_path, header=header))


def test_a_compressed_index_is_refused(tmp_path):
    """A block that says that Snappy packed it is not unpacked."""
    assert "the index of the checkpoint is compressed" in refusal(write_checkpoint(tmp_path, kind=b"\1"))


@pytest.mark.parametrize("size", [0, 1, 100])
def test_parts_that_were_cut_off_are_refused(tmp_path, size):
    """A part that is empty or too short is refused by what the index says of it."""
    assert "The part was cut off" in refusal(write_checkpoint(tmp_path, data=bytes(size)))


def test_a_part_that_leads_elsewhere_is_not_opened(tmp_path):
    """The data of a checkpoint is looked for in its own folder only."""
    path = write_checkpoint(tmp_path)
    (tmp_path / "m.data-00000-of-00001").unlink()
    (tmp_path / "m.data-00000-of-00001").symlink_to("/etc/passwd")

    assert "nothing outside a model's own folder is opened" in refusal(path)


HOSTILE_NODES = [
    ((), "the object graph has no nodes"),
    ((node([(b"layer-0", 9)]),), "or one that does not exist; it is damaged"),
    ((node([(b"layer-0", -1)]),), "or one that does not exist; it is damaged"),
    ((node([(b"layer-0", 0), (b"layer-0", 0)]),), "a node that names two others alike"),
    ((node([(b"layer-0", 0)]),), "has no cell/kernel in the file"),
    ((node([(b"root", 0)]),), "the checkpoint holds no Sequential and no functional model"),
    ((b"\xff",), "cannot be decoded as TensorFlow's TrackedObject"),
    ((node([(b"\xff", 0)]),), "cannot be decoded as TensorFlow's TrackedObject"),
    ((*NODES[:2], node([(b"kernel", 3), (b"_kernel", 4), (b"recurrent_kernel", 4), (b"bias", 5)]), *NODES[3:]), "has both kernel and _kernel"),
    ((*NODES[:3], NODES[3] * 2, *NODES[4:]), "gives two values to 'lstm/lstm_cell/kernel'"),
    ((*NODES[:3], *NODES[4:2:-1], NODES[5]), "recurrent_kernel has the shape (4, 16); expected (3, 16)"),
    ((node([(b"layer-" + b"9" * 5000, 0)]),), "the checkpoint holds no Sequential"),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "reason"), HOSTILE_NODES)
def test_hostile_object_graphs(tmp_path, nodes, reason):
    """A graph that leads nowhere, to two places or to the weight of another layer is refused."""
    assert reason in refusal(write_checkpoint(tmp_path, nodes))


def test_an_object_may_have_more_than_its_value(tmp_path, digest):
    """TensorFlow may save other attributes alongside the value of a variable; they are passed over."""
    more = field(2, field(1, b"OBJECT_CONFIG_JSON") + field(2, b"x") + field(3, b"y"))

    assert (
        reader.load(write_checkpoint(tmp_path, (*NODES[:3], NODES[3] + more, more + NODES[4], NODES[5]))).digest()
        == digest
    )


def test_an_object_that_many_hold_has_the_shortest_of_its_paths():
    """The graph may have circles and short cuts; each object is found once, by one of its shortest paths."""
    graph = ObjectGraph([{"a": 1, "short": 3, "self": 0}, {"b": 2, "back": 0}, {"c": 3}, {"d": 1, "e": 4}, {}], {})

    assert graph.paths() == {0: (), 1: ("a",), 2: ("a", "b"), 3: ("short",), 4: ("short", "e")}


def test_a_graph_of_many_objects_is_bounded(tmp_path):
    """Objects are counted before they are decoded."""
    assert "has 200007 nodes; expected at most 200000" in refusal(
        write_checkpoint(tmp_path, (*NODES, *[b""] * 200_001))
    )


def test_deeply_nested_messages_are_refused(tmp_path):
    """A message within a message within a message ends in a sentence, not in the stack."""
    deep = b""
    for _ in range(2000):
        deep = field(2, deep)

    assert refusal(write_checkpoint(tmp_path, alter=told("kernel", deep)))


@pytest.mark.parametrize("seed", range(4))
def test_mutants_of_a_checkpoint_are_refused_or_read(tmp_path, digest, seed):
    """Of checkpoints with changed bytes each is a refusal, or the model that it was."""
    chance = random.Random(seed)
    index = write_checkpoint(tmp_path)
    whole = {path: path.read_bytes() for path in (index, tmp_path / "m.data-00000-of-00001")}
    seen = set()
    for _ in range(150):
        path = chance.choice(list(whole))
        mutant = bytearray(whole[path])
        mutant[chance.randrange(len(mutant))] ^= 1 << chance.randrange(8)
        path.write_bytes(mutant)
        result = outcome(index)
        seen.add(result == digest)
        assert result == digest or str(index) in result
        path.write_bytes(whole[path])
    assert False in seen


# SavedModels.


def write_saved_model(folder, metadata=None, saved_model=b""):
    """Writes a SavedModel of the simple model; `metadata` are the bytes of its keras_metadata.pb, or what its root says."""
    (folder / "variables").mkdir(parents=True)
    root = metadata if metadata is not None else {**SIMPLE, "keras_version": "2.15.0"}
    text = root if isinstance(root, str) else json.dumps(root) if isinstance(root, dict) else None
    kept = (
        root
        if text is None
        else field(1, field(3, b"root") + field(4, b"_tf_keras_sequential") + field(5, text.encode()))
    )
    (folder / "saved_model.pb").write_bytes(saved_model)
    (folder / "keras_metadata.pb").write_bytes(kept)
    write_checkpoint(folder / "variables")
    for name in ("m.index", "m.data-00000-of-00001"):
        (folder / "variables" / name).rename(folder / "variables" / name.replace("m.", "variables."))
    return folder


def test_a_saved_model_that_is_made_here_is_read(tmp_path, digest):
    """The folders that the tests below alter are good ones."""
    assert digest == reader.load(write_saved_model(tmp_path / "a")).digest()


@pytest.mark.parametrize(
    "metadata",
    [
        "", "{", "[]", "{}", "[" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000, '{"keras_version": "2.15.0"}',
        '{"keras_version": "2.15.0", "keras_version": "2.15.0"}',
        json.dumps({**SIMPLE, "keras_version": None}), json.dumps({**SIMPLE, "keras_version": ["2.15.0"]}),
        json.dumps({"keras_version": "2.15.0", "model_config": {"class_name": "__tuple__", "items": [SIMPLE]}}),
        json.dumps({"keras_version": "2.15.0", "model_config": {"class_name": "Lambda", "config": {}}}),
        b"\xff", field(1, b"\xff"), field(1, b"") * 200_001,
    ],
)  # fmt: skip
def test_hostile_metadata_of_a_saved_model(tmp_path, metadata):
    """Metadata that is no configuration of a model is refused."""
    path = write_saved_model(tmp_path / "a", metadata)
    if not isinstance(metadata, str):
        path.joinpath("variables", "m.json").unlink()

    assert refusal(path)


@pytest.mark.parametrize("missing", ["variables.index", "variables.data-00000-of-00001"])
def test_saved_models_without_their_weights_are_refused(tmp_path, missing):
    """A SavedModel of which a file is missing is refused by its name."""
    path = write_saved_model(tmp_path / "a")
    (path / "variables" / missing).unlink()

    assert missing in refusal(path)


def test_variables_that_lie_elsewhere_are_not_opened(tmp_path):
    """The folder of the weights may not be a link out of the SavedModel."""
    path = write_saved_model(tmp_path / "a")
    shutil.move(path / "variables", tmp_path / "elsewhere")
    (path / "variables").symlink_to("../elsewhere")

    assert "nothing outside a model's own folder is opened" in refusal(path)


# Graphs.


def placed(kind, name, nodes, /, **options):
    """Returns a layer of a functional model."""
    return {
        "class_name": kind,
        "name": name,
        "config": {"name": name, "dtype": "float32", **options},
        "inbound_nodes": nodes,
    }


def functional(*layers, outputs, inputs=(("input", 0, 0),)):
    """Returns the configuration of a functional model."""
    return {
        "class_name": "Functional",
        "config": {
            "name": "m",
            "layers": list(layers),
            "input_layers": list(map(list, inputs)),
            "output_layers": outputs,
        },
    }


def tensor(name, output=0):
    """Returns a tensor as Keras 3 writes it among arguments."""
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, output]}}


def lstm_on(*nodes, name="lstm", **options):
    """Returns an LSTM with the calls that are given."""
    return placed("LSTM", name, list(nodes), **lstm_config(name=name, **options)["config"])


def on(name, call=0):
    """Returns a call as Keras 2 writes it."""
    return [[name, call, 0, {}]]


SOURCE = placed("InputLayer", "input", [], batch_shape=[None, None, 3])
DENSE = {"units": 3, "activation": "linear", "use_bias": True}
HOSTILE_GRAPHS = [
    (functional(SOURCE, lstm_on(on("lstm")), outputs=[["lstm", 0, 0]]), "the graph leads in a circle through 'lstm'"),
    (functional(SOURCE, placed("Dense", "d", [on("lstm")], **DENSE), lstm_on(on("d")), outputs=[["lstm", 0, 0]]), "in a circle through"),
    (functional(SOURCE, lstm_on(on("none")), outputs=[["lstm", 0, 0]]), "the graph leads to call 0 of 'none', which the model does not have"),
    (functional(SOURCE, lstm_on(on("input", 1 << 70)), outputs=[["lstm", 0, 0]]), "which the model does not have"),
    (functional(SOURCE, lstm_on(on("input", -1)), outputs=[["lstm", 0, 0]]), "has inbound_nodes that cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 1 << 70]]), "reads output 1180591620717411303424 of 'lstm'"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 1]]), "the model has no output 1 of layer 'lstm' (LSTM)"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, -1]]), "output_layers of the model cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, True]]), "output_layers of the model cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs="lstm"), "output_layers of the model cannot be read"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[]), "the model has no LSTM layer"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 0]], inputs=[["lstm", 0, 0]]), "as an input, which is not an InputLayer"),
    (functional(SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 0]], inputs=[]), "the graph leads to call 0 of 'input'"),
    (functional(SOURCE, lstm_on({"args": [], "kwargs": {}}), outputs=[["lstm", 0, 0]]), "is called without an input"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"mask": tensor("input")}}), outputs=[["lstm", 0, 0]]), "with an explicit mask"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"training": True}}), outputs=[["lstm", 0, 0]]), "was called with training=True"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"evil": 1}}), outputs=[["lstm", 0, 0]]), "is called with evil=1, which is not supported"),
    (functional(SOURCE, lstm_on({"args": [tensor("input")], "kwargs": {"initial_state": [tensor("input")] * 3}}), outputs=[["lstm", 0, 0]]), "is given 3 initial states"),
    (functional(SOURCE, lstm_on(*[on("input"), *[on("lstm", call) for call in range(5000)]], return_sequences=True), outputs=[["lstm", 5000, 0]]), "are called more than"),
    (functional(SOURCE, SOURCE, lstm_on(on("input")), outputs=[["lstm", 0, 0]]), "two layers have the same name"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "reason"), HOSTILE_GRAPHS)
def test_hostile_graphs(tmp_path, config, reason):
    """A graph that is not a graph, or one of a thousand calls, is refused before a weight is read."""
    assert reason in refusal(write_hdf5(tmp_path / "a.h5", config))


@pytest.mark.parametrize("number", [10**400, -(10**400)])
@pytest.mark.parametrize(
    "node",
    [
        lambda n: {"args": [tensor("input"), n], "kwargs": {}},
        lambda n: [["input", 0, 0, {"y": n}]],
        lambda n: [["_CONSTANT_VALUE", -1, n, {"y": ["input", 0, 0]}]],
    ],
)
def test_numbers_of_operations_that_are_no_floats_are_refused(tmp_path, number, node):
    """JSON has whole numbers that no float can hold."""
    operation = {
        "class_name": "TFOpLambda",
        "name": "op",
        "config": {"name": "op", "function": "math.multiply"},
        "inbound_nodes": [node(number)],
    }
    config = functional(SOURCE, operation, lstm_on(on("op")), outputs=[["lstm", 0, 0]])

    assert refusal(write_hdf5(tmp_path / "a.h5", config))


def nested(levels, calls):
    """Returns a model that calls a model so many times, that calls a model so many times, and so on; the last does nothing."""
    if not levels:
        return functional(SOURCE, outputs=[["input", 0, 0]])
    inner = {
        **nested(levels - 1, calls),
        "name": "n",
        "inbound_nodes": [on("input"), *[on("n", call) for call in range(calls - 1)]],
    }
    inner["config"] = {**inner["config"], "name": "n"}
    return functional(SOURCE, inner, outputs=[["n", calls - 1, 0]])


@pytest.mark.parametrize(("levels", "calls"), [(14, 2), (3, 200), (2, 2000)])
def test_models_that_call_models_are_bounded(tmp_path, levels, calls):
    """A kilobyte that stands for millions of calls is refused when a thousand of them are counted."""
    config = nested(levels, calls)
    config["config"]["layers"].append(lstm_on(on("n", calls - 1)))
    config["config"]["output_layers"] = [["lstm", 0, 0]]
    began = time.process_time()

    assert "are called more than" in refusal(write_hdf5(tmp_path / "a.h5", config))
    assert time.process_time() - began < 3


FUNCTIONAL_2 = functional(
    SOURCE,
    placed("Masking", "mask", [on("input")], mask_value=0.0),
    lstm_on([["mask", 0, 0, {}]], name="one", return_sequences=True, return_state=True),
    lstm_on([["one", 0, 0, {"initial_state": [["one", 0, 1], ["one", 0, 2]]}]], name="two"),
    placed("Concatenate", "join", [[["one", 0, 1, {}], ["two", 0, 0, {}]]], axis=-1),
    {"class_name": "TFOpLambda", "name": "op", "config": {"name": "op", "function": "math.multiply"}, "inbound_nodes": [[["join", 0, 0, {"y": 2.0}]]]},
    outputs=[["join", 0, 0], ["op", 0, 0]],
)  # fmt: skip
FUNCTIONAL_3 = functional(
    SOURCE,
    lstm_on({"args": [tensor("input")], "kwargs": {"mask": None}}, name="one", return_sequences=True, return_state=True),
    lstm_on({"args": [tensor("one")], "kwargs": {"initial_state": [tensor("one", 1), tensor("one", 2)]}}, name="two"),
    placed("Add", "join", [{"args": [[tensor("one", 1), tensor("two")]], "kwargs": {}}]),
    {"module": "keras.src.ops.numpy", "class_name": "Multiply", "name": "op", "config": {"name": "op"}, "inbound_nodes": [{"args": [tensor("join"), 2.0], "kwargs": {}}]},
    outputs=[["join", 0, 0], ["op", 0, 0]],
)  # fmt: skip
VALUES = [
    None, True, -1, 0, 1, 64, 1 << 40, 10**400, 1e308, 0.5, "x", "", [], {}, [[]], ["x", 0, 0], "one", "LSTM", ["one", 0, 0, {}],
    {"config": {"keras_history": ["one", 0, 0]}}, {"class_name": "ReLU", "config": {"name": "r", "max_value": 10**400}},
]  # fmt: skip


def places(value, above=()):
    """Yields the way to everything in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*above, key)
        yield from places(item, (*above, key))


def mutant(config, chance):
    """Returns a configuration with one or two changes: something deleted, repeated or replaced, be it by another part."""
    made = copy.deepcopy(config)
    for _ in range(chance.choice((1, 1, 2))):
        ways = [way for way in places(made) if way[0] == "config" and len(way) > 1]
        if not ways:
            break
        *way, key = chance.choice(ways)
        parent = made
        for step in way:
            parent = parent[step]
        match chance.randrange(4):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case 2:
                other = made
                for step in chance.choice(ways):
                    other = other[step]
                parent[key] = copy.deepcopy(other)
            case _:
                parent[key] = copy.deepcopy(chance.choice(VALUES))
    return made


@pytest.mark.parametrize(("config", "version"), [(FUNCTIONAL_2, "2.15.0"), (FUNCTIONAL_3, "3.15.1")])
@pytest.mark.parametrize("seed", range(4))
def test_mutants_of_a_graph_are_refused_or_read(tmp_path, config, version, seed):
    """Of graphs in which something is deleted, exchanged or of another type each is a model, or refused in a sentence."""
    chance = random.Random(seed)
    names = ("lstm_cell/kernel:0", "lstm_cell/recurrent_kernel:0", "lstm_cell/bias:0")
    weights = {name: dict(zip(names, lstm_weights(width), strict=True)) for name, width in (("one", 3), ("two", 4))}
    whole = write_hdf5(tmp_path / "whole.h5", config, weights, version=version)
    assert len(reader.load(whole).outputs) == 2
    path = tmp_path / "mutant.h5"
    for _ in range(150):
        write_hdf5(path, mutant(config, chance), weights, version=version)
        outcome(path)


WRAPPED = {"class_name": "LSTM", "config": lstm_config(return_sequences=True)["config"]}
OPTIONS = [
    ("LSTM", {**WRAPPED["config"], "time_major": False, "zero_output_for_mask": False, "return_state": False}),
    ("RNN", {"cell": {"class_name": "LSTMCell", "config": {**lstm_config()["config"]}}, "return_sequences": True}),
    ("Bidirectional", {"layer": WRAPPED, "backward_layer": None, "merge_mode": "concat"}),
    ("TimeDistributed", {"layer": keras_layer("Dense", "d", **DENSE)}),
    ("Dense", DENSE),
    ("Masking", {"mask_value": 0.0}),
    ("Activation", {"activation": "relu"}),
    ("ELU", {"alpha": 1.0}),
    ("LeakyReLU", {"negative_slope": 0.1}),
    ("ReLU", {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.1}),
    ("Softmax", {"axis": -1}),
    ("ThresholdedReLU", {"theta": 1.0}),
    ("PReLU", {"shared_axes": [1]}),
    ("BatchNormalization", {"axis": -1, "epsilon": 0.1, "center": True, "scale": True}),
    ("LayerNormalization", {"axis": -1, "epsilon": 0.1, "center": True, "scale": True, "rms_scaling": False}),
    ("Normalization", {"axis": -1, "mean": [1.0, 2.0, 3.0, 4.0], "variance": [1.0, 2.0, 3.0, 4.0], "invert": False}),
    ("Rescaling", {"scale": 1.0, "offset": 1.0}),
    (
        "Conv1D",
        {"filters": 3, "kernel_size": [2], "strides": [1], "padding": "causal", "dilation_rate": [1], "groups": 1},
    ),
    ("MaxPooling1D", {"pool_size": [2], "strides": [2], "padding": "valid", "data_format": "channels_last"}),
    ("AveragePooling1D", {"pool_size": 2, "strides": None, "padding": "valid"}),
    ("GlobalMaxPooling1D", {"keepdims": True, "data_format": "channels_last"}),
    ("GlobalAveragePooling1D", {"keepdims": True}),
    ("Flatten", {"data_format": "channels_last"}),
    ("Reshape", {"target_shape": [8, 3]}),
    ("Permute", {"dims": [2, 1]}),
    ("ZeroPadding1D", {"padding": [1, 1]}),
    ("Cropping1D", {"cropping": [1, 1]}),
    ("Concatenate", {"axis": -1}),
    ("Dropout", {"rate": 0.1}),
]
ODD = [
    None, True, -1, 0, 1 << 64, 10**400, -(10**400), 1e308, float("1e999"), 0.5, "x", "", "softmax", [], [[]], {}, [None], [1 << 70], [10**400],
    [1, 2], ["x"], [[1, 2], [3]], {"class_name": "x"}, {"class_name": []}, {"class_name": "LSTM", "config": {}}, {"config": {}},
    {"class_name": "ELU", "config": {"name": "r", "alpha": 10**400}}, {"class_name": "Softmax", "config": {"name": "r", "axis": {}}},
    {"class_name": "function", "config": "relu"}, {"class_name": "StackedRNNCells", "config": {"name": "s", "cells": [5]}},
    {"class_name": "StackedRNNCells", "config": {"name": "s", "cells": []}}, {"class_name": "LSTMCell", "config": {"name": "c", "units": "x"}},
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_options_of_every_type_are_refused_or_read(tmp_path, kind, options):
    """Whatever is in an option of whatever layer, it is understood or refused in a sentence."""
    path = write_hdf5(tmp_path / "a.h5", SIMPLE)
    for option in (*options, "unknown", "name", "dtype"):
        for value in ODD:
            layer = {"class_name": kind, "config": {"name": "k", **options, option: value}}
            config = sequential(input_config(3, 6), lstm_config(return_sequences=True), layer)
            text = json.dumps(config).replace("Infinity", "1e999")
            with h5py.File(path, "r+") as file:
                file.attrs["model_config"] = text
            outcome(path)


# What comes back from the process that reads files.


@pytest.mark.parametrize("seed", range(4))
def test_mutants_of_what_comes_back_are_errors_of_few_kinds(tmp_path, seed):
    """A description that someone has altered on its way raises one of the errors that the server takes for a refusal."""
    chance = random.Random(seed)
    file = os.memfd_create("test")
    form = json.loads(json.dumps(transfer.dump(reader.load(SUNSPOTS), SharedStore(file), file)))
    expected = (UnsupportedModelError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
    refused = 0
    for _ in range(300):
        try:
            transfer.load(mutant({"config": form}, chance)["config"], file)
        except expected:
            refused += 1
    os.close(file)

    assert refused > 30


def test_weights_that_no_layer_asks_for_are_refused(tmp_path):
    """A file with the weights of one layer more than the model has does not belong to it, and is refused."""
    weights = {f"layers/{name}/cell/vars": lstm_weights(3, 3) for name in ("lstm", "lstm_1")}
    path = write_zip(tmp_path / "m.keras", sequential(input_config(), lstm_config(3)), weights_file(weights))

    assert "the file holds weights in layers/lstm_1, and the model has no layer for them" in refusal(path)
