"""What a CAN log holds, found by reading it to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.columns import as_numpy, event_ns
from ._blf_reader import BlfReader
from ._can_lines import CanLogReader
from ._dataset_times import time_span

__all__ = ["Survey", "survey"]


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
