"""Filters: what the weights of a convolution look like, and what they respond to.

A filter answers each patch of a picture by a dot product: large where the patch points the filter's way. So a filter
can be looked at as a picture (the patch it likes best), and be tested like a cell of the visual cortex, with stripes
of every angle (Hubel and Wiesel, 1962; De Valois et al., 1982).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .hooks import check_model

FREQUENCIES = tuple(step / 16 for step in range(1, 9))
"""Of the stripes in `tuning`, in cycles per pixel: from one stripe in 16 pixels to the finest that pixels can show."""


def filter_weights(model: nn.Module, layer: nn.Module | str | None = None) -> Tensor:
    """A copy of the weights of a convolution, (K, C, h, w): K filters with C channels each.

    `layer` is a convolution of `model` or its name, or holds just one; without it, the first of the model is meant.
    Raises ValueError where there is no such convolution, or more than one.
    """
    check_model(model)
    if isinstance(layer, str):
        names = dict(model.named_modules())
        if layer not in names:
            raise ValueError(f"layer {layer!r} is not a module of this model")
        place = names[layer]
    elif layer is None or any(layer is module for module in model.modules()):
        place = model if layer is None else layer
    else:
        raise ValueError(f"layer: {type(layer).__name__} is not a module of this model")
    found = [module for module in place.modules() if isinstance(module, nn.Conv2d)]
    if not found:
        raise ValueError(f"{type(place).__name__} holds no convolution (nn.Conv2d)")
    if layer is not None and len(found) > 1:
        raise ValueError(f"layer: {type(place).__name__} holds {len(found)} convolutions: name one of them")
    return found[0].weight.detach().clone()


def normalize_for_display(
    filters: Tensor, per: Literal["filter", "all", "channel"] = "filter", *, signed: bool = False
) -> Tensor:
    """Weights (K, C, h, w) stretched to [0, 1], the same shape: each filter by itself, all alike, or each channel.

    The smallest weight becomes 0 and the largest 1; where all are equal, 0.5. With `signed=True` a weight of zero
    becomes 0.5 instead, and the weight farthest from zero becomes 0 or 1. Raises ValueError for another `per`.
    """
    filters = _checked(filters)
    dimensions = {"filter": (1, 2, 3), "all": (0, 1, 2, 3), "channel": (2, 3)}
    if per not in dimensions:
        raise ValueError(f"per must be one of {', '.join(dimensions)}, not {per!r}")
    low = filters.amin(dimensions[per], keepdim=True)
    high = filters.amax(dimensions[per], keepdim=True)
    if signed:
        high = torch.maximum(high, -low)
        low = -high
    spread = high - low
    return torch.where(spread > 0, (filters - low) / torch.where(spread > 0, spread, 1), 0.5)


def correlate(
    images: Tensor, filters: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """The response of every filter (K, C, h, w) at every place of every picture (N, C, H, W): (N, K, H', W').

    What deep learning calls a convolution: the dot product of filter and patch, plus `bias` (K,), the filter not
    mirrored. Raises ValueError where channels or sizes do not fit.
    """
    filters = _checked(filters)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != filters.shape[1]:
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be a tensor (N, {filters.shape[1]}, H, W) to fit the filters, not {shape}")
    if images.dtype != filters.dtype:
        raise TypeError(f"images are {images.dtype} and filters {filters.dtype}: one type is wanted")
    if bias is not None and not isinstance(bias, Tensor):
        raise TypeError(f"bias must be a tensor ({len(filters)},), not {type(bias).__name__}")
    if bias is not None and bias.shape != filters.shape[:1]:
        raise ValueError(f"bias must have the shape ({len(filters)},), not {tuple(bias.shape)}")
    if type(stride) is not int or type(padding) is not int:
        raise TypeError(f"stride and padding must be whole numbers, not {stride!r} and {padding!r}")
    if stride < 1 or padding < 0:
        raise ValueError(f"stride must be 1 or more and padding 0 or more, not {stride} and {padding}")
    images = nn.functional.pad(images, (padding,) * 4)
    height, width = filters.shape[2:]
    rows, columns = (images.shape[2] - height) // stride + 1, (images.shape[3] - width) // stride + 1
    if rows < 1 or columns < 1:
        raise ValueError(f"a filter of {height} x {width} does not fit into {images.shape[2]} x {images.shape[3]}")
    responses = images.new_zeros(len(images), len(filters), rows, columns)
    for y in range(height):
        for x in range(width):
            # One weight of each filter meets the pixel it lies on, at all places at once.
            seen = images[:, :, y : y + stride * rows : stride, x : x + stride * columns : stride]
            responses += torch.einsum("nchw,kc->nkhw", seen, filters[:, :, y, x])
    return responses if bias is None else responses + bias.view(-1, 1, 1)


def spectrum(filters: Tensor, size: int = 33) -> Tensor:
    """How strongly each filter (K, C, h, w) responds to stripes of every kind: (K, size, size), >= 0.

    The amplitude of its Fourier transform, channels together (root of the sum of squares). Frequency 0 is in the
    middle, and the edges are 0.5 cycles per pixel; right is a wave that runs to the right. Raises ValueError for an
    even `size`, or one smaller than the filters.
    """
    filters = _at_least_single(_checked(filters))
    if size % 2 == 0 or size < max(filters.shape[2:]):
        raise ValueError(f"size must be odd and at least {max(filters.shape[2:])}, not {size}")
    waves = torch.fft.fft2(filters, s=(size, size)).abs()
    return torch.fft.fftshift(waves.square().sum(dim=1).sqrt(), dim=(-2, -1))


def tuning(filters: Tensor, angles: Tensor) -> Tensor:
    """How strongly each filter (K, C, h, w) responds to stripes at `angles` (A,), in degrees: (K, A), >= 0.

    0 is horizontal stripes, 90 vertical ones, counter-clockwise. The amplitude over all shifts of the stripes, channels
    as in `spectrum`, root mean square over `FREQUENCIES`.
    """
    filters = _at_least_single(_checked(filters))
    if not isinstance(angles, Tensor) or angles.ndim != 1 or len(angles) == 0:
        raise ValueError("angles must be a tensor of one dimension, in degrees")
    height, width = filters.shape[2:]
    options: Any = {"dtype": filters.dtype, "device": filters.device}
    # A wave runs across its stripes. Rows count downwards, angles upwards: hence the sign.
    across = torch.deg2rad(angles.to(**options) + 90)
    frequency = torch.tensor(FREQUENCIES, **options)[:, None, None, None]
    y = torch.arange(height, **options)[:, None] * -torch.sin(across)[:, None, None]
    x = torch.arange(width, **options) * torch.cos(across)[:, None, None]
    phase = 2 * math.pi * frequency * (x + y)  # (F, A, h, w)
    even = torch.einsum("kchw,fahw->kcfa", filters, torch.cos(phase))
    odd = torch.einsum("kchw,fahw->kcfa", filters, torch.sin(phase))
    return (even.square() + odd.square()).sum(dim=1).mean(dim=1).sqrt()


def orientation(filters: Tensor) -> Tensor:
    """The angle (K,) of the stripes or the edge that each filter (K, C, h, w) prefers, in degrees from 0 up to 180.

    0 is horizontal, 90 vertical, counter-clockwise. The circular mean of `tuning`; where `selectivity` is small it
    means little.
    """
    return torch.rad2deg(_mean_direction(filters).angle() / 2) % 180


def selectivity(filters: Tensor) -> Tensor:
    """How much each filter (K, C, h, w) prefers one angle: (K,), from 0 (all alike) to 1 (a single one).

    One minus the circular variance of `tuning` (Ringach et al., 2002). A filter of zeros has 0.
    """
    return _mean_direction(filters).abs()


def chroma(filters: Tensor) -> Tensor:
    """How much of each filter (K, 3, h, w) is colour: (K,), from 0 (grey) to 1 (no grey at all).

    The share of the squared weights that is left when the mean of the three channels is taken out.
    """
    filters = _at_least_single(_checked(filters))
    if filters.shape[1] != 3:
        raise ValueError(f"filters must have 3 channels to have a colour, not {filters.shape[1]}")
    colour = (filters - filters.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2, 3))
    everything = filters.square().sum(dim=(1, 2, 3))
    return colour / torch.where(everything > 0, everything, 1)


def _mean_direction(filters: Tensor) -> Tensor:
    """The mean of e^(2i angle), weighted by `tuning`: complex (K,). Twice the angle, for 180 degrees is 0 again."""
    angles = torch.arange(0, 180, 5)
    responses = tuning(filters, angles)
    turns = torch.exp(2j * torch.deg2rad(angles.to(responses)))
    total = responses.sum(dim=1)
    return (responses * turns).sum(dim=1) / torch.where(total > 0, total, 1)


def _checked(filters: Tensor) -> Tensor:
    if not isinstance(filters, Tensor):
        raise TypeError(f"filters must be a tensor (K, C, h, w), not {type(filters).__name__}")
    if filters.ndim != 4 or filters.numel() == 0:
        raise ValueError(f"filters must have the shape (K, C, h, w), not {tuple(filters.shape)}")
    if not filters.is_floating_point() or not torch.isfinite(filters).all():
        raise ValueError("filters must be finite floating point numbers")
    return filters


def _at_least_single(filters: Tensor) -> Tensor:
    """Half precision has no Fourier transform on a CPU, and its squares overflow."""
    return filters.float() if filters.dtype in (torch.float16, torch.bfloat16) else filters
