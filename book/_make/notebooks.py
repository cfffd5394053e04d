"""What is true of every committed notebook: where it is, what it was made from, and what must never be in it."""

from __future__ import annotations

import ast
import hashlib
import io
import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
LIBRARY = ROOT / "lessons_lib"
CHAPTER_FILES = "[0-9][0-9]_*.ipynb"
NOTEBOOK_BYTES = 1_500_000
ALL_NOTEBOOKS_BYTES = 12_000_000

Notebook = Any


def chapters(number: str = "", folder: Path = BOOK) -> list[Path]:
    """The chapters' notebooks in order, or the one with this number ("5" or "05"). Raises ValueError for no such."""
    found = sorted(folder.glob(CHAPTER_FILES))
    if not number:
        return found
    chosen = [path for path in found if path.name.startswith(f"{number:0>2}_")]
    if not chosen:
        raise ValueError(f"chapter {number!r} does not exist: there are {', '.join(p.name[:2] for p in found)}")
    return chosen


def read(path: Path) -> Notebook:
    """The notebook, validated."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def write(notebook: Notebook, path: Path) -> None:
    """Write in one move, so that an interruption leaves the old notebook whole."""
    nbformat.validate(notebook)
    temporary = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


def wanted_specimen(notebook: Notebook) -> str:
    """The specimen that the book shows this chapter on: `imagenet`, unless its metadata names another."""
    return str(notebook.metadata.get("specimen", "imagenet"))


# --- what a notebook's outputs were made from -------------------------------------------------------------------


def fingerprint(notebook: Notebook, library: Path = LIBRARY) -> str:
    """A hash of the code cells and of every module of `lessons_lib` they reach; comments and docstrings aside.

    The weights in the package count too, where the notebook shows a specimen that they belong to, and every record that
    its cells read, as `recorded("name")`, `recorded_run("name")` or by its path.
    """
    sources = [_without_magics(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(_bare(source).encode() + b"\0")
    for module in sorted(_reached("\n".join(sources), library)):
        text = module.read_text("utf-8")
        digest.update(module.name.encode() + b"\0" + _bare(text).encode() + b"\0")
        for data in sorted(library.glob("*.txt")):  # the names of categories, for instance
            if data.name in text:
                digest.update(data.read_bytes() + b"\0")
    named = re.findall(r'\brecorded(?:_run)?(?:\("|/)([\w/]+)', "\n".join(sources))
    records = {name.rpartition("/")[2] for name in named}
    for record in sorted((library / "recorded").rglob("*.json")):
        if record.stem in records:
            digest.update(record.read_bytes() + b"\0")
    weights = library / "weights" / f"{wanted_specimen(notebook)}.safetensors"
    if weights.is_file():
        digest.update(weights.read_bytes())
    return digest.hexdigest()[:16]


def _reached(source: str, library: Path) -> set[Path]:
    """The library's modules that `source` imports, and those that they import in turn."""
    reached: set[Path] = set()
    waiting = list(_imported(source, library))
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting.extend(_imported(module.read_text("utf-8"), library, module.parent))
    return reached


def _imported(source: str, library: Path, package: Path | None = None) -> Iterator[Path]:
    """What `source` imports of `library`; `package` is the folder where `source` lies, the library itself if None."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name.removeprefix("lessons_lib.") for alias in node.names if "lessons_lib" in alias.name]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # from . import x, from .x import y, from ..x import y
                folder = [package or library, library][node.level - 1].relative_to(library).parts
                names = ["/".join((*folder, name)) for name in ([module] if module else [a.name for a in node.names])]
            elif module == "lessons_lib":
                # The root hands names out lazily: which module each is from is written in the root itself.
                names = [_home_of(alias.name, library) for alias in node.names]
            elif module.startswith("lessons_lib."):
                names = [module.removeprefix("lessons_lib.")]
        elif isinstance(node, ast.Call):
            names = _exercises_of(node, library)
        for name in names:
            for path in (library / f"{name.replace('.', '/')}.py", library / name.replace(".", "/") / "__init__.py"):
                if path.is_file():
                    yield path


def _exercises_of(call: ast.Call, library: Path) -> list[str]:
    """The module that holds the exercise named in `check("name", ...)`: found when it runs, not imported."""
    function = getattr(call.func, "id", getattr(call.func, "attr", ""))
    named = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
    if function not in ("check", "hint") or not named or not isinstance(named[0], ast.Constant):
        return []
    mark = f'name="{named[0].value}"'
    modules = (library / "exercises").glob("*.py")
    return [f"exercises/{module.stem}" for module in modules if mark in module.read_text("utf-8")]


def _home_of(name: str, library: Path) -> str:
    found = re.search(rf'"{name}": "(\w+)"', (library / "__init__.py").read_text("utf-8"))
    return found[1] if found else name


def _without_magics(source: str) -> str:
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)


def _bare(source: str) -> str:
    """The code without comments, docstrings and blank lines; the same text on every version of Python."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                for number in range(first.lineno - 1, first.end_lineno or first.lineno):
                    lines[number] = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(line.rstrip() for line in lines if line.strip())


# --- what must hold ---------------------------------------------------------------------------------------------


def problems(path: Path) -> list[str]:
    """What is wrong with a committed notebook, in words; an empty list is what is wanted."""
    notebook = read(path)
    found = list(_cell_problems(notebook))
    made = notebook.metadata.get("made", {})
    if not made:
        found.append("it does not say what its figures were made with: run `make figures`")
    elif made.get("sources") != fingerprint(notebook):
        found.append("its outputs are stale, the code has changed since: run `make figures`")
    elif made.get("specimen") != wanted_specimen(notebook):
        found.append(f"its figures show {made.get('specimen')}, the book shows {wanted_specimen(notebook)}")
    if path.stat().st_size > NOTEBOOK_BYTES:
        found.append(f"it has {path.stat().st_size:,} bytes, more than {NOTEBOOK_BYTES:,}")
    return found


def _cell_problems(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells):
        where = f"cell {number}"
        if cell.cell_type == "markdown":
            if re.search(r"^\s*(:::|(```+|~~~+)\s*\{)|\{[a-z][\w:-]*\}`", cell.source, re.M):
                yield f"{where}: a directive or role, which Colab would show raw"
            for picture in re.findall(r"!\[\s*\]\(|<img\b[^>]*>", cell.source):
                if not re.search(r"""alt=["'][^"']*\w""", picture):
                    yield f"{where}: a picture without alt text"
            continue
        if cell.cell_type != "code":
            yield f"{where}: a {cell.cell_type} cell, which readers do not see"
            continue
        tags = cell.metadata.get("tags", [])
        if "setup" not in tags and re.search(r"^\s*[%!]", cell.source, re.M):
            yield f"{where}: % or ! outside the setup cell, which the tests could not see fail"
        if cell.execution_count is None and cell.source.strip():
            yield f"{where}: it was never run"
        figures = 0
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{where}: an error output, {output.ename}: {output.evalue}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"{where}: words on stderr, {output.text[:80]!r}"
            data = output.get("data", {})
            if any("widget" in kind for kind in data):
                yield f"{where}: a stored widget, which pulls 1.9 MB of script into the page"
            if re.search(r"^(<.* at 0x|[\[(]*tensor\()", data.get("text/plain", "")) and len(data) == 1:
                yield f"{where}: a value shown because it stands last, {data['text/plain'][:40]!r}: print or assign it"
            if any(kind.startswith("image/") for kind in data):
                figures += 1
                if not alt_text(cell).strip():
                    yield f"{where}: a figure without alt text"
        if figures > 1:
            yield f"{where}: {figures} figures in one cell, which has one alt text"


def alt_text(cell: Any) -> str:
    """The words that stand for the figure of this cell in the book."""
    return str(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""))
