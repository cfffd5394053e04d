"""Hills and valleys over a plane: small enough to be seen whole, and each hard in one of the ways losses are hard.

`descend` runs a rule on a surface at many learning rates at once, `tuned` keeps the path that got lowest. So every rule
has the same number of tries, and a race is fair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from torch import Tensor
from torch.optim import Optimizer

from ._checks import check_not_negative, check_whole_number

Rule = Callable[[list[dict[str, object]]], Optimizer]
"""Makes an optimizer from parameter groups, which bring rates of their own: a class of `optimizers`, or a partial."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Thirteen, about half a decade apart."""


@dataclass(frozen=True)
class Surface:
    """`height` of points (..., 2), where a path starts, the lowest point, and what part is drawn.

    `noise` is the standard deviation of what is added to each number of a gradient, as batches would.
    """

    name: str
    height: Callable[[Tensor], Tensor]
    start: tuple[float, float]
    lowest: tuple[float, float]
    across: tuple[float, float]
    up: tuple[float, float]
    noise: float = 0.0


def ravine(points: Tensor) -> Tensor:
    """Steep across, nearly level along: a parabola that is fifty times as curved in one direction as in the other."""
    x, y = points.unbind(-1)
    return (x.square() + 50 * y.square()) / 2


_COSINE, _SINE = math.cos(math.pi / 6), math.sin(math.pi / 6)


def turned_ravine(points: Tensor) -> Tensor:
    """The same ravine, turned by 30 degrees: it lies across the axes."""
    x, y = points.unbind(-1)
    return ravine(torch.stack([_COSINE * x + _SINE * y, _COSINE * y - _SINE * x], dim=-1))


def _turned(x: float, y: float) -> tuple[float, float]:
    return _COSINE * x - _SINE * y, _SINE * x + _COSINE * y


def rosenbrock(points: Tensor) -> Tensor:
    """A valley that bends, with hardly any slope along its floor (Rosenbrock, 1960)."""
    x, y = points.unbind(-1)
    return (1 - x).square() + 100 * (y - x.square()).square()


def saddle(points: Tensor) -> Tensor:
    """Level where it goes up one way and down the other; a minimum lies on either side, at (0, 1) and (0, -1)."""
    x, y = points.unbind(-1)
    return x.square() / 2 - y.square() / 2 + y.square().square() / 4 + 0.25


def plateau(points: Tensor) -> Tensor:
    """A hole in a plain: far from it there is next to no slope."""
    return 1 - torch.exp(-points.square().sum(-1) / 2)


def bowl(points: Tensor) -> Tensor:
    """A parabola, ten times as curved in one direction as in the other."""
    x, y = points.unbind(-1)
    return (x.square() + 10 * y.square()) / 2


SURFACES = (
    Surface("ravine", ravine, (-9.0, 1.5), (0.0, 0.0), (-10.5, 3.5), (-3.5, 3.5)),
    Surface("turned ravine", turned_ravine, _turned(-9.0, 1.5), (0.0, 0.0), (-11.0, 5.0), (-5.5, 2.5)),
    Surface("Rosenbrock's valley", rosenbrock, (-1.3, 1.2), (1.0, 1.0), (-2.0, 2.0), (-0.3, 1.7)),
    Surface("saddle", saddle, (-1.5, 0.001), (0.0, 1.0), (-2.2, 2.2), (-0.6, 1.6)),
    Surface("plateau", plateau, (-3.2, 1.8), (0.0, 0.0), (-4.2, 2.2), (-1.0, 2.2)),
    Surface("noisy bowl", bowl, (-4.0, 1.5), (0.0, 0.0), (-5.5, 2.5), (-2.0, 2.0), noise=3.0),
)
"""All are drawn twice as wide as high, at one scale in both directions."""


def contours(axes: Axes, surface: Surface) -> None:
    """Rings of equal height, and a star at the lowest point, over the part that is drawn."""
    x, y = torch.linspace(*surface.across, 120), torch.linspace(*surface.up, 60)
    height = surface.height(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1))
    # Rings are closer where it is low: there most of the walking is done.
    rings = torch.linspace(0.03, 1, 10) ** 2 * height.max()
    axes.contour(x, y, height, rings.tolist(), colors="#c4c4c4", linewidths=1)
    axes.plot(*surface.lowest, "k*", markersize=13, zorder=1.5)  # over the rings, under the paths
    axes.set(xlim=surface.across, ylim=surface.up, xticks=[], yticks=[])
    axes.set_aspect("equal")


def descend(surface: Surface, rule: Rule, rates: Sequence[float], steps: int, seed: int = 0) -> Tensor:
    """The paths from the start, one for each rate: (K, steps + 1, 2). All meet the same noise.

    Raises TypeError or ValueError where a rate or the number of steps is none.
    """
    check_whole_number("steps", steps, 1)
    for rate in rates:
        check_not_negative("rates", rate)
    if len(rates) == 0:
        raise ValueError("rates must hold at least one")
    points = [torch.tensor(surface.start, dtype=torch.float64, requires_grad=True) for _ in rates]
    optimizer = rule([{"params": [point], "lr": rate} for point, rate in zip(points, rates, strict=True)])
    random = torch.Generator().manual_seed(seed)
    path = torch.empty(steps + 1, len(points), 2, dtype=torch.float64)
    for step in range(steps + 1):
        stacked = torch.stack(points)
        path[step] = stacked.detach()
        if step == steps:
            break
        gradients = torch.autograd.grad(surface.height(stacked).sum(), points)
        noise = surface.noise * torch.randn(2, generator=random, dtype=torch.float64)
        for point, gradient in zip(points, gradients, strict=True):
            point.grad = gradient + noise
        optimizer.step()
    return path.transpose(0, 1)


def tuned(
    surface: Surface, rule: Rule, steps: int, *, rates: Sequence[float] = RATES, seeds: Sequence[int] = (0, 1, 2)
) -> tuple[float, Tensor]:
    """The rate with the lowest mean height over all steps, and its path with the first of `seeds`, (steps + 1, 2).

    A mean, since it is low for a path that gets down soon, without detours. Where there is noise, it is one over all
    `seeds`. Raises what `descend` raises.
    """
    runs = torch.stack([descend(surface, rule, rates, steps, seed) for seed in (seeds if surface.noise else seeds[:1])])
    heights = surface.height(runs).mean(dim=(0, 2))
    best = int(heights.nan_to_num(nan=torch.inf).argmin())
    return rates[best], runs[0, best]
