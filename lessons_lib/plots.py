"""The course's figures: pictures, maps and predictions on the same scales, safe for colour-blind readers.

Every function returns a `Figure` that knows its alt text; as the last line of a notebook's cell it shows itself, with
the alt text in the output's metadata. Figures stand on white, so that they read the same on light and dark pages.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MultipleLocator
from torch import Tensor

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#6b6b6b"
"""Okabe and Ito's colours, told apart with every kind of colour vision."""
UNSIGNED = "inferno"
"""Colour map for values from 0 up: brighter is more, also in grey."""
SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "#ffffff", ORANGE])
"""Colour map for values around 0: blue below, white at 0, orange above."""

WIDTH = 6.0  # inches; with 12 pt type, still readable when a phone shows the figure at half its size
_DPI = 96
_BAR = 0.7  # inches that a colour bar takes at least; with a label it is a little more
_ROW = 12  # pictures: more of them in a line would be too small to see on a phone
_PALETTE_SUFFICES = 4096  # colours: above that there is a photograph, which 256 of them might spoil
_PALETTE_ERROR = 6.0  # grey levels of 255, root mean square: not seen in small pictures enlarged
_STYLE: Any = {
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, PINK, SKY, GREY]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


class Figure(MatplotlibFigure):
    """A matplotlib figure with `alt`, the words for those who do not see it."""

    alt: str = ""
    resolution: float = 1.75
    """Pixels for each of the page's, in one direction: near the 2 of today's fine screens, for fewer bytes."""

    def _ipython_display_(self) -> None:
        # IPython asks this first: once pyplot is imported it would draw a picture of its own, without the alt text.
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        file = BytesIO()
        with matplotlib.rc_context({"savefig.bbox": None}):
            self.savefig(file, format="png", dpi=self.resolution * _DPI)
        width, height = (round(inches * _DPI) for inches in self.get_size_inches())
        data = _compressed(file.getvalue())
        return data, {kind: {"alt": self.alt, "width": width, "height": height} for kind in data}


def subplots(
    rows: int = 1, columns: int = 1, *, alt: str, width: float = WIDTH, height: float | None = None, **options: Any
) -> tuple[Figure, Any]:
    """An empty figure with its axes, as `matplotlib.pyplot.subplots`; `alt` says what is to be seen in it.

    `width` and `height` are in inches. Raises ValueError for an empty `alt`.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the figure shows")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height or width * 0.62 * rows / columns), layout="constrained")
        FigureCanvasAgg(figure)
        figure.alt = " ".join(alt.split())
        return figure, figure.subplots(rows, columns, **options)


def image_grid(
    images: Tensor | Sequence[Tensor],
    titles: Sequence[str] | None = None,
    *,
    alt: str,
    columns: int | None = None,
    width: float = WIDTH,
) -> Figure:
    """Pictures (N, 3, H, W) in [0, 1], or a sequence of (3, H, W) of several sizes, side by side.

    Raises ValueError where there are none, or where titles and pictures differ in number.
    """
    pictures = [_picture(image) for image in images]
    figure, cells = _grid(pictures, titles, "images", alt=alt, columns=columns, width=width)
    figure.resolution, interpolation = _fineness(pictures, width / min(columns or 4, len(pictures)))
    for axes, picture in zip(cells, pictures, strict=True):
        axes.imshow(picture, vmin=0, vmax=1, interpolation=interpolation)
    return figure


def image_rows(rows: Mapping[str, Tensor | Sequence[Tensor]], *, alt: str, width: float = WIDTH) -> Figure:
    """Rows of pictures (N, 3, H, W) in [0, 1], each row under its name; a long row goes on in the next line.

    Raises ValueError where there is no row, or an empty one, or where the pictures differ in shape.
    """
    drawn = {name: [_picture(image) for image in images] for name, images in rows.items()}
    if not drawn or not all(drawn.values()):
        raise ValueError("rows: every row must hold a picture, and there must be a row")
    if len({picture.shape[0] / picture.shape[1] for pictures in drawn.values() for picture in pictures}) > 1:
        raise ValueError("rows: the pictures differ in shape, height to width")
    columns = min(_ROW, max(len(pictures) for pictures in drawn.values()))
    gap, head = 0.04, 0.3  # inches between pictures, and for the name above a row
    side = (width + gap) / columns - gap
    largest = max((picture for pictures in drawn.values() for picture in pictures), key=len)
    tall = side * largest.shape[0] / largest.shape[1]
    lines = {name: math.ceil(len(pictures) / columns) for name, pictures in drawn.items()}
    height = sum(head + count * (tall + gap) for count in lines.values())
    figure, canvas = subplots(alt=alt, width=width, height=height)
    figure.resolution, interpolation = _fineness([largest], side)
    # All on one canvas measured in inches: axes for each picture, laid out by matplotlib, would take ten times as long.
    figure.set_layout_engine("none")
    canvas.set_position((0, 0, 1, 1))
    canvas.set_axis_off()
    top = 0.0
    for name, pictures in drawn.items():
        top += head
        canvas.text(0, top - 0.06, name, fontsize=12, va="bottom")
        for place, picture in enumerate(pictures):
            line, column = divmod(place, columns)
            left, upper = column * (side + gap), top + line * (tall + gap)
            extent = (left, left + side, upper + tall, upper)
            canvas.imshow(picture, vmin=0, vmax=1, interpolation=interpolation, extent=extent)
        top += lines[name] * (tall + gap)
    canvas.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    return figure


def map_grid(
    maps: Tensor | Sequence[Tensor],
    titles: Sequence[str] | None = None,
    *,
    alt: str,
    signed: bool,
    shared: bool = True,
    label: str = "",
    columns: int | None = None,
    width: float = WIDTH,
) -> Figure:
    """Maps (N, H, W) side by side; `signed` ones around 0 in blue and orange, others from 0 up, brighter is more.

    On one scale with a colour bar named `label`, or with `shared=False` each map on its own scale and no bar.
    Raises ValueError for an unsigned map with values below 0 and for values that are not finite.
    """
    values = [_map(m, signed=signed) for m in maps]
    figure, cells = _grid(values, titles, "maps", alt=alt, columns=columns, width=width, bar=shared)
    _draw_maps(figure, cells, values, signed=signed, shared=shared, label=label)
    return figure


def panel_grid(
    panels: Sequence[Tensor],
    titles: Sequence[str] | None = None,
    *,
    alt: str,
    signed: bool,
    shared: bool = True,
    label: str = "",
    columns: int | None = None,
    width: float = WIDTH,
) -> Figure:
    """Pictures (3, H, W) in [0, 1] and maps (H, W) in one grid, row by row; the maps as in `map_grid`.

    Raises ValueError for what `image_grid` and `map_grid` refuse, and where there is no map.
    """
    values = [_picture(panel) if getattr(panel, "ndim", 0) == 3 else _map(panel, signed=signed) for panel in panels]
    figure, cells = _grid(values, titles, "panels", alt=alt, columns=columns, width=width, bar=shared)
    maps = [(axes, value) for axes, value in zip(cells, values, strict=True) if value.ndim == 2]
    if not maps:
        raise ValueError("panels holds no map (H, W): pictures alone are for image_grid")
    for axes, value in zip(cells, values, strict=True):
        if value.ndim == 3:
            axes.imshow(value, vmin=0, vmax=1)
    _draw_maps(figure, *zip(*maps, strict=True), signed=signed, shared=shared, label=label)
    return figure


def interval_grid(
    table: Mapping[str, Mapping[str, Any]],
    *,
    alt: str,
    titles: Sequence[str] | None = None,
    highlighted: Collection[str] = (),
    limits: tuple[float, float] = (0, 1),
    width: float = WIDTH,
) -> Figure:
    """A league table as dots with their intervals: a row for each name of `table`, a column for each of its scores.

    Each score is what has a `mean`, `low` and `high`, such as `trust.Interval`. Raises ValueError for an empty table,
    rows with other scores than the first, or a score outside the limits; TypeError where `highlighted` is one name.
    """
    if isinstance(highlighted, str):
        raise TypeError(f"highlighted must be a collection of names, such as ({highlighted!r},)")
    if not table or not all(table.values()):
        raise ValueError("table is empty: every row needs a score, and there must be a row")
    scores = [*next(iter(table.values()))]
    for name, row in table.items():
        if [*row] != scores:
            raise ValueError(f"row {name!r} of the table needs the scores {', '.join(scores)}, not {', '.join(row)}")
        for score, its in row.items():
            if not limits[0] - 1e-6 <= its.low <= its.high <= limits[1] + 1e-6:
                raise ValueError(f"{score} of {name!r} leaves the limits {limits[0]:g} to {limits[1]:g}: {its}")
    height = 0.7 + 0.27 * len(table)
    figure, cells = subplots(1, len(scores), alt=alt, width=width, height=height, sharey=True, squeeze=False)
    for axes, score, title in zip(cells[0], scores, titles or scores, strict=True):
        for place, (name, row) in enumerate(table.items()):
            color, its = ORANGE if name in highlighted else BLUE, row[score]
            axes.plot([its.low, its.high], [place] * 2, color=color, linewidth=2.5)
            axes.plot(its.mean, place, "o", color=color, markersize=5)
        margin = 0.03 * (limits[1] - limits[0])  # for dots at the very end
        axes.set(xlim=(limits[0] - margin, limits[1] + margin), ylim=(len(table) - 0.4, -0.6))
        axes.xaxis.set_major_locator(MultipleLocator(0.5))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_title(title, fontsize=12)
        axes.grid(axis="y", color="#e4e7ea", linewidth=0.6)
    cells[0][0].set_yticks(range(len(table)), list(table))
    return figure


def coloured(maps: Tensor, *, signed: bool, share: float = 0.99, side: int = 112) -> Tensor:
    """Maps (N, H, W) as pictures (N, 3, h, w) in [0, 1], for grids and flipbooks: each on a scale of its own.

    The scale ends where `share` of the map's numbers lie below, by size: a few large ones would leave the rest dark.
    Those with more than `side` rows are averaged over squares first: beside others a page shows them no finer.
    Raises ValueError as `map_grid` does, and for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], not {share}")
    colours = SIGNED if signed else matplotlib.colormaps[UNSIGNED]
    pictures = []
    for values in (_map(m, signed=signed) for m in maps):
        square = max(round(values.shape[0] / side), 1)
        rows, columns = values.shape[0] // square, values.shape[1] // square
        cut = values[: rows * square, : columns * square]
        values = cut.reshape(rows, square, columns, square).mean(axis=(1, 3))
        top = float(np.quantile(np.abs(values), share)) or float(np.abs(values).max()) or 1.0
        scaled = (values / top).clip(-1, 1)
        pictures.append(colours((scaled + 1) / 2 if signed else scaled)[..., :3])
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()


def prediction_bars(
    image: Tensor, predictions: Sequence[tuple[str, float, int]], *, title: str = "", width: float = WIDTH
) -> Figure:
    """A picture (3, H, W) in [0, 1] beside its predictions, best first: probability bars from 0 to 1.

    Writes its own alt text. Raises ValueError without predictions.
    """
    if not predictions:
        raise ValueError("predictions is empty: hand over what `specimen.predict` returns for one picture")
    picture = _picture(image)
    names = [name for name, *_ in predictions]
    probabilities = [probability for _, probability, *_ in predictions]
    told = ", ".join(f"{name} {probability:.2f}" for name, probability in zip(names, probabilities, strict=True))
    alt = f"{title or 'A picture'}, and beside it bars for the network's probabilities: {told}."
    figure, (left, right) = subplots(1, 2, alt=alt, width=width, height=width * 0.44, width_ratios=(1, 1.1))
    left.imshow(picture, vmin=0, vmax=1)
    left.set_axis_off()
    if title:
        left.set_title(title, fontsize=12)
    places = range(len(names))
    right.barh(places, probabilities, color=[BLUE] + [SKY] * (len(names) - 1), height=0.28, align="edge")
    for place, name, probability in zip(places, names, probabilities, strict=True):
        # The name stands above its bar: beside it, long names would leave the bars no room on a phone.
        right.text(0, place - 0.06, name, va="bottom", fontsize=12)
        right.text(1.0, place - 0.06, f"{probability:.2f}", ha="right", va="bottom", fontsize=12, color=GREY)
    right.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), yticks=[], xticks=[0, 0.5, 1], xlabel="probability")
    right.spines["left"].set_visible(False)
    return figure


def _draw_maps(
    figure: Figure, cells: Sequence[Axes], values: Sequence[np.ndarray], *, signed: bool, shared: bool, label: str
) -> None:
    """Maps into their cells, on one scale with a bar for all, or each on its own without."""
    largest = max(float(np.abs(v).max()) for v in values)
    for axes, value in zip(cells, values, strict=True):
        top = (largest if shared else float(np.abs(value).max())) or 1.0
        drawn = axes.imshow(
            value, cmap=SIGNED if signed else UNSIGNED, vmin=-top if signed else 0, vmax=top, interpolation="nearest"
        )  # nearest: a map's values are shown as they are, not blended with their neighbours
        if signed:  # zero is white like the page: without a frame one could not see where a map ends
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, color="#c8ccd0")
    if shared:
        with matplotlib.rc_context(_STYLE):
            figure.colorbar(drawn, ax=figure.axes, label=label, shrink=0.85, aspect=30, panchor=False)


def _grid(
    things: Sequence[np.ndarray],
    titles: Sequence[str] | None,
    what: str,
    *,
    alt: str,
    columns: int | None,
    width: float,
    bar: bool = False,
) -> tuple[Figure, list[Axes]]:
    count = len(things)
    if count == 0:
        raise ValueError(f"{what} is empty: there is nothing to draw")
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles: {len(titles)} came with {count} {what}, one for each is wanted")
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be 1 or more, not {columns}")
    columns = min(columns or 4, count)
    rows = math.ceil(count / columns)
    aspect = max(thing.shape[0] / thing.shape[1] for thing in things)
    above = 0.0 if titles is None else 0.08 + 0.2 * (1 + max(title.count("\n") for title in titles))
    cell = (width - _BAR * bar) / columns
    figure, axes = subplots(rows, columns, alt=alt, width=width, height=rows * (cell * aspect + above), squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.02)
    cells = list(axes.flat)
    for axis in cells:
        axis.set_axis_off()
        axis.set_anchor("S")  # what a picture's shape leaves free is for the title; the layout would halve it
    for axis, title in zip(cells, titles or (), strict=False):
        axis.set_title(title, fontsize=12)
    return figure, cells[:count]


def _fineness(pictures: Sequence[np.ndarray], inches: float) -> tuple[float, str]:
    """The resolution to draw pictures at, each `inches` wide, and how to enlarge them.

    Few pixels are meant to be seen as squares. A picture of many is enlarged smoothly, and by no more than it takes to
    keep the letters around it sharp: more would cost bytes and show nothing.
    """
    own = max(picture.shape[1] for picture in pictures) / (inches * _DPI)
    return (2.0, "nearest") if own < 0.4 else (min(max(own, 1.2), 2.0), "auto")


def _picture(image: Tensor) -> np.ndarray:
    if not isinstance(image, Tensor):
        raise TypeError(f"a picture must be a tensor (3, H, W), not {type(image).__name__}")
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"a picture must have the shape (3, H, W), not {tuple(image.shape)}")
    pixels = image.detach().float().cpu().permute(1, 2, 0).numpy()
    if not np.isfinite(pixels).all() or pixels.min() < -1e-4 or pixels.max() > 1 + 1e-4:
        raise ValueError(
            f"a picture must lie in [0, 1] to be shown, not in [{pixels.min():.3g}, {pixels.max():.3g}]: "
            "clipping it silently would hide what it is"
        )
    return pixels.clip(0, 1)


def _map(values: Tensor, *, signed: bool) -> np.ndarray:
    if not isinstance(values, Tensor):
        raise TypeError(f"a map must be a tensor (H, W), not {type(values).__name__}")
    if values.ndim != 2:
        raise ValueError(f"a map must have the shape (H, W), not {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError("a map must be finite: this one holds NaN or infinity")
    if not signed and values.min() < 0:
        raise ValueError(f"an unsigned map must not fall below 0: this one reaches {values.min():.3g}")
    return values.detach().float().cpu().numpy()


def _compressed(png: bytes) -> dict[str, bytes]:
    """A figure of few colours as a palette PNG, one with photographs as a JPEG: a fraction of the bytes.

    Many colours in large even squares, such as drawn weights or small pictures, are smaller as a PNG, and free of a
    JPEG's smear; with a palette, where one of 256 colours comes near enough.
    """
    from PIL import Image

    image = Image.open(BytesIO(png)).convert("RGB")
    file = BytesIO()
    if image.getcolors(_PALETTE_SUFFICES) is None:
        # Colours at half the resolution, which is still that of the page.
        image.save(file, "jpeg", quality=57, subsampling=2, optimize=True, progressive=True)
        jpeg = file.getvalue()
        if len(png) < 2 * len(jpeg):  # large even squares: worth a try
            few = image.quantize(256, kmeans=2, dither=Image.Dither.NONE)
            apart = np.asarray(few.convert("RGB"), float) - np.asarray(image, float)
            file = BytesIO()
            few.save(file, "png", optimize=True)
            if np.sqrt((apart**2).mean()) > _PALETTE_ERROR:
                file = BytesIO(png)
            if len(file.getvalue()) <= len(jpeg):
                return {"image/png": file.getvalue()}
        return {"image/jpeg": jpeg}
    image.quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return {"image/png": file.getvalue()}
