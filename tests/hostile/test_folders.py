"""Folders that are made to harm: each is refused in a sentence (promise P7)."""

from __future__ import annotations

import os
import zipfile

import pytest

from lstmserve_server.loading import reader
from tests.hostile.formats import GROUP, MEMBERS, outcome, refusal
from tests.support.builders import (
    lstm_weights,
    weights_file,
    write_zip,
)


@pytest.fixture
def folder(tmp_path):
    """Returns a folder that holds the simple model, as an unpacked `.keras` file."""
    path = tmp_path / "model"
    with zipfile.ZipFile(write_zip(tmp_path / "a")) as archive:
        archive.extractall(path)
    return path


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
