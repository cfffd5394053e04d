"""The recorded runs are whole, and are runs of the recipes as they are; the specimen cifar10 is the one on record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ship_cifar10
import torch
from rates_of_fooling import interval
from safetensors.torch import load_file

from lessons_lib.recipes import RECIPES, described
from lessons_lib.training import main

RECORDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text("utf-8")) for path in ship_cifar10.RECORDS.glob("*.json")
}
WEIGHTS = ship_cifar10.PACKAGE / "weights" / "cifar10.safetensors"


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_says_by_which_command_on_which_copy_and_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, given again, would train by just these settings."""
    record = RECORDS[name]
    asked: dict[str, Any] = {}

    def remember(recipe: str, settings: Any, out: Path, **more: Any) -> dict[str, Any]:
        asked.update(recipe=recipe, settings=described(settings), seed=more["seed"])
        return {}

    monkeypatch.setattr("lessons_lib.training.train", remember)
    program, *arguments = record["command"].removeprefix("python -m ").split()
    assert program == "lessons_lib.training"
    main(arguments)
    assert asked == {"recipe": record["recipe"], "settings": record["settings"], "seed": record["seed"]}
    assert record["data"] == "CIFAR-10"
    assert record["copy"]
    assert record["machine"]["processor"]
    assert {"python", "torch", "numpy"} <= record["versions"].keys()


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_has_the_whole_history_and_one_reading_of_the_test_set(name: str) -> None:
    record = RECORDS[name]
    rows = record["history"]
    assert [row["epoch"] for row in rows] == [*range(1, record["settings"]["epochs"] + 1)]
    assert all(
        {"learning_rate", "loss", "accuracy", "validation_loss", "validation_accuracy"} <= row.keys() for row in rows
    )
    assert record["seconds"] == round(sum(row["seconds"] for row in rows))
    assert record["test"]["pictures"] == 10_000
    assert rows[-1]["validation_accuracy"] == pytest.approx(record["test"]["accuracy"], abs=0.02)


def told(record: dict[str, Any]) -> float:
    """The accuracy of a recipe: with the mirrored picture where that is a part of it."""
    return record["test"].get("accuracy_with_mirrored", record["test"]["accuracy"])


def test_pocket_reads_89_percent_after_an_hour_on_two_cores() -> None:
    record = RECORDS["pocket"]
    assert told(record) >= 0.89
    assert record["machine"]["threads"] == 2
    assert record["seconds"] <= 3600


def test_one_run_of_a_whole_resnet18_is_on_record_and_it_reads_more_than_half_of_its_width() -> None:
    whole, half = RECORDS["fast_full_width"], RECORDS["fast"]
    assert (whole["parameters"], whole["settings"]["blocks"]) == (11_173_962, [2, 2, 2, 2])
    assert whole["copy"] == half["copy"]
    assert told(whole) > told(half)


# --- the specimen ---------------------------------------------------------------------------------------------------


def test_the_shipped_weights_are_those_of_the_recorded_run_and_small() -> None:
    content = WEIGHTS.read_bytes()
    assert RECORDS["pocket"]["weights"] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert len(content) < 6_000_000


def test_the_shipped_weights_are_short_and_their_statistics_long() -> None:
    for name, value in load_file(WEIGHTS).items():
        if name.endswith("num_batches_tracked"):
            assert value.dtype == torch.int64
        elif name.rpartition(".")[2] in ("running_mean", "running_var", "mean", "std"):
            assert value.dtype == torch.float32
        else:
            assert value.dtype == torch.float16


def test_originals_are_on_record_with_their_interval() -> None:
    found = RECORDS["pocket"]["originals"]
    assert found["pictures"] == 500
    for name in ("alone", "with_mirrored"):
        row = found[name]
        assert (row["low"], row["high"]) == pytest.approx(interval(round(500 * row["accuracy"]), 500))


@pytest.mark.needs("cifar10-original-sample.npz")
def test_the_shipped_network_reads_originals_as_recorded(local_data: Path) -> None:
    record = RECORDS["pocket"]
    found = ship_cifar10.read_originals(WEIGHTS, record["settings"], ship_cifar10.originals(local_data))
    for name in ("alone", "with_mirrored"):
        assert found[name]["accuracy"] == pytest.approx(record["originals"][name]["accuracy"], abs=0.0041)  # 2 pictures


def test_the_card_says_what_the_record_says() -> None:
    assert WEIGHTS.with_suffix(".md").read_text("utf-8") == ship_cifar10.card(RECORDS["pocket"])


def test_the_recipes_on_record_are_still_the_recipes() -> None:
    for name, record in RECORDS.items():
        recipe = replace(
            RECIPES[record["recipe"]], width=record["settings"]["width"], epochs=record["settings"]["epochs"]
        )
        assert described(recipe) == record["settings"], name


def test_step_one_cycle_and_fast_are_on_record_for_one_network_as_many_epochs_and_the_same_copy() -> None:
    def footing(record: dict[str, Any]) -> tuple[Any, ...]:
        settings = record["settings"]
        return (
            record["parameters"],
            tuple(settings["blocks"]),
            settings["epochs"],
            settings["validation"],
            record["copy"],
        )

    assert len({footing(RECORDS[name]) for name in ("step", "one_cycle", "fast")}) == 1


@pytest.mark.parametrize("other", ["step", "one_cycle"])
def test_fast_beats_the_published_recipes_by_more_than_one_and_a_half_points(other: str) -> None:
    assert told(RECORDS["fast"]) - told(RECORDS[other]) >= 0.015
