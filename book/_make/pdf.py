"""Print the whole book into one PDF, from the pages that `make book` has built.

The articles of all pages become one document, which Chromium prints: links between pages lead to places in the PDF,
headings become its bookmarks, and the texts for pictures stay. What a page folds away, answers and solutions, stands at
the end of the printed book. It is printed twice: only then is it known on which page each thing lies. No network is
needed, and nothing but the built book is asked for.
"""

from __future__ import annotations

import argparse
import mimetypes
import posixpath
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from html import escape, unescape
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import browser
import notebooks
import yaml
from bs4 import BeautifulSoup, Tag
from pypdf import PdfReader, PdfWriter
from pypdf.generic import Fit

BUILD = notebooks.ROOT / "_build"
STYLE = Path(__file__).with_suffix(".css")
ORIGIN = "http://book.invalid/"  # a name that no network knows: every request is answered from the built folder
ANSWERS = "answers"
# Each coloured word of code becomes a structure in the PDF, which would double the file: colour the main ones only.
_QUIET = re.compile(r'<span class="(?:n[a-z]?|o|p|w|m[a-z]|s[aei]|bp|fm|vm|pre)">([^<]*)</span>')
OLDEST_CHROMIUM = 131  # the first that prints page numbers and running titles into the margins


class CannotPrint(RuntimeError):
    """The book cannot be printed here; the message says what to do."""


class Heading(NamedTuple):
    """A title in the printed book: its level (0 for a chapter), its words, and the id of its place."""

    level: int
    title: str
    place: str


class Document(NamedTuple):
    """What is printed: the HTML, with the numbers of pages still open, and its headings."""

    html: str
    headings: list[Heading]


@dataclass(frozen=True, eq=False)
class Page:
    """One page of the book: the part it belongs to, its address below the built folder, its article."""

    part: str
    address: str
    article: Tag

    @property
    def name(self) -> str:
        """What its ids begin with in the printed book."""
        return Path(self.address).stem

    @property
    def title(self) -> str:
        """Its heading, with the number of the chapter."""
        return words(self.article.h1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--book", type=Path, default=BUILD / "html", help="the folder of the built pages")
    parser.add_argument("--output", type=Path, default=BUILD / "course.pdf", help="the file to write")
    parser.add_argument("--no-solutions", action="store_true", help="leave out the answers and solutions at the end")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    try:
        document = compose(options.book, solutions=not options.no_solutions)
        with browser.launched(chromium_here()) as chromium:
            pdf = print_book(chromium, options.book, document)
    except CannotPrint as error:
        print(error, file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(pdf)
    pages, seconds = len(PdfReader(BytesIO(pdf)).pages), time.perf_counter() - start
    print(f"The printed book is {options.output}: {pages} pages, {len(pdf) / 1e6:.1f} MB, in {seconds:.0f} s.")
    return 0


def chromium_here() -> str:
    """The Chromium of this machine. Raises CannotPrint where there is none."""
    path = browser.program()
    if path is None:
        raise CannotPrint(
            "Printing the book needs Chromium or Google Chrome, and this machine has none. On Debian and Ubuntu:\n"
            "    apt-get install chromium fonts-dejavu-core"
        )
    return path


def print_book(chromium: Any, book: Path, document: Document) -> bytes:
    """The PDF of a document made of pages of `book`. Raises CannotPrint where the browser is too old."""
    if int(chromium.version.split(".")[0]) < OLDEST_CHROMIUM:
        raise CannotPrint(f"Chromium {chromium.version} is too old to print the book: take {OLDEST_CHROMIUM} or newer.")
    pdf = printed(chromium, book, document.html)
    for _ in range(3):
        # Numbers in the place of "000" may move a line, though hardly ever a page.
        found = page_numbers(pdf)
        pdf = printed(chromium, book, numbered(document.html, found))
        if page_numbers(pdf) == found:
            break
    return described(pdf, document.headings)


# --- one document of all pages ----------------------------------------------------------------------------------


def compose(book: Path, names: list[str] | None = None, *, solutions: bool = True) -> Document:
    """Title page, contents, the articles of the pages and what they fold away.

    Of all pages, or of those with these `names`, such as "05_saliency". Raises CannotPrint where `book` is not built.
    """
    pages = read_pages(book, names)
    inside = {page.address: page.name for page in pages}
    answers = []
    for page in pages:
        adapt(page, inside)
        answers.append((page, set_apart(page, solutions)))
    if solutions and any(found for _, found in answers):
        pages.append(Page("", f"{ANSWERS}.html", parsed(answers_article(answers))))
    headings = {page: headings_of(page) for page in pages}
    html = DOCUMENT.format(
        title=escape(configuration()["title"]),
        sheets=style_sheets(book, pages[0].address),
        style=STYLE.read_text("utf-8") + "\n".join(map(running_title, pages)),
        body=without_repeated_styles("\n".join([title_page(solutions), contents(headings), *map(chapter, pages)])),
    )
    return Document(html, [heading for found in headings.values() for heading in found])


def read_pages(book: Path, names: list[str] | None) -> list[Page]:
    """The pages in the order of the table of contents, as they lie in `book`. Raises CannotPrint where one does not."""
    toc = yaml.safe_load((notebooks.ROOT / "_toc.yml").read_text("utf-8"))
    listed = [("", toc["root"])]
    listed += [(part["caption"], entry["file"]) for part in toc["parts"] for entry in part["chapters"]]
    pages = []
    for part, file in listed:
        path = book / f"{file}.html"
        if not path.exists():
            raise CannotPrint(f"{book} has no {file}.html: build the book first, with `make book`.")
        if names is None or path.stem in names:
            article = re.search(r"<article.*</article>", path.read_text("utf-8"), re.S)
            pages.append(Page(part, f"{file}.html", parsed(_QUIET.sub(r"\1", article[0] if article else ""))))
    return pages


def style_sheets(book: Path, address: str) -> str:
    """The links of a built page to its style sheets, made from the root of the book."""
    head = (book / address).read_text("utf-8").partition("</head>")[0]
    links = [str(tag["href"]) for tag in BeautifulSoup(head, "html.parser").select("link[rel=stylesheet]")]
    return "\n".join(f'<link rel="stylesheet" href="/{escape(from_root(link, address))}">' for link in links)


def headings_of(page: Page) -> list[Heading]:
    """The title of a page, and the names of its sections."""
    sections = [section for section in page.article.select("section[id]") if section.find("h2", recursive=False)]
    return [
        Heading(0, page.title, page.name),
        *(Heading(1, words(section.h2), str(section["id"])) for section in sections),
    ]


def adapt(page: Page, inside: dict[str, str]) -> None:
    """Make an article fit to stand among others: ids of its own, links that lead there, no script."""
    for tag in page.article.select("script, a.headerlink"):
        tag.decompose()
    for tag in page.article.select(".lessons-flipbook"):
        del tag["data-frames"], tag["data-contents"]
        state = tag.select_one(".lessons-controls p")
        if state is not None:
            shown = escape(words(state).partition(". ")[0])
            state.replace_with(parsed(f"<p>{shown}. The slider is {online(page, 'on the page of this chapter')}.</p>"))
    # A formula stands in the page twice, once of them only for screen readers: a search would find both.
    for tag in page.article.select(".katex-mathml"):
        tag.decompose()
    for tag in page.article.select(".katex-html"):
        del tag["aria-hidden"]
    for tag in page.article.find_all(id=True):
        tag["id"] = f"{page.name}.{tag['id']}"
    for tag in page.article.find_all("img"):
        tag.attrs.pop("loading", None)  # nobody scrolls
        if not urlsplit(str(tag["src"])).scheme:
            tag["src"] = "/" + from_root(str(tag["src"]), page.address)
    for tag in page.article.find_all("a", href=True):
        tag["href"] = printed_link(str(tag["href"]), page, inside)


def printed_link(link: str, page: Page, inside: dict[str, str]) -> str:
    """Where a link of `page` leads in the printed book: to a place in it, or to the published page."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return link
    target = from_root(parts.path, page.address) if parts.path else page.address
    if target not in inside:
        return published(target) + (f"#{parts.fragment}" if parts.fragment else "")
    return f"#{inside[target]}" + (f".{unquote(parts.fragment)}" if parts.fragment else "")


def from_root(link: str, address: str) -> str:
    """Where a relative link on the page at `address` leads, counted from the root of the book."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(address), link))


def title_page(solutions: bool) -> str:
    """Name, release, licence, and where the course is on the web."""
    config = configuration()
    site = escape(published(""))
    return TITLE_PAGE.format(
        title=escape(config["title"]),
        author=escape(config["author"]),
        version=escape(str(config["repository"]["branch"]).removeprefix("v")),
        year=escape(str(config["copyright"])),
        logo=escape(posixpath.join("/_static", Path(config["logo"]).name)),
        site=f'<a href="{site}">{site}</a>',
        folded="stands at the end" if solutions else "is there too",
    )


def contents(headings: dict[Page, list[Heading]]) -> str:
    """The table of contents: the pages by part, and below each the names of its sections."""
    lines = ['<nav class="book-contents" aria-label="Contents"><h1>Contents</h1>']
    for part, members in groupby(headings, key=lambda page: page.part):
        lines.append(f'<p class="contents-part">{escape(part)}</p>' if part else "")
        for page in members:
            first, *sections = (
                f'<a href="#{escape(place)}">{escape(title)}</a> {page_of(place)}' for _, title, place in headings[page]
            )
            lines.append(f'<p class="contents-page">{first}</p>')
            lines.append(f'<p class="contents-sections">{" · ".join(sections)}</p>' if sections else "")
    return "\n".join([*lines, "</nav>"])


def chapter(page: Page) -> str:
    """An article in the frame that the book's style expects, on pages of its own."""
    return (
        f'<div class="bd-main chapter" id="{page.name}" style="page: p-{page.name}"><div class="bd-content">'
        f'<div class="bd-article-container">{page.article}</div></div></div>'
    )


def running_title(page: Page) -> str:
    """The style that puts the title of a chapter at the head of its pages."""
    title = page.title.replace("\\", "\\\\").replace('"', '\\"')
    return f'@page p-{page.name} {{ @top-left {{ content: "{title}" }} }}'


def without_repeated_styles(body: str) -> str:
    """HTML in which each style stands once: every question and flipbook of a page brings its own."""
    seen: set[str] = set()

    def once(match: re.Match[str]) -> str:
        if match[0] in seen:
            return ""
        seen.add(match[0])
        return match[0]

    return re.sub(r"<style>.*?</style>", once, body, flags=re.S)


# --- what a page folds away -------------------------------------------------------------------------------------


def set_apart(page: Page, solutions: bool) -> list[str]:
    """Take what is folded out of an article, and say in its place where it is; the HTML of each piece.

    Without `solutions`, where it is on the web.
    """
    found: list[str] = []
    plain = "details:not(.lessons-choice, .tag_solution details)"
    for tag in page.article.select(f".tag_solution, .lessons-question, {plain}"):
        here, there = f"{page.name}.asked-{len(found) + 1}", f"{ANSWERS}.{page.name}-{len(found) + 1}"
        place = f'<a href="#{there}">page {page_of(there)}</a>' if solutions else online(page, "on the web")
        if "tag_solution" in (tag.get("class") or ()):
            asked, answer = escape(words(tag.find_previous(["h2", "h3"]))), solution(tag)
            tag.replace_with(parsed(f'<p class="elsewhere" id="{here}">The solution: {place}</p>'))
        elif tag.name == "details":
            asked, answer = unfold(tag)
            tag.replace_with(parsed(f'<p class="asked" id="{here}"><span>{asked}</span> <span>{place}</span></p>'))
        else:
            asked, answer = verdicts(tag)
            tag["id"] = here
            tag.append(parsed(f'<p class="elsewhere">The answer: {place}</p>'))
        back = f'<p class="answer-to"><a href="#{here}"><span>{asked}</span> <span>page {page_of(here)}</span></a></p>'
        found.append(f'<div class="answer" id="{there}">{back}{answer}</div>')
    return found


def solution(cell: Tag) -> str:
    """A solution's cell, unfolded."""
    for details in cell.find_all("details"):
        take(details, "summary")
        details.unwrap()
    return str(cell)


def unfold(details: Tag) -> tuple[str, str]:
    """The line that is always seen, and what is folded below it."""
    return inner(take(details, "summary")), inner(details)


def verdicts(question: Tag) -> tuple[str, str]:
    """What a question asks, and what it says to each answer; the answers themselves stay, without it."""
    prompt = question.select_one(".lessons-prompt")
    kind = words(prompt.find("b") if prompt else None)
    asked = inner(prompt).partition("<br/>")[2]
    lines = []
    for choice in question.select("details.lessons-choice"):
        letter = words(choice.find("b"))
        lines.append(f"<li><b>{letter}</b><span>{inner(take(choice, 'p'))}</span></li>")
    return f"{kind}: {asked}", f'<ul class="verdicts">{"".join(lines)}</ul>'


def answers_article(answers: list[tuple[Page, list[str]]]) -> str:
    """The last chapter of the printed book."""
    sections = [
        f'<section id="{ANSWERS}.{page.name}"><h2>{escape(page.title)}</h2>{"".join(found)}</section>'
        for page, found in answers
        if found
    ]
    return f'<article class="bd-article"><h1>Answers and solutions</h1>{"".join(sections)}</article>'


# --- printing ---------------------------------------------------------------------------------------------------


def printed(chromium: Any, book: Path, html: str) -> bytes:
    """The PDF of a document."""
    with shown(chromium, book, html) as page:
        return page.pdf(prefer_css_page_size=True, print_background=True, tagged=True)


@contextmanager
def shown(chromium: Any, book: Path, html: str) -> Iterator[Any]:
    """A document in the browser; pictures, fonts and styles are taken from `book` and from nowhere else.

    Raises CannotPrint where `book` lacks one.
    """
    missing = []

    def answer(route: Any) -> None:
        address = route.request.url
        path = book / unquote(urlsplit(address).path).lstrip("/")
        if address == ORIGIN:
            route.fulfill(body=html, content_type="text/html; charset=utf-8")
        elif address.startswith(ORIGIN) and path.is_file():
            route.fulfill(path=path, content_type=mimetypes.guess_type(path.name)[0] or "application/octet-stream")
        else:
            missing.append(address)
            route.abort()

    context = chromium.new_context(color_scheme="light", viewport={"width": 800, "height": 1100})
    try:
        page = context.new_page()
        page.route("**/*", answer)
        page.goto(ORIGIN, wait_until="load", timeout=120_000)
        page.evaluate("document.fonts.ready.then(() => true)")
        if missing:
            raise CannotPrint(f"{book} lacks what its pages show: {', '.join(missing)}. Build the book again.")
        yield page
    finally:
        context.close()


def page_of(place: str) -> str:
    """The number of the page on which a place lies, to be filled in once it is known."""
    return f'<span class="page-of" data-of="{escape(place)}">000</span>'


def page_numbers(pdf: bytes) -> dict[str, int]:
    """On which page each place lies that a link leads to."""
    reader = PdfReader(BytesIO(pdf))
    found = {}
    for name, place in reader.named_destinations.items():
        index = reader.get_destination_page_number(place)
        if index is not None:
            found[name.removeprefix("/")] = index + 1
    return found


def numbered(html: str, pages: dict[str, int]) -> str:
    """The document with the numbers of pages filled in."""
    return re.sub(
        r'(<span class="page-of" data-of="([^"]+)">)000', lambda match: match[1] + str(pages[unescape(match[2])]), html
    )


def described(pdf: bytes, headings: list[Heading]) -> bytes:
    """The PDF with its title, its authors, and bookmarks for its headings.

    Chromium can make bookmarks too, but runs words together where a heading goes over two lines.
    """
    config = configuration()
    writer = PdfWriter(BytesIO(pdf), incremental=True)
    places, pages = writer.named_destinations, page_numbers(pdf)
    chapter_item: Any = None
    for heading in headings:
        item = writer.add_outline_item(
            title=heading.title,
            page_number=pages[heading.place] - 1,
            parent=chapter_item if heading.level else None,
            fit=Fit.xyz(top=places[f"/{heading.place}"].top),
            is_open=False,
        )
        chapter_item = chapter_item if heading.level else item
    writer.metadata = None
    writer.add_metadata({"/Title": config["title"], "/Author": config["author"], "/Subject": published("")})
    writer.page_mode = "/UseOutlines"
    writer.create_viewer_preferences().display_doctitle = True  # type: ignore[assignment]
    file = BytesIO()
    writer.write(file)
    return file.getvalue()


# --- small things -----------------------------------------------------------------------------------------------


@cache
def configuration() -> dict[str, Any]:
    """What `_config.yml` says."""
    return yaml.safe_load((notebooks.ROOT / "_config.yml").read_text("utf-8"))


def published(address: str) -> str:
    """The address on the web of a page of the book."""
    return str(configuration()["html"]["baseurl"]) + address


def online(page: Page, told: str) -> str:
    """A link to the published page."""
    return f'<a href="{escape(published(page.address))}">{told}</a>'


def parsed(html: str, name: str = "") -> Tag:
    """The first element of some HTML, or the first with this name."""
    tag = BeautifulSoup(html, "html.parser").find(name or True)
    assert isinstance(tag, Tag), f"no {name or 'element'} in {html[:200]}"
    return tag.extract()


def words(tag: Tag | None) -> str:
    """The text of an element in one line."""
    return " ".join(tag.get_text().split()) if tag else ""


def take(tag: Tag, name: str) -> Tag:
    """The first element with this name within another, taken out of it."""
    found = tag.find(name)
    assert isinstance(found, Tag), f"no {name} in {str(tag)[:200]}"
    return found.extract()


def inner(tag: Tag | None) -> str:
    """The HTML within an element."""
    return tag.decode_contents() if tag else ""


TITLE_PAGE = """<header class="title-page">
<img src="{logo}" alt="">
<p class="title">{title}</p>
<p>{author}</p>
<p>Version {version}</p>
<div>
<p>{site}</p>
<p>This is the course on paper. What moves, runs and answers back is on its pages on the web. What they fold away,
answers and solutions, {folded}.</p>
<p>© {year} {author}. Text and figures: <a href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>.
Code: BSD 3-Clause License. What was made by others keeps its own licence, as the notices say.</p>
</div>
</header>"""

DOCUMENT = """<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head>
<meta charset="utf-8">
<title>{title}</title>
{sheets}
<style>{style}</style>
</head>
<body class="printed-book">
{body}
</body>
</html>
"""

if __name__ == "__main__":
    raise SystemExit(main())
