"""Put what runs have made into the package: their records, and from the one named pocket the specimen `cifar10`.

    LESSONS_DATA=... python tests/ship_cifar10.py runs/step runs/pocket

To the record of pocket it adds how the network reads original pictures, from `cifar10-original-sample.npz` in
LESSONS_DATA (`test_images` (N, 32, 32, 3) uint8, `test_labels`): trained on another copy, it has never seen any.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rates_of_fooling import interval
from safetensors.torch import load_file

from lessons_lib import training
from lessons_lib.cifar10 import CATEGORIES, TRAIN_MEAN, TRAIN_STD
from lessons_lib.datasets import Pictures
from lessons_lib.downloads import data_folder
from lessons_lib.resnet import ResNet, normalized

PACKAGE = Path(training.__file__).parent
RECORDS = PACKAGE / "recorded" / "training"
SAMPLE = "cifar10-original-sample.npz"


def originals(folder: Path) -> Pictures:
    """The original test pictures in `folder`."""
    with np.load(folder / SAMPLE) as sample:
        images = np.ascontiguousarray(sample["test_images"].transpose(0, 3, 1, 2))
        return Pictures(torch.from_numpy(images), torch.from_numpy(sample["test_labels"].astype(np.int64)))


def read_originals(weights: Path, settings: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    """How many of them the network reads rightly, without and with the mirrored picture, with Wilson's intervals."""
    resnet = ResNet(len(CATEGORIES), width=settings["width"], blocks=settings["blocks"])
    network = normalized(resnet, TRAIN_MEAN, TRAIN_STD)
    network.load_state_dict(load_file(weights))
    found: dict[str, Any] = {"pictures": len(pictures)}
    for name, flip in (("alone", False), ("with_mirrored", True)):
        accuracy = training.evaluate(network, pictures.batches(), flip=flip).accuracy
        low, high = interval(round(accuracy * len(pictures)), len(pictures))
        found[name] = {"accuracy": accuracy, "low": low, "high": high}
    return found


CARD = """\
# The network of the specimen `cifar10`

A residual network (He et al., 2016) for pictures of 32 x 32 pixels, RGB in [0, 1], normalized by its first layer; it
answers with ten logits: {categories}.
ResNet-18 with a first stage of {width} channels instead of 64: {parameters} parameters, stored in float16, the
statistics of BatchNorm in float32.

- **Made by** `{command}`: {epochs} epochs in {minutes:.0f} minutes on two CPU cores.
  The whole history is in `recorded/training/pocket.json`, the recipe in `recipes.py`.
- **Data**: CIFAR-10 (Krizhevsky, 2009), {copy}.
  Each picture of this copy went through a strong JPEG compression; its errors are about 8 of 255 grey levels.
  45 000 pictures to learn from, 5000 to tune by.
- **Test**, of the weights in this file and on the test pictures of the same copy, read once: {alone:.2%} of 10 000,
  and {mirrored:.2%} when the mirrored picture is asked too. The validation pictures said {validation:.2%}, mirrored
  ones asked too.
- **On originals**: {original:.1%} of the first 500 original test pictures (95% interval {low:.1%} to {high:.1%}),
  and {original_mirrored:.1%} when the mirrored picture is asked too. That is a small sample, and says no more than
  its interval.

## What it is not for

It is here to be looked into: as a network that students can train themselves, and whose mistakes they can study. It has
ten words, and answers one of them to any picture whatever. Its probabilities are not calibrated: label smoothing keeps
them away from 1. It has learned what is typical of CIFAR-10's photographs, with whatever was in their background.
Nothing that matters should be decided with it.
"""


def card(record: dict[str, Any]) -> str:
    test, originals = record["test"], record["originals"]
    return CARD.format(
        categories=", ".join(CATEGORIES),
        width=record["settings"]["width"],
        parameters=f"{record['parameters']:,}".replace(",", " "),
        command=record["command"],
        epochs=record["settings"]["epochs"],
        minutes=record["seconds"] / 60,
        copy=record["copy"],
        alone=test["accuracy"],
        mirrored=test["accuracy_with_mirrored"],
        validation=record["history"][-1]["validation_accuracy"],
        original=originals["alone"]["accuracy"],
        low=originals["alone"]["low"],
        high=originals["alone"]["high"],
        original_mirrored=originals["with_mirrored"]["accuracy"],
    )


def ship(run: Path, folder: Path) -> dict[str, Any]:
    """The record of `run` goes into the package under the run's name; with that of pocket its weights and a card."""
    record: dict[str, Any] = json.loads((run / "run.json").read_text("utf-8"))
    if "test" not in record:
        raise ValueError(f"{run} has not come to its end")
    if run.name == "pocket":
        if record["copy"] == "the original":
            raise ValueError("the card speaks of a lossy copy: write another for a network trained on the original")
        weights = run / "weights.safetensors"
        record["originals"] = read_originals(weights, record["settings"], originals(folder))
        shutil.copyfile(weights, PACKAGE / "weights" / "cifar10.safetensors")
        (PACKAGE / "weights" / "cifar10.md").write_text(card(record), "utf-8")
    record["history"] = record.pop("history")  # it is long, and comes last
    (RECORDS / f"{run.name}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return record


def main() -> None:
    folder = data_folder()
    if folder is None:
        raise SystemExit(f"Point LESSONS_DATA to the folder with {SAMPLE}.")
    for run in map(Path, sys.argv[1:]):
        record = ship(run, folder)
        print(json.dumps({name: record.get(name) for name in ("test", "originals", "seconds")}, indent=1))


if __name__ == "__main__":
    main()
