"""Networks to compare with other libraries on: those people use, seeded, with every number of BatchNorm at random.

Fresh from their makers, BatchNorm shifts nothing: then integrated gradients equal input times gradient, and half of the
family of Grad-CAM agrees at the last block, whatever their code does.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from lessons_lib.hooks import check_runs_once
from lessons_lib.resnet import shapes_network

CLASSES = 10
# Of each network its last feature maps, and some in between: a whole stage, and inside a branch.
LAYERS = {
    "squeezenet": ("features.12", "features.5", "features.5.expand3x3_activation"),
    "resnet18": ("layer4", "layer2", "layer3.0.conv1"),
    "vgg11_bn": ("features.28", "features.10"),
    "mobilenet_v3_small": ("features.12", "features.4.block.0"),
    "in_place": ("features.7", "features.1"),
}
EVERY_LAYER = [(name, layer) for name, layers in LAYERS.items() for layer in layers]


@cache
def network(name: str) -> nn.Module:
    """A network (N, 3, 64, 64) -> (N, 10) in evaluation mode, with parameters that ask for gradients."""
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if name == "in_place":
            model: nn.Module = InPlace()
        elif name == "shapes":
            model = shapes_network()
        elif name == "vgg11_bn":
            model = models.vgg11_bn(num_classes=CLASSES, init_weights=False)
            # Its own head has 120 million weights, which no question here is about.
            model.classifier = nn.Sequential(nn.Linear(512 * 49, 64), nn.ReLU(inplace=True), nn.Linear(64, CLASSES))
        else:
            model = getattr(models, {"squeezenet": "squeezenet1_0"}.get(name, name))(num_classes=CLASSES)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
        if name == "squeezenet":
            nn.init.constant_(model.classifier[1].bias, 1.0)  # its last ReLU would be off for most classes
    return model.eval()


def meet(model: nn.Module, images: Tensor) -> None:
    """Let the library take the one whole look at `model` that it takes when it meets a network."""
    check_runs_once(model, model.modules(), images)


class InPlace(nn.Module):
    """Overwrites what its convolutions put out: by ReLUs in place, and by adding to it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.shortcut = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        before = self.features[:7](x)
        after = self.features[7](before)
        after += self.shortcut(before)
        return self.head(self.features[8](after).mean(dim=(2, 3)))


def pictures(count: int = 2, size: int = 64, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pictures (count, 3, size, size) in [0, 1] with coarse and fine parts: on noise alone maps would be flat."""
    random = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 3, 5, 5, generator=random, dtype=torch.float64)
    fine = torch.rand(count, 3, size, size, generator=random, dtype=torch.float64)
    large = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return (0.7 * large + 0.3 * fine).to(dtype)


def relative(found: Tensor, wanted: Tensor) -> float:
    """The largest error of any number, as a share of the largest number; wanted must not be all zeros."""
    assert found.shape == wanted.shape
    assert wanted.abs().max() > 0, "nothing to compare: all zeros"
    return ((found - wanted).abs().max() / wanted.abs().max()).item()
