"""What an exercise is: data. A prompt, a right answer, small cases to try it on, hints, and common mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Answer = Callable[..., Any]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that students really give, and what to tell them."""

    answer: Answer
    words: str


@dataclass(frozen=True)
class Exercise:
    """One exercise; its functions take the same arguments.

    `cases` makes the arguments anew at each call, seeded: a mapping from a few words ("a filter of zeros") to a tuple.
    `alternatives` are other right ways to write the reference. Answers are equal where they differ by at most
    `tolerance` of their largest number. Where every right answer lies within `bounds`, one that leaves them is told so.
    """

    name: str
    number: str
    title: str
    prompt: str
    reference: Answer
    cases: Callable[[], Mapping[str, tuple[Any, ...]]]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, ...]
    alternatives: tuple[Answer, ...]
    tolerance: float = 1e-4
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Verdict:
    """What `check` found: the rung of the ladder where the answer stands, and the words for the student.

    `rung` is "passed", "not attempted", "mistake" (a named one), or the first thing that is not as wanted: "function",
    "arguments", "time", "error", "type", "shape", "dtype", "finite", "range", "sign", "values", "input".
    """

    rung: str
    words: str
    printed: str = ""

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.rung == "passed"
