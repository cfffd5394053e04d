"""How often each attack fools, on a hundred pictures of each specimen: the record that chapter 7 quotes.

    python tests/rates_of_fooling.py

Pictures are the specimen's sample, rounded to 8 bits, and the label of each is what the network reads. Each has one
random target, another class. What counts is the picture rounded to 8 bits again. On two CPU cores the one-pixel attack
takes hours; `--device cuda` takes minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lessons_lib import fooling
from lessons_lib.maximization import round_to_8_bits
from lessons_lib.specimens import load_specimen

RECORD = Path(__file__).resolve().parents[1] / "lessons_lib" / "recorded" / "fooling.json"
PICTURES = 100
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "targeted ascent": ("fool", {}),
    "targeted PGD, 8/255": ("pgd", {"epsilon": 8 / 255, "steps": 40}),
    "FGSM, 4/255": ("fgsm", {"epsilon": 4 / 255}),
    "PGD, 4/255": ("pgd", {"epsilon": 4 / 255, "steps": 40}),
    "PGD, 1/255": ("pgd", {"epsilon": 1 / 255, "steps": 40}),
    "DeepFool": ("deep_fool", {}),
    "one pixel": ("one_pixel", {"population": 400, "steps": 100}),
}
MEASURES = ("linf", "l2", "l0", "psnr", "ssim")


def interval(successes: int, of: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share."""
    from scipy.stats import binomtest

    found = binomtest(successes, of).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def pairs(model: nn.Module, images: Tensor, classes: int) -> Tensor:
    """A random target for each picture, never what it is read as."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        read = torch.cat([model(some).argmax(dim=1) for some in images.split(5)])
    return (read + torch.randint(1, classes, (len(images),), generator=random).to(read)) % classes


def measured(name: str, model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Any]:
    method, settings = SETTINGS[name]
    target = targets if name.startswith("targeted") else None
    start = time.perf_counter()
    attack: Callable[..., Tensor] = getattr(fooling, method)
    moved = attack(model, images, **({} if target is None else {"target": target}), **settings)
    seconds = time.perf_counter() - start
    found = fooling.report(model, images, moved, target)
    of, fooled = int(found.counts.sum()), int(found.fooled.sum())
    low, high = interval(fooled, of)
    # Where rounding undoes it all there is nothing to measure on saved pictures: all are measured.
    medians = {key: getattr(found, key).double().median().item() for key in MEASURES}
    change = (moved - images).flatten(1)
    return {
        "attack": name, "settings": settings, "fooled": fooled, "of": of,
        "before_rounding": int(found.fooled_unrounded.sum()), "low": low, "high": high, "medians": medians,
        "unrounded_l2": change.norm(dim=1).double().median().item(), "seconds": round(seconds, 1),
    }  # fmt: skip


def transferred(model: nn.Module, device: str) -> dict[str, Any]:
    """Pictures of shapes changed for `model`, shown to another network of its recipe, with other weights to begin."""
    from lessons_lib.recipes import SHAPES
    from lessons_lib.shapes import generate
    from lessons_lib.training import fit, material

    drawn = generate(PICTURES, seed=3)
    images, labels = round_to_8_bits(drawn.images).to(device), drawn.labels.to(device)
    begun = material(SHAPES, seed=1)
    fit(begun.network, begun.batches, SHAPES, seed=1)
    other = begun.network.to(device).requires_grad_(False)
    read = [torch.cat([network(some).argmax(dim=1) for some in images.split(50)]) for network in (model, other)]
    both = (read[0] == labels) & (read[1] == labels)
    images, labels = images[both], labels[both]
    settings = {"epsilon": 8 / 255, "steps": 40}
    moved = fooling.pgd(model, images, labels=labels, **settings)
    random = torch.Generator().manual_seed(0)
    noise = 8 / 255 * torch.randn(images.shape, generator=random).sign().to(images)
    found = {
        "own": fooling.report(model, images, moved, labels=labels),
        "other": fooling.report(other, images, moved, labels=labels),
        "noise": fooling.report(other, images, (images + noise).clamp(0, 1), labels=labels),
    }
    return {
        "attack": "PGD, 8/255", "settings": settings, "network": "recipe shapes, seed 1",
        "of": len(images), **{name: int(its.fooled.sum()) for name, its in found.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--specimen", action="append", help="by default shapes and imagenet")
    parser.add_argument("--only", default="", help="a part of the attack's name")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RECORD)
    asked = parser.parse_args()
    record: dict[str, Any] = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {}

    def keep() -> None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")

    machine = (
        f"one {torch.cuda.get_device_name()}" if asked.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    )
    for specimen_name in asked.specimen or ["shapes", "imagenet"]:
        specimen = load_specimen(specimen_name)
        model = specimen.model.to(asked.device)
        images = round_to_8_bits(specimen.sample(PICTURES)).to(asked.device)
        targets = pairs(model, images, len(specimen.categories))
        rows = record.setdefault(specimen_name, {})
        about = {
            "weights": specimen.weights.sha256, "date": date.today().isoformat(), "machine": machine,
            "versions": {"python": platform.python_version(), "torch": metadata.version("torch")},
        }  # fmt: skip
        if specimen_name == "shapes" and asked.only in "transfer":
            rows["transfer"] = transferred(model, asked.device) | about
            print(rows["transfer"], flush=True)
            keep()
        for name in SETTINGS:
            if asked.only not in name:
                continue
            rows[name] = measured(name, model, images, targets) | about
            told = "{attack:20} {fooled:3} of {of} ({low:.0%} to {high:.0%}), {before_rounding} unrounded, {seconds} s"
            print(f"{specimen_name:9}", told.format(**rows[name]), flush=True)
            keep()


if __name__ == "__main__":
    main()
