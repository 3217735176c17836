"""Model files that are made to harm: each is refused before anything is allocated, followed or run (promise P7)."""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from tests.support.builders import (
    SIMPLE,
    input_config,
    lstm_config,
    lstm_weights,
    sequential,
    weights_file,
    write_hdf5,
    write_zip,
)

KERNEL = "layers/lstm/cell/vars/0"


def refusal(path):
    """Returns why a file is refused, and asserts that no more than a few megabytes were allocated on the way."""
    tracemalloc.start()
    with pytest.raises(UnsupportedModelError) as refused:
        reader.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    return str(refused.value)


def altered(alter):
    """Returns the weights of the simple model after `alter` had its way with the open file."""
    buffer = io.BytesIO(weights_file({"layers/lstm/cell/vars": lstm_weights()}))
    with h5py.File(buffer, "r+") as file:
        alter(file)
    return buffer.getvalue()


def replaced(**options):
    """Returns an alteration that makes the kernel again with other options of h5py."""

    def alter(file):
        del file[KERNEL]
        file.create_dataset(KERNEL, **options)

    return alter


def linked(link):
    """Returns an alteration that puts a link in the kernel's place."""

    def alter(file):
        del file[KERNEL]
        file[KERNEL] = link

    return alter


def virtual(file):
    """Puts a virtual dataset in the kernel's place."""
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 16), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3, 16))
    file.create_virtual_dataset(KERNEL, layout)


def soft_group(file):
    """Makes the group on the way to the kernel a soft link to itself elsewhere."""
    file.move("layers/lstm", "elsewhere")
    file["layers/lstm"] = h5py.SoftLink("/elsewhere")


def twice_deflated(file):
    """Deflates the kernel twice, which makes a gigabyte of a kilobyte."""
    del file[KERNEL]
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_chunk((3, 16))
    for _ in range(2):
        create.set_deflate(9)
    h5py.h5d.create(file.id, KERNEL.encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3, 16)), create)
    file[KERNEL][:] = lstm_weights()[0]


NAN = lstm_weights()[0].copy()
NAN[1, 2] = np.nan

HOSTILE = [
    (linked(h5py.ExternalLink("/etc/passwd", "/x")), f"/{KERNEL} is a link to another place (ExternalLink)"),
    (linked(h5py.SoftLink("/layers/lstm/cell/vars/1")), f"/{KERNEL} is a link to another place (SoftLink)"),
    (soft_group, "/layers/lstm is a link to another place (SoftLink)"),
    (replaced(shape=(3, 16), dtype="<f4", external=[("/etc/passwd", 0, 192)]), f"/{KERNEL} is stored outside the file"),
    (virtual, f"/{KERNEL} is stored outside the file"),
    (replaced(shape=(2**40, 2**10), dtype="<f4", chunks=(1, 1)), f"/{KERNEL} has the shape (1099511627776, 1024); expected (3, 16)"),
    (replaced(shape=(16, 3), dtype="<f4", data=NAN.T), f"/{KERNEL} has the shape (16, 3); expected (3, 16) from the configuration"),
    (replaced(shape=(3, 16), dtype="<f4"), f"/{KERNEL} declares 192 bytes and holds 0"),
    (replaced(shape=(3, 16), dtype="<f4", chunks=(3, 8)), f"/{KERNEL} declares 2 chunks of (3, 8) and holds 0"),
    (replaced(shape=(3, 16), maxshape=(None, None), dtype="<f4", chunks=(30000, 30000)), f"/{KERNEL} declares 1 chunks"),
    (replaced(data=NAN), f"/{KERNEL} holds nan at (1, 2); the weights of a model must be finite. The training may have diverged"),
    (replaced(data=lstm_weights()[0].astype(">f4")), f"/{KERNEL} holds >f4; expected float32, float16 or bfloat16 from the configuration"),
    (replaced(data=lstm_weights()[0].astype("<f8")), f"/{KERNEL} holds float64; expected float32, float16 or bfloat16 from the configuration"),
    (replaced(data=np.zeros((3, 16), [("a", "<f4")])), f"/{KERNEL} holds [('a', '<f4')]; expected float32"),
    (replaced(shape=(3, 16), dtype=h5py.ref_dtype), f"/{KERNEL} holds object; expected float32"),
    (replaced(shape=(3, 16), dtype=h5py.string_dtype()), f"/{KERNEL} holds object; expected float32"),
    (replaced(data=h5py.Empty("<f4")), f"/{KERNEL} has the shape None; expected (3, 16)"),
    (replaced(data=lstm_weights()[0], compression="lzf"), f"/{KERNEL} is packed with the HDF5 filter 32000; expected none, or each at most once of"),
    (twice_deflated, f"/{KERNEL} is packed with the HDF5 filter 1; expected none, or each at most once of"),
    (lambda file: file.__delitem__(KERNEL), "layer 'lstm' (LSTM) has 2 weights in /layers/lstm/cell/vars; expected 3: kernel,"),
    (lambda file: file.__delitem__("layers"), "/layers is missing. The file is damaged, or was cut off while it was written"),
    (lambda file: file.create_group("layers/lstm/cell/vars/3"), "layer 'lstm' (LSTM) has 4 weights"),
]  # fmt: skip


def test_a_chunk_may_be_larger_than_a_small_array(tmp_path):
    """Anyone who writes arrays that may grow chooses chunks without regard to their size; up to 65,536 numbers it is not a bomb."""
    grown = replaced(data=lstm_weights()[0], maxshape=(None, None), chunks=(64, 1024))
    plain = reader.load(write_zip(tmp_path / "a.keras", weights=altered(lambda file: None)))

    assert reader.load(write_zip(tmp_path / "b.keras", weights=altered(grown))).digest() == plain.digest()


@pytest.mark.parametrize(("alter", "reason"), HOSTILE)
def test_hostile_hdf5(tmp_path, alter, reason):
    """What HDF5 can do beyond plain arrays is refused by name, before a byte is read."""
    assert reason in refusal(write_zip(tmp_path / "a.keras", weights=altered(alter)))


def test_the_same_guards_stand_in_front_of_whole_h5_files(tmp_path):
    """An .h5 file with a link out of it is refused as well."""
    path = write_hdf5(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["model_weights/lstm/lstm/lstm_cell/kernel:0"]
        file["model_weights/lstm/lstm/lstm_cell/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")

    assert "is a link to another place (ExternalLink)" in refusal(path)


def test_gzip_and_shuffle_are_harmless(tmp_path):
    """Arrays that HDF5 itself packed are read."""
    packed = altered(replaced(data=lstm_weights()[0], compression="gzip", shuffle=True, fletcher32=True))

    assert (
        reader.load(write_zip(tmp_path / "a")).digest()
        == reader.load(write_zip(tmp_path / "b", weights=packed)).digest()
    )


def test_a_zip_bomb_is_refused_unopened(tmp_path):
    """A member that would grow a thousandfold is refused by what it declares."""
    bomb = bytes(200 << 20)
    path = write_zip(tmp_path / "a", weights=bomb, compression=zipfile.ZIP_DEFLATED)
    del bomb

    assert "model.weights.h5 declares 209715200 bytes" in refusal(path)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    """A member that holds more than it declares is not read beyond what it declares."""
    path = write_zip(tmp_path / "a", compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")  # the central directory's entry of the weights
    (size,) = struct.unpack_from("<I", content, place + 24)
    struct.pack_into("<I", content, place + 24, size - 100)
    path.write_bytes(content)

    assert "model.weights.h5 cannot be unpacked" in refusal(path) or "declares" in refusal(path)


def test_two_members_of_one_name_are_refused(tmp_path):
    """With two configurations in it, two readers could see two models."""
    path = write_zip(tmp_path / "a")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")

    assert "the archive has two members of the same name" in refusal(path)


def test_an_archive_of_many_members_is_refused(tmp_path):
    """An archive with more members than any model is refused."""
    path = write_zip(tmp_path / "a")
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(300):
            archive.writestr(f"asset{number}", "")

    assert "the archive has 303 members; expected at most 256" in refusal(path)


def test_an_encrypted_member_is_refused(tmp_path):
    """A member that says it is encrypted is refused."""
    path = write_zip(tmp_path / "a")
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(signature)
        content[place + flags] |= 1
    path.write_bytes(content)

    assert "metadata.json is encrypted or packed in an unusual way" in refusal(path)


def test_pickled_weights_are_never_opened(tmp_path):
    """Weights in a pickle are not looked for."""
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", json.dumps(SIMPLE))
        archive.writestr("model.weights.npz", b"\x80\x04pickle")

    assert "the weights are in model.weights.npz, a pickle, which can run code when it is loaded" in refusal(path)


def test_weights_that_a_configuration_only_dreams_of_are_refused(tmp_path):
    """Sizes that add up beyond the limit are refused before anything is allocated for them."""
    config = sequential(
        input_config(1 << 20), *(lstm_config(16384, f"lstm_{i}", return_sequences=True) for i in range(4))
    )

    assert "the weights up to layer 'lstm_0' (LSTM) take" in refusal(write_zip(tmp_path / "a", config))


@pytest.mark.parametrize("write", [write_zip, write_hdf5])
def test_nothing_but_the_file_is_opened(tmp_path, write):
    """While a model is loaded, no other file is opened."""
    (tmp_path / "model.json").write_bytes(b"\xff")  # the architecture for a file of weights, which this one is not
    path = write(tmp_path / "a")
    reader.load(path)  # whatever Python itself opens when it does something for the first time
    opened = []
    watching = [True]  # an audit hook stays for ever, so it is switched off below

    def hook(event, arguments):
        if (
            watching[0] and event == "open" and not isinstance(arguments[0], int)
        ):  # a number is a file that is open already
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    reader.load(path)
    watching[0] = False

    assert [str(path)] == opened


def test_no_descriptor_is_left_open(tmp_path):
    """Neither a model nor a refusal leaves the file open."""
    good, bad = write_zip(tmp_path / "a"), write_zip(tmp_path / "b", "{")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limit[1]))
    try:
        for _ in range(150):
            reader.load(good)
            with pytest.raises(UnsupportedModelError):
                reader.load(bad)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
