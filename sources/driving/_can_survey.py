"""What a CAN log holds, found by reading it to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import as_numpy, event_ns
from ...pipeline.schema import describe
from ..storage.stored import PathLike
from ..storage.unpack import head_of
from ._blf_reader import BlfReader
from ._can_lines import CanLogReader
from ._dataset_times import time_span

__all__ = ["Survey", "contents", "survey"]


@dataclass(frozen=True)
class Survey:
    """Lines that are not blank or objects, bad ones among them, frames by bus, the time range, drops by reason, damage."""

    messages: int
    bad: int
    buses: npt.NDArray[np.int64]
    time: dict[str, Any] | None
    dropped: dict[str, int]
    problem: str | None


def survey(reader: CanLogReader | BlfReader) -> Survey:
    """Read everything."""
    messages = bad = 0
    buses, dropped = np.zeros(256, np.int64), dict[str, int]()
    least, most = 1 << 63, -1
    for block in reader.blocks():
        found = reader.decode(block)
        messages += block.records
        bad += len([record for record in found.bad if record.seq is not None])
        for reason, count in found.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        for batch in found.batches:
            buses += np.bincount(as_numpy(batch.column("bus")), minlength=256)
            times = event_ns(batch)
            least, most = min(least, int(times.min())), max(most, int(times.max()))
    time = time_span(least, most) if most >= least else None
    return Survey(messages, bad, buses, time, dropped, reader.problem)


def contents(
    reader: CanLogReader | BlfReader, path: PathLike, schema: pa.Schema, *, name: str, bus: str, dated: bool
) -> dict[str, Any]:
    """What `inspect` tells of the log of format `name` at `path`, whose buses are numbers; `reader` is read and closed."""
    try:
        found = survey(reader)
    finally:
        reader.close()
    text = describe(schema)
    topics = {
        f"{bus} {number}": {"type": "can.frame", "messages": int(count), "schema": text}
        for number, count in enumerate(found.buses.tolist())
        if count
    }
    return {
        "format": name,
        "compression": head_of(path, 16)[1],
        "messages": found.messages,
        "topics": topics,
        "one_table": True,
        "hint": "ops.CanSignals(DBC, MESSAGE) makes columns of signals",
        "other": found.dropped,
        "bad": found.bad,
        "time": found.time,
        "schema": text,
        "problem": found.problem or (None if dated else "it does not say when it was recorded"),
    }
