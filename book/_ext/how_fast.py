"""The directive `{how-fast} RECORD`: the tables of the page on speed, from what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SETTINGS = ((224, 1), (224, 16), (32, 1), (32, 16))  # side of the pictures in pixels, and how many at once


def told(cell: dict[str, Any]) -> str:
    """The ratio of one cell, and its memory: ours and theirs."""
    ratio = f"{cell['ratio']:.0f}" if cell["ratio"] >= 10 else f"{cell['ratio']:.2f}"
    return f"{ratio} ({cell['ours_mb']:.0f}, {cell['peer_mb']:.0f})"


def table(head: list[str], rows: list[list[str]]) -> nodes.table:
    """A plain table; the first column holds the names of the rows."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in head), cols=len(head))
    for kind, lines in ((nodes.thead, [head]), (nodes.tbody, rows)):
        part = kind()
        for line in lines:
            part += nodes.row("", *(nodes.entry("", nodes.paragraph("", text)) for text in line))
        group += part
    return nodes.table("", group)


class HowFast(SphinxDirective):
    """For each network a table of methods and settings, and what all of it was measured with."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the record."""
        path = Path(self.env.doc2path(self.env.docname)).parent / self.arguments[0]
        self.env.note_dependency(str(path))
        record = json.loads(path.read_text("utf-8"))
        cells = {(c["network"], c["method"], c["size"], c["batch"]): c for c in record["cells"]}
        found: list[nodes.Node] = []
        for network in dict.fromkeys(c["network"] for c in record["cells"]):
            head = [network, *(f"{size} px, {batch} at once" for size, batch in SETTINGS)]
            methods = dict.fromkeys(c["method"] for c in record["cells"] if c["network"] == network)
            rows = [[m, *(told(cells[network, m, *setting]) for setting in SETTINGS)] for m in methods]
            found.append(table(head, rows))
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        found.append(nodes.paragraph("", f"Measured {record['date']}: {record['machine']}; {versions}."))
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("how-fast", HowFast)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
