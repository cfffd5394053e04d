"""Our `maximize` beside lucent's `render_vis`: same network, size, steps, parametrization and transforms. Ratios count.

    make bench

Each pair runs in turn, A B A B ..., and the ratio is the median over the pairs. Both move the coefficients of waves in
uncorrelated colours by Adam. lucent is used as its users do; beside that stands what it does with the parameters
frozen, and with sixteen pictures in one batch, which its own interface allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from bench import report
from lucent.optvis import objectives, param, render

from lessons_lib.maximization import channel, class_layer, jitter, logit, maximize, rotate, scale
from lessons_lib.specimens import load_specimen

ROUNDS, STEPS, SIZE, MANY = 7, 8, 224, 16


def main() -> None:
    specimen = load_specimen()
    frozen, trainable = specimen.model, specimen.trainable()
    middle = list(specimen.layers)[len(specimen.layers) // 2]
    name = {module: name for name, module in frozen.named_modules()}[specimen.layers[middle]]
    moves = (jitter(8), scale(0.9, 1.1), rotate(5))
    random = torch.Generator().manual_seed(0)
    same_moves = [lambda images, move=move: move(images, random) for move in moves]

    def lucent(model: Any, objective: Any, batch: int) -> None:
        render.render_vis(
            model, objective, lambda: param.image(SIZE, batch=batch), transforms=same_moves, thresholds=(STEPS,),
            preprocess=False, progress=False, show_image=False,
        )  # fmt: skip
        for module in model.modules():  # it leaves its hooks behind, and each call would be slower than the last
            module._forward_hooks.clear()

    def ours(wanted: Sequence[Any]) -> None:
        maximize(frozen, wanted, steps=STEPS, size=SIZE, transforms=moves)

    def each(model: Any, makes: Sequence[Any], batch: int) -> Callable[[], None]:
        return lambda: [lucent(model, make, batch) for make in makes] and None

    target = 281 % len(specimen.categories)
    layer = name.replace(".", "_")
    at_logit, at_middle = (lambda: ours([logit(target)])), (lambda: ours([channel(name, 7)]))
    many = lambda: ours([channel(name, k) for k in range(MANY)])  # noqa: E731
    head = {module: name for name, module in frozen.named_modules()}[class_layer(frozen)]
    class_score = objectives.channel(head.replace(".", "_"), target)
    one_by_one = [objectives.channel(layer, k) for k in range(MANY)]
    together = [objectives.Objective.sum([objectives.channel(layer, k, batch=k) for k in range(MANY)])]

    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {SIZE} px, {STEPS} steps, layer {middle}\n")
    print("How many times as long lucent takes:")
    report("steps/s at the logit", at_logit, each(trainable, [class_score], 1), ROUNDS)
    report("   ... with its parameters frozen", at_logit, each(frozen, [class_score], 1), ROUNDS)
    report(f"steps/s at {middle}", at_middle, each(trainable, [objectives.channel(layer, 7)], 1), ROUNDS)
    report("   ... with its parameters frozen", at_middle, each(frozen, [objectives.channel(layer, 7)], 1), ROUNDS)
    report(f"{MANY} channels in one go", many, each(trainable, one_by_one, 1), 2)
    report("   ... with its parameters frozen", many, each(frozen, one_by_one, 1), 2)
    report("   ... with its parameters frozen, in one batch as well", many, each(frozen, together, MANY), 2)


if __name__ == "__main__":
    main()
