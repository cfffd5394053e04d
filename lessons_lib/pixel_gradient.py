"""The gradient of the pixels, faster: what a network's first convolution costs on the way back.

PyTorch differentiates a convolution with steps of 2 and three input channels several times as slowly on a CPU as it
computes it. But that gradient is a convolution without steps as well: each of the 2 x 2 places that a step passes over
gets a filter of its own, made of every second weight (Shi et al., 2016, call its output sub-pixels). That one is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_FEW_CHANNELS = 4  # with many, PyTorch's own way is the faster one


class fast_pixel_gradient(TorchFunctionMode):
    """Within the `with`, convolutions of pictures on a CPU with frozen weights and steps above 1 go backward faster.

    The values are the same up to rounding. With `torch.utils.checkpoint` the backward pass has to be inside as well.
    Of the transforms of `torch.func`, those that go backward work here too.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and _fits(*args):
            return _SteppedConvolution.apply(*args[:5])  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _fits(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    return (
        x.device.type == "cpu"
        and x.ndim == 4
        and x.requires_grad
        and x.shape[1] <= _FEW_CHANNELS
        and not weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and isinstance(stride, tuple)
        and isinstance(padding, tuple)
        and max(stride) > 1
        and set(dilation) == {1}
        and groups == 1
    )


class _SteppedConvolution(torch.autograd.Function):
    generate_vmap_rule = True  # for many gradients at once, by torch.func

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(weight)
        ctx.size, ctx.dtype = x.shape[2:], x.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        (down, across), (height, width) = ctx.stride, ctx.size
        filters, channels, rows, columns = weight.shape
        # Weight k of a row meets pixel (step * stride + k). With k = stride * turn + phase, each phase is a row of
        # pixels of its own, on which the weights of that phase move by one pixel a step.
        turns = -(-rows // down), -(-columns // across)
        padded = functional.pad(weight, (0, turns[1] * across - columns, 0, turns[0] * down - rows))
        phases = padded.view(filters, channels, turns[0], down, turns[1], across).flip(2, 4)
        kernel = phases.permute(1, 3, 5, 0, 2, 4).reshape(channels * down * across, filters, *turns)
        # With autocast the answer, and so its gradient, is of another type than the weights.
        kernel = kernel.to(gradient.dtype).contiguous(memory_format=torch.channels_last)
        parts = functional.conv2d(gradient, kernel, padding=(turns[0] - 1, turns[1] - 1))
        parts = parts.unflatten(1, (channels, down, across)).permute(0, 1, 4, 2, 5, 3)
        pixels = parts.flatten(4, 5).flatten(2, 3)  # (N, channels, H, W), with the padding still around them
        top, left = ctx.padding
        # What lies behind the last step was seen by no filter: zeros.
        pixels = functional.pad(pixels, (0, left + width - pixels.shape[3], 0, top + height - pixels.shape[2]))
        return pixels[:, :, top:, left:].to(ctx.dtype), None, None, None, None
