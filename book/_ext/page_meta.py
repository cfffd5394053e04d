"""Describe each page to search engines and link previews, list all pages, and add the two pages around the book."""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

DESCRIPTION_LENGTH = 180


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
    """Add a description and the basic Open Graph tags; a preview picture would be an outside request."""
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
    for name, value in properties.items():
        tags += f'\n<meta property="{name}" content="{escape(value)}" />'
    context["metatags"] = tags


def plain_text(title: str) -> str:
    """A page title without its markup."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", title)).split())


PLAIN_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{title}</title>
{head}
</head>
<body style="font: 1.1rem/1.6 system-ui, sans-serif; margin: 15vh auto; max-width: 32rem; padding: 0 1rem">
<main><h1>{title}</h1><p>{sentence}</p></main>
</body>
</html>
"""


def write_plain_pages(app: Sphinx, exception: Exception | None) -> None:
    """Write `index.html`, which leads to the first page, and `404.html`, which a web server shows for a wrong address.

    Neither uses a file of the book: the second is shown at any depth, where relative addresses fail.
    """
    if exception is not None or app.builder.format != "html":
        return
    first = app.builder.get_target_uri(app.config.root_doc)
    published = app.config.html_baseurl + first
    title, language = escape(app.config.html_title), app.config.language
    refresh = f'<meta http-equiv="refresh" content="0; url={first}" />\n<link rel="canonical" href="{published}" />'
    index = f'<a href="{first}">Open the course</a>'
    missing = f'Nothing lies at this address. The course begins <a href="{published}">here</a>.'
    for name, head, sentence in (("index.html", refresh, index), ("404.html", "", missing)):
        page = PLAIN_PAGE.format(language=language, title=title, head=head, sentence=sentence)
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
    # After Jupyter Book, which writes a bare redirect as `index.html`.
    app.connect("build-finished", write_plain_pages, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
