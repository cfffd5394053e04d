"""Fill the API page: one section for each public module of `lessons_lib`, the ground floor first.

The docstrings are plain prose with `code` in single backticks, as they read best in an editor, without
sections of arguments: what reStructuredText wants different is changed here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature

MARKER = "<!-- modules -->"
# Read in this order, no module needs one that comes after it; a module not named here follows by name.
READING_ORDER = (
    "specimens",
    "squeezenet",
    "shapes",
    "augmentation",
    "datasets",
    "cifar10",
    "resnet",
    "hooks",
    "pixel_gradient",
    "targets",
    "filters",
    "activations",
    "maximization",
    "saliency",
    "gradcam",
    "fooling",
    "optimizers",
    "surfaces",
    "learning_rates",
    "landscape",
    "recipes",
    "training",
    "mistakes",
    "comparisons",
    "trust",
    "plots",
    "interactive",
    "exercises",
    "exercises.exercise",
)


def public_modules(package: Path) -> list[str]:
    """The names of the modules of `package` that do not start with an underscore, in reading order.

    Of the exercises, the engine: a page that spelled out what they ask for would spell out the answers.
    """
    names = sorted(path.stem for path in package.glob("*.py") if not path.stem.startswith("_"))
    names += [name for name in ("exercises", "exercises.exercise") if (package / "exercises").is_dir()]
    known = [name for name in READING_ORDER if name in names]
    return known + [name for name in names if name not in READING_ORDER]


def section(package: str, module: str) -> str:
    """The part of the page that documents one module."""
    lines = [f"## {module}", "", "```{eval-rst}", f".. automodule:: {package}.{module}", "   :members:", "```", ""]
    return "\n".join(lines)


def fill_api_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the marker of the API page by its sections, before the page is parsed."""
    if MARKER in source[0]:
        package = Path(app.srcdir) / "lessons_lib"
        modules = public_modules(package)
        source[0] = source[0].replace(MARKER, "\n".join(section(package.name, module) for module in modules))


def as_restructuredtext(lines: list[str]) -> list[str]:
    """The lines of a docstring with `code` as a literal and an indented example after a colon as a code block."""
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n".join(lines))
    text = re.sub(r"(?<!:):\n\n(?=[ ]{4}\S)", "::\n\n", text)
    return text.split("\n")


def rewrite_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Hand autodoc the docstring as reStructuredText."""
    lines[:] = as_restructuredtext(lines)


def skip_tuple_fields(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out "Alias for field number 0": the fields of a named tuple stand in its signature."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def restore_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: object, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    """What a subclass of a library that is only imitated here is made from: autodoc sees the imitation's arguments."""
    if what != "class" or signature != "(*args: Any, **kwargs: Any)":
        return None
    if "__init__" not in vars(obj):
        return "", None
    made_from = signature_of(obj.__init__, bound_method=True)
    return stringify_signature(made_from, show_return_annotation=False, unqualified_typehints=True), None


def outdate_api_page(app: Sphinx, env: object, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Read the API page again in every build: docstrings change without the page changing."""
    return [name for name in app.env.found_docs if name.rpartition("/")[2] == "api"]


def import_from_checkout(app: Sphinx) -> None:
    """Document the modules beside the book, not a copy installed elsewhere."""
    sys.path.insert(0, str(app.srcdir))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", import_from_checkout)
    app.connect("env-get-outdated", outdate_api_page)
    app.connect("source-read", fill_api_page)
    app.connect("autodoc-process-docstring", rewrite_docstring)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("autodoc-process-signature", restore_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
