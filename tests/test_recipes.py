"""Recipes: the published ones are as published, ours say what they are, and every one is data."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lessons_lib.augmentation import CoarseDropout, Flip, PadAndCrop, ShiftScaleRotate
from lessons_lib.cifar10 import TRAIN_MEAN
from lessons_lib.learning_rates import OneCycle, Step
from lessons_lib.recipes import FAST, MEAN_COLOUR, ONE_CYCLE, POCKET, QUICK, RECIPES, SHAPES, STEP, described


def test_the_published_recipe_with_steps_is_as_published() -> None:
    assert (STEP.epochs, STEP.batch_size, STEP.width, STEP.blocks) == (20, 64, 64, (2, 2, 2, 2))
    assert isinstance(STEP.schedule, Step) and STEP.schedule.rate == 0.01
    assert {type(part) for part in STEP.augmentation} == {Flip, ShiftScaleRotate, PadAndCrop, CoarseDropout}
    assert STEP.dropout == STEP.l1 == STEP.l2 == STEP.label_smoothing == STEP.averaging == 0
    assert not STEP.flip_at_test


def test_the_published_recipe_with_one_cycle_is_as_published() -> None:
    assert (ONE_CYCLE.epochs, ONE_CYCLE.batch_size, ONE_CYCLE.width) == (20, 512, 64)
    schedule = ONE_CYCLE.schedule
    assert isinstance(schedule, OneCycle) and schedule.shape == "linear"
    assert (schedule.div_factor, schedule.final_div_factor) == (100, 100)
    assert schedule.peak_at * ONE_CYCLE.epochs == 5
    assert ONE_CYCLE.augmentation == (PadAndCrop(4), Flip(), CoarseDropout(16, fill=MEAN_COLOUR))
    assert ONE_CYCLE.dropout == ONE_CYCLE.l1 == ONE_CYCLE.l2 == ONE_CYCLE.label_smoothing == 0
    assert not ONE_CYCLE.flip_at_test


def test_the_fast_recipe_has_the_network_and_the_epochs_of_the_published_ones() -> None:
    for other in (STEP, ONE_CYCLE):
        for name in ("data", "epochs", "width", "blocks", "validation"):
            assert getattr(FAST, name) == getattr(other, name)


def test_the_pocket_recipe_makes_a_network_of_less_than_6_mb() -> None:
    from lessons_lib.resnet import ResNet
    from lessons_lib.training import half_size

    assert len(half_size(ResNet(10, width=POCKET.width, blocks=POCKET.blocks))) < 6_000_000


def test_recipes_without_cifar_10_are_small() -> None:
    assert QUICK.data == "shapes-32" and QUICK.epochs <= 10
    assert SHAPES.data == "shapes" and SHAPES.epochs * SHAPES.steps == 700


def test_the_mean_colour_is_that_of_cifar_10() -> None:
    assert pytest.approx(TRAIN_MEAN, abs=1e-4) == MEAN_COLOUR


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_data_that_a_json_file_can_hold(name: str) -> None:
    told = described(RECIPES[name])
    assert json.loads(json.dumps(told)) == told
    assert told["schedule"]["name"] == type(RECIPES[name].schedule).__name__
    assert [part["name"] for part in told["augmentation"]] == [
        type(part).__name__ for part in RECIPES[name].augmentation
    ]


def test_two_recipes_that_differ_are_described_differently() -> None:
    told = [json.dumps(described(recipe)) for recipe in RECIPES.values()]
    assert len(set(told)) == len(told)
    assert described(replace(STEP, schedule=Step(0.01, 3))) != described(STEP)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"data": "imagenet"}, ValueError, "data must be one of cifar10, shapes-32, shapes, shapes-tagged, not"),
        ({"epochs": 0}, ValueError, "epochs must be 1 or more"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number, not float"),
        ({"width": 0}, ValueError, "width must be 1 or more"),
        ({"l2": -1e-4}, ValueError, "l2 must be 0 or more"),
        ({"averaging": 1.0}, ValueError, "averaging must be below 1, not 1.0"),
        ({"dropout": 1.5}, ValueError, "dropout must be below 1, not 1.5"),
        ({"data": "shapes"}, ValueError, "steps must be 1 or more"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        replace(STEP, **change)
