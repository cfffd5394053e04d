"""Execute the chapters and store what they show, or only check that they run.

Without options: those whose code has changed, on the specimen the book shows. With `--chapter 05`: that one, changed
or not. With `--check --specimen imagenet-shuffled`: all of them on another specimen, and nothing is stored.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import notebooks
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell
from PIL import Image

from lessons_lib.downloads import FileUnavailable, obtain
from lessons_lib.specimens import SQUEEZENET_FILE

CELL_TIMEOUT_S = 300
LIKENESS = 1.0  # grey levels of 255, root mean square, by which a lighter figure may differ: nobody sees that
FOLDERS = ("LESSONS_DATA", "LESSONS_HOME")
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "matplotlib", "scikit-image", "lessons_lib")
# Runs in the chapter's own kernel behind its last cell: only the kernel knows which specimen it opened.
_ASK = "import json as _json, lessons_lib.specimens as _s; print(_json.dumps(_s.opened()))"


class WrongSpecimen(RuntimeError):
    """A chapter ran, but on another specimen than it was meant to."""


def execute(path: Path, specimen: str, *, long: bool = False) -> tuple[Any, list[dict[str, str]], float]:
    """Run a chapter from top to bottom; its notebook with outputs, the specimens it opened, and the seconds it took.

    With `long`, as the book's figures are made, galleries take the steps for which a reader would not want to wait.
    Raises CellExecutionError where a cell raises, WrongSpecimen where no specimen, or not `specimen`, was opened.
    """
    notebook = notebooks.read(path)
    notebook.cells.append(new_code_cell(_ASK))
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    start = time.perf_counter()
    # Strict: a solution that its own check refuses must not get into the book.
    settings = {"LESSONS_SPECIMEN": specimen, "LESSONS_STRICT": "1", "LESSONS_LONG": "1" if long else "0"}
    settings["TQDM_DISABLE"] = "1"  # bars are widgets, and move only with a kernel
    # A kernel runs in its chapter's folder, and a path in a setting is meant from here.
    folders = {name: str(Path(os.environ[name]).resolve()) for name in FOLDERS if os.environ.get(name)}
    client.execute(env=os.environ | folders | settings)
    seconds = time.perf_counter() - start
    opened = json.loads(notebook.cells.pop().outputs[0].text)
    expect_specimen(opened, specimen)
    return notebook, opened, seconds


def expect_specimen(opened: list[dict[str, str]], wanted: str) -> None:
    """Raises WrongSpecimen unless the first specimen that a chapter opened is `wanted`."""
    names = [record["specimen"] for record in opened]
    if not names or names[0] != wanted:
        raise WrongSpecimen(f"this was to run on {wanted!r}, but opened {', '.join(names) or 'no specimen'}")


def store(notebook: Any, opened: list[dict[str, str]], seconds: float, path: Path, sources: str = "") -> None:
    """Write an executed chapter with what it ran with; alt texts move to where Jupyter Book looks for them.

    `sources` is the fingerprint from before the run: code that is edited meanwhile did not make these outputs.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day: every run would be a new diff
        if "outputs" in cell:
            # What only lives with a kernel is for those who run the chapter, and would drag its scripts into the page.
            live = "live" in cell.metadata.get("tags", [])
            cell.outputs = [] if live else _joined(cell.outputs)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _lighter(output.data["image/png"])
            for kind, details in output.get("metadata", {}).items():
                if kind.startswith("image/") and details.get("alt"):
                    image = {"alt": details["alt"], "width": f"{details['width']}px"}
                    cell.metadata["mystnb"] = dict(cell.metadata.get("mystnb", {}), image=image)
        if "cover" in cell.metadata.get("tags", []):
            _write_cover(cell, path)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    notebook.metadata["made"] = {
        "command": f"make figures CHAPTER={path.name[:2]}",
        "specimen": opened[0]["specimen"],
        "weights": {key: opened[0][key] for key in ("name", "source", "sha256")},
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in RECORDED_PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "seconds": round(seconds, 1),
        "date": datetime.date.today().isoformat(),
        "sources": sources or notebooks.fingerprint(notebook),
    }
    notebooks.write(notebook, path)


def _write_cover(cell: Any, path: Path) -> None:
    """The figure of the cell tagged `cover` stands for the chapter on the first page: book/_static/covers/00.jpg."""
    data = {kind: content for output in cell.outputs for kind, content in output.get("data", {}).items()}
    kind = next((kind for kind in data if kind.startswith("image/")), None)
    if kind is None:
        raise ValueError(f"{path.name}: the cell tagged `cover` shows no figure")
    covers = path.parent / "_static" / "covers"
    covers.mkdir(parents=True, exist_ok=True)
    for old in covers.glob(f"{path.name[:2]}.*"):
        old.unlink()
    suffix = {"image/jpeg": "jpg", "image/png": "png"}[kind]
    (covers / f"{path.name[:2]}.{suffix}").write_bytes(base64.b64decode(data[kind]))


def _lighter(png: str) -> str:
    """The same figure, in base64, with as few colours as it takes: lines and letters need not have 256."""
    content = base64.b64decode(png)
    image = Image.open(BytesIO(content)).convert("RGB")
    pixels = np.asarray(image, float)
    for colours in (32, 64, 128):
        few = image.quantize(colours, kmeans=1, dither=Image.Dither.NONE)
        if np.sqrt(((np.asarray(few.convert("RGB"), float) - pixels) ** 2).mean()) <= LIKENESS:
            file = BytesIO()
            few.save(file, "png", optimize=True)
            return base64.b64encode(min(content, file.getvalue(), key=len)).decode()
    return png


def _joined(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of one stream as one: where the kernel cuts a stream is a matter of chance."""
    joined: list[Any] = []
    for output in outputs:
        before = joined[-1] if joined else None
        if before and output.output_type == before.output_type == "stream" and output.name == before.name:
            before.text += output.text
        else:
            joined.append(output)
    return joined


def _at_once(chosen: list[Path], options: argparse.Namespace) -> int:
    """Check several chapters at a time, each in a process of its own; the last first, which are the longest."""

    def check(path: Path) -> int:
        asked = ("--check", "--chapter", path.name[:2], "--folder", str(path.parent), "--specimen", options.specimen)
        ended = subprocess.run([sys.executable, __file__, *asked], capture_output=True, text=True)
        told = [line for line in ended.stdout.splitlines() if path.name in line]
        print("\n".join(told or [ended.stderr]), flush=True)
        return ended.returncode

    with ThreadPoolExecutor(options.jobs) as pool:
        failed = sum(code != 0 for code in pool.map(check, reversed(chosen)))
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chapter", default="", help="number of one chapter, run even if nothing has changed")
    parser.add_argument("--check", action="store_true", help="run and store nothing")
    parser.add_argument("--specimen", default="", help="with --check: the specimen to run on, instead of the book's")
    parser.add_argument("--folder", type=Path, default=notebooks.BOOK, help="with --check: another edition's chapters")
    parser.add_argument("--jobs", type=int, default=1, help="with --check: how many chapters run at a time")
    options = parser.parse_args(arguments)
    if not options.check and (options.specimen or options.folder != notebooks.BOOK or options.jobs != 1):
        parser.error("--specimen, --folder and --jobs go with --check: the book's figures are made one by one")
    if options.jobs < 1:
        parser.error(f"--jobs must be 1 or more, not {options.jobs}")
    try:
        chosen = notebooks.chapters(options.chapter, options.folder)
    except ValueError as error:
        parser.error(str(error))
    if options.jobs > 1:
        return _at_once(chosen, options)

    with contextlib.suppress(FileUnavailable):  # the chapter itself says what is missing, and what to do
        obtain(SQUEEZENET_FILE)  # now: in a chapter, the progress bar of a download would be stored as its output
    failed = 0
    for path in chosen:
        before = notebooks.read(path)
        sources = notebooks.fingerprint(before)
        current = before.metadata.get("made", {}).get("sources") == sources
        if current and not options.check and not options.chapter:
            print(f"{path.name}: nothing has changed")
            continue
        wanted = notebooks.wanted_specimen(before)
        specimen = options.specimen or wanted
        if specimen.startswith("imagenet") and wanted != "imagenet":
            specimen = wanted  # a chapter of another specimen has nothing to say of this one
        try:
            notebook, opened, seconds = execute(path, specimen, long=not options.check)
        except (CellExecutionError, WrongSpecimen, TimeoutError) as error:
            print(f"{path.name} on {specimen}: {error}", file=sys.stderr)
            failed += 1
            continue
        if not options.check:
            store(notebook, opened, seconds, path, sources)
        print(f"{path.name}: ran on {specimen} in {seconds:.0f} s")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
