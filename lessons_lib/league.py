"""The league of chapter 11: every map of chapters 5 and 6, and three that know no network, where the truth is known.

    python -m lessons_lib.league

From top to bottom: which maps, on which pictures and networks, how they are scored, and the command that does it all.
Every finished map is in the file at once, and the same command goes on where an earlier one ended. Half an hour to an
hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lessons_lib import gradcam, saliency
from lessons_lib._checks import check_whole_number
from lessons_lib.downloads import replace_file
from lessons_lib.shapes import Shortcut, generate
from lessons_lib.specimens import Specimen, load_specimen
from lessons_lib.training import machine
from lessons_lib.trust import energy_inside, intersection_over_union, pointing_game

# --- the maps ----------------------------------------------------------------------------------------------------

Method = Callable[[Specimen, Tensor, Tensor], Tensor]
"""Maps (N, H, W), 0 or more, of a specimen's network for pictures (N, 3, H, W) and the class of each (N,)."""


def _size(of: Callable[..., Tensor], **settings: Any) -> Method:
    """How much each pixel matters: of its three numbers the largest, whatever its sign."""
    return lambda one, images, targets: of(one.model, images, targets, **settings).abs().amax(dim=1)


def _for_the_class(of: Callable[..., Tensor], **settings: Any) -> Method:
    """What speaks for the class: the sum of a pixel's three numbers, where that is above 0."""
    return lambda one, images, targets: of(one.model, images, targets, **settings).sum(dim=1).clamp(min=0)


def _last(of: Callable[..., Tensor], stage: int = -1) -> Method:
    return lambda one, images, targets: of(one.model, images, list(one.layers.values())[stage], targets)


def _as_it_is(of: Callable[..., Tensor], **settings: Any) -> Method:
    return lambda one, images, targets: of(one.model, images, targets, **settings)


def _occluded(one: Specimen, images: Tensor, targets: Tensor) -> Tensor:
    return saliency.occlusion(one.model, images, targets, size=16, stride=8).clamp(min=0)


def _eigen(one: Specimen, images: Tensor, targets: Tensor) -> Tensor:
    return gradcam.eigen_cam(one.model, images, list(one.layers.values())[-1])


def _guided(one: Specimen, images: Tensor, targets: Tensor) -> Tensor:
    return gradcam.guided_grad_cam(one.model, images, list(one.layers.values())[-1], targets).abs().amax(dim=1)


@torch.no_grad()
def rise(one: Specimen, images: Tensor, targets: Tensor, *, masks: int = 128) -> Tensor:
    """Covered at random, half of the picture at a time (Petsiuk et al., 2018): each mask counts as the probability."""
    random = torch.Generator().manual_seed(0)
    half = (torch.rand(masks // 2, 1, 7, 7, generator=random) < 0.5).to(images)
    both = torch.cat([half, 1 - half])  # each pixel shows equally often
    total = torch.zeros_like(images[:, 0])
    for mask in functional.interpolate(both, images.shape[2:], mode="bilinear"):
        total += one.model(images * mask).softmax(dim=1).gather(1, targets[:, None])[..., None] * mask
    # What an even map would have is no evidence.
    return (total - total.amin(dim=(1, 2), keepdim=True)) / masks


def random_map(one: Specimen | None, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """Noise: it knows neither network nor picture."""
    return torch.rand(images[:, 0].shape, generator=torch.Generator().manual_seed(0))


def middle(one: Specimen | None, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """A soft blob in the middle: where people put things in pictures."""
    down, across = (torch.linspace(-1, 1, size) for size in images.shape[2:])
    blob = (-2 * (down[:, None].square() + across.square())).exp()
    return blob.expand(len(images), -1, -1).clone()


def edges(one: Specimen | None, images: Tensor, targets: Tensor | None = None) -> Tensor:
    """Sobel's edges of the grey picture: it knows the picture, and no network."""
    from skimage.filters import sobel

    return torch.from_numpy(np.stack([sobel(grey) for grey in images.mean(dim=1).numpy()]))


CONTROLS: Mapping[str, Method] = {"random map": random_map, "middle": middle, "edge detector": edges}
METHODS: Mapping[str, Method] = {
    "saliency": _as_it_is(saliency.saliency),
    "SmoothGrad": _as_it_is(saliency.smooth_grad, samples=25),
    "input x gradient": _for_the_class(saliency.input_x_gradient),
    "integrated gradients": _for_the_class(saliency.integrated_gradients, steps=32),
    "deconvnet": _size(saliency.deconvnet),
    "guided backpropagation": _size(saliency.guided_backprop),
    "occlusion": _occluded,
    "RISE": rise,
    "Grad-CAM": _last(gradcam.grad_cam),
    "Grad-CAM, a stage earlier": _last(gradcam.grad_cam, -2),
    "Grad-CAM++": _last(gradcam.grad_cam_plus_plus),
    "XGrad-CAM": _last(gradcam.xgrad_cam),
    "HiResCAM": _last(gradcam.hires_cam),
    "LayerCAM": _last(gradcam.layer_cam),
    "LayerCAM, a stage earlier": _last(gradcam.layer_cam, -2),
    "Eigen-CAM": _eigen,
    "Score-CAM": _last(gradcam.score_cam),
    "Ablation-CAM": _last(gradcam.ablation_cam),
    "guided Grad-CAM": _guided,
    **CONTROLS,
}
BLURRED = ("saliency", "integrated gradients", "guided backpropagation", "edge detector")
"""Those that are scored a second time, blurred until they are as coarse as a class activation map."""


def blurred(maps: Tensor, sigma: float = 4.0) -> Tensor:
    """`maps` (N, H, W) under a Gaussian of `sigma` pixels: half of what one place of the last stage covers here."""
    from scipy.ndimage import gaussian_filter

    return torch.from_numpy(gaussian_filter(maps.numpy(), (0, sigma, sigma), mode="constant")).clamp(min=0)


# --- the pictures and networks -----------------------------------------------------------------------------------

SEED = 11_000  # no picture of this seed was trained on
COUNT = 500


@dataclass(frozen=True, eq=False)
class Trial:
    """A network, pictures, the answer that is explained, and the parts of the pictures that maps may lie on."""

    specimen: Specimen
    images: Tensor  # (N, 3, H, W)
    targets: Tensor  # (N,)
    parts: Mapping[str, Tensor]  # name -> (N, H, W), bool
    falls: Tensor | None = None  # (N,): by how much each score falls without the tag


def trial(name: str, count: int = COUNT) -> Trial:
    """What the maps are tried on: one of `TRIALS`, without a word. Fewer pictures are the first of more.

    Raises TypeError or ValueError for an unknown name or a count below 1.
    """
    if name not in TRIALS:
        raise ValueError(f"name {name!r} is not a trial: choose one of {', '.join(TRIALS)}")
    check_whole_number("count", count, 1)
    with redirect_stdout(io.StringIO()):
        made = TRIALS[name].make(count)
    if len(made.images) < count:
        raise RuntimeError(f"only {len(made.images)} of {count} pictures were found")
    return made


def _thing(count: int) -> Trial:
    one, drawn = load_specimen("shapes"), generate(count + count // 4 + 20, SEED)
    right = (logits_of(one.model, drawn.images).argmax(dim=1) == drawn.labels).nonzero()[:count, 0]
    return Trial(one, drawn.images[right], drawn.labels[right], {"thing": drawn.masks[right]})


def _tag_decides(count: int) -> Trial:
    one, many = load_specimen("shapes-tagged"), 6 * count + 100
    tagged, plain = generate(many, SEED, shortcut=Shortcut("tag")), generate(many + 1, SEED)
    assert tagged.shortcut_masks is not None
    # Every picture but the first gets the tag of the one before.
    marks, says = tagged.shortcut_masks, tagged.labels
    images, labels, things = (part[1:] for part in (plain.images, plain.labels, plain.masks))
    misleading = torch.where(marks[:, None], tagged.images, images)
    before, after = (logits_of(one.model, seen).argmax(dim=1) for seen in (images, misleading))
    chosen = ((before == labels) & (after == says) & (says != labels)).nonzero()[:count, 0]
    parts = {"tag": marks[chosen], "thing": (things & ~marks)[chosen]}
    return Trial(one, misleading[chosen], says[chosen], parts)


def _tag_tells(count: int, network: str) -> Trial:
    one = load_specimen(network)
    plain, tagged = generate(count, SEED), generate(count, SEED, shortcut=Shortcut("tag"))
    targets = tagged.labels
    before, after = (logits_of(one.model, drawn.images).gather(1, targets[:, None])[:, 0] for drawn in (tagged, plain))
    assert tagged.shortcut_masks is not None
    return Trial(one, tagged.images, targets, {"tag": tagged.shortcut_masks}, before - after)


METRICS = {"pointing": pointing_game, "energy": energy_inside, "overlap": intersection_over_union}


@dataclass(frozen=True)
class Kind:
    """How a trial is made, and which of `METRICS` score its maps on which parts of the pictures."""

    make: Callable[[int], Trial]
    parts: tuple[str, ...]
    metrics: tuple[str, ...] = tuple(METRICS)


TRIALS: Mapping[str, Kind] = {
    # Plain pictures that a network reads rightly which has never seen a tag.
    "thing": Kind(_thing, ("thing",)),
    # Pictures that the network of tags reads rightly, until another's tag makes it give what that says as its answer.
    "tag decides": Kind(_tag_decides, ("tag", "thing")),
    # Every picture with a right tag, to the same network: without the tag some scores fall far and others hardly.
    "tag tells": Kind(partial(_tag_tells, network="shapes-tagged"), ("tag",), ("energy",)),
    # The same pictures, to the network that has never seen one.
    "tag unused": Kind(partial(_tag_tells, network="shapes"), ("tag",), ("energy",)),
}


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Of many pictures (N, 3, H, W), in parts: (N, classes)."""
    return torch.cat([model(some) for some in images.split(50)])


# --- the scores --------------------------------------------------------------------------------------------------

Scores = dict[str, dict[str, Tensor]]
"""Method -> "metric, part" -> (N,)."""


def scored(tried: Trial, methods: Sequence[str], metrics: Sequence[str] = tuple(METRICS)) -> Iterator[Scores]:
    """The scores of one of `methods` after the other, each with those of its blurred maps if it has such."""
    for name in methods:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of maps that are zero everywhere: they score 0
            # Ten at a time, so that a picture's noise does not depend on how many are asked about in all.
            size = len(tried.images) if name in CONTROLS else 10
            parts = zip(tried.images.split(size), tried.targets.split(size), strict=True)
            maps = torch.cat([METHODS[name](tried.specimen, images, targets) for images, targets in parts])
        found = {name: _by_part(maps, tried, metrics)}
        if name in BLURRED:
            found[f"{name}, blurred"] = _by_part(blurred(maps), tried, metrics)
        yield found


def _by_part(maps: Tensor, tried: Trial, metrics: Sequence[str]) -> dict[str, Tensor]:
    return {
        f"{metric}, {part}": METRICS[metric](maps, masks) for part, masks in tried.parts.items() for metric in metrics
    }


# --- the record --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a trial has found: the scores, and by how much each picture's score falls without its tag."""

    scores: Scores
    falls: Tensor | None


def recorded(name: str = "league") -> dict[str, Recorded]:
    """What was found when the league was last played, by the names in `TRIALS`; scores to a thousandth."""
    found = json.loads((resources.files("lessons_lib") / "recorded" / f"{name}.json").read_text("utf-8"))["trials"]
    return {
        name_of_trial: Recorded(
            {
                method: {metric: torch.tensor(values) / 1000 for metric, values in scores.items()}
                for method, scores in its["scores"].items()
            },
            torch.tensor(its["fall"]) if "fall" in its else None,
        )
        for name_of_trial, its in found.items()
    }


def play(out: Path, *, count: int = COUNT, say: Callable[[str], object] = print) -> None:
    """Score what the file `out` still lacks. Raises ValueError where it is of other pictures or networks."""
    check_whole_number("count", count, 1)
    record: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"trials": {}}
    if record.get("pictures", count) != count:
        raise ValueError(f"{out} is of {record['pictures']} pictures, not of {count}: give another file")
    record |= {
        "command": "python -m lessons_lib.league",
        "pictures": count,
        "machine": machine(torch.device("cpu")),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.date.today().isoformat(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, kind in TRIALS.items():
        its = record["trials"].setdefault(name, {"scores": {}})
        missing = [method for method in METHODS if method not in its["scores"]]
        if not missing:
            continue
        here = trial(name, count)
        weights = here.specimen.weights.sha256
        if its.setdefault("weights", weights) != weights:
            raise ValueError(f"{out} is of a network with other weights: give another file")
        if here.falls is not None:
            its["fall"] = [round(fall, 3) for fall in here.falls.tolist()]
        for found in scored(here, missing, kind.metrics):
            for method, scores in found.items():
                its["scores"][method] = {k: (1000 * v).round().int().tolist() for k, v in scores.items()}
                say(f"{name}: {method}: " + ", ".join(f"{k} {v.mean():.3f}" for k, v in scores.items()))
            replace_file(out, lambda path: path.write_text(json.dumps(record, separators=(",", ":")) + "\n", "utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lessons_lib.league", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/league.json"), help="file of the scores")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures in each trial")
    asked = parser.parse_args(arguments)
    try:
        play(asked.out, count=asked.count)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
