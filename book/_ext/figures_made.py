"""The directive `{figures-made}`: what each chapter's stored figures were made with.

`make figures` records it in the notebook's metadata under "made"; this page only reads it, so that it
says what was true when the figures were made, not what is installed where the book is built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)
RECORDED = ("command", "specimen", "weights", "python", "packages", "machine", "seconds", "date", "sources")


def chapter_title(notebook: dict[str, Any]) -> str:
    """The first level-one heading of a notebook."""
    for cell in notebook.get("cells", []):
        if cell["cell_type"] == "markdown":
            for line in "".join(cell["source"]).splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return "Untitled chapter"


def rows(made: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What to print of a record: label, value, and whether the value is code."""
    weights = made.get("weights") or {}
    packages = ", ".join(f"{name} {version}" for name, version in (made.get("packages") or {}).items())
    seconds = made.get("seconds")
    table = [
        ("Command", made.get("command"), True),
        ("Specimen", made.get("specimen"), True),
        ("Weights", weights.get("name"), False),
        ("Weights from", weights.get("source"), False),
        ("Weights, SHA-256", weights.get("sha256"), True),
        ("Python", made.get("python"), False),
        ("Packages", packages, False),
        ("Machine", made.get("machine"), False),
        ("Running time", f"{seconds:.0f} seconds" if seconds is not None else None, False),
        ("Date", made.get("date"), False),
        ("Sources, hash", made.get("sources"), True),
    ]
    return [(label, str(value), code) for label, value, code in table if value]


def value_node(value: str, code: bool) -> nodes.Node:
    """A value as code, as a link when it is an address, or as text."""
    if code:
        return nodes.literal("", value)
    if value.startswith("https://"):
        return nodes.reference("", value, refuri=value)
    return nodes.Text(value)


class FiguresMade(SphinxDirective):
    """One section a chapter, with a field list of what its figures were made with."""

    def run(self) -> list[nodes.Node]:
        """Read every notebook of this folder; what a record lacks is a warning, and so fails a strict build."""
        self.env.note_reread()
        sections: list[nodes.Node] = []
        for path in sorted(Path(self.env.doc2path(self.env.docname)).parent.glob("*.ipynb")):
            self.env.note_dependency(str(path))
            sections.append(self.chapter(path))
        if not sections:
            sections.append(nodes.paragraph("", "No chapter has been executed yet."))
        return sections

    def chapter(self, path: Path) -> nodes.section:
        """The section of one notebook."""
        notebook = json.loads(path.read_text(encoding="utf-8"))
        made = notebook.get("metadata", {}).get("made") or {}
        missing = [name for name in RECORDED if not made.get(name)]
        if missing:
            LOGGER.warning(
                "%s does not record how its figures were made (%s missing): run make figures",
                path.name,
                ", ".join(missing),
                location=self.get_location(),
                type="figures_made",
            )
        title = chapter_title(notebook)
        section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(f"made-{path.stem}")])
        fields = nodes.field_list("", classes=["figures-made"])
        for label, value, code in rows(made):
            body = nodes.field_body("", nodes.paragraph("", "", value_node(value, code)))
            fields += nodes.field("", nodes.field_name("", label), body)
        section += fields
        return section


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("figures-made", FiguresMade)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
