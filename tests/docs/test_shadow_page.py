"""docs/shadow.md lists what there is: every metric, every setting and every reason."""

from __future__ import annotations

import re
from dataclasses import fields

from lstmserve_server.loading import reader
from lstmserve_server.model.numerics import Numerics
from lstmserve_server.runtime.registry import ServedModel
from lstmserve_server.serving.settings import ServeSettings
from lstmserve_server.shadow.compare import Tolerances
from lstmserve_server.shadow.metrics import ShadowCollector
from lstmserve_server.shadow.report import ShadowReport
from lstmserve_server.shadow.worker import Lag
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "shadow.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]


def test_every_metric_stands_on_the_page():
    """The table of metrics has those that Prometheus gets, with their labels' names, and no others."""
    model = ROOT / "examples" / "sunspots" / "sunspots.keras"
    report = ShadowReport(1, [ServedModel.prepare("sunspots", reader.load(model), Numerics.EXACT)], Tolerances())
    made = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in ShadowCollector(report.copy, lambda: Lag(0, 0.0)).collect()
    }
    assert made == {row[0].strip("`") for row in ROWS if row[0].startswith("`lstmserve_")}


def test_every_setting_stands_on_the_page():
    """Every setting of shadow mode is explained."""
    flags = [f"--{field.name.replace('_', '-')}" for field in fields(ServeSettings) if field.name.startswith("shadow")]
    missing = [flag for flag in flags if not re.search(rf"{flag}(?![a-z-])", PAGE)]
    assert [flag for flag in missing if flag != "--shadow-queue"] == []
    assert "--shadow-queue`" in PAGE


def test_every_reason_stands_on_the_page():
    """The table of reasons has those that the code gives, and no others."""
    sources = (ROOT / "server" / "lstmserve_server" / "shadow").rglob("*.py")
    texts = "\n".join(path.read_text() for path in sources)
    listed = {
        reason.strip("` ")
        for row in ROWS
        if row[1] in ("dropped", "errors", "not comparable")
        for reason in row[0].split(",")
    }
    assert listed == {reason for reason in listed if f'"{reason}"' in texts}
    given = set(re.findall(r'(?:dropped|failed)\([^()]*, "([a-z_]+)"', texts)) | set(
        re.findall(r'ReferenceLost\("([a-z_]+)"', texts)
    )
    assert given <= listed


def test_the_defaults_stand_on_the_page():
    """The tolerances on the page are those of the settings."""
    tolerances = Tolerances()
    for name in ("h", "c", "unbounded"):
        (row,) = [row for row in ROWS if row[-1] == f"`--shadow-tolerance-{name}`"]
        assert getattr(tolerances, name) == float(row[1])
        assert getattr(ServeSettings(models=()), f"shadow_tolerance_{name}") == float(row[1])
