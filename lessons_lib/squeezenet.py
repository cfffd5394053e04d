"""SqueezeNet 1.0, and a decoder for the 660 kB file in which its authors published the weights.

The network is Iandola et al., 2016 (arXiv:1602.07360). The file is the result of Deep Compression
(Han et al., 2016, arXiv:1510.00149): most weights are pruned to zero, and those that remain share at
most 256 values a layer. So one byte a weight names its value, and four bits say how many zeros to skip.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's pictures, RGB in [0, 1]: what every torchvision classifier subtracts."""
STD = (0.229, 0.224, 0.225)
"""Standard deviation that goes with `MEAN`."""

# The authors trained on BGR in 0..255 and subtracted only this mean.
_TRAINED_MEAN_BGR = (104.0, 117.0, 123.0)
_CODEBOOK = 256


class Fire(nn.Module):
    """Squeeze to few channels with 1x1 filters, then expand with 1x1 and 3x3 filters side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.squeeze_activation = nn.ReLU()
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU()
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_activation(self.squeeze(x))
        one = self.expand1x1_activation(self.expand1x1(x))
        three = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([one, three], dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.0: (N, 3, H, W), normalized by `MEAN` and `STD`, to logits (N, 1000).

    Keys and shapes are those of `torchvision.models.squeezenet1_0`, so either loads the other's weights.
    It stands here because torchvision takes seconds to import, and because its ReLUs work in place:
    they overwrite the very activations that this course looks at. As there, the last convolution lacks
    the border of zeros that the authors gave it: an average over 13 x 13 places instead of 15 x 15.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(512, 64, 256),
        )
        # The score of a class is the mean of a ReLU: never negative, and without a gradient where it is 0.
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)).flatten(1)


def stages(network: SqueezeNet) -> dict[str, nn.Module]:
    """The convolution stages by the authors' names, shallow to deep; each module's output is past its ReLU."""
    fires = (module for module in network.features if isinstance(module, Fire))
    return {"conv1": network.features[1]} | {f"fire{i}": fire for i, fire in enumerate(fires, 2)}


def decode(data: bytes) -> dict[str, Tensor]:
    """The published file as a state dict for `SqueezeNet`, float32.

    Raises ValueError where the bytes are not that file: too few, too many, or positions outside a layer.
    """
    layers = [(name, m) for name, m in SqueezeNet().named_modules() if isinstance(m, nn.Conv2d)]
    counts_size = 4 * len(layers)
    if len(data) < counts_size:
        raise ValueError(f"compressed SqueezeNet: {len(data)} bytes are too few to hold {len(layers)} layer sizes")
    counts = np.frombuffer(data, "<u4", len(layers))
    expected = counts_size + sum(
        4 * (_CODEBOOK + layer.out_channels) + int(count) + (int(count) + 1) // 2
        for (_, layer), count in zip(layers, counts, strict=True)
    )
    if len(data) != expected:
        raise ValueError(
            f"compressed SqueezeNet: {len(data)} bytes, but its layer sizes call for {expected}: "
            "the file is cut short or holds another network"
        )

    state: dict[str, Tensor] = {}
    offset = counts_size

    def take(dtype: str, count: int) -> np.ndarray:
        nonlocal offset
        values = np.frombuffer(data, dtype, count, offset)
        offset += values.nbytes
        return values

    for (name, layer), stored in zip(layers, map(int, counts), strict=True):
        codebook = take("<f4", _CODEBOOK)
        bias = take("<f4", layer.out_channels)
        values = take("u1", stored)
        packed = take("u1", (stored + 1) // 2)
        skips = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:stored].astype(np.int64)
        positions = np.cumsum(skips + 1) - 1
        shape = tuple(layer.weight.shape)
        if stored and positions[-1] >= math.prod(shape):
            raise ValueError(f"compressed SqueezeNet: {name} stores a weight behind its last place")
        weight = np.full(math.prod(shape), codebook[0], np.float32)
        weight[positions] = codebook[values]
        state[f"{name}.weight"] = torch.from_numpy(weight.reshape(shape))
        state[f"{name}.bias"] = torch.from_numpy(bias.astype(np.float32))
    _take_rgb_in_torchvision_scale(state, "features.0")
    return state


def _take_rgb_in_torchvision_scale(state: dict[str, Tensor], first: str) -> None:
    """Fold the authors' scale and mean into the first layer; exact, because it has no padding."""
    weight = state[f"{first}.weight"].flip(1)  # BGR to RGB
    mean = 255 * torch.tensor(MEAN) - torch.tensor(_TRAINED_MEAN_BGR).flip(0)
    std = 255 * torch.tensor(STD)
    state[f"{first}.bias"] = state[f"{first}.bias"] + (weight * mean[:, None, None]).sum((1, 2, 3))
    state[f"{first}.weight"] = weight * std[:, None, None]


def shuffle_channels(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The same function with every hidden channel in another place: equal logits up to rounding.

    What a chapter says of "channel 7" no longer holds on it; what it computes still does.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = dict(state)

    def permute_outputs(name: str) -> Tensor:
        order = torch.randperm(len(state[f"{name}.bias"]), generator=generator)
        for key in (f"{name}.weight", f"{name}.bias"):
            shuffled[key] = shuffled[key][order]
        return order

    def permute_inputs(name: str, order: Tensor) -> None:
        shuffled[f"{name}.weight"] = shuffled[f"{name}.weight"][:, order]

    order = permute_outputs("features.0")
    for fire in [name for name, module in SqueezeNet().named_modules() if isinstance(module, Fire)]:
        squeeze = f"{fire}.squeeze"
        permute_inputs(squeeze, order)
        inner = permute_outputs(squeeze)
        permute_inputs(f"{fire}.expand1x1", inner)
        permute_inputs(f"{fire}.expand3x3", inner)
        one = permute_outputs(f"{fire}.expand1x1")
        order = torch.cat([one, len(one) + permute_outputs(f"{fire}.expand3x3")])
    permute_inputs("classifier.1", order)
    return shuffled
