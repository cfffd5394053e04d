"""Put what a run has made into the package: the weights of the specimen `cifar10`, and the record of the run.

    LESSONS_DATA=... python tests/ship_cifar10.py runs/pocket

To the record it adds how the network reads original pictures, where LESSONS_DATA has `cifar10-original-sample.npz`
(`test_images` (N, 32, 32, 3) uint8, `test_labels`): a network trained on another copy has never seen any.
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


def main() -> None:
    run = Path(sys.argv[1])
    record = json.loads((run / "run.json").read_text("utf-8"))
    folder = data_folder()
    if folder is not None and (folder / SAMPLE).exists():
        record["originals"] = read_originals(run / "weights.safetensors", record["settings"], originals(folder))
    # The history is long and comes last.
    record["history"] = record.pop("history")
    shutil.copyfile(run / "weights.safetensors", PACKAGE / "weights" / "cifar10.safetensors")
    kept = PACKAGE / "recorded" / "training" / f"{record['recipe']}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps({name: record.get(name) for name in ("test", "originals", "seconds")}, indent=1))


if __name__ == "__main__":
    main()
