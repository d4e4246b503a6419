"""Rows divided by the values of some columns, into folders named after them: ``symbol=AAPL/venue=7``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

__all__ = ["can_name_a_folder", "partitions"]


def can_name_a_folder(kind: pa.DataType) -> bool:
    """Whether the values of a column of this type can be part of a path and read back from it."""
    types = pa.types
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    tests = (types.is_string, types.is_large_string, types.is_integer, types.is_boolean, types.is_date)
    return any(test(kind) for test in tests)


def partitions(group: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each partition with its folder, partitions in order of first appearance, rows in their own order."""
    table = pa.Table.from_batches([group])
    if not columns:
        yield "", table
        return
    codes = np.zeros(len(table), np.int64)
    for column in columns:
        encoded = group.column(column)
        if isinstance(encoded, pa.DictionaryArray):
            encoded = encoded.dictionary_decode()
        encoded = encoded.dictionary_encode(null_encoding="encode")
        _, codes = np.unique(codes * len(encoded.dictionary) + np.asarray(encoded.indices), return_inverse=True)
    _, firsts = np.unique(codes, return_index=True)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    ends = np.cumsum(sizes)
    rest = table.drop_columns(list(columns))
    for code in np.argsort(firsts):
        names = (
            f"{quote(column, safe='')}={_folder_name(group.column(column)[int(firsts[code])])}" for column in columns
        )
        yield "/".join(names), rest.take(pa.array(order[ends[code] - sizes[code] : ends[code]]))


def _folder_name(value: Any) -> str:
    plain = value.as_py()
    if plain is None:
        return "__HIVE_DEFAULT_PARTITION__"
    return quote(str(plain).lower() if isinstance(plain, bool) else str(plain), safe="")
