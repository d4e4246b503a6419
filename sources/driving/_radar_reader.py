"""The reader behind every table of radar packets: records are framed, and packets become rows where blocks are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ...pipeline.context import BadRecord
from ...pipeline.source import Block, Decoded, SourceReader
from ._radar_packets import Record, Records

__all__ = ["OneRecord", "PacketTable", "RadarReader", "Rows", "lists"]

_BLOCK_BYTES = 1 << 20


@dataclass
class Rows:
    """What the packets of one record hold: a value for each row, by column, without topic and frame_id.

    `bad` is ``(packet, error, bytes)``, `left_out` counts packets that are no rows by reason.
    """

    numbers: list[int] = field(default_factory=list)
    ts_event: list[int] = field(default_factory=list)
    ts_recv: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    bad: list[tuple[int, str, bytes]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str, count: int = 1) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + count


class PacketTable(Protocol):
    """How packets become rows of one table. Pure."""

    operation: str

    def rows(self, record: Record) -> Rows:
        """The rows of a record."""
        ...

    def columns(self, values: Sequence[Any]) -> dict[str, pa.Array]:
        """The columns behind ts_event, ts_recv, seq, topic and frame_id."""
        ...


class RadarReader(SourceReader):
    """Reads `records` into a table."""

    def __init__(self, records: Records, table: PacketTable, schema: pa.Schema, first: int) -> None:
        self._records, self._table, self._schema, self._first = records, table, schema, first

    def blocks(self) -> Iterator[Block]:
        held: list[Record] = []
        index = size = 0
        first = self._first
        for record in self._records.records():
            held.append(record)
            size += record.size
            if size >= _BLOCK_BYTES and record.after is not None:
                yield self._block(index, first, held, size)
                index, first, size, held = index + 1, record.first + record.count, 0, []
        if held:
            yield self._block(index, first, held, size)

    def _block(self, index: int, first: int, held: list[Record], size: int) -> Block:
        return Block(index, first, sum(record.count for record in held), size, held[-1].after or {}, held)

    def decode(self, block: Block) -> Decoded:
        held: list[Record] = block.payload
        topics, frames, seqs, events, received, values = [], [], [], [], [], []
        bad: list[BadRecord] = []
        dropped: dict[str, int] = {}
        for record in held:
            rows = self._table.rows(record)
            bad += record.bad
            for counts in (record.dropped, rows.left_out):
                for reason, count in counts.items():
                    dropped[reason] = dropped.get(reason, 0) + count
            for number, error, data in rows.bad:
                place = f"{record.place}, packet {number}"
                bad.append(BadRecord(place, self._table.operation, error, data, record.first + number))
            topics += [record.topic] * len(rows.numbers)
            frames += [record.frame_id] * len(rows.numbers)
            seqs += [record.first + number for number in rows.numbers]
            events += rows.ts_event
            received += rows.ts_recv
            values += rows.values
        if not values:
            return Decoded([], bad, dropped)
        name = pa.dictionary(pa.int16(), pa.utf8())
        found = {
            "ts_event": pa.array(events, pa.int64()).cast(self._schema.field("ts_event").type),
            "ts_recv": pa.array(received, pa.int64()).cast(self._schema.field("ts_recv").type),
            "seq": pa.array(seqs, pa.uint64()),
            "topic": pa.array(topics, pa.utf8()).dictionary_encode().cast(name),
            "frame_id": pa.array(frames, pa.utf8()).dictionary_encode().cast(name),
            **self._table.columns(values),
        }
        batch = pa.RecordBatch.from_arrays([found[key] for key in self._schema.names], schema=self._schema)
        return Decoded([batch], bad, dropped)

    def close(self) -> None:
        self._records.close()


class OneRecord:
    """A record that stands for a recording of its own."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def records(self) -> Iterator[Record]:
        yield self._record

    def close(self) -> None:
        """Nothing is held."""


def lists(kind: pa.DataType, counts: Sequence[int], children: Sequence[pa.Array]) -> pa.Array:
    """A column of lists of structs `kind`, of `counts` elements each, from the fields of all elements in order."""
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    structs = pa.StructArray.from_arrays(list(children), fields=list(kind))
    return pa.ListArray.from_arrays(pa.array(offsets), structs, type=pa.list_(kind))
