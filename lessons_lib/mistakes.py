"""What a network answers to labelled pictures, which answers are wrong, and whether it is as right as it is sure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import check_whole_number
from .datasets import Batch
from .training import answered


class Calibration(NamedTuple):
    """By how sure an answer is, in bins of equal width from 0 to 1: how many `pictures` fall there, how sure their
    answers are on average, and what share of them is right; NaN where a bin is empty."""

    pictures: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """Expected calibration error (Naeini et al., 2015): how far the two lie apart, mean over all answers."""
        apart = (self.confidence - self.accuracy).abs().nan_to_num()
        return float((apart * self.pictures).sum() / self.pictures.sum())


@dataclass(frozen=True, eq=False)
class Answers:
    """`logits` (N, C) to pictures whose `labels` (N,) are known. Raises ValueError where they do not fit."""

    logits: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.labels.shape != self.logits.shape[:1] or not len(self.labels):
            raise ValueError(
                f"logits must be (N, C) and labels (N,), not {tuple(self.logits.shape)} and {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> Tensor:
        """The class with the largest logit, (N,)."""
        return self.logits.argmax(dim=1)

    @property
    def confidence(self) -> Tensor:
        """The probability of the class that was predicted, (N,)."""
        return self.logits.softmax(dim=1).amax(dim=1)

    @property
    def right(self) -> Tensor:
        """Whether it is the one of the label, (N,)."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.right.double().mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(F.cross_entropy(self.logits.double(), self.labels))

    def mistakes(self) -> Tensor:
        """Indices of the wrong answers, the most confident first, (M,); of equals the first in the list first."""
        wrong = (~self.right).nonzero().flatten()
        return wrong[self.confidence[wrong].argsort(descending=True, stable=True)]

    def confusion(self) -> Tensor:
        """How many pictures of each class (row) got each answer (column), (C, C)."""
        classes = self.logits.shape[1]
        return torch.bincount(self.labels * classes + self.predicted, minlength=classes**2).view(classes, classes)

    def calibration(self, bins: int = 10) -> Calibration:
        check_whole_number("bins", bins, 1)
        confidence, right = self.confidence.double(), self.right.double()
        # (0, 0.1], (0.1, 0.2], ...: an answer with a confidence of exactly 1 belongs to the last.
        which = (confidence * bins).ceil().long().clamp(1, bins) - 1
        count, sure, correct = (
            torch.zeros(bins, dtype=torch.float64).index_add_(0, which, values)
            for values in (torch.ones_like(confidence), confidence, right)
        )
        return Calibration(count.long(), sure / count, correct / count)

    def at_temperature(self, temperature: float) -> Answers:
        """The same answers, surer below 1 and less sure above it."""
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        return Answers(self.logits / temperature, self.labels)

    def best_temperature(self) -> float:
        """The one at which the cross-entropy is lowest (Guo et al., 2017), between a twentieth and twenty."""
        from scipy.optimize import minimize_scalar

        found = minimize_scalar(lambda logarithm: self.at_temperature(exp(logarithm)).loss, bounds=(-3, 3))
        return exp(float(found.x))


def answers(
    network: nn.Module, batches: Iterable[Batch], *, flip: bool = False, dtype: torch.dtype = torch.float32
) -> Answers:
    """What `network` answers to `batches` of (images, labels), as `evaluate` reads them; on the CPU."""
    # `answered` raises where there is no batch, so that there is something to unpack.
    logits, labels = zip(*answered(network, batches, flip=flip, dtype=dtype), strict=True)
    return Answers(torch.cat(logits).cpu(), torch.cat(labels).cpu())
