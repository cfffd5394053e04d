"""The record of how often attacks work is whole, and of the networks in use."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rates_of_fooling
import torch
from torch import Tensor, nn

from lessons_lib.specimens import SQUEEZENET_FILE, load_specimen

RECORD: dict[str, dict[str, Any]] = json.loads(rates_of_fooling.RECORD.read_text("utf-8"))


# What chapter 10 quotes, in a file of its own; chapter 7 tells of all that is in its own.
CIFAR10 = json.loads(rates_of_fooling.RECORD.with_name("fooling_cifar10.json").read_text("utf-8"))


@pytest.mark.parametrize("specimen", ["shapes", "imagenet", "cifar10"])
def test_every_attack_is_on_record_with_its_settings_and_the_weights_in_use(specimen: str) -> None:
    rows = dict((RECORD | CIFAR10)[specimen])
    transfer = rows.pop("transfer", None)
    assert (transfer is not None) == (specimen == "shapes")
    weights = SQUEEZENET_FILE.sha256 if specimen == "imagenet" else load_specimen(specimen).weights.sha256
    assert set(rows) == set(rates_of_fooling.SETTINGS)
    for name, row in rows.items():
        assert row["settings"] == rates_of_fooling.SETTINGS[name][1]
        assert row["weights"] == weights
        assert row["of"] == rates_of_fooling.PICTURES
        assert (row["low"], row["high"]) == pytest.approx(rates_of_fooling.interval(row["fooled"], row["of"]))


def test_an_interval_is_wilsons() -> None:
    """Of 10 in 100: the textbook's 0.0552 to 0.1744."""
    assert rates_of_fooling.interval(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)


def test_no_picture_is_aimed_at_what_it_is_read_as() -> None:
    class ReadsTheMean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.one_hot((images.mean(dim=(1, 2, 3)) * 5).long().clamp(max=4), 5).float()

    images = torch.rand(200, 1, 1, 1).expand(-1, 3, 4, 4)
    targets = rates_of_fooling.pairs(ReadsTheMean(), images, 5)
    assert set(targets.tolist()) == {0, 1, 2, 3, 4}
    assert not (targets == ReadsTheMean()(images).argmax(dim=1)).any()
