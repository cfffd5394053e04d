"""Questions, flipbooks and live exploration where readers meet them: in the book, in JupyterLab, in Colab's frames.

Colab itself is out of reach: its output frame is emulated, a sandboxed frame of another origin that gets each output
as a string and makes its scripts anew. JupyterLab is the real one, with a kernel. Needs a Chromium, see conftest.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import built_pages
import nbformat
import numpy as np
import psutil
import pytest
from browsing import Visit, axe_violations, opened, overflow, served
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from playwright.sync_api import TimeoutError as PlaywrightTimeout

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Run by this file for the outputs that are stored, and by JupyterLab's kernel for those that are live.
MAKE = """\
import torch

from lessons_lib.interactive import explore, flipbook, question
from lessons_lib.plots import image_grid

across = torch.linspace(0, 1, 224).expand(224, 224)
steps = [torch.stack([across, across.T, torch.full_like(across, blue)]) for blue in (0.0, 0.25, 0.5, 0.75, 1.0)]
grid = torch.rand(2, 3, 3, 7, 7, generator=torch.Generator().manual_seed(0))
asked = question("What does `conv1` see?", [
    ("Dogs", False, "No, they come later."), ("Edges", True, "Lines and spots too."), ("Nothing", False, "Look again.")
])
stepwise = flipbook(steps, {"step": ["1", "2", "3", "4", "5"]}, alt="Ramps of colour")
layered = flipbook(grid, {"layer": ["conv1", "fire2"], "channel": ["3", "7", "11"]}, alt="Noise")
"""
MADE: dict[str, Any] = {}
exec(MAKE, MADE)
STEPS = [frame.permute(1, 2, 0).numpy() for frame in MADE["steps"]]
GRID = [frame.permute(1, 2, 0).numpy() for frame in MADE["grid"].flatten(0, 1)]

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}


def stored(output: Any) -> Any:
    """A cell that has been run and shows `output`."""
    shown = {"text/html": output.html, "text/plain": output.words}
    result = new_output("execute_result", data=shown, execution_count=1)
    return new_code_cell("print", execution_count=1, outputs=[result])


def stored_outputs() -> list[Any]:
    return [stored(MADE[name]) for name in ("asked", "stepwise", "layered")]


@dataclass
class Place:
    """A page that shows a question and two flipbooks, somewhere in it."""

    page: Any
    question: Any
    stepwise: Any
    layered: Any
    visit: Visit
    touch: bool = False

    def press(self, element: Any, **options: Any) -> None:
        """With the finger or the mouse."""
        if self.touch:
            element.tap(**options)
        else:
            element.click(**options)

    def press_at(self, slider: Any, position: int, count: int) -> None:
        """The place on the slider where its knob is at a position, counted from 0."""
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        x = box["x"] + 12 + (box["width"] - 24) * position / (count - 1)
        press = self.page.touchscreen.tap if self.touch else self.page.mouse.click
        press(x, box["y"] + box["height"] / 2)


def seen(flipbook: Any, frames: list[np.ndarray]) -> int:
    """Which of `frames` the reader sees; fails where it is none of them."""
    picture = flipbook.locator("img")
    picture.evaluate("e => { e.scrollIntoView({block: 'center'}); return e.decode() }")
    shot = thumbnail(Image.open(BytesIO(picture.screenshot())))
    distances = [np.abs(shot - thumbnail(Image.fromarray((frame * 255).astype(np.uint8)))).mean() for frame in frames]
    nearest = int(np.argmin(distances))
    assert distances[nearest] < 5 < min(distance for place, distance in enumerate(distances) if place != nearest)
    return nearest


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((7, 7), Image.Resampling.BOX), dtype=float)


# The book -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a chapter with stored outputs, one of them twice."""
    folder = tmp_path_factory.mktemp("book")
    cells = [new_markdown_cell("# A chapter\n\nText."), *stored_outputs(), stored(MADE["stepwise"])]
    toc = "chapters:\n  - file: book/00_start\n"
    source = built_pages.small_book(folder / "source", "# A page\n", toc, new_notebook(cells=cells, metadata=KERNEL))
    result = built_pages.run_jupyter_book(source, folder)
    assert result.returncode == 0, result.stderr
    with served(folder / "_build" / "html") as address:
        yield f"{address}book/00_start.html"


@contextmanager
def place_in_book(browser: Any, book: str, width: int, theme: str, **options: Any) -> Iterator[Place]:
    touch = width < 600
    with opened(browser, book, width=width, theme=theme, has_touch=touch, **options) as (page, visit):
        flipbooks = page.locator(".lessons-flipbook")
        yield Place(page, page.locator(".lessons-question"), flipbooks.nth(0), flipbooks.nth(1), visit, touch)


# JupyterLab -----------------------------------------------------------------------------------------------

KERNEL_IS_READY = """() => {
    const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
EXPLORE = "explore(lambda step: image_grid([steps[step]], alt='Ramps'), step=range(5))"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab with a trusted notebook, and an untrusted copy of it."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("config", "data", "runtime", "settings", "workspaces", "ipython", "notebooks"):
        (folder / name).mkdir()
    settings = {f"JUPYTER_{name.upper()}_DIR": str(folder / name) for name in ("config", "data", "runtime")}
    settings |= {f"JUPYTERLAB_{name.upper()}_DIR": str(folder / name) for name in ("settings", "workspaces")}
    live = new_code_cell(f"{MAKE}\ndisplay(asked, stepwise, layered)\n{EXPLORE}")
    notebook = new_notebook(cells=[live, *stored_outputs()], metadata=KERNEL)
    NotebookNotary(data_dir=str(folder / "data")).sign(notebook)
    nbformat.write(notebook, folder / "notebooks" / "trusted.ipynb")
    notebook.cells.append(new_markdown_cell("Changed by somebody else."))
    nbformat.write(notebook, folder / "notebooks" / "untrusted.ipynb")

    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    command += [f"--ServerApp.root_dir={folder / 'notebooks'}", "--LabApp.expose_app_in_browser=True"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    environment = {**os.environ, **settings, "IPYTHONDIR": str(folder / "ipython")}
    with (folder / "log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status", server, folder / "log")
        yield f"http://127.0.0.1:{port}/lab/"
    finally:
        end(server)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen[Any], log: Path, seconds: float = 60) -> None:
    """Until the server answers; fails with the end of its log where it ends, or keeps silent."""
    latest = time.monotonic() + seconds
    while time.monotonic() < latest and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text('utf-8')[-2000:]}")


def end(server: subprocess.Popen[Any]) -> None:
    """End a server with its kernels, which are not in its process group."""
    family = [server]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += psutil.Process(server.pid).children(recursive=True)
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(15)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait(15)


@pytest.fixture(scope="module")
def lab_page(browser: Any, lab: str) -> Iterator[tuple[Any, Visit]]:
    """The trusted notebook, all of it in view, its first cell run by a kernel."""
    with opened(browser, f"{lab}tree/trusted.ipynb") as (page, visit):
        page.set_viewport_size({"width": 1280, "height": 6000})  # cells out of sight are not in the page
        page.wait_for_selector(".lessons-question")
        # Not the indicator of the page: it is idle before there is a kernel, and what is run then is lost.
        page.wait_for_function(KERNEL_IS_READY, timeout=60_000)
        page.locator(".jp-Cell .jp-InputPrompt").first.click()
        page.evaluate("void jupyterapp.commands.execute('notebook:run-cell')")
        try:
            page.wait_for_selector(".widget-html img", timeout=60_000)
        except PlaywrightTimeout:
            told = [one.inner_text()[-300:] for one in page.locator(".jp-Cell, .jp-Dialog").all()]
            pytest.fail(f"JupyterLab does not draw what the first cell explores: {told}")
        yield page, visit


def place_in_lab(page: Any, visit: Visit, *, live: bool, theme: str) -> Place:
    page.evaluate(f"jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
    page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {theme}']", state="attached")
    first = 0 if live else 1
    flipbooks = page.locator(".lessons-flipbook")
    return Place(
        page,
        page.locator(".lessons-question").nth(first),
        flipbooks.nth(2 * first),
        flipbooks.nth(2 * first + 1),
        visit,
    )


# Colab ----------------------------------------------------------------------------------------------------

OUTPUT_FRAME = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Output</title>
<link rel="icon" href="data:,"><style>
body { margin: 0; font: 14px/1.43 sans-serif; background: #fff; color: #212121 }
html[theme=dark] body { background: #383838; color: #d5d5d5; color-scheme: dark }
</style></head><body><div id="output-area"></div><script>
addEventListener("message", ({ data }) => {
  document.documentElement.setAttribute("theme", data.theme);
  const area = document.querySelector("#output-area");
  area.innerHTML = data.html;
  for (const old of area.querySelectorAll("script")) {
    const script = document.createElement("script");
    script.textContent = old.textContent;
    old.replaceWith(script);
  }
});
</script></body></html>"""

NOTEBOOK = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Notebook</title>
<link rel="icon" href="data:,"><style>body { margin: 0 } iframe { border: 0; width: 100%; height: 700px }</style>
</head><body><script>
for (const html of OUTPUTS) {
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts allow-same-origin allow-forms allow-popups";
  frame.src = "FRAME";
  frame.onload = () => frame.contentWindow.postMessage({ html, theme: "THEME" }, "*");
  document.body.append(frame);
}
</script></body></html>"""


@contextmanager
def place_in_colab(browser: Any, folder: Path, *, width: int, theme: str) -> Iterator[Place]:
    (folder / "frame.html").write_text(OUTPUT_FRAME, encoding="utf-8")
    outputs = json.dumps([MADE[name].html for name in ("asked", "stepwise", "layered")]).replace("</", "<\\/")
    with served(folder) as notebook, served(folder) as frames:
        page = NOTEBOOK.replace("FRAME", f"{frames}frame.html").replace("THEME", theme).replace("OUTPUTS", outputs)
        (folder / "index.html").write_text(page, encoding="utf-8")
        touch = width < 600
        with opened(browser, f"{notebook}index.html", width=width, theme=theme, has_touch=touch, also=frames) as (
            page,
            visit,
        ):
            cells = [page.frame_locator("iframe").nth(number) for number in range(3)]
            question = cells[0].locator(".lessons-question")
            yield Place(page, question, *(cell.locator(".lessons-flipbook") for cell in cells[1:]), visit, touch)


# What holds in all of them --------------------------------------------------------------------------------

PLACES = ["book, phone, dark", "book, light", "lab, stored, light", "lab, live, dark", "colab, phone, dark", "colab"]


@pytest.fixture(scope="module", params=PLACES)
def opened_place(request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    width, theme = 360 if "phone" in request.param else 1280, "dark" if "dark" in request.param else "light"
    if request.param.startswith("lab"):
        page, visit = request.getfixturevalue("lab_page")
        yield place_in_lab(page, visit, live="live" in request.param, theme=theme.title())
    elif request.param.startswith("colab"):
        with place_in_colab(browser, tmp_path_factory.mktemp("colab"), width=width, theme=theme) as place:
            yield place
    else:
        with place_in_book(browser, request.getfixturevalue("book"), width, theme) as place:
            yield place


@pytest.fixture
def place(opened_place: Place) -> Place:
    """A page as at the beginning: sliders at their first positions, answers closed."""
    for slider in [opened_place.stepwise.locator("input"), *opened_place.layered.locator("input").all()]:
        slider.fill("0")
    opened_place.question.evaluate("e => e.querySelectorAll('details').forEach(d => d.open = false)")
    return opened_place


def test_the_keyboard_moves_a_slider_and_the_frame_follows(place: Place) -> None:
    place.stepwise.locator("input").focus()
    shown = []
    for key in ("ArrowRight", "ArrowUp", "End", "ArrowLeft", "Home", "PageUp", "PageDown"):
        place.page.keyboard.press(key)
        shown.append(seen(place.stepwise, STEPS))
    assert shown == [1, 2, 4, 3, 0, 1, 0]


def test_pressing_a_place_on_the_slider_shows_its_frame(place: Place) -> None:
    shown = []
    for position in (3, 1, 4):
        place.press_at(place.stepwise.locator("input"), position, 5)
        shown.append(seen(place.stepwise, STEPS))
    assert shown == [3, 1, 4]


def test_the_buttons_go_to_the_next_frame_and_back_and_no_further_than_the_ends(place: Place) -> None:
    back, forth = place.stepwise.get_by_label("previous step"), place.stepwise.get_by_label("next step")
    shown = []
    for button, times in ((back, 1), (forth, 2), (back, 1), (forth, 4)):
        for _ in range(times):
            place.press(button, force=True)  # also where it is dimmed
        shown.append(seen(place.stepwise, STEPS))
    assert shown == [0, 2, 1, 4]
    assert (back.get_attribute("aria-disabled"), forth.get_attribute("aria-disabled")) == ("false", "true")


def test_two_sliders_choose_row_and_column(place: Place) -> None:
    place.press(place.layered.get_by_label("next layer"))
    shown = [seen(place.layered, GRID)]
    place.press_at(place.layered.get_by_label("channel", exact=True), 2, 3)
    shown.append(seen(place.layered, GRID))
    place.press(place.layered.get_by_label("previous layer"))
    shown.append(seen(place.layered, GRID))
    assert shown == [3, 5, 2]


def test_the_words_follow_the_frame(place: Place) -> None:
    place.press(place.layered.get_by_label("next layer"))
    place.press(place.layered.get_by_label("next channel"))
    picture, channel = place.layered.locator("img"), place.layered.get_by_label("channel", exact=True)
    assert picture.get_attribute("alt") == "Noise, layer: fire2 (2 of 2), channel: 7 (2 of 3)"
    assert place.layered.locator("output").all_inner_texts() == ["fire2 (2 of 2)", "7 (2 of 3)"]
    assert channel.get_attribute("aria-valuetext") == "7"


def test_one_flipbook_does_not_move_another(place: Place) -> None:
    place.press(place.stepwise.get_by_label("next step"))
    assert (seen(place.stepwise, STEPS), seen(place.layered, GRID)) == (1, 0)


def test_an_answer_that_is_pressed_tells_whether_it_is_right(place: Place) -> None:
    verdicts = place.question.locator("details p")
    assert [verdict.is_visible() for verdict in verdicts.all()] == [False] * 3
    for answer in place.question.locator("summary").all()[:2]:
        place.press(answer)
    assert [verdict.is_visible() for verdict in verdicts.all()] == [True, True, False]
    assert verdicts.all_inner_texts()[:2] == ["Not quite. No, they come later.", "Right. Lines and spots too."]


def test_the_keyboard_opens_an_answer(place: Place) -> None:
    place.question.locator("summary").nth(1).focus()
    place.page.keyboard.press("Enter")
    assert place.question.locator("details p").nth(1).is_visible()


def test_right_and_wrong_differ_in_more_than_colour(place: Place) -> None:
    for answer in place.question.locator("summary").all()[:2]:
        place.press(answer)
    mark = "e => getComputedStyle(e, '::after').content"
    marks = [summary.evaluate(mark) for summary in place.question.locator("summary").all()]
    assert marks == ['"✗"', '"✓"', "none"]


def test_targets_are_large_enough_for_a_finger(place: Place) -> None:
    targets = [*place.question.locator("summary").all(), *place.layered.locator("button, input").all()]
    assert len(targets) == 9
    assert [box for target in targets if (box := target.bounding_box())["height"] < 44 or box["width"] < 44] == []


def test_everything_fits_into_its_page(place: Place) -> None:
    for answer in place.question.locator("summary").all():
        place.press(answer)
    for output in (place.question, place.stepwise, place.layered):
        frame = output.element_handle().owner_frame()
        assert overflow(frame) <= 0
        right, window = output.evaluate("e => [e.getBoundingClientRect().right, innerWidth]")
        assert right <= window


@pytest.mark.parametrize("answered", [False, True])
def test_axe_finds_nothing_wrong(place: Place, answered: bool) -> None:
    if answered:
        for answer in place.question.locator("summary").all():
            place.press(answer)
        place.press(place.stepwise.get_by_label("next step"))
    found = []
    for output, name in ((place.question, "question"), (place.stepwise, "flipbook")):
        found += axe_violations(output.element_handle().owner_frame(), f".lessons-{name}")
    assert found == []


def test_a_picture_keeps_its_colours(place: Place) -> None:
    filters = "e => { const all = []; for (; e; e = e.parentElement) all.push(getComputedStyle(e).filter); return all }"
    assert set(place.stepwise.locator("img").evaluate(filters)) == {"none"}


def test_nothing_is_fetched_from_elsewhere_and_nothing_fails(place: Place) -> None:
    place.press(place.stepwise.get_by_label("next step"))
    assert place.visit.outside == []
    assert place.visit.errors == []


# What is special in each ----------------------------------------------------------------------------------


def test_in_the_dark_book_questions_and_flipbooks_are_as_dark_as_the_page(browser: Any, book: str) -> None:
    with place_in_book(browser, book, 1280, "dark") as place:
        colours = "e => { const s = getComputedStyle(e); return [s.color, s.backgroundColor, s.padding] }"
        text, *_ = place.page.locator("article p").first.evaluate(colours)
        for output in (place.question, place.stepwise):
            assert output.locator("..").evaluate(colours) == [text, "rgba(0, 0, 0, 0)", "0px"]


def test_without_javascript_the_first_frame_and_its_name_are_there(browser: Any, book: str) -> None:
    with place_in_book(browser, book, 360, "light", java_script_enabled=False) as place:
        assert seen(place.stepwise, STEPS) == 0
        assert "Shown here: step: 1 of 5." in place.stepwise.inner_text()
        assert place.stepwise.locator("input, button").count() == 0


def test_without_javascript_the_answers_open(browser: Any, book: str) -> None:
    with place_in_book(browser, book, 360, "light", java_script_enabled=False) as place:
        place.press(place.question.locator("summary").nth(1))
        assert place.question.locator("details p").nth(1).is_visible()


def test_the_same_flipbook_twice_on_a_page_moves_once(browser: Any, book: str) -> None:
    with place_in_book(browser, book, 1280, "light") as place:
        twin = place.page.locator(".lessons-flipbook").nth(2)
        twin.get_by_label("next step").click()
        assert (seen(place.stepwise, STEPS), seen(twin, STEPS)) == (0, 1)


def test_a_saved_copy_of_the_page_works_as_well(browser: Any, book: str, tmp_path: Path) -> None:
    with place_in_book(browser, book, 1280, "light") as place:
        place.press(place.stepwise.get_by_label("next step"))
        copy = place.stepwise.evaluate("e => e.outerHTML")
    (tmp_path / "index.html").write_text(f"<!DOCTYPE html>{copy}", encoding="utf-8")
    with served(tmp_path) as address, opened(browser, f"{address}index.html") as (page, _):
        flipbook = page.locator(".lessons-flipbook")
        shown = [seen(flipbook, STEPS)]
        for _ in range(2):
            flipbook.get_by_label("next step").click()
            shown.append(seen(flipbook, STEPS))
        assert shown == [0, 1, 2]


def test_a_swipe_leafs_through_the_frames(browser: Any, book: str) -> None:
    with place_in_book(browser, book, 360, "light") as place:
        picture = place.stepwise.locator("img")
        picture.evaluate("e => e.scrollIntoView({block: 'center'})")
        box = picture.bounding_box()
        touch = place.page.context.new_cdp_session(place.page)
        shown = []
        for start, stop in ((0.8, 0.2), (0.8, 0.2), (0.2, 0.8)):
            for kind, where in (("touchStart", start), ("touchMove", stop), ("touchEnd", None)):
                points = [] if where is None else [{"x": box["x"] + where * box["width"], "y": box["y"] + 99}]
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            shown.append(seen(place.stepwise, STEPS))
        assert shown == [1, 2, 1]


def test_the_script_leaves_no_name_behind_and_may_run_again(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!DOCTYPE html><body>", encoding="utf-8")
    with served(tmp_path) as address, opened(browser, f"{address}index.html") as (page, _):
        before = page.evaluate("Object.keys(window)")
        page.set_content(MADE["stepwise"].html)
        again = "const one = document.createElement('script'); one.textContent = document.querySelector('script').text;"
        page.evaluate(f"() => {{ {again} document.body.append(one) }}")
        assert page.evaluate("Object.keys(window)") == before
        flipbook = page.locator(".lessons-flipbook")
        flipbook.get_by_label("next step").click()
        assert seen(flipbook, STEPS) == 1


def test_pulling_the_slider_of_an_exploration_draws_anew(lab_page: tuple[Any, Visit]) -> None:
    page, _ = lab_page
    figure, slider = page.locator(".widget-html"), page.locator(".widget-slider .noUi-base")
    shown = [seen(figure, STEPS)]
    for position in (3, 1):
        before = figure.locator("img").get_attribute("src")
        box = slider.bounding_box()
        page.mouse.click(box["x"] + box["width"] * position / 4, box["y"] + box["height"] / 2)
        page.wait_for_function(
            "before => (document.querySelector('.widget-html img') ?? {src: before}).src != before", arg=before
        )
        shown.append(seen(figure, STEPS))
    assert shown == [0, 3, 1]
    assert figure.locator("img").get_attribute("alt") == "Ramps"


def test_an_untrusted_notebook_shows_the_first_frame_and_its_answers_open(browser: Any, lab: str) -> None:
    with opened(browser, f"{lab}workspaces/other/tree/untrusted.ipynb") as (page, _):
        page.set_viewport_size({"width": 1280, "height": 6000})
        page.locator(".lessons-question summary").nth(1).click()
        assert page.locator(".lessons-question details p").nth(1).is_visible()
        assert seen(page.locator(".lessons-flipbook").first, STEPS) == 0
        assert page.locator(".lessons-flipbook :is(input, button)").count() == 0


# Does the comparison see what is broken on purpose? -------------------------------------------------------


def test_a_frame_in_the_wrong_place_is_noticed(browser: Any, tmp_path: Path) -> None:
    broken = MADE["stepwise"].html.replace('"order": [0, 1, 2, 3, 4]', '"order": [0, 2, 1, 3, 4]')
    assert broken != MADE["stepwise"].html
    (tmp_path / "index.html").write_text(f"<!DOCTYPE html>{broken}", encoding="utf-8")
    with served(tmp_path) as address, opened(browser, f"{address}index.html") as (page, _):
        flipbook = page.locator(".lessons-flipbook")
        flipbook.get_by_label("next step").click()
        assert seen(flipbook, STEPS) == 2


def test_a_picture_that_is_none_of_the_frames_is_noticed(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        f"<!DOCTYPE html><style>img {{ filter: invert(1) }}</style>{MADE['stepwise'].html}", encoding="utf-8"
    )
    with (
        served(tmp_path) as address,
        opened(browser, f"{address}index.html") as (page, _),
        pytest.raises(AssertionError),
    ):
        seen(page.locator(".lessons-flipbook"), STEPS)
