"""The exercises of chapter 1, Filters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .exercise import Exercise, Mistake

# --- 1.1: the dot product as similarity --------------------------------------------------------------------------


def _patches_and_filter() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    patches = torch.randn(6, 3, 4, 4, generator=random) + 0.5
    sought = torch.randn(3, 4, 4, generator=random)
    patches[1] = 3 * sought  # the same direction, longer
    patches[2] = -sought
    patches = patches * torch.tensor([1.0, 1.0, 1.0, 4.0, 0.2, 1.0]).view(-1, 1, 1, 1)
    nothing = torch.rand(5, 1, 2, 5, generator=random)
    nothing[1] = 0
    nothing[2] -= nothing[2].mean()  # the mean is 0, and in the next one a number is: neither is a patch of zeros
    nothing[3, 0, 0, 0] = 0
    nothing[4] *= 0.01  # weak, but it points somewhere
    return {
        "six patches": (patches, sought),
        "five grey patches, one of zeros, one very weak": (nothing, torch.randn(1, 2, 5, generator=random)),
    }


def _cosine(patches: Tensor, sought: Tensor) -> Tensor:
    dot = (patches * sought).sum(dim=(1, 2, 3))
    lengths = patches.square().sum(dim=(1, 2, 3)).sqrt() * sought.square().sum().sqrt()
    return torch.where(lengths > 0, dot / lengths.clamp(min=1e-12), 0.0)


def _cosine_built_in(patches: Tensor, sought: Tensor) -> Tensor:
    return functional.cosine_similarity(patches.flatten(1), sought.flatten()[None], dim=1)


def _cosine_by_directions(patches: Tensor, sought: Tensor) -> Tensor:
    return functional.normalize(patches.flatten(1), dim=1) @ functional.normalize(sought.flatten(), dim=0)


def _dot(patches: Tensor, sought: Tensor) -> Tensor:
    return torch.einsum("nchw,chw->n", patches, sought)


def _length(patches: Tensor) -> Tensor:
    return patches.flatten(1).norm(dim=1)


def _filter_length_only(patches: Tensor, sought: Tensor) -> Tensor:
    return _dot(patches, sought) / sought.norm()


def _patch_length_only(patches: Tensor, sought: Tensor) -> Tensor:
    return _dot(patches, sought) / _length(patches).clamp(min=1e-12)


def _squared_lengths(patches: Tensor, sought: Tensor) -> Tensor:
    return _dot(patches, sought) / (_length(patches).square() * sought.square().sum()).clamp(min=1e-12)


def _one_length_for_all(patches: Tensor, sought: Tensor) -> Tensor:
    return _dot(patches, sought) / (patches.norm() * sought.norm())


def _sums_of_sizes(patches: Tensor, sought: Tensor) -> Tensor:
    return _dot(patches, sought) / (patches.abs().flatten(1).sum(dim=1) * sought.abs().sum()).clamp(min=1e-12)


def _means_removed(patches: Tensor, sought: Tensor) -> Tensor:
    return _cosine(patches - patches.mean(dim=(1, 2, 3), keepdim=True), sought - sought.mean())


def _zero_by_zero(patches: Tensor, sought: Tensor) -> Tensor:
    return _dot(patches, sought) / (_length(patches) * sought.norm())


def _patch_length_squared(patches: Tensor, sought: Tensor) -> Tensor:
    return _dot(patches, sought) / (_length(patches).square() * sought.norm()).clamp(min=1e-12)


def _times_the_length(patches: Tensor, sought: Tensor) -> Tensor:
    return _patch_length_only(patches, sought) * sought.norm()


def _without_sign(patches: Tensor, sought: Tensor) -> Tensor:
    return _cosine(patches, sought).abs()


def _angle(patches: Tensor, sought: Tensor) -> Tensor:
    return _cosine(patches, sought).clamp(-1, 1).acos()


def _angle_in_degrees(patches: Tensor, sought: Tensor) -> Tensor:
    return torch.rad2deg(_angle(patches, sought))


def _across_channels_only(patches: Tensor, sought: Tensor) -> Tensor:
    return functional.cosine_similarity(patches, sought[None], dim=1)


_SIMILARITY = Exercise(
    name="similarity",
    number="1.1",
    title="How alike are patch and filter?",
    prompt="Return the cosine of the angle between the filter and each patch, (N,); 0 for a patch of zeros.",
    reference=_cosine,
    cases=_patches_and_filter,
    alternatives=(_cosine_built_in, _cosine_by_directions),
    bounds=(-1.0, 1.0),
    mistakes=(
        Mistake(
            _dot,
            "This is the dot product itself: it grows with contrast as well. Divide it by both lengths, and only the "
            "angle is left.",
        ),
        Mistake(
            _filter_length_only,
            "You divide by the length of the filter only: a patch with more contrast still scores higher. Divide by "
            "the length of each patch too.",
        ),
        Mistake(
            _patch_length_only,
            "You divide by the lengths of the patches only: with a filter twice as large the result would double. "
            "Divide by the filter's length too.",
        ),
        Mistake(
            _squared_lengths,
            "You divide by the squared lengths. The length of a vector is the *root* of the sum of its squares.",
        ),
        Mistake(
            _patch_length_squared,
            "The length of the filter is right, but for the patches you divide by the squared length: take the root "
            "there too.",
        ),
        Mistake(
            _times_the_length,
            "You divide by one length and multiply by the other: `a / b * c` is `(a / b) * c`. Put the product of the "
            "lengths in brackets.",
        ),
        Mistake(
            _without_sign,
            "You lose the sign: a patch that points the other way has the cosine -1, not 1.",
        ),
        Mistake(_angle, "This is the angle itself, in radians. Asked is its cosine: one step less."),
        Mistake(_angle_in_degrees, "This is the angle itself, in degrees. Asked is its cosine: one step less."),
        Mistake(
            _one_length_for_all,
            "You divide by one length, that of all patches together. Each patch has a length of its own: sum over "
            "its channels, rows and columns, not over the patches.",
        ),
        Mistake(
            _sums_of_sizes,
            "You divide by sums of absolute values. The length that belongs to the dot product is the root of the "
            "sum of squares.",
        ),
        Mistake(
            _means_removed,
            "You take the mean out of patch and filter first. That is the correlation coefficient; the cosine takes "
            "the numbers as they are.",
        ),
        Mistake(
            _zero_by_zero,
            "Right, but for a patch of zeros you divide 0 by 0, which gives NaN. Such a patch points nowhere: "
            "return 0 for it.",
        ),
        Mistake(
            _across_channels_only,
            "This compares the colours at each place, and gives a map for each patch. One number for each patch is "
            "wanted: sum over channels, rows *and* columns.",
        ),
    ),
    hints=(
        "The cosine is the dot product divided by the length of the one and the length of the other.",
        "Sum over channels, rows and columns, and keep the patches apart: `.sum(dim=(1, 2, 3))`. For lengths, "
        "`patches.flatten(1).norm(dim=1)` does it.",
        "For a patch of zeros the length is 0. `torch.where`, or a tiny number that a length is never allowed to go "
        "below (`.clamp(min=1e-12)`), avoids 0 / 0.",
    ),
)


# --- 1.2: convolution by hand ------------------------------------------------------------------------------------


def _images_and_filters() -> dict[str, tuple[Tensor, Tensor, float, int]]:
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    return {
        "a grey picture, stride 1": (normal(1, 6, 8), normal(1, 3, 3), 0.0, 1),
        "three channels, a filter that is not square, a bias": (normal(3, 7, 6), normal(3, 3, 2), 0.7, 1),
        "stride 2": (normal(2, 9, 11), normal(2, 3, 3), -0.4, 2),
        "stride 3, some pixels left over": (normal(2, 9, 12), normal(2, 2, 4), 0.3, 3),
    }


def _convolution(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    _, height, width = weights.shape
    rows = (image.shape[1] - height) // stride + 1
    columns = (image.shape[2] - width) // stride + 1
    response = torch.zeros(rows, columns)
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            patch = image[:, top : top + height, left : left + width]
            response[row, column] = (patch * weights).sum() + bias
    return response


def _built_in(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return functional.conv2d(image[None], weights[None], stride=stride)[0, 0] + bias


def _by_unfold(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    _, height, width = weights.shape
    patches = image.unfold(1, height, stride).unfold(2, width, stride)  # (C, H', W', h, w)
    return torch.einsum("cyxhw,chw->yx", patches, weights) + bias


def _mirrored(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights.flip(1, 2), bias, stride)


def _no_bias(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, 0.0, stride)


def _bias_at_every_weight(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, bias * weights.numel(), stride)


def _bias_in_every_channel(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, bias * len(weights), stride)


def _stride_only_in_the_size(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    full = _built_in(image, weights, bias, stride)
    return _built_in(image, weights, bias, 1)[: full.shape[0], : full.shape[1]]


def _stride_ignored(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, bias, 1)


def _last_place_missing(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, bias, stride)[:-1, :-1]


def _last_place_missing_by_range(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    rows = len(range(0, image.shape[1] - weights.shape[1], stride))
    columns = len(range(0, image.shape[2] - weights.shape[2], stride))
    return _built_in(image, weights, bias, stride)[:rows, :columns]


def _divided_sizes(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    _, height, width = weights.shape
    return torch.zeros((image.shape[1] - height) / stride + 1, (image.shape[2] - width) / stride + 1)  # type: ignore[call-overload]


def _divided_ranges(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return torch.tensor([0.0 for _ in range((image.shape[1] - weights.shape[1]) / stride + 1)])  # type: ignore[call-overload]


def _mirrored_left_right(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights.flip(2), bias, stride)


def _mirrored_top_bottom(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights.flip(1), bias, stride)


def _bias_subtracted(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, -bias, stride)


def _channels_apart(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return functional.conv2d(image[None], weights[:, None], stride=stride, groups=len(image))[0] + bias


def _first_channel_only(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image[:1], weights[:1], bias, stride)


def _mean_instead_of_sum(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights / weights.numel(), bias, stride)


def _with_relu(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, bias, stride).relu()


def _rows_and_columns_swapped(image: Tensor, weights: Tensor, bias: float, stride: int) -> Tensor:
    return _built_in(image, weights, bias, stride).T


_CONVOLUTION = Exercise(
    name="convolve",
    number="1.2",
    title="Convolution by hand",
    prompt="Return the response of one filter at every place of a picture, (H', W'), by two loops over the places.",
    reference=_convolution,
    cases=_images_and_filters,
    alternatives=(_built_in, _by_unfold),
    mistakes=(
        Mistake(
            _mirrored,
            "You mirror the filter. That is the mathematician's convolution; what networks compute is the plain "
            "dot product of patch and filter, as the formula says.",
        ),
        Mistake(_mirrored_left_right, "You mirror the filter left to right. Leave it as it is."),
        Mistake(_mirrored_top_bottom, "You turn the filter upside down. Leave it as it is."),
        Mistake(_no_bias, "The bias is missing: add it to the sum at each place."),
        Mistake(_bias_subtracted, "You subtract the bias: add it."),
        Mistake(
            _bias_at_every_weight,
            "You add the bias inside the sum, once for each weight. It belongs behind the sum, once for each place.",
        ),
        Mistake(
            _bias_in_every_channel,
            "You add the bias once for each channel. It belongs to the filter: once for each place.",
        ),
        Mistake(
            _stride_only_in_the_size,
            "The size is right, but your patches lie side by side. With a stride of 2 the filter moves two pixels "
            "each time: the patch for row `i` of the result begins at row `stride * i`.",
        ),
        Mistake(
            _stride_ignored,
            "You ignore the stride: the filter should move that many pixels at a time, so that there are fewer places.",
        ),
        Mistake(
            _last_place_missing,
            "The last row and column of places are missing: an off-by-one. There is one place more than steps.",
        ),
        Mistake(
            _last_place_missing_by_range,
            "The last row and column of places are missing: `range(0, H - h, stride)` stops before `H - h`, where the "
            "filter still fits. Go to `H - h + 1`.",
        ),
        Mistake(_divided_sizes, "A size must be a whole number, and `/` makes none: use `//`."),
        Mistake(_divided_ranges, "A number of steps must be whole, and `/` makes none: use `//`."),
        Mistake(
            _channels_apart,
            "You keep the channels apart. A filter has weights for all channels and adds everything into one number.",
        ),
        Mistake(
            _first_channel_only, "You use the first channel only. The sum runs over all channels of picture and filter."
        ),
        Mistake(_mean_instead_of_sum, "You take the mean of the products. The response is their sum."),
        Mistake(
            _with_relu,
            "You cut the negative responses off. That is the ReLU, a step of its own: the filter alone may answer "
            "with negative numbers.",
        ),
        Mistake(
            _rows_and_columns_swapped,
            "Rows and columns have changed places: the first index of the result is the row.",
        ),
    ),
    hints=(
        "How many places are there? A filter of height `h` fits `(H - h) // stride + 1` times below one another.",
        "The patch at place (row, column) is `image[:, top : top + h, left : left + w]` with "
        "`top = row * stride` and `left = column * stride`.",
        "At each place: multiply patch and filter number by number, add up everything, then add the bias.",
    ),
)


# --- 1.3: normalize for display ----------------------------------------------------------------------------------


def _filters() -> dict[str, tuple[Tensor]]:
    random = torch.Generator().manual_seed(2)
    strengths = torch.tensor([5.0, 0.3, 1.0, 2.0]).view(-1, 1, 1, 1)
    some = strengths * (torch.randn(4, 3, 5, 5, generator=random) + 0.2)
    constant = torch.randn(2, 3, 2, 3, generator=random)
    constant[1] = 0.25
    return {"four filters, some strong and some weak": (some,), "a filter whose weights are all equal": (constant,)}


def _stretch(filters: Tensor, dim: tuple[int, ...]) -> Tensor:
    low, high = filters.amin(dim=dim, keepdim=True), filters.amax(dim=dim, keepdim=True)
    return torch.where(high > low, (filters - low) / (high - low).clamp(min=1e-12), 0.5)


def _each_filter(filters: Tensor) -> Tensor:
    return _stretch(filters, (1, 2, 3))


def _one_after_the_other(filters: Tensor) -> Tensor:
    pictures = []
    for weights in filters:
        spread = weights.max() - weights.min()
        picture = torch.full_like(weights, 0.5) if spread == 0 else (weights - weights.min()) / spread
        pictures.append(picture)
    return torch.stack(pictures)


def _from_the_middle(filters: Tensor) -> Tensor:
    flat = filters.flatten(1)
    low, high = flat.min(dim=1).values, flat.max(dim=1).values
    middle, half = (high + low) / 2, (high - low) / 2
    half = torch.where(half == 0, 1.0, half)
    return ((flat - middle[:, None]) / (2 * half[:, None]) + 0.5).view_as(filters)


def _all_together(filters: Tensor) -> Tensor:
    return _stretch(filters, (0, 1, 2, 3))


def _each_channel(filters: Tensor) -> Tensor:
    return _stretch(filters, (2, 3))


def _across_the_filters(filters: Tensor) -> Tensor:
    return _stretch(filters, (0,))


def _clamped(filters: Tensor) -> Tensor:
    return filters.clamp(0, 1)


def _sizes(filters: Tensor) -> Tensor:
    return filters.abs() / filters.abs().amax(dim=(1, 2, 3), keepdim=True)


def _by_the_largest(filters: Tensor) -> Tensor:
    return filters / filters.amax(dim=(1, 2, 3), keepdim=True)


def _around_zero(filters: Tensor) -> Tensor:
    return 0.5 + 0.5 * filters / filters.abs().amax(dim=(1, 2, 3), keepdim=True)


def _squashed(filters: Tensor) -> Tensor:
    return filters.sigmoid()


def _constant_by_zero(filters: Tensor) -> Tensor:
    low, high = filters.amin(dim=(1, 2, 3), keepdim=True), filters.amax(dim=(1, 2, 3), keepdim=True)
    return (filters - low) / (high - low)


def _constant_black(filters: Tensor) -> Tensor:
    low, high = filters.amin(dim=(1, 2, 3), keepdim=True), filters.amax(dim=(1, 2, 3), keepdim=True)
    return (filters - low) / (high - low + 1e-12)


_DISPLAY = Exercise(
    name="to_pictures",
    number="1.3",
    title="Make filters fit to be shown",
    prompt="Stretch each filter by itself to [0, 1]: its smallest weight becomes 0, its largest 1; equal ones 0.5.",
    reference=_each_filter,
    cases=_filters,
    alternatives=(_one_after_the_other, _from_the_middle),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _all_together,
            "You use one minimum and maximum for all filters together: weak filters come out as even grey. Each "
            "filter has its own.",
        ),
        Mistake(
            _each_channel,
            "You stretch each channel by itself, which changes the colours: red, green and blue no longer have one "
            "scale. Take the minimum over channels, rows and columns.",
        ),
        Mistake(
            _across_the_filters,
            "You take minimum and maximum across the filters, for each weight. Take them within each filter: over "
            "all dimensions but the first.",
        ),
        Mistake(
            _clamped,
            "You cut off what lies outside [0, 1]. All negative weights become 0, half of the filter is lost: shift "
            "and stretch instead.",
        ),
        Mistake(
            _sizes,
            "You show the size of the weights without their sign: what the filter likes and what it dislikes look "
            "the same.",
        ),
        Mistake(
            _by_the_largest,
            "You divide by the largest weight, but negative weights stay negative: subtract the smallest first.",
        ),
        Mistake(
            _around_zero,
            "You keep zero in the middle. That is a good picture too (it shows the sign), but asked is: the smallest "
            "weight becomes 0, the largest 1.",
        ),
        Mistake(
            _squashed,
            "A sigmoid bends the scale: large weights come out alike. Shift and stretch in a straight line.",
        ),
        Mistake(
            _constant_by_zero,
            "Right, but for a filter whose weights are all equal you divide 0 by 0, which gives NaN. Make it 0.5.",
        ),
        Mistake(
            _constant_black,
            "Right, but a filter whose weights are all equal comes out black, which would say: as low as can be. "
            "Make it 0.5, neither low nor high.",
        ),
    ),
    hints=(
        "Subtract the filter's smallest weight, then divide by what is the largest now.",
        "`filters.amin(dim=(1, 2, 3), keepdim=True)` is the smallest weight of each filter, in a shape that "
        "broadcasts.",
        "Where largest and smallest are equal, use `torch.where` to put 0.5.",
    ),
)


# --- 1.4: orientation selectivity --------------------------------------------------------------------------------


def _tuning_curves() -> dict[str, tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(3)
    angles = torch.arange(0.0, 180.0, 15.0)
    radians = torch.deg2rad(angles)
    prefers = torch.tensor([0.0, 40.0, 95.0, 170.0])[:, None]
    away = torch.deg2rad(angles - prefers)
    bumps = torch.exp(torch.tensor([8.0, 1.0, 4.0, 0.3])[:, None] * (torch.cos(2 * away) - 1))
    curves = torch.tensor([1.0, 6.0, 0.5, 2.0])[:, None] * bumps + 0.05 * torch.rand(4, 12, generator=random)
    silent = torch.stack([torch.zeros(12), torch.ones(12), 1 + torch.cos(2 * radians)])
    return {
        "four filters, sharp and blunt, strong and weak": (curves, angles),
        "a filter that never answers, one that always does, one in between": (silent, angles),
        "two very weak filters": (0.001 * curves[:2], angles),
        "angles that are not evenly spaced": (curves[:, :5], torch.tensor([0.0, 20.0, 55.0, 80.0, 150.0])),
    }


def _resultant(curves: Tensor, angles: Tensor) -> Tensor:
    turns = torch.exp(2j * torch.deg2rad(angles))
    total = curves.sum(dim=1)
    return (curves * turns).sum(dim=1).abs() / torch.where(total > 0, total, 1.0)


def _sines_and_cosines(curves: Tensor, angles: Tensor) -> Tensor:
    twice = 2 * torch.deg2rad(angles)
    share = curves / curves.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return ((share @ torch.cos(twice)).square() + (share @ torch.sin(twice)).square()).sqrt()


def _one_by_one(curves: Tensor, angles: Tensor) -> Tensor:
    values = []
    for responses in curves:
        x = (responses * torch.cos(2 * torch.deg2rad(angles))).sum()
        y = (responses * torch.sin(2 * torch.deg2rad(angles))).sum()
        values.append(torch.hypot(x, y) / max(responses.sum().item(), 1e-12))
    return torch.stack(values)


def _share(curves: Tensor) -> Tensor:
    return curves / curves.sum(dim=1, keepdim=True).clamp(min=1e-12)


def _not_doubled(curves: Tensor, angles: Tensor) -> Tensor:
    return (_share(curves) * torch.exp(1j * torch.deg2rad(angles))).sum(dim=1).abs()


def _degrees_as_radians(curves: Tensor, angles: Tensor) -> Tensor:
    return (_share(curves) * torch.exp(2j * angles)).sum(dim=1).abs()


def _degrees_not_doubled(curves: Tensor, angles: Tensor) -> Tensor:
    return (_share(curves) * torch.exp(1j * angles)).sum(dim=1).abs()


def _squared(curves: Tensor, angles: Tensor) -> Tensor:
    return _not_divided(curves, angles).square() / curves.sum(dim=1).clamp(min=1e-12)


def _square_of_it(curves: Tensor, angles: Tensor) -> Tensor:
    return _resultant(curves, angles).square()


def _one_sum_for_all(curves: Tensor, angles: Tensor) -> Tensor:
    return _not_divided(curves, angles) / curves.sum()


def _not_divided(curves: Tensor, angles: Tensor) -> Tensor:
    return (curves * torch.exp(2j * torch.deg2rad(angles))).sum(dim=1).abs()


def _divided_by_the_count(curves: Tensor, angles: Tensor) -> Tensor:
    return (curves * torch.exp(2j * torch.deg2rad(angles))).mean(dim=1).abs()


def _divided_by_the_peak(curves: Tensor, angles: Tensor) -> Tensor:
    return _not_divided(curves, angles) / curves.amax(dim=1).clamp(min=1e-12)


def _variance(curves: Tensor, angles: Tensor) -> Tensor:
    return 1 - _resultant(curves, angles)


def _real_part_only(curves: Tensor, angles: Tensor) -> Tensor:
    return (_share(curves) @ torch.cos(2 * torch.deg2rad(angles))).abs()


def _strongest(curves: Tensor, angles: Tensor) -> Tensor:
    return curves.amax(dim=1)


def _still_complex(curves: Tensor, angles: Tensor) -> Tensor:
    return (_share(curves) * torch.exp(2j * torch.deg2rad(angles))).sum(dim=1)


def _silent_by_zero(curves: Tensor, angles: Tensor) -> Tensor:
    return _not_divided(curves, angles) / curves.sum(dim=1)


def _index(curves: Tensor, angles: Tensor) -> Tensor:
    return _resultant(curves, angles).argmax()


_SELECTIVITY = Exercise(
    name="orientation_selectivity",
    number="1.4",
    title="The most orientation-selective filter",
    prompt="From tuning curves (K, A) and their angles (A,), return each filter's orientation selectivity, (K,).",
    reference=_resultant,
    cases=_tuning_curves,
    alternatives=(_sines_and_cosines, _one_by_one),
    bounds=(0.0, 1.0),
    mistakes=(
        Mistake(
            _not_doubled,
            "The angles are not doubled. Stripes turned by 180 degrees are the same stripes, and must point the same "
            "way in the sum: use twice the angle.",
        ),
        Mistake(
            _degrees_as_radians,
            "Sine, cosine and the exponential want radians, and the angles come in degrees: `torch.deg2rad`.",
        ),
        Mistake(
            _degrees_not_doubled,
            "Two things: the angles come in degrees and the exponential wants radians (`torch.deg2rad`), and stripes "
            "turned by 180 degrees are the same stripes: use twice the angle.",
        ),
        Mistake(_squared, "The root is missing: the length of an arrow is the root of the sum of two squares."),
        Mistake(_square_of_it, "This is the square of the selectivity: take the root of the sum of the two squares."),
        Mistake(
            _one_sum_for_all,
            "You divide by one sum, that of all filters together. Each filter has its own: `.sum(dim=1)`.",
        ),
        Mistake(
            _not_divided,
            "You do not divide by the sum of the responses: a strong filter counts as a selective one.",
        ),
        Mistake(
            _divided_by_the_count,
            "You divide by the number of angles: a strong filter still counts as a selective one. Divide by the sum "
            "of its responses.",
        ),
        Mistake(
            _divided_by_the_peak,
            "You divide by the largest response, and the result is no longer confined to 0 to 1. Divide by the sum.",
        ),
        Mistake(
            _variance,
            "This is the circular variance: large for a filter that does *not* care about the angle. The selectivity "
            "is 1 minus it.",
        ),
        Mistake(
            _real_part_only,
            "You use the cosine alone: a filter that prefers 45 degrees would count as not selective. The length of "
            "an arrow needs sine and cosine.",
        ),
        Mistake(
            _strongest,
            "This is how strongly each filter responds at its best angle. Selective is not the same as strong: how "
            "much *less* does it respond at the others?",
        ),
        Mistake(_still_complex, "The sum is a complex number, an arrow. Asked is its length: `.abs()`."),
        Mistake(
            _silent_by_zero,
            "Right, but for a filter that never answers you divide 0 by 0, which gives NaN. Make it 0.",
        ),
        Mistake(_index, "This is the index of the most selective filter. Return the selectivity of each: (K,)."),
    ),
    hints=(
        "Draw each response as an arrow: as long as the response, turned by *twice* the angle. Add the arrows up.",
        "In complex numbers: `(curves * torch.exp(2j * radians)).sum(dim=1)`, and `.abs()` is the length.",
        "Divide by the sum of the responses, so that only the form of the curve counts; where that sum is 0, return 0.",
    ),
)

EXERCISES = (_SIMILARITY, _CONVOLUTION, _DISPLAY, _SELECTIVITY)
