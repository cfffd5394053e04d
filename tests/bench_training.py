"""Our pictures and our loop beside the usual ones: same pictures, same network, same run. Ratios count.

    make bench

`pictures`: augmented batches of CIFAR-10's size, ours in whole batches, theirs one by one by PIL in a DataLoader.
`fit`: epochs of ResNet-18 by our `fit`, in float32 and in mixed precision, beside the plain loop that tutorials write.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from bench import report
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lessons_lib.augmentation import Augmentation, CoarseDropout, Flip, PadAndCrop, ShiftScaleRotate
from lessons_lib.cifar10 import TRAIN_MEAN, TRAIN_STD
from lessons_lib.datasets import AugmentedBatches, Pictures
from lessons_lib.learning_rates import Constant
from lessons_lib.recipes import ONE_CYCLE
from lessons_lib.resnet import Normalize, ResNet, normalized
from lessons_lib.training import fit, mixed_precision

BATCH = 128
BILINEAR = transforms.InterpolationMode.BILINEAR
BOTH: dict[str, tuple[tuple[Augmentation, ...], list[nn.Module | transforms.RandomCrop]]] = {
    "flip, crop": ((PadAndCrop(4), Flip()), [transforms.RandomCrop(32, 4), transforms.RandomHorizontalFlip()]),
    "flip, shift-scale-rotate, crop": (
        (Flip(), ShiftScaleRotate(p=1), PadAndCrop(4)),
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(15, (0.0625, 0.0625), (0.9, 1.1), interpolation=BILINEAR),
            transforms.RandomCrop(32, 4),
        ],
    ),
}  # fmt: skip


class OneByOne(Dataset[tuple[Tensor, int]]):
    """As torchvision's own CIFAR10 does it: a PIL picture, and the transforms on it."""

    def __init__(self, pictures: Pictures, first: list[nn.Module]) -> None:
        self.pixels, self.labels = pictures.images.permute(0, 2, 3, 1).contiguous().numpy(), pictures.labels.tolist()
        erase = transforms.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0), value=0.0)
        last = [transforms.ToTensor(), transforms.Normalize(TRAIN_MEAN, TRAIN_STD), erase]
        self.transform = transforms.Compose([*first, *last])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[number])), self.labels[number]


def random_pictures(count: int) -> Pictures:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.randint(0, 10, (count,), generator=generator))


def bench_pictures(count: int) -> None:
    print(f"\nAugmented, normalized pictures in batches of {BATCH}, with cutout; {count} of them:")
    pictures, normalize = random_pictures(count), Normalize(TRAIN_MEAN, TRAIN_STD)
    for name, (ours, theirs) in BOTH.items():
        batches = AugmentedBatches(pictures, BATCH, (*ours, CoarseDropout(16, fill=TRAIN_MEAN)))

        def in_batches(batches: AugmentedBatches = batches) -> None:
            for images, _ in batches:
                normalize(images)

        for workers in (0, 2):
            loader = DataLoader(
                OneByOne(pictures, theirs), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
            )

            def one_by_one(loader: DataLoader[tuple[Tensor, int]] = loader) -> None:
                for _ in loader:
                    pass

            report(f"{name}: PIL, {workers} workers", in_batches, one_by_one, rounds=5)


def plain_loop(width: int, pictures: Pictures) -> Callable[[], None]:
    """What tutorials write."""
    network = ResNet(10, width=width)
    pictures_one_by_one = OneByOne(pictures, BOTH["flip, crop"][1])
    loader = DataLoader(
        pictures_one_by_one, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)

    def epoch() -> None:
        network.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def bench_fit(width: int, count: int) -> None:
    mixed = mixed_precision(torch.device("cpu"))
    print(f"\nAn epoch of ResNet-18, width {width}, {count} pictures; mixed precision here is {mixed}:")
    pictures = random_pictures(count)
    batches = AugmentedBatches(pictures, BATCH, ONE_CYCLE.augmentation)
    for in_mixed, name in ((False, "float32"), (True, "mixed precision")):
        recipe = replace(ONE_CYCLE, epochs=1, batch_size=BATCH, schedule=Constant(0.01), mixed_precision=in_mixed)
        network = normalized(ResNet(10, width=width), TRAIN_MEAN, TRAIN_STD)

        def ours(network: nn.Module = network, recipe: object = recipe) -> None:
            fit(network, batches, recipe, progress=False)  # type: ignore[arg-type]

        report(f"plain loop in float32 : fit in {name}", ours, plain_loop(width, pictures), rounds=5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["pictures", "fit"])
    parser.add_argument("--pictures", type=int, default=1024, help="in an epoch of fit; ten times as many to augment")
    asked = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}. How many times as long the other way takes:")
    if asked.only != "fit":
        bench_pictures(10 * asked.pictures)
    if asked.only != "pictures":
        for width in (32, 64):
            bench_fit(width, asked.pictures)


if __name__ == "__main__":
    main()
