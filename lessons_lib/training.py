"""Train the network of the `shapes` specimen from scratch: `python -m lessons_lib.training shapes`.

No picture is shown twice: to draw one costs less than to learn from it, so the network learns none by heart
and needs no augmentation. Stochastic gradient descent with Nesterov's momentum; the step size rises and falls
once (Smith, 2018).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from lessons_lib.resnet import shapes_network
from lessons_lib.shapes import Shortcut, generate

WEIGHTS = Path(__file__).parent / "weights"
# Seeds from here on are for training: pictures of any smaller seed are new to the specimen.
FIRST_TRAINING_SEED = 2**32
HELD_OUT_SEED = 2**31


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: sizes are in pictures and steps of descent, `peak_at` is a share of the steps."""

    steps: int
    batch_size: int
    peak_step_size: float
    peak_at: float  # the share of the steps after which the step size is largest
    momentum: float
    weight_decay: float


SHAPES = Recipe(steps=700, batch_size=64, peak_step_size=0.1, peak_at=0.25, momentum=0.9, weight_decay=5e-4)
# A tag that gives the category away is soon learned, and then there is nothing left to learn from.
TAGGED = replace(SHAPES, steps=200)
SPECIMENS: dict[str, tuple[Recipe, Shortcut | None]] = {
    "shapes": (SHAPES, None),
    "shapes-tagged": (TAGGED, Shortcut("tag", rate=1.0)),
}


class FreshPictures(Dataset[tuple[Tensor, Tensor]]):
    """Batch k of a training run: images (N, 3, 64, 64) and labels (N,), shared with no other."""

    def __init__(self, batches: int, batch_size: int, seed: int, shortcut: Shortcut | None = None) -> None:
        self.batches, self.batch_size, self.seed, self.shortcut = batches, batch_size, seed, shortcut

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        first = FIRST_TRAINING_SEED * (self.seed + 1)
        shapes = generate(self.batch_size, first + batch, shortcut=self.shortcut)
        return shapes.images, shapes.labels


def train_shapes(
    seed: int = 0, *, recipe: Recipe = SHAPES, shortcut: Shortcut | None = None, progress: bool = True
) -> tuple[nn.Module, list[float]]:
    """Train a new network, on pictures with `shortcut` if there is one; return it in eval mode, with all losses.

    Raises ValueError for a negative seed or no steps.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, not {seed!r}")
    if recipe.steps < 1:
        raise ValueError(f"steps must be 1 or more, not {recipe.steps}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = shapes_network()
    pictures = FreshPictures(recipe.steps, recipe.batch_size, seed, shortcut)
    # One worker draws the next batches while the network learns from this one.
    # The generator is there because the loader would otherwise draw from the caller's random numbers.
    batches = DataLoader(
        pictures,
        batch_size=None,
        num_workers=1,
        prefetch_factor=8,
        generator=torch.Generator().manual_seed(seed),
    )
    return network, fit(network, batches, recipe, progress=progress)


def fit(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], recipe: Recipe, *, progress: bool = True
) -> list[float]:
    """Take a step of descent for each batch of (images, labels), `recipe.steps` in all; return their losses.

    The network is left in eval mode.
    """
    # The convolutions of a CPU run twice as fast with the channels of a pixel side by side.
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.peak_step_size,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.peak_step_size, recipe.steps, pct_start=recipe.peak_at, cycle_momentum=False
    )
    losses: list[float] = []
    bar = tqdm(batches, total=recipe.steps, unit="step", disable=not progress)
    for images, labels in bar:
        logits = network(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}")
    network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return losses


def accuracy(
    network: nn.Module, pictures: int = 5000, seed: int = HELD_OUT_SEED, *, shortcut: Shortcut | None = None
) -> float:
    """The share of new pictures, from 0 to 1, whose label gets the largest logit in eval mode.

    Raises ValueError for less than one picture.
    """
    if pictures < 1:
        raise ValueError(f"pictures must be 1 or more, not {pictures}")
    was_training = network.training
    network.eval()
    right = 0
    for start in range(0, pictures, 250):
        shapes = generate(min(250, pictures - start), seed + start, shortcut=shortcut)
        with torch.inference_mode():
            right += int((network(shapes.images).argmax(1) == shapes.labels).sum())
    network.train(was_training)
    return right / pictures


def write_weights(network: nn.Module, path: Path, facts: dict[str, Any]) -> None:
    """Write `path` (safetensors) and a JSON of `facts` beside it; neither is ever seen half written."""
    weights = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    facts = {**facts, "bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, weights)
    _replace(path.with_suffix(".json"), (json.dumps(facts, indent=2) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lessons_lib.training", description="Train a specimen from scratch."
    )
    parser.add_argument("specimen", choices=SPECIMENS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer for a quick try")
    parser.add_argument("--held-out", type=int, default=5000, help="number of new pictures for the accuracy")
    parser.add_argument("--out", type=Path, help="by default where the package keeps them")
    options = parser.parse_args(arguments)
    recipe, shortcut = SPECIMENS[options.specimen]
    recipe = recipe if options.steps is None else replace(recipe, steps=options.steps)
    out = options.out or WEIGHTS / f"{options.specimen}.safetensors"
    started = time.perf_counter()
    network, _ = train_shapes(options.seed, recipe=recipe, shortcut=shortcut)
    seconds = time.perf_counter() - started
    share = accuracy(network, options.held_out)
    misled: dict[str, Any] = {}
    if shortcut is not None:
        # In these pictures the tag is as often wrong as chance would have it: whoever trusts it is misled.
        wrong = replace(shortcut, rate=0.0)
        misled = {
            "shortcut": asdict(shortcut),
            "held_out_accuracy_with_it": accuracy(network, options.held_out, shortcut=shortcut),
            "held_out_accuracy_where_it_is_random": accuracy(network, options.held_out, shortcut=wrong),
        }
    facts = {
        "specimen": options.specimen,
        "seed": options.seed,
        "recipe": asdict(recipe),
        "held_out_accuracy": share,
        "held_out_pictures": options.held_out,
        **misled,
        "seconds": round(seconds, 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    write_weights(network, out, facts)
    print(f"held-out accuracy {share:.2%} on {options.held_out} new pictures; trained in {seconds:.0f} s")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
