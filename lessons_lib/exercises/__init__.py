"""Exercises that answer back: `check` an answer, ask for a `hint`, see your `progress`.

Each chapter's exercises are data, in the module of the chapter's name: a tuple `EXERCISES`.
"""

from __future__ import annotations

import difflib
import os
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch

from . import record as _record
from .attempt import OutOfTime, copies, limit
from .diagnosis import diagnose as diagnose
from .exercise import Exercise as Exercise
from .exercise import Mistake as Mistake
from .exercise import Verdict as Verdict
from .report import card, show, verdict

_NOTHING: Any = object()
_DRAWING_SECONDS = 60.0  # a figure may call the function on a whole photograph


class WrongAnswer(AssertionError):
    """With LESSONS_STRICT=1, what `check` raises for an answer that is wrong."""


def check(
    name: str, answer: Any = _NOTHING, *, draw: Callable[[Callable[..., Any]], Any] | None = None, record: bool = True
) -> None:
    """Say what is right or wrong about `answer`, a function, as an answer to the exercise `name`.

    Once the function answers, right or wrong, `draw(answer)` shows what it makes, on copies of what it is given.
    With `record=False` progress is left as it is. Never raises, whatever is handed over; but with LESSONS_STRICT=1 it
    raises `WrongAnswer` for a wrong answer.
    """
    strict = os.environ.get("LESSONS_STRICT") == "1"
    exercise = _find(name)
    if exercise is None:
        return
    if answer is _NOTHING:
        show(*card("bad", f"Exercise {exercise.number}", f'Hand over your function: `check("{name}", your_function)`'))
        if strict:
            raise WrongAnswer(f"{name}: no function was handed over")
        return
    found = diagnose(exercise, answer)
    if record and found.rung != "not attempted":
        _record.note(name, attempted=True, passed=found.passed)
    show(*verdict(exercise, found, recorded=record))
    if strict and not found.passed and found.rung != "not attempted":
        raise WrongAnswer(f"{name}: {found.rung}: {found.words}")
    if draw is not None and found.rung in ("passed", "mistake", "range", "sign", "values", "input"):
        _draw(draw, answer, strict)


def hint(name: str) -> None:
    """Show the next hint for an exercise, under those shown before."""
    exercise = _find(name)
    if exercise is None:
        return
    seen = min(_record.hints_seen(name) + 1, len(exercise.hints))
    _record.note(name, hints=seen)
    last = ["That was the last hint."] if seen == len(exercise.hints) else []
    numbered = [f"{i}. {text}" for i, text in enumerate(exercise.hints[:seen], start=1)]
    show(*card("plain", f"Exercise {exercise.number}: hint {seen} of {len(exercise.hints)}", *numbered, *last))


def progress() -> None:
    """Show which exercises are done, which are left, and how many attempts and hints they took."""
    done, lines = 0, []
    notes = _record.read()
    for exercise in all_exercises().values():
        entry = notes.get(exercise.name, {})
        passed, attempts, hints = entry.get("passed"), _record.count(entry, "attempts"), _record.count(entry, "hints")
        done += bool(passed)
        state = f"passed on {passed}" if passed else "tried, not passed yet" if attempts else "not tried yet"
        taken = f", {attempts} attempt{'s' * (attempts != 1)}, {hints} hint{'s' * (hints != 1)}" if attempts else ""
        lines.append(f"{'✓' if passed else '○'} {exercise.number} {exercise.title} (`{exercise.name}`): {state}{taken}")
    lines += [f"✓ {name.capitalize()} of chapter 12: repaired" for name in notes if name.startswith(_record.CASE)]
    total = len(all_exercises())
    show(*card("good" if done == total else "plain", f"{done} of {total} exercises done", *lines))


@cache
def all_exercises() -> dict[str, Exercise]:
    """Every exercise of the course by its name, in the order of the chapters."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    exercises = [exercise for module in modules for exercise in getattr(module, "EXERCISES", ())]
    exercises.sort(key=lambda exercise: [int(part) for part in exercise.number.split(".")])
    return {exercise.name: exercise for exercise in exercises}


def _find(name: Any) -> Exercise | None:
    known = all_exercises()
    if isinstance(name, str) and name in known:
        return known[name]
    if isinstance(name, str):
        near = difflib.get_close_matches(name, known, n=1)
        words = f"There is no exercise `{name}`." + (f" Did you mean `{near[0]}`?" if near else "")
    else:
        words = f'The name of the exercise comes first, in quotation marks: `check("{next(iter(known))}", ...)`'
    show(*card("bad", "Which exercise?", words, "`progress()` lists them all."))
    if os.environ.get("LESSONS_STRICT") == "1":
        raise WrongAnswer(words)
    return None


def _draw(draw: Callable[[Callable[..., Any]], Any], answer: Callable[..., Any], strict: bool) -> None:
    try:
        # In the usual modes, as in the check: an answer that takes a gradient could not be drawn in inference mode.
        with limit(_DRAWING_SECONDS), torch.inference_mode(False), torch.enable_grad():
            # Copies: what works in place would change the notebook's own tensors.
            figure = draw(lambda *arguments: answer(*copies(arguments)))
        if figure is not None:
            from IPython.display import display

            display(figure)
    except (Exception, SystemExit, OutOfTime) as error:
        if strict:
            raise
        show(*card("bad", "The figure could not be drawn", f"{type(error).__name__}: {error}"))
