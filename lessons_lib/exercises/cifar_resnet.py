"""The exercises of chapter 10, Training a CIFAR ResNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from .exercise import Answer, Exercise, Mistake

# --- 10.1: normalize, and undo it ---------------------------------------------------------------------------------


def _pictures() -> dict[str, tuple[Tensor, Tensor, bool]]:
    random = torch.Generator().manual_seed(0)
    tint, spread = torch.tensor([0.5, 0.3, 0.6]).view(3, 1, 1), torch.tensor([0.1, 0.2, 0.05]).view(3, 1, 1)
    train = tint + spread * torch.randn(6, 3, 3, 3, generator=random)
    train[:3] += 0.2  # pictures differ in brightness: their own means are not the mean of all
    pictures = torch.rand(2, 3, 3, 3, generator=random)
    numbers = 3 * torch.randn(4, 3, 3, 3, generator=random)  # some come back outside of [0, 1]
    return {
        "two pictures to normalize": (pictures, train, False),
        "normalized pictures to bring back": (numbers, train, True),
        "one of the training pictures, by all of them": (train[:1].clone(), train, False),
    }


def _statistics(train: Tensor) -> tuple[Tensor, Tensor]:
    mean = train.mean(dim=(0, 2, 3))
    std = train.std(dim=(0, 2, 3), correction=0)
    return mean.view(3, 1, 1), std.view(3, 1, 1)


def _normalize(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return images * std + mean if undo else (images - mean) / std


def _normalize_by_channel(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    done = images.clone()
    for channel in range(3):
        values = train[:, channel]
        mean, std = values.mean(), values.std(correction=0)
        done[:, channel] = done[:, channel] * std + mean if undo else (done[:, channel] - mean) / std
    return done


def _normalize_by_moments(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    flat = train.transpose(0, 1).flatten(1)
    mean = flat.mean(dim=1)
    std = (flat.square().mean(dim=1) - mean.square()).sqrt()
    mean, std = mean[:, None, None], std[:, None, None]
    return torch.addcmul(mean, images, std) if undo else images / std - mean / std


Both = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _by_statistics(of: Both) -> Answer:
    """An answer that is right but for its statistics, of(images, train)."""

    def answer(images: Tensor, train: Tensor, undo: bool) -> Tensor:
        mean, std = of(images, train)
        return images * std + mean if undo else (images - mean) / std

    answer.__name__ = of.__name__
    return answer


@_by_statistics
def _of_the_pictures_themselves(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return _statistics(images)


@_by_statistics
def _each_picture_its_own(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return images.mean(dim=(2, 3), keepdim=True), images.std(dim=(2, 3), correction=0, keepdim=True)


@_by_statistics
def _of_a_sample(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return _statistics(train)[0], train.std(dim=(0, 2, 3)).view(3, 1, 1)


@_by_statistics
def _of_all_pictures_there_are(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return _statistics(torch.cat([images, train]))


@_by_statistics
def _one_for_all_channels(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return train.mean(), train.std(correction=0)


@_by_statistics
def _by_variance(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = _statistics(train)
    return mean, std**2


@_by_statistics
def _mean_of_deviations(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return _statistics(train)[0], train.std(dim=(2, 3), correction=0).mean(dim=0).view(3, 1, 1)


@_by_statistics
def _along_the_width(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = _statistics(train)
    return mean.view(3), std.view(3)


@_by_statistics
def _along_the_height(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = _statistics(train)
    return mean.view(3, 1), std.view(3, 1)


@_by_statistics
def _each_place_its_own(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return train.mean(dim=0), train.std(dim=0, correction=0)


@_by_statistics
def _halves(images: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    return torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.5)


def _never_back(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    return _normalize(images, train, False)


def _back_in_the_wrong_order(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return (images + mean) * std if undo else (images - mean) / std


def _back_with_the_wrong_sign(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return images * std - mean if undo else (images - mean) / std


def _back_by_division(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return images / std + mean if undo else (images - mean) / std


def _divided_first(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return images * std + mean if undo else images / std - mean


def _divided_first_and_undone_so(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return (images + mean) * std if undo else images / std - mean


def _multiplied(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return images * std + mean if undo else (images - mean) * std


def _multiplied_and_undone_so(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, std = _statistics(train)
    return images / std + mean if undo else (images - mean) * std


def _only_centred(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    mean, _ = _statistics(train)
    return images + mean if undo else images - mean


def _only_scaled(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    _, std = _statistics(train)
    return images * std if undo else images / std


def _the_other_way_round(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    return _normalize(images, train, not undo)


def _back_and_cut(images: Tensor, train: Tensor, undo: bool) -> Tensor:
    done = _normalize(images, train, undo)
    return done.clamp(0, 1) if undo else done


_NORMALIZE = Exercise(
    name="normalize",
    number="10.1",
    title="Normalize, and undo it",
    prompt="Given pictures (N, 3, H, W), the training pictures (M, 3, H, W) and whether to undo, return the pictures "
    "normalized by mean and standard deviation of the training pictures, channel by channel; with `undo`, bring "
    "normalized pictures back. The deviation is that of all numbers at hand (`correction=0`).",
    reference=_normalize,
    cases=_pictures,
    alternatives=(_normalize_by_channel, _normalize_by_moments),
    tolerance=2e-5,  # the two deviations, of all and of a sample, must not pass for one
    mistakes=(
        Mistake(
            _of_the_pictures_themselves,
            "You take mean and deviation of the pictures that are to be normalized. A network has learned with those "
            "of the training pictures; with others it would see other colours in every batch.",
        ),
        Mistake(
            _each_picture_its_own,
            "Each of your pictures is normalized by its own mean and deviation, and so dark and light ones become "
            "alike. Take those of all training pictures.",
        ),
        Mistake(
            _of_a_sample,
            "The deviation is a little too large: `std` divides by one less than there are values, an estimate from a "
            "sample. Here they are all there are: `correction=0`.",
        ),
        Mistake(
            _of_all_pictures_there_are,
            "The pictures to be normalized are in your mean and deviation too. Take the training pictures alone, or a "
            "test picture has a say in how it is read.",
        ),
        Mistake(
            _one_for_all_channels,
            "You take one mean and one deviation for all three channels. Red, green and blue have their own: average "
            "over pictures, rows and columns, `dim=(0, 2, 3)`.",
        ),
        Mistake(_by_variance, "You scale by the variance. The standard deviation is its square root."),
        Mistake(
            _mean_of_deviations,
            "Your deviation is the mean of those of the single pictures. It leaves out how much the pictures differ "
            "from one another: take it over all pictures at once.",
        ),
        Mistake(
            _along_the_width,
            "Your three means are laid along the width, which here also happens to be 3. PyTorch matches shapes from "
            "the last: a channel's number needs the shape (3, 1, 1).",
        ),
        Mistake(
            _along_the_height,
            "Your three means are laid along the height: the shape (3, 1) matches rows. Channels need (3, 1, 1).",
        ),
        Mistake(
            _each_place_its_own,
            "You take a mean for each place of the picture. A channel has one, over pictures, rows and columns.",
        ),
        Mistake(
            _halves,
            "You use 0.5 for all means and deviations. That brings [0, 1] to [-1, 1], and is a habit from elsewhere: "
            "here the training pictures say what they are.",
        ),
        Mistake(_never_back, "`undo` changes nothing in your function: there is a way back to write, too."),
        Mistake(
            _back_in_the_wrong_order,
            "On the way back you add the mean first and then multiply. What was done last is undone first: multiply, "
            "then add.",
        ),
        Mistake(_back_with_the_wrong_sign, "On the way back you take the mean away once more. It has to be added."),
        Mistake(_back_by_division, "On the way back you divide by the deviation once more. It has to be multiplied."),
        Mistake(
            _divided_first,
            "You divide first and take the mean away after. The mean is that of pictures as they are: take it first.",
        ),
        Mistake(
            _divided_first_and_undone_so,
            "You divide first and take the mean away after, and undo just that. The two fit, and both are in the wrong "
            "order: the mean is that of pictures as they are.",
        ),
        Mistake(
            _multiplied,
            "You multiply by the deviation to normalize. Divide: a channel that varies little is stretched.",
        ),
        Mistake(
            _multiplied_and_undone_so,
            "Multiplication and division have changed places, there and back: to normalize is to divide.",
        ),
        Mistake(_only_centred, "The mean is right. The deviation is missing: divide by it."),
        Mistake(_only_scaled, "The deviation is right. The mean is missing: take it away before you divide."),
        Mistake(_the_other_way_round, "The two ways are exchanged: with `undo` you normalize, and without you undo."),
        Mistake(
            _back_and_cut,
            "You cut what comes back to [0, 1]. Undoing is exact: leave out `clamp`, or you cannot see when something "
            "else is wrong.",
        ),
    ),
    hints=(
        "`train.mean(dim=(0, 2, 3))` has the shape (3,). Which shape lets it meet pictures (N, 3, H, W)?",
        "`.view(3, 1, 1)` does. The deviation likewise, with `train.std(dim=(0, 2, 3), correction=0)`.",
        "Normalizing is minus, then divided; undoing is times, then plus.",
    ),
)


# --- 10.2: a residual block ---------------------------------------------------------------------------------------

Layers = tuple[Tensor, nn.Module, nn.Module, nn.Module, nn.Module, nn.Module]


def _blocks() -> dict[str, Layers]:
    random = torch.Generator().manual_seed(0)

    def convolution(channels_in: int, channels: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
        layer = nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)
        layer.weight.data = 0.4 * torch.randn(layer.weight.shape, generator=random)
        return layer

    def norm(channels: int) -> nn.BatchNorm2d:
        layer = nn.BatchNorm2d(channels).eval()
        for values in (layer.weight.data, layer.bias.data, layer.running_mean):
            assert values is not None
            values.copy_(torch.randn(channels, generator=random))
        layer.weight.data.abs_().add_(0.5)
        return layer

    def frozen(*layers: nn.Module) -> tuple[nn.Module, ...]:
        return tuple(layer.requires_grad_(False) for layer in layers)

    x = torch.randn(2, 3, 6, 6, generator=random)
    same = frozen(convolution(3, 3), norm(3), convolution(3, 3), norm(3), nn.Identity())
    shortcut = nn.Sequential(convolution(3, 5, 1, 2), norm(5))
    halved = frozen(convolution(3, 5, 3, 2), norm(5), convolution(5, 5), norm(5), shortcut)
    return {
        "a block that keeps the shape": (x, *same),  # type: ignore[dict-item]
        "a block that halves the picture": (x, *halved),  # type: ignore[dict-item]
    }


def _residual_block(
    x: Tensor, conv1: nn.Module, norm1: nn.Module, conv2: nn.Module, norm2: nn.Module, shortcut: nn.Module
) -> Tensor:
    correction = norm2(conv2(relu(norm1(conv1(x)))))
    return relu(shortcut(x) + correction)


def _block_by_modules(
    x: Tensor, conv1: nn.Module, norm1: nn.Module, conv2: nn.Module, norm2: nn.Module, shortcut: nn.Module
) -> Tensor:
    path = nn.Sequential(conv1, norm1, nn.ReLU(), conv2, norm2)
    total: Tensor = torch.stack([path(x), shortcut(x)]).sum(dim=0)
    return total.clamp(min=0)


def _block_in_place(
    x: Tensor, conv1: nn.Module, norm1: nn.Module, conv2: nn.Module, norm2: nn.Module, shortcut: nn.Module
) -> Tensor:
    out = norm1(conv1(x)).relu_()
    out = norm2(conv2(out))
    out += shortcut(x)
    activation: Tensor = out.relu_()
    return activation


class _Layers(NamedTuple):
    conv1: nn.Module
    norm1: nn.Module
    conv2: nn.Module
    norm2: nn.Module
    shortcut: nn.Module


def _of_layers(block: Callable[[Tensor, _Layers], Tensor]) -> Answer:
    def answer(
        x: Tensor, conv1: nn.Module, norm1: nn.Module, conv2: nn.Module, norm2: nn.Module, shortcut: nn.Module
    ) -> Tensor:
        return block(x, _Layers(conv1, norm1, conv2, norm2, shortcut))

    answer.__name__ = block.__name__
    return answer


@_of_layers
def _plain(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.norm2(of.conv2(relu(of.norm1(of.conv1(x))))))


@_of_layers
def _no_inner_relu(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + of.norm2(of.conv2(of.norm1(of.conv1(x)))))


@_of_layers
def _no_last_relu(x: Tensor, of: _Layers) -> Tensor:
    total: Tensor = of.shortcut(x) + of.norm2(of.conv2(relu(of.norm1(of.conv1(x)))))
    return total


@_of_layers
def _relu_before_the_sum(x: Tensor, of: _Layers) -> Tensor:
    total: Tensor = of.shortcut(x) + relu(of.norm2(of.conv2(relu(of.norm1(of.conv1(x))))))
    return total


@_of_layers
def _relu_twice(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + relu(of.norm2(of.conv2(relu(of.norm1(of.conv1(x)))))))


@_of_layers
def _the_input_itself(x: Tensor, of: _Layers) -> Tensor:
    return relu(x + of.norm2(of.conv2(relu(of.norm1(of.conv1(x))))))


@_of_layers
def _norms_left_out(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + of.conv2(relu(of.conv1(x))))


@_of_layers
def _first_norm_left_out(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + of.norm2(of.conv2(relu(of.conv1(x)))))


@_of_layers
def _norms_exchanged(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + of.norm1(of.conv2(relu(of.norm2(of.conv1(x))))))


@_of_layers
def _no_relu_at_all(x: Tensor, of: _Layers) -> Tensor:
    total: Tensor = of.shortcut(x) + of.norm2(of.conv2(of.norm1(of.conv1(x))))
    return total


@_of_layers
def _x_overwritten(x: Tensor, of: _Layers) -> Tensor:
    x = of.norm2(of.conv2(relu(of.norm1(of.conv1(x)))))
    return relu(x + of.shortcut(x))


@_of_layers
def _shortcut_taken_away(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.norm2(of.conv2(relu(of.norm1(of.conv1(x))))) - of.shortcut(x))


@_of_layers
def _second_norm_left_out(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + of.conv2(relu(of.norm1(of.conv1(x)))))


@_of_layers
def _norm_after_relu(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + of.norm2(of.conv2(of.norm1(relu(of.conv1(x))))))


@_of_layers
def _norm_of_the_sum(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.norm2(of.shortcut(x) + of.conv2(relu(of.norm1(of.conv1(x))))))


@_of_layers
def _subtracted(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) - of.norm2(of.conv2(relu(of.norm1(of.conv1(x))))))


@_of_layers
def _averaged(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x) + of.norm2(of.conv2(relu(of.norm1(of.conv1(x)))))) / 2


@_of_layers
def _side_by_side(x: Tensor, of: _Layers) -> Tensor:
    return relu(torch.cat([of.shortcut(x), of.norm2(of.conv2(relu(of.norm1(of.conv1(x)))))], dim=1))


@_of_layers
def _shortcut_around_one(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.norm2(of.conv2(relu(of.shortcut(x) + of.norm1(of.conv1(x))))))


@_of_layers
def _shortcut_of_relu(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(relu(x)) + of.norm2(of.conv2(relu(of.norm1(of.conv1(relu(x)))))))


@_of_layers
def _only_the_shortcut(x: Tensor, of: _Layers) -> Tensor:
    return relu(of.shortcut(x))


_RESIDUAL = Exercise(
    name="residual_block",
    number="10.2",
    title="A residual block",
    prompt="Given x (N, C, H, W) and five modules, two convolutions with their normalizations and a shortcut, return "
    "what a residual block makes of x: convolution, normalization, ReLU, convolution, normalization; then the shortcut "
    "of x is added, and a last ReLU.",
    reference=_residual_block,
    cases=_blocks,
    alternatives=(_block_by_modules, _block_in_place),
    mistakes=(
        Mistake(_plain, "There is no shortcut in your block: nothing is added, and this is two plain layers."),
        Mistake(
            _no_inner_relu,
            "The ReLU between the two convolutions is missing. Without it two convolutions are no more than one.",
        ),
        Mistake(_no_last_relu, "The last ReLU is missing: the sum goes through one more."),
        Mistake(
            _relu_before_the_sum,
            "The ReLU comes before the sum. Then a block could only ever add, and never take away: it belongs after.",
        ),
        Mistake(
            _relu_twice,
            "There is a ReLU before the sum and one after. The one before lets a correction only add: leave it out.",
        ),
        Mistake(
            _the_input_itself,
            "You add x as it is. Where a block halves the picture or has more channels, x does not fit: that is what "
            "`shortcut` is for, and elsewhere it changes nothing.",
        ),
        Mistake(_norms_left_out, "Both normalizations are missing, one behind each convolution."),
        Mistake(
            _first_norm_left_out,
            "The first normalization is missing, behind the first convolution. Is its result assigned to anything?",
        ),
        Mistake(_norms_exchanged, "The two normalizations have changed places: `norm1` belongs behind `conv1`."),
        Mistake(
            _no_relu_at_all, "There is no ReLU in your block. One stands between the convolutions, one at the end."
        ),
        Mistake(
            _x_overwritten,
            "You have overwritten x on the way: when the shortcut is taken, x is no longer the block's input. Give "
            "another name to what comes out of the convolutions.",
        ),
        Mistake(_shortcut_taken_away, "You take the shortcut away from the correction. The two are added."),
        Mistake(_second_norm_left_out, "The second normalization is missing, behind the second convolution."),
        Mistake(_norm_after_relu, "You normalize after the inner ReLU. In this block the order is norm, then ReLU."),
        Mistake(
            _norm_of_the_sum,
            "You add the shortcut before the second normalization, and so it is normalized too. Its way should be "
            "free: normalize the correction alone, then add.",
        ),
        Mistake(_subtracted, "You take the correction away. It is added."),
        Mistake(_averaged, "You halve the sum. It is a sum, not a mean."),
        Mistake(
            _side_by_side,
            "You lay the two side by side, as other channels. That is how a DenseNet joins them; a ResNet adds.",
        ),
        Mistake(_shortcut_around_one, "Your shortcut goes around the first convolution only. It goes around both."),
        Mistake(_shortcut_of_relu, "You put x through a ReLU first. The shortcut takes x as it is, below 0 too."),
        Mistake(_only_the_shortcut, "Only the shortcut is left: the correction is to be added to it."),
    ),
    hints=(
        "Two ways lead from x to the sum: the shortcut, and the two convolutions.",
        "`correction = norm2(conv2(relu(norm1(conv1(x)))))` is the one.",
        "The other is `shortcut(x)`. Add, and then `relu`.",
    ),
)


# --- 10.3: accuracy -----------------------------------------------------------------------------------------------


class _Network(nn.Module):
    """Small, with batch normalization. It has memory for `most` pictures at once, and none for what gradients need."""

    def __init__(self, classes: int, seed: int, most: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.most = most
        self.norm = nn.BatchNorm2d(3)
        assert self.norm.running_mean is not None
        self.norm.running_mean.copy_(torch.tensor([0.5, 0.4, 0.6]))
        self.weights = nn.Parameter(torch.randn(classes, 3, generator=random))

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("out of memory: what a gradient would need is kept for every layer")
        if len(images) > self.most:
            raise RuntimeError(f"out of memory: {len(images)} pictures at once, and there is room for {self.most}")
        return self.norm(images).mean(dim=(2, 3)) @ self.weights.T


def _networks() -> dict[str, tuple[nn.Module, Tensor, Tensor, int]]:
    def case(classes: int, count: int, size: int, seed: int, training: bool) -> tuple[nn.Module, Tensor, Tensor, int]:
        random = torch.Generator().manual_seed(seed)
        network = _Network(classes, seed, most=size)
        images = torch.rand(count, 3, 1, 1, generator=random) + 0.2 * torch.rand(count, 3, 3, 3, generator=random)
        network.eval()
        with torch.no_grad():
            labels = torch.cat([network(some) for some in images.split(size)]).argmax(dim=1)
        network.train(training)
        # Most are read rightly, but of the last few, which do not fill a batch, only one.
        wrong = torch.rand(count, generator=random) < 0.25
        wrong[count - count % size :] = True
        wrong[-1] = False
        return network, images, torch.where(wrong, (labels + 1) % classes, labels), size

    return {
        "26 pictures in batches of 8": case(3, 26, 8, 0, training=False),
        "a network that is being trained": case(4, 23, 5, 1, training=True),
        "24 pictures in batches of 8": case(3, 24, 8, 3, training=False),
        "21 pictures in batches of 4": case(3, 21, 4, 4, training=False),
        "fewer pictures than a batch": case(3, 7, 10, 2, training=False),
    }


def _accuracy(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    was_training, right = network.training, 0
    network.eval()
    with torch.no_grad():
        for some, their in zip(images.split(size), labels.split(size), strict=True):
            right += int((network(some).argmax(dim=1) == their).sum())
    network.train(was_training)
    return right / len(labels)


def _accuracy_by_list(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        answers = torch.cat([network(some).argmax(dim=1) for some in images.split(size)])
    network.train(was_training)
    return (answers == labels).float().mean().item()


def _accuracy_by_slices(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    was_training, right = network.training, torch.tensor(0)
    network.train(False)
    with torch.no_grad():
        for start in range(0, len(images), size):
            logits = network(images[start : start + size])
            right = right + logits.softmax(dim=1).max(dim=1).indices.eq(labels[start : start + size]).sum()
    network.train(was_training)
    return float(right / len(labels))


def _with_gradients(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    network.eval()
    right = 0
    for some, their in zip(images.split(size), labels.split(size), strict=True):
        right += int((network(some).argmax(dim=1) == their).sum())
    return right / len(labels)


def _all_at_once(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    was_training = network.training
    network.eval()
    with torch.no_grad():
        right = (network(images).argmax(dim=1) == labels).sum()
    network.train(was_training)
    return int(right) / len(labels)


def _so_many_batches(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    was_training, right = network.training, 0
    network.eval()
    with torch.no_grad():
        for some, their in zip(images.chunk(size), labels.chunk(size), strict=True):
            right += int((network(some).argmax(dim=1) == their).sum())
    network.train(was_training)
    return right / len(labels)


Counted = Callable[[nn.Module, list[tuple[Tensor, Tensor]], int], float]


def _in_eval_mode(count: Counted) -> Answer:
    """An answer that is right but for what it counts: count(network, batches, size)."""

    def answer(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
        was_training = network.training
        network.eval()
        with torch.no_grad():
            found = count(network, list(zip(images.split(size), labels.split(size), strict=True)), size)
        network.train(was_training)
        return found

    answer.__name__ = count.__name__
    return answer


def _right(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    return int((network(images).argmax(dim=1) == labels).sum())


@_in_eval_mode
def _mean_of_batches(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    return sum(_right(network, *batch) / len(batch[1]) for batch in batches) / len(batches)


@_in_eval_mode
def _all_batches_full(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    return sum(_right(network, *batch) for batch in batches) / (size * len(batches))


@_in_eval_mode
def _last_batch_dropped(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    full = [batch for batch in batches if len(batch[1]) == size]
    return sum(_right(network, *batch) for batch in full) / max(sum(len(labels) for _, labels in full), 1)


@_in_eval_mode
def _last_batch_not_counted(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    full = [batch for batch in batches if len(batch[1]) == size]
    return sum(_right(network, *batch) for batch in full) / sum(len(labels) for _, labels in batches)


@_in_eval_mode
def _rest_counted_from_the_end(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    full = [batch for batch in batches if len(batch[1]) == size]
    rest = [batch for batch in batches if len(batch[1]) < size] or batches  # images[-0:] is all of them
    return sum(_right(network, *batch) for batch in full + rest) / sum(len(labels) for _, labels in batches)


@_in_eval_mode
def _one_short(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    read = batches if len(batches[-1][1]) > 1 else batches[:-1]
    return sum(_right(network, *batch) for batch in read) / sum(len(labels) for _, labels in batches)


@_in_eval_mode
def _the_first_batch(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    return _right(network, *batches[0]) / len(batches[0][1])


@_in_eval_mode
def _how_many(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    return float(sum(_right(network, *batch) for batch in batches))


@_in_eval_mode
def _percent(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    return 100 * sum(_right(network, *batch) for batch in batches) / sum(len(labels) for _, labels in batches)


@_in_eval_mode
def _error_rate(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    return 1 - sum(_right(network, *batch) for batch in batches) / sum(len(labels) for _, labels in batches)


@_in_eval_mode
def _only_the_last(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    return _right(network, *batches[-1]) / len(batches[-1][1])


@_in_eval_mode
def _smallest_logit(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    right = sum(int((network(images).argmin(dim=1) == labels).sum()) for images, labels in batches)
    return right / sum(len(labels) for _, labels in batches)


@_in_eval_mode
def _mean_confidence(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    total = sum(float(network(images).softmax(dim=1).amax(dim=1).sum()) for images, _ in batches)
    return total / sum(len(labels) for _, labels in batches)


@_in_eval_mode
def _probability_of_the_label(network: nn.Module, batches: list[tuple[Tensor, Tensor]], size: int) -> float:
    total = sum(float(network(x).softmax(dim=1).gather(1, labels[:, None]).sum()) for x, labels in batches)
    return total / sum(len(labels) for _, labels in batches)


def _in_training_mode(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    network.train()
    with torch.no_grad():
        right = sum(_right(network, *batch) for batch in zip(images.split(size), labels.split(size), strict=True))
    return right / len(labels)


def _in_whatever_mode(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> float:
    with torch.no_grad():
        right = sum(_right(network, *batch) for batch in zip(images.split(size), labels.split(size), strict=True))
    return right / len(labels)


_EVALUATE = Exercise(
    name="accuracy",
    number="10.3",
    title="Accuracy without bugs",
    prompt="Given a network, pictures (N, 3, H, W), labels (N,) and a batch size, return the share of pictures, from 0 "
    "to 1, whose largest logit is that of their label. Read them in batches of this size, the last as large as it is, "
    "in eval mode and without gradients, and leave the network in the mode it was in.",
    reference=_accuracy,
    cases=_networks,
    alternatives=(_accuracy_by_list, _accuracy_by_slices),
    tolerance=1e-5,
    bounds=(0, 1),
    mistakes=(
        Mistake(
            _with_gradients,
            "Gradients are on, and so every layer keeps what it has computed until somebody asks for them. Nobody "
            "will, and with a large network memory runs out. Put the loop under `with torch.no_grad():`.",
        ),
        Mistake(
            _all_at_once,
            "You read all pictures at once. Of a real test set they do not fit into memory: read `size` at a time.",
        ),
        Mistake(
            _so_many_batches,
            "`chunk(size)` makes so many batches, not batches of so many pictures. `split(size)` makes those.",
        ),
        Mistake(
            _rest_counted_from_the_end,
            "You read the rest as `images[-rest:]`. Where the batches come out even, `rest` is 0, and `images[-0:]` "
            "are all of them: they are counted twice.",
        ),
        Mistake(
            _one_short,
            "You stop one picture short, and where a single one is left for the last batch, it is never read. The end "
            "of `range` is left out anyway: it is `len(images)`.",
        ),
        Mistake(
            _the_first_batch,
            "This is the accuracy of the first batch. Does your function return inside the loop?",
        ),
        Mistake(
            _in_whatever_mode,
            "You leave the network in the mode it is in. While it is being trained, batch normalization uses the "
            "statistics of your batch, and a picture's answer depends on its neighbours: `network.eval()` first.",
        ),
        Mistake(
            _in_training_mode,
            "The network reads in training mode: batch normalization takes the statistics of each batch, and renews "
            "its own. It should be `network.eval()`.",
        ),
        Mistake(
            _mean_of_batches,
            "You average the accuracies of batches. The last batch is smaller, and its pictures count for more. Count "
            "what is right, and divide once, by the number of pictures.",
        ),
        Mistake(
            _all_batches_full,
            "You divide by the number of batches times their size. The last is not full: divide by the number of "
            "pictures.",
        ),
        Mistake(
            _last_batch_dropped,
            "You leave out the last batch because it is not full. In training nobody misses it; in a test every "
            "picture counts.",
        ),
        Mistake(
            _last_batch_not_counted,
            "You divide by all pictures, but have not read those of the last batch, which is not full.",
        ),
        Mistake(_how_many, "This is how many are right. Divide by the number of pictures."),
        Mistake(_percent, "This is in percent. Return a share from 0 to 1."),
        Mistake(_error_rate, "This is the share of mistakes. Return the share of right answers."),
        Mistake(
            _only_the_last,
            "This is the accuracy of the last batch alone. Does your count begin anew in every round of the loop?",
        ),
        Mistake(_smallest_logit, "You take the class with the smallest logit. The answer is the largest."),
        Mistake(
            _mean_confidence,
            "This is how sure the network is on average. Whether it is right needs the labels.",
        ),
        Mistake(
            _probability_of_the_label,
            "This is the mean probability of the right class. An answer is right or wrong: compare `argmax` with the "
            "label.",
        ),
    ),
    hints=(
        "`images.split(size)` gives the batches, the last as large as it is; `labels.split(size)` their labels.",
        "Count in one number what is right over all batches, and divide by `len(labels)` after the loop.",
        "`was = network.training` before `network.eval()`, and `network.train(was)` at the end.",
    ),
)


# --- 10.4: the most confident mistakes ----------------------------------------------------------------------------


def _logits() -> dict[str, tuple[Tensor, Tensor]]:
    def case(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(count, classes, generator=random)
        # A number added to all logits of a picture changes no probability.
        logits = logits + 6 * torch.rand(count, 1, generator=random)
        labels = torch.where(
            torch.rand(count, generator=random) < 0.5,
            logits.argmax(dim=1),
            torch.randint(0, classes, (count,), generator=random),
        )
        return logits, labels

    one = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0], [1.0, 0.5, 0.0]]), torch.tensor([0, 2, 0])
    return {
        "12 pictures, 4 classes": case(12, 4, 0),
        "30 pictures, 10 classes": case(30, 10, 2),
        "3 pictures, one of them misread": one,
    }


def _mistakes(logits: Tensor, labels: Tensor) -> Tensor:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True)]


def _mistakes_by_filter(logits: Tensor, labels: Tensor) -> Tensor:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    order = confidence.argsort(descending=True)
    return order[predicted[order] != labels[order]]


def _mistakes_by_sorting(logits: Tensor, labels: Tensor) -> Tensor:
    probabilities = logits.softmax(dim=1)
    predicted = logits.argmax(dim=1)
    pairs = [(-float(probabilities[i].max()), i) for i in range(len(labels)) if predicted[i] != labels[i]]
    return torch.tensor([i for _, i in sorted(pairs)])


def _ordered_by(measure: Callable[[Tensor, Tensor], Tensor]) -> Answer:
    """The mistakes, those with the largest measure(logits, labels) first."""

    def answer(logits: Tensor, labels: Tensor) -> Tensor:
        wrong = (logits.argmax(dim=1) != labels).nonzero().flatten()
        return wrong[measure(logits, labels)[wrong].argsort(descending=True)]

    answer.__name__ = measure.__name__
    return answer


@_ordered_by
def _least_sure_first(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.softmax(dim=1).amax(dim=1)


@_ordered_by
def _by_logit(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.amax(dim=1)


@_ordered_by
def _by_the_label(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]


@_ordered_by
def _by_what_is_lost(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="none")


@_ordered_by
def _by_the_lead(logits: Tensor, labels: Tensor) -> Tensor:
    first, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return first - second


@_ordered_by
def _over_pictures(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(dim=0).amax(dim=1)


@_ordered_by
def _softmax_twice(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(dim=1).softmax(dim=1).amax(dim=1)


def _answers_over_pictures(logits: Tensor, labels: Tensor) -> Tensor:
    confidence, predicted = logits.softmax(dim=0).max(dim=1)
    wrong = (predicted != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True)]


def _only_ten(logits: Tensor, labels: Tensor) -> Tensor:
    return _mistakes(logits, labels)[:10]


def _in_their_old_order(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) != labels).nonzero().flatten()


def _places_among_mistakes(logits: Tensor, labels: Tensor) -> Tensor:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    return confidence[predicted != labels].argsort(descending=True)


def _all_of_them(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.softmax(dim=1).amax(dim=1).argsort(descending=True)


def _right_ones(logits: Tensor, labels: Tensor) -> Tensor:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    right = (predicted == labels).nonzero().flatten()
    return right[confidence[right].argsort(descending=True)]


def _confidences(logits: Tensor, labels: Tensor) -> Tensor:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    return confidence[predicted != labels].sort(descending=True).values


def _a_column(logits: Tensor, labels: Tensor) -> Tensor:
    return _mistakes(logits, labels)[:, None]


def _truth_values(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(dim=1) != labels


_MISCLASSIFIED = Exercise(
    name="confident_mistakes",
    number="10.4",
    title="The most confident mistakes",
    prompt="Given logits (N, C) and labels (N,), return the indices of the pictures that were read wrongly, sorted by "
    "how sure the network was of its wrong answer, by the probability of that answer, the surest first.",
    reference=_mistakes,
    cases=_logits,
    alternatives=(_mistakes_by_filter, _mistakes_by_sorting),
    mistakes=(
        Mistake(_least_sure_first, "The least sure come first. `argsort` sorts upwards: `descending=True`."),
        Mistake(
            _by_logit,
            "You sort by the largest logit. A number added to all logits of a picture changes it, and no answer: take "
            "the probability, by softmax.",
        ),
        Mistake(
            _by_the_label,
            "You sort by the probability of the right class. How sure the network is, is the probability of the class "
            "that it answered.",
        ),
        Mistake(
            _by_what_is_lost,
            "You sort by the loss, which looks at the right class only: how little it got. Close, and not the same: it "
            "is how sure the network is of its own answer that is wanted.",
        ),
        Mistake(
            _by_the_lead,
            "You sort by the lead over the second. Close, and not the same: the probability counts all classes.",
        ),
        Mistake(
            _over_pictures,
            "Your softmax goes over the pictures. It goes over the classes of each, `dim=1`.",
        ),
        Mistake(
            _answers_over_pictures,
            "Your softmax goes over the pictures, `dim=0`, and so do the answers you take from it. It goes over the "
            "classes of each picture, `dim=1`.",
        ),
        Mistake(
            _softmax_twice,
            "You take the softmax twice. The second one sees numbers between 0 and 1, and brings them nearly together, "
            "in another order.",
        ),
        Mistake(_only_ten, "These are the first ten. Return all mistakes; whoever shows them takes as many as fit."),
        Mistake(_in_their_old_order, "These are the mistakes, in their old order. They are still to be sorted."),
        Mistake(
            _places_among_mistakes,
            "You return places in the list of mistakes, not in that of all pictures: the sixth mistake is not picture "
            "5. Use them to index the list of mistakes.",
        ),
        Mistake(
            _all_of_them,
            "You sort all pictures: keep the mistakes only. If you do keep them, look at your `argmax`: without "
            "`dim=1` it gives one place among all logits, which is nobody's label.",
        ),
        Mistake(_right_ones, "These are the pictures read rightly: `!=` instead of `==`."),
        Mistake(_confidences, "These are the probabilities, well sorted. Return the indices of the pictures."),
        Mistake(_a_column, "Right, but as a column, (M, 1), as `nonzero` makes it. Return (M,): `.flatten()`."),
        Mistake(_truth_values, "These are truth values, one for each picture. `nonzero()` makes indices of them."),
    ),
    hints=(
        "`logits.softmax(dim=1).max(dim=1)` gives both, the probability of the answer and the answer.",
        "`(predicted != labels).nonzero().flatten()` are the indices of the mistakes.",
        "`wrong[confidence[wrong].argsort(descending=True)]` puts them in order.",
    ),
)

EXERCISES = (_NORMALIZE, _RESIDUAL, _EVALUATE, _MISCLASSIFIED)
