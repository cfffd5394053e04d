"""Keep out of the pages, and out of the built folder, what no page of this book uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

TEMPLATES = Path(__file__).parent / "templates"
UNUSED_ASSETS = ("design-tabs", "sphinx-thebe")
UNUSED_FILES = (
    "**/*.map",
    "scripts/fontawesome*",
    "design-tabs*",
    "images/logo_*",
    "locales/**/*.[mp]o",
    "*webpack-macros.html",
)


def use_lean_templates(app: Sphinx, config: Config) -> None:
    """Put our templates before the theme's: they leave out its icon script and its search on every page."""
    config.templates_path.insert(0, str(TEMPLATES))


def drop_unused_assets(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Unlink the scripts and styles of extensions that Jupyter Book always loads and this book never uses."""
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not is_unused(asset)]


def is_unused(asset: Any) -> bool:
    """Whether an entry of Sphinx's asset lists names a file that no page needs."""
    name = str(getattr(asset, "filename", asset) or "")
    return any(unused in name for unused in UNUSED_ASSETS)


def silence_thebe(app: Sphinx, config: Config) -> None:
    """Take the extension sphinx_thebe, which Jupyter Book always loads, out of the build.

    It writes the address of its script, on another host, and a Binder request into every page.
    """
    for event, listeners in app.events.listeners.items():
        app.events.listeners[event] = [one for one in listeners if one.handler.__module__ != "sphinx_thebe"]


def delete_unused_files(app: Sphinx, exception: Exception | None) -> None:
    """Remove source maps and unlinked scripts from the built folder."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    for pattern in UNUSED_FILES:
        for path in static.glob(pattern):
            if path.is_file():
                path.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("config-inited", use_lean_templates)
    app.connect("config-inited", silence_thebe)
    app.connect("html-page-context", drop_unused_assets, priority=900)
    app.connect("build-finished", delete_unused_files, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
