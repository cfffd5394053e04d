"""Comparisons give every rule the same tries, go on where they were interrupted, and are what is on record."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lessons_lib import comparisons
from lessons_lib.comparisons import (
    BATCHES,
    CHANGES,
    COMPARISONS,
    LOWEST,
    RATES,
    SEEDS,
    TRIALS,
    Phase,
    RecipeRun,
    Results,
    Run,
    Wave,
    compare,
    finished,
    finished_recipe,
    fully_connected,
    main,
    race,
    recorded,
    small_cnn,
)
from lessons_lib.datasets import Dataset, Pictures
from lessons_lib.learning_rates import Constant, Cosine
from lessons_lib.recipes import MEAN_COLOUR, Recipe, described

RECORDED = [name for name in COMPARISONS if (comparisons.RECORDS / f"{name}.json").is_file()]


@pytest.fixture
def data() -> Dataset:
    """Of two categories, bright and dark: soon learned."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 2
    images = (torch.randint(0, 100, (60, 3, 8, 8), generator=random) + 100 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    pictures = Pictures(images, labels)
    return Dataset("light and dark", "generated", "here", ("dark", "light"), pictures[:40], pictures[40:])


def run_of(rate: float = 0.05, seed: int = 0, rule: str = "Momentum", **more: Any) -> Run:
    return Run(rule, (Phase(2, 9, Cosine(rate)),), seed, **more)


# --- one training ---------------------------------------------------------------------------------------------------


def test_networks_are_as_large_as_they_say() -> None:
    counts = [sum(p.numel() for p in network().parameters()) for network in (small_cnn, fully_connected)]
    assert counts == [94_762, 855_050]
    pictures = torch.rand(2, 3, 32, 32)
    assert small_cnn(7)(pictures).shape == fully_connected(7)(pictures).shape == (2, 7)


def test_a_training_tells_how_it_went(data: Dataset) -> None:
    found = finished(run_of(), data)
    assert not found["diverged"]
    assert found["updates"] == 2 * (36 // 9)  # a tenth of 40 is held back
    assert [row["epoch"] for row in found["history"]] == [1, 2]
    assert {"loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate"} <= found["history"][0].keys()
    assert 0 <= found["test"]["accuracy"] <= 1
    assert found["validation"]["accuracy"] == pytest.approx(found["history"][-1]["validation_accuracy"])
    json.dumps(found)


def test_a_training_is_the_same_each_time_and_another_with_another_seed(data: Dataset) -> None:
    one, again, other = (finished(run_of(seed=seed), data) for seed in (1, 1, 2))
    for result in (one, again, other):
        result.pop("seconds")
    assert one == again
    assert one["history"] != other["history"]


def test_phases_follow_one_another_with_batches_of_their_own(data: Dataset) -> None:
    two = replace(run_of(), phases=(Phase(2, 9, Constant(0.05)), Phase(3, 36, Constant(0.01))))
    found = finished(two, data)
    assert found["updates"] == 2 * 4 + 3 * 1
    assert [row["epoch"] for row in found["history"]] == [1, 2, 3, 4, 5]
    assert [row["learning_rate"] for row in found["history"]] == [0.05] * 2 + [0.01] * 3
    first = finished(replace(two, phases=two.phases[:1]), data)
    assert found["history"][:2] == first["history"]


def test_momentum_is_kept_from_phase_to_phase(data: Dataset) -> None:
    """In a second phase without any rate nothing moves; with one, velocity of the first still counts."""
    still = finished(replace(run_of(), phases=(Phase(1, 36, Constant(0.1)), Phase(1, 36, Constant(0.0)))), data)
    alone = finished(replace(run_of(), phases=(Phase(1, 36, Constant(0.1)),)), data)
    assert still["train"]["accuracy"] == alone["train"]["accuracy"]


def test_settings_pictures_and_l1_count(data: Dataset) -> None:
    plain = finished(run_of(), data)["history"]
    for other in (
        run_of(settings={"momentum": 0.5}),
        run_of(pictures=20),
        run_of(augmented=False),
        run_of(l1=0.01),
        run_of(rule="Adam"),
    ):
        assert finished(other, data)["history"] != plain


def test_a_training_that_leaves_all_numbers_has_diverged(data: Dataset) -> None:
    found = finished(replace(run_of(), phases=(Phase(8, 9, Constant(1e30)),), rule="SGD"), data)
    assert found["diverged"]
    assert len(found["history"]) < 8
    assert all(math.isfinite(row["loss"]) for row in found["history"])


def test_only_what_is_not_usual_is_noted_of_a_training() -> None:
    run = run_of(settings={"momentum": 0.5}, landscape=True)
    assert run_of().asked() == {
        "rule": "Momentum",
        "phases": [{"name": "Phase", "epochs": 2, "batch_size": 9, "schedule": described(Cosine(0.05))}],
        "seed": 0,
    }
    assert run.asked() == {**run_of().asked(), "settings": {"momentum": 0.5}, "landscape": True}


def test_statistics_measured_anew_are_those_of_the_training_pictures(data: Dataset) -> None:
    """After one batch the running means still are mostly what they began with: 0 and 1."""
    short = Run("Momentum", (Phase(1, 36, Constant(0.0)),), 0, augmented=False)
    stale, fresh = (finished(replace(short, fresh_statistics=anew), data) for anew in (False, True))
    assert stale["history"] == fresh["history"]
    assert stale["test"]["loss"] != fresh["test"]["loss"]


def test_the_landscape_is_noted_where_it_is_asked_for(data: Dataset) -> None:
    found = finished(run_of(landscape=True), data)["landscape"]
    assert found["shares"] == pytest.approx([-1 + 0.1 * k for k in range(21)])
    for name in ("filter_normalized", "plain"):
        curves = torch.tensor(found[name])
        assert curves.shape == (3, 21)
        assert torch.equal(curves[0, 10], curves[1, 10])  # all go through the network itself
    assert "landscape" not in finished(run_of(), data)


# --- one training by a recipe ---------------------------------------------------------------------------------------


def recipe_run(seed: int = 0, shortcuts: bool = True, **change: Any) -> RecipeRun:
    recipe = Recipe("cifar10", 2, 9, Cosine(0.05), width=4, blocks=(1, 1), validation=4, mixed_precision=False)
    return RecipeRun(replace(recipe, **change), seed, shortcuts)


def test_a_training_by_a_recipe_tells_what_came_of_it(data: Dataset) -> None:
    found = finished_recipe(recipe_run(), data)
    assert not found["diverged"]
    columns = found["history"]
    parts = {f"{part}{what}" for part in ("", "validation_", "test_") for what in ("loss", "accuracy")}
    assert columns.keys() == {"epoch", "learning_rate", *parts}
    assert {len(column) for column in columns.values()} == {2}
    test = found["test"]
    assert test["accuracy"] == pytest.approx(found["history"]["test_accuracy"][-1], abs=1e-4)
    confusion = torch.tensor(test["confusion"])
    assert confusion.shape == (2, 2) and confusion.sum() == 20
    assert confusion.trace() / 20 == pytest.approx(test["accuracy"])
    assert sum(test["calibration"]["pictures"]) == 20
    assert found["changed"].keys() == CHANGES.keys()
    assert all(0 <= share <= 1 for share in found["changed"].values())
    json.dumps(found)


def test_a_training_by_a_recipe_is_the_same_each_time_and_another_otherwise(data: Dataset) -> None:
    one = finished_recipe(recipe_run(), data)["history"]
    assert finished_recipe(recipe_run(), data)["history"] == one
    for other in (recipe_run(seed=1), recipe_run(shortcuts=False), recipe_run(l2=0.1)):
        assert finished_recipe(other, data)["history"] != one
    assert recipe_run().asked() == {"recipe": described(recipe_run().recipe), "seed": 0}
    assert recipe_run(shortcuts=False).asked()["shortcuts"] is False


def test_a_training_by_a_recipe_that_leaves_all_numbers_has_diverged(data: Dataset) -> None:
    found = finished_recipe(recipe_run(schedule=Constant(1e30)), data)
    assert found["diverged"]
    assert "test" not in found
    assert comparisons.told(found) == "no number any more after 0 epochs"


@pytest.mark.parametrize("history", [[{"epoch": 1.0}, {"epoch": 2.0}], {"epoch": [1.0, 2.0]}])
def test_a_training_that_diverged_is_told_with_its_epochs_in_rows_or_columns(history: Any) -> None:
    assert comparisons.told({"diverged": True, "history": history}) == "no number any more after 2 epochs"


def test_each_change_does_what_its_name_says() -> None:
    images = 0.5 + 0.2 * (torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5)
    changed = {name: change(images) for name, change in CHANGES.items()}
    for made in changed.values():
        assert made.shape == images.shape
        assert made.min() >= 0 and made.max() <= 1
        assert not torch.equal(made, images)
    grey = changed["grey"]
    assert (grey[:, :1] - grey).abs().max() < 1e-5
    twice = CHANGES["hues turned by half"](changed["hues turned by half"])
    four = images
    for _ in range(4):
        four = CHANGES["hues turned by a quarter"](four)
    assert (twice - images).abs().max() < 1e-5 and (four - images).abs().max() < 1e-5
    covered = (changed["middle covered"] != images).any(dim=1)
    assert covered[:, 8:24, 8:24].all() and covered.sum() == 2 * 16 * 16
    # Turned by 15 degrees, a point to the right of the middle comes to lie above it: against the clock.
    point = torch.zeros(1, 3, 32, 32)
    point[:, :, 15:17, 27:29] = 1
    rows, columns = CHANGES["turned by 15 degrees"](point)[0].sum(dim=0).sub(sum(MEAN_COLOUR)).clamp(min=0).nonzero().T
    angle = math.degrees(math.atan2(15.5 - rows.double().mean(), columns.double().mean() - 15.5))
    assert angle == pytest.approx(15, abs=4)
    assert changed["blurred"].var() < images.var() / 2


# --- tries ----------------------------------------------------------------------------------------------------------


def played(best_at: float, rates: tuple[float, ...] = RATES[6:13]) -> list[Wave]:
    """The waves of one entry, if accuracy falls with the distance to `best_at`, and from 30 on there is none."""
    results: Results = {}
    waves = []
    for wave in race({"x": (run_of, rates)}, results):
        waves.append(wave)
        for name, run in wave.items():
            rate = rate_of(run)
            results[name] = {
                "diverged": rate > 20,
                "validation": {"accuracy": 0.9 - 0.1 * abs(math.log10(rate / best_at))},
            }
    return waves


def rate_of(run: Run) -> float:
    return float(run.phases[0].schedule.rate)  # type: ignore[union-attr]


def test_all_rates_are_tried_and_the_best_gets_three_new_seeds() -> None:
    trials, seeds = played(best_at=0.3)
    assert list(trials) == [f"x | rate {rate:g}" for rate in (0.01, 0.03, 0.1, 0.3, 1, 3, 10)]
    assert [run.seed for run in trials.values()] == [0] * 7
    assert seeds == {f"x | seed {seed}": run_of(0.3, seed) for seed in SEEDS}


@pytest.mark.parametrize(("best_at", "more"), [(0.003, [0.003, 0.001]), (10.0, [30.0]), (1e-9, [3e-3, 1e-3, 3e-4])])
def test_where_the_best_is_at_an_end_the_next_is_tried_too(best_at: float, more: list[float]) -> None:
    _, *edges, _ = played(best_at)
    tried = [rate_of(run) for wave in edges for run in wave.values()]
    assert tried[: len(more)] == more
    if best_at > 1e-5:
        assert len(tried) == len(more)
    else:
        assert tried[-1] == RATES[0]  # there is no smaller one to try


def test_of_a_wave_every_entry_has_its_own() -> None:
    results: Results = {}
    entries = {name: (partial(run_of, rule=name), (0.01, 0.1, 1.0)) for name in ("SGD", "Adam")}
    for count, wave in enumerate(race(entries, results)):
        for name in wave:
            # SGD is best in the middle, Adam at the upper end.
            good = {"SGD | rate 0.1", "Adam | rate 1"}
            results[name] = {"diverged": False, "validation": {"accuracy": float(name in good)}}
        wanted = [6, 1, 6][count]
        assert len(wave) == wanted
    assert set(wave) == {f"{name} | seed {seed}" for name in entries for seed in SEEDS}


def test_every_rule_has_as_many_tries() -> None:
    results: Any = AlwaysTheSame()
    names = [name for wave in COMPARISONS["optimizers"](results) for name in wave]
    for group in ("all", "few", "fully connected"):
        tries = Counter(name.split(" | ")[1] for name in names if name.startswith(f"{group} | ") and "| rate" in name)
        # SGD's default of PyTorch's lies outside of its seven rates, and is tried besides.
        assert {name: count for name, count in tries.items() if count != TRIALS} == (
            {"SGD": TRIALS + 1} if group == "all" else {}
        )
    assert {name.split(" | ")[1] for name in names if name.startswith("all")} == {*LOWEST}


class AlwaysTheSame(dict[str, Any]):
    """Of every rule the rate in the middle is the best, of everything else 0.3."""

    def __missing__(self, name: str) -> Any:
        rule, rate = name.split(" | ")[-2:]
        middle = RATES[RATES.index(LOWEST[rule]) + 3] if rule in LOWEST else 0.3
        return {"diverged": False, "validation": {"accuracy": float(rate == f"rate {middle:g}")}}

    def items(self) -> Any:
        entries = ["schedule | constant", *(f"batch | {size}" for size in BATCHES)]
        return [(f"{entry} | rate 0.3", self[f"{entry} | rate 0.3"]) for entry in entries]


@pytest.mark.parametrize("name", COMPARISONS)
def test_no_two_trainings_of_a_comparison_have_one_name_or_one_setting(name: str) -> None:
    runs = [pair for wave in COMPARISONS[name](AlwaysTheSame()) for pair in wave.items()]
    assert len({key for key, _ in runs}) == len(runs) > 50
    settings = Counter(json.dumps(run.asked(), sort_keys=True) for _, run in runs)
    assert settings.total() - len(settings) <= 8  # "decay 0" is what a trial was


# --- a comparison ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    def two_rates_and_the_better(results: Results) -> Iterator[Wave]:
        yield {f"rate {rate:g}": run_of(rate) for rate in (0.01, 0.1)}
        better = max((0.01, 0.1), key=lambda rate: results[f"rate {rate:g}"]["validation"]["accuracy"])
        yield {"better": run_of(better, seed=1)}

    monkeypatch.setitem(COMPARISONS, "small", two_rates_and_the_better)
    monkeypatch.setattr(comparisons, "load_cifar10", lambda: data)
    return data


def results_of(path: Path) -> Results:
    results: Results = json.loads(path.read_text("utf-8"))["results"]
    for result in results.values():
        result.pop("seconds")
    return results


@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_after_any_training_it_goes_on_and_ends_the_same(
    after: int, small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare("small", tmp_path / "whole.json", say=lambda _: None)
    count = 0

    def interrupted(run: Run, *rest: Any) -> Any:
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        return finished(run, *rest)

    monkeypatch.setattr(comparisons, "finished", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare("small", tmp_path / "parts.json", say=lambda _: None)
    monkeypatch.setattr(comparisons, "finished", finished)
    said: list[str] = []
    compare("small", tmp_path / "parts.json", say=said.append)  # type: ignore[arg-type]
    assert len(said) == 3 - after
    assert results_of(tmp_path / "parts.json") == results_of(tmp_path / "whole.json")
    assert list(results_of(tmp_path / "parts.json")) == ["rate 0.01", "rate 0.1", "better"]


def test_two_workers_find_what_one_thread_finds(small: Dataset, tmp_path: Path) -> None:
    said: list[str] = []
    compare("small", tmp_path / "two.json", workers=2, say=said.append)  # type: ignore[arg-type]
    assert len(said) == 3
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        compare("small", tmp_path / "one.json", say=lambda _: None)
    finally:
        torch.set_num_threads(threads)
    assert results_of(tmp_path / "two.json") == results_of(tmp_path / "one.json")
    assert list(results_of(tmp_path / "two.json")) == ["rate 0.01", "rate 0.1", "better"]
    assert json.loads((tmp_path / "two.json").read_text("utf-8"))["machine"]["threads"] == 1


def test_what_is_asked_for_otherwise_now_is_run_again_and_what_is_not_asked_for_goes(
    small: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    compare("small", out, say=lambda _: None)
    record = json.loads(out.read_text("utf-8"))
    record["results"]["rate 0.1"]["run"]["seed"] = 7
    record["results"]["old"] = record["results"]["better"]
    out.write_text(json.dumps(record), "utf-8")
    said: list[str] = []
    compare("small", out, say=said.append)  # type: ignore[arg-type]
    assert [line.split(":")[0] for line in said] == ["rate 0.1"]
    assert list(results_of(out)) == ["rate 0.01", "rate 0.1", "better"]


def test_a_file_on_another_copy_of_the_data_is_refused_and_stays(small: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    out.write_text('{"copy": "the original", "results": {}}', "utf-8")
    with pytest.raises(ValueError, match="is on the original, and the data at hand are generated"):
        compare("small", out)
    assert json.loads(out.read_text("utf-8"))["copy"] == "the original"


def test_the_command_says_where_each_training_ends(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["small"])
    assert (tmp_path / "runs" / "small.json").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("rate 0.01: loss ")
    with pytest.raises(SystemExit):
        main(["no such comparison"])


# --- what is on record ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_the_record_is_what_the_command_would_make(name: str) -> None:
    """All trainings, in order, by the settings of today; which rates were best is taken from the record itself."""
    record = recorded(name)
    assert record["command"].startswith(f"python -m lessons_lib.comparisons {name}")
    assert record["data"] == "CIFAR-10"
    assert record["copy"]
    asked = [(key, run.asked()) for wave in COMPARISONS[name](record["results"]) for key, run in wave.items()]
    assert [(key, result["run"]) for key, result in record["results"].items()] == asked


@pytest.mark.parametrize("name", sorted(set(RECORDED) - {"cifar_resnet"}))
def test_a_recorded_training_has_its_whole_history(name: str) -> None:
    for result in recorded(name)["results"].values():
        epochs = sum(phase["epochs"] for phase in result["run"]["phases"])
        if result["diverged"]:
            assert len(result["history"]) < epochs
        else:
            assert [row["epoch"] for row in result["history"]] == [*range(1, epochs + 1)]
            batches = [
                phase["epochs"] * (result["run"].get("pictures", 45_000) // phase["batch_size"])
                for phase in result["run"]["phases"]
            ]
            assert result["updates"] == sum(batches)


def test_a_recorded_training_by_a_recipe_is_whole_and_agrees_with_itself() -> None:
    for result in recorded("cifar_resnet")["results"].values():
        assert not result["diverged"]
        epochs = result["run"]["recipe"]["epochs"]
        assert result["history"]["epoch"] == [*range(1, epochs + 1)]
        assert {len(column) for column in result["history"].values()} == {epochs}
        test = result["test"]
        confusion = torch.tensor(test["confusion"])
        assert confusion.sum(dim=1).tolist() == [1000] * 10
        assert confusion.trace() / 10_000 == pytest.approx(test["accuracy"])
        assert sum(test["calibration"]["pictures"]) == 10_000
        # Read in mixed precision after each epoch, and in float32 at the end.
        assert result["history"]["test_accuracy"][-1] == pytest.approx(test["accuracy"], abs=0.005)
        assert result["changed"].keys() == CHANGES.keys()
