"""CIFAR-10 (Krizhevsky, 2009): 60 000 pictures of 32 x 32 pixels in ten categories, from wherever they can be had.

They are read once, from a download or from a copy of your own, and kept as tensors in one file of LESSONS_HOME,
which opens in a fraction of a second. A copy whose pixels are not those of the original says so.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from .datasets import Dataset, Pictures, Statistics
from .downloads import FileUnavailable, data_folder, home_folder, patient_network, replace_file

CATEGORIES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = "cifar-10-python.tar.gz"
# Of the original, as they are published. They were summed in float32: in float64 the last two digits differ.
TRAIN_MEAN, TRAIN_STD = (0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)
TEST_MEAN, TEST_STD = (0.49421427, 0.48513183, 0.45040932), (0.24665256, 0.24289224, 0.26159248)
_ROUNDING = 2e-6

_COUNTS = {"train": 5000, "test": 1000}  # pictures of each category
_SIDE = 32
_PICTURE = re.compile(r"(?:^|/)(train|test)/([^/]+)/([^/]+\.(?:png|jpe?g|bmp|ppm|webp))$", re.IGNORECASE)
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def load_cifar10(*, download: bool = True) -> Dataset:
    """CIFAR-10 from LESSONS_DATA, else from an earlier download in LESSONS_HOME, else by a download to there.

    LESSONS_DATA may hold the original archive, the folder that was in it, a folder tree `train/<category>/<picture>`,
    `test/...` (also one folder further down), or a tar of one. Raises ValueError where such a copy is damaged or not
    whole, FileUnavailable where there is none, or none without the download.
    """
    source = _local_source()
    if source is not None:
        digest = _fingerprint(source)
        return _kept(f"cifar10-{digest[:16]}", lambda: _read(source), f"LESSONS_DATA, {source.name}")
    dataset = _kept("cifar10", lambda: _download(download), "a download")
    # The checksums of the archive's files were right; that these are the published numbers proves the rest of the way.
    assert dataset.copy == "the original", "mean and deviation of CIFAR-10 are not the published ones"
    return dataset


def _is_original(train: Pictures, test: Pictures) -> bool:
    """Whether the pixels are those of the original, in whatever order: mean and deviation of every channel agree."""
    parts = ((train, TRAIN_MEAN, TRAIN_STD), (test, TEST_MEAN, TEST_STD))
    return all(_agree(pictures.statistics(), mean, std) for pictures, mean, std in parts)


def _agree(found: Statistics, mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    pairs = zip((*found.mean, *found.std), (*mean, *std), strict=True)
    return all(abs(here - published) < _ROUNDING for here, published in pairs)


# --- a copy of one's own --------------------------------------------------------------------------------------------


def _local_source() -> Path | None:
    """The copy in LESSONS_DATA: the original where it is there, else the one tree or the one tar of a tree."""
    folder = data_folder()
    if folder is None:
        return None
    for original in (folder / ARCHIVE, folder / "cifar-10-batches-py"):
        if original.exists():
            return original
    if _is_tree(folder):
        return folder
    named = [path for path in sorted(folder.iterdir()) if re.match(r"cifar[-_]?10(?!0)", path.name, re.IGNORECASE)]
    trees = [path for path in named if _is_tree(path)]
    tars = [path for path in named if path.name.lower().endswith(_TARS)]
    found = trees or tars
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ValueError(f"{folder} has more than one copy of CIFAR-10, {names}: leave the one you want")
    return found[0] if found else None


def _is_tree(folder: Path) -> bool:
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def _fingerprint(source: Path) -> str:
    """Of a file its sha256; of a folder that of the names, sizes and times of its files: whether it has changed."""
    if source.is_file():
        with _readable(source), source.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    listing = hashlib.sha256()
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            facts = os.stat(os.path.join(folder, name))
            listing.update(f"{folder}/{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return listing.hexdigest()


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{source} cannot be read ({error.strerror or error})") from None


def _read(source: Path) -> tuple[Pictures, Pictures]:
    if source.name == ARCHIVE:
        return _from_archive(source)
    if source.name == "cifar-10-batches-py":
        return _from_torchvision(source.parent)
    files = _files_of_tree(source) if source.is_dir() else _files_of_tar(source)
    return _from_files(source, files)


def _files_of_tree(source: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if _PICTURE.search(name):
            with _readable(path):
                yield name, path.read_bytes()


def _files_of_tar(source: Path) -> Iterator[tuple[str, bytes]]:
    try:
        # "|": from front to end, as a compressed file is read quickest.
        with tarfile.open(source, "r|*") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() and _PICTURE.search(member.name) else None
                if content is not None:
                    yield member.name, content.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{source} is damaged or cut short ({error}). Replace it by a whole copy.") from None


def _from_files(source: Path, files: Iterator[tuple[str, bytes]]) -> tuple[Pictures, Pictures]:
    """Decode every picture; the order is by category and name, however the files came."""
    decoded: dict[str, list[tuple[int, str, np.ndarray]]] = {"train": [], "test": []}
    total = len(CATEGORIES) * sum(_COUNTS.values())
    for name, content in tqdm(files, total=total, unit="picture", desc=f"reading {source.name}"):
        part, category, picture = _PICTURE.search(name).groups()  # type: ignore[union-attr]
        if category not in CATEGORIES:
            raise ValueError(f"{source}: {category!r} is none of the categories {', '.join(CATEGORIES)}")
        decoded[part.lower()].append((CATEGORIES.index(category), picture, _decode(source, name, content)))
    parts = []
    for part, each in _COUNTS.items():
        decoded[part].sort(key=lambda found: found[:2])
        labels = np.array([label for label, _, _ in decoded[part]], np.int64)
        for label, count in enumerate(np.bincount(labels, minlength=len(CATEGORIES))):
            if count != each:
                raise ValueError(
                    f"{source} is not whole: {part}/{CATEGORIES[label]} has {count} pictures, and should have {each}"
                )
        pixels = np.stack([pixels for _, _, pixels in decoded[part]])
        parts.append(_pictures(pixels, labels))
        decoded[part].clear()
    return parts[0], parts[1]


def _decode(source: Path, name: str, content: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(BytesIO(content)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{source}: the picture {name} is damaged ({error})") from None
    if pixels.shape != (_SIDE, _SIDE, 3):
        raise ValueError(f"{source}: the picture {name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, not 32 x 32")
    return pixels


def _pictures(pixels: np.ndarray, labels: np.ndarray | list[int]) -> Pictures:
    """From (N, 32, 32, 3)."""
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return Pictures(images, torch.as_tensor(labels, dtype=torch.int64))


# --- the original, by torchvision -----------------------------------------------------------------------------------


def _download(allowed: bool) -> tuple[Pictures, Pictures]:
    home = home_folder()
    if not allowed:
        raise FileUnavailable(f"CIFAR-10 is neither in LESSONS_DATA nor in {home}, and was not to be downloaded")
    from torchvision.datasets import CIFAR10

    by_hand = (
        f"By hand: fetch {CIFAR10.url} (170 MB) with a browser or a download manager, save it as {ARCHIVE} in a folder "
        "of your choice, and set LESSONS_DATA to that folder."
    )
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="cifar10-", dir=home) as folder:
            print(f"Downloading CIFAR-10, 170 MB. Its host can be slow. {by_hand}")
            with patient_network(), redirect_stdout(StringIO()):  # torchvision's own words would say it again
                CIFAR10(folder, download=True)
            return _from_torchvision(Path(folder))
    except (OSError, RuntimeError) as error:
        raise FileUnavailable(f"CIFAR-10 could not be downloaded to {home} ({error}). {by_hand}") from None


def _from_archive(archive: Path) -> tuple[Pictures, Pictures]:
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, extract_archive

    if not check_integrity(str(archive), CIFAR10.tgz_md5):
        raise ValueError(f"{archive} is damaged or cut short: its md5 is not {CIFAR10.tgz_md5}. Fetch it again.")
    with tempfile.TemporaryDirectory() as folder:
        extract_archive(str(archive), folder)
        return _from_torchvision(Path(folder))


def _from_torchvision(folder: Path) -> tuple[Pictures, Pictures]:
    from torchvision.datasets import CIFAR10

    try:
        train, test = (CIFAR10(folder, train=part) for part in (True, False))
    except RuntimeError:
        raise ValueError(
            f"{folder / 'cifar-10-batches-py'} is damaged or not whole: the checksums of its files do not fit"
        ) from None
    return _pictures(train.data, train.targets), _pictures(test.data, test.targets)


# --- kept -----------------------------------------------------------------------------------------------------------


def _kept(name: str, make: Callable[[], tuple[Pictures, Pictures]], found: str) -> Dataset:
    """What `make` reads, from the file it was kept in where there is one; else it is made and kept."""
    path = home_folder() / f"{name}.safetensors"
    kept = _open(path, found)
    if kept is not None:
        return kept
    train, test = make()
    own = f"a copy whose pixels are not the original's ({found.rpartition(', ')[2]})"
    copy = "the original" if _is_original(train, test) else own
    dataset = Dataset("CIFAR-10", copy, found, CATEGORIES, train, test)
    try:
        _keep(dataset, path)
    except OSError as error:
        print(f"CIFAR-10 could not be kept in {path.parent} ({error}): it will be read anew the next time.")
    return dataset


def _open(path: Path, found: str) -> Dataset | None:
    """What was kept, or None where there is nothing, or nothing whole: it can be made again."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            facts, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(tensors) != facts["sha256"]:
            raise ValueError("its pixels have changed")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        print(f"{path} is damaged ({error}): it is made again.")
        return None
    parts = (Pictures(tensors[f"{part}_images"], tensors[f"{part}_labels"]) for part in _COUNTS)
    return Dataset("CIFAR-10", facts["copy"], found, CATEGORIES, *parts)


def _keep(dataset: Dataset, path: Path) -> None:
    tensors = {
        f"{part}_{name}": getattr(getattr(dataset, part), name) for part in _COUNTS for name in ("images", "labels")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(
        path, lambda temporary: save_file(tensors, temporary, {"copy": dataset.copy, "sha256": _digest(tensors)})
    )


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(memoryview(tensors[name].numpy()))  # type: ignore[arg-type]
    return digest.hexdigest()
