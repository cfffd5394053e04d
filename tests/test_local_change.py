"""A crop through the early layers answers as the whole picture does, wherever the change lies; else nothing is cut."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import networks
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib import _local_change as local_change
from lessons_lib import saliency as saliency_module
from lessons_lib._local_change import LocalChanges, Place
from lessons_lib.saliency import occlusion

NETWORKS = (*networks.LAYERS, "shapes")


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
        local = LocalChanges.of(model, images, changed, (window, window))
        assert local is not None
        assert local.crop < size
        patches = [changed[n, :, down, across] for n, (down, across) in zip(pictures, places, strict=True)]
        found = local.logits(patches, pictures, places)
    wanted = answers(model, images, changed, pictures, places)
    assert networks.relative(found, wanted) < 1e-12


def test_a_place_that_holds_nothing_changes_nothing() -> None:
    model, images = double("shapes"), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        local = LocalChanges.of(model, images, images + 1, (4, 4))
        assert local is not None
        found = local.logits([images[0, :, :0, :0]], [0], [(slice(0, 0), slice(0, 0))])
        assert networks.relative(found, model(images)) < 1e-12


def test_a_smaller_change_reaches_less_and_is_cut_later() -> None:
    model, images = double("resnet18"), torch.rand(1, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        fields = []
        for window in (8, 32, 100):
            local = LocalChanges.of(model, images, images + 1, (window, window))
            assert local is not None
            assert local.crop[0] * local.crop[1] <= 0.35 * 224**2
            fields.append(local.early.field.size[0])
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


def test_nothing_is_cut_where_another_way_passes_by() -> None:
    model, images = _Skips().double().eval(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        local = LocalChanges.of(model, images, images + 1, (4, 4))
    assert local is not None
    assert local.early.field.size == (7, 7)  # behind the sum, where the ways have met


# --- forward passes of every kind --------------------------------------------------------------------------------

Forward = Callable[["_Odd", Tensor], Tensor]


class _Odd(nn.Module):
    """Two convolutions, a head that is not linear, and a forward pass of whatever kind."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c, self.d = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out, self.how, self.last = nn.Linear(8, 5), forward, torch.zeros(1)
        self.register_buffer("place", torch.linspace(0, 1, 40).expand(1, 1, 40, 40).clone())
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = x * mask
        return self.out(self.how(self, x).relu().square().mean(dim=(2, 3)))


def _alias(m: _Odd, x: Tensor) -> Tensor:
    y = m.c(x)
    z = y
    y += 1
    return m.d(z)


def _centred_in_place(m: _Odd, x: Tensor) -> Tensor:
    y = m.c(x)
    y.sub_(y.mean(dim=(2, 3), keepdim=True))
    return m.d(y)


def _half_precision(m: _Odd, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = functional.conv2d(x.float(), m.c.weight.float(), padding=1)
        y = functional.conv2d(y, m.d.weight.float(), padding=1)
    return y.to(x.dtype)


def _keeps(m: _Odd, x: Tensor) -> Tensor:
    m.last = y = m.c(x)
    return m.d(y)


def _averages(m: _Odd, x: Tensor) -> Tensor:
    y = m.c(x)
    m.mean = m.mean * 0.9 + 0.1 * y.mean().detach()
    return m.d(y)


def _pools_with_indices(m: _Odd, x: Tensor) -> Tensor:
    y, where = functional.max_pool2d(m.c(x), 2, return_indices=True)
    return m.d(functional.max_unpool2d(y, where, 2))


@torch.jit.script
def _scripted(x: Tensor) -> Tensor:
    return x * x - x.mean()


ODD: dict[str, Forward] = {
    "the picture changed in place": lambda m, x: m.d(m.c(x.mul_(2.0).add_(-0.5))),
    "another name for what is changed in place": _alias,
    "its mean taken away in place": _centred_in_place,
    "its mean taken away": lambda m, x: m.d(m.c(x - x.mean(dim=(2, 3), keepdim=True))),
    "statistics of the batch": lambda m, x: m.d(functional.batch_norm(m.c(x), None, None, training=True)),
    "statistics of the picture": lambda m, x: m.d(functional.instance_norm(m.c(x))),
    "half precision inside": _half_precision,
    "a buffer that differs from place to place": lambda m, x: m.d(m.c(x) + m.place),
    "a constant made on the way": lambda m, x: m.d(m.c(x) * torch.linspace(0, 1, x.shape[3]).to(x)),
    "the size of the picture": lambda m, x: m.d(m.c(x * (x.shape[2] / 40))),
    "what the pictures decide": lambda m, x: m.d(m.c(x if x.mean() > 0.4 else -x)),
    "a shortcut over everything": lambda m, x: m.d(m.c(x)) + x.mean(dim=1, keepdim=True),
    "a layer twice": lambda m, x: m.d(m.d(m.c(x))),
    "scripted code": lambda m, x: m.d(_scripted(m.c(x))),
    "keeping what it saw": _keeps,
    "a running mean": _averages,
    "pooling that tells where": _pools_with_indices,
    "rolled around": lambda m, x: m.d(torch.roll(m.c(x), 3, dims=3)),
    "turned over": lambda m, x: m.d(m.c(x).flip(3)),
    "channels last": lambda m, x: m.d(m.c(x).permute(0, 2, 3, 1).softmax(dim=-1).permute(0, 3, 1, 2)),
    "upsampled": lambda m, x: m.d(functional.interpolate(m.c(x), scale_factor=2.0)),
    "two branches": lambda m, x: m.d(torch.cat([m.c(x)[:, :4], m.c(x)[:, 4:].tanh()], dim=1)),
    "a wider look added in place": lambda m, x: (lambda y: y.add_(m.d(y)))(m.c(x)),
    "clamped": lambda m, x: m.d(torch.clamp(m.c(x), 0, 0.3)),
}


def both_ways(model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch, **how: Any) -> tuple[Tensor, Tensor]:
    plain = occlusion(model, images, 1, **how)
    monkeypatch.setattr(local_change, "_WORTH_CUTTING", 0)
    monkeypatch.setattr(local_change, "_SHARE", 0.9)
    return occlusion(model, images, 1, **how), plain


@pytest.mark.filterwarnings("ignore:.*jit")
@pytest.mark.parametrize("kind", ODD)
def test_whatever_the_forward_pass_does_the_map_is_that_of_whole_pictures(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = _Odd(ODD[kind]).double().eval(), networks.pictures(2, 40, torch.float64)
    names = set(dict(model.named_buffers())) | set(vars(model))
    # One at a time: what takes the statistics of a batch would differ for other reasons.
    found, plain = both_ways(model, images, monkeypatch, size=5, stride=4, batch_size=1)
    assert networks.relative(found, plain) < (1e-2 if kind == "half precision inside" else 1e-9)
    assert set(dict(model.named_buffers())) | set(vars(model)) == names
    assert type(model.last) is Tensor and type(model.mean) is Tensor


LAYERS = {
    "a kernel smaller than its stride": nn.Conv2d(3, 8, 1, stride=3),
    "a padding at the end": nn.Conv2d(3, 8, 4, padding="same"),
    "a copying padding": nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
    "a padding that wraps around": nn.Conv2d(3, 8, 5, padding=2, padding_mode="circular"),
    "holes and two strides": nn.Conv2d(3, 8, (3, 2), stride=(1, 2), dilation=(2, 3), padding=(0, 2)),
    "groups": nn.Conv2d(3, 9, 3, groups=3),
    "a transposed convolution": nn.ConvTranspose2d(3, 8, 3, stride=2),
    "pooling to the last pixel": nn.MaxPool2d(3, 2, ceil_mode=True),
    "pooling with holes": nn.MaxPool2d(2, 1, dilation=3, padding=1),
    "a mean that counts the border": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
    "neighbouring channels": nn.LocalResponseNorm(3),
    "groups of channels": nn.GroupNorm(1, 3),
    "a slope of its own": nn.PReLU(3),
    "in place": nn.ELU(inplace=True),
    "shuffled": nn.PixelUnshuffle(2),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_whatever_the_layer_the_map_is_that_of_whole_pictures(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    first = copy.deepcopy(LAYERS[kind])
    nn.init.uniform_(next(first.parameters())) if isinstance(first, nn.PReLU) else None
    channels = first(torch.rand(1, 3, 42, 54)).shape[1]
    head = (nn.Conv2d(channels, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Tanh(), nn.Linear(4, 3))
    model = nn.Sequential(nn.BatchNorm2d(3), first, *head).double().eval()
    images = networks.pictures(2, 54, torch.float64)[:, :, :42].contiguous()
    found, plain = both_ways(model, images, monkeypatch, size=(5, 3), stride=(3, 3))
    assert networks.relative(found, plain) < 1e-9


def test_early_operations_are_found_in_plain_networks_whatever_their_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ("another name for what is changed in place", "the size of the picture", "clamped")
    monkeypatch.setattr(local_change, "_SHARE", 0.9)
    for kind in (*plain, "keeping what it saw", "a layer twice", "a wider look added in place"):
        images = networks.pictures(1, 40, torch.float64)
        with torch.no_grad():
            assert LocalChanges.of(_Odd(ODD[kind]).double().eval(), images, images + 1, (4, 4)) is not None, kind


def test_a_pass_that_takes_another_way_is_noticed_and_then_all_of_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def changes_its_mind(m: _Odd, x: Tensor) -> Tensor:
        calls.append(1)
        return m.d(m.c(x)) if len(calls) % 3 else m.d(m.c(x).tanh())

    model, images = _Odd(changes_its_mind).double().eval(), networks.pictures(1, 40, torch.float64)
    monkeypatch.setattr(local_change, "_WORTH_CUTTING", 0)
    assert occlusion(model, images, 1, size=8, batch_size=8).isfinite().all()


def test_a_hook_of_somebody_else_never_sees_what_stands_for_a_tensor() -> None:
    model, seen = copy.deepcopy(networks.network("resnet18")), []
    model.get_submodule("layer1").register_forward_hook(lambda module, inputs, output: seen.append(type(output)))
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        assert LocalChanges.of(model, images, images + 1, (4, 4)) is None
    assert seen == []


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

    monkeypatch.setattr(local_change, "_WORTH_CUTTING", 0)
    monkeypatch.setattr(saliency_module.LocalChanges, "of", remember)
    found = occlusion(model, images, target, size=6, stride=6)
    assert taken[0] is not None
    assert networks.relative(found, wanted) < 1e-10
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_runs_as_always(in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = copy.deepcopy(networks.network("in_place")), networks.pictures(1, 64)
    monkeypatch.setattr(local_change, "_WORTH_CUTTING", 0)
    wanted = occlusion(model, images, 1, size=16)
    compiled = nn.Sequential(torch.compile(model, backend="eager"))
    if in_place:
        model.compile(backend="eager")
        compiled = nn.Sequential(model)
    with torch.no_grad():
        assert LocalChanges.of(compiled, images, torch.zeros_like(images), (16, 16)) is None
    torch.testing.assert_close(occlusion(compiled, images, 1, size=16), wanted)


def test_to_be_told_of_operations_does_not_load_a_compiler() -> None:
    code = """
import sys, torch
from lessons_lib._local_change import LocalChanges
from lessons_lib.specimens import load_specimen
specimen = load_specimen("shapes")
images = specimen.example("clear")[None]
with torch.no_grad():
    assert LocalChanges.of(specimen.model, images, torch.zeros_like(images), (8, 8)) is not None
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
