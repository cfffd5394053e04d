"""Students' notebooks are run anew, within limits; the table says what passed, and why the rest did not."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from lessons_lib.exercises import grade as grading
from lessons_lib.exercises.grade import Grade, Standing, grade, main

ROOT = Path(__file__).resolve().parents[1]


def write(path: Path, *cells: Any) -> Path:
    """A notebook of these cells; a text is the source of a code cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = [new_code_cell(textwrap.dedent(cell)) if isinstance(cell, str) else cell for cell in cells]
    path.write_text(json.dumps(new_notebook(cells=made)), "utf-8")
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def written(path: Path, seconds: float = 100) -> str:
    """The content of a file that another process will write."""
    latest = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < latest, f"{path.name} was never written"
        time.sleep(0.1)
    return path.read_text("utf-8")


def ended(pids: list[int], seconds: float = 30) -> bool:
    latest = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < latest:
        time.sleep(0.1)
    return not any(map(alive, pids))


# A child, and one whose parent ends at once: it belongs to no tree any more. Then the kernel itself.
CHILDREN = """
import os, subprocess, sys
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
leave = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
leave += "start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(p.pid)"
orphan = int(subprocess.run([sys.executable, "-c", leave], capture_output=True, text=True).stdout)
written = Path({path!r} + ".part")
written.write_text(f"{{child.pid}} {{orphan}} {{os.getpid()}}")
written.rename({path!r})
"""


def children(path: Path) -> str:
    return CHILDREN.format(path=str(path))


# --- one run of the command, on a folder of notebooks ----------------------------------------------------------------

RISE_ONLY = """
import torch
def strongest_place(gradient):
    return tuple(int(i) for i in torch.unravel_index(gradient.argmax(), gradient.shape))
"""
SOLUTION = """# @title Solution
def {name}_solution(*anything):
    raise ValueError
check("{name}", {name}_solution, record={record})"""
CARD = "✓ Exercise {}: passed"


def lesson(path: Path) -> Path:
    """A student's notebook with a bit of everything; the numbers of its cells are those in the comments."""
    believed = new_code_cell('check("convolve", convolve)')
    believed.outputs = [new_output("display_data", {"text/plain": CARD.format("1.2")})]
    tagged = new_code_cell(
        SOLUTION.format(name="orientation_selectivity", record=True), metadata={"tags": ["solution"]}
    )
    return write(
        path,
        new_markdown_cell("# A lesson"),
        "from lessons_lib import check, hint",  # 1
        "def dead_fraction(maps):\n    return (maps.amax(dim=(0, 2, 3)) <= 0).float().mean().item()",
        "1 / 0",  # 3
        'check("dead_fraction", dead_fraction)',
        RISE_ONLY + 'check("strongest_place", strongest_place)',  # 5
        tagged,
        'def similarity(*both):\n    raise NotImplementedError("replace this line by your answer")',  # 7
        'hint("similarity")',
        'check("similarity", similarity)',  # 9
        "def convolve(images, filters)\n    return images",
        believed,  # 11
        SOLUTION.format(name="convolve", record=False),
        "from IPython.display import display\n"  # 13
        f'display({{"text/plain": "{CARD.format("1.3")}"}}, raw=True)\n'
        'later = lambda: check("to_pictures", later)',
        SOLUTION.format(name="capture", record=True),
        f"""
        import json, os
        from pathlib import Path
        Path({str(path.with_name("environment.json"))!r}).write_text(json.dumps(dict(os.environ)))
        Path("lesson.ipynb").write_text("changed")
        """,
        children(path.with_name("lesson.pids")),
    )


HOG = """
import time
held = []
for _ in range(50):
    held.append(b"x" * 2**26)
    time.sleep(0.05)
time.sleep(100)
"""


class Run:
    """What the command did with a folder of notebooks, and `grade` with one that never ends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.handed_in = folder, folder / "handed in"
        self.lesson = lesson(self.handed_in / "lesson.ipynb")
        self.before = self.lesson.read_bytes()
        write(self.handed_in / "greedy.ipynb", 'print("before")', HOG, 'check("capture", 1)')
        write(self.handed_in / "dying.ipynb", "1", "import os; os._exit(1)", 'check("capture", 1)')
        (self.handed_in / "letter.ipynb").write_text("Dear teacher, my dog has eaten it.")
        endless = write(
            folder / "endless.ipynb",
            "def work(): ...",
            new_code_cell("", metadata={"tags": ["solution"]}),
            new_code_cell("while True: pass", metadata={"tags": ["solution"]}),
            children(folder / "endless.pids") + "import time\nwhile True:\n    time.sleep(1)",
            'check("capture", work)',
        )
        self.home = folder / "home of the teacher"
        out = folder / "grades.csv"
        with ThreadPoolExecutor() as pool:
            stopped = pool.submit(lambda: list(grade([endless], minutes=0.4)))
            self.code = main([str(self.handed_in), "--out", str(out), "--memory-gib", "1.5", "--jobs", "2"])
            (self.stopped,) = stopped.result()
        self.rows = {row["notebook"]: row for row in table(out)}

    def standing(self, number: str) -> str:
        parts = self.rows["lesson.ipynb"]["exercises"].split("; ")
        return next((part.removeprefix(f"{number} ") for part in parts if part.startswith(f"{number} ")), "not listed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("grading")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LESSONS_DATA", "LESSONS_SPECIMEN"):
            patch.delenv(name, raising=False)
        patch.setenv("LESSONS_HOME", str(folder / "home of the teacher"))
        patch.setenv("LESSONS_STRICT", "1")
        patch.setenv("API_TOKEN", "secret")
        patch.setenv("https_proxy", "http://teacher:secret@proxy")
        patch.setenv("MPLBACKEND", "agg")
        yield Run(folder)


def test_every_notebook_has_a_row_and_the_command_ends_well(run: Run) -> None:
    assert run.code == 0
    assert set(run.rows) == {"lesson.ipynb", "greedy.ipynb", "dying.ipynb", "letter.ipynb"}
    assert run.rows["lesson.ipynb"]["result"] == "executed"


def test_a_right_answer_counts(run: Run) -> None:
    assert run.standing("2.2") == "passed"
    assert (run.rows["lesson.ipynb"]["passed"], run.rows["lesson.ipynb"]["of"]) == ("1", "5")


def test_a_wrong_answer_is_told_in_the_words_of_its_check(run: Run) -> None:
    assert run.standing("0.1").startswith("not passed: This is where the score rises most. A fall counts as much")


def test_a_stub_is_not_attempted_also_where_a_hint_was_asked_for(run: Run) -> None:
    assert run.standing("1.1") == "not attempted"


def test_a_check_whose_function_is_missing_is_told_and_its_stored_output_not_believed(run: Run) -> None:
    assert run.standing("1.2") == "not passed: its check did not run, NameError in cell 11"


def test_a_passed_that_was_only_displayed_does_not_count(run: Run) -> None:
    assert run.standing("1.3") == "not passed: its output says passed, but nothing was recorded"


@pytest.mark.parametrize("number", ["1.4", "2.1"], ids=["tagged", "by its title"])
def test_solutions_do_not_run(run: Run, number: str) -> None:
    assert run.standing(number) == "not listed"


def test_errors_are_counted_and_the_first_is_told(run: Run) -> None:
    row = run.rows["lesson.ipynb"]
    assert (row["errors"], row["first_error"]) == ("3", "cell 3: ZeroDivisionError")


def test_time_and_memory_are_told(run: Run) -> None:
    assert float(run.rows["lesson.ipynb"]["seconds"]) > 1
    assert 50 < int(run.rows["lesson.ipynb"]["peak_mib"]) < 1.5 * 1024


def test_a_notebook_that_never_ends_is_stopped_and_the_cell_is_told(run: Run) -> None:
    assert run.stopped.result == "stopped after 24 seconds: cell 3 was running"
    assert run.stopped.exercises == (Standing("2.1", "capture", "not reached"),)


def test_a_notebook_that_takes_too_much_memory_is_stopped(run: Run) -> None:
    assert run.rows["greedy.ipynb"]["result"] == "stopped: used more than 1.5 GiB: cell 2 was running"
    assert run.rows["greedy.ipynb"]["exercises"] == "2.1 not reached"


def test_a_kernel_that_dies_is_told(run: Run) -> None:
    assert run.rows["dying.ipynb"]["result"] == "stopped: the kernel died, cell 2 was running"


def test_a_file_that_is_no_notebook_is_told(run: Run) -> None:
    row = run.rows["letter.ipynb"]
    assert row["result"] == "not a notebook: not JSON any more from line 1 on"
    assert (row["passed"], row["of"], row["exercises"]) == ("0", "0", "")


@pytest.mark.parametrize("name", ["handed in/lesson.pids", "endless.pids"], ids=["at the end", "at the limit"])
def test_no_process_of_a_notebook_is_left(run: Run, name: str) -> None:
    pids = [int(pid) for pid in (run.folder / name).read_text().split()]
    assert len(pids) == 3 and not any(map(alive, pids))


def test_a_notebook_sees_nothing_of_the_teachers_environment(run: Run) -> None:
    text = (run.handed_in / "environment.json").read_text("utf-8")
    seen = json.loads(text)
    assert "secret" not in text
    assert not {"API_TOKEN", "https_proxy", "LESSONS_STRICT"} & set(seen)
    assert seen["LESSONS_SPECIMEN"] == "shapes"
    assert seen["MPLBACKEND"] != "agg"  # figures are shown in the notebook
    for name in ("HOME", "TMPDIR", "LESSONS_HOME"):
        assert seen[name] != os.environ.get(name)
        assert not Path(seen[name]).exists()  # it was temporary


def test_files_of_the_student_and_of_the_teacher_are_as_they_were(run: Run) -> None:
    assert run.lesson.read_bytes() == run.before
    assert {path.name for path in run.handed_in.iterdir()} == {
        *("lesson.ipynb", "greedy.ipynb", "dying.ipynb", "letter.ipynb"),
        *("environment.json", "lesson.pids"),
    }
    assert not run.home.exists()


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_keeps_the_rows_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "1.ipynb").write_text("")
    write(tmp_path / "2.ipynb", children(tmp_path / "pids") + "while True: pass")
    (tmp_path / "tmp").mkdir()
    command = [
        sys.executable,
        "-m",
        "lessons_lib.exercises.grade",
        str(tmp_path),
        "--out",
        str(tmp_path / "grades.csv"),
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    # What runs in the background of a shell ignores Ctrl-C, and so does what it starts.
    options: Any = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            pids = [int(pid) for pid in written(tmp_path / "pids").split()]
            process.send_signal(number)
            told = process.communicate(timeout=100)[1]
        finally:
            process.kill()
    assert ended(pids)
    assert [row["notebook"] for row in table(tmp_path / "grades.csv")] == ["1.ipynb"]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "Interrupted: 1 of 2 are in" in told
        assert list((tmp_path / "tmp").iterdir()) == []


# --- files that are not run --------------------------------------------------------------------------------------


def grade_of(path: Path) -> Grade:
    (found,) = grade([path])
    return found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a notebook: the file is empty"),
        (b'{"cells": [\n', "not a notebook: not JSON any more from line 2 on"),
        (b"\xff\xfe\xfd", "not a notebook: not JSON"),
        (b"[" * 100_000, "not a notebook: not JSON"),
        (b"[]", "not a notebook: JSON, but without the cells of one"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "not a notebook: JSON, but without the cells of one"),
        (b'{"nbformat": 3, "worksheets": []}', "a notebook of an old format: open it in JupyterLab and save it"),
        (
            b'{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "R"}}}',
            "not a notebook for Python, but for R",
        ),
    ],
)
def test_what_is_no_notebook_is_told_why(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "notebook.ipynb"
    path.write_bytes(content)
    assert grade_of(path) == Grade("notebook.ipynb", words)


def test_a_file_that_is_not_there_costs_no_other_its_row(tmp_path: Path) -> None:
    (tmp_path / "there.ipynb").write_text("")
    (tmp_path / "empty").mkdir()
    found = list(grade([tmp_path / "missing.ipynb", tmp_path / "there.ipynb", tmp_path / "empty"]))
    assert [(each.notebook, each.result) for each in found] == [
        ("missing.ipynb", "cannot be read: No such file or directory"),
        ("there.ipynb", "not a notebook: the file is empty"),
        ("empty", "no notebook in this folder"),
    ]


def test_notebooks_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    names = ("anna/one/05.ipynb", "ben/one/05.ipynb", "ben/06.ipynb", "ben/.ipynb_checkpoints/06.ipynb")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    twice = [tmp_path, tmp_path / names[2]]
    assert [each.notebook for each in grade(twice)] == ["anna/one/05.ipynb", "06.ipynb", "ben/one/05.ipynb"]


def test_the_table_holds_no_formula(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("=1+1.ipynb", "@sum.ipynb", "-1.ipynb", '"a", b.ipynb', "line\nbreak\x1b[2J.ipynb"):
        (tmp_path / name).write_text("")
    out = tmp_path / "grades.csv"
    assert main([str(tmp_path), "--out", str(out)]) == 0
    wanted = ['"a", b.ipynb', "'-1.ipynb", "'=1+1.ipynb", "'@sum.ipynb", "line break [2J.ipynb"]
    assert [row["notebook"] for row in table(out)] == wanted
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "0 of 5 executed; 5 not: " in told.out and "5 of 5: " in told.err


def test_words_that_begin_like_a_formula_are_harmless_in_every_column() -> None:
    for begin in "=+-@":
        row = Grade("a", f"\t{begin}x", first_error=f"{begin}x").row()
        assert (row["result"], row["first_error"]) == (f"'{begin}x", f"'{begin}x")


def test_settings_of_the_lessons_reach_a_notebook_whatever_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copies").mkdir()
    monkeypatch.setenv("LESSONS_DATA", "copies")
    monkeypatch.setenv("LESSONS_SPECIMEN", "cifar10")
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen = grading._environment(10_000)
    assert (seen["LESSONS_DATA"], seen["LESSONS_SPECIMEN"]) == (str(tmp_path / "copies"), "cifar10")
    assert str(tmp_path / "mine") in seen["PYTHONPATH"].split(os.pathsep)
    assert seen["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in grading._environment(1)


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--minutes", "0"], "minutes and memory must be above 0"),
        (["--minutes", "nan"], "minutes and memory must be above 0"),
        (["--memory-gib", "-1"], "minutes and memory must be above 0"),
        (["--jobs", "0"], "jobs must be 1 or more, not 0"),
        (["--out", "{}/missing/grades.csv"], "there is no folder"),
        (["--out", "{}"], "cannot be written: Is a directory"),
        (["--out", "{}/1.ipynb"], "is one of the notebooks"),
    ],
)
def test_options_that_make_no_sense_end_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    write(tmp_path / "1.ipynb", "1")
    before = (tmp_path / "1.ipynb").read_bytes()
    out = ["--out", str(tmp_path / "grades.csv")]
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *out, *(option.format(tmp_path) for option in options)])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["1.ipynb"]
    assert (tmp_path / "1.ipynb").read_bytes() == before


def test_no_notebooks_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--out", str(tmp_path / "grades.csv")])
    assert "there are no notebooks to grade" in capsys.readouterr().err


def test_local_data_that_are_missing_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(tmp_path / "missing"))
    with pytest.raises(SystemExit):
        main([str(write(tmp_path / "1.ipynb", "1")), "--out", str(tmp_path / "grades.csv")])
    assert "LESSONS_DATA is set to" in capsys.readouterr().err


def test_a_missing_package_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(grading, "find_spec", lambda name: None if name == "nbclient" else name)
    with pytest.raises(SystemExit) as ended:
        main([str(write(tmp_path / "1.ipynb", "1")), "--out", str(tmp_path / "grades.csv")])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "grading needs nbclient: pip install 'lessons_lib[grade]'\n"


def test_help_says_that_it_can_be_cheated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "can cheat it" in capsys.readouterr().out
    assert "can cheat it" in str(grading.__doc__)


def test_the_process_that_runs_a_notebook_needs_no_torch() -> None:
    heavy = ("torch", "nbclient", "nbformat", "psutil")
    code = f"import runpy, sys; runpy.run_path({grading.__file__!r}); print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


@pytest.mark.parametrize(
    ("minutes", "words"), [(3, "3 minutes"), (1, "1 minute"), (0.5, "30 seconds"), (1.5, "1.5 minutes")]
)
def test_times_are_told_as_people_say_them(minutes: float, words: str) -> None:
    assert grading._duration(minutes) == words
