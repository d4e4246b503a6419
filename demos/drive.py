"""Camera and radar of a drive, aligned in event time, into a quantized fusion model."""

from __future__ import annotations

from pathlib import Path

from .. import models, ops, read, sinks, sources
from ..pipeline import Flow

__all__ = ["pipeline"]


def pipeline(recording: Path, results: Path) -> Flow:
    """Scores and distances of up to 16 objects for every camera frame that has a radar scan within 50 ms."""
    drive = sources.Mcap(recording)
    camera = read(drive.topic("/camera/front/image_raw/compressed"), name="camera").map(ops.DecodeImage(224, 224))
    radar = read(drive.topic("/radar/front/points"), name="radar").map(ops.PadRadar(max_points=64))
    return (
        camera.sync(radar, tolerance="50ms")
        .batch(16)
        .prefetch(depth=3)
        .infer(models.load("fusion", quantize="int8"))
        .write(sinks.Parquet(results))
    )
