"""Capture against what the network really computes, and against Captum."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from lessons_lib.hooks import Capture, evaluating, frozen


class Residual(nn.Module):
    """Overwrites its own inner activation twice: by a ReLU in place, and by an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.project = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.relu(self.conv(x)))
        out += x
        return out


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), Residual(), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def hooks_left(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def test_an_activation_is_captured_as_it_was_before_later_layers_overwrote_it(
    model: nn.Sequential, images: Tensor
) -> None:
    with Capture(model, ["0", "1.conv", "1.project", "1"]) as captured, torch.no_grad():
        model(images)
    first = model[0](images)
    inner = model[1].conv(first)
    torch.testing.assert_close(captured["0"], first)
    torch.testing.assert_close(captured["1.conv"], inner)
    projected = model[1].project(inner.relu())
    torch.testing.assert_close(captured["1.project"], projected)
    torch.testing.assert_close(captured["1"], projected + first)
    assert (captured["1.conv"] < 0).any()


def test_capturing_changes_no_logit(model: nn.Sequential, images: Tensor) -> None:
    with Capture(model, ["0", "1.conv"], gradients=True):
        captured = model(images)
    assert torch.equal(captured, model(images))


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_equal_captums(model: nn.Sequential, images: Tensor, frozen: bool) -> None:
    from captum.attr import LayerGradientXActivation

    model.requires_grad_(not frozen)
    layers = {"first": model[0], "inner": model[1].conv, "block": model[1]}
    with Capture(model, layers, gradients=True) as captured:
        scores = model(images)[:, 2]
    gradients = captured.gradients(scores)
    for name, layer in layers.items():
        oracle = LayerGradientXActivation(model, layer).attribute(images.clone().requires_grad_(), target=2)
        torch.testing.assert_close(gradients[name] * captured[name], oracle)
    assert all(p.grad is None for p in model.parameters())


def test_gradients_for_two_targets_come_from_one_forward_pass(model: nn.Sequential, images: Tensor) -> None:
    with Capture(model, "1", gradients=True) as captured:
        logits = model(images)
    both = captured.gradients(logits[:, 0] + logits[:, 1], retain_graph=True)["1"]
    one = captured.gradients(logits[:, 0], retain_graph=True)["1"]
    two = captured.gradients(logits[:, 1])["1"]
    torch.testing.assert_close(both, one + two)


def test_a_layer_the_score_does_not_depend_on_has_gradient_zero(images: Tensor) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return self.used(x)

    model = Two()
    with Capture(model, ["used", "unused"], gradients=True) as captured:
        scores = model(images)
    assert captured.gradients(scores)["unused"].eq(0).all()


def test_the_forward_pass_stops_behind_the_last_layer_wanted(model: nn.Sequential, images: Tensor) -> None:
    ran = []
    handles = [m.register_forward_hook(lambda m, i, o: ran.append(m)) for m in model]
    with Capture(model, ["0", "1.conv"], stop=True) as captured:
        model(images)
        pytest.fail("the block goes on behind the stopped forward pass")
    for handle in handles:
        handle.remove()
    assert ran == [model[0]]
    torch.testing.assert_close(captured["1.conv"], model[1].conv(model[0](images)))
    assert hooks_left(model) == 0


def test_stopping_inside_another_capture_ends_the_right_block(model: nn.Sequential, images: Tensor) -> None:
    with Capture(model, "1", stop=True) as outer:
        with Capture(model, "0") as inner:
            model(images)
        pytest.fail("the outer capture asked for the stop")
    assert set(inner) == {"0"}
    assert set(outer) == {"1"}


def test_no_hook_is_left_behind_after_an_exception(model: nn.Sequential) -> None:
    with pytest.raises(RuntimeError), Capture(model, ["0", "1"], gradients=True):
        model(torch.rand(2, 7, 9, 9))
    assert hooks_left(model) == 0


def test_the_last_of_several_forward_passes_counts(model: nn.Sequential, images: Tensor) -> None:
    with Capture(model, "0") as captured:
        model(images)
        model(images[:1])
    assert captured["0"].shape[0] == 1


def test_mode_and_parameters_stay_as_they_were(model: nn.Sequential, images: Tensor) -> None:
    model.train().requires_grad_(False)
    with Capture(model, "1", gradients=True) as captured:
        scores = model(images).sum()
    captured.gradients(scores)
    assert model.training
    assert not any(p.requires_grad for p in model.parameters())


class Shortcut(nn.Module):
    """Its first layer hands its input on, which a later layer then overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut, self.relu, self.conv = nn.Identity(), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        skip = self.shortcut(x)
        return self.conv(self.relu(x)) + skip


def test_a_layer_that_hands_its_input_through_is_captured_as_it_was_and_changes_nothing() -> None:
    torch.manual_seed(0)
    model, images = Shortcut(), torch.randn(2, 3, 4, 4)
    with Capture(model, "shortcut") as captured:
        logits = model(images)
    assert torch.equal(captured["shortcut"], images)
    assert torch.equal(logits, model(images))
    with Capture(model, "shortcut", gradients=True), pytest.raises(ValueError, match="hands its input through"):
        model(images)


def test_scores_of_another_forward_pass_are_refused(model: nn.Sequential, images: Tensor) -> None:
    model.requires_grad_(False)
    with Capture(model, "1", gradients=True) as captured:
        first = model(images)
        model(images / 2)
    with pytest.raises(ValueError, match="another forward pass"):
        captured.gradients(first[:, 0])


def test_a_capture_cannot_be_entered_twice_and_leaves_no_hook(model: nn.Sequential, images: Tensor) -> None:
    with Capture(model, "0") as captured:
        with pytest.raises(RuntimeError, match="active already"), captured:
            pass
        model(images)
    assert hooks_left(model) == 0
    with captured:
        model(images[:1])
    assert captured["0"].shape[0] == 1


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ("nine", ValueError, "no module named 'nine'"),
        ([], ValueError, "empty"),
        (nn.ReLU(), ValueError, "not a module of this model"),
        ({"a": nn.ReLU()}, ValueError, "not a module of this model"),
        ({"a": 3}, TypeError, "'a' is int"),
        ([3], TypeError, "not int"),
        (3, TypeError, "not int"),
    ],
)
def test_wrong_layers_are_refused_before_any_work(
    model: nn.Sequential, layers: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Capture(model, layers)  # type: ignore[arg-type]


def test_other_misuse_is_told_plainly(model: nn.Sequential, images: Tensor) -> None:
    with pytest.raises(TypeError, match="model must be"):
        Capture(lambda x: x, "0")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave out stop"):
        Capture(model, "0", gradients=True, stop=True)
    with Capture(model, "0") as captured:
        with pytest.raises(KeyError, match="has not run"):
            captured["0"]
        model(images)
    with pytest.raises(KeyError, match="was not asked for"):
        captured["1"]
    with pytest.raises(ValueError, match="gradients=True"):
        captured.gradients(model(images))
    with Capture(model, "0", gradients=True) as captured:
        with pytest.raises(ValueError, match="nothing was captured"):
            captured.gradients(torch.ones(1, requires_grad=True))
        with pytest.raises(ValueError, match="no_grad"), torch.no_grad():
            model(images)
        model(images)
        with pytest.raises(ValueError, match="scores must be"):
            captured.gradients(torch.ones(1))


def test_a_layer_that_is_never_reached_is_told_from_a_model_that_was_not_called(images: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model[0].spare = nn.ReLU()
    with Capture(model, "0.spare") as captured:
        with pytest.raises(KeyError, match="call the model"):
            captured["0.spare"]
        model(images)
    with pytest.raises(KeyError, match="does not reach it"):
        captured["0.spare"]


def test_a_layer_that_runs_twice_or_puts_out_a_tuple_is_refused(images: Tensor) -> None:
    relu = nn.ReLU()
    twice = nn.Sequential(relu, nn.Conv2d(3, 3, 1), relu)
    with pytest.raises(ValueError, match="more than once"), Capture(twice, "0"):
        twice(images)
    recurrent = nn.Sequential(nn.LSTM(3, 3))
    with pytest.raises(TypeError, match="not one tensor"), Capture(recurrent, "0"):
        recurrent(torch.rand(2, 3, 3))


def test_modes_and_flags_come_back_although_setting_them_fails() -> None:
    class Stubborn(nn.Module):
        def train(self, mode: bool = True) -> Stubborn:
            if not mode:
                raise RuntimeError("no")
            return super().train(mode)

    model = nn.Sequential(nn.Linear(2, 2), Stubborn())
    with pytest.raises(RuntimeError, match="no"), evaluating(model):
        pytest.fail("the mode was not set")
    assert model.training and model[0].training


def test_frozen_parameters_ask_again_afterwards_and_those_of_inference_mode_are_left_alone() -> None:
    with torch.inference_mode():
        made = nn.Linear(2, 2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False), made)
    with suppress(KeyError), frozen(model):
        assert not any(parameter.requires_grad for parameter in model[:2].parameters())
        raise KeyError
    assert [layer.weight.requires_grad for layer in model] == [True, False, True]
