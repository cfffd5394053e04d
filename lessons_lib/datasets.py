"""Labelled pictures to train on and to test with, kept as 8-bit tensors, and what is known about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from . import shapes
from ._checks import check_whole_number
from .augmentation import Augmentation
from .shapes import Shortcut, generate

Batch = tuple[Tensor, Tensor]
# Seeds of generated pictures: those of samples begin at 2**30, those held out at 2**31; all from FIRST_TRAINING_SEED on
# are for training the specimens only. The pictures of `shapes_dataset` lie in between.
HELD_OUT_SEED, FIRST_TRAINING_SEED = 2**31, 2**32
_SMALL_TRAIN_SEED, _SMALL_TEST_SEED = 3 * 2**30, 7 * 2**29


@dataclass(frozen=True, eq=False)
class Pictures:
    """`images` (N, 3, H, W) uint8 and `labels` (N,) int64. Raises TypeError or ValueError where they are not that."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        for name, dtype in (("images", torch.uint8), ("labels", torch.int64)):
            value = getattr(self, name)
            if not isinstance(value, Tensor) or value.dtype != dtype:
                raise TypeError(f"{name} must be a tensor of {dtype}, not {getattr(value, 'dtype', type(value))}")
        if self.images.ndim != 4 or self.images.shape[1] != 3:
            raise ValueError(f"images must have the shape (N, 3, H, W), not {tuple(self.images.shape)}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.images)} images need as many labels, not the shape {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: Any) -> Pictures:
        """Some of them: a slice, or a tensor of indices or of truth values."""
        return Pictures(self.images[which], self.labels[which])

    def to(self, device: torch.device | str) -> Pictures:
        return Pictures(self.images.to(device), self.labels.to(device))

    def batches(self, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """All of them in order: images (n, 3, H, W) in [0, 1], labels (n,)."""
        check_whole_number("size", size, 1)
        for images, labels in zip(self.images.split(size), self.labels.split(size), strict=True):
            yield as_floats(images), labels

    def statistics(self) -> Statistics:
        """Of every channel of every pixel, exactly: from counts of the 256 levels, in float64."""
        if len(self) == 0:
            raise ValueError("images must hold at least one picture: nothing has no mean")
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in self.images.cpu().unbind(1)])
        shares = counts.double() / counts.sum(dim=1, keepdim=True)
        mean = shares @ levels
        variance = (shares * (levels - mean[:, None]).square()).sum(dim=1)
        found = counts.sum(dim=0).nonzero().flatten()
        return Statistics(
            count=len(self),
            shape=tuple(self.images.shape[1:]),
            low=float(levels[found[0]]),
            high=float(levels[found[-1]]),
            mean=tuple(mean.tolist()),
            std=tuple(variance.sqrt().tolist()),
            variance=tuple(variance.tolist()),
        )


@dataclass(frozen=True)
class Statistics:
    """Of pictures in [0, 1]: count, shape (3, H, W), smallest and largest value; the others by channel."""

    count: int
    shape: tuple[int, ...]
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    variance: tuple[float, ...]

    def __str__(self) -> str:
        def channels(values: tuple[float, ...]) -> str:
            return "  ".join(f"{value:.8f}" for value in values)

        return (
            f"count     {self.count}\nshape     {self.shape}\nmin, max  {self.low:g}, {self.high:g}\n"
            f"mean      {channels(self.mean)}\nstd       {channels(self.std)}\nvariance  {channels(self.variance)}"
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures to train on and to test with. `copy` says which copy of the data this is, `found` where it was found."""

    name: str
    copy: str
    found: str
    categories: tuple[str, ...]
    train: Pictures
    test: Pictures

    def split(self, validation: int = 5000, seed: int = 0) -> tuple[Pictures, Pictures]:
        """The training pictures in two parts, drawn by `seed`: to learn from, and `validation` of them to tune by.

        Raises TypeError or ValueError where `validation` would leave nothing to learn from.
        """
        check_whole_number("validation", validation, 0, len(self.train))
        check_whole_number("seed", seed)
        # Uniform draws of PCG64 are the same in every version of NumPy; its ways to shuffle need not be.
        draws = np.random.Generator(np.random.PCG64(seed)).random(len(self.train))
        order = torch.from_numpy(draws.argsort(kind="stable"))
        # In their old order: what is near in memory is read faster.
        return self.train[order[validation:].sort().values], self.train[order[:validation].sort().values]

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {self.copy}, {len(self.train)} + {len(self.test)} pictures)"


def as_floats(images: Tensor) -> Tensor:
    """8-bit pictures as numbers in [0, 1], with the channels of a pixel side by side, which convolutions like best."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(255)


def shapes_dataset(train: int = 4000, test: int = 1000) -> Dataset:
    """Generated shapes at half their size, (3, 32, 32): for machines that have no CIFAR-10. 2 ms a picture."""
    check_whole_number("train", train, 1)
    check_whole_number("test", test, 1)

    def draw(count: int, seed: int) -> Pictures:
        drawn = generate(count, seed)
        small = torch.nn.functional.avg_pool2d(drawn.images, 2)
        return Pictures(small.mul_(255).round_().to(torch.uint8), drawn.labels)

    return Dataset(
        name="shapes at 32 px",
        copy="generated",
        found="lessons_lib itself",
        categories=shapes.CATEGORIES,
        train=draw(train, _SMALL_TRAIN_SEED),
        test=draw(test, _SMALL_TEST_SEED),
    )


# --- batches to learn from ------------------------------------------------------------------------------------------


class AugmentedBatches:
    """All of `pictures` in a new order each pass, in full batches, augmented on their device: (n, 3, H, W) in [0, 1].

    The few that are left over are others each time. Raises ValueError where there are too few for one batch.
    """

    def __init__(
        self, pictures: Pictures, batch_size: int, augmentation: Sequence[Augmentation] = (), seed: int = 0
    ) -> None:
        if len(pictures) < batch_size:
            raise ValueError(f"{len(pictures)} pictures are too few for a batch of {batch_size}")
        self.pictures, self.batch_size, self.augmentation, self.seed = pictures, batch_size, augmentation, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.pictures) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed_of_pass(self.seed, self.epoch))
        order = torch.randperm(len(self.pictures), generator=generator).to(self.pictures.labels.device)
        for which in order.split(self.batch_size)[: len(self)]:
            # Not `as_floats`: what moves pixels is quickest where those of a row lie side by side.
            images = self.pictures.images.index_select(0, which).to(torch.float32).div_(255)
            for augment in self.augmentation:
                images = augment(images, generator)
            yield images, self.pictures.labels[which]


class FreshShapes:
    """Batches of generated shapes, (n, 3, 64, 64) in [0, 1], none of which is shown twice.

    To draw a picture costs less than to learn from it; so none is learned by heart, and none needs augmentation.
    """

    def __init__(self, steps: int, batch_size: int, seed: int = 0, shortcut: Shortcut | None = None) -> None:
        self.steps, self.seed, self.epoch = steps, seed, 0
        self.pictures = _DrawnBatches(FIRST_TRAINING_SEED * (seed + 1), batch_size, shortcut)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self.epoch * self.steps, (self.epoch + 1) * self.steps)
        # One worker draws the next batches while the network learns from this one. The generator is there because the
        # loader would otherwise draw from the caller's random numbers.
        generator = torch.Generator().manual_seed(self.seed)
        return iter(
            DataLoader(self.pictures, None, sampler=numbers, num_workers=1, prefetch_factor=8, generator=generator)
        )


class _DrawnBatches(TorchDataset[Batch]):
    """Batch k: of pictures that are drawn when it is asked for."""

    def __init__(self, first_seed: int, batch_size: int, shortcut: Shortcut | None) -> None:
        self.first_seed, self.batch_size, self.shortcut = first_seed, batch_size, shortcut

    def __getitem__(self, batch: int) -> Batch:
        drawn = generate(self.batch_size, self.first_seed + batch, shortcut=self.shortcut)
        return drawn.images, drawn.labels


def held_out_shapes(
    pictures: int = 5000, seed: int = HELD_OUT_SEED, *, shortcut: Shortcut | None = None
) -> Iterator[Batch]:
    """Batches of generated shapes that no network of this course has learned from."""
    check_whole_number("pictures", pictures, 1)
    for start in range(0, pictures, 250):
        drawn = generate(min(250, pictures - start), seed + start, shortcut=shortcut)
        yield drawn.images, drawn.labels


def seed_of_pass(seed: int, epoch: int) -> int:
    """Different for every pass of every seed: no run repeats the draws of another."""
    return (seed << 20) + epoch
