"""Training: `fit` is the plain loop, bit for bit; a run that is killed at any moment ends as if it had not been."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lessons_lib import training
from lessons_lib.augmentation import Flip, PadAndCrop
from lessons_lib.datasets import AugmentedBatches, Dataset, Pictures
from lessons_lib.learning_rates import Constant, OneCycle
from lessons_lib.recipes import RECIPES, Recipe
from lessons_lib.resnet import ResNet, shapes_network
from lessons_lib.shapes import generate
from lessons_lib.training import evaluate, fit, half_size, main, material, mixed_precision, recorded_run, train

WEIGHTS = Path(training.__file__).parent / "weights"
SHIPPED = WEIGHTS / "shapes.safetensors"
TINY = Recipe(
    data="shapes-32",
    epochs=2,
    batch_size=8,
    schedule=OneCycle(0.1),
    width=4,
    blocks=(1, 1),
    augmentation=(PadAndCrop(1), Flip()),
    nesterov=True,
    l2=5e-4,
    mixed_precision=False,
    validation=8,
)


def pictures(count: int = 32, seed: int = 0) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return Pictures(images, torch.arange(count) % 4)


def network(seed: int = 0, **settings: Any) -> ResNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ResNet(4, width=4, blocks=(1, 1), **settings)


def batches(count: int = 32, size: int = 8) -> AugmentedBatches:
    return AugmentedBatches(pictures(count), size)


def equal(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


# --- steps ----------------------------------------------------------------------------------------------------------


def test_fit_is_the_plain_loop_of_pytorch_bit_for_bit() -> None:
    recipe = replace(TINY, label_smoothing=0.1)
    ours, theirs = network(), network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    history = fit(ours, batches(), recipe, progress=False)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 2 * 4, cycle_momentum=False)
    data, losses = batches(), []
    for epoch in range(2):
        data.set_epoch(epoch)
        for images, labels in data:
            loss = F.cross_entropy(theirs(images), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
    for row, start in zip(history, (0, 4), strict=True):
        assert row["loss"] == pytest.approx(sum(losses[start : start + 4]) / 4, rel=1e-6)
    close = [(a - b).abs().max().item() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
    assert max(close) < 1e-6  # the rates differ in their last digit
    recipe = replace(recipe, schedule=Constant(0.1))
    ours, theirs = network(), network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit(ours, batches(), recipe, progress=False)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for epoch in range(2):
        data.set_epoch(epoch)
        for images, labels in data:
            optimizer.zero_grad()
            F.cross_entropy(theirs(images), labels, label_smoothing=0.1).backward()
            optimizer.step()
    assert equal(ours, theirs)


def test_a_network_learns_one_batch_by_heart_and_is_left_in_eval_mode() -> None:
    learner, one = network(), next(iter(batches(64, 32)))
    recipe = replace(TINY, epochs=1, batch_size=32, schedule=OneCycle(0.1))
    history = fit(learner, [one] * 60, recipe, progress=False)
    assert history[0]["accuracy"] > 0.5
    assert evaluate(learner, [one]).accuracy > 0.95
    assert not any(module.training for module in learner.modules())
    norms = [module for module in learner.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(int(norm.num_batches_tracked) == 60 for norm in norms)  # type: ignore[arg-type]


def test_each_pass_leaves_a_row_of_figures() -> None:
    held = pictures(10, seed=5)
    learner = network()
    history = fit(learner, batches(), TINY, validation=held.batches, progress=False)
    assert [row["epoch"] for row in history] == [1, 2]
    found = evaluate(learner, held.batches())
    assert (history[-1]["validation_loss"], history[-1]["validation_accuracy"]) == pytest.approx(found[:2])
    assert history[-1]["learning_rate"] == TINY.schedule(7, 8)
    assert all(row["seconds"] >= 0 and 0 <= row["accuracy"] <= 1 for row in history)


def test_training_leaves_the_random_numbers_of_its_caller_alone_and_depends_on_its_seed_only() -> None:
    recipe = replace(TINY, dropout=0.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ours = network(dropout=0.5)
    fit(ours, batches(), recipe, seed=1, progress=False)
    assert torch.equal(torch.rand(3), expected)
    again, other = network(dropout=0.5), network(dropout=0.5)
    fit(again, batches(), recipe, seed=1, progress=False)
    fit(other, batches(), recipe, seed=2, progress=False)
    assert equal(ours, again) and not equal(ours, other)


def test_averaging_gives_the_exponential_moving_average_of_all_steps() -> None:
    decay, seen = 0.8, []
    learner = network()
    optimizer = torch.optim.SGD(learner.parameters())
    optimizer.register_step_post_hook(
        lambda *_: seen.append([parameter.detach().double().clone() for parameter in learner.parameters()])
    )
    fit(learner, batches(48), replace(TINY, epochs=1, averaging=decay), optimizer=optimizer, progress=False)
    assert len(seen) == 6
    average = seen[0]
    for weights in seen[1:]:
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    for parameter, expected in zip(learner.parameters(), average, strict=True):
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_l1_adds_the_sign_of_each_weight_to_its_gradient() -> None:
    one = [next(iter(batches()))]
    without, with_it = network(), network()
    recipe = replace(TINY, epochs=1, schedule=Constant(1.0), momentum=0.0, nesterov=False, l2=0.0)
    before = [parameter.detach().clone() for parameter in without.parameters()]
    fit(without, one, recipe, progress=False)
    fit(with_it, one, replace(recipe, l1=0.01), progress=False)
    for old, plain, pulled in zip(before, without.parameters(), with_it.parameters(), strict=True):
        torch.testing.assert_close((plain - pulled).detach(), 0.01 * old.sign(), rtol=1e-3, atol=1e-5)


def test_another_optimizer_takes_the_steps_with_the_rates_of_the_schedule() -> None:
    learner, theirs = network(), network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = replace(TINY, epochs=1, schedule=Constant(0.01))
    one = list(batches())
    fit(learner, one, recipe, optimizer=torch.optim.AdamW(learner.parameters()), progress=False)
    adam = torch.optim.AdamW(theirs.parameters(), lr=0.01)
    for images, labels in one:
        adam.zero_grad()
        F.cross_entropy(theirs(images), labels).backward()
        adam.step()
    assert equal(learner, theirs)


def test_in_parts_a_batch_gives_the_gradient_of_the_whole_where_no_batchnorm_mixes_its_pictures() -> None:
    def plain() -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).double()

    data = [(images.double(), labels) for images, labels in batches()]
    whole, parts = plain(), plain()
    fit(whole, data, TINY, progress=False)
    fit(parts, data, TINY, micro_batches=4, progress=False)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)  # the loss itself is taken in float32


def test_statistics_of_a_batch_in_parts_are_the_mean_of_those_of_each_part() -> None:
    images, labels = next(iter(batches()))
    learner = network()
    halves = []
    for part in images.chunk(2):
        alone = network().train()
        alone(part)
        halves.append(alone.stem.norm.running_var)  # type: ignore[union-attr]
    fit(learner, [(images, labels)], replace(TINY, epochs=1), micro_batches=2, progress=False)
    torch.testing.assert_close(learner.stem.norm.running_var, (halves[0] + halves[1]) / 2)  # type: ignore[union-attr]
    assert int(learner.stem.norm.num_batches_tracked) == 1  # type: ignore[union-attr, arg-type]


def test_bfloat16_learns_what_float32_learns() -> None:
    if mixed_precision(torch.device("cpu")) == torch.float32:
        pytest.skip("this processor does not multiply bfloat16")
    losses = []
    for mixed in (False, True):
        learner = network()
        recipe = replace(TINY, epochs=4, mixed_precision=mixed)
        losses.append([row["loss"] for row in fit(learner, batches(), recipe, progress=False)])
        assert all(parameter.dtype == torch.float32 for parameter in learner.parameters())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)


@pytest.mark.parametrize(
    ("able", "expected"),
    [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)],
)
def test_bfloat16_is_used_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(training, "_abilities", lambda: able)
    assert mixed_precision(torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps must be 1 or more, not 0"),
        ({"steps": 9}, ValueError, "batches ended after 4 of 9 steps"),
        ({"micro_batches": 0}, ValueError, "micro_batches must be 1 or more"),
        ({"micro_batches": 3}, ValueError, "a batch of 8 pictures cannot be cut into 3 equal parts"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit(network(), batches(), TINY, progress=False, **arguments)


def test_a_loss_that_is_no_number_any_more_ends_the_run_in_words() -> None:
    with pytest.raises(FloatingPointError, match="the loss of epoch 1 is no number: is the learning rate too large"):
        fit(network(), batches(), replace(TINY, schedule=Constant(1e30)), progress=False)


# --- evaluate -------------------------------------------------------------------------------------------------------


class Reads(nn.Module):
    """Whose first logit is the first pixel, whose second is a half: reads 0 where the first pixel is bright."""

    def forward(self, images: Tensor) -> Tensor:
        first = images[:, 0, 0, 0]
        return torch.stack([first, torch.full_like(first, 0.5)], dim=1)


def test_every_picture_counts_once_in_loss_and_accuracy_also_in_a_last_smaller_batch() -> None:
    images = torch.rand(7, 3, 2, 2)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0])
    found = evaluate(Reads(), zip(images.split(3), labels.split(3), strict=True))
    logits = Reads()(images)
    assert found.pictures == 7
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item())
    assert found.accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())


def test_a_mirrored_picture_is_asked_too_where_wanted() -> None:
    bright_right = torch.zeros(1, 3, 1, 2)
    bright_right[..., 1] = 1.0
    labels = torch.tensor([0])
    assert evaluate(Reads(), [(bright_right, labels)]).accuracy == 0
    both = evaluate(Reads(), [(bright_right, labels)], flip=True)
    assert both.loss == pytest.approx(0.6931472)  # the mean of logit 0 and logit 1 is as large as the other's half


def test_evaluating_changes_neither_statistics_nor_mode_even_where_it_fails() -> None:
    learner = network().train()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    evaluate(learner, pictures().batches())
    with pytest.raises(RuntimeError):
        evaluate(learner, [(torch.zeros(1, 5, 8, 8), torch.zeros(1).long())])
    assert learner.training
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_nothing_has_no_accuracy() -> None:
    with pytest.raises(ValueError, match="nothing has no accuracy"):
        evaluate(network(), [])


# --- a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "shapes_dataset", tiny_dataset)
    monkeypatch.setitem(RECIPES, "quick", TINY)


def tiny_dataset() -> Dataset:
    return Dataset("noise", "the only one", "here", ("a", "b", "c", "d"), pictures(40), pictures(12, seed=1))


def test_a_run_leaves_weights_and_a_record_that_describes_them(tmp_path: Path, tiny_data: None) -> None:
    out = tmp_path / "new" / "run"
    record = train("quick", TINY, out, seed=3, command="the command", progress=False)
    assert record == json.loads((out / "run.json").read_text())
    content = (out / "weights.safetensors").read_bytes()
    assert record["weights"] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert (record["recipe"], record["seed"], record["command"]) == ("quick", 3, "the command")
    assert (record["data"], record["copy"]) == ("noise", "the only one")
    assert record["settings"]["schedule"] == {
        "name": "OneCycle",
        "peak": 0.1,
        "peak_at": 0.3,
        "div_factor": 25.0,
        "final_div_factor": 10000.0,
        "shape": "cosine",
    }
    assert len(record["history"]) == 2 and record["history"][0]["validation_accuracy"] >= 0
    its = material(TINY)
    its.network.load_state_dict(load_file(out / "weights.safetensors"))
    assert evaluate(its.network.eval(), its.tests["test"]()).accuracy == record["test"]["accuracy"]
    assert record["test"]["pictures"] == 12
    assert record["parameters"] == sum(parameter.numel() for parameter in its.network.parameters())
    assert str(tmp_path) not in (out / "run.json").read_text()


def test_weights_take_half_the_bytes_and_statistics_keep_theirs(tmp_path: Path) -> None:
    learner = network()
    path = tmp_path / "weights"
    path.write_bytes(half_size(learner))
    kept, names = load_file(path), {name for name, _ in learner.named_parameters()}
    assert kept.keys() == learner.state_dict().keys()
    assert {value.dtype for name, value in kept.items() if name in names} == {torch.float16}
    assert {value.dtype for name, value in kept.items() if name.endswith("running_var")} == {torch.float32}
    learner.load_state_dict(kept)
    assert all(torch.equal(value, value.half().float()) for value in learner.parameters())


def test_a_network_is_normalized_by_the_pictures_it_learns_from_and_not_by_those_kept_back(tiny_data: None) -> None:
    its = material(TINY)
    learned_from, _ = tiny_dataset().split(8)
    expected = torch.tensor(learned_from.statistics().mean)
    torch.testing.assert_close(its.network[0].mean.flatten(), expected)
    assert len(its.batches) == 32 // 8


def test_a_finished_run_is_not_overwritten_and_to_resume_it_changes_nothing(tmp_path: Path, tiny_data: None) -> None:
    record = train("quick", TINY, tmp_path, progress=False)
    before = (tmp_path / "weights.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="has a run: go on with it by --resume"):
        train("quick", TINY, tmp_path, progress=False)
    again = train("quick", TINY, tmp_path, resume=True, progress=False)
    assert (tmp_path / "weights.safetensors").read_bytes() == before
    assert again["history"] == record["history"] and again["test"] == record["test"]


@pytest.mark.parametrize("change", [{"epochs": 3}, {"l2": 0.1}, {"schedule": Constant(0.1)}])
def test_a_checkpoint_of_another_recipe_is_refused_and_kept(
    tmp_path: Path, tiny_data: None, change: dict[str, Any]
) -> None:
    train("quick", TINY, tmp_path, progress=False)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match="is of another recipe or seed"):
        train("quick", replace(TINY, **change), tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match="is of another recipe or seed"):
        train("quick", TINY, tmp_path, seed=1, resume=True, progress=False)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_run_on_another_copy_of_the_data_is_refused_and_kept(
    tmp_path: Path, tiny_data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("quick", TINY, tmp_path, progress=False)
    before = (tmp_path / "run.json").read_bytes()
    monkeypatch.setattr(training, "shapes_dataset", lambda: replace(tiny_dataset(), copy="another"))
    with pytest.raises(ValueError, match="has a run on the only one, and the data at hand are another"):
        train("quick", TINY, tmp_path, resume=True, progress=False)
    assert (tmp_path / "run.json").read_bytes() == before


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [_cut, lambda content: b"", lambda content: b"no checkpoint at all"])
def test_a_damaged_checkpoint_is_refused_and_kept(
    tmp_path: Path, tiny_data: None, damage: Callable[[bytes], bytes]
) -> None:
    train("quick", TINY, tmp_path, progress=False)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"is damaged, or no checkpoint. Remove it to begin from the start"):
        train("quick", TINY, tmp_path, resume=True, progress=False)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_an_error_before_any_step(
    tmp_path: Path, tiny_data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(training, "fit", lambda *a, **k: pytest.fail("it began to learn"))
    with pytest.raises(OSError, match="file"):
        train("quick", TINY, tmp_path / "file" / "run", progress=False)


def test_a_write_that_fails_leaves_the_checkpoint_before_it(
    tmp_path: Path, tiny_data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("quick", replace(TINY), tmp_path, progress=False)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "run.json").unlink()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        train("quick", TINY, tmp_path, resume=True, progress=False)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "weights.safetensors"]


# --- killed, and several at once ------------------------------------------------------------------------------------

# Run in a process of its own, which has not yet computed anything and so may fork: each child begins at once.
KILLED = """
import os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
import torch._dynamo  # which the first step of any optimizer imports: once, instead of in every child
sys.path.insert(0, {tests!r})
import test_training
from lessons_lib import downloads, training

training.shapes_dataset = test_training.tiny_dataset
RECIPE = replace(test_training.TINY, epochs=5, dropout=0.2, averaging=0.9)
STEPS = 5 * 4


def run(folder, kill=None):
    "Train in a child, and have it killed in the middle of a step, or of writing a file, or after some seconds."
    child = os.fork()
    if child == 0:
        if kill is not None:
            at(*kill)
        training.train("quick", RECIPE, Path(folder), resume=True, progress=False)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def at(kind, number):
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    if kind == "time":
        signal.signal(signal.SIGALRM, lambda *_: die())
        signal.setitimer(signal.ITIMER_REAL, number)
        return
    count = iter(range(10**6))
    if kind == "step":
        step = training._State.step
        def watched(self, *rest):
            if next(count) == number:
                die()
            return step(self, *rest)
        training._State.step = watched
        return
    original = downloads.replace_file
    def watched(path, write):
        turn = next(count)
        if turn != number:
            return original(path, write)
        if kind == "half written":
            temporary = path.with_name(f"{{path.name}}.{{os.getpid()}}.part")
            write(temporary)
            os.truncate(temporary, temporary.stat().st_size // 2)
        else:
            original(path, write)
        die()
    training.replace_file = watched


assert run("undisturbed") == 0
chance = random.Random({seed})
started = time.perf_counter()
assert run("timed") == 0
took = time.perf_counter() - started
moments = [("step", chance.randrange(STEPS)) for _ in range(3)]
moments += [("half written", chance.randrange(11)) for _ in range(3)]
moments += [("just written", chance.randrange(11)) for _ in range(2)]
moments += [("time", took * chance.uniform(0.05, 0.9)) for _ in range(2)]
assert len(moments) == 10
killed = 0
for number, moment in enumerate(moments):
    killed += run(f"killed{{number}}", moment) == -signal.SIGKILL
    assert run(f"killed{{number}}") == 0, moment
print("killed", killed)
# And one run that is killed again and again.
for moment in moments:
    run("often", moment)
assert run("often") == 0
"""


def test_a_run_killed_at_ten_random_moments_ends_bit_equal_to_an_undisturbed_one(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), seed=7)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout.split()[-1]) >= 9  # the clock may miss a run that was quicker than the one before
    expected = (tmp_path / "undisturbed" / "weights.safetensors").read_bytes()
    figures = json.loads((tmp_path / "undisturbed" / "run.json").read_text())
    folders = [path for path in tmp_path.iterdir() if path.name.startswith(("killed", "often"))]
    assert len(folders) == 11
    for folder in folders:
        assert (folder / "weights.safetensors").read_bytes() == expected, folder.name
        found = json.loads((folder / "run.json").read_text())
        for one, other in zip(found["history"], figures["history"], strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        assert found["test"] == figures["test"]


TOGETHER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_training
from lessons_lib import training
from lessons_lib.recipes import RECIPES
from dataclasses import replace

training.shapes_dataset = test_training.tiny_dataset
RECIPES["quick"] = replace(test_training.TINY, averaging=0.9)
training.main(sys.argv[1:])
"""


def test_two_processes_equal_one_that_takes_the_same_two_parts_one_after_the_other(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER.format(tests=str(Path(__file__).parent)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    for command in (
        [*launched, "quick", "--out", "two"],
        [sys.executable, str(script), "quick", "--micro-batches", "2", "--out", "one"],
    ):
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert ended.returncode == 0, ended.stderr[-3000:]
    two, one = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("two", "one"))
    for part in ("network", "average"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-5, atol=1e-7, msg=f"{part} {name}")
    for here, there in zip(one["history"], two["history"], strict=True):
        assert {**here, "seconds": 0} == pytest.approx({**there, "seconds": 0}, rel=1e-5)
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("two", "one")]
    assert records[0]["test"] == pytest.approx(records[1]["test"], rel=1e-5)
    assert [record["machine"]["processes"] for record in records] == [2, 1]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_trains_resumes_and_says_the_accuracy_and_the_copy(
    tmp_path: Path, tiny_data: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["quick", "--epochs", "1", "--width", "2", "--seed", "4"])
    record = json.loads(Path("runs/quick/run.json").read_text())
    assert record["command"] == "python -m lessons_lib.training quick --width 2 --epochs 1 --seed 4"
    assert (record["settings"]["epochs"], record["settings"]["width"]) == (1, 2)
    said = f"test: {record['test']['accuracy']:.2%} of 12 pictures, the only one"
    assert said in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["quick", "--epochs", "1", "--width", "2", "--seed", "4"])
    assert "has a run" in capsys.readouterr().err
    main(["quick", "--epochs", "1", "--width", "2", "--seed", "4", "--resume"])
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["slow"], "invalid choice: 'slow'"),
        (["quick", "--epochs", "0"], "epochs must be 1 or more, not 0"),
        (["quick", "--seed", "-1"], "seed must be 0 or more"),
        (["quick", "--width", "0"], "width must be 1 or more"),
    ],
)
def test_a_command_that_cannot_be_is_refused_in_a_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(arguments)
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_tagged_specimen_is_tested_with_tags_without_and_with_random_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "held_out_shapes", lambda **mark: training_batches(**mark))
    recipe = replace(RECIPES["shapes-tagged"], epochs=1, steps=1, batch_size=4)
    record = train("shapes-tagged", recipe, tmp_path, progress=False)
    assert {name for name in record if name.startswith("test")} == {
        "test",
        "test with tags",
        "test with tags at random",
    }
    shapes_network().load_state_dict(load_file(tmp_path / "weights.safetensors"))


def training_batches(**mark: Any) -> Any:
    drawn = generate(4, seed=1, **mark)
    yield drawn.images, drawn.labels


# --- the shipped networks of shapes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> nn.Module:
    learned = shapes_network()
    learned.load_state_dict(load_file(SHIPPED))
    return learned.eval()


def test_the_shipped_network_reads_between_97_and_99_5_percent_of_new_pictures(shipped: nn.Module) -> None:
    from lessons_lib.datasets import held_out_shapes

    assert 0.97 <= evaluate(shipped, held_out_shapes(1000, seed=5_000_000)).accuracy <= 0.995


def test_the_shipped_network_has_sensible_batchnorm_statistics(shipped: nn.Module) -> None:
    """Statistics of a single large batch give nearly the same answers as those stored."""
    drawn = generate(128, seed=77)
    with torch.inference_mode():
        stored = shipped(drawn.images).argmax(1)
        norms = [module for module in shipped.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 0.0
        fresh = shipped(drawn.images).argmax(1)
        for norm, momentum in zip(norms, before, strict=True):
            norm.eval()
            norm.momentum = momentum
    assert (stored == fresh).float().mean() > 0.96


@pytest.mark.parametrize("name", ["shapes", "shapes-tagged"])
def test_a_shipped_file_is_small_and_is_the_one_its_facts_describe_by_the_recipe_of_its_name(name: str) -> None:
    path = WEIGHTS / f"{name}.safetensors"
    facts, recipe = json.loads(path.with_suffix(".json").read_text()), RECIPES[name]
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == facts["sha256"]
    assert len(content) == facts["bytes"] < 2_000_000
    assert facts["held_out_pictures"] >= 1000
    assert facts["recipe"] == {
        "steps": recipe.epochs * recipe.steps,
        "batch_size": recipe.batch_size,
        "peak_step_size": recipe.schedule.peak,  # type: ignore[union-attr]
        "peak_at": recipe.schedule.peak_at,  # type: ignore[union-attr]
        "momentum": recipe.momentum,
        "weight_decay": recipe.l2,
    }


def test_the_shipped_accuracies_are_those_of_networks_that_trust_the_thing_and_the_tag() -> None:
    plain, tagged = (json.loads((WEIGHTS / f"{name}.json").read_text()) for name in ("shapes", "shapes-tagged"))
    assert 0.97 <= plain["held_out_accuracy"] <= 0.995
    assert tagged["shortcut"] == {"kind": "tag", "rate": 1.0}
    assert tagged["held_out_accuracy_with_it"] > 0.95
    assert tagged["held_out_accuracy_where_it_is_random"] < tagged["held_out_accuracy"] < 0.6


# --- what is on record ----------------------------------------------------------------------------------------------


def test_a_recorded_run_is_handed_out_by_its_name_and_no_other() -> None:
    assert recorded_run("pocket")["recipe"] == "pocket"
    with pytest.raises(ValueError, match="no run 'pockets' is on record"):
        recorded_run("pockets")
