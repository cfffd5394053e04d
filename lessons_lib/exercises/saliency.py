"""The exercises of chapter 5, Saliency."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exercise import Exercise, Mistake

Score = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, K) and targets (N,) to what is differentiated, (N,)."""


def _logit(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0]


def _probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _logit(logits.softmax(dim=1), targets)


def _log_probability(logits: Tensor, targets: Tensor) -> Tensor:
    return _logit(logits.log_softmax(dim=1), targets)


def _winner(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.amax(dim=1)


def _first_target(logits: Tensor, targets: Tensor) -> Tensor:
    return logits[:, targets[0]]


def _each_others_targets(logits: Tensor, targets: Tensor) -> Tensor:
    return logits[:, targets].sum(dim=1)


def _gradient(model: nn.Module, images: Tensor, targets: Tensor, score: Score = _logit) -> Tensor:
    pixels = images.detach().clone().requires_grad_()
    # A picture's score depends on no other's pixels: the sum has the gradient of each in its place.
    (gradient,) = torch.autograd.grad(score(model(pixels), targets).sum(), pixels)
    return gradient


def _largest(gradient: Tensor) -> Tensor:
    return gradient.abs().amax(dim=1)


def _network(*layers: nn.Module, seed: int, size: float) -> nn.Sequential:
    random = torch.Generator().manual_seed(seed)
    network = nn.Sequential(*layers)
    for parameter in network.parameters():
        parameter.data = size * torch.randn(parameter.shape, generator=random)
    return network.eval()


def _smooth(channels: int, pixels: int, classes: int, *, seed: int, size: float) -> nn.Sequential:
    """A classifier whose gradient changes all along the way from one picture to another."""
    convolution = nn.Conv2d(channels, 4, 3, padding=1)
    return _network(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(4 * pixels, classes), seed=seed, size=size)


# --- 5.1: the gradient as a map ----------------------------------------------------------------------------------


def _models_images_and_targets() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made: not from the reader's numbers
        three = _smooth(3, 30, 5, seed=1, size=0.3)
        one = _smooth(3, 24, 3, seed=2, size=0.3).requires_grad_(False)
        in_place = _network(
            *(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3), nn.ReLU(inplace=True)),
            *(nn.Flatten(), nn.Linear(24, 4)),
            seed=3,
            size=0.4,
        )
    return {
        "three pictures with different targets": (
            three,
            torch.rand(3, 3, 5, 6, generator=random),
            torch.tensor([4, 0, 2]),
        ),
        "one picture and a frozen network": (one, torch.rand(1, 3, 6, 4, generator=random), torch.tensor([1])),
        "two pictures of two channels, ReLUs that work in place": (
            in_place,
            torch.randn(2, 2, 5, 4, generator=random),
            torch.tensor([3, 1]),
        ),
    }


def _saliency_map(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    pixels = images.detach().clone().requires_grad_()
    scores = model(pixels)[torch.arange(len(images)), targets]
    (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    return gradient.abs().amax(dim=1)


def _saliency_by_backward(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    pixels = images.clone().requires_grad_()
    model(pixels).gather(1, targets[:, None]).sum().backward(inputs=[pixels])
    assert pixels.grad is not None
    return pixels.grad.abs().max(dim=1).values


def _saliency_picture_by_picture(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    maps = []
    for image, target in zip(images, targets.tolist(), strict=True):
        pixels = image[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(pixels)[0, target], pixels)
        maps.append(gradient[0].abs().amax(dim=0))
    return torch.stack(maps)


def _saliency_by_functions(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    def score(pixels: Tensor) -> Tensor:
        return functional.nll_loss(-model(pixels), targets, reduction="sum")

    return _largest(torch.func.grad(score)(images))


def _map_of_probability(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, _probability))


def _map_of_log_probability(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, _log_probability))


def _map_of_mean_loss(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _map_of_log_probability(model, images, targets) / len(images)


def _sum_over_channels(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).abs().sum(dim=1)


def _mean_over_channels(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).abs().mean(dim=1)


def _mean_then_size(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).mean(dim=1).abs()


def _largest_signed(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).amax(dim=1)


def _size_of_largest(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).amax(dim=1).abs()


def _negative_cut_off(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).relu().amax(dim=1)


def _length_over_channels(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).norm(dim=1)


def _over_the_pictures(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).abs().amax(dim=0)


def _map_of_first_target(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, _first_target))


def _map_of_each_others_targets(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, _each_others_targets))


def _targets_for_pictures(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, lambda logits, targets: logits[targets]))


def _map_of_first_picture(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, lambda logits, targets: logits[0, targets[0]]))


def _map_of_winner(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, _winner))


def _map_of_all_classes(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, lambda logits, targets: logits.sum(dim=1)))


def _added_up_in_a_loop(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    maps, pixels = [], torch.zeros_like(images[:1]).requires_grad_()
    for image, target in zip(images, targets, strict=True):
        pixels.data.copy_(image)
        model(pixels)[0, target].backward()
        assert pixels.grad is not None
        maps.append(pixels.grad[0].abs().amax(dim=0))
    return torch.stack(maps)


def _map_of_mean_score(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _saliency_map(model, images, targets) / len(images)


def _times_the_picture(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(images * _gradient(model, images, targets))


def _brought_to_one(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    maps = _saliency_map(model, images, targets)
    return maps / maps.amax(dim=(1, 2), keepdim=True)


def _brought_from_zero_to_one(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    maps = _saliency_map(model, images, targets)
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


def _batch_brought_to_one(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    maps = _saliency_map(model, images, targets)
    return maps / maps.max()


def _channels_left_signed(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets)


def _channels_left(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _gradient(model, images, targets).abs()


def _a_channel_left(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _saliency_map(model, images, targets)[:, None]


def _values_and_places(model: nn.Module, images: Tensor, targets: Tensor) -> Any:
    return _gradient(model, images, targets).abs().max(dim=1)


def _batch_squeezed_away(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _saliency_map(model, images, targets).squeeze()


def _nobody_asked(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(_logit(model(images), targets).sum(), images)
    return _largest(gradient)


def _no_gradient_arrived(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    _logit(model(images), targets).sum().backward()
    return images.grad.abs().amax(dim=1)  # type: ignore[union-attr]


def _copy_of_what_asked(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    model(images)
    grad: Any = None  # what `pixels.grad` is then; to look at it would be warned about
    return grad.abs().amax(dim=1)  # type: ignore[no-any-return]


def _list_for_a_column(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return _largest(_gradient(model, images, targets, lambda logits, targets: logits.gather(1, targets)))


def _not_one_number(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    pixels = images.clone().requires_grad_()
    return _largest(torch.autograd.grad(_logit(model(pixels), targets), pixels)[0])


_SALIENCY_MAP = Exercise(
    name="saliency_map",
    number="5.1",
    title="The gradient as a map",
    prompt="For pictures (N, C, H, W) and a target class for each, (N,), return the maps (N, H, W): at each pixel the "
    "largest, over the channels, of the absolute gradients of the picture's own target score.",
    reference=_saliency_map,
    cases=_models_images_and_targets,
    alternatives=(_saliency_by_backward, _saliency_picture_by_picture, _saliency_by_functions),
    mistakes=(
        Mistake(
            _map_of_probability,
            "You take the gradient of the probability, behind the softmax. Where the network is nearly sure it is "
            "almost zero, and it also holds what speaks against the *other* classes. Take the logit.",
        ),
        Mistake(
            _map_of_log_probability,
            "You take the gradient of the log-probability: up to its sign, that is the cross-entropy loss of training. "
            "All classes have a say in it. Take the logit of the target alone.",
        ),
        Mistake(
            _map_of_mean_loss,
            "You take the gradient of the cross-entropy loss: all classes have a say in it, and it is a mean over the "
            "batch. Take the logit of the target alone, and add up over the pictures.",
        ),
        Mistake(
            _sum_over_channels,
            "You add up over the channels. Asked is the largest of them at each pixel.",
        ),
        Mistake(
            _mean_over_channels,
            "You take the mean over the channels. Asked is the largest of them at each pixel.",
        ),
        Mistake(
            _mean_then_size,
            "You take the mean over the channels first: where red and green pull opposite ways, they cancel out. First "
            "the absolute value, and then the largest.",
        ),
        Mistake(
            _largest_signed,
            "Some of your numbers are negative: you forgot the absolute value. A pixel that should become darker "
            "matters as much as one that should become brighter.",
        ),
        Mistake(
            _size_of_largest,
            "You take the absolute value after the largest: a strong *negative* gradient loses against a weak positive "
            "one of another channel, before its sign is gone. Which has to come first?",
        ),
        Mistake(
            _negative_cut_off,
            "You cut off negative gradients. A pixel that should become darker matters as much as one that should "
            "become brighter: take the absolute value.",
        ),
        Mistake(
            _length_over_channels,
            "You take the length over the channels, the root of the sum of squares. Others do so too; asked here is "
            "the largest of the absolute values.",
        ),
        Mistake(
            _over_the_pictures,
            "You take the largest over the pictures. In a batch the first dimension counts pictures, and the second "
            "one channels.",
        ),
        Mistake(
            _map_of_first_target,
            "You explain the first picture's target in all pictures. Each picture has a target of its own.",
        ),
        Mistake(
            _map_of_each_others_targets,
            "`logits[:, targets]` is (N, N): in every picture the scores of *everybody's* targets, and their sum "
            "explains all of them at once. One number for each row is wanted: `gather` does that, or two lists of "
            "indices.",
        ),
        Mistake(
            _targets_for_pictures,
            "You take the targets for numbers of pictures: `logits[targets]` picks rows. Logits are (N, K), pictures "
            "first and classes second.",
        ),
        Mistake(
            _map_of_first_picture,
            "Only the score of the first picture is differentiated, and so the other maps are zero. Add up the scores "
            "of all pictures.",
        ),
        Mistake(
            _map_of_winner,
            "You explain the class that the network likes best in each picture. Asked are the classes in `targets`.",
        ),
        Mistake(
            _map_of_all_classes,
            "You add up the scores of all classes, and explain none of them. Pick the target's in each row.",
        ),
        Mistake(
            _added_up_in_a_loop,
            "Gradients pile up: the second map holds the first picture's gradient as well. `.backward()` *adds* to "
            "`.grad`. Take a fresh tensor for each picture, or the whole batch at once.",
        ),
        Mistake(
            _map_of_mean_score,
            "You take the mean of the scores: in a batch of N pictures each map comes out N times too faint. What a "
            "picture's map is must not depend on how many others come with it. Add up.",
        ),
        Mistake(
            _times_the_picture,
            "You multiply the gradient by the picture. That is a method of its own, and black pixels never matter in "
            "it. Asked is the gradient alone.",
        ),
        Mistake(
            _brought_to_one,
            "You divide each map by its largest number. For a figure that is fine; but then nobody can see any more "
            "which picture's score is the more sensitive. Return the gradients as large as they are.",
        ),
        Mistake(
            _brought_from_zero_to_one,
            "You stretch each map from 0 to 1. For a figure that is fine; but pixels that matter a little are then "
            "drawn as if they did not matter at all. Return the gradients as large as they are.",
        ),
        Mistake(
            _batch_brought_to_one,
            "You divide by the largest number of the whole batch: then a picture's map depends on its neighbours. "
            "Return the gradients as large as they are.",
        ),
        Mistake(
            _channels_left_signed,
            "This is the gradient itself, with signs and channels. A map has one number for each pixel: two steps "
            "are missing.",
        ),
        Mistake(
            _channels_left,
            "The channels are still there. A map has one number for each pixel: the largest of them.",
        ),
        Mistake(
            _a_channel_left,
            "Right, but a dimension of size 1 is left where the channels were. Let `amax` take it away (no `keepdim`).",
        ),
        Mistake(
            _values_and_places,
            "`max(dim=1)` returns two things, the largest values and where they are. You want the first, `.values`; "
            "`amax` returns that alone.",
        ),
        Mistake(
            _batch_squeezed_away,
            "Right, but `squeeze()` takes away every dimension of size 1, and for a single picture the batch is one. "
            "Name the dimension that is to go.",
        ),
        Mistake(
            _nobody_asked,
            "PyTorch keeps a record of what was computed only from tensors that ask for it, and these pictures do not. "
            "Let a copy of them ask, with `requires_grad_()`, before the model sees it.",
        ),
        Mistake(
            _no_gradient_arrived,
            "No gradient has arrived: `images.grad` is None, for these pictures did not ask for one. (And what "
            "`.backward()` left in the weights should not be there.) Let a copy of them ask, with `requires_grad_()`, "
            "before the model sees it.",
        ),
        Mistake(
            _copy_of_what_asked,
            "No gradient has arrived: PyTorch puts `.grad` only into the tensor that asked, and yours is computed from "
            "it, `requires_grad_().clone()`. Copy first, then let the copy ask.",
        ),
        Mistake(
            _list_for_a_column,
            "`gather` wants its indices with as many dimensions as the logits have: make the targets a column, "
            "`targets[:, None]`.",
        ),
        Mistake(
            _not_one_number,
            "There is one score for each picture, and PyTorch differentiates one number. Which single number has the "
            "right gradient for every picture, if no picture's score depends on another's pixels?",
        ),
    ),
    hints=(
        "Let a copy of the pictures ask for a gradient: `pixels = images.clone().requires_grad_()`. Then run the "
        "model on it.",
        "Pick one logit in each row, the target's: `gather(1, targets[:, None])`, or index with "
        "`torch.arange(len(images))` and `targets` together.",
        "Add these scores up: each depends on its own picture only, so the gradient of the sum holds every picture's "
        "own. `torch.autograd.grad(sum, pixels)` returns it in a tuple, and touches neither the model nor `.grad`.",
        "The gradient is (N, C, H, W). First the sizes, `abs()`; then the largest over dimension 1.",
    ),
)


# --- 5.2: SmoothGrad ---------------------------------------------------------------------------------------------


def _noise_and_levels() -> dict[str, tuple[nn.Module, Tensor, Tensor, Tensor, float]]:
    random = torch.Generator().manual_seed(10)
    with torch.random.fork_rng(devices=[]):
        three = _smooth(3, 20, 4, seed=11, size=0.8)
        one = _smooth(2, 24, 3, seed=12, size=0.8).requires_grad_(False)
        two = _smooth(1, 25, 3, seed=13, size=0.8)
    contrasts = torch.rand(3, 3, 4, 5, generator=random)
    contrasts = 0.2 + contrasts * torch.tensor([0.75, 0.4, 0.6]).view(3, 1, 1, 1)
    contrasts[:, 0] *= 0.6  # so that no channel has the range of the whole picture
    even = torch.rand(2, 1, 5, 5, generator=random) * 2 - 0.5
    even[1] = 0.4
    return {
        "three pictures of different contrast": (
            three,
            contrasts,
            torch.tensor([2, 0, 3]),
            torch.randn(4, 3, 3, 4, 5, generator=random),
            0.6,
        ),
        "one picture, a frozen network, more noise": (
            one,
            torch.rand(1, 2, 6, 4, generator=random),
            torch.tensor([1]),
            torch.randn(5, 1, 2, 6, 4, generator=random),
            0.9,
        ),
        "two grey pictures, the second of them even": (
            two,
            even,
            torch.tensor([0, 2]),
            torch.randn(3, 2, 1, 5, 5, generator=random),
            0.4,
        ),
    }


def _range(images: Tensor) -> Tensor:
    return images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)


def _noisy_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    noise: Tensor | Sequence[Tensor],
    score: Score = _logit,
    change: Callable[[Tensor], Tensor] = lambda noisy: noisy,
) -> Tensor:
    """The gradients at the pictures plus each of the noises: (S, N, C, H, W)."""
    return torch.stack([_gradient(model, change(images + sample), targets, score) for sample in noise])


def _smooth_grad(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    spread = images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)
    total = torch.zeros_like(images)
    for sample in noise:
        total += _gradient(model, images + level * spread * sample, targets)
    # Signs cancel in the mean: only after it does the size of what is left count.
    return (total / len(noise)).abs().amax(dim=1)


def _smooth_grad_at_once(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    noisy = images + level * _range(images) * noise
    gradient = _gradient(model, noisy.flatten(0, 1), targets.repeat(len(noise)))
    return _largest(gradient.unflatten(0, noise.shape[:2]).mean(dim=0))


def _smooth_grad_by_mean_score(
    model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float
) -> Tensor:
    pixels = images.clone().requires_grad_()
    spread = torch.stack([image.max() - image.min() for image in images]).view(-1, 1, 1, 1)
    scores = [_logit(model(pixels + level * spread * sample), targets) for sample in noise]
    torch.stack(scores).mean(dim=0).sum().backward(inputs=[pixels])
    assert pixels.grad is not None
    return _largest(pixels.grad)


def _sizes_before_the_mean(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    gradients = _noisy_gradients(model, images, targets, level * _range(images) * noise)
    return gradients.abs().amax(dim=2).mean(dim=0)


def _sizes_before_the_largest(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    gradients = _noisy_gradients(model, images, targets, level * _range(images) * noise)
    return gradients.abs().mean(dim=0).amax(dim=1)


def _range_forgotten(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _largest(_noisy_gradients(model, images, targets, level * noise).mean(dim=0))


def _level_forgotten(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _largest(_noisy_gradients(model, images, targets, _range(images) * noise).mean(dim=0))


def _range_of_the_batch(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    spread = images.max() - images.min()
    return _largest(_noisy_gradients(model, images, targets, level * spread * noise).mean(dim=0))


def _range_of_each_channel(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    spread = images.amax(dim=(2, 3), keepdim=True) - images.amin(dim=(2, 3), keepdim=True)
    return _largest(_noisy_gradients(model, images, targets, level * spread * noise).mean(dim=0))


def _largest_for_range(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    spread = images.amax(dim=(1, 2, 3), keepdim=True)
    return _largest(_noisy_gradients(model, images, targets, level * spread * noise).mean(dim=0))


def _deviation_for_range(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    spread = images.std(dim=(1, 2, 3), keepdim=True)
    return _largest(_noisy_gradients(model, images, targets, level * spread * noise).mean(dim=0))


def _noise_averaged_first(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _largest(_gradient(model, images + level * _range(images) * noise.mean(dim=0), targets))


def _noise_as_a_factor(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _largest(_noisy_gradients(model, images, targets, images * level * noise).mean(dim=0))


def _noisy_pictures_clipped(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    scaled = level * _range(images) * noise
    return _largest(_noisy_gradients(model, images, targets, scaled, change=lambda x: x.clamp(0, 1)).mean(dim=0))


def _first_sample_only(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _smooth_grad(model, images, targets, noise[:1], level)


def _last_sample_only(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _smooth_grad(model, images, targets, noise[-1:], level)


def _noise_forgotten(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _saliency_map(model, images, targets)


def _variance_of_gradients(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _largest(_noisy_gradients(model, images, targets, level * _range(images) * noise).var(dim=0))


def _squares_of_gradients(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _largest(_noisy_gradients(model, images, targets, level * _range(images) * noise).square().mean(dim=0))


def _sum_of_gradients(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _smooth_grad(model, images, targets, noise, level) * len(noise)


def _smooth_gradients_piled_up(
    model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float
) -> Tensor:
    gradients = _noisy_gradients(model, images, targets, level * _range(images) * noise)
    return _largest(gradients.cumsum(dim=0).mean(dim=0))


def _noise_upon_noise(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _smooth_grad(model, images, targets, noise.cumsum(dim=0), level)


def _smooth_probability(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    scaled = level * _range(images) * noise
    return _largest(_noisy_gradients(model, images, targets, scaled, _probability).mean(dim=0))


def _winner_of_each_copy(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    scaled = level * _range(images) * noise
    return _largest(_noisy_gradients(model, images, targets, scaled, _winner).mean(dim=0))


def _smooth_first_target(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    scaled = level * _range(images) * noise
    return _largest(_noisy_gradients(model, images, targets, scaled, _first_target).mean(dim=0))


def _smooth_each_others_targets(
    model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float
) -> Tensor:
    scaled = level * _range(images) * noise
    return _largest(_noisy_gradients(model, images, targets, scaled, _each_others_targets).mean(dim=0))


def _smooth_targets_in_another_order(
    model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float
) -> Tensor:
    noisy = images + level * _range(images) * noise
    gradient = _gradient(model, noisy.flatten(0, 1), targets.repeat_interleave(len(noise)))
    return _largest(gradient.unflatten(0, noise.shape[:2]).mean(dim=0))


def _gradients_in_another_order(
    model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float
) -> Tensor:
    gradients = _noisy_gradients(model, images, targets, level * _range(images) * noise)
    return _largest(gradients.flatten(0, 1).unflatten(0, (len(images), len(noise))).mean(dim=1))


def _smooth_mean_over_the_batch(
    model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float
) -> Tensor:
    return _smooth_grad(model, images, targets, noise, level) / len(images)


def _smooth_signs_kept(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _noisy_gradients(model, images, targets, level * _range(images) * noise).mean(dim=0).amax(dim=1)


def _smooth_channels_left(model: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float) -> Tensor:
    return _noisy_gradients(model, images, targets, level * _range(images) * noise).mean(dim=0)


_SMOOTH_GRAD = Exercise(
    name="smooth_grad_map",
    number="5.2",
    title="SmoothGrad",
    prompt="Given standard normal draws (S, N, C, H, W), return the maps (N, H, W) of the mean gradient: over S copies "
    "of the pictures (N, C, H, W), each with noise of `level` times the picture's own range (largest minus smallest "
    "number); then sizes and the largest over the channels.",
    reference=_smooth_grad,
    cases=_noise_and_levels,
    alternatives=(_smooth_grad_at_once, _smooth_grad_by_mean_score),
    mistakes=(
        Mistake(
            _sizes_before_the_mean,
            "This is the mean of the maps. With the signs gone before the mean, what is random in the gradients can no "
            "longer cancel out, and stays as an even haze. First the mean of the gradients, signs and all.",
        ),
        Mistake(
            _sizes_before_the_largest,
            "You take the sizes before the mean. With the signs gone, what is random in the gradients can no longer "
            "cancel out. First the mean, then the sizes.",
        ),
        Mistake(
            _range_forgotten,
            "You add `level` times the draws, whatever the picture is like. The same noise drowns a dull picture and "
            "leaves a vivid one alone: scale it by each picture's own range.",
        ),
        Mistake(
            _level_forgotten,
            "You do not use `level`: the noise is as large as the whole range of the picture.",
        ),
        Mistake(
            _range_of_the_batch,
            "You take one range, that of all pictures together. Each has its own: largest and smallest number over "
            "channels, rows and columns, but not over the batch.",
        ),
        Mistake(
            _range_of_each_channel,
            "You take a range for each channel. A picture has one: largest and smallest number over its channels too.",
        ),
        Mistake(
            _largest_for_range,
            "You take the largest number for the range. The smallest has to go off: a bright picture may have little "
            "contrast.",
        ),
        Mistake(
            _deviation_for_range,
            "You scale the noise by the standard deviation of the picture. Asked is its range, largest minus smallest "
            "number.",
        ),
        Mistake(
            _noise_averaged_first,
            "You take the mean of the noise, which is nearly nothing, and one gradient there. It is the *gradients* "
            "that have to be averaged, each at a noisy picture of its own.",
        ),
        Mistake(
            _noise_as_a_factor,
            "You multiply the picture by the noise: dark pixels get none. Noise is added, everywhere equally much.",
        ),
        Mistake(
            _noisy_pictures_clipped,
            "You clip the noisy pictures to [0, 1]. That moves bright pixels down and dark ones up on average, and "
            "pictures need not lie in [0, 1] here. Leave them as they are.",
        ),
        Mistake(
            _first_sample_only,
            "Only the first draw arrives. Is there a `return` inside the loop?",
        ),
        Mistake(
            _last_sample_only,
            "Only the last draw arrives: each turn of the loop overwrites the one before. Add up.",
        ),
        Mistake(
            _noise_forgotten,
            "This is the plain map, without any noise. Does the model see the noisy pictures, or the clean ones?",
        ),
        Mistake(
            _variance_of_gradients,
            "This is the variance of the gradients over the draws. It says where they disagree; asked is their mean.",
        ),
        Mistake(
            _squares_of_gradients,
            "You square the gradients before the mean. The signs are gone then, and nothing can cancel out.",
        ),
        Mistake(
            _sum_of_gradients,
            "You add up and do not divide: with twice as many draws the map would be twice as bright. Take the mean.",
        ),
        Mistake(
            _smooth_gradients_piled_up,
            "Gradients pile up: `.backward()` *adds* to `.grad`, and you add that to your own sum once more, so that "
            "the first draw counts S times and the last once. Add up in one place only.",
        ),
        Mistake(
            _noise_upon_noise,
            "You add each draw to a picture that already has the noise of those before. Begin with the clean picture "
            "every time.",
        ),
        Mistake(
            _smooth_probability,
            "You take the gradient of the probability, behind the softmax. Take the logit.",
        ),
        Mistake(
            _winner_of_each_copy,
            "In each noisy copy you explain the class that the network likes best there. The noise may change that: "
            "then your mean mixes classes. Asked are those in `targets`.",
        ),
        Mistake(
            _smooth_first_target,
            "You explain the first picture's target in all pictures. Each has a target of its own.",
        ),
        Mistake(
            _smooth_each_others_targets,
            "`logits[:, targets]` is (N, N): in every picture the scores of *everybody's* targets. Pick one in each "
            "row, with `gather` or with two lists of indices.",
        ),
        Mistake(
            _smooth_targets_in_another_order,
            "Pictures and targets do not match. Flattened, (S, N, ...) counts all pictures of the first draw, then all "
            "of the second: the targets have to be `repeat`ed in the same order, and `repeat_interleave` uses the "
            "other.",
        ),
        Mistake(
            _gradients_in_another_order,
            "You take means over other pictures' gradients. Flattened, (S, N, ...) counts all pictures of the first "
            "draw, then all of the second: bring it back to (S, N, ...), not to (N, S, ...).",
        ),
        Mistake(
            _smooth_mean_over_the_batch,
            "You take the mean over the pictures as well: in a batch of N each map comes out N times too faint. The "
            "mean is over draws only.",
        ),
        Mistake(
            _smooth_signs_kept,
            "The mean is right, but you take the largest number with its sign: of the mean gradient, too, the absolute "
            "value counts.",
        ),
        Mistake(
            _smooth_channels_left,
            "This is the mean gradient. A map has one number for each pixel: the largest of the absolute values over "
            "the channels.",
        ),
    ),
    hints=(
        "`images.amax(dim=(1, 2, 3), keepdim=True)` is (N, 1, 1, 1): it broadcasts to the pictures. So does the range.",
        "Go through the draws. Each `noise[s]` has the shape of the pictures: scale it by `level` and the range, and "
        "add it to the clean pictures.",
        "For each noisy batch, compute the gradient as in 5.1, but leave it as it is: (N, C, H, W), signed. Add these "
        "up, and divide by how many there are.",
        "Only at the very end: absolute value, and the largest over the channels.",
    ),
)


# --- 5.3: integrated gradients -----------------------------------------------------------------------------------


def _baselines_and_steps() -> dict[str, tuple[nn.Module, Tensor, Tensor, Tensor, int]]:
    random = torch.Generator().manual_seed(20)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    with torch.random.fork_rng(devices=[]):
        three = _smooth(3, 20, 4, seed=21, size=0.9)
        one = _smooth(2, 24, 3, seed=22, size=0.9).requires_grad_(False)
        in_one = _smooth(1, 16, 3, seed=23, size=0.9)
    return {
        "three pictures, each with a baseline of its own": (
            three,
            uniform(3, 3, 4, 5),
            torch.tensor([1, 3, 0]),
            uniform(3, 3, 4, 5),
            4,
        ),
        "one picture, a black baseline, a frozen network": (
            one,
            uniform(1, 2, 6, 4) + 0.2,
            torch.tensor([2]),
            torch.zeros(1, 2, 6, 4),
            7,
        ),
        "two grey pictures, white baselines, one step": (
            in_one,
            uniform(2, 1, 4, 4),
            torch.tensor([0, 2]),
            torch.ones(2, 1, 4, 4),
            1,
        ),
    }


def _mean_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    baseline: Tensor,
    places: Iterable[float | Tensor],
    score: Score = _logit,
) -> Tensor:
    """The mean of the gradients at some places of the straight way; 0 is the baseline, 1 the picture."""
    way = images - baseline
    return torch.stack([_gradient(model, baseline + place * way, targets, score) for place in places]).mean(dim=0)


def _middles(steps: int) -> list[float]:
    return [(k + 0.5) / steps for k in range(steps)]


def _integrated_gradients(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    way = images - baseline
    total = torch.zeros_like(images)
    for k in range(steps):
        # The middle of each piece of the way: the ends of the pieces would lean to one side.
        total += _gradient(model, baseline + (k + 0.5) / steps * way, targets)
    return way * total / steps


def _integrated_at_once(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    places = ((torch.arange(steps) + 0.5) / steps).view(-1, 1, 1, 1, 1)
    between = baseline + places * (images - baseline)  # (steps, N, C, H, W)
    gradient = _gradient(model, between.flatten(0, 1), targets.repeat(steps))
    return (images - baseline) * gradient.unflatten(0, (steps, -1)).mean(dim=0)


def _integrated_backwards(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    way, total = baseline - images, torch.zeros_like(images)
    for place in torch.linspace(0.5 / steps, 1 - 0.5 / steps, steps):
        pixels = (images + place * way).requires_grad_()
        _logit(model(pixels), targets).sum().backward(inputs=[pixels])
        assert pixels.grad is not None
        total -= pixels.grad * way / steps
    return total


def _difference_forgotten(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return _mean_gradient(model, images, targets, baseline, _middles(steps))


def _times_picture_alone(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return images * _mean_gradient(model, images, targets, baseline, _middles(steps))


def _left_ends(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    places = [k / steps for k in range(steps)]
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, places)


def _right_ends(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    places = [(k + 1) / steps for k in range(steps)]
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, places)


def _with_both_ends(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    places = torch.linspace(0, 1, steps)
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, places)


def _with_both_ends_and_one_more(
    model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places = torch.linspace(0, 1, steps + 1)
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, places)


def _by_trapezoids(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    ends = (_left_ends, _right_ends)
    return torch.stack([answer(model, images, targets, baseline, steps) for answer in ends]).mean(dim=0)


def _counted_from_one(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    places = [(k + 0.5) / steps for k in range(1, steps + 1)]
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, places)


def _brackets_forgotten(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    places = [k + 0.5 / steps for k in range(steps)]
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, places)


def _from_black(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return _integrated_gradients(model, images, targets, torch.zeros_like(baseline), steps)


def _way_from_black(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    black = torch.zeros_like(baseline)
    return (images - baseline) * _mean_gradient(model, images, targets, black, _middles(steps))


def _picture_upon_baseline(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    sums = baseline + images  # so that the way to it from the baseline is the whole picture
    return (images - baseline) * _mean_gradient(model, sums, targets, baseline, _middles(steps))


def _sum_along_the_way(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return steps * _integrated_gradients(model, images, targets, baseline, steps)


def _sizes_at_the_end(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return _integrated_gradients(model, images, targets, baseline, steps).abs()


def _sizes_of_gradients(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    way = images - baseline
    gradients = [_gradient(model, baseline + place * way, targets).abs() for place in _middles(steps)]
    return way * torch.stack(gradients).mean(dim=0)


def _one_number_for_each_pixel(
    model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _largest(_integrated_gradients(model, images, targets, baseline, steps))


def _channels_added_up(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return _integrated_gradients(model, images, targets, baseline, steps).sum(dim=1)


def _down_to_the_picture(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    way, pixels = images - baseline, images.clone().requires_grad_()
    scores = [_logit(model(baseline + place * (pixels - baseline)), targets).sum() for place in _middles(steps)]
    (gradient,) = torch.autograd.grad(sum(scores), pixels)  # type: ignore[arg-type]
    return way * gradient / steps


def _gradients_piled_up(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    way = images - baseline
    gradients = torch.stack([_gradient(model, baseline + place * way, targets) for place in _middles(steps)])
    return way * gradients.cumsum(dim=0).mean(dim=0)


def _at_the_picture_only(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _gradient(model, images, targets)


def _at_the_baseline_only(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _gradient(model, baseline, targets)


def _at_the_ends_only(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, [0, 1])


def _in_the_middle_only(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, [0.5])


def _last_step_only(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, _middles(steps)[-1:])


def _integrated_probability(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, _middles(steps), _probability)


def _winner_along_the_way(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, _middles(steps), _winner)


def _integrated_first_target(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, _middles(steps), _first_target)


def _integrated_each_others_targets(
    model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return (images - baseline) * _mean_gradient(model, images, targets, baseline, _middles(steps), _each_others_targets)


def _integrated_targets_in_another_order(
    model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    places = ((torch.arange(steps) + 0.5) / steps).view(-1, 1, 1, 1, 1)
    between = baseline + places * (images - baseline)
    gradient = _gradient(model, between.flatten(0, 1), targets.repeat_interleave(steps))
    return (images - baseline) * gradient.unflatten(0, (steps, -1)).mean(dim=0)


def _integrated_mean_over_the_batch(
    model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int
) -> Tensor:
    return _integrated_gradients(model, images, targets, baseline, steps) / len(images)


def _sign_turned_round(model: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return -_integrated_gradients(model, images, targets, baseline, steps)


_INTEGRATED_GRADIENTS = Exercise(
    name="integrated",
    number="5.3",
    title="Integrated gradients",
    prompt="For pictures and baselines (N, C, H, W) and targets (N,), return the mean of the target score's gradients "
    "at the middles of `steps` equal pieces of the straight way from baseline to picture, times picture minus "
    "baseline, (N, C, H, W).",
    reference=_integrated_gradients,
    cases=_baselines_and_steps,
    alternatives=(_integrated_at_once, _integrated_backwards),
    mistakes=(
        Mistake(
            _difference_forgotten,
            "This is the mean gradient along the way. How far each number has come on it is missing: without that, a "
            "pixel that does not change at all would get a share of the score.",
        ),
        Mistake(
            _times_picture_alone,
            "You multiply by the picture. With a baseline that is not black, a number has come only the difference, "
            "and your shares do not add up to what the score has risen by.",
        ),
        Mistake(
            _left_ends,
            "You take the beginning of each piece of the way: the baseline counts and the picture itself does not. The "
            "middle leans to neither side.",
        ),
        Mistake(
            _right_ends,
            "You take the end of each piece of the way: the picture itself counts and the baseline does not. The "
            "middle leans to neither side.",
        ),
        Mistake(
            _with_both_ends,
            "`linspace(0, 1, steps)` gives places with both ends of the way, each counted in full, though it has a "
            "piece on one side only. Take the middles of the pieces.",
        ),
        Mistake(
            _with_both_ends_and_one_more,
            "You take the ends of all pieces, one place more than there are pieces, and both ends of the way count in "
            "full. Take the middles of the pieces.",
        ),
        Mistake(
            _by_trapezoids,
            "This is the rule of trapezoids: the mean of beginning and end of each piece. It is a good one too, and "
            "needs a gradient more. Asked here are the middles.",
        ),
        Mistake(
            _counted_from_one,
            "You count the pieces from 1: your first middle is that of the second piece, and your last lies beyond the "
            "picture. Count from 0.",
        ),
        Mistake(
            _brackets_forgotten,
            "`k + 0.5 / steps` divides only the half: nearly all your places lie far beyond the picture. Brackets.",
        ),
        Mistake(
            _from_black,
            "You do not use the baseline: this is the way from black.",
        ),
        Mistake(
            _way_from_black,
            "The difference to the baseline is there, but your way begins at black: you scale the picture. Begin at "
            "the baseline, and go towards the picture.",
        ),
        Mistake(
            _picture_upon_baseline,
            "You lay the picture over the baseline, ever more of it: at the end stands the sum of both. The way has to "
            "end at the picture: what is added on the way is the *difference*.",
        ),
        Mistake(
            _sum_along_the_way,
            "You add up and do not divide by the number of steps: with twice as many steps all would be twice as "
            "large. Each piece is only a part of the way.",
        ),
        Mistake(
            _sizes_at_the_end,
            "The signs are lost. Numbers that speak against the class count against it here: with their signs the "
            "shares add up to what the score has risen by.",
        ),
        Mistake(
            _sizes_of_gradients,
            "You take the sizes of the gradients on the way. What rises first and falls afterwards has to cancel out: "
            "leave the signs.",
        ),
        Mistake(
            _one_number_for_each_pixel,
            "You make a map of it, as in 5.1. Asked is each number's own share, signed, channels and all: only these "
            "add up to what the score has risen by.",
        ),
        Mistake(
            _channels_added_up,
            "You add up over the channels. For a figure that is what one does; asked is each number's own share.",
        ),
        Mistake(
            _down_to_the_picture,
            "You differentiate with respect to the picture, through the formula of the way: that puts the place, from "
            "0 to 1, before each gradient as a factor. Let the picture on the way itself ask for the gradient.",
        ),
        Mistake(
            _gradients_piled_up,
            "Gradients pile up: `.backward()` *adds* to `.grad`, and you add that to your own sum once more, so that "
            "the first step counts many times and the last once. Take a fresh tensor at each step.",
        ),
        Mistake(
            _at_the_picture_only,
            "You take the gradient at the picture alone. Where the score is saturated it is silent there, though the "
            "pixel mattered on the way. Ask at every step.",
        ),
        Mistake(
            _at_the_baseline_only,
            "You take the gradient at the baseline alone. Do your pictures move on with each step?",
        ),
        Mistake(
            _at_the_ends_only,
            "You take the mean of two gradients, at the baseline and at the picture. What happens in between is the "
            "point of the method.",
        ),
        Mistake(
            _in_the_middle_only,
            "You take one gradient, halfway. It is the *gradients* that have to be averaged, not the places where they "
            "are taken.",
        ),
        Mistake(
            _last_step_only,
            "Only the last step arrives: each turn of the loop overwrites the one before. Add up.",
        ),
        Mistake(
            _integrated_probability,
            "You follow the probability, behind the softmax. Asked is the score: take the logit.",
        ),
        Mistake(
            _winner_along_the_way,
            "At each step you take the class that the network likes best there. That changes on the way, and your "
            "shares add up to nothing in particular. Asked are the classes in `targets`.",
        ),
        Mistake(
            _integrated_first_target,
            "You explain the first picture's target in all pictures. Each has a target of its own.",
        ),
        Mistake(
            _integrated_each_others_targets,
            "`logits[:, targets]` is (N, N): in every picture the scores of *everybody's* targets. Pick one in each "
            "row, with `gather` or with two lists of indices.",
        ),
        Mistake(
            _integrated_targets_in_another_order,
            "Pictures and targets do not match. Flattened, (steps, N, ...) counts all pictures of the first step, then "
            "all of the second: the targets have to be `repeat`ed in the same order, and `repeat_interleave` uses the "
            "other.",
        ),
        Mistake(
            _integrated_mean_over_the_batch,
            "You take the mean over the pictures as well: in a batch of N all comes out N times too small. The mean is "
            "over steps only.",
        ),
        Mistake(
            _sign_turned_round,
            "Your difference is the wrong way round: what speaks for the class comes out negative. It is where the way "
            "ends minus where it begins.",
        ),
    ),
    hints=(
        "A place on the way is `baseline + a * (images - baseline)`: at `a = 0` the baseline, at `a = 1` the picture.",
        "Cut the way from 0 to 1 into `steps` equal pieces. Piece k, counted from 0, begins at `k / steps`. Where is "
        "its middle?",
        "At each middle compute the gradient as in 5.1, signed and with channels. Add these up and divide by `steps`.",
        "Multiply by `images - baseline`. Check: over a picture's numbers the sum should be close to the score of the "
        "picture minus that of the baseline.",
    ),
)


# --- 5.4: another rule for ReLU ----------------------------------------------------------------------------------


def _gradients_and_inputs() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(30)
    x = torch.randn(2, 3, 4, 5, generator=random)
    off = torch.randn(3, 4, generator=random)
    with_zeros = torch.randn(4, 6, generator=random)
    with_zeros[:, ::3] = 0
    coming = torch.randn(4, 6, generator=random)
    coming[:2] = coming[:2].abs() + 0.2
    coming[3, 1:3] = 0
    return {
        "maps of two pictures": (torch.randn(2, 3, 4, 5, generator=random), x),
        "rows, some of whose numbers are exactly 0": (coming, with_zeros),
        "a ReLU that was off everywhere": (torch.randn(3, 4, generator=random), -off.abs() - 0.1),
        "a single row": (2 * torch.randn(7, generator=random), 3 * torch.randn(7, generator=random)),
    }


def _guided_rule(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.clamp(min=0) * (x > 0)


def _guided_by_choice(gradient: Tensor, x: Tensor) -> Tensor:
    return torch.where((gradient > 0) & (x > 0), gradient, 0.0)


def _guided_by_writing(gradient: Tensor, x: Tensor) -> Tensor:
    passed = gradient.clone()
    passed[x <= 0] = 0
    passed[gradient < 0] = 0
    return passed


def _guided_by_autograd(gradient: Tensor, x: Tensor) -> Tensor:
    pixels = x.clone().requires_grad_()
    (passed,) = torch.autograd.grad(pixels.relu(), pixels, grad_outputs=gradient)
    return passed.relu()


def _rule_of_calculus(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient * (x > 0)


def _rule_of_deconvnet(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.relu()


def _times_the_input(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.relu() * x


def _times_the_output(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.relu() * x.relu()


def _product_rectified(gradient: Tensor, x: Tensor) -> Tensor:
    return (gradient * x).relu()


def _output_of_the_relu(gradient: Tensor, x: Tensor) -> Tensor:
    return x.relu()


def _input_where_both(gradient: Tensor, x: Tensor) -> Tensor:
    return x.relu() * (gradient > 0)


def _ones_where_both(gradient: Tensor, x: Tensor) -> Tensor:
    return ((gradient > 0) & (x > 0)).float()


def _size_where_on(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.abs() * (x > 0)


def _size_everywhere(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.abs()


def _negative_for_positive(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.clamp(max=0) * (x > 0)


def _off_for_on(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.relu() * (x < 0)


def _on_at_zero(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.relu() * (x >= 0)


def _one_of_both(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient * ((gradient > 0) | (x > 0))


def _of_one_sign(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient * (gradient * x > 0)


def _sign_for_on(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.relu() * x.sign()


def _smaller_of_both(gradient: Tensor, x: Tensor) -> Tensor:
    return torch.minimum(gradient, x).relu()


def _passed_on_as_it_is(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.clone()


def _picked_out(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient[(gradient > 0) & (x > 0)]


def _asked_with_if(gradient: Tensor, x: Tensor) -> Tensor:
    if gradient > 0 and x > 0:
        return gradient
    return torch.zeros_like(gradient)


def _brackets_around_comparisons(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient * (gradient > 0 & x > 0)  # type: ignore[operator]


_GUIDED_RULE = Exercise(
    name="guided_rule",
    number="5.4",
    title="Another way back through a ReLU",
    prompt="For a ReLU, return what it hands back to what lies before it under guided backpropagation: `gradient`, "
    "what comes back to it, where both that and `x`, what came into it, are above 0, and else 0. All three have the "
    "same shape, whichever it is.",
    reference=_guided_rule,
    cases=_gradients_and_inputs,
    alternatives=(_guided_by_choice, _guided_by_writing, _guided_by_autograd),
    mistakes=(
        Mistake(
            _rule_of_calculus,
            "This is the rule of calculus: what comes back passes where the ReLU was on. Guided backpropagation stops "
            "negative gradients as well.",
        ),
        Mistake(
            _rule_of_deconvnet,
            "This is the deconvnet's rule: it looks at what comes back only, and forgets where the ReLU was off. "
            "Guided backpropagation asks both.",
        ),
        Mistake(
            _times_the_input,
            "You multiply by `x` itself. It only decides *whether* something passes, not how much: compare it with 0.",
        ),
        Mistake(
            _times_the_output,
            "You multiply by what the ReLU put out. It only decides *whether* something passes, not how much: compare "
            "`x` with 0.",
        ),
        Mistake(
            _product_rectified,
            "You take the ReLU of the product: where both are negative it is positive. And how large `x` is should not "
            "count at all. Ask each by itself whether it is above 0.",
        ),
        Mistake(
            _output_of_the_relu,
            "This is what the ReLU does on the way forward. On the way back it is `gradient` that passes or does not.",
        ),
        Mistake(
            _input_where_both,
            "The places are right, but you hand on `x`. What goes back is `gradient`.",
        ),
        Mistake(
            _ones_where_both,
            "The places are right, but this only says *whether* something passes. Hand on what passes.",
        ),
        Mistake(
            _size_where_on,
            "You make negative gradients positive. They should not pass at all.",
        ),
        Mistake(
            _size_everywhere,
            "You take the absolute value. That lets everything pass, and forgets both conditions.",
        ),
        Mistake(
            _negative_for_positive,
            "You let the negative gradients pass and stop the positive ones: the wrong way round.",
        ),
        Mistake(
            _off_for_on,
            "You let pass where `x` is *below* 0, where the ReLU was off: the wrong way round.",
        ),
        Mistake(
            _on_at_zero,
            "You let pass where `x` is exactly 0. There the ReLU puts out 0, and PyTorch takes its slope as 0 too: "
            "`x` has to be above.",
        ),
        Mistake(
            _one_of_both,
            "You let pass where *one* of the two is above 0. Both have to be: `&`, not `|`.",
        ),
        Mistake(
            _of_one_sign,
            "You ask whether the product is above 0. It also is where both are negative.",
        ),
        Mistake(
            _sign_for_on,
            "You multiply by the sign of `x`. Where the ReLU was off that is -1: the gradient passes there too, turned "
            "round.",
        ),
        Mistake(
            _smaller_of_both,
            "You hand on the smaller of the two. `x` only decides *whether* something passes, not how much.",
        ),
        Mistake(
            _passed_on_as_it_is,
            "You hand back all that comes. Guided backpropagation stops most of it: which numbers?",
        ),
        Mistake(
            _picked_out,
            "You pick the numbers that pass out of the tensor, and their places are lost. Keep the shape, with 0 where "
            "nothing passes.",
        ),
        Mistake(
            _asked_with_if,
            "`if` and `and` ask for one answer, and here there is one for each number. `&` compares number by number, "
            "each comparison in brackets.",
        ),
        Mistake(
            _brackets_around_comparisons,
            "`&` comes before `>` in Python: without brackets it is computed first, from `0 & x`. Put each comparison "
            "in brackets.",
        ),
    ),
    hints=(
        "`x > 0` is a tensor of truth values, one for each number. A gradient times it stays where it is true, and is "
        "0 where it is false.",
        "Two conditions, both needed. For the one about the gradient itself there is a shorter way: which function "
        "leaves what is above 0 and makes the rest 0?",
        "Both together: a ReLU of what comes back, times the truth values of the input.",
    ),
)


# --- 5.5: RISE ---------------------------------------------------------------------------------------------------


def _models_and_masks() -> dict[str, tuple[nn.Module, Tensor, Tensor, Tensor]]:
    random = torch.Generator().manual_seed(40)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    with torch.random.fork_rng(devices=[]):
        three = _smooth(3, 30, 4, seed=41, size=0.3)
        one = _smooth(2, 20, 3, seed=42, size=0.4).requires_grad_(False)
        two = _smooth(1, 24, 3, seed=43, size=0.4)
    return {
        "three pictures, masks of all shades": (
            three,
            uniform(3, 3, 5, 6),
            torch.tensor([3, 0, 2]),
            uniform(6, 5, 6).square(),
        ),
        "one picture, masks of 0 and 1, a frozen network": (
            one,
            uniform(1, 2, 4, 5) + 0.2,
            torch.tensor([1]),
            (uniform(5, 4, 5) < 0.4).float(),
        ),
        "two grey pictures, a single mask": (two, uniform(2, 1, 6, 4), torch.tensor([2, 0]), uniform(1, 6, 4)),
    }


def _rise(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    total = torch.zeros_like(images[:, 0])
    with torch.no_grad():
        for mask in masks:
            probabilities = model(images * mask).softmax(dim=1)
            scores = probabilities[torch.arange(len(images)), targets]
            total += scores[:, None, None] * mask
    return total / (len(masks) * masks.mean())


def _scores_of_masked(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    masks: Tensor,
    score: Score = _probability,
    cover: Callable[[Tensor, Tensor], Tensor] = torch.mul,
) -> Tensor:
    """The score of each picture under each mask: (N, M)."""
    with torch.no_grad():
        return torch.stack([score(model(cover(images, mask)), targets) for mask in masks], dim=1)


def _weighed(scores: Tensor, masks: Tensor) -> Tensor:
    return torch.einsum("nm,mhw->nhw", scores, masks)


def _rise_at_once(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    masked = (images[:, None] * masks[None, :, None]).flatten(0, 1)
    scores = _probability(model(masked).detach(), targets.repeat_interleave(len(masks)))
    return _weighed(scores.view(len(images), -1), masks) / masks.mean(dim=(1, 2)).sum()


def _rise_picture_by_picture(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    maps = []
    for image, target in zip(images, targets.tolist(), strict=True):
        chances = model(image * masks[:, None]).detach().softmax(dim=1)[:, target]
        maps.append((chances[:, None, None] * masks).mean(dim=0) / masks.mean())
    return torch.stack(maps)


def _of_logits(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _weighed(_scores_of_masked(model, images, targets, masks, _logit), masks) / (len(masks) * masks.mean())


def _of_log_probabilities(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks, _log_probability)
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _softmax_over_pictures(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks, lambda logits, t: _logit(logits.softmax(dim=0), t))
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _not_divided(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _weighed(_scores_of_masked(model, images, targets, masks), masks)


def _number_of_masks_only(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _weighed(_scores_of_masked(model, images, targets, masks), masks) / len(masks)


def _mean_of_masks_only(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _weighed(_scores_of_masked(model, images, targets, masks), masks) / masks.mean()


def _divided_at_each_pixel(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _weighed(_scores_of_masked(model, images, targets, masks), masks) / masks.sum(dim=0).clamp(min=1e-6)


def _divided_by_everything(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _weighed(_scores_of_masked(model, images, targets, masks), masks) / masks.sum()


def _divided_by_scores(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks)
    return _weighed(scores / scores.sum(dim=1, keepdim=True), masks)


def _covered_where_shown(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, 1 - masks)
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _weighed_where_covered(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _weighed(_scores_of_masked(model, images, targets, masks), 1 - masks) / (len(masks) * masks.mean())


def _mask_added(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks, cover=torch.add)
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _grey_instead_of_black(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks, cover=lambda x, mask: x * mask + 0.5 * (1 - mask))
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _pictures_not_masked(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks, cover=lambda x, mask: x)
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _drop_of_the_score(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    clean = _probability(model(images).detach(), targets)[:, None]
    drops = clean - _scores_of_masked(model, images, targets, masks)
    return _weighed(drops, masks) / (len(masks) * masks.mean())


def _rise_of_first_target(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    return _rise(model, images, targets[:1].expand(len(images)), masks)


def _rise_of_each_others_targets(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks, lambda x, t: _each_others_targets(x.softmax(dim=1), t))
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _rise_of_winner(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks, lambda x, t: _winner(x.softmax(dim=1), t))
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _rise_targets_in_another_order(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    masked = (images[:, None] * masks[None, :, None]).flatten(0, 1)
    scores = _probability(model(masked).detach(), targets.repeat(len(masks)))
    return _weighed(scores.view(len(images), -1), masks) / (len(masks) * masks.mean())


def _scores_in_another_order(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks).T.reshape(len(images), -1)
    return _weighed(scores, masks) / (len(masks) * masks.mean())


def _last_mask_only(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    scores = _scores_of_masked(model, images, targets, masks[-1:])
    return _weighed(scores, masks[-1:]) / (len(masks) * masks.mean())


def _rise_brought_to_one(model: nn.Module, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    maps = _rise(model, images, targets, masks)
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low)


_RISE = Exercise(
    name="rise_maps",
    number="5.5",
    title="RISE: ask with masks, without a gradient",
    prompt="For pictures (N, C, H, W), targets (N,) and masks (M, H, W) in [0, 1], return the maps (N, H, W): each "
    "mask counts as much as the probability that the network gives to the picture's target when the picture is "
    "multiplied by that mask; the sum is divided by M times the mean of all masks' numbers.",
    reference=_rise,
    cases=_models_and_masks,
    alternatives=(_rise_at_once, _rise_picture_by_picture),
    mistakes=(
        Mistake(
            _of_logits,
            "You weigh the masks by logits. They may be negative, and their zero means nothing: here, for once, the "
            "probability is asked for, behind the softmax.",
        ),
        Mistake(
            _of_log_probabilities,
            "You weigh the masks by logarithms: these are all negative, and a mask that ruins the answer gets the "
            "largest. Take the probability itself.",
        ),
        Mistake(
            _softmax_over_pictures,
            "Your softmax runs over the pictures. The probabilities of the *classes* of one picture add up to 1.",
        ),
        Mistake(
            _not_divided,
            "You only add up: with twice as many masks the map would be twice as bright. Divide by what is expected of "
            "the masks alone, M times their mean.",
        ),
        Mistake(
            _number_of_masks_only,
            "You divide by the number of masks only: masks that show little of the picture would make a faint map. "
            "Divide by their mean as well.",
        ),
        Mistake(
            _mean_of_masks_only,
            "You divide by the mean of the masks only: with twice as many masks the map would be twice as bright. "
            "Divide by their number as well.",
        ),
        Mistake(
            _divided_at_each_pixel,
            "You divide at each pixel by how often it was shown. That evens out chance, and is a sensible map too; in "
            "the formula there is one number for all pixels.",
        ),
        Mistake(
            _divided_by_everything,
            "You divide by the sum of all masks' numbers. Asked is M times their *mean*: your map is too faint by as "
            "many times as a picture has pixels.",
        ),
        Mistake(
            _divided_by_scores,
            "You divide by the sum of the probabilities. Then a picture in which the class is hardly seen gets as "
            "strong a map as one that is full of it. Divide by what belongs to the masks.",
        ),
        Mistake(
            _covered_where_shown,
            "You show what the mask covers, and give the score to what it shows. Multiply the picture by the mask "
            "itself.",
        ),
        Mistake(
            _weighed_where_covered,
            "You give the score to what was covered. What was *seen* has earned it: weigh the mask itself.",
        ),
        Mistake(
            _mask_added,
            "You add the mask to the picture: that makes it brighter and covers nothing. Multiply.",
        ),
        Mistake(
            _grey_instead_of_black,
            "You fill what is covered with grey, as one may for occlusion. Here the picture is only multiplied: what "
            "is covered becomes black.",
        ),
        Mistake(
            _pictures_not_masked,
            "The model sees the whole picture every time, so that all masks count the same. Does it see the masked "
            "one?",
        ),
        Mistake(
            _drop_of_the_score,
            "You take by how much the probability falls, as occlusion does. But here the score goes to what *shows*, "
            "and has to be high where the class is still seen.",
        ),
        Mistake(
            _rise_of_first_target,
            "You ask for the first picture's target in all pictures. Each has a target of its own.",
        ),
        Mistake(
            _rise_of_each_others_targets,
            "`[:, targets]` is (N, N): in every picture the probabilities of *everybody's* targets. Pick one in each "
            "row, with `gather` or with two lists of indices.",
        ),
        Mistake(
            _rise_of_winner,
            "You take the probability of the class that wins under each mask. That is another one under another mask. "
            "Asked are the classes in `targets`.",
        ),
        Mistake(
            _rise_targets_in_another_order,
            "Pictures and targets do not match. Flattened, (N, M, ...) counts all masks of the first picture, then all "
            "of the second: `repeat_interleave` puts the targets into the same order, `repeat` into the other.",
        ),
        Mistake(
            _scores_in_another_order,
            "The probabilities are right, but they end up with other pictures: (M, N) becomes (N, M) by a transpose. "
            "`reshape` and `view` leave the numbers in their old order.",
        ),
        Mistake(
            _last_mask_only,
            "Only the last mask arrives: each turn of the loop overwrites the one before. Add up.",
        ),
        Mistake(
            _rise_brought_to_one,
            "You stretch each map from 0 to 1. For a figure that is fine; asked is the map as large as the formula "
            "gives it.",
        ),
    ),
    hints=(
        "Go through the masks. `images * mask` is (N, C, H, W): a mask (H, W) broadcasts over pictures and channels.",
        "The softmax over the classes, `softmax(dim=1)`, then one probability in each row, the target's, as in 5.1. "
        "Nothing is differentiated: `torch.no_grad()` saves time.",
        "To weigh a mask (H, W) by the probabilities (N,), make these (N, 1, 1): then the product is (N, H, W). Add it "
        "to the total.",
        "At the end divide by `len(masks)` and by the mean of all numbers of all masks.",
    ),
)


# --- 5.6: how alike are two maps? --------------------------------------------------------------------------------


def _pairs_of_maps() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(50)

    def uneven(*shape: int) -> Tensor:
        return torch.exp(1.5 * torch.randn(*shape, generator=random))

    first = uneven(3, 4, 5)
    near = torch.stack([first[0] * uneven(4, 5).sqrt(), uneven(4, 5), 1 / first[2] * uneven(4, 5).sqrt().sqrt()])
    first[1, :2] *= 100  # of two sizes, with the other pictures' numbers in between
    first[2] = first[2] * 3 + 10
    steep = torch.randn(2, 3, 4, generator=random)
    signed = torch.randn(1, 5, 6, generator=random)
    return {
        "three pairs: much alike, unlike, nearly opposite": (first, near),
        "maps whose order is the same, or just the opposite": (
            steep,
            torch.stack([(3 * steep[0]).exp(), -(steep[1] ** 3)]),
        ),
        "a single pair of signed maps": (signed, signed + 0.8 * torch.randn(1, 5, 6, generator=random)),
    }


def _ranks(maps: Tensor) -> Tensor:
    return maps.flatten(1).argsort(dim=1).argsort(dim=1).float()


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    first, second = (x - x.mean(dim=1, keepdim=True) for x in (first, second))
    return (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1))


def _rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    # The place of each pixel in the order; argsort says the reverse, which pixel is at each place: so twice.
    a, b = (maps.flatten(1).argsort(dim=1).argsort(dim=1).float() for maps in (first, second))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (a * b).sum(dim=1) / (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()


def _by_differences(first: Tensor, second: Tensor) -> Tensor:
    n = first[0].numel()
    return 1 - 6 * (_ranks(first) - _ranks(second)).square().sum(dim=1) / (n * (n**2 - 1))


def _by_counting(first: Tensor, second: Tensor) -> Tensor:
    found = []
    for pair in zip(first.flatten(1), second.flatten(1), strict=True):
        ranks = [(values[:, None] > values).sum(dim=1).float() for values in pair]
        found.append(torch.corrcoef(torch.stack(ranks))[0, 1])
    return torch.stack(found)


def _by_writing_ranks(first: Tensor, second: Tensor) -> Tensor:
    count = torch.arange(first[0].numel()).float().expand(len(first), -1)
    a, b = (torch.zeros_like(count).scatter(1, maps.flatten(1).argsort(dim=1), count) for maps in (first, second))
    return functional.cosine_similarity(a - a.mean(), b - b.mean(), dim=1)


def _of_values(first: Tensor, second: Tensor) -> Tensor:
    return _pearson(first.flatten(1), second.flatten(1))


def _sorted_once(first: Tensor, second: Tensor) -> Tensor:
    return _pearson(*(maps.flatten(1).argsort(dim=1).float() for maps in (first, second)))


def _of_sorted_values(first: Tensor, second: Tensor) -> Tensor:
    return _pearson(*(maps.flatten(1).sort(dim=1).values for maps in (first, second)))


def _ranks_in_the_batch(first: Tensor, second: Tensor) -> Tensor:
    a, b = (maps.flatten().argsort().argsort().float().view(len(maps), -1) for maps in (first, second))
    return _pearson(a, b)


def _ranks_in_each_row(first: Tensor, second: Tensor) -> Tensor:
    a, b = (maps.argsort(dim=-1).argsort(dim=-1).float().flatten(1) for maps in (first, second))
    return _pearson(a, b)


def _covariance_of_ranks(first: Tensor, second: Tensor) -> Tensor:
    a, b = (ranks - ranks.mean(dim=1, keepdim=True) for ranks in (_ranks(first), _ranks(second)))
    return (a * b).mean(dim=1)


def _sum_of_products(first: Tensor, second: Tensor) -> Tensor:
    a, b = (ranks - ranks.mean(dim=1, keepdim=True) for ranks in (_ranks(first), _ranks(second)))
    return (a * b).sum(dim=1)


def _not_centred(first: Tensor, second: Tensor) -> Tensor:
    return functional.cosine_similarity(_ranks(first), _ranks(second), dim=1)


def _cosine_of_values(first: Tensor, second: Tensor) -> Tensor:
    return functional.cosine_similarity(first.flatten(1), second.flatten(1), dim=1)


def _one_less_below(first: Tensor, second: Tensor) -> Tensor:
    n = first[0].numel()
    return _rank_correlation(first, second) * (n - 1) / n


def _one_less_above(first: Tensor, second: Tensor) -> Tensor:
    n = first[0].numel()
    return _rank_correlation(first, second) * n / (n - 1)


def _other_way_round(first: Tensor, second: Tensor) -> Tensor:
    return -_rank_correlation(first, second)


def _mean_of_pairs(first: Tensor, second: Tensor) -> Tensor:
    return _rank_correlation(first, second).mean()


def _all_pixels_together(first: Tensor, second: Tensor) -> Tensor:
    return _rank_correlation(first.flatten()[None], second.flatten()[None])[0]


def _how_unlike(first: Tensor, second: Tensor) -> Tensor:
    return 1 - _rank_correlation(first, second)


def _six_forgotten(first: Tensor, second: Tensor) -> Tensor:
    n = first[0].numel()
    return 1 - (_ranks(first) - _ranks(second)).square().sum(dim=1) / (n * (n**2 - 1))


def _pictures_for_pixels(first: Tensor, second: Tensor) -> Tensor:
    n = first.shape[-1]
    return 1 - 6 * (_ranks(first) - _ranks(second)).square().sum(dim=1) / (n * (n**2 - 1))


def _without_sign(first: Tensor, second: Tensor) -> Tensor:
    return _rank_correlation(first, second).abs()


def _squared(first: Tensor, second: Tensor) -> Tensor:
    return _rank_correlation(first, second).square()


def _squares_below(first: Tensor, second: Tensor) -> Tensor:
    a, b = (ranks - ranks.mean(dim=1, keepdim=True) for ranks in (_ranks(first), _ranks(second)))
    return (a * b).sum(dim=1) / (a.square().sum(dim=1) * b.square().sum(dim=1))


def _whole_table(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([torch.corrcoef(torch.stack(pair)) for pair in zip(_ranks(first), _ranks(second), strict=True)])


def _mean_of_whole_numbers(first: Tensor, second: Tensor) -> Tensor:
    ranks = first.flatten(1).argsort(dim=1).argsort(dim=1)
    return ranks - ranks.mean(dim=1, keepdim=True)


_RANK_CORRELATION = Exercise(
    name="rank_correlation",
    number="5.6",
    title="How alike are two maps?",
    prompt="For two stacks of maps (N, H, W), return the rank correlation of each pair, (N,): the correlation "
    "coefficient of the pixels' ranks, where each map's pixels are ranked among themselves. No two are equal.",
    reference=_rank_correlation,
    cases=_pairs_of_maps,
    alternatives=(_by_differences, _by_counting, _by_writing_ranks),
    bounds=(-1.0, 1.0),
    mistakes=(
        Mistake(
            _of_values,
            "This is the correlation of the values. A single bright pixel can decide it. Replace each value by its "
            "rank first.",
        ),
        Mistake(
            _sorted_once,
            "`argsort` is not the rank: it says *which pixel* stands at each place of the order. The rank says at "
            "which place each pixel stands. What does `argsort` of that order give?",
        ),
        Mistake(
            _of_sorted_values,
            "You sort the values, and with that you lose which pixel is which: two sorted lists are always alike. "
            "Ranks stay at their pixels.",
        ),
        Mistake(
            _ranks_in_the_batch,
            "You rank the pixels of all pictures together. Each map's pixels are ranked among themselves: flatten all "
            "but the first dimension.",
        ),
        Mistake(
            _ranks_in_each_row,
            "You rank the pixels within each row. `argsort` works along one dimension: make one of rows and columns "
            "first, with `flatten(1)`.",
        ),
        Mistake(
            _covariance_of_ranks,
            "This is the covariance of the ranks. It grows with the size of the maps: divide by both standard "
            "deviations.",
        ),
        Mistake(
            _sum_of_products,
            "This is the sum of the products only. It grows with the size of the maps: divide by the lengths of both "
            "centred lists of ranks.",
        ),
        Mistake(
            _not_centred,
            "You take the cosine of the ranks as they are. They are never negative, so that even opposite maps come "
            "out alike: take the mean off first.",
        ),
        Mistake(
            _cosine_of_values,
            "This is the cosine of the values. Replace each value by its rank, and take the mean off.",
        ),
        Mistake(
            _one_less_below,
            "Nearly: equal maps should give exactly 1, and yours give a little less. Your covariance is divided by n, "
            "and your standard deviations by n - 1. Both alike, or neither.",
        ),
        Mistake(
            _one_less_above,
            "Nearly: equal maps should give exactly 1, and yours give a little more. Your covariance is divided by "
            "n - 1, and your standard deviations by n. Both alike, or neither.",
        ),
        Mistake(
            _other_way_round,
            "The sign is turned round. Did you rank one of the two downwards?",
        ),
        Mistake(
            _mean_of_pairs,
            "You take the mean over the pairs. Each pair has its own number.",
        ),
        Mistake(
            _all_pixels_together,
            "You throw the pixels of all pictures together. Each pair of maps has its own number: keep the first "
            "dimension.",
        ),
        Mistake(
            _how_unlike,
            "This is 0 for equal maps and 2 for opposite ones: it says how *unlike* they are. Something is still to be "
            "subtracted from 1.",
        ),
        Mistake(
            _six_forgotten,
            "In the formula with the squared differences a factor of 6 is missing. Try it on a map and its opposite: "
            "what should come out?",
        ),
        Mistake(
            _pictures_for_pixels,
            "In the formula with the squared differences, n is the number of pixels of a map, rows times columns. You "
            "took another size.",
        ),
        Mistake(
            _without_sign,
            "The sign is lost. Maps that are just the opposite of each other should give -1.",
        ),
        Mistake(
            _squared,
            "This is the square of the correlation, and opposite maps come out as if they were equal.",
        ),
        Mistake(
            _squares_below,
            "You divide by the sums of squares. The length of a list is the *root* of that.",
        ),
        Mistake(
            _whole_table,
            "`corrcoef` returns a table: each list with each, and with itself. One number of the four is what you "
            "want.",
        ),
        Mistake(
            _mean_of_whole_numbers,
            "Ranks are whole numbers, and PyTorch takes no mean of those. Make them `.float()` first.",
        ),
    ),
    hints=(
        "Flatten each map to one list: `maps.flatten(1)` is (N, H*W).",
        "`order = values.argsort(dim=1)` says which pixel comes at each place. The rank is the reverse, the place of "
        "each pixel: `argsort` of an order gives that.",
        "Take the mean off both lists of ranks (as `.float()`). Then the correlation is their cosine: sum of the "
        "products, divided by both lengths.",
    ),
)


# --- 5.7: does the map lie on the thing? -------------------------------------------------------------------------


def _maps_and_masks() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(60)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    masks = torch.zeros(4, 5, 6)
    masks[0, 1:3, 2:5] = 1
    masks[1, :, :3] = 1
    masks[1, 4] = 1
    masks[2, 0, 5] = 1
    masks[3, 2:, 1:5] = 1
    maps = uniform(4, 5, 6).square()
    maps[0] += masks[0]
    maps[2] *= 1 - 0.7 * masks[2]
    maps[3] = 0.4  # an even map
    several = (uniform(3, 6, 4) < 0.35).float()
    faint = uniform(3, 6, 4) * torch.tensor([1.0, 0.0, 0.02]).view(3, 1, 1)
    several[1, 0, 0] = 1
    whole = uniform(2, 3, 4)
    inside = torch.ones(2, 3, 4)
    inside[1, :, :2] = 0
    whole[1] *= 1 - inside[1]
    return {
        "four maps, the last of them even": (maps, masks),
        "three maps, the second of zeros, the third faint": (faint, several),
        "a mask of all pixels, and one with nothing inside": (whole, inside),
    }


def _share_inside(maps: Tensor, masks: Tensor) -> Tensor:
    total = maps.sum(dim=(1, 2))
    inside = (maps * masks).sum(dim=(1, 2))
    share = torch.where(total > 0, inside / total.clamp(min=1e-12), 0.0)
    return share / masks.mean(dim=(1, 2))


def _by_means(maps: Tensor, masks: Tensor) -> Tensor:
    inside = (maps * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    return torch.nan_to_num(inside / maps.mean(dim=(1, 2)), nan=0.0)


def _picture_by_picture(maps: Tensor, masks: Tensor) -> Tensor:
    found = []
    for one, mask in zip(maps, masks, strict=True):
        total = one.sum().item()
        share = one[mask > 0].sum().item() / total if total > 0 else 0.0
        found.append(share * mask.numel() / mask.sum().item())
    return torch.tensor(found)


def _inside(maps: Tensor, masks: Tensor) -> Tensor:
    return (maps * masks).sum(dim=(1, 2))


def _share_of(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1e-12), 0.0)


def _bare_share(maps: Tensor, masks: Tensor) -> Tensor:
    return _share_of(_inside(maps, masks), maps.sum(dim=(1, 2)))


def _area_by_share(maps: Tensor, masks: Tensor) -> Tensor:
    return masks.mean(dim=(1, 2)) / _bare_share(maps, masks)


def _share_times_area(maps: Tensor, masks: Tensor) -> Tensor:
    return _bare_share(maps, masks) * masks.mean(dim=(1, 2))


def _share_minus_area(maps: Tensor, masks: Tensor) -> Tensor:
    return _bare_share(maps, masks) - masks.mean(dim=(1, 2))


def _number_for_share(maps: Tensor, masks: Tensor) -> Tensor:
    return _bare_share(maps, masks) / masks.sum(dim=(1, 2))


def _inside_by_outside(maps: Tensor, masks: Tensor) -> Tensor:
    within = _inside(maps, masks) / masks.sum(dim=(1, 2))
    without = _inside(maps, 1 - masks) / (1 - masks).sum(dim=(1, 2))
    return within / without


def _sums_inside_by_outside(maps: Tensor, masks: Tensor) -> Tensor:
    return _inside(maps, masks) / _inside(maps, 1 - masks)


def _by_the_rest_of_the_map(maps: Tensor, masks: Tensor) -> Tensor:
    return _inside(maps, masks) / _inside(maps, 1 - masks) / masks.mean(dim=(1, 2))


def _of_the_whole_batch(maps: Tensor, masks: Tensor) -> Tensor:
    return _inside(maps, masks) / maps.sum() / masks.mean(dim=(1, 2))


def _batch_as_one(maps: Tensor, masks: Tensor) -> Tensor:
    return (maps * masks).sum() / maps.sum() / masks.mean()


def _mean_of_all(maps: Tensor, masks: Tensor) -> Tensor:
    return _share_inside(maps, masks).mean()


def _one_area_for_all(maps: Tensor, masks: Tensor) -> Tensor:
    return _bare_share(maps, masks) / masks.mean()


def _largest_pixel(maps: Tensor, masks: Tensor) -> Tensor:
    return masks.flatten(1).gather(1, maps.flatten(1).argmax(dim=1, keepdim=True))[:, 0]


def _nothing_by_nothing(maps: Tensor, masks: Tensor) -> Tensor:
    return _inside(maps, masks) / maps.sum(dim=(1, 2)) / masks.mean(dim=(1, 2))


def _one_for_nothing(maps: Tensor, masks: Tensor) -> Tensor:
    return torch.nan_to_num(_nothing_by_nothing(maps, masks), nan=1.0)


def _outside_for_inside(maps: Tensor, masks: Tensor) -> Tensor:
    outside = _share_of(_inside(maps, 1 - masks), maps.sum(dim=(1, 2)))
    return outside / (1 - masks).mean(dim=(1, 2))


def _outside_by_area(maps: Tensor, masks: Tensor) -> Tensor:
    return _share_of(_inside(maps, 1 - masks), maps.sum(dim=(1, 2))) / masks.mean(dim=(1, 2))


def _sum_inside(maps: Tensor, masks: Tensor) -> Tensor:
    return _inside(maps, masks)


def _mean_inside(maps: Tensor, masks: Tensor) -> Tensor:
    return _inside(maps, masks) / masks.sum(dim=(1, 2))


def _asked_whether_empty(maps: Tensor, masks: Tensor) -> Tensor:
    total = maps.sum(dim=(1, 2))
    if total == 0:
        return torch.zeros_like(total)
    return _inside(maps, masks) / total / masks.mean(dim=(1, 2))


def _masks_as_indices(maps: Tensor, masks: Tensor) -> Tensor:
    return maps[masks].sum() / maps.sum()


_SHARE_INSIDE = Exercise(
    name="share_inside",
    number="5.7",
    title="Does the map lie on the thing?",
    prompt="For maps (N, H, W) of numbers that are 0 or more, and masks (N, H, W) of 0 and 1, return for each the "
    "share of the map's sum that lies inside its mask, divided by the share of the pixels that the mask covers, (N,); "
    "0 for a map of zeros.",
    reference=_share_inside,
    cases=_maps_and_masks,
    alternatives=(_by_means, _picture_by_picture),
    mistakes=(
        Mistake(
            _bare_share,
            "This is the share that lies inside. A large mask catches much of any map: divide by the share of the "
            "pixels that it covers.",
        ),
        Mistake(
            _area_by_share,
            "The quotient stands on its head: the better the map lies, the smaller your number.",
        ),
        Mistake(
            _share_times_area,
            "You multiply by the share of the pixels: large masks count twice then. An even map should get 1, whatever "
            "the mask.",
        ),
        Mistake(
            _share_minus_area,
            "You subtract the share of the pixels. Asked is how many *times* as much lies inside as in an even map: "
            "divide.",
        ),
        Mistake(
            _number_for_share,
            "You divide by the number of pixels inside the mask. Asked is their share of all pixels: an even map "
            "should get 1.",
        ),
        Mistake(
            _inside_by_outside,
            "You compare the mean inside with the mean *outside*. That has no end where little lies outside. Compare "
            "inside with the whole.",
        ),
        Mistake(
            _sums_inside_by_outside,
            "You divide what lies inside by what lies outside. A share is a part of the whole; and the size of the "
            "mask has to count too.",
        ),
        Mistake(
            _by_the_rest_of_the_map,
            "You divide what lies inside by what lies *outside*. A share is a part of the whole: divide by the sum of "
            "the map.",
        ),
        Mistake(
            _of_the_whole_batch,
            "You divide by the sum of all maps together. Each map is a whole of its own: a bright neighbour must not "
            "change its share.",
        ),
        Mistake(
            _batch_as_one,
            "You throw all maps together. One number for each is wanted: add up over rows and columns only.",
        ),
        Mistake(
            _mean_of_all,
            "You take the mean over the maps. One number for each is wanted.",
        ),
        Mistake(
            _one_area_for_all,
            "You divide by the mean of all masks. Each mask has a size of its own.",
        ),
        Mistake(
            _largest_pixel,
            "You ask whether the strongest pixel lies inside, yes or no. Literature has that too, as the pointing "
            "game; asked is how much of the *whole* map lies there.",
        ),
        Mistake(
            _nothing_by_nothing,
            "Right, but for a map of zeros you divide 0 by 0, which gives NaN. Such a map finds nothing: return 0 for "
            "it.",
        ),
        Mistake(
            _one_for_nothing,
            "Right, but you give a map of zeros a 1, as if it were even. It finds nothing: return 0 for it.",
        ),
        Mistake(
            _outside_for_inside,
            "You measure outside the mask: it is 1 where the thing is.",
        ),
        Mistake(
            _outside_by_area,
            "You add up what lies outside the mask: it is 1 where the thing is.",
        ),
        Mistake(
            _sum_inside,
            "This is the sum inside the mask. A map that is brighter all over would get more: divide by the map's own "
            "sum, and by the share of the pixels.",
        ),
        Mistake(
            _mean_inside,
            "This is the mean inside the mask. A map that is brighter all over would get more: what is its mean over "
            "all pixels?",
        ),
        Mistake(
            _asked_whether_empty,
            "`if` asks for one answer, and there is a sum for each map. `torch.where` chooses for each by itself.",
        ),
        Mistake(
            _masks_as_indices,
            "These masks are numbers, 0 and 1, and no truth values: PyTorch cannot index with them. Multiply by them; "
            "that keeps the pictures apart, too.",
        ),
    ),
    hints=(
        "Multiply the map by its mask: what is outside becomes 0. Then add up over rows and columns, "
        "`sum(dim=(1, 2))`: (N,).",
        "The share of the pixels that a mask of 0 and 1 covers is its mean.",
        "For a map of zeros the sum is 0. `torch.where`, or a tiny number that a sum is never allowed to go below "
        "(`.clamp(min=1e-12)`), avoids 0 / 0.",
    ),
)

EXERCISES = (
    _SALIENCY_MAP,
    _SMOOTH_GRAD,
    _INTEGRATED_GRADIENTS,
    _GUIDED_RULE,
    _RISE,
    _RANK_CORRELATION,
    _SHARE_INSIDE,
)
