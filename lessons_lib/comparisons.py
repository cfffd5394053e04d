"""Races between ways to train, with rates tuned for each by the same budget: what chapters 8 and 9 quote.

    python -m lessons_lib.comparisons optimizers --out optimizers.json

From top to bottom: what one training is (`Run`), which trainings a comparison is made of, how they are run. Every
finished training is in the file at once, and the same command goes on where an earlier one ended.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from lessons_lib import optimizers as rules
from lessons_lib.augmentation import Flip, PadAndCrop
from lessons_lib.cifar10 import load_cifar10
from lessons_lib.datasets import AugmentedBatches, Dataset, Pictures
from lessons_lib.downloads import FileUnavailable, replace_file
from lessons_lib.landscape import loss_around, random_direction
from lessons_lib.learning_rates import Constant, Cosine, OneCycle, Restarts, Schedule, Step, WarmUp
from lessons_lib.recipes import Recipe, described
from lessons_lib.resnet import Normalize
from lessons_lib.training import evaluate, fit, machine

Result = dict[str, Any]
Results = dict[str, Result]


# --- one training ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """Some epochs with one batch size; the schedule is over these epochs."""

    epochs: int
    batch_size: int
    schedule: Schedule


@dataclass(frozen=True)
class Run:
    """One training: the rule and its settings, phases one after the other, the network, and what it learns from.

    `pictures` is how many of the training pictures it learns from; 0 is all but those held back. `l1` is what the sum
    of the sizes of all weights counts in the loss. With `landscape` the loss around what it has learned is noted too.
    """

    rule: str
    phases: tuple[Phase, ...]
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: Literal["cnn", "fully connected"] = "cnn"
    pictures: int = 0
    augmented: bool = True
    l1: float = 0.0
    landscape: bool = False


def small_cnn(categories: int = 10) -> nn.Sequential:
    """Three convolutions that halve the picture, 32, 64 and 128 channels: 94 762 parameters for ten categories."""
    layers: list[nn.Module] = []
    for channels_in, channels in ((3, 32), (32, 64), (64, 128)):
        convolution = nn.Conv2d(channels_in, channels, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, categories))


def fully_connected(categories: int = 10) -> nn.Sequential:
    """Two hidden layers of 256 on pictures (3, 32, 32): 855 050 parameters for ten categories."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, categories)
    )


NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {"cnn": small_cnn, "fully connected": fully_connected}


def finished(run: Run, data: Dataset, device: torch.device | str = "cpu") -> Result:
    """Train, and say how it went: a row for each epoch, and the loss and accuracy on training and test pictures.

    A training whose loss is no number any more has `diverged`, and rows up to there.
    """
    train, validation = (pictures.to(device) for pictures in data.split(len(data.train) // 10))
    if run.pictures:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        train = train[order[: run.pictures].sort().values.to(device)]
    statistics = train.statistics()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        body = NETWORKS[run.network](len(data.categories))
    network = nn.Sequential(Normalize(statistics.mean, statistics.std), body).to(device)
    rule = getattr(rules, run.rule)
    optimizer = rule(network.parameters(), lr=0.0, **run.settings)
    started, rows, updates = time.perf_counter(), list[dict[str, float]](), 0
    try:
        for number, phase in enumerate(run.phases):
            recipe = Recipe("cifar10", phase.epochs, phase.batch_size, phase.schedule, l1=run.l1)
            augmentation = (PadAndCrop(4, fill=None), Flip()) if run.augmented else ()
            seed = 1000 * run.seed + number  # each phase has pictures in an order of its own
            batches = AugmentedBatches(train, phase.batch_size, augmentation, seed)
            before = len(rows)

            def note(history: list[dict[str, float]], before: int = before) -> None:
                rows[before:] = [{**row, "epoch": before + row["epoch"]} for row in history]

            fit(
                *(network, batches, recipe),
                validation=validation.batches,
                optimizer=optimizer,
                seed=seed,
                after_epoch=note,
                progress=False,
            )
            updates += phase.epochs * len(batches)
    except FloatingPointError:
        return {"diverged": True, "seconds": round(time.perf_counter() - started, 1), "history": _short(rows)}
    scores = {
        "train": evaluate(network, _some(train).batches()),
        "validation": evaluate(network, validation.batches()),
        "test": evaluate(network, data.test.to(device).batches()),
    }
    around = {"landscape": _landscape(network, train)} if run.landscape else {}
    return {
        "diverged": False,
        "updates": updates,
        "seconds": round(time.perf_counter() - started, 1),
        **{name: {"loss": _rounded(score.loss), "accuracy": score.accuracy} for name, score in scores.items()},
        **around,
        "history": _short(rows),
    }


def _landscape(network: nn.Module, train: Pictures) -> dict[str, Any]:
    """The loss of a thousand training pictures along three random directions, with and without filter normalization."""
    images, labels = next(_some(train, 1000).batches(1000))
    shares = [round(-1 + 0.1 * step, 1) for step in range(21)]
    found: dict[str, Any] = {"shares": shares}
    for name, filter_normalized in (("filter_normalized", True), ("plain", False)):
        directions = [random_direction(network, seed, filter_normalized=filter_normalized) for seed in range(3)]
        curves = [loss_around(network, images, labels, [direction], shares) for direction in directions]
        found[name] = [[_rounded(loss) for loss in curve.tolist()] for curve in curves]
    lengths = [float(parameter.detach().norm()) for parameter in network.parameters() if parameter.ndim > 1]
    return {**found, "length": _rounded(sum(length**2 for length in lengths) ** 0.5)}


def _some(pictures: Pictures, most: int = 5000) -> Pictures:
    """Every k-th of them, so that there are about `most`."""
    return pictures[:: max(1, len(pictures) // most)]


def _short(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: _rounded(value) for name, value in row.items() if name != "seconds"} for row in rows]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


# --- comparisons ----------------------------------------------------------------------------------------------------

Comparison = Callable[[Results], Iterator[tuple[str, Run]]]
"""The trainings one after another, each with a name; which come next may depend on the results of those before."""

# Half decades, seven for each rule; where the best is the first or the last of them, the next beyond is tried too.
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
LOWEST = {
    "SGD": 0.01,
    "Momentum": 1e-3,
    "Nesterov": 1e-3,
    "Adagrad": 1e-3,
    "Adadelta": 0.03,
    "RMSprop": 3e-5,
    "Adam": 1e-4,
    "AdamW": 1e-4,
    "Muon": 1e-4,
}
TRIALS = 7
SEEDS = (1, 2, 3)


def tuned(name: str, run: Callable[[float, int], Run], lowest: float, results: Results) -> Iterator[tuple[str, Run]]:
    """Trials with seed 0 at seven rates from `lowest` on; then three seeds at the best, by validation accuracy."""
    first = RATES.index(lowest)
    tried = list(RATES[first : first + TRIALS])
    for rate in tried:
        yield _trial(name, run, rate)
    while (best := _best(name, tried, results)) in (tried[0], tried[-1]):
        place = RATES.index(best) + (1 if best == tried[-1] else -1)
        if not 0 <= place < len(RATES):
            break
        tried.insert(len(tried) if best == tried[-1] else 0, RATES[place])
        yield _trial(name, run, RATES[place])
    for seed in SEEDS:
        yield f"{name} | seed {seed}", run(best, seed)


def _trial(name: str, run: Callable[[float, int], Run], rate: float) -> tuple[str, Run]:
    return f"{name} | rate {rate:g}", run(rate, 0)


def _best(name: str, rates: Sequence[float], results: Results) -> float:
    def accuracy(rate: float) -> float:
        result = results[f"{name} | rate {rate:g}"]
        return 0.0 if result["diverged"] else float(result["validation"]["accuracy"])

    return max(rates, key=accuracy)


def optimizers(results: Results) -> Iterator[tuple[str, Run]]:
    """Chapter 8: all rules on all pictures; a network without convolutions; few pictures; ways to decay the weights."""

    def run(rule: str, rate: float, seed: int, **more: Any) -> Run:
        epochs = more.pop("epochs", 10)
        return Run(rule, (Phase(epochs, 128, Cosine(rate)),), seed, **more)

    for rule, lowest in LOWEST.items():
        yield from tuned(f"all | {rule}", lambda rate, seed, rule=rule: run(rule, rate, seed), lowest, results)  # type: ignore[misc]
    for rule in ("Momentum", "Adam"):
        connected: dict[str, Any] = {"network": "fully connected"}
        yield from tuned(
            f"fully connected | {rule}",
            lambda rate, seed, rule=rule, more=connected: run(rule, rate, seed, **more),  # type: ignore[misc]
            LOWEST[rule],
            results,
        )
    few: dict[str, Any] = {"pictures": 5000, "augmented": False, "epochs": 30}
    for rule in ("SGD", "Momentum", "Adagrad", "RMSprop", "Adam"):
        yield from tuned(
            f"few | {rule}",
            lambda rate, seed, rule=rule: run(rule, rate, seed, **few),  # type: ignore[misc]
            LOWEST[rule],
            results,
        )
    for rule, rates, decays in (
        ("Adam", (3e-4, 1e-3, 3e-3, 1e-2), (0.0, 1e-5, 1e-4, 1e-3, 1e-2)),
        ("AdamW", (3e-4, 1e-3, 3e-3, 1e-2), (0.0, 0.01, 0.1, 1.0, 10.0)),
        ("Momentum", (0.01, 0.03, 0.1, 0.3), (0.0, 1e-4, 1e-3, 1e-2, 0.1)),
    ):
        for rate in rates:
            for decay in decays:
                name = f"decay | {rule} | rate {rate:g} | decay {decay:g}"
                yield name, run(rule, rate, 0, settings={"weight_decay": decay}, **few)
    for strength in (1e-6, 1e-5, 1e-4, 1e-3):
        yield f"decay | L1 | strength {strength:g}", run("Momentum", 0.1, 0, l1=strength, **few)


SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "constant": Constant,
    "step": lambda rate: Step(rate, parts=3, gamma=0.1),
    "cosine": Cosine,
    "one cycle": OneCycle,
    "warm-up": lambda rate: WarmUp(Cosine(rate), share=0.1),
    "restarts": lambda rate: Restarts(rate, cycles=3, growth=2),
}


def learning_rates(results: Results) -> Iterator[tuple[str, Run]]:
    """Chapter 9: constant rates; schedules, each tuned; the rate lowered or the batch enlarged; both scaled together;
    minima of small and of large batches."""

    def momentum(*phases: tuple[int, int, Schedule], seed: int = 0, **more: Any) -> Run:
        return Run("Momentum", tuple(Phase(*phase) for phase in phases), seed, **more)

    for rate in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0):
        yield f"constant | rate {rate:g}", momentum((10, 128, Constant(rate)))
    for name, schedule in SCHEDULES.items():
        rates = (0.03, 0.1, 0.3, 1.0)
        for rate in rates:
            yield _trial(f"schedule | {name}", lambda r, s, of=schedule: momentum((10, 128, of(r)), seed=s), rate)  # type: ignore[misc]
        best = _best(f"schedule | {name}", rates, results)
        for seed in SEEDS:
            yield f"schedule | {name} | seed {seed}", momentum((10, 128, schedule(best)), seed=seed)
    # Smith et al., 2018: by a factor of 5 after 30 %, 60 % and 80 % of the epochs, as they did.
    epochs, factors = (6, 6, 4, 4), (1, 5, 25, 125)
    ways = {
        "lower the rate": [(128, 0.1 / factor) for factor in factors],
        "first the batch, then the rate": [(128, 0.1), (640, 0.1), (640, 0.1 / 5), (640, 0.1 / 25)],
        "enlarge the batch": [(128, 0.1), (640, 0.1), (3200, 0.1), (3200, 0.1 / 5)],
        "begin with both five times as large": [(640, 0.5), (3200, 0.5), (3200, 0.1), (3200, 0.02)],
    }
    for name, stages in ways.items():
        phases = [(e, batch, Constant(rate)) for e, (batch, rate) in zip(epochs, stages, strict=True)]
        for seed in SEEDS:
            yield f"batch instead of rate | {name} | seed {seed}", momentum(*phases, seed=seed)
    for batch in (32, 128, 512, 2048, 8192):
        scaled = {"fixed": 1.0, "square root": (batch / 128) ** 0.5, "linear": batch / 128}
        for name, factor in scaled.items():
            phase = (10, batch, WarmUp(Cosine(0.05 * factor), share=0.1))
            yield f"scaled | {name} | batch {batch}", momentum(phase)
    few: dict[str, Any] = {"pictures": 5000, "augmented": False, "landscape": True}
    for batch, rate in ((32, 0.05), (500, 0.05), (500, 0.8)):
        for decay in (0.0, 5e-4):
            for seed in SEEDS:
                name = f"minimum | batch {batch} at rate {rate:g} | decay {decay:g} | seed {seed}"
                yield name, momentum((60, batch, Cosine(rate)), seed=seed, settings={"weight_decay": decay}, **few)


COMPARISONS: dict[str, Comparison] = {"optimizers": optimizers, "learning_rates": learning_rates}


RECORDS = resources.files("lessons_lib") / "recorded" / "comparisons"


def recorded(name: str) -> dict[str, Any]:
    """What the comparison found when it was last made: its `results`, and on which `copy` of the data."""
    found: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text("utf-8"))
    return found


# --- running them ---------------------------------------------------------------------------------------------------


def compare(name: str, out: Path, *, device: torch.device | str = "cpu", say: Callable[[str], object] = print) -> None:
    """Run what the comparison `name` still lacks in the file `out`. Raises ValueError where `out` is on another copy of
    the data, and what `load_cifar10` raises."""
    record: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"results": {}}
    data = load_cifar10()
    if record.get("copy", data.copy) != data.copy:
        raise ValueError(f"{out} is on {record['copy']}, and the data at hand are {data.copy}: give another file")
    record |= {
        "command": f"python -m lessons_lib.comparisons {name}",
        "data": data.name,
        "copy": data.copy,
        "machine": machine(torch.device(device)),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.date.today().isoformat(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    old: Results = record["results"]
    done: Results = {}
    for key, run in COMPARISONS[name](done):
        asked = described(run)
        if key in old and old[key]["run"] == asked:
            done[key] = old[key]
            continue
        done[key] = {"run": asked, **finished(run, data, device)}
        record["results"] = {**old, **done}
        _write(record, out)
        say(f"{key}: {told(done[key])}")
    record["results"] = done  # without those that are no part of it any more
    _write(record, out)


def _write(record: dict[str, Any], out: Path) -> None:
    # A line for each training: what has changed is seen at a glance.
    head = json.dumps({name: value for name, value in record.items() if name != "results"}, indent=1)[:-2]
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(result)}" for key, result in record["results"].items())
    replace_file(out, lambda path: path.write_text(f'{head},\n "results": {{\n{rows}\n }}\n}}\n', "utf-8"))


def told(result: Result) -> str:
    if result["diverged"]:
        return f"no number any more after {len(result['history'])} epochs"
    return (
        f"loss {result['train']['loss']:.3f}, validation {result['validation']['accuracy']:.2%}, "
        f"{result['seconds']:.0f} s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lessons_lib.comparisons", description="Compare ways to train on CIFAR-10; goes on where it was."
    )
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--out", type=Path, help="file of the results, by default runs/COMPARISON.json")
    asked = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        compare(asked.comparison, asked.out or Path("runs") / f"{asked.comparison}.json", device=device)
    except (ValueError, OSError, FileUnavailable) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
