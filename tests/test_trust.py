"""Scores of maps whose score is known by construction, curves of a network whose curve is, and what libraries say.

`tests/oracles/test_peers.py` compares with quantus, in an environment of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import network, pictures
from scipy import stats
from torch import Tensor, nn

from lessons_lib.saliency import input_gradient
from lessons_lib.trust import (
    deletion,
    energy_inside,
    insertion,
    intersection_over_union,
    interval,
    league_table,
    linear_imputation,
    pointing_game,
    randomize_layers,
    rank_correlation,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def square(top: int, left: int, side: int, size: int = 8) -> Tensor:
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[:, top : top + side, left : left + side] = True
    return mask


# --- where the truth is known ------------------------------------------------------------------------------------

MASK = square(2, 2, 4)  # a quarter of the 64 pixels
# By construction: pointing game, energy inside, intersection over union.
KNOWN: dict[str, tuple[Tensor, tuple[float, float, float]]] = {
    "the mask itself": (MASK.float(), (1, 1, 1)),
    "all but the mask": ((~MASK).float(), (0, 0, 0)),
    "even": (torch.full((1, 8, 8), 0.3), (1 / 4, 1 / 4, 4 / 28)),
    "nothing": (torch.zeros(1, 8, 8), (0, 0, 0)),
    "half of it, and as much beside it": (square(2, 4, 4).float(), (1 / 2, 1 / 2, 8 / 24)),
    "one pixel in it": (square(3, 3, 1).float(), (1, 1, (1 + 15 * 15 / 63) / (32 - 1 - 15 * 15 / 63))),
    "a peak outside of an even mask": (MASK.float() + 2 * square(0, 0, 1).float(), (0, 16 / 18, 15 / 17)),
    "a quarter of it, four times as bright as the rest": (
        (1 + 3 * square(2, 2, 2).float()) * MASK.float() + 1e-9,
        (1, 1, 1),
    ),
}
LOCALIZATION = pointing_game, energy_inside, intersection_over_union


@pytest.mark.parametrize("name", KNOWN)
def test_a_map_whose_scores_are_known_gets_them(name: str) -> None:
    maps, wanted = KNOWN[name]
    found = [metric(maps, MASK).item() for metric in LOCALIZATION]
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("metric", LOCALIZATION)
def test_maps_in_a_batch_do_not_know_of_each_other(metric: Callable[..., Tensor]) -> None:
    maps, masks = noise(5, 9, 7), noise(5, 9, 7, seed=1) > 0.6
    alone = [metric(maps[i : i + 1], masks[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(metric(maps, masks), torch.cat(alone))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(0.05, 0.95))
def test_scores_lie_in_bounds_and_do_not_know_how_bright_a_map_is(seed: int, factor: float, share: float) -> None:
    maps = noise(3, 6, 9, seed=seed)
    masks = noise(3, 6, 9, seed=seed + 1) < share
    masks[:, 0, 0] = True
    for metric in LOCALIZATION:
        found = metric(maps, masks)
        assert ((found >= 0) & (found <= 1)).all()
        torch.testing.assert_close(metric(maps * factor, masks), found, rtol=1e-4, atol=1e-4)
        everything = torch.ones_like(masks)
        torch.testing.assert_close(metric(maps, everything), torch.ones(3))


def test_what_the_map_says_beyond_its_order_counts_for_its_energy_alone() -> None:
    maps, masks = noise(4, 8, 8), noise(4, 8, 8, seed=1) > 0.7
    for metric in (pointing_game, intersection_over_union):
        torch.testing.assert_close(metric(maps**3, masks), metric(maps, masks))
    assert (energy_inside(maps**3, masks) - energy_inside(maps, masks)).abs().min() > 0.001


def test_a_tolerance_lets_a_peak_beside_the_mask_count() -> None:
    peak = square(0, 3, 1).float()  # two rows above it
    assert [pointing_game(peak, MASK, tolerance=t).item() for t in (0, 1, 2, 3)] == [0, 0, 1, 1]
    aslant = square(1, 1, 1).float()  # a row and a column away: further than one pixel
    assert [pointing_game(aslant, MASK, tolerance=t).item() for t in (1, 2)] == [0, 1]
    both = pointing_game(torch.cat([peak, aslant]), torch.cat([square(6, 6, 2), MASK]), tolerance=2)
    assert both.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_neither_large_pictures_nor_large_numbers_are_too_much(dtype: torch.dtype) -> None:
    mask = torch.zeros(1, 300, 300, dtype=torch.bool)
    mask[:, :150] = True
    for maps in (torch.ones(1, 300, 300, dtype=dtype), torch.full((1, 300, 300), torch.finfo(dtype).max, dtype=dtype)):
        for metric in (pointing_game, energy_inside, partial(intersection_over_union, threshold=0.5)):
            found = metric(maps, mask)
            assert found.item() == pytest.approx(0.5, abs=1e-4)
            assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_with_a_threshold_the_part_is_what_reaches_that_share_of_the_maximum() -> None:
    maps = MASK.float() + 0.5 * square(0, 0, 2).float()  # overlap of the two: none
    assert intersection_over_union(maps, MASK, threshold=0.6).item() == 1
    assert intersection_over_union(maps, MASK, threshold=0.5).item() == pytest.approx(16 / 20)
    assert intersection_over_union(torch.zeros(1, 8, 8), MASK, threshold=0.5).item() == 0
    faint = torch.cat([maps, 0.01 * maps])  # each map has a maximum of its own
    assert intersection_over_union(faint, MASK.expand(2, -1, -1), threshold=0.6).tolist() == [1, 1]


@pytest.mark.parametrize("metric", LOCALIZATION)
@pytest.mark.parametrize(
    ("maps", "masks", "error", "words"),
    [
        (None, MASK, TypeError, "maps must be a tensor"),
        (torch.ones(8, 8), MASK, ValueError, r"maps must have the shape \(N, H, W\)"),
        (torch.ones(1, 8, 8, dtype=torch.int64), MASK, TypeError, "floating point"),
        (torch.full((1, 8, 8), torch.nan), MASK, ValueError, "finite"),
        (-torch.ones(1, 8, 8), MASK, ValueError, "0 or more: choose"),
        (torch.ones(1, 8, 8), None, TypeError, "masks must be a tensor"),
        (torch.ones(2, 8, 8), MASK, ValueError, r"masks must have the shape \(1|2, 8, 8\)"),
        (torch.ones(1, 8, 8), MASK.float(), TypeError, "masks must be bool"),
        (torch.ones(1, 8, 8), ~(MASK | True), ValueError, "picture 0 is empty"),
    ],
)
def test_bad_maps_and_masks_are_refused(
    metric: Callable[..., Tensor], maps: Any, masks: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        metric(maps, masks)


@pytest.mark.parametrize("threshold", [0, 1.5, -0.1])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold must lie in"):
        intersection_over_union(MASK.float(), MASK, threshold=threshold)


# --- league tables -----------------------------------------------------------------------------------------------


def test_an_interval_is_that_of_the_percentile_bootstrap() -> None:
    values = noise(300) ** 2
    found = interval(values)
    assert found.mean == pytest.approx(values.mean().item())
    library = stats.bootstrap((values.numpy(),), np.mean, method="percentile", n_resamples=4000, random_state=0)
    assert found.low == pytest.approx(library.confidence_interval.low, abs=0.004)
    assert found.high == pytest.approx(library.confidence_interval.high, abs=0.004)


def test_an_interval_of_95_percent_holds_the_truth_about_as_often() -> None:
    random = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(300):
        found = interval((torch.rand(80, generator=random) < 0.3).float())
        held += found.low <= 0.3 <= found.high
    assert 0.91 <= held / 300 <= 0.98


def test_the_intervals_of_two_methods_use_the_same_pictures() -> None:
    first, second = noise(50), noise(50, seed=1)
    shifted = interval(first + 2)
    assert interval(first - second).mean == pytest.approx(interval(first).mean - interval(second).mean)
    assert (shifted.low, shifted.high) == pytest.approx((interval(first).low + 2, interval(first).high + 2))


def test_more_confidence_makes_an_interval_wider_and_another_seed_another_one() -> None:
    values = noise(60)
    sure, usual, other = interval(values, confidence=0.99), interval(values), interval(values, seed=1)
    assert sure.low < usual.low < usual.high < sure.high
    assert usual != other and usual == interval(values, seed=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    table = league_table({"a": {"x": values}}, confidence=0.99)
    assert table["a"]["x"] == sure


def test_the_order_of_a_methods_scores_does_not_matter() -> None:
    table = league_table({"a": {"x": noise(9), "y": noise(9) + 5}, "b": {"y": noise(9), "x": noise(9) + 1}})
    assert [*table] == ["b", "a"] and [*table["b"]] == ["x", "y"]


def test_a_constant_has_an_interval_without_width() -> None:
    found = interval(torch.ones(20))
    assert (found.mean, found.low, found.high) == (1, 1, 1) and str(found) == "1.00 (1.00 to 1.00)"


def test_a_league_table_is_sorted_by_its_first_score() -> None:
    scores = {
        name: {"one": noise(40, seed=seed) + add, "two": noise(40, seed=seed) - add}
        for seed, (name, add) in enumerate({"weak": 0.0, "strong": 2.0, "middling": 1.0}.items())
    }
    table = league_table(scores)
    assert [*table] == ["strong", "middling", "weak"]
    assert [*table["weak"]] == ["one", "two"]
    assert table["strong"]["two"] == interval(scores["strong"]["two"])


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"a": {"x": noise(4)}, "b": {"x": noise(5)}}, "scores of 'b'"),
        ({"a": {"x": noise(4)}, "b": {"y": noise(4)}}, "scores of 'b'"),
        ({}, "scores is empty"),
        ({"a": {}}, "scores is empty"),
        ({"a": {"x": torch.tensor([0.5, torch.nan])}}, "finite numbers"),
        ({"a": {"x": noise(3, 4)}}, "values must be"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(scores: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        league_table(scores)


# --- deletion and insertion --------------------------------------------------------------------------------------


class Sum(nn.Module):
    """Logits that are sums of weighted pixels: what each pixel brings is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", images, self.weight) + 0.5


LINEAR, IMAGES = Sum(), noise(4, 3, 6, 6, seed=3)
TARGETS = torch.tensor([0, 2, 1, 2])


def brought(images: Tensor = IMAGES, start: float = 0.0) -> Tensor:
    return ((images - start) * LINEAR.weight.detach()[TARGETS]).sum(dim=1)


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_a_linear_score_falls_by_what_the_pixels_bring_from_the_most_down(baseline: float) -> None:
    found = deletion(LINEAR, IMAGES, brought(start=baseline), TARGETS, baseline=baseline, steps=36, probability=False)
    start = LINEAR(IMAGES).gather(1, TARGETS[:, None]).detach()
    falls = brought(start=baseline).flatten(1).sort(dim=1, descending=True).values.cumsum(dim=1)
    torch.testing.assert_close(found.scores, torch.cat([start, start - falls], dim=1), rtol=0, atol=1e-4)
    assert found.shares.tolist() == pytest.approx([k / 36 for k in range(37)])


def test_what_deletion_takes_insertion_brings() -> None:
    settings: dict[str, Any] = {"baseline": 0.25, "steps": 9, "probability": False}
    gone, come = (of(LINEAR, IMAGES, brought(), TARGETS, **settings).scores for of in (deletion, insertion))
    ends = gone[:, :1] + come[:, :1]
    torch.testing.assert_close(gone + come, ends.expand(-1, 10), rtol=0, atol=1e-4)


def test_no_order_makes_a_linear_score_fall_sooner_than_that_of_the_shares() -> None:
    best = deletion(LINEAR, IMAGES, brought(), TARGETS, baseline=0.0, steps=36, probability=False).area
    for seed in range(20):
        other = deletion(LINEAR, IMAGES, noise(4, 6, 6, seed=seed), TARGETS, baseline=0.0, steps=36, probability=False)
        assert (best < other.area).all()


def test_the_area_is_the_mean_of_the_curve() -> None:
    found = deletion(LINEAR, IMAGES, brought(), TARGETS, steps=8)
    middles = (found.scores[:, 1:] + found.scores[:, :-1]) / 2
    torch.testing.assert_close(found.area, middles.mean(dim=1))


@pytest.mark.parametrize("of", [deletion, insertion])
def test_curves_go_from_the_picture_to_the_baseline_in_probabilities(of: Callable[..., Any]) -> None:
    model, images = network("shapes"), pictures()
    found = of(model, images, noise(2, 64, 64), steps=4, baseline=0.3)
    with torch.no_grad():
        own = model(images).softmax(dim=1).amax(dim=1)
        said = model(images).argmax(dim=1)
        grey = model(torch.full_like(images, 0.3)).softmax(dim=1).gather(1, said[:, None])[:, 0]
    first, last = (own, grey) if of is deletion else (grey, own)
    torch.testing.assert_close(found.scores[:, 0], first)
    torch.testing.assert_close(found.scores[:, -1], last)


@pytest.mark.parametrize("of", [deletion, insertion])
def test_neither_the_batch_nor_the_other_pictures_change_a_curve(of: Callable[..., Any]) -> None:
    maps = noise(4, 6, 6)
    whole = of(LINEAR, IMAGES, maps, TARGETS, steps=5)
    small = of(LINEAR, IMAGES, maps, TARGETS, steps=5, batch_size=3)
    alone = of(LINEAR, IMAGES[2:3], maps[2:3], 1, steps=5)
    torch.testing.assert_close(small.scores, whole.scores)
    torch.testing.assert_close(alone.scores, whole.scores[2:3])
    made_up = of(LINEAR, IMAGES, maps, TARGETS, steps=5, baseline=linear_imputation)
    one = of(LINEAR, IMAGES[2:3], maps[2:3], 1, steps=5, baseline=linear_imputation)
    torch.testing.assert_close(one.scores, made_up.scores[2:3])


def test_no_more_pictures_are_looked_at_together_than_asked() -> None:
    sizes: list[int] = []

    class Counting(Sum):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return super().forward(images)

    for target in (None, TARGETS):
        deletion(Counting(), IMAGES, brought(), target, steps=2, batch_size=3)
    assert max(sizes) == 3


@pytest.mark.parametrize(("of", "first"), [(deletion, False), (insertion, True)])
def test_a_function_is_told_which_pixels_are_kept_and_may_do_what_it_likes(of: Callable[..., Any], first: bool) -> None:
    images, told = IMAGES.clone(), list[Tensor]()

    def grey(images: Tensor, kept: Tensor) -> Tensor:
        told.append(kept.clone())
        images.permute(0, 2, 3, 1)[~kept] = 0.5
        return images

    found = of(LINEAR, images, brought(), TARGETS, baseline=grey, steps=6)
    torch.testing.assert_close(found.scores, of(LINEAR, IMAGES, brought(), TARGETS, steps=6).scores)
    assert torch.equal(images, IMAGES)
    brightest = brought().flatten(1).argmax(dim=1)
    assert (told[1].flatten(1).gather(1, brightest[:, None]) == first).all()


def test_a_target_may_be_a_function_and_is_asked_as_it_is() -> None:
    asked = deletion(LINEAR, IMAGES, brought(), lambda logits: logits[:, 0] - logits[:, 1], baseline=0.0, steps=2)
    with torch.no_grad():
        logits = LINEAR(IMAGES)
    torch.testing.assert_close(asked.scores[:, 0], logits[:, 0] - logits[:, 1])
    torch.testing.assert_close(asked.scores[:, -1], torch.zeros(4), rtol=0, atol=1e-5)


def test_equal_numbers_go_in_an_order_that_is_drawn() -> None:
    gone: list[Tensor] = []

    def spy(images: Tensor, kept: Tensor) -> Tensor:
        gone.append(~kept)
        return torch.zeros_like(images)

    maps = torch.zeros(4, 6, 6)
    maps[:, 4, 4] = 1
    deletion(LINEAR, IMAGES, maps, TARGETS, baseline=spy, steps=4)
    assert [int(step[0].sum()) for step in gone] == [0, 9, 18, 27, 36]
    assert all(step[:, 4, 4].all() for step in gone[1:])
    assert all((after | ~before).all() for before, after in pairwise(gone))
    assert not gone[1][0, 0].all()  # not simply the first row
    first = gone[1].clone()
    gone.clear()
    deletion(LINEAR, IMAGES, maps, TARGETS, baseline=spy, steps=4, seed=1)
    assert not torch.equal(first, gone[1])


def test_a_baseline_may_be_a_picture() -> None:
    found = deletion(LINEAR, IMAGES, brought(), TARGETS, baseline=IMAGES.flip(3), steps=1, probability=False)
    wanted = LINEAR(IMAGES.flip(3)).gather(1, TARGETS[:, None])[:, 0]
    torch.testing.assert_close(found.scores[:, 1], wanted.detach())


@pytest.mark.parametrize("of", [deletion, insertion])
@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"maps": noise(4, 5, 6)}, ValueError, "maps must have the shape"),
        ({"maps": "bright"}, TypeError, "maps must be a tensor"),
        ({"steps": 0}, ValueError, "steps must be 1 or more"),
        ({"batch_size": 0}, ValueError, "batch_size must be 1 or more"),
        ({"baseline": torch.zeros(5, 5)}, ValueError, "does not broadcast"),
        ({"baseline": float("nan")}, ValueError, "baseline must be finite"),
        ({"baseline": "black"}, TypeError, "baseline must be a number"),
        ({"baseline": float}, TypeError, "baseline must be a number"),
        ({"baseline": lambda images, kept: images[:1]}, ValueError, "baseline must make pictures"),
        ({"baseline": lambda images, kept: images.numpy()}, ValueError, "baseline must make pictures"),
        ({"baseline": lambda images, kept: images * torch.nan}, ValueError, "baseline must be finite"),
        ({"target": 7}, ValueError, "target 7 is out of range"),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
    ],
)
def test_bad_input_for_a_curve_is_refused(
    of: Callable[..., Any], changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        of(LINEAR, IMAGES, **({"maps": brought(), "target": TARGETS} | changed))


def test_what_puts_out_no_logits_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return images, images

    with pytest.raises(ValueError, match="model must put out logits"):
        deletion(Two(), IMAGES, brought())


# --- linear imputation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
def test_linear_imputation_is_that_of_road(share: float) -> None:
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    images = noise(3, 3, 17, 12)
    kept = noise(3, 17, 12, seed=1) > share
    kept[0, :6, :6] = kept[1, 5:, :] = False  # holes at a corner, and over the whole width
    kept[:, 1, 1] = True
    ours = linear_imputation(images, kept, noise=0.0)
    for image, own, found in zip(images, kept, ours, strict=True):
        theirs = NoisyLinearImputer(noise=0.0)(image, own.float())
        torch.testing.assert_close(found, theirs, rtol=0, atol=1e-5)


def test_what_is_kept_stays_and_an_even_picture_stays_even() -> None:
    images, kept = noise(2, 3, 10, 10), noise(2, 10, 10, seed=1) > 0.5
    filled = linear_imputation(images, kept)
    assert torch.equal(filled.permute(0, 2, 3, 1)[kept], images.permute(0, 2, 3, 1)[kept])
    assert not torch.equal(filled, images)
    even = torch.full((2, 3, 10, 10), 0.7)
    torch.testing.assert_close(linear_imputation(even, kept, noise=0.0), even)
    assert torch.equal(linear_imputation(images, torch.ones_like(kept)), images)
    grey = linear_imputation(images, torch.zeros_like(kept), noise=0.0)
    assert torch.equal(grey, torch.full_like(images, 0.5))


def test_noise_is_added_where_pixels_were_made_up_and_only_there() -> None:
    images, kept = noise(1, 3, 40, 40), noise(1, 40, 40, seed=1) > 0.5
    plain, noisy, other = (linear_imputation(images, kept, noise=n, seed=s) for n, s in ((0.0, 0), (0.1, 0), (0.1, 1)))
    change = (noisy - plain).permute(0, 2, 3, 1)
    assert change[kept].abs().max() == 0
    assert change[~kept].std().item() == pytest.approx(0.1, rel=0.1)
    assert not torch.equal(noisy, other)


def test_deletion_takes_linear_imputation_as_its_baseline() -> None:
    model, images = network("shapes"), pictures()
    found = deletion(model, images, noise(2, 64, 64), baseline=linear_imputation, steps=2)
    grey = deletion(model, images, noise(2, 64, 64), baseline=0.5, steps=2)
    assert torch.equal(found.scores[:, 0], grey.scores[:, 0])
    assert (found.scores[:, 1] - grey.scores[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kept", "error", "words"),
    [
        (noise(2, 10, 10), TypeError, "kept must be bool"),
        (noise(1, 10, 10) > 0.5, ValueError, "kept must have the shape"),
        (None, TypeError, "kept must be a tensor"),
    ],
)
def test_imputation_refuses_what_does_not_say_which_pixels_are_kept(
    kept: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        linear_imputation(noise(2, 3, 10, 10), kept)


# --- networks that forget ----------------------------------------------------------------------------------------


def changed(one: nn.Module, other: nn.Module) -> set[str]:
    """The modules of which a number differs."""
    pairs = zip(one.state_dict().items(), other.state_dict().values(), strict=True)
    return {name.rpartition(".")[0] for (name, value), its in pairs if not torch.equal(value, its)}


def test_layers_are_forgotten_from_the_answer_down() -> None:
    model = network("shapes")
    before = copy.deepcopy(model.state_dict())
    layers = ["resnet.stem", "resnet.stage1", "resnet.stage4", "resnet.head"]
    names, models = zip(*randomize_layers(model, layers), strict=True)
    assert list(names) == layers[::-1]
    for count, forgetful in enumerate(models, 1):
        own = changed(model, forgetful)
        assert {name.split(".")[1] for name in own} == {name.split(".")[1] for name in names[:count]}
        wanted = {n for n, m in model.named_modules() if n.startswith(names[:count]) and [*m.parameters(recurse=False)]}
        assert own == wanted
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len({id(each) for each in models}) == len(models)


def test_independent_copies_have_forgotten_one_layer_each_and_get_the_same_weights() -> None:
    model = network("shapes")
    layers = ["resnet.stage1", "resnet.stage2", "resnet.head"]
    together = dict(randomize_layers(model, layers))
    for name, alone in randomize_layers(model, layers, independent=True):
        assert all(each.startswith(name) for each in changed(model, alone))
        ours, theirs = (each.get_submodule(name).state_dict() for each in (alone, together["resnet.stage1"]))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_by_default_every_module_with_weights_of_its_own_is_a_layer() -> None:
    model = network("squeezenet")
    names = [name for name, _ in randomize_layers(model)]
    own = [name for name, module in model.named_modules() if [*module.parameters(recurse=False)]]
    assert names == own[::-1] and len(names) == 26


def test_a_module_with_weights_and_children_forgets_its_own_alone() -> None:
    class WithToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(1, 1, 4))
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    model = WithToken()
    alone = dict(randomize_layers(model, independent=True))
    assert [*alone] == ["b", "a", "WithToken"]
    assert changed(model, alone["WithToken"]) == {""} and changed(model, alone["a"]) == {"a"}
    assert not torch.equal(alone["a"].get_parameter("a.weight"), alone["b"].get_parameter("b.weight"))
    whole = dict(randomize_layers(model, [model]))
    assert changed(model, whole["WithToken"]) == {"", "a", "b"}


def test_weights_are_drawn_as_he_et_al_start_them_and_normalizations_are_as_new() -> None:
    (_, forgetful), *_ = randomize_layers(network("resnet18"), ["layer3"])
    wide = forgetful.get_submodule("layer3.0.conv1").weight  # twice as many channels come out as go in
    assert wide.std().item() == pytest.approx((2 / wide[0].numel()) ** 0.5, rel=0.02)
    block = forgetful.get_submodule("layer3.1")
    weight = block.conv2.weight
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)
    norm = block.bn2
    assert (norm.weight == 1).all() and (norm.bias == 0).all()
    assert (norm.running_mean == 0).all() and (norm.running_var == 1).all()
    assert not forgetful.training


def test_biases_are_zero_and_every_kind_of_normalization_is_as_new() -> None:
    def made() -> nn.Sequential:
        norms = nn.LayerNorm([4, 3, 4]), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.PReLU(4)
        return nn.Sequential(nn.Conv2d(3, 4, 3), *norms, nn.Conv2d(4, 2, 1))

    model = made()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    forgetful = dict(randomize_layers(model, [model]))["Sequential"]
    fresh = made().state_dict()
    for name, value in forgetful.state_dict().items():
        if name.startswith(("0.", "5.")):
            assert "weight" in name or not value.any()
        else:
            assert torch.equal(value, fresh[name]), name


def test_copies_are_of_the_model_as_it_was_and_can_be_explained() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        copies = randomize_layers(nn.Sequential(model, nn.Linear(3, 2)), ["1"])
        nn.init.zeros_(model[1].weight)
        ((_, forgetful),) = copies
    assert torch.equal(forgetful.get_parameter("0.1.weight"), before["1.weight"])
    assert input_gradient(forgetful, torch.rand(1, 3, 2, 2)).shape == (1, 3, 2, 2)


def test_a_seed_gives_the_same_weights_again_and_another_others() -> None:
    model = network("squeezenet")
    torch.manual_seed(0)
    state = torch.get_rng_state()
    (_, one), (_, again), (_, other) = (next(randomize_layers(model, seed=seed)) for seed in (3, 3, 4))
    assert changed(one, again) == set() and changed(one, other) == {"classifier.1"}
    assert torch.equal(state, torch.get_rng_state())


def test_layers_without_weights_and_strangers_are_refused_before_any_copy() -> None:
    model = network("squeezenet")
    with pytest.raises(ValueError, match=r"'features.1' has no weights"):
        randomize_layers(model, ["features.1"])
    with pytest.raises(ValueError, match="no module named 'layer9'"):
        randomize_layers(model, ["layer9"])
    with pytest.raises(ValueError, match="no weights"):
        randomize_layers(nn.ReLU())
    with pytest.raises(TypeError, match="model must be"):
        randomize_layers("model")  # type: ignore[arg-type]
    for seed in (-1, 2**62):
        with pytest.raises(ValueError, match="seed"):
            randomize_layers(model, seed=seed)


# --- rank correlation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_that_of_scipy(ties: bool) -> None:
    first, second = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(0))
    second = second + first
    if ties:  # as in maps that are cut off at 0
        first, second = first.clamp(min=0), (2 * second).round()
    found = rank_correlation(first, second)
    for one, other, value in zip(first, second, found, strict=True):
        assert value.item() == pytest.approx(stats.spearmanr(one.flatten(), other.flatten()).statistic, abs=1e-6)


def test_rank_correlation_knows_the_order_alone() -> None:
    maps = noise(3, 5, 5)
    torch.testing.assert_close(rank_correlation(maps, maps.exp()), torch.ones(3))
    torch.testing.assert_close(rank_correlation(maps, 1 - maps), -torch.ones(3))
    assert rank_correlation(maps, torch.ones_like(maps)).tolist() == [0, 0, 0]


def test_what_has_no_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="shape of first"):
        rank_correlation(noise(2, 3), noise(2, 4))
    with pytest.raises(TypeError, match="second must be a tensor"):
        rank_correlation(noise(2, 3), [1, 2])  # type: ignore[arg-type]
    for pair in ((torch.full((2, 3), torch.inf), noise(2, 3)), (noise(2, 3), torch.full((2, 3), torch.nan))):
        with pytest.raises(ValueError, match="must be finite"):
            rank_correlation(*pair)
    with pytest.raises(TypeError, match="first must be floating point"):
        rank_correlation(noise(2, 3) > 0.5, noise(2, 3))
    with pytest.raises(ValueError, match=r"\(N, ...\)"):
        rank_correlation(noise(3), noise(3))
