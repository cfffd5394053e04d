"""The picture of a chapter: that of its cell tagged `cover`, which `make figures` puts into `_static/covers`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from sphinx.application import Sphinx

FOLDER = "_static/covers"
TALLEST = 0.72  # height by width: of a taller picture the top is shown, which is enough to know the chapter by


class Cover(NamedTuple):
    """A chapter's picture: the file, and the words that stand for it."""

    path: Path
    alt: str

    @property
    def number(self) -> str:
        """The chapter's number, as its files begin with it."""
        return self.path.stem


@cache
def cover_of(source: Path) -> Cover | None:
    """The picture of the chapter written in `source`; None for any other page, and where there is none."""
    if source.suffix != ".ipynb":
        return None
    found = sorted((source.parent / FOLDER).glob(f"{source.name[:2]}.*"))
    alt = alt_text(source)
    return Cover(found[0], alt) if found and alt else None


def alt_text(notebook: Path) -> str:
    """The words for the figure of the cell tagged `cover`; "" where no cell is."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        metadata = cell["metadata"]
        if "cover" in metadata.get("tags", []):
            return str(metadata.get("mystnb", {}).get("image", {}).get("alt", ""))
    return ""


def all_covers(app: Sphinx) -> list[Cover]:
    """The pictures of all chapters of the book, in order."""
    sources = sorted(Path(app.env.doc2path(name)) for name in app.env.found_docs)
    return [cover for source in sources if (cover := cover_of(source))]


def shown_part(cover: Cover) -> Image.Image:
    """The picture on white, without the lower part of a very tall one."""
    with Image.open(cover.path) as image:
        picture = image.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture)
    return ground.convert("RGB").crop((0, 0, ground.width, min(ground.height, round(ground.width * TALLEST))))


def fitted(size: tuple[int, int], into: tuple[int, int]) -> tuple[int, int]:
    """The largest width and height of the same shape that fit."""
    scale = min(into[0] / size[0], into[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
