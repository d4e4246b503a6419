"""Numbers for the keys of a join that mean the same on both sides, whatever types the sides write them in.

A key is found through its Python value, once for each distinct value of a batch, so a dictionary of text meets plain text
and an int8 meets a uint32. The tables are bounded by what the join keeps: it builds them anew when it compacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..pipeline.errors import GraphError
from ._rows import Identity, Ints, identity

__all__ = ["KeyCodes", "key_kind"]


class KeyCodes:
    """Dense numbers for key values, one table a column and one for each further pair."""

    def __init__(self, by: Sequence[str]) -> None:
        self._by = by
        self._values: list[dict[Any, int]] = [{} for _ in by]
        self._pairs: list[dict[int, int]] = [{} for _ in by[1:]]
        self._last: list[dict[bool, tuple[Identity, int, pa.Array, Ints]]] = [{} for _ in by]
        self.count = 0 if by else 1

    def codes(self, batch: pa.RecordBatch, *, learn: bool) -> Ints:
        """The number of each row's key; -1 for a null, and for a key not seen before unless `learn`."""
        if not self._by:
            return np.zeros(batch.num_rows, np.int64)
        code = self._column(batch, 0, learn)
        for place, pairs in enumerate(self._pairs, 1):
            other = self._column(batch, place, learn)
            joint = np.where((code >= 0) & (other >= 0), code << 32 | other, -1)
            distinct, inverse = np.unique(joint, return_inverse=True)
            code = _numbers(distinct.tolist(), pairs, learn, nothing=-1)[inverse]
        if learn:
            self.count = len(self._pairs[-1] if self._pairs else self._values[0])
        return code

    def _column(self, batch: pa.RecordBatch, place: int, learn: bool) -> Ints:
        column, values = batch.column(self._by[place]), self._values[place]
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        name = identity(encoded.dictionary)
        last = self._last[place].get(learn)
        if last is not None and last[:2] == (name, len(values)):
            numbers = last[3]
        else:
            numbers = np.append(_numbers(encoded.dictionary.to_pylist(), values, learn, nothing=None), -1)
            self._last[place][learn] = (name, len(values), encoded.dictionary, numbers)
        indices = encoded.indices
        if indices.null_count:
            indices = indices.cast(pa.int64()).fill_null(-1)
        codes: Ints = numbers[indices.to_numpy(zero_copy_only=False)]
        return codes


def _numbers(found: Sequence[Any], known: dict[Any, int], learn: bool, *, nothing: Any) -> Ints:
    if learn:
        numbers = [-1 if value == nothing else known.setdefault(value, len(known)) for value in found]
    else:
        numbers = [known.get(value, -1) for value in found]
    return np.asarray(numbers, np.int64)


def key_kind(name: str, kind: pa.DataType) -> str:
    """``text``, ``bytes``, ``integer`` or ``boolean``: keys match within a kind. GraphError for any other type."""
    value: Any = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        return "text"
    if pa.types.is_binary(value) or pa.types.is_large_binary(value) or pa.types.is_fixed_size_binary(value):
        return "bytes"
    if pa.types.is_integer(value):
        return "integer"
    if pa.types.is_boolean(value):
        return "boolean"
    raise GraphError(f"column {name!r} cannot be a key", expected="text, bytes, integer or boolean", got=kind)
