"""Run only the part of a network that a change of some pixels reaches.

Far from the change, early feature maps stay what they were. So a crop around it goes through the early layers, and what
comes out replaces a part of the unchanged picture's maps; only the layers behind look at everything again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, fx, nn

from .activations import ReceptiveField, field_of, tells_only_the_size

_SHARE = 0.35  # of the picture: a crop that is larger hardly saves anything

Place = tuple[slice, slice]
"""Rows and columns of the pixels that have changed."""


@dataclass(frozen=True)
class LocalChanges:
    """A network cut in two, and what its first half made of `images` (N, C, H, W) as they are."""

    front: nn.Module
    back: nn.Module
    field: ReceptiveField
    crop: tuple[int, int]
    images: Tensor
    maps: Tensor

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, window: tuple[int, int]) -> Self | None:
        """For changes of at most `window` pixels; None where it cannot be told what they reach, or too much.

        `model` must be in evaluation mode, gradients switched off.
        """
        size, found = (images.shape[2], images.shape[3]), None
        # Hooks would be handed what stands for a tensor while the forward pass is recorded.
        if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            return None
        with suppress(Exception):  # a forward pass that cannot be followed this far, or at all, runs as always
            graph, modules = fx.Tracer().trace(model), dict(model.named_modules())
            for node in _cuts(graph):
                field = field_of(node, modules)
                crop = _crop(field, window, size)
                if crop[0] * crop[1] > _SHARE * size[0] * size[1]:
                    break
                found = node, field, crop
        if found is None:
            return None
        node, field, crop = found
        front, back = _halves(model, graph, node)
        return cls(front, back, field, crop, images, front(images))

    def logits(self, changed: Tensor, pictures: Sequence[int], places: Sequence[Place]) -> Tensor:
        """What the network says where, of picture `pictures[m]`, `places[m]` is as in `changed`: (M, classes).

        `changed` (N, C, H, W) holds what the pictures change to.
        """
        reaches = [
            tuple(
                _reach(*axis)
                for axis in zip(place, *self._axes(), self.images.shape[2:], self.maps.shape[2:], strict=True)
            )
            for place in places
        ]
        crops = self.images.new_empty(len(places), self.images.shape[1], *self.crop)
        for crop, picture, (down, across), (rows, columns) in zip(crops, pictures, places, reaches, strict=True):
            crop[:] = self.images[picture, :, rows.pixels, columns.pixels]
            inner = _shifted(down, rows.pixels.start), _shifted(across, columns.pixels.start)
            crop[:, inner[0], inner[1]] = changed[picture, :, down, across]
        layout = _layout(self.maps)
        local = self.front(crops.contiguous(memory_format=layout))
        maps = self.maps[list(pictures)].contiguous(memory_format=layout)
        for own, new, (rows, columns) in zip(maps, local, reaches, strict=True):
            own[:, rows.cells, columns.cells] = new[:, rows.in_crop, columns.in_crop]
        logits: Tensor = self.back(maps)
        return logits

    def _axes(self) -> tuple[Sequence[int], ...]:
        return self.crop, self.field.size, self.field.stride, self.field.start


# --- where to cut ------------------------------------------------------------------------------------------------


def _cuts(graph: fx.Graph) -> Iterator[fx.Node]:
    """The operations that all which follow depend on the picture through alone."""
    place = {node: number for number, node in enumerate(graph.nodes)}
    needed = 0  # the last operation that asks for something from before the one at hand
    for number, node in enumerate(graph.nodes):
        if tells_only_the_size(node):
            return  # of a crop it would tell another one
        if node.op not in ("placeholder", "get_attr", "output") and needed <= number:
            yield node
        needed = max([needed, *(place[user] for user in node.users)])


def _halves(model: nn.Module, graph: fx.Graph, cut: fx.Node) -> tuple[nn.Module, nn.Module]:
    halves = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    half = halves[0]
    for node in graph.nodes:
        copies[node] = half.node_copy(node, copies.__getitem__)
        if node is cut:
            half.output(copies[node])
            half = halves[1]
            copies[node] = half.placeholder("maps")
    front, back = (fx.GraphModule(model, each) for each in halves)
    return front, back


# --- what a change reaches, along one direction ------------------------------------------------------------------


class _Reach(NamedTuple):
    pixels: slice  # of the picture that the crop holds
    cells: slice  # of the maps that may change
    in_crop: slice  # the same, in the maps of the crop


def _crop(field: ReceptiveField, window: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    """How large a crop has to be: all that cells see which see the window, wherever it lies."""
    rows, columns = (
        _long_enough((pixels + seen - 2) // step * step + seen + step - 1, step, length)
        for pixels, seen, step, length in zip(window, field.size, field.stride, size, strict=True)
    )
    return rows, columns


def _long_enough(pixels: int, step: int, length: int) -> int:
    # At the far edge of the picture too, the crop has to begin where a step does.
    return min(pixels + (length - pixels) % step, length)


def _reach(change: slice, crop: int, seen: int, step: int, start: int, length: int, count: int) -> _Reach:
    """Cell j sees `seen` pixels from `start + step * j` on."""
    first = max(-((start + seen - 1 - change.start) // step), 0)
    last = min((min(change.stop, length) - 1 - start) // step, count - 1)
    begin = min(max((start + step * first) // step * step, 0), length - crop)
    cells = slice(first, max(last + 1, first))
    return _Reach(slice(begin, begin + crop), cells, _shifted(cells, begin // step))


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)


def _layout(maps: Tensor) -> torch.memory_format:
    beside = maps.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if beside else torch.contiguous_format
