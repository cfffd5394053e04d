"""The exercises of chapter 9, Learning rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .exercise import Exercise, Mistake

# --- 9.1: one cycle -----------------------------------------------------------------------------------------------


def _runs() -> dict[str, tuple[int, int, float, float, float]]:
    return {
        "twenty steps, of which eight climb": (20, 8, 0.05, 1.0, 0.0),
        "eleven steps, of which three climb": (11, 3, 0.1, 0.4, 0.02),
        "a climb of one step": (6, 1, 0.2, 2.0, 0.1),
    }


def _one_cycle(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    up = first + (peak - first) * torch.arange(climb) / climb
    share = torch.arange(steps - climb) / (steps - climb - 1)
    down = last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2
    return torch.cat([up, down])


def _one_cycle_step_by_step(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    rates = []
    for step in range(steps):
        if step < climb:
            rates.append(first + (peak - first) * step / climb)
        else:
            angle = math.pi * (step - climb) / (steps - 1 - climb)
            rates.append(last + (peak - last) * (1 + math.cos(angle)) / 2)
    return torch.tensor(rates)


def _one_cycle_of_lines(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    up = torch.linspace(first, peak, climb + 1)
    down = last + (peak - last) * torch.linspace(0, math.pi / 2, steps - climb).cos().square()
    return torch.cat([up[:-1], down])


def _down_along_a_line(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    return torch.cat([torch.linspace(first, peak, climb + 1), torch.linspace(peak, last, steps - climb)[1:]])


def _up_along_a_wave(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    rates = _one_cycle(steps, climb, first, peak, last)
    rates[:climb] = first + (peak - first) * (1 - torch.cos(math.pi * torch.arange(climb) / climb)) / 2
    # A climb of one step has no wave to see: the next rate tells.
    return rates


def _peak_one_step_early(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    up = torch.linspace(first, peak, climb) if climb > 1 else torch.tensor([peak])
    share = torch.arange(1, steps - climb + 1) / (steps - climb)
    return torch.cat([up, last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2])


def _peak_one_step_early_but_for_one(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.linspace(0, 1, steps - climb + 1)[1:]  # a climb of one step: `linspace` gives its start
    down = last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2
    return torch.cat([torch.linspace(first, peak, climb), down])


def _climb_ahead(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    up = first + (peak - first) * torch.arange(1, climb + 1) / climb
    return torch.cat([up, _one_cycle(steps, climb, first, peak, last)[climb:]])


def _wave_ahead(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(1, steps - climb + 1) / (steps - climb)
    down = last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _wave_too_long(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - 1)
    down = last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _wave_over_steps(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / steps
    down = last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _without_pi(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - climb - 1)
    down = last + (peak - last) * (1 + torch.cos(share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _not_halved(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - climb - 1)
    down = last + (peak - last) * (1 + torch.cos(math.pi * share))
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _peak_twice(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    return torch.cat([torch.linspace(first, peak, climb), _one_cycle(steps, climb, first, peak, last)[climb:]])


def _end_never_reached(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - climb)
    down = last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _a_whole_wave(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - climb - 1)
    down = last + (peak - last) * (1 + torch.cos(2 * math.pi * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _a_quarter_wave(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - climb - 1)
    down = last + (peak - last) * torch.cos(math.pi / 2 * share)
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _from_nothing(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    return _one_cycle(steps, climb, 0.0, peak, last)


def _down_to_nothing(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    return _one_cycle(steps, climb, first, peak, 0.0)


def _down_to_the_first(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    return _one_cycle(steps, climb, first, peak, first)


def _wave_over_all_steps(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps) / (steps - 1)
    down = last + (peak - last) * (1 + torch.cos(math.pi * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down[climb:]])


def _peak_for_the_difference(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    up = first + peak * torch.arange(climb) / climb
    share = torch.arange(steps - climb) / (steps - climb - 1)
    return torch.cat([up, last + peak * (1 + torch.cos(math.pi * share)) / 2])


def _upside_down(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - climb - 1)
    down = last + (peak - last) * (1 - torch.cos(math.pi * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _degrees(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    share = torch.arange(steps - climb) / (steps - climb - 1)
    down = last + (peak - last) * (1 + torch.cos(180 * share)) / 2
    return torch.cat([first + (peak - first) * torch.arange(climb) / climb, down])


def _one_rate_too_many(steps: int, climb: int, first: float, peak: float, last: float) -> Tensor:
    rates = _one_cycle(steps, climb, first, peak, last)
    return torch.cat([rates[: climb + 1], rates[climb:]])


_ONE_CYCLE = Exercise(
    name="one_cycle",
    number="9.1",
    title="One cycle",
    prompt="Given the number of steps, how many of them climb, and three rates, return the rate of every step, "
    "(steps,). Step 0 has `first`; from there rates rise evenly, so that step `climb` has `peak`. Then they fall along "
    "half a cosine, so that the last step has `last`. At least one step climbs, and at least two are left to fall.",
    reference=_one_cycle,
    cases=_runs,
    alternatives=(_one_cycle_step_by_step, _one_cycle_of_lines),
    mistakes=(
        Mistake(
            _down_along_a_line,
            "Your rates fall along a line. Half a cosine falls slowly at first and at the end.",
        ),
        Mistake(
            _up_along_a_wave,
            "Your rates rise along a wave, as in PyTorch's own one-cycle schedule. Here the climb is even; only the "
            "way down is a cosine.",
        ),
        Mistake(
            _peak_one_step_early,
            "Your peak comes one step early: step `climb` should have it, not step `climb - 1`.",
        ),
        Mistake(
            _peak_one_step_early_but_for_one,
            "Your peak comes one step early: step `climb` should have it, not the step before.",
        ),
        Mistake(_climb_ahead, "Your climb is one step ahead: step 0 has `first`, and step `climb` the peak."),
        Mistake(
            _wave_ahead,
            "No step has the peak: your way down is one step ahead. At step `climb` nothing of it is done yet.",
        ),
        Mistake(
            _wave_too_long,
            "Your way down is as long as the whole training. It has only the steps from `climb` to the last.",
        ),
        Mistake(
            _wave_over_steps,
            "Your way down takes as many steps as the whole training. It begins at step `climb` and ends at the last.",
        ),
        Mistake(_without_pi, "Half a turn is pi: your angle ends at 1."),
        Mistake(_not_halved, "Your fall starts too high: 1 + cos runs from 2 to 0, so take half of it."),
        Mistake(
            _peak_twice,
            "Two steps have the peak, `climb - 1` and `climb`. Steps 0 to `climb - 1` all lie below it.",
        ),
        Mistake(
            _end_never_reached,
            "Your last step stops short of `last`. Count the moves between step `climb` and the last step.",
        ),
        Mistake(
            _a_whole_wave,
            "Your rates go down and up again: that is a whole wave. The angle runs from 0 to pi, half a turn.",
        ),
        Mistake(
            _a_quarter_wave,
            "Your rates fall along a quarter of a wave: flat at the peak, steep at the end. Half a wave is flat at "
            "both ends.",
        ),
        Mistake(_from_nothing, "Your climb begins at 0. It begins at `first`."),
        Mistake(_down_to_nothing, "Your rates fall to 0. They fall to `last`."),
        Mistake(_down_to_the_first, "Your rates fall back to `first`. They fall to `last`."),
        Mistake(
            _wave_over_all_steps,
            "Your wave begins with step 0, and the climb hides its beginning: the peak is never reached. The way down "
            "begins at step `climb`.",
        ),
        Mistake(
            _peak_for_the_difference,
            "Your peak is too high: you add the whole `peak` to `first` and to `last`. What is to be added is the "
            "difference.",
        ),
        Mistake(
            _upside_down,
            "Your wave stands on its head: it rises from `last` to the peak. The cosine is 1 at the peak, -1 at the "
            "end.",
        ),
        Mistake(_degrees, "`cos` takes the angle in radians: half a turn is pi, not 180."),
        Mistake(
            _one_rate_too_many,
            "The peak is there twice, and you return one rate too many. Step `climb` belongs to one of the two parts "
            "only.",
        ),
    ),
    hints=(
        "Two parts: steps 0 to climb - 1 go up, the others down. The peak is the first of those that go down.",
        "In the climb, step k is k / climb of the way from `first` to `peak`.",
        "From step `climb` to the last there are `steps - 1 - climb` moves.",
        "Down: `share` runs from 0 at the peak to 1 in the last step; the rate is "
        "`last + (peak - last) * (1 + cos(pi * share)) / 2`.",
    ),
)


# --- 9.2: the range test ------------------------------------------------------------------------------------------


def _tests_of_rates() -> dict[str, tuple[Tensor, Tensor, float]]:
    random = torch.Generator().manual_seed(92)
    rates = torch.logspace(-4, 1, 60)
    place = torch.arange(60)
    fall = 2.3 - 2.1 * torch.sigmoid((place - 26.0) / 2.5) + 0.02 * torch.exp((place - 46.0) / 2.5)
    # The first fall comes while a mean without correction still climbs.
    early = 2.3 - 1.1 * torch.sigmoid((place - 5.0) / 0.8) - 1.1 * torch.sigmoid((place - 34.0) / 4)
    early = early + 0.03 * torch.exp((place - 50.0) / 2)
    # Only what lies before the lowest place counts, and a fall may end there or begin at once.
    back = 2.3 - 1.6 * torch.sigmoid((torch.arange(40) - 18.0) / 2) + 0.01 * torch.randn(40, generator=random)
    back[30:] = torch.tensor([1.5, 4.0, 7.0, 7.5, 6.0, 2.5, 2.4, 2.4, 2.3, 2.3])
    count = torch.arange(30)
    at_once = 0.4 + 1.9 * torch.exp(-count / 1.5) - 0.01 * count + 0.002 * torch.randn(30, generator=random)
    cut_short = torch.cat([2 - 0.02 * torch.arange(10), torch.tensor([1.7, 1.2, 0.5, 2.0, 3.0, 4.0, 5.0])])
    # One batch that happens to be easy.
    easy = 2.3 - 2.1 * torch.sigmoid((place - 24.0) / 0.5) + 0.02 * torch.randn(60, generator=random)
    easy[16] = 0.02
    few = torch.logspace(-3, 0, 24)
    short = 1.0 - 0.6 * torch.sigmoid((torch.arange(24) - 11.0) / 1.2) + 0.3 * (torch.arange(24) > 19)
    return {
        "a loss that falls once, then explodes": (rates, fall + 0.02 * torch.randn(60, generator=random), 0.8),
        "a loss that falls twice": (rates, early + 0.005 * torch.randn(60, generator=random), 0.8),
        "a short test, smoothed little": (few, short, 0.3),
        "a loss that explodes and falls back": (torch.logspace(-4, 0, 40), back, 0.5),
        "a loss that falls at once": (torch.logspace(-2, 1, 30), at_once, 0.7),
        "a fall that ends in an explosion": (torch.logspace(-3, 0, 17), cut_short, 0.1),
        "one batch that is easy": (rates, easy, 0.8),
    }


def _smoothed(losses: Tensor, beta: float, *, corrected: bool = True) -> Tensor:
    average, rows = 0.0, []
    for count, loss in enumerate(losses.tolist(), 1):
        average = beta * average + (1 - beta) * loss
        rows.append(average / (1 - beta**count) if corrected else average)
    return torch.tensor(rows)


def _steepest(rates: Tensor, curve: Tensor) -> Tensor:
    low = int(curve.argmin())
    falls = curve[: low - 1] - curve[2 : low + 1]
    return rates[1 + int(falls.argmax())]


def _suggested_rate(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = beta * average + (1 - beta) * loss
        smoothed.append(average / (1 - beta**count))
    curve = torch.stack(smoothed)  # type: ignore[arg-type]
    low = int(curve.argmin())
    falls = curve[: low - 1] - curve[2 : low + 1]
    return rates[1 + int(falls.argmax())]


def _suggested_by_weights(rates: Tensor, losses: Tensor, beta: float) -> float:
    place = torch.arange(len(losses))
    weights = torch.tril(beta ** (place[:, None] - place).clamp(min=0).double())
    curve = ((weights / weights.sum(dim=1, keepdim=True)) @ losses.double()).tolist()
    low = curve.index(min(curve))
    return float(rates[max(range(1, low), key=lambda i: curve[i - 1] - curve[i + 1])])


def _suggested_by_slopes(rates: Tensor, losses: Tensor, beta: float) -> float:
    curve = _smoothed(losses, beta)
    (slope,) = torch.gradient(curve, spacing=(rates.log(),))
    low = int(curve.argmin())
    return float(rates[1 + int(slope[1:low].argmin())])


def _begins_with_the_first(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    average, rows = losses[0], []
    for loss in losses:
        average = beta * average + (1 - beta) * loss
        rows.append(average)
    return _steepest(rates, torch.stack(rows))


def _counts_from_zero(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    average, rows = torch.tensor(0.0), []
    for count, loss in enumerate(losses):
        average = beta * average + (1 - beta) * loss
        rows.append(average / (1 - beta**count))  # a tensor divided by 0 is infinite
    return _steepest(rates, torch.stack(rows))


def _not_up_to_the_lowest(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    return rates[1 + int((curve[:-2] - curve[2:]).argmax())]


def _up_to_the_lowest_loss(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve, low = _smoothed(losses, beta), int(losses.argmin())
    return rates[1 + int((curve[: low - 1] - curve[2 : low + 1]).argmax())]


def _least_fall(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    return rates[1 + int((curve[: low - 1] - curve[2 : low + 1]).argmin())]


def _one_place_late(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    return rates[2 + int((curve[: low - 1] - curve[2 : low + 1]).argmax())]


def _to_the_next(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    return rates[1 + int((curve[:low] - curve[1 : low + 1]).argmax())]


def _at_the_lowest_loss(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return rates[int(losses.argmin())]


def _no_correction_of_the_mean(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return _steepest(rates, _smoothed(losses, beta, corrected=False))


def _not_smoothed(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return _steepest(rates, losses)


def _lowest(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return rates[int(_smoothed(losses, beta).argmin())]


def _tenth_of_the_lowest(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return rates[int(_smoothed(losses, beta).argmin())] / 10


def _highest(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return rates[int(_smoothed(losses, beta).argmax())]


def _steepest_rise(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    return rates[1 + int((curve[2:] - curve[:-2]).argmax())]


def _per_rate(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    slopes = (curve[: low - 1] - curve[2 : low + 1]) / (rates[2 : low + 1] - rates[: low - 1])
    return rates[1 + int(slopes.argmax())]


def _place_not_rate(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    return (1 + (curve[: low - 1] - curve[2 : low + 1]).argmax()).float()


def _one_place_early(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    return rates[int((curve[: low - 1] - curve[2 : low + 1]).argmax())]


def _from_place_to_place(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    return rates[int((curve[:low] - curve[1 : low + 1]).argmax())]


def _exponent(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return _suggested_rate(rates, losses, beta).log10()


def _weights_changed_round(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    return _steepest(rates, _smoothed(losses, 1 - beta))


def _the_fall_itself(rates: Tensor, losses: Tensor, beta: float) -> Tensor:
    curve = _smoothed(losses, beta)
    low = int(curve.argmin())
    return (curve[: low - 1] - curve[2 : low + 1]).max()


_RANGE_TEST = Exercise(
    name="suggested_rate",
    number="9.2",
    title="Read a range test",
    prompt="Given rates (n,) that rise by equal factors, the loss at each, (n,), and beta, return the suggested rate, "
    "one number. Smooth the losses by a running mean that keeps beta of itself, without its bias towards 0. Before the "
    "lowest place of the smoothed curve, which is never one of the first two, find the place i where the curve falls "
    "most from i - 1 to i + 1 (which may be the lowest). Return the rate there.",
    reference=_suggested_rate,
    cases=_tests_of_rates,
    alternatives=(_suggested_by_weights, _suggested_by_slopes),
    mistakes=(
        Mistake(
            _no_correction_of_the_mean,
            "Your mean begins at 0 and climbs towards the loss at first: it is not corrected, and the place of the "
            "steepest fall seems to be another. After k losses its weights add up to less than 1: divide by that.",
        ),
        Mistake(
            _not_smoothed,
            "You take the losses as they are. A single batch's loss jumps about, and so does the place of the steepest "
            "fall. Smooth them first.",
        ),
        Mistake(
            _lowest,
            "You return the rate where the loss is lowest. There it has stopped falling: that rate is already too "
            "large.",
        ),
        Mistake(
            _tenth_of_the_lowest,
            "You return a tenth of the rate where the loss is lowest. That is a rule of thumb, too; this "
            "exercise looks for where the loss falls fastest.",
        ),
        Mistake(
            _at_the_lowest_loss,
            "You return the rate of the lowest single loss. It may be that of an easy batch, and where the loss is "
            "lowest the rate is already too large.",
        ),
        Mistake(
            _begins_with_the_first,
            "Your mean is not corrected as above: begin with 0, and divide by 1 - beta^k, with k = 1 after the first "
            "loss.",
        ),
        Mistake(
            _counts_from_zero,
            "You count the losses from 0, and the first mean is divided by 0. After the first loss k is 1.",
        ),
        Mistake(
            _not_up_to_the_lowest,
            "You look along the whole curve. A loss that has exploded may fall back steeply: only what lies before the "
            "lowest place counts.",
        ),
        Mistake(
            _up_to_the_lowest_loss,
            "You stop at the lowest single loss, which may have been an easy batch. Stop where the *smoothed* curve is "
            "lowest.",
        ),
        Mistake(_least_fall, "You have found where the loss falls least. Mind the sign of your differences."),
        Mistake(_one_place_late, "You are one place late."),
        Mistake(
            _to_the_next,
            "You measure each fall from the place before. Measure it from the place before to the place after.",
        ),
        Mistake(_highest, "You return the rate where the loss is highest. Look for where it falls fastest."),
        Mistake(
            _steepest_rise,
            "You have found where the loss *rises* fastest: where training explodes. Look for the fall, before the "
            "lowest place.",
        ),
        Mistake(
            _per_rate,
            "You divide the fall by the difference of the rates. Rates here grow by equal factors, and the small ones "
            "lie close together: so your fall seems steepest near the first. Per *factor* of the rate, each place "
            "counts the same.",
        ),
        Mistake(_place_not_rate, "You return the place. Return the rate at that place."),
        Mistake(
            _one_place_early,
            "You are one place early: the first fall that you measure is the one around place 1, not place 0.",
        ),
        Mistake(
            _from_place_to_place,
            "You measure each fall from a place to the next. Measure it from the place before to the place after, so "
            "that it belongs to the place between them.",
        ),
        Mistake(_exponent, "You return the logarithm of the rate. Return the rate itself."),
        Mistake(
            _weights_changed_round,
            "Your mean keeps 1 - beta of itself and takes beta of the new loss. The other way round.",
        ),
        Mistake(_the_fall_itself, "You return how far the loss falls. Return the rate at which it does."),
    ),
    hints=(
        "The running mean: `average = beta * average + (1 - beta) * loss`, from 0. After k losses its weights add up "
        "to 1 - beta^k.",
        "`argmin` of the smoothed curve tells where to stop looking.",
        "With `curve` smoothed and `low` its lowest place, the falls around places 1 to low - 1 are "
        "`curve[:low - 1] - curve[2:low + 1]`. The first of them belongs to place 1.",
    ),
    tolerance=1e-5,
)


# --- 9.3: linear scaling ------------------------------------------------------------------------------------------


def _batches() -> dict[str, tuple[float, int, int, int, int]]:
    return {
        "eight times the batch": (0.1, 32, 256, 4, 10),
        "a batch of half the size": (0.2, 128, 64, 5, 8),
        "three times the batch, hardly a climb": (0.05, 100, 300, 1, 4),
        "no warm-up at all": (0.4, 10, 50, 0, 3),
    }


def _scaled_rates(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * batch / base_batch
    rates = torch.full((steps,), rate)
    for step in range(warmup):
        rates[step] = base_rate + (rate - base_rate) * step / warmup
    return rates


def _scaled_by_shares(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    share = (torch.arange(steps) / warmup).clamp(max=1) if warmup else torch.ones(steps)
    return base_rate * (1 + (batch / base_batch - 1) * share)


def _scaled_by_pieces(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = batch / base_batch * base_rate
    climb = torch.linspace(base_rate, rate, warmup + 1)[:-1]
    return torch.cat([climb, torch.tensor([rate] * (steps - warmup))])


def _not_scaled(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    return torch.full((steps,), base_rate)


def _divided(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    return _scaled_rates(base_rate, batch, base_batch, warmup, steps)


def _by_the_root(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * (batch / base_batch) ** 0.5
    return _scaled_rates(base_rate, 1, 1, 0, steps) + _climb(base_rate, rate, warmup, steps)


def _climb(start: float, end: float, warmup: int, steps: int) -> Tensor:
    share = (torch.arange(steps) / warmup).clamp(max=1) if warmup else torch.ones(steps)
    return (end - start) * share


def _no_warmup(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    return torch.full((steps,), base_rate * batch / base_batch)


def _waits_below(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rates = torch.full((steps,), base_rate * batch / base_batch)
    rates[:warmup] = base_rate
    return rates


def _climbs_from_nothing(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    return _climb(0.0, base_rate * batch / base_batch, warmup, steps)


def _climbs_from_nothing_ahead(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rates = torch.full((steps,), base_rate * batch / base_batch)
    rates[:warmup] *= torch.arange(1, warmup + 1) / max(warmup, 1)
    return rates


def _adds_the_whole_rate(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rates = torch.full((steps,), base_rate * batch / base_batch)
    rates[:warmup] = base_rate + rates[:warmup] * torch.arange(warmup) / max(warmup, 1)
    return rates


def _never_arrives(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * batch / base_batch
    rates = torch.full((steps,), rate)
    rates[:warmup] = base_rate + (rate - base_rate) * torch.arange(warmup) / (warmup + 1)
    return rates


def _never_stops_but_for_none(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * batch / base_batch
    return base_rate + (rate - base_rate) * torch.arange(steps) / max(warmup, 1)


def _cut_off_above(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * batch / base_batch
    if not warmup:
        return torch.full((steps,), rate)
    return (base_rate + (rate - base_rate) * torch.arange(steps) / warmup).clamp(max=rate)


def _one_step_where_there_is_none(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    return _scaled_rates(base_rate, base_batch, batch, max(warmup, 1), steps)


def _scaled_rate_once_more(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rates = _scaled_rates(base_rate, base_batch, batch, warmup, steps)
    return torch.cat([rates, rates[-1:]])


def _over_all_steps(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    return torch.linspace(base_rate, base_rate * batch / base_batch, steps)


def _arrives_early(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * batch / base_batch
    rates = torch.full((steps,), rate)
    rates[:warmup] = torch.linspace(base_rate, rate, warmup + 1)[1:]
    return rates


def _arrives_one_step_early(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * batch / base_batch
    rates = torch.full((steps,), rate)
    rates[:warmup] = torch.linspace(base_rate, rate, warmup)
    return rates


def _never_stops(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rate = base_rate * batch / base_batch
    share = torch.arange(steps) / warmup if warmup else torch.ones(steps)
    return base_rate + (rate - base_rate) * share


def _whole_parts(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    return base_rate + _climb(base_rate, base_rate * (batch // base_batch), warmup, steps)


def _back_again(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Tensor:
    rates = _scaled_rates(base_rate, base_batch, batch, warmup, steps)
    rates[warmup:] = base_rate
    return rates


def _only_the_rate(base_rate: float, base_batch: int, batch: int, warmup: int, steps: int) -> Any:
    return base_rate * batch / base_batch


_SCALING = Exercise(
    name="scaled_rates",
    number="9.3",
    title="Linear scaling, with a warm-up",
    prompt="A rate of `base_rate` is good with batches of `base_batch`. Given another batch size, the number of "
    "warm-up steps and of steps, return the rate of every step, (steps,). The rate grows in proportion to the batch. "
    "In the warm-up it climbs evenly from `base_rate`, which step 0 has, to the scaled rate, which step `warmup` is "
    "the first to have (for a smaller batch it goes down). Without a warm-up every step has the scaled rate.",
    reference=_scaled_rates,
    cases=_batches,
    alternatives=(_scaled_by_shares, _scaled_by_pieces),
    mistakes=(
        Mistake(_not_scaled, "Your rate stays what it was. With k times the batch it should be k times as large."),
        Mistake(
            _divided,
            "Your ratio is upside down: a larger batch gets a smaller rate. Its slope is less noisy, and there are "
            "fewer steps in a pass; so each may be longer.",
        ),
        Mistake(
            _by_the_root,
            "You scale by the root of the ratio. That keeps the noise of one *step* the same, and some prefer it; "
            "here the rule is linear.",
        ),
        Mistake(
            _no_warmup,
            "There is no warm-up: the scaled rate comes at once. At the start the loss bends sharply, and a rate that "
            "large can throw the weights out for good.",
        ),
        Mistake(
            _waits_below,
            "In your warm-up the rate stays at `base_rate`, and then it jumps. Let it climb evenly: the jump is "
            "what it is there to avoid.",
        ),
        Mistake(_climbs_from_nothing, "Your climb begins at 0. It begins at `base_rate`, which is known to be good."),
        Mistake(
            _climbs_from_nothing_ahead,
            "Your climb begins below `base_rate`. Step 0 has `base_rate`, which is known to be good.",
        ),
        Mistake(
            _adds_the_whole_rate,
            "You add the whole scaled rate to `base_rate`, and overshoot. What is to be added is the difference.",
        ),
        Mistake(
            _never_arrives,
            "Your climb ends with a jump: its steps are too small. From `base_rate`, which step 0 has, to the scaled "
            "rate at step `warmup` there are `warmup` moves.",
        ),
        Mistake(_never_stops_but_for_none, "Your climb goes on and on. From step `warmup` on the rate stays as it is."),
        Mistake(
            _cut_off_above,
            "For a smaller batch your climb goes down, and `min` cuts it off at once. Ask for the step instead.",
        ),
        Mistake(
            _one_step_where_there_is_none,
            "Without a warm-up step 0 has the scaled rate already: you give it a warm-up of one step.",
        ),
        Mistake(
            _scaled_rate_once_more,
            "You return one rate too many: step `warmup` belongs to the climb or to the rest, not to both.",
        ),
        Mistake(_over_all_steps, "Your climb takes the whole training. It takes the first `warmup` steps."),
        Mistake(
            _arrives_early,
            "Your climb is one step ahead: step 0 has `base_rate`, and step `warmup` is the first with the scaled "
            "rate.",
        ),
        Mistake(
            _arrives_one_step_early,
            "Your climb arrives one step early: step `warmup` is the first to have the scaled rate.",
        ),
        Mistake(_never_stops, "Your climb never ends: from step `warmup` on the rate stays where it is."),
        Mistake(
            _whole_parts,
            "Your ratio is a whole number: `//` cuts off what comes after the decimal point, and a batch of half the "
            "size gets no rate at all. Use `/`.",
        ),
        Mistake(
            _back_again, "After the warm-up your rate falls back to `base_rate`. It should stay at the scaled one."
        ),
        Mistake(_only_the_rate, "You return the scaled rate alone. Return the rate of every step, (steps,)."),
    ),
    hints=(
        "The scaled rate is `base_rate * batch / base_batch`.",
        "Step k of the warm-up is k / warmup of the way from one to the other. From step `warmup` on nothing changes.",
        "With no warm-up at all there is nothing to divide by: mind the 0.",
    ),
)


EXERCISES = (_ONE_CYCLE, _RANGE_TEST, _SCALING)
