"""Rows cut into groups that do not depend on how they arrived.

A group ends with the row that makes it `rows` long or `nbytes` large, whichever comes first. Sizes are those of the
values, not of the memory they happen to lie in, so the same rows are always cut in the same places.
Without a limit of bytes only rows are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ._canonical import canonical, value_bounds

__all__ = ["RowGroups", "row_sizes"]


class RowGroups:
    """Collects batches of `schema` and gives back full groups, each as one batch in canonical layout."""

    def __init__(self, schema: pa.Schema, rows: int, nbytes: int | None = None) -> None:
        self._schema, self._rows, self._nbytes = schema, rows, nbytes
        self._pieces: list[pa.RecordBatch] = []
        self._held_rows = 0
        self._held_bytes = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Take `batch`; yield the groups that are full now."""
        ends: npt.NDArray[np.int64] | None = None
        start, rows = 0, batch.num_rows
        sizes = row_sizes(batch) if self._nbytes is not None else 0
        if not isinstance(sizes, int):
            ends = np.cumsum(sizes)
        while start < rows:
            before = 0 if ends is None or start == 0 else int(ends[start - 1])
            wanted = (self._nbytes or 0) - self._held_bytes
            if isinstance(sizes, int):
                by_size = -(-wanted // sizes) if sizes else rows
            else:
                by_size = int(np.searchsorted(np.asarray(ends), before + wanted)) + 1 - start
            take = min(rows - start, self._rows - self._held_rows, max(1, by_size))
            self._pieces.append(batch.slice(start, take))
            self._held_rows += take
            self._held_bytes += (
                take * sizes if isinstance(sizes, int) else int(np.asarray(ends)[start + take - 1]) - before
            )
            start += take
            full = self._nbytes is not None and self._held_bytes >= self._nbytes
            if full or self._held_rows >= self._rows:
                yield self._cut()

    def flush(self) -> pa.RecordBatch | None:
        """What is left, if anything."""
        return self._cut() if self._held_rows else None

    def held(self) -> pa.RecordBatch:
        """What is left, which stays: rows to put in front when another goes on here."""
        return canonical(self._pieces, self._schema)

    def _cut(self) -> pa.RecordBatch:
        group = canonical(self._pieces, self._schema)
        self._pieces, self._held_rows, self._held_bytes = [], 0, 0
        return group


def row_sizes(batch: pa.RecordBatch) -> int | npt.NDArray[np.int64]:
    """Bytes of the values of each row; one number if it is the same for all."""
    total: int | npt.NDArray[np.int64] = 0
    for column in batch.columns:
        total = total + _sizes(column)
    return total


def _sizes(array: Any) -> int | npt.NDArray[np.int64]:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sizes(array.storage)
    if isinstance(kind, pa.DictionaryType):
        return int(kind.index_type.bit_width) // 8
    if pa.types.is_null(kind):
        return 0
    if isinstance(kind, pa.StructType):
        total: int | npt.NDArray[np.int64] = 0
        for child in array.flatten():
            total = total + _sizes(child)
        return total
    if pa.types.is_nested(kind):
        return _list_sizes(array)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return _lengths(array)


def _lengths(array: Any) -> npt.NDArray[np.int64]:
    lengths = np.diff(value_bounds(array)).astype(np.int64)
    return np.where(np.asarray(array.is_valid()), lengths, 0) if array.null_count else lengths


def _list_sizes(array: Any) -> int | npt.NDArray[np.int64]:
    present = array.drop_null() if array.null_count else array
    if isinstance(array.type, pa.FixedSizeListType):
        size = array.type.list_size
        sizes = _sizes(present.values.slice(present.offset * size, len(present) * size))
        if isinstance(sizes, int):
            return int(size) * sizes
        lengths = np.where(np.asarray(array.is_valid()), size, 0)
    else:
        bounds = value_bounds(present)
        sizes = _sizes(present.values.slice(int(bounds[0]), int(bounds[-1] - bounds[0])))
        lengths = _lengths(array)
        if isinstance(sizes, int):
            return lengths * sizes
    ends = np.concatenate([[0], np.cumsum(sizes)])
    stops = np.cumsum(lengths)
    result: npt.NDArray[np.int64] = ends[stops] - ends[stops - lengths]
    return result
