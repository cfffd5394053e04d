"""A case of chapter 12, worked on step by step: each step is checked against the case itself, and all of them make the
report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from torch import nn

from ..capstone import PARTS, Case, Exam, answers, exam, share, variant
from ..plots import BLUE, GREY, ORANGE
from . import WrongAnswer, record
from .report import card, show

_NEAR = 0.03  # a share that a student measured may differ by rounding, or by a picture or two
_NEAR_CHANGED = 0.06  # which kinds are exchanged for which depends on the seed
REPAIRED_FIELD, REPAIRED_CHANGED = 0.9, 0.1
"""A repaired network reads at least this share of new field pictures rightly, and changes at most this share of its
answers when the part it went by is exchanged."""


@dataclass
class _Found:
    before: Mapping[str, float] = field(default_factory=dict)
    changed: Mapping[str, float] = field(default_factory=dict)
    claim: str | None = None
    why: str = ""
    how: str = ""
    after: Exam | None = None
    claims: int = 0  # handed in, right or wrong
    networks: int = 0


class Investigation:
    """Your work on a `case`, from the first figure to the report; `name` is who signs it.

    Each step says on a card whether it holds, and the next one waits for it; what has once held stays. With
    LESSONS_STRICT=1 a step that does not hold raises `WrongAnswer`. With `record=False` your progress is left as it is.
    Raises TypeError where `case` is none.
    """

    def __init__(self, case: Case, name: str = "", *, record: bool = True) -> None:
        if not isinstance(case, Case):
            raise TypeError(f"case must be a Case, such as `load_case(17)`, not {type(case).__name__}")
        self.case, self.name, self._record = case, str(name), record
        self._found = _Found()
        self._done: list[str] = []
        self._handed_over: Exam | None = None

    def measured(self, validation: float, field: float, worst: float) -> None:
        """Hand in three shares: of validation and of field pictures read rightly, and that of the worst category."""
        handed = self._shares("1", {"validation": validation, "field": field, "worst": worst})
        if handed is None:
            return
        wrong = [name for name, value in self._right().items() if abs(value - handed[name]) > _NEAR]
        if wrong:
            asked = {
                "validation": "the share of `case.validation` read rightly",
                "field": "the share of `case.field` read rightly",
                "worst": "the lowest share of `case.field` read rightly among its six categories",
            }
            self._say("1", False, f"Measure again: `{wrong[0]}` is {asked[wrong[0]]}, between 0 and 1.")
            return
        self._found.before = handed
        told = f"{handed['validation']:.0%} on the validation pictures, {handed['field']:.0%} in the field, "
        told += f"{handed['worst']:.0%} in the worst category. That says *that* it fails, and nothing about why."
        self._say("1", True, told)

    def intervened(self, changed: Mapping[str, float]) -> None:
        """Hand in which share of its answers to validation pictures changes when a part is exchanged, by part, and
        under "noise", which is the control."""
        if self._waits_for("1", "2"):
            return
        wanted = (*PARTS, "noise")
        if not isinstance(changed, Mapping) or set(changed) != set(wanted):
            self._say("2", False, f"Hand over a dictionary with a share for each of {', '.join(wanted)}.")
            return
        handed = self._shares("2", changed)
        if handed is None:
            return
        said = answers(self.case.network, self.case.validation.images)
        for part in PARTS:
            true = share(answers(self.case.network, self.case.exchanged(part).images) != said)
            if abs(true - handed[part]) > _NEAR_CHANGED:
                self._say(
                    "2",
                    False,
                    "Measure again: what share of the answers to `case.validation` changes when you take "
                    f"`case.exchanged({part!r})` in its place?",
                )
                return
        self._found.changed = handed
        told = ", ".join(f"{part} {handed[part]:.0%}" for part in wanted)
        self._say("2", True, f"Answers that change with another part, or under noise: {told}. What do you conclude?")

    def claims(self, part: str | None, why: str = "") -> None:
        """Name the part that the network goes by, or None if it goes by none of them, and say why in a sentence."""
        if self._waits_for("2", "3"):
            return
        if part is not None and part not in PARTS:
            self._say("3", False, f"Name one of {', '.join(PARTS)}, or None.")
            return
        self._found.claims += 1
        changed, true = self._found.changed, variant(self.case.number)
        if part != true:
            most = max(PARTS, key=lambda name: changed[name])
            if part is not None and (true is None or changed[part] < changed[true]):
                words = f"With another {part} no more than {changed[part]:.0%} of its answers change. "
                words += (
                    f"Too few to accuse anybody (under noise it is {changed['noise']:.0%}), and a network that fails "
                    "need not have a shortcut. Look at the field pictures. What else is different there?"
                    if true is None
                    else f"With another {most} it is {changed[most]:.0%}. Your own figures accuse another part."
                )
            else:
                words = f"With another {most}, {changed[most]:.0%} of its answers change. Is that nothing?"
            self._say("3", False, words)
            return
        if not isinstance(why, str) or not why.strip():
            self._say("3", False, "Say in a sentence why: it goes into the report.")
            return
        self._found.claim, self._found.why = part, " ".join(why.split())
        if part is None:
            words = "No sign that it goes by one of these parts. So something else makes it fail: look at the pictures."
        else:
            words = f"It goes by the {part}: that is proven, not only seen. Now repair it."
        self._say("3", True, words)

    def repaired(self, network: nn.Module, how: str = "") -> None:
        """Hand in a network in place of the case's, to be examined with new pictures, and say what you did."""
        if self._waits_for("3", "4"):
            return
        if not isinstance(network, nn.Module):
            self._say("4", False, f"Hand over a network, not an object of the type {type(network).__name__}.")
            return
        try:
            seen = exam(self.case, network)
        except Exception as error:  # whatever a student's network may do
            self._say("4", False, f"It cannot read the pictures: {type(error).__name__}: {str(error)[:200]}")
            return
        self._found.networks += 1
        before, part = self._exam(), self._found.claim
        told = f"New pictures from the field: {before.field:.0%} before, {seen.field:.0%} now. "
        if part is not None:
            told += f"Answers that change with another {part}: {before.changed[part]:.0%} before, "
            told += f"{seen.changed[part]:.0%} now. "
        if seen.field < REPAIRED_FIELD or (part is not None and seen.changed[part] > REPAIRED_CHANGED):
            if part is not None and seen.changed[part] > REPAIRED_CHANGED:
                told += (
                    f"It still goes by the {part}. More training on pictures in which the {part} gives the answer "
                    "teaches the same again: change the pictures, or what it may learn from them."
                )
            else:
                told += f"Wanted are {REPAIRED_FIELD:.0%}. What is different in the field, and could it learn that?"
            self._say("4", False, told)
            return
        if not isinstance(how, str) or not how.strip():
            self._say("4", False, told + "Say in a sentence what you did: it goes into the report.")
            return
        self._found.how, self._found.after = " ".join(how.split()), seen
        if self._record:
            record.note(f"{record.CASE}{self.case.number}", attempted=True, passed=True)
        self._say("4", True, told + "It is repaired. `report()` puts all of it on a page.")

    def report(self, limits: str = "") -> Report:
        """The page, made of what has been handed in so far, with a sentence on what it does not show."""
        return Report(self, str(limits))

    # --- below the counter ---

    def _right(self) -> dict[str, float]:
        own, field = self.case.validation, self.case.field
        right = answers(self.case.network, field.images) == field.things
        worst = min(share(right[field.things == thing]) for thing in field.things.unique())
        return {
            "validation": share(answers(self.case.network, own.images) == own.things),
            "field": share(right),
            "worst": worst,
        }

    def _exam(self) -> Exam:
        if self._handed_over is None:
            self._handed_over = exam(self.case, self.case.network)
        return self._handed_over

    def _shares(self, step: str, values: Mapping[str, Any]) -> dict[str, float] | None:
        numbers = {}
        for name, value in values.items():
            try:
                numbers[name] = float(value)
            except (TypeError, ValueError, RuntimeError):
                numbers[name] = -1.0
            if not 0 <= numbers[name] <= 1:
                self._say(step, False, f"`{name}` must be a share, a number from 0 to 1, not {str(value)[:40]}.")
                return None
        return numbers

    def _waits_for(self, needed: str, step: str) -> bool:
        if needed in self._done:
            return False
        self._say(step, False, f"First step {needed}: {_STEPS[needed]}.")
        return True

    def _say(self, step: str, good: bool, words: str) -> None:
        if good and step not in self._done:
            self._done.append(step)
        show(*card("good" if good else "bad", f"Step {step}, {_STEPS[step]}: {'holds' if good else 'not yet'}", words))
        if not good and os.environ.get("LESSONS_STRICT") == "1":
            raise WrongAnswer(f"step {step}: {words}")


_STEPS = {"1": "measure", "2": "intervene", "3": "conclude", "4": "repair"}


class Report:
    """One page on a case: shows itself in a notebook, and prints as text. `html` is the page by itself, to be saved."""

    def __init__(self, of: Investigation, limits: str = "") -> None:
        found, after = of._found, of._found.after
        before = of._exam() if after else None
        claim = "open" if "3" not in of._done else found.claim or "none of the parts"
        self.title = f"Case {of.case.number}"
        self.lines = [("By", of.name or "unsigned"), ("It goes by", claim)]
        self.lines += [(name, words) for name, words in (("Because", found.why), ("Repair", found.how)) if words]
        if limits.strip():
            self.lines.append(("What this does not show", " ".join(limits.split())))
        self.lines += [
            ("Steps that hold", ", ".join(_STEPS[step] for step in of._done) or "none"),
            ("Handed in", f"verdicts: {found.claims}, networks: {found.networks}"),
        ]
        # Before and after of the same pictures, as soon as there is an after.
        self.rows: list[tuple[str, float | None, float | None]] = []
        if before is not None and after is not None:
            self.rows = [
                ("read rightly, validation", before.validation, after.validation),
                ("read rightly, field", before.field, after.field),
                ("the worst kind, field", before.worst, after.worst),
                *((f"changed by another {part}", before.changed[part], after.changed[part]) for part in PARTS),
            ]
        elif found.before:
            names = {"validation": "read rightly, validation", "field": "read rightly, field"}
            names |= {"worst": "the worst kind, field"}
            self.rows = [(name, found.before[key], None) for key, name in names.items()]
            self.rows += [(f"changed by another {part}", found.changed[part], None) for part in PARTS if found.changed]
        if found.changed:
            self.rows.append(("changed by noise", found.changed["noise"], None))
        fresh = "The field pictures are 600 that are for this alone; the others are the 300 validation pictures."
        own = "As measured by the author, on 300 validation pictures and 300 from the field."
        self.foot = fresh if after else own

    def __str__(self) -> str:
        text = [self.title, *(f"{name}: {words}" for name, words in self.lines), f"{'':30}before  after"]
        text += [f"{name:30}{_percent(before):>6} {_percent(after):>6}" for name, before, after in self.rows]
        return "\n".join([*text, self.foot])

    @property
    def html(self) -> str:
        head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(self.title)}</title>'
        return f"{head}<body>{self._repr_html_()}</body></html>"

    def _repr_html_(self) -> str:
        told = "".join(f"<p><b>{escape(name)}:</b> {escape(words)}</p>" for name, words in self.lines)
        head = "<tr><td></td><th>before</th><th>after</th><td></td></tr>"
        rows = "".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{_percent(before)}</td><td>{_percent(after)}</td>'
            f"<td>{_bar(before, ORANGE)}{_bar(after, BLUE)}</td></tr>"
            for name, before, after in self.rows
        )
        # Its own colours: a page to print and hand in looks the same wherever it is shown.
        style = (
            "background:#fff;color:#1c1c1c;border:1px solid #cfd4d9;border-radius:6px;padding:.8em 1.1em;"
            "max-width:40rem;line-height:1.5"
        )
        table = f'<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">{head}{rows}</table>'
        return (
            f'<div class="lessons-page" style="{style}">'
            f'<p style="font-size:1.2em;font-weight:600;margin:.2em 0">{escape(self.title)}</p>{told}{table}'
            f'<p style="color:{GREY};font-size:.85em">{escape(self.foot)}</p></div>'
        )

    def __repr__(self) -> str:
        return str(self)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _bar(value: float | None, colour: str) -> str:
    if value is None:
        return ""
    return f'<span style="display:block;height:.45em;width:{6 * value:.2f}em;background:{colour};margin:1px"></span>'
