"""The exercises of chapter 11, Can you trust an explanation?"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exercise import Exercise, Mistake

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a network, pictures (N, C, H, W) and targets (N,) to maps (N, H, W)."""
Likeness = Callable[[Tensor, Tensor], Tensor]
"""From two stacks of maps (N, H, W) to how alike each pair is, (N,)."""


def _network(
    channels: int, pixels: int, classes: int, *, seed: int, size: float = 0.5, bias: float = 0.0
) -> nn.Sequential:
    """A classifier that is the same in training and at work."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made: not from the reader's numbers
        convolution, last = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(4 * pixels, classes)
    network = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), last)
    for parameter in network.parameters():
        parameter.data = size * torch.randn(parameter.shape, generator=random)
    last.bias.data += bias
    return network.eval().requires_grad_(False)


def _logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0]


# --- 11.1: exchange a part, and look -----------------------------------------------------------------------------


def _networks_and_parts() -> dict[str, tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)

    def pictures(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    def part(count: int, height: int, width: int, share: float) -> Tensor:
        return torch.rand(count, height, width, generator=random) < share

    return {
        "four pictures with different targets": (
            _network(3, 20, 5, seed=1, bias=2.0),
            pictures(4, 3, 4, 5),
            part(4, 4, 5, 0.3),
            pictures(4, 3, 4, 5),
            torch.tensor([4, 0, 2, 3]),
        ),
        "one picture of one channel": (
            _network(1, 12, 3, seed=2, bias=2.0),
            pictures(1, 1, 3, 4),
            part(1, 3, 4, 0.6),
            pictures(1, 1, 3, 4),
            torch.tensor([1]),
        ),
        "two pictures, of which one keeps all its pixels": (
            _network(3, 12, 4, seed=3, bias=2.0),
            pictures(2, 3, 4, 3),
            part(2, 4, 3, 0.4) & torch.tensor([True, False])[:, None, None],
            pictures(2, 3, 4, 3),
            torch.tensor([3, 1]),
        ),
    }


def _mixed(images: Tensor, masks: Tensor, others: Tensor) -> Tensor:
    return torch.where(masks[:, None], others, images)


@torch.no_grad()
def _intervention(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    # One channel more, so that a mask holds for all channels of its picture.
    exchanged = torch.where(masks[:, None], others, images)
    before, after = (model(seen).gather(1, targets[:, None])[:, 0] for seen in (images, exchanged))
    return before - after


def _by_weighing(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    weights = masks[:, None].float()
    rows = torch.arange(len(images))
    return (model(images) - model(weights * others + (1 - weights) * images))[rows, targets]


def _one_by_one(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    falls = []
    for image, mask, other, target in zip(images, masks, others, targets, strict=True):
        exchanged = image.clone()
        exchanged[:, mask] = other[:, mask]
        falls.append(model(image[None])[0, target] - model(exchanged[None])[0, target])
    return torch.stack(falls)


def _before_and_after(
    model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model(images), model(_mixed(images, masks, others))


def _rise_instead(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return -_intervention(model, images, masks, others, targets)


def _size_of_the_change(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, others, targets).abs()


def _rest_exchanged(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, ~masks, others, targets)


def _all_exchanged(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, torch.ones_like(masks), others, targets)


def _blackened(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, torch.zeros_like(others), targets)


def _laid_over(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, images + others, targets)


def _half_and_half(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, (images + others) / 2, targets)


def _of_probabilities(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, after = _before_and_after(model, images, masks, others, targets)
    return _logit(before.softmax(dim=1), targets) - _logit(after.softmax(dim=1), targets)


def _share_of_the_score(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, _ = _before_and_after(model, images, masks, others, targets)
    return _intervention(model, images, masks, others, targets) / _logit(before, targets)


def _score_after(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _logit(_before_and_after(model, images, masks, others, targets)[1], targets)


def _of_the_winners(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, after = _before_and_after(model, images, masks, others, targets)
    return before.amax(dim=1) - after.amax(dim=1)


def _of_the_first_answer(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, others, model(images).argmax(dim=1))


def _first_target_of_all(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, others, targets[:1].expand(len(images)))


def _of_every_class(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, after = _before_and_after(model, images, masks, others, targets)
    return before - after


def _whether_it_answers_otherwise(
    model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor
) -> Tensor:
    before, after = _before_and_after(model, images, masks, others, targets)
    return (before.argmax(dim=1) != after.argmax(dim=1)).float()


def _everybodys_targets(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, after = _before_and_after(model, images, masks, others, targets)
    return (before - after)[:, targets]


def _targets_for_pictures(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, after = _before_and_after(model, images, masks, others, targets)
    return (before - after)[targets]


def _exchanged_too_soon(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, _mixed(images, masks, others), masks, others, targets)


def _winner_after(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, after = _before_and_after(model, images, masks, others, targets)
    return _logit(before, targets) - after.amax(dim=1)


def _mean_fall(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, others, targets).mean()


def _a_column(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    return _intervention(model, images, masks, others, targets)[:, None]


def _no_channel_for_masks(model: nn.Module, images: Tensor, masks: Tensor, others: Tensor, targets: Tensor) -> Tensor:
    before, after = model(images), model(torch.where(masks, others, images))
    return _logit(before - after, targets)


_INTERVENTION = Exercise(
    name="fall_without",
    number="11.1",
    title="Exchange a part, and look",
    prompt="Given a model, pictures (N, C, H, W), masks (N, H, W) of booleans, other pictures (N, C, H, W) and targets "
    "(N), return by how much each picture's own target logit falls when the pixels in its mask are taken from the "
    "other picture: (N).",
    reference=_intervention,
    cases=_networks_and_parts,
    alternatives=(_by_weighing, _one_by_one),
    mistakes=(
        Mistake(
            _rise_instead,
            "The sign is turned round: you return after less before. A *fall* is before less after, and is above 0 "
            "where the part spoke for the class.",
        ),
        Mistake(
            _size_of_the_change,
            "You take absolute values. A part that speaks *against* the class makes the score rise when it goes: that "
            "has to come out below 0.",
        ),
        Mistake(
            _rest_exchanged,
            "You exchange all but the part. In the mask the pixels come from the other picture; outside they stay.",
        ),
        Mistake(
            _all_exchanged,
            "You exchange the whole picture, so every part seems to bring everything. Only the pixels in the mask come "
            "from the other picture.",
        ),
        Mistake(
            _blackened,
            "You put zeros into the mask. A black hole is a sight of its own, which the network has never met. Take "
            "what the other picture shows there.",
        ),
        Mistake(
            _laid_over,
            "You add the other picture to the part. The part is still there, only brighter. It has to go.",
        ),
        Mistake(
            _half_and_half,
            "You mix the two pictures half and half, so half of the part is still there. It has to go.",
        ),
        Mistake(
            _of_probabilities,
            "You compare probabilities. Where the network is sure, they hardly move though the score has fallen far, "
            "and they also move when *other* classes do. Take the logit.",
        ),
        Mistake(
            _share_of_the_score,
            "You divide by the score. That turns the sign where the score is below 0, and explodes near 0. Asked is "
            "the fall itself.",
        ),
        Mistake(
            _score_after,
            "This is the score after the exchange. Asked is by how much it has fallen from what it was.",
        ),
        Mistake(
            _of_the_winners,
            "You take the highest logit before and after. That may be another class after: you would compare two "
            "questions. Ask for the same class both times, `targets`.",
        ),
        Mistake(
            _of_the_first_answer,
            "You take the class that the network gives. Asked is `targets`: one may want to know what speaks for a "
            "class that it does *not* give.",
        ),
        Mistake(
            _first_target_of_all,
            "You take the first picture's target for all of them. Each has its own: `targets` is (N).",
        ),
        Mistake(
            _of_every_class,
            "These are the falls of all classes, (N, K). From row n take column `targets[n]`: look at `gather`.",
        ),
        Mistake(
            _whether_it_answers_otherwise,
            "You return whether the answer changes. Most answers survive most exchanges; the score tells more. Return "
            "its fall.",
        ),
        Mistake(
            _everybodys_targets,
            "`logits[:, targets]` is (N, N): every picture is asked for everybody's targets. From each row exactly one "
            "number is wanted: look at `gather`.",
        ),
        Mistake(
            _targets_for_pictures,
            "You take `targets` for the numbers of pictures. Logits are (N, K): rows are pictures, columns are "
            "classes, and from row n you want column `targets[n]`.",
        ),
        Mistake(
            _exchanged_too_soon,
            "Nothing falls at all: before and after are the same picture. You write into `images`, and then ask about "
            "them as they were before, which they no longer are. Exchange in a copy; `torch.where` makes one.",
        ),
        Mistake(
            _winner_after,
            "Before, you ask for the target, and after, for whichever class wins. Ask for the same class both times.",
        ),
        Mistake(
            _mean_fall,
            "You return the mean over the pictures. Whether a network relies on something differs from picture to "
            "picture: return one number for each.",
        ),
        Mistake(
            _a_column,
            "Right, but as a column (N, 1). `gather` keeps the dimension of its index: take column 0.",
        ),
        Mistake(
            _no_channel_for_masks,
            "Masks are (N, H, W) and pictures (N, C, H, W): as they stand, PyTorch takes the masks' N for the "
            "pictures' C. Give them a channel, `masks[:, None]`.",
        ),
    ),
    hints=(
        "`torch.where(condition, a, b)` takes from `a` where the condition holds, from `b` elsewhere. What is the "
        "condition here?",
        "The masks have no channel. `masks[:, None]` is (N, 1, H, W), and holds for every channel.",
        "Ask the model about both batches, and from row n of its logits take column `targets[n]`: "
        "`logits.gather(1, targets[:, None])[:, 0]`.",
    ),
)


# --- 11.2: the pointing game -------------------------------------------------------------------------------------


def _maps_and_masks() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(5)
    maps = torch.rand(6, 5, 8, generator=random)
    masks = torch.zeros(6, 5, 8, dtype=torch.bool)
    for number, (top, left, tall, wide) in enumerate(
        [(0, 0, 3, 4), (2, 3, 3, 5), (0, 5, 5, 3), (1, 1, 2, 6), (3, 0, 2, 8), (0, 0, 5, 2)]
    ):
        masks[number, top : top + tall, left : left + wide] = True
    peaks = [(1, 6), (3, 4), (4, 7), (2, 5), (0, 3), (2, 2)]  # out, in, in, in, out, out
    for one, (row, column), height in zip(maps, peaks, (3.0, 1.2, 1.1, 5.0, 1.4, 9.0), strict=True):
        one[row, column] = height
    empty = torch.stack([torch.zeros(4, 3), 0.01 * torch.rand(4, 3, generator=random)])
    empty[1, 3, 1] = 0.02
    corner = torch.zeros(2, 4, 3, dtype=torch.bool)
    corner[0, :2] = corner[1, 3] = True
    blank, below = torch.zeros(2, 4, 3), torch.zeros(2, 4, 3, dtype=torch.bool)
    below[0, 2:] = below[1] = True
    inside = torch.rand(1, 4, 6, generator=random)
    inside[0, 1, 4] = 2
    around = torch.zeros(1, 4, 6, dtype=torch.bool)
    around[0, 1:3, 3:6] = True
    return {
        "six maps, of which three point right": (maps, masks),
        "a map of zeros, beside a faint one that points right": (empty, corner),
        "a single map that points right": (inside, around),
        "maps of zeros, one of them under a mask of everything": (blank, below),
    }


def _points_at(maps: Tensor, masks: Tensor) -> Tensor:
    brightest = maps.flatten(1).argmax(dim=1)
    inside = masks.flatten(1).gather(1, brightest[:, None])[:, 0]
    return (inside & (maps.amax(dim=(1, 2)) > 0)).float()


def _by_comparing_maxima(maps: Tensor, masks: Tensor) -> Tensor:
    inside, outside = ((maps * where).amax(dim=(1, 2)) for where in (masks, ~masks))
    return (inside > outside).to(maps.dtype)


def _by_row_and_column(maps: Tensor, masks: Tensor) -> Tensor:
    hits = []
    for one, mask in zip(maps, masks, strict=True):
        row, column = divmod(int(one.argmax()), one.shape[1])
        hits.append(float(mask[row, column]) if one.any() else 0.0)
    return torch.tensor(hits)


def _zeros_count(maps: Tensor, masks: Tensor) -> Tensor:
    return masks.flatten(1).gather(1, maps.flatten(1).argmax(dim=1)[:, None])[:, 0].float()


def _maxima_of_zeros_count(maps: Tensor, masks: Tensor) -> Tensor:
    return ((maps * masks).amax(dim=(1, 2)) >= maps.amax(dim=(1, 2))).float()


def _outside(maps: Tensor, masks: Tensor) -> Tensor:
    return _points_at(maps, ~masks)


def _darkest(maps: Tensor, masks: Tensor) -> Tensor:
    return masks.flatten(1).gather(1, maps.flatten(1).argmin(dim=1)[:, None])[:, 0].float()


def _one_peak_for_all(maps: Tensor, masks: Tensor) -> Tensor:
    highest = maps.max()
    return ((maps == highest) & masks).flatten(1).any(dim=1).float()


def _share_of_the_sum(maps: Tensor, masks: Tensor) -> Tensor:
    return (maps * masks).sum(dim=(1, 2)) / maps.sum(dim=(1, 2)).clamp(min=1e-12)


def _mostly_inside(maps: Tensor, masks: Tensor) -> Tensor:
    return (_share_of_the_sum(maps, masks) > 0.5).float()


def _brighter_on_average(maps: Tensor, masks: Tensor) -> Tensor:
    inside = (maps * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    outside = (maps * ~masks).sum(dim=(1, 2)) / (~masks).sum(dim=(1, 2))
    return (inside > outside).float()


def _height_inside(maps: Tensor, masks: Tensor) -> Tensor:
    return (maps * masks).amax(dim=(1, 2))


def _centre_of_gravity(maps: Tensor, masks: Tensor) -> Tensor:
    height, width = maps.shape[1:]
    whole = maps.sum(dim=(1, 2)).clamp(min=1e-12)
    rows = ((maps.sum(dim=2) * torch.arange(height)).sum(dim=1) / whole).round().long()
    columns = ((maps.sum(dim=1) * torch.arange(width)).sum(dim=1) / whole).round().long()
    return masks[torch.arange(len(maps)), rows, columns].float()


def _anything_bright_inside(maps: Tensor, masks: Tensor) -> Tensor:
    bright = maps > 0.5 * maps.amax(dim=(1, 2), keepdim=True)
    return (bright & masks).flatten(1).any(dim=1).float()


def _rate(maps: Tensor, masks: Tensor) -> Tensor:
    return _points_at(maps, masks).mean()


def _rows_for_columns(maps: Tensor, masks: Tensor) -> Tensor:
    place = maps.flatten(1).argmax(dim=1)
    height, width = maps.shape[1:]
    return masks[torch.arange(len(maps)), (place // height).clamp(max=height - 1), place % height % width].float()


def _where_it_is(maps: Tensor, masks: Tensor) -> Tensor:
    return maps.flatten(1).argmax(dim=1).float()


def _per_row(maps: Tensor, masks: Tensor) -> Tensor:
    return masks.gather(2, maps.argmax(dim=2, keepdim=True))[..., 0].float()


def _none_for_a_map_of_zeros(maps: Tensor, masks: Tensor) -> Tensor:
    scaled = maps / maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(scaled.isnan().any(dim=2).any(dim=1), torch.nan, _points_at(maps, masks))


_POINTS_AT = Exercise(
    name="points_at",
    number="11.2",
    title="The pointing game",
    prompt="Given maps (N, H, W) of numbers that are 0 or more, and masks (N, H, W) of booleans, return for each "
    "whether its brightest pixel lies in its mask, as 1.0 or 0.0: (N). A map of zeros points nowhere, and gets 0.",
    reference=_points_at,
    cases=_maps_and_masks,
    alternatives=(_by_comparing_maxima, _by_row_and_column),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _zeros_count,
            "Right, but for a map of zeros. `argmax` has to answer something, so it names the first pixel, and where "
            "the mask covers that corner, a map that says nothing scores. It should get 0.",
        ),
        Mistake(
            _maxima_of_zeros_count,
            "Right, but for a map of zeros. Its maximum, 0, is reached in its mask as everywhere else, so a map that "
            "says nothing scores. It should get 0.",
        ),
        Mistake(_outside, "You count maps that point *outside* of their mask. It is the other way round."),
        Mistake(_darkest, "You look for the *darkest* pixel. The map points with its brightest."),
        Mistake(
            _one_peak_for_all,
            "You look for the brightest pixel of the whole batch. Then at most one map can score. Each map has a "
            "maximum of its own.",
        ),
        Mistake(
            _share_of_the_sum,
            "This is the share of the map's sum that lies inside: its energy, a fair score too, and another one. The "
            "pointing game asks for the single brightest pixel.",
        ),
        Mistake(
            _mostly_inside,
            "You ask whether more than half of the map's sum lies inside. A small thing could hardly ever win that. "
            "The pointing game asks for the single brightest pixel.",
        ),
        Mistake(
            _brighter_on_average,
            "You ask whether the map is brighter inside than outside on average. The pointing game asks for the single "
            "brightest pixel, and forgives whatever the map does elsewhere.",
        ),
        Mistake(
            _height_inside,
            "This is how bright the map is at its best place inside. Whether that is its brightest pixel of all, you "
            "have not asked yet.",
        ),
        Mistake(
            _centre_of_gravity,
            "This is the map's centre of gravity. Of two bright spots it lies between them, where there may be "
            "nothing. Take the brightest pixel.",
        ),
        Mistake(
            _anything_bright_inside,
            "You let any bright pixel count. So a map that lights up everywhere wins every time. Only the brightest "
            "counts.",
        ),
        Mistake(
            _rate,
            "You return the share of maps that hit. Return one number for each map: only so can you compare two "
            "methods picture by picture, or say how sure the mean is.",
        ),
        Mistake(
            _rows_for_columns,
            "Rows and columns are mixed up: in a flattened map the next row begins after W pixels, its *width*. On "
            "square maps it would never have shown.",
        ),
        Mistake(
            _where_it_is,
            "This is *where* each map has its maximum, as an index into the flattened map. Look the mask up there.",
        ),
        Mistake(
            _per_row,
            "You look for the brightest pixel of every row. Flatten each map first: `maps.flatten(1)`.",
        ),
        Mistake(
            _none_for_a_map_of_zeros,
            "A map of zeros comes out as NaN: you divide by its maximum. Where the brightest pixel lies does not "
            "depend on how bright it is, so there is no need to divide.",
        ),
    ),
    hints=(
        "`maps.flatten(1)` is (N, H W): one row for each map. `argmax(dim=1)` says where each has its maximum.",
        "Flatten the masks in the same way, and look up place `k[n]` in row n: `gather(1, k[:, None])`.",
        "What does `argmax` say of a row of zeros? Ask besides whether the maximum is above 0.",
    ),
)


# --- 11.3: forget, and compare -----------------------------------------------------------------------------------


def _slopes(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    pixels = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_logit(model(pixels), targets).sum(), pixels)
    return gradient.abs().amax(dim=1)


def _products(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    pixels = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(_logit(model(pixels), targets).sum(), pixels)
    return (images * gradient).sum(dim=1)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    a, b = (maps.flatten(1) - maps.flatten(1).mean(dim=1, keepdim=True) for maps in (first, second))
    return functional.cosine_similarity(a, b, dim=1)


def _closeness(first: Tensor, second: Tensor) -> Tensor:
    return 1 / (1 + (first - second).abs().mean(dim=(1, 2)))


def _normalized(seed: int) -> nn.Sequential:
    """A classifier that is another one in training: its BatchNorm then takes the batch's own statistics."""
    plain = _network(2, 12, 3, seed=seed)
    with torch.random.fork_rng(devices=[]):
        norm = nn.BatchNorm2d(4)
    norm.running_mean = torch.tensor([0.5, -0.4, 0.8, 0.1])
    norm.running_var = torch.tensor([0.2, 2.0, 0.6, 1.5])
    return nn.Sequential(plain[0], norm, *plain[1:]).eval().requires_grad_(False)


Case = tuple[nn.Module, str, Tensor, Method, Likeness, Tensor, Tensor]


def _networks_that_forget() -> dict[str, Case]:
    random = torch.Generator().manual_seed(9)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    return {
        "three pictures, and the last layer": (
            *(_network(2, 20, 4, seed=4), "3", 0.5 * normal(4, 80), _slopes, _correlation),
            *(normal(3, 2, 4, 5), torch.tensor([1, 3, 0])),
        ),
        "two pictures, and the first layer of a network with BatchNorm": (
            *(_normalized(5), "0", 0.5 * normal(4, 2, 3, 3), _products, _closeness),
            *(normal(2, 2, 3, 4), torch.tensor([2, 0])),
        ),
    }


def _forgotten(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = copy.deepcopy(model)
    forgetful.get_submodule(layer).weight.data.copy_(weight)  # type: ignore[union-attr, operator]
    return likeness(method(model, images, targets), method(forgetful, images, targets))


def _by_state(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = copy.deepcopy(model)
    forgetful.load_state_dict({**model.state_dict(), f"{layer}.weight": weight})
    return likeness(method(model, images, targets), method(forgetful, images, targets))


def _and_back(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    own = dict(model.named_parameters())[f"{layer}.weight"]
    before, kept = method(model, images, targets), own.detach().clone()
    with torch.no_grad():
        own.copy_(weight)
        after = method(model, images, targets)
        own.copy_(kept)
    return likeness(before, after)


def _changed(model: nn.Module, layer: str, change: Callable[[Tensor], Tensor], training: bool = False) -> nn.Module:
    other = copy.deepcopy(model)
    own = dict(other.named_parameters())[f"{layer}.weight"]
    own.data.copy_(change(own.data))
    return other.train(training)


def _with_itself(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: weight)
    return likeness(method(forgetful, images, targets), method(forgetful, images, targets))


def _own_answers(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: weight)
    return likeness(method(model, images, targets), method(forgetful, images, forgetful(images).argmax(dim=1)))


def _zeros_for_weights(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, torch.zeros_like)
    return likeness(method(model, images, targets), method(forgetful, images, targets))


def _added(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: own + weight)
    return likeness(method(model, images, targets), method(forgetful, images, targets))


def _in_training(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: weight, training=True)
    return likeness(method(model, images, targets), method(forgetful, images, targets))


def _every_layer(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: weight)
    for name, parameter in forgetful.named_parameters():
        if parameter.ndim > 1 and name != f"{layer}.weight":
            parameter.data = parameter.data.flatten().flip(0).view_as(parameter)
    return likeness(method(model, images, targets), method(forgetful, images, targets))


def _unlikeness(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    return 1 - _forgotten(model, layer, weight, method, likeness, images, targets)


def _sizes_compared(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: weight)
    before, after = (method(each, images, targets) for each in (model, forgetful))
    return (before - after).square().mean(dim=(1, 2))


def _mean_likeness(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    return _forgotten(model, layer, weight, method, likeness, images, targets).mean()


def _with_the_picture(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: weight)
    return likeness(method(forgetful, images, targets), images.mean(dim=1))


def _first_target_alone(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    return _forgotten(model, layer, weight, method, likeness, images, targets[:1].expand(len(images)))


def _correlation_whatever_is_asked(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    return _forgotten(model, layer, weight, method, _correlation, images, targets)


def _answers_of_the_model(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    return _forgotten(model, layer, weight, method, likeness, images, model(images).argmax(dim=1))


def _likeness_of_answers(
    model: nn.Module, layer: str, weight: Tensor, method: Method, likeness: Likeness, images: Tensor, targets: Tensor
) -> Tensor:
    forgetful = _changed(model, layer, lambda own: weight)
    return likeness(model(images)[:, None], forgetful(images)[:, None])


_FORGOTTEN = Exercise(
    name="forgotten_likeness",
    number="11.3",
    title="Forget, and compare",
    prompt="Given a model, the name of a layer and a new weight for it, a method (model, images, targets) -> maps, a "
    "likeness (maps, maps) -> (N), pictures and targets, return how alike each picture's map is with the model's own "
    "weight and with the new one: (N). Leave the model as it was.",
    reference=_forgotten,
    cases=_networks_that_forget,
    alternatives=(_by_state, _and_back),
    mistakes=(
        Mistake(
            _with_itself,
            "Everything comes out as for two equal maps: both networks had the same weights when you asked them. "
            "Either the copy shares its weights (`copy.deepcopy` makes one that does not), or the new weight never "
            "arrived in it: `x = weight` only gives a new meaning to `x`, `.data.copy_(weight)` writes into the layer.",
        ),
        Mistake(
            _own_answers,
            "You explain what the forgetful network answers. Then two things differ, the weights and the question, and "
            "you cannot tell which one changed the map. Ask both for `targets`.",
        ),
        Mistake(
            _zeros_for_weights,
            "You set the weight to zero. Nothing passes such a layer, so the map is empty whatever the method is "
            "worth. Put `weight` there: random numbers of the usual size.",
        ),
        Mistake(
            _added,
            "You add the new weight to the old one. The network still knows half of what it knew. Replace it.",
        ),
        Mistake(
            _in_training,
            "The forgetful network is in training mode: its BatchNorm takes the statistics of the batch, so more than "
            "one layer has changed. Call `.eval()`, or copy the network as it is.",
        ),
        Mistake(
            _every_layer,
            "More has changed than the weight of `layer`. Which layer a map depends on shows only if the others stay.",
        ),
        Mistake(
            _unlikeness,
            "This is 1 less the likeness: how *unlike* the maps are. Return the likeness itself.",
        ),
        Mistake(
            _sizes_compared,
            "You compare the maps by their squared difference. A network with other weights has slopes of another "
            "size, and that is no difference one could see in a picture. Use `likeness`.",
        ),
        Mistake(
            _mean_likeness,
            "You return the mean over the pictures. Return one number for each: how much they scatter belongs to the "
            "result.",
        ),
        Mistake(
            _with_the_picture,
            "You compare the map with the picture. That is a good question too: does it show the picture's own edges? "
            "Asked is how alike it is to the map before.",
        ),
        Mistake(
            _first_target_alone,
            "You take the first picture's target for all of them. Each has its own: `targets` is (N).",
        ),
        Mistake(
            _correlation_whatever_is_asked,
            "You take the correlation of the two maps. How alike they are is measured by the `likeness` that you are "
            "given, which may be another.",
        ),
        Mistake(
            _answers_of_the_model,
            "You explain the class that the network gives. Asked is `targets`, for both networks.",
        ),
        Mistake(
            _likeness_of_answers,
            "You compare what the two networks *answer*. Of course they differ. The question is whether the *maps* do: "
            "let `method` make them.",
        ),
    ),
    hints=(
        "Two networks are needed, and the first must stay as it is: `copy.deepcopy(model)` makes the second.",
        "`network.get_submodule(layer).weight` is the parameter. `.data.copy_(weight)` writes new numbers into it.",
        "Call `method` twice, with the same pictures and targets, and hand both stacks of maps to `likeness`.",
    ),
)


# --- 11.4: the deletion curve ------------------------------------------------------------------------------------


def _networks_maps_and_baselines() -> dict[str, tuple[nn.Module, Tensor, Tensor, Tensor, Tensor, int]]:
    random = torch.Generator().manual_seed(14)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    return {
        "three pictures in four steps": (
            _network(3, 24, 5, seed=6),
            uniform(3, 3, 4, 6),
            torch.randn(3, 4, 6, generator=random),
            torch.tensor([4, 1, 0]),
            uniform(3, 3, 4, 6),
            4,
        ),
        "one picture of one channel, pixel by pixel": (
            _network(1, 6, 3, seed=7, size=0.8),
            uniform(1, 1, 2, 3),
            uniform(1, 2, 3),
            torch.tensor([2]),
            torch.full((1, 1, 2, 3), 0.5),
            6,
        ),
    }


def _places(maps: Tensor) -> Tensor:
    """The place of each pixel in the order from the brightest down, as a map."""
    return maps.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view_as(maps)


def _curve(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baseline: Tensor,
    steps: int,
    gone: Callable[[int], Tensor],
    score: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(dim=1),
) -> Tensor:
    """The scores after each of the steps, where `gone(k)` (N, H, W) has been replaced after k pixels."""
    found, pixels = [], images[0, 0].numel()
    with torch.no_grad():
        for step in range(steps + 1):
            shown = torch.where(gone(step * pixels // steps)[:, None], baseline, images)
            found.append(_logit(score(model(shown)), targets))
    return torch.stack(found, dim=1)


@torch.no_grad()
def _deletion_curve(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    # Twice: the place of each pixel in the order, not which pixel is at each place.
    places = maps.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view_as(maps)
    scores = []
    for step in range(steps + 1):
        gone = places < step * maps[0].numel() // steps
        shown = torch.where(gone[:, None], baseline, images)
        scores.append(model(shown).softmax(dim=1).gather(1, targets[:, None])[:, 0])
    return torch.stack(scores, dim=1)


def _by_thresholds(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    ordered = maps.flatten(1).sort(dim=1, descending=True).values

    def gone(count: int) -> Tensor:
        if count == 0:
            return torch.zeros_like(maps, dtype=torch.bool)
        return maps >= ordered[:, count - 1, None, None]

    return _curve(model, images, targets, baseline, steps, gone)


def _pixel_after_pixel(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    rows = []
    each = maps[0].numel() // steps
    for image, one, target, other in zip(images, maps, targets, baseline, strict=True):
        shown, order = image.clone().flatten(1), one.flatten().argsort(descending=True)
        row = [model(image[None]).softmax(dim=1)[0, target]]
        for part in order.split(each):
            shown[:, part] = other.flatten(1)[:, part]
            row.append(model(shown.view_as(image)[None]).softmax(dim=1)[0, target])
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _darkest_first(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, -maps, targets, baseline, steps)


def _insertion_curve(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, baseline, maps, targets, images, steps)


def _logits_on_the_way(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places = _places(maps)
    return _curve(model, images, targets, baseline, steps, lambda count: places < count, lambda logits: logits)


def _logarithms(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, baseline, steps).log()


def _order_for_places(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    order = maps.flatten(1).argsort(dim=1, descending=True).view_as(maps)
    return _curve(model, images, targets, baseline, steps, lambda count: order < count)


def _only_the_last_step(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places, each = _places(maps), maps[0].numel() // steps
    return _curve(*(model, images, targets, baseline, steps), lambda count: (places < count) & (places >= count - each))


def _one_order_for_all(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps[:1].expand_as(maps), targets, baseline, steps)


def _without_the_start(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, baseline, steps)[:, 1:]


def _without_the_end(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, baseline, steps)[:, :-1]


def _steps_in_rows(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, baseline, steps).T


def _black_instead(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, torch.zeros_like(baseline), steps)


def _whoever_wins(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places = _places(maps)
    every = [
        _curve(model, images, torch.full_like(targets, k), baseline, steps, lambda count: places < count)
        for k in range(model(images).shape[1])
    ]
    return torch.stack(every).amax(dim=0)


def _first_target_on_the_way(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets[:1].expand(len(images)), baseline, steps)


def _own_answer_on_the_way(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, model(images).argmax(dim=1), baseline, steps)


def _mean_on_the_way(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, baseline, steps).mean(dim=1)


def _mean_of_the_pictures(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, baseline, steps).mean(dim=0)


def _falls_on_the_way(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    found = _deletion_curve(model, images, maps, targets, baseline, steps)
    return found[:, :1] - found


def _by_size(model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return _deletion_curve(model, images, maps.abs(), targets, baseline, steps)


def _by_brightness(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    pixels, top = maps[0].numel(), maps.amax(dim=(1, 2), keepdim=True)
    return _curve(model, images, targets, baseline, steps, lambda count: maps > (1 - count / pixels) * top)


def _one_too_many(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places = _places(maps)
    return _curve(model, images, targets, baseline, steps, lambda count: places <= count)


def _places_in_the_batch(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places, pixels = maps.flatten().argsort(descending=True).argsort().view_as(maps), maps[0].numel()
    return _curve(
        *(model, images, targets, baseline, steps), lambda count: places < count * len(maps) * pixels // pixels
    )


def _from_the_end(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _deletion_curve(model, images, maps, targets, baseline, steps).flip(1)


def _one_pixel_a_step(
    model: nn.Module, images: Tensor, maps: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places, pixels = _places(maps), maps[0].numel()
    return _curve(model, images, targets, baseline, steps, lambda count: places < count * steps // pixels)


_DELETION = Exercise(
    name="deletion_curve",
    number="11.4",
    title="The deletion curve",
    prompt="Given a model, pictures (N, C, H, W), maps (N, H, W), targets (N), a baseline (N, C, H, W) and a number of "
    "steps that divides the number of pixels, return the probability of each picture's own target after each step k = "
    "0, ..., steps, when the share k / steps of its pixels, the brightest in its map first, is taken from the "
    "baseline: (N, steps + 1). No two numbers of a map are equal.",
    reference=_deletion_curve,
    cases=_networks_maps_and_baselines,
    alternatives=(_by_thresholds, _pixel_after_pixel),
    mistakes=(
        Mistake(
            _darkest_first,
            "You take away the *darkest* pixels first. That is a test as well (the answer should survive for long), "
            "but here the brightest go first.",
        ),
        Mistake(
            _insertion_curve,
            "This is the insertion curve: you begin with the baseline, and put the picture in. Begin with the picture, "
            "and put the baseline in.",
        ),
        Mistake(
            _logits_on_the_way,
            "These are logits. Their size differs from picture to picture, so their curves cannot be averaged: here "
            "the probability is asked for, behind the softmax.",
        ),
        Mistake(_logarithms, "You take the logarithm of the probability. Asked is the probability itself."),
        Mistake(
            _order_for_places,
            "`argsort` says *which pixel* is at each place of the order. To compare with a count you need at which "
            "*place* each pixel is: `argsort` of that, once more.",
        ),
        Mistake(
            _only_the_last_step,
            "In each step you take away the pixels of that step alone, and the earlier ones come back. What is gone "
            "stays gone.",
        ),
        Mistake(
            _one_order_for_all,
            "You use the first map's order for every picture. Each has its own map: sort along `dim=1` of the "
            "flattened maps.",
        ),
        Mistake(
            _without_the_start,
            "The first point is missing: step 0, the picture as it is. With `steps` steps there are `steps + 1` "
            "points.",
        ),
        Mistake(
            _without_the_end,
            "The last point is missing, where all is baseline. `range(steps)` ends one before: with `steps` steps "
            "there are `steps + 1` points.",
        ),
        Mistake(_steps_in_rows, "Right, but turned: (steps + 1, N). Stack along `dim=1`."),
        Mistake(
            _black_instead,
            "You put zeros in place of the pixels. Take them from `baseline`: what stands there decides much of such a "
            "curve, as you will see.",
        ),
        Mistake(
            _whoever_wins,
            "You take the largest probability at each step, of whatever class. It may never fall: some class always "
            "wins. Follow the target.",
        ),
        Mistake(
            _first_target_on_the_way,
            "You take the first picture's target for all of them. Each has its own: `targets` is (N).",
        ),
        Mistake(
            _own_answer_on_the_way,
            "You follow the class that the network gives at the start. Asked is `targets`.",
        ),
        Mistake(
            _mean_on_the_way,
            "You return the mean of each curve, which is nearly its area. That comes later: return the curves.",
        ),
        Mistake(
            _mean_of_the_pictures,
            "You return the mean curve of all pictures. Return one curve for each.",
        ),
        Mistake(
            _falls_on_the_way,
            "You return by how much the probability has *fallen*. Asked is what is left of it.",
        ),
        Mistake(
            _by_size,
            "You sort by absolute values, so pixels that speak *against* the class go first as well. The brightest is "
            "the largest number, with its sign.",
        ),
        Mistake(
            _by_brightness,
            "You take away what is brighter than a share of the maximum. How many pixels that are is another number in "
            "every map. Count pixels: after step k the share k / steps of them is gone.",
        ),
        Mistake(
            _one_too_many,
            "There is one pixel too many in every step, and one gone before the first: places begin at 0, so after k "
            "pixels those with a place *below* k are gone.",
        ),
        Mistake(
            _places_in_the_batch,
            "You sort the pixels of the whole batch together, so a faint map loses its pixels last. Each map has an "
            "order of its own: `dim=1` of the flattened maps.",
        ),
        Mistake(
            _from_the_end,
            "The curve is the wrong way round: it should begin with the picture as it is, and end with the baseline.",
        ),
        Mistake(
            _one_pixel_a_step,
            "You take away one pixel a step. It should be the share 1 / steps of all pixels, so that none is left at "
            "the end.",
        ),
    ),
    hints=(
        "At which place does each pixel stand, from the brightest down? `maps.flatten(1).argsort(dim=1, "
        "descending=True)` says the reverse, which pixel stands at each place. What is `argsort` of that?",
        "With the places as maps (N, H, W), the pixels that are gone after step k are those with a place below "
        "k H W / steps.",
        "`torch.where(gone[:, None], baseline, images)` is the picture after that step.",
        "Collect the probabilities of the targets step by step, from 0 to `steps`, and stack them along `dim=1`.",
    ),
)

EXERCISES = (_INTERVENTION, _POINTS_AT, _FORGOTTEN, _DELETION)
