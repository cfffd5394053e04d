"""Labelled pictures: what they are checked for, exact statistics, splits by seed, and batches to learn from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from lessons_lib import datasets
from lessons_lib.augmentation import Flip, PadAndCrop
from lessons_lib.datasets import (
    FIRST_TRAINING_SEED,
    HELD_OUT_SEED,
    AugmentedBatches,
    Dataset,
    FreshShapes,
    Pictures,
    as_floats,
    held_out_shapes,
    seed_of_pass,
    shapes_dataset,
)
from lessons_lib.shapes import CATEGORIES, Shortcut, generate


def some(count: int = 20, seed: int = 0) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 6, 8), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.arange(count) % 4)


def dataset(train: int = 40, test: int = 10) -> Dataset:
    return Dataset("noise", "the only one", "here", ("a", "b", "c", "d"), some(train), some(test, 1))


@pytest.mark.parametrize(
    ("images", "labels", "error", "words"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), TypeError, "images must be a tensor of torch.uint8"),
        (np.zeros((2, 3, 4, 4), np.uint8), torch.zeros(2).long(), TypeError, "images must be a tensor"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2), TypeError, "labels must be a tensor of torch.int"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2).long(), ValueError, r"shape \(N, 3, H, W\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3).long(), ValueError, "2 images need as many labels"),
    ],
)  # fmt: skip
def test_what_are_no_labelled_pictures_is_refused(images: Any, labels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Pictures(images, labels)


def test_some_of_the_pictures_are_pictures() -> None:
    pictures = some()
    assert len(pictures[3:7]) == 4
    assert torch.equal(pictures[torch.tensor([5, 2])].labels, torch.tensor([1, 2]))
    assert (pictures[pictures.labels == 3].labels == 3).all()


def test_batches_in_order_hold_all_pictures_as_numbers_from_0_to_1() -> None:
    pictures = some(7)
    batches = list(pictures.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    together = torch.cat([images for images, _ in batches])
    assert torch.equal((together * 255).round().to(torch.uint8), pictures.images)
    assert together.is_contiguous(memory_format=torch.channels_last)


def test_floats_are_the_bytes_divided_by_255() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(as_floats(levels)[0, 0].flatten(), torch.arange(256, dtype=torch.float32) / 255)


# --- statistics and splits ------------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_pixels_in_float64() -> None:
    pictures = some(50)
    numbers = pictures.images.numpy() / np.float64(255)
    found = pictures.statistics()
    assert (found.count, found.shape) == (50, (3, 6, 8))
    assert (found.low, found.high) == (numbers.min(), numbers.max())
    for name in ("mean", "std"):
        assert getattr(found, name) == pytest.approx(getattr(numbers, name)(axis=(0, 2, 3)), rel=1e-13)
    assert found.variance == pytest.approx(numbers.var(axis=(0, 2, 3)), rel=1e-13)


def test_statistics_read_as_a_table() -> None:
    lines = str(some(50).statistics()).splitlines()
    assert [line.split()[0] for line in lines] == ["count", "shape", "min,", "mean", "std", "variance"]


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        some()[:0].statistics()


def test_a_split_leaves_every_picture_in_one_part_and_is_fixed_by_its_seed() -> None:
    data = dataset()
    train, validation = data.split(10, seed=3)
    assert (len(train), len(validation)) == (30, 10)
    parts = torch.cat([train.images, validation.images]).flatten(1)
    assert len(parts.unique(dim=0)) == 40
    again = data.split(10, seed=3)[1]
    other = data.split(10, seed=4)[1]
    assert torch.equal(validation.images, again.images)
    assert not torch.equal(validation.images, other.images)


def test_the_split_of_50_000_is_the_same_on_every_machine() -> None:
    """Its first and last pictures, and the sum of all their places, written down once."""
    places = torch.arange(50_000)
    images = torch.zeros(50_000, 3, 1, 1, dtype=torch.uint8)
    numbered = Pictures(images, places)
    data = Dataset("numbers", "", "", (), numbered, numbered[:1])
    _, validation = data.split()
    assert len(validation) == 5000
    assert validation.labels[:3].tolist() == [2, 3, 11]
    assert int(validation.labels.sum()) == 124_552_199


@pytest.mark.parametrize("validation", [-1, 40, 41])
def test_a_split_that_leaves_nothing_to_learn_from_is_refused(validation: int) -> None:
    with pytest.raises(ValueError, match="validation must be 0 or more"):
        dataset().split(validation)


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_small_shapes_are_generated_shapes_at_half_their_size() -> None:
    data = shapes_dataset(6, 3)
    assert data.categories == CATEGORIES
    assert data.train.images.shape == (6, 3, 32, 32)
    drawn = generate(3, datasets._SMALL_TEST_SEED)
    means = drawn.images.unflatten(2, (32, 2)).unflatten(4, (32, 2)).mean(dim=(3, 5))
    assert (as_floats(data.test.images) - means).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(data.test.labels, drawn.labels)


def test_no_two_uses_of_generated_pictures_share_a_seed() -> None:
    """A picture depends on its seed and number: parts that begin far apart have none in common."""
    from lessons_lib import specimens

    samples = range(specimens._FIRST_SAMPLE_SEED, specimens._FIRST_SAMPLE_SEED + specimens._SEEDS)
    assert samples.start > specimens._SHAPES_SEED
    seeds = [HELD_OUT_SEED, datasets._SMALL_TRAIN_SEED, datasets._SMALL_TEST_SEED, FIRST_TRAINING_SEED]
    assert samples.stop <= seeds[0]
    assert min(later - earlier for earlier, later in pairwise(seeds)) > 1_000_000


def test_fresh_shapes_show_no_picture_twice_in_any_pass_or_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def remember(n: int, seed: int, **_: object) -> object:
        seeds.append(seed)
        return generate(0, seed)

    monkeypatch.setattr(datasets, "generate", remember)
    for seed in range(3):
        fresh = FreshShapes(100, 1, seed)
        for epoch in range(7):
            for number in range(epoch * 100, epoch * 100 + 100):
                fresh.pictures[number]
    assert len(set(seeds)) == 3 * 700
    assert min(seeds) >= FIRST_TRAINING_SEED


def test_fresh_shapes_go_on_where_the_pass_before_ended() -> None:
    fresh = FreshShapes(2, 3, seed=1)
    first = FIRST_TRAINING_SEED * 2
    for epoch in range(2):
        fresh.set_epoch(epoch)
        for step, (images, labels) in enumerate(fresh):
            drawn = generate(3, first + 2 * epoch + step)
            assert torch.equal(images, drawn.images) and torch.equal(labels, drawn.labels)


def test_held_out_shapes_are_as_many_as_asked_for_with_their_mark() -> None:
    batches = list(held_out_shapes(260, seed=77, shortcut=Shortcut("tag", rate=1.0)))
    assert [len(labels) for _, labels in batches] == [250, 10]
    assert torch.equal(batches[1][0], generate(10, 77 + 250, shortcut=Shortcut("tag", rate=1.0)).images)


# --- batches --------------------------------------------------------------------------------------------------------


def numbered(count: int) -> Pictures:
    """Pictures that say which they are: every pixel is the number."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return Pictures(images, torch.arange(count))


def test_every_pass_has_each_picture_once_in_an_order_of_its_own() -> None:
    batches = AugmentedBatches(numbered(24), 6, seed=5)
    orders = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)
        assert labels.sort().values.tolist() == list(range(24))
        orders.append(labels.tolist())
    assert orders[0] != orders[1] != orders[2]
    batches.set_epoch(1)
    assert torch.cat([labels for _, labels in batches]).tolist() == orders[1]


def test_what_does_not_fill_a_batch_is_left_over_and_is_another_each_time() -> None:
    batches = AugmentedBatches(numbered(20), 6)
    assert len(batches) == 3
    left = set()
    for epoch in range(40):
        batches.set_epoch(epoch)
        labels = torch.cat([labels for _, labels in batches]).tolist()
        assert len(labels) == 18
        left |= set(range(20)) - set(labels)
    assert left == set(range(20))


def test_batches_are_augmented_in_the_order_given_by_draws_of_the_pass() -> None:
    pictures = some(16)
    augmented = AugmentedBatches(pictures, 8, (Flip(), PadAndCrop(2)), seed=2)
    augmented.set_epoch(3)
    generator = torch.Generator().manual_seed(seed_of_pass(2, 3))
    order = torch.randperm(16, generator=generator)
    for number, (images, labels) in enumerate(augmented):
        which = order[8 * number : 8 * number + 8]
        expected = PadAndCrop(2)(Flip()(as_floats(pictures.images[which]), generator), generator)
        assert torch.equal(images, expected) and torch.equal(labels, pictures.labels[which])


def test_fewer_pictures_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="20 pictures are too few for a batch of 21"):
        AugmentedBatches(some(20), 21)


def test_no_pass_of_a_seed_repeats_the_draws_of_another() -> None:
    assert len({seed_of_pass(seed, epoch) for seed in range(50) for epoch in range(50)}) == 2500
