"""Fooling images against plain loops written here, against closed forms, and a thousand drawn cases against their word.

`tests/oracles/test_peers.py` compares with torchattacks, in an environment of its own.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import CLASSES, InPlace, network, pictures
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib import _local_change as local_change
from lessons_lib import fooling
from lessons_lib.fooling import (
    Report,
    deep_fool,
    fgsm,
    fool,
    one_pixel,
    pgd,
    project,
    report,
    universal_perturbation,
)
from lessons_lib.pixel_gradient import fast_pixel_gradient
from lessons_lib.specimens import load_specimen
from lessons_lib.targets import quick_gradient

SMALL = ["in_place", "shapes", "squeezenet", "resnet18"]
QUICK = SMALL[:3]
NORMS = ["linf", "l2"]
PRECISIONS = [torch.float32, torch.float64]
CHOSEN = torch.tensor([3, 7])
AIMS: dict[str, dict[str, Any]] = {"as read": {}, "labels": {"labels": CHOSEN}, "target": {"target": CHOSEN}}


@cache
def of(name: str, dtype: torch.dtype) -> nn.Module:
    return copy.deepcopy(network(name)).to(dtype)


def classes_of(model: nn.Module, images: Tensor, aim: dict[str, Any]) -> Tensor:
    return next(iter(aim.values())) if aim else read(model, images)


@torch.no_grad()
def read(model: nn.Module, images: Tensor) -> Tensor:
    answer: Tensor = model(images).argmax(dim=1)
    return answer


def rounded(images: Tensor) -> Tensor:
    return (images * 255).round() / 255


def lengths(change: Tensor) -> Tensor:
    return change.double().flatten(1).norm(dim=1)


# --- plain references ---------------------------------------------------------------------------------------------


def plain_gradient(model: nn.Module, images: Tensor, classes: Tensor, towards: bool) -> Tensor:
    """Of what is to grow: the cross-entropy of `classes`, or with `towards` its negative."""
    pixels = images.detach().clone().requires_grad_()
    loss = functional.cross_entropy(model(pixels), classes, reduction="sum")
    (gradient,) = torch.autograd.grad(-loss if towards else loss, pixels)
    return gradient


def plain_step(gradient: Tensor, moved: Tensor, images: Tensor, *, epsilon: float, step: float, norm: str) -> Tensor:
    if norm == "linf":
        change = moved + step * gradient.sign() - images
        change = change.clamp(-epsilon, epsilon)
    else:
        change = moved + step * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1) - images
        change = change * (epsilon / change.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
    return (images + change).clamp(0, 1)


def plain_pgd(
    gradient_at: Callable[[Tensor], Tensor], images: Tensor, start: Tensor | None, *, steps: int, **how: Any
) -> Tensor:
    moved = images if start is None else (images + start).clamp(0, 1)
    for _ in range(steps):
        moved = plain_step(gradient_at(moved), moved, images, **how)
    return moved


def plain_start(images: Tensor, epsilon: float, norm: str, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    if norm == "linf":
        return torch.rand(images.shape, generator=random, dtype=images.dtype) * (2 * epsilon) - epsilon
    drawn = torch.randn(images.shape, generator=random, dtype=images.dtype)
    share = torch.rand(len(images), 1, 1, 1, generator=random, dtype=images.dtype)
    return drawn * (share / drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1) * epsilon)


def plain_deep_fool(model: nn.Module, images: Tensor, labels: Tensor, steps: int = 50) -> Tensor:
    """One picture after another, one class after another, each step 2 percent longer than to the border."""
    results = []
    for image, label in zip(images, labels.tolist(), strict=True):
        moved = image[None]
        for _ in range(steps):
            pixels = moved.detach().clone().requires_grad_()
            logits = model(pixels)[0]
            if int(logits.argmax()) != label:
                break
            slopes = [torch.autograd.grad(logit, pixels, retain_graph=True)[0] for logit in logits]
            nearest, way = math.inf, torch.zeros_like(moved)
            for number, slope in enumerate(slopes):
                across = slope - slopes[label]
                lead, length = (logits[label] - logits[number]).item(), across.norm().item()
                if number != label and lead / length < nearest:
                    nearest, way = lead / length, lead / length**2 * across
            moved = (moved + 1.02 * way).clamp(0, 1)
        results.append(moved)
    return torch.cat(results)


def plain_fool(model: nn.Module, images: Tensor, target: Tensor, step_size: float, steps: int) -> Tensor:
    results = []
    for image, its in zip(images, target.tolist(), strict=True):
        moved = image[None]
        for _ in range(steps):
            if int(read(model, moved)) == its and int(read(model, rounded(moved))) == its:
                break
            pixels = moved.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model(pixels)[0, its], pixels)
            moved = (moved + step_size * gradient / gradient.norm()).clamp(0, 1)
        results.append(rounded(moved))
    return torch.cat(results)


# --- FGSM and PGD -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("aim", AIMS.values(), ids=AIMS)
@pytest.mark.parametrize("name", SMALL)
def test_fgsm_equals_a_plain_step_bit_for_bit(name: str, aim: dict[str, Any], dtype: torch.dtype) -> None:
    model, images = of(name, dtype), pictures(dtype=dtype)
    gradient = plain_gradient(model, images, classes_of(model, images, aim), "target" in aim)
    found = fgsm(model, images, epsilon=8 / 255, **aim)
    assert torch.equal(found, (images + 8 / 255 * gradient.sign()).clamp(0, 1))


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("aim", AIMS.values(), ids=AIMS)
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.float32) for name in SMALL), *((name, torch.float64) for name in QUICK)]
)
def test_pgd_equals_a_plain_loop_bit_for_bit(
    name: str, aim: dict[str, Any], dtype: torch.dtype, random_start: bool
) -> None:
    model, images = of(name, dtype), pictures(dtype=dtype)
    at = partial(plain_gradient, model, classes=classes_of(model, images, aim), towards="target" in aim)
    start = plain_start(images, 8 / 255, "linf", 3) if random_start else None
    wanted = plain_pgd(at, images, start, epsilon=8 / 255, step=3 / 255, steps=3, norm="linf")
    found = pgd(model, images, epsilon=8 / 255, step_size=3 / 255, steps=3, random_start=random_start, seed=3, **aim)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("aim", AIMS.values(), ids=AIMS)
@pytest.mark.parametrize("name", QUICK)
def test_pgd_by_length_equals_a_plain_loop(name: str, aim: dict[str, Any], random_start: bool) -> None:
    model, images = of(name, torch.float64), pictures(dtype=torch.float64)
    at = partial(plain_gradient, model, classes=classes_of(model, images, aim), towards="target" in aim)
    start = plain_start(images, 1.0, "l2", 3) if random_start else None
    wanted = plain_pgd(at, images, start, epsilon=1.0, step=0.4, steps=3, norm="l2")
    found = pgd(model, images, epsilon=1.0, norm="l2", step_size=0.4, steps=3, random_start=random_start, seed=3, **aim)
    assert (found - wanted).abs().max() <= 1e-12


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("aim", AIMS.values(), ids=AIMS)
@pytest.mark.parametrize("name", SMALL)
def test_each_step_of_pgd_by_length_equals_a_plain_one_in_float32(
    name: str, aim: dict[str, Any], random_start: bool
) -> None:
    """Taken from where the last one led: a ReLU that the last bit of a pixel switches makes another gradient."""
    model, images = of(name, torch.float32), pictures()
    classes = classes_of(model, images, aim)
    moved = (images + plain_start(images, 1.0, "l2", 3)).clamp(0, 1) if random_start else images
    given: Callable[..., Tensor] = partial(
        pgd, epsilon=1.0, norm="l2", step_size=0.4, random_start=random_start, seed=3, **aim
    )
    for steps in (1, 2):
        gradient = plain_gradient(model, moved, classes, "target" in aim)
        wanted = plain_step(gradient, moved, images, epsilon=1.0, step=0.4, norm="l2")
        moved = given(model, images, steps=steps)
        assert (moved - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize("name", ["resnet18", "squeezenet"])
def test_the_signs_are_the_same_where_the_first_convolution_is_differentiated_another_way(name: str) -> None:
    model, images = of(name, torch.float64), pictures(1, 224, torch.float64)
    assert isinstance(quick_gradient(images), fast_pixel_gradient)
    at = partial(plain_gradient, model, classes=CHOSEN[:1], towards=True)
    assert torch.equal(
        fgsm(model, images, CHOSEN[:1], epsilon=4 / 255), (images + 4 / 255 * at(images).sign()).clamp(0, 1)
    )
    wanted = plain_pgd(at, images, None, epsilon=4 / 255, step=2 / 255, steps=2, norm="linf")
    found = pgd(model, images, CHOSEN[:1], epsilon=4 / 255, step_size=2 / 255, steps=2, random_start=False)
    assert torch.equal(found, wanted)


def attacks_within_epsilon() -> list[Any]:
    return [
        pytest.param(fgsm, 0.5, id="fgsm"),
        pytest.param(partial(pgd, steps=3, random_start=False), 0.5, id="pgd"),
        pytest.param(partial(pgd, steps=3, random_start=False, norm="l2"), 3.0, id="pgd by length"),
    ]


@pytest.mark.parametrize(("method", "largest"), attacks_within_epsilon())
def test_a_picture_with_an_epsilon_of_its_own_gets_what_it_gets_alone(
    method: Callable[..., Tensor], largest: float
) -> None:
    model, images = of("in_place", torch.float64), pictures(3, dtype=torch.float64)
    sizes = [largest, 0.0, largest / 7]
    found = method(model, images, epsilon=torch.tensor(sizes, dtype=torch.float64))
    alone = torch.cat([method(model, one[None], epsilon=size) for one, size in zip(images, sizes, strict=True)])
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("steps", "share"), [(1, 2.5), (4, 2.5 / 4), (10, 0.25), (20, 0.25)])
def test_steps_are_by_default_a_quarter_of_epsilon_and_longer_where_they_are_few(steps: int, share: float) -> None:
    model, images = of("in_place", torch.float64), pictures(size=16, dtype=torch.float64)
    for norm in NORMS:
        found = pgd(model, images, epsilon=0.1, norm=norm, steps=steps)
        torch.testing.assert_close(
            found, pgd(model, images, epsilon=0.1, norm=norm, steps=steps, step_size=share * 0.1), rtol=0, atol=1e-12
        )


def test_a_step_size_of_its_own_for_each_picture_is_taken() -> None:
    model, images = of("in_place", torch.float64), pictures(dtype=torch.float64)
    given = partial(pgd, epsilon=0.1, steps=2, random_start=False)
    found = given(model, images, step_size=torch.tensor([0.01, 0.03], dtype=torch.float64))
    alone = [given(model, images[i : i + 1], step_size=size) for i, size in enumerate((0.01, 0.03))]
    torch.testing.assert_close(found, torch.cat(alone), rtol=0, atol=1e-12)


def test_a_function_of_the_logits_is_made_to_grow() -> None:
    model, images = of("in_place", torch.float64), pictures(dtype=torch.float64)

    def lead(logits: Tensor) -> Tensor:
        return logits[:, 2] - logits[:, 5]

    def at(moved: Tensor) -> Tensor:
        pixels = moved.clone().requires_grad_()
        return torch.autograd.grad(lead(model(pixels)).sum(), pixels)[0]

    assert torch.equal(fgsm(model, images, lead, epsilon=0.01), (images + 0.01 * at(images).sign()).clamp(0, 1))
    wanted = plain_pgd(at, images, None, epsilon=0.02, step=0.01, steps=3, norm="linf")
    assert torch.equal(pgd(model, images, lead, epsilon=0.02, step_size=0.01, steps=3, random_start=False), wanted)


def test_the_seed_decides_where_pgd_starts() -> None:
    model, images = network("in_place"), pictures()
    one, same, other = (pgd(model, images, epsilon=0.1, steps=1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    drawn = torch.Generator().manual_seed(1)
    assert torch.equal(pgd(model, images, epsilon=0.1, steps=1, seed=drawn), one)


# --- where numbers run out ----------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Logits weights @ pixels + bias."""

    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weights, self.bias = nn.Parameter(weights), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weights.T + self.bias


def middling(count: int = 4, size: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Pictures that a short way does not lead out of [0, 1]."""
    random = torch.Generator().manual_seed(11)
    return torch.rand(count, 3, size, size, generator=random, dtype=dtype) * 0.2 + 0.4


def linear(classes: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Linear:
    """About as sure of each class on `middling` pictures."""
    random = torch.Generator().manual_seed(seed)
    weights = torch.randn(classes, 48, generator=random, dtype=dtype)
    return Linear(weights, -0.5 * weights.sum(dim=1) + 0.1 * torch.randn(classes, generator=random, dtype=dtype))


def test_fgsm_leaves_a_picture_of_which_the_network_is_so_sure_that_nothing_is_left_of_the_gradient() -> None:
    """The softmax is exactly 1, and 1 - 1 is 0: that is what the formula says. What follows logits still moves it."""
    model, images = linear(3, torch.float32), middling(dtype=torch.float32)
    with torch.no_grad():
        model.weights.mul_(10000)
        model.bias.mul_(10000)
    first, second, _ = model(images).sort(dim=1, descending=True).values.unbind(dim=1)
    assert (first - second).min() > 150
    assert torch.equal(fgsm(model, images, epsilon=0.1), images)
    assert torch.equal(pgd(model, images, epsilon=0.1, random_start=False), images)
    assert (read(model, deep_fool(model, images)) != read(model, images)).all()


@pytest.mark.parametrize(
    ("dtype", "faint"), [(torch.float32, 1e-25), (torch.float32, 1e-37), (torch.float64, 1e-200), (torch.float64, 1e99)]
)
def test_a_step_by_length_is_a_whole_one_however_faint_the_gradient(dtype: torch.dtype, faint: float) -> None:
    """The squares of 1e-25 are 0 in float32."""
    images = middling(dtype=dtype)
    found = pgd(
        linear(3, dtype),
        images,
        lambda logits: faint * logits[:, 1],
        epsilon=0.5,
        norm="l2",
        steps=1,
        step_size=0.3,
        random_start=False,
    )
    torch.testing.assert_close(lengths(found - images), torch.full((4,), 0.3, dtype=torch.float64), rtol=1e-5, atol=0)


def test_deep_fool_makes_no_nan_of_slopes_whose_squares_vanish() -> None:
    images = middling(1, dtype=torch.float32)
    for faint in (1e-18, 1e-20, 1e-21, 1e-22, 1e-30):
        weights = torch.zeros(3, 48)
        weights[[0, 1, 2], [0, 1, 2]] = faint
        found = deep_fool(Linear(weights, torch.tensor([1.0, 0.0, 0.0])), images, steps=2)
        assert found.isfinite().all()
        assert torch.equal(found.flatten()[3:], images.flatten()[3:])


# --- DeepFool -----------------------------------------------------------------------------------------------------


def borders(model: Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """How far from each picture the nearest border lies (N,), and the way to it (N, C, H, W)."""
    logits = model(images).detach()
    label = logits.argmax(dim=1)
    across = model.weights.detach()[None] - model.weights.detach()[label][:, None]  # (N, K, pixels)
    away = (logits.gather(1, label[:, None]) - logits) / across.norm(dim=2)
    away = away.scatter(1, label[:, None], torch.inf)
    distance, nearest = away.min(dim=1)
    unit = functional.normalize(across[torch.arange(len(images)), nearest], dim=1)
    return distance, (distance[:, None] * unit).view(images.shape)


@pytest.mark.parametrize("classes", [2, 3, 7, 30])
def test_one_step_reaches_the_nearest_border_of_a_linear_model_exactly(classes: int) -> None:
    model, images = linear(classes), middling()
    distance, way = borders(model, images)
    found = deep_fool(model, images, candidates=None, overshoot=0, steps=1)
    torch.testing.assert_close(found, images + way, rtol=0, atol=1e-13)
    torch.testing.assert_close(lengths(found - images), distance, rtol=1e-12, atol=0)


def test_between_two_classes_the_way_is_the_lead_over_the_length_of_the_weights() -> None:
    model, images = linear(2), middling()
    logits = model(images).detach()
    weights = (model.weights[0] - model.weights[1]).detach()
    found = deep_fool(model, images, overshoot=0, steps=1)
    wanted = (logits[:, 0] - logits[:, 1]).abs() / weights.norm()
    torch.testing.assert_close(lengths(found - images), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("overshoot", [1e-6, 0.02, 0.5])
@pytest.mark.parametrize("classes", [2, 5, 30])
def test_a_linear_model_misreads_at_no_more_than_the_least_distance_and_the_overshoot(
    classes: int, overshoot: float
) -> None:
    model, images = linear(classes), middling()
    found = deep_fool(model, images, candidates=None, overshoot=overshoot)
    assert (read(model, found) != read(model, images)).all()
    assert (lengths(found - images) <= borders(model, images)[0] * (1 + overshoot) * (1 + 1e-12)).all()


@pytest.mark.parametrize("name", QUICK)
def test_deep_fool_equals_a_plain_loop_over_pictures_and_classes(name: str) -> None:
    model, images = of(name, torch.float64), pictures(dtype=torch.float64)
    wanted = plain_deep_fool(model, images, read(model, images))
    found = deep_fool(model, images, candidates=None)
    # The plain loop has no patience to lose: on some processors it stays on a border, with two logits level.
    assert (read(model, found) != read(model, images)).all()
    assert (found - wanted).abs().max() <= 1e-10


@pytest.mark.parametrize("name", SMALL)
def test_deep_fool_equals_a_plain_loop_in_float32_while_its_steps_are_long(name: str) -> None:
    """Later the lead is so small that rounding, and with it the processor, decides which border is the nearest."""
    model, images = of(name, torch.float32), pictures()
    wanted = plain_deep_fool(model, images, read(model, images), steps=3)
    assert (wanted != images).any()
    assert (deep_fool(model, images, candidates=None, steps=3) - wanted).abs().max() <= 2e-6


def test_no_number_of_candidates_means_all_of_them() -> None:
    model, images = linear(7), middling()
    found = deep_fool(model, images, candidates=None)
    for enough in (6, 7, 1000):
        assert torch.equal(deep_fool(model, images, candidates=enough), found)


def test_only_the_candidates_with_the_highest_logits_are_gone_to() -> None:
    """Class 2 is the nearest, its weights are the largest; class 1 has the highest logit of the others."""
    weights = torch.zeros(3, 48, dtype=torch.float64)
    weights[1, 1], weights[2, 2] = 1.0, 50.0
    model = Linear(weights, torch.tensor([1.0, 0.3, -26.0], dtype=torch.float64))
    images = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    assert read(model, deep_fool(model, images, candidates=1)).tolist() == [1]
    assert read(model, deep_fool(model, images, candidates=2)).tolist() == [2]


@pytest.mark.parametrize("behind", [0.01, 0.0])
def test_a_class_that_no_pixel_brings_nearer_is_not_taken_for_near(behind: float) -> None:
    """Class 1 is always a hair behind class 0, or level: its lead is the smallest, and its slope is that of class 0."""
    weights = torch.zeros(3, 48, dtype=torch.float64)
    weights[:2, 0], weights[2, 1] = 1.0, 1.0
    model = Linear(weights, torch.tensor([0.2, 0.2 - behind, 0.0], dtype=torch.float64))
    images = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    assert read(model, deep_fool(model, images, steps=3)).tolist() == [2]


class Switched(nn.Module):
    """Logits behind a ReLU, as SqueezeNet's head has them: the mean of maps that are never below 0."""

    def __init__(self, weights: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, len(bias), 1).to(weights)
        self.relu = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.conv.weight[:] = weights[:, :, None, None]
            self.conv.bias[:] = bias  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x)).mean(dim=(2, 3))


def head_with_dead_classes(dtype: torch.dtype = torch.float64) -> Switched:
    """On a grey picture class 0 alone is on; 1 is far from it, 2 is off everywhere."""
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, -0.5], [0.0, 0.0, -1.0]], dtype=dtype)
    return Switched(weights, torch.tensor([0.0, -0.4, -1.0], dtype=dtype))


def test_classes_behind_a_relu_that_is_off_bring_no_nan() -> None:
    model, grey = head_with_dead_classes(), torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
    grey[1] = 0.0  # of this one all classes are off, and nothing has a gradient
    found = deep_fool(model, grey, overshoot=0.02)
    assert found.isfinite().all()
    assert torch.equal(found[1], grey[1])
    assert found[0, 0].max() < 0.1, "class 0 falls to where the others are"


def test_pictures_that_stop_at_different_times_get_what_they_get_alone() -> None:
    """With 30 candidates each there are two in a chunk; two steps are enough for all but the second."""
    model, images = copy.deepcopy(load_specimen("shapes").model).double(), drawn_shapes()[:3].double()
    found = {steps: deep_fool(model, images, candidates=30, steps=steps) for steps in (2, 50)}
    assert (found[2] == found[50]).flatten(1).all(dim=1).tolist() == [True, False, True]
    for steps, together in found.items():
        alone = torch.cat([deep_fool(model, one[None], candidates=30, steps=steps) for one in images])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_a_picture_that_is_misread_already_stays_as_it_is() -> None:
    model, images = network("in_place"), pictures()
    labels = read(model, images)
    labels[1] = (labels[1] + 1) % CLASSES
    found = deep_fool(model, images, labels)
    assert torch.equal(found[1], images[1])
    assert read(model, found)[0] != labels[0]


def test_a_lead_that_is_lost_in_rounding_does_not_stall_deep_fool() -> None:
    """Beside 10000, a lead of 0.0003 is nothing in float32: a step of its length would go nowhere."""
    weights = torch.zeros(2, 48)
    weights[1, 0] = 10.0
    model = Linear(weights, torch.tensor([10000.0003, 10000.0 - 5.0]))
    images = torch.full((1, 3, 4, 4), 0.5)
    assert model(images).tolist() == [[10000.0, 10000.0]]
    assert torch.equal(plain_deep_fool(model, images, torch.tensor([0])), images)
    found = deep_fool(model, images)
    assert read(model, found).tolist() == [1]
    assert lengths(found - images).item() < 0.2


def test_deep_fool_gets_across_on_shapes_too() -> None:
    """A plain loop stays 4 units in the last place before the border of the fourth."""
    model, images = load_specimen("shapes").model, drawn_shapes()[:6]
    assert (read(model, deep_fool(model, images)) != read(model, images)).all()


# --- fool ---------------------------------------------------------------------------------------------------------


@cache
def drawn_shapes() -> Tensor:
    return rounded(load_specimen("shapes").sample(100))


def other_classes(model: nn.Module, images: Tensor, count: int) -> Tensor:
    """For each picture a class at random that it is not read as."""
    shift = torch.randint(1, count, (len(images),), generator=torch.Generator().manual_seed(0))
    return (read(model, images) + shift) % count


def test_fool_reaches_at_least_95_of_100_random_targets_on_shapes(record_property: Any) -> None:
    specimen = load_specimen("shapes")
    targets = other_classes(specimen.model, drawn_shapes(), len(specimen.categories))
    found = fool(specimen.model, drawn_shapes(), targets)
    reached = int((read(specimen.model, rounded(found)) == targets).sum())
    record_property("reached of 100", reached)
    assert torch.equal(found, rounded(found))
    assert reached >= 95


@pytest.mark.parametrize("name", ["in_place", "shapes"])
def test_fool_equals_a_plain_loop_that_stops_once_the_rounded_picture_is_read_as_the_target(name: str) -> None:
    model, images = of(name, torch.float64), pictures(dtype=torch.float64)
    targets = other_classes(model, images, CLASSES)
    for steps in (1, 25):
        wanted = plain_fool(model, images, targets, 0.25, steps)
        assert torch.equal(fool(model, images, targets, steps=steps), wanted)


def test_a_picture_that_is_read_as_its_target_already_is_rounded_and_no_more() -> None:
    model, images = network("in_place"), pictures()
    assert torch.equal(read(model, rounded(images)), read(model, images))
    assert torch.equal(fool(model, images, read(model, images)), rounded(images))


class Bright(nn.Module):
    """Reads class 1 where the mean is above `border`, class 0 below."""

    def __init__(self, border: float) -> None:
        super().__init__()
        self.border = border

    def forward(self, x: Tensor) -> Tensor:
        lead = x.mean(dim=(1, 2, 3)) - self.border
        return torch.stack([-lead, lead], dim=1)


def test_a_picture_goes_on_where_rounding_undoes_it() -> None:
    """Read as its target at 100.45 of 255, it is not at 100, to which that is rounded; the next to be saved is 101."""
    model, images = Bright(100.4 / 255), torch.full((1, 3, 4, 4), 100.0 / 255, dtype=torch.float64)
    step = 0.15 / 255 * math.sqrt(48)  # every number by 0.15 / 255
    found = fool(model, images, 1, step_size=step)
    torch.testing.assert_close(found * 255, torch.full_like(found, 101.0))
    assert read(model, fool(model, images, 1, step_size=step, steps=3)).tolist() == [0]


def test_a_target_behind_a_relu_that_is_off_is_reached() -> None:
    model, grey = head_with_dead_classes(), torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
    grey[1, 2] = 0.9
    pixels = grey.clone().requires_grad_()
    scores = model(pixels)[:, 1]
    assert not scores.any() and not torch.autograd.grad(scores.sum(), pixels)[0].any()
    assert read(model, fool(model, grey, 1)).tolist() == [1, 1]


def test_each_picture_of_a_batch_is_fooled_as_it_is_alone() -> None:
    model, images = of("in_place", torch.float64), pictures(4, 32, torch.float64)
    targets = other_classes(model, images, CLASSES)
    found = fool(model, images, targets, steps=60)
    alone = torch.cat([fool(model, one[None], int(its), steps=60) for one, its in zip(images, targets, strict=True)])
    assert torch.equal(found, alone)


# --- one pixel ----------------------------------------------------------------------------------------------------


class OneDecides(nn.Module):
    """Reads class 1 where the red of the pixel at `place` is above 0.6; and 2 where its green is above 0.8."""

    def __init__(self, place: tuple[int, int]) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor) -> Tensor:
        red, green, _ = x[:, :, self.place[0], self.place[1]].unbind(dim=1)
        return torch.stack([torch.zeros_like(red), red - 0.6, 2 * (green - 0.8)], dim=1)


def changed_pixels(found: Tensor, images: Tensor) -> Tensor:
    return (found != images).any(dim=1)


@pytest.mark.parametrize("place", [(0, 0), (3, 6), (7, 7)])
def test_the_one_pixel_that_decides_is_found(place: tuple[int, int]) -> None:
    model, images = OneDecides(place), torch.full((3, 3, 8, 8), 0.25)
    found = one_pixel(model, images)
    assert (read(model, found) != 0).all()
    wanted = torch.zeros(3, 8, 8, dtype=torch.bool)
    wanted[:, place[0], place[1]] = True
    assert torch.equal(changed_pixels(found, images), wanted)


def test_a_pixel_is_found_for_the_target_that_is_wanted() -> None:
    model, images = OneDecides((2, 5)), torch.full((2, 3, 8, 8), 0.25)
    for target in ([1, 1], [2, 2], [1, 2]):
        assert read(model, one_pixel(model, images, target)).tolist() == target


def test_a_pixel_is_painted_in_a_colour_that_8_bits_can_say() -> None:
    model, images = OneDecides((2, 5)), torch.full((1, 3, 8, 8), 0.123)
    found = one_pixel(model, images)[0, :, 2, 5]
    assert torch.equal(found, rounded(found))


def test_the_seed_decides_which_pixel_is_tried() -> None:
    model, images = network("in_place"), pictures(size=16)
    given = partial(one_pixel, population=5, steps=2)
    one, same, other = (given(model, images, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(given(model, images, seed=torch.Generator().manual_seed(1)), one)


def test_no_pixel_is_painted_where_the_picture_is_misread_already() -> None:
    model, images = OneDecides((2, 5)), torch.full((2, 3, 8, 8), 0.25)
    found = one_pixel(model, images, labels=[0, 1])
    assert torch.equal(found[1], images[1])
    assert not torch.equal(found[0], images[0])
    assert torch.equal(one_pixel(model, images, labels=1), images)
    assert torch.equal(one_pixel(model, images, 0), images)


def test_a_candidate_is_mixed_of_three_others() -> None:
    random = torch.Generator().manual_seed(0)
    three = fooling._three_others(random, torch.zeros(50, 4, 1, 5))
    own = torch.arange(4).expand(1, 50, 4)
    # Of four, the three others and itself are all there are.
    assert torch.equal(torch.cat([three, own]).sort(dim=0).values, torch.arange(4).view(4, 1, 1).expand(4, 50, 4))


class Looks:
    """How many pictures a model has been asked about."""

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        model.register_forward_hook(self._note)

    def _note(self, model: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.count += len(output)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_picture_is_looked_at_as_often_as_was_said_and_less_where_it_is_done_sooner(steps: int) -> None:
    """One look at each clean picture tells what it is read as, and one whether it is misread already."""
    stubborn, images = Bright(2.0), torch.full((3, 3, 8, 8), 0.25)
    looks = Looks(stubborn)
    one_pixel(stubborn, images, population=7, steps=steps)
    assert looks.count == 3 * 7 * (steps + 1) + 2 * 3
    willing = Bright(0.25 + 1e-4)
    looks = Looks(willing)
    found = one_pixel(willing, images, population=7, steps=steps)
    assert (read(willing, found) == 1).all()
    assert looks.count - 3 <= 3 * 7 + 2 * 3, "the first seven were tried, and the model was asked by this test"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each look in parts was at."""
    seen: list[int] = []
    original = local_change.LocalChanges.logits

    def logits(self: Any, patches: Any, pictures: Any, places: Any) -> Tensor:
        answer = original(self, patches, pictures, places)
        seen.append(len(answer))
        return answer

    monkeypatch.setattr(local_change.LocalChanges, "logits", logits)
    return seen


@pytest.mark.parametrize("name", QUICK)
def test_a_look_at_the_changed_part_alone_finds_the_same_pixel(
    name: str, parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = of(name, torch.float64), pictures(dtype=torch.float64)
    given = partial(one_pixel, model, images, population=6, steps=3)
    whole = given()
    assert not parts
    monkeypatch.setattr(local_change, "_WORTH_CUTTING", 0)
    monkeypatch.setattr(local_change, "_SHARE", 0.9)  # so that there is a part for every network here
    found = given()
    assert parts
    assert torch.equal(found, whole)


class Moody(nn.Module):
    """Takes another way, to the same answer, from its eighth pass on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3).double(), nn.Conv2d(6, 4, 3).double()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        x = self.first(x)
        x = x.relu() if self.passes < 8 else x.clamp(min=0)
        return self.second(x).mean(dim=(2, 3))


def test_a_network_that_takes_another_way_is_asked_about_whole_pictures(
    parts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(size=32, dtype=torch.float64)
    wanted = one_pixel(Moody(), images, population=6, steps=5)
    monkeypatch.setattr(local_change, "_WORTH_CUTTING", 0)
    model = Moody()
    assert torch.equal(one_pixel(model, images, population=6, steps=5), wanted)
    assert parts
    assert model.passes > 8


# --- a universal perturbation -------------------------------------------------------------------------------------


def nearly_linear(favour: float = 0.0) -> tuple[nn.Module, Tensor]:
    """A network with hardly a bend, and 40 pictures that it reads as all of four classes, class 0 by favour."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.Flatten(), nn.Linear(8 * 36, 4))
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model[3].bias -= model(images).mean(dim=0) - torch.tensor([favour, 0.0, 0.0, 0.0])
    return model.eval(), images


@pytest.mark.parametrize(("target", "favour", "least"), [(None, 0.1, 0.8), (2, 0.0, 0.9)])
def test_one_difference_moves_most_pictures_and_noise_of_its_size_few(
    target: int | None, favour: float, least: float
) -> None:
    model, images = nearly_linear(favour)
    before = read(model, images)
    assert len(before.unique()) == 4
    change = universal_perturbation(model, images, target, epsilon=0.1, batch_size=16)
    assert change.shape == (3, 8, 8)
    assert change.abs().max() <= 0.1

    def moved(by: Tensor) -> float:
        after = read(model, (images + by).clamp(0, 1))
        return (after != before if target is None else after == target).float().mean().item()

    noise = 0.1 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)).sign()
    assert moved(change) >= least
    assert moved(noise) < 0.5


def test_the_seed_decides_which_pictures_a_difference_is_learned_from() -> None:
    model, images = nearly_linear()
    one, same, other = (universal_perturbation(model, images, steps=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    drawn = torch.Generator().manual_seed(1)
    assert torch.equal(universal_perturbation(model, images, steps=3, seed=drawn), one)


def test_a_difference_of_one_step_is_the_sign_of_the_summed_gradient() -> None:
    model, images = of("in_place", torch.float64), pictures(3, dtype=torch.float64)
    gradient = plain_gradient(model, images, CHOSEN[[0, 0, 0]], True).sum(dim=0)
    found = universal_perturbation(model, images, 3, epsilon=0.1, steps=1)
    torch.testing.assert_close(found, 0.1 / 8 * gradient.sign(), rtol=1e-12, atol=0)
    found = universal_perturbation(model, images, 3, epsilon=0.1, steps=1, step_size=0.03)
    torch.testing.assert_close(found, 0.03 * gradient.sign(), rtol=1e-12, atol=0)


# --- the report ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacked() -> tuple[nn.Module, Tensor, Tensor]:
    """Pictures of 8 bits, some fooled, some not; the last is only darker."""
    model, images = of("shapes", torch.float64), rounded(pictures(6, dtype=torch.float64))
    sizes = torch.tensor([0.0, 0.001, 0.01, 0.02, 0.1, 0.2], dtype=torch.float64)
    moved = fgsm(model, images, epsilon=sizes)
    moved[5] = 0.7 * images[5]
    return model, images, moved


def one_number_for_each(pairs: Iterator[tuple[Any, Any]], how: Callable[[Any, Any], float]) -> list[float]:
    return [how(one, other) for one, other in pairs]


def wangs_ssim(one: Any, other: Any) -> float:
    """Wang et al., 2004: means under a Gaussian of 11 x 11, sigma 1.5, where it fits; the mean of the channels."""
    places = np.arange(11) - 5.0
    row = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(row, row) / row.sum() ** 2

    def mean(values: Any) -> Any:
        return (np.lib.stride_tricks.sliding_window_view(values, (11, 11)) * window).sum(axis=(2, 3))

    found = []
    for a, b in zip(one, other, strict=True):
        first, second = mean(a), mean(b)
        variances = mean(a * a) - first**2 + mean(b * b) - second**2
        together = mean(a * b) - first * second
        top = (2 * first * second + 0.01**2) * (2 * together + 0.03**2)
        found.append((top / ((first**2 + second**2 + 0.01**2) * (variances + 0.03**2))).mean())
    return float(np.mean(found))


MEASURES: dict[str, Callable[[Any, Any], float]] = {
    "linf": lambda one, other: np.abs(one - other).max(),
    "l2": lambda one, other: np.sqrt(((one - other) ** 2).sum()),
    "l0": lambda one, other: np.any(one != other, axis=0).sum(),
    "ssim": wangs_ssim,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_of_the_rounded_picture_equals_its_formula(
    name: str, attacked: tuple[nn.Module, Tensor, Tensor]
) -> None:
    model, images, moved = attacked
    pairs = zip(images.numpy(), np.round(moved.numpy() * 255) / 255, strict=True)
    wanted = torch.tensor(one_number_for_each(pairs, MEASURES[name]), dtype=torch.float64)
    torch.testing.assert_close(getattr(report(model, images, moved), name).double(), wanted, rtol=1e-9, atol=1e-12)


def test_psnr_equals_that_of_scikit_image(attacked: tuple[nn.Module, Tensor, Tensor]) -> None:
    from skimage.metrics import peak_signal_noise_ratio

    model, images, moved = attacked
    pairs = zip(images.numpy(), rounded(moved).numpy(), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it divides by an error of 0
        wanted = one_number_for_each(pairs, partial(peak_signal_noise_ratio, data_range=1.0))
    found = report(model, images, moved).psnr
    assert math.isinf(wanted[0])
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=0)


def test_the_report_says_what_is_read_and_how_probable_it_is(attacked: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, images, moved = attacked
    found = report(model, images, moved)
    assert torch.equal(found.before, read(model, images))
    assert torch.equal(found.after, read(model, rounded(moved)))
    logits = model(rounded(moved)).detach().numpy()
    wanted = np.exp(logits.max(axis=1)) / np.exp(logits).sum(axis=1)
    torch.testing.assert_close(found.probability, torch.tensor(wanted), rtol=1e-9, atol=0)
    assert torch.equal(found.fooled, found.before != found.after)
    assert found.counts.all()
    assert 0 < found.rate == int(found.fooled.sum()) / 6 < 1


def test_an_unchanged_picture_is_the_same_by_every_measure() -> None:
    images = rounded(pictures())
    found = report(network("in_place"), images, images.clone())
    assert found.psnr.tolist() == [math.inf, math.inf]
    assert found.ssim.tolist() == [1.0, 1.0]
    assert not (found.linf.any() or found.l2.any() or found.l0.any() or found.fooled.any())


def test_a_pixel_that_differs_by_rounding_alone_has_not_changed() -> None:
    """k * (1 / 255) and k / 255 differ in the last digit for many k; both are saved as k."""
    images = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16) * torch.tensor(1 / 255)
    assert (images != rounded(images)).any()
    moved = images.clone()
    moved[0, 1, 2, 3] += 1 / 255
    assert report(Bright(0.9), images, moved).l0.tolist() == [1]


def test_pictures_misread_already_do_not_count() -> None:
    model, images = Bright(0.5), torch.stack([torch.full((3, 11, 11), value) for value in (0.2, 0.2, 0.8, 0.8)])
    moved = images.flip(0)
    found = report(model, images, moved, labels=[0, 1, 1, 0])
    assert found.counts.tolist() == [True, False, True, False]
    assert found.fooled.tolist() == found.fooled_unrounded.tolist() == [True, False, True, False]
    assert found.rate == 1.0


def test_pictures_read_as_the_target_already_do_not_count() -> None:
    model, images = Bright(0.5), torch.stack([torch.full((3, 11, 11), value) for value in (0.2, 0.2, 0.8, 0.8)])
    moved = torch.stack([torch.full((3, 11, 11), value) for value in (0.8, 0.2, 0.8, 0.2)])
    found = report(model, images, moved, 1)
    assert found.counts.tolist() == [True, True, False, False]
    assert found.fooled.tolist() == [True, False, False, False]
    assert found.rate == 0.5
    found = report(model, images, moved, [1, 1, 0, 0])
    assert found.fooled.tolist() == [True, False, False, True]


def test_a_success_that_rounding_undoes_counts_before_and_not_after() -> None:
    model, images = Bright(100.4 / 255), torch.full((2, 3, 11, 11), 100.0 / 255)
    moved = torch.stack([torch.full((3, 11, 11), value / 255) for value in (100.45, 100.6)])
    found = report(model, images, moved)
    assert found.fooled_unrounded.tolist() == [True, True]
    assert found.fooled.tolist() == [False, True]
    assert found.rate == 0.5
    assert str(found).startswith("fooled: 1 of 2 after rounding, 2 before")


def test_there_is_no_rate_where_no_picture_counts() -> None:
    model, images = Bright(0.5), torch.full((2, 3, 11, 11), 0.2)
    found = report(model, images, images, 0)
    assert math.isnan(found.rate)
    assert str(found) == (
        "fooled: 0 of 0 after rounding, 0 before\nleft out: 2 that were misread, or read as the target, already"
    )


def test_a_report_in_words_says_the_numbers() -> None:
    """Medians of those that were fooled: the first two of four."""
    numbers = torch.arange(4)
    yes = torch.tensor([True, True, False, False])
    found = Report(
        before=numbers,
        after=numbers,
        probability=torch.full((4,), 0.5),
        counts=torch.tensor([True, True, True, False]),
        fooled=yes,
        fooled_unrounded=torch.tensor([True, True, True, False]),
        linf=torch.tensor([4.0, 4.0, 90.0, 90.0]) / 255,
        l2=torch.tensor([1.234, 1.234, 9.0, 9.0]),
        l0=torch.tensor([17, 17, 900, 900]),
        psnr=torch.tensor([33.33, 33.33, 3.0, 3.0]),
        ssim=torch.tensor([0.9876, 0.9876, 0.1, 0.1]),
    )
    assert str(found) == (
        "fooled: 2 of 3 after rounding, 3 before\n"
        "left out: 1 that were misread, or read as the target, already\n"
        "median of the fooled: L-infinity 4.0/255, L2 1.23, 17 pixels, PSNR 33.3 dB, SSIM 0.988"
    )
    assert found.rate == pytest.approx(2 / 3)


# --- project ------------------------------------------------------------------------------------------------------


def size_of(change: Tensor, norm: str) -> Tensor:
    return change.double().abs().amax(dim=(1, 2, 3)) if norm == "linf" else lengths(change)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_what_lies_inside_stays_exactly(norm: str, dtype: torch.dtype) -> None:
    images, moved = pictures(3, dtype=dtype), pictures(3, dtype=dtype).flip(0) ** 3
    epsilon = float(size_of(moved - images, norm).max()) * 1.001
    assert torch.equal(
        project(moved, images, epsilon=min(epsilon, 1.0) if norm == "linf" else epsilon, norm=norm), moved
    )
    assert torch.equal(project(images, images, epsilon=0, norm=norm), images)


@pytest.mark.parametrize("norm", NORMS)
def test_what_lies_outside_ends_at_the_edge_of_the_ball_on_the_straight_way(norm: str) -> None:
    images = middling(2, 8)
    random = torch.Generator().manual_seed(4)
    change = torch.randn(images.shape, generator=random, dtype=images.dtype)
    found = project(images + change, images, epsilon=0.05, norm=norm) - images
    if norm == "linf":
        wanted = torch.where(change.abs() > 0.05, 0.05 * change.sign(), change)
    else:
        wanted = 0.05 * change / change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_each_picture_is_brought_back_to_an_epsilon_of_its_own(norm: str) -> None:
    images, sizes = middling(4, 8), torch.tensor([0.0, 0.01, 0.1, 1.0], dtype=torch.float64)
    moved = images + torch.linspace(-0.3, 0.3, 8, dtype=torch.float64)
    found = project(moved, images, epsilon=sizes, norm=norm)
    alone = [
        project(moved[i : i + 1], images[i : i + 1], epsilon=float(size), norm=norm) for i, size in enumerate(sizes)
    ]
    assert torch.equal(found, torch.cat(alone))
    assert torch.equal(found[0], images[0])


@pytest.mark.parametrize("norm", NORMS)
def test_pixels_are_brought_back_into_0_to_1(norm: str) -> None:
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    moved = images + torch.tensor([-0.1, 0.1]).view(2, 1, 1, 1)
    for epsilon in (0.05, 1.0):
        assert torch.equal(project(moved, images, epsilon=epsilon, norm=norm), images)


# --- what holds for whatever is asked -----------------------------------------------------------------------------


@cache
def tiny(kind: str, dtype: torch.dtype) -> nn.Module:
    """Networks (N, 3, H, W) -> (N, 4) for pictures of any size."""
    torch.manual_seed(7)
    parts: dict[str, list[nn.Module]] = {
        "bent": [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)],
        "behind a relu": [nn.Conv2d(3, 4, 2, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
        "stepping": [nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 4)],
    }
    return nn.Sequential(*parts[kind]).to(dtype).eval()


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    """A tiny network, pictures, and what all attacks have in common."""
    dtype = draw(st.sampled_from(PRECISIONS))
    model = tiny(draw(st.sampled_from(["bent", "behind a relu", "stepping"])), dtype)
    count, height, width = draw(st.integers(1, 4)), draw(st.integers(3, 9)), draw(st.integers(3, 9))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    images = torch.rand(count, 3, height, width, generator=random, dtype=dtype)
    kind = draw(st.sampled_from(["any", "8 bits", "black and white", "black", "faint"]))
    images = {
        "any": images,
        "8 bits": rounded(images),
        "black and white": images.round(),
        "black": torch.zeros_like(images),
        "faint": images * 1e-30,
    }[kind]
    each = st.lists(st.integers(0, 3), min_size=count, max_size=count)
    aim = draw(st.sampled_from(["none", "labels", "target"]))
    chosen = {} if aim == "none" else {aim: draw(st.one_of(st.integers(0, 3), each))}
    return model, images, chosen


SIZES = st.one_of(st.sampled_from([0.0, 1e-9, 1 / 255, 8 / 255, 1.0]), st.floats(0, 1))
AS_DRAWN = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(found: Tensor, images: Tensor, before: Tensor) -> None:
    """What holds for every attack: pictures come back, and those handed over are as they were."""
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert not found.requires_grad
    assert found.isfinite().all()
    assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(images, before)


def check_within(found: Tensor, images: Tensor, epsilon: Tensor, norm: str) -> None:
    size = size_of(found.double() - images.double(), norm)
    rounding = torch.finfo(images.dtype).eps
    assert (size <= (epsilon + rounding if norm == "linf" else epsilon * (1 + 1e-6) + rounding)).all()


@st.composite
def epsilons(draw: st.DrawFn, images: Tensor, scale: float = 1.0) -> tuple[Any, Tensor]:
    """As it is handed over, and one for each picture."""
    if draw(st.booleans()):
        one = draw(SIZES) * scale
        return one, torch.full((len(images),), one, dtype=torch.float64)
    several = torch.tensor([draw(SIZES) * scale for _ in images], dtype=torch.float64)
    return several, several


@settings(AS_DRAWN, max_examples=150)
@given(st.data())
def test_whatever_is_asked_fgsm_stays_within_epsilon(data: st.DataObject) -> None:
    model, images, aim = data.draw(cases())
    before = images.clone()
    epsilon, each = data.draw(epsilons(images))
    found = fgsm(model, images, epsilon=epsilon, **aim)
    check(found, images, before)
    check_within(found, images, each, "linf")


@pytest.mark.parametrize("norm", NORMS)
def test_whatever_is_asked_pgd_stays_within_epsilon(norm: str) -> None:
    @settings(AS_DRAWN, max_examples=150)
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        model, images, aim = data.draw(cases())
        before = images.clone()
        epsilon, each = data.draw(epsilons(images, 1.0 if norm == "linf" else 5.0))
        found = pgd(
            model,
            images,
            epsilon=epsilon,
            norm=norm,
            steps=data.draw(st.integers(1, 4)),
            step_size=data.draw(st.one_of(st.none(), st.floats(0, 2))),
            random_start=data.draw(st.booleans()),
            seed=data.draw(st.integers(0, 2**40)),
            **aim,
        )
        check(found, images, before)
        check_within(found, images, each, norm)

    holds()


@settings(AS_DRAWN, max_examples=150)
@given(st.data())
def test_whatever_is_asked_fool_gives_pictures_of_8_bits(data: st.DataObject) -> None:
    model, images, aim = data.draw(cases())
    before, target = images.clone(), next(iter(aim.values()), 0)
    step_size = data.draw(st.floats(1e-3, 5))
    found = fool(model, images, target, step_size=step_size, steps=data.draw(st.integers(1, 5)))
    check(found, images, before)
    assert torch.equal(found, rounded(found))


@settings(AS_DRAWN, max_examples=150)
@given(st.data())
def test_whatever_is_asked_deep_fool_moves_only_what_is_not_misread(data: st.DataObject) -> None:
    model, images, aim = data.draw(cases())
    before, labels = images.clone(), next(iter(aim.values()), None)
    found = deep_fool(
        model,
        images,
        labels,
        candidates=data.draw(st.one_of(st.none(), st.integers(1, 12))),
        overshoot=data.draw(st.one_of(st.just(0.02), st.floats(0, 10))),
        steps=data.draw(st.integers(1, 4)),
    )
    check(found, images, before)
    own = read(model, images) if labels is None else torch.as_tensor(labels).expand(len(images))
    misread = read(model, images) != own
    assert torch.equal(found[misread], images[misread])


@settings(AS_DRAWN, max_examples=150)
@given(st.data())
def test_whatever_is_asked_one_pixel_changes_no_more_than_it_may(data: st.DataObject) -> None:
    model, images, aim = data.draw(cases())
    before, count = images.clone(), data.draw(st.integers(1, 3))
    found = one_pixel(
        model,
        images,
        pixels=count,
        population=data.draw(st.integers(4, 7)),
        steps=data.draw(st.integers(0, 2)),
        seed=data.draw(st.integers(0, 2**40)),
        **aim,
    )
    check(found, images, before)
    # The same number is the same bits here, for there is no NaN, and no -0 from outside of [0, 1].
    assert (changed_pixels(found, images).flatten(1).sum(dim=1) <= count).all()


@settings(AS_DRAWN, max_examples=150)
@given(st.data())
def test_whatever_is_asked_a_universal_difference_stays_within_epsilon(data: st.DataObject) -> None:
    model, images, aim = data.draw(cases())
    before, epsilon = images.clone(), data.draw(SIZES)
    change = universal_perturbation(
        model,
        images,
        epsilon=epsilon,
        steps=data.draw(st.integers(1, 3)),
        step_size=data.draw(st.one_of(st.none(), st.floats(0, 2))),
        batch_size=data.draw(st.integers(1, 5)),
        seed=data.draw(st.integers(0, 2**40)),
        **aim,
    )
    assert change.shape == images.shape[1:]
    assert change.dtype == images.dtype
    assert change.isfinite().all()
    assert change.double().abs().max() <= epsilon * (1 + torch.finfo(images.dtype).eps)
    assert torch.equal(images, before)


def test_pictures_made_in_inference_mode_can_be_fooled_inside_it() -> None:
    wanted = [method(network("in_place"), pictures(), 3) for method in (fool, deep_fool, partial(fgsm, epsilon=0.1))]
    with torch.inference_mode():
        images = pictures() * 1
        found = [method(network("in_place"), images, 3) for method in (fool, deep_fool, partial(fgsm, epsilon=0.1))]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


# --- what is refused ----------------------------------------------------------------------------------------------


def told(model: nn.Module, images: Tensor, *target: Any, moved: Any = None, **settings: Any) -> Report:
    """`report`, of a picture that has not moved."""
    return report(model, images, images if moved is None else moved, *target, **settings)


METHODS: dict[str, Callable[..., Any]] = {
    "fool": partial(fool, target=1),
    "fgsm": partial(fgsm, epsilon=8 / 255),
    "pgd": partial(pgd, epsilon=8 / 255),
    "deep_fool": deep_fool,
    "one_pixel": one_pixel,
    "universal_perturbation": universal_perturbation,
    "report": told,
}
AIMED = ("fool", "fgsm", "pgd", "one_pixel", "universal_perturbation", "report")
LABELLED = ("fgsm", "pgd", "deep_fool", "one_pixel", "universal_perturbation", "report")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_only_asked_about_pixels_in_0_to_1(method: str) -> None:
    model, seen = InPlace().eval(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0].detach().aminmax()))
    images = pictures(4, 16).round()
    METHODS[method](model, images, **({"moved": 1 - images} if method == "report" else {}))
    assert min(seen) == 0 and max(seen) == 1


@pytest.fixture
def asked() -> Iterator[tuple[nn.Module, list[int]]]:
    """A network, and the sizes of the batches it was asked about."""
    model, seen = InPlace().eval(), []
    hook = model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    yield model, seen
    hook.remove()


def refused(
    asked: tuple[nn.Module, list[int]], method: str, error: type[Exception], words: str, images: Any, **settings: Any
) -> None:
    """With the name of what is wrong, and before the model is asked."""
    with pytest.raises(error, match=words):
        METHODS[method](asked[0], images, **settings)
    assert not asked[1]


NO_PICTURES = [
    (torch.full((1, 3, 16, 16), 1.01), ValueError, r"images must lie in \[0, 1\]"),
    (torch.full((1, 3, 16, 16), -0.01), ValueError, r"images must lie in \[0, 1\]"),
    (torch.rand(3, 16, 16), ValueError, r"images must have the shape .* write images\[None\]"),
    (torch.rand(0, 3, 16, 16), ValueError, "images must have the shape"),
    (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), TypeError, "images must be floating point"),
    (torch.full((1, 3, 16, 16), math.nan), ValueError, "images must be finite"),
    ([[0.5]], TypeError, "images must be a tensor"),
]


@pytest.mark.parametrize(("images", "error", "words"), NO_PICTURES)
@pytest.mark.parametrize("method", METHODS)
def test_what_are_no_pictures_is_refused(
    method: str, images: Any, error: type[Exception], words: str, asked: tuple[nn.Module, list[int]]
) -> None:
    refused(asked, method, error, words, images)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_model_is_refused(method: str) -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        METHODS[method]("resnet18", pictures())


@pytest.mark.parametrize(("images", "error", "words"), NO_PICTURES)
def test_nothing_is_projected_around_what_are_no_pictures(images: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        project(images, images, epsilon=0.1)


NO_EPSILON = [
    (-0.1, ValueError, "epsilon must be 0 or more"),
    (math.nan, ValueError, "epsilon must be 0 or more"),
    (math.inf, ValueError, "epsilon must be 0 or more"),
    (torch.tensor([0.1, -0.1]), ValueError, "epsilon must be 0 or more"),
    (8, ValueError, "epsilon must be at most 1, not 8: .* 8/255"),
    (torch.tensor([0.1, 1.5]), ValueError, "epsilon must be at most 1, not 1.5: .* 8/255"),
    (torch.tensor([0.1, 0.1, 0.1]), ValueError, "epsilon must be one number, or one for each of 2 pictures"),
    (torch.full((2, 1, 1, 1), 0.1), ValueError, "epsilon must be one number, or one for each of 2 pictures"),
    ("8/255", TypeError, "epsilon must be a number"),
    (None, TypeError, "epsilon must be a number"),
    (True, TypeError, "epsilon must be a number"),
]


@pytest.mark.parametrize(("epsilon", "error", "words"), NO_EPSILON)
@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_a_bad_epsilon_is_refused(
    method: str, epsilon: Any, error: type[Exception], words: str, asked: tuple[nn.Module, list[int]]
) -> None:
    refused(asked, method, error, words, pictures(), epsilon=epsilon)


@pytest.mark.parametrize(("epsilon", "error", "words"), NO_EPSILON)
def test_nothing_is_projected_to_a_bad_epsilon(epsilon: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        project(pictures(), pictures(), epsilon=epsilon)


@pytest.mark.parametrize(
    ("epsilon", "error", "words"), [case for case in NO_EPSILON if not isinstance(case[0], Tensor)]
)
def test_a_bad_epsilon_of_a_universal_difference_is_refused(
    epsilon: Any, error: type[Exception], words: str, asked: tuple[nn.Module, list[int]]
) -> None:
    refused(asked, "universal_perturbation", error, words, pictures(), epsilon=epsilon)


def test_a_length_may_be_above_1() -> None:
    assert pgd(network("in_place"), pictures(), epsilon=8, norm="l2", steps=1).shape == (2, 3, 64, 64)
    assert torch.equal(project(pictures(), pictures(), epsilon=8, norm="l2"), pictures())


@pytest.mark.parametrize(
    ("method", "settings", "error", "words"),
    [
        ("fool", {"steps": 0}, ValueError, "steps must be 1 or more"),
        ("fool", {"steps": 1.5}, TypeError, "steps must be a whole number"),
        ("fool", {"steps": True}, TypeError, "steps must be a whole number"),
        ("fool", {"step_size": 0}, ValueError, "step_size must be above 0"),
        ("fool", {"step_size": math.nan}, ValueError, "step_size must be above 0"),
        ("fool", {"step_size": math.inf}, ValueError, "step_size must be above 0"),
        ("fool", {"step_size": "long"}, TypeError, "step_size must be a number"),
        ("fool", {"target": None}, TypeError, "target must be a class"),
        ("pgd", {"norm": "l1"}, ValueError, "norm must be 'linf' or 'l2', not 'l1'"),
        ("pgd", {"norm": math.inf}, ValueError, "norm must be 'linf' or 'l2'"),
        ("pgd", {"steps": 0}, ValueError, "steps must be 1 or more"),
        ("pgd", {"steps": 1.5}, TypeError, "steps must be a whole number"),
        ("pgd", {"steps": True}, TypeError, "steps must be a whole number"),
        ("pgd", {"step_size": -0.1}, ValueError, "step_size must be 0 or more"),
        ("pgd", {"step_size": torch.rand(3)}, ValueError, "step_size must be one number, or one for each"),
        ("pgd", {"seed": 0.5}, TypeError, "seed must be a whole number"),
        ("deep_fool", {"steps": 0}, ValueError, "steps must be 1 or more"),
        ("deep_fool", {"steps": 1.5}, TypeError, "steps must be a whole number"),
        ("deep_fool", {"steps": True}, TypeError, "steps must be a whole number"),
        ("deep_fool", {"candidates": 0}, ValueError, "candidates must be 1 or more"),
        ("deep_fool", {"candidates": 2.0}, TypeError, "candidates must be a whole number"),
        ("deep_fool", {"overshoot": "some"}, TypeError, "overshoot must be a number"),
        ("deep_fool", {"overshoot": math.nan}, ValueError, "overshoot must be 0 or more"),
        ("deep_fool", {"overshoot": -0.5}, ValueError, "overshoot must be 0 or more"),
        ("one_pixel", {"steps": -1}, ValueError, "steps must be 0 or more"),
        ("one_pixel", {"steps": True}, TypeError, "steps must be a whole number"),
        ("one_pixel", {"pixels": 0}, ValueError, "pixels must be 1 or more"),
        ("one_pixel", {"population": 3}, ValueError, "population must be 4 or more"),
        ("one_pixel", {"seed": "lucky"}, TypeError, "seed must be a whole number"),
        ("universal_perturbation", {"steps": 0}, ValueError, "steps must be 1 or more"),
        ("universal_perturbation", {"steps": 1.5}, TypeError, "steps must be a whole number"),
        ("universal_perturbation", {"step_size": -0.1}, ValueError, "step_size must be 0 or more"),
        ("universal_perturbation", {"batch_size": 0}, ValueError, "batch_size must be 1 or more"),
        ("universal_perturbation", {"seed": -1}, ValueError, "seed must be 0 or more"),
        ("report", {"moved": torch.rand(2, 3, 64, 63)}, ValueError, "moved must have the shape of images"),
        ("report", {"moved": torch.rand(3, 64, 64)}, ValueError, "moved must have the shape"),
        ("report", {"moved": torch.full((2, 3, 64, 64), 1.5)}, ValueError, r"moved must lie in \[0, 1\]"),
        ("report", {"moved": [0.5]}, TypeError, "moved must be a tensor"),
    ],
)
def test_a_bad_setting_is_refused(
    method: str, settings: dict[str, Any], error: type[Exception], words: str, asked: tuple[nn.Module, list[int]]
) -> None:
    refused(asked, method, error, words, pictures(), **settings)


def test_pictures_too_small_to_be_compared_are_refused(asked: tuple[nn.Module, list[int]]) -> None:
    refused(asked, "report", ValueError, "images must have at least 11 x 11 pixels", pictures(size=10))


def test_what_was_not_moved_from_these_pictures_is_not_projected() -> None:
    for moved in (pictures(3), pictures(size=16), [0.5]):
        with pytest.raises(ValueError, match="moved must have the shape of images"):
            project(moved, pictures(), epsilon=0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm must be 'linf' or 'l2'"):
        project(pictures(), pictures(), epsilon=0.1, norm="l1")


NO_CLASSES = [
    (1.0, TypeError, "{name} must be a class"),
    (True, TypeError, "{name} must be a class"),
    ("cat", TypeError, "{name} must be a class"),
    (-1, ValueError, "{name} must be 0 or more"),
    ([1, 2, 3], ValueError, "{name} must hold one class for each of 2 pictures"),
    (torch.tensor([0.5, 1.0]), TypeError, "{name} must hold the numbers of classes"),
    (torch.tensor([1, -2]), ValueError, "{name} must be 0 or more"),
]


@pytest.mark.parametrize(("value", "error", "words"), NO_CLASSES)
@pytest.mark.parametrize(
    ("method", "name"), [(method, "target") for method in AIMED] + [(method, "labels") for method in LABELLED]
)
def test_what_is_no_class_is_refused(
    method: str, name: str, value: Any, error: type[Exception], words: str, asked: tuple[nn.Module, list[int]]
) -> None:
    refused(asked, method, error, words.format(name=name), pictures(), **{name: value})


@pytest.mark.parametrize("method", [method for method in AIMED if method != "fool"])
def test_a_class_to_get_to_and_one_to_get_away_from_are_not_taken_together(
    method: str, asked: tuple[nn.Module, list[int]]
) -> None:
    refused(asked, method, ValueError, "target and labels", pictures(), target=1, labels=2)


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, "target") for method in AIMED if method not in ("fgsm", "pgd")]
    + [(method, "labels") for method in LABELLED],
)
def test_a_function_is_refused_where_a_class_is_needed(
    method: str, name: str, asked: tuple[nn.Module, list[int]]
) -> None:
    words = f"{name} must be a class, or one for each picture, not a function"
    refused(asked, method, TypeError, words, pictures(), **{name: lambda logits: logits[:, 1]})


@pytest.mark.parametrize("value", [CLASSES, [1, CLASSES]])
@pytest.mark.parametrize(
    ("method", "name"), [(method, "target") for method in AIMED] + [(method, "labels") for method in LABELLED]
)
def test_a_class_that_the_network_does_not_have_is_refused_after_one_look(
    method: str, name: str, value: Any, asked: tuple[nn.Module, list[int]]
) -> None:
    with pytest.raises(ValueError, match=f"^{name} 10 is out of range: this network has 10 classes"):
        METHODS[method](asked[0], pictures(), **{name: value})
    assert len(asked[1]) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_puts_out_no_logits_is_refused(method: str) -> None:
    model = nn.Conv2d(3, 4, 3)
    with pytest.raises(ValueError, match="model must put out logits"):
        METHODS[method](model, pictures())


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda logits: logits, "target must give one score for each"),
        (lambda logits: torch.ones(len(logits)), "does not depend on the picture"),
    ],
)
def test_a_function_that_gives_no_score_that_can_grow_is_refused(
    method: str, target: Callable[[Tensor], Tensor], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        METHODS[method](network("in_place"), pictures(), target)
