"""Schedules equal PyTorch's; the range test leaves the network alone and finds where the loss falls."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler

from lessons_lib.learning_rates import (
    Constant,
    Cosine,
    OneCycle,
    RangeTest,
    Restarts,
    Schedule,
    Step,
    WarmUp,
    range_test,
)


def of_torch(make: Callable[[Any], Any], steps: int) -> list[float]:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own schedulers call one another in a way that it warns of
        schedule = make(optimizer)
        for step in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step < steps - 1:
                schedule.step()
    return rates


PAIRS: dict[str, tuple[Schedule, Callable[[Any, int], Any]]] = {
    "constant": (Constant(0.1), lambda o, n: lr_scheduler.ConstantLR(o, factor=1.0)),
    "step": (Step(0.1, 4, 0.3), lambda o, n: lr_scheduler.StepLR(o, n // 4, 0.3)),
    "cosine": (Cosine(0.1, 0.01), lambda o, n: lr_scheduler.CosineAnnealingLR(o, n, 0.01)),
    "one cycle": (OneCycle(0.4), lambda o, n: lr_scheduler.OneCycleLR(o, 0.4, n)),
    "one cycle, linear": (
        OneCycle(0.4, 0.25, 100, 100, "linear"),
        lambda o, n: lr_scheduler.OneCycleLR(
            o, 0.4, n, pct_start=0.25, div_factor=100, final_div_factor=100, anneal_strategy="linear"
        ),
    ),
    "restarts": (Restarts(0.1, 2, 3, 0.01), lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(o, n // 4, 3, 0.01)),
    "equal restarts": (Restarts(0.1, 4, 1), lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(o, n // 4)),
    "warm-up": (
        WarmUp(Cosine(0.1), 0.25, 0.05),
        lambda o, n: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.05, 1, n // 4), lr_scheduler.CosineAnnealingLR(o, n - n // 4)],
            [n // 4],
        ),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("steps", [8, 20, 400])
def test_a_schedule_equals_pytorchs(name: str, steps: int) -> None:
    ours, theirs = PAIRS[name]
    rates = [ours(step, steps) for step in range(steps)]
    assert rates == pytest.approx(of_torch(lambda o: theirs(o, steps), steps), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("schedule", [*(schedule for schedule, _ in PAIRS.values()), WarmUp(Cosine(0.1), 0.95)])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_rates_too(schedule: Schedule, steps: int) -> None:
    assert all(0 <= schedule(step, steps) <= 0.4 for step in range(steps))


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in PAIRS.values()])
@pytest.mark.parametrize("step", [-1, 10, 11])
def test_a_step_outside_the_run_is_refused(schedule: Schedule, step: int) -> None:
    with pytest.raises(ValueError, match=r"step must lie in \[0, 10\), the steps of the run"):
        schedule(step, 10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constant(-0.1), "rate must be 0 or more"),
        (lambda: Step(0.1, parts=0), "parts must be 1 or more"),
        (lambda: Step(0.1, gamma=-1), "gamma must be 0 or more"),
        (lambda: Cosine(0.1, lowest=float("nan")), "lowest must be 0 or more"),
        (lambda: OneCycle(0.1, peak_at=1), "peak_at must be a share of the steps, between 0 and 1, not 1"),
        (lambda: OneCycle(0.1, div_factor=0), "div_factor must be 1 or more, not 0"),
        (lambda: OneCycle(0.1, shape="cos"), "shape must be 'cosine' or 'linear', not 'cos'"),
        (lambda: WarmUp(Constant(0.1), share=0), "share must lie between 0 and 1, not 0"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


# --- the range test -------------------------------------------------------------------------------------------------


@pytest.fixture
def problem() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, 4, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.0), nn.Linear(8, 3))
    return network.eval(), [(images, images[:, :3].argmax(dim=1))] * 60


def test_rates_rise_by_equal_factors_from_the_lowest_to_the_highest(problem: Any) -> None:
    found = range_test(*problem, lowest=1e-3, highest=1.0, steps=31)
    assert len(found.rates) == len(found.losses) == len(found.smoothed) == 31
    assert (found.rates[0], found.rates[-1]) == pytest.approx((1e-3, 1.0))
    factors = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert factors == pytest.approx([factors[0]] * 30)


def test_the_network_is_as_it_was(problem: Any) -> None:
    network, batches = problem
    before = {name: value.clone() for name, value in network.state_dict().items()}
    range_test(network, batches, steps=10)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_smoothed_loss_has_no_debt_to_where_the_average_began() -> None:
    """Of equal losses it is that loss from the first step on; without the correction it would begin at a tenth."""
    network = nn.Linear(2, 2)
    nothing = [(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))] * 5
    with torch.no_grad():
        network.bias.zero_()
    found = range_test(network, nothing, lowest=1e-12, highest=1e-11, steps=5)
    assert found.smoothed == pytest.approx([0.6931472] * 5)


def test_the_test_stops_where_the_loss_explodes_or_is_no_number(problem: Any) -> None:
    found = range_test(*problem, lowest=1e-2, highest=1e6, steps=60)
    assert len(found.rates) < 60
    assert found.smoothed[-1] > 4 * min(found.smoothed) or found.rates[-1] < 1e6
    assert all(loss == loss and loss < float("inf") for loss in found.losses)


def test_the_suggested_rate_is_where_the_loss_falls_fastest() -> None:
    losses = (1.0, 1.0, 0.95, 0.7, 0.45, 0.4, 0.42, 2.0)
    rates = tuple(10.0 ** (k - 6) for k in range(8))
    found = RangeTest(rates, losses, losses)
    assert found.steepest == rates[3]
    assert found.lowest == rates[5]


def test_where_the_loss_only_rises_the_suggestion_is_the_first_rate() -> None:
    assert RangeTest((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), (1.0, 2.0, 3.0)).steepest == 0.1


def test_a_good_rate_is_found_on_a_quadratic() -> None:
    """Descent on a bowl of curvature 1 overshoots from 2 on: what is suggested lies below that, and not far."""

    class Bowl(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([5.0]))

        def forward(self, images: Tensor) -> Tensor:
            # Two logits whose cross-entropy grows with the weight: softplus, which is flat at 0.
            return torch.stack([-self.weight.square() / 2, self.weight * 0], dim=1)

    batches = [(torch.zeros(1), torch.zeros(1, dtype=torch.long))] * 60
    found = range_test(Bowl(), batches, lowest=1e-3, highest=100, steps=60, smoothing=0.5)
    assert 0.02 < found.steepest < 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lowest": 1.0, "highest": 0.1}, "lowest must be above 0 and below highest, not 1.0 and 0.1"),
        ({"lowest": 0.0}, "lowest must be above 0"),
        ({"steps": 1}, "steps must be 2 or more"),
        ({"smoothing": 1.0}, "smoothing must be below 1"),
    ],
)
def test_a_range_test_that_cannot_be_is_refused(problem: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        range_test(*problem, **arguments)


def test_without_a_batch_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(ValueError, match="nothing to choose a rate by"):
        range_test(nn.Linear(2, 2), [])
