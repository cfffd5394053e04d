"""Published files: everything that goes wrong with downloads in classrooms ends in words, and leaves nothing behind."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lessons_lib import downloads
from lessons_lib.downloads import FileUnavailable, PublishedFile, data_folder, home_folder, obtain

CONTENT = bytes(range(256)) * 2000


class Server:
    """A host on this machine that serves `content`, or only the beginning of it."""

    def __init__(self) -> None:
        self.content, self.sent, self.requests = CONTENT, len(CONTENT), 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content[: outer.sent])

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def file(self) -> PublishedFile:
        url = f"http://127.0.0.1:{self.http.server_port}/weights.bin"
        return PublishedFile("weights.bin", url, hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_is_downloaded_once_and_kept(server: Server) -> None:
    path, found = obtain(server.file)
    assert (path, found) == (home_folder() / "weights.bin", "a download")
    assert path.read_bytes() == CONTENT
    assert obtain(server.file) == (path, "LESSONS_HOME")
    assert server.requests == 1


def test_a_local_copy_is_used_without_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    monkeypatch.setenv("LESSONS_DATA", str(tmp_path))
    assert obtain(server.file) == (tmp_path / "weights.bin", "LESSONS_DATA")
    assert server.requests == 0


def test_a_local_folder_without_the_file_leads_on_to_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(tmp_path))
    assert obtain(server.file)[1] == "a download"


def test_a_missing_local_folder_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server) -> None:
    monkeypatch.setenv("LESSONS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"LESSONS_DATA is set to .*nowhere.*not a folder"):
        data_folder()
    with pytest.raises(FileNotFoundError, match="unset LESSONS_DATA"):
        obtain(server.file)


@pytest.mark.parametrize("damage", ["cut short", "another file", "a folder", "a dangling link"])
def test_a_wrong_local_copy_is_an_error_and_is_not_replaced(
    damage: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "weights.bin"
    match damage:
        case "cut short":
            local.write_bytes(CONTENT[:-1])
        case "another file":
            local.write_bytes(b"something else")
        case "a folder":
            local.mkdir()
        case "a dangling link":
            local.symlink_to(tmp_path / "gone")
    monkeypatch.setenv("LESSONS_DATA", str(tmp_path))
    words = {
        "cut short": "damaged, cut short",
        "another file": "another file",
        "a folder": "is a folder",
        "a dangling link": "cannot be read",
    }
    with pytest.raises(ValueError, match=words[damage]) as error:
        obtain(server.file)
    assert server.file.url in str(error.value)
    assert server.requests == 0


def told_what_to_do(error: pytest.ExceptionInfo[FileUnavailable], file: PublishedFile) -> bool:
    words = str(error.value)
    return file.url in words and "LESSONS_DATA" in words and file.name in words


def test_no_network_says_what_to_do_by_hand() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        file = PublishedFile("weights.bin", f"http://127.0.0.1:{unused.getsockname()[1]}/weights.bin", "0" * 64)
        with pytest.raises(FileUnavailable, match="could not be downloaded") as error:
            obtain(file)
    assert told_what_to_do(error, file)
    assert left_in(home_folder()) == []


def test_a_network_that_swallows_packets_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_TIMEOUT_S", 0.2)
    before = socket.getdefaulttimeout()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)  # accepts the connection, never answers
        file = PublishedFile("weights.bin", f"http://127.0.0.1:{silent.getsockname()[1]}/weights.bin", "0" * 64)
        with pytest.raises(FileUnavailable, match="timed out"):
            obtain(file)
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize("damage", ["wrong checksum", "truncated"])
def test_a_damaged_download_is_refused_and_leaves_nothing(damage: str, server: Server) -> None:
    if damage == "truncated":
        server.sent = 1000
    else:
        server.content = CONTENT[::-1]
    with pytest.raises(FileUnavailable, match="invalid hash value") as error:
        obtain(server.file)
    assert told_what_to_do(error, server.file)
    assert left_in(home_folder()) == []


def test_a_damaged_kept_copy_is_replaced(server: Server) -> None:
    home_folder().mkdir(parents=True)
    kept = home_folder() / "weights.bin"
    kept.write_bytes(CONTENT[:-5])
    assert obtain(server.file) == (kept, "a download")
    assert kept.read_bytes() == CONTENT


def test_a_damaged_kept_copy_is_not_used_when_the_download_fails(server: Server) -> None:
    home_folder().mkdir(parents=True)
    (home_folder() / "weights.bin").write_bytes(b"damaged")
    server.content = b"also damaged"
    with pytest.raises(FileUnavailable):
        obtain(server.file)
    assert left_in(home_folder()) == ["weights.bin"]


def test_a_folder_in_the_place_of_the_file_is_named(server: Server) -> None:
    (home_folder() / "weights.bin").mkdir(parents=True)
    with pytest.raises(FileUnavailable, match="Remove that folder"):
        obtain(server.file)
    assert server.requests == 0


def test_a_home_that_is_a_file_is_told(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").write_text("in the way")
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path / "home"))
    with pytest.raises(FileUnavailable, match=r"could not be downloaded to .*home") as error:
        obtain(server.file)
    assert told_what_to_do(error, server.file)


def test_a_read_only_home_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by chmod: the superuser of a container writes all the same.
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FileUnavailable, match="Read-only file system") as error:
        obtain(server.file)
    assert told_what_to_do(error, server.file)


def test_a_full_disk_is_told_and_leaves_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.hub

    class Full:
        """An open file on a disk that takes the first block and no more."""

        def __init__(self, file: Any) -> None:
            self.file, self.name, self.blocks = file, file.name, 0

        def write(self, data: bytes) -> None:
            self.blocks += 1
            if self.blocks > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.file.write(data)

        def close(self) -> None:
            self.file.close()

    monkeypatch.setattr(torch.hub, "open", lambda *args: Full(open(*args)), raising=False)  # noqa: SIM115
    with pytest.raises(FileUnavailable, match="No space left") as error:
        obtain(server.file)
    assert told_what_to_do(error, server.file)
    assert left_in(home_folder()) == []


def test_two_processes_at_once_both_get_the_file(server: Server) -> None:
    file = server.file
    code = (
        "from lessons_lib.downloads import PublishedFile, obtain\n"
        f"path, _ = obtain(PublishedFile({file.name!r}, {file.url!r}, {file.sha256!r}))\n"
        "print(len(path.read_bytes()))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out.strip()) == (0, str(len(CONTENT))), err
    assert left_in(home_folder()) == ["weights.bin"]


def test_the_home_is_the_users_cache_folder_unless_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    monkeypatch.delenv("LESSONS_HOME")
    assert home_folder().name == "lessons_lib"
