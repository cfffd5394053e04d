"""What a reader can click, slide and pull: questions, flipbooks, and live exploration with a kernel.

Questions and flipbooks are plain HTML inside a cell's output: they work in the built book, in Colab and in JupyterLab,
with no kernel and no network. A question needs no script; a flipbook without one shows its first frame. `explore`
draws anew in the kernel whenever a slider has moved.
"""

from __future__ import annotations

import inspect
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from itertools import product
from numbers import Real
from typing import Any

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from .plots import BLUE, GREEN, ORANGE, WIDTH, Figure, _picture

_KINDS = {"question": "Question", "predict": "Predict"}

# JupyterLab would take Enter on an answer for "edit this cell", and the arrow keys of a slider for "the next cell".
_OWN_KEYS = 'data-lm-suppress-shortcuts="true"'

_DPI = 96  # pixels of a page in an inch
_LARGEST_WITH_SQUARE_PIXELS = 128  # a larger picture is enlarged smoothly
_ENLARGED_TO = 384
_PREFIX = "data:image/webp;base64,"
# What a frame may weigh in base64, on average: ten of them, with alt texts, style and script, stay below 150 kB.
_FRAME_BYTES = 11_200
_EXACT_BYTES = 17_000  # room for every picture of 64 x 64 without loss
_FEW_COLOURS = 4096  # with more, it is a photograph, for which a lossless format is wasteful
# Pixels stored for one of the page, each with falling qualities: the first with which the frames fit, or else the last.
# A photograph in more pixels of lower quality looks better than the other way round, and letters stay sharp.
_FINENESS = ((2.0, (80,)), (1.5, (80, 65, 50)), (1.25, (50, 40, 30)), (1.0, (50, 40, 30)))


@dataclass(frozen=True, repr=False)
class Interactive:
    """HTML that shows itself as the last line of a cell; `words` stand for it where no HTML is shown."""

    html: str
    words: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.words


# --- questions --------------------------------------------------------------------------------------------------


def question(prompt: str, choices: Sequence[tuple[str, bool, str]], *, kind: str = "question") -> Interactive:
    """A multiple-choice question; each answer opens to say "Right." or "Not quite.", and why.

    `choices` are `(answer, is_right, feedback)`, two or more, at least one of them right. In every text, backticks
    make code and asterisks emphasis. With `kind="predict"` it asks for a prediction before a figure.
    Raises TypeError or ValueError that names the argument at fault.
    """
    _check_text(prompt, "prompt")
    _check_choices(choices)
    if kind not in _KINDS:
        raise ValueError(f"kind must be {' or '.join(map(repr, _KINDS))}, not {kind!r}")
    name = _KINDS[kind]
    answers, words = [], [f"{name}: {' '.join(prompt.split())}"]
    for letter, (answer, is_right, feedback) in zip(_letters(len(choices)), choices, strict=True):
        verdict = "Right." if is_right else "Not quite."
        answers.append(
            f'<details class="lessons-choice{" lessons-right" if is_right else ""}">'
            f"<summary {_OWN_KEYS}><b>{letter}</b> <span>{marked_up(answer)}</span></summary>"
            f"<p><strong>{verdict}</strong> {marked_up(feedback)}</p></details>"
        )
        words.append(f"  {letter}. {' '.join(answer.split())}")
    html = [
        f'<div class="lessons-question" role="group" aria-label="{name}">',
        f"<style>{_QUESTION_STYLE}</style>",
        f'<p class="lessons-prompt"><b>{name}</b><br>{marked_up(prompt)}</p>',
        *answers,
        "</div>",
    ]
    return Interactive("\n".join(html), "\n".join(words))


def _letters(count: int) -> list[str]:
    return [chr(ord("A") + place) for place in range(count)]


def _check_text(text: Any, what: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, not {type(text).__name__}")
    if not text.strip():
        raise ValueError(f"{what} is empty")


def _check_sequence(values: Any, what: str) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{what}, not {type(values).__name__}")


def _check_choices(choices: Any) -> None:
    _check_sequence(choices, "choices must be a sequence of (answer, is_right, feedback)")
    if not 2 <= len(choices) <= 26:
        raise ValueError(f"choices: {len(choices)} came, wanted are 2 to 26, one for each letter")
    for letter, choice in zip(_letters(len(choices)), choices, strict=True):
        _check_sequence(choice, f"choices: {letter} must be (answer, is_right, feedback)")
        if len(choice) != 3:
            raise ValueError(f"choices: {letter} has {len(choice)} parts, wanted are (answer, is_right, feedback)")
        answer, is_right, feedback = choice
        _check_text(answer, f"choices: the answer of {letter}")
        if not isinstance(is_right, bool):
            raise TypeError(f"choices: is_right of {letter} must be True or False, not {is_right!r}")
        _check_text(feedback, f"choices: the feedback of {letter}")
    if not any(is_right for _, is_right, _ in choices):
        raise ValueError("choices: none is right, at least one must be")


def marked_up(text: str) -> str:
    """Text as HTML: escaped, with code between backticks and emphasis between asterisks.

    The asterisks of 2 * 3 * 4 and 2*3*4 stay what they are.
    """
    parts = re.split(r"`([^`]+)`", escape(" ".join(text.split())))
    prose = [re.sub(r"(?<![\w*])\*(?![\s*])([^*]+)(?<!\s)\*(?![\w*])", r"<em>\1</em>", part) for part in parts[::2]]
    code = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(word for pair in zip(prose, [*code, ""], strict=True) for word in pair)


# --- flipbooks --------------------------------------------------------------------------------------------------


def flipbook(
    frames: Sequence[Any] | Tensor,
    axes: Mapping[str, Sequence[str]],
    *,
    alt: str,
    start: int | tuple[int, int] | None = None,
) -> Interactive:
    """Frames drawn beforehand, and a slider or two to leaf through them.

    `axes` maps each slider's label to the names of its positions, two or more. `frames` is a sequence with a frame for
    each; for two sliders a sequence of sequences, `frames[row][column]`, the first slider for the rows. A frame is a
    figure of `plots` or a picture (3, H, W) in [0, 1]; all are of one kind and size. `alt` says what is to be seen; for
    a figure, its own words do. `start` is the index of the frame seen first, a pair for two sliders. Ten photographs
    weigh less than 150 kB. Raises TypeError or ValueError that names the argument at fault.
    """
    _check_text(alt, "alt")
    _check_axes(axes)
    pages = _flat(frames, axes)
    first = _checked_start(start, axes)
    width, height, enlarged = _shown_size(pages)

    stored = _stored(pages, width)
    distinct = list(dict.fromkeys(stored))
    places = _places(axes)
    alts = [
        getattr(page, "alt", "") or f"{' '.join(alt.split()).rstrip('.')}, {place}"
        for page, place in zip(pages, places, strict=True)
    ]
    contents = {
        "axes": [[label, list(names)] for label, names in axes.items()],
        "start": first,
        "order": [distinct.index(frame) for frame in stored],
        "alts": alts,
    }
    html = [
        # The figure is as wide as its picture, and never too narrow for its sliders.
        f'<figure class="lessons-flipbook" style="max-width:{max(width, 300)}px"',
        f"data-contents='{escape(json.dumps(contents, ensure_ascii=False), quote=False).replace(chr(39), '&#39;')}'",
        # One frame a line, for clean diffs; "-" stands for the one that is stored as the picture itself.
        'data-frames="' + "\n".join("-" if frame == stored[first] else frame for frame in distinct) + '">',
        f"<style>{_FLIPBOOK_STYLE}</style>",
        f'<img{" class=lessons-pixels" if enlarged else ""} width="{width}" height="{height}" decoding="sync"'
        f' draggable="false" alt="{escape(alts[first])}" src="{_PREFIX}{stored[first]}">',
        f'<div class="lessons-controls"><p>Shown here: {escape(places[first])}. '
        "For the others, allow JavaScript; in JupyterLab, trust the notebook.</p></div>",
        f"<script>{_FLIPBOOK_SCRIPT}</script>",
        "</figure>",
    ]
    sliders = [f"  {label}: {names[0]} to {names[-1]}, {len(names)} positions" for label, names in axes.items()]
    return Interactive("\n".join(html), "\n".join([f"Flipbook: {' '.join(alt.split())}", *sliders]))


def _check_axes(axes: Any) -> None:
    if not isinstance(axes, Mapping):
        raise TypeError(f"axes must map each slider's label to the names of its positions, not {type(axes).__name__}")
    if len(axes) not in (1, 2):
        raise ValueError(f"axes: {len(axes)} came, a flipbook has one slider or two")
    for label, names in axes.items():
        _check_text(label, "axes: a slider's label")
        _check_sequence(names, f"axes: the names of {label!r} must be a sequence of strings")
        for name in names:
            _check_text(name, f"axes: a name of {label!r}")
        if len(names) < 2:
            raise ValueError(f"axes: {label!r} has {len(names)} positions, a slider needs two or more")
        if len(set(names)) < len(names):
            raise ValueError(f"axes: {label!r} has a name twice, nobody could tell its positions apart")


def _flat(frames: Any, axes: Mapping[str, Sequence[str]]) -> list[Any]:
    """The frames in one list, row by row, as many as there are positions."""
    rows = [frames]
    (label, names), *columns = axes.items()
    if columns:
        rows = _counted(frames, len(names), "frames", label)
        label, names = columns[0]
    what = "frames" if not columns else "frames: a row"
    return [page for row in rows for page in _counted(row, len(names), what, label)]


def _counted(frames: Any, count: int, what: str, label: str) -> list[Any]:
    if not isinstance(frames, Tensor):  # of a batch, each picture is a frame
        _check_sequence(frames, f"{what} must be a sequence along {label!r}")
    if len(frames) != count:
        raise ValueError(f"{what}: {len(frames)} came for the {count} positions of {label!r}, one for each is wanted")
    return list(frames)


def _checked_start(start: Any, axes: Mapping[str, Sequence[str]]) -> int:
    """The place of the first frame among all, row by row."""
    if start is None:
        return 0
    wanted = "an index" if len(axes) == 1 else "a pair of indices"
    indices = (start,) if len(axes) == 1 else start
    if not isinstance(indices, tuple) or not all(isinstance(i, int) and not isinstance(i, bool) for i in indices):
        raise TypeError(f"start must be {wanted}, not {start!r}")
    if len(indices) != len(axes):
        raise ValueError(f"start must be {wanted}, not {start!r}")
    place = 0
    for index, (label, names) in zip(indices, axes.items(), strict=True):
        if not 0 <= index < len(names):
            raise ValueError(f"start: {index} is out of range, {label!r} goes from 0 to {len(names) - 1}")
        place = place * len(names) + index
    return place


def _places(axes: Mapping[str, Sequence[str]]) -> list[str]:
    """Each frame's place in words, row by row: "filter: 3 of 10", "layer: fire5 (2 of 8), channel: 3 of 64"."""
    words = []
    for label, names in axes.items():
        count = len(names)
        words.append(
            [
                f"{label}: {name} of {count}" if name == str(number) else f"{label}: {name} ({number} of {count})"
                for number, name in enumerate(names, 1)
            ]
        )
    return [", ".join(chosen) for chosen in product(*words)]


def _shown_size(pages: list[Any]) -> tuple[int, int, bool]:
    """Width and height of all frames on a page, and whether their pixels are shown as squares."""
    sizes = []
    for number, page in enumerate(pages, 1):
        if not isinstance(page, Figure | Tensor):
            raise TypeError(
                f"frames: number {number} must be a figure of lessons_lib.plots or a picture (3, H, W), "
                f"not {type(page).__name__}"
            )
        if isinstance(page, Figure) != isinstance(pages[0], Figure):
            raise TypeError(f"frames must be all figures or all pictures, number {number} is not what the first is")
        if isinstance(page, Figure):
            width, height = (round(inches * _DPI) for inches in page.get_size_inches())
        else:
            height, width = _picture(page).shape[:2]
        sizes.append((width, height))
        if sizes[0] != sizes[-1]:
            first, other = (f"{width} x {height}" for width, height in (sizes[0], sizes[-1]))
            raise ValueError(f"frames must be of one size: number {number} has {other} pixels, the first has {first}")
    width, height = sizes[0]
    if isinstance(pages[0], Figure):
        return width, height, False
    if max(width, height) <= _LARGEST_WITH_SQUARE_PIXELS:
        scale = _ENLARGED_TO // max(width, height)
        return width * scale, height * scale, True
    factor = min(2, WIDTH * _DPI / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor)), False


def _stored(pages: list[Any], width: int) -> list[str]:
    """The frames as WebP in base64, as fine as their weight allows."""
    room = _FRAME_BYTES * len(pages)
    sample = sorted({0, len(pages) // 2, len(pages) - 1})  # drawing takes time: three tell about how much all weigh
    levels = [(fineness, quality) for fineness, qualities in _FINENESS for quality in qualities]
    images: dict[tuple[int, float], Image.Image] = {}

    def encoded(number: int, fineness: float, quality: int) -> str:
        if (number, fineness) not in images:
            images[number, fineness] = _drawn(pages[number], width, fineness)
        return _encoded(images[number, fineness], quality)

    for level in levels[:-1]:
        if sum(len(encoded(number, *level)) for number in sample) > _FRAME_BYTES * len(sample):
            continue
        stored = [encoded(number, *level) for number in range(len(pages))]
        if sum(map(len, set(stored))) <= room:
            return stored
    return [encoded(number, *levels[-1]) for number in range(len(pages))]


def _drawn(page: Any, width: int, fineness: float) -> Image.Image:
    if isinstance(page, Figure):
        file = BytesIO()
        with matplotlib.rc_context({"savefig.bbox": None}):  # notebooks crop figures, each to a size of its own
            page.savefig(file, format="png", dpi=_DPI * fineness, pil_kwargs={"compress_level": 1})
        image = Image.open(file).convert("RGB")
        if image.getcolors(_FEW_COLOURS):  # as many as `plots` stores
            image = image.quantize(256, dither=Image.Dither.NONE).convert("RGB")
        return image
    image = Image.fromarray((_picture(page) * 255).round().astype(np.uint8))
    finest = round(width * fineness)
    if image.width <= finest:
        return image
    return image.resize((finest, round(finest * image.height / image.width)), Image.Resampling.LANCZOS)


def _encoded(image: Image.Image, quality: int) -> str:
    if image.getcolors(_FEW_COLOURS):
        exact = _webp(image, lossless=True, quality=80)
        if len(exact) <= _EXACT_BYTES:
            return exact
    return _webp(image, quality=quality)


def _webp(image: Image.Image, **options: Any) -> str:
    file = BytesIO()
    image.save(file, "webp", method=6, **options)
    return b64encode(file.getvalue()).decode()


# --- live exploration -------------------------------------------------------------------------------------------


def explore(draw: Callable[..., Any], **choices: Any) -> Any:
    """Widgets to choose from, and below them the figure that `draw` returns for the values chosen, anew at each choice.

    `choices` gives the values for each keyword of `draw`: a sequence, numbers as a slider and anything else as a menu,
    or a mapping of names to values. An error of `draw` is told in words in the figure's place. It needs a kernel, and
    ipywidgets 7 or 8, else it raises ImportError. Raises TypeError or ValueError that names the argument at fault.
    """
    if not callable(draw):
        raise TypeError(f"draw must be a function, not {type(draw).__name__}")
    if not choices:
        raise ValueError("choices: none came, name the values to choose from, as in explore(draw, channel=range(64))")
    named = {keyword: _named_values(keyword, values) for keyword, values in choices.items()}
    try:
        inspect.signature(draw).bind(**named)
    except TypeError as error:
        raise TypeError(f"draw cannot be called with the choices {', '.join(named)}: {error}") from None
    except ValueError:  # some functions written in C do not tell what they take
        pass
    widgets = _ipywidgets()
    controls = {keyword: _control(widgets, keyword, values) for keyword, values in named.items()}
    # HTML, not an Output widget: JupyterLab would drop the figure's alt text there, and a notebook that is run without
    # a browser can wait for minutes for one.
    place = widgets.HTML()

    def redraw(change: Any = None) -> None:
        chosen = {keyword: named[keyword][control.value] for keyword, control in controls.items()}
        printed = StringIO()
        try:
            with redirect_stdout(printed):
                shown = _as_html(draw(**{keyword: value for keyword, (_, value) in chosen.items()}))
        except Exception as error:
            told = ", ".join(f"{keyword}={name}" for keyword, (name, _) in chosen.items())
            words = f"With {told} there is nothing to see, the drawing failed.\n{type(error).__name__}: {error}"
            shown = f"<pre>{escape(words)}</pre>"
        place.value = shown + (f"<pre>{escape(printed.getvalue())}</pre>" if printed.getvalue() else "")

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return widgets.VBox([*controls.values(), place])


def _as_html(shown: Any) -> str:
    if shown is None:
        return ""
    if isinstance(shown, Figure):
        data, metadata = shown._repr_mimebundle_()
        ((kind, content),) = data.items()
        alt, width = escape(metadata[kind]["alt"]), metadata[kind]["width"]
        source = f"data:{kind};base64,{b64encode(content).decode()}"
        return f'<img alt="{alt}" width="{width}" style="max-width: 100%; height: auto" src="{source}">'
    html = getattr(shown, "_repr_html_", None)
    return html() if html else f"<pre>{escape(repr(shown))}</pre>"


def _named_values(keyword: str, values: Any) -> list[tuple[str, Any]]:
    if isinstance(values, Mapping):
        named = [(str(name), value) for name, value in values.items()]
    else:
        _check_sequence(values, f"{keyword} must be a sequence of values, or a mapping of names to values")
        named = [(str(value), value) for value in values]
    if not named:
        raise ValueError(f"{keyword} is empty: there is nothing to choose from")
    return named


def _control(widgets: Any, keyword: str, named: list[tuple[str, Any]]) -> Any:
    # The widget chooses a number: values such as tensors cannot be compared, as it compares what it chooses from.
    settings: dict[str, Any] = {
        "options": [(name, number) for number, (name, _) in enumerate(named)],
        "value": 0,
        "description": keyword.replace("_", " "),
        "style": {"description_width": "initial"},
        "layout": {"width": "auto", "max_width": f"{round(WIDTH * _DPI)}px"},
    }
    if all(isinstance(value, Real) for _, value in named):
        # One drawing when the slider is let go, not dozens on its way.
        return widgets.SelectionSlider(continuous_update=False, **settings)
    return widgets.Dropdown(**settings)


def _ipywidgets() -> Any:
    wanted = "explore needs ipywidgets 7 or 8: run `pip install ipywidgets`, then restart the kernel"
    try:
        import ipywidgets
    except ImportError:
        raise ImportError(f"{wanted}. It is not installed here.") from None
    if int(ipywidgets.__version__.split(".")[0]) < 7:
        raise ImportError(f"{wanted}. Here is version {ipywidgets.__version__}.")
    return ipywidgets


# --- style and script -------------------------------------------------------------------------------------------

# Greys are see-through and letters take the colour around them, so that both suit light and dark pages. Each output
# carries its own: a host shows outputs one by one.
_QUESTION_STYLE = f"""
.lessons-question, .lessons-question * {{ box-sizing: border-box }}
.lessons-question {{ max-width: 44rem; overflow-wrap: anywhere }}
.lessons-question p {{ margin: 0 }}
.lessons-question .lessons-prompt {{ margin-bottom: .75em; font-weight: 600; line-height: 1.5 }}
.lessons-question .lessons-prompt > b {{ display: inline-block; margin-bottom: .6em; padding: 0 .8em;
  border: 2px solid {BLUE}; border-radius: 1em; font-size: .8em; line-height: 1.7 }}
.lessons-question code {{ background: rgba(128, 128, 128, .15); border: 0; border-radius: 3px; color: inherit;
  font-size: .9em; padding: .1em .3em }}
.lessons-question details.lessons-choice {{ margin: 0 0 .5em; padding: 0; overflow: hidden; background: none;
  border: 1px solid rgba(128, 128, 128, .5); border-radius: 8px !important; --accent: {ORANGE}; --mark: "\\2717" }}
.lessons-question details.lessons-right {{ --accent: {GREEN}; --mark: "\\2713" }}
.lessons-question details.lessons-choice > summary {{ display: flex; align-items: center; gap: .75em; min-height: 48px;
  margin: 0; padding: .5em .75em; cursor: pointer; font-weight: 400; line-height: 1.5; list-style: none }}
.lessons-question summary::-webkit-details-marker {{ display: none }}
@media (hover: hover) {{ .lessons-question summary:hover {{ background: rgba(128, 128, 128, .12) }} }}
.lessons-question summary:focus-visible {{ outline: 3px solid; outline-offset: -3px; border-radius: 8px }}
.lessons-question summary > b {{ flex: none; width: 2em; border: 2px solid rgba(128, 128, 128, .6); border-radius: 50%;
  font-weight: 600; line-height: calc(2em - 4px); text-align: center }}
.lessons-question summary > span {{ flex: 1; min-width: 0 }}
.lessons-question details.lessons-choice[open] {{ border-color: var(--accent); box-shadow: inset 4px 0 var(--accent) }}
.lessons-question details.lessons-choice[open] > summary {{ margin: 0 }}
.lessons-question [open] > summary > b {{ border-color: var(--accent) }}
.lessons-question [open] > summary::after {{ content: var(--mark); flex: none; width: 1.6em; border-radius: 50%;
  background: var(--accent); color: #000; font-weight: 700; line-height: 1.6; text-align: center }}
.lessons-question .lessons-choice > p {{ padding: 0 .75em .75em 3.5em }}
"""

_FLIPBOOK_STYLE = f"""
.lessons-flipbook, .lessons-flipbook * {{ box-sizing: border-box }}
.lessons-flipbook {{ margin: 0; padding: 0 }}
.lessons-flipbook > img {{ display: block; max-width: 100%; height: auto; margin: 0; background: #fff;
  touch-action: pan-y pinch-zoom }}
.lessons-flipbook > img.lessons-pixels {{ border-radius: 0 !important; image-rendering: pixelated }}
.lessons-flipbook p {{ margin: .5em 0 }}
.lessons-axis {{ display: grid; grid-template-columns: 44px minmax(0, 1fr) 44px; column-gap: .75em; margin-top: .6em }}
.lessons-axis label {{ display: contents }}
.lessons-axis :is(span, output) {{ grid-area: 1 / 1 / 2 / -1; max-width: 50%; margin: 0 0 .25em; padding: 0;
  line-height: 1.5; overflow-wrap: anywhere }}
.lessons-axis span {{ justify-self: start; font-weight: 600 }}
.lessons-axis output {{ justify-self: end; font-variant-numeric: tabular-nums; text-align: end }}
.lessons-axis button {{ height: 44px; padding: 0; background: rgba(128, 128, 128, .12); color: inherit;
  border: 1px solid rgba(128, 128, 128, .5); border-radius: 8px; cursor: pointer; font: inherit; font-size: 1.5em;
  line-height: 1; touch-action: manipulation }}
@media (hover: hover) {{ .lessons-axis button:hover {{ background: rgba(128, 128, 128, .3) }} }}
.lessons-axis button[aria-disabled=true] {{ background: none; cursor: default; opacity: .4 }}
.lessons-axis input {{ -webkit-appearance: none; appearance: none; width: 100%; height: 44px; margin: 0; padding: 0;
  background: none; color: inherit; cursor: pointer }}
.lessons-axis :focus-visible {{ outline: 3px solid; outline-offset: -3px; border-radius: 8px }}
.lessons-axis ::-webkit-slider-runnable-track {{ height: 6px; border-radius: 3px;
  background: linear-gradient(90deg, {BLUE} var(--at), rgba(128, 128, 128, .4) var(--at)) }}
.lessons-axis ::-webkit-slider-thumb {{ -webkit-appearance: none; width: 24px; height: 24px; margin-top: -9px;
  background: {BLUE}; border: 3px solid #fff; border-radius: 50%; box-shadow: 0 0 3px rgba(0, 0, 0, .6) }}
.lessons-axis ::-moz-range-track {{ height: 6px; border-radius: 3px; background: rgba(128, 128, 128, .4) }}
.lessons-axis ::-moz-range-progress {{ height: 6px; border-radius: 3px; background: {BLUE} }}
.lessons-axis ::-moz-range-thumb {{ width: 18px; height: 18px; background: {BLUE};
  border: 3px solid #fff; border-radius: 50%; box-shadow: 0 0 3px rgba(0, 0, 0, .6) }}
@media (forced-colors: active) {{ .lessons-axis input {{ -webkit-appearance: auto; appearance: auto }} }}
"""

# It makes the sliders, so that without it there are none. Every flipbook of the page is looked at by every output's
# copy of the script, and made ready once. What it needs later is in the page itself: a copy of the page works too.
_FLIPBOOK_SCRIPT = """
(() => {
  for (const figure of document.querySelectorAll("figure.lessons-flipbook")) {
    if (figure.isReady) continue;
    figure.isReady = true;
    const image = figure.querySelector("img"), data = figure.dataset;
    const { axes, start, order, alts } = JSON.parse(data.contents);
    const prefix = "PREFIX";
    data.frames = data.frames.replace("-", () => image.getAttribute("src").slice(prefix.length));
    const frames = data.frames.split(/\\s+/);
    const at = [];
    let rest = start;
    for (let axis = axes.length; axis--; ) {
      at[axis] = rest % axes[axis][1].length;
      rest = (rest - at[axis]) / axes[axis][1].length;
    }

    const rows = axes.map(([label, names], axis) => {
      const row = document.createElement("div");
      row.className = "lessons-axis";
      row.innerHTML = '<button type="button" OWN_KEYS>&lsaquo;</button><label><span></span>'
        + '<input type="range" min="0" autocomplete="off" OWN_KEYS></label>'
        + '<button type="button" OWN_KEYS>&rsaquo;</button><output></output>';
      const [back, { firstChild: name, lastChild: input }, forth, output] = row.children;
      name.textContent = label;
      input.max = names.length - 1;
      input.oninput = () => go(axis, +input.value);
      // A slider says its value itself, a button does not.
      for (const [button, step, what] of [[back, -1, "previous "], [forth, 1, "next "]]) {
        button.setAttribute("aria-label", what + label);
        button.onclick = () => go(axis, at[axis] + step, "polite");
      }
      row.show = live => {
        const place = at[axis], value = names[place], count = names.length;
        input.value = place;
        input.setAttribute("aria-valuetext", value);
        input.style.setProperty("--at", `calc(12px + (100% - 24px) * ${place / (count - 1)})`);
        output.setAttribute("aria-live", live);
        output.textContent = value == place + 1 ? `${value} of ${count}` : `${value} (${place + 1} of ${count})`;
        back.setAttribute("aria-disabled", place == 0);
        forth.setAttribute("aria-disabled", place == count - 1);
      };
      return row;
    });

    const go = (axis, place, live = "off") => {
      at[axis] = Math.max(0, Math.min(place, axes[axis][1].length - 1));
      show(live);
    };
    const show = live => {
      const frame = axes.reduce((sum, [, names], axis) => sum * names.length + at[axis], 0);
      const source = prefix + frames[order[frame]];
      if (image.getAttribute("src") != source) image.src = source;
      image.alt = alts[frame];
      for (const row of rows) row.show(live);
    };

    let touched;
    image.onpointerdown = event => { touched = event.pointerType == "touch" ? event.clientX : NaN; };
    image.onpointerup = event => {
      const moved = event.clientX - touched, axis = axes.length - 1;
      if (Math.abs(moved) > 30) go(axis, at[axis] + (moved < 0 ? 1 : -1), "polite");
    };
    figure.querySelector(".lessons-controls").replaceChildren(...rows);
    show("off");
  }
})();
""".replace("PREFIX", _PREFIX).replace("OWN_KEYS", _OWN_KEYS)
