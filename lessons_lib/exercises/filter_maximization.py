"""The exercises of chapter 3, Filter maximization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exercise import Exercise, Mistake


def _random_network(*layers: nn.Module, seed: int, scale: float = 0.4) -> nn.Sequential:
    """The layers one after the other, in evaluation mode, with the same random weights every time."""
    random = torch.Generator().manual_seed(seed)
    network = nn.Sequential(*layers)
    for parameter in network.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=random)
    return network.eval()


# --- 3.1: the gradient of a channel ------------------------------------------------------------------------------


def _features_and_images() -> dict[str, tuple[nn.Module, Tensor, int]]:
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made: not from the reader's numbers
        three = _random_network(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 2), seed=1)
        one = _random_network(nn.Conv2d(3, 6, 2), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3), seed=2)
    return {
        "three pictures": (three, torch.rand(3, 3, 7, 8, generator=random), 1),
        "one picture and a frozen network": (
            one.requires_grad_(False),
            torch.rand(1, 3, 8, 6, generator=random),
            3,
        ),
    }


def _gradient_of(scores: Tensor, images: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    return gradient


def _pixel_gradient(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.detach().requires_grad_()
    objective = features(images)[:, channel].mean(dim=(1, 2))
    # A picture's objective depends on its own pixels alone: the gradient of the sum holds the gradient of each.
    (gradient,) = torch.autograd.grad(objective.sum(), images)
    return gradient


def _picture_by_picture(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    gradients = []
    for image in images:
        pixels = image[None].clone().requires_grad_()
        features(pixels)[0, channel].mean().backward(inputs=[pixels])  # type: ignore[no-untyped-call]
        gradients.append(pixels.grad[0])  # type: ignore[index]
    return torch.stack(gradients)


def _by_the_jacobian(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    def objective(images: Tensor) -> Tensor:
        return features(images)[:, channel].flatten(1).mean(dim=1)

    jacobian: Tensor = torch.autograd.functional.jacobian(objective, images)  # type: ignore[no-untyped-call]
    return jacobian.sum(dim=0)


def _mean_over_the_batch(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    return _pixel_gradient(features, images, channel) / len(images)


def _sum_over_places(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images)[:, channel], images)


def _largest_place(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images)[:, channel].amax(dim=(1, 2)), images)


def _middle_place(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    maps = features(images)[:, channel]
    return _gradient_of(maps[:, maps.shape[1] // 2, maps.shape[2] // 2], images)


def _all_channels(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images).mean(dim=(1, 2, 3)), images)


def _picture_for_channel(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images)[channel].mean(), images)


def _row_for_channel(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images)[:, :, channel].mean(dim=(1, 2)), images)


def _first_picture_only(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images)[0, channel].mean(), images)


def _rectified(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images)[:, channel].relu().mean(dim=(1, 2)), images)


def _mean_square(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(features(images)[:, channel].square().mean(dim=(1, 2)), images)


def _descent(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    return -_pixel_gradient(features, images, channel)


def _sizes_only(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    return _pixel_gradient(features, images, channel).abs()


def _normalized_already(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    gradient = _pixel_gradient(features, images, channel)
    return gradient / gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()


def _unit_length(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    gradient = _pixel_gradient(features, images, channel)
    return gradient / gradient.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


def _already_a_step(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    return images + _pixel_gradient(features, images, channel)


def _objective_itself(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    scores: Tensor = features(images)[:, channel].mean(dim=(1, 2))
    return scores


def _one_picture_of_it(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    return _pixel_gradient(features, images, channel)[0]


def _nobody_asked_for_a_gradient(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    return _gradient_of(features(images)[:, channel].mean(dim=(1, 2)), images)


def _one_score_for_each(features: nn.Module, images: Tensor, channel: int) -> Tensor:
    images = images.clone().requires_grad_()
    return torch.autograd.grad(features(images)[:, channel].mean(dim=(1, 2)), images)[0]


_PIXEL_GRADIENT = Exercise(
    name="pixel_gradient",
    number="3.1",
    title="Which way is up?",
    prompt="Return, for each picture, the gradient of a channel's mean over all places with respect to the pixels, "
    "(N, 3, H, W).",
    reference=_pixel_gradient,
    cases=_features_and_images,
    alternatives=(_picture_by_picture, _by_the_jacobian),
    mistakes=(
        Mistake(
            _mean_over_the_batch,
            "You take the mean over the pictures as well: in a batch of N pictures each gradient comes out N times too "
            "small. What a picture's gradient is must not depend on how many others come with it.",
        ),
        Mistake(
            _sum_over_places,
            "You add the channel up over its places. Asked is the mean, so that a large feature map does not count "
            "more than a small one.",
        ),
        Mistake(
            _largest_place,
            "You take the place where the channel is strongest: all others get no say. Asked is the mean over all "
            "places.",
        ),
        Mistake(
            _middle_place,
            "You take the one neuron in the middle: only the patch that it sees gets a gradient. Asked is the mean "
            "over all places.",
        ),
        Mistake(
            _all_channels,
            "You take the mean over all channels. One of them is asked for: choose it before you take the mean.",
        ),
        Mistake(
            _picture_for_channel,
            "You take `channel` for the number of a picture. Feature maps are (N, C, h, w): pictures come first, "
            "channels second.",
        ),
        Mistake(
            _row_for_channel,
            "You take `channel` for the number of a row. Feature maps are (N, C, h, w): channels come second.",
        ),
        Mistake(
            _first_picture_only,
            "Only the first picture gets a gradient. Every picture of the batch has an objective of its own.",
        ),
        Mistake(
            _rectified,
            "You cut off what is below zero first. There the gradient is zero, and nothing would tell the pixels how "
            "to get the channel out of it: take the mean of the channel as it is.",
        ),
        Mistake(
            _mean_square,
            "You take the mean of the squares: that asks for a channel far from zero, up *or* down. Asked is the mean.",
        ),
        Mistake(
            _descent,
            "This is the way down: minus the gradient, as in training, where a loss has to fall. Here a score has to "
            "rise.",
        ),
        Mistake(
            _sizes_only,
            "The signs are lost: whether a pixel should become brighter or darker is just what you want to know.",
        ),
        Mistake(
            _normalized_already,
            "Right up to the length: you divide by the root mean square already. That is the next exercise; here the "
            "gradient itself is asked for.",
        ),
        Mistake(
            _unit_length,
            "Right up to the length: you divide the gradient by it. Asked is the gradient itself.",
        ),
        Mistake(
            _already_a_step,
            "You have made the step already: this is the picture plus its gradient. Asked is the gradient alone.",
        ),
        Mistake(
            _objective_itself,
            "This is the objective, one number a picture. Asked is how it changes with each pixel: its gradient.",
        ),
        Mistake(
            _one_picture_of_it,
            "This is the gradient of the first picture. Return those of all of them, in the shape of `images`.",
        ),
        Mistake(
            _nobody_asked_for_a_gradient,
            "PyTorch keeps a record of what was computed only from tensors that ask for it, and these pictures do "
            "not. Let a copy of them ask, with `requires_grad_()`, before the forward pass.",
        ),
        Mistake(
            _one_score_for_each,
            "There is one objective for each picture, and PyTorch differentiates one number. Which single number has "
            "the right gradient for every picture, if no picture's objective depends on another's pixels?",
        ),
    ),
    hints=(
        "Three steps: let the pixels ask for a gradient, run them through `features`, make one number of the channel "
        "you want.",
        "`features(images)[:, channel]` is (N, h, w): the mean over rows and columns gives one objective a picture. "
        "Add these up over the batch.",
        "`torch.autograd.grad(number, pixels)` returns a tuple with one gradient, and leaves nothing behind. "
        "`.backward()` also writes a gradient into every weight of the network.",
    ),
)


# --- 3.2: a step of the right length -----------------------------------------------------------------------------


def _images_and_gradients() -> dict[str, tuple[Tensor, Tensor, float]]:
    random = torch.Generator().manual_seed(3)
    images = torch.rand(4, 3, 5, 6, generator=random)
    gradient = torch.randn(4, 3, 5, 6, generator=random) + 0.8  # a mean far from 0: a deviation is not a size
    gradient = gradient * torch.tensor([0.3, 1.0, 2.5]).view(3, 1, 1)  # the channels differ, and so do the pictures
    # None so faint that a tiny number beside its size, 1e-5 for instance, would count: such answers are right.
    gradient = gradient * torch.tensor([0.25, 1.0, 0.5, 40.0]).view(4, 1, 1, 1)
    dark = 0.1 * torch.rand(2, 3, 4, 3, generator=random)
    some = torch.randn(2, 3, 4, 3, generator=random)
    some[1] = 0
    return {
        "four pictures, some with a weak gradient and some with a strong one": (images, gradient, 0.3),
        "two dark pictures, one without any gradient": (dark, some, 0.05),
    }


def _root_mean_square(gradient: Tensor) -> Tensor:
    return gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def _normalized_step(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    # One number for each picture, kept as (N, 1, 1, 1), so that it divides every number of its picture.
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    # Where the gradient is zero, 0 / tiny = 0: such a picture stays where it is.
    step = step_size * gradient / size.clamp(min=1e-12)
    return (images + step).clamp(0, 1)


def _step_by_step(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    moved = []
    for image, slope in zip(images, gradient, strict=True):
        size = slope.norm() / slope.numel() ** 0.5
        moved.append(image if size == 0 else (image + step_size / size * slope).clip(0, 1))
    return torch.stack(moved)


def _by_unit_length(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    direction = functional.normalize(gradient.flatten(1), dim=1)  # of length 1; a gradient of zeros stays zero
    moved = images.flatten(1) + step_size * direction.shape[1] ** 0.5 * direction
    return torch.minimum(torch.maximum(moved, torch.tensor(0.0)), torch.tensor(1.0)).view_as(images)


def _beside_a_tiny_number(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = torch.sqrt(torch.mean(torch.square(gradient), dim=(1, 2, 3), keepdim=True))
    return torch.clip(images + step_size * gradient / (size + 1e-5), 0, 1)


def _tiny_number_in_the_root(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    # What `functional.rms_norm` computes, which PyTorch has since 2.4.
    mean_square = gradient.square().mean(dim=(1, 2, 3), keepdim=True)
    return (images + step_size * gradient * torch.rsqrt(mean_square + torch.finfo(gradient.dtype).eps)).clamp(0, 1)


def _beside_a_number_not_so_tiny(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (images + step_size * gradient / (size + 0.01)).clamp(0, 1)


def _one_length_for_all(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return (images + step_size * gradient / gradient.square().mean().sqrt()).clamp(0, 1)


def _euclidean_length(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return (images + step_size * gradient / length).clamp(0, 1)


def _by_the_largest(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (images + step_size * gradient / largest).clamp(0, 1)


def _mean_of_sizes(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (images + step_size * gradient / size).clamp(0, 1)


def _standard_deviation(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    deviation = gradient.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (images + step_size * gradient / deviation).clamp(0, 1)


def _standardized(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    centred = gradient - gradient.mean(dim=(1, 2, 3), keepdim=True)
    deviation = gradient.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (images + step_size * centred / deviation).clamp(0, 1)


def _root_forgotten(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-24)
    return (images + step_size * gradient / size).clamp(0, 1)


def _length_left(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return (images + step_size * gradient).clamp(0, 1)


def _signs_only(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return (images + step_size * gradient.sign()).clamp(0, 1)


def _step_down(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return (images - step_size * gradient / _root_mean_square(gradient)).clamp(0, 1)


def _not_clipped(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return images + step_size * gradient / _root_mean_square(gradient)


def _negative_cut_only(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return (images + step_size * gradient / _root_mean_square(gradient)).relu()


def _step_clipped(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return images + (step_size * gradient / _root_mean_square(gradient)).clamp(0, 1)


def _stretched(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    moved = _not_clipped(images, gradient, step_size)
    low, high = moved.amin(dim=(1, 2, 3), keepdim=True), moved.amax(dim=(1, 2, 3), keepdim=True)
    return (moved - low) / (high - low)


def _zero_by_zero(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (images + step_size * gradient / size).clamp(0, 1)


def _each_channel(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    return (images + step_size * gradient / size).clamp(0, 1)


def _each_pixel(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
    return (images + step_size * gradient / size).clamp(0, 1)


def _across_the_pictures(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.square().mean(dim=0).sqrt().clamp(min=1e-12)
    return (images + step_size * gradient / size).clamp(0, 1)


def _step_size_forgotten(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return (images + gradient / _root_mean_square(gradient)).clamp(0, 1)


def _step_alone(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    return step_size * gradient / _root_mean_square(gradient)


_NORMALIZED_STEP = Exercise(
    name="normalized_step",
    number="3.2",
    title="A step of the right length",
    prompt="Return the pictures after a step along their gradients, each divided by its root mean square; keep them "
    "in [0, 1]. A gradient of zeros leaves its picture as it is.",
    reference=_normalized_step,
    cases=_images_and_gradients,
    alternatives=(_step_by_step, _by_unit_length, _beside_a_tiny_number, _tiny_number_in_the_root),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _one_length_for_all,
            "You divide by one root mean square, that of all gradients together: the picture with the strongest "
            "gradient moves and the others stand still. Each has its own: not over the first dimension.",
        ),
        Mistake(
            _euclidean_length,
            "You divide by the length, the root of the *sum* of squares. It grows with the number of pixels, so a "
            "large picture would hardly move. Take the mean of the squares.",
        ),
        Mistake(
            _by_the_largest,
            "You divide by the largest number: one stray pixel decides how far all the others go. Take the root mean "
            "square.",
        ),
        Mistake(
            _mean_of_sizes,
            "You divide by the mean of the absolute values. Nearly: asked is the root of the mean of the squares.",
        ),
        Mistake(
            _standard_deviation,
            "You divide by the standard deviation. It measures how far numbers lie from *their mean*; asked is how far "
            "they lie from zero.",
        ),
        Mistake(
            _standardized,
            "You take the mean out of the gradient. If the objective wants the whole picture brighter, that wish is "
            "lost: divide only.",
        ),
        Mistake(
            _root_forgotten,
            "The root is missing: you divide by the mean square. Then a gradient twice as strong makes a step *half* "
            "as long, and not one of the same length.",
        ),
        Mistake(
            _length_left,
            "You do not divide: how far a picture moves still depends on how strong its gradient happens to be.",
        ),
        Mistake(
            _signs_only,
            "You move every number equally far, by its sign alone. That is another rule, for chapter 7. Here a number "
            "that matters more moves farther.",
        ),
        Mistake(_step_down, "You step down: the score falls. Add the step."),
        Mistake(
            _not_clipped,
            "Right, but some numbers leave [0, 1], and no screen shows a colour brighter than white. Clip behind the "
            "step.",
        ),
        Mistake(_negative_cut_only, "Right below, but above 1 the numbers go on. A picture ends at 1 too."),
        Mistake(
            _step_clipped,
            "You clip the step and not the picture: no pixel can become darker any more, and some still exceed 1.",
        ),
        Mistake(
            _stretched,
            "You stretch the result to [0, 1]. That changes every pixel and undoes part of the step. Clip instead: "
            "numbers that are in range stay as they are.",
        ),
        Mistake(
            _zero_by_zero,
            "Right, but for a gradient of zeros you divide 0 by 0, which gives NaN, and the picture is lost. Leave it "
            "as it is.",
        ),
        Mistake(
            _beside_a_number_not_so_tiny,
            "Right, but 0.01 is not small beside a faint gradient, whose step comes out too short. What is there to "
            "keep you from dividing by 0 has to be much smaller.",
        ),
        Mistake(
            _each_channel,
            "You give each channel a size of its own: the strong colour is held back, the weak one blown up. One size "
            "for the whole picture is wanted.",
        ),
        Mistake(
            _each_pixel,
            "You give each pixel a size of its own: pixels that hardly matter move as far as those that do. One size "
            "for the whole picture is wanted.",
        ),
        Mistake(
            _across_the_pictures,
            "You take the mean across the pictures of the batch, at each place. Take it within each picture: over all "
            "dimensions but the first.",
        ),
        Mistake(_step_size_forgotten, "You do not use `step_size`: it says how long the step is."),
        Mistake(_step_alone, "This is the step. Add it to the pictures, and keep them in [0, 1]."),
    ),
    hints=(
        "Root mean square, read from right to left: square, take the mean over one picture, take the root.",
        "`.mean(dim=(1, 2, 3), keepdim=True)` is one number for each picture, in a shape that broadcasts.",
        "0 divided by a tiny number is 0: let the size never go below one (`.clamp(min=1e-12)`). A second `clamp`, at "
        "the end, keeps the picture in range.",
    ),
)


# --- 3.3: total variation ----------------------------------------------------------------------------------------


def _pictures() -> dict[str, tuple[Tensor]]:
    random = torch.Generator().manual_seed(4)
    noise = torch.rand(3, 3, 6, 8, generator=random)
    noise[1] = noise[1].cumsum(dim=2) / 8  # smooth one way, rough the other
    noise[2] = 0.3
    row = torch.rand(2, 3, 1, 7, generator=random)
    return {"noise, stripes, and an even grey": (noise,), "two pictures of a single row": (row,)}


def _total_variation(images: Tensor) -> Tensor:
    # Each pixel and the one below it, each pixel and the one to its right: the picture minus itself, moved by one.
    down = (images[:, :, 1:] - images[:, :, :-1]).abs()
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs()
    return down.sum(dim=(1, 2, 3)) + across.sum(dim=(1, 2, 3))


def _by_diff(images: Tensor) -> Tensor:
    return sum((images.diff(dim=dim).abs().flatten(1).sum(dim=1) for dim in (2, 3)), torch.zeros(len(images)))


def _by_loops(images: Tensor) -> Tensor:
    total = torch.zeros(len(images))
    for row in range(images.shape[2]):
        for column in range(images.shape[3]):
            if row > 0:
                total += (images[:, :, row, column] - images[:, :, row - 1, column]).abs().sum(dim=1)
            if column > 0:
                total += (images[:, :, row, column] - images[:, :, row, column - 1]).abs().sum(dim=1)
    return total


def _differences(images: Tensor) -> tuple[Tensor, Tensor]:
    return images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]


def _wrapped(images: Tensor) -> Tensor:
    down, across = images - images.roll(1, 2), images - images.roll(1, 3)
    return down.abs().sum(dim=(1, 2, 3)) + across.abs().sum(dim=(1, 2, 3))


def _down_only(images: Tensor) -> Tensor:
    return _differences(images)[0].abs().sum(dim=(1, 2, 3))


def _across_only(images: Tensor) -> Tensor:
    return _differences(images)[1].abs().sum(dim=(1, 2, 3))


def _squares(images: Tensor) -> Tensor:
    down, across = _differences(images)
    return down.square().sum(dim=(1, 2, 3)) + across.square().sum(dim=(1, 2, 3))


def _root_of_squares(images: Tensor) -> Tensor:
    return _squares(images).sqrt()


def _length_of_the_slope(images: Tensor) -> Tensor:
    down, across = _differences(images)
    return torch.hypot(down[..., :-1], across[:, :, :-1]).sum(dim=(1, 2, 3))


def _mean_of_differences(images: Tensor) -> Tensor:
    down, across = _differences(images)
    count = max(down[0].numel() + across[0].numel(), 1)
    return _total_variation(images) / count


def _two_means(images: Tensor) -> Tensor:
    down, across = _differences(images)
    return down.abs().mean(dim=(1, 2, 3)) + across.abs().mean(dim=(1, 2, 3))


def _for_each_number(images: Tensor) -> Tensor:
    return _total_variation(images) / images[0].numel()


def _signed(images: Tensor) -> Tensor:
    down, across = _differences(images)
    return down.sum(dim=(1, 2, 3)) + across.sum(dim=(1, 2, 3))


def _size_of_the_sum(images: Tensor) -> Tensor:
    return _signed(images).abs()


def _one_diagonal(images: Tensor) -> Tensor:
    return (images[:, :, 1:, 1:] - images[:, :, :-1, :-1]).abs().sum(dim=(1, 2, 3))


def _last_ones_missing(images: Tensor) -> Tensor:
    down, across = _differences(images)
    return down[..., :-1].abs().sum(dim=(1, 2, 3)) + across[:, :, :-1].abs().sum(dim=(1, 2, 3))


def _whole_batch(images: Tensor) -> Tensor:
    return _total_variation(images).sum()


def _channels_as_rows(images: Tensor) -> Tensor:
    between, down = images[:, 1:] - images[:, :-1], _differences(images)[0]
    return between.abs().sum(dim=(1, 2, 3)) + down.abs().sum(dim=(1, 2, 3))


def _channels_too(images: Tensor) -> Tensor:
    return _total_variation(images) + (images[:, 1:] - images[:, :-1]).abs().sum(dim=(1, 2, 3))


def _counted_twice(images: Tensor) -> Tensor:
    return 2 * _total_variation(images)


def _each_channel_apart(images: Tensor) -> Tensor:
    down, across = _differences(images)
    return down.abs().sum(dim=(2, 3)) + across.abs().sum(dim=(2, 3))


def _mean_of_channels(images: Tensor) -> Tensor:
    return _total_variation(images) / images.shape[1]


def _grey_first(images: Tensor) -> Tensor:
    return _total_variation(images.mean(dim=1, keepdim=True))


def _two_by_two(images: Tensor) -> Tensor:
    down, across = _differences(images)
    return (down.abs() + across.abs()).sum(dim=(1, 2, 3))


_TOTAL_VARIATION = Exercise(
    name="roughness",
    number="3.3",
    title="How rough is a picture?",
    prompt="Return, for each picture, the sum of the sizes of all differences between neighbours, down and across, "
    "(N,).",
    reference=_total_variation,
    cases=_pictures,
    alternatives=(_by_diff, _by_loops),
    mistakes=(
        Mistake(
            _wrapped,
            "Your picture is bent into a ring: the last row is compared with the first, the last column too "
            "(`torch.roll` does that). At the border there is no neighbour.",
        ),
        Mistake(
            _down_only,
            "You compare each pixel with the one below it only: vertical stripes would count as smooth. Compare "
            "across too.",
        ),
        Mistake(
            _across_only,
            "You compare each pixel with the one beside it only: horizontal stripes would count as smooth. Compare "
            "downwards too.",
        ),
        Mistake(
            _squares,
            "You add up squares. Then one sharp edge costs more than the same rise in many small steps, and all edges "
            "are smeared. Total variation adds up sizes: for it both cost the same.",
        ),
        Mistake(
            _root_of_squares,
            "This is the length of all differences in one long row: the root of the sum of their squares. Total "
            "variation adds up their sizes.",
        ),
        Mistake(
            _length_of_the_slope,
            "You take the length of the slope at each pixel, down and across in one root. That is total variation too, "
            "the form that treats all directions alike. Asked is the simpler one: add the two sizes.",
        ),
        Mistake(
            _mean_of_differences,
            "You take the mean of all differences. Asked is their sum.",
        ),
        Mistake(
            _two_means,
            "You take two means, one of the differences down and one of those across. Asked is the sum of all.",
        ),
        Mistake(
            _for_each_number,
            "You divide by how many numbers a picture has. Asked is the sum.",
        ),
        Mistake(
            _signed,
            "You add up the differences with their signs: what goes up and comes down again cancels, and only the two "
            "borders are left. Take their sizes first.",
        ),
        Mistake(
            _size_of_the_sum,
            "You take the size of the sum: within it ups and downs have cancelled already. Take the sizes first, then "
            "the sum.",
        ),
        Mistake(
            _one_diagonal,
            "You compare each pixel with the one below *and* to the right of it: its neighbour across the corner. "
            "Asked are two comparisons, one down and one across.",
        ),
        Mistake(
            _last_ones_missing,
            "In the last row the differences across are missing, and in the last column those down: you cut both to "
            "one size. They need not have one: sum each by itself.",
        ),
        Mistake(
            _two_by_two,
            "There is one difference fewer than pixels in the direction in which you subtract, so the two sets of "
            "differences have different shapes. Sum each by itself before you add them.",
        ),
        Mistake(
            _whole_batch,
            "This is one number for all pictures together. Each picture has its own: do not sum over the first "
            "dimension.",
        ),
        Mistake(
            _channels_as_rows,
            "You are one dimension off: you compare channels with each other, and rows. In (N, C, H, W) rows and "
            "columns are the last two.",
        ),
        Mistake(
            _channels_too,
            "You also compare the channels with each other. How red differs from green is a matter of colour, not of "
            "roughness.",
        ),
        Mistake(
            _counted_twice,
            "You count every pair of neighbours twice, once from each side.",
        ),
        Mistake(
            _each_channel_apart,
            "This is one number for each channel. Add the channels up: one for each picture is wanted.",
        ),
        Mistake(_mean_of_channels, "You take the mean over the channels. Asked is the sum over them too."),
        Mistake(
            _grey_first,
            "You make the pictures grey first: a change from red to green of the same brightness would not count. Take "
            "the differences in every channel.",
        ),
    ),
    hints=(
        "The differences down: all rows but the first, minus all rows but the last.",
        "`images[:, :, 1:]` leaves out the first row, `images[:, :, :-1]` the last one. For columns it is one colon "
        "further.",
        "First the sizes, then the sum over all dimensions but the first, for each of the two by itself; then add.",
    ),
)


# --- 3.4: the gradient that survives a push ----------------------------------------------------------------------


class _OneScore(nn.Sequential):
    """A network that gives each picture one score, (N,)."""

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = super().forward(images)
        return scores[:, 0]


def _scores_and_shifts() -> dict[str, tuple[nn.Module, Tensor, list[tuple[int, int]]]]:
    random = torch.Generator().manual_seed(5)

    def network(height: int, width: int, seed: int) -> nn.Module:
        layers = _random_network(
            nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * height * width, 1), seed=seed
        )
        return _OneScore(*layers).eval().requires_grad_(False)

    with torch.random.fork_rng(devices=[]):
        two, one = network(6, 7, seed=6), network(5, 5, seed=7)
    return {
        "two pictures, three shifts": (two, torch.rand(2, 3, 6, 7, generator=random), [(1, 0), (0, 2), (-1, 3)]),
        "one picture, no shift and a large one": (one, torch.rand(1, 3, 5, 5, generator=random), [(0, 0), (6, -2)]),
    }


Shifts = Sequence[tuple[int, int]]


def _robust_gradient(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    images = images.detach().requires_grad_()
    total = torch.zeros(())
    for down, right in shifts:
        # A shift is part of what is differentiated: the way back through it moves the gradient back.
        moved = torch.roll(images, (down, right), dims=(2, 3))
        total = total + score(moved).sum()
    (gradient,) = torch.autograd.grad(total / len(shifts), images)
    return gradient


def _moved_back_by_hand(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    gradients = []
    for down, right in shifts:
        moved = images.roll((down, right), (2, 3)).requires_grad_()
        gradients.append(_gradient_of(score(moved), moved).roll((-down, -right), (2, 3)))
    return torch.stack(gradients).mean(dim=0)


def _in_one_batch(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    images = images.clone().requires_grad_()
    copies = torch.cat([images.roll(shift, (2, 3)) for shift in shifts])
    score(copies).view(len(shifts), -1).mean(dim=0).sum().backward(inputs=[images])
    return images.grad  # type: ignore[return-value]


def _sum_of_all(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return len(shifts) * _robust_gradient(score, images, shifts)


def _last_shift_only(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, shifts[-1:])


def _last_shift_divided(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, shifts[-1:]) / len(shifts)


def _first_shift_only(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, shifts[:1])


def _mean_picture(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(score(torch.stack([images.roll(shift, (2, 3)) for shift in shifts]).mean(dim=0)), images)


def _at_moved_copies(score: nn.Module, images: Tensor, shifts: Shifts) -> list[Tensor]:
    copies = [images.roll(shift, (2, 3)).requires_grad_() for shift in shifts]
    return [_gradient_of(score(copy), copy) for copy in copies]


def _not_moved_back(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return torch.stack(_at_moved_copies(score, images, shifts)).mean(dim=0)


def _moved_on(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    gradients = zip(_at_moved_copies(score, images, shifts), shifts, strict=True)
    return torch.stack([gradient.roll(shift, (2, 3)) for gradient, shift in gradients]).mean(dim=0)


def _never_moved(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, [(0, 0)])


def _down_for_right(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, [(right, down) for down, right in shifts])


def _up_and_left(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, [(-down, -right) for down, right in shifts])


def _down_only_moved(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, [(down, 0) for down, _ in shifts])


def _right_only_moved(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, [(0, right) for _, right in shifts])


def _shifts_added_up(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    down = right = 0
    path = []
    for further_down, further_right in shifts:
        down, right = down + further_down, right + further_right
        path.append((down, right))
    return _robust_gradient(score, images, path)


def _original_too(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, [(0, 0), *shifts])


def _channels_rolled(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    images = images.clone().requires_grad_()
    return _gradient_of(sum(score(images.roll(shift, (1, 2))) for shift in shifts) / len(shifts), images)


def _one_long_row_rolled(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return torch.roll(images, shifts[0])


def _divided_by_the_batch(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _robust_gradient(score, images, shifts) / len(images)


def _black_border(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    images = images.clone().requires_grad_()
    height, width = images.shape[2:]
    total = torch.zeros(len(images))
    for down, right in shifts:
        # What leaves is lost, and what comes in is 0; a shift beyond the picture leaves nothing.
        down, right = max(-height, min(down, height)), max(-width, min(right, width))
        total = total + score(functional.pad(images, (right, -right, down, -down)))
    return _gradient_of(total / len(shifts), images)


def _robust_descent(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return -_robust_gradient(score, images, shifts)


def _mean_score(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return torch.stack([score(images.roll(shift, (2, 3))) for shift in shifts]).mean(dim=0)


def _copies_without_a_history(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    return _gradient_of(_mean_score(score, images, shifts), images)


def _used_up_for_nothing(score: nn.Module, images: Tensor, shifts: Shifts) -> Tensor:
    copies = [images.roll(shift, (2, 3)).requires_grad_() for shift in shifts]
    wanted = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.stack([score(copy).sum() for copy in copies]).mean(), wanted)
    return gradient


_ROBUST_GRADIENT = Exercise(
    name="robust_gradient",
    number="3.4",
    title="An answer that survives a push",
    prompt="Return the gradient of the mean score over all shifted copies of a picture with respect to the pixels of "
    "the picture itself, (N, 3, H, W).",
    reference=_robust_gradient,
    cases=_scores_and_shifts,
    alternatives=(_moved_back_by_hand, _in_one_batch),
    mistakes=(
        Mistake(
            _sum_of_all,
            "You add the scores up. Asked is their mean: with more shifts the gradient must not grow.",
        ),
        Mistake(
            _last_shift_only,
            "Only the last shift counts: each turn of your loop overwrites the one before. Collect them.",
        ),
        Mistake(
            _last_shift_divided,
            "Only the last shift counts: each turn of your loop overwrites the one before, and what is left you divide "
            "by the number of all.",
        ),
        Mistake(
            _first_shift_only,
            "Only the first shift counts. Is there a `return` inside your loop?",
        ),
        Mistake(
            _mean_picture,
            "You take the mean of the shifted pictures, a blurred one, and ask for its score. Asked is the mean of the "
            "scores: the network looks at each copy, sharp as it is.",
        ),
        Mistake(
            _not_moved_back,
            "You have the gradient with respect to each shifted copy, and add them as they lie. A pixel of the copy "
            "comes from another place of the picture: there its gradient belongs.",
        ),
        Mistake(
            _moved_on,
            "You move the gradients the same way as the pictures, so they are off by twice the shift. They have to go "
            "back to where the pixels came from.",
        ),
        Mistake(
            _never_moved,
            "The network sees the picture where it is, every time: the result of `torch.roll` is a new tensor, it does "
            "not change the old one.",
        ),
        Mistake(
            _down_for_right,
            "Down and right have changed places. In (N, C, H, W), which dimension counts the rows, and which the "
            "columns?",
        ),
        Mistake(
            _up_and_left,
            "You shift up and left. `torch.roll` with a positive number moves towards higher rows and columns: that is "
            "down and right already.",
        ),
        Mistake(_down_only_moved, "You shift down only: the second number of each shift says how far to the right."),
        Mistake(_right_only_moved, "You shift right only: the first number of each shift says how far down."),
        Mistake(
            _shifts_added_up,
            "You shift what is shifted already, so that the shifts add up. Each begins at the picture itself: give the "
            "shifted copy a name of its own.",
        ),
        Mistake(
            _original_too,
            "You count the picture where it is as one more copy. Only the shifts in the list are asked for.",
        ),
        Mistake(
            _channels_rolled,
            "You shift channels and rows: red becomes green. In (N, C, H, W) rows and columns are dimensions 2 and 3.",
        ),
        Mistake(
            _one_long_row_rolled,
            "`torch.roll` has to be told along which two dimensions: without, it takes the whole tensor for one long "
            "row, and two shifts do not fit.",
        ),
        Mistake(
            _divided_by_the_batch,
            "You take the mean over the pictures as well: in a batch of N pictures each gradient comes out N times too "
            "small. The mean is over the shifts alone.",
        ),
        Mistake(
            _black_border,
            "What leaves your picture at one edge is lost, and black comes in at the other. Let it come in again "
            "there, as `torch.roll` does.",
        ),
        Mistake(_robust_descent, "This is the way down: minus the gradient. The score has to rise."),
        Mistake(
            _mean_score,
            "This is the mean score itself, one number a picture. Asked is how it changes with each pixel.",
        ),
        Mistake(
            _copies_without_a_history,
            "Nobody asked for a gradient, so PyTorch kept no record of the shifts and scores. Let a copy of the "
            "pictures ask (`requires_grad_()`) before you shift it.",
        ),
        Mistake(
            _used_up_for_nothing,
            "The scores have no connection to the pixels for which you ask: the copies were made without a record. Let "
            "the picture ask for a gradient *before* it is shifted.",
        ),
    ),
    hints=(
        "Shift, score, collect; behind the loop: mean, gradient.",
        "`torch.roll(images, (down, right), dims=(2, 3))` is a shifted copy. If `images` asks for a gradient, PyTorch "
        "records the shift too.",
        "Because the shift is recorded, the gradient with respect to `images` is moved back by itself: you have "
        "nothing to undo by hand.",
    ),
)

EXERCISES = (_PIXEL_GRADIENT, _NORMALIZED_STEP, _TOTAL_VARIATION, _ROBUST_GRADIENT)
