"""Files that others publish: found in a local folder, or downloaded, and never used before their checksum fits."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import platformdirs
from torch.hub import download_url_to_file

# How long a host may be silent. Without a limit, a network that swallows packets (a classroom's firewall) would hang
# a chapter's first cell.
_TIMEOUT_S = 20.0
_timeout_lock = threading.Lock()  # the setting is the whole process's


class FileUnavailable(RuntimeError):
    """A published file is neither at hand nor to be had now; the message says what to do by hand."""


@dataclass(frozen=True)
class PublishedFile:
    """A file at a fixed address; `sha256` may be a prefix (torchvision publishes eight digits)."""

    name: str
    url: str
    sha256: str


def data_folder() -> Path | None:
    """The folder of local copies named by LESSONS_DATA, or None. Raises FileNotFoundError where it is missing."""
    value = os.environ.get("LESSONS_DATA")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"LESSONS_DATA is set to {value!r}, which is not a folder. "
            "Name the folder that holds the local copies, or unset LESSONS_DATA."
        )
    return folder


def home_folder() -> Path:
    """Where downloads are kept: LESSONS_HOME, or the user's cache folder."""
    value = os.environ.get("LESSONS_HOME")
    return Path(value).expanduser() if value else Path(platformdirs.user_cache_dir("lessons_lib"))


def obtain(file: PublishedFile) -> tuple[Path, str]:
    """A verified local copy of `file`, and in words where it was found.

    Looks in LESSONS_DATA, then in LESSONS_HOME, then downloads to there. Raises ValueError where the copy in
    LESSONS_DATA is not that file, FileUnavailable where no copy can be had.
    """
    folder = data_folder()
    if folder is not None and os.path.lexists(local := folder / file.name):
        problem = _problem(local, file)
        if problem:
            # Somebody put it there on purpose: to go and take another copy would hide their mistake.
            raise ValueError(f"{local} {problem}. Replace it by the file at {file.url}, or remove it.")
        return local, "LESSONS_DATA"

    kept = home_folder() / file.name
    if os.path.lexists(kept) and _problem(kept, file) is None:
        return kept, "LESSONS_HOME"
    _download(file, kept)
    return kept, "a download"


def _problem(path: Path, file: PublishedFile) -> str | None:
    """Why `path` is not `file`, or None where it is."""
    if path.is_dir():
        return f"is a folder, where the file {file.name} is expected"
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if not digest.startswith(file.sha256):
        return (
            f"is not the published file: its sha256 begins with {digest[:8]}, not {file.sha256[:8]}. "
            "It is damaged, cut short or another file"
        )
    return None


def _download(file: PublishedFile, path: Path) -> None:
    if path.is_dir():
        raise FileUnavailable(f"{path} is a folder, where the file {file.name} is to be kept. Remove that folder.")
    by_hand = (
        f"By hand: fetch {file.url} with a browser, save it as {file.name} in a folder of your choice, "
        "and set LESSONS_DATA to that folder."
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with patient_network():
            # Writes to a name of its own beside `path` and moves it there once the checksum fits: nothing
            # half-written is left, and of two processes at once the later simply wins.
            download_url_to_file(file.url, str(path), hash_prefix=file.sha256)
    except (OSError, RuntimeError, HTTPException) as error:
        # from None: the message has the cause, and forty frames of urllib would bury it in a notebook.
        raise FileUnavailable(f"{file.name} could not be downloaded to {path.parent} ({error}). {by_hand}") from None


@contextmanager
def patient_network() -> Iterator[None]:
    """Within it a host that says nothing for 20 seconds is given up."""
    with _timeout_lock:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT_S)
        try:
            yield
        finally:
            socket.setdefaulttimeout(before)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file that then takes the place of `path` in one move: nobody ever sees half of it.

    It has reached the disk before it does so: neither a killed process nor a power cut leaves less than one whole file.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
