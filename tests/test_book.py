"""The built book: strict build, no outside request, no broken link, light pages, texts for all pictures."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import built_pages
import nbformat
import pytest
from built_pages import ROOT, configuration, read, small_book
from PIL import Image


@pytest.fixture(scope="session")
def book() -> Path:
    return built_pages.built_book()


def our_addresses() -> tuple[str, str, str]:
    config = configuration()
    return built_pages.slug(), config["repository"]["branch"], config["html"]["baseurl"]


def properties(page: Path) -> dict[str, str]:
    """What a page tells those who show a link to it."""
    tags = read(page).select("head meta")
    return {str(tag.get("property") or tag.get("name")): str(tag["content"]) for tag in tags if tag.get("content")}


def cover_text(name: str) -> str:
    """The words for the figure that stands for a chapter."""
    notebook = nbformat.read((ROOT / name).with_suffix(".ipynb"), as_version=4)
    (cover,) = (cell for cell in notebook.cells if "cover" in cell.metadata.get("tags", []))
    return str(cover.metadata["mystnb"]["image"]["alt"])


def write_page(folder: Path, body: str, name: str = "page.html") -> Path:
    page = folder / name
    page.write_text(f"<!DOCTYPE html><html lang='en'><body><article>{body}</article></body></html>", encoding="utf-8")
    return page


# The book itself ------------------------------------------------------------------------------------------


def test_the_strict_build_makes_every_page_of_the_table_of_contents(book: Path) -> None:
    assert [name for name in built_pages.page_names() if not (book / name).exists()] == []


def test_no_page_fetches_anything_from_another_host(book: Path) -> None:
    assert built_pages.outside_requests(book) == []


def test_every_internal_link_and_anchor_leads_somewhere(book: Path) -> None:
    assert built_pages.broken_links(book) == []


def test_every_picture_has_a_text_that_is_not_a_file_name(book: Path) -> None:
    offences = {name: built_pages.images_without_text(read(book / name)) for name in built_pages.page_names()}
    assert {name: found for name, found in offences.items() if found} == {}


def test_every_page_is_within_the_limits_of_weight(book: Path) -> None:
    assert built_pages.overweight(book, built_pages.all_pages(book)) == []


def test_all_addresses_of_the_project_are_those_of_the_configuration(book: Path) -> None:
    offences = {
        path.name: found
        for path in built_pages.all_pages(book)
        if (found := built_pages.foreign_addresses(path.read_text(encoding="utf-8"), *our_addresses()))
    }
    assert offences == {}


@pytest.mark.parametrize("name", built_pages.chapter_names())
def test_a_chapter_opens_in_colab_at_the_release(book: Path, name: str) -> None:
    slug, release, _ = our_addresses()
    notebook = name.replace(".html", ".ipynb")
    wanted = f"https://colab.research.google.com/github/{slug}/blob/{release}/{notebook}"
    buttons = read(book / name).select("a.btn-launch-colab")
    assert [button["href"] for button in buttons] == [wanted]
    assert (ROOT / notebook).exists()


@pytest.mark.parametrize("name", built_pages.chapter_names())
def test_formulas_are_drawn_in_the_page(book: Path, name: str) -> None:
    soup = read(book / name)
    formulas = soup.select("article .math")
    assert formulas, f"{name} has no formula: this test no longer tests anything"
    assert all(formula.select(".katex-html") and formula.select("math annotation") for formula in formulas)
    assert not soup.select(".katex-error")


def test_no_script_of_a_disused_extension_is_loaded(book: Path) -> None:
    unwanted = ("thebe", "mathjax", "fontawesome", "require", "mermaid", "plotly", "katex")
    sources = {
        (page.name, str(tag))
        for page in built_pages.all_pages(book)
        for tag in read(page).find_all("script")
        if any(word in str(tag).lower() for word in unwanted)
    }
    assert sources == set()


def test_the_style_of_formulas_and_its_licence_come_with_the_book(book: Path) -> None:
    folder = book / "_static" / "katex"
    css = (folder / "katex.min.css").read_text(encoding="utf-8")
    assert "MIT" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert [url for url in built_pages.css_addresses(css) if not (folder / url).exists()] == []


def test_every_page_is_described_and_has_its_published_address(book: Path) -> None:
    for name in built_pages.page_names():
        soup = read(book / name)
        published = configuration()["html"]["baseurl"] + name
        assert soup.select_one("link[rel=canonical]")["href"] == published  # type: ignore[index]
        assert len(soup.select_one("meta[name=description]")["content"]) >= 40, name  # type: ignore[index]
        assert published in (book / "sitemap.xml").read_text(encoding="utf-8")


def test_the_sitemap_lists_the_pages_and_nothing_else(book: Path) -> None:
    listed = re.findall("<loc>(.*)</loc>", (book / "sitemap.xml").read_text(encoding="utf-8"))
    published = configuration()["html"]["baseurl"]
    assert sorted(listed) == sorted(published + name for name in built_pages.page_names())


@pytest.mark.parametrize("name", ["search.html", "genindex.html", "404.html"])
def test_search_engines_lead_nobody_to_a_page_without_content(book: Path, name: str) -> None:
    assert properties(book / name)["robots"] == "noindex"


def test_every_page_with_content_may_be_found(book: Path) -> None:
    assert [name for name in built_pages.page_names() if "robots" in properties(book / name)] == []


@pytest.mark.parametrize("name", [built_pages.page_names()[0], *built_pages.chapter_names()])
def test_a_link_to_a_chapter_shows_its_picture(book: Path, name: str) -> None:
    told, published = properties(book / name), configuration()["html"]["baseurl"]
    assert told["twitter:card"] == "summary_large_image"
    chapter = name if name in built_pages.chapter_names() else built_pages.chapter_names()[0]
    assert told["og:image:alt"] == cover_text(chapter)
    assert told["og:image"].startswith(published)
    with Image.open(book / told["og:image"].removeprefix(published)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (1200, 630))
        assert (int(told["og:image:width"]), int(told["og:image:height"])) == picture.size
        assert len(picture.getcolors(1 << 24) or []) > 100, "there is nothing on it"


def test_a_link_to_a_page_without_a_picture_promises_none(book: Path) -> None:
    told = properties(book / "book" / "glossary.html")
    assert told["twitter:card"] == "summary"
    assert [name for name in told if name.startswith("og:image")] == []


def test_the_page_for_a_wrong_address_works_at_any_depth(book: Path) -> None:
    page, published = read(book / "404.html"), configuration()["html"]["baseurl"]
    links = [str(link["href"]) for link in page.select("a")]
    assert links == [published + built_pages.page_names()[0], f"{published}search.html"]
    assert all((book / link.removeprefix(published)).exists() for link in links)
    assert list(built_pages.loaded_addresses(page)) == []


def test_the_front_door_leads_to_the_first_page(book: Path) -> None:
    index = (book / "index.html").read_text(encoding="utf-8")
    assert f"url={built_pages.page_names()[0]}" in index


def test_the_map_shows_thirteen_chapters_and_links_those_that_exist(book: Path) -> None:
    items = read(book / "book" / "intro.html").select("ol.course-map > li")
    assert len(items) == 13
    linked = {f"book/{link['href']}" for item in items for link in item.select("a")}
    assert linked == set(built_pages.chapter_names())
    assert len([item for item in items if item.select(".course-map-planned")]) == 13 - len(linked)


def test_the_map_shows_a_small_picture_of_every_chapter(book: Path) -> None:
    first = book / built_pages.page_names()[0]
    pictures = read(first).select("ol.course-map img")
    assert [image["alt"] for image in pictures] == [cover_text(name) for name in built_pages.chapter_names()]
    assert {str(image["loading"]) for image in pictures} == {"lazy"}
    files = [first.parent / str(image["src"]) for image in pictures]
    assert sum(file.stat().st_size for file in files) < 400_000
    for image, file in zip(pictures, files, strict=True):
        width, height = int(str(image["width"])), int(str(image["height"]))
        with Image.open(file) as picture:
            assert picture.width >= 2 * width * 0.98
            assert abs(picture.height / picture.width * width - height) < 1


def test_how_made_says_what_every_notebook_recorded(book: Path) -> None:
    page = read(book / "book" / "how_made.html").get_text()
    notebooks = list((ROOT / "book").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        made = json.loads(path.read_text(encoding="utf-8"))["metadata"]["made"]
        recorded = [made["command"], made["weights"]["sha256"], made["python"], made["sources"], made["machine"]]
        assert [value for value in recorded if value not in page] == []


def test_the_library_page_documents_every_public_module(book: Path) -> None:
    page = read(book / "book" / "api.html")
    modules = [path.stem for path in (ROOT / "lessons_lib").glob("*.py") if not path.stem.startswith("_")]
    assert modules
    assert [name for name in modules if not page.find(id=f"module-lessons_lib.{name}")] == []
    assert "`" not in page.find("article").get_text().replace("``", "`")  # type: ignore[union-attr]


def test_the_library_page_says_what_a_network_is_made_from(book: Path) -> None:
    """PyTorch is only imitated while the book is built, and the imitation's classes take anything."""
    page = read(book / "book" / "api.html")
    signatures = [line.get_text() for line in page.select("dl.py.class > dt")]
    assert signatures
    assert [line for line in signatures if "args" in line] == []
    resnet = page.find(id="lessons_lib.resnet.ResNet")
    assert "(classes: int, *, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2)" in resnet.get_text()  # type: ignore[union-attr]


# The same checks on what is broken on purpose -------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "<script src='https://cdn.example/x.js'></script>",
        "<link rel='stylesheet' href='//cdn.example/x.css'>",
        "<img alt='a cat on a mat' src='http://cdn.example/x.png'>",
        "<img alt='a cat on a mat' src='x.png' srcset='x.png 1x, https://cdn.example/x.png 2x'>",
        "<div style=\"background: url('https://cdn.example/x.png')\"></div>",
        "<style>@import 'https://cdn.example/x.css';</style>",
        "<iframe src='https://cdn.example/x'></iframe>",
    ],
)
def test_an_outside_request_of_a_page_is_found(tmp_path: Path, body: str) -> None:
    write_page(tmp_path, body)
    assert len(built_pages.outside_requests(tmp_path)) == 1


def test_an_outside_request_of_a_style_sheet_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text("@font-face{src:url(https://cdn.example/x.woff2)}", encoding="utf-8")
    assert len(built_pages.outside_requests(tmp_path)) == 1


def test_a_plain_link_to_another_host_is_no_request(tmp_path: Path) -> None:
    write_page(
        tmp_path, "<a href='https://arxiv.org/abs/1602.07360'>paper</a><link rel='canonical' href='https://a.b/'>"
    )
    assert built_pages.outside_requests(tmp_path) == []


@pytest.mark.parametrize("address", ["missing.html", "page.html#nowhere", "#nowhere", "../_static/missing.js"])
def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, address: str) -> None:
    write_page(tmp_path, f"<h1 id='somewhere'>x</h1><a href='#somewhere'>good</a><a href='{address}'>bad</a>")
    assert len(built_pages.broken_links(tmp_path)) == 1


@pytest.mark.parametrize("alt", ["", "alt=''", "alt='../_images/0badc0de.png'", "alt='_build/jupyter_execute/x'"])
def test_a_picture_without_a_real_text_is_found(tmp_path: Path, alt: str) -> None:
    page = write_page(tmp_path, f"<img src='x.png' {alt}><img src='y.png' alt='A cat, seen from the side'>")
    assert len(built_pages.images_without_text(read(page))) == 1


def test_a_page_with_too_much_script_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.js").write_bytes(b" " * (built_pages.SCRIPT_LIMIT + 1))
    page = write_page(tmp_path, "<script src='x.js'></script>")
    assert "of script" in built_pages.overweight(tmp_path, [page])[0]


def test_the_index_of_the_search_counts_as_words_and_not_as_script(tmp_path: Path) -> None:
    (tmp_path / "searchindex.js").write_bytes(b" " * (built_pages.SCRIPT_LIMIT + 1))
    page = write_page(tmp_path, "<script src='searchindex.js'></script>")
    assert built_pages.weight(tmp_path, page)[0] == 0
    assert built_pages.weight(tmp_path, page)[1] > built_pages.SCRIPT_LIMIT
    assert built_pages.overweight(tmp_path, [page]) == []


def test_a_page_that_is_too_heavy_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b" " * built_pages.PAGE_LIMIT)
    page = write_page(tmp_path, "<img src='x.png' alt='A very large picture'>")
    assert len(built_pages.overweight(tmp_path, [page])) == 1


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/somebody/else",
        "https://colab.research.google.com/github/somebody/course/blob/v0.1.0/book/00_start.ipynb",
        "https://colab.research.google.com/github/owner/course/blob/main/book/00_start.ipynb",
        "git+https://github.com/owner/course@v0.0.9",
        "https://somebody.github.io/course/",
    ],
)
def test_an_address_of_another_project_or_release_is_found(address: str) -> None:
    assert len(built_pages.foreign_addresses(address, "owner/course", "v0.1.0", "https://owner.github.io/course/")) == 1


def test_the_addresses_of_the_project_are_not_taken_for_foreign() -> None:
    text = (
        "https://github.com/owner/course git+https://github.com/owner/course@v0.1.0 https://owner.github.io/course/ "
        "https://colab.research.google.com/github/owner/course/blob/v0.1.0/book/00_start.ipynb"
    )
    assert built_pages.foreign_addresses(text, "owner/course", "v0.1.0", "https://owner.github.io/course/") == []


# The strict build on small books --------------------------------------------------------------------------


def test_the_frame_builds_with_formulas_where_no_node_is_installed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    source = small_book(tmp_path / "source", "# A page\n\nA formula $x^2$.\n\n$$\n\\frac{1}{2}\n$$\n")
    result = built_pages.run_jupyter_book(source, tmp_path / "out", {"PATH": str(tmp_path / "empty")})
    assert result.returncode == 0, result.stderr
    formulas = read(tmp_path / "out" / "_build" / "html" / "book" / "intro.html").select(".katex-html")
    assert len(formulas) == 2


@pytest.fixture(scope="session")
def faulty_build(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """One strict build of a page with every kind of fault, and one right link to a word of the glossary."""
    text = """# A page

[no such page](missing.md), [no such anchor](#nowhere), {term}`nonsense`, {cite}`nobody1900nothing`.
[a word](intro.md#top-1), [no such word](intro.md#top-2).

```{figures-made}
```

:::{glossary}
top-1
  A word.
:::
"""
    toc = "chapters:\n  - file: book/00_start\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A chapter")])
    folder = tmp_path_factory.mktemp("faulty")
    return built_pages.run_jupyter_book(small_book(folder / "source", text, toc, notebook), folder / "out")


FAULTS = {
    "a link to a missing page": "missing.md",
    "a link to a missing anchor": "nowhere",
    "a link to a missing word of the glossary": "top-2",
    "a role for a missing word of the glossary": "nonsense",
    "a citation of nothing": "nobody1900nothing",
    "a notebook that does not say how it was made": "does not record how its figures were made",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_strict_build_fails_and_names(faulty_build: subprocess.CompletedProcess[str], fault: str) -> None:
    assert faulty_build.returncode != 0
    assert FAULTS[fault] in faulty_build.stdout + faulty_build.stderr


def test_a_plain_link_reaches_a_word_of_the_glossary(faulty_build: subprocess.CompletedProcess[str]) -> None:
    assert "top-1" not in faulty_build.stdout + faulty_build.stderr


def test_a_formula_that_cannot_be_read_fails_the_build(tmp_path: Path) -> None:
    source = small_book(tmp_path / "source", "# A page\n\n$\\frac{1}{$\n")
    result = built_pages.run_jupyter_book(source, tmp_path / "out")
    assert result.returncode != 0
    assert "KaTeX" in result.stdout + result.stderr
