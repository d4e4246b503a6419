"""Batches on their way through the object store: written once, read in place.

Ray keeps the buffers of a pickled Arrow batch apart from the pickle (protocol 5) and maps them into every process of a
node, so reading costs nothing. A slice, however, is pickled with the whole buffers it was cut from: such a batch is
written as an Arrow IPC message, which holds only its rows, and read from there, in place again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

__all__ = ["Cut", "Elsewhere", "held_bytes", "opened", "packed"]

#: A batch that holds so much more than its rows is written without the rest.
_WASTE = 1.25


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch as IPC messages: `data` begins with the schema; read in place."""

    data: pa.Buffer
    rows: int

    @property
    def num_rows(self) -> int:
        return self.rows


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A batch that lies in the object store, perhaps on another node: `reference` leads to a list, of which it is one."""

    reference: Any
    rows: int
    nbytes: int
    index: int = 0

    @property
    def num_rows(self) -> int:
        return self.rows


def held_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of all buffers of a batch, used or not, each counted once."""
    return int(batch.get_total_buffer_size())


def packed(batch: Any) -> tuple[Any, int]:
    """What to put into the store for `batch`, and how many bytes were copied on the way there (0 where none had to be)."""
    if not isinstance(batch, pa.RecordBatch) or held_bytes(batch) <= _WASTE * batch.nbytes + 4096:
        return batch, 0
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data = sink.getvalue()
    return Cut(data, batch.num_rows), data.size


def opened(parcel: Any, resolve: Any = None) -> Any:
    """The batch in a parcel; `resolve` (ray.get) is asked for what lies elsewhere."""
    if isinstance(parcel, Elsewhere):
        parcel = resolve(parcel.reference)[parcel.index]
    if isinstance(parcel, Cut):
        with pa.ipc.open_stream(parcel.data) as reader:
            return reader.read_next_batch()
    return parcel
