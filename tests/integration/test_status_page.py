"""The status page: what it answers over HTTP, and what a browser shows of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import signal
import urllib.error
import urllib.request

import pytest

from lstmserve import Client, FailedPrecondition
from tests.support.browser import open_tab
from tests.support.live import QUICK, serving
from tests.support.observed import DIGEST, Observed, busy, report
from tests.support.paths import ROOT, SUNSPOTS
from tests.unit.observability.test_summary import QUANTILES

HOSTILE = "</script><script>alert(1)</script>\"'&amp;${1}"
FAULTS = (ROOT / "tests" / "support" / "accessibility.js").read_text()


@pytest.fixture
def observed():
    """Returns the metrics of a server that has answered a little of everything."""
    return busy()


def _ask(address, path, method="GET"):
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    with contextlib.suppress(urllib.error.HTTPError):
        return urllib.request.urlopen(request, timeout=10)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    return refused.value


def test_the_page_allows_nothing_but_itself(observed):
    """The policy of the page names the hashes of its one style and its one script, and no address but its own."""
    with observed.listening() as port, _ask(port.address, "/") as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))

    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert (
        rules["default-src"],
        rules["connect-src"],
        rules["frame-ancestors"],
        rules["require-trusted-types-for"],
    ) == ("'none'", "'self'", "'none'", "'script'")
    assert tuple(answer.headers[name] for name in ("X-Content-Type-Options", "Cache-Control", "Referrer-Policy")) == (
        "nosniff",
        "no-store",
        "no-referrer",
    )
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", text)


@pytest.mark.parametrize("path", ["/", "/status.json"])
def test_the_page_is_only_for_reading(observed, path):
    """HEAD is answered without a body, and whatever would change something is refused."""
    with observed.listening() as port:
        with _ask(port.address, path, "HEAD") as head:
            assert (head.status, head.read()) == (200, b"")
            assert int(head.headers["Content-Length"]) > 100
        for method in ("POST", "PUT", "DELETE"):
            with _ask(port.address, path, method) as refused:
                assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_a_path_that_is_not_there_names_those_that_are(observed):
    """Anyone who asks for another page is told which there are."""
    with observed.listening() as port, _ask(port.address, "/nothing") as answer:
        assert (answer.status, answer.read()) == (404, b"There are /, /status.json, /metrics and /healthz.\n")


def test_names_in_json_are_what_they_are(observed):
    """A name in /status.json is the same text, whatever it looks like."""
    observed.model(HOSTILE)
    with observed.listening() as port, _ask(port.address, "/status.json") as answer:
        told = json.loads(answer.read())

    assert answer.headers["Content-Type"] == "application/json"
    assert HOSTILE in [model["name"] for model in told["models"]]


def _until(tab, condition):
    """Waits until something is true of the page, which is asked again whenever it has shown something."""
    tab.evaluate(f"""new Promise(done => {{
        const look = () => {{ if ({condition}) done(true); }};
        new MutationObserver(look).observe(document.documentElement, {{attributes: true}});
        look();
    }})""")


def _state(tab, state):
    _until(tab, f"document.documentElement.dataset.state === {json.dumps(state)}")


def _rows(tab, caption):
    """Returns the cells of a table."""
    find = (
        f"[...document.querySelectorAll('table')].find(({{caption}}) => caption.textContent === {json.dumps(caption)})"
    )
    return tab.evaluate(f"[...{find}.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.innerText))")


@pytest.mark.slow
@pytest.mark.browser
def test_a_server_that_has_answered_calls():
    """The page of a server shows the calls that it has answered and refused, and asks no one else for anything."""
    with serving(f"sunspots={SUNSPOTS}", "--metrics", "127.0.0.1:0", *QUICK) as live:
        metrics = next(entry["listen"] for entry in live.log if entry["event"] == "metrics")
        with Client(live.address) as client:
            for _ in range(3):
                client.step([0.5])
            client.forward([[0.5], [0.25]])
            with pytest.raises(FailedPrecondition):
                client.step([0.5, 0.25])
        with open_tab(f"http://{metrics}/") as tab:
            _state(tab, "serving")
            _until(tab, "document.documentElement.dataset.shown >= 2")
            seen = tab.look()
            ended = {row[0]: row[-2:] for row in _rows(tab, "Calls by method")}
            refused = {row[0]: row[-1] for row in _rows(tab, "Refusals by reason")}

    assert seen.errors == []
    assert set(seen.requests) == {f"http://{metrics}/status.json"}
    assert seen.title == f"Serving: lstmserve at {metrics}"
    assert {name: ended[name] for name in ("Step", "Forward")} == {"Step": ["4", "1"], "Forward": ["1", "0"]}
    assert sum(map(int, refused.values())) == 1
    assert "calls per second. Up for " in seen.text


@pytest.mark.slow
@pytest.mark.browser
def test_a_server_that_answers_no_more():
    """When a server is gone the page says so, says since when, and continues showing what it last said."""
    with serving(f"sunspots={SUNSPOTS}", "--metrics", "127.0.0.1:0", *QUICK) as live:
        metrics = next(entry["listen"] for entry in live.log if entry["event"] == "metrics")
        with Client(live.address) as client:
            client.step([0.5])
        with open_tab(f"http://{metrics}/") as tab:
            _state(tab, "serving")
            live.process.kill()
            live.process.wait()
            _state(tab, "stale")
            seen = tab.look()
            faults = tab.evaluate(f"({FAULTS})()")

    assert seen.title == f"No answer: lstmserve at {metrics}"
    assert re.search(r"No answer\s+The server has not answered since \d\d:\d\d:\d\d\. What stands below", seen.text)
    assert "Step" in seen.text
    assert faults == []


@pytest.mark.slow
@pytest.mark.browser
def test_a_server_that_hangs_and_goes_on():
    """A server that takes connections and answers nothing counts as gone, until it answers again."""
    with serving(f"sunspots={SUNSPOTS}", "--metrics", "127.0.0.1:0", *QUICK) as live:
        metrics = next(entry["listen"] for entry in live.log if entry["event"] == "metrics")
        with open_tab(f"http://{metrics}/") as tab:
            _state(tab, "serving")
            live.process.send_signal(signal.SIGSTOP)
            _state(tab, "stale")
            live.process.send_signal(signal.SIGCONT)
            _state(tab, "serving")
            text = tab.look().text

    assert "Serving" in text
    assert "No answer" not in text


@pytest.mark.slow
@pytest.mark.browser
def test_a_server_that_begins_to_serve(observed):
    """A page that is open follows the server from one state to the next by itself."""
    observed.serving = False
    with observed.listening() as port, open_tab(f"http://{port.address}/") as tab:
        _state(tab, "not-serving")
        before = tab.look()
        observed.serving = True
        _state(tab, "serving")
        after = tab.look()

    assert "It is starting or draining, and answers no calls." in before.text
    assert (before.text.count("✓ serving"), len(re.findall("first\tserving|second\tserving", after.text))) == (0, 2)


@pytest.mark.slow
@pytest.mark.browser
def test_a_name_is_no_markup():
    """The name of a model, a layer, a reason or a caller is shown letter by letter, and no script of it runs."""
    told = Observed()
    told.model(HOSTILE)
    told.call("Step", HOSTILE, model=HOSTILE)
    told.refused.labels(HOSTILE).inc()
    told.caller_calls.labels(HOSTILE).inc()
    shadow = report(HOSTILE, discrepant=1)
    shadow.models[0].teacher_forced[3].layer = HOSTILE
    told.shadow(shadow)
    with told.listening() as port, open_tab(f"http://{port.address}/") as tab:
        _state(tab, "serving")
        seen = tab.look()
        scripts = tab.evaluate("document.scripts.length")
        shown = {
            caption: [cell for row in _rows(tab, caption) for cell in row if HOSTILE in cell]
            for caption in ("Models", "Refusals by reason", "Callers", "Compared with Keras", f"Layers of {HOSTILE}")
        }

    assert (seen.errors, scripts) == ([], 1)
    assert {caption: [HOSTILE] for caption in shown} == shown


@pytest.mark.slow
@pytest.mark.browser
def test_what_to_look_at(observed):
    """What someone should look at stands on top in words, and what differs is shown layer by layer."""
    with observed.listening() as port, open_tab(f"http://{port.address}/") as tab:
        _state(tab, "serving")
        items = tab.evaluate("[...document.querySelectorAll('#concerns li')].map(item => item.textContent)")
        layers = _rows(tab, "Layers of first")
        opened = tab.evaluate("[...document.querySelectorAll('details')].map(({open}) => open)")
        headline = tab.evaluate("document.querySelector('[role=status]').textContent")

    assert items == [
        "Answers of first differ from Keras: 4 calls over tolerance.",
        "The event loop is late by 250 ms.",
        "Reloading failed 2 times since the start: tokens.",
    ]
    assert headline == "Serving 3 things to look at"
    assert [cell.strip() for cell in layers[3]] == ["lstm_1", "c", "4", "1,250 %"]
    assert opened == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 1200])
@pytest.mark.parametrize("serves", [True, False], ids=["serving", "not-serving"])
@pytest.mark.browser
def test_everybody_can_read_it(observed, tmp_path, width, dark, serves):
    """Heads, names, landmarks and contrast are right, and nothing is wider than the screen."""
    observed.serving = serves
    with observed.listening() as port, open_tab(f"http://{port.address}/", width=width, dark=dark) as tab:
        _state(tab, "serving" if serves else "not-serving")
        _until(tab, "document.documentElement.dataset.shown >= 2")
        faults = tab.evaluate(f"({FAULTS})()")
        tab.look(screenshot=tmp_path / "page.png")

    assert faults == []
    assert width == int.from_bytes((tmp_path / "page.png").read_bytes()[16:20], "big")


@pytest.mark.slow
@pytest.mark.browser
def test_keys_are_enough(observed):
    """Everything that can be done is done with keys: pausing, whole digests, and opening what is closed."""
    active = "document.activeElement"
    with observed.listening() as port, open_tab(f"http://{port.address}/") as tab:
        _state(tab, "serving")
        met = []
        for _ in range(6):
            tab.press("Tab")
            kind = tab.evaluate(f"{active}.id || {active}.tagName")
            met.append(kind)
            if kind in ("pause", "digests"):
                tab.press(" ")
        pressed = tab.evaluate("[...document.querySelectorAll('button')].map(({ariaPressed}) => ariaPressed)")
        text = tab.look().text

    assert met[:5] == [
        "pause",
        "digests",
        "DIV",
        "SUMMARY",
        "SUMMARY",
    ]  # the table of digests is now wider than its place
    assert pressed == ["true", "true"]
    assert "Paused. Answered at " in text
    assert DIGEST in text


@pytest.mark.slow
@pytest.mark.browser
def test_the_page_estimates_as_the_server_does(observed):
    """The page finds the same quantiles as the server, and no rate below zero when a server has started again."""
    with observed.listening() as port, open_tab(f"http://{port.address}/") as tab:
        _state(tab, "serving")
        seen = [tab.evaluate(f"quantile({json.dumps(buckets)}, {share})") for buckets, share, _ in QUANTILES]
        rates = tab.evaluate("""(() => {
            const of = (time, started, calls) => ({...history_.latest, time, started, methods: [{method: "Step", calls, codes: {}, seconds: {buckets: []}}]});
            const history = new History();
            return [[1, 5, 100], [3, 5, 120], [5, 6, 4], [7, 6, 8]].map(values => (history.add(of(...values)), history.rate(called)));
        })()""")

    assert [expected for *_, expected in QUANTILES] == seen
    assert rates == [None, 10, None, 2]
