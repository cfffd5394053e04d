"""What a student has done, kept in one small file, `progress.json` under LESSONS_HOME."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..downloads import home_folder

Record = dict[str, dict[str, Any]]


def record_file() -> Path:
    """Where the record is kept."""
    return home_folder() / "progress.json"


def read() -> Record:
    """Exercise -> what is known of it: `attempts` and `hints` (how many), `passed` (the day, where it was).

    A file that cannot be read as that is put aside under another name, so that nothing is lost, and said so.
    """
    path = record_file()
    try:
        content = json.loads(path.read_text("utf-8"))
        exercises = content["exercises"]
        if not all(isinstance(entry, dict) for entry in exercises.values()):
            raise ValueError("not a record of exercises")
        return dict(exercises)
    except FileNotFoundError:
        return {}
    except OSError as error:
        _say(f"Your progress cannot be read: {error}")
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = path.with_name(f"progress-unreadable-{datetime.datetime.now():%Y%m%d-%H%M%S-%f}.json")
        try:
            path.rename(aside)
            _say(f"The record of your progress was not readable. It is kept as {aside.name}; a new one begins.")
        except OSError as error:
            _say(f"The record of your progress is not readable, and cannot be put aside: {error}")
    return {}


def note(name: str, *, attempted: bool = False, passed: bool = False, hints: int | None = None) -> None:
    """Enter what has just happened to one exercise. Where nothing can be written, says so and goes on."""
    record = read()
    entry = record.setdefault(name, {})
    if attempted:
        entry["attempts"] = _count(entry, "attempts") + 1
    if passed:
        entry.setdefault("passed", datetime.date.today().isoformat())
    if hints is not None:
        entry["hints"] = max(_count(entry, "hints"), hints)
    path = record_file()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In one move: who is interrupted, or writes at the same time, finds an old or a new record, never half a one.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix="progress-", suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "exercises": record}, file, indent=1, sort_keys=True)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        _say(f"Your progress could not be saved: {error}")


def hints_seen(name: str) -> int:
    """How many hints were shown for this exercise."""
    return _count(read().get(name, {}), "hints")


def _count(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key, 0)
    return value if isinstance(value, int) else 0


def _say(words: str) -> None:
    print(words)
