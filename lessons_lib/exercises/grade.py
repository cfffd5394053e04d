"""Grade students' notebooks: run each anew, within limits, and write a table of which exercises pass, and why not.

Formative: for feedback, not for marks that matter. A notebook runs code of the student's, with the rights of whoever
runs the command, and a determined student can cheat it. Grade strangers' notebooks on a machine that you can lose.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import secrets
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# At the top only what is quick to import: the process that runs a notebook starts with this file, and needs no torch.

_EPILOG = """
Formative: a notebook runs code of the student's, with the rights of whoever runs this command, and a determined student
can cheat it. Use it for feedback, not for marks that matter, and grade strangers' notebooks on a machine that you can
lose. The limits are against mistakes (endless loops, tensors that are too large), not against malice.

Each notebook runs in a folder and a LESSONS_HOME of its own, without your environment variables and without its
solution cells; the student's file and your own progress stay as they are. It runs on the specimen "shapes" unless
LESSONS_SPECIMEN names another; LESSONS_DATA may name a folder of local copies, so that not every notebook downloads
them. `%pip install` in a notebook is refused: install what the chapters use before, `lessons_lib[grade,peers]`. What
counts is what `check` records in this run: outputs that are stored in the file do not. Cells are numbered as Jupyter
numbers them when all are run.
"""
_NEEDED = ("nbclient", "nbformat", "psutil", "ipykernel")
# What a notebook sees of the teacher's environment: where programs and libraries are, the language, the lessons' data.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "OMP_NUM_THREADS")
_MARK = "LESSONS_GRADED"  # in the environment of every process of a notebook, also of those that left its tree
_POLL_S = 0.25
_END_S = 10.0
_COLUMNS = ("notebook", "result", "passed", "of", "seconds", "peak_mib", "errors", "first_error", "exercises")


def grade(
    paths: Sequence[Path], *, minutes: float = 10.0, memory_gib: float = 4.0, jobs: int = 1
) -> Generator[Grade, None, None]:
    """Run notebooks, `jobs` at a time, and give each one's grade as soon as it is there.

    A folder stands for all notebooks below it. `minutes` limits a whole notebook, `memory_gib` what its processes
    together hold in memory, in GiB. A file that is no notebook gets a grade too, which says so. Raises ValueError for
    numbers out of range or where there are no notebooks, FileNotFoundError where LESSONS_DATA is no folder, and
    ModuleNotFoundError where a package is missing.
    """
    if not minutes > 0 or not memory_gib > 0:
        raise ValueError(f"minutes and memory must be above 0, not {minutes:g} and {memory_gib:g}")
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, not {jobs}")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"grading needs {', '.join(missing)}: pip install 'lessons_lib[grade]'")
    found = notebooks_of(paths)
    if all(path.is_dir() for path in found):
        raise ValueError("there are no notebooks to grade: name files, or folders with files that end in .ipynb")
    conditions = _Conditions(minutes, memory_gib, _environment(jobs), threading.Event())
    return _side_by_side(dict(zip(_names(found), found, strict=True)), conditions, jobs)


def notebooks_of(paths: Sequence[Path]) -> list[Path]:
    """The files that are meant, each once: for a folder the notebooks below it, or itself where there are none."""
    found: dict[str, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            below = (file for file in path.rglob("*.ipynb") if file.is_file())
            # Jupyter's own copies, .ipynb_checkpoints, lie in hidden folders.
            shown = [file for file in below if not any(part[0] == "." for part in file.relative_to(path).parts)]
            inside = sorted(shown) or [path]
        found |= {os.path.abspath(file): file for file in inside}
    return list(found.values())


@dataclass(frozen=True)
class Standing:
    """How an exercise stands: `state` is "passed", "not passed" (`words` say why), "not attempted" or "not reached"."""

    number: str
    name: str
    state: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.number} {self.state}" + (f": {self.words}" if self.words else "")


@dataclass(frozen=True)
class Grade:
    """What came of one notebook: `result` is "executed", or why it was not, or not to its end.

    `seconds` is how long it ran, `peak_mib` the most that its processes held in memory at once, in MiB, `errors` how
    many cells raised, and `first_error` which did first and what.
    """

    notebook: str
    result: str
    exercises: tuple[Standing, ...] = ()
    seconds: float = 0.0
    peak_mib: int = 0
    errors: int = 0
    first_error: str = ""

    @property
    def executed(self) -> bool:
        """Whether all cells ran."""
        return self.result == "executed"

    @property
    def passed(self) -> int:
        """How many exercises passed."""
        return sum(standing.state == "passed" for standing in self.exercises)

    def row(self) -> dict[str, str | int | float]:
        """The row of the table, with nothing in it that a spreadsheet would take for a formula."""
        row: dict[str, str | int | float] = {
            "notebook": self.notebook,
            "result": self.result,
            "passed": self.passed,
            "of": len(self.exercises),
            "seconds": round(self.seconds, 1),
            "peak_mib": self.peak_mib,
            "errors": self.errors,
            "first_error": self.first_error,
            "exercises": "; ".join(map(str, self.exercises)),
        }
        return {name: _harmless(value) if isinstance(value, str) else value for name, value in row.items()}


def _harmless(text: str) -> str:
    text = _one_line(text)
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def _one_line(text: str) -> str:
    """Without line breaks, and without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of the files; where two are the same, with as many of their folders as tell them apart."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    depths = [1] * len(parts)
    while True:
        names = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        times = Counter(names)
        if len(times) == len(names):
            return names
        depths = [depth + (times[name] > 1) for name, depth in zip(names, depths, strict=True)]


# --- what it is run in -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Conditions:
    minutes: float
    memory_gib: float
    environment: dict[str, str]
    stop: threading.Event


def _environment(jobs: int) -> dict[str, str]:
    """What all notebooks see: no secret of the teacher's, and nothing that makes one machine differ from another."""
    from ..downloads import data_folder

    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}
    kept["LESSONS_SPECIMEN"] = os.environ.get("LESSONS_SPECIMEN") or "shapes"
    folder = data_folder()
    if folder is not None:
        kept["LESSONS_DATA"] = os.path.abspath(folder)
    if jobs > 1:
        kept.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // jobs, 1)))
    # A notebook has another working folder and another HOME: relative paths, and what is installed for this user only,
    # would not be found from there.
    library = str(Path(__file__).resolve().parents[2])
    own = [] if library in site.getsitepackages() else [library]
    own += [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if own:
        kept["PYTHONPATH"] = os.pathsep.join(own)
    if site.ENABLE_USER_SITE:
        kept["PYTHONUSERBASE"] = site.getuserbase()
    # No such program: `%pip install` in a notebook ends with an error, and leaves the teacher's packages alone.
    kept["PIP_PYTHON"] = "no-installation-while-grading"
    return kept


def _side_by_side(paths: dict[str, Path], conditions: _Conditions, jobs: int) -> Generator[Grade, None, None]:
    pool = ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(_grade_one, name, path, conditions): name for name, path in paths.items()}
        while waiting:
            # Again and again: on Windows, Ctrl-C does not reach a wait without an end.
            done = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED).done
            for future in [future for future in waiting if future in done]:
                del waiting[future]
                yield future.result()
    finally:
        conditions.stop.set()
        pool.shutdown(cancel_futures=True)


def _grade_one(name: str, path: Path, conditions: _Conditions) -> Grade:
    try:
        cells = _read(path)
    except _NoNotebook as problem:
        return Grade(name, str(problem))
    try:
        # What cannot be removed, such as a folder that the notebook has locked, must not cost the other grades.
        with tempfile.TemporaryDirectory(prefix="lessons-grade-", ignore_cleanup_errors=True) as folder:
            return _run(name, cells, Path(folder), conditions)
    except Exception as error:
        return Grade(name, _one_line(f"could not be run: {type(error).__name__}: {error}"))


# --- reading a notebook ------------------------------------------------------------------------------------------


class _NoNotebook(Exception):
    """The file cannot be graded; the message says why, for the table."""


@dataclass(frozen=True)
class _Cell:
    """A code cell, numbered as Jupyter numbers it when all are run."""

    number: int
    source: str

    @property
    def checks(self) -> list[str]:
        """The names handed to `check`; also where the cell is no valid Python."""
        return re.findall(r"""\bcheck\(\s*(?:name\s*=\s*)?["'](\w+)["']""", self.source)

    @property
    def counts(self) -> bool:
        """Whether its checks are meant to be recorded."""
        return not re.search(r"\brecord\s*=\s*False", self.source)


def _read(path: Path) -> list[_Cell]:
    """The code cells, less the solutions. Raises _NoNotebook."""
    try:
        if path.is_dir():
            raise _NoNotebook("no notebook in this folder")
        if path.exists() and not path.is_file():
            raise _NoNotebook("not a notebook: no ordinary file")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _NoNotebook(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not content.strip():
        raise _NoNotebook("not a notebook: the file is empty")
    try:
        notebook = json.loads(content)
    except json.JSONDecodeError as error:
        raise _NoNotebook(f"not a notebook: not JSON any more from line {error.lineno} on") from None
    except (ValueError, RecursionError):
        raise _NoNotebook("not a notebook: not JSON") from None
    try:
        return _code_cells(notebook)
    except (KeyError, TypeError, AttributeError):
        raise _NoNotebook("not a notebook: JSON, but without the cells of one") from None


def _code_cells(notebook: Any) -> list[_Cell]:
    if notebook["nbformat"] < 4:
        raise _NoNotebook("a notebook of an old format: open it in JupyterLab and save it")
    kernel = notebook.get("metadata", {}).get("kernelspec", {}).get("language", "python")
    if kernel != "python":
        raise _NoNotebook(_one_line(f"not a notebook for Python, but for {kernel}"))
    cells: list[_Cell] = []
    number = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or not source.strip():
            continue
        number += 1
        tags = cell.get("metadata", {}).get("tags") or ()
        # The title as well as the tag: not every editor keeps tags.
        if "solution" not in tags and not source.startswith("# @title Solution"):
            cells.append(_Cell(number, source))
    return cells


# --- running it, watched from outside ----------------------------------------------------------------------------


def _run(name: str, cells: list[_Cell], folder: Path, conditions: _Conditions) -> Grade:
    environment, mark = dict(conditions.environment), secrets.token_hex()
    places = {"HOME": "home", "USERPROFILE": "home", "LESSONS_HOME": "lessons", "TMPDIR": "tmp", "TEMP": "tmp"}
    for variable, place in (places | {"TMP": "tmp"}).items():
        (folder / place).mkdir(exist_ok=True)
        environment[variable] = str(folder / place)
    (folder / "work").mkdir()
    (folder / "sources.json").write_text(json.dumps([cell.source for cell in cells]), "utf-8")
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, "--one", str(folder)],
        cwd=folder / "work",
        env=environment | {_MARK: mark},
        stdin=subprocess.PIPE,  # its end tells the process that this one is gone
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    tree = _Tree(process.pid, mark)
    try:
        reason, peak = _watch(process, tree, conditions)
    finally:
        tree.end()
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_END_S)
    seconds = time.monotonic() - begin
    story = _Story.read(folder / "events.jsonl", cells)
    if story.end == "executed":  # the limit was reached only when all was done
        reason = ""
    if reason:
        reason += f": {story.running} was running" if story.running else ": no cell was running"
    record = _record(folder / "lessons" / "progress.json")
    errors = [f"cell {cell.number}: {story.errors[cell.number]}" for cell in cells if cell.number in story.errors]
    return Grade(
        notebook=name,
        result=reason or story.end or f"stopped: its process was ended from outside ({process.returncode})",
        exercises=tuple(_standings(cells, story, record)),
        seconds=seconds,
        peak_mib=math.ceil(peak / 2**20),
        errors=len(errors),
        first_error=errors[0] if errors else "",
    )


def _watch(process: subprocess.Popen[bytes], tree: _Tree, conditions: _Conditions) -> tuple[str, int]:
    """Why it must be stopped, in words, or nothing where it has ended; and the most memory it held, in bytes."""
    latest, peak = time.monotonic() + 60 * conditions.minutes, 0
    while process.poll() is None:
        # Not the address space (RLIMIT_AS): to import torch alone reserves gigabytes of that.
        peak = max(peak, tree.memory())
        if peak > conditions.memory_gib * 2**30:
            return f"stopped: used more than {conditions.memory_gib:g} GiB", peak
        if time.monotonic() > latest:
            return f"stopped after {_duration(conditions.minutes)}", peak
        if conditions.stop.wait(_POLL_S):
            return "stopped: interrupted", peak
    return "", peak


def _duration(minutes: float) -> str:
    value, unit = (minutes, "minute") if minutes >= 1 else (60 * minutes, "second")
    return f"{value:g} {unit}{'s' * (value != 1)}"


class _Tree:
    """The processes of one notebook. What was once seen belongs to it, also when its parent has ended before it."""

    def __init__(self, root: int, mark: str) -> None:
        import psutil

        self._gone: type[Exception] = psutil.Error
        self._mark = mark
        self._seen: set[Any] = set()
        with suppress(psutil.Error):
            self._seen.add(psutil.Process(root))

    def memory(self) -> int:
        """How many bytes they hold in memory; pages that several share count for each."""
        self._look()
        total = 0
        for process in self._seen:
            with suppress(self._gone):
                total += process.memory_info().rss
        return total

    def end(self) -> None:
        """End them all, but never this process."""
        latest = time.monotonic() + _END_S
        while time.monotonic() < latest:
            self._look()
            self._look_for_mark()
            others = [process for process in self._seen if process.pid != os.getpid()]
            if not others:
                return
            for process in others:
                with suppress(self._gone):
                    process.kill()
            time.sleep(0.02)

    def _look(self) -> None:
        known: set[Any] = set()
        for process in self._seen:
            if process not in known and self._lives(process):
                known.add(process)
                with suppress(self._gone):
                    known.update(process.children(recursive=True))
        self._seen = {process for process in known if self._lives(process)}

    def _look_for_mark(self) -> None:
        import psutil

        for pid in psutil.pids():
            with suppress(psutil.Error, OSError):
                process = psutil.Process(pid)
                if process.environ().get(_MARK) == self._mark and self._lives(process):
                    self._seen.add(process)

    def _lives(self, process: Any) -> bool:
        try:
            return process.is_running() and process.status() != "zombie"
        except self._gone:
            return False


# --- what came of it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Story:
    """What happened, cell by cell: `running` names a cell that did not end, `end` says how all ended.

    By the number of the cell: its exception in `errors`, what `check` told in `told`, none for a cell that did not end.
    """

    end: str
    running: str
    errors: dict[int, str]
    told: dict[int, list[str]]

    @classmethod
    def read(cls, path: Path, cells: list[_Cell]) -> _Story:
        end, running, errors, told = "", "", dict[int, str](), dict[int, list[str]]()
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        for line in lines:
            with suppress(ValueError):  # a last line that was cut short
                event = json.loads(line)
                if "end" in event:
                    end = event["end"]
                elif "died" in event:
                    end = f"stopped: the kernel died, {running or 'no cell'} was running"
                elif "begun" in event:
                    running = f"cell {cells[event['begun']].number}"
                else:
                    number, running = cells[event["done"]].number, ""
                    told[number] = event["told"]
                    if event["error"]:
                        errors[number] = event["error"]
        return cls(end, running, errors, told)


def _record(path: Path) -> dict[str, Any]:
    """The record that `check` kept; empty where the notebook has spoilt it."""
    try:
        return dict(json.loads(path.read_text("utf-8"))["exercises"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _standings(cells: list[_Cell], story: _Story, record: dict[str, Any]) -> Iterator[Standing]:
    """The exercises that the notebook checks, in the order of their numbers."""
    from . import all_exercises
    from .record import count

    named = {name for cell in cells for name in cell.checks}
    for name, exercise in all_exercises().items():
        if name in named:
            own = [cell for cell in cells if name in cell.checks]
            entry = record.get(name)
            entry = entry if isinstance(entry, dict) else {}
            if entry.get("passed"):
                state, words = "passed", ""
            else:
                state, words = _not_passed(exercise.number, own, story, attempted=count(entry, "attempts") > 0)
            yield Standing(exercise.number, name, state, words)


def _not_passed(number: str, cells: list[_Cell], story: _Story, *, attempted: bool) -> tuple[str, str]:
    """How an exercise stands that has not passed, by what was told in the cells that check it."""
    if not any(cell.counts for cell in cells):
        return "not passed", "its check does not count, because of record=False"
    done = [cell for cell in cells if cell.counts and cell.number in story.told]
    heads, words = [], ""
    for card in [card for cell in done for card in story.told[cell.number]]:
        head, _, rest = card.partition("\n")
        if match := re.match(rf"\S Exercise {re.escape(number)}(?:: (.*))?$", head):
            heads.append(match[1] or "not yet")
            words = _one_line(rest.partition("\n")[0]) if heads[-1] == "not yet" else words
    if attempted or "not yet" in heads:
        return "not passed", words
    if "passed" in heads:
        return "not passed", "its output says passed, but nothing was recorded"
    if heads:
        return "not attempted", ""
    if not done:
        return "not reached", ""
    for cell in done:
        if cell.number in story.errors:
            return "not passed", f"its check did not run, {story.errors[cell.number]} in cell {cell.number}"
    return "not attempted", ""


# --- the process that runs one notebook --------------------------------------------------------------------------


def _execute(folder: Path) -> None:
    """Run the cells of `sources.json`, and note in `events.jsonl` each one's begin and end, as they happen."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from nbclient import NotebookClient
    from nbclient.exceptions import DeadKernelError
    from nbformat.v4 import new_code_cell, new_notebook

    sources = json.loads((folder / "sources.json").read_text("utf-8"))
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    with (folder / "events.jsonl").open("w", encoding="utf-8") as file:

        def note(**event: Any) -> None:
            print(json.dumps(event), file=file, flush=True)

        def begun(cell: Any, cell_index: int) -> None:
            note(begun=cell_index)

        def done(cell: Any, cell_index: int, execute_reply: Any) -> None:
            note(done=cell_index, error=_error(execute_reply["content"]), told=_cards(cell.outputs))

        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=None,  # that of the whole notebook is the parent's to keep
            startup_timeout=600,
            iopub_timeout=60,
            allow_errors=True,
            shutdown_kernel="immediate",
            resources={"metadata": {"path": str(folder / "work")}},
            on_cell_execute=begun,
            on_cell_executed=done,
        )
        try:
            client.execute()
            note(end="executed")
        except DeadKernelError:
            note(died=True)
        except Exception as error:
            note(end=_one_line(f"could not be run: {type(error).__name__}: {error}")[:300])


def _error(reply: Any) -> str:
    """The name of the exception that a cell ended with, or nothing."""
    return _one_line(str(reply.get("ename", "error")))[:100] if reply["status"] == "error" else ""


def _cards(outputs: Any) -> list[str]:
    """The beginnings of what `check` displayed in a cell."""
    texts = [output.data.get("text/plain", "") for output in outputs if output.output_type == "display_data"]
    return [str(text)[:1000] for text in texts if re.match(r"\S Exercise \d", str(text))]


def _end_with_parent() -> None:
    """Wait for the end of the process that grades, however it ends: nobody else would stop an endless loop."""
    while os.read(0, 1):
        pass
    _Tree(os.getpid(), os.environ[_MARK]).end()
    os._exit(1)


# --- the command -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lessons_lib.exercises.grade",
        description="Run students' notebooks and write a table of which exercises pass, and why others do not.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "notebooks", nargs="+", type=Path, metavar="NOTEBOOK", help="notebooks, or folders with notebooks"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("grades.csv"), help="the table (default: grades.csv); an older one is replaced"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="limit for a whole notebook (default: 10)")
    parser.add_argument(
        "--memory-gib", type=float, default=4.0, help="limit for the memory of one, of all its processes (default: 4)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="notebooks side by side, each with these limits (default: 1)"
    )
    asked = parser.parse_args(arguments)
    if os.path.abspath(asked.out) in map(os.path.abspath, notebooks_of(asked.notebooks)):
        parser.error(f"--out {asked.out} is one of the notebooks")
    if not asked.out.parent.is_dir():
        parser.error(f"--out: there is no folder {asked.out.parent}")
    try:
        grades = grade(asked.notebooks, minutes=asked.minutes, memory_gib=asked.memory_gib, jobs=asked.jobs)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    except ModuleNotFoundError as error:
        parser.exit(1, f"{error}\n")
    try:
        # Spreadsheets read UTF-8 as such only behind a mark at its beginning.
        file = asked.out.open("w", newline="", encoding="utf-8-sig")
    except OSError as error:
        parser.error(f"--out {asked.out} cannot be written: {error.strerror or error}")
    total = len(notebooks_of(asked.notebooks))
    finished: list[Grade] = []
    try:
        with file, closing(grades):
            table = csv.DictWriter(file, _COLUMNS)
            table.writeheader()
            file.flush()
            for each in grades:
                table.writerow(each.row())
                file.flush()  # an interruption loses nothing of what is done
                finished.append(each)
                print(f"{len(finished)} of {total}: {_told(each)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"Interrupted: {len(finished)} of {total} are in {asked.out}", file=sys.stderr)
        return 130
    others = [f"{_one_line(each.notebook)} ({each.result})" for each in finished if not each.executed]
    print(f"{total - len(others)} of {total} executed" + f"; {len(others)} not: {', '.join(others)}" * bool(others))
    print(f"The table is in {asked.out}")
    return 0


def _told(each: Grade) -> str:
    errors = f", {each.errors} cell{'s' * (each.errors != 1)} with errors" if each.errors else ""
    came = f"{each.passed} of {len(each.exercises)} passed, {each.seconds:.0f} s{errors}"
    return _one_line(f"{each.notebook}: {came}" + ("" if each.executed else f"; {each.result}"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _execute(Path(sys.argv[2]))
        sys.exit()
    sys.exit(main())
