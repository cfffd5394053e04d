"""Describe each page to search engines and link previews, list all pages, and add the two pages around the book.

No browser fetches what these tags name: a page stays without outside requests.
"""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path
from typing import Any

from covers import FOLDER, Cover, all_covers, cover_of, fitted, shown_part
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx

DESCRIPTION_LENGTH = 180
PREVIEW = (1200, 630)  # pixels: the shape in which every site shows a preview, which it would else cut out itself
PREVIEW_MARGIN = 30
NO_CONTENT = ("search", "genindex")  # nobody wants to be led to these by a search engine


def first_paragraph(doctree: nodes.document) -> str:
    """The text of the first paragraph long enough to be a description, cut at a word; "" if none."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        if len(text) >= 40:
            return text if len(text) <= DESCRIPTION_LENGTH else text[:DESCRIPTION_LENGTH].rsplit(" ", 1)[0] + " ..."
    return ""


def add_meta(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Add a description, the Open Graph tags and the kind of preview; a chapter's preview shows its picture."""
    properties = {
        "og:type": "website",
        "og:site_name": app.config.html_title,
        "og:title": plain_text(context.get("title", "")) or app.config.html_title,
        "og:url": app.config.html_baseurl + app.builder.get_target_uri(pagename),
    }
    description = first_paragraph(doctree) if doctree is not None else ""
    tags = context.get("metatags", "")
    if description:
        properties["og:description"] = description
        if 'name="description"' not in tags:
            tags += f'\n<meta name="description" content="{escape(description)}" />'
    cover = preview_cover(app, pagename)
    if cover is not None:
        properties |= {
            "og:image": app.config.html_baseurl + preview(cover),
            "og:image:type": "image/jpeg",
            "og:image:width": str(PREVIEW[0]),
            "og:image:height": str(PREVIEW[1]),
            "og:image:alt": cover.alt,
        }
    for name, value in properties.items():
        tags += f'\n<meta property="{name}" content="{escape(value)}" />'
    tags += f'\n<meta name="twitter:card" content="{"summary" if cover is None else "summary_large_image"}" />'
    if pagename in NO_CONTENT:
        tags += '\n<meta name="robots" content="noindex" />'
    context["metatags"] = tags


def preview_cover(app: Sphinx, pagename: str) -> Cover | None:
    """The picture for links to a page: a chapter's own, and the first chapter's for the first page."""
    if pagename == app.config.root_doc:
        return next(iter(all_covers(app)), None)
    return cover_of(Path(app.env.doc2path(pagename))) if pagename in app.env.found_docs else None


def preview(cover: Cover) -> str:
    """Where the picture for links to a chapter lies in the built folder."""
    return f"{FOLDER}/preview/{cover.number}.jpg"


def write_previews(app: Sphinx, exception: Exception | None) -> None:
    """Write the covers as previews want them: all of one size, with white around."""
    if exception is not None or app.builder.format != "html":
        return
    for cover in all_covers(app):
        picture, ground = shown_part(cover), Image.new("RGB", PREVIEW, "white")
        size = fitted(picture.size, (PREVIEW[0] - 2 * PREVIEW_MARGIN, PREVIEW[1] - 2 * PREVIEW_MARGIN))
        place = ((PREVIEW[0] - size[0]) // 2, (PREVIEW[1] - size[1]) // 2)
        ground.paste(picture.resize(size, Image.Resampling.LANCZOS), place)
        path = Path(app.outdir) / preview(cover)
        path.parent.mkdir(parents=True, exist_ok=True)
        ground.save(path, quality=85, optimize=True)


def plain_text(title: str) -> str:
    """A page title without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", title)).split())


PLAIN_STYLE = (
    "background: Canvas; color: CanvasText; font: 1.1rem/1.6 system-ui, sans-serif; "
    "margin: 15vh auto; max-width: 32rem; padding: 0 1rem"
)
PLAIN_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<title>{title}</title>
{head}
</head>
<body style="{style}">
<main><h1>{heading}</h1>{body}</main>
</body>
</html>
"""


def write_plain_pages(app: Sphinx, exception: Exception | None) -> None:
    """Write `index.html`, which leads to the first page, and `404.html`, which a web server shows for a wrong address.

    Neither uses a file of the book: the second is shown at any depth, where relative addresses fail.
    """
    if exception is not None or app.builder.format != "html":
        return
    first, base = app.builder.get_target_uri(app.config.root_doc), app.config.html_baseurl
    title, language = escape(app.config.html_title), app.config.language
    index = PLAIN_PAGE.format(
        language=language,
        style=PLAIN_STYLE,
        title=title,
        head=f'<meta http-equiv="refresh" content="0; url={first}" />\n<link rel="canonical" href="{base}{first}" />',
        heading=title,
        body=f'<p><a href="{first}">Open the course</a></p>',
    )
    missing = PLAIN_PAGE.format(
        language=language,
        style=PLAIN_STYLE,
        title=f"No such page — {title}",
        head='<meta name="robots" content="noindex" />',
        heading="No such page",
        body=f"<p>Nothing lies at this address of <em>{title}</em>. You may begin "
        f'<a href="{base}{first}">at the first page</a>, or <a href="{base}search.html">search the course</a>.</p>',
    )
    for name, page in (("index.html", index), ("404.html", missing)):
        (Path(app.outdir) / name).write_text(page, encoding="utf-8")


def write_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """Write `sitemap.xml` with the published address of each page."""
    if exception is not None or app.builder.format != "html":
        return
    urls = (app.config.html_baseurl + app.builder.get_target_uri(name) for name in sorted(app.env.found_docs))
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">',
        *(f"  <url><loc>{escape(url)}</loc></url>" for url in urls),
        "</urlset>",
    ]
    (Path(app.outdir) / "sitemap.xml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("html-page-context", add_meta)
    app.connect("build-finished", write_sitemap)
    app.connect("build-finished", write_previews)
    # After Jupyter Book, which writes a bare redirect as `index.html`.
    app.connect("build-finished", write_plain_pages, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
