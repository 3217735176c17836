"""SavedModels that are made to harm: each is refused in a sentence (promise P7)."""

from __future__ import annotations

import json
import shutil

import pytest

from lstmserve_server.loading import reader
from tests.hostile.formats import field, refusal, write_checkpoint
from tests.support.builders import (
    SIMPLE,
)


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
