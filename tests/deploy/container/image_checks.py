"""What docs/container.md promises of the images. Not among the tests that run by themselves: `make container-test` builds first."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import tomllib

import numpy as np
import pytest

from lstmserve import Client
from tests.deploy.container.podman import ROOT, WITH_MODELS, Container, Image, image_of, podman, run, run_python
from tests.support.builders import numbers
from tests.support.paths import SUNSPOTS

TARGETS = os.environ["TARGETS"].split()
SERIES = np.abs(numbers(40, 1, seed=3))

every_target = pytest.mark.parametrize("target", TARGETS, scope="module")
one_target = pytest.mark.parametrize("target", TARGETS[:1], scope="module")  # for what TensorFlow cannot change
shadow_only = pytest.mark.skipif("shadow" not in TARGETS, reason="the target shadow was not built")


@pytest.fixture(scope="module")
def image(target, tmp_path_factory):
    """Returns an image, opened."""
    return Image(target, tmp_path_factory.mktemp("image") / "archive.tar")


@pytest.fixture(scope="module")
def container(target):
    """Returns a container that serves the bundled model."""
    with Container(target) as running:
        running.wait_for("serving")
        yield running


@every_target
def test_it_serves(container, sunspots):
    """A client outside gets the outputs that a server outside gives."""
    with Client(container.address) as inside, Client(sunspots.address) as outside:
        expected, got = (client.forward(SERIES, all_outputs=True).output for client in (outside, inside))

    np.testing.assert_allclose(expected, got, rtol=1e-5)


@one_target
def test_it_streams(container):
    """A stream gives the bytes of a call."""
    with Client(container.address) as client, client.stream() as stream:
        assert client.forward(SERIES).output.tobytes() == list(stream.steps(SERIES))[-1].tobytes()


@every_target
def test_it_is_process_1_of_a_user_without_rights(container):
    """The server itself is process 1, of user and group 65532, without any capability and without a way to get one."""
    status = container.process_1

    assert status["NSpid"].split()[-1] == "1"
    assert (status["Uid"], status["Gid"]) == ("65532 65532 65532 65532", "65532 65532 65532 65532")
    assert (status["Name"], status["NoNewPrivs"]) == ("lstmserve", "1")
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0000000000000000"}


@every_target
def test_health_is_asked_from_inside(container):
    """`lstmserve health` needs nothing but the image."""
    ended = container.run("lstmserve", "health", "--address", container.address)

    assert (ended.returncode, ended.stdout) == (0, "SERVING\n")


@one_target
def test_the_engine_asks_for_health(target):
    """The HEALTHCHECK of the image finds the server at its default address."""
    with Container(target, network=("--network", "none")) as container:
        container.wait_for("serving")

        assert podman("healthcheck", "run", container.name).returncode == 0
        container.send(signal.SIGSTOP)
        assert podman("healthcheck", "run", container.name).returncode == 1


@one_target
def test_an_engine_that_stops_it_waits_for_the_drain_alone(target):
    """SIGTERM ends a server with 0 within the 10 seconds that Docker waits, and it has drained."""
    with Container(target) as container:
        container.wait_for("serving")
        stopped = podman("stop", "--time", "10", container.name)

        assert stopped.returncode == 0, stopped.stderr
        assert container.finish() == 0  # 137, had it been killed
        assert [entry["event"] for entry in container.log][-2:] == ["draining", "stopped"]


@one_target
def test_a_drain_answers_until_its_end(target):
    """Between SIGTERM and the end calls are answered, and health says that no more should come."""
    with Container(target, "--env", "LSTMSERVE_LAME_DUCK_SECONDS=3600") as container:
        container.wait_for("serving")
        container.send(signal.SIGTERM)
        container.wait_for("draining")
        with Client(container.address) as client:
            assert client.step([0.83]).output.shape == (1,)
        assert container.run("lstmserve", "health", "--address", container.address).stdout == "NOT_SERVING\n"

        assert container.stop() == 0  # the second signal


@one_target
def test_several_workers(target):
    """Workers start, serve and drain in a container as elsewhere."""
    with Container(target, "--env", "LSTMSERVE_WORKERS=2", "--env", "LSTMSERVE_LAME_DUCK_SECONDS=0") as container:
        container.wait_for("all_workers_ready")
        with Client(container.address) as client:
            assert client.step([0.83]).output.shape == (1,)

        assert container.stop() == 0


@one_target
def test_any_user_will_do(target):
    """A cluster may choose the user."""
    with Container(target, "--user", "54321:0") as container:
        container.wait_for("serving")

        assert container.run("lstmserve", "health", "--address", container.address).returncode == 0


@one_target
def test_nothing_is_written(target):
    """Where the server could write, in a root file system that is not read-only, it does not."""
    with Container(target, "--env", "LSTMSERVE_LAME_DUCK_SECONDS=0", lock=()) as container:
        container.wait_for("serving")
        with Client(container.address) as client:
            client.step([0.83])
        container.stop()
        changes = {line.split()[1] for line in podman("diff", container.name).stdout.splitlines()}

    ours = {path for path in changes if not re.match("/etc|/run", path)}  # the rest is the engine's
    assert ours == set()


@one_target
def test_a_model_may_be_copied_in(target, tmp_path):
    """An image that is made of ours and a file with a model serves it."""
    shutil.copy(SUNSPOTS, tmp_path)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {image_of(target)}\nCOPY sunspots.keras /models/\nENV LSTMSERVE_MODELS=sunspots.keras\n"
    )
    built = podman("build", "--format", "docker", "--quiet", "--tag", image_of("with-a-model"), tmp_path)
    assert built.returncode == 0, built.stderr
    with Container("with-a-model", models=()) as container:
        container.wait_for("serving")
        with Client(container.address) as client:
            assert client.step([0.83]).output.shape == (1,)


@one_target
def test_a_command_may_be_given(target):
    """What follows the image in `docker run` is a command of lstmserve."""
    ended = run(target, "inspect", "sunspots.keras", options=WITH_MODELS)

    assert ended.returncode == 0
    assert "16,633 (66,532 bytes)" in ended.stdout


@one_target
def test_without_a_model_it_says_so(target):
    """A container without a model ends with 2 and a sentence."""
    ended = run(target)

    assert ended.returncode == 2
    assert "Missing argument '[NAME=]FILE...'" in ended.stderr


@one_target
def test_what_is_imported_is_compiled(target):
    """Every module that a server imports has its bytecode in the image, those of Python itself too."""
    script = """
import json, os, sys
import lstmserve_server.cli.commands, lstmserve_server.serving.server, lstmserve_server.loading.sandbox_child, lstmserve_server.serving.workers.supervisor
specs = [module.__spec__ for module in sys.modules.values() if module.__spec__]
sources = {spec.origin: spec.cached for spec in specs if str(spec.origin).endswith(".py") and spec.cached}
print(json.dumps([len(sources), sorted(source for source, cached in sources.items() if not os.path.exists(cached))]))
"""
    count, slow = json.loads(run_python(target, script).stdout)

    assert slow == []
    assert count > 500


@every_target
def test_how_the_image_is_described(target, image):
    """The image says what it is, of which version and revision, as whom it runs, and where it listens."""
    config, labels = image.config["Config"], image.config["Config"]["Labels"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    title = "org.opencontainers.image."

    assert ("lstmserve", project["version"]) == (labels[title + "title"], labels[title + "version"])
    assert project["license"] == labels[title + "licenses"]
    assert os.environ["REVISION"] == labels[title + "revision"]
    assert os.environ["PYTHON_IMAGE"] == labels[title + "base.name"]
    assert (config["User"], list(config["ExposedPorts"])) == ("65532:65532", ["50051/tcp"])
    assert config["Entrypoint"] == ["/opt/lstmserve/bin/lstmserve"]
    assert image.config["Healthcheck"]["Test"] == ["CMD", "/opt/lstmserve/bin/lstmserve", "health"]


@every_target
def test_no_secret_of_the_build_stays(image):
    """Neither configuration nor certificates of the machine that built it are anywhere in the image."""
    assert image.holds(b"org.opencontainers.image.title")
    assert not image.holds(os.environ["CANARY"].encode())


@every_target
def test_what_the_image_adds(image):
    """The layers hold one folder, without what installs, compiles or tests, and no one but root can change it."""
    outside = {path for path in image.paths if not re.match(r"opt(/lstmserve|$)|models$", path)}
    tools = {path for path in image.paths if re.search(r"/(pip|hatchling|__pycache__|\.cache)(/|$)|\.whl$", path)}
    compilers = {path for path in image.paths if re.search(r"/bin/.*(cc|g\+\+|clang|ld|make)$", path)}
    open_to_all = {
        file.name
        for file in image.files
        if file.uid or file.gid or (not file.issym() and file.mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID))
    }

    assert outside == set()
    assert tools | compilers == set()
    assert open_to_all == set()


@every_target
def test_how_large_it_is(target, image):
    """The page tells how much the image adds to its base, and how much of that is to be pulled."""
    page = (ROOT / "docs" / "container.md").read_text()
    adds, pulled = map(int, re.search(rf"^\| `{target}` \| (\d+) MB \| (\d+) MB", page, re.MULTILINE).groups())

    assert sum(file.size for file in image.files) / 1e6 == pytest.approx(adds, rel=0.05)
    assert image.compressed_bytes() / 1e6 == pytest.approx(pulled, rel=0.05)


@every_target
def test_tensorflow_is_where_it_belongs(target):
    """TensorFlow and Keras can be imported in `shadow`, of the versions that are locked, and are not in `serve` at all."""
    ended = run_python(target, "import keras, tensorflow; print(keras.__version__, tensorflow.__version__)")
    lines = (ROOT / "requirements" / "image-shadow.txt").read_text()
    locked = [re.search(rf"^{name}==([\d.]+)", lines, re.MULTILINE)[1] for name in ("keras", "tensorflow-cpu")]

    if target == "serve":
        assert "ModuleNotFoundError: No module named 'keras'" in ended.stderr
    else:
        assert " ".join(locked) + "\n" == ended.stdout


@shadow_only
def test_a_model_is_verified():
    """`lstmserve verify` compares a model with Keras in `shadow`."""
    ended = run("shadow", "verify", "sunspots.keras", options=WITH_MODELS)

    assert ended.returncode == 0, ended.stderr


@shadow_only
def test_keras_runs_beside_the_server():
    """In `shadow` a server starts the process that it is compared with, and ends with it."""
    with Container("shadow", "--env", "LSTMSERVE_SHADOW=1") as container:
        container.wait_for("reference_up")

        assert container.stop() == 0
