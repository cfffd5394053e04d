"""Mend what keeps the theme's pages from people who use a keyboard or a screen reader."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform


class NameSolutions(SphinxPostTransform):
    """Say on a folded cell whether it holds a solution; the chapters mark theirs with the tag `solution`."""

    default_priority = 198  # just before MyST-NB folds the cells
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Set the prompts of all folded cells."""
        for cell in self.document.findall(nodes.container):
            if cell.get("nb_element") == "cell_code" and cell.get("hide_mode"):
                what = "solution" if "tag_solution" in cell["classes"] else "code"
                cell["prompt_show"], cell["prompt_hide"] = f"Show the {what}", f"Hide the {what}"


class MendOutputs(SphinxPostTransform):
    """Make stored HTML outputs pass: the empty corner of a pandas table is no header of anything."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        """Rewrite the outputs that hold a data frame."""
        for output in self.document.findall(nodes.raw):
            if output.get("format") == "html" and "dataframe" in output.astext():
                html = re.sub(r"<th>\s*</th>", "<td></td>", output.astext())
                output.children = [nodes.Text(html)]
                output.rawsource = html


def visit_folded_cell(self: Any, node: nodes.Element) -> None:
    """Open a folded cell, named by its visible words; MyST-NB's label hides them from a screen reader."""
    classes = " ".join(node["classes"])
    show, hide = escape(node["prompt_show"]), escape(node["prompt_hide"])
    self.body.append(
        f'<details class="admonition hide {classes}">\n<summary>\n'
        f'<span class="folded-name folded-closed">{show}</span>\n'
        f'<span class="folded-name folded-open">{hide}</span>\n</summary>\n'
    )


def depart_folded_cell(self: Any, node: nodes.Element) -> None:
    """Close a folded cell."""
    self.body.append("</details>\n")


def mend_markup(body: str) -> str:
    """A page's HTML without empty header cells and without roles that ARIA has given up."""
    body = re.sub(r'<th class="head">\s*(?:<p>\s*</p>)?\s*</th>', "<td></td>", body)
    for role in (' role="doc-biblioentry"', ' role="list"'):
        body = body.replace(role, "")
    return body


def set_page_frame(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Let the page open in the reader's own colours, and give it a title that names it once."""
    context["default_mode"] = "auto"
    context["project_title"] = app.config.html_title
    if "body" in context:
        context["body"] = mend_markup(context["body"])
    if pagename == app.config.root_doc:
        context["docstitle"] = ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_post_transform(NameSolutions)
    app.add_post_transform(MendOutputs)
    app.add_node(HideCodeCellNode, override=True, html=(visit_folded_cell, depart_folded_cell))
    app.connect("html-page-context", set_page_frame)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
