"""The exercise of chapter 0, Start here."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .exercise import Exercise, Mistake


def _cases() -> dict[str, tuple[Tensor]]:
    random = torch.Generator().manual_seed(0)
    rises = torch.randn(3, 5, 4, generator=random)
    rises[1, 3, 0] = 4.0  # row and column are no multiples of anything: a wrong order of the three shows
    falls = torch.randn(3, 4, 6, generator=random)
    falls[2, 0, 4] = -4.5
    falls[0, 2, 1] = 4.0
    spread = torch.zeros(3, 4, 5)
    spread[0, 0, 0] = -2.0
    spread[2, 1:3, 3] = 1.5  # together more than the strongest, and alone less
    spread[1, 3, :] = 1.0
    return {
        "a gradient whose strongest number is a rise": (rises,),
        "one whose strongest number is a fall": (falls,),
        "one with many weaker numbers": (spread,),
    }


def _place(gradient: Tensor) -> tuple[int, ...]:
    flat_index = gradient.abs().argmax()
    return tuple(int(i) for i in torch.unravel_index(flat_index, gradient.shape))


def _by_comparison(gradient: Tensor) -> tuple[int, ...]:
    strength = gradient.abs()
    return tuple((strength == strength.max()).nonzero()[0].tolist())


def _by_numpy(gradient: Tensor) -> tuple[int, ...]:
    strength = gradient.abs().numpy()
    return tuple(int(i) for i in np.unravel_index(strength.argmax(), strength.shape))


def _rise_only(gradient: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(gradient.argmax(), gradient.shape))


def _fall_only(gradient: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(gradient.argmin(), gradient.shape))


def _weakest(gradient: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(gradient.abs().argmin(), gradient.shape))


def _flat(gradient: Tensor) -> int:
    return int(gradient.abs().argmax())


def _channel_last(gradient: Tensor) -> tuple[int, ...]:
    channel, row, column = _place(gradient)
    return row, column, channel


def _all_channels(gradient: Tensor) -> tuple[int, ...]:
    strength = gradient.abs().sum(dim=0)
    return tuple(int(i) for i in torch.unravel_index(strength.argmax(), strength.shape))


EXERCISES = (
    Exercise(
        name="strongest_place",
        number="0.1",
        title="The number that matters most",
        prompt="Return the place (channel, row, column) at which a small nudge changes the score most, up or down.",
        reference=_place,
        cases=_cases,
        alternatives=(_by_comparison, _by_numpy),
        mistakes=(
            Mistake(
                _rise_only,
                "This is where the score rises most. A fall counts as much: the question is how far the score moves.",
            ),
            Mistake(_fall_only, "This is where the score falls most. A rise counts as much as a fall."),
            Mistake(_weakest, "This is where a nudge changes the score least: the gradient nearest to 0."),
            Mistake(
                _flat,
                "This is the right number, but counted through the whole tensor, as `argmax` counts. Turn it into "
                "(channel, row, column): `torch.unravel_index` does.",
            ),
            Mistake(_channel_last, "The right place, in the wrong order: PyTorch's is (channel, row, column)."),
            Mistake(
                _all_channels,
                "This adds up the channels and gives a pixel. Asked is one number of one channel: three indices.",
            ),
        ),
        hints=(
            "How much the score moves is the size of the gradient, whatever its sign.",
            "`argmax` without a dimension counts through all numbers, row by row, channel by channel.",
            "`torch.unravel_index(index, gradient.shape)` turns such a count into a place.",
        ),
    ),
)
