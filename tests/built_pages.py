"""What must hold for the pages of the built book, as functions that name every offence they find.

Each takes built HTML, so that a test can also hand it a page that is broken on purpose.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parent.parent
SCRIPT_LIMIT = 300_000  # bytes of script on a page, as the files lie on disk
SEARCH_INDEX = "searchindex.js"
PAGE_LIMIT = 3_000_000  # bytes of a page with all it loads

# Other people's repositories that the pages name; every other link to GitHub must be to our own.
OTHERS_REPOSITORIES = {
    "songhan/SqueezeNet-Deep-Compression",
    "greentfrapp/lucent",
    "tensorflow/lucid",
    "google-research/bert",
}
OTHERS_SITES = ("https://kellerjordan.github.io/posts/",)

_LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "manifest"}
_LOADING_ATTRIBUTES = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "input": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
_CSS_ADDRESS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


def run_jupyter_book(
    source: Path, output: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Build `source` into `output`/_build/html, strictly; it fails at any warning, after reporting them all."""
    # By this interpreter, not by whichever `jupyter-book` comes first on the path.
    program = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    return subprocess.run(
        [*program, "build", str(source), "--path-output", str(output), "--all", "-W", "-n", "--keep-going", "-q"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def small_book(folder: Path, text: str, toc: str = "", notebook: nbformat.NotebookNode | None = None) -> Path:
    """A copy of the book's frame (configuration, extensions, style) around one page with `text`."""
    (folder / "book").mkdir(parents=True)
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, folder / "book" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\n{toc}", encoding="utf-8")
    (folder / "book" / "intro.md").write_text(text, encoding="utf-8")
    if notebook is not None:
        nbformat.write(notebook, folder / "book" / "00_start.ipynb")
    return folder


@cache
def built_book() -> Path:
    """The folder of the built HTML: `LESSONS_BOOK` where it is set, else built now, once in a test run."""
    given = os.environ.get("LESSONS_BOOK")
    if given:
        if not (Path(given) / "search.html").exists():
            raise FileNotFoundError(f"LESSONS_BOOK={given} holds no built book: run make book, or unset it")
        return Path(given)
    output = Path(tempfile.mkdtemp(prefix="book-"))
    atexit.register(shutil.rmtree, output, ignore_errors=True)
    result = run_jupyter_book(ROOT, output)
    if result.returncode:
        raise RuntimeError(f"the strict build of the book failed:\n{result.stdout}\n{result.stderr}")
    return output / "_build" / "html"


@cache
def configuration() -> dict[str, dict[str, str]]:
    """What `_config.yml` says."""
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def slug() -> str:
    """Our repository as owner/name, from `_config.yml`."""
    return urlsplit(configuration()["repository"]["url"]).path.strip("/")


def page_names() -> list[str]:
    """The addresses of all pages in the table of contents, relative to the built folder, root first."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [contents["root"]] + [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return [f"{file}.html" for file in files]


def chapter_names() -> list[str]:
    """The addresses of the pages that come from notebooks."""
    return [name for name in page_names() if (ROOT / name).with_suffix(".ipynb").exists()]


def all_pages(root: Path) -> list[Path]:
    """Every HTML page below `root`, templates of the theme left out."""
    return sorted(path for path in root.rglob("*.html") if "_static" not in path.relative_to(root).parts)


def read(page: Path) -> BeautifulSoup:
    """A page, parsed."""
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def values(tag: Tag, attribute: str) -> list[str]:
    """The value or values of an attribute; none when it is absent."""
    value = tag.get(attribute)
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def loaded_addresses(soup: BeautifulSoup) -> Iterator[str]:
    """Every address from which a browser fetches something to show the page; plain links are none."""
    for tag in soup.find_all(list(_LOADING_ATTRIBUTES)):
        for attribute in _LOADING_ATTRIBUTES[tag.name]:
            for value in values(tag, attribute):
                addresses = value.split(",") if attribute == "srcset" else [value]
                yield from (address.split()[0] for address in addresses if address.strip())
    for tag in soup.find_all("link"):
        if _LOADING_RELATIONS.intersection(values(tag, "rel")):
            yield from values(tag, "href")
    for tag in soup.find_all("style"):
        yield from css_addresses(tag.get_text())
    for tag in soup.find_all(style=True):
        yield from css_addresses(" ".join(values(tag, "style")))


def css_addresses(css: str) -> list[str]:
    """Every address that a style sheet fetches."""
    return [url or imported for url, imported in _CSS_ADDRESS.findall(css)]


def is_outside(address: str) -> bool:
    """Whether an address leads to another host; data and relative addresses do not."""
    return bool(urlsplit(address).netloc)


def local_file(root: Path, page: Path, address: str) -> Path | None:
    """The file of the built folder that a relative address on `page` leads to; None for any other address."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    if not parts.path:
        return page
    base = root if parts.path.startswith("/") else page.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve()
    return target / "index.html" if target.is_dir() else target


def outside_requests(root: Path) -> list[str]:
    """Every address on another host that a page, or a style sheet it may load, would fetch."""
    found = []
    for page in all_pages(root):
        found += [f"{page.relative_to(root)}: {url}" for url in loaded_addresses(read(page)) if is_outside(url)]
    for sheet in sorted(root.rglob("*.css")):
        css = sheet.read_text(encoding="utf-8")
        found += [f"{sheet.relative_to(root)}: {url}" for url in css_addresses(css) if is_outside(url)]
    return found


def broken_links(root: Path) -> list[str]:
    """Every link, and everything loaded, that leads to a file or an anchor that is not there."""
    found = []
    soups = {page.resolve(): read(page) for page in all_pages(root)}
    anchors = {page: anchor_names(soup) for page, soup in soups.items()}
    for page, soup in soups.items():
        links = [url for tag in soup.find_all("a") for url in values(tag, "href")]
        for address in dict.fromkeys([*links, *loaded_addresses(soup)]):
            target = local_file(root.resolve(), page, address)
            if target is None:
                continue
            fragment = unquote(urlsplit(address).fragment)
            if not target.exists():
                found.append(f"{page.name}: {address} (no such file)")
            elif fragment and target in anchors and fragment not in anchors[target]:
                found.append(f"{page.name}: {address} (no such anchor)")
    return found


def anchor_names(soup: BeautifulSoup) -> set[str]:
    """All places on a page that a link can lead to."""
    return {name for tag in soup.find_all(True) for key in ("id", "name") for name in values(tag, key)}


def images_without_text(soup: BeautifulSoup) -> list[str]:
    """Pictures of the article whose alternative text is missing, empty, or only the name of a file."""
    article = soup.find("article") or soup
    assert isinstance(article, Tag)
    found = []
    for image in article.find_all("img"):
        text = " ".join(values(image, "alt")).strip()
        if len(text) < 4 or re.search(r"\.(png|jpe?g|svg|gif|webp)$|^[\w./-]*/[\w./-]*$", text):
            found.append(f"alt={text!r}: {str(image)[:120]}")
    return found


def weight(root: Path, page: Path) -> tuple[int, int]:
    """Bytes of script, and bytes in all, that a page makes a browser load, fonts aside; files count once.

    The index of the search is no script: it is the words of the book, grows with it, and only that page loads it.
    """
    soup = read(page)
    scripts = {local_file(root, page, url) for tag in soup.find_all("script") for url in values(tag, "src")}
    loaded = {local_file(root, page, url) for url in loaded_addresses(soup)} - {None}
    inline = sum(len(tag.get_text().encode()) for tag in soup.find_all("script") if not tag.get("src"))
    scripts = {path for path in scripts if path and path.exists() and path.name != SEARCH_INDEX}
    script_bytes = inline + sum(path.stat().st_size for path in scripts if path)
    all_bytes = page.stat().st_size + sum(path.stat().st_size for path in loaded if path and path.exists())
    return script_bytes, all_bytes


def overweight(root: Path, pages: list[Path]) -> list[str]:
    """Pages that load more script, or more in all, than the limits."""
    found = []
    for page in pages:
        script, everything = weight(root, page)
        if script > SCRIPT_LIMIT:
            found.append(f"{page.name}: {script} bytes of script, more than {SCRIPT_LIMIT}")
        if everything > PAGE_LIMIT:
            found.append(f"{page.name}: {everything} bytes, more than {PAGE_LIMIT}")
    return found


def foreign_addresses(text: str, slug: str, release: str, published: str) -> list[str]:
    """Addresses of a repository, a release or a site that are neither ours nor known to be somebody else's.

    `slug` is owner/name, `release` the tag that pinned links must name, `published` the address of the book.
    """
    ours = {slug, *OTHERS_REPOSITORIES}
    found = []
    host = r"(?:github\.com|raw\.githubusercontent\.com|colab\.research\.google\.com/github)"
    pin = r"(?:/(?:blob|tree|raw)/|(?:\.git)?@)([\w.-]+)"
    for match in re.finditer(rf"{host}/([\w-]+/[\w-]+)(?:{pin})?", text):
        if match[1] not in ours or (match[1] == slug and match[2] not in (None, release)):
            found.append(match[0])
    for match in re.finditer(r"https://[\w-]+\.github\.io(?:/[\w-]+)?/?", text):
        if not match[0].startswith((published, *OTHERS_SITES)):
            found.append(match[0])
    return found
