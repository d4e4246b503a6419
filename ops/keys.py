"""Keys by value: one or several columns of any comparable type become dense numbers.

State that is kept per key (windows, books, caches) lives in plain arrays; `KeyIndex` says which row of them a key has.
Two dictionary columns with different dictionaries, or a key that comes back in the next batch, give the same number,
because numbers belong to values. They are handed out in order of first appearance, so they depend on the rows alone.
A dictionary's entries are looked up once per dictionary, not once per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.errors import GraphError
from ._key_columns import Column, IntMap, is_bytes, is_integral

__all__ = ["KeyIndex", "check_key_type"]

Ints = npt.NDArray[np.int64]


def check_key_type(name: str, kind: pa.DataType) -> None:
    """Raise GraphError if rows cannot be grouped by a column of `kind` (floats, lists, structs)."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (is_integral(value) or is_bytes(value)):
        raise GraphError(
            f"column {name!r} cannot be a key",
            expected="integers, booleans, times, strings, binary or a dictionary of them",
            got=str(kind),
        )


class KeyIndex:
    """Dense numbers for the distinct values of one or several columns.

    `kinds` are the types of the columns. Null is a value like any other. Not thread-safe.
    """

    __slots__ = ("_columns", "_pairs", "kinds")

    def __init__(self, kinds: Sequence[pa.DataType]) -> None:
        if not kinds:
            raise ValueError("a key index needs at least one column type")
        for position, kind in enumerate(kinds):
            check_key_type(str(position), kind)
        self.kinds = tuple(kinds)
        self._clear()

    def _clear(self) -> None:
        self._columns = [Column(kind) for kind in self.kinds]
        self._pairs = [IntMap() for _ in self.kinds[1:]]

    def __len__(self) -> int:
        """How many distinct keys were seen."""
        return self._pairs[-1].count if self._pairs else self._columns[0].values.count

    @property
    def nbytes(self) -> int:
        """Bytes held, estimated for strings."""
        return sum(c.values.nbytes for c in self._columns) + sum(p.nbytes for p in self._pairs)

    def ids(self, columns: Sequence[pa.Array]) -> Ints:
        """The number of each row's key, int64 ``(rows,)``; new keys get the next free numbers in row order."""
        return self._combine([column.encode(array) for column, array in zip(self._columns, columns, strict=True)])

    def arrays(self, ids: Ints) -> list[pa.Array]:
        """The key columns of `ids`, of the types given at the start.

        Raises RunError if a dictionary's index type is too narrow for the values that one call returns.
        """
        codes = self._codes(ids)
        return [column.decode(code) for column, code in zip(self._columns, codes, strict=True)]

    def order(self, ids: Ints) -> list[Ints]:
        """A rank by value for each column of `ids`, nulls last: sort keys for ``numpy.lexsort``, first column first.

        Ranks can be compared within one call only. Text and binary compare by their bytes.
        """
        codes = self._codes(ids)
        return [column.values.rank(code) for column, code in zip(self._columns, codes, strict=True)]

    def retain(self, ids: Ints) -> Ints:
        """Forget all keys but `ids`; returns new numbers by old number, -1 for what is gone."""
        kept = np.unique(ids)
        renumbered = np.full(len(self), -1, np.int64)
        plain = self._plain(kept)
        self._clear()
        renumbered[kept] = self._number(plain)
        return renumbered

    def snapshot(self) -> dict[str, Any]:
        """The keys in order of their numbers."""
        arrays = self._plain(np.arange(len(self), dtype=np.int64))
        return {"keys": pa.RecordBatch.from_arrays(arrays, names=[str(i) for i in range(len(arrays))])}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back a `snapshot`; every key gets the number it had."""
        self._clear()
        self._number(state["keys"].columns)

    def _plain(self, ids: Ints) -> list[pa.Array]:
        return [c.values.decode(code) for c, code in zip(self._columns, self._codes(ids), strict=True)]

    def _number(self, plain: Sequence[pa.Array]) -> Ints:
        return self._combine([c.values.encode(array) for c, array in zip(self._columns, plain, strict=True)])

    def _combine(self, codes: list[Ints]) -> Ints:
        ids = codes[0]
        for pair, code in zip(self._pairs, codes[1:], strict=True):
            ids = pair.ids((ids << 32) | code)
        return ids

    def _codes(self, ids: Ints) -> list[Ints]:
        codes = []
        for pair in reversed(self._pairs):
            both = pair.keys[ids]
            codes.append(both & 0xFFFFFFFF)
            ids = both >> 32
        return [ids, *reversed(codes)]
