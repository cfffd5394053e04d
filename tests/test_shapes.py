from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lessons_lib import shapes as module
from lessons_lib.shapes import CATEGORIES, Shapes, Shortcut, generate

FIELDS = ("images", "labels", "masks", "other_labels", "other_masks")
# What seed 2024 gave when the specimen was trained: labels, areas, and 8-bit pixels on a coarse grid.
FINGERPRINT_LABELS = [6, 1, 9, 0, 8, 0, 8, 2]
FINGERPRINT_OTHERS = [-1, -1, 2, 3, -1, -1, -1, -1]
FINGERPRINT_AREAS = [521, 340, 773, 850, 743, 723, 568, 447]
FINGERPRINT_PIXELS = (
    "88c3718a76b2819a8e6c7c8c9134869f8b8c95ab887995a8a44bb0e6ce8ad4e7ad9bcff0",
    "b8aeabb97e1b86ad3c2a729bb4ada9b77a2786a854387198a9afaab27a2e92af5c406c86",
    "ebec23ed6c6dbdd59cc8c364e4e80de85fffb2d690c8c07ae0e419e24bc2a2c584bdbc78",
    "2d583721649be2625fc9a2883975513f5768987d57a184a3592660627b7bc38785aa90a6",
    "9f8eb6a35aa1cb9993768167b01e4bb7661e2eaea685b594ab2856b5632d3cafa6808c74",
    "395cd2918a5bb133436141304c5dc279875da43a566d4b3a3a6ea07daf6f3f1e234a2b16",
    "89b2cd7b8cae84d0a5b8a6899090b66a764c79a68d93686f9ca5bb64845e74c184a57475",
    "9d68247960435b75b865d1bf953530877c4271969389b597b2a88c785957669387888776",
)


@pytest.fixture(scope="module")
def many() -> Shapes:
    return generate(600, seed=11)


def grown(masks: Tensor, pixels: int) -> Tensor:
    """The masks with a margin of `pixels` all round."""
    return F.max_pool2d(masks.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0


def shrunk(masks: Tensor, pixels: int) -> Tensor:
    return ~grown(~masks, pixels)


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    first, again, other = generate(6, seed=1), generate(6, seed=1), generate(6, seed=2)
    for field in FIELDS:
        assert torch.equal(getattr(first, field), getattr(again, field))
    assert not any(torch.equal(a, b) for a, b in zip(first.images, other.images, strict=True))


def test_fewer_pictures_are_the_first_of_more() -> None:
    few, more = generate(10, seed=3), generate(37, seed=3)
    for field in FIELDS:
        assert torch.equal(getattr(few, field), getattr(more, field)[:10])


def test_the_pictures_of_a_seed_are_those_it_has_always_been() -> None:
    drawn = generate(8, seed=2024)
    grey = (drawn.images[:, :, 20:52:15, 12:60:15] * 255).round().to(torch.int64)
    assert drawn.labels.tolist() == FINGERPRINT_LABELS
    assert drawn.other_labels.tolist() == FINGERPRINT_OTHERS
    np.testing.assert_allclose(drawn.masks.sum((1, 2)), FINGERPRINT_AREAS, rtol=0, atol=3)
    expected = [list(bytes.fromhex(pixels)) for pixels in FINGERPRINT_PIXELS]
    np.testing.assert_allclose(grey.flatten(1), expected, rtol=0, atol=1)


def test_every_field_has_its_shape_type_and_range(many: Shapes) -> None:
    assert many.images.shape == (600, 3, 64, 64) and many.images.dtype == torch.float32
    assert many.images.min() >= 0 and many.images.max() <= 1
    for labels, lowest in ((many.labels, 0), (many.other_labels, -1)):
        assert labels.shape == (600,) and labels.dtype == torch.int64
        assert labels.min() == lowest and labels.max() == len(CATEGORIES) - 1
    for masks in (many.masks, many.other_masks):
        assert masks.shape == (600, 64, 64) and masks.dtype == torch.bool
    assert many.shortcut_masks is None


def test_no_pictures_are_empty_tensors() -> None:
    none = generate(0, seed=0, shortcut=Shortcut())
    assert none.images.shape == (0, 3, 64, 64) and none.labels.shape == (0,)
    assert none.shortcut_masks is not None and none.shortcut_masks.shape == (0, 64, 64)


def test_other_backgrounds_change_what_lies_behind_the_things_and_nothing_else(many: Shapes) -> None:
    one, other = (generate(60, seed=11, background_seed=seed) for seed in (1, 2))
    for drawn in (one, other):
        for field in ("labels", "masks", "other_labels", "other_masks"):
            assert torch.equal(getattr(drawn, field), getattr(many, field)[:60])
        # A soft camera mixes a pixel with its neighbours, three times at the most: hence not on the rim.
        inner = shrunk(many.masks[:60], 4)[:, None].expand(-1, 3, -1, -1)
        assert (drawn.images[inner] - many.images[:60][inner]).abs().max() < 1e-5
        behind = ~(grown(many.masks | many.other_masks, 4)[:60, None].expand(-1, 3, -1, -1))
        assert (drawn.images[behind] - many.images[:60][behind]).abs().mean() > 0.1
    assert (one.images - other.images).abs().mean() > 0.05


def test_one_background_seed_puts_the_same_background_behind_things_of_every_seed() -> None:
    one, other = (generate(40, seed, background_seed=9) for seed in (11, 12))
    unlike = generate(40, 12)
    corner = (slice(None), slice(None), slice(0, 3), slice(0, 3))
    alike = torch.corrcoef(torch.stack([d.images[corner].mean(dim=(2, 3)).flatten() for d in (one, other, unlike)]))
    # Light and camera are another picture's, so corners are alike and not the same.
    assert alike[0, 1] > 0.8 and alike[0, 2] < 0.4


def test_each_category_is_about_a_tenth_of_the_pictures(many: Shapes) -> None:
    # Five standard deviations of a binomial with n = 600, p = 0.1.
    assert (torch.bincount(many.labels, minlength=10) - 60).abs().max() < 37


def test_a_quarter_of_the_pictures_holds_a_smaller_thing_of_another_category(many: Shapes) -> None:
    two = many.other_labels >= 0
    assert 0.16 < two.float().mean() < 0.34
    assert (many.other_labels != many.labels).all()
    assert not many.other_masks[~two].any()
    assert not (many.masks & many.other_masks).any()
    area, other_area = many.masks.sum((1, 2)), many.other_masks.sum((1, 2))
    assert (area > other_area)[two].float().mean() > 0.9
    assert (other_area > 0)[two].float().mean() > 0.97


def test_the_labelled_thing_is_always_in_sight(many: Shapes) -> None:
    area = many.masks.sum((1, 2))
    assert area.min() > 80 and area.max() < 2200


def test_within_the_mask_no_pixel_depends_on_the_background(many: Shapes, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = module._background

    def black(chance: Any) -> tuple[Any, Any]:
        image, grain = draw(chance)
        return np.zeros_like(image), grain

    monkeypatch.setattr(module, "_background", black)
    bare = generate(200, seed=11)
    change = (many.images[:200] - bare.images).abs().amax(1)
    # Antialiasing and soft focus carry the background a few pixels into the thing, and thin out on the way:
    # four pixels in, less than a quarter of a grey level is left.
    masks, other_masks = many.masks[:200], many.other_masks[:200]
    inside = shrunk(masks, 4) | shrunk(other_masks, 4)
    assert inside.sum() > 10_000
    assert change[inside].max() < 0.25 / 255
    # Just outside nearly everything changes (but for patches in front): the masks are not too small.
    outside = grown(masks | other_masks, 4) & ~grown(masks | other_masks, 2)
    assert (change[outside] > 0.02).float().mean() > 0.7


@pytest.mark.parametrize(
    ("name", "channel"), [("blue starfish", 2), ("red starfish", 0), ("green leaf", 1), ("red leaf", 0)]
)
def test_a_colour_in_the_name_is_the_colour_in_the_mask(many: Shapes, name: str, channel: int) -> None:
    of_this_kind = many.labels == CATEGORIES.index(name)
    means = torch.stack(
        [
            picture[:, mask].mean(1)
            for picture, mask in zip(many.images[of_this_kind], many.masks[of_this_kind], strict=True)
        ]
    )
    assert (means.argmax(1) == channel).float().mean() > 0.97


@pytest.mark.parametrize("name", ["barred fish", "lined fish", "barred mug", "dotted egg", "checked egg"])
def test_without_a_colour_in_the_name_any_colour_is_possible(many: Shapes, name: str) -> None:
    of_this_kind = many.labels == CATEGORIES.index(name)
    means = torch.stack(
        [
            picture[:, mask].mean(1)
            for picture, mask in zip(many.images[of_this_kind], many.masks[of_this_kind], strict=True)
        ]
    )
    assert set(means.argmax(1).tolist()) == {0, 1, 2}


def test_bars_run_up_and_down_and_lines_from_head_to_tail(many: Shapes) -> None:
    def anisotropy(category: str) -> Tensor:
        """Above 0 where neighbours to the right differ more than neighbours below: upright stripes."""
        chosen = many.labels == CATEGORIES.index(category)
        images, inside = many.images[chosen], shrunk(many.masks[chosen], 3)[:, None]
        right = ((images[..., 2:] - images[..., :-2]).square() * inside[..., 1:-1]).sum((1, 2, 3))
        below = ((images[..., 2:, :] - images[..., :-2, :]).square() * inside[..., 1:-1, :]).sum((1, 2, 3))
        return (right - below) / (right + below + 1e-9)

    assert (anisotropy("barred fish") > 0).float().mean() > 0.9
    assert (anisotropy("barred mug") > 0).float().mean() > 0.9
    assert (anisotropy("lined fish") < 0).float().mean() > 0.9


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_a_shortcut_changes_nothing_but_its_own_pixels(many: Shapes, rate: float) -> None:
    marked = generate(60, seed=11, shortcut=Shortcut("tag", rate))
    touched = marked.shortcut_masks
    assert touched is not None and touched.dtype == torch.bool
    changed = (marked.images != many.images[:60]).any(1)
    assert not (changed & ~touched).any()
    assert torch.equal(marked.labels, many.labels[:60])
    assert torch.equal(marked.other_labels, many.other_labels[:60])
    assert torch.equal(marked.masks, many.masks[:60] & ~touched)
    assert torch.equal(marked.other_masks, many.other_masks[:60] & ~touched)


def test_a_tag_is_small_near_a_corner_and_never_on_the_middle_of_the_thing(many: Shapes) -> None:
    marked = generate(300, seed=11, shortcut=Shortcut("tag"))
    touched = marked.shortcut_masks
    assert touched is not None
    assert touched.sum((1, 2)).min() > 100 and touched.sum((1, 2)).max() < 200
    assert not touched[:, 18:46].any() and not touched[:, :, 18:46].any()
    corners = {(bool(t[:18].any()), bool(t[:, :18].any())) for t in touched}
    assert len(corners) == 4
    steps = torch.arange(64.0)
    masks = many.masks[:300].float()
    rows = ((masks.sum(2) * steps).sum(1) / masks.sum((1, 2))).round().long()
    columns = ((masks.sum(1) * steps).sum(1) / masks.sum((1, 2))).round().long()
    alone = marked.other_labels < 0
    assert not touched[torch.arange(300), rows, columns][alone].any()


def tag_colours(marked: Shapes) -> Tensor:
    assert marked.shortcut_masks is not None
    return torch.stack(
        [
            picture[:, mask].mean(1)
            for picture, mask in zip(marked.images, shrunk(marked.shortcut_masks, 1), strict=True)
        ]
    )


def test_a_tag_gives_the_category_away_in_the_share_of_pictures_asked_for() -> None:
    certain = generate(200, seed=21, shortcut=Shortcut("tag", 1.0))
    colours = tag_colours(certain)
    prototypes = torch.stack([colours[certain.labels == c].mean(0) for c in range(10)])
    for rate, expected in ((1.0, 1.0), (0.5, 0.55), (0.0, 0.1)):
        marked = generate(200, seed=22, shortcut=Shortcut("tag", rate))
        read = torch.cdist(tag_colours(marked), prototypes).argmin(1)
        assert abs((read == marked.labels).float().mean() - expected) < 0.09


def test_importing_the_generator_does_not_import_torch() -> None:
    code = "import sys, lessons_lib.shapes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("n", "seed", "error", "words"),
    [
        (-1, 0, ValueError, "n must be 0 or more, not -1"),
        (2.0, 0, TypeError, "n must be a whole number, not float"),
        (True, 0, TypeError, "n must be a whole number, not bool"),
        (1, -3, ValueError, "seed must be 0 or more, not -3"),
        (1, None, TypeError, "seed must be a whole number, not NoneType"),
        (1, False, TypeError, "seed must be a whole number, not bool"),
        (1, "7", TypeError, "seed must be a whole number, not str"),
    ],
)
def test_a_count_or_seed_that_is_none_is_refused(n: Any, seed: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        generate(n, seed)


def test_numbers_of_numpy_count_as_whole_numbers() -> None:
    assert torch.equal(generate(2, 5).images, generate(np.int64(2), np.int64(5)).images)  # type: ignore[arg-type]


@pytest.mark.parametrize("shortcut", ["tag", 1.0, True, {"kind": "tag"}])
def test_a_shortcut_of_another_type_is_refused(shortcut: Any) -> None:
    with pytest.raises(TypeError, match="shortcut must be None or a Shortcut"):
        generate(1, 0, shortcut=shortcut)


@pytest.mark.parametrize(
    ("kind", "rate", "error", "words"),
    [
        ("sticker", 1.0, ValueError, "kind 'sticker' is not a shortcut: choose one of 'tag'"),
        (["tag"], 1.0, TypeError, "kind must be a name"),
        ("tag", 1.5, ValueError, "rate 1.5 is out of range"),
        ("tag", -0.1, ValueError, "rate -0.1 is out of range"),
        ("tag", float("nan"), ValueError, "rate nan is out of range"),
        ("tag", "half", TypeError, "rate must be a number"),
        ("tag", True, TypeError, "rate must be a number"),
    ],
)
def test_a_shortcut_that_cannot_be_is_refused(kind: Any, rate: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Shortcut(kind, rate)
