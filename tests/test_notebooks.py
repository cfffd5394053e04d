"""The committed chapters are as they should be, and the checks that say so fail where they should."""

from __future__ import annotations

import base64
import copy
import re
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import figures
import nbformat
import notebooks
import numpy as np
import pytest
import student
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lessons_lib.exercises import all_exercises
from lessons_lib.exercises.diagnosis import STUB

CHAPTERS = notebooks.chapters()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_committed_chapter_has_no_problem(path: Path) -> None:
    assert notebooks.problems(path) == []


def test_all_chapters_together_stay_small() -> None:
    assert 0 < sum(path.stat().st_size for path in CHAPTERS) < notebooks.ALL_NOTEBOOKS_BYTES


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_keeps_the_shape_all_chapters_share(path: Path) -> None:
    cells = notebooks.read(path).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].source.startswith(f"# {int(path.name[:2])}. ")
    assert "colab.research.google.com" in cells[1].source
    assert "remove-cell" in cells[1].metadata.tags
    assert "setup" in code[0].metadata.tags
    assert re.search(r"\bload_(specimen\((usual=|\))|case\()", code[0].source)
    first_figure = next(i for i, c in enumerate(code) if any(output_kinds(c)))
    assert first_figure < 3
    shown = [
        cell.source for cell in code if not {"setup", "hide-input", "remove-input"} & set(cell.metadata.get("tags", []))
    ]
    assert [source for source in shown if len(source.splitlines()) > 15] == []
    assert [line for source in shown for line in source.splitlines() if len(line) > 80] == []  # the column of a page


def output_kinds(cell: Any) -> list[str]:
    return [kind for output in cell.outputs for kind in output.get("data", {}) if kind.startswith("image/")]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_solution_is_folded_everywhere(path: Path) -> None:
    cells = notebooks.read(path).cells
    solutions = [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]
    exercises = [cell for cell in cells if cell.cell_type == "markdown" and "## Exercise" in cell.source]
    assert len(solutions) == len(exercises)
    for cell in solutions:
        assert cell.source.startswith("# @title Solution")
        assert "hide-input" in cell.metadata.tags
        assert cell.metadata.jupyter.source_hidden
        assert cell.metadata.cellView == "form"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_exercise_is_a_prompt_a_stub_a_check_and_a_solution_that_passed(path: Path) -> None:
    number = int(path.name[:2])
    wanted = [exercise for exercise in all_exercises().values() if exercise.number.split(".")[0] == str(number)]
    cells = notebooks.read(path).cells
    starts = [i for i, c in enumerate(cells) if c.cell_type == "markdown" and re.match(r"#+ Exercise", c.source)]
    headings = [re.match(r"#+ Exercise (.*)", cells[i].source)[1] for i in starts]  # type: ignore[index]
    assert headings == [f"{exercise.number}: {exercise.title}" for exercise in wanted]
    for start, exercise in zip(starts, wanted, strict=True):
        assert re.search(r"\*\d+ minutes, (easy|medium|hard|Further)", cells[start].source), exercise.number
        code = [cell for cell in cells[start:] if cell.cell_type == "code"][:3]
        stub, check, solution = (cell.source for cell in code)
        assert stub.startswith(f"def {exercise.name}(") and stub.endswith(f'raise NotImplementedError("{STUB}")')
        assert f'"{exercise.name}"' in check and "check(" in check and "record=False" not in check
        assert f'"{exercise.name}"' in solution and "check(" in solution and "record=False" in solution
        told = ["".join(o.data.get("text/plain", "") for o in cell.outputs if "data" in o) for cell in code[1:]]
        assert told[0].startswith(f"○ Exercise {exercise.number}: not attempted yet")
        assert told[1].startswith(f"✓ Exercise {exercise.number}: passed")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_cell_but_a_solution_uses_what_a_solution_defines(path: Path) -> None:
    cells = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    solutions = [cell.source for cell in cells if "solution" in cell.metadata.get("tags", [])]
    others = "\n".join(cell.source for cell in cells if "solution" not in cell.metadata.get("tags", []))
    defined = {name for source in solutions for name in re.findall(r"^def (\w+)", source, re.M)}
    assert defined
    assert all(name.endswith("_solution") for name in defined)
    assert [name for name in defined if re.search(rf"\b{name}\b", others)] == []


# --- the checks, broken on purpose ----------------------------------------------------------------------------


def committed() -> Any:
    """A small notebook as `make figures` would commit it."""
    cell = new_code_cell("from lessons_lib.plots import subplots\nsubplots(alt='x')[0]", execution_count=1)
    pixel = base64.b64encode(b"not really a picture").decode()
    cell.outputs = [new_output("display_data", {"image/png": pixel}, metadata={})]
    cell.metadata["mystnb"] = {"image": {"alt": "An empty figure."}}
    notebook = new_notebook(cells=[new_markdown_cell("# 0. Words"), cell])
    notebook.metadata["made"] = {"sources": notebooks.fingerprint(notebook), "specimen": "imagenet"}
    return notebook


def problems_of(notebook: Any, tmp_path: Path) -> list[str]:
    notebooks.write(notebook, tmp_path / "00_words.ipynb")
    return notebooks.problems(tmp_path / "00_words.ipynb")


def test_a_notebook_without_a_fault_passes(tmp_path: Path) -> None:
    assert problems_of(committed(), tmp_path) == []


def spoil_code(notebook: Any) -> None:
    notebook.cells[1].source += "\nprint(1)"


def spoil_alt(notebook: Any) -> None:
    del notebook.cells[1].metadata["mystnb"]


def spoil_empty_alt(notebook: Any) -> None:
    notebook.cells[1].metadata["mystnb"]["image"]["alt"] = " "


def spoil_error(notebook: Any) -> None:
    notebook.cells[1].outputs.append(new_output("error", ename="ValueError", evalue="no", traceback=[]))


def spoil_stderr(notebook: Any) -> None:
    notebook.cells[1].outputs.append(new_output("stream", name="stderr", text="UserWarning: ..."))


def spoil_unrun(notebook: Any) -> None:
    notebook.cells[1].execution_count = None


def spoil_magic(notebook: Any) -> None:
    notebook.cells[1].source = "!ls"


def spoil_role(notebook: Any) -> None:
    notebook.cells[0].source = "As {cite:p}`simonyan2014` say."


def spoil_directive(notebook: Any) -> None:
    notebook.cells[0].source = "Words\n\n:::{note}\nRaw in Colab\n:::"


def spoil_picture(notebook: Any) -> None:
    notebook.cells[0].source = "![](cat.png)"


def spoil_img(notebook: Any) -> None:
    notebook.cells[0].source = '<img src="cat.png">'


def spoil_second_figure(notebook: Any) -> None:
    notebook.cells[1].outputs *= 2


def spoil_widget(notebook: Any) -> None:
    notebook.cells[1].outputs[0].data["application/vnd.jupyter.widget-view+json"] = {}


def spoil_tensor(notebook: Any) -> None:
    data = {"text/plain": "tensor([[0.1, 0.2]])"}
    notebook.cells[1].outputs.append(new_output("execute_result", data, execution_count=1))


def spoil_object(notebook: Any) -> None:
    data = {"text/plain": "<matplotlib.legend.Legend at 0x7f0123>"}
    notebook.cells[1].outputs.append(new_output("execute_result", data, execution_count=1))


def spoil_specimen(notebook: Any) -> None:
    notebook.metadata.made.specimen = "shapes"


def spoil_record(notebook: Any) -> None:
    del notebook.metadata["made"]


def spoil_size(notebook: Any) -> None:
    notebook.cells[0].source = "x" * 1_500_001


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_code, "stale"),
        (spoil_alt, "a figure without alt text"),
        (spoil_empty_alt, "a figure without alt text"),
        (spoil_error, "an error output, ValueError: no"),
        (spoil_stderr, "words on stderr"),
        (spoil_unrun, "never run"),
        (spoil_magic, "% or ! outside the setup cell"),
        (spoil_role, "a directive or role"),
        (spoil_directive, "a directive or role"),
        (spoil_picture, "a picture without alt text"),
        (spoil_img, "a picture without alt text"),
        (spoil_second_figure, "2 figures in one cell"),
        (spoil_widget, "a stored widget"),
        (spoil_tensor, "stands last, 'tensor("),
        (spoil_object, "stands last, '<matplotlib"),
        (spoil_specimen, "its figures show shapes, the book shows imagenet"),
        (spoil_record, "does not say what its figures were made with"),
        (spoil_size, "more than 1,500,000"),
    ],
)
def test_a_fault_is_found_and_named(spoil: Callable[[Any], None], words: str, tmp_path: Path) -> None:
    notebook = committed()
    spoil(notebook)
    assert any(words in problem for problem in problems_of(notebook, tmp_path))


# --- what makes an output stale -------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "lessons_lib"
    folder.mkdir()
    (folder / "__init__.py").write_text('_HOME_OF = {"load_specimen": "specimens"}\n')
    (folder / "specimens.py").write_text("from .hooks import Capture\n\n\ndef load_specimen():\n    return Capture\n")
    (folder / "hooks.py").write_text('"""Words."""\n\n\ndef Capture():\n    """More words."""\n    return 1  # one\n')
    (folder / "plots.py").write_text("WIDTH = 6\n")
    return folder


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_code_reached_through_other_modules_makes_outputs_stale(library: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell("from lessons_lib import load_specimen\nload_specimen()")])
    before = notebooks.fingerprint(notebook, library)
    edited(library / "plots.py", "6", "7")
    assert notebooks.fingerprint(notebook, library) == before, "plots is not reached from these cells"
    edited(library / "hooks.py", '"""More words."""', '"""Other words,\n    two lines of them."""')
    edited(library / "hooks.py", "# one", "# the number one")
    assert notebooks.fingerprint(notebook, library) == before, "words alone change no figure"
    edited(library / "hooks.py", "return 1", "return 2")
    assert notebooks.fingerprint(notebook, library) != before


def test_an_exercise_that_a_chapter_checks_is_part_of_what_its_outputs_are_made_from(library: Path) -> None:
    folder = library / "exercises"
    folder.mkdir()
    (library / "__init__.py").write_text('_HOME_OF = {"check": "exercises"}\n')
    (folder / "__init__.py").write_text("from .report import show\n\n\ndef check(*arguments):\n    show()\n")
    (folder / "report.py").write_text("from ..plots import WIDTH\n\n\ndef show():\n    print(WIDTH)\n")
    (folder / "words.py").write_text('EXERCISES = (dict(name="count", hint="one"),)\n')
    (folder / "others.py").write_text('EXERCISES = (dict(name="others"),)\n')
    notebook = new_notebook(cells=[new_code_cell('from lessons_lib import check\ncheck("count", len)')])
    before = notebooks.fingerprint(notebook, library)
    edited(folder / "others.py", "others", "another")
    assert notebooks.fingerprint(notebook, library) == before, "this chapter does not check that exercise"
    seen = [before]
    for path, old, new in (("words.py", "one", "two"), ("report.py", "WIDTH)", "2 * WIDTH)")):
        edited(folder / path, old, new)
        seen.append(notebooks.fingerprint(notebook, library))
    edited(library / "plots.py", "6", "7")
    seen.append(notebooks.fingerprint(notebook, library))
    assert len(set(seen)) == 4


def test_data_that_a_reached_module_reads_makes_outputs_stale(library: Path) -> None:
    (library / "categories.txt").write_text("cat")
    edited(library / "plots.py", "6", "'categories.txt'")
    notebook = new_notebook(cells=[new_code_cell("from lessons_lib import load_specimen")])
    before = notebooks.fingerprint(notebook, library)
    (library / "categories.txt").write_text("dog")
    assert notebooks.fingerprint(notebook, library) == before, "plots is not reached from this cell"
    edited(library / "hooks.py", "return 1", "return 'categories.txt'")
    before = notebooks.fingerprint(notebook, library)
    (library / "categories.txt").write_text("cup")
    assert notebooks.fingerprint(notebook, library) != before


def test_new_weights_make_the_outputs_of_their_specimen_stale(library: Path) -> None:
    (library / "weights").mkdir()
    (library / "weights" / "shapes.safetensors").write_bytes(b"old")
    photographs = new_notebook(cells=[new_code_cell("x = 1")])
    shapes = new_notebook(cells=[new_code_cell("x = 1")], metadata={"specimen": "shapes"})
    before = [notebooks.fingerprint(notebook, library) for notebook in (photographs, shapes)]
    (library / "weights" / "shapes.safetensors").write_bytes(b"new")
    after = [notebooks.fingerprint(notebook, library) for notebook in (photographs, shapes)]
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    "cell",
    ['recorded("race")', 'recorded_run("race")', 'open("recorded/race.json")', 'open("recorded/cars/race.json")'],
)
def test_a_new_record_makes_the_outputs_that_show_it_stale(library: Path, cell: str) -> None:
    record = library / "recorded" / "cars" / "race.json"
    record.parent.mkdir(parents=True)
    record.write_text("1")
    shown = new_notebook(cells=[new_code_cell(cell)])
    other = new_notebook(cells=[new_code_cell('recorded("another race")')])
    before = [notebooks.fingerprint(notebook, library) for notebook in (shown, other)]
    record.write_text("2")
    after = [notebooks.fingerprint(notebook, library) for notebook in (shown, other)]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_new_release_alone_makes_nothing_stale(library: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell("from lessons_lib import load_specimen")])
    before = notebooks.fingerprint(notebook, library)
    (library / "__init__.py").write_text('__version__ = "9"\n' + (library / "__init__.py").read_text())
    assert notebooks.fingerprint(notebook, library) == before


def test_a_changed_cell_makes_outputs_stale_but_a_comment_and_prose_do_not(library: Path) -> None:
    def of(code: str, prose: str = "Words") -> str:
        return notebooks.fingerprint(new_notebook(cells=[new_markdown_cell(prose), new_code_cell(code)]), library)

    assert of("x = 1") == of("x = 1  # why") == of("\nx = 1\n", "Other words")
    assert of("x = 1") != of("x = 2")
    assert of('x = "# no comment"') != of('x = "#"')
    assert of("%pip install a\nx = 1") == of("%pip install b\nx = 1"), "the setup's install line draws nothing"


# --- running ---------------------------------------------------------------------------------------------------


def chapter_with(tmp_path: Path, *sources: str) -> Path:
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    notebooks.write(notebook, tmp_path / "00_words.ipynb")
    return tmp_path / "00_words.ipynb"


OPEN = "from lessons_lib import load_specimen\nspecimen = load_specimen()"


def test_a_chapter_is_executed_and_stored_with_what_it_ran_with(tmp_path: Path) -> None:
    path = chapter_with(
        tmp_path,
        OPEN,
        # pyplot registers a display of its own for figures, which knows no alt text
        "import matplotlib.pyplot\n"
        "from lessons_lib.plots import image_grid\nimage_grid([specimen.example('clear')], alt='One picture.')",
    )
    notebook, opened, seconds = figures.execute(path, "shapes")
    figures.store(notebook, opened, seconds, path)
    stored = notebooks.read(path)
    assert len(stored.cells) == 2
    assert notebooks.alt_text(stored.cells[1]) == "One picture."
    assert len(output_kinds(stored.cells[1])) == 1
    made = stored.metadata.made
    assert (made.specimen, made.command) == ("shapes", "make figures CHAPTER=00")
    assert len(made.weights.sha256) == 64
    assert "torch" in made.packages
    assert notebooks.problems(path) == ["its figures show shapes, the book shows imagenet"]
    assert "execution" not in stored.cells[0].metadata
    assert made.sources == notebooks.fingerprint(stored)


def test_a_relative_folder_in_a_setting_is_meant_from_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LESSONS_DATA", "data")
    monkeypatch.setenv("LESSONS_HOME", "home")
    path = chapter_with(
        tmp_path / "book", OPEN, "import os\nprint(os.environ['LESSONS_DATA'], os.environ['LESSONS_HOME'])"
    )
    notebook, _, _ = figures.execute(path, "shapes")
    assert notebook.cells[1].outputs[0].text.split() == [str(tmp_path / "data"), str(tmp_path / "home")]


def test_a_cell_that_raises_fails_the_run_and_leaves_the_notebook(tmp_path: Path) -> None:
    path = chapter_with(tmp_path, OPEN, "assert specimen.name == 'no such'")
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="AssertionError"):
        figures.execute(path, "shapes")
    assert path.read_bytes() == before


def test_a_cell_that_raises_fails_under_nbval_too(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, source in ((good, "assert True"), (bad, "assert False")):
        folder.mkdir()
        chapter_with(folder, source)
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "-c", "/dev/null", folder],
            capture_output=True,
            text=True,
        )
        assert (ended.returncode == 0) == (folder == good), ended.stdout


@pytest.mark.parametrize("opened", [[], [{"specimen": "shapes"}], [{"specimen": "shapes"}, {"specimen": "imagenet"}]])
def test_a_run_on_the_wrong_specimen_is_refused(opened: list[dict[str, str]]) -> None:
    with pytest.raises(figures.WrongSpecimen, match="was to run on 'imagenet'"):
        figures.expect_specimen(opened, "imagenet")
    figures.expect_specimen([{"specimen": "imagenet"}, {"specimen": "shapes"}], "imagenet")


def test_a_chapter_of_another_specimen_runs_on_its_own_instead_of_imagenet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = chapter_with(tmp_path, OPEN)
    notebook = notebooks.read(path)
    notebook.metadata["specimen"] = "shapes-tagged"
    notebooks.write(notebook, path)
    monkeypatch.setattr(notebooks, "chapters", lambda number, folder: [path])
    for asked, told in (
        ("imagenet", "ran on shapes-tagged in"),
        ("imagenet-shuffled", "ran on shapes-tagged in"),
        ("shapes", "ran on shapes in"),
    ):
        assert figures.main(["--check", "--specimen", asked]) == 0
        assert told in capsys.readouterr().out


def test_chapters_of_another_folder_are_checked_several_at_a_time(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chapter_with(tmp_path, OPEN).rename(tmp_path / "01_more.ipynb")
    chapter_with(tmp_path, OPEN, "assert specimen.name == 'no such'")
    asked = ["--check", "--jobs", "2", "--specimen", "shapes", "--folder", str(tmp_path)]
    assert figures.main(asked) == 1
    told = capfd.readouterr().out
    assert "01_more.ipynb: ran on shapes in" in told and "AssertionError" in told
    assert told.endswith("1 passed, 1 failed\n")


@pytest.mark.parametrize(
    ("asked", "words"),
    [(["--jobs", "2"], "go with --check"), (["--check", "--jobs", "0"], "--jobs must be 1 or more, not 0")],
)
def test_options_that_make_no_sense_are_refused(
    asked: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        figures.main(asked)
    assert words in capsys.readouterr().err


def test_a_figure_is_stored_with_as_few_colours_as_it_takes(tmp_path: Path) -> None:
    path = chapter_with(
        tmp_path,
        OPEN,
        "from lessons_lib.plots import subplots\nfigure, axes = subplots(alt='A line.')\naxes.plot([0, 1])\nfigure",
        "from lessons_lib.plots import image_grid\nimport torch\n"
        "weights = torch.rand(96, 3, 7, 7)\nimage_grid(weights, alt='Weights.', columns=12)",
    )
    notebook, opened, seconds = figures.execute(path, "shapes")
    exact = [cell.outputs[-1].data["image/png"] for cell in notebook.cells[1:]]
    figures.store(notebook, opened, seconds, path)
    line, weights = (cell.outputs[-1].data["image/png"] for cell in notebooks.read(path).cells[1:])
    assert len(line) < len(exact[0])
    before, after = (
        np.asarray(Image.open(BytesIO(base64.b64decode(png))).convert("RGB"), float) for png in (exact[0], line)
    )
    assert np.sqrt(((after - before) ** 2).mean()) <= figures.LIKENESS
    assert weights.split() == exact[1].split(), "of many colours none may be lost"


def test_a_chapter_that_insists_on_another_specimen_fails_the_run(tmp_path: Path) -> None:
    path = chapter_with(tmp_path, 'from lessons_lib import load_specimen\nload_specimen("shapes")')
    with pytest.raises(figures.WrongSpecimen, match="opened shapes"):
        figures.execute(path, "imagenet")


def test_a_chapter_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="chapter '77' does not exist: there are 00"):
        notebooks.chapters("77")
    assert notebooks.chapters("0") == notebooks.chapters("00") == CHAPTERS[:1]


# --- the students' edition -------------------------------------------------------------------------------------


def test_nothing_of_a_solution_is_left_in_the_students_edition(tmp_path: Path) -> None:
    student.main(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in CHAPTERS]
    for path in CHAPTERS:
        text = (tmp_path / path.name).read_text("utf-8")
        solutions = [c for c in notebooks.read(path).cells if "solution" in c.metadata.get("tags", [])]
        edition = nbformat.read(tmp_path / path.name, as_version=4)
        left = {line.strip() for cell in edition.cells for line in cell.source.splitlines()}
        assert "_solution" not in text
        for cell in solutions:
            lines = cell.source.split("\ncheck(")[0].splitlines()  # the call of the check stands elsewhere too
            telling = [line.strip() for line in lines if len(line.strip()) > 12]
            assert telling
            assert [line for line in telling if line in left] == []
        assert not any(cell.get("outputs") for cell in edition.cells)
        assert len(edition.cells) == len(notebooks.read(path).cells) - len(solutions)


def test_links_of_the_students_edition_lead_to_the_published_book() -> None:
    source = "[a](glossary.md#logit) [b](01_filters.ipynb) [c](https://arxiv.org/abs/1312.6034)"
    (cell,) = student.student_edition(new_notebook(cells=[new_markdown_cell(source)])).cells
    assert "github.io" in cell.source
    assert "book/glossary.html#logit)" in cell.source
    assert "book/01_filters.html)" in cell.source
    assert "(https://arxiv.org/abs/1312.6034)" in cell.source


def test_the_students_edition_does_not_change_the_chapter() -> None:
    notebook = notebooks.read(CHAPTERS[0])
    before = copy.deepcopy(notebook)
    student.student_edition(notebook)
    assert notebook == before
