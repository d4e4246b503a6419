"""Reader of several sources as one, merged by time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ..pipeline._interleave import interleave
from ..pipeline.columns import event_ns
from ..pipeline.context import BadRecord, Context
from ..pipeline.memory import BufferPool
from ..pipeline.source import Block, Decoded, Position, SourceReader, SourceSpec

__all__ = ["MergedReader"]

_END = (1 << 63) - 1


class _Part:
    """One source of a merge, decoded a block at a time. `keys` are the times by which its rows are merged."""

    def __init__(self, number: int, spec: SourceSpec, context: Context) -> None:
        self.number, self._latest, self.closed = number, -_END, False
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
                self.close()
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
        if not self.closed:
            self.closed = True
            self._reader.close()


class MergedReader(SourceReader):
    """`parts` merged by ``ts_recv``; rows of equal time in the order of the parts. A position is a number of blocks: what
    came before is read again to go on, since parts do not stand at the borders of their own blocks.

    `starts` are the times of the parts' first rows, ascending; a part is open from then until its last row.
    """

    def __init__(
        self,
        parts: Sequence[SourceSpec],
        order: Sequence[int],
        starts: Sequence[int],
        schema: pa.Schema,
        context: Context,
        position: Position | None,
    ) -> None:
        self._kept = {"order": list(order), "starts": list(starts)}
        self._schema, self._context = schema, context
        self._ahead = list(zip(starts, range(len(parts)), parts, strict=True))[::-1]
        self._skip = int(position["blocks"]) if position is not None else 0
        self._active: list[_Part] = []

    def blocks(self) -> Iterator[Block]:
        seq = 0
        for index, (rows, bad, dropped) in enumerate(self._merged()):
            first, count = seq, sum(batch.num_rows for batch in rows) + len(bad)
            seq += count
            if index >= self._skip:
                after = {**self._kept, "blocks": index + 1}
                size = sum(batch.nbytes for batch in rows) + sum(len(record.data) for record in bad)
                yield Block(index, first, count, max(1, size), after, (rows, bad, dropped))

    def _merged(self) -> Iterator[tuple[list[pa.RecordBatch], list[BadRecord], dict[str, int]]]:
        active = self._active
        while True:
            bound = min(((int(part.keys[-1]), part.number) for part in active), default=(_END, 0))
            if self._ahead and (not active or self._ahead[-1][0] <= bound[0]):
                _, number, spec = self._ahead.pop()
                part = _Part(number, spec, self._context)
                active.append(part)
                if not part.advance():
                    active.remove(part)
                    if part.bad or part.dropped:
                        yield [], *_given(part)
                continue
            if not active:
                return
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
        for part in self._active:
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
