"""What several modules ask of an argument, and say in the same words when it is not so."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import torch

_PAST_INT64 = 2**63  # what PyTorch can count to


def check_whole_number(name: str, value: Any, least: int = 0, below: int = _PAST_INT64) -> None:
    """TypeError unless `value` is a whole number, NumPy's too; ValueError unless it lies in [least, below)."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if not least <= int(value) < below:
        also = "" if below == _PAST_INT64 and int(value) < least else f", and below {below}"
        raise ValueError(f"{name} must be {least} or more{also}, not {value}")


def check_number(name: str, value: Any) -> None:
    """TypeError unless `value` is a real number, NumPy's too."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")


def seeded(seed: Any, device: torch.device) -> torch.Generator:
    """The source of random numbers that `seed` stands for: itself, or a new one on `device`. TypeError, ValueError."""
    if isinstance(seed, torch.Generator):
        return seed
    check_whole_number("seed", seed)
    return torch.Generator(device).manual_seed(int(seed))
