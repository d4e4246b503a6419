"""One keyed operator as several: rows are divided by key, results put together as if there had been one.

Every runner must write the same rows. So a divided operator is not a different operator: `Partitioned` says by which
columns rows may be divided, puts what the parts emit for one batch or one watermark into the order in which the undivided
operator would have emitted it, and takes state apart and together, so that a snapshot does not know how many parts made it.

    sent = divided.divide(batch, parts)                    # to part i goes sent[i], or nothing
    emitted = [...]                                        # what each part's `process` returned, () where nothing went
    rows = divided.merge(emitted, batch.column("seq"))     # of an `advance` or `finish`: divided.merge(emitted)

A row finds its place again by number: what a part is sent carries, as `seq`, the row's number in the batch that was
divided, and merging puts the true `seq` back. So an operator that computes with `seq` cannot be divided.

Each part is an operator of the same spec and may fill the spec's whole limit of state. What p parts hold together may
then be more than one operator may: restored on fewer parts, it can raise StateLimitError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ._interleave import interleave
from ._key_hash import key_hashes
from .columns import as_numpy
from .memory import BufferPool

__all__ = ["Partitioned", "RowByRow", "divide", "interleave", "partition_of", "rows_in_order"]

Ints = npt.NDArray[np.int64]

_MOST_PARTS = 1 << 16
#: Idle bytes that a merger keeps for its next output.
_IDLE = 32 << 20


def partition_of(columns: Sequence[pa.Array], parts: int) -> Ints:
    """Which of `parts` parts each row belongs to, int64 ``(rows,)``; rows with equal `columns` belong to the same one.

    It follows from the values alone: not from how they are encoded (plain, dictionary, width of integer or offset), nor
    from the process, the machine or the version. Null is a value. Among floats -0.0 equals 0.0, and all NaN are equal.
    Times count as the integer that they are in their unit, booleans as 0 and 1, text as its UTF-8.

    Raises TypeError for lists, structs, decimals and views.
    """
    if not columns:
        raise ValueError("rows without a key cannot be divided by key; name at least one column")
    if not 1 <= parts <= _MOST_PARTS:
        raise ValueError(f"{parts=} must be from 1 to {_MOST_PARTS}")
    if parts == 1:
        return np.zeros(len(columns[0]), np.int64)
    return (key_hashes(columns) % np.uint64(parts)).astype(np.int64)


def divide(batch: pa.RecordBatch, parts_of_rows: Ints, parts: int) -> list[pa.RecordBatch | None]:
    """The rows of each part, in their order; None for a part without rows. One copy, none if one part gets all rows."""
    counts = np.bincount(parts_of_rows, minlength=parts)
    if len(counts) != parts:
        raise ValueError(f"a row belongs to part {len(counts) - 1} of {parts}")
    if np.count_nonzero(counts) <= 1:
        return [batch if count else None for count in counts.tolist()]
    order = np.argsort(parts_of_rows.astype(np.uint16), kind="stable")  # 16 bits: a radix sort
    sorted_rows = batch.take(pa.array(order))
    starts = np.cumsum(counts) - counts
    return [
        sorted_rows.slice(start, count) if count else None
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True)
    ]


class Partitioned(ABC):
    """How one operator of one input is divided.

    Used by the thread that sends to the parts and takes from them in order. Parts get their rows and every watermark in
    the order in which they came. `merge` and `merge_side` are called once for each batch (in the order of the batches)
    and each watermark, with what every part emitted for it; `join` when the parts have stopped at the same place and
    everything up to there has been merged. Counters of dropped, noted and late rows add up; nobody merges them.
    """

    #: Columns of the input whose values decide which part a row goes to; every part gets every watermark.
    columns: tuple[str, ...]

    def divide(self, batch: pa.RecordBatch, parts: int) -> list[pa.RecordBatch | None]:
        """What each part is to be sent of `batch`, with row numbers as `seq`; None where it is nothing."""
        numbers = pa.array(np.arange(batch.num_rows, dtype=np.uint64))
        numbered = _with_seq(batch, numbers)
        return divide(numbered, partition_of([batch.column(name) for name in self.columns], parts), parts)

    @abstractmethod
    def merge(self, parts: Sequence[Sequence[pa.RecordBatch]], seq: pa.Array | None = None) -> Sequence[pa.RecordBatch]:
        """What the undivided operator would have emitted, from what each part emitted for the same batch or watermark.

        `seq` is that column of the batch before it was divided; None for a watermark and for `finish`. Rows, their order
        and their `seq` are those of the undivided operator; where batches are cut may differ.
        """

    @abstractmethod
    def merge_side(
        self, name: str, parts: Sequence[Sequence[pa.RecordBatch]], seq: pa.Array | None = None
    ) -> Sequence[pa.RecordBatch]:
        """The same for side output `name`."""

    @abstractmethod
    def split(self, state: Mapping[str, Any], parts: int) -> Sequence[Mapping[str, Any]]:
        """The state of each of `parts` parts from the undivided operator's; also sets what `merge` itself counts."""

    @abstractmethod
    def join(self, states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """The undivided operator's state from those of the parts and what `merge` has counted.

        It depends on what was processed, not on how many parts there were. Raises ValueError if the parts have not
        stopped at the same place.
        """


class RowByRow(Partitioned):
    """Of operators that emit at once, in the order of their input, rows with the `seq` of the row they are made of.

    Rows may be left out. There are no side outputs. `split` and `join` are the operator's.
    """

    def __init__(self, columns: Sequence[str], schema: pa.Schema) -> None:
        self.columns = tuple(columns)
        self._schema = schema
        self._pool = BufferPool(_IDLE)

    def merge(self, parts: Sequence[Sequence[pa.RecordBatch]], seq: pa.Array | None = None) -> Sequence[pa.RecordBatch]:
        return rows_in_order(self._schema, parts, seq, self._pool)

    def merge_side(
        self, name: str, parts: Sequence[Sequence[pa.RecordBatch]], seq: pa.Array | None = None
    ) -> Sequence[pa.RecordBatch]:
        raise ValueError(f"there is no side output {name!r}")


def rows_in_order(
    schema: pa.Schema, parts: Sequence[Sequence[pa.RecordBatch]], seq: pa.Array | None, pool: BufferPool
) -> list[pa.RecordBatch]:
    """Rows whose `seq` is their number in a divided batch, in its order and with their `seq` from before.

    `parts` ascend by number each. No row is copied if one part has them all.
    """
    emitted = [[batch for batch in part if batch.num_rows] for part in parts]
    batches = [batch for part in emitted for batch in part]
    if not batches:
        return []
    if seq is None:
        raise ValueError("rows came without a batch that they could be in the order of; pass the batch's seq")
    if sum(map(bool, emitted)) > 1:
        numbers = np.concatenate([_seq(batch) for batch in batches])
        batches = interleave(schema, batches, np.argsort(numbers, kind="stable"), pool)
    true = as_numpy(seq)
    return [_with_seq(batch, pa.array(true[_seq(batch).astype(np.int64)])) for batch in batches]


def _seq(batch: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    return as_numpy(batch.column("seq"))


def _with_seq(batch: pa.RecordBatch, numbers: pa.Array) -> pa.RecordBatch:
    place = batch.schema.get_field_index("seq")
    return batch.set_column(place, batch.schema.field(place), numbers)
