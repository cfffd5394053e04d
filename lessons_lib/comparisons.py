"""Ways to train, compared: what chapters 8 to 10 quote. In chapters 8 and 9 rates are tuned by a stated budget.

    python -m lessons_lib.comparisons optimizers --out optimizers.json --workers 2

From top to bottom: what one training is (`Run`, or by a recipe `RecipeRun`), which trainings a comparison is made of,
how they are run. Every finished training is in the file at once, and the same command goes on where an earlier one
ended.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from importlib import resources
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lessons_lib import optimizers as rules
from lessons_lib._checks import check_whole_number
from lessons_lib.augmentation import CoarseDropout, ColourJitter, Flip, PadAndCrop, ShiftScaleRotate, recoloured
from lessons_lib.cifar10 import load_cifar10
from lessons_lib.datasets import AugmentedBatches, Dataset, Pictures, Statistics
from lessons_lib.downloads import FileUnavailable, replace_file
from lessons_lib.landscape import loss_around, random_direction
from lessons_lib.learning_rates import Constant, Cosine, OneCycle, Restarts, Schedule, Step, WarmUp
from lessons_lib.mistakes import Answers, answers
from lessons_lib.recipes import FAST, MEAN_COLOUR, Recipe, described
from lessons_lib.resnet import Normalize, ResNet, normalized, without_shortcuts
from lessons_lib.training import evaluate, fit, machine, mixed_precision

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
    With `fresh_statistics` batch normalization measures those of the training pictures anew before the network is
    scored: after a few large batches its running means still remember weights of long ago.
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
    fresh_statistics: bool = False

    def asked(self) -> dict[str, Any]:
        """What makes this training another than a usual one, in words and numbers."""
        usual = Run(self.rule, self.phases, self.seed)
        parts = {each.name: getattr(self, each.name) for each in fields(self)}
        always = ("rule", "phases", "seed")
        return {name: described(part) for name, part in parts.items() if name in always or part != getattr(usual, name)}


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
    if run.fresh_statistics:
        _measure_anew(network, train)
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


@torch.no_grad()
def _measure_anew(network: nn.Module, train: Pictures) -> None:
    normalizations = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in normalizations:
        module.reset_running_stats()
        module.momentum = None  # a plain mean over the batches
    network.train()
    for images, _ in _some(train).batches(500):
        network(images)
    network.eval()


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


# --- one training by a recipe ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecipeRun:
    """One training by a recipe, with the shortcuts of its blocks or without."""

    recipe: Recipe
    seed: int
    shortcuts: bool = True

    def asked(self) -> dict[str, Any]:
        plain = {} if self.shortcuts else {"shortcuts": False}
        return {"recipe": described(self.recipe), "seed": self.seed, **plain}


def finished_recipe(run: RecipeRun, data: Dataset, device: torch.device | str = "cpu") -> Result:
    """Train, and say how it went: columns of figures by epoch, and what it answers to the test pictures, as they are
    and changed. The test pictures are read after each epoch too; nothing is chosen by them. Validation accuracies by
    epoch are as the recipe reads them, with the mirrored picture if that is a part of it; all others are without."""
    recipe, size = run.recipe, 500 if torch.device(device).type == "cpu" else 2500
    train, validation, test = (pictures.to(device) for pictures in (*data.split(recipe.validation), data.test))
    statistics = _statistics(data, recipe.validation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        resnet = ResNet(len(data.categories), width=recipe.width, blocks=recipe.blocks, dropout=recipe.dropout)
    network = normalized(resnet, statistics.mean, statistics.std).to(device)
    if not run.shortcuts:
        without_shortcuts(network)
    dtype = mixed_precision(torch.device(device)) if recipe.mixed_precision else torch.float32
    rows = list[dict[str, float]]()

    def note(history: list[dict[str, float]]) -> None:
        score = evaluate(network, test.batches(size), dtype=dtype)
        rows.append({**history[-1], "test_loss": score.loss, "test_accuracy": score.accuracy})

    started, diverged = time.perf_counter(), False
    try:
        fit(
            *(network, AugmentedBatches(train, recipe.batch_size, recipe.augmentation, run.seed), recipe),
            validation=lambda: validation.batches(size),
            seed=run.seed,
            after_epoch=note,
            progress=False,
        )
    except FloatingPointError:
        diverged = True
    columns = {name: [_rounded(row[name]) for row in rows] for name in (rows[0] if rows else {}) if name != "seconds"}
    result: Result = {
        "diverged": diverged,
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    if not diverged:
        for name, pictures in {"train": _some(train), "validation": validation}.items():
            score = evaluate(network, pictures.batches(size))
            result[name] = {"loss": _rounded(score.loss), "accuracy": score.accuracy}
        alone, mirrored = (answers(network, test.batches(size), flip=flip) for flip in (False, True))
        result["test"] = {**_of_answers(alone), "accuracy_with_mirrored": mirrored.accuracy}
        result["changed"] = {
            name: evaluate(network, ((change(images), labels) for images, labels in test.batches(size))).accuracy
            for name, change in CHANGES.items()
        }
    return {**result, "history": columns}


def _turned(images: Tensor) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    return transforms.rotate(images, 15, InterpolationMode.BILINEAR, fill=list(MEAN_COLOUR))


def _blurred(images: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as transforms

    return transforms.gaussian_blur(images, [5, 5], [0.8, 0.8])


def _middle_covered(images: Tensor) -> Tensor:
    changed = images.clone()
    changed[:, :, 8:24, 8:24] = images.new_tensor(MEAN_COLOUR).view(3, 1, 1)
    return changed


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "grey": partial(recoloured, strength=0.0),
    "hues turned by a quarter": partial(recoloured, turn=0.25),
    "hues turned by half": partial(recoloured, turn=0.5),
    "turned by 15 degrees": _turned,
    "blurred": _blurred,
    "middle covered": _middle_covered,
}
"""What is done to test pictures to see what a network relies on."""


def _of_answers(found: Answers) -> dict[str, Any]:
    calibration = found.calibration()
    return {
        "loss": _rounded(found.loss),
        "accuracy": found.accuracy,
        "confusion": found.confusion().tolist(),
        "calibration": {
            "pictures": calibration.pictures.tolist(),
            "confidence": _without_nan(calibration.confidence),
            "accuracy": _without_nan(calibration.accuracy),
            "error": _rounded(calibration.error),
            "temperature": _rounded(found.best_temperature()),
        },
    }


def _without_nan(values: Tensor) -> list[float | None]:
    """JSON has no NaN."""
    return [None if value != value else _rounded(value) for value in values.tolist()]


@cache
def _statistics(data: Dataset, validation: int) -> Statistics:
    """Of what is left to learn from: the same for many trainings."""
    return data.split(validation)[0].statistics()


# --- comparisons ----------------------------------------------------------------------------------------------------

AnyRun = Run | RecipeRun
Wave = dict[str, AnyRun]
"""Trainings by name, none of which depends on another's result."""
Comparison = Callable[[Results], Iterator[Wave]]
"""Waves of trainings; which come next may depend on the results of those before."""
Make = Callable[[float, int], Run]
"""A training by its rate and seed."""

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
DEFAULT = {
    "SGD": 1e-3,
    "Momentum": 1e-3,
    "Nesterov": 1e-3,
    "Adagrad": 1e-2,
    "Adadelta": 1.0,
    "RMSprop": 1e-2,
    "Adam": 1e-3,
    "AdamW": 1e-3,
    "Muon": 1e-3,
}
"""PyTorch's own rates; they are tried as well."""
SEEDS = (1, 2, 3)


def race(entries: Mapping[str, tuple[Make, Sequence[float]]], results: Results) -> Iterator[Wave]:
    """Of each entry, which comes with its rates, a trial at each with seed 0, and the next beyond while the best is
    the first or the last; then three seeds at the best. What counts is the accuracy on the validation pictures."""
    tried = {name: list(rates) for name, (_, rates) in entries.items()}
    wave: Wave = {_trial(name, rate): make(rate, 0) for name, (make, rates) in entries.items() for rate in rates}
    while wave:
        yield wave
        wave = {}
        for name, (make, _) in entries.items():
            rates, best = tried[name], _best(name, tried[name], results)
            if best == rates[-1] and best < RATES[-1]:
                rates.append(RATES[RATES.index(best) + 1])
                wave[_trial(name, rates[-1])] = make(rates[-1], 0)
            elif best == rates[0] and best > RATES[0]:
                rates.insert(0, RATES[RATES.index(best) - 1])
                wave[_trial(name, rates[0])] = make(rates[0], 0)
    best_of = {name: _best(name, rates, results) for name, rates in tried.items()}
    yield {f"{name} | seed {seed}": entries[name][0](rate, seed) for name, rate in best_of.items() for seed in SEEDS}


def _trial(name: str, rate: float) -> str:
    return f"{name} | rate {rate:g}"


def _best(name: str, rates: Sequence[float], results: Results) -> float:
    def accuracy(rate: float) -> float:
        result = results[_trial(name, rate)]
        return 0.0 if result["diverged"] else float(result["validation"]["accuracy"])

    return max(rates, key=accuracy)


def optimizers(results: Results) -> Iterator[Wave]:
    """Chapter 8: all rules on all pictures; a network without convolutions; few pictures; ways to decay the weights."""

    def training(rule: str, rate: float, seed: int, epochs: int = 10, **more: Any) -> Run:
        return Run(rule, (Phase(epochs, 128, Cosine(rate)),), seed, **more)

    few: dict[str, Any] = {"pictures": 5000, "augmented": False, "epochs": 30}
    groups: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
        "all": (tuple(LOWEST), {}),
        "fully connected": (("Momentum", "Adam"), {"network": "fully connected"}),
        "few": (("SGD", "Momentum", "Adagrad", "RMSprop", "Adam"), few),
    }
    entries: dict[str, tuple[Make, Sequence[float]]] = {}
    for group, (names, more) in groups.items():
        for rule in names:
            first = RATES.index(LOWEST[rule])
            # Muon's default decay would shrink its weights by a third, and none of the others decays.
            its: dict[str, Any] = {"settings": {"weight_decay": 0.0}} if rule == "Muon" else {}
            tries = {*RATES[first : first + TRIALS], *([DEFAULT[rule]] if group == "all" else [])}
            entries[f"{group} | {rule}"] = partial(training, rule, **more, **its), sorted(tries)
    yield from race(entries, results)
    wave: Wave = {}
    for rule, rates, decays in (
        ("Adam", (3e-4, 1e-3, 3e-3, 1e-2), (0.0, 1e-5, 1e-4, 1e-3, 1e-2)),
        ("AdamW", (3e-4, 1e-3, 3e-3, 1e-2), (0.0, 0.01, 0.1, 1.0, 10.0)),
        ("Momentum", (0.01, 0.03, 0.1, 0.3), (0.0, 1e-4, 1e-3, 1e-2, 0.1)),
    ):
        for rate, decay in product(rates, decays):
            name = f"decay | {rule} | rate {rate:g} | decay {decay:g}"
            wave[name] = training(rule, rate, 0, settings={"weight_decay": decay}, **few)
    for strength in (1e-6, 1e-5, 1e-4, 1e-3):
        wave[f"decay | L1 | strength {strength:g}"] = training("Momentum", 0.1, 0, l1=strength, **few)
    yield wave


SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "constant": Constant,
    "step": lambda rate: Step(rate, parts=3, gamma=0.1),
    "cosine": Cosine,
    "one cycle": OneCycle,
    "warm-up": lambda rate: WarmUp(Cosine(rate), share=0.1),
    "restarts": lambda rate: Restarts(rate, cycles=3, growth=2),
}


BATCHES = {
    32: (0.01, 0.03, 0.1, 0.3),
    128: (0.03, 0.1, 0.3, 1.0),
    512: (0.1, 0.3, 1.0, 3.0),
    2048: (0.1, 0.3, 1.0, 3.0),
    8192: (0.1, 0.3, 1.0, 3.0),
}
"""Batch sizes, and the rates that are tried with each."""


def learning_rates(results: Results) -> Iterator[Wave]:
    """Chapter 9: schedules and batch sizes, each with its rate tuned; constant rates; the rate lowered or the batch
    enlarged; one rate scaled to all batch sizes; minima of small and of large batches."""

    def momentum(*phases: tuple[int, int, Schedule], seed: int = 0, **more: Any) -> Run:
        return Run("Momentum", tuple(Phase(*phase) for phase in phases), seed, **more)

    def scheduled(schedule: Callable[[float], Schedule], rate: float, seed: int) -> Run:
        return momentum((10, 128, schedule(rate)), seed=seed)

    def batched(batch: int, rate: float, seed: int) -> Run:
        return momentum((10, batch, WarmUp(Cosine(rate), share=0.1)), seed=seed, fresh_statistics=True)

    entries: dict[str, tuple[Make, Sequence[float]]] = {
        f"schedule | {name}": (partial(scheduled, schedule), (0.03, 0.1, 0.3, 1.0))
        for name, schedule in SCHEDULES.items()
    }
    for batch, rates in BATCHES.items():
        entries[f"batch | {batch}"] = partial(batched, batch), rates
    yield from race(entries, results)

    wave: Wave = {}
    for rate in (1e-4, 1e-3, 1e-2, 10.0):  # those between are trials of the constant schedule
        wave[f"constant | rate {rate:g}"] = momentum((10, 128, Constant(rate)))
    # Running statistics lag behind weights that move fast: how much of what the constant rate loses is that?
    for seed in SEEDS:
        run = scheduled(Constant, rate_of(results, "schedule | constant"), seed)
        wave[f"constant, statistics anew | seed {seed}"] = replace(run, fresh_statistics=True)
    base = rate_of(results, "batch | 128")
    for batch, seed in product(BATCHES, SEEDS):
        for name, factor in {"fixed": 1.0, "square root": (batch / 128) ** 0.5, "linear": batch / 128}.items():
            if base * factor != rate_of(results, f"batch | {batch}"):  # else it is that of the race
                wave[f"scaled | {name} | batch {batch} | seed {seed}"] = batched(batch, base * factor, seed)
    # Smith et al., 2018: by a factor of 5 after 30 %, 60 % and 80 % of the epochs, as they did.
    epochs = (6, 6, 4, 4)
    ways = {
        "lower the rate": [(128, 0.1), (128, 0.1 / 5), (128, 0.1 / 25), (128, 0.1 / 125)],
        "first the batch, then the rate": [(128, 0.1), (640, 0.1), (640, 0.1 / 5), (640, 0.1 / 25)],
        "enlarge the batch": [(128, 0.1), (640, 0.1), (3200, 0.1), (3200, 0.1 / 5)],
        "begin with both five times as large": [(640, 0.5), (3200, 0.5), (3200, 0.5 / 5), (3200, 0.5 / 25)],
        # Controls: rate over batch is not what it is in the others.
        "leave both": [(128, 0.1)] * 4,
        "do both at once": [(128, 0.1), (640, 0.1 / 5), (3200, 0.1 / 25), (3200, 0.1 / 125)],
    }
    for (name, stages), seed in product(ways.items(), SEEDS):
        phases = [(e, batch, Constant(rate)) for e, (batch, rate) in zip(epochs, stages, strict=True)]
        wave[f"batch instead of rate | {name} | seed {seed}"] = momentum(*phases, seed=seed)
    few: dict[str, Any] = {"pictures": 5000, "augmented": False, "landscape": True}
    for (batch, rate), decay, seed in product(((32, 0.05), (500, 0.05), (500, 0.8)), (0.0, 5e-4), SEEDS):
        name = f"minimum | batch {batch} at rate {rate:g} | decay {decay:g} | seed {seed}"
        phase = (60, batch, WarmUp(Cosine(rate), share=0.1))
        wave[name] = momentum(phase, seed=seed, settings={"weight_decay": decay}, **few)
    yield wave


# The recipe `fast` at half of its width, and what is changed in that; with how many seeds.
INGREDIENTS: dict[str, tuple[int, dict[str, Any]]] = {
    "all": (3, {}),
    "no flip": (3, {"augmentation": FAST.augmentation[:1] + FAST.augmentation[2:]}),
    "no crop": (3, {"augmentation": FAST.augmentation[1:]}),
    "no cutout": (3, {"augmentation": FAST.augmentation[:2]}),
    "no augmentation": (3, {"augmentation": ()}),
    "no weight decay": (3, {"l2": 0.0}),
    "no label smoothing": (3, {"label_smoothing": 0.0}),
    "no shortcuts": (3, {}),
    "colour jitter": (3, {"augmentation": (ColourJitter(0.1, 0.5), *FAST.augmentation)}),
    "width 64": (3, {"width": 64}),
    "no Nesterov": (2, {"nesterov": False}),
    # Momentum makes steps 1 / (1 - 0.9) = 10 times as long.
    "no momentum": (2, {"momentum": 0.0, "nesterov": False, "schedule": OneCycle(2.0, peak_at=0.25)}),
    "no climb": (2, {"schedule": Cosine(0.2)}),
    **{f"constant rate {rate:g}": (2, {"schedule": Constant(rate)}) for rate in (0.02, 0.05, 0.1)},
    "cutout 16": (2, {"augmentation": (*FAST.augmentation[:2], CoarseDropout(size=16, fill=MEAN_COLOUR))}),
    "shift-scale-rotate": (2, {"augmentation": (ShiftScaleRotate(), *FAST.augmentation)}),
    "strong colour jitter": (1, {"augmentation": (ColourJitter(0.5, 1.0), *FAST.augmentation)}),
    "width 16": (1, {"width": 16}),
    "10 epochs": (1, {"epochs": 10}),
    "40 epochs": (1, {"epochs": 40}),
}
DEPTHS = (8, 20, 32, 56)


def cifar_resnet(results: Results) -> Iterator[Wave]:
    """Chapter 10: what each ingredient of a recipe buys; and chains of convolutions with and without shortcuts."""
    base = replace(FAST, width=32)
    wave: Wave = {}
    for name, (count, change) in INGREDIENTS.items():
        for seed in SEEDS[:count]:
            run = RecipeRun(replace(base, **change), seed, shortcuts=name != "no shortcuts")
            wave[f"ingredients | {name} | seed {seed}"] = run
    for depth, shortcuts, seed in product(DEPTHS, (False, True), SEEDS[:2]):
        # Three stages of blocks with two convolutions each, a stem and a head (He et al., 2016).
        thin = replace(base, width=16, blocks=((depth - 2) // 6,) * 3, epochs=10, label_smoothing=0.0)
        name = f"depth | {'residual' if shortcuts else 'plain'} | {depth} | seed {seed}"
        wave[name] = RecipeRun(thin, seed, shortcuts=shortcuts)
    yield wave


def rate_of(results: Results, name: str) -> float:
    """The rate that was the best for an entry of a race: that of its three seeds."""
    tried = tries(results, name)
    # From the lowest up, as in a race: of equals, the same one wins in whatever order the trials have ended.
    return max(sorted(tried), key=lambda rate: tried[rate])


def tries(results: Results, name: str) -> dict[float, float]:
    """The accuracy on the validation pictures by the rates that were tried for an entry, less those that diverged."""
    start = f"{name} | rate "
    return {
        float(key.removeprefix(start)): result["validation"]["accuracy"]
        for key, result in results.items()
        if key.startswith(start) and not result["diverged"]
    }


def of_seeds(results: Results, name: str) -> list[dict[str, Any]]:
    """What an entry's seeds have found, at the best of its rates if it has several."""
    return [results[key] for seed in SEEDS if (key := f"{name} | seed {seed}") in results]


COMPARISONS: dict[str, Comparison] = {
    "optimizers": optimizers,
    "learning_rates": learning_rates,
    "cifar_resnet": cifar_resnet,
}


RECORDS = resources.files("lessons_lib") / "recorded" / "comparisons"


def recorded(name: str) -> dict[str, Any]:
    """What the comparison found when it was last made: its `results`, and on which `copy` of the data."""
    found: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text("utf-8"))
    return found


# --- running them ---------------------------------------------------------------------------------------------------


def compare(
    name: str,
    out: Path,
    *,
    workers: int = 1,
    device: torch.device | str = "cpu",
    say: Callable[[str], object] = print,
) -> None:
    """Run what the comparison `name` still lacks in the file `out`, so many trainings side by side.

    Each of several workers has one thread, with which small networks are hardly slower than with two. Raises ValueError
    where `out` is on another copy of the data, and what `load_cifar10` raises.
    """
    check_whole_number("workers", workers, 1)
    record: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"results": {}}
    data = load_cifar10()
    if record.get("copy", data.copy) != data.copy:
        raise ValueError(f"{out} is on {record['copy']}, and the data at hand are {data.copy}: give another file")
    threads = 1 if workers > 1 else torch.get_num_threads()
    record |= {
        "command": f"python -m lessons_lib.comparisons {name} --workers {workers}",
        "data": data.name,
        "copy": data.copy,
        "machine": {**machine(torch.device(device)), "threads": threads, "processes": workers},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.date.today().isoformat(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    old: Results = record["results"]
    done: Results = {}
    with _hands(workers, data, device) as started:
        for wave in COMPARISONS[name](done):
            known = {key: old[key] for key, run in wave.items() if key in old and old[key]["run"] == run.asked()}
            done |= known
            for key, found in started({key: run for key, run in wave.items() if key not in known}):
                done[key] = {"run": wave[key].asked(), **found}
                record["results"] = {**old, **done}
                _write(record, out)
                say(f"{key}: {told(done[key])}")
    # In the order in which they are asked for, and without those that are no part of it any more.
    record["results"] = {key: done[key] for wave in COMPARISONS[name](done) for key in wave}
    _write(record, out)


@contextmanager
def _hands(
    workers: int, data: Dataset, device: torch.device | str
) -> Iterator[Callable[[Wave], Iterator[tuple[str, Result]]]]:
    """What runs a wave, and gives each result as soon as it is there."""
    if workers == 1:
        yield lambda wave: ((key, _finished(run, data, device)) for key, run in wave.items())
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare, (data, device))

    def side_by_side(wave: Wave) -> Iterator[tuple[str, Result]]:
        names = {pool.submit(_finished_here, run): key for key, run in wave.items()}
        for future in as_completed(names):
            yield names[future], future.result()

    try:
        yield side_by_side
    finally:
        pool.shutdown(cancel_futures=True)


_HERE: dict[str, Any] = {}  # what every training of a worker begins with


def _prepare(data: Dataset, device: torch.device | str) -> None:
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = True  # all batches have the same size: the fastest way is worth looking for
    _HERE.update(data=data, device=device)


def _finished_here(run: AnyRun) -> Result:
    return _finished(run, **_HERE)


def _finished(run: AnyRun, data: Dataset, device: torch.device | str) -> Result:
    return finished(run, data, device) if isinstance(run, Run) else finished_recipe(run, data, device)


def _write(record: dict[str, Any], out: Path) -> None:
    # A line for each training: what has changed is seen at a glance.
    head = json.dumps({name: value for name, value in record.items() if name != "results"}, indent=1)[:-2]
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(result)}" for key, result in record["results"].items())
    replace_file(out, lambda path: path.write_text(f'{head},\n "results": {{\n{rows}\n }}\n}}\n', "utf-8"))


def told(result: Result) -> str:
    if result["diverged"]:
        history = result["history"]  # rows of a Run, columns of a RecipeRun
        epochs = history if isinstance(history, list) else history.get("epoch", [])
        return f"no number any more after {len(epochs)} epochs"
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
    parser.add_argument("--workers", type=int, default=1, help="trainings side by side, each with one thread")
    asked = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out = asked.out or Path("runs") / f"{asked.comparison}.json"
    try:
        compare(asked.comparison, out, workers=asked.workers, device=device)
    except (ValueError, OSError, FileUnavailable) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
