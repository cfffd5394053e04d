"""What is clicked and slid: the right words for each answer, each frame in its place, small, the same every time."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup, Tag
from nbclient import NotebookClient
from PIL import Image
from skimage import data
from torch import Tensor
from torch.nn.functional import interpolate

from lessons_lib import interactive
from lessons_lib.interactive import Interactive, explore, flipbook, question
from lessons_lib.plots import Figure, image_grid, subplots

CHOICES = [("Nothing", False, "Look again."), ("An edge", True, "It is one.")]
SMALL = torch.rand(4, 3, 7, 9, generator=torch.Generator().manual_seed(0))
NAMES = ["a", "b", "c", "d"]


def soup(output: Interactive) -> BeautifulSoup:
    return BeautifulSoup(output.html, "html.parser")


def contents(output: Interactive) -> dict[str, Any]:
    return json.loads(str(soup(output).figure["data-contents"]))  # type: ignore[index]


def stored(output: Interactive) -> list[bytes]:
    """The distinct frames, as their files."""
    figure = soup(output).figure
    assert figure is not None and figure.img is not None
    shown = str(figure.img["src"]).removeprefix("data:image/webp;base64,")
    return [b64decode(shown if frame == "-" else frame) for frame in str(figure["data-frames"]).split()]


def frames(output: Interactive) -> list[np.ndarray]:
    """The pixels (H, W, 3) of each frame, row by row."""
    files = stored(output)
    return [np.asarray(Image.open(BytesIO(files[place])).convert("RGB")) for place in contents(output)["order"]]


def pixels(picture: Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0) * 255).round().byte().numpy()


def photographs() -> list[Tensor]:
    """Ten different photographs of 224 x 224: four of scikit-image, and mixtures of them."""
    four = []
    for name in ("chelsea", "coffee", "astronaut", "rocket"):
        picture = torch.tensor(getattr(data, name)()[..., :3]).permute(2, 0, 1)[None] / 255
        side = min(picture.shape[-2:])
        four.append(interpolate(picture[..., :side, :side], size=224, mode="bilinear", antialias=True)[0].clamp(0, 1))
    mixed = [(one + other) / 2 for place, one in enumerate(four) for other in four[:place]]
    return four + mixed


def graph(frequency: int, alt: str = "A wave.") -> Figure:
    figure, axes = subplots(alt=alt, width=4)
    x = np.linspace(0, 6, 200)
    axes.plot(x, np.sin(frequency * x))
    return figure


# Questions ------------------------------------------------------------------------------------------------


def test_each_answer_opens_to_its_verdict_and_its_feedback() -> None:
    answers = soup(question("What does it see?", CHOICES)).find_all("details")
    assert [answer.summary.get_text() for answer in answers] == ["A Nothing", "B An edge"]  # type: ignore[union-attr]
    assert [answer.p.get_text() for answer in answers] == [  # type: ignore[union-attr]
        "Not quite. Look again.",
        "Right. It is one.",
    ]


def test_a_question_needs_no_script() -> None:
    assert soup(question("What?", CHOICES)).find("script") is None


def test_texts_cannot_become_markup() -> None:
    nasty = "<script>x</script> & \"quoted\" '<b>'"
    page = soup(question(nasty, [(nasty, True, nasty), (nasty + "!", False, nasty)]))
    assert page.find("script") is None
    assert [text.get_text().count(nasty) for text in page.select(".lessons-prompt, details")] == [1, 2, 2]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("`conv1` or *this*", "<code>conv1</code> or <em>this</em>"),
        ("`a * b * c`", "<code>a * b * c</code>"),
        ("*two words*, `x<y`", "<em>two words</em>, <code>x&lt;y</code>"),
        ("2 * 3 * 4 and 2*3*4", "2 * 3 * 4 and 2*3*4"),
        ("one * alone, one ` too", "one * alone, one ` too"),
    ],
)
def test_backticks_make_code_and_asterisks_emphasis(text: str, html: str) -> None:
    assert f"<br>{html}</p>" in question(text, CHOICES).html
    assert f"<span>{html}</span>" in question("What?", [(text, True, "Yes."), CHOICES[0]]).html
    assert f"</strong> {html}</p>" in question("What?", [("It", True, text), CHOICES[0]]).html


def test_a_terminal_shows_prompt_and_choices_but_not_the_answer() -> None:
    assert repr(question("What does\n it see?", CHOICES)) == "Question: What does it see?\n  A. Nothing\n  B. An edge"


def test_a_prediction_says_that_it_is_one() -> None:
    asked = question("What will it be?", CHOICES, kind="predict")
    assert repr(asked).startswith("Predict: What will it be?")
    assert soup(asked).select_one(".lessons-prompt b").get_text() == "Predict"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("prompt", "choices", "kind", "error", "words"),
    [
        (3, CHOICES, "question", TypeError, "prompt must be a string, not int"),
        (" ", CHOICES, "question", ValueError, "prompt is empty"),
        ("What?", "yes or no", "question", TypeError, "choices must be a sequence .* not str"),
        ("What?", CHOICES[:1], "question", ValueError, "choices: 1 came"),
        ("What?", CHOICES * 14, "question", ValueError, "choices: 28 came"),
        ("What?", [CHOICES[0], "An edge"], "question", TypeError, "choices: B must be .* not str"),
        ("What?", [CHOICES[0], ("An edge", True)], "question", ValueError, "choices: B has 2 parts"),
        ("What?", [CHOICES[0], ("", True, "Yes.")], "question", ValueError, "the answer of B is empty"),
        ("What?", [CHOICES[0], (1, True, "Yes.")], "question", TypeError, "the answer of B must be a string"),
        ("What?", [CHOICES[1], ("An edge", False, "")], "question", ValueError, "the feedback of B is empty"),
        ("What?", [CHOICES[1], ("An edge", False, None)], "question", TypeError, "the feedback of B must be a string"),
        ("What?", [CHOICES[1], ("An edge", "no", "No.")], "question", TypeError, "is_right of B must be True or False"),
        ("What?", CHOICES[:1] * 2, "question", ValueError, "choices: none is right"),
        ("What?", CHOICES, "quiz", ValueError, "kind must be 'question' or 'predict', not 'quiz'"),
    ],
)
def test_a_question_without_an_answer_or_feedback_is_refused(
    prompt: Any, choices: Any, kind: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        question(prompt, choices, kind=kind)


# Flipbooks ------------------------------------------------------------------------------------------------


def test_small_pictures_are_stored_to_the_last_bit_in_their_order() -> None:
    book = flipbook(SMALL, {"filter": NAMES}, alt="A filter")
    for frame, picture in zip(frames(book), SMALL, strict=True):
        np.testing.assert_array_equal(frame, pixels(picture))


def test_photographs_are_stored_as_they_were_to_the_eye() -> None:
    pictures = photographs()
    book = flipbook(pictures, {"picture": [str(n) for n in range(10)]}, alt="A photograph")
    for frame, picture in zip(frames(book), pictures, strict=True):
        assert frame.shape == (224, 224, 3)
        assert np.abs(frame.astype(float) - pixels(picture)).mean() < 5  # of 255


def test_graphs_are_stored_without_loss_and_finer_than_they_are_shown() -> None:
    book = flipbook([graph(1), graph(2)], {"frequency": ["1", "2"]}, alt="A wave")
    for frame, figure in zip(frames(book), (graph(1), graph(2)), strict=True):
        figure.resolution = frame.shape[1] / (96 * figure.get_figwidth())
        assert figure.resolution >= 1.5
        elsewhere = Image.open(BytesIO(figure._repr_mimebundle_()[0]["image/png"])).convert("RGB")
        np.testing.assert_array_equal(frame, np.asarray(elsewhere))


def test_the_first_slider_goes_through_the_rows_and_the_second_through_the_columns() -> None:
    names = {"layer": ["conv1", "fire2"], "channel": ["3", "7", "11"]}
    grid = torch.rand(2, 3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for given in (grid, [list(row) for row in grid]):
        book = flipbook(given, names, alt="A feature map", start=(1, 0))
        assert contents(book)["axes"] == [["layer", ["conv1", "fire2"]], ["channel", ["3", "7", "11"]]]
        assert contents(book)["start"] == 3
        assert contents(book)["alts"][4] == "A feature map, layer: fire2 (2 of 2), channel: 7 (2 of 3)"
        for place, frame in enumerate(frames(book)):
            np.testing.assert_array_equal(frame, pixels(grid[divmod(place, 3)]))


def test_identical_frames_are_stored_once() -> None:
    book = flipbook([SMALL[0], SMALL[1], SMALL[0], SMALL[1]], {"step": NAMES}, alt="Two", start=3)
    assert len(stored(book)) == 2
    assert contents(book)["order"] == [0, 1, 0, 1]


def test_the_frame_that_is_shown_first_is_stored_once() -> None:
    book = flipbook(SMALL, {"filter": NAMES}, alt="A filter", start=2)
    files = [line for line in re.findall(r"[\w+/=]{60,}", book.html) if line.startswith("UklGR")]  # WebP in base64
    assert len(files) == len(set(files)) == 4
    np.testing.assert_array_equal(frames(book)[2], pixels(SMALL[2]))
    assert contents(book)["start"] == 2


def test_without_script_the_first_frame_is_told_and_no_dead_slider_shown() -> None:
    page = soup(flipbook(SMALL, {"filter": ["1", "2", "3", "4"]}, alt="A filter of 7 x 9.", start=1))
    assert page.find("input") is page.find("button") is None
    assert len(page.find_all("img")) == 1
    assert page.img["alt"] == "A filter of 7 x 9, filter: 2 of 4"  # type: ignore[index]
    assert page.select_one(".lessons-controls").get_text().startswith("Shown here: filter: 2 of 4.")  # type: ignore[union-attr]


def test_a_figures_own_words_are_its_alt_text() -> None:
    book = flipbook([graph(1, "One wave."), graph(2, "Two.")], {"frequency": ["1", "2"]}, alt="Waves")
    assert contents(book)["alts"] == ["One wave.", "Two."]


def test_a_terminal_is_told_what_the_sliders_are() -> None:
    book = flipbook(SMALL.view(2, 2, 3, 7, 9), {"layer": ["x", "y"], "step": ["1", "20"]}, alt="A\n filter.")
    assert repr(book) == "Flipbook: A filter.\n  layer: x to y, 2 positions\n  step: 1 to 20, 2 positions"


def test_ten_photographs_weigh_less_than_150_kilobytes() -> None:
    book = flipbook(photographs(), {"picture": [str(n) for n in range(10)]}, alt="A photograph of something")
    assert len(book.html.encode()) < 150_000


def test_ten_figures_of_two_photographs_weigh_hardly_more() -> None:
    cat, *others = photographs()
    figures = [image_grid([cat, other], ["the cat", "and another"], alt="Two photographs") for other in [cat, *others]]
    book = flipbook(figures, {"picture": [str(n) for n in range(10)]}, alt="Two photographs")
    assert len(book.html.encode()) < 150_000


def test_ten_graphs_weigh_less_than_150_kilobytes() -> None:
    book = flipbook([graph(n) for n in range(10)], {"frequency": [str(n) for n in range(10)]}, alt="Waves")
    assert len(book.html.encode()) < 150_000


def test_nothing_moves_by_itself() -> None:
    for output in (question("What?", CHOICES), flipbook(SMALL, {"filter": NAMES}, alt="A filter")):
        assert not re.search("transition|animation", output.html)


def test_style_and_script_weigh_little() -> None:
    assert len(question("What?", CHOICES).html) < 4_500
    assert len(flipbook(SMALL, {"filter": NAMES}, alt="A filter").html) < 9_000


@pytest.mark.parametrize("make", [lambda: list(SMALL), lambda: [graph(n) for n in range(4)]])
def test_the_same_frames_give_the_same_bytes(make: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = make()
    first = flipbook(kept, {"filter": NAMES}, alt="A filter").html
    assert flipbook(kept, {"filter": NAMES}, alt="A filter").html == first
    monkeypatch.setitem(matplotlib.rcParams, "savefig.bbox", "tight")  # as in every notebook
    assert flipbook(make(), {"filter": NAMES}, alt="A filter").html == first


@pytest.mark.parametrize(
    ("height", "width", "shown", "squares"),
    [
        (7, 7, (378, 378), True),
        (64, 64, (384, 384), True),
        (64, 20, (120, 384), True),
        (128, 128, (384, 384), True),
        (224, 224, (448, 448), False),
        (200, 400, (576, 288), False),
        (500, 1200, (576, 240), False),
        (1200, 500, (240, 576), False),
    ],
)
def test_a_picture_is_shown_large_enough_and_small_ones_with_square_pixels(
    height: int, width: int, shown: tuple[int, int], squares: bool
) -> None:
    image = soup(flipbook(torch.rand(2, 3, height, width), {"x": ["1", "2"]}, alt="Noise")).img
    assert isinstance(image, Tag)
    assert (int(str(image["width"])), int(str(image["height"]))) == shown
    assert ("lessons-pixels" in image.get("class", [])) == squares  # type: ignore[operator]


def test_a_figure_is_shown_at_the_size_that_it_has_elsewhere() -> None:
    image = soup(flipbook([graph(1), graph(2)], {"frequency": ["1", "2"]}, alt="A wave")).img
    assert isinstance(image, Tag)
    metadata = graph(1)._repr_mimebundle_()[1]["image/png"]
    assert (image["width"], image["height"]) == (str(metadata["width"]), str(metadata["height"]))


def test_names_and_words_with_quotes_and_brackets_arrive() -> None:
    nasty = """'x' "y" <b> & ü"""
    book = flipbook(SMALL[:2], {nasty: [nasty, "2"]}, alt=nasty)
    assert contents(book)["axes"] == [[nasty, [nasty, "2"]]]
    assert soup(book).img["alt"] == contents(book)["alts"][0] == f"{nasty}, {nasty}: {nasty} (1 of 2)"  # type: ignore[index]
    assert soup(book).find("b") is None


@pytest.mark.parametrize(
    "output", [question("What?", CHOICES), flipbook(SMALL, {"filter": NAMES}, alt="A filter")], ids=["q", "f"]
)
def test_an_output_meddles_with_nothing_else_on_its_page(output: Interactive) -> None:
    page = soup(output)
    assert [tag.name for tag in page.find_all(True, recursive=False)] in (["div"], ["figure"])
    assert page.find(id=True) is None
    style = re.sub(r"@media[^{]*\{(.*)\}", r"\1", page.style.get_text())  # type: ignore[union-attr]
    selectors = [one.strip() for many in re.findall(r"([^{}]+)\{", style) for one in re.split(r",(?![^(]*\))", many)]
    assert len(selectors) > 10
    assert [selector for selector in selectors if not selector.startswith(".lessons-")] == []


@pytest.mark.parametrize(
    "output", [question("What?", CHOICES), flipbook(SMALL, {"filter": NAMES}, alt="A filter")], ids=["q", "f"]
)
def test_a_cell_shows_the_html_and_the_words(output: Interactive) -> None:
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(output)
    assert shown == {"text/html": output.html, "text/plain": output.words}


TWO = {"x": ["1", "2"]}
GRID = {"x": ["1", "2"], "y": ["1", "2"]}


@pytest.mark.parametrize(
    ("given", "axes", "options", "error", "words"),
    [
        (SMALL[:2], TWO, {"alt": ""}, ValueError, "alt is empty"),
        (SMALL[:2], TWO, {"alt": None}, TypeError, "alt must be a string"),
        (SMALL[:2], ["1", "2"], {}, TypeError, "axes must map .* not list"),
        (SMALL[:2], {}, {}, ValueError, "axes: 0 came"),
        (SMALL[:2], {**GRID, "z": ["1", "2"]}, {}, ValueError, "axes: 3 came"),
        (SMALL[:2], {1: ["1", "2"]}, {}, TypeError, "axes: a slider's label must be a string, not int"),
        (SMALL[:2], {"": ["1", "2"]}, {}, ValueError, "axes: a slider's label is empty"),
        (SMALL[:2], {"x": "ab"}, {}, TypeError, "axes: the names of 'x' must be a sequence of strings, not str"),
        (SMALL[:2], {"x": range(2)}, {}, TypeError, "axes: a name of 'x' must be a string, not int"),
        (SMALL[:2], {"x": ["1", " "]}, {}, ValueError, "axes: a name of 'x' is empty"),
        (SMALL[:2], {"x": ["1", "1"]}, {}, ValueError, "axes: 'x' has a name twice"),
        (SMALL[:1], {"x": ["1"]}, {}, ValueError, "axes: 'x' has 1 positions, a slider needs two"),
        (SMALL[:3], TWO, {}, ValueError, "frames: 3 came for the 2 positions of 'x'"),
        (7, TWO, {}, TypeError, "frames must be a sequence along 'x', not int"),
        (SMALL.view(2, 2, 3, 7, 9)[:1], GRID, {}, ValueError, "frames: 1 came for the 2 positions of 'x'"),
        ([list(SMALL[:2]), list(SMALL[:3])], GRID, {}, ValueError, "a row: 3 came for the 2 positions of 'y'"),
        ([SMALL[:2], "ab"], GRID, {}, TypeError, "a row must be a sequence along 'y', not str"),
        ([SMALL[0], "b"], TWO, {}, TypeError, "frames: number 2 must be a figure .* or a picture .* not str"),
        ([SMALL[0], graph(1)], TWO, {}, TypeError, "all figures or all pictures, number 2"),
        ([graph(1), SMALL[0]], TWO, {}, TypeError, "all figures or all pictures, number 2"),
        ([SMALL[0], SMALL[1, :, 1:]], TWO, {}, ValueError, "number 2 has 9 x 6 pixels, the first has 9 x 7"),
        ([graph(1), subplots(alt="x")[0]], TWO, {}, ValueError, "number 2 has 576 x 357 pixels, the first has 384 x"),
        ([SMALL[0], SMALL[1] * 255], TWO, {}, ValueError, r"must lie in \[0, 1\]"),
        ([SMALL[0], SMALL[1, :1]], TWO, {}, ValueError, r"must have the shape \(3, H, W\)"),
        (SMALL[:2], TWO, {"start": 2}, ValueError, "start: 2 is out of range, 'x' goes from 0 to 1"),
        (SMALL[:2], TWO, {"start": -1}, ValueError, "start: -1 is out of range"),
        (SMALL[:2], TWO, {"start": "1"}, TypeError, "start must be an index, not '1'"),
        (SMALL[:2], TWO, {"start": True}, TypeError, "start must be an index, not True"),
        (SMALL.view(2, 2, 3, 7, 9), GRID, {"start": 1}, TypeError, "start must be a pair of indices, not 1"),
        (SMALL.view(2, 2, 3, 7, 9), GRID, {"start": (1,)}, ValueError, "start must be a pair of indices"),
        (SMALL.view(2, 2, 3, 7, 9), GRID, {"start": (0, 2)}, ValueError, "start: 2 is out of range, 'y' goes"),
    ],
)
def test_a_flipbook_that_cannot_be_is_refused_before_any_frame_is_drawn(
    given: Any, axes: Any, options: Any, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(interactive, "_drawn", lambda *parts: drawn.append(parts))
    with pytest.raises(error, match=words):
        flipbook(given, axes, **{"alt": "Two frames", **options})
    assert drawn == []


# Exploration ----------------------------------------------------------------------------------------------


def controls(box: Any) -> list[Any]:
    return list(box.children[:-1])


def test_numbers_make_a_slider_and_anything_else_a_menu() -> None:
    box = explore(
        lambda **values: None,
        channel=range(3),
        step_size=[0.1, 1],
        layer=["conv1", "fire2"],
        picture={"cat": SMALL[0], "coffee": SMALL[1]},
    )
    kinds = [(control.description, type(control).__name__, control.options) for control in controls(box)]
    assert kinds == [
        ("channel", "SelectionSlider", (("0", 0), ("1", 1), ("2", 2))),
        ("step size", "SelectionSlider", (("0.1", 0), ("1", 1))),
        ("layer", "Dropdown", (("conv1", 0), ("fire2", 1))),
        ("picture", "Dropdown", (("cat", 0), ("coffee", 1))),
    ]


def test_it_draws_at_first_and_then_once_for_each_choice() -> None:
    calls: list[dict[str, Any]] = []
    box = explore(lambda **values: calls.append(values), channel=[3, 7], picture={"cat": SMALL[0], "cup": SMALL[1]})
    controls(box)[0].index = 1
    controls(box)[1].index = 1
    assert [(call["channel"], call["picture"] is SMALL[1]) for call in calls[:1]] == [(3, False)]
    assert [call["channel"] for call in calls] == [3, 7, 7]
    assert torch.equal(calls[2]["picture"], SMALL[1])


def test_a_slider_waits_until_it_is_let_go() -> None:
    (slider,) = controls(explore(lambda channel: None, channel=[3, 7]))
    assert slider.continuous_update is False


def test_an_error_is_told_in_words_and_the_next_choice_is_drawn() -> None:
    def draw(channel: int) -> None:
        if channel == 7:
            raise ValueError("there is no <channel> 7")
        print(f"this is <channel> {channel}")

    box = explore(draw, channel=[3, 7])
    (slider,), place = controls(box), box.children[-1]
    slider.index = 1
    assert "channel=7" in place.value
    assert "ValueError: there is no &lt;channel&gt; 7" in place.value
    slider.index = 0
    assert place.value == "<pre>this is &lt;channel&gt; 3\n</pre>"


@pytest.mark.parametrize(
    ("returned", "html"),
    [(None, ""), (Interactive("<b>x</b>", "x"), "<b>x</b>"), ("a < b", "<pre>&#x27;a &lt; b&#x27;</pre>")],
)
def test_what_is_no_figure_is_shown_as_it_shows_itself(returned: Any, html: str) -> None:
    assert explore(lambda channel: returned, channel=[3]).children[-1].value == html


@pytest.mark.parametrize(
    ("draw", "choices", "error", "words"),
    [
        ("draw", {"channel": [1]}, TypeError, "draw must be a function, not str"),
        (lambda: None, {}, ValueError, "choices: none came"),
        (lambda channel: None, {"channel": 64}, TypeError, "channel must be a sequence of values, .* not int"),
        (lambda channel: None, {"channel": "conv1"}, TypeError, "channel must be a sequence of values, .* not str"),
        (lambda channel: None, {"channel": []}, ValueError, "channel is empty"),
        (lambda channel: None, {"chanel": [1]}, TypeError, "draw cannot be called with the choices chanel"),
        (lambda layer, channel: None, {"channel": [1]}, TypeError, "missing a required argument: 'layer'"),
    ],
)
def test_what_cannot_be_explored_is_refused_before_anything_is_drawn(
    draw: Any, choices: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        explore(draw, **choices)


@pytest.mark.parametrize(
    ("module", "words"),
    [(None, "It is not installed here"), (SimpleNamespace(__version__="6.0.1"), "Here is version 6.0.1")],
)
def test_without_ipywidgets_it_says_what_to_install(module: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", module)
    with pytest.raises(ImportError, match=f"explore needs ipywidgets 7 or 8: run `pip install ipywidgets`.*{words}"):
        explore(lambda channel: None, channel=[1])


def test_in_a_kernel_a_choice_changes_the_figure_and_its_alt_text() -> None:
    cells = [
        "import torch; from lessons_lib.interactive import explore; from lessons_lib.plots import image_grid\n"
        "def draw(grey): return image_grid(torch.full((1, 3, 8, 8), grey), alt=f'Grey {grey}')\n"
        "box = explore(draw, grey=[0.0, 0.5, 2.0]); box",
        "box.children[0].index = 1",
        "box.children[0].index = 2",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    seen = []
    client = NotebookClient(notebook, timeout=120)
    with client.setup_kernel():
        for place, cell in enumerate(notebook.cells):
            client.execute_cell(cell, place)
            (state,) = (state for state in client.widget_state.values() if state.get("_model_name") == "HTMLModel")
            seen.append(state["value"])
    assert ['alt="Grey 0.0"' in seen[0], 'alt="Grey 0.5"' in seen[1]] == [True, True]
    assert [text.split("base64,")[1] for text in seen[:2]] != [seen[0].split("base64,")[1]] * 2
    assert "ValueError: a picture must lie in [0, 1]" in seen[2]
