"""Maximization: objectives, steps, waves and remedies against plain formulas in double precision, NumPy and SciPy."""

from __future__ import annotations

import io
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import meet
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib import maximization
from lessons_lib.maximization import (
    Objective,
    blur,
    channel,
    class_layer,
    clip_small_contribution,
    clip_small_norm,
    diversity,
    fourier_coefficients,
    fourier_images,
    jitter,
    l2,
    layer,
    logit,
    maximize,
    mean_colour,
    neuron,
    robust_probability,
    rotate,
    round_to_8_bits,
    scale,
    total_variation,
)
from lessons_lib.resnet import Normalize
from lessons_lib.specimens import Specimen, load_specimen

SIZE = 12
MEAN = (0.4, 0.5, 0.45)
NEVER = pytest.mark.filterwarnings("ignore:objective .* never had a gradient:RuntimeWarning")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(count: int = 3, height: int = SIZE, width: int = SIZE, seed: int = 0) -> Tensor:
    """Away from 0 and 1, so that a small step is not cut off."""
    return 0.3 + 0.4 * uniform(count, 3, height, width, seed=seed)


def network(seed: int = 0) -> nn.Sequential:
    """Double precision, random weights: two convolutions with ReLUs that work in place, and a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            OrderedDict(
                normalize=Normalize(MEAN, (0.2, 0.25, 0.3)),
                first=nn.Conv2d(3, 6, 3, stride=2),
                relu=nn.ReLU(inplace=True),
                second=nn.Conv2d(6, 5, 3, padding=1),
                last=nn.ReLU(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                head=nn.Linear(5, 7),
            )
        )
    return model.double().eval().requires_grad_(False)


def by_hand(model: nn.Sequential, images: Tensor) -> dict[str, Tensor]:
    """What each layer puts out, without any module or hook."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, (0.2, 0.25, 0.3)))
    mean, std = mean.float().double(), std.float().double()  # the buffers were single precision once
    first = functional.conv2d((images - mean) / std, model.first.weight, model.first.bias, stride=2)
    relu = first.clamp(min=0)
    second = functional.conv2d(relu, model.second.weight, model.second.bias, padding=1)
    last = second.clamp(min=0)
    head = last.mean(dim=(2, 3)) @ model.head.weight.T + model.head.bias
    return {"first": first, "relu": relu, "second": second, "last": last, "head": head}


def scores_of(model: nn.Module, objective: Any, images: Tensor, count: int | None = None) -> Tensor:
    """The scores that the engine gives to pictures as they are."""
    told: list[Tensor] = []
    maximize(
        model,
        objective,
        steps=0,
        start=images,
        count=count or len(images),
        parametrization="pixels",
        watch=lambda step, images, scores: told.append(scores),
    )
    return told[0]


def gradient_of(model: nn.Module, objective: Objective, images: Tensor) -> Tensor:
    """The gradient that the engine goes along: a step of plain ascent too small to leave [0, 1]."""
    tiny = 1e-4
    moved = maximize(
        model,
        objective,
        steps=1,
        start=images,
        count=len(images),
        parametrization="pixels",
        rule="ascent",
        step_size=tiny,
    )
    assert moved.min() > 0 and moved.max() < 1, "the test's own step is too long"
    return (moved - images) / tiny


# --- objectives --------------------------------------------------------------------------------------------------


def total_variation_by_loops(images: Tensor) -> Tensor:
    total = torch.zeros(len(images), dtype=images.dtype)
    for row in range(images.shape[2]):
        for column in range(images.shape[3]):
            here = images[:, :, row, column]
            if row:
                total = total + (here - images[:, :, row - 1, column]).abs().sum(dim=1)
            if column:
                total = total + (here - images[:, :, row, column - 1]).abs().sum(dim=1)
    return total


def diversity_by_loops(maps: Tensor) -> Tensor:
    grams = [torch.einsum("chw,dhw->cd", one, one).flatten() for one in maps]
    values = []
    for i, own in enumerate(grams):
        cosines = [own @ other / (own.norm() * other.norm()) for j, other in enumerate(grams) if j != i]
        values.append(-sum(cosines) / len(cosines))
    return torch.stack(values)


Formula = Callable[[dict[str, Tensor], Tensor], Tensor]
COLOUR = torch.tensor([0.2, 0.5, 0.7])
OBJECTIVES: dict[str, tuple[Objective, Formula]] = {
    "a channel": (channel("second", 2), lambda o, x: o["second"][:, 2].mean(dim=(1, 2))),
    "a channel behind its ReLU": (channel("last", 3), lambda o, x: o["last"][:, 3].mean(dim=(1, 2))),
    "a channel before a ReLU in place": (channel("first", 4), lambda o, x: o["first"][:, 4].mean(dim=(1, 2))),
    "a neuron": (neuron("second", 3, 4, 1), lambda o, x: o["second"][:, 3, 4, 1]),
    "the neuron in the middle": (neuron("second", 3), lambda o, x: o["second"][:, 3, 2, 2]),
    "a neuron of the first row": (neuron("second", 0, row=0), lambda o, x: o["second"][:, 0, 0, 2]),
    "a layer": (layer("second"), lambda o, x: o["second"].square().mean(dim=(1, 2, 3))),
    "a linear layer": (layer("head"), lambda o, x: o["head"].square().mean(dim=1)),
    "a class": (logit(5), lambda o, x: o["head"][:, 5]),
    "a class of a named layer": (logit(5, "head"), lambda o, x: o["head"][:, 5]),
    "a class where the layer has places": (logit(3, "second"), lambda o, x: o["second"][:, 3].mean(dim=(1, 2))),
    "diversity": (diversity("second"), lambda o, x: diversity_by_loops(o["second"])),
    "l2": (l2(), lambda o, x: ((x - 0.5) ** 2).sum(dim=(1, 2, 3))),
    "l2 around a number": (l2(0.2), lambda o, x: ((x - 0.2) ** 2).sum(dim=(1, 2, 3))),
    "l2 around a colour": (l2(COLOUR), lambda o, x: sum(((x[:, c] - COLOUR[c]) ** 2).sum((1, 2)) for c in range(3))),
    "total variation": (total_variation(), lambda o, x: total_variation_by_loops(x)),
    "a sum": (channel("first", 0) + logit(1), lambda o, x: o["first"][:, 0].mean(dim=(1, 2)) + o["head"][:, 1]),
    "a difference": (
        channel("first", 0) - neuron("second", 1),
        lambda o, x: o["first"][:, 0].mean(dim=(1, 2)) - o["second"][:, 1, 2, 2],
    ),
    "a multiple": (0.25 * logit(0), lambda o, x: o["head"][:, 0] / 4),
    "a multiple from the right": (logit(0) * 3, lambda o, x: 3 * o["head"][:, 0]),
    "a negative": (-channel("second", 2), lambda o, x: -o["second"][:, 2].mean(dim=(1, 2))),
    "a class with penalties": (
        logit(2) - 0.01 * l2() - 0.001 * total_variation(),
        lambda o, x: o["head"][:, 2] - 0.01 * ((x - 0.5) ** 2).sum(dim=(1, 2, 3)) - 0.001 * total_variation_by_loops(x),
    ),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_equals_its_formula(name: str) -> None:
    objective, formula = OBJECTIVES[name]
    model, images = network(), pictures()
    torch.testing.assert_close(scores_of(model, objective, images), formula(by_hand(model, images), images))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_engine_goes_along_the_gradient_of_the_formula(name: str) -> None:
    objective, formula = OBJECTIVES[name]
    model, images = network(), pictures()
    pixels = images.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(formula(by_hand(model, pixels), pixels).sum(), pixels)
    assert wanted.abs().max() > 1e-4
    torch.testing.assert_close(gradient_of(model, objective, images), wanted, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_gradient_of_an_objective_agrees_with_finite_differences(name: str) -> None:
    objective, _ = OBJECTIVES[name]
    model, images, tiny = network(), pictures(), 1e-6
    gradient = gradient_of(model, objective, images)
    for seed in range(3):
        # One direction for all pictures at once: diversity depends on all of them.
        direction = normal(*images.shape, seed=10 + seed)
        after, before = (scores_of(model, objective, images + sign * tiny * direction).sum() for sign in (1, -1))
        difference = (after - before) / (2 * tiny)
        torch.testing.assert_close((gradient * direction).sum(), difference, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", ["a class with penalties", "diversity", "a layer"])
def test_gradcheck_agrees_with_the_formulas_of_this_file(name: str) -> None:
    _, formula = OBJECTIVES[name]
    model, images = network(), pictures(2, 8, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: formula(by_hand(model, x), x), images, fast_mode=True)


def test_the_sum_of_a_list_is_the_sum_of_its_objectives() -> None:
    model, images = network(), pictures()
    total: Any = sum([channel("second", k) for k in range(3)])
    wanted = by_hand(model, images)["second"][:, :3].mean(dim=(2, 3)).sum(dim=1)
    torch.testing.assert_close(scores_of(model, total, images), wanted)
    torch.testing.assert_close(scores_of(model, sum([logit(2)]), images), by_hand(model, images)["head"][:, 2])


def test_a_layer_may_be_the_module_or_its_name() -> None:
    model, images = network(), pictures()
    both = [
        scores_of(model, make, images)
        for make in (channel("second", 1) + logit(2), channel(model.second, 1) + logit(2, model.head))
    ]
    assert torch.equal(*both)


def test_the_middle_of_an_even_number_of_places_is_the_first_of_the_second_half() -> None:
    model, images = network(), pictures(2, 14, 18)
    second = by_hand(model, images)["second"]
    assert second.shape[2:] == (6, 8)
    torch.testing.assert_close(scores_of(model, neuron("second", 1), images), second[:, 1, 3, 4])
    torch.testing.assert_close(scores_of(model, neuron("second", 1, column=7), images), second[:, 1, 3, 7])


def test_diversity_lies_between_alike_and_orthogonal() -> None:
    model = nn.Sequential(OrderedDict(same=nn.Conv2d(3, 3, 1, bias=False))).double()
    nn.init.dirac_(model.same.weight)
    red, green = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    red[0], green[1] = 1, 1
    torch.testing.assert_close(scores_of(model, diversity("same"), torch.stack([red, red])), -torch.ones(2).double())
    torch.testing.assert_close(scores_of(model, diversity("same"), torch.stack([red, green])), torch.zeros(2).double())


def test_diversity_compares_the_pictures_of_one_objective_only() -> None:
    model, images = network(), pictures(2)
    alone = scores_of(model, diversity("second"), images)
    beside = scores_of(model, [channel("first", 0), diversity("second")], images, count=2)
    torch.testing.assert_close(beside[2:], alone)
    with pytest.raises(ValueError, match="count=2"):
        scores_of(model, diversity("second"), images[:1])


def test_objectives_say_what_they_are_and_combine_with_nothing_else() -> None:
    assert "channel 3" in repr(channel("first", 3) - 2 * l2())
    assert "l2" in repr(channel("first", 3) - 2 * l2())
    for wrong in (lambda: l2() + 1, lambda: l2() * l2(), lambda: l2() - "x", lambda: True * l2(), lambda: "x" * l2()):
        with pytest.raises(TypeError):
            wrong()


@NEVER
def test_an_objective_of_ones_own_sees_layers_and_the_pictures_before_they_are_moved() -> None:
    model, images = network(), pictures(2)
    seen: list[Tensor] = []

    def score(outputs: Any, given: Tensor) -> Tensor:
        seen.append(given.detach().clone())
        return outputs["second"].amax(dim=(1, 2, 3)) + given.mean(dim=(1, 2, 3))

    mine = Objective("mine", ("second",), score)
    told = scores_of(model, mine, images)
    torch.testing.assert_close(told, by_hand(model, images)["second"].amax(dim=(1, 2, 3)) + images.mean(dim=(1, 2, 3)))
    seen.clear()
    maximize(model, mine, steps=1, start=images, count=2, parametrization="pixels", transforms=[lambda x, r: x * 0])
    assert torch.equal(seen[0], images)


# --- waves and pixels --------------------------------------------------------------------------------------------

SIZES = [(8, 8), (9, 9), (8, 13), (11, 6), (16, 9)]
PUBLISHED = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])  # of lucid, rows are R, G, B


@pytest.mark.parametrize("size", SIZES)
def test_pictures_come_back_from_their_waves(size: tuple[int, int]) -> None:
    images = 0.02 + 0.96 * uniform(2, 3, *size)
    coefficients = fourier_coefficients(images)
    assert coefficients.shape == (2, 3, size[0], size[1] // 2 + 1, 2)
    torch.testing.assert_close(fourier_images(coefficients, size), images, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_waves_come_back_from_their_pictures(size: tuple[int, int]) -> None:
    random_pictures = fourier_images(normal(1, 3, size[0], size[1] // 2 + 1, 2), size)
    again = fourier_images(fourier_coefficients(random_pictures), size)
    torch.testing.assert_close(again, random_pictures, atol=1e-9, rtol=0)


def test_black_and_white_become_nearly_so() -> None:
    images = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    images[..., 4:] = 1
    again = fourier_images(fourier_coefficients(images), (8, 8))
    torch.testing.assert_close(again, images.clamp(0.001, 0.999), atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_waves_of_zero_are_grey(size: tuple[int, int]) -> None:
    grey = fourier_images(torch.zeros(1, 3, size[0], size[1] // 2 + 1, 2), size)
    assert grey.shape == (1, 3, *size)
    assert (grey == 0.5).all()


def test_pictures_of_waves_stay_in_range_however_high_the_waves() -> None:
    moderate = fourier_images(normal(2, 3, 16, 9, 2), (16, 16))
    assert moderate.min() > 0 and moderate.max() < 1
    huge = fourier_images(1e6 * normal(2, 3, 16, 9, 2), (16, 16))
    assert huge.min() >= 0 and huge.max() <= 1


@pytest.mark.parametrize("size", [(48, 48), (40, 61)])
def test_the_spectrum_of_random_waves_falls_as_one_over_the_frequency(size: tuple[int, int]) -> None:
    noise = torch.view_as_real(torch.fft.rfft2(normal(40, 3, *size), norm="ortho"))
    images = fourier_images(1e-3 * noise, size)  # so faint that a sigmoid is straight
    spectrum = np.abs(np.fft.fft2(images.numpy() - 0.5)).mean(axis=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])[None])
    inner = (frequency > 1.5 / min(size)) & (frequency < 0.5)
    slope, height = np.polyfit(np.log(frequency[inner]), np.log(spectrum[inner]), 1)
    assert slope == pytest.approx(-1, abs=0.03)
    for axis in (spectrum[0] * frequency[0], spectrum[:, 0] * frequency[:, 0]):
        assert axis[2:8].mean() == pytest.approx(np.exp(height), rel=0.1), "no direction is preferred"


def test_an_even_brightness_weighs_as_much_as_the_longest_wave() -> None:
    coefficients = torch.zeros(2, 3, 16, 9, 2, dtype=torch.float64)
    coefficients[0, 0, 0, 0, 0] = coefficients[1, 0, 0, 1, 0] = 1e-4
    spectrum = torch.fft.fft2(fourier_images(coefficients, (16, 16)) - 0.5).abs()
    torch.testing.assert_close(spectrum[0, :, 0, 0], spectrum[1, :, 0, 1], rtol=1e-4, atol=0)


def test_a_wave_of_the_highest_frequency_along_one_side_has_half_its_coefficient() -> None:
    coefficients = torch.zeros(1, 3, 16, 9, 2, dtype=torch.float64)
    coefficients[0, 0, 8, 0, 0] = 1  # black and white in turn from row to row: 0.25 over a frequency of 0.5
    flat = fourier_images(coefficients, (16, 16)).logit()
    brightness = torch.from_numpy(PUBLISHED[:, 0] / np.linalg.norm(PUBLISHED, axis=0).max())
    wanted = 0.5 * brightness / 16 * torch.tensor([1.0, -1.0]).repeat(8)[:, None, None]  # orthonormal: over 16
    torch.testing.assert_close(flat[0].permute(1, 2, 0), wanted.expand(16, 16, 3))


def test_the_channels_of_waves_are_the_published_uncorrelated_colours() -> None:
    coefficients = torch.zeros(3, 3, 8, 5, 2, dtype=torch.float64)
    for plane in range(3):
        coefficients[plane, plane, 1, 2] = torch.tensor([0.3, -0.2])
    flat = fourier_images(coefficients, (8, 8)).logit()
    for plane in range(3):
        column = torch.from_numpy(PUBLISHED[:, plane])
        strength = flat[plane].flatten(1).norm(dim=1) * column.sign()
        torch.testing.assert_close(functional.normalize(strength, dim=0), functional.normalize(column, dim=0))
    lengths = flat.flatten(1).norm(dim=1)
    wanted = torch.from_numpy(np.linalg.norm(PUBLISHED, axis=0))
    torch.testing.assert_close(lengths / lengths[0], wanted / wanted[0])


def test_colours_of_random_waves_correlate_as_in_photographs() -> None:
    images = fourier_images(normal(150, 3, 16, 9, 2), (16, 16))
    found = np.corrcoef(images.logit().transpose(0, 1).flatten(1).numpy())
    covariance = PUBLISHED @ PUBLISHED.T
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found, covariance / np.outer(deviation, deviation), atol=0.02)


def test_gradcheck_holds_for_waves() -> None:
    coefficients = normal(1, 3, 5, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: fourier_images(c, (5, 4)), coefficients, fast_mode=True)


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_both_parametrizations_begin_as_faint_noise_of_the_size_that_is_asked_for(parametrization: str) -> None:
    images = maximize(network(), logit(0), steps=0, size=40, count=3, parametrization=parametrization)
    assert images.shape == (3, 3, 40, 40)
    middle = torch.tensor(MEAN, dtype=torch.float64) if parametrization == "pixels" else torch.full((3,), 0.5).double()
    torch.testing.assert_close(images.mean(dim=(0, 2, 3)), middle, atol=0.01, rtol=0)
    assert images.std(dim=(2, 3)).min() > 0.0005 and images.std(dim=(2, 3)).max() < 0.05
    assert len({tuple(one.flatten()[:50].tolist()) for one in images}) == 3, "each picture begins as another noise"


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_a_start_that_is_not_square_is_kept_as_it_is(parametrization: str) -> None:
    start = pictures(2, 10, 15)
    before = start.clone()
    same = maximize(network(), logit(0), steps=0, start=start, count=2, parametrization=parametrization)
    torch.testing.assert_close(same, start, atol=1e-9, rtol=0)
    moved = maximize(network(), [logit(0), logit(1)], steps=3, start=start, count=2, parametrization=parametrization)
    assert moved.shape == (4, 3, 10, 15)
    assert torch.equal(start, before)
    assert not torch.equal(moved[:2], start) and not start.requires_grad


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
@pytest.mark.parametrize("rule", ["ascent", "normalized", "adam"])
def test_a_start_that_asks_for_a_gradient_gets_none(parametrization: str, rule: str) -> None:
    start = pictures(1).requires_grad_()
    wanted = maximize(network(), logit(0), steps=2, start=start.detach(), parametrization=parametrization, rule=rule)
    moved = maximize(network(), logit(0), steps=2, start=start, parametrization=parametrization, rule=rule)
    assert torch.equal(moved, wanted)
    assert start.grad is None


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_the_pictures_that_come_back_are_plain_tensors_of_the_models_type(parametrization: str) -> None:
    for dtype in (torch.float32, torch.float64):
        images = maximize(network().to(dtype), logit(0), steps=1, size=SIZE, parametrization=parametrization)
        assert images.dtype == dtype
        assert not images.requires_grad and images.grad_fn is None


# --- rules -------------------------------------------------------------------------------------------------------


Map = Callable[[Tensor], Tensor]


def plain_gradient(model: nn.Sequential, target: int, variable: Tensor, to_images: Map) -> Tensor:
    variable = variable.detach().requires_grad_()
    scores = by_hand(model, to_images(variable))["head"][:, target]
    return torch.autograd.grad(scores.sum(), variable)[0]


def by_adam(variable: Tensor, gradient_at: Map, steps: int, step_size: float, clip: bool) -> Tensor:
    """Algorithm 1 of Kingma and Ba, 2015, uphill."""
    first, second = torch.zeros_like(variable), torch.zeros_like(variable)
    for t in range(1, steps + 1):
        gradient = gradient_at(variable)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        variable = variable + step_size * corrected
        if clip:
            variable = variable.clamp(0, 1)
    return variable


def by_rule(variable: Tensor, gradient_at: Map, steps: int, step: Map, clip: bool) -> Tensor:
    for _ in range(steps):
        variable = variable + step(gradient_at(variable))
        variable = variable.clamp(0, 1) if clip else variable
    return variable


def normalized(gradient: Tensor) -> Tensor:
    return torch.stack([one / math.sqrt(float((one**2).mean())) for one in gradient])


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
@pytest.mark.parametrize("rule", ["ascent", "normalized", "adam"])
def test_five_steps_of_a_rule_equal_the_rule_written_out(parametrization: str, rule: str) -> None:
    model, start = network(), uniform(2, 3, SIZE, SIZE + 3)  # some pixels near 0 and 1, which are clipped on the way
    pixels = parametrization == "pixels"
    size = (SIZE, SIZE + 3)
    to_images = (lambda v: v) if pixels else (lambda v: fourier_images(v, size))
    variable = start if pixels else fourier_coefficients(start)

    def gradient_at(variable: Tensor) -> Tensor:
        return plain_gradient(model, 3, variable, to_images)

    step_size = {"ascent": 2.0 if pixels else 20.0, "normalized": 0.1, "adam": 0.08}[rule]
    if rule == "adam":
        wanted = by_adam(variable, gradient_at, 5, step_size, clip=pixels)
    else:
        step = {"ascent": lambda g: step_size * g, "normalized": lambda g: step_size * normalized(g)}[rule]
        wanted = by_rule(variable, gradient_at, 5, step, clip=pixels)
    found = maximize(
        model, logit(3), steps=5, start=start, count=2, parametrization=parametrization, rule=rule, step_size=step_size
    )
    torch.testing.assert_close(found, to_images(wanted), atol=1e-8, rtol=0)
    assert (found - start).abs().max() > 0.02
    if pixels and rule != "ascent":
        assert ((found == 0) | (found == 1)).any()


def test_adam_is_that_of_pytorch() -> None:
    model, start = network(), pictures(2)
    variable = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=0.03, maximize=True)
    for _ in range(4):
        optimizer.zero_grad()
        by_hand(model, variable)["head"][:, 1].sum().backward()
        optimizer.step()
        variable.data.clamp_(0, 1)
    options: dict[str, Any] = {"parametrization": "pixels", "rule": "adam", "step_size": 0.03}
    found = maximize(model, logit(1), steps=4, start=start, count=2, **options)
    torch.testing.assert_close(found, variable.detach(), atol=1e-8, rtol=0)


@pytest.mark.parametrize("strength", [1e-30, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_normalized_step_has_the_promised_length_however_strong_the_gradient(
    strength: float, dtype: torch.dtype
) -> None:
    model, start = network().to(dtype), pictures(2).to(dtype)
    start[1] = 0.5  # another picture, another strength: each is measured by itself
    objective = Objective("scaled", ("head",), lambda outputs, images: strength * outputs["head"][:, 0])
    moved = maximize(
        model, objective, steps=1, start=start, count=2, parametrization="pixels", rule="normalized", step_size=0.01
    )
    lengths = (moved - start).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.01), atol=1e-6, rtol=0)


def test_pixels_move_by_normalized_steps_and_waves_by_adam_unless_told_otherwise() -> None:
    model, start = network(), pictures(1)
    for parametrization, rule, step_size in (("pixels", "normalized", 0.02), ("fourier", "adam", 0.05)):
        usual = maximize(model, logit(0), steps=2, start=start, parametrization=parametrization)
        named = maximize(
            model, logit(0), steps=2, start=start, parametrization=parametrization, rule=rule, step_size=step_size
        )
        assert torch.equal(usual, named)


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
@pytest.mark.parametrize("rule", ["ascent", "normalized", "adam"])
def test_the_score_rises_and_the_pictures_stay_in_range(parametrization: str, rule: str) -> None:
    model = network()
    wanted = [logit(4), channel("second", 1), neuron("last", 0), layer("second")]
    before = scores_of(model, wanted, pictures(1), count=1)
    seen: list[Tensor] = []
    after = maximize(
        model,
        wanted,
        steps=20,
        start=pictures(1),
        parametrization=parametrization,
        rule=rule,
        watch=lambda step, images, scores: seen.append(images),
    )
    told = [scores_of(model, one, after[k : k + 1]) for k, one in enumerate(wanted)]
    assert (torch.cat(told) > before).all()
    assert all(images.min() >= 0 and images.max() <= 1 for images in seen)


# --- edits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("size", [(12, 12), (9, 14)])
def test_the_blur_is_scipys_with_a_mirrored_border(sigma: float, size: tuple[int, int]) -> None:
    centred = normal(2, 3, *size)
    radius = math.ceil(3 * sigma)
    wanted = ndimage.gaussian_filter(
        centred.numpy(), (0, 0, sigma, sigma), radius=(0, 0, radius, radius), mode="mirror"
    )
    found = blur(1, sigma)(centred, torch.zeros_like(centred), 0)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)


def test_a_blur_comes_every_so_many_steps_and_leaves_an_even_colour() -> None:
    centred = normal(1, 3, 9, 9)
    edit = blur(3, 1.0)
    changed = [not torch.equal(edit(centred, centred, step), centred) for step in range(7)]
    assert changed == [False, False, True, False, False, True, False]
    even = torch.full_like(centred, 0.3)
    torch.testing.assert_close(edit(even, even, 2), even, atol=1e-6, rtol=0)


def smallest_first(sizes: np.ndarray, share: float) -> np.ndarray:
    """Where the smallest `share` of the numbers of one picture are, by NumPy's quantile."""
    return sizes <= np.quantile(sizes, share)


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_pixels_nearest_to_grey_become_grey(share: float) -> None:
    centred = normal(2, 3, 9, 10) * torch.tensor([1.0, 0.01]).view(2, 1, 1, 1)
    found = clip_small_norm(share)(centred, torch.zeros_like(centred), 0)
    for before, after in zip(centred.numpy(), found.numpy(), strict=True):
        gone = smallest_first(np.sqrt((before**2).sum(axis=0)), share)
        assert gone.mean() == pytest.approx(share, abs=0.02)
        assert (after[:, gone] == 0).all()
        assert (after[:, ~gone] == before[:, ~gone]).all()


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.99])
def test_pixels_that_contribute_least_become_grey(share: float) -> None:
    centred, gradient = normal(2, 3, 9, 10), normal(2, 3, 9, 10, seed=1)
    found = clip_small_contribution(share)(centred, gradient, 0)
    for before, slope, after in zip(centred.numpy(), gradient.numpy(), found.numpy(), strict=True):
        gone = smallest_first(np.abs((before * slope).sum(axis=0)), share)
        assert gone.mean() == pytest.approx(share, abs=0.02)
        assert (after[:, gone] == 0).all()
        assert (after[:, ~gone] == before[:, ~gone]).all()


@pytest.mark.parametrize("make", [clip_small_norm, clip_small_contribution])
def test_clipping_comes_every_so_many_steps_and_a_share_of_nothing_changes_nothing(make: Any) -> None:
    centred, gradient = normal(1, 3, 6, 6), normal(1, 3, 6, 6, seed=1)
    changed = [not torch.equal(make(0.5, every=2)(centred, gradient, step), centred) for step in range(4)]
    assert changed == [False, True, False, True]
    assert torch.equal(make(0)(centred, gradient, 0), centred)


def test_an_edit_gets_the_picture_around_the_networks_mean_the_gradient_and_the_step() -> None:
    model, start = network(), pictures(1)
    told: list[tuple[Tensor, Tensor, int]] = []

    def edit(centred: Tensor, gradient: Tensor, step: int) -> Tensor:
        told.append((centred.clone(), gradient.clone(), step))
        return 0.5 * centred

    options: dict[str, Any] = {"parametrization": "pixels", "rule": "ascent", "step_size": 0.01}
    found = maximize(model, logit(0), steps=1, start=start, edits=[edit], **options)
    plain = maximize(model, logit(0), steps=1, start=start, **options)
    mean = mean_colour(model).view(3, 1, 1)
    ((centred, gradient, step),) = told
    assert step == 0
    torch.testing.assert_close(centred, plain - mean)
    torch.testing.assert_close(gradient, plain_gradient(model, 0, start, lambda v: v))
    torch.testing.assert_close(found, mean + 0.5 * (plain - mean))


def test_edits_follow_one_another_and_the_picture_stays_in_range() -> None:
    steps: list[str] = []

    def named(name: str, factor: float) -> Callable[[Tensor, Tensor, int], Tensor]:
        def edit(centred: Tensor, gradient: Tensor, step: int) -> Tensor:
            steps.append(f"{name}{step}")
            return factor * centred

        return edit

    found = maximize(
        network(),
        logit(0),
        steps=2,
        start=pictures(1),
        parametrization="pixels",
        edits=(edit for edit in [named("a", 100.0), named("b", 100.0)]),  # type: ignore[arg-type]
    )
    assert steps == ["a0", "b0", "a1", "b1"]
    assert found.min() >= 0 and found.max() <= 1


def test_half_of_the_pixels_are_the_networks_mean_after_clipping() -> None:
    model = network()
    found = maximize(
        model, logit(0), steps=3, start=pictures(1), parametrization="pixels", edits=[clip_small_norm(0.5)]
    )
    grey = ((found - mean_colour(model).view(3, 1, 1)).abs() < 1e-12).all(dim=1)
    assert grey.double().mean() == pytest.approx(0.5, abs=0.02)


# --- transforms --------------------------------------------------------------------------------------------------


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(9, 9), (7, 12)])
def test_jitter_is_a_crop_of_the_mirrored_picture_at_every_offset_in_reach(size: tuple[int, int]) -> None:
    images, reach = normal(2, 3, *size), 2
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="reflect")
    crops = {
        (y, x): wide[:, :, y : y + size[0], x : x + size[1]] for y in range(2 * reach + 1) for x in range(2 * reach + 1)
    }
    random_source, found = source(), set()
    for _ in range(300):
        moved = jitter(reach)(images, random_source).numpy()
        (offset,) = [offset for offset, crop in crops.items() if np.array_equal(crop, moved)]
        found.add(offset)
    assert found == set(crops)
    assert torch.equal(jitter(0)(images, random_source), images)


def inner(image: np.ndarray, margin: int) -> np.ndarray:
    return image[..., margin:-margin, margin:-margin]


def by_scipy(image: Tensor, matrix: np.ndarray) -> np.ndarray:
    """Each place (row, column) looks up the picture at matrix @ (place - middle) + middle."""
    middle = (np.array(image.shape[-2:]) - 1) / 2
    offset = middle - matrix @ middle
    planes = image.flatten(0, -3).numpy()
    return np.stack([ndimage.affine_transform(p, matrix, offset, order=1) for p in planes]).reshape(image.shape)


@pytest.mark.parametrize("size", [(20, 20), (16, 27), (25, 14)])
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.3])
def test_scale_is_scipys_affine_transform_away_from_the_border(size: tuple[int, int], factor: float) -> None:
    images = normal(2, 3, *size)
    found = scale(factor, factor)(images, source()).numpy()
    assert found.shape == images.shape
    np.testing.assert_allclose(inner(found, 4), inner(by_scipy(images, np.eye(2) / factor), 4), atol=1e-5)


def angle_of(transform: Any, seed: int, size: tuple[int, int]) -> float:
    """By how many degrees a transform turns, read from what it makes of a ramp from left to right."""
    height, width = size
    rows, columns = torch.meshgrid(*(torch.arange(n).double() - (n - 1) / 2 for n in size), indexing="ij")
    ramp = transform(columns.expand(1, 3, -1, -1), source(seed))[0, 0]
    cut = (slice(height // 3, -(height // 3)), slice(width // 3, -(width // 3)))
    places = torch.stack([columns[cut].flatten(), rows[cut].flatten()], dim=1)
    along, down = torch.linalg.lstsq(places, ramp[cut].flatten()[:, None]).solution[:, 0].tolist()
    assert math.hypot(along, down) == pytest.approx(1, abs=1e-4), "a rotation changes no length"
    return math.degrees(math.atan2(-down, along))


@pytest.mark.parametrize("size", [(24, 24), (21, 40), (36, 22)])
def test_rotate_is_scipys_affine_transform_away_from_the_corners(size: tuple[int, int]) -> None:
    images, transform = normal(1, 3, *size), rotate(15)
    for seed in range(3):
        angle = math.radians(angle_of(transform, seed, size))
        assert abs(angle) > 1e-3
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        found = transform(images, source(seed)).numpy()
        assert found.shape == images.shape
        np.testing.assert_allclose(inner(found, 6), inner(by_scipy(images, turn), 6), atol=1e-4)


def test_angles_and_factors_fill_their_range_both_ways() -> None:
    angles = [angle_of(rotate(10), seed, (24, 24)) for seed in range(60)]
    assert -10 <= min(angles) < -8 and 8 < max(angles) <= 10
    columns = (torch.arange(24).double() - 11.5).expand(1, 3, 24, 24)
    factors = []
    for seed in range(60):
        ramp = scale(0.9, 1.2)(columns, source(seed))[0, 0]
        factors.append(1 / (ramp[12, 14] - ramp[12, 13]).item())
    assert 0.9 - 1e-6 <= min(factors) < 0.92 and 1.18 < max(factors) <= 1.2 + 1e-6


@pytest.mark.parametrize("transform", [jitter(3), scale(0.8, 1.2), rotate(20)])
@pytest.mark.parametrize("size", [(10, 10), (9, 15)])
def test_a_transform_is_the_same_for_the_same_chance_and_keeps_size_and_range(
    transform: Any, size: tuple[int, int]
) -> None:
    images = uniform(2, 3, *size)
    one, again, other = (transform(images, source(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert one.shape == images.shape
    assert one.min() >= 0 and one.max() <= 1, "the border is filled from the picture, not with black"
    torch.testing.assert_close(transform(torch.full_like(images, 0.7), source()), torch.full_like(images, 0.7))
    alone = transform(images[1:], source(1))
    torch.testing.assert_close(alone, one[1:])


@pytest.mark.parametrize("transform", [jitter(2), scale(0.8, 1.2), rotate(20)])
def test_gradients_come_back_through_a_transform(transform: Any) -> None:
    images = uniform(1, 3, 6, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transform(x, source(3)), images, fast_mode=True)


@contextmanager
def looks_at(model: nn.Module) -> Iterator[list[Tensor]]:
    meet(model, pictures(1))
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().clone()))
    try:
        yield seen
    finally:
        handle.remove()


def test_the_network_looks_at_the_picture_as_it_is_unless_transforms_are_given() -> None:
    model, shown = network(), []
    with looks_at(model) as seen:
        maximize(model, logit(0), steps=3, size=SIZE, watch=lambda step, images, scores: shown.append(images))
    assert len(seen) == len(shown) == 4
    assert all(torch.equal(a, b) for a, b in zip(seen, shown, strict=True))


def test_transforms_follow_one_another_anew_before_each_look_but_not_the_last() -> None:
    model, start = network(), pictures(1)
    called: list[str] = []

    def halve(images: Tensor, random: torch.Generator) -> Tensor:
        called.append("halve")
        return images / 2

    def add(images: Tensor, random: torch.Generator) -> Tensor:
        called.append("add")
        return images + 0.1

    with looks_at(model) as seen:
        maximize(
            model,
            logit(0),
            steps=2,
            start=start,
            parametrization="pixels",
            transforms=(t for t in [halve, add]),  # type: ignore[arg-type]
            watch=lambda step, images, scores: None,
        )
    assert called == ["halve", "add"] * 2
    torch.testing.assert_close(seen[0], start / 2 + 0.1)
    assert len(seen) == 3


def test_the_gradient_is_that_of_the_transformed_picture() -> None:
    model, start = network(), pictures(1)
    options: dict[str, Any] = {"parametrization": "pixels", "rule": "ascent", "step_size": 1e-3}
    found = maximize(model, logit(2), steps=1, start=start, transforms=[lambda x, r: x.flip(3) ** 2], **options)
    wanted = plain_gradient(model, 2, start, lambda v: v.flip(3) ** 2)
    torch.testing.assert_close((found - start) / 1e-3, wanted, atol=1e-9, rtol=1e-6)


def test_a_transform_that_works_in_place_does_not_change_the_picture() -> None:
    model, start, shown = network(), pictures(1), []
    maximize(
        model,
        logit(0),
        steps=1,
        start=start,
        parametrization="pixels",
        transforms=[lambda x, r: x.mul_(0.5)],
        watch=lambda step, images, scores: shown.append(images),
    )
    assert torch.equal(shown[0], start)


# --- one batch, one seed -----------------------------------------------------------------------------------------

MOVES = (jitter(2), scale(0.9, 1.1), rotate(10))


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
@pytest.mark.parametrize("rule", ["ascent", "normalized", "adam"])
def test_one_batch_equals_one_by_one(parametrization: str, rule: str) -> None:
    model = network()
    wanted = [
        logit(4) - 0.001 * total_variation(),
        channel("second", 1),
        neuron("last", 0),
        l2(),
        logit(1) + diversity("second"),
    ]
    options: dict[str, Any] = {
        "steps": 4, "size": SIZE, "count": 2, "parametrization": parametrization, "rule": rule, "transforms": MOVES,
    }  # fmt: skip
    together = maximize(model, wanted, **options)
    apart = torch.cat([maximize(model, one, **options) for one in wanted])
    assert together.shape == (10, 3, SIZE, SIZE)
    torch.testing.assert_close(together, apart, atol=1e-9, rtol=0)


def test_a_batch_in_groups_equals_the_batch_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = network(), []
    meet(model, pictures(1))
    model.first.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    wanted = [logit(4) + diversity("second"), channel("second", 1), l2(), logit(1) - 0.001 * l2(), logit(2)]
    options: dict[str, Any] = {"steps": 3, "size": SIZE, "count": 2, "transforms": MOVES}
    together = maximize(model, wanted, **options)
    assert sizes == [10] * 3
    sizes.clear()
    monkeypatch.setattr(maximization, "_PIXELS_AT_ONCE", 5 * SIZE * SIZE)
    torch.testing.assert_close(maximize(model, wanted, **options), together, atol=1e-9, rtol=0)
    assert sizes == [4, 4, 2] * 3, "whole objectives, as many as five pictures allow"
    sizes.clear()
    monkeypatch.setattr(maximization, "_PIXELS_AT_ONCE", 1)
    torch.testing.assert_close(maximize(model, wanted, **options), together, atol=1e-9, rtol=0)
    assert sizes == [2] * 15, "the pictures of one objective are not parted"


def test_the_first_convolution_goes_backward_the_fast_way_and_the_picture_stays_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3)).double()
    functions: list[str] = []
    meet(model, pictures(1))
    model[1].register_forward_pre_hook(lambda module, given: functions.append(type(given[0].grad_fn).__name__))
    found = maximize(model, channel("2", 1), steps=3, start=pictures(1), parametrization="pixels", step_size=0.05)
    assert functions == ["_SteppedConvolutionBackward"] * 3
    variable = pictures(1)
    for _ in range(3):
        pixels = variable.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(pixels)[:, 1].mean(), pixels)
        variable = (variable + 0.05 * normalized(gradient)).clamp(0, 1)
    torch.testing.assert_close(found, variable, atol=1e-12, rtol=0)


def test_two_pictures_equal_each_alone_from_its_own_start() -> None:
    model, start = network(), pictures(2)
    together = maximize(model, logit(0), steps=4, start=start, count=2)
    apart = [maximize(model, logit(0), steps=4, start=one[None]) for one in start]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-9, rtol=0)


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_the_same_seed_makes_the_same_picture_and_another_seed_another(parametrization: str) -> None:
    def make(seed: int) -> Tensor:
        return maximize(
            network(), logit(0), steps=3, size=SIZE, seed=seed, parametrization=parametrization, transforms=MOVES
        )

    assert torch.equal(make(5), make(5))
    assert (make(5) - make(6)).abs().max() > 1e-3


def test_global_chance_is_neither_used_nor_changed() -> None:
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        made.append(maximize(network(), logit(0), steps=3, size=SIZE, transforms=MOVES))
        made.append(robust_probability(network(), uniform(1, 3, 24, 24), 0, looks=2))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert torch.equal(made[0], made[2]) and torch.equal(made[1], made[3])


# --- what is watched ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_watch_sees_each_step_with_its_picture_and_score(parametrization: str) -> None:
    model, start = network(), pictures(2)
    seen: list[tuple[int, Tensor, Tensor]] = []
    options: dict[str, Any] = {"start": start, "count": 2, "parametrization": parametrization}
    last = maximize(model, logit(1), steps=3, watch=lambda *told: seen.append(told), **options)
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], last)
    for step, images, scores in seen:
        torch.testing.assert_close(images, maximize(model, logit(1), steps=step, **options))
        torch.testing.assert_close(scores, by_hand(model, images)["head"][:, 1])
        assert not images.requires_grad and not scores.requires_grad


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
@pytest.mark.parametrize("rule", ["ascent", "normalized", "adam"])
def test_changing_what_watch_is_handed_changes_nothing(parametrization: str, rule: str) -> None:
    def spoil(step: int, images: Tensor, scores: Tensor) -> None:
        images.fill_(7)
        scores.fill_(-1)

    options: dict[str, Any] = {"steps": 3, "size": SIZE, "parametrization": parametrization, "rule": rule}
    assert torch.equal(maximize(network(), logit(0), watch=spoil, **options), maximize(network(), logit(0), **options))


def test_no_steps_show_the_start_once() -> None:
    seen: list[int] = []
    maximize(network(), logit(0), steps=0, size=SIZE, watch=lambda step, images, scores: seen.append(step))
    assert seen == [0]


def test_progress_is_shown_on_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    maximize(network(), logit(0), steps=2, size=SIZE)
    assert capsys.readouterr() == ("", "")
    maximize(network(), logit(0), steps=2, size=SIZE, progress=True)
    assert "2/2" in "".join(capsys.readouterr())


# --- nothing is computed behind the layer that matters -----------------------------------------------------------


class Trap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("reached")


def test_the_forward_pass_ends_behind_the_last_layer_wanted() -> None:
    whole = network()
    model = nn.Sequential(whole.normalize, whole.first, whole.relu, whole.second, Trap())
    wanted = [channel("1", 0), channel("3", 1)]
    assert maximize(model, wanted, steps=2, size=SIZE).shape == (2, 3, SIZE, SIZE)
    with pytest.raises(RuntimeError, match="reached"):
        maximize(model, [*wanted, channel("4", 0)], steps=2, size=SIZE)


def test_a_classifier_that_does_not_fit_the_size_does_not_matter() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 5))
    assert maximize(model, channel("0", 0), steps=1, size=SIZE).shape[-1] == SIZE


def test_penalties_alone_need_no_forward_pass() -> None:
    start = pictures(1)
    options: dict[str, Any] = {"steps": 5, "start": start, "parametrization": "pixels"}
    smoother = maximize(nn.Sequential(Trap()), -total_variation(), rule="ascent", step_size=0.01, **options)
    assert total_variation_by_loops(smoother) < total_variation_by_loops(start)


# --- what is off at the start ------------------------------------------------------------------------------------


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


def sleeper(inplace: bool = True, *, switch: float = 0.8, relu: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Channel 0 is on where the red exceeds `switch`, which no picture near grey does; channel 1 nearly everywhere."""
    make = (lambda: nn.ReLU(inplace)) if relu is nn.ReLU else relu
    model = nn.Sequential(
        OrderedDict(conv=nn.Conv2d(3, 2, 1), relu=make(), more=nn.Conv2d(2, 2, 1), last=make())
    ).double()
    for parameter in model.parameters():
        parameter.data.zero_()
    model.conv.weight.data[0, 0] = 1
    model.conv.bias.data[0] = -switch
    model.conv.weight.data[1, 1] = 1
    model.more.weight.data[:, :, 0, 0] = torch.eye(2)
    return model.requires_grad_(False)


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("at", ["relu", "more", "last"])
@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_a_start_at_which_every_relu_is_off_wakes_and_rises(inplace: bool, at: str, parametrization: str) -> None:
    model = sleeper(inplace)
    told: list[Tensor] = []
    images = maximize(
        model,
        channel(at, 0),
        steps=60,
        size=8,
        parametrization=parametrization,
        watch=lambda step, images, scores: told.append(scores),
    )
    # Where one place is on, it is followed and the others are left alone: the score need not rise everywhere.
    assert told[0] == 0
    assert told[-1] > 0.002
    assert images[:, 0].max() > 0.8
    if parametrization == "pixels":
        assert images[:, 0].mean() > 0.7 > images[:, 1:].max(), "only the red had to rise"


def one_step(model: nn.Module, objective: Objective, start: Tensor) -> Tensor:
    return maximize(model, objective, steps=1, start=start, parametrization="pixels") - start


@NEVER
def test_what_sleeps_beside_a_penalty_goes_the_way_to_wake_alone() -> None:
    model, start = sleeper(), pictures(1, 8, 8)
    change = one_step(model, channel("relu", 0) - 10 * l2(0.0), start)
    assert (change[:, 0] > 0).all() and (change[:, 1:] == 0).all()
    images = maximize(model, channel("relu", 0) - 0.001 * l2(), steps=60, size=8, parametrization="pixels")
    assert images[:, 0].max() > 0.8


@NEVER
def test_the_way_to_wake_a_unit_is_exact_in_the_layers_that_are_awake() -> None:
    # Channel 0 of the second layer sleeps; it listens to one of the first that is on where the red exceeds 0.5.
    model, start = sleeper(switch=0.5), pictures(1, 8, 8)
    model.more.bias.data[0] = -5
    change = one_step(model, channel("last", 0), start)
    awake = start[:, 0] > 0.5
    assert awake.any() and not awake.all()
    assert ((change[:, 0] > 0) == awake).all()


@NEVER
def test_what_is_off_and_should_be_is_left_alone() -> None:
    model, start = sleeper(), pictures(1, 8, 8)
    model.conv.bias.data[1] = -0.8  # now both channels sleep
    change = one_step(model, channel("relu", 0) - channel("relu", 1), start)
    assert (change[:, 0] > 0).all() and (change[:, 1:] == 0).all()


@NEVER
def test_waking_one_picture_does_not_change_those_that_are_awake() -> None:
    model = sleeper()
    options: dict[str, Any] = {"steps": 6, "size": 8, "transforms": [jitter(1)]}
    beside = maximize(model, [channel("relu", 0), channel("relu", 1)], **options)
    alone = maximize(model, channel("relu", 1), **options)
    torch.testing.assert_close(beside[1:], alone, atol=1e-12, rtol=0)


def test_only_the_objectives_that_sleep_are_asked_again() -> None:
    model, sizes = sleeper(), []
    model.conv.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    with pytest.warns(RuntimeWarning, match="channel 0"):
        maximize(model, [channel("relu", 1), channel("relu", 0), channel("relu", 1)], steps=1, size=8)
    assert sizes[-2:] == [3, 1]


@pytest.mark.parametrize("inplace", [True, False])
def test_where_a_gradient_flows_waking_changes_nothing(inplace: bool) -> None:
    # The same network with its ReLUs hidden from the engine cannot be woken.
    options: dict[str, Any] = {"steps": 8, "start": 0.2 + 0.8 * uniform(1, 3, 8, 8), "parametrization": "pixels"}
    wakeable, plain = sleeper(inplace, switch=0.5), sleeper(switch=0.5, relu=Functional)
    for objective in (channel("last", 0), channel("last", 1)):
        assert torch.equal(maximize(wakeable, objective, **options), maximize(plain, objective, **options))


def test_what_never_answers_is_said_by_name_and_only_that() -> None:
    out_of_reach = sleeper(switch=3.0)
    with pytest.warns(RuntimeWarning, match="channel 0") as told:
        maximize(out_of_reach, [channel("relu", 1), channel("relu", 0)], steps=3, size=8)
    assert len(told) == 1
    assert "channel 1" not in str(told[0].message)
    assert told[0].filename == __file__, "the line at fault is the caller's"


@pytest.mark.filterwarnings("error")
def test_what_answers_at_last_or_is_not_asked_to_is_not_complained_of() -> None:
    maximize(sleeper(), channel("relu", 0), steps=60, size=8, parametrization="pixels")
    maximize(sleeper(switch=3.0), channel("relu", 0), steps=0, size=8)
    maximize(sleeper(), -1 * l2(), steps=1, size=8)


@pytest.mark.parametrize("parametrization", ["pixels", "fourier"])
def test_a_dead_channel_is_refused_by_name_before_the_first_step(parametrization: str) -> None:
    model = sleeper()
    model.conv.weight.data[0] = 0
    seen: list[int] = []
    with pytest.raises(ValueError, match=r"channel 0.*[Dd]ead"):
        maximize(
            model,
            [channel("relu", 1), channel("relu", 0)],
            steps=3,
            size=8,
            parametrization=parametrization,
            watch=lambda step, images, scores: seen.append(step),
        )
    assert seen == []


def test_the_refusal_names_the_dead_and_not_the_living() -> None:
    model = sleeper()
    model.conv.weight.data[0] = 0
    with pytest.raises(ValueError, match="channel 0") as refused:
        maximize(model, [channel("relu", 1), channel("relu", 0), 2 * channel("last", 0)], steps=3, size=8)
    assert "channel 1" not in str(refused.value)
    assert str(refused.value).count("channel 0") == 2


def test_an_objective_without_a_gradient_is_refused() -> None:
    cut = Objective("cut off", ("relu",), lambda outputs, images: outputs["relu"].detach().mean(dim=(1, 2, 3)))
    with pytest.raises(ValueError, match="cut off"):
        maximize(sleeper(), cut, steps=3, size=8)


# --- the model is as it was --------------------------------------------------------------------------------------


def with_statistics() -> nn.Sequential:
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3),
            norm=nn.BatchNorm2d(4),
            relu=nn.ReLU(inplace=True),
            drop=nn.Dropout(0.5),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(4, 3),
        )
    )
    model.norm.running_mean.copy_(torch.linspace(-1, 1, 4))
    model.norm.running_var.copy_(torch.linspace(0.5, 2, 4))
    model.conv.requires_grad_(False)
    return model.double().train()


def state(model: nn.Module) -> list[Any]:
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_forward_hooks_with_kwargs",
    )
    return [
        *((name, m.training, *(len(getattr(m, kind)) for kind in hooks)) for name, m in model.named_modules()),
        *((name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()),
        *((name, value.flatten().tolist()) for name, value in model.state_dict().items()),
    ]


def fails(*arguments: Any) -> Any:
    raise KeyboardInterrupt


FAILURES: dict[str, dict[str, Any]] = {
    "no failure": {},
    "in an objective": {"objective": Objective("bad", ("conv",), fails)},
    "in watch": {"watch": fails},
    "in a transform": {"transforms": [fails]},
    "in an edit": {"edits": [fails], "parametrization": "pixels"},
    "at a dead channel": {"objective": 0 * channel("relu", 0)},
    "at a channel out of range": {"objective": channel("relu", 4)},
    "in the network": {"size": 9, "objective": logit(0), "transforms": [lambda x, r: x[:, :2]]},
}


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_as_it_was_whatever_happens(kind: str, training: bool) -> None:
    model = with_statistics().train(training)
    model.drop.train(not training)  # a mode of its own, which is kept too
    before = state(model)
    options: dict[str, Any] = {"objective": logit(1), "steps": 2, "size": SIZE, **FAILURES[kind]}
    if kind == "no failure":
        maximize(model, **options)
    else:
        with pytest.raises((KeyboardInterrupt, ValueError, RuntimeError)):
            maximize(model, **options)
    assert state(model) == before


def test_the_hooks_of_others_stay_and_see_every_look() -> None:
    model = with_statistics()
    meet(model, pictures(1))
    seen: list[int] = []
    handle = model.conv.register_forward_hook(lambda module, given, output: seen.append(1))
    maximize(model, channel("conv", 0), steps=3, size=SIZE)
    assert len(seen) == 3 and len(model.conv._forward_hooks) == 1
    handle.remove()


def test_a_network_in_training_mode_is_looked_at_as_in_evaluation() -> None:
    model = with_statistics()
    training = maximize(model, logit(0), steps=3, size=SIZE)
    assert torch.equal(training, maximize(model.eval(), logit(0), steps=3, size=SIZE))


def test_a_frozen_and_an_unfrozen_network_make_the_same_picture() -> None:
    model = network()
    frozen = maximize(model, logit(0), steps=3, size=SIZE)
    model.requires_grad_()
    model.head.weight.requires_grad_(False)
    assert torch.equal(frozen, maximize(model, logit(0), steps=3, size=SIZE))
    with pytest.raises(KeyboardInterrupt):
        maximize(model, Objective("bad", ("first",), fails), steps=3, size=SIZE)
    asking = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, _ in model.named_parameters()} - asking == {"head.weight"}, "each asks as it did before"


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_it_works_whatever_the_surroundings_say_of_gradients(surroundings: Any) -> None:
    model = network()
    wanted = maximize(model, logit(0), steps=2, size=SIZE)
    with surroundings():
        assert torch.equal(maximize(model, logit(0), steps=2, size=SIZE), wanted)


# --- bad input ---------------------------------------------------------------------------------------------------

ONE = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a model that is none": ({"model": "network"}, "model"),
    "no objective": ({"objective": None}, "objective"),
    "an empty list": ({"objective": []}, "objective is empty"),
    "an objective that is a name": ({"objective": "first"}, "objective"),
    "a list with something else": ({"objective": [logit(0), 3]}, "objective"),
    "a layer that is not there": ({"objective": channel("third", 0)}, "third"),
    "a layer of another model": ({"objective": channel(nn.ReLU(), 0)}, "layer"),
    "a layer that is a number": ({"objective": channel(3, 0)}, "layer"),  # type: ignore[arg-type]
    "a layer that is a list": ({"objective": channel(["first"], 0)}, "layer"),  # type: ignore[arg-type]
    "a channel out of range": ({"objective": channel("first", 6)}, r"channel 6 is out of range.*6 \(0 to 5\)"),
    "a class out of range": ({"objective": logit(7)}, r"target 7 is out of range.*7 \(0 to 6\)"),
    "a row out of range": ({"objective": neuron("first", 0, 5, 0)}, r"row 5 is out of range.*5 \(0 to 4\)"),
    "a column out of range": ({"objective": neuron("first", 0, 0, 5)}, "column 5 is out of range"),
    "a channel without places": ({"objective": channel("head", 0)}, "logit"),
    "a neuron without places": ({"objective": neuron("head", 0)}, "logit"),
    "diversity without places": ({"objective": diversity("head")}, "feature map"),
    "diversity of one picture": ({"objective": diversity("first")}, "count=2"),
    "a score for all": ({"objective": Objective("all", ("head",), lambda o, x: o["head"].sum())}, "one score for each"),
    "a score that is a number": ({"objective": Objective("one", ("head",), lambda o, x: 1.0)}, "one score for each"),
    "a score that is not finite": ({"objective": math.nan * logit(0)}, "finite"),
    "steps below zero": ({"steps": -1}, "steps must be 0 or more"),
    "half a step": ({"steps": 2.5}, "steps must be a whole number"),
    "a tiny size": ({"size": 7}, "size must be 8 or more"),
    "two sizes": ({"size": (8, 8)}, "size must be a whole number"),
    "no pictures": ({"count": 0}, "count must be 1 or more"),
    "count that is true": ({"count": True}, "count must be a whole number"),
    "an unknown parametrization": ({"parametrization": "wavelets"}, "parametrization must be one of pixels, fourier"),
    "a parametrization that is none": ({"parametrization": ["pixels"]}, "parametrization"),
    "an unknown rule": ({"rule": "newton"}, "rule must be one of ascent, normalized, adam"),
    "an empty rule": ({"rule": ""}, "rule"),
    "a rule that is none": ({"rule": ["adam"]}, "rule"),
    "a step of nothing": ({"step_size": 0}, "step_size must be above 0"),
    "a step backwards": ({"step_size": -0.1}, "step_size must be above 0"),
    "a step that is not a number": ({"step_size": math.nan}, "step_size"),
    "an endless step": ({"step_size": math.inf}, "step_size"),
    "a step in words": ({"step_size": "0.1"}, "step_size"),
    "a seed in words": ({"seed": "1"}, "seed"),
    "half a seed": ({"seed": 1.5}, "seed"),
    "no seed": ({"seed": None}, "seed"),
    "a start of numbers": ({"start": [0.5]}, "start must be a tensor"),
    "a start without a batch": ({"start": ONE[0]}, r"start must have the shape \(1, 3, H, W\).*not \(3, 12, 12\)"),
    "a start of one channel": ({"start": ONE[:, :1]}, r"not \(1, 1, 12, 12\)"),
    "two starts for one": ({"start": torch.cat([ONE, ONE])}, r"not \(2, 3, 12, 12\)"),
    "a start of bytes": ({"start": (255 * ONE).byte()}, r"start must be .*\[0, 1\]"),
    "a start up to 255": ({"start": 255 * ONE}, r"start must be .*\[0, 1\]"),
    "a start below 0": ({"start": ONE - 0.5}, r"start must be .*\[0, 1\]"),
    "a start that is not finite": ({"start": ONE * math.nan}, "start"),
    "a start of no size": ({"start": torch.zeros(1, 3, 0, 0)}, "start"),
    "a start of tiny size": ({"start": ONE[..., :2, :2]}, "start"),
    "a transform that is no list": ({"transforms": jitter(2)}, "transforms"),
    "a transform that is a number": ({"transforms": [2]}, "transforms"),
    "a jitter that is too far": ({"transforms": [jitter(12)]}, "pixels must be less than the picture's 12"),
    "a transform without a result": ({"transforms": [lambda x, r: None]}, "transforms"),
    "an edit that is no list": ({"edits": blur(1, 1.0), "parametrization": "pixels"}, "edits"),
    "an edit that is a number": ({"edits": [2], "parametrization": "pixels"}, "edits"),
    "edits of waves": ({"edits": [blur(1, 1.0)], "parametrization": "fourier"}, "edits.*pixels"),
    "a watch that is a number": ({"watch": 3}, "watch"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_before_any_step(kind: str) -> None:
    given, words = BAD[kind]
    seen: list[int] = []
    usual: dict[str, Any] = {
        "model": network(),
        "objective": logit(0),
        "steps": 2,
        "size": SIZE,
        "watch": lambda step, images, scores: seen.append(step),
    }
    with pytest.raises((TypeError, ValueError), match=words):
        maximize(**{**usual, **given})
    assert seen == []


@pytest.mark.parametrize("kind", ["a channel out of range", "a class out of range", "a row out of range"])
def test_what_is_out_of_range_is_refused_though_no_step_is_asked_for(kind: str) -> None:
    given, words = BAD[kind]
    with pytest.raises(ValueError, match=words):
        maximize(network(), **given, steps=0, size=SIZE)


class Twice(nn.Module):
    """As the blocks of torchvision's residual networks: one ReLU, two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.conv(x))))


def test_a_layer_of_which_a_stopped_pass_would_see_the_first_run_only_is_refused() -> None:
    shared = nn.Conv2d(3, 3, 3)
    for model, name in ((Twice(), "relu"), (Twice(), "conv"), (nn.Sequential(shared, nn.Tanh(), shared), "0")):
        with pytest.raises(ValueError, match=f"'{name}' runs more than once"):
            maximize(model, channel(name, 0), steps=1, size=16)


def test_a_model_made_in_inference_mode_is_named() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match="model was made in inference mode"):
        maximize(model, channel("0", 0), steps=1, size=16)


class Flattening(nn.Module):
    """Flattens by `view`, as many a tutorial does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().view(-1, 4 * 6 * 6))


def test_a_network_that_flattens_by_view_is_climbed_all_the_same() -> None:
    torch.manual_seed(0)
    model = Flattening().double()
    start = pictures(1, 8, 8)
    found = maximize(model, logit(2), steps=1, start=start, parametrization="pixels", step_size=0.05)
    pixels = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(pixels)[:, 2].sum(), pixels)
    torch.testing.assert_close(found, start + 0.05 * normalized(gradient), atol=1e-12, rtol=0)


def test_what_is_no_longer_a_number_is_refused_and_not_shown() -> None:
    steep = Objective("a root at 0", ("first",), lambda outputs, images: (0 * outputs["first"]).sum((1, 2, 3)).sqrt())
    with pytest.raises(ValueError, match="a root at 0: its gradient is not finite at step 0"):
        maximize(network(), steep, steps=1, size=SIZE)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda centred, gradient, step: centred.mean(), r"edits must return pictures \(2, 3, \d+, \d+\), not \(\)"),
        (lambda centred, gradient, step: centred[:1], r"not \(1, 3,"),
        (lambda centred, gradient, step: None, "not NoneType"),
        (lambda centred, gradient, step: centred / 0, "not finite at step 0"),
    ],
)
def test_an_edit_that_returns_something_else_is_refused(edit: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        maximize(network(), logit(0), steps=1, size=SIZE, count=2, parametrization="pixels", edits=[edit])


def test_a_transform_that_lets_no_gradient_through_is_refused() -> None:
    with pytest.raises(ValueError, match="one of them detaches the pictures"):
        maximize(network(), logit(0), steps=1, size=SIZE, transforms=[lambda images, random: images.detach()])


def test_a_layer_whose_second_dimension_is_no_channel_has_no_class_scores() -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 4))
    with pytest.raises(ValueError, match=r"\(1, 3, 4\), not scores \(N, K\)"):
        maximize(model, logit(2), steps=1, size=8)


def test_numbers_of_numpy_are_numbers() -> None:
    model = network()
    options: dict[str, Any] = {"steps": np.int64(2), "size": np.int64(SIZE), "seed": np.int64(3)}
    found = maximize(model, logit(np.int64(1)), **options)  # type: ignore[arg-type]
    assert torch.equal(found, maximize(model, logit(1), steps=2, size=SIZE, seed=3))


def test_a_layer_that_is_never_reached_is_named() -> None:
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    with pytest.raises((ValueError, KeyError), match="unused"):
        maximize(Shortcut(), channel("unused", 0), steps=1, size=8)


def test_a_layer_that_runs_twice_is_refused_by_name() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 3, 1), on=relu, b=nn.Conv2d(3, 3, 1), again=relu, c=nn.ReLU()))
    with pytest.raises(ValueError, match=r"'on'.*more than once"):
        maximize(model, [channel("on", 0), channel("c", 0)], steps=1, size=8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: channel("first", -1), "channel must be 0 or more"),
        (lambda: channel("first", 1.0), "channel must be a whole number"),  # type: ignore[arg-type]
        (lambda: neuron("first", 0, row=-1), "row must be 0 or more"),
        (lambda: neuron("first", 0, column="2"), "column must be a whole number"),  # type: ignore[arg-type]
        (lambda: logit(True), "target must be a whole number"),
        (lambda: logit("cat"), "target must be a whole number"),  # type: ignore[arg-type]
        (lambda: jitter(-1), "pixels must be 0 or more"),
        (lambda: jitter(1.5), "pixels must be a whole number"),  # type: ignore[arg-type]
        (lambda: scale(0, 1), "above 0"),
        (lambda: scale(1.1, 0.9), "smallest first"),
        (lambda: scale(1, math.inf), "factors"),
        (lambda: scale("1", "2"), "factors"),  # type: ignore[arg-type]
        (lambda: rotate(-5), "degrees must"),
        (lambda: rotate(200), "degrees must"),
        (lambda: rotate("5"), "degrees must"),  # type: ignore[arg-type]
        (lambda: blur(0, 1.0), "every must be 1 or more"),
        (lambda: blur(1, 0), "sigma must"),
        (lambda: blur(1, math.inf), "sigma must"),
        (lambda: blur(1, "1"), "sigma must"),  # type: ignore[arg-type]
        (lambda: clip_small_norm(1.0), r"share must lie in \[0, 1\)"),
        (lambda: clip_small_norm("1"), "share must"),  # type: ignore[arg-type]
        (lambda: clip_small_contribution(-0.1), r"share must lie in \[0, 1\)"),
        (lambda: clip_small_contribution(0.1, every=0), "every must be 1 or more"),
        (lambda: l2("grey"), "centre must"),  # type: ignore[arg-type]
        (lambda: fourier_images(torch.zeros(1, 3, 16, 9, 2), (16, 18)), r"\(N, 3, 16, 10, 2\) for \(16, 18\), not"),
        (lambda: fourier_images(torch.zeros(3, 16, 9, 2), (16, 16)), "coefficients must have the shape"),
        (lambda: l2(torch.zeros(4)), "centre must"),
    ],
)
def test_what_cannot_be_made_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make()


# --- measured afterwards -----------------------------------------------------------------------------------------


def test_rounding_to_8_bits_is_what_saving_and_opening_does() -> None:
    from PIL import Image

    images = torch.cat([uniform(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)]).float()
    rounded = round_to_8_bits(images)
    assert rounded.shape == images.shape and (rounded - images).abs().max() <= 0.5 / 255 + 1e-6
    for before, after in zip(images, rounded, strict=True):
        file = io.BytesIO()
        pixels = np.rint(before.permute(1, 2, 0).double().numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, format="png")
        opened = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1)
        torch.testing.assert_close(after, opened.float() / 255, atol=1e-7, rtol=0)
    assert torch.equal(round_to_8_bits(rounded), rounded)


def test_robust_probability_is_the_mean_over_looks_in_a_plain_loop() -> None:
    model, images, looks = network(), uniform(2, 3, 35, 47), 5
    chance, total = torch.Generator().manual_seed(3), np.zeros(2)
    for _ in range(looks):
        seen = (images * 255).round() / 255
        seen = scale(0.85, 1.15)(jitter(35 // 12)(seen, chance), chance)
        sigma = 0.01 + torch.rand((), generator=chance).item()
        radius = max(1, math.ceil(3 * sigma))
        blurred = ndimage.gaussian_filter(
            seen.numpy(), (0, 0, sigma, sigma), radius=(0, 0, radius, radius), mode="mirror"
        )
        total += by_hand(model, torch.from_numpy(blurred))["head"].softmax(dim=1)[:, 4].numpy()
    found = robust_probability(model, images, 4, looks=looks, seed=3)
    np.testing.assert_allclose(found.numpy(), total / looks, atol=1e-6)


def test_robust_probability_takes_a_target_for_each_picture_and_is_seeded() -> None:
    model, images = network(), uniform(3, 3, 24, 24)
    each = robust_probability(model, images, torch.tensor([0, 5, 2]), looks=4)
    for place, target in enumerate((0, 5, 2)):
        torch.testing.assert_close(each[place], robust_probability(model, images, target, looks=4)[place])
    assert torch.equal(each, robust_probability(model, images, torch.tensor([0, 5, 2]), looks=4))
    assert not torch.equal(each, robust_probability(model, images, torch.tensor([0, 5, 2]), looks=4, seed=1))
    assert ((each > 0) & (each < 1)).all()


def test_what_works_for_these_very_pixels_only_has_a_low_robust_probability() -> None:
    size = 48
    y, x = torch.meshgrid(*(torch.arange(size).double(),) * 2, indexing="ij")
    fine = normal(3, size, size).sign()
    broad = torch.cos(2 * math.pi * (x + y) / 96).expand(3, -1, -1)
    for pattern, robust in ((fine, False), (broad, True)):
        images = (0.5 + 0.4 * pattern)[None]
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 2, bias=False)).double()
        direction = (images - images.mean()).flatten() / (images - images.mean()).square().sum()
        model[1].weight.data = torch.stack([torch.zeros_like(direction), 10 * direction])
        middle = images.mean() * model[1].weight.data[1].sum()
        model[1].weight.data[1] -= middle / images.numel() / images.mean()
        assert model(images).softmax(dim=1)[0, 1] > 0.98
        found = robust_probability(model, images, 1)[0]
        assert (found > 0.9) if robust else (found < 0.75)


def test_robust_probability_leaves_the_model_and_the_pictures_as_they_were() -> None:
    model, images = with_statistics(), uniform(1, 3, 24, 24)
    before, kept = state(model), images.clone()
    robust_probability(model, images, 1, looks=2)
    assert state(model) == before
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "network"}, "model"),
        ({"images": [0.5]}, "images must"),
        ({"images": ONE[0]}, "images must"),
        ({"images": (255 * ONE).byte()}, "images"),
        ({"images": 255 * ONE}, "images"),
        ({"target": 7}, r"target 7 is out of range.*7 \(0 to 6\)|target"),
        ({"target": -1}, "target"),
        ({"target": 1.5}, "target"),
        ({"target": "cat"}, "target"),
        ({"target": torch.tensor([1, 2, 3])}, "target"),
        ({"looks": 0}, "looks must be 1 or more"),
    ],
)
def test_robust_probability_refuses_what_it_cannot_measure(given: dict[str, Any], words: str) -> None:
    usual: dict[str, Any] = {"model": network(), "images": ONE, "target": 0, "looks": 1}
    with pytest.raises((TypeError, ValueError), match=words):
        robust_probability(**{**usual, **given})


def test_robust_probability_measures_pictures_that_are_not_square() -> None:
    assert robust_probability(network(), uniform(1, 3, 14, 180), 0, looks=2).shape == (1,)


# --- what a network takes for grey, and where it scores ----------------------------------------------------------


@pytest.fixture(scope="module")
def shapes() -> Specimen:
    return load_specimen("shapes")


def test_the_shapes_network_scores_at_its_head_and_takes_its_mean_for_grey(shapes: Specimen) -> None:
    assert class_layer(shapes.model) is shapes.model.resnet.head
    torch.testing.assert_close(mean_colour(shapes.model), torch.tensor([0.45, 0.45, 0.42]))


def test_squeezenet_scores_at_its_last_convolution_and_takes_imagenets_mean_for_grey(
    local_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(local_data))
    model = load_specimen("imagenet").model
    found = class_layer(model)
    assert isinstance(found, nn.Conv2d) and found.out_channels == 1000
    torch.testing.assert_close(mean_colour(model), torch.tensor([0.485, 0.456, 0.406]))
    images = pictures(1, 64, 64).float()
    with torch.no_grad():
        logits = model(images)[0]
    told = scores_of(model, [logit(k) for k in range(4)], images, count=1)
    # The network itself has one more ReLU, between the convolution and the mean over places.
    assert (told <= logits[:4] + 1e-4).all()


def test_the_class_score_of_the_shapes_network_is_its_logit(shapes: Specimen) -> None:
    images = torch.stack(list(shapes.pictures.values()))[:2]
    with torch.no_grad():
        wanted = shapes.model(images)[:, 3]
    torch.testing.assert_close(scores_of(shapes.model, logit(3), images), wanted, atol=1e-4, rtol=1e-4)


def test_a_shape_is_made_that_its_network_is_sure_of_after_rounding(shapes: Specimen) -> None:
    images = maximize(shapes.model, [logit(k) for k in (0, 7)], steps=25, size=64, transforms=[jitter(3)])
    with torch.no_grad():
        found = shapes.model(round_to_8_bits(images)).softmax(dim=1)
    assert found[0, 0] > 0.9 and found[1, 7] > 0.9


def test_without_a_normalizing_layer_grey_is_the_middle_in_the_type_of_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1)).double()
    assert torch.equal(mean_colour(model), torch.full((3,), 0.5).double())
    assert torch.equal(mean_colour(nn.Sequential(nn.ReLU())), torch.full((3,), 0.5))
    torch.testing.assert_close(mean_colour(network()), torch.tensor(MEAN).double())


def test_a_network_without_weights_has_no_layer_that_scores() -> None:
    with pytest.raises(ValueError, match="name the layer"):
        class_layer(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="name the layer"):
        maximize(nn.Sequential(nn.ReLU()), logit(0), steps=1, size=8)
