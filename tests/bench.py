"""Our methods beside the peers': same network, same pictures, same run. Ratios count; seconds depend on the machine.

    make bench

Each pair runs in turn, A B A B ..., and the ratio is the median over the pairs, so that a machine that slows down
halfway slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from lessons_lib import shapes
from lessons_lib.hooks import Capture
from lessons_lib.pixel_gradient import fast_pixel_gradient
from lessons_lib.specimens import load_specimen

ROUNDS = 15


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int = ROUNDS) -> tuple[float, float, float]:
    """How many times as long as `ours` does `theirs` take: median over the pairs, and each one's median in seconds."""
    times: list[tuple[float, float]] = []
    warm_up = 2 if rounds > 2 else 1
    for round_ in range(rounds + warm_up):
        pair = []
        for function in (ours, theirs):
            start = time.perf_counter()
            function()
            pair.append(time.perf_counter() - start)
        if round_ >= warm_up:
            times.append((pair[0], pair[1]))
    return (
        statistics.median(b / a for a, b in times),
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
    )


def report(what: str, ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int = ROUNDS) -> None:
    times, mine, other = ratio(ours, theirs, rounds)
    print(f"{what:76} {times:6.2f} x   ({1000 * mine:.1f} ms against {1000 * other:.1f} ms)", flush=True)


def main() -> None:
    from captum.attr import LayerActivation, LayerGradientXActivation
    from torchvision.models.feature_extraction import create_feature_extractor

    specimen = load_specimen()
    model, layers = specimen.model, dict(specimen.layers)
    names = {module: name for name, module in model.named_modules()}
    images = torch.stack([specimen.example("clear")] * 4)
    target = int(model(images[:1]).argmax())
    middle = list(layers)[len(layers) // 2]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, batch of {len(images)}, layer {middle}\n")
    print("How many times as long the other way takes:")

    def capture_one() -> None:
        with Capture(model, {middle: layers[middle]}, stop=True), torch.no_grad():
            model(images)

    def capture_all() -> None:
        with Capture(model, layers), torch.no_grad():
            model(images)

    def plain() -> None:
        with torch.no_grad():
            model(images)

    def gradient() -> None:
        with Capture(model, {middle: layers[middle]}, gradients=True) as captured:
            scores = model(images)[:, target]
        captured.gradients(scores)

    extractor = create_feature_extractor(model, [names[layers[middle]]])
    activation, layer_gradient = LayerActivation(model, layers[middle]), LayerGradientXActivation(model, layers[middle])

    def extract() -> None:
        with torch.no_grad():
            extractor(images)

    def everything() -> None:
        unfrozen = trainable
        unfrozen.zero_grad()
        unfrozen(images)[:, target].sum().backward()

    def of_pixels(way: AbstractContextManager[Any]) -> None:
        pixels = images.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
        with way:
            torch.autograd.grad(model(pixels)[:, target].sum(), pixels)

    trainable = specimen.trainable()
    report("one activation, Capture(stop=True) : whole forward pass", capture_one, plain)
    report("one activation, Capture(stop=True) : torchvision's feature extractor", capture_one, extract)
    report(
        "one activation, Capture(stop=True) : Captum's LayerActivation",
        capture_one,
        lambda: activation.attribute(images),
    )
    report("every stage, Capture : plain forward pass (what the copies cost)", capture_all, plain)
    report(
        "gradient at one layer, Capture : Captum's LayerGradientXActivation",
        gradient,
        lambda: layer_gradient.attribute(images, target=target),
    )
    report("gradient at one layer, Capture : backward through every parameter", gradient, everything)

    report(
        "gradient of the pixels, fast_pixel_gradient : PyTorch's own",
        lambda: of_pixels(fast_pixel_gradient()),
        lambda: of_pixels(nullcontext()),
    )

    print("\nThe generator of shapes, one thread:")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    shapes.generate(100, seed=0)
    start = time.perf_counter()
    shapes.generate(1000, seed=1)
    print(f"{1000 / (time.perf_counter() - start):.0f} pictures/s (wanted: at least 500 on one core)")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
