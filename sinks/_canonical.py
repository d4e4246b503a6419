"""One memory layout for the same rows, so that the same rows give the same file.

A column arrives in pieces that reflect how it was decoded: offsets into larger arrays, bytes under nulls that nobody set,
dictionaries numbered by whoever saw a value first. `canonical` joins the pieces and removes all of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.errors import GraphError, RunError

__all__ = ["canonical", "check_columns", "value_bounds"]


def check_columns(schema: pa.Schema, name: str) -> None:
    """Raise GraphError if the sink `name` cannot bring a column of `schema` into one layout."""
    seen: set[str] = set()
    for field in schema:
        if field.name in seen:
            raise GraphError(f"{name}: two columns are named {field.name!r}; rename one before writing")
        seen.add(field.name)
        if (reason := _unsupported(field.type, 0)) is not None:
            raise GraphError(f"{name}: column {field.name!r} is {field.type}; {reason}")


def _unsupported(kind: pa.DataType, depth: int) -> str | None:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _unsupported(kind.storage_type, depth)
    if isinstance(kind, pa.DictionaryType):
        if depth:
            return "cast the dictionary inside it to its values"
        if kind.ordered:
            return "cast the ordered dictionary to its values"
        return _unsupported(kind.value_type, 1)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return "cast the view to large_string or large_binary"
    if isinstance(kind, pa.UnionType | pa.ListViewType | pa.LargeListViewType | pa.RunEndEncodedType):
        return "such a type cannot be written; use lists, or columns of one plain type each"
    for index in range(kind.num_fields):
        if (reason := _unsupported(kind.field(index).type, depth + 1)) is not None:
            return reason
    return None


def canonical(pieces: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """The rows of `pieces`, which have the columns of `schema`, as one batch whose bytes depend on the rows alone.

    Dictionaries hold the values that occur, in order of first appearance. Raises RunError if there are more of them
    than the index type can number.
    """
    columns = []
    for index, field in enumerate(schema):
        chunks = [piece.column(index) for piece in pieces]
        if isinstance(field.type, pa.DictionaryType):
            columns.append(_dictionary(chunks, field.type, field.name))
        elif isinstance(field.type, pa.BaseExtensionType):
            storage = _clean(_joined([chunk.storage for chunk in chunks], field.type.storage_type))
            columns.append(pa.ExtensionArray.from_storage(field.type, storage))
        else:
            columns.append(_clean(_joined(chunks, field.type)))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _joined(chunks: list[Any], kind: pa.DataType) -> Any:
    if len(chunks) == 1:
        return chunks[0]
    return pa.concat_arrays(chunks) if chunks else pa.array([], kind)


def _dictionary(chunks: list[Any], kind: pa.DictionaryType, name: str) -> pa.Array:
    try:
        joined = pa.chunked_array(chunks, kind).unify_dictionaries().combine_chunks()
        plain = _has_each_value_once(joined.dictionary)
    except pa.ArrowInvalid:  # together they have more values than the index type can number; the rows may not
        plain = False
    if plain:
        encoded = joined.indices.dictionary_encode()
        values = joined.dictionary.take(encoded.dictionary)
    else:
        encoded = _joined([chunk.dictionary_decode() for chunk in chunks], kind.value_type).dictionary_encode()
        values = encoded.dictionary
    try:
        indices = encoded.indices.cast(kind.index_type)
    except pa.ArrowInvalid:
        raise RunError(
            f"column {name!r} has {len(values)} different values, more than {kind.index_type} can number; "
            "give it a wider index type"
        ) from None
    return pa.DictionaryArray.from_arrays(_clean(indices), _clean(values))


def _has_each_value_once(values: pa.Array) -> bool:
    return not values.null_count and pc.count_distinct(values).as_py() == len(values)


def _clean(array: Any) -> Any:
    """`array` with nothing under its nulls and nothing that its rows do not refer to."""
    kind, rows = array.type, len(array)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _clean(array.storage))
    if pa.types.is_null(kind):
        return pa.nulls(rows)
    if not pa.types.is_nested(kind):
        if array.null_count or pa.types.is_boolean(kind):
            return array.take(pa.array(np.arange(rows)))  # take writes zeros under nulls
        return _trimmed(array)
    if isinstance(kind, pa.StructType):
        children = [_clean(child) for child in array.flatten()]  # flatten: a child of a null is null
        return pa.Array.from_buffers(kind, rows, [_mask(array)], children=children)
    present = array.drop_null() if array.null_count else array
    if isinstance(kind, pa.FixedSizeListType):
        size = kind.list_size
        child = present.values.slice(present.offset * size, len(present) * size)
        if array.null_count:
            missing = np.repeat(np.asarray(array.is_null()), size)
            numbers = np.cumsum(~missing) - 1
            child = child.take(pa.array(numbers, mask=missing))
        return pa.Array.from_buffers(kind, rows, [_mask(array)], children=[_clean(child)])
    bounds = value_bounds(present)
    lengths = np.zeros(rows + 1, bounds.dtype)
    lengths[np.flatnonzero(np.asarray(array.is_valid())) + 1] = np.diff(bounds)
    offsets = pa.py_buffer(np.cumsum(lengths, dtype=bounds.dtype))
    child = _clean(present.values.slice(int(bounds[0]), int(bounds[-1] - bounds[0])))
    return pa.Array.from_buffers(kind, rows, [_mask(array), offsets], children=[child])


def _trimmed(array: Any) -> Any:
    """A column without nulls and without the bytes around it, which would end up in the padding of a file."""
    kind, rows, buffers = array.type, len(array), array.buffers()
    if len(buffers) == 2:
        width = kind.bit_width // 8
        return pa.Array.from_buffers(kind, rows, [None, _part(buffers[1], array.offset * width, rows * width)])
    bounds = value_bounds(array)
    values = _part(buffers[2], int(bounds[0]), int(bounds[-1] - bounds[0]))
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(bounds - bounds[0]), values])


def _part(data: pa.Buffer | None, start: int, nbytes: int) -> pa.Buffer:
    return pa.py_buffer(b"") if data is None else data.slice(start, nbytes)


def value_bounds(array: Any) -> npt.NDArray[Any]:
    """Where the values of each row of a list, map, string or bytes column begin and end: ``rows + 1`` offsets."""
    types, kind = pa.types, array.type
    wide = types.is_large_list(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
    width = np.dtype(np.int64 if wide else np.int32)
    if not len(array):
        return np.zeros(1, width)
    return np.frombuffer(array.buffers()[1], width, len(array) + 1, array.offset * width.itemsize)


def _mask(array: Any) -> pa.Buffer | None:
    if not array.null_count:
        return None
    return pa.py_buffer(np.packbits(np.asarray(array.is_valid()), bitorder="little"))
