"""Train a network by a recipe: `python -m lessons_lib.training pocket --out runs/pocket`.

From top to bottom: `fit` takes the steps, `train` is all of a run, `main` the command. A run that was interrupted, at
whatever moment, goes on with `--resume` and ends with the same weights, bit for bit, as one that was not (on the same
machine, with the same threads and versions). On several processes or GPUs:
`torchrun --nproc-per-node 2 -m lessons_lib.training pocket`.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import pickle
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from lessons_lib._checks import check_whole_number
from lessons_lib.cifar10 import load_cifar10
from lessons_lib.datasets import (
    AugmentedBatches,
    Batch,
    FreshShapes,
    held_out_shapes,
    seed_of_pass,
    shapes_dataset,
)
from lessons_lib.downloads import FileUnavailable, replace_file
from lessons_lib.recipes import RECIPES, Recipe, described
from lessons_lib.resnet import ResNet, normalized, shapes_network
from lessons_lib.shapes import Shortcut

Row = dict[str, float]


# --- steps ----------------------------------------------------------------------------------------------------------


def fit(
    network: nn.Module,
    batches: Iterable[Batch],
    recipe: Recipe,
    *,
    steps: int | None = None,
    validation: Callable[[], Iterable[Batch]] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    micro_batches: int = 1,
    seed: int = 0,
    checkpoint: Path | None = None,
    after_epoch: Callable[[list[Row]], object] | None = None,
    progress: bool = True,
) -> list[Row]:
    """Train `network` for `recipe.epochs` passes over `batches` of (images, labels); a row of figures for each pass.

    A pass is `steps` batches, by default as many as there are; where `batches` has `set_epoch`, it is told which pass
    begins. Learning from a batch in `micro_batches` equal parts needs less memory. After each pass everything that has
    changed goes to `checkpoint`, from which a later call goes on, and `after_epoch` gets the rows so far. Loss and
    accuracy are those of the batches while they were learned from, the `validation_` ones those of new batches after
    the pass. The network is left in eval mode. Raises ValueError or TypeError where sizes do not fit, or `checkpoint`
    is damaged or another run's, FloatingPointError where the loss is no number any more.
    """
    steps = len(batches) if steps is None else steps  # type: ignore[arg-type]
    check_whole_number("steps", steps, 1)
    check_whole_number("micro_batches", micro_batches, 1)
    state = _State(network, recipe, optimizer, micro_batches)
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint, seed)
    with torch.random.fork_rng(devices=[state.device] if state.device.type == "cuda" else []):
        for epoch in range(len(state.history), recipe.epochs):
            started = time.perf_counter()
            # What is random in a pass begins anew with it: a checkpoint need not know how far it had come.
            torch.manual_seed(seed_of_pass(seed, epoch) + _process())
            if hasattr(batches, "set_epoch"):
                batches.set_epoch(epoch)
            network.train()
            # The sum of the losses, how many were right, and of how many.
            seen = torch.zeros(3, dtype=torch.float64, device=state.device)
            # tqdm's bar for notebooks overlooks its own TQDM_DISABLE.
            hidden = not progress or bool(os.environ.get("TQDM_DISABLE"))
            bar = tqdm(islice(batches, steps), f"epoch {epoch + 1}", steps, unit="batch", disable=hidden)
            for step, (images, labels) in enumerate(bar):
                seen += state.step(images, labels, recipe.schedule(epoch * steps + step, recipe.epochs * steps))
                if (step + 1) % 20 == 0 or step + 1 == steps:  # not at each: a look makes a GPU wait
                    loss, right, count = seen.tolist()
                    bar.set_postfix(loss=f"{loss / count:.3f}", accuracy=f"{right / count:.2%}")
            if step + 1 < steps:
                raise ValueError(f"batches ended after {step + 1} of {steps} steps")
            state.join(seen)
            loss, right, count = seen.tolist()
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss of epoch {epoch + 1} is no number: is the learning rate too large?")
            row = {"epoch": epoch + 1, "learning_rate": state.rate, "loss": loss / count, "accuracy": right / count}
            if validation is not None:
                score = evaluate(state.result, validation(), flip=recipe.flip_at_test, dtype=state.dtype)
                row |= {"validation_loss": score.loss, "validation_accuracy": score.accuracy}
            state.history.append(row | {"seconds": round(time.perf_counter() - started, 2)})
            if checkpoint is not None and _process() == 0:
                state.save(checkpoint, seed)
            if after_epoch is not None and _process() == 0:
                after_epoch(state.history)
    if state.average is not None:
        network.load_state_dict(state.result.state_dict())
    network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return state.history


class _State:
    """All that changes while a network is trained, and the step that changes it."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, optimizer: torch.optim.Optimizer | None, micro_batches: int
    ) -> None:
        self.recipe, self.micro_batches = recipe, micro_batches
        self.device = next(network.parameters()).device
        self.dtype = mixed_precision(self.device) if recipe.mixed_precision else torch.float32
        # Convolutions run much faster with the channels of a pixel side by side.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer or torch.optim.SGD(
            network.parameters(),
            lr=0.0,  # each step sets it
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.l2,
        )
        self.average: AveragedModel | None = None
        if recipe.averaging:
            average = get_ema_multi_avg_fn(recipe.averaging)
            self.average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        # In float16 small gradients would vanish: they are those of a loss made large, and the step makes up for it.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        # Its backward pass also takes the mean of the gradients of all processes.
        self.learner = DistributedDataParallel(network, broadcast_buffers=False) if _processes() > 1 else network
        self.history: list[Row] = []
        self.rate = 0.0

    @property
    def result(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    def step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        """Learn from this process's part of a batch: sum of losses, how many were right, and of how many."""
        parts = self.micro_batches * _processes()
        if len(images) % parts:
            raise ValueError(f"a batch of {len(images)} pictures cannot be cut into {parts} equal parts")
        mine = slice(_process() * self.micro_batches, (_process() + 1) * self.micro_batches)
        self.rate = rate
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        seen = torch.zeros(3, dtype=torch.float64, device=self.device)
        statistics = _MeanStatistics(self.network) if self.micro_batches > 1 else None
        for some, their in list(zip(images.chunk(parts), labels.chunk(parts), strict=True))[mine]:
            some, their = some.to(self.device, memory_format=torch.channels_last), their.to(self.device)
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                logits = self.learner(some).float()
            loss = F.cross_entropy(logits, their, label_smoothing=self.recipe.label_smoothing)
            right = (logits.argmax(dim=1) == their).sum()
            seen += torch.stack([loss.detach().double() * len(their), right, torch.full_like(right, len(their))])
            if self.recipe.l1:
                loss = loss + self.recipe.l1 * sum(weight.abs().sum() for weight in self.network.parameters())
            self.scaler.scale(loss / self.micro_batches).backward()
            if statistics is not None:
                statistics.next()
        if statistics is not None:
            statistics.apply()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return seen

    def join(self, seen: Tensor) -> None:
        """After a pass: every process has what all have seen, and the mean of their BatchNorms' statistics."""
        if _processes() == 1:
            return
        distributed.all_reduce(seen)
        for network in [self.network] if self.average is None else [self.network, self.average.module]:
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    distributed.all_reduce(buffer)
                    buffer /= _processes()

    def save(self, path: Path, seed: int) -> None:
        content = {"recipe": described(self.recipe), "seed": seed, "history": self.history}
        content |= {name: part.state_dict() for name, part in self._parts().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda temporary: torch.save(content, temporary))

    def load(self, path: Path, seed: int) -> None:
        try:
            # weights_only: a pickle from anywhere could run any code.
            content = torch.load(path, map_location=self.device, weights_only=True)
            same = content["recipe"] == described(self.recipe) and content["seed"] == seed
        except (RuntimeError, EOFError, KeyError, TypeError, OSError, pickle.UnpicklingError):
            # from None, and without PyTorch's words: they advise to load it in a way that could run any code.
            raise ValueError(f"{path} is damaged, or no checkpoint. Remove it to begin from the start.") from None
        if not same:
            raise ValueError(f"{path} is of another recipe or seed: give another folder, or the same recipe and seed")
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self.history = content["history"]

    def _parts(self) -> dict[str, Any]:
        parts = {"network": self.network, "optimizer": self.optimizer, "scaler": self.scaler, "average": self.average}
        return {name: part for name, part in parts.items() if part is not None}


class _MeanStatistics:
    """BatchNorm's running statistics after one batch in several parts: the mean of those after each part alone.

    So many processes find the same, each of which sees one of the parts.
    """

    def __init__(self, network: nn.Module) -> None:
        self.buffers = list(network.buffers())
        self.before = [buffer.clone() for buffer in self.buffers]
        self.after: list[list[Tensor]] = []

    def next(self) -> None:
        self.after.append([buffer.clone() for buffer in self.buffers])
        for buffer, before in zip(self.buffers, self.before, strict=True):
            buffer.copy_(before)

    def apply(self) -> None:
        for buffer, *parts in zip(self.buffers, *self.after, strict=True):
            mean = torch.stack(parts).mean(dim=0) if buffer.is_floating_point() else parts[0]
            buffer.copy_(mean)


def mixed_precision(device: torch.device) -> torch.dtype:
    """The short numbers in which `device` multiplies faster than in float32: bfloat16, float16, or float32 if none."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    # Older PyTorch cannot say it; and where it has to be imitated, bfloat16 is slower.
    able = _abilities() if device.type == "cpu" else {}
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def _abilities() -> dict[str, Any]:
    """Of the processor, as PyTorch finds them."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


class Score(NamedTuple):
    """Mean cross-entropy, and the share, from 0 to 1, of pictures whose label has the largest logit."""

    loss: float
    accuracy: float
    pictures: int


def evaluate(
    network: nn.Module, batches: Iterable[Batch], *, flip: bool = False, dtype: torch.dtype = torch.float32
) -> Score:
    """How well `network` reads `batches` of (images, labels), in eval mode; `flip`: together with the mirrored picture.

    Raises ValueError where there is no picture.
    """
    loss, right, count = 0.0, 0, 0
    for logits, labels in answered(network, batches, flip=flip, dtype=dtype):
        # A sum, since the last batch may be smaller than the others.
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        right += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return Score(loss / count, right / count, count)


def answered(
    network: nn.Module, batches: Iterable[Batch], *, flip: bool, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels of each batch, in eval mode and without gradients. Raises ValueError where there is none."""
    was_training = network.training
    device = next((parameter.device for parameter in network.parameters()), None)
    network.eval()
    count = 0
    try:
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            with torch.no_grad(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
                logits = network(images).float()
                if flip:
                    logits = (logits + network(images.flip(3)).float()) / 2
            count += len(labels)
            yield logits, labels
    finally:
        network.train(was_training)
    if count == 0:
        raise ValueError("batches holds no picture: nothing has no accuracy")


# --- a run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """What a recipe begins with: data of which `name` and `copy`, a new network, batches to learn from, and to see what
    it has learned by: `validation` after each pass, `tests` once, at the end."""

    name: str
    copy: str
    network: nn.Sequential
    batches: AugmentedBatches | FreshShapes
    validation: Callable[[], Iterable[Batch]] | None
    tests: dict[str, Callable[[], Iterable[Batch]]]


def material(recipe: Recipe, seed: int = 0, device: torch.device | str = "cpu") -> Material:
    """Open the data of `recipe` and make its network, new, from `seed`. Raises what `load_cifar10` raises."""
    if recipe.draws_anew:
        return _fresh_shapes(recipe, seed, device)
    data = load_cifar10() if recipe.data == "cifar10" else shapes_dataset()
    train, validation = (pictures.to(device) for pictures in data.split(recipe.validation))
    test = data.test.to(device)
    statistics = train.statistics()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        resnet = ResNet(len(data.categories), width=recipe.width, blocks=recipe.blocks, dropout=recipe.dropout)
    return Material(
        name=data.name,
        copy=data.copy,
        network=normalized(resnet, statistics.mean, statistics.std).to(device),
        batches=AugmentedBatches(train, recipe.batch_size, recipe.augmentation, seed),
        validation=validation.batches if len(validation) else None,
        tests={"test": test.batches},
    )


def _fresh_shapes(recipe: Recipe, seed: int, device: torch.device | str) -> Material:
    shortcut = Shortcut("tag", rate=1.0) if recipe.data == "shapes-tagged" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = shapes_network()
    tests: dict[str, Shortcut | None] = {"test": None}
    if shortcut is not None:
        # Of the second the tag is as often wrong as chance would have it: whoever trusts it is misled.
        tests |= {"test with tags": shortcut, "test with tags at random": replace(shortcut, rate=0.0)}
    return Material(
        name=recipe.data,
        copy="generated",
        network=network.to(device),
        batches=FreshShapes(recipe.steps, recipe.batch_size, seed, shortcut),
        validation=None,
        tests={name: partial(held_out_shapes, shortcut=mark) for name, mark in tests.items()},
    )


def train(
    name: str,
    recipe: Recipe,
    out: Path,
    *,
    seed: int = 0,
    resume: bool = False,
    micro_batches: int = 1,
    device: torch.device | str = "cpu",
    command: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Train by `recipe` in the folder `out`, test what comes out, and return what `out/run.json` then says.

    `out/weights.safetensors` are the weights in half the bytes, and it is they that are tested. Raises FileExistsError
    where `out` has a run and `resume` is not set, ValueError where that run is one on another copy of the data; else
    what `material` and `fit` raise.
    """
    check_whole_number("seed", seed)
    run, checkpoint, weights = out / "run.json", out / "checkpoint.pt", out / "weights.safetensors"
    if not resume and (run.exists() or checkpoint.exists()):
        raise FileExistsError(f"{out} has a run: go on with it by --resume, or give another folder to --out")
    its = material(recipe, seed, device)
    if run.exists() and (begun := json.loads(run.read_text("utf-8"))["copy"]) != its.copy:
        raise ValueError(
            f"{out} has a run on {begun}, and the data at hand are {its.copy}: give another folder to --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "recipe": name,
        "command": command,
        "seed": seed,
        "data": its.name,
        "copy": its.copy,
        "settings": described(recipe),
        "parameters": sum(parameter.numel() for parameter in its.network.parameters()),
        "machine": machine(torch.device(device)),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "date": datetime.date.today().isoformat(),
    }

    def note(history: list[Row], **more: Any) -> dict[str, Any]:
        seconds = round(sum(row["seconds"] for row in history))
        record = {**facts, "seconds": seconds, **more, "history": history}
        replace_file(run, lambda path: path.write_text(json.dumps(record, indent=1) + "\n", "utf-8"))
        return record

    history = fit(
        its.network,
        its.batches,
        recipe,
        validation=its.validation,
        micro_batches=micro_batches,
        seed=seed,
        checkpoint=checkpoint,
        after_epoch=note,
        progress=progress,
    )
    if _process() > 0:
        return facts
    content = half_size(its.network)
    replace_file(weights, lambda path: path.write_bytes(content))
    its.network.load_state_dict(load(content))
    tests = {test: _score(its.network, batches, recipe.flip_at_test) for test, batches in its.tests.items()}
    return note(history, weights={"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, **tests)


def _score(network: nn.Module, batches: Callable[[], Iterable[Batch]], flip: bool) -> dict[str, Any]:
    found: dict[str, Any] = evaluate(network, batches())._asdict()
    if flip:
        found["accuracy_with_mirrored"] = evaluate(network, batches(), flip=True).accuracy
    return found


def half_size(network: nn.Module) -> bytes:
    """A safetensors file of `network`: its parameters in float16, statistics as they are."""
    parameters = {name for name, _ in network.named_parameters()}
    return save(
        {
            name: (value.half() if name in parameters else value).cpu().contiguous()
            for name, value in network.state_dict().items()
        }
    )


def machine(device: torch.device) -> dict[str, Any]:
    """What a record says of the machine: its processor, threads and processes."""
    if device.type == "cuda":
        return {"processor": torch.cuda.get_device_name(device), "processes": _processes()}
    name = _abilities().get("cpu_name") or platform.processor() or platform.machine()
    return {"processor": name, "threads": torch.get_num_threads(), "processes": _processes()}


def recorded_run(name: str) -> dict[str, Any]:
    """What a run on record found: its `settings`, `history`, `test`, and on which `copy` of the data and `machine`."""
    record = resources.files("lessons_lib") / "recorded" / "training" / f"{name}.json"
    if not record.is_file():
        raise ValueError(f"no run {name!r} is on record")
    found: dict[str, Any] = json.loads(record.read_text("utf-8"))
    return found


def _process() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


# --- the command ----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lessons_lib.training", description="Train a network by one of the course's recipes."
    )
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("--out", type=Path, help="folder of the run, by default runs/RECIPE")
    parser.add_argument("--resume", action="store_true", help="go on with the run in that folder, if there is one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, help="channels of the first stage, where not those of the recipe")
    parser.add_argument("--epochs", type=int, help="passes over the data, where not those of the recipe")
    parser.add_argument("--micro-batches", type=int, default=1, help="parts of a batch, where memory is short")
    asked = parser.parse_args(arguments)
    changed = {name: value for name in ("width", "epochs") if (value := getattr(asked, name)) is not None}
    said = [asked.recipe, *(f"--{name} {value}" for name, value in changed.items()), f"--seed {asked.seed}"]
    try:
        recipe = replace(RECIPES[asked.recipe], **changed)
        with _processes_of_torchrun() as device:
            record = train(
                asked.recipe,
                recipe,
                asked.out or Path("runs") / asked.recipe,
                seed=asked.seed,
                resume=asked.resume,
                micro_batches=asked.micro_batches,
                device=device,
                command=" ".join(["python -m lessons_lib.training", *said]),
                progress=_process() == 0,
            )
    except (ValueError, OSError, FileUnavailable, FloatingPointError) as error:
        parser.error(str(error))
    for name, score in record.items():
        if name.startswith("test"):
            print(f"{name}: {score['accuracy']:.2%} of {score['pictures']} pictures, {record['copy']}")


@contextmanager
def _processes_of_torchrun() -> Iterator[torch.device]:
    """The device of this process, joined with the others that torchrun started, if it did."""
    cuda = torch.cuda.is_available()
    if "LOCAL_RANK" not in os.environ:
        yield torch.device("cuda" if cuda else "cpu")
        return
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
