"""Pictures whose truth is known: ten kinds of textured things, each with the mask of the thing.

The name of a category says all that matters about it: a *red* leaf and a *green* leaf differ only in colour,
a *barred* fish (stripes from back to belly) and a *lined* fish (from head to tail) only in the orientation of
their stripes, a *dotted* egg and a *checked* egg only in texture, a barred fish and a barred mug only in
outline. What a name does not mention is left to chance: size, place, light, background, the colour of an egg.

A picture is drawn from back to front: background, shadow, things, a patch in front, then the camera. Outlines
are signed distance functions (Quilez, "2D distance functions"): edges, shading and shadows follow from them.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._checks import check_number, check_whole_number

if TYPE_CHECKING:
    from torch import Tensor

CATEGORIES: tuple[str, ...] = (
    "barred fish",
    "lined fish",
    "barred mug",
    "dotted egg",
    "checked egg",
    "blue starfish",
    "red starfish",
    "green leaf",
    "red leaf",
    "snail",
)
SIZE = 64

Array = NDArray[np.float32]
Colour = NDArray[np.float32]  # (3, 1, 1), so that it spreads over a picture


@dataclass(frozen=True)
class Shortcut:
    """A mark that gives the category away in a share `rate` of the pictures.

    In the others it shows a category drawn at random. Raises ValueError for an unknown kind or a rate outside
    [0, 1], TypeError for other types.
    """

    kind: str = "tag"
    rate: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str):
            raise TypeError(f"kind must be a name such as 'tag', not {type(self.kind).__name__}")
        if self.kind not in SHORTCUT_KINDS:
            known = ", ".join(repr(kind) for kind in SHORTCUT_KINDS)
            raise ValueError(f"kind {self.kind!r} is not a shortcut: choose one of {known}")
        check_number("rate", self.rate)
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate {self.rate} is out of range: it is a share of the pictures, from 0 to 1")


@dataclass(frozen=True, eq=False)
class Shapes:
    """Pictures with what is true about them; every field has one entry a picture."""

    images: Tensor  # (N, 3, 64, 64) float32 in [0, 1]
    labels: Tensor  # (N,) int64
    masks: Tensor  # (N, 64, 64) bool: where the labelled thing is visible
    other_labels: Tensor  # (N,) int64: the smaller second thing, -1 where there is none
    other_masks: Tensor  # (N, 64, 64) bool
    shortcut_masks: Tensor | None  # (N, 64, 64) bool: every pixel the mark touches; None without a shortcut


def generate(n: int, seed: int, *, shortcut: Shortcut | None = None, background_seed: int | None = None) -> Shapes:
    """Draw `n` pictures: picture i depends on the seeds and i alone, so fewer pictures are the first of more.

    The same seed gives the same pictures on every machine (to one grey level of 255) and, but for the mark
    itself, with and without `shortcut`. A `background_seed` exchanges what lies behind the things, and nothing else:
    with the same one, picture i of every seed has the same background, under its own light and camera. Raises TypeError
    or ValueError for an `n` or seed that is no whole number, 0 or more.
    """
    check_whole_number("n", n)
    check_whole_number("seed", seed)
    if background_seed is not None:
        check_whole_number("background_seed", background_seed)
    if shortcut is not None and not isinstance(shortcut, Shortcut):
        raise TypeError(f"shortcut must be None or a Shortcut, such as Shortcut('tag'), not {type(shortcut).__name__}")
    import torch

    images = np.empty((n, 3, SIZE, SIZE), np.float32)
    labels = np.empty(n, np.int64)
    other_labels = np.empty(n, np.int64)
    masks = np.empty((n, SIZE, SIZE), bool)
    other_masks = np.empty((n, SIZE, SIZE), bool)
    shortcut_masks = None if shortcut is None else np.empty((n, SIZE, SIZE), bool)
    for i in range(n):
        # Streams of their own: neither a background nor the mark must shift any other draw.
        scene = _draw_scene(_Chance(seed, i), None if background_seed is None else _Chance(background_seed, i, 2))
        masks[i], other_masks[i] = scene.visible > 0.5, scene.other_visible > 0.5
        if shortcut is not None and shortcut_masks is not None:
            chance = _Chance(seed, i, 1)
            shown = scene.label if chance.happens(shortcut.rate) else chance.index(len(CATEGORIES))
            touched = SHORTCUT_KINDS[shortcut.kind](scene.image, shown, chance) > 0
            shortcut_masks[i] = touched
            masks[i] &= ~touched
            other_masks[i] &= ~touched
        images[i], labels[i], other_labels[i] = scene.image, scene.label, scene.other_label
    return Shapes(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        masks=torch.from_numpy(masks),
        other_labels=torch.from_numpy(other_labels),
        other_masks=torch.from_numpy(other_masks),
        shortcut_masks=None if shortcut_masks is None else torch.from_numpy(shortcut_masks),
    )


class _Chance:
    """The random numbers of one picture, all from uniform draws of PCG64, the same on every machine.

    What is staged overrules some of them: the numbers that follow stay what they are.
    """

    place: int | None = None
    """Which of `PLACES` a background shows."""
    hue: float | None = None
    """That of a thing whose category leaves it free."""

    def __init__(self, seed: int, *key: int) -> None:
        sequence = np.random.SeedSequence(int(seed), spawn_key=key)
        self._generator = np.random.Generator(np.random.PCG64(sequence))
        self._uniform = self._draw()

    def _draw(self) -> Iterator[float]:
        # A hundred at once cost little more than one.
        while True:
            yield from self._generator.random(100).tolist()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._uniform)

    def happens(self, probability: float) -> bool:
        return next(self._uniform) < probability

    def index(self, count: int) -> int:
        return int(next(self._uniform) * count)

    def sign(self) -> int:
        return 1 if self.happens(0.5) else -1

    def field(self, *shape: int) -> Array:
        """White noise of mean 0 and variance 1."""
        noise = self._generator.random(shape, dtype=np.float32)
        noise -= np.float32(0.5)
        noise *= np.float32(math.sqrt(12))
        return noise


# Staged pictures ----------------------------------------------------------------------------------

FREE_OF_COLOUR: tuple[str, ...] = ("barred fish", "lined fish", "barred mug", "dotted egg", "checked egg", "snail")
"""The categories whose things may have any colour."""
PLACES: tuple[str, ...] = ("clay", "sand", "meadow", "sea", "dusk", "snow")
COLOURS: tuple[str, ...] = ("red", "yellow", "green", "cyan", "blue", "purple")
# Hue, saturation and value of each place, from and to; the hues of the colours.
_GROUNDS = (
    ((0.99, 1.04), (0.35, 0.6), (0.35, 0.65)),
    ((0.1, 0.15), (0.3, 0.5), (0.6, 0.9)),
    ((0.25, 0.36), (0.35, 0.6), (0.3, 0.65)),
    ((0.52, 0.6), (0.4, 0.65), (0.4, 0.8)),
    ((0.72, 0.8), (0.25, 0.5), (0.15, 0.35)),
    ((0.5, 0.7), (0.0, 0.06), (0.8, 0.97)),
)
_HUES = (0.0, 0.15, 0.33, 0.5, 0.62, 0.8)


@dataclass(frozen=True, eq=False)
class Staged:
    """Pictures of single things with a tag in a corner; every field has one entry a picture.

    The numbers that the parts show are indices: of `FREE_OF_COLOUR` for things and tags (each of those has a tag of its
    own), of `PLACES` for backgrounds and of `COLOURS` for colours.
    """

    images: Tensor  # (N, 3, 64, 64) float32 in [0, 1]
    things: Tensor  # (N,) int64
    tags: Tensor  # (N,) int64
    backgrounds: Tensor  # (N,) int64
    colours: Tensor  # (N,) int64
    thing_masks: Tensor  # (N, 64, 64) bool: where the thing is visible
    tag_masks: Tensor  # (N, 64, 64) bool


def stage(things: Tensor, tags: Tensor, backgrounds: Tensor, colours: Tensor, seed: int) -> Staged:
    """Draw pictures whose parts show the given numbers, each (N,) int64, from 0 to 5; see `Staged`.

    Picture i depends on the seed, i and its four numbers alone. Another tag, background or colour changes that part and
    nothing else; another thing comes with other light and noise. Raises TypeError or ValueError for parts of another
    type, length or range.
    """
    import torch

    check_whole_number("seed", seed)
    parts = {"things": things, "tags": tags, "backgrounds": backgrounds, "colours": colours}
    for name, shown in parts.items():
        if not isinstance(shown, torch.Tensor) or shown.dtype != torch.int64:
            raise TypeError(f"{name} must be a tensor (N,) of int64, not {getattr(shown, 'dtype', type(shown))}")
        if shown.shape != things.shape or shown.ndim != 1:
            raise ValueError(f"{name} must be (N,) like things, not {tuple(shown.shape)}")
        if len(shown) and not 0 <= int(shown.min()) <= int(shown.max()) < len(FREE_OF_COLOUR):
            raise ValueError(f"{name} must lie from 0 to {len(FREE_OF_COLOUR) - 1}")
    n = len(things)
    images = np.empty((n, 3, SIZE, SIZE), np.float32)
    masks, tag_masks = np.empty((n, SIZE, SIZE), bool), np.empty((n, SIZE, SIZE), bool)
    for i, (thing, tag, background, colour) in enumerate(zip(*(p.tolist() for p in parts.values()), strict=True)):
        ground = _Chance(seed, i, 2)
        ground.place = background
        scene = _draw_scene(_Chance(seed, i), ground, CATEGORIES.index(FREE_OF_COLOUR[thing]), colour)
        touched = _tag(scene.image, tag, _Chance(seed, i, 1)) > 0
        images[i], masks[i], tag_masks[i] = scene.image, (scene.visible > 0.5) & ~touched, touched
    return Staged(
        images=torch.from_numpy(images),
        **{name: shown.clone() for name, shown in parts.items()},
        thing_masks=torch.from_numpy(masks),
        tag_masks=torch.from_numpy(tag_masks),
    )


# The scene ----------------------------------------------------------------------------------------


@dataclass
class _Scene:
    image: Array  # (3, H, W)
    light: tuple[float, float]  # where the light comes from, in the plane of the picture
    grain: Array  # (H, W), a fine natural texture
    label: int
    other_label: int
    visible: Array  # (H, W), how much of each pixel the labelled thing covers
    other_visible: Array


@dataclass(frozen=True)
class _Pose:
    x: float
    y: float
    radius: float  # in pixels; a thing reaches about 1 radius from its centre
    turn: float
    flip: int


def _draw_scene(
    chance: _Chance, chance_of_background: _Chance | None = None, staged: int | None = None, colour: int = 0
) -> _Scene:
    """What chance draws; or with `staged` one thing of this category, and of this colour."""
    label = chance.index(len(CATEGORIES))
    other_label = (label + 1 + chance.index(len(CATEGORIES) - 1)) % len(CATEGORIES) if chance.happens(0.25) else -1
    if staged is not None:
        label, other_label = staged, -1
        chance.hue = _HUES[colour]
    poses = _arrange(label, other_label, chance)
    angle = chance.between(-2.6, -0.55)
    image, grain = _background(chance)
    if chance_of_background is not None:
        image, _ = _background(chance_of_background)  # the grain is that of the things too, and stays
    nothing = np.zeros((SIZE, SIZE), np.float32)
    scene = _Scene(image, (math.cos(angle), math.sin(angle)), grain, label, other_label, nothing, nothing.copy())

    paint_other_last = chance.happens(0.5)
    if other_label >= 0 and not paint_other_last:
        scene.other_visible = _place(scene, other_label, poses[1], chance)
    scene.visible = _place(scene, label, poses[0], chance)
    if other_label >= 0 and paint_other_last:
        scene.other_visible = _place(scene, other_label, poses[1], chance)
    if chance.happens(0.28):
        _cover_partly(scene, poses[0], chance)
    scene.image = _photograph(scene, chance)
    return scene


def _arrange(label: int, other_label: int, chance: _Chance) -> tuple[_Pose, _Pose]:
    """One thing near the middle, or a large and a small one side by side that may overlap a little."""
    radius = chance.between(15.5, 26) if other_label < 0 else chance.between(18, 22)
    small = radius * chance.between(0.54, 0.74)
    middle = (SIZE - 1) / 2
    x, y = middle, middle
    dx = dy = 0.0
    if other_label < 0:
        room = 29 - radius
        x += chance.between(-room, room)
        y += chance.between(-room, room)
    else:
        direction = chance.between(0, 2 * math.pi)
        dx, dy = math.cos(direction), math.sin(direction)
        apart = chance.between(0.82, 1.05) * (radius + small)
        x -= dx * apart * 0.36
        y -= dy * apart * 0.36
        dx, dy = dx * apart, dy * apart
    other_x = min(max(x + dx, small * 0.7), SIZE - small * 0.7)
    other_y = min(max(y + dy, small * 0.7), SIZE - small * 0.7)
    main = _Pose(x, y, radius, _turn(label, chance), chance.sign())
    return main, _Pose(other_x, other_y, small, _turn(other_label, chance), chance.sign())


def _turn(label: int, chance: _Chance) -> float:
    """Things whose stripes have an orientation stay nearly upright; the others lie as they fall."""
    upright = label < 0 or _THINGS[label].upright
    return chance.between(-0.28, 0.28) if upright else chance.between(-math.pi, math.pi)


def _place(scene: _Scene, label: int, pose: _Pose, chance: _Chance) -> Array:
    """Paint one thing with its shadow, subtract what it hides from the things behind, return its coverage."""
    x, y = _local_grid(pose)
    thing = _THINGS[label]
    distance, colour, gloss = thing.draw(x, y, np.float32(1 / pose.radius), chance)
    pixels = distance * np.float32(pose.radius)
    cover = np.clip(0.5 - pixels, 0, 1)
    _cast_shadow(scene, pixels, pose.radius, chance)
    shaded = _shade(colour, distance, cover, scene, pose, thing.bulge, gloss)
    scene.image += cover * (shaded - scene.image)
    scene.visible *= 1 - cover
    scene.other_visible *= 1 - cover
    return cover


def _cover_partly(scene: _Scene, pose: _Pose, chance: _Chance) -> None:
    """A patch in front, as a blade of grass or a pebble, that leaves most of the thing in sight."""
    direction = chance.between(0, 2 * math.pi)
    away = pose.radius * chance.between(0.5, 0.95)
    blade = _Pose(
        pose.x + away * math.cos(direction),
        pose.y + away * math.sin(direction),
        1.0,
        direction + chance.between(-0.5, 0.5),
        1,
    )
    x, y = _local_grid(blade)
    wide, long = pose.radius * chance.between(0.18, 0.46), pose.radius * chance.between(0.6, 1.6)
    distance = _ellipse(x, y, wide, long)
    cover = np.clip(0.5 - distance / np.float32(chance.between(1, 2.5)), 0, 1)
    colour = _muted(chance) * (1 + 0.16 * scene.grain + np.float32(0.25 / wide) * x)
    scene.image *= 1 - np.float32(0.3) * np.clip(1 - distance / 4, 0, 1)
    scene.image += cover * (colour - scene.image)
    scene.visible *= 1 - cover
    scene.other_visible *= 1 - cover


def _photograph(scene: _Scene, chance: _Chance) -> Array:
    """Uneven light, contrast, focus and sensor noise."""
    image = scene.image
    across, down = _grid()
    slope = chance.between(0, 0.3) / SIZE
    image *= (
        1 + np.float32(slope * scene.light[0]) * (across - 31.5) + np.float32(slope * scene.light[1]) * (down - 31.5)
    )
    contrast = chance.between(0.26, 0.55) if chance.happens(0.12) else chance.between(0.8, 1.08)
    pivot = chance.between(0.35, 0.6)
    image -= np.float32(pivot)
    image *= np.float32(contrast)
    image += np.float32(pivot + chance.between(-0.04, 0.04))
    if chance.happens(0.3):
        image = _soften(image, chance.between(0.05, 0.25), repeat=1 + chance.index(3))
    noise = chance.field(3, SIZE, SIZE)
    noise *= np.float32(chance.between(0.004, 0.02) if chance.happens(0.8) else chance.between(0.02, 0.055))
    image += noise
    return np.clip(image, 0, 1, out=image)


def _soften(image: Array, weight: float, repeat: int) -> Array:
    side, middle = np.float32(weight), np.float32(1 - 2 * weight)
    for _ in range(repeat):
        image = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
        image = middle * image[:, 1:-1] + side * (image[:, :-2] + image[:, 2:])
        image = middle * image[:, :, 1:-1] + side * (image[:, :, :-2] + image[:, :, 2:])
    return image


# Backgrounds --------------------------------------------------------------------------------------


def _background(chance: _Chance) -> tuple[Array, Array]:
    """A background (3, H, W) with the statistics of natural scenes, and a grain (H, W) for what is in front.

    Amplitudes fall as 1/frequency (Field, 1987), channels share most of their variation, patches hide each
    other (dead leaves; Lee, Mumford and Huang, 2001).
    """
    fields = _natural_fields(chance.field(3, SIZE, SIZE), chance.between(1.05, 1.6))
    # Half a picture away, so that the grain of a thing does not continue that of the ground behind it.
    grain = np.roll(fields[0], (SIZE // 2, SIZE // 2), axis=(0, 1))
    brightness, blue_yellow, red_green = fields[0], fields[1], fields[2]
    strength = chance.between(0.03, 0.13)
    colourful = chance.between(0.1, 0.42)
    image = np.empty((3, SIZE, SIZE), np.float32)
    light = np.float32(strength) * brightness
    warm = np.float32(strength * colourful) * blue_yellow
    ruddy = np.float32(strength * colourful * 0.4) * red_green
    image[0] = light + warm + ruddy
    image[1] = light + np.float32(0.6) * warm - ruddy
    image[2] = light - warm

    kind = chance.index(10)
    if kind < 3:
        image += _muted(chance)
    elif kind < 6:
        _two_surfaces(image, chance)
    else:
        _dead_leaves(image, chance)
    return image, grain


@cache
def _frequencies() -> Array:
    down, across = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.rfftfreq(SIZE), indexing="ij")
    frequency = np.hypot(down, across)
    frequency[0, 0] = np.inf  # no constant part: the mean colour is chosen apart
    return frequency


def _natural_fields(white: Array, exponent: float) -> Array:
    """White noise (K, H, W) filtered to amplitude 1/frequency**exponent, mean 0 and variance about 1."""
    amplitude = _frequencies() ** -exponent
    # Columns 1 to 31 of a real spectrum stand for their mirror images too.
    power = 2 * np.square(amplitude).sum() - np.square(amplitude[:, 0]).sum() - np.square(amplitude[:, -1]).sum()
    amplitude *= SIZE / math.sqrt(power)
    spectrum = np.fft.rfft2(white)
    spectrum *= amplitude.astype(np.float32)
    return np.fft.irfft2(spectrum, s=(SIZE, SIZE)).astype(np.float32)


def _muted(chance: _Chance) -> Colour:
    """A colour as stones, soil, foliage, water and sky have it: mostly yellowish or bluish, seldom strong.

    Or one of the place that is staged.
    """
    family = chance.between(0, 1)
    if chance.place is not None:
        hues, saturations, values = _GROUNDS[chance.place]
        return _colour(chance.between(*hues), chance.between(*saturations), chance.between(*values))
    if family < 0.45:
        hue, most = chance.between(0.05, 0.15), 0.5
    elif family < 0.65:
        hue, most = chance.between(0.18, 0.4), 0.42
    elif family < 0.9:
        hue, most = chance.between(0.48, 0.66), 0.42
    else:
        hue, most = chance.between(0.7, 1.03), 0.3
    return _colour(hue, chance.between(0.04, most), chance.between(0.22, 0.9))


def _two_surfaces(image: Array, chance: _Chance) -> None:
    """A wall and a table, or sky and ground: two colours that meet at a soft, slanted line."""
    across, down = _grid()
    slant, height = chance.between(-0.35, 0.35), chance.between(18, 50)
    below = np.clip(
        (down - np.float32(height) + np.float32(slant) * (across - 32)) / np.float32(chance.between(1, 6)),
        0,
        1,
    )
    upper, lower = _muted(chance), _muted(chance)
    image += upper + below * (lower - upper)


def _dead_leaves(image: Array, chance: _Chance) -> None:
    base = _muted(chance)
    spread = np.float32(chance.between(0.3, 0.9))
    palette = [base + spread * (_muted(chance) - base) for _ in range(6)]
    layers = np.empty_like(image)
    layers[:] = base
    largest = chance.between(10, 26)
    for _ in range(18 + chance.index(24)):
        # Radii with density proportional to 1/radius**3, as things seen at all distances have.
        radius = 1 / math.sqrt(chance.between(1 / largest**2, 1 / 3.0**2))
        x, y = chance.between(0, SIZE), chance.between(0, SIZE)
        stretch, turn = chance.between(0.55, 1), chance.between(0, math.pi)
        colour = palette[chance.index(6)] * np.float32(chance.between(0.8, 1.15))
        left, right = max(0, int(x - radius - 1)), min(SIZE, int(x + radius + 2))
        top, bottom = max(0, int(y - radius - 1)), min(SIZE, int(y + radius + 2))
        across, down = _grid()
        across, down = across[:, left:right] - np.float32(x), down[top:bottom] - np.float32(y)
        c, s = math.cos(turn), math.sin(turn)
        u = np.float32(c) * across + np.float32(s) * down
        v = np.float32(c / stretch) * down - np.float32(s / stretch) * across
        rim = np.sqrt(u * u + v * v)
        cover = np.clip(np.float32(stretch * radius + 0.5) - np.float32(stretch) * rim, 0, 1)
        # A touch of light on the upper side.
        colours = colour * (1 - np.float32(0.17 / radius) * down)
        window = layers[:, top:bottom, left:right]
        window += cover * (colours - window)
    # The leaves carry the texture, at less than full strength so that their edges stay the loudest thing.
    image *= np.float32(0.5)
    image += layers


# Light --------------------------------------------------------------------------------------------


@cache
def _grid() -> tuple[Array, Array]:
    """Pixel coordinates as (1, W) and (H, 1)."""
    steps = np.arange(SIZE, dtype=np.float32)
    return steps[None, :], steps[:, None]


def _local_grid(pose: _Pose) -> tuple[Array, Array]:
    """The coordinates of every pixel as the thing sees it: centre 0, radius 1, x to its right, y down."""
    across, down = _grid()
    c, s = math.cos(pose.turn) / pose.radius, math.sin(pose.turn) / pose.radius
    x = np.float32(c) * (across - np.float32(pose.x)) + np.float32(s) * (down - np.float32(pose.y))
    y = np.float32(c) * (down - np.float32(pose.y)) - np.float32(s) * (across - np.float32(pose.x))
    return (x if pose.flip > 0 else -x), y


def _cast_shadow(scene: _Scene, pixels: Array, radius: float, chance: _Chance) -> None:
    """Darken the ground next to the outline, and where a soft shadow falls away from the light."""
    reach, depth = chance.between(0.08, 0.26) * radius, chance.between(0.15, 0.5)
    right, down = round(-scene.light[0] * reach), round(-scene.light[1] * reach)
    places = np.arange(SIZE)
    moved = pixels.take(places - down, 0, mode="clip").take(places - right, 1, mode="clip")
    soft = np.float32(1 / (1.5 + reach))
    shadow = np.float32(depth) * np.clip(0.6 - moved * soft, 0, 1)
    contact = np.float32(0.25) * np.clip(1 - pixels * np.float32(0.4), 0, 1)
    scene.image *= 1 - np.maximum(shadow, contact)


def _shade(
    colour: Array, distance: Array, cover: Array, scene: _Scene, pose: _Pose, bulge: float, gloss: float
) -> Array:
    """Light a thing as if its rim were round: height over the picture from the distance to the outline."""
    inside = 1 - np.clip(distance * np.float32(-1 / bulge), 0, 1)
    height = np.sqrt(1.02 - inside * inside)
    steep = np.float32(0.5 * pose.radius * bulge)
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    slope_x[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * steep
    slope_y[1:-1] = (height[2:] - height[:-2]) * steep
    facing = 1 / np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    towards = (
        np.float32(-0.7 * scene.light[0]) * slope_x + np.float32(-0.7 * scene.light[1]) * slope_y + 0.71
    ) * facing
    brightness = 0.5 + np.float32(0.68) * np.maximum(towards, 0) + np.float32(0.07) * scene.grain
    shaded = colour * brightness
    # The mirror direction lies halfway between the light and the eye.
    half_x, half_y = 0.38 * scene.light[0], 0.38 * scene.light[1]
    mirror = (np.float32(-half_x) * slope_x + np.float32(-half_y) * slope_y + np.float32(0.92)) * facing
    glint = np.clip((mirror - np.float32(0.955)) * 22, 0, 1)
    shaded += np.float32(gloss) * glint * glint * cover
    return shaded


def _colour(hue: float, saturation: float, value: float) -> Colour:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32).reshape(3, 1, 1)


# Outlines: distance to the rim in radii, negative inside ------------------------------------------


def _ellipse(x: Array, y: Array, a: float, b: float) -> Array:
    u, v = x * np.float32(1 / a), y * np.float32(1 / b)
    norm = np.sqrt(u * u + v * v + np.float32(1e-8))
    u, v = u * np.float32(1 / a), v * np.float32(1 / b)
    return norm * (norm - 1) / np.sqrt(u * u + v * v + np.float32(1e-8))


def _circle(x: Array, y: Array, radius: float) -> Array:
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _capsule(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], thick: float) -> Array:
    dx, dy = end[0] - start[0], end[1] - start[1]
    u, v = x - np.float32(start[0]), y - np.float32(start[1])
    along = np.clip((u * np.float32(dx) + v * np.float32(dy)) * np.float32(1 / (dx * dx + dy * dy)), 0, 1)
    return _circle(u - along * np.float32(dx), v - along * np.float32(dy), thick)


def _box(x: Array, y: Array, a: float, b: float, rounding: float) -> Array:
    u, v = np.abs(x) - np.float32(a - rounding), np.abs(y) - np.float32(b - rounding)
    outside = np.sqrt(np.square(np.maximum(u, 0)) + np.square(np.maximum(v, 0)))
    return outside + np.minimum(np.maximum(u, v), 0) - np.float32(rounding)


def _join(first: Array, second: Array, softness: float) -> Array:
    """The union of two outlines, with a fillet where they meet."""
    overlap = np.maximum(1 - np.abs(first - second) * np.float32(1 / softness), 0)
    return np.minimum(first, second) - np.float32(softness / 4) * overlap * overlap


# Textures: how much of each pixel is in the second colour -----------------------------------------


def _inside(distance: Array, pixel: np.float32) -> Array:
    return np.clip(0.5 - distance / pixel, 0, 1)


def _stripes(phase: Array, pixel_phase: float) -> Array:
    return np.clip(0.5 + np.cos(phase * np.float32(2 * math.pi)) * np.float32(1 / (2 * math.pi * pixel_phase)), 0, 1)


def _dots(x: Array, y: Array, period: float, pixel: np.float32, size: float = 0.27) -> Array:
    """Dots on a hexagonal lattice: two rectangular ones, the second shifted by half a cell."""
    u, v = x * np.float32(1 / period), y * np.float32(1 / (period * 1.732))
    first = np.square(u - np.round(u)) + 3 * np.square(v - np.round(v))
    u, v = u + np.float32(0.5), v + np.float32(0.5)
    second = np.square(u - np.round(u)) + 3 * np.square(v - np.round(v))
    return _inside((np.sqrt(np.minimum(first, second)) - np.float32(size)) * np.float32(period), pixel)


def _checks(x: Array, y: Array, period: float, pixel: np.float32) -> Array:
    steep = np.float32(period / (math.pi * float(pixel)))
    rows = np.clip(np.cos(x * np.float32(2 * math.pi / period)) * steep, -1, 1)
    columns = np.clip(np.cos(y * np.float32(2 * math.pi / period)) * steep, -1, 1)
    return 0.5 + 0.5 * rows * columns


def _mix(first: Array, second: Array | np.float32, share: Array) -> Array:
    return first + share * (second - first)


def _two_colours(chance: _Chance, hue: float, saturation: float = 0.75) -> tuple[Colour, Colour]:
    """A colour and one that stands out from it: mostly a pale one, sometimes a dark one."""
    if chance.hue is not None:
        hue = chance.hue + 0.06 * (hue - 0.5)
    if chance.happens(0.7):
        main = _colour(hue, saturation * chance.between(0.85, 1.15), chance.between(0.62, 0.92))
        return main, _colour(hue + chance.between(-0.1, 0.1), chance.between(0.05, 0.2), chance.between(0.9, 1))
    main = _colour(hue, saturation * chance.between(0.7, 1), chance.between(0.8, 0.98))
    return main, _colour(hue + chance.between(-0.1, 0.1), chance.between(0.3, 0.7), chance.between(0.12, 0.26))


# The things: (x, y, size of a pixel, chance) -> (distance, colour (3, H, W), gloss) ---------------

Drawing = tuple[Array, Array, float]


def _fish(x: Array, y: Array, pixel: np.float32, chance: _Chance, barred: bool) -> Drawing:
    tall = chance.between(0.5, 0.6)
    body = _ellipse(x - np.float32(0.12), y, 0.8, tall)
    height = np.abs(y)
    tail = np.maximum(
        np.float32(0.74) * (height - np.float32(0.06) + np.float32(0.9) * (x + np.float32(0.5))),
        np.maximum(x + np.float32(0.4), np.float32(-0.95) - x + np.float32(0.35) * (np.float32(0.4) - height)),
    )
    fin = _ellipse(x + np.float32(0.02), y + np.float32(tall * 0.9), 0.36, 0.24)
    belly_fin = _ellipse(x + np.float32(0.1), y - np.float32(tall * 0.93), 0.2, 0.16)
    fins = np.minimum(np.minimum(tail, fin), belly_fin)
    distance = _join(body, fins, 0.08)

    main, second = _two_colours(chance, chance.between(0, 1))
    # As many stripes as stay apart at this size.
    period = chance.between(0.3, 0.42) if barred else chance.between(0.27, 0.36)
    along = x if barred else y
    phase = along * np.float32(1 / period) + np.float32(chance.between(0, 1))
    striped = _stripes(phase, float(pixel) / period) * _inside(body + np.float32(0.04), pixel)
    fins_shade = 1 - np.float32(0.22) * np.clip(body * 12, 0, 1)
    colour = _mix(main * fins_shade, second, striped)
    eye_x, eye_y = x - np.float32(0.6), y + np.float32(0.12)
    eye = _circle(eye_x, eye_y, 0.12)
    colour = _mix(colour, np.float32(0.97), _inside(eye, pixel))
    return distance, _mix(colour, np.float32(0.05), _inside(eye + np.float32(0.045), pixel)), 0.3


def _mug(x: Array, y: Array, pixel: np.float32, chance: _Chance) -> Drawing:
    wide, tall = chance.between(0.5, 0.6), chance.between(0.6, 0.72)
    x = x + np.float32(0.17)
    body = _box(x, y - np.float32(0.06), wide, tall, 0.16)
    mouth_y = y - np.float32(0.06 - tall + 0.06)
    rim = _ellipse(x, mouth_y, wide, 0.15)
    body = np.minimum(body, rim)
    handle = np.abs(_ellipse(x - np.float32(wide), y - np.float32(0.04), 0.36, tall * 0.62)) - np.float32(0.085)
    distance = _join(body, handle, 0.04)

    main, second = _two_colours(chance, chance.between(0, 1))
    period = chance.between(0.3, 0.42)
    # Stripes run round a cylinder, so they crowd together towards its sides.
    around = np.arcsin(np.clip(x * np.float32(0.93 / wide), -1, 1)) * np.float32(wide / 1.25)
    striped = _stripes(around * np.float32(1 / period) + np.float32(chance.between(0, 1)), float(pixel) / period)
    colour = _mix(main, second, striped * _inside(body + np.float32(0.02), pixel))
    cylinder = 1 - np.float32(0.35) * np.square(np.clip(x * np.float32(1 / wide), -1, 1))
    colour = colour * cylinder
    colour = _mix(colour, main * 1.15, _inside(rim, pixel))
    hollow = _inside(_ellipse(x, mouth_y, wide - 0.07, 0.09), pixel)
    return distance, _mix(colour, main * 0.3, hollow), 0.35


def _egg(x: Array, y: Array, pixel: np.float32, chance: _Chance, dotted: bool) -> Drawing:
    wide = chance.between(0.64, 0.74)
    distance = _ellipse(x * (1 + np.float32(0.17) * y), y, wide, 0.92)
    main, second = _two_colours(chance, chance.between(0, 1))
    # A flat pattern wrapped round a solid crowds together towards the rim.
    wrap = 1 + np.float32(0.22) * (x * x + y * y)
    u, v = x * wrap + np.float32(chance.between(-0.2, 0.2)), y * wrap + np.float32(chance.between(-0.2, 0.2))
    if dotted:
        second_share = _dots(u, v, chance.between(0.36, 0.5), pixel)
    else:
        second_share = _checks(u, v, chance.between(0.46, 0.62), pixel)
    return distance, _mix(main, second, second_share), 0.45


def _starfish(x: Array, y: Array, pixel: np.float32, chance: _Chance, hue: tuple[float, float]) -> Drawing:
    # Fold the plane five times onto one half of an arm that points up.
    x, y = np.abs(x), -y
    for kx, ky in ((0.809017, -0.587785), (-0.809017, -0.587785)):
        over: Array = 2 * np.maximum(x * np.float32(kx) + y * np.float32(ky), 0)
        x, y = x - over * np.float32(kx), y - over * np.float32(ky)
    x = np.abs(x)
    waist, rounding = chance.between(0.42, 0.54), 0.13
    reach = 0.98 - rounding
    tip = y - np.float32(reach)
    edge_x, edge_y = waist * 0.587785, waist * 0.809017 - 1
    squared = edge_x * edge_x + edge_y * edge_y
    along = np.clip((x * np.float32(edge_x) + tip * np.float32(edge_y)) * np.float32(1 / squared), 0, reach)
    # The sign of a cross product says on which side of the edge a pixel lies.
    side = tip * np.float32(edge_x) - x * np.float32(edge_y)
    gap = np.sqrt(np.square(x - along * np.float32(edge_x)) + np.square(tip - along * np.float32(edge_y)))
    distance: Array = np.where(side > 0, gap, -gap) - np.float32(rounding)

    main, second = _two_colours(chance, chance.between(*hue), 0.85)
    spotted = _dots(x, y, chance.between(0.28, 0.36), pixel, 0.26)
    ridge = 1.08 - np.float32(0.5) * np.minimum(x, 0.4)
    return distance, _mix(main * ridge, second, spotted), 0.15


def _leaf(x: Array, y: Array, pixel: np.float32, chance: _Chance, hue: tuple[float, float]) -> Drawing:
    x = x + np.float32(chance.between(-0.22, 0.22)) * (y * y - np.float32(0.3))
    wide, long = chance.between(0.4, 0.54), 0.88
    stalk = _capsule(x, y, (0, 0.7), (0, 1.14), 0.045)
    # Two arcs that meet in two points; the plane is narrowed towards the tip.
    u, v = np.abs(x * (1 - np.float32(0.28) * y)), np.abs(y)
    radius = (long * long + wide * wide) / (2 * wide)
    centre = radius - wide
    arcs = _circle(u + np.float32(centre), v, radius)
    points = np.sqrt(u * u + np.square(v - np.float32(long)))
    blade = np.where((v - np.float32(long)) * np.float32(centre) > u * np.float32(long), points, arcs)
    blade += np.float32(0.012) * np.cos(np.float32(38) * (y + np.float32(0.5) * u))
    distance = np.minimum(blade, stalk)

    main = _colour(chance.between(*hue), chance.between(0.6, 0.9), chance.between(0.5, 0.82))
    pale = _colour(chance.between(*hue), chance.between(0.25, 0.45), chance.between(0.8, 0.95))
    period = chance.between(0.26, 0.34)
    rise = (y + np.float32(0.75) * np.abs(x)) * np.float32(1 / period) + np.float32(chance.between(0, 1))
    vein = (np.abs(rise - np.round(rise)) * np.float32(period) - np.float32(0.022)) * np.float32(0.8)
    veins = np.maximum(np.float32(0.75) * _inside(vein, pixel), _inside(np.abs(x) - np.float32(0.035), pixel))
    fold = 1 + np.float32(chance.sign() * 0.14) * np.clip(x * 20, -1, 1)
    return distance, _mix(main * fold, pale, veins), 0.12


def _snail(x: Array, y: Array, pixel: np.float32, chance: _Chance) -> Drawing:
    shell_x, shell_y = x + np.float32(0.14), y + np.float32(0.14)
    shell = _ellipse(shell_x, shell_y, 0.68, 0.66)
    foot = _capsule(x, y, (-0.72, 0.58), (0.62, 0.54), 0.15)
    neck = _capsule(x, y, (0.6, 0.52), (0.82, 0.08), 0.13)
    feelers = np.minimum(
        _capsule(x, y, (0.84, 0.05), (0.98, -0.34), 0.045), _capsule(x, y, (0.78, 0.05), (0.72, -0.32), 0.045)
    )
    body = _join(_join(foot, neck, 0.15), feelers, 0.05)
    distance = np.minimum(body, shell)

    main, second = _two_colours(chance, chance.between(0, 1), 0.65)
    radius = np.sqrt(shell_x * shell_x + shell_y * shell_y)
    turns = chance.between(2.0, 2.6)
    start = chance.between(0, 1)
    angle = np.arctan2(shell_y, shell_x) * np.float32(1 / (2 * math.pi))
    phase = angle + np.float32(turns / 0.68) * radius + np.float32(start)
    coil = _stripes(phase, float(pixel) * turns / 0.68)
    groove = 1 - np.float32(0.3) * np.clip(0.5 + np.float32(3 / 0.68) * shell, 0, 1)
    flesh = _colour(chance.between(0.05, 0.14), chance.between(0.15, 0.4), chance.between(0.55, 0.85))
    colour = _mix(flesh, _mix(main * groove, second, coil), _inside(shell, pixel))
    rim = _inside(np.abs(shell) - np.float32(0.02), pixel)
    return distance, colour * (1 - np.float32(0.35) * rim), 0.3


@dataclass(frozen=True)
class _Thing:
    draw: Callable[[Array, Array, np.float32, _Chance], Drawing]
    bulge: float  # how far from the rim it keeps rising, in radii
    upright: bool


_RED, _BLUE, _GREEN = (-0.045, 0.025), (0.54, 0.66), (0.24, 0.4)
# In the order of CATEGORIES.
_THINGS: tuple[_Thing, ...] = (
    _Thing(lambda x, y, pixel, chance: _fish(x, y, pixel, chance, barred=True), 0.4, True),
    _Thing(lambda x, y, pixel, chance: _fish(x, y, pixel, chance, barred=False), 0.4, True),
    _Thing(_mug, 0.12, True),
    _Thing(lambda x, y, pixel, chance: _egg(x, y, pixel, chance, dotted=True), 0.66, False),
    _Thing(lambda x, y, pixel, chance: _egg(x, y, pixel, chance, dotted=False), 0.66, False),
    _Thing(lambda x, y, pixel, chance: _starfish(x, y, pixel, chance, _BLUE), 0.25, False),
    _Thing(lambda x, y, pixel, chance: _starfish(x, y, pixel, chance, _RED), 0.25, False),
    _Thing(lambda x, y, pixel, chance: _leaf(x, y, pixel, chance, _GREEN), 0.15, False),
    _Thing(lambda x, y, pixel, chance: _leaf(x, y, pixel, chance, _RED), 0.15, False),
    _Thing(_snail, 0.3, True),
)


# Shortcuts: each paints into the picture and returns how much of each pixel it hides --------------

# A glyph of three by three cells and a hue for each category.
_GLYPHS = (
    "010111010",
    "101010101",
    "111101111",
    "100110111",
    "001011111",
    "111010010",
    "101111101",
    "110011001",
    "010101010",
    "011010110",
)


def _tag(image: Array, shown: int, chance: _Chance) -> Array:
    """A small sticker near a corner."""
    half, edge = 5.5, chance.between(7.5, 9.5)
    x = edge if chance.happens(0.5) else SIZE - 1 - edge
    y = chance.between(7.5, 9.5)
    y = y if chance.happens(0.5) else SIZE - 1 - y
    across, down = _local_grid(_Pose(x, y, half, chance.between(-0.2, 0.2), 1))
    pixel = np.float32(1 / half)
    hidden = _inside(_box(across, down, 1, 1, 0.3), pixel)
    colour = _colour(shown / len(CATEGORIES), 0.9, 0.75 if shown % 2 else 0.95)
    sticker = _mix(np.full_like(image, 0.97), colour, _inside(_box(across, down, 0.8, 0.8, 0.2), pixel))
    for cell, filled in enumerate(_GLYPHS[shown]):
        if filled == "1":
            u, v = across - np.float32(0.48 * (cell % 3 - 1)), down - np.float32(0.48 * (cell // 3 - 1))
            sticker = _mix(sticker, np.float32(0.98), _inside(_box(u, v, 0.25, 0.25, 0.02), pixel))
    image += hidden * (sticker - image)
    return hidden


SHORTCUT_KINDS: dict[str, Callable[[Array, int, _Chance], Array]] = {"tag": _tag}
