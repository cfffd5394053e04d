"""Write the students' edition into build/student: the chapters without solutions and without outputs."""

from __future__ import annotations

import copy
import re
import sys
from functools import cache
from pathlib import Path

import notebooks
import yaml

STUDENT = notebooks.ROOT / "build" / "student"


def student_edition(notebook: notebooks.Notebook) -> notebooks.Notebook:
    """The notebook without the cells tagged `solution`, and without any output: what is shown is the student's own."""
    edition = copy.deepcopy(notebook)
    edition.cells = [cell for cell in edition.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in edition.cells:
        if cell.cell_type == "markdown":  # the pages of the book do not lie beside the students' notebooks
            cell.source = re.sub(r"\]\((\w+)\.(md|ipynb)(#[\w-]*)?\)", rf"]({_published()}book/\1.html\3)", cell.source)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("mystnb", None)
    edition.metadata.pop("made", None)
    return edition


@cache
def _published() -> str:
    """The address of the published book."""
    return str(yaml.safe_load((notebooks.ROOT / "_config.yml").read_text("utf-8"))["html"]["baseurl"])


def main(folder: Path = STUDENT) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(notebooks.CHAPTER_FILES):
        old.unlink()
    for path in notebooks.chapters():
        notebooks.write(student_edition(notebooks.read(path)), folder / path.name)
    print(f"The students' edition is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
