"""Reading a source to its end, and checking what every source promises about blocks, numbers and going on later."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.operator import NO_TIME
from penstock.pipeline.reading import Head, Reading
from penstock.pipeline.source import Block, Position, SourceSpec, Split

__all__ = ["Whole", "counts_when_cut", "read_whole", "resumes_at_every_block"]


@dataclass
class Whole:
    """All that came out of a source."""

    table: pa.Table
    bad: list[BadRecord] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)

    @property
    def records(self) -> int:
        return sum(block.records for block in self.blocks)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows as plain values, times in ns."""
        table = self.table
        for name in ("ts_event", "ts_recv"):
            table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.int64()))
        return table.to_pylist()


def read_whole(
    spec: SourceSpec, *, position: Position | None = None, split: Split | None = None, gaps: bool = True
) -> Whole:
    """Read `spec`; blocks are numbered without gaps, rows and bad records lie within them, and every batch is sound."""
    reader = spec.open(Context("read"), split, position)
    schema, batches = spec.schema, []
    whole = Whole(pa.table({}))
    try:
        for block in reader.blocks():
            if whole.blocks:
                assert block.first_seq == whole.blocks[-1].first_seq + whole.blocks[-1].records
            json.dumps(block.after)
            found = reader.decode(block)
            again = reader.decode(block)
            assert [b.num_rows for b in again.batches] == [b.num_rows for b in found.batches]
            seqs = np.concatenate(
                [np.empty(0, np.uint64), *(batch.column("seq").to_numpy() for batch in found.batches)]
            )
            for batch in found.batches:
                batch.validate(full=True)
                assert batch.schema == schema
                assert batch.num_rows
            assert (seqs[1:] > seqs[:-1]).all()
            inside = range(block.first_seq, block.first_seq + block.records)
            assert not len(seqs) or (int(seqs[0]) in inside and int(seqs[-1]) in inside)
            assert all(record.seq in inside for record in found.bad if record.seq is not None)
            assert all(record.error and "\n" not in record.error for record in found.bad)
            if gaps:
                bad = {record.seq for record in found.bad if record.seq is not None}
                assert len(bad) + len(seqs) + sum(found.dropped.values()) >= block.records
            batches += found.batches
            whole.bad += found.bad
            whole.blocks.append(block)
            for reason, count in found.dropped.items():
                whole.dropped[reason] = whole.dropped.get(reason, 0) + count
    finally:
        reader.close()
    whole.table = pa.Table.from_batches(batches, schema)
    return whole


def resumes_at_every_block(spec: SourceSpec) -> Whole:
    """Read whole, then again from behind every block: the rest is the same each time."""
    whole = read_whole(spec)
    for block in whole.blocks:
        rest = read_whole(spec, position=json.loads(json.dumps(block.after)))
        first = block.first_seq + block.records
        assert rest.table.equals(
            whole.table.filter(pc.greater_equal(whole.table["seq"], pa.scalar(first, pa.uint64())))
        )
        later = [record for record in whole.bad if record.seq is not None and record.seq >= first]
        assert [record for record in rest.bad if record.seq is not None] == later
    return whole


def counts_when_cut(
    spec: SourceSpec, cut: int | None = None, between: Callable[[], None] = lambda: None
) -> tuple[list[int], dict[str, Any]]:
    """The ``seq`` of all rows and the counters of a read step that is asked for a snapshot as block number `cut` is on its
    way out, is gone right after it, and goes on after `between`."""
    node: Any = SimpleNamespace(id="read", schema=spec.schema, spec=spec)
    rows: list[int] = []
    kept: dict[str, Any] = {}

    class Keeping:
        def saved(self, number: int, step: str, state: Any) -> None:
            kept.update(state, rows=len(rows))

        def finished(self, step: str, state: Any) -> None: ...

        def push(self, batch: pa.RecordBatch, port: int, trace: Any) -> None:
            rows.extend(batch.column("seq").to_pylist())

        def barrier(self, number: int, port: int) -> None: ...

    def run(state: Any, cut: int | None) -> Reading:
        position = None if state is None else json.loads(json.dumps(state["position"]))
        context = Context("read")
        reading = Reading(0, node, spec.open(context, position=position), context, Head([]), None)
        saver: Any = Keeping()
        reading.saver = saver
        reading.down.append(SimpleNamespace(receiver=saver, port=0))  # type: ignore[arg-type]
        if state is not None:
            reading.load(state)
        number = 0
        while (work := reading.frame()) is not None and not (kept and cut is not None):
            reading.asked = (1, NO_TIME) if number == cut else None
            reading.deliver(reading.decode(work))
            number += 1
        reading.reader.close()
        return reading

    reading = run(None, cut)
    if cut is not None:
        assert kept, "there are fewer blocks"
        between()
        del rows[kept.pop("rows") :]
        reading = run(dict(kept), None)
    names = ("rows_in", "rows_out", "bytes_in", "bytes_out", "dropped", "quarantined")
    return rows, {name: getattr(reading.metrics, name) for name in names}
