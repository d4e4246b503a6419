"""A digest of rows, not of memory.

Two runs wrote the same if their digests agree, however the rows were cut into batches, sliced, padded or encoded. So
each column is hashed as a stream of its own: what a value is made of goes in (bytes, lengths, positions of nulls
counted from the first row of all), what only Arrow sees does not (offsets, validity buffers of columns without nulls,
bytes under a null, which dictionary index stands for a value).

Floating-point values are taken bit by bit: ``-0.0`` is not ``0.0``, and a NaN equals one of the same bits.

A digest can be put down and taken up again by another process, at any row: see `_stream_hash`.
"""

from __future__ import annotations

import pyarrow as pa
import xxhash

from ._column_digest import column_digest
from .operator import State

__all__ = ["RowDigest"]

#: Small batches wait for company: looking at one column costs more than hashing a thousand values of it.
_TOGETHER, _TOGETHER_BYTES, _SMALL_BYTES = 16, 512 << 10, 128 << 10


class RowDigest:
    """The digest of rows of `schema` in order: XXH3, 128 bits.

    Column names, types, values and the number of rows count; metadata and nullability do not. Raises TypeError for a
    column whose type has no digest: unions, list views, and strings or bytes inside other types as views.
    """

    __slots__ = ("_columns", "_row_bytes", "_schema", "_waiting", "_waiting_bytes", "rows")

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._columns = []
        for field in schema:
            try:
                self._columns.append(column_digest(field.type))
            except TypeError as error:
                raise TypeError(f"column {field.name!r}: {error}") from None
        widths = [column.width for column in self._columns]
        self._row_bytes = None if None in widths else sum(width for width in widths if width is not None)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self.rows = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of `batch`, which must not be written to any more; a few small batches may be kept for a while.

        Raises ValueError if it has other columns than the schema given at first.
        """
        if not batch.schema.equals(self._schema):
            raise ValueError(f"a batch of {batch.schema.names} does not belong to a digest of {self._schema.names}")
        rows = batch.num_rows
        self.rows += rows
        if self._row_bytes is not None:
            size = rows * self._row_bytes
            if size < _SMALL_BYTES:
                self._waiting.append(batch)
                self._waiting_bytes += size
                if len(self._waiting) >= _TOGETHER or self._waiting_bytes >= _TOGETHER_BYTES:
                    self._flush()
                return
            self._flush()
        self._add(batch)

    def _flush(self) -> None:
        if self._waiting:
            self._add(pa.concat_batches(self._waiting) if len(self._waiting) > 1 else self._waiting[0])
            self._waiting.clear()
            self._waiting_bytes = 0

    def _add(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            for index, column in enumerate(self._columns):
                column.update(batch.column(index))

    def hexdigest(self) -> str:
        """32 hexadecimal digits for the rows so far; more rows may follow."""
        self._flush()
        total = xxhash.xxh3_128(self.rows.to_bytes(8, "little"))
        for field, column in zip(self._schema, self._columns, strict=True):
            for text in (field.name, str(field.type)):
                encoded = text.encode()
                total.update(len(encoded).to_bytes(8, "little") + encoded)
            total.update(column.digest())
        return total.hexdigest()

    def snapshot(self) -> State:
        """The digest so far, at most 64 KiB for each buffer of a column, so that `restore` goes on behind it."""
        self._flush()
        return {"rows": self.rows, "schema": self._described(), "columns": [c.snapshot() for c in self._columns]}

    def restore(self, state: State) -> None:
        """Go on behind a `snapshot`. Raises ValueError if it is of other columns, or damaged; then start a fresh one."""
        if state.get("schema") != self._described():
            raise ValueError(f"a digest of {self._described()} cannot go on behind one of {state.get('schema')}")
        rows, saved = state.get("rows"), state.get("columns")
        if not isinstance(rows, int) or not isinstance(saved, list) or len(saved) != len(self._columns):
            raise ValueError("the state of a digest has a number of rows and one state for each column")
        for field, column, part in zip(self._schema, self._columns, saved, strict=True):
            try:
                column.restore(part)
            except ValueError as error:
                raise ValueError(f"column {field.name!r}: {error}") from None
        self._waiting.clear()
        self._waiting_bytes = 0
        self.rows = rows

    def _described(self) -> list[list[str]]:
        return [[field.name, str(field.type)] for field in self._schema]
