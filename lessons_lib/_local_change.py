"""Run only the part of a network that a change of some pixels reaches.

Far from the change, early feature maps stay what they were. So a crop around it goes through the early operations, and
what comes out replaces a part of the unchanged picture's maps; only what comes behind looks at everything again.

Which operations come early is read off one real forward pass. That pass, and those to come, run the model itself: what
it holds, branches on or changes in place is what it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_all_modules
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from .activations import ReceptiveField, Window, seen_through, sliding, united
from .targets import layout_of_many

_SHARE = 0.35  # of the picture: a crop that is larger hardly saves anything

_WORTH_CUTTING = 20 * 224 * 224  # pixels to look at in all: for less, to follow a forward pass takes too long

Place = tuple[slice, slice]
"""Rows and columns of the pixels that have changed."""


def worth_cutting(images: Tensor, looks: int) -> bool:
    """Whether it can save time to look at each of `images` (N, C, H, W), changed somewhere, `looks` times in parts."""
    # A GPU is quicker with many whole pictures than with few that are put together.
    return images.device.type == "cpu" and images[:, 0].numel() * looks >= _WORTH_CUTTING


class OtherPass(RuntimeError):
    """A forward pass took another way than the one that was recorded."""


@dataclass(frozen=True)
class LocalChanges:
    """A network whose early operations are known, and what they make of `images` (N, C, H, W) as they are."""

    model: nn.Module
    early: _Early
    crop: tuple[int, int]
    images: Tensor
    maps: Tensor

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, changed: Tensor, window: tuple[int, int]) -> Self | None:
        """For changes of at most `window` pixels from `images` to `changed`, both (N, C, H, W).

        None where it cannot be told what they reach, or where they reach too much. `model` must be in evaluation mode,
        gradients switched off.
        """
        if _has_hooks(model) or _is_compiled(model):  # they would be shown what only stands for a tensor
            return None
        layout = layout_of_many(images)
        images = images.contiguous(memory_format=layout)
        with suppress(Exception):  # what cannot be recorded, or does not run in parts, runs as always
            early, crop = _earliest(model, images[:1], window)
            if early is None:
                return None
            maps = torch.cat([early.run(one.clone(memory_format=layout)) for one in images.split(8)])
            local = cls(model, early, crop, images, maps)
            # Two places, both ways: whatever has been overlooked above, another answer shows it.
            (rows, columns), (height, width) = window, images.shape[2:]
            places = [
                (slice(0, rows), slice(0, columns)),
                (slice(height - -(-rows // 2), height), slice(width - -(-columns // 2), width)),
            ]
            whole = images[:1].repeat(2, 1, 1, 1)
            for one, (down, across) in zip(whole, places, strict=True):
                one[:, down, across] = changed[0, :, down, across]
            patches = [changed[0, :, down, across] for down, across in places]
            wanted, found = model(whole), local.logits(patches, [0, 0], places)
            if (wanted - found).abs().max() <= 1000 * torch.finfo(wanted.dtype).eps * wanted.abs().max():
                return local
        return None

    def logits(self, patches: Iterable[Tensor], pictures: Sequence[int], places: Sequence[Place]) -> Tensor:
        """What the network says where, of picture `pictures[m]`, `places[m]` holds patch m (C, h, w): (M, classes).

        Raises OtherPass where the model does not do what it did when it was recorded.
        """
        reaches = [
            tuple(
                _reach(*axis)
                for axis in zip(place, *self._axes(), self.images.shape[2:], self.maps.shape[2:], strict=True)
            )
            for place in places
        ]
        crops = self.images.new_empty(len(places), self.images.shape[1], *self.crop)
        for crop, patch, picture, (down, across), (rows, columns) in zip(
            crops, patches, pictures, places, reaches, strict=True
        ):
            crop[:] = self.images[picture, :, rows.pixels, columns.pixels]
            inner = _shifted(down, rows.pixels.start), _shifted(across, columns.pixels.start)
            crop[:, inner[0], inner[1]] = patch
        layout = layout_of_many(self.images)
        local = self.early.run(crops.contiguous(memory_format=layout))
        maps = self.maps[list(pictures)].contiguous(memory_format=layout)
        for own, new, (rows, columns) in zip(maps, local, reaches, strict=True):
            own[:, rows.cells, columns.cells] = new[:, rows.in_crop, columns.in_crop]
        unseen = self.images.new_empty(()).expand(len(places), *self.images.shape[1:])
        with _From(self.early, maps):
            logits: Tensor = self.model(unseen)
        return logits

    def _axes(self) -> tuple[Sequence[int], ...]:
        return self.crop, self.early.field.size, self.early.field.stride, self.early.field.start


def _is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile has made any part of it."""
    return any(hasattr(module, "_orig_mod") or module._compiled_call_impl is not None for module in model.modules())


def _has_hooks(model: nn.Module) -> bool:
    return bool(
        of_all_modules._global_forward_hooks
        or of_all_modules._global_forward_pre_hooks
        or any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    )


# --- the record of a forward pass --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Thing:
    """Stands for a tensor that the forward pass has made; number 0 is the pictures."""

    number: int


@dataclass
class _Step:
    """One operation: what it was called with, and the numbers of what it made, none where it worked in place."""

    function: Any
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    made: list[int]


@dataclass
class _Made:
    """A tensor of the forward pass: its shape, when it came, when it was last asked for, and what it sees."""

    like: Tensor  # without numbers
    step: int
    last: int
    field: ReceptiveField | None = None  # None for what is no part of the picture


class _Watch(TorchDispatchMode):
    """Is told of every operation within the `with`, and does not make PyTorch load its compiler to be told."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # what would be skipped must be there first: a second and a half for the first operation


class _Record(_Watch):
    """Within the `with`, notes every operation, below autocast and whatever modules and functions there are."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.steps: list[_Step] = []
        self.made = [_Made(images.to("meta"), -1, -1, ReceptiveField())]
        self._known = {id(images): 0}
        self._alive = [images]  # so that no other tensor gets the same id

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        now = len(self.steps)

        def noted(value: Any) -> Any:
            number = self._known.get(id(value)) if isinstance(value, Tensor) else None
            if number is None:
                return value
            self.made[number].last = now
            return _Thing(number)

        arguments, options = tree_map(noted, tuple(args)), tree_map(noted, dict(kwargs))
        result = function(*args, **kwargs)
        new = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor) and id(t) not in self._known]
        for tensor in new:
            self._known[id(tensor)] = len(self.made)
            self._alive.append(tensor)
            self.made.append(_Made(tensor.detach().to("meta"), now, now))
        self.steps.append(_Step(function, arguments, options, [self._known[id(tensor)] for tensor in new]))
        return result


@dataclass
class _Early:
    """The first operations of a forward pass, of which one tensor is left: `maps`."""

    steps: list[_Step]
    made: list[_Made]
    maps: int
    field: ReceptiveField

    def run(self, images: Tensor) -> Tensor:
        """The maps of `images` (M, C, h, w), which may be changed on the way."""
        there: dict[int, Tensor] = {0: images}

        def tensor(value: Any) -> Any:
            return there[value.number] if isinstance(value, _Thing) else value

        for now, step in enumerate(self.steps):
            result = step.function(*tree_map(tensor, step.arguments), **tree_map(tensor, step.options))
            if step.made:
                new = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
                there.update(zip(step.made, new, strict=True))
            for number in [n for n in there if n != self.maps and self.made[n].last <= now]:
                del there[number]
        return there[self.maps]


class _From(_Watch):
    """Within the `with`, the early operations of one forward pass are passed over, and leave `maps` (M, K, h, w)."""

    def __init__(self, early: _Early, maps: Tensor) -> None:
        super().__init__()
        self._early, self._maps, self._next = early, maps, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self._next >= len(self._early.steps):
            return function(*args, **(kwargs or {}))
        step = self._early.steps[self._next]
        if function is not step.function:
            raise OtherPass(f"{function} ran where {step.function} did before")
        self._next += 1
        if not step.made:
            return args[0]
        found = tuple(self._maps if number == self._early.maps else self._like(number) for number in step.made)
        return found if len(function._schema.returns) > 1 else found[0]

    def _like(self, number: int) -> Tensor:
        like = self._early.made[number].like
        shape = like.shape if self._early.made[number].field is None else (len(self._maps), *like.shape[1:])
        return torch.empty((), dtype=like.dtype, device=self._maps.device).expand(shape)


# --- which operations come early ---------------------------------------------------------------------------------


def _earliest(model: nn.Module, image: Tensor, window: tuple[int, int]) -> tuple[_Early | None, tuple[int, int]]:
    """The most operations for which a crop suffices, and how large it is; None where there is none."""
    image = image.clone(memory_format=layout_of_many(image))
    with _Record(image) as record:
        model(image)
    size = image.shape[2], image.shape[3]
    found, crop_found = None, size
    with suppress(ValueError):  # the first operation that is not known, or sees the whole picture, ends it
        for now, step in enumerate(record.steps):
            seen = _field(step, record.made)
            changed = [value.number for value in step.arguments[:1] if isinstance(value, _Thing)]
            for number in step.made[:1] or changed:  # what works in place widens what it changes
                record.made[number].field = seen
            if not step.made and not changed:
                raise ValueError("changes what is no part of this pass")
            left = [n for n, made in enumerate(record.made) if made.step <= now < made.last]
            if len(left) != 1 or left == [0]:
                continue
            (maps,) = left
            reached = record.made[maps].field
            if reached is None or record.made[maps].like.ndim != 4:
                continue
            reached = ReceptiveField(tuple(map(max, reached.size, reached.stride)), reached.stride, reached.start)
            crop = _crop(reached, window, size)
            if crop[0] * crop[1] > _SHARE * size[0] * size[1]:
                break
            found, crop_found = _Early(record.steps[: now + 1], record.made, maps, reached), crop
    return found, crop_found


def _field(step: _Step, made: Sequence[_Made]) -> ReceptiveField | None:
    """What a number that `step` puts out sees; ValueError for operations that are not known here."""
    name = str(step.function).removeprefix("aten.").split(".")[0]
    if not str(step.function).startswith("aten.") or name not in _KNOWN:
        raise ValueError(f"{step.function} is not known here")
    seen = []
    for value in tree_flatten([step.arguments, step.options])[0]:
        own = made[value.number] if isinstance(value, _Thing) else None
        if own is not None and own.field is not None:
            if own.like.ndim != 4:
                raise ValueError("no feature maps any more")
            seen.append(own.field)
            continue
        constant = value if own is None else own.like
        if isinstance(constant, Tensor) and name not in _WITH_WEIGHTS and any(n != 1 for n in constant.shape[-2:]):
            raise ValueError("a constant that differs from place to place")
    windows = _KNOWN[name](*step.arguments, **step.options)
    return seen_through(reduce(united, seen), windows) if seen else None


Windows = tuple[Window, Window]


def _at_each_place(*arguments: Any, **options: Any) -> Windows:
    return Window(), Window()


def _convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *rest: Any
) -> Windows:
    if transposed or len(stride) != 2 or not isinstance(x, _Thing) or isinstance(weight, _Thing):
        raise ValueError("no plain convolution of pictures")
    return sliding(weight.shape[2:], stride, padding, dilation)


def _pooling(x: Any, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any, dilated: bool = False) -> Windows:
    return sliding(kernel, stride or None, padding, rest[0] if dilated and rest else 1)


def _max_pooling(*arguments: Any) -> Windows:
    return _pooling(*arguments, dilated=True)


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, deviation: Any, training: bool, *rest: Any) -> Windows:
    if training:
        raise ValueError("takes the statistics of the pictures")
    return _at_each_place()


def _joined(tensors: Any, dim: int = 0) -> Windows:
    if dim not in (1, -3):
        raise ValueError("joined along the batch, rows or columns")
    return _at_each_place()


def _reserved(size: Sequence[int], **options: Any) -> Windows:
    if math.prod(size) != 0:
        raise ValueError("a tensor that is filled later")
    return _at_each_place()


_AT_EACH_PLACE = (
    *("relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid", "tanh", "leaky_relu", "elu", "clamp"),
    *("clamp_min", "clamp_max", "add", "sub", "mul", "div", "neg"),
)
_KNOWN: Mapping[str, Callable[..., Windows]] = {
    **{name: _at_each_place for base in _AT_EACH_PLACE for name in (base, f"{base}_")},
    **dict.fromkeys(("rsub", "gelu", "clone", "_to_copy"), _at_each_place),
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "max_pool2d_with_indices": _max_pooling,
    "avg_pool2d": _pooling,
    "cat": _joined,
    "empty": _reserved,
}
_WITH_WEIGHTS = ("convolution", "native_batch_norm", "empty", "_to_copy")


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
