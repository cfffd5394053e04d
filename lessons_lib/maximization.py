"""Make the picture that a part of the network likes best: gradient ascent on the pixels.

An objective gives each picture a score; the gradient of the score says how to change the picture, again and again. Left
to itself this finds patterns that no photograph has. Each remedy asks for a picture that is likely for a reason of its
own: small (Simonyan et al., 2014), smooth (Mahendran and Vedaldi, 2015), blurred now and then (Yosinski et al., 2015),
liked also when it is moved and turned, with the spectrum and the colours of photographs (Olah et al., 2017).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._checks import check_number, check_whole_number
from .hooks import Capture, check_model, check_runs_once, evaluating, frozen
from .pixel_gradient import fast_pixel_gradient
from .resnet import Normalize

Layer = nn.Module | str | None
"""A module of the model, its name, or None for the layer that scores the classes."""
Transform = Callable[[Tensor, torch.Generator], Tensor]
"""Pictures (N, 3, H, W) and a source of chance to pictures (N, 3, H', W')."""
Edit = Callable[[Tensor, Tensor, int], Tensor]
"""Centred pictures (N, 3, H, W), the gradient of the score with respect to them, and the step to centred pictures."""
Watch = Callable[[int, Tensor, Tensor], None]
"""Number of steps done, pictures (N, 3, H, W) in [0, 1] and their scores (N,)."""


def maximize(
    model: nn.Module,
    objective: Objective | Sequence[Objective],
    *,
    steps: int = 256,
    size: int = 224,
    count: int = 1,
    start: Tensor | None = None,
    parametrization: str = "fourier",
    rule: str | None = None,
    step_size: float | None = None,
    transforms: Sequence[Transform] = (),
    edits: Sequence[Edit] = (),
    seed: int = 0,
    watch: Watch | None = None,
    progress: bool = False,
) -> Tensor:
    """Pictures (N, 3, size, size) in [0, 1] that score high: `count` of them for each objective, in one batch.

    They begin as grey noise, or as `start` (count, 3, H, W) for each objective. `parametrization` is what moves:
    "pixels", or the coefficients of "fourier" waves in uncorrelated colours. `rule` makes a step of a gradient g:
    "ascent" adds step_size * g, "normalized" first divides g by its root mean square in each picture, "adam" is that of
    Kingma and Ba, 2015; by default pixels move by normalized steps of 0.02, waves by Adam's of 0.05. `transforms`
    change the pictures before each look at them, `edits` after each step (pixels only). `watch` is called before each
    step and behind the last. Source: Erhan et al., 2009; Olah et al., 2017.

    Raises TypeError or ValueError for bad input before the first step, also for an objective that no change of the
    first picture moves; warns of one that never answered, such as a dead channel.
    """
    objectives = _checked_objectives(objective)
    transforms, edits = _functions("transforms", transforms), _functions("edits", edits)
    _check_settings(model, steps, size, count, parametrization, rule, step_size, edits, start, seed, watch)
    rule = rule if rule is not None else _USUAL_RULE[parametrization]
    step_size = step_size if step_size is not None else _USUAL_STEP[rule]
    random = torch.Generator().manual_seed(int(seed))
    scorer = _Scorer(model, objectives, count)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        frozen(model),
        _bar(steps, progress) as bar,
    ):
        centre = mean_colour(model)
        noise = torch.randn(count, 3, *(start.shape[-2:] if start is not None else (size, size)), generator=random)
        picture = _PARAMETRIZATIONS[parametrization](noise.to(centre), start, centre, copies=len(objectives))
        check_runs_once(model, scorer.modules.values(), picture.images().detach())
        move = _RULES[rule](picture.variable, step_size)
        answered = ~scorer.needs_network
        for step in range(steps):
            images = picture.images()
            seen = images.clone() if transforms else images  # a transform may work in place
            for transform in transforms:
                seen = transform(seen, random)
                if not isinstance(seen, Tensor) or seen.ndim != 4 or seen.shape[:2] != images.shape[:2]:
                    came = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
                    raise ValueError(f"transforms must return {len(images)} pictures (N, 3, H, W), not {came}")
            scores, to_seen, to_images = scorer(seen, images)
            if not scores.isfinite().all():
                names = _names_of(~scores.isfinite().cpu(), objectives, count)
                raise ValueError(f"objective {names}: its score is not finite at step {step}")
            asleep = scorer.needs_network & ~to_seen.flatten(1).any(dim=1).cpu()
            answered |= ~asleep
            if asleep.any():
                # A ReLU that is off everywhere lets no gradient through: ask what would switch it on, and that alone.
                with waking(model):
                    _, woken, _ = scorer(images, images, only=asleep)
                if step == 0:
                    _refuse_the_dead(asleep & ~woken.flatten(1).any(dim=1).cpu(), objectives, count)
                to_images = torch.where(asleep.to(woken.device).view(-1, 1, 1, 1), woken, to_images)
            if not seen.requires_grad:
                raise ValueError("transforms must pass gradients on: one of them detaches the pictures")
            (gradient,) = torch.autograd.grad((seen, images), picture.variable, (to_seen, to_images))
            lost = ~gradient.flatten(1).isfinite().all(dim=1).cpu()
            if lost.any():
                names = _names_of(lost, objectives, count)
                raise ValueError(f"objective {names}: its gradient is not finite at step {step}")
            if watch is not None:
                watch(step, images.detach().clone(), scores)
            move(gradient)
            picture.settle(edits, gradient, step)
            bar.update()
        images = picture.images().detach()
        if watch is not None or not steps:
            scores, _, _ = scorer(images, images)
            if watch is not None:
                watch(steps, images.clone(), scores)
    if steps and not answered.all():
        warnings.warn(
            f"objective {_names_of(~answered, objectives, count)} never had a gradient of its own: what its picture "
            "shows is the way to switching it on, not an answer. A dead channel, or too few steps?",
            RuntimeWarning,
            stacklevel=2,
        )
    return images


# --- what to maximize -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Objective:
    """A score for each picture; objectives add, subtract, and scale by numbers.

    `score` takes what `layers` put out, by layer, and the pictures (N, 3, H, W) before any transform, and returns (N,).
    """

    name: str
    layers: tuple[Layer, ...]
    score: Callable[[Mapping[Layer, Tensor], Tensor], Tensor]

    def __add__(self, other: Objective) -> Objective:
        if not isinstance(other, Objective):
            return NotImplemented
        return Objective(
            f"{self.name} + {other.name}",
            (*self.layers, *other.layers),
            lambda outputs, images: self.score(outputs, images) + other.score(outputs, images),
        )

    def __mul__(self, factor: float) -> Objective:
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        return Objective(
            f"{factor:g} * ({self.name})", self.layers, lambda outputs, images: factor * self.score(outputs, images)
        )

    __rmul__ = __mul__

    def __neg__(self) -> Objective:
        return -1 * self

    def __sub__(self, other: Objective) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented

    def __radd__(self, other: int) -> Objective:
        return self if type(other) is int and other == 0 else NotImplemented  # where `sum` of a list begins

    def __repr__(self) -> str:
        return f"Objective({self.name})"


def channel(layer: nn.Module | str, index: int) -> Objective:
    """The mean of one channel over all places of the feature map."""
    check_whole_number("channel", index)
    return Objective(
        f"channel {index}",
        (layer,),
        lambda outputs, images: _one(_maps(outputs[layer]), index, "channel").mean(dim=(1, 2)),
    )


def neuron(layer: nn.Module | str, index: int, row: int | None = None, column: int | None = None) -> Objective:
    """One channel at one place of the feature map, by default the one in the middle."""
    check_whole_number("channel", index)
    for name, value in (("row", row), ("column", column)):
        if value is not None:
            check_whole_number(name, value)

    def score(outputs: Mapping[Layer, Tensor], images: Tensor) -> Tensor:
        maps = _one(_maps(outputs[layer]), index, "channel")
        places = []
        for name, wanted, length in zip(("row", "column"), (row, column), maps.shape[1:], strict=True):
            if wanted is not None and wanted >= length:
                raise ValueError(f"{name} {wanted} is out of range: the feature map has {length} (0 to {length - 1})")
            places.append(length // 2 if wanted is None else wanted)
        return maps[:, places[0], places[1]]

    return Objective(f"neuron {index}", (layer,), score)


def layer(layer: nn.Module | str) -> Objective:
    """The mean square of a whole layer: more of whatever it sees already (DeepDream; Mordvintsev et al., 2015)."""
    return Objective("layer", (layer,), lambda outputs, images: outputs[layer].square().flatten(1).mean(dim=1))


def logit(target: int, layer: Layer = None) -> Objective:
    """The score of a class: what the last layer with weights puts out for it, averaged over places where it has any.

    For most networks that is the logit. SqueezeNet has one more ReLU in between, without a gradient where it is off.
    """
    check_whole_number("target", target)

    def score(outputs: Mapping[Layer, Tensor], images: Tensor) -> Tensor:
        if outputs[layer].ndim not in (2, 4):
            raise ValueError(f"the layer puts out {tuple(outputs[layer].shape)}, not scores (N, K) or maps of them")
        scores = _one(outputs[layer], target, "target")
        return scores if scores.ndim == 1 else scores.flatten(1).mean(dim=1)

    return Objective(f"class {target}", (layer,), score)


def diversity(layer: nn.Module | str) -> Objective:
    """How little the pictures of one batch have in common: (N,), from -1 (all alike) up to 1.

    Minus the mean cosine between the Gram matrices of a picture's and each other's feature map: which channels are on
    together, anywhere (Olah et al., 2017). Raises ValueError for a single picture.
    """

    def score(outputs: Mapping[Layer, Tensor], images: Tensor) -> Tensor:
        maps = _maps(outputs[layer]).flatten(2)
        if len(maps) < 2:
            raise ValueError("diversity compares pictures: ask for count=2 or more")
        grams = functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1)
        alike = grams @ grams.T
        return -(alike.sum(dim=1) - alike.diagonal()) / (len(maps) - 1)

    return Objective("diversity", (layer,), score)


def l2(centre: float | Tensor = 0.5) -> Objective:
    """How far a picture is from even grey, or from a colour (3,): the sum of its squared differences, ||I||^2."""
    if isinstance(centre, Tensor):
        if centre.shape != (3,):
            raise ValueError(f"centre must be a number or a colour (3,), not of the shape {tuple(centre.shape)}")
    else:
        check_number("centre", centre)
    middle = centre.view(3, 1, 1) if isinstance(centre, Tensor) else centre
    return Objective("l2", (), lambda outputs, images: (images - middle).square().sum(dim=(1, 2, 3)))


def total_variation() -> Objective:
    """How much neighbours differ: the sum of the sizes of all differences, across and down (Rudin et al., 1992)."""

    def score(outputs: Mapping[Layer, Tensor], images: Tensor) -> Tensor:
        down = (images[:, :, 1:] - images[:, :, :-1]).abs().sum(dim=(1, 2, 3))
        across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().sum(dim=(1, 2, 3))
        return down + across

    return Objective("total variation", (), score)


# --- what a picture must survive, and what is done to it ---------------------------------------------------------


def jitter(pixels: int) -> Transform:
    """Shift by up to `pixels` in both directions; what comes in at an edge is the mirror of what was there."""
    check_whole_number("pixels", pixels)

    def transform(images: Tensor, random: torch.Generator) -> Tensor:
        down, across = torch.randint(0, 2 * pixels + 1, (2,), generator=random).tolist()
        height, width = images.shape[2:]
        if pixels >= min(height, width):
            raise ValueError(f"pixels must be less than the picture's {min(height, width)}, not {pixels}")
        padded = functional.pad(images, (pixels,) * 4, mode="reflect")
        return padded[:, :, down : down + height, across : across + width]

    return transform


def scale(smallest: float, largest: float) -> Transform:
    """Enlarge around the middle by a factor between `smallest` and `largest`; the size in pixels stays."""
    for factor in (smallest, largest):
        check_number("factors", factor)
    if not 0 < smallest <= largest < math.inf:
        raise ValueError(f"the factors must be above 0, and the smallest first, not {smallest} and {largest}")

    def transform(images: Tensor, random: torch.Generator) -> Tensor:
        factor = smallest + (largest - smallest) * torch.rand((), generator=random).item()
        return _mapped(images, 1 / factor, 0.0)

    return transform


def rotate(degrees: float) -> Transform:
    """Turn around the middle by up to `degrees` either way; the corners are filled with what is mirrored there."""
    check_number("degrees", degrees)
    if not 0 <= degrees <= 180:
        raise ValueError(f"degrees must lie in [0, 180], not {degrees}")

    def transform(images: Tensor, random: torch.Generator) -> Tensor:
        angle = math.radians(degrees) * (2 * torch.rand((), generator=random).item() - 1)
        return _mapped(images, 1.0, angle)

    return transform


def blur(every: int, sigma: float) -> Edit:
    """Every so many steps, a Gaussian blur of `sigma` pixels (Yosinski et al., 2015)."""
    check_whole_number("every", every, least=1)
    kernel = _gaussian(sigma)

    def edit(centred: Tensor, gradient: Tensor, step: int) -> Tensor:
        return _smooth(centred, kernel) if (step + 1) % every == 0 else centred

    return edit


def clip_small_norm(share: float, every: int = 1) -> Edit:
    """Set to grey that share of a picture's pixels that are nearest to grey already (Yosinski et al., 2015)."""
    _check_share(share)
    check_whole_number("every", every, least=1)

    def edit(centred: Tensor, gradient: Tensor, step: int) -> Tensor:
        if (step + 1) % every:
            return centred
        return centred * _above(centred.norm(dim=1, keepdim=True), share)

    return edit


def clip_small_contribution(share: float, every: int = 1) -> Edit:
    """Set to grey that share of a picture's pixels without which the score would change least.

    By the first term of the Taylor series: pixel times gradient, added over the colours, as a size (Yosinski et al.,
    2015).
    """
    _check_share(share)
    check_whole_number("every", every, least=1)

    def edit(centred: Tensor, gradient: Tensor, step: int) -> Tensor:
        if (step + 1) % every:
            return centred
        return centred * _above((centred * gradient).sum(dim=1, keepdim=True).abs(), share)

    return edit


# --- what the gradient moves -------------------------------------------------------------------------------------

# Three axes along which the colours of ImageNet's photographs vary independently, and how far: dark to bright, blue to
# yellow, green to red. As published with Olah et al., 2017 (lucid), brought to the largest length 1.
_COLOURS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]], dtype=torch.float64)
_COLOURS = _COLOURS / _COLOURS.norm(dim=0).max()
_NEARLY_WHITE = 1e-3  # how near to 0 and 1 a sigmoid is asked to bring a number


def fourier_images(coefficients: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (N, 3, H, W) in (0, 1), `size` (H, W), from the coefficients (N, 3, H, W // 2 + 1, 2) of waves.

    Each wave is weighed by one over its frequency, as in photographs (Field, 1987); the three channels are uncorrelated
    colours; a sigmoid keeps the result in range. Coefficients of 0 are grey. Raises ValueError where the shapes do not
    fit together.
    """
    height, width = size
    if coefficients.ndim != 5 or coefficients.shape[1:] != (3, height, width // 2 + 1, 2):
        wanted = f"(N, 3, {height}, {width // 2 + 1}, 2)"
        raise ValueError(f"coefficients must have the shape {wanted} for {size}, not {tuple(coefficients.shape)}")
    weighed = torch.view_as_complex(coefficients.contiguous()) * _falling(size).to(coefficients)
    planes = torch.fft.irfft2(weighed, s=size, norm="ortho")
    return torch.einsum("rc,nchw->nrhw", _COLOURS.to(planes), planes).sigmoid()


def fourier_coefficients(images: Tensor) -> Tensor:
    """The coefficients (N, 3, H, W // 2 + 1, 2) of pictures (N, 3, H, W) in [0, 1]: the inverse of `fourier_images`.

    Black and white are out of a sigmoid's reach: numbers nearer than 0.001 to 0 or 1 are moved there.
    """
    flat = images.clamp(_NEARLY_WHITE, 1 - _NEARLY_WHITE).logit()
    planes = torch.einsum("cr,nrhw->nchw", torch.linalg.inv(_COLOURS).to(flat), flat)
    size = (images.shape[2], images.shape[3])
    return torch.view_as_real(torch.fft.rfft2(planes, norm="ortho") / _falling(size).to(images))


def mean_colour(model: nn.Module) -> Tensor:
    """The colour (3,) in [0, 1] that `model` takes for 0: the mean its first `Normalize` subtracts, or else grey."""
    like = next(model.parameters(), torch.empty(0))
    for module in model.modules():
        if isinstance(module, Normalize):
            return module.mean.flatten().to(like)
    return torch.full((3,), 0.5).to(like)


class _Pixels:
    """The variable is the picture itself."""

    def __init__(self, noise: Tensor, start: Tensor | None, centre: Tensor, copies: int) -> None:
        self.centre = centre.view(3, 1, 1)
        begin = self.centre + 0.01 * noise if start is None else start.detach().to(noise)
        self.variable = begin.clamp(0, 1).repeat(copies, 1, 1, 1).requires_grad_()

    def images(self) -> Tensor:
        return self.variable

    @torch.no_grad()
    def settle(self, edits: Sequence[Edit], gradient: Tensor, step: int) -> None:
        for edit in edits:
            edited = edit(self.variable - self.centre, gradient, step)
            if not isinstance(edited, Tensor) or edited.shape != self.variable.shape:
                came = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
                raise ValueError(f"edits must return pictures {tuple(self.variable.shape)}, not {came}")
            if not edited.isfinite().all():
                raise ValueError(f"edits must return numbers: one of them is not finite at step {step}")
            self.variable.copy_(edited + self.centre)
        self.variable.clamp_(0, 1)


class _Fourier:
    """The variable is the coefficients of waves."""

    def __init__(self, noise: Tensor, start: Tensor | None, centre: Tensor, copies: int) -> None:
        self.size = (noise.shape[2], noise.shape[3])
        begin = (
            0.01 * torch.view_as_real(torch.fft.rfft2(noise, norm="ortho"))
            if start is None
            else fourier_coefficients(start.detach().to(noise))
        )
        self.variable = begin.repeat(copies, 1, 1, 1, 1).requires_grad_()

    def images(self) -> Tensor:
        return fourier_images(self.variable, self.size)

    def settle(self, edits: Sequence[Edit], gradient: Tensor, step: int) -> None:
        """Nothing to do: a sigmoid keeps the range, and edits are for pixels."""


def _falling(size: tuple[int, int]) -> Tensor:
    """One over the frequency of each wave of `torch.fft.rfft2`, (H, W // 2 + 1); the even one counts as the longest."""
    height, width = size
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    return 0.25 / torch.hypot(down, across).clamp(min=1 / max(size))


_PARAMETRIZATIONS: Mapping[str, type[_Pixels] | type[_Fourier]] = {"pixels": _Pixels, "fourier": _Fourier}


# --- how a gradient becomes a step -------------------------------------------------------------------------------


def _ascent(variable: Tensor, step_size: float) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def move(gradient: Tensor) -> None:
        variable.add_(gradient, alpha=step_size)

    return move


def _normalized(variable: Tensor, step_size: float) -> Callable[[Tensor], None]:
    @torch.no_grad()
    def move(gradient: Tensor) -> None:
        flat = gradient.flatten(1)
        # Brought to a largest size of 1 first: squares of faint gradients would vanish.
        flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny)
        size = flat.square().mean(dim=1, keepdim=True).sqrt()
        variable.add_((flat / size.clamp(min=torch.finfo(flat.dtype).tiny)).view_as(gradient), alpha=step_size)

    return move


def _adam(variable: Tensor, step_size: float) -> Callable[[Tensor], None]:
    # By hand: the first step of PyTorch's own loads its compiler, which takes longer than many a picture.
    mean, square, steps = torch.zeros_like(variable), torch.zeros_like(variable), 0

    @torch.no_grad()
    def move(gradient: Tensor) -> None:
        nonlocal steps
        steps += 1
        mean.lerp_(gradient, 1 - 0.9)
        square.lerp_(gradient.square(), 1 - 0.999)
        size = (square / (1 - 0.999**steps)).sqrt_().add_(1e-8)
        variable.addcdiv_(mean, size, value=step_size / (1 - 0.9**steps))

    return move


_RULES = {"ascent": _ascent, "normalized": _normalized, "adam": _adam}
_USUAL_RULE = {"pixels": "normalized", "fourier": "adam"}
_USUAL_STEP = {"ascent": 1.0, "normalized": 0.02, "adam": 0.05}


# --- scores and their gradient -----------------------------------------------------------------------------------


class _Scorer:
    """All objectives on one batch: objective k looks at pictures k * count to (k + 1) * count."""

    def __init__(self, model: nn.Module, objectives: Sequence[Objective], count: int) -> None:
        self.model, self.objectives, self.count = model, objectives, count
        self.needs_network = torch.tensor([bool(one.layers) for one in objectives]).repeat_interleave(count)
        for key in (key for objective in objectives for key in objective.layers):
            if key is not None and not isinstance(key, str | nn.Module):
                raise TypeError(f"layer must be a module of the model or its name, not {type(key).__name__}")
        wanted = {key: _resolved(model, key) for objective in objectives for key in objective.layers}
        known = {module: name or type(module).__name__ for name, module in model.named_modules()}
        names = {module: known[module] for module in wanted.values()}
        self.modules = {name: module for module, name in names.items()}
        self.name_of = {key: names[module] for key, module in wanted.items()}
        # Convolutions on a CPU are faster by a third with the colours of a pixel side by side.
        self.layout = torch.channels_last

    def __call__(self, seen: Tensor, images: Tensor, *, only: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The scores (N,), and their gradient by what the network sees and by the pictures themselves.

        `only` (N,) leaves out the objectives none of whose pictures is marked, and zeros in their place.
        """
        wanted: Sequence[int] = range(len(self.objectives))
        if only is not None:
            wanted = only.view(-1, self.count).any(dim=1).nonzero().flatten().tolist()
        scores, to_seen, to_images = images.new_zeros(len(images)), torch.zeros_like(seen), torch.zeros_like(images)
        at_once = len(wanted)
        if images.device.type == "cpu":
            at_once = max(1, _PIXELS_AT_ONCE // (images.shape[2] * images.shape[3] * self.count))
        for first in range(0, len(wanted), at_once):
            group = wanted[first : first + at_once]
            its = torch.cat([torch.arange(self.count) + k * self.count for k in group])
            scores[its], to_seen[its], to_images[its] = self._of(group, seen[its], images[its])
        return scores, to_seen, to_images

    def _of(self, group: Sequence[int], seen: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = seen.detach().contiguous(memory_format=self.layout).requires_grad_()
        try:
            with fast_pixel_gradient():
                return self._scored(group, seen, images.detach().requires_grad_())
        except RuntimeError:
            if self.layout is torch.contiguous_format:
                raise
            # A network, or an objective, that flattens by `view` takes the usual layout only.
            self.layout = torch.contiguous_format
            return self._of(group, seen, images)

    def _scored(self, group: Sequence[int], seen: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        outputs: Mapping[str, Tensor] = {}
        if self.modules:
            with Capture(self.model, self.modules, stop=True) as outputs:
                self.model(seen)
        each = []
        for place, objective in enumerate(self.objectives[k] for k in group):
            its = slice(place * self.count, (place + 1) * self.count)
            try:
                own = {key: outputs[self.name_of[key]][its] for key in objective.layers}
            except KeyError as error:
                raise ValueError(error.args[0]) from None
            score = objective.score(own, images[its])
            if not isinstance(score, Tensor) or score.shape != (self.count,):
                came = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
                raise ValueError(f"{objective!r} must give one score for each of {self.count} pictures, not {came}")
            each.append(score.to(images.dtype))
        scores = torch.cat(each)
        if not scores.requires_grad:  # an objective that depends on nothing
            return scores, torch.zeros_like(seen), torch.zeros_like(images)
        to_seen, to_images = torch.autograd.grad(
            scores.sum(), (seen, images), allow_unused=True, materialize_grads=True
        )
        return scores.detach(), to_seen, to_images


# Larger groups are slower on a CPU: memory for their feature maps comes from the system anew each time. And the pixels
# of one picture of the usual size give two threads enough to do.
_PIXELS_AT_ONCE = 2 * 224 * 224


def class_layer(model: nn.Module) -> nn.Module:
    """The layer that scores the classes, which is taken to be the last convolution or linear layer that was defined.

    Raises ValueError where there is none.
    """
    weighing = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if not weighing:
        raise ValueError("the model has no convolution and no linear layer that could score classes: name the layer")
    return weighing[-1]


class _Woken(torch.autograd.Function):
    """A ReLU whose gradient, where nothing of a picture would pass, passes what would switch units on.

    The way of lucid (Olah et al., 2017): exact wherever any gradient passes at all.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (gradient,) = gradients
        passed = gradient * (x > 0)
        blocked = ~passed.flatten(1).any(dim=1).view(-1, *[1] * (x.ndim - 1))
        return torch.where(blocked, gradient.clamp(min=0), passed)


@contextmanager
def waking(model: nn.Module) -> Iterator[None]:
    """Within the `with`, every `nn.ReLU` of the model has the gradient of `_Woken`."""
    inputs: dict[nn.Module, Tensor] = {}

    def before(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        inputs[module] = given[0]
        return (given[0].clone(),)  # one that works in place overwrites the copy

    def after(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        woken: Tensor = _Woken.apply(inputs.pop(module))  # type: ignore[no-untyped-call]
        return woken

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                hooks.callback(module.register_forward_pre_hook(before).remove)
                # First: what others hooked on here must see, and may stop at, is the changed output.
                hooks.callback(module.register_forward_hook(after, prepend=True).remove)
        yield


def _refuse_the_dead(dead: Tensor, objectives: Sequence[Objective], count: int) -> None:
    if dead.any():
        raise ValueError(
            f"objective {_names_of(dead, objectives, count)}: no small change of the first picture changes its score. "
            "A dead channel, or one that needs another `start`?"
        )


def _names_of(pictures: Tensor, objectives: Sequence[Objective], count: int) -> str:
    """The objectives that one of the marked pictures (N,) belongs to."""
    marked = pictures.view(-1, count).any(dim=1).tolist()
    return ", ".join(one.name for one, its in zip(objectives, marked, strict=True) if its)


# --- what is measured afterwards ---------------------------------------------------------------------------------


def round_to_8_bits(images: Tensor) -> Tensor:
    """The pictures (N, 3, H, W) in [0, 1] as they are once saved: every number a multiple of 1/255."""
    return (images * 255).round() / 255


def robust_probability(
    model: nn.Module, images: Tensor, target: int | Tensor, *, looks: int = 32, seed: int = 0
) -> Tensor:
    """The mean probability (N,) of `target` over random looks at each picture (N, 3, H, W), rounded to 8 bits.

    Each look shifts by up to a twelfth of the size, scales by 0.85 to 1.15 and blurs with a sigma of up to 1 pixel.
    What works for these very pixels only falls far below the picture's own probability.
    """
    check_model(model)
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise TypeError("images must be a tensor (N, 3, H, W)")
    if not images.is_floating_point() or not (images.min() >= 0 and images.max() <= 1):
        raise ValueError("images must be floating point numbers in [0, 1]")
    check_whole_number("looks", looks, least=1)
    check_whole_number("seed", seed, below=2**63)
    if not isinstance(target, Tensor):
        check_whole_number("target", target)
    elif target.shape != (len(images),) or target.dtype != torch.int64:
        raise ValueError(f"target must be a class, or whole numbers ({len(images)},), not {tuple(target.shape)}")
    random = torch.Generator().manual_seed(int(seed))
    targets = torch.as_tensor(target, device=images.device).expand(len(images))
    moves = (jitter(min(images.shape[2:]) // 12), scale(0.85, 1.15))
    total = images.new_zeros(len(images))
    with evaluating(model), torch.no_grad():
        for _ in range(looks):
            seen = round_to_8_bits(images)
            for move in moves:
                seen = move(seen, random)
            seen = _smooth(seen, _gaussian(0.01 + torch.rand((), generator=random).item()))
            logits = model(seen)
            if not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
                classes = logits.shape[1]
                raise ValueError(
                    f"target {target} is out of range: the network has {classes} classes (0 to {classes - 1})"
                )
            total += logits.softmax(dim=1).gather(1, targets[:, None])[:, 0]
    return total / looks


# --- details -----------------------------------------------------------------------------------------------------


def _one(output: Tensor, index: int, name: str) -> Tensor:
    """Channel (or class) `index` of what a layer put out: (N, h, w), or (N,) behind a linear layer."""
    if index >= output.shape[1]:
        raise ValueError(
            f"{name} {index} is out of range: the layer has {output.shape[1]} (0 to {output.shape[1] - 1})"
        )
    return output[:, index]


def _maps(output: Tensor) -> Tensor:
    if output.ndim != 4:
        raise ValueError(
            f"the layer puts out {tuple(output.shape)}, no feature map (N, C, h, w): `logit` takes one of its numbers"
        )
    return output


def _mapped(images: Tensor, zoom: float, angle: float) -> Tensor:
    """Each place looks up the picture at `zoom` times its distance from the middle, turned by `angle` in radians."""
    turn = torch.tensor(
        [[zoom * math.cos(angle), -zoom * math.sin(angle), 0.0], [zoom * math.sin(angle), zoom * math.cos(angle), 0.0]]
    )
    # In units of half a side, so on a picture that is not square the angles have to be brought to its form.
    stretch = images.shape[2] / images.shape[3]
    turn[0, 1] *= stretch
    turn[1, 0] /= stretch
    grid = functional.affine_grid(
        turn[None].to(images).expand(len(images), 2, 3), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _gaussian(sigma: float) -> Tensor:
    check_number("sigma", sigma)
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma must be above 0, not {sigma}")
    reach = max(1, math.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    return weights / weights.sum()


def _smooth(images: Tensor, kernel: Tensor) -> Tensor:
    reach, channels = len(kernel) // 2, images.shape[1]
    weights = kernel.to(images).expand(channels, 1, -1)
    if reach >= min(images.shape[2:]):
        raise ValueError(f"sigma is too large: the blur reaches {reach} pixels, of {tuple(images.shape[2:])}")
    padded = functional.pad(images, (reach,) * 4, mode="reflect")
    down = functional.conv2d(padded, weights[..., None], groups=channels)
    return functional.conv2d(down, weights[:, :, None], groups=channels)


def _above(sizes: Tensor, share: float) -> Tensor:
    """1 where a pixel's size (N, 1, H, W) is above the share's quantile of its picture, else 0."""
    limit = sizes.flatten(1).quantile(share, dim=1).view(-1, 1, 1, 1)
    return (sizes > limit).to(sizes.dtype) if share > 0 else torch.ones_like(sizes)


def _resolved(model: nn.Module, key: Layer) -> nn.Module:
    if key is None:
        return class_layer(model)
    if isinstance(key, str):
        try:
            return model.get_submodule(key)
        except AttributeError:
            raise ValueError(f"layer {key!r} is not the name of a module of this model") from None
    if not any(key is module for module in model.modules()):
        raise ValueError(f"layer {type(key).__name__} is not a module of this model")
    return key


def _bar(steps: int, progress: bool) -> Any:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    return tqdm(total=steps, unit="step", disable=not progress)


def _check_share(share: float) -> None:
    check_number("share", share)
    if not 0 <= share < 1:
        raise ValueError(f"share must lie in [0, 1), not {share}")


def _checked_objectives(objective: Objective | Sequence[Objective]) -> list[Objective]:
    if not isinstance(objective, Objective | Iterable):
        raise TypeError(f"objective must be made by channel, logit and their like, not be {type(objective).__name__}")
    objectives = [objective] if isinstance(objective, Objective) else list(objective)
    if not objectives:
        raise ValueError("objective is empty: give at least one, such as channel(layer, 0)")
    for one in objectives:
        if not isinstance(one, Objective):
            raise TypeError(f"objective must be made by channel, logit and their like, not be {type(one).__name__}")
    return objectives


def _functions(name: str, given: Any) -> tuple[Any, ...]:
    """As a tuple: what can be gone through only once would be missing from the second step on."""
    functions = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(callable(function) for function in functions):
        raise TypeError(f"{name} must be a list of functions, such as those that this module makes, not {given!r}")
    return functions


def _check_settings(
    model: nn.Module,
    steps: int,
    size: int,
    count: int,
    parametrization: str,
    rule: str | None,
    step_size: float | None,
    edits: Sequence[Edit],
    start: Any,
    seed: int,
    watch: Any,
) -> None:
    check_model(model)
    check_whole_number("steps", steps)
    check_whole_number("size", size, least=8)
    check_whole_number("count", count, least=1)
    check_whole_number("seed", seed, below=2**63)
    for name, value, known in (("parametrization", parametrization, _PARAMETRIZATIONS), ("rule", rule, _RULES)):
        if not (name == "rule" and value is None) and not (isinstance(value, str) and value in known):
            raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if step_size is not None:
        check_number("step_size", step_size)
        if not 0 < step_size < math.inf:
            raise ValueError(f"step_size must be above 0, and finite, not {step_size}")
    if edits and parametrization != "pixels":
        raise ValueError('edits change pixels: they need parametrization="pixels"')
    if watch is not None and not callable(watch):
        raise TypeError(f"watch must be a function of step, pictures and scores, not {type(watch).__name__}")
    if start is not None:
        if not isinstance(start, Tensor):
            raise TypeError(f"start must be a tensor (count, 3, H, W), not {type(start).__name__}")
        if start.ndim != 4 or start.shape[:2] != (count, 3) or min(start.shape[2:]) < 8:
            raise ValueError(
                f"start must have the shape ({count}, 3, H, W), H and W at least 8, not {tuple(start.shape)}"
            )
        if not start.is_floating_point() or not (start.min() >= 0 and start.max() <= 1):
            raise ValueError("start must be floating point numbers in [0, 1]")
