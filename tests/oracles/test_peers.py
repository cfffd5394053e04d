"""The specimens under libraries that need an environment of their own (`make oracles`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from lessons_lib.hooks import Capture
from lessons_lib.specimens import Specimen, load_specimen


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


def test_torchattacks_moves_the_pictures_of_a_specimen_in_pixel_space(specimen: Specimen, images: Tensor) -> None:
    """A model that takes [0, 1] is what torchattacks wants; its one-step attack is the sign of our pixel gradient."""
    import torchattacks

    labels = torch.arange(len(images))
    theirs = torchattacks.FGSM(specimen.model, eps=4 / 255)(images, labels)

    pixels = images.clone().requires_grad_()
    loss = nn.functional.cross_entropy(specimen.model(pixels), labels)
    (gradient,) = torch.autograd.grad(loss, pixels)
    assert torch.equal(theirs, (images + 4 / 255 * gradient.sign()).clamp(0, 1))


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
