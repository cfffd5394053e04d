"""CIFAR-10 from a download or a copy of one's own: found, checked, kept; and every damage ends in words."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_downloads import Server

from lessons_lib import cifar10
from lessons_lib.cifar10 import ARCHIVE, CATEGORIES, load_cifar10
from lessons_lib.downloads import FileUnavailable

COUNTS = {"train": 3, "test": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CIFAR-10 of 3 + 2 pictures a category, so that a test takes no minute."""
    monkeypatch.setattr(cifar10, "_COUNTS", COUNTS)


def pixels(part: str, label: int, number: int) -> np.ndarray:
    """A picture that says which it is, and is not even."""
    random = np.random.default_rng([part == "train", label, number])
    return random.integers(0, 256, (32, 32, 3), dtype=np.uint8)


def picture_file(part: str, label: int, number: int, form: str = "png") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels(part, label, number)).save(content, form)
    return content.getvalue()


def tree(folder: Path, form: str = "png") -> Path:
    for part, count in COUNTS.items():
        for label, category in enumerate(CATEGORIES):
            (folder / part / category).mkdir(parents=True)
            for number in range(count):
                (folder / part / category / f"{number:04}.{form}").write_bytes(picture_file(part, label, number, form))
    return folder


def tar(path: Path, folder: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:
        # Not in order of names: what is read must not depend on how it was packed.
        for file in sorted(folder.rglob("*.*"), key=lambda file: hashlib.sha256(str(file).encode()).digest()):
            archive.add(file, file.relative_to(folder.parent))
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("LESSONS_DATA", str(folder))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "lessons_home"


def assert_is_cifar(dataset: Any, exact: bool = True) -> None:
    assert dataset.name == "CIFAR-10" and dataset.categories == CATEGORIES
    for part, count in COUNTS.items():
        pictures = getattr(dataset, part)
        assert pictures.labels.tolist() == [label for label in range(10) for _ in range(count)]
        expected = np.stack([pixels(part, label, number) for label in range(10) for number in range(count)])
        if exact:
            assert np.array_equal(pictures.images.permute(0, 2, 3, 1).numpy(), expected)


# --- a copy of one's own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "cifar10", "CIFAR-10-png", "cifar10_of_our_school"])
def test_a_folder_tree_is_read_wherever_it_lies(data: Path, place: str) -> None:
    tree(data / place)
    dataset = load_cifar10()
    assert_is_cifar(dataset)
    assert dataset.found.startswith("LESSONS_DATA")


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.xz", "w:xz")]
)
def test_a_tar_of_a_tree_is_read_in_the_order_of_its_names(data: Path, tmp_path: Path, suffix: str, mode: Any) -> None:
    tar(data / f"cifar10{suffix}", tree(tmp_path / "anything"), mode)
    assert_is_cifar(load_cifar10())


def test_jpegs_are_read_too_and_the_copy_says_it_is_not_the_original(data: Path) -> None:
    tree(data / "cifar10-jpeg", "jpeg")
    dataset = load_cifar10()
    assert_is_cifar(dataset, exact=False)
    assert dataset.copy == "a copy whose pixels are not the original's (cifar10-jpeg)"


def test_a_copy_is_the_original_where_mean_and_deviation_are_the_published_ones(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(data)
    found = cifar10._read(data)
    for name, pictures in zip(("TRAIN", "TEST"), found, strict=True):
        statistics = pictures.statistics()
        monkeypatch.setattr(cifar10, f"{name}_MEAN", tuple(round(value, 6) for value in statistics.mean))
        monkeypatch.setattr(cifar10, f"{name}_STD", statistics.std)
    assert load_cifar10().copy == "the original"


def test_the_published_statistics_are_those_of_float64_but_for_their_rounding() -> None:
    """Exactly, from whole sums over the original's 51 200 000 pixels: 125.306918046875 and so on, of 255."""
    exact = np.array([125.306918046875, 122.950394140625, 113.86538318359375])
    assert (exact * 51_200_000 == np.round(exact * 51_200_000)).all()
    assert np.abs(exact / 255 - cifar10.TRAIN_MEAN).max() < 5e-7 < cifar10._ROUNDING


def test_the_second_time_it_comes_from_what_was_kept(
    data: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(data)
    first = load_cifar10()

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(cifar10, "_read", refuse)
    again = load_cifar10()
    assert torch.equal(first.train.images, again.train.images)
    assert (first.copy, first.found) == (again.copy, again.found)
    assert len(list(home.glob("cifar10-*"))) == 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_that_has_changed_is_read_anew(data: Path, tmp_path: Path, packed: bool) -> None:
    folder = tree(tmp_path / "packed" if packed else data)
    if packed:
        tar(data / "cifar10.tar", folder, "w")
    before = load_cifar10().train.images[0]
    (folder / "train" / "airplane" / "0000.png").write_bytes(picture_file("train", 9, 9))
    if packed:
        tar(data / "cifar10.tar", folder, "w")
    assert not torch.equal(load_cifar10().train.images[0], before)


@pytest.mark.parametrize("damage", ["cut", "changed", "another file"])
def test_what_was_kept_and_is_damaged_is_made_again(
    data: Path, home: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(data)
    load_cifar10()
    (kept,) = home.glob("cifar10-*")
    content = bytearray(kept.read_bytes())
    if damage == "cut":
        kept.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[-1000] ^= 1
        kept.write_bytes(content)
    else:
        kept.write_bytes(b"weights of a network")
    capsys.readouterr()
    assert_is_cifar(load_cifar10())
    assert "is damaged" in capsys.readouterr().out
    capsys.readouterr()
    assert_is_cifar(load_cifar10())
    assert capsys.readouterr().out == ""


def test_a_home_that_cannot_be_written_to_costs_time_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path / "file"))
    tree(data)
    assert_is_cifar(load_cifar10())
    assert "could not be kept" in capsys.readouterr().out


def test_data_that_are_read_only_are_enough(data: Path) -> None:
    tree(data)
    for path in (*data.rglob("*"), data):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    assert_is_cifar(load_cifar10())
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before
    data.chmod(0o755)


# --- damage ---------------------------------------------------------------------------------------------------------


def _missing_picture(data: Path) -> str:
    (tree(data) / "train" / "cat" / "0001.png").unlink()
    return "is not whole: train/cat has 2 pictures, and should have 3"


def _missing_category(data: Path) -> str:
    shutil.rmtree(tree(data) / "test" / "frog")
    return "is not whole: test/frog has 0 pictures, and should have 2"


def _other_category(data: Path) -> str:
    (tree(data) / "test" / "frog").rename(data / "test" / "toad")
    return "'toad' is none of the categories airplane, automobile"


def _cut_picture(data: Path) -> str:
    path = tree(data) / "train" / "dog" / "0000.png"
    path.write_bytes(path.read_bytes()[:300])
    return "the picture train/dog/0000.png is damaged"


def _no_picture(data: Path) -> str:
    (tree(data) / "train" / "dog" / "0000.png").write_bytes(b"nothing")
    return "the picture train/dog/0000.png is damaged"


def _other_size(data: Path) -> str:
    Image.new("RGB", (64, 48)).save(tree(data) / "train" / "dog" / "0000.png")
    return "the picture train/dog/0000.png has 64 x 48 pixels, not 32 x 32"


def _cut_tar(data: Path) -> str:
    path = tar(data / "cifar10.tar.xz", tree(data.parent / "tree"), "w:xz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "cifar10.tar.xz is damaged or cut short"


def _cut_gz(data: Path) -> str:
    path = tar(data / "cifar10.tgz", tree(data.parent / "tree"), "w:gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "cifar10.tgz is damaged or cut short"


def _no_tar(data: Path) -> str:
    (data / "cifar10.tar").write_bytes(b"this is no tar" * 100)
    return "cifar10.tar is damaged or cut short"


def _empty_tar(data: Path) -> str:
    with tarfile.open(data / "cifar10.tar", "w"):
        pass
    return "is not whole: train/airplane has 0 pictures"


def _two_copies(data: Path) -> str:
    tree(data / "cifar10-a")
    tree(data / "cifar10-b")
    return "more than one copy of CIFAR-10, cifar10-a and cifar10-b"


def _damaged_archive(data: Path) -> str:
    (data / ARCHIVE).write_bytes(b"half a download")
    return "is damaged or cut short: its md5 is not"


def _damaged_batches(data: Path) -> str:
    (data / "cifar-10-batches-py").mkdir()
    return "is damaged or not whole: the checksums of its files do not fit"


@pytest.mark.parametrize(
    "break_it",
    [
        _missing_picture, _missing_category, _other_category, _cut_picture, _no_picture, _other_size, _cut_tar, _cut_gz,
        _no_tar, _empty_tar, _two_copies, _damaged_archive, _damaged_batches,
    ],
)  # fmt: skip
def test_a_damaged_copy_is_an_error_that_says_what_and_nothing_is_kept_or_lost(
    data: Path, home: Path, break_it: Callable[[Path], str]
) -> None:
    words = break_it(data)
    before = sorted(data.rglob("*"))
    with pytest.raises(ValueError, match=words):
        load_cifar10()
    assert sorted(data.rglob("*")) == before
    assert not home.exists() or list(home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to the superuser")
def test_a_copy_that_may_not_be_read_is_an_error(data: Path) -> None:
    path = tar(data / "cifar10.tar", tree(data.parent / "tree"), "w")
    path.chmod(0)
    with pytest.raises(ValueError, match="cannot be read"):
        load_cifar10()


def test_a_hundred_categories_are_another_dataset(data: Path) -> None:
    tree(data / "cifar100")
    with pytest.raises(FileUnavailable, match="was not to be downloaded"):
        load_cifar10(download=False)


# --- the original ---------------------------------------------------------------------------------------------------


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An archive built as the original is; torchvision is told its checksums, and we its statistics."""
    from torchvision.datasets import CIFAR10

    def batch(part: str) -> bytes:
        order = [(label, number) for number in range(COUNTS[part]) for label in range(10)]
        rows = np.stack([pixels(part, *one).transpose(2, 0, 1).ravel() for one in order])
        return pickle.dumps({"data": rows, "labels": [label for label, _ in order]})

    files = {
        "data_batch_1": batch("train"),
        "test_batch": batch("test"),
        "batches.meta": pickle.dumps({"label_names": list(CATEGORIES)}),
    }
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, part in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(part)
            archive.addfile(entry, io.BytesIO(part))
    digest = {name: hashlib.md5(part).hexdigest() for name, part in files.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", digest["data_batch_1"]]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digest["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": digest["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(content.getvalue()).hexdigest())
    for name, part in (("TRAIN", "train"), ("TEST", "test")):
        each = np.stack([pixels(part, label, k) for label in range(10) for k in range(COUNTS[part])]) / 255
        monkeypatch.setattr(cifar10, f"{name}_MEAN", tuple(each.mean(axis=(0, 1, 2))))
        monkeypatch.setattr(cifar10, f"{name}_STD", tuple(each.std(axis=(0, 1, 2))))
    return content.getvalue()


def assert_is_original(dataset: Any) -> None:
    assert dataset.copy == "the original"
    assert dataset.train.labels.tolist() == [*range(10)] * 3  # in the order of the archive
    assert np.array_equal(dataset.train.images[13].permute(1, 2, 0).numpy(), pixels("train", 3, 1))
    assert np.array_equal(dataset.test.images[4].permute(1, 2, 0).numpy(), pixels("test", 4, 0))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, original: bytes) -> Iterator[Server]:
    from torchvision.datasets import CIFAR10

    server = Server()
    server.content, server.sent = original, len(original)
    monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.http.server_port}/{ARCHIVE}")
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_the_download_is_checked_kept_and_not_done_twice(
    server: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_is_original(load_cifar10())
    told = capsys.readouterr().out
    assert "Downloading CIFAR-10, 170 MB" in told and "By hand: fetch http://127.0.0.1" in told
    requests = server.requests
    assert_is_original(load_cifar10())
    assert_is_original(load_cifar10(download=False))
    assert server.requests == requests
    assert [path.name for path in home.iterdir()] == ["cifar10.safetensors"]


def test_a_download_that_breaks_off_says_what_to_do_by_hand_and_leaves_nothing(server: Server, home: Path) -> None:
    server.sent = len(server.content) // 2
    with pytest.raises(FileUnavailable, match=rf"could not be downloaded .* save it as {ARCHIVE} .* set LESSONS_DATA"):
        load_cifar10()
    assert list(home.iterdir()) == []
    server.sent = len(server.content)
    assert_is_original(load_cifar10())


def test_another_file_than_the_published_one_is_refused(server: Server, home: Path) -> None:
    server.content = server.content[:-20] + bytes(20)
    with pytest.raises(FileUnavailable, match="could not be downloaded"):
        load_cifar10()
    assert list(home.iterdir()) == []


def test_without_the_download_its_absence_is_said(home: Path) -> None:
    with pytest.raises(FileUnavailable, match=r"neither in LESSONS_DATA nor in .*, and was not to be downloaded"):
        load_cifar10(download=False)


def test_a_home_that_cannot_be_written_to_is_no_place_for_a_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path / "file"))
    with pytest.raises(FileUnavailable, match="By hand"):
        load_cifar10()
    assert server.requests == 0


def test_the_archive_in_the_data_folder_is_read_without_changing_the_folder(data: Path, original: bytes) -> None:
    (data / ARCHIVE).write_bytes(original)
    tree(data / "cifar10-other")  # the original comes first
    before = sorted(data.rglob("*"))
    assert_is_original(load_cifar10(download=False))
    assert sorted(data.rglob("*")) == before


def test_the_unpacked_archive_in_the_data_folder_is_read(data: Path, original: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(original)) as archive:
        archive.extractall(data, filter="data")
    assert_is_original(load_cifar10(download=False))


# --- the real one ---------------------------------------------------------------------------------------------------


@pytest.mark.online
def test_the_original_has_the_published_statistics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path))
    assert load_cifar10().copy == "the original"
