"""The cells of `bench_explanations` on a GPU: times as fast as the peers, and memory.

python tests/bench_on_gpu.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_explanations import RECORD, Cell, cells, new_record, quiet

RECORD_ON_GPU = RECORD.with_stem(f"{RECORD.stem}_gpu")


class CellOnGpu(Cell):
    """The same, on a GPU, where Captum may take more pictures at once."""

    def __init__(self, method: str, network: str, size: int, batch: int) -> None:
        super().__init__(method, network, size, batch)
        self.model.cuda()
        self.images, self.target = self.images.cuda(), self.target.cuda()
        self.at_once = [batch * k for k in (1, 4, 8, 16, 50)]


def seconds(function: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def settled_seconds(function: Callable[[], Any]) -> float:
    """The median of some runs, after as many that do not count as it takes to get going."""
    warm = first = seconds(function)
    if first > 1:
        return first
    while warm < 0.1:
        warm += seconds(function)
    return statistics.median(seconds(function) for _ in range(3 if first > 0.1 else 5))


def peak_of(function: Callable[[], Any]) -> float:
    """Megabytes of tensors more than before, at their highest, as PyTorch counts them."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def measured(method: str, network: str, size: int, batch: int) -> dict[str, Any]:
    cell = CellOnGpu(method, network, size, batch)
    peers = cell.theirs()
    cell.ours()
    name, peer = next(iter(peers.items()))
    if len(peers) > 1:
        name, peer = min(peers.items(), key=lambda item: settled_seconds(item[1]))
    pairs: list[tuple[float, float]] = []
    while len(pairs) < 3 or (len(pairs) < 5 and sum(map(sum, pairs)) < 0.5):
        pairs.append((settled_seconds(cell.ours), settled_seconds(peer)))
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "method": method, "network": network, "size": size, "batch": batch, "peer": name, "pairs": len(pairs),
        "ratio": statistics.median(b / a for a, b in pairs), "ours_ms": 1000 * ours, "peer_ms": 1000 * theirs,
        "ours_mb": peak_of(cell.ours), "peer_mb": peak_of(peer),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=RECORD_ON_GPU, help="where to write the record")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a GPU")
    quiet()
    record = new_record(f"one {torch.cuda.get_device_name()}")
    for cell in cells():
        found = measured(*cell)
        record["cells"].append(found)
        told = "{network:14} {size:3} px, batch {batch:2}  {method:24} {ratio:7.2f} x  {ours_ms:8.1f} ms against"
        print((told + " {peer_ms:8.1f}, {ours_mb:6.0f} MB against {peer_mb:6.0f}").format(**found), flush=True)
        asked.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
