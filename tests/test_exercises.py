"""The exercises answer back: right answers pass, every mistake is told its own words, and nothing breaks the check."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import notebooks
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lessons_lib import check, exercises, hint, progress
from lessons_lib.exercises import Exercise, Mistake, Verdict, WrongAnswer, all_exercises, diagnose
from lessons_lib.exercises import attempt as attempts
from lessons_lib.exercises import record as records
from lessons_lib.exercises import report as reports
from lessons_lib.exercises.attempt import OutOfTime, attempt
from lessons_lib.exercises.diagnosis import STUB, distance, outcome_distance

ALL = tuple(all_exercises().values())
MISTAKES = [(exercise, mistake) for exercise in ALL for mistake in exercise.mistakes]
QUICK = 0.3  # seconds; what loops in these tests is stopped after that


def named(thing: Any) -> str:
    return getattr(thing, "name", None) or getattr(getattr(thing, "answer", thing), "__name__", "").strip("_")


# --- what must hold for every exercise ---------------------------------------------------------------------------


@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_the_reference_and_at_least_two_other_right_ways_pass(exercise: Exercise) -> None:
    assert len(exercise.alternatives) >= 2
    for answer in (exercise.reference, *exercise.alternatives):
        assert diagnose(exercise, answer) == Verdict("passed", ""), answer.__name__


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES, ids=named)
def test_a_named_mistake_is_told_its_own_words(exercise: Exercise, mistake: Mistake) -> None:
    assert diagnose(exercise, mistake.answer) == Verdict("mistake", mistake.words)


@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_no_two_mistakes_have_the_same_words_and_there_are_at_least_four(exercise: Exercise) -> None:
    words = [mistake.words for mistake in exercise.mistakes]
    assert len(set(words)) == len(words) >= 4


@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_no_mistake_comes_near_another_or_the_right_answer(exercise: Exercise) -> None:
    answers = [exercise.reference, *(mistake.answer for mistake in exercise.mistakes)]
    outcomes = {answer.__name__: attempt(answer, exercise.cases())[0] for answer in answers}
    apart = {
        (a, b): outcome_distance(outcomes[a], outcomes[b]) for a, b in itertools.permutations(outcomes, 2)
    }  # both ways round: the scale is that of the second
    assert {pair: d for pair, d in apart.items() if d < 100 * exercise.tolerance} == {}


@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_the_cases_are_the_same_every_time_and_quick(exercise: Exercise) -> None:
    once, again = exercise.cases(), exercise.cases()
    assert list(once) == list(again)
    for first, second in zip(once.values(), again.values(), strict=True):
        assert all(attempts._same(a, b) for a, b in zip(first, second, strict=True))
    assert sum(a.numel() for case in once.values() for a in case if isinstance(a, Tensor)) < 10_000


@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_an_exercise_has_hints_that_end_no_sentence_open(exercise: Exercise) -> None:
    texts = [exercise.prompt, *exercise.hints, *(mistake.words for mistake in exercise.mistakes)]
    assert len(exercise.hints) >= 2
    assert [text for text in texts if text[-1] not in ".?!" or text.count("`") % 2] == []


def test_names_and_numbers_are_used_once_and_modules_bear_the_names_of_chapters() -> None:
    assert len({exercise.number for exercise in ALL}) == len(ALL) == len(all_exercises())
    for path in notebooks.chapters():
        module = import_module(f"lessons_lib.exercises.{path.stem[3:]}")
        assert {exercise.number.split(".")[0] for exercise in module.EXERCISES} == {str(int(path.name[:2]))}


@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_an_answer_that_needs_a_gradient_passes(exercise: Exercise) -> None:
    def with_graph(*arguments: Any) -> Any:
        answer = exercise.reference(*arguments)
        return answer.requires_grad_() if isinstance(answer, Tensor) and answer.is_floating_point() else answer

    assert diagnose(exercise, with_graph).passed


# --- answers that are wrong in a way of their own ----------------------------------------------------------------


def a_larger_epsilon(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
    size = gradient.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (images + step_size * gradient / (size + 1e-3)).clamp(0, 1)


def dead_below(threshold: float) -> Callable[[Tensor], float]:
    return lambda maps: (maps.amax(dim=(0, 2, 3)) < threshold).float().mean().item()


def dead_on(pictures: list[int] | slice) -> Callable[[Tensor], float]:
    return lambda maps: (maps[pictures].amax(dim=(0, 2, 3)) <= 0).float().mean().item()


def patch_of(change: Callable[[Tensor, int], tuple[Tensor, int]]) -> Callable[..., Tensor]:
    def answer(images: Tensor, maps: Tensor, channel: int, field: tuple[int, int, int]) -> Tensor:
        return all_exercises()["most_exciting_patch"].reference(images, *change(maps, channel), field)

    return answer


def blur_reaching(reach: Callable[[float], int]) -> Callable[[Tensor, float], Tensor]:
    def answer(images: Tensor, sigma: float) -> Tensor:
        radius = reach(sigma)
        weights = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
        filters = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
        images = nn.functional.pad(images, (radius,) * 4, mode="reflect")
        across = nn.functional.conv2d(images, filters, groups=len(filters))
        return nn.functional.conv2d(across, filters.transpose(2, 3), groups=len(filters))

    return answer


WRONG: dict[str, tuple[str, Callable[..., Any]]] = {
    "1e-3 beside the size of a gradient": ("normalized_step", a_larger_epsilon),
    "little in all is dead": ("dead_fraction", lambda maps: (maps.sum(dim=(0, 2, 3)) < 0.01).float().mean().item()),
    "alive on the second picture": ("dead_fraction", dead_on([1])),
    "alive on the first two pictures": ("dead_fraction", dead_on([0, 1])),
    "alive on all pictures but the first": ("dead_fraction", dead_on(slice(1, None))),
    "alive on all pictures but the last": ("dead_fraction", dead_on(slice(-1))),
    "the channel's share": ("most_exciting_patch", patch_of(lambda maps, channel: (maps.softmax(dim=1), channel))),
    "always the last channel": ("most_exciting_patch", patch_of(lambda maps, channel: (maps, -1))),
    "always the last channel but one": ("most_exciting_patch", patch_of(lambda maps, channel: (maps, -2))),
    "always the first channel": ("most_exciting_patch", patch_of(lambda maps, channel: (maps, 0))),
    "always the second channel": ("most_exciting_patch", patch_of(lambda maps, channel: (maps, 1))),
    "one more than whole": ("gaussian_blur", blur_reaching(lambda sigma: int(3 * sigma) + 1)),
    "rounded, not up": ("gaussian_blur", blur_reaching(lambda sigma: int(3 * sigma + 0.5))),
    "cut, not rounded": ("gaussian_blur", blur_reaching(lambda sigma: int(3 * sigma))),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_answer_that_is_wrong_in_a_way_of_its_own_neither_passes_nor_is_told_another_mistake(kind: str) -> None:
    name, answer = WRONG[kind]
    assert diagnose(all_exercises()[name], answer).rung in ("values", "shape")


def test_the_blur_of_these_tests_is_right_where_it_reaches_as_far_as_it_should() -> None:
    assert diagnose(all_exercises()["gaussian_blur"], blur_reaching(lambda sigma: math.ceil(3 * sigma))).passed


@pytest.mark.parametrize("threshold", [1e-8, 1e-6, 1e-3, 5e-3, 0.1])
def test_faint_is_not_dead(threshold: float) -> None:
    assert "*nearly* never on" in diagnose(all_exercises()["dead_fraction"], dead_below(threshold)).words


@pytest.mark.parametrize("epsilon", [1e-5, 1e-6, 1e-7, 1e-8, 1e-12])
def test_where_a_tiny_number_keeps_a_step_from_dividing_by_zero_does_not_matter(epsilon: float) -> None:
    def step(root: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
        def answer(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
            mean_square = gradient.square().mean(dim=(1, 2, 3), keepdim=True)
            return (images + step_size * gradient / root(mean_square)).clamp(0, 1)

        return answer

    exercise = all_exercises()["normalized_step"]
    assert diagnose(exercise, step(lambda square: square.sqrt() + epsilon)).passed
    assert diagnose(exercise, step(lambda square: (square + epsilon).sqrt())).passed
    assert diagnose(exercise, step(lambda square: square.sqrt().clamp(min=epsilon))).passed


@pytest.mark.skipif(not hasattr(nn.functional, "rms_norm"), reason="PyTorch has rms_norm since 2.4")
def test_a_step_by_rms_norm_passes() -> None:
    def answer(images: Tensor, gradient: Tensor, step_size: float) -> Tensor:
        return (images + step_size * nn.functional.rms_norm(gradient, gradient.shape[1:])).clamp(0, 1)

    assert diagnose(all_exercises()["normalized_step"], answer).passed


# --- junk: whatever comes, words and no exception ----------------------------------------------------------------

BOX = all_exercises()["to_pictures"]
right = BOX.reference


class AClass:
    def __init__(self, filters: Tensor) -> None:
        self.filters = filters


class Liar:
    """Answers with itself, and raises wherever it is asked something."""

    def __call__(self, filters: Tensor) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class LyingTensor(Tensor):
    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("no")


def endless(filters: Tensor) -> None:
    while True:
        pass


def endless_and_stubborn(filters: Tensor) -> None:
    while True:
        try:  # noqa: SIM105
            time.sleep(0.01)
        except:  # noqa: E722
            pass


def endless_and_stubborn_twice(filters: Tensor) -> None:
    while True:
        try:  # noqa: SIM105
            endless_and_stubborn(filters)
        except:  # noqa: E722
            pass


def endless_sleep(filters: Tensor) -> None:
    time.sleep(60)


def endless_print(filters: Tensor) -> None:
    while True:
        print("again " * 100)


def late_but_returns(filters: Tensor) -> Tensor:
    with contextlib.suppress(BaseException):
        time.sleep(60)
    return right(filters)


def endless_recursion(filters: Tensor) -> Tensor:
    return endless_recursion(filters)


def generator(filters: Tensor) -> Any:
    yield right(filters)


async def coroutine(filters: Tensor) -> Tensor:
    return right(filters)


def holding_itself(filters: Tensor) -> list[Any]:
    answer: list[Any] = []
    answer.append(answer)
    return answer


def in_place(filters: Tensor) -> Tensor:
    answer = right(filters)
    filters.copy_(answer)
    return filters


def leaves(filters: Tensor) -> None:
    sys.exit(3)


def interrupted(filters: Tensor) -> None:
    raise KeyboardInterrupt


def stub(filters: Tensor) -> Tensor:
    raise NotImplementedError(STUB)


def bare_stub(filters: Tensor) -> Tensor:
    raise NotImplementedError


def unsupported(filters: Tensor) -> Tensor:
    raise NotImplementedError("Could not run 'aten::x' on this device")


JUNK: dict[str, tuple[Any, str]] = {
    "None": (None, "function"),
    "a number": (3.0, "function"),
    "a string": ("normalize", "function"),
    "the result of a call": (torch.zeros(3), "function"),
    "an array": (np.zeros(3), "function"),
    "a dictionary": ({}, "function"),
    "a class": (AClass, "function"),
    "an exercise": (BOX, "function"),
    "a function of two arguments": (lambda a, b: a, "arguments"),
    "a function of none": (lambda: 1, "arguments"),
    "keyword only": (lambda *, filters: filters, "arguments"),
    "a module": (nn.Conv2d(3, 3, 3), "error"),
    "a builtin": (len, "type"),
    "print": (print, "type"),
    "a partial": (functools.partial(torch.add, other=1), "range"),
    "an object that lies": (Liar(), "type"),
    "a tensor that lies": (lambda f: right(f).as_subclass(LyingTensor), "type"),
    "a loop": (endless, "time"),
    "a loop that swallows everything": (endless_and_stubborn, "time"),
    "two loops that swallow everything": (endless_and_stubborn_twice, "time"),
    "a sleep": (endless_sleep, "time"),
    "a sleep without a frame of its own": (functools.partial(time.sleep), "error"),
    "a loop that prints": (endless_print, "time"),
    "a late answer": (late_but_returns, "time"),
    "recursion": (endless_recursion, "error"),
    "exit": (leaves, "error"),
    "an interrupt": (interrupted, "error"),
    "an unsupported operation": (unsupported, "error"),
    "a wrong product": (lambda f: f @ torch.zeros(99), "error"),
    "a stub": (stub, "not attempted"),
    "a bare stub": (bare_stub, "not attempted"),
    "a generator": (generator, "type"),
    "a coroutine": (coroutine, "type"),
    "nothing returned": (lambda f: None, "type"),
    "a list": (lambda f: right(f).tolist(), "type"),
    "a NumPy array": (lambda f: right(f).numpy(), "type"),
    "text": (lambda f: "0.5", "type"),
    "a mapping": (lambda f: {0: right(f)}, "type"),
    "a list that holds itself": (holding_itself, "type"),
    "a tuple around it": (lambda f: (right(f),), "type"),
    "the function itself": (lambda f: right, "type"),
    "a meta tensor": (lambda f: right(f).to("meta"), "type"),
    "a sparse tensor": (lambda f: right(f).to_sparse(), "dtype"),
    "a quantized tensor": (lambda f: torch.quantize_per_tensor(right(f), 0.01, 0, torch.quint8), "dtype"),
    "nothing in it": (lambda f: torch.empty(0), "shape"),
    "a dimension too many": (lambda f: right(f)[None], "shape"),
    "another case's shape": (lambda f: right(f).transpose(2, 3), "shape"),
    "float64": (lambda f: right(f).double(), "dtype"),
    "float16": (lambda f: right(f).half(), "dtype"),
    "whole numbers": (lambda f: right(f).round().int(), "dtype"),
    "booleans": (lambda f: right(f) > 0.5, "dtype"),
    "complex": (lambda f: right(f) + 0j, "dtype"),
    "NaN": (lambda f: right(f) * math.nan, "finite"),
    "infinity": (lambda f: right(f) / 0, "finite"),
    "the wrong sign": (lambda f: -right(f), "sign"),
    "half of it": (lambda f: right(f) / 2, "values"),
    "a bit more": (lambda f: right(f) + 0.1, "values"),
    "upside down": (lambda f: right(f).flip(2), "values"),
    "out of range": (lambda f: 2 * right(f).square(), "range"),
    "noise": (lambda f: torch.rand_like(f), "values"),
    "changes its input": (in_place, "input"),
    "needs a gradient": (lambda f: right(f).requires_grad_(), "passed"),
    "made in inference mode": (torch.inference_mode()(right), "passed"),
}


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.filterwarnings("error::RuntimeWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_junk_gets_words_and_never_raises(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer, rung = JUNK[kind]
    found = diagnose(BOX, answer, QUICK)
    assert found.rung == rung, found
    assert found.words or found.passed
    monkeypatch.setattr("lessons_lib.exercises.diagnose", lambda exercise, given: found)
    check(BOX.name, answer)
    assert capsys.readouterr().out.strip().startswith(("✓", "✗", "○"))


def test_there_are_at_least_thirty_kinds_of_junk() -> None:
    assert len(JUNK) >= 30


@pytest.mark.parametrize("exercise", ALL, ids=named)
@pytest.mark.parametrize("answer", [lambda *a: None, lambda *a: [], lambda *a: np.nan, lambda *a: torch.rand(7), max])
def test_every_exercise_survives_junk(exercise: Exercise, answer: Any) -> None:
    assert not diagnose(exercise, answer).passed


def test_a_number_will_do_as_a_tensor_without_dimensions_and_the_other_way_round() -> None:
    for reference in (lambda x: x.sum(), lambda x: float(x.sum())):
        exercise = small(reference, torch.ones(3))
        for answer in (lambda x: x.sum(), lambda x: x.sum().item(), lambda x: np.float64(3), lambda x: 3):
            assert diagnose(exercise, answer).passed
        assert diagnose(exercise, lambda x: x.sum()[None]).rung == "shape"
        assert diagnose(exercise, lambda x: True).rung == "type"


def test_from_plain_numbers_an_answer_may_be_in_float64() -> None:
    def reference(count: int) -> torch.Tensor:
        return torch.arange(count) / 7

    exercise = small(reference, 5)
    assert diagnose(exercise, lambda count: torch.from_numpy(np.arange(count) / 7)).passed
    assert diagnose(exercise, lambda count: (torch.arange(count) / 7).half()).rung == "dtype"
    assert diagnose(exercise, lambda count: torch.arange(count) // 7).rung == "dtype"
    exercise = small(lambda x: x / 7, torch.ones(3))
    assert diagnose(exercise, lambda x: x.double() / 7).rung == "dtype"


def test_a_wrong_number_is_told_how_far_it_is_off() -> None:
    two = {"three ones": (torch.ones(3),), "five ones": (torch.ones(5),)}
    exercise = dataclasses.replace(small(lambda x: x.sum(), torch.ones(3)), cases=lambda: two)
    words = diagnose(exercise, lambda x: x.sum() + (len(x) == 3)).words
    assert words == "Wrong for three ones: yours is 1.33 times what is wanted. It is right for: five ones."
    assert "times" not in diagnose(exercise, lambda x: x.sum() - 4 * (len(x) == 3)).words  # another sign
    assert "yours is near, and less than 1% off" in diagnose(exercise, lambda x: x.sum() + 0.01 * (len(x) == 3)).words


def test_an_index_must_be_whole_and_a_tuple_a_tuple() -> None:
    exercise = small(lambda x: (0, int(x.argmax())), torch.tensor([1.0, 3.0, 2.0]))
    assert diagnose(exercise, lambda x: (0, x.argmax())).passed
    assert diagnose(exercise, lambda x: (0, 1.0)).rung == "dtype"
    assert diagnose(exercise, lambda x: [0, 1]).rung == "type"
    assert diagnose(exercise, lambda x: (0, 1, 2)).rung == "shape"


def small(reference: Callable[..., Any], *arguments: Any, mistakes: tuple[Mistake, ...] = ()) -> Exercise:
    return Exercise(
        name="small",
        number="9.1",
        title="Small",
        prompt="Do it.",
        reference=reference,
        cases=lambda: {"the only case": arguments},
        mistakes=mistakes,
        hints=("Think.", "Think again."),
        alternatives=(),
    )


# --- what is told ------------------------------------------------------------------------------------------------


def test_a_mistake_that_raises_is_known_by_its_error() -> None:
    def wrong(x: Tensor) -> Tensor:
        return x @ torch.zeros(5)

    exercise = small(lambda x: x, torch.ones(3), mistakes=(Mistake(wrong, "Five is not three."),))
    assert diagnose(exercise, lambda x: x @ torch.zeros(5)).words == "Five is not three."
    assert diagnose(exercise, lambda x: x @ torch.zeros(4)).rung == "error"


def test_a_mistake_in_double_precision_or_as_a_list_is_still_named() -> None:
    sizes = next(m for m in BOX.mistakes if named(m) == "sizes")
    assert diagnose(BOX, lambda f: sizes.answer(f).double()).words == sizes.words
    assert diagnose(BOX, lambda f: sizes.answer(f).tolist()).words == sizes.words


def test_the_words_for_an_error_name_the_students_line() -> None:
    def wrong(filters: Tensor) -> Tensor:
        return filters.view(7, 7)  # the line at fault

    words = diagnose(BOX, wrong).words
    assert "RuntimeError" in words
    assert "`return filters.view(7, 7)  # the line at fault`" in words


def test_what_is_right_in_some_cases_is_said() -> None:
    def only_usual(filters: Tensor) -> Tensor:
        return right(filters) if len(filters) == 4 else torch.full_like(filters, 0.25)

    words = diagnose(BOX, only_usual).words
    assert words.startswith("Wrong for a filter whose weights are all equal")
    assert "right for: four filters" in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: -x, "wrong sign"),
        (lambda x: 3 * x, "3 times what is wanted"),
        (lambda x: 1.001 * x, "8 of 9 numbers differ from what is wanted, by less than 1%"),
        (lambda x: x + 0.5, "off by the same amount, +0.5"),
        (lambda x: x.T, "rows and columns have changed places"),
        (lambda x: x.flip(1), "left and right have changed places"),
        (lambda x: x.flip(0), "top and bottom have changed places"),
        (lambda x: x * torch.tensor([1.0, 1.0, 2.0]), "3 of 9 numbers differ"),
    ],
)
def test_simple_relations_to_the_right_answer_are_named(change: Callable[[Tensor], Tensor], words: str) -> None:
    exercise = small(lambda x: x, torch.tensor([[1.0, 2.0, 4.0], [-1.0, 5.0, 3.0], [0.5, 7.0, -2.0]]))
    assert words in diagnose(exercise, change).words


def test_a_mistake_is_named_also_where_a_division_by_zero_hides_it() -> None:
    similarity = all_exercises()["similarity"]

    def twice_wrong(patches: Tensor, sought: Tensor) -> Tensor:
        return (patches * sought).sum(dim=(1, 2, 3)) / patches.flatten(1).norm(dim=1)

    words = diagnose(similarity, twice_wrong).words
    assert words.startswith("You divide by the lengths of the patches only")
    assert words.endswith("where do you divide by zero?")
    assert diagnose(similarity, lambda p, s: torch.full((len(p),), math.nan)).rung == "finite"


@pytest.mark.parametrize(
    ("off", "words"), [(3.0, "more than the largest"), (0.3, "up to 30% of"), (0.002, "less than 1% of")]
)
def test_how_far_an_answer_is_off_is_said_without_frightening_numbers(off: float, words: str) -> None:
    exercise = small(lambda x: x, torch.tensor([1.0, 0.5, 0.2]))
    assert words in diagnose(exercise, lambda x: x + torch.tensor([0.0, off, 0.0])).words


def test_whole_numbers_are_off_by_a_number_and_not_by_a_share() -> None:
    exercise = small(lambda x: x, torch.tensor([0, 12, 40, 8]))
    words = diagnose(exercise, lambda x: x + torch.tensor([0, 3, -1, 0])).words
    assert words.startswith("Wrong for") and "2 of 4 numbers differ from what is wanted, by up to 3" in words


def test_the_answer_is_never_printed() -> None:
    exercise = small(lambda x: x + 41.123, torch.ones(1))
    for answer in (lambda x: x * 7, lambda x: x[None], lambda x: None, lambda x: 1 / 0):
        assert "42.123" not in diagnose(exercise, answer).words


def test_what_a_function_prints_is_shown_once_and_not_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    def talkative(filters: Tensor) -> Tensor:
        print("<b>shape</b>", tuple(filters.shape))
        print("to stderr", file=sys.stderr)
        return right(filters)

    found = diagnose(BOX, talkative)
    assert "<b>shape</b> (4, 3, 5, 5)\nto stderr" in found.printed
    assert len(diagnose(BOX, endless_print, QUICK).printed) < 2100
    assert capsys.readouterr() == ("", "")
    html, text = reports.verdict(BOX, found, recorded=True)
    assert "&lt;b&gt;shape" in html and "<b>" not in html
    assert "  | <b>shape</b> (4, 3, 5, 5)" in text


# --- what a function leaves behind -------------------------------------------------------------------------------


def test_a_check_leaves_random_numbers_and_settings_alone(tmp_path: Path) -> None:
    def careless(filters: Tensor) -> Tensor:
        torch.set_default_device("meta")
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.autograd.set_detect_anomaly(True)
        os.chdir(tmp_path)
        sys.setrecursionlimit(2000)
        torch.manual_seed(99)
        torch.set_default_dtype(torch.float64)
        return right(filters) + 0 * torch.rand(1, dtype=filters.dtype, device="cpu")

    def settings() -> list[Any]:
        return [torch.get_default_device(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
                torch.is_anomaly_enabled(), os.getcwd(), sys.getrecursionlimit()]  # fmt: skip

    before = settings()
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    assert diagnose(BOX, careless).passed
    assert settings() == before
    torch.testing.assert_close(torch.rand(3), wanted, atol=0, rtol=0)
    assert torch.get_default_dtype() == torch.float32
    with torch.no_grad():
        assert diagnose(BOX, careless).passed
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_another_default_device_makes_no_right_answer_wrong(exercise: Exercise) -> None:
    torch.set_default_device("meta")
    try:
        assert diagnose(exercise, exercise.reference).passed
        assert diagnose(exercise, exercise.mistakes[0].answer).words == exercise.mistakes[0].words
    finally:
        torch.set_default_device("cpu")


def test_after_an_interrupt_no_other_case_is_begun() -> None:
    begun: list[int] = []

    def slow(filters: Tensor) -> Tensor:
        begun.append(1)
        raise KeyboardInterrupt

    assert diagnose(BOX, slow).rung == "error"
    assert len(begun) == 1


def test_an_answer_of_a_thousand_million_numbers_is_told_its_shape_at_once() -> None:
    start = time.monotonic()
    assert diagnose(BOX, lambda f: torch.zeros(1).expand(10**9)).rung == "shape"
    assert time.monotonic() - start < 10


def test_a_function_that_changes_its_input_does_not_spoil_the_other_cases() -> None:
    cases = {"one": (torch.ones(2),), "two": (torch.ones(2),)}
    cases["two"] = cases["one"]
    outcomes, _ = attempt(lambda x: x.add_(1), cases)
    assert torch.equal(outcomes["two"].answer, torch.full((2,), 2.0))
    assert torch.equal(cases["one"][0], torch.ones(2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mode", "has left the network in another mode than it was in"),
        ("weight", "has changed weights or statistics of the network"),
        *((change, "has changed the network that it was given: its hooks") for change in ("hook", "gradient", "flag")),
    ],
)
def test_a_model_that_is_left_changed_is_told(change: str, words: str) -> None:
    def careless(model: nn.Module, x: Tensor) -> Tensor:
        if change == "mode":
            model.train()
        elif change == "hook":
            model.register_forward_hook(lambda *a: None)
        elif change == "weight":
            model.weight.data += 1
            return x * 2
        elif change == "gradient":
            model(x).sum().backward()
        else:
            model.requires_grad_(False)
        return x * 2

    model = nn.Linear(2, 2).eval()
    found = diagnose(small(lambda model, x: x * 2, model, torch.ones(1, 2)), careless)
    assert found.rung == "input"
    assert words in found.words


def test_a_function_that_switches_gradients_off_for_good_is_told() -> None:
    def careless(x: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        return x * 2

    def careful(x: Tensor) -> Tensor:
        with torch.no_grad():
            return x * 2

    exercise = small(lambda x: x * 2, torch.ones(2))
    found = diagnose(exercise, careless)
    assert found.rung == "input"
    assert "has switched gradients off, and not on again" in found.words
    assert torch.is_grad_enabled()
    assert diagnose(exercise, careful).passed


def test_a_generator_is_handed_over_afresh_and_may_be_used() -> None:
    exercise = small(lambda g: torch.rand(3, generator=g), torch.Generator().manual_seed(1))
    assert diagnose(exercise, lambda g: torch.rand(3, generator=g)).passed
    assert not diagnose(exercise, lambda g: torch.rand(3)).passed


def ask_and_forget(images: Tensor) -> None:
    images.requires_grad_()


def ask_and_add_up(images: Tensor) -> None:
    images.requires_grad_().sum().backward()
    images.requires_grad_(False)


@pytest.mark.parametrize("name", ["capture", "pixel_gradient", "robust_gradient", "class_gradient", "uphill"])
@pytest.mark.parametrize(("mark", "words"), [(ask_and_forget, "`requires_grad`"), (ask_and_add_up, "`.grad`")])
def test_pictures_that_are_left_with_a_mark_are_told(name: str, mark: Callable[[Tensor], None], words: str) -> None:
    exercise = all_exercises()[name]

    def careless(*arguments: Any) -> Tensor:
        answer = exercise.reference(*arguments)
        mark(next(argument for argument in arguments if isinstance(argument, Tensor)))
        return answer

    found = diagnose(exercise, careless)
    assert found.rung == "input"
    assert "the numbers are right, but your function has left" in found.words
    assert words in found.words


def test_a_tensor_that_asked_before_may_ask_on() -> None:
    asking = torch.ones(3, requires_grad=True)
    assert diagnose(small(lambda x: x.detach() * 2, asking), lambda x: x * 2).passed
    found = diagnose(small(lambda x: x.detach() * 2, asking), lambda x: x.requires_grad_(False) * 2)
    assert found.rung == "input"


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("exercise", ALL, ids=named)
def test_in_a_cell_without_gradients_answers_are_told_the_same(exercise: Exercise, mode: Callable[[], Any]) -> None:
    with mode():
        inference = torch.is_inference_mode_enabled()
        assert [diagnose(exercise, answer) for answer in (exercise.reference, *exercise.alternatives)] == [
            Verdict("passed", "")
        ] * (1 + len(exercise.alternatives))
        for mistake in exercise.mistakes[:2] + exercise.mistakes[-2:]:
            assert diagnose(exercise, mistake.answer).words == mistake.words
        assert torch.is_inference_mode_enabled() == inference
        assert not torch.is_grad_enabled()


def test_where_the_right_answer_itself_stops_no_mistake_is_named() -> None:
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("nothing works here")

    exercise = small(broken, torch.ones(3), mistakes=(Mistake(broken, "A false word."),))
    for answer in (broken, lambda x: x):
        found = diagnose(exercise, answer)
        assert found.rung == "error"
        assert "could not be checked" in found.words
    assert diagnose(exercise, stub).rung == "not attempted"


# --- the time limit ----------------------------------------------------------------------------------------------


def test_a_loop_is_stopped_soon_also_away_from_the_main_thread() -> None:
    found: list[Verdict] = []

    def elsewhere() -> None:
        found.append(diagnose(BOX, endless, QUICK))
        found.append(diagnose(BOX, right, QUICK))

    thread = threading.Thread(target=elsewhere)
    start = time.monotonic()
    thread.start()
    thread.join(20)
    assert [verdict.rung for verdict in found] == ["time", "passed"]
    assert time.monotonic() - start < 15


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no alarm")
def test_somebody_elses_alarm_goes_on_after_a_check() -> None:
    rang: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda *a: rang.append(1))
    before = signal.setitimer(signal.ITIMER_REAL, 0.6)
    try:
        assert diagnose(BOX, endless, 0.2).rung == "time"
        assert rang == []
        deadline = time.monotonic() + 5
        while not rang and time.monotonic() < deadline:
            time.sleep(0.02)
        assert rang == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)
        signal.signal(signal.SIGALRM, old)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no alarm")
def test_an_alarm_that_comes_while_cleaning_up_does_not_set_the_clock_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = signal.signal, []

    def set_handler(number: int, handler: Any) -> Any:
        calls.append(handler)
        if len(calls) == 2:  # the old handler is to come back: now the last alarm arrives
            signal.raise_signal(signal.SIGALRM)
        return real(number, handler)

    before = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(signal, "signal", set_handler)
    with attempts._by_signal(60):
        pass
    _, interval = signal.getitimer(signal.ITIMER_REAL)
    assert interval == 0
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no alarm")
def test_alarms_that_come_faster_than_they_are_dealt_with_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attempts._in_the_function

    def slow(*arguments: Any) -> bool:
        signal.raise_signal(signal.SIGALRM)  # the next one, before this one is done
        return real(*arguments)

    monkeypatch.setattr(attempts, "_in_the_function", slow)
    assert diagnose(BOX, endless, 0.2).rung == "time"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this platform has no alarm")
def test_the_last_alarm_does_not_ring_for_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    rang: list[int] = []
    late: list[threading.Timer] = []
    real = signal.setitimer

    def set_alarm(which: int, seconds: float, interval: float = 0.0) -> Any:
        if seconds == 0:  # no more alarms; but one is on its way
            late.append(threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGALRM)))
            late[-1].start()
        return real(which, seconds, interval)

    old = signal.signal(signal.SIGALRM, lambda *a: rang.append(1))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(signal, "setitimer", set_alarm)
            with pytest.raises(OutOfTime), attempts._by_signal(0.05):
                endless(torch.zeros(1))
        assert len(late) == 1
        late[0].join()
        time.sleep(0.05)
        assert rang == []
    finally:
        signal.signal(signal.SIGALRM, old)


def test_a_stop_does_not_arrive_after_the_function_has_ended() -> None:
    for limit in (attempts._by_thread, *([attempts._by_signal] if hasattr(signal, "setitimer") else [])):
        with pytest.raises(OutOfTime), limit(0.05):
            endless(torch.zeros(1))
        with limit(0.05):
            pass
        time.sleep(0.2)  # an alarm that was left on would ring here


# --- check, hint and progress ------------------------------------------------------------------------------------


def kept() -> dict[str, Any]:
    path = records.record_file()
    return json.loads(path.read_text("utf-8"))["exercises"] if path.exists() else {}


def test_a_passed_check_is_recorded_and_a_stub_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    check(BOX.name, stub)
    assert kept() == {}
    check(BOX.name, lambda f: f)
    assert kept()[BOX.name]["attempts"] == 1 and "passed" not in kept()[BOX.name]
    check(BOX.name, right)
    check(BOX.name, lambda f: f)
    assert kept()[BOX.name]["attempts"] == 3 and "passed" in kept()[BOX.name], "once passed, always passed"
    heads = [line for line in capsys.readouterr().out.splitlines() if "Exercise" in line]
    assert heads == [
        "○ Exercise 1.3: not attempted yet",
        "✗ Exercise 1.3: not yet",
        "✓ Exercise 1.3: passed",
        "✗ Exercise 1.3: not yet",
    ]


def test_a_solution_is_not_recorded_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    check(BOX.name, right, record=False)
    assert not records.record_file().exists()
    assert "your progress is unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("to_picture", "Did you mean `to_pictures`?"),
        ("", "There is no exercise"),
        (right, "The name of the exercise comes first"),
        (None, "The name of the exercise comes first"),
        ([], "The name of the exercise comes first"),
    ],
)
def test_an_unknown_name_is_told(name: Any, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    check(name, right)
    hint(name)
    assert capsys.readouterr().out.count(words) == 2
    assert not records.record_file().exists()


def test_a_check_without_a_function_says_what_to_hand_over(capsys: pytest.CaptureFixture[str]) -> None:
    check(BOX.name)
    assert 'Hand over your function: `check("to_pictures", your_function)`' in capsys.readouterr().out


def test_in_strict_mode_a_wrong_answer_raises_and_a_stub_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSONS_STRICT", "1")
    check(BOX.name, stub)
    check(BOX.name, right)
    with pytest.raises(WrongAnswer, match="to_pictures"):
        check(BOX.name, lambda f: f)
    with pytest.raises(WrongAnswer, match="no exercise"):
        check("no such", right)
    with pytest.raises(WrongAnswer, match="no function"):
        check(BOX.name)
    with pytest.raises(ZeroDivisionError):
        check(BOX.name, right, draw=lambda f: 1 / 0)


def test_a_figure_is_drawn_once_the_function_answers(capsys: pytest.CaptureFixture[str]) -> None:
    drawn: list[str] = []
    check(BOX.name, stub, draw=lambda f: drawn.append("stub"))
    check(BOX.name, lambda f: 1 / 0, draw=lambda f: drawn.append("error"))
    check(BOX.name, lambda f: f.abs(), draw=lambda f: drawn.append("wrong"))
    check(BOX.name, right, draw=lambda f: drawn.append("right"))
    assert drawn == ["wrong", "right"]
    for draw in (lambda f: 1 / 0, lambda f: sys.exit(1)):
        check(BOX.name, right, draw=draw)
        assert "The figure could not be drawn" in capsys.readouterr().out


def test_a_figure_is_drawn_without_changing_what_the_notebook_holds() -> None:
    mine = torch.tensor([[[[3.0, -2.0]]]]).expand(1, 3, 1, 2).clone()
    drawn: list[Tensor] = []
    check(BOX.name, lambda f: f.clamp_(0, 1), draw=lambda f: drawn.append(f(mine)))
    assert torch.equal(drawn[0], mine.clamp(0, 1))
    assert mine.min() == -2


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_figure_of_gradients_is_drawn_in_a_cell_without(mode: Callable[[], Any]) -> None:
    gradient = all_exercises()["pixel_gradient"]
    drawn: list[Tensor] = []
    with mode():
        network, images = nn.Conv2d(3, 2, 3), torch.rand(1, 3, 5, 5)
        check(gradient.name, gradient.reference, draw=lambda f: drawn.append(f(network, images, 1)))
    assert drawn[0].shape == images.shape


def test_hints_come_one_at_a_time_and_are_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    for count in (1, 2, 3, 3):
        hint(BOX.name)
        told = capsys.readouterr().out
        assert f"hint {count} of 3" in told
        assert [text in told for text in BOX.hints] == [i < count for i in range(3)]
        assert ("That was the last hint." in told) == (count == 3)
    assert kept()[BOX.name] == {"hints": 3}


def test_progress_lists_every_exercise_with_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    progress()
    assert f"→ 0 of {len(ALL)} exercises done" in capsys.readouterr().out
    check(BOX.name, lambda f: f)
    hint(BOX.name)
    check(BOX.name, right)
    capsys.readouterr()
    progress()
    told = capsys.readouterr().out
    assert f"→ 1 of {len(ALL)} exercises done" in told
    assert "✓ 1.3 Make filters fit to be shown (`to_pictures`): passed on " in told
    assert "2 attempts, 1 hint" in told
    assert told.count("not tried yet") == len(ALL) - 1
    assert all(exercise.title in told for exercise in ALL)


# --- the record --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "no json", "[" * 100_000, "[]", '{"exercises": [1]}', '{"exercises": {"a": 3}}', "{}"]
)
def test_an_unreadable_record_is_put_aside_and_not_lost(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = records.record_file()
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    check(BOX.name, right)
    assert "was not readable. It is kept as" in capsys.readouterr().out
    aside = [p for p in path.parent.iterdir() if "unreadable" in p.name]
    assert [p.read_text("utf-8") for p in aside] == [content]
    assert list(kept()) == [BOX.name]


def test_entries_of_other_exercises_are_kept() -> None:
    path = records.record_file()
    path.parent.mkdir(parents=True)
    other = {"of_a_later_release": {"passed": "2030-01-01", "more": [1]}}
    path.write_text(json.dumps({"version": 1, "exercises": other}), encoding="utf-8")
    check(BOX.name, right)
    assert kept()["of_a_later_release"] == other["of_a_later_release"]


def test_where_nothing_can_be_written_the_check_still_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path / "file" / "below"))
    check(BOX.name, right)
    hint(BOX.name)
    progress()
    told = capsys.readouterr().out
    assert "✓ Exercise 1.3: passed" in told
    assert "Your progress could not be saved" in told


def test_an_interrupted_save_leaves_the_old_record(monkeypatch: pytest.MonkeyPatch) -> None:
    check(BOX.name, lambda f: f)
    before = records.record_file().read_bytes()
    monkeypatch.setattr(records.json, "dump", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    check(BOX.name, right)
    assert records.record_file().read_bytes() == before
    assert [p.name for p in records.record_file().parent.iterdir() if p.suffix != ".lock"] == ["progress.json"]


def test_two_notebooks_at_once_lose_nothing(tmp_path: Path) -> None:
    code = "from lessons_lib.exercises import record\nfor i in range(40): record.note(f'{WHO}{i}', attempted=True)"
    both = [
        subprocess.Popen([sys.executable, "-c", f"WHO = {who!r}\n{code}"], env={**os.environ}) for who in ("a", "b")
    ]
    assert [process.wait(120) for process in both] == [0, 0]
    assert set(kept()) == {f"{who}{i}" for who in "ab" for i in range(40)}


def test_a_record_that_cannot_be_read_now_is_not_written_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(BOX.name, right)
    before = records.record_file().read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *a, **k: (_ for _ in ()).throw(PermissionError("not now")))
        check("similarity", lambda p, s: p)
    assert "could not be saved: not now" in capsys.readouterr().out
    assert records.record_file().read_bytes() == before


@pytest.mark.parametrize("odd", [-5, "3", None, True, 2.5, [1]])
def test_odd_numbers_in_the_record_count_as_none(odd: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = records.record_file()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"exercises": {BOX.name: {"hints": odd, "attempts": odd}}}), encoding="utf-8")
    progress()
    hint(BOX.name)
    told = capsys.readouterr().out
    assert "hint 1 of 3" in told and "not tried yet" in told


def test_a_home_that_does_not_exist_anywhere_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LESSONS_HOME", "~nobody-of-that-name/x")
    check(BOX.name, right)
    hint(BOX.name)
    progress()
    told = capsys.readouterr().out
    assert "✓ Exercise 1.3: passed" in told and "could not be saved" in told and "cannot be read" in told


# --- how it looks ------------------------------------------------------------------------------------------------


def test_a_report_shows_itself_as_a_card_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython

    shown: list[dict[str, str]] = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    check(BOX.name, lambda f: f.abs())
    (data,) = shown
    assert data["text/html"].startswith('<div class="lessons-report"')
    assert data["text/plain"].startswith("✗ Exercise 1.3: not yet")


def test_words_are_escaped_and_code_is_marked() -> None:
    html, text = reports.card("bad", "a < b", "use `x < 1` & be *well*")
    assert "a &lt; b" in html
    assert "<code>x &lt; 1</code> &amp; be <em>well</em>" in html
    assert text == "✗ a < b\n  use `x < 1` & be *well*"


def test_distance_is_relative_and_knows_what_is_not_finite() -> None:
    one = torch.tensor([100.0, 50.0], dtype=torch.float64)
    assert distance(one + 1, one) == pytest.approx(0.01)
    assert distance(one[:1], one) == math.inf
    nan = torch.tensor([math.nan, 50.0], dtype=torch.float64)
    assert distance(nan, nan) == 0
    assert distance(nan, torch.tensor([0.5, 50.0], dtype=torch.float64)) == math.inf
    assert distance(one * math.inf, -one * math.inf) == math.inf


def test_the_package_hands_out_check_hint_and_progress() -> None:
    assert (check, hint, progress) == (exercises.check, exercises.hint, exercises.progress)


def test_python_and_numpy_random_numbers_are_not_touched_by_the_engine() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist()
    diagnose(BOX, right)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
