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
        return _exchanged(images, images.flip(3), chosen.view(-1, 1, 1, 1))


@dataclass(frozen=True)
class PadAndCrop:
    """Moved by up to `padding` pixels each way; what comes in is `fill`, or the mirrored picture where that is None."""

    padding: int = 4
    fill: float | None = 0.0

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding must be 0 or more, not {self.padding}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        height, width = images.shape[2:]
        reach = 2 * self.padding + 1
        down, across = (_draw(images, generator, 2) * reach).long().unbind(1)
        if self.fill is None:
            padded = F.pad(images, (self.padding,) * 4, mode="reflect")
        else:
            padded = F.pad(images, (self.padding,) * 4, value=self.fill)
        # A view of all crops of all pictures, (N, 3, reach, reach, H, W); only the chosen ones are ever copied.
        crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        return crops[torch.arange(len(images), device=images.device), :, down, across]


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
        # Places run from -1 to 1. The one in the old picture that a place in the new one shows, (N, H, W, 2): computed
        # from rows and columns, since all of them with all of the matrix (F.affine_grid) costs as much as the sampling.
        zoom, angle = 1 / (1 + larger * self.scale), turned * math.radians(self.rotate)
        height, width = images.shape[2:]
        columns, rows = _centres(width, images), _centres(height, images)[:, None]
        cos, sin, right, below = (
            value.to(images.dtype).view(-1, 1, 1)
            for value in (zoom * angle.cos(), zoom * angle.sin(), across * 2 * self.shift, down * 2 * self.shift)
        )
        places = [
            cos * columns + (right - sin * height / width * rows),
            sin * width / height * columns + (below + cos * rows),
        ]
        grid = torch.stack(places, dim=3)
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
        return _exchanged(images, images.new_tensor(self.fill).view(3, 1, 1), covered[:, None])


@dataclass(frozen=True)
class ColourJitter:
    """With probability `p` all hues turned by up to `hue` of a full turn, and colours made up to 1 + `saturation` times
    as strong or as much weaker, each drawn evenly; luma, how light a place is, is kept as far as [0, 1] allows."""

    hue: float = 0.1
    saturation: float = 0.5
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_probability(self.p)
        if not (0 <= self.hue <= 0.5 and 0 <= self.saturation <= 1):
            raise ValueError(
                f"hue must lie in [0, 0.5] and saturation in [0, 1], not at {self.hue} and {self.saturation}"
            )

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        draws = _draw(images, generator, 3)
        chosen = draws[:, 2] < self.p
        turn, stronger = (draws[:, :2] * 2 - 1).mul(chosen[:, None]).unbind(1)
        return recoloured(images, turn * self.hue, 1 + stronger * self.saturation)


def recoloured(images: Tensor, turn: Tensor | float = 0.0, strength: Tensor | float = 1.0) -> Tensor:
    """Pictures (N, 3, H, W) in [0, 1] with all hues turned by `turn` (1 is all around), colours `strength` times as
    strong (0 is grey), one for all or (N,). A hue is an angle in the plane of I and Q, not that of HSV; luma is kept as
    far as [0, 1] allows."""
    count = len(images)
    angle = torch.as_tensor(turn, dtype=images.dtype, device=images.device).expand(count) * (2 * math.pi)
    strength = torch.as_tensor(strength, dtype=images.dtype, device=images.device).expand(count)
    cos, sin = strength * angle.cos(), strength * angle.sin()
    change = images.new_zeros(count, 3, 3)
    change[:, 0, 0] = 1
    change[:, 1, 1], change[:, 1, 2], change[:, 2, 1], change[:, 2, 2] = cos, -sin, sin, cos
    matrices = _TO_RGB.to(images) @ change @ _TO_YIQ.to(images)
    return (matrices @ images.flatten(2)).view(images.shape).clamp(0, 1)


# Luma, and two coordinates of colour around it: the encoding of NTSC television, linear in red, green and blue.
_TO_YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64
)
_TO_RGB = torch.linalg.inv(_TO_YIQ)


def _exchanged(images: Tensor, others: Tensor, where: Tensor) -> Tensor:
    """`images` with the values of `others` at the places `where`: `torch.where`, three times as fast.

    Exact, too: between two numbers lerp computes from the nearer one.
    """
    return images.lerp(others, where.to(images.dtype))


def _within(middle: Tensor, side: int, size: int) -> Tensor:
    """Which of `side` places lie in a stretch of `size`, for each share of the side where its middle is: (N, side)."""
    first = (middle * side).long()[:, None] - size // 2
    places = torch.arange(side, device=middle.device)
    return (places >= first) & (places < first + size)


def _centres(side: int, like: Tensor) -> Tensor:
    """Of `side` pixels in a row that reaches from -1 to 1."""
    return (torch.arange(side, dtype=like.dtype, device=like.device) * 2 + 1) / side - 1


def _draw(images: Tensor, generator: Generator, count: int | None = None) -> Tensor:
    """Even draws from [0, 1): (N,) or (N, count), on the device of the images."""
    size = (len(images),) if count is None else (len(images), count)
    return torch.rand(size, generator=generator, device="cpu").to(images.device)


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability, from 0 to 1, not {p}")


Augmentation = Flip | PadAndCrop | ShiftScaleRotate | CoarseDropout | ColourJitter
