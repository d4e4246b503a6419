"""Reader of several sources as one, one behind the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from ..pipeline.columns import as_numpy
from ..pipeline.context import Context
from ..pipeline.source import Block, Decoded, Position, SourceReader, SourceSpec

__all__ = ["SequentialReader"]


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
        self._open: set[_Part] = set()

    def blocks(self) -> Iterator[Block]:
        base, end, at, index = int(self._start["base"]), int(self._start["end"]), self._start["at"], 0
        for number in range(int(self._start["part"]), len(self._parts)):
            part = _Part(self._parts[number].open(self._context, position=at))
            self._open = {each for each in self._open if not each.closed} | {part}
            at = None
            for block in part.blocks():
                end = base + block.first_seq + block.records
                after = {"order": self._order, "part": number, "base": base, "end": end, "at": dict(block.after)}
                yield Block(index, base + block.first_seq, block.records, block.nbytes, after, (part, block, base))
                index += 1
            base = end

    def decode(self, block: Block) -> Decoded:
        part, inner, base = block.payload
        return _renumbered(part.decode(inner), self._schema, base)

    def close(self) -> None:
        for part in self._open:
            part.close()


class _Part:
    """A reader that is closed when it has ended and the last of its blocks is decoded: sets may have more files than a
    process may open."""

    def __init__(self, reader: SourceReader) -> None:
        self._reader, self._lock = reader, Lock()
        self._waiting = 1  # blocks that are not decoded, and one for those to come
        self.closed = False

    def blocks(self) -> Iterator[Block]:
        for block in self._reader.blocks():
            with self._lock:
                self._waiting += 1
            yield block
        self._settle()

    def decode(self, block: Block) -> Decoded:
        decoded = self._reader.decode(block)
        self._settle()
        return decoded

    def _settle(self) -> None:
        with self._lock:
            self._waiting -= 1
            last = not self._waiting
        if last:
            self.close()

    def close(self) -> None:
        with self._lock:
            closed, self.closed = self.closed, True
        if not closed:
            self._reader.close()


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
