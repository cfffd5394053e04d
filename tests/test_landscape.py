"""Directions are scaled filter by filter, and the loss around a network is that of the network moved."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lessons_lib.comparisons import small_cnn
from lessons_lib.landscape import loss_around, random_direction


@pytest.fixture
def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return small_cnn(4).eval()


@pytest.fixture
def pictures() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(12, 3, 16, 16, generator=random), torch.randint(0, 4, (12,), generator=random)


def test_every_filter_of_a_direction_is_as_long_as_the_networks_own(network: nn.Sequential) -> None:
    for part, parameter in zip(random_direction(network), network.parameters(), strict=True):
        if parameter.ndim > 1:
            assert torch.allclose(part.flatten(1).norm(dim=1), parameter.detach().flatten(1).norm(dim=1))
            assert abs(float(F.cosine_similarity(part.flatten(), parameter.detach().flatten(), dim=0))) < 0.3
        else:
            assert not part.any()


def test_without_filters_the_whole_is_as_long_as_all_weights(network: nn.Sequential) -> None:
    direction = random_direction(network, filter_normalized=False)
    drawn = torch.cat([part.flatten() for part in direction]).norm()
    own = torch.cat([parameter.detach().flatten() for parameter in network.parameters() if parameter.ndim > 1]).norm()
    assert drawn.item() == pytest.approx(own.item(), rel=1e-5)


def test_a_seed_gives_the_same_direction_and_another_another(network: nn.Sequential) -> None:
    one, again, other = (random_direction(network, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)


def test_the_loss_is_that_of_the_network_moved_with_statistics_of_these_pictures(
    network: nn.Sequential, pictures: tuple[Tensor, Tensor]
) -> None:
    images, labels = pictures
    one, other = (random_direction(network, seed) for seed in (0, 1))
    found = loss_around(network, images, labels, [one, other], [-0.5, 0.0, 0.3])
    assert found.shape == (3, 3)
    moved = copy.deepcopy(network).train()
    for parameter, first, second in zip(moved.parameters(), one, other, strict=True):
        parameter.data += -0.5 * first + 0.3 * second
    assert found[0, 2].item() == pytest.approx(F.cross_entropy(moved(images), labels).item(), rel=1e-5)
    (alone,) = (loss_around(network, images, labels, [each], [0.0]) for each in [one])
    assert alone.item() == pytest.approx(found[1, 1].item(), rel=1e-6)


def test_dropout_is_off(pictures: tuple[Tensor, Tensor]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, 4))
    once, again = (loss_around(network, *pictures, [random_direction(network)], [0.0, 0.5]) for _ in range(2))
    assert torch.equal(once, again)
    assert once[0].item() == pytest.approx(F.cross_entropy(network.eval()(pictures[0]), pictures[1]).item(), rel=1e-5)


def test_the_network_is_as_it_was(network: nn.Sequential, pictures: tuple[Tensor, Tensor]) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss_around(network, *pictures, [random_direction(network)], [0.5, 1.0])
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_filter_normalized_curves_do_not_see_how_large_weights_are(
    network: nn.Sequential, pictures: tuple[Tensor, Tensor]
) -> None:
    """Ten times the weights before a batch normalization: the same function, and the same curve; not so unscaled."""
    larger = copy.deepcopy(network)
    for layer in larger:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 10
    shares = [-0.5, -0.1, 0.0, 0.1, 0.5]

    def curve(network: nn.Module, *, filter_normalized: bool) -> Tensor:
        direction = random_direction(network, filter_normalized=filter_normalized)
        if not filter_normalized:  # one direction for both
            direction = random_direction(larger, filter_normalized=False)
        return loss_around(network, *pictures, [direction], shares)

    one, other = (curve(each, filter_normalized=True) for each in (network, larger))
    assert torch.allclose(one, other, atol=1e-4)
    one, other = (curve(each, filter_normalized=False) for each in (network, larger))
    assert one[2].item() == pytest.approx(other[2].item(), abs=1e-4)
    assert (one - other).abs().max() > 0.05


def test_bad_input_is_refused(network: nn.Sequential, pictures: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(TypeError, match="seed"):
        random_direction(network, seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one or two"):
        loss_around(network, *pictures, [], [0.0])
    with pytest.raises(ValueError, match="in its shape"):
        loss_around(network, *pictures, [random_direction(network)[1:]], [0.0])
