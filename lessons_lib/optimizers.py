"""How weights are moved once their gradients are known: from plain descent to Adam, and Muon.

Each class is one rule, `update`, in the symbols of its paper: theta is a parameter, g its gradient. The keywords of
`update` are the settings, a part of those of PyTorch's class, which it equals and whose place it takes, with groups,
schedulers and `state_dict`. `Rule` has the loop and the checks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ._checks import check_not_negative, check_whole_number

State = dict[str, Any]
"""What is remembered of a parameter; empty at first."""


class Rule(torch.optim.Optimizer):
    """What all rules share. Raises ValueError or TypeError for a setting, also of a group, out of its range."""

    update: ClassVar[Callable[..., None]]
    """Moves a parameter in place, given its gradient, what is remembered of it, and the settings."""

    settings: ClassVar[tuple[str, ...]]
    """Their names, in the order in which the class takes them."""

    def __init_subclass__(cls) -> None:
        params = inspect.signature(Rule.__init__).parameters["params"]
        keywords = [
            each for each in inspect.signature(cls.update).parameters.values() if each.kind is each.KEYWORD_ONLY
        ]
        shown = [each.replace(kind=each.POSITIONAL_OR_KEYWORD) for each in keywords]
        cls.settings = tuple(each.name for each in keywords)
        cls.__signature__ = inspect.Signature([params, *shown])  # type: ignore[attr-defined]

    def __init__(self, params: ParamsT, *values: Any, **named: Any) -> None:
        given = inspect.signature(type(self)).bind(params, *values, **named)
        given.apply_defaults()
        super().__init__(given.arguments.pop("params"), given.arguments)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move all parameters once. `closure`, if given, computes the loss and the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            settings = {name: group[name] for name in self.settings}
            for theta in group["params"]:
                if theta.grad is None:
                    continue
                if theta.grad.is_sparse or theta.is_complex():
                    raise RuntimeError("gradients must be dense and real: these rules know no others")
                self.update(theta, theta.grad, self.state[theta], **settings)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own."""
        for name in self.settings:
            _check(name, param_group.get(name, self.defaults[name]))
        super().add_param_group(param_group)


class SGD(Rule):
    """Down the gradient (Robbins & Monro, 1951)."""

    @staticmethod
    def update(theta: Tensor, g: Tensor, state: State, *, lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        g = with_l2(g, theta, weight_decay)
        theta.add_(g, alpha=-lr)


class Momentum(Rule):
    """Like a heavy ball: of its velocity v a part mu is kept, and the gradient is added (Polyak, 1964)."""

    @staticmethod
    def update(
        theta: Tensor, g: Tensor, state: State, *, lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        g = with_l2(g, theta, weight_decay)
        v = remembered(state, "v", theta)
        v.mul_(momentum).add_(g)
        theta.add_(v, alpha=-lr)


class Nesterov(Rule):
    """Momentum that looks ahead: the gradient counts where the ball is about to be (Nesterov, 1983).

    Written as in Bengio et al., 2013: theta is the point ahead, where the gradient is taken.
    """

    @staticmethod
    def update(
        theta: Tensor, g: Tensor, state: State, *, lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        g = with_l2(g, theta, weight_decay)
        v = remembered(state, "v", theta)
        v.mul_(momentum).add_(g)
        theta.add_(g.add(v, alpha=momentum), alpha=-lr)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if param_group.get("momentum", self.defaults["momentum"]) == 0:
            raise ValueError("momentum must be above 0: without it there is nothing to look ahead along")
        super().add_param_group(param_group)


class Adagrad(Rule):
    """A rate for each parameter: over the root of the sum G of all its squared gradients (Duchi et al., 2011)."""

    @staticmethod
    def update(
        theta: Tensor,
        g: Tensor,
        state: State,
        *,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        g = with_l2(g, theta, weight_decay)
        t, G = counted(state), remembered(state, "G", theta, initial_accumulator_value)
        G.addcmul_(g, g)
        theta.addcdiv_(g, G.sqrt().add_(eps), value=-lr / (1 + (t - 1) * lr_decay))


class Adadelta(Rule):
    """Steps in the unit of theta: the size of the last steps over that of the last gradients (Zeiler, 2012)."""

    @staticmethod
    def update(
        theta: Tensor,
        g: Tensor,
        state: State,
        *,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        g = with_l2(g, theta, weight_decay)
        g2, dx2 = remembered(state, "E[g^2]", theta), remembered(state, "E[dx^2]", theta)
        g2.mul_(rho).addcmul_(g, g, value=1 - rho)
        dx = dx2.add(eps).sqrt_().div_(g2.add(eps).sqrt_()).mul_(g)
        dx2.mul_(rho).addcmul_(dx, dx, value=1 - rho)
        theta.add_(dx, alpha=-lr)


class RMSprop(Rule):
    """The gradient over the root of the mean n of its last squares (Tieleman & Hinton, 2012, lecture 6).

    `momentum` adds a velocity; `centered` takes the variance instead of the mean square (Graves, 2013).
    """

    @staticmethod
    def update(
        theta: Tensor,
        g: Tensor,
        state: State,
        *,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        g = with_l2(g, theta, weight_decay)
        n = remembered(state, "n", theta)
        n.mul_(alpha).addcmul_(g, g, value=1 - alpha)
        if centered:
            mean = remembered(state, "mean", theta).lerp_(g, 1 - alpha)
            n = n.addcmul(mean, mean, value=-1)
        root = n.sqrt().add_(eps)
        if momentum:
            v = remembered(state, "v", theta)
            v.mul_(momentum).addcdiv_(g, root)
            theta.add_(v, alpha=-lr)
        else:
            theta.addcdiv_(g, root, value=-lr)


class Adam(Rule):
    """The mean m of the last gradients over the root of the mean v of their squares, both made free of their bias
    towards 0 (Kingma & Ba, 2015, algorithm 1).

    `amsgrad` takes the largest v so far (Reddi et al., 2018).
    """

    @staticmethod
    def update(
        theta: Tensor,
        g: Tensor,
        state: State,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        g = with_l2(g, theta, weight_decay)
        (beta1, beta2), t = betas, counted(state)
        m, v = remembered(state, "m", theta), remembered(state, "v", theta)
        m.lerp_(g, 1 - beta1)  # beta1 m + (1 - beta1) g
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        if amsgrad:
            largest = remembered(state, "largest v", theta)
            v = torch.maximum(largest, v, out=largest)
        root = v.div(1 - beta2**t).sqrt_().add_(eps)
        theta.addcdiv_(m, root, value=-lr / (1 - beta1**t))


class AdamW(Rule):
    """Adam, and weights that decay beside the gradient, not in it (Loshchilov & Hutter, 2019, algorithm 2)."""

    @staticmethod
    def update(
        theta: Tensor,
        g: Tensor,
        state: State,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        theta.mul_(1 - lr * weight_decay)
        Adam.update(theta, g, state, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)


class Muon(Rule):
    """Momentum for matrices, with all their directions made about equally strong (Jordan et al., 2024).

    A bank of filters (out, in, h, w) is a matrix (out, in h w). Vectors are moved by AdamW; the root mean square of a
    matrix's step is set to 0.2, about what AdamW's is, so that one rate does for both (Liu et al., 2025).
    """

    @staticmethod
    def update(
        theta: Tensor,
        g: Tensor,
        state: State,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        if theta.ndim < 2:
            AdamW.update(theta, g, state, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
            return
        B = remembered(state, "B", theta)
        B.lerp_(g, 1 - momentum)
        O = nearly_orthogonal(g.lerp(B, momentum).flatten(1), ns_steps)  # noqa: E741
        theta.mul_(1 - lr * weight_decay)
        theta.add_(O.reshape(theta.shape), alpha=-lr * 0.2 * max(O.shape) ** 0.5)


def nearly_orthogonal(matrix: Tensor, ns_steps: int = 5) -> Tensor:
    """About U V' of a matrix U S V', in bfloat16: Newton-Schulz steps drive all but tiny singular values to about 1.

    (Jordan et al., 2024, with their coefficients: steepest at 0, so that five steps do.)
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    X = matrix.to(torch.bfloat16, copy=True)  # roughly is enough, and half the bytes
    if tall := matrix.shape[0] > matrix.shape[1]:
        X = X.T
    X.div_(X.norm().clamp(min=1e-7))
    for _ in range(ns_steps):
        A = X @ X.T
        X = torch.addmm(X, torch.addmm(A, A, A, beta=b, alpha=c), X, beta=a)  # a X + (b A + c A A) X
    return X.T if tall else X


# --- what the rules share -------------------------------------------------------------------------------------------


def with_l2(g: Tensor, theta: Tensor, weight_decay: float) -> Tensor:
    """The gradient of the loss plus weight_decay / 2 times the squared length of theta."""
    return g.add(theta, alpha=weight_decay) if weight_decay else g


def remembered(state: State, name: str, theta: Tensor, first: float = 0.0) -> Tensor:
    """A tensor like theta, kept in `state`; filled with `first` at first."""
    if name not in state:
        state[name] = torch.full_like(theta, first)
    value: Tensor = state[name]
    return value


def counted(state: State) -> int:
    """Which update of this parameter it is: 1, 2, ..."""
    state["t"] = state.get("t", 0) + 1
    return int(state["t"])


def _check(name: str, value: Any) -> None:
    if name == "betas":
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(f"betas must be a pair of numbers, not {value!r}")
        for each in value:
            check_not_negative("betas", each)
            if each >= 1:
                raise ValueError(f"betas must be below 1, not {each}")
    elif name in ("amsgrad", "centered"):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
    elif name == "ns_steps":
        check_whole_number(name, value, 1)
    else:
        check_not_negative(name, value)
        if name in ("rho", "alpha") and value > 1:
            raise ValueError(f"{name} must be 1 or less, not {value}")
