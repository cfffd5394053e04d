"""The exercises of chapter 12, Capstone: the biased network."""

from __future__ import annotations

import torch
from torch import Tensor

from .exercise import Exercise, Mistake

# --- 12.1: the worst group ---------------------------------------------------------------------------------------


def _right_and_groups() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    groups = torch.randint(4, (60,), generator=random)
    likely = torch.tensor([0.9, 0.35, 0.7, 0.8])[groups]
    return {
        "four groups": (torch.rand(60, generator=random) < likely, groups),
        "groups with the numbers 2, 5 and 9": (
            torch.tensor([1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1], dtype=torch.bool),
            torch.tensor([2, 2, 2, 5, 5, 5, 5, 9, 9, 9, 9, 9]),
        ),
        "a single group": (torch.tensor([True, False, True, True, True]), torch.full((5,), 3)),
    }


def _shares(right: Tensor, groups: Tensor) -> Tensor:
    return torch.stack([right[groups == group].float().mean() for group in groups.unique()])


def _worst_group(right: Tensor, groups: Tensor) -> Tensor:
    # `unique`: a number that no picture has is no group.
    return torch.stack([right[groups == group].float().mean() for group in groups.unique()]).min()


def _worst_by_counting(right: Tensor, groups: Tensor) -> Tensor:
    there, which = groups.unique(return_inverse=True)
    hits = torch.bincount(which, weights=right.float(), minlength=len(there))
    return (hits / torch.bincount(which)).min().float()


def _worst_in_plain_python(right: Tensor, groups: Tensor) -> float:
    of_each: dict[int, list[bool]] = {}
    for hit, group in zip(right.tolist(), groups.tolist(), strict=True):
        of_each.setdefault(group, []).append(hit)
    return min(sum(hits) / len(hits) for hits in of_each.values())


def _all_together(right: Tensor, groups: Tensor) -> Tensor:
    return right.float().mean()


def _best_group(right: Tensor, groups: Tensor) -> Tensor:
    return _shares(right, groups).max()


def _mean_of_groups(right: Tensor, groups: Tensor) -> Tensor:
    return _shares(right, groups).mean()


def _share_of_errors(right: Tensor, groups: Tensor) -> Tensor:
    return 1 - _shares(right, groups).min()


def _which_group(right: Tensor, groups: Tensor) -> Tensor:
    return groups.unique()[_shares(right, groups).argmin()]


def _hits_of_worst(right: Tensor, groups: Tensor) -> Tensor:
    return torch.stack([right[groups == group].float().sum() for group in groups.unique()]).min()


def _of_all_pictures(right: Tensor, groups: Tensor) -> Tensor:
    return torch.stack([(right & (groups == group)).float().mean() for group in groups.unique()]).min()


def _mean_of_nothing(right: Tensor, groups: Tensor) -> Tensor:
    return torch.stack([right[groups == group].float().mean() for group in range(int(groups.max()) + 1)]).min()


def _empty_ones_too(right: Tensor, groups: Tensor) -> Tensor:
    hits = torch.bincount(groups, weights=right.float())
    return (hits / torch.bincount(groups).clamp(min=1)).min().float()


_WORST_GROUP = Exercise(
    name="worst_group",
    number="12.1",
    title="The worst group",
    prompt=(
        "`right` (N), booleans, says which pictures were read rightly, and `groups` (N), whole numbers, which group "
        "each belongs to. Return the accuracy of the group where it is lowest. Not every number need occur."
    ),
    reference=_worst_group,
    cases=_right_and_groups,
    alternatives=(_worst_by_counting, _worst_in_plain_python),
    mistakes=(
        Mistake(
            _all_together,
            "This is the accuracy of all pictures together, in which a small group that fares badly hardly counts.",
        ),
        Mistake(_best_group, "This is the best group. Asked is the one where the accuracy is lowest."),
        Mistake(
            _mean_of_groups,
            "You take the mean of the groups' accuracies. It counts each group alike, but a bad one still hides "
            "behind the good ones. Take the lowest.",
        ),
        Mistake(_share_of_errors, "This is the share of *errors* in the worst group. Asked is the accuracy."),
        Mistake(_which_group, "You return the number of the worst group. Asked is its accuracy."),
        Mistake(
            _hits_of_worst,
            "You count the hits and do not divide by the size of the group, so a small group looks bad however well it "
            "is read.",
        ),
        Mistake(
            _of_all_pictures,
            "You divide the hits of a group by the number of *all* pictures. Divide by the number of pictures in it.",
        ),
        Mistake(
            _mean_of_nothing,
            "Some numbers have no picture, and the mean of nothing is 0 by 0, NaN. Look only at groups that occur.",
        ),
        Mistake(
            _empty_ones_too,
            "You count numbers that no picture has as groups with an accuracy of 0. Look only at groups that occur.",
        ),
    ),
    hints=(
        "`groups.unique()` are the numbers that occur.",
        "`right[groups == group]` are the hits and misses of one group; the mean of booleans needs `.float()`.",
        "Collect the means and take the smallest.",
    ),
    bounds=(0.0, 1.0),
)

# --- 12.2: does the answer follow the part? ----------------------------------------------------------------------


def _answers_and_parts() -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(1)

    def numbers(count: int) -> Tensor:
        return torch.randint(6, (count,), generator=random)

    before, said = numbers(80), numbers(80)
    draws = torch.rand(80, generator=random)
    after = torch.where(draws < 0.45, said, torch.where(draws < 0.7, numbers(80), before))
    return {
        "eighty pictures": (before, after, said),
        "six pictures": (
            torch.tensor([0, 1, 2, 3, 4, 5]),
            torch.tensor([0, 3, 1, 3, 5, 5]),
            torch.tensor([0, 3, 1, 2, 2, 4]),
        ),
        "a part that says what was answered anyway": (
            torch.tensor([2, 4, 1]),
            torch.tensor([2, 4, 0]),
            torch.tensor([2, 4, 1]),
        ),
    }


def _followed(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    # Where the part says what was answered before, nothing can be seen.
    could = before != said
    return (could & (after == said)).sum() / could.sum().clamp(min=1)


def _followed_by_index(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    could = (before != said).nonzero().flatten()
    return (after[could] == said[could]).float().mean() if len(could) else torch.tensor(0.0)


def _followed_in_plain_python(before: Tensor, after: Tensor, said: Tensor) -> float:
    could = [(b, a, s) for b, a, s in zip(before.tolist(), after.tolist(), said.tolist(), strict=True) if b != s]
    return sum(a == s for _, a, s in could) / max(len(could), 1)


def _says_so_after(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    return (after == said).float().mean()


def _changed(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    return (after != before).float().mean()


def _of_all(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    return ((before != said) & (after == said)).float().mean()


def _of_those_that_changed(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    moved = before != after
    return (moved & (after == said)).sum() / moved.sum().clamp(min=1)


def _changed_of_could(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    could = before != said
    return (could & (after != before)).sum() / could.sum().clamp(min=1)


def _stayed(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    could = before != said
    return (could & (after == before)).sum() / could.sum().clamp(min=1)


def _how_many(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    return ((before != said) & (after == said)).sum().float()


def _nothing_by_nothing(before: Tensor, after: Tensor, said: Tensor) -> Tensor:
    could = before != said
    return (could & (after == said)).sum() / could.sum()


_FOLLOWED = Exercise(
    name="followed",
    number="12.2",
    title="Does the answer follow the part?",
    prompt=(
        "A network's answers `before` and `after` a part was exchanged, (N), and the category that the new part "
        "stands for, `said` (N). Of the pictures where the part says something else than the answer before, return the "
        "share in which the answer is now what the part says; 0 where there is no such picture."
    ),
    reference=_followed,
    cases=_answers_and_parts,
    alternatives=(_followed_by_index, _followed_in_plain_python),
    mistakes=(
        Mistake(
            _says_so_after,
            "You count answers that equal what the part says, also where they did so before the exchange: those have "
            "followed nothing.",
        ),
        Mistake(
            _changed,
            "This is the share of answers that have changed, to whatever. Asked is how many became what the part says.",
        ),
        Mistake(
            _of_all,
            "The right pictures, but you divide by all of them. Where the part says what was answered anyway, the "
            "answer could not follow: leave those out of the denominator too.",
        ),
        Mistake(
            _of_those_that_changed,
            "You divide by the answers that have changed. A single change that follows would then be 100%, however "
            "many answers the part leaves alone.",
        ),
        Mistake(
            _changed_of_could,
            "You count answers that have changed to anything. Asked is a change *to what the part says*.",
        ),
        Mistake(_stayed, "You count the answers that stayed. Asked are those that went where the part points."),
        Mistake(_how_many, "You return how many pictures there are. Asked is a share: divide."),
        Mistake(
            _nothing_by_nothing,
            "Right, but where no answer could follow you divide 0 by 0. Return 0 there.",
        ),
    ),
    hints=(
        "In which pictures could one see that the answer follows? `could = before != said`.",
        "Of those, count the ones with `after == said`, and divide by how many there are.",
        "`.clamp(min=1)` in the denominator keeps 0 by 0 away.",
    ),
    bounds=(0.0, 1.0),
)

# --- 12.3: accuse, or do not -------------------------------------------------------------------------------------


def _changes_and_control() -> dict[str, tuple[Tensor, Tensor, float]]:
    random = torch.Generator().manual_seed(2)

    def coins(count: int, *likely: float) -> Tensor:
        return torch.stack([torch.rand(count, generator=random) < p for p in likely])

    def first(count: int, *many: int) -> Tensor:
        return torch.stack([torch.arange(count) < m for m in many])

    noisy = coins(300, 0.3)[0]
    shaken = torch.stack([noisy, noisy ^ coins(300, 0.04)[0], noisy])
    return {
        "a clear shortcut": (coins(200, 0.05, 0.04, 0.8), coins(200, 0.03)[0], 0.1),
        "no shortcut": (coins(200, 0.05, 0.04, 0.06), coins(200, 0.03)[0], 0.02),
        "a network that changes its mind at anything": (shaken, noisy, 0.1),
        "few pictures": (first(12, 4, 1, 0), first(12, 0)[0], 0.1),
        "two suspects": (first(100, 30, 62, 3), first(100, 1)[0], 0.1),
        "a small effect of many pictures": (first(600, 6, 90, 7), first(600, 6)[0], 0.1),
        "many answers that change anyway, and twenty more": (first(100, 70, 52, 50), first(100, 50)[0], 0.1),
        "an effect within the margin": (first(600, 6, 7, 90), first(600, 6)[0], 0.2),
    }


def _limits(changed: Tensor, control: Tensor, errors: float = 2.0) -> tuple[Tensor, Tensor]:
    more = changed.float() - control.float()
    return more.mean(dim=1), more.mean(dim=1) - errors * more.std(dim=1) / more.shape[1] ** 0.5


def _accuse(changed: Tensor, control: Tensor, margin: float) -> int:
    # Picture by picture: an answer that changes at anything is no evidence.
    more = changed.float() - control.float()
    error = more.std(dim=1) / more.shape[1] ** 0.5
    suspect = int(more.mean(dim=1).argmax())
    return suspect if more.mean(dim=1)[suspect] - 2 * error[suspect] > margin else -1


def _accuse_by_variance(changed: Tensor, control: Tensor, margin: float) -> int:
    more = changed.double() - control.double()
    mean = more.mean(dim=1)
    low = mean - 2 * (more.var(dim=1) / more.shape[1]).sqrt()
    best = mean.argmax()
    return int(best) if low[best] > margin else -1


def _accuse_in_a_loop(changed: Tensor, control: Tensor, margin: float) -> int:
    best, suspect, low = -2.0, -1, 0.0
    for part, its in enumerate(changed):
        more = its.float() - control.float()
        if more.mean() > best:
            best, suspect = float(more.mean()), part
            low = best - 2 * float(more.std()) / len(more) ** 0.5
    return suspect if low > margin else -1


def _always_somebody(changed: Tensor, control: Tensor, margin: float) -> int:
    return int(changed.float().mean(dim=1).argmax())


def _without_control(changed: Tensor, control: Tensor, margin: float) -> int:
    return _accuse(changed, torch.zeros_like(control), margin)


def _without_error(changed: Tensor, control: Tensor, margin: float) -> int:
    mean, _ = _limits(changed, control)
    return int(mean.argmax()) if mean.max() > margin else -1


def _without_margin(changed: Tensor, control: Tensor, margin: float) -> int:
    return _accuse(changed, control, 0.0)


def _spread_for_error(changed: Tensor, control: Tensor, margin: float) -> int:
    more = changed.float() - control.float()
    low = more.mean(dim=1) - 2 * more.std(dim=1)
    best = int(more.mean(dim=1).argmax())
    return best if low[best] > margin else -1


def _first_over_the_margin(changed: Tensor, control: Tensor, margin: float) -> int:
    _, low = _limits(changed, control)
    over = (low > margin).nonzero().flatten().tolist()
    return over[0] if over else -1


def _upper_limit(changed: Tensor, control: Tensor, margin: float) -> int:
    mean, high = _limits(changed, control, errors=-2.0)
    best = int(mean.argmax())
    return best if high[best] > margin else -1


def _unpaired(changed: Tensor, control: Tensor, margin: float) -> int:
    mean = changed.float().mean(dim=1) - control.float().mean()
    error = ((changed.float().var(dim=1) + control.float().var()) / len(control)).sqrt()
    best = int(mean.argmax())
    return best if mean[best] - 2 * error[best] > margin else -1


def _how_much(changed: Tensor, control: Tensor, margin: float) -> float:
    mean, low = _limits(changed, control)
    return float(mean.max()) if low[mean.argmax()] > margin else -1.0


def _counted_from_one(changed: Tensor, control: Tensor, margin: float) -> int:
    found = _accuse(changed, control, margin)
    return found + 1 if found >= 0 else found


_ACCUSE = Exercise(
    name="accuse",
    number="12.3",
    title="Accuse, or do not",
    prompt=(
        "`changed` (P, N), booleans, says for P parts which of N answers change when that part is exchanged, and "
        "`control` (N) which change when nothing of importance was. Take the differences picture by picture. Return "
        "the index of the part with the largest mean difference, if this mean, less two standard errors, is above "
        "`margin`; else return -1. A standard error is the standard deviation over the root of N."
    ),
    reference=_accuse,
    cases=_changes_and_control,
    alternatives=(_accuse_by_variance, _accuse_in_a_loop),
    mistakes=(
        Mistake(
            _always_somebody,
            "You always accuse somebody: some part has the largest share even where there is no shortcut. Compare with "
            "the control, and let the difference be beyond doubt.",
        ),
        Mistake(
            _without_control,
            "You leave out the control. A network that changes its mind at anything would be guilty of everything.",
        ),
        Mistake(
            _without_error,
            "You leave out the error: of few pictures a large difference may be chance. Take off two standard errors.",
        ),
        Mistake(
            _without_margin,
            "You compare with 0. With many pictures the smallest effect is beyond doubt: asked is one above `margin`.",
        ),
        Mistake(
            _spread_for_error,
            "You take off the standard deviation of the differences, which does not shrink however many pictures there "
            "are. The error of their *mean* is that over the root of N.",
        ),
        Mistake(
            _first_over_the_margin,
            "You return the first part above the margin. Asked is the one with the largest difference.",
        ),
        Mistake(
            _upper_limit,
            "You *add* the two standard errors. That asks whether the effect could be so large; asked is whether it "
            "surely is.",
        ),
        Mistake(
            _unpaired,
            "You take the error as if parts and control were of different pictures. They are the same, so take the "
            "differences first: then what changes anyway drops out.",
        ),
        Mistake(_how_much, "You return how large the difference is. Asked is which part it belongs to, its index."),
        Mistake(_counted_from_one, "You count the parts from 1. An index begins at 0."),
    ),
    hints=(
        "`more = changed.float() - control.float()` is 1 where only the exchange made a difference, -1 where only the "
        "control did.",
        "`more.mean(dim=1)` and `more.std(dim=1) / N ** 0.5` are the mean differences and their standard errors.",
        "`argmax` of the means is the suspect; then the one comparison decides.",
    ),
)

# --- 12.4: weights that count every group alike -------------------------------------------------------------------


def _groups() -> dict[str, tuple[Tensor]]:
    random = torch.Generator().manual_seed(3)
    return {
        "a large group and three small ones": (
            (torch.rand(40, generator=random) < 0.4).long() * torch.randint(4, (40,), generator=random),
        ),
        "groups with the numbers 1, 4 and 6": (torch.tensor([4, 4, 1, 4, 6, 4, 1, 4]),),
        "a single group": (torch.full((3,), 2),),
    }


def _group_weights(groups: Tensor) -> Tensor:
    _, which, counts = groups.unique(return_inverse=True, return_counts=True)
    return 1 / (counts[which] * len(counts)).float()


def _weights_by_comparison(groups: Tensor) -> Tensor:
    weights = 1 / (groups[:, None] == groups).sum(dim=1).float()
    return weights / weights.sum()


def _weights_in_plain_python(groups: Tensor) -> Tensor:
    numbers = groups.tolist()
    return torch.tensor([1 / (len(set(numbers)) * numbers.count(number)) for number in numbers])


def _all_alike(groups: Tensor) -> Tensor:
    return torch.full((len(groups),), 1 / len(groups))


def _not_by_groups(groups: Tensor) -> Tensor:
    return _group_weights(groups) * len(groups.unique())


def _mean_of_one(groups: Tensor) -> Tensor:
    return _group_weights(groups) * len(groups)


def _large_ones_more(groups: Tensor) -> Tensor:
    weights = (groups[:, None] == groups).sum(dim=1).float()
    return weights / weights.sum()


def _roots(groups: Tensor) -> Tensor:
    weights = (groups[:, None] == groups).sum(dim=1).float() ** -0.5
    return weights / weights.sum()


def _as_many_as_numbers(groups: Tensor) -> Tensor:
    return _group_weights(groups) * len(groups.unique()) / (groups.max() + 1)


def _one_for_each_group(groups: Tensor) -> Tensor:
    return 1 / (groups.unique(return_counts=True)[1] * len(groups.unique())).float()


_GROUP_WEIGHTS = Exercise(
    name="group_weights",
    number="12.4",
    title="Weights that count every group alike",
    prompt=(
        "`groups` (N), whole numbers, says which group each picture belongs to. Return a weight for each picture, (N): "
        "pictures of one group have the same, the weights of each group have the same sum, and all add up to 1."
    ),
    reference=_group_weights,
    cases=_groups,
    alternatives=(_weights_by_comparison, _weights_in_plain_python),
    mistakes=(
        Mistake(
            _all_alike,
            "Every picture counts alike, so a large group still counts for more than a small one.",
        ),
        Mistake(_not_by_groups, "Each group adds up to 1, so all of them to the number of groups. Divide by that."),
        Mistake(_mean_of_one, "The *mean* of your weights is 1. Asked is that their sum is."),
        Mistake(
            _large_ones_more,
            "A picture of a large group weighs more than one of a small group. It is the other way round.",
        ),
        Mistake(
            _roots,
            "You divide by the root of a group's size, which goes half the way: large groups still count for more.",
        ),
        Mistake(
            _as_many_as_numbers,
            "You divide by the largest number plus 1. Count the groups that occur.",
        ),
        Mistake(_one_for_each_group, "You return one weight for each group. Asked is one for each picture, (N)."),
    ),
    hints=(
        "A picture's weight is 1 over the size of its group, and over the number of groups.",
        "`groups.unique(return_inverse=True, return_counts=True)` has the size of each group, and for each picture the "
        "place of its group in that list.",
    ),
    bounds=(0.0, 1.0),
)

EXERCISES = (_WORST_GROUP, _FOLLOWED, _ACCUSE, _GROUP_WEIGHTS)
