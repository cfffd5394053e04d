"""Pictures made a little different each time they are learned from, a whole batch at once.

Each augmentation is a piece of data that is also a function: images (N, 3, H, W) in [0, 1] and a generator in,
images of the same shape out. Every picture gets draws of its own, and the generator is one of the CPU, so that a seed
makes the same pictures on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Flip:
    """Left and right exchanged, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_probability(self.p)

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        chosen = _draw(images, generator) < self.p
        return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


@dataclass(frozen=True)
class PadAndCrop:
    """Moved by up to `padding` pixels each way; what comes in is `fill`, or the mirrored picture where that is None."""

    padding: int = 4
    fill: float | None = 0.0

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding must be 0 or more, not {self.padding}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        n, _, height, width = images.shape
        reach = 2 * self.padding + 1
        down, across = (_draw(images, generator, 2) * reach).long().unbind(1)
        if self.fill is None:
            padded = F.pad(images, (self.padding,) * 4, mode="reflect")
        else:
            padded = F.pad(images, (self.padding,) * 4, value=self.fill)
        pixels = padded.permute(0, 2, 3, 1).reshape(-1, 3)
        rows = down.view(-1, 1, 1) + torch.arange(height, device=images.device).view(1, -1, 1)
        columns = across.view(-1, 1, 1) + torch.arange(width, device=images.device)
        first = torch.arange(n, device=images.device).view(-1, 1, 1) * (height + reach - 1)
        which = (first + rows) * (width + reach - 1) + columns
        return pixels.index_select(0, which.flatten()).view(n, height, width, 3).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ShiftScaleRotate:
    """With probability `p` moved by up to `shift` of the side, enlarged by up to 1 + `scale` or made smaller by as
    much, and turned by up to `rotate` degrees, each drawn evenly; what comes in is the mirrored picture."""

    shift: float = 0.0625
    scale: float = 0.1
    rotate: float = 15.0
    p: float = 0.5

    def __post_init__(self) -> None:
        _check_probability(self.p)
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale must be 0 or more and below 1, not {self.scale}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        draws = _draw(images, generator, 5)
        chosen = draws[:, 4] < self.p
        across, down, larger, turned = (draws[:, :4] * 2 - 1).mul(chosen[:, None]).unbind(1)
        # The matrix takes a place in the new picture to the place in the old one that it shows; both run from -1 to 1.
        zoom, angle = 1 / (1 + larger * self.scale), turned * math.radians(self.rotate)
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        ratio = images.shape[2] / images.shape[3]
        matrix = torch.stack(
            [cos, -sin * ratio, across * 2 * self.shift, sin / ratio, cos, down * 2 * self.shift], dim=1
        ).view(-1, 2, 3)
        grid = F.affine_grid(matrix.to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class CoarseDropout:
    """With probability `p`, `holes` squares of `size` pixels filled with one colour (DeVries & Taylor, 2017: cutout).

    The middle of a square may be any pixel, so that a part of it may lie outside the picture.
    """

    size: int = 16
    holes: int = 1
    fill: tuple[float, float, float] = (0.5, 0.5, 0.5)
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_probability(self.p)
        if self.size < 1 or self.holes < 1:
            raise ValueError(f"size and holes must be 1 or more, not {self.size} and {self.holes}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        height, width = images.shape[2:]
        draws = _draw(images, generator, 2 * self.holes + 1)
        covered = torch.zeros(len(images), height, width, dtype=torch.bool, device=images.device)
        for hole in range(self.holes):
            rows = _within(draws[:, 2 * hole], height, self.size)
            columns = _within(draws[:, 2 * hole + 1], width, self.size)
            covered |= rows[:, :, None] & columns[:, None, :]
        covered &= (draws[:, -1] < self.p).view(-1, 1, 1)
        return torch.where(covered[:, None], images.new_tensor(self.fill).view(3, 1, 1), images)


def _within(middle: Tensor, side: int, size: int) -> Tensor:
    """Which of `side` places lie in a stretch of `size`, for each share of the side where its middle is: (N, side)."""
    first = (middle * side).long()[:, None] - size // 2
    places = torch.arange(side, device=middle.device)
    return (places >= first) & (places < first + size)


def _draw(images: Tensor, generator: Generator, count: int | None = None) -> Tensor:
    """Even draws from [0, 1): (N,) or (N, count), on the device of the images."""
    size = (len(images),) if count is None else (len(images), count)
    return torch.rand(size, generator=generator, device="cpu").to(images.device)


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability, from 0 to 1, not {p}")


Augmentation = Flip | PadAndCrop | ShiftScaleRotate | CoarseDropout
