"""Activations: captured maps, dead filters, receptive fields by brute force, and the most exciting patches.

Receptive fields are tested by changing pixels: with weights and pictures above 0, convolution, pooling and ReLU answer
to more of any pixel that they see by more, so every pixel that can matter shows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib import load_specimen
from lessons_lib.activations import (
    OUTSIDE,
    ReceptiveField,
    activations,
    dead_filters,
    receptive_field,
    top_patches,
)
from lessons_lib.resnet import BasicBlock, Normalize, shapes_network
from lessons_lib.specimens import Specimen
from lessons_lib.squeezenet import Fire, SqueezeNet


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    row = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(4, 5, 3, stride=2)]
    return nn.Sequential(*row, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))


@pytest.fixture(params=["shapes", "imagenet"])
def specimen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Specimen:
    if request.param != "shapes":
        monkeypatch.setenv("LESSONS_DATA", str(request.getfixturevalue("local_data")))
    return load_specimen(request.param)


def state(model: nn.Module) -> list[Any]:
    """What a function must leave as it was: modes, hooks, gradients, flags and every number."""
    modules = [
        (name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for name, m in model.named_modules()
    ]
    parameters = [(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()]
    return [modules, parameters, {name: value.tolist() for name, value in model.state_dict().items()}]


# --- activations -------------------------------------------------------------------------------------------------


def test_the_activation_is_what_a_plain_forward_pass_puts_out_there() -> None:
    model, images = network().eval(), random(2, 3, 9, 8)
    with torch.no_grad():
        wanted = model[:5](images)
    assert torch.equal(activations(model, images, "4"), wanted)
    assert torch.equal(activations(model, images, model[4]), wanted)


def test_several_layers_come_by_name_as_they_were_before_a_relu_in_place() -> None:
    model, images = network().eval(), random(2, 3, 9, 8)
    found = activations(model, images, ["1", "4"])
    assert list(found) == ["1", "4"]
    assert found["1"].min() < 0
    mapped = activations(model, images, {"norm": model[1], "conv": model[4]})
    assert torch.equal(mapped["norm"], found["1"])
    assert torch.equal(mapped["conv"], found["4"])


def test_it_agrees_with_torchvisions_feature_extraction(specimen: Specimen) -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    names = {next(n for n, m in specimen.model.named_modules() if m is layer) for layer in specimen.layers.values()}
    images = specimen.sample(2)
    theirs = create_feature_extractor(specimen.model, return_nodes=sorted(names))(images)
    ours = activations(specimen.model, images, names)
    assert ours.keys() == theirs.keys()
    for name, maps in ours.items():
        torch.testing.assert_close(maps, theirs[name])


def test_it_agrees_with_captum(specimen: Specimen) -> None:
    from captum.attr import LayerActivation

    images = specimen.sample(2)
    for layer in specimen.layers.values():
        theirs = LayerActivation(specimen.model, layer).attribute(images)
        torch.testing.assert_close(activations(specimen.model, images, layer), theirs)


def test_there_is_no_graph_and_what_comes_behind_the_layer_does_not_run() -> None:
    model, ran = network(), []
    model[5].register_forward_hook(lambda *a: ran.append(1))
    activations(model, random(1, 3, 8, 8), "4")
    ran.clear()  # of the one whole look at a model that is new
    found = activations(model, random(1, 3, 8, 8).requires_grad_(), "4")
    assert not found.requires_grad
    assert ran == []


def test_the_model_runs_in_evaluation_mode_whatever_mode_it_is_in() -> None:
    model, images = network().train(), random(4, 3, 8, 8)
    wanted = activations(copy.deepcopy(model).eval(), images, "4")
    assert torch.equal(activations(model, images, "4"), wanted)
    torch.testing.assert_close(activations(model, images[:1], "4"), wanted[:1])  # no matter in what company


FUNCTIONS: dict[str, Callable[[nn.Module, Tensor, Any], Any]] = {
    "activations": activations,
    "dead_filters": dead_filters,
    "top_patches": lambda model, images, layer: top_patches(model, images, layer, [0], count=2),
    "receptive_field": lambda model, images, layer: receptive_field(model, layer),
}


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_model_is_afterwards_as_it_was(name: str, mode: bool) -> None:
    model = network().train(mode)
    model[2].train(not mode)  # a mixture of modes comes back too
    before = state(model)
    FUNCTIONS[name](model, random(3, 3, 8, 8), "4")
    assert state(model) == before


class Fragile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise OSError("this layer fails")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_model_is_as_it_was_after_an_error_in_its_forward_pass(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Fragile(), nn.Conv2d(4, 4, 3)).train()
    before = state(model)
    with pytest.raises((OSError, ValueError), match="fails"):
        FUNCTIONS[name](model, random(3, 3, 8, 8), "3")
    assert state(model) == before
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl, "the tracer has patched modules and left them so"


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("layer", "words"),
    [("conv9", "no module named 'conv9'"), (nn.ReLU(), "not a module of this model")],
    ids=["name", "module"],
)
def test_a_layer_that_is_not_in_the_model_is_refused(name: str, layer: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FUNCTIONS[name](network(), random(3, 3, 8, 8), layer)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_layer_that_does_not_run_is_refused(name: str) -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Any:
            return self.used(x)

    with pytest.raises(ValueError, match="'unused' does not run"):
        FUNCTIONS[name](Lazy(), random(3, 3, 8, 8), "unused")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_model_must_be_a_module(name: str) -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, not str"):
        FUNCTIONS[name]("squeezenet", random(3, 3, 8, 8), "4")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dead_filters", "top_patches", "receptive_field"])
@pytest.mark.parametrize("layer", [["4"], None, 4], ids=str)
def test_one_layer_means_one(name: str, layer: Any) -> None:
    with pytest.raises(TypeError, match="layer must be one module of the model or its name"):
        FUNCTIONS[name](network(), random(3, 3, 8, 8), layer)


@pytest.mark.parametrize("name", ["activations", "dead_filters", "top_patches"])
@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        ("cat.png", TypeError, r"images must be a tensor \(N, C, H, W\), not str"),
        (torch.rand(3, 8, 8), ValueError, r"not \(3, 8, 8\): write images\[None\]"),
        (torch.rand(0, 3, 8, 8), ValueError, r"not \(0, 3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating point, not torch.uint8"),
    ],
    ids=["a name", "one picture", "none", "8 bits"],
)
def test_what_are_no_pictures_is_refused(name: str, images: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        FUNCTIONS[name](network(), images, "4")


# --- dead filters ------------------------------------------------------------------------------------------------


def with_biases(*biases: float) -> nn.Sequential:
    """One channel for each bias; pictures from 0 to 1 wake the channel where they exceed minus the bias."""
    conv = nn.Conv2d(1, len(biases), 1)
    nn.init.ones_(conv.weight)
    conv.bias.data = torch.tensor(biases)
    return nn.Sequential(conv, nn.ReLU())


def test_a_filter_is_dead_if_no_place_of_any_picture_wakes_it() -> None:
    images = torch.zeros(5, 1, 4, 4)
    images[3, 0, 2, 1] = 0.6  # one place of one picture
    assert dead_filters(with_biases(0.1, 0.0, -0.5, -0.7), images, "1").tolist() == [False, False, False, True]
    assert dead_filters(with_biases(0.1, 0.0, -0.5, -0.7), images[:3], "1").tolist() == [False, True, True, True]


def test_the_batch_size_changes_nothing() -> None:
    model, images = network(), random(7, 3, 9, 9)
    for size in (1, 3, 7, 50):
        assert torch.equal(dead_filters(model, images, "5", batch_size=size), dead_filters(model, images, "5"))
        one = top_patches(model, images, "4", [2, 0], count=4, batch_size=size)
        for a, b in zip(one, top_patches(model, images, "4", [2, 0], count=4), strict=True):
            torch.testing.assert_close(a, b)


def test_before_a_relu_negative_is_as_dead_as_zero() -> None:
    images = torch.full((1, 1, 2, 2), 0.5)
    assert dead_filters(with_biases(-0.6, -0.5, -0.4), images, "0").tolist() == [True, True, False]


@pytest.mark.parametrize("name", ["dead_filters", "top_patches"])
def test_a_network_that_puts_out_nan_gets_no_verdict(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    model[0].weight.data[1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        FUNCTIONS[name](model, random(2, 3, 5, 5), "1")


def test_a_layer_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"puts out the shape \(2, 2\), not feature maps"):
        dead_filters(network(), random(2, 3, 8, 8), "8")


@pytest.mark.parametrize(
    ("size", "error", "words"), [(0, ValueError, "1 or more"), (2.5, TypeError, "float"), (True, TypeError, "bool")]
)
def test_a_batch_has_a_whole_number_of_pictures(size: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"batch_size.*{words}"):
        dead_filters(network(), random(2, 3, 8, 8), "4", batch_size=size)


# --- receptive fields --------------------------------------------------------------------------------------------


def positive(model: nn.Module) -> nn.Module:
    """The model with all weights above 0, so that no influence of a pixel is cancelled by another's."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()  # type: ignore[union-attr]
            nn.init.ones_(module.weight)
    for name, parameter in model.named_parameters():
        parameter.data = torch.full_like(parameter, 0.1 if name.endswith("bias") else 1 / parameter[0].numel())
    return model.eval().double()


def clipped(box: tuple[int, int, int, int], height: int, width: int) -> tuple[int, int, int, int]:
    return max(box[0], 0), max(box[1], 0), min(box[2], height), min(box[3], width)


def moved_by_each_line(model: nn.Module, layers: list[str], images: Tensor) -> dict[str, Tensor]:
    """For each row and then each column of the picture: which places of the maps change if it changes."""
    height, width = images.shape[2:]
    before = activations(model, images, layers)
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for line in range(height + width):
        changed = images.clone()
        changed.select(2 if line < height else 3, line % height if line < height else line - height).add_(1e3)
        for layer, after in activations(model, changed, layers).items():
            found[layer].append((after - before[layer]).abs().amax(dim=(0, 1)) > 1e-9 * before[layer].max())
    return {layer: torch.stack(lines) for layer, lines in found.items()}


def check_by_brute_force(model: nn.Module, layers: list[str], size: tuple[int, int]) -> None:
    model, images = positive(model), 0.1 + random(1, 3, *size).double()
    for layer, moved in moved_by_each_line(model, layers, images).items():
        field = receptive_field(model, layer)

        def by_force(row: int, column: int, moved: Tensor = moved) -> tuple[int, ...]:
            rows, columns = moved[: size[0], row, column].nonzero()[:, 0], moved[size[0] :, row, column].nonzero()[:, 0]
            return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

        _, height, width = moved.shape
        for place in ((height // 2, width // 2), (0, 0)):
            assert by_force(*place) == clipped(field.box(*place), *size), (layer, field, place)
        # At the far border a stride may leave out the last pixels, and no map knows of them.
        found, box = by_force(height - 1, width - 1), clipped(field.box(height - 1, width - 1), *size)
        assert found[:2] == box[:2]
        assert all(0 <= b - f < step for b, f, step in zip(box[2:], found[2:], field.stride, strict=True))


class Functional(nn.Module):
    """As many networks are written: functions instead of modules, shapes asked for on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(2, 2, (1, 5), padding=(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.one(x)), 2) * 1.5
        x = functional.avg_pool2d(self.two(x).relu(), kernel_size=3, stride=2, padding=1)
        return torch.relu(x + x.shape[1])


STACKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a filter": (lambda: nn.Sequential(nn.Conv2d(3, 2, 5)), "0"),
    "not square": (
        lambda: nn.Sequential(nn.Conv2d(3, 2, (3, 5), stride=(1, 2), padding=(0, 3)), nn.Conv2d(2, 2, 2)),
        "1",
    ),
    "dilated": (lambda: nn.Sequential(nn.Conv2d(3, 2, 3, dilation=3, padding=2), nn.Conv2d(2, 2, 3)), "1"),
    "padding by name": (
        lambda: nn.Sequential(nn.Conv2d(3, 2, 4, padding="same"), nn.Conv2d(2, 2, 3, padding="valid")),
        "1",
    ),
    "pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 2, 3), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3)
        ),
        "4",
    ),
    "pooling that rounds up": (
        lambda: nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(2, 2, 1)),
        "2",
    ),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3, 2)), "2"),
    "a fire module": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), Fire(4, 2, 3), nn.MaxPool2d(2)), "2"),
    "a residual block": (lambda: nn.Sequential(BasicBlock(3, 4, stride=2), BasicBlock(4, 4)), "1"),
    "inside a residual block": (lambda: nn.Sequential(BasicBlock(3, 4, stride=2), BasicBlock(4, 4)), "1.conv1"),
    "the shortcut of a block": (lambda: nn.Sequential(nn.Conv2d(3, 3, 3), BasicBlock(3, 4, 2)), "1.shortcut"),
    "normalized pictures": (lambda: nn.Sequential(Normalize((0.1,) * 3, (0.5,) * 3), nn.Conv2d(3, 2, 3)), "1"),
    "functions": (lambda: nn.Sequential(Functional(), nn.Conv2d(2, 2, 1)), "1"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", STACKS)
def test_the_receptive_field_is_what_brute_force_finds(name: str) -> None:
    build, layer = STACKS[name]
    torch.manual_seed(0)
    check_by_brute_force(build(), [layer], (25, 22))


def test_the_fields_of_the_specimen_shapes_are_what_brute_force_finds() -> None:
    stages = ("stem", "stage1", "stage2", "stage3", "stage4")
    check_by_brute_force(shapes_network(), [f"resnet.{stage}" for stage in stages], (64, 64))


def test_the_fields_of_squeezenet_are_what_brute_force_finds() -> None:
    check_by_brute_force(SqueezeNet(), [f"features.{place}" for place in (1, 3, 5, 7, 9, 10, 12)], (131, 131))


@pytest.mark.parametrize(
    ("name", "layer", "size", "stride", "start"),
    [
        # vgg16 as published by Araujo et al., 2019, where start is minus the padding; the others by hand.
        ("resnet18", "layer4", 435, 32, -217),
        ("vgg16", "features.30", 212, 32, -90),
        ("alexnet", "features.12", 195, 32, -66),
        ("squeezenet1_0", "features.12", 155, 16, -60),
        ("squeezenet1_1", "features.12", 207, 16, -88),
        ("mobilenet_v2", "features.18", 491, 32, None),
    ],
)
def test_torchvisions_networks_have_their_known_fields(
    name: str, layer: str, size: int, stride: int, start: int | None
) -> None:
    from torchvision import models

    field = receptive_field(models.get_model(name, weights=None), layer)
    assert field.stride == (stride, stride)
    assert field.size == (size, size)
    assert start is None or field.start == (start, start)


def test_the_gradient_of_a_trained_network_vanishes_outside_the_box(specimen: Specimen) -> None:
    from lessons_lib.hooks import Capture

    layer = list(specimen.layers.values())[-1]
    field = receptive_field(specimen.model, layer)
    images = specimen.sample(2).requires_grad_()
    with Capture(specimen.model, {"layer": layer}, stop=True) as kept:
        specimen.model(images)
    row, column = kept["layer"].shape[2] // 2, kept["layer"].shape[3] // 2
    (gradient,) = torch.autograd.grad(kept["layer"][:, :, row, column].sum(), images)
    top, left, bottom, right = clipped(field.box(row, column), *images.shape[2:])
    assert gradient.abs().sum() > 0
    gradient[:, :, top:bottom, left:right] = 0
    assert gradient.abs().max() == 0


class Untraceable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "layer", "words"),
    [
        (network(), "6", "AdaptiveAvgPool2d, which looks at all places"),
        (network(), "8", "which looks at all places"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.InstanceNorm2d(2)), "1", "InstanceNorm2d, which looks at all places"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Upsample(scale_factor=2)), "1", "Upsample, which is not known here"),
        (nn.Sequential(nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular")), "0", "wraps around the border"),
        (nn.Sequential(nn.Conv2d(3, 2, 3, padding=2, padding_mode="reflect")), "0", "from outside the window"),
        (nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)), "0", "looks at all places"),
        (nn.Sequential(Untraceable(), nn.Conv2d(3, 2, 3)), "1", "could not be followed to layer '1'"),
    ],
    ids=["average", "linear", "instance norm", "unknown", "circular", "wide mirror", "no statistics", "untraceable"],
)
def test_a_layer_whose_field_cannot_be_told_is_refused_with_the_reason(
    model: nn.Module, layer: str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        receptive_field(model, layer)


def test_what_comes_behind_the_layer_need_not_be_known_or_traceable() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), Untraceable(), nn.Upsample(scale_factor=2))
    assert receptive_field(model, "1") == ReceptiveField((3, 3), (1, 1), (0, 0))


def test_branches_with_different_strides_are_refused() -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.end = nn.Conv2d(3, 2, 1, 2), nn.Conv2d(3, 2, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Any:
            return self.end(self.one(x) + self.two(x))

    with pytest.raises(ValueError, match="branches with the strides"):
        receptive_field(Uneven(), "end")


def test_maps_put_side_by_side_in_one_picture_have_no_field() -> None:
    class Panorama(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.end = nn.ReLU()

        def forward(self, x: Tensor) -> Any:
            return self.end(torch.cat([x, x], dim=3))

    with pytest.raises(ValueError, match="cat, which is not known here"):
        receptive_field(Panorama(), "end")


@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("start", [0, -1, -5])
@pytest.mark.parametrize("length", [3, 12, 20])
def test_inside_are_exactly_the_places_whose_box_lies_in_the_picture(
    size: int, stride: int, start: int, length: int
) -> None:
    field = ReceptiveField((size, 1), (stride, 1), (start, 0))
    rows, columns = field.inside(length, 5)
    boxes = [field.box(row, 0) for row in range(40)]
    assert list(range(40))[rows] == [i for i, box in enumerate(boxes) if box[0] >= 0 and box[2] <= length]
    assert columns == slice(0, 5)


# --- top patches -------------------------------------------------------------------------------------------------


def brightness() -> nn.Sequential:
    """Two channels: how bright a 3 x 3 patch is, and how dark."""
    conv = nn.Conv2d(3, 2, 3, stride=2, padding=1)
    conv.weight.data[0], conv.weight.data[1] = 1.0, -1.0
    conv.bias.data = torch.tensor([0.0, 100.0])
    return nn.Sequential(conv, nn.ReLU())


def test_the_patches_are_the_fields_of_the_largest_activations_best_first() -> None:
    images = 0.1 * random(6, 3, 12, 10)
    for number, (row, column, value) in {4: (4, 6, 0.9), 1: (8, 2, 0.8), 3: (2, 4, 0.7)}.items():
        images[number, :, row - 1 : row + 2, column - 1 : column + 2] = value
    found = top_patches(brightness(), images, "1", [0], count=3)
    assert found.patches.shape == (1, 3, 3, 3, 3)
    assert found.images.tolist() == [[4, 1, 3]]
    assert found.places.tolist() == [[[2, 3], [4, 1], [1, 2]]]
    torch.testing.assert_close(found.values, torch.tensor([[27 * 0.9, 27 * 0.8, 27 * 0.7]]))
    for patch, value in zip(found.patches[0], (0.9, 0.8, 0.7), strict=True):
        assert (patch == value).all()


def test_values_and_places_are_those_of_the_maps_and_each_image_comes_once() -> None:
    model, images = network(), random(8, 3, 13, 12)
    maps = activations(model, images, "4")
    found = top_patches(model, images, "4", torch.tensor([3, 1]), count=8)
    for row, channel in enumerate((3, 1)):
        assert sorted(found.images[row].tolist()) == list(range(8))
        assert found.values[row].tolist() == sorted(found.values[row].tolist(), reverse=True)
        for value, image, place in zip(found.values[row], found.images[row], found.places[row], strict=True):
            assert value == maps[image, channel].max() == maps[image, channel, place[0], place[1]]


def test_a_patch_is_grey_outside_the_picture() -> None:
    images = torch.zeros(1, 3, 6, 6)
    images[0, :, 0, 0] = 1.0
    (patch,) = top_patches(brightness(), images, "1", [0], count=1).patches[0]
    assert (patch[:, 0] == OUTSIDE).all()
    assert (patch[:, :, 0] == OUTSIDE).all()
    assert patch[:, 1:, 1:].sum() == 3


def test_with_inside_places_at_the_border_do_not_count() -> None:
    images = 0.5 * random(3, 3, 9, 9)
    images[:, :, 0, 0] = 30.0
    anywhere = top_patches(brightness(), images, "1", [0], count=3)
    inside = top_patches(brightness(), images, "1", [0], count=3, inside=True)
    assert anywhere.places.sum() == 0
    assert inside.places.min() >= 1
    maps = activations(brightness(), images, "1")
    for value, image, place in zip(inside.values[0], inside.images[0], inside.places[0], strict=True):
        assert value == maps[image, 0, 1:4, 1:4].max() == maps[image, 0, place[0], place[1]]


def test_a_field_that_fits_nowhere_is_refused_with_inside_alone() -> None:
    images = random(2, 3, 2, 9)
    assert len(top_patches(brightness(), images, "1", [0], count=2).patches) == 1
    with pytest.raises(ValueError, match="3 x 3 pixels fits nowhere into pictures of 2 x 9: leave out inside=True"):
        top_patches(brightness(), images, "1", [0], count=2, inside=True)


def test_of_several_images_of_one_scene_the_best_alone_is_shown() -> None:
    images = 0.1 * random(6, 3, 8, 8)
    for number, value in enumerate((0.2, 0.9, 0.8, 0.3, 0.7, 0.4)):
        images[number, :, 3:6, 3:6] = value
    found = top_patches(brightness(), images, "1", [0], count=3, scenes=torch.tensor([7, 0, 0, 7, 0, 3]))
    assert found.images.tolist() == [[1, 5, 3]]
    for channel in (0, 1):  # the darkest too, whose order is another one
        each = top_patches(brightness(), images, "1", [channel], count=6, scenes=torch.arange(6))
        plain = top_patches(brightness(), images, "1", [channel], count=6)
        assert torch.equal(each.images, plain.images)


def test_the_patches_can_be_handed_to_image_rows(specimen: Specimen) -> None:
    from lessons_lib.plots import image_rows

    layer = list(specimen.layers.values())[1]
    found = top_patches(specimen.model, specimen.sample(6), layer, [0, 5], count=4, scenes=specimen.scenes(6))
    size = receptive_field(specimen.model, layer).size
    assert found.patches.shape == (2, 4, 3, *size)
    assert image_rows({"0": found.patches[0], "5": found.patches[1]}, alt="Patches.").alt == "Patches."


@pytest.mark.parametrize(
    ("channels", "options", "error", "words"),
    [
        ([5], {}, ValueError, "channels must lie from 0 to 4: this layer has 5 channels"),
        ([0, -1], {}, ValueError, "channels must lie from 0"),
        ([], {}, ValueError, "channels is empty"),
        (3, {}, TypeError, r"channels must be indices, such as \[3, 14\], not int"),
        ([1.5], {}, TypeError, "channels must be whole numbers, not float"),
        ("12", {}, TypeError, "channels must be indices"),
        (torch.tensor([0.5]), {}, TypeError, "whole numbers"),
        ([0], {"count": 4}, ValueError, "count must be at most 3"),
        ([0], {"count": 0}, ValueError, "count must be 1 or more"),
        ([0], {"count": 2.0}, TypeError, "count must be a whole number"),
        ([0], {"count": 3, "scenes": torch.tensor([0, 0, 1])}, ValueError, "count must be at most 2"),
        ([0], {"count": 1, "scenes": [0, 0, 1]}, ValueError, "scenes must be a tensor of whole numbers"),
        ([0], {"count": 1, "scenes": torch.zeros(2, dtype=torch.int)}, ValueError, "one for each of 3 images"),
        ([0], {"count": 1, "scenes": torch.zeros(3)}, ValueError, "scenes must be a tensor of whole numbers"),
        ([0], {"count": 1, "batch_size": 0}, ValueError, "batch_size"),
    ],
)
def test_what_cannot_be_sought_is_refused(
    channels: Any, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        top_patches(network(), random(3, 3, 9, 9), "4", channels, **{"count": 1, **options})


# --- layers that are easy to misread -----------------------------------------------------------------------------


class Twice(nn.Module):
    """As the blocks of torchvision's residual networks: one ReLU, two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.conv(x))))


def test_a_layer_that_runs_twice_is_refused_and_not_shown_at_its_first_run() -> None:
    images = torch.rand(2, 3, 8, 8)
    shared = nn.Conv2d(3, 3, 3)
    for model, name in ((Twice(), "relu"), (Twice(), "conv"), (nn.Sequential(shared, nn.Tanh(), shared), "0")):
        for _ in range(2):
            with pytest.raises(ValueError, match=f"'{name}' runs more than once"):
                activations(model, images, name)
        with pytest.raises(ValueError, match="runs more than once"):
            dead_filters(model, images, name)
        assert not any(m._forward_hooks for m in model.modules())


def test_the_second_look_at_a_network_costs_no_more_than_the_pass() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout())
    looks: list[int] = []
    model[0].register_forward_hook(lambda module, given, output: looks.append(len(given[0])))
    torch.manual_seed(0)
    untouched = torch.rand(3)
    torch.manual_seed(0)
    activations(model, torch.zeros(2, 3, 8, 8), "1")
    activations(model, torch.zeros(2, 3, 8, 8), "1")
    assert looks == [1, 2, 2]
    assert torch.equal(torch.rand(3), untouched)


def test_a_layer_that_hands_its_input_through_does_not_hand_out_the_pictures_themselves() -> None:
    images = torch.rand(1, 3, 8, 8)
    kept = images.clone()
    activations(nn.Sequential(nn.Identity()), images, "0").zero_()
    assert torch.equal(images, kept)


def test_numbers_of_numpy_are_numbers() -> None:
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(3, 3, 8, 8)
    options = {"count": np.int64(2), "batch_size": np.int64(2)}
    wanted = top_patches(model, images, "0", [3, 1], count=2)
    for channels in (np.array([3, 1]), [np.int64(3), np.int64(1)]):
        assert torch.equal(top_patches(model, images, "0", channels, **options).patches, wanted.patches)
