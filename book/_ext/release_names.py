"""Let pages name the repository and the release without repeating them.

`@repository@` and `@release@` in a `.md` page become what `_config.yml` says under `repository`.
"""

from __future__ import annotations

from sphinx.application import Sphinx


def fill_names(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace both names before a page is parsed, in code blocks too."""
    options = app.config.html_theme_options
    for name, option in (("@repository@", "repository_url"), ("@release@", "repository_branch")):
        if name in source[0]:
            source[0] = source[0].replace(name, options[option])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", fill_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
