"""Surfaces are what they say they are; every rule has the same tries on them, and the best is kept."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from matplotlib.figure import Figure

from lessons_lib.optimizers import SGD, Adam, Momentum
from lessons_lib.surfaces import RATES, SURFACES, Surface, contours, descend, tuned

BY_NAME = {surface.name: surface for surface in SURFACES}


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_the_lowest_point_is_level_and_the_lowest_of_what_is_drawn(surface: Surface) -> None:
    lowest = torch.tensor(surface.lowest, dtype=torch.float64, requires_grad=True)
    height = surface.height(lowest)
    (slope,) = torch.autograd.grad(height, lowest)
    assert slope.abs().max() < 1e-12
    assert height.item() == pytest.approx(0, abs=1e-12)
    grid = torch.cartesian_prod(torch.linspace(*surface.across, 61), torch.linspace(*surface.up, 61)).double()
    assert surface.height(grid).min() >= -1e-12


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_start_and_lowest_point_are_drawn(surface: Surface) -> None:
    for point in (surface.start, surface.lowest):
        assert surface.across[0] < point[0] < surface.across[1]
        assert surface.up[0] < point[1] < surface.up[1]


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_a_ring_is_at_one_height_and_the_star_at_the_lowest_point(surface: Surface) -> None:
    figure = Figure()
    axes = figure.subplots()
    contours(axes, surface)
    (rings,) = axes.collections
    (star,) = axes.lines
    assert (star.get_xdata(), star.get_ydata()) == ([surface.lowest[0]], [surface.lowest[1]])
    assert axes.get_xlim() == surface.across and axes.get_ylim() == surface.up
    drawn = [path for path in rings.get_paths() if len(path.vertices)]
    heights = [surface.height(torch.from_numpy(path.vertices)) for path in drawn]
    assert len(drawn) >= 8
    # Between the points of the plane a ring is straight.
    assert all(height.std() < 0.01 * rings.levels[-1] for height in heights)


def test_a_path_of_plain_descent_turns_with_the_ravine() -> None:
    straight, turned_one = (BY_NAME[name] for name in ("ravine", "turned ravine"))
    for rule in (SGD, Momentum):
        one, other = (surface.height(descend(surface, rule, [0.03], 30)[0]) for surface in (straight, turned_one))
        assert torch.allclose(one, other, rtol=1e-9, atol=0)
    one, other = (surface.height(descend(surface, Adam, [0.3], 30)[0]) for surface in (straight, turned_one))
    assert not torch.allclose(one, other, rtol=0.1, atol=0)


def test_rates_are_about_half_decades() -> None:
    assert len(RATES) == 13
    assert all(2.99 < b / a < 3.34 for a, b in pairwise(RATES))


def test_descend_goes_the_way_the_rule_goes_one_rate_at_a_time() -> None:
    ravine = BY_NAME["ravine"]
    paths = descend(ravine, Momentum, [0.001, 0.01], 5)
    for path, rate in zip(paths, (0.001, 0.01), strict=True):
        point = torch.tensor(ravine.start, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([point], lr=rate, momentum=0.9)
        for step in range(6):
            assert torch.allclose(path[step], point.detach(), rtol=0, atol=1e-12)
            optimizer.zero_grad()
            ravine.height(point).backward()
            optimizer.step()


def test_descent_on_a_parabola_is_the_closed_form() -> None:
    (path,) = descend(BY_NAME["ravine"], SGD, [0.03], 20)
    powers = torch.arange(21, dtype=torch.float64)
    x = -9.0 * (1 - 0.03) ** powers
    y = 1.5 * (1 - 0.03 * 50) ** powers
    assert torch.allclose(path, torch.stack([x, y], dim=1), rtol=1e-12, atol=0)


def test_noise_is_the_same_for_every_rule_and_another_for_every_seed() -> None:
    noisy = BY_NAME["noisy bowl"]
    one, other = (descend(noisy, rule, [0.01], 1)[0, 1] for rule in (SGD, Momentum))
    assert torch.equal(one, other)  # the first step of both is the gradient
    assert not torch.equal(one, descend(noisy, SGD, [0.01], 1, seed=1)[0, 1])
    size = torch.stack([descend(noisy, SGD, [1.0], 1, seed=seed)[0, 1] for seed in range(400)]).std(dim=0)
    assert size.tolist() == pytest.approx([3.0, 3.0], rel=0.1)


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: surface.name)
def test_tuned_is_the_best_of_all_rates(surface: Surface) -> None:
    rate, path = tuned(surface, Adam, 40)
    assert path.shape == (41, 2)
    assert rate in RATES

    def reached(rate: float) -> float:
        seeds = (0, 1, 2) if surface.noise else (0,)
        height = torch.stack([surface.height(descend(surface, Adam, [rate], 40, seed)[0]) for seed in seeds])
        return height.mean().nan_to_num(nan=torch.inf).item()

    assert rate == min(RATES, key=reached)
    assert torch.equal(path, descend(surface, Adam, [rate], 40)[0])


def test_a_rate_at_which_a_path_leaves_all_numbers_is_not_the_best() -> None:
    steep = BY_NAME["Rosenbrock's valley"]
    assert not descend(steep, SGD, [100.0], 40)[0, -1].isfinite().all()
    rate, path = tuned(steep, SGD, 40)
    assert path.isfinite().all()
    assert rate < 0.1


def test_settings_come_by_a_partial() -> None:
    heavy = partial(Momentum, momentum=0.99)
    assert not torch.equal(
        descend(BY_NAME["ravine"], heavy, [0.01], 3), descend(BY_NAME["ravine"], Momentum, [0.01], 3)
    )


def test_bad_input_is_refused() -> None:
    ravine = BY_NAME["ravine"]
    with pytest.raises(ValueError, match="steps"):
        descend(ravine, SGD, [0.1], 0)
    with pytest.raises(ValueError, match="rates"):
        descend(ravine, SGD, [], 3)
    with pytest.raises(ValueError, match="rates"):
        descend(ravine, SGD, [-0.1], 3)
