"""Rows that are already in memory, as a source: for notebooks, tests and tables from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import pyarrow as pa

from ..pipeline.columns import is_fixed_width
from ..pipeline.context import Context
from ..pipeline.duration import Duration, nanoseconds
from ..pipeline.errors import FormatError
from ..pipeline.schema import check_event_schema, row_bytes
from ..pipeline.source import Block, Decoded, Position, SourceReader, SourceSpec, Split

__all__ = ["Rows"]


@dataclass(frozen=True)
class Rows(SourceSpec):
    """The rows of a table or of batches, in order, as batches of at most `rows_per_batch`.

    The schema must start with ts_event, ts_recv and seq; nothing is renumbered. Raises FormatError if it does not.
    """

    format: ClassVar[str] = "memory"

    data: pa.Table | pa.RecordBatch | tuple[pa.RecordBatch, ...]
    rows_per_batch: int = 65_536
    lateness: Duration = 0
    label: str = "rows"

    def __post_init__(self) -> None:
        if not isinstance(self.data, (pa.Table, pa.RecordBatch)):
            object.__setattr__(self, "data", tuple(self.data))
            if not self.data:
                raise FormatError("no batches: give at least one, it may be empty, so that there is a schema")
        if self.rows_per_batch < 1:
            raise ValueError(f"rows_per_batch must be at least 1, got {self.rows_per_batch}")
        nanoseconds(self.lateness)
        if problem := check_event_schema(self.schema):
            raise FormatError(f"rows need the event columns first: {problem}")

    @property
    def lateness_ns(self) -> int:
        """`lateness` in ns."""
        return nanoseconds(self.lateness)

    @property
    def schema(self) -> pa.Schema:
        return self.data[0].schema if isinstance(self.data, tuple) else self.data.schema

    @property
    def name(self) -> str:
        return self.label

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        fixed = all(is_fixed_width(f.type) for f in self.schema)
        per_row = row_bytes(self.schema) if fixed else None
        detail = split.detail if split is not None else {}
        start = int((position if position is not None else detail).get("row", 0))
        return _RowsReader(self._batches(), self.rows_per_batch, start, detail.get("stop"), per_row)

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` ranges of about as many rows."""
        rows = sum(batch.num_rows for batch in self._batches())
        bounds = sorted({rows * i // max(1, wanted) for i in range(wanted + 1)}) or [0]
        if len(bounds) < 3:
            return super().splits(wanted)
        pairs = list(pairwise(bounds))
        return tuple(Split(i, len(pairs), {"row": low, "stop": high}) for i, (low, high) in enumerate(pairs))

    @property
    def splits_wanted(self) -> int:
        """Splits of about 64k rows; of a small table up to sixteen, but none of less than a batch."""
        rows = sum(int(batch.num_rows) for batch in self._batches())
        return max(-(-rows // 65_536), min(16, -(-rows // self.rows_per_batch)))

    def _batches(self) -> Sequence[pa.RecordBatch]:
        if isinstance(self.data, pa.Table):
            return list(self.data.to_batches())
        return (self.data,) if isinstance(self.data, pa.RecordBatch) else self.data

    @property
    def block_bound(self) -> int:
        largest = max((batch.nbytes / max(1, batch.num_rows) for batch in self._batches()), default=0.0)
        return int(largest * self.rows_per_batch) + 1


class _RowsReader(SourceReader):
    def __init__(
        self, batches: Iterable[pa.RecordBatch], size: int, start: int, stop: int | None, per_row: int | None
    ) -> None:
        self._batches, self._size, self._start, self._stop, self._per_row = batches, size, start, stop, per_row

    def blocks(self) -> Iterator[Block]:
        row, index = 0, 0
        for batch in self._batches:
            passed = min(batch.num_rows, max(0, self._start - row)) // self._size * self._size
            row += passed
            for low in range(passed, batch.num_rows, self._size):
                if self._stop is not None and row >= self._stop:
                    return
                piece = batch.slice(low, self._size)
                row += piece.num_rows
                if row <= self._start:
                    continue
                piece = piece.slice(max(0, piece.num_rows - (row - self._start)))
                first = row - piece.num_rows
                if self._stop is not None and row > self._stop:
                    piece = piece.slice(0, max(0, self._stop - first))
                    if not piece.num_rows:
                        return
                nbytes = piece.nbytes if self._per_row is None else self._per_row * piece.num_rows
                yield Block(index, first, piece.num_rows, nbytes, {"row": first + piece.num_rows}, piece)
                index += 1

    def decode(self, block: Block) -> Decoded:
        return Decoded((block.payload,))
