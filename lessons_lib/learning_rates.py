"""How large a step of training is: schedules over a run, and a test that finds the right size.

A schedule is a piece of data that is also a function, `schedule(step, steps)`: the learning rate of step 0, 1, ... of
so many. Each equals PyTorch's scheduler of the same name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import check_not_negative, check_whole_number


@dataclass(frozen=True)
class Constant:
    """The same rate from first to last."""

    rate: float

    def __post_init__(self) -> None:
        check_not_negative("rate", self.rate)

    def __call__(self, step: int, steps: int) -> float:
        _check_step(step, steps)
        return self.rate


@dataclass(frozen=True)
class Step:
    """The run in equal `parts`; each has `gamma` times the rate of the one before."""

    rate: float
    parts: int = 2
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_not_negative("rate", self.rate)
        check_not_negative("gamma", self.gamma)
        check_whole_number("parts", self.parts, 1)

    def __call__(self, step: int, steps: int) -> float:
        _check_step(step, steps)
        return self.rate * self.gamma ** (step * self.parts // steps)


@dataclass(frozen=True)
class Cosine:
    """From `rate` down to `lowest` along half a wave (Loshchilov & Hutter, 2017)."""

    rate: float
    lowest: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative("rate", self.rate)
        check_not_negative("lowest", self.lowest)

    def __call__(self, step: int, steps: int) -> float:
        _check_step(step, steps)
        return _between(self.rate, self.lowest, step / steps, "cosine")


@dataclass(frozen=True)
class Restarts:
    """Half a wave again and again, each time from `rate` and `growth` times as long (Loshchilov & Hutter, 2017)."""

    rate: float
    cycles: int = 3
    growth: int = 2
    lowest: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative("rate", self.rate)
        check_not_negative("lowest", self.lowest)
        check_whole_number("cycles", self.cycles, 1)
        check_whole_number("growth", self.growth, 1)

    def __call__(self, step: int, steps: int) -> float:
        _check_step(step, steps)
        lengths = [self.growth**cycle for cycle in range(self.cycles)]
        ends = [steps * sum(lengths[: cycle + 1]) // sum(lengths) for cycle in range(self.cycles)]
        cycle = next(cycle for cycle, end in enumerate(ends) if step < end)
        start = ends[cycle - 1] if cycle else 0
        return _between(self.rate, self.lowest, (step - start) / (ends[cycle] - start), "cosine")


@dataclass(frozen=True)
class OneCycle:
    """Up from `peak / div_factor` to `peak`, reached after the share `peak_at` of the steps, and down to
    `final_div_factor` times less than it began with (Smith, 2018)."""

    peak: float
    peak_at: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    shape: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        check_not_negative("peak", self.peak)
        if not 0 < self.peak_at < 1:
            raise ValueError(f"peak_at must be a share of the steps, between 0 and 1, not {self.peak_at}")
        for name in ("div_factor", "final_div_factor"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.shape not in ("cosine", "linear"):
            raise ValueError(f"shape must be 'cosine' or 'linear', not {self.shape!r}")

    def __call__(self, step: int, steps: int) -> float:
        _check_step(step, steps)
        first = self.peak / self.div_factor
        top, last = self.peak_at * steps - 1, steps - 1
        if step <= top:
            return _between(first, self.peak, step / top if top > 0 else 1.0, self.shape)
        return _between(self.peak, first / self.final_div_factor, (step - top) / (last - top), self.shape)


@dataclass(frozen=True)
class WarmUp:
    """Evenly up from `start` times the rate with which `then` begins, for the share `share` of the steps; then that."""

    then: Constant | Step | Cosine | Restarts
    share: float = 0.05
    start: float = 0.01

    def __post_init__(self) -> None:
        for name in ("share", "start"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")

    def __call__(self, step: int, steps: int) -> float:
        _check_step(step, steps)
        climb = min(round(self.share * steps), steps - 1)  # at least one step is left
        if step >= climb:
            return self.then(step - climb, steps - climb)
        return self.then(0, steps - climb) * (self.start + (1 - self.start) * step / climb)


Schedule = Constant | Step | Cosine | Restarts | OneCycle | WarmUp


def _between(start: float, end: float, share: float, shape: str) -> float:
    if shape == "cosine":
        share = (1 - math.cos(math.pi * share)) / 2
    return start + (end - start) * share


def _check_step(step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise ValueError(f"step must lie in [0, {steps}), the steps of the run, not {step}")


# --- the range test -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RangeTest:
    """The loss at each learning rate, as it was and smoothed; the last is the one at which the test stopped."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The rate with the lowest smoothed loss: already too large, since the loss has stopped falling."""
        return self.rates[self.smoothed.index(min(self.smoothed))]

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest (per factor), before its lowest point."""
        end = self.smoothed.index(min(self.smoothed))
        if end == 0:
            return self.rates[0]
        # Rates grow by equal factors, so that equal steps of the index are equal steps of the logarithm.
        falls = [self.smoothed[i - 1] - self.smoothed[i + 1] for i in range(1, end)]
        return self.rates[1 + falls.index(max(falls))] if falls else self.rates[end]


def range_test(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    lowest: float = 1e-4,
    highest: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    stop_at: float = 4.0,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
) -> RangeTest:
    """Train a copy of `network`, each step with a larger rate, from `lowest` to `highest` (Smith, 2017).

    Stops where the smoothed loss is `stop_at` times its lowest, or no number, or the batches end. `optimizer` is called
    with the parameters and `lr`. Raises TypeError or ValueError for rates that do not rise, or less than two steps.
    """
    check_whole_number("steps", steps, 2)
    for name, value in (("lowest", lowest), ("highest", highest), ("smoothing", smoothing), ("stop_at", stop_at)):
        check_not_negative(name, value)
    if not 0 < lowest < highest:
        raise ValueError(f"lowest must be above 0 and below highest, not {lowest} and {highest}")
    if not smoothing < 1:
        raise ValueError(f"smoothing must be below 1, not {smoothing}")
    tried = copy.deepcopy(network).train()
    descent = optimizer(tried.parameters(), lr=lowest)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for step, (images, labels) in enumerate(islice(batches, steps)):
        rate = lowest * (highest / lowest) ** (step / (steps - 1))
        for group in descent.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(tried(images), labels)
        descent.zero_grad()
        loss.backward()
        descent.step()
        if not loss.isfinite():
            break
        rates.append(rate)
        losses.append(loss.item())
        # The average starts at 0 and would be too small at first: what it has of the losses so far is 1 - beta^n.
        average = smoothing * average + (1 - smoothing) * losses[-1]
        smoothed.append(average / (1 - smoothing ** len(losses)))
        if smoothed[-1] > stop_at * min(smoothed):
            break
    if not rates:
        raise ValueError("batches gave no finite loss: there is nothing to choose a rate by")
    return RangeTest(tuple(rates), tuple(losses), tuple(smoothed))
