"""The library behind How Convolutional Networks See: one module a chapter, and the specimens they study."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exercises import check as check
    from .exercises import hint as hint
    from .exercises import progress as progress
    from .specimens import load_specimen as load_specimen

__version__ = "1.0.0"
__all__ = ["__version__", "check", "hint", "load_specimen", "progress"]

_HOME_OF = {"load_specimen": "specimens", "check": "exercises", "hint": "exercises", "progress": "exercises"}


def __getattr__(name: str) -> Any:
    # Lazily, because torch takes seconds to import, and `import lessons_lib` should not.
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
