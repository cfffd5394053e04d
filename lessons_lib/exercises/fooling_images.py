"""The exercises of chapter 7, Fooling images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exercise import Exercise, Mistake

Objective = Callable[[Tensor, Tensor], Tensor]
"""From logits (N, K) and classes (N,) to what is to grow where a picture is to get away from its class, (N,)."""

Shrink = Callable[[Tensor, float], Tensor]
"""From differences (N, C, H, W) and an epsilon to differences in the ball of that radius."""

Fools = Callable[[Tensor], Tensor]
"""From an epsilon for each picture, (N,), to which pictures are then misread, (N,)."""


# --- 7.1: the gradient of the loss, and its sign -----------------------------------------------------------------


def _models_images_and_classes() -> dict[str, tuple[nn.Module, Tensor, Tensor, bool]]:
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):  # layers draw weights when they are made: not from the reader's numbers
        smooth = _network(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(120, 5)), seed=1, size=0.15
        )
        frozen = _network(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(96, 3)), seed=2, size=0.15
        ).requires_grad_(False)
        in_place = _network(
            *(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3), nn.ReLU(inplace=True)),
            *(nn.Flatten(), nn.Linear(24, 4)),
            seed=3,
            size=0.4,
        )
    three = torch.rand(3, 3, 5, 6, generator=random)
    one = torch.rand(1, 3, 6, 4, generator=random)
    two = torch.rand(2, 1, 5, 4, generator=random)
    return {
        "three pictures, away from their classes": (smooth, three, torch.tensor([4, 0, 2]), False),
        "the same three pictures, towards other classes": (smooth, three, torch.tensor([1, 3, 0]), True),
        "one picture and a frozen network, away from its class": (frozen, one, torch.tensor([1]), False),
        "one picture and a frozen network, towards another class": (frozen, one, torch.tensor([2]), True),
        "two grey pictures, ReLUs that work in place, away": (in_place, two, torch.tensor([3, 1]), False),
        "two grey pictures, ReLUs that work in place, towards": (in_place, two, torch.tensor([0, 2]), True),
    }


def _network(*layers: nn.Module, seed: int, size: float) -> nn.Sequential:
    random = torch.Generator().manual_seed(seed)
    network = nn.Sequential(*layers)
    for parameter in network.parameters():
        parameter.data = size * torch.randn(parameter.shape, generator=random)
    return network.eval()


def _uphill(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    pixels = images.detach().clone().requires_grad_()
    # A picture's loss depends on no other's pixels: the sum has the gradient of each in its place.
    loss = functional.cross_entropy(model(pixels), classes, reduction="sum")
    (gradient,) = torch.autograd.grad(-loss if targeted else loss, pixels)
    return gradient


def _uphill_picture_by_picture(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    gradients = []
    for image, own in zip(images, classes, strict=True):
        pixels = image[None].clone().requires_grad_()
        functional.cross_entropy(model(pixels), own[None]).backward(inputs=[pixels])  # type: ignore[no-untyped-call]
        assert pixels.grad is not None
        gradients.append(pixels.grad[0])
    return torch.stack(gradients) * (1 - 2 * targeted)


def _uphill_by_functions(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    def loss(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels)
        chosen = logits[torch.arange(len(images)), classes]
        return (logits.logsumexp(dim=1) - chosen).sum() * (-1) ** targeted

    gradient: Tensor = torch.func.grad(loss)(images)
    return gradient


def _uphill_by_hand(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    logits, pull, *_ = torch.func.vjp(model, images)
    too_much = logits.softmax(dim=1) - functional.one_hot(classes, logits.shape[1])
    (gradient,) = pull(-too_much if targeted else too_much)
    return gradient  # type: ignore[no-any-return]


def _loss(logits: Tensor, classes: Tensor) -> Tensor:
    return functional.cross_entropy(logits, classes, reduction="none")


def _chosen(scores: Tensor, classes: Tensor) -> Tensor:
    return scores.gather(1, classes[:, None])[:, 0]


def _gradient_of(
    objective: Objective, model: nn.Module, images: Tensor, classes: Tensor, targeted: bool = False
) -> Tensor:
    """The gradient of the objective; and of its negative where `targeted`."""
    pixels = images.detach().clone().requires_grad_()
    grows = objective(model(pixels), classes).sum()
    (gradient,) = torch.autograd.grad(-grows if targeted else grows, pixels)
    return gradient


def _size_of(gradient: Tensor) -> Tensor:
    """The Euclidean length of each picture's numbers, (N, 1, 1, 1)."""
    return gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def _downhill(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return -_uphill(model, images, classes, targeted)


def _always_plus(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(_loss, model, images, classes)


def _always_minus(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return -_gradient_of(_loss, model, images, classes)


def _mean_of_losses(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _uphill(model, images, classes, targeted) / len(images)


def _mean_and_always_plus(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(_loss, model, images, classes) / len(images)


def _logit_alone(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: -_chosen(logits, own), model, images, classes, targeted)


def _logit_for_loss(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(_chosen, model, images, classes, targeted)


def _probability_alone(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: -_chosen(logits.softmax(dim=1), own), model, images, classes, targeted)


def _probability_for_loss(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: _chosen(logits.softmax(dim=1), own), model, images, classes, targeted)


def _margin(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    def lead_of_the_others(logits: Tensor, own: Tensor) -> Tensor:
        return logits.scatter(1, own[:, None], -math.inf).amax(dim=1) - _chosen(logits, own)

    return _gradient_of(lead_of_the_others, model, images, classes, targeted)


def _classes_predicted(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: _loss(logits, logits.argmax(dim=1)), model, images, classes, targeted)


def _predicted_when_untargeted(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return (_uphill if targeted else _classes_predicted)(model, images, classes, targeted)


def _first_class_for_all(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _uphill(model, images, classes[:1].expand(len(images)), targeted)


def _first_picture_alone(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: _loss(logits, own)[0], model, images, classes, targeted)


def _softmax_twice(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: _loss(logits.softmax(dim=1), own), model, images, classes, targeted)


def _softmax_over_the_pictures(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: -_chosen(logits.log_softmax(dim=0), own), model, images, classes, targeted)


def _squares_from_one_hot(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    def squares(logits: Tensor, own: Tensor) -> Tensor:
        return (logits - functional.one_hot(own, logits.shape[1])).square()

    return _gradient_of(squares, model, images, classes, targeted)


def _yes_or_no_for_each_class(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    def yes_or_no(logits: Tensor, own: Tensor) -> Tensor:
        wanted = functional.one_hot(own, logits.shape[1]).to(logits)
        return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")

    return _gradient_of(yes_or_no, model, images, classes, targeted)


def _sign_taken(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _uphill(model, images, classes, targeted).sign()


def _sizes_alone(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _uphill(model, images, classes, targeted).abs()


def _made_one_long(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    gradient = _uphill(model, images, classes, targeted)
    return gradient / _size_of(gradient).clamp(min=1e-12)


def _made_one_on_average(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    gradient = _uphill(model, images, classes, targeted)
    return gradient / gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def _made_one_at_most(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    gradient = _uphill(model, images, classes, targeted)
    return gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)


def _gradient_times_picture(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _uphill(model, images, classes, targeted) * images


def _pictures_moved(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return images + _uphill(model, images, classes, targeted)


def _a_map_of_sizes(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _uphill(model, images, classes, targeted).abs().amax(dim=1)


def _batch_added_up(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _uphill(model, images, classes, targeted).sum(dim=0)


def _still_a_tuple(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Any:
    return (_uphill(model, images, classes, targeted),)


def _nobody_asks(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    (gradient,) = torch.autograd.grad(_loss(model(images), classes).sum(), images)
    return -gradient if targeted else gradient


def _asked_too_late(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    pixels = images.clone()
    loss = _loss(model(pixels), classes).sum()
    (gradient,) = torch.autograd.grad(loss, pixels.requires_grad_())
    return -gradient if targeted else gradient


def _no_record_kept(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    pixels = images.clone().requires_grad_()
    with torch.no_grad():
        loss = _loss(model(pixels), classes).sum()
    (gradient,) = torch.autograd.grad(loss, pixels)
    return -gradient if targeted else gradient


def _none_arrived(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    _loss(model(images), classes).sum().backward()  # type: ignore[no-untyped-call]
    gradient = images.grad.data  # type: ignore[union-attr]
    return -gradient if targeted else gradient


def _several_losses(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    pixels = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_loss(model(pixels), classes), pixels)
    return -gradient if targeted else gradient


def _arguments_changed_round(model: nn.Module, images: Tensor, classes: Tensor, targeted: bool) -> Tensor:
    return _gradient_of(lambda logits, own: _loss(own, logits), model, images, classes, targeted)


_UPHILL = Exercise(
    name="uphill",
    number="7.1",
    title="The loss and its sign",
    prompt="Given pictures (N, C, H, W) and a class for each, (N,), return the direction to move each picture in, "
    "(N, C, H, W): the gradient, with respect to the picture, of what is to grow. That is the cross-entropy loss of "
    "its class, to get away from it; and with `targeted` that loss times -1, to be taken for the class.",
    reference=_uphill,
    cases=_models_images_and_classes,
    alternatives=(_uphill_picture_by_picture, _uphill_by_functions, _uphill_by_hand),
    mistakes=(
        Mistake(
            _downhill,
            "Your sign is wrong both ways: pictures that should get away from their class move towards it, and those "
            "that should reach it move away. The loss of a class is *large* where the network does not see that class. "
            "If you took the log-probability for the loss: the loss is its negative.",
        ),
        Mistake(
            _always_plus,
            "You never look at `targeted`: your pictures always move away from the class. To be taken for a class, its "
            "loss has to fall.",
        ),
        Mistake(
            _always_minus,
            "With `targeted` it is right, but without it your pictures move towards their class as well, and are read "
            "as what they are, only more surely. To get away from a class, its loss has to grow.",
        ),
        Mistake(
            _mean_of_losses,
            "You take the mean of the losses, as `cross_entropy` does unless told otherwise: in a batch of N pictures "
            "each gradient comes out N times too small. What a picture's gradient is must not depend on how many "
            "others come with it. Add up.",
        ),
        Mistake(
            _mean_and_always_plus,
            "Two things are missing. You never look at `targeted`: to be taken for a class, its loss has to fall. And "
            "`cross_entropy` takes the mean over the batch unless told otherwise: each gradient comes out N times too "
            "small.",
        ),
        Mistake(
            _logit_alone,
            "You push the logit of the class itself, and not its loss (`nll_loss` on bare logits does the same: it "
            "takes no softmax and no logarithm). In the loss the other classes have a say too.",
        ),
        Mistake(
            _logit_for_loss,
            "You take the logit for the loss. A logit is large where the network *sees* the class, and the loss where "
            "it does not: so your sign is wrong too. Asked is the cross-entropy.",
        ),
        Mistake(
            _probability_alone,
            "You push the probability of the class, and not its loss (`nll_loss` behind a softmax does the same: the "
            "logarithm is missing). Where the network is nearly sure, that gradient is almost zero.",
        ),
        Mistake(
            _probability_for_loss,
            "You take the probability for the loss. It is large where the network *sees* the class, and the loss where "
            "it does not: so your sign is wrong too. Asked is the cross-entropy.",
        ),
        Mistake(
            _margin,
            "You take the lead of the best other class over this one. Other attacks do so; asked here is the "
            "cross-entropy, in which all classes have a say.",
        ),
        Mistake(
            _classes_predicted,
            "You take the loss of the class that the network likes best in each picture. Asked are the classes in "
            "`classes`.",
        ),
        Mistake(
            _predicted_when_untargeted,
            "With `targeted` it is right, but without it you get away from the class that the network likes best in "
            "each picture. `classes` says which one to get away from.",
        ),
        Mistake(
            _first_class_for_all,
            "You take the first picture's class for all pictures. Each picture has a class of its own.",
        ),
        Mistake(
            _first_picture_alone,
            "Only the loss of the first picture is differentiated, and so the other gradients are zero. Add up the "
            "losses of all pictures.",
        ),
        Mistake(
            _softmax_twice,
            "There is a softmax too many. `cross_entropy` wants logits and takes the softmax itself: of probabilities "
            "it takes a second one, and the gradient gets faint and crooked.",
        ),
        Mistake(
            _softmax_over_the_pictures,
            "Your softmax compares the pictures with each other. Logits are (N, K), pictures first and classes second: "
            "the classes have to share what is there.",
        ),
        Mistake(
            _squares_from_one_hot,
            "You take the squared distance of the logits from a row of zeros and a 1. Logits are no probabilities, and "
            "need not come near 1. Asked is the cross-entropy.",
        ),
        Mistake(
            _yes_or_no_for_each_class,
            "You take the *binary* cross-entropy: a yes or no for each class on its own. This network was trained to "
            "choose one class among all. Asked is the cross-entropy over the classes.",
        ),
        Mistake(
            _sign_taken,
            "You have taken the sign already. That comes in the next exercise; asked here is the gradient as it is.",
        ),
        Mistake(
            _sizes_alone,
            "All your numbers are positive: you take the absolute value. A map of what matters wants that; a direction "
            "to move in needs the signs.",
        ),
        Mistake(
            _made_one_long,
            "You divide each gradient by its length. How far to go is for the step to decide; return the gradient as "
            "large as it is.",
        ),
        Mistake(
            _made_one_on_average,
            "You divide each gradient by its root mean square, as in the step of chapter 3. How far to go is for the "
            "step to decide; return the gradient as large as it is.",
        ),
        Mistake(
            _made_one_at_most,
            "You divide each gradient by its largest number. How far to go is for the step to decide; return the "
            "gradient as large as it is.",
        ),
        Mistake(
            _gradient_times_picture,
            "You multiply the gradient by the picture. Then black pixels never move, whatever the network makes of "
            "them. Asked is the gradient alone.",
        ),
        Mistake(
            _pictures_moved,
            "You have moved the pictures already. Asked is the direction alone; the step comes in the next exercise.",
        ),
        Mistake(
            _a_map_of_sizes,
            "This is a map of what matters, as in chapter 5, with one number for each pixel. To move a picture takes "
            "every channel, and the signs.",
        ),
        Mistake(
            _batch_added_up,
            "You add up the gradients of all pictures, and one direction is left for the whole batch. Add up the "
            "*losses* before the gradient is taken: then each picture has its own.",
        ),
        Mistake(
            _still_a_tuple,
            "`torch.autograd.grad` returns a tuple, with one gradient for each tensor that you ask about. Take the one "
            "out of it.",
        ),
        Mistake(
            _nobody_asks,
            "PyTorch keeps a record of what was computed only from tensors that ask for it, and these pictures do not. "
            "Let a copy of them ask, with `requires_grad_()`, before the model sees it.",
        ),
        Mistake(
            _asked_too_late,
            "The model has not seen the tensor that asks: it asks only after the model ran, or the model was given "
            "another, `images` perhaps. No record was kept of what became of it. Let a copy ask first, and give the "
            "model that copy.",
        ),
        Mistake(
            _no_record_kept,
            "Between the pictures and the loss the record breaks off: what is computed inside `torch.no_grad()`, or "
            "went through `.detach()`, `.data` or `.item()`, cannot be differentiated. Let the loss come straight from "
            "the model.",
        ),
        Mistake(
            _none_arrived,
            "No gradient has arrived: `images.grad` is None, for these pictures did not ask for one. (And what "
            "`.backward()` left in the weights should not be there.) Let a copy of them ask, with `requires_grad_()`, "
            "before the model sees it.",
        ),
        Mistake(
            _several_losses,
            "There is one loss for each picture, and PyTorch differentiates one number. Which single number has the "
            "right gradient for every picture, if no picture's loss depends on another's pixels?",
        ),
        Mistake(
            _arguments_changed_round,
            "The arguments of `cross_entropy` have changed places: the logits come first, then the classes.",
        ),
    ),
    hints=(
        "Let a copy of the pictures ask for a gradient: `pixels = images.clone().requires_grad_()`. Then run the "
        "model on it.",
        "`functional.cross_entropy(logits, classes)` takes the softmax and the logarithm itself. By itself it returns "
        "a mean over the batch; `reduction` can tell it to add up.",
        "What is to grow? Without `targeted` the loss. With it, the loss is to fall, and what grows is the loss times "
        "-1.",
        "`torch.autograd.grad(number, pixels)` returns the gradient in a tuple, and leaves no `.grad` in the model.",
    ),
)


# --- 7.2: one step by the sign -----------------------------------------------------------------------------------


def _images_gradients_and_epsilons() -> dict[str, tuple[Tensor, Tensor, float]]:
    random = torch.Generator().manual_seed(20)
    vivid = (torch.rand(3, 3, 4, 5, generator=random) * 1.4 - 0.2).clamp(0, 1)  # with black and white in it
    slopes = 0.02 * torch.randn(3, 3, 4, 5, generator=random)
    slopes[torch.rand(slopes.shape, generator=random) < 0.2] = 0
    dull = 0.3 + 0.4 * torch.rand(2, 3, 5, 4, generator=random)
    dull[0, :, :2] = 0.97
    dull[1, :, 3:] = 0.02
    faint = 1e-6 * torch.randn(2, 3, 5, 4, generator=random)
    grey = torch.rand(1, 1, 5, 6, generator=random)
    steep = 3 * torch.randn(1, 1, 5, 6, generator=random)
    steep[0, 0, 1, 1:5] = 0
    return {
        "three pictures, with zeros in their gradients": (vivid, slopes, 0.1),
        "two pictures whose gradients are tiny": (dull, faint, 0.05),
        "one grey picture, a steep gradient and a large epsilon": (grey, steep, 0.3),
    }


def _fgsm_step(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient.sign()).clamp(0, 1)


def _step_by_places(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    moved = images.clone()
    moved[gradient > 0] += epsilon
    moved[gradient < 0] -= epsilon
    return moved.clip_(0, 1)


def _step_by_comparing(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    up, down = (images + epsilon).clamp(max=1), (images - epsilon).clamp(min=0)
    return torch.where(gradient > 0, up, torch.where(gradient < 0, down, images))


def _step_picture_by_picture(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    pairs = zip(images, gradient, strict=True)
    return torch.stack([torch.add(image, torch.sign(slope), alpha=epsilon).clip(0, 1) for image, slope in pairs])


def _not_clipped(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return images + epsilon * gradient.sign()


def _clipped_from_minus_one(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _not_clipped(images, gradient, epsilon).clamp(-1, 1)


def _clipped_at_255(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _not_clipped(images, gradient, epsilon).clamp(0, 255)


def _clipped_to_epsilon(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _not_clipped(images, gradient, epsilon).clamp(-epsilon, epsilon)


def _clipped_short_of_the_ends(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _not_clipped(images, gradient, epsilon).clamp(epsilon, 1 - epsilon)


def _step_clipped_instead(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return images + (epsilon * gradient.sign()).clamp(0, 1)


def _gradient_clipped(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + gradient.clamp(-epsilon, epsilon)).clamp(0, 1)


def _gradient_itself(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient).clamp(0, 1)


def _by_its_length(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient / _size_of(gradient).clamp(min=1e-12)).clamp(0, 1)


def _by_its_largest(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-12)
    return (images + epsilon * gradient / largest).clamp(0, 1)


def _by_its_mean_square(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
    return (images + epsilon * gradient / size).clamp(0, 1)


def _step_down(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images - epsilon * gradient.sign()).clamp(0, 1)


def _sizes_of_the_gradient(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient.abs().sign()).clamp(0, 1)


def _zero_counts_as_minus(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * torch.where(gradient > 0, 1.0, -1.0)).clamp(0, 1)


def _zero_counts_as_plus(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * torch.where(gradient >= 0, 1.0, -1.0)).clamp(0, 1)


def _upwards_only(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * (gradient > 0)).clamp(0, 1)


def _sign_by_division(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient / gradient.abs()).clamp(0, 1)


def _one_sign_for_all_channels(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient.sum(dim=1, keepdim=True).sign()).clamp(0, 1)


def _one_sign_for_all_pictures(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient.sum(dim=0, keepdim=True).sign()).clamp(0, 1)


def _sign_of_the_picture(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * images.sign()).clamp(0, 1)


def _sign_of_the_moved(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + epsilon * gradient).sign().clamp(0, 1)


def _epsilon_forgotten(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images + gradient.sign()).clamp(0, 1)


def _epsilon_by_255(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _fgsm_step(images, gradient, epsilon / 255)


def _share_of_the_number(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (images * (1 + epsilon * gradient.sign())).clamp(0, 1)


def _share_of_the_range(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    spread = images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True)
    return (images + epsilon * spread * gradient.sign()).clamp(0, 1)


def _stretched(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    moved = _not_clipped(images, gradient, epsilon)
    low, high = moved.amin(dim=(1, 2, 3), keepdim=True), moved.amax(dim=(1, 2, 3), keepdim=True)
    return (moved - low) / (high - low)


def _stretched_together(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    moved = _not_clipped(images, gradient, epsilon)
    return (moved - moved.min()) / (moved.max() - moved.min())


def _wrapped_round(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _not_clipped(images, gradient, epsilon) % 1


def _squashed(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _not_clipped(images, gradient, epsilon).sigmoid()


def _skipped_at_the_ends(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    moved = _not_clipped(images, gradient, epsilon)
    return torch.where((moved >= 0) & (moved <= 1), moved, images)


def _rounded_to_8_bits(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (_fgsm_step(images, gradient, epsilon) * 255).round() / 255


def _cut_to_8_bits(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return (_fgsm_step(images, gradient, epsilon) * 255).floor() / 255


def _step_alone(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return epsilon * gradient.sign()


def _step_that_was_possible(images: Tensor, gradient: Tensor, epsilon: float) -> Tensor:
    return _fgsm_step(images, gradient, epsilon) - images


_FGSM_STEP = Exercise(
    name="fgsm_step",
    number="7.2",
    title="One step, and the right clip",
    prompt="Return the pictures (N, C, H, W) after one step of the fast gradient sign method: every number moves by "
    "`epsilon` in the direction of the sign of its gradient (N, C, H, W), and one whose gradient is 0 stays. Then clip "
    "the pictures to [0, 1].",
    reference=_fgsm_step,
    cases=_images_gradients_and_epsilons,
    alternatives=(_step_by_places, _step_by_comparing, _step_picture_by_picture),
    tolerance=1e-5,  # so that rounding to 8 bits shows
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _not_clipped,
            "What comes out is no picture everywhere: some numbers are below 0 or above 1. Clip at the end, and clip "
            "the *picture*: before the step, or clipping the step to `epsilon`, changes nothing.",
        ),
        Mistake(
            _clipped_from_minus_one,
            "Some of your numbers are below 0: you clip to [-1, 1], or at the top only. A picture here goes from 0 to "
            "1.",
        ),
        Mistake(
            _clipped_at_255,
            "Some of your numbers are above 1: you clip at 255, or at the bottom only. A picture here goes from 0 to "
            "1.",
        ),
        Mistake(
            _clipped_to_epsilon,
            "You clip the moved picture to `epsilon`, and it is nearly black. `epsilon` is how far a number may move, "
            "not how large it may be.",
        ),
        Mistake(
            _clipped_short_of_the_ends,
            "You clip to what is `epsilon` away from 0 and 1. A number that is black or white and need not move must "
            "be able to stay.",
        ),
        Mistake(
            _step_clipped_instead,
            "You clip the step to [0, 1], and so cut off every step downwards. Let the picture move first, and clip "
            "that.",
        ),
        Mistake(
            _gradient_clipped,
            "You clip the gradient to `epsilon`. Most gradients are far smaller than that, and their pictures hardly "
            "move. Asked is the full `epsilon` for each number: only the sign of the gradient counts.",
        ),
        Mistake(
            _gradient_itself,
            "You multiply `epsilon` by the gradient itself. Then how far a number moves depends on how steep the loss "
            "is. Asked is the full `epsilon` for each: only the sign counts.",
        ),
        Mistake(
            _by_its_length,
            "You divide the gradient by its length: that is the step for a ball of the *Euclidean* length, spread over "
            "all numbers. Here every number moves by the full `epsilon`: only the sign counts.",
        ),
        Mistake(
            _by_its_largest,
            "You divide the gradient by its largest number: one number moves by `epsilon`, the others by less. Here "
            "every number moves by the full `epsilon`: only the sign counts.",
        ),
        Mistake(
            _by_its_mean_square,
            "You divide the gradient by its root mean square, as in the step of chapter 3: some numbers move further "
            "than `epsilon`, and others by less. Here all move equally far: only the sign counts.",
        ),
        Mistake(
            _step_down,
            "You go down: minus, as in training. The gradient already shows the direction to move in. Go with it.",
        ),
        Mistake(
            _sizes_of_the_gradient,
            "Everything gets brighter: the signs of the gradient are gone, through an absolute value. Where it is "
            "negative, a number has to fall.",
        ),
        Mistake(
            _zero_counts_as_minus,
            "Where the gradient is 0, your numbers fall. It says nothing there, for either direction: they stay. What "
            "does `sign()` make of a 0?",
        ),
        Mistake(
            _zero_counts_as_plus,
            "Where the gradient is 0, your numbers rise. It says nothing there, for either direction: they stay. What "
            "does `sign()` make of a 0?",
        ),
        Mistake(
            _upwards_only,
            "Your numbers rise where the gradient is positive, and stay where it is negative. There they have to fall.",
        ),
        Mistake(
            _sign_by_division,
            "You divide the gradient by its size: that is its sign, but where the gradient is 0 it is 0 / 0, which is "
            "NaN. There is a function for it.",
        ),
        Mistake(
            _one_sign_for_all_channels,
            "You add up the channels before the sign: red, green and blue of a pixel then move the same way. Each "
            "number moves by the sign of its own gradient.",
        ),
        Mistake(
            _one_sign_for_all_pictures,
            "You add up the gradients of all pictures before the sign, and move all of them alike. Each picture has a "
            "gradient of its own.",
        ),
        Mistake(
            _sign_of_the_picture,
            "You take the sign of the picture. Nothing is below 0 there, so that it only gets brighter. It is the "
            "gradient that shows the direction.",
        ),
        Mistake(
            _sign_of_the_moved,
            "You take the sign last, of the moved picture, and little is left but 0 and 1. The sign of the gradient "
            "comes first, then the step.",
        ),
        Mistake(
            _epsilon_forgotten,
            "Your step is 1, from black to white: where is `epsilon`?",
        ),
        Mistake(
            _epsilon_by_255,
            "You divide `epsilon` by 255. It is meant for pictures in [0, 1] already.",
        ),
        Mistake(
            _share_of_the_number,
            "You move each number by a share of itself: what is black can never move. `epsilon` is the same for every "
            "number.",
        ),
        Mistake(
            _share_of_the_range,
            "You scale `epsilon` by each picture's range, as for the noise of chapter 5. Here it is the same for every "
            "picture.",
        ),
        Mistake(
            _stretched,
            "You stretch each picture to [0, 1]: then every number changes, and by more than `epsilon`. Change only "
            "those that have left [0, 1].",
        ),
        Mistake(
            _stretched_together,
            "You stretch the whole batch to [0, 1]: then every number changes, and each picture depends on its "
            "neighbours. Change only numbers that have left [0, 1].",
        ),
        Mistake(
            _wrapped_round,
            "What leaves [0, 1] comes in again at the other end: white turns black. (Whole numbers of 8 bits do that "
            "too.) It should stop at the end.",
        ),
        Mistake(
            _squashed,
            "You squash the picture by a sigmoid. That keeps it in [0, 1], but everything turns grey, and moves by "
            "more than `epsilon`. Change only numbers that have left [0, 1].",
        ),
        Mistake(
            _skipped_at_the_ends,
            "Numbers that would leave [0, 1] do not move at all with you. They may go as far as the end.",
        ),
        Mistake(
            _rounded_to_8_bits,
            "Right, but rounded to 8 bits. That belongs to saving a picture; asked here is the picture before it.",
        ),
        Mistake(
            _cut_to_8_bits,
            "You make whole numbers of 8 bits of the picture, and what is behind the point is cut off. Return the "
            "picture before that.",
        ),
        Mistake(
            _step_alone,
            "This is the step alone. Asked are the pictures after it, in [0, 1].",
        ),
        Mistake(
            _step_that_was_possible,
            "This is how far each number has moved. Asked are the pictures themselves, after the step.",
        ),
    ),
    hints=(
        "`gradient.sign()` is 1, -1 or 0 at each number.",
        "The step is `epsilon` times that. Add it to the pictures, into a new tensor.",
        "`clamp(0, 1)` clips. What has to lie in [0, 1]: the gradient, the step, or the picture after it?",
    ),
)


# --- 7.3: back into the ball -------------------------------------------------------------------------------------


def _moved_pictures_and_balls() -> dict[str, tuple[Tensor, Tensor, float, str]]:
    random = torch.Generator().manual_seed(30)

    def pictures(*shape: int) -> Tensor:
        return (torch.rand(*shape, generator=random) * 1.2 - 0.1).clamp(0, 1)

    def moved(images: Tensor, *by: float) -> Tensor:
        sizes = torch.tensor(by).view(-1, 1, 1, 1)
        return images + sizes * torch.randn(images.shape, generator=random)

    # With "l2" there are as many columns as pictures: lengths (N,) that are lined up with columns raise no error then.
    four, two, one = pictures(4, 3, 5, 4), pictures(2, 3, 6, 2), pictures(1, 2, 4, 4)
    three, grey = pictures(3, 3, 5, 4), pictures(1, 1, 5, 4)
    return {
        "four pictures and a Euclidean ball, one far out, one a little, one inside, one not moved": (
            moved(four, 0.4, 0.05, 0.0, 0.15),
            four,
            0.8,
            "l2",
        ),
        "three pictures and a largest change, one inside, one not moved": (
            moved(three, 0.2, 0.02, 0.0),
            three,
            0.12,
            "linf",
        ),
        "one picture far out, and a Euclidean ball": (moved(one, 0.6), one, 1.5, "l2"),
        "two pictures inside a Euclidean ball": (moved(two, 0.1, 0.2), two, 2.5, "l2"),
        "one grey picture and a largest change": (moved(grey, 0.5), grey, 0.3, "linf"),
    }


def _into_the_ball(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    difference = moved - images
    if norm == "linf":
        difference = difference.clamp(-epsilon, epsilon)
    else:
        length = difference.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        # A length below epsilon counts as epsilon: such a difference is multiplied by 1, and nothing is divided by 0.
        difference = difference * (epsilon / length.clamp(min=epsilon))
    return (images + difference).clamp(0, 1)


def _ball_by_library(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    if norm == "l2":
        return (images + torch.renorm(moved - images, p=2, dim=0, maxnorm=epsilon)).clip(0, 1)
    return torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon).clip(0, 1)


def _ball_picture_by_picture(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    pictures = []
    for new, old in zip(moved, images, strict=True):
        difference = new - old
        if norm == "linf":
            difference = torch.where(difference.abs() > epsilon, epsilon * difference.sign(), difference)
        elif difference.square().sum() > epsilon**2:
            difference = difference / difference.square().sum().sqrt() * epsilon
        pictures.append((old + difference).clamp(0, 1))
    return torch.stack(pictures)


def _ball_by_factors(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    difference = moved - images
    size = difference.abs() if norm == "linf" else _size_of(difference)
    return (images + difference * (epsilon / size.clamp(min=1e-12)).clamp(max=1)).clamp(0, 1)


def _clipped(difference: Tensor, epsilon: float) -> Tensor:
    return difference.clamp(-epsilon, epsilon)


def _shortened(difference: Tensor, epsilon: float) -> Tensor:
    return _divided(difference, epsilon, _size_of(difference))


def _divided(difference: Tensor, epsilon: float, length: Tensor) -> Tensor:
    """Shortened by what somebody takes for its length."""
    return difference * (epsilon / length.clamp(min=epsilon))


def _within(
    moved: Tensor, images: Tensor, epsilon: float, norm: str, linf: Shrink = _clipped, l2: Shrink = _shortened
) -> Tensor:
    return (images + (linf if norm == "linf" else l2)(moved - images, epsilon)).clamp(0, 1)


def _onto_the_surface(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def always(difference: Tensor, epsilon: float) -> Tensor:
        return epsilon * difference / _size_of(difference).clamp(min=1e-12)

    return _within(moved, images, epsilon, norm, l2=always)


def _onto_the_surface_if_any(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def always_if_any(difference: Tensor, epsilon: float) -> Tensor:
        length = _size_of(difference)
        return epsilon * difference / length.clamp(min=1e-12) if (length > epsilon).any() else difference

    return _within(moved, images, epsilon, norm, l2=always_if_any)


def _length_of_the_batch(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, l2=lambda d, epsilon: _divided(d, epsilon, d.norm()))


def _longest_of_the_batch(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, l2=lambda d, epsilon: _divided(d, epsilon, _size_of(d).amax()))


def _length_of_each_channel(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        return _divided(difference, epsilon, difference.square().sum(dim=(2, 3), keepdim=True).sqrt())

    return _within(moved, images, epsilon, norm, l2=shorten)


def _length_at_each_pixel(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        return _divided(difference, epsilon, difference.norm(dim=1, keepdim=True))

    return _within(moved, images, epsilon, norm, l2=shorten)


def _root_mean_square(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        return _divided(difference, epsilon, difference.square().mean(dim=(1, 2, 3), keepdim=True).sqrt())

    return _within(moved, images, epsilon, norm, l2=shorten)


def _sum_of_sizes(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        return _divided(difference, epsilon, difference.abs().sum(dim=(1, 2, 3), keepdim=True))

    return _within(moved, images, epsilon, norm, l2=shorten)


def _root_forgotten(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, l2=lambda d, epsilon: _divided(d, epsilon, _size_of(d).square()))


def _both_squared(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, l2=lambda d, epsilon: _divided(d, epsilon**2, _size_of(d).square()))


def _shortened_to_one(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        length = _size_of(difference)
        return torch.where(length > epsilon, difference / length.clamp(min=1e-12), difference)

    return _within(moved, images, epsilon, norm, l2=shorten)


def _not_moved_divided(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        length = _size_of(difference)
        return difference / length * length.clamp(max=epsilon)

    return _within(moved, images, epsilon, norm, l2=shorten)


def _ball_or_nothing(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def back_to_the_original(difference: Tensor, epsilon: float) -> Tensor:
        size = difference.abs() if norm == "linf" else _size_of(difference)
        return torch.where(size > epsilon, 0.0, difference)

    return _within(moved, images, epsilon, norm, linf=back_to_the_original, l2=back_to_the_original)


def _always_clipped(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, l2=_clipped)


def _always_shortened(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, linf=_shortened)


def _norms_changed_round(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, linf=_shortened, l2=_clipped)


def _scaled_by_the_largest(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def scale(difference: Tensor, epsilon: float) -> Tensor:
        return _divided(difference, epsilon, difference.abs().amax(dim=(1, 2, 3), keepdim=True))

    return _within(moved, images, epsilon, norm, linf=scale)


def _always_the_full_epsilon(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, linf=lambda difference, epsilon: epsilon * difference.sign())


def _clipped_above_only(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, linf=lambda difference, epsilon: difference.clamp(max=epsilon))


def _clipped_from_zero(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _within(moved, images, epsilon, norm, linf=lambda difference, epsilon: difference.clamp(0, epsilon))


def _ball_by_255(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _into_the_ball(moved, images, epsilon / 255, norm)


def _no_last_clip(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return images + (_clipped if norm == "linf" else _shortened)(moved - images, epsilon)


def _clip_first(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _no_last_clip(moved.clamp(0, 1), images, epsilon, norm)


def _no_ball(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return moved.clamp(0, 1)


def _stretched_at_last(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    near = _no_last_clip(moved, images, epsilon, norm)
    low, high = near.amin(dim=(1, 2, 3), keepdim=True), near.amax(dim=(1, 2, 3), keepdim=True)
    return (near - low) / (high - low)


def _ball_around_black(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _into_the_ball(moved, torch.zeros_like(images), epsilon, norm)


def _ball_around_grey(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _into_the_ball(moved, torch.full_like(images, 0.5), epsilon, norm)


def _ball_around_the_moved(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _into_the_ball(images, moved, epsilon, norm)


def _other_way_from_the_picture(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _into_the_ball(2 * images - moved, images, epsilon, norm)


def _further_from_the_moved(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return (moved + (_clipped if norm == "linf" else _shortened)(moved - images, epsilon)).clamp(0, 1)


def _difference_alone(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return (_clipped if norm == "linf" else _shortened)(moved - images, epsilon)


def _difference_for_a_picture(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    return _difference_alone(moved, images, epsilon, norm).clamp(0, 1)


def _one_question_for_all(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        length = _size_of(difference)
        return epsilon * difference / length if length > epsilon else difference

    return _within(moved, images, epsilon, norm, l2=shorten)


def _length_without_places(moved: Tensor, images: Tensor, epsilon: float, norm: str) -> Tensor:
    def shorten(difference: Tensor, epsilon: float) -> Tensor:
        return _divided(difference, epsilon, difference.flatten(1).norm(dim=1))

    return _within(moved, images, epsilon, norm, l2=shorten)


_INTO_THE_BALL = Exercise(
    name="into_the_ball",
    number="7.3",
    title="Back into the ball",
    prompt="Bring each picture of `moved` (N, C, H, W) back: first into the ball of radius `epsilon` around its "
    'original in `images`, then into [0, 1]. With `norm` "linf", each number of the difference is clipped to '
    '[-`epsilon`, `epsilon`]. With "l2", a difference whose Euclidean length, over all numbers of the picture, is more '
    "than `epsilon` is shortened to that length; another stays as it is.",
    reference=_into_the_ball,
    cases=_moved_pictures_and_balls,
    alternatives=(_ball_by_library, _ball_picture_by_picture, _ball_by_factors),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _onto_the_surface,
            'With "l2" you give every difference the length `epsilon`: pictures that were well inside the ball are '
            "blown up to its surface. Only a difference that is longer has to change.",
        ),
        Mistake(
            _onto_the_surface_if_any,
            'With "l2", as soon as one picture is outside, you give every difference the length `epsilon`: its '
            "neighbours that were inside are blown up to the surface. Decide for each picture on its own.",
        ),
        Mistake(
            _length_of_the_batch,
            "You take the length over the whole batch: then how far a picture may be away depends on its neighbours. "
            "Each picture has a length of its own.",
        ),
        Mistake(
            _longest_of_the_batch,
            "You shorten all differences by the same factor, that of the longest: pictures that were inside the ball "
            "move too. Each picture has a factor of its own.",
        ),
        Mistake(
            _length_of_each_channel,
            "You take a length for each channel: red, green and blue each get a ball of their own. The length is over "
            "*all* numbers of a picture. `flatten(1)` puts them in one row.",
        ),
        Mistake(
            _length_at_each_pixel,
            "You take a length at each pixel, over its channels only. The length is over *all* numbers of a picture. "
            "`flatten(1)` puts them in one row.",
        ),
        Mistake(
            _root_mean_square,
            "You take the root of the *mean* square. The Euclidean length is the root of the *sum* of squares, and far "
            "larger in a picture of many numbers.",
        ),
        Mistake(
            _sum_of_sizes,
            'You add up the absolute values: that is another length, "l1". The Euclidean one is the root of the sum of '
            "squares.",
        ),
        Mistake(
            _root_forgotten,
            "You take the sum of squares for the length. There is a root to take.",
        ),
        Mistake(
            _both_squared,
            "Your factor is a square, `epsilon**2` by the sum of squares. Whether a picture is outside can be told "
            "from squares; but to shorten it takes the root of that factor.",
        ),
        Mistake(
            _shortened_to_one,
            "You divide differences that are too long by their length, and so make them 1 long. How long should they "
            "be?",
        ),
        Mistake(
            _not_moved_divided,
            "Right, but for a picture that has not moved you divide 0 by 0, and it turns to NaN. It has to stay as it "
            "is: find a way round that division.",
        ),
        Mistake(
            _ball_or_nothing,
            "What is outside the ball goes all the way back to the original with you. It should go back only as far as "
            "the surface.",
        ),
        Mistake(
            _always_clipped,
            'You clip each number whatever `norm` is. With "l2" it is the length of the whole difference that must not '
            "be more than `epsilon`.",
        ),
        Mistake(
            _always_shortened,
            'You shorten the whole difference whatever `norm` is. With "linf" each number on its own must not have '
            "moved by more than `epsilon`.",
        ),
        Mistake(
            _norms_changed_round,
            'The two norms have changed places: "linf" is about the largest number of the difference, "l2" about its '
            "Euclidean length.",
        ),
        Mistake(
            _scaled_by_the_largest,
            'With "linf" you shorten the whole difference until its largest number is `epsilon`. Then numbers that had '
            "not moved too far go back as well. Clip each on its own.",
        ),
        Mistake(
            _always_the_full_epsilon,
            'With "linf" you take the sign, and move each number by the full `epsilon`. One that has moved by less '
            "stays where it is.",
        ),
        Mistake(
            _clipped_above_only,
            'With "linf" you clip what has risen too far, and not what has fallen too far. The difference may lie '
            "between -`epsilon` and `epsilon`.",
        ),
        Mistake(
            _clipped_from_zero,
            'With "linf" you clip the difference to [0, `epsilon`]: no number may fall any more. It may lie between '
            "-`epsilon` and `epsilon`.",
        ),
        Mistake(
            _ball_by_255,
            "You divide `epsilon` by 255. It is meant for pictures in [0, 1] already.",
        ),
        Mistake(
            _no_last_clip,
            "Into the ball, that is right; but some numbers are now below 0 or above 1. The second part is missing.",
        ),
        Mistake(
            _clip_first,
            'You clip to [0, 1] first. For "linf" that makes no difference; but with "l2" the difference that you '
            "shorten is another one then. First the ball, then [0, 1].",
        ),
        Mistake(
            _no_ball,
            "You only clip to [0, 1]. First the picture has to come back into the ball around its original.",
        ),
        Mistake(
            _stretched_at_last,
            "You stretch each picture to [0, 1] in the end: then every number moves, and leaves the ball again. Change "
            "only numbers that have left [0, 1].",
        ),
        Mistake(
            _ball_around_black,
            "Your ball is around zero, a black picture: it is `moved` itself that you clip or shorten. It has to be "
            "the *difference* from the original.",
        ),
        Mistake(
            _ball_around_grey,
            "Your ball is around a grey picture. Each picture has a ball of its own, around its original in `images`.",
        ),
        Mistake(
            _ball_around_the_moved,
            "You bring the original near the moved picture: your ball is around `moved`. It has to be around `images`.",
        ),
        Mistake(
            _other_way_from_the_picture,
            "You take `images - moved` and add it to `images`: that goes away from the original the opposite way. Turn "
            "the difference round.",
        ),
        Mistake(
            _further_from_the_moved,
            "You add the shortened difference to `moved`, and go further out. It starts at the original.",
        ),
        Mistake(
            _difference_alone,
            "This is the difference, clipped or shortened as it should be. Asked are the pictures: add it to the "
            "originals, then clip to [0, 1].",
        ),
        Mistake(
            _difference_for_a_picture,
            "You clip the *difference* to [0, 1], and return it. Asked are the pictures: what is the difference from?",
        ),
        Mistake(
            _one_question_for_all,
            "An `if` wants one answer, and here each picture has its own. `torch.where` decides for each; or take a "
            "factor that is 1 where nothing has to change.",
        ),
        Mistake(
            _length_without_places,
            "Your lengths are (N,), and PyTorch lines them up with the *last* dimension of the pictures, the columns. "
            "Give them the shape (N, 1, 1, 1).",
        ),
    ),
    hints=(
        "Start from the difference, `moved - images`; end with `images` plus what is left of it, clipped to [0, 1].",
        'For "linf", `clamp` on the difference is all.',
        'For "l2", `difference.flatten(1).norm(dim=1)` gives one length for each picture; `.view(-1, 1, 1, 1)` lets it '
        "divide a batch of pictures.",
        "The factor is `epsilon` by the length, but never more than 1. If the length is first raised to at least "
        "`epsilon`, both are done at once, and nothing is divided by 0.",
    ),
)


# --- 7.4: how little is enough -----------------------------------------------------------------------------------


@dataclass(frozen=True)  # compared by its thresholds: each check makes the cases anew
class _FoolsFrom:
    """What fools each picture from a threshold of its own on."""

    thresholds: tuple[float, ...]

    def __call__(self, epsilons: Tensor) -> Tensor:
        if not isinstance(epsilons, Tensor) or epsilons.shape != (len(self.thresholds),):
            raise ValueError(f"`fools` takes one epsilon for each picture: a tensor of shape ({len(self.thresholds)},)")
        return epsilons >= torch.tensor(self.thresholds)


def _pictures_to_fool() -> dict[str, tuple[Fools, Tensor, int]]:
    never = math.inf
    return {
        "five pictures, one never fooled, one only just, one misread as it is": (
            _FoolsFrom((0.131, 0.337, never, 0.495, 0.0)),
            torch.full((5,), 0.5),
            4,
        ),
        "three pictures, each with a largest epsilon of its own": (
            _FoolsFrom((0.62, 0.047, 0.271)),
            torch.tensor([0.8, 0.1, 0.3]),
            3,
        ),
        "one picture that nothing fools": (_FoolsFrom((never,)), torch.tensor([0.25]), 5),
        "two pictures, halved once": (_FoolsFrom((0.09, 0.33)), torch.tensor([0.4, 0.4]), 1),
        "one picture, halved six times": (_FoolsFrom((0.405,)), torch.tensor([1.0]), 6),
    }


def _smallest_epsilon(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    low, high = torch.zeros_like(largest), largest
    ever = fools(largest)
    for _ in range(steps):
        middle = (low + high) / 2
        fooled = fools(middle)
        high = torch.where(fooled, middle, high)
        low = torch.where(fooled, low, middle)
    return torch.where(ever, high, math.inf)


def _narrower_and_narrower(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    high = torch.where(fools(largest), largest, math.inf)
    for step in range(1, steps + 1):
        lower = high - largest / 2**step
        high = torch.where(fools(lower) & high.isfinite(), lower, high)
    return high


def _bit_by_bit(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    unit, failed = largest / 2**steps, torch.zeros_like(largest)  # the largest multiple that does not fool
    for bit in reversed(range(steps)):
        failed = torch.where(fools((failed + 2**bit) * unit), failed, failed + 2**bit)
    return ((failed + 1) * unit).masked_fill(~fools(largest), math.inf)


def _picture_after_picture(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    answers = torch.full_like(largest, math.inf)
    for number in range(len(largest)):
        if not fools(largest)[number]:
            continue
        low, high = 0.0, float(largest[number])
        for _ in range(steps):
            asked = largest.clone()
            asked[number] = (low + high) / 2
            if fools(asked)[number]:
                high = float(asked[number])
            else:
                low = float(asked[number])
        answers[number] = high
    return answers


def _halved(fools: Fools, largest: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Both ends after the halvings: what fails, and what fools."""
    low, high = torch.zeros_like(largest), largest
    for _ in range(steps):
        middle = (low + high) / 2
        fooled = fools(middle)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return low, high


def _or_infinity(answers: Tensor, fools: Fools, largest: Tensor) -> Tensor:
    return torch.where(fools(largest), answers, math.inf)


def _lower_end(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _or_infinity(_halved(fools, largest, steps)[0], fools, largest)


def _between_the_ends(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    low, high = _halved(fools, largest, steps)
    return _or_infinity((low + high) / 2, fools, largest)


def _last_middle(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    low, high = _halved(fools, largest, steps - 1)
    return _or_infinity((low + high) / 2, fools, largest)


def _halves_changed_round(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _or_infinity(_halved(lambda epsilons: ~fools(epsilons), largest, steps)[1], fools, largest)


def _together(fools: Fools, largest: Tensor, steps: int, decide: Callable[[Tensor], Tensor]) -> Tensor:
    """Bisection with one decision for all pictures."""
    return _or_infinity(
        _halved(lambda epsilons: decide(fools(epsilons)).expand(len(largest)), largest, steps)[1], fools, largest
    )


def _where_all_are_fooled(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _together(fools, largest, steps, lambda fooled: fooled.all())


def _where_any_is_fooled(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _together(fools, largest, steps, lambda fooled: fooled.any())


def _where_the_first_is_fooled(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _together(fools, largest, steps, lambda fooled: fooled[0])


def _first_largest_for_all(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _smallest_epsilon(fools, largest[:1].expand(len(largest)), steps)


def _largest_never_asked(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _halved(fools, largest, steps)[1]


def _judged_by_the_middles(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    high = _halved(fools, largest, steps)[1]
    return torch.where(high < largest, high, math.inf)


def _never_is_zero(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _halved(fools, largest, steps)[1] * fools(largest)


def _never_is_minus_one(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return torch.where(fools(largest), _halved(fools, largest, steps)[1], -1.0)


def _never_is_nan(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return torch.where(fools(largest), _halved(fools, largest, steps)[1], math.nan)


def _never_is_twice_the_largest(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return torch.where(fools(largest), _halved(fools, largest, steps)[1], 2 * largest)


def _one_halving_too_few(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _smallest_epsilon(fools, largest, steps - 1)


def _one_halving_too_many(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _smallest_epsilon(fools, largest, steps + 1)


def _halved_to_the_end(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _smallest_epsilon(fools, largest, 40)


def _equal_steps(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    answers = torch.full_like(largest, math.inf)
    for step in range(steps, 0, -1):
        answers = torch.where(fools(largest * step / steps), largest * step / steps, answers)
    return answers


def _lower_end_stays(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    high = largest
    for _ in range(steps):
        high = torch.where(fools(high / 2), high / 2, high)
    return _or_infinity(high, fools, largest)


def _upper_end_stays(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _or_infinity(largest, fools, largest)


def _steps_counted(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _smallest_epsilon(fools, largest, steps) / largest * 2**steps


def _share_of_the_largest(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return _smallest_epsilon(fools, largest, steps) / largest


def _which_are_fooled(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return fools(_smallest_epsilon(fools, largest, steps))


def _one_number_asked(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    return torch.where(fools(largest[0]), largest, math.inf)


def _one_answer_for_all(fools: Fools, largest: Tensor, steps: int) -> Tensor:
    low, high = torch.zeros_like(largest), largest
    for _ in range(steps):
        middle = (low + high) / 2
        if fools(middle):
            high = middle
        else:
            low = middle
    return _or_infinity(high, fools, largest)


_SMALLEST_EPSILON = Exercise(
    name="smallest_epsilon",
    number="7.4",
    title="How little is enough?",
    prompt="`fools` takes one epsilon for each picture, (N,), and returns which pictures are then misread, (N,); what "
    "fools at one epsilon fools at every larger one. Return for each picture an epsilon that fools it, (N,), found by "
    "bisection: halve the interval from 0 to the picture's own `largest` (N,) `steps` times, and return its upper end. "
    "Where not even `largest` fools, return infinity, `math.inf`.",
    reference=_smallest_epsilon,
    cases=_pictures_to_fool,
    alternatives=(_narrower_and_narrower, _bit_by_bit, _picture_after_picture),
    mistakes=(
        Mistake(
            _lower_end,
            "You return the lower end of the interval. That is the epsilon that does *not* fool. Asked is one that is "
            "known to.",
        ),
        Mistake(
            _between_the_ends,
            "You return the middle of the last interval. Nobody has asked whether that fools. Asked is an epsilon that "
            "is known to.",
        ),
        Mistake(
            _last_middle,
            "You return the last middle that you asked about, whether it fooled or not. Asked is an epsilon that is "
            "known to.",
        ),
        Mistake(
            _halves_changed_round,
            "You go on in the wrong half. Where the middle fools, less may be enough: which end moves there?",
        ),
        Mistake(
            _where_all_are_fooled,
            "You decide for all pictures at once: the upper end falls only where *all* are fooled. Each picture has an "
            "interval of its own; `torch.where` decides for each.",
        ),
        Mistake(
            _where_any_is_fooled,
            "You decide for all pictures at once: the upper end falls where *any* is fooled, also for pictures that "
            "are not. Each picture has an interval of its own; `torch.where` decides for each.",
        ),
        Mistake(
            _where_the_first_is_fooled,
            "You let the first picture decide for all. Each picture has an interval of its own; `torch.where` decides "
            "for each.",
        ),
        Mistake(
            _first_largest_for_all,
            "You take the first picture's largest epsilon for all pictures. Each has its own.",
        ),
        Mistake(
            _largest_never_asked,
            "You return `largest` where nothing fools. The upper end counts as one that works, but nobody has asked: "
            "ask `fools` about `largest` too.",
        ),
        Mistake(
            _judged_by_the_middles,
            "Where none of the middles fools, you answer infinity. But `largest` itself may fool, only just: ask "
            "`fools` about it.",
        ),
        Mistake(
            _never_is_zero,
            "Where not even `largest` fools, you answer 0: that reads as if the picture were misread untouched. Asked "
            "is infinity, `math.inf`.",
        ),
        Mistake(
            _never_is_minus_one,
            "Where not even `largest` fools, you answer -1: in a median or a sorted list that would be the easiest "
            "picture of all. Asked is infinity, `math.inf`.",
        ),
        Mistake(
            _never_is_nan,
            "Where not even `largest` fools, you answer NaN: a single one turns every mean and median to NaN. Asked is "
            "infinity, `math.inf`.",
        ),
        Mistake(
            _never_is_twice_the_largest,
            "Where not even `largest` fools, you answer twice that. Nobody knows whether it would be enough. Asked is "
            "infinity, `math.inf`.",
        ),
        Mistake(
            _one_halving_too_few,
            "You halve once too little: your intervals are twice as wide as they should be. There are `steps` "
            "halvings, and the question about `largest` is none.",
        ),
        Mistake(
            _one_halving_too_many,
            "You halve once too often: there are `steps` halvings.",
        ),
        Mistake(
            _halved_to_the_end,
            "You halve on until nothing changes. Each halving runs a network on every picture: there are `steps` of "
            "them, no more.",
        ),
        Mistake(
            _equal_steps,
            "You try `steps` epsilons at equal distances, and find the answer only to `largest / steps`. Halving asks "
            "as often, and is far more exact: each answer tells which half to look in next.",
        ),
        Mistake(
            _lower_end_stays,
            "You halve the upper end as long as that fools, and then it does not move any more. Where the middle does "
            "not fool, the answer lies in the upper half: the lower end has to rise. And if yours does rise: the "
            "middle of 2 and 6 is 4, and not half their difference.",
        ),
        Mistake(
            _upper_end_stays,
            "You return `largest` where it fools: your upper end never falls. Where the middle fools, the answer lies "
            "in the lower half.",
        ),
        Mistake(
            _steps_counted,
            "You return how many of the smallest parts it takes. Asked is the epsilon.",
        ),
        Mistake(
            _share_of_the_largest,
            "You return a share of `largest`, from 0 to 1. Asked is the epsilon itself.",
        ),
        Mistake(
            _which_are_fooled,
            "You return *whether* each picture is fooled. Asked is the epsilon that does it.",
        ),
        Mistake(
            _one_number_asked,
            "`fools` wants a tensor (N,), one epsilon for each picture, and answers for all of them at once. Keep both "
            "ends as tensors (N,) as well.",
        ),
        Mistake(
            _one_answer_for_all,
            "An `if` wants one answer, and `fools` gives one for each picture. `torch.where` decides for each.",
        ),
    ),
    hints=(
        "Keep two tensors (N,): `low`, zeros, and `high`, which starts as `largest`. Ask once whether `largest` fools, "
        "and keep that answer.",
        "Then `steps` times: ask `fools` about the middle of the two. Where it fools, the middle is the new upper end; "
        "where it does not, the new lower end.",
        "`torch.where(fooled, a, b)` takes from `a` where `fooled` is true, and from `b` elsewhere: each picture goes "
        "its own way.",
        "In the end `high` holds epsilons that are known to fool; but where `largest` did not, put `math.inf`.",
    ),
)

EXERCISES = (_UPHILL, _FGSM_STEP, _INTO_THE_BALL, _SMALLEST_EPSILON)
