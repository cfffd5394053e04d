"""Augmentations: each does to every picture what its name says, by draws of its own, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lessons_lib.augmentation import (
    Augmentation,
    CoarseDropout,
    ColourJitter,
    Flip,
    PadAndCrop,
    ShiftScaleRotate,
    recoloured,
)

EACH: list[Augmentation] = [
    Flip(),
    PadAndCrop(3),
    PadAndCrop(3, fill=None),
    ShiftScaleRotate(),
    CoarseDropout(5, holes=2),
    ColourJitter(),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, height: int = 12, width: int = 16) -> Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(9))


@pytest.mark.parametrize("augment", EACH)
def test_a_seed_makes_the_same_pictures_and_another_makes_others(augment: Augmentation) -> None:
    images = pictures()
    before = images.clone()
    made = augment(images, seeded(1))
    assert torch.equal(images, before)
    assert made.shape == images.shape and made.dtype == images.dtype
    assert made.min() >= 0 and made.max() <= 1
    assert torch.equal(made, augment(images, seeded(1)))
    assert not torch.equal(made, augment(images, seeded(2)))


@pytest.mark.parametrize("augment", EACH)
def test_the_layout_in_memory_does_not_change_what_is_made(augment: Augmentation) -> None:
    images = pictures()
    other = augment(images.contiguous(memory_format=torch.channels_last), seeded(1))
    torch.testing.assert_close(other, augment(images, seeded(1)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("augment", EACH)
def test_pictures_of_a_batch_get_draws_of_their_own(augment: Augmentation) -> None:
    same = pictures(1).expand(64, -1, -1, -1)
    made = augment(same, seeded()).flatten(1)
    assert len(made.unique(dim=0)) >= 2
    if not isinstance(augment, Flip):
        assert len(made.unique(dim=0)) > 10


@pytest.mark.parametrize(
    "augment",
    [Flip(p=0), ShiftScaleRotate(p=0), CoarseDropout(4, p=0), PadAndCrop(0), ColourJitter(p=0), ColourJitter(0, 0)],
)
def test_what_never_happens_changes_nothing(augment: Augmentation) -> None:
    images = pictures()
    torch.testing.assert_close(augment(images, seeded()), images, rtol=0, atol=1e-5)


def test_a_flip_exchanges_left_and_right_of_about_half_of_the_pictures() -> None:
    images = pictures(1000)
    made = Flip()(images, seeded())
    flipped = (made == images.flip(3)).flatten(1).all(dim=1)
    kept = (made == images).flatten(1).all(dim=1)
    assert (flipped ^ kept).all()
    assert 430 < flipped.sum() < 570
    assert torch.equal(Flip(p=1)(images, seeded()), images.flip(3))


@pytest.mark.parametrize("fill", [None, 0.0, 0.5])
def test_padding_and_cropping_moves_a_picture_by_every_distance_within_reach(fill: float | None) -> None:
    """Each result is one of the 25 crops of PyTorch's padded picture, and all 25 come up."""
    picture = pictures(1)
    mode: dict[str, Any] = {"mode": "reflect"} if fill is None else {"value": fill}
    padded = torch.nn.functional.pad(picture, (2, 2, 2, 2), **mode)
    crops = torch.stack([padded[0, :, y : y + 12, x : x + 16] for y in range(5) for x in range(5)])
    made = PadAndCrop(2, fill=fill)(picture.expand(500, -1, -1, -1), seeded())
    which = [int((crops == one).flatten(1).all(dim=1).nonzero()) for one in made]
    counts = torch.tensor(which).bincount(minlength=25)
    assert counts.min() > 5  # 20 expected


def test_shift_scale_and_rotation_stay_within_their_limits_and_reach_them() -> None:
    """A picture of its own coordinates tells which affine map was applied: its middle is in reach of no border."""
    side, shift, scale, rotate = 65, 0.05, 0.2, 20.0
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    coordinates = torch.stack([axis.expand(side, side), axis[:, None].expand(side, side), torch.zeros(side, side)])
    made = ShiftScaleRotate(shift, scale, rotate, p=1)(coordinates.expand(400, -1, -1, -1), seeded())
    middle = side // 2
    here, right, below = (made[:, :2, middle + y, middle + x] for y, x in ((0, 0), (0, 1), (1, 0)))
    along, down = right - here, below - here
    zoom, angle = 1 / along.norm(dim=1), torch.atan2(along[:, 1], along[:, 0]) * 180 / math.pi
    # The map is a similarity: its columns are as long as each other, and at right angles.
    torch.testing.assert_close(along.norm(dim=1), down.norm(dim=1))
    assert (along * down).sum(dim=1).abs().max() < 1e-9
    moved = here / side
    for found, low, high in (
        (zoom, 1 - scale, 1 + scale),
        (angle, -rotate, rotate),
        (moved[:, 0], -shift, shift),
        (moved[:, 1], -shift, shift),
    ):
        assert low - 1e-6 <= found.min() and found.max() <= high + 1e-6
        reach = high - low
        assert found.min() < low + 0.05 * reach and found.max() > high - 0.05 * reach


def test_a_picture_that_is_not_square_is_turned_without_being_bent() -> None:
    rows, columns = torch.meshgrid(
        torch.arange(33.0, dtype=torch.float64) - 16, torch.arange(65.0, dtype=torch.float64) - 32, indexing="ij"
    )
    coordinates = torch.stack([columns, rows, rows])
    made = ShiftScaleRotate(0, 0, 30, p=1)(coordinates.expand(20, -1, -1, -1), seeded())
    along = made[:, :2, 16, 33] - made[:, :2, 16, 32]
    down = made[:, :2, 17, 32] - made[:, :2, 16, 32]
    torch.testing.assert_close(along.norm(dim=1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(down.norm(dim=1), torch.ones(20, dtype=torch.float64))


def test_a_turned_picture_is_what_pytorch_samples_by_the_same_map_borders_included() -> None:
    """The map is read from the middle of a picture of its own coordinates; the whole picture is held against it."""
    augment, height, width = ShiftScaleRotate(0.2, 0.3, 40, p=1), 33, 65
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - height // 2,
        torch.arange(width, dtype=torch.float64) - width // 2,
        indexing="ij",
    )
    coordinates = torch.stack([columns, rows, rows]).expand(20, -1, -1, -1)
    told = augment(coordinates, seeded())[:, :2, height // 2 : height // 2 + 2, width // 2 : width // 2 + 2]
    here = told[:, :, 0, 0]
    maps = torch.stack([told[:, :, 0, 1] - here, told[:, :, 1, 0] - here, here], dim=2)  # in pixels
    # affine_grid counts half sides.
    halves = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    maps = maps * torch.cat([halves, torch.ones(1, dtype=torch.float64)]) / halves[:, None]
    images = pictures(20, height, width).double()
    grid = torch.nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(augment(images, seeded()), expected, rtol=0, atol=1e-9)


def test_coarse_dropout_fills_one_square_whose_middle_may_be_any_pixel() -> None:
    size, fill = 4, (0.1, 0.2, 0.3)
    images = pictures(2000)
    made = CoarseDropout(size, fill=fill)(images, seeded())
    covered = (made != images).any(dim=1)
    colour = torch.tensor(fill).view(3, 1, 1).expand_as(images)
    assert torch.equal(made, torch.where(covered[:, None], colour, images))
    middles = set()
    for one in covered:
        rows, columns = one.any(dim=1).nonzero().flatten(), one.any(dim=0).nonzero().flatten()
        assert one.sum() == len(rows) * len(columns)  # a rectangle without a gap
        assert len(rows) <= size and len(columns) <= size
        top = int(rows[0]) if len(rows) == size or rows[0] > 0 else int(rows[-1]) + 1 - size
        left = int(columns[0]) if len(columns) == size or columns[0] > 0 else int(columns[-1]) + 1 - size
        middles.add((top + size // 2, left + size // 2))
    assert middles == {(y, x) for y in range(12) for x in range(16)}


def test_several_holes_cover_more_than_one() -> None:
    images = pictures(300)
    one, three = ((CoarseDropout(3, holes=n)(images, seeded()) != images).any(dim=1).sum() for n in (1, 3))
    assert 2 * one < three <= 3 * 9 * 300


def test_coarse_dropout_happens_with_its_probability() -> None:
    images = pictures(1000)
    changed = (CoarseDropout(3, p=0.3)(images, seeded()) != images).flatten(1).any(dim=1).sum()
    assert 240 < changed < 360


LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


def muted(count: int = 20) -> Tensor:
    """Near enough to grey that no change of hue leaves [0, 1]."""
    return 0.5 + 0.2 * (pictures(count) - 0.5)


def test_recolouring_keeps_luma_and_half_a_turn_twice_is_none() -> None:
    images = muted()
    for turn, strength in ((0.1, 1.0), (0.5, 1.5), (-0.25, 0.3)):
        made = recoloured(images, turn, strength)
        torch.testing.assert_close((made * LUMA).sum(1), (images * LUMA).sum(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(recoloured(recoloured(images, 0.5), 0.5), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(recoloured(images), images, rtol=0, atol=1e-6)


def test_without_strength_a_picture_is_grey_with_its_own_luma() -> None:
    images = pictures()
    grey = recoloured(images, strength=0.0)
    torch.testing.assert_close(grey, (images * LUMA).sum(1, keepdim=True).expand_as(images), rtol=0, atol=1e-5)


def test_grey_stays_grey_whatever_is_done_to_hues() -> None:
    grey = pictures().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(recoloured(grey, 0.3, 1.7), grey, rtol=0, atol=1e-5)


def test_half_a_turn_makes_the_complement_in_the_plane_of_colours() -> None:
    """What is left of luma changes its sign."""
    images = muted()
    luma = (images * LUMA).sum(1, keepdim=True)
    torch.testing.assert_close(recoloured(images, 0.5) - luma, luma - images, rtol=0, atol=1e-5)


def test_colour_jitter_stays_within_its_limits_and_reaches_them() -> None:
    """The plane of one colour tells by how much each picture was turned, and how much stronger it became."""
    colour = torch.tensor([0.55, 0.5, 0.45]).view(1, 3, 1, 1).expand(4000, -1, 2, 2)
    made = ColourJitter(hue=0.1, saturation=0.4)(colour, seeded())[:, :, 0, 0].double()
    to_plane = torch.tensor([[0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64)
    before, after = colour[0, :, 0, 0].double() @ to_plane.T, made @ to_plane.T
    strength = after.norm(dim=1) / before.norm()
    turn = (torch.atan2(after[:, 1], after[:, 0]) - torch.atan2(before[1], before[0])) / (2 * math.pi)
    assert 0.6 - 1e-4 <= strength.min() < 0.61 and 1.39 < strength.max() <= 1.4 + 1e-4
    assert -0.1 - 1e-4 <= turn.min() < -0.098 and 0.098 < turn.max() <= 0.1 + 1e-4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Flip(p=1.5), "p must be a probability, from 0 to 1, not 1.5"),
        (lambda: ShiftScaleRotate(p=-1), "p must be a probability"),
        (lambda: ShiftScaleRotate(scale=1.0), "scale must be 0 or more and below 1, not 1.0"),
        (lambda: CoarseDropout(0), "size and holes must be 1 or more, not 0 and 1"),
        (lambda: PadAndCrop(-1), "padding must be 0 or more, not -1"),
        (lambda: ColourJitter(hue=0.6), "hue must lie in"),
        (lambda: ColourJitter(saturation=2.0), "saturation in"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
