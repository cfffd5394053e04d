"""Is a map what it is taken for? Scores where the truth is known, curves where it is not, and networks that forget.

None of them measures trust. Each answers one narrow question: does the map lie on a thing, does the answer fall with
what it points at, does it change when the network forgets. What a good score is good for is chapter 11.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._checks import check_not_negative, check_number, check_whole_number
from .hooks import Layers, check_model, named_layers
from .targets import (
    Target,
    at_once,
    check_images,
    check_logits,
    explaining,
    laid_out,
    normal_like,
    scores_of,
    seeded,
    settled,
)

# --- the truth is known: where it lies ---------------------------------------------------------------------------


def pointing_game(maps: Tensor, masks: Tensor, *, tolerance: int = 0) -> Tensor:
    """Whether the highest number of `maps` (N, H, W), 0 or more, lies in `masks` (N, H, W), bool: (N,), in [0, 1].

    Or no further than `tolerance` pixels from it. Of several highest numbers, the share that does; a map of zeros
    points nowhere, and gets 0. Source: Zhang et al., 2018. Raises TypeError or ValueError for bad input.
    """
    maps, masks = _checked(maps, masks)
    check_whole_number("tolerance", tolerance)
    if tolerance:
        from scipy.ndimage import distance_transform_edt

        away = np.stack([distance_transform_edt(~mask) for mask in masks.cpu().numpy()])
        masks = torch.from_numpy(away <= int(tolerance)).to(masks.device)
    highest = maps.amax(dim=(1, 2), keepdim=True)
    points = (maps == highest) & (highest > 0)
    return _share(points.to(maps), masks)


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """The share of the sum of `maps` (N, H, W), 0 or more, that lies in `masks` (N, H, W), bool: (N,), in [0, 1].

    An even map gets the share of the picture that the mask covers; a map of zeros gets 0. Source: Wang et al., 2020.
    Raises TypeError or ValueError for bad input.
    """
    return _share(*_checked(maps, masks))


def intersection_over_union(maps: Tensor, masks: Tensor, *, threshold: float | None = None) -> Tensor:
    """How well the brightest part of `maps` (N, H, W), 0 or more, covers `masks` (N, H, W), bool: (N,), in [0, 1].

    What both cover, over what either covers. The part is as large as the mask, of equal numbers at its border each
    counts in part; or with a `threshold` in (0, 1] all that reaches this share of the map's maximum. Of a map of zeros
    nothing is bright: 0. Raises TypeError or ValueError for bad input.
    """
    maps, masks = _checked(maps, masks)
    if threshold is None:
        part = _brightest(maps.flatten(1), masks.flatten(1).sum(dim=1)).view_as(maps)
    else:
        check_number("threshold", threshold)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must lie in (0, 1], not {threshold}")
        part = (maps >= threshold * maps.amax(dim=(1, 2), keepdim=True)).to(maps)
    part = part * maps.flatten(1).any(dim=1)[:, None, None]
    both = (part * masks).sum(dim=(1, 2))
    return both / (part.sum(dim=(1, 2)) + masks.sum(dim=(1, 2)) - both)


def _share(maps: Tensor, masks: Tensor) -> Tensor:
    whole = maps.sum(dim=(1, 2))
    return (maps * masks).sum(dim=(1, 2)) / torch.where(whole > 0, whole, 1.0)


def _brightest(values: Tensor, counts: Tensor) -> Tensor:
    """How much of each of `values` (N, P) is among the `counts` (N,) highest of its row: 1, 0, or of equals a part."""
    borders = values.sort(dim=1, descending=True).values.gather(1, counts[:, None] - 1)
    above, at = values > borders, values == borders
    room = counts - above.sum(dim=1)
    return above.to(values) + at * (room / at.sum(dim=1))[:, None]


# --- league tables -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """The mean over the pictures at hand, and limits that hold the mean of all pictures of their kind about as often as
    the confidence says, if the whole is done again with new pictures."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def interval(values: Tensor, *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of `values` (N,) and its confidence interval, by the percentiles of 2000 bootstrap samples.

    One seed draws the same pictures for every method: for a difference of two methods hand over the differences picture
    by picture. Of equal numbers it has no width: none of a hundred hit does not mean that none ever is. Source: Efron,
    1979. Raises TypeError or ValueError for bad input.
    """
    return _intervals([values], confidence, seed)[0]


def _intervals(rows: Sequence[Tensor], confidence: float, seed: int) -> list[Interval]:
    """That of each row; all of one length. Drawing is what takes time, so all see the same samples."""
    for values in rows:
        if not isinstance(values, Tensor):
            raise TypeError(f"values must be a tensor (N,), not {type(values).__name__}")
        if values.ndim != 1 or len(values) == 0 or not values.isfinite().all():
            raise ValueError(
                f"values must be (N,) finite numbers, one for each picture; these are {tuple(values.shape)}"
            )
    check_number("confidence", confidence)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    random, numbers = seeded(seed, torch.device("cpu")), torch.stack([row.detach().double().cpu() for row in rows])
    size = (2000, numbers.shape[1])
    drawn = torch.randint(size[1], size, generator=random, device="cpu")
    often = torch.zeros(size, dtype=numbers.dtype, device="cpu").scatter_add_(
        1, drawn, numbers.new_ones(1).expand(size)
    )
    limits = np.quantile((numbers @ often.T).numpy() / size[1], (0.5 - confidence / 2, 0.5 + confidence / 2), axis=1)
    return [Interval(*three) for three in zip(numbers.mean(dim=1).tolist(), *limits.tolist(), strict=True)]


def league_table(
    scores: Mapping[str, Mapping[str, Tensor]], *, confidence: float = 0.95
) -> dict[str, dict[str, Interval]]:
    """The mean scores of methods, best first by the first score of the first: method -> score -> `Interval`.

    `scores` maps a method to its scores by name, each (N,), one number for each picture. Raises ValueError where the
    methods were not all scored in the same way on equally many pictures, and for what `interval` refuses.
    """
    names = [*next(iter(scores.values()), ())]
    if not names:
        raise ValueError("scores is empty: there must be a method, and every method needs a score")
    count = len(scores[next(iter(scores))][names[0]])
    for method, its in scores.items():
        if its.keys() != set(names) or any(len(values) != count for values in its.values()):
            raise ValueError(f"scores of {method!r}: every method needs the same scores on the same pictures")
    found = iter(_intervals([its[name] for its in scores.values() for name in names], confidence, seed=0))
    table = {method: {name: next(found) for name in names} for method in scores}
    return dict(sorted(table.items(), key=lambda entry: -entry[1][names[0]].mean))


# --- it is not: take away what the map points at ----------------------------------------------------------------

Baseline = float | Tensor | Callable[[Tensor, Tensor], Tensor]
"""What stands where a pixel is missing: a number, what broadcasts to the pictures (N, C, H, W), or a function that
makes whole pictures of pictures and of which of their pixels are kept (N, H, W), such as `linear_imputation`."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores (N, steps + 1) of pictures with ever more pixels taken away, or put back: by `shares` (steps + 1,)."""

    shares: Tensor
    scores: Tensor

    @property
    def area(self) -> Tensor:
        """The area under each curve, (N,): the mean score on the way."""
        return torch.trapezoid(self.scores, self.shares, dim=1)


def deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    baseline: Baseline = 0.5,
    steps: int = 32,
    probability: bool = True,
    seed: int | torch.Generator = 0,
    batch_size: int | None = None,
) -> Curve:
    """The probability of the target while pixels of `images` (N, C, H, W) go, the highest of `maps` (N, H, W) first.

    After step k, the share k / `steps` of them is replaced by the `baseline`; a good map makes it fall soon. Equal
    numbers go in an order drawn from `seed`. With `probability=False` the logit; of a target that is a function, its
    own score. Source: Petsiuk et al., 2018; Samek et al., 2017. Raises TypeError or ValueError for bad input.
    """
    given = {"steps": steps, "probability": probability, "seed": seed, "batch_size": batch_size}
    return _curve(torch.logical_not, model, images, maps, target, baseline, **given)


def insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target = None,
    *,
    baseline: Baseline = 0.5,
    steps: int = 32,
    probability: bool = True,
    seed: int | torch.Generator = 0,
    batch_size: int | None = None,
) -> Curve:
    """As `deletion`, but the pixels come, the highest first, where before there was only the `baseline`.

    A good map makes the probability rise soon. Raises TypeError or ValueError for bad input.
    """
    given = {"steps": steps, "probability": probability, "seed": seed, "batch_size": batch_size}
    return _curve(lambda first: first, model, images, maps, target, baseline, **given)


def _curve(
    kept_of: Callable[[Tensor], Tensor],
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target,
    baseline: Baseline,
    *,
    steps: Any,
    probability: Any,
    seed: Any,
    batch_size: Any,
) -> Curve:
    """`kept_of` says which pixels are the picture's own, where the first of the map's order are given."""
    check_whole_number("steps", steps, 1)
    if batch_size is not None:
        check_whole_number("batch_size", batch_size, 1)
    with explaining(model, images, target), torch.no_grad():
        _check_maps(maps, (len(images), *images.shape[2:]))
        images = images.detach()
        fill, places = _filling(baseline, images), _places(maps.to(images.device), seed)
        size = batch_size or at_once(images)
        # The answers themselves are only needed where they are what is explained; else the first tells all.
        asked = images if target is None else images[:1]
        answers = [model(laid_out(some)) for some in asked.split(size)]
        check_logits(answers[0])
        wanted = settled(target, torch.cat(answers).expand(len(images), -1))
        scores = []
        for step in range(int(steps) + 1):
            kept = kept_of(places < round(step / steps * places[0].numel()))
            shown = torch.where(kept[:, None], images, fill(images, kept))
            scores.append(_scores(model, shown, wanted, probability, size))
    shares = torch.linspace(0, 1, int(steps) + 1, dtype=images.dtype, device=images.device)
    return Curve(shares, torch.stack(scores, dim=1))


def _places(maps: Tensor, seed: int | torch.Generator) -> Tensor:
    """The place of each pixel in the order from the highest number of its map down: (N, H, W), from 0."""
    random = seeded(seed, torch.device("cpu"))
    # Shuffled first: large parts of some maps are 0, and would else go from the top left to the bottom right.
    shuffled = torch.randperm(maps[0].numel(), generator=random, device=random.device).to(maps.device)
    order = shuffled[maps.flatten(1)[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return order.argsort(dim=1).view_as(maps)


def _scores(model: nn.Module, images: Tensor, wanted: Any, probability: bool, batch_size: int) -> Tensor:
    found = []
    for rows in torch.arange(len(images), device=images.device).split(batch_size):
        logits = model(laid_out(images[rows]))
        if isinstance(wanted, Tensor) and probability:
            logits = logits.softmax(dim=1)
        found.append(scores_of(logits, wanted[rows] if isinstance(wanted, Tensor) else wanted))
    return torch.cat(found).to(images)


def _filling(baseline: Baseline, images: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    if callable(baseline) and not isinstance(baseline, Tensor | type):

        def fill(images: Tensor, kept: Tensor) -> Tensor:
            filled = baseline(images.clone(), kept.clone())  # its own, to do with as it likes
            if not isinstance(filled, Tensor) or filled.shape != images.shape:
                came = tuple(filled.shape) if isinstance(filled, Tensor) else type(filled).__name__
                raise ValueError(f"baseline must make pictures {tuple(images.shape)}, not {came}")
            return _finite(filled.to(images))

        return fill
    if isinstance(baseline, Tensor):
        try:
            filled = baseline.to(images).expand_as(images)
        except RuntimeError:
            raise ValueError(
                f"baseline {tuple(baseline.shape)} does not broadcast to images {tuple(images.shape)}"
            ) from None
    else:
        check_number("baseline", baseline)
        filled = torch.full_like(images[:1], baseline).expand_as(images)  # type: ignore[arg-type]
    _finite(filled)
    return lambda images, kept: filled


def _finite(baseline: Tensor) -> Tensor:
    if not baseline.isfinite().all():
        raise ValueError("baseline must be finite: this one holds NaN or infinity")
    return baseline


def linear_imputation(images: Tensor, kept: Tensor, *, noise: float = 0.01, seed: int | torch.Generator = 0) -> Tensor:
    """`images` (N, C, H, W) with every pixel that is not `kept` (N, H, W), bool, made up from its neighbours.

    Each is the mean of its eight neighbours, those beside it with twice the weight of those at its corners, all solved
    at once; plus Gaussian `noise`, the same for every picture, which may lead out of [0, 1]. So the holes betray less
    of their shape. Of a picture without a pixel left, grey. Source: Rong et al., 2022 (ROAD). Raises TypeError or
    ValueError for bad input.
    """
    check_images(images)
    _check_masks(kept, (len(images), *images.shape[2:]), "kept")
    check_not_negative("noise", noise)
    made_up, random = images.detach().clone(), seeded(seed, torch.device("cpu"))
    drawn = normal_like(random, made_up[0])
    for picture, known in zip(made_up, kept.to(images.device), strict=True):
        if not known.any():
            picture[:] = 0.5
        elif not known.all():
            solved = _solved(picture.cpu().double().numpy(), known.cpu().numpy())
            picture[:, ~known] = torch.from_numpy(solved).to(picture)
        picture += noise * drawn * ~known
    return made_up


def _solved(picture: Any, known: Any) -> Any:
    """The missing pixels (C, M), in rows, of a picture (C, H, W) of which the `known` (H, W) stay."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    height, width = known.shape
    number = np.full(known.shape, -1)
    number[~known] = np.arange((~known).sum())
    rows, columns = np.nonzero(~known)
    count = len(rows)
    total, right = np.zeros(count), np.zeros((count, len(picture)))
    entries: list[tuple[Any, Any, float]] = []
    for down, across in ((d, a) for d in (-1, 0, 1) for a in (-1, 0, 1) if d or a):
        weight = 1 / 12 if down and across else 1 / 6
        there = (rows + down >= 0) & (rows + down < height) & (columns + across >= 0) & (columns + across < width)
        which = np.nonzero(there)[0]
        at = rows[which] + down, columns[which] + across
        total[which] += weight  # at the border there are fewer neighbours
        is_known = known[at]
        right[which[is_known]] += weight * picture[:, at[0][is_known], at[1][is_known]].T
        entries.append((which[~is_known], number[at][~is_known], -weight))
    here = np.arange(count)
    values = np.concatenate([total, *(np.full(len(row), weight) for row, _, weight in entries)])
    places = tuple(np.concatenate([here, *(entry[axis] for entry in entries)]) for axis in (0, 1))
    # Symmetric and positive definite: with an order of elimination made for that, twice as fast.
    settings = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    return splu(coo_matrix((values, places), shape=(count, count)).tocsc(), **settings).solve(right).T


# --- a network that forgets --------------------------------------------------------------------------------------


def randomize_layers(
    model: nn.Module, layers: Layers | None = None, *, independent: bool = False, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of `model` that have forgotten ever more, from the answer back to the picture: (name, copy), one a layer.

    `layers` are modules or names in the order in which they run, each with all in it; by default every module with
    parameters of its own, and only those, in the order in which they were made. With `independent` each copy has
    forgotten one layer alone. Weights are drawn anew as He et al. start them, biases are 0, normalizations as if new.
    Source: Adebayo et al., 2018. Raises TypeError or ValueError for bad input.
    """
    check_model(model)
    check_whole_number("seed", seed, 0, 2**32)
    names = {module: name for name, module in model.named_modules()}
    whole = layers is not None
    if layers is None:
        chosen = [name for module, name in names.items() if any(True for _ in module.parameters(recurse=False))]
    else:
        chosen = [names[module] for module in named_layers(model, layers).values()]
    for name in chosen:
        if not any(True for _ in model.get_submodule(name).parameters()):
            raise ValueError(f"layers: {name!r} has no weights that could be drawn anew")
    if not chosen:
        raise ValueError("model has no weights that could be drawn anew")
    # Copied now: what is done to the model later is not of these copies. And so that they can be explained.
    with torch.inference_mode(False):
        start = copy.deepcopy(model)
    return _forgetting(start, chosen, whole, independent, int(seed))


def _forgetting(
    start: nn.Module, names: list[str], whole: bool, independent: bool, seed: int
) -> Iterator[tuple[str, nn.Module]]:
    forgetful = start
    for place, name in reversed(list(enumerate(names))):
        with torch.inference_mode(False):
            if independent:
                forgetful = copy.deepcopy(start)
            module = forgetful.get_submodule(name)
            # Seeded by its place: a layer gets the same weights whatever was drawn before.
            random = torch.Generator("cpu").manual_seed(1000 * seed + place)
            for part in module.modules() if whole else [module]:
                _forget(part, random)
            forgotten = copy.deepcopy(forgetful)
        yield name or type(module).__name__, forgotten


@torch.no_grad()
def _forget(module: nn.Module, random: torch.Generator) -> None:
    """Draw the weights that `module` itself holds anew, in place."""
    if isinstance(module, _AS_IF_NEW):
        module.reset_parameters()
        return
    for name, parameter in module.named_parameters(recurse=False):
        if "bias" in name:
            parameter.zero_()
        elif parameter.ndim > 1:
            drawn = torch.empty(parameter.shape, device="cpu")
            nn.init.kaiming_normal_(drawn, generator=random)
            parameter.copy_(drawn)
        else:
            parameter.fill_(1.0)


_AS_IF_NEW = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """How alike two stacks of maps, both (N, ...), are in the order of their numbers: (N,), in [-1, 1].

    Spearman's: the correlation of the ranks, of equal numbers their mean rank. 0 where one of the two is even, and has
    no order. Source: Spearman, 1904. Raises TypeError or ValueError for bad input.
    """
    for name, maps in (("first", first), ("second", second)):
        if not isinstance(maps, Tensor):
            raise TypeError(f"{name} must be a tensor (N, ...), not {type(maps).__name__}")
        if maps.ndim < 2 or maps.numel() == 0:
            raise ValueError(f"{name} must have the shape (N, ...), not {tuple(maps.shape)}")
        if not maps.is_floating_point():
            raise TypeError(f"{name} must be floating point, not {maps.dtype}")
        if not maps.isfinite().all():
            raise ValueError(f"{name} must be finite: these maps hold NaN or infinity")
    if first.shape != second.shape:
        raise ValueError(f"second must have the shape of first, {tuple(first.shape)}, not {tuple(second.shape)}")
    a, b = (_centred_ranks(maps.flatten(1)) for maps in (first, second))
    lengths = a.norm(dim=1) * b.norm(dim=1)
    found = (a * b).sum(dim=1) / torch.where(lengths > 0, lengths, 1.0)
    return found.clamp(-1, 1).to(first.dtype)


def _centred_ranks(values: Tensor) -> Tensor:
    values = values.contiguous()
    ordered = values.sort(dim=1).values
    # Equal numbers stand from `below` to `upto`: half of the sum is the middle of their ranks, but for a constant.
    below, upto = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    ranks = (below + upto).double() / 2
    return ranks - ranks.mean(dim=1, keepdim=True)


# --- what the arguments must be ----------------------------------------------------------------------------------


def _check_maps(maps: Any, shape: tuple[int, ...] | None = None) -> None:
    if not isinstance(maps, Tensor):
        raise TypeError(f"maps must be a tensor (N, H, W), not {type(maps).__name__}")
    if maps.ndim != 3 or maps.numel() == 0 or (shape is not None and maps.shape != shape):
        raise ValueError(f"maps must have the shape {shape or '(N, H, W)'}, not {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise TypeError(f"maps must be floating point, not {maps.dtype}")
    if not maps.isfinite().all():
        raise ValueError("maps must be finite: these hold NaN or infinity")


def _checked(maps: Any, masks: Any) -> tuple[Tensor, Tensor]:
    """Maps of at most 1, so that no sum of theirs is too large for their type, and masks beside them."""
    _check_maps(maps)
    if maps.min() < 0:
        raise ValueError(
            "maps must be 0 or more: choose what of a signed map is meant, what speaks for the score (`clamp(min=0)`) "
            "or how much it matters (`abs()`)"
        )
    _check_masks(masks, maps.shape, "masks")
    empty = (~masks.flatten(1).any(dim=1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"masks: that of picture {empty[0]} is empty, so nothing can lie in it")
    maps = maps.detach().to(torch.promote_types(maps.dtype, torch.float32))
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return maps / torch.where(highest > 0, highest, 1.0), masks.to(maps.device)


def _check_masks(masks: Any, shape: tuple[int, ...], name: str) -> None:
    if not isinstance(masks, Tensor):
        raise TypeError(f"{name} must be a tensor (N, H, W), not {type(masks).__name__}")
    if masks.dtype != torch.bool:
        raise TypeError(f"{name} must be bool, not {masks.dtype}: `{name} > 0.5`")
    if masks.shape != shape:
        raise ValueError(f"{name} must have the shape {tuple(shape)}, not {tuple(masks.shape)}")
