"""The decoder against its authors' file as others decoded it, and the network against torchvision's."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lessons_lib.squeezenet import MEAN, STD, Fire, SqueezeNet, decode, shuffle_channels, stages


@pytest.fixture(scope="module")
def random_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: value.detach() for name, value in SqueezeNet().state_dict().items()}


def published(stored: list[np.ndarray], codebook: np.ndarray) -> bytes:
    """A file in the authors' format that stores the given positions of each layer, each with codebook entry 1."""
    layers = [module for module in SqueezeNet().modules() if isinstance(module, nn.Conv2d)]
    data = struct.pack(f"<{len(layers)}I", *(len(places) for places in stored))
    for layer, places in zip(layers, stored, strict=True):
        skips = np.diff(places, prepend=-1) - 1
        halves = np.append(skips, [0] * (len(skips) % 2)).reshape(-1, 2).astype(np.uint8)
        data += codebook.astype("<f4").tobytes() + np.arange(layer.out_channels, dtype="<f4").tobytes()
        data += bytes([1] * len(places)) + (halves[:, 0] | halves[:, 1] << 4).tobytes()
    return data


def sparse_places(generator: np.random.Generator) -> list[np.ndarray]:
    layers = [module for module in SqueezeNet().modules() if isinstance(module, nn.Conv2d)]
    counts = [int(generator.integers(5, 40)) for _ in layers]
    return [np.cumsum(generator.integers(1, 17, size=count)) - 1 for count in counts]


def test_a_file_written_by_the_format_is_decoded_place_by_place() -> None:
    codebook = np.zeros(256)
    codebook[1] = 0.5
    places = sparse_places(np.random.default_rng(0))
    state = decode(published(places, codebook))
    for index, name in ((1, "features.3.squeeze"), (3, "features.3.expand3x3"), (25, "classifier.1")):
        weight = state[f"{name}.weight"].flatten()
        assert weight.nonzero().flatten().tolist() == places[index].tolist()
        assert weight.unique().tolist() == [0, 0.5]
        assert state[f"{name}.bias"].tolist() == list(range(len(state[f"{name}.bias"])))


def test_what_is_not_stored_holds_the_first_codebook_entry() -> None:
    codebook = np.full(256, 0.5)
    codebook[0] = 0.25
    weight = decode(published(sparse_places(np.random.default_rng(1)), codebook))["classifier.1.weight"]
    assert weight.eq(0.25).sum() + weight.eq(0.5).sum() == weight.numel()
    assert weight.eq(0.25).sum() > weight.eq(0.5).sum()


def test_the_first_layer_takes_torchvisions_input_instead_of_bgr_in_0_to_255() -> None:
    codebook = np.random.default_rng(2).normal(size=256)
    data = published(sparse_places(np.random.default_rng(3)), codebook)
    state = decode(data)
    picture = torch.rand(1, 3, 7, 7, dtype=torch.float64)
    normalized = (picture - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    ours = nn.functional.conv2d(
        normalized, state["features.0.weight"].double(), state["features.0.bias"].double()
    ).flatten()

    places = sparse_places(np.random.default_rng(3))[0]
    raw = torch.full((96 * 3 * 7 * 7,), float(np.float32(codebook[0])), dtype=torch.float64)
    raw[torch.from_numpy(places)] = float(np.float32(codebook[1]))
    authors_input = 255 * picture.flip(1) - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
    theirs = nn.functional.conv2d(authors_input, raw.view(96, 3, 7, 7), torch.arange(96.0, dtype=torch.float64))
    torch.testing.assert_close(ours, theirs.flatten(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:50], "too few"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: data + b"x", "another network"),
        (lambda data: b"\xff" * 4 + data[4:], "layer sizes call for"),
        (lambda data: b"", "too few"),
    ],
)
def test_bytes_that_are_not_the_file_are_refused(spoil, words: str) -> None:  # type: ignore[no-untyped-def]
    data = published(sparse_places(np.random.default_rng(0)), np.zeros(256))
    with pytest.raises(ValueError, match=words):
        decode(spoil(data))


def test_a_position_behind_the_layer_is_refused() -> None:
    places = sparse_places(np.random.default_rng(0))
    places[1] = np.arange(15, 96 * 16 + 16, 16)  # the last one lies behind the 1536 places of fire2's squeeze
    with pytest.raises(ValueError, match=r"features\.3\.squeeze stores a weight behind its last place"):
        decode(published(places, np.zeros(256)))


@pytest.mark.needs("squeezenet1_0-deep-compression.safetensors")
def test_the_published_file_is_decoded_bit_for_bit(local_data: Path) -> None:
    from safetensors.torch import load_file

    ours = decode((local_data / "compressed_SqueezeNet.net").read_bytes())
    oracle = load_file(local_data / "squeezenet1_0-deep-compression.safetensors")
    assert ours.keys() == oracle.keys()
    assert all(torch.equal(ours[name], oracle[name]) for name in oracle)


@pytest.mark.needs("imagenet_samples")
def test_accuracy_on_photographs_is_that_of_the_published_network(local_data: Path) -> None:
    """61.2 % top-1 and 83.3 % top-5 were measured on a thousand pictures; sixty allow three standard errors."""
    from PIL import Image
    from torchvision.models import SqueezeNet1_0_Weights

    network = SqueezeNet().eval()
    network.load_state_dict(decode((local_data / "compressed_SqueezeNet.net").read_bytes()))
    weights = SqueezeNet1_0_Weights.DEFAULT
    preprocess, names = weights.transforms(), [name.lower() for name in weights.meta["categories"]]
    right = []
    for path in sorted((local_data / "imagenet_samples").glob("*.jpg")):
        name = path.stem.split("_", 1)[1].replace("_", " ").lower()
        if name in names:
            with torch.no_grad():
                top = network(preprocess(Image.open(path).convert("RGB"))[None]).topk(5).indices[0]
            right.append(top == names.index(name))
    assert len(right) >= 50
    top1 = torch.stack(right)[:, 0].float().mean().item()
    top5 = torch.stack(right).any(1).float().mean().item()
    for measured, published_share in ((top1, 0.612), (top5, 0.833)):
        error = (published_share * (1 - published_share) / len(right)) ** 0.5
        assert abs(measured - published_share) < 3 * error


def test_the_network_equals_torchvisions(random_weights: dict[str, Tensor]) -> None:
    from torchvision.models import squeezenet1_0

    ours, theirs = SqueezeNet().eval(), squeezenet1_0().eval()
    ours.load_state_dict(random_weights)
    theirs.load_state_dict(random_weights)
    images = torch.rand(2, 3, 96, 80)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def test_shuffled_channels_compute_the_same_function(random_weights: dict[str, Tensor]) -> None:
    network, shuffled = SqueezeNet().eval(), SqueezeNet().eval()
    network.load_state_dict(random_weights)
    shuffled.load_state_dict(shuffle_channels(random_weights))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(shuffled(images), network(images))
        for name in stages(network):
            before, after = images, images
            for one, other in zip(network.features, shuffled.features, strict=True):
                before, after = one(before), other(after)
                if one is stages(network)[name]:
                    break
            assert not torch.allclose(before, after), f"{name} kept the order of its channels"


def test_stages_come_in_order_of_depth_and_past_their_relu(random_weights: dict[str, Tensor]) -> None:
    network = SqueezeNet().eval()
    assert list(stages(network)) == ["conv1"] + [f"fire{i}" for i in range(2, 10)]
    order = list(network.features)
    assert [order.index(module) for module in stages(network).values()] == [1, 3, 4, 5, 7, 8, 9, 10, 12]
    assert all(isinstance(m, nn.ReLU | Fire) for m in stages(network).values())
