"""What is explained: the score of a class for each picture, or any function of the logits.

Scores are logits. After a softmax, a class that is nearly certain has hardly any gradient left, and what raises it is
mixed with what lowers its rivals (Simonyan et al., 2014).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_whole_number
from .hooks import check_model, evaluating, frozen
from .pixel_gradient import fast_pixel_gradient

Target = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor] | None
"""None for the class each picture is read as, a class, one for each picture, or a function of the logits.

The function is handed logits (M, K) of any number of pictures and answers with M scores, each from its own row.
"""


def check_target(target: Any, count: int, name: str = "target") -> None:
    """TypeError or ValueError unless `target` could be one for `count` pictures: all that shows without logits."""
    if target is None or (callable(target) and not isinstance(target, Tensor | type)):
        return
    if isinstance(target, Integral) and not isinstance(target, bool):
        check_whole_number(name, target)
        return
    if isinstance(target, Sequence) and not isinstance(target, str):
        for number in target:
            check_whole_number(name, number)
        target = torch.tensor(target, dtype=torch.long)
    if not isinstance(target, Tensor):
        raise TypeError(
            f"{name} must be a class, one class for each picture, or a function of the logits, "
            f"not {type(target).__name__}"
        )
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"{name} must hold the numbers of classes, not {target.dtype}")
    if target.shape not in ((), (count,)):
        raise ValueError(f"{name} must hold one class for each of {count} pictures, not {tuple(target.shape)}")
    if target.dtype in (torch.uint16, torch.uint32, torch.uint64):
        raise TypeError(f"{name} must hold the numbers of classes as int64, not {target.dtype}")
    if target.numel() and target.min() < 0:
        raise ValueError(f"{name} must be 0 or more, not {int(target.min())}")


def check_logits(logits: Any) -> None:
    """ValueError unless a model's answer are logits (N, K)."""
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model must put out logits of the shape (N, classes), not {came}")


def settled(target: Target, logits: Tensor, name: str = "target") -> Tensor | Callable[[Tensor], Tensor]:
    """The target of each of the pictures that have `logits` (N, K): classes (N,), or the function as it is.

    Raises ValueError for a class that the network does not have, or what are no logits.
    """
    check_logits(logits)
    if target is None:
        return logits.argmax(dim=1)
    if callable(target) and not isinstance(target, Tensor):
        return target
    classes = torch.as_tensor(target, dtype=torch.long, device=logits.device).expand(len(logits))
    if classes.numel() and int(classes.max()) >= logits.shape[1]:
        raise ValueError(
            f"{name} {int(classes.max())} is out of range: this network has {logits.shape[1]} classes "
            f"(0 to {logits.shape[1] - 1})"
        )
    return classes


def scores_of(logits: Tensor, target: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
    """The scores (M,) of a settled target, from logits (M, K). ValueError where a function gives something else."""
    if isinstance(target, Tensor):
        return logits.gather(1, target[:, None])[:, 0]
    scores = target(logits)
    if not isinstance(scores, Tensor) or scores.shape != logits.shape[:1]:
        came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"target must give one score for each of {len(logits)} rows of logits, not {came}")
    return scores


def repeated(target: Tensor | Callable[[Tensor], Tensor], times: int) -> Tensor | Callable[[Tensor], Tensor]:
    """A settled target for pictures of which each stands `times` times in a row."""
    return target.repeat_interleave(times) if isinstance(target, Tensor) else target


def check_images(images: Any, name: str = "images") -> None:
    """TypeError or ValueError unless `images` are pictures (N, C, H, W) of finite numbers."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{name} must be a tensor (N, C, H, W), not {type(images).__name__}")
    if images.ndim != 4 or images.numel() == 0:
        more = f": write {name}[None] for a single one" if images.ndim == 3 else ""
        raise ValueError(f"{name} must have the shape (N, C, H, W), not {tuple(images.shape)}{more}")
    if not images.is_floating_point():
        raise TypeError(f"{name} must be floating point, not {images.dtype}")
    if not images.isfinite().all():
        raise ValueError(f"{name} must be finite: these hold NaN or infinity")


@contextmanager
def explaining(model: nn.Module, images: Tensor, target: Target) -> Iterator[None]:
    """Within the `with`, `model` answers as it does at work and only pictures ask for gradients; all is undone behind.

    Raises TypeError or ValueError first, for what is no model, no pictures (N, C, H, W) or no target.
    """
    check_model(model)
    check_images(images)
    check_target(target, len(images))
    # Made under torch.inference_mode, a tensor could never have a gradient: pictures are copied inside.
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model), frozen(model):
        yield


def at_once(images: Tensor) -> int:
    """How many pictures as large as `images` (..., H, W) to ask a model about at once."""
    # On a CPU five of ImageNet's size are quicker together than apart, of 64 pixels 64, of 32 pixels 256. On a GPU 80.
    pixels = 2**18 if images.device.type == "cpu" else 2**22
    return max(pixels // (images.shape[-2] * images.shape[-1]), 1)


def laid_out(images: Tensor) -> Tensor:
    """A copy of pictures (N, C, H, W) with the numbers in that order in memory in which a model is the quickest."""
    several = _pixels(images) >= 3 * 224 * 224
    return images.clone(memory_format=layout_of_many(images) if several else torch.contiguous_format)


def layout_of_many(images: Tensor) -> torch.memory_format:
    """The order in memory in which many pictures, or maps of features, go the quickest through a model."""
    # On a CPU the channels of a place side by side.
    return torch.channels_last if images.device.type == "cpu" else torch.contiguous_format


def quick_gradient(images: Tensor) -> AbstractContextManager[Any]:
    """Within the `with`, the gradient of so many pictures (N, C, H, W) comes the quickest."""
    # For less than about one picture of ImageNet's size it costs more than it saves.
    return fast_pixel_gradient() if _pixels(images) >= 200 * 200 else nullcontext()


def _pixels(images: Tensor) -> int:
    return len(images) * images.shape[2] * images.shape[3]


def gradient_of(model: nn.Module, copies: Tensor, scores: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The logits of `copies` of pictures, which may be spent, and the gradient of `scores(logits)` (N,), in one pass.

    Raises ValueError where the scores do not depend on the pictures, or the model puts out no logits.
    """
    # Asked for is the gradient of what is added, nothing: so that a layer that works in place needs no further copy.
    added = copies.new_zeros(()).expand(copies.shape).requires_grad_()
    with quick_gradient(copies):
        logits = model(copies.add_(added))
    check_logits(logits)
    found = scores(logits)
    gradient = None
    if found.requires_grad:
        (gradient,) = torch.autograd.grad(found.sum(), added, allow_unused=True)
    if gradient is None:
        raise ValueError("target: its score does not depend on the picture")
    return logits.detach(), gradient.contiguous()


def warn_of_zeros(maps: Tensor, why: str) -> None:
    """Warn of the pictures whose map (N, ...) is zero everywhere: nothing is shown because there is nothing to show."""
    empty = (~maps.flatten(1).any(dim=1)).nonzero()[:, 0].tolist()
    if empty:
        several = f"maps of pictures {', '.join(map(str, empty))} are"
        which = f"map of picture {empty[0]} is" if len(empty) == 1 else several
        warnings.warn(f"the {which} zero everywhere: {why}", stacklevel=3)


def seeded(seed: Any, device: torch.device) -> torch.Generator:
    """The source of random numbers that `seed` stands for: itself, or a new one on `device`. TypeError, ValueError."""
    if isinstance(seed, torch.Generator):
        return seed
    check_whole_number("seed", seed)
    return torch.Generator(device).manual_seed(int(seed))


def normal_like(random: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers, as many and where `like` has them, whatever device they are drawn on."""
    return torch.randn(like.shape, generator=random, dtype=like.dtype, device=random.device).to(like.device)
