"""What the loss looks like around a network: along a random direction, scaled filter by filter (Li et al., 2018).

Weights that are followed by a batch normalization can be doubled, and the network computes the same; then a step of one
length is half as far. A direction whose filters have the lengths of the network's own takes that into account.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import check_whole_number

Direction = list[Tensor]
"""A tensor for each parameter, in their order."""


def random_direction(network: nn.Module, seed: int = 0, *, filter_normalized: bool = True) -> Direction:
    """Random normal numbers, and 0 for biases and the scales of normalizations.

    Each filter, or row of a matrix, is scaled to the length of the network's own; without `filter_normalized` the whole
    direction is scaled to the length of all weights together. Raises TypeError for a seed that is no whole number.
    """
    check_whole_number("seed", seed)
    # Far from the seeds that networks are made from: the same numbers would point along the weights. (PyTorch takes 32
    # bits of a seed.)
    random = torch.Generator().manual_seed(2**31 + seed)
    weights = [parameter.detach() for parameter in network.parameters()]
    direction = [
        torch.randn(weight.shape, generator=random).to(weight) if weight.ndim > 1 else torch.zeros_like(weight)
        for weight in weights
    ]
    if not filter_normalized:
        length = _length([weight for weight in weights if weight.ndim > 1]) / _length(direction)
        return [part * length for part in direction]
    for part, weight in zip(direction, weights, strict=True):
        if weight.ndim > 1:
            own, drawn = weight.flatten(1).norm(dim=1), part.flatten(1).norm(dim=1)
            part.mul_((own / drawn).view(-1, *[1] * (weight.ndim - 1)))
    return direction


def _length(parts: Sequence[Tensor]) -> float:
    return float(sum(part.square().sum() for part in parts)) ** 0.5


@torch.no_grad()
def loss_around(
    network: nn.Module, images: Tensor, labels: Tensor, directions: Sequence[Direction], shares: Sequence[float]
) -> Tensor:
    """The mean cross-entropy at theta + a d for each a of `shares`: (K,); with two directions (K, K), the first down.

    Batch normalization takes the statistics of these very pictures, at each place anew; all else is as in evaluation.
    The network stays as it is. Raises ValueError where there are not one or two directions, or one does not fit.
    """
    if len(directions) not in (1, 2):
        raise ValueError(f"directions must be one or two, not {len(directions)}")
    shapes = [parameter.shape for parameter in network.parameters()]
    for direction in directions:
        if [part.shape for part in direction] != shapes:
            raise ValueError("directions must have a tensor for each parameter of the network, in its shape")
    moved = copy.deepcopy(network).eval()  # no dropout: the same loss each time
    for module in moved.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    start = [parameter.detach().clone() for parameter in moved.parameters()]
    losses = []
    for place in product(shares, repeat=len(directions)):
        for parameter, value, *parts in zip(moved.parameters(), start, *directions, strict=True):
            parameter.copy_(value)
            for share, part in zip(place, parts, strict=True):
                parameter.add_(part, alpha=share)
        losses.append(F.cross_entropy(moved(images), labels))
    return torch.stack(losses).view([len(shares)] * len(directions))
