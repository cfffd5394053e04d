"""A step of our optimizers beside PyTorch's, written parameter by parameter too: on ResNet-18. Ratios count.

make bench
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench import report

from lessons_lib import optimizers
from lessons_lib.resnet import ResNet

PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "SGD": (optimizers.SGD, torch.optim.SGD, {}, {}),
    "Momentum": (optimizers.Momentum, torch.optim.SGD, {"momentum": 0.9}, {}),
    "Nesterov": (optimizers.Nesterov, torch.optim.SGD, {"momentum": 0.9}, {"nesterov": True}),
    "Adagrad": (optimizers.Adagrad, torch.optim.Adagrad, {}, {}),
    "Adadelta": (optimizers.Adadelta, torch.optim.Adadelta, {}, {}),
    "RMSprop": (optimizers.RMSprop, torch.optim.RMSprop, {}, {}),
    "RMSprop, centered, momentum": (optimizers.RMSprop, torch.optim.RMSprop, {"centered": True, "momentum": 0.9}, {}),
    "Adam": (optimizers.Adam, torch.optim.Adam, {}, {}),
    "Adam, AMSGrad": (optimizers.Adam, torch.optim.Adam, {"amsgrad": True}, {}),
    "AdamW": (optimizers.AdamW, torch.optim.AdamW, {}, {}),
}


def main() -> None:
    parameters = sum(parameter.numel() for parameter in ResNet(10).parameters())
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}. A step of {parameters} parameters, with decay."
    )
    print("How many times as long PyTorch's with foreach=False takes (wanted: at least 1 / 1.5 = 0.67):")
    for name, (ours, theirs, settings, more) in PAIRS.items():
        steps = []
        for rule, own in ((ours, settings), (theirs, {**settings, **more, "foreach": False})):
            torch.manual_seed(0)
            network = ResNet(10)
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
            steps.append(rule(network.parameters(), lr=1e-4, weight_decay=1e-4, **own).step)
        report(name, *steps, rounds=41)


if __name__ == "__main__":
    main()
