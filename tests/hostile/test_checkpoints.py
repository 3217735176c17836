"""Checkpoints of TensorFlow that are made to harm: each is refused in a sentence (promise P7)."""

from __future__ import annotations

import random

import pytest

from lstmserve_server.loading import reader
from lstmserve_server.loading.formats.tensorflow.object_graph import ObjectGraph
from tests.hostile.formats import (
    GRAPH,
    KERNEL,
    NODES,
    check_sum,
    entry,
    field,
    node,
    outcome,
    refusal,
    write_checkpoint,
)


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
