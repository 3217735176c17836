"""What a file can hand to Keras: every value of every configuration, replaced by what runs code there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile

import h5py
import pytest

from lstmserve_server.core.errors import UnsupportedModelError
from lstmserve_server.loading import reader
from lstmserve_server.loading.build import cleaning
from lstmserve_server.loading.build.rules.registry import RULES
from lstmserve_server.loading.config import keras_v1
from tests.hostile import payloads
from tests.hostile.payloads import PAYLOADS
from tests.support.paths import ROOT

FIXTURES = ROOT / "tests" / "fixtures"
FILES = sorted(
    path
    for path in FIXTURES.rglob("*")
    if path.suffix in (".keras", ".h5") and path.is_file() and "custom" not in path.name
)


def config_of(path):
    """Returns the configuration of a whole model; None where there is none, or the file is refused anyway."""
    try:
        if reader.load(path).source.format not in ("keras-zip", "keras-hdf5"):
            return None
    except UnsupportedModelError:
        return None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with h5py.File(path) as file:
        return json.loads(file.attrs["model_config"])


def with_config(path, config, target):
    """Writes a file with another configuration."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
            for info in old.infolist():
                new.writestr(info, json.dumps(config) if info.filename == "config.json" else old.read(info))
        return target
    buffer = io.BytesIO(path.read_bytes())
    with h5py.File(buffer, "r+") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
    target.write_bytes(buffer.getvalue())
    return target


@pytest.fixture(scope="module")
def configs():
    """Returns the configurations of whole models, of every format and era, by file."""
    found = {path: config_of(path) for path in FILES}
    return {path: config for path, config in found.items() if config is not None}


def left(config):
    """Returns the cleaned configuration as text; "" where it is refused."""
    try:
        return json.dumps(cleaning.cleaned(config))
    except UnsupportedModelError:
        return ""


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_value_of_any_configuration_lets_an_object_through(configs, name):
    """Whatever value is replaced by an object that runs code, it is left out or the file refused: nothing of it is left."""
    payload, tried, left_out = PAYLOADS[name], 0, 0
    traces = [payloads.CODE[:40], "Evil", "__lambda__", '"Lambda"', payloads.MODULE, "payloads>", "passive"]
    for config in configs.values():
        for path in list(payloads.places(config)):
            with payloads.exchanged(config, path, payload):
                text = left(config)
            assert not any(trace in text for trace in traces), path
            tried += 1
            left_out += bool(text)

    assert tried > 20_000
    assert left_out > 2_000  # options that no answer depends on: such a file is served


def test_every_kind_of_layer_is_among_them(configs):
    """The configurations hold every kind of layer that is served, except for those that few files have."""
    kinds = {value for config in configs.values() for value in kinds_of(config)}

    assert len(kinds & set(RULES)) >= 20
    assert {"LSTM", "CuDNNLSTM", "RNN", "Bidirectional", "TimeDistributed", "Dense", "Embedding", "Masking"} <= kinds


def kinds_of(config):
    """Yields the classes of a configuration."""
    for path in payloads.places(config):
        if path[-1] == "class_name":
            value = config
            for key in path:
                value = value[key]
            yield value


def listed(config):
    """Yields what a configuration says of each layer, those of models within it too."""
    for entry in config["config"]["layers"] if isinstance(config["config"], dict) else config["config"]:
        yield entry
        if entry["class_name"] in ("Functional", "Model", "Sequential"):
            yield from listed(entry)


def test_what_leads_to_a_layer_is_left(configs):
    """Names, classes, and as many nodes as the file has: of chains none, of graphs some."""
    nodes = 0
    for config in configs.values():
        for before, after in zip(listed(config), listed(cleaning.cleaned(config)), strict=True):
            assert before["class_name"] == after["class_name"]
            if isinstance(before["config"], dict):
                assert before["config"].get("name") == after["config"].get("name")
            assert len(before.get("inbound_nodes") or []) == len(after.get("inbound_nodes") or [])
            nodes += len(after.get("inbound_nodes") or [])
    assert nodes > 50


def test_to_clean_a_configuration_once_more_changes_nothing(configs):
    """What was cleaned is what the same rules accept."""
    for config in configs.values():
        once = cleaning.cleaned(config)
        assert cleaning.cleaned(once) == once


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("units", {"class_name": "Evil"}, "my_lstm"),
        ("activation", {"class_name": "function", "config": {"name": "evil"}}, "evil"),
        ("recurrent_activation", {"class_name": ["ReLU"], "config": {"name": "evil"}}, "evil"),
        ("dtype", {"class_name": "Evil", "config": {"name": "float32"}}, "my_lstm"),
        ("shape", ["x" * 300], "my_lstm"),
        ("activation", "x" * 300, "my_lstm"),
        ("cell", {"class_name": "Dense", "config": {"name": "inner"}}, "inner"),
        ("layer", {"class_name": "Functional", "config": {"name": "inner", "layers": []}}, "inner"),
    ],
    ids=[
        "object",
        "function",
        "class that is not text",
        "dtype",
        "long text in a list",
        "long text",
        "no cell",
        "model in a wrapper",
    ],
)
def test_what_is_not_known_in_its_place_is_refused_by_name(place, value, named):
    """The refusal names the layer, and the class or the option."""
    layer = {"class_name": "LSTM", "config": {"name": "my_lstm", "units": 3, place: value}}
    with pytest.raises(UnsupportedModelError) as refused:
        cleaning.cleaned({"class_name": "Sequential", "config": {"name": "m", "layers": [layer]}})

    assert str(refused.value).startswith(f"layer {named!r}")
    assert any(word in str(refused.value) for word in (f"has {place}=", "is of the class", "where its configuration"))


def test_a_function_of_tensorflow_is_one_of_a_few():
    """TFOpLambda calls any function of TensorFlow by its name; only arithmetic is let through."""

    def model(function):
        layer = {"class_name": "TFOpLambda", "config": {"name": "f", "function": function}, "name": "f"}
        return {"class_name": "Functional", "config": {"name": "m", "layers": [layer]}}

    assert left(model("math.add"))
    assert not left(model("io.read_file"))


def poisoned(config, payload):
    """Returns a configuration with a payload in every place where it changes nothing of what is cleaned; and how many there are."""
    expected, count = left(config), 0
    for path in list(payloads.places(config)):
        if path[-1] in cleaning.LEFT_OUT - keras_v1.DROPPED or path[-1] in cleaning.INITIALIZERS:
            try:
                changed = payloads.replaced(config, path, payload)
            except (KeyError, TypeError, IndexError):  # within a value that was replaced before
                continue
            if left(changed) == expected:
                config, count = changed, count + 1
    return config, count


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Returns what has Keras load files under an audit hook, in a process of its own."""
    folder = tmp_path_factory.mktemp("module")
    (folder / f"{payloads.MODULE}.py").write_text(payloads.SOURCE)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.audited_reference"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:

        def ask(file, *, raw=False, library=""):
            process.stdin.write(json.dumps({"file": str(file), "raw": raw, "library": library}) + "\n")
            process.stdin.flush()
            line = next(line for line in process.stdout if line.startswith("answer:"))
            return json.loads(line.removeprefix("answer:"))

        yield ask
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAYLOADS)
def test_nothing_of_a_served_file_runs_in_the_reference(configs, audited, tmp_path, name):
    """Files whose ignored options are all objects that run code are served, and Keras loads them itself: nothing runs."""
    formats = {}
    for path, config in configs.items():
        formats.setdefault((path.parent.name, path.suffix), []).append((path, config))
    loaded = 0
    for number, files in enumerate(formats.values()):
        for path, config in files[number % 10 :: 10]:  # each payload in a tenth of the files; most formats and eras
            changed, count = poisoned(config, PAYLOADS[name])
            if not count:
                continue
            target = with_config(path, changed, tmp_path / path.name)
            reader.load(target)
            answer = audited(target)
            assert answer["events"] == [], path
            loaded += answer["kind"].endswith("_FILE")

    assert loaded >= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "library", "name", "ending"),
    [
        ("tf2.15/lstm_stack_dense.h5", "tf_keras", "lambda of Keras 2", ("activity_regularizer",)),
        ("keras3.15/lstm_stack_dense.keras", "keras", "registered object", ("activity_regularizer",)),
        # No library of today imports a module by its name alone; then the hook would say so.
        ("tf2.15/lstm_stack_dense.keras", "none", "module", ("layers", 1)),
    ],
    ids=["lambda", "registered object", "module"],
)
def test_the_audit_sees_what_a_payload_does(audited, tmp_path, file, library, name, ending):
    """Without our care the same payloads run, and the hook says so."""
    path = FIXTURES / file
    changed = config = config_of(path)
    for place in payloads.places(config):
        if place[-len(ending) :] == ending:
            changed = payloads.replaced(changed, place, PAYLOADS[name])
    target = with_config(path, changed, tmp_path / path.name)

    assert audited(target, raw=True, library=library)["events"] != []
