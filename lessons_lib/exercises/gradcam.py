"""The exercises of chapter 6, Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exercise import Exercise, Mistake

Head = Callable[[Tensor], Tensor]
Size = tuple[int, int]

# --- 6.1: how much each channel matters --------------------------------------------------------------------------


def _heads_and_activations() -> dict[str, tuple[Head, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made: not from the reader's numbers
        five = _random_head((4, 3, 4), classes=5, seed=1)
        three = _random_head((3, 4, 2), classes=3, seed=2).requires_grad_(False)
    return {
        "three pictures with different targets": (
            five,
            torch.randn(3, 4, 3, 4, generator=random),
            torch.tensor([4, 0, 2]),
        ),
        "one picture and a frozen head": (three, torch.randn(1, 3, 4, 2, generator=random), torch.tensor([1])),
        "two pictures and a linear head": (
            _mean_of_votes,
            torch.randn(2, 4, 3, 2, generator=random),
            torch.tensor([2, 0]),
        ),
    }


def _random_head(shape: tuple[int, int, int], *, classes: int, seed: int, bias: float = 0.0) -> nn.Sequential:
    random = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    last = nn.Linear(channels * height * width, classes)
    head = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.Tanh(), nn.Flatten(), last)
    for parameter in head.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=random)
    last.bias.data += bias
    return head.eval()


def _mean_of_votes(activations: Tensor) -> Tensor:
    """A head as in class activation maps: the mean over places, then one linear layer."""
    weights = torch.tensor([[0.7, -0.4, 0.2, 0.9], [-0.6, 0.8, 0.5, -0.3], [0.4, 0.3, -0.9, 0.6]])
    return activations.mean(dim=(2, 3)) @ weights.T + 2


def _alphas(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    asking = activations.detach().clone().requires_grad_()
    scores = head(asking).gather(1, targets[:, None])
    # No picture's score depends on another's activations: of their sum each picture gets its own gradient.
    (gradients,) = torch.autograd.grad(scores.sum(), asking)
    return gradients.mean(dim=(2, 3))


def _picture_by_picture(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    rows = []
    for maps, target in zip(activations, targets, strict=True):
        asking = maps[None].clone().requires_grad_()
        head(asking)[0, target].backward(inputs=[asking])
        assert asking.grad is not None
        rows.append(asking.grad[0].flatten(1).mean(dim=1))
    return torch.stack(rows)


def _by_vjp(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    logits, pull, *_ = torch.func.vjp(head, activations)
    (gradients,) = pull(functional.one_hot(targets, logits.shape[1]).to(logits))
    return torch.einsum("nchw->nc", gradients) / gradients[0, 0].numel()


def _scores(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0]


def _gradients(head: Head, activations: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of a function of the logits, summed, with respect to the activations."""
    asking = activations.detach().clone().requires_grad_()
    (gradients,) = torch.autograd.grad(objective(head(asking)).sum(), asking)
    return gradients


def _own_gradients(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: _scores(logits, targets))


def _sum_over_places(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets).sum(dim=(2, 3))


def _largest_place(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets).amax(dim=(2, 3))


def _mean_of_sizes(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets).abs().mean(dim=(2, 3))


def _size_of_the_mean(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _alphas(head, activations, targets).abs()


def _positive_gradients_only(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets).relu().mean(dim=(2, 3))


def _positive_means_only(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _alphas(head, activations, targets).relu()


def _times_activation(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return (_own_gradients(head, activations, targets) * activations).mean(dim=(2, 3))


def _means_of_activations(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return activations.mean(dim=(2, 3))


def _mean_over_channels(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets).mean(dim=1)


def _mean_over_pictures_too(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets).mean(dim=(0, 2, 3))


def _mean_of_scores(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _alphas(head, activations, targets) / len(activations)


def _first_target_for_all(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: logits[:, targets[0]]).mean(dim=(2, 3))


def _first_picture_alone(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: logits[0, targets[0]]).mean(dim=(2, 3))


def _everybodys_targets(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: logits[:, targets]).mean(dim=(2, 3))


def _winning_class(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: logits.amax(dim=1)).mean(dim=(2, 3))


def _sum_of_logits(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: logits).mean(dim=(2, 3))


def _of_the_probability(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: _scores(logits.softmax(dim=1), targets)).mean(dim=(2, 3))


def _of_the_log_probability(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: _scores(logits.log_softmax(dim=1), targets)).mean(dim=(2, 3))


def _of_the_loss(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: functional.cross_entropy(logits, targets)).mean(dim=(2, 3))


def _softmax_over_channels(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _alphas(head, activations, targets).softmax(dim=1)


def _shares_of_the_channels(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    found = _alphas(head, activations, targets)
    return found / found.sum(dim=1, keepdim=True)


def _gradient_of_length_one(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    gradients = _own_gradients(head, activations, targets)
    return (gradients / (gradients.square().mean().sqrt() + 1e-5)).mean(dim=(2, 3))


def _places_kept(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets)


def _ones_kept(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _own_gradients(head, activations, targets).mean(dim=(2, 3), keepdim=True)


def _ones_squeezed_away(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(_own_gradients(head, activations, targets), 1).squeeze()


def _nobody_asks(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    (gradients,) = torch.autograd.grad(_scores(head(activations), targets).sum(), activations)
    return gradients.mean(dim=(2, 3))


def _several_numbers(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    asking = activations.detach().clone().requires_grad_()
    return torch.autograd.grad(_scores(head(asking), targets), asking)[0].mean(dim=(2, 3))


def _nothing_in_grad(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    _scores(head(activations), targets).sum().backward()  # type: ignore[no-untyped-call]
    return activations.grad.mean(dim=(2, 3))  # type: ignore[union-attr]


def _no_record_kept(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    asking = activations.detach().clone().requires_grad_()
    with torch.no_grad():
        scores = _scores(head(asking), targets)
    return torch.autograd.grad(scores.sum(), asking)[0].mean(dim=(2, 3))


def _targets_for_pictures(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: logits[targets]).mean(dim=(2, 3))


def _targets_of_one_dimension(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _gradients(head, activations, lambda logits: logits.gather(1, targets)).mean(dim=(2, 3))


_ALPHAS = Exercise(
    name="alphas",
    number="6.1",
    title="How much each channel matters",
    prompt="Return the gradient of each picture's own target logit with respect to its activations (N, C, h, w), "
    "averaged over the places: (N, C). Leave nothing behind in the head.",
    reference=_alphas,
    cases=_heads_and_activations,
    alternatives=(_picture_by_picture, _by_vjp),
    mistakes=(
        Mistake(
            _sum_over_places,
            "You add up over the places. Asked is their mean, as in the paper. In a map that is divided by its maximum "
            "the difference does not show; in the weights it does.",
        ),
        Mistake(
            _largest_place,
            "You take the place with the largest gradient, as if the others did not count. Each channel gets one "
            "weight for all its places: their mean.",
        ),
        Mistake(
            _mean_of_sizes,
            "You take absolute values before the mean. A channel that helps at one place and harms at another would "
            "matter much, where in sum it changes little. Keep the signs.",
        ),
        Mistake(
            _size_of_the_mean,
            "The signs are lost: a channel that speaks *against* the class gets the weight of one that speaks for it, "
            "and lights up in the map.",
        ),
        Mistake(
            _positive_gradients_only,
            "You cut off negative gradients before the mean. A ReLU comes later, and once: over the finished sum of "
            "the channels. Here the mean is over all places.",
        ),
        Mistake(
            _positive_means_only,
            "You cut off negative weights. A channel that speaks against the class has to darken the map where it is "
            "on: keep its sign. The ReLU comes later, over the sum of the channels.",
        ),
        Mistake(
            _times_activation,
            "You multiply by the activation already. That comes in the next step, place by place. Here the question "
            "is only how the score changes with the channel.",
        ),
        Mistake(
            _means_of_activations,
            "These are the means of the activations themselves: how active each channel is. The class has no say in "
            "them. Take the gradient of its score.",
        ),
        Mistake(
            _mean_over_channels,
            "You average over the channels, and keep the places. It is the other way round: one number for each "
            "channel, averaged over rows and columns.",
        ),
        Mistake(
            _mean_over_pictures_too,
            "You average over the pictures as well, as many tutorials do that only ever have one. Each picture has "
            "weights of its own.",
        ),
        Mistake(
            _mean_of_scores,
            "You take the mean of the scores: in a batch of N pictures each gradient comes out N times too small. What "
            "a picture's gradient is must not depend on how many others come with it.",
        ),
        Mistake(
            _first_target_for_all,
            "You take the first picture's target for all of them. Each picture has its own: `targets` is (N,).",
        ),
        Mistake(
            _first_picture_alone,
            "You explain the first picture only, so the others get no gradient. Each picture's own score has to be in "
            "what you differentiate.",
        ),
        Mistake(
            _everybodys_targets,
            "`logits[:, targets]` is (N, N): every picture is asked for everybody's targets. From each row exactly one "
            "number is wanted: look at `gather`, or index rows and columns together.",
        ),
        Mistake(
            _winning_class,
            "You explain the class that wins in each picture. Asked is `targets`: one may well want to know why it is "
            "*not* another.",
        ),
        Mistake(
            _sum_of_logits,
            "You differentiate the sum of all classes. From each row of the logits take one: its target.",
        ),
        Mistake(
            _of_the_probability,
            "You take the probability, behind the softmax. It also rises where *other* classes fall, and near 0 or 1 "
            "its gradient is almost gone. Take the logit.",
        ),
        Mistake(
            _of_the_log_probability,
            "You take the logarithm of the probability. It also rises where *other* classes fall, so their channels "
            "get into the map. Take the logit.",
        ),
        Mistake(
            _of_the_loss,
            "You differentiate the loss of training. It falls where the class gains, so your signs are turned round, "
            "all classes have a say in it, and it is a mean over the batch besides. Take the logit.",
        ),
        Mistake(
            _softmax_over_channels,
            "You send the weights through a softmax: all become positive, and a channel that speaks against the class "
            "speaks for it now. Leave them as they are.",
        ),
        Mistake(
            _shares_of_the_channels,
            "You divide by the sum over the channels. Where that is negative all signs turn round, and near 0 the "
            "weights explode. Leave them as they are.",
        ),
        Mistake(
            _gradient_of_length_one,
            "You normalize the gradient, with one number for the whole batch. Some old code does; the paper does not, "
            "and a picture's weights would depend on the others. Leave the gradient as it is.",
        ),
        Mistake(
            _places_kept,
            "This is the gradient at every place, (N, C, h, w). One step is left: the mean over the places.",
        ),
        Mistake(
            _ones_kept,
            "Right, but rows and columns are still there, with length 1. Asked is (N, C): leave out `keepdim`.",
        ),
        Mistake(
            _ones_squeezed_away,
            "Right, but `squeeze()` takes away every dimension of size 1, and for a single picture the batch is one. "
            "Name the dimensions that are to go.",
        ),
        Mistake(
            _nobody_asks,
            "PyTorch keeps a record of what was computed only from tensors that ask for it, and these activations do "
            "not. Let a copy of them ask, with `requires_grad_()`, before the head sees it.",
        ),
        Mistake(
            _nothing_in_grad,
            "Nothing has arrived in `.grad`: PyTorch brings gradients only to tensors that ask for them, and these "
            "activations do not. Let a copy of them ask, with `requires_grad_()`, before the head sees it.",
        ),
        Mistake(
            _no_record_kept,
            "The scores come without a record of how they were computed, so there is no way back. Is there a "
            "`torch.no_grad()` around the head, or a `detach()` behind it?",
        ),
        Mistake(
            _targets_for_pictures,
            "You take `targets` for the numbers of pictures. Logits are (N, K): rows are pictures, columns are "
            "classes, and from row n you want column `targets[n]`.",
        ),
        Mistake(
            _targets_of_one_dimension,
            "`gather` wants its index with as many dimensions as the logits have: (N, 1), a column with one number for "
            "each row.",
        ),
        Mistake(
            _several_numbers,
            "There is one score for each picture, and PyTorch differentiates one number. Which single number has the "
            "right gradient for every picture, if no score depends on another picture's activations?",
        ),
    ),
    hints=(
        "Let a copy of the activations ask for a gradient, and hand it to `head`: out come the logits, (N, K).",
        "From row n take column `targets[n]`: `gather(1, targets[:, None])` does that for all rows at once.",
        "Differentiate the sum of these N scores with `torch.autograd.grad`: every picture gets its own gradient, for "
        "no score depends on another picture.",
        "The gradient is (N, C, h, w). Rows and columns are its dimensions 2 and 3.",
    ),
)


# --- 6.2: the map ------------------------------------------------------------------------------------------------


def _activations_weights_and_sizes() -> dict[str, tuple[Tensor, Tensor, Size]]:
    random = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    empty = torch.tensor([[0.8, -0.5, 0.6], [-0.4, -0.9, -0.7]])
    everywhere = 0.4 + torch.rand(2, 3, 4, 3, generator=random)
    return {
        "two pictures": (normal(2, 4, 4, 5).relu(), normal(2, 4), (11, 13)),
        "a map that is negative everywhere, beside another": (0.2 + normal(2, 3, 3, 4).abs(), empty, (7, 10)),
        "one picture, and activations below 0 too": (normal(1, 5, 3, 3), normal(1, 5), (8, 5)),
        "maps that are positive everywhere": (everywhere, torch.tensor([[0.5, 0.9, -0.1], [2.0, 1.0, 3.0]]), (9, 8)),
    }


def _cam_map(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    maps = (weights[:, :, None, None] * activations).sum(dim=1).relu()
    large = functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    highest = large.amax(dim=(1, 2), keepdim=True)
    # A map of zeros is divided by 1: that nothing speaks for the class is an answer, not a division by zero.
    return large / torch.where(highest > 0, highest, 1.0)


def _map_by_map(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    found = torch.zeros(len(activations), *size)
    for number, (maps, own) in enumerate(zip(activations, weights, strict=True)):
        total = torch.zeros_like(maps[0])
        for weight, one in zip(own, maps, strict=True):
            total = total + weight * one
        large = functional.interpolate(total.clamp(min=0)[None, None], size, mode="bilinear")[0, 0]
        if large.max() > 0:
            found[number] = large / large.max()
    return found


def _by_products(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    maps = torch.einsum("nc,nchw->nhw", weights, activations).relu()
    down, across = (_bilinear(a, b) for a, b in zip(maps.shape[1:], size, strict=True))
    large = down @ maps @ across.T
    return large / large.flatten(1).max(dim=1).values.clamp(min=1e-12)[:, None, None]


def _bilinear(small: int, large: int) -> Tensor:
    """The matrix (large, small) that enlarges one side: each row holds the shares of the two places nearest to it."""
    at = ((torch.arange(large) + 0.5) * small / large - 0.5).clamp(0, small - 1)
    return (1 - (at[:, None] - torch.arange(small)).abs()).relu()


def _weighted_sum(activations: Tensor, weights: Tensor) -> Tensor:
    return (weights[:, :, None, None] * activations).sum(dim=1)


def _enlarged(maps: Tensor, size: Size) -> Tensor:
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _highest(maps: Tensor) -> Tensor:
    return maps.amax(dim=(1, 2), keepdim=True)


def _lowest(maps: Tensor) -> Tensor:
    return maps.amin(dim=(1, 2), keepdim=True)


def _safely(maps: Tensor, by: Tensor) -> Tensor:
    return maps / torch.where(by > 0, by, 1.0)


def _no_relu(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights), size)
    return large / _highest(large)


def _no_relu_but_safe(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights), size)
    return _safely(large, _highest(large))


def _relu_of_each_channel(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged((weights[:, :, None, None] * activations).relu().sum(dim=1), size)
    return _safely(large, _highest(large))


def _relu_of_the_weights(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations, weights.relu(), size)


def _relu_of_the_activations(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations.relu(), weights, size)


def _size_of_the_sum(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights).abs(), size)
    return _safely(large, _highest(large))


def _size_of_the_weights(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations, weights.abs(), size)


def _stretched(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights), size)
    return (large - _lowest(large)) / (_highest(large) - _lowest(large))


def _stretched_after_relu(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights).relu(), size)
    return _safely(large - _lowest(large), _highest(large) - _lowest(large))


def _empty_map_divided(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights).relu(), size)
    return large / _highest(large)


def _highest_of_the_batch(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights).relu(), size)
    return large / large.max()


def _highest_of_each_row(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights).relu(), size)
    return _safely(large, large.amax(dim=2, keepdim=True))


def _not_divided(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _enlarged(_weighted_sum(activations, weights).relu(), size)


def _cut_off_at_one(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _not_divided(activations, weights, size).clamp(0, 1)


def _divided_too_early(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    maps = _weighted_sum(activations, weights).relu()
    return _enlarged(_safely(maps, _highest(maps)), size)


def _relu_too_late(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights), size).relu()
    return _safely(large, _highest(large))


def _divided_by_the_sum(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _not_divided(activations, weights, size)
    return _safely(large, large.sum(dim=(1, 2), keepdim=True))


def _divided_by_the_length(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _not_divided(activations, weights, size)
    return _safely(large, large.square().sum(dim=(1, 2), keepdim=True).sqrt())


def _softmax_of_places(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged(_weighted_sum(activations, weights), size)
    return large.flatten(1).softmax(dim=1).view_as(large)


def _sigmoid_of_the_sum(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _enlarged(_weighted_sum(activations, weights), size).sigmoid()


def _in_squares(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    maps = _weighted_sum(activations, weights).relu()
    large = functional.interpolate(maps[:, None], size, mode="nearest")[:, 0]
    return _safely(large, _highest(large))


def _bicubic(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    maps = _weighted_sum(activations, weights).relu()
    large = functional.interpolate(maps[:, None], size, mode="bicubic", align_corners=False)[:, 0]
    return _safely(large, _highest(large))


def _corners_upon_corners(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    maps = _weighted_sum(activations, weights).relu()
    large = functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=True)[:, 0]
    return _safely(large, _highest(large))


def _left_small(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    maps = _weighted_sum(activations, weights).relu()
    return _safely(maps, _highest(maps))


def _width_first(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations, weights, size[::-1])


def _channel_kept(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations, weights, size)[:, None]


def _batch_squeezed(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations, weights, size).squeeze()


def _weights_forgotten(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations, torch.ones_like(weights), size)


def _strongest_channel(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    large = _enlarged((weights[:, :, None, None] * activations).amax(dim=1).relu(), size)
    return _safely(large, _highest(large))


def _first_weights_for_all(activations: Tensor, weights: Tensor, size: Size) -> Tensor:
    return _cam_map(activations, weights[:1].expand_as(weights), size)


_CAM_MAP = Exercise(
    name="cam_map",
    number="6.2",
    title="From weights to a map",
    prompt="Return the sum of the activations (N, C, h, w) weighted by `weights` (N, C), what is above 0 of it, "
    "enlarged bilinearly to `size` (H, W) and divided by each map's own maximum: (N, H, W). A map of zeros stays one.",
    reference=_cam_map,
    cases=_activations_weights_and_sizes,
    alternatives=(_map_by_map, _by_products),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _no_relu,
            "There is no ReLU. Below 0 stands what speaks against the class. And a map that is below 0 everywhere is "
            "divided by a negative number: all of it turns round and shines.",
        ),
        Mistake(
            _no_relu_but_safe,
            "There is no ReLU: what speaks against the class is still in the map, below 0. Cut it off before you "
            "enlarge.",
        ),
        Mistake(
            _relu_of_each_channel,
            "You cut each channel off by itself, before the sum. Then what speaks against the class can no longer "
            "take anything away. First the sum over the channels, then one ReLU.",
        ),
        Mistake(
            _relu_of_the_weights,
            "You cut off the negative weights. Channels that speak against the class have to darken the map: first "
            "the whole sum, then the ReLU.",
        ),
        Mistake(
            _relu_of_the_activations,
            "You cut off the activations, not their sum. Some layers have numbers below 0, and these count like the "
            "others. The ReLU comes after the sum.",
        ),
        Mistake(
            _size_of_the_sum,
            "You take absolute values: what speaks against the class shines like what speaks for it. Cut it off.",
        ),
        Mistake(
            _size_of_the_weights,
            "You take the absolute values of the weights: channels that speak against the class now speak for it.",
        ),
        Mistake(
            _stretched,
            "You stretch every map from its minimum to its maximum. Then a map in which *nothing* speaks for the class "
            "comes out as a full one: its least bad place shines. Zero must stay zero: ReLU, then only divide.",
        ),
        Mistake(
            _stretched_after_relu,
            "You subtract the minimum. Where the whole map is above 0, its lowest place becomes black, as if nothing "
            "spoke for the class there. Zero must stay zero: only divide.",
        ),
        Mistake(
            _empty_map_divided,
            "A map of zeros is divided by its maximum, 0 by 0. It has to stay a map of zeros: that nothing speaks for "
            "the class is an answer.",
        ),
        Mistake(
            _highest_of_the_batch,
            "You divide by the maximum of the whole batch: a picture's map gets darker when a stronger one comes with "
            "it. Each map has its own maximum.",
        ),
        Mistake(
            _highest_of_each_row,
            "You divide each row of pixels by its own maximum, so every row shines somewhere. One maximum for each "
            "map: over rows and columns.",
        ),
        Mistake(
            _not_divided,
            "The map is not divided by its maximum: it has to lie between 0 and 1 to be drawn, and its best place is "
            "1.",
        ),
        Mistake(
            _cut_off_at_one,
            "You cut the map off at 1. All that is above becomes equal, and a faint map stays faint. Divide by the "
            "maximum.",
        ),
        Mistake(
            _divided_too_early,
            "You divide first and enlarge then. Bilinear enlarging takes means of neighbours, so the peak sinks below "
            "1. Divide last.",
        ),
        Mistake(
            _relu_too_late,
            "You enlarge first and cut off then. Near the edge of what speaks for the class, negative neighbours pull "
            "the map down. Cut off the small map, then enlarge it.",
        ),
        Mistake(
            _divided_by_the_sum,
            "You divide by the sum, so the map becomes the darker the larger it is. Divide by the maximum.",
        ),
        Mistake(
            _divided_by_the_length,
            "You divide by the root of the sum of squares. Divide by the maximum: the best place is 1.",
        ),
        Mistake(
            _softmax_of_places,
            "You take a softmax over the places. It makes something of nothing: also a map without any place that "
            "speaks for the class gets a best one. ReLU, then divide.",
        ),
        Mistake(
            _sigmoid_of_the_sum,
            "You take a sigmoid: 0, where nothing is said about the class, becomes 0.5. ReLU, then divide.",
        ),
        Mistake(
            _in_squares,
            'Your map consists of squares: it is enlarged by the nearest place. Ask for `mode="bilinear"`.',
        ),
        Mistake(
            _bicubic,
            "You enlarge bicubically. That overshoots, and makes what is below 0 out of what was not. Asked is "
            "bilinear.",
        ),
        Mistake(
            _corners_upon_corners,
            "You put corners upon corners (`align_corners=True`). A place of the map stands for a *patch* of the "
            "picture, and the middle of the corner patch is not the corner. Leave it `False`.",
        ),
        Mistake(
            _left_small,
            "The map is as small as the layer. Enlarge it to `size` before you divide.",
        ),
        Mistake(
            _width_first,
            "Height and width have changed places: `size` is (H, W) already, as PyTorch wants it.",
        ),
        Mistake(
            _channel_kept,
            "Right, but the channel that `interpolate` needed is still there: (N, 1, H, W). Take it away.",
        ),
        Mistake(
            _batch_squeezed,
            "Right, but `squeeze()` takes away every dimension of size 1, and for a single picture the batch is one. "
            "Name the dimension that is to go.",
        ),
        Mistake(
            _weights_forgotten,
            "You add the activations up as they are. The class has a say only through `weights`.",
        ),
        Mistake(
            _strongest_channel,
            "You take the largest channel at each place. Grad-CAM adds them all up: several weak ones can outvote one.",
        ),
        Mistake(
            _first_weights_for_all,
            "You take the first picture's weights for all pictures. Each picture has its own row.",
        ),
    ),
    hints=(
        "Give the weights two more dimensions, `weights[:, :, None, None]`, so that each meets its map. Multiply, and "
        "sum over dimension 1.",
        "ReLU of the sum, once. Then `functional.interpolate`: it wants a channel, so hand over `maps[:, None]` and "
        "take the channel away behind it.",
        "The maximum of each map: `amax(dim=(1, 2), keepdim=True)`. With `keepdim` it fits to the maps.",
        "A maximum of 0 cannot divide. Divide by 1 there (`torch.where`), or by something tiny: 0 stays 0.",
    ),
)


# --- 6.3: guided Grad-CAM ----------------------------------------------------------------------------------------


def _guided_and_maps() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(6)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    mixed = normal(3, 3, 4)
    mixed[1] = -mixed[1].abs() - 0.1
    return {
        "three pictures, one whose map is negative everywhere": (normal(3, 3, 8, 11), mixed),
        "a single picture": (normal(1, 3, 10, 7), 0.1 * normal(1, 4, 3)),
    }


def _guided_grad_cam(guided: Tensor, maps: Tensor) -> Tensor:
    large = functional.interpolate(maps.relu()[:, None], guided.shape[2:], mode="bilinear", align_corners=False)
    return guided * large  # the map has one channel: it is the same for red, green and blue


def _pictures_one_by_one(guided: Tensor, maps: Tensor) -> Tensor:
    size = (guided.shape[2], guided.shape[3])
    return torch.stack([one * _enlarged(m[None].clamp(min=0), size) for one, m in zip(guided, maps, strict=True)])


def _guided_by_products(guided: Tensor, maps: Tensor) -> Tensor:
    down, across = (_bilinear(a, b) for a, b in zip(maps.shape[1:], guided.shape[2:], strict=True))
    return torch.einsum("nchw,nhw->nchw", guided, down @ maps.relu() @ across.T)


def _fitted(maps: Tensor, guided: Tensor) -> Tensor:
    return _enlarged(maps, (guided.shape[2], guided.shape[3]))


def _squares_over_it(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * functional.interpolate(maps.relu()[:, None], guided.shape[2:], mode="nearest")


def _bicubic_over_it(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * functional.interpolate(maps.relu()[:, None], guided.shape[2:], mode="bicubic", align_corners=False)


def _corners_over_corners(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * functional.interpolate(maps.relu()[:, None], guided.shape[2:], mode="bilinear", align_corners=True)


def _signed_map(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * _fitted(maps, guided)[:, None]


def _size_of_the_map(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * _fitted(maps.abs(), guided)[:, None]


def _cut_off_when_large(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * _fitted(maps, guided).relu()[:, None]


def _positive_guided(guided: Tensor, maps: Tensor) -> Tensor:
    return _guided_grad_cam(guided.relu(), maps)


def _size_of_guided(guided: Tensor, maps: Tensor) -> Tensor:
    return _guided_grad_cam(guided.abs(), maps)


def _positive_product(guided: Tensor, maps: Tensor) -> Tensor:
    return _signed_map(guided, maps).relu()


def _map_up_to_one(guided: Tensor, maps: Tensor) -> Tensor:
    large = _fitted(maps.relu(), guided)
    return guided * _safely(large, _highest(large))[:, None]


def _map_stretched(guided: Tensor, maps: Tensor) -> Tensor:
    large = _fitted(maps, guided)
    return guided * ((large - _lowest(large)) / (_highest(large) - _lowest(large)))[:, None]


def _map_up_to_one_before(guided: Tensor, maps: Tensor) -> Tensor:
    upward = maps.relu()
    return guided * _fitted(upward / _highest(upward).clamp(min=1e-9), guided)[:, None]


def _first_map_for_all(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * _fitted(maps[:1].relu(), guided)[:, None]


def _product_up_to_one(guided: Tensor, maps: Tensor) -> Tensor:
    product = _guided_grad_cam(guided, maps)
    return product / product.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-9)


def _batch_up_to_one(guided: Tensor, maps: Tensor) -> Tensor:
    large = _fitted(maps.relu(), guided)
    return guided * (large / large.max())[:, None]


def _colours_added(guided: Tensor, maps: Tensor) -> Tensor:
    return _guided_grad_cam(guided, maps).sum(dim=1)


def _colours_averaged(guided: Tensor, maps: Tensor) -> Tensor:
    return _guided_grad_cam(guided, maps).mean(dim=1)


def _largest_colour(guided: Tensor, maps: Tensor) -> Tensor:
    return _guided_grad_cam(guided, maps).abs().amax(dim=1)


def _sum_of_the_two(guided: Tensor, maps: Tensor) -> Tensor:
    return guided + _fitted(maps.relu(), guided)[:, None]


def _cut_out(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * (_fitted(maps.relu(), guided) > 0)[:, None]


def _product_enlarged(guided: Tensor, maps: Tensor) -> Tensor:
    small = functional.interpolate(guided, maps.shape[1:], mode="bilinear", align_corners=False)
    return functional.interpolate(small * maps.relu()[:, None], guided.shape[2:], mode="bilinear", align_corners=False)


def _pictures_upon_colours(guided: Tensor, maps: Tensor) -> Tensor:
    return guided * _fitted(maps.relu(), guided)


def _map_alone(guided: Tensor, maps: Tensor) -> Tensor:
    return _fitted(maps.relu(), guided)[:, None].expand_as(guided)


_GUIDED_GRAD_CAM = Exercise(
    name="guided_cam",
    number="6.3",
    title="Where, times what",
    prompt="Return guided backpropagation (N, 3, H, W) times what is above 0 of the raw maps (N, h, w), enlarged "
    "bilinearly to (H, W): (N, 3, H, W), signed.",
    reference=_guided_grad_cam,
    cases=_guided_and_maps,
    alternatives=(_pictures_one_by_one, _guided_by_products),
    mistakes=(
        Mistake(
            _squares_over_it,
            "Your map is made of squares: it is enlarged by the nearest place, and its edges cut through the fine "
            'lines of the other. Ask for `mode="bilinear"`.',
        ),
        Mistake(
            _bicubic_over_it,
            "You enlarge the map bicubically. That overshoots, below 0 too, and turns signs round. Asked is bilinear.",
        ),
        Mistake(
            _corners_over_corners,
            "You put corners upon corners (`align_corners=True`): the map lies a little off. Leave it `False`.",
        ),
        Mistake(
            _signed_map,
            "There is no ReLU over the map. Where it is below 0 the signs of guided backpropagation turn round, and "
            "what speaks against the class is shown as well.",
        ),
        Mistake(
            _size_of_the_map,
            "You take the absolute value of the map: what speaks against the class is shown like what speaks for it. "
            "Cut it off.",
        ),
        Mistake(
            _cut_off_when_large,
            "You enlarge first and cut off then. Near the edge of what speaks for the class, negative neighbours pull "
            "the map down. Cut off the small map, then enlarge it.",
        ),
        Mistake(
            _positive_guided,
            "You cut off guided backpropagation as well. It is signed: a pixel that should become darker counts as "
            "much as one that should become brighter. The ReLU belongs to the map.",
        ),
        Mistake(
            _size_of_guided,
            "You take absolute values of guided backpropagation: brighter and darker become the same. Keep its signs.",
        ),
        Mistake(
            _positive_product,
            "You take the ReLU of the product. It hides half of what guided backpropagation says, and where both are "
            "negative it lets pass what should be gone. The ReLU belongs to the map alone, before the product.",
        ),
        Mistake(
            _map_up_to_one,
            "You bring the map to a maximum of 1 first. A good way to draw it, but asked is the map as strong as it "
            "came: a faint explanation stays faint.",
        ),
        Mistake(
            _map_stretched,
            "You stretch the map from its minimum to its maximum: places that speak against the class get a weight "
            "above 0. Only cut off what is below 0.",
        ),
        Mistake(
            _map_up_to_one_before,
            "You divide each map by its maximum before you enlarge it. The prompt asks for the raw maps, as large as "
            "they came.",
        ),
        Mistake(
            _first_map_for_all,
            "You lay the first picture's map over all of them. Each picture has its own.",
        ),
        Mistake(
            _product_up_to_one,
            "You divide the product by its largest number. Leave it as it comes; what draws it can do that.",
        ),
        Mistake(
            _batch_up_to_one,
            "You divide by the maximum of the batch: a picture's answer would depend on the others. Do not divide.",
        ),
        Mistake(
            _colours_added,
            "You add up the colours. Keep them: what is wanted is a picture, (N, 3, H, W).",
        ),
        Mistake(
            _colours_averaged,
            "You take the mean over the colours. Keep them: what is wanted is a picture, (N, 3, H, W).",
        ),
        Mistake(
            _largest_colour,
            "You take the largest of the colours, as in a saliency map. Keep all three, with their signs: "
            "(N, 3, H, W).",
        ),
        Mistake(
            _sum_of_the_two,
            "You add the two. Then each shows also where the other is silent. A product asks both: *where* and *what*.",
        ),
        Mistake(
            _cut_out,
            "You use the map as a stencil, on or off. It also says *how much* each place matters: multiply by it.",
        ),
        Mistake(
            _product_enlarged,
            "You multiply at the size of the map and enlarge the product. The fine lines of guided backpropagation "
            "are lost on the way. Enlarge the map instead.",
        ),
        Mistake(
            _pictures_upon_colours,
            "The map of a picture has met a *colour*: broadcasting counts dimensions from the last, and for (N, H, W) "
            "the first of them stands where colours do. Give the maps a channel of length 1.",
        ),
        Mistake(
            _map_alone,
            "This is the map alone, three times. Multiply it by guided backpropagation.",
        ),
    ),
    hints=(
        "The map says where and is coarse. Guided backpropagation says what and is fine. Which one has to be enlarged?",
        "ReLU the small map, then enlarge it to `guided.shape[2:]`, as in the exercise before.",
        "Before the product the map is (N, 1, H, W), so that it meets all three colours of its own picture.",
    ),
)


# --- 6.4: take a channel away, and look --------------------------------------------------------------------------


class _AnswersTwice(nn.Module):
    """A head that refuses to be called more often than the exercise needs it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.calls = 0

    def forward(self, activations: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 2:
            raise RuntimeError("a third call of `head`: one is enough for the pictures, one for all copies in a batch")
        logits: Tensor = self.head(activations)
        return logits


def _heads_to_ablate() -> dict[str, tuple[Head, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(7)
    with torch.random.fork_rng(devices=[]):
        five = _random_head((4, 5, 3), classes=5, seed=8, bias=5.0)
        three = _random_head((3, 4, 4), classes=3, seed=9, bias=-4.0).requires_grad_(False)
        twice = _AnswersTwice(_random_head((4, 4, 3), classes=4, seed=10, bias=6.0))
    return {
        "two pictures with different targets": (
            five,
            0.2 + torch.rand(2, 4, 5, 3, generator=random),
            torch.tensor([3, 0]),
        ),
        "a score below 0 and a frozen head": (three, 0.2 + torch.rand(1, 3, 4, 4, generator=random), torch.tensor([2])),
        "two pictures and a linear head": (
            _mean_of_votes,
            torch.rand(2, 4, 4, 2, generator=random),
            torch.tensor([0, 1]),
        ),
        "a head that answers twice": (
            twice,
            0.2 + torch.rand(3, 4, 4, 3, generator=random),
            torch.tensor([1, 3, 0]),
        ),
    }


def _ablation_weights(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    count, channels = activations.shape[:2]
    kept = 1 - torch.eye(channels)  # row k keeps every channel but k
    ablated = activations[:, None] * kept[:, :, None, None]  # (N, C, C, h, w): C copies of each picture
    with torch.no_grad():
        scores = head(activations).gather(1, targets[:, None])
        # One batch: a call for each channel would do the same work in many small pieces, and take longer.
        logits = head(ablated.flatten(0, 1))
    without = logits.gather(1, targets.repeat_interleave(channels)[:, None]).view(count, channels)
    return (scores - without) / scores


def _copies_in_a_loop(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    batch, owners = [activations], [targets]
    for maps, target in zip(activations, targets, strict=True):
        for channel in range(len(maps)):
            copy = maps.clone()
            copy[channel] = 0
            batch.append(copy[None])
            owners.append(target[None])
    scores = _scores(head(torch.cat(batch)), torch.cat(owners))
    whole, without = scores[: len(activations), None], scores[len(activations) :].view(len(activations), -1)
    return 1 - without / whole


def _by_vmap(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    kept = 1 - torch.eye(activations.shape[1])
    without = torch.func.vmap(lambda row: _scores(head(activations * row.view(1, -1, 1, 1)), targets))(kept)
    whole = _scores(head(activations), targets)
    return ((whole - without) / whole).T


def _without_each(activations: Tensor) -> Tensor:
    """Copies (N, C, C, h, w) of the activations; in copy k of each picture channel k is 0."""
    kept = 1 - torch.eye(activations.shape[1])
    return activations[:, None] * kept[:, :, None, None]


def _two_scores(head: Head, copies: Tensor, activations: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The scores (N, 1) of the pictures, and those (N, C) of their copies (N, C, C, h, w)."""
    without = _scores(head(copies.flatten(0, 1)), targets.repeat_interleave(copies.shape[1]))
    return _scores(head(activations), targets)[:, None], without.view(copies.shape[:2])


def _lost_of(head: Head, copies: Tensor, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, copies, activations, targets)
    return (whole - without) / whole


def _one_after_the_other(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole = _scores(head(activations), targets)
    columns = []
    for channel in range(activations.shape[1]):
        copy = activations.clone()
        copy[:, channel] = 0
        columns.append((whole - _scores(head(copy), targets)) / whole)
    return torch.stack(columns, dim=1)


def _lost_in_points(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, _without_each(activations), activations, targets)
    return whole - without


def _score_without(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _two_scores(head, _without_each(activations), activations, targets)[1]


def _over_the_size(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, _without_each(activations), activations, targets)
    return (whole - without) / whole.abs()


def _share_that_is_left(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return 1 - _ablation_weights(head, activations, targets)


def _turned_round(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return -_ablation_weights(head, activations, targets)


def _over_what_is_left(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, _without_each(activations), activations, targets)
    return (whole - without) / without


def _brackets_forgotten(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, _without_each(activations), activations, targets)
    return whole - without / whole


def _sizes_of_losses(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _ablation_weights(head, activations, targets).abs()


def _losses_only(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _ablation_weights(head, activations, targets).relu()


def _shares_of_all_losses(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    found = _ablation_weights(head, activations, targets)
    return found / found.sum(dim=1, keepdim=True)


def _channel_alone(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    alone = activations[:, None] * torch.eye(activations.shape[1])[:, :, None, None]
    return _lost_of(head, alone, activations, targets)


def _mean_instead(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    own = torch.eye(activations.shape[1])[:, :, None, None]
    even = _without_each(activations) + own * activations.mean(dim=(2, 3), keepdim=True)[:, None]
    return _lost_of(head, even, activations, targets)


def _all_channels_gone(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _lost_of(head, torch.zeros_like(_without_each(activations)), activations, targets)


def _more_and_more_gone(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    channels = activations.shape[1]
    kept = torch.ones(channels, channels).triu(1)  # row k keeps what comes after k
    return _lost_of(head, activations[:, None] * kept[:, :, None, None], activations, targets)


def _nothing_gone(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _lost_of(head, activations[:, None].expand_as(_without_each(activations)), activations, targets)


def _row_of_pixels_gone(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    channels, height = activations.shape[1:3]
    kept = 1 - torch.eye(channels, height)
    return _lost_of(head, activations[:, None] * kept[:, None, :, None], activations, targets)


def _read_channels_first(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, _without_each(activations), activations, targets)
    return (whole - without.reshape(-1, len(whole)).T) / whole


def _laid_channels_first(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, _without_each(activations), activations, targets)
    return (whole - without.T.reshape(without.shape)) / whole


def _targets_in_another_order(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    copies = _without_each(activations)
    without = _scores(head(copies.flatten(0, 1)), targets.repeat(copies.shape[1])).view(copies.shape[:2])
    whole = _scores(head(activations), targets)[:, None]
    return (whole - without) / whole


def _pictures_in_another_order(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    copies = _without_each(activations).transpose(0, 1)
    without = _scores(head(copies.flatten(0, 1)), targets.repeat_interleave(len(copies))).view(copies.shape[:2])
    whole = _scores(head(activations), targets)[:, None]
    return (whole - without.T) / whole


def _score_without_a_dimension(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole, without = _two_scores(head, _without_each(activations), activations, targets)
    return (whole[:, 0] - without) / whole[:, 0]


def _first_target_ablated(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _ablation_weights(head, activations, targets[:1].expand_as(targets))


def _winner_ablated(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        return _ablation_weights(_copied(head), activations, head(activations).argmax(dim=1))


def _highest_score_left(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    whole = _scores(head(activations), targets)[:, None]
    without = head(_without_each(activations).flatten(0, 1)).amax(dim=1).view(len(whole), -1)
    return (whole - without) / whole


def _copied(head: Head) -> Head:
    return head.head if isinstance(head, _AnswersTwice) else head


def _probability_lost(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    return _ablation_weights(lambda maps: head(maps).softmax(dim=1), activations, targets)


def _by_the_gradient(head: Head, activations: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        whole = _scores(head(activations), targets)[:, None]
    return (_own_gradients(head, activations, targets) * activations).sum(dim=(2, 3)) / whole


_ABLATION_WEIGHTS = Exercise(
    name="ablation_weights",
    number="6.4",
    title="Take a channel away, and look",
    prompt="Return the share of its target logit that each picture loses when a channel of its activations "
    "(N, C, h, w) is set to 0, (N, C); with all N x C copies going through `head` in one batch.",
    reference=_ablation_weights,
    cases=_heads_to_ablate,
    alternatives=(_copies_in_a_loop, _by_vmap),
    mistakes=(
        Mistake(
            _one_after_the_other,
            "The numbers are right, but you call `head` more than twice. With 512 channels that takes far longer than "
            "it has to: once for the pictures as they are, and once for all N x C copies in one batch.",
        ),
        Mistake(
            _over_the_size,
            "You divide by the *size* of the score. Where a score is negative that is wiser, and the library does it, "
            "too. But the formula here is the paper's: divide by the score itself.",
        ),
        Mistake(
            _lost_in_points,
            "You do not divide. Asked is the *share* of the score that is lost, so that a sure picture and an unsure "
            "one can be compared.",
        ),
        Mistake(
            _score_without,
            "This is the score that is left. Asked is what is lost, as a share of the whole.",
        ),
        Mistake(
            _share_that_is_left,
            "This is the share that is *left*: near 1 for a channel that does not matter. Asked is the share that is "
            "lost.",
        ),
        Mistake(
            _turned_round,
            "You subtract the wrong way round. A channel that speaks for the class takes score with it when it goes: "
            "its weight is above 0.",
        ),
        Mistake(
            _over_what_is_left,
            "You divide by the score without the channel. Then every channel has another measure. Divide by the score "
            "of the whole picture.",
        ),
        Mistake(
            _brackets_forgotten,
            "Brackets: you divide only what is left, and subtract the quotient from the score. First the difference, "
            "then divide.",
        ),
        Mistake(
            _sizes_of_losses,
            "The signs are lost. Without some channels the score *rises*: these speak against the class, and their "
            "weight is below 0.",
        ),
        Mistake(
            _losses_only,
            "You cut off the weights below 0. Channels that speak against the class keep them; the ReLU comes later, "
            "over the map.",
        ),
        Mistake(
            _shares_of_all_losses,
            "You divide by the sum of all losses. Where that is negative all signs turn round. Divide by the score.",
        ),
        Mistake(
            _channel_alone,
            "You keep channel k and take away all others. Asked is the opposite: all but channel k. A mask of ones "
            "with zeros on its diagonal keeps them.",
        ),
        Mistake(
            _mean_instead,
            "You set the channel to its mean. Then how active it is stays, and only *where* is lost. Asked is 0.",
        ),
        Mistake(
            _all_channels_gone,
            "In your copies all channels are 0, so each takes the whole picture with it. Do you index the copy where "
            "you want the channel, or write all zeros into one and the same tensor? Each channel needs a fresh copy.",
        ),
        Mistake(
            _more_and_more_gone,
            "A channel that you took away stays away: in copy k all channels up to k are gone. Start each copy from "
            "the whole activations.",
        ),
        Mistake(
            _nothing_gone,
            "No channel makes a difference: to `head` your copies are like the pictures. Either nothing was taken away "
            "in what goes into `head`. Or everything was, in the pictures too: `expand` makes no copies, all of them "
            "are the same memory. Use `repeat`, or `.clone()` behind it, or multiply by a mask.",
        ),
        Mistake(
            _row_of_pixels_gone,
            "You set a row of every map to 0, not a channel: one dimension too far. In (N, copies, C, h, w) the "
            "channel is the third.",
        ),
        Mistake(
            _read_channels_first,
            "Your batch goes picture by picture: all copies of the first, then all of the second. You read the scores "
            "as if it went channel by channel, and they end up with other pictures. `view` to (N, C) at once.",
        ),
        Mistake(
            _laid_channels_first,
            "Your batch goes channel by channel: all pictures without the first channel, then all without the second. "
            "You read the scores as if it went picture by picture. `view` to (C, N), then turn round.",
        ),
        Mistake(
            _targets_in_another_order,
            "The copies of one picture stand side by side, but the targets come in turn, so most copies are asked for "
            "another picture's class. `repeat` gives 0, 1, 0, 1; `repeat_interleave` gives 0, 0, 1, 1.",
        ),
        Mistake(
            _pictures_in_another_order,
            "In your batch the pictures come in turn, but equal targets stand side by side, so most copies are asked "
            "for another picture's class. `repeat` gives 0, 1, 0, 1; `repeat_interleave` gives 0, 0, 1, 1.",
        ),
        Mistake(
            _score_without_a_dimension,
            "The scores are (N,), what is left is (N, C), and broadcasting begins at the last dimension: pictures meet "
            "channels. Give the scores a second dimension.",
        ),
        Mistake(
            _first_target_ablated,
            "You take the first picture's target for all of them. Each picture has its own: `targets` is (N,).",
        ),
        Mistake(
            _winner_ablated,
            "You take the class that wins in each picture. Asked is `targets`.",
        ),
        Mistake(
            _highest_score_left,
            "For the copies you take whatever class is highest. A copy is asked for the target of its picture: who "
            "wins instead does not matter.",
        ),
        Mistake(
            _probability_lost,
            "You take the probability, behind the softmax. It also falls where *other* classes rise, and of a sure "
            "picture it hardly moves. Take the logit.",
        ),
        Mistake(
            _by_the_gradient,
            "You predict the loss by gradient times activation. That is exact where all behind is linear, and only "
            "there. Ablation does not predict: it takes the channel away and looks.",
        ),
    ),
    hints=(
        "For one picture: C copies of its activations, in copy k channel k is 0. Multiply by a mask (C, C) of ones "
        "with zeros on the diagonal, `1 - torch.eye(C)`.",
        "For all at once: `activations[:, None]` is (N, 1, C, h, w), the mask with two dimensions behind is "
        "(C, C, 1, 1). Their product is (N, C, C, h, w).",
        "`flatten(0, 1)` makes one batch of N x C for `head`, picture by picture. So each target is needed C times "
        "in a row: `repeat_interleave`.",
        "Bring what comes out to (N, C). The scores of the whole pictures are (N, 1): subtract, divide by them.",
    ),
)


# --- 6.5: Grad-CAM++ ---------------------------------------------------------------------------------------------


def _activations_and_gradients() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(11)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    mixed = 0.1 * normal(2, 3, 3, 4)
    mixed[1, 0] = -mixed[1, 0].abs()
    sparse = 0.3 * normal(2, 3, 3, 3).relu()
    sparse[1, 2] = 0
    tiny = torch.rand(1, 3, 5, 4, generator=random) - 0.4
    silent = normal(1, 4, 4, 2).relu()
    silent[0, 1] = 0
    return {
        "two pictures, gradients of both signs": (
            normal(2, 3, 3, 4).relu(),
            _away_from_poles(mixed),
        ),
        "gradients that are 0 at many places": (normal(2, 3, 3, 3).relu(), sparse),
        "a silent channel": (silent, _away_from_poles(0.1 * normal(1, 4, 4, 2))),
        "gradients of about 0.0001": (normal(1, 3, 5, 4).relu(), 1e-4 * (tiny + 0.8 * tiny.sign())),
    }


def _away_from_poles(gradients: Tensor) -> Tensor:
    """Negative gradients made small: where one is minus two over the sum of the activations, the formula divides by 0.

    The positive part decides about the answer, but right ways to write it would differ at such a place.
    """
    return torch.where(gradients < 0, 0.3 * gradients, gradients)


def _plus_plus_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    squared, cubed = gradients**2, gradients**3
    below = 2 * squared + whole * cubed
    # Where the gradient is 0, so is what is above and below: divide by 1 there.
    shares = squared / torch.where(gradients != 0, below, 1.0)
    return (shares * gradients.relu()).sum(dim=(2, 3))


def _shortened(activations: Tensor, gradients: Tensor) -> Tensor:
    upward = gradients.clamp(min=0)
    return (upward / (2 + activations.sum(dim=(2, 3), keepdim=True) * upward)).sum(dim=(2, 3))


def _channel_by_channel(activations: Tensor, gradients: Tensor) -> Tensor:
    found = torch.zeros(activations.shape[:2])
    for picture in range(found.shape[0]):
        for channel in range(found.shape[1]):
            own, whole = gradients[picture, channel], activations[picture, channel].sum()
            g = own[own > 0].double()
            found[picture, channel] = (g**2 / (2 * g**2 + whole * g**3) * g).sum()
    return found


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    return torch.where(below != 0, above / torch.where(below != 0, below, 1.0), 0.0)


def _shares(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _quotient(gradients**2, 2 * gradients**2 + whole * gradients**3)


def _weighed(shares: Tensor, gradients: Tensor) -> Tensor:
    return (shares * gradients.relu()).sum(dim=(2, 3))


def _negative_gradients_too(activations: Tensor, gradients: Tensor) -> Tensor:
    return (_shares(activations, gradients) * gradients).sum(dim=(2, 3))


def _sizes_of_gradients(activations: Tensor, gradients: Tensor) -> Tensor:
    return (_shares(activations, gradients) * gradients.abs()).sum(dim=(2, 3))


def _relu_of_the_total(activations: Tensor, gradients: Tensor) -> Tensor:
    return _negative_gradients_too(activations, gradients).relu()


def _mean_of_places(activations: Tensor, gradients: Tensor) -> Tensor:
    return (_shares(activations, gradients) * gradients.relu()).mean(dim=(2, 3))


def _activation_of_the_place(activations: Tensor, gradients: Tensor) -> Tensor:
    return _weighed(_quotient(gradients**2, 2 * gradients**2 + activations * gradients**3), gradients)


def _mean_of_the_activations(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.mean(dim=(2, 3), keepdim=True)
    return _weighed(_quotient(gradients**2, 2 * gradients**2 + whole * gradients**3), gradients)


def _activations_of_all_channels(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(1, 2, 3), keepdim=True)
    return _weighed(_quotient(gradients**2, 2 * gradients**2 + whole * gradients**3), gradients)


def _activations_of_all_pictures(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(0, 2, 3), keepdim=True)
    return _weighed(_quotient(gradients**2, 2 * gradients**2 + whole * gradients**3), gradients)


def _every_share_one(activations: Tensor, gradients: Tensor) -> Tensor:
    return gradients.relu().sum(dim=(2, 3))


def _plain_mean(activations: Tensor, gradients: Tensor) -> Tensor:
    return gradients.mean(dim=(2, 3))


def _shares_alone(activations: Tensor, gradients: Tensor) -> Tensor:
    return _shares(activations, gradients).sum(dim=(2, 3))


def _zero_over_zero(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(gradients**2 / (2 * gradients**2 + whole * gradients**3), gradients)


def _two_missing(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(_quotient(gradients**2, gradients**2 + whole * gradients**3), gradients)


def _square_for_cube(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(_quotient(gradients**2, 2 * gradients**2 + whole * gradients**2), gradients)


def _cubes_added_up(activations: Tensor, gradients: Tensor) -> Tensor:
    cubes = (activations.sum(dim=(2, 3)) * (gradients**3).sum(dim=(2, 3)))[:, :, None, None]
    return _weighed(_quotient(gradients**2, 2 * gradients**2 + cubes), gradients)


def _products_added_up(activations: Tensor, gradients: Tensor) -> Tensor:
    products = (activations * gradients**3).sum(dim=(2, 3), keepdim=True)
    return _weighed(_quotient(gradients**2, 2 * gradients**2 + products), gradients)


def _gradient_above(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(_quotient(gradients, 2 * gradients**2 + whole * gradients**3), gradients)


def _minus_below(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(_quotient(gradients**2, 2 * gradients**2 - whole * gradients**3), gradients)


def _epsilon_that_swamps(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(gradients**2 / (2 * gradients**2 + whole * gradients**3 + 1e-6), gradients)


def _epsilon_of_keras(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(gradients**2 / (2 * gradients**2 + whole * gradients**3 + 1e-7), gradients)


def _smaller_epsilon_that_swamps(activations: Tensor, gradients: Tensor) -> Tensor:
    whole = activations.sum(dim=(2, 3), keepdim=True)
    return _weighed(gradients**2 / (2 * gradients**2 + whole * gradients**3 + 1e-8), gradients)


def _shares_made_one(activations: Tensor, gradients: Tensor) -> Tensor:
    shares = torch.where(gradients > 0, _shares(activations, gradients), 0.0)
    return _weighed(_quotient(shares, shares.sum(dim=(2, 3), keepdim=True)), gradients)


def _one_share_for_all_places(activations: Tensor, gradients: Tensor) -> Tensor:
    return _shares(activations, gradients).sum(dim=(2, 3)) * gradients.relu().sum(dim=(2, 3))


def _still_a_map(activations: Tensor, gradients: Tensor) -> Tensor:
    return _shares(activations, gradients) * gradients.relu()


def _lengths_of_one_kept(activations: Tensor, gradients: Tensor) -> Tensor:
    return _plus_plus_weights(activations, gradients)[:, :, None, None]


_PLUS_PLUS_WEIGHTS = Exercise(
    name="plus_plus_weights",
    number="6.5",
    title="Grad-CAM++",
    prompt="Return Grad-CAM++'s weight of each channel, (N, C), from activations of 0 or more and their gradients g, "
    "both (N, C, h, w): the sum over the places of a times relu(g), with a = g^2 / (2 g^2 + S g^3), S the sum of "
    "the channel's activations, and a = 0 where g is 0.",
    reference=_plus_plus_weights,
    cases=_activations_and_gradients,
    alternatives=(_shortened, _channel_by_channel),
    mistakes=(
        Mistake(
            _negative_gradients_too,
            "There is no ReLU over the gradient. Here only places count where *more* of the channel raises the score.",
        ),
        Mistake(
            _sizes_of_gradients,
            "You take absolute values of the gradient: places where more of the channel lowers the score count as if "
            "they raised it. Take its ReLU.",
        ),
        Mistake(
            _relu_of_the_total,
            "The ReLU comes too late: in the sum negative places have taken from the positive ones already. Take it "
            "at each place, over the gradient.",
        ),
        Mistake(
            _mean_of_places,
            "You take the mean over the places. In Grad-CAM++ it is a sum: `a` does already what the mean did.",
        ),
        Mistake(
            _activation_of_the_place,
            "Beside the cube stands the activation of the place itself. There belongs the sum over *all* places of "
            "the channel, S.",
        ),
        Mistake(
            _mean_of_the_activations,
            "You take the mean of the activations. In the formula stands their sum over the places.",
        ),
        Mistake(
            _activations_of_all_channels,
            "You add up the activations of all channels together. Each channel has its own sum, over its places.",
        ),
        Mistake(
            _activations_of_all_pictures,
            "You add up the activations of all pictures together: a picture's weights would depend on who comes with "
            "it. Sum over rows and columns only.",
        ),
        Mistake(
            _every_share_one,
            "`a` is missing: you add up the positive gradients, every place with the same share.",
        ),
        Mistake(
            _plain_mean,
            "These are the weights of plain Grad-CAM, the mean of the gradient. Where is `a`?",
        ),
        Mistake(
            _shares_alone,
            "You add up `a` alone. It says how a place counts; *what* counts is the ReLU of the gradient. Multiply.",
        ),
        Mistake(
            _zero_over_zero,
            "Where the gradient is 0, `a` is 0 over 0. One such place, and the whole channel is NaN. There `a` has "
            "to be 0.",
        ),
        Mistake(
            _two_missing,
            "The factor 2 below is missing. It comes from the product rule, used twice on the way to the formula.",
        ),
        Mistake(
            _square_for_cube,
            "Beside the sum of the activations stands the *cube* of the gradient. With the square `a` would be the "
            "same at all places of a channel.",
        ),
        Mistake(
            _cubes_added_up,
            "You add up the cubes too. Only the activations are added up over the places; the cube belongs to the "
            "place, as the squares do.",
        ),
        Mistake(
            _products_added_up,
            "You multiply activation by cube at each place and add up these products. The sum runs over the "
            "activations alone; the cube of the place stands before it.",
        ),
        Mistake(
            _gradient_above,
            "Above the line you have the gradient itself. Its square belongs there, as below.",
        ),
        Mistake(
            _minus_below,
            "You subtract below, where the formula adds.",
        ),
        Mistake(
            _epsilon_that_swamps,
            "You add 1e-6 below, against division by zero. But the square of a gradient of 0.0001 is 1e-8: what you "
            "added is a hundred times larger, and `a` all but vanishes. Treat the zeros apart, with `torch.where`.",
        ),
        Mistake(
            _epsilon_of_keras,
            "You add 1e-7 below, against division by zero. The square of a gradient of 0.0001 is 1e-8: what you added "
            "is ten times larger, and `a` far too low. Treat the zeros apart, with `torch.where`.",
        ),
        Mistake(
            _smaller_epsilon_that_swamps,
            "You add 1e-8 below, against division by zero. The square of a gradient of 0.0001 is as small, so `a` "
            "is too low there. Treat the zeros apart, with `torch.where`.",
        ),
        Mistake(
            _shares_made_one,
            "You divide `a` by its sum, so that it makes 1 in every channel. Some code does, but equation 19 does not.",
        ),
        Mistake(
            _one_share_for_all_places,
            "You add up `a` and the gradients apart, and multiply the sums. Each place has its own `a`: multiply "
            "first, then add up.",
        ),
        Mistake(
            _still_a_map,
            "These are the terms of the sum, one for each place. Add them up over rows and columns.",
        ),
        Mistake(
            _lengths_of_one_kept,
            "Right, but rows and columns are still there, with length 1. Asked is (N, C).",
        ),
    ),
    hints=(
        "The sum of each channel's activations, with `keepdim=True`, is (N, C, 1, 1): so it meets the gradients.",
        "Only places with a gradient above 0 count in the end, and there what is below the line is above 0, too. "
        "Elsewhere put 1 in its place, with `torch.where`, so that nothing divides by 0.",
        "`a` times the ReLU of the gradient, summed over dimensions 2 and 3.",
        "Or shorten the fraction by the square first: what is left below the line is never 0 where the gradient is "
        "above 0.",
    ),
)


# --- 6.6: a box around it ----------------------------------------------------------------------------------------


def _maps_and_shares() -> dict[str, tuple[Tensor, float]]:
    random = torch.Generator().manual_seed(12)
    two = 0.05 + 0.1 * torch.rand(2, 9, 13, generator=random)
    two[0, 2:5, 6:11] = 0.6 + 0.3 * torch.rand(3, 5, generator=random)
    two[0, 3, 8] = 0.9
    two[0, 7, 2] = 0.47
    two[1, 5:7, 3:9] = 0.25 + 0.1 * torch.rand(2, 6, generator=random)
    two[1, 3, 4] = 0.19
    exact = torch.zeros(2, 8, 11)
    exact[0, 3:5, 4:6] = 1.0
    exact[0, 2, 5] = exact[0, 4, 8] = 0.5
    exact[0, 6, 9] = 0.375
    exact[1, 4, 2:4] = 0.5
    exact[1, 6, 3] = exact[1, 4, 1] = 0.25
    exact[1, 2, 6] = 0.125
    apart = torch.zeros(2, 10, 7)
    apart[0, 1, 5] = 1.0
    apart[0, 7, 1:3] = 0.7
    apart[0, 9, 6] = 0.1
    corner = 0.3 + 0.2 * torch.rand(1, 6, 9, generator=random)
    corner[0, 5, 8] = 1.0
    corner[0, 4, 7] = 0.72
    corner[0, 3, 6] = 0.66
    return {
        "two maps, one fainter than the other": (two, 0.5),
        "pixels of exactly the share": (exact, 0.5),
        "two bright spots apart, and a map of zeros": (apart, 0.6),
        "a single map, bright in the corner": (corner, 0.7),
    }


def _box_of(maps: Tensor, share: float) -> Tensor:
    boxes = torch.zeros(len(maps), 4, dtype=torch.long)
    for number, one in enumerate(maps):
        if one.max() > 0:  # in a map of zeros every pixel would be at least a share of 0
            rows, columns = (one >= share * one.max()).nonzero(as_tuple=True)
            boxes[number] = torch.stack([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
    return boxes


def _without_a_loop(maps: Tensor, share: float) -> Tensor:
    highest = maps.amax(dim=(1, 2), keepdim=True)
    inside = (maps >= share * highest) & (highest > 0)
    (top, bottom), (left, right) = (_first_and_last(inside.any(dim=dim)) for dim in (2, 1))
    return torch.stack([top, left, bottom, right], dim=1)


def _first_and_last(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Of lines (N, L) the first that is inside, and the one behind the last; 0 and 0 where none is."""
    length = inside.shape[1]
    after = length - inside.flip(1).to(torch.uint8).argmax(dim=1)
    return inside.to(torch.uint8).argmax(dim=1), torch.where(inside.any(dim=1), after, 0)


def _pixel_by_pixel(maps: Tensor, share: float) -> Tensor:
    boxes = []
    for one in maps.tolist():
        limit = share * max(map(max, one))
        inside = [(i, j) for i, row in enumerate(one) for j, value in enumerate(row) if limit > 0 and value >= limit]
        rows, columns = [i for i, _ in inside] or [0], [j for _, j in inside] or [0]
        end = 1 if inside else 0
        boxes.append([min(rows), min(columns), max(rows) + end, max(columns) + end])
    return torch.tensor(boxes)


def _boxes(inside: Tensor, order: Callable[[int, int, int, int], tuple[int, ...]] | None = None) -> Tensor:
    """Around what is inside (N, H, W), with what `order` makes of the first and last row and column in it."""
    boxes = torch.zeros(len(inside), 4, dtype=torch.long)
    for number, one in enumerate(inside):
        if one.any():
            rows, columns = one.nonzero(as_tuple=True)
            found = (int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max()))
            boxes[number] = torch.tensor(order(*found) if order else (found[0], found[1], found[2] + 1, found[3] + 1))
    return boxes


def _inside(maps: Tensor, share: float) -> Tensor:
    return (maps >= share * _highest(maps)) & (_highest(maps) > 0)


def _last_included(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share), lambda top, left, low, right: (top, left, low, right))


def _all_one_more(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share), lambda top, left, low, right: (top + 1, left + 1, low + 1, right + 1))


def _columns_first(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share), lambda top, left, low, right: (left, top, right + 1, low + 1))


def _rows_then_columns(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share), lambda top, left, low, right: (top, low + 1, left, right + 1))


def _columns_then_rows(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share), lambda top, left, low, right: (left, right + 1, top, low + 1))


def _sizes_instead(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share), lambda top, left, low, right: (top, left, low + 1 - top, right + 1 - left))


def _bottom_first(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share), lambda top, left, low, right: (low + 1, right + 1, top, left))


def _share_of_the_batch(maps: Tensor, share: float) -> Tensor:
    return _boxes((maps >= share * maps.max()) & (maps > 0))


def _share_itself(maps: Tensor, share: float) -> Tensor:
    return _boxes(maps >= share)


def _only_above(maps: Tensor, share: float) -> Tensor:
    return _boxes(maps > share * _highest(maps))


def _all_but_nothing(maps: Tensor, share: float) -> Tensor:
    return _boxes(maps > 0)


def _best_pixel(maps: Tensor, share: float) -> Tensor:
    return _boxes((maps == _highest(maps)) & (maps > 0))


def _above_the_mean(maps: Tensor, share: float) -> Tensor:
    return _boxes(maps > maps.mean(dim=(1, 2), keepdim=True))


def _share_of_the_range(maps: Tensor, share: float) -> Tensor:
    low, high = _lowest(maps), _highest(maps)
    return _boxes((maps >= low + share * (high - low)) & (high > 0))


def _share_of_the_pixels(maps: Tensor, share: float) -> Tensor:
    limits = maps.flatten(1).quantile(share, dim=1)[:, None, None]
    return _boxes((maps >= limits) & (_highest(maps) > 0))


def _share_turned_round(maps: Tensor, share: float) -> Tensor:
    return _boxes((maps >= (1 - share) * _highest(maps)) & (_highest(maps) > 0))


def _below_the_share(maps: Tensor, share: float) -> Tensor:
    return _boxes(maps <= share * _highest(maps))


def _nothing_is_everything(maps: Tensor, share: float) -> Tensor:
    return _boxes(maps >= share * _highest(maps))


def _nothing_raises(maps: Tensor, share: float) -> Tensor:
    boxes = []
    for one, inside in zip(maps, _inside(maps, share), strict=True):
        rows, columns = (inside & (one > 0)).nonzero(as_tuple=True)
        boxes.append(torch.stack([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]))
    return torch.stack(boxes)


def _nothing_is_one_pixel(maps: Tensor, share: float) -> Tensor:
    boxes = _box_of(maps, share)
    boxes[maps.amax(dim=(1, 2)) == 0] = torch.tensor([0, 0, 1, 1])
    return boxes


def _one_box_for_all(maps: Tensor, share: float) -> Tensor:
    return _boxes(_inside(maps, share).any(dim=0, keepdim=True)).expand(len(maps), -1)


def _between_first_and_last(maps: Tensor, share: float) -> Tensor:
    """From the first pixel in reading order to the last."""
    boxes = torch.zeros(len(maps), 4, dtype=torch.long)
    for number, one in enumerate(_inside(maps, share)):
        if one.any():
            places = one.nonzero()
            boxes[number] = torch.cat([places[0], places[-1] + 1])
    return boxes


_BOX_OF = Exercise(
    name="box_of",
    number="6.6",
    title="A box around it",
    prompt="Return for each map, (N, H, W), the smallest box around all pixels of at least `share` of that map's own "
    "maximum: (N, 4) whole numbers, top, left, bottom, right, the last two excluded. For a map of zeros the box is "
    "(0, 0, 0, 0).",
    reference=_box_of,
    cases=_maps_and_shares,
    alternatives=(_without_a_loop, _pixel_by_pixel),
    mistakes=(
        Mistake(
            _last_included,
            "Your box ends *at* its last row and column. Bottom and right are excluded, as in a slice: one more.",
        ),
        Mistake(
            _all_one_more,
            "You add 1 to all four. Only bottom and right lie behind the last pixel; top and left are the first.",
        ),
        Mistake(
            _columns_first,
            "Columns stand before rows: left, top, right, bottom. Many libraries count x first, but asked is top, "
            "left, bottom, right, as a tensor is indexed.",
        ),
        Mistake(
            _rows_then_columns,
            "Your order is top, bottom, left, right. Asked is top, left, bottom, right: first one corner, then the "
            "other.",
        ),
        Mistake(
            _columns_then_rows,
            "Your order is left, right, top, bottom. Asked is top, left, bottom, right: first one corner, then the "
            "other, rows before columns.",
        ),
        Mistake(
            _sizes_instead,
            "The last two of your numbers are height and width. Asked is where the box ends: bottom and right.",
        ),
        Mistake(
            _bottom_first,
            "Minimum and maximum have changed places: the box begins at the smallest row and column.",
        ),
        Mistake(
            _share_of_the_batch,
            "You compare with the maximum of the whole batch: in a fainter map hardly a pixel is left, or none. Each "
            "map has its own maximum.",
        ),
        Mistake(
            _share_itself,
            "You compare with `share` itself. Asked is that share of the map's own maximum, which need not be 1.",
        ),
        Mistake(
            _only_above,
            "You take the pixels *above* the share of the maximum. Those that equal it belong to the box too.",
        ),
        Mistake(
            _all_but_nothing,
            "Your box holds every pixel above 0, and `share` has no say. An enlarged map fades out slowly: that box "
            "is far too large.",
        ),
        Mistake(
            _best_pixel,
            "Your box holds the best pixel alone. All that have at least `share` of its value belong into it.",
        ),
        Mistake(
            _above_the_mean,
            "You compare with the mean of the map. Asked is a share of its maximum.",
        ),
        Mistake(
            _share_of_the_range,
            "You take the share of the way from minimum to maximum. Asked is a share of the maximum: 0 counts as "
            "nothing, whatever the minimum.",
        ),
        Mistake(
            _share_of_the_pixels,
            "You take `share` for a quantile: so many pixels, whatever their values. It is a share of the *maximum*: "
            "how bright, not how many.",
        ),
        Mistake(
            _share_turned_round,
            "Your limit is 1 - `share` of the maximum. A larger share has to give a smaller box.",
        ),
        Mistake(
            _below_the_share,
            "Your box is nearly all of the picture. That is what the pixels *darker* than the limit give, the "
            "background: turn the comparison round.",
        ),
        Mistake(
            _nothing_is_everything,
            "In a map of zeros the maximum is 0, and every pixel is at least a share of that: your box is the whole "
            "picture. Nothing was found there: (0, 0, 0, 0).",
        ),
        Mistake(
            _nothing_raises,
            "In a map of zeros there is no pixel to take a minimum of. Look for that case first.",
        ),
        Mistake(
            _nothing_is_one_pixel,
            "For a map of zeros your box holds one pixel, as 1 is added to the last row and column. There is none: "
            "(0, 0, 0, 0).",
        ),
        Mistake(
            _one_box_for_all,
            "You make one box for all maps. Each map has its own.",
        ),
        Mistake(
            _between_first_and_last,
            "You take the first and the last pixel in reading order as corners. The first is the topmost, but another "
            "may lie further left: rows and columns have a minimum each.",
        ),
    ),
    hints=(
        "First the mask: which pixels are at least `share` times the maximum of their own map? `amax(dim=(1, 2), "
        "keepdim=True)` gives one maximum for each map.",
        "`mask.nonzero(as_tuple=True)` on one map gives the rows and the columns of its pixels. Their smallest and "
        "largest are nearly the box.",
        "A box is used as a slice, `map[top:bottom, left:right]`: what is the end of a slice that holds the last row?",
        "Make the boxes as zeros of whole numbers first, `dtype=torch.long`, and fill in those of maps that are not "
        "empty.",
    ),
)

EXERCISES = (_ALPHAS, _CAM_MAP, _GUIDED_GRAD_CAM, _ABLATION_WEIGHTS, _PLUS_PLUS_WEIGHTS, _BOX_OF)
