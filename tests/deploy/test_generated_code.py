"""Stock generators of other languages make code of the contract that compiles. The folder proto/ is all that they need."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support.paths import ROOT

PROTOS = ("lstmserve/v1/lstm.proto", "lstmserve/v1/shadow.proto")
GO_PACKAGES = "/usr/share/gocode"  # where Debian's golang-google-protobuf-dev puts its sources
JAVA_RUNTIME = "/usr/share/java/protobuf.jar"  # of Debian's libprotobuf-java


def needs(*programs, files=()):
    """Returns a mark that skips a test where something is missing, and says what."""
    missing = [program for program in programs if shutil.which(program) is None]
    missing += [file for file in files if not os.path.exists(file)]  # noqa: PTH110 - programs and files alike
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def protoc(*options):
    """Runs the system's protoc on the contract."""
    command = ["protoc", f"--proto_path={ROOT / 'proto'}", *options, *PROTOS]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.mark.ecosystem
@needs("protoc", "protoc-gen-go", "go", files=[f"{GO_PACKAGES}/src/google.golang.org/protobuf"])
def test_go_compiles(tmp_path):
    protoc(f"--go_out={tmp_path}")
    path = tmp_path / "gopath" / "src"
    path.mkdir(parents=True)
    shutil.move(tmp_path / "lstmserve", path / "lstmserve")
    (path / "probe").mkdir()
    (path / "probe" / "main.go").write_text(
        'package main\n\nimport pb "lstmserve/v1"\n\nfunc main() {\n'
        "\trequest := &pb.StepRequest{X: &pb.Tensor{Shape: []int64{1, 1}, Values: []float64{0.5}}}\n"
        "\tprint(request.GetX().GetDtype() == pb.DataType_DATA_TYPE_UNSPECIFIED)\n}\n"
    )
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{tmp_path / 'gopath'}:{GO_PACKAGES}"}
    environment |= {"GOCACHE": str(tmp_path / "cache"), "GOFLAGS": ""}
    ended = subprocess.run(
        ["go", "run", "probe"], cwd=path, env=environment, capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "true")


@pytest.mark.ecosystem
@needs("protoc", "javac", "java", files=[JAVA_RUNTIME])
def test_java_compiles(tmp_path):
    protoc(f"--java_out={tmp_path}")
    (tmp_path / "Probe.java").write_text(
        "import lstmserve.v1.*;\n\npublic class Probe {\n  public static void main(String[] arguments) {\n"
        "    StepRequest request = StepRequest.newBuilder().setX(Tensor.newBuilder().addShape(1).addValues(0.5)).build();\n"
        "    System.out.print(request.getX().getDtype() == DataType.DATA_TYPE_UNSPECIFIED);\n  }\n}\n"
    )
    sources = [str(path) for path in tmp_path.rglob("*.java")]
    subprocess.run(
        ["javac", "-nowarn", "-cp", JAVA_RUNTIME, "-d", tmp_path / "classes", *sources], check=True, capture_output=True
    )
    ended = subprocess.run(
        ["java", "-cp", f"{tmp_path / 'classes'}:{JAVA_RUNTIME}", "Probe"], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout) == (0, "true")
