"""With a copy of CIFAR-10 at hand: it is whole, says which it is, and the specimen `cifar10` reads it as recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import test_specimens
import torch
from ship_cifar10 import PACKAGE

from lessons_lib import cifar10
from lessons_lib.cifar10 import load_cifar10
from lessons_lib.specimens import Specimen, load_specimen
from lessons_lib.training import evaluate

pytestmark = pytest.mark.needs("cifar10-jpeg.tar.xz")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all of these: the pictures are read once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def at_hand(local_data: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(local_data))
    monkeypatch.setenv("LESSONS_HOME", str(home))


@pytest.fixture
def specimen(capsys: pytest.CaptureFixture[str]) -> Specimen:
    specimen = load_specimen("cifar10")
    assert "not at hand" not in capsys.readouterr().out
    return specimen


def test_the_copy_is_whole_and_says_that_it_is_not_the_original() -> None:
    data = load_cifar10()
    assert data.train.labels.bincount().tolist() == [5000] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.copy == "a copy whose pixels are not the original's (cifar10-jpeg.tar.xz)"
    assert data.train.statistics().mean == pytest.approx(cifar10.TRAIN_MEAN, abs=5e-4)


def test_the_specimen_keeps_its_promises_with_pictures_of_the_test_set(specimen: Specimen) -> None:
    for promise in (
        test_specimens.test_pictures_are_in_range_and_have_truths,
        test_specimens.test_every_role_is_played_by_a_picture_that_fits_it,
        test_specimens.test_both_things_of_the_double_picture_are_among_the_first_answers,
        test_specimens.test_samples_are_new_pictures_of_the_size_the_network_is_used_to,
        test_specimens.test_a_sample_depends_on_its_seed_alone_and_fewer_are_the_first_of_more,
    ):
        promise(specimen)
    assert torch.equal(specimen.scenes(5), torch.arange(5))


def test_its_pictures_are_of_the_test_set_one_of_each_category_read_rightly(specimen: Specimen) -> None:
    tested = {tuple(picture.flatten().tolist()) for picture in load_cifar10().test.images[:, :, 16, 8:24]}
    for picture in (*specimen.sample(50), *(specimen.pictures[name] for name in specimen.categories)):
        assert tuple((picture[:, 16, 8:24] * 255).round().long().flatten().tolist()) in tested
    for category in specimen.categories:
        assert specimen.truths[category] == (category,)
        assert specimen.predict(specimen.pictures[category], top=1)[0].category == category


def test_it_reads_the_test_set_as_recorded(specimen: Specimen) -> None:
    """Every tenth picture, to be quick: within three standard errors of what is on record for all."""
    recorded = json.loads((PACKAGE / "recorded" / "training" / "pocket.json").read_text("utf-8"))["test"]["accuracy"]
    assert evaluate(specimen.model, load_cifar10().test[::10].batches()).accuracy == pytest.approx(recorded, abs=0.03)
