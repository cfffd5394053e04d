"""The page on speed shows what was measured, all of it, and says no more than that."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import bench_explanations
import bench_on_gpu
import pytest
import torch
from PIL import Image

from lessons_lib.targets import at_once


def read(record: Path) -> list[dict[str, Any]]:
    measured: list[dict[str, Any]] = json.loads(record.read_text("utf-8"))["cells"]
    return measured


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return read(bench_explanations.RECORD)


@pytest.fixture(scope="module")
def on_gpu() -> list[dict[str, Any]]:
    return read(bench_on_gpu.RECORD_ON_GPU)


def ratios(cells: list[dict[str, Any]], *methods: str) -> list[float]:
    return [cell["ratio"] for cell in cells if cell["method"] in methods]


def test_everything_was_measured_once(cells: list[dict[str, Any]], on_gpu: list[dict[str, Any]]) -> None:
    for record in (cells, on_gpu):
        found = [tuple(cell[key] for key in ("method", "network", "size", "batch")) for cell in record]
        assert found == list(bench_explanations.cells())


def test_the_plot_is_that_of_the_record(cells: list[dict[str, Any]]) -> None:
    with Image.open(bench_explanations.PLOT) as plot:
        assert plot.info["Source"] == sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()


def test_what_the_page_says_of_the_plot_is_so(cells: list[dict[str, Any]]) -> None:
    family = ratios(cells, "Grad-CAM", "Grad-CAM++", "XGrad-CAM", "LayerCAM")
    assert sum(2 <= ratio <= 5 for ratio in family) > 0.75 * len(family)
    assert min(ratios(cells, "Ablation-CAM")) > 10
    gradients = ratios(cells, "Saliency", "SmoothGrad", "Integrated gradients")
    assert all(0.8 < ratio < 1.7 for ratio in gradients)


def test_what_the_page_says_of_a_gpu_is_so(on_gpu: list[dict[str, Any]]) -> None:
    saliency = [cell for cell in on_gpu if cell["method"] == "Saliency"]
    assert all(3.5 < cell["ours_ms"] < 6.5 for cell in saliency)
    assert 1.2 < 1 / min(cell["ratio"] for cell in saliency) < 1.3
    ablation = ratios(on_gpu, "Ablation-CAM")
    assert 9.5 < min(ablation) < 10.5 and 250 < max(ablation) < 350
    many = [cell for cell in on_gpu if cell["batch"] == 16]
    for cell in (cell for cell in many if cell["method"] == "Integrated gradients" and cell["size"] == 224):
        assert cell["peer"] == "Captum, 800 at once"
        assert 0.845 < cell["ratio"] < 0.895
        assert 9.5 < cell["peer_mb"] / cell["ours_mb"] < 10.5
    assert at_once(torch.empty(1, 3, 224, 224, device="meta")) == 83  # as for all devices but the CPU
    longer = [1 / ratio for ratio in ratios(many, "Occlusion")]
    assert 1.25 < min(longer) < 1.35 and 3.25 < max(longer) < 3.35
