from __future__ import annotations

import pytest
import torch
import torchinfo
from torch import Tensor, nn

from lessons_lib.resnet import BasicBlock, Normalize, ResNet, normalized, shapes_network, without_shortcuts


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_resnet_18_for_cifar_has_the_parameters_of_the_literature() -> None:
    assert parameters(ResNet(10, width=64, blocks=(2, 2, 2, 2))) == 11_173_962


@pytest.mark.parametrize(
    ("width", "blocks", "count"),
    [
        (64, (2, 2, 2, 2), 11_173_962),
        (32, (2, 2, 2, 2), 2_797_610),
        (64, (3, 4, 6, 3), 21_282_122),  # ResNet-34
        (16, (3, 3, 3), 272_474),  # ResNet-20 of He et al., with projections in the shortcuts
    ],
)
def test_width_and_depth_are_settings(width: int, blocks: tuple[int, ...], count: int) -> None:
    assert parameters(ResNet(10, width=width, blocks=blocks)) == count


def test_the_summary_of_resnet_18_has_the_layers_of_the_literature() -> None:
    """By torchinfo: seventeen convolutions and a linear layer, and three projections where a stage begins."""
    network = normalized(ResNet(10), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    found = torchinfo.summary(network, input_size=(1, 3, 32, 32), verbose=0)
    shapes = [info.output_size[1:] for info in found.summary_list if info.class_name == "Conv2d"]
    assert shapes == [
        *[[64, 32, 32]] * 5,
        *[[128, 16, 16]] * 5,
        *[[256, 8, 8]] * 5,
        *[[512, 4, 4]] * 5,
    ]
    assert found.total_params == found.trainable_params == 11_173_962
    assert round(found.total_mult_adds / 1e6) == 555  # stem 1.8, stage1 151, and 134.2 for each other stage
    assert [info.output_size for info in found.summary_list if info.class_name == "Linear"] == [[1, 10]]


def test_dropout_hides_a_share_of_the_averages_while_training_only() -> None:
    torch.manual_seed(0)
    network = ResNet(4, width=4, blocks=(1,), dropout=0.5)
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(64, 3, 8, 8)
    network(images)
    network.eval()
    network(images)
    assert 0.4 < (seen[0] == 0).double().mean() < 0.6
    assert (seen[1] == 0).double().mean() < 0.2


def test_the_shapes_network_stays_below_half_a_million_parameters() -> None:
    assert parameters(shapes_network()) < 500_000


def test_every_convolution_is_followed_by_a_batchnorm_and_has_no_bias() -> None:
    network = shapes_network()
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [c.out_channels for c in convolutions] == [n.num_features for n in norms]
    assert all(convolution.bias is None for convolution in convolutions)


def test_each_relu_runs_once_a_forward_pass_and_not_in_place() -> None:
    network = ResNet(3, width=4, blocks=(2, 1)).eval()
    uses: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        uses[module] = uses.get(module, 0) + 1
        assert output.data_ptr() != inputs[0].data_ptr()

    relus = [m for m in network.modules() if isinstance(m, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(count)
    network(torch.rand(1, 3, 8, 8))
    assert len(relus) == 1 + 2 * 3
    assert uses == dict.fromkeys(relus, 1)


def test_stages_come_in_order_of_depth_and_halve_from_the_second_on() -> None:
    network = ResNet(10, width=4, blocks=(1, 2, 1)).eval()
    names = [name for name, _ in network.named_children()]
    assert names[:4] == ["stem", "stage1", "stage2", "stage3"] and names[-1] == "head"
    x = torch.rand(2, 3, 32, 32)
    sizes = []
    for name in names[:4]:
        x = network.get_submodule(name)(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(4, 32, 32), (4, 32, 32), (8, 16, 16), (16, 8, 8)]


def test_a_block_without_a_correction_passes_its_input_on() -> None:
    block = BasicBlock(5, 5).eval()
    nn.init.zeros_(block.norm2.weight)
    x = torch.rand(2, 5, 6, 6)
    assert torch.equal(block(x), x)


def test_without_shortcuts_a_block_is_its_convolutions_alone_and_the_network_the_same() -> None:
    torch.manual_seed(0)
    network = ResNet(4, width=4, blocks=(2, 1)).eval()
    names = set(dict(network.named_parameters()))
    x = torch.rand(2, 4, 6, 6)
    for block in (network.stage1[0], network.stage1[1], network.stage2[0]):  # type: ignore[index,operator]
        plain = torch.relu(block.norm2(block.conv2(torch.relu(block.norm1(block.conv1(x))))))
        with_shortcut = torch.relu(
            block.norm2(block.conv2(torch.relu(block.norm1(block.conv1(x))))) + block.shortcut(x)
        )
        assert torch.equal(block(x), with_shortcut)
        assert not torch.equal(with_shortcut, plain)
    assert without_shortcuts(network) is network
    for block in (network.stage1[0], network.stage1[1], network.stage2[0]):  # type: ignore[index,operator]
        plain = torch.relu(block.norm2(block.conv2(torch.relu(block.norm1(block.conv1(x))))))
        assert torch.equal(block(x), plain)
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    # Only what projected the input is gone.
    assert {name for name in names - set(dict(network.named_parameters())) if "shortcut" not in name} == set()


def test_normalize_gives_its_own_mean_zero_and_one_deviation_more_one() -> None:
    normalize = Normalize(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.1))
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 0.1])
    images = torch.stack([mean, mean + std]).view(2, 3, 1, 1).expand(2, 3, 4, 4)
    expected = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(normalize(images), expected)


def test_normalization_is_the_first_layer_and_is_saved_with_the_weights() -> None:
    network = shapes_network()
    assert isinstance(next(iter(network.children())), Normalize)
    assert {"normalize.mean", "normalize.std"} <= set(network.state_dict())
    assert network.eval()(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_activations_keep_their_scale_through_a_new_deep_network() -> None:
    torch.manual_seed(0)
    network = ResNet(10, width=8, blocks=(3, 3, 3)).train()
    logits = network(torch.randn(32, 3, 16, 16))
    assert 0.05 < logits.std() < 20


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"classes": 0}, ValueError, "classes must be 1 or more, not 0"),
        ({"classes": 10.0}, TypeError, "classes must be a whole number, not float"),
        ({"classes": True}, TypeError, "classes must be a whole number, not bool"),
        ({"classes": 10, "width": -4}, ValueError, "width must be 1 or more"),
        ({"classes": 10, "blocks": ()}, ValueError, "blocks is empty"),
        ({"classes": 10, "blocks": (2, 0)}, ValueError, r"blocks\[1\] must be 1 or more"),
        ({"classes": 10, "dropout": 1.0}, ValueError, "dropout must be 0 or more and below 1, not 1.0"),
    ],
)
def test_a_size_that_makes_no_network_is_refused(
    arguments: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ResNet(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0.5,), (0.2, 0.2, 0.2), "mean needs one number for each"),
        ((0.5, 0.5, 0.5), (0.2, 0.2), "std needs one number for each"),
        ((0.5, 0.5, 0.5), (0.2, 0.0, 0.2), "std must be above 0"),
    ],
)
def test_a_normalization_that_cannot_be_is_refused(mean: tuple[float, ...], std: tuple[float, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Normalize(mean, std)
