"""Saliency and what mends it, against Captum, against formulas, and against plain loops."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import LAYERS, InPlace, network, pictures, relative
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib.saliency import (
    deconvnet,
    guided_backprop,
    guided_rule,
    input_gradient,
    input_x_gradient,
    integrated_gradients,
    occlusion,
    relu_rule,
    saliency,
    smooth_grad,
)

TARGETS = torch.tensor([3, 7])
METHODS = [
    saliency,
    input_gradient,
    input_x_gradient,
    smooth_grad,
    integrated_gradients,
    deconvnet,
    guided_backprop,
    occlusion,
]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Input Tensor|Setting (back|for)ward|Required_grads", category=UserWarning
        )
        yield


def the_same_as_captum(name: str, ours: Callable[..., Tensor], theirs: Callable[..., Tensor]) -> None:
    """To 1e-6 of the largest number in float64, to 1e-4 in float32."""
    double = copy.deepcopy(network(name)).double()
    assert relative(ours(double, pictures(dtype=torch.float64)), theirs(double, pictures(dtype=torch.float64))) < 1e-6
    single = network(name)
    assert relative(ours(single, pictures()), theirs(single, pictures())) < 1e-4


@pytest.mark.parametrize("name", LAYERS)
def test_saliency_equals_captums(name: str) -> None:
    from captum.attr import Saliency

    the_same_as_captum(
        name,
        lambda model, x: saliency(model, x, TARGETS),
        lambda model, x: Saliency(model).attribute(x, target=TARGETS).amax(dim=1),
    )


@pytest.mark.parametrize("name", LAYERS)
def test_input_times_gradient_equals_captums(name: str) -> None:
    from captum.attr import InputXGradient

    the_same_as_captum(
        name,
        lambda model, x: input_x_gradient(model, x, TARGETS),
        lambda model, x: InputXGradient(model).attribute(x, target=TARGETS).detach(),
    )


@pytest.mark.parametrize("name", LAYERS)
def test_integrated_gradients_equal_captums(name: str) -> None:
    from captum.attr import IntegratedGradients

    the_same_as_captum(
        name,
        lambda model, x: integrated_gradients(model, x, TARGETS, baseline=0.2, steps=5),
        lambda model, x: IntegratedGradients(model).attribute(x, 0.2, target=TARGETS, n_steps=5).detach(),
    )


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("ours", "theirs"), [(deconvnet, "Deconvolution"), (guided_backprop, "GuidedBackprop")])
def test_other_rules_for_relu_equal_captums(name: str, ours: Callable[..., Tensor], theirs: str) -> None:
    from captum import attr

    the_same_as_captum(
        name,
        lambda model, x: ours(model, x, TARGETS),
        lambda model, x: getattr(attr, theirs)(model).attribute(x, target=TARGETS),
    )


@pytest.mark.parametrize("name", LAYERS)
def test_occlusion_equals_captums(name: str) -> None:
    from captum.attr import Occlusion

    def theirs(model: nn.Module, x: Tensor) -> Tensor:
        found = Occlusion(model).attribute(x, (3, 40, 30), strides=(3, 19, 22), baselines=0.0, target=TARGETS)
        return found[:, 0]

    def ours(model: nn.Module, x: Tensor) -> Tensor:
        return occlusion(model, x, TARGETS, size=(40, 30), stride=(19, 22), fill=0)

    double, images = copy.deepcopy(network(name)).double(), pictures(dtype=torch.float64)
    assert relative(ours(double, images), theirs(double, images)) < 1e-6
    # What falls is the difference of two scores, and rounded as they are.
    error = ours(network(name), pictures()) - theirs(network(name), pictures())
    assert error.abs().max() < 1e-4 * network(name)(pictures()).abs().max()


@pytest.mark.parametrize("name", ["resnet18", "in_place"])
def test_smooth_grad_is_the_saliency_of_captums_mean_gradient_over_the_same_noise(name: str) -> None:
    from captum.attr import Saliency

    model, images = copy.deepcopy(network(name)).double(), pictures(dtype=torch.float64)
    random = torch.Generator().manual_seed(3)
    spread = (images.flatten(1).amax(1) - images.flatten(1).amin(1)).view(-1, 1, 1, 1)
    total = torch.zeros_like(images)
    for _ in range(6):
        noisy = images + 0.1 * spread * torch.randn(images.shape, generator=random, dtype=images.dtype)
        total += Saliency(model).attribute(noisy, target=TARGETS, abs=False)
    found = smooth_grad(model, images, TARGETS, samples=6, noise=0.1, seed=3)
    assert relative(found, (total / 6).abs().amax(dim=1)) < 1e-6


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
def test_how_many_go_through_at_once_changes_nothing(batch_size: int) -> None:
    model, images = copy.deepcopy(network("in_place")).double(), pictures(dtype=torch.float64)
    for method, settings in (
        (smooth_grad, {"samples": 7}),
        (integrated_gradients, {"steps": 7}),
        (occlusion, {"size": 24}),
    ):
        torch.testing.assert_close(
            method(model, images, **settings, batch_size=batch_size), method(model, images, **settings)
        )


def test_no_noise_is_plain_saliency_and_the_seed_decides_the_rest() -> None:
    model, images = network("in_place"), pictures()
    torch.testing.assert_close(smooth_grad(model, images, samples=2, noise=0), saliency(model, images))
    one, same, other = (smooth_grad(model, images, samples=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    drawn = torch.Generator().manual_seed(1)
    assert torch.equal(smooth_grad(model, images, samples=2, seed=drawn), one)


# --- properties -------------------------------------------------------------------------------------------------


@pytest.fixture
def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).double()


def test_input_times_gradient_adds_up_to_a_linear_score_exactly(linear: nn.Sequential) -> None:
    images = pictures(3, 16, torch.float64)
    bias = linear(torch.zeros_like(images[:1]))[0, 2]
    parts = input_x_gradient(linear, images, 2).sum(dim=(1, 2, 3))
    torch.testing.assert_close(parts, linear(images)[:, 2].detach() - bias.detach(), rtol=1e-12, atol=1e-12)


def test_integrated_gradients_of_a_linear_score_are_input_times_gradient(linear: nn.Sequential) -> None:
    images = pictures(2, 16, torch.float64)
    found = integrated_gradients(linear, images, 2, steps=1)
    torch.testing.assert_close(found, input_x_gradient(linear, images, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("baseline", [0.0, 0.5, torch.rand(3, 1, 1), torch.rand(3, 64, 64), torch.rand(2, 3, 64, 64)])
def test_integrated_gradients_add_up_to_the_change_of_the_score(baseline: float | Tensor) -> None:
    """Of a smooth network 64 nodes leave nothing but rounding; it has a kink nowhere."""
    torch.manual_seed(0)
    smooth = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Softplus(), nn.Conv2d(4, 4, 5), nn.Tanh(), nn.Flatten()).double()
    model = nn.Sequential(smooth, nn.Linear(4 * 56 * 56, 5).double())
    images = pictures(dtype=torch.float64)
    start = torch.as_tensor(baseline, dtype=torch.float64).expand(images.shape)
    change = (model(images) - model(start))[:, 1].detach()
    found = integrated_gradients(model, images, 1, baseline=baseline)
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), change, rtol=1e-9, atol=0)


def completeness_errors(model: nn.Module, images: Tensor, steps: int) -> Tensor:
    with torch.no_grad():
        target = model(images).argmax(dim=1)
        whole = (model(images) - model(torch.zeros_like(images))).gather(1, target[:, None])[:, 0]
    found = integrated_gradients(model, images, target, steps=steps).sum(dim=(1, 2, 3))
    return (found - whole).abs() / whole.abs()


def test_the_completeness_error_at_64_steps_is_at_most_1_percent_on_shapes(record_property: Any) -> None:
    from lessons_lib.specimens import load_specimen

    specimen = load_specimen("shapes")
    error = completeness_errors(specimen.model, specimen.sample(20, seed=0), 64).median().item()
    record_property("median completeness error", error)
    assert error <= 0.01


@pytest.mark.needs("imagenet_samples")
def test_the_completeness_error_at_64_steps_is_at_most_1_percent_on_imagenet(
    local_data: Any, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lessons_lib.specimens import load_specimen

    monkeypatch.setenv("LESSONS_DATA", str(local_data))

    specimen = load_specimen("imagenet")
    images = torch.stack([photograph(path) for path in sorted((local_data / "imagenet_samples").iterdir())[:20]])
    error = completeness_errors(specimen.model, images, 64).median().item()
    record_property("median completeness error", error)
    assert error <= 0.01


def photograph(path: Any) -> Tensor:
    from PIL import Image
    from torchvision.transforms.functional import center_crop, pil_to_tensor

    return center_crop(pil_to_tensor(Image.open(path).convert("RGB")), [224, 224]) / 255


@pytest.mark.parametrize(("size", "stride"), [(8, None), (7, 5), ((9, 16), (9, 7)), (16, 16), (1, 1)])
def test_occlusion_equals_a_plain_loop(size: Any, stride: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 4)).double()
    images = pictures(3, 16, torch.float64)
    rows, columns = (size, size) if isinstance(size, int) else size
    down, across = (-(-rows // 2), -(-columns // 2)) if stride is None else (
        (stride, stride) if isinstance(stride, int) else stride
    )  # fmt: skip
    for number, image in enumerate(images):
        target = int(model(image[None]).argmax())
        total, covers = torch.zeros(16, 16, dtype=torch.float64), torch.zeros(16, 16, dtype=torch.float64)
        top = 0
        while True:
            left = 0
            while True:
                covered = image.clone()
                covered[:, top : top + rows, left : left + columns] = 0.25
                fall = (model(image[None]) - model(covered[None]))[0, target].item()
                total[top : top + rows, left : left + columns] += fall
                covers[top : top + rows, left : left + columns] += 1
                if left + columns >= 16:
                    break
                left += across
            if top + rows >= 16:
                break
            top += down
        found = occlusion(model, images, size=size, stride=stride, fill=0.25)[number]
        torch.testing.assert_close(found, total / covers, rtol=1e-12, atol=1e-12)


def test_occlusion_fills_each_picture_with_its_own() -> None:
    model, images = network("in_place"), pictures()
    blurred = functional.avg_pool2d(images, 9, 1, 4, count_include_pad=False)
    both = occlusion(model, images, 1, size=32, fill=blurred)
    alone = occlusion(model, images[1:], 1, size=32, fill=blurred[1:])
    torch.testing.assert_close(both[1:], alone)


def test_a_relu_called_as_a_function_obeys_the_rule_as_well() -> None:
    class Functional(nn.Module):
        def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second, self.how = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), how

        def forward(self, x: Tensor) -> Tensor:
            return self.how(self.second(self.how(self.first(x)))).mean(dim=(2, 3))

    ways = [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        functional.relu,
        torch.relu,
        torch.relu_,
        lambda x: x.relu(),
        lambda x: x.relu_(),
        lambda x: functional.relu(x, inplace=True),
        lambda x: functional.relu(input=x),
        lambda x: functional.relu(x, True),
    ]
    images = pictures(2, 16)
    maps = [guided_backprop(Functional(way), images, 1) for way in ways]
    assert all(torch.equal(found, maps[0]) for found in maps)
    assert not torch.allclose(maps[0], input_gradient(Functional(ways[0]), images, 1))


def test_a_relu_in_place_overwrites_its_input_under_a_rule_too() -> None:
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    with relu_rule(guided_rule) as relus:
        before = x * 1
        after = functional.relu(before, inplace=True)
    assert after is before or after.data_ptr() == before.data_ptr()
    assert before.tolist() == [0.0, 2.0]
    assert relus.met == 1


def test_a_network_without_relu_is_refused_by_the_rules_for_relu(linear: nn.Sequential) -> None:
    for method in (deconvnet, guided_backprop):
        with pytest.raises(ValueError, match="no ReLU"):
            method(linear, pictures(1, 16, torch.float64), 1)


# --- targets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_predicted_class_is_explained_unless_another_is_named(method: Callable[..., Tensor]) -> None:
    model, images = network("in_place"), pictures()
    said = model(images).argmax(dim=1)
    found = method(model, images)
    for same in (said, said.tolist(), said.to(torch.int32)):
        torch.testing.assert_close(method(model, images, same), found)


@pytest.mark.parametrize("method", [m for m in METHODS if m is not smooth_grad])  # whose noise is drawn for a batch
def test_a_picture_has_the_same_map_alone_and_among_others(method: Callable[..., Tensor]) -> None:
    model, images = network("in_place"), pictures()
    torch.testing.assert_close(method(model, images[1:], 3), method(model, images, 3)[1:])


# Of a changed picture the largest logit may be that of another class.
AT_THE_PICTURE_ALONE = [m for m in METHODS if m not in (smooth_grad, integrated_gradients, occlusion)]


@pytest.mark.parametrize("method", AT_THE_PICTURE_ALONE)
def test_the_largest_logit_is_that_of_the_predicted_class(method: Callable[..., Tensor]) -> None:
    model, images = network("in_place"), pictures()
    found = method(model, images, lambda logits: logits.amax(dim=1))
    torch.testing.assert_close(found, method(model, images))


@pytest.mark.parametrize("method", METHODS)
def test_any_function_of_the_logits_can_be_explained(method: Callable[..., Tensor]) -> None:
    found = method(network("in_place"), pictures(), lambda logits: logits[:, 2] - logits[:, 5])
    assert found.abs().max() > 0


@pytest.mark.parametrize("method", [input_gradient, input_x_gradient, integrated_gradients, occlusion])
def test_the_map_of_a_difference_is_the_difference_of_the_maps(method: Callable[..., Tensor]) -> None:
    """A gradient is linear in the score, and so is all that is made of it without absolute values."""
    model, images = network("in_place"), pictures()
    found = method(model, images, lambda logits: logits[:, 2] - logits[:, 5])
    apart = method(model, images, 2) - method(model, images, 5)
    torch.testing.assert_close(found, apart, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (10, ValueError, "target 10 is out of range: this network has 10 classes"),
        (-1, ValueError, "target must be 0 or more"),
        (torch.tensor([1, 2, 3]), ValueError, "one class for each of 2 pictures"),
        ([1, 11], ValueError, "out of range"),
        (1.0, TypeError, "target must be a class"),
        (True, TypeError, "target"),
        ("cat", TypeError, "target must be a class"),
        (torch.tensor([0.5, 1.0]), TypeError, "numbers of classes"),
        (lambda logits: logits, ValueError, "one score for each"),
        (lambda logits: logits.sum(), ValueError, "one score for each"),
    ],
)
def test_a_bad_target_is_named(method: Callable[..., Tensor], target: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        method(network("in_place"), pictures(), target)


@pytest.mark.parametrize("method", [m for m in METHODS if m is not occlusion])
def test_a_score_that_depends_on_no_pixel_has_no_gradient(method: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="does not depend on the picture"):
        method(network("in_place"), pictures(), lambda logits: torch.ones(len(logits)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (torch.rand(3, 8, 8), ValueError, r"write images\[None\]"),
        (torch.rand(0, 3, 8, 8), ValueError, "images must have the shape"),
        (torch.full((1, 3, 64, 64), float("nan")), ValueError, "finite"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating point"),
        ([[1.0]], TypeError, "images must be a tensor"),
    ],
)
def test_bad_images_are_named(method: Callable[..., Tensor], images: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        method(network("in_place"), images)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        method("resnet18", pictures())


@pytest.mark.parametrize(
    ("method", "settings", "error", "words"),
    [
        (smooth_grad, {"samples": 0}, ValueError, "samples must be 1 or more"),
        (smooth_grad, {"noise": -0.1}, ValueError, "noise must be 0 or more"),
        (smooth_grad, {"noise": "some"}, TypeError, "noise must be a number"),
        (smooth_grad, {"seed": 0.5}, TypeError, "seed must be a whole number"),
        (smooth_grad, {"batch_size": 0}, ValueError, "batch_size"),
        (integrated_gradients, {"steps": 0}, ValueError, "steps must be 1 or more"),
        (integrated_gradients, {"steps": 2.5}, TypeError, "steps must be a whole number"),
        (integrated_gradients, {"baseline": "black"}, TypeError, "baseline must be a number"),
        (
            integrated_gradients,
            {"baseline": torch.rand(4, 1, 1)},
            ValueError,
            "baseline must be a number, or broadcast",
        ),
        (integrated_gradients, {"batch_size": 1.5}, TypeError, "batch_size"),
        (occlusion, {"size": 65}, ValueError, "size must fit into pictures of 64 x 64"),
        (occlusion, {"size": 0}, ValueError, "size must be 1 or more"),
        (occlusion, {"size": (1, 2, 3)}, ValueError, "size must be one number, or two"),
        (occlusion, {"size": 8, "stride": 9}, ValueError, "stride must be at most size"),
        (occlusion, {"fill": torch.rand(3, 5, 5)}, ValueError, "fill must be a number, or broadcast"),
        (occlusion, {"batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_bad_settings_are_named_before_any_work(
    method: Callable[..., Tensor], settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = InPlace()
    ran = []
    model.register_forward_hook(lambda *_: ran.append(1))
    with pytest.raises(error, match=words):
        method(model, pictures(), 1, **settings)
    assert not ran


@pytest.mark.parametrize("method", [m for m in METHODS if m is not deconvnet])  # whose way back no ReLU can close
def test_a_map_of_zeros_is_told(method: Callable[..., Tensor]) -> None:
    """The score sits behind a ReLU that is off: for the second picture alone."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2), nn.ReLU())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[3].bias.fill_(-5.0)
    images = torch.stack([torch.ones(3, 8, 8), torch.zeros(3, 8, 8)])
    settings = {"size": 4, "fill": 0.0} if method is occlusion else {"noise": 0.0} if method is smooth_grad else {}
    with pytest.warns(UserWarning, match="the map of picture 1 is zero everywhere"):
        found = method(model, images, 0, **settings)
    assert found[0].any()
    assert not found[1].any()


def test_results_carry_no_graph_and_the_type_of_the_pictures() -> None:
    model = copy.deepcopy(network("in_place")).double()
    images = pictures(dtype=torch.float64).requires_grad_()
    for method in METHODS:
        found = method(model, images)
        assert not found.requires_grad
        assert found.dtype == torch.float64
        assert found.is_contiguous()
        assert found.shape in (images.shape, (2, 64, 64))
    assert images.grad is None


def test_pictures_made_in_inference_mode_can_be_explained_inside_it() -> None:
    with torch.inference_mode():
        images = pictures() * 1
        inside = saliency(network("in_place"), images, 3)
    torch.testing.assert_close(inside, saliency(network("in_place"), pictures(), 3))


def test_a_class_that_no_network_could_have_is_refused() -> None:
    with pytest.raises(ValueError, match="target must be 0 or more, and below"):
        saliency(network("in_place"), pictures(), 2**70)
    with pytest.raises(ValueError, match="baseline must be finite"):
        integrated_gradients(network("in_place"), pictures(), 1, baseline=float("nan"))
