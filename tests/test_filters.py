"""Filters: display, correlation, spectra and orientation, against PyTorch, SciPy, scikit-image and known answers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib.filters import (
    FREQUENCIES,
    chroma,
    correlate,
    filter_weights,
    normalize_for_display,
    orientation,
    selectivity,
    spectrum,
    tuning,
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gabor(angle: float, *, size: int = 11, frequency: float = 0.2, phase: float = 0.0, channels: int = 3) -> Tensor:
    """A grey Gabor filter whose stripes run at `angle` degrees, by scikit-image: (1, channels, size, size)."""
    from skimage.filters import gabor_kernel

    # skimage's theta is the direction of the wave, in an array whose rows count downwards.
    theta = -math.radians(angle + 90)
    kernel = gabor_kernel(frequency, theta=theta, sigma_x=2, sigma_y=2, offset=phase, n_stds=6).real
    middle = [n // 2 for n in kernel.shape]
    half = size // 2
    cut = kernel[middle[0] - half : middle[0] + half + 1, middle[1] - half : middle[1] + half + 1]
    return torch.from_numpy(cut.copy()).expand(1, channels, -1, -1)


# --- weights -----------------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 3)))


def test_the_weights_of_the_first_convolution_are_a_copy() -> None:
    model = network()
    weights = filter_weights(model)
    assert weights.shape == (4, 3, 5, 5)
    assert torch.equal(weights, model[0].weight)
    assert not weights.requires_grad
    weights.zero_()
    assert model[0].weight.abs().sum() > 0


def test_a_layer_is_named_or_handed_over() -> None:
    model = network()
    assert torch.equal(filter_weights(model, "2.1"), model[2][1].weight)
    assert torch.equal(filter_weights(model, model[2][0]), model[2][0].weight)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("9", "'9' is not a module"),
        (nn.Conv2d(1, 1, 1), "is not a module of this model"),
        ("1", "holds no convolution"),
        ("2", "holds 2 convolutions"),
        (7, "is not a module"),
    ],
)
def test_a_layer_without_one_convolution_is_refused(layer: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        filter_weights(network(), layer)


def test_a_model_must_be_a_module() -> None:
    with pytest.raises(TypeError, match="model must be"):
        filter_weights("conv")  # type: ignore[arg-type]


# --- display -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("per", "dims"), [("filter", (1, 2, 3)), ("all", (0, 1, 2, 3)), ("channel", (2, 3))])
def test_the_stretch_reaches_0_and_1_in_each_part_and_keeps_the_order(per: Any, dims: tuple[int, ...]) -> None:
    filters = random(5, 3, 7, 7) * torch.arange(1, 6).view(-1, 1, 1, 1)
    shown = normalize_for_display(filters, per)
    assert shown.shape == filters.shape
    torch.testing.assert_close(shown.amin(dims), torch.zeros_like(shown.amin(dims)), atol=0, rtol=0)
    torch.testing.assert_close(shown.amax(dims), torch.ones_like(shown.amax(dims)), atol=1e-15, rtol=0)
    # A straight line through each part: differences keep their ratios.
    a, b, c = (shown[2, 1, 0, i] for i in range(3))
    x, y, z = (filters[2, 1, 0, i] for i in range(3))
    torch.testing.assert_close((a - b) / (b - c), (x - y) / (y - z))


def test_each_filter_alone_is_what_torchvision_shows() -> None:
    from torchvision.utils import make_grid

    filters = random(4, 3, 5, 5, dtype=torch.float32)
    grid = make_grid(filters, nrow=4, padding=0, normalize=True, scale_each=True)
    torch.testing.assert_close(grid, torch.cat(list(normalize_for_display(filters)), dim=2), atol=1e-4, rtol=0)


def test_a_constant_filter_is_grey_and_zero_is_grey_where_the_sign_is_kept() -> None:
    filters = torch.zeros(2, 3, 2, 2)
    filters[0] = 0.7
    filters[1, 0, 0, 0], filters[1, 2, 1, 1] = -2.0, 1.0
    assert (normalize_for_display(filters)[0] == 0.5).all()
    signed = normalize_for_display(filters, signed=True)
    assert (signed[0] == 1).all(), "all weights are the farthest from zero, and positive"
    assert signed[1, 1].eq(0.5).all()
    assert (signed[1, 0, 0, 0], signed[1, 2, 1, 1]) == (0.0, 0.75)


@pytest.mark.parametrize(
    ("filters", "per", "error", "words"),
    [
        ([[1]], "filter", TypeError, "filters must be a tensor"),
        (torch.zeros(3, 5, 5), "filter", ValueError, r"shape \(K, C, h, w\), not \(3, 5, 5\)"),
        (torch.zeros(0, 3, 5, 5), "filter", ValueError, "shape"),
        (torch.full((1, 3, 2, 2), math.nan), "filter", ValueError, "finite"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.int), "filter", ValueError, "floating point"),
        (torch.zeros(1, 3, 2, 2), "picture", ValueError, "per must be one of filter, all, channel"),
    ],
)
def test_what_cannot_be_shown_is_refused(filters: Any, per: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        normalize_for_display(filters, per)


# --- correlation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_correlate_equals_conv2d(stride: int, padding: int) -> None:
    images, filters, bias = random(2, 3, 11, 14), random(5, 3, 4, 3, seed=1), random(5, seed=2)
    wanted = functional.conv2d(images, filters, bias, stride=stride, padding=padding)
    torch.testing.assert_close(correlate(images, filters, bias, stride=stride, padding=padding), wanted)


def test_correlate_equals_scipy_which_calls_it_correlation_too() -> None:
    from scipy.signal import correlate2d

    image, kernel = random(1, 1, 9, 8), random(1, 1, 3, 4, seed=1)
    wanted = torch.from_numpy(correlate2d(image[0, 0].numpy(), kernel[0, 0].numpy(), mode="valid"))
    torch.testing.assert_close(correlate(image, kernel)[0, 0], wanted)


def test_correlate_is_linear_in_the_picture_and_keeps_the_graph() -> None:
    one, two, filters = random(1, 3, 8, 8), random(1, 3, 8, 8, seed=1), random(2, 3, 3, 3, seed=2)
    torch.testing.assert_close(
        correlate(2 * one - 3 * two, filters), 2 * correlate(one, filters) - 3 * correlate(two, filters)
    )
    one.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: correlate(x, filters, stride=2, padding=1), one)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((torch.zeros(1, 2, 5, 5), torch.zeros(1, 3, 3, 3)), {}, r"\(N, 3, H, W\)"),
        ((torch.zeros(3, 5, 5), torch.zeros(1, 3, 3, 3)), {}, r"\(N, 3, H, W\)"),
        ((torch.zeros(1, 3, 5, 5), torch.zeros(2, 3, 3, 3), torch.zeros(3)), {}, r"bias must have the shape \(2,\)"),
        ((torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 7, 3)), {}, "does not fit"),
        ((torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 3, 3)), {"stride": 0}, "stride"),
        ((torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 3, 3)), {"padding": -1}, "padding"),
        ((torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 3, 3)), {"stride": (1, 1)}, "whole numbers"),
        ((torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 3, 3)), {"padding": "same"}, "whole numbers"),
        ((torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 3, 3), 0.5), {}, "bias must be a tensor"),
        ((torch.zeros(1, 3, 5, 5).double(), torch.zeros(1, 3, 3, 3)), {}, "one type is wanted"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        correlate(*arguments, **options)


# --- spectra and orientation -------------------------------------------------------------------------------------


def test_a_spectrum_is_the_largest_response_to_stripes_of_each_frequency() -> None:
    filters, size = random(2, 3, 5, 5), 33
    found = spectrum(filters, size)
    assert found.shape == (2, size, size)
    y, x = torch.meshgrid(torch.arange(5.0, dtype=torch.float64), torch.arange(5.0, dtype=torch.float64), indexing="ij")
    for row, column in ((16, 16), (16, 20), (3, 30)):
        wave = torch.exp(-2j * math.pi * ((row - 16) / size * y + (column - 16) / size * x))
        wanted = (filters * wave).sum(dim=(2, 3)).abs().square().sum(dim=1).sqrt()
        torch.testing.assert_close(found[:, row, column], wanted)


def test_the_energy_of_a_spectrum_is_that_of_the_weights() -> None:
    """Parseval's theorem."""
    filters = random(3, 3, 7, 7)
    energy = spectrum(filters, 65).square().mean(dim=(1, 2))
    torch.testing.assert_close(energy, filters.square().sum(dim=(1, 2, 3)))


@pytest.mark.parametrize(("size", "words"), [(32, "odd"), (5, "at least 7")])
def test_a_spectrum_needs_a_middle_and_room(size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        spectrum(random(1, 3, 7, 7), size)


def test_tuning_is_the_response_to_real_stripes_shifted_through_all_phases() -> None:
    filters, angle, size = random(1, 3, 5, 5), 30.0, 5
    steps, total = 720, torch.zeros((), dtype=torch.float64)
    rows, columns = torch.meshgrid(*(torch.arange(size, dtype=torch.float64),) * 2, indexing="ij")
    for frequency in FREQUENCIES:
        # The distance across stripes that rise to the right by `angle`; rows count downwards.
        across = columns * math.sin(math.radians(angle)) + rows * math.cos(math.radians(angle))
        shifts = torch.linspace(0, 2 * math.pi, steps, dtype=torch.float64)[:, None, None]
        stripes = torch.cos(2 * math.pi * frequency * across + shifts)
        largest = torch.einsum("chw,phw->cp", filters[0], stripes).amax(dim=1)
        total = total + largest.square().sum()
    wanted = (total / len(FREQUENCIES)).sqrt()
    torch.testing.assert_close(tuning(filters, torch.tensor([angle]))[0, 0], wanted, atol=0, rtol=1e-4)


@pytest.mark.parametrize("phase", [0.0, math.pi / 2])
@pytest.mark.parametrize("angle", [0, 20, 45, 90, 135, 170])
def test_the_orientation_of_a_gabor_filter_is_found(angle: int, phase: float) -> None:
    found = orientation(gabor(angle, phase=phase)).item()
    assert abs((found - angle + 90) % 180 - 90) < 1.5
    assert tuning(gabor(angle, phase=phase), torch.arange(0, 180, 5))[0].argmax() * 5 == pytest.approx(angle, abs=5)


def test_horizontal_stripes_have_0_degrees_and_stripes_that_rise_to_the_right_45() -> None:
    horizontal = torch.tensor([1.0, -2.0, 1.0])[:, None].expand(1, 1, 3, 3)
    rising = (2 * torch.eye(5).flip(1) - torch.eye(5).flip(1).roll(1, 0) - torch.eye(5).flip(1).roll(-1, 0))[None, None]
    assert orientation(horizontal).item() % 180 == pytest.approx(0, abs=1e-3)
    assert orientation(rising).item() == pytest.approx(45, abs=3)
    assert orientation(horizontal.transpose(2, 3)).item() == pytest.approx(90, abs=1e-3)


def test_selectivity_is_high_for_stripes_low_for_a_blob_and_0_for_nothing() -> None:
    y, x = torch.meshgrid(*(torch.arange(-5.0, 6.0),) * 2, indexing="ij")
    blob = torch.exp(-(x**2 + y**2) / 8).expand(1, 3, 11, 11)
    stripes = gabor(60).float()
    values = selectivity(torch.cat([stripes, blob, torch.zeros(1, 3, 11, 11)]))
    assert values[0] > 0.5
    assert values[1] < 0.01
    assert values[2] == 0


def test_orientation_and_selectivity_care_neither_for_sign_nor_for_strength() -> None:
    filters = random(6, 3, 7, 7)
    torch.testing.assert_close(selectivity(-3 * filters), selectivity(filters))
    torch.testing.assert_close(orientation(-3 * filters), orientation(filters))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_single(dtype: torch.dtype) -> None:
    filters = (100 * random(3, 3, 5, 5)).to(dtype)
    for measure in (selectivity, orientation, chroma, spectrum):
        torch.testing.assert_close(measure(filters), measure(filters.float()))


def test_a_quarter_turn_adds_90_degrees_and_leaves_the_selectivity() -> None:
    filters = random(6, 3, 7, 7)
    turned = filters.rot90(1, (2, 3))
    torch.testing.assert_close(selectivity(turned), selectivity(filters))
    difference = (orientation(turned) - orientation(filters)) % 180
    torch.testing.assert_close(difference, torch.full_like(difference, 90))


def test_chroma_is_0_for_grey_1_for_opposed_colours_and_two_thirds_for_one_channel() -> None:
    pattern = random(1, 1, 5, 5)
    grey = pattern.expand(-1, 3, -1, -1)
    opposed = torch.cat([pattern, -pattern, 0 * pattern], dim=1)
    red = torch.cat([pattern, 0 * pattern, 0 * pattern], dim=1)
    values = chroma(torch.cat([grey, opposed, red, 0 * red]))
    torch.testing.assert_close(values, torch.tensor([0, 1, 2 / 3, 0], dtype=torch.float64))


@pytest.mark.parametrize("angles", [3, torch.zeros(2, 2), torch.zeros(0)])
def test_angles_must_be_a_list_of_degrees(angles: Any) -> None:
    with pytest.raises(ValueError, match="angles must be"):
        tuning(random(1, 3, 5, 5), angles)


def test_only_three_channels_have_a_colour() -> None:
    with pytest.raises(ValueError, match="3 channels to have a colour, not 64"):
        chroma(random(2, 64, 3, 3))
