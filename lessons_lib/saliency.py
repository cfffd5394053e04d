"""Which pixels mattered for a score? Maps from gradients, and from what happens without a part of the picture.

The gradient of the score says how it would change with each pixel (Simonyan et al., 2014). It is noisy, and silent
where a score is saturated; each of the other methods mends one such failing, and brings one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ._checks import check_not_negative, check_number, check_whole_number
from ._local_change import LocalChanges, OtherPass, Place, worth_cutting
from .hooks import check_model
from .targets import (
    Target,
    at_once,
    explaining,
    gradient_of,
    laid_out,
    normal_like,
    repeated,
    scores_of,
    seeded,
    settled,
    warn_of_zeros,
)


def saliency(model: nn.Module, images: Tensor, target: Target = None) -> Tensor:
    """How much the score can change with each pixel of `images` (N, C, H, W): (N, H, W), 0 or more.

    The largest, over the channels, of the absolute gradients. Source: Simonyan et al., 2014. Raises TypeError or
    ValueError for bad input; warns of a map that is zero everywhere.
    """
    return _largest(input_gradient(model, images, target))


def input_gradient(model: nn.Module, images: Tensor, target: Target = None) -> Tensor:
    """The gradient of the score with respect to each number of `images` (N, C, H, W): (N, C, H, W), signed."""
    with explaining(model, images, target):
        gradient = _gradient(model, laid_out(images.detach()), target)
    warn_of_zeros(gradient, _NO_GRADIENT)
    return gradient


def input_x_gradient(model: nn.Module, images: Tensor, target: Target = None) -> Tensor:
    """What each number of `images` (N, C, H, W) adds to the score, if that were linear: (N, C, H, W), signed.

    For a linear score these add up to the score, less its bias. Source: Shrikumar et al., 2016.
    """
    gradient = input_gradient(model, images, target)
    return images.detach() * gradient


def smooth_grad(
    model: nn.Module,
    images: Tensor,
    target: Target = None,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int | torch.Generator = 0,
    batch_size: int | None = None,
) -> Tensor:
    """The saliency of the mean gradient over noisy copies of `images` (N, C, H, W): (N, H, W), 0 or more.

    Each of the `samples` copies gets Gaussian noise with a deviation of `noise` times the picture's range; the noise of
    a `seed` is another on a GPU. Which class is explained is read from the clean picture. Source: Smilkov et al., 2017.
    """
    check_whole_number("samples", samples, 1)
    check_not_negative("noise", noise)
    with explaining(model, images, target):
        random = seeded(seed, images.device)
        target, images = _settled_for(model, images, target), images.detach()
        spread = images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)
        total = torch.zeros_like(images)
        for count in _parts(samples, images, batch_size):
            noisy = laid_out(images.repeat_interleave(count, dim=0))
            for copy in noisy.unflatten(0, (-1, count)).unbind(dim=1):
                # Drawn sample by sample, so that the noise does not depend on how many go through at once.
                copy += spread * noise * normal_like(random, images)
            total += _summed_gradient(model, noisy, count, target)
    warn_of_zeros(total, _NO_GRADIENT)
    return _largest(total / samples)


def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    target: Target = None,
    *,
    baseline: float | Tensor = 0.0,
    steps: int = 64,
    batch_size: int | None = None,
) -> Tensor:
    """What each number of `images` (N, C, H, W) adds to the score on the way from `baseline`: (N, C, H, W), signed.

    The change from the baseline, a number or what broadcasts to the pictures, times the mean gradient on the straight
    way, at `steps` Gauss-Legendre nodes. They add up to the difference of the two scores (completeness), but for the
    error of the sum. Source: Sundararajan et al., 2017.
    """
    check_whole_number("steps", steps, 1)
    nodes, weights = np.polynomial.legendre.leggauss(int(steps))  # on [-1, 1], with weights that add up to 2
    with explaining(model, images, target):
        start = _broadcast("baseline", baseline, images)
        target = _settled_for(model, images, target)
        end = images.detach()
        total, done = torch.zeros_like(end), 0
        for count in _parts(steps, images, batch_size):
            part = slice(done, done + count)
            at, weight = (torch.as_tensor(v[part]).to(end).view(1, -1, 1, 1, 1) for v in (nodes / 2 + 0.5, weights / 2))
            # The difference anew each time: kept, it would be one more copy in memory when that is fullest.
            on_the_way = laid_out((start[:, None] + at * (end - start)[:, None]).flatten(0, 1))
            total += _summed_gradient(model, on_the_way, count, target, weight)
            done += count
    warn_of_zeros(total, _NO_GRADIENT)
    return (end - start) * total


def deconvnet(model: nn.Module, images: Tensor, target: Target = None) -> Tensor:
    """The gradient of the score, but each ReLU on the way back is a ReLU of what comes back: (N, C, H, W), signed.

    The rule holds for every ReLU of PyTorch, module or function. Source: Zeiler and Fergus, 2014.
    """
    return _with_relu_rule(deconvnet_rule, model, images, target)


def guided_backprop(model: nn.Module, images: Tensor, target: Target = None) -> Tensor:
    """The gradient of the score, but each ReLU on the way back lets only what is positive pass: (N, C, H, W), signed.

    And, as in the gradient, only where its input was positive. Source: Springenberg et al., 2015.
    """
    return _with_relu_rule(guided_rule, model, images, target)


def occlusion(
    model: nn.Module,
    images: Tensor,
    target: Target = None,
    *,
    size: int | tuple[int, int] = 32,
    stride: int | tuple[int, int] | None = None,
    fill: float | Tensor = 0.5,
    batch_size: int | None = None,
) -> Tensor:
    """By how much the score of `images` (N, C, H, W) falls when a window is covered: (N, H, W), signed.

    Windows of `size` pixels move by `stride` (by default half of it) and are filled with `fill`: a number, or what
    broadcasts to the pictures. A pixel gets the mean over the windows that cover it. Source: Zeiler and Fergus, 2014.
    """
    size = _pair("size", size)
    stride = _pair("stride", stride if stride is not None else (-(-size[0] // 2), -(-size[1] // 2)))
    with explaining(model, images, target), torch.no_grad():
        filling = _broadcast("fill", fill, images)
        height, width = images.shape[2:]
        _check_windows(size, stride, height, width)
        windows = [
            (slice(top, top + size[0]), slice(left, left + size[1]))
            for top in _starts(height, size[0], stride[0])
            for left in _starts(width, size[1], stride[1])
        ]
        target = _settled_for(model, images, target)
        answers = _answers_to_covered(model, images, filling, size, len(windows))
        looks = [(slice(0, 0), slice(0, 0)), *windows]  # the first covers nothing
        scores, done = [], 0
        if batch_size is None:  # most of each goes only through the later, smaller part of the network
            batch_size = max(at_once(images), 8)
        for count in _parts(len(images) * len(looks), images[:1], batch_size):
            rows = torch.arange(done, done + count)
            pictures = rows.div(len(looks), rounding_mode="floor").to(images.device)
            logits = answers(pictures.tolist(), [looks[look] for look in (rows % len(looks)).tolist()])
            own = target[pictures] if isinstance(target, Tensor) else target
            scores.append(scores_of(logits, settled(own, logits)))
            done += count
        found = torch.cat(scores).unflatten(0, (len(images), len(looks)))
        falls = found[:, :1] - found[:, 1:]
        total, covers = torch.zeros_like(images[:, 0]), images.new_zeros(height, width)
        for fall, (down, across) in zip(falls.T, windows, strict=True):
            total[:, down, across] += fall[:, None, None]
            covers[down, across] += 1
    warn_of_zeros(total, "no window changes the score")
    return total / covers


def _answers_to_covered(
    model: nn.Module, images: Tensor, filling: Tensor, size: tuple[int, int], windows: int
) -> Callable[[Sequence[int], Sequence[Place]], Tensor]:
    """What to ask for the logits of some of `images`, each with a window that holds what `filling` holds there."""
    local = LocalChanges.of(model, images, filling, size) if worth_cutting(images, windows) else None

    def answers(pictures: Sequence[int], places: Sequence[Place]) -> Tensor:
        patches = [filling[picture, :, down, across] for picture, (down, across) in zip(pictures, places, strict=True)]
        if local is not None:
            with suppress(OtherPass):
                return local.logits(patches, pictures, places)
        covered = laid_out(images[list(pictures)])
        for look, patch, (down, across) in zip(covered, patches, places, strict=True):
            look[:, down, across] = patch
        logits: Tensor = model(covered)
        return logits

    return answers


# --- gradients of pixels -----------------------------------------------------------------------------------------

_NO_GRADIENT = (
    "no pixel changes the score, by its gradient. A score behind a ReLU that is off has none: take it before that ReLU"
)


def _gradient(model: nn.Module, copies: Tensor, target: Target) -> Tensor:
    """The gradient of the scores with respect to `copies` of pictures, which may be spent, in one backward pass."""
    return gradient_of(model, copies, lambda logits: scores_of(logits, settled(target, logits)))[1]


def _summed_gradient(
    model: nn.Module, copies: Tensor, each: int, target: Tensor | Callable[[Tensor], Tensor], weights: Any = 1.0
) -> Tensor:
    """The sum, for each picture, of the gradients of `each` copies: (N, C, H, W) of `copies` (N * each, C, H, W)."""
    gradient = _gradient(model, copies, repeated(target, each)).unflatten(0, (-1, each))
    return (weights * gradient).sum(dim=1)


def _settled_for(model: nn.Module, images: Tensor, target: Target) -> Tensor | Callable[[Tensor], Tensor]:
    """Which score of each picture is explained, before it is looked at many times."""
    if target is None:
        with torch.no_grad():
            return settled(None, model(laid_out(images)))
    if callable(target) and not isinstance(target, Tensor):
        return target
    return torch.as_tensor(target, device=images.device).expand(len(images))


def _largest(gradient: Tensor) -> Tensor:
    return gradient.abs().amax(dim=1)


def _parts(total: int, images: Tensor, batch_size: int | None) -> Iterator[int]:
    """How many copies of `images` go through at once, until there were `total` of each."""
    if batch_size is not None:
        check_whole_number("batch_size", batch_size, 1)
    part = max((batch_size or at_once(images)) // len(images), 1)
    for done in range(0, total, part):
        yield min(part, total - done)


# --- other rules for ReLU ----------------------------------------------------------------------------------------

Rule = Callable[[Tensor, Tensor], Tensor]
"""What comes back to a ReLU, and where its input was above 0, to what it hands on."""


def gradient_rule(gradient: Tensor, was_on: Tensor) -> Tensor:
    """That of calculus: what comes back passes where the input was positive."""
    return gradient * was_on


def deconvnet_rule(gradient: Tensor, was_on: Tensor) -> Tensor:
    """What comes back passes where it is positive itself."""
    return gradient.clamp(min=0)


def guided_rule(gradient: Tensor, was_on: Tensor) -> Tensor:
    """What comes back passes where both are."""
    return gradient.clamp(min=0) * was_on


def check_relus_show(model: nn.Module) -> None:
    """ValueError where a part of `model` is compiled, so that what it calls cannot be seen from outside."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError("model: a part of it is scripted, and hides its ReLUs. Use the network as it was before")


def _with_relu_rule(rule: Rule, model: nn.Module, images: Tensor, target: Target) -> Tensor:
    check_model(model)
    check_relus_show(model)
    with explaining(model, images, target), relu_rule(rule) as relus:
        gradient = _gradient(model, laid_out(images.detach()), target)
    if not relus.met:
        raise ValueError("model: no ReLU ran in its forward pass, so there is nothing for this rule to change")
    warn_of_zeros(gradient, "nothing that is positive all the way comes back")
    return gradient


class relu_rule(TorchFunctionMode):
    """Within the `with`, every ReLU, module or function, in place or not, goes backward by `rule`.

    The model is not touched: what is changed is what PyTorch does when a ReLU is called.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.met = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELUS:
            self.met += 1
            inplace = func in _IN_PLACE or kwargs.get("inplace", len(args) > 1 and args[1])
            x = args[0] if args else kwargs["input"]
            return _RuledRelu.apply(x, self, inplace)  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


_IN_PLACE = {torch.relu_, Tensor.relu_, functional.relu_}
_RELUS = _IN_PLACE | {torch.relu, Tensor.relu, functional.relu}


class _RuledRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mode: relu_rule, inplace: bool) -> Tensor:
        ctx.save_for_backward(x > 0)
        ctx.mode = mode
        if inplace:
            ctx.mark_dirty(x)
            return x.relu_()
        return x.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (was_on,) = ctx.saved_tensors
        # Asked for now, not in the forward pass: so one forward pass serves two rules.
        return ctx.mode.rule(gradient, was_on), None, None


# --- what the arguments must be ----------------------------------------------------------------------------------


def _starts(length: int, size: int, stride: int) -> range:
    """Where windows begin, so that every pixel is covered; the last may reach over the edge."""
    return range(0, -(-(length - size) // stride) * stride + 1, stride)


def _check_windows(size: tuple[int, int], stride: tuple[int, int], height: int, width: int) -> None:
    if size[0] > height or size[1] > width:
        raise ValueError(f"size must fit into pictures of {height} x {width} pixels, not {size[0]} x {size[1]}")
    if stride[0] > size[0] or stride[1] > size[1]:
        raise ValueError(f"stride must be at most size, or pixels are never covered: {stride} is more than {size}")


def _pair(name: str, value: Any) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} must be one number, or two for rows and columns, not {len(pair)}")
    for number in pair:
        check_whole_number(name, number, 1)
    return int(pair[0]), int(pair[1])


def _broadcast(name: str, value: float | Tensor, images: Tensor) -> Tensor:
    """A number, a colour (C, 1, 1), a picture or pictures, as large as `images`."""
    if not isinstance(value, Tensor):
        check_number(name, value)
        value = torch.tensor(float(value))
    if not value.isfinite().all():
        raise ValueError(f"{name} must be finite: it holds NaN or infinity")
    try:
        return value.detach().to(images).expand(images.shape)
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number, or broadcast to pictures of the shape {tuple(images.shape)}, "
            f"not of the shape {tuple(value.shape)}"
        ) from None
