"""Starvation: how long an accelerator waits whose input could be 1.3 times as fast as it is."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from .harness import Case, Contender
from .recordings import drive

__all__ = ["case"]

SIDE, ROWS, MARGIN = 224, 32, 1.3

_RULES = (
    f"Camera frames decoded to float32 {SIDE}x{SIDE} batches of {ROWS} for a simulated accelerator with a fixed service "
    f"time a batch: what the input takes for a batch by itself (measured right before, median of three), times {MARGIN}. "
    "wait_share: part of the time from its first batch to its last in which the accelerator had none. ceiling_ratio: its "
    "rate over that with the input replaced by cached batches. No peer reports either."
)


def case(scratch: Path, *, quick: bool) -> Case:
    file, topic, frames = drive(scratch, 442 if quick else 2_000)
    last: dict[str, float] = {}

    def run() -> int:
        last.clear()
        last.update(penstock_starvation(file, topic, frames, scratch / "scores"))
        return frames

    contenders = [Contender("penstock", run, ours=True, values=lambda: dict(last))]
    return Case(
        "starvation", f"Simulated accelerator, input {MARGIN} times as fast", "frame", _RULES, contenders, rates=False
    )


def penstock_starvation(file: Path, topic: str, frames: int, folder: Path) -> dict[str, float]:
    """wait_share, ceiling_ratio and the service time used."""
    import pyarrow as pa
    from penstock.models.simulator import Simulator
    from penstock.pipeline.executor import TensorSpec

    seconds = sorted(_input_seconds(file, topic) for _ in range(3))[1]
    service = seconds / (frames / ROWS) * MARGIN
    model = Simulator(service_time=int(service * 1e9), inputs={"image": TensorSpec(pa.float32(), (3, SIDE, SIDE))})
    report = _run(file, topic, model, folder)
    accelerator = report["accelerator"]
    return {
        "wait_share": accelerator["wait_share"],
        "frames_per_s": accelerator["rows_per_s"],
        "ceiling_ratio": accelerator["ceiling_ratio"] or float("nan"),
        "service_ms": service * 1e3,
    }


def _input_seconds(file: Path, topic: str) -> float:
    began = time.perf_counter()
    for _ in _decoded(file, topic):
        pass
    return time.perf_counter() - began


def _decoded(file: Path, topic: str) -> Any:
    import penstock as ps
    from penstock import ops, sources

    camera = ps.read(sources.Mcap(file).topic(topic))
    return camera.map(ops.DecodeImage(SIDE, SIDE, dtype="float32", layout="chw")).batch(ROWS)


def _run(file: Path, topic: str, model: Any, folder: Path) -> Any:
    from penstock import sinks

    shutil.rmtree(folder, ignore_errors=True)
    flow = _decoded(file, topic).prefetch(3).infer(model).write(sinks.Parquet(folder))
    return flow.run(ceiling=True)
