"""The inputs of `cluster_data`: a recorded drive, its frames as files, ticks as lines and as batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .cluster_work import TICK_ROWS, jpeg_rows
from .recordings import drive

__all__ = ["FILES", "Work", "arrow_batches", "frame_works", "tick_works"]

#: Into how many files the lines are divided for who reads a file a task.
FILES = 16
_SOI = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Work:
    """One case for both sides: `input` is measured, `short` warms up. `same`: the sums of model outputs must agree."""

    name: str
    peer: str
    kind: str
    rows: int
    input: str
    short: str
    topic: str = ""
    same: bool = True


def frame_works(scratch: Path, frames: int) -> list[Work]:
    """Frames of a drive: an MCAP file, and beside it a folder with a file for each frame."""
    paths = []
    for name, count in (("long", frames), ("short", 64)):
        folder = scratch / name
        folder.mkdir()
        path, topic, found = drive(folder, count)
        images = path.with_suffix("")
        images.mkdir()
        for number, message in enumerate(jpeg_rows(str(path))):
            (images / f"{number:06}.jpg").write_bytes(message[message.index(_SOI) :])
        paths.append((str(path), topic, found))
    (long, topic, rows), (short, _, _) = paths
    return [
        Work("frames, same decoder", "from_arrow", "frames", rows, long, short, topic),
        Work("frames, usual: read_mcap", "read_mcap", "frames", rows, long, short, topic, same=False),
        Work("frames, usual: read_mcap, cnn", "read_mcap", "frames, cnn", rows, long, short, topic, same=False),
        Work("frames, usual: read_images", "read_images", "frames", rows, long, short, topic, same=False),
    ]


def tick_works(scratch: Path, ticks: int) -> list[Work]:
    """Ticks in batches of 1,000 rows, and as JSON lines: one file with all, and several with a part each."""
    given = []
    for name, count in (("ticks", ticks), ("few", 20_000)):
        folder = scratch / name
        folder.mkdir()
        batches = _tick_batches(count)
        with pa.OSFile(str(folder / "ticks.arrow"), "wb") as out, pa.ipc.new_file(out, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        columns = zip(
            *(np.concatenate([np.asarray(b[c]) for b in batches]) for c in ("seq", "price", "size")), strict=True
        )
        lines = [f'{{"ts_ns":{1_000 * int(s)},"symbol":"ABC","price":{p:.2f},"size":{z:.0f}}}\n' for s, p, z in columns]
        (folder / "all.ndjson").write_text("".join(lines))
        bounds = [count * part // FILES for part in range(FILES + 1)]
        for part in range(FILES):
            (folder / f"part{part:02}.jsonl").write_text("".join(lines[bounds[part] : bounds[part + 1]]))
        given.append(str(folder))
    long, short = given
    return [
        Work("ticks, NDJSON", "read_json", "ticks", ticks, long, short),
        Work("ticks, batches in memory", "from_arrow, ticks", "ticks", ticks, long, short),
    ]


def _tick_batches(count: int) -> list[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    time = pa.timestamp("ns", tz="UTC")
    event = [pa.field("ts_event", time, nullable=False), pa.field("ts_recv", time, nullable=False)]
    schema = pa.schema(
        [*event, pa.field("seq", pa.uint64(), nullable=False), ("price", pa.float32()), ("size", pa.float32())]
    )
    batches = []
    for start in range(0, count, TICK_ROWS):
        seq = np.arange(start, min(count, start + TICK_ROWS))
        stamp = pa.array(seq * 1_000).view(time)
        price = rng.integers(9_000, 11_000, len(seq)).astype(np.float32) / np.float32(100)
        size = rng.integers(1, 1_000, len(seq)).astype(np.float32)
        values = [stamp, stamp, pa.array(seq.astype("u8")), pa.array(price), pa.array(size)]
        batches.append(pa.RecordBatch.from_arrays(values, schema=schema))
    return batches


def arrow_batches(given: str) -> list[pa.RecordBatch]:
    """The batches of a folder, in memory mapped from its file."""
    with pa.memory_map(str(Path(given) / "ticks.arrow")) as file:
        reader = pa.ipc.open_file(file)
        return [reader.get_batch(index) for index in range(reader.num_record_batches)]
