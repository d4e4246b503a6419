"""Small video files of every container, made by an encoder, and what reading one gives."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
from penstock.pipeline.context import BadRecord, Context
from penstock.sources.driving.video import Video

#: Name, FFmpeg's muxer, encoder, options of the muxer.
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mp4": ("mp4", "libx264", {"movflags": "faststart"}),
    "hevc.mp4": ("mp4", "libx265", {"movflags": "faststart"}),
    "mkv": ("matroska", "libx264", {}),
    "ts": ("mpegts", "libx264", {}),
    "h264": ("h264", "libx264", {}),
    "hevc": ("hevc", "libx265", {}),
    "mjpeg": ("mjpeg", "mjpeg", {}),
    "avi": ("avi", "mjpeg", {}),
}
SIZE = (48, 64)


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    channels = [x * 3 + number * 5, y * 4 + number * 3, (x + y) * 2 + number]
    return np.stack([c % 256 for c in channels], -1).astype(np.uint8)


def write_video(
    path: Path, kind: str, *, frames: int = 40, gop: int = 10, rate: int = 25, metadata: dict[str, str] | None = None
) -> Path:
    muxer, encoder, options = KINDS[kind]
    jpeg = encoder == "mjpeg"
    with av.open(str(path), "w", format=muxer, options=options) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(encoder, rate=rate)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p" if jpeg else "yuv420p"
        stream.codec_context.thread_count = 1
        if not jpeg:
            stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, 2
        if encoder == "libx265":
            stream.options = {"x265-params": "log-level=none:pools=none"}
        for number in range(frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


@dataclass
class Read:
    """What a source gave: rows as plain values (images as arrays), bad records, drops, and the positions behind blocks."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    after: list[tuple[dict[str, Any], int, int]] = field(default_factory=list)
    records: int = 0


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    images = batch.column("image").to_numpy_ndarray() if "image" in batch.schema.names else None
    columns = {
        name: (batch.column(name).cast(pa.int64()) if name.startswith("ts_") else batch.column(name)).to_pylist()
        for name in batch.schema.names
        if name != "image"
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if images is not None:
        for row, image in zip(rows, images, strict=True):
            row["image"] = image.copy()
    return rows


def read_video(spec: Video, position: dict[str, Any] | None = None) -> Read:
    found, reader = Read(), spec.open(Context("read"), None, position)
    schema = spec.schema
    try:
        for block in reader.blocks():
            decoded = reader.decode(block)
            for batch in decoded.batches:
                assert batch.schema.equals(schema, check_metadata=True)
                batch.validate(full=True)
                found.rows += plain(batch)
            found.bad += decoded.bad
            for reason, count in decoded.dropped.items():
                found.dropped[reason] = found.dropped.get(reason, 0) + count
            found.records += block.records
            found.after.append((dict(block.after), len(found.rows), len(found.bad)))
    finally:
        reader.close()
    return found


def same_rows(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    if len(left) != len(right):
        return False
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) if k == "image" else a[k] == b[k] for k in a)
        for a, b in zip(left, right, strict=True)
    )


def plain_decode(path: str | Path | io.BytesIO, **options: Any) -> list[tuple[int, np.ndarray]]:
    """pts and RGB of every picture, decoded as PyAV's documentation does."""
    source = path if isinstance(path, io.BytesIO) else str(path)
    with av.open(source, **options) as container:
        return [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
