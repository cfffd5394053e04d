"""The exercises of chapter 4, Class maximization."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exercise import Exercise, Mistake

# --- 4.1: the gradient of a class, and of what is held against it ------------------------------------------------


def _scores_and_images() -> dict[str, tuple[nn.Module, Tensor, int, float]]:
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made: not from the reader's numbers
        three = _random_classifier(5, 6, classes=5, seed=1)
        one = _random_classifier(6, 4, classes=3, seed=2).requires_grad_(False)
    return {
        "three pictures and five classes": (three, torch.rand(3, 3, 5, 6, generator=random) - 0.4, 1, 0.2),
        "one picture and a frozen network": (one, torch.rand(1, 3, 6, 4, generator=random) - 0.6, 0, 2.0),
    }


def _random_classifier(height: int, width: int, *, classes: int, seed: int) -> nn.Sequential:
    random = torch.Generator().manual_seed(seed)
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * height * width, classes))
    network = nn.Sequential(*layers)
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=random)
    return network.eval()


def _class_gradient(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    images = images.detach().requires_grad_()
    # The score before the softmax: it says what speaks for this class, not what speaks against the others.
    wanted = score(images)[:, target]
    penalty = strength * images.square().sum(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad((wanted - penalty).sum(), images)
    return gradient


def _penalty_by_hand(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) - 2 * strength * images


def _class_picture_by_picture(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    gradients = []
    for image in images:
        pixels = image.clone().requires_grad_()
        objective = score(pixels[None])[0, target] - strength * pixels.norm() ** 2
        objective.backward(inputs=[pixels])
        gradients.append(pixels.grad)
    return torch.stack(gradients)  # type: ignore[arg-type]


def _of(images: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
    pixels = images.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(pixels).sum(), pixels)
    return gradient


def _probability(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels).softmax(dim=1)[:, target]) - 2 * strength * images


def _log_probability(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels).log_softmax(dim=1)[:, target]) - 2 * strength * images


def _loss_that_falls(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return -_log_probability(score, images, target, strength)


def _penalty_added(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) + 2 * strength * images


def _factor_forgotten(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) - strength * images


def _norm_not_squared(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target] - strength * pixels.flatten(1).norm(dim=1))


def _norm_of_the_batch(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) - strength * images / images.norm()


def _mean_of_squares(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) - 2 * strength * images / images[0].numel()


def _sum_of_sizes(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) - strength * images.sign()


def _centred_again(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) - 2 * strength * (images - 0.5)


def _own_mean_removed(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    return _of(images, lambda pixels: score(pixels)[:, target]) - 2 * strength * (images - middle)


def _predicted_class(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels).amax(dim=1)) - 2 * strength * images


def _all_classes(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels).sum(dim=1)) - 2 * strength * images


def _picture_for_class(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[target]) - 2 * strength * images


def _over_the_batch(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _class_gradient(score, images, target, strength) / len(images)


def _score_over_the_batch(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target]) / len(images) - 2 * strength * images


def _penalty_alone(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return -2 * strength * images


def _score_alone(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _of(images, lambda pixels: score(pixels)[:, target])


def _strength_of_both(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return strength * _class_gradient(score, images, target, 1.0)


def _strength_forgotten(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _class_gradient(score, images, target, 1.0)


def _way_down(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return -_class_gradient(score, images, target, strength)


def _signs_lost(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    return _class_gradient(score, images, target, strength).abs()


def _penalty_without_a_gradient(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    penalty = strength * images.square().sum(dim=(1, 2, 3)).view(-1, 1, 1, 1)
    return _of(images, lambda pixels: score(pixels)[:, target]) - penalty


def _objective_itself(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    with torch.no_grad():
        wanted: Tensor = score(images)[:, target] - strength * images.square().sum(dim=(1, 2, 3))
    return wanted


def _nobody_asked(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    objective = score(images)[:, target] - strength * images.square().sum(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad(objective.sum(), images)
    return gradient


def _not_one_number(score: nn.Module, images: Tensor, target: int, strength: float) -> Tensor:
    images = images.clone().requires_grad_()
    objective = score(images)[:, target] - strength * images.square().sum(dim=(1, 2, 3))
    return torch.autograd.grad(objective, images)[0]


_CLASS_GRADIENT = Exercise(
    name="class_gradient",
    number="4.1",
    title="Simonyan's gradient",
    prompt="Return the gradient of a class's score minus `strength` times the squared norm of the picture, with "
    "respect to the pixels, (N, 3, H, W).",
    reference=_class_gradient,
    cases=_scores_and_images,
    alternatives=(_penalty_by_hand, _class_picture_by_picture),
    mistakes=(
        Mistake(
            _probability,
            "You take the probability, behind the softmax. It rises also where the *other* classes fall, and has "
            "hardly any gradient where it is near 0 or 1. Take the score before the softmax.",
        ),
        Mistake(
            _log_probability,
            "You take the logarithm of the probability, as the loss in training does. It rises also where the *other* "
            "classes fall. Take the score before the softmax.",
        ),
        Mistake(
            _loss_that_falls,
            "You take the cross-entropy loss of training, in which all classes have a say, and the way down besides. "
            "Here the class's own score has to rise.",
        ),
        Mistake(
            _penalty_added,
            "Your penalty is a reward: it pushes the pixels away from 0, and the picture grows without end. Subtract "
            "it.",
        ),
        Mistake(
            _factor_forgotten,
            "The penalty pulls half as strongly as it should. What is the derivative of a square?",
        ),
        Mistake(
            _norm_not_squared,
            "You take the norm and not its square: it pulls every picture equally, however far from 0 it is. Asked is "
            "the squared norm.",
        ),
        Mistake(
            _norm_of_the_batch,
            "You take one norm, that of all pictures together, and not its square. Asked is the squared norm of each "
            "picture.",
        ),
        Mistake(
            _mean_of_squares,
            "You take the mean of the squares. The squared norm is their sum: with the mean, the penalty is too weak "
            "by as many times as the picture has numbers.",
        ),
        Mistake(
            _sum_of_sizes,
            "You add up absolute values. That pulls every number equally hard, however large it is, and is another "
            "norm. Asked is the sum of the squares.",
        ),
        Mistake(
            _centred_again,
            "You subtract 0.5 once more. These pictures are centred already: 0 *is* the grey that the penalty pulls "
            "to, and your penalty pulls to something brighter.",
        ),
        Mistake(
            _own_mean_removed,
            "You take out each picture's own mean first: then a picture may become as bright as it likes without a "
            "penalty. Take the pixels as they are.",
        ),
        Mistake(
            _predicted_class,
            "You take the class that the network likes best at the moment. The one that is asked for is `target`.",
        ),
        Mistake(
            _all_classes,
            "You add up the scores of all classes. One of them is asked for.",
        ),
        Mistake(
            _picture_for_class,
            "You take `target` for the number of a picture. Logits are (N, K): pictures come first, classes second.",
        ),
        Mistake(
            _over_the_batch,
            "You take the mean over the pictures: in a batch of N pictures each gradient comes out N times too small. "
            "What a picture's gradient is must not depend on how many others come with it.",
        ),
        Mistake(
            _score_over_the_batch,
            "You take the mean of the scores but the sum of the penalties: in a batch of N pictures the score counts N "
            "times too little. Treat both alike.",
        ),
        Mistake(
            _penalty_alone,
            "Only the penalty arrives: every picture is pulled to grey, and the class has no say.",
        ),
        Mistake(
            _score_alone,
            "Only the score arrives. Where is what is held against it, `strength` times the squared norm?",
        ),
        Mistake(
            _strength_of_both,
            "You multiply the score by `strength` as well. It belongs to the penalty: check your brackets.",
        ),
        Mistake(_strength_forgotten, "You do not use `strength`: it says how much the penalty counts."),
        Mistake(_way_down, "This is the way down: minus the gradient. The score has to rise, the norm to fall."),
        Mistake(_signs_lost, "The signs are lost: whether a pixel should become brighter or darker is what you ask."),
        Mistake(
            _penalty_without_a_gradient,
            "You subtract the penalty itself from the gradient of the score: every pixel becomes darker by the same. "
            "The penalty needs a gradient too: subtract first, then differentiate.",
        ),
        Mistake(
            _objective_itself,
            "This is the objective, one number a picture. Asked is how it changes with each pixel: its gradient.",
        ),
        Mistake(
            _nobody_asked,
            "PyTorch keeps a record of what was computed only from tensors that ask for it, and these pictures do "
            "not. Let a copy of them ask, with `requires_grad_()`, before you compute anything.",
        ),
        Mistake(
            _not_one_number,
            "There is one objective for each picture, and PyTorch differentiates one number. Which single number has "
            "the right gradient for every picture, if no picture's objective depends on another's pixels?",
        ),
    ),
    hints=(
        "Build the objective first, one number a picture: the class's score, minus the penalty.",
        "The squared norm of a picture is the sum of the squares of all its numbers: `.square().sum(dim=(1, 2, 3))`.",
        "Add the objectives up over the batch, and `torch.autograd.grad` does the rest, the penalty included. Check by "
        "hand: what does the penalty alone give?",
    ),
)


# --- 4.2: a blur -------------------------------------------------------------------------------------------------


def _pictures_and_sigmas() -> dict[str, tuple[Tensor, float]]:
    random = torch.Generator().manual_seed(3)
    return {
        "two colour pictures, sigma 1.5": (torch.rand(2, 3, 9, 11, generator=random), 1.5),
        "one picture, sigma 0.5": (torch.rand(1, 3, 7, 6, generator=random), 0.5),
        "an even grey": (torch.full((1, 3, 8, 7), 0.5), 0.8),
        # The reach by another rule, `int(3 * sigma) + 1` or rounded, is the same above; bright spots show the ends.
        "bright spots, sigma 2": (_spots(random, 9, 8), 2.0),
        "bright spots, sigma 1.4": (_spots(random, 7, 8), 1.4),
    }


def _spots(random: torch.Generator, height: int, width: int) -> Tensor:
    images = torch.zeros(1, 3, height, width)
    images[0, [0, 1, 2], [2, 4, 5], [3, 5, 1]] = 0.5 + 0.5 * torch.rand(3, generator=random)
    return images


def _gauss(sigma: float, radius: int) -> Tensor:
    weights = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
    return weights / weights.sum()


def _blur(images: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)  # beyond three sigma hardly any weight is left
    distance = torch.arange(-radius, radius + 1)
    weights = torch.exp(-distance.square() / (2 * sigma**2))
    weights = weights / weights.sum()  # so that an even grey stays the same grey
    padded = functional.pad(images, (radius,) * 4, mode="reflect")
    channels = images.shape[1]
    filters = weights.expand(channels, 1, 1, -1)  # the same one for every channel; groups keeps them apart
    across = functional.conv2d(padded, filters, groups=channels)
    return functional.conv2d(across, filters.transpose(2, 3), groups=channels)


def _two_dimensional(images: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    weights = _gauss(sigma, radius)
    padded = functional.pad(images.flatten(0, 1)[:, None], (radius,) * 4, mode="reflect")
    return functional.conv2d(padded, torch.outer(weights, weights)[None, None]).view_as(images)


def _sum_of_moved(images: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    for dim in (2, 3):
        length = images.shape[dim]
        place = torch.arange(length)
        total = torch.zeros_like(images)
        for offset, weight in zip(range(-radius, radius + 1), _gauss(sigma, radius), strict=True):
            mirrored = (place + offset).abs()
            mirrored = (length - 1) - (length - 1 - mirrored).abs()
            total = total + weight * images.index_select(dim, mirrored)
        images = total
    return images


def _slid(images: Tensor, weights: Tensor, mode: str = "reflect", dims: Sequence[int] = (2, 3)) -> Tensor:
    """The pictures with `weights` slid along `dims`; the border by one of PyTorch's modes."""
    radius, channels = len(weights) // 2, images.shape[1]
    filters = weights.expand(channels, 1, 1, -1)
    if 3 in dims:
        images = functional.conv2d(functional.pad(images, (radius, radius, 0, 0), mode=mode), filters, groups=channels)
    if 2 in dims:
        padded = functional.pad(images, (0, 0, radius, radius), mode=mode)
        images = functional.conv2d(padded, filters.transpose(2, 3), groups=channels)
    return images


def _reach(sigma: float) -> int:
    return math.ceil(3 * sigma)


def _bell(sigma: float) -> Tensor:
    return torch.exp(-torch.arange(-_reach(sigma), _reach(sigma) + 1).square() / (2 * sigma**2))


def _weights_not_normalized(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _bell(sigma))


def _formula_of_the_density(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _bell(sigma) / (sigma * math.sqrt(2 * math.pi)))


def _largest_weight_one(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _bell(sigma) / _bell(sigma).square().sum().sqrt())


def _black_outside(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, _reach(sigma)), "constant")


def _edge_repeated(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, _reach(sigma)), "replicate")


def _around_the_edge(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, _reach(sigma)), "circular")


def _edge_doubled(images: Tensor, sigma: float) -> Tensor:
    for dim in (2, 3):  # the mirror stands on the edge of the last pixel: the picture, mirrored on both sides of itself
        length, reach = images.shape[dim], _reach(sigma)
        wide = torch.cat([images.flip(dim), images, images.flip(dim)], dim=dim)
        wide = wide.narrow(dim, length - reach, length + 2 * reach)
        images = _slid(wide, _gauss(sigma, reach), "constant", (dim,)).narrow(dim, reach, length)
    return images


def _shares_at_the_border(images: Tensor, sigma: float) -> Tensor:
    weights = _gauss(sigma, _reach(sigma))
    return _slid(images, weights, "constant") / _slid(torch.ones_like(images), weights, "constant")


def _variance_for_sigma(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(math.sqrt(sigma), _reach(sigma)))


def _two_forgotten(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma / math.sqrt(2), _reach(sigma)))


def _not_squared(images: Tensor, sigma: float) -> Tensor:
    weights = torch.exp(-torch.arange(-_reach(sigma), _reach(sigma) + 1).abs() / (2 * sigma**2))
    return _slid(images, weights / weights.sum())


def _plus_in_the_exponent(images: Tensor, sigma: float) -> Tensor:
    weights = 1 / _bell(sigma)
    return _slid(images, weights / weights.sum())


def _channels_mixed(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, _reach(sigma))).mean(dim=1, keepdim=True).expand_as(images)


def _channels_added(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, _reach(sigma))).sum(dim=1, keepdim=True).expand_as(images)


def _across_alone(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, _reach(sigma)), dims=(3,))


def _down_alone(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, _reach(sigma)), dims=(2,))


def _twice_across(images: Tensor, sigma: float) -> Tensor:
    return _across_alone(_across_alone(images, sigma), sigma)


def _sum_of_both(images: Tensor, sigma: float) -> Tensor:
    return (_across_alone(images, sigma) + _down_alone(images, sigma)) / 2


def _border_lost(images: Tensor, sigma: float) -> Tensor:
    weights, channels = _gauss(sigma, _reach(sigma)), images.shape[1]
    filters = weights.expand(channels, 1, 1, -1)
    across = functional.conv2d(images, filters, groups=channels)
    return functional.conv2d(across, filters.transpose(2, 3), groups=channels)


def _border_left_on(images: Tensor, sigma: float) -> Tensor:
    reach = _reach(sigma)
    padded = functional.pad(images, (reach,) * 4, mode="reflect")
    return _slid(padded, _gauss(sigma, reach), "constant")


def _one_sigma_far(images: Tensor, sigma: float) -> Tensor:
    return _slid(images, _gauss(sigma, math.ceil(sigma)))


def _last_weight_missing(images: Tensor, sigma: float) -> Tensor:
    reach, channels = _reach(sigma), images.shape[1]
    bell = _bell(sigma)[:-1]
    filters = (bell / bell.sum()).expand(channels, 1, 1, -1)
    padded = functional.pad(images, (reach,) * 4, mode="reflect")
    across = functional.conv2d(padded, filters, groups=channels)
    return functional.conv2d(across, filters.transpose(2, 3), groups=channels)


def _only_one_side(images: Tensor, sigma: float) -> Tensor:
    bell = _bell(sigma).clone()
    bell[: _reach(sigma)] = 0
    return _slid(images, bell / bell.sum())


def _box(images: Tensor, sigma: float) -> Tensor:
    length = 2 * _reach(sigma) + 1
    return _slid(images, torch.full((length,), 1 / length))


def _details(images: Tensor, sigma: float) -> Tensor:
    return images - _blur(images, sigma)


_BLUR = Exercise(
    name="gaussian_blur",
    number="4.2",
    title="A blur that darkens nothing",
    prompt="Return the pictures blurred by a Gaussian of `sigma` pixels, reaching `ceil(3 * sigma)` pixels to each "
    "side; mirrored at the border, of the same size, and an even grey stays as it is.",
    reference=_blur,
    cases=_pictures_and_sigmas,
    alternatives=(_two_dimensional, _sum_of_moved),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _weights_not_normalized,
            "Your weights add up to more than 1, so every blur makes the picture brighter. Divide them by their sum.",
        ),
        Mistake(
            _formula_of_the_density,
            "You divide by the factor from the formula of the Gaussian density. It makes the *integral* 1; you add up "
            "weights at whole numbers, and with a small sigma these come out above 1. Divide by their own sum.",
        ),
        Mistake(
            _largest_weight_one,
            "You divide the weights by their length, the root of the sum of squares. What has to be 1 is their sum.",
        ),
        Mistake(
            _black_outside,
            "Outside of your picture everything is black, and the blur draws it in: a dark frame. Mirror the picture "
            "at its border.",
        ),
        Mistake(
            _edge_repeated,
            "You repeat the pixel at the edge again and again. Asked is a mirror: behind the edge the picture comes "
            "back.",
        ),
        Mistake(
            _around_the_edge,
            "What lies behind the right edge comes from the left one. Asked is a mirror: behind the edge the picture "
            "comes back.",
        ),
        Mistake(
            _edge_doubled,
            "Your mirror stands behind the last pixel, which therefore comes twice (SciPy calls that `reflect`). "
            'Asked is PyTorch\'s `mode="reflect"`: the last pixel is the mirror itself and comes once.',
        ),
        Mistake(
            _shares_at_the_border,
            "At the border you take the mean of what there is of the picture. A fair way, and it darkens nothing; but "
            "asked is a mirror.",
        ),
        Mistake(
            _variance_for_sigma,
            "You divide by `2 * sigma`: you take sigma for the variance. The variance is its square.",
        ),
        Mistake(
            _two_forgotten,
            "The factor 2 in the exponent is missing: the blur is too weak.",
        ),
        Mistake(
            _not_squared,
            "The distance in the exponent is not squared: your weights have a sharp tip and a long tail. A Gaussian is "
            "round at the top.",
        ),
        Mistake(
            _plus_in_the_exponent,
            "The minus in the exponent is missing: far pixels weigh more than near ones.",
        ),
        Mistake(
            _channels_mixed,
            "You mix the channels: the colours are gone. Each channel is blurred by itself.",
        ),
        Mistake(
            _channels_added,
            "You add the channels up, as a convolution does if nobody tells it to keep them apart. Look at its "
            "argument `groups`.",
        ),
        Mistake(_across_alone, "You blur across only. Then downwards too."),
        Mistake(_down_alone, "You blur downwards only. Across too."),
        Mistake(
            _twice_across,
            "You blur across twice, and never down: the second time the filter has to stand upright.",
        ),
        Mistake(
            _sum_of_both,
            "You blur across and down side by side and take the mean: that makes a cross out of each point, and not a "
            "round spot. Blur down what is blurred across already.",
        ),
        Mistake(
            _border_lost,
            "The picture shrinks: near the border the filter does not fit any more. Enlarge the picture first, by as "
            "much as the filter reaches to each side.",
        ),
        Mistake(
            _border_left_on,
            "The picture has grown: what you added at the border is still there. A convolution without any padding of "
            "its own takes off as much.",
        ),
        Mistake(
            _one_sigma_far,
            "Your filter ends after one sigma, where a Gaussian still has more than half of its height. Go to three.",
        ),
        Mistake(
            _last_weight_missing,
            "The last weight is missing, so the filter is lopsided and the picture grows by one: "
            "`torch.arange(a, b)` ends before `b`.",
        ),
        Mistake(
            _only_one_side,
            "Your weights begin in the middle, so the filter looks to one side only and the picture moves. Count "
            "distances from minus the radius.",
        ),
        Mistake(
            _box,
            "All your weights are equal: that is the mean of a square. A Gaussian gives near pixels more weight than "
            "far ones.",
        ),
        Mistake(
            _details,
            "This is what a blur takes away: the picture minus the blurred one. Asked is the blurred one.",
        ),
    ),
    hints=(
        "The weights: `exp(-d**2 / (2 * sigma**2))` for the distances d from minus the radius up to the radius, "
        "divided by their sum.",
        '`torch.nn.functional.pad(images, (r, r, r, r), mode="reflect")` mirrors the picture by r pixels on each side.',
        "`conv2d` with `groups=channels` and filters of the shape (channels, 1, 1, length) slides the same row of "
        "weights over each channel. Then once more, with the row standing upright.",
    ),
)


# --- 4.3: who votes for a class ----------------------------------------------------------------------------------


def _maps_and_weights() -> dict[str, tuple[Tensor, Tensor, Tensor, int]]:
    random = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    return {
        "two pictures, as many classes as channels": (normal(2, 5, 3, 4).relu(), normal(5, 5), normal(5), 2),
        "more classes than channels, and maps with negative numbers": (normal(3, 4, 2, 3), normal(6, 4), normal(6), 0),
        "maps of a single place": (normal(2, 3, 1, 1).relu(), normal(3, 3), normal(3), 1),
        "a single picture": (normal(1, 4, 3, 2), normal(5, 4), normal(5), 3),
    }


def _votes(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    # The mean over places and the sum over channels may change places: first each channel's mean, then its weight.
    return weights[target] * maps.mean(dim=(2, 3))


def _at_every_place(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return (maps * weights[target].view(1, -1, 1, 1)).mean(dim=(2, 3))


def _by_leaving_out(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    def score(maps: Tensor) -> Tensor:
        return functional.conv2d(maps, weights[:, :, None, None], bias).mean(dim=(2, 3))[:, target]

    columns = []
    for channel in range(maps.shape[1]):
        without = maps.clone()
        without[:, channel] = 0
        columns.append(score(maps) - score(without))
    return torch.stack(columns, dim=1)


def _weights_alone(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target].expand(len(maps), -1)


def _activations_alone(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return maps.mean(dim=(2, 3))


def _sum_of_places(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target] * maps.sum(dim=(2, 3))


def _largest_places(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target] * maps.amax(dim=(2, 3))


def _sizes_of_votes(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target).abs()


def _in_favour_only(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target).relu()


def _positive_weights_only(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target].relu() * maps.mean(dim=(2, 3))


def _maps_rectified(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target] * maps.relu().mean(dim=(2, 3))


def _one_class_on(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target + 1] * maps.mean(dim=(2, 3))


def _one_class_back(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target - 1] * maps.mean(dim=(2, 3))


def _column_for_row(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[:, target] * maps.mean(dim=(2, 3))


def _predicted(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    means = maps.mean(dim=(2, 3))
    return weights[(means @ weights.T + bias).argmax(dim=1)] * means


def _bias_shared_out(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target) + bias[target] / maps.shape[1]


def _bias_for_each(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target) + bias[target]


def _shares_of_the_whole(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    votes = _votes(maps, weights, bias, target)
    return votes / votes.sum(dim=1, keepdim=True)


def _shares_of_the_score(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    votes = _votes(maps, weights, bias, target)
    return votes / (votes.sum(dim=1, keepdim=True) + bias[target])


def _softmax_of_votes(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target).softmax(dim=1)


def _added_up(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target).sum(dim=1)


def _score_itself(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _added_up(maps, weights, bias, target) + bias[target]


def _map_of_votes(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return maps * weights[target].view(1, -1, 1, 1)


def _channels_averaged(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target) / maps.shape[1]


def _pictures_averaged(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return _votes(maps, weights, bias, target).mean(dim=0)


def _batch_squeezed_away(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights[target] * functional.adaptive_avg_pool2d(maps, 1).squeeze()


def _all_classes_voted(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return weights.sum(dim=0) * maps.mean(dim=(2, 3))


def _shapes_left_alone(maps: Tensor, weights: Tensor, bias: Tensor, target: int) -> Tensor:
    return (weights[target] * maps).mean(dim=(2, 3))


_VOTES = Exercise(
    name="votes",
    number="4.3",
    title="Who votes for this class?",
    prompt="Return how much each channel of the last feature maps adds to the score of the class `target`, (N, C): "
    "together they make the score, but for the bias.",
    reference=_votes,
    cases=_maps_and_weights,
    alternatives=(_at_every_place, _by_leaving_out),
    mistakes=(
        Mistake(
            _weights_alone,
            "These are the weights alone, the same for every picture. A channel that is silent in a picture has no "
            "vote there, whatever its weight.",
        ),
        Mistake(
            _activations_alone,
            "This is how active each channel is. Whether that speaks for this class or against it, its weight says.",
        ),
        Mistake(
            _sum_of_places,
            "You add up over the places. The score is a mean over places, so the votes are too: yours add up to too "
            "much.",
        ),
        Mistake(
            _largest_places,
            "You take the place where each channel is strongest. The score is a mean over all places.",
        ),
        Mistake(
            _sizes_of_votes,
            "You lose the signs: a channel may vote against the class as well. The votes would no longer add up to the "
            "score.",
        ),
        Mistake(
            _in_favour_only,
            "You cut off the votes against the class. They count as well: without them the votes do not add up to the "
            "score.",
        ),
        Mistake(
            _positive_weights_only,
            "You cut off the negative weights, and with them the votes of all channels that speak against the class.",
        ),
        Mistake(
            _maps_rectified,
            "You cut off what is below zero in the maps. The last convolution does not: it takes them as they come.",
        ),
        Mistake(_one_class_on, "These are the votes for the next class: classes count from 0."),
        Mistake(_one_class_back, "These are the votes for the class before: `target` counts from 0 already."),
        Mistake(
            _column_for_row,
            "You take a column of the weights. They are (K, C): a class is a *row*, with a weight for each channel.",
        ),
        Mistake(
            _predicted,
            "These are the votes for the class that wins in each picture. Asked is the class `target`.",
        ),
        Mistake(
            _all_classes_voted,
            "You add up the weights of all classes. Asked is one of them.",
        ),
        Mistake(
            _bias_shared_out,
            "You share the bias out among the channels. No channel has earned it: it is there for a picture of nothing "
            "as well. Leave it out.",
        ),
        Mistake(
            _bias_for_each,
            "You add the bias to every channel's vote, so that it counts as many times as there are channels. It "
            "belongs to none: leave it out.",
        ),
        Mistake(
            _shares_of_the_whole,
            "You divide by the sum, so that every picture has one vote in all. Then a clear yes and a faint one look "
            "the same, and where the sum is negative all signs turn round.",
        ),
        Mistake(
            _shares_of_the_score,
            "You divide by the score. Where that is negative all signs turn round. Asked is what each channel adds.",
        ),
        Mistake(
            _softmax_of_votes,
            "You send the votes through a softmax: all become positive, and they add up to 1 and not to the score.",
        ),
        Mistake(
            _added_up,
            "You add the votes up already: that is the score without its bias. Asked is what each channel adds.",
        ),
        Mistake(
            _score_itself,
            "This is the score of the class. Asked is what each channel adds to it.",
        ),
        Mistake(
            _map_of_votes,
            "These are the votes at each place. Take the mean over the places: one number for each channel.",
        ),
        Mistake(
            _channels_averaged,
            "You divide by the number of channels. The mean in the score is over places; over channels it is a sum.",
        ),
        Mistake(
            _pictures_averaged,
            "You take the mean over the pictures. Each picture has its own votes.",
        ),
        Mistake(
            _batch_squeezed_away,
            "Right, but `squeeze()` takes away every dimension of size 1, and for a single picture the batch is one. "
            "Name the dimensions that are to go.",
        ),
        Mistake(
            _shapes_left_alone,
            "The weights stand along the wrong dimension: broadcasting begins at the last one, which counts columns "
            "here. Bring the maps to (N, C) first, or the weights to (C, 1, 1).",
        ),
    ),
    hints=(
        "Write the score out: at each place a sum over channels of weight times activation, plus the bias; then the "
        "mean over places.",
        "Both sums may change places. So each channel adds: its weight, times its mean over the places.",
        "The weights for the class are one row, `weights[target]`, (C,). The means over rows and columns are (N, C). "
        "Check: `votes.sum(dim=1) + bias[target]` is the score.",
    ),
)


# --- 4.4: the same tiles in another order ------------------------------------------------------------------------


def _image_and_order() -> dict[str, tuple[Tensor, list[int], int]]:
    random = torch.Generator().manual_seed(5)
    return {
        "nine tiles that are not square": (torch.rand(3, 6, 9, generator=random), [4, 0, 7, 1, 8, 2, 3, 5, 6], 3),
        "four square tiles": (torch.rand(3, 6, 6, generator=random), [2, 0, 3, 1], 2),
        "one tile": (torch.rand(3, 3, 2, generator=random), [0], 1),
    }


Order = Sequence[int]


def _shuffle_tiles(image: Tensor, order: Order, rows: int) -> Tensor:
    height, width = image.shape[1] // rows, image.shape[2] // rows
    shuffled = torch.empty_like(image)  # into a new picture: the old one is still read from
    for place, tile in enumerate(order):
        down, right = divmod(place, rows)  # numbered row by row: how many full rows, and how far into the next
        tile_down, tile_right = divmod(tile, rows)
        here = image[:, tile_down * height : (tile_down + 1) * height, tile_right * width : (tile_right + 1) * width]
        shuffled[:, down * height : (down + 1) * height, right * width : (right + 1) * width] = here
    return shuffled


def _cut(image: Tensor, rows: int) -> list[Tensor]:
    return [tile for row in image.tensor_split(rows, dim=1) for tile in row.tensor_split(rows, dim=2)]


def _put(tiles: Sequence[Tensor], rows: int) -> Tensor:
    return torch.cat([torch.cat(list(tiles[i : i + rows]), dim=2) for i in range(0, rows * rows, rows)], dim=1)


def _by_lists(image: Tensor, order: Order, rows: int) -> Tensor:
    tiles = _cut(image, rows)
    return _put([tiles[tile] for tile in order], rows)


def _by_dimensions(image: Tensor, order: Order, rows: int) -> Tensor:
    channels, height, width = image.shape
    tiles = image.view(channels, rows, height // rows, rows, width // rows).transpose(2, 3).flatten(1, 2)
    again = tiles[:, list(order)].unflatten(1, (rows, rows)).transpose(2, 3)
    return again.reshape(channels, height, width)


def _inverse(order: Order) -> list[int]:
    return [list(order).index(tile) for tile in range(len(order))]


def _there_instead_of_here(image: Tensor, order: Order, rows: int) -> Tensor:
    return _by_lists(image, _inverse(order), rows)


def _column_by_column(image: Tensor, order: Order, rows: int) -> Tensor:
    turned = _cut(image.transpose(1, 2), rows)
    return _put([turned[tile] for tile in order], rows).transpose(1, 2)


def _cut_by_columns(image: Tensor, order: Order, rows: int) -> Tensor:
    tiles = [tile for column in image.tensor_split(rows, dim=2) for tile in column.tensor_split(rows, dim=1)]
    return _put([tiles[tile] for tile in order], rows)


def _put_by_columns(image: Tensor, order: Order, rows: int) -> Tensor:
    tiles = [_cut(image, rows)[tile] for tile in order]
    return torch.cat([torch.cat(tiles[i : i + rows], dim=1) for i in range(0, rows * rows, rows)], dim=2)


def _left_as_it_is(image: Tensor, order: Order, rows: int) -> Tensor:
    return image.clone()


def _only_reshaped(image: Tensor, order: Order, rows: int) -> Tensor:
    pieces = image.reshape(image.shape[0], rows * rows, -1)
    return pieces[:, list(order)].reshape(image.shape)


def _put_back_by_reshape(image: Tensor, order: Order, rows: int) -> Tensor:
    tiles = torch.stack([_cut(image, rows)[tile] for tile in order], dim=1)
    return tiles.reshape(image.shape)


def _channels_forgotten(image: Tensor, order: Order, rows: int) -> Tensor:
    tiles = torch.stack([_cut(image, rows)[tile] for tile in order])
    channels, height, width = image.shape
    again = tiles.reshape(rows, rows, channels, height // rows, width // rows).transpose(1, 2)
    return again.reshape(image.shape)


def _rows_only(image: Tensor, order: Order, rows: int) -> Tensor:
    strips = image.tensor_split(rows, dim=1)
    return torch.cat([strips[tile // rows] for tile in list(order)[::rows]], dim=1)


def _mirrored_tiles(image: Tensor, order: Order, rows: int) -> Tensor:
    return _put([_cut(image, rows)[tile].flip(2) for tile in order], rows)


def _turned_tiles(image: Tensor, order: Order, rows: int) -> Tensor:
    return _put([_cut(image, rows)[tile].flip(1, 2) for tile in order], rows)


def _read_while_written(image: Tensor, order: Order, rows: int) -> Tensor:
    image = image.clone()
    tiles = _cut(image, rows)  # views: what is written into the picture changes them
    for place, tile in enumerate(order):
        tiles[place].copy_(tiles[tile].clone())
    return image


def _written_over_and_shared(image: Tensor, order: Order, rows: int) -> Tensor:
    tiles = [tile.clone() for tile in _cut(image, rows)]
    shuffled = tiles.copy()
    for place, tile in enumerate(order):
        shuffled[place], shuffled[tile] = shuffled[tile], shuffled[place]
    return _put(shuffled, rows)


def _sizes_as_quotients(image: Tensor, order: Order, rows: int) -> Tensor:
    height = image.shape[1] / rows
    return image[:, :height]  # type: ignore[misc]


def _backwards(image: Tensor, order: Order, rows: int) -> Tensor:
    return _by_lists(image, list(order)[::-1], rows)


_SHUFFLE_TILES = Exercise(
    name="shuffle_tiles",
    number="4.4",
    title="The same tiles in another order",
    prompt="Cut the picture into `rows` x `rows` tiles, numbered row by row, and return it with tile `order[k]` at "
    "place k, (3, H, W).",
    reference=_shuffle_tiles,
    cases=_image_and_order,
    alternatives=(_by_lists, _by_dimensions),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _there_instead_of_here,
            "You put tile k at place `order[k]`: the same tiles, sent the other way. At place k the tile `order[k]` is "
            "wanted.",
        ),
        Mistake(
            _column_by_column,
            "You number tiles and places column by column. Number them row by row, as you read.",
        ),
        Mistake(
            _cut_by_columns,
            "You number the tiles column by column when you cut, and row by row when you put them back. Row by row, "
            "both times.",
        ),
        Mistake(
            _put_by_columns,
            "You number the tiles row by row when you cut, and column by column when you put them back. Row by row, "
            "both times.",
        ),
        Mistake(_left_as_it_is, "The picture is as it was. Is your result written into a tensor that you return?"),
        Mistake(
            _only_reshaped,
            "`reshape` cuts no tiles: it takes the numbers in the order of memory, row after row, and what you get are "
            "strips. A tile takes a part of several rows: slice it out, or split rows and columns into two dimensions "
            "each and move the dimensions.",
        ),
        Mistake(
            _put_back_by_reshape,
            "You cut and order the tiles rightly, and then scramble the pixels: `reshape` does not lay tiles side by "
            "side, it writes one behind the other. Before it, each row of pixels has to go through all tiles of its "
            "row.",
        ),
        Mistake(
            _channels_forgotten,
            "You cut and order the tiles rightly, but at the end the dimensions stand in a wrong order, and `reshape` "
            "mixes channels, tiles and pixels. Which dimension counts what, just before it?",
        ),
        Mistake(
            _rows_only,
            "You move whole rows of tiles. Each tile moves by itself.",
        ),
        Mistake(_mirrored_tiles, "The places are right, but each tile is mirrored."),
        Mistake(_turned_tiles, "The places are right, but each tile stands on its head."),
        Mistake(
            _read_while_written,
            "You write into the picture that you still read from: some tiles are overwritten before you come to them. "
            "Write into a new one.",
        ),
        Mistake(
            _written_over_and_shared,
            "You swap tiles in pairs, and a tile that was swapped already is no longer where its number says. Take "
            "every tile from the picture as it was.",
        ),
        Mistake(_sizes_as_quotients, "The size of a tile must be a whole number, and `/` makes none: use `//`."),
        Mistake(_backwards, "You go through the order from its end."),
    ),
    hints=(
        "The tile in row r and column c of the tiles is `image[:, r * h : (r + 1) * h, c * w : (c + 1) * w]`, with h "
        "and w the size of a tile.",
        "`divmod(k, rows)` gives row and column of place k, if the places are numbered row by row.",
        "Make an empty picture of the same shape. For each place k, copy tile `order[k]` of the old picture into it.",
    ),
)

EXERCISES = (_CLASS_GRADIENT, _BLUR, _VOTES, _SHUFFLE_TILES)
