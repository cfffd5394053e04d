"""Specimens: a trained network, its categories and pictures to try on it, behind one interface.

`imagenet` is a real network with photographs; `shapes` is small, is part of this package, always works, and comes
with pictures whose truth is known. A chapter's cells run unchanged on either. `cifar10` is a network that this course
has trained, the one of the chapter on training.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from ._checks import check_whole_number
from .datasets import Pictures, as_floats
from .downloads import FileUnavailable, PublishedFile, obtain
from .resnet import Normalize
from .shapes import Shortcut

SQUEEZENET_FILE = PublishedFile(
    name="compressed_SqueezeNet.net",
    url="https://raw.githubusercontent.com/songhan/SqueezeNet-Deep-Compression/"
    "fb13faa2cf121ced9999f8a9d538ec6c56084733/compressed_SqueezeNet.net",
    sha256="e4ab6960ae8cd81505e1c2136921201507e930966c53deaf15862a395b3a3261",
)
ROLES = ("clear", "two_objects", "misread", "texture", "unknown")
"""What `Specimen.example` serves: one thing, read rightly with confidence; two things of different categories;
one that a person reads rightly and the network does not; no thing at all; a thing of none of the categories."""

_SMALLEST_SIDE = 32  # pixels; below that SqueezeNet has no place left to look at
_SEEDS = 2**30  # of `sample`: so many of them have pictures of their own
# Pixel values that leave [0, 1] by rounding are no mistake; a picture in 0..255 or a normalized one is.
_RANGE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Weights:
    """Which weights a network has, who published them (`source`), and where this copy was found."""

    name: str
    source: str
    sha256: str
    found: str


class Prediction(NamedTuple):
    """One of a network's answers; `target` is the index of the category, `probability` the softmax of its logit."""

    category: str
    probability: float
    target: int


@dataclass(frozen=True, repr=False, eq=False)
class Specimen:
    """A frozen network in eval mode, and what is needed to study it.

    `model` takes (N, 3, H, W) RGB in [0, 1], its first layer normalizes, and it returns logits (N, C). `pictures` maps
    names to (3, H, W) in [0, 1]; `truths` maps the same names to the categories that would be right, none where the
    network has no word for what is shown; `roles` maps the words in `ROLES` to names of pictures. `layers` maps names
    to modules in order of depth: each puts out the feature map (N, C, H, W) of a convolution stage, past its ReLU.
    """

    name: str
    model: nn.Sequential
    categories: tuple[str, ...]
    pictures: Mapping[str, Tensor]
    truths: Mapping[str, tuple[str, ...]]
    roles: Mapping[str, str]
    layers: Mapping[str, nn.Module]
    weights: Weights
    _draw: Callable[[int, int], Tensor]
    _scenes: Callable[[int], Tensor]

    def example(self, role: str) -> Tensor:
        """The picture (3, H, W) that plays `role`, one of `ROLES`. Raises ValueError for another word."""
        if role not in self.roles:
            raise ValueError(f"role {role!r} is not known: choose one of {', '.join(self.roles)}")
        return self.pictures[self.roles[role]]

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Many pictures to try the network on, (count, 3, H, W) in [0, 1]; fewer are the first of more.

        For `shapes` new pictures of its kind, never trained on. For `imagenet` crops of all scales, some mirrored, of
        fifteen photographs that take turns: a narrow sample of what ImageNet shows. Raises TypeError or ValueError for
        a `count` below 1, a negative `seed`, or what is no whole number.
        """
        check_whole_number("count", count, 1, _SEEDS)
        check_whole_number("seed", seed, 0, _SEEDS)
        return self._draw(count, seed)

    def scenes(self, count: int) -> Tensor:
        """Which scene each picture of `sample(count)` shows, (count,): crops of one photograph have the same number."""
        check_whole_number("count", count, 1, _SEEDS)
        return self._scenes(count)

    def predict(self, images: Tensor, top: int = 5) -> list[Any]:
        """The `top` most probable categories, best first: a list of `Prediction` for each picture of (N, 3, H, W).

        For one picture (3, H, W) just its list. Raises TypeError or ValueError where `images` is no picture in [0, 1].
        """
        batch = _as_batch(images)
        check_whole_number("top", top, 1)
        if top > len(self.categories):
            raise ValueError(f"top {top} is out of range: this network has {len(self.categories)} categories")
        with torch.no_grad():
            batch = batch.to(next(self.model.parameters()))  # its device and precision
            probabilities, indices = self.model(batch).softmax(dim=1).topk(top, dim=1)
        answers = [
            [Prediction(self.categories[i], p, i) for p, i in zip(row, places, strict=True)]
            for row, places in zip(probabilities.tolist(), indices.tolist(), strict=True)
        ]
        return answers if images.ndim == 4 else answers[0]

    def trainable(self) -> nn.Sequential:
        """A copy of the network whose parameters may change, in eval mode; the specimen's own stays as it is."""
        return copy.deepcopy(self.model).requires_grad_(True)

    def __repr__(self) -> str:
        return f"Specimen({self.name!r}, {self.weights.name}, {len(self.categories)} categories)"


def load_specimen(name: str | None = None, *, usual: str = "imagenet", network: str | None = None) -> Specimen:
    """Open a specimen and print one line that says which, with which weights, from where.

    Without a `name`: the one LESSONS_SPECIMEN names, else the `usual` one of the chapter, "imagenet" where its weights
    are at hand or can be downloaded, or "cifar10" where CIFAR-10 is at hand; else "shapes", and then it says so.
    `network` names one of torchvision's classifiers for "imagenet"
    (AlexNet, VGG, ResNet and their like); its `layers` are its outermost modules that convolve, wherever their ReLU is.
    Raises ValueError for an unknown name, FileUnavailable where a specimen asked for by name cannot be had.
    """
    asked = name if name is not None else os.environ.get("LESSONS_SPECIMEN") or None
    if asked is not None and asked not in _SPECIMENS:
        source = "name" if name is not None else "LESSONS_SPECIMEN"
        raise ValueError(f"{source} {asked!r} is not a specimen: choose one of {', '.join(_SPECIMENS)}")
    if usual not in _USUAL:
        raise ValueError(f"usual must be one of {', '.join(_USUAL)}, not {usual!r}")
    if network is not None and asked not in (None, "imagenet"):
        raise ValueError(f"network {network!r} goes with the specimen 'imagenet', not with {asked!r}")
    # New networks draw random weights before they get theirs: a chapter's own random numbers must not shift by that.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        if network is not None:
            specimen = _torchvision(network)
        elif asked is not None:
            specimen = _SPECIMENS[asked]()
        else:
            specimen = _USUAL[usual]()
    weights = specimen.weights
    origin = f"sha256 {weights.sha256[:8]}, from {weights.found}"
    print(f"Specimen: {specimen.name}. Network: {weights.name}. Weights: {origin}.")
    if name is None and specimen.name == "shapes":
        print(f"The pictures of the book show the specimen {usual}: yours will differ, what they teach will not.")
    note_opened(specimen.name, weights)
    return specimen


def note_opened(specimen: str, weights: Weights) -> None:
    """Enter into what `opened` tells that these weights were opened, of a network of this specimen's kind."""
    _opened.append({"specimen": specimen, "name": weights.name, "source": weights.source, "sha256": weights.sha256})


def opened() -> list[dict[str, str]]:
    """What was opened in this process, in order: specimen, name, source and sha256 of its weights."""
    return list(_opened)


_opened: list[dict[str, str]] = []


def _as_batch(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, not {type(images).__name__}")
    if images.ndim not in (3, 4) or images.shape[-3] != 3:
        raise ValueError(f"images must have the shape (N, 3, H, W) or (3, H, W), not {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images must hold at least one picture, not the shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], not {images.dtype}: divide 8-bit pictures by 255")
    if min(images.shape[-2:]) < _SMALLEST_SIDE:
        raise ValueError(
            f"images must have at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels, not {tuple(images.shape[-2:])}"
        )
    low, high = images.min().item(), images.max().item()
    # Written so that NaN, which compares false with everything, is refused too.
    if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):
        raise ValueError(
            f"images must lie in [0, 1], not in [{low:.3g}, {high:.3g}]: "
            "the network normalizes them itself, in its first layer"
        )
    return images if images.ndim == 4 else images[None]


# --- shapes ---------------------------------------------------------------------------------------------------

_SHAPES_SEED, _SHAPES_DRAWN = 20_260, 400  # no picture of this seed was trained on
# Seeds of samples lie apart from those of training (from 2**32), of its test (from 2**31) and of the one above.
_FIRST_SAMPLE_SEED = 2**30


def _shapes(tagged: bool = False) -> Specimen:
    from safetensors.torch import load

    from . import resnet, shapes

    name = "shapes-tagged" if tagged else "shapes"
    # Half of the tags of its pictures are right: some it reads rightly, some a tag misleads it to.
    shortcut = Shortcut("tag", rate=0.5) if tagged else None
    model = resnet.shapes_network()
    content = resources.files(__package__).joinpath(f"weights/{name}.safetensors").read_bytes()
    model.load_state_dict(load(content))
    model.eval().requires_grad_(False)
    # Drawn when first asked for, which takes a second: many only want the network. And with a copy of it, on which
    # nobody's hooks are then.
    shown = _once(partial(_shapes_pictures, copy.deepcopy(model), shortcut))
    residual = cast(resnet.ResNet, model[1])
    weights = Weights(
        f"ResNet of this course, trained on shapes{' with tags' if tagged else ''}",
        "lessons_lib",
        sha256(content).hexdigest(),
        "lessons_lib itself",
    )
    return Specimen(
        name=name,
        model=model,
        categories=shapes.CATEGORIES,
        pictures=_Later(lambda: shown().pictures),
        truths=_Later(lambda: shown().truths),
        roles=_Later(lambda: shown().roles),
        layers={name: residual.get_submodule(name) for name in ("stem", *residual.stages)},
        weights=weights,
        _draw=lambda count, seed: shapes.generate(count, _FIRST_SAMPLE_SEED + seed, shortcut=shortcut).images,
        _scenes=torch.arange,
    )


def _shapes_tagged() -> Specimen:
    """Trained on pictures where a sticker in a corner gives the category away: what it reads is the sticker."""
    return _shapes(tagged=True)


class _Later(Mapping[str, Any]):
    """A mapping that is made when it is first looked into."""

    def __init__(self, make: Callable[[], Mapping[str, Any]]) -> None:
        self._make = make

    def __getitem__(self, key: str) -> Any:
        return self._make()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._make())

    def __len__(self) -> int:
        return len(self._make())

    def __repr__(self) -> str:
        return repr(self._make())

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self._make()),)  # a copy of it is a plain one


class _Shown(NamedTuple):
    pictures: dict[str, Tensor]
    truths: dict[str, tuple[str, ...]]
    roles: dict[str, str]


def _once(make: Callable[[], _Shown]) -> Callable[[], _Shown]:
    """What `make` gives, made when it is first asked for; of two threads that ask first both get the same."""
    made, lock = cache(make), Lock()

    def shown() -> _Shown:
        with lock:
            return made()

    return shown


@torch.inference_mode(False)  # whoever asks first may be inside one, and these are for everybody
def _shapes_pictures(model: nn.Module, shortcut: Shortcut | None) -> _Shown:
    """One picture of each category and one for each role, chosen among held-out ones by what the network says."""
    from . import shapes

    drawn = shapes.generate(_SHAPES_DRAWN, seed=_SHAPES_SEED, shortcut=shortcut)
    with torch.no_grad():  # in parts, whose numbers still fit into the processor's own memory
        logits = torch.cat([model(images) for images in drawn.images.split(50)])
    first, second = logits.topk(2, dim=1).values.T
    sure, answers = first - second, logits.argmax(dim=1)  # many a probability is 1 to rounding; no margin is
    right, alone = answers == drawn.labels, drawn.other_labels < 0

    pictures: dict[str, Tensor] = {}
    truths: dict[str, tuple[str, ...]] = {}

    def choose(name: str, merit: Tensor) -> None:
        best = int(merit.argmax())
        if merit[best] <= 0:
            raise RuntimeError(f"none of {_SHAPES_DRAWN} pictures is fit to show {name!r}")
        shown = (int(drawn.labels[best]), int(drawn.other_labels[best]))
        pictures[name] = drawn.images[best].clone()
        truths[name] = tuple(shapes.CATEGORIES[label] for label in shown if label >= 0)

    for index, category in enumerate(shapes.CATEGORIES):
        choose(category, sure * right * alone * (drawn.labels == index))
    both = logits.softmax(dim=1).gather(1, drawn.other_labels.clamp(min=0)[:, None])[:, 0]
    choose("two things", both * right * ~alone)
    choose("misread", sure * ~right * alone)
    for name in ("bricks", "astronaut"):  # photographs: a texture, and something that is none of the categories
        pictures[name] = _smaller(_photographs()[name][None], shapes.SIZE)[0]
        truths[name] = ()
    roles = {
        "clear": shapes.CATEGORIES[int(drawn.labels[(sure * right * alone).argmax()])],
        "two_objects": "two things",
        "misread": "misread",
        "texture": "bricks",
        "unknown": "astronaut",
    }
    return _Shown(pictures, truths, roles)


# --- cifar10 --------------------------------------------------------------------------------------------------


def _cifar10() -> Specimen:
    """A compact ResNet of this course; its pictures are CIFAR-10's where that is at hand."""
    from safetensors.torch import load

    from . import cifar10, resnet

    package = resources.files(__package__)
    facts = json.loads(package.joinpath("recorded/training/pocket.json").read_text("utf-8"))
    content = package.joinpath("weights/cifar10.safetensors").read_bytes()
    settings = facts["settings"]
    network = resnet.ResNet(len(cifar10.CATEGORIES), width=settings["width"], blocks=settings["blocks"])
    model = resnet.normalized(network, cifar10.TRAIN_MEAN, cifar10.TRAIN_STD)  # the file has those of its own copy
    model.load_state_dict(load(content))
    model.eval().requires_grad_(False)
    weights = Weights(
        f"ResNet of this course, trained by its recipe {facts['recipe']} on {facts['data']}, {facts['copy']}",
        "lessons_lib",
        sha256(content).hexdigest(),
        "lessons_lib itself",
    )
    judge = copy.deepcopy(model)
    make: Callable[[], _Shown]
    draw: Callable[[int, int], Tensor]
    scenes: Callable[[int], Tensor]
    try:
        test = cifar10.load_cifar10(download=False).test
    except FileUnavailable:
        print("CIFAR-10 is not at hand: the pictures of this specimen are photographs at 32 x 32 pixels instead.")
        make = partial(_small_photographs, judge, cifar10.CATEGORIES)
        draw, scenes = _small_crops, _scenes_of_crops
    else:
        # A twentieth of them to choose pictures from, and the others for samples.
        few = torch.from_numpy(np.random.Generator(np.random.PCG64(0)).random(len(test)) < 0.05)
        make = partial(_cifar10_pictures, judge, test[few], cifar10.CATEGORIES)
        draw, scenes = partial(_drawn_from, test[~few]), lambda count: torch.arange(count)
    shown = _once(make)
    return Specimen(
        name="cifar10",
        model=model,
        categories=cifar10.CATEGORIES,
        pictures=_Later(lambda: shown().pictures),
        truths=_Later(lambda: shown().truths),
        roles=_Later(lambda: shown().roles),
        layers={name: network.get_submodule(name) for name in ("stem", *network.stages)},
        weights=weights,
        _draw=draw,
        _scenes=scenes,
    )


def _cifar10_or_shapes() -> Specimen:
    from . import cifar10

    try:
        cifar10.load_cifar10(download=False)
    except FileUnavailable:
        print(
            "CIFAR-10 is not at hand: this runs on the specimen shapes instead. "
            "`lessons_lib.cifar10.load_cifar10()` downloads it, 170 MB; then restart."
        )
        return _shapes()
    return _cifar10()


def _drawn_from(pictures: Pictures, count: int, seed: int) -> Tensor:
    """Pictures in an order drawn by `seed`, again from the first when all have been there."""
    draws = np.random.Generator(np.random.PCG64(seed)).random(len(pictures))
    order = torch.from_numpy(draws.argsort(kind="stable"))
    return as_floats(pictures.images[order[torch.arange(count) % len(order)]]).contiguous()


@torch.inference_mode(False)
def _cifar10_pictures(model: nn.Module, some: Pictures, categories: Sequence[str]) -> _Shown:
    """One picture of each category and one for each role, chosen among `some` by what the network says."""
    images = as_floats(some.images).contiguous()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(100)])
    first, second = logits.topk(2, dim=1).values.T
    sure, right = first - second, logits.argmax(dim=1) == some.labels
    surest = [int((sure * right * (some.labels == label)).argmax()) for label in range(len(categories))]
    pictures = {category: images[index].clone() for category, index in zip(categories, surest, strict=True)}
    truths: dict[str, tuple[str, ...]] = {category: (category,) for category in categories}
    pictures["two things"], truths["two things"] = _halves_of_two(model, pictures, categories)
    misread = int((sure * ~right).argmax())
    pictures["misread"], truths["misread"] = images[misread].clone(), (categories[int(some.labels[misread])],)
    return _with_nothing_known(pictures, truths, clear=categories[int(some.labels[(sure * right).argmax()])])


@torch.inference_mode(False)
def _small_photographs(model: nn.Module, categories: Sequence[str]) -> _Shown:
    """What photographs inside scikit-image have for CIFAR-10's words: a cat, in many crops, and a horse's outline."""
    from skimage import data

    sides = (150, 200, 250, 300)
    boxes = [
        (x, y, x + side, y + side) for side in sides for x in range(0, 452 - side, 50) for y in range(0, 301 - side, 50)
    ]
    cats = torch.stack([_as_picture(_cut(data.chelsea(), box, (32, 32))) for box in boxes])
    outline = np.pad(255 * data.horse().astype(np.uint8), ((36, 36), (0, 0)), constant_values=255)
    horse = _as_picture(_cut(outline, (0, 0, 400, 400), (32, 32)))
    with torch.no_grad():
        logits = model(cats)
    cat = categories.index("cat")
    others = logits.clone()
    others[:, cat] = -torch.inf
    lead = logits[:, cat] - others.amax(dim=1)
    pictures = {"cat": cats[lead.argmax()].clone(), "horse": horse}
    truths: dict[str, tuple[str, ...]] = {"cat": ("cat",), "horse": ("horse",)}
    pictures["two things"], truths["two things"] = _halves_of_two(model, pictures, categories)
    pictures["misread"], truths["misread"] = cats[lead.argmin()].clone(), ("cat",)
    return _with_nothing_known(pictures, truths, clear="cat")


def _halves_of_two(
    model: nn.Module, pictures: Mapping[str, Tensor], categories: Sequence[str]
) -> tuple[Tensor, tuple[str, ...]]:
    """Side by side the middles of two of `pictures`, named by their categories: the pair that the network sees best."""
    pairs = list(itertools.permutations(pictures, 2))
    halves = torch.stack([torch.cat([pictures[one][:, :, 8:24] for one in pair], dim=2) for pair in pairs])
    with torch.no_grad():
        probabilities = model(halves).softmax(dim=1)
    seen = [
        min(float(row[categories.index(one)]) for one in pair) for row, pair in zip(probabilities, pairs, strict=True)
    ]
    best = seen.index(max(seen))
    return halves[best].clone(), pairs[best]


def _with_nothing_known(pictures: dict[str, Tensor], truths: dict[str, tuple[str, ...]], clear: str) -> _Shown:
    """Also a texture and a thing of no category, and all roles played."""
    for name in ("bricks", "astronaut"):
        pictures[name], truths[name] = _smaller(_photographs()[name][None], 32)[0], ()
    roles = {
        "clear": clear,
        "two_objects": "two things",
        "misread": "misread",
        "texture": "bricks",
        "unknown": "astronaut",
    }
    return _Shown(pictures, truths, roles)


def _small_crops(count: int, seed: int) -> Tensor:
    return _smaller(_crops(count, seed), 32)


def _smaller(images: Tensor, side: int) -> Tensor:
    return nn.functional.interpolate(images, size=side, mode="bilinear", antialias=True).clamp(0, 1)


# --- imagenet -------------------------------------------------------------------------------------------------


def _imagenet_or_shapes() -> Specimen:
    try:
        return _imagenet()
    except FileUnavailable as error:
        print(f"The specimen imagenet cannot be opened: {error}\nThis runs on the specimen shapes instead.")
        return _shapes()


def _imagenet(shuffled: bool = False) -> Specimen:
    from . import squeezenet

    path, found = obtain(SQUEEZENET_FILE)
    state = squeezenet.decode(path.read_bytes())
    name = "SqueezeNet 1.0 after Deep Compression"
    if shuffled:
        state, name = squeezenet.shuffle_channels(state), f"{name}, channels shuffled"
    network = squeezenet.SqueezeNet()
    network.load_state_dict(state)
    weights = Weights(name, SQUEEZENET_FILE.url, SQUEEZENET_FILE.sha256, found)
    model = _freeze(Normalize(squeezenet.MEAN, squeezenet.STD), network)
    return _with_photographs(
        "imagenet-shuffled" if shuffled else "imagenet", model, squeezenet.stages(network), weights
    )


def _imagenet_shuffled() -> Specimen:
    """For tests: what leans on the number of a channel breaks here, what is computed does not."""
    return _imagenet(shuffled=True)


def _torchvision(network: str) -> Specimen:
    """Any of torchvision's classifiers with its default weights; `layers` are its outermost modules that convolve."""
    from torchvision import models

    if not isinstance(network, str):
        raise TypeError(f"network must be the name of one of torchvision's classifiers, not {type(network).__name__}")
    known = [name for name in models.list_models(module=models) if name.startswith(_TORCHVISION_FAMILIES)]
    if network not in known:
        raise ValueError(
            f"network {network!r} is not one of torchvision's classifiers that open here: {', '.join(known)}"
        )
    published = models.get_model_weights(network).DEFAULT
    module = models.get_model(network, weights=None)
    if sum(parameter.numel() for parameter in module.parameters()) != published.meta["num_params"]:
        raise ValueError(f"network {network!r}: torchvision's weights belong to another form of it than it builds")
    file = _published_file(published)
    path, found = obtain(file)
    # weights_only, and after the checksum: a pickle from anywhere could run any code.
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    preprocessing = published.transforms()
    weights = Weights(f"{network} {published.name}", file.url, sha256(path.read_bytes()).hexdigest(), found)
    model = _freeze(Normalize(preprocessing.mean, preprocessing.std), module)
    return _with_photographs("imagenet", model, _outermost_convolution_stages(module), weights)


# Others have a second head, no maps of the shape (N, C, H, W), or weights under other keys than the network's own.
_TORCHVISION_FAMILIES = (
    "alexnet",
    "convnext",
    "efficientnet",
    "mobilenet",
    "regnet",
    "resne",
    "squeezenet",
    "vgg",
    "wide",
)


def _published_file(published: Any) -> PublishedFile:
    file_name = published.url.rsplit("/", 1)[-1]
    # torchvision's convention: resnet18-f37072fd.pth ends in the first digits of its sha256.
    return PublishedFile(file_name, published.url, Path(file_name).stem.rsplit("-", 1)[-1])


def _outermost_convolution_stages(network: nn.Module) -> dict[str, nn.Module]:
    def convolves(module: nn.Module) -> bool:
        return any(isinstance(m, nn.Conv2d) for m in module.modules())

    stages: dict[str, nn.Module] = {}
    for name, child in network.named_children():
        if name == "features":
            stages |= {f"features.{i}": m for i, m in child.named_children() if convolves(m)}
        elif convolves(child):
            stages[name] = child
    return stages


def _freeze(normalize: nn.Module, network: nn.Module) -> nn.Sequential:
    model = nn.Sequential(OrderedDict(normalize=normalize, network=network))
    return model.eval().requires_grad_(False)


def _with_photographs(name: str, model: nn.Sequential, layers: Mapping[str, nn.Module], weights: Weights) -> Specimen:
    photographs = _photographs()
    return Specimen(
        name=name,
        model=model,
        categories=tuple(resources.files(__package__).joinpath("imagenet_categories.txt").read_text().splitlines()),
        pictures={picture: tensor.clone() for picture, tensor in photographs.items()},
        truths=_PHOTOGRAPHS_SHOW,
        roles={
            "clear": "cat",
            "two_objects": "cat and coffee",
            "misread": "close-up",
            "texture": "bricks",
            "unknown": "astronaut",
        },
        layers=layers,
        weights=weights,
        _draw=_crops,
        _scenes=_scenes_of_crops,
    )


_CATS = ("tabby", "tiger cat", "Egyptian cat")
_PHOTOGRAPHS_SHOW: Mapping[str, tuple[str, ...]] = {
    "cat": _CATS,
    "coffee": ("espresso", "cup", "coffee mug"),
    "motorcycle": ("moped", "motor scooter"),  # ImageNet has no plain motorcycle; these are its nearest words
    "cat and coffee": (*_CATS, "espresso", "cup", "coffee mug"),
    "close-up": _CATS,
    "rocket": ("missile", "projectile"),  # nor a peaceful rocket
    "bricks": (),
    "astronaut": (),
}


@cache
def _photographs() -> dict[str, Tensor]:
    """Photographs that ship inside scikit-image, cut to the 224 x 224 pixels that ImageNet's networks are used to."""
    from skimage import data

    cat, coffee = data.chelsea(), data.coffee()
    montage = np.concatenate(
        [_cut(coffee, (150, 20, 530, 400), (224, 96)), _cut(cat, (0, 0, 451, 300), (224, 128))], axis=0
    )
    pictures = {
        "cat": _cut(cat, (90, 0, 390, 300)),
        "coffee": _cut(coffee, (100, 0, 500, 400)),
        "motorcycle": _cut(data.stereo_motorcycle()[0], (120, 0, 620, 500)),
        "cat and coffee": montage,
        "close-up": _cut(cat, (125, 90, 275, 240)),
        "rocket": _cut(data.rocket(), (150, 0, 577, 427)),
        "bricks": _cut(data.brick(), (0, 0, 512, 512)),
        "astronaut": _cut(data.astronaut(), (0, 0, 512, 512)),
    }
    return {name: _as_picture(pixels) for name, pixels in pictures.items()}


@cache
def _photographs_to_sample() -> tuple[np.ndarray, ...]:
    """The photographs that ship inside scikit-image and show more than even grey, those in colour first."""
    from skimage import data

    motorcycle_left, motorcycle_right, _ = data.stereo_motorcycle()
    colour = (
        data.astronaut(),
        data.chelsea(),
        data.coffee(),
        data.rocket(),
        motorcycle_left,
        motorcycle_right,
        data.hubble_deep_field(),
        data.immunohistochemistry(),
        data.retina(),
    )
    grey = (data.brick(), data.camera(), data.coins(), data.grass(), data.gravel(), data.text())
    return (*colour, *(np.repeat(picture[:, :, None], 3, axis=2) for picture in grey))


_SCENES = (0, 1, 2, 3, 4, 4, *range(5, 14))  # of the photographs above: the motorcycle is there from two sides


def _scenes_of_crops(count: int) -> Tensor:
    return torch.tensor([_SCENES[number % len(_SCENES)] for number in range(count)])


_SMALLEST_CROP = 100  # pixels; what is enlarged more than about twice is a blur


def _crops(count: int, seed: int) -> Tensor:
    """Square crops of photographs in turns, as ImageNet's networks are trained on: at any scale and place."""
    photographs = _photographs_to_sample()
    pictures = torch.empty(count, 3, 224, 224)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        # Uniform draws of PCG64, picture by picture: the same on every machine, however many are asked for.
        stream = np.random.SeedSequence(seed, spawn_key=(number,))
        scale, down, across, mirror = np.random.Generator(np.random.PCG64(stream)).random(4).tolist()
        height, width = photograph.shape[:2]
        largest = min(height, width)
        smallest = max(_SMALLEST_CROP, largest // 3)
        side = round(smallest * (largest / smallest) ** scale)
        top, left = round(down * (height - side)), round(across * (width - side))
        crop = _cut(photograph, (left, top, left + side, top + side))
        picture = _as_picture(crop)
        pictures[number] = picture.flip(2) if mirror < 0.5 else picture
    return pictures


def _cut(picture: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int] = (224, 224)) -> np.ndarray:
    """The part of a picture within `box` (left, top, right, bottom), resized to cover `size` (width, height)."""
    from PIL import Image, ImageOps

    part = Image.fromarray(picture).convert("RGB").crop(box)
    return np.array(ImageOps.fit(part, size, Image.Resampling.BICUBIC))


def _as_picture(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)


_SPECIMENS: Mapping[str, Callable[[], Specimen]] = {
    "imagenet": _imagenet,
    "shapes": _shapes,
    "shapes-tagged": _shapes_tagged,
    "cifar10": _cifar10,
    "imagenet-shuffled": _imagenet_shuffled,
}
# What stands in for a specimen that cannot be had is `shapes`, which always can.
_USUAL: Mapping[str, Callable[[], Specimen]] = {"imagenet": _imagenet_or_shapes, "cifar10": _cifar10_or_shapes}
