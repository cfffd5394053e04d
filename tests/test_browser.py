"""The built book in a real browser: offline, legible, usable by keyboard and by a screen reader.

Needs a Chromium on this machine (`chromium` or `google-chrome`). Without one these tests are skipped;
with REQUIRE_BROWSER=1 they fail instead, so that a machine meant to run them cannot pass without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import built_pages
import pytest
from browsing import axe_violations, focused, opened, overflow, served, tab_to
from built_pages import PAGE_LIMIT, SCRIPT_LIMIT

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (360, 1280)
THEMES = ("light", "dark")
# axe takes most of the time: each width and each theme once.
AXE_VIEWS = {(360, "light"), (1280, "dark")}
THEME_PAUSE = 400  # ms; 300 ms after a resize the theme looks again at what can be scrolled
PAGES = [*built_pages.page_names(), "search.html", "genindex.html", "404.html"]


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    with served(built_pages.built_book()) as address:
        yield address


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_offline_quiet_accessible_and_fits(browser: Any, site: str, name: str) -> None:
    with opened(browser, site + name) as (page, visit):
        for width, theme in itertools.product(WIDTHS, THEMES):
            page.set_viewport_size({"width": width, "height": 800})
            page.emulate_media(color_scheme=theme)
            page.wait_for_timeout(THEME_PAUSE)
            if name != "404.html":
                # On a busy machine later than the pause.
                page.wait_for_function("theme => document.documentElement.dataset.theme == theme", arg=theme)
            assert overflow(page) <= 0, f"at {width} px the page is {overflow(page)} px too wide"
            if (width, theme) in AXE_VIEWS:
                assert axe_violations(page) == [], f"at {width} px, {theme}"
        assert visit.outside == []
        assert visit.errors == []


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", built_pages.chapter_names())
def test_no_figure_of_a_chapter_is_wider_than_a_phone_or_stretched(
    browser: Any, site: str, name: str, theme: str
) -> None:
    with opened(browser, site + name, width=360, theme=theme) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
        shown = page.evaluate(
            "[...document.querySelectorAll('article img')].filter(e => e.offsetWidth).map(e => {"
            " const style = getComputedStyle(e), pad = parseFloat(style.paddingLeft) * 2;"
            " return [e.alt, e.getBoundingClientRect().right,"
            " (e.clientWidth - pad) / (e.clientHeight - pad) * e.naturalHeight / e.naturalWidth] })"
        )
        assert shown, "no figure: this test no longer tests anything"
        assert [alt for alt, right, _ in shown if right > 360] == []
        assert [(alt, stretch) for alt, _, stretch in shown if abs(stretch - 1) > 0.03] == []


@pytest.mark.parametrize("name", built_pages.chapter_names())
def test_a_chapter_is_light_enough(browser: Any, site: str, name: str) -> None:
    with opened(browser, site + name) as (_, visit):
        assert 0 < visit.script_bytes <= SCRIPT_LIMIT
        assert 0 < visit.all_bytes <= PAGE_LIMIT


@pytest.mark.parametrize("name", built_pages.chapter_names())
def test_formulas_and_icons_are_set_in_the_fonts_that_come_with_the_page(browser: Any, site: str, name: str) -> None:
    with opened(browser, site + name) as (page, _):
        loaded = page.evaluate("[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family).join(' ')")
        assert "KaTeX_Main" in loaded
        assert "Font Awesome" in loaded


@pytest.mark.parametrize("name", built_pages.chapter_names())
def test_a_solution_stays_folded_until_the_keyboard_opens_it(browser: Any, site: str, name: str) -> None:
    with opened(browser, site + name) as (page, _):
        solution = page.locator(".tag_solution details").first
        summary, code = solution.locator("summary"), solution.locator("pre").first
        assert (summary.inner_text(), code.is_visible()) == ("Show the solution", False)
        summary.focus()
        page.keyboard.press("Enter")
        assert (summary.inner_text(), code.is_visible()) == ("Hide the solution", True)


def test_the_theme_is_switched_by_keyboard_and_remembered(browser: Any, site: str) -> None:
    with opened(browser, site + PAGES[0]) as (page, _):
        tab_to(page, ".theme-switch-button")
        seen = set()
        for _ in range(3):
            page.keyboard.press("Enter")
            seen.add(page.evaluate("document.documentElement.dataset.theme"))
        assert seen == set(THEMES)
        while page.evaluate("document.documentElement.dataset.mode") != "dark":
            page.keyboard.press("Enter")
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_first_tab_reaches_a_visible_link_past_the_navigation(browser: Any, site: str) -> None:
    with opened(browser, site + PAGES[0]) as (page, _):
        page.keyboard.press("Tab")
        assert focused(page, "e.getAttribute('href')") == "#main-content"
        page.wait_for_function("document.activeElement.getBoundingClientRect().top >= 0")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert focused(page, "!!e.closest('main')")


def test_the_keyboards_focus_is_always_seen(browser: Any, site: str) -> None:
    with opened(browser, site + PAGES[0]) as (page, _):
        for _ in range(15):
            page.keyboard.press("Tab")
            assert focused(page, "parseFloat(getComputedStyle(e).outlineWidth) >= 2"), focused(page, "e.outerHTML")


def test_the_search_is_opened_and_answered_by_keyboard(browser: Any, site: str) -> None:
    with opened(browser, site + PAGES[0]) as (page, visit):
        page.keyboard.press("Control+k")
        page.keyboard.type("softmax")
        page.keyboard.press("Enter")
        page.wait_for_selector("#search-results li a[href*='glossary']")
        tab_to(page, "#search-results li a")
        page.keyboard.press("Enter")
        page.wait_for_selector("article h1")
        assert visit.outside == []
        assert visit.errors == []


def test_the_search_works_on_pages_opened_as_files(browser: Any) -> None:
    address = (built_pages.built_book() / "search.html").resolve().as_uri()
    with opened(browser, f"{address}?q=softmax") as (page, visit):
        page.wait_for_selector("#search-results li a[href*='glossary']")
        assert visit.outside == []


def test_a_phone_opens_the_contents_by_keyboard(browser: Any, site: str) -> None:
    with opened(browser, site + PAGES[0], width=360) as (page, _):
        tab_to(page, ".primary-toggle")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog#pst-primary-sidebar-modal[open] nav a")
        assert axe_violations(page) == []
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog#pst-primary-sidebar-modal:not([open])", state="attached")


# Does the browser see what is broken on purpose? ----------------------------------------------------------

GOOD = (
    "<!DOCTYPE html><html lang='en'><head><title>x</title><link rel='icon' href='data:,'></head><body><main><h1>x</h1>"
)


@pytest.mark.parametrize(
    "body",
    [
        "<script src='https://outside.example/x.js'></script>",
        "<script>fetch('https://outside.example/x').catch(() => 0)</script>",
        "<div style='background: url(https://outside.example/x.png)'>x</div>",
    ],
)
def test_a_request_to_another_host_is_noted(browser: Any, tmp_path: Path, body: str) -> None:
    (tmp_path / "index.html").write_text(GOOD + body, encoding="utf-8")
    with served(tmp_path) as address, opened(browser, address + "index.html") as (_, visit):
        assert len(visit.outside) == 1


@pytest.mark.parametrize("body", ["<script>throw new Error('no')</script>", "<img src='missing.png' alt='a cat'>"])
def test_an_error_of_a_page_is_noted(browser: Any, tmp_path: Path, body: str) -> None:
    (tmp_path / "index.html").write_text(GOOD + body, encoding="utf-8")
    with served(tmp_path) as address, opened(browser, address + "index.html") as (_, visit):
        assert len(visit.errors) == 1


@pytest.mark.parametrize("body", ["<img src='data:,'>", "<p style='color: #ccc; background: #fff'>faint</p>"])
def test_what_a_screen_reader_or_weak_eyes_cannot_read_is_noted(browser: Any, tmp_path: Path, body: str) -> None:
    (tmp_path / "index.html").write_text(GOOD + body, encoding="utf-8")
    with served(tmp_path) as address, opened(browser, address + "index.html") as (page, _):
        assert len(axe_violations(page)) == 1


def test_a_page_too_wide_for_a_phone_is_noted_and_a_good_one_is_not(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(GOOD, encoding="utf-8")
    (tmp_path / "wide.html").write_text(GOOD + "<div style='width: 500px'>x</div>", encoding="utf-8")
    with served(tmp_path) as address:
        with opened(browser, address + "index.html", width=360) as (page, visit):
            assert (overflow(page), axe_violations(page), visit.outside, visit.errors) == (0, [], [], [])
        with opened(browser, address + "wide.html", width=360) as (page, _):
            assert overflow(page) > 0
