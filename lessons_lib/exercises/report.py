"""How the exercises speak: a card in a notebook, plain lines in a terminal."""

from __future__ import annotations

import sys
from html import escape
from typing import Literal

from ..interactive import marked_up
from ..plots import BLUE, GREEN, GREY, ORANGE
from .exercise import Exercise, Verdict

Tone = Literal["good", "bad", "open", "plain"]

_COLOURS = {"good": GREEN, "bad": ORANGE, "open": GREY, "plain": BLUE}
_MARKS = {"good": "✓", "bad": "✗", "open": "○", "plain": "→"}
# The host's own text colour on its own ground, so that a card is at home on light and dark pages; only the line at
# the left is coloured.
_CARD = (
    "border-left:4px solid {colour};border-radius:4px;padding:.4em .9em;margin:.3em 0;max-width:44rem;line-height:1.55"
)


def verdict(exercise: Exercise, found: Verdict, *, recorded: bool) -> tuple[str, str]:
    """The verdict on an answer as HTML and as plain text."""
    tone: Tone = {"passed": "good", "not attempted": "open"}.get(found.rung, "bad")  # type: ignore[assignment]
    head = f"Exercise {exercise.number}: " + {"passed": "passed", "not attempted": "not attempted yet"}.get(
        found.rung, "not yet"
    )
    parts = [found.words]
    if found.rung == "passed" and not recorded:
        parts.append("A solution, not an attempt: your progress is unchanged.")
    elif tone == "bad":
        parts.append(f'Stuck? `hint("{exercise.name}")`')
    return card(tone, head, *parts, printed=found.printed)


def card(tone: Tone, head: str, *parts: str, printed: str = "") -> tuple[str, str]:
    """A headline with paragraphs under it, and what a function printed, as HTML and as plain text."""
    mark, colour = _MARKS[tone], _COLOURS[tone]
    lines = [line for part in parts for line in part.splitlines() if line.strip()]
    body = "".join(f'<p style="margin:.2em 0">{marked_up(line)}</p>' for line in lines)
    text = "\n".join([f"{mark} {head}", *(f"  {line}" for line in lines)])
    if printed.strip():
        box = "margin:.4em 0;max-height:12em;overflow:auto;white-space:pre-wrap;opacity:.85"
        body += f'<p style="margin:.4em 0 0">Your function printed:</p><pre style="{box}">{escape(printed)}</pre>'
        text += "\n  Your function printed:\n" + "\n".join(f"  | {line}" for line in printed.splitlines())
    html = (
        f'<div class="lessons-report" style="{_CARD.format(colour=colour)}">'
        f'<p style="margin:.2em 0;font-weight:600">'
        f'<span aria-hidden="true">{mark}</span> {escape(head)}</p>{body}</div>'
    )
    return html, text


def show(html: str, text: str) -> None:
    """Show the card where it is asked for: in a notebook as a card, elsewhere as text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        print(text)
        return
    from IPython.display import display

    display({"text/html": html, "text/plain": text}, raw=True)
