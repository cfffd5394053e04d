"""Maps that explain a decision beside those of pytorch-grad-cam and Captum: time, memory, and what no way can avoid.

    make bench

Each cell runs in turn, ours, theirs, ours, ..., each after a run or two that do not count: a library whose threads
still spin would slow the other. Where a peer can be told how many pictures to take at once, the best of several
settings counts. The record goes into the book, to the page "How fast".
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lessons_lib import gradcam, saliency
from lessons_lib.hooks import Capture, frozen

RECORD = Path(__file__).resolve().parents[1] / "book" / "_static" / "how_fast.json"
PLOT = RECORD.with_suffix(".png")
STEPS = 50
LAYERS = {"resnet18": ("layer4", "layer1"), "squeezenet1_0": ("features.12", "features.3")}
WINDOW = {224: (32, 16), 32: (8, 4)}
# What was aimed for at 224 pixels on resnet18, one picture and sixteen, and at 32 pixels.
AIMS = {
    **dict.fromkeys(("Grad-CAM", "Grad-CAM++", "XGrad-CAM", "LayerCAM"), (2.7, 3.5, 2.5)),
    "Eigen-CAM": (3, 3, 1.5),
    "Eigen-CAM, first stage": (9, 9, 1.5),
    "Ablation-CAM": (80, 80, 40),
    "Score-CAM": (1, 1, 1.5),
    "Guided Grad-CAM": (1.3, 1.3, 1.2),
    "Saliency": (1, 1, 1),
    "Integrated gradients": (1, 1, 1),
    "SmoothGrad": (1, 1, 1),
    "Occlusion": (1.3, 1.3, 1.2),
}
CAMS = {
    "Grad-CAM": (gradcam.grad_cam, "GradCAM"),
    "Grad-CAM++": (gradcam.grad_cam_plus_plus, "GradCAMPlusPlus"),
    "XGrad-CAM": (gradcam.xgrad_cam, "XGradCAM"),
    "LayerCAM": (gradcam.layer_cam, "LayerCAM"),
    "Eigen-CAM": (gradcam.eigen_cam, "EigenCAM"),
    "Eigen-CAM, first stage": (gradcam.eigen_cam, "EigenCAM"),
    "Ablation-CAM": (gradcam.ablation_cam, "AblationCAM"),
    "Score-CAM": (gradcam.score_cam, "ScoreCAM"),
}


class Cell:
    """One method on one network and batch: ours, the peer's in each setting, and the work that nobody can avoid."""

    def __init__(self, method: str, network: str, size: int, batch: int, *, short: bool = False) -> None:
        from torchvision import models

        torch.manual_seed(0)
        self.method, self.model = method, getattr(models, network)().eval()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.bias, 0, 0.3)
        if network == "squeezenet1_0":
            nn.init.constant_(self.model.classifier[1].bias, 1.0)  # its last ReLU would be off for most classes
        self.images, self.target = torch.rand(batch, 3, size, size), torch.arange(batch)
        self.layer = LAYERS[network][method.endswith("first stage")]
        # The memory that a method needs does not depend on how often it looks.
        self.steps = 16 if short else STEPS
        self.window, self.stride = WINDOW[size]
        self.stride = self.window if short else self.stride
        self.at_once = [batch * k for k in (1, 4, 8, 16, 50) if batch * k * size**2 <= 64 * 224**2]

    def ours(self) -> Any:
        model, x, t, layer = self.model, self.images, self.target, self.layer
        if self.method in CAMS:
            function = CAMS[self.method][0]
            return function(model, x, layer, *(() if function is gradcam.eigen_cam else (t,)))
        return {
            "Guided Grad-CAM": lambda: gradcam.guided_grad_cam(model, x, layer, t),
            "Saliency": lambda: saliency.saliency(model, x, t),
            "Integrated gradients": lambda: saliency.integrated_gradients(model, x, t, steps=self.steps),
            "SmoothGrad": lambda: saliency.smooth_grad(model, x, t, samples=self.steps),
            "Occlusion": lambda: saliency.occlusion(model, x, t, size=self.window, stride=self.stride),
        }[self.method]()

    def theirs(self) -> dict[str, Callable[[], Any]]:
        import captum.attr as captum

        model, x, t = self.model, self.images, self.target
        module = model.get_submodule(self.layer)
        if self.method in CAMS:
            return {"pytorch-grad-cam": self._pytorch_grad_cam}
        window, stride = (3, self.window, self.window), (3, self.stride, self.stride)
        settings: dict[str, Callable[[int], Any]] = {
            "Integrated gradients": lambda n: captum.IntegratedGradients(model).attribute(
                x, target=t, n_steps=self.steps, internal_batch_size=n
            ),
            "SmoothGrad": lambda n: captum.NoiseTunnel(captum.Saliency(model)).attribute(
                x, nt_samples=self.steps, nt_samples_batch_size=n // len(x), stdevs=0.15, target=t, abs=False
            ),
            "Occlusion": lambda n: captum.Occlusion(model).attribute(
                x, window, strides=stride, baselines=0.5, target=t, perturbations_per_eval=n // len(x)
            ),
        }
        if self.method in settings:
            ask = settings[self.method]
            return {f"Captum, {n} at once": lambda n=n: ask(n) for n in self.at_once}  # type: ignore[misc]
        if self.method == "Saliency":
            return {"Captum": lambda: captum.Saliency(model).attribute(x.clone(), target=t)}
        guided = captum.GuidedGradCam(model, module)
        return {"Captum": lambda: guided.attribute(x.clone(), target=t, interpolate_mode="bilinear")}

    def _pytorch_grad_cam(self) -> Any:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(int(t)) for t in self.target]
        with getattr(pytorch_grad_cam, CAMS[self.method][1])(self.model, [self.model.get_submodule(self.layer)]) as cam:
            return cam(self.images, targets)

    def unavoidable(self) -> tuple[Callable[[], Any], float]:
        """Forward, and backward as far as the method has to; and how many times that is done."""
        model, x, t = self.model, self.images, self.target
        if self.method.startswith("Eigen"):

            def stop() -> None:
                with torch.no_grad(), Capture(model, self.layer, stop=True):
                    model(x)

            return stop, 1
        if self.method in ("Score-CAM", "Occlusion"):
            looks = model.get_submodule(self.layer)
            with torch.no_grad(), Capture(model, looks, stop=True) as captured:
                model(x[:1])
            (maps,) = captured.values()
            windows = (-(-(x.shape[2] - self.window) // self.stride) + 1) ** 2
            some = x[:1].repeat(16, 1, 1, 1)

            def forward() -> None:
                with torch.no_grad():
                    model(some)

            return forward, len(x) * (maps.shape[1] if self.method == "Score-CAM" else windows) / 16
        if self.method in ("Integrated gradients", "SmoothGrad"):
            some = x[:1].repeat(8, 1, 1, 1)
            return lambda: self._backward(some, t[:1].repeat(8)), len(x) * self.steps / 8
        if self.method in ("Saliency", "Guided Grad-CAM"):
            return lambda: self._backward(x, t), 1

        def behind() -> None:
            with frozen(model), Capture(model, self.layer, gradients=True) as captured:
                scores = model(x).gather(1, t[:, None])
            captured.gradients(scores)

        if self.method != "Ablation-CAM" or self.layer == "layer4":  # behind it there is but a linear head
            return behind, 1
        with torch.no_grad(), Capture(model, self.layer) as captured:
            model(x)
        (maps,) = captured.values()
        copies = maps[:1].repeat(32, 1, 1, 1)

        def head() -> None:
            with torch.no_grad():
                model.classifier(copies)

        return head, len(x) * maps.shape[1] / 32

    def _backward(self, images: Tensor, target: Tensor) -> None:
        pixels = images.clone().requires_grad_()
        with frozen(self.model):
            torch.autograd.grad(self.model(pixels).gather(1, target[:, None]).sum(), pixels)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def settled_seconds(function: Callable[[], Any]) -> float:
    """The time of one run, or the median of some, after as many that do not count as it takes to get going."""
    first = seconds(function)
    if first > 2:
        return first
    warm = first
    while warm < 0.3:
        warm += seconds(function)
    return statistics.median(seconds(function) for _ in range(3 if first > 0.3 else 7))


def measured(method: str, network: str, size: int, batch: int) -> dict[str, Any]:
    cell = Cell(method, network, size, batch)
    peers = cell.theirs()
    name, peer = next(iter(peers.items()))
    if len(peers) > 1:
        cell.ours()
        name, peer = min(peers.items(), key=lambda item: seconds(item[1]))
    base, times = cell.unavoidable()
    pairs: list[tuple[float, float]] = []
    wanted = 9 if seconds(cell.ours) < 0.1 else 5  # what is over soon scatters more
    while len(pairs) < wanted and sum(map(sum, pairs)) < 20:
        pairs.append((settled_seconds(cell.ours), settled_seconds(peer)))
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    least = times * settled_seconds(base)
    ratio = statistics.median(b / a for a, b in pairs)
    asked = AIMS[method][2 if size == 32 else 0 if batch == 1 else 1]
    aim = asked if network == "resnet18" else 0.8 * theirs / least
    return {
        "method": method, "network": network, "size": size, "batch": batch, "peer": name, "pairs": len(pairs),
        "ratio": ratio, "aim": aim, "ours_ms": 1000 * ours, "peer_ms": 1000 * theirs, "least_ms": 1000 * least,
    }  # fmt: skip


# --- memory ------------------------------------------------------------------------------------------------------


def resident() -> dict[str, int]:
    """Bytes of memory in use now, "VmRSS", of which "RssFile" is read from files, and at its highest, "VmHWM"."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: 1024 * int(status[name].removesuffix("kB")) for name in ("VmRSS", "RssFile", "VmHWM")}


def peak_of(function: Callable[[], Any], seconds: float) -> int:
    """How many bytes more than before the process held at its highest, as the kernel counts them. Linux only.

    Code that is read from the files of libraries does not count. A method that is not through by then has long been at
    its highest: it goes on picture by picture.
    """
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # its highest is now what it is now
    worker = threading.Thread(target=function, daemon=True)
    worker.start()
    worker.join(seconds)
    after = resident()
    return after["VmHWM"] - before["VmRSS"] - (after["RssFile"] - before["RssFile"])


def memory(*cell: Any) -> tuple[float, float]:
    """Megabytes that ours and the peer's, each in a process of its own, need besides the network."""
    # What is freed goes back to the system at once: else it would count how the gaps between old tensors get filled.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)
    # From a process that has the libraries and has not yet computed anything: what it takes to be there does not count.
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["captum.attr", "pytorch_grad_cam", "torchvision.models", "lessons_lib.gradcam"])
    found = []
    for who in ("ours", "peer"):
        told, tell = start.Pipe(duplex=False)
        process = start.Process(target=tell_memory, args=(tell, who, *cell))
        process.start()
        tell.close()
        found.append(told.recv() / 2**20)
        process.join()
    return found[0], found[1]


def tell_memory(tell: Any, who: str, method: str, network: str, size: int, batch: int) -> None:
    quiet()
    cell = Cell(method, network, size, batch, short=True)
    with torch.no_grad():
        cell.model(cell.images[:1])
    peers = cell.theirs()
    # The setting that is the quickest here: about as many at once as ours takes.
    wanted = [n for n in cell.at_once if n * size**2 <= 8 * 224**2] or cell.at_once[:1]
    name = f"Captum, {wanted[-1]} at once" if len(peers) > 1 else next(iter(peers))
    tell.send(peak_of(cell.ours if who == "ours" else peers[name], seconds=30))
    os._exit(0)  # whatever still runs


def quiet() -> None:
    import tqdm

    warnings.simplefilter("ignore")
    tqdm.tqdm = lambda steps, **_: steps


# --- the whole table ---------------------------------------------------------------------------------------------


def cells() -> Iterator[tuple[str, str, int, int]]:
    for network in LAYERS:
        for size in (32, 224):
            for batch in (1, 16):
                for method in AIMS:
                    yield method, network, size, batch


def new_record(machine: str) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("torch", "torchvision", "captum", "grad-cam")}
    return {"date": date.today().isoformat(), "machine": machine, "versions": versions, "cells": []}


def draw(record: dict[str, Any]) -> None:
    """The plot of the page, with the hash of what it shows: a test tells when it is no longer that of the record."""
    from hashlib import sha256

    from lessons_lib.plots import BLUE, GREY, ORANGE, subplots

    figure, panels = subplots(len(LAYERS), 1, alt="How many times as fast", height=5 * len(LAYERS), sharex=True)
    methods = list(AIMS)
    for axes, network in zip(panels, LAYERS, strict=True):
        for (size, color), (batch, marker) in product(((224, BLUE), (32, ORANGE)), ((1, "o"), (16, "s"))):
            shown = [c for c in record["cells"] if (c["network"], c["size"], c["batch"]) == (network, size, batch)]
            places = [methods.index(cell["method"]) for cell in shown]
            label = f"{size} px, {batch} at once"
            ratios = [cell["ratio"] for cell in shown]
            axes.plot(ratios, places, marker, color=color, label=label, alpha=0.8, markersize=7, linestyle="none")
        axes.axvline(1, color=GREY, linewidth=1)
        axes.set(xscale="log", title=network, yticks=range(len(methods)), yticklabels=methods)
        axes.set(xticks=[1, 3, 10, 30, 100, 300], xticklabels=["1", "3", "10", "30", "100", "300"])
        axes.minorticks_off()
        axes.invert_yaxis()
    panels[-1].set_xlabel("times as fast as the library")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
    hashed = sha256(json.dumps(record["cells"], sort_keys=True).encode()).hexdigest()
    figure.savefig(PLOT, dpi=2 * 96, metadata={"Source": hashed})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help='a part of "METHOD NETWORK SIZE BATCH"')
    parser.add_argument("--resume", action="store_true", help="keep what the record has, and measure the rest")
    asked = parser.parse_args()
    quiet()
    record = new_record(
        f"{torch.get_num_threads()} CPU threads, {platform.system()}, Python {platform.python_version()}"
    )
    if asked.resume or asked.only:
        record["cells"] = json.loads(RECORD.read_text("utf-8"))["cells"]
    key, order = ("method", "network", "size", "batch"), list(cells())
    for cell in order:
        known = [one for one in record["cells"] if tuple(one[k] for k in key) == cell]
        if asked.only not in " ".join(map(str, cell)) or (asked.resume and known):
            continue
        found = measured(*cell)
        found["ours_mb"], found["peer_mb"] = memory(*cell)
        record["cells"] = [one for one in record["cells"] if one not in known] + [found]
        record["cells"].sort(key=lambda one: order.index(tuple(one[k] for k in key)))
        told = (
            "{network:14} {size:3} px, batch {batch:2}  {method:24} {ratio:7.2f} x (aim {aim:6.2f})  {ours_ms:9.1f} ms"
        )
        told += " against {peer_ms:9.1f}, {ours_mb:6.0f} MB against {peer_mb:6.0f}  [{peer}]"
        print(told.format(**found), flush=True)
        RECORD.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    draw(record)


if __name__ == "__main__":
    main()
