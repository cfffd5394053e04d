"""Grad-CAM and its family, against pytorch-grad-cam, Captum, formulas and plain loops."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from networks import EVERY_LAYER, network, pictures, relative
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib.gradcam import (
    ablation_cam,
    eigen_cam,
    grad_cam,
    grad_cam_plus_plus,
    guided_grad_cam,
    hires_cam,
    layer_cam,
    overlay,
    score_cam,
    xgrad_cam,
)
from lessons_lib.hooks import Capture
from lessons_lib.saliency import guided_backprop

TARGETS = torch.tensor([3, 7])
PEERS = {
    grad_cam: "GradCAM",
    grad_cam_plus_plus: "GradCAMPlusPlus",
    xgrad_cam: "XGradCAM",
    hires_cam: "HiResCAM",
    layer_cam: "LayerCAM",
    eigen_cam: "EigenCAM",
    score_cam: "ScoreCAM",
    ablation_cam: "AblationCAM",
}
WITH_TARGET = [method for method in PEERS if method is not eigen_cam]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Any:
    import tqdm

    monkeypatch.setattr(tqdm, "tqdm", lambda steps, **_: steps)  # pytorch-grad-cam draws bars that cannot be had off
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor|Setting (back|for)ward|Required_grads", UserWarning)
        yield


def raw_map(peer: str, model: nn.Module, images: Tensor, layer: str, targets: Tensor, **settings: Any) -> Tensor:
    """What pytorch-grad-cam computes before it cuts off, scales and resizes."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kept = []
    with getattr(pytorch_grad_cam, peer)(copy.deepcopy(model), []) as cam:
        cam.target_layers = [cam.model.get_submodule(layer)]
        cam.activations_and_grads.__init__(cam.model, cam.target_layers, None)
        inner = cam.get_cam_image
        cam.get_cam_image = lambda *arguments: kept.append(inner(*arguments)) or kept[-1]
        cam(images, [ClassifierOutputTarget(int(target)) for target in targets], **settings)
    return torch.from_numpy(np.asarray(kept[0]))


def ours(method: Callable[..., Tensor], model: nn.Module, images: Tensor, layer: str, **settings: Any) -> Tensor:
    targets = () if method is eigen_cam else (TARGETS,)
    return method(model, images, layer, *targets, raw=True, **settings)


def same_side(found: Tensor, wanted: Tensor) -> Tensor:
    """With the sign of what is wanted: that of a principal component, and of a negative score, is a convention."""
    return found * (found * wanted).flatten(1).sum(dim=1).sign().view(-1, 1, 1)


PAST_RELU = [
    (name, layer)
    for name, layer in EVERY_LAYER
    if (name, layer) not in (("resnet18", "layer3.0.conv1"), ("vgg11_bn", "features.10"))
    and name not in ("mobilenet_v3_small", "in_place")
]


@pytest.mark.parametrize(("name", "layer"), [pair for pair in EVERY_LAYER if pair[0] != "in_place"])
@pytest.mark.parametrize("method", [grad_cam, xgrad_cam, hires_cam, layer_cam, eigen_cam])
def test_raw_maps_equal_those_of_pytorch_grad_cam(method: Callable[..., Tensor], name: str, layer: str) -> None:
    wanted = raw_map(PEERS[method], network(name), pictures(), layer, TARGETS)
    found = ours(method, network(name), pictures(), layer)
    assert relative(same_side(found, wanted) if method is eigen_cam else found, wanted) < 1e-5


# A forward pass for each map: on small pictures, and networks that are quick.
QUICK = [
    ("squeezenet", "features.12"),
    ("squeezenet", "features.5"),
    ("resnet18", "layer2"),
    ("mobilenet_v3_small", "features.4.block.0"),
]


@pytest.mark.parametrize(("name", "layer"), QUICK)
def test_raw_maps_of_score_cam_equal_those_of_pytorch_grad_cam(name: str, layer: str) -> None:
    wanted = raw_map("ScoreCAM", network(name), pictures(size=32), layer, TARGETS)
    assert relative(ours(score_cam, network(name), pictures(size=32), layer), wanted) < 1e-5


@pytest.mark.parametrize(("name", "layer"), [pair for pair in QUICK if pair in PAST_RELU] + [("resnet18", "layer4")])
def test_ablation_cam_equals_that_of_pytorch_grad_cam(name: str, layer: str) -> None:
    """Where activations are 0 or more: elsewhere it puts -10^7 instead of the paper's 0 into a map.

    It rounds all scores to float32, of which small differences are wrong by up to 4e-4 of a map: so do we here.
    """
    model, images = copy.deepcopy(network(name)).double(), pictures(size=32, dtype=torch.float64)
    wanted = raw_map("AblationCAM", model, images, layer, TARGETS)
    for number, target in enumerate(TARGETS.tolist()):
        one = slice(number, number + 1)

        def rounded(logits: Tensor, target: int = target) -> Tensor:
            return logits[:, target].float().double()

        found = ablation_cam(model, images[one], layer, rounded, raw=True)
        assert relative(same_side(found, wanted[one]), wanted[one]) < 1e-5
    found = ours(ablation_cam, model, images, layer)
    assert relative(same_side(found, wanted), wanted) < 1e-4


class Scaled(nn.Module):
    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.model(x)


@pytest.mark.parametrize(("name", "layer"), PAST_RELU)
def test_grad_cam_plus_plus_equals_that_of_pytorch_grad_cam_for_large_gradients(name: str, layer: str) -> None:
    """Its epsilon swamps small ones: with logits a million times as large nothing of it is left."""
    model = Scaled(network(name), 1e6)
    wanted = raw_map("GradCAMPlusPlus", model, pictures(), f"model.{layer}", TARGETS)
    assert relative(ours(grad_cam_plus_plus, model, pictures(), f"model.{layer}"), wanted) < 1e-5


@pytest.mark.parametrize("method", [grad_cam, xgrad_cam, layer_cam, score_cam])
def test_eigen_smoothing_equals_that_of_pytorch_grad_cam(method: Callable[..., Tensor]) -> None:
    wanted = raw_map(PEERS[method], network("resnet18"), pictures(), "layer2", TARGETS, eigen_smooth=True)
    found = ours(method, network("resnet18"), pictures(), "layer2", smooth="eigen")
    assert relative(same_side(found, wanted), wanted) < 1e-5


@pytest.mark.parametrize("method", [grad_cam, layer_cam, score_cam])
def test_smoothing_by_augmentation_looks_where_pytorch_grad_cam_does(method: Callable[..., Tensor]) -> None:
    """Its finished maps are stretched to [0, 1] from their minimum as well, twice: so it is done to ours."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images, wanted = network("in_place"), pictures(), torch.zeros(2, 64, 64)
    for mirrored in (False, True):
        for brightness in (0.9, 1.0, 1.1):
            seen = brightness * (images.flip(3) if mirrored else images)
            raw = method(model, seen, "features.6", TARGETS, raw=True).clamp(min=0).numpy()
            finished = torch.from_numpy(scale_cam_image(np.maximum(scale_cam_image(raw, (64, 64)), 0)))
            wanted += (finished.flip(2) if mirrored else finished) / 6
    copied = copy.deepcopy(model)
    with getattr(pytorch_grad_cam, PEERS[method])(copied, [copied.features[6]]) as cam:
        targets = [ClassifierOutputTarget(int(target)) for target in TARGETS]
        found = torch.from_numpy(cam(images, targets, aug_smooth=True))
    assert relative(wanted, found) < 1e-4


@pytest.mark.parametrize(("name", "layer"), EVERY_LAYER)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_grad_cam_and_guided_grad_cam_equal_captums(
    name: str, layer: str, dtype: torch.dtype, tolerance: float
) -> None:
    from captum.attr import GuidedGradCam, LayerGradCam

    model, images = copy.deepcopy(network(name)).to(dtype), pictures(dtype=dtype)
    wanted = LayerGradCam(model, model.get_submodule(layer)).attribute(images, target=TARGETS)[:, 0].detach()
    assert relative(grad_cam(model, images, layer, TARGETS, raw=True), wanted) < tolerance
    guided = GuidedGradCam(model, model.get_submodule(layer))
    wanted = guided.attribute(images, target=TARGETS, interpolate_mode="bilinear").detach()
    if wanted.any():
        assert relative(guided_grad_cam(model, images, layer, TARGETS, raw=True), wanted) < tolerance
    else:
        assert not grad_cam(model, images, layer, TARGETS, raw=True).clamp(min=0).any()


@pytest.mark.parametrize("layer", ["features.1", "features.7"])
def test_at_a_layer_that_is_overwritten_later_we_are_right_and_pytorch_grad_cam_is_not(layer: str) -> None:
    """By a ReLU in place, and by an addition in place; Captum, which is right, is compared above."""
    from captum.attr import LayerGradCam

    model = network("in_place")
    right = LayerGradCam(model, model.get_submodule(layer)).attribute(pictures(), target=TARGETS)[:, 0].detach()
    assert relative(grad_cam(model, pictures(), layer, TARGETS, raw=True), right) < 1e-5
    assert relative(raw_map("GradCAM", model, pictures(), layer, TARGETS), right) > 0.05


# --- against formulas and loops ----------------------------------------------------------------------------------


def parts(model: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    with Capture(model, layer, gradients=True) as captured:
        scores = model(images).gather(1, TARGETS[:, None])
    (gradients,) = captured.gradients(scores).values()
    return captured[layer].detach(), gradients


@pytest.mark.parametrize(("name", "layer"), PAST_RELU)
def test_grad_cam_plus_plus_is_the_papers_formula(name: str, layer: str) -> None:
    """Equation 19 for alpha, equation 10 for the weights, place by place, where the gradient is not 0."""
    model, images = copy.deepcopy(network(name)).double(), pictures(dtype=torch.float64)
    activations, gradients = parts(model, images, layer)
    alpha = gradients**2 / (2 * gradients**2 + activations.sum(dim=(2, 3), keepdim=True) * gradients**3)
    alpha = torch.where(gradients != 0, alpha, 0.0)
    weights = (alpha * gradients.relu()).sum(dim=(2, 3), keepdim=True)
    wanted = (weights * activations).sum(dim=1)
    assert relative(grad_cam_plus_plus(model, images, layer, TARGETS, raw=True), wanted) < 1e-9


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("shapes", "resnet.stage4"),  # nothing but a linear head behind it
        ("resnet18", "layer2"),
        ("shapes", "resnet.stage3.0.conv1"),  # a shortcut passes it by: to be added
        ("squeezenet", "features.5.expand3x3_activation"),  # another branch does: to be put beside it
        ("mobilenet_v3_small", "features.4.block.0"),
        ("in_place", "features.7"),
        ("in_place", "features.1"),
    ],
)
def test_ablation_cam_equals_a_loop_that_reruns_everything(name: str, layer: str) -> None:
    model, images = copy.deepcopy(network(name)).double(), pictures(size=32, dtype=torch.float64)
    activations, _ = parts(model, images, layer)
    weights = torch.empty(activations.shape[:2], dtype=torch.float64)
    with torch.no_grad():
        whole = model(images).gather(1, TARGETS[:, None])[:, 0]
        for channel in range(activations.shape[1]):

            def without(_: nn.Module, inputs: Any, output: Tensor, channel: int = channel) -> Tensor:
                output = output.clone()
                output[:, channel] = 0
                return output

            hook = model.get_submodule(layer).register_forward_hook(without)
            weights[:, channel] = (whole - model(images).gather(1, TARGETS[:, None])[:, 0]) / whole.abs()
            hook.remove()
    wanted = (weights[:, :, None, None] * activations).sum(dim=1)
    found = ablation_cam(model, images, layer, TARGETS, raw=True)
    assert relative(found, wanted) < 1e-7  # weights are small differences of large logits


def test_ablation_cam_is_the_same_however_many_maps_are_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lessons_lib import gradcam

    model, images = copy.deepcopy(network("squeezenet")).double(), pictures(3, 32, torch.float64)
    found = []
    for at_once in ((4000, 2**11), (2**30, 7), (50_000, 2**11), (2**30, 2**30)):
        monkeypatch.setattr(gradcam, "_ABLATED_AT_ONCE", at_once)
        found.append(ablation_cam(model, images, "features.12", 3))
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


def test_a_function_of_the_logits_is_ablated_by_trying() -> None:
    """Behind a linear head too: the function itself may be anything."""
    model, images = copy.deepcopy(network("resnet18")).double(), pictures(dtype=torch.float64)
    tried = ablation_cam(model, images, "layer4", lambda logits: logits[:, 3], raw=True)
    torch.testing.assert_close(tried, ablation_cam(model, images, "layer4", 3, raw=True))


def test_score_cam_equals_a_plain_loop() -> None:
    model, images = copy.deepcopy(network("in_place")).double(), pictures(dtype=torch.float64)
    activations, _ = parts(model, images, "features.7")
    for image, maps, target, found in zip(
        images, activations, TARGETS, score_cam(model, images, "features.7", TARGETS, raw=True), strict=True
    ):
        scores = []
        for one in maps:
            mask = functional.interpolate(one[None, None], (64, 64), mode="bilinear", align_corners=True)[0, 0]
            mask = (mask - mask.min()) / (mask.max() - mask.min() + 1e-8)
            scores.append(model((image * mask)[None])[0, target].detach())
        wanted = (torch.stack(scores).softmax(0)[:, None, None] * maps).sum(dim=0)
        assert relative(found, wanted) < 1e-9


def test_eigen_cam_is_the_first_principal_component_with_the_sign_of_the_activations() -> None:
    for layer in ("features.1", "features.7"):  # more places than channels, and fewer
        model, images = copy.deepcopy(network("in_place")).double(), pictures(size=24, dtype=torch.float64)
        activations, _ = parts(model, images, layer)
        for maps, found in zip(activations, eigen_cam(model, images, layer, raw=True), strict=True):
            places = maps.flatten(1).T
            _, _, directions = torch.linalg.svd(places - places.mean(dim=0), full_matrices=False)
            wanted = ((places - places.mean(dim=0)) @ directions[0]).view(maps.shape[1:])
            sign = (wanted * maps.sum(dim=0)).sum().sign()
            assert relative(found, sign * wanted) < 1e-9


def test_grad_cam_is_cam_where_there_is_a_head_for_it() -> None:
    """Zhou's weights are those of the head; the mean over h x w places divides them all by the same number."""
    model, images = copy.deepcopy(network("resnet18")).double(), pictures(dtype=torch.float64)
    activations, _ = parts(model, images, "layer4")
    cam = torch.einsum("nc,nchw->nhw", model.fc.weight[TARGETS].detach(), activations)
    places = activations.shape[2] * activations.shape[3]
    torch.testing.assert_close(grad_cam(model, images, "layer4", TARGETS, raw=True), cam / places)


def test_hires_cam_of_a_linear_head_adds_up_to_the_score() -> None:
    model, images = copy.deepcopy(network("resnet18")).double(), pictures(dtype=torch.float64)
    score = model(images).gather(1, TARGETS[:, None])[:, 0] - model.fc.bias[TARGETS]
    found = hires_cam(model, images, "layer4", TARGETS, raw=True).sum(dim=(1, 2))
    torch.testing.assert_close(found, score.detach())


def test_guided_grad_cam_is_guided_backpropagation_times_grad_cam() -> None:
    model, images = network("squeezenet"), pictures()
    wanted = guided_backprop(model, images, TARGETS) * grad_cam(model, images, "features.12", TARGETS)[:, None]
    assert relative(guided_grad_cam(model, images, "features.12", TARGETS), wanted) < 1e-5


# --- what every map has in common --------------------------------------------------------------------------------


def call(method: Callable[..., Tensor], model: nn.Module, images: Tensor, layer: Any, *target: Any, **more: Any) -> Any:
    return method(model, images, layer, *(() if method is eigen_cam else target), **more)


EVERY = [*PEERS, guided_grad_cam]


@pytest.mark.parametrize(
    ("method", "smooth"),
    [(eigen_cam, ()), (eigen_cam, "aug"), *product(WITH_TARGET, [(), "aug", ("aug", "eigen")])],
)
def test_maps_have_the_size_of_the_pictures_and_lie_in_0_to_1(method: Callable[..., Tensor], smooth: Any) -> None:
    images = functional.interpolate(pictures(), (40, 56))
    found = method(network("in_place"), images, "features.7", smooth=smooth)
    assert found.shape == (2, 40, 56)
    assert found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1
    assert not found.requires_grad and found.is_contiguous()
    raw = method(network("in_place"), images, "features.7", smooth=smooth, raw=True)
    if not smooth:
        assert found.flatten(1).amax(dim=1).tolist() == (raw.flatten(1).amax(dim=1) > 0).tolist()
    assert raw.shape == (2, 10, 14)
    assert raw.any()


@pytest.mark.parametrize("method", EVERY)
def test_a_picture_has_the_same_map_alone_and_among_others(method: Callable[..., Tensor]) -> None:
    for name, layer in (("in_place", "features.1"), ("shapes", "resnet.stage4.0.conv1")):
        model, images = copy.deepcopy(network(name)).double(), pictures(3, 32, torch.float64)
        together = call(method, model, images, layer, torch.tensor([1, 2, 3]))
        torch.testing.assert_close(call(method, model, images[1:2], layer, 2), together[1:2])


@pytest.mark.parametrize("method", [*WITH_TARGET, guided_grad_cam])
def test_the_predicted_class_is_explained_unless_another_is_named(method: Callable[..., Tensor]) -> None:
    model, images = network("in_place"), pictures()
    said = model(images).argmax(dim=1)
    found = method(model, images, "features.7")
    torch.testing.assert_close(method(model, images, "features.7", said), found)
    torch.testing.assert_close(method(model, images, model.features[7], said.tolist()), found)


@pytest.mark.parametrize("method", [*WITH_TARGET, guided_grad_cam])
def test_any_function_of_the_logits_can_be_explained(method: Callable[..., Tensor]) -> None:
    model, images = network("in_place"), pictures()
    as_function = method(model, images, "features.7", lambda logits: logits[:, 4])
    torch.testing.assert_close(as_function, method(model, images, "features.7", 4))
    difference = method(model, images, "features.7", lambda logits: logits[:, 4] - logits[:, 5], raw=True)
    if method in (grad_cam, hires_cam):
        apart = method(model, images, "features.7", 4, raw=True) - method(model, images, "features.7", 5, raw=True)
        torch.testing.assert_close(difference, apart)


def test_smoothing_by_augmentation_is_the_mean_over_mirrored_and_brighter_pictures() -> None:
    model, images = copy.deepcopy(network("in_place")).double(), pictures(dtype=torch.float64)
    wanted = torch.zeros(2, 64, 64, dtype=torch.float64)
    for brightness in (0.9, 1.0, 1.1):
        wanted += grad_cam(model, brightness * images, "features.7", TARGETS)
        wanted += grad_cam(model, brightness * images.flip(3), "features.7", TARGETS).flip(2)
    torch.testing.assert_close(grad_cam(model, images, "features.7", TARGETS, smooth="aug"), wanted / 6)


def test_smoothing_explains_the_class_that_the_picture_itself_is_read_as() -> None:
    """A brighter one may be read as another."""
    model, images = network("in_place"), pictures()
    said = model(images).argmax(dim=1)
    torch.testing.assert_close(
        grad_cam(model, images, "features.7", smooth="aug"), grad_cam(model, images, "features.7", said, smooth="aug")
    )


@pytest.mark.parametrize("method", PEERS)
def test_a_map_that_is_zero_everywhere_stays_zero_and_says_so(method: Callable[..., Tensor]) -> None:
    """Normalized by its own minimum and maximum, or with an epsilon, it would look like any other."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2), nn.ReLU()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
        model[0].bias.fill_(-1.0)  # dark pictures switch nothing on
    images = torch.stack([pictures(1, 8)[0], torch.zeros(3, 8, 8)])
    with pytest.warns(UserWarning, match="the map of picture 1 is zero everywhere"):
        found = call(method, model, images, "1", 0)
    assert found[0].max() == 1
    assert not found[1].any()


def test_a_map_that_is_below_zero_everywhere_stays_zero_and_says_so() -> None:

    class Against(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -(x.relu() + 0.1).mean(dim=(2, 3))

    against = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), Against())
    with pytest.warns(UserWarning, match="the maps of pictures 0, 1 are zero everywhere"):
        assert not grad_cam(against, pictures(), "1", 1).any()


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize(
    ("layer", "error", "words"),
    [
        ("features.99", ValueError, "no module named 'features.99'"),
        (nn.Conv2d(3, 3, 1), ValueError, "not a module of this model"),
        (["features.1", "features.2"], TypeError, "layer must be one module of the model or its name"),
        (7, TypeError, "layer must be one module of the model or its name"),
        ("head", ValueError, r"not feature maps \(N, C, h, w\)"),
        ("unused", ValueError, "does not run in a forward pass"),
    ],
)
def test_a_bad_layer_is_named(method: Callable[..., Tensor], layer: Any, error: type[Exception], words: str) -> None:
    model = copy.deepcopy(network("in_place"))
    model.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(error, match=words):
        call(method, model, pictures(), layer, 1)


@pytest.mark.parametrize("method", EVERY)
def test_a_layer_that_runs_twice_is_refused(method: Callable[..., Tensor]) -> None:
    from torchvision.models import resnet18

    with pytest.raises(ValueError, match="runs more than once"):
        call(method, resnet18(num_classes=3).eval(), pictures(), "layer4.1.relu", 1)


@pytest.mark.parametrize("method", EVERY)
def test_a_layer_with_weights_that_runs_twice_is_refused(method: Callable[..., Tensor]) -> None:
    shared = nn.Conv2d(3, 3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="'0' runs more than once"):
        call(method, model, pictures(), "0", 1)


@pytest.mark.parametrize("method", [grad_cam, guided_grad_cam])
def test_a_model_made_in_inference_mode_is_named(method: Callable[..., Tensor]) -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="model was made in inference mode"):
        method(model, pictures(), "0", 1)


@pytest.mark.parametrize("method", [*WITH_TARGET, guided_grad_cam])
@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (10, ValueError, "target 10 is out of range"),
        (torch.tensor([1, 2, 3]), ValueError, "one class for each of 2 pictures"),
        (1.0, TypeError, "target must be a class"),
        (lambda logits: logits.sum(), ValueError, "one score for each"),
    ],
)
def test_a_bad_target_is_named(method: Callable[..., Tensor], target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        method(network("in_place"), pictures(), "features.7", target)


@pytest.mark.parametrize("method", PEERS)
@pytest.mark.parametrize(
    ("smooth", "error", "words"),
    [
        ("soft", ValueError, "smooth 'soft' is not one of"),
        (3, TypeError, "smooth must hold names"),
        ([1], TypeError, r"not \[1\]"),
    ],
)
def test_a_bad_smoothing_is_named(
    method: Callable[..., Tensor], smooth: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        method(network("in_place"), pictures(), "features.7", smooth=smooth)


def test_bad_pictures_are_named_by_every_method() -> None:
    for method in EVERY:
        with pytest.raises(ValueError, match=r"write images\[None\]"):
            method(network("in_place"), pictures()[0], "features.7")


# --- overlay -----------------------------------------------------------------------------------------------------


def test_an_overlay_greys_the_picture_and_leaves_it_alone_where_the_map_is_zero() -> None:
    images, maps = pictures(), torch.zeros(2, 64, 64)
    maps[:, :32] = 1.0
    found = overlay(images, maps, opacity=0.5, colormap="inferno")
    assert found.shape == images.shape
    assert found.min() >= 0 and found.max() <= 1
    grey = images.mean(dim=1, keepdim=True).expand_as(images)
    torch.testing.assert_close(found[:, :, 32:], grey[:, :, 32:])
    from matplotlib import colormaps

    top = torch.tensor(colormaps["inferno"](1.0)[:3], dtype=torch.float32).view(1, 3, 1, 1)
    torch.testing.assert_close(found[:, :, :32], 0.5 * grey[:, :, :32] + 0.5 * top)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((pictures(), torch.rand(2, 8, 8)), ValueError, "maps must have the shape"),
        ((pictures(), torch.rand(2, 64, 64) + 1), ValueError, r"maps must lie in \[0, 1\]"),
        ((pictures(), torch.full((2, 64, 64), float("nan"))), ValueError, r"maps must lie in \[0, 1\]"),
        ((pictures(), "map"), ValueError, "maps must have the shape"),
        ((pictures()[0], torch.rand(64, 64)), ValueError, r"write images\[None\]"),
    ],
)
def test_a_bad_overlay_is_named(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        overlay(*arguments)
    with pytest.raises(ValueError, match="opacity must lie in"):
        overlay(pictures(), torch.rand(2, 64, 64), opacity=2)
    with pytest.raises(ValueError, match="colormap"):
        overlay(pictures(), torch.rand(2, 64, 64), colormap="jetty")


# --- what is linear ----------------------------------------------------------------------------------------------


@torch.jit.script
def _squared(x: Tensor) -> Tensor:
    return x * x


class _EndsIn(nn.Module):
    """One convolution and, behind it, the mean over places and a head that is not linear, whatever it looks like."""

    def __init__(self, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 4, 3), head

    def forward(self, x: Tensor) -> Tensor:
        with torch.device("cpu"):
            y = self.layer(x)
        return self.head(y.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "head", [_squared, lambda p: p * p, lambda p: (p[:, None] @ p[..., None])[:, 0], lambda p: 1 / (p + 2)]
)
def test_a_head_that_is_not_linear_is_tried_out_by_ablation(head: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model, images = _EndsIn(head).double().eval(), pictures(1, 16, torch.float64)
    weights = []
    with torch.no_grad():
        maps, whole = model.layer(images), model(images)[0, 0]
        for channel in range(4):
            pooled = maps.clone()
            pooled[:, channel] = 0
            weights.append((whole - head(pooled.mean(dim=(2, 3)))[0, 0]) / whole.abs())
    wanted = (torch.stack(weights)[None, :, None, None] * maps).sum(dim=1)
    assert relative(ablation_cam(model, images, "layer", 0, raw=True), wanted) < 1e-9


def test_a_map_of_true_and_false_is_laid_over_as_ones_and_zeros() -> None:
    images, maps = pictures(), torch.rand(2, 64, 64) > 0.5
    torch.testing.assert_close(overlay(images, maps), overlay(images, maps.float()))


def test_a_scripted_part_that_would_hide_its_relus_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), torch.jit.script(nn.ReLU()), nn.Conv2d(4, 2, 3), nn.ReLU())
    model = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(ValueError, match="scripted"):
        guided_grad_cam(model, pictures(), "0.0", 1)
