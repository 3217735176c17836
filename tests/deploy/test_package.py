"""What is built and shipped."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lstmserve_server.observability import status_page
from tests.support.paths import ROOT


@pytest.mark.slow
def test_the_wheel_holds_exactly_the_two_packages(tmp_path):
    """The wheel has lstmserve and lstmserve_server with their types, and nothing else on the top level."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read("lstmserve-0.1.0.dist-info/METADATA").decode()

    assert {name.split("/")[0] for name in names} == {"lstmserve", "lstmserve_server", "lstmserve-0.1.0.dist-info"}
    assert {"lstmserve/py.typed", "lstmserve_server/py.typed", "lstmserve/v1/lstm_pb2.pyi"} <= set(names)
    page = {
        f"lstmserve_server/observability/status_page/{path.name}"
        for path in Path(status_page.__file__).parent.glob("page.*")
    }
    assert {"page.html", "page.css", "page.js"} <= {name.rpartition("/")[2] for name in page}
    assert page <= set(names)
    base = sorted(
        line.split()[1].split(">")[0].split("<")[0]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    )
    assert base == ["grpcio", "numpy", "protobuf"]


def test_every_link_of_the_documentation_leads_somewhere():
    """Every path that the documentation links to is in the repository."""
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
