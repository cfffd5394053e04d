"""The faster gradient of the pixels against PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib.pixel_gradient import fast_pixel_gradient


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(layer: nn.Module, pictures: Tensor) -> Tensor:
    pixels = pictures.clone().requires_grad_()
    answer = layer(pixels)
    return torch.autograd.grad((answer * uniform(*answer.shape, seed=1)).sum(), pixels)[0]


def frozen(**settings: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    channels, filters = settings.pop("channels", (3, 5))
    return nn.Conv2d(channels, filters, **settings).double().requires_grad_(False)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the pictures that went the fast way."""
    from lessons_lib import pixel_gradient

    shapes, apply = [], pixel_gradient._SteppedConvolution.apply

    def noted(x: Tensor, *rest: Any) -> Tensor:
        shapes.append(tuple(x.shape))
        return apply(x, *rest)

    monkeypatch.setattr(pixel_gradient._SteppedConvolution, "apply", noted)
    return shapes


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (19, 13)])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 7, "stride": 2},  # SqueezeNet
        {"kernel_size": 7, "stride": 2, "padding": 3},  # ResNet
        {"kernel_size": 11, "stride": 4, "padding": 2},  # AlexNet
        {"kernel_size": 4, "stride": 4},  # patches of a transformer
        {"kernel_size": 2, "stride": 3},  # pixels that no filter sees
        {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 1)},
        {"kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "stride": 2, "bias": False, "channels": (1, 2)},
        {"kernel_size": 1, "stride": 2},
    ],
    ids=str,
)
def test_it_is_the_gradient_that_pytorch_finds(
    settings: dict[str, Any], size: tuple[int, int], taken: list[tuple[int, ...]]
) -> None:
    layer = frozen(**settings)
    pictures = uniform(2, layer.in_channels, *size)
    wanted = gradient(layer, pictures)
    assert not taken
    with fast_pixel_gradient():
        found = gradient(layer, pictures)
        torch.testing.assert_close(layer(pictures.clone().requires_grad_()), layer(pictures), atol=0, rtol=0)
    assert len(taken) == 2
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(found, wanted, atol=1e-13, rtol=0)


def test_it_is_the_gradient_of_finite_differences() -> None:
    layer = frozen(kernel_size=5, stride=2, padding=1)
    with fast_pixel_gradient():
        assert torch.autograd.gradcheck(layer, uniform(1, 3, 9, 8).requires_grad_())


def test_what_does_not_fit_goes_the_usual_way(taken: list[tuple[int, ...]]) -> None:
    pictures = uniform(1, 3, 12, 12)
    others: list[Callable[[Tensor], Tensor]] = [
        frozen(kernel_size=3),
        frozen(kernel_size=3, stride=2, dilation=2),
        frozen(kernel_size=3, stride=2, groups=3, channels=(3, 6)),
        frozen(kernel_size=3, stride=2).requires_grad_(),
        lambda x: functional.conv2d(x, frozen(kernel_size=3).weight, stride=2),
        lambda x: functional.conv2d(x, frozen(kernel_size=3).weight, None, 2, "valid", 1, 1),
        lambda x: frozen(kernel_size=3, stride=2, channels=(6, 2))(torch.cat([x, x], dim=1)),
        lambda x: frozen(kernel_size=3, stride=2)(x[0]),
    ]
    for layer in others:
        wanted = gradient(layer, pictures)  # type: ignore[arg-type]
        with fast_pixel_gradient():
            torch.testing.assert_close(gradient(layer, pictures), wanted)  # type: ignore[arg-type]
    assert not taken


def test_trainable_weights_still_get_their_gradient() -> None:
    layer = frozen(kernel_size=3, stride=2).requires_grad_()
    with fast_pixel_gradient():
        layer(uniform(1, 3, 9, 9).requires_grad_()).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


def test_the_gradient_of_the_gradient_is_right_too() -> None:
    layer = frozen(kernel_size=3, stride=2, padding=1)

    def curved(pixels: Tensor) -> Tensor:
        return layer(pixels).square()

    with fast_pixel_gradient():
        assert torch.autograd.gradgradcheck(curved, uniform(1, 3, 6, 5).requires_grad_())


def test_the_precision_of_autocast_goes_through() -> None:
    layer = frozen(kernel_size=3, stride=2).float()
    pixels = uniform(1, 3, 9, 9).float().requires_grad_()
    with fast_pixel_gradient(), torch.autocast("cpu", dtype=torch.bfloat16):
        answer = layer(pixels)
    (found,) = torch.autograd.grad(answer.sum(), pixels)
    (wanted,) = torch.autograd.grad(layer(pixels).sum(), pixels)
    assert answer.dtype == torch.bfloat16 and found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)


def test_afterwards_everything_is_as_before(taken: list[tuple[int, ...]]) -> None:
    layer = frozen(kernel_size=3, stride=2)
    with pytest.raises(KeyError), fast_pixel_gradient():
        raise KeyError
    gradient(layer, uniform(1, 3, 9, 9))
    assert not taken


@pytest.mark.parametrize("stride", [2, 3])
def test_many_gradients_at_once_are_those_one_by_one(stride: int) -> None:
    """By torch.func: a batch of gradients goes backward through a convolution that has run once."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 7, stride, padding=2).double().requires_grad_(False)
    x = torch.rand(2, 3, 20, 17, dtype=torch.float64)
    with fast_pixel_gradient():
        output, pull, *_ = torch.func.vjp(convolution, x)
    asked = torch.randn(4, *output.shape, dtype=torch.float64)
    (found,) = torch.func.vmap(pull)(asked)
    pixels = x.clone().requires_grad_()
    wanted = [torch.autograd.grad(convolution(pixels), pixels, one)[0] for one in asked]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-12, atol=1e-12)
