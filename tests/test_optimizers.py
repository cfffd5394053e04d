"""Every rule goes the way PyTorch's goes, to 1e-10 in float64, and can stand in its place."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons_lib import optimizers
from lessons_lib.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, Momentum, Muon, Nesterov, RMSprop, Rule

Make = Callable[..., torch.optim.Optimizer]

# Ours, PyTorch's, and settings of both: PyTorch's are told only where they have another name or default there.
PAIRS: dict[str, tuple[Make, Make, dict[str, Any], dict[str, Any]]] = {
    "SGD": (SGD, torch.optim.SGD, {"lr": 0.01}, {}),
    "momentum": (Momentum, torch.optim.SGD, {"lr": 0.01, "momentum": 0.8}, {}),
    "Nesterov": (Nesterov, torch.optim.SGD, {"lr": 0.01, "momentum": 0.8}, {"nesterov": True}),
    "Adagrad": (Adagrad, torch.optim.Adagrad, {"lr": 0.1}, {}),
    "Adagrad, falling": (
        *(Adagrad, torch.optim.Adagrad),
        *({"lr": 0.1, "lr_decay": 0.05, "initial_accumulator_value": 0.2, "eps": 1e-3}, {}),
    ),
    "Adadelta": (Adadelta, torch.optim.Adadelta, {"lr": 1.0}, {}),
    "Adadelta, other": (Adadelta, torch.optim.Adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-3}, {}),
    "RMSprop": (RMSprop, torch.optim.RMSprop, {"lr": 0.01}, {}),
    "RMSprop, momentum": (RMSprop, torch.optim.RMSprop, {"lr": 0.003, "momentum": 0.7, "alpha": 0.9}, {}),
    "RMSprop, centered": (RMSprop, torch.optim.RMSprop, {"lr": 0.003, "centered": True, "eps": 1e-3}, {}),
    "RMSprop, both": (RMSprop, torch.optim.RMSprop, {"lr": 0.003, "centered": True, "momentum": 0.5}, {}),
    "Adam": (Adam, torch.optim.Adam, {"lr": 0.01}, {}),
    "Adam, other": (Adam, torch.optim.Adam, {"lr": 0.01, "betas": (0.7, 0.95), "eps": 1e-2}, {}),
    "AMSGrad": (Adam, torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "betas": (0.9, 0.9)}, {}),
    "AdamW": (AdamW, torch.optim.AdamW, {"lr": 0.01}, {}),
    "AdamW, AMSGrad": (AdamW, torch.optim.AdamW, {"lr": 0.01, "amsgrad": True, "betas": (0.9, 0.9)}, {}),
    "Muon": (Muon, torch.optim.Muon, {"lr": 0.01}, {"adjust_lr_fn": "match_rms_adamw"}),
    "Muon, other": (
        *(Muon, torch.optim.Muon),
        *({"lr": 0.01, "momentum": 0.8, "ns_steps": 3}, {"adjust_lr_fn": "match_rms_adamw"}),
    ),
}
DECAYS = (None, 0.0, 0.1)  # none named, none, some


def convex() -> tuple[list[Tensor], Callable[[int], Tensor]]:
    """Least squares, by batches in turn."""
    random = torch.Generator().manual_seed(1)
    features, answers = (torch.randn(60, n, generator=random, dtype=torch.float64) for n in (6, 4))
    features *= torch.logspace(-1, 1, 6, dtype=torch.float64)
    weights = torch.randn(4, 6, generator=random, dtype=torch.float64).requires_grad_()

    def loss(step: int) -> Tensor:
        some = slice(20 * (step % 3), 20 * (step % 3) + 20)
        return (features[some] @ weights.T - answers[some]).square().mean()

    return [weights], loss


def network(dimensions: tuple[int, ...] = (1, 2, 4)) -> tuple[list[Tensor], Callable[[int], Tensor]]:
    """A small network with a convolution; only its parameters of so many dimensions move.

    None has a gradient of zero, but for rounding: Adam would make steps of that, and every order of adding up others.
    """
    random = torch.Generator().manual_seed(2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        body = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5)
        ).double()
    images = torch.randn(24, 2, 5, 5, generator=random, dtype=torch.float64)
    labels = torch.randint(0, 5, (24,), generator=random)

    def loss(step: int) -> Tensor:
        some = slice(8 * (step % 3), 8 * (step % 3) + 8)
        return F.cross_entropy(body(images[some]), labels[some])

    return [parameter for parameter in body.parameters() if parameter.ndim in dimensions], loss


def two_matrices() -> tuple[list[Tensor], Callable[[int], Tensor]]:
    first, second = (torch.eye(*shape, dtype=torch.float64).requires_grad_() for shape in ((3, 4), (4, 5)))
    return [first, second], lambda step: (first @ second - step % 3).square().mean()


def way(make: Make, problem: Callable[[], tuple[list[Tensor], Callable[[int], Tensor]]], steps: int = 200) -> Tensor:
    """All parameters before the first and after each step, (steps + 1, P)."""
    parameters, loss = problem()
    optimizer = make(parameters)
    rows = [torch.cat([parameter.detach().flatten() for parameter in parameters])]
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rows.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    return torch.stack(rows)


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("problem", ["convex", "network"])
@pytest.mark.parametrize("name", PAIRS)
def test_two_hundred_steps_are_pytorchs(name: str, problem: str, decay: float | None) -> None:
    make, torchs, settings, more = PAIRS[name]
    decays = {} if decay is None else {"weight_decay": decay}
    task = {"convex": convex, "network": network}[problem]
    if make is Muon and problem == "network":
        task = partial(network, (2,))  # PyTorch's takes nothing but matrices
    ours = way(lambda parameters: make(parameters, **settings, **decays), task)
    theirs = way(lambda parameters: torchs(parameters, **settings, **decays, **more), task)
    assert (theirs[-1] - theirs[0]).abs().max() > 0.01  # they did go somewhere
    assert_same(ours, theirs)


def test_muon_sees_filters_as_a_matrix_and_leaves_vectors_to_adamw() -> None:
    ours = way(lambda parameters: Muon(parameters, lr=0.01), network, 20)

    def both(parameters: list[Tensor]) -> Any:
        """PyTorch's Muon on views of the filters, its AdamW on the rest."""
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        views = [matrix.detach().flatten(1).requires_grad_() for matrix in matrices]
        muon = torch.optim.Muon(views, lr=0.01, adjust_lr_fn="match_rms_adamw")
        vectors = [parameter for parameter in parameters if parameter.ndim == 1]
        adamw = torch.optim.AdamW(vectors, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)

        class Both:
            def zero_grad(self) -> None:
                for matrix in matrices:
                    matrix.grad = None
                adamw.zero_grad()

            def step(self) -> None:
                for view, matrix in zip(views, matrices, strict=True):
                    assert matrix.grad is not None
                    view.grad = matrix.grad.flatten(1)
                muon.step()
                adamw.step()

        return Both()

    assert_same(ours, way(both, network, 20))


def test_muons_directions_are_about_equally_strong() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    for each in (matrix, matrix.T):
        made = optimizers.nearly_orthogonal(each).float()
        u, _, v = torch.linalg.svd(each, full_matrices=False)
        values = (u.T @ made @ v.T).diagonal()
        assert made.shape == each.shape
        assert values.min() > 0.6
        assert values.max() < 1.3


# --- in the place of PyTorch's --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRS)
def test_a_state_saved_and_loaded_goes_on_as_if_nothing_had_been(name: str, tmp_path: Any) -> None:
    make, _, settings, _ = PAIRS[name]

    def interrupted(parameters: list[Tensor]) -> Any:
        class Interrupted:
            optimizer = make(parameters, **settings)
            steps = 0

            def zero_grad(self) -> None:
                self.optimizer.zero_grad()

            def step(self) -> None:
                self.optimizer.step()
                self.steps += 1
                if self.steps == 7:
                    torch.save(self.optimizer.state_dict(), tmp_path / "state.pt")
                    self.optimizer = make(parameters, lr=123.0)
                    self.optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))

        return Interrupted()

    whole = way(lambda parameters: make(parameters, **settings), network, 15)
    assert torch.equal(way(interrupted, network, 15), whole)


@pytest.mark.parametrize("name", PAIRS)
def test_groups_have_settings_of_their_own(name: str) -> None:
    make, torchs, settings, more = PAIRS[name]
    task = two_matrices if make is Muon else network

    def grouped(make: Make, **settings: Any) -> Make:
        return lambda parameters: make(
            [{"params": parameters[:1], "lr": 0.02, "weight_decay": 0.3}, {"params": parameters[1:]}], **settings
        )

    ours = way(grouped(make, **settings), task, 20)
    assert_same(ours, way(grouped(torchs, **settings, **more), task, 20))
    assert not torch.equal(ours, way(lambda parameters: make(parameters, **settings), task, 20))


def test_a_group_added_later_is_moved_too() -> None:
    first, second = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = Adam([first], lr=0.1)
    optimizer.add_param_group({"params": [second], "lr": 0.2})
    (first.sum() + second.sum()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert first.tolist() == pytest.approx([0.9, 0.9])
    assert second.tolist() == pytest.approx([0.8, 0.8])


RULES = (SGD, Momentum, Nesterov, Adagrad, Adadelta, RMSprop, Adam, AdamW, Muon)


@pytest.mark.parametrize("rule", RULES)
def test_pytorchs_schedulers_set_its_rate(rule: type[Rule]) -> None:
    parameter = torch.ones(2, 2, requires_grad=True)
    optimizer = rule([parameter], lr=0.5)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    optimizer.step()  # the scheduler has put a setting of its own, initial_lr, into the group


@pytest.mark.parametrize("rule", RULES)
def test_what_has_no_gradient_stays(rule: type[Rule]) -> None:
    moved, still = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    optimizer = rule([moved, still], lr=0.1)
    moved.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert not torch.equal(moved, torch.ones(2, 2))
    assert torch.equal(still, torch.ones(2, 2))
    assert still not in optimizer.state


def test_a_closure_computes_the_loss_with_gradients() -> None:
    parameter = torch.ones(1, requires_grad=True)
    optimizer = SGD([parameter], lr=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    assert optimizer.step(closure).item() == 1
    assert parameter.item() == 0


@pytest.mark.parametrize("rule", RULES)
def test_the_gradient_is_left_as_it_was(rule: type[Rule]) -> None:
    parameter = torch.ones(2, 3, requires_grad=True)
    optimizer = rule([parameter], lr=0.1, weight_decay=0.1)
    (parameter * torch.arange(6.0).view(2, 3)).sum().backward()  # type: ignore[no-untyped-call]
    assert parameter.grad is not None
    before = parameter.grad.clone()
    optimizer.step()
    assert torch.equal(parameter.grad, before)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_can_be_copied_with_what_it_remembers(rule: type[Rule]) -> None:
    parameter = torch.ones(2, 2, requires_grad=True)
    optimizer = rule([parameter], lr=0.1)
    parameter.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    again = copy.deepcopy(optimizer)
    for each in (optimizer, again):
        for point in each.param_groups[0]["params"]:
            point.grad = torch.full((2, 2), 0.5)
        each.step()
    (moved,) = again.param_groups[0]["params"]
    assert torch.equal(moved, parameter)
    assert moved is not parameter


@pytest.mark.parametrize("rule", RULES)
def test_help_shows_the_settings_and_they_are_pytorchs(rule: type[Rule]) -> None:
    shown = inspect.signature(rule).parameters
    assert [*shown][:2] == ["params", "lr"]
    torchs = inspect.signature(getattr(torch.optim, rule.__name__, torch.optim.SGD)).parameters
    for name in [*shown][1:]:
        # Momentum's has its usual size here; PyTorch's Muon has no vectors to move, and an eps for something else.
        if name in torchs and (name, rule) not in (("momentum", Momentum), ("momentum", Nesterov), ("eps", Muon)):
            assert shown[name].default == torchs[name].default, name


# --- what no rule can use -------------------------------------------------------------------------------------------

BAD: list[tuple[Make, Make, dict[str, Any]]] = [
    *(
        (rule, getattr(torch.optim, rule.__name__, torch.optim.SGD), {name: -0.1})
        for rule in RULES
        for name in ("lr", "weight_decay")
    ),
    (Momentum, torch.optim.SGD, {"momentum": -0.1}),
    (Nesterov, lambda p, **s: torch.optim.SGD(p, nesterov=True, **s), {"momentum": 0}),
    (Adagrad, torch.optim.Adagrad, {"lr_decay": -1}),
    (Adagrad, torch.optim.Adagrad, {"initial_accumulator_value": -1}),
    (Adagrad, torch.optim.Adagrad, {"eps": -1}),
    (Adadelta, torch.optim.Adadelta, {"rho": 1.1}),
    (Adadelta, torch.optim.Adadelta, {"rho": -0.1}),
    (Adadelta, torch.optim.Adadelta, {"eps": -1}),
    (RMSprop, torch.optim.RMSprop, {"alpha": -0.1}),
    (RMSprop, torch.optim.RMSprop, {"eps": -1}),
    (RMSprop, torch.optim.RMSprop, {"momentum": -1}),
    *(
        (rule, getattr(torch.optim, rule.__name__), settings)
        for rule in (Adam, AdamW)
        for settings in ({"betas": (1.0, 0.9)}, {"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"eps": -1})
    ),
    (Muon, torch.optim.Muon, {"momentum": -1}),
]


@pytest.mark.parametrize(("make", "torchs", "settings"), BAD)
def test_settings_that_pytorch_refuses_are_refused_by_name(make: Make, torchs: Make, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=r"(?i)invalid|should|requires"):
        torchs([torch.ones(2, 2, requires_grad=True)], **settings)
    with pytest.raises(ValueError, match=f"^{name} must"):
        make([torch.ones(2, 2, requires_grad=True)], **settings)
    with pytest.raises(ValueError, match=f"^{name} must"):
        make([{"params": [torch.ones(2, 2, requires_grad=True)], **settings}])


@pytest.mark.parametrize(
    ("make", "settings", "error"),
    [
        (SGD, {"lr": math.nan}, ValueError),
        (SGD, {"lr": math.inf}, ValueError),
        (SGD, {"lr": "fast"}, TypeError),
        (SGD, {"momentum": 0.9}, TypeError),  # SGD is plain here: Momentum has one
        (RMSprop, {"alpha": 1.5}, ValueError),
        (RMSprop, {"centered": 1}, TypeError),
        (Adam, {"betas": 0.9}, TypeError),
        (Adam, {"betas": (0.9,)}, TypeError),
        (Adam, {"amsgrad": "yes"}, TypeError),
        (Muon, {"ns_steps": 0}, ValueError),
    ],
)
def test_other_settings_that_make_no_sense_are_refused(make: Make, settings: dict[str, Any], error: type) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        make([torch.ones(2, 2, requires_grad=True)], **settings)


def test_sparse_and_complex_gradients_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense"):
        Adam(table.parameters()).step()
    complex_one = torch.ones(2, dtype=torch.complex64, requires_grad=True)
    complex_one.abs().sum().backward()  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="real"):
        SGD([complex_one]).step()


# --- what each rule is known by -------------------------------------------------------------------------------------


def one_step(rule: Make, gradient: Tensor, **settings: Any) -> Tensor:
    parameter = torch.zeros_like(gradient, requires_grad=True)
    parameter.grad = gradient
    rule([parameter], **settings).step()
    return parameter.detach()


def test_adams_first_step_is_the_sign_whatever_the_size_of_the_gradient() -> None:
    gradient = torch.tensor([1e-3, -5.0, 400.0], dtype=torch.float64)
    assert one_step(Adam, gradient, lr=0.1, eps=0.0).tolist() == pytest.approx([-0.1, 0.1, -0.1])


@pytest.mark.parametrize("rule", [SGD, Momentum, Nesterov])
def test_plain_descent_and_momentum_do_not_care_how_the_axes_lie(rule: type[Rule]) -> None:
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    curvature = torch.diag(torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64))

    def run(matrix: Tensor, start: Tensor) -> Tensor:
        point = start.clone().requires_grad_()
        optimizer = rule([point], lr=0.02)
        for _ in range(20):
            optimizer.zero_grad()
            (point @ matrix @ point).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return point.detach()

    start = torch.ones(4, dtype=torch.float64)
    turned = run(turn @ curvature @ turn.T, turn @ start)
    assert torch.allclose(turned, turn @ run(curvature, start), rtol=0, atol=1e-12)


def test_a_scaled_loss_changes_nothing_for_the_rules_that_divide_by_the_gradients_size() -> None:
    gradient = torch.tensor([0.3, -2.0], dtype=torch.float64)
    for rule in (Adagrad, RMSprop, Adam):
        assert torch.allclose(one_step(rule, gradient, eps=0.0), one_step(rule, 1000 * gradient, eps=0.0))
    assert not torch.allclose(one_step(SGD, gradient), one_step(SGD, 1000 * gradient))


def test_adam_with_a_huge_epsilon_is_momentum() -> None:
    """The root is then a constant, and m a mean of gradients with a factor: what Choi et al., 2019, build on."""
    scale = 1e9

    class Uncorrected(Adam):
        """Its rate undoes the correction of m, and that Adam takes a tenth of each gradient."""

        def step(self, closure: Any = None) -> Any:
            t = 1 + max((state["t"] for state in self.state.values()), default=0)
            self.param_groups[0]["lr"] = 0.01 * scale * (1 - 0.9**t) / 0.1
            return super().step(closure)

    ours = way(lambda parameters: Uncorrected(parameters, eps=scale), convex, 60)
    theirs = way(lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9), convex, 60)
    assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()
