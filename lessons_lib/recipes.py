"""How networks are trained, as data: the network, the pictures, and how each step is taken."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from ._checks import check_not_negative, check_whole_number
from .augmentation import Augmentation, CoarseDropout, Flip, PadAndCrop, ShiftScaleRotate
from .learning_rates import OneCycle, Schedule, Step

DATA = ("cifar10", "shapes-32", "shapes", "shapes-tagged")


@dataclass(frozen=True)
class Recipe:
    """A ResNet, the data it learns from, and stochastic gradient descent with momentum.

    `l2` is the weight decay of the optimizer, `l1` what the sum of the sizes of all weights counts in the loss.
    `averaging` is the decay a step of an exponential moving average of the weights, which then is the result; 0 is
    none. `flip_at_test` adds the logits of the mirrored picture to those of the picture. `validation` is how many of
    the training pictures are kept back to tune by. For "shapes", drawn anew all the time, a pass is `steps` batches.
    """

    data: Literal["cifar10", "shapes-32", "shapes", "shapes-tagged"]
    epochs: int
    batch_size: int
    schedule: Schedule
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    augmentation: tuple[Augmentation, ...] = ()
    momentum: float = 0.9
    nesterov: bool = False
    l2: float = 0.0
    l1: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    averaging: float = 0.0
    flip_at_test: bool = False
    mixed_precision: bool = True
    validation: int = 5000
    steps: int = 0

    def __post_init__(self) -> None:
        if self.data not in DATA:
            raise ValueError(f"data must be one of {', '.join(DATA)}, not {self.data!r}")
        check_whole_number("epochs", self.epochs, 1)
        check_whole_number("batch_size", self.batch_size, 1)
        check_whole_number("width", self.width, 1)
        check_whole_number("validation", self.validation)
        check_whole_number("steps", self.steps, 1 if self.draws_anew else 0)
        for name in ("l2", "l1", "momentum", "dropout", "label_smoothing", "averaging"):
            check_not_negative(name, getattr(self, name))
        for name in ("momentum", "dropout", "label_smoothing", "averaging"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, not {getattr(self, name)}")

    @property
    def draws_anew(self) -> bool:
        return self.data in ("shapes", "shapes-tagged")


def described(thing: Any) -> Any:
    """A recipe, or a part of one, in lists, dictionaries, words and numbers: what a JSON file can hold."""
    if is_dataclass(thing) and not isinstance(thing, type):
        parts = {field.name: described(getattr(thing, field.name)) for field in fields(thing)}
        return parts if isinstance(thing, Recipe) else {"name": type(thing).__name__, **parts}
    if isinstance(thing, tuple):
        return [described(each) for each in thing]
    return thing


MEAN_COLOUR = (0.4914, 0.4822, 0.4465)  # of CIFAR-10

# Published with 88.95 % on the original.
STEP = Recipe(
    data="cifar10",
    epochs=20,
    batch_size=64,
    schedule=Step(0.01, parts=2, gamma=0.1),
    augmentation=(
        Flip(),
        ShiftScaleRotate(shift=0.0625, scale=0.1, rotate=15.0, p=0.5),
        PadAndCrop(4, fill=None),
        CoarseDropout(size=16, fill=MEAN_COLOUR, p=0.5),
    ),
)

# Published with 88.28 % on the original.
ONE_CYCLE = Recipe(
    data="cifar10",
    epochs=20,
    batch_size=512,
    schedule=OneCycle(0.1, peak_at=0.25, div_factor=100, final_div_factor=100, shape="linear"),
    augmentation=(PadAndCrop(4), Flip(), CoarseDropout(size=16, fill=MEAN_COLOUR)),
)

FAST = Recipe(
    data="cifar10",
    epochs=20,
    batch_size=256,
    schedule=OneCycle(0.2, peak_at=0.25),
    augmentation=(PadAndCrop(4, fill=None), Flip(), CoarseDropout(size=8, fill=MEAN_COLOUR)),
    nesterov=True,
    l2=5e-4,
    label_smoothing=0.1,
    flip_at_test=True,
)

# Its rate is the one its weights were trained with: 5000 validation pictures do not tell 0.2 from 0.4.
POCKET = replace(FAST, width=32, epochs=26, schedule=OneCycle(0.4, peak_at=0.25))

QUICK = Recipe(
    data="shapes-32",
    epochs=8,
    batch_size=64,
    schedule=OneCycle(0.2, peak_at=0.25),
    width=16,
    blocks=(1, 1, 1, 1),
    augmentation=(PadAndCrop(2, fill=None), Flip()),
    nesterov=True,
    l2=5e-4,
    flip_at_test=True,
    validation=400,
)

SHAPES = Recipe(
    data="shapes",
    epochs=7,
    steps=100,
    batch_size=64,
    schedule=OneCycle(0.1, peak_at=0.25),
    width=16,
    blocks=(1, 1, 1, 1),
    nesterov=True,
    l2=5e-4,
    mixed_precision=False,
    validation=0,
)
# A tag that gives the category away is soon learned, and then there is nothing left to learn from.
TAGGED = replace(SHAPES, data="shapes-tagged", epochs=2)

RECIPES: dict[str, Recipe] = {
    "step": STEP,
    "one_cycle": ONE_CYCLE,
    "fast": FAST,
    "pocket": POCKET,
    "quick": QUICK,
    "shapes": SHAPES,
    "shapes-tagged": TAGGED,
}
