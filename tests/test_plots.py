"""Figures: what is drawn is what was handed over, on the scale that is promised, with words for who cannot see."""

from __future__ import annotations

from io import BytesIO

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.image import AxesImage
from PIL import Image
from skimage import data

from lessons_lib.plots import (
    BLUE,
    GREEN,
    ORANGE,
    SIGNED,
    UNSIGNED,
    Figure,
    coloured,
    image_grid,
    image_rows,
    interval_grid,
    map_grid,
    panel_grid,
    prediction_bars,
    subplots,
)
from lessons_lib.trust import Interval

PICTURES = torch.rand(3, 3, 8, 10, generator=torch.Generator().manual_seed(0))


def drawn(figure: Figure) -> list[AxesImage]:
    return [image for axes in figure.axes for image in axes.images]


def shown(figure: Figure) -> tuple[Image.Image, dict[str, object]]:
    data, metadata = figure._repr_mimebundle_()
    ((kind, content),) = data.items()
    return Image.open(BytesIO(content)), metadata[kind]


def test_a_grid_shows_the_pictures_themselves_with_their_titles() -> None:
    figure = image_grid(PICTURES, ["a", "b", "c"], alt="three", columns=2)
    for image, picture in zip(drawn(figure), PICTURES, strict=True):
        np.testing.assert_allclose(np.asarray(image.get_array()), picture.permute(1, 2, 0).numpy())
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", ""]


@pytest.mark.parametrize("title", ["Äpfel", "Ägypten\n0.89"])
@pytest.mark.parametrize("columns", [1, 2, 3])
def test_no_title_is_cut_off(title: str, columns: int) -> None:
    grids = [
        image_grid(PICTURES, [title] * 3, alt="x", columns=columns),
        map_grid(PICTURES[:, 0], [title] * 3, alt="x", signed=False, columns=columns),
        panel_grid([*PICTURES[:2], PICTURES[2, 0]], [title] * 3, alt="x", signed=True, columns=columns),
    ]
    for figure in grids:
        pixels = np.asarray(shown(figure)[0].convert("L"))
        assert min(pixels[0].min(), pixels[-1].min()) > 200, "the figure ends in the middle of something"


def test_rows_stand_under_their_names_and_go_on_in_the_next_line() -> None:
    rows = {"few": PICTURES, "many": torch.rand(14, 3, 8, 10)}
    figure = image_rows(rows, alt="two rows")
    assert [text.get_text() for text in figure.axes[0].texts] == ["few", "many"]
    assert len(drawn(figure)) == 17
    boxes = [image.get_extent() for image in drawn(figure)]
    assert len({round(top, 4) for *_, top in boxes}) == 3, "three, then twelve and two"
    assert {round((right - left) / (bottom - top), 3) for left, right, bottom, top in boxes} == {10 / 8}
    assert max(right for _, right, _, _ in boxes) <= figure.get_figwidth() + 1e-6
    assert max(bottom for _, _, bottom, _ in boxes) <= figure.get_figheight()
    np.testing.assert_allclose(np.asarray(drawn(figure)[0].get_array()), PICTURES[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize("rows", [{}, {"none": []}, {"two": [PICTURES[0], PICTURES[0][:, :4]]}])
def test_rows_that_cannot_be_drawn_are_refused(rows: dict[str, list[torch.Tensor]]) -> None:
    with pytest.raises(ValueError, match="rows: "):
        image_rows(rows, alt="none")


def test_panels_mix_pictures_and_maps_on_one_scale() -> None:
    figure = panel_grid([PICTURES[0], torch.full((4, 4), 0.5), torch.eye(4)], alt="mixed", signed=True)
    picture, faint, strong = drawn(figure)[:3]
    assert picture.get_array().shape == (8, 10, 3)
    assert faint.get_clim() == strong.get_clim() == (-1.0, 1.0)


def test_panels_without_a_map_are_refused() -> None:
    with pytest.raises(ValueError, match="holds no map"):
        panel_grid(list(PICTURES), alt="pictures", signed=False)


def test_alt_text_goes_out_with_the_figure() -> None:
    _, metadata = shown(image_grid(PICTURES, alt="Three  pictures\nof noise."))
    assert metadata["alt"] == "Three pictures of noise."


def test_a_figure_is_stored_finer_than_it_is_shown() -> None:
    image, metadata = shown(subplots(alt="empty", width=4, height=2)[0])
    assert (metadata["width"], metadata["height"]) == (384, 192)
    assert image.size == (672, 336)


def test_photographs_are_stored_as_jpeg_and_graphs_as_png() -> None:
    photograph = torch.from_numpy(data.chelsea()).permute(2, 0, 1) / 255
    assert shown(image_grid([photograph], alt="a cat"))[0].format == "JPEG"
    figure, axes = subplots(alt="a line")
    axes.plot([0, 1], [0, 1])
    assert shown(figure)[0].format == "PNG"


def test_weights_drawn_large_keep_their_exact_colours() -> None:
    """There are too many of them for a palette, and a JPEG would smear their edges."""
    weights = torch.rand(96, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    image, _ = shown(image_grid(weights, alt="weights", columns=12))
    assert image.format == "PNG"
    colours = {colour[:3] for _, colour in image.convert("RGB").getcolors(10**6)}
    exact = (weights[0, :, 0, 0] * 255).tolist()
    assert any(max(abs(a - b) for a, b in zip(exact, colour, strict=True)) <= 1 for colour in colours)


def test_small_pictures_enlarged_have_a_palette_and_hardly_other_colours() -> None:
    """Exact they weigh twice as much, and a JPEG of their squares weighs more still."""
    cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None] / 255
    crops = [cat[..., :300, 30 * k : 30 * k + 300] for k in range(5)]
    small = torch.cat([torch.nn.functional.interpolate(crop, size=32, mode="area") for crop in crops])
    image, _ = shown(image_grid(small, alt="parts of a cat", columns=5))
    assert (image.format, image.mode) == ("PNG", "P")
    middle = image.convert("RGB").crop((0, 0, image.width // 5, image.height))
    colours = torch.tensor([colour for _, colour in middle.getcolors(10**6)], dtype=torch.float32)
    exact = 255 * small[0].flatten(1).T
    nearest = torch.cdist(exact, colours).amin(dim=1)
    assert nearest.square().mean().sqrt() < 10


def test_figures_stand_on_white_in_every_theme() -> None:
    image, _ = shown(subplots(alt="empty")[0])
    assert image.convert("RGBA").getpixel((2, 2)) == (255, 255, 255, 255)


def test_maps_share_one_scale_and_signed_ones_are_centred_on_zero() -> None:
    maps = torch.stack([torch.full((4, 4), 0.5), torch.full((4, 4), -2.0)])
    first, second = drawn(map_grid(maps, alt="two", signed=True))[:2]
    assert first.get_clim() == second.get_clim() == (-2.0, 2.0)
    assert first.get_cmap() == SIGNED
    assert SIGNED(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.01)


def test_maps_may_have_a_scale_each_but_then_no_colour_bar() -> None:
    maps = torch.stack([torch.full((4, 4), 0.5), torch.full((4, 4), 2.0)])
    figure = map_grid(maps, alt="two", signed=False, shared=False)
    assert [image.get_clim() for image in drawn(figure)] == [(0, 0.5), (0, 2.0)]
    assert len(figure.axes) == 2
    assert len(map_grid(maps, alt="two", signed=False).axes) == 3
    assert drawn(figure)[0].get_cmap().name == UNSIGNED


def test_a_map_of_zeros_can_be_drawn() -> None:
    shown(map_grid(torch.zeros(1, 4, 4), alt="zeros", signed=True))


@pytest.mark.parametrize("name", [UNSIGNED, "signed"])
def test_colour_maps_survive_colour_blindness(name: str) -> None:
    """In grey the unsigned map never turns back; the signed one is brightest in its middle, its ends apart in blue."""
    import matplotlib

    colours = SIGNED(np.linspace(0, 1, 101)) if name == "signed" else matplotlib.colormaps[name](np.linspace(0, 1, 101))
    grey = colours[:, :3] @ [0.2126, 0.7152, 0.0722]
    if name == "signed":
        assert (np.diff(grey[:51]) >= -1e-3).all()
        assert (np.diff(grey[50:]) <= 1e-3).all()
        assert abs(colours[0, 2] - colours[-1, 2]) > 0.5  # blue is the channel that red-green blindness keeps
    else:
        assert (np.diff(grey) >= -1e-3).all()


def test_lines_and_points_take_their_colours_from_the_safe_ones() -> None:
    _, axes = subplots(alt="three lines")
    assert [axes.plot([0, 1])[0].get_color() for _ in range(3)] == [BLUE, ORANGE, GREEN]


def test_prediction_bars_are_as_long_as_the_probabilities_and_tell_them_in_words() -> None:
    figure = prediction_bars(PICTURES[0], [("red leaf", 0.75, 8), ("snail", 0.25, 9)], title="What?")
    bars = figure.axes[1].patches
    assert [bar.get_width() for bar in bars] == [0.75, 0.25]
    assert figure.axes[1].get_xlim() == (0, 1)
    assert figure.alt.startswith("What?")
    assert "red leaf 0.75, snail 0.25" in figure.alt


def test_drawing_changes_no_global_setting() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    shown(map_grid(torch.rand(2, 4, 4), alt="two", signed=False))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "error", "words"),
    [
        (lambda: subplots(alt="  "), ValueError, "alt is empty"),
        (lambda: image_grid([], alt="x"), ValueError, "nothing to draw"),
        (lambda: image_grid(PICTURES, ["a"], alt="x"), ValueError, "titles: 1 came with 3"),
        (lambda: image_grid([PICTURES[0] * 2], alt="x"), ValueError, r"must lie in \[0, 1\]"),
        (lambda: image_grid([PICTURES[0] * float("nan")], alt="x"), ValueError, r"must lie in \[0, 1\]"),
        (lambda: image_grid([PICTURES[0].permute(1, 2, 0)], alt="x"), ValueError, r"shape \(3, H, W\)"),
        (lambda: image_grid([PICTURES[0].numpy()], alt="x"), TypeError, "not ndarray"),
        (lambda: map_grid(-torch.ones(1, 2, 2), alt="x", signed=False), ValueError, "below 0"),
        (lambda: map_grid(torch.full((1, 2, 2), float("inf")), alt="x", signed=True), ValueError, "finite"),
        (lambda: map_grid(torch.rand(2, 2), alt="x", signed=True), ValueError, r"shape \(H, W\)"),
        (lambda: map_grid([[1, 2]], alt="x", signed=True), TypeError, "not list"),
        (lambda: prediction_bars(PICTURES[0], []), ValueError, "predictions is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(draw, error: type[Exception], words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        draw()


def test_coloured_maps_run_over_the_colour_map_up_to_their_own_largest() -> None:
    maps = torch.stack([torch.linspace(0, 1, 16).view(4, 4), torch.linspace(0, 50, 16).view(4, 4)])
    pictures = coloured(maps, signed=False, share=1)
    assert pictures.shape == (2, 3, 4, 4)
    torch.testing.assert_close(pictures[0], pictures[1])  # each on its own scale
    ends = torch.tensor([matplotlib.colormaps[UNSIGNED](end)[:3] for end in (0.0, 1.0)], dtype=torch.float32)
    torch.testing.assert_close(torch.stack([pictures[0, :, 0, 0], pictures[0, :, -1, -1]]), ends)


def test_signed_maps_are_coloured_around_white() -> None:
    (picture,) = coloured(torch.tensor([[[-2.0, 0.0, 2.0]]]), signed=True, share=1)
    wanted = torch.tensor([SIGNED(value)[:3] for value in (0.0, 0.5, 1.0)], dtype=torch.float32).T
    torch.testing.assert_close(picture[:, 0], wanted)


def test_a_few_large_values_do_not_leave_a_coloured_map_dark() -> None:
    maps = torch.ones(1, 20, 20)
    maps[0, 0, 0] = 1000
    (picture,) = coloured(maps, signed=False)
    torch.testing.assert_close(picture[:, 5, 5], picture[:, 0, 0])


def test_a_large_coloured_map_is_averaged_over_squares() -> None:
    maps = torch.rand(1, 224, 448, generator=torch.Generator().manual_seed(0))
    wanted = coloured(torch.nn.functional.avg_pool2d(maps, 2), signed=False)
    torch.testing.assert_close(coloured(maps, signed=False), wanted)


def test_a_coloured_map_of_zeros_is_the_colour_of_zero() -> None:
    (picture,) = coloured(torch.zeros(1, 3, 3), signed=False)
    assert len(picture.flatten(1).unique(dim=1).T) == 1
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share must lie in"):
            coloured(torch.zeros(1, 3, 3), signed=False, share=share)


def test_a_table_of_intervals_has_a_row_for_each_name_and_a_column_for_each_score() -> None:
    table = {
        "saliency": {"point": Interval(0.7, 0.6, 0.8), "energy": Interval(0.4, 0.35, 0.45)},
        "noise": {"point": Interval(0.2, 0.1, 0.3), "energy": Interval(0.2, 0.15, 0.25)},
    }
    figure = interval_grid(table, alt="A table.", highlighted=["noise"], titles=["pointing", "energy"])
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["saliency", "noise"]
    assert (left.get_title(), right.get_title()) == ("pointing", "energy")
    bars, dots = left.lines[::2], left.lines[1::2]
    assert [bar.get_xdata().tolist() for bar in bars] == [[0.6, 0.8], [0.1, 0.3]]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [0.7, 0.2]
    assert [dot.get_color() for dot in dots] == [BLUE, ORANGE]
    top, bottom = (dot.get_ydata()[0] for dot in dots)
    assert left.transData.transform((0, top))[1] > left.transData.transform((0, bottom))[1]
    with pytest.raises(ValueError, match="table is empty"):
        interval_grid({}, alt="Nothing.")
    short = {"saliency": table["saliency"], "noise": {"energy": Interval(0.2, 0.15, 0.25)}}
    with pytest.raises(ValueError, match="row 'noise' of the table needs the scores point, energy, not energy"):
        interval_grid(short, alt="A table.")
    with pytest.raises(ValueError, match="point of 'saliency' leaves the limits 0 to"):
        interval_grid(table, alt="A table.", limits=(0, 0.5))
    with pytest.raises(TypeError, match="highlighted must be a collection of names"):
        interval_grid(table, alt="A table.", highlighted="noise")
