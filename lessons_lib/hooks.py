"""Look at what flows through a network: the output of chosen layers, and the gradient that arrives there."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

Layers = nn.Module | str | Iterable[nn.Module | str] | Mapping[str, nn.Module]


class Capture(Mapping[str, Tensor]):
    """Within the `with`, what `layers` put out in the last forward pass of `model`: name -> tensor, in running order.

    `layers` is a mapping from names to modules, or modules or their names in `model`, one or several; later layers that
    work in place do not change what was captured. With `gradients=True`, `gradients(scores)` tells how scores change
    with each. With `stop=True` the forward pass ends behind the last layer wanted, and the `with` block with it:

        with Capture(model, "features.0", stop=True) as captured:
            model(images)
        captured["features.0"]

    Raises TypeError or ValueError for layers that are not in `model`; a layer must run once in a forward pass and put
    out one tensor. Whatever happens inside, the hooks are gone afterwards.
    """

    def __init__(self, model: nn.Module, layers: Layers, *, gradients: bool = False, stop: bool = False) -> None:
        check_model(model)
        if gradients and stop:
            raise ValueError("gradients=True needs the scores at the end of the forward pass: leave out stop=True")
        self._model = model
        self._layers = named_layers(model, layers)
        self._wants_gradients = gradients
        self._stop = stop
        self._outputs: dict[str, Tensor] = {}
        self._ran = False
        self._hooks: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._hooks is not None:
            raise RuntimeError("this Capture is active already: make another one for the inner `with`")
        with ExitStack() as hooks:
            hooks.callback(self._model.register_forward_pre_hook(self._forget).remove)
            for name, layer in self._layers.items():
                hooks.callback(layer.register_forward_hook(self._keep(name)).remove)
            self._hooks = hooks.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._hooks is not None:
            self._hooks.close()
            self._hooks = None
        return isinstance(error, _Stopped) and error.by is self

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._layers:
            raise KeyError(f"layer {name!r} was not asked for: {', '.join(self._layers)} were")
        if name not in self._outputs:
            reason = "the forward pass does not reach it" if self._ran else "call the model inside the `with` block"
            raise KeyError(f"layer {name!r} has not run: {reason}")
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def gradients(self, scores: Tensor, *, retain_graph: bool = False) -> dict[str, Tensor]:
        """How the sum of `scores` (any shape) changes with each captured output: name -> tensor of its shape.

        Differentiates to those layers alone, not to every parameter. Raises ValueError without `gradients=True`,
        or where `scores` did not come from the last forward pass.
        """
        if not self._wants_gradients:
            raise ValueError("no gradients were asked for: write Capture(..., gradients=True)")
        if not self._outputs:
            raise ValueError("nothing was captured: call the model inside the `with` block")
        if not isinstance(scores, Tensor) or not scores.requires_grad:
            raise ValueError("scores must be a tensor computed by the model inside the `with` block, with its graph")
        outputs = list(self._outputs.values())
        found = torch.autograd.grad(scores.sum(), outputs, retain_graph=retain_graph, allow_unused=True)
        if all(gradient is None for gradient in found):
            raise ValueError("scores do not depend on any captured layer: were they computed in another forward pass?")
        return {
            name: torch.zeros_like(output) if gradient is None else gradient
            for (name, output), gradient in zip(self._outputs.items(), found, strict=True)
        }

    def _forget(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._outputs, self._ran = {}, True

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
            if not isinstance(output, Tensor):
                raise TypeError(f"layer {name!r} puts out {type(output).__name__}, not one tensor")
            if name in self._outputs:
                raise ValueError(f"layer {name!r} runs more than once in a forward pass: which output is meant?")
            # A later layer that works in place (ReLU(inplace=True), `out += x`) would overwrite what is kept here,
            # silently, and there is no telling from outside whether one follows. So one of the two is a copy.
            if not self._wants_gradients:
                last = self._stop and len(self._outputs) + 1 == len(self._layers)
                own = last and not _hands_through(module, inputs, output)
                self._outputs[name] = output if own else output.clone()
                if last:
                    raise _Stopped(self)
                return None
            if not torch.is_grad_enabled():
                raise ValueError("gradients=True inside torch.no_grad(): there is no graph to differentiate")
            if _hands_through(module, inputs, output):
                raise ValueError(f"layer {name!r} hands its input through: ask for the gradient at the layer before it")
            if not output.requires_grad:
                # The graph begins here: with a frozen network nothing before this layer needs one.
                output = output.detach().requires_grad_()
            self._outputs[name] = output
            return output.clone()

        return hook


def _hands_through(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> bool:
    """Whether the output is the input, or a view of it: a copy of it would then cut what others do to that input."""
    if getattr(module, "inplace", False):
        return False
    place = output.untyped_storage().data_ptr()
    return any(isinstance(x, Tensor) and x.untyped_storage().data_ptr() == place for x in inputs)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the `with`, every module of `model` is in evaluation mode; afterwards each is in the mode it had."""
    modes = {module: module.training for module in model.modules()}
    try:
        if any(modes.values()):
            model.eval()
        yield
    finally:
        for module, training in modes.items():
            if module.training != training:
                module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Within the `with`, no parameter of `model` asks for a gradient; afterwards those do that did before.

    ValueError where no gradient can pass the model, because it was made in inference mode.
    """
    # Made in inference mode, a parameter cannot have a gradient, whatever it says.
    trainable = [each for each in model.parameters() if each.requires_grad and not each.is_inference()]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    except RuntimeError as error:
        if "nference tensor" in str(error) and any(each.is_inference() for each in model.state_dict().values()):
            raise ValueError("model was made in inference mode: no gradient can pass it. Make it outside") from error
        raise
    finally:
        for parameter in trainable:
            parameter.requires_grad_()


class _Stopped(Exception):
    """Ends a forward pass whose rest nobody needs."""

    def __init__(self, by: Capture) -> None:
        super().__init__("the forward pass was stopped behind the last captured layer")
        self.by = by


_RUN_ONCE: weakref.WeakKeyDictionary[nn.Module, weakref.WeakSet[nn.Module]] = weakref.WeakKeyDictionary()


def check_runs_once(model: nn.Module, layers: Iterable[nn.Module], images: Tensor) -> None:
    """ValueError where one of `layers` runs more than once on a picture: of which run would its output be?

    A forward pass that stops behind the first run cannot see the others. So one that does not counts the runs of every
    module, on the first of `images` (N, C, H, W), when a model is met for the first time.
    """
    once = _RUN_ONCE.setdefault(model, weakref.WeakSet())
    wanted = {layer for layer in layers if layer not in once}
    if not wanted:
        return
    runs = Counter[nn.Module]()

    def count(layer: nn.Module, inputs: Any, output: Any) -> None:
        runs[layer] += 1

    with ExitStack() as hooks, torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(model):
        for layer in model.modules():
            hooks.callback(layer.register_forward_hook(count).remove)
        with suppress(Exception):  # behind the layers that are wanted, a network need not fit the picture
            model(images[:1].clone())
            once.update(layer for layer, times in runs.items() if times == 1)
    for name, layer in model.named_modules():
        if layer in wanted and runs[layer] > 1:
            raise ValueError(f"layer {name!r} runs more than once in a forward pass: which output is meant?")


def check_model(model: Any) -> None:
    """TypeError unless `model` is a network."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")


def named_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The modules of `model` that `layers` means, by name; TypeError or ValueError where one is not in it."""
    if isinstance(layers, str):
        return {layers: _submodule(model, layers)}
    names = {module: name for name, module in model.named_modules()}
    if isinstance(layers, nn.Module):
        layers = [layers]
    chosen: dict[str, nn.Module] = {}
    if isinstance(layers, Mapping):
        chosen = dict(layers)
    else:
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers must be modules of the model or their names, not {type(layers).__name__}")
        for layer in layers:
            if isinstance(layer, str):
                chosen[layer] = _submodule(model, layer)
            elif isinstance(layer, nn.Module):
                chosen[names.get(layer) or type(layer).__name__] = layer
            else:
                raise TypeError(f"layers must be modules of the model or their names, not {type(layer).__name__}")
    if not chosen:
        raise ValueError("layers is empty: name at least one module of the model")
    for name, layer in chosen.items():
        if not isinstance(layer, nn.Module):
            raise TypeError(f"layers: {name!r} is {type(layer).__name__}, not a module of the model")
        if layer not in names:
            raise ValueError(f"layers: {type(layer).__name__} is not a module of this model")
    return chosen


def _submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ValueError(f"layers: the model has no module named {name!r}") from None
