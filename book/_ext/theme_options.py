"""Change single options of the theme.

`html_theme_options` in `_config.yml` would replace everything that Jupyter Book derives from it,
the launch button included.
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.config import Config

OPTIONS = {
    # A second header with a second search field, above the theme's own.
    "navbar_persistent": [],
    "use_fullscreen_button": False,
    # The theme's default highlighting falls short of the contrast that small text needs.
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "search_bar_text": "Search this book",
    "show_toc_level": 2,
    "back_to_top_button": False,
    "toc_title": "On this page",
}


def set_options(app: Sphinx, config: Config) -> None:
    """Lay our options over those that Jupyter Book made from `_config.yml`."""
    config.html_theme_options.update(OPTIONS)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("config-inited", set_options)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
