"""The page on speed shows what was measured, all of it, and says no more than that."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import bench_explanations
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    record = json.loads(bench_explanations.RECORD.read_text("utf-8"))
    measured: list[dict[str, Any]] = record["cells"]
    return measured


def ratios(cells: list[dict[str, Any]], *methods: str) -> list[float]:
    return [cell["ratio"] for cell in cells if cell["method"] in methods]


def test_everything_was_measured_once(cells: list[dict[str, Any]]) -> None:
    found = [tuple(cell[key] for key in ("method", "network", "size", "batch")) for cell in cells]
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
