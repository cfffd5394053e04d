"""A real browser for the tests that look at pages: what it asks for, complains about, and cannot read.

Nothing leaves the machine: requests to other hosts are noted and refused.
"""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Rules of axe that are not applied, each with the reason why the page cannot help it.
AXE_EXCLUSIONS: dict[str, str] = {}


@dataclass
class Visit:
    """What a browser asked for and complained about while it showed a page."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    responses: list[Any] = field(default_factory=list)

    @property
    def script_bytes(self) -> int:
        """What the scripts weigh that the page loaded, while it is open."""
        return sum(len(one.body()) for one in self.responses if one.ok and one.request.resource_type == "script")

    @property
    def all_bytes(self) -> int:
        """What the page and all that it loaded weigh, while it is open."""
        return sum(len(one.body()) for one in self.responses if one.ok)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without writing a line for each."""

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which `folder` is served on this machine while the `with` block lasts."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def opened(
    browser: Any, address: str, *, width: int = 1280, theme: str = "light", also: str = "data:", **options: Any
) -> Iterator[tuple[Any, Visit]]:
    """A page and what happened while it loaded; requests to other hosts are noted and never leave the machine.

    `also` begins further addresses that belong to the page; `options` are Playwright's for a context, such as
    `has_touch` and `java_script_enabled`.
    """
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme, **options)
    page, visit = context.new_page(), Visit()
    home = "/".join(address.split("/")[:3]) + "/"

    def answer(route: Any) -> None:
        url = route.request.url
        if url.startswith((home, also, "data:", "blob:", "file:")):
            route.continue_()
        else:
            visit.outside.append(url)
            route.abort()

    def note(response: Any) -> None:
        if response.url.startswith(home):
            visit.responses.append(response)

    page.route("**/*", answer)
    page.on("response", note)
    page.on("console", lambda message: visit.errors.append(in_words(message)) if message.type == "error" else None)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    try:
        page.goto(address, wait_until="networkidle")
        yield page, visit
    finally:
        context.close()


def in_words(message: Any) -> str:
    """An error of the browser's console, and what it is about."""
    return f"{message.text} {message.location.get('url', '')}"


def overflow(page: Any) -> int:
    """By how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def axe_violations(page: Any, within: str | None = None) -> list[str]:
    """What axe finds wrong on a page or in a frame, or within one element; but for the rules excluded above."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {rule: {"enabled": False} for rule in AXE_EXCLUSIONS}
    # Without preload axe would fetch the style sheets again, and their imports from the wrong folder.
    # Nor does anybody read of what is in order, which takes as long to write down as to look at.
    options = {"rules": rules, "preload": False, "resultTypes": ["violations"]}
    found = Axe().run(page, within, options).response["violations"]
    return [f"{rule['id']}: {node['html'][:160]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


def focused(page: Any, expression: str) -> Any:
    """A property of the element that has the keyboard's focus, as JavaScript on `e`."""
    return page.evaluate(f"(e => {expression})(document.activeElement)")


def tab_to(page: Any, selector: str, limit: int = 80) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if focused(page, f"e.matches({selector!r})"):
            return
    raise AssertionError(f"Tab does not reach {selector} within {limit} steps")
