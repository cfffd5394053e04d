"""What a student has done, kept in one small file, `progress.json` under LESSONS_HOME."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..downloads import home_folder

Record = dict[str, dict[str, Any]]
CASE = "case "
"""How the entry of a case of chapter 12 begins; its number follows."""


def record_file() -> Path:
    """Where the record is kept."""
    return home_folder() / "progress.json"


def read() -> Record:
    """Exercise -> what is known of it: `attempts` and `hints` (how many), `passed` (the day, where it was).

    A file that cannot be read as that is put aside under another name, so that nothing is lost, and said so.
    """
    try:
        return _read()
    except (OSError, RuntimeError) as error:
        print(f"Your progress cannot be read: {error}")
        return {}


def note(name: str, *, attempted: bool = False, passed: bool = False, hints: int | None = None) -> None:
    """Enter what has just happened to one exercise. Where nothing can be read or written, says so and goes on."""
    try:
        path = record_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two notebooks may be open at once: one at a time reads, changes and writes.
        with FileLock(path.with_suffix(".lock"), timeout=10):
            record = _read()
            entry = record.setdefault(name, {})
            if attempted:
                entry["attempts"] = count(entry, "attempts") + 1
            if passed:
                entry.setdefault("passed", datetime.date.today().isoformat())
            if hints is not None:
                entry["hints"] = max(count(entry, "hints"), hints)
            _write(record, path)
    except (OSError, RuntimeError) as error:
        print(f"Your progress could not be saved: {error}")


def _read() -> Record:
    """Raises OSError or RuntimeError where the file is there, but cannot be read now."""
    path = record_file()
    try:
        exercises = json.loads(path.read_text("utf-8"))["exercises"]
        if not all(isinstance(entry, dict) for entry in exercises.values()):
            raise ValueError("not a record of exercises")
        return dict(exercises)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        aside = path.with_name(f"progress-unreadable-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}.json")
        path.rename(aside)
        print(f"The record of your progress was not readable. It is kept as {aside.name}; a new one begins.")
        return {}


def _write(record: Record, path: Path) -> None:
    # In one move: who is interrupted leaves the old record or the new one, never half a one.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix="progress-", suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "exercises": record}, file, indent=1, sort_keys=True)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def hints_seen(name: str) -> int:
    """How many hints were shown for this exercise."""
    return count(read().get(name, {}), "hints")


def count(entry: dict[str, Any], key: str) -> int:
    """A number of an entry; 0 where what is written there is none."""
    value = entry.get(key, 0)
    return value if type(value) is int and value >= 0 else 0
