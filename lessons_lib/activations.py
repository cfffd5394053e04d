"""Activations: what a picture turns into, layer by layer, and which parts of pictures excite a channel most.

A forward pass leaves a stack of feature maps at every layer. Here they are taken out, filters are found that never
answer, and each number of a map is traced back to the pixels it can depend on, its receptive field. So the patches
that excite a channel most can be cut out of many pictures (Girshick et al., 2014; Zeiler and Fergus, 2014).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from numbers import Integral
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ._checks import check_whole_number
from .hooks import Capture, Layers, check_model, check_runs_once, evaluating, named_layers
from .targets import check_images

OUTSIDE = 0.5
"""The grey that `top_patches` puts where a receptive field reaches outside the picture."""


@overload  # a string is an iterable of strings too, hence the overlap: a single name comes first
def activations(model: nn.Module, images: Tensor, layers: nn.Module | str) -> Tensor: ...  # type: ignore[overload-overlap]


@overload
def activations(
    model: nn.Module, images: Tensor, layers: Iterable[nn.Module | str] | Mapping[str, nn.Module]
) -> dict[str, Tensor]: ...


def activations(model: nn.Module, images: Tensor, layers: Layers) -> Tensor | dict[str, Tensor]:
    """What `layers` put out for `images` (N, C, H, W): (N, K, H', W') for one layer, for several name -> tensor.

    `layers` is a module of `model` or its name, or several of them, or a mapping from names to modules. The model runs
    in evaluation mode, without a graph, and no further than to the last of them; only the first picture a model is
    given goes through all of it once more, which finds layers that run twice. Raises TypeError or ValueError for what
    are no pictures, and for layers that are not in `model`, do not run, or run more than once.
    """
    check_model(model)
    chosen = named_layers(model, layers)
    check_images(images)
    check_runs_once(model, chosen.values(), images)
    with evaluating(model), torch.no_grad(), Capture(model, chosen, stop=True) as captured:
        model(images)
    for name in chosen:
        if name not in captured:
            raise ValueError(f"layers: {name!r} does not run in a forward pass of this model")
    return next(iter(captured.values())) if isinstance(layers, nn.Module | str) else dict(captured)


def dead_filters(model: nn.Module, images: Tensor, layer: nn.Module | str, *, batch_size: int = 32) -> Tensor:
    """The channels of `layer` that are above 0 at no place of any of `images` (N, C, H, W): bool (K,).

    Dead on these pictures, that is: others may wake them. The output of `layer` should be past its ReLU. Raises
    TypeError or ValueError for bad input, and for a layer that puts out no feature maps, or NaN.
    """
    _check_one_layer(model, layer)
    alive: Any = False
    for maps in _in_batches(model, images, layer, batch_size):
        alive = alive | (maps > 0).any(dim=(0, 2, 3))
    dead: Tensor = ~alive
    return dead


# --- receptive fields -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels one number of a feature map can depend on; each entry is a pair, for rows and for columns.

    The first number of the map sees `size` pixels from `start` on, and each next number those `stride` further. Where
    layers pad their input `start` is below 0: a part of the field lies outside the picture.
    """

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    start: tuple[int, int] = (0, 0)

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """The pixels behind one place of the map: (top, left, bottom, right), where bottom and right are excluded."""
        top, left = self.start[0] + self.stride[0] * row, self.start[1] + self.stride[1] * column
        return top, left, top + self.size[0], left + self.size[1]

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of the map whose boxes lie inside a picture of `height` x `width` pixels."""
        rows, columns = (
            # The first at or behind the beginning of the picture, and the last that ends in time.
            slice(first := max(-(start // stride), 0), max((length - size - start) // stride + 1, first))
            for size, stride, start, length in zip(self.size, self.stride, self.start, (height, width), strict=True)
        )
        return rows, columns


def receptive_field(model: nn.Module, layer: nn.Module | str) -> ReceptiveField:
    """The part of the picture that one number of the feature maps of `layer`, a module of `model`, can depend on.

    Follows kernels, strides, padding and branches from the picture to `layer` (the arithmetic of Araujo et al., 2019).
    The box holds every such pixel; dilations and branches may leave gaps in it. Raises TypeError or ValueError for a
    layer that is not in `model`, that lies behind an operation on all places at once (an average over the whole map, a
    linear layer), or behind one that is not known here.
    """
    name, wanted = _check_one_layer(model, layer)
    try:
        _TracerTo(wanted).trace(model)
    except _Reached as reached:
        return _field_of(reached.output, dict(model.named_modules()), name)
    except Exception as error:
        raise ValueError(f"model: its forward pass could not be followed to layer {name!r}: {error}") from error
    raise ValueError(f"layer {name!r} does not run in a forward pass of this model")


class _Reached(Exception):
    """Ends the tracing of a forward pass: what comes behind the layer does not matter, and may not be traceable."""

    def __init__(self, output: fx.Node) -> None:
        super().__init__("the layer was reached")
        self.output = output


class _TracerTo(fx.Tracer):
    """Records the operations of a forward pass as a graph, up to one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if m is self._layer:
            if not isinstance(output, fx.Proxy):
                raise TypeError(f"the layer puts out {type(output).__name__}, not one tensor")
            raise _Reached(output.node)
        return output


def _field_of(output: fx.Node, modules: Mapping[str, nn.Module], layer: str) -> ReceptiveField:
    before = {output}
    for node in reversed(output.graph.nodes):  # the graph lists each operation behind those it takes its inputs from
        if node in before:
            before.update(node.all_input_nodes)
    fields: dict[fx.Node, ReceptiveField | None] = {}  # None for what is no part of the picture, such as a constant
    images = next(node for node in output.graph.nodes if node.op == "placeholder")
    for node in output.graph.nodes:
        if node not in before:
            continue
        seen = [field for source in node.all_input_nodes if (field := fields[source]) is not None]
        if node is images:
            fields[node] = ReceptiveField()
        elif not seen or _tells_only_the_size(node):
            fields[node] = None
        else:
            fields[node] = seen_through(reduce(united, seen), _windows(node, modules, layer))
    found = fields[output]
    if found is None:
        raise ValueError(f"layer {layer!r} does not depend on the picture")
    return found


def seen_through(field: ReceptiveField, windows: tuple[Window, Window]) -> ReceptiveField:
    """The field of a number that looks through a window at numbers that have `field`."""
    sizes, strides, starts = zip(
        *(
            (size + (window.size - 1) * stride, stride * window.stride, start - window.padding * stride)
            for size, stride, start, window in zip(field.size, field.stride, field.start, windows, strict=True)
        ),
        strict=True,
    )
    return ReceptiveField(sizes, strides, starts)


def united(one: ReceptiveField, other: ReceptiveField) -> ReceptiveField:
    """The smallest field that holds those of two branches."""
    if one.stride != other.stride:
        raise ValueError(f"model: branches with the strides {one.stride} and {other.stride} meet: which one is meant?")
    (top, left, bottom, right), (up, first, down, last) = one.box(0, 0), other.box(0, 0)
    start = min(top, up), min(left, first)
    return ReceptiveField((max(bottom, down) - start[0], max(right, last) - start[1]), one.stride, start)


class Window(NamedTuple):
    """What an operation sees of its input along one direction."""

    size: int = 1
    stride: int = 1
    padding: int = 0  # at the beginning; what is added at the end changes no field


_POINTWISE_MODULES = (
    nn.Identity,
    nn.BatchNorm2d,
    nn.LocalResponseNorm,  # mixes channels, not places
    *(nn.Dropout, nn.Dropout2d, nn.AlphaDropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardtanh, nn.Hardswish, nn.Softmax2d),
)
_POINTWISE_FUNCTIONS = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.iadd, operator.imul),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.relu, torch.sigmoid, torch.tanh, torch.clamp),
    *(functional.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.gelu, functional.silu),
    *(functional.dropout, functional.sigmoid, functional.tanh, functional.batch_norm),
)
_POINTWISE_METHODS = (
    *("add", "add_", "sub", "div", "mul", "mul_", "relu", "relu_", "sigmoid", "tanh", "clamp"),
    *("clone", "contiguous", "float"),
)
_WHOLE_MODULES = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Linear, nn.Flatten, nn.GroupNorm, nn.InstanceNorm2d)
_WHOLE_FUNCTIONS = (
    *(torch.flatten, torch.mean, torch.amax, functional.linear, functional.adaptive_avg_pool2d),
    functional.adaptive_max_pool2d,
)
_WHOLE_METHODS = ("flatten", "view", "reshape", "mean", "amax")
_POOLING = (nn.MaxPool2d, nn.AvgPool2d)
_POOLING_FUNCTIONS = {
    functional.max_pool2d: ("kernel_size", "stride", "padding", "dilation"),
    functional.avg_pool2d: ("kernel_size", "stride", "padding"),
}


def _windows(node: fx.Node, modules: Mapping[str, nn.Module], layer: str) -> tuple[Window, Window]:
    """What an operation sees of its input, along rows and along columns."""
    on_the_way = f"layer {layer!r} has no receptive field that could be told: on the way to it runs"
    if node.op == "call_module":
        module = modules[str(node.target)]
        what, pointwise = type(module).__name__, isinstance(module, _POINTWISE_MODULES)
        whole = isinstance(module, _WHOLE_MODULES)
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is None:
            pointwise, whole = False, True  # without a stored mean it takes that of the picture
        if isinstance(module, nn.Conv2d):
            windows = sliding(module.kernel_size, module.stride, module.padding, module.dilation)
            uneven = module.padding == "same" and any(w.size % 2 == 0 for w in windows)  # one more at the end
            if module.padding_mode != "zeros" and (uneven or any(2 * w.padding > w.size - 1 for w in windows)):
                raise ValueError(f"{on_the_way} {what} that copies pixels from outside the window to the border")
            if module.padding_mode == "circular":
                raise ValueError(f"{on_the_way} {what} that wraps around the border")
            return windows
        if isinstance(module, _POOLING):
            dilation = getattr(module, "dilation", 1)
            return sliding(module.kernel_size, module.stride, module.padding, dilation)
    elif node.op == "call_method":
        what, pointwise, whole = str(node.target), node.target in _POINTWISE_METHODS, node.target in _WHOLE_METHODS
    else:
        what, pointwise = getattr(node.target, "__name__", str(node.target)), node.target in _POINTWISE_FUNCTIONS
        whole = node.target in _WHOLE_FUNCTIONS
        if node.target is torch.cat:
            # Side by side as channels; along rows or columns the map would be another picture.
            pointwise = (node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)) in (1, -3)
        if node.target in _POOLING_FUNCTIONS:
            given = dict(zip(_POOLING_FUNCTIONS[node.target], node.args[1:], strict=False)) | node.kwargs
            kernel: Any = given["kernel_size"]
            return sliding(kernel, given.get("stride"), given.get("padding", 0), given.get("dilation", 1))
    if pointwise:
        return Window(), Window()
    if whole:
        raise ValueError(f"{on_the_way} {what}, which looks at all places of a map at once")
    raise ValueError(f"{on_the_way} {what}, which is not known here")


def sliding(kernel: Any, stride: Any, padding: Any, dilation: Any) -> tuple[Window, Window]:
    """What a convolution or pooling sees of its input, along rows and along columns."""
    kernels, dilations = _pair(kernel), _pair(dilation)
    sizes = [step * (length - 1) + 1 for length, step in zip(kernels, dilations, strict=True)]
    strides = kernels if stride is None else _pair(stride)
    if isinstance(padding, str):  # "same" puts the odd one at the end
        paddings = [(size - 1) // 2 if padding == "same" else 0 for size in sizes]
    else:
        paddings = list(_pair(padding))
    rows, columns = (Window(*window) for window in zip(sizes, strides, paddings, strict=True))
    return rows, columns


def _pair(value: Any) -> tuple[int, int]:
    first, *rest = value if isinstance(value, Sequence) else (value,)
    return first, rest[0] if rest else first


def _tells_only_the_size(node: fx.Node) -> bool:
    return (node.op == "call_method" and node.target in ("size", "dim")) or (
        node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")
    )


# --- patches ----------------------------------------------------------------------------------------------------


class TopPatches(NamedTuple):
    """Where K channels answer most strongly, for each the strongest place first.

    `patches` (K, count, C, h, w) are the receptive fields of these places, cut out of the pictures; `values` (K, count)
    the activations there; `images` (K, count) say in which pictures, and `places` (K, count, 2) at which row and column
    of the feature map.
    """

    patches: Tensor
    values: Tensor
    images: Tensor
    places: Tensor


def top_patches(
    model: nn.Module,
    images: Tensor,
    layer: nn.Module | str,
    channels: Sequence[int] | Tensor,
    *,
    count: int = 9,
    scenes: Tensor | None = None,
    inside: bool = False,
    batch_size: int = 32,
) -> TopPatches:
    """The `count` patches of `images` (N, C, H, W) that excite each of `channels` of `layer` most, one for an image.

    With `scenes` (N,), numbers that say which images show the same thing, one for a scene. Where a receptive field
    reaches outside its picture the patch is grey; with `inside=True` such places do not count. Of a channel that
    answers nowhere the patches mean nothing. Raises TypeError or ValueError for bad input, for a channel out of range,
    and where `layer` has no feature maps, no receptive field, or with `inside=True` none that fits into the pictures.
    """
    field = receptive_field(model, layer)
    check_images(images)
    wanted = _checked_channels(channels)
    check_whole_number("count", count, 1)
    scenes = _checked_scenes(scenes, len(images))
    different = len(scenes.unique())
    if count > different:
        raise ValueError(f"count must be at most {different}, one for each image or scene, not {count}")
    rows, columns = field.inside(*images.shape[2:]) if inside else (slice(0, None), slice(0, None))
    if inside and (rows.start == rows.stop or columns.start == columns.stop):
        raise ValueError(
            f"layer: its receptive field of {field.size[0]} x {field.size[1]} pixels fits nowhere into pictures of "
            f"{images.shape[2]} x {images.shape[3]}: leave out inside=True"
        )
    strongest, where, across = [], [], 1
    for maps in _in_batches(model, images, layer, batch_size):
        known = maps.shape[1]
        if wanted and not 0 <= min(wanted) <= max(wanted) < known:
            raise ValueError(f"channels must lie from 0 to {known - 1}: this layer has {known} channels")
        considered = maps[:, wanted, rows, columns]
        across = considered.shape[3]
        value, index = considered.flatten(2).max(dim=2)
        strongest.append(value)
        where.append(index)
    everywhere = torch.cat(strongest)  # (N, K)
    for scene in scenes.unique():
        same = (scenes == scene).nonzero()[:, 0]
        best = everywhere[same].argmax(dim=0)
        others = torch.arange(len(same), device=same.device)[:, None] != best
        everywhere[same] = everywhere[same].masked_fill(others, -torch.inf)
    values, chosen = everywhere.topk(count, dim=0)  # (count, K)
    index = torch.cat(where).gather(0, chosen)
    places = torch.stack([index // across + rows.start, index % across + columns.start], dim=2)
    patches = [
        [_cut(images[i], field.box(*place)) for i, place in zip(numbers, spots, strict=True)]
        for numbers, spots in zip(chosen.T.tolist(), places.transpose(0, 1).tolist(), strict=True)
    ]
    return TopPatches(
        patches=torch.stack([torch.stack(row) for row in patches]),
        values=values.T.contiguous(),
        images=chosen.T.contiguous(),
        places=places.transpose(0, 1).contiguous(),
    )


def _cut(image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The part of a picture (C, H, W) inside `box`, which may reach outside."""
    top, left, bottom, right = box
    patch = image.new_full((len(image), bottom - top, right - left), OUTSIDE)
    inside = image[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    up, first = max(-top, 0), max(-left, 0)
    patch[:, up : up + inside.shape[1], first : first + inside.shape[2]] = inside
    return patch


# --- what several of them need ----------------------------------------------------------------------------------


def _in_batches(model: nn.Module, images: Tensor, layer: nn.Module | str, batch_size: int) -> Iterator[Tensor]:
    """The feature maps of `layer` for some of `images` at a time: those of many would not fit into memory."""
    check_images(images)
    check_whole_number("batch_size", batch_size, 1)
    for batch in images.split(int(batch_size)):
        maps = activations(model, batch, layer)
        if maps.ndim != 4:
            raise ValueError(f"layer puts out the shape {tuple(maps.shape)}, not feature maps (N, K, H, W)")
        if maps.isnan().any():
            raise ValueError("layer puts out NaN, no numbers: has the training of this network diverged?")
        yield maps


def _check_one_layer(model: Any, layer: Any) -> tuple[str, nn.Module]:
    check_model(model)
    if not isinstance(layer, nn.Module | str):
        raise TypeError(f"layer must be one module of the model or its name, not {type(layer).__name__}")
    ((name, module),) = named_layers(model, layer).items()
    return name, module


def _checked_scenes(scenes: Any, count: int) -> Tensor:
    if scenes is None:
        return torch.arange(count)
    if not isinstance(scenes, Tensor) or scenes.is_floating_point() or scenes.shape != (count,):
        came = f"{scenes.dtype} {tuple(scenes.shape)}" if isinstance(scenes, Tensor) else type(scenes).__name__
        raise ValueError(f"scenes must be a tensor of whole numbers, one for each of {count} images, not {came}")
    return scenes


def _checked_channels(channels: Any) -> list[int]:
    found = channels.tolist() if isinstance(channels, Tensor | np.ndarray) else channels
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise TypeError(f"channels must be indices, such as [3, 14], not {type(channels).__name__}")
    if not found:
        raise ValueError("channels is empty: name at least one")
    for channel in found:
        if isinstance(channel, bool) or not isinstance(channel, Integral):
            raise TypeError(f"channels must be whole numbers, not {type(channel).__name__}")
    return [int(channel) for channel in found]
