"""The words in which a wrong argument is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lessons_lib._checks import check_number, check_whole_number


def test_numbers_of_numpy_are_numbers() -> None:
    check_whole_number("count", np.int64(3), least=1, below=4)
    check_number("share", np.float32(0.5))
    check_number("share", 1)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (2.0, TypeError, "count must be a whole number, not float"),
        (True, TypeError, "count must be a whole number, not bool"),
        ("2", TypeError, "count must be a whole number, not str"),
        (0, ValueError, "count must be 1 or more, and below 4, not 0"),
        (4, ValueError, "count must be 1 or more, and below 4, not 4"),
    ],
)
def test_a_whole_number_is_refused_by_name(value: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=f"^{words}$"):
        check_whole_number("count", value, least=1, below=4)


def test_without_an_upper_end_none_is_named() -> None:
    with pytest.raises(ValueError, match="count must be 0 or more, not -1"):
        check_whole_number("count", -1)


@pytest.mark.parametrize("value", [True, "0.5", None, 1j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^share must be a number, not {type(value).__name__}$"):
        check_number("share", value)
