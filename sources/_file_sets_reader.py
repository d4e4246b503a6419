"""Readers of several sources as one: one behind the other, or merged by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ..pipeline._interleave import interleave
from ..pipeline.columns import as_numpy, event_ns
from ..pipeline.context import BadRecord, Context
from ..pipeline.memory import BufferPool
from ..pipeline.source import Block, Decoded, Position, SourceReader, SourceSpec

__all__ = ["MergedReader", "SequentialReader"]

_END = (1 << 63) - 1


def _renumbered(decoded: Decoded, schema: pa.Schema, base: int) -> Decoded:
    """Rows and bad records numbered on from `base`."""
    batches = []
    for batch in decoded.batches:
        columns = list(batch.columns)
        if base:
            columns[2] = pa.array(as_numpy(columns[2]) + np.uint64(base))
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    bad = [record if record.seq is None else replace(record, seq=record.seq + base) for record in decoded.bad]
    return Decoded(batches, bad, decoded.dropped)


class SequentialReader(SourceReader):
    """`parts` one behind the other. `order` are their numbers in the spec, kept in positions."""

    def __init__(
        self,
        parts: Sequence[SourceSpec],
        order: Sequence[int],
        schema: pa.Schema,
        context: Context,
        position: Position | None,
    ) -> None:
        self._parts, self._order, self._schema, self._context = parts, list(order), schema, context
        self._start: dict[str, Any] = (
            dict(position) if position is not None else {"part": 0, "base": 0, "end": 0, "at": None}
        )
        self._open: list[SourceReader] = []

    def blocks(self) -> Iterator[Block]:
        base, end, at, index = int(self._start["base"]), int(self._start["end"]), self._start["at"], 0
        for number in range(int(self._start["part"]), len(self._parts)):
            reader = self._parts[number].open(self._context, position=at)
            self._open.append(reader)
            at = None
            for block in reader.blocks():
                end = base + block.first_seq + block.records
                after = {"order": self._order, "part": number, "base": base, "end": end, "at": dict(block.after)}
                yield Block(index, base + block.first_seq, block.records, block.nbytes, after, (reader, block, base))
                index += 1
            base = end

    def decode(self, block: Block) -> Decoded:
        reader, inner, base = block.payload
        return _renumbered(reader.decode(inner), self._schema, base)

    def close(self) -> None:
        for reader in self._open:
            reader.close()


class _Part:
    """One source of a merge, decoded a block at a time. `keys` are the times by which its rows are merged."""

    def __init__(self, number: int, spec: SourceSpec, context: Context) -> None:
        self.number, self._latest = number, -_END
        self._reader = spec.open(context)
        self._blocks = self._reader.blocks()
        self.rows: pa.RecordBatch | None = None
        self.keys: Any = np.zeros(0, np.int64)
        self.records = 0
        self._waiting: list[pa.RecordBatch] = []
        self.bad: list[BadRecord] = []
        self.dropped: dict[str, int] = {}

    def advance(self) -> bool:
        """Take the next batch with rows; False at the end."""
        while not self._waiting:
            block = next(self._blocks, None)
            if block is None:
                self.rows = None
                return False
            decoded = self._reader.decode(block)
            self.records += block.records
            self.bad += decoded.bad
            for reason, count in decoded.dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + count
            self._waiting = [batch for batch in decoded.batches if batch.num_rows]
        self.rows = self._waiting.pop(0)
        times = np.maximum(np.maximum.accumulate(event_ns(self.rows, "ts_recv")), self._latest)
        self.keys, self._latest = times, int(times[-1])
        return True

    def take(self, until: int, last: int) -> pa.RecordBatch | None:
        """Rows that come before any that part number `last` may still give, whose key is `until` or more; the rest stays."""
        count = int(np.searchsorted(self.keys, until, "right" if self.number <= last else "left"))
        if self.rows is None or not count:
            return None
        taken = self.rows.slice(0, count)
        self.rows = self.rows.slice(count) if count < self.rows.num_rows else None
        self.keys = self.keys[count:]
        return taken

    def close(self) -> None:
        self._reader.close()


class MergedReader(SourceReader):
    """`parts` merged by ``ts_recv``; rows of equal time in the order of the parts. A position is a number of blocks: what
    came before is read again to go on, since parts do not stand at the borders of their own blocks."""

    def __init__(
        self,
        parts: Sequence[SourceSpec],
        order: Sequence[int],
        schema: pa.Schema,
        context: Context,
        position: Position | None,
    ) -> None:
        self._order, self._schema, self._context = list(order), schema, context
        self._specs = parts
        self._skip = int(position["blocks"]) if position is not None else 0
        self._open: list[_Part] = []

    def blocks(self) -> Iterator[Block]:
        seq = 0
        for index, (rows, bad, dropped) in enumerate(self._merged()):
            first, count = seq, sum(batch.num_rows for batch in rows) + len(bad)
            seq += count
            if index >= self._skip:
                after = {"order": self._order, "blocks": index + 1}
                size = sum(batch.nbytes for batch in rows) + sum(len(record.data) for record in bad)
                yield Block(index, first, count, max(1, size), after, (rows, bad, dropped))

    def _merged(self) -> Iterator[tuple[list[pa.RecordBatch], list[BadRecord], dict[str, int]]]:
        active: list[_Part] = []
        for number, spec in enumerate(self._specs):
            part = _Part(number, spec, self._context)
            self._open.append(part)
            if part.advance():
                active.append(part)
            elif part.bad or part.dropped:
                yield [], *_given(part)
        while active:
            bound = min((int(part.keys[-1]), part.number) for part in active)
            pieces: list[tuple[pa.RecordBatch, Any, int]] = []
            for part in active:
                keys = part.keys
                taken = part.take(*bound)
                if taken is not None:
                    pieces.append((taken, keys[: taken.num_rows], part.number))
            bad: list[BadRecord] = []
            dropped: dict[str, int] = {}
            for part in [part for part in active if part.rows is None]:
                if not part.advance():
                    active.remove(part)
                wrong, left = _given(part)
                bad += wrong
                for reason, count in left.items():
                    dropped[reason] = dropped.get(reason, 0) + count
            yield _in_order(pieces, self._schema, self._context.pool), bad, dropped

    def decode(self, block: Block) -> Decoded:
        rows, bad, dropped = block.payload
        batches, seq = [], block.first_seq
        for batch in rows:
            columns = list(batch.columns)
            columns[2] = pa.array(np.arange(seq, seq + batch.num_rows, dtype=np.uint64))
            seq += batch.num_rows
            batches.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        numbered = [replace(record, seq=seq + number) for number, record in enumerate(bad)]
        return Decoded(batches, numbered, dropped)

    def close(self) -> None:
        for part in self._open:
            part.close()


def _given(part: _Part) -> tuple[list[BadRecord], dict[str, int]]:
    bad, dropped = part.bad, part.dropped
    part.bad, part.dropped = [], {}
    return bad, dropped


def _in_order(
    pieces: Sequence[tuple[pa.RecordBatch, Any, int]], schema: pa.Schema, pool: BufferPool
) -> list[pa.RecordBatch]:
    """The rows of all pieces by (key, part)."""
    if len(pieces) < 2:
        return [rows for rows, _, _ in pieces]
    batches = [pa.RecordBatch.from_arrays(rows.columns, schema=schema) for rows, _, _ in pieces]
    keys = np.concatenate([keys for _, keys, _ in pieces])
    parts = np.repeat([number for _, _, number in pieces], [len(keys) for _, keys, _ in pieces])
    return interleave(schema, batches, np.lexsort((parts, keys)), pool)
