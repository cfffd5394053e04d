"""Find out what is wrong with an answer: which named mistake it is, or else the first rung of a ladder it misses."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .attempt import SECONDS, Outcome, OutOfTime, attempt
from .exercise import Exercise, Mistake, Verdict

STUB = "replace this line by your answer"
"""The words of the NotImplementedError in an exercise's stub."""

_MOST = 10_000_000  # numbers; no case wants nearly as many


def diagnose(exercise: Exercise, answer: Any, seconds: float = SECONDS) -> Verdict:
    """The verdict on a student's `answer`, a function. Never raises, whatever the answer is or does."""
    try:
        # Whatever the notebook's defaults are: the cases are small, and the same for everybody. Tensors made in
        # inference mode can never ask for a gradient: all answers to an exercise that needs one would fail alike.
        with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
            return _diagnose(exercise, answer, seconds)
    except (Exception, SystemExit) as error:
        # An object that lies about itself (its shape, its comparison) can get this far.
        return Verdict("type", f"Your answer could not be examined: it broke the check with {type(error).__name__}.")


def _diagnose(exercise: Exercise, answer: Any, seconds: float) -> Verdict:
    problem = _not_a_function(exercise, answer)
    if problem:
        return Verdict("function", problem)
    cases = exercise.cases()
    problem = _wrong_arguments(exercise, answer, next(iter(cases.values())))
    if problem:
        return Verdict("arguments", problem)

    outcomes, printed = attempt(answer, cases, seconds)
    if any(_is_stub(outcome.error) for outcome in outcomes.values()):
        return Verdict("not attempted", exercise.prompt)
    for about, outcome in outcomes.items():
        if isinstance(outcome.error, OutOfTime):
            words = f"Stopped after {seconds:g} seconds, at work on {about}. Is there a loop that never ends?"
            return Verdict("time", words, printed)
    right, _ = attempt(exercise.reference, cases)
    for outcome in right.values():
        if outcome.error is not None:  # then every answer may raise the same, also a mistake: nothing can be told apart
            return Verdict("error", _no_reference_words(outcome.error), printed)
    wanted = {about: outcome.answer for about, outcome in right.items()}

    rung, words = _ladder(exercise, cases, outcomes, wanted)
    if rung != "passed":
        mistake = _named(exercise, cases, outcomes, wanted if rung == "finite" else None)
        if mistake:
            rung, words = "mistake", mistake
    return Verdict(rung, words, printed)


# --- before it runs ----------------------------------------------------------------------------------------------


def _not_a_function(exercise: Exercise, answer: Any) -> str:
    call = f'Hand over the function itself: `check("{exercise.name}", your_function)`'
    if isinstance(answer, type):
        return f"{call}. This is a class, `{answer.__name__}`."
    if callable(answer):
        return ""
    if answer is None or isinstance(answer, Tensor | np.ndarray | numbers.Number | tuple | list):
        came = "None" if answer is None else f"of the type {type(answer).__name__}"
        return f"{call}, without calling it. What came is {came}: the result of a call?"
    return f"{call}. What came is of the type {type(answer).__name__}."


def _wrong_arguments(exercise: Exercise, answer: Any, arguments: tuple[Any, ...]) -> str:
    try:
        signature = inspect.signature(answer)
    except (TypeError, ValueError):  # builtins have none: it shows when they run
        return ""
    try:
        signature.bind(*arguments)
    except TypeError:
        names = ", ".join(inspect.signature(exercise.reference).parameters)
        count = "1 argument" if len(arguments) == 1 else f"{len(arguments)} arguments"
        return f"Your function is called with {count}, `({names})`, but it takes `{signature}`."
    return ""


def _is_stub(error: BaseException | None) -> bool:
    return isinstance(error, NotImplementedError) and str(error) in ("", STUB)


# --- named mistakes ----------------------------------------------------------------------------------------------


def _named(
    exercise: Exercise,
    cases: Mapping[str, tuple[Any, ...]],
    outcomes: Mapping[str, Outcome],
    wanted: Mapping[str, Any] | None,
) -> str:
    """The words for the mistake that the outcomes equal: with `wanted`, if need be only where they are finite."""
    for mistake in exercise.mistakes:
        if _is_theirs(exercise, mistake, cases, outcomes):
            return mistake.words
    if wanted is None:
        return ""
    # Two mistakes at once: a named one, and a division by zero somewhere that would hide it.
    right = {about: _filled(outcomes[about], Outcome(answer)) for about, answer in wanted.items()}
    if outcome_distance(right, {about: Outcome(answer) for about, answer in wanted.items()}) <= exercise.tolerance:
        return ""  # what is finite is right
    for mistake in exercise.mistakes:
        if _is_theirs(exercise, mistake, cases, outcomes, where_finite=True):
            return f"{mistake.words} And some numbers are not finite (NaN): where do you divide by zero?"
    return ""


def _is_theirs(
    exercise: Exercise,
    mistake: Mistake,
    cases: Mapping[str, tuple[Any, ...]],
    outcomes: Mapping[str, Outcome],
    where_finite: bool = False,
) -> bool:
    """Whether the mistake has the same outcomes. Most differ in the first case: then the others are not tried."""
    for about, arguments in cases.items():
        found = attempt(mistake.answer, {about: arguments})[0][about]
        outcome = _filled(outcomes[about], found) if where_finite else outcomes[about]
        if _case_distance(outcome, found) > exercise.tolerance:
            return False
    return True


def _filled(outcome: Outcome, other: Outcome) -> Outcome:
    """The outcome with the other's numbers where its own are not finite."""
    got, found = as_numbers(outcome.answer), as_numbers(other.answer)
    if not isinstance(got, Tensor) or not isinstance(found, Tensor) or got.shape != found.shape:
        return outcome
    return Outcome(answer=torch.where(torch.isfinite(got), got, found))


def outcome_distance(one: Mapping[str, Outcome], other: Mapping[str, Outcome]) -> float:
    """How far two functions' outcomes are apart on all cases: relative to the largest number, inf where they differ
    in kind."""
    return max(_case_distance(one[about], other[about]) for about in one)


def _case_distance(one: Outcome, other: Outcome) -> float:
    if one.error is not None or other.error is not None:
        same = type(one.error) is type(other.error) and str(one.error) == str(other.error)
        return 0.0 if same else math.inf
    return distance(as_numbers(one.answer), as_numbers(other.answer))


# --- the ladder --------------------------------------------------------------------------------------------------


def _ladder(
    exercise: Exercise,
    cases: Mapping[str, tuple[Any, ...]],
    outcomes: Mapping[str, Outcome],
    wanted: Mapping[str, Any],
) -> tuple[str, str]:
    for about, outcome in outcomes.items():
        if outcome.error is not None:
            return "error", _error_words(about, outcome)
    for rung, find in (("type", _type_words), ("shape", _shape_words), ("dtype", _dtype_words)):
        for about, outcome in outcomes.items():
            answer = outcome.answer
            if rung == "dtype" and not any(isinstance(argument, Tensor) for argument in cases[about]):
                answer = _single(answer)
            words = find(answer, wanted[about])
            if words:
                return rung, f"For {about}: {words}"
    numbers_of = {about: (as_numbers(outcome.answer), as_numbers(wanted[about])) for about, outcome in outcomes.items()}
    wrong = [about for about, (got, want) in numbers_of.items() if distance(got, want) > exercise.tolerance]
    if wrong:
        first = wanted[wrong[0]]
        whole = isinstance(first, Tensor) and not (first.is_floating_point() or first.is_complex())
        return _values_words(exercise, numbers_of, wrong, whole=whole)
    for about, outcome in outcomes.items():
        if outcome.changed:
            return "input", f"For {about}: the numbers are right, but your function {outcome.changed}"
    return "passed", ""


def _error_words(about: str, outcome: Outcome) -> str:
    error = outcome.error
    if isinstance(error, SystemExit):
        return "Your function calls `exit()`: return the answer instead."
    if isinstance(error, KeyboardInterrupt):
        return "Your function was interrupted."
    text = " ".join(str(error).split())
    words = f"For {about}: your function stops with {type(error).__name__}"
    words += f": {text[:300]}" if text else ""
    return words + (f"\nIn the line `{outcome.line[:200]}`" if outcome.line else "")


def _no_reference_words(error: BaseException) -> str:
    return (
        f"Your answer could not be checked: the right answer itself stops here with {type(error).__name__}. Something "
        "in this notebook has changed what PyTorch does. Restart the kernel, run the chapter up to here, and check "
        "again."
    )


def _type_words(got: Any, wanted: Any) -> str:
    if got is None:
        return "your function returns nothing. Is there a `return`?"
    if inspect.isgenerator(got):
        return "your function is a generator: write `return`, not `yield`."
    if inspect.iscoroutine(got):
        return "your function is `async`: write a plain `def`."
    scalar = _is_number(wanted) or (isinstance(wanted, Tensor) and wanted.ndim == 0)
    if scalar:
        fits = _is_number(got) or isinstance(got, Tensor)
        name = "a number"
    elif isinstance(wanted, Tensor):
        fits, name = isinstance(got, Tensor), "a tensor"
    else:
        fits, name = isinstance(got, tuple) and not any(isinstance(x, list) for x in got), "a tuple"
    if not fits:
        maker = "`torch.from_numpy`" if isinstance(got, np.ndarray) else "`torch.tensor` or `torch.stack`"
        more = f" ({maker} makes one)" if name == "a tensor" else ""
        return f"return {name}{more}, not an object of the type {type(got).__name__}."
    if isinstance(got, Tensor) and got.numel() > _MOST:
        return ""  # its shape tells what is wrong, and to look at the numbers would take minutes
    if as_numbers(got) is None:
        return f"the answer holds no numbers that can be compared ({_kind(got)})."
    return ""


def _shape_words(got: Any, wanted: Any) -> str:
    if isinstance(wanted, tuple):
        if len(got) != len(wanted):
            return f"return {len(wanted)} things, not {len(got)}."
        return next((words for pair in zip(got, wanted, strict=True) if (words := _shape_words(*pair))), "")
    shape = tuple(got.shape) if isinstance(got, Tensor) else ()
    want = tuple(wanted.shape) if isinstance(wanted, Tensor) else ()
    return "" if shape == want else f"the shape is {shape}, wanted is {want}."


def _dtype_words(got: Any, wanted: Any) -> str:
    if isinstance(wanted, tuple):
        return next((words for pair in zip(got, wanted, strict=True) if (words := _dtype_words(*pair))), "")
    if isinstance(got, Tensor) and isinstance(wanted, Tensor) and wanted.ndim:
        if got.layout != wanted.layout:
            return "return an ordinary tensor: yours is sparse (`.to_dense()` makes it one)."
        if got.device.type != wanted.device.type:
            return f"the answer is on {got.device.type}; keep it where the input is, on {wanted.device.type}."
        whole = not wanted.is_floating_point() and not got.is_floating_point() and not got.is_complex()
        if got.dtype != wanted.dtype and not (whole and got.dtype != torch.bool):
            return f"the numbers are {_dtype(got)}, wanted are {_dtype(wanted)}: add `.to(torch.{_dtype(wanted)})`."
    elif _is_whole(wanted) and not _is_whole(got):
        return "a whole number (an index) is wanted."
    return ""


def _single(answer: Any) -> Any:
    """In float32: from plain numbers an answer may be computed in float64 as well."""
    return answer.float() if isinstance(answer, Tensor) and answer.dtype == torch.float64 else answer


def _values_words(
    exercise: Exercise, numbers_of: Mapping[str, tuple[Any, Any]], wrong: list[str], *, whole: bool
) -> tuple[str, str]:
    for about in wrong:
        got, want = numbers_of[about]
        if not _finite(got) and _finite(want):
            words = "there are numbers that are not finite (NaN or infinity). Where do you divide, or take a logarithm?"
            return "finite", f"For {about}: {words}"
    pattern = _pattern(list(numbers_of.values()), exercise.tolerance)
    if pattern:
        return pattern
    for about in wrong:
        if exercise.bounds and (words := _outside(numbers_of[about][0], exercise.bounds)):
            return "range", f"For {about}: {words}"
    got, want = numbers_of[wrong[0]]
    words = f"Wrong for {wrong[0]}"
    if isinstance(got, Tensor) and got.ndim:
        close = ((got - want).abs() <= exercise.tolerance * _scale(want)) | (got == want)  # infinity is at no distance
        words += f": {int((~close).sum())} of {close.numel()} numbers differ from what is wanted, by "
        off = distance(got, want)
        if whole:  # a share of a row or a column means nothing
            words += f"up to {(got - want).abs().max():.0f}"
        else:
            part = "less than 1%" if off < 0.01 else f"up to {off:.0%}"
            words += "more than the largest" if off > 1 else f"{part} of the largest"
    elif isinstance(got, Tensor) and isinstance(want, Tensor) and got * want > 0:
        times = float(got / want)
        near = abs(times - 1) < 0.01
        words += ": yours is near, and less than 1% off" if near else f": yours is {times:.3g} times what is wanted"
    right = [about for about in numbers_of if about not in wrong]
    return "values", words + (f". It is right for: {'; '.join(right)}." if right else ".")


def _pattern(pairs: list[tuple[Any, Any]], tolerance: float) -> tuple[str, str] | None:
    """A wrong answer that stands in a simple relation to the right one, the same in all cases."""
    if not all(isinstance(got, Tensor) and _finite(got) for got, _ in pairs):
        return None

    def holds(change: Any) -> bool:
        return all(distance(change(got), want) <= tolerance for got, want in pairs)

    if holds(torch.neg):
        return "sign", "Every number has the wrong sign."
    factors = [(got * want).sum() / want.square().sum() for got, want in pairs if want.abs().sum() > 0]
    factor = float(factors[0]) if factors else 0.0
    if abs(factor) > 1e-6 and abs(factor - 1) > 0.01 and holds(lambda got: got / factor):
        return "values", f"Every number is {factor:.3g} times what is wanted: a factor is missing or one too many."
    offset = float((pairs[0][0] - pairs[0][1]).mean())
    if holds(lambda got: got - offset):
        return "values", f"Every number is off by the same amount, {offset:+.3g}."
    if all(got.ndim > 1 for got, _ in pairs):
        if all(got.shape[-1] == got.shape[-2] for got, _ in pairs) and holds(lambda got: got.transpose(-1, -2)):
            return "values", "The numbers are right, but rows and columns have changed places."
        for axis, name in ((-1, "left and right"), (-2, "top and bottom")):
            if holds(lambda got, axis=axis: got.flip(axis)):
                return "values", f"The numbers are right, but {name} have changed places."
    return None


# --- answers as numbers ------------------------------------------------------------------------------------------


def as_numbers(answer: Any) -> Any:
    """The numbers of an answer in double precision, whatever holds them: a tensor, a tuple of tensors, or None."""
    try:
        return _as_numbers(answer)
    except (TypeError, ValueError, RuntimeError, NotImplementedError, OverflowError, RecursionError):
        return None


def _as_numbers(answer: Any) -> Any:
    if isinstance(answer, Tensor):
        if answer.device.type == "meta" or answer.numel() > _MOST:
            return None
        dense = answer.detach().to_dense() if answer.layout != torch.strided else answer.detach()
        if dense.is_quantized:
            dense = dense.dequantize()
        if dense.is_complex():
            return torch.view_as_real(dense.resolve_conj()).double().cpu()
        return dense.double().cpu()
    if isinstance(answer, np.ndarray | np.generic):
        return torch.from_numpy(np.array(answer, dtype=np.float64))
    if _is_number(answer):
        return torch.tensor(float(answer), dtype=torch.float64)
    if isinstance(answer, tuple | list) and answer:
        parts = [_as_numbers(part) for part in answer]
        if any(part is None for part in parts):
            return None
        if all(isinstance(part, Tensor) and part.shape == parts[0].shape for part in parts):
            return torch.stack(parts)
        return tuple(parts)
    return None


def distance(one: Any, other: Any) -> float:
    """The largest difference between two answers' numbers, relative to the largest of `other`'s; inf where the two do
    not fit, or are not finite at the same places."""
    if one is None or other is None or isinstance(one, tuple) != isinstance(other, tuple):
        return math.inf
    if isinstance(one, tuple):
        if len(one) != len(other):
            return math.inf
        return max(distance(a, b) for a, b in zip(one, other, strict=True))
    if one.shape != other.shape:
        return math.inf
    if one.numel() == 0:
        return 0.0
    odd = ~torch.isfinite(one) | ~torch.isfinite(other)
    if not torch.isclose(one[odd], other[odd], equal_nan=True).all():
        return math.inf
    difference = (one[~odd] - other[~odd]).abs()
    return float(difference.max()) / _scale(other) if difference.numel() else 0.0


def _scale(values: Tensor) -> float:
    finite = values[torch.isfinite(values)]
    return (float(finite.abs().max()) if finite.numel() else 0.0) or 1.0


def _finite(values: Any) -> bool:
    if isinstance(values, tuple):
        return all(_finite(part) for part in values)
    return bool(torch.isfinite(values).all())


def _outside(values: Any, bounds: tuple[float, float]) -> str:
    if not isinstance(values, Tensor) or values.numel() == 0:
        return ""
    low, high = float(values.min()), float(values.max())
    slack = 1e-4 * (bounds[1] - bounds[0])
    if low >= bounds[0] - slack and high <= bounds[1] + slack:
        return ""
    return f"the numbers must lie from {bounds[0]:g} to {bounds[1]:g}; yours go from {low:.3g} to {high:.3g}."


def _is_number(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and np.issubdtype(value.dtype, np.number)
    return isinstance(value, numbers.Real | np.number) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    if isinstance(value, np.ndarray):
        return value.ndim == 0 and np.issubdtype(value.dtype, np.integer)
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.layout} tensor on {value.device.type}".replace("torch.", "")
    return type(value).__name__


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
