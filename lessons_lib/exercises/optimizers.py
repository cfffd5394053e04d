"""The exercises of chapter 8, Optimizers.

Each asks for a path: where a parameter is before the first step and after every one. A rule that is wrong by a factor,
a sign or a place goes another way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .exercise import Answer, Exercise, Mistake

Gradient = Callable[[Tensor], Tensor]
"""From parameters (P,) to the gradient of the loss there, (P,)."""


@dataclass(frozen=True)
class _Parabola:
    curvatures: tuple[float, ...]

    def __call__(self, theta: Tensor) -> Tensor:
        return theta.new_tensor(self.curvatures) * theta


def _crooked(theta: Tensor) -> Tensor:
    """The gradient of a loss that is no parabola, and in which the parameters depend on one another."""
    return theta.cos() + 0.5 * theta.roll(1) + 0.2 * theta.pow(3)


@dataclass(frozen=True)
class _Slope:
    slopes: tuple[float, ...]

    def __call__(self, theta: Tensor) -> Tensor:
        return theta.new_tensor(self.slopes)


# --- 8.1: momentum -----------------------------------------------------------------------------------------------


def _slopes_and_momenta() -> dict[str, tuple[Gradient, Tensor, float, float, int]]:
    return {
        "a ravine, eight steps": (_Parabola((1.0, 8.0)), torch.tensor([3.0, -2.0]), 0.05, 0.8, 8),
        "three parameters on a crooked surface": (_crooked, torch.tensor([0.5, -1.2, 2.0]), 0.1, 0.6, 6),
        "a constant slope": (_Slope((-2.0,)), torch.tensor([1.0]), 0.3, 0.9, 5),
        "no momentum at all": (_Parabola((1.0, 3.0)), torch.tensor([1.0, 2.0]), 0.2, 0.0, 4),
    }


def _momentum(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    v, path = torch.zeros_like(theta), [theta]
    for _ in range(steps):
        v = mu * v + gradient(theta)
        theta = theta - lr * v
        path.append(theta)
    return torch.stack(path)


def _momentum_by_pytorch(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    moved, path = theta.clone().requires_grad_(), [theta.clone()]
    optimizer = torch.optim.SGD([moved], lr=lr, momentum=mu)
    for _ in range(steps):
        moved.grad = gradient(moved.detach())
        optimizer.step()
        path.append(moved.detach().clone())
    return torch.stack(path)


def _momentum_in_place(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    path = theta.repeat(steps + 1, 1)
    v = torch.zeros_like(theta)
    for step in range(steps):
        v.mul_(mu).add_(gradient(path[step]))
        path[step + 1] = path[step] - lr * v
    return path


def _momentum_by_last_step(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    path = [theta, theta - lr * gradient(theta)]
    for _ in range(steps - 1):
        path.append(path[-1] - lr * gradient(path[-1]) + mu * (path[-1] - path[-2]))
    return torch.stack(path)


Moved = tuple[Tensor, Tensor]


def _with_velocity(rule: Callable[[Tensor, Tensor, Tensor, float, float], Moved]) -> Answer:
    """An answer that moves theta and the velocity by rule(theta, v, g, lr, mu)."""

    def answer(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
        v, path = torch.zeros_like(theta), [theta]
        for _ in range(steps):
            theta, v = rule(theta, v, gradient(theta), lr, mu)
            path.append(theta)
        return torch.stack(path)

    answer.__name__ = rule.__name__
    return answer


@_with_velocity
def _no_memory(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    return theta - lr * g, v


@_with_velocity
def _uphill(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = mu * v + g
    return theta + lr * v, v


@_with_velocity
def _mean_of_gradients(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = mu * v + (1 - mu) * g
    return theta - lr * v, v


@_with_velocity
def _shares_changed_round(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = (1 - mu) * v + mu * g
    return theta - lr * v, v


@_with_velocity
def _old_velocity(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    return theta - lr * v, mu * v + g


@_with_velocity
def _rate_twice(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = mu * v + lr * g
    return theta - lr * v, v


@_with_velocity
def _momentum_of_the_gradient_too(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = mu * (v + g)
    return theta - lr * v, v


@_with_velocity
def _never_slower(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = v + g
    return theta - lr * v, v


@_with_velocity
def _nesterovs(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = mu * v + g
    return theta - lr * (g + mu * v), v


@_with_velocity
def _velocity_and_gradient(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = mu * v + g
    return theta - lr * (v + g), v


@_with_velocity
def _rate_and_momentum_changed_round(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = lr * v + g
    return theta - mu * v, v


@_with_velocity
def _no_rate(theta: Tensor, v: Tensor, g: Tensor, lr: float, mu: float) -> Moved:
    v = mu * v + g
    return theta - v, v


def _looks_ahead(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    v, path = torch.zeros_like(theta), [theta]
    for _ in range(steps):
        v = mu * v + gradient(theta - lr * mu * v)
        theta = theta - lr * v
        path.append(theta)
    return torch.stack(path)


def _gradient_of_the_start(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    return _momentum(lambda _: gradient(theta), theta, lr, mu, steps)


def _all_rows_the_last(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    return _momentum(gradient, theta, lr, mu, steps)[-1:].repeat(steps + 1, 1)


def _without_the_start(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    return _momentum(gradient, theta, lr, mu, steps)[1:]


def _without_the_end(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    return _momentum(gradient, theta, lr, mu, steps)[:-1]


def _only_the_end(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    return _momentum(gradient, theta, lr, mu, steps)[-1]


def _velocities(gradient: Gradient, theta: Tensor, lr: float, mu: float, steps: int) -> Tensor:
    path = _momentum(gradient, theta, lr, mu, steps)
    return torch.cat([torch.zeros_like(theta)[None], (path[:-1] - path[1:]) / lr])


_ROWS = (
    "All rows of your path are equal, to where it ends. You append one tensor again and again, and then change it in "
    "place (`-=`, `add_`): every row is that one tensor. Make a new one (`theta = theta - ...`), or append a "
    "`.clone()`."
)
_NO_START = "The path begins with where theta is *before* the first step: that row is missing, the others are right."
_NO_END = "The last step is missing: the start and `steps` steps are `steps + 1` rows."
_END_ONLY = "You return where the path ends. Asked is the whole of it, (steps + 1, P), the start first."
_STUCK = (
    "You take the gradient once, at the start. It is another wherever you come: take it anew in each step, where theta "
    "then is."
)

_MOMENTUM = Exercise(
    name="momentum",
    number="8.1",
    title="Momentum",
    prompt="Given a function `gradient`, a start theta (P,), a learning rate, mu and a number of steps, return the "
    "path of gradient descent with momentum, (steps + 1, P), the start first. The velocity begins at 0; each step "
    "it keeps mu of itself and the gradient is added; then theta moves by the learning rate times it, downhill.",
    reference=_momentum,
    cases=_slopes_and_momenta,
    alternatives=(_momentum_by_pytorch, _momentum_in_place, _momentum_by_last_step),
    mistakes=(
        Mistake(
            _no_memory,
            "This is gradient descent without momentum: your steps do not depend on those before. Does the velocity "
            "outlive the loop's round, and does it move theta?",
        ),
        Mistake(
            _uphill,
            "You go uphill. Downhill is against the gradient, with one minus: in the velocity, or in the step.",
        ),
        Mistake(
            _mean_of_gradients,
            "Your velocity is a running mean, with a factor 1 - mu before the gradient. That is a step 1 - mu times as "
            "long; Adam will take it so. Here the gradient is added whole.",
        ),
        Mistake(
            _shares_changed_round,
            "You keep 1 - mu of the velocity and mu of the gradient. Asked is to keep mu of the velocity, and to add "
            "the whole gradient.",
        ),
        Mistake(
            _old_velocity,
            "You move theta by the velocity of the step before, and only then renew it. Your path stands still for one "
            "step and then lags behind. The velocity first.",
        ),
        Mistake(
            _rate_twice,
            "The learning rate comes in twice: into the velocity, and again into the step. Either is right, not both.",
        ),
        Mistake(
            _momentum_of_the_gradient_too,
            "You multiply the new gradient by mu as well. Only the velocity from before is slowed.",
        ),
        Mistake(
            _never_slower,
            "Your velocity keeps all of itself: mu is missing. Such a ball has no friction, and never comes to rest.",
        ),
        Mistake(
            _nesterovs,
            "This is Nesterov's momentum, which comes next in the chapter: you add mu times the velocity to the "
            "gradient. Here theta moves by the velocity alone.",
        ),
        Mistake(
            _looks_ahead,
            "You take the gradient at the point where the velocity is about to bring you. That is Nesterov's momentum, "
            "which comes next in the chapter. Here it is taken where theta is.",
        ),
        Mistake(
            _velocity_and_gradient,
            "The gradient comes in twice: it is in the velocity, and you add it once more to the step.",
        ),
        Mistake(
            _rate_and_momentum_changed_round,
            "Learning rate and mu have changed places: mu slows the velocity, the learning rate scales the step.",
        ),
        Mistake(_no_rate, "The learning rate is missing: theta moves by it times the velocity."),
        Mistake(_gradient_of_the_start, _STUCK),
        Mistake(_all_rows_the_last, _ROWS),
        Mistake(_without_the_start, _NO_START),
        Mistake(_without_the_end, _NO_END),
        Mistake(_only_the_end, _END_ONLY),
        Mistake(_velocities, "You collect the velocities. Asked is where theta is, after each step."),
    ),
    hints=(
        "Two things live on from step to step: theta, and a velocity of the same shape that begins at 0.",
        "In each step: `v = mu * v + gradient(theta)`, and after it the move.",
        "`theta = theta - lr * v` makes a new tensor, which can be appended to a list; `torch.stack` makes rows of the "
        "list.",
    ),
)


# --- 8.2: RMSProp -------------------------------------------------------------------------------------------------


def _slopes_and_alphas() -> dict[str, tuple[Gradient, Tensor, float, float, float, int]]:
    return {
        "a ravine, eight steps": (_Parabola((1.0, 30.0)), torch.tensor([3.0, -2.0]), 0.2, 0.8, 1e-8, 8),
        "three parameters on a crooked surface": (_crooked, torch.tensor([0.5, -1.2, 2.0]), 0.1, 0.6, 1e-3, 6),
        "a faint slope and a large epsilon": (_Slope((0.02, -0.5)), torch.tensor([1.0, 0.0]), 0.3, 0.9, 0.1, 5),
    }


def _rmsprop(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Tensor:
    n, path = torch.zeros_like(theta), [theta]
    for _ in range(steps):
        g = gradient(theta)
        n = alpha * n + (1 - alpha) * g**2
        theta = theta - lr * g / (n.sqrt() + eps)
        path.append(theta)
    return torch.stack(path)


def _rmsprop_by_pytorch(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Tensor:
    moved, path = theta.clone().requires_grad_(), [theta.clone()]
    optimizer = torch.optim.RMSprop([moved], lr=lr, alpha=alpha, eps=eps)
    for _ in range(steps):
        moved.grad = gradient(moved.detach())
        optimizer.step()
        path.append(moved.detach().clone())
    return torch.stack(path)


def _rmsprop_in_place(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Tensor:
    n, path = torch.zeros_like(theta), theta.repeat(steps + 1, 1)
    for step in range(steps):
        g = gradient(path[step])
        n.lerp_(g.square(), 1 - alpha)
        path[step + 1].addcdiv_(g, n.sqrt().add_(eps), value=-lr)
        path[step + 1 :] = path[step + 1].clone()
    return path


def _rmsprop_number_by_number(
    gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int
) -> Tensor:
    rows, means = [theta.tolist()], [0.0] * len(theta)
    for _ in range(steps):
        slopes = gradient(torch.tensor(rows[-1])).tolist()
        means = [alpha * mean + (1 - alpha) * slope**2 for mean, slope in zip(means, slopes, strict=True)]
        moves = [lr * slope / (mean**0.5 + eps) for mean, slope in zip(means, slopes, strict=True)]
        rows.append([old - move for old, move in zip(rows[-1], moves, strict=True)])
    return torch.tensor(rows)


def _with_mean_square(rule: Callable[[Tensor, Tensor, Tensor, float, float, float], Moved]) -> Answer:
    """An answer that moves theta and the mean by rule(theta, n, g, lr, alpha, eps)."""

    def answer(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Tensor:
        n, path = torch.zeros_like(theta), [theta]
        for _ in range(steps):
            theta, n = rule(theta, n, gradient(theta), lr, alpha, eps)
            path.append(theta)
        return torch.stack(path)

    answer.__name__ = rule.__name__
    return answer


@_with_mean_square
def _epsilon_inside(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g**2
    return theta - lr * g / (n + eps).sqrt(), n


@_with_mean_square
def _no_epsilon(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g**2
    return theta - lr * g / n.sqrt(), n


@_with_mean_square
def _no_root(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g**2
    return theta - lr * g / (n + eps), n


@_with_mean_square
def _shares_of_the_mean_changed_round(
    theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float
) -> Moved:
    n = (1 - alpha) * n + alpha * g**2
    return theta - lr * g / (n.sqrt() + eps), n


@_with_mean_square
def _sum_that_forgets(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + g**2
    return theta - lr * g / (n.sqrt() + eps), n


@_with_mean_square
def _adagrads_sum(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = n + g**2
    return theta - lr * g / (n.sqrt() + eps), n


@_with_mean_square
def _mean_of_sizes(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g.abs()
    return theta - lr * g / (n + eps), n


@_with_mean_square
def _root_of_the_mean_of_sizes(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g.abs()
    return theta - lr * g / (n.sqrt() + eps), n


@_with_mean_square
def _times_the_root(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g**2
    return theta - lr * g * (n.sqrt() + eps), n


@_with_mean_square
def _one_mean_for_all(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g.square().mean()
    return theta - lr * g / (n.sqrt() + eps), n


@_with_mean_square
def _upwards_by_rms(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    n = alpha * n + (1 - alpha) * g**2
    return theta + lr * g / (n.sqrt() + eps), n


@_with_mean_square
def _without_bias(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    # The second row of the state counts: what the means would be of ones.
    ones = n[..., 1:] if n.ndim > theta.ndim else torch.zeros_like(theta)[..., None]
    mean = alpha * (n[..., 0] if n.ndim > theta.ndim else n) + (1 - alpha) * g**2
    ones = alpha * ones + (1 - alpha)
    return theta - lr * g / ((mean / ones[..., 0]).sqrt() + eps), torch.cat([mean[..., None], ones], dim=-1)


@_with_mean_square
def _nothing_remembered(theta: Tensor, n: Tensor, g: Tensor, lr: float, alpha: float, eps: float) -> Moved:
    mean = (1 - alpha) * g**2
    return theta - lr * g / (mean.sqrt() + eps), n


def _old_mean(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Tensor:
    n, path = torch.zeros_like(theta), [theta]
    for _ in range(steps):
        g = gradient(theta)
        theta = theta - lr * g / (n.sqrt() + eps)
        n = alpha * n + (1 - alpha) * g**2
        path.append(theta)
    return torch.stack(path)


def _first_square_whole(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Tensor:
    n, path = gradient(theta) ** 2, [theta]
    for _ in range(steps):
        g = gradient(theta)
        n = alpha * n + (1 - alpha) * g**2
        theta = theta - lr * g / (n.sqrt() + eps)
        path.append(theta)
    return torch.stack(path)


def _rms_rows_the_last(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Tensor:
    return _rmsprop(gradient, theta, lr, alpha, eps, steps)[-1:].repeat(steps + 1, 1)


def _rms_without_the_start(gradient: Gradient, theta: Tensor, lr: float, alpha: float, eps: float, steps: int) -> Any:
    return _rmsprop(gradient, theta, lr, alpha, eps, steps)[1:]


_RMSPROP = Exercise(
    name="rmsprop",
    number="8.2",
    title="RMSProp",
    prompt="Given a function `gradient`, a start theta (P,), a learning rate, alpha, epsilon and a number of steps, "
    "return the path of RMSProp, (steps + 1, P), the start first. Each parameter has a running mean of its squared "
    "gradients that begins at 0 and keeps alpha of itself; its step is the learning rate times the gradient, over the "
    "root of that mean plus epsilon.",
    reference=_rmsprop,
    cases=_slopes_and_alphas,
    alternatives=(_rmsprop_by_pytorch, _rmsprop_in_place, _rmsprop_number_by_number),
    mistakes=(
        Mistake(
            _epsilon_inside,
            "Your epsilon is under the root. Where gradients are faint that makes a difference: the root of epsilon is "
            "much larger than epsilon. Take the root first, then add.",
        ),
        Mistake(
            _no_epsilon,
            "Epsilon is missing. It keeps the step finite where all gradients so far were 0, and small where they were "
            "tiny.",
        ),
        Mistake(
            _no_root,
            "You divide by the mean of the squares itself. Its root is as large as a gradient; the mean is not, and "
            "the larger the gradient, the *smaller* your step.",
        ),
        Mistake(
            _shares_of_the_mean_changed_round,
            "You keep 1 - alpha of the mean and take alpha of the new square: your mean forgets nearly everything in "
            "each step. The other way round.",
        ),
        Mistake(
            _sum_that_forgets,
            "You add the new square whole. A mean takes 1 - alpha of it, so that the shares add up to 1.",
        ),
        Mistake(
            _adagrads_sum,
            "You add up all squares: this is Adagrad, whose steps only ever get smaller. RMSProp keeps alpha of the "
            "mean and takes 1 - alpha of the new square.",
        ),
        Mistake(
            _mean_of_sizes,
            "You take the mean of the sizes of the gradients. Asked is the root of the mean of their *squares*, which "
            "gives more weight to the large ones.",
        ),
        Mistake(
            _root_of_the_mean_of_sizes,
            "The square is missing: your mean is one of the sizes of the gradients, and then you take a root of it.",
        ),
        Mistake(
            _times_the_root,
            "You multiply by the root. Where gradients are large, steps should be made smaller: divide.",
        ),
        Mistake(
            _one_mean_for_all,
            "All your parameters share one mean. The idea is that each has its own, and so a step of its own length.",
        ),
        Mistake(_upwards_by_rms, "You go uphill: downhill is against the gradient."),
        Mistake(
            _without_bias,
            "You divide the mean by what it has of the gradients so far, as Adam does. RMSProp does not: its first "
            "steps are longer for it.",
        ),
        Mistake(
            _nothing_remembered,
            "Your mean forgets everything in each step: it is (1 - alpha) times the last square. Does it outlive the "
            "loop's round?",
        ),
        Mistake(
            _old_mean,
            "You divide by the mean as it was before this step's gradient came. In the first step it is 0, and your "
            "step enormous. The mean first, then the step.",
        ),
        Mistake(
            _first_square_whole,
            "Your mean begins with the square of the first gradient. It begins at 0.",
        ),
        Mistake(_rms_rows_the_last, _ROWS),
        Mistake(_rms_without_the_start, _NO_START),
    ),
    hints=(
        "Two things live on from step to step: theta, and the mean of the squares, which begins at 0.",
        "`n = alpha * n + (1 - alpha) * g**2`: of every parameter its own, no sum and no mean over the parameters.",
        "The step is `lr * g / (n.sqrt() + eps)`, with the new n.",
    ),
)


# --- 8.3: Adam ----------------------------------------------------------------------------------------------------


def _slopes_and_betas() -> dict[str, tuple[Gradient, Tensor, float, tuple[float, float], float, int]]:
    return {
        "a ravine, eight steps": (_Parabola((1.0, 30.0)), torch.tensor([3.0, -2.0]), 0.3, (0.8, 0.95), 1e-8, 8),
        "three parameters on a crooked surface": (
            *(_crooked, torch.tensor([0.5, -1.2, 2.0]), 0.2, (0.6, 0.9), 1e-3),
            6,
        ),
        "a faint slope and a large epsilon": (
            *(_Slope((0.02, -0.5)), torch.tensor([1.0, 0.0]), 0.3, (0.9, 0.7), 0.1),
            5,
        ),
    }


def _adam(gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int) -> Tensor:
    (beta1, beta2), path = betas, [theta]
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for t in range(1, steps + 1):
        g = gradient(theta)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        theta = theta - lr * m_hat / (v_hat.sqrt() + eps)
        path.append(theta)
    return torch.stack(path)


def _adam_by_pytorch(
    gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
) -> Tensor:
    moved, path = theta.clone().requires_grad_(), [theta.clone()]
    optimizer = torch.optim.Adam([moved], lr=lr, betas=betas, eps=eps)
    for _ in range(steps):
        moved.grad = gradient(moved.detach())
        optimizer.step()
        path.append(moved.detach().clone())
    return torch.stack(path)


def _adam_by_corrected_rate(
    gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
) -> Tensor:
    """In the order of the paper's section 2, with epsilon scaled as it must be."""
    (beta1, beta2), path = betas, [theta]
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for t in range(1, steps + 1):
        g = gradient(theta)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        second = (1 - beta2**t) ** 0.5
        theta = theta - lr * second / (1 - beta1**t) * m / (v.sqrt() + eps * second)
        path.append(theta)
    return torch.stack(path)


def _adam_by_weights(
    gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
) -> Tensor:
    """Means over all gradients so far, with weights that fall off and add up to 1."""
    path, slopes = [theta], list[Tensor]()
    for _ in range(steps):
        slopes.append(gradient(path[-1]))
        ages = torch.arange(len(slopes) - 1, -1, -1)
        first, second = (beta**ages / (beta**ages).sum() for beta in betas)
        all_slopes = torch.stack(slopes)
        path.append(path[-1] - lr * (first @ all_slopes) / ((second @ all_slopes**2).sqrt() + eps))
    return torch.stack(path)


Step = Callable[[Tensor, Tensor, Tensor, Tensor, tuple[float, float], float, int], tuple[Tensor, Tensor, Tensor]]
Moments = tuple[Tensor, Tensor, Tensor]


def _with_moments(rule: Step) -> Answer:
    """An answer by rule(m, v, g, theta, betas, eps, t) -> (m, v, what theta moves by, but for the rate)."""

    def answer(
        gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
    ) -> Tensor:
        m, v, path = torch.zeros_like(theta), torch.zeros_like(theta), [theta]
        for t in range(1, steps + 1):
            m, v, move = rule(m, v, gradient(theta), theta, betas, eps, t)
            theta = theta - lr * move
            path.append(theta)
        return torch.stack(path)

    answer.__name__ = rule.__name__  # type: ignore[attr-defined]
    return answer


def _moments(m: Tensor, v: Tensor, g: Tensor, betas: tuple[float, float]) -> tuple[Tensor, Tensor]:
    return betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2


@_with_moments
def _no_correction(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / (v.sqrt() + eps)


@_with_moments
def _first_not_corrected(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / ((v / (1 - betas[1] ** t)).sqrt() + eps)


@_with_moments
def _second_not_corrected(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / (1 - betas[0] ** t) / (v.sqrt() + eps)


@_with_moments
def _counted_one_too_far(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / (1 - betas[0] ** (t + 1)) / ((v / (1 - betas[1] ** (t + 1))).sqrt() + eps)


@_with_moments
def _always_as_in_the_first_step(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / (1 - betas[0]) / ((v / (1 - betas[1])).sqrt() + eps)


@_with_moments
def _correction_remembered(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    m, v = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    return m, v, m / (v.sqrt() + eps)


@_with_moments
def _corrected_by_multiplying(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m * (1 - betas[0] ** t) / ((v * (1 - betas[1] ** t)).sqrt() + eps)


@_with_moments
def _epsilon_under_the_root(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / (1 - betas[0] ** t) / (v / (1 - betas[1] ** t) + eps).sqrt()


@_with_moments
def _epsilon_before_the_correction(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m * (1 - betas[1] ** t) ** 0.5 / (1 - betas[0] ** t) / (v.sqrt() + eps)


@_with_moments
def _epsilon_left_out(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / (1 - betas[0] ** t) / (v / (1 - betas[1] ** t)).sqrt()


@_with_moments
def _root_left_out(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, m / (1 - betas[0] ** t) / (v / (1 - betas[1] ** t) + eps)


@_with_moments
def _gradient_over_the_root(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, g / ((v / (1 - betas[1] ** t)).sqrt() + eps)


@_with_moments
def _gradients_added_whole(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = betas[0] * m + g, betas[1] * v + g**2
    return m, v, m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps)


@_with_moments
def _square_of_the_mean(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * m**2
    return m, v, m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps)


@_with_moments
def _up_by_adam(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = _moments(m, v, g, betas)
    return m, v, -m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps)


@_with_moments
def _one_size_for_all(
    m: Tensor, v: Tensor, g: Tensor, theta: Tensor, betas: tuple[float, float], eps: float, t: int
) -> Moments:
    m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * (g**2).mean()
    return m, v, m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)).sqrt() + eps)


def _betas_changed_round(
    gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
) -> Tensor:
    return _adam(gradient, theta, lr, (betas[1], betas[0]), eps, steps)


def _counted_from_0(
    gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
) -> Tensor:
    (beta1, beta2), path = betas, [theta]
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for t in range(steps):
        g = gradient(theta)
        m, v = _moments(m, v, g, betas)
        theta = theta - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
        path.append(theta)
    return torch.stack(path)


def _adam_rows_the_last(
    gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
) -> Tensor:
    return _adam(gradient, theta, lr, betas, eps, steps)[-1:].repeat(steps + 1, 1)


def _adam_without_the_start(
    gradient: Gradient, theta: Tensor, lr: float, betas: tuple[float, float], eps: float, steps: int
) -> Tensor:
    return _adam(gradient, theta, lr, betas, eps, steps)[1:]


_UNCORRECTED = (
    "You move by the means as they are. Both begin at 0 and are too small at first, the mean of the squares most of "
    "all: divide m by 1 - beta1^t and v by 1 - beta2^t."
)

_ADAM = Exercise(
    name="adam",
    number="8.3",
    title="Adam, with its bias corrections",
    prompt="Given a function `gradient`, a start theta (P,), a learning rate, (beta1, beta2), epsilon and a number of "
    "steps, return the path of Adam, (steps + 1, P), the start first. Keep a running mean m of the gradients and one, "
    "v, of their squares, both from 0; in step t = 1, 2, ... divide them by 1 - beta1^t and 1 - beta2^t; move by the "
    "learning rate times the corrected m, over the root of the corrected v plus epsilon.",
    reference=_adam,
    cases=_slopes_and_betas,
    alternatives=(_adam_by_pytorch, _adam_by_corrected_rate, _adam_by_weights),
    mistakes=(
        Mistake(_no_correction, _UNCORRECTED),
        Mistake(
            _first_not_corrected,
            "v is corrected, m is not: it begins at 0 too, and your first steps are too short. Divide it by "
            "1 - beta1^t.",
        ),
        Mistake(
            _second_not_corrected,
            "m is corrected, v is not: it begins at 0 too, you divide by too little, and your first steps are too "
            "long. Divide it by 1 - beta2^t.",
        ),
        Mistake(
            _counted_one_too_far,
            "Your t is one too large. In the first step t is 1, and then the corrected m is the gradient itself.",
        ),
        Mistake(
            _counted_from_0,
            "Your t begins at 0, and 1 - beta^0 is 0: you divide by it. In the first step t is 1.",
        ),
        Mistake(
            _always_as_in_the_first_step,
            "You divide by 1 - beta in every step: the power t is missing. The correction is for the beginning, and "
            "must fade.",
        ),
        Mistake(
            _correction_remembered,
            "You put the corrected means back into m and v, and correct them again in the next step. Give what is "
            "corrected a name of its own.",
        ),
        Mistake(
            _corrected_by_multiplying,
            "You multiply by 1 - beta^t: that makes small means smaller still. Divide.",
        ),
        Mistake(
            _epsilon_under_the_root,
            "Your epsilon is under the root. Where gradients are faint that makes a difference: the root of epsilon is "
            "much larger than epsilon. Take the root first, then add.",
        ),
        Mistake(
            _epsilon_before_the_correction,
            "You correct the learning rate instead of the means, as the paper proposes for speed, and add epsilon to "
            "the root of the *uncorrected* v. At first that counts for more. Correct v first, then take the root, then "
            "add.",
        ),
        Mistake(_epsilon_left_out, "Epsilon is missing: it belongs to the root, and keeps the step finite."),
        Mistake(
            _root_left_out,
            "You divide by v itself. It is as large as a squared gradient: the root is missing.",
        ),
        Mistake(
            _gradient_over_the_root,
            "You move by the last gradient, not by the mean m: this is RMSProp with a correction.",
        ),
        Mistake(
            _gradients_added_whole,
            "You add gradient and square whole. A mean takes 1 - beta of them; else the correction is one too many.",
        ),
        Mistake(
            _square_of_the_mean,
            "Your v is the mean of the squares of m. Asked is the mean of the squared gradients: where gradients "
            "change their sign, m is small and they are not.",
        ),
        Mistake(
            _one_size_for_all,
            "All your parameters share one v. The idea is that each has its own, and so a step of its own length.",
        ),
        Mistake(_up_by_adam, "You go uphill: downhill is against the gradient."),
        Mistake(
            _betas_changed_round,
            "The betas have changed places: the first is for the mean of the gradients, the second for their squares.",
        ),
        Mistake(_adam_rows_the_last, _ROWS),
        Mistake(_adam_without_the_start, _NO_START),
    ),
    hints=(
        "Three things live on from step to step: theta, m and v. The last two begin at 0.",
        "`for t in range(1, steps + 1)`: t is 1 in the first step.",
        "`m_hat = m / (1 - beta1**t)`, the same for v. Keep m and v as they are: they go on without correction.",
        "The move is `lr * m_hat / (v_hat.sqrt() + eps)`.",
    ),
)


# --- 8.4: decoupled weight decay ----------------------------------------------------------------------------------


def _slopes_and_decays() -> dict[str, tuple[Gradient, Tensor, float, tuple[float, float], float, float, int]]:
    return {
        "a ravine that weights are drawn out of": (
            *(_Parabola((1.0, 30.0)), torch.tensor([3.0, -2.0]), 0.1, (0.8, 0.95), 1e-8),
            *(0.5, 8),
        ),
        "three parameters on a crooked surface": (
            *(_crooked, torch.tensor([0.5, -1.2, 2.0]), 0.2, (0.6, 0.9), 1e-3),
            *(1.5, 6),
        ),
        "hardly any slope": (
            *(_Slope((1e-3, -1e-3)), torch.tensor([4.0, -6.0]), 0.1, (0.9, 0.99), 1e-2),
            *(2.0, 5),
        ),
    }


def _decoupled_decay(
    gradient: Gradient,
    theta: Tensor,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    steps: int,
) -> Tensor:
    (beta1, beta2), path = betas, [theta]
    m, v = torch.zeros_like(theta), torch.zeros_like(theta)
    for t in range(1, steps + 1):
        g = gradient(theta)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        theta = theta - lr * (m_hat / (v_hat.sqrt() + eps) + weight_decay * theta)
        path.append(theta)
    return torch.stack(path)


def _decay_by_pytorch(
    gradient: Gradient,
    theta: Tensor,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    steps: int,
) -> Tensor:
    moved, path = theta.clone().requires_grad_(), [theta.clone()]
    optimizer = torch.optim.AdamW([moved], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    for _ in range(steps):
        moved.grad = gradient(moved.detach())
        optimizer.step()
        path.append(moved.detach().clone())
    return torch.stack(path)


Decaying = Callable[[Tensor, Tensor, float, float], tuple[Tensor, Tensor]]


def _decaying(
    before: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    after: Callable[[Tensor, Tensor, float, float], Tensor] | None = None,
    *,
    name: str,
    first: bool = True,
    second: bool = True,
) -> Answer:
    """Adam whose gradient is before(g, theta, decay) and whose new parameter is after(new, old, lr, decay).

    `first` and `second` say into which of the two means the changed gradient goes.
    """

    def answer(
        gradient: Gradient,
        theta: Tensor,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        steps: int,
    ) -> Tensor:
        (beta1, beta2), path = betas, [theta]
        m, v = torch.zeros_like(theta), torch.zeros_like(theta)
        for t in range(1, steps + 1):
            plain = gradient(theta)
            changed = before(plain, theta, weight_decay) if before else plain
            m = beta1 * m + (1 - beta1) * (changed if first else plain)
            v = beta2 * v + (1 - beta2) * (changed if second else plain) ** 2
            new = theta - lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps)
            theta = after(new, theta, lr, weight_decay) if after else new
            path.append(theta)
        return torch.stack(path)

    answer.__name__ = name
    return answer


def _l2(g: Tensor, theta: Tensor, decay: float) -> Tensor:
    return g + decay * theta


_shrunk_first = _decaying(after=lambda new, old, lr, decay: new - old + (1 - lr * decay) * old, name="shrunk_first")
_no_decay = _decaying(name="no_decay")
_in_the_gradient = _decaying(before=_l2, name="in_the_gradient")
_in_the_mean_alone = _decaying(before=_l2, second=False, name="in_the_mean_alone")
_in_the_squares_alone = _decaying(before=_l2, first=False, name="in_the_squares_alone")
_decay_without_rate = _decaying(after=lambda new, old, lr, decay: new - decay * old, name="decay_without_rate")
_decay_of_the_new = _decaying(after=lambda new, old, lr, decay: (1 - lr * decay) * new, name="decay_of_the_new")
_growing = _decaying(after=lambda new, old, lr, decay: new + lr * decay * old, name="growing")
_by_the_sign = _decaying(after=lambda new, old, lr, decay: new - lr * decay * old.sign(), name="by_the_sign")
_twice_the_decay = _decaying(after=lambda new, old, lr, decay: new - 2 * lr * decay * old, name="twice_the_decay")
_both_ways = _decaying(_l2, lambda new, old, lr, decay: new - lr * decay * old, name="both_ways")
_nothing_but_decay = _decaying(after=lambda new, old, lr, decay: (1 - lr * decay) * old, name="nothing_but_decay")
_by_the_share_left = _decaying(after=lambda new, old, lr, decay: new - old + lr * decay * old, name="by_the_share_left")


def _decay_rows_the_last(
    gradient: Gradient,
    theta: Tensor,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    steps: int,
) -> Tensor:
    return _decoupled_decay(gradient, theta, lr, betas, eps, weight_decay, steps)[-1:].repeat(steps + 1, 1)


_DECOUPLED = Exercise(
    name="decoupled_decay",
    number="8.4",
    title="Decoupled weight decay",
    prompt="Given what Adam gets, and a `weight_decay`, return the path of AdamW, (steps + 1, P), the start first. "
    "Besides Adam's move, each step takes the learning rate times weight_decay times theta, as it was before the step, "
    "away from theta. The decay must not pass through m and v.",
    reference=_decoupled_decay,
    cases=_slopes_and_decays,
    alternatives=(_decay_by_pytorch, _shrunk_first),
    mistakes=(
        Mistake(_no_decay, "This is Adam: nothing decays. Does `weight_decay` come into the step?"),
        Mistake(
            _in_the_gradient,
            "You add the decay to the gradient. It then goes through m and v, and is divided by the root with the "
            "rest: where gradients are large, nothing decays. That is Adam with an L2 penalty. Take it off theta "
            "itself.",
        ),
        Mistake(
            _in_the_mean_alone,
            "Your decay is in m: it is smeared over several steps and divided by the root. Take it off theta itself.",
        ),
        Mistake(
            _in_the_squares_alone,
            "Your decay is in v and nowhere else: it makes steps shorter, and nothing smaller. Take it off theta "
            "itself.",
        ),
        Mistake(
            _decay_without_rate,
            "Your decay is not multiplied by the learning rate. It could be defined so; asked is PyTorch's way, in "
            "which both get smaller together.",
        ),
        Mistake(
            _decay_of_the_new,
            "You shrink theta after Adam's move, and the move with it. Shrink it before: what decays is theta as it "
            "was.",
        ),
        Mistake(_growing, "Your weights grow: the sign of the decay is wrong."),
        Mistake(
            _by_the_sign,
            "You take off the same amount of every weight, whatever its size. That is the slope of an L1 penalty. A "
            "decay takes a share.",
        ),
        Mistake(
            _twice_the_decay,
            "Your decay is twice too strong: it is weight_decay times theta. A slope of theta squared has a 2, but "
            "the penalty has a half before it.",
        ),
        Mistake(
            _both_ways,
            "The decay comes in twice: in the gradient, and once more beside it. Only beside it.",
        ),
        Mistake(
            _nothing_but_decay,
            "Theta only shrinks: Adam's move has got lost. Both belong to the step.",
        ),
        Mistake(
            _by_the_share_left,
            "You multiply theta by lr * weight_decay: that is what should be taken away. What is left is "
            "1 - lr * weight_decay of it.",
        ),
        Mistake(_decay_rows_the_last, _ROWS),
    ),
    hints=(
        "Begin with your Adam. Nothing in m and v changes.",
        "One more term in the last line: `theta - lr * (... + weight_decay * theta)`.",
        "Or shrink first: `theta = (1 - lr * weight_decay) * theta`, then Adam's move, with the gradient taken before.",
    ),
)


EXERCISES = (_MOMENTUM, _RMSPROP, _ADAM, _DECOUPLED)
