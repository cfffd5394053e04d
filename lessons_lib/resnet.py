"""A residual network for small pictures (He et al., 2016), laid out to be read and looked into.

Each block adds a correction to its input instead of replacing it, so that even deep networks pass gradients
to their first layers. A 3x3 stem without pooling keeps small pictures sharp; later stages halve them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._checks import check_whole_number


class ResNet(nn.Module):
    """Logits (N, classes) from pictures (N, 3, H, W): stem, stage1, stage2, ..., average over places, head.

    Stage k has `blocks[k - 1]` blocks of `width * 2**(k - 1)` channels; the defaults are ResNet-18 for CIFAR.
    `dropout` is the share of the averages that the head does not see while training. Raises ValueError for a size below
    1 or a share outside [0, 1), TypeError for a size that is not a whole number.
    """

    def __init__(
        self, classes: int, *, width: int = 64, blocks: Sequence[int] = (2, 2, 2, 2), dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, not {dropout}")
        for name, value in (
            ("classes", classes),
            ("width", width),
            *((f"blocks[{k}]", b) for k, b in enumerate(blocks)),
        ):
            check_whole_number(name, value, 1)
        if not blocks:
            raise ValueError("blocks is empty: give the number of blocks of each stage, such as (2, 2, 2, 2)")
        self.stem = nn.Sequential(
            OrderedDict(conv=_conv(3, width, 3), norm=nn.BatchNorm2d(width), relu=nn.ReLU()),
        )
        channels = width
        self.stages: list[str] = []
        for k, count in enumerate(blocks):
            before, channels = channels, width * 2**k
            first = BasicBlock(before, channels, stride=1 if k == 0 else 2)
            stage = nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(count - 1)))
            self.stages.append(f"stage{k + 1}")
            self.add_module(self.stages[-1], stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.head(self.dropout(self.flatten(self.pool(x))))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the input: (N, C, H, W) to (N, channels, H/stride, W/stride)."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(channels)
        # One ReLU for each use, none in place: hooks see each of them, and what they saw stays as it was.
        self.relu1 = nn.ReLU()
        self.conv2 = _conv(channels, channels, 3)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                OrderedDict(conv=_conv(channels_in, channels, 1, stride), norm=nn.BatchNorm2d(channels)),
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        correction = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        activation: Tensor = self.relu2(self.shortcut(x) + correction)
        return activation


def without_shortcuts(network: nn.Module) -> nn.Module:
    """`network` itself, changed for good: what was added to a block's convolutions is left out, and a plain chain of
    convolutions remains (He et al., 2016: a plain network)."""
    for module in network.modules():
        if isinstance(module, BasicBlock):
            module.shortcut = _Nothing()
    return network


class _Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(())


class Normalize(nn.Module):
    """Bring pictures (N, 3, H, W) in [0, 1] to the mean 0 and deviation 1 a network was trained with."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3:
                raise ValueError(f"{name} needs one number for each of red, green and blue, not {len(values)}")
        if min(std) <= 0:
            raise ValueError(f"std must be above 0, not {min(std)}")
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def normalized(resnet: ResNet, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """A network of pictures in [0, 1]: first `normalize`, then `resnet`."""
    return nn.Sequential(OrderedDict(normalize=Normalize(mean, std), resnet=resnet))


def shapes_network() -> nn.Sequential:
    """The untrained network of the `shapes` specimen: logits (N, 10) of pictures (N, 3, 64, 64) in [0, 1]."""
    return normalized(ResNet(10, width=16, blocks=(1, 1, 1, 1)), mean=(0.45, 0.45, 0.42), std=(0.2, 0.2, 0.2))


def _conv(channels_in: int, channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    # BatchNorm follows and brings its own shift: a bias would be lost in it.
    return nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)
