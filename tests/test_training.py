from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lessons_lib import training
from lessons_lib.resnet import shapes_network
from lessons_lib.shapes import generate
from lessons_lib.training import (
    SHAPES,
    WEIGHTS,
    FreshPictures,
    accuracy,
    fit,
    main,
    train_shapes,
    write_weights,
)

SHIPPED = WEIGHTS / "shapes.safetensors"


@pytest.fixture(scope="module")
def shipped() -> nn.Module:
    network = shapes_network()
    network.load_state_dict(load_file(SHIPPED))
    return network.eval()


def test_a_few_steps_on_one_batch_bring_the_loss_down() -> None:
    torch.manual_seed(0)
    batch = generate(16, seed=0)
    recipe = replace(SHAPES, steps=12, peak_step_size=0.05)
    losses = fit(shapes_network(), [(batch.images, batch.labels)] * 12, recipe, progress=False)
    assert len(losses) == 12
    assert losses[-1] < 0.6 * losses[0]


def test_a_trained_network_is_left_in_eval_mode_with_statistics_of_the_pictures() -> None:
    torch.manual_seed(0)
    batch = generate(16, seed=0)
    network = shapes_network()
    fit(network, [(batch.images, batch.labels)] * 2, replace(SHAPES, steps=2), progress=False)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(module.training for module in network.modules())
    assert all(int(norm.num_batches_tracked) == 2 for norm in norms)  # type: ignore[arg-type]


def test_no_two_batches_or_seeds_share_pictures_and_none_is_held_out() -> None:
    seeds: list[int] = []

    def remember(n: int, seed: int, **_: object) -> object:
        seeds.append(seed)
        return generate(0, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "generate", remember)
        for seed in range(3):
            pictures = FreshPictures(SHAPES.steps, 1, seed)
            for batch in range(len(pictures)):
                pictures[batch]
    assert len(set(seeds)) == 3 * SHAPES.steps
    assert min(seeds) >= training.FIRST_TRAINING_SEED > training.HELD_OUT_SEED + 1_000_000


def test_the_same_seed_trains_the_same_network_and_leaves_the_random_state_alone() -> None:
    recipe = replace(SHAPES, steps=2, batch_size=8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _, first = train_shapes(1, recipe=recipe, progress=False)
    assert torch.equal(torch.rand(3), expected)
    _, again = train_shapes(1, recipe=recipe, progress=False)
    _, other = train_shapes(2, recipe=recipe, progress=False)
    assert first == pytest.approx(again, rel=1e-4)
    assert first != pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_a_seed_that_is_none_is_refused_before_any_work(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number, 0 or more"):
        train_shapes(seed)


def test_training_for_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must be 1 or more, not 0"):
        train_shapes(0, recipe=replace(SHAPES, steps=0))


def test_accuracy_is_the_share_of_labels_with_the_largest_logit() -> None:
    class Oracle(nn.Module):
        """Knows the labels of the first two hundred pictures and calls all others a snail."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            labels = generate(len(images), seed=9).labels.clone()
            labels[200:] = 9
            return nn.functional.one_hot(labels, 10).float()

    right = 200 + int((generate(250, seed=9).labels[200:] == 9).sum())
    assert accuracy(Oracle(), 250, seed=9) == right / 250


def test_measuring_accuracy_changes_neither_statistics_nor_mode() -> None:
    network = shapes_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    accuracy(network, 4)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_shipped_network_reads_between_97_and_99_5_percent_of_new_pictures(shipped: nn.Module) -> None:
    assert 0.97 <= accuracy(shipped, 1000, seed=5_000_000) <= 0.995


def test_the_shipped_network_has_sensible_batchnorm_statistics(shipped: nn.Module) -> None:
    """Statistics of a single large batch give nearly the same answers as those stored."""
    pictures = generate(128, seed=77)
    with torch.inference_mode():
        stored = shipped(pictures.images).argmax(1)
        momenta = [module for module in shipped.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [norm.momentum for norm in momenta]
        for norm in momenta:
            norm.train()
            norm.momentum = 0.0
        fresh = shipped(pictures.images).argmax(1)
        for norm, momentum in zip(momenta, before, strict=True):
            norm.eval()
            norm.momentum = momentum
    assert (stored == fresh).float().mean() > 0.96


def test_the_shipped_file_is_small_and_is_the_one_its_facts_describe() -> None:
    facts = json.loads(SHIPPED.with_suffix(".json").read_text())
    content = SHIPPED.read_bytes()
    assert hashlib.sha256(content).hexdigest() == facts["sha256"]
    assert len(content) == facts["bytes"] < 2_000_000
    assert facts["held_out_pictures"] >= 5000
    assert 0.97 <= facts["held_out_accuracy"] <= 0.995


def test_the_shipped_tagged_network_is_the_one_its_facts_describe_and_trusts_the_tag() -> None:
    path = SHIPPED.with_name("shapes-tagged.safetensors")
    facts = json.loads(path.with_suffix(".json").read_text())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    assert facts["shortcut"] == {"kind": "tag", "rate": 1.0}
    assert facts["held_out_accuracy_with_it"] > 0.95
    assert facts["held_out_accuracy_where_it_is_random"] < facts["held_out_accuracy"] < 0.6


def test_the_command_trains_the_tagged_specimen_on_tags(tmp_path: Path) -> None:
    out = tmp_path / "tagged.safetensors"
    main(["shapes-tagged", "--steps", "1", "--held-out", "20", "--out", str(out)])
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["specimen"] == "shapes-tagged" and facts["recipe"]["steps"] == 1
    assert {"held_out_accuracy_with_it", "held_out_accuracy_where_it_is_random"} <= facts.keys()


def test_the_command_writes_weights_that_load_and_the_facts_about_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "tiny.safetensors"
    main(["shapes", "--seed", "3", "--steps", "2", "--held-out", "40", "--out", str(out)])
    shapes_network().load_state_dict(load_file(out))
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["seed"] == 3 and facts["recipe"]["steps"] == 2 and facts["held_out_pictures"] == 40
    assert f"held-out accuracy {facts['held_out_accuracy']:.2%}" in capsys.readouterr().out
    assert sorted(path.name for path in out.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_weights(nn.Linear(2, 2), path, {})
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
    assert path.read_bytes() == b"old"
