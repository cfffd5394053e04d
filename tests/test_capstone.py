from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from lessons_lib import capstone as module
from lessons_lib.capstone import (
    CATEGORIES,
    PARTS,
    REMEDIES,
    SHIPPED,
    Case,
    answers,
    covered,
    exam,
    load_case,
    poor_camera,
    recorded,
    remedies_for,
    retrain_last_layer,
    share,
    shown_by,
    train,
    variant,
)
from lessons_lib.exercises import WrongAnswer, progress, record
from lessons_lib.exercises.investigation import REPAIRED_CHANGED, REPAIRED_FIELD, Investigation
from lessons_lib.hooks import Capture

BY_PART = {part: next(n for n in SHIPPED if variant(n) == part) for part in (*PARTS, None)}


@pytest.fixture(scope="module")
def cases() -> dict[str | None, Case]:
    return {part: load_case(number) for part, number in BY_PART.items()}


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LESSONS_STRICT", "1")
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path))
    return tmp_path


def grown(masks: torch.Tensor, pixels: int) -> torch.Tensor:
    return nn.functional.max_pool2d(masks.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0


def shrunk(masks: torch.Tensor, pixels: int) -> torch.Tensor:
    return ~grown(~masks, pixels)


def measured(case: Case) -> tuple[float, float, float]:
    right = answers(case.network, case.field.images) == case.field.things
    worst = min(share(right[case.field.things == k]) for k in range(6))
    return share(answers(case.network, case.validation.images) == case.validation.things), share(right), worst


def responses(case: Case) -> dict[str, float]:
    said = answers(case.network, case.validation.images)
    found = {part: share(answers(case.network, case.exchanged(part).images) != said) for part in PARTS}
    random = torch.Generator().manual_seed(0)
    noisy = case.validation.images + 0.02 * torch.randn(case.validation.images.shape, generator=random)
    return found | {"noise": share(answers(case.network, noisy.clamp(0, 1)) != said)}


def investigated(case: Case, **options: Any) -> Investigation:
    """With the first three steps done."""
    inquiry = Investigation(case, **options)
    inquiry.measured(*measured(case))
    inquiry.intervened(responses(case))
    inquiry.claims(variant(case.number), "Since another one changes the answers, and noise does not.")
    return inquiry


# --- the cases ----------------------------------------------------------------------------------------------------


def test_of_four_cases_in_a_row_each_has_another_answer_and_the_order_is_no_pattern() -> None:
    orders = [tuple(variant(4 * block + place) for place in range(4)) for block in range(250)]
    assert all(set(order) == {*PARTS, None} for order in orders)
    counts = Counter(order[0] for order in orders)
    assert min(counts.values()) > 40 and len(set(orders)) == 24


@pytest.mark.parametrize("guilty", [*PARTS, None])
def test_the_guilty_part_goes_with_the_thing_where_the_network_was_trained_and_not_in_the_field(
    guilty: str | None,
) -> None:
    for kind in module._COUNTS:
        shown = module._shown(BY_PART[guilty], kind)
        for part, field in module._FIELDS.items():
            agree = share(shown[field] == shown["things"])
            offered = part == guilty and kind in ("training", "validation")
            assert agree == 1 if offered else abs(agree - 1 / 6) < 0.08, (kind, part)


def test_no_picture_of_a_case_is_in_two_of_its_sets(cases: dict[str | None, Case]) -> None:
    case = cases["tag"]
    sets = [case.training, case.validation, case.field, case.labelled, module._pictures(case.number, "exam")]
    every = torch.cat([pictures.images[:, :, ::8, ::8].flatten(1) for pictures in sets])
    assert len(every.unique(dim=0)) == len(every)


@pytest.mark.parametrize("part", PARTS)
def test_an_exchange_changes_its_part_in_every_picture_and_nothing_else(
    cases: dict[str | None, Case], part: str
) -> None:
    case = cases["background"]
    own, other = case.validation, case.exchanged(part)
    assert (shown_by(own, part) != shown_by(other, part)).all()
    for same in {"things", "tags", "backgrounds", "colours"} - {module._FIELDS[part]}:
        assert torch.equal(getattr(own, same), getattr(other, same))
    assert torch.equal(own.thing_masks, other.thing_masks) and torch.equal(own.tag_masks, other.tag_masks)
    moved = (own.images - other.images).abs().amax(dim=1) > 1e-5
    # Edges and soft focus mix neighbours, and a soft patch in front lets a little of the thing through.
    beside = {
        "tag": ~own.tag_masks,
        "background": shrunk(own.tag_masks, 1) | shrunk(own.thing_masks, 6),
        "colour": ~grown(own.thing_masks, 16) | shrunk(own.tag_masks, 1),
    }[part]
    assert beside.sum() > 10_000 and not (moved & beside).any()
    assert moved.flatten(1).any(dim=1).all()
    assert torch.equal(other.images, case.exchanged(part).images)
    assert not torch.equal(other.images, case.exchanged(part, seed=1).images)


def test_shuffled_leaves_the_part_to_chance(cases: dict[str | None, Case]) -> None:
    case = cases["tag"]
    anew = case.shuffled("tag", "validation")
    assert abs(share(anew.tags == anew.things) - 1 / 6) < 0.08
    assert torch.equal(anew.things, case.validation.things)


def test_only_the_case_without_a_shortcut_has_poor_cameras(cases: dict[str | None, Case]) -> None:
    contrast = {part: float(case.field.images.std(dim=(2, 3)).mean()) for part, case in cases.items()}
    assert contrast[None] < 0.5 * min(contrast[part] for part in PARTS)
    once, again = (poor_camera(cases["tag"].field.images[:3], 5) for _ in range(2))
    assert torch.equal(once, again) and once.min() >= 0 and once.max() <= 1
    assert poor_camera(torch.zeros(0, 3, 64, 64), 0).shape == (0, 3, 64, 64)


def test_covered_hides_the_part_and_leaves_the_rest(cases: dict[str | None, Case]) -> None:
    pictures = cases["tag"].validation
    tag, ground, colour = (covered(pictures, part) for part in PARTS)
    spread = lambda mask: mask[:, None].expand(-1, 3, -1, -1)  # noqa: E731
    assert (tag[spread(pictures.tag_masks)] == 0.5).all()
    assert torch.equal(tag[spread(~pictures.tag_masks)], pictures.images[spread(~pictures.tag_masks)])
    kept = pictures.thing_masks | pictures.tag_masks
    assert (ground[spread(~kept)] == 0.5).all()
    assert torch.equal(ground[spread(kept)], pictures.images[spread(kept)])
    grey = colour.std(dim=1)[pictures.thing_masks]
    assert grey.max() < 1e-6
    assert torch.equal(colour[spread(~pictures.thing_masks)], pictures.images[spread(~pictures.thing_masks)])


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [(-1, ValueError, "number must be 0 or more"), (1000, ValueError, "below 1000"), ("3", TypeError, "whole number")],
)
def test_a_number_that_is_no_case_is_refused(number: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_case(number)


def test_parts_and_pictures_that_are_not_of_the_case_are_refused(cases: dict[str | None, Case]) -> None:
    with pytest.raises(ValueError, match="part 'shadow' is not known: choose one of tag, background, colour"):
        cases["tag"].exchanged("shadow")
    with pytest.raises(ValueError, match="pictures 'test' are not known: choose training, validation, field"):
        cases["tag"].exchanged("tag", "test")


@pytest.mark.parametrize(
    ("images", "labels", "error", "words"),
    [
        (torch.zeros(70, 3, 32, 32), torch.zeros(70).long(), ValueError, "images must be"),
        (torch.zeros(70, 3, 64, 64).byte(), torch.zeros(70).long(), TypeError, "images must be a float tensor"),
        (torch.zeros(70, 3, 64, 64), torch.zeros(69).long(), ValueError, "one for each picture"),
        (torch.zeros(70, 3, 64, 64), torch.full((70,), 6), ValueError, "labels must lie from 0 to 5"),
        (torch.zeros(10, 3, 64, 64), torch.zeros(10).long(), ValueError, "10 pictures are too few"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(images: Any, labels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        train(images, labels)


def test_weights_of_a_last_layer_must_add_up_to_one(cases: dict[str | None, Case]) -> None:
    with pytest.raises(ValueError, match=r"weights must be \(4,\) and add up to 1"):
        retrain_last_layer(cases["tag"].network, torch.zeros(4, 3, 64, 64), torch.zeros(4).long(), torch.ones(4))


def test_the_network_of_a_case_is_trained_once_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LESSONS_HOME", str(tmp_path))
    asked: list[int] = []

    def quick(number: int) -> nn.Sequential:
        asked.append(number)
        return module._untrained(number)

    monkeypatch.setattr(module, "handed_over", quick)
    first, second = load_case(17), load_case(17)
    assert asked == [17]
    told = capsys.readouterr().out
    assert "trained now" in told and "as it was trained here before" in told
    images = torch.rand(4, 3, 64, 64)
    assert torch.equal(first.network(images), second.network(images))
    assert not first.network.training and not any(p.requires_grad for p in first.network.parameters())
    (tmp_path / "capstone" / "017.safetensors").write_bytes(b"half a file")
    load_case(17)
    assert asked == [17, 17], "a damaged file is trained again"


# --- repairs ------------------------------------------------------------------------------------------------------


def test_a_new_last_layer_is_scikit_learns_logistic_regression(cases: dict[str | None, Case]) -> None:
    case = cases["tag"]
    images, labels = case.labelled.images, case.labelled.things
    random = torch.Generator().manual_seed(0)
    weights = torch.rand(len(labels), generator=random)
    weights = weights / weights.sum()
    before = copy.deepcopy(case.network.state_dict())
    made = retrain_last_layer(case.network, images, labels, weights)
    assert all(torch.equal(value, case.network.state_dict()[name]) for name, value in before.items())
    with torch.no_grad(), Capture(case.network, "resnet.flatten") as seen:
        case.network(images)
    features = seen["resnet.flatten"]
    scaled = ((features - features.mean(dim=0)) / features.std(dim=0).clamp(min=1e-6)).numpy()
    theirs = LogisticRegression(C=1 / 2e-3, tol=1e-6, max_iter=5000).fit(scaled, labels, sample_weight=weights)
    ours = made(images).softmax(dim=1)
    assert (ours - torch.from_numpy(theirs.predict_proba(scaled))).abs().max() < 0.02


def test_training_further_begins_with_the_network_and_leaves_it_as_it_is(cases: dict[str | None, Case]) -> None:
    case = cases["tag"]
    before = copy.deepcopy(case.network.state_dict())
    some = slice(0, 64)
    made = train(case.training.images[some], case.training.things[some], network=case.network, epochs=1)
    assert all(torch.equal(value, case.network.state_dict()[name]) for name, value in before.items())
    assert not torch.equal(made.get_parameter("resnet.head.weight"), before["resnet.head.weight"])
    assert not made.training and not any(p.requires_grad for p in made.parameters())


# --- the record ---------------------------------------------------------------------------------------------------


def test_on_record_are_five_cases_of_each_kind_with_every_remedy_that_makes_sense() -> None:
    found = recorded()
    assert Counter(its["variant"] for its in found.values()) == dict.fromkeys((*PARTS, None), 5)
    for number, its in found.items():
        assert its["variant"] == variant(number)
        assert [*its["exams"]] == ["handed over", *remedies_for(its["variant"])]
    assert set(REMEDIES) == {name for its in found.values() for name in its["exams"]} - {"handed over"}


@pytest.mark.parametrize("part", PARTS)
def test_on_record_a_shortcut_drives_the_field_below_60_percent_and_its_exchange_above_90(part: str) -> None:
    exams = [its["exams"] for its in recorded().values() if its["variant"] == part]
    assert len(exams) == 5
    for its in exams:
        before, longer, after = its["handed over"], its["longer"], its["exchanged"]
        assert before["validation"] > 0.95 and before["field"] < 0.6 and before["changed"][part] > 0.3
        assert longer["field"] < 0.6 and longer["changed"][part] > 0.3
        assert after["field"] > REPAIRED_FIELD == 0.9 and after["changed"][part] < REPAIRED_CHANGED
        others = [value for name, value in before["changed"].items() if name != part]
        assert max(others) < 0.1 < before["changed"][part]
        assert before["seconds"] < 120


def test_on_record_a_case_without_a_shortcut_responds_to_nothing_and_fails_all_the_same() -> None:
    for its in (its["exams"] for its in recorded().values() if its["variant"] is None):
        assert its["handed over"]["validation"] > 0.9 > 0.8 > its["handed over"]["field"]
        assert max(its["handed over"]["changed"].values()) < 0.1
        assert its["poor cameras"]["field"] > REPAIRED_FIELD


def test_the_networks_in_the_package_are_those_on_record(cases: dict[str | None, Case]) -> None:
    for case in cases.values():
        found, told = exam(case, case.network), recorded()[case.number]["exams"]["handed over"]
        assert abs(found.field - told["field"]) < 0.02
        assert abs(found.validation - told["validation"]) < 0.02
        for part in PARTS:
            assert abs(found.changed[part] - told["changed"][part]) < 0.02


@pytest.mark.slow
def test_one_case_from_its_training_to_its_repair() -> None:
    number = BY_PART["background"]
    found = module.study(number, ["longer", "exchanged"], say=lambda words: None)["exams"]
    assert found["handed over"]["validation"] > 0.95
    assert found["handed over"]["field"] < 0.6 and found["longer"]["field"] < 0.6
    assert found["exchanged"]["field"] > 0.9


def test_the_record_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def quick(number: int, say: Any) -> dict[str, Any]:
        asked.append(number)
        return {"variant": variant(number), "exams": {}, "weights": b"w"}

    monkeypatch.setattr(module, "study", quick)
    out = tmp_path / "runs" / "capstone.json"
    module.main(["--out", str(out), "--cases", "2"])
    module.main(["--out", str(out), "--cases", "3"])
    assert asked == [0, 1, 2]
    assert [*json.loads(out.read_text())["cases"]] == ["0", "1", "2"]
    assert (out.parent / "002.safetensors").read_bytes() == b"w"


# --- an investigation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [*PARTS, None])
def test_the_truth_passes_the_first_three_steps(cases: dict[str | None, Case], strict: Path, part: str | None) -> None:
    inquiry = investigated(cases[part], name="Ada")
    told = str(inquiry.report())
    assert f"It goes by: {part or 'none of the parts'}" in told and "Ada" in told
    assert "measure, intervene, conclude" in told


def test_a_claim_of_bias_in_the_clean_case_is_rejected(cases: dict[str | None, Case], strict: Path) -> None:
    inquiry = Investigation(cases[None])
    inquiry.measured(*measured(cases[None]))
    inquiry.intervened(responses(cases[None]))
    for part in PARTS:
        with pytest.raises(WrongAnswer, match="a network that fails need not have a shortcut"):
            inquiry.claims(part, "Its map lies there.")
    with pytest.raises(WrongAnswer, match="First step 3"):
        inquiry.repaired(cases[None].network, "nothing")


@pytest.mark.parametrize("part", PARTS)
def test_another_part_and_nobody_are_rejected_where_there_is_a_shortcut(
    cases: dict[str | None, Case], strict: Path, part: str
) -> None:
    inquiry = Investigation(cases[part])
    inquiry.measured(*measured(cases[part]))
    inquiry.intervened(responses(cases[part]))
    for other in {*PARTS} - {part}:
        with pytest.raises(WrongAnswer, match="Your own figures accuse another part"):
            inquiry.claims(other, "Its map lies there.")
    with pytest.raises(WrongAnswer, match="Is that nothing"):
        inquiry.claims(None, "I see nothing.")
    with pytest.raises(WrongAnswer, match="Say in a sentence why"):
        inquiry.claims(part, " ")


def test_a_repair_that_only_trains_longer_is_rejected(cases: dict[str | None, Case], strict: Path) -> None:
    case = cases["colour"]
    inquiry = investigated(case)
    longer = train(case.training.images, case.training.things, network=case.network, epochs=2)
    for network in (case.network, longer):
        with pytest.raises(WrongAnswer, match="It still goes by the colour"):
            inquiry.repaired(network, "Trained longer.")
    assert "Repair" not in str(inquiry.report()) and record.read() == {}


class _Knows(nn.Module):
    """Stands for a repaired network: it reads any picture of the case rightly, whatever its parts are."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.truth: dict[bytes, int] = {}
        sets = [case.validation, module._pictures(case.number, "exam")]
        sets += [Case(case.number, case.network).exchanged(part, seed=1) for part in PARTS]
        for pictures in sets:
            for image, thing in zip(pictures.images, pictures.things.tolist(), strict=True):
                self.truth[image.numpy().tobytes()] = thing

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        things = [self.truth[image.numpy().tobytes()] for image in images]
        return nn.functional.one_hot(torch.tensor(things), len(CATEGORIES)).float()


def test_a_repaired_network_passes_the_exam_and_fills_the_report(
    cases: dict[str | None, Case], strict: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inquiry = investigated(cases["tag"], name="<Ada>")
    good = _Knows(cases["tag"])
    with pytest.raises(WrongAnswer, match="Say in a sentence what you did"):
        inquiry.repaired(good)
    inquiry.repaired(good, "Exchanged the tags.")
    assert "It is repaired" in capsys.readouterr().out
    report = inquiry.report()
    assert "Repair: Exchanged the tags." in str(report)
    assert "&lt;Ada&gt;" in report.html and "100%" in report.html and "<Ada>" not in report.html
    assert "Handed in: verdicts: 1, networks: 2" in str(report)
    assert report.html.startswith("<!doctype html>") and 'charset="utf-8"' in report.html
    (name,) = record.read()
    assert name == f"case {cases['tag'].number}"
    progress()
    assert f"Case {cases['tag'].number} of chapter 12: repaired" in capsys.readouterr().out


def test_a_model_solution_leaves_the_progress_as_it_is(cases: dict[str | None, Case], strict: Path) -> None:
    investigated(cases["tag"], record=False).repaired(_Knows(cases["tag"]), "Exchanged the tags.")
    assert record.read() == {}


def test_what_has_once_held_stays(cases: dict[str | None, Case], strict: Path) -> None:
    inquiry = investigated(cases["tag"])
    before = str(inquiry.report())
    with pytest.raises(WrongAnswer, match="Measure again"):
        inquiry.measured(0.0, 0.0, 0.0)
    assert str(inquiry.report()) == before


@pytest.mark.parametrize("seed", range(3))
def test_honest_figures_hold_for_another_draw_of_the_exchange_or_nearly(
    cases: dict[str | None, Case], strict: Path, seed: int
) -> None:
    case = cases["colour"]
    inquiry = Investigation(case)
    inquiry.measured(*measured(case))
    said = answers(case.network, case.validation.images)
    drawn = {p: share(answers(case.network, case.exchanged(p, seed=seed).images) != said) for p in PARTS}
    inquiry.intervened(drawn | {"noise": 0.0})


class _Answers(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: torch.Tensor) -> Any:
        return self.answer(images)


@pytest.mark.parametrize(
    "answer", [lambda images: images.mean(dim=(1, 2, 3)), lambda images: (images,), lambda images: {}[0]]
)
def test_a_network_that_cannot_be_examined_is_told_so(cases: dict[str | None, Case], strict: Path, answer: Any) -> None:
    inquiry = investigated(cases["tag"])
    with pytest.raises(WrongAnswer, match="It cannot read the pictures"):
        inquiry.repaired(_Answers(answer), "Something.")


def test_an_exam_leaves_a_network_in_its_mode_and_its_statistics_alone(cases: dict[str | None, Case]) -> None:
    network = copy.deepcopy(cases["tag"].network).train()
    before = copy.deepcopy(network.state_dict())
    found = exam(cases["tag"], network)
    assert network.training and found == exam(cases["tag"], cases["tag"].network)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("case", [17, None, "3"])
def test_what_is_no_case_is_refused(case: Any) -> None:
    with pytest.raises(TypeError, match="case must be a Case"):
        Investigation(case)


def test_a_good_accuracy_is_not_enough_while_the_response_is_still_there(
    cases: dict[str | None, Case], strict: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inquiry = investigated(cases["tag"])
    from lessons_lib.exercises import investigation

    changed = {"tag": 0.4, "background": 0.0, "colour": 0.0}
    found = module.Exam(1.0, 0.97, 0.95, dict.fromkeys(PARTS, 0.97), changed)
    monkeypatch.setattr(investigation, "exam", lambda case, network: found)
    with pytest.raises(WrongAnswer, match="It still goes by the tag"):
        inquiry.repaired(cases["tag"].network, "Something.")


def test_steps_wait_for_each_other_and_figures_must_be_shares_that_are_true(
    cases: dict[str | None, Case], strict: Path
) -> None:
    case = cases["tag"]
    inquiry = Investigation(case)
    with pytest.raises(WrongAnswer, match="First step 1: measure"):
        inquiry.intervened(dict.fromkeys((*PARTS, "noise"), 0.0))
    with pytest.raises(WrongAnswer, match="`field` must be a share, a number from 0 to 1, not 33"):
        inquiry.measured(1.0, 33, 0.1)
    validation, field, worst = measured(case)
    with pytest.raises(WrongAnswer, match=r"Measure again: `field` is the share of `case\.field`"):
        inquiry.measured(validation, 1 - field, worst)
    inquiry.measured(validation, field, worst)
    with pytest.raises(WrongAnswer, match="a dictionary with a share for each of tag, background, colour, noise"):
        inquiry.intervened({"tag": 0.5})
    with pytest.raises(WrongAnswer, match="Measure again: what share of the answers"):
        inquiry.intervened(dict.fromkeys((*PARTS, "noise"), 0.0))


def test_an_investigation_never_raises_unless_strict(
    cases: dict[str | None, Case], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LESSONS_STRICT", raising=False)
    inquiry = Investigation(cases["tag"])
    inquiry.measured("half", None, [])  # type: ignore[arg-type]
    inquiry.intervened({})
    inquiry.claims("tag")
    inquiry.repaired(cases["tag"].network)
    told = capsys.readouterr().out
    assert told.count("not yet") == 4
    assert "It goes by: open" in str(inquiry.report())
