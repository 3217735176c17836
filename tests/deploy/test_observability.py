"""Dashboard and alerts: they name only what a server tells, say what they mean, and Prometheus itself takes them."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import socket
import subprocess
import threading
import urllib.parse
import urllib.request

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lstmserve import Client, FailedPrecondition, Tls
from tests.integration.test_tls import Place
from tests.support.live import QUICK, serving
from tests.support.observed import Observed
from tests.support.paths import ROOT, SUNSPOTS
from tests.support.promql import Named, named

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "lstmserve.json").read_text())
RULES_FILE = ROOT / "deploy" / "prometheus" / "alerts.yml"
TESTS_FILE = RULES_FILE.with_name("alerts_test.yml")
GROUPS = yaml.safe_load(RULES_FILE.read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
PAGE = (ROOT / "docs" / "alerts.md").read_text()

QUERIES = [
    *((f"{panel['title']}: {target['refId']}", target["expr"]) for panel in PANELS for target in panel["targets"]),
    *((annotation["name"], annotation["expr"]) for annotation in DASHBOARD["annotations"]["list"]),
    *((rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES),
]
VALUES = {"$instance": ".*", "$model": ".*", "$__rate_interval": "1m", "$__range": "1h"}

OF_PROMETHEUS = {"job", "instance"}
"""Labels that anyone who scrapes gives to every sample."""

NOT_HERE = {"lstmserve_caller_calls_total", "lstmserve_caller_rejections_total"}
"""What a server tells only with settings that the server of these tests has not."""


def _scraped(address):
    """Returns what a server tells. What it does not tell yet is made up, as long as it does not tell its version."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    if "lstmserve_build_info" in text:
        return text
    told = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    missing = Observed()
    for method, reason, label in (
        ("refused", "BUSY", ()),
        ("state_refused", "digest", ()),
        ("reloads", "failed", ("tokens",)),
        ("caller_refused", "BUSY", ("hall",)),
    ):
        getattr(missing, method).labels(*label, reason).inc()
    missing.model("first")
    missing.build.labels("1", "2", "3", "4").set(1)
    missing.caller_calls.labels("hall").inc()
    missing.call(model="first")
    for block in re.split(r"(?=^# HELP )", generate_latest(missing.registry).decode(), flags=re.MULTILINE):
        if block.strip() and block.split("# TYPE ", 1)[1].split()[0] not in told:
            text += block
    return text


def _labels_in_documentation():
    """Returns the labels of each metric in the tables of docs/."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for page in ("metrics.md", "shadow.md")
        for line in (ROOT / "docs" / page).read_text().splitlines()
        if line.startswith("| `lstmserve_")
    ]
    return {row[0].strip("`"): set(re.findall(r"\w+", row[1])) for row in rows}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Returns where a server with TLS and shadow mode tells its metrics, after calls that ended in different ways."""
    place = Place(tmp_path_factory.mktemp("tls") / "own")
    shadow = ("--shadow", "all", "--shadow-wait-seconds", "60")
    with serving(f"sunspots={SUNSPOTS}", "--metrics", "127.0.0.1:0", *place.flags(), *shadow, *QUICK) as live:
        live.wait_for("reference_up")
        with Client(live.address, tls=Tls(ca=place.folder / "ca.pem")) as client:
            client.step([0.5], compare=True)
            client.forward([[0.5], [0.25]])
            with client.stream() as stream:
                stream.step([0.5])
            with pytest.raises(FailedPrecondition):
                client.step([0.5, 0.25])
        yield next(entry["listen"] for entry in live.log if entry["event"] == "metrics")


@pytest.fixture(scope="module")
def exposed(address):
    """Returns the labels of every metric of a server, by name."""
    documented = _labels_in_documentation()
    found = {}
    for family in text_string_to_metric_families(_scraped(address)):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        if not family.samples:  # nothing has happened yet that it counts
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = documented[name]
    return {name: documented[name] for name in NOT_HERE & documented.keys()} | found


@pytest.mark.slow
def test_every_query_names_what_there_is(exposed):
    """Dashboard, variables and alerts ask for no metric and for no label that a server does not have."""
    recorded = {rule["record"]: set() for rule in RULES if "record" in rule}
    known = {"up": set()} | exposed | recorded
    of_variables = [
        re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    asked = [(name, one) for name, query in QUERIES for one in named(query)]
    asked += [
        ("variable", Named(one.metric, one.labels | {label})) for query, label in of_variables for one in named(query)
    ]

    assert [(name, one) for name, one in asked if one.metric not in known] == []
    assert [(name, one) for name, one in asked if one.labels - known[one.metric] - OF_PROMETHEUS] == []
    assert len({one.metric for _, one in asked}) >= 40


@pytest.mark.slow
def test_every_number_of_an_operator_is_shown(exposed):
    """No metric of ours is left out of the dashboard, but those that say no more than another."""

    def base(name):
        return re.sub(r"(_total|_bucket|_sum|_count|_created)$", "", name)

    shown = {base(one.metric) for _, query in QUERIES for one in named(query)}
    more = {"sampled", "compared_steps", "values_over_tolerance", "ulp", "queue_calls", "bundles", "reference_restarts"}
    left_out = {"lstmserve_rows", *(f"lstmserve_shadow_{name}" for name in more)}

    assert {base(name) for name in exposed if name.startswith("lstmserve_")} - shown - left_out == set()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('a_total{x="b{c}", y=~"d"}', {("a_total", "x y")}),
        ("sum by (x, y) (rate(a_total[5m])) / b > 3e5", {("a_total", ""), ("b", ""), ("a_total", "x y")}),
        ('time() - min by (x) (a{y!=""} > 0) >= 14 * 86400', {("a", "y"), ("a", "x")}),
        ("a and on (x) (b offset 1h) or vector(0)", {("a", ""), ("b", ""), ("b", "x")}),
        (
            "histogram_quantile(0.99, sum by (le) (rate(a_bucket[$__rate_interval])))",
            {("a_bucket", ""), ("a_bucket", "le")},
        ),
        ("job:a:rate5m > 14.4 * 0.001", {("job:a:rate5m", "")}),
    ],
)
def test_what_a_query_names_is_found(query, expected):
    """Metrics, matchers and groupings are found, and neither functions, words, texts nor durations are taken for metrics."""
    assert {(metric, " ".join(sorted(labels))) for metric, labels in named(query)} == expected


def test_every_panel_explains_itself():
    """Each panel has a unit, a description, thresholds and the data source that was chosen, and none lies on another."""
    taken = set()
    for panel in DASHBOARD["panels"]:
        where = panel["gridPos"]
        for place in (
            (x, y)
            for x in range(where["x"], where["x"] + where["w"])
            for y in range(where["y"], where["y"] + where["h"])
        ):
            assert place not in taken, f"{panel['title']} lies on another"
            assert place[0] < 24
            taken.add(place)
    for panel in PANELS:
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith(".")
        assert defaults["unit"]
        assert defaults["thresholds"]["steps"]
        assert {part["datasource"]["uid"] for part in (panel, *panel["targets"])} == {"${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "instance", "model"]
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert (
        "|".join(rows)
        == "Overview|Traffic|Latency split|Saturation and refusals|Streams|State and models|Shadow|Process"
    )


def test_every_alert_is_explained():
    """Each alert says what is the matter, leads to its section of the page, and there is no section without an alert."""
    for rule in ALERTS:
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert notes["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert sorted(rule["alert"] for rule in ALERTS) == sorted(section.split("\n")[0] for section in sections)
    for section in sections:
        assert re.findall(r"^\*\*(?:Means|Look at)", section, re.MULTILINE) == ["**Means", "**Look at"], section
        assert "**do**" in section.lower()


def test_alerts_speak_of_panels_that_there_are():
    """What the page puts in quotes is the title of a panel."""
    quoted = {" ".join(title.split()) for title in re.findall(r'"([^"]+)"', PAGE)}

    assert quoted - {panel["title"] for panel in PANELS} == set()


def test_every_alert_is_tried():
    """For each alert there is a moment at which it fires, and one at which it does not."""
    tried = [one for test in yaml.safe_load(TESTS_FILE.read_text())["tests"] for one in test["alert_rule_test"]]
    names = {rule["alert"] for rule in ALERTS}

    assert names == {one["alertname"] for one in tried if one["exp_alerts"]}
    assert names == {one["alertname"] for one in tried if not one["exp_alerts"]}


def _program(name):
    """Returns a program of Prometheus; a test that needs it is skipped without."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} on this machine: Debian has it in the package prometheus")
    return found


@pytest.mark.parametrize(
    "arguments", [("check", "rules", RULES_FILE), ("test", "rules", TESTS_FILE)], ids=["check", "test"]
)
def test_prometheus_takes_the_rules(arguments):
    """Prometheus' own tool finds nothing wrong with the rules, and each fires where it should."""
    ended = subprocess.run([_program("promtool"), *arguments], capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextlib.contextmanager
def _scrapes(address):
    """Passes on what a server tells, and tells itself when it was asked so often that the first answers are stored."""
    enough, asked = threading.Event(), iter(range(1, 1_000_000))

    class Passing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = _scraped(address).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)
            if next(asked) == 4:  # one at a time: the one before is stored when the next is asked for
                enough.set()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Passing) as passing:
        thread = threading.Thread(target=passing.serve_forever)
        thread.start()
        try:
            yield passing.server_port, enough
        finally:
            passing.shutdown()
            thread.join()


@contextlib.contextmanager
def _prometheus(folder, target):
    """Runs Prometheus with our rules until it is ready, and returns where it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    scrape = {"job_name": "lstmserve", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    timing = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
    config = {"global": timing, "rule_files": [str(RULES_FILE)], "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    flags = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={listen}",
    )
    with subprocess.Popen([_program("prometheus"), *flags], stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            said = []
            for line in process.stderr:
                said.append(line)
                if "Server is ready to receive web requests" in line:
                    break
            else:
                raise AssertionError("".join(said))
            drain = threading.Thread(target=process.stderr.read)
            drain.start()
            yield listen
        finally:
            process.kill()
            drain.join()


@pytest.mark.slow
def test_prometheus_answers_every_query(address, tmp_path):
    """Prometheus, with our rules and what a real server tells, answers every query of dashboard and alerts."""
    _program("prometheus")
    answers = {}
    with _scrapes(address) as (target, enough), _prometheus(tmp_path, target) as listen:
        assert enough.wait(60)
        for name, query in QUERIES:
            for variable, value in VALUES.items():
                query = query.replace(variable, value)  # noqa: PLW2901 - what Grafana does to it
            with urllib.request.urlopen(
                f"http://{listen}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
            ) as response:
                answers[name] = json.load(response)

    assert {answer["status"] for answer in answers.values()} == {"success"}
    assert {name: answer["warnings"] for name, answer in answers.items() if answer.get("warnings")} == {}
    found = {name for name, answer in answers.items() if answer["data"]["result"]}
    assert {
        "Calls by method: A",
        "Latency by method: B",
        "Coverage: A",
        "Part of the tolerance: A",
        "Memory: A",
        "Models: A",
    } <= found
