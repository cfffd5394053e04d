"""The buttons above a page: Colab as one plain link, and a download only where there is a notebook."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def arrange_buttons(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Unfold the menu with one entry into that entry, and drop the source download of plain pages."""
    is_notebook = context.get("page_source_suffix") == ".ipynb"
    buttons: list[dict[str, Any]] = []
    for button in context.get("header_buttons", []):
        if button.get("label") == "launch-buttons":
            buttons.extend(colab_button(entry) for entry in button["buttons"])
        elif button.get("label") != "download-buttons" or is_notebook:
            buttons.append(button)
    context["header_buttons"] = buttons


def colab_button(entry: dict[str, Any]) -> dict[str, Any]:
    """The theme's entry for Colab, with words that say what it does."""
    return {
        **entry,
        "text": "Open in Colab",
        "tooltip": "Run this chapter in Colab",
        "icon": "fas fa-rocket",
        "label": "launch-colab",
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    # The theme fills the list at priority 501.
    app.connect("html-page-context", arrange_buttons, priority=510)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
