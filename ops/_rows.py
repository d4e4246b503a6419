"""Rows that wait: held without a copy, found by position, and gathered into one block when they leave.

Operators that hold rows back (merge, sync, join, batch) keep references to the batches they got. What leaves is a slice
of such a batch where its rows are together, else one gather: fixed-width columns go straight into a leased
`ColumnBlock`, once, the others through Arrow. Dictionary columns are unified by value, for each source batch has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.columns import ColumnBlock, as_numpy, is_fixed_width
from ..pipeline.context import Context

__all__ = ["Gatherer", "Identity", "Ints", "Piece", "RowStore", "identity", "is_sorted", "rewrap"]

Ints = npt.NDArray[np.int64]
Identity = tuple[int, ...]
#: Values, how the indices of each dictionary change, and the dictionaries, kept so that their memory is not reused.
_Unified = tuple[pa.Array, list[npt.NDArray[Any] | None], list[pa.Array]]
_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `rows` of `batch` (None: all) and the rows of the result they become."""

    batch: pa.RecordBatch
    rows: Ints | None
    into: slice | Ints

    def __len__(self) -> int:
        return self.batch.num_rows if self.rows is None else len(self.rows)


def is_sorted(times: Ints) -> bool:
    """Whether no element is less than the one before it."""
    return len(times) < 2 or bool((times[1:] >= times[:-1]).all())


def rewrap(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """`batch` under `schema` (same types), without a copy; the same object where it has that schema already."""
    if batch.schema.equals(schema, check_metadata=True):
        return batch
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema)


class Gatherer:
    """Gathers rows for one step; remembers how the dictionaries it met last were unified."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._unified: dict[Identity, _Unified] = {}

    def select(self, batch: pa.RecordBatch, rows: Ints) -> pa.RecordBatch:
        """Ascending `rows` of `batch`: a slice (or the batch itself) where they are consecutive, else one copy."""
        if len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
            return batch if len(rows) == batch.num_rows else batch.slice(int(rows[0]), len(rows))
        return self.gather(batch.schema, [Piece(batch, rows, slice(0, len(rows)))], len(rows))

    def gather(
        self,
        schema: pa.Schema,
        pieces: Sequence[Piece],
        total: int,
        *,
        missing: npt.NDArray[np.bool_] | None = None,
    ) -> pa.RecordBatch:
        """One batch of `total` rows from `pieces`, copied once and counted; rows that are `missing` are null.

        `pieces` and `missing` must cover every row of the result exactly once.
        """
        pieces = [piece for piece in pieces if len(piece)]
        direct = [
            index
            for index, field in enumerate(schema)
            if is_fixed_width(field.type) and not any(piece.batch.column(index).null_count for piece in pieces)
        ]
        fixed = pa.schema([schema.field(index) for index in direct])
        block = ColumnBlock(self._context.pool, fixed, total)
        dictionaries: dict[str, pa.Array] = {}
        for index in direct:
            field = schema.field(index)
            arrays = [piece.batch.column(index) for piece in pieces]
            maps: Sequence[npt.NDArray[Any] | None] = [None] * len(pieces)
            if pa.types.is_dictionary(field.type):
                dictionaries[field.name], maps = self._unify([array.dictionary for array in arrays], field.type)
            _fill(block[field.name], pieces, [as_numpy(array) for array in arrays], maps, missing)
        valid = None if missing is None else {field.name: ~missing for field in fixed}
        made = block.batch(total, dictionaries=dictionaries, valid=valid)
        columns = dict(zip(direct, made.columns, strict=True))
        self._context.copied(sum(view.nbytes for view in block.arrays.values()))
        for index, field in enumerate(schema):
            if index not in columns:
                columns[index] = _concatenate(field.type, index, pieces, total, missing)
                self._context.copied(columns[index].nbytes)
        return pa.RecordBatch.from_arrays([columns[index] for index in range(len(schema))], schema=schema)

    def _unify(
        self, dictionaries: Sequence[pa.Array], kind: pa.DictionaryType
    ) -> tuple[pa.Array, list[npt.NDArray[Any] | None]]:
        """One dictionary with the values of all, and for each what its indices become (None: unchanged)."""
        names = [identity(dictionary) for dictionary in dictionaries]
        distinct = dict(zip(names, dictionaries, strict=True))
        if len(distinct) <= 1:
            return dictionaries[0] if dictionaries else pa.array([], kind.value_type), [None] * len(dictionaries)
        key = (kind.index_type.bit_width, *distinct)
        if key not in self._unified:
            while len(self._unified) >= _REMEMBERED:
                del self._unified[next(iter(self._unified))]
            self._unified[key] = _unified(list(distinct.values()), kind)
        values, maps, _ = self._unified[key]
        order = {name: number for number, name in enumerate(distinct)}
        return values, [maps[order[name]] for name in names]


def _fill(
    target: npt.NDArray[Any],
    pieces: Sequence[Piece],
    views: Sequence[npt.NDArray[Any]],
    maps: Sequence[npt.NDArray[Any] | None],
    missing: npt.NDArray[np.bool_] | None,
) -> None:
    for piece, view, mapping in zip(pieces, views, maps, strict=True):
        if mapping is not None:
            target[piece.into] = mapping[view if piece.rows is None else view[piece.rows]]
        elif piece.rows is None:
            target[piece.into] = view
        elif isinstance(piece.into, slice):
            np.take(view, piece.rows, axis=0, out=target[piece.into], mode="clip")
        else:
            target[piece.into] = view[piece.rows]
    if missing is not None:
        target[missing] = 0


def _unified(dictionaries: list[pa.Array], kind: pa.DictionaryType) -> _Unified:
    values = pa.concat_arrays(dictionaries).unique()
    limit = 1 << (kind.index_type.bit_width - (0 if pa.types.is_unsigned_integer(kind.index_type) else 1))
    if len(values) > limit:
        raise ValueError(
            f"{len(values)} different values do not fit a column of {kind}; give the source a wider index type"
        )
    maps: list[npt.NDArray[Any] | None] = []
    for dictionary in dictionaries:
        mapping = pc.index_in(dictionary, values).to_numpy(zero_copy_only=False)
        unchanged = bool((mapping == np.arange(len(mapping))).all())
        maps.append(None if unchanged else mapping.astype(kind.index_type.to_pandas_dtype()))
    return values, maps, dictionaries


def identity(array: pa.Array) -> Identity:
    """Names the memory of `array`: equal only for the same values, for as long as one of the two is kept."""
    return (len(array), array.offset, *(0 if buffer is None else buffer.address for buffer in array.buffers()))


def _concatenate(
    kind: pa.DataType, index: int, pieces: Sequence[Piece], total: int, missing: npt.NDArray[np.bool_] | None
) -> pa.Array:
    parts, places = [], []
    for piece in pieces:
        column = piece.batch.column(index)
        parts.append(column if piece.rows is None else column.take(pa.array(piece.rows)))
        into = piece.into
        places.append(np.arange(into.start, into.stop) if isinstance(into, slice) else into)
    if missing is not None:
        gaps = np.flatnonzero(missing)
        parts.append(pa.nulls(len(gaps), kind))
        places.append(gaps)
    joined = pa.concat_arrays(parts) if parts else pa.array([], kind)
    order = np.concatenate(places) if places else np.empty(0, np.int64)
    if is_sorted(order):
        return joined
    back = np.empty(total, np.int64)
    back[order] = np.arange(total)
    return joined.take(pa.array(back))


class RowStore:
    """Rows by the position at which they came, held in their batches until every row of a batch is released."""

    def __init__(self, gatherer: Gatherer, schema: pa.Schema) -> None:
        self._gatherer, self._schema = gatherer, schema
        self._starts: list[int] = []
        self._batches: list[pa.RecordBatch] = []
        self._live: list[int] = []
        self._bytes: list[int] = []
        self._next = 0
        self.nbytes = 0

    @property
    def rows_held(self) -> int:
        """Rows in memory, released ones in batches that are still needed included."""
        return sum(batch.num_rows for batch in self._batches)

    def append(self, batch: pa.RecordBatch) -> Ints:
        """Hold `batch`; return the positions of its rows."""
        start = self._next
        self._next += batch.num_rows
        if batch.num_rows:
            self._starts.append(start)
            self._batches.append(batch)
            self._live.append(batch.num_rows)
            self._bytes.append(batch.nbytes)
            self.nbytes += self._bytes[-1]
        return np.arange(start, self._next, dtype=np.int64)

    def release(self, positions: Ints) -> None:
        """These rows (each once) will not be asked for again."""
        if not len(positions):
            return
        counts = np.bincount(self._segment(positions), minlength=len(self._live))
        self._live = [live - int(gone) for live, gone in zip(self._live, counts, strict=True)]
        if 0 in self._live:
            keep = [number for number, live in enumerate(self._live) if live]
            self._starts = [self._starts[number] for number in keep]
            self._batches = [self._batches[number] for number in keep]
            self._bytes = [self._bytes[number] for number in keep]
            self._live = [self._live[number] for number in keep]
            self.nbytes = sum(self._bytes)

    def take(self, positions: Ints) -> pa.RecordBatch:
        """The rows at `positions` as one batch, in that order; a row at -1 is null. A slice where that will do."""
        total = len(positions)
        missing = positions < 0
        if not total or missing.all():
            return self._gatherer.gather(self._schema, [], total, missing=missing if total else None)
        gaps = bool(missing.any())
        wanted = np.flatnonzero(~missing) if gaps else np.arange(total)
        found = positions[wanted] if gaps else positions
        segments = self._segment(found)
        one = int(segments[0])
        if not gaps and (segments == one).all():
            local = found - self._starts[one]
            if (local[1:] - local[:-1] == 1).all():
                return rewrap(self._batches[one].slice(int(local[0]), total), self._schema)
        pieces = []
        for number in np.unique(segments):
            mine = np.flatnonzero(segments == number)
            into = wanted[mine]
            together = int(into[-1]) - int(into[0]) + 1 == len(into)
            place = slice(int(into[0]), int(into[-1]) + 1) if together else into
            pieces.append(Piece(self._batches[number], found[mine] - self._starts[number], place))
        return self._gatherer.gather(self._schema, pieces, total, missing=missing if gaps else None)

    def _segment(self, positions: Ints) -> npt.NDArray[np.intp]:
        return np.searchsorted(np.asarray(self._starts, np.int64), positions, "right") - 1
