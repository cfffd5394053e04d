"""The exercises of chapter 2, Activations."""

from __future__ import annotations

from collections import OrderedDict
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from .exercise import Exercise, Mistake

Layer = tuple[int, int, int]  # kernel, stride, padding
Field = tuple[int, int, int]  # size, stride, start

# --- 2.1: capture with a hook ------------------------------------------------------------------------------------


class _Forked(nn.Module):
    """Two layers side by side, as in a Fire module: cutting it into a row of layers would not do."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(2, 3, 1)
        self.left = nn.Conv2d(3, 2, 1)
        self.right = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.left(x), self.right(x)], dim=1)


def _models_and_images() -> dict[str, tuple[nn.Module, str, Tensor]]:
    random = torch.Generator().manual_seed(0)

    def images(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    def with_weights(model: nn.Module) -> nn.Module:
        for parameter in model.parameters():
            parameter.data = 0.6 * images(*parameter.shape)
        return model.eval()

    with torch.random.fork_rng(devices=[]):
        plain = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), relu=nn.ReLU(), head=nn.Conv2d(4, 2, 1)))
        in_place = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1))
        forked = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 2, 2), fork=_Forked(), relu=nn.ReLU()))
    return {
        "a layer with a ReLU behind it": (with_weights(plain), "conv", images(2, 3, 6, 5)),
        "a layer with a ReLU behind it that works in place": (with_weights(in_place), "0", images(3, 2, 5, 5)),
        "a layer inside a fork": (with_weights(forked), "fork.right", images(2, 3, 5, 6)),
    }


def _capture(model: nn.Module, name: str, images: Tensor) -> Tensor:
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        kept.append(output.detach().clone())

    handle = model.get_submodule(name).register_forward_hook(keep)
    try:
        model(images)
    finally:
        handle.remove()
    return kept[0]


def _capture_with_a_dictionary(model: nn.Module, name: str, images: Tensor) -> Tensor:
    kept = {}

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        kept[name] = output.clone()

    with dict(model.named_modules())[name].register_forward_hook(keep), torch.no_grad():
        model(images)
    return kept[name]


def _capture_by_its_input(model: nn.Module, name: str, images: Tensor) -> Tensor:
    layer = model.get_submodule(name)
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    try:
        model(images)
    finally:
        handle.remove()
    answer: Tensor = layer(seen[0])
    return answer


def _not_a_copy(model: nn.Module, name: str, images: Tensor) -> Tensor:
    kept = []
    with model.get_submodule(name).register_forward_hook(lambda module, inputs, output: kept.append(output)):
        model(images)
    return kept[0]


def _models_output(model: nn.Module, name: str, images: Tensor) -> Tensor:
    answer: Tensor = model(images)
    return answer


def _layers_input(model: nn.Module, name: str, images: Tensor) -> Tensor:
    kept = []
    with model.get_submodule(name).register_forward_hook(lambda module, inputs, output: kept.append(inputs[0].clone())):
        model(images)
    return kept[0]


def _first_picture_only(model: nn.Module, name: str, images: Tensor) -> Tensor:
    return _capture(model, name, images)[0]


def _pictures_into_the_layer(model: nn.Module, name: str, images: Tensor) -> Tensor:
    answer: Tensor = model.get_submodule(name)(images)
    return answer


def _its_weights(model: nn.Module, name: str, images: Tensor) -> Tensor:
    return model.get_submodule(name).get_parameter("weight")


def _never_run(model: nn.Module, name: str, images: Tensor) -> Tensor:
    kept: list[Tensor] = []
    with model.get_submodule(name).register_forward_hook(lambda module, inputs, output: kept.append(output)):
        pass
    return kept[0]


def _past_a_relu(model: nn.Module, name: str, images: Tensor) -> Tensor:
    return _capture(model, name, images).relu()


_CAPTURE = Exercise(
    name="capture",
    number="2.1",
    title="Capture with a hook",
    prompt="Return what the layer called `name` puts out while `model` looks at `images`, and leave no hook behind.",
    reference=_capture,
    cases=_models_and_images,
    alternatives=(_capture_with_a_dictionary, _capture_by_its_input),
    mistakes=(
        Mistake(
            _not_a_copy,
            "You keep the tensor itself, and a ReLU behind the layer that works in place has overwritten it before you "
            "look: keep a copy, `output.clone()`.",
        ),
        Mistake(
            _past_a_relu,
            "There are no negative numbers left: this is what comes past a ReLU, not what the layer itself puts out.",
        ),
        Mistake(
            _models_output,
            "This is the answer of the whole model. The hook belongs on the layer, and what it is handed is what you "
            "return.",
        ),
        Mistake(
            _layers_input,
            "This is what goes *into* the layer. A hook is called with the module, its inputs and its output: the "
            "third is wanted.",
        ),
        Mistake(
            _first_picture_only,
            "You return the first picture's maps only: `output` already is the tensor for the whole batch, and "
            "`output[0]` is one picture of it.",
        ),
        Mistake(
            _pictures_into_the_layer,
            "You hand the pictures to the layer itself. It is used to what the layers before it put out: let the whole "
            "model run, and listen at the layer.",
        ),
        Mistake(
            _its_weights,
            "These are the weights of the layer, the same for every picture. Wanted is its output for these pictures.",
        ),
        Mistake(
            _never_run,
            "Your hook was never called. It only waits: run the model, `model(images)`, while the hook is there.",
        ),
    ),
    hints=(
        "`model.get_submodule(name)` is the layer. `layer.register_forward_hook(keep)` calls `keep(module, inputs, "
        "output)` each time the layer has run, and returns a handle with a method `remove()`.",
        "A hook's own return value would replace the output. So let it put a copy where you find it afterwards, for "
        "instance into a list: `kept.append(output.clone())`.",
        "Run the model inside `try:` and remove the hook under `finally:`, which also happens where the model raises.",
    ),
)


# --- 2.2: the fraction of dead filters ---------------------------------------------------------------------------


def _maps() -> dict[str, tuple[Tensor]]:
    random = torch.Generator().manual_seed(1)
    maps = torch.randn(4, 20, 4, 5, generator=random)
    maps[:, [2, 7, 9]] = -maps[:, [2, 7, 9]].abs() - 0.1
    # Alive on a single picture: 1 channel on the first, then 2, 4 and 8, so that the number of channels that are dead
    # on some of the pictures says which pictures these are.
    for picture, channels in enumerate(([5], [4, 6], [8, 10, 11, 12], [3, 13, 14, 15, 16, 17, 18, 19])):
        for other in {0, 1, 2, 3} - {picture}:
            maps[other, channels] = -0.5
    maps[0] *= 3
    rare = torch.zeros(3, 8, 4, 4)
    rare[2, 6, 3, 3] = 1e-9  # alive at a single place of a single picture, and however faint, above 0
    rare[0, 1, 0, 2] = 4.0
    rare[:, 3] = 1.0
    return {
        "maps from before the ReLU, some below 0 everywhere": (maps,),
        "maps past the ReLU": (maps.relu(),),
        "channels that answer at a single place": (rare,),
        "a layer without a dead channel": (maps[:, [0, 1]].relu(),),
    }


def _dead_fraction(maps: Tensor) -> float:
    strongest = maps.amax(dim=(0, 2, 3))
    return (strongest <= 0).float().mean().item()


def _dead_by_any(maps: Tensor) -> float:
    alive = (maps > 0).transpose(0, 1).flatten(1).any(dim=1)
    return 1 - alive.float().mean().item()


def _dead_by_a_loop(maps: Tensor) -> float:
    dead = 0
    for channel in range(maps.shape[1]):
        dead += not bool((maps[:, channel] > 0).any())
    return dead / maps.shape[1]


def _share_of_zeros(maps: Tensor) -> float:
    return (maps <= 0).float().mean().item()


def _dead_in_each_picture(maps: Tensor) -> float:
    return (maps.amax(dim=(2, 3)) <= 0).float().mean().item()


def _dead_somewhere(maps: Tensor) -> float:
    return (maps.amin(dim=(0, 2, 3)) <= 0).float().mean().item()


def _dead_in_one_picture_at_least(maps: Tensor) -> float:
    return (maps.amax(dim=(2, 3)) <= 0).any(dim=0).float().mean().item()


def _dead_in_the_first_picture(maps: Tensor) -> float:
    return (maps[0].amax(dim=(1, 2)) <= 0).float().mean().item()


def _dead_in_the_last_picture(maps: Tensor) -> float:
    return _dead_in_the_first_picture(maps.flip(0))


def _faint_for_dead(maps: Tensor) -> float:
    return (maps.amax(dim=(0, 2, 3)) < 1e-4).float().mean().item()


def _dead_places(maps: Tensor) -> float:
    return (maps.amax(dim=0) <= 0).float().mean().item()


def _number_of_dead(maps: Tensor) -> float:
    return (maps.amax(dim=(0, 2, 3)) <= 0).sum().item()


def _share_of_the_living(maps: Tensor) -> float:
    return 1 - _dead_fraction(maps)


def _zero_exactly(maps: Tensor) -> float:
    return (maps == 0).all(dim=3).all(dim=2).all(dim=0).float().mean().item()


def _below_zero_on_average(maps: Tensor) -> float:
    return (maps.mean(dim=(0, 2, 3)) <= 0).float().mean().item()


def _pictures_for_channels(maps: Tensor) -> float:
    return (maps.amax(dim=(1, 2, 3)) <= 0).float().mean().item()


_DEAD = Exercise(
    name="dead_fraction",
    number="2.2",
    title="The fraction of dead filters",
    prompt="Return the share of channels, from 0 to 1, that are above 0 at no place of any of the pictures.",
    reference=_dead_fraction,
    cases=_maps,
    alternatives=(_dead_by_any, _dead_by_a_loop),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _share_of_zeros,
            "This is the share of *numbers* that are not above 0, the sparsity. A filter that answers rarely is not "
            "dead: ask of each channel whether it answers at all.",
        ),
        Mistake(
            _dead_in_each_picture,
            "You count each picture for itself and take the mean. A channel that is off in one picture may be on in "
            "the next: look at all pictures before you call it dead.",
        ),
        Mistake(
            _dead_in_one_picture_at_least,
            "You call a channel dead if *some* picture leaves it cold. It must be all of them.",
        ),
        Mistake(
            _dead_somewhere,
            "You call a channel dead if it is off at *some* place. It must be off at all of them: take the largest "
            "activation, not the smallest.",
        ),
        Mistake(
            _dead_in_the_first_picture,
            "You look at the first picture alone. The others count too.",
        ),
        Mistake(
            _dead_in_the_last_picture,
            "You look at the last picture alone. The others count too: does each turn of a loop overwrite the one "
            "before?",
        ),
        Mistake(
            _faint_for_dead,
            "You call a channel dead if it is *nearly* never on. However faint an answer is, above 0 is alive: "
            "compare with 0 itself.",
        ),
        Mistake(
            _dead_places,
            "You count places of maps that are never on. A filter is one channel, the same weights at every place: "
            "take the largest over the places as well.",
        ),
        Mistake(_number_of_dead, "This is how many channels are dead. Divide by the number of channels."),
        Mistake(
            _share_of_the_living, "This is the share of channels that are alive. The dead ones are 1 minus as many."
        ),
        Mistake(
            _zero_exactly,
            "You ask for exact zeros. That is right past a ReLU, but these maps may come from before it: dead is what "
            "is never *above* 0.",
        ),
        Mistake(
            _below_zero_on_average,
            "You ask whether a channel is below 0 *on average*. One strong answer at one place is enough to be alive: "
            "take the largest.",
        ),
        Mistake(
            _pictures_for_channels,
            "You take the largest over the channels, and count pictures. The channels are dimension 1: reduce over "
            "the other three.",
        ),
    ),
    hints=(
        "A channel is alive if its largest number is above 0, over all pictures and all places.",
        "`maps.amax(dim=(0, 2, 3))` leaves one number for each channel.",
        "The mean of `(strongest <= 0).float()` is the share for which it holds.",
    ),
)


# --- 2.3: the receptive field ------------------------------------------------------------------------------------


def _stacks() -> dict[str, tuple[list[Layer]]]:
    return {
        "one convolution": ([(5, 1, 0)],),
        "one convolution with stride and padding": ([(7, 2, 3)],),
        "two convolutions": ([(3, 1, 1), (3, 1, 1)],),
        "a stride between two convolutions": ([(3, 2, 0), (5, 1, 0)],),
        "convolutions and pooling": ([(7, 2, 0), (3, 2, 0), (1, 1, 0), (3, 1, 1), (3, 2, 0), (3, 1, 1)],),
        "strides of 2 and 3, and padding": ([(4, 2, 1), (3, 3, 2), (5, 1, 2), (2, 2, 0)],),
        "a stride at the very end": ([(3, 1, 1), (2, 2, 0)],),
    }


def _field(layers: list[Layer]) -> Field:
    size, step, start = 1, 1, 0
    for kernel, stride, padding in layers:
        size += (kernel - 1) * step
        start -= padding * step
        step *= stride
    return size, step, start


def _field_from_the_end(layers: list[Layer]) -> Field:
    """The first and the last pixel behind places 0 and 1 of the result, followed backwards."""

    def pixels(place: int) -> tuple[int, int]:
        first, last = place, place
        for kernel, stride, padding in reversed(layers):
            first, last = first * stride - padding, last * stride - padding + kernel - 1
        return first, last

    (first, last), (second, _) = pixels(0), pixels(1)
    return last - first + 1, second - first, first


def _field_by_reduce(layers: list[Layer]) -> Field:
    def behind(field: Field, layer: Layer) -> Field:
        (size, step, start), (kernel, stride, padding) = field, layer
        return size + (kernel - 1) * step, step * stride, start - padding * step

    return reduce(behind, layers, (1, 1, 0))


def _strides_ignored(layers: list[Layer]) -> Field:
    _, step, start = _field(layers)
    return 1 + sum(kernel - 1 for kernel, _, _ in layers), step, start


def _kernels_added(layers: list[Layer]) -> Field:
    size, step, start = 1, 1, 0
    for kernel, stride, padding in layers:
        size, start, step = size + kernel * step, start - padding * step, step * stride
    return size, step, start


def _from_nothing(layers: list[Layer]) -> Field:
    size, step, start = _field(layers)
    return size - 1, step, start


def _step_first(layers: list[Layer]) -> Field:
    size, step, start = 1, 1, 0
    for kernel, stride, padding in layers:
        step *= stride
        size, start = size + (kernel - 1) * step, start - padding * step
    return size, step, start


def _strides_added(layers: list[Layer]) -> Field:
    size, step, start = 1, 1, 0
    for kernel, stride, padding in layers:
        size, start, step = size + (kernel - 1) * step, start - padding * step, step + stride - 1
    return size, step, start


def _only_the_layers_own_stride(layers: list[Layer]) -> Field:
    size, before, start = 1, 1, 0
    for kernel, stride, padding in layers:
        size, start, before = size + (kernel - 1) * before, start - padding * before, stride
    return size, before, start


def _plain_padding(layers: list[Layer]) -> Field:
    size, step, _ = _field(layers)
    return size, step, -sum(padding for _, _, padding in layers)


def _padding_added(layers: list[Layer]) -> Field:
    size, step, start = _field(layers)
    return size, step, -start


def _padding_ignored(layers: list[Layer]) -> Field:
    size, step, _ = _field(layers)
    return size, step, 0


def _kernels_multiplied(layers: list[Layer]) -> Field:
    _, step, start = _field(layers)
    size = 1
    for kernel, _, _ in layers:
        size *= kernel
    return size, step, start


def _from_the_wrong_end(layers: list[Layer]) -> Field:
    return _field(layers[::-1])


def _padding_makes_it_larger(layers: list[Layer]) -> Field:
    size, step, start = 1, 1, 0
    for kernel, stride, padding in layers:
        size, start, step = size + (kernel - 1 + 2 * padding) * step, start - padding * step, step * stride
    return size, step, start


_RECEPTIVE_FIELD = Exercise(
    name="receptive_field_of",
    number="2.3",
    title="The receptive field",
    prompt="From the (kernel, stride, padding) of each layer, first to last, return (size, step, start) in pixels.",
    reference=_field,
    cases=_stacks,
    alternatives=(_field_from_the_end, _field_by_reduce),
    mistakes=(
        Mistake(
            _strides_ignored,
            "The size grows by `kernel - 1` pixels at every layer in your answer. Behind a stride, neighbours of the "
            "map lie several pixels apart: multiply by that step.",
        ),
        Mistake(
            _kernels_added,
            "You add the whole kernel. One of its numbers is where you already were: it adds `kernel - 1` steps.",
        ),
        Mistake(
            _from_nothing,
            "Your size is too small by one pixel: before the first layer a number sees itself, so begin with 1, not 0.",
        ),
        Mistake(
            _step_first,
            "You multiply the step by the layer's own stride too early. A layer's kernel runs over the map *before* "
            "it: use the step up to there, then multiply.",
        ),
        Mistake(
            _strides_added,
            "The strides do not add up, they multiply: every second of every second place is every fourth.",
        ),
        Mistake(
            _only_the_layers_own_stride,
            "You use the stride of the layer before alone. The step in pixels is the product of all strides so far.",
        ),
        Mistake(
            _plain_padding,
            "The start is off: a padding of 1 is one place of the map *that is padded*, which is several pixels of "
            "the picture: multiply by the step there.",
        ),
        Mistake(_padding_added, "The start has the wrong sign: padding lies *before* the picture, at negative pixels."),
        Mistake(
            _padding_ignored,
            "You leave the padding out: with it the first window begins before the picture, so the start is negative.",
        ),
        Mistake(
            _padding_makes_it_larger,
            "Padding makes the map larger, not what one number sees: leave it out of the size.",
        ),
        Mistake(
            _kernels_multiplied,
            "You multiply the kernels. Two 3 x 3 layers see 5 pixels across, not 9: their windows overlap.",
        ),
        Mistake(_from_the_wrong_end, "You go through the layers from the last to the first: turn the order round."),
    ),
    hints=(
        "Keep three numbers as you go through the layers: the size (1 at first), the step between neighbours in pixels "
        "(1 at first), and the start (0 at first).",
        "A kernel of k reaches k - 1 neighbours further, each a step away. Padding of p begins p steps earlier.",
        "Last of all, multiply the step by the layer's stride: it counts for the layers behind it.",
    ),
)


# --- 2.4: the most exciting patch --------------------------------------------------------------------------------


def _pictures_and_maps() -> dict[str, tuple[Tensor, Tensor, int, Field]]:
    random = torch.Generator().manual_seed(2)

    def case(
        shape: tuple[int, int, int],
        map_shape: tuple[int, int, int],
        channel: int,
        peak: tuple[int, int, int],
        lowest: float,
        field: Field,
    ) -> tuple[Tensor, Tensor, int, Field]:
        count, height, width = shape
        images = torch.rand(count, 3, height, width, generator=random)
        maps = torch.rand(count, *map_shape, generator=random)
        number, row, column = peak
        other, third = (number + 1) % count, (number + 2) % count
        neighbour = (channel + 1) % map_shape[0]
        away = [c for c in range(map_shape[0]) if c != channel]
        maps[:, channel, 1, 1] = 2.4  # in every picture: the strongest place if they are added up
        maps[other, channel] += 0.4  # more on average, and nowhere as much
        maps[third, channel, 1, 1] = 2.9
        maps[number, channel, -1, -1] = lowest
        maps[number, channel, row, column] = 3.0
        # The other channels: one is stronger at the same place, so that the channel's share is larger elsewhere; one
        # has the largest number of all; and all of them together are strongest at yet another place.
        maps[number, neighbour, row, column] = 4.0
        maps[[other, third], :, 1, 1] = maps[[other, third], :, 1, 1].clamp(min=1.5)
        maps[other, neighbour, -1, 0] = 5.0
        maps[number, away, 2, 1] = 4.5
        return images, maps, channel, field

    return {
        "a field inside the picture": case((3, 12, 14), (4, 4, 5), 1, (1, 2, 3), -6.0, (5, 2, 0)),
        "a field that begins before the picture": case((3, 12, 12), (3, 6, 6), 0, (2, 0, 3), -2.0, (7, 2, -3)),
        "a field that ends behind the picture": case((4, 10, 13), (5, 5, 7), 3, (2, 3, 6), -6.0, (6, 2, -2)),
        "a field at a corner": case((2, 9, 9), (3, 3, 3), 2, (1, 0, 0), -2.0, (5, 3, -1)),
    }


def _strongest_place(maps: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(maps.argmax(), maps.shape))


def _inside(images: Tensor, number: int, top: int, left: int, size: int) -> Tensor:
    """The part of a picture within a square that may reach outside."""
    return images[number, :, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)]


def _patch(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    number, row, column = _strongest_place(maps[:, channel])
    top, left = start + stride * row, start + stride * column
    return images[number, :, max(top, 0) : top + size, max(left, 0) : left + size]


def _patch_by_loops(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    best, found = -torch.inf, (0, 0, 0)
    for number, one in enumerate(maps[:, channel]):
        for row, values in enumerate(one.tolist()):
            for column, value in enumerate(values):
                if value > best:
                    best, found = value, (number, row, column)
    number, row, column = found
    return _inside(images, number, start + stride * row, start + stride * column, size)


def _patch_of_a_padded_picture(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    number, row, column = (int(i[0]) for i in torch.where(maps[:, channel] == maps[:, channel].max()))
    height, width = images.shape[2:]
    rows = [y for y in range(start + stride * row, start + stride * row + size) if 0 <= y < height]
    columns = [x for x in range(start + stride * column, start + stride * column + size) if 0 <= x < width]
    return images[number][:, rows][:, :, columns]


def _negative_slice(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    number, row, column = _strongest_place(maps[:, channel])
    top, left = start + stride * row, start + stride * column
    return images[number, :, top : top + size, left : left + size]


def _any_channel(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    number, _, row, column = _strongest_place(maps)
    return _inside(images, number, start + stride * row, start + stride * column, size)


def _channels_averaged(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    return _patch(images, maps.mean(dim=1, keepdim=True), 0, field)


def _strongest_either_way(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    return _patch(images, maps.abs(), channel, field)


def _place_of_the_sum(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    row, column = _strongest_place(maps[:, channel].sum(dim=0))
    number = int(maps[:, channel, row, column].argmax())
    return _inside(images, number, start + stride * row, start + stride * column, size)


def _strongest_on_average(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    number = int(maps[:, channel].mean(dim=(1, 2)).argmax())
    row, column = _strongest_place(maps[number, channel])
    return _inside(images, number, start + stride * row, start + stride * column, size)


def _first_picture(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    row, column = _strongest_place(maps[0, channel])
    return _inside(images, 0, start + stride * row, start + stride * column, size)


def _swapped(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    number, row, column = _strongest_place(maps[:, channel])
    return _inside(images, number, start + stride * column, start + stride * row, size)


def _place_as_pixel(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, _, start = field
    number, row, column = _strongest_place(maps[:, channel])
    return _inside(images, number, start + row, start + column, size)


def _without_start(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, _ = field
    number, row, column = _strongest_place(maps[:, channel])
    return _inside(images, number, stride * row, stride * column, size)


def _centred(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, _ = field
    number, row, column = _strongest_place(maps[:, channel])
    return _inside(images, number, stride * row - size // 2, stride * column - size // 2, size)


def _weakest_patch(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    return _patch(images, -maps, channel, field)


def _one_stride_only(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    _, stride, start = field
    return _patch(images, maps, channel, (stride, stride, start))


def _one_pixel_more(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    size, stride, start = field
    return _patch(images, maps, channel, (size + 1, stride, start))


def _part_of_the_map(images: Tensor, maps: Tensor, channel: int, field: Field) -> Tensor:
    return maps[_strongest_place(maps[:, channel])[0], channel]


_PATCH = Exercise(
    name="most_exciting_patch",
    number="2.4",
    title="The most exciting patch",
    prompt="Return the part of a picture, (3, h, w), that excites the channel most: its receptive field, without what "
    "lies outside the picture.",
    reference=_patch,
    cases=_pictures_and_maps,
    alternatives=(_patch_by_loops, _patch_of_a_padded_picture),
    mistakes=(
        Mistake(
            _negative_slice,
            "Right inside a picture. But where the field begins before it, your slice starts at a negative number, and "
            "Python counts that from the *end*: begin at 0 there.",
        ),
        Mistake(
            _any_channel,
            "You look for the largest number in all channels. One channel is asked for: `maps[:, channel]`.",
        ),
        Mistake(
            _channels_averaged,
            "You add the channels up, or take their mean, before you look for the place. One channel is asked for: "
            "`maps[:, channel]`.",
        ),
        Mistake(
            _strongest_either_way,
            "You take absolute values: then a number far *below* 0 wins, and that is what excites the channel least.",
        ),
        Mistake(
            _place_of_the_sum,
            "You add the pictures up, or take their mean, before you look for the place. What excites the channel a "
            "little in all of them wins then. Wanted is the single strongest place of all pictures.",
        ),
        Mistake(
            _strongest_on_average,
            "You take the picture that excites the channel most *on average*. Wanted is the single strongest place of "
            "all pictures.",
        ),
        Mistake(_first_picture, "You look at the first picture alone. The strongest place may lie in any of them."),
        Mistake(
            _swapped,
            "Rows and columns have changed places: `unravel_index` gives the row first, and a row says how far *down*.",
        ),
        Mistake(
            _place_as_pixel,
            "You take row and column of the map for pixels. One place further in the map is `stride` pixels further in "
            "the picture.",
        ),
        Mistake(
            _without_start,
            "You leave out the start: with padding the first field begins before the picture, `start` pixels from it.",
        ),
        Mistake(
            _centred,
            "You put the middle of the patch where its first pixel belongs: the field begins at `start + stride * row` "
            "and is `size` long.",
        ),
        Mistake(_weakest_patch, "This is the patch that excites the channel least."),
        Mistake(
            _one_stride_only,
            "Your patch is `stride` pixels long. That is how far the next field is shifted; the field itself is `size` "
            "long.",
        ),
        Mistake(_one_pixel_more, "Your patch has a row and a column too many: a slice leaves out its end."),
        Mistake(_part_of_the_map, "This is the feature map. Wanted is the part of the *picture* that it answers to."),
    ),
    hints=(
        "`maps[:, channel]` is (N, rows, columns). `argmax` counts through all of it, and `torch.unravel_index(index, "
        "shape)` turns the count into picture, row and column.",
        "The field of that place begins `start + stride * row` pixels from the top, and is `size` pixels long; from "
        "the left likewise.",
        "It may begin before the picture: `max(top, 0)`. At the other end a slice stops by itself.",
    ),
)

EXERCISES = (_CAPTURE, _DEAD, _RECEPTIVE_FIELD, _PATCH)
