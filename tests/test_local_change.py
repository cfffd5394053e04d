"""A crop through the early layers answers as the whole picture does, wherever the change lies; else nothing is cut."""

from __future__ import annotations

import copy
from typing import Any

import networks
import pytest
import torch
from torch import Tensor, nn

from lessons_lib import local_change
from lessons_lib import saliency as saliency_module
from lessons_lib.local_change import LocalChanges, Place
from lessons_lib.saliency import occlusion

# Of "in_place" a forward pass cannot be recorded: it makes a new module in each.
NETWORKS = (*(name for name in networks.LAYERS if name != "in_place"), "shapes")


def double(name: str) -> nn.Module:
    return copy.deepcopy(networks.network(name)).double().eval()


def corners_edges_and_middle(length: int, window: int) -> list[slice]:
    starts = (0, 3, length // 2 - 5, length - window, length - 2)
    return [slice(start, min(start + window, length)) for start in starts]


@torch.no_grad()
def answers(model: nn.Module, images: Tensor, changed: Tensor, pictures: list[int], places: list[Place]) -> Tensor:
    whole = images[pictures]
    for one, picture, (down, across) in zip(whole, pictures, places, strict=True):
        one[:, down, across] = changed[picture, :, down, across]
    logits: Tensor = model(whole)
    return logits


@pytest.mark.parametrize(("size", "window"), [((64, 64), 7), ((75, 90), 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_answers_are_those_to_whole_pictures(
    name: str, window: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_change, "_SHARE", 0.9)  # cuts as late as can be, where a wrong crop would show most
    model, random = double(name), torch.Generator().manual_seed(window)
    images, changed = (torch.rand(2, 3, *size, generator=random, dtype=torch.float64) for _ in range(2))
    places = [
        (down, across)
        for down in corners_edges_and_middle(size[0], window)
        for across in corners_edges_and_middle(size[1], window)
    ]
    pictures = [number % 2 for number in range(len(places))]
    with torch.no_grad():
        local = LocalChanges.of(model, images, (window, window))
        assert local is not None
        assert local.crop < size
        found = local.logits(changed, pictures, places)
    wanted = answers(model, images, changed, pictures, places)
    assert networks.relative(found, wanted) < 1e-12


def test_a_place_that_holds_nothing_changes_nothing() -> None:
    model, images = double("shapes"), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        local = LocalChanges.of(model, images, (4, 4))
        assert local is not None
        found = local.logits(images + 1, [0], [(slice(0, 0), slice(0, 0))])
        assert networks.relative(found, model(images)) < 1e-12


def test_a_smaller_change_reaches_less_and_is_cut_later() -> None:
    model, images = double("resnet18"), torch.rand(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        fields = []
        for window in (8, 32, 100):
            local = LocalChanges.of(model, images, (window, window))
            assert local is not None
            assert local.crop[0] * local.crop[1] <= 0.35 * 224**2
            fields.append(local.field.size[0])
    assert fields[0] >= fields[1] > fields[2]


class _Skips(nn.Module):
    """What the first layer puts out is asked for again behind the last: between them nothing may be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        return (self.third(self.second(first)) + first).mean(dim=(2, 3))


class _AsksForTheSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x * (x.shape[2] / 64)).mean(dim=(2, 3))


class _Decides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x if x.mean() > 0 else -x).mean(dim=(2, 3))


class _LooksEverywhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x - x.mean(dim=(2, 3), keepdim=True)).mean(dim=(2, 3))


def test_nothing_is_cut_where_another_way_passes_by() -> None:
    model, images = _Skips().double().eval(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        local = LocalChanges.of(model, images, (4, 4))
    assert local is not None
    assert local.field.size == (7, 7)  # behind the sum, where the ways have met


@pytest.mark.parametrize("kind", [_AsksForTheSize, _Decides, _LooksEverywhere])
def test_what_cannot_be_told_from_a_crop_is_not_cut(kind: Any) -> None:
    with torch.no_grad():
        assert LocalChanges.of(kind().eval(), torch.rand(1, 3, 64, 64), (4, 4)) is None


def test_a_hook_of_somebody_else_never_sees_what_stands_for_a_tensor() -> None:
    model, seen = copy.deepcopy(networks.network("resnet18")), []
    model.get_submodule("layer1").register_forward_hook(lambda module, inputs, output: seen.append(type(output)))
    with torch.no_grad():
        assert LocalChanges.of(model, torch.rand(1, 3, 64, 64), (4, 4)) is None
    assert seen == []


def test_what_cannot_be_recorded_is_not_cut() -> None:
    with torch.no_grad():
        assert LocalChanges.of(networks.network("in_place"), torch.rand(1, 3, 64, 64), (4, 4)) is None


@pytest.mark.parametrize("name", ["squeezenet", "shapes"])
def test_occlusion_gives_the_same_map_either_way_and_leaves_the_model(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = double(name), networks.pictures(2, dtype=torch.float64)
    before, names = copy.deepcopy(model.state_dict()), [name for name, _ in model.named_modules()]
    target = torch.tensor([1, 4])
    wanted = occlusion(model, images, target, size=6, stride=6)
    taken: list[Any] = []
    of = LocalChanges.of

    def remember(*arguments: Any) -> Any:
        taken.append(of(*arguments))
        return taken[-1]

    monkeypatch.setattr(saliency_module, "_WORTH_CUTTING", 0)
    monkeypatch.setattr(saliency_module.LocalChanges, "of", remember)
    found = occlusion(model, images, target, size=6, stride=6)
    assert taken[0] is not None
    assert networks.relative(found, wanted) < 1e-10
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
