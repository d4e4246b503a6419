"""Columns as the Python values that JSON has: whole columns at a time, because a value at a time is slow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.columns import as_numpy, is_fixed_width

__all__ = ["has_json_form", "json_values"]


def has_json_form(kind: pa.DataType) -> bool:
    """Whether `json_values` takes columns of `kind`."""
    if isinstance(kind, pa.BaseExtensionType):
        return has_json_form(kind.storage_type)
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return has_json_form(kind.value_type)
    if isinstance(kind, pa.UnionType | pa.ListViewType | pa.LargeListViewType) or pa.types.is_interval(kind):
        return False
    return all(has_json_form(kind.field(index).type) for index in range(kind.num_fields))


def json_values(array: Any) -> list[Any]:
    """`array` as strings, numbers, booleans, None, lists and dicts; bytes stay bytes for the encoder to write as base64.

    See `sinks.JsonLines` for what becomes what.
    """
    kind, types = array.type, pa.types
    if isinstance(kind, pa.FixedShapeTensorType):
        return _tensors(array)
    if isinstance(kind, pa.BaseExtensionType):
        return json_values(array.storage)
    if isinstance(kind, pa.DictionaryType):
        values = json_values(array.dictionary)
        return [None if index is None else values[index] for index in array.indices.to_pylist()]
    if isinstance(kind, pa.RunEndEncodedType):
        return json_values(pc.run_end_decode(array))
    if types.is_timestamp(kind):
        return _instants(array)
    if types.is_duration(kind):
        return list(array.cast(pa.int64()).to_pylist())
    if types.is_date(kind) or types.is_time(kind) or types.is_decimal(kind):
        return list(array.cast(pa.string()).to_pylist())
    if types.is_floating(kind):
        return [None if value is None or not math.isfinite(value) else value for value in array.to_pylist()]
    if not types.is_nested(kind):
        return list(array.to_pylist())
    if isinstance(kind, pa.StructType):
        names = [kind.field(index).name for index in range(kind.num_fields)]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*map(json_values, array.flatten()), strict=True)]
        rows = rows if names else [{} for _ in range(len(array))]
        return _with_nulls(rows, array)
    return _lists(array)


def _with_nulls(rows: list[Any], array: Any) -> list[Any]:
    if not array.null_count:
        return rows
    return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]


def _instants(array: Any) -> list[Any]:
    unit, zone = array.type.unit, array.type.tz
    plain = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).view(f"datetime64[{unit}]")
    texts = np.datetime_as_string(plain, unit=unit).tolist()
    if zone is not None:  # Arrow keeps the instant in UTC whatever the zone
        texts = [text + "Z" for text in texts]
    return _with_nulls(texts, array)


def _tensors(array: Any) -> list[Any]:
    kind = array.type
    if not array.null_count and is_fixed_width(kind) and pa.types.is_integer(kind.value_type):
        return list(as_numpy(array).tolist())
    nested = json_values(array.storage)
    return [None if flat is None else _shaped(flat, list(kind.shape)) for flat in nested]


def _shaped(flat: list[Any], shape: list[int]) -> list[Any]:
    for extent in reversed(shape[1:]):
        flat = [flat[start : start + extent] for start in range(0, len(flat), extent)]
    return flat


def _lists(array: Any) -> list[Any]:
    kind, rows = array.type, len(array)
    if isinstance(kind, pa.FixedSizeListType):
        size = kind.list_size
        starts = [(array.offset + row) * size for row in range(rows + 1)]
    else:
        starts = array.offsets.to_pylist() if rows else [0]
    first = starts[0]
    items: list[Any]
    child = array.values.slice(first, starts[-1] - first)
    if isinstance(kind, pa.MapType):
        items = list(zip(json_values(child.field(0)), json_values(child.field(1)), strict=True))
    else:
        items = json_values(child)
    lists: list[Any] = [items[starts[row] - first : starts[row + 1] - first] for row in range(rows)]
    if isinstance(kind, pa.MapType):
        if pa.types.is_string(kind.key_type) or pa.types.is_large_string(kind.key_type):
            lists = [dict(pairs) for pairs in lists]
        else:
            lists = [[{"key": key, "value": value} for key, value in pairs] for pairs in lists]
    return _with_nulls(lists, array)
