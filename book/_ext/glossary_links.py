"""Let a notebook link to a word of the glossary by a plain link: `[softmax](glossary.md#softmax)`.

The role for terms would show raw in Colab. MyST resolves such links to headings only, so each term is
entered among the headings of its page; a word that the glossary lacks still fails a strict build.
"""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def enter_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Make each term of a glossary known under its words in lower case, joined by hyphens."""
    for glossary in doctree.findall(addnodes.glossary):
        slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
        for term in glossary.findall(nodes.term):
            text = term.astext()
            slugs["-".join(text.lower().split())] = (term.line, term["ids"][0], text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("doctree-read", enter_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
