"""Pictures that a network misreads and a person does not.

The gradient of a loss moves the picture instead of the weights (Szegedy et al., 2014). Pixels lie in [0, 1]; what
counts is the picture as it would be saved, rounded to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp, vmap
from torch.nn import functional

from ._checks import check_not_negative, check_number, check_whole_number
from ._local_change import LocalChanges, OtherPass, worth_cutting
from .maximization import round_to_8_bits, waking
from .targets import (
    Target,
    at_once,
    check_images,
    check_logits,
    check_target,
    explaining,
    gradient_of,
    laid_out,
    layout_of_many,
    normal_like,
    quick_gradient,
    scores_of,
    seeded,
    settled,
)

Classes = int | Sequence[int] | Tensor | None
"""A class, one for each picture, or None."""


def fool(model: nn.Module, images: Tensor, target: Classes, *, step_size: float = 0.25, steps: int = 200) -> Tensor:
    """Follow the gradient of the target's logit until `images` (N, C, H, W) are read as `target`: (N, C, H, W).

    Each step has the length `step_size`, Euclidean over all numbers of a picture. A picture stops once it is read as
    its target, also when rounded to 8 bits; rounded it is returned, at the latest after `steps`. Pixels stay in [0, 1].
    Raises TypeError or ValueError for bad input. Source: Szegedy et al., 2014.
    """
    check_whole_number("steps", steps, 1)
    _check_positive("step_size", step_size)
    with _attacking(model, images, target=target, needs="target"):
        aim = _Aim.of(model, images, target, None)
        moved = images.detach().clone()
        going = torch.arange(len(images), device=images.device)
        for _ in range(steps):
            logits, gradient = _of_the_score(model, moved[going], aim, going)
            # Rounded and asked again only where it looks done.
            near = aim.reached(logits, going)
            done = near.clone()
            if near.any():
                done[near] = aim.reached(_logits(model, round_to_8_bits(moved[going[near]])), going[near])
            going, gradient = going[~done], gradient[~done]
            if not len(going):
                break
            moved[going] = (moved[going] + step_size * _unit(gradient)).clamp(0, 1)
    return round_to_8_bits(moved)


def fgsm(
    model: nn.Module, images: Tensor, target: Target = None, *, epsilon: float | Tensor, labels: Classes = None
) -> Tensor:
    """Move every number of `images` (N, C, H, W) in [0, 1] by `epsilon`, as the gradient's sign says: (N, C, H, W).

    The fast gradient sign method: towards `target`, a class or a function of the logits that is to grow; without one,
    away from `labels`, by default what is read. `epsilon` is one number, or one for each picture (N,). Raises TypeError
    or ValueError for bad input. Source: Goodfellow et al., 2015.
    """
    with _attacking(model, images, target=target, labels=labels):
        size = _sizes("epsilon", epsilon, images, most=1)
        gradient = _gradient(model, images.detach(), _Aim.of(model, images, target, labels))
        return (images.detach() + size * gradient.sign()).clamp(0, 1)


def pgd(
    model: nn.Module,
    images: Tensor,
    target: Target = None,
    *,
    epsilon: float | Tensor,
    norm: str = "linf",
    steps: int = 10,
    step_size: float | Tensor | None = None,
    random_start: bool = True,
    seed: int | torch.Generator = 0,
    labels: Classes = None,
) -> Tensor:
    """Many small steps, each brought back to at most `epsilon` from `images` (N, C, H, W) in [0, 1]: (N, C, H, W).

    Projected gradient descent. With `norm` "linf" no number differs by more than `epsilon`, with "l2" the Euclidean
    length of a picture's difference is at most that. Steps are by default a quarter of `epsilon`, or longer where there
    are less than ten. Without a random start this is iterative FGSM. `target`, `labels` and `epsilon` as in `fgsm`.
    Source: Kurakin et al., 2017; Madry et al., 2018.
    """
    _check_norm(norm)
    check_whole_number("steps", steps, 1)
    with _attacking(model, images, target=target, labels=labels):
        size = _sizes("epsilon", epsilon, images, most=1 if norm == "linf" else None)
        step = max(2.5 / steps, 0.25) * size if step_size is None else _sizes("step_size", step_size, images)
        clean, moved = images.detach(), images.detach()
        random = seeded(seed, images.device)
        aim = _Aim.of(model, images, target, labels)
        if random_start:
            moved = (clean + _drawn_from_ball(random, clean, size, norm)).clamp(0, 1)
        for _ in range(steps):
            gradient = _gradient(model, moved, aim)
            direction = gradient.sign() if norm == "linf" else _unit(gradient)
            moved = _projected(moved + step * direction, clean, size, norm)
    return moved


def project(moved: Tensor, images: Tensor, *, epsilon: float | Tensor, norm: str = "linf") -> Tensor:
    """What of `moved` (N, C, H, W) lies too far from `images` brought back to `epsilon`, and into [0, 1]: (N, C, H, W).

    `norm` and `epsilon` as in `pgd`. Each picture on its own.
    """
    _check_norm(norm)
    _check_pixels(images)
    if not isinstance(moved, Tensor) or moved.shape != images.shape:
        raise ValueError(f"moved must have the shape of images, {tuple(images.shape)}")
    size = _sizes("epsilon", epsilon, images, most=1 if norm == "linf" else None)
    change = moved - images
    length = change.abs() if norm == "linf" else torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    # What lies inside stays as it is: taken apart and put together again, it would be rounded.
    return torch.where(length > size, _projected(moved, images, size, norm), moved.clamp(0, 1))


def deep_fool(
    model: nn.Module,
    images: Tensor,
    labels: Classes = None,
    *,
    candidates: int | None = 10,
    overshoot: float = 0.02,
    steps: int = 50,
) -> Tensor:
    """`images` (N, C, H, W) in [0, 1] moved just across the nearest border of their class `labels`: (N, C, H, W).

    Each step takes the network for linear, and goes to the nearest of the borders to the `candidates` classes with the
    highest logits (None: to all), and further by the share `overshoot`. A picture stops once it is read as another
    class. `labels` are by default what is read. Source: Moosavi-Dezfooli et al., 2016.
    """
    check_whole_number("steps", steps, 1)
    if candidates is not None:
        check_whole_number("candidates", candidates, 1)
    check_not_negative("overshoot", overshoot)
    with _attacking(model, images, labels=labels):
        aim = _Aim.of(model, images, None, labels)
        moved = images.detach().clone()
        going = torch.arange(len(images), device=images.device)
        for step in range(steps):
            part = max(at_once(images) // (candidates or 10), 1)
            least = 1000 * torch.finfo(images.dtype).eps if step >= _PATIENCE else 0.0
            left = []
            for rows in going.split(part):
                on, way = _to_nearest_border(model, moved[rows], aim, rows, candidates, least)
                left.append(rows[on])
                moved[rows[on]] = (moved[rows[on]] + (1 + overshoot) * way).clamp(0, 1)
            going = torch.cat(left)
            if not len(going):
                break
    return moved


def one_pixel(
    model: nn.Module,
    images: Tensor,
    target: Classes = None,
    *,
    pixels: int = 1,
    population: int = 100,
    steps: int = 30,
    seed: int | torch.Generator = 0,
    labels: Classes = None,
) -> Tensor:
    """`images` (N, C, H, W) in [0, 1] with at most `pixels` pixels of another colour, as 8 bits can say it.

    Found by differential evolution, which asks for no gradient: of a `population` of pixels, each in each of the
    `steps` is replaced by a mix of three others where that is better. A picture stops once it is misread. `target` and
    `labels` as in `fgsm`. At most population * (steps + 1) looks at a picture. Source: Su et al., 2019.
    """
    for name, value, least in (("pixels", pixels, 1), ("population", population, 4), ("steps", steps, 0)):
        check_whole_number(name, value, least)
    with _attacking(model, images, target=target, labels=labels, needs="class"), torch.no_grad():
        random = seeded(seed, images.device)
        aim = _Aim.of(model, images, target, labels)
        clean = images.detach()
        every = torch.arange(len(images), device=images.device)
        going = asked = every[~aim.reached(_logits(model, clean), every)]
        # Row, column and colour of each pixel, all in [0, 1].
        genes = _uniform(random, (len(images), population, pixels, 2 + images.shape[1]), clean)
        worth = clean.new_full((len(images), population), -torch.inf)
        looks = pixels == 1 and worth_cutting(clean, population * (steps + 1))
        local = LocalChanges.of(model, clean, 1 - clean, (1, 1)) if looks else None
        new = genes[going]
        for step in range(steps + 1):
            if not len(going):
                break
            if step > 0:
                old = genes[going]
                first, second, third = (
                    old.gather(1, i[..., None, None].expand_as(old)) for i in _three_others(random, old)
                )
                new = (first + 0.5 * (second - third)).clamp(0, 1)
            found = _merits(model, clean, new, aim, going, local)
            better = found > worth[going]
            genes[going] = torch.where(better[..., None, None], new, genes[going])
            worth[going] = torch.where(better, found, worth[going])
            going = going[worth[going].amax(dim=1) <= 0]
        moved = clean.clone()
        moved[asked] = _painted(clean[asked], genes[asked, worth[asked].argmax(dim=1)])
        return moved


def universal_perturbation(
    model: nn.Module,
    images: Tensor,
    target: Classes = None,
    *,
    epsilon: float = 10 / 255,
    steps: int = 100,
    step_size: float | None = None,
    batch_size: int = 8,
    seed: int | torch.Generator = 0,
    labels: Classes = None,
) -> Tensor:
    """One difference (C, H, W), of numbers up to `epsilon`, that makes the network misread many of `images` at once.

    Each step follows the sign of the gradient summed over `batch_size` pictures drawn anew. Add the difference to
    pictures and clip to [0, 1]. `target` and `labels` as in `fgsm`; steps are by default an eighth of `epsilon`.
    Source: Moosavi-Dezfooli et al., 2017; by gradients, Shafahi et al., 2020.
    """
    check_whole_number("steps", steps, 1)
    check_whole_number("batch_size", batch_size, 1)
    with _attacking(model, images, target=target, labels=labels, needs="class"):
        size = float(_sizes("epsilon", epsilon, images[:1], most=1))
        step = size / 8 if step_size is None else float(_sizes("step_size", step_size, images[:1]))
        clean, random = images.detach(), seeded(seed, images.device)
        aim = _Aim.of(model, images, target, labels)
        change = torch.zeros_like(clean[0])
        for _ in range(steps):
            rows = torch.randperm(len(clean), generator=random, device=random.device)[:batch_size].to(clean.device)
            gradient = _gradient(model, (clean[rows] + change).clamp(0, 1), aim, rows)
            change = (change + step * gradient.sum(dim=0).sign()).clamp(-size, size)
    return change


# --- what came of it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What an attack has done to N pictures; each a tensor (N,). See `report`.

    `before` and `after` are the classes read, `probability` that of `after`. `counts` says which pictures could be
    fooled: those not misread already. `fooled` holds after rounding to 8 bits, `fooled_unrounded` before. All else is
    measured on the rounded picture: `linf`, the largest change of a number; `l2`, the Euclidean length of the change;
    `l0`, how many pixels changed; `psnr` in decibels; `ssim`, 1 for the same picture.
    """

    before: Tensor
    after: Tensor
    probability: Tensor
    counts: Tensor
    fooled: Tensor
    fooled_unrounded: Tensor
    linf: Tensor
    l2: Tensor
    l0: Tensor
    psnr: Tensor
    ssim: Tensor

    @property
    def rate(self) -> float:
        """The share, of the pictures that count, that are fooled after rounding; NaN where none counts."""
        return (self.fooled.sum().double() / self.counts.sum()).item()

    def __str__(self) -> str:
        count, its = int(self.counts.sum()), self.fooled
        lines = [f"fooled: {int(its.sum())} of {count} after rounding, {int(self.fooled_unrounded.sum())} before"]
        if count < len(its):
            lines.append(f"left out: {len(its) - count} that were misread, or read as the target, already")
        if its.any():
            middle = {name: getattr(self, name)[its].double().median().item() for name in _MEASURES}
            lines.append("median of the fooled: " + ", ".join(_told(name, value) for name, value in middle.items()))
        return "\n".join(lines)


_MEASURES = ("linf", "l2", "l0", "psnr", "ssim")


def _told(name: str, value: float) -> str:
    return {
        "linf": f"L-infinity {255 * value:.1f}/255",
        "l2": f"L2 {value:.2f}",
        "l0": f"{value:.0f} pixels",
        "psnr": f"PSNR {value:.1f} dB",
        "ssim": f"SSIM {value:.3f}",
    }[name]


def report(
    model: nn.Module, images: Tensor, moved: Tensor, target: Classes = None, *, labels: Classes = None
) -> Report:
    """What the change from `images` (N, C, H, W) to `moved`, both in [0, 1], has done: see `Report`.

    With a `target`, a picture is fooled that is read as it and was not before. Without one, a picture that is no longer
    read as `labels`, the truth, and was before; by default, `labels` are what was read. SSIM with the weights of Wang
    et al., 2004, for pictures of 11 x 11 pixels or more.
    """
    with _attacking(model, images, target=target, labels=labels, needs="class"), torch.no_grad():
        _check_pixels(moved, "moved")
        if moved.shape != images.shape:
            raise ValueError(f"moved must have the shape of images, {tuple(images.shape)}, not {tuple(moved.shape)}")
        if min(images.shape[2:]) < 11:
            raise ValueError(f"images must have at least 11 x 11 pixels to be compared, not {tuple(images.shape[2:])}")
        rows = torch.arange(len(images), device=images.device)
        clean, saved = images.detach(), round_to_8_bits(moved.detach())
        aim = _Aim.of(model, images, target, labels)
        before = _logits(model, clean)
        counts = ~aim.reached(before, rows)
        after = _logits(model, saved)
        change = (saved - clean).flatten(1)
        error = change.square().mean(dim=1)
        return Report(
            before=before.argmax(dim=1),
            after=after.argmax(dim=1),
            probability=after.softmax(dim=1).amax(dim=1),
            counts=counts,
            fooled=aim.reached(after, rows) & counts,
            fooled_unrounded=aim.reached(_logits(model, moved.detach()), rows) & counts,
            linf=change.abs().amax(dim=1),
            l2=change.norm(dim=1),
            # More than rounding: dividing by 255 twice need not give the same last digit.
            l0=((saved - clean).abs() > 1e-6).any(dim=1).flatten(1).sum(dim=1),
            psnr=-10 * error.log10(),
            ssim=_ssim(clean, saved),
        )


def _ssim(one: Tensor, other: Tensor) -> Tensor:
    from skimage.metrics import structural_similarity

    pairs = zip(one.double().cpu().numpy(), other.double().cpu().numpy(), strict=True)
    settings: dict[str, Any] = {"channel_axis": 0, "data_range": 1.0, "gaussian_weights": True, "sigma": 1.5}
    found = [structural_similarity(a, b, use_sample_covariance=False, **settings) for a, b in pairs]
    return torch.tensor(found, dtype=one.dtype, device=one.device)


# --- where to ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Aim:
    """The class of each picture (N,) to get to, or to get away from; or a function of the logits to raise."""

    goal: Tensor | Callable[[Tensor], Tensor]
    towards: bool

    @classmethod
    def of(cls, model: nn.Module, images: Tensor, target: Target, labels: Classes) -> _Aim:
        asked = target if target is not None else labels
        if callable(asked) and not isinstance(asked, Tensor):
            return cls(asked, towards=True)
        if asked is None:
            asked = _logits(model, images.detach()).argmax(dim=1)
        goal = torch.as_tensor(asked, dtype=torch.long, device=images.device).expand(len(images))
        return cls(goal, towards=target is not None)

    def classes(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Those of the pictures `rows` (M,) that have `logits` (M, K). ValueError for one that the network lacks."""
        assert isinstance(self.goal, Tensor)
        its = settled(self.goal[rows], logits, "target" if self.towards else "labels")
        assert isinstance(its, Tensor)
        return its

    def losses(self, logits: Tensor, rows: Tensor) -> Tensor:
        """What is to grow: (M,)."""
        if not isinstance(self.goal, Tensor):
            return scores_of(logits, self.goal)
        losses = functional.cross_entropy(logits, self.classes(logits, rows), reduction="none")
        return -losses if self.towards else losses

    def reached(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Whether each is read as its target, or no longer as its label: (M,)."""
        return (logits.argmax(dim=1) == self.classes(logits, rows)) == self.towards

    def merits(self, logits: Tensor, rows: Tensor) -> Tensor:
        """By how much the logits speak for success; above 0 where there is one: (M,).

        The lead over the best rival. Unlike a probability, it still tells good from better where a network is sure.
        """
        classes = self.classes(logits, rows)[:, None]
        own = logits.gather(1, classes)[:, 0]
        rival = logits.scatter(1, classes, -torch.inf).amax(dim=1)
        return own - rival if self.towards else rival - own


def _gradient(model: nn.Module, images: Tensor, aim: _Aim, rows: Tensor | None = None) -> Tensor:
    """The gradient of what is to grow, for pictures `rows` of those the aim is about."""
    rows = torch.arange(len(images), device=images.device) if rows is None else rows
    gradients = [
        gradient_of(model, laid_out(some), partial(aim.losses, rows=its))[1]
        for some, its in zip(_parts(images, images), _parts(rows, images), strict=True)
    ]
    return torch.cat(gradients)


def _of_the_score(model: nn.Module, images: Tensor, aim: _Aim, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, and the gradient of those aimed at; for one behind a ReLU that is off, of what switches it on."""

    def scores(logits: Tensor, its: Tensor) -> Tensor:
        return scores_of(logits, aim.classes(logits, its))

    logits, gradients = [], []
    for some, its in zip(_parts(images, images), _parts(rows, images), strict=True):
        found, gradient = gradient_of(model, laid_out(some), partial(scores, its=its))
        silent = ~gradient.flatten(1).any(dim=1)
        if silent.any():
            with waking(model):
                _, gradient[silent] = gradient_of(model, laid_out(some[silent]), partial(scores, its=its[silent]))
        logits.append(found)
        gradients.append(gradient)
    return torch.cat(logits), torch.cat(gradients)


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits = [model(laid_out(some)) for some in _parts(images, images)]
    check_logits(logits[0])
    return torch.cat(logits)


def _parts(rows: Tensor, images: Tensor) -> tuple[Tensor, ...]:
    """`rows`, one for each of `images`, in parts as large as go through a model at once, and about equally large."""
    return rows.chunk(-(-len(images) // at_once(images)))


def _unit(gradient: Tensor) -> Tensor:
    """Each picture's gradient at a length of 1; one of zeros stays."""
    # Scaled by a power of two first, which rounds nothing: the squares of faint gradients would vanish.
    exponent = torch.frexp(gradient.abs().amax(dim=(1, 2, 3), keepdim=True)).exponent
    scaled = torch.ldexp(gradient, -exponent)
    length = torch.linalg.vector_norm(scaled, dim=(1, 2, 3), keepdim=True)
    return scaled / length.clamp(min=torch.finfo(length.dtype).tiny)


def _projected(moved: Tensor, images: Tensor, epsilon: Tensor, norm: str) -> Tensor:
    change = moved - images
    if norm == "linf":
        change = change.clamp(-epsilon, epsilon)
    else:
        length = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
        change = change * torch.where(length > epsilon, epsilon / length, 1.0)
    return (images + change).clamp(0, 1)


def _drawn_from_ball(random: torch.Generator, images: Tensor, epsilon: Tensor, norm: str) -> Tensor:
    if norm == "linf":
        return _uniform(random, images.shape, images) * (2 * epsilon) - epsilon
    drawn = normal_like(random, images)
    length = torch.linalg.vector_norm(drawn, dim=(1, 2, 3), keepdim=True)
    return drawn * (_uniform(random, length.shape, images) / length * epsilon)


def _uniform(random: torch.Generator, shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.rand(tuple(shape), generator=random, dtype=like.dtype, device=random.device).to(like.device)


# --- DeepFool ----------------------------------------------------------------------------------------------------


_PATIENCE = 10  # steps: who is not through by then is held up by rounding


def _to_nearest_border(
    model: nn.Module, images: Tensor, aim: _Aim, rows: Tensor, candidates: int | None, least: float
) -> tuple[Tensor, Tensor]:
    """Which of `images` (N, C, H, W) are still read as their label, and of these the way to the nearest border.

    Leads count as at least the share `least` of the label's logit.
    """
    with quick_gradient(images):
        logits, pull, *_ = vjp(model, images)
    labels, on = aim.classes(logits, rows), ~aim.reached(logits, rows)
    if not on.any():
        return on, images[on]
    if not on.all():  # no gradient for those that are through
        labels, images = labels[on], images[on]
        with quick_gradient(images):
            logits, pull, *_ = vjp(model, images)
    own = logits.gather(1, labels[:, None])
    rivals = logits.scatter(1, labels[:, None], -torch.inf)
    leads, classes = rivals.topk(min(candidates or logits.shape[1], logits.shape[1] - 1), dim=1)
    # (K, M). A step for a lead that is lost in rounding would be lost in rounding as well.
    away = torch.maximum(own - leads, least * own.abs()).T
    # Back for a batch of classes at once: of each the gradient of its logit minus that of the label.
    asked = functional.one_hot(classes.T, logits.shape[1]) - functional.one_hot(labels, logits.shape[1])
    classes_at_once = max(at_once(images) // len(images), 1)
    (slopes,) = vmap(pull, chunk_size=classes_at_once)(asked.to(logits.dtype))  # (K, M, C, H, W)
    lengths = torch.linalg.vector_norm(slopes.flatten(2), dim=2)
    # A class that no small change brings nearer is not near, however small its lead.
    distances = torch.where(lengths > 0, away / lengths, torch.inf)
    nearest = distances.argmin(dim=0)
    place = torch.arange(len(nearest), device=nearest.device)
    length = lengths[nearest, place]
    distance = torch.where(length > 0, distances[nearest, place], 0.0)
    # The unit vector first: the square of a faint slope's length would vanish.
    unit = slopes[nearest, place] / length.where(length > 0, 1.0)[:, None, None, None]
    return on, distance[:, None, None, None] * unit


# --- one pixel ---------------------------------------------------------------------------------------------------


def _merits(
    model: nn.Module, images: Tensor, genes: Tensor, aim: _Aim, rows: Tensor, local: LocalChanges | None
) -> Tensor:
    """How well each of the candidates `genes` (M, P, pixels, 2 + C) does on its picture, `rows` of `images`: (M, P)."""
    count, population = genes.shape[:2]
    its = rows.repeat_interleave(population)
    part = max(at_once(images), 8)
    found = [
        aim.merits(_answers_to_painted(model, images, one, some, local), some)
        for some, one in zip(its.split(part), genes.flatten(0, 1).split(part), strict=True)
    ]
    return torch.cat(found).view(count, population)


def _answers_to_painted(
    model: nn.Module, images: Tensor, genes: Tensor, rows: Tensor, local: LocalChanges | None
) -> Tensor:
    if local is not None:
        down, across, colours = _read(genes, images)
        corners = zip(down[:, 0].tolist(), across[:, 0].tolist(), strict=True)
        places = [(slice(i, i + 1), slice(j, j + 1)) for i, j in corners]
        with suppress(OtherPass):
            return local.logits(colours.transpose(1, 2)[..., None], rows.tolist(), places)
    painted = _painted(images[rows], genes)
    logits: Tensor = model(painted.contiguous(memory_format=layout_of_many(painted)))
    return logits


def _painted(images: Tensor, genes: Tensor) -> Tensor:
    """Copies of `images` (M, C, H, W) with the pixels that `genes` (M, pixels, 2 + C) say."""
    down, across, colours = _read(genes, images)
    painted = images.clone()
    painted[torch.arange(len(images), device=images.device)[:, None], :, down, across] = colours
    return painted


def _read(genes: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns (M, pixels), and colours (M, pixels, C) of 8 bits, from numbers in [0, 1]."""
    down, across = ((genes[..., axis] * size).long().clamp(max=size - 1) for axis, size in enumerate(images.shape[2:]))
    return down, across, round_to_8_bits(genes[..., 2:])


def _three_others(random: torch.Generator, genes: Tensor) -> Tensor:
    """For each candidate of (M, P, ...) the numbers of three others, all different: (3, M, P)."""
    count, population = genes.shape[:2]
    drawn = torch.rand(count, population, population, generator=random, device=random.device)
    drawn.diagonal(dim1=1, dim2=2).fill_(-1)  # not itself
    return drawn.topk(3, dim=2).indices.permute(2, 0, 1).to(genes.device)


# --- what is asked of arguments ----------------------------------------------------------------------------------


@contextmanager
def _attacking(
    model: nn.Module, images: Tensor, *, target: Target = None, labels: Classes = None, needs: str = ""
) -> Iterator[None]:
    """As `explaining`, for pictures in [0, 1]; TypeError or ValueError for what cannot be aimed at."""
    if target is not None and labels is not None:
        raise ValueError("target and labels: hand over the class to get to, or the class to get away from, not both")
    if target is None and needs == "target":
        raise TypeError("target must be a class, or one for each picture, not None")
    for name, asked in (("target", target), ("labels", labels)):
        if callable(asked) and not isinstance(asked, Tensor | type) and (needs or name == "labels"):
            raise TypeError(f"{name} must be a class, or one for each picture, not a function")
    with explaining(model, images, target):
        check_target(labels, len(images), "labels")
        _check_pixels(images)
        yield


def _check_pixels(images: Any, name: str = "images") -> None:
    check_images(images, name)
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} must lie in [0, 1], not in [{low:.3g}, {high:.3g}]: the model takes pixels, and normalizes them "
            "itself"
        )


def _sizes(name: str, value: Any, images: Tensor, most: float | None = None) -> Tensor:
    """One number for each picture, (N, 1, 1, 1) or (1, 1, 1, 1), each 0 or more and at most `most`."""
    if not isinstance(value, Tensor):
        check_number(name, value)
        value = torch.tensor(float(value), dtype=torch.float64)
    if value.shape not in ((), (len(images),)):
        raise ValueError(
            f"{name} must be one number, or one for each of {len(images)} pictures, not {tuple(value.shape)}"
        )
    if not (value.isfinite().all() and (value >= 0).all()):
        raise ValueError(f"{name} must be 0 or more, not {value.tolist()}")
    if most is not None and (value > most).any():
        raise ValueError(
            f"{name} must be at most {most}, not {value.max():.3g}: pixels lie in [0, 1], and 8 of 255 steps are 8/255"
        )
    return value.detach().to(images).view(-1, 1, 1, 1)


def _check_positive(name: str, value: Any) -> None:
    check_number(name, value)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be above 0, not {value}")


def _check_norm(norm: Any) -> None:
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm must be 'linf' or 'l2', not {norm!r}")
