"""What several modules ask of an argument, and say in the same words when it is not so."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

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


def check_not_negative(name: str, value: Any) -> None:
    """TypeError unless `value` is a real number, ValueError unless it is finite and 0 or more."""
    check_number(name, value)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be 0 or more, not {value}")
