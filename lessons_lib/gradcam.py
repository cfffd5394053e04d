"""Where did it look? The feature maps of a layer, weighed by how much each matters for a score, and added.

Class activation maps took the weights of a special head (Zhou et al., 2016). Grad-CAM takes the gradient instead, so
that any network will do (Selvaraju et al., 2017). Its family differs in one thing: what each map is multiplied by.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._checks import check_number
from .hooks import Capture, check_runs_once, named_layers
from .saliency import check_relus_show, gradient_rule, guided_rule, relu_rule
from .targets import (
    Target,
    at_once,
    check_images,
    explaining,
    laid_out,
    layout_of_many,
    quick_gradient,
    repeated,
    scores_of,
    settled,
    warn_of_zeros,
)

Layer = nn.Module | str
"""A module of the model, or its name."""
Smooth = str | Collection[str]
"""Any of "aug" and "eigen"."""
Weigh = Callable[[Tensor, Tensor], Tensor]
"""Activations and their gradients (N, C, h, w) to what the activations are multiplied by: (N, C, h or 1, w or 1)."""


def grad_cam(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, smooth: Smooth = (), raw: bool = False
) -> Tensor:
    """Where `images` (N, C, H, W) have what raises the score, as seen from `layer`: (N, H, W), in [0, 1].

    Each map of the layer is weighed by the mean of its gradient; the sum is cut off at 0, enlarged to the size of the
    pictures and divided by its maximum. With `raw` the sum itself, signed: (N, h, w). `smooth` may hold "aug" (the mean
    over mirrored, darker and brighter pictures) and "eigen" (instead of the sum over the channels their first principal
    component). Source: Selvaraju et al., 2017.

    Raises TypeError or ValueError for bad input; warns of a map that is zero everywhere, which stays so.
    """
    return _by_gradient(lambda a, g: g.mean(dim=(2, 3), keepdim=True), model, images, layer, target, smooth, raw)


def grad_cam_plus_plus(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, smooth: Smooth = (), raw: bool = False
) -> Tensor:
    """As `grad_cam`, but a positive gradient counts by how few places share it: (N, H, W), in [0, 1].

    So that a class that is there several times is found each time. Source: Chattopadhay et al., 2018, equations 10, 19.
    """

    def weigh(activations: Tensor, gradients: Tensor) -> Tensor:
        # g^2 / (2 g^2 + sum(A) g^3), shortened by g^2: as it stands small gradients would vanish in its rounding.
        shared = 2 + activations.sum(dim=(2, 3), keepdim=True) * gradients
        return torch.where(shared != 0, gradients.clamp(min=0) / shared, 0.0).sum(dim=(2, 3), keepdim=True)

    return _by_gradient(weigh, model, images, layer, target, smooth, raw)


def xgrad_cam(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, smooth: Smooth = (), raw: bool = False
) -> Tensor:
    """As `grad_cam`, but the mean of the gradient is weighed by the activation: (N, H, W), in [0, 1].

    Source: Fu et al., 2020.
    """

    def weigh(activations: Tensor, gradients: Tensor) -> Tensor:
        whole = activations.sum(dim=(2, 3), keepdim=True)
        return torch.where(whole != 0, (gradients * activations).sum(dim=(2, 3), keepdim=True) / whole, 0.0)

    return _by_gradient(weigh, model, images, layer, target, smooth, raw)


def hires_cam(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, smooth: Smooth = (), raw: bool = False
) -> Tensor:
    """As `grad_cam`, but each place is weighed by its own gradient: (N, H, W), in [0, 1].

    Source: Draelos and Carin, 2020.
    """
    return _by_gradient(lambda a, g: g, model, images, layer, target, smooth, raw)


def layer_cam(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, smooth: Smooth = (), raw: bool = False
) -> Tensor:
    """As `hires_cam`, but only positive gradients count: (N, H, W), in [0, 1]. Made for early layers.

    Source: Jiang et al., 2021.
    """
    return _by_gradient(lambda a, g: g.clamp(min=0), model, images, layer, target, smooth, raw)


def eigen_cam(model: nn.Module, images: Tensor, layer: Layer, *, smooth: Smooth = (), raw: bool = False) -> Tensor:
    """The first principal component of the maps of `layer`, for no class at all: (N, H, W), in [0, 1].

    Its sign, which is arbitrary, is chosen so that it is high where the maps are. Of `smooth` it takes "aug" alone.
    Source: Muhammad and Yeasin, 2020.
    """

    def maps(seen: Tensor, target: Any) -> tuple[Tensor, Any]:
        with torch.no_grad(), Capture(model, layer, stop=True) as captured:
            model(laid_out(seen))
        return _feature_maps(captured), None

    return _finished(maps, _principal, model, images, layer, None, _checked_smooth(smooth, ("aug",)), raw)


def score_cam(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, smooth: Smooth = (), raw: bool = False
) -> Tensor:
    """As `grad_cam`, but a map weighs what the score is when only what it shows is left: (N, H, W), in [0, 1].

    Each picture is multiplied by each of its maps, enlarged and brought to [0, 1]; the weights are the softmax of the
    scores. No gradient is needed, but C forward passes. Source: Wang et al., 2020.
    """

    def maps(seen: Tensor, target: Any) -> tuple[Tensor, Any]:
        with torch.no_grad():
            with Capture(model, layer) as captured:
                logits = model(laid_out(seen))
            activations = _feature_maps(captured)
            target = settled(target, logits)
            weights = []
            for number, (image, own_maps) in enumerate(zip(seen, activations, strict=True)):
                own = target[number : number + 1] if isinstance(target, Tensor) else target
                scores = []
                for some in own_maps[:, None].split(min(at_once(image), _MASKS_AT_ONCE)):
                    scores.append(scores_of(model(_shown(image, some)), repeated(own, len(some))))
                weights.append(torch.cat(scores).softmax(dim=0))
        return torch.stack(weights)[:, :, None, None] * activations, target

    return _finished(maps, _sum_of_channels, model, images, layer, target, _checked_smooth(smooth), raw)


def ablation_cam(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, smooth: Smooth = (), raw: bool = False
) -> Tensor:
    """As `grad_cam`, but a map weighs the share of the score that is lost without it: (N, H, W), in [0, 1].

    Each of the C maps is set to 0 in turn, and only what comes behind the layer runs again. Source: Desai and
    Ramaswamy, 2020.
    """

    def maps(seen: Tensor, target: Any) -> tuple[Tensor, Any]:
        (module,) = named_layers(model, layer).values()
        with Capture(model, layer, gradients=True) as captured:
            logits = model(laid_out(seen))
        maps = _feature_maps(captured)
        activations = maps.detach()
        target = settled(target, logits)
        scores = scores_of(logits, target)
        if isinstance(target, Tensor) and _is_linear(logits, maps):
            # Then a map takes with it exactly what its gradient says: no need to try.
            (gradients,) = captured.gradients(scores).values()
            lost = (gradients * activations).sum(dim=(2, 3))
        else:
            with torch.no_grad():
                lost = _lost_without_each(model, seen, module, activations, target)
        # Over the size of the score: a score below 0 would turn the paper's quotient, and the map, upside down.
        size = scores.detach().abs()[:, None]
        weights = lost / torch.where(size > 0, size, 1.0)
        return weights[:, :, None, None] * activations, target

    return _finished(maps, _sum_of_channels, model, images, layer, target, _checked_smooth(smooth), raw)


def guided_grad_cam(
    model: nn.Module, images: Tensor, layer: Layer, target: Target = None, *, raw: bool = False
) -> Tensor:
    """Guided backpropagation times the enlarged map of Grad-CAM: (N, C, H, W), signed.

    The map is in [0, 1], or with `raw` as large as it came. Source: Selvaraju et al., 2017.
    """
    with explaining(model, images, target):
        check_relus_show(model)
        _check_layer(model, layer, images)
        pixels = images.detach().clone().requires_grad_()
        # One forward pass for both: the map takes the ordinary way back, guided backpropagation its own.
        with quick_gradient(pixels), relu_rule(gradient_rule) as relus:
            with Capture(model, layer, gradients=True) as captured:
                logits = model(laid_out(pixels))
            activations = _feature_maps(captured).detach()
            scores = scores_of(logits, settled(target, logits)).sum()
            (gradients,) = captured.gradients(scores, retain_graph=True).values()
            relus.rule = guided_rule
            (guided,) = torch.autograd.grad(scores, pixels)
    if not relus.met:
        raise ValueError("model: no ReLU ran in its forward pass, so there is nothing to guide")
    maps = (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)
    maps = _enlarged(maps.relu(), images) if raw else _normalized(maps, images)
    return guided * maps[:, None]


def overlay(images: Tensor, maps: Tensor, *, opacity: float = 0.9, colormap: str = "inferno") -> Tensor:
    """`maps` (N, H, W) in [0, 1] in colours over `images` (N, 3, H, W) in [0, 1], greyed: (N, 3, H, W), in [0, 1].

    Where a map is 0 the grey picture is left alone, where it is 1 the colour covers it by `opacity`.
    """
    check_images(images)
    check_number("opacity", opacity)
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in [0, 1], not {opacity}")
    if not isinstance(maps, Tensor) or maps.shape != (len(images), *images.shape[2:]) or images.shape[1] != 3:
        came = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise ValueError(
            f"maps must have the shape (N, H, W) for images (N, 3, H, W) {tuple(images.shape)}, not {came}"
        )
    maps = maps.detach().float()
    if not (maps.min() >= 0 and maps.max() <= 1 + 1e-5):
        raise ValueError(f"maps must lie in [0, 1], not in [{maps.min():.3g}, {maps.max():.3g}]")
    from matplotlib import colormaps

    if colormap not in colormaps:
        raise ValueError(f"colormap {colormap!r} is not one of matplotlib's")
    colours = torch.from_numpy(colormaps[colormap](maps.cpu().numpy())[..., :3]).to(images)
    cover = opacity * maps.clamp(max=1).to(images)[:, None]
    grey = images.detach().mean(dim=1, keepdim=True)  # else one could not tell the map's colours from the picture's
    return (1 - cover) * grey + cover * colours.permute(0, 3, 1, 2)


# --- from maps to a map ------------------------------------------------------------------------------------------


def _by_gradient(
    weigh: Weigh, model: nn.Module, images: Tensor, layer: Layer, target: Target, smooth: Smooth, raw: bool
) -> Tensor:
    """Multiply the activations by a function of them and of their gradients."""

    def maps(seen: Tensor, target: Any) -> tuple[Tensor, Any]:
        with Capture(model, layer, gradients=True) as captured:
            logits = model(laid_out(seen))
        activations = _feature_maps(captured).detach()
        target = settled(target, logits)
        (gradients,) = captured.gradients(scores_of(logits, target)).values()
        return weigh(activations, gradients) * activations, target

    return _finished(maps, _sum_of_channels, model, images, layer, target, _checked_smooth(smooth), raw)


def _finished(
    maps: Callable[[Tensor, Any], tuple[Tensor, Any]],
    add: Callable[[Tensor], Tensor],
    model: nn.Module,
    images: Tensor,
    layer: Layer,
    target: Target,
    smooth: Collection[str],
    raw: bool,
) -> Tensor:
    """Add what `maps` gives over the channels and bring it to the size of the pictures, or the mean of six of these."""
    add = _principal if "eigen" in smooth else add
    with explaining(model, images, target):
        _check_layer(model, layer, images)
        settled_target: Any = target
        # The picture as it is comes first, and says which class is explained in the others.
        looks = [(mirrored, brightness) for mirrored in (False, True) for brightness in (1.0, 0.9, 1.1)]
        found = []
        for mirrored, brightness in looks if "aug" in smooth else looks[:1]:
            seen = images.detach().flip(3) if mirrored else images.detach()
            weighed, settled_target = maps(seen if brightness == 1 else brightness * seen, settled_target)
            one = add(weighed)
            one = one if raw else _normalized(one, images)
            found.append(one.flip(2) if mirrored else one)
        mean = torch.stack(found).mean(dim=0)
    warn_of_zeros(mean, "at this layer nothing speaks for the score")
    return mean.contiguous()


def _sum_of_channels(weighed: Tensor) -> Tensor:
    return weighed.sum(dim=1)


def _principal(maps: Tensor) -> Tensor:
    """The first principal component (N, h, w) of the channels (N, C, h, w), each place being one observation."""
    observations = maps.double().flatten(2).transpose(1, 2)  # (N, places, C)
    centred = observations - observations.mean(dim=1, keepdim=True)
    if centred.shape[1] <= centred.shape[2]:
        # Of the places' products with one another: few places, as in late layers, make a small matrix.
        values, vectors = torch.linalg.eigh(centred @ centred.transpose(1, 2))
        found = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(centred.transpose(1, 2) @ centred)
        found = (centred @ vectors[..., -1:])[..., 0]
    against = (found * observations.sum(dim=2)).sum(dim=1, keepdim=True) < 0
    return torch.where(against, -found, found).unflatten(1, maps.shape[2:]).to(maps.dtype)


def _normalized(maps: Tensor, images: Tensor) -> Tensor:
    """What is above 0 of `maps` (N, h, w), as large as the pictures and at most 1. One of zeros stays one of zeros."""
    large = _enlarged(maps.clamp(min=0), images)
    highest = large.amax(dim=(1, 2), keepdim=True)
    return large / torch.where(highest > 0, highest, 1.0)


def _enlarged(maps: Tensor, images: Tensor) -> Tensor:
    return functional.interpolate(maps[:, None], images.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def _shown(image: Tensor, maps: Tensor) -> Tensor:
    """What each of `maps` (K, 1, h, w), enlarged and brought to [0, 1], lets through of `image` (C, H, W)."""
    # Corners upon corners, as others do it too.
    masks = functional.interpolate(maps, image.shape[1:], mode="bilinear", align_corners=True)
    low, high = masks.amin(dim=(2, 3), keepdim=True), masks.amax(dim=(2, 3), keepdim=True)
    shown = masks.sub_(low).div_(high - low + 1e-8) * image  # of an even map nothing
    return shown.contiguous(memory_format=layout_of_many(shown))


_MASKS_AT_ONCE = 64  # more small pictures would be a little quicker, but take more memory


# --- ablation ----------------------------------------------------------------------------------------------------

_ABLATED_AT_ONCE = 2**24, 2**9  # numbers that the layer puts out for all ablated copies together, and copies


def _lost_without_each(model: nn.Module, images: Tensor, layer: nn.Module, activations: Tensor, target: Any) -> Tensor:
    """What the scores lose (N, C) with each map of `layer` set to 0: behind it, each picture becomes C pictures."""
    channels = activations.shape[1]
    numbers, copies = _ABLATED_AT_ONCE
    copies = min(numbers // activations[0].numel(), copies)
    part = max(min(copies, channels), 1)

    def lost(first: int, last: int, repeat: bool) -> Tensor:
        own = target[first:last] if isinstance(target, Tensor) else target
        found = []
        for some in torch.arange(channels, device=images.device).split(part):
            # The first copy stays whole: so that both scores are rounded alike, and their small difference is right.
            each = 1 + len(some)
            shape, layout = ((last - first) * each, *activations.shape[1:]), layout_of_many(activations)
            ablated = torch.empty(shape, dtype=activations.dtype, device=activations.device, memory_format=layout)
            of_pictures = ablated.unflatten(0, (last - first, each))
            of_pictures[:] = activations[first:last, None]
            of_pictures[:, range(1, each), some] = 0
            seen = images[first:last].repeat_interleave(each, dim=0) if repeat else images[first:last]
            replacing = layer.register_forward_hook(lambda *_, ablated=ablated: ablated)
            try:
                logits = model(laid_out(seen))
            finally:
                replacing.remove()
            if len(logits) != len(ablated):
                raise RuntimeError(f"{len(logits)} answers for {len(ablated)} pictures")
            scores = scores_of(logits, repeated(own, each)).unflatten(0, (last - first, each))
            found.append(scores[:, :1] - scores[:, 1:])
        return torch.cat(found, dim=1)

    group = max(copies // channels, 1)  # as many pictures at once as all their ablated copies are allowed to be
    for pictures, repeat in ((group, False), (1, False), (1, True)):
        try:
            rows = range(0, len(images), pictures)
            return torch.cat([lost(row, min(row + pictures, len(images)), repeat) for row in rows])
        except Exception:
            # What passes the layer by, such as a shortcut, has a batch of another size. One picture fits to any number
            # in a sum; where even that fails, all that comes before the layer is made anew for each copy as well.
            if repeat:
                raise
    raise AssertionError("the last way either answers or raises")


def _is_linear(logits: Tensor, maps: Tensor) -> bool:
    """Whether all between the captured `maps` and `logits` is linear, a bias included: autograd has it on record."""
    node: Any = logits.grad_fn
    while getattr(node, "variable", None) is not maps:
        before = [] if node is None else [source for source, _ in node.next_functions if source is not None]
        if len(before) != 1 or node.name().rstrip("0123456789") not in _LINEAR:
            return False
        (node,) = before
    return True


# Of the operations that heads are made of those whose result grows in step with the one input that a gradient goes to.
_LINEAR = {
    *("AddmmBackward", "MmBackward", "LinearBackward", "ConvolutionBackward", "TBackward"),
    *("MeanBackward", "SumBackward", "AvgPool2DBackward", "AdaptiveAvgPool2DBackward"),
    *("ViewBackward", "UnsafeViewBackward", "ReshapeAliasBackward", "SqueezeBackward", "CloneBackward"),
}


# --- what the arguments must be ----------------------------------------------------------------------------------


def _feature_maps(captured: Capture) -> Tensor:
    if not len(captured):
        raise ValueError("layer does not run in a forward pass of this model")
    ((name, maps),) = captured.items()
    if maps.ndim != 4:
        raise ValueError(f"layer {name!r} puts out the shape {tuple(maps.shape)}, not feature maps (N, C, h, w)")
    return maps


def _check_layer(model: nn.Module, layer: Any, images: Tensor) -> None:
    if not isinstance(layer, nn.Module | str):
        raise TypeError(f"layer must be one module of the model or its name, not {type(layer).__name__}")
    check_runs_once(model, named_layers(model, layer).values(), images)


def _checked_smooth(smooth: Any, allowed: Collection[str] = ("aug", "eigen")) -> Collection[str]:
    wanted = (smooth,) if isinstance(smooth, str) else smooth
    if not isinstance(wanted, Collection) or not all(isinstance(each, str) for each in wanted):
        raise TypeError(f'smooth must hold names, such as ("aug", "eigen"), not {smooth!r}')
    unknown = [each for each in wanted if each not in allowed]
    if unknown:
        raise ValueError(f"smooth {unknown[0]!r} is not one of {', '.join(allowed)}")
    return wanted
