"""Pages in a headless browser, driven by Playwright: what they show, what they ask for, and what goes wrong in them."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from tests.support import chromium

_FLAGS = """--no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --no-proxy-server --disable-background-networking
    --disable-component-update --disable-sync --disable-quic --disable-breakpad""".split()
_OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
# The pause is for scripts that act only after the page has loaded. A straight line has a box without width or height.
_LOOK = """async selectors => {
    await Promise.allSettled([document.fonts.ready, new Promise(done => setTimeout(done, 300)),
        ...[...document.images].map(image => (image.loading = "eager", image.decode()))]);
    const visible = (it, {width, height} = it.getBoundingClientRect()) => it.checkVisibility({visibilityProperty: true})
        && (it instanceof SVGGeometryElement ? width + height > 0 : width * height > 0 && it.naturalWidth !== 0);
    const found = selectors.map(css => [css, [...document.querySelectorAll(css)].filter(it => visible(it)).length]);
    return {text: document.body.innerText, found: Object.fromEntries(found), title: document.title}; }"""


@dataclass
class Page:
    """What a browser made of a page; errors and requests are empty if it is right and holds all that it needs."""

    errors: list[str]
    requests: list[str]
    text: str
    found: dict[str, int]
    title: str


class Opened:
    """A page in a browser, with its errors and requests since it was opened."""

    def __init__(self, tab: Tab) -> None:
        self._tab = tab
        self._errors: list[str] = []
        self._requests: list[str] = []
        tab.on("pageerror", lambda error: self._errors.append(str(error)))
        tab.on("console", lambda said: self._errors.append(said.text) if said.type in ("error", "assert") else None)
        tab.on("request", lambda request: self._requests.append(request.url))

    def open(self, url: str) -> None:
        """Goes to a page, and waits until it has loaded."""
        self._tab.goto(url, wait_until="load")
        # Some browsers ask every server for an icon, whatever the page says.
        self._requests = [asked for asked in self._requests if asked != url and not asked.endswith("/favicon.ico")]

    def evaluate(self, expression: str) -> Any:
        """Returns the value of a JavaScript expression in the page; a promise is awaited."""
        return self._tab.evaluate(expression)

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        self._tab.keyboard.press(key)

    def look(self, selectors: Sequence[str] = (), screenshot: Path | None = None) -> Page:
        """Returns what the page shows, when all of it is drawn."""
        seen = self._tab.evaluate(_LOOK, list(selectors))
        if screenshot:
            self._tab.screenshot(path=screenshot, full_page=True)
        asked = [
            url for url in self._requests if not url.startswith(("data:", "blob:")) and not url.endswith("/favicon.ico")
        ]
        return Page(errors=list(self._errors), requests=asked, **seen)


def open_page(
    url_or_file: str | Path,
    *,
    selectors: Sequence[str] = (),
    screenshot: Path | None = None,
    width: int = 1200,
    dark: bool = False,
) -> Page:
    """Opens a page in a new browser, counts what is visible, and draws it all."""
    with open_tab(url_or_file, width=width, dark=dark) as tab:
        return tab.look(selectors, screenshot)


@contextlib.contextmanager
def open_tab(url_or_file: str | Path, *, width: int = 1200, dark: bool = False) -> Iterator[Opened]:
    """Opens a page in a new browser, to be looked at again and again."""
    url = url_or_file.resolve().as_uri() if isinstance(url_or_file, Path) else url_or_file
    program, variables = chromium.program()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*_FLAGS, _OFFLINE], env={**os.environ, **variables}
        )
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
        )
        opened = Opened(context.new_page())
        opened.open(url)
        try:
            yield opened
        finally:
            browser.close()
