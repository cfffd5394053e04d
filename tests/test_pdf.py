"""The printed book: a few of its pages, in a real browser. See `test_browser.py` for what that needs."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import browser as chromium_of_this_machine
import built_pages
import pdf
import pytest
from browsing import opened, served
from built_pages import ROOT, configuration
from pypdf import PageObject, PdfReader
from pypdf.generic import Destination

# A plain page, two chapters, the page with the widest tables, and one with neither code nor pictures.
NAMES = ["intro", "00_start", "03_filter_maximization", "glossary", "how_fast"]
A4 = (595, 842)  # points
COLUMN = 642  # pixels between the margins of a page


@pytest.fixture(scope="session")
def document() -> pdf.Document:
    return pdf.compose(built_pages.built_book(), NAMES)


@pytest.fixture(scope="session")
def printed(browser: Any, document: pdf.Document) -> PdfReader:
    return PdfReader(BytesIO(pdf.print_book(browser, built_pages.built_book(), document)))


@pytest.fixture(scope="session")
def texts(printed: PdfReader) -> list[str]:
    """The text of each page, in one line."""
    return [" ".join(page.extract_text().split()) for page in printed.pages]


def bookmarks(printed: PdfReader) -> dict[str, list[tuple[str, int]]]:
    """The chapters, and the sections of each with the number of its page."""
    found: dict[str, list[tuple[str, int]]] = {}
    for entry in printed.outline:
        if isinstance(entry, list):
            sections = [one for one in entry if isinstance(one, Destination)]
            found[list(found)[-1]] += [(str(one.title), page_number(printed, one)) for one in sections]
        else:
            found[str(entry.title)] = [(str(entry.title), page_number(printed, entry))]
    return found


def page_number(printed: PdfReader, place: Any) -> int:
    number = printed.get_destination_page_number(place)
    assert number is not None
    return number + 1


def links(page: PageObject) -> list[Any]:
    return [one.get_object() for one in page.get("/Annots", []) if one.get_object()["/Subtype"] == "/Link"]


# What is printed ------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_every_page_is_a4_and_none_is_blank(printed: PdfReader, texts: list[str]) -> None:
    assert len(printed.pages) > 30
    assert {(round(page.mediabox.width), round(page.mediabox.height)) for page in printed.pages} == {A4}
    blank = [n for n, page in enumerate(printed.pages, 1) if len(texts[n - 1]) < 40 and not page.images]
    assert blank == []


@pytest.mark.browser
def test_the_bookmarks_are_the_chapters_and_their_sections(printed: PdfReader, texts: list[str]) -> None:
    found = bookmarks(printed)
    pages = [built_pages.read(built_pages.built_book() / "book" / f"{name}.html") for name in NAMES]
    titles = [page.select_one("article h1").get_text().rstrip("#") for page in pages]  # type: ignore[union-attr]
    assert list(found) == [*titles, "Answers and solutions"]
    assert len(found[titles[1]]) > 8
    entries = [entry for chapter in found.values() for entry in chapter]
    assert [number for _, number in entries] == sorted(number for _, number in entries)
    assert [(title, number) for title, number in entries if title not in texts[number - 1]] == []


@pytest.mark.browser
def test_pages_bear_the_numbers_that_the_contents_and_the_text_send_to(printed: PdfReader, texts: list[str]) -> None:
    # Of a page's text, what stands in its margins comes first.
    assert [n for n, text in enumerate(texts, 1) if n > 1 and not re.match(rf"(.{{,40}} )?{n} ", text)] == []
    assert "000" not in texts[1]
    for chapter in bookmarks(printed).values():
        assert [entry for entry in chapter if " ".join(map(str, entry)) not in texts[1]] == []


@pytest.mark.browser
def test_the_title_page_names_the_course_its_version_and_its_licences(texts: list[str]) -> None:
    wanted = (str(configuration()["title"]), f"Version {our_version()}", "CC BY 4.0", "BSD 3-Clause")
    assert [words for words in wanted if words not in texts[0]] == []
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert all(words in licence for words in wanted[2:])


def our_version() -> str:
    return str(configuration()["repository"]["branch"]).removeprefix("v")


@pytest.mark.browser
def test_links_between_pages_lead_to_places_in_the_printed_book(printed: PdfReader) -> None:
    found = [link for page in printed.pages for link in links(page)]
    inside = [str(link.get("/Dest") or link["/A"].get("/D")) for link in found if "/URI" not in link.get("/A", {})]
    assert len(inside) > 100
    assert [place for place in inside if place not in printed.named_destinations] == []
    outside = {str(link["/A"]["/URI"]) for link in found if "/URI" in link.get("/A", {})}
    published = configuration()["html"]["baseurl"] + "book/"
    flipbook = {f"{published}03_filter_maximization.html"}
    printed_pages = {f"{published}{name}.html" for name in NAMES}
    assert {address.partition("#")[0] for address in outside} & printed_pages == flipbook


@pytest.mark.browser
def test_a_formula_is_printed_once_and_not_as_it_is_typed(texts: list[str]) -> None:
    typed = built_pages.read(built_pages.built_book() / "book" / "00_start.html").select("article annotation")
    assert any("\\frac" in formula.get_text() for formula in typed)
    assert [text for text in texts if "\\frac" in text] == []


@pytest.mark.browser
def test_a_picture_keeps_the_words_that_stand_for_it(printed: PdfReader) -> None:
    objects = [printed.get_object(number) for number in printed.xref[0]]
    words = {str(one["/Alt"]) for one in objects if isinstance(one, dict) and "/Alt" in one}
    page = built_pages.read(built_pages.built_book() / "book" / "intro.html")
    assert {str(image["alt"]) for image in page.select("article img")} <= words


@pytest.mark.browser
def test_nothing_is_cut_off_at_the_right(browser: Any, document: pdf.Document) -> None:
    with pdf.shown(browser, built_pages.built_book(), document.html) as page:
        page.set_viewport_size({"width": COLUMN, "height": 900})
        page.emulate_media(media="print")
        # A path may be longer than the drawing that it is seen in, as in the roots of formulas.
        cut = page.evaluate(
            "width => [...document.querySelectorAll('body *:not(path)')].filter(e => e.checkVisibility() && ("
            " e.getBoundingClientRect().right > width + 1 ||"
            " getComputedStyle(e).overflowX != 'visible' && e.scrollWidth > e.clientWidth + 1"
            ")).map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 60)}`)",
            COLUMN,
        )
        assert cut == []


@pytest.mark.browser
def test_a_page_printed_in_the_dark_theme_is_light(browser: Any) -> None:
    """By a reader, from the browser's menu."""
    with (
        served(built_pages.built_book()) as site,
        opened(browser, f"{site}book/03_filter_maximization.html", theme="dark") as (page, _),
    ):
        page.wait_for_function("document.documentElement.dataset.theme == 'dark'")
        page.emulate_media(media="print", color_scheme="dark")
        assert not page.is_visible(".bd-sidebar-primary, .bd-header-article, .prev-next-footer, .copybtn")
        assert page.is_visible("article h1")
        wrong = page.evaluate(
            "() => { const grey = colour => { const [r, g, b, a] = colour.match(/[\\d.]+/g).map(Number);"
            "  return a === 0 ? null : (r + g + b) / 3 };"
            " return [...document.querySelectorAll('body, body *')].filter(e => e.checkVisibility()).filter(e => {"
            "  const style = getComputedStyle(e), ground = grey(style.backgroundColor);"
            "  const speaks = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());"
            "  return ground !== null && ground < 200 || speaks && grey(style.color) > 140"
            " }).map(e => `${e.tagName} ${e.className}`) }"
        )
        assert wrong == []


# What the document is made of -----------------------------------------------------------------------------


def test_what_is_folded_stands_at_the_end(document: pdf.Document) -> None:
    pages = [built_pages.read(built_pages.built_book() / "book" / f"{name}.html") for name in NAMES]
    solutions = sum(len(page.select("article .tag_solution")) for page in pages)
    chapters, _, answers = document.html.partition('id="answers"')
    assert solutions and chapters.count("The solution: ") == answers.count("# @title Solution") == solutions
    assert "# @title Solution" not in chapters and "<strong>Right.</strong>" not in chapters
    assert "<details" not in answers


def test_the_edition_without_solutions_says_where_they_are() -> None:
    without = pdf.compose(built_pages.built_book(), ["00_start"], solutions=False)
    assert "# @title Solution" not in without.html and "<strong>Right.</strong>" not in without.html
    online = f"{configuration()['html']['baseurl']}book/00_start.html"
    assert f'The solution: <a href="{online}">on the web</a>' in without.html
    assert [heading.place for heading in without.headings if heading.level == 0] == ["00_start"]


def test_a_flipbook_says_which_frame_is_seen(document: pdf.Document) -> None:
    assert re.search(r"Shown here: [^<]* \(\d+ of \d+\)\. The slider is <a", document.html)
    assert "data-frames" not in document.html and "<script" not in document.html


# What can go wrong ----------------------------------------------------------------------------------------


def test_without_a_chromium_the_packages_to_install_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(chromium_of_this_machine, "program", lambda: None)
    monkeypatch.setattr(pdf, "compose", lambda *_, **__: pdf.Document("", []))
    assert pdf.main(["--output", str(tmp_path / "course.pdf")]) == 1
    assert "apt-get install chromium fonts-dejavu-core" in capsys.readouterr().err
    assert not (tmp_path / "course.pdf").exists()


def test_without_a_built_book_the_command_that_builds_it_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert pdf.main(["--book", str(tmp_path), "--output", str(tmp_path / "course.pdf")]) == 1
    assert "make book" in capsys.readouterr().err


def test_an_old_chromium_is_refused(tmp_path: Path) -> None:
    class Old:
        version = "130.0.6723.58"

    with pytest.raises(pdf.CannotPrint, match="too old"):
        pdf.print_book(Old(), tmp_path, pdf.Document("", []))


@pytest.mark.browser
@pytest.mark.parametrize("address", ["/_images/missing.png", "https://outside.example/x.png"])
def test_a_picture_that_is_not_in_the_built_book_is_named(browser: Any, tmp_path: Path, address: str) -> None:
    with pytest.raises(pdf.CannotPrint, match=address), pdf.shown(browser, tmp_path, f'<img src="{address}">'):
        pass
