"""Whatever explains a decision leaves the model, and chance, as they were: after an answer, and after an exception."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from networks import InPlace, meet, pictures
from torch import Tensor, nn
from torch.overrides import _len_torch_function_stack

from lessons_lib import fooling, gradcam, saliency, trust

LAYER = "features.7"
NAMES = {
    saliency: (
        *("saliency", "input_gradient", "input_x_gradient", "smooth_grad", "integrated_gradients"),
        *("deconvnet", "guided_backprop", "occlusion"),
    ),
    gradcam: (
        *("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "layer_cam", "eigen_cam", "score_cam"),
        *("ablation_cam", "guided_grad_cam"),
    ),
}


def fool(model: nn.Module, images: Tensor, target: Any = 2) -> Tensor:
    return fooling.fool(model, images, 2 if target is None else target, steps=4)


def report(model: nn.Module, images: Tensor, target: Any = None) -> Tensor:
    return fooling.report(model, images, 1 - images.detach(), target).probability


def curve(of: Callable[..., trust.Curve], model: nn.Module, images: Tensor, target: Any = None) -> Tensor:
    return of(model, images, images.detach()[:, 0], target, steps=3).scores


ATTACKS: dict[str, Callable[..., Tensor]] = {
    "fool": fool,
    "fgsm": partial(fooling.fgsm, epsilon=0.1),
    "pgd": partial(fooling.pgd, epsilon=0.1, steps=3),
    "deep_fool": partial(fooling.deep_fool, steps=3),
    "one_pixel": partial(fooling.one_pixel, population=4, steps=2),
    "universal_perturbation": partial(fooling.universal_perturbation, steps=3),
    "report": report,
    "deletion": partial(curve, trust.deletion),
    "insertion": partial(curve, trust.insertion),
}
METHODS = [
    *((name, getattr(module, name), module is gradcam) for module, names in NAMES.items() for name in names),
    *((name, attack, False) for name, attack in ATTACKS.items()),
]


WITHOUT_GRADIENT = (
    *("occlusion", "eigen_cam", "score_cam", "ablation_cam", "one_pixel", "report", "deletion", "insertion"),
)


@pytest.fixture
def model() -> nn.Module:
    """In training, some of it frozen, with a gradient already there, hooks of its owner, and chance inside."""
    torch.manual_seed(0)
    model = InPlace().train()
    model.head = nn.Sequential(nn.Dropout(0.5), model.head)
    model.features[5].eval()
    model.features[0].weight.requires_grad_(False)
    model(pictures()).sum().backward()
    model.shortcut.register_forward_hook(lambda *_: None)
    model.features[3].register_forward_pre_hook(lambda *_: None)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """All that could be seen to have changed."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "same tensors": {name: id(tensor) for name, tensor in tensors.items()},
        "flags": {name: tensor.requires_grad for name, tensor in tensors.items()},
        "gradients": {name: None if t.grad is None else t.grad.clone() for name, t in tensors.items()},
        "modes": [module.training for module in model.modules()],
        "modules": {name: id(module) for name, module in model.named_modules()},
        "hooks": [
            [
                list(hooks)
                for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
            ]
            for m in model.modules()
        ],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "chance": torch.get_rng_state(),
        "graph": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "ways of calling functions": _len_torch_function_stack(),
    }


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def call(method: Callable[..., Tensor], of_a_layer: bool, model: nn.Module, images: Tensor, target: Any = None) -> None:
    arguments = [images, *([LAYER] if of_a_layer else [])]
    method(model, *arguments, *(() if method is gradcam.eigen_cam else (target,)))


@pytest.mark.parametrize(("name", "method", "of_a_layer"), METHODS)
@pytest.mark.parametrize("graph", [True, False])
def test_nothing_has_changed_after_an_answer(
    name: str, method: Callable[..., Tensor], of_a_layer: bool, graph: bool, model: nn.Module
) -> None:
    images = pictures().requires_grad_()
    before, pixels = state(model), images.detach().clone()
    with torch.set_grad_enabled(graph):
        call(method, of_a_layer, model, images)
        call(method, of_a_layer, model, images, torch.tensor([1, 2]))
    assert_same(state(model), before)
    assert torch.equal(images.detach(), pixels) and images.grad is None and images.requires_grad


class Interrupted(BaseException):
    """Like a KeyboardInterrupt: not an Exception."""


@pytest.mark.parametrize(("name", "method", "of_a_layer"), METHODS)
@pytest.mark.parametrize("error", [ValueError, RuntimeError, Interrupted])
@pytest.mark.parametrize("when", [1, 2, 3])
def test_nothing_has_changed_after_an_exception(
    name: str, method: Callable[..., Tensor], of_a_layer: bool, error: type[BaseException], when: int, model: nn.Module
) -> None:
    """From inside the model, in its first, second or third forward pass, or on the way back to its first layer."""
    meet(model, pictures())
    runs = []

    def fail(*_: Any) -> None:
        runs.append(1)
        if len(runs) >= when:
            raise error("on purpose")

    model.shortcut.register_forward_hook(fail)
    before = state(model)
    try:
        call(method, of_a_layer, model, pictures(), 1)
    except error as raised:
        told = str(raised)
    else:
        told = "no exception"
    # Some ask the model once only, and Eigen-CAM stops before it gets there.
    assert told == "on purpose" if len(runs) >= when else told == "no exception"
    assert_same(state(model), before)


@pytest.mark.parametrize("error", [ValueError, Interrupted])
def test_nothing_has_changed_after_the_look_at_a_new_network(error: type[BaseException], model: nn.Module) -> None:
    """An exception in it is met again by the pass that follows; what is no Exception ends it."""

    def fail(*_: Any) -> None:
        raise error("on purpose")

    hook = model.shortcut.register_forward_hook(fail)
    before = state(model)
    if error is Interrupted:
        with pytest.raises(Interrupted):
            meet(model, pictures())
    else:
        meet(model, pictures())
    assert_same(state(model), before)
    hook.remove()
    before = state(model)
    meet(model, pictures())
    assert_same(state(model), before)


@pytest.mark.parametrize(("name", "method", "of_a_layer"), METHODS)
def test_nothing_has_changed_after_an_exception_on_the_way_back(
    name: str, method: Callable[..., Tensor], of_a_layer: bool, model: nn.Module
) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise RuntimeError("on the way back")

    model.features[8].register_forward_hook(lambda module, inputs, output: Fails.apply(output))
    before = state(model)
    target = None if name == "deep_fool" else 1  # which asks for none where a picture is not read as the class
    if name in WITHOUT_GRADIENT:
        call(method, of_a_layer, model, pictures(), target)  # needs no gradient
    else:
        with pytest.raises(RuntimeError, match="on the way back"):
            call(method, of_a_layer, model, pictures(), target)
    assert_same(state(model), before)


@pytest.mark.parametrize(("name", "method", "of_a_layer"), METHODS)
def test_nothing_has_changed_after_a_refusal(
    name: str, method: Callable[..., Tensor], of_a_layer: bool, model: nn.Module
) -> None:
    before = state(model)
    for images, target in ((pictures()[0], 1), (pictures(), 99), (pictures(), lambda logits: logits)):
        if target != 1 and method is gradcam.eigen_cam:
            continue
        with pytest.raises((TypeError, ValueError), match=r"images|target|labels"):
            call(method, of_a_layer, model, images, target)
    assert_same(state(model), before)


@pytest.mark.parametrize(("name", "method", "of_a_layer"), METHODS)
def test_a_model_in_training_is_explained_as_it_answers_at_work(
    name: str, method: Callable[..., Tensor], of_a_layer: bool, model: nn.Module
) -> None:
    arguments = [pictures(), *([LAYER] if of_a_layer else [])]
    in_training = method(model, *arguments)
    at_work = method(model.eval(), *arguments)
    assert torch.equal(in_training, at_work)
