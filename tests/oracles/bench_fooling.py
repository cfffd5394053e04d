"""Our attacks beside torchattacks': same network, pictures, steps and size, equal results. Ratios count.

    make bench

Each pair runs in turn, ours, theirs, ours, ..., each after runs that do not count, and the ratio is the median over the
pairs. Networks have random weights and ten classes. In the one-pixel attack nothing succeeds, so that neither stops
early: the label has a lead that no pixel takes away.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
import torchattacks
from bench_explanations import settled_seconds
from networks import network as of_ten_classes
from torch import Tensor, nn

from lessons_lib.fooling import deep_fool, fgsm, one_pixel, pgd

STEPS, POPULATION = 10, 50
ROUNDS = 4  # of DeepFool: with more, theirs may be held up by rounding


class Sure(nn.Module):
    """A network that is never in doubt."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits + 1000 * nn.functional.one_hot(torch.tensor(3), 10).to(logits)


def pairs(model: nn.Module, images: Tensor) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    labels = model(images).argmax(dim=1)
    size, step = 8 / 255, 2 / 255
    theirs = {
        "FGSM": torchattacks.FGSM(model, eps=size),
        "PGD": torchattacks.PGD(model, eps=size, alpha=step, steps=STEPS, random_start=False),
        "PGD, L2": torchattacks.PGDL2(model, eps=1.0, alpha=0.25, steps=STEPS, random_start=False),
        "DeepFool": torchattacks.DeepFool(model, steps=ROUNDS),
    }
    ours: dict[str, Callable[[], Tensor]] = {
        "FGSM": lambda: fgsm(model, images, epsilon=size, labels=labels),
        "PGD": lambda: pgd(model, images, epsilon=size, step_size=step, steps=STEPS, random_start=False, labels=labels),
        "PGD, L2": lambda: pgd(model, images, epsilon=1.0, norm="l2", steps=STEPS, random_start=False, labels=labels),
        "DeepFool": lambda: deep_fool(model, images, labels, candidates=None, steps=ROUNDS),
    }
    return {name: (our, lambda name=name: theirs[name](images, labels)) for name, our in ours.items()}  # type: ignore[misc]


def one_pixel_pair(model: nn.Module, images: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    labels = model(images).argmax(dim=1)
    theirs = torchattacks.OnePixel(model, popsize=POPULATION, steps=STEPS)
    return lambda: one_pixel(model, images, population=POPULATION, steps=STEPS), lambda: theirs(images, labels)


def report(what: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
    seconds = [(settled_seconds(ours), settled_seconds(theirs)) for _ in range(3)]
    mine, other = (1000 * statistics.median(column) for column in zip(*seconds, strict=True))
    ratio = statistics.median(b / a for a, b in seconds)
    print(f"{what:76} {ratio:6.2f} x   ({mine:.1f} ms against {other:.1f} ms)", flush=True)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{on}, torch {torch.__version__}\n\nHow many times as long torchattacks takes:")
    random = torch.Generator().manual_seed(0)
    for name in ("resnet18", "squeezenet"):
        model = of_ten_classes(name).to(device)
        for size in (224, 32):
            for batch in (1, 16):
                images = torch.rand(batch, 3, size, size, generator=random).to(device)
                for method, (ours, theirs) in pairs(model, images).items():
                    # By the minute for torchattacks, which goes class by class, and picture by picture.
                    if not (method == "DeepFool" and size == 224 and batch > 1):
                        report(f"{name}, {size} px, {batch:2} at once: {method}", ours, theirs)
                if size == 32:
                    title = f"{name}, {size} px, {batch:2} at once: one pixel, {POPULATION} candidates, {STEPS} steps"
                    report(title, *one_pixel_pair(Sure(model).to(device), images))


if __name__ == "__main__":
    main()
