"""The specimens under libraries that need an environment of their own (`make oracles`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import networks
import pytest
import torch
from torch import Tensor, nn

from lessons_lib.fooling import deep_fool, fgsm, pgd
from lessons_lib.hooks import Capture
from lessons_lib.specimens import Specimen, load_specimen
from lessons_lib.trust import deletion, energy_inside, intersection_over_union, pointing_game, rank_correlation


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    return load_specimen("shapes")


@pytest.fixture
def images(specimen: Specimen) -> Tensor:
    return torch.stack([specimen.pictures[name] for name in specimen.categories])


@pytest.fixture(autouse=True)
def unchanged(specimen: Specimen) -> Iterator[None]:
    before = {name: value.clone() for name, value in specimen.model.state_dict().items()}
    yield
    assert all(torch.equal(value, before[name]) for name, value in specimen.model.state_dict().items())


NETWORKS = ["the specimen", "resnet18", "squeezenet"]
PRECISIONS = [torch.float32, torch.float64]


@cache
def attacked(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, pictures, and what they are read as. The specimen's own, or two at random for one at random."""
    model: nn.Module
    if name == "the specimen":
        specimen = load_specimen("shapes")
        model, images = specimen.trainable(), torch.stack([specimen.pictures[name] for name in specimen.categories])
    else:
        model, images = copy.deepcopy(networks.network(name)), networks.pictures()
    model, images = model.to(dtype), images.to(dtype)
    with torch.no_grad():
        return model, images, model(images).argmax(dim=1)


def by_torchattacks(attack: Any, images: Tensor, labels: Tensor, target: Tensor | None = None) -> Tensor:
    if target is not None:
        attack.set_mode_targeted_by_label(quiet=True)
    torch.manual_seed(3)  # where it starts
    found: Tensor = attack(images, labels if target is None else target)
    return found


def largest(difference: Tensor) -> float:
    return difference.abs().max().item()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_fgsm_equals_that_of_torchattacks(name: str, dtype: torch.dtype, targeted: bool, record_property: Any) -> None:
    import torchattacks

    model, images, labels = attacked(name, dtype)
    target = (labels + 1) % 10 if targeted else None
    theirs = by_torchattacks(torchattacks.FGSM(model, eps=4 / 255), images, labels, target)
    difference = largest(fgsm(model, images, target, epsilon=4 / 255) - theirs)
    record_property("difference", difference)
    assert difference <= 1e-6


def peer_of(norm: str, **settings: Any) -> Any:
    import torchattacks

    if norm == "linf":
        return partial(torchattacks.PGD, **settings)
    # What keeps its division from 0 is as large as some gradients of a network that is sure.
    return partial(torchattacks.PGDL2, eps_for_division=0.0, **settings)


SIZES = {"linf": (8 / 255, 2 / 255), "l2": (1.0, 0.2)}
# In float32 the last bits of their start and ours differ, and a ReLU switched by one makes another gradient.
WHOLE_RUNS = [(torch.float32, False), (torch.float64, False), (torch.float64, True)]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("dtype", "random_start"), WHOLE_RUNS)
@pytest.mark.parametrize("norm", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_pgd_equals_that_of_torchattacks(
    name: str,
    norm: str,
    dtype: torch.dtype,
    random_start: bool,
    targeted: bool,
    record_property: Any,
) -> None:
    """From a random start, too: both draw it from the same numbers."""
    model, images, labels = attacked(name, dtype)
    target = (labels + 1) % 10 if targeted else None
    size, step = SIZES[norm]
    attack = peer_of(norm, eps=size, alpha=step, steps=5, random_start=random_start)(model)
    theirs = by_torchattacks(attack, images, labels, target)
    ours = pgd(
        model, images, target, epsilon=size, norm=norm, step_size=step, steps=5, random_start=random_start, seed=3
    )
    difference = largest(ours - theirs)
    record_property("difference", difference)
    assert difference <= 1e-6


@pytest.mark.parametrize("norm", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_pgd_starts_where_torchattacks_does_in_float32(name: str, norm: str) -> None:
    model, images, labels = attacked(name, torch.float32)
    size, _ = SIZES[norm]
    theirs = by_torchattacks(peer_of(norm, eps=size, alpha=0.0, steps=1)(model), images, labels)
    ours = pgd(model, images, epsilon=size, norm=norm, step_size=0.0, steps=1, seed=3)
    assert (ours != images).any()
    assert largest(ours - theirs) <= 1e-6


# In float32 some stay before the border for want of digits; after ten steps ours gives them a push, theirs does not.
@pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 10), (torch.float64, 50)])
@pytest.mark.parametrize("name", NETWORKS)
def test_deep_fool_equals_that_of_torchattacks(name: str, dtype: torch.dtype, steps: int, record_property: Any) -> None:
    import torchattacks

    model, images, labels = attacked(name, dtype)
    theirs = by_torchattacks(torchattacks.DeepFool(model, steps=steps, overshoot=0.02), images, labels)
    ours = deep_fool(model, images, candidates=None, steps=steps, overshoot=0.02)
    difference = largest(ours - theirs)
    record_property("difference", difference)
    assert difference <= 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_deep_fool_in_float32_gets_across_where_torchattacks_does(name: str) -> None:
    import torchattacks

    model, images, labels = attacked(name, torch.float32)
    theirs = by_torchattacks(torchattacks.DeepFool(model, steps=50, overshoot=0.02), images, labels)
    ours = deep_fool(model, images, candidates=None, steps=50, overshoot=0.02)
    with torch.no_grad():
        logits, own = (model(moved) for moved in (theirs, ours))
    through = logits.argmax(dim=1) != labels
    assert through.any()
    # A last digit may read otherwise here, with two pictures at once, than where the attack asked for one alone.
    label, rival = own.gather(1, labels[:, None])[:, 0], own.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    assert ((label - rival)[through] <= 2 * torch.finfo(torch.float32).eps * label[through].abs()).all()
    assert largest((ours - theirs)[through]) <= 1e-4


def test_lucent_reads_the_activations_that_capture_reads(specimen: Specimen, images: Tensor) -> None:
    from lucent.optvis.render import hook_model

    copy = specimen.trainable()  # lucent leaves its hooks behind
    hook = hook_model(copy, lambda: images)
    with torch.no_grad():
        copy(images)
    with torch.no_grad(), Capture(specimen.model, "resnet.stage2") as captured:
        specimen.model(images)
    assert torch.equal(hook("resnet_stage2"), captured["resnet.stage2"])


def test_quantus_scores_a_map_by_a_mask_of_the_generator() -> None:
    """A map that is the mask points inside it, its complement never does."""
    import quantus

    from lessons_lib import shapes

    drawn = shapes.generate(8, seed=3)
    masks = drawn.masks[:, None].numpy().astype(float)
    game = quantus.PointingGame(disable_warnings=True, display_progressbar=False)
    model = load_specimen("shapes").model
    arguments = {"model": model, "x_batch": drawn.images.numpy(), "y_batch": drawn.labels.numpy(), "s_batch": masks}
    assert all(game(a_batch=masks, device="cpu", **arguments))
    assert not any(game(a_batch=1 - masks, device="cpu", **arguments))


# --- the scores of chapter 11 ------------------------------------------------------------------------------------


class OfGreyPictures(nn.Module):
    """The specimen for pictures (N, 1, 64, 64), so that a number is a pixel: what quantus flips are numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.network = copy.deepcopy(load_specimen("shapes").model)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.expand(-1, 3, -1, -1))
        return logits


def by_quantus(metric: str, maps: Tensor, masks: Tensor | None = None, **settings: Any) -> Any:
    import quantus

    model, images = OfGreyPictures().eval(), grey_pictures()
    own = getattr(quantus, metric)(
        abs=False, normalise=False, disable_warnings=True, display_progressbar=False, **settings
    )
    found = own(
        model=model,
        x_batch=images.numpy(),
        y_batch=read(model, images).numpy(),
        a_batch=maps[:, None].numpy(),
        s_batch=None if masks is None else masks[:, None].numpy(),
        device="cpu",
    )
    return torch.tensor(found).to(maps)


@cache
def grey_pictures() -> Tensor:
    specimen = load_specimen("shapes")
    return torch.stack([specimen.pictures[name] for name in specimen.categories]).mean(dim=1, keepdim=True)


@torch.no_grad()
def read(model: nn.Module, images: Tensor) -> Tensor:
    answer: Tensor = model(images).argmax(dim=1)
    return answer


@cache
def maps_and_masks() -> tuple[Tensor, Tensor]:
    """Maps without equal numbers, in which no order is left to chance, half of them bright in the masks."""
    random = torch.Generator().manual_seed(0)
    masks = torch.zeros(10, 64, 64, dtype=torch.bool)
    for number, mask in enumerate(masks):
        mask[number : 20 + 3 * number, 10 : 50 - 2 * number] = True
    maps = torch.rand(10, 64, 64, generator=random) * 0.9 + 0.1
    maps[::2] *= 1 + masks[::2]
    return maps, masks


def test_the_pointing_game_is_that_of_quantus() -> None:
    maps, masks = maps_and_masks()
    ours = pointing_game(maps, masks)
    assert 0 < ours.mean() < 1
    assert torch.equal(ours, by_quantus("PointingGame", maps, masks))


def test_the_energy_inside_is_its_relevance_mass_accuracy() -> None:
    maps, masks = maps_and_masks()
    assert largest(energy_inside(maps, masks) - by_quantus("RelevanceMassAccuracy", maps, masks)) <= 1e-5


def test_the_overlap_is_its_relevance_rank_accuracy_over_the_union() -> None:
    """Of parts as large as the mask, of which the share r is in it, the two cover r over 2 - r together."""
    maps, masks = maps_and_masks()
    share = by_quantus("RelevanceRankAccuracy", maps, masks)
    assert largest(intersection_over_union(maps, masks) - share / (2 - share)) <= 1e-6


@pytest.mark.parametrize("name", ["black", "white"])
def test_deletion_is_its_pixel_flipping(name: str) -> None:
    maps, _ = maps_and_masks()
    images = grey_pictures()
    # Black is for it the darkest number there is, and white the brightest.
    baseline = (images.amin if name == "black" else images.amax)(dim=(1, 2, 3), keepdim=True)
    ours = deletion(OfGreyPictures().eval(), images, maps, baseline=baseline, steps=16)
    theirs = by_quantus("PixelFlipping", maps, features_in_step=64 * 64 // 16, perturb_baseline=name)
    assert ours.scores.std() > 0.1
    assert largest(ours.scores[:, 1:] - theirs) <= 1e-5


def test_rank_correlation_is_its_spearman() -> None:
    from quantus import correlation_spearman

    maps, _ = maps_and_masks()
    ours = rank_correlation(maps[:5], maps[5:])
    theirs = [
        correlation_spearman(a.flatten().numpy(), b.flatten().numpy()) for a, b in zip(maps[:5], maps[5:], strict=True)
    ]
    assert ours.tolist() == pytest.approx(theirs, abs=1e-6)
