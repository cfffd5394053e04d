"""What several test files share: where the local data are, a home that is not the user's, and a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import launched, program

# Read before any test changes the environment.
LOCAL_DATA = os.environ.get("LESSONS_DATA")


@pytest.fixture
def local_data(request: pytest.FixtureRequest) -> Path:
    """The folder of local copies; a test is skipped, and says so, where a file it needs is not there.

    Every such test needs the network's weights; more is named by `@pytest.mark.needs("file or folder")`.
    """
    if not LOCAL_DATA:
        pytest.skip("LESSONS_DATA is not set: no local copies to test with")
    more = [name for marker in request.node.iter_markers("needs") for name in marker.args]
    for name in ("compressed_SqueezeNet.net", *more):
        if not (Path(LOCAL_DATA) / name).exists():
            pytest.skip(f"LESSONS_DATA has no {name}")
    return Path(LOCAL_DATA)


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test starts without the user's settings and with an empty LESSONS_HOME."""
    for name in ("LESSONS_DATA", "LESSONS_SPECIMEN", "LESSONS_STRICT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path / "lessons_home"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium; tests that need it are skipped without one, and say so, or fail where REQUIRE_BROWSER=1."""
    path = program()
    if path is None:
        message = "no chromium or google-chrome on this machine: the pages were not seen by a browser"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with launched(path) as chromium:
        yield chromium
