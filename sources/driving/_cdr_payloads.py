"""What the decoders of JSON and protobuf messages share: names for their columns, and rows put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from ...pipeline.schema import EVENT_FIELDS
from ._cdr_rows import BAD_TIME, REASONS, Array
from .cdr import Messages

__all__ = ["TOPIC", "assemble", "free_names", "late_clock"]

TOPIC = ("topic", pa.dictionary(pa.int16(), pa.utf8()))


def free_names(names: Iterable[str], *, taken: Iterable[str] = ()) -> list[str]:
    """`names` with a ``_`` behind those that every table, or `taken`, has already."""
    used, out = {"topic", *taken, *(field.name for field in EVENT_FIELDS)}, []
    for name in names:
        while name in used:
            name += "_"
        used.add(name)
        out.append(name)
    return out


def assemble(
    schema: pa.Schema,
    topic: str,
    rows: Sequence[int],
    stamps: Sequence[int],
    log_times: Array,
    first: int,
    columns: Sequence[pa.Array],
    bad: list[tuple[int, str]],
) -> Messages:
    """The messages `rows` as a batch; a stamp of 0 is none."""
    at = np.array(rows, np.int64)
    received, event = log_times[at], np.array(stamps, np.int64)
    event = np.where(event == 0, received, event)
    times = [pa.array(values).cast(schema.field(0).type) for values in (event, received)]
    indices = pa.array(np.zeros(len(at), np.int16))
    named = pa.DictionaryArray.from_arrays(indices, pa.array([topic], pa.utf8()))
    seq = pa.array((at + first).astype(np.uint64))
    return Messages(pa.RecordBatch.from_arrays([*times, seq, named, *columns], schema=schema), sorted(bad))


def late_clock(log_times: Array) -> list[tuple[int, str]]:
    """Messages whose log time is no time."""
    return [(int(i), REASONS[BAD_TIME]) for i in np.flatnonzero(log_times < 0)]
