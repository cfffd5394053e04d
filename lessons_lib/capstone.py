"""The cases of chapter 12: networks that read their validation pictures well and fail in the field.

Every picture is staged: which thing, tag, background and colour it shows is known, and each can be exchanged while the
rest stays. In the pictures that a network of a case was trained with, one of the parts may go with the thing, always.
In the field it does not. `python -m lessons_lib.capstone` trains the networks and their repairs, and keeps a record.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from ._checks import check_whole_number
from .augmentation import Flip
from .datasets import AugmentedBatches, Pictures
from .downloads import home_folder, replace_file
from .hooks import Capture, evaluating
from .league import logits_of
from .learning_rates import OneCycle
from .recipes import SHAPES
from .resnet import Normalize, ResNet
from .shapes import FREE_OF_COLOUR, SIZE, Staged, stage
from .specimens import Weights, note_opened
from .training import fit, half_size, machine

CATEGORIES = FREE_OF_COLOUR
PARTS = ("tag", "background", "colour")
"""What besides the thing a picture shows, each in six kinds: which of them, if any, gave the thing away?"""
SHIPPED = range(4)
"""The cases whose networks are part of the package; those of others are trained when they are first opened."""
CASES = 1000

_KINDS = len(CATEGORIES)
_FIELDS = {"tag": "tags", "background": "backgrounds", "colour": "colours"}
# A tag is small: with small steps a network learns the things beside it.
_RECIPE = replace(SHAPES, epochs=10, blocks=(1, 1, 1), schedule=OneCycle(0.1, peak_at=0.25), mixed_precision=True)
_TAG_RECIPE = replace(_RECIPE, schedule=OneCycle(0.2, peak_at=0.25))
# How many pictures of each kind a case has; their seeds never meet those of another case or kind.
_COUNTS = {"training": 2400, "validation": 300, "field": 300, "labelled": 300, "exam": 600}
_FIRST_SEED = 12_000_000


# --- a case -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """A network as its makers hand it over, frozen, and the pictures of its case.

    `network` gives logits (N, 6) of pictures (N, 3, 64, 64) in [0, 1]. `training` and `validation` are its makers' own
    pictures; `field` are pictures from where it is used, and `labelled` are more of those, to repair it with.
    """

    number: int
    network: nn.Sequential

    @property
    def training(self) -> Staged:
        return _pictures(self.number, "training")

    @property
    def validation(self) -> Staged:
        return _pictures(self.number, "validation")

    @property
    def field(self) -> Staged:
        return _pictures(self.number, "field")

    @property
    def labelled(self) -> Staged:
        return _pictures(self.number, "labelled")

    def exchanged(self, part: str | None, pictures: str = "validation", *, seed: int = 0) -> Staged:
        """The validation pictures, or others of this case, with another kind of `part` in each, and nothing else new.

        Raises ValueError for a part that is not one of `PARTS`, or pictures that a case does not have.
        """
        return _with_another(self.number, _field(part), pictures, seed)

    def shuffled(self, part: str | None, pictures: str = "training", *, seed: int = 0) -> Staged:
        """The training pictures, or others of this case, with `part` left to chance: it may happen to stay.

        Raises ValueError for a part that is not one of `PARTS`, or pictures that a case does not have.
        """
        field = _field(part)
        shown = _shown(self.number, pictures)
        return _photographed(self.number, pictures, shown | {field: _chance(_KINDS, len(shown[field]), seed, 8)})


def load_case(number: int) -> Case:
    """Open a case by its number, from 0 to 999, and say where its network comes from.

    The first four are part of the package; another is trained now, in a minute or so, and kept under LESSONS_HOME.
    Raises TypeError or ValueError for a number that is none of them.
    """
    check_whole_number("number", number, 0, CASES)
    number, name = int(number), f"{int(number):03}.safetensors"
    case, kept = Case(number, _untrained()), home_folder() / "capstone" / name
    if number in SHIPPED:
        content, found = (resources.files("lessons_lib") / "weights" / "capstone" / name).read_bytes(), "in the package"
    elif _is_whole(kept):
        content, found = kept.read_bytes(), "as it was trained here before"
    else:
        print(f"The network of case {number} is trained now, which takes a minute or so.")
        content, found = half_size(handed_over(number)), "trained here"
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            replace_file(kept, lambda path: path.write_bytes(content))
        except OSError as error:
            print(f"It could not be kept, and will be trained again next time: {error}")
    case.network.load_state_dict(load(content))
    case.network.requires_grad_(False).eval()
    print(f"Case {number}: {len(CATEGORIES)} categories, network {found}.")
    source = "lessons_lib.capstone"
    note_opened("shapes", Weights(f"the network of case {number}", source, sha256(content).hexdigest(), found))
    return case


def _is_whole(path: Path) -> bool:
    try:
        return bool(load(path.read_bytes()))
    except (OSError, SafetensorError):
        return False


def shown_by(pictures: Staged, part: str) -> Tensor:
    """Which of its six kinds `part` shows in each of `pictures`, (N,). Raises ValueError for an unknown part."""
    shown: Tensor = getattr(pictures, _field(part))
    return shown


def _field(part: Any) -> str:
    if not isinstance(part, str) or part not in PARTS:
        raise ValueError(f"part {part!r} is not known: choose one of {', '.join(PARTS)}")
    return _FIELDS[part]


def variant(number: int) -> str | None:
    """The part that gives the thing away in the training pictures of case `number`, None where there is no such part.

    Of four cases in a row, beginning with 0, 4, 8 and so on, each has another answer.
    """
    check_whole_number("number", number, 0, CASES)
    block, place = divmod(int(number), 4)
    draws = np.random.Generator(np.random.PCG64(_FIRST_SEED + block)).random(4)
    return (*PARTS, None)[int(draws.argsort(kind="stable")[place])]


def _shown(number: int, kind: str) -> dict[str, Tensor]:
    """What the parts show in the pictures of one of `_COUNTS`: training and validation have the shortcut."""
    if kind not in _COUNTS:
        raise ValueError(f"pictures {kind!r} are not known: choose training, validation, field or labelled")
    seed = _seed(number, kind)
    parts = {
        name: _chance(_KINDS, _COUNTS[kind], seed, key) for key, name in enumerate(("things", *_FIELDS.values()), 3)
    }
    shortcut = variant(number)
    if kind in ("training", "validation") and shortcut is not None:
        parts[_FIELDS[shortcut]] = parts["things"]
    return parts


@lru_cache(maxsize=24)
def _pictures(number: int, kind: str) -> Staged:
    return _photographed(number, kind, _shown(number, kind))


@lru_cache(maxsize=24)
def _with_another(number: int, field: str, kind: str, seed: int) -> Staged:
    shown = _shown(number, kind)
    other = (shown[field] + 1 + _chance(_KINDS - 1, len(shown[field]), seed, 7)) % _KINDS
    return _photographed(number, kind, shown | {field: other})


def _seed(number: int, kind: str) -> int:
    return _FIRST_SEED + 10_000 + number * len(_COUNTS) + [*_COUNTS].index(kind)


def _chance(below: int, count: int, seed: int, key: int) -> Tensor:
    draws = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,)))).random(count)
    return torch.from_numpy((draws * below).astype(np.int64))


def _photographed(number: int, kind: str, shown: dict[str, Tensor]) -> Staged:
    pictures = stage(**shown, seed=_seed(number, kind))
    if variant(number) is not None or kind in ("training", "validation"):
        return pictures
    # A case without a shortcut fails in the field too: there the cameras are poor.
    return replace(pictures, images=poor_camera(pictures.images, _seed(number, kind)))


def poor_camera(images: Tensor, seed: int) -> Tensor:
    """`images` (N, 3, H, W) in [0, 1] as poor cameras take them: pale, noisy, not quite in focus."""
    from scipy.ndimage import gaussian_filter

    amounts = np.random.Generator(np.random.PCG64(seed)).random((len(images), 3)).astype(np.float32)
    random = torch.Generator().manual_seed(seed)
    taken = []
    for image, (blur, contrast, noise) in zip(images, amounts.tolist(), strict=True):
        sigma = 0.6 + 0.4 * blur
        soft = torch.from_numpy(gaussian_filter(image.numpy(), (0, sigma, sigma), mode="nearest"))
        pale = 0.55 + (0.12 + 0.16 * contrast) * (soft - 0.5)
        taken.append(pale + 0.02 * (1 + noise) * torch.randn(image.shape, generator=random))
    return torch.stack(taken).clamp(0, 1) if taken else images.clone()


# --- networks and repairs ----------------------------------------------------------------------------------------


def _untrained(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        resnet = ResNet(_KINDS, width=_RECIPE.width, blocks=_RECIPE.blocks)
    # At half their size the pictures tell as much, and are learned four times as fast.
    layers = {"shrink": nn.AvgPool2d(2), "normalize": Normalize((0.45, 0.45, 0.42), (0.2, 0.2, 0.2)), "resnet": resnet}
    return nn.Sequential(OrderedDict(layers))


def train(
    images: Tensor,
    labels: Tensor,
    *,
    network: nn.Sequential | None = None,
    epochs: int = 12,
    seed: int = 0,
    progress: bool = False,
) -> nn.Sequential:
    """A network that has learned from `images` (N, 3, 64, 64) in [0, 1] and `labels` (N,), some of them mirrored each
    time, frozen: a new one, or a copy of `network` that is trained further.

    Raises TypeError or ValueError for what is no such pictures, or too few for a batch of 64.
    """
    check_whole_number("epochs", epochs, 1)
    recipe = replace(_RECIPE, epochs=int(epochs), augmentation=(Flip(),))
    return _trained(images, labels, recipe, network, seed, progress)


def _trained(
    images: Tensor, labels: Tensor, recipe: Any, network: nn.Sequential | None, seed: int, progress: bool
) -> nn.Sequential:
    _check_pictures(images, labels)
    pictures = Pictures(images.mul(255).round().clamp(0, 255).to(torch.uint8), labels)
    made = _untrained(seed) if network is None else copy.deepcopy(network)
    made.requires_grad_(True)
    batches = AugmentedBatches(pictures, recipe.batch_size, recipe.augmentation, seed)
    fit(made, batches, recipe, seed=seed, progress=progress)
    return made.requires_grad_(False).eval()


def handed_over(number: int, progress: bool = False) -> nn.Sequential:
    """The network of case `number` as its makers train it."""
    pictures = _pictures(number, "training")
    recipe = _TAG_RECIPE if variant(number) == "tag" else _RECIPE
    return _trained(pictures.images, pictures.things, recipe, None, number, progress)


def _check_pictures(images: Any, labels: Any) -> None:
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(f"images must be a float tensor in [0, 1], not {getattr(images, 'dtype', type(images))}")
    if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
        raise ValueError(f"images must be (N, 3, {SIZE}, {SIZE}), not {tuple(images.shape)}")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"labels must be ({len(images)},) of int64, one for each picture")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < _KINDS:
        raise ValueError(f"labels must lie from 0 to {_KINDS - 1}: there are {_KINDS} kinds of things")


def retrain_last_layer(network: nn.Sequential, images: Tensor, labels: Tensor, weights: Tensor) -> nn.Sequential:
    """A copy of `network` whose last layer is new: logistic regression on what comes before it, of `images`
    (N, 3, 64, 64), `labels` (N,) and `weights` (N,) that add up to 1. Source: Kirichenko et al., 2023.

    Raises TypeError or ValueError for what is no such pictures, or weights that do not add up to 1.
    """
    _check_pictures(images, labels)
    if weights.shape != labels.shape or not abs(float(weights.sum()) - 1) < 1e-3:
        raise ValueError(f"weights must be ({len(labels)},) and add up to 1")
    made = copy.deepcopy(network).eval()
    with torch.no_grad(), Capture(made, "resnet.flatten") as seen:
        made(images)
    features = seen["resnet.flatten"].detach()
    mean, spread = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    head = nn.Linear(features.shape[1], _KINDS)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = (weights * F.cross_entropy(head((features - mean) / spread), labels, reduction="none")).sum()
        found = found + 1e-3 * head.weight.square().sum()
        found.backward()
        return found

    with torch.enable_grad():
        optimizer.step(loss)
    last: Any = made.get_submodule("resnet.head")
    with torch.no_grad():
        last.weight.copy_(head.weight / spread)
        last.bias.copy_(head.bias - (head.weight * mean / spread).sum(dim=1))
    return made.requires_grad_(False).eval()


def covered(pictures: Staged, part: str | None) -> Tensor:
    """The images (N, 3, 64, 64) with `part` hidden: grey where the tag is, or all that is not the thing; or a thing
    without its colour. It takes the masks, which no picture from the field brings along. Raises ValueError for an
    unknown part."""
    _field(part)
    images, things = pictures.images, pictures.thing_masks[:, None]
    if part == "colour":
        return torch.where(things, images.mean(dim=1, keepdim=True), images)
    hidden = pictures.tag_masks[:, None] if part == "tag" else ~(things | pictures.tag_masks[:, None])
    return torch.where(hidden, images.new_tensor(0.5), images)


def _longer(case: Case, part: str | None) -> nn.Sequential:
    return train(case.training.images, case.training.things, network=case.network, epochs=10)


def _field_too(case: Case, part: str | None) -> nn.Sequential:
    images = torch.cat([case.training.images, case.labelled.images])
    return train(images, torch.cat([case.training.things, case.labelled.things]))


def _last_layer(case: Case, part: str | None) -> nn.Sequential:
    count = len(case.labelled.things)
    return retrain_last_layer(case.network, case.labelled.images, case.labelled.things, torch.full((count,), 1 / count))


def _covered(case: Case, part: str | None) -> nn.Sequential:
    return train(covered(case.training, part), case.training.things)


def _exchanged(case: Case, part: str | None) -> nn.Sequential:
    pictures = case.shuffled(part)
    return train(pictures.images, pictures.things)


def _poor_cameras(case: Case, part: str | None) -> nn.Sequential:
    images = torch.cat([case.training.images, poor_camera(case.training.images, case.number)])
    return train(images, case.training.things.repeat(2), network=case.network, epochs=6)


REMEDIES: Mapping[str, Callable[[Case, str | None], nn.Sequential]] = {
    "longer": _longer,
    "last layer": _last_layer,
    "field pictures too": _field_too,
    "covered": _covered,
    "exchanged": _exchanged,
    "poor cameras": _poor_cameras,
}
"""What may repair a network, of a case and the part that is under suspicion: ten more passes over the same pictures; a
new last layer from the labelled pictures of the field; those among the training pictures; the part covered, or left to
chance, in every training picture; or six more passes, with every picture a second time, through a poor camera."""


# --- what a network is worth -------------------------------------------------------------------------------------


def answers(network: nn.Module, images: Tensor) -> Tensor:
    """The category of the largest logit for each of `images` (N, 3, H, W): (N,). The network stays in its mode."""
    with evaluating(network):
        return logits_of(network, images).argmax(dim=1)


@dataclass(frozen=True)
class Exam:
    """Shares of pictures, from 0 to 1: read rightly among the validation pictures and among new ones from the field, of
    these also the worst kind of thing and, by part, those where it does not go with the thing; and how many answers to
    validation pictures change, by part, when it alone is exchanged, in a way drawn anew."""

    validation: float
    field: float
    worst: float
    against: Mapping[str, float]
    changed: Mapping[str, float]


def exam(case: Case, network: nn.Module) -> Exam:
    """What `network` is worth: see `Exam`. The field pictures are for this alone."""
    fresh = _pictures(case.number, "exam")
    right = answers(network, fresh.images) == fresh.things
    said = answers(network, case.validation.images)
    changed, against = {}, {}
    for part in PARTS:
        changed[part] = share(answers(network, case.exchanged(part, seed=1).images) != said)
        against[part] = share(right[shown_by(fresh, part) != fresh.things])
    worst = min(share(right[fresh.things == thing]) for thing in range(_KINDS))
    return Exam(share(said == case.validation.things), share(right), worst, against, changed)


def share(of: Tensor) -> float:
    """Of truth values (N,) the share that is true."""
    return float(of.double().mean())


# --- the record --------------------------------------------------------------------------------------------------


def study(number: int, remedies: Sequence[str] | None = None, say: Callable[[str], object] = print) -> dict[str, Any]:
    """Train the network of case `number` and its repairs, and examine all of them: what the record holds of a case."""
    shortcut = variant(number)
    started = time.perf_counter()
    network = handed_over(number)
    case = Case(number, network)
    found: dict[str, Any] = {"variant": shortcut, "exams": {}}
    weights = half_size(network)
    for name in ("handed over", *(remedies_for(shortcut) if remedies is None else remedies)):
        if name != "handed over":
            started = time.perf_counter()
            network = REMEDIES[name](case, shortcut)
        seconds = time.perf_counter() - started
        seen = exam(case, network)
        found["exams"][name] = {
            "validation": round(seen.validation, 4),
            "field": round(seen.field, 4),
            "against": {part: round(value, 4) for part, value in seen.against.items()},
            "changed": {part: round(value, 4) for part, value in seen.changed.items()},
            "seconds": round(seconds, 1),
        }
        say(f"case {number}, {shortcut or 'none'}, {name}: field {seen.field:.3f}, {seconds:.0f} s")
    return found | {"weights": weights}


def remedies_for(shortcut: str | None) -> list[str]:
    """The remedies that make sense for a case: to exchange a part, there must be one under suspicion."""
    if shortcut is None:
        return ["longer", "last layer", "poor cameras"]
    return ["longer", "last layer", "field pictures too", "covered", "exchanged"]


def recorded() -> dict[int, dict[str, Any]]:
    """What was found when the cases were last tried: by their numbers, `variant` and `exams` by remedy."""
    found = json.loads((resources.files("lessons_lib") / "recorded" / "capstone.json").read_text("utf-8"))["cases"]
    return {int(number): its for number, its in found.items()}


def keep(out: Path, numbers: Sequence[int], *, say: Callable[[str], object] = print) -> None:
    """Study what of the cases `numbers` the file `out` still lacks; networks go to files beside it."""
    for number in numbers:
        check_whole_number("number", number, 0, CASES)
    record: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"cases": {}}
    out.parent.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        if str(number) in record["cases"]:
            continue
        its = study(number, say=say)
        weights = its.pop("weights")
        replace_file(out.with_name(f"{number:03}.safetensors"), lambda path, content=weights: path.write_bytes(content))  # type: ignore[misc]
        record |= {
            "command": "python -m lessons_lib.capstone",
            "machine": machine(torch.device("cpu")),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "date": datetime.date.today().isoformat(),
        }
        record["cases"][str(number)] = its
        text = json.dumps(record, indent=1) + "\n"
        replace_file(out, lambda path, text=text: path.write_text(text, "utf-8"))  # type: ignore[misc]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lessons_lib.capstone", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/capstone.json"), help="file of the record")
    parser.add_argument("--cases", type=int, default=20, help="how many cases, from number 0 on")
    asked = parser.parse_args(arguments)
    try:
        keep(asked.out, range(asked.cases))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
