"""Random Arrow columns: rows as plain Python values, and many memory layouts that mean the same rows.

`column_types` draws a type, `rows_of` the values of a column of it, `tidy` lays them out as Arrow does, and `messy`
as Arrow may: offsets, values nobody refers to, garbage under nulls, validity where nothing is null, shuffled dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

__all__ = ["ENCODED", "column_types", "cuts", "messy", "rows_of", "tidy"]

NS = pa.timestamp("ns", "UTC")
INTEGERS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
FIXED = [*INTEGERS, pa.float32(), pa.float64(), NS, pa.duration("us"), pa.date32(), pa.time64("ns"), pa.binary(3)]
FIXED += [pa.decimal128(9, 2)]
VARIABLE = [pa.utf8(), pa.large_utf8(), pa.binary(), pa.large_binary()]
ENCODED = [pa.dictionary(pa.int8(), pa.utf8()), pa.dictionary(pa.int32(), pa.int64())]
LEAVES = [*FIXED, *VARIABLE, pa.bool_()]


def column_types(*, nested: bool = True, dictionaries: bool = True, exotic: bool = False) -> st.SearchStrategy[Any]:
    """Types of a column: leaves, dictionaries, tensors, and lists, structs and maps of them two levels deep."""
    leaves = st.sampled_from([*LEAVES, *(ENCODED if dictionaries else [])])
    if exotic:
        leaves |= st.just(pa.null())
    if not nested:
        return leaves

    def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        kinds = [
            inner.map(pa.list_),
            inner.map(pa.large_list),
            st.tuples(inner, st.integers(1, 3)).map(lambda pair: pa.list_(*pair)),
            st.lists(inner, min_size=1, max_size=3).map(
                lambda kinds: pa.struct([(f"f{i}", kind) for i, kind in enumerate(kinds)])
            ),
            inner.map(lambda kind: pa.map_(pa.utf8(), kind)),
        ]
        return st.one_of(*kinds)

    tensors = st.sampled_from([pa.fixed_shape_tensor(pa.float32(), [2, 2]), pa.fixed_shape_tensor(pa.uint8(), [3])])
    alone = [st.sampled_from([pa.string_view(), pa.binary_view()])] if exotic else []
    return st.one_of(leaves, tensors, grow(leaves), grow(grow(leaves)), *alone)


def _is_list(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.ListType | pa.LargeListType)


def _values(kind: pa.DataType, nulls: bool) -> st.SearchStrategy[Any]:
    types = pa.types
    one: st.SearchStrategy[Any]
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        one = st.lists(_values(kind.value_type, False), min_size=kind.list_size, max_size=kind.list_size)
    elif isinstance(kind, pa.DictionaryType):
        one = _values(kind.value_type, False)
    elif types.is_null(kind):
        return st.none()
    elif isinstance(kind, pa.StructType):
        one = st.fixed_dictionaries(
            {kind.field(i).name: _values(kind.field(i).type, nulls) for i in range(kind.num_fields)}
        )
    elif isinstance(kind, pa.MapType):
        one = st.lists(st.tuples(st.sampled_from(["a", "b"]), _values(kind.item_type, nulls)), max_size=2)
    elif isinstance(kind, pa.FixedSizeListType):
        one = st.lists(_values(kind.value_type, nulls), min_size=kind.list_size, max_size=kind.list_size)
    elif _is_list(kind):
        one = st.lists(_values(kind.value_type, nulls), max_size=3)
    elif types.is_boolean(kind):
        one = st.booleans()
    elif types.is_floating(kind):
        one = st.sampled_from([0.0, 1.0, -1.5, 3.25, float("inf"), 2.0**-20])
    elif types.is_fixed_size_binary(kind):
        one = st.sampled_from([b"abc", b"\0\0\0", b"xyz"])
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        one = st.sampled_from(["", "a", "b", "ab", "é\U0001f600", "a string of more than twelve bytes"])
    elif types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        one = st.sampled_from([b"", b"a", b"\0", b"\xff\xfe", b"more than twelve bytes here"])
    elif types.is_decimal(kind):
        one = st.sampled_from([Decimal("0.00"), Decimal("-1.25"), Decimal("99999.99")])
    elif types.is_integer(kind):
        signed = types.is_signed_integer(kind)
        top = 2 ** (kind.bit_width - signed) - 1
        one = st.sampled_from([0, 1, 2, top, -top - 1 if signed else 3])
    else:
        one = st.sampled_from([0, 1, 10**6, 86_399])
    return st.one_of(st.none(), one) if nulls else one


def rows_of(kind: pa.DataType, rows: int, *, nulls: bool = True) -> st.SearchStrategy[list[Any]]:
    """`rows` Python values of a column of `kind`."""
    return st.lists(_values(kind, nulls), min_size=rows, max_size=rows)


def cuts(rows: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Ways to cut `rows` rows into consecutive pieces, empty ones included."""
    return st.lists(st.integers(0, rows), max_size=5).map(
        lambda inner: list(zip([0, *sorted(inner)], [*sorted(inner), rows], strict=True))
    )


def tidy(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """The layout that Arrow's own builder gives."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def messy(kind: pa.DataType, values: Sequence[Any], random: Random) -> pa.Array:
    """The same rows in a layout that Arrow allows and a careless reader gets wrong."""
    before, after = random.randrange(9), random.randrange(3)
    padded = [*(_junk(kind, random) for _ in range(before)), *values, *(_junk(kind, random) for _ in range(after))]
    array = _lay_out(kind, padded, random).slice(before, len(values))
    array.validate(full=True)
    return array


def _lay_out(kind: pa.DataType, values: list[Any], random: Random) -> pa.Array:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _lay_out(kind.storage_type, values, random))
    if types.is_null(kind) or types.is_string_view(kind) or types.is_binary_view(kind):
        return pa.array(values, kind)
    missing = [value is None for value in values]
    mask = None
    if any(missing) or random.random() < 0.5:
        bits = np.packbits(~np.array(missing, bool), bitorder="little")
        mask = pa.py_buffer(np.append(bits, np.uint8(0xAA)))
    filled = [_junk(kind, random) if value is None else value for value in values]
    rows = len(values)
    if isinstance(kind, pa.DictionaryType):
        entries = [*dict.fromkeys(filled), *(_junk(kind, random) for _ in range(2))]
        random.shuffle(entries)
        indices = [random.choice([i for i, entry in enumerate(entries) if entry == value]) for value in filled]
        numbers = pa.array(indices, kind.index_type)
        numbers = pa.Array.from_buffers(kind.index_type, rows, [mask, numbers.buffers()[1]])
        return pa.DictionaryArray.from_arrays(numbers, messy(kind.value_type, entries, random))
    if isinstance(kind, pa.StructType):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        children = [messy(f.type, [value[f.name] for value in filled], random) for f in fields]
        return pa.Array.from_buffers(kind, rows, [mask], children=children)
    if isinstance(kind, pa.FixedSizeListType):
        child = messy(kind.value_type, [item for value in filled for item in value], random)
        return pa.Array.from_buffers(kind, rows, [mask], children=[child])
    if isinstance(kind, pa.MapType) or _is_list(kind):
        entry: pa.DataType = kind.value_type if _is_list(kind) else pa.struct([kind.key_field, kind.item_field])
        items: list[Any] = [item for value in filled for item in value]
        if isinstance(kind, pa.MapType):
            items = [{"key": key, "value": value} for key, value in items]
        first = 0 if isinstance(kind, pa.MapType) else random.randrange(3)
        child = messy(entry, [_junk(entry, random)] * first + items, random)
        bounds = np.cumsum([first, *(len(value) for value in filled)])
        offsets = bounds.astype(np.int64 if isinstance(kind, pa.LargeListType) else np.int32)
        return pa.Array.from_buffers(kind, rows, [mask, pa.py_buffer(offsets)], children=[child])
    full = pa.array(filled, kind)
    return pa.Array.from_buffers(kind, rows, [mask, *full.buffers()[1:]])


def _junk(kind: pa.DataType, random: Random) -> Any:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _junk(kind.storage_type, random)
    if isinstance(kind, pa.DictionaryType):
        return _junk(kind.value_type, random)
    if types.is_null(kind):
        return None
    if isinstance(kind, pa.StructType):
        return {kind.field(i).name: _junk(kind.field(i).type, random) for i in range(kind.num_fields)}
    if isinstance(kind, pa.FixedSizeListType):
        return [_junk(kind.value_type, random) for _ in range(kind.list_size)]
    if isinstance(kind, pa.MapType):
        return [("k", _junk(kind.item_type, random))] * random.randrange(3)
    if _is_list(kind):
        return [_junk(kind.value_type, random)] * random.randrange(3)
    if types.is_boolean(kind):
        return random.random() < 0.5
    if types.is_floating(kind):
        return random.choice([7.5, float("nan")])
    if types.is_fixed_size_binary(kind):
        return random.choice([b"qqq", b"abc"])
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return random.choice(["junk", "", "ab"])
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return random.choice([b"junk", b""])
    if types.is_decimal(kind):
        return Decimal("7.77")
    return random.choice([1, 7, 99])
